"""What trials of a search are worth: the best validation AUC so far over the trials made, a panel per model."""

import math
from pathlib import Path

from figure.style import grid, save, subplots, whole_numbers


def draw_trials(
    best_of_model: dict[str, list[float]], reference: str, names: dict[str, str], title: str, path: Path
) -> None:
    """Draw each model's best AUC after each trial, from 1; the reference model's stands in grey in each panel.

    The first trial is of the settings that table 2 has where nothing was searched.
    """
    columns = 3
    num_rows = -(-len(best_of_model) // columns)
    figure, panels = subplots(num_rows, columns, figsize=(9, 2.4 * num_rows), sharex=True, sharey=True, squeeze=False)
    for axes, (model, best) in zip(panels.flat, best_of_model.items(), strict=False):
        if reference in best_of_model:
            axes.step(*_curve(best_of_model[reference]), where="post", color="0.75", lw=2, zorder=1)
        axes.step(*_curve(best), where="post", color="black", lw=1.2, zorder=2)
        axes.plot([1], best[:1], "o", color="black", ms=4, zorder=3)
        axes.set_title(names.get(model, model), fontsize=10)
        whole_numbers(axes.xaxis)
        grid(axes)
    for axes in list(panels.flat)[len(best_of_model) :]:
        axes.set_visible(False)
    # A first trial far below would press all others together.
    last = [best[-1] for best in best_of_model.values() if not math.isnan(best[-1])]
    if last:
        panels[0][0].set_ylim(bottom=min(last) - 0.01, top=max(last) + 0.002)
    figure.supxlabel("trials")
    figure.supylabel("best validation AUC")
    grey = f"; grey: {names.get(reference, reference)}" if reference in best_of_model else ""
    figure.suptitle(f"{title}{grey}", fontsize=11)
    save(figure, path)


def _curve(best: list[float]) -> tuple[range, list[float]]:
    return range(1, len(best) + 1), best
