"""LR against its equation by hand, and trained to the end against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from models import item_columns, random_features, random_labels, sparse, tables, user_columns, varlen
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from model.lr import LR
from model.statistics_lr import StatisticsLR
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat
from training.trainer import Trainer

L2 = 0.5
# The weights of users, of genres, of a price of two numbers; ids 0 are padding.
USER_WEIGHTS, GENRE_WEIGHTS, PRICE_WEIGHTS, BIAS = [0.0, 9.0, 0.5, -3.0], [0.0, 9.0, 1.0, 2.0], [0.25, 1.0], 0.125


def lr_by_hand(combiner: str = "mean") -> LR:
    columns = [sparse("user_id", 4), varlen("genres", 4, combiner=combiner), DenseFeat("price", 2)]
    model = LR(columns)
    users, genres = tables(model)
    with torch.no_grad():
        users.weight.copy_(torch.tensor(USER_WEIGHTS)[:, None])
        genres.weight.copy_(torch.tensor(GENRE_WEIGHTS)[:, None])
        model.dense_weights.copy_(torch.tensor(PRICE_WEIGHTS))
        model.bias.fill_(BIAS)
    return model


def one_row(user_id: int = 2, genres: tuple[int, ...] = (2, 3, 0), price: tuple[float, float] = (2.0, -1.0)) -> dict:
    return {"user_id": torch.tensor([user_id]), "genres": torch.tensor([genres]), "price": torch.tensor([price])}


def indicators(columns: list, features: dict[str, Tensor]) -> np.ndarray:
    """A column per id: 1 where the row has it, 1 / n where it is one of n in the row's list."""
    blocks = []
    for column in columns:
        ids_BT = features[column.name].long().view(len(features[column.name]), -1)
        count_BV = functional.one_hot(ids_BT, column.vocabulary_size).sum(1)
        count_BV[:, 0] = 0
        blocks.append(count_BV / count_BV.sum(1, keepdim=True))
    return torch.cat(blocks, dim=1).double().numpy()


def test_lr_trained_to_the_end_is_the_logistic_regression_of_scikit_learn():
    columns = [sparse("user_id", 9), varlen("genres", 12), sparse("movie_id", 7)]
    features, labels = random_features(columns, num_rows=40), random_labels(40)
    for column in columns:  # the last id of each column becomes the first: no training row has it
        features[column.name][features[column.name] == column.vocabulary_size - 1] = 1
    model = LR(columns)
    trainer = Trainer(model, learning_rate=0.02, l2_embedding=L2)
    for _ in range(600):
        trainer.step(features, labels)

    # The summed loss + L2 * |w|^2, over 2 * L2, is what scikit-learn minimises: |w|^2 / 2 + C * the summed loss.
    expected = LogisticRegression(C=1 / (2 * L2), tol=1e-10, max_iter=10_000)
    expected.fit(indicators(columns, features), labels.numpy())
    by_name = {name: model.weights.table(name).weight.detach()[:, 0] for name in model.weights.field_names}
    coefficients = torch.cat([by_name[column.name] for column in columns])
    torch.testing.assert_close(coefficients.double().numpy(), expected.coef_[0], atol=1e-4, rtol=0)
    assert model.bias.item() == pytest.approx(expected.intercept_[0], abs=1e-4)
    logits = model(features).detach().double().numpy()
    torch.testing.assert_close(logits, expected.decision_function(indicators(columns, features)), atol=3e-4, rtol=0)
    assert np.abs(expected.coef_).max() > 0.2
    assert all(weights[0] == 0 and weights[-1] == 0 for weights in by_name.values())


@pytest.mark.parametrize(("combiner", "pooled"), [("mean", 1.5), ("sum", 3.0), ("max", 2.0)])
def test_the_logit_is_the_sum_of_the_values_weights_and_the_bias(combiner, pooled):
    logits = lr_by_hand(combiner)(one_row())
    torch.testing.assert_close(logits, torch.tensor([0.5 + pooled + 2.0 * 0.25 - 1.0 * 1.0 + 0.125]))


def test_each_row_has_its_own_logit():
    rows = [one_row(), one_row(user_id=3), one_row(genres=(3, 0, 0)), one_row(price=(0.0, 0.0))]
    logits = lr_by_hand()({name: torch.cat([row[name] for row in rows]) for name in rows[0]})
    torch.testing.assert_close(logits, torch.tensor([1.625, -1.875, 2.125, 2.125]))


def test_an_empty_list_and_a_padded_id_add_nothing():
    logits = lr_by_hand()(one_row(user_id=0, genres=(0, 0, 0), price=(0.0, 0.0)))
    torch.testing.assert_close(logits, torch.tensor([BIAS]))


def test_an_untrained_lr_gives_every_row_an_even_chance():
    columns = [*user_columns(), *item_columns()]
    assert torch.equal(LR(columns)(random_features(columns, num_rows=5)), torch.zeros(5))


@pytest.mark.parametrize(
    ("user", "item", "num_parameters"),
    [
        # A weight for each of 10 + 4 + 1 + 12 + 7 + 1 values, and the bias.
        (user_columns(), item_columns(), 36),
        (
            [sparse("user_id", 6, embedding_dim=2, embedding_name="id")],
            [sparse("movie_id", 6, embedding_name="id"), varlen("genres", 7, embedding_dim=3)],
            20,
        ),
        ([DenseFeat("age", 1)], [DenseFeat("price", 3)], 5),
    ],
    ids=["all kinds of columns", "embeddings of two sizes and one name", "dense alone"],
)
def test_from_columns_has_one_weight_per_value_whatever_the_embedding_sizes_are(user, item, num_parameters):
    model = LR.from_columns(user, item)
    features, labels = random_features([*user, *item], num_rows=6), random_labels(6)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    first, _ = Trainer(model, learning_rate=0.05).step(features, labels)
    logits = model(features)
    assert logits.shape == (6,)
    assert functional.binary_cross_entropy_with_logits(logits, labels) < first


def test_statistics_lr_weighs_the_dense_columns_of_both_towers_and_nothing_else():
    model = StatisticsLR.from_columns(user_columns(), item_columns())
    assert [tuple(p.shape) for p in model.parameters()] == [(2,), (1,)]
    with torch.no_grad():
        model.dense_weights.copy_(torch.tensor([2.0, 3.0]))
        model.bias.fill_(-1.0)
    row = {"user_mean_rating": torch.tensor([[0.5]]), "item_mean_rating": torch.tensor([[1.0]])}
    assert model(row).tolist() == [2 * 0.5 + 3 * 1.0 - 1.0]


def test_statistics_lr_of_columns_none_of_which_is_dense_is_refused():
    with pytest.raises(UserError, match=r"StatisticsLR: expected a dense column, .* got none; use LR"):
        StatisticsLR([sparse("user_id")])


def test_statistics_lr_reads_a_vector_by_the_values_of_the_column_that_it_goes_by():
    user = [sparse("user_id", 6), DenseFeat("user_residual_by_genres", 3), DenseFeat("age_by_hand", 1)]
    model = StatisticsLR.from_columns(user, [varlen("genres", 5)])
    assert [tuple(p.shape) for p in model.parameters()] == [(1,), (1,), (1,)]
    assert model.by == {"user_residual_by_genres": "genres"}
    with torch.no_grad():
        model.vector_weights.fill_(2.0)
        model.bias.fill_(-1.0)
    rows = {
        "user_residual_by_genres": torch.tensor([[1.0, 2.0, 4.0]] * 4),
        "genres": torch.tensor([[2, 4, 0], [3, 0, 0], [1, 0, 0], [4, 1, 0]], dtype=torch.int32),
        "age_by_hand": torch.zeros(4, 1),
    }
    # Of the ids 2, 3 and 4 the numbers are 1, 2 and 4; 0 is padding, 1 an unknown value.
    assert model(rows).tolist() == [2 * 2.5 - 1, 2 * 2 - 1, -1, 2 * 4 - 1]
    Trainer(model, learning_rate=0.1).step(rows, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert model.vector_weights.item() != 2
