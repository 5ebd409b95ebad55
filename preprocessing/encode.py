"""Vocabularies, scalers and label means: fitted on training rows, applied to every split, saved as JSON.

A field turns raw columns of a data frame into one feature and knows its column; a TowerEncoder
is the fields of one tower. Ids are int32 all the way: 0 is padding, 1 is out-of-vocabulary, values start at 2.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat

PAD, OOV, FIRST_ID = 0, 1, 2


def fit_vocabulary(train_values: pd.Series | np.ndarray) -> pd.Index:
    """The distinct training values in sorted order; the value at position i has the id i + 2."""
    distinct = pd.Index(pd.Series(train_values).dropna().unique()).sort_values()
    # A column of whole numbers with gaps is read as float.
    is_whole = distinct.dtype.kind == "f" and (distinct % 1 == 0).all() and (abs(distinct) < 2**53).all()
    return distinct.astype(np.int64) if is_whole else distinct


def encode(values: pd.Series | np.ndarray, vocabulary: pd.Index) -> np.ndarray:
    """Ids of values, int32 of the same length; a value outside the vocabulary becomes OOV."""
    return (_places(values, vocabulary) + FIRST_ID).astype(np.int32)


def _places(values: pd.Series | np.ndarray, vocabulary: pd.Index) -> np.ndarray:
    """Where values stand in a vocabulary, -1 for one that does not."""
    index = pd.Index(values)
    if vocabulary.inferred_type == "integer" and index.inferred_type != "integer":
        # Raw ids often arrive as text, and "42" must not be served as an unknown user.
        index = pd.Index(pd.to_numeric(index, errors="coerce"))
    return vocabulary.get_indexer(index)


@dataclass
class MinMaxScaler:
    """Maps [minimum, maximum] to [0, 1]; a constant feature becomes 0. Values outside are not clipped."""

    minimum: float
    maximum: float

    @classmethod
    def fit(cls, values: np.ndarray) -> MinMaxScaler:
        return cls(float(np.min(values)), float(np.max(values)))

    def transform(self, values: np.ndarray) -> np.ndarray:
        span = self.maximum - self.minimum
        return ((values - self.minimum) / (span if span > 0 else 1.0)).astype(np.float32)


@dataclass
class SparseField:
    """A raw column of single values, as ids."""

    name: str
    vocabulary: pd.Index

    @classmethod
    def fit(cls, name: str, train_values: pd.Series) -> SparseField:
        return cls(name, fit_vocabulary(train_values))

    def column(self, embedding_dim: int) -> SparseFeat:
        return SparseFeat(self.name, len(self.vocabulary) + FIRST_ID, embedding_dim=embedding_dim, dtype="int32")

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N,) int32."""
        return encode(frame[self.name], self.vocabulary)


@dataclass
class VarLenField:
    """A raw column of value lists written as `a|b|c`, as ids padded with 0 to max_length; mean-pooled."""

    name: str
    vocabulary: pd.Index
    max_length: int

    SEPARATOR = "|"

    @classmethod
    def fit(cls, name: str, train_values: pd.Series) -> VarLenField:
        distinct = train_values[train_values != ""].drop_duplicates()  # an empty list has no value to learn
        lists = distinct.str.split(cls.SEPARATOR, regex=False)
        max_length = int(lists.str.len().max()) if len(lists) else 1
        return cls(name, fit_vocabulary(lists.explode()), max(max_length, 1))

    def column(self, embedding_dim: int) -> VarLenSparseFeat:
        sparse = SparseFeat(self.name, len(self.vocabulary) + FIRST_ID, embedding_dim=embedding_dim, dtype="int32")
        return VarLenSparseFeat(sparse, maxlen=self.max_length, combiner="mean")

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N, max_length) int32; an empty list is one OOV value, and values past max_length are left out."""
        codes, distinct = pd.factorize(frame[self.name])
        ids = np.full((len(distinct) + 1, self.max_length), PAD, dtype=np.int32)
        ids[-1, 0] = OOV  # factorize gives a missing value the code -1
        for row, text in enumerate(distinct):
            values = text.split(self.SEPARATOR)[: self.max_length]
            ids[row, : len(values)] = encode(np.array(values, dtype=object), self.vocabulary)
        return ids[codes]


@dataclass
class NumberField:
    """A raw column of numbers of at least 0, scaled to [0, 1]; a missing one counts as the training mean.

    Prices span many orders of magnitude: with `log`, log(1 + x) is scaled in the place of x.
    """

    name: str
    mean: float
    scaler: MinMaxScaler
    log: bool

    @classmethod
    def fit(cls, name: str, train_values: pd.Series, scaled_on: pd.Series, log: bool) -> NumberField:
        """The mean of the training values; the range of `scaled_on`."""
        known = _numbers(train_values).dropna()
        field = cls(name, float(known.mean()) if len(known) else 0.0, MinMaxScaler(0.0, 1.0), log)
        return cls(name, field.mean, MinMaxScaler.fit(field._filled(scaled_on)), log)

    def column(self, embedding_dim: int) -> DenseFeat:
        return DenseFeat(self.name, 1)

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N, 1) float32."""
        return self.scaler.transform(self._filled(frame[self.name]))[:, None]

    def _filled(self, values: pd.Series) -> np.ndarray:
        numbers = _numbers(values).fillna(self.mean).to_numpy(np.float64)
        return np.log1p(numbers) if self.log else numbers


def _numbers(values: pd.Series) -> pd.Series:
    """Finite numbers of at least 0; NaN for anything else."""
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers.where((numbers >= 0) & np.isfinite(numbers))


@dataclass
class MissingField:
    """1 where a raw column has no value, else 0; named after the column, as `price_missing`."""

    name: str
    source: str

    SUFFIX = "_missing"

    def column(self, embedding_dim: int) -> DenseFeat:
        return DenseFeat(self.name, 1)

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N, 1) float32."""
        return _numbers(frame[self.source]).isna().to_numpy(np.float32)[:, None]


@dataclass
class MeanField:
    """The mean label of a raw key (a user, an item), scaled to [0, 1]; an unseen key gets the prior."""

    name: str
    key: str
    keys: pd.Index
    means: np.ndarray
    prior: float
    scaler: MinMaxScaler

    def column(self, embedding_dim: int) -> DenseFeat:
        return DenseFeat(self.name, 1)

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N, 1) float32."""
        return self.scaler.transform(look_up(frame[self.key], self.keys, self.means, self.prior))[:, None]


def look_up(values: pd.Series, keys: pd.Index, means: np.ndarray, prior: float) -> np.ndarray:
    """The mean of each value's key, float64 of the same length; the prior where the key is unknown."""
    return np.append(means, prior)[_places(values, keys)]


Field = SparseField | VarLenField | NumberField | MissingField | MeanField
_FIELD_KINDS = {kind.__name__: kind for kind in (SparseField, VarLenField, NumberField, MissingField, MeanField)}


@dataclass
class TowerEncoder:
    """The fields of one tower, in the order of its columns."""

    fields: list[Field]

    def columns(self, embedding_dim: int) -> list:
        return [field.column(embedding_dim) for field in self.fields]

    def encode(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Features of raw rows, by field name. Raises UserError where a raw column is missing."""
        for field in self.fields:
            source = getattr(field, "key", None) or getattr(field, "source", field.name)
            if source not in frame.columns:
                raise UserError(f"encode: expected a column {source!r}, got {list(frame.columns)}; add it.")
        return {field.name: field.encode(frame) for field in self.fields}

    @property
    def id_column(self) -> str:
        """The raw column that names a user or an item: the first of single values."""
        return next(field.name for field in self.fields if isinstance(field, SparseField))

    def unknown_values(self, frame: pd.DataFrame) -> list[dict[str, object]]:
        """For each row, its raw values by column that training never saw: each becomes OOV."""
        unknown: list[dict[str, object]] = [{} for _ in range(len(frame))]
        for field in self.fields:
            if isinstance(field, SparseField | VarLenField):
                is_unknown = (field.encode(frame).reshape(len(frame), -1) == OOV).any(1)
                for row in np.flatnonzero(is_unknown):
                    unknown[row][field.name] = frame[field.name].iloc[row]
        return unknown


def save_encoders(path: Path, user_encoder: TowerEncoder, item_encoder: TowerEncoder) -> None:
    """Write both towers' encoders as JSON, atomically, so that raw ids can be encoded later."""
    write_atomically(path, encoders_as_json(user_encoder, item_encoder))


def encoders_as_json(user_encoder: TowerEncoder, item_encoder: TowerEncoder) -> bytes:
    """What `load_encoders` reads."""
    towers = {"user": user_encoder, "item": item_encoder}
    text = json.dumps({tower: [_to_json(field) for field in encoder.fields] for tower, encoder in towers.items()})
    return text.encode()


def load_encoders(path: Path) -> tuple[TowerEncoder, TowerEncoder]:
    """The user and the item encoder that `save_encoders` wrote. Raises UserError where the file is not one."""
    try:
        towers = json.loads(Path(path).read_bytes())
        return tuple(TowerEncoder([_from_json(field) for field in towers[tower]]) for tower in ("user", "item"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected encoders saved by a training run, got {error!r}; train again.") from error


def _to_json(field: Field) -> dict:
    values = {f.name: getattr(field, f.name) for f in dataclasses.fields(field)}
    for name, value in values.items():
        if isinstance(value, pd.Index | np.ndarray):
            values[name] = value.tolist()
        elif isinstance(value, MinMaxScaler):
            values[name] = dataclasses.asdict(value)
    return {"kind": type(field).__name__, **values}


def _from_json(values: dict) -> Field:
    values = dict(values)
    kind = _FIELD_KINDS[values.pop("kind")]
    for name in ("vocabulary", "keys"):
        if name in values:
            values[name] = pd.Index(values[name])
    if "means" in values:
        values["means"] = np.array(values["means"], dtype=np.float64)
    if "scaler" in values:
        values["scaler"] = MinMaxScaler(**values["scaler"])
    return kind(**values)
