"""COLD: its SE block by hand, its feature groups, its logit. Shapes: B batch, M groups, D embedding size."""

import math

import pytest
import torch
from models import item_columns, random_features, random_labels, sparse, tables, user_columns, varlen
from torch import Tensor

from model.cold import COLD, SEBlock
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat
from training.predict import is_two_tower
from training.trainer import Trainer

ALL_COLUMNS = [*user_columns(), *item_columns()]
USER_GROUPS, ITEM_GROUPS = ["user_id", "gender"], ["movie_id", "genres"]
CROSSES = ["user_id x movie_id", "user_id x genres", "gender x movie_id", "gender x genres"]


def cold(user: list | None = None, item: list | None = None, **options) -> COLD:
    """A small model; embeddings are large, so that every feature shows in the logit."""
    torch.manual_seed(0)
    options = {"dnn_hidden_units": (8, 6), "init_std": 1.0} | options
    return COLD(user or user_columns(), item or item_columns(), **options)


def se_block_with(weight: list, bias: list) -> SEBlock:
    se_block = SEBlock(num_groups=len(bias), embedding_dim=2)
    with torch.no_grad():
        se_block.excitation.weight.copy_(torch.tensor(weight))
        se_block.excitation.bias.copy_(torch.tensor(bias))
    return se_block


def groups_by_name(model: COLD, features: dict[str, Tensor]) -> dict[str, Tensor]:
    groups_BMD, _ = model._groups(features)
    return dict(zip(model.group_names, groups_BMD.unbind(1), strict=True))


def test_the_se_block_multiplies_each_group_by_the_sigmoid_of_a_score_of_all_groups():
    # The first group's score reads the second group, 3 * log 3 / 3; the second's the first, log 3 - 2 log 3.
    log_3 = math.log(3)
    se_block = se_block_with([[0.0, 0.0, log_3 / 3, 0.0], [0.0, -log_3, 0.0, 0.0]], [0.0, log_3])
    groups_BMD = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    torch.testing.assert_close(se_block.weights(groups_BMD), torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(se_block(groups_BMD), torch.tensor([[[0.75, 1.5], [0.75, 1.0]]]))


def test_the_weights_of_groups_lie_between_zero_and_one_and_do_not_compete():
    weight, groups_BMD = torch.randn(3, 6).tolist(), torch.randn(5, 3, 2)
    weights_BM = se_block_with(weight, [0.0, 1.0, -1.0]).weights(groups_BMD)
    raised_BM = se_block_with(weight, [0.0, 9.0, -1.0]).weights(groups_BMD)
    assert ((weights_BM > 0) & (weights_BM < 1)).all()
    assert (raised_BM[:, 1] > weights_BM[:, 1]).all()
    torch.testing.assert_close(raised_BM[:, [0, 2]], weights_BM[:, [0, 2]])


def test_the_groups_are_the_users_fields_then_the_items_then_the_crosses():
    assert cold().group_names == USER_GROUPS + ITEM_GROUPS + CROSSES
    # A list comes behind the sparse fields of its side, whatever the order of the columns is.
    model = cold([varlen("tags"), sparse("user_id")], [sparse("movie_id")])
    assert model.group_names == ["user_id", "tags", "movie_id", "user_id x movie_id", "tags x movie_id"]


@pytest.mark.parametrize("groups", [None, ["gender x genres", "genres", "user_id x movie_id"]])
def test_a_cross_is_the_elementwise_product_of_its_two_fields(groups):
    model = cold(groups=groups)
    features = random_features(ALL_COLUMNS, num_rows=6)
    user_id, gender, movie_id, genres = tables(model)
    lists_BTD = genres(features["genres"])
    expected = {
        "user_id": user_id(features["user_id"]),
        "gender": gender(features["gender"]),
        "movie_id": movie_id(features["movie_id"]),
        "genres": lists_BTD.sum(1) / (features["genres"] > 0).sum(1, keepdim=True),
    }
    expected |= {f"{u} x {i}": expected[u] * expected[i] for u in USER_GROUPS for i in ITEM_GROUPS}
    torch.testing.assert_close(groups_by_name(model, features), {n: expected[n] for n in model.group_names})


def test_the_logit_is_a_network_over_weighed_groups_and_dense_inputs():
    model = cold().eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    groups_BMD, _ = model._groups(features)
    weighed_BMD = groups_BMD * model.se_block.weights(groups_BMD)[:, :, None]
    dense = [features["user_mean_rating"], features["item_mean_rating"]]
    hidden_BW = model.mlp(torch.cat([weighed_BMD.flatten(1), *dense], dim=1))[-1]
    expected = hidden_BW @ model.output.weight[0] + model.output.bias
    torch.testing.assert_close(model(features), expected)


@pytest.mark.parametrize("num_rows", [1, 6])
@pytest.mark.parametrize(
    ("user", "item"),
    [
        (user_columns(), item_columns()),
        ([sparse("user_id")], [sparse("movie_id")]),
        ([varlen("tags"), DenseFeat("interests", 3)], [varlen("genres")]),
    ],
    ids=["all kinds", "one field each", "lists alone"],
)
def test_there_is_a_logit_per_row(user, item, num_rows):
    model = cold(user, item).eval()
    assert model(random_features([*user, *item], num_rows)).shape == (num_rows,)
    assert not is_two_tower(model)


def test_every_parameter_learns():
    model = cold(dnn_dropout=0.0)
    model(random_features(ALL_COLUMNS, num_rows=16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.dim() == 1 or parameter.grad.abs().max() > 0, name


def test_more_padding_of_a_list_changes_nothing():
    model = cold().eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    genres = features["genres"]
    for rewritten in (torch.cat([genres, torch.zeros_like(genres)], 1), torch.cat([genres * 0, genres], 1)):
        torch.testing.assert_close(model(features | {"genres": rewritten}), model(features))


@pytest.mark.parametrize("name", [column.name for column in ALL_COLUMNS])
def test_every_feature_enters_the_logit(name):
    model = cold().eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    value = 5.0 if features[name].is_floating_point() else 1
    assert not torch.allclose(model(features | {name: torch.full_like(features[name], value)}), model(features))


def test_importance_is_the_mean_weight_of_each_group_the_greatest_first():
    model = cold(groups=["user_id", "genres", "gender x genres"])
    with torch.no_grad():
        model.se_block.excitation.bias.copy_(torch.tensor([-3.0, 3.0, 0.0]))
    features = random_features(ALL_COLUMNS, num_rows=6)
    weights_BM = torch.sigmoid(model.se_block.excitation(model._groups(features)[0].flatten(1)))
    importance = model.importance(features)
    assert importance == pytest.approx(dict(zip(model.group_names, weights_BM.mean(0).tolist(), strict=True)))
    assert list(importance) == ["genres", "gender x genres", "user_id"]


@pytest.mark.parametrize("groups", [["user_id", "genres"], ["genres", "user_id"]])
def test_the_chosen_groups_alone_are_used_and_trained(groups):
    model = cold(groups=groups, dnn_dropout=0.0)
    assert model.group_names == ["user_id", "genres"]
    features, labels = random_features(ALL_COLUMNS, num_rows=16), random_labels(16)
    trainer = Trainer(model, learning_rate=0.01)
    losses = [trainer.step(features, labels)[0] for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    model.eval()
    others = {name: torch.ones_like(features[name]) for name in ("gender", "movie_id")}
    assert torch.equal(model(features | others), model(features))
    assert not torch.allclose(model(features | {"user_id": torch.ones_like(features["user_id"])}), model(features))


@pytest.mark.parametrize(
    ("groups", "got"), [(["user_id", "age", "movie_id x user_id"], "age, movie_id x user_id"), ([], "none")]
)
def test_groups_that_do_not_exist_are_refused(groups, got):
    with pytest.raises(UserError, match=f"groups: expected some of user_id, gender, .* x genres, got {got}"):
        cold(groups=groups)


@pytest.mark.parametrize(
    ("user", "item", "got"),
    [
        ([sparse("user_id", embedding_dim=8)], item_columns(), "1 of 8 and 2 of 4"),
        ([DenseFeat("age", 1)], item_columns(), "0 of 0 and 2 of 4"),
        (user_columns(), [DenseFeat("price", 1)], "2 of 4 and 0 of 0"),
    ],
)
def test_sides_whose_fields_cannot_be_multiplied_are_refused(user, item, got):
    with pytest.raises(UserError, match=f"fields of one embedding_dim on both sides, .* got {got}"):
        cold(user, item)
