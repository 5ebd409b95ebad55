"""The tables of serving, from what benchmark.serving_latency and serving.quality left under results/serving/."""

from __future__ import annotations

import json

from reproduction.formats import Columns
from reproduction.plans import NAMES, table_2_run
from reproduction.records import RESULTS, Records, read_json_lines
from reproduction.runs import FIRST_SEED, Run
from reproduction.statistics import mean_and_std
from reproduction.tables import Row

LATENCY, QUALITY = (RESULTS / "serving" / name for name in ("latency.jsonl", "quality.jsonl"))
EIGHT_HEADS = RESULTS / "movielens" / "choices" / "variations" / "heads-8x32.json"


def serving_rows() -> tuple[list[Row], Columns]:
    """A row per model that is served: whole requests on one thread, bytes of an item, AUC of its runs."""
    measured = read_json_lines(LATENCY)
    rows: dict[str, Row] = {}
    for record in measured:
        row = rows.setdefault(record["model"], {"model": record["model"]})
        if "workers" in record:
            row["requests_per_second"] = record["requests_per_second"]
        elif record["threads"] == 1:
            row["bytes_per_item"] = record["bytes_per_item"]
            row[f"ms_{record['candidates']}"] = record["p50_ms"], record["p99_ms"]
    columns: Columns = {
        "model": lambda row: _readable(row["model"]),
        "AUC (strict)": lambda row: _auc(row["model"].partition(", ONNX")[0]),
        "bytes an item": lambda row: f"{row['bytes_per_item'] or '-'}",
    }
    for num_candidates in (1000, 10_000, 100_000):
        columns[f"{num_candidates:,} candidates"] = lambda row, n=num_candidates: _times(*row[f"ms_{n}"])
    columns["requests/s, 2 processes"] = lambda row: f"{row['requests_per_second']:,.0f}"
    return list(rows.values()), columns


def quality_rows() -> tuple[list[Row], Columns]:
    """A row for the teacher and one per two-tower model: what passes its cut."""
    rows = read_json_lines(QUALITY)
    teacher = " (the teacher)"
    columns: Columns = {"model": lambda r: NAMES.get(r["model"], r["model"]) + teacher * (r["model"] == r["teacher"])}
    for name in [name for name in rows[0] if name.startswith(("recall", "hit_rate"))]:
        kind, *numbers = name.replace("hit_rate", "hits").split("_")
        title = f"liked, at {numbers[0]}" if kind == "recall" else f"teacher's {numbers[0]}, at {numbers[1]}"
        columns[title] = lambda row, name=name: f"{row[name]:.3f}"
    return rows, columns


def _readable(model: str) -> str:
    kind, comma, rest = model.partition(",")
    return NAMES.get(kind, kind) + comma + rest


def _times(p50: float, p99: float) -> str:
    digits = 2 if p50 < 2 else 1 if p50 < 100 else 0
    return f"{p50:.{digits}f} ({p99:.{digits}f})"


def _auc(model: str) -> str:
    """Of all seeds of its runs; "-" where none was trained to its best epoch."""
    if model == "IntTower 8 x 32":
        return f"{json.loads(EIGHT_HEADS.read_text())['test']['auc']:.4f}, one seed"
    runs = {
        "IntTower 4 x 16": table_2_run("movielens", "strict", "IntTower"),
        "IntTower 4 x 16, last level": Run("movielens", "strict", "IntTower", FIRST_SEED, (("levels", "last"),)),
    }
    if model.startswith("IntTower") and model not in runs:
        return "-"
    run = runs.get(model) or table_2_run("movielens", "strict", model)
    return f"{mean_and_std([r['test']['auc'] for r in Records().by_seed(run).values()])[0]:.4f}"
