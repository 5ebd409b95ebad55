"""The three evaluation protocols: how rows are split, and what a row may know of labels.

paper     random 80/20; label means as the released code takes them, over the very rows being scored. LABELS LEAK.
          A dataset without label means leaks nothing; its scalers are still fitted on test, as released.
strict    random 80/20; label means from training rows only, cross-fitted for the training rows themselves.
temporal  first 80 % / last 20 % by time; a training row's means come from strictly earlier rows only.

Validation is 10 % of the training part: random under paper and strict, the last by time under temporal.

Rows of one user, item and time are twins. All of them go to one split: a random split deals out groups of twins, which
are single rows where no row repeats another. Rows of one time are never divided between the training part and test.
Rows of one user and item at different times are no twins, and are dealt out as any others.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from preprocessing.encode import MeanField, MinMaxScaler
from preprocessing.errors import UserError

TEST_SHARE = 0.2
VALID_SHARE = 0.1  # of the training part

# Under temporal, a mean over n earlier labels is drawn towards the mean of all earlier labels as if this many
# more had been seen; the first ratings of a user say little.
TEMPORAL_SMOOTHING = 10.0


@dataclass
class Splits:
    """Row numbers of each split."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def train_and_valid(self) -> np.ndarray:
        return np.concatenate([self.train, self.valid])


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


# Below its number, a time since 1970 is counted in this unit: 10^8 seconds and 10^11 milliseconds are March 1973.
NO_DATE = "numbers below 100,000,000"
UNITS = {NO_DATE: 1e8, "seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17, "nanoseconds": math.inf}
UNIT_GAP = 10  # between units; times that run on across a border are of one unit


def check_times(protocol: str, times: np.ndarray, where: str) -> None:
    """Raise UserError for times of several units, and under temporal for times that tell no order.

    Args:
        where: the file that they come from.
    """
    if times.dtype.kind not in "iuf" or len(times) == 0:
        return
    if protocol == "temporal":
        absent = np.flatnonzero(~np.isfinite(times))
        if len(absent):
            raise UserError(
                f"{where}: expected a time in every row, got {times[absent[0]]} in {len(absent):,}; complete or remove "
                "them, or use --protocol strict."
            )
        if len(times) > 2 and times.min() == times.max():
            raise UserError(
                f"{where}: expected rows of different times, got {times[0]} in all {len(times):,}; give their true "
                "times, or use --protocol strict."
            )
    found, low = [], -math.inf
    for unit, high in UNITS.items():
        of_unit = times[(times >= low) & (times < high)]
        if len(of_unit):
            found.append((unit, len(of_unit), of_unit.min(), of_unit.max()))
        low = high
    for (unit, count, _, largest), (other_unit, other_count, smallest, _) in itertools.pairwise(found):
        # A number that is no date, such as a 0 for a time that is not known, harms the order in time alone.
        harms = unit != NO_DATE or protocol == "temporal"
        if harms and smallest >= UNIT_GAP * max(largest, 1):
            raise UserError(
                f"{where}: expected times of one unit, got {count:,} in {unit} (such as {largest}) and {other_count:,} "
                f"in {other_unit} (such as {smallest}); convert the ones or the others, or remove their rows."
            )


def split_rows(
    protocol: str, times: np.ndarray, seed: int, pairs: Pairs | None = None, twins: Twins | None = None
) -> Splits:
    """Deal the rows out by the protocol's rule; raises UserError where a split would be empty.

    Args:
        pairs: by whose ids rows of one time are put in order where the start of validation falls among them; without
            them, by their places.
        twins: of these rows; they stay together.
    """
    if protocol == "temporal":
        return _checked(_split_by_time(times, pairs), times)
    num_rows, group_of_row = len(times), None
    if twins is not None and len(twins.rows):
        group_of_row = twins.groups(num_rows)
    num_groups = num_rows if group_of_row is None else int(group_of_row.max()) + 1
    order = np.random.default_rng(seed).permutation(num_groups)
    num_test = round(num_groups * TEST_SHARE)
    num_valid = round((num_groups - num_test) * VALID_SHARE)
    bounds = [num_groups - num_test - num_valid, num_groups - num_test]
    if group_of_row is not None:
        place_of_group = np.empty(num_groups, dtype=np.int64)
        place_of_group[order] = np.arange(num_groups)
        place_of_row = place_of_group[group_of_row]
        order = np.argsort(place_of_row, kind="stable")
        bounds = np.searchsorted(place_of_row[order], bounds)
    return _checked(Splits(*np.split(order, bounds)), times)


def _checked(splits: Splits, times: np.ndarray) -> Splits:
    for name, rows in vars(splits).items():
        if len(rows) == 0:
            raise UserError(f"{name} split: expected at least one row, got none of {len(times)} rows; give more data.")
    return splits


def _split_by_time(times: np.ndarray, pairs: Pairs | None) -> Splits:
    """The order in time, cut into the three splits by a rule that the order of the rows does not touch."""
    order, num_rows = np.argsort(times, kind="stable"), len(times)
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
    return Splits(*np.split(order, [valid_start, test_start]))


def _tie(times: np.ndarray, order: np.ndarray, cut: int) -> tuple[int, int]:
    """Start and end, in the order of time, of the rows of one time that a cut divides; an empty range where none."""
    if not 0 < cut < len(order) or times[order[cut - 1]] != times[order[cut]]:
        return cut, cut
    ordered = times[order]
    return int(np.searchsorted(ordered, ordered[cut], "left")), int(np.searchsorted(ordered, ordered[cut], "right"))


def _by_ids(ids: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The order of rows by user and item, and the places in it where another pair starts, both ends among them."""
    codes = [
        np.unique(column.astype(str) if column.dtype == object else column, return_inverse=True)[1]
        for column in (ids["item"], ids["user"])
    ]
    order = np.lexsort(codes)
    differs = np.any([code[order][1:] != code[order][:-1] for code in codes], axis=0)
    return order, np.concatenate([[0], np.flatnonzero(differs) + 1, [len(order)]])


def count_repeated_test_rows(pairs: Pairs, labels: np.ndarray, splits: Splits) -> int:
    """How many test rows have the user, the item and the label of a row that the model is fitted on.

    Those are the rows of train alone, without valid. Twins lie in one split, so such rows are of another time.
    """

    def sorted_codes(rows: np.ndarray) -> np.ndarray:
        codes = pairs.codes(rows)
        codes *= 2
        codes += labels[rows]
        codes.sort()
        return codes

    # Sorted numbers are looked up in order, which takes a tenth of np.isin's time and a quarter of its memory.
    train, test = sorted_codes(splits.train), sorted_codes(splits.test)
    places = np.searchsorted(train, test)
    places[places == len(train)] = 0
    return int(np.count_nonzero(train[places] == test))


def check_both_classes(labels: np.ndarray, splits: Splits) -> None:
    """Raise UserError where a split holds one class only: AUC is not defined there."""
    for name in ("train", "valid", "test"):
        found = np.unique(labels[getattr(splits, name)]).tolist()
        if len(found) < 2:
            got = f"only {found[0]}" if found else "no row that the protocol keeps"
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


def label_means(
    protocol: str,
    name: str,
    keys: pd.Series,
    codes: np.ndarray,
    labels: np.ndarray,
    times: np.ndarray,
    splits: Splits,
    seed: int,
    per_part: bool = True,
    twins: Twins | None = None,
) -> tuple[MeanField, np.ndarray]:
    """The mean label of each row's user or item, as far as the protocol lets the row see it.

    Args:
        name: the feature's name.
        keys: the raw ids of the users (or items), named after their column.
        codes: which of them each row has, (N,), as places in `keys`.
        labels, times: one entry per row.
        per_part: of `paper`: means are taken within train and valid and within test, else over all rows.
        twins: of these rows; they do not see each other's label under strict. Under temporal none of one time does.
    Returns:
        the field that gives the statistic of the training rows (under `paper`, as `per_part` says) to any raw key, and
        the scaled feature of every row, (N,) float32; rows that are in no split hold no meaning.
    """
    if protocol == "paper":
        seen, means, prior, per_row = _released_means(codes, labels, splits, per_part)
    elif protocol == "strict":
        seen, means, prior, per_row = _cross_fitted_means(codes, labels, splits, seed, twins)
    else:
        seen, means, prior, per_row = _earlier_means(codes, labels, times, splits)
    # As released, under paper: the scaler is fitted again on test, and that fit is applied to train too.
    scaler = MinMaxScaler.fit(per_row[splits.test if protocol == "paper" else splits.train])
    field = MeanField(name, keys.name, pd.Index(keys.iloc[seen]), means, prior, scaler)
    return field, scaler.transform(per_row)


# Each of the three below gives the codes that have a mean, their means, the prior for others, and each row's value.
Means = tuple[np.ndarray, np.ndarray, float, np.ndarray]


def _mean_table(codes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(codes)
    seen = np.flatnonzero(counts)
    return seen, np.bincount(codes, weights=labels)[seen] / counts[seen]


def _look_up(codes: np.ndarray, seen: np.ndarray, means: np.ndarray, prior: float) -> np.ndarray:
    by_code = np.full(max(codes.max(initial=0), seen.max(initial=0)) + 1, prior)
    by_code[seen] = means
    return by_code[codes]


def _released_means(codes, labels, splits: Splits, per_part: bool) -> Means:
    per_row = np.zeros(len(codes))
    train_part = splits.train_and_valid
    for part in (splits.test, train_part):
        table = _mean_table(*((codes[part], labels[part]) if per_part else (codes, labels)))
        per_row[part] = _look_up(codes[part], *table, prior=np.nan)
    return *table, float(np.mean(labels[train_part])), per_row


def _cross_fitted_means(codes, labels, splits: Splits, seed: int, twins: Twins | None = None) -> Means:
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import TargetEncoder

    def fit(rows: np.ndarray) -> TargetEncoder:
        return TargetEncoder(target_type="binary").fit(codes[rows, None], labels[rows])

    per_row, train = np.zeros(len(codes)), splits.train
    folds = KFold(n_splits=min(5, len(train)), shuffle=True, random_state=seed).split(train)
    if twins is not None and len(twins.rows):
        # A twin in another fold would tell a row its own label: the folds are of groups.
        groups, group_of_row = np.unique(twins.groups(len(codes))[train], return_inverse=True)
        of_groups = KFold(n_splits=min(5, len(groups)), shuffle=True, random_state=seed).split(groups)
        folds = [tuple(np.flatnonzero(np.isin(group_of_row, part)) for part in fold) for fold in of_groups]
    # A training row is given the means of the folds it is not in, so not its own label. (TargetEncoder's own
    # fit_transform does the same, but takes folds like these from scikit-learn 1.9 on only.)
    for others, fold in folds:
        per_row[train[fold]] = fit(train[others]).transform(codes[train[fold], None])[:, 0]
    encoder = fit(train)
    table = np.asarray(encoder.categories_[0]), np.asarray(encoder.encodings_[0])
    prior = float(encoder.target_mean_)
    for part in (splits.valid, splits.test):
        per_row[part] = _look_up(codes[part], *table, prior)
    return *table, prior, per_row


def _earlier_means(codes, labels, times, splits: Splits) -> Means:
    per_row = np.zeros(len(codes))
    train = splits.train
    prior = _smoothed(*_sums_before(np.zeros(len(train), dtype=np.int64), labels[train], times[train]), 0.5)
    per_row[train] = _smoothed(*_sums_before(codes[train], labels[train], times[train]), prior)
    # Valid and test rows see the statistics as they stood at the end of the training rows.
    final_prior = float(np.mean(labels[train]))
    counts, sums = np.bincount(codes[train]), np.bincount(codes[train], weights=labels[train])
    seen = np.flatnonzero(counts)
    means = _smoothed(sums[seen], counts[seen], final_prior)
    for part in (splits.valid, splits.test):
        per_row[part] = _look_up(codes[part], seen, means, final_prior)
    return seen, means, final_prior, per_row


def _smoothed(sums: np.ndarray, counts: np.ndarray, prior: np.ndarray | float) -> np.ndarray:
    return (sums + TEMPORAL_SMOOTHING * prior) / (counts + TEMPORAL_SMOOTHING)


def _sums_before(codes: np.ndarray, labels: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the sum and the number of the labels of its code at strictly earlier times."""
    order = np.lexsort((times, codes))
    sorted_codes, sorted_times = codes[order], times[order]
    running = np.concatenate([[0.0], np.cumsum(labels[order], dtype=np.float64)])
    position = np.arange(len(order))
    new_code = np.append(True, sorted_codes[1:] != sorted_codes[:-1])
    new_time = new_code | np.append(True, sorted_times[1:] != sorted_times[:-1])
    # Rows of one code at one time do not see each other: all of them look back from the first of them.
    first_of_code = np.maximum.accumulate(np.where(new_code, position, 0))
    first_of_time = np.maximum.accumulate(np.where(new_time, position, 0))
    sums, counts = np.empty(len(order)), np.empty(len(order))
    sums[order] = running[first_of_time] - running[first_of_code]
    counts[order] = first_of_time - first_of_code
    return sums, counts
