"""The three evaluation protocols: how rows are split, and what a row may know of labels.

paper     random 80/20; label means as the released code takes them, over the very rows being scored. LABELS LEAK.
strict    random 80/20; label means from training rows only, cross-fitted for the training rows themselves.
temporal  first 80 % / last 20 % by time; a training row's means come from strictly earlier rows only.

Validation is 10 % of the training part: random under paper and strict, the last by time under temporal.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder

from preprocessing.encode import MeanField, MinMaxScaler, look_up
from preprocessing.errors import UserError

PROTOCOLS = ("strict", "paper", "temporal")

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


def split_rows(protocol: str, times: np.ndarray, seed: int) -> Splits:
    """Deal the rows out by the protocol's rule; raises UserError where a split would be empty."""
    num_rows = len(times)
    if protocol == "temporal":
        order = np.argsort(times, kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(num_rows)
    num_test = round(num_rows * TEST_SHARE)
    num_valid = round((num_rows - num_test) * VALID_SHARE)
    bounds = [num_rows - num_test - num_valid, num_rows - num_test]
    splits = Splits(*np.split(order, bounds))
    for name in ("train", "valid", "test"):
        if len(getattr(splits, name)) == 0:
            raise UserError(f"{name} split: expected at least one row, got none of {num_rows} ratings; give more data.")
    return splits


def check_both_classes(labels: np.ndarray, splits: Splits) -> None:
    """Raise UserError where a split holds one class only: AUC is not defined there."""
    for name in ("train", "valid", "test"):
        found = np.unique(labels[getattr(splits, name)]).tolist()
        if len(found) < 2:
            got = f"only {found[0]}" if found else "no row that the protocol keeps"
            raise UserError(f"{name} split: expected labels 0 and 1, got {got}; give more data.")


def drop_users_without_positive(users: np.ndarray, labels: np.ndarray, splits: Splits) -> Splits:
    """What the released code does by an inner join: users with no positive label in a part vanish from it."""

    def keep(part: np.ndarray, among: np.ndarray) -> np.ndarray:
        positive = np.unique(users[among][labels[among] == 1])
        return part[np.isin(users[part], positive)]

    train_part = splits.train_and_valid
    return Splits(keep(splits.train, train_part), keep(splits.valid, train_part), keep(splits.test, splits.test))


def label_means(
    protocol: str,
    name: str,
    key: str,
    keys: np.ndarray,
    labels: np.ndarray,
    times: np.ndarray,
    splits: Splits,
    seed: int,
) -> tuple[MeanField, np.ndarray]:
    """The mean label of each row's key, as far as the protocol lets the row see it.

    Args:
        name, key: the feature's name and the raw column of its key.
        keys, labels, times: one entry per row of the data.
    Returns:
        the field that gives the statistic of the training rows to any raw key, and the scaled feature of every
        row, (N,) float32; rows that are in no split hold no meaning.
    """
    if protocol == "paper":
        table, prior, per_row = _released_means(keys, labels, splits)
    elif protocol == "strict":
        table, prior, per_row = _cross_fitted_means(keys, labels, splits, seed)
    else:
        table, prior, per_row = _earlier_means(keys, labels, times, splits)
    # As released, under paper: the scaler is fitted again on test, and that fit is applied to train too.
    scaler = MinMaxScaler.fit(per_row[splits.test if protocol == "paper" else splits.train])
    return MeanField(name, key, *table, prior, scaler), scaler.transform(per_row)


# Each of the three below gives the mean of every training key, the prior for other keys, and each row's own value.
MeanTable = tuple[pd.Index, np.ndarray]


def _mean_table(keys: np.ndarray, labels: np.ndarray) -> MeanTable:
    means = pd.Series(labels).groupby(keys).mean()
    return means.index, means.to_numpy(np.float64)


def _released_means(keys, labels, splits: Splits) -> tuple[MeanTable, float, np.ndarray]:
    per_row = np.zeros(len(keys))
    train_part = splits.train_and_valid
    for part in (splits.test, train_part):
        table = _mean_table(keys[part], labels[part])
        per_row[part] = look_up(keys[part], *table, prior=np.nan)
    return table, float(np.mean(labels[train_part])), per_row


def _cross_fitted_means(keys, labels, splits: Splits, seed: int) -> tuple[MeanTable, float, np.ndarray]:
    per_row = np.zeros(len(keys))
    folds = KFold(n_splits=min(5, len(splits.train)), shuffle=True, random_state=seed)
    encoder = TargetEncoder(target_type="binary", cv=folds)
    # fit_transform gives a training row the means of the folds it is not in, so not its own label.
    per_row[splits.train] = encoder.fit_transform(keys[splits.train, None], labels[splits.train])[:, 0]
    table = pd.Index(encoder.categories_[0]), np.asarray(encoder.encodings_[0])
    prior = float(encoder.target_mean_)
    for part in (splits.valid, splits.test):
        per_row[part] = look_up(keys[part], *table, prior)
    return table, prior, per_row


def _earlier_means(keys, labels, times, splits: Splits) -> tuple[MeanTable, float, np.ndarray]:
    per_row = np.zeros(len(keys))
    train = splits.train
    prior = _smoothed(*_sums_before(np.zeros(len(train), dtype=np.int64), labels[train], times[train]), 0.5)
    per_row[train] = _smoothed(*_sums_before(keys[train], labels[train], times[train]), prior)
    # Valid and test rows see the statistics as they stood at the end of the training rows.
    final_prior = float(np.mean(labels[train]))
    grouped = pd.Series(labels[train], dtype=np.float64).groupby(keys[train]).agg(["sum", "count"])
    means = _smoothed(grouped["sum"].to_numpy(), grouped["count"].to_numpy(), final_prior)
    for part in (splits.valid, splits.test):
        per_row[part] = look_up(keys[part], grouped.index, means, final_prior)
    return (grouped.index, means), final_prior, per_row


def _smoothed(sums: np.ndarray, counts: np.ndarray, prior: np.ndarray | float) -> np.ndarray:
    return (sums + TEMPORAL_SMOOTHING * prior) / (counts + TEMPORAL_SMOOTHING)


def _sums_before(keys: np.ndarray, labels: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the sum and the number of the labels of its key at strictly earlier times."""
    order = np.lexsort((times, keys))
    sorted_keys, sorted_times = keys[order], times[order]
    running = np.concatenate([[0.0], np.cumsum(labels[order], dtype=np.float64)])
    position = np.arange(len(order))
    new_key = np.append(True, sorted_keys[1:] != sorted_keys[:-1])
    new_time = new_key | np.append(True, sorted_times[1:] != sorted_times[:-1])
    # Rows of one key at one time do not see each other: all of them look back from the first of them.
    first_of_key = np.maximum.accumulate(np.where(new_key, position, 0))
    first_of_time = np.maximum.accumulate(np.where(new_time, position, 0))
    sums, counts = np.empty(len(order)), np.empty(len(order))
    sums[order] = running[first_of_time] - running[first_of_key]
    counts[order] = first_of_time - first_of_key
    return sums, counts
