"""A run's folder, its JSON record and the table on the terminal."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from preprocessing.encode import save_encoders
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from preprocessing.inputs import DenseFeat
from preprocessing.tables import Dataset
from training.code_version import code_version
from training.memory import peak_gpu_memory_bytes, peak_memory_bytes
from training.metrics import auc
from training.settings import TrainingSettings
from training.trainer import CHECKPOINT, Trainer

PROJECT = Path(__file__).resolve().parent.parent
PUBLISHED = PROJECT / "results" / "published.json"
RECORD, ENCODERS, LEARNING_CURVE = "record.json", "encoders.json", "learning_curve.png"
TEST_LOGITS = "test_logits.npy"
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "deepctr-torch")

SYNTHETIC_BANNER = """\
###############################################################################
#  SYNTHETIC DATA, invented by preprocessing/sample.py.                       #
#  The numbers below say that the code runs; they say nothing of real users.  #
###############################################################################"""


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


def begin_run(folder: Path, data: Dataset, overwrite: bool) -> None:
    """Save the encoders; with `overwrite`, first remove the run that stood there. Called when all else is checked.

    A record that stands there is removed in any case: it would not be that of the run that goes on now.
    """
    for name in (RECORD, TEST_LOGITS, LEARNING_CURVE, *((CHECKPOINT, ENCODERS) if overwrite else ())):
        (folder / name).unlink(missing_ok=True)
    save_encoders(folder / ENCODERS, data.user_encoder, data.item_encoder)


def run_identity(settings: TrainingSettings, data: Dataset, model: nn.Module) -> dict:
    """What a checkpoint must agree on to be this run's."""
    columns = [[c.name, getattr(c, "vocabulary_size", None)] for c in [*data.user_columns, *data.item_columns]]
    identity = {"model": type(model).__name__, "data": data.fingerprint, "vocabulary sizes": columns}
    return json.loads(json.dumps(identity | settings.identity(type(model))))


def make_record(
    settings: TrainingSettings,
    data: Dataset,
    trainer: Trainer,
    code: str,
    test: dict,
    valid: dict,
    evaluation_seconds: float,
) -> dict:
    """Everything that a table or a plot may want to know of a finished run; `code` is its code_version."""
    progress, model = trainer.progress, trainer.model
    return {
        "dataset": data.name,
        "synthetic": data.synthetic,
        "source": Path(data.source).name,
        "fingerprint": data.fingerprint,
        "tables": data.checksum(),
        "code": code,
        "counts": data.counts,
        "protocol": data.protocol,
        "labels_leak": data.labels_leak,
        "model": type(model).__name__,
        "settings": settings.recorded(type(model)),
        "seed": settings.seed,
        "test": test,
        "valid": valid,
        "best_possible_test_auc": _best_auc(data),
        "dense_feature_test_auc": _dense_feature_auc(data),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "data_seconds": data.seconds,
        "train_seconds": progress.seconds,
        "samples_per_second": progress.epoch * len(data.train) / progress.seconds,
        "evaluation_seconds": evaluation_seconds,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_gpu_memory_bytes": peak_gpu_memory_bytes(trainer.device),
        "device": str(trainer.device),
        "num_threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "git": git_state(),
        "history": progress.history,
    }


def write_record(folder: Path, record: dict, test_logits: np.ndarray) -> None:
    """Write a run's record and its test logits, (N,) float32 in the order of the test table, into its folder.

    A run that has a record is finished.
    """
    write_atomically(folder / TEST_LOGITS, lambda file: np.save(file, test_logits, allow_pickle=False))
    write_atomically(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())


def finished_record(folder: Path, settings: TrainingSettings, data: Dataset, model: type) -> dict | None:
    """The record of a finished run of a model on these data with these settings; None where there is none.

    Raises UserError where the file is no record.
    """
    if not (folder / RECORD).exists():
        return None
    try:
        record = json.loads((folder / RECORD).read_bytes())
        same = record["settings"] == json.loads(json.dumps(settings.recorded(model)))
        made_of = record["fingerprint"], record["tables"], record["code"]
        return record if same and made_of == (data.fingerprint, data.checksum(), code_version(model)) else None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / RECORD}: expected the record of a run, got {error!r}; use --overwrite.") from error


def print_report(record: dict, folder: Path) -> None:
    """The result as a table, and under it what a reader must know before quoting a number."""
    test = record["test"]
    names = ("model", "protocol", "AUC", "logloss", "gAUC", "epochs (best)", "train time", "samples/s")
    values = (
        record["model"],
        record["protocol"] + (" (labels leak)" if record["labels_leak"] else ""),
        f"{test['auc']:.4f}",
        f"{test['logloss']:.4f}",
        f"{test['gauc']:.4f}",
        f"{record['epochs']} ({record['best_epoch']})",
        f"{record['train_seconds']:.0f} s",
        f"{record['samples_per_second']:,.0f}",
    )
    widths = [max(len(name), len(value)) for name, value in zip(names, values, strict=True)]
    synthetic = " (SYNTHETIC)" if record["synthetic"] else ""
    print(f"\ntest split of {record['dataset']}{synthetic}, seed {record['seed']}, {record['device']}")
    print("  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True)))
    print("  ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)))
    for line in _remarks(record):
        print(line)
    print(f"record, checkpoint, encoders and learning curve: {folder}/")


def _remarks(record: dict) -> list[str]:
    if record["synthetic"]:
        best = record["best_possible_test_auc"]
        return [f"best possible AUC on this test split, by the generator's own probabilities: {best:.4f}"]
    published = json.loads(PUBLISHED.read_text()).get(record["dataset"], {}).get(record["model"])
    if published is None:
        return []
    if record["settings"].get("sample_rate", 1) < 1:
        return ["trained and tested on a share of the users: not to be compared with published figures."]
    figures = f"AUC {published[0]:.4f}, logloss {published[1]:.4f}"
    if not any("mean_rating" in name for name in record["dense_feature_test_auc"]):
        return [f"published for {record['model']}: {figures}; no feature here is made of labels, so none leaks."]
    if record["labels_leak"]:
        return [
            f"published for {record['model']}: {figures}",
            "labels leak: rating means are taken over the very rows that are scored; compare with the paper only.",
        ]
    return [
        f"the paper reports {figures}; the code released with it computes features from the labels of the scored "
        "rows. Here a row's features know nothing of its label, so this is not the same measurement."
    ]


def _best_auc(data: Dataset) -> float | None:
    return auc(data.test.labels.numpy(), data.probabilities) if data.synthetic else None


def _dense_feature_auc(data: Dataset) -> dict[str, float]:
    """AUC of each dense feature taken as the score itself: what a feature that has seen the labels gives away."""
    dense = [column.name for column in [*data.user_columns, *data.item_columns] if isinstance(column, DenseFeat)]
    labels = data.test.labels.numpy()
    return {name: auc(labels, data.test.features[name].numpy()[:, 0]) for name in dense}


def git_state() -> dict | None:
    """The commit, and whether any Python file was changed or added since; None outside a git checkout."""
    if shutil.which("git") is None:
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--", "*.py")),
        }
    except (subprocess.SubprocessError, OSError):
        return None
