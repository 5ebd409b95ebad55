"""DAT: its two losses by hand, its augmented vectors, its options. Shapes: B batch, W layer width."""

import numpy as np
import pytest
import torch
from models import item_columns, random_features, random_labels, small_model, sparse, varlen

from model.dat import DAT, category_alignment_loss, mimic_loss
from preprocessing.errors import UserError
from preprocessing.tables import Table
from training.trainer import Trainer

WEIGHTS = {"user_mimic_weight": 0.5, "item_mimic_weight": 2.0, "alignment_weight": 3.0}


@pytest.fixture(params=["those of the batch", "all categories"])
def looked_at(request, monkeypatch):
    """On a GPU, which is not asked for the batch's categories, all are looked at."""
    if request.param == "all categories":
        monkeypatch.setattr("model.dat.is_read_at_once", lambda tensor: False)


def dat(user: list | None = None, item: list | None = None, **options) -> DAT:
    return small_model("DAT", user, item or [*item_columns(), sparse("cate_id", 4)], **options)


def batch(model: DAT, num_rows: int = 12) -> tuple[dict, torch.Tensor]:
    return random_features(model.columns, num_rows), random_labels(num_rows)


def test_mimic_loss_draws_the_augmented_vectors_of_matches_and_nothing_else():
    augmented_BW = torch.tensor([[1.0, 2.0], [3.0, 9.0]], requires_grad=True)
    output_BW = torch.tensor([[0.0, 4.0], [5.0, 5.0]], requires_grad=True)
    loss = mimic_loss(augmented_BW, output_BW, torch.tensor([1.0, 0.0]))
    # y a + (1 - y) p - p is (1, 2) - (0, 4) in the match and nothing in the other pair: (1 + 4) / 2.
    assert loss.item() == 2.5
    loss.backward()
    assert augmented_BW.grad.tolist() == [[1.0, -2.0], [0.0, 0.0]]
    assert output_BW.grad is None


@pytest.mark.parametrize(
    ("counts", "major"),
    [({7: 3, 3: 2}, 7), ({3: 7, 2: 4, 8: 3, 1: 2}, 3), ({0: 1, 2: 2, 5: 3, 7: 1, 9: 1}, 5)],
    ids=["two categories", "four categories", "three categories of one row"],
)
def test_alignment_is_the_mean_squared_distance_of_covariances_from_the_major_categorys(counts, major, looked_at):
    torch.manual_seed(0)
    category_B = torch.tensor([category for category, count in counts.items() for _ in range(count)])
    category_B = category_B[torch.randperm(len(category_B))]
    item_BW = torch.randn(len(category_B), 3, requires_grad=True)
    # One category by the other, as the paper writes it; of a single row there is no covariance.
    covariance = {c: torch.cov(item_BW[category_B == c].T) for c, count in counts.items() if count > 1}
    distances = [(covariance[major] - other).norm() ** 2 for c, other in covariance.items() if c != major]
    expected = sum(distances) / len(distances)
    loss = category_alignment_loss(item_BW, category_B, 10)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    gradients = [torch.autograd.grad(value, item_BW)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    alone_B = torch.tensor([counts[int(c)] == 1 for c in category_B])
    assert torch.equal((gradients[0] == 0).all(1), alone_B)


@pytest.mark.parametrize("categories", [[4, 4, 4], [1, 2, 3], [4, 4, 1]])
def test_fewer_than_two_categories_of_several_rows_have_nothing_to_align(categories, looked_at):
    torch.manual_seed(0)
    item_BW = torch.randn(3, 4, requires_grad=True)
    loss = category_alignment_loss(item_BW, torch.tensor(categories), 5)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    torch.testing.assert_close(item_BW.grad, torch.zeros(3, 4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("similarity", ["temperature", "dot"])
def test_each_loss_is_its_equation_times_its_weight(similarity):
    model = dat(similarity=similarity, **WEIGHTS).eval()
    features, labels = batch(model)
    logits, losses = model(features, labels)
    (user_BW,), (item_BW,) = model.encode_user(features), model.encode_item(features)
    user_augmented_BW = model.user_augmented(features["user_id"])
    item_augmented_BW = model.item_augmented(features["movie_id"])
    expected = {
        "user_mimic": 0.5 * mimic_loss(user_augmented_BW, item_BW, labels),
        "item_mimic": 2.0 * mimic_loss(item_augmented_BW, user_BW, labels),
        "alignment": 3.0 * category_alignment_loss(item_BW, features["cate_id"], 4),
    }
    torch.testing.assert_close(losses, expected)
    assert all(loss > 0 for loss in losses.values())
    assert torch.equal(logits, model(features))  # the released code drew the augmented vectors anew each time


@pytest.mark.parametrize(
    ("loss", "trained"),
    [("user_mimic", "user_augmented.weight"), ("item_mimic", "item_augmented.weight"), ("alignment", "item_")],
)
def test_mimic_losses_train_their_augmented_vectors_alone_and_alignment_all_of_the_item_side(loss, trained):
    model = dat()
    model(*batch(model))[1][loss].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith(trained), name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(
    ("item", "options", "category"),
    [
        ([sparse("category")], {}, "category"),
        ([sparse("categories")], {}, "categories"),
        ([sparse("brand"), sparse("cate_id")], {"category": "brand"}, "brand"),
        ([sparse("brand")], {}, None),
        ([varlen("categories")], {}, None),
        ([sparse("cate_id")], {"alignment_weight": 0.0}, None),
    ],
)
def test_items_are_aligned_by_their_category_where_they_have_one(item, options, category):
    model = dat(item=[sparse("movie_id"), *item], **options).eval()
    features, labels = batch(model)
    losses = model(features, labels)[1]
    assert list(losses) == ["user_mimic", "item_mimic", "alignment"][: 2 if category is None else 3]
    if category is not None:
        expected = 0.1 * category_alignment_loss(model.encode_item(features)[0], features[category], 10)
        torch.testing.assert_close(losses["alignment"], expected)


@pytest.mark.parametrize("side", ["user", "item"])
def test_an_augmented_vector_enters_the_vector_of_its_own_id_and_no_other(side):
    model = dat().eval()
    ids = torch.arange(1, 7)
    features = random_features(model.columns, num_rows=6) | {"user_id": ids, "movie_id": ids}
    before = {"user": model.encode_user(features)[0], "item": model.encode_item(features)[0]}
    with torch.no_grad():
        (model.user_augmented if side == "user" else model.item_augmented).weight[3] += 1.0
    after = {"user": model.encode_user(features)[0], "item": model.encode_item(features)[0]}
    for name in before:
        changed = (after[name] != before[name]).any(dim=1)
        assert torch.equal(changed, (ids == 3) & (name == side))


def test_an_epoch_moves_the_augmented_vectors_of_matches_towards_the_other_tower():
    def distance(user_mimic_weight: float, epochs: int) -> float:
        """Mean squared distance of users' augmented vectors from the item tower's output in matches."""
        model = dat([sparse("user_id")], [sparse("movie_id")], user_mimic_weight=user_mimic_weight)
        table = Table(*batch(model, 60), groups=np.zeros(60, np.int32), rows=np.arange(60))
        if epochs:
            Trainer(model, learning_rate=0.05, batch_size=10, show_progress=False).fit(table, epochs=epochs)
        (item_BW,) = model.eval().encode_item(table.features)
        return mimic_loss(model.user_augmented(table.features["user_id"]), item_BW, table.labels).item()

    mimicked = distance(user_mimic_weight=10.0, epochs=1)
    assert mimicked < 0.9 * distance(user_mimic_weight=10.0, epochs=0)
    assert mimicked < 0.9 * distance(user_mimic_weight=0.0, epochs=1)


@pytest.mark.parametrize("name", ["colour", "genres", "user_id"])
def test_a_category_that_is_no_single_id_of_the_item_is_refused(name):
    message = rf"category: expected a SparseFeat .* \(movie_id, cate_id\), got '{name}'"
    with pytest.raises(UserError, match=message):
        dat(category=name)
