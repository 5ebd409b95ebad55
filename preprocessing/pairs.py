"""Whom and what each row names, and which rows repeat others.

Rows of one user, item and time are twins. Rows of one user and item at different times are none.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from preprocessing.space import Column, InMemory, blocks, row_type


@dataclass
class Pairs:
    """Whom and what each row names."""

    user_of_row: np.ndarray | Column  # (N,) places in `user_ids`
    item_of_row: np.ndarray | Column  # (N,) places in `item_ids`
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

    def spread(self, order: np.ndarray, cuts: list[int], space: InMemory) -> tuple[np.ndarray | Column, list[int]]:
        """The rows of groups that are put in an order, and where cuts of that order lie among them.

        The rows of a group follow each other as in the file.

        Args:
            order: (G,) numbers of groups, as `groups` counts them; it is written over.
        """
        num_before = self.rows - np.arange(len(self.rows))  # how many groups start before each later row
        repeated, places = np.unique(self.first), []
        for block in blocks(len(order)):
            order[block] += np.searchsorted(num_before, order[block], side="right").astype(order.dtype)
            places.append(block.start + np.flatnonzero(np.isin(order[block], repeated)))
        places = np.concatenate(places)
        by_row = places[np.argsort(order[places])]
        after = by_row[np.searchsorted(repeated, self.first)]  # the place that each later row comes after
        sorting = np.argsort(after, kind="stable")
        after, later = after[sorting], self.rows[sorting]
        rows = space.column()
        for block in blocks(len(order)):
            start, stop = np.searchsorted(after, [block.start, block.stop])
            rows.append(np.insert(order[block], after[start:stop] - block.start + 1, later[start:stop]))
        return rows.finish(), [place + int(np.searchsorted(after, place)) for place in cuts]


def find_twins(pairs: Pairs, times: np.ndarray, space: InMemory | None = None) -> Twins:
    """Every row that repeats an earlier one.

    Args:
        space: bounds the memory; users are looked at in as many parts as it wants.
    """
    num_parts = (space or InMemory()).num_parts(len(times), 40)
    found = [_twins_of_users(pairs, times, part, num_parts) for part in range(num_parts)]
    rows, first = (np.concatenate([getattr(twins, name) for twins in found]) for name in ("rows", "first"))
    order = np.argsort(rows)
    return Twins(rows[order], first[order])


def _twins_of_users(pairs: Pairs, times: np.ndarray, part: int, num_parts: int) -> Twins:
    """The same of one user in num_parts."""
    # Hashes tell at once that most rows have no twin, in little memory; the few others are compared for certain.
    hashes, rows = [], []
    for block in blocks(len(times)):
        chosen = np.flatnonzero(pairs.user_of_row[block] % num_parts == part)
        hashed = pd.util.hash_array(pairs.codes(block)[chosen])
        hashed *= np.uint64(0x9E3779B97F4A7C15)
        hashed += pd.util.hash_array(times[block][chosen])
        hashes.append(hashed)
        rows.append((block.start + chosen).astype(row_type(len(times))))
    hashes, rows = np.concatenate(hashes), np.concatenate(rows)
    ordered = np.sort(hashes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if len(repeated) == 0:
        return Twins(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    rows = rows[repeated[np.searchsorted(repeated[:-1], hashes)] == hashes].astype(np.int64)
    keys = pd.DataFrame({"pair": pairs.codes(rows), "time": times[rows]})
    group_of_row = keys.groupby(["pair", "time"], sort=False, dropna=False).ngroup().to_numpy()
    _, starts = np.unique(group_of_row, return_index=True)  # groups are numbered in the order in which they appear
    first = rows[starts[group_of_row]]
    return Twins(rows[rows != first], first[rows != first])
