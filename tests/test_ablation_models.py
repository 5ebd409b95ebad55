"""What the ablation puts in the place of IntTower's parts. Shapes: B batch, F fields, D embedding size."""

import pytest
import torch
from models import ALL_COLUMNS, int_tower, random_features, random_labels, small_model, user_columns

from model.IntTower import CIR, SENET, LightSE
from preprocessing.errors import UserError


def test_senet_multiplies_each_field_by_a_gate_that_two_layers_make_of_the_means():
    senet = SENET(field_size=3)
    first, last = senet.excitation[0], senet.excitation[2]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 2.0, 0.0]]))
        first.bias.copy_(torch.tensor([0.5]))
        last.weight.copy_(torch.tensor([[1.0], [-1.0], [0.0]]))
        last.bias.zero_()
    fields_BFD = torch.tensor([[[1.0, 3.0], [0.0, 1.0], [5.0, 7.0]]])
    # The means are 2, .5 and 6; the bottleneck relu(2 + 1 + .5) is 3.5; the gates are sigmoids of 3.5, -3.5 and 0.
    gates_F = torch.tensor([3.5, -3.5, 0.0]).sigmoid()
    torch.testing.assert_close(senet(fields_BFD), fields_BFD * gates_F[None, :, None])


@pytest.mark.parametrize(("field_size", "bottleneck"), [(1, 1), (2, 1), (4, 1), (9, 3)])
def test_senets_bottleneck_is_a_third_of_the_fields_and_at_least_one(field_size, bottleneck):
    assert SENET(field_size).excitation[0].out_features == bottleneck


@pytest.mark.parametrize(
    ("reweighting", "kind"), [("light_se", LightSE), ("senet", SENET), ("none", torch.nn.Identity)]
)
def test_both_towers_reweight_their_fields_as_asked(reweighting, kind):
    model = int_tower(reweighting=reweighting)
    assert all(type(tower.reweighting) is kind for tower in (model.user_tower, model.item_tower))
    features = random_features(user_columns(), 5)
    fields_BFD, dense_BN = model.user_tower.embedding(features)
    reweighted_BFD = model.user_tower.reweighting(fields_BFD)
    expected = torch.cat([reweighted_BFD.flatten(1), dense_BN], dim=1)
    torch.testing.assert_close(model.user_tower(features)[0], expected)


def test_a_dot_product_of_layers_of_different_widths_is_refused():
    with pytest.raises(UserError, match="expected layers of one width for a dot product, got 8 and 5"):
        int_tower(interaction="dot", levels=[0])


@pytest.mark.parametrize("levels", ["all", "last"])
def test_without_the_fe_block_the_last_layers_make_the_logit_and_are_contrasted(levels):
    model = int_tower(interaction="dot", levels=levels, cir_weight=2.0, cir_temperature=0.5).eval()
    torch.nn.init.constant_(model.interaction.bias, 0.25)
    features, labels = random_features(ALL_COLUMNS, 12), random_labels(12)
    user_BW, item_BW = model.user_tower(features)[-1], model.item_tower(features)[-1]
    logits, losses = model(features, labels)
    torch.testing.assert_close(logits, (user_BW * item_BW).sum(1) + 0.25)
    torch.testing.assert_close(losses["cir"], 2.0 * CIR(0.5)(user_BW, item_BW, labels, features["movie_id"]))


def test_the_two_tower_with_cir_is_the_plain_one_whose_vectors_are_contrasted():
    plain = small_model("DSSM").eval()
    model = small_model("DSSMCIR", cir_weight=3.0, cir_temperature=0.2).eval()
    features, labels = random_features(ALL_COLUMNS, 12), random_labels(12)
    logits, losses = model(features, labels)
    assert torch.equal(plain(features), logits)
    user_BW, item_BW = model.encode_user(features)[0], model.encode_item(features)[0]
    torch.testing.assert_close(losses["cir"], 3.0 * CIR(0.2)(user_BW, item_BW, labels, features["movie_id"]))
    losses["cir"].backward()
    assert all(tower.mlp.layers[0][0].weight.grad.abs().max() > 0 for tower in (model.user_tower, model.item_tower))
