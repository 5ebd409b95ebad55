"""One raw row, encoded as a TowerEncoder encodes a frame of one row, bit for bit, without the frame.

A request names one user, and pandas needs longer for a frame of one row than the towers and the scorer together. What
requests are made of (text, whole numbers, None) is looked up here; a value of any other type goes by the frame, where
it is converted or refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from preprocessing.encode import (
    FIRST_ID,
    OOV,
    PAD,
    CounterField,
    CrossField,
    Field,
    MeanField,
    MissingField,
    NumberField,
    SparseField,
    TowerEncoder,
    VarLenField,
    raw_columns,
)
from preprocessing.errors import UserError
from preprocessing.ids import INT64, is_text, is_whole


class RowEncoder:
    """Encodes raw rows, one at a time; features come as from `TowerEncoder.encode`, and are not to be written to."""

    def __init__(self, encoder: TowerEncoder):
        self._encoder, self._sources = encoder, encoder.sources
        self._fields = [(field, tuple(raw_columns(field)), _quick(field)) for field in encoder.fields]

    def __reduce__(self) -> tuple:
        return RowEncoder, (self._encoder,)  # its functions cannot be sent to another process; they are made anew

    def __call__(self, row: Mapping[str, object]) -> dict[str, np.ndarray]:
        """Features of a raw row, by field name: what `encode(pd.DataFrame([row]))` gives.

        Raises UserError where a raw column is missing, and for a value that is refused (see preprocessing/ids.py).
        """
        if not isinstance(row, Mapping):
            raise UserError(
                f"encode: expected a mapping of raw values by column, got {type(row).__name__}; of a data frame, "
                "encode_users takes many rows at once."
            )
        for name in self._sources:
            if name not in row:  # a mapping may have an answer for names that it does not have
                raise UserError(f"encode: expected a column {name!r}, got {list(row)}; add it.")
        features = {}
        for field, names, quick in self._fields:
            values = [row[name] for name in names]
            feature = quick(*values)
            if feature is None:
                one = {name: pd.Series([value]) for name, value in zip(names, values, strict=True)}
                feature = field.encode(pd.DataFrame(one))
            features[field.name] = feature
        return features


Quick = Callable[..., np.ndarray | None]  # of a field's raw values; None where the value is none of the usual kinds


def _quick(field: Field) -> Quick:
    return _OF_KIND[type(field)](field)


def _place_in(known: pd.Index) -> Callable[[object], int | None]:
    """A function that gives a value's place among known ones: -1 for one that is unknown, None to ask elsewhere."""
    kind_of_known = int if is_whole(known) else str if is_text(known) else None
    get_loc = known.get_loc

    def place(value) -> int | None:
        if value is None:
            return -1
        kind = type(value)
        if kind is str and kind_of_known is int and value.isdigit() and value.isascii() and len(value) < 19:
            value = int(value)
        elif kind is not kind_of_known or (kind is int and not INT64.min <= value <= INT64.max):
            return None
        try:
            return get_loc(value)
        except KeyError:
            return -1

    return place


def _sparse(field: SparseField) -> Quick:
    return _table(field.vocabulary, np.arange(OOV, len(field.vocabulary) + FIRST_ID, dtype=np.int32))


def _mean(field: MeanField) -> Quick:
    return _table(field.keys, field.scaler.transform(np.append(field.prior, field.means))[:, None])


def _table(known: pd.Index, features: np.ndarray) -> Quick:
    """Of features kept for each known value, behind that of an unknown one."""
    place_in = _place_in(known)

    def quick(value) -> np.ndarray | None:
        place = place_in(value)
        return None if place is None else features[place + 1 : place + 2]

    return quick


def _counter(field: CounterField) -> Quick:
    place_in = _place_in(field.keys)
    unknown = field.unknown()[None]

    def quick(value) -> np.ndarray | None:
        place = place_in(value)
        if place is None:
            return None
        rows = slice(place, place + 1)
        return unknown if place < 0 else field.values(field.sums[rows], field.counts[rows])

    return quick


def _var_len(field: VarLenField) -> Quick:
    place_in = _place_in(field.vocabulary)

    def quick(value) -> np.ndarray | None:
        if type(value) is not str:
            return None
        ids = np.full((1, field.max_length), PAD, dtype=np.int32)
        ids[0, 0] = OOV
        for at, part in enumerate(field.parts(value)[: field.max_length]):
            place = place_in(part)
            if place is None:
                return None
            ids[0, at] = place + FIRST_ID
        return ids

    return quick


def _is_plain_number(value) -> bool:
    """Whether a value is a number that a float holds exactly; NaN is none."""
    return type(value) in (int, float) and -(2**53) < value < 2**53


def _number(field: NumberField) -> Quick:
    missing = field.encode(pd.DataFrame({field.name: [math.nan]}))

    def quick(value) -> np.ndarray | None:
        if value is None:
            return missing
        if not _is_plain_number(value):
            return None
        if value < 0:
            return missing
        number = np.array([value], np.float64)
        return field.scaler.transform(np.log1p(number) if field.log else number)[:, None]

    return quick


def _missing(field: MissingField) -> Quick:
    there, not_there = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)

    def quick(value) -> np.ndarray | None:
        if value is None:
            return not_there
        if not _is_plain_number(value):
            return None
        return there if value >= 0 else not_there

    return quick


def _cross(field: CrossField) -> Quick:
    places = [_place_in(part.vocabulary) for part in field.parts]
    place_in = _place_in(field.combinations)
    ids = np.arange(OOV, len(field.combinations) + FIRST_ID, dtype=np.int32)

    def quick(*values) -> np.ndarray | None:
        code, is_known = 0, True
        for value, place_of, part in zip(values, places, field.parts, strict=True):
            place = place_of(value)
            if place is None:
                return None
            code = code * (len(part.vocabulary) + FIRST_ID) + place + FIRST_ID
            is_known &= place >= 0
        place = place_in(code) if is_known else -1
        return None if place is None else ids[place + 1 : place + 2]

    return quick


_OF_KIND = {
    SparseField: _sparse,
    VarLenField: _var_len,
    NumberField: _number,
    MissingField: _missing,
    MeanField: _mean,
    CounterField: _counter,
    CrossField: _cross,
}
