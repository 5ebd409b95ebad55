"""One raw row is encoded as a frame of that row is: the same features, bit for bit, or the same refusal."""

import pickle
from collections import defaultdict
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from preprocessing.encode import (
    CounterField,
    CrossField,
    MeanField,
    MinMaxScaler,
    MissingField,
    NumberField,
    SparseField,
    TowerEncoder,
    VarLenField,
    load_encoders,
    save_encoders,
)
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens, read_movielens
from preprocessing.one_row import RowEncoder

NUMBERS, TEXT = pd.Index([7, 42, 2**62]), pd.Index(["", "07", "8", "M"])


def mean(keys: pd.Index) -> MeanField:
    return MeanField("x", "x", keys, np.array([0.1, 0.7, 0.9, 0.3])[: len(keys)], 0.6, MinMaxScaler(0.1, 0.9))


def counter(measure: str) -> CounterField:
    counts, sums = np.array([[0.0, 3.0], [2.0, 0.0], [9.0, 1.0]]), np.array([[0.0, 2.0], [1.0, 0.0], [-3.0, 1.0]])
    return CounterField("x", "x", NUMBERS, measure, "genres", counts, sums, 0.3, MinMaxScaler(-0.2, 1.7))


PRICES = pd.Series([0.0, 3.5, 1e6])
FIELDS = {
    "whole numbers": SparseField("x", NUMBERS),
    "text": SparseField("x", TEXT),
    "fractions": SparseField("x", pd.Index([0.5, 2.0])),
    "nothing": SparseField("x", pd.Index([])),
    "lists": VarLenField("x", TEXT, 2),
    "lists of numbers": VarLenField("x", NUMBERS, 2),
    "number": NumberField.fit("x", PRICES, PRICES, log=False),
    "logarithm": NumberField.fit("x", PRICES, PRICES, log=True),
    "missing": MissingField("x_missing", "x"),
    "mean by number": mean(NUMBERS),
    "mean by text": mean(TEXT),
    "residual": counter("residual"),
    "count": counter("count"),
    "cross": CrossField.fit("x_y", pd.DataFrame({"x": [7, 42, 7], "y": ["M", "M", "F"]})),
}
# Known and unknown, of the usual kinds and of all that pandas may hand on.
VALUES = [
    *(7, 42, 2**62, 8, 0, -1, 10**30, "7", "007", "42.0", " 42", "M", "07", "", "8", "x", "M|8", "8|M|07", "7|42", "|"),
    *(None, np.nan, pd.NA, 42.0, 42.5, 0.5, 2.0**60, np.inf, -np.inf, 1e300, True, np.int64(42), np.float32(3.5)),
    *(np.str_("M"), Decimal(42), Decimal("0.5"), ["M", "8"], ("M",), [1], b"M", 1j, pd.Timestamp("2020-01-01")),
]


def encoded(encode, row) -> tuple:
    """Features as kinds, shapes and bytes, or what was refused."""
    try:
        features = encode(row)
    except (UserError, TypeError, ValueError) as error:
        return "refused", str(error)
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in features.items()}


@pytest.mark.parametrize("name", FIELDS)
def test_a_row_has_the_features_of_a_frame_of_that_row_or_is_refused_as_that_is(name):
    encoder = TowerEncoder([FIELDS[name]])
    one_row = RowEncoder(encoder)
    for value in VALUES:
        row = {"x": value, "y": "M", "not asked for": 1}
        expected = encoded(lambda row: encoder.encode(pd.DataFrame({key: [row[key]] for key in row})), row)
        assert encoded(one_row, row) == expected, value
        assert encoded(pickle.loads(pickle.dumps(one_row)), row) == expected, value


@pytest.mark.parametrize(
    ("protocol", "statistics"), [("strict", "means"), ("temporal", "crossed"), ("online", "crossed")]
)
def test_users_and_items_of_a_dataset_are_encoded_the_same_row_by_row(sample_folder, protocol, statistics):
    data, raw = load_movielens(sample_folder, protocol, statistics=statistics), read_movielens(sample_folder)
    for encoder, frame in ((data.user_encoder, raw.users), (data.item_encoder, raw.movies)):
        one_row, features = RowEncoder(encoder), encoder.encode(frame)
        for place, row in enumerate(frame.to_dict("records")):
            expected = {name: values[place : place + 1] for name, values in features.items()}
            assert encoded(one_row, row) == encoded(lambda _, expected=expected: expected, row)


def test_crosses_that_training_never_saw_or_that_are_beyond_64_bits_go_by_the_frame(tmp_path):
    fields = [
        CrossField.fit("none", pd.DataFrame({"x": [7, None], "y": [None, "M"]})),
        CrossField.fit("wide", pd.DataFrame({f"c{n}": range(7) for n in range(21)})),
    ]
    path = tmp_path / "encoders.json"
    save_encoders(path, TowerEncoder(fields), TowerEncoder([]))
    row = {"x": 7, "y": "M"} | {f"c{n}": 5 for n in range(21)}
    for encoder in (TowerEncoder(fields), load_encoders(path)[0]):
        assert encoded(RowEncoder(encoder), row) == encoded(encoder.encode, pd.DataFrame([row]))


def test_a_row_without_a_column_is_refused_and_so_is_what_is_no_row():
    one_row = RowEncoder(TowerEncoder([FIELDS["cross"]]))
    has_an_answer_for_all = defaultdict(int, {"x": b"no id"})
    with pytest.raises(UserError, match="expected a column 'y'"):
        one_row(has_an_answer_for_all)
    assert has_an_answer_for_all.keys() == {"x"}
    with pytest.raises(UserError, match=r"expected a column 'y', got \['x', 'z'\]; add it"):
        one_row({"x": 7, "z": 1})
    with pytest.raises(UserError, match="expected a mapping of raw values by column, got DataFrame"):
        one_row(pd.DataFrame({"x": [7], "y": ["M"]}))
