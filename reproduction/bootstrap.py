"""Bootstrap intervals over test users, kept beside the records: they need the test logits, which are not kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from preprocessing.files import write_atomically
from reproduction.execute import RUNS, run_folder
from reproduction.plans import TABLE_2
from reproduction.records import Records, read_json_lines
from reproduction.runs import Run, data_state, load
from reproduction.statistics import RESAMPLES, bootstrap_aucs, interval
from training.report import TEST_LOGITS

FILE = "bootstrap.jsonl"


def update_bootstrap(runs: list[Run], records: Records, folder: Path = RUNS) -> list[str]:
    """Intervals of each model's AUC, and of IntTower's lead over it, for the runs of one dataset and protocol.

    What is there for these very records is kept. Returns what a person should know: the runs whose logits are missing.
    """
    dataset, protocol = runs[0].dataset, runs[0].protocol
    data = data_state(dataset, protocol)
    of_model: dict[str, list[Run]] = {}
    for run in runs:
        of_model.setdefault(run.model, []).append(run)
    made_of = {
        model: _identity([records.find(run, data.name) for run in of_runs]) for model, of_runs in of_model.items()
    }
    path = records.folder / data.name / FILE
    kept = [line for line in read_json_lines(path) if line["protocol"] != protocol]
    lines = [line for line in read_json_lines(path) if line["protocol"] == protocol]
    if {line["model"]: line["made_of"] for line in lines} == made_of:
        return []

    table = load(dataset, protocol).test
    logits, absent = {}, []
    for model, of_runs in of_model.items():
        paths = [run_folder(run, data, folder) / TEST_LOGITS for run in of_runs]
        absent += [str(path) for path in paths if not path.exists()]
        if all(path.exists() for path in paths):
            logits[model] = [np.load(path, allow_pickle=False) for path in paths]
    if absent:
        return [f"no new bootstrap for {protocol}: expected the test logits of every run, {len(absent)} are missing."]
    aucs = bootstrap_aucs(table.labels.numpy(), logits, table.groups)
    lines = []
    for model in sorted(aucs, key=list(TABLE_2).index):
        line = {
            "protocol": protocol,
            "model": model,
            "seeds": [run.seed for run in of_model[model]],
            "resamples": RESAMPLES,
            "users": len(np.unique(table.groups)),
            "auc": interval(aucs[model]),
            "made_of": made_of[model],
        }
        if model != "IntTower" and "IntTower" in aucs:
            line["int_tower_lead"] = interval(aucs["IntTower"] - aucs[model])
        lines.append(line)
    text = "".join(json.dumps(line) + "\n" for line in [*kept, *lines])
    write_atomically(path, text.encode())
    return []


def read_bootstrap(records: Records, dataset: str, protocol: str) -> dict[str, dict]:
    """The lines of a protocol by model."""
    lines = read_json_lines(records.folder / dataset / FILE)
    return {line["model"]: line for line in lines if line["protocol"] == protocol}


def _identity(records: list[dict]) -> str:
    parts = [[r["settings"], r["fingerprint"], r["tables"], r["code"], r["test"]] for r in records]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
