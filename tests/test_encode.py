"""Vocabularies, scalers and the fields of a tower, by hand, and what is left of them in a file."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from preprocessing.choices import PROTOCOLS
from preprocessing.encode import (
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
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from preprocessing.movielens import load_movielens, read_movielens

NAN = np.nan


# --- ids

KINDS = pd.CategoricalDtype(["left", "right", "top"])
# Training values, the values to encode, and their ids: sorted training values from 2 on, 1 for all others.
IDS = {
    "numbers": ([30, 10, 20, 10], [10, 20, 30, 10], [2, 3, 4, 2]),
    "text": (["F", "M"], ["M", "X", "", None, "F"], [3, 1, 1, 1, 2]),
    "ids too large for a float": ([2**24, 2**24 + 1, 2**53, 2**53 + 1],) * 2 + ([2, 3, 4, 5],),
    "whole numbers that arrive as text": ([7, 42], ["42", "7", "8", "x"], [3, 2, 1, 1]),
    # A column of whole numbers with gaps is read as floats.
    "whole numbers read as floats": ([3.0, NAN, 1.0], [1.0, 3.0, 2.0, NAN, 1.5], [2, 3, 1, 1, 1]),
    "as floats, then without gaps": ([3.0, NAN, 1.0], [3, 1], [3, 2]),
    "as floats, then as text": ([3.0, NAN, 1.0], ["3", "1.0", "", None], [3, 2, 1, 1]),
    "fractions": ([2.0, 0.5, NAN], [2.0, 0.5, NAN], [3, 2, 1]),
    "infinity": ([1.0, np.inf], [1.0, np.inf, 2.0, NAN], [2, 3, 1, 1]),
    "floats that no whole number holds": ([1.0, 1e19, 2e19], [1.0, 1e19, 2e19, 2.0], [2, 3, 4, 1]),
    "large negative ones": ([-1e300, 1.0], [-1e300, 1.0, 2.0], [2, 3, 1]),
    "no value": ([NAN, NAN], [NAN, 7.0], [1, 1]),
    "no row": ([], [NAN, 7.0], [1, 1]),
    # Text of millions of rows arrives as categories, of which training need not have all.
    "categories": (pd.Series(["right", "left", None], dtype=KINDS), ["top", "right", None, "x"], [1, 3, 1, 1]),
    "then as categories": (["right", "left"], pd.Series(["top", "right", None], dtype=KINDS), [1, 3, 1]),
}


@pytest.mark.parametrize("case", IDS)
def test_training_values_get_ids_from_2_on_in_sorted_order_and_others_1_after_json_too(case, tmp_path):
    train_values, values, expected = IDS[case]
    is_text = any(isinstance(value, str) for value in values)
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object if is_text and isinstance(values, list) else None)})
    field = SparseField.fit("x", pd.Series(train_values))
    save_encoders(tmp_path / "encoders.json", TowerEncoder([field]), TowerEncoder([]))
    for one in (field, load_encoders(tmp_path / "encoders.json")[0].fields[0]):
        assert one.encode(frame).tolist() == expected
        assert one.encode(frame).dtype == np.int32
        assert one.column(4).vocabulary_size == len(pd.Series(train_values).dropna().unique()) + 2


# Training lists, the lists to encode, and their ids with padding behind.
LISTS = {
    # Action 2, Comedy 3, Drama 4, War 5
    "known": (
        ["Comedy|Drama", "Action", "Drama|Action|War"],
        ["War", "Drama|Comedy", "Action|Drama|War", "War"],
        [[5, 0, 0], [4, 3, 0], [2, 4, 5], [5, 0, 0]],
    ),
    "unseen, and longer than any": (
        ["Comedy|Drama", "Action"],
        ["Western", "Drama|Western|Action", None],
        [[1, 0], [4, 1], [1, 0]],
    ),
    "an empty list is no value to learn": (["", "Crime|Drama"], ["", "Drama"], [[1, 0], [3, 0]]),
    "nothing learned": (["", ""], ["", "Drama"], [[1], [1]]),
    "an empty part is no value to learn": (
        ["|Crime||Drama|", "|"],
        ["Drama|", "|", "||Crime"],
        [[3, 0], [1, 0], [2, 0]],
    ),
    "lists and tuples": (
        ["Comedy|Drama", "Action"],
        [["Drama", "Comedy"], ("Action",), [], [""], "Drama", None, np.array(["Action"])],
        [[4, 3], [2, 0], [1, 0], [1, 0], [4, 0], [1, 0], [2, 0]],
    ),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_become_ids_with_padding_behind(case):
    train_values, values, expected = LISTS[case]
    ids = VarLenField.fit("genres", pd.Series(train_values)).encode(pd.DataFrame({"genres": values}))
    assert ids.tolist() == expected
    assert ids.dtype == np.int32


@pytest.mark.parametrize(
    "value", [5, 5.5, True, b"Drama", ["Drama", 5], [None], {"Drama": 1}, {"Drama"}, pd.Timestamp(0)]
)
def test_a_value_that_is_no_list_of_text_is_refused_in_one_line(value):
    field = VarLenField.fit("genres", pd.Series(["Comedy|Drama"]))
    with pytest.raises(
        UserError, match=r"^genres: expected text such as 'a\|b', or a list of text, got .* in row 1"
    ) as error:
        field.encode(pd.DataFrame({"genres": pd.Series(["Drama", value], dtype=object)}))
    assert "\n" not in str(error.value)


# --- numbers


def test_the_scaler_maps_the_fitted_range_to_0_and_1_clips_nothing_and_makes_a_constant_0():
    scaler = MinMaxScaler.fit(np.array([2.0, 6.0, 4.0]))
    assert scaler.transform(np.array([2.0, 4.0, 6.0, 8.0, 0.0])).tolist() == [0.0, 0.5, 1.0, 1.5, -0.5]
    assert MinMaxScaler.fit(np.array([0.7, 0.7])).transform(np.array([0.7])).tolist() == [0.0]


def user_mean_field() -> MeanField:
    keys = pd.Index([7, 9])
    return MeanField("user_mean_rating", "user_id", keys, np.array([0.25, 1.0]), 0.5, MinMaxScaler(0.0, 0.5))


@pytest.mark.parametrize("user_ids", [[9, 8, 7], ["9", "8", "7"]], ids=["numbers", "text"])
def test_an_unseen_key_gets_the_prior_as_its_mean(user_ids):
    values = user_mean_field().encode(pd.DataFrame({"user_id": user_ids}))
    assert values.tolist() == [[2.0], [1.0], [0.5]]
    assert values.dtype == np.float32


# The training values, those that are scaled on, whether logarithms are scaled; then values and what they become.
NUMBERS = {
    "clipped nowhere": ([1.0, 3.0], [10.0, 20.0], False, [10.0, 15.0, 20.0, 0.0, 30.0], [0.0, 0.5, 1.0, -1.0, 2.0]),
    "a missing one is the mean": ([1.0, 3.0, NAN, 8.0], [0.0, 8.0], False, [NAN, 2.0], [0.5, 0.25]),
    "text": ([1.0, 3.0, NAN, 8.0], [0.0, 8.0], False, ["2.0", "", None], [0.25, 0.5, 0.5]),
    "no price is a missing one": (
        [1.0, 3.0, -9.0, np.inf],
        [0.0, 4.0, np.inf],
        False,
        [-5.0, np.inf, -np.inf, NAN, "$12.99", None],
        [0.5] * 6,
    ),
    # Scaled on 5 and the training mean 1, so 1 becomes 0 and 5 becomes 1.
    "a missing one takes part in the range": ([0.0, 2.0], [5.0, NAN], False, [1.0, 5.0, 3.0], [0.0, 1.0, 0.5]),
    # log 3 is half and log 81 is twice log 9; the mean is taken before the logarithm: 4, not its own.
    "logarithms": (
        [0.0, 8.0, NAN],
        [0.0, 8.0],
        True,
        [0.0, 2.0, 8.0, 80.0, NAN],
        [0.0, 0.5, 1.0, 2.0, math.log(5) / math.log(9)],
    ),
    "what is no number at all is a missing one": (
        [1.0, 3.0],
        [0.0, 4.0],
        False,
        [[1.0], (1.0,), {"a": 1}, 4 + 1j, 4 + 0j],
        [0.5, 0.5, 0.5, 0.5, 1.0],
    ),
    "no number at all": ([NAN, NAN], [NAN], True, [NAN, 0.0], [0.0, 0.0]),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_are_scaled_by_the_range_they_are_told_to(case):
    train_values, scaled_on, log, values, expected = NUMBERS[case]
    field = NumberField.fit("price", pd.Series(train_values), scaled_on=pd.Series(scaled_on), log=log)
    scaled = field.encode(pd.DataFrame({"price": values}))
    np.testing.assert_allclose(scaled, np.array(expected)[:, None], rtol=1e-6)
    assert scaled.dtype == np.float32


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0, NAN, 0.0], [0, 1, 0]), (["2", "", "0"], [0, 1, 0]), ([-5.0, np.inf, "$12.99", None, 0], [1, 1, 1, 1, 0])],
)
def test_a_missing_number_is_marked_with_1(values, expected):
    marks = MissingField("price_missing", "price").encode(pd.DataFrame({"price": values}))
    assert marks.tolist() == [[mark] for mark in expected]
    assert marks.dtype == np.float32


# --- towers


def test_a_tower_keeps_the_order_of_its_fields_and_each_knows_its_column():
    frame = pd.DataFrame({"gender": ["M", "F"], "user_id": [7, 9], "genres": ["Comedy|Drama", "Action"], "price": 1.0})
    encoder = TowerEncoder(
        [
            SparseField.fit("user_id", frame["user_id"]),
            SparseField.fit("gender", frame["gender"]),
            VarLenField.fit("genres", frame["genres"]),
            user_mean_field(),
            NumberField.fit("price", frame["price"], frame["price"], log=True),
            MissingField("price_missing", "price"),
        ]
    )
    columns = encoder.columns(7)
    assert columns == [
        SparseFeat("user_id", 4, embedding_dim=7, dtype="int32"),
        SparseFeat("gender", 4, embedding_dim=7, dtype="int32"),
        VarLenSparseFeat(SparseFeat("genres", 5, embedding_dim=7, dtype="int32"), maxlen=2, combiner="mean"),
        DenseFeat("user_mean_rating", 1),
        DenseFeat("price", 1),
        DenseFeat("price_missing", 1),
    ]
    features = encoder.encode(frame)
    assert list(features) == [column.name for column in columns]
    assert features["gender"].tolist() == [3, 2]


@pytest.mark.parametrize(
    ("field", "column"), [(user_mean_field(), "user_id"), (MissingField("price_missing", "price"), "price")]
)
def test_a_missing_raw_column_is_named(field, column):
    with pytest.raises(UserError, match=f"expected a column '{column}', got \\['{field.name}'\\]"):
        TowerEncoder([field]).encode(pd.DataFrame({field.name: [1.0]}))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"gender": ["F"]}, "expected a pandas DataFrame, a row for each user or item, got dict; make one of it"),
        (pd.Series({"gender": "F"}), "expected a pandas DataFrame, .* got Series"),
        ([{"gender": "F"}], "expected a pandas DataFrame, .* got list"),
        (pd.DataFrame([["F", "M"]], columns=["gender", "gender"]), "expected one column 'gender', got 2; keep one"),
    ],
)
def test_what_is_no_table_or_has_a_column_twice_is_refused_in_one_line(frame, message):
    with pytest.raises(UserError, match=f"^encode: {message}"):
        TowerEncoder([SparseField.fit("gender", pd.Series(["F", "M"]))]).encode(frame)


# --- the file


def test_encoders_survive_json_bit_for_bit(tmp_path):
    means = np.array([0.1, 1 / 3])
    user_fields = [
        SparseField.fit("gender", pd.Series(["M", 'say "é"\n', "F"])),
        MeanField("m", "user_id", pd.Index([2**53, 2**53 + 1]), means, 0.2 / 3, MinMaxScaler(0.1, 0.7)),
    ]
    prices, odd_prices = pd.Series([0.1, 1 / 3, NAN]), pd.Series([0.7, 99_999_999.0])
    item_fields = [
        VarLenField.fit("genres", pd.Series(["Drama|Children's", "Film-Noir"])),
        SparseField.fit("brand", pd.Series([3.0, NAN, 1.0])),
        *(NumberField.fit("price", prices, odd_prices, log) for log in (True, False)),
        MissingField("price_missing", "price"),
    ]
    towers = TowerEncoder(user_fields), TowerEncoder(item_fields)
    save_encoders(tmp_path / "encoders.json", *towers)
    users = pd.DataFrame({"gender": ["F", 'say "é"\n', "X"], "user_id": [2**53 + 1, 2**53, 1]})
    items = pd.DataFrame({"genres": ["Film-Noir", "Drama|Western"], "brand": [1.0, NAN], "price": [NAN, 0.3]})
    for tower, loaded, raw in zip(towers, load_encoders(tmp_path / "encoders.json"), (users, items), strict=True):
        assert loaded.columns(4) == tower.columns(4)
        for field, other in zip(tower.fields, loaded.fields, strict=True):
            assert type(other) is type(field)
            np.testing.assert_array_equal(other.encode(raw), field.encode(raw))
            assert other.encode(raw).dtype == field.encode(raw).dtype
    kept = json.loads((tmp_path / "encoders.json").read_text())
    assert [field["name"] for field in kept["user"]] == ["gender", "m"]
    assert kept["item"][1]["vocabulary"] == [1, 3]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reloaded_encoders_give_raw_rows_the_ids_that_the_tables_have(protocol, sample_folder, tmp_path):
    data = load_movielens(sample_folder, protocol)
    save_encoders(tmp_path / "encoders.json", data.user_encoder, data.item_encoder)
    user_encoder, item_encoder = load_encoders(tmp_path / "encoders.json")
    raw = read_movielens(sample_folder)
    for name, table in (("train", data.train), ("valid", data.valid), ("test", data.test)):
        ratings = raw.ratings.iloc[table.rows]
        users = user_encoder.encode(ratings.merge(raw.users, on="user_id", how="left"))
        movies = item_encoder.encode(ratings.merge(raw.movies, on="movie_id", how="left"))
        assert (users | movies).keys() == table.features.keys()
        for feature, values in (users | movies).items():
            # The means of training rows are cross-fitted or of the past, and paper's test rows have their own:
            # the encoder knows only those that a later row may see.
            of_the_row_itself = name == "test" if protocol == "paper" else name == "train"
            if (
                protocol == "online"
            ):  # validation knows train, which the encoder goes on from; users' are of each moment
                of_the_row_itself = name != "test" or feature.startswith("user")
            if feature.endswith("mean_rating") and of_the_row_itself:
                continue
            np.testing.assert_array_equal(table.features[feature].numpy(), values, err_msg=f"{name} {feature}")


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"user": [], "item": [{"kind": "NoField"}]}',
        b'{"user": [1], "item": []}',
        b'{"user": "' + b"x" * 10_000 + b"\xe9",  # what Python says of it holds the whole file
    ],
)
def test_a_file_that_is_not_there_or_holds_no_encoders_is_refused_in_one_line(content, tmp_path):
    if content is not None:
        (tmp_path / "encoders.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_encoders(tmp_path / "encoders.json")
    assert "expected encoders saved by a training run" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
