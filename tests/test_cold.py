"""COLD: its SE block by hand, its feature groups, its logit. Shapes: B batch, M groups, D embedding size."""

import math

import pytest
import torch
from models import (
    ALL_COLUMNS,
    item_columns,
    random_features,
    random_labels,
    small_model,
    sparse,
    tables,
    user_columns,
    varlen,
)
from torch import Tensor

from model.cold import COLD, SEBlock
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat
from training.trainer import Trainer

USER_GROUPS, ITEM_GROUPS = ["user_id", "gender"], ["movie_id", "genres"]
CROSSES = ["user_id x movie_id", "user_id x genres", "gender x movie_id", "gender x genres"]


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


def test_the_groups_are_the_users_fields_then_the_items_then_the_crosses():
    assert small_model("COLD").group_names == USER_GROUPS + ITEM_GROUPS + CROSSES
    # A list comes behind the sparse fields of its side, whatever the order of the columns is.
    model = small_model("COLD", [varlen("tags"), sparse("user_id")], [sparse("movie_id")])
    assert model.group_names == ["user_id", "tags", "movie_id", "user_id x movie_id", "tags x movie_id"]
    assert small_model("COLD", groups="fields").group_names == USER_GROUPS + ITEM_GROUPS
    assert small_model("COLD", groups="all").group_names == small_model("COLD").group_names


@pytest.mark.parametrize("groups", [None, ["gender x genres", "genres", "user_id x movie_id"]])
def test_a_cross_is_the_elementwise_product_of_its_two_fields(groups):
    model = small_model("COLD", groups=groups)
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
    model = small_model("COLD").eval()
    features = random_features(ALL_COLUMNS, num_rows=6)
    groups_BMD, _ = model._groups(features)
    weighed_BMD = groups_BMD * model.se_block.weights(groups_BMD)[:, :, None]
    dense = [features["user_mean_rating"], features["item_mean_rating"]]
    hidden_BW = model.mlp(torch.cat([weighed_BMD.flatten(1), *dense], dim=1))[-1]
    expected = hidden_BW @ model.output.weight[0] + model.output.bias
    torch.testing.assert_close(model(features), expected)


def test_importance_is_the_mean_weight_of_each_group_the_greatest_first():
    model = small_model("COLD", groups=["user_id", "genres", "gender x genres"])
    with torch.no_grad():
        model.se_block.excitation.bias.copy_(torch.tensor([-3.0, 3.0, 0.0]))
    features = random_features(ALL_COLUMNS, num_rows=6)
    weights_BM = torch.sigmoid(model.se_block.excitation(model._groups(features)[0].flatten(1)))
    importance = model.importance(features)
    assert importance == pytest.approx(dict(zip(model.group_names, weights_BM.mean(0).tolist(), strict=True)))
    assert list(importance) == ["genres", "gender x genres", "user_id"]


@pytest.mark.parametrize("groups", [["user_id", "genres"], ["genres", "user_id"]])
def test_the_chosen_groups_alone_are_used_and_trained(groups):
    model = small_model("COLD", groups=groups)
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
        small_model("COLD", groups=groups)


@pytest.mark.parametrize(
    ("user", "item", "got"),
    [
        ([sparse("user_id", embedding_dim=8)], item_columns(), "1 of 8 and 2 of 4"),
        ([DenseFeat("age", 1)], [DenseFeat("price", 1)], "0 of 0 and 0 of 0"),
        (user_columns(), [DenseFeat("price", 1)], "2 of 4 and 0 of 0"),
    ],
)
def test_sides_whose_fields_cannot_be_multiplied_are_refused(user, item, got):
    with pytest.raises(UserError, match=f"fields of one embedding_dim on both sides, .* got {got}"):
        small_model("COLD", user, item)
