"""The figures beside the tables, as PNG under figure/, all from records."""

from __future__ import annotations

from pathlib import Path

from figure.ablation import draw_ablation
from figure.learning_curves import draw_learning_curves
from figure.live import NEVER, draw_earlier_rows, draw_label_delays
from figure.pareto import draw_pareto
from figure.table_2 import draw_table_2
from model import model_class
from preprocessing.choices import PROTOCOLS
from reproduction.output import latency_title
from reproduction.plans import BASE, LABEL_DELAYS, NAMES, OWN, RANKING_MODELS, REFERENCE, SUFFIX, table_2_runs
from reproduction.records import PROJECT, RESULTS, Records
from reproduction.runs import script
from reproduction.tables import Row, auc_by_earlier_rows, changed_rows, delay_rows, latency_rows, table_2_rows
from training.predict import is_two_tower


def folder_of(records: Records) -> Path:
    """Where figures go: figure/ for the project's own records, else beside them."""
    return PROJECT / "figure" if records.folder.resolve() == RESULTS else records.folder / "figure"


def draw_across_protocols(records: Records, dataset: str, data_name: str, settings: str = OWN) -> None:
    """AUC of table 2, a panel for each protocol that compares models."""
    every = {p: rows for p in PROTOCOLS if (rows := table_2_rows(records, dataset, p, data_name, settings))}
    compared = {p: rows for p, rows in every.items() if len(rows) > 1} or every
    if compared:
        draw_table_2(compared, NAMES, folder_of(records) / f"{data_name}_table_2{SUFFIX[settings]}.png")


def draw_protocol(records: Records, dataset: str, protocol: str, data_name: str, settings: str = OWN) -> None:
    """The learning curves of one table 2, and AUC by how many earlier rows a test row's user had, if records know."""
    rows = table_2_rows(records, dataset, protocol, data_name, settings)
    if not rows:
        return
    ending = f"{SUFFIX[settings]}_{protocol}.png"
    run_of = table_2_runs(dataset, protocol, settings)
    curves = {row["model"]: list(records.by_seed(run_of[row["model"]], data_name).values()) for row in reversed(rows)}
    draw_learning_curves(curves, REFERENCE, NAMES, folder_of(records) / f"{data_name}_learning_curves{ending}")
    parts = auc_by_earlier_rows(records, dataset, protocol, data_name, settings)
    of_model = {m: [part for part in parts if part["model"] == m] for m in _drawn(rows)}
    of_model = {NAMES.get(model, model): found for model, found in of_model.items() if found}
    if of_model:
        path = folder_of(records) / f"{data_name}_earlier_rows{ending}"
        draw_earlier_rows(of_model, f"{data_name}, protocol {protocol}", path)


def draw_groups(records: Records, dataset: str, protocol: str, data_name: str) -> None:
    """One figure of the ablation's groups, and one of AUC by when labels are known."""
    rows_of_group = changed_rows(records, dataset, protocol, data_name)
    if "delays" in rows_of_group:
        _draw_delays(records, delay_rows(rows_of_group["delays"]), dataset, data_name)
    path = folder_of(records) / f"{data_name}_ablation_{protocol}.png"
    draw_ablation(rows_of_group, REFERENCE, f"{data_name}, protocol {protocol}", path)


def draw_latency(records: Records) -> None:
    """AUC against scoring time, where MovieLens has records."""
    rows = latency_rows(records)
    points = [
        row | {"name": NAMES.get(row["model"], row["model"]), "kind": _kind(row["model"].split(",")[0])}
        for row in rows
        if "auc" in row
    ]
    if points:
        draw_pareto(points, latency_title(rows), folder_of(records) / "auc_against_time.png")


def _draw_delays(records: Records, rows: list[Row], dataset: str, data_name: str) -> None:
    """AUC by when labels are known, of models with every delay; under temporal those of the test period never are."""
    of_model = {row["model"]: row for row in rows if all(f"auc {delay}" in row for delay in LABEL_DELAYS)}
    places = list(LABEL_DELAYS)
    title = f"{data_name}, protocol online"
    by_protocol = script(dataset).Settings.BY_PROTOCOL
    if by_protocol.get("temporal") == by_protocol.get("online"):
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
        draw_label_delays(drawn, title, folder_of(records) / f"{data_name}_label_delays.png")


def _drawn(rows: list[Row], measure: str = "auc") -> list[str]:
    """The models of the figures of which few lines can be told apart: the best ranking model stands for its kind."""
    auc_of = {row["model"]: row[measure] for row in rows if measure in row}
    best = sorted(RANKING_MODELS & auc_of.keys(), key=auc_of.get)[-1:]
    return [model for model in ("StatisticsLR", BASE, *best, REFERENCE) if model in auc_of]


def _kind(model: str) -> str:
    return "items encoded ahead" if is_two_tower(model_class(model)) else "needs the pair"
