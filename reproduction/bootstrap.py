"""Bootstrap intervals over test users, kept beside the records: they need the test logits, which are not kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocessing.files import write_atomically
from reproduction.execute import RUNS, run_folder
from reproduction.plans import TABLE_2, table_2_run
from reproduction.records import Records, read_json_lines
from reproduction.runs import data_state, kind_of_device, load
from reproduction.statistics import RESAMPLES, bootstrap_aucs, interval
from training.report import TEST_LOGITS

FILE = "bootstrap.jsonl"
REFERENCE = "IntTower"


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

    def logits_path(model: str, seed: int) -> Path:
        device = kind_of_device(by_seed[model][seed]["device"])
        return run_folder(replace(run_of[model], seed=seed, device=device), data, folder) / TEST_LOGITS

    def has_logits(model: str) -> bool:
        return all(logits_path(model, seed).exists() for seed in by_seed[model])

    path = records.folder / data.name / FILE
    lines = read_json_lines(path)
    has_reference = bool(reference) and has_logits(REFERENCE)

    def is_current(line: dict) -> bool:
        may_gain_a_lead = has_reference and line["model"] != REFERENCE and "lead" not in line
        return made_of.get(line["model"]) == line["made_of"] and not may_gain_a_lead

    kept = [line for line in lines if line["protocol"] != protocol or is_current(line)]
    there = {line["model"] for line in kept if line["protocol"] == protocol}
    wanted = [model for model in by_seed if model not in there]

    absent = [model for model in wanted if not has_logits(model)]
    wanted = [model for model in wanted if model not in absent]
    if wanted:
        compared = [REFERENCE] if has_reference and REFERENCE not in wanted else []
        logits = {
            (model, seed): np.load(logits_path(model, seed), allow_pickle=False)
            for model in [*wanted, *compared]
            for seed in by_seed[model]
        }
        test = load(dataset, protocol).test
        aucs = bootstrap_aucs(test.labels.numpy(), logits, test.groups)
        num_users = len(np.unique(test.groups))
        for model in wanted:
            seeds = sorted(by_seed[model])
            line = {"protocol": protocol, "model": model, "seeds": seeds, "resamples": RESAMPLES, "users": num_users}
            line["auc"] = interval(np.mean([aucs[model, seed] for seed in seeds], axis=0))
            common = [seed for seed in seeds if (REFERENCE, seed) in aucs]
            if model != REFERENCE and common:
                leads = [aucs[REFERENCE, seed] - aucs[model, seed] for seed in common]
                line["lead"] = interval(np.mean(leads, axis=0))
            kept.append(line | {"made_of": made_of[model]})
    if kept != lines:
        order = list(TABLE_2)
        kept = sorted((line for line in kept if line["model"] in order), key=lambda line: order.index(line["model"]))
        kept.sort(key=lambda line: line["protocol"])
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    return [f"{protocol}: no interval over users of {model}, whose test logits are not here." for model in absent]


def read_bootstrap(records: Records, dataset: str, protocol: str) -> dict[str, dict]:
    """The lines of a protocol by model."""
    lines = read_json_lines(records.folder / dataset / FILE)
    return {line["model"]: line for line in lines if line["protocol"] == protocol}


def _identity(records: list[dict]) -> str:
    parts = sorted(json.dumps([r["settings"], r["tables"], r["code"], r["test"]], sort_keys=True) for r in records)
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
