"""Going on with new data: a model that starts from a finished run's weights, whose ids keep their rows.

The data are encoded with what the run knew besides (preprocessing/known.py), so a vocabulary only grows; statistics are
those of the new data. What is new starts as in any other run.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from experiment.folder import ENCODERS, check_run_folder
from model.estimator import Estimator
from model.layers import FieldEmbedding
from preprocessing.encode import load_encoders
from preprocessing.errors import UserError
from preprocessing.known import places_of, same_field
from preprocessing.tables import Dataset
from training import CHECKPOINT
from training.checkpoint import load_checkpoint, weights_checksum


def parent_of(run: str | None) -> dict | None:
    """What a record says of the run that another one started from; None for one that started from nothing."""
    if run is None:
        return None
    return {"run": Path(run).name, "weights": weights_checksum(_weights(run, load_checkpoint(Path(run) / CHECKPOINT)))}


def take_weights(model: Estimator, data: Dataset, run: str) -> None:
    """Give a model the weights of a finished run of the same model.

    Raises UserError where the run is of another model, or of one with other settings.
    """
    check_run_folder(run)
    state = load_checkpoint(Path(run) / CHECKPOINT)
    trained = state["identity"].get("model")
    if trained != type(model).__name__:
        raise UserError(f"--init-from {run}: expected a run of {type(model).__name__}, got one of {trained}.")
    older, own = _weights(run, state), model.state_dict()
    rows = _rows_of_tables(model, data, load_encoders(Path(run) / ENCODERS), run)
    taken = {}
    for name, weight in own.items():
        there = older.get(name)
        first = 1 if name in rows else 0  # a table may have more rows now
        if there is None or there.shape[first:] != weight.shape[first:]:
            got = "nothing" if there is None else tuple(there.shape)
            raise UserError(
                f"--init-from {run}: expected weights of this model's sizes, got {got} for {name}, which is "
                f"{tuple(weight.shape)} here; take the run's settings and statistics."
            )
        taken[name] = weight.index_copy(0, rows[name], there) if name in rows else there
    model.load_state_dict(taken)


def _weights(run: str, state: dict) -> dict[str, torch.Tensor]:
    if "progress" in state and not state["progress"].get("finished"):
        raise UserError(f"--init-from {run}: expected a finished run, got one that was stopped; --resume it first.")
    return state.get("best_model") or state["model"]


def _rows_of_tables(model: Estimator, data: Dataset, older: tuple, run: str) -> dict[str, torch.Tensor]:
    """Of each embedding table, by its name in the model's state, the row that each row of the older one has now."""
    encoders = (data.user_encoder, data.item_encoder)
    fields = {field.name: (field, before) for now, before in zip(encoders, older, strict=True) for field in now.fields}
    columns = {getattr(column, "embedding_name", column.name): column.name for column in model.columns}
    rows = {}
    for table, embedding_name in _tables(model).items():
        field, encoder = fields[columns[embedding_name]]
        before = same_field(encoder, field)
        if before is None:
            raise UserError(
                f"--init-from {run}: expected a run whose data have a field {field.name!r}, got one without it; "
                "take a run on the same kind of data."
            )
        rows[table] = torch.from_numpy(places_of(before, field)).long()
    return rows


def _tables(model: nn.Module) -> dict[str, str]:
    """The embedding tables by their names in the model's state, each with the embedding_name of its columns."""
    tables = {}
    for place, module in model.named_modules():
        if isinstance(module, FieldEmbedding):
            tables |= {f"{place}.tables.{number}.weight": name for name, number in module.table_index.items()}
        elif isinstance(module, nn.ModuleDict):  # deepctr-torch's
            tables |= {f"{place}.{name}.weight": name for name in module}
    for tower in ("user", "item"):  # DAT's
        if hasattr(model, f"{tower}_augmented"):
            tables[f"{tower}_augmented.weight"] = getattr(model, f"{tower}_id")
    return tables
