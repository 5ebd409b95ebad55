"""The layers that models share: field embeddings, dropout, the fully connected layers."""

import math

import pytest
import torch
from models import random_features, sparse, tables, varlen
from torch import nn

from model.layers import MLP, Dropout, Embedding, FieldEmbedding
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat

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


def test_the_padding_row_of_a_list_is_zero_and_gets_no_gradient():
    embedding = FieldEmbedding([varlen("genres")], init_std=1.0)
    fields, _ = embedding({"genres": torch.tensor([[0, 2, 0], [3, 0, 0]])})
    fields.sum().backward()
    weight = tables(embedding)[0].weight
    assert torch.equal(weight[0], torch.zeros(4))
    assert torch.equal(weight.grad[0], torch.zeros(4))
    assert weight.grad[3].abs().min() > 0


def test_id_0_of_a_single_valued_field_is_learned_like_others():
    # deepctr-torch's users count their ids from 0; only a list needs a padding.
    embedding = FieldEmbedding([sparse("movie_id"), varlen("genres")], init_std=1.0)
    fields, _ = embedding({"movie_id": torch.tensor([0, 3]), "genres": torch.tensor([[0, 2, 0], [3, 0, 0]])})
    fields.sum().backward()
    assert tables(embedding)[0].weight.grad[0].abs().min() > 0
    assert tables(embedding)[1].weight.grad[0].abs().max() == 0


def test_fields_come_sparse_first_and_dense_inputs_apart():
    columns = [varlen("genres"), DenseFeat("price", 1), sparse("movie_id"), DenseFeat("vector", 2)]
    embedding = FieldEmbedding(columns, init_std=1.0)
    features = random_features(columns, num_rows=5)
    fields, dense = embedding(features)
    assert fields.shape == (5, 2, 4)
    torch.testing.assert_close(fields[:, 0], tables(embedding)[0].weight[features["movie_id"]])
    torch.testing.assert_close(dense, torch.cat([features["price"], features["vector"]], dim=1))
    assert (embedding.num_fields, embedding.embedding_dim, embedding.num_dense) == (2, 4, 3)


def test_a_dense_feature_may_be_a_plain_column_of_numbers():
    _, dense = FieldEmbedding([DenseFeat("price", 1)])({"price": torch.tensor([1.0, 2.0])})
    assert dense.tolist() == [[1.0], [2.0]]


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


def test_columns_of_different_embedding_sizes_in_one_tower_are_refused():
    with pytest.raises(UserError, match=r"expected one embedding_dim within a tower, got {'user_id': 4, 'age': 8}"):
        FieldEmbedding([sparse("user_id"), sparse("age", embedding_dim=8)])


def test_a_tower_without_columns_is_refused():
    with pytest.raises(UserError, match="expected at least one feature column in each tower"):
        FieldEmbedding([])


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
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


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_is_the_identity_in_evaluation(p):
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(p).eval()(x), x)


def test_dropout_with_probability_zero_is_the_identity_in_training():
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 3), (1,), (0, 4)])
def test_dropout_takes_any_number_of_elements(shape):
    x = torch.full(shape, 2.0)
    dropped = Dropout(0.5)(x)
    assert dropped.shape == shape
    assert set(dropped.flatten().tolist()) <= {0.0, 4.0}


def test_dropout_is_the_same_for_the_same_seed_and_another_for_another():
    def dropped(seed):
        torch.manual_seed(seed)
        return Dropout(0.5)(torch.ones(100))

    assert torch.equal(dropped(1), dropped(1))
    assert not torch.equal(dropped(1), dropped(2))


def test_dropout_passes_the_gradient_through_what_it_kept():
    x = torch.ones(50, requires_grad=True)
    dropped = Dropout(0.5)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


@pytest.mark.parametrize("p", [1.0, 1.5, -0.1, math.nan])
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


def test_fully_connected_layers_without_batch_norm_are_linear_then_relu():
    mlp = MLP(3, (4,), batch_norm=False)
    x = torch.randn(6, 3)
    linear = mlp.layers[0][0]
    torch.testing.assert_close(mlp(x)[0], (x @ linear.weight.T + linear.bias).clamp(min=0))


def test_a_fully_connected_layer_reads_the_very_output_that_the_layer_below_gives():
    torch.manual_seed(0)
    mlp = MLP(3, (40, 30), dropout=0.5, batch_norm=False)
    first, second = mlp(torch.randn(6, 3))
    linear = mlp.layers[1][0]
    kept = second != 0
    assert kept.any()
    torch.testing.assert_close(second[kept], 2 * (first @ linear.weight.T + linear.bias)[kept])


def test_no_hidden_units_give_no_outputs():
    assert MLP(3, ())(torch.randn(2, 3)) == []


def test_columns_that_share_a_table_must_agree_on_its_size():
    columns = [
        SparseFeat("a", 5, embedding_dim=4, embedding_name="t"),
        SparseFeat("b", 6, embedding_dim=4, embedding_name="t"),
    ]
    with pytest.raises(UserError, match=r"'b'.*'t'"):
        FieldEmbedding(columns)


def test_a_negative_spread_of_the_initial_embeddings_is_refused():
    with pytest.raises(UserError, match="init_std"):
        FieldEmbedding([SparseFeat("a", 5, embedding_dim=4)], init_std=-1.0)


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
