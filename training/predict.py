"""Scoring a table with a trained model; a two-tower model is scored as it is served."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from preprocessing.tables import Lookup, Table
from training.distributed import gather_objects

EVALUATION_BATCH = 16384  # rows that are encoded, or scored by `forward`, at once
PAIR_CHUNK = 4096  # pairs of cached vectors that are scored at once; more fall out of the processor's cache
WIDE_USER = 4096  # numbers in one user's vectors from which pairs are scored user by user (measured on a CPU)


def predict(model: nn.Module, table: Table, device: str | torch.device = "cpu", together: bool = False) -> np.ndarray:
    """Logits of a table's rows, (N,) float32, in evaluation mode.

    A two-tower model is evaluated decoupled: each distinct user and item is encoded once, then the pairs are
    scored. The result equals `predict_jointly` to float tolerance.

    Args:
        together: all processes call it, each with a table of its own, none of them empty, and call the model equally
            often: where embedding tables are sharded, a look-up is an exchange.
    """
    decoupled = is_two_tower(model) and len(table) > 0
    return (predict_decoupled if decoupled else predict_jointly)(model, table, device, together)


@torch.inference_mode()
def predict_decoupled(
    model: nn.Module, table: Table, device: str | torch.device = "cpu", together: bool = False
) -> np.ndarray:
    """Logits (N,) by `encode_user` and `encode_item` of what is distinct, then `score` of the pairs.

    All items' vectors are held at once, as a server holds them; users come and go in batches.
    """
    model.eval()
    first_of_item, item_of_row = distinct_rows(_of_tower(model.item_feature_names, table))
    encoded = [
        model.encode_item(_features(model.item_feature_names, table, rows, device))
        for rows in _as_many(_batches(first_of_item), together)
    ]
    items = [torch.cat(level) for level in zip(*encoded, strict=True)]
    first_of_user, user_of_row = distinct_rows(_of_tower(model.user_feature_names, table))
    # Rows user by user: a batch of users is encoded, and all of their rows are scored.
    order = torch.from_numpy(user_of_row.argsort(kind="stable"))
    rows_per_user = torch.from_numpy(np.bincount(user_of_row))
    rows_before = rows_per_user.cumsum(0) - rows_per_user
    logits = torch.empty(len(table), device=device)
    num_users = 0
    for batch in _as_many(_batches(first_of_user), together):
        users = model.encode_user(_features(model.user_feature_names, table, batch, device))
        if num_users == len(rows_per_user):  # they were encoded for the sake of the others
            continue
        counts = rows_per_user[num_users : num_users + len(batch)]
        rows = order[rows_before[num_users] :][: counts.sum()].to(device)
        item = torch.from_numpy(item_of_row)[rows.cpu()].to(device)
        logits[rows] = _score_user_by_user(model, users, items, item, counts)
        num_users += len(batch)
    return logits.cpu().numpy()


def _score_user_by_user(
    model: nn.Module, users: list[Tensor], items: list[Tensor], item: Tensor, counts: Tensor
) -> Tensor:
    """Scores of pairs that are sorted by user: the items of all pairs, and how many of them each user has."""
    # Gathering wide user vectors for every pair costs more than scoring them: there each user is laid beside its
    # items instead. A GPU gathers faster than it takes up thousands of small pieces of work.
    if item.device.type == "cpu" and sum(level.shape[1] for level in users) >= WIDE_USER:
        pieces = [([v[user : user + 1] for v in users], its) for user, its in enumerate(item.split(counts.tolist()))]
    else:
        user = torch.arange(len(counts)).repeat_interleave(counts).to(item.device)
        pairs = zip(user.split(PAIR_CHUNK), item.split(PAIR_CHUNK), strict=True)
        pieces = (([v[of_user] for v in users], its) for of_user, its in pairs)
    return torch.cat([model.score(user, [v[its] for v in items]) for user, its in pieces])


@torch.inference_mode()
def predict_jointly(
    model: nn.Module, table: Table, device: str | torch.device = "cpu", together: bool = False
) -> np.ndarray:
    """Logits (N,) by the model's `forward`: every row's user and item are encoded anew."""
    model.eval()
    logits = torch.empty(len(table), device=device)
    for i in _as_many([*range(0, len(table), EVALUATION_BATCH)], together):
        rows = slice(i, i + EVALUATION_BATCH)
        logits[rows] = model({name: values.to(device) for name, values in table.batch(rows).items()})
    return logits.cpu().numpy()


def is_two_tower(model: nn.Module) -> bool:
    """Whether users and items can be encoded apart."""
    return all(hasattr(model, name) for name in ("encode_user", "encode_item", "score"))


def _of_tower(names: list[str], table: Table) -> dict[str, Tensor | Lookup]:
    return {name: table.features[name] for name in names}


def _features(names: list[str], table: Table, rows: np.ndarray, device: str | torch.device) -> dict[str, Tensor]:
    return {name: table.features[name][rows].to(device) for name in names}


def _as_many(batches: list, together: bool) -> list:
    """The batches, and the first one again until every process has as many.

    The other way to have no process wait for one that is done, each sharded table whole on all of them for the time of
    an evaluation, would take the memory that sharding saves.
    """
    most = max(gather_objects(len(batches))) if together else len(batches)
    return batches + batches[:1] * (most - len(batches))


def _batches(first: np.ndarray) -> list[np.ndarray]:
    return np.split(first, range(EVALUATION_BATCH, len(first), EVALUATION_BATCH))


def distinct_rows(features: dict[str, Tensor | Lookup]) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct combination of features stands first, and which of them each row is.

    Of features that are kept per user or item, the entry counts: two users who are alike are told apart.
    """
    key, num_keys = np.zeros(len(next(iter(features.values()))), dtype=np.int64), 1
    parts = [feature.index if isinstance(feature, Lookup) else feature for feature in features.values()]
    for values in {id(part): part for part in parts}.values():
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
