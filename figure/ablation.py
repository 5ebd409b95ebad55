"""The ablation: what each part is worth, CIR's weight and temperature, the heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from figure.style import grid, save, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_ablation(rows_of_group: dict[str, list[dict]], reference: str, title: str, path: Path) -> None:
    """Draw a panel for each group of variants that has rows, a line at the reference's AUC; without any, nothing."""
    panels = {
        "parts": (_draw_parts, 2.0),
        "cir": (_draw_cir, 1.2),
        "heads": (_draw_heads, 1.2),
    }
    drawn = [group for group in panels if rows_of_group.get(group)]
    if not drawn:
        return
    widths = [panels[group][1] for group in drawn]
    figure, all_axes = subplots(1, len(drawn), figsize=(3.4 * sum(widths), 4), width_ratios=widths, squeeze=False)
    for axes, group in zip(all_axes[0], drawn, strict=True):
        panels[group][0](axes, rows_of_group[group])
        grid(axes)
        for row in rows_of_group[group]:
            if row["variant"] == reference:
                axes.axvline(row["auc"], color="0.6", lw=1, ls="--", zorder=0)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def _draw_parts(axes: Axes, rows: list[dict]) -> None:
    places = range(len(rows))
    errors = [0.0 if row["seeds"] == 1 else row["auc_std"] for row in rows]
    axes.errorbar([row["auc"] for row in rows], places, xerr=errors, fmt="o", color="black", ms=6, capsize=3)
    axes.set_yticks(places, [row["variant"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("AUC on the test split, mean ± std over seeds")
    axes.set_title("one part changed at a time", fontsize=10)


def _draw_cir(axes: Axes, rows: list[dict]) -> None:
    places = range(len(rows))
    axes.plot([row["valid_auc"] for row in rows], places, "s", mfc="white", mec="black", ms=6, label="validation")
    axes.plot([row["auc"] for row in rows], places, "o", color="black", ms=6, label="test")
    axes.set_yticks(places, [row["variant"].replace("weight ", "w ").replace("temperature ", "t ") for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("AUC (one seed)")
    axes.set_title("CIR: weight w, temperature t", fontsize=10)
    axes.legend(frameon=False)


def _draw_heads(axes: Axes, rows: list[dict]) -> None:
    for size, style, marker in ((16, "-", "o"), (32, "--", "s"), (64, ":", "^")):
        of_size = sorted((row for row in rows if row["field_dim"] == size), key=lambda row: row["user_head"])
        if of_size:
            heads = [row["user_head"] for row in of_size]
            aucs = [row["valid_auc"] for row in of_size]
            axes.plot(heads, aucs, style, color="black", marker=marker, mfc="white", label=f"size {size}")
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.set_xlabel("heads of user and item")
    axes.set_ylabel("AUC on the validation split (one seed)")
    axes.set_title(f"heads, at most {rows[0]['epochs']} epochs", fontsize=10)
    axes.legend(frameon=False)
