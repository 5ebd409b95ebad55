"""The layers that models share: field embeddings, dropout, the fully connected layers."""

import math

import pytest
import torch
from models import random_features, sparse, tables, varlen
from torch import nn

from model.layers import MLP, Dropout, Embedding, FieldEmbedding
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat

# Rows of the table "genres" below: padding, out-of-vocabulary, then three genres.
TABLE = [[0.0, 0.0], [5.0, 5.0], [1.0, 2.0], [3.0, -2.0], [-1.0, 9.0]]


def genre_embedding(**options) -> FieldEmbedding:
    embedding = FieldEmbedding([varlen("genres", vocabulary_size=5, embedding_dim=2, **options)])
    with torch.no_grad():
        tables(embedding)[0].weight.copy_(torch.tensor(TABLE))
    return embedding


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [
        ("mean", [[2.0, 0.0], [1.0, 2.0], [0.0, 0.0], [1.0, 3.0]]),
        ("sum", [[4.0, 0.0], [1.0, 2.0], [0.0, 0.0], [3.0, 9.0]]),
        ("max", [[3.0, 2.0], [1.0, 2.0], [0.0, 0.0], [3.0, 9.0]]),
    ],
)
def test_a_varlen_field_is_pooled_over_its_ids_without_the_padding(combiner, expected):
    ids = torch.tensor([[2, 3, 0], [2, 0, 0], [0, 0, 0], [2, 3, 4]], dtype=torch.int32)
    fields, dense = genre_embedding(combiner=combiner)({"genres": ids})
    torch.testing.assert_close(fields[:, 0], torch.tensor(expected))
    assert dense is None


def test_a_length_column_ends_each_list_where_it_says():
    ids = torch.tensor([[2, 3, 4], [2, 3, 4], [2, 3, 4]])
    embedding = genre_embedding(combiner="sum", length_name="num_genres")
    fields, _ = embedding({"genres": ids, "num_genres": torch.tensor([0, 1, 2])})
    torch.testing.assert_close(fields[:, 0], torch.tensor([[0.0, 0.0], [1.0, 2.0], [4.0, 0.0]]))
    assert embedding.feature_names == ["genres", "num_genres"]


def test_id_0_of_a_single_valued_field_is_learned_like_others_and_that_of_a_list_is_zero_and_is_not():
    # deepctr-torch's users count their ids from 0; only a list needs a padding.
    embedding = FieldEmbedding([sparse("movie_id"), varlen("genres")], init_std=1.0)
    fields, _ = embedding({"movie_id": torch.tensor([0, 3]), "genres": torch.tensor([[0, 2, 0], [3, 0, 0]])})
    fields.sum().backward()
    assert tables(embedding)[0].weight.grad[0].abs().min() > 0
    genres = tables(embedding)[1].weight
    assert genres[0].abs().max() == genres.grad[0].abs().max() == 0
    assert genres.grad[3].abs().min() > 0


def test_fields_come_sparse_first_and_dense_inputs_apart():
    columns = [varlen("genres"), DenseFeat("price", 1), sparse("movie_id"), DenseFeat("vector", 2)]
    embedding = FieldEmbedding(columns, init_std=1.0)
    features = random_features(columns, num_rows=5)
    fields, dense = embedding(features | {"price": features["price"][:, 0]})  # a plain column of numbers will do
    assert fields.shape == (5, 2, 4)
    torch.testing.assert_close(fields[:, 0], tables(embedding)[0].weight[features["movie_id"]])
    torch.testing.assert_close(dense, torch.cat([features["price"], features["vector"]], dim=1))
    assert (embedding.num_fields, embedding.embedding_dim, embedding.num_dense) == (2, 4, 3)


def test_columns_of_one_embedding_name_share_a_table():
    columns = [sparse("movie_id", embedding_name="movie"), sparse("last_movie_id", embedding_name="movie")]
    embedding = FieldEmbedding(columns, init_std=1.0)
    fields, _ = embedding({"movie_id": torch.tensor([3]), "last_movie_id": torch.tensor([3])})
    assert len(list(embedding.parameters())) == 1
    assert torch.equal(fields[:, 0], fields[:, 1])


@pytest.mark.parametrize("name", ["type", "items", "price.band"])
def test_a_column_may_have_any_name(name):
    embedding = FieldEmbedding([sparse(name)])
    fields, _ = embedding({name: torch.tensor([1, 2])})
    assert fields.shape == (2, 1, 4)


def test_initial_embeddings_have_the_standard_deviation_asked_for():
    torch.manual_seed(0)
    weight = tables(FieldEmbedding([sparse("user_id", 5000)], init_std=0.02))[0].weight[1:]
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.mean().item() == pytest.approx(0.0, abs=0.001)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ([], {}, "expected at least one feature column in each tower"),
        ([sparse("a")], {"init_std": -1.0}, "init_std: expected a number of at least 0, got -1.0"),
        ([sparse("a"), sparse("b", embedding_dim=8)], {}, "one embedding_dim within a tower, got {'a': 4, 'b': 8}"),
        ([sparse("a", 5, embedding_name="t"), sparse("b", 6, embedding_name="t")], {}, r"'b'.*'t', got 6"),
    ],
)
def test_columns_that_cannot_be_embedded_together_are_refused(columns, options, message):
    with pytest.raises(UserError, match=message):
        FieldEmbedding(columns, **options)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_expectation(p):
    torch.manual_seed(0)
    num_elements = 200_000
    dropped = Dropout(p)(torch.ones(num_elements))
    kept = dropped[dropped != 0]
    # Five standard deviations of a share of that many draws.
    assert len(kept) / num_elements == pytest.approx(1 - p, abs=5 * math.sqrt(p * (1 - p) / num_elements))
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("p", [1e-6, 1 - 1e-6])
def test_dropout_of_nearly_nothing_keeps_all_and_of_nearly_all_stays_finite(p):
    # Finer than the mask's 16 bits: nothing is dropped in the one case, and the other does not divide by zero.
    dropped = Dropout(p)(torch.ones(1000))
    assert torch.isfinite(dropped).all()
    assert (dropped != 0).float().mean() == pytest.approx(1 - p, abs=0.01)


def test_dropout_drops_each_element_by_itself():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(20_000, 4)) != 0).float()
    # Neighbours come from the same random word; four of them agree no more often than chance, 2 / 2^4.
    assert (kept.sum(1) % 4 == 0).float().mean().item() == pytest.approx(1 / 8, abs=0.012)
    torch.testing.assert_close(torch.corrcoef(kept.T), torch.eye(4), atol=0.04, rtol=0)


@pytest.mark.parametrize("dropout", [Dropout(0.5).eval(), Dropout(0.0)])
def test_dropout_in_evaluation_or_with_probability_zero_is_the_identity(dropout):
    x = torch.randn(3, 5)
    assert torch.equal(dropout(x), x)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 3), (0, 4)])
def test_dropout_takes_any_number_of_elements_and_passes_the_gradient_through_what_it_kept(shape):
    x = torch.full(shape, 2.0, requires_grad=True)
    dropped = Dropout(0.5)(x)
    dropped.sum().backward()
    assert dropped.shape == shape
    assert set(dropped.flatten().tolist()) <= {0.0, 4.0}
    assert torch.equal(2 * x.grad, dropped.detach())


@pytest.mark.parametrize("p", [1.0, -0.1, math.nan])
def test_dropout_refuses_what_is_no_probability_below_one(p):
    with pytest.raises(UserError, match=r"dropout: expected a probability in \[0, 1\), got"):
        Dropout(p)


def test_each_fully_connected_layer_is_linear_then_batch_norm_then_relu():
    mlp = MLP(3, (4, 2), dropout=0.5)
    for layer in mlp.layers:
        nn.init.normal_(layer[1].weight)
        nn.init.normal_(layer[1].bias)
        nn.init.uniform_(layer[1].running_var, 0.5, 2.0)
        nn.init.normal_(layer[1].running_mean)
    x = torch.randn(6, 3)
    outputs = mlp.eval()(x)
    assert [output.shape for output in outputs] == [(6, 4), (6, 2)]
    for layer, output in zip(mlp.layers, outputs, strict=True):
        linear, norm = layer[0], layer[1]
        z = x @ linear.weight.T + linear.bias
        normalised = (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(output, normalised.clamp(min=0))
        x = output


def test_without_batch_norm_a_layer_is_linear_then_relu_of_the_very_output_that_the_layer_below_gives():
    torch.manual_seed(0)
    mlp = MLP(3, (40, 30), dropout=0.5, batch_norm=False)
    first, second = mlp(torch.randn(6, 3))
    linear = mlp.layers[1][0]
    kept = second != 0
    assert kept.any()
    assert (second >= 0).all()
    torch.testing.assert_close(second[kept], 2 * (first @ linear.weight.T + linear.bias)[kept])


@pytest.mark.parametrize("shape", [(50,), (50, 1), (5, 10)])
def test_the_gradient_of_an_embedding_is_torchs_own(shape):
    torch.manual_seed(0)
    ids = torch.randint(0, 7, shape, dtype=torch.int32)
    ours, torchs = Embedding(9, 4), nn.Embedding(9, 4)
    torchs.load_state_dict(ours.state_dict())
    weights = torch.randn(*shape, 4)
    for embedding in (ours, torchs):
        (embedding(ids) * weights).sum().backward()
    assert torch.equal(ours(ids), torchs(ids))
    assert torch.equal(ours.weight.grad, torchs.weight.grad)
    assert torch.equal(ours.weight.grad[7:], torch.zeros(2, 4))


def test_an_id_outside_an_embedding_is_an_error_in_training_and_in_evaluation():
    embedding = Embedding(9, 4)
    with pytest.raises(IndexError):
        embedding(torch.tensor([9]))
    with torch.no_grad(), pytest.raises(IndexError):
        embedding(torch.tensor([9]))
