"""What searches found, from their records alone: settings as JSON, a table as Markdown, a figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from experiment.flags import as_flag
from experiment.settings import LATER
from experiment.tuned import FOUND
from figure.tuning import draw_trials
from preprocessing.files import write_atomically
from reproduction.formats import Columns, markdown, number
from reproduction.plans import NAMES, REFERENCE, SEARCHED
from reproduction.records import PROJECT, read_json_lines
from tuning.space import own_course
from tuning.study import COMPLETE, FIXED, LENGTHS, PRUNED, best_trial, trainings_after

TENTH = 10  # what a tenth of the trials had found is told beside the whole
SHORT = 6  # and what so many had found, since some models had no more


def best_so_far(trials: list[dict]) -> list[float]:
    """The highest validation AUC of complete trials after each trial; nan before the first."""
    best, after = float("nan"), []
    for trial in trials:
        if trial["state"] == COMPLETE and not best >= trial["valid_auc"]:
            best = trial["valid_auc"]
        after.append(best)
    return after


def write_found(found: Path, name: str, dataset: str, protocol: str) -> None:
    """Write what the studies of some data and protocol found, by their records, and draw it; prints the table.

    Settings are written of the models of which nothing is to be trained after the search; the table is of all.

    Args:
        name: of the studies' folder.
    """
    studies = {model: read_json_lines(found / name / f"{model}.jsonl") for model in SEARCHED}
    rows = [_row(name, model, trials) for model, trials in studies.items() if best_trial(trials)]
    # A search that is not at its end has found nothing yet: its best may be that of a training too short for the model.
    finished = [
        row for row in rows if not trainings_after(studies[row["model"]], own_course(row["model"], dataset, protocol))
    ]
    settings = {row["model"]: {key: row[key] for key in _KEPT} for row in finished}
    write_atomically(found / f"{name}.json", (json.dumps(settings, indent=1) + "\n").encode())
    about = "SYNTHETIC data, which say nothing of real users; " if "-synthetic-" in name else ""
    table = f"AUC on validation, {name}; {about}no test row was looked at.\n\n{markdown(rows, _columns(rows))}"
    write_atomically(found / f"{name}.md", (table + "\n").encode())
    print(f"\n{found / name}.md\n{table}")
    figures = PROJECT / "figure" if found.resolve() == FOUND else found / "figure"
    if rows:
        best_of_model = {
            row["model"]: best_so_far([trial for trial in studies[row["model"]] if trial["times"] == 1]) for row in rows
        }
        draw_trials(best_of_model, REFERENCE, NAMES, name, figures / f"{name}_trials.png")


_KEPT = ("settings", "valid_auc", "valid_logloss", "study", "trial", "trials", "core_hours")


def _row(name: str, model: str, trials: list[dict]) -> dict:
    best, search = best_trial(trials), [trial for trial in trials if trial["times"] == 1]
    so_far, fixed = best_so_far(search), LATER | best["made_of"]["settings"]
    if best["times"] is None:
        course = told = best["course"]
    else:
        epochs = best["times"] * fixed["epochs"]
        course = {key: fixed[key] for key in FIXED} | {"epochs": epochs, "patience": epochs}
        told = {"epochs": epochs}
    of_search = best_trial(search)["settings"]
    longer = {t["times"]: t["valid_auc"] for t in trials if t["times"] != 1 and t["settings"] == of_search}
    as_script = best_trial([trial for trial in trials if trial["times"] is None])
    return {
        "model": model,
        "settings": course | best["settings"],
        "told": told | {key: best["settings"][key] for key in best["parameters"]},
        "valid_auc": best["valid_auc"],
        "valid_logloss": best["valid_logloss"],
        "study": f"{name}/{model}.jsonl",
        "trial": best["number"],
        "trials": len(search),
        "pruned": sum(trial["state"] == PRUNED for trial in search),
        "core_hours": sum(trial["seconds"] for trial in trials) / 3600,
        "first_auc": search[0]["valid_auc"],
        "auc_of_a_tenth": so_far[max(len(search) // TENTH, 1) - 1],
        "auc_of_short": so_far[min(SHORT, len(search)) - 1],
        "auc_of_search": so_far[-1],
        "longer": longer,
        "as_script": as_script and as_script["valid_auc"],
    }


def _columns(rows: list[dict]) -> Columns:
    """What the table shows: the script's way of training where it is one of its own."""
    has = any(row["as_script"] for row in rows)
    return {name: cell for name, cell in TRIALS_COLUMNS.items() if has or name != AS_SCRIPT}


def _longer(times: int) -> Callable[[dict], str]:
    return lambda row: number(row["longer"].get(times))


AS_SCRIPT = "as the script trains"
TRIALS_COLUMNS: Columns = {
    "model": lambda row: NAMES.get(row["model"], row["model"]),
    "first trial": lambda row: number(row["first_auc"]),
    "a tenth of the trials": lambda row: number(row["auc_of_a_tenth"]),
    f"{SHORT} trials": lambda row: number(row["auc_of_short"]),
    "all trials": lambda row: number(row["auc_of_search"]),
    **{f"{times} times as long": _longer(times) for times in LENGTHS},
    AS_SCRIPT: lambda row: number(row["as_script"]),
    "logloss of the best": lambda row: number(row["valid_logloss"]),
    "trials (stopped early)": lambda row: f"{row['trials']} ({row['pruned']})",
    "core-hours": lambda row: f"{row['core_hours']:.2f}",
    "settings found": lambda row: " ".join(f"`{as_flag(name, value)}`" for name, value in row["told"].items()),
}
