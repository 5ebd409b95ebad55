"""The losses of a model's first steps, a row of panels per dataset and a panel per size of the model."""

from pathlib import Path

from figure.style import grid, save, subplots

STYLES = {"sum": {"color": "0.6", "lw": 1.5}, "mean": {"color": "black", "lw": 1.2}}


def draw_first_steps(every: list, path: Path) -> None:
    """Draw all losses on a logarithmic axis; each entry has a dataset, a size, a scale and losses."""
    datasets, sizes = (list(dict.fromkeys(getattr(found, name) for found in every)) for name in ("dataset", "size"))
    shape = {"figsize": (3 * len(sizes), 2.1 * len(datasets) + 0.6), "sharex": True, "sharey": True, "squeeze": False}
    figure, panels = subplots(len(datasets), len(sizes), **shape)
    for found in every:
        axes = panels[datasets.index(found.dataset)][sizes.index(found.size)]
        steps = range(1, len(found.losses) + 1)
        axes.plot(steps, found.losses, label=found.scale, **STYLES[found.scale])
        axes.set_yscale("log")
        axes.set_title(f"{found.dataset}, {found.size} heads", fontsize=9)
        grid(axes)
    panels[0][0].legend(frameon=False, fontsize=9)
    figure.supxlabel("step")
    figure.supylabel("loss of the batch")
    figure.suptitle("IntTower's first steps: the sum of MaxSims, and their mean with the prior as bias", fontsize=11)
    save(figure, path)
