"""Tables of tensors, and features that are kept once per user or item."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from preprocessing.encode import SparseField, TowerEncoder
from preprocessing.inputs import SparseFeat
from preprocessing.tables import Dataset, Lookup, Table

AGES = torch.tensor([20, 30, 40], dtype=torch.int32)
GENRES = torch.tensor([[2, 3], [4, 0], [1, 0]], dtype=torch.int32)
USER_OF_ROW = torch.tensor([2, 0, 0, 1, 2], dtype=torch.int32)
EVERY_ROW = {"age": [40, 20, 20, 30, 40], "genres": [[1, 0], [2, 3], [2, 3], [4, 0], [1, 0]]}


def table() -> Table:
    return Table(
        features={
            "age": Lookup(AGES, USER_OF_ROW),
            "genres": Lookup(GENRES, USER_OF_ROW),
            "pid": torch.tensor([2, 3, 2, 3, 2], dtype=torch.int32),
        },
        labels=torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]),
        groups=USER_OF_ROW.numpy(),
        rows=np.arange(5),
    )


@pytest.mark.parametrize("name", ["age", "genres"])
@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(1, 4),
        slice(4, 99),
        slice(0, 0),
        np.array([3, 0, 0]),
        np.array([], dtype=np.int64),
        torch.tensor([3, 0, 0]),
        torch.tensor([True, False, False, True, True]),
        2,
    ],
    ids=repr,
)
def test_a_lookup_is_read_as_the_tensor_of_all_rows(name, rows):
    every_row = torch.tensor(EVERY_ROW[name], dtype=torch.int32)
    read = table().features[name][rows]
    assert torch.equal(read, every_row[rows])
    assert read.dtype == torch.int32


def test_a_lookup_is_as_long_as_its_rows_and_can_be_written_out():
    genres = table().features["genres"]
    assert len(genres) == 5
    assert isinstance(genres.numpy(), np.ndarray)
    assert genres.numpy().tolist() == EVERY_ROW["genres"]


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([1, 2]), torch.tensor([1, 2])], ids=repr)
def test_a_batch_holds_every_feature_as_a_tensor(rows):
    batch = table().batch(rows)
    assert list(batch) == ["age", "genres", "pid"]
    assert all(isinstance(values, torch.Tensor) for values in batch.values())
    assert batch["age"].tolist() == [20, 20]
    assert batch["genres"].tolist() == [[2, 3], [2, 3]]
    assert batch["pid"].tolist() == [3, 2]


def test_a_table_is_as_long_as_its_labels():
    assert len(table()) == 5


def test_features_and_labels_move_to_a_device_and_groups_and_rows_stay():
    before = table()
    moved = before.to("meta")
    features = moved.features
    tensors = [features["age"].values, features["age"].index, features["genres"].values, features["pid"], moved.labels]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.groups is before.groups
    assert moved.rows is before.rows
    # The table itself stays where it was.
    assert before.labels.device.type == before.features["age"].index.device.type == "cpu"
    assert before.batch(slice(None))["age"].tolist() == EVERY_ROW["age"]


def test_an_index_that_features_share_is_moved_once():
    features = table().to("meta").features
    assert features["age"].index is features["genres"].index
    assert features["age"].values is not features["genres"].values
    assert features["age"].values.shape == (3,)
    assert features["genres"].values.shape == (3, 2)


def test_any_tensor_that_stands_twice_is_moved_once():
    numbers = torch.rand(5, 1)
    moved = Table({"a": numbers, "b": Lookup(numbers, USER_OF_ROW)}, numbers[:, 0], np.zeros(5), np.arange(5)).to(
        "meta"
    )
    assert moved.features["a"] is moved.features["b"].values


def test_moving_to_where_it_is_copies_nothing():
    before = table()
    moved = before.to(torch.device("cpu"))
    assert moved.labels is before.labels
    assert moved.features["pid"] is before.features["pid"]
    assert moved.features["age"].index is before.features["age"].index
    assert moved.features["age"].values is before.features["age"].values


def test_a_dataset_gives_its_columns_the_embedding_size_that_it_is_told():
    user = TowerEncoder([SparseField.fit("user_id", pd.Series([7, 9]))])
    item = TowerEncoder([SparseField.fit("ad", pd.Series(["a", "b", "c"]))])
    data = Dataset("ads", "strict", False, table(), table(), table(), user, item, "f")
    assert data.embedding_dim == 32
    data.embedding_dim = 6
    assert data.user_columns == [SparseFeat("user_id", 4, embedding_dim=6, dtype="int32")]
    assert data.item_columns == [SparseFeat("ad", 5, embedding_dim=6, dtype="int32")]


def test_a_dataset_is_synthetic_where_the_generators_probabilities_are_known():
    data = Dataset("ads", "strict", False, table(), table(), table(), TowerEncoder([]), TowerEncoder([]), "f")
    assert not data.synthetic
    assert dataclasses.replace(data, probabilities=np.zeros(5)).synthetic
