"""Statistics of labels: what each row is told under each protocol, worked out by hand, and what it is never told."""

import numpy as np
import pandas as pd
import pytest
import torch
from tables import SPLITS, refusal

from preprocessing.choices import BY_TIME, STATISTICS
from preprocessing.earlier import Earlier
from preprocessing.encode import CrossField, MeanField, SparseField, load_encoders, save_encoders
from preprocessing.interactions import encode_interactions
from preprocessing.movielens import as_interactions, fields_of, load_movielens, read_movielens
from preprocessing.protocols import Splits, units_per_second
from preprocessing.statistics import Side, Statistic, Statistics, with_statistics

HOUR = 3600


def towards(prior, total, count):
    """A mean that is drawn towards the prior as if ten more labels had been seen."""
    return (total + 10 * prior) / (count + 10)


# Rows 0 to 3 are train, 4 is valid, 5 to 7 are test. Two users, two items, of which the first has the values 2 and 3
# and the second the value 3; rows 2 and 3 are of one time.
TIMES = np.array([1, 2, 3, 3, 4, 5, 6, 6]) * HOUR
USERS = np.array([0, 0, 1, 0, 1, 1, 1, 1])
ITEMS = np.array([0, 1, 0, 0, 1, 0, 1, 0])
LABELS = np.array([1, 0, 1, 0, 0, 1, 1, 0])
SPLITS_BY_HAND = Splits(np.arange(4), np.array([4]), np.arange(5, 8))
VALUES = np.array([[2, 3], [3, 0]])
# What the items' means are as each row knows them: of train the earlier rows, then train, then train and valid. Before
# row 0 nothing is known, and all that is drawn towards 1/2 lies there.
EARLIER_PRIOR = [0.5, towards(0.5, 1, 1), towards(0.5, 1, 2), towards(0.5, 1, 2)]
ITEM_MEANS = [
    0.5,
    EARLIER_PRIOR[1],
    towards(EARLIER_PRIOR[2], 1, 1),
    towards(EARLIER_PRIOR[3], 1, 1),
    towards(0.5, 0, 1),
    *(towards(0.4, *known) for known in ((2, 3), (0, 2), (2, 3))),
]
LEFT = LABELS - np.array(ITEM_MEANS)  # of each label


def statistics_by_hand(protocol, **options) -> Statistics:
    sides = {
        "user": Side(pd.Series([70, 71], name="user_id"), USERS),
        "item": Side(pd.Series([80, 81], name="item_id"), ITEMS),
    }
    return Statistics(protocol, sides, LABELS, TIMES, SPLITS_BY_HAND, **options)


def fitted(protocol, tower, statistic, *values, **options):
    """The field, and the statistic of every row before it is scaled."""
    field, scaled = statistics_by_hand(protocol, **options).fit(tower, "f", statistic, *values)
    scaler = field.scaler
    return field, scaled * (scaler.maximum - scaler.minimum or 1.0) + scaler.minimum


def test_earlier_rows_are_those_of_the_code_at_a_strictly_earlier_time_or_as_long_ago_as_asked():
    codes, times = np.array([5, 5, 2, 5, 5]), np.array([10, 30, 0, 10, 20])
    values = np.array([1.0, 2, 4, 8, 16])
    for delay, sums, counts in ((0, [0, 25, 0, 0, 9], [0, 3, 0, 0, 2]), (10, [0, 25, 0, 0, 9], [0, 3, 0, 0, 2])):
        earlier = Earlier(codes, times, delay)
        assert earlier.sums(values).tolist() == sums
        assert earlier.counts().tolist() == counts
    assert Earlier(codes, times, 15).sums(values).tolist() == [0, 9, 0, 0, 0]
    assert Earlier(codes, times, 21).counts().tolist() == [0, 0, 0, 0, 0]


def test_a_users_residual_under_temporal_is_of_earlier_rows_and_stands_still_after_the_split():
    field, values = fitted("temporal", "user", Statistic("residual"))
    user_0, user_1 = LEFT[[0, 1, 3]], LEFT[[2, 4]]
    expected = [0, user_0[0] / 11, 0, user_0[:2].sum() / 12, user_1[0] / 11, *[user_1.sum() / 12] * 3]
    np.testing.assert_allclose(values[:, 0], expected, atol=1e-6)
    # What the field keeps is what test rows know.
    assert field.counts[:, 0].tolist() == [3, 2]
    np.testing.assert_allclose(field.sums[:, 0], [user_0.sum(), user_1.sum()], atol=1e-6)
    assert field.encode(pd.DataFrame({"user_id": [71, 99]}))[:, 0].tolist() == pytest.approx(
        [user_1.sum() / 12 / field.scaler.maximum, 0]
    )


@pytest.mark.parametrize(
    ("delay", "known"),
    # Of user 1 are the rows 2, 4, 5, 6, 7 at 3, 4, 5, 6 and 6 hours.
    [(0, [[], [2], [2, 4], [2, 4, 5], [2, 4, 5]]), (HOUR, [[], [2], [2, 4], [2, 4, 5], [2, 4, 5]]),
     (HOUR + 1, [[], [], [2], [2, 4], [2, 4]]), (3 * HOUR, [[], [], [], [2], [2]])],
)  # fmt: skip
def test_a_user_under_online_knows_every_label_that_is_old_enough_those_of_test_too(delay, known):
    _, values = fitted("online", "user", Statistic("count"), label_delay=delay)
    np.testing.assert_allclose(values[[2, 4, 5, 6, 7], 0], [np.log1p(len(rows)) for rows in known], atol=1e-6)
    if delay <= HOUR:  # else the items' means of training rows know less, too
        _, values = fitted("online", "user", Statistic("residual"), label_delay=delay)
        expected = [LEFT[rows].sum() / (len(rows) + 10) for rows in known]
        np.testing.assert_allclose(values[[2, 4, 5, 6, 7], 0], expected, atol=1e-6)


def test_an_item_under_online_is_what_it_is_under_temporal():
    for measure in ("mean", "count"):
        _, values = fitted("online", "item", Statistic(measure))
        _, frozen = fitted("temporal", "item", Statistic(measure))
        assert values.tolist() == frozen.tolist()
    np.testing.assert_allclose(fitted("temporal", "item", Statistic("mean"))[1][:, 0], ITEM_MEANS, atol=1e-6)


def test_by_a_column_of_the_items_a_user_has_a_residual_for_each_of_its_values():
    field, values = fitted("temporal", "user", Statistic("residual", "genres"), VALUES, 2)
    # User 0: the rows 0 and 3 are of both values, row 1 is of the second alone.
    of_first, of_second = LEFT[[0, 3]], LEFT[[0, 1, 3]]
    np.testing.assert_allclose(field.sums[0], [of_first.sum(), of_second.sum()], atol=1e-6)
    assert field.counts[0].tolist() == [2, 3]
    np.testing.assert_allclose(values[3], [of_first[0] / 11, of_second[:2].sum() / 12], atol=1e-6)
    np.testing.assert_allclose(values[1], [LEFT[0] / 11] * 2, atol=1e-6)
    assert values[[0, 2]].tolist() == [[0, 0], [0, 0]]
    # Scaled, what is known has a root mean square of 1: of the training rows, rows 1 and 3 know something.
    known = values[[1, 3]]
    assert field.scaler.maximum == pytest.approx(np.sqrt(np.mean(known**2)), rel=1e-5)


def test_under_strict_statistics_are_of_the_other_folds_and_residuals_of_means_without_the_own_label():
    # Four training rows are four folds: each is told of the three others.
    field, values = fitted("strict", "user", Statistic("residual"))
    rows = np.arange(4)
    for row in rows:
        others = rows[rows != row]
        prior, total = LABELS[others].mean(), 0.0
        for event in others[USERS[others] == USERS[row]]:
            same = [other for other in others if other != event and ITEMS[other] == ITEMS[event]]
            total += LABELS[event] - towards(prior, LABELS[same].sum(), len(same))
        count = np.sum(USERS[others] == USERS[row])
        np.testing.assert_allclose(values[row, 0], total / (count + 10), atol=1e-6)
    assert field.counts[:, 0].tolist() == [3, 1]


@pytest.mark.parametrize(("latest", "per_second"), [(50, 1), (1e9, 1), (1.6e12, 1e3), (1.6e15, 1e6), (1.6e18, 1e9)])
def test_a_delay_is_in_seconds_whatever_the_unit_of_the_times(latest, per_second):
    assert units_per_second(np.array([latest - 1, latest])) == per_second


# --- on a data set


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("delay", [0.0, 1e6])
def test_no_feature_knows_a_later_label(sample_folder, statistics, delay):
    raw = as_interactions(read_movielens(sample_folder))

    def features(labels):
        raw.labels = labels
        fields = fields_of("online", statistics)
        return encode_interactions(raw, *fields, "online", 0, 4, "", label_delay=delay)

    labels = raw.labels.copy()
    data = features(labels)
    for split, share in (("test", 0.5), ("test", 0.0), ("valid", 0.5), ("train", 0.5)):
        times_of_split = np.sort(raw.times[np.isin(raw.rows, getattr(data, split).rows)])
        moment = times_of_split[int(share * len(times_of_split))]
        other = features(np.where(raw.times >= moment, 1 - labels, labels))
        changed = 0
        for name in SPLITS:
            ours, theirs = getattr(data, name), getattr(other, name)
            times = raw.times[np.searchsorted(raw.rows, ours.rows)]
            for feature in ours.features:
                same = ours.features[feature][:].numpy() == theirs.features[feature][:].numpy()
                same = same.reshape(len(same), -1).all(axis=1)
                if split != "train":  # a change in training rows changes how all of them are scaled
                    assert same[times <= moment].all(), (name, feature)
                    if delay and feature.startswith("user"):
                        assert same[times < moment + delay].all(), (name, feature)
                changed += (~same).sum()
        assert changed or delay


def test_scalers_are_fitted_on_train_alone(sample_folder):
    raw = as_interactions(read_movielens(sample_folder))
    encoders = []
    for turned in (False, True):
        if turned:
            later = np.argsort(raw.times, kind="stable")[int(0.8 * len(raw.times)) + 1 :]
            raw.labels = raw.labels.copy()
            raw.labels[later] = 1 - raw.labels[later]
        data = encode_interactions(raw, *fields_of("online", "crossed"), "online", 0, 4, "")
        fields = [*data.user_encoder.fields, *data.item_encoder.fields]
        encoders.append({field.name: field.scaler for field in fields if hasattr(field, "scaler")})
    assert encoders[0] == encoders[1]
    assert len(encoders[0]) == 8


@pytest.mark.parametrize("protocol", ["strict", *BY_TIME])
def test_reloaded_encoders_give_test_rows_the_statistics_that_the_table_has(protocol, sample_folder, tmp_path):
    data = load_movielens(sample_folder, protocol, statistics="crossed")
    save_encoders(tmp_path / "encoders.json", data.user_encoder, data.item_encoder)
    raw = read_movielens(sample_folder)
    rows = raw.ratings.iloc[data.test.rows].merge(raw.users, on="user_id").merge(raw.movies, on="movie_id")
    encoders = load_encoders(tmp_path / "encoders.json")
    for tower, encoder in zip(("user", "item"), encoders, strict=True):
        for name, values in encoder.encode(rows).items():
            if protocol == "online" and tower == "user" and name.startswith("user_") and name != "user_id":
                continue  # of each moment
            np.testing.assert_array_equal(values, data.test.features[name].numpy(), err_msg=name)
    columns = {column.name: column for column in data.user_columns + data.item_columns}
    assert columns["user_residual_by_genres"].dimension == columns["genres"].vocabulary_size - 2
    assert columns["item_residual_by_gender_age"].dimension == columns["gender_age"].vocabulary_size - 2
    assert data.test.features["user_residual_by_genres"].shape == (len(data.test), 18)
    assert torch.isfinite(data.test.features["user_residual_by_genres"]).all()


def test_each_set_of_statistics_holds_the_one_before_it(sample_folder):
    names = [list(load_movielens(sample_folder, "temporal", statistics=s).train.features) for s in STATISTICS]
    assert set(names[0]) < set(names[1]) < set(names[2])
    assert set(names[2]) - set(names[1]) == {"user_residual_by_genres", "gender_age", "item_residual_by_gender_age"}
    assert set(names[1]) - set(names[0]) == {"user_residual", "user_count", "item_residual", "item_count"}


def test_paper_knows_means_alone_and_a_set_that_does_not_exist_is_refused(sample_folder):
    for statistics in STATISTICS[1:]:
        refusal(load_movielens, sample_folder, "paper", statistics=statistics, fragments=("means under the protocol",))
    refusal(load_movielens, sample_folder, statistics="all", fragments=("one of means, residuals, crossed, got 'all'",))


def test_without_a_column_to_go_by_crossed_is_residuals_and_means_change_nothing():
    user, item = {"u": SparseField, "m": MeanField}, {"i": SparseField}
    assert with_statistics("temporal", "crossed", user, item) == with_statistics("temporal", "residuals", user, item)
    for protocol in BY_TIME:
        assert with_statistics(protocol, "means", user, item) == (user, item)
    assert user == {"u": SparseField, "m": MeanField}


def test_a_statistic_by_a_column_without_a_value_is_left_out(sample_folder):
    raw = as_interactions(read_movielens(sample_folder))
    raw.items = raw.items.assign(genres=None)
    data = encode_interactions(raw, *fields_of("temporal", "crossed"), "temporal", 0, 4, "")
    names = [column.name for column in data.user_columns + data.item_columns]
    assert "user_residual_by_genres" not in names
    assert "item_residual_by_gender_age" in names
    assert set(names) == set(data.train.features)


def test_a_cross_is_an_id_for_each_combination_of_training_and_knows_no_others():
    train = pd.DataFrame({"gender": ["F", "M", "M", "F"], "age": [18, 18, 25, 18]})
    field = CrossField.fit("gender_age", train)
    rows = pd.DataFrame({"gender": ["F", "M", "M", "F", "X", "F"], "age": [18, 18, 25, 25, 18, 99]})
    assert field.encode(rows).tolist() == [2, 3, 4, 1, 1, 1]
    assert field.column(8)[:3] == ("gender_age", 5, 8)
    assert field.sources == ["gender", "age"]
