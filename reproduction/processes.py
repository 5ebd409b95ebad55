"""Processes side by side, one thread each, that go with the one that started them; what runs and trials share."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiment.code_version import PROJECT
from preprocessing.errors import UserError
from preprocessing.sources import ENVIRONMENT_VARIABLE

LOG = "log.txt"
STOP_SECONDS = 60  # for a run to save its checkpoint

_LIBC = ctypes.CDLL(None)  # loaded here: a child may do little between fork and exec


@contextmanager
def only_process(folder: Path) -> Iterator[int]:
    """One process at a time makes runs and keeps records; gives the lock's file descriptor.

    Raises UserError where another one is at work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "wb") as file:
        for second in range(STOP_SECONDS + 10):  # runs of a process that was killed take a moment to save and stop
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if second == 1:
                    print(f"{folder}: another process makes runs here, or a run that one left; waiting.", flush=True)
                time.sleep(1)
        else:
            raise UserError(
                f"{folder}: expected no other process that makes runs here, got one; wait for it, or stop it."
            )
        yield file.fileno()


def one_thread() -> dict[str, str]:
    """The environment of a process with one thread, whatever folder it is started in."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if named := environment.get(ENVIRONMENT_VARIABLE):
        environment[ENVIRONMENT_VARIABLE] = os.path.abspath(named)
    return environment


def time_left(seconds: list[float], jobs: int) -> float:
    """How long runs take that need so many seconds each: they share the jobs, and none is split."""
    return max(sum(seconds) / jobs, *seconds, 0.0)


def readable(seconds: float) -> str:
    """Seconds as a person says them: `1 h 05 min`, `12 min`, `40 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def start_process(arguments: list[str], folder: Path, lock: int) -> subprocess.Popen:
    """A Python process with one thread, in the project's root; what it prints goes to log.txt in the folder.

    Args:
        arguments: of `python`.
        lock: what `only_process` gave; the process holds it too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()

    def end_with_parent() -> None:
        # Linux: where the parent is killed without a word, its runs are told to save and stop.
        set_parent_death_signal = 1
        _LIBC.prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    with open(folder / LOG, "wb") as log:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=one_thread() | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # The lock stays taken until the last child is gone, even where this process is killed.
            pass_fds=(lock,),
            # Ctrl-C reaches this process alone, which tells its runs once.
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )


def stop_processes(processes: list[subprocess.Popen]) -> None:
    """Have processes save their checkpoints and end; one that does not is killed."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class StopRequest:
    """Whether a person asked to stop."""

    requested: bool = False


@contextmanager
def stop_requested() -> Iterator[StopRequest]:
    """Ctrl-C, a termination signal and a dropped connection are noted, and looked at between two steps.

    None is lost, none cuts a step.
    """
    stop = StopRequest()

    def note(*_) -> None:
        stop.requested = True

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # of a connection that dropped; nohup has it ignored
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_lines(folder: Path) -> list[str]:
    """What a process has printed so far."""
    try:
        return (folder / LOG).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def reason_of_end(code: int, folder: Path) -> str:
    """Why a process ended with a code that is not 0, in a few words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line for line in log_lines(folder) if line.strip()]
    return f"exit code {code}, {lines[-1] if lines else 'no output'}"
