"""A finished training run as it is served: raw rows in, heads of users and items out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from experiment.folder import ENCODERS
from experiment.model_settings import taken_fields
from experiment.settings import LATER
from model import MODELS, model_class
from preprocessing.encode import TowerEncoder, load_encoders
from preprocessing.errors import UserError, is_out_of_memory
from preprocessing.one_row import RowEncoder
from serving.forks import check_threads
from serving.heads import Heads, Levels, check_weights
from serving.raw_rows import check_rows, with_statistics
from training import CHECKPOINT
from training.checkpoint import ENCODERS_CHECKSUM, load_checkpoint

BATCH = 16384  # rows that are encoded at once


@dataclass
class TrainedRun:
    """What a run's folder holds, ready to encode raw rows on the CPU.

    In a forked process it keeps to one thread (serving/forks.py); one that is spawned, it can be sent to.

    `checkpoint` is a sha256 over the weights and the levels that are served: an index made of others does not fit.
    `identity` is what the run's own checkpoint says of it: model, data and settings.
    """

    folder: Path
    heads: Heads
    user_encoder: TowerEncoder
    item_encoder: TowerEncoder
    checkpoint: str
    identity: dict

    @property
    def item_id(self) -> str:
        """The raw column that names an item."""
        return self.item_encoder.id_column

    @property
    def user_id(self) -> str:
        """The raw column that names a user."""
        return self.user_encoder.id_column

    def encode_users(self, frame: pd.DataFrame, statistics: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Heads (B, Q, K) float32 of raw users, a row each; a value that training never saw counts as unknown.

        Args:
            statistics: features, (B, D) each, in the place of those that the encoder would look up; see
                serving/counters.py.
        """
        return self._encode(self.user_encoder, self.heads.user, frame, statistics)

    @torch.inference_mode()
    def encode_user(self, row: Mapping[str, object], statistics: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Heads (Q, K) float32 of one raw user, a dict by column: `encode_users` of that row, bit for bit, sooner.

        Args:
            statistics: as for `encode_users`, (1, D) each.
        """
        check_threads()
        features = with_statistics(self._user_row(row), statistics)
        return self.heads.user({name: torch.from_numpy(values) for name, values in features.items()})[0].numpy()

    def encode_items(self, frame: pd.DataFrame) -> np.ndarray:
        """Heads (N, G, K) float32 of raw items, a row each; a value that training never saw counts as unknown."""
        return self._encode(self.item_encoder, self.heads.item, frame)

    @cached_property
    def _user_row(self) -> RowEncoder:
        return RowEncoder(self.user_encoder)

    @torch.inference_mode()
    def _encode(
        self, encoder: TowerEncoder, tower, frame: pd.DataFrame, statistics: dict[str, np.ndarray] | None = None
    ) -> np.ndarray:
        check_rows(frame)
        check_threads()
        encoded = []
        for start in range(0, max(len(frame), 1), BATCH):
            rows = slice(start, start + BATCH)
            # A request is one row: it is not cut.
            features = encoder.encode(frame if len(frame) <= BATCH else frame.iloc[rows])
            features = with_statistics(features, {name: values[rows] for name, values in (statistics or {}).items()})
            encoded.append(tower({name: torch.from_numpy(values) for name, values in features.items()}))
        return torch.cat(encoded).numpy()


@dataclass
class TrainedModel:
    """A model of any kind with the weights of its best epoch, in evaluation mode on the CPU, and its encoders."""

    folder: Path
    model: nn.Module
    user_encoder: TowerEncoder
    item_encoder: TowerEncoder
    identity: dict


def load_run(folder: str | Path, levels: Levels = "all") -> TrainedRun:
    """Read a run that a training script left, with the weights of its best epoch.

    Args:
        folder: the script's --output, which holds checkpoint.pt and encoders.json.
        levels: see Heads.
    Raises UserError where the folder holds no run, or one of a model whose towers are not apart.
    """
    trained = load_model(folder)
    heads = Heads(trained.model, levels)
    checkpoint = _sha256(trained.model.state_dict(), heads.levels)
    return TrainedRun(trained.folder, heads, trained.user_encoder, trained.item_encoder, checkpoint, trained.identity)


def load_model(folder: str | Path) -> TrainedModel:
    """Read the model of a run, of whatever kind. Raises UserError where the folder holds no run of this version."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: expected the folder of a training run, got none; train first, or check the path.")
    state = load_checkpoint(folder / CHECKPOINT)
    identity, weights = state["identity"], state.get("best_model")
    if identity.get("model") not in MODELS:
        raise UserError(f"{folder}: expected one of {', '.join(MODELS)}, got {identity.get('model')!r}.")
    if not weights:
        raise UserError(f"{folder}: expected the weights of a whole epoch, got none yet; go on training with --resume.")
    encoders = load_encoders(folder / ENCODERS)
    checksum = hashlib.sha256((folder / ENCODERS).read_bytes()).hexdigest()
    if identity.get(ENCODERS_CHECKSUM, checksum) != checksum:  # a checkpoint of an older version has none
        raise UserError(
            f"{folder / ENCODERS}: expected the encoders that {CHECKPOINT} was trained with, got others; put its own "
            "back, write them anew with --resume, or train again."
        )
    model_type = model_class(identity["model"])
    try:
        options = {
            option: tuple(value) if isinstance(value, list) else value
            for name, option in taken_fields(model_type).items()
            for value in [(LATER | identity)[name]]
        }
        user_columns, item_columns = (encoder.columns(identity["embedding_dim"]) for encoder in encoders)
        model = model_type.from_columns(user_columns, item_columns, **options)
        model.load_state_dict(weights)
        check_weights(model, str(folder))
    except KeyError as error:
        raise UserError(f"{folder}: expected a run of this version, got no setting {error}; train again.") from error
    except RuntimeError as error:  # torch lists every weight that is missing, too many or of another shape
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{folder}: expected weights that fit {ENCODERS} and this version's {model_type.__name__}, got others; "
            "train again."
        ) from error
    return TrainedModel(folder, model.eval(), *encoders, identity)


def _sha256(weights: dict[str, torch.Tensor], levels: list[int]) -> str:
    digest = hashlib.sha256(repr(levels).encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
