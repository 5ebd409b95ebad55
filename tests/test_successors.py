"""The models that came beside and after IntTower: their equations by hand, and what their losses may teach.

Shapes: B batch, F fields, D embedding size, C codes, J kernels, K head size, W layer width.
"""

import math

import numpy as np
import pytest
import torch
from models import ALL_COLUMNS, plain_maxsim, random_features, random_labels, small_model, user_columns
from torch.nn import functional

from model.finalmlp import Fusion
from model.mvke import Experts
from model.poly_encoder import SoftMaxSim
from preprocessing.errors import UserError
from serving.heads import Heads
from serving.maxsim import maxsim


def test_hits_score_is_the_maxsim_of_its_last_layers_heads():
    model = small_model("HIT", user_head=2, item_head=3, field_dim=4).eval()
    features = random_features(ALL_COLUMNS, 6)
    user_BHK = model.encode_user(features)[0].view(6, 2, 4)
    item_BGK = model.encode_item(features)[0].view(6, 3, 4)
    torch.testing.assert_close(model(features), plain_maxsim(user_BHK, item_BGK) + model.output_bias)


@pytest.mark.parametrize("kind", ["paper", "released"])
def test_hits_loss_compares_the_guess_for_a_pairs_label_with_what_the_other_tower_made(kind):
    model = small_model("HIT", generator_weight=0.5, generator_loss=kind).eval()
    features, labels = random_features(ALL_COLUMNS, 6), random_labels(6)
    _, losses = model(features, labels)
    user, item = model.encode_user(features)[0], model.encode_item(features)[0]
    cosines = 0.0
    for tower, vector in ((model.user_tower, item), (model.item_tower, user)):
        positive, negative = tower(features)[1]
        for row in range(6):
            guess = positive if labels[row] else negative
            cosines = cosines + functional.cosine_similarity(guess[row], vector[row], dim=0)
    # The released code adds the mean of the cosines themselves, unscaled, to a sum over the batch.
    expected = 0.5 * (2 - cosines / 6) if kind == "paper" else 0.5 * cosines / 6 / 6
    torch.testing.assert_close(losses["generators"], expected)


def test_hits_generators_learn_from_their_loss_alone_and_nothing_else_learns_from_it():
    model = small_model("HIT")
    features, labels = random_features(ALL_COLUMNS, 12), random_labels(12)
    of_generators = {name for name, _ in model.named_parameters() if ".generators." in name}

    def learning(loss) -> set[str]:
        model.zero_grad()
        loss.backward()
        return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}

    logits, losses = model(features, labels)
    assert learning(losses["generators"]) == of_generators
    assert not learning(model(features).sum()) & of_generators
    assert logits.requires_grad


def test_a_poly_encoders_score_weighs_each_product_by_the_softmax_of_all():
    # The products are 1 and 3; at a temperature of 2 / log 3 their weights are as 1 to 3.
    similarity = SoftMaxSim(num_codes=2, temperature=2 / math.log(3))
    user_BCK, item_BK = torch.tensor([[[1.0, 0.0], [1.0, 2.0]]]), torch.tensor([[1.0, 1.0]])
    torch.testing.assert_close(similarity(user_BCK, item_BK), torch.tensor([0.25 * 1 + 0.75 * 3]))


def test_a_poly_encoder_near_temperature_0_is_the_maxsim_of_an_item_with_the_codes():
    model = small_model("PolyEncoder", num_codes=3, code_dim=4, code_temperature=1e-6).eval()
    features = random_features(ALL_COLUMNS, 6)
    user_BCK, item_B1K = model.encode_user(features)[0].view(6, 3, 4), model.encode_item(features)[0].view(6, 1, 4)
    torch.testing.assert_close(model(features), plain_maxsim(item_B1K, user_BCK) + model.output_bias)


def test_a_code_finds_the_mean_of_a_users_tokens_weighed_by_their_products_with_it():
    model = small_model("PolyEncoder", num_codes=2, code_dim=4).eval()
    features = random_features(user_columns(), 5)
    tower = model.user_tower
    fields_BFD, dense_BN = tower.embedding(features)
    layers = tower.mlp(torch.cat([fields_BFD.flatten(1), dense_BN], dim=1))
    for row in range(5):
        tokens = [tower.field_projection[0](field) for field in fields_BFD[row]]
        tokens += [project(layer[row]) for project, layer in zip(tower.layer_projections, layers, strict=True)]
        for code, found in zip(tower.codes, tower(features)[row], strict=True):
            weights = torch.stack([code @ token for token in tokens]).softmax(0)
            torch.testing.assert_close(found, sum(w * token for w, token in zip(weights, tokens, strict=True)))


def test_a_kernel_gives_its_expert_the_fields_weighed_by_their_products_with_it():
    experts = Experts(user_columns(), num_kernels=2, hidden_units=(5,), dropout=0.0, init_std=0.5)
    features = random_features(user_columns(), 4)
    fields_BFD, dense_BN = experts.embedding(features)
    for j, (kernel_D, mlp) in enumerate(zip(experts.kernels, experts.mlps, strict=True)):
        weights_BF = (fields_BFD @ kernel_D / 2).softmax(1)  # the root of an embedding size of 4
        view_BD = (weights_BF[:, :, None] * fields_BFD).sum(1)
        torch.testing.assert_close(experts(features)[:, j], mlp(torch.cat([view_BD, dense_BN], dim=1))[-1])


def test_mvke_folded_into_one_product_is_the_items_vector_times_the_experts_that_its_gate_mixes():
    model = small_model("MVKE", num_kernels=3).eval()
    features = random_features(ALL_COLUMNS, 6)
    fields_BFD, dense_BN = model.item_embedding(features)
    vector_BW = model.item_mlp(torch.cat([fields_BFD.flatten(1), dense_BN], dim=1))[-1]
    experts_BJW, tag_BD = model.experts(features), model.item_embedding.table("movie_id")(features["movie_id"])
    gate_BJ = (tag_BD @ model.experts.kernels.T / 2).softmax(1)
    mixed_BW = (gate_BJ[:, :, None] * experts_BJW).sum(1)
    torch.testing.assert_close(model(features), (mixed_BW * vector_BW).sum(1) + model.output_bias)


def test_the_fusion_is_two_linear_forms_and_a_bilinear_one_for_each_piece():
    fusion = Fusion(width=4, num_heads=2)
    first_BW, second_BW = torch.randn(3, 4), torch.randn(3, 4)
    torch.nn.init.constant_(fusion.bias, 0.5)
    expected = 0.5 + first_BW @ fusion.first.weight[0] + second_BW @ fusion.second.weight[0]
    for head, weights in enumerate(fusion.heads):
        piece = slice(2 * head, 2 * head + 2)
        expected = expected + torch.stack(
            [o1 @ weights @ o2 for o1, o2 in zip(first_BW[:, piece], second_BW[:, piece], strict=True)]
        )
    torch.testing.assert_close(fusion(first_BW, second_BW), expected)


def test_finalmlps_streams_read_all_inputs_through_gates_made_of_either_side():
    model = small_model("FinalMLP").eval()
    features = random_features(ALL_COLUMNS, 4)
    user_BW, item_BW = (
        torch.cat([fields.flatten(1), dense], dim=1)
        for fields, dense in (model.user_embedding(features), model.item_embedding(features))
    )
    x_BW = torch.cat([user_BW, item_BW], dim=1)
    outputs = []
    for context_BW, gate, stream in zip((user_BW, item_BW), model.gates, model.streams, strict=True):
        hidden_BG = (context_BW @ gate[0].weight.T + gate[0].bias).relu()
        gate_BW = 2 * (hidden_BG @ gate[2].weight.T + gate[2].bias).sigmoid()
        outputs.append(stream(gate_BW * x_BW)[-1])
    torch.testing.assert_close(model(features), model.fusion(*outputs))


def test_the_servable_finalmlp_has_the_logit_of_its_fusion():
    model = small_model("FinalMLPTower").eval()
    features = random_features(ALL_COLUMNS, 4)
    user_BW, item_BW = (
        stream(torch.cat([fields.flatten(1), dense], dim=1))[-1]
        for stream, (fields, dense) in zip(
            model.streams, (model.user_embedding(features), model.item_embedding(features)), strict=True
        )
    )
    torch.testing.assert_close(model(features), model.similarity(user_BW, item_BW))


def test_dcn_v2_is_dcn_with_matrices_in_its_cross_layers():
    features = random_features(ALL_COLUMNS, 4)
    ours, dcn = small_model("DCNv2").eval(), small_model("DCN", cross_parameterization="matrix").eval()
    torch.testing.assert_close(ours(features), dcn(features))
    width = ours.network.crossnet.kernels.shape[-1]
    assert ours.network.crossnet.kernels.shape == (2, width, width)


@pytest.mark.parametrize("rows", [None, [4, 0, 4]])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_scorer_with_a_temperature_is_the_formula(rows, dtype):
    torch_maxsim = pytest.importorskip("serving.maxsim_torch").maxsim
    generator = np.random.default_rng(0)
    users_BQK = generator.standard_normal((2, 3, 4), dtype=np.float32)
    items_N1K = generator.standard_normal((5, 1, 4), dtype=np.float32)
    scales_N, stored = None, items_N1K
    if dtype == "int8":
        scales_N = np.linspace(0.5, 1.5, 5, dtype=np.float32)
        stored = generator.integers(-9, 9, (5, 1, 4), dtype=np.int8)
        items_N1K = stored * scales_N[:, None, None]
    chosen = np.arange(5) if rows is None else np.array(rows)
    products_BQN = np.einsum("bqk,nk->bqn", users_BQK, items_N1K[chosen, 0])
    weights_BQN = np.exp(products_BQN / 0.7)
    expected = (products_BQN * weights_BQN).sum(1) / weights_BQN.sum(1)
    picked = None if rows is None else chosen
    scores = maxsim(users_BQK, stored, scales_N, picked, temperature=0.7)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    tensors = (None if array is None else torch.from_numpy(array) for array in (users_BQK, stored, scales_N, picked))
    np.testing.assert_allclose(torch_maxsim(*tensors, 0.7).numpy(), expected, rtol=1e-5, atol=1e-5)


def plus(**options):
    """A small IntTowerPlus of two levels, two heads of a user and three of an item, of size 4."""
    return small_model("IntTowerPlus", **({"field_dim": 4, "user_head": 2, "item_head": 3} | options))


def test_inttower_with_no_further_part_is_inttower():
    options = {"field_dim": 4, "user_head": 2, "item_head": 3}
    features, labels = random_features(ALL_COLUMNS, 6), random_labels(6)
    (logits, losses), (expected, of_inttower) = (
        plus()(features, labels),
        small_model("IntTower", **options)(features, labels),
    )
    assert torch.equal(logits, expected)
    assert losses == of_inttower


def test_gates_weigh_a_users_levels_by_a_softmax_of_its_input_and_start_at_1():
    model = plus(level_gates=True).eval()
    features = random_features(ALL_COLUMNS, 5)
    layers, item_BGK = model.user_tower(features), model.encode_item(features)[0].view(5, 3, 4)
    levels = [heads.view(5, 2, 4) for heads in model.interaction.encode_user(layers[1:])]
    of_levels = [plain_maxsim(heads, item_BGK) for heads in levels]
    torch.testing.assert_close(model(features), sum(of_levels) + model.output_bias)
    torch.nn.init.normal_(model.level_gates.weight)
    gates_BL = 2 * model.level_gates(layers[0]).softmax(1)
    expected = gates_BL[:, 0] * of_levels[0] + gates_BL[:, 1] * of_levels[1]
    torch.testing.assert_close(model(features), expected + model.output_bias)


def test_soft_maxima_weigh_an_items_heads_by_the_softmax_of_their_products():
    model = plus(maxsim_temperature=0.7).eval()
    features = random_features(ALL_COLUMNS, 4)
    levels = [heads.view(4, 2, 4) for heads in model.encode_user(features)]
    item_BGK = model.encode_item(features)[0].view(4, 3, 4)
    for row, logit in enumerate(model(features)):
        expected = model.output_bias[0]
        for heads in levels:
            for head in heads[row]:
                products = torch.stack([head @ of_item for of_item in item_BGK[row]])
                expected = expected + products @ (products / 0.7).softmax(0)
        torch.testing.assert_close(logit, expected)


def test_soft_maxima_near_temperature_0_are_maxsim():
    features = random_features(ALL_COLUMNS, 6)
    torch.testing.assert_close(plus(maxsim_temperature=1e-6).eval()(features), plus().eval()(features))


def test_the_penalty_is_the_mean_squared_cosine_between_different_heads_of_a_row():
    model = plus(apart_weight=0.5, cir_weight=0.0).eval()
    features, labels = random_features(ALL_COLUMNS, 3), random_labels(3)
    sides = [heads.view(3, -1, 4) for heads in (*model.encode_user(features), *model.encode_item(features))]
    means = []
    for heads_BHK in sides:
        pairs = [(row, i, j) for row in heads_BHK for i in range(len(row)) for j in range(i)]
        means.append(sum(functional.cosine_similarity(row[i], row[j], dim=0) ** 2 for row, i, j in pairs) / len(pairs))
    torch.testing.assert_close(model(features, labels)[1]["apart"], 0.5 * sum(means) / 3)


def test_of_one_head_there_is_nothing_to_draw_apart():
    model = plus(apart_weight=1.0, cir_weight=0.0, user_head=1, item_head=1)
    assert model(random_features(ALL_COLUMNS, 3), random_labels(3))[1]["apart"] == 0


def test_inttowers_guesses_are_of_the_other_sides_mean_head_and_learn_from_their_loss_alone():
    model = plus(guess_weight=0.5, cir_weight=0.0)
    features, labels = random_features(ALL_COLUMNS, 12), random_labels(12)
    _, losses = model(features, labels)
    user, item = model.encode_user(features)[-1].view(12, 2, 4), model.encode_item(features)[0].view(12, 3, 4)
    expected = 0.0
    for tower, mean_BK in ((model.user_tower, item.mean(1)), (model.item_tower, user.mean(1))):
        positive, negative = tower.guesses(features)
        guess_BK = torch.where(labels[:, None] > 0, positive, negative)
        expected = expected + (1 - functional.cosine_similarity(guess_BK, mean_BK)).mean()
    torch.testing.assert_close(losses["guesses"], 0.5 * expected)
    losses["guesses"].backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert learning == {name for name, _ in model.named_parameters() if ".generators." in name}
    model.zero_grad()
    model(features).sum().backward()
    assert all(p.grad is None for name, p in model.named_parameters() if ".generators." in name)


@pytest.mark.parametrize("name", ["maxsim_temperature", "apart_weight", "guess_weight"])
def test_a_further_part_has_a_weight_of_at_least_0(name):
    with pytest.raises(UserError, match=f"{name}: expected a number of at least 0, got -1.0"):
        plus(**{name: -1.0})


def test_a_dot_product_has_no_heads_for_further_parts():
    with pytest.raises(UserError, match="interaction: expected the fe_block, whose heads these parts are of, got dot"):
        plus(interaction="dot", level_gates=True)


def test_soft_maxima_are_no_score_of_the_index():
    with pytest.raises(UserError, match=r"--maxsim-temperature: expected 0, since an index scores by MaxSim, got 0\.7"):
        Heads(plus(maxsim_temperature=0.7))
