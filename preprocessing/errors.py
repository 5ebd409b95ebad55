"""The exceptions that are told in a line, without a traceback."""

import errno


class UserError(ValueError):
    """Bad input: its text is one line that says where, what was expected, what came and what to do.

    The training scripts print that line and leave with exit code 2, without a traceback.
    """


class Stopped(Exception):
    """The work cannot go on, and it is nobody's mistake in what was asked for; exit code 1."""


def in_words(error: Exception) -> str:
    """A kind of error and what it says, in a line of a sensible length: some bring all that they were given."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


# torch says it in a plain RuntimeError: memory that is refused, and sizes that no memory has. The last is numpy's.
_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
    "Maximum allowed dimension exceeded",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of Python, numpy, torch or the system, says that memory is too small."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError | ValueError) and any(text in str(error) for text in _NO_MEMORY)
