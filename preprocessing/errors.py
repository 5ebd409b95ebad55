"""The exceptions that are told in a line, without a traceback."""


class UserError(ValueError):
    """Bad input: its text is one line that says where, what was expected, what came and what to do.

    The training scripts print that line and leave with exit code 2, without a traceback.
    """


class Stopped(Exception):
    """The work cannot go on, and it is nobody's mistake in what was asked for; exit code 1."""
