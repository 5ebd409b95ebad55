"""Whom and what each row names, and which rows repeat others.

Rows of one user, item and time are twins. Rows of one user and item at different times are none.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass
class Pairs:
    """Whom and what each row names."""

    user_of_row: np.ndarray  # (N,) places in `user_ids`
    item_of_row: np.ndarray  # (N,) places in `item_ids`
    user_ids: pd.Series
    item_ids: pd.Series

    def ids(self, rows: np.ndarray) -> pd.DataFrame:
        """The user and the item of some rows, as the raw files name them."""
        users, items = self.user_ids.iloc[self.user_of_row[rows]], self.item_ids.iloc[self.item_of_row[rows]]
        return pd.DataFrame({"user": users.to_numpy(), "item": items.to_numpy()})

    def codes(self, rows: np.ndarray | slice) -> np.ndarray:
        """A number for the user and the item of some rows, which other pairs do not share; int64."""
        codes = self.user_of_row[rows].astype(np.int64)
        codes *= len(self.item_ids)
        codes += self.item_of_row[rows]
        return codes


@dataclass
class Twins:
    """Rows that repeat an earlier one: the same user, item and time."""

    rows: np.ndarray  # (M,) the later ones, in their order
    first: np.ndarray  # (M,) the row that each of them repeats

    def groups(self, num_rows: int) -> np.ndarray:
        """(num_rows,) the group of each row; groups are counted from 0 in the order of their first rows."""
        starts = np.ones(num_rows, dtype=bool)
        starts[self.rows] = False
        group_of_row = np.cumsum(starts) - 1
        group_of_row[self.rows] = group_of_row[self.first]
        return group_of_row


def find_twins(pairs: Pairs, times: np.ndarray) -> Twins:
    """Every row that repeats an earlier one."""
    # Hashes tell at once that most rows have no twin, in little memory; the few others are compared for certain.
    hashes = pd.util.hash_array(pairs.codes(slice(None)))
    hashes *= np.uint64(0x9E3779B97F4A7C15)
    hashes += pd.util.hash_array(times)
    ordered = np.sort(hashes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if len(repeated) == 0:
        return Twins(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    rows = np.flatnonzero(repeated[np.searchsorted(repeated[:-1], hashes)] == hashes)
    keys = pd.DataFrame({"pair": pairs.codes(rows), "time": times[rows]})
    group_of_row = keys.groupby(["pair", "time"], sort=False, dropna=False).ngroup().to_numpy()
    _, starts = np.unique(group_of_row, return_index=True)  # groups are numbered in the order in which they appear
    first = rows[starts[group_of_row]]
    return Twins(rows[rows != first], first[rows != first])
