"""AUC against the time to score 1,000 candidates, the Pareto front marked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from figure.style import grid, save, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # milliseconds
LETTER, LINE, MARKER = 5, 11, 5  # width of a letter, height of a line, half a marker, in points
BELOW = -9  # where a name on the front stands: the line runs to the right of its points


def pareto_front(points: list[dict]) -> list[dict]:
    """The points that no other beats in both time and AUC, the fastest first."""
    front = []
    for point in sorted(points, key=lambda p: (p["median_ms"], -p["auc"])):
        if not front or point["auc"] > front[-1]["auc"]:
            front.append(point)
    return front


def draw_pareto(points: list[dict], title: str, path: Path) -> None:
    """Draw points with `name`, `median_ms`, `auc`, and `kind` (two-tower or not); the title says what was timed."""
    figure, axes = subplots(figsize=(7.5, 4.6))
    front = pareto_front(points)
    axes.plot(
        [p["median_ms"] for p in front], [p["auc"] for p in front],
        color="0.6", lw=1.5, drawstyle="steps-post", zorder=1, label="Pareto front",
    )  # fmt: skip
    for kind, marker, fill in (("items encoded ahead", "o", "black"), ("needs the pair", "s", "white")):
        of_kind = [p for p in points if p["kind"] == kind]
        axes.plot(
            [p["median_ms"] for p in of_kind], [p["auc"] for p in of_kind],
            marker, mfc=fill, mec="black", ms=7, zorder=2, label=kind,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("median time to score all candidates (ms, log scale)")
    axes.set_ylabel("AUC on the test split (strict, no leak)")
    axes.legend(frameon=False, loc="lower right")
    axes.set_xticks(TICKS, map(str, TICKS))
    axes.minorticks_off()
    axes.set_xlim(min(p["median_ms"] for p in points) / 1.3, 2.5 * max(p["median_ms"] for p in points))
    grid(axes)
    _name(axes, points, front)
    save(figure, path)


def _name(axes: Axes, points: list[dict], front: list[dict]) -> None:
    """Write each point's name to its right (on the front: below), moved up or down from what stands there."""
    axes.figure.canvas.draw()  # only now do places on the page follow from the data
    places = [axes.transData.transform((p["median_ms"], p["auc"])) * 72 / axes.figure.dpi for p in points]
    taken = [(x - MARKER, x + MARKER, y) for x, y in places]  # from, to, height
    for point, (x, y) in sorted(zip(points, places, strict=True), key=lambda pair: pair[0]["auc"]):
        begin, end = x + MARKER + 2, x + MARKER + 7 + LETTER * len(point["name"])
        wanted = BELOW if point in front else 0
        moves = sorted(range(-60, 61), key=lambda move, wanted=wanted: (abs(move - wanted), -move))
        free = (
            move for move in moves
            if not any(begin < e and end > b and abs(y + move - h) < LINE for b, e, h in taken)
        )  # fmt: skip
        move = next(free, wanted)
        taken.append((begin, end, y + move))
        axes.annotate(
            point["name"], (point["median_ms"], point["auc"]), (MARKER + 9 if move != wanted else MARKER + 2, move),
            textcoords="offset points", fontsize=9, va="center",
            arrowprops={"arrowstyle": "-", "color": "0.5", "lw": 0.8} if move != wanted else None,
        )  # fmt: skip
