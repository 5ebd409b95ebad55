"""Bootstrap intervals over test users, kept beside the records: they need the test logits, which are not kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiment.folder import TEST_LOGITS
from preprocessing.files import write_atomically
from reproduction.folders import RUNS, run_folder
from reproduction.plans import REFERENCE, TABLE_2, table_2_run
from reproduction.records import Records, read_json_lines
from reproduction.runs import DataState, Run, data_state, kind_of_device, load
from reproduction.statistics import RESAMPLES, bootstrap_aucs, interval

FILE = "bootstrap.jsonl"


def update_bootstrap(dataset: str, protocol: str, records: Records, folder: Path = RUNS) -> list[str]:
    """Intervals of each model's AUC, and of IntTower's lead over it, for all that table 2 has records of.

    An interval that was made of the same records is kept. Returns what a person should know: the models whose test
    logits are not here, and which therefore have no interval.
    """
    data = data_state(dataset, protocol)
    run_of = {model: table_2_run(dataset, protocol, model) for model in TABLE_2}
    by_seed = {model: found for model, run in run_of.items() if (found := records.by_seed(run, data.name))}
    reference = by_seed.get(REFERENCE, {})
    made_of = {model: _identity([*of_model.values(), *reference.values()]) for model, of_model in by_seed.items()}
    logits = {}
    for model, of_model in by_seed.items():
        of_seed = {seed: _logits(replace(run_of[model], seed=seed), r, data, folder) for seed, r in of_model.items()}
        if all(scores is not None for scores in of_seed.values()):
            logits |= {(model, seed): scores for seed, scores in of_seed.items()}
    has_logits = {model for model, _ in logits}

    def is_current(line: dict) -> bool:
        may_gain_a_lead = REFERENCE in has_logits and line["model"] != REFERENCE and "lead" not in line
        return made_of.get(line["model"]) == line["made_of"] and not may_gain_a_lead

    path = records.folder / data.name / FILE
    lines = read_json_lines(path)
    kept = [line for line in lines if line["protocol"] != protocol or is_current(line)]
    stale = by_seed.keys() - {line["model"] for line in kept if line["protocol"] == protocol}
    wanted = [model for model in by_seed if model in stale & has_logits]
    if wanted:
        compared = {key: scores for key, scores in logits.items() if key[0] in (*wanted, REFERENCE)}
        test = load(dataset, protocol).test
        aucs = bootstrap_aucs(test.labels.numpy(), compared, test.groups)
        about = {"protocol": protocol, "resamples": RESAMPLES, "users": len(np.unique(test.groups))}
        kept += [about | _line(model, by_seed[model], aucs) | {"made_of": made_of[model]} for model in wanted]
    if kept != lines:
        kept.sort(key=lambda line: (line["protocol"], list(TABLE_2).index(line["model"])))
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    absent = [model for model in by_seed if model in stale - has_logits]
    return [f"{protocol}: no interval over users of {model}, whose test logits are not here." for model in absent]


def _logits(run: Run, record: dict, data: DataState, folder: Path) -> np.ndarray | None:
    run = replace(run, device=kind_of_device(record["device"]))
    path = run_folder(run, data, folder) / TEST_LOGITS
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None


def _line(model: str, seeds: Collection[int], aucs: dict[tuple[str, int], np.ndarray]) -> dict:
    """A model's intervals, of means over its seeds; a lead is over the seeds that IntTower has too."""
    line = {"model": model, "seeds": sorted(seeds), "auc": interval(np.mean([aucs[model, s] for s in seeds], axis=0))}
    leads = [aucs[REFERENCE, s] - aucs[model, s] for s in seeds if (REFERENCE, s) in aucs]
    if model != REFERENCE and leads:
        line["lead"] = interval(np.mean(leads, axis=0))
    return line


def read_bootstrap(records: Records, dataset: str, protocol: str) -> dict[str, dict]:
    """The lines of a protocol by model."""
    lines = read_json_lines(records.folder / dataset / FILE)
    return {line["model"]: line for line in lines if line["protocol"] == protocol}


def _identity(records: list[dict]) -> str:
    parts = sorted(json.dumps([r["settings"], r["tables"], r["code"], r["test"]], sort_keys=True) for r in records)
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
