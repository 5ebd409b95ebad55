"""Tables in numbers, made from records alone: each is a list of rows, which Markdown and CSV then show."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace

from reproduction.bootstrap import read_bootstrap
from reproduction.latency import read_latency
from reproduction.plans import ABLATION, NAMES, TABLE_2, table_2_run
from reproduction.records import RESULTS, Records
from reproduction.runs import FIRST_SEED
from reproduction.statistics import holm, mean_and_std, paired_p_value, relative_improvement

SIGNIFICANT = 0.05
WHOLE = "IntTower"  # what the ablation's parts are compared with
Row = dict[str, object]
Columns = dict[str, Callable[[Row], str]]

PUBLISHED = json.loads((RESULTS / "published.json").read_text())


def table_2_rows(records: Records, dataset: str, protocol: str, data_name: str | None = None) -> list[Row]:
    """Table 2 of a dataset under a protocol, a row per model that has records, in the published order.

    Args:
        data_name: the data's own name in the records, where it is not the dataset's.
    """
    data_name = data_name or dataset
    of_model = {}
    for model in TABLE_2:
        if by_seed := records.by_seed(table_2_run(dataset, protocol, model), data_name):
            of_model[model] = by_seed
    published, intervals = PUBLISHED.get(data_name, {}), read_bootstrap(records, data_name, protocol)
    rows = []
    for model, by_seed in of_model.items():
        row = {"dataset": data_name, "protocol": protocol, "model": model, **_summary(by_seed)}
        if model in published:
            row["published_auc"], row["published_logloss"] = published[model]
            row["published_rela_impr"] = relative_improvement(published[model][0], published["DSSM"][0])
        if "DSSM" in of_model:
            row["rela_impr"] = relative_improvement(row["auc"], _summary(of_model["DSSM"])["auc"])
        if interval := intervals.get(model):
            row["auc_low"], row["auc_high"] = interval["auc"]
        rows.append(row)
    _compare(rows, of_model, "IntTower", "lead", sign=1)
    for row in rows:
        if "lead" in row and (interval := intervals.get(row["model"], {}).get("lead")):
            row["lead_low"], row["lead_high"] = interval
    return rows


def ablation_rows(
    records: Records, dataset: str, group: str, protocol: str = "strict", data_name: str | None = None
) -> list[Row]:
    """A group of the ablation, a row per variant that has records; in "parts" with the difference from IntTower."""
    data_name = data_name or dataset
    variants = {variant.name: variant for variant in ABLATION[group]}
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
        row["valid_auc"] = mean_and_std([r["valid"]["auc"] for r in of_variant[row["variant"]].values()])[0]
    if group == "parts":
        _compare(rows, of_variant, WHOLE, "difference", sign=-1, key="variant")
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


def _compare(rows: list[Row], by_name: dict[str, dict[int, dict]], reference: str, column: str, sign: int, key="model"):
    """Add to each other row how the reference differs from it, over the seeds that both have, and the corrected p."""
    if reference not in by_name:
        return
    p_values = {}
    for row in rows:
        name = row[key]
        seeds = sorted(by_name[name].keys() & by_name[reference].keys())
        if name == reference or not seeds:
            continue
        ours, theirs = ([by_name[n][seed]["test"]["auc"] for seed in seeds] for n in (reference, name))
        row[column], row[f"{column}_std"] = mean_and_std([sign * (a - b) for a, b in zip(ours, theirs, strict=True)])
        row[f"{column}_seeds"] = len(seeds)
        p_values[name] = paired_p_value(ours, theirs)
    for name, p in holm(p_values).items():
        next(row for row in rows if row[key] == name)[f"{column}_p"] = p


def is_significant(row: Row, column: str, over_users: bool) -> bool:
    """Whether the corrected p is below .05 and, if `over_users`, the interval over users excludes 0."""
    low, high = row.get(f"{column}_low", 0.0), row.get(f"{column}_high", 0.0)
    return row.get(f"{column}_p", 1.0) < SIGNIFICANT and (not over_users or low > 0 or high < 0)


def number(value: float | None, digits: int = 4, signed: bool = False) -> str:
    """A number as the tables write it."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:{'+' if signed else ''}.{digits}f}"


def percent(value: float | None) -> str:
    """A RelaImpr as the tables write it."""
    return "-" if value is None or math.isnan(value) else f"{value:+.1f} %"


def _plus_minus(column: str, signed: bool = False) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if column not in row:
            return "-"
        std = row[f"{column}_std"]
        return number(row[column], signed=signed) + ("" if math.isnan(std) else f" ± {std:.4f}")

    return cell


def _bold_where_significant(column: str, over_users: bool) -> Callable[[Row], str]:
    plain = _plus_minus(column, signed=True)
    return lambda row: f"**{plain(row)}**" if is_significant(row, column, over_users) else plain(row)


def _p(column: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        p = row.get(f"{column}_p")
        return "-" if p is None or math.isnan(p) else ("< .0001" if p < 0.0001 else f"{p:.4f}")

    return cell


def _range(column: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
        return "-" if low is None else f"{low:+.4f} to {high:+.4f}"

    return cell


def _published(column: str) -> Callable[[Row], str]:
    return lambda row: number(row.get(f"published_{column}"))


def _seeds(column: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        compared = row.get(f"{column}_seeds", row["seeds"])
        return f"{row['seeds']}" + ("" if compared == row["seeds"] else f", {column} of {compared}")

    return cell


TABLE_2_COLUMNS: Columns = {
    "model": lambda row: NAMES.get(row["model"], row["model"]),
    "AUC": _plus_minus("auc"),
    "published AUC": _published("auc"),
    "logloss": _plus_minus("logloss"),
    "published logloss": _published("logloss"),
    "gAUC": _plus_minus("gauc"),
    "RelaImpr": lambda row: percent(row.get("rela_impr")),
    "published RelaImpr": lambda row: percent(row.get("published_rela_impr")),
    "IntTower's lead in AUC": _bold_where_significant("lead", over_users=True),
    "p (Holm)": _p("lead"),
    "lead, 95 % over users": _range("lead"),
    "best epoch": lambda row: f"{row['best_epoch']:.0f}",
    "seeds": _seeds("lead"),
}
PARTS_COLUMNS: Columns = {
    "variant": lambda row: row["variant"],
    "AUC": _plus_minus("auc"),
    "difference": _bold_where_significant("difference", over_users=False),
    "p (Holm)": _p("difference"),
    "logloss": _plus_minus("logloss"),
    "gAUC": _plus_minus("gauc"),
    "valid AUC": lambda row: number(row["valid_auc"]),
    "best epoch": lambda row: f"{row['best_epoch']:.0f}",
    "training": lambda row: f"{row['train_minutes']:.0f} min",
    "seeds": _seeds("difference"),
}
SETTINGS_COLUMNS: Columns = {
    "variant": lambda row: row["variant"],
    "valid AUC": lambda row: number(row["valid_auc"]),
    "AUC": lambda row: number(row["auc"]),
    "logloss": lambda row: number(row["logloss"]),
    "gAUC": lambda row: number(row["gauc"]),
    "epochs (best)": lambda row: f"{row['epochs_run']:.0f} ({row['best_epoch']:.0f})",
    "training": lambda row: f"{row['train_minutes']:.0f} min",
}


def caption(rows: list[Row], dataset: str, protocol: str) -> str:
    """What must be known of a table before a number is quoted from it."""
    synthetic = "SYNTHETIC data, which say nothing of real users; " if rows[0]["synthetic"] else ""
    leak = "labels leak into the features" if rows[0]["labels_leak"] else "no label leaks"
    devices = " and ".join(sorted({str(row["device"]) for row in rows}))
    return f"Dataset {dataset}, protocol `{protocol}`: {synthetic}{leak}; {devices}."


def markdown(rows: list[Row], columns: Columns) -> str:
    """Rows as a Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_csv(rows: list[Row]) -> str:
    """Rows as CSV, all numbers in full; the columns of all rows, in the order in which they first stand."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


LATENCY_COLUMNS: Columns = {
    "model": lambda row: NAMES.get(row["model"], row["model"]),
    "median": lambda row: f"{row['median_ms']:.2f} ms",
    "95th percentile": lambda row: f"{row['p95_ms']:.2f} ms",
    "times the Two-Tower": lambda row: f"{row['times_two_tower']:.1f}",
    "AUC (strict)": lambda row: number(row.get("auc")),
}


def latency_rows(records: Records) -> list[Row]:
    """The last measurement of scoring times, the fastest first, with the AUC on its data under strict beside it."""
    measured = read_latency(records)
    two_tower = next((r["median_ms"] for r in measured if r["model"] == "DSSM"), float("nan"))
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
