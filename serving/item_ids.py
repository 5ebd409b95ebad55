"""Raw ids of items: as an index keeps them, and where each of them stands in it. The rule is preprocessing/ids.py's."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pandas as pd

from preprocessing.errors import UserError
from preprocessing.ids import is_text, is_whole, places, texts, whole_numbers


def as_ids(values, known: pd.Index | None = None, name: str = "ids") -> np.ndarray:
    """Item ids as they are stored, (N,) int64 or text.

    Args:
        known: ids that training saw, of whose kind these must be; without them, text or whole numbers.
        name: what an error calls the column.
    Raises UserError where one is missing or empty, occurs twice, or is not exactly of that kind.
    """
    values = pd.Series(values, dtype=object) if isinstance(values, list | tuple) else pd.Series(values)
    values = values.reset_index(drop=True)
    if values.isna().any():
        raise UserError(f"{name}: expected an id for each item, got none in row {int(values.isna().argmax())}.")
    if known is not None and is_text(known):
        values = pd.Series(texts(values, known, name), dtype=object)
    if pd.api.types.infer_dtype(values) == "string" and (known is None or not is_whole(known)):
        ids, wanted = values.to_numpy(str), "text that is not empty"
        odd = ~values.str.strip().astype(bool).to_numpy()
    else:
        ids, is_exact = whole_numbers(values, name)
        odd, wanted = ~is_exact, "whole numbers of 64 bits"
    if odd.any():
        row = int(odd.argmax())
        got = values.astype(object)[row]  # without numpy's name around it
        raise UserError(f"{name}: expected {wanted} as ids, got {got!r} in row {row}; mend or remove it.")
    repeated = pd.Index(ids).duplicated()
    if repeated.any():
        raise UserError(f"{name}: expected each item once, got {ids[repeated.argmax()]} twice.")
    return ids


def as_given(ids) -> np.ndarray:
    """Ids as an array; those of a list keep their kinds, where numpy would make text or floats of a mixture."""
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise UserError(f"ids: expected a list of ids, or lists of the same length, got others ({error}).") from None
    if isinstance(ids, list | tuple):
        kinds = set(map(type, chain.from_iterable(ids) if array.ndim > 1 else ids))
        if len(kinds) > 1 or (kinds == {int} and array.dtype.kind == "f"):  # some of them beyond 64 bits
            return np.asarray(ids, dtype=object)
    return array


class RowOfId:
    """Looks ids up: in a table where they are whole numbers that lie close, else by hash."""

    def __init__(self, ids: np.ndarray, rows: np.ndarray):
        self.ids, self.rows = ids, rows
        self.table = self.hashed = None
        if ids.dtype.kind == "i" and len(rows):
            kept = ids[rows]
            self.least, largest = int(kept.min()), int(kept.max())
            if largest - self.least < 8 * len(rows) + 2**16:
                # The first place and the last one stand for all others.
                self.table = np.full(largest - self.least + 3, -1, np.int64)
                self.table[kept - self.least + 1] = rows

    def __call__(self, wanted: np.ndarray) -> np.ndarray:
        """(N,) the row of each wanted id, -1 where there is none; raises UserError for what is refused as an id."""
        if not len(self.rows) or not len(wanted):
            return np.full(len(wanted), -1, np.int64)
        if self.table is not None:
            if wanted.dtype == np.int64:
                return self._looked_up(wanted)
            whole, is_exact = whole_numbers(wanted, "ids")
            return np.where(is_exact, self._looked_up(whole), -1)
        if self.hashed is None:  # half a second for a million: made when it is first asked for
            self.hashed = pd.Index(self.ids[self.rows])
        found = places(wanted, self.hashed)
        return np.where(found >= 0, self.rows[found], -1)

    def _looked_up(self, whole: np.ndarray) -> np.ndarray:
        places = whole - self.least  # far ends of int64 wrap, and not into the table
        places += 1
        return self.table.take(places, mode="clip")
