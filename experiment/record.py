"""A run's JSON record: everything that a table or a plot may want to know of it."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from experiment.code_version import PROJECT, code_version
from experiment.folder import ENCODERS, RECORD, TEST_LOGITS
from experiment.init_from import parent_of
from experiment.settings import TrainingSettings
from preprocessing.encode import OOV, encoders_as_json
from preprocessing.errors import UserError, in_words
from preprocessing.files import write_atomically
from preprocessing.inputs import DenseFeat
from preprocessing.tables import Dataset
from training import CHECKPOINT
from training.checkpoint import CODE, ENCODERS_CHECKSUM, load_checkpoint, weights_checksum
from training.distributed import num_processes
from training.memory import peak_gpu_memory_bytes, peak_memory_bytes
from training.metrics import auc
from training.trainer import ROWWISE_ADAGRAD, Trainer

EARLIER_ROWS = (0, 1, 5, 10, 20, 50, 100, 200)  # where the parts of the test rows begin, by their users' earlier rows
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "deepctr-torch")


def run_identity(settings: TrainingSettings, data: Dataset, model: nn.Module) -> dict:
    """What a checkpoint must agree on to be this run's."""
    columns = [[c.name, getattr(c, "vocabulary_size", None)] for c in [*data.user_columns, *data.item_columns]]
    identity = {"model": type(model).__name__, "data": data.fingerprint, "vocabulary sizes": columns}
    identity[ENCODERS_CHECKSUM] = hashlib.sha256(encoders_as_json(data.user_encoder, data.item_encoder)).hexdigest()
    identity[CODE] = code_version(type(model))
    if settings.init_from is not None:
        identity["init_from"] = parent_of(settings.init_from)["weights"]
    return json.loads(json.dumps(identity | settings.identity(type(model))))


def make_record(
    settings: TrainingSettings,
    data: Dataset,
    trainer: Trainer,
    code: str,
    test: dict,
    valid: dict,
    evaluation_seconds: float,
    test_logits: np.ndarray,
) -> dict:
    """Everything that a table or a plot may want to know of a finished run.

    Args:
        code: its code_version.
        test, valid: see training.metrics.evaluate.
        evaluation_seconds: of the test rows.
        test_logits: (N,).
    """
    progress, model = trainer.progress, trainer.model
    record = {
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
        "init_from": parent_of(settings.init_from),
        "test": test,
        "valid": valid,
        "strangers": _strangers(data, test_logits),
        "by_earlier_rows": _by_earlier_rows(data, test_logits),
        "best_possible_test_auc": _best_auc(data),
        "dense_feature_test_auc": _dense_feature_auc(data),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_batch": progress.best_batch,
        "data_seconds": data.seconds,
        "train_seconds": progress.seconds,
        "samples_per_second": progress.epoch * len(data.train) / progress.seconds,
        "evaluation_seconds": evaluation_seconds,
        "num_parameters": trainer.num_parameters(),
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_gpu_memory_bytes": peak_gpu_memory_bytes(trainer.device),
        "device": str(trainer.device),
        "num_threads": torch.get_num_threads(),
        "num_processes": num_processes(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "git": git_state(),
        "weights": weights_checksum(trainer.whole(model.state_dict())),
        "history": progress.history,
    }
    if trainer.sharded:
        record["sharded"] = {"tables": list(trainer.sharded), "optimizer": ROWWISE_ADAGRAD}
        record["versions"]["torchrec"] = metadata.version("torchrec")
    return record


def write_record(folder: Path, record: dict, test_logits: np.ndarray) -> None:
    """Write a run's record and its test logits, (N,) float32 in the order of the test table, into its folder.

    A run that has a record is finished. An older record goes when both files are on the disk, and before either takes
    its place: it never stands beside other logits, and a full disk leaves it.
    """

    def write_logits() -> None:
        def write(file) -> None:
            np.save(file, test_logits, allow_pickle=False)

        write_atomically(folder / TEST_LOGITS, write, before=lambda: (folder / RECORD).unlink(missing_ok=True))

    write_atomically(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode(), before=write_logits)


def finished_record(folder: Path, settings: TrainingSettings, data: Dataset, model: type) -> dict | None:
    """The record of a finished run of a model on these data with these settings; None where there is none.

    None too where the checkpoint or the encoders beside it are not those of the record. Raises UserError where the file
    is no record, or the checkpoint none.
    """
    if not (folder / RECORD).exists():
        return None
    try:
        record = json.loads((folder / RECORD).read_bytes())
        same = record["settings"] == json.loads(json.dumps(settings.recorded(model)))
        made_of = record["fingerprint"], record["tables"], record["code"]
        if not same or made_of != (data.fingerprint, data.checksum(), code_version(model)):
            return None
        if record.get("init_from") != parent_of(settings.init_from):
            return None
        weights = record.get("weights")  # none in a record of an older version
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        got = in_words(error)
        raise UserError(f"{folder / RECORD}: expected the record of a run, got {got}; use --overwrite.") from error
    if weights is not None and (folder / CHECKPOINT).exists():
        state = load_checkpoint(folder / CHECKPOINT)
        if weights != weights_checksum(state.get("best_model") or state["model"]):
            return None
    encoders = folder / ENCODERS
    if encoders.exists() and encoders.read_bytes() != encoders_as_json(data.user_encoder, data.item_encoder):
        return None
    return record


def _best_auc(data: Dataset) -> float | None:
    return auc(data.test.labels.numpy(), data.probabilities) if data.synthetic else None


def _dense_feature_auc(data: Dataset) -> dict[str, float]:
    """AUC of each dense feature taken as the score itself: what a feature that has seen the labels gives away."""
    columns = [*data.user_columns, *data.item_columns]
    dense = [column.name for column in columns if isinstance(column, DenseFeat) and column.dimension == 1]
    labels = data.test.labels.numpy()
    return {name: auc(labels, data.test.features[name].numpy()[:, 0]) for name in dense}


def _strangers(data: Dataset, logits: np.ndarray) -> dict[str, dict[str, dict]]:
    """Rows and AUC of the test rows whose user (or item) training has, and of the others."""
    parts = {}
    for tower, encoder in (("user", data.user_encoder), ("item", data.item_encoder)):
        is_seen = data.test.features[encoder.id_column].numpy() != OOV
        parts[tower] = {"seen": _part(data, logits, is_seen), "unseen": _part(data, logits, ~is_seen)}
    return parts


def _by_earlier_rows(data: Dataset, logits: np.ndarray) -> list[dict] | None:
    """The same of the test rows by how many rows their users had before; each part from a number to the next."""
    if data.earlier is None:
        return None
    bounds = zip(EARLIER_ROWS, (*EARLIER_ROWS[1:], np.inf), strict=True)
    return [{"from": low} | _part(data, logits, (low <= data.earlier) & (data.earlier < high)) for low, high in bounds]


def _part(data: Dataset, logits: np.ndarray, is_in: np.ndarray) -> dict:
    labels = data.test.labels.numpy()[is_in]
    return {"rows": len(labels), "auc": auc(labels, logits[is_in]) if len(np.unique(labels)) > 1 else None}


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
