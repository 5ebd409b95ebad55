"""Trials side by side, each a process of its own.

Of one study one trial runs at a time: what it tries depends on those before it, and so not on how many run at once.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from tqdm import tqdm

from preprocessing.errors import Stopped
from reproduction.processes import LOG, log_lines, readable, start_process, stop_processes, stop_requested, time_left
from tuning.study import COMPLETE, RESULT, TRIALS, Study

POLL_SECONDS = 0.5


@dataclass
class _Child:
    study: Study
    process: subprocess.Popen
    folder: Path


def expected_seconds(trials: list[dict]) -> float | None:
    """The time that another trial may take: the mean of those on record; None where there is none."""
    return mean(trial["seconds"] for trial in trials) if trials else None


def search(studies: list[Study], wanted: int, jobs: int, device: str, lock: int, folder: Path = TRIALS) -> None:
    """Make trials until each study has as many as are wanted, and keep their records.

    Raises KeyboardInterrupt where it is stopped, the running trials having saved where they are, and Stopped where a
    trial failed for another reason than its settings.

    Args:
        lock: what `only_process` gave.
    """
    trials = {study: study.trials() for study in studies}
    working: list[_Child] = []

    def missing(study: Study) -> int:
        return max(wanted - len(trials[study]), 0)

    def left() -> str:
        known = [seconds for made in trials.values() if (seconds := expected_seconds(made)) is not None]
        unknown = mean(known) if known else 0.0
        seconds = [missing(study) * (expected_seconds(trials[study]) or unknown) for study in studies]
        return f"about {readable(time_left(seconds, jobs))} left" if known else "time unknown"

    with stop_requested() as stop, tqdm(total=sum(map(missing, studies)), unit="trial", disable=None) as bar:
        try:
            while working or any(map(missing, studies)):
                if stop.requested:
                    raise KeyboardInterrupt
                idle = [s for s in studies if missing(s) and all(child.study != s for child in working)]
                # The fewest trials first, so that the studies go on side by side to the end.
                for study in sorted(idle, key=lambda s: len(trials[s]))[: jobs - len(working)]:
                    working.append(_start(study, len(trials[study]), device, folder, lock))
                bar.set_description(", ".join(f"{c.study.model} {c.folder.name}" for c in working), refresh=False)
                bar.set_postfix_str(left())
                time.sleep(POLL_SECONDS)
                for child in [c for c in working if c.process.poll() is not None]:
                    working.remove(child)
                    record = _record(child)
                    child.study.add(record)
                    trials[child.study].append(record)
                    shutil.rmtree(child.folder)  # its checkpoint is of no more use
                    bar.update()
                    tqdm.write(f"{child.study.name} {child.study.model} {_outcome(record)}; {left()}")
        finally:
            stop_processes([child.process for child in working])


def _start(study: Study, number: int, device: str, trials: Path, lock: int) -> _Child:
    folder = study.folder(number, trials)
    arguments = ["-m", "tuning.trial", "--dataset", study.dataset, "--protocol", study.protocol]
    arguments += ["--model", study.model, "--seed", str(study.seed), "--found", str(study.found.resolve())]
    arguments += ["--folder", str(folder.resolve()), "--device", device]
    return _Child(study, start_process(arguments, folder, lock), folder)


def _record(child: _Child) -> dict:
    try:
        return json.loads((child.folder / RESULT).read_text())
    except FileNotFoundError:
        lines = [line for line in log_lines(child.folder) if line.strip()]
        raise Stopped(
            f"{child.study.name} {child.study.model}, trial {child.folder.name}: exit code {child.process.returncode}, "
            f"{lines[-1] if lines else 'no output'} (see {child.folder / LOG}). What was made is on record."
        ) from None


def _outcome(record: dict) -> str:
    epochs = f"after {len(record['history'])} epochs"
    state = "" if record["state"] == COMPLETE else f", {record['state']} {epochs}"
    auc = "no AUC" if record["valid_auc"] is None else f"valid AUC {record['valid_auc']:.4f}"
    return f"trial {record['number']}: {auc}{state} in {readable(record['seconds'])}"
