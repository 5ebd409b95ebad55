"""DSSM: its similarities by hand, its learned temperature, its last layer. Shapes: B batch, W layer width."""

import math

import pytest
import torch
from models import ALL_COLUMNS, random_features, random_labels, small_model, user_columns

from model.dssm import Similarity
from training.trainer import Trainer


@pytest.mark.parametrize(("kind", "expected"), [("temperature", 1.92 + 0.25), ("paper", 0.96 + 0.25), ("dot", 24.25)])
def test_the_logit_of_two_outputs_is_the_similarity_and_the_bias(kind, expected):
    # (3, 4) and (4, 3) have length 5 and the dot product 24; the temperature is one half.
    similarity = Similarity(kind, initial_temperature=0.5)
    torch.nn.init.constant_(similarity.bias, 0.25)
    user_BW, item_BW = similarity.vector(torch.tensor([[3.0, 4.0]])), similarity.vector(torch.tensor([[4.0, 3.0]]))
    torch.testing.assert_close(similarity(user_BW, item_BW), torch.tensor([expected]))


@pytest.mark.parametrize(("similarity", "factor"), [("temperature", 5.0), ("paper", 1.0), ("dot", None)])
def test_forward_is_the_similarity_of_what_the_towers_give(similarity, factor):
    model = small_model("DSSM", similarity=similarity, initial_temperature=0.2).eval()
    torch.nn.init.constant_(model.similarity.bias, 0.25)
    features = random_features(ALL_COLUMNS, num_rows=6)
    user_BW, item_BW = model.user_tower(features), model.item_tower(features)
    dot_B = (user_BW * item_BW).sum(1)
    lengths_B = user_BW.square().sum(1).sqrt() * item_BW.square().sum(1).sqrt()
    expected = dot_B if factor is None else factor * dot_B / lengths_B
    torch.testing.assert_close(model(features), expected + 0.25)
    # What is cached has length one under a cosine, and one similarity alone learns its temperature.
    cached_BW = user_BW if factor is None else user_BW / user_BW.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.encode_user(features), [cached_BW])
    assert ("similarity.log_temperature" in dict(model.named_parameters())) == (similarity == "temperature")


def test_the_temperature_starts_where_it_is_told_and_is_learned():
    model = small_model("DSSM", initial_temperature=0.2)
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


def test_a_linear_output_is_linear_alone():
    # In training mode, batch norm would make a row depend on its batch, dropout on chance, and ReLU cut it at 0.
    tower = small_model("DSSM", dnn_hidden_units=(16,), dnn_dropout=0.5).user_tower
    features = random_features(user_columns(), num_rows=6)
    output_BW = tower(features)
    one_by_one = torch.cat([tower({n: values[row : row + 1] for n, values in features.items()}) for row in range(6)])
    torch.testing.assert_close(output_BW, one_by_one)
    assert (output_BW < 0).any()
    assert (output_BW > 0).any()


def test_the_layers_below_a_linear_output_and_a_last_layer_by_default_end_in_relu():
    features = random_features(user_columns(), num_rows=6)
    below = small_model("DSSM", dnn_hidden_units=(16, 16)).user_tower
    fields_BFD, dense_BN = below.embedding(features)
    assert (below.mlp(torch.cat([fields_BFD.flatten(1), dense_BN], dim=1))[0] >= 0).all()
    assert (small_model("DSSM", linear_output=False).user_tower(features) >= 0).all()
