"""IntTower as a whole: its options, its two ways of scoring, its gradients, what padding may do."""

import pytest
import torch
from models import (
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
from torch.nn import functional

from model import MODELS, model_class
from model.IntTower import IntTower
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat

ALL_COLUMNS = [*user_columns(), *item_columns()]
TOWERS = {
    "one field each": ([sparse("user_id")], [sparse("movie_id")]),
    "sparse and dense": ([sparse("user_id"), DenseFeat("age", 1)], [sparse("movie_id"), DenseFeat("price", 2)]),
    "sparse and varlen": ([sparse("user_id"), varlen("tags")], [varlen("genres"), sparse("movie_id")]),
    "a dense user": ([DenseFeat("age", 1), DenseFeat("interests", 3)], [sparse("movie_id")]),
    "towers of different embedding sizes": ([sparse("user_id", embedding_dim=2)], [sparse("movie_id")]),
    "a list with its length": ([sparse("user_id")], [sparse("movie_id"), varlen("genres", length_name="num_genres")]),
}
LEVELS = ["all", "last", [0], [0, 2]]


def score_apart(model: IntTower, features: dict) -> torch.Tensor:
    """Each tower gets its own features and nothing else."""
    user = model.encode_user({name: features[name] for name in model.user_feature_names})
    item = model.encode_item({name: features[name] for name in model.item_feature_names})
    return model.score(user, item)


def test_the_constructor_call_of_the_seed_gives_a_logit_per_row():
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
    logits = model(random_features(ALL_COLUMNS, num_rows=5))
    assert logits.shape == (5,)
    assert logits.dtype == torch.float32


def test_from_columns_is_the_constructor_and_the_registry_knows_it():
    torch.manual_seed(0)
    built = model_class("IntTower").from_columns(user_columns(), item_columns(), dnn_hidden_units=(6, 4))
    torch.manual_seed(0)
    constructed = IntTower(user_columns(), item_columns(), dnn_hidden_units=(6, 4))
    features = random_features(ALL_COLUMNS, num_rows=5)
    assert "IntTower" in MODELS
    assert type(built) is IntTower
    assert torch.equal(built.eval()(features), constructed.eval()(features))


@pytest.mark.parametrize("towers", TOWERS)
@pytest.mark.parametrize("fe_input", ["output", "input"])
def test_forward_is_the_score_of_the_user_and_the_item_encoded_apart(towers, fe_input):
    user, item = TOWERS[towers]
    model = int_tower(user, item, fe_input=fe_input).eval()
    features = random_features([*user, *item], num_rows=6)
    logits = model(features)
    torch.testing.assert_close(score_apart(model, features), logits)
    assert logits.std() > 0


@pytest.mark.parametrize("hidden_units", [(6,), (6, 5), (8, 7, 6, 5, 4)])
@pytest.mark.parametrize("fe_input", ["output", "input"])
def test_any_number_of_layers_works(hidden_units, fe_input):
    model = int_tower(dnn_hidden_units=hidden_units, fe_input=fe_input).eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    assert len(model.encode_user(features)) == len(hidden_units)
    torch.testing.assert_close(score_apart(model, features), model(features))


@pytest.mark.parametrize(("user_head", "item_head", "field_dim"), [(1, 1, 1), (3, 2, 4), (2, 5, 1)])
def test_any_numbers_and_size_of_heads_work(user_head, item_head, field_dim):
    model = int_tower(user_head=user_head, item_head=item_head, field_dim=field_dim).eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    assert [level.shape for level in model.encode_user(features)] == [(6, user_head * field_dim)] * 3
    assert [level.shape for level in model.encode_item(features)] == [(6, item_head * field_dim)]
    torch.testing.assert_close(score_apart(model, features), model(features))


def test_a_dense_item_tower_works_without_cir():
    user, item = [sparse("user_id")], [DenseFeat("price", 1)]
    model = int_tower(user, item, cir_weight=0.0).eval()
    features = random_features([*user, *item], num_rows=6)
    torch.testing.assert_close(score_apart(model, features), model(features))


@pytest.mark.parametrize("item", [[DenseFeat("price", 1)], [varlen("genres")]])
def test_cir_is_refused_where_the_item_has_no_id(item):
    with pytest.raises(UserError, match="cir_weight: expected a SparseFeat with the item's id"):
        int_tower([sparse("user_id")], item)


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
        ([2, 0, 2], "output", [1, 3], 3),
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


@pytest.mark.parametrize("levels", ["none", "", "0", [], [3], [-1], [0, 5]])
def test_levels_that_do_not_exist_are_refused(levels):
    with pytest.raises(UserError, match="levels: expected 'all', 'last' or indices from 0 to 2, got"):
        int_tower(levels=levels)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("fe_input", ["output", "input"])
@pytest.mark.parametrize("cir_weight", [0.0, 1.0])
def test_every_parameter_gets_a_gradient(levels, fe_input, cir_weight):
    # A parameter without one would make DistributedDataParallel wait for it for ever.
    model = int_tower(levels=levels, fe_input=fe_input, cir_weight=cir_weight, dnn_dropout=0.0)
    features, labels = random_features(ALL_COLUMNS, num_rows=16), random_labels(16)
    logits, losses = model(features, labels)
    (functional.binary_cross_entropy_with_logits(logits, labels) + sum(losses.values())).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    for name, parameter in model.named_parameters():
        assert parameter.dim() == 1 or parameter.grad.abs().max() > 0, name


def test_more_padding_and_another_order_of_a_list_change_nothing():
    model = int_tower().eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    logits = model(features)
    genres = features["genres"]
    padding = torch.zeros_like(genres)
    for rewritten in (
        torch.cat([genres, padding], dim=1),
        torch.cat([padding, genres], dim=1),
        torch.stack([genres, padding], dim=2).flatten(1),
        genres.flip(1),
        genres.roll(1, dims=1),
    ):
        torch.testing.assert_close(model(features | {"genres": rewritten}), logits)
    other_genres = genres % 6 + 1
    assert not torch.allclose(model(features | {"genres": other_genres}), logits)


def test_a_list_without_values_is_scored():
    model = int_tower().eval()
    features = random_features(ALL_COLUMNS, num_rows=4) | {"genres": torch.zeros(4, 3, dtype=torch.int32)}
    assert torch.isfinite(model(features)).all()


def test_an_out_of_vocabulary_id_is_scored_by_its_own_embedding():
    model = int_tower().eval()
    features = random_features(ALL_COLUMNS, num_rows=4)
    unknown = model(features | {"movie_id": torch.ones(4, dtype=torch.int32)})
    padding = model(features | {"movie_id": torch.zeros(4, dtype=torch.int32)})
    assert torch.isfinite(unknown).all()
    assert not torch.allclose(unknown, padding)


def test_ids_may_be_32_or_64_bits_wide():
    model = int_tower()
    features, labels = random_features(ALL_COLUMNS, num_rows=6), random_labels(6)
    wide = {name: values if values.is_floating_point() else values.long() for name, values in features.items()}
    assert features["user_id"].dtype == torch.int32
    torch.manual_seed(0)
    logits, losses = model(features, labels)
    torch.manual_seed(0)
    wide_logits, wide_losses = model(wide, labels)
    assert torch.equal(logits, wide_logits)
    assert torch.equal(losses["cir"], wide_losses["cir"])


@pytest.mark.parametrize("combiner", ["mean", "sum", "max"])
def test_every_way_of_pooling_a_list_can_be_trained(combiner):
    user, item = [sparse("user_id")], [sparse("movie_id"), varlen("genres", combiner=combiner)]
    model = int_tower(user, item, dnn_dropout=0.0)
    features, labels = random_features([*user, *item], num_rows=8), random_labels(8)
    logits, losses = model(features, labels)
    (logits.sum() + losses["cir"]).backward()
    assert tables(model.item_tower)[1].weight.grad.abs().max() > 0


def test_rows_past_a_lists_length_change_nothing():
    user, item = TOWERS["a list with its length"]
    model = int_tower(user, item).eval()
    features = random_features([*user, *item], num_rows=6)
    filled = features["genres"].masked_fill(features["genres"] == 0, 3)
    torch.testing.assert_close(model(features | {"genres": filled}), model(features))


def test_one_user_is_scored_against_many_items_and_one_item_against_many_users():
    model = int_tower().eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    user, item = model.encode_user(features), model.encode_item(features)
    for row in (0, 4):
        one_user, one_item = [level[row : row + 1] for level in user], [level[row : row + 1] for level in item]
        repeated_user = {name: features[name][[row] * 6] for name in model.user_feature_names}
        repeated_item = {name: features[name][[row] * 6] for name in model.item_feature_names}
        torch.testing.assert_close(model.score(one_user, item), model(features | repeated_user))
        torch.testing.assert_close(model.score(user, one_item), model(features | repeated_item))


def test_the_feature_names_of_a_tower_are_all_that_it_reads():
    user, item = TOWERS["a list with its length"]
    model = int_tower(user, item)
    assert model.user_feature_names == ["user_id"]
    assert model.item_feature_names == ["movie_id", "genres", "num_genres"]


def test_without_labels_the_model_gives_logits_and_with_labels_its_losses_too():
    model = int_tower(dnn_dropout=0.0)
    features, labels = random_features(ALL_COLUMNS, num_rows=6), random_labels(6)
    logits, losses = model(features, labels)
    torch.testing.assert_close(logits, model(features))
    assert list(losses) == ["cir"]
    assert losses["cir"].shape == ()
    assert losses["cir"] > 0


def test_a_cir_weight_of_zero_leaves_no_auxiliary_loss():
    model = int_tower(cir_weight=0.0)
    _, losses = model(random_features(ALL_COLUMNS, num_rows=6), random_labels(6))
    assert losses == {}


def test_labels_do_not_change_the_logits():
    model = int_tower(dnn_dropout=0.0)
    features, labels = random_features(ALL_COLUMNS, num_rows=6), random_labels(6)
    assert torch.equal(model(features, labels)[0], model(features, 1 - labels)[0])


def test_dropout_acts_in_training_and_not_in_evaluation():
    model = int_tower(dnn_dropout=0.5)
    features = random_features(ALL_COLUMNS, num_rows=6)
    assert not torch.equal(model(features), model(features))
    model.eval()
    assert torch.equal(model(features), model(features))


def test_light_se_residual_is_an_option_of_the_model():
    features = random_features(ALL_COLUMNS, num_rows=6)
    with_residual, without_residual = int_tower().eval(), int_tower(light_se_residual=False).eval()
    assert not torch.allclose(with_residual(features), without_residual(features))
    torch.testing.assert_close(score_apart(without_residual, features), without_residual(features))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (int_tower(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["interaction.item_projection.weight"], other["interaction.item_projection.weight"])
    assert not torch.equal(
        first["user_tower.reweighting.excitation.weight"], other["user_tower.reweighting.excitation.weight"]
    )


def test_init_std_is_the_spread_of_the_embeddings_of_both_towers():
    model = int_tower([sparse("user_id", 5000)], [sparse("movie_id", 5000)], init_std=0.02)
    for tower in (model.user_tower, model.item_tower):
        assert tables(tower)[0].weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_saved_weights_give_the_same_logits():
    features = random_features(ALL_COLUMNS, num_rows=6)
    trained, loaded = int_tower(seed=1).eval(), int_tower(seed=2).eval()
    assert not torch.allclose(loaded(features), trained(features))
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(features), trained(features))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "regression"}, "task: expected 'binary', got 'regression'"),
        ({"fe_input": "both"}, "fe_input: expected one of output, input, got 'both'"),
        ({"field_dim": 0}, "heads: expected 1 or more, got 2 x 2 heads of size 0"),
        ({"user_head": 0}, "heads: expected 1 or more, got 0 x 2 heads of size 3"),
        ({"item_head": -1}, "heads: expected 1 or more, got 2 x -1 heads of size 3"),
        ({"dnn_hidden_units": ()}, "dnn_hidden_units: expected at least one layer, got none"),
        ({"cir_temperature": 0.0}, "cir_temperature: expected a number above 0, got 0.0"),
        ({"dnn_dropout": 1.0}, r"dropout: expected a probability in \[0, 1\), got 1.0"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        int_tower(**options)


def test_columns_of_different_embedding_sizes_in_one_tower_are_refused():
    with pytest.raises(UserError, match="expected one embedding_dim within a tower"):
        int_tower([sparse("user_id", embedding_dim=4), sparse("gender", embedding_dim=8)])
    with pytest.raises(UserError, match="expected at least one feature column in each tower"):
        IntTower([], item_columns())


@pytest.mark.parametrize(
    "options", [{"cir_weight": -1.0}, {"cir_weight": float("nan")}, {"cir_temperature": float("nan")}]
)
def test_a_contrastive_loss_that_is_no_number_is_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        int_tower(**options)


@pytest.mark.parametrize("levels", [1, [0.5], None, ["0"]])
def test_levels_of_another_kind_are_refused(levels):
    with pytest.raises(UserError, match="levels"):
        int_tower(levels=levels)
