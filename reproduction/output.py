"""Tables as Markdown and CSV under results/, figures as PNG under figure/, all from records."""

from __future__ import annotations

from pathlib import Path

from experiment.tuned import SEARCHED_AS
from figure.ablation import draw_ablation
from figure.learning_curves import draw_learning_curves
from figure.live import NEVER, draw_earlier_rows, draw_label_delays
from figure.pareto import draw_pareto
from figure.table_2 import draw_table_2
from model import model_class
from preprocessing.choices import PROTOCOLS
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
from reproduction.plans import (
    ABLATION,
    BASE,
    LABEL_DELAYS,
    NAMES,
    OF_PARTS,
    OWN,
    RANKING_MODELS,
    REFERENCE,
    SUFFIX,
    table_2_runs,
    variants_of,
)
from reproduction.records import PROJECT, RESULTS, Records
from reproduction.runs import Run, settings_of
from reproduction.tables import Row, ablation_rows, auc_by_earlier_rows, delay_rows, latency_rows, table_2_rows
from training.predict import is_two_tower

COLUMNS_OF_GROUP = {
    **dict.fromkeys(OF_PARTS, PARTS_COLUMNS),
    "searched-statistics": SEARCHED_STATISTICS_COLUMNS,
    "delays": DELAY_COLUMNS,
}


def figures_of(records: Records) -> Path:
    """Where figures go: figure/ for the project's own records, else beside them."""
    return PROJECT / "figure" if records.folder.resolve() == RESULTS else records.folder / "figure"


def write_table_2(records: Records, dataset: str, protocol: str, data_name: str, settings: str = OWN) -> None:
    """Table 2 of one dataset and protocol, the figure of all protocols, the learning curves; prints the table."""
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
    figures = figures_of(records)
    every = {p: of_p for p in PROTOCOLS if (of_p := table_2_rows(records, dataset, p, data_name, settings))}
    compared = {p: of_p for p, of_p in every.items() if len(of_p) > 1} or every
    draw_table_2(compared, NAMES, figures / f"{data_name}_table_2{tuned}.png")
    run_of = table_2_runs(dataset, protocol, settings)
    curves = {row["model"]: list(records.by_seed(run_of[row["model"]], data_name).values()) for row in reversed(rows)}
    draw_learning_curves(curves, REFERENCE, NAMES, figures / f"{data_name}_learning_curves{tuned}_{protocol}.png")
    _draw_earlier_rows(records, rows, dataset, protocol, data_name, settings)


def _draw_earlier_rows(
    records: Records, rows: list[Row], dataset: str, protocol: str, data_name: str, settings: str
) -> None:
    """AUC by how many earlier rows a test row's user had, where the records know."""
    parts = auc_by_earlier_rows(records, dataset, protocol, data_name, settings)
    of_model = {m: [part for part in parts if part["model"] == m] for m in _drawn(rows)}
    of_model = {NAMES.get(model, model): found for model, found in of_model.items() if found}
    if of_model:
        path = figures_of(records) / f"{data_name}_earlier_rows{SUFFIX[settings]}_{protocol}.png"
        draw_earlier_rows(of_model, f"{data_name}, protocol {protocol}", path)


def _drawn(rows: list[Row], measure: str = "auc") -> list[str]:
    """The models of the figures of which few lines can be told apart: the best ranking model stands for its kind."""
    auc_of = {row["model"]: row[measure] for row in rows if measure in row}
    best = sorted(RANKING_MODELS & auc_of.keys(), key=auc_of.get)[-1:]
    return [model for model in ("StatisticsLR", BASE, *best, REFERENCE) if model in auc_of]


def write_ablation(records: Records, dataset: str, protocol: str, data_name: str) -> None:
    """A table for each group of the ablation that has records, and one figure; prints the tables."""
    rows_of_group = {group: ablation_rows(records, dataset, protocol, group, data_name) for group in ABLATION}
    rows_of_group = {
        group: rows for group, rows in rows_of_group.items() if _has_a_change(dataset, protocol, group, rows)
    }
    for group, rows in rows_of_group.items():
        columns = COLUMNS_OF_GROUP.get(group, SETTINGS_COLUMNS)
        title = caption(rows, data_name, protocol)
        if group == "delays":
            rows = delay_rows(rows)
            _draw_delays(records, rows, dataset, data_name)
        _write_table(records.folder / data_name / f"ablation_{group}_{protocol}", title, rows, columns)
    path = figures_of(records) / f"{data_name}_ablation_{protocol}.png"
    draw_ablation(rows_of_group, REFERENCE, f"{data_name}, protocol {protocol}", path)


def _draw_delays(records: Records, rows: list[Row], dataset: str, data_name: str) -> None:
    """AUC by when labels are known, of models with every delay; under temporal those of the test period never are."""
    of_model = {row["model"]: row for row in rows if all(f"auc {delay}" in row for delay in LABEL_DELAYS)}
    places = list(LABEL_DELAYS)
    title = f"{data_name}, protocol online"
    if settings_of(dataset, "temporal").statistics == settings_of(dataset, "online").statistics:
        places, title = [*places, NEVER], f"{title}; {NEVER}: temporal"
        for row in table_2_rows(records, dataset, "temporal", data_name):
            if row["model"] in of_model:
                of_model[row["model"]] |= {f"auc {NEVER}": row["auc"], f"auc {NEVER}_std": row["auc_std"]}
    drawn = {}
    for model in _drawn(list(of_model.values()), f"auc {places[0]}"):
        row = of_model[model]
        drawn[NAMES.get(model, model)] = {
            place: (row[f"auc {place}"], row[f"auc {place}_std"]) for place in places if f"auc {place}" in row
        }
    if drawn:
        draw_label_delays(drawn, title, figures_of(records) / f"{data_name}_label_delays.png")


def _has_a_change(dataset: str, protocol: str, group: str, rows: list[Row]) -> bool:
    """Whether any row is of another run than those of table 2, or, among the parts, of another model than IntTower."""
    named = {row["variant"] for row in rows}
    variants = [variant for variant in variants_of(dataset, group, protocol) if variant.name in named]
    if any(variant.tuned or (group in OF_PARTS and variant.model != REFERENCE) for variant in variants):
        return True
    return any(v.run(dataset, "strict").recorded() != Run(dataset, "strict", v.model).recorded() for v in variants)


def write_latency(records: Records) -> None:
    """The table of scoring times, and AUC against them where MovieLens has records; prints the table."""
    rows = latency_rows(records)
    first = rows[0]
    title = f"One user against {first['candidates']:,} candidates, {first['device']}, threads: {first['num_threads']}."
    _write_table(records.folder / "latency", title, rows, LATENCY_COLUMNS)
    points = [
        row | {"name": NAMES.get(row["model"], row["model"]), "kind": _kind(row["model"].split(",")[0])}
        for row in rows
        if "auc" in row
    ]
    if points:
        draw_pareto(points, title, figures_of(records) / "auc_against_time.png")


def _kind(model: str) -> str:
    return "items encoded ahead" if is_two_tower(model_class(model)) else "needs the pair"


def _write_table(path: Path, title: str, rows: list[Row], columns: Columns) -> None:
    text = f"{title}\n\n{markdown(rows, columns)}"
    write_atomically(path.with_suffix(".md"), (text + "\n").encode())
    write_atomically(path.with_suffix(".csv"), as_csv(rows).encode())
    print(f"\n{path.with_suffix('.md')}\n{text}")
