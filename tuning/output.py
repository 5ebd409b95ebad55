"""What searches found, from their records alone: settings as JSON, a table as Markdown, a figure."""

from __future__ import annotations

import json
from pathlib import Path

from experiment.flags import as_flag
from experiment.tuned import FOUND
from figure.tuning import draw_trials
from preprocessing.files import write_atomically
from reproduction.formats import Columns, markdown, number
from reproduction.plans import NAMES, REFERENCE, TABLE_2
from reproduction.records import PROJECT, read_json_lines
from tuning.study import COMPLETE, PRUNED

TENTH = 10  # what a tenth of the trials had found is told beside the whole


def best_trial(trials: list[dict]) -> dict | None:
    """The trial with the highest validation AUC of those that ran to their end; None where there is none."""
    complete = [trial for trial in trials if trial["state"] == COMPLETE]
    return max(complete, key=lambda trial: trial["valid_auc"], default=None)


def best_so_far(trials: list[dict]) -> list[float]:
    """The highest validation AUC of complete trials after each trial; nan before the first."""
    best, after = float("nan"), []
    for trial in trials:
        if trial["state"] == COMPLETE and not best >= trial["valid_auc"]:
            best = trial["valid_auc"]
        after.append(best)
    return after


def write_found(found: Path, name: str) -> None:
    """Write what the studies of some data and protocol found, by their records, and draw it; prints the table."""
    studies = {model: read_json_lines(found / name / f"{model}.jsonl") for model in TABLE_2}
    rows = [_row(name, model, trials) for model, trials in studies.items() if best_trial(trials)]
    settings = {row["model"]: {key: row[key] for key in _KEPT} for row in rows}
    write_atomically(found / f"{name}.json", (json.dumps(settings, indent=1) + "\n").encode())
    table = markdown(rows, TRIALS_COLUMNS)
    write_atomically(found / f"{name}.md", (table + "\n").encode())
    print(f"\n{found / name}.md\n{table}")
    figures = PROJECT / "figure" if found.resolve() == FOUND else found / "figure"
    if rows:
        best_of_model = {row["model"]: best_so_far(studies[row["model"]]) for row in rows}
        draw_trials(best_of_model, REFERENCE, NAMES, name, figures / f"{name}_trials.png")


_KEPT = ("settings", "valid_auc", "valid_logloss", "study", "trial", "trials", "core_hours")


def _row(name: str, model: str, trials: list[dict]) -> dict:
    best = best_trial(trials)
    return {
        "model": model,
        "settings": best["made_of"]["fixed"] | best["settings"],
        "searched": best["settings"],
        "valid_auc": best["valid_auc"],
        "valid_logloss": best["valid_logloss"],
        "study": f"{name}/{model}.jsonl",
        "trial": best["number"],
        "trials": len(trials),
        "pruned": sum(trial["state"] == PRUNED for trial in trials),
        "core_hours": sum(trial["seconds"] for trial in trials) / 3600,
        "first_auc": trials[0]["valid_auc"],
        "auc_of_a_tenth": best_so_far(trials)[max(len(trials) // TENTH, 1) - 1],
    }


TRIALS_COLUMNS: Columns = {
    "model": lambda row: NAMES.get(row["model"], row["model"]),
    "valid AUC, own settings": lambda row: number(row["first_auc"]),
    "a tenth of the trials": lambda row: number(row["auc_of_a_tenth"]),
    "all trials": lambda row: f"**{number(row['valid_auc'])}**",
    "valid logloss": lambda row: number(row["valid_logloss"]),
    "trials (stopped early)": lambda row: f"{row['trials']} ({row['pruned']})",
    "best": lambda row: f"{row['trial'] + 1}",
    "core-hours": lambda row: f"{row['core_hours']:.2f}",
    "settings found": lambda row: " ".join(f"`{as_flag(name, value)}`" for name, value in row["searched"].items()),
}
