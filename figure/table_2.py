"""Table 2 against the published numbers: a panel per protocol, a line per model."""

from pathlib import Path

from figure.style import grid, save, subplots

SPLIT = {"paper": "random split", "strict": "random split", "temporal": "split by time", "online": "users kept current"}


def draw_table_2(rows_of_protocol: dict[str, list[dict]], names: dict[str, str], path: Path) -> None:
    """Draw AUC of the rows of table 2, mean and standard deviation over seeds, beside the published AUC."""
    # A protocol may lack some models: the fullest one has all in their order.
    every = [row for rows in sorted(rows_of_protocol.values(), key=len, reverse=True) for row in rows]
    models = list(dict.fromkeys(row["model"] for row in every))
    width = 2.5 + 3.6 * len(rows_of_protocol)
    figure, panels = subplots(1, len(rows_of_protocol), figsize=(width, 4), sharey=True, squeeze=False)
    for axes, (protocol, rows) in zip(panels[0], rows_of_protocol.items(), strict=True):
        places = [models.index(row["model"]) for row in rows]
        errors = [0.0 if row["seeds"] == 1 else row["auc_std"] for row in rows]
        aucs = [row["auc"] for row in rows]
        axes.errorbar(aucs, places, xerr=errors, fmt="o", color="black", ms=6, capsize=3, label="ours")
        published = [(row["published_auc"], y) for y, row in zip(places, rows, strict=True) if "published_auc" in row]
        if published:
            axes.plot(*zip(*published, strict=True), "D", mfc="none", mec="0.35", ms=7, label="published (labels leak)")
        leak = "labels leak" if rows[0]["labels_leak"] else "no leak"
        axes.set_title(f"{protocol}: {SPLIT[protocol]}, {leak}", fontsize=10)
        axes.locator_params(axis="x", nbins=6)  # more run into each other
        axes.set_xlabel("AUC on the test split")
        grid(axes)
    panels[0][0].set_yticks(range(len(models)), [names.get(model, model) for model in models])
    panels[0][0].set_ylim(len(models) - 0.5, -0.5)
    figure.legend(*panels[0][0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    seeds = " or ".join(map(str, sorted({row["seeds"] for row in every})))
    figure.suptitle(f"{every[0]['dataset']}: mean ± standard deviation over {seeds} seeds", fontsize=11)
    save(figure, path)
