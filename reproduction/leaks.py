"""Whether labels leak: on labels dealt out at random, neither a feature nor a model may rank the test rows.

A model that has not seen the test labels is at AUC .5 on random ones. What is above it was read off the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from model.IntTower import IntTower
from preprocessing import alibaba, amazon, movielens
from preprocessing.encode import MeanField
from preprocessing.interactions import Interactions, data_fingerprint, encode_interactions
from preprocessing.protocols import PROTOCOLS
from preprocessing.tables import Dataset
from reproduction.runs import script
from training.metrics import auc
from training.trainer import Trainer, seed_everything

EPOCHS = 2
TOLERANCE = 0.01  # of AUC, or more where few test rows let chance go further
STANDARD_ERRORS = 4
SAMPLE_RATE = 0.05  # of Alibaba's users: a million rows say enough


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
        """Whether anything is further above .5 than chance allows."""
        return max([self.model_auc, *self.feature_aucs.values()]) > 0.5 + self.allowed


def check_leaks(dataset: str, protocol: str, seed: int = 7) -> LeakCheck:
    """Deal the labels of a dataset out anew, split and encode it by a protocol, train a small IntTower and rank."""
    data = shuffled(dataset, protocol, seed)
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


def shuffled(dataset: str, protocol: str, seed: int) -> Dataset:
    """A dataset whose labels were dealt out anew among its rows before anything else was done with them."""
    raw, user_fields, item_fields, options = _read(dataset, protocol)
    raw = replace(raw, labels=np.random.default_rng(seed).permutation(raw.labels))
    fingerprint = data_fingerprint("shuffled", dataset=dataset, seed=seed)
    split_seed = script(dataset).Settings().split_seed
    return encode_interactions(raw, user_fields, item_fields, protocol, split_seed, 32, fingerprint, **options)


def _read(dataset: str, protocol: str) -> tuple[Interactions, dict, dict, dict]:
    if dataset == "movielens":
        raw = movielens.as_interactions(movielens.read_movielens(movielens.locate_movielens(None)))
        return raw, movielens.USER_FIELDS, movielens.ITEM_FIELDS, {}
    if dataset == "amazon":
        raw = amazon.read_amazon(*amazon.locate_amazon(None, None, None))
        return raw, amazon.USER_FIELDS, amazon.ITEM_FIELDS, {"released_per_part": False}
    folder = alibaba.locate_alibaba(None)
    raw = alibaba.read_alibaba(folder)
    if len(raw.labels) > 2_000_000:
        raw = alibaba.read_alibaba(folder, sample_rate=SAMPLE_RATE)
    return raw, alibaba.USER_FIELDS, alibaba.ITEM_FIELDS, {}


def print_leaks(datasets: list[str], protocols: list[str]) -> int:
    """Print a line per dataset and protocol; returns 1 where a protocol other than `paper` leaks, else 0."""
    order = [protocol for protocol in PROTOCOLS if protocol in protocols]
    checks = []
    pairs = [(dataset, protocol) for dataset in datasets for protocol in order]
    for dataset, protocol in tqdm(pairs, desc="leaks", unit="protocol", leave=False, disable=None):
        checks.append(check_leaks(dataset, protocol))
    names = ("dataset", "protocol", "test rows", "trained model", "features alone", "allowed", "labels leak")
    rows = [
        (
            check.dataset,
            check.protocol,
            f"{check.test_rows:,}",
            f"{check.model_auc:.4f}",
            ", ".join(f"{name} {value:.4f}" for name, value in check.feature_aucs.items()) or "none made of labels",
            f"{0.5 + check.allowed:.4f}",
            "YES" if check.leaks else "no",
        )
        for check in checks
    ]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    print("AUC on the test split, every label dealt out at random:")
    for line in (names, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return int(any(check.leaks for check in checks if check.protocol != "paper"))
