"""A run's folder: what its files are called, and whether it may be written to. Imports nothing heavy."""

from __future__ import annotations

import shutil
from pathlib import Path

from experiment.settings import TrainingSettings
from preprocessing.errors import UserError
from training import CHECKPOINT

RECORD, TEST_LOGITS, ENCODERS = "record.json", "test_logits.npy", "encoders.json"
LEARNING_CURVE, TENSORBOARD = "learning_curve.png", "tensorboard"


def open_run_folder(settings: TrainingSettings, dataset: str, model: str) -> Path:
    """The folder of this run; raises UserError where another run stands in it and may not be replaced."""
    default = f"runs/{dataset}-{model}-{settings.protocol}-seed{settings.seed}"
    folder = Path(settings.output or default)
    taken = [name for name in (RECORD, CHECKPOINT) if (folder / name).exists()]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: expected a folder, got a file; choose another.")
    if taken and not (settings.resume or settings.overwrite):
        raise UserError(
            f"{folder}: expected an empty folder, got the {taken[0]} of another run; "
            "--resume goes on with it, --overwrite replaces it, --output takes another folder."
        )
    return folder


def clear_run_folder(folder: Path, overwrite: bool) -> None:
    """Remove what would not be the run's that goes on now: its results, and with `overwrite` all of the older run."""
    for name in (RECORD, TEST_LOGITS, LEARNING_CURVE, *((CHECKPOINT, ENCODERS) if overwrite else ())):
        (folder / name).unlink(missing_ok=True)
    if overwrite:
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)


def check_run_folder(folder: str | Path) -> None:
    """Raise UserError where a folder holds no training run."""
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: expected the folder of a training run, got none; train first, or check the path.")
    if not (Path(folder) / CHECKPOINT).is_file():
        raise UserError(f"{Path(folder) / CHECKPOINT}: expected a checkpoint, got no such file; train first.")
