"""How rows are split, and that no protocol but `paper` lets a row see what it should not."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder

from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens
from preprocessing.protocols import Splits, check_both_classes, drop_users_without_positive, label_means, split_rows

NO_TIMES = np.zeros(1000)


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


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
def test_a_fifth_is_test_and_a_tenth_of_the_rest_is_valid(protocol):
    splits = split_rows(protocol, np.arange(1000), seed=1)
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [720, 80, 200]
    everything = np.concatenate([splits.train, splits.valid, splits.test])
    assert sorted(everything.tolist()) == list(range(1000))


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_a_random_split_depends_on_the_seed_and_not_on_time(protocol):
    splits = split_rows(protocol, np.arange(1000), seed=1)
    again = split_rows(protocol, np.arange(1000)[::-1], seed=1)
    other = split_rows(protocol, np.arange(1000), seed=2)
    for name in ("train", "valid", "test"):
        assert getattr(splits, name).tolist() == getattr(again, name).tolist()
        assert set(getattr(splits, name)) != set(getattr(other, name))


def test_a_random_split_does_not_depend_on_the_global_generators():
    np.random.seed(1)
    torch.manual_seed(1)
    splits = split_rows("strict", NO_TIMES, seed=3)
    np.random.seed(2)
    torch.manual_seed(2)
    assert split_rows("strict", NO_TIMES, seed=3).test.tolist() == splits.test.tolist()


def test_strict_and_paper_deal_out_the_same_rows():
    strict, paper = split_rows("strict", NO_TIMES, seed=1), split_rows("paper", NO_TIMES, seed=1)
    assert strict.test.tolist() == paper.test.tolist()


def test_a_random_split_takes_rows_from_everywhere():
    for rows in vars(split_rows("strict", NO_TIMES, seed=1)).values():
        assert 420 < rows.mean() < 580


def test_the_temporal_split_is_ordered_in_time_whatever_the_order_of_rows_and_the_seed():
    times = np.random.default_rng(0).permutation(1000)
    splits = split_rows("temporal", times, seed=1)
    assert sorted(times[splits.train]) == list(range(720))
    assert sorted(times[splits.valid]) == list(range(720, 800))
    assert sorted(times[splits.test]) == list(range(800, 1000))
    assert split_rows("temporal", times, seed=2).test.tolist() == splits.test.tolist()


def test_rows_of_one_time_stay_in_file_order_under_temporal():
    splits = split_rows("temporal", np.array([3, 1, 2] * 100), seed=1)
    rows_by_time = [*range(1, 300, 3), *range(2, 300, 3), *range(0, 300, 3)]
    assert np.concatenate([splits.train, splits.valid, splits.test]).tolist() == rows_by_time


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
@pytest.mark.parametrize(("num_rows", "empty"), [(0, "train"), (1, "valid"), (2, "valid"), (4, "valid")])
def test_too_few_rows_for_three_splits_are_refused(protocol, num_rows, empty):
    with pytest.raises(UserError) as caught:
        split_rows(protocol, np.arange(num_rows), seed=1)
    assert str(caught.value).startswith(f"{empty} split: expected at least one row, got none of {num_rows} rows")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_split_of_one_class_is_refused_by_name(name, label):
    splits = splits_of([0, 1], [2, 3], [4, 5])
    labels = np.array([0, 1, 0, 1, 0, 1])
    check_both_classes(labels, splits)
    labels[getattr(splits, name)] = label
    with pytest.raises(UserError, match=f"^{name} split: expected labels 0 and 1, got only {label};"):
        check_both_classes(labels, splits)


# --- paper


def test_users_without_a_positive_vanish_from_each_part_under_paper():
    #       train part                 test
    # row   0    1    2    3    4      5    6    7    8
    users = np.array([1, 1, 2, 2, 3, 1, 2, 3, 3])
    labels = np.array([1, 0, 0, 0, 1, 0, 1, 0, 1])
    splits = drop_users_without_positive(users, labels, splits_of([0, 2, 4], [1, 3], [5, 6, 7, 8]), per_part=True)
    # User 2 has no positive in the training part, which is train and valid together; user 1 has none in test.
    assert splits.train.tolist() == [0, 4]
    assert splits.valid.tolist() == [1]
    assert splits.test.tolist() == [6, 7, 8]


def test_users_without_any_positive_vanish_where_paper_looks_at_all_rows_at_once():
    users = np.array([1, 1, 2, 2, 3, 1, 2, 3, 4])
    labels = np.array([1, 0, 0, 0, 1, 0, 1, 0, 0])
    splits = drop_users_without_positive(users, labels, splits_of([0, 2, 4], [1, 3], [5, 6, 7, 8]), per_part=False)
    assert splits.train.tolist() == [0, 2, 4]
    assert splits.valid.tolist() == [1, 3]
    assert splits.test.tolist() == [5, 6, 7]  # user 4 is gone


def test_paper_takes_the_means_over_all_rows_where_it_looks_at_them_at_once():
    user_ids = pd.Series([5, 6], name="user_id")
    codes, labels = np.array([0, 0, 1, 0, 1, 1]), np.array([1, 0, 1, 1, 0, 1])
    splits = splits_of([0, 1, 2], [3], [4, 5])
    field, scaled = label_means("paper", "m", user_ids, codes, labels, np.zeros(6), splits, 0, per_part=False)
    # Both users have 2 positives in 3 rows, whichever part these are in.
    assert field.means.tolist() == [2 / 3, 2 / 3]
    assert scaled.tolist() == [0] * 6  # a constant feature


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


def test_a_test_rows_label_shows_in_its_feature_under_paper():
    keys, labels, splits = [1, 1, 2, 2, 1, 1, 2, 2], [1, 0, 1, 0, 1, 0, 1, 1], splits_of([0, 1], [2, 3], [4, 5, 6, 7])
    before = means("paper", keys, labels, splits)[1]
    labels[4] = 0
    after = means("paper", keys, labels, splits)[1]
    np.testing.assert_allclose(before[4] - after[4], 0.5)


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
    for split in ("train", "valid", "test"):
        ours, theirs = getattr(data, split), getattr(other, split)
        assert ours.rows.tolist() == theirs.rows.tolist()
        for feature, values in ours.features.items():
            assert torch.equal(values[:], theirs.features[feature][:]), f"{split} {feature}"


def test_labels_of_valid_and_test_change_features_under_paper(relabelled):
    name, data, other = relabelled("paper")
    rows = getattr(data, name).rows.tolist()
    common = [row for row in rows if row in set(getattr(other, name).rows.tolist())]
    assert len(common) > len(rows) / 2
    places = {row: place for place, row in enumerate(getattr(other, name).rows.tolist())}
    for feature in ("user_mean_rating", "item_mean_rating"):
        ours = getattr(data, name).features[feature][[rows.index(row) for row in common]]
        theirs = getattr(other, name).features[feature][[places[row] for row in common]]
        assert (ours != theirs).float().mean() > 0.5


# --- strict


def test_strict_means_of_valid_and_test_come_from_training_rows():
    generator = np.random.default_rng(0)
    keys, labels = generator.integers(0, 5, 60), generator.integers(0, 2, 60)
    keys[55] = 99  # never trained
    splits = splits_of(range(40), range(40, 50), range(50, 60))
    field, values = means("strict", keys, labels, splits)
    reference = TargetEncoder(target_type="binary").fit(keys[:40, None], labels[:40])
    np.testing.assert_allclose(values[40:], reference.transform(keys[40:, None])[:, 0], atol=1e-6)
    np.testing.assert_allclose(values[55], labels[:40].mean(), atol=1e-6)
    assert field.prior == labels[:40].mean()


def test_strict_means_of_training_rows_come_from_the_other_folds():
    generator = np.random.default_rng(0)
    keys, labels = generator.integers(0, 5, 60), generator.integers(0, 2, 60)
    values = means("strict", keys, labels, splits_of(range(50), range(50, 55), range(55, 60)), seed=3)[1]
    for others, fold in KFold(n_splits=5, shuffle=True, random_state=3).split(keys[:50]):
        reference = TargetEncoder(target_type="binary").fit(keys[others, None], labels[others])
        np.testing.assert_allclose(values[fold], reference.transform(keys[fold, None])[:, 0], atol=1e-6)


def test_a_training_rows_own_label_does_not_change_its_own_mean_under_strict():
    generator = np.random.default_rng(0)
    keys, labels = np.repeat([1, 2, 3], 10), generator.integers(0, 2, 30)
    splits = splits_of(range(26), [26, 27], [28, 29])
    before = means("strict", keys, labels, splits)[1]
    for row in splits.train:
        changed = labels.copy()
        changed[row] = 1 - changed[row]
        after = means("strict", keys, changed, splits)[1]
        np.testing.assert_allclose(after[row], before[row], atol=1e-6)
        of_its_key = (keys == keys[row]) & (np.arange(30) != row)
        assert np.abs(after - before)[of_its_key].max() > 0.01


# --- temporal


def test_temporal_means_of_training_rows_come_from_strictly_earlier_rows():
    # Rows 0 to 5 are train, 6 is valid, 7 and 8 are test. Row 5 comes first in time; rows 1 and 2 share a time, so
    # they do not see each other.
    times = [2, 3, 3, 4, 5, 1, 6, 6, 7]
    users = [7, 7, 7, 8, 7, 8, 7, 8, 9]
    labels = [1, 0, 1, 1, 1, 0, 0, 1, 1]
    field, values = means("temporal", users, labels, splits_of(range(6), [6], [7, 8]), times)

    # A mean is drawn towards the mean of all earlier labels as if by ten more of them, and that one towards 1/2.
    def towards(prior, positives, count):
        return (positives + 10 * prior) / (count + 10)

    expected = [
        towards(towards(0.5, 0, 1), 0, 0),  # earlier: row 5, of another user
        towards(towards(0.5, 1, 2), 1, 1),  # earlier: rows 5, 0; of user 7: row 0
        towards(towards(0.5, 1, 2), 1, 1),
        towards(towards(0.5, 2, 4), 0, 1),  # earlier: rows 5, 0, 1, 2; of user 8: row 5
        towards(towards(0.5, 3, 5), 2, 3),  # earlier: all others; of user 7: rows 0, 1, 2
        0.5,  # earlier: nothing
        # Valid and test: frozen at the end of train, where 4 of 6 labels are 1.
        towards(4 / 6, 3, 4),
        towards(4 / 6, 1, 2),
        4 / 6,  # user 9 is never trained
    ]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert field.keys.tolist() == [7, 8]
    np.testing.assert_allclose(field.means, expected[6:8])
    assert field.prior == 4 / 6


def test_only_strictly_earlier_labels_matter_under_temporal():
    generator = np.random.default_rng(0)
    keys, labels = generator.integers(0, 2, 40), generator.integers(0, 2, 40)
    times = np.arange(40) // 4  # four rows share each time
    splits = splits_of(generator.permutation(32), [32, 33, 34, 35], [36, 37, 38, 39])
    before = means("temporal", keys, labels, splits, times)[1]
    for row in splits.train:
        changed = labels.copy()
        changed[row] = 1 - changed[row]
        moved = np.abs(means("temporal", keys, changed, splits, times)[1] - before) > 1e-5
        # A label moves the prior of every later row, so all of them and nothing else.
        assert moved.tolist() == (times > times[row]).tolist()


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
    field, scaled = label_means(
        "temporal",
        "m",
        pd.Series([7], name="user_id"),
        np.zeros(5, dtype=int),
        np.array([1, 1, 1, 0, 1]),
        np.arange(5),
        splits_of([0, 1, 2], [3], [4]),
        0,
    )
    assert (field.scaler.minimum, scaled[0], scaled[2]) == (0.5, 0, 1)
    assert scaled[3] == scaled[4] > 1
