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
from statistics import mean, median

from tqdm import tqdm

from preprocessing.errors import Stopped
from reproduction.processes import (
    LOG,
    readable,
    reason_of_end,
    start_process,
    stop_processes,
    stop_requested,
    time_left,
)
from tuning.study import COMPLETE, LENGTHS, RESULT, TRIALS, Study

POLL_SECONDS = 0.5


@dataclass
class _Child:
    study: Study
    process: subprocess.Popen
    folder: Path


def expected_seconds(study: Study, trials: list[dict], wanted: int) -> float | None:
    """The time that a study's missing trials may take, one after the other; None where none is on record."""
    if not trials:
        return None
    of_search, after = study.missing(trials, wanted)
    # A trial of the search is often stopped early; a longer one never is, and takes what its epochs do.
    search = [trial["seconds"] for trial in trials if trial["times"] == 1]
    epochs = [trial["seconds"] / len(trial["history"]) for trial in trials if trial["history"]]
    if not epochs:
        return None
    epoch = median(epochs)
    longer = sum(LENGTHS[-1] if times is None else times for times in after)
    return of_search * mean(search) + longer * study.epochs * epoch


def how_many(study: Study, trials: list[dict], wanted: int) -> int:
    """The trials and the trainings after them that a study still misses at most."""
    of_search, after = study.missing(trials, wanted)
    return of_search + len(after)


def time_left_of(studies: dict[Study, list[dict]], wanted: int, jobs: int) -> str:
    """The same of many, as a person says it: each is made one trial after the other, `jobs` of them side by side."""
    seconds = {study: expected_seconds(study, trials, wanted) for study, trials in studies.items()}
    known = [each for each in seconds.values() if each is not None]
    if not known:
        return "an unknown time"
    typical = mean(known)  # for those of which nothing is known
    return f"about {readable(time_left([typical if each is None else each for each in seconds.values()], jobs))}"


def search(studies: list[Study], wanted: int, jobs: int, device: str, lock: int, folder: Path = TRIALS) -> None:
    """Make trials until each study has as many as are wanted and the longer ones, and keep their records.

    Raises KeyboardInterrupt where it is stopped, the running trials having saved where they are, and Stopped where a
    trial failed for another reason than its settings.

    Args:
        lock: what `only_process` gave.
    """
    trials = {study: study.trials() for study in studies}
    working: list[_Child] = []

    def missing(study: Study) -> int:
        return how_many(study, trials[study], wanted)

    def left() -> str:
        return f"{time_left_of(trials, wanted, jobs)} left"

    with stop_requested() as stop, tqdm(total=sum(map(missing, studies)), unit="trial", disable=None) as bar:
        try:
            while working or any(map(missing, studies)):
                if stop.requested:
                    raise KeyboardInterrupt
                idle = [s for s in studies if missing(s) and all(child.study != s for child in working)]
                # The fewest trials first, so that the studies go on side by side to the end.
                for study in sorted(idle, key=lambda s: len(trials[s]))[: jobs - len(working)]:
                    working.append(_start(study, len(trials[study]), wanted, device, folder, lock))
                bar.set_description(", ".join(f"{c.study.model} {c.folder.name}" for c in working), refresh=False)
                bar.set_postfix_str(left())
                time.sleep(POLL_SECONDS)
                for child in [c for c in working if c.process.poll() is not None]:
                    working.remove(child)
                    record = _record(child)
                    child.study.add(record)
                    trials[child.study].append(record)
                    shutil.rmtree(child.folder)  # its checkpoint is of no more use
                    bar.total = bar.n + 1 + sum(map(missing, studies))  # fewer where a longer trial did no good
                    bar.update()
                    tqdm.write(f"{child.study.name} {child.study.model} {_outcome(record)}; {left()}")
        finally:
            stop_processes([child.process for child in working])


def _start(study: Study, number: int, wanted: int, device: str, trials: Path, lock: int) -> _Child:
    folder = study.folder(number, trials)
    flags = {name: getattr(study, name) for name in ("dataset", "protocol", "model", "seed")}
    flags |= {"wanted": wanted, "device": device, "found": study.found.resolve(), "folder": folder.resolve()}
    arguments = ["-m", "tuning.trial", *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]
    return _Child(study, start_process(arguments, folder, lock), folder)


def _record(child: _Child) -> dict:
    if child.process.returncode:
        raise Stopped(
            f"{child.study.name} {child.study.model}, trial {child.folder.name}: "
            f"{reason_of_end(child.process.returncode, child.folder)} (see {child.folder / LOG}). "
            "The trials before it are on record."
        )
    return json.loads((child.folder / RESULT).read_text())


def _outcome(record: dict) -> str:
    epochs = f"after {len(record['history'])} epochs"
    state = "" if record["state"] == COMPLETE else f", {record['state']} {epochs}"
    times = record["times"]
    state += ", as the script trains" if times is None else f", {times} times as long" if times > 1 else ""
    auc = "no AUC" if record["valid_auc"] is None else f"valid AUC {record['valid_auc']:.4f}"
    return f"trial {record['number']}: {auc}{state} in {readable(record['seconds'])}"
