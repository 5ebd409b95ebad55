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
from reproduction.folders import RUNS, record_in_folder, run_folder
from reproduction.plans import EVERY, OWN, REFERENCE, SUFFIX, table_2_runs
from reproduction.records import Records, read_json_lines
from reproduction.runs import DataState, Run, data_state, kind_of_device, load
from reproduction.statistics import RESAMPLES, bootstrap_aucs, interval


def update_bootstrap(
    dataset: str, protocol: str, records: Records, settings: str = OWN, folder: Path = RUNS
) -> list[str]:
    """Intervals of each model's AUC, and of IntTower's lead over it, for all that table 2 has records of.

    They are of the seeds whose test logits are here. One that was made of the records is kept, unless there are logits
    of more seeds now. Returns what a person should know: the models of whose seeds some have no part in an interval.
    """
    data = data_state(dataset, protocol)
    path = records.folder / data.name / _file(settings)
    lines = read_json_lines(path)
    by_seed, logits = {}, {}
    for model, run in table_2_runs(dataset, protocol, settings).items():
        by_seed[model] = records.by_seed(run, data.name)
        for seed, record in by_seed[model].items():
            if (scores := _logits(replace(run, seed=seed), record, data, folder)) is not None:
                logits[model, seed] = scores
    # A search may end at a script's own settings: an interval is of its records, whichever table it was made for.
    others = [line for other in SUFFIX if other != settings for line in read_json_lines(path.with_name(_file(other)))]
    known = [
        line
        for line in [*others, *lines]
        if line["protocol"] == protocol and line["made_of"] == _made_of(line, by_seed)
    ]
    current = {line["model"]: line for line in sorted(known, key=lambda line: ("lead" in line, len(line["seeds"])))}
    wanted = _wanted(by_seed, logits, current)
    if wanted:
        seeds_of_all = {seed for seeds in wanted.values() for seed in seeds}
        compared = {(m, s): v for (m, s), v in logits.items() if m in (*wanted, REFERENCE) and s in seeds_of_all}
        test = load(dataset, protocol).test
        aucs = bootstrap_aucs(test.labels.numpy(), compared, test.groups)
        about = {"protocol": protocol, "resamples": RESAMPLES, "users": len(np.unique(test.groups))}
        for model, seeds in wanted.items():
            line = about | _line(model, seeds, aucs)
            current[model] = line | {"made_of": _made_of(line, by_seed)}
    changed = [line for line in lines if line["protocol"] != protocol] + list(current.values())
    changed.sort(key=lambda line: (line["protocol"], EVERY.index(line["model"])))
    if changed != lines:
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in changed).encode())
    notices = []
    for model, of_model in by_seed.items():
        used = current[model]["seeds"] if model in current else []
        if absent := [str(seed) for seed in of_model if seed not in used]:
            of = f"{model}, seed {', '.join(absent)}"
            whose = "whose test logits" if model == REFERENCE else f"whose test logits, or those of {REFERENCE},"
            notices.append(f"{protocol}: no part in an interval over users: {of}, {whose} are not here.")
    return notices


def _wanted(
    by_seed: dict[str, dict[int, dict]], logits: Collection[tuple[str, int]], current: dict[str, dict]
) -> dict[str, list[int]]:
    """The seeds of each model that an interval can be made of, where that says more than the current one."""
    wanted = {}
    for model in by_seed:
        own = [seed for seed in by_seed[model] if (model, seed) in logits]
        led = [seed for seed in own if (REFERENCE, seed) in logits]
        seeds = led or own
        line = current.get(model, {"seeds": []})
        gains_a_lead = model != REFERENCE and led and "lead" not in line
        loses_a_lead = "lead" in line and not led
        if (len(seeds) > len(line["seeds"]) and not loses_a_lead) or gains_a_lead:
            wanted[model] = seeds
    return wanted


def _logits(run: Run, record: dict, data: DataState, folder: Path) -> np.ndarray | None:
    run = replace(run, device=kind_of_device(record["device"]))
    made = record_in_folder(run, data, folder)
    if made is None or made["test"] != record["test"]:  # the record may be of older code or data than the folder
        return None
    path = run_folder(run, data, folder) / TEST_LOGITS
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None


def _line(model: str, seeds: list[int], aucs: dict[tuple[str, int], np.ndarray]) -> dict:
    """A model's intervals, of means over the seeds; a lead is over those that IntTower has too."""
    line = {"model": model, "seeds": seeds, "auc": interval(np.mean([aucs[model, s] for s in seeds], axis=0))}
    leads = [aucs[REFERENCE, s] - aucs[model, s] for s in seeds if (REFERENCE, s) in aucs]
    if model != REFERENCE and leads:
        line["lead"] = interval(np.mean(leads, axis=0))
    return line


def _file(settings: str) -> str:
    return f"bootstrap{SUFFIX[settings]}.jsonl"


def read_bootstrap(records: Records, dataset: str, protocol: str, settings: str = OWN) -> dict[str, dict]:
    """The lines of a protocol by model."""
    lines = read_json_lines(records.folder / dataset / _file(settings))
    return {line["model"]: line for line in lines if line["protocol"] == protocol}


def _made_of(line: dict, by_seed: dict[str, dict[int, dict]]) -> str:
    """What tells apart the records that an interval is made of; of IntTower's, those that a lead is over."""
    models = [line["model"], REFERENCE] if "lead" in line else [line["model"]]
    records = [by_seed.get(model, {}).get(seed) for model in models for seed in line["seeds"]]
    parts = [r and json.dumps([r["settings"], r["tables"], r["code"], r["test"]], sort_keys=True) for r in records]
    return hashlib.sha256("".join(sorted(part or "" for part in parts)).encode()).hexdigest()[:16]
