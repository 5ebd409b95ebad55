"""Comparing encoded splits, and the one line that loading ends with, for the tests of preprocessing/."""

from collections.abc import Callable

import pytest
import torch

from preprocessing.errors import UserError
from preprocessing.tables import Dataset

SPLITS = ("train", "valid", "test")


def assert_same_splits(data: Dataset, other: Dataset) -> None:
    """The same rows in the same order with the same labels, groups and features, row by row."""
    for name in SPLITS:
        ours, theirs = getattr(data, name), getattr(other, name)
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.groups.tolist() == theirs.groups.tolist()
        assert_same_features(ours, theirs)


def assert_same_features(table, other) -> None:
    assert table.features.keys() == other.features.keys()
    for name, values in table.features.items():
        assert torch.equal(values[:], other.features[name][:]), name


def refusal(load: Callable, *arguments, fragments: tuple[str, ...] = (), **options) -> str:
    """The one line that a call ends with."""
    with pytest.raises(UserError) as caught:
        load(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message
    return message
