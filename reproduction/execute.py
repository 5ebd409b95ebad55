"""Runs side by side, each a training script in a process of its own, stopped and resumed with it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tqdm import tqdm

from preprocessing.errors import UserError
from reproduction.records import PROJECT, Records
from reproduction.runs import DataState, Run, data_state
from training.report import RECORD

RUNS = PROJECT / "runs" / "reproduce"
LOG = "log.txt"
POLL_SECONDS = 0.5
SECONDS_WHEN_UNKNOWN = 600.0


@dataclass
class _Child:
    run: Run
    process: subprocess.Popen
    folder: Path
    start: float


def run_folder(run: Run, data: DataState, runs: Path = RUNS) -> Path:
    """Where a run's checkpoint, test logits and log are."""
    return runs / run.folder_name(data)


def missing_runs(runs: list[Run], records: Records, folder: Path = RUNS) -> list[Run]:
    """The runs that have no record; what stands finished in a run's folder is taken up on the way."""
    missing = []
    for run in runs:
        data = data_state(run.dataset, run.protocol)
        if records.current(run, data) is None and not _collect(run, data, records, folder):
            missing.append(run)
    return missing


def _collect(run: Run, data: DataState, records: Records, folder: Path) -> bool:
    path = run_folder(run, data, folder) / RECORD
    try:
        record = json.loads(path.read_bytes())
        if not run.is_record(record, data):
            return False
    except (FileNotFoundError, ValueError, KeyError):
        return False
    records.add(record)
    return True


def expected_seconds(run: Run, records: Records) -> float | None:
    """The time that a run may take: the median of such runs' so far, else of its model's; None where there are none."""
    own = run.recorded()
    same_model = [r for r in records.all(data_state(run.dataset, run.protocol).name) if r["model"] == run.model]
    ignored = {"seed": None, "protocol": None}
    alike = [r for r in same_model if r["settings"] | ignored == own | ignored]
    same_protocol = [r for r in alike if r["protocol"] == run.protocol]
    chosen = same_protocol or alike or same_model
    return median(r["train_seconds"] + r["data_seconds"] for r in chosen) if chosen else None


def execute(runs: list[Run], records: Records, jobs: int, device: str, folder: Path = RUNS) -> list[Run]:
    """Make the runs, `jobs` at a time, and keep their records; returns those that failed.

    Each run is a process with one thread on the CPU, so that its numbers do not depend on the machine's cores or on
    how many run at once. Stopped by Ctrl-C or a termination signal, the runs save their checkpoints; started again,
    they go on from there. Raises KeyboardInterrupt then, and UserError where another process works in the folder.
    """
    waiting, working, failed = list(runs), [], []
    expected = {run: expected_seconds(run, records) or SECONDS_WHEN_UNKNOWN for run in runs}
    num_ended = 0
    pace = [0.0, 0.0]  # seconds that finished runs took, and were expected to take
    with (
        _only_process(folder) as lock,
        _terminate_as_interrupt(),
        tqdm(total=len(runs), unit="run", disable=None) as bar,
    ):
        try:
            while waiting or working:
                while waiting and len(working) < jobs:
                    working.append(_start(waiting.pop(0), device, folder, lock))
                bar.set_description(", ".join(f"{c.run.model} {_epoch(c.folder)}" for c in working), refresh=False)
                bar.set_postfix_str(_left(waiting, working, expected, pace, jobs))
                time.sleep(POLL_SECONDS)
                for child in [c for c in working if c.process.poll() is not None]:
                    working.remove(child)
                    num_ended += 1
                    bar.update()
                    data = data_state(child.run.dataset, child.run.protocol)
                    if child.process.returncode == 0 and _collect(child.run, data, records, folder):
                        pace[0] += time.monotonic() - child.start
                        pace[1] += expected[child.run]
                        outcome = _result(records.current(child.run, data))
                    else:
                        failed.append(child.run)
                        outcome = f"FAILED: {_last_line(child.folder / LOG)} (all of it: {child.folder / LOG})"
                    left = _left(waiting, working, expected, pace, jobs)
                    tqdm.write(f"[{num_ended}/{len(runs)}] {describe(child.run)}: {outcome}; {left}")
        finally:
            _stop(working)
    return failed


def describe(run: Run) -> str:
    """A run in a line."""
    changes = "".join(f", {name} {value}" for name, value in run.changes)
    return f"{run.dataset} {run.protocol} {run.model} seed {run.seed}{changes}"


def _result(record: dict) -> str:
    test = record["test"]
    took = readable(record["train_seconds"])
    return f"AUC {test['auc']:.4f}, logloss {test['logloss']:.4f}, gAUC {test['gauc']:.4f} in {took}"


def _left(waiting: list[Run], working: list[_Child], expected: dict[Run, float], pace: list[float], jobs: int) -> str:
    now = time.monotonic()
    factor = pace[0] / pace[1] if pace[1] else 1.0
    remaining = [expected[run] * factor for run in waiting]
    remaining += [max(0.0, expected[c.run] * factor - (now - c.start)) for c in working]
    if not remaining:
        return "none left"
    # The jobs share what waits, and none ends before its longest run.
    return f"about {readable(max(sum(remaining) / jobs, max(remaining)))} left"


def readable(seconds: float) -> str:
    """Seconds as a person says them: `1 h 05 min`, `12 min`, `40 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _start(run: Run, device: str, runs: Path, lock: int) -> _Child:
    folder = run_folder(run, data_state(run.dataset, run.protocol), runs)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *run.arguments(), "--output", str(folder), "--device", device, "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with open(folder / LOG, "ab") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # The lock stays taken until the last child is gone, even where this process is killed.
            pass_fds=(lock,),
            # Ctrl-C reaches this process alone, which tells its runs once.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    return _Child(run, process, folder, time.monotonic())


def _end_with_parent() -> None:
    # Linux: where the parent is killed without a word, its runs are told to save and stop.
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _stop(working: list[_Child]) -> None:
    for child in working:
        child.process.send_signal(signal.SIGTERM)
    for child in working:
        try:
            child.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            child.process.kill()


@contextlib.contextmanager
def _only_process(folder: Path) -> Iterator[int]:
    """One process at a time works in the folder; gives the lock's file descriptor."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "wb") as file:
        for _ in range(30):  # runs of a process that was killed take a moment to save and stop
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(1)
        else:
            raise UserError(
                f"{folder}: expected no other reproduce.py at work there, got one; wait for it, or stop it."
            )
        yield file.fileno()


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _epoch(folder: Path) -> str:
    epochs = [line for line in _lines(folder / LOG) if line.startswith("epoch ")]
    return f"epoch {epochs[-1].split()[1]}" if epochs else "starting"


def _last_line(path: Path) -> str:
    lines = [line for line in _lines(path) if line.strip()]
    return lines[-1] if lines else "no output"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
