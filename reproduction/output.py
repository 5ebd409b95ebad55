"""Tables as Markdown and CSV under results/, all from records; their figures are reproduction/figures.py's."""

from __future__ import annotations

from pathlib import Path

from experiment.tuned import SEARCHED_AS
from preprocessing.files import write_atomically
from reproduction.formats import (
    DELAY_COLUMNS,
    LATENCY_COLUMNS,
    PARTS_COLUMNS,
    SEARCHED_STATISTICS_COLUMNS,
    SETTINGS_COLUMNS,
    TABLE_2_COLUMNS,
    Columns,
    as_csv,
    caption,
    markdown,
)
from reproduction.plans import OF_PARTS, OWN, SUFFIX
from reproduction.records import Records
from reproduction.tables import Row, changed_rows, delay_rows, latency_rows, table_2_rows

COLUMNS_OF_GROUP = {
    **dict.fromkeys(OF_PARTS, PARTS_COLUMNS),
    "searched-statistics": SEARCHED_STATISTICS_COLUMNS,
    "delays": DELAY_COLUMNS,
}


def write_table_2(records: Records, dataset: str, protocol: str, data_name: str, settings: str = OWN) -> None:
    """Table 2 of one dataset and protocol, where it has rows; prints it."""
    rows = table_2_rows(records, dataset, protocol, data_name, settings)
    if not rows:
        return
    tuned = SUFFIX[settings]
    title = caption(rows, data_name, protocol)
    if tuned:
        searched = SEARCHED_AS.get(protocol, protocol)
        title += f" The settings of each model are what `tune.py` found for it under `{searched}`."
    is_published = any("published_auc" in row for row in rows)
    columns = {n: cell for n, cell in TABLE_2_COLUMNS.items() if is_published or not n.startswith("published")}
    if not tuned:
        del columns["trials"]
    if protocol != "paper" and is_published:
        title += " The published numbers were measured under a leak, so they are not comparable."
    _write_table(records.folder / data_name / f"table_2{tuned}_{protocol}", title, rows, columns)


def write_ablation(records: Records, dataset: str, protocol: str, data_name: str) -> None:
    """A table for each group of the ablation in which records have something changed; prints them."""
    for group, rows in changed_rows(records, dataset, protocol, data_name).items():
        columns = COLUMNS_OF_GROUP.get(group, SETTINGS_COLUMNS)
        title = caption(rows, data_name, protocol)
        shown = delay_rows(rows) if group == "delays" else rows
        _write_table(records.folder / data_name / f"ablation_{group}_{protocol}", title, shown, columns)


def write_latency(records: Records) -> None:
    """The table of scoring times; prints it."""
    rows = latency_rows(records)
    _write_table(records.folder / "latency", latency_title(rows), rows, LATENCY_COLUMNS)


def latency_title(rows: list[Row]) -> str:
    """What the scoring times are of."""
    first = rows[0]
    return f"One user against {first['candidates']:,} candidates, {first['device']}, threads: {first['num_threads']}."


def _write_table(path: Path, title: str, rows: list[Row], columns: Columns) -> None:
    text = f"{title}\n\n{markdown(rows, columns)}"
    write_atomically(path.with_suffix(".md"), (text + "\n").encode())
    write_atomically(path.with_suffix(".csv"), as_csv(rows).encode())
    print(f"\n{path.with_suffix('.md')}\n{text}")
