"""The learning curve of one run, drawn from its record."""

from pathlib import Path

from figure.style import grid, save, subplots, whole_numbers


def draw_learning_curve(record: dict, path: Path) -> None:
    """Draw logloss and validation AUC over the epochs of a record, the best epoch marked, as a PNG.

    Says in a line where that fails, and raises nothing: a finished run is not to be lost for its picture.
    """
    try:
        _draw(record, path)
    except Exception as error:  # whatever a library that draws trips over
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"learning curve: not drawn; the record holds its numbers. {reason}", flush=True)


def _draw(record: dict, path: Path) -> None:
    history = record["history"]
    epochs = [row["epoch"] for row in history]
    best = record["best_epoch"]
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.6))
    left.plot(epochs, [row["train_loss"] for row in history], "k--o", ms=4, label="train (with dropout)")
    left.plot(epochs, [row["valid_logloss"] for row in history], "k-s", ms=4, label="validation")
    left.set_ylabel("logloss (nats per row)")
    right.plot(epochs, [row["valid_auc"] for row in history], "k-s", ms=4, label="validation")
    right.set_ylabel("AUC over the whole split")
    for axes in (left, right):
        axes.axvline(best, color="0.6", lw=1, zorder=0, label=f"best epoch ({best})")
        axes.set_xlabel("epoch")
        whole_numbers(axes.xaxis)
        grid(axes)
        axes.legend(frameon=False)
    synthetic = ", SYNTHETIC data" if record["synthetic"] else ""
    leak = ", labels leak" if record["labels_leak"] else ""
    run = f"{record['model']} on {record['dataset']}{synthetic}, protocol {record['protocol']}{leak}"
    figure.suptitle(f"{run}, seed {record['seed']}", fontsize=11)
    save(figure, path)
