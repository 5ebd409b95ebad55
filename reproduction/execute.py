"""Runs side by side, each a training script in a process of its own, stopped and resumed with it."""

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
from statistics import median

from tqdm import tqdm

from preprocessing.errors import UserError
from preprocessing.sources import ENVIRONMENT_VARIABLE
from reproduction.folders import RUNS, record_in_folder, run_folder
from reproduction.records import PROJECT, Records
from reproduction.runs import Run
from training import CHECKPOINT

LOG = "log.txt"
POLL_SECONDS = 0.5
STOP_SECONDS = 60  # for a run to save its checkpoint
SECONDS_WHEN_UNKNOWN = 600.0

_LIBC = ctypes.CDLL(None)  # loaded here: a child may do little between fork and exec


@dataclass
class _Child:
    run: Run
    process: subprocess.Popen
    folder: Path
    start: float
    resumed: bool


@contextmanager
def only_process(folder: Path = RUNS) -> Iterator[int]:
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
                    print(f"{folder}: another reproduce.py, or a run that it left, is at work; waiting.", flush=True)
                time.sleep(1)
        else:
            raise UserError(f"{folder}: expected no other reproduce.py at work, got one; wait for it, or stop it.")
        yield file.fileno()


def expected_seconds(run: Run, records: Records) -> float | None:
    """The time that a run may take: the median of such runs' so far, else of its model's; None where there are none."""
    own = run.recorded()
    same_model = [r for r in records.all(run.data_state().name) if r["model"] == run.model]
    ignored = {"seed": None, "protocol": None}
    alike = [r for r in same_model if r["settings"] | ignored == own | ignored]
    same_protocol = [r for r in alike if r["protocol"] == run.protocol]
    chosen = same_protocol or alike or same_model
    return median(r["train_seconds"] + r["data_seconds"] for r in chosen) if chosen else None


def one_thread() -> dict[str, str]:
    """The environment of a process with one thread, whatever folder it is started in."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if named := environment.get(ENVIRONMENT_VARIABLE):
        environment[ENVIRONMENT_VARIABLE] = os.path.abspath(named)
    return environment


def time_left(seconds: list[float], jobs: int) -> float:
    """How long runs take that need so many seconds each: they share the jobs, and none is split."""
    return max(sum(seconds) / jobs, *seconds, 0.0)


def execute(runs: list[Run], records: Records, jobs: int, device: str, lock: int, folder: Path = RUNS) -> list[Run]:
    """Make the runs, `jobs` at a time, and keep their records; returns those that failed.

    Each run is a process with one thread on the CPU, so that its numbers do not depend on the machine's cores or on
    how many run at once. Stopped by Ctrl-C or a termination signal, the runs save their checkpoints; started again,
    they go on from there. Raises KeyboardInterrupt then.

    Args:
        lock: what `only_process` gave; the runs hold it too, until the last is gone.
    """
    waiting, working, failed = list(runs), [], []
    expected = {run: expected_seconds(run, records) for run in runs}
    taken, foreseen = 0.0, 0.0  # seconds of the runs that ended, and those that were expected of them

    def left() -> str:
        pace = taken / foreseen if foreseen else 1.0
        seconds = [pace * (expected[run] or SECONDS_WHEN_UNKNOWN) for run in waiting]
        for child in working:
            whole = pace * (expected[child.run] or SECONDS_WHEN_UNKNOWN)
            seconds.append(max(whole / 20, whole - (time.monotonic() - child.start)))
        return f"about {readable(time_left(seconds, jobs))} left" if seconds else "none left"

    with _stop_requested() as stop, tqdm(total=len(runs), unit="run", disable=None) as bar:
        try:
            while waiting or working:
                while waiting and len(working) < jobs and not stop.requested:
                    working.append(_start(waiting.pop(0), device, folder, lock))
                if stop.requested:
                    raise KeyboardInterrupt
                bar.set_description(", ".join(f"{c.run.model} {_epoch(c.folder)}" for c in working), refresh=False)
                bar.set_postfix_str(left())
                time.sleep(POLL_SECONDS)
                for child in [c for c in working if c.process.poll() is not None]:
                    working.remove(child)
                    bar.update()
                    data = child.run.data_state()
                    record = record_in_folder(child.run, data, folder)
                    if child.process.returncode == 0 and record is not None:
                        records.add(record)
                        outcome = _result(record)
                        if expected[child.run] and not child.resumed:
                            taken += time.monotonic() - child.start
                            foreseen += expected[child.run]
                        expected.update({run: expected_seconds(run, records) for run in waiting})
                    else:
                        failed.append(child.run)
                        outcome = _failure(child)
                    ended = len(runs) - len(waiting) - len(working)
                    tqdm.write(f"[{ended}/{len(runs)}] {describe(child.run)}: {outcome}; {left()}")
        finally:
            _stop(working)
    return failed


def describe(run: Run) -> str:
    """A run in a line."""
    changes = "".join(f", {name} {value}" for name, value in run.changes)
    return f"{run.dataset} {run.protocol} {run.model} seed {run.seed}{changes}"


def readable(seconds: float) -> str:
    """Seconds as a person says them: `1 h 05 min`, `12 min`, `40 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _result(record: dict) -> str:
    test = record["test"]
    took = readable(record["train_seconds"])
    return f"AUC {test['auc']:.4f}, logloss {test['logloss']:.4f}, gAUC {test['gauc']:.4f} in {took}"


def _failure(child: _Child) -> str:
    code = child.process.returncode
    if code == 0:
        reason = "its record is of other code or data than stand here now; were files changed while it ran?"
    elif code < 0:
        reason = f"killed by {signal.Signals(-code).name}"
    else:
        lines = [line for line in _lines(child.folder) if line.strip()]
        reason = f"exit code {code}, {lines[-1] if lines else 'no output'}"
    return f"FAILED: {reason} (see {child.folder / LOG})"


def _start(run: Run, device: str, runs: Path, lock: int) -> _Child:
    folder = run_folder(run, run.data_state(), runs)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *run.arguments(), "--output", str(folder), "--device", device, "--resume"]
    parent = os.getpid()

    def end_with_parent() -> None:
        # Linux: where the parent is killed without a word, its runs are told to save and stop.
        set_parent_death_signal = 1
        _LIBC.prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    resumed = (folder / CHECKPOINT).exists()
    with open(folder / LOG, "wb") as log:
        process = subprocess.Popen(
            command,
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
    return _Child(run, process, folder, time.monotonic(), resumed)


def _stop(working: list[_Child]) -> None:
    for child in working:
        child.process.send_signal(signal.SIGTERM)
    for child in working:
        try:
            child.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


@dataclass
class _StopRequest:
    requested: bool = False


@contextmanager
def _stop_requested() -> Iterator[_StopRequest]:
    """Ctrl-C, a termination signal and a dropped connection are noted, and looked at between two steps.

    None is lost, none cuts a step.
    """
    stop = _StopRequest()

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


def _epoch(folder: Path) -> str:
    epochs = [line for line in _lines(folder) if line.startswith("epoch ")]
    return f"epoch {epochs[-1].split()[1]}" if epochs else "starting"


def _lines(folder: Path) -> list[str]:
    try:
        return (folder / LOG).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
