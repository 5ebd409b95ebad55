"""FE-Block, fe_score and MaxSim against the README's listings. Shapes: B pairs, H user, G item heads, K head size."""

import textwrap

import pytest
import torch
from models import ALL_COLUMNS, int_tower, plain_maxsim, random_features
from torch import Tensor

import model.IntTower
from model.IntTower import FEBlock
from preprocessing import utils
from preprocessing.utils import fe_score, maxsim

# The README's "Accelerate" section, as it is printed there.
ACCELERATED_FE_SCORE = """
  def fe_score(user_rep, item_rep, user_fea_col, item_fea_col, user_embedding_dim, item_embedding_dim):
    user_embedding, item_embedding  = user_rep[0],item_rep[0]
    user_rep = torch.reshape(user_embedding, (-1, user_fea_col, user_embedding_dim[0]))
    item_rep = torch.reshape(item_embedding, (-1, item_fea_col, item_embedding_dim[0]))
    
    return (user_rep @ item_rep.permute(0, 2, 1)).max(2).values.sum(1)
"""  # noqa: W293


def listing(user_rep, item_rep, user_fea_col, item_fea_col, user_embedding_dim, item_embedding_dim):
    """fe_score as the README lists it."""
    score = []
    for i in range(len(user_embedding_dim)):
        user_temp = torch.reshape(user_rep[i], (-1, user_fea_col, user_embedding_dim[i]))
        item_temp = torch.reshape(item_rep[-1], (-1, item_fea_col, item_embedding_dim[i]))
        score.append((user_temp @ item_temp.permute(0, 2, 1)).max(2).values.sum(1))
    score = torch.stack(score).transpose(1, 0)
    return torch.sum(score, 1)


def random_heads(*shape: int, seed: int, dtype=torch.float32, requires_grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_(requires_grad)


def test_maxsim_sums_each_user_heads_best_dot_product():
    user_BHK = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [-1.0, 0.0]]])
    item_BGK = torch.tensor([[[3.0, 1.0], [-1.0, 4.0]], [[-2.0, 1.0], [-3.0, -5.0]]])
    # First pair: max(3, -1) + max(2, 8). Second: max(-1, -8) + max(2, 3); a negative best stays negative.
    assert maxsim(user_BHK, item_BGK).tolist() == [11.0, 2.0]


def test_maxsim_asks_for_the_best_item_head_of_each_user_head_and_not_the_reverse():
    user_BHK, item_BGK = torch.tensor([[[1.0], [1.0]]]), torch.tensor([[[5.0], [2.0], [1.0]]])
    assert maxsim(user_BHK, item_BGK).tolist() == [10.0]
    assert maxsim(item_BGK, user_BHK).tolist() == [8.0]


@pytest.mark.parametrize("requires_grad", [False, True])
def test_maxsim_compares_one_row_with_every_row_of_the_other_side(requires_grad):
    one = random_heads(1, 3, 4, seed=0, requires_grad=requires_grad)
    many = random_heads(5, 2, 4, seed=1, requires_grad=requires_grad)
    repeated = one.detach().expand(5, -1, -1)
    torch.testing.assert_close(maxsim(one, many), plain_maxsim(repeated, many))
    torch.testing.assert_close(maxsim(many, one), plain_maxsim(many, repeated))
    torch.testing.assert_close(maxsim(one, many[:1]), plain_maxsim(one, many[:1]))


@pytest.mark.parametrize(("num_users", "num_items"), [(3, 3), (1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize(("user_head", "item_head", "head_dim"), [(2, 3, 4), (3, 2, 1)])
@pytest.mark.parametrize("with_gradient", ["user", "item", "user and item"])
def test_the_gradient_of_maxsim_is_the_slope_of_its_score(
    num_users, num_items, user_head, item_head, head_dim, with_gradient
):
    options = {"dtype": torch.float64}
    user = random_heads(num_users, user_head, head_dim, seed=2, requires_grad="user" in with_gradient, **options)
    item = random_heads(num_items, item_head, head_dim, seed=3, requires_grad="item" in with_gradient, **options)
    assert torch.autograd.gradcheck(maxsim, (user, item))


@pytest.mark.parametrize("num_levels", [1, 3])
@pytest.mark.parametrize(("user_head", "item_head", "head_dim"), [(1, 1, 1), (4, 4, 16), (3, 2, 5)])
def test_fe_score_equals_the_listing_of_the_readme(num_levels, user_head, item_head, head_dim):
    user_rep = [random_heads(6, user_head * head_dim, seed=level) for level in range(num_levels)]
    item_rep = [random_heads(6, item_head * head_dim, seed=100 + level) for level in range(2)]  # the last one counts
    arguments = user_rep, item_rep, user_head, item_head, [head_dim] * num_levels, [head_dim] * num_levels
    torch.testing.assert_close(fe_score(*arguments), listing(*arguments))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_fe_score_scores_one_user_against_many_items_and_the_reverse(requires_grad):
    one = [random_heads(1, 6, seed=level, requires_grad=requires_grad) for level in range(2)]
    many = [random_heads(5, 6, seed=10 + level, requires_grad=requires_grad) for level in range(2)]
    sizes = 2, 2, [3, 3], [3, 3]
    repeated = [level.expand(5, -1) for level in one]
    torch.testing.assert_close(fe_score(one, many[-1:], *sizes), listing(repeated, many[-1:], *sizes))
    torch.testing.assert_close(fe_score(many, one[-1:], *sizes), listing(many, repeated[-1:], *sizes))


def test_the_fe_block_compares_the_projected_heads_of_every_level_with_those_of_the_item():
    block = FEBlock([2, 2], item_width=2, user_head=2, item_head=2, field_dim=1)
    with torch.no_grad():
        for projection in [*block.user_projections, block.item_projection]:
            projection.weight.copy_(torch.eye(2))
            projection.bias.zero_()
    first_level, second_level = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, 0.0]])
    # Heads are single numbers here: 1 * 5 + 2 * 5 for the first level, -1 * 3 + 0 for the second.
    assert block([first_level, second_level], torch.tensor([[3.0, 5.0]])).tolist() == [12.0]


def test_the_mean_is_the_sum_divided_by_levels_user_heads_and_the_root_of_the_head_size():
    sizes = {"user_widths": [5, 6, 7], "item_width": 7, "user_head": 4, "item_head": 2, "field_dim": 9}
    blocks = [FEBlock(**sizes, scale=scale) for scale in ("sum", "mean")]
    blocks[1].load_state_dict(blocks[0].state_dict())
    layers, item = [random_heads(10, width, seed=width) for width in (5, 6, 7)], random_heads(10, 7, seed=1)
    sums, means = (block(layers, item) for block in blocks)
    torch.testing.assert_close(means, sums / (3 * 4 * 3))
    torch.testing.assert_close(blocks[1].encode_item(item), blocks[0].encode_item(item))


@pytest.mark.parametrize("num_levels", [1, 5])
@pytest.mark.parametrize(("heads", "head_dim"), [(1, 1), (4, 16), (8, 32), (32, 64)])
def test_the_mean_starts_near_its_bias_for_any_number_of_levels_heads_and_any_head_size(num_levels, heads, head_dim):
    torch.manual_seed(0)
    layers = [random_heads(500, 128, seed=level).relu() for level in range(num_levels + 1)]
    block = FEBlock([128] * num_levels, 128, heads, heads, head_dim, scale="mean")
    logits = block(layers[:-1], layers[-1])
    assert logits.std() < 0.3
    assert logits.mean().abs() < 0.5


def test_the_readmes_accelerate_edit_makes_the_model_score_its_first_level_alone(monkeypatch):
    # The model calls the very function that a person edits.
    assert model.IntTower.fe_score is utils.fe_score
    edited = {"torch": torch}
    exec(textwrap.dedent(ACCELERATED_FE_SCORE), edited)
    tower = int_tower(seed=1).eval()
    torch.nn.init.constant_(tower.interaction.bias, 0.5)
    features = random_features(ALL_COLUMNS, num_rows=9)
    user_BHK = tower.encode_user(features)[0].view(9, 2, 3)
    item_BGK = tower.encode_item(features)[0].view(9, 2, 3)
    expected = plain_maxsim(user_BHK, item_BGK) + 0.5
    assert not torch.allclose(expected, tower(features))
    monkeypatch.setattr(model.IntTower, "fe_score", edited["fe_score"])
    torch.testing.assert_close(tower(features), expected)
