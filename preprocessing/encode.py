"""Vocabularies, scalers and label means: fitted on training rows, applied to every split, saved as JSON.

A field turns raw columns of a data frame into one feature and knows its column; a TowerEncoder
is the fields of one tower. Ids are int32 all the way: 0 is padding, 1 is out-of-vocabulary, values start at 2.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.errors import UserError, in_words
from preprocessing.files import write_atomically
from preprocessing.ids import INT64, is_whole, places
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat

PAD, OOV, FIRST_ID = 0, 1, 2
# What a vocabulary holds, in pandas' words: what JSON can.
_KINDS = {"string", "integer", "floating", "mixed-integer-float", "boolean", "empty"}


def fit_vocabulary(train_values: pd.Series | np.ndarray, name: str = "values") -> pd.Index:
    """The distinct training values in sorted order; the value at position i has the id i + 2.

    Raises UserError for text among numbers, and for whole numbers beyond 64 bits; `name` says in which column.
    """
    try:
        distinct = pd.Index(pd.Series(train_values).dropna().unique()).sort_values()
    except TypeError as error:
        raise UserError(f"{name}: expected text or numbers, got both ({error}); convert the column.") from error
    if isinstance(distinct.dtype, pd.CategoricalDtype):
        distinct = distinct.astype(distinct.categories.dtype)
    if distinct.inferred_type not in _KINDS:
        raise UserError(f"{name}: expected text or numbers, got {distinct.inferred_type} values; convert the column.")
    if is_whole(distinct):
        if len(distinct) and not INT64.min <= distinct[0] <= distinct[-1] <= INT64.max:
            raise UserError(f"{name}: expected whole numbers of 64 bits, got {distinct[-1]}; give the column as text.")
        return distinct.astype(np.int64)
    # A column of whole numbers with gaps is read as float.
    has_gaps = distinct.dtype.kind == "f" and (distinct % 1 == 0).all() and (abs(distinct) < 2**53).all()
    return distinct.astype(np.int64) if has_gaps else distinct


def encode(values: pd.Series | np.ndarray, vocabulary: pd.Index, name: str = "values") -> np.ndarray:
    """Ids of values, int32 of the same length; a value outside the vocabulary becomes OOV.

    Raises UserError for a value that is refused, see preprocessing/ids.py; `name` says in which column.
    """
    return (places(values, vocabulary, name) + FIRST_ID).astype(np.int32)


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
        return cls(name, fit_vocabulary(train_values, name))

    def column(self, embedding_dim: int) -> SparseFeat:
        return SparseFeat(self.name, len(self.vocabulary) + FIRST_ID, embedding_dim=embedding_dim, dtype="int32")

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N,) int32."""
        return encode(frame[self.name], self.vocabulary, self.name)


@dataclass
class VarLenField:
    """A raw column of value lists written as `a|b|c`, as ids padded with 0 to max_length; mean-pooled.

    A list or tuple of text is taken too. An empty part, as in `a||b` or `a|`, is no value.
    """

    name: str
    vocabulary: pd.Index
    max_length: int

    SEPARATOR = "|"

    @classmethod
    def fit(cls, name: str, train_values: pd.Series) -> VarLenField:
        lists = [cls.parts(text) for text in _texts(train_values, name).dropna().unique()]
        vocabulary = fit_vocabulary(pd.Series([value for values in lists for value in values], dtype=object))
        return cls(name, vocabulary, max([1, *map(len, lists)]))

    def column(self, embedding_dim: int) -> VarLenSparseFeat:
        sparse = SparseFeat(self.name, len(self.vocabulary) + FIRST_ID, embedding_dim=embedding_dim, dtype="int32")
        return VarLenSparseFeat(sparse, maxlen=self.max_length, combiner="mean")

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N, max_length) int32; an empty list is one OOV value, and values past max_length are left out."""
        codes, distinct = pd.factorize(_texts(frame[self.name], self.name))
        ids = np.full((len(distinct) + 1, self.max_length), PAD, dtype=np.int32)
        ids[:, 0] = OOV  # factorize gives a missing value the code -1
        for row, text in enumerate(distinct):
            values = self.parts(text)[: self.max_length]
            ids[row, : len(values)] = encode(np.array(values, dtype=object), self.vocabulary, self.name)
        return ids[codes]

    @classmethod
    def parts(cls, text: str) -> list[str]:
        """The values of a list that is written as text."""
        return [part for part in text.split(cls.SEPARATOR) if part]


def _texts(values: pd.Series, name: str) -> pd.Series:
    """A column of lists as text, missing ones left so; raises UserError for a value that is no list of text."""
    if pd.api.types.infer_dtype(values, skipna=True) in ("string", "empty"):
        return values
    joined = np.full(len(values), None, dtype=object)
    for row, value in enumerate(values):
        if isinstance(value, list | tuple | np.ndarray) and all(isinstance(part, str) for part in value):
            joined[row] = VarLenField.SEPARATOR.join(value)
        elif isinstance(value, str):
            joined[row] = value
        elif isinstance(value, list | tuple | dict | set | np.ndarray) or not pd.isna(value):
            raise UserError(
                f"{name}: expected text such as 'a|b', or a list of text, got {value!r:.60} ({type(value).__name__}) "
                f"in row {row}; convert the column."
            )
    return pd.Series(joined, index=values.index)


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
        known = numbers_of(train_values).dropna()
        field = cls(name, float(known.mean()) if len(known) else 0.0, MinMaxScaler(0.0, 1.0), log)
        return cls(name, field.mean, MinMaxScaler.fit(field._filled(scaled_on)), log)

    def column(self, embedding_dim: int) -> DenseFeat:
        return DenseFeat(self.name, 1)

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N, 1) float32."""
        return self.scaler.transform(self._filled(frame[self.name]))[:, None]

    def _filled(self, values: pd.Series) -> np.ndarray:
        numbers = numbers_of(values).fillna(self.mean).to_numpy(np.float64)
        return np.log1p(numbers) if self.log else numbers


def numbers_of(values: pd.Series) -> pd.Series:
    """Finite numbers of at least 0; NaN for anything else."""
    numbers = pd.to_numeric(values, errors="coerce")
    if not isinstance(numbers.dtype, np.dtype):  # Int64 and such, which can hold no mean
        numbers = pd.Series(numbers.to_numpy(np.float64, na_value=np.nan), index=numbers.index)
    if numbers.dtype.kind == "c":
        numbers = pd.Series(numbers.to_numpy().real, index=numbers.index).where(numbers.to_numpy().imag == 0)
    return numbers.where((numbers >= 0) & np.isfinite(numbers))


def is_given(values: pd.Series) -> np.ndarray:
    """(N,) True where something stands: neither nothing nor empty text."""
    is_no_empty_text = np.array([not isinstance(value, str) or value != "" for value in values], dtype=bool)
    return values.notna().to_numpy() & is_no_empty_text


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
        return numbers_of(frame[self.source]).isna().to_numpy(np.float32)[:, None]


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
        means = np.append(self.means, self.prior)  # the last one is an unknown key's, whose place is -1
        return self.scaler.transform(means[places(frame[self.key], self.keys, self.key)])[:, None]

    def unknown(self) -> np.ndarray:
        """(1,) float32, the feature of an unseen key."""
        return self.scaler.transform(np.array([self.prior]))


@dataclass
class CounterField:
    """A statistic of the labels of a raw key (a user, an item), made of the sums that it keeps; see
    preprocessing/statistics.py.

    With `by`, the name of a column of the other tower, it has D numbers, one for each value of that column, the value
    with the id i + 2 at place i; else D is 1.
    """

    name: str
    key: str
    keys: pd.Index
    measure: str  # "mean", "residual" or "count"
    by: str | None
    counts: np.ndarray  # (U, D) of rows
    sums: np.ndarray  # (U, D) of what the measure takes the mean of
    prior: float
    scaler: MinMaxScaler

    def column(self, embedding_dim: int) -> DenseFeat:
        return DenseFeat(self.name, self.counts.shape[1])

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N, D) float32; a key without a row has counts of 0."""
        rows = places(frame[self.key], self.keys, self.key)
        counts, sums = (np.where(rows[:, None] >= 0, kept[rows], 0.0) for kept in (self.counts, self.sums))
        return self.values(sums, counts)

    def values(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The feature of sums and counts, float32 of their shape."""
        return self.scaler.transform(
            np.log1p(counts) if self.measure == "count" else smoothed(sums, counts, self.prior)
        )

    def unknown(self) -> np.ndarray:
        """(D,) float32, the feature of a key without a row."""
        return self.values(*np.zeros((2, self.counts.shape[1])))


# A mean over n labels is drawn towards a prior as if this many more had been seen: the first labels of a user say
# little.
SMOOTHING = 10.0


def smoothed(sums: np.ndarray, counts: np.ndarray, prior: np.ndarray | float) -> np.ndarray:
    """The mean of labels of these sums and counts, drawn towards the prior."""
    return (sums + SMOOTHING * prior) / (counts + SMOOTHING)


@dataclass
class CrossField:
    """Two or more raw columns of single values as one: an id for each combination that training has."""

    name: str
    parts: list[SparseField]
    combinations: pd.Index

    @classmethod
    def fit(cls, name: str, train_frame: pd.DataFrame) -> CrossField:
        parts = [SparseField.fit(column, train_frame[column]) for column in train_frame]
        codes = cls(name, parts, pd.Index([]))._codes(train_frame)
        return cls(name, parts, pd.Index(np.unique(codes[codes >= 0])))

    @property
    def sources(self) -> list[str]:
        """The raw columns."""
        return [part.name for part in self.parts]

    def column(self, embedding_dim: int) -> SparseFeat:
        return SparseFeat(self.name, len(self.combinations) + FIRST_ID, embedding_dim=embedding_dim, dtype="int32")

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """(N,) int32."""
        return encode(self._codes(frame), self.combinations, self.name)

    def _codes(self, frame: pd.DataFrame) -> np.ndarray:
        """(N,) int64, a number for each combination; -1 where one of its values is unknown."""
        codes, is_known = np.zeros(len(frame), dtype=np.int64), np.ones(len(frame), dtype=bool)
        for part in self.parts:
            ids = part.encode(frame)
            codes = codes * (len(part.vocabulary) + FIRST_ID) + ids
            is_known &= ids != OOV
        return np.where(is_known, codes, -1)


Field = SparseField | VarLenField | NumberField | MissingField | MeanField | CounterField | CrossField
_FIELD_KINDS = {kind.__name__: kind for kind in Field.__args__}


@dataclass
class TowerEncoder:
    """The fields of one tower, in the order of its columns."""

    fields: list[Field]

    def columns(self, embedding_dim: int) -> list:
        return [field.column(embedding_dim) for field in self.fields]

    def encode(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Features of raw rows, by field name.

        Raises UserError where a raw column is missing or there twice, and for a value that is refused (see
        preprocessing/ids.py).
        """
        if not isinstance(frame, pd.DataFrame):
            raise UserError(
                f"encode: expected a pandas DataFrame, a row for each user or item, got {type(frame).__name__}; "
                "make one of it."
            )
        columns = list(frame.columns)
        for source in self.sources:
            if source not in columns:
                raise UserError(f"encode: expected a column {source!r}, got {columns}; add it.")
            if columns.count(source) > 1:
                raise UserError(f"encode: expected one column {source!r}, got {columns.count(source)}; keep one.")
        return {field.name: field.encode(frame) for field in self.fields}

    @property
    def sources(self) -> list[str]:
        """The raw columns that the fields are made of, each once."""
        return list(dict.fromkeys(source for field in self.fields for source in raw_columns(field)))

    @property
    def id_column(self) -> str:
        """The raw column that names a user or an item: the first of single values."""
        return next(field.name for field in self.fields if isinstance(field, SparseField))

    def unknown_statistics(self) -> dict[str, np.ndarray]:
        """The features made of labels, each with what it is for an id that no row has: (D,) float32."""
        return {f.name: f.unknown() for f in self.fields if isinstance(f, MeanField | CounterField)}

    def unknown_values(self, frame: pd.DataFrame) -> list[dict[str, object]]:
        """For each row, its raw values by column that training never saw: each becomes OOV."""
        unknown: list[dict[str, object]] = [{} for _ in range(len(frame))]
        for field in self.fields:
            if isinstance(field, SparseField | VarLenField):
                for row in np.flatnonzero(_has_unknown(field.encode(frame))):
                    unknown[row][field.name] = frame[field.name].iloc[row]
        return unknown

    def never_seen(self, frame: pd.DataFrame) -> dict[str, int]:
        """For each raw column that has any, the number of its values that training never saw or that are no number."""
        counts = {}
        for field in self.fields:
            if isinstance(field, SparseField | VarLenField):
                lost = _has_unknown(field.encode(frame))
            elif isinstance(field, NumberField):
                lost = numbers_of(frame[field.name]).isna().to_numpy()
            else:
                continue
            if count := int((lost & is_given(frame[field.name])).sum()):
                counts[field.name] = count
        return counts


def _has_unknown(ids: np.ndarray) -> np.ndarray:
    """(N,) whether an id, or one of a list, is OOV."""
    return ids == OOV if ids.ndim == 1 else (ids == OOV).any(1)


def raw_columns(field: Field) -> list[str]:
    """The columns that a field is made of."""
    if isinstance(field, CrossField):
        return field.sources
    return [getattr(field, "key", None) or getattr(field, "source", field.name)]


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
        got = in_words(error)
        raise UserError(f"{path}: expected encoders saved by a training run, got {got}; train again.") from error


def _to_json(field: Field) -> dict:
    values = {f.name: getattr(field, f.name) for f in dataclasses.fields(field)}
    for name, value in values.items():
        if isinstance(value, np.ndarray) and value.ndim == 2:
            values[name] = _sparse(value)  # of a user's counts by value most are 0
        elif isinstance(value, pd.Index | np.ndarray):
            values[name] = value.tolist()
        elif name == "parts":
            values[name] = [_to_json(part) for part in value]
        elif isinstance(value, MinMaxScaler):
            values[name] = dataclasses.asdict(value)
    return {"kind": type(field).__name__, **values}


def _from_json(values: dict) -> Field:
    values = dict(values)
    kind = _FIELD_KINDS[values.pop("kind")]
    for name in ("vocabulary", "keys", "combinations"):
        if name in values:
            values[name] = pd.Index(values[name])
    for name in ("counts", "sums"):
        if name in values:
            values[name] = _dense(values[name])
    if "parts" in values:
        values["parts"] = [_from_json(part) for part in values["parts"]]
    if "means" in values:
        values["means"] = np.array(values["means"], dtype=np.float64)
    if "scaler" in values:
        values["scaler"] = MinMaxScaler(**values["scaler"])
    return kind(**values)


def _sparse(array: np.ndarray) -> dict:
    places = np.flatnonzero(array)
    return {"shape": list(array.shape), "places": places.tolist(), "values": array.ravel()[places].tolist()}


def _dense(sparse: dict) -> np.ndarray:
    array = np.zeros(math.prod(sparse["shape"]))
    array[sparse["places"]] = sparse["values"]
    return array.reshape(sparse["shape"])
