"""IntTower as a whole: its levels, its heads, its towers of any columns."""

import pytest
import torch
from models import (
    ALL_COLUMNS,
    encoded_apart,
    int_tower,
    item_columns,
    plain_maxsim,
    random_features,
    random_labels,
    sparse,
    tables,
    user_columns,
    varlen,
)

from model import model_class
from model.IntTower import IntTower
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat

TOWERS = {
    "one field each": ([sparse("user_id")], [sparse("movie_id")]),
    "sparse and dense": ([sparse("user_id"), DenseFeat("age", 1)], [sparse("movie_id"), DenseFeat("price", 2)]),
    "a dense user": ([DenseFeat("age", 1), DenseFeat("interests", 3)], [sparse("movie_id")]),
    "a dense item": ([sparse("user_id")], [DenseFeat("price", 1)]),
    "towers of different embedding sizes": ([sparse("user_id", embedding_dim=2)], [sparse("movie_id")]),
}


def test_the_constructor_call_of_the_seed_is_from_columns():
    torch.manual_seed(0)
    model = IntTower(
        user_columns(),
        item_columns(),
        field_dim=64,
        task="binary",
        dnn_dropout=0.3,
        device="cpu",
        user_head=32,
        item_head=32,
    )
    torch.manual_seed(0)
    options = {"field_dim": 64, "user_head": 32, "item_head": 32}
    built = model_class("IntTower").from_columns(user_columns(), item_columns(), **options)
    features = random_features(ALL_COLUMNS, num_rows=5)
    assert type(built) is IntTower
    assert torch.equal(model.eval()(features), built.eval()(features))


@pytest.mark.parametrize("towers", TOWERS)
@pytest.mark.parametrize("fe_input", ["output", "input"])
def test_towers_of_any_columns_are_encoded_apart(towers, fe_input):
    user, item = TOWERS[towers]
    model = int_tower(user, item, fe_input=fe_input, cir_weight=0.0).eval()
    features = random_features([*user, *item], num_rows=6)
    torch.testing.assert_close(model.score(*encoded_apart(model, features)), model(features))
    assert model(features).std() > 0


@pytest.mark.parametrize("hidden_units", [(6,), (8, 7, 6, 5, 4)])
@pytest.mark.parametrize("fe_input", ["output", "input"])
@pytest.mark.parametrize(("user_head", "item_head", "field_dim"), [(1, 1, 1), (3, 2, 4)])
def test_any_number_of_layers_and_heads_works(hidden_units, fe_input, user_head, item_head, field_dim):
    heads = {"user_head": user_head, "item_head": item_head, "field_dim": field_dim}
    model = int_tower(dnn_hidden_units=hidden_units, fe_input=fe_input, **heads).eval()
    users, items = encoded_apart(model, random_features(ALL_COLUMNS, num_rows=6))
    assert [level.shape for level in users] == [(6, user_head * field_dim)] * len(hidden_units)
    assert [level.shape for level in items] == [(6, item_head * field_dim)]
    assert model.score(users, items).shape == (6,)


@pytest.mark.parametrize(
    ("levels", "fe_input", "user_layers", "item_layer"),
    [
        # Layer 0 is the tower's input, layer i the output of its i-th fully connected layer.
        ("all", "output", [1, 2, 3], 3),
        ("all", "input", [0, 1, 2], 2),
        ("last", "output", [3], 3),
        ("last", "input", [2], 2),
        ([0], "output", [1], 3),
        ([0], "input", [0], 2),
        ([0, 2], "output", [1, 3], 3),
        ([2, 0], "output", [1, 3], 3),
        ((1,), "input", [1], 2),
    ],
)
def test_the_logit_sums_the_chosen_user_levels_against_the_last_item_level(levels, fe_input, user_layers, item_layer):
    model = int_tower(levels=levels, fe_input=fe_input).eval()
    torch.nn.init.constant_(model.interaction.bias, 0.25)
    features = random_features(ALL_COLUMNS, num_rows=6)
    user_outputs, item_outputs = model.user_tower(features), model.item_tower(features)
    item_BGK = model.interaction.item_projection(item_outputs[item_layer]).view(6, 2, 3)
    expected = torch.full((6,), 0.25)
    for project, layer in zip(model.interaction.user_projections, user_layers, strict=True):
        expected = expected + plain_maxsim(project(user_outputs[layer]).view(6, 2, 3), item_BGK)
    torch.testing.assert_close(model(features), expected)


@pytest.mark.parametrize("levels", ["none", "0", [], [3], [-1], [0, 5], 1, [0.5], None])
def test_levels_that_do_not_exist_are_refused(levels):
    with pytest.raises(UserError, match="levels: expected 'all', 'last' or indices from 0 to 2, got"):
        int_tower(levels=levels)


@pytest.mark.parametrize("combiner", ["mean", "sum", "max"])
def test_every_way_of_pooling_a_list_can_be_trained(combiner):
    user, item = [sparse("user_id")], [sparse("movie_id"), varlen("genres", combiner=combiner)]
    model = int_tower(user, item, dnn_dropout=0.0)
    features, labels = random_features([*user, *item], num_rows=8), random_labels(8)
    logits, losses = model(features, labels)
    (logits.sum() + losses["cir"]).backward()
    assert tables(model.item_tower)[1].weight.grad.abs().max() > 0


def test_the_feature_names_of_a_tower_are_all_that_it_reads():
    model = int_tower([sparse("user_id")], [sparse("movie_id"), varlen("genres", length_name="num_genres")])
    assert model.user_feature_names == ["user_id"]
    assert model.item_feature_names == ["movie_id", "genres", "num_genres"]


def test_light_se_residual_is_an_option_of_the_model():
    features = random_features(ALL_COLUMNS, num_rows=6)
    with_residual, without_residual = int_tower().eval(), int_tower(light_se_residual=False).eval()
    assert not torch.allclose(with_residual(features), without_residual(features))


def test_biases_are_linear_in_each_towers_input_and_begin_at_nothing():
    user, item = user_columns(), item_columns()
    torch.manual_seed(0)
    model = IntTower(user, item, biases=True, dnn_hidden_units=(8, 4), field_dim=4).eval()
    torch.manual_seed(0)
    without = IntTower(user, item, dnn_hidden_units=(8, 4), field_dim=4).eval()
    features = random_features([*user, *item], num_rows=5)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("biases")}
    without.load_state_dict(weights)
    torch.testing.assert_close(model(features), without(features))
    with torch.no_grad():
        for bias in model.biases:
            torch.nn.init.normal_(bias.weight)
    inputs = [tower(features)[0] for tower in (model.user_tower, model.item_tower)]
    added = sum(x_BW @ bias.weight[0] for x_BW, bias in zip(inputs, model.biases, strict=True))
    torch.testing.assert_close(model(features), without(features) + added)
    # One user meets every item, and CIR compares heads alone.
    one, many = model.encode_user({n: v[:1] for n, v in features.items()}), model.encode_item(features)
    assert model.score(one, many).shape == (5,)
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    assert torch.equal(model(features, labels)[1]["cir"], without(features, labels)[1]["cir"])
