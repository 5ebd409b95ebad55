"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from training.distributed import num_processes


@contextmanager
def catch_signals() -> Iterator[threading.Event]:
    """Within the block, a first SIGINT, SIGTERM or SIGHUP sets the event; a second one ends the process as usual.

    Of several processes each waits until all have seen it.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    previous = {}

    def request(number, frame) -> None:
        requested.set()
        if num_processes() > 1:  # one Ctrl-C comes from the terminal and from torchrun, which kills who takes too long
            return
        for caught, handler in previous.items():
            signal.signal(caught, handler)

    hang_up = getattr(signal, "SIGHUP", None)  # of a connection that dropped; not on Windows
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:  # nohup has it ignored
        numbers.append(hang_up)
    for number in numbers:
        previous[number] = signal.signal(number, request)
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
