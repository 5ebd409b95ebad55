"""How rows are split, and that no protocol but `paper` lets a row see what it should not."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder
from tables import SPLITS, assert_same_features

from preprocessing.choices import PROTOCOLS
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens
from preprocessing.protocols import Splits, check_both_classes, drop_users_without_positive, label_means, split_rows

TIMES = np.random.default_rng(0).permutation(1000)


def splits_of(train, valid, test) -> Splits:
    return Splits(np.array(train), np.array(valid), np.array(test))


def means(protocol, keys, labels, splits, times=None, seed=0):
    """The field, and the mean of every row before scaling."""
    times = np.zeros(len(keys)) if times is None else np.array(times)
    codes, distinct = pd.factorize(np.array(keys), sort=True)
    raw_keys = pd.Series(distinct, name="user_id")
    field, scaled = label_means(protocol, "m", raw_keys, codes, np.array(labels), times, splits, seed)
    scaler = field.scaler
    return field, scaled * (scaler.maximum - scaler.minimum) + scaler.minimum


# --- splits


def test_strict_and_paper_deal_the_same_rows_out_at_random_and_by_the_seed_alone():
    splits = split_rows("strict", TIMES, seed=1)
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [720, 80, 200]
    assert sorted(np.concatenate([splits.train, splits.valid, splits.test]).tolist()) == list(range(1000))
    np.random.seed(2)
    torch.manual_seed(2)
    again, other = split_rows("paper", TIMES[::-1], seed=1), split_rows("strict", TIMES, seed=2)
    for name in SPLITS:
        assert getattr(splits, name).tolist() == getattr(again, name).tolist()
        assert set(getattr(splits, name)) != set(getattr(other, name))
        assert 420 < getattr(splits, name).mean() < 580  # from everywhere


def test_the_temporal_split_is_ordered_in_time_whatever_the_order_of_rows_and_the_seed():
    splits = split_rows("temporal", TIMES, seed=1)
    assert sorted(TIMES[splits.train]) == list(range(720))
    assert sorted(TIMES[splits.valid]) == list(range(720, 800))
    assert sorted(TIMES[splits.test]) == list(range(800, 1000))
    assert split_rows("temporal", TIMES, seed=2).test.tolist() == splits.test.tolist()


def test_rows_of_one_time_stay_in_file_order_under_temporal():
    splits = split_rows("temporal", np.array([3, 1, 2] * 100), seed=1)
    rows_by_time = [*range(1, 300, 3), *range(2, 300, 3), *range(0, 300, 3)]
    assert np.concatenate([splits.train, splits.valid, splits.test]).tolist() == rows_by_time


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("num_rows", "empty"), [(0, "train"), (1, "valid"), (4, "valid")])
def test_too_few_rows_for_three_splits_are_refused(protocol, num_rows, empty):
    with pytest.raises(UserError) as caught:
        split_rows(protocol, np.arange(num_rows), seed=1)
    assert str(caught.value).startswith(f"{empty} split: expected at least one row, got none of {num_rows} rows")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_of_one_class_or_of_no_row_is_refused_by_name(name):
    splits = splits_of([0, 1], [2, 3], [4, 5])
    check_both_classes(np.array([0, 1, 0, 1, 0, 1]), splits)
    for label in (0, 1):
        labels = np.array([0, 1, 0, 1, 0, 1])
        labels[getattr(splits, name)] = label
        with pytest.raises(UserError, match=f"^{name} split: expected labels 0 and 1, got only {label};"):
            check_both_classes(labels, splits)
    setattr(splits, name, np.zeros(0, dtype=int))
    with pytest.raises(UserError, match=f"^{name} split: expected labels 0 and 1, got no row that the protocol keeps;"):
        check_both_classes(np.array([0, 1, 0, 1, 0, 1]), splits)


# --- paper


@pytest.mark.parametrize(
    ("per_part", "train", "valid", "test"), [(True, [0, 4], [1], [6, 7, 8]), (False, [0, 2, 4], [1, 3], [5, 6, 7, 8])]
)
def test_users_without_a_positive_vanish_from_each_part_or_from_all_rows_under_paper(per_part, train, valid, test):
    #       train part                 test
    # row   0    1    2    3    4      5    6    7    8    9
    users = np.array([1, 1, 2, 2, 3, 1, 2, 3, 3, 4])
    labels = np.array([1, 0, 0, 0, 1, 0, 1, 0, 1, 0])
    splits = drop_users_without_positive(users, labels, splits_of([0, 2, 4], [1, 3], [5, 6, 7, 8, 9]), per_part)
    # User 2 has no positive in the training part, which is train and valid together; user 1 has none in test; user 4
    # has none at all.
    assert [splits.train.tolist(), splits.valid.tolist(), splits.test.tolist()] == [train, valid, test]


def test_paper_takes_the_means_of_each_part_over_the_very_rows_being_scored():
    #       train   valid  test
    keys = [1, 1, 2, 1, 2, 1, 1, 2, 2]
    labels = [1, 0, 1, 0, 0, 1, 1, 0, 1]
    splits = splits_of([0, 1, 2], [3, 4], [5, 6, 7, 8])
    field, values = means("paper", keys, labels, splits)
    third, half = 1 / 3, 1 / 2
    np.testing.assert_allclose(values, [third, third, half, third, half, 1, 1, half, half], atol=1e-6)
    # The scaler is fitted on test, where means go from 1/2 to 1, and train is scaled by it.
    assert (field.scaler.minimum, field.scaler.maximum) == (0.5, 1.0)
    assert field.means.tolist() == [third, half]
    assert field.prior == 2 / 5


# --- no leak from test or valid


@pytest.fixture(params=["test", "valid"])
def relabelled(request, sample_folder, tmp_path):
    """The sample under a protocol, and the same with every label of one split turned round."""

    def load(protocol):
        data = load_movielens(sample_folder, protocol)
        folder = shutil.copytree(sample_folder, tmp_path / "relabelled")
        lines = (folder / "ratings.dat").read_text().splitlines()
        for row in getattr(data, request.param).rows:
            user, movie, rating, time = lines[row].split("::")
            lines[row] = f"{user}::{movie}::{6 - int(rating)}::{time}"
        (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
        return request.param, data, load_movielens(folder, protocol)

    return load


@pytest.mark.parametrize("protocol", ["strict", "temporal"])
def test_labels_of_valid_and_test_change_no_feature_of_any_row(protocol, relabelled):
    name, data, other = relabelled(protocol)
    assert torch.equal(getattr(other, name).labels, 1 - getattr(data, name).labels)
    for split in SPLITS:
        ours, theirs = getattr(data, split), getattr(other, split)
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert_same_features(ours, theirs)


def test_labels_of_valid_and_test_change_features_under_paper(relabelled):
    name, data, other = relabelled("paper")
    ours, theirs = getattr(data, name), getattr(other, name)
    common, places, other_places = np.intersect1d(ours.rows, theirs.rows, return_indices=True)
    assert len(common) > len(ours) / 2
    for feature in ("user_mean_rating", "item_mean_rating"):
        assert (ours.features[feature][places] != theirs.features[feature][other_places]).float().mean() > 0.5


# --- strict


def test_strict_means_come_from_the_other_folds_for_training_rows_and_from_all_of_them_for_later_rows():
    generator = np.random.default_rng(0)
    keys, labels = generator.integers(0, 5, 60), generator.integers(0, 2, 60)
    keys[55] = 99  # never trained
    field, values = means("strict", keys, labels, splits_of(range(40), range(40, 50), range(50, 60)), seed=3)
    reference = TargetEncoder(target_type="binary").fit(keys[:40, None], labels[:40])
    np.testing.assert_allclose(values[40:], reference.transform(keys[40:, None])[:, 0], atol=1e-6)
    np.testing.assert_allclose(values[55], labels[:40].mean(), atol=1e-6)
    assert field.prior == labels[:40].mean()
    for others, fold in KFold(n_splits=5, shuffle=True, random_state=3).split(keys[:40]):
        reference = TargetEncoder(target_type="binary").fit(keys[others, None], labels[others])
        np.testing.assert_allclose(values[fold], reference.transform(keys[fold, None])[:, 0], atol=1e-6)


# --- temporal


def test_temporal_means_of_training_rows_come_from_strictly_earlier_rows():
    # Rows 0 to 6 are train, 7 is valid, 8 and 9 are test. Row 5 comes first in time; rows 1 and 2 share a time, so
    # they do not see each other, and so do rows 3 and 6, of two users.
    times = [2, 3, 3, 4, 5, 1, 4, 6, 6, 7]
    users = [7, 7, 7, 8, 7, 8, 10, 7, 8, 9]
    labels = [1, 0, 1, 1, 1, 0, 0, 0, 1, 1]
    field, values = means("temporal", users, labels, splits_of(range(7), [7], [8, 9]), times)

    # A mean is drawn towards the mean of all earlier labels as if by ten more of them, and that one towards 1/2.
    def towards(prior, positives, count):
        return (positives + 10 * prior) / (count + 10)

    expected = [
        towards(towards(0.5, 0, 1), 0, 0),  # earlier: row 5, of another user
        towards(towards(0.5, 1, 2), 1, 1),  # earlier: rows 5, 0; of user 7: row 0
        towards(towards(0.5, 1, 2), 1, 1),
        towards(towards(0.5, 2, 4), 0, 1),  # earlier: rows 5, 0, 1, 2; of user 8: row 5
        towards(towards(0.5, 3, 6), 2, 3),  # earlier: all others; of user 7: rows 0, 1, 2
        0.5,  # earlier: nothing
        towards(towards(0.5, 2, 4), 0, 0),  # earlier: rows 5, 0, 1, 2, of other users
        # Valid and test: frozen at the end of train, where 4 of 7 labels are 1.
        towards(4 / 7, 3, 4),
        towards(4 / 7, 1, 2),
        4 / 7,  # user 9 is never trained
    ]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert field.keys.tolist() == [7, 8, 10]
    np.testing.assert_allclose(field.means, [*expected[7:9], towards(4 / 7, 0, 1)])
    assert field.prior == 4 / 7


# --- scalers


@pytest.mark.parametrize(("protocol", "fitted_on"), [("strict", "train"), ("temporal", "train"), ("paper", "test")])
def test_the_scaler_is_fitted_on_the_split_that_the_protocol_says(protocol, fitted_on):
    generator = np.random.default_rng(0)
    keys, labels = generator.integers(0, 5, 300), generator.integers(0, 2, 300)
    splits = split_rows(protocol, np.arange(300), seed=0)
    user_ids = pd.Series(np.arange(5), name="user_id")
    _, scaled = label_means(protocol, "m", user_ids, keys, labels, np.arange(300), splits, seed=0)
    for name, rows in vars(splits).items():
        spans_0_to_1 = scaled[rows].min() == 0 and scaled[rows].max() == 1
        assert spans_0_to_1 == (name == fitted_on), name


def test_a_later_mean_beyond_the_range_of_training_is_scaled_beyond_1():
    # Training rows look back on 0, 1 and 2 positives, the valid row on all three.
    keys, codes, labels = pd.Series([7], name="user_id"), np.zeros(5, dtype=int), np.array([1, 1, 1, 0, 1])
    splits = splits_of([0, 1, 2], [3], [4])
    field, scaled = label_means("temporal", "m", keys, codes, labels, np.arange(5), splits, seed=0)
    assert (field.scaler.minimum, scaled[0], scaled[2]) == (0.5, 0, 1)
    assert scaled[3] == scaled[4] > 1
