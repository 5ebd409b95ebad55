"""What the ablation puts in the place of IntTower's parts. Shapes: B batch, F fields, D embedding size."""

import pytest
import torch
from models import int_tower, item_columns, random_features, random_labels, user_columns

from model.dssm import DSSM
from model.dssm_cir import DSSMCIR
from model.IntTower import CIR, SENET, DotProduct, LightSE
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat

NARROW = {"dnn_hidden_units": (8, 6), "init_std": 0.5}


def two_towers(model: type, **options):
    torch.manual_seed(0)
    return model(user_columns(), item_columns(), **NARROW, **options)


def batch(model, num_rows: int = 12) -> tuple[dict, torch.Tensor]:
    return random_features(model.columns, num_rows), random_labels(num_rows)


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


def test_without_reweighting_a_towers_input_is_its_embeddings_and_numbers():
    model = int_tower(reweighting="none").eval()
    features = random_features(user_columns(), 5)
    fields_BFD, dense_BN = model.user_tower.embedding(features)
    torch.testing.assert_close(model.user_tower(features)[0], torch.cat([fields_BFD.flatten(1), dense_BN], dim=1))


@pytest.mark.parametrize("levels", ["all", "last"])
def test_without_the_fe_block_the_logit_is_the_dot_product_of_the_last_layers(levels):
    model = int_tower(interaction="dot", levels=levels).eval()
    torch.nn.init.constant_(model.interaction.bias, 0.25)
    features, _ = batch(model)
    expected = (model.user_tower(features)[-1] * model.item_tower(features)[-1]).sum(1) + 0.25
    torch.testing.assert_close(model(features), expected)


def test_without_the_fe_block_cir_compares_the_last_layers():
    model = int_tower(interaction="dot", cir_weight=2.0, cir_temperature=0.5).eval()
    features, labels = batch(model)
    _, losses = model(features, labels)
    user_BW, item_BW = model.user_tower(features)[-1], model.item_tower(features)[-1]
    torch.testing.assert_close(losses["cir"], 2.0 * CIR(0.5)(user_BW, item_BW, labels, features["movie_id"]))


def test_a_dot_product_of_layers_of_different_widths_is_refused():
    with pytest.raises(UserError, match="expected layers of one width for a dot product, got 8 and 5"):
        int_tower(interaction="dot", levels=[0])


def test_a_dot_product_has_one_parameter_and_no_heads():
    assert [name for name, _ in DotProduct().named_parameters()] == ["bias"]


@pytest.mark.parametrize(
    ("option", "choices"), [("reweighting", "light_se, senet, none"), ("interaction", "fe_block, dot")]
)
def test_an_unknown_part_is_refused_with_the_choices(option, choices):
    with pytest.raises(UserError, match=f"{option}: expected one of {choices}, got 'other'"):
        int_tower(**{option: "other"})


def test_the_two_tower_with_cir_scores_as_the_plain_one():
    plain, with_cir = two_towers(DSSM).eval(), two_towers(DSSMCIR).eval()
    features, labels = batch(plain)
    assert torch.equal(plain(features), with_cir(features))
    assert torch.equal(plain(features), with_cir(features, labels)[0])


def test_the_two_towers_cir_compares_the_vectors_whose_similarity_is_the_logit():
    model = two_towers(DSSMCIR, cir_weight=3.0, cir_temperature=0.2).eval()
    features, labels = batch(model)
    user_BW, item_BW = model.encode_user(features)[0], model.encode_item(features)[0]
    _, losses = model(features, labels)
    torch.testing.assert_close(losses["cir"], 3.0 * CIR(0.2)(user_BW, item_BW, labels, features["movie_id"]))
    losses["cir"].backward()
    assert model.item_tower.mlp.layers[0][0].weight.grad.abs().sum() > 0


def test_with_weight_0_the_two_tower_has_no_second_loss():
    model = two_towers(DSSMCIR, cir_weight=0.0)
    assert model(*batch(model))[1] == {}


def test_cir_needs_the_items_id_and_a_weight_of_at_least_0():
    with pytest.raises(UserError, match="expected a SparseFeat with the item's id"):
        DSSMCIR(user_columns(), [DenseFeat("item_mean_rating", 1)], **NARROW)
    with pytest.raises(UserError, match="cir_weight: expected a number of at least 0, got -1"):
        two_towers(DSSMCIR, cir_weight=-1.0)
