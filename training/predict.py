"""Scoring a table with a trained model; a two-tower model is scored as it is served."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from preprocessing.tables import Table

EVALUATION_BATCH = 16384  # rows that are encoded, or scored by `forward`, at once
PAIR_CHUNK = 4096  # pairs of cached vectors that are scored at once; more fall out of the processor's cache
WIDE_USER = 4096  # numbers in one user's vectors from which pairs are scored user by user (measured on a CPU)


def predict(model: nn.Module, table: Table, device: str | torch.device = "cpu") -> np.ndarray:
    """Logits of a table's rows, (N,) float32, in evaluation mode.

    A two-tower model is evaluated decoupled: each distinct user and item is encoded once, then the pairs are
    scored. The result equals `predict_jointly` to float tolerance.
    """
    decoupled = is_two_tower(model) and len(table) > 0
    return predict_decoupled(model, table, device) if decoupled else predict_jointly(model, table, device)


@torch.inference_mode()
def predict_decoupled(model: nn.Module, table: Table, device: str | torch.device = "cpu") -> np.ndarray:
    """Logits (N,) by `encode_user` and `encode_item` of what is distinct, then `score` of the pairs."""
    model.eval()
    users, user_of_row = _encode_distinct(model.encode_user, model.user_feature_names, table, device)
    items, item_of_row = _encode_distinct(model.encode_item, model.item_feature_names, table, device)
    logits = torch.empty(len(table), device=device)
    # Gathering wide user vectors for every pair costs more than scoring them: there each user is laid beside its
    # items instead. A GPU gathers faster than it takes up thousands of small pieces of work.
    if torch.device(device).type == "cpu" and sum(level.shape[1] for level in users) >= WIDE_USER:
        order = user_of_row.argsort(stable=True)
        items_by_user = item_of_row[order].split(user_of_row.bincount().tolist())
        scores = [
            model.score([v[user : user + 1] for v in users], [v[item] for v in items])
            for user, item in enumerate(items_by_user)
        ]
        logits[order] = torch.cat(scores)
    else:
        for i in range(0, len(table), PAIR_CHUNK):
            pairs = slice(i, i + PAIR_CHUNK)
            user, item = user_of_row[pairs], item_of_row[pairs]
            logits[pairs] = model.score([v[user] for v in users], [v[item] for v in items])
    return logits.cpu().numpy()


@torch.inference_mode()
def predict_jointly(model: nn.Module, table: Table, device: str | torch.device = "cpu") -> np.ndarray:
    """Logits (N,) by the model's `forward`: every row's user and item are encoded anew."""
    model.eval()
    logits = torch.empty(len(table), device=device)
    for i in range(0, len(table), EVALUATION_BATCH):
        rows = slice(i, i + EVALUATION_BATCH)
        logits[rows] = model({name: values[rows].to(device) for name, values in table.features.items()})
    return logits.cpu().numpy()


def is_two_tower(model: nn.Module) -> bool:
    """Whether users and items can be encoded apart."""
    return all(hasattr(model, name) for name in ("encode_user", "encode_item", "score"))


def _encode_distinct(
    encode: Callable, columns: list[str], table: Table, device: str | torch.device
) -> tuple[list[Tensor], Tensor]:
    """Vectors of each distinct user or item of the table, and which of them each row has."""
    features = {name: table.features[name] for name in columns}
    first, inverse = distinct_rows(features)
    parts = [
        encode({name: values[rows].to(device) for name, values in features.items()})
        for rows in np.split(first, range(EVALUATION_BATCH, len(first), EVALUATION_BATCH))
    ]
    return [torch.cat(level) for level in zip(*parts, strict=True)], torch.from_numpy(inverse).to(device)


def distinct_rows(features: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct combination of features stands first, and which of them each row is."""
    key, num_keys = np.zeros(len(next(iter(features.values()))), dtype=np.int64), 1
    for values in features.values():
        for column in values.reshape(len(key), -1).T:
            codes, distinct = pd.factorize(column.numpy(), use_na_sentinel=False)
            if num_keys * len(distinct) > 2**62:  # the next key would not fit: number those that occur
                key, present = pd.factorize(key)
                num_keys = len(present)
            key = key * len(distinct) + codes
            num_keys *= len(distinct)
    inverse, _ = pd.factorize(key)  # numbered in the order of appearance
    first = np.flatnonzero(np.diff(np.maximum.accumulate(inverse), prepend=-1))
    return first, inverse
