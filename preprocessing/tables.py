"""What preprocessing hands to the models: tables of tensors and the columns that describe them."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from preprocessing.encode import TowerEncoder
from preprocessing.inputs import Column

SPLITS = ("train", "valid", "test")


def tensor_of(array: np.ndarray) -> Tensor:
    """An array as a tensor of the same memory, or of the same file."""
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns that writing would crash; nothing here writes to a table.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


@dataclass(frozen=True)
class Lookup:
    """A feature that is kept once per user or item, for all the rows that name it.

    `values` is (U, ...), an entry per user or item; `index` is (N,) int32, the entry of each row. It is read as the
    tensor of all rows would be: `feature[rows]`, `feature.numpy()`.
    """

    values: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows) -> Tensor:
        return self.values[self.index[rows]]

    def part(self, rows) -> Lookup:
        """The same of some rows."""
        return Lookup(self.values, self.index[rows])

    def numpy(self) -> np.ndarray:
        """The feature of every row, written out."""
        return self[:].numpy()


@dataclass
class Table:
    """One split, a row per user-item pair.

    `features` maps a column's name to its tensor, or to a Lookup that gives it: sparse (N,) int32 ids, varlen
    (N, maxlen) int32 ids padded with 0, dense (N, dimension) float32. `labels` is (N,) float32 in {0, 1}; `groups` is
    (N,) int32, the raw user of each row counted from 0, for metrics per user; `rows` is each row's place in the raw
    file, from 0. Any of them may be a view of a file on disk, to be read and not written to.
    """

    features: dict[str, Tensor | Lookup]
    labels: Tensor
    groups: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor | np.ndarray | slice) -> dict[str, Tensor]:
        """The features of some rows as a model takes them."""
        return {name: feature[rows] for name, feature in self.features.items()}

    def part(self, rows: np.ndarray | slice) -> Table:
        """The table of some rows."""
        features = {n: f.part(rows) if isinstance(f, Lookup) else f[rows] for n, f in self.features.items()}
        return Table(features, self.labels[rows], self.groups[rows], self.rows[rows])

    def checksum(self) -> str:
        """sha256, in hex, over all that a model is given: features, labels, groups, and the order of rows."""
        digest = hashlib.sha256()
        for name, feature in sorted(self.features.items()):
            parts = [feature.values, feature.index] if isinstance(feature, Lookup) else [feature]
            for part in parts:
                digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
                digest.update(np.ascontiguousarray(part.numpy()))
        digest.update(np.ascontiguousarray(self.labels.numpy()))
        digest.update(np.ascontiguousarray(self.groups))
        return digest.hexdigest()

    def to(self, device: str | torch.device) -> Table:
        """The same table with features and labels on a device; what is there already, or shared, is not copied."""
        moved: dict[int, Tensor] = {}

        def move(tensor: Tensor) -> Tensor:
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.to(device)
            return moved[id(tensor)]

        features = {
            name: Lookup(move(f.values), move(f.index)) if isinstance(f, Lookup) else move(f)
            for name, f in self.features.items()
        }
        return replace(self, features=features, labels=move(self.labels))


@dataclass
class Dataset:
    """The three splits of one dataset under one protocol, and all that is needed to read them.

    `labels_leak` says that labels of the very rows that are scored shaped the features or the choice of rows.
    `fingerprint` is a sha256 over the raw files and the settings that shaped the splits. `counts` says what was read,
    dropped and kept, for the record. `probabilities` are the generator's own for the test rows where the data is
    synthetic, (N,), else None: no model can rank better than they do. `earlier` is the number of rows that the user of
    each test row had before it, (N,), where the protocol splits by time, else None. `source` is where the raw files
    lie, `seconds` the time it took from there to here.
    """

    name: str
    protocol: str
    labels_leak: bool
    train: Table
    valid: Table
    test: Table
    user_encoder: TowerEncoder
    item_encoder: TowerEncoder
    fingerprint: str
    counts: dict[str, int] = field(default_factory=dict)
    probabilities: np.ndarray | None = None
    earlier: np.ndarray | None = None
    embedding_dim: int = 32
    source: str = ""
    seconds: float = 0.0

    @property
    def user_columns(self) -> list[Column]:
        """The columns of the user tower, with `embedding_dim`."""
        return self.user_encoder.columns(self.embedding_dim)

    @property
    def item_columns(self) -> list[Column]:
        """The columns of the item tower, with `embedding_dim`."""
        return self.item_encoder.columns(self.embedding_dim)

    def checksum(self) -> str:
        """sha256, in hex, over the three tables: equal where a model would learn and be scored on the same."""
        tables = [self.train.checksum(), self.valid.checksum(), self.test.checksum()]
        return hashlib.sha256("".join(tables).encode()).hexdigest()

    @property
    def synthetic(self) -> bool:
        return self.probabilities is not None
