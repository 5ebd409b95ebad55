"""A run's history for TensorBoard: `tensorboard --logdir runs` draws what the record holds, while it grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def epoch_writer(folder: Path, history: list[dict]) -> Callable[[dict], None]:
    """A function that writes an epoch's row of the history as scalars; what stood in the folder is replaced.

    Args:
        history: the epochs that a resumed run has behind it; they are written at once.
    """
    from torch.utils.tensorboard import SummaryWriter  # an optional package: see TrainingSettings.check

    for older in folder.glob("events.out.tfevents.*"):
        older.unlink()
    writer = SummaryWriter(folder)

    def write(row: dict) -> None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    for row in history:
        write(row)
    return write
