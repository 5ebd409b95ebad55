"""Runs side by side, each a training script in a process of its own, stopped and resumed with it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tqdm import tqdm

from experiment.flags import as_flag
from experiment.settings import ON_SAMPLE
from experiment.tuned import tuned_settings
from reproduction.folders import RUNS, record_in_folder, run_folder
from reproduction.plans import SEARCH_OF
from reproduction.processes import (
    LOG,
    log_lines,
    readable,
    reason_of_end,
    start_process,
    stop_processes,
    stop_requested,
    time_left,
)
from reproduction.records import Records
from reproduction.runs import DATA_NAMES, Run
from training import CHECKPOINT

POLL_SECONDS = 0.5
SECONDS_WHEN_UNKNOWN = 600.0


@dataclass
class _Child:
    run: Run
    process: subprocess.Popen
    folder: Path
    start: float
    resumed: bool


def expected_seconds(run: Run, records: Records) -> float | None:
    """The time that a run may take: the median of such runs' so far, else of its model's; None where there are none."""
    own = run.recorded()
    same_model = [r for r in records.all(run.data_state().name) if r["model"] == run.model]
    ignored = {"seed": None, "protocol": None}
    alike = [r for r in same_model if r["settings"] | ignored == own | ignored]
    same_protocol = [r for r in alike if r["protocol"] == run.protocol]
    chosen = same_protocol or alike or same_model
    return median(r["train_seconds"] + r["data_seconds"] for r in chosen) if chosen else None


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

    with stop_requested() as stop, tqdm(total=len(runs), unit="run", disable=None) as bar:
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
            stop_processes([child.process for child in working])
    return failed


def describe(run: Run) -> str:
    """A run in a line; settings that a search found are not listed one by one."""
    changes, words = dict(run.changes), []
    found = tuned_settings(DATA_NAMES.get(run.dataset, run.dataset), run.protocol)
    of_model = found.get(SEARCH_OF.get(run.model, run.model))
    if of_model and of_model.keys() <= changes.keys():
        words = ["as found"]
        changes = {name: value for name, value in changes.items() if of_model.get(name) != value}
    words += [f"{name} {value}" for name, value in changes.items()]
    return ", ".join([f"{run.dataset} {run.protocol} {run.model} seed {run.seed}", *words])


def _result(record: dict) -> str:
    test = record["test"]
    took = readable(record["train_seconds"])
    return f"AUC {test['auc']:.4f}, logloss {test['logloss']:.4f}, gAUC {test['gauc']:.4f} in {took}"


def _start(run: Run, device: str, runs: Path, lock: int) -> _Child:
    folder = run_folder(run, run.data_state(), runs)
    resumed = (folder / CHECKPOINT).exists()
    arguments = command_of(run, folder, device)
    return _Child(run, start_process(arguments, folder, lock), folder, time.monotonic(), resumed)


def command_of(run: Run, folder: Path, device: str) -> list[str]:
    """What makes a run in its folder, after `python`.

    It names what a script shortens by itself on the sample that stands in for real data, to be a first look.
    """
    settings = run.settings()
    named = [word for name in ON_SAMPLE for word in as_flag(name, getattr(settings, name)).split()]
    return [*run.arguments(), *named, "--output", str(folder), "--device", device, "--resume"]


def _failure(child: _Child) -> str:
    reason = "its record is of other code or data than stand here now; were files changed while it ran?"
    if child.process.returncode:
        reason = reason_of_end(child.process.returncode, child.folder)
    return f"FAILED: {reason} (see {child.folder / LOG})"


def _epoch(folder: Path) -> str:
    epochs = [line for line in log_lines(folder) if line.startswith("epoch ")]
    return f"epoch {epochs[-1].split()[1]}" if epochs else "starting"
