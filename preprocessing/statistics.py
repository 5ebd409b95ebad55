"""Statistics of labels besides the plain means: how far a user's labels lie above what their items get, and such.

    mean      of the labels of a user's rows (or an item's).
    residual  the mean of what is left of those labels: a user's without the items' means, an item's without the users'.
    count     of the rows that the other two are made of: how much is known. It enters as log(1 + count).

With `by`, a column of the other tower, a statistic has one number for each of that column's values, as a user's
residual on each genre. It is a vector of its own tower, so a two-tower model can take it. Means are drawn towards the
prior where there are few labels (encode.SMOOTHING); a residual's prior is 0.

What a row may know:

strict    residuals and counts are cross-fitted as means are: a training row's come from the folds it is not in, all
          others' from the training rows.
temporal  a training row's come from strictly earlier rows; valid rows' from train, test rows' from train and valid.
online    users know every label, of valid and test too, of a strictly earlier row that is at least `label_delay`
          seconds old. Items are as under temporal, but that labels of training rows come as late to them.

Of an event under temporal and online, the residual is taken from the other side's mean as that event's own row knows
it: a live system can add it up when the label comes.

Shapes: N rows, E events (rows whose labels are known), U users or items, D numbers of a statistic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from preprocessing.choices import BY_TIME, STATISTICS
from preprocessing.earlier import Earlier
from preprocessing.encode import FIRST_ID, CounterField, MeanField, MinMaxScaler, smoothed
from preprocessing.errors import UserError
from preprocessing.known import Known
from preprocessing.label_means import folds_of
from preprocessing.pairs import Twins
from preprocessing.protocols import Splits, units_per_second

OTHER = {"user": "item", "item": "user"}
MEASURES = ("mean", "residual", "count")
RESOLUTION = 2.0**-24  # of residuals: their sums are exact then, in whatever order they are added up


@dataclass(frozen=True)
class Statistic:
    """A field made of labels; see above."""

    measure: str  # of MEASURES
    by: str | None = None


@dataclass(frozen=True)
class Cross:
    """A field of two or more raw columns, as one: a CrossField."""

    sources: tuple[str, ...]


def with_statistics(
    protocol: str,
    statistics: str,
    user_fields: dict,
    item_fields: dict,
    item_values: str | None = None,
    user_groups: tuple[str, ...] = (),
) -> tuple[dict, dict]:
    """Both towers' fields with what a set of statistics adds to them.

    Args:
        statistics: "means" adds nothing. "residuals" adds the residuals and counts of users and items, and the means
            where the data have none. "crossed" adds to these the users' residuals by the items' field `item_values`,
            and the items' by the users' fields `user_groups`.
    Raises UserError where `paper`, which knows means alone, is to have others.
    """
    if statistics not in STATISTICS:
        raise UserError(f"statistics: expected one of {', '.join(STATISTICS)}, got {statistics!r}.")
    if protocol == "paper" and statistics != "means":
        raise UserError(f"statistics: expected means under the protocol paper, got {statistics}; choose another one.")
    if statistics == "means":
        return user_fields, item_fields
    towers = {"user": dict(user_fields), "item": dict(item_fields)}
    for tower, fields in towers.items():
        for name, kind in fields.items():
            if kind is MeanField and protocol in BY_TIME:
                fields[name] = Statistic("mean")
        if not {MeanField, Statistic("mean")} & set(fields.values()):  # what residuals are taken from
            fields[f"{tower}_mean"] = Statistic("mean") if protocol in BY_TIME else MeanField
        fields |= {f"{tower}_residual": Statistic("residual"), f"{tower}_count": Statistic("count")}
    if statistics == "crossed" and item_values:
        towers["user"][f"user_residual_by_{item_values}"] = Statistic("residual", item_values)
    if statistics == "crossed" and user_groups:
        group = "_".join(user_groups)
        if len(user_groups) > 1:
            towers["user"][group] = Cross(user_groups)
        towers["item"][f"item_residual_by_{group}"] = Statistic("residual", group)
    return towers["user"], towers["item"]


def shaping(protocol: str, statistics: str, label_delay: float, known: Known | None = None) -> dict:
    """What a fingerprint of the data has to say of these settings; nothing where they are as they always were."""
    shaped_by = {} if statistics == "means" else {"statistics": statistics}
    shaped_by |= {"known": known.checksum} if known else {}
    return shaped_by | ({"label_delay": label_delay} if protocol == "online" else {})


@dataclass
class Side:
    """The users, or the items, of a dataset."""

    keys: pd.Series  # (U,) raw ids, named after their column
    of_row: np.ndarray  # (N,) places in `keys`


@dataclass
class Part:
    """Rows, and the events that they know; where `earlier` is given, of those the ones before each row."""

    rows: np.ndarray
    events: np.ndarray
    earlier: Earlier | None = None


def residuals(labels: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Labels without the means of the other side, rounded to RESOLUTION."""
    return np.round((labels - means) / RESOLUTION) * RESOLUTION


class Statistics:
    """The statistics of one dataset under one protocol.

    Args:
        sides: by tower.
        labels, times: (N,).
        seed: of the folds.
        label_delay: in seconds, of online.
    """

    def __init__(
        self,
        protocol: str,
        sides: dict[str, Side],
        labels: np.ndarray,
        times: np.ndarray,
        splits: Splits,
        seed: int = 0,
        twins: Twins | None = None,
        label_delay: float = 0.0,
    ):
        self.sides, self.labels, self.times, self.splits = sides, labels.astype(np.float64), times, splits
        self.is_random = protocol in ("strict", "paper")
        self.delay = label_delay * units_per_second(times) if protocol == "online" else 0.0
        if self.is_random:
            crossed = [Part(fold, others) for others, fold in folds_of(splits.train, len(labels), seed, twins)]
            later = np.concatenate([splits.valid, splits.test])
            # What a field keeps is what the last part knows.
            self.parts = {tower: [*crossed, Part(later, splits.train)] for tower in sides}
            return
        train, valid, test, both = splits.train, splits.valid, splits.test, splits.train_and_valid
        self.parts = {
            tower: [Part(train, train, self._earlier(side, train)), Part(valid, train), Part(test, both)]
            for tower, side in sides.items()
        }
        if protocol == "online":
            every = np.concatenate([both, test])
            running = Part(every, every, self._earlier(sides["user"], every))
            self.parts["user"] = [running, Part(np.zeros(0, dtype=np.int64), both)]

    def _earlier(self, side: Side, rows: np.ndarray) -> Earlier:
        return Earlier(side.of_row[rows], self.times[rows], self.delay)

    def fit(
        self, tower: str, name: str, statistic: Statistic, ids: np.ndarray | None = None, num_values: int = 1
    ) -> tuple[CounterField, np.ndarray]:
        """The field of a statistic, and the scaled feature of every row, (N, D) float32.

        Args:
            ids: with `by`, that column of the other tower's users or items, (U,) or (U, T), of `num_values` values.
        """
        prior, prior_of_row = self.priors if statistic.measure == "mean" else (0.0, 0.0)
        values_of = self._values(tower, statistic.measure)
        features = np.empty((len(self.labels), num_values))
        num_keys, rms = len(self.sides[tower].keys), _RootMeanSquare()
        kept_sums, kept_counts = np.empty((num_keys, num_values)), np.empty((num_keys, num_values))
        for place, indicator in enumerate(_indicators(ids, num_values)):
            sums, counts, (kept_sums[:, place], kept_counts[:, place]) = self._collect(tower, values_of, indicator)
            of_row = np.log1p(counts) if statistic.measure == "count" else smoothed(sums, counts, prior_of_row)
            features[:, place] = of_row
            train = self.splits.train
            rms.add(of_row[train][counts[train] > 0])
        scaler = self._scaler(statistic.measure, features[self.splits.train], rms.value())
        seen = np.flatnonzero(kept_counts.any(axis=1))
        key = self.sides[tower].keys
        field = CounterField(
            *(name, key.name, pd.Index(key.iloc[seen]), statistic.measure, statistic.by),
            *(kept_counts[seen], kept_sums[seen], prior, scaler),
        )
        return field, scaler.transform(features)

    @staticmethod
    def _scaler(measure: str, of_train: np.ndarray, rms: float) -> MinMaxScaler:
        if measure == "residual":
            return MinMaxScaler(0.0, rms)  # where nothing is known it stays 0
        return MinMaxScaler(0.0 if measure == "count" else float(of_train.min()), float(of_train.max()))

    def _values(self, tower: str, measure: str) -> Callable[[Part], np.ndarray]:
        """What is summed over the events of a part, (E,)."""
        if measure != "residual":
            return lambda part: self.labels[part.events]
        if not self.is_random:
            of_row = residuals(self.labels, self._mean_of_row(OTHER[tower]))
            return lambda part: of_row[part.events]

        def without_the_own_label(part: Part) -> np.ndarray:
            codes, labels = self.sides[OTHER[tower]].of_row[part.events], self.labels[part.events]
            sums, counts = np.bincount(codes, weights=labels), np.bincount(codes)
            return residuals(labels, smoothed(sums[codes] - labels, counts[codes] - 1, labels.mean()))

        return without_the_own_label

    def _mean_of_row(self, tower: str) -> np.ndarray:
        """(N,) the mean that each row knows of its user (or item), under temporal and online."""
        sums, counts, _ = self._collect(tower, self._values(tower, "mean"), None)
        return smoothed(sums, counts, self.priors[1])

    @cached_property
    def priors(self) -> tuple[float, np.ndarray]:
        """The mean of the labels that a field keeps, and of those that each row knows of train and valid, (N,)."""
        of_row, splits = np.full(len(self.labels), np.nan), self.splits
        if self.is_random:
            for part in self.parts["item"]:
                of_row[part.rows] = self.labels[part.events].mean()
            return float(self.labels[splits.train].mean()), of_row
        train = splits.train
        of_all = Earlier(np.zeros(len(train), dtype=np.int64), self.times[train], self.delay)
        of_row[train] = smoothed(of_all.sums(self.labels[train]), of_all.counts(), 0.5)
        of_row[splits.valid] = self.labels[train].mean()
        of_row[splits.test] = kept = self.labels[splits.train_and_valid].mean()
        return float(kept), of_row

    def _collect(self, tower: str, values_of: Callable[[Part], np.ndarray], indicator: np.ndarray | None) -> tuple:
        """Sums and counts of the events that each row knows, (N,), and both of all that a field keeps, (U,) each."""
        side, other = self.sides[tower], self.sides[OTHER[tower]]
        sums, counts, kept = np.zeros(len(self.labels)), np.zeros(len(self.labels)), None
        for part in self.parts[tower]:
            values, counted = values_of(part), np.ones(len(part.events))
            if indicator is not None:
                counted = indicator[other.of_row[part.events]].astype(np.float64)
                values = values * counted
            if part.earlier is not None:
                sums[part.rows], counts[part.rows] = part.earlier.sums(values), part.earlier.sums(counted)
                continue
            codes = side.of_row[part.events]
            kept = [np.bincount(codes, weights=weights, minlength=len(side.keys)) for weights in (values, counted)]
            sums[part.rows], counts[part.rows] = (of_key[side.of_row[part.rows]] for of_key in kept)
        return sums, counts, kept


class _RootMeanSquare:
    def __init__(self):
        self.sum, self.count = 0.0, 0

    def add(self, values: np.ndarray) -> None:
        self.sum, self.count = self.sum + float(np.sum(values**2)), self.count + len(values)

    def value(self) -> float:
        return (self.sum / self.count) ** 0.5 if self.count else 1.0


def _indicators(ids: np.ndarray | None, num_values: int) -> Iterator[np.ndarray | None]:
    """For each value of a column, which of the users or items have it, (U,) bool; without one, a single None."""
    if ids is None:
        yield None
        return
    ids = ids.reshape(len(ids), -1)
    for value in range(FIRST_ID, FIRST_ID + num_values):
        yield (ids == value).any(axis=1)
