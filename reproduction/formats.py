"""How rows are shown: the columns of each table in Markdown, and CSV with every number in full."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable

from reproduction.plans import LABEL_DELAYS, NAMES
from reproduction.tables import Row

SIGNIFICANT = 0.05
Columns = dict[str, Callable[[Row], str]]


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
        if low is None:
            return "-"
        of = row[f"{column}_users_seeds"]
        return f"{low:+.4f} to {high:+.4f}" + ("" if of == row[f"{column}_seeds"] else f", of {of}")

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
    "trials": lambda row: f"{row.get('trials', '-')}",
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
    "valid logloss": lambda row: number(row["valid_logloss"]),
    "AUC": lambda row: number(row["auc"]),
    "logloss": lambda row: number(row["logloss"]),
    "gAUC": lambda row: number(row["gauc"]),
    "epochs (best)": lambda row: f"{row['epochs_run']:.0f} ({row['best_epoch']:.0f})",
    "training": lambda row: f"{row['train_minutes']:.0f} min",
}
SEARCHED_STATISTICS_COLUMNS: Columns = {
    "variant": lambda row: row["variant"],
    "valid AUC": lambda row: number(row["valid_auc"]),
    "AUC": _plus_minus("auc"),
    "logloss": _plus_minus("logloss"),
    "gAUC": _plus_minus("gauc"),
    "IntTower's lead in AUC": _bold_where_significant("lead", over_users=False),
    "p (Holm)": _p("lead"),
    "training": lambda row: f"{row['train_minutes']:.0f} min",
    "seeds": _seeds("lead"),
}
DELAY_COLUMNS: Columns = {
    "model": lambda row: NAMES.get(row["model"], row["model"]),
    **{f"AUC, labels known {delay}": _plus_minus(f"auc {delay}") for delay in LABEL_DELAYS},
    **{f"gAUC, {delay}": _plus_minus(f"gauc {delay}") for delay in LABEL_DELAYS},
    "seeds": lambda row: ", ".join(str(row.get(f"seeds {delay}", 0)) for delay in LABEL_DELAYS),
}


LATENCY_COLUMNS: Columns = {
    "model": lambda row: NAMES.get(row["model"], row["model"]),
    "median": lambda row: f"{row['median_ms']:.2f} ms",
    "95th percentile": lambda row: f"{row['p95_ms']:.2f} ms",
    "times the Two-Tower": lambda row: f"{row['times_two_tower']:.1f}",
    "AUC (strict)": lambda row: number(row.get("auc")),
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
