"""What labels of a moment ago are worth: AUC by when they are known, and by how many of a user's are known."""

import math
from pathlib import Path

from figure.style import grid, save, subplots

STYLES = (("o", ":"), ("s", "--"), ("D", "-."), ("o", "-"))  # marker and line, the last for the model compared with all
NEVER = "never"


def draw_label_delays(aucs_of_model: dict[str, dict[str, tuple[float, float]]], title: str, path: Path) -> None:
    """Draw a line for each model: AUC, with its standard deviation, by when labels are known, from the first on."""
    delays = list(max(aucs_of_model.values(), key=len))  # a model may lack some
    figure, axes = subplots(figsize=(6.2, 4))
    for (model, aucs), style in zip(aucs_of_model.items(), STYLES[-len(aucs_of_model) :], strict=True):
        places = [delays.index(delay) for delay in aucs]
        _line(axes, model, places, list(aucs.values()), style)
    axes.set_xticks(range(len(delays)), delays)
    axes.set_xlabel("when a label is known to its user's statistics")
    _finish(figure, axes, title, path)


def draw_earlier_rows(rows_of_model: dict[str, list[dict]], title: str, path: Path) -> None:
    """Draw a line for each model: AUC of the test rows by how many earlier rows their users had."""
    figure, axes = subplots(figsize=(6.2, 4))
    parts = sorted({row["from"]: row["rows"] for rows in rows_of_model.values() for row in rows}.items())
    places = [low for low, _ in parts]
    for (model, rows), style in zip(rows_of_model.items(), STYLES[-len(rows_of_model) :], strict=True):
        _line(axes, model, [places.index(r["from"]) for r in rows], [(r["auc"], r["auc_std"]) for r in rows], style)
    highs = [f"-{low - 1:,}" if low > places[i] + 1 else "" for i, low in enumerate(places[1:])]
    names = [f"{low:,}{high}" for low, high in zip(places, [*highs, "+"], strict=True)]
    labels = [f"{name}\n({rows / 1000:,.1f}k)" for name, (_, rows) in zip(names, parts, strict=True)]
    axes.set_xticks(range(len(places)), labels)
    axes.set_xlabel("rows of the user before the test row (thousands of test rows)")
    _finish(figure, axes, title, path)


def _line(axes, model: str, places: list[int], aucs: list[tuple[float, float]], style: tuple[str, str]) -> None:
    marker, line = style
    means, stds = zip(*aucs, strict=True)
    errors = [0.0 if math.isnan(std) else std for std in stds]  # nan: of one seed
    fill = "black" if line == "-" else "white"
    axes.errorbar(
        places, means, yerr=errors, fmt=marker, ls=line, color="black", mfc=fill, ms=5, lw=1, capsize=3, label=model
    )


def _finish(figure, axes, title: str, path: Path) -> None:
    axes.set_ylabel("AUC on the test split, mean ± std over seeds")
    axes.legend(frameon=False)
    axes.set_title(title, fontsize=10)
    grid(axes)
    save(figure, path)
