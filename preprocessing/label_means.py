"""The mean label of a user or an item, as far as a protocol (preprocessing/protocols.py) lets a row see it."""

import numpy as np
import pandas as pd

from preprocessing.earlier import Earlier
from preprocessing.encode import MeanField, MinMaxScaler, smoothed
from preprocessing.pairs import Twins
from preprocessing.protocols import Splits


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
    from sklearn.preprocessing import TargetEncoder

    def fit(rows: np.ndarray) -> TargetEncoder:
        return TargetEncoder(target_type="binary").fit(codes[rows, None], labels[rows])

    per_row, train = np.zeros(len(codes)), splits.train
    # A training row is given the means of the folds it is not in, so not its own label. (TargetEncoder's own
    # fit_transform does the same, but takes folds like these from scikit-learn 1.9 on only.)
    for others, fold in folds_of(train, len(codes), seed, twins):
        per_row[fold] = fit(others).transform(codes[fold, None])[:, 0]
    encoder = fit(train)
    table = np.asarray(encoder.categories_[0]), np.asarray(encoder.encodings_[0])
    prior = float(encoder.target_mean_)
    for part in (splits.valid, splits.test):
        per_row[part] = _look_up(codes[part], *table, prior)
    return *table, prior, per_row


def folds_of(train: np.ndarray, num_rows: int, seed: int, twins: Twins | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Five times the training rows outside a fold and those in it; twins of the dataset's rows share a fold."""
    from sklearn.model_selection import KFold

    folds = KFold(n_splits=min(5, len(train)), shuffle=True, random_state=seed).split(train)
    if twins is not None and len(twins.rows):
        # A twin in another fold would tell a row its own label: the folds are of groups.
        groups, group_of_row = np.unique(twins.groups(num_rows)[train], return_inverse=True)
        of_groups = KFold(n_splits=min(5, len(groups)), shuffle=True, random_state=seed).split(groups)
        folds = [tuple(np.flatnonzero(np.isin(group_of_row, part)) for part in fold) for fold in of_groups]
    return [(train[others], train[fold]) for others, fold in folds]


def _earlier_means(codes, labels, times, splits: Splits) -> Means:
    per_row = np.zeros(len(codes))
    train = splits.train
    of_all, of_code = (Earlier(c, times[train]) for c in (np.zeros(len(train), dtype=np.int64), codes[train]))
    prior = smoothed(of_all.sums(labels[train]), of_all.counts(), 0.5)
    per_row[train] = smoothed(of_code.sums(labels[train]), of_code.counts(), prior)
    # Valid and test rows see the statistics as they stood at the end of the training rows.
    final_prior = float(np.mean(labels[train]))
    counts, sums = np.bincount(codes[train]), np.bincount(codes[train], weights=labels[train])
    seen = np.flatnonzero(counts)
    means = smoothed(sums[seen], counts[seen], final_prior)
    for part in (splits.valid, splits.test):
        per_row[part] = _look_up(codes[part], seen, means, final_prior)
    return seen, means, final_prior, per_row
