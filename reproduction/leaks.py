"""Whether labels leak: on labels dealt out at random, neither a feature nor a model may rank the test rows.

A model that has not seen the test labels is at AUC .5 on random ones. What is far from it was read off the features.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.IntTower import IntTower
from preprocessing import alibaba, amazon, movielens, sources
from preprocessing.choices import PROTOCOLS
from preprocessing.encode import MeanField
from preprocessing.errors import UserError
from preprocessing.interactions import Interactions, encode_interactions, pairs_of
from preprocessing.protocols import find_twins
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sources import DATA_FOLDER, ENVIRONMENT_VARIABLE
from preprocessing.tables import Dataset
from reproduction.runs import FIRST_SEED
from training.metrics import auc
from training.trainer import Trainer, seed_everything

EPOCHS = 2
TOLERANCE = 0.01  # of AUC, or more where few test rows let chance go further
STANDARD_ERRORS = 4
SAMPLE_RATE, FULL_BYTES = 0.05, 2**28  # of Alibaba's users, where its file is large: a million rows say enough


@dataclass(frozen=True)
class Raw:
    """A dataset before it is split, and how its own module encodes it."""

    interactions: Interactions
    user_fields: dict[str, type]
    item_fields: dict[str, type]
    released_per_part: bool = True


@dataclass(frozen=True)
class LeakCheck:
    """AUC on shuffled labels: of each feature made of labels taken alone, and of a model trained on them."""

    dataset: str
    protocol: str
    test_rows: int
    feature_aucs: dict[str, float]
    model_auc: float
    allowed: float  # distance from .5

    @property
    def leaks(self) -> bool:
        """Whether anything is further from .5 than chance allows; a mean without the own label ranks in reverse."""
        return any(abs(auc - 0.5) > self.allowed for auc in (self.model_auc, *self.feature_aucs.values()))


def check_leaks(raw: Raw, protocol: str, seed: int = 7) -> LeakCheck:
    """Deal the labels of a dataset out anew, split and encode it by a protocol, train a small IntTower and rank."""
    data = encode(shuffle_labels(raw, seed), protocol)
    labels = data.test.labels.numpy()
    means = [
        f.name for encoder in (data.user_encoder, data.item_encoder) for f in encoder.fields if isinstance(f, MeanField)
    ]
    feature_aucs = {name: auc(labels, data.test.features[name].numpy()[:, 0]) for name in means}
    seed_everything(seed)
    model = IntTower(data.user_columns, data.item_columns, dnn_hidden_units=(64, 32))
    trainer = Trainer(model, seed=seed, show_progress=False)
    trainer.fit(data.train, data.valid, epochs=EPOCHS, patience=EPOCHS)
    positives = int(labels.sum())
    # The standard error of the AUC of a ranking that knows nothing (Mann-Whitney).
    error = math.sqrt((len(labels) + 1) / (12 * positives * (len(labels) - positives)))
    allowed = max(TOLERANCE, STANDARD_ERRORS * error)
    return LeakCheck(data.name, protocol, len(labels), feature_aucs, auc(labels, trainer.predict(data.test)), allowed)


def shuffle_labels(raw: Raw, seed: int) -> Raw:
    """The same rows, their labels dealt out anew: before anything else is done with them.

    Rows that repeat another get its label, so that one whose twin lies in another split is a leak that shows.
    """
    rows = raw.interactions
    labels = np.random.default_rng(seed).permutation(rows.labels)
    twins = find_twins(pairs_of(rows, raw.user_fields, raw.item_fields), rows.times)
    labels[twins.rows] = labels[twins.first]
    return replace(raw, interactions=replace(rows, labels=labels))


def encode(raw: Raw, protocol: str) -> Dataset:
    """The splits as the dataset's own module makes them."""
    return encode_interactions(
        raw.interactions,
        raw.user_fields,
        raw.item_fields,
        protocol,
        split_seed=FIRST_SEED,
        embedding_dim=32,
        fingerprint="not a run's",
        released_per_part=raw.released_per_part,
    )


def read_raw(dataset: str) -> Raw:
    """The real files where there are any, else generated ones of the same format, and a line that says so."""
    if dataset == "movielens":
        raw = movielens.as_interactions(movielens.read_movielens(movielens.locate_movielens()))
        return Raw(raw, movielens.USER_FIELDS, movielens.ITEM_FIELDS)
    find, write = {
        "amazon": (sources.find_reviews, write_amazon_sample),
        "alibaba": (sources.find_alibaba, write_alibaba_sample),
    }[dataset]
    with tempfile.TemporaryDirectory() as folder:
        place = _data_folder()
        if find(place) is None:
            print(f"{dataset}: no real files (data/README.md says where they go), so checked on generated data.")
            place = write(Path(folder) / "sample")
        if dataset == "amazon":
            raw = amazon.read_amazon(*amazon.locate_amazon(str(place)))
            return Raw(raw, amazon.USER_FIELDS, amazon.ITEM_FIELDS, released_per_part=False)
        files = sources.alibaba_files(str(place))
        is_large = (files / sources.RAW_SAMPLE).stat().st_size > FULL_BYTES
        raw = alibaba.read_alibaba(files, sample_rate=SAMPLE_RATE if is_large else 1.0)
        return Raw(raw, alibaba.USER_FIELDS, alibaba.ITEM_FIELDS)


def _data_folder() -> Path:
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named and not Path(named).is_dir():
        raise UserError(f"${ENVIRONMENT_VARIABLE} {named}: expected a folder, got none; check the path.")
    return Path(named or DATA_FOLDER)


def print_leaks(datasets: list[str], protocols: list[str]) -> int:
    """Print a line per dataset and protocol; returns 1 where a protocol other than `paper` leaks, else 0."""
    order = [protocol for protocol in PROTOCOLS if protocol in protocols]
    checks = []
    with tqdm(total=len(datasets) * len(order), desc="leaks", unit="check", leave=False, disable=None) as bar:
        for dataset in datasets:
            raw = read_raw(dataset)
            for protocol in order:
                checks.append(check_leaks(raw, protocol))
                bar.update()
    names = ("dataset", "protocol", "test rows", "trained model", "features alone", "allowed from .5", "labels leak")
    rows = [
        (
            check.dataset,
            check.protocol,
            f"{check.test_rows:,}",
            f"{check.model_auc:.4f}",
            ", ".join(f"{name} {value:.4f}" for name, value in check.feature_aucs.items()) or "none made of labels",
            f"{check.allowed:.4f}",
            "YES" if check.leaks else "no",
        )
        for check in checks
    ]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    print("AUC on the test split, every label dealt out at random:")
    for line in (names, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return int(any(check.leaks for check in checks if check.protocol != "paper"))
