"""CIR against its equation, InfoNCE over the pairs with label 1. Shapes: B batch, E flattened heads."""

import math

import pytest
import torch
from models import ALL_COLUMNS, int_tower, random_features, random_labels
from torch import Tensor

from model.IntTower import CIR

AXES = torch.eye(3)
ALL_DIFFERENT = torch.tensor([4, 5, 6])


@pytest.fixture(autouse=True, params=["positive rows", "all rows"])
def looked_at(request, monkeypatch):
    """On a GPU, which is not asked for the positive rows, all are looked at; every test here holds for both."""
    if request.param == "all rows":
        monkeypatch.setattr("model.IntTower.is_read_at_once", lambda tensor: False)


def random_batch(num_rows: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    user_BE, item_BE = torch.randn(2, num_rows, 4, generator=generator)
    return user_BE.requires_grad_(), item_BE.requires_grad_()


def test_cir_is_the_cross_entropy_of_finding_the_own_item_among_the_batch():
    # Every user is parallel to the own item, 1, and orthogonal to the two others, 0; lengths do not count.
    loss = CIR(temperature=0.5)(5 * AXES, 0.1 * AXES, torch.ones(3), ALL_DIFFERENT)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)))


def test_cir_averages_over_pairs_with_label_one():
    # The second user points away from the own item, -1, and the third from the first, with label 0.
    users = torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    first, second = math.log(1 + 2 * math.exp(-1)), math.log(1 + 2 * math.exp(1))
    loss = CIR(temperature=1.0)(users, AXES, torch.tensor([1.0, 1.0, 0.0]), ALL_DIFFERENT)
    assert loss.item() == pytest.approx((first + second) / 2)


def test_a_pair_with_label_zero_counts_with_its_item_and_not_with_its_user():
    user_BE, item_BE = random_batch(3)
    CIR()(user_BE, item_BE, torch.tensor([1.0, 0.0, 1.0]), ALL_DIFFERENT).backward()
    assert torch.equal(user_BE.grad[1], torch.zeros(4))
    assert item_BE.grad[1].abs().max() > 0


def test_other_rows_of_the_own_item_count_for_nothing():
    labels, ids = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([5, 5, 7])
    user_BE, item_BE = random_batch(3)
    loss = CIR()(user_BE, item_BE, labels, ids)
    loss.backward()
    changed_user, changed_item = user_BE.detach().clone(), item_BE.detach().clone()
    changed_user[1], changed_item[1] = 9.0, -9.0
    changed_user.requires_grad_()
    changed_item.requires_grad_()
    changed_loss = CIR()(changed_user, changed_item, labels, ids)
    changed_loss.backward()
    assert changed_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(changed_user.grad, user_BE.grad)
    torch.testing.assert_close(changed_item.grad, item_BE.grad)
    assert torch.equal(item_BE.grad[1], torch.zeros(4))
    assert item_BE.grad[2].abs().max() > 0


def test_two_liked_rows_of_one_item_are_not_pushed_apart():
    # Masked out of each other's sums, the first two rows have the third alone to tell their item from.
    users = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = CIR(temperature=1.0)(users, users, torch.tensor([1.0, 1.0, 0.0]), torch.tensor([5, 5, 7]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_a_batch_without_a_positive_has_no_loss_and_a_zero_gradient():
    user_BE, item_BE = random_batch(3)
    loss = CIR()(user_BE, item_BE, torch.zeros(3), ALL_DIFFERENT)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(user_BE.grad, torch.zeros(3, 4))
    assert torch.equal(item_BE.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("levels", ["all", [0]])
def test_int_tower_contrasts_the_heads_of_its_last_scored_level_with_the_items(levels):
    model = int_tower(levels=levels, cir_weight=2.0, dnn_dropout=0.0)
    features, labels = random_features(ALL_COLUMNS, num_rows=8), random_labels(8)
    _, losses = model(features, labels)
    user, item = model.encode_user(features), model.encode_item(features)
    expected = 2.0 * CIR(0.1)(user[-1], item[-1], labels, features["movie_id"])
    torch.testing.assert_close(losses["cir"], expected)
    losses["cir"].backward()
    for tower in (model.user_tower, model.item_tower):
        assert tower.mlp.layers[0][0].weight.grad.abs().max() > 0


def test_int_tower_with_unequal_heads_contrasts_the_mean_heads():
    model = int_tower(user_head=3, item_head=2, field_dim=4, dnn_dropout=0.0)
    features, labels = random_features(ALL_COLUMNS, num_rows=8), random_labels(8)
    _, losses = model(features, labels)
    user_BK = model.encode_user(features)[-1].view(8, 3, 4).mean(1)
    item_BK = model.encode_item(features)[-1].view(8, 2, 4).mean(1)
    torch.testing.assert_close(losses["cir"], CIR(0.1)(user_BK, item_BK, labels, features["movie_id"]))
