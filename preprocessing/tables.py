"""What preprocessing hands to the models: tables of tensors and the columns that describe them."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from preprocessing.encode import TowerEncoder
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat

Column = SparseFeat | DenseFeat | VarLenSparseFeat


@dataclass
class Table:
    """One split, a row per user-item pair.

    `features` maps a column's name to its tensor: sparse (N,) int32 ids, varlen (N, maxlen) int32 ids padded
    with 0, dense (N, dimension) float32. `labels` is (N,) float32 in {0, 1}; `groups` is (N,) int32, the raw
    user of each row counted from 0, for metrics per user; `rows` is each row's place in the raw file, from 0.
    """

    features: dict[str, Tensor]
    labels: Tensor
    groups: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Dataset:
    """The three splits of one dataset under one protocol, and all that is needed to read them.

    `labels_leak` says that features were computed from the labels of the very rows they describe. `fingerprint` is a
    sha256 over the raw files and the settings that shaped the splits. `counts` says what was read, dropped and kept,
    for the record. `probabilities` are the generator's own for the test rows where the data is synthetic, (N,), else
    None: no model can rank better than they do. `seconds` is the time it took to read, split and encode.
    """

    name: str
    protocol: str
    labels_leak: bool
    train: Table
    valid: Table
    test: Table
    user_columns: list[Column]
    item_columns: list[Column]
    user_encoder: TowerEncoder
    item_encoder: TowerEncoder
    fingerprint: str
    source: str
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    probabilities: np.ndarray | None = None

    @property
    def synthetic(self) -> bool:
        return self.probabilities is not None
