"""What a person may hand to encode_interactions by mistake, and what is taken in whatever form it comes."""

import numpy as np
import pandas as pd
import pytest
import torch
from tables import refusal
from test_interactions import ADS, ITEM_FIELDS, SEED, TIMES, USER_FIELDS, USERS, by_hand, encoded_by_hand

from preprocessing.choices import PROTOCOLS
from preprocessing.encode import MissingField, NumberField, SparseField
from preprocessing.interactions import encode_interactions
from preprocessing.statistics import Cross, Statistic

BACKWARDS = np.arange(20)[::-1]
IN_OTHER_FORMS = {
    "columns of pandas whose index is another order": lambda column: pd.Series(column, index=BACKWARDS),
    "lists": list,
    "pandas' own whole numbers": lambda column: pd.array(column, dtype="Int64"),
    "an index": pd.Index,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", IN_OTHER_FORMS.values(), ids=IN_OTHER_FORMS)
def test_rows_are_taken_in_their_order_whatever_form_they_have(form, protocol):
    columns = {name: getattr(by_hand(protocol), name) for name in ("user_of_row", "item_of_row", "labels", "rows")}
    columns["times"] = TIMES
    taken = encoded_by_hand(protocol, **{name: form(column) for name, column in columns.items()})
    right = encoded_by_hand(protocol)
    for split in ("train", "valid", "test"):
        of_split, wanted = getattr(taken, split), getattr(right, split)
        assert torch.equal(of_split.labels, wanted.labels)
        assert np.array_equal(of_split.rows, wanted.rows)
        for name in wanted.features:
            assert torch.equal(of_split.features[name][:], wanted.features[name][:]), name


def test_what_belongs_to_a_row_may_be_a_list():
    pids = by_hand("strict").context["pid"].tolist()
    taken, right = encoded_by_hand(context={"pid": pids}), encoded_by_hand()
    assert torch.equal(taken.train.features["pid"], right.train.features["pid"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"item_fields": ITEM_FIELDS | {"age_level": SparseField}},
            "ads: expected a field in one tower, got 'age_level' in both; rename the column",
        ),
        ({"user_fields": {}}, "ads: expected the users' fields, their id first, got none"),
        (
            {"user_fields": USER_FIELDS | {"city": SparseField}},
            "ads: expected a column 'city' in the table of users, got ['user', 'age_level']",
        ),
        ({"users": USERS.set_index("user")}, "ads: expected a column 'user' in the table of users, got ['age_level']"),
        (
            {"users": pd.concat([USERS, USERS["age_level"]], axis=1)},
            "ads: expected a column 'age_level' in the table of users, got it several times",
        ),
        (
            {"item_fields": ITEM_FIELDS | {"weight_missing": MissingField}},
            "ads: expected a column 'weight' in the table of items",
        ),
        (
            {"user_fields": USER_FIELDS | {"both": Cross(("age_level", "city"))}},
            "ads: expected a column 'city' in the table of users",
        ),
        (
            {"user_fields": USER_FIELDS | {"middle": Statistic("median")}},
            "middle: expected a statistic of mean, residual, count, got 'median'",
        ),
        (
            {"user_fields": USER_FIELDS | {"by_price": Statistic("residual", "price")}},
            "by_price: expected a statistic by a field of the items that has values (ad, brand, tags, pid), got one by",
        ),
        (
            {"item_fields": ITEM_FIELDS | {"pid": NumberField}},
            "ads: context 'pid': expected a SparseField or a VarLenField, got NumberField",
        ),
        ({"labels": np.ones((20, 1))}, "ads: expected a value for each row, got labels of the shape (20, 1)"),
        ({"labels": [1.0] * 19 + [None]}, "ads: labels: expected 0 and 1 as whole numbers, got float64"),
        (
            {"items": ADS.assign(price=[-1.0, -8.0, np.nan, -80.0, -2.0])},
            "ads: price: expected numbers of at least 0, got none in 4 of 4 items (such as -1.0); shift or convert",
        ),
        (
            {"items": ADS.assign(price=["$1", "$8", "", "$80", None])},
            "ads: price: expected numbers of at least 0, got none in 3 of 3 items (such as '$1')",
        ),
    ],
)
def test_what_could_not_be_meant_is_refused_in_a_line(changes, message):
    assert message in refusal(encoded_by_hand, "strict", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split_seed": None}, "split_seed: expected a whole number from 0 to below 2^32, got None"),
        ({"split_seed": -1}, "split_seed: expected a whole number from 0 to below 2^32, got -1"),
        ({"embedding_dim": 0}, "embedding_dim: expected a whole number of at least 1, got 0"),
        ({"label_delay": 5}, "label_delay: expected with the protocol online alone, got 5 under strict"),
        ({"label_delay": -5, "protocol": "online"}, "label_delay: expected seconds of at least 0, got -5"),
    ],
)
def test_a_setting_that_is_none_is_refused(changes, message):
    settings = dict(protocol="strict", split_seed=SEED, embedding_dim=4, fingerprint="") | changes
    raw = by_hand(settings["protocol"])
    assert message in refusal(encode_interactions, raw, USER_FIELDS, ITEM_FIELDS, **settings)


def test_numbers_that_are_lost_are_counted_and_said(capsys):
    encoded_by_hand(items=ADS.assign(price=[0.0, 8.0, np.nan, -80.0, 2.0]))
    said = "ads: price of 1 of 4 items (such as -80.0) is no number of at least 0 and counts as missing."
    assert said in capsys.readouterr().out
    encoded_by_hand()
    assert "no number" not in capsys.readouterr().out


def test_whole_numbers_with_a_gap_are_filled_with_the_mean():
    gap = ADS.assign(price=pd.array([0, 8, None, 80, 2], dtype="Int64"))
    taken, right = encoded_by_hand(items=gap), encoded_by_hand()
    assert torch.equal(taken.train.features["price"][:], right.train.features["price"][:])
