"""Feature columns, with deepctr-torch's names, fields and defaults: SparseFeat, DenseFeat, VarLenSparseFeat.

They import nothing, so a column costs no second of start; deepctr-torch's own are taken wherever columns are given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from preprocessing.errors import UserError


class _SparseFields(NamedTuple):
    name: str
    vocabulary_size: int
    embedding_dim: int
    use_hash: bool
    dtype: str
    embedding_name: str
    group_name: str


class SparseFeat(_SparseFields):
    """A column of single ids, from 0 to vocabulary_size - 1, embedded in embedding_dim numbers.

    Args:
        embedding_dim: "auto" gives 6 times the fourth root of the vocabulary's size.
        embedding_name: columns of one such name share a table; by default each has its own.
        use_hash, dtype, group_name: kept for the signature's sake.
    """

    __slots__ = ()

    def __new__(
        cls,
        name: str,
        vocabulary_size: int,
        embedding_dim: int | str = 4,
        use_hash: bool = False,
        dtype: str = "int32",
        embedding_name: str | None = None,
        group_name: str = "default_group",
    ) -> SparseFeat:
        if embedding_dim == "auto":
            embedding_dim = 6 * int(vocabulary_size**0.25)
        return super().__new__(
            cls, name, vocabulary_size, embedding_dim, use_hash, dtype, embedding_name or name, group_name
        )

    def __hash__(self) -> int:
        return hash(self.name)


class DenseFeat(NamedTuple):
    """A column of numbers, `dimension` a row."""

    name: str
    dimension: int = 1
    dtype: str = "float32"

    def __hash__(self) -> int:
        return hash(self.name)


class VarLenSparseFeat(NamedTuple):
    """A column of lists of ids, padded with 0 to `maxlen`; `combiner` is "mean", "sum" or "max".

    `length_name` names a column with each list's length, which then says what is padding.
    """

    sparsefeat: SparseFeat
    maxlen: int
    combiner: str = "mean"
    length_name: str | None = None

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def name(self) -> str:
        return self.sparsefeat.name

    @property
    def vocabulary_size(self) -> int:
        return self.sparsefeat.vocabulary_size

    @property
    def embedding_dim(self) -> int:
        return self.sparsefeat.embedding_dim

    @property
    def use_hash(self) -> bool:
        return self.sparsefeat.use_hash

    @property
    def dtype(self) -> str:
        return self.sparsefeat.dtype

    @property
    def embedding_name(self) -> str:
        return self.sparsefeat.embedding_name

    @property
    def group_name(self) -> str:
        return self.sparsefeat.group_name


Column = SparseFeat | DenseFeat | VarLenSparseFeat


def as_columns(columns: Iterable) -> list[Column]:
    """Columns of ours for columns of ours or of deepctr-torch's; raises UserError for anything else."""
    return [_as_column(column) for column in columns]


def _as_column(column) -> Column:
    if isinstance(column, Column):
        return column
    # By name: the one way that does not import deepctr-torch, and with it a second of other packages.
    kind = type(column).__name__ if type(column).__module__.startswith("deepctr_torch") else None
    if kind == "SparseFeat":
        return SparseFeat(*column)
    if kind == "DenseFeat":
        return DenseFeat(*column)
    if kind == "VarLenSparseFeat":
        return VarLenSparseFeat(SparseFeat(*column.sparsefeat), *column[1:])
    raise UserError(
        f"columns: expected SparseFeat, DenseFeat and VarLenSparseFeat, got {column!r:.60} of type "
        f"{type(column).__name__}; take the columns from preprocessing.inputs."
    )


def build_input_features(feature_columns: Iterable) -> OrderedDict[str, tuple[int, int]]:
    """Where each feature stands in deepctr-torch's input matrix: its first column and the one behind its last.

    A name that occurs again counts once; a varlen column's `length_name` is a feature of its own, behind it.
    """
    features: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def add(name: str, width: int) -> None:
        if name not in features:
            start = next(reversed(features.values()))[1] if features else 0
            features[name] = (start, start + width)

    for column in as_columns(feature_columns):
        add(column.name, getattr(column, "maxlen", getattr(column, "dimension", 1)))
        if getattr(column, "length_name", None) is not None:
            add(column.length_name, 1)
    return features


def get_feature_names(feature_columns: Iterable) -> list[str]:
    """The names of the features that a model of these columns takes, in the order of its input."""
    return list(build_input_features(feature_columns))
