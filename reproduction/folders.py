"""Where runs lie on the disk, and which of them are made."""

from __future__ import annotations

import json
from pathlib import Path

from experiment.folder import RECORD
from reproduction.records import PROJECT, Records
from reproduction.runs import DataState, Run

RUNS = PROJECT / "runs" / "reproduce"


def run_folder(run: Run, data: DataState, runs: Path = RUNS) -> Path:
    """Where a run's checkpoint, test logits and log are."""
    return runs / run.folder_name(data)


def missing_runs(runs: list[Run], records: Records, folder: Path = RUNS) -> list[Run]:
    """The runs that have neither a record nor a finished folder."""
    missing = []
    for run in runs:
        data = run.data_state()
        if records.current(run, data) is None and record_in_folder(run, data, folder) is None:
            missing.append(run)
    return missing


def collect(runs: list[Run], records: Records, folder: Path = RUNS) -> None:
    """Keep the records of finished folders that have none yet: of runs whose end was not seen."""
    for run in runs:
        data = run.data_state()
        if records.current(run, data) is None and (record := record_in_folder(run, data, folder)):
            records.add(record)


def record_in_folder(run: Run, data: DataState, folder: Path = RUNS) -> dict | None:
    """The record in a run's folder, if it is finished there."""
    try:
        record = json.loads((run_folder(run, data, folder) / RECORD).read_bytes())
        return record if run.is_record(record, data) else None
    except (FileNotFoundError, ValueError, KeyError):
        return None
