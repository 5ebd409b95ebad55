"""A run's folder: what its files are called, and whether it may be written to. Imports nothing heavy."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from experiment.settings import TrainingSettings
from preprocessing.command import is_first_process
from preprocessing.errors import UserError
from preprocessing.files import TEMPORARY, check_links, locked
from training import CHECKPOINT

RECORD, TEST_LOGITS, ENCODERS = "record.json", "test_logits.npy", "encoders.json"
LEARNING_CURVE, TENSORBOARD = "learning_curve.png", "tensorboard"
LOCK = ".lock"


def open_run_folder(settings: TrainingSettings, dataset: str, model: str) -> Path:
    """The folder of this run; raises UserError where another run stands in it and may not be replaced."""
    default = f"runs/{dataset}-{model}-{settings.protocol}-seed{settings.seed}"
    folder = Path(settings.output or default)
    check_links(folder)
    taken = [name for name in (RECORD, CHECKPOINT) if (folder / name).exists()]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: expected a folder, got a file; choose another.")
    if settings.init_from is not None and Path(settings.init_from).resolve() == folder.resolve():
        raise UserError(
            f"--init-from {settings.init_from}: expected another folder than that of this run, whose weights it would "
            "replace; take another --output."
        )
    if taken and not (settings.resume or settings.overwrite):
        raise UserError(
            f"{folder}: expected an empty folder, got the {taken[0]} of another run; "
            "--resume goes on with it, --overwrite replaces it, --output takes another folder."
        )
    return folder


def check_output(settings: TrainingSettings) -> None:
    """Raise UserError where a run is at work in the folder that --output names; `train_and_record` looks again.

    A run that stands there is told after the data are read: what is wrong with them says more.
    """
    if settings.output and (Path(settings.output) / LOCK).exists() and is_first_process():
        with only_run(Path(settings.output)):
            pass


def clear_run_folder(folder: Path, overwrite: bool) -> None:
    """Remove the results of an older checkpoint, which a newer one is about to replace; with `overwrite` its curves."""
    for name in (RECORD, TEST_LOGITS, LEARNING_CURVE):
        (folder / name).unlink(missing_ok=True)
    if overwrite:
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """One process at a time trains in a folder. Raises UserError where another one does, or it cannot be made."""

    def refuse() -> None:
        raise UserError(
            f"{folder}: expected no other run at work in this folder, got one; wait for it, or take another --output."
        )

    with ExitStack() as entered:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            entered.enter_context(locked(folder / LOCK, refuse))
            for name in (CHECKPOINT, ENCODERS, RECORD, TEST_LOGITS):  # half-written by a process that was killed
                for left in folder.glob(f".{name}.*"):
                    if left.suffix == TEMPORARY or left.suffix[1:].isdigit():  # so older versions called them
                        left.unlink()
        except OSError as error:
            raise UserError(
                f"{folder}: expected a folder to write to, got {error.strerror or error}; "
                "free some space or choose another with --output."
            ) from error
        yield


def ensure_temporary_folder(folder: Path) -> None:
    """Where the machine has no folder for temporary files, which torch and matplotlib want, one in the run's folder.

    It goes when the process ends.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = tempfile.mkdtemp(prefix=".temporary-", dir=folder.resolve())
        atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)


def check_run_folder(folder: str | Path) -> None:
    """Raise UserError where a folder holds no training run."""
    name = str(folder) or "''"  # which Path would take for the working folder
    if not Path(name).is_dir():
        raise UserError(f"{name}: expected the folder of a training run, got none; train first, or check the path.")
    if not (Path(folder) / CHECKPOINT).is_file():
        raise UserError(f"{Path(folder) / CHECKPOINT}: expected a checkpoint, got no such file; train first.")
