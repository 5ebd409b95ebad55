"""What every command does before and after its work: read its line at once, turn mistakes into one line.

A command reads its line first and imports torch and the like below it, since that takes seconds:

    if __name__ == "__main__":
        arguments = read_command_line(parse)

    import torch
"""

from __future__ import annotations

import argparse
import atexit
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from preprocessing.errors import Stopped, UserError, is_out_of_memory

EXIT_OK, EXIT_STOPPED, EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 0, 1, 2, 130, 141

# How often an idle thread of libgomp looks for work before it sleeps. Its own default, some 300,000 times, keeps a core
# from whoever needs it: two runs on two cores then train at a third of the speed (docs/speed.md).
SPINS = "1000"

Read = TypeVar("Read")


class Parser(argparse.ArgumentParser):
    """argparse whose flags are written out in full, and whose mistakes are one line and exit code 2."""

    def __init__(self, **options):
        super().__init__(**{"allow_abbrev": False} | options)

    def error(self, message: str) -> None:
        if not is_first_process():
            time.sleep(SECONDS_OF_THE_FIRST)
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {message} (--help lists the flags)\n")


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def positive_number(text: str) -> float:
    """Parse a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def file_to_write(text: str) -> Path:
    """Parse the path of a file that a command will write, at the end of work that should not be lost then."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that is there, got {text!r}")
    return path


def read_command_line(parse: Callable[[list[str]], Read]) -> Read:
    """What `parse` makes of the words after the command; leaves with code 2 on a mistake.

    Called before torch is imported, whose threads are told here not to spin for long, unless the person has said how
    they should wait. Until `exit_code` takes over, Ctrl-C ends the process in a line.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if not is_first_process():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if number_of_process()[1] > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings come once from every process
    read = []
    code = exit_code(lambda: read.append(parse(sys.argv[1:])), NOTHING_DONE)
    if code != EXIT_OK:
        sys.exit(code)
    signal.signal(signal.SIGINT, _leave_quietly)
    return read[0]


# A mistake is mostly all processes' own: while the others wait, the first one says it and ends, and torchrun ends them.
# Who is still there then has one that is its own.
SECONDS_OF_THE_FIRST = 3.0


def number_of_process() -> tuple[int, int]:
    """This process's number, from 0, and how many torchrun started; 0 and 1 for one that is alone."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    return (int(os.environ.get("RANK", 0)), count) if count > 1 else (0, 1)


def is_first_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one: it speaks for all."""
    return number_of_process()[0] == 0


NOTHING_DONE = "nothing was done yet."


def _leave_quietly(*_) -> None:
    """Ctrl-C during imports: an exception might be taken for a fault of the module that it hits."""
    if is_first_process():
        os.write(2, f"\nstopped; {NOTHING_DONE}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def exit_code(main: Callable[[], int | None], advice: str = "nothing was written.") -> int:
    """Run a command and turn mistakes into one line on stderr; `advice` is for who stopped it.

    Returns what `main` returns, 0 for None; 1 where it could not go on, 2 for a user's mistake, 130 for Ctrl-C; 141,
    without a word, where nobody reads what is printed any more (`| head -1`).
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    leaves = False
    try:
        try:
            code = main() or EXIT_OK
        except SystemExit as end:  # --help, or a line that argparse refused
            code, leaves = end.code or EXIT_OK, True
        except BaseException as error:
            code = _told(error, advice)
        # Here: at its end Python would flush by itself, and complain in lines of its own.
        problem = _flush_stdout()
        if problem is not None and code == EXIT_OK:
            code = _told_of_stdout(problem)
    except KeyboardInterrupt:  # a second one, while the first was told
        return EXIT_INTERRUPTED
    finally:
        # Python takes a moment to leave, and Ctrl-C then would be a traceback of whatever it takes down.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
    if leaves:
        sys.exit(code)
    return code


def _told(error: BaseException, advice: str) -> int:
    """Say in a line what ended a command; returns its exit code. Raises again what is a mistake of the code."""
    if isinstance(error, KeyboardInterrupt):
        # One that the work itself raised says what was saved.
        if is_first_process():
            _say(f"\nstopped: {error}" if str(error) else f"\nstopped; {advice}")
        return EXIT_INTERRUPTED
    if not is_first_process():
        time.sleep(SECONDS_OF_THE_FIRST)
    if isinstance(error, Stopped):
        _say(f"stopped: {error}")
        return EXIT_STOPPED
    if isinstance(error, UserError):
        _say(f"error: {error}")
    elif is_out_of_memory(error):
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        _say(
            f"error: expected memory for what was asked for, got too little ({reason}); ask for less (a smaller "
            "model, smaller batches, fewer rows), or take a machine with more."
        )
    elif isinstance(error, OSError):
        problem = _flush_stdout() or (error if isinstance(error, BrokenPipeError) else None)
        if problem is not None:
            return _told_of_stdout(problem)
        reason = error.strerror or error
        if error.filename is None:  # as where print fails with more than it keeps for another try
            _say(f"error: stdout or a file: {reason}; check where the output goes.")
        else:
            _say(f"error: {error.filename}: {reason}; check the path.")
    else:
        raise error
    return EXIT_USER_ERROR


def _told_of_stdout(problem: OSError) -> int:
    if isinstance(problem, BrokenPipeError):  # who read it has read enough
        return EXIT_BROKEN_PIPE
    _say(f"error: stdout: {problem.strerror or problem}; not all of what was printed is there.")
    return EXIT_USER_ERROR


def _flush_stdout() -> OSError | None:
    """Write out what was printed; returns why that fails, after which stdout leads nowhere."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return problem
    return None


def _say(text: str) -> None:
    number, count = number_of_process()
    if number:
        text = f"process {number + 1} of {count}: {text.lstrip()}"
    if sys.stderr is not None:
        with suppress(OSError):  # a terminal that is gone: the exit code still says it
            print(text, file=sys.stderr, flush=True)
