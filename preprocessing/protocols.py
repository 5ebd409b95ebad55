"""The four evaluation protocols: how rows are split, and what a row may know of labels.

paper     random 80/20; label means as the released code takes them, over the very rows being scored. LABELS LEAK.
          A dataset without label means leaks nothing; its scalers are still fitted on test, as released.
strict    random 80/20; label means from training rows only, cross-fitted for the training rows themselves.
temporal  first 80 % / last 20 % by time; a training row's means come from strictly earlier rows only. A system that
          is trained once and never hears of a label again.
online    split as temporal; users' statistics know every earlier label, those of valid and test too, as soon as it is
          `label_delay` seconds old. Items' statistics and all weights stand as they stood at the split: prequential
          evaluation of a live system that counts what users do, and builds its index once.

Validation is 10 % of the training part: random under paper and strict, the last by time under temporal and online.

Rows of one user, item and time are twins. All of them go to one split: a random split deals out groups of twins, which
are single rows where no row repeats another. Rows of one time are never divided between the training part and test.
Rows of one user and item at different times are no twins, and are dealt out as any others.
"""

import bisect
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from preprocessing.choices import BY_TIME
from preprocessing.errors import UserError
from preprocessing.pairs import Pairs, Twins
from preprocessing.space import Column, InMemory, blocks, cut, row_type

TEST_SHARE = 0.2
VALID_SHARE = 0.1  # of the training part


@dataclass
class Splits:
    """Row numbers of each split."""

    train: np.ndarray | Column
    valid: np.ndarray | Column
    test: np.ndarray | Column

    @property
    def train_and_valid(self) -> np.ndarray:
        return np.concatenate([self.train, self.valid])


TRAIN, VALID, TEST, NEITHER = range(4)


def split_of_rows(splits: Splits, num_rows: int) -> np.ndarray:
    """(num_rows,) int8, which split each row is in."""
    split_of_row = np.full(num_rows, NEITHER, dtype=np.int8)
    for split, rows in enumerate((splits.train, splits.valid, splits.test)):
        for block in blocks(len(rows)):
            split_of_row[rows[block]] = split
    return split_of_row


# Below its number, a time since 1970 is counted in this unit: 10^8 seconds and 10^11 milliseconds are March 1973.
NO_DATE = "numbers below 100,000,000"
UNITS = {NO_DATE: 1e8, "seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17, "nanoseconds": math.inf}
UNIT_GAP = 10  # between units; times that run on across a border are of one unit


def check_times(protocol: str, times: np.ndarray, where: str) -> None:
    """Raise UserError for times of several units, and under temporal for times that tell no order.

    Args:
        where: the file that they come from.
    """
    if times.dtype.kind not in "iuf" and protocol in BY_TIME:
        raise UserError(
            f"{where}: expected times as numbers, got {times.dtype}; convert them (of pandas' dates, .astype('int64'))."
        )
    if times.dtype.kind not in "iuf" or len(times) == 0:
        return
    found = _units(times)
    if protocol in BY_TIME:
        absent = np.concatenate([part[~np.isfinite(part)] for part in (times[block] for block in blocks(len(times)))])
        if len(absent):
            raise UserError(
                f"{where}: expected a time in every row, got {absent[0]} in {len(absent):,}; complete or remove "
                "them, or use --protocol strict."
            )
        if len(times) > 2 and found[0].smallest == found[-1].largest:
            raise UserError(
                f"{where}: expected rows of different times, got {times[0]} in all {len(times):,}; give their true "
                "times, or use --protocol strict."
            )
    for earlier, later in itertools.pairwise(found):
        # A number that is no date, such as a 0 for a time that is not known, harms the order in time alone.
        harms = earlier.unit != NO_DATE or protocol in BY_TIME
        if harms and later.smallest >= UNIT_GAP * max(earlier.largest, 1):
            raise UserError(
                f"{where}: expected times of one unit, got {earlier.count:,} in {earlier.unit} (such as "
                f"{earlier.largest}) and {later.count:,} in {later.unit} (such as {later.smallest}); convert the ones "
                "or the others, or remove their rows."
            )


@dataclass
class _TimesOfUnit:
    unit: str
    count: int
    smallest: float
    largest: float


def _units(times: np.ndarray) -> list[_TimesOfUnit]:
    """The times that seem to be of each unit, where there are any."""
    found = {}
    for block in blocks(len(times)):
        part, low = times[block], -math.inf
        for unit, high in UNITS.items():
            of_unit = part[(part >= low) & (part < high)]
            low = high
            if len(of_unit):
                known = found.setdefault(unit, _TimesOfUnit(unit, 0, of_unit[0], of_unit[0]))
                known.count += len(of_unit)
                known.smallest, known.largest = min(known.smallest, of_unit.min()), max(known.largest, of_unit.max())
    return [found[unit] for unit in UNITS if unit in found]


def units_per_second(times: np.ndarray) -> float:
    """How many of their unit make a second; numbers too small to be a date are taken for seconds."""
    per_second = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
    latest = times.max(initial=0)
    return per_second.get(next(unit for unit, high in UNITS.items() if latest < high), 1.0)


def split_rows(
    protocol: str,
    times: np.ndarray,
    seed: int,
    pairs: Pairs | None = None,
    twins: Twins | None = None,
    space: InMemory | None = None,
) -> Splits:
    """Deal the rows out by the protocol's rule; raises UserError where a split would be empty.

    Args:
        pairs: by whose ids rows of one time are put in order where the start of validation falls among them; without
            them, by their places.
        twins: of these rows; they stay together.
        space: where the row numbers go.
    """
    space = space or InMemory()
    if protocol in BY_TIME:
        return _checked(_split_by_time(times, pairs, space), times)
    num_groups = len(times) - (0 if twins is None else len(twins.rows))
    # As Generator.permutation would, in half of its memory.
    order = np.arange(num_groups, dtype=row_type(len(times)))
    np.random.default_rng(seed).shuffle(order)
    num_test = round(num_groups * TEST_SHARE)
    num_valid = round((num_groups - num_test) * VALID_SHARE)
    cuts = [num_groups - num_test - num_valid, num_groups - num_test]
    if num_groups < len(times):
        order, cuts = twins.spread(order, cuts, space)
    else:
        order = space.keep(order)
    return _checked(Splits(*cut(order, cuts)), times)


def _checked(splits: Splits, times: np.ndarray) -> Splits:
    for name, rows in vars(splits).items():
        if len(rows) == 0:
            raise UserError(f"{name} split: expected at least one row, got none of {len(times)} rows; give more data.")
    return splits


def _split_by_time(times: np.ndarray, pairs: Pairs | None, space: InMemory) -> Splits:
    """The order in time, cut into the three splits by a rule that the order of the rows does not touch."""
    order, num_rows = _in_order(times, space), len(times)
    wanted = num_rows - round(num_rows * TEST_SHARE)
    start, end = _tie(times, order, wanted)
    test_start = wanted
    if start < end:
        # To the nearer end of the tie, but not where nothing would be left on one side.
        test_start = min((end, start), key=lambda place: (place in (0, num_rows), abs(place - wanted), place))
        print(
            f"temporal: the 80/20 cut fell among {end - start:,} rows of one time ({times[order[start]]}), which stay "
            f"together: test has {num_rows - test_start:,} rows instead of {num_rows - wanted:,}.",
            flush=True,
        )
    valid_start = test_start - round(test_start * VALID_SHARE)
    start, end = _tie(times, order, valid_start)
    if start < end:
        # Moving this cut as well would change the published splits of MovieLens-1M, where one tie lies on it. By ids,
        # its rows are divided as they always were.
        tied = order[start:end]
        by_id, changes = np.arange(len(tied)), np.arange(len(tied) + 1)
        if pairs is not None:
            by_id, changes = _by_ids(pairs.ids(tied))
        num_early = changes[np.argmin(np.abs(changes - (valid_start - start)))]
        is_late = np.ones(len(tied), dtype=bool)
        is_late[by_id[:num_early]] = False
        order[start:end] = np.concatenate([tied[~is_late], tied[is_late]])
        valid_start = start + num_early
        print(
            f"temporal: validation starts among {end - start:,} rows of one time ({times[tied[0]]}), divided by the "
            f"ids of user and item: {num_early:,} in train, {end - start - num_early:,} in validation.",
            flush=True,
        )
    return Splits(*cut(order, [valid_start, test_start]))


def _in_order(times: np.ndarray, space: InMemory) -> np.ndarray | Column:
    """(N,) the rows by their times, those of one time as they come."""
    num_parts = space.num_parts(len(times), 48)
    if num_parts == 1:
        return space.keep(np.argsort(times[:], kind="stable").astype(row_type(len(times))))
    # Each part has the rows of a range of times; every hundredth tells where to divide them.
    some = np.sort(np.concatenate([times[block][::100] for block in blocks(len(times))]))
    starts = np.unique(some[[len(some) * part // num_parts for part in range(1, num_parts)]])
    order = space.column()
    for part in range(len(starts) + 1):
        found, of_part = [], []
        for block in blocks(len(times)):
            values = times[block]
            chosen = np.flatnonzero(np.searchsorted(starts, values, side="right") == part)
            found.append((block.start + chosen).astype(row_type(len(times))))
            of_part.append(values[chosen])
        order.append(np.concatenate(found)[np.argsort(np.concatenate(of_part), kind="stable")])
    return order.finish()


def _tie(times: np.ndarray, order: np.ndarray, cut: int) -> tuple[int, int]:
    """Start and end, in the order of time, of the rows of one time that a cut divides; an empty range where none."""

    def time_at(place: int):
        return times[order[place]]

    if not 0 < cut < len(order) or time_at(cut - 1) != time_at(cut):
        return cut, cut
    places = range(len(order))
    return tuple(find(places, time_at(cut), key=time_at) for find in (bisect.bisect_left, bisect.bisect_right))


def _by_ids(ids: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The order of rows by user and item, and the places in it where another pair starts, both ends among them."""
    codes = [
        np.unique(column.astype(str) if column.dtype == object else column, return_inverse=True)[1]
        for column in (ids["item"], ids["user"])
    ]
    order = np.lexsort(codes)
    differs = np.any([code[order][1:] != code[order][:-1] for code in codes], axis=0)
    return order, np.concatenate([[0], np.flatnonzero(differs) + 1, [len(order)]])


def count_repeated_test_rows(
    pairs: Pairs, labels: np.ndarray, split_of_row: np.ndarray, space: InMemory | None = None
) -> int:
    """How many test rows have the user, the item and the label of a row that the model is fitted on.

    Those are the rows of train alone, without valid. Twins lie in one split, so such rows are of another time.

    Args:
        space: bounds the memory; users are looked at in as many parts as it wants.
    """
    num_parts = (space or InMemory()).num_parts(len(labels), 32)
    count = 0
    for part in range(num_parts):
        found = {TRAIN: [], TEST: []}
        for block in blocks(len(labels)):
            codes = pairs.codes(block)
            codes *= 2
            codes += labels[block]
            is_chosen = pairs.user_of_row[block] % num_parts == part
            for split, of_split in found.items():
                of_split.append(codes[is_chosen & (split_of_row[block] == split)])
        # Sorted numbers are looked up in order, which takes a tenth of np.isin's time and a quarter of its memory.
        train, test = (np.sort(np.concatenate(of_split)) for of_split in found.values())
        if len(train):
            places = np.searchsorted(train, test)
            places[places == len(train)] = 0
            count += int(np.count_nonzero(train[places] == test))
    return count


def check_both_classes(labels: np.ndarray, splits: Splits) -> None:
    """Raise UserError where a split holds one class only: AUC is not defined there."""
    for name in ("train", "valid", "test"):
        found, rows = set(), getattr(splits, name)
        for block in blocks(len(rows)):
            found |= set(np.unique(labels[rows[block]]).tolist())
            if len(found) > 1:
                break
        else:
            got = f"only {found.pop()}" if found else "no row that the protocol keeps"
            raise UserError(f"{name} split: expected labels 0 and 1, got {got}; give more data.")


def drop_users_without_positive(users: np.ndarray, labels: np.ndarray, splits: Splits, per_part: bool) -> Splits:
    """What the released code does by an inner join: users with no positive label vanish, from the test rows too.

    Args:
        per_part: a user needs a positive label in the same part (train and valid, or test), else in any row.
    """
    num_users = int(users.max(initial=-1)) + 1

    def keep(part: np.ndarray, among: np.ndarray) -> np.ndarray:
        has_positive = np.bincount(users[among], weights=labels[among], minlength=num_users) > 0
        return part[has_positive[users[part]]]

    train_part, test = (splits.train_and_valid, splits.test) if per_part else (np.arange(len(users)),) * 2
    return Splits(keep(splits.train, train_part), keep(splits.valid, train_part), keep(splits.test, test))
