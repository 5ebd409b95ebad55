"""DSSM: its similarities by hand, its learned temperature, its two ways of scoring. Shapes: B batch, W layer width."""

import math

import numpy as np
import pytest
import torch
from models import item_columns, random_features, random_labels, user_columns
from torch import Tensor

from model.dssm import DSSM, SIMILARITIES, Similarity
from preprocessing.errors import UserError
from preprocessing.tables import Table
from training.predict import predict_decoupled, predict_jointly
from training.trainer import Trainer

ALL_COLUMNS = [*user_columns(), *item_columns()]


def dssm(**options) -> DSSM:
    """A small model; embeddings are large, so that every feature shows, and no output is cut to zeros by ReLU."""
    torch.manual_seed(0)
    options = {"dnn_hidden_units": (8, 16), "init_std": 0.5, "linear_output": True} | options
    return DSSM(user_columns(), item_columns(), **options)


def other_value(values: Tensor) -> Tensor:
    """Another number, or another id that is no padding, in every row."""
    return values + 1.0 if values.is_floating_point() else values.masked_fill(values > 0, 1) + (values == 1)


@pytest.mark.parametrize(("kind", "expected"), [("temperature", 1.92 + 0.25), ("paper", 0.96 + 0.25), ("dot", 24.25)])
def test_the_logit_of_two_outputs_is_the_similarity_and_the_bias(kind, expected):
    # (3, 4) and (4, 3) have length 5 and the dot product 24; the temperature is one half.
    similarity = Similarity(kind, initial_temperature=0.5)
    torch.nn.init.constant_(similarity.bias, 0.25)
    user_BW, item_BW = similarity.vector(torch.tensor([[3.0, 4.0]])), similarity.vector(torch.tensor([[4.0, 3.0]]))
    torch.testing.assert_close(similarity(user_BW, item_BW), torch.tensor([expected]))


@pytest.mark.parametrize(("similarity", "factor"), [("temperature", 5.0), ("paper", 1.0), ("dot", None)])
def test_forward_is_the_similarity_of_what_the_towers_give(similarity, factor):
    model = dssm(similarity=similarity, initial_temperature=0.2).eval()
    torch.nn.init.constant_(model.similarity.bias, 0.25)
    features = random_features(ALL_COLUMNS, num_rows=6)
    user_BW, item_BW = model.user_tower(features), model.item_tower(features)
    dot_B = (user_BW * item_BW).sum(1)
    lengths_B = user_BW.square().sum(1).sqrt() * item_BW.square().sum(1).sqrt()
    expected = dot_B if factor is None else factor * dot_B / lengths_B
    torch.testing.assert_close(model(features), expected + 0.25)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_encoded_vectors_have_length_one_unless_the_similarity_is_the_dot_product(similarity):
    model = dssm(similarity=similarity).eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    for encode, tower in ((model.encode_user, model.user_tower), (model.encode_item, model.item_tower)):
        (vector_BW,) = encode(features)
        if similarity == "dot":
            assert torch.equal(vector_BW, tower(features))
        else:
            torch.testing.assert_close(vector_BW.norm(dim=1), torch.ones(6))


def test_the_temperature_starts_where_it_is_told_and_is_learned():
    model = dssm(initial_temperature=0.2, dnn_dropout=0.0)
    features, labels = random_features(ALL_COLUMNS, num_rows=6), random_labels(6)
    assert model.similarity.log_temperature.exp().item() == pytest.approx(0.2)
    logits = model(features)
    logits.sum().backward()
    # A logit is cosine / exp(log temperature) + bias, and the bias starts at 0.
    torch.testing.assert_close(model.similarity.log_temperature.grad, -logits.detach().sum())
    Trainer(model, learning_rate=0.05).step(features, labels)
    assert model.similarity.log_temperature.exp().item() != pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize("gradient", [1.0, -1.0])
def test_the_temperature_stays_above_zero_however_far_it_is_driven(gradient):
    similarity = Similarity("temperature", initial_temperature=0.1)
    optimizer = torch.optim.SGD([similarity.log_temperature], lr=1.0)
    similarity.log_temperature.grad = torch.tensor(gradient)
    for _ in range(20):
        optimizer.step()
    axis = torch.tensor([[1.0]])
    assert similarity(axis, axis).item() == pytest.approx(10 * math.exp(20 * gradient), rel=1e-4)


@pytest.mark.parametrize(("similarity", "learns"), [("temperature", True), ("paper", False), ("dot", False)])
def test_only_the_tempered_cosine_has_a_temperature(similarity, learns):
    assert ("similarity.log_temperature" in dict(dssm(similarity=similarity).named_parameters())) == learns


def test_the_logits_of_a_bare_cosine_lie_within_one_of_the_bias():
    model = dssm(similarity="paper", init_std=100.0).eval()
    torch.nn.init.constant_(model.similarity.bias, 0.5)
    cosine = (model(random_features(ALL_COLUMNS, num_rows=500)) - 0.5).detach()
    assert cosine.abs().max() <= 1 + 1e-5
    assert cosine.min() < -0.3
    assert cosine.max() > 0.3


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("linear_output", [True, False])
def test_scoring_encoded_vectors_equals_scoring_pairs(similarity, linear_output):
    # Each of five users meets each of six items.
    few, user_row, item_row = random_features(ALL_COLUMNS, num_rows=6), torch.arange(30) // 6, torch.arange(30) % 6
    user_names = [column.name for column in user_columns()]
    features = {name: values[user_row if name in user_names else item_row] for name, values in few.items()}
    table = Table(features, random_labels(30), groups=np.zeros(30, np.int32), rows=np.arange(30))
    model = dssm(similarity=similarity, linear_output=linear_output)
    jointly = predict_jointly(model, table)
    np.testing.assert_allclose(predict_decoupled(model, table), jointly, rtol=1e-4, atol=1e-5)
    assert jointly.std() > 0.01


@pytest.mark.parametrize("name", [column.name for column in ALL_COLUMNS])
def test_a_feature_enters_the_vector_of_its_own_side_and_not_of_the_other(name):
    model = dssm().eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    changed = features | {name: other_value(features[name])}
    of_user = name in [column.name for column in user_columns()]
    assert torch.equal(model.encode_user(changed)[0], model.encode_user(features)[0]) != of_user
    assert torch.equal(model.encode_item(changed)[0], model.encode_item(features)[0]) == of_user


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_one_cached_row_meets_every_row_of_the_other_side(similarity):
    model = dssm(similarity=similarity).eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    (user_BW,), (item_BW,) = model.encode_user(features), model.encode_item(features)
    one_item = features | {name: features[name][[4] * 6] for name in model.item_feature_names}
    one_user = features | {name: features[name][[4] * 6] for name in model.user_feature_names}
    torch.testing.assert_close(model.score([user_BW], [item_BW[4:5]]), model(one_item))
    torch.testing.assert_close(model.score([user_BW[4:5]], [item_BW]), model(one_user))


def test_a_linear_output_is_linear_alone():
    # In training mode, batch norm would make a row depend on its batch, dropout on chance, and ReLU cut it at 0.
    tower = dssm(dnn_hidden_units=(16,), dnn_dropout=0.5).user_tower
    features = random_features(user_columns(), num_rows=6)
    output_BW = tower(features)
    one_by_one = torch.cat([tower({n: values[row : row + 1] for n, values in features.items()}) for row in range(6)])
    torch.testing.assert_close(output_BW, one_by_one)
    assert (output_BW < 0).any()
    assert (output_BW > 0).any()


def test_the_layers_below_a_linear_output_and_a_last_layer_by_default_end_in_relu():
    features = random_features(user_columns(), num_rows=6)
    below = dssm(dnn_hidden_units=(16, 16)).user_tower
    fields_BFD, dense_BN = below.embedding(features)
    assert (below.mlp(torch.cat([fields_BFD.flatten(1), dense_BN], dim=1))[0] >= 0).all()
    assert (dssm(linear_output=False).user_tower(features) >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "cosine"}, "similarity: expected one of temperature, paper, dot, got 'cosine'"),
        ({"initial_temperature": 0.0}, "initial_temperature: expected a number above 0, got 0.0"),
        ({"initial_temperature": -0.1}, "initial_temperature: expected a number above 0, got -0.1"),
        ({"initial_temperature": math.nan}, "initial_temperature: expected a number above 0, got nan"),
        ({"initial_temperature": math.inf}, "initial_temperature: expected a number above 0, got inf"),
        ({"dnn_hidden_units": ()}, "dnn_hidden_units: expected at least one layer, got none"),
        ({"task": "regression"}, "task: expected 'binary', got 'regression'"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        dssm(**options)
