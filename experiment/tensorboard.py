"""A run's history for TensorBoard: `tensorboard --logdir runs` draws what the record holds, while it grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def epoch_writer(folder: Path, history: list[dict]) -> Callable[[dict], None]:
    """A function to call after each epoch: it writes the rows of the history that are new, as scalars.

    The first call replaces what stood in the folder, and no sooner: until then it is an older run's.

    Args:
        history: of the run, which grows.
    """
    from torch.utils.tensorboard import SummaryWriter  # an optional package: see TrainingSettings.check

    writers, written = [], 0

    def write(_: dict) -> None:
        nonlocal written
        if not writers:
            for older in folder.glob("events.out.tfevents.*"):
                older.unlink()
            writers.append(SummaryWriter(folder))
        for row in history[written:]:
            for name, value in row.items():
                if name != "epoch":
                    writers[0].add_scalar(name, value, row["epoch"])
        written = len(history)
        writers[0].flush()

    return write
