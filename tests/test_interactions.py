"""Rows that name a user and an item, encoded: twenty rows by hand under every protocol."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from tables import SPLITS, refusal

from preprocessing.choices import PROTOCOLS
from preprocessing.encode import MeanField, MissingField, NumberField, SparseField, VarLenField
from preprocessing.errors import UserError
from preprocessing.interactions import Interactions, check_protocol, data_fingerprint, encode_interactions
from preprocessing.protocols import split_rows
from preprocessing.statistics import Statistic
from preprocessing.tables import Dataset, Lookup

SEED, TIMES = 5, np.arange(20)[::-1]
USER_FIELDS = {"user": SparseField, "age_level": SparseField}
ITEM_FIELDS = {
    "ad": SparseField,
    "brand": SparseField,
    "tags": VarLenField,
    "pid": SparseField,
    "price": NumberField,
    "price_missing": MissingField,
}
USER_FIELDS_WITH_MEAN = USER_FIELDS | {"user_mean": MeanField}
ITEM_FIELDS_WITH_MEAN = ITEM_FIELDS | {"ad_mean": MeanField}

# The fourth user and the fourth ad occur in test rows alone, the fifth ones in validation alone.
USERS = pd.DataFrame({"user": [70, 50, 60, 90, 10], "age_level": [3, np.nan, 5, 9, 3]})
ADS = pd.DataFrame(
    {
        "ad": [12, 11, 13, 19, 10],
        "brand": ["b", "a", None, "c", "a"],
        "tags": ["x|y", "y", "", "x|z|y", "z"],
        "price": [0.0, 8.0, np.nan, 80.0, 2.0],
    }
)
# Places in USERS and ADS, pids and labels of the rows of each split, in its order.
USER_OF_ROW = {"train": [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0], "valid": [0, 4], "test": [3, 1, 3, 0]}
AD_OF_ROW = {"train": [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2, 0, 1], "valid": [1, 4], "test": [3, 0, 1, 3]}
PIDS = {"train": ["left", "right"] * 7, "valid": ["left", "top"], "test": ["top", "right", "left", "left"]}
LABELS = {"train": [1, 0] * 7, "valid": [0, 1], "test": [1, 0, 0, 1]}
# What they become: ids of the sorted training values from 2 on, 1 for what no training row has.
ENCODED_USERS = {"user": [4, 2, 3, 1, 1], "age_level": [2, 1, 3, 1, 2]}
ENCODED_ADS = {
    "ad": [3, 2, 4, 1, 1],
    "brand": [3, 2, 1, 1, 2],
    "tags": [[2, 3], [3, 0], [1, 0], [2, 1], [1, 0]],
    "price_missing": [[0.0], [0.0], [1.0], [0.0], [0.0]],
}
ENCODED_PIDS = {"left": 2, "right": 3, "top": 1}


def splits_by_hand(protocol: str) -> dict[str, np.ndarray]:
    return vars(split_rows(protocol, TIMES, SEED))


def dealt(protocol: str, values: dict[str, list], dtype=np.int64) -> np.ndarray:
    """The values of twenty rows, of which each split gets its own."""
    column = np.empty(20, dtype=dtype)
    for name, rows in splits_by_hand(protocol).items():
        column[rows] = values[name]
    return column


def by_hand(protocol: str, **changes) -> Interactions:
    """Twenty rows, of which each split gets those that stand above."""
    columns = dict(
        name="ads",
        users=USERS,
        items=ADS,
        user_of_row=dealt(protocol, USER_OF_ROW),
        item_of_row=dealt(protocol, AD_OF_ROW),
        labels=dealt(protocol, LABELS, np.int8),
        times=TIMES,
        rows=np.arange(20) * 3 + 100,
        context={"pid": pd.Series(dealt(protocol, PIDS, object))},
        probabilities=np.arange(20) / 20,
        counts={"rows_read": 25},
    )
    return Interactions(**columns | changes)


def encoded_by_hand(
    protocol: str = "strict",
    user_fields: dict = USER_FIELDS,
    item_fields: dict = ITEM_FIELDS,
    released_per_part: bool = False,
    **changes,
) -> Dataset:
    raw = by_hand(protocol, **changes)
    return encode_interactions(raw, user_fields, item_fields, protocol, SEED, 4, "fingerprint", released_per_part)


@pytest.fixture(scope="module", params=PROTOCOLS)
def data(request) -> Dataset:
    return encoded_by_hand(request.param)


def test_every_row_looks_its_user_and_its_item_up_and_what_is_known_of_them_is_held_once(data):
    for split in SPLITS:
        table = getattr(data, split)
        for names, of_row in ((USER_FIELDS, USER_OF_ROW), (ITEM_FIELDS.keys() - {"pid"}, AD_OF_ROW)):
            for name in names:
                feature = table.features[name]
                assert isinstance(feature, Lookup), name
                assert feature.index.tolist() == of_row[split]
                assert feature.index.dtype == torch.int32
                assert feature.values is data.train.features[name].values
        assert table.features["user"].index is table.features["age_level"].index
        assert table.features["ad"].index is table.features["price"].index
        assert np.shares_memory(table.groups, table.features["user"].index.numpy())


def test_ids_are_those_of_the_values_that_training_rows_name(data):
    for name, expected in (ENCODED_USERS | ENCODED_ADS).items():
        values = data.test.features[name].values
        assert values.tolist() == expected, name
        assert values.dtype == (torch.float32 if name == "price_missing" else torch.int32)
    # Those of the row itself are kept by row.
    for split in SPLITS:
        pids = getattr(data, split).features["pid"]
        assert not isinstance(pids, Lookup)
        assert pids.tolist() == [ENCODED_PIDS[pid] for pid in PIDS[split]]
        assert pids.dtype == torch.int32


def test_a_tower_has_its_fields_in_their_order_and_counts_what_training_has(data):
    assert list(data.train.features) == [*USER_FIELDS, *ITEM_FIELDS]
    assert [column.name for column in data.user_columns + data.item_columns] == [*USER_FIELDS, *ITEM_FIELDS]
    # Three users, two age levels, three ads, two brands, tags and pids; padding and out-of-vocabulary in each.
    assert [column.vocabulary_size for column in data.user_columns] == [5, 4]
    assert [column.vocabulary_size for column in data.item_columns[:4]] == [5, 4, 4, 4]
    counted = {"train": 14, "valid": 2, "test": 4, "users_in_train": 3, "items_in_train": 3}
    counted |= {"rows_that_repeat_another": 0, "rows_that_contradict_another": 0}
    counted |= {"test_rows_with_pair_and_label_in_train": 1}  # the second: user 1, ad 0, label 0
    assert data.counts == {"rows_read": 25} | counted
    assert data.fingerprint == "fingerprint"
    assert data.embedding_dim == data.user_columns[0].embedding_dim == 4


@pytest.mark.parametrize("protocol", ["strict", "temporal"])
def test_prices_are_scaled_by_the_logarithms_of_those_that_training_rows_name(protocol):
    # The known prices of training are 0 and 8: their mean stands in for the third, log(1 + 8) becomes 1.
    # 80 is twice that in logarithms, and half of it is 2.
    prices = encoded_by_hand(protocol).train.features["price"].values
    expected = [[0.0], [1.0], [math.log(5) / math.log(9)], [2.0], [0.5]]
    torch.testing.assert_close(prices, torch.tensor(expected), rtol=0, atol=1e-6)


def test_under_paper_prices_are_scaled_as_they_are_by_those_of_test_rows():
    # Test rows name the prices 80, 0 and 8; the missing one is the mean of the training ads' all the same.
    prices = encoded_by_hand("paper").train.features["price"].values
    torch.testing.assert_close(prices, torch.tensor([[0.0], [0.1], [0.05], [1.0], [0.025]]), rtol=0, atol=1e-6)


def test_each_price_counts_once_however_often_its_ad_is_shown():
    often = dealt("strict", AD_OF_ROW | {"train": [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]})
    assert encoded_by_hand("strict", item_of_row=often).item_encoder.fields[4].mean == 4.0


def test_values_of_users_and_ads_outside_training_change_nothing_that_is_learned(data):
    users, ads = USERS.copy(), ADS.copy()
    users.loc[3:, "age_level"] = [77, 78]
    ads.loc[3:, ["brand", "tags", "price"]] = ["q", "q|r|s|t", 1e6]
    other = encoded_by_hand(data.protocol, users=users, items=ads)
    for name in (*ENCODED_USERS, *ENCODED_ADS):
        assert torch.equal(other.test.features[name].values[:3], data.test.features[name].values[:3]), name
    if data.protocol != "paper":
        assert torch.equal(other.test.features["price"].values[:3], data.test.features["price"].values[:3])
    assert other.item_columns == data.item_columns
    assert other.user_columns == data.user_columns


def test_rows_are_places_in_the_raw_file_and_groups_are_raw_users(data):
    for split, rows in splits_by_hand(data.protocol).items():
        table = getattr(data, split)
        assert table.rows.tolist() == [100 + 3 * row for row in rows]
        assert table.groups.tolist() == USER_OF_ROW[split]
        assert table.groups.dtype == np.int32
        assert table.labels.tolist() == LABELS[split]
        assert table.labels.dtype == torch.float32


def test_encoders_give_raw_frames_what_the_tables_hold(data):
    users, items = data.user_encoder.encode(USERS), data.item_encoder.encode(ADS.assign(pid="right"))
    assert items.pop("pid").tolist() == [3] * 5
    for name, values in (users | items).items():
        np.testing.assert_array_equal(data.test.features[name].values.numpy(), values, err_msg=name)


def test_probabilities_are_those_of_the_test_rows_and_mark_the_name(data):
    assert data.probabilities.tolist() == [row / 20 for row in splits_by_hand(data.protocol)["test"]]
    assert data.name == "ads-synthetic"
    assert data.synthetic
    real = encoded_by_hand(data.protocol, probabilities=None)
    assert real.probabilities is None
    assert real.name == "ads"
    assert not real.synthetic


def test_labels_leak_under_paper_where_a_field_is_made_of_labels(data):
    assert not data.labels_leak
    for fields in ({"user_fields": USER_FIELDS_WITH_MEAN}, {"item_fields": ITEM_FIELDS_WITH_MEAN}):
        assert encoded_by_hand(data.protocol, **fields).labels_leak is (data.protocol == "paper")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_mean_of_labels_is_kept_by_row_under_the_name_of_its_id(protocol):
    data = encoded_by_hand(protocol, USER_FIELDS_WITH_MEAN, ITEM_FIELDS_WITH_MEAN)
    for split in SPLITS:
        table = getattr(data, split)
        for name in ("user_mean", "ad_mean"):
            assert not isinstance(table.features[name], Lookup)
            assert table.features[name].shape == (len(table), 1)
            assert table.features[name].dtype == torch.float32
    user_mean, ad_mean = data.user_encoder.fields[-1], data.item_encoder.fields[-1]
    assert (user_mean.key, ad_mean.key) == ("user", "ad")
    if protocol != "paper":
        # Those of training; under online of validation, too.
        assert {50, 60, 70} <= set(user_mean.keys)
        assert {11, 12, 13} <= set(ad_mean.keys)
        assert protocol == "online" or len(user_mean.keys) == len(ad_mean.keys) == 3
    if protocol in ("strict", "temporal"):
        # Of valid and test rows the encoder knows all: they see what training left behind.
        assert data.test.features["user_mean"].tolist() == user_mean.encode(USERS)[USER_OF_ROW["test"]].tolist()
        assert data.test.features["ad_mean"].tolist() == ad_mean.encode(ADS)[AD_OF_ROW["test"]].tolist()


def test_under_paper_users_without_a_positive_label_vanish_and_means_are_taken_per_part_or_over_all_rows():
    whole = encoded_by_hand("paper")
    per_part, over_all = (
        encoded_by_hand("paper", USER_FIELDS_WITH_MEAN, released_per_part=released) for released in (True, False)
    )
    # In test rows, user 3 has the labels 1 and 0, user 1 a 0, user 0 a 1; over all rows user 1 has some 1.
    assert whole.test.groups.tolist() == over_all.test.groups.tolist() == [3, 1, 3, 0]
    assert per_part.test.groups.tolist() == [3, 3, 0]
    assert per_part.test.features["user_mean"].flatten().tolist() == [0.0, 0.0, 1.0]  # of 1/2, 1/2 and 1
    # Over all rows user 3 has 1 of 2, user 1 has 2 of 5, and user 0 has 4 of 8: 3 of 6 in train, 0 in valid, 1 in test.
    assert over_all.test.features["user_mean"].flatten().tolist() == [1.0, 0.0, 1.0, 1.0]
    assert (whole.counts["test"], over_all.counts["test"], per_part.counts["test"]) == (4, 4, 3)
    assert per_part.probabilities.shape == (3,)
    num_kept = sum(len(getattr(per_part, split)) for split in SPLITS)
    assert per_part.counts["rows_dropped_of_users_without_positive"] == 20 - num_kept > 0
    assert "rows_dropped_of_users_without_positive" not in whole.counts


def with_twins(protocol: str, **changes) -> Interactions:
    """The twenty rows and, below them, two of them again."""
    raw, again = by_hand(protocol), np.r_[:20, 10, 11]
    columns = {name: getattr(raw, name)[again] for name in ("user_of_row", "item_of_row", "labels", "times")}
    context = {"pid": raw.context["pid"].iloc[again].reset_index(drop=True)}
    columns |= {"context": context, "rows": np.arange(22), "probabilities": None, "file": "shown.csv"}
    return by_hand(protocol, **columns | changes)


def encoded_with_twins(protocol: str, strict_data: bool = False, **changes) -> Dataset:
    raw = with_twins(protocol, **changes)
    return encode_interactions(raw, USER_FIELDS, ITEM_FIELDS, protocol, SEED, 4, "", strict_data=strict_data)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_repeated_rows_are_counted_and_said_and_lie_in_the_split_of_their_twins(protocol, capsys):
    data = encoded_with_twins(protocol)
    assert (data.counts["rows_that_repeat_another"], data.counts["rows_that_contradict_another"]) == (2, 0)
    raw = with_twins(protocol)
    user, ad = USERS["user"][raw.user_of_row[10]], ADS["ad"][raw.item_of_row[10]]
    assert capsys.readouterr().out.splitlines()[0] == (
        "shown.csv: 2 of 22 rows repeat another of the same user, item and time "
        f"(rows 11 and 21: user {user}, ad {ad}, time 9); they stay in, twins in one split."
    )
    rows = [set(getattr(data, split).rows.tolist()) for split in SPLITS]
    assert set.union(*rows) == set(range(22))
    for twins in ({10, 20}, {11, 21}):
        assert any(twins <= of_split for of_split in rows)


def test_repeated_rows_of_another_label_are_counted_and_said_apart(capsys):
    labels = with_twins("strict").labels
    labels[21] = 1 - labels[21]
    data = encoded_with_twins("strict", labels=labels)
    assert (data.counts["rows_that_repeat_another"], data.counts["rows_that_contradict_another"]) == (2, 1)
    said = capsys.readouterr().out.splitlines()[1]
    assert said.startswith(
        "shown.csv: 1 of the repeated rows contradict the first of them by another label (rows 12 and 22"
    )


def test_repeated_rows_are_refused_with_strict_data():
    labels = with_twins("strict").labels
    with pytest.raises(UserError, match=r"^shown.csv: expected each user, item and time once, got 2 of 22 rows"):
        encoded_with_twins("strict", strict_data=True)
    labels[21] = 1 - labels[21]
    with pytest.raises(UserError, match=r"\(rows 12 and 22: .*\), 1 of them with another label; remove them"):
        encoded_with_twins("strict", strict_data=True, labels=labels)


def test_rows_that_repeat_a_pair_at_another_time_are_counted_and_taken_with_strict_data(capsys):
    data = encode_interactions(by_hand("strict"), USER_FIELDS, ITEM_FIELDS, "strict", SEED, 4, "", strict_data=True)
    assert data.counts["test_rows_with_pair_and_label_in_train"] == 1
    assert data.checksum() == encoded_by_hand("strict").checksum()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_times_of_two_units_are_refused_with_the_name_of_the_file(protocol):
    times = 978_300_000 + np.arange(20)
    times[3] *= 1000
    with pytest.raises(UserError, match=r"^shown.csv: expected times of one unit, got 19 in seconds"):
        encoded_by_hand(protocol, times=times, file="shown.csv")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("user_of_row", -1, "ads: user_of_row: expected places in the table of users, 0 to 4, got -1 in row 3"),
        ("item_of_row", 5, "ads: item_of_row: expected places in the table of items, 0 to 4, got 5 in row 3"),
        ("labels", 2, "ads: labels: expected 0 and 1, got 2 in row 3"),
        ("labels", -1, "ads: labels: expected 0 and 1, got -1 in row 3"),
    ],
)
def test_what_is_no_place_and_no_label_is_refused_before_it_trains(column, value, message, protocol):
    values = np.array(getattr(by_hand(protocol), column))
    values[3] = value
    assert message in refusal(encoded_by_hand, protocol, **{column: values})


def test_labels_may_be_true_and_false(data):
    labels = by_hand(data.protocol).labels.astype(bool)
    assert torch.equal(encoded_by_hand(data.protocol, labels=labels).train.labels, data.train.labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.ones(20)}, "ads: labels: expected 0 and 1 as whole numbers, got float64"),
        ({"times": TIMES[:-1]}, "ads: expected a value for each row, got 19 times and 20 labels"),
        ({"times": pd.date_range("2026", periods=20).to_numpy()}, "ads: expected times as numbers, got datetime64"),
        ({"users": USERS.assign(user=[70, 50, 60, 70, 10])}, "expected each user once in its table, got user 70 twice"),
        ({"users": USERS.assign(age_level=pd.Timestamp(0))}, "age_level: expected text or numbers, got datetime64"),
        ({"user_fields": USER_FIELDS | {"by": Statistic("residual", "tag")}}, "by: expected a statistic by a field of"),
    ],
)
def test_columns_of_another_kind_or_length_are_refused_in_a_line(changes, message):
    assert message in refusal(encoded_by_hand, "temporal", **changes)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_of_one_class_is_refused(split):
    labels = by_hand("strict").labels
    labels[splits_by_hand("strict")[split]] = 0
    with pytest.raises(UserError, match=f"{split} split: expected labels 0 and 1, got only 0"):
        encoded_by_hand("strict", labels=labels)


def test_a_protocol_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="protocol: expected one of strict, paper, temporal, online, got 'random'"):
        check_protocol("random")
    with pytest.raises(UserError, match="protocol: expected one of"):
        encode_interactions(by_hand("strict"), USER_FIELDS, ITEM_FIELDS, "random", SEED, 4, "")


def test_a_fingerprint_is_of_the_files_and_of_every_setting():
    first = data_fingerprint("abc", protocol="strict", split_seed=1)
    assert first == data_fingerprint("abc", split_seed=1, protocol="strict")
    others = [
        data_fingerprint("abd", protocol="strict", split_seed=1),
        data_fingerprint("abc", protocol="paper", split_seed=1),
        data_fingerprint("abc", protocol="strict", split_seed=2),
        data_fingerprint("abc", protocol="strict", split_seed=1, sample_rate=0.5),
    ]
    assert len({first, *others}) == 5
    assert len(first) == 64
