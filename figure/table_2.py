"""Table 2 against the published numbers: a panel per protocol, a line per model."""

from pathlib import Path

from matplotlib import pyplot as plt

from figure.style import grid, save

LEAK = {
    "paper": "labels leak, as in the paper",
    "strict": "random split, no leak",
    "temporal": "split by time, no leak",
}


def draw_table_2(rows_of_protocol: dict[str, list[dict]], names: dict[str, str], path: Path) -> None:
    """Draw AUC of the rows of table 2, mean and standard deviation over seeds, beside the published AUC."""
    figure, panels = plt.subplots(
        1,
        len(rows_of_protocol),
        figsize=(2.5 + 3.6 * len(rows_of_protocol), 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (protocol, rows) in zip(panels[0], rows_of_protocol.items(), strict=True):
        places = range(len(rows))
        errors = [0.0 if row["seeds"] == 1 else row["auc_std"] for row in rows]
        axes.errorbar(
            [row["auc"] for row in rows], places, xerr=errors, fmt="o", color="black", ms=6, capsize=3, label="ours"
        )
        published = [
            (row["published_auc"], place) for place, row in zip(places, rows, strict=True) if "published_auc" in row
        ]
        if published:
            axes.plot(*zip(*published, strict=True), "D", mfc="none", mec="0.35", ms=7, label="published")
        axes.set_title(f"{protocol}: {LEAK[protocol]}", fontsize=10)
        axes.set_xlabel("AUC on the test split")
        axes.set_yticks(places, [names.get(row["model"], row["model"]) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        grid(axes)
    figure.legend(*panels[0][0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    first = next(iter(rows_of_protocol.values()))[0]
    seeds = sorted({row["seeds"] for rows in rows_of_protocol.values() for row in rows})
    figure.suptitle(
        f"{first['dataset']}: mean ± standard deviation over {' or '.join(map(str, seeds))} seeds", fontsize=11
    )
    save(figure, path)
