"""AUC, logloss and gAUC against hand counts and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from training.metrics import auc, evaluate, group_auc, logloss


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def random_split(num_rows: int, num_groups: int, seed: int, decimals: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with ties by rounding, and groups."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_rows).astype(np.float32)
    scores = np.round(rng.normal(size=num_rows) + labels, decimals).astype(np.float32)
    return labels, scores, rng.integers(0, num_groups, num_rows).astype(np.int32)


def test_auc_is_the_share_of_pairs_in_the_right_order():
    # Of the four pairs of a 1 and a 0, three are in order: 0.4 lies under 0.6.
    assert auc(array(1, 1, 0, 0), array(0.9, 0.4, 0.6, 0.1)) == pytest.approx(3 / 4)
    assert auc(array(1, 0, 0), array(0.5, 0.5, 0.1)) == pytest.approx(3 / 4)  # a tie counts half


def test_logloss_is_the_mean_of_the_negative_log_probabilities():
    # Probabilities 3/4 of a 1 and 1/5 of a 1.
    logits = array(math.log(3), math.log(1 / 4))
    assert logloss(array(1, 0), logits) == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2)


def test_logloss_equals_that_of_scikit_learn_on_probabilities():
    labels, scores, _ = random_split(500, 10, seed=0, decimals=6)
    probabilities = 1 / (1 + np.exp(-scores.astype(np.float64)))
    assert logloss(labels, scores) == pytest.approx(log_loss(labels, probabilities), rel=1e-9)


def test_logloss_of_a_huge_wrong_logit_is_the_logit_itself():
    assert logloss(array(1, 0), array(-1000, 1000)) == pytest.approx(1000)
    assert logloss(array(1, 0), array(1000, -1000)) == 0.0


def test_group_auc_weighs_each_groups_auc_with_its_rows():
    labels = array(1, 0, 1, 0, 0, 1)
    scores = array(2, 1, 1, 2, 3, 5)
    groups = np.array([7, 7, 3, 3, 3, 3])
    # Group 7: one pair, in order. Group 3: the 1 at 1 loses to both, the 1 at 5 beats both.
    assert group_auc(labels, scores, groups) == pytest.approx((2 * 1 + 4 * 0.5) / 6)


def test_equal_scores_of_two_groups_are_no_tie():
    # In the order of groups and scores, the last row of group 0 and the first of group 1 have one score.
    assert group_auc(array(0, 1, 0, 1), array(1, 2, 2, 3), np.array([0, 0, 1, 1])) == 1.0


def test_a_group_of_one_class_is_left_out_of_group_auc_with_its_rows():
    labels = array(1, 1, 1, 0, 0, 1, 0)
    scores = array(1, 2, 3, 4, 5, 9, 0)
    groups = np.array([0, 0, 0, 1, 1, 2, 2])
    assert group_auc(labels, scores, groups) == 1.0


def test_group_auc_is_not_a_number_where_no_group_has_both_classes():
    assert math.isnan(group_auc(array(1, 1, 0), array(1, 2, 3), np.array([0, 0, 1])))


@pytest.mark.parametrize("decimals", [6, 0])
@pytest.mark.parametrize("num_groups", [1, 12, 150])
def test_group_auc_equals_the_weighted_average_of_scikit_learns_aucs(decimals, num_groups):
    labels, scores, groups = random_split(300, num_groups, seed=1, decimals=decimals)
    aucs, weights = [], []
    for group in np.unique(groups):
        rows = groups == group
        if 0 < labels[rows].sum() < rows.sum():
            aucs.append(roc_auc_score(labels[rows], scores[rows]))
            weights.append(rows.sum())
    assert group_auc(labels, scores, groups) == pytest.approx(np.average(aucs, weights=weights))


def test_evaluate_gives_gauc_where_groups_are_given():
    labels, scores, groups = array(1, 0, 1, 0), array(1, 0, 0, 1), np.array([0, 0, 1, 1])
    assert evaluate(labels, scores) == {"auc": auc(labels, scores), "logloss": logloss(labels, scores)}
    assert evaluate(labels, scores, groups)["gauc"] == pytest.approx(1 / 2)
