"""Scoring in batches of users and items, from features that are looked up: as by `forward`, row by row."""

import math

import numpy as np
import pytest
import torch
from models import int_tower, item_columns, random_features, user_columns
from torch import Tensor

from model.IntTower import IntTower
from preprocessing.tables import Lookup, Table
from training import predict as predicting
from training.predict import distinct_rows, predict, predict_decoupled, predict_jointly

NUM_USERS, NUM_ITEMS, NUM_ROWS = 11, 7, 60
# Three levels of two heads of three numbers are 18 in a user's vectors.
PATHS = {"pairs gathered": 4096, "user by user": 1}


class CountingIntTower(IntTower):
    """Notes how many users and items each call encodes, and how many pairs each scores."""

    def __init__(self, *columns, **options):
        super().__init__(*columns, **options)
        self.users, self.items, self.pairs = [], [], []

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        self.users.append(len(features["user_id"]))
        return super().encode_user(features)

    def encode_item(self, features: dict[str, Tensor]) -> list[Tensor]:
        self.items.append(len(features["movie_id"]))
        return super().encode_item(features)

    def score(self, users: list[Tensor], items: list[Tensor]) -> Tensor:
        self.pairs.append((len(users[0]), len(items[0])))
        return super().score(users, items)


def looked_up_table(seed: int = 0) -> Table:
    """Rows of users and items in no order; some users have one row, the first one has none."""
    generator = torch.Generator().manual_seed(seed)
    users = random_features(user_columns(), NUM_USERS, seed)
    items = random_features(item_columns(), NUM_ITEMS, seed)
    user = torch.cat(
        [torch.arange(1, NUM_USERS), torch.randint(1, 5, (NUM_ROWS - NUM_USERS + 1,), generator=generator)]
    )
    user = user[torch.randperm(NUM_ROWS, generator=generator)].int()
    item = torch.randint(0, NUM_ITEMS, (NUM_ROWS,), generator=generator, dtype=torch.int32)
    features = {name: Lookup(values, user) for name, values in users.items()}
    features |= {name: Lookup(values, item) for name, values in items.items()}
    return Table(features, torch.zeros(NUM_ROWS), user.numpy(), np.arange(NUM_ROWS))


def written_out(table: Table) -> Table:
    return Table(table.batch(slice(None)), table.labels, table.groups, table.rows)


def forward_of(model: IntTower, table: Table) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(table.batch(slice(None))).numpy()


def counting_int_tower() -> CountingIntTower:
    torch.manual_seed(0)
    options = {"dnn_hidden_units": (8, 6, 5), "field_dim": 3, "user_head": 2, "item_head": 2, "init_std": 0.5}
    return CountingIntTower(user_columns(), item_columns(), **options)


@pytest.mark.parametrize(
    "features", [looked_up_table, lambda: written_out(looked_up_table())], ids=["looked up", "out"]
)
@pytest.mark.parametrize("wide_user", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("batch", [1, 3, 16384])
def test_users_and_items_in_batches_are_scored_as_by_forward(monkeypatch, features, wide_user, batch):
    monkeypatch.setattr(predicting, "EVALUATION_BATCH", batch)
    monkeypatch.setattr(predicting, "WIDE_USER", wide_user)
    monkeypatch.setattr(predicting, "PAIR_CHUNK", 4)
    table, model = features(), int_tower(init_std=2.0)
    predicted = predict(model, table)
    assert predicted.std() > 0.1
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, forward_of(model, table), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predict_jointly(model, table), forward_of(model, table), rtol=1e-5, atol=1e-5)


def test_each_user_and_item_is_encoded_once_and_no_batch_is_larger_than_told(monkeypatch):
    monkeypatch.setattr(predicting, "EVALUATION_BATCH", 4)
    table, model = looked_up_table(), counting_int_tower()
    predict(model, table)
    assert (model.users, model.items) == ([4, 4, 2], [4, 3])


def test_narrow_users_are_scored_in_chunks_of_pairs(monkeypatch):
    monkeypatch.setattr(predicting, "EVALUATION_BATCH", 4)
    monkeypatch.setattr(predicting, "PAIR_CHUNK", 7)
    table, model = looked_up_table(), counting_int_tower()
    predict(model, table)
    assert sum(items for _, items in model.pairs) == NUM_ROWS
    assert all(users == items <= 7 for users, items in model.pairs)


def test_users_who_are_wide_in_all_levels_together_are_scored_one_by_one(monkeypatch):
    table = looked_up_table()
    # Six numbers a level: with all three levels 18, which is less than 19.
    for wide_user, num_users in ((19, [NUM_ROWS]), (18, [1] * (NUM_USERS - 1))):
        monkeypatch.setattr(predicting, "WIDE_USER", wide_user)
        model = counting_int_tower()
        predict(model, table)
        assert [users for users, _ in model.pairs] == num_users
    assert sorted(items for _, items in model.pairs) == sorted(np.bincount(table.groups)[1:])


def test_a_batch_of_forward_ends_with_the_table(monkeypatch):
    monkeypatch.setattr(predicting, "EVALUATION_BATCH", 16)
    sizes = []

    class Rows(torch.nn.Module):
        def forward(self, features: dict[str, Tensor]) -> Tensor:
            sizes.append(len(features["user_id"]))
            return features["user_mean_rating"][:, 0]

    table = looked_up_table()
    assert predict(Rows(), table).tolist() == table.features["user_mean_rating"].numpy()[:, 0].tolist()
    assert sizes == [16, 16, 16, 12]


def test_predicting_decoupled_leaves_evaluation_mode_on_and_builds_no_graph():
    model = int_tower().train()
    predict_decoupled(model, looked_up_table())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def ids(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


TWO_GENRES, AGES = torch.tensor([[2, 4], [2, 4], [2, 4], [4, 2], [2, 4]]), ids(20, 30, 40, 40)


@pytest.mark.parametrize(
    ("features", "first", "inverse"),
    [
        (
            {"id": ids(3, 1, 3, 1, 3), "genres": TWO_GENRES, "price": torch.tensor([0.5, 0.5, 0.5, 0.5, 0.25])},
            [0, 1, 3, 4],
            [0, 1, 0, 2, 3],
        ),
        ({"id": ids(5, 6, 6), "price": torch.tensor([1.0, math.nan, math.nan])}, [0, 1], [0, 1, 1]),
        ({"age": Lookup(AGES, ids(2, 0, 2, 3, 0))}, [0, 1, 3], [0, 1, 0, 2, 1]),
        ({"age": Lookup(AGES, ids(0, 0, 1, 0, 1)), "pid": ids(2, 3, 2, 2, 2)}, [0, 1, 2], [0, 1, 2, 0, 2]),
        ({"a": Lookup(AGES, ids(0, 0, 1, 1)), "b": Lookup(AGES, ids(0, 1, 1, 1))}, [0, 1, 2], [0, 1, 2, 2]),
    ],
    ids=["values", "missing numbers", "two users who are alike", "an entry and a value of the row", "two entries"],
)
def test_distinct_rows_differ_in_a_value_or_in_the_entry_that_is_looked_up(features, first, inverse):
    rows = distinct_rows(features)
    assert rows[0].tolist() == first
    assert rows[1].tolist() == inverse


def test_distinct_rows_of_more_combinations_than_a_number_holds_are_told_apart():
    # Each eight columns of 256 values make 2^64 combinations: of a number of 64 bits, earlier columns would fall out.
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([torch.randperm(256, generator=generator) for _ in range(24)], dim=1)
    rows = torch.cat([rows, rows[:50], rows[:2]])
    rows[-2, 0] = (rows[-2, 0] + 1) % 256  # a row like the first one but in the first column alone,
    rows[-1, -1] = (rows[-1, -1] + 1) % 256  # and one like the second but in the last
    first, inverse = distinct_rows({"list": rows})
    assert first.tolist() == [*range(256), 306, 307]
    assert inverse.tolist() == [*range(256), *range(50), 256, 257]
