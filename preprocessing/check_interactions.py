"""Whether rows and the tables they point into are what `encode_interactions` takes; a reader of files may err, too.

What is wrong here would seldom fail later: a place of -1 is the last user, and a label of 2 trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from preprocessing.errors import UserError
from preprocessing.space import blocks
from preprocessing.statistics import OTHER, Statistic

if TYPE_CHECKING:
    from preprocessing.interactions import Fields, Interactions


def check_interactions(raw: Interactions, user_fields: Fields, item_fields: Fields) -> None:
    """Raise UserError for columns of several lengths, places and labels that are none, and ids that occur twice."""
    where, fields = raw.file or raw.name, {"user": user_fields, "item": item_fields}
    columns = {f"{tower}_of_row": getattr(raw, f"{tower}_of_row") for tower in fields}
    columns |= {"labels": raw.labels, "times": raw.times, "rows": raw.rows}
    columns |= {f"context {name!r}": getattr(column, "of_row", column) for name, column in raw.context.items()}
    if raw.probabilities is not None:
        columns["probabilities"] = raw.probabilities
    for name, column in columns.items():
        if len(column) != len(raw.labels):
            raise UserError(
                f"{where}: expected a value for each row, got {len(column):,} {name} and {len(raw.labels):,} labels."
            )
    for tower, frame in (("user", raw.users), ("item", raw.items)):
        _check_table(where, tower, frame, fields)
        _check_column(
            f"{where}: {tower}_of_row",
            columns[f"{tower}_of_row"],
            len(frame) - 1,
            f"places in the table of {tower}s, 0 to {len(frame) - 1:,}",
            "-1 is an id that the table lacks: add it there, or leave the row out",
        )
    if raw.labels.dtype.kind != "b":  # which holds nothing else
        _check_column(f"{where}: labels", raw.labels, 1, "0 and 1", "convert or remove it")


def _check_table(where: str, tower: str, frame: pd.DataFrame, fields: dict[str, Fields]) -> None:
    name = next(iter(fields[tower]))
    ids = frame[name].dropna()
    if ids.duplicated().any():
        raise UserError(
            f"{where}: expected each {tower} once in its table, got {name} {ids[ids.duplicated()].iloc[0]} twice; "
            "keep one of them."
        )
    others = fields[OTHER[tower]]
    for name, kind in fields[tower].items():
        if isinstance(kind, Statistic) and kind.by is not None and kind.by not in others:
            raise UserError(
                f"{name}: expected a statistic by a field of the {OTHER[tower]}s ({', '.join(others)}), got one by "
                f"{kind.by!r}."
            )


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
