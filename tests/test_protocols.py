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
from preprocessing.label_means import label_means
from preprocessing.movielens import load_movielens
from preprocessing.pairs import Pairs, Twins, find_twins
from preprocessing.protocols import (
    Splits,
    check_both_classes,
    check_times,
    count_repeated_test_rows,
    drop_users_without_positive,
    split_of_rows,
    split_rows,
)

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


def pairs_of(users, items) -> Pairs:
    return Pairs(np.array(users), np.array(items), pd.Series(range(max(users) + 1)), pd.Series(range(max(items) + 1)))


@pytest.mark.parametrize(
    ("counts", "test"),
    [
        ({1: 60, 2: 30, 3: 10}, [3]),  # of the ends 60 and 90, 90 is nearer to 80
        ({1: 75, 2: 20, 3: 5}, [2, 3]),
        ({1: 70, 2: 20, 3: 10}, [2, 3]),  # as near: the earlier one
        ({1: 10, 2: 90}, [2]),  # the end of all rows is no cut
        ({1: 95, 2: 5}, [2]),
    ],
)
def test_the_cut_before_test_moves_to_the_nearest_change_of_time_and_says_so(counts, test, capsys):
    times = np.random.default_rng(0).permutation(np.repeat(list(counts), list(counts.values())))
    splits = split_rows("temporal", times, seed=1)
    assert sorted(splits.test) == np.flatnonzero(np.isin(times, test)).tolist()
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("temporal: the 80/20 cut fell among ")
    assert said.endswith(f"test has {len(splits.test)} rows instead of 20.")


def test_cuts_between_two_times_stay_where_they_are_and_nothing_is_said(capsys):
    splits = split_rows("temporal", np.repeat(np.arange(25), 4)[::-1], seed=1)
    assert [len(rows) for rows in vars(splits).values()] == [72, 8, 20]
    assert capsys.readouterr().out == ""


def test_whatever_the_order_of_rows_temporal_gives_each_split_the_same_ones(capsys):
    random = np.random.default_rng(0)
    users, items, times = random.integers(40, size=1000), random.integers(40, size=1000), random.integers(12, size=1000)
    pairs = pairs_of(users, items)
    pairs.user_ids, pairs.item_ids = pairs.user_ids.map("u{}".format), pairs.item_ids.map("i{}".format)
    dealt = []
    for order in (np.arange(1000), random.permutation(1000)):
        shuffled = Pairs(users[order], items[order], pairs.user_ids, pairs.item_ids)
        dealt.append(split_rows("temporal", times[order], 1, shuffled))
        rows = {name: order[rows] for name, rows in vars(dealt[-1]).items()}
        dealt[-1] = {name: sorted(zip(times[r], users[r], items[r], strict=True)) for name, r in rows.items()}
    assert dealt[0] == dealt[1]
    assert dealt[0]["test"][0] > dealt[0]["valid"][-1] > dealt[0]["train"][0]
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "the 80/20 cut fell among" in first
    assert "temporal: validation starts among" in second


def test_a_tie_where_validation_starts_is_divided_by_user_and_item_and_twins_stay_together(capsys):
    # Of 50 rows 40 come before test; validation would have the last 4 of them, and rows 33 to 38 are of one time.
    times = np.arange(50)
    times[33:39] = 33
    users, items = np.arange(50) % 10, np.arange(50)
    users[33:39], items[33:39] = [7, 2, 2, 7, 2, 1], [1, 9, 8, 0, 8, 5]
    # By user and item: row 38, the twins 35 and 37, row 34, row 36, row 33. Three come before the cut at 36.
    splits = split_rows("temporal", times, 1, pairs_of(users, items))
    assert splits.train.tolist() == [*range(33), 35, 37, 38]
    assert splits.valid.tolist() == [33, 34, 36, 39]
    assert capsys.readouterr().out == (
        "temporal: validation starts among 6 rows of one time (33), divided by the ids of user and item: 3 in train, "
        "3 in validation.\n"
    )
    users[38], items[38] = 2, 8  # three twins in front: now there is no cut after two, and three are taken
    users[34], items[34] = 2, 8  # four: the cut moves behind them
    assert split_rows("temporal", times, 1, pairs_of(users, items)).train.tolist() == [*range(33), 34, 35, 37, 38]


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_rows_without_twins_are_dealt_out_one_by_one(protocol):
    pairs = pairs_of(np.arange(1000) % 7, np.arange(1000) % 11)
    splits = split_rows(protocol, TIMES, 3, pairs, find_twins(pairs, TIMES))
    order = np.random.default_rng(3).permutation(1000)
    assert np.concatenate([*vars(splits).values()]).tolist() == order.tolist()


def test_twins_go_to_one_split_and_the_others_where_they_went_without_them():
    plain = split_rows("strict", TIMES, seed=3)
    twins = Twins(rows=np.arange(1000, 1300), first=np.arange(300))
    splits = split_rows("strict", np.concatenate([TIMES, TIMES[:300]]), 3, twins=twins)
    for name, rows in vars(splits).items():
        groups = np.where(rows < 1000, rows, rows - 1000)
        assert list(dict.fromkeys(groups)) == getattr(plain, name).tolist()
        assert len(groups) == np.isin(np.arange(1300) % 1000, getattr(plain, name)).sum()


@pytest.mark.parametrize("constant", [False, True], ids=["hashed", "all of one hash"])
def test_a_twin_has_the_same_user_item_and_time_as_an_earlier_row(constant, monkeypatch):
    if constant:
        monkeypatch.setattr(pd.util, "hash_array", lambda values: np.zeros(len(values), dtype=np.uint64))
    users, items, times = [1, 1, 2, 1, 1, 1, 2, 3], [0, 0, 0, 1, 0, 0, 0, 3], [5, 6, 5, 5, 5, 5, 5, 1]
    twins = find_twins(pairs_of(users, items), np.array(times))
    assert twins.rows.tolist() == [4, 5, 6]
    assert twins.first.tolist() == [0, 0, 2]
    assert twins.groups(8).tolist() == [0, 1, 2, 3, 0, 0, 2, 4]
    assert len(find_twins(pairs_of([0, 1], [0, 0]), np.zeros(2)).rows) == 0


def test_a_test_row_whose_user_item_and_label_a_training_row_has_is_counted():
    rows = {
        "train": [(0, 1, 1), (1, 0, 0), (1, 2, 0)],
        "valid": [(2, 2, 1)],
        # Two of the first training row; one of the other label, one of another item, and one that validation has.
        "test": [(0, 1, 1), (0, 1, 1), (1, 0, 1), (0, 2, 1), (2, 2, 1)],
    }
    users, items, labels = np.array([row for split in rows.values() for row in split]).T
    splits = splits_of([0, 1, 2], [3], [4, 5, 6, 7, 8])
    split_of_row = split_of_rows(splits, len(labels))
    assert count_repeated_test_rows(pairs_of(users, items), labels.astype(np.int8), split_of_row) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("units", "fragments"),
    [
        ((1, 1000), ("in seconds (such as 978300999)", "in milliseconds (such as 978300000000)")),
        ((1000, 10**6), ("in milliseconds", "in microseconds")),
        ((1, 10**9), ("in seconds", "in nanoseconds")),
    ],
)
def test_times_of_two_units_in_one_file_are_refused(protocol, units, fragments):
    times = 978_300_000 + np.arange(1000)
    times[:] *= np.where(times % 10 == 0, units[1], units[0])
    with pytest.raises(UserError) as caught:
        check_times(protocol, times, "ratings.dat")
    message = str(caught.value)
    assert message.startswith("ratings.dat: expected times of one unit, got 900 in")
    assert all(fragment in message for fragment in fragments), message
    for unit in units:
        check_times(protocol, (978_300_000 + np.arange(1000)) * unit, "ratings.dat")


def test_times_of_one_unit_may_run_across_every_border():
    for times in (np.arange(0, 3e8, 1e4), np.arange(9e10, 2e11, 1e7), np.arange(1000), np.array([-5, 7])):
        check_times("temporal", times, "ratings.dat")


def test_a_time_that_is_no_date_among_dates_is_refused_under_temporal_alone():
    times = np.append(978_300_000 + np.arange(99), 0)
    for protocol in ("strict", "paper"):
        check_times(protocol, times, "ratings.dat")
    with pytest.raises(UserError, match="got 1 in numbers below 100,000,000 \\(such as 0\\) and 99 in seconds"):
        check_times("temporal", times, "ratings.dat")
    times = np.append(times[:99], np.nan)
    check_times("strict", times, "ratings.dat")
    with pytest.raises(UserError, match=r"^ratings.dat: expected a time in every row, got nan in 1;"):
        check_times("temporal", times, "ratings.dat")


def test_rows_that_all_have_one_time_are_refused_under_temporal_alone():
    times = np.full(20, 978_300_760)
    check_times("strict", times, "ratings.dat")
    with pytest.raises(UserError, match=r"^ratings.dat: expected rows of different times, got 978300760 in all 20;"):
        check_times("temporal", times, "ratings.dat")


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


def test_a_twin_does_not_tell_a_training_row_its_label_under_strict():
    # Forty users of one row each, and each row once more: without its twin a row knows the mean of others alone.
    keys, labels = np.tile(np.arange(40), 2), np.tile(np.arange(40) % 2, 2)
    splits, ids = splits_of(range(80), [0], [0]), pd.Series(np.arange(40), name="user_id")
    twins = Twins(rows=np.arange(40, 80), first=np.arange(40))

    def feature(twins):
        _, scaled = label_means("strict", "m", ids, keys, labels, np.zeros(80), splits, 0, True, twins)
        return np.corrcoef(scaled[1:], labels[1:])[0, 1]  # row 0 stands for valid and test as well

    assert feature(twins) < 0.2  # below 0: of the others, fewer have the label that was left out
    assert feature(None) > 0.7


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
