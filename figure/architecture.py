"""Our own drawing of IntTower's architecture.

    python -m figure.architecture

It writes figure/architecture.png.
"""

import sys

from preprocessing.command import Parser, exit_code, read_command_line

if __name__ == "__main__":
    read_command_line(Parser(description=__doc__.split("\n")[0]).parse_args)  # before the imports below

from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from figure.style import save, subplots

PATH = Path(__file__).resolve().parent / "architecture.png"
WIDTH, HEIGHT = 2.3, 0.62
USER, ITEM, LEVELS = 1.5, 11.2, 6.1  # the middles of the columns
ROWS = {"columns": 0.5, "embedding": 1.6, "light_se": 2.7, "layer 1": 3.9, "layer 2": 5.1, "layer 3": 6.3, "sum": 7.9}


def _box(
    axes: Axes, x: float, y: float, text: str, width: float = WIDTH, grey: str = "white", bold: bool = False
) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - HEIGHT / 2),
            width,
            HEIGHT,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            fc=grey,
            ec="black",
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=9, fontweight="bold" if bold else "normal")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], dashed: bool = False) -> None:
    line = (0, (4, 3)) if dashed else "-"
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=10, lw=1, ls=line, color="black", shrinkA=0, shrinkB=0
        )
    )


def draw_architecture(path: Path = PATH) -> None:
    """Draw the two towers, the FE-Block's levels between them, and CIR."""
    figure, axes = subplots(figsize=(10.5, 7))
    half = HEIGHT / 2 + 0.03
    for x, tower in ((USER, "user"), (ITEM, "item")):
        _box(axes, x, ROWS["columns"], f"{tower} fields")
        _box(axes, x, ROWS["embedding"], "embedding, 32 a field")
        _box(axes, x, ROWS["light_se"], "LightSE", grey="0.85", bold=True)
        for i, units in enumerate((300, 300, 128), start=1):
            _box(axes, x, ROWS[f"layer {i}"], f"layer {i}: {units}")
        order = list(ROWS.values())[:6]
        for below, above in pairwise(order):
            _arrow(axes, (x, below + half), (x, above - half))
        axes.text(x + 0.1, (ROWS["light_se"] + ROWS["layer 1"]) / 2, "+ numbers", va="center", fontsize=8.5)
    axes.text(USER, -0.35, "user tower\nonce per request", ha="center", va="center", fontsize=10)
    axes.text(ITEM, -0.35, "item tower\nahead of all requests", ha="center", va="center", fontsize=10)

    # Each user level meets the heads of the last item layer, and only those.
    heads_x, spread = LEVELS + 2.0, WIDTH / 2 + 0.05
    _box(axes, heads_x, ROWS["layer 3"], "G item heads of size K", width=2.1)
    _arrow(axes, (ITEM - spread, ROWS["layer 3"]), (heads_x + 1.1, ROWS["layer 3"]))
    for i in (1, 2, 3):
        y = ROWS[f"layer {i}"]
        x = LEVELS - 1.15
        _box(axes, x, y, f"H user heads, level {i}", width=2.1)
        _arrow(axes, (USER + spread, y), (x - 1.1, y))
    axes.add_patch(
        FancyBboxPatch(
            (LEVELS - 2.4, 3.35), 5.65, 3.5, boxstyle="round,pad=0.02,rounding_size=0.15", fc="none", ec="0.4", ls="--"
        )
    )
    axes.text(LEVELS + 2.0, 3.62, "FE-Block", ha="center", va="center", fontsize=11, fontweight="bold")
    rule = (
        "MaxSim of each level:",
        "for each user head the largest",
        "dot product with an item head,",
        "summed over user heads",
    )
    axes.text(LEVELS + 2.0, 4.55, "\n".join(rule), ha="center", va="center", fontsize=8.5)
    for i in (1, 2, 3):
        _arrow(axes, (LEVELS - 0.05, ROWS[f"layer {i}"]), (heads_x - 1.1, ROWS["layer 3"] - (3 - i) * 0.1))
    logit_x, cir_x = LEVELS - 1.15, LEVELS + 2.45
    _box(axes, logit_x, ROWS["sum"], "logit: sum over levels + bias", width=3.2, grey="0.85", bold=True)
    _arrow(axes, (logit_x, 6.87), (logit_x, ROWS["sum"] - half))
    # CIR compares the last level's heads with the item's, in training alone.
    _box(
        axes,
        cir_x,
        ROWS["sum"],
        "CIR, in training: draws the heads\nof pairs with label 1 together",
        width=3.4,
        grey="0.85",
    )
    _arrow(axes, (LEVELS - 0.3, ROWS["layer 3"] + half), (cir_x - 0.9, ROWS["sum"] - half), dashed=True)
    _arrow(axes, (heads_x, ROWS["layer 3"] + half), (cir_x, ROWS["sum"] - half), dashed=True)
    axes.set_xlim(0.2, 12.5)
    axes.set_ylim(-0.8, 8.4)
    axes.set_aspect("equal")
    axes.axis("off")
    save(figure, path)


if __name__ == "__main__":
    sys.exit(exit_code(draw_architecture))
