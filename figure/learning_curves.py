"""Validation AUC over the epochs, a panel per model, a reference model in grey behind the others."""

from pathlib import Path

from figure.style import grid, save, subplots, whole_numbers

LONGEST = 30  # epochs that are drawn; LR takes more


def draw_learning_curves(
    records_of_model: dict[str, list[dict]], reference: str, names: dict[str, str], path: Path
) -> None:
    """Draw every seed's curve, its best epoch marked; the reference model's curves stand in grey in each panel."""
    columns = 3
    num_rows = -(-len(records_of_model) // columns)
    figure, panels = subplots(num_rows, columns, figsize=(9, 2.4 * num_rows), sharex=True, sharey=True, squeeze=False)
    every = [record for records in records_of_model.values() for record in records]
    longest = min(LONGEST, max(record["epochs"] for record in every))
    for axes, (model, records) in zip(panels.flat, records_of_model.items(), strict=False):
        for record in records_of_model.get(reference, []):
            axes.plot(*_curve(record), color="0.75", lw=1.5, zorder=1)
        for record in records:
            epochs, aucs = _curve(record)
            axes.plot(epochs, aucs, color="black", lw=1, zorder=2)
            best = record["best_epoch"]
            axes.plot(best, aucs[best - 1], "o", color="black", ms=5, zorder=3)
        late = [record for record in records if record["best_epoch"] > longest]
        if late:
            best = sorted({record["best_epoch"] for record in late})
            text = f"best at {best[0]}" + (f" to {best[-1]}" if len(best) > 1 else "")
            last_drawn = longest, _curve(late[-1])[1][longest - 1]
            axes.annotate(text, last_drawn, (0, -14), textcoords="offset points", ha="right")
        axes.set_title(names.get(model, model), fontsize=10)
        axes.set_xlim(0.5, longest + 0.5)
        whole_numbers(axes.xaxis)
        grid(axes)
    for axes in list(panels.flat)[len(records_of_model) :]:
        axes.set_visible(False)
    # The first epochs of a slow model would press all others together, the more so where their best lie close.
    best, lowest = [max(_curve(record)[1]) for record in every], min(min(_curve(record)[1]) for record in every)
    bottom = min(best) - min(max(3 * (max(best) - min(best)), 0.005), 0.03)
    panels[0][0].set_ylim(bottom=max(bottom, lowest - 0.1 * (max(best) - lowest)))
    figure.supxlabel("epoch")
    figure.supylabel("AUC on the validation split")
    first = every[0]
    leak = " (labels leak)" if first["labels_leak"] else ""
    grey = f"; grey: {names.get(reference, reference)}" if reference in records_of_model else ""
    title = f"{first['dataset']}, protocol {first['protocol']}{leak}: a line per seed, the best epoch marked{grey}"
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def _curve(record: dict) -> tuple[list[int], list[float]]:
    return [row["epoch"] for row in record["history"]], [row["valid_auc"] for row in record["history"]]
