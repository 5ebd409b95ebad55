"""What every command does before and after its work: read its line at once, turn mistakes into one line.

A command reads its line first and imports torch and the like below it, since that takes seconds:

    if __name__ == "__main__":
        arguments = read_command_line(parse)

    import torch
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from preprocessing.errors import Stopped, UserError

EXIT_OK, EXIT_STOPPED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130

# How often an idle thread of libgomp looks for work before it sleeps. Its own default, some 300,000 times, keeps a core
# from whoever needs it: two runs on two cores then train at a third of the speed (docs/speed.md).
SPINS = "1000"

Read = TypeVar("Read")


class Parser(argparse.ArgumentParser):
    """argparse whose flags are written out in full, and whose mistakes are one line and exit code 2."""

    def __init__(self, **options):
        super().__init__(**{"allow_abbrev": False} | options)

    def error(self, message: str) -> None:
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


def read_command_line(parse: Callable[[list[str]], Read]) -> Read:
    """What `parse` makes of the words after the command; leaves with code 2 on a mistake.

    Called before torch is imported, whose threads are told here not to spin for long, unless the person has said how
    they should wait. Until `exit_code` takes over, Ctrl-C ends the process in a line.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    read = []
    code = exit_code(lambda: read.append(parse(sys.argv[1:])), NOTHING_DONE)
    if code != EXIT_OK:
        sys.exit(code)
    signal.signal(signal.SIGINT, _leave_quietly)
    return read[0]


NOTHING_DONE = "nothing was done yet."


def _leave_quietly(*_) -> None:
    """Ctrl-C during imports: an exception might be taken for a fault of the module that it hits."""
    os.write(2, f"\nstopped; {NOTHING_DONE}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def exit_code(main: Callable[[], int | None], advice: str = "nothing was written.") -> int:
    """Run a command and turn mistakes into one line on stderr; `advice` is for who stopped it.

    Returns what `main` returns, 0 for None; 1 where it could not go on, 2 for a user's mistake, 130 for Ctrl-C.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return main() or EXIT_OK
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}; check the path.", file=sys.stderr)
        return EXIT_USER_ERROR
    except Stopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt as stop:
        # One that the work itself raised says what was saved.
        print(f"\nstopped: {stop}" if str(stop) else f"\nstopped; {advice}", file=sys.stderr)
        return EXIT_INTERRUPTED
