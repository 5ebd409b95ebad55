"""AUC against the time to score 1,000 candidates, the Pareto front marked."""

from pathlib import Path

from matplotlib import pyplot as plt

from figure.style import grid, save


def pareto_front(points: list[dict]) -> list[dict]:
    """The points that no other beats in both time and AUC, the fastest first."""
    front = []
    for point in sorted(points, key=lambda p: (p["median_ms"], -p["auc"])):
        if not front or point["auc"] > front[-1]["auc"]:
            front.append(point)
    return front


def draw_pareto(points: list[dict], title: str, path: Path) -> None:
    """Draw points with `name`, `median_ms`, `auc`, and `kind` (two-tower or not); the title says what was timed."""
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
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
    for point in points:
        axes.annotate(
            point["name"], (point["median_ms"], point["auc"]), (7, -3), textcoords="offset points", fontsize=9
        )
    axes.set_xscale("log")
    axes.set_xlim(right=2.5 * max(p["median_ms"] for p in points))
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("median time to score all candidates (ms, log scale)")
    axes.set_ylabel("AUC on the test split (strict, no leak)")
    axes.legend(frameon=False, loc="lower right")
    grid(axes)
    save(figure, path)
