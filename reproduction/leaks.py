"""Whether labels leak: on labels dealt out at random, neither a feature nor a model may rank the test rows.

A model that has not seen the test labels is at AUC .5 on random ones. What is far from it was read off the features.

All rows of one user and item get one label, which a model may remember where training and test both have such rows.
That lies in the data and not in the protocol: these test rows are reported apart, and the others are judged.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from model.IntTower import IntTower
from preprocessing import alibaba, amazon, kuairand, movielens, sources
from preprocessing.choices import PROTOCOLS, STATISTICS
from preprocessing.encode import CounterField, MeanField
from preprocessing.errors import UserError
from preprocessing.interactions import Fields, Interactions, encode_interactions, pairs_of
from preprocessing.pairs import Twins, find_twins
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sample_kuairand import write_kuairand_sample
from preprocessing.sources import DATA_FOLDER, ENVIRONMENT_VARIABLE
from preprocessing.tables import Dataset
from reproduction.runs import FIRST_SEED, SOURCES
from training.generators import seed_everything
from training.metrics import auc
from training.trainer import Trainer

EPOCHS = 2
TOLERANCE = 0.01  # of AUC, or more where few test rows let chance go further
STANDARD_ERRORS = 4
SAMPLE_RATE, FULL_BYTES = 0.05, 2**28  # of Alibaba's users, where its file is large: a million rows say enough


@dataclass(frozen=True)
class Raw:
    """A dataset before it is split, and how its own module encodes it."""

    interactions: Interactions
    fields_of: Callable[[str, str], tuple[Fields, Fields]]  # of a protocol and a set of statistics
    released_per_part: bool = True


@dataclass(frozen=True)
class LeakCheck:
    """AUC on shuffled labels: of each feature made of labels taken alone, and of a model trained on them.

    Both are of the test rows that are judged: one of each user and item that training does not have at another time.
    """

    dataset: str
    protocol: str
    test_rows: int
    feature_aucs: dict[str, float]
    model_auc: float
    allowed: float  # distance from .5
    repeated_rows: int = 0  # of test, whose user and item training has at another time
    repeated_auc: float = math.nan  # of the model, on them
    overall_auc: float = math.nan  # of the model, on all test rows
    remembered_auc: float = 0.5  # on all test rows, of one that only remembers the labels of training

    @property
    def leaks(self) -> bool:
        """Whether anything is further from .5 than chance allows; a mean without the own label ranks in reverse."""
        return any(abs(auc - 0.5) > self.allowed for auc in (self.model_auc, *self.feature_aucs.values()))

    @property
    def verdict(self) -> str:
        """Whether labels leak, or are only there to be remembered."""
        if self.leaks:
            return "YES"
        return "to memory" if self.remembered_auc - 0.5 > self.allowed else "no"


def check_leaks(raw: Raw, protocol: str, seed: int = 7) -> LeakCheck:
    """Deal the labels of a dataset out anew, split and encode it by a protocol, train a small IntTower and rank."""
    raw = shuffle_labels(raw, seed)
    data = encode(
        raw, protocol, "means" if protocol == "paper" else STATISTICS[-1]
    )  # the last has what the others have
    all_labels, is_repeated, judged = data.test.labels.numpy(), *_repeated_and_judged(raw, data)
    labels = all_labels[judged]
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        raise UserError(
            f"{data.name}, {protocol}: expected test rows of both labels whose user and item training does not have, "
            f"got {len(labels):,} rows, {positives:,} of label 1; give more data."
        )
    fields = [*data.user_encoder.fields, *data.item_encoder.fields]
    of_labels = [field for field in fields if isinstance(field, MeanField | CounterField)]
    single = [field.name for field in of_labels if field.column(1).dimension == 1]
    feature_aucs = {name: auc(labels, data.test.features[name].numpy()[judged, 0]) for name in single}
    seed_everything(seed)
    model = IntTower(data.user_columns, data.item_columns, dnn_hidden_units=(64, 32))
    trainer = Trainer(model, seed=seed, show_progress=False)
    trainer.fit(data.train, data.valid, epochs=EPOCHS, patience=EPOCHS)
    logits = trainer.predict(data.test)
    # The standard error of the AUC of a ranking that knows nothing (Mann-Whitney).
    error = math.sqrt((len(labels) + 1) / (12 * positives * (len(labels) - positives)))
    repeated_labels = all_labels[is_repeated]
    return LeakCheck(
        dataset=data.name,
        protocol=protocol,
        test_rows=len(data.test),
        feature_aucs=feature_aucs,
        model_auc=auc(labels, logits[judged]),
        allowed=max(TOLERANCE, STANDARD_ERRORS * error),
        repeated_rows=len(repeated_labels),
        repeated_auc=auc(repeated_labels, logits[is_repeated]) if len(np.unique(repeated_labels)) > 1 else math.nan,
        overall_auc=auc(all_labels, logits),
        remembered_auc=auc(all_labels, np.where(is_repeated, all_labels, 0.5)),
    )


def _repeated_and_judged(raw: Raw, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Which test rows repeat a pair of training at another time, (N,) bool, and the places of those to be judged.

    Of rows of one pair, which have one label, the first is judged: chance goes further with fewer labels. A row whose
    twin of the same time is in training is judged too, since a protocol has to keep twins together.
    """
    rows = raw.interactions
    train, test = (pd.Index(rows.rows).get_indexer(table.rows) for table in (data.train, data.test))
    pair_of_row, twins_of_row = (twins.groups(len(rows.rows)) for twins in (_same_pair(raw), _twins(raw, rows.times)))
    is_repeated = np.isin(pair_of_row[test], pair_of_row[train]) & ~np.isin(twins_of_row[test], twins_of_row[train])
    _, first = np.unique(pair_of_row[test], return_index=True)
    return is_repeated, first[~is_repeated[first]]


def shuffle_labels(raw: Raw, seed: int) -> Raw:
    """The same rows, their labels dealt out anew: before anything else is done with them.

    Rows of one user and item get one label, whatever their times, so that a pair in two splits is a leak that shows.
    """
    rows = raw.interactions
    labels = np.random.default_rng(seed).permutation(rows.labels)
    repeats = _same_pair(raw)
    labels[repeats.rows] = labels[repeats.first]
    return replace(raw, interactions=replace(rows, labels=labels))


def _twins(raw: Raw, times: np.ndarray) -> Twins:
    return find_twins(pairs_of(raw.interactions, *raw.fields_of("strict", "means")), times)


def _same_pair(raw: Raw) -> Twins:
    """Rows that repeat the user and the item of an earlier one, as twins would if all were of one time."""
    return _twins(raw, np.zeros(len(raw.interactions.rows)))


def encode(raw: Raw, protocol: str, statistics: str) -> Dataset:
    """The splits as the dataset's own module makes them."""
    return encode_interactions(
        raw.interactions,
        *raw.fields_of(protocol, statistics),
        protocol,
        split_seed=FIRST_SEED,
        embedding_dim=32,
        fingerprint="not a run's",
        released_per_part=raw.released_per_part,
    )


def read_raw(dataset: str) -> Raw:
    """The real files where there are any, else generated ones of the same format, and a line that says so."""
    if SOURCES[dataset].file:
        return _read_amazon(SOURCES[dataset].data)
    if dataset == "movielens":
        raw = movielens.as_interactions(movielens.read_movielens(movielens.locate_movielens()))
        return Raw(raw, movielens.fields_of)
    find, write = {
        "amazon": (sources.find_reviews, write_amazon_sample),
        "alibaba": (sources.find_alibaba, write_alibaba_sample),
        "kuairand": (sources.find_kuairand, write_kuairand_sample),
    }[dataset]
    with tempfile.TemporaryDirectory() as folder:
        place = _data_folder()
        if find(place) is None:
            print(f"{dataset}: no real files (data/README.md says where they go), so checked on generated data.")
            place = write(Path(folder) / "sample")
        if dataset == "amazon":
            return _read_amazon(str(place))
        if dataset == "kuairand":
            raw = kuairand.read_kuairand(sources.kuairand_files(str(place)))
            return Raw(raw, kuairand.fields_of, released_per_part=False)
        files = sources.alibaba_files(str(place))
        is_large = (files / sources.RAW_SAMPLE).stat().st_size > FULL_BYTES
        raw = alibaba.read_alibaba(files, sample_rate=SAMPLE_RATE if is_large else 1.0)
        return Raw(raw, alibaba.fields_of)


def _read_amazon(place: str) -> Raw:
    raw = amazon.read_amazon(*amazon.locate_amazon(place))
    return Raw(raw, partial(amazon.fields_of, raw), released_per_part=False)


def _data_folder() -> Path:
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named and not Path(named).is_dir():
        raise UserError(f"${ENVIRONMENT_VARIABLE} {named}: expected a folder, got none; check the path.")
    return Path(named or DATA_FOLDER)


def _furthest(aucs: dict[str, float]) -> str:
    if not aucs:
        return "none made of labels"
    name = max(aucs, key=lambda name: abs(aucs[name] - 0.5))
    return f"of {len(aucs)}, furthest {name} {aucs[name]:.4f}"


def print_leaks(datasets: list[str], protocols: list[str]) -> int:
    """Print a line per dataset and protocol; returns 1 where a protocol other than `paper` leaks, else 0."""
    every = [(d, p) for d in datasets for p in PROTOCOLS if p in protocols]
    wanted = [(d, p) for d, p in every if p in SOURCES[d].protocols]
    if not wanted:
        raise UserError(
            f"--check-leaks: expected data that can be split by {', '.join(protocols)}, got {', '.join(datasets)}; "
            "name others."
        )
    for dataset, protocol in sorted({*every} - {*wanted}):
        print(f"{dataset}: not checked under {protocol}, by which its data cannot be split.")
    checks = []
    with tqdm(total=len(wanted), desc="leaks", unit="check", leave=False, disable=None) as bar:
        for dataset, of_dataset in itertools.groupby(wanted, key=lambda pair: pair[0]):
            raw = read_raw(dataset)
            for _, protocol in of_dataset:
                checks.append(check_leaks(raw, protocol))
                bar.update()
    names = ("dataset", "protocol", "test rows", "trained model", "features alone", "allowed from .5", "labels leak")
    rows = [
        (
            check.dataset,
            check.protocol,
            f"{check.test_rows:,}",
            f"{check.model_auc:.4f}",
            _furthest(check.feature_aucs),
            f"{check.allowed:.4f}",
            check.verdict,
        )
        for check in checks
    ]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    print("AUC on the test split, every label dealt out at random:")
    for line in (names, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for check in checks:
        if check.repeated_rows:
            share = check.repeated_rows / check.test_rows
            print(
                f"{check.dataset} {check.protocol}: {check.repeated_rows:,} test rows ({share:.1%}) repeat user, item "
                f"and so label of a training row, at another time: the model's AUC is {check.repeated_auc:.4f} on them "
                f"and {check.overall_auc:.4f} on all, where memory alone would have {check.remembered_auc:.4f}. The "
                "table is of the others."
            )
    return int(any(check.leaks for check in checks if check.protocol != "paper"))
