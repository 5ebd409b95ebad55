"""Tables in numbers, made from records alone: each is a list of rows, which formats.py then shows."""

from __future__ import annotations

import json
from dataclasses import replace

from experiment.tuned import studies
from preprocessing.choices import STATISTICS
from reproduction.bootstrap import read_bootstrap
from reproduction.latency import read_latency
from reproduction.plans import (
    ABLATION,
    BASE,
    LABEL_DELAYS,
    OF_PARTS,
    OWN,
    REFERENCE,
    TUNED,
    table_2_run,
    table_2_runs,
    variants_of,
)
from reproduction.records import RESULTS, Records
from reproduction.runs import FIRST_SEED, Run
from reproduction.statistics import holm, mean_and_std, paired_p_value, relative_improvement

Row = dict[str, object]

PUBLISHED = json.loads((RESULTS / "published.json").read_text())


def table_2_rows(
    records: Records, dataset: str, protocol: str, data_name: str | None = None, settings: str = OWN
) -> list[Row]:
    """Table 2 of a dataset under a protocol, a row per model that has records, in the published order.

    Args:
        data_name: the data's own name in the records, where it is not the dataset's.
    """
    data_name = data_name or dataset
    of_model = {}
    for model, run in table_2_runs(dataset, protocol, settings).items():
        if by_seed := records.by_seed(run, data_name):
            of_model[model] = by_seed
    published, intervals = PUBLISHED.get(data_name, {}), read_bootstrap(records, data_name, protocol, settings)
    searched = studies(data_name, protocol) if settings == TUNED else {}
    rows = []
    for model, by_seed in of_model.items():
        row = {"dataset": data_name, "protocol": protocol, "model": model, **_summary(by_seed)}
        if model in published:
            row["published_auc"], row["published_logloss"] = published[model]
            row["published_rela_impr"] = relative_improvement(published[model][0], published[BASE][0])
        if BASE in of_model:
            row["rela_impr"] = relative_improvement(row["auc"], _summary(of_model[BASE])["auc"])
        if model in searched:
            row["trials"] = searched[model]["trials"]
        if interval := intervals.get(model):
            row["auc_low"], row["auc_high"] = interval["auc"]
        rows.append(row)
    _compare(rows, of_model, "lead", sign=1)
    for row in rows:
        line = intervals.get(row["model"], {})
        if "lead" in row and "lead" in line:
            row["lead_low"], row["lead_high"] = line["lead"]
            row["lead_users_seeds"] = len(line["seeds"])
    return rows


def ablation_rows(records: Records, dataset: str, protocol: str, group: str, data_name: str | None = None) -> list[Row]:
    """A group of the ablation, a row per variant that has records.

    Parts have the difference from IntTower, what was searched with other statistics IntTower's lead with the same.
    """
    data_name = data_name or dataset
    variants = {variant.name: variant for variant in variants_of(dataset, group, protocol)}
    of_variant = {}
    for name, variant in variants.items():
        by_seed = records.by_seed(variant.run(dataset, protocol), data_name)
        if variant.seeds is not None:
            by_seed = {seed: r for seed, r in by_seed.items() if seed < FIRST_SEED + variant.seeds}
        if by_seed:
            of_variant[name] = by_seed
    rows = [
        {"variant": name, "model": variants[name].model, **dict(variants[name].changes), **_summary(by_seed)}
        for name, by_seed in of_variant.items()
    ]
    for row in rows:
        records = of_variant[row["variant"]].values()
        for measure in ("auc", "logloss"):
            row[f"valid_{measure}"] = mean_and_std([r["valid"][measure] for r in records])[0]
    if group in OF_PARTS:
        _compare(rows, of_variant, "difference", sign=-1, key="variant")
    if group == "searched-statistics":
        for name in STATISTICS:
            of_set = [row for row in rows if row["statistics"] == name]
            _compare(of_set, of_variant, "lead", sign=1, key="variant", reference=f"{REFERENCE}: {name}")
    return rows


def changed_rows(records: Records, dataset: str, protocol: str, data_name: str) -> dict[str, list[Row]]:
    """The rows of each group of the ablation in which any is of another run than those of table 2.

    Among the parts another model than IntTower counts as changed, too.
    """
    of_group = {}
    for group in ABLATION:
        rows = ablation_rows(records, dataset, protocol, group, data_name)
        named = {row["variant"] for row in rows}
        variants = [variant for variant in variants_of(dataset, group, protocol) if variant.name in named]
        if any(
            variant.tuned
            or (group in OF_PARTS and variant.model != REFERENCE)
            or variant.run(dataset, "strict").recorded() != Run(dataset, "strict", variant.model).recorded()
            for variant in variants
        ):
            of_group[group] = rows
    return of_group


def delay_rows(rows: list[Row]) -> list[Row]:
    """The rows of the ablation's group "delays", one for each model: AUC, logloss and gAUC by the name of a delay."""
    names = {delay: name for name, delay in LABEL_DELAYS.items()}
    of_model = {}
    for row in rows:
        kept = {name: row[name] for name in ("model", "synthetic", "labels_leak", "device")}
        merged = of_model.setdefault(row["model"], kept)
        delay = names[row["label_delay"]]
        for measure in ("auc", "logloss", "gauc"):
            merged[f"{measure} {delay}"], merged[f"{measure} {delay}_std"] = row[measure], row[f"{measure}_std"]
        merged[f"seeds {delay}"] = row["seeds"]
    return list(of_model.values())


def auc_by_earlier_rows(
    records: Records, dataset: str, protocol: str, data_name: str | None = None, settings: str = OWN
) -> list[Row]:
    """AUC of table 2's models on test rows by how many earlier rows their users had: a row for each model and part."""
    rows = []
    for model, run in table_2_runs(dataset, protocol, settings).items():
        by_seed = records.by_seed(run, data_name or dataset)
        of_seed = [record["by_earlier_rows"] for record in by_seed.values() if record.get("by_earlier_rows")]
        for parts in zip(*of_seed, strict=True):
            if all(part["auc"] is not None for part in parts):
                auc, std = mean_and_std([part["auc"] for part in parts])
                row = {"model": model, "from": parts[0]["from"], "rows": parts[0]["rows"]}
                rows.append(row | {"auc": auc, "auc_std": std, "seeds": len(parts)})
    return rows


def _summary(by_seed: dict[int, dict]) -> Row:
    records = list(by_seed.values())
    row: Row = {name: records[0][name] for name in ("synthetic", "labels_leak", "device")} | {"seeds": len(records)}
    for measure in ("auc", "logloss", "gauc"):
        row[measure], row[f"{measure}_std"] = mean_and_std([r["test"][measure] for r in records])
    row["best_epoch"] = mean_and_std([r["best_epoch"] for r in records])[0]
    row["epochs_run"] = mean_and_std([r["epochs"] for r in records])[0]
    row["train_minutes"] = mean_and_std([r["train_seconds"] / 60 for r in records])[0]
    row["num_parameters"] = records[0]["num_parameters"]
    return row


def _compare(
    rows: list[Row],
    by_name: dict[str, dict[int, dict]],
    column: str,
    sign: int,
    key: str = "model",
    reference: str = REFERENCE,
) -> None:
    """Add to each other row how IntTower differs from it, over the seeds that both have, and the corrected p."""
    if reference not in by_name:
        return
    p_values = {}
    for row in rows:
        name = row[key]
        seeds = sorted(by_name[name].keys() & by_name[reference].keys())
        if name == reference or not seeds:
            continue
        if by_name[name][seeds[0]]["fingerprint"] != by_name[reference][seeds[0]]["fingerprint"]:
            continue  # of other data, since these have changed: their difference would be of the data
        ours, theirs = ([by_name[n][seed]["test"]["auc"] for seed in seeds] for n in (reference, name))
        row[column], row[f"{column}_std"] = mean_and_std([sign * (a - b) for a, b in zip(ours, theirs, strict=True)])
        row[f"{column}_seeds"] = len(seeds)
        p_values[name] = paired_p_value(ours, theirs)
    for name, p in holm(p_values).items():
        next(row for row in rows if row[key] == name)[f"{column}_p"] = p


def latency_rows(records: Records) -> list[Row]:
    """The last measurement of scoring times, the fastest first, with the AUC on its data under strict beside it."""
    measured = read_latency(records)
    two_tower = next((r["median_ms"] for r in measured if r["model"] == BASE), float("nan"))
    rows = []
    for record in sorted(measured, key=lambda r: r["median_ms"]):
        kept = ("model", "dataset", "candidates", "median_ms", "p95_ms", "device", "num_threads")
        row = {name: record[name] for name in kept}
        row["times_two_tower"] = record["median_ms"] / two_tower
        model, _, variant = record["model"].partition(", ")
        run = table_2_run("movielens", "strict", model)
        if variant:
            run = replace(run, changes=(("levels", "last"),))
        if by_seed := records.by_seed(run, record["dataset"]):
            row["auc"] = _summary(by_seed)["auc"]
        rows.append(row)
    return rows
