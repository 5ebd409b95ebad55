"""Raw ids of items: as an index keeps them, and where each of them stands in it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from preprocessing.errors import UserError


def as_ids(values) -> np.ndarray:
    """Item ids as they are stored, (N,) int64 or text; raises UserError where one is missing or occurs twice."""
    values = pd.Series(np.asarray(values))
    if values.isna().any():
        raise UserError(f"ids: expected an id for each item, got none in row {int(values.isna().argmax())}.")
    if values.dtype.kind == "f" and (values % 1 == 0).all():
        values = values.astype(np.int64)
    ids = values.to_numpy(np.int64) if values.dtype.kind in "iu" else values.to_numpy(str)
    repeated = values[values.duplicated()]
    if len(repeated):
        raise UserError(f"ids: expected each item once, got {repeated.iloc[0]} twice.")
    return ids


class RowOfId:
    """Looks ids up: in a table where they are whole numbers that lie close, else by hash."""

    def __init__(self, ids: np.ndarray, rows: np.ndarray):
        self.ids, self.rows = ids, rows
        self.table = self.hashed = None
        if ids.dtype.kind == "i" and len(rows):
            kept = ids[rows]
            self.least, largest = int(kept.min()), int(kept.max())
            if largest - self.least < 8 * len(rows) + 2**16:
                self.table = np.full(largest - self.least + 2, -1, np.int64)  # the last place stands for all others
                self.table[kept - self.least] = rows

    def __call__(self, wanted: np.ndarray) -> np.ndarray:
        if not len(self.rows) or not len(wanted):
            return np.full(len(wanted), -1, np.int64)
        wanted = _like(self.ids, wanted)
        if self.table is not None:
            places = wanted - self.least
            outside = (places < 0) | (places >= len(self.table) - 1)
            return self.table[np.where(outside, -1, places)]
        if self.hashed is None:  # half a second for a million: made when it is first asked for
            self.hashed = pd.Index(self.ids[self.rows])
        found = self.hashed.get_indexer(pd.Index(wanted))
        return np.where(found >= 0, self.rows[found], -1)


def _like(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Ids as a request brings them, in the type of the index's; raw whole numbers often arrive as text."""
    if ids.dtype.kind == "i":
        if wanted.dtype.kind == "i":
            return wanted.astype(np.int64, copy=False)
        numbers = pd.to_numeric(pd.Series(wanted), errors="coerce")
        whole = numbers.where((numbers % 1 == 0) & (numbers.abs() < 2**53))
        return whole.fillna(-(2**62)).to_numpy(np.int64)  # no id: no table reaches there
    return wanted.astype(str)
