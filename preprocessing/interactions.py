"""Rows that name a user and an item, cleaned by a dataset's own module, into three encoded splits.

What is known of a user or an item is encoded once and looked up by the rows that name it: the encoded table of 26
million rows holds two numbers a row beside what belongs to the row itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from preprocessing import space
from preprocessing.check_interactions import check_interactions, check_settings
from preprocessing.choices import BY_TIME, PROTOCOLS
from preprocessing.earlier import Earlier
from preprocessing.encode import FIRST_ID, CrossField, MeanField, MissingField, NumberField, TowerEncoder
from preprocessing.errors import UserError
from preprocessing.known import Known
from preprocessing.label_means import label_means
from preprocessing.pairs import Pairs, Twins, find_twins
from preprocessing.protocols import (
    TEST,
    TRAIN,
    check_both_classes,
    check_times,
    count_repeated_test_rows,
    drop_users_without_positive,
    split_of_rows,
    split_rows,
)
from preprocessing.space import Column, InMemory, blocks
from preprocessing.statistics import Cross, Side, Statistic, Statistics
from preprocessing.tables import SPLITS, Dataset, Lookup, Table, tensor_of

# A tower's fields in the order of its columns: each name with its kind. The first is the id.
Fields = dict[str, type | Statistic | Cross]


@dataclass
class Coded:
    """A raw column of rows, by its distinct values."""

    values: pd.Series  # (V,)
    of_row: np.ndarray | Column  # (N,) places in `values`; -1 for a missing value


@dataclass
class Interactions:
    """Raw rows and the tables they point into.

    Columns that belong to a row itself, such as the place where an ad was shown, stand in `context`. A list, or a
    column of pandas, is taken for an array in its order, whatever its index says. Where the build of a cache is to keep
    to little memory, the (N,) arrays are Columns of its `space` (preprocessing/space.py).
    """

    name: str  # of the dataset
    users: pd.DataFrame  # a row per user
    items: pd.DataFrame  # a row per item
    user_of_row: np.ndarray  # (N,) places in `users`
    item_of_row: np.ndarray  # (N,) places in `items`
    labels: np.ndarray  # (N,) int8 in {0, 1}
    times: np.ndarray  # (N,) in one unit, whichever
    rows: np.ndarray  # (N,) places in the raw file, from 0
    context: dict[str, pd.Series | Coded] = field(default_factory=dict)  # each (N,)
    probabilities: np.ndarray | None = None  # (N,) of label 1; synthetic data only
    counts: dict[str, int] = field(default_factory=dict)
    file: str = ""  # that holds the rows, for messages
    space: InMemory = field(default_factory=InMemory)

    def __post_init__(self):
        for name in ("user_of_row", "item_of_row", "labels", "times", "rows", "probabilities"):
            setattr(self, name, _in_their_order(getattr(self, name)))
        self.context = {
            name: column if isinstance(column, Coded) else pd.Series(column) for name, column in self.context.items()
        }


def _in_their_order(values) -> np.ndarray | Column | None:
    """Values of rows as an array, those of pandas by their places and not by their index."""
    if values is None or isinstance(values, np.ndarray | Column):
        return values
    series = pd.Series(values)
    if isinstance(series.dtype, pd.api.extensions.ExtensionDtype) and not series.hasnans:
        dtype = getattr(series.dtype, "numpy_dtype", None)  # of Int64 and such, which else becomes one of objects
        return series.to_numpy() if dtype is None else series.to_numpy(dtype)
    return series.to_numpy()


def check_protocol(protocol: str) -> None:
    """Raise UserError for a protocol that does not exist."""
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}.")


def pairs_of(raw: Interactions, user_fields: Fields, item_fields: Fields) -> Pairs:
    """Whom and what each row names, by the first field of each tower."""
    user_ids, item_ids = raw.users[next(iter(user_fields))], raw.items[next(iter(item_fields))]
    return Pairs(raw.user_of_row, raw.item_of_row, user_ids, item_ids)


def data_fingerprint(raw_sha256: str, **settings) -> str:
    """sha256 over the raw files and the settings that shape the splits, in hex."""
    return hashlib.sha256(json.dumps([raw_sha256, {**settings, "format": 1}], sort_keys=True).encode()).hexdigest()


def encode_interactions(
    raw: Interactions,
    user_fields: Fields,
    item_fields: Fields,
    protocol: str,
    split_seed: int,
    embedding_dim: int,
    fingerprint: str,
    released_per_part: bool = True,
    strict_data: bool = False,
    label_delay: float = 0.0,
    known: Known | None = None,
) -> Dataset:
    """Split the rows by the protocol, fit what is learned from data on the training rows, encode all rows.

    A vocabulary, a scaler or a missing number's stand-in is fitted on the users and items that training rows name.
    Rows that repeat another of the same user, item and time are counted and said, and go to its split. Those that
    repeat a pair at another time, as of an ad that is shown again, are dealt out as any others; where such a row of
    test has the label of one in train, it is counted.

    Args:
        released_per_part: of `paper`: label means and the users without a positive label are found within train
            and test, as the released code does for MovieLens; else over all rows, as it does for Amazon.
        strict_data: refuse rows that repeat another of the same user, item and time.
        label_delay: of online, the seconds until a label is known.
        known: of an earlier run, whose vocabularies these only add to.
    Raises UserError where a split would be empty or hold one class only, for a seed, dimension or delay that is none,
    for what check_interactions refuses, for times of several units, and where memory is bounded to less than the rows
    take.
    """
    check_protocol(protocol)
    check_settings(protocol, split_seed, embedding_dim, label_delay)
    check_interactions(raw, user_fields, item_fields)
    raw.space.check(len(raw.labels))
    check_times(protocol, raw.times, raw.file or raw.name)
    if protocol == "online":  # the mean of each moment is a statistic like the others
        user_fields, item_fields = (
            {name: Statistic("mean") if kind is MeanField else kind for name, kind in fields.items()}
            for fields in (user_fields, item_fields)
        )
    pairs = pairs_of(raw, user_fields, item_fields)
    twins = find_twins(pairs, raw.times, raw.space)
    labels_leak = protocol == "paper" and MeanField in (*user_fields.values(), *item_fields.values())
    counts = _count_twins(raw, pairs, twins, strict_data)
    splits = split_rows(protocol, raw.times, split_seed, pairs, twins, raw.space)
    if labels_leak:
        splits = drop_users_without_positive(raw.user_of_row, raw.labels, splits, released_per_part)
        counts["rows_dropped_of_users_without_positive"] = len(raw.labels) - sum(map(len, vars(splits).values()))
    check_both_classes(raw.labels, splits)
    split_of_row = split_of_rows(splits, len(raw.labels))
    counts["test_rows_with_pair_and_label_in_train"] = count_repeated_test_rows(
        pairs, raw.labels, split_of_row, raw.space
    )

    # A feature's values, and the tower whose users or items they belong to, or None: then each row has its own, or the
    # context says which of them it has.
    fitted, features = {}, {}
    context = {name: _coded(column) for name, column in raw.context.items()}
    grown = known.grown if known else lambda tower, field: field
    towers = {
        "user": (raw.users, raw.user_of_row, user_fields),
        "item": (raw.items, raw.item_of_row, item_fields),
    }
    for tower, (frame, of_row, fields) in towers.items():
        in_train, in_test = (frame[_occurring(of_row, split_of_row, split, len(frame))] for split in (TRAIN, TEST))
        counts[f"{tower}s_in_train"] = len(in_train)
        for name, kind in fields.items():
            if isinstance(kind, Statistic):
                continue
            if kind is MeanField:
                key = frame[next(iter(fields))]
                fitted[name], values = label_means(
                    protocol, name, key, of_row, raw.labels, raw.times, splits, split_seed, released_per_part, twins
                )
                features[name] = values[:, None], None
            elif kind is NumberField:
                # As released, under paper: the scaler is fitted on test, and prices are taken as they are.
                scaled_on = in_test if protocol == "paper" else in_train
                fitted[name] = NumberField.fit(name, in_train[name], scaled_on[name], log=protocol != "paper")
                features[name] = fitted[name].encode(frame), tower
            elif kind is MissingField:
                fitted[name] = MissingField(name, name.removesuffix(MissingField.SUFFIX))
                features[name] = fitted[name].encode(frame), tower
            elif isinstance(kind, Cross):
                fitted[name] = grown(tower, CrossField.fit(name, in_train[list(kind.sources)]))
                features[name] = fitted[name].encode(frame), tower
            elif name in raw.context:
                values, codes = context[name].values, context[name].of_row
                occurs = _occurring(codes, split_of_row, TRAIN, len(values) + 1)[:-1]  # a missing one's -1 is the last
                fitted[name] = grown(tower, kind.fit(name, values[occurs]))
                features[name] = fitted[name].encode({name: pd.Series([*values, None], dtype=object)}), None
            else:
                fitted[name] = grown(tower, kind.fit(name, in_train[name]))
                features[name] = fitted[name].encode(frame), tower
    if any(isinstance(kind, Statistic) for _, _, fields in towers.values() for kind in fields.values()):
        sides = {tower: Side(frame[next(iter(fields))], of_row) for tower, (frame, of_row, fields) in towers.items()}
        of_labels = Statistics(protocol, sides, raw.labels, raw.times, splits, split_seed, twins, label_delay)
        for tower, name, kind in (
            (t, name, kind) for t, (*_, fields) in towers.items() for name, kind in fields.items()
        ):
            if not isinstance(kind, Statistic):
                continue
            ids, num_values = None, 1
            if kind.by:
                ids = features[kind.by][0]
                num_values = fitted[kind.by].column(embedding_dim).vocabulary_size - FIRST_ID
            if num_values:  # none: a column without a value, as the categories of items that have none
                fitted[name], values = of_labels.fit(tower, name, kind, ids, num_values)
                features[name] = values, None
    encoders = {
        tower: TowerEncoder([fitted[n] for n in fields if n in fitted]) for tower, (*_, fields) in towers.items()
    }

    def dealt(column: np.ndarray | Column, of_values=lambda values: values, names=SPLITS) -> dict[str, np.ndarray]:
        """What is made of a column's values, in the order of each split."""
        values, found = column[:], {}  # of a Column, the one that is in memory
        for split in names:
            rows, kept = getattr(splits, split), raw.space.column(kept=True)
            for block in blocks(len(rows)):
                kept.append(of_values(values[rows[block]]))
            found[split] = kept.finish()
        return found

    shared = {name: tensor_of(values) for name, (values, tower) in features.items() if tower}
    index = {
        tower: dealt(of_row, lambda places: places.astype(np.int32, copy=False))
        for tower, (_, of_row, _) in towers.items()
    }
    by_row = {
        name: dealt(context[name].of_row, values.__getitem__) if name in context else dealt(values)
        for name, (values, tower) in features.items()
        if not tower
    }
    labels, rows = dealt(raw.labels, lambda labels: labels.astype(np.float32)), dealt(raw.rows)

    def table(split: str) -> Table:
        places = {tower: tensor_of(of_split[split]) for tower, of_split in index.items()}
        return Table(
            features={
                name: Lookup(shared[name], places[tower]) if tower else tensor_of(by_row[name][split])
                for name, (_, tower) in features.items()
            },
            labels=tensor_of(labels[split]),
            groups=index["user"][split],
            rows=rows[split],
        )

    tables = {split: table(split) for split in SPLITS}
    return Dataset(
        name=raw.name if raw.probabilities is None else f"{raw.name}-synthetic",
        protocol=protocol,
        labels_leak=labels_leak,
        **tables,
        user_encoder=encoders["user"],
        item_encoder=encoders["item"],
        fingerprint=fingerprint,
        counts=raw.counts | {name: len(rows) for name, rows in vars(splits).items()} | counts,
        probabilities=None if raw.probabilities is None else dealt(raw.probabilities, names=["test"])["test"],
        earlier=_earlier_of_test(raw, split_of_row, tables["test"].groups) if protocol in BY_TIME else None,
        embedding_dim=embedding_dim,
    )


def _coded(column: pd.Series | Coded) -> Coded:
    if isinstance(column, Coded):
        return column
    of_row, values = pd.factorize(column)
    return Coded(pd.Series(values), of_row)


def _count_twins(raw: Interactions, pairs: Pairs, twins: Twins, strict_data: bool) -> dict[str, int]:
    """Count and say what repeats another row, and what of it has another label; with strict_data, refuse it."""
    contradict = np.flatnonzero(raw.labels[twins.rows] != raw.labels[twins.first])
    counts = {"rows_that_repeat_another": len(twins.rows), "rows_that_contradict_another": len(contradict)}
    if not len(twins.rows):
        return counts

    def example(place: int) -> str:
        row, first = twins.rows[place], twins.first[place]
        ((user, item),) = pairs.ids(np.array([row])).itertuples(index=False)
        named = f"{pairs.user_ids.name} {user}, {pairs.item_ids.name} {item}, time {raw.times[row]}"
        return f"rows {raw.rows[first] + 1:,} and {raw.rows[row] + 1:,}: {named}"

    where = raw.file or raw.name
    if strict_data:
        contradicting = f", {len(contradict):,} of them with another label" if len(contradict) else ""
        raise UserError(
            f"{where}: expected each user, item and time once, got {len(twins.rows):,} of {len(raw.labels):,} rows "
            f"that repeat another ({example(contradict[0] if len(contradict) else 0)}){contradicting}; remove them, or "
            "leave out --strict-data to keep them, twins in one split."
        )
    print(
        f"{where}: {len(twins.rows):,} of {len(raw.labels):,} rows repeat another of the same user, item and time "
        f"({example(0)}); they stay in, twins in one split.",
        flush=True,
    )
    if len(contradict):
        print(
            f"{where}: {len(contradict):,} of the repeated rows contradict the first of them by another label "
            f"({example(contradict[0])}).",
            flush=True,
        )
    return counts


def _earlier_of_test(raw: Interactions, split_of_row: np.ndarray, users: np.ndarray) -> np.ndarray:
    """(T,) how many rows the user of each test row had before it, where the order is that of time.

    Args:
        users: (T,) of the test rows.
    """
    num_earlier, times = np.zeros(len(raw.users), dtype=np.int64), []
    for block in blocks(len(split_of_row)):
        is_test = split_of_row[block] == TEST
        num_earlier += np.bincount(raw.user_of_row[block][~is_test], minlength=len(num_earlier))
        times.append(raw.times[block][is_test])
    times = np.sort(np.concatenate(times))  # which are those of `users`
    found, stop = np.empty(len(users), dtype=np.int32), 0
    while stop < len(users):
        # Rows of one time do not see each other, so none of them is left for the next block.
        start = stop
        last = min(start + space.BLOCK_ROWS, len(users)) - 1
        stop = int(np.searchsorted(times, times[last], side="right"))
        block = users[start:stop]
        found[start:stop] = num_earlier[block] + Earlier(block, times[start:stop]).counts()
        num_earlier += np.bincount(block, minlength=len(num_earlier))
    return found


def _occurring(places: np.ndarray, split_of_row: np.ndarray, split: int, size: int) -> np.ndarray:
    """(size,) True at each place that the rows of a split have."""
    occurs = np.zeros(size, dtype=bool)
    for block in blocks(len(places)):
        occurs[places[block][split_of_row[block] == split]] = True
    return occurs
