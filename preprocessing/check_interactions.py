"""Whether rows and the tables they point into are what `encode_interactions` takes; a reader of files may err, too.

What is wrong here would seldom fail later: a place of -1 is the last user, and a label of 2 trains.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from preprocessing.encode import MeanField, MissingField, NumberField, SparseField, VarLenField, is_given, numbers_of
from preprocessing.errors import UserError
from preprocessing.space import blocks
from preprocessing.statistics import MEASURES, OTHER, Cross, Statistic

if TYPE_CHECKING:
    from preprocessing.interactions import Fields, Interactions


def check_settings(protocol: str, split_seed: int, embedding_dim: int, label_delay: float) -> None:
    """Raise UserError for a seed, a dimension or a delay that is none, and for a delay where nothing is delayed."""
    if not isinstance(split_seed, Integral) or not 0 <= split_seed < 2**32:
        raise UserError(f"split_seed: expected a whole number from 0 to below 2^32, got {split_seed!r}.")
    if not isinstance(embedding_dim, Integral) or embedding_dim < 1:
        raise UserError(f"embedding_dim: expected a whole number of at least 1, got {embedding_dim!r}.")
    if not isinstance(label_delay, Real) or not 0 <= label_delay < float("inf"):
        raise UserError(f"label_delay: expected seconds of at least 0, got {label_delay!r}.")
    if label_delay and protocol != "online":
        raise UserError(f"label_delay: expected with the protocol online alone, got {label_delay:g} under {protocol}.")


def check_interactions(raw: Interactions, user_fields: Fields, item_fields: Fields) -> None:
    """Raise UserError for fields without their column, columns of several lengths, and places and labels that are none.

    An id that occurs twice is refused too, and a column of numbers that has none; where some are none, it is said.
    """
    where, fields = raw.file or raw.name, {"user": user_fields, "item": item_fields}
    for tower in fields:
        if not fields[tower]:
            raise UserError(f"{where}: expected the {tower}s' fields, their id first, got none.")
    if shared := [name for name in user_fields if name in item_fields]:
        raise UserError(
            f"{where}: expected a field in one tower, got {shared[0]!r} in both; rename the column in one table."
        )
    columns = {f"{tower}_of_row": getattr(raw, f"{tower}_of_row") for tower in fields}
    columns |= {"labels": raw.labels, "times": raw.times, "rows": raw.rows}
    columns |= {f"context {name!r}": getattr(column, "of_row", column) for name, column in raw.context.items()}
    if raw.probabilities is not None:
        columns["probabilities"] = raw.probabilities
    for name, column in columns.items():
        if getattr(column, "ndim", 1) != 1:
            raise UserError(f"{where}: expected a value for each row, got {name} of the shape {column.shape}.")
        if len(column) != len(raw.labels):
            raise UserError(
                f"{where}: expected a value for each row, got {len(column):,} {name} and {len(raw.labels):,} labels."
            )
    for tower, frame in (("user", raw.users), ("item", raw.items)):
        _check_table(where, tower, frame, fields, raw.context)
        _check_column(
            f"{where}: {tower}_of_row",
            columns[f"{tower}_of_row"],
            len(frame) - 1,
            f"places in the table of {tower}s, 0 to {len(frame) - 1:,}",
            "-1 is an id that the table lacks: add it there, or leave the row out",
        )
    if raw.labels.dtype.kind != "b":  # which holds nothing else
        _check_column(f"{where}: labels", raw.labels, 1, "0 and 1", "convert or remove it")


def _check_table(where: str, tower: str, frame: pd.DataFrame, fields: dict[str, Fields], context: dict) -> None:
    name = next(iter(fields[tower]))
    columns = list(frame.columns)
    for source in [name, *(s for field, kind in fields[tower].items() for s in _sources(field, kind, context))]:
        if columns.count(source) != 1:
            got = "it several times" if source in columns else columns
            raise UserError(f"{where}: expected a column {source!r} in the table of {tower}s, got {got}.")
    ids = frame[name].dropna()
    if ids.duplicated().any():
        raise UserError(
            f"{where}: expected each {tower} once in its table, got {name} {ids[ids.duplicated()].iloc[0]} twice; "
            "keep one of them."
        )
    others = [field for field, kind in fields[OTHER[tower]].items() if _has_values(kind)]
    for name, kind in fields[tower].items():
        if name in context and kind not in (SparseField, VarLenField):
            raise UserError(f"{where}: context {name!r}: expected a SparseField or a VarLenField, got {_named(kind)}.")
        if isinstance(kind, Statistic):
            if kind.measure not in MEASURES:
                raise UserError(f"{name}: expected a statistic of {', '.join(MEASURES)}, got {kind.measure!r}.")
            if kind.by is not None and kind.by not in others:
                raise UserError(
                    f"{name}: expected a statistic by a field of the {OTHER[tower]}s that has values ("
                    f"{', '.join(others)}), got one by {kind.by!r}."
                )
        elif kind is NumberField:
            _check_numbers(where, tower, frame[name])


def _sources(name: str, kind: type | Statistic | Cross, context: dict) -> list[str]:
    """The columns of its tower's table that a field is made of."""
    if isinstance(kind, Statistic) or kind is MeanField or name in context:
        return []
    if isinstance(kind, Cross):
        return list(kind.sources)
    return [name.removesuffix(MissingField.SUFFIX) if kind is MissingField else name]


def _has_values(kind: type | Statistic | Cross) -> bool:
    return isinstance(kind, Cross) or kind in (SparseField, VarLenField)


def _named(kind) -> str:
    return getattr(kind, "__name__", None) or type(kind).__name__


def _check_numbers(where: str, tower: str, values: pd.Series) -> None:
    """A column whose numbers are all lost would be a constant, without a word."""
    given = is_given(values)
    lost = given & numbers_of(values).isna().to_numpy()
    if not lost.any():
        return
    counted = f"{int(lost.sum()):,} of {int(given.sum()):,} {tower}s (such as {values[lost].tolist()[0]!r:.60})"
    if lost.sum() == given.sum():
        raise UserError(
            f"{where}: {values.name}: expected numbers of at least 0, got none in {counted}; shift or convert them."
        )
    print(f"{where}: {values.name} of {counted} is no number of at least 0 and counts as missing.", flush=True)


def _check_column(name: str, column, highest: int, expected: str, advice: str) -> None:
    """An array, or a Column, of whole numbers from 0 to `highest`."""
    if column.dtype.kind not in "iu":
        raise UserError(f"{name}: expected {expected} as whole numbers, got {column.dtype}; convert the column.")
    for block in blocks(len(column)):
        values = column[block]
        if len(values) and not 0 <= values.min() <= values.max() <= highest:
            place = int(np.argmax((values < 0) | (values > highest)))
            row = block.start + place
            raise UserError(f"{name}: expected {expected}, got {values[place]} in row {row:,}; {advice}.")
