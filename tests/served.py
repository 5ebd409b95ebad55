"""Small runs and indexes for the tests of serving/."""

from pathlib import Path
from types import ModuleType

import numpy as np

import train_movielens_IntTower
from serving.index_files import Form
from serving.item_index import ItemIndex, create_index


def trained(
    folder: Path, data: Path, model: str = "IntTower", script: ModuleType = train_movielens_IntTower, **settings
) -> Path:
    """The folder of a run of one epoch on a sample."""
    small = {"hidden_units": [16, 8], "embedding_dim": 8, "epochs": 1, "device": "cpu"} | settings
    script.main(script.Settings(data=str(data), output=str(folder), model=model, **small))
    return folder


def form(dtype: str = "float32", num_user_heads: int = 3, num_heads: int = 2, head_dim: int = 4, **changes) -> Form:
    values = {"model": "IntTower", "checkpoint": "a" * 64, "item_id": "movie_id", "bias": 0.5} | changes
    return Form(dtype=dtype, num_user_heads=num_user_heads, num_heads=num_heads, head_dim=head_dim, **values)


def heads(num_items: int, seed: int = 0, num_heads: int = 2, head_dim: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_items, num_heads, head_dim), dtype=np.float32)


def users(num_users: int, seed: int = 1, num_user_heads: int = 3, head_dim: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_users, num_user_heads, head_dim), dtype=np.float32)


def index_of(folder: Path, ids: list, items_NGK: np.ndarray, **changes) -> ItemIndex:
    """An index of these items."""
    create_index(folder, form(**changes))
    index = ItemIndex(folder)
    index.put(ids, items_NGK)
    return index


def plain_scores(users_BQK: np.ndarray, items_NGK: np.ndarray, bias: float = 0.5) -> np.ndarray:
    """The formula, (B, N)."""
    return np.einsum("bqk,ngk->bqgn", users_BQK, items_NGK).max(2).sum(1) + bias
