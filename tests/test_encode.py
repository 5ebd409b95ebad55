import json
import math

import numpy as np
import pandas as pd
import pytest

from preprocessing.encode import (
    MeanField,
    MinMaxScaler,
    MissingField,
    NumberField,
    SparseField,
    TowerEncoder,
    VarLenField,
    encode,
    fit_vocabulary,
    load_encoders,
    save_encoders,
)
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from preprocessing.movielens import load_movielens, read_movielens


def test_values_get_ids_from_2_on_in_sorted_order():
    vocabulary = fit_vocabulary(pd.Series([30, 10, 20, 10]))
    assert list(vocabulary) == [10, 20, 30]
    ids = encode(pd.Series([10, 20, 30, 10]), vocabulary)
    assert ids.tolist() == [2, 3, 4, 2]
    assert ids.dtype == np.int32


def test_values_outside_the_vocabulary_become_1():
    vocabulary = fit_vocabulary(pd.Series(["F", "M"]))
    assert encode(pd.Series(["M", "X", "", None, "F"], dtype=object), vocabulary).tolist() == [3, 1, 1, 1, 2]


def test_raw_ids_too_large_for_a_float_stay_apart():
    raw_ids = pd.Series([2**24, 2**24 + 1, 2**53, 2**53 + 1])
    assert encode(raw_ids, fit_vocabulary(raw_ids)).tolist() == [2, 3, 4, 5]


def test_a_sparse_column_counts_padding_and_out_of_vocabulary():
    column = SparseField.fit("age", pd.Series([1, 18, 25])).column(embedding_dim=7)
    assert isinstance(column, SparseFeat)
    assert (column.name, column.vocabulary_size, column.embedding_dim, column.dtype) == ("age", 5, 7, "int32")


def test_lists_become_ids_with_padding_behind():
    field = VarLenField.fit("genres", pd.Series(["Comedy|Drama", "Action", "Drama|Action|War"]))
    ids = field.encode(pd.DataFrame({"genres": ["War", "Drama|Comedy", "Action|Drama|War", "War"]}))
    # Action 2, Comedy 3, Drama 4, War 5
    assert ids.tolist() == [[5, 0, 0], [4, 3, 0], [2, 4, 5], [5, 0, 0]]
    assert ids.dtype == np.int32


def test_a_list_longer_than_any_in_training_is_cut_and_unseen_values_become_1():
    field = VarLenField.fit("genres", pd.Series(["Comedy|Drama", "Action"]))
    ids = field.encode(pd.DataFrame({"genres": ["Western", "Drama|Western|Action", None]}))
    assert ids.tolist() == [[1, 0], [4, 1], [1, 0]]


def test_a_list_column_has_the_longest_training_list_and_takes_the_mean():
    column = VarLenField.fit("genres", pd.Series(["Comedy|Drama", "Action", "Drama"])).column(embedding_dim=7)
    assert isinstance(column, VarLenSparseFeat)
    assert (column.name, column.vocabulary_size, column.embedding_dim) == ("genres", 5, 7)
    assert (column.maxlen, column.combiner) == (2, "mean")


def test_the_scaler_maps_the_fitted_range_to_0_and_1_and_clips_nothing():
    scaler = MinMaxScaler.fit(np.array([2.0, 6.0, 4.0]))
    assert scaler.transform(np.array([2.0, 4.0, 6.0, 8.0, 0.0])).tolist() == [0.0, 0.5, 1.0, 1.5, -0.5]


def test_a_constant_feature_is_scaled_to_0():
    assert MinMaxScaler.fit(np.array([0.7, 0.7])).transform(np.array([0.7])).tolist() == [0.0]


def user_mean_field() -> MeanField:
    keys = pd.Index([7, 9])
    return MeanField("user_mean_rating", "user_id", keys, np.array([0.25, 1.0]), 0.5, MinMaxScaler(0.0, 0.5))


def test_an_unseen_key_gets_the_prior_as_its_mean():
    values = user_mean_field().encode(pd.DataFrame({"user_id": [9, 8, 7]}))
    assert values.tolist() == [[2.0], [1.0], [0.5]]
    assert values.dtype == np.float32
    column = user_mean_field().column(embedding_dim=7)
    assert isinstance(column, DenseFeat)
    assert (column.name, column.dimension) == ("user_mean_rating", 1)


def test_a_tower_keeps_the_order_of_its_fields():
    frame = pd.DataFrame({"gender": ["M", "F"], "user_id": [7, 9]})
    encoder = TowerEncoder([SparseField.fit(name, frame[name]) for name in ("user_id", "gender")] + [user_mean_field()])
    names = ["user_id", "gender", "user_mean_rating"]
    assert [column.name for column in encoder.columns(4)] == names
    features = encoder.encode(frame)
    assert list(features) == names
    assert features["gender"].tolist() == [3, 2]


def test_a_missing_raw_column_is_named():
    encoder = TowerEncoder([user_mean_field()])
    with pytest.raises(UserError, match="expected a column 'user_id', got \\['gender'\\]"):
        encoder.encode(pd.DataFrame({"gender": ["M"]}))


def test_encoders_survive_json_bit_for_bit(tmp_path):
    genders = SparseField.fit("gender", pd.Series(["M", 'say "é"\n', "F"]))
    genres = VarLenField.fit("genres", pd.Series(["Drama|Children's", "Film-Noir"]))
    means = MeanField(
        "m", "user_id", pd.Index([2**53, 2**53 + 1]), np.array([0.1, 1 / 3]), 0.2 / 3, MinMaxScaler(0.1, 0.7)
    )
    save_encoders(tmp_path / "encoders.json", TowerEncoder([genders, means]), TowerEncoder([genres]))
    user, item = load_encoders(tmp_path / "encoders.json")

    frame = pd.DataFrame({"gender": ["F", 'say "é"\n', "X"], "user_id": [2**53 + 1, 2**53, 1]})
    for name, values in TowerEncoder([genders, means]).encode(frame).items():
        np.testing.assert_array_equal(user.encode(frame)[name], values)
        assert user.encode(frame)[name].dtype == values.dtype
    frame = pd.DataFrame({"genres": ["Film-Noir", "Drama|Western"]})
    assert item.encode(frame)["genres"].tolist() == genres.encode(frame).tolist()
    assert [column.vocabulary_size for column in user.columns(4)[:1] + item.columns(4)] == [5, 5]


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
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
            if feature.endswith("mean_rating") and of_the_row_itself:
                continue
            np.testing.assert_array_equal(table.features[feature].numpy(), values, err_msg=f"{name} {feature}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"user": [], "item": [{"kind": "NoField"}]}',
        b'{"user": [1], "item": []}',
    ],
)
def test_a_file_that_holds_no_encoders_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "encoders.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_encoders(tmp_path / "encoders.json")
    assert "expected encoders saved by a training run" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_is_plain_json(sample_folder, tmp_path):
    data = load_movielens(sample_folder)
    save_encoders(tmp_path / "encoders.json", data.user_encoder, data.item_encoder)
    towers = json.loads((tmp_path / "encoders.json").read_text())
    assert [field["name"] for field in towers["user"]] == ["user_id", "gender", "age", "occupation", "user_mean_rating"]
    assert [field["name"] for field in towers["item"]] == ["movie_id", "genres", "item_mean_rating"]
    assert towers["user"][1]["vocabulary"] == ["F", "M"]


def test_an_empty_list_is_no_value_to_learn():
    field = VarLenField.fit("genres", pd.Series(["", "Crime|Drama"]))
    assert field.vocabulary.tolist() == ["Crime", "Drama"]
    assert field.encode(pd.DataFrame({"genres": ["", "Drama"]})).tolist() == [[1, 0], [3, 0]]


def test_encoders_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UserError, match="encoders"):
        load_encoders(tmp_path / "encoders.json")


def test_the_mean_of_a_user_who_arrives_as_text_is_the_users_own():
    field = MeanField("mean", "user_id", pd.Index([7, 42]), np.array([0.25, 1.0]), 0.5, MinMaxScaler(0.0, 1.0))
    raw = pd.DataFrame({"user_id": ["42", "7", "8"]})
    assert field.encode(raw)[:, 0].tolist() == [1.0, 0.25, 0.5]


def test_whole_numbers_that_arrive_as_text_are_known():
    vocabulary = fit_vocabulary(pd.Series([7, 42]))
    assert encode(np.array(["42", "7", "8", "x"], dtype=object), vocabulary).tolist() == [3, 2, 1, 1]


@pytest.mark.parametrize("values", [[3.0, np.nan, 1.0], [3.0, 1.0]], ids=["with a gap", "without a gap"])
def test_whole_numbers_that_were_read_as_floats_are_whole_numbers(values):
    vocabulary = fit_vocabulary(pd.Series(values))
    assert vocabulary.tolist() == [1, 3]
    assert vocabulary.dtype == np.int64
    assert encode(pd.Series([1.0, 3.0, 2.0, np.nan, 1.5]), vocabulary).tolist() == [2, 3, 1, 1, 1]
    assert encode(pd.Series([3, 1]), vocabulary).tolist() == [3, 2]
    assert encode(np.array(["3", "1.0", "", None], dtype=object), vocabulary).tolist() == [3, 2, 1, 1]


def test_numbers_with_a_fraction_stay_floats():
    vocabulary = fit_vocabulary(pd.Series([2.0, 0.5, np.nan]))
    assert vocabulary.tolist() == [0.5, 2.0]
    assert encode(pd.Series([2.0, 0.5, np.nan]), vocabulary).tolist() == [3, 2, 1]


@pytest.mark.parametrize("values", [[np.nan, np.nan], [], [None, None]], ids=["nan", "empty", "None"])
def test_a_column_without_a_value_makes_everything_unknown(values, tmp_path):
    field = SparseField.fit("brand", pd.Series(values))
    assert field.column(4).vocabulary_size == 2
    frame = pd.DataFrame({"brand": [np.nan, 7.0]})
    assert field.encode(frame).tolist() == [1, 1]
    save_encoders(tmp_path / "encoders.json", TowerEncoder([field]), TowerEncoder([]))
    user, _ = load_encoders(tmp_path / "encoders.json")
    assert user.encode(frame)["brand"].tolist() == [1, 1]
    assert user.columns(4) == [field.column(4)]


def test_a_vocabulary_of_categories_holds_those_that_training_has(tmp_path):
    # Text of millions of rows arrives as categories, of which training need not have all.
    train_values = pd.Series(["right", "left", None], dtype=pd.CategoricalDtype(["left", "right", "top"]))
    field = SparseField.fit("pid", train_values)
    save_encoders(tmp_path / "encoders.json", TowerEncoder([field]), TowerEncoder([]))
    loaded = load_encoders(tmp_path / "encoders.json")[0].fields[0]
    frames = [pd.Series(["top", "right", "left", None, "x"], dtype=kind) for kind in (object, "category", "str")]
    for one in (field, loaded):
        assert one.column(4).vocabulary_size == 4
        assert [one.encode(pd.DataFrame({"pid": values})).tolist() for values in frames] == [[1, 3, 2, 1, 1]] * 3


def prices(*values: float | str | None) -> pd.Series:
    return pd.Series(values)


def test_numbers_are_scaled_by_the_range_they_are_told_to_and_clipped_nowhere():
    field = NumberField.fit("price", prices(1.0, 3.0), scaled_on=prices(10.0, 20.0), log=False)
    values = field.encode(pd.DataFrame({"price": [10.0, 15.0, 20.0, 0.0, 30.0]}))
    assert values.tolist() == [[0.0], [0.5], [1.0], [-1.0], [2.0]]
    assert values.dtype == np.float32


def test_a_missing_number_counts_as_the_mean_of_the_training_values():
    field = NumberField.fit("price", prices(1.0, 3.0, np.nan, 8.0), scaled_on=prices(0.0, 8.0), log=False)
    assert field.mean == 4.0
    assert field.encode(pd.DataFrame({"price": [np.nan, 2.0]})).tolist() == [[0.5], [0.25]]
    assert field.encode(pd.DataFrame({"price": ["2.0", "", None]}, dtype=object)).tolist() == [[0.25], [0.5], [0.5]]


def test_what_is_no_price_counts_as_missing():
    field = NumberField.fit("price", prices(1.0, 3.0, -9.0, np.inf), scaled_on=prices(0.0, 4.0, np.inf), log=False)
    assert field.mean == 2.0
    odd = pd.DataFrame({"price": [-5.0, np.inf, -np.inf, np.nan, "$12.99", None]}, dtype=object)
    assert field.encode(odd).tolist() == [[0.5]] * 6
    assert MissingField("price_missing", "price").encode(odd).tolist() == [[1.0]] * 6


def test_a_missing_number_takes_part_in_the_range_as_the_mean():
    # The values scaled on are 5 and the training mean 1, so 1 becomes 0 and 5 becomes 1.
    field = NumberField.fit("price", prices(0.0, 2.0), scaled_on=prices(5.0, np.nan), log=False)
    assert field.encode(pd.DataFrame({"price": [1.0, 5.0, 3.0]})).tolist() == [[0.0], [1.0], [0.5]]


def test_the_logarithm_of_1_and_a_number_can_be_scaled_in_its_place():
    field = NumberField.fit("price", prices(0.0, 8.0, np.nan), scaled_on=prices(0.0, 8.0), log=True)
    values = field.encode(pd.DataFrame({"price": [0.0, 2.0, 8.0, 80.0, np.nan]}))[:, 0]
    # log 3 is half and log 81 is twice log 9; the mean is taken before the logarithm: 4, not its own.
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0, 2.0, math.log(5) / math.log(9)], rtol=1e-6)


def test_a_column_without_any_number_is_scaled_to_0():
    field = NumberField.fit("price", prices(np.nan, np.nan), scaled_on=prices(np.nan), log=True)
    assert field.encode(pd.DataFrame({"price": [np.nan, 0.0]})).tolist() == [[0.0], [0.0]]


def test_a_number_is_a_dense_column_of_one():
    field = NumberField.fit("price", prices(1.0), scaled_on=prices(1.0), log=True)
    assert field.column(embedding_dim=7) == DenseFeat("price", 1)
    assert MissingField("price_missing", "price").column(embedding_dim=7) == DenseFeat("price_missing", 1)


@pytest.mark.parametrize(
    "values",
    [np.array([2.0, np.nan, 0.0]), np.array(["2", "", "0"], dtype=object), np.array(["2", None, 0], dtype=object)],
    ids=["numbers", "text", "objects"],
)
def test_a_missing_number_is_marked_with_1(values):
    marks = MissingField("price_missing", "price").encode(pd.DataFrame({"price": values}))
    assert marks.tolist() == [[0.0], [1.0], [0.0]]
    assert marks.dtype == np.float32


def test_a_mark_needs_the_column_that_it_is_about():
    encoder = TowerEncoder([MissingField("price_missing", "price")])
    assert encoder.encode(pd.DataFrame({"price": [1.0]}))["price_missing"].tolist() == [[0.0]]
    with pytest.raises(UserError, match="expected a column 'price', got \\['price_missing'\\]"):
        encoder.encode(pd.DataFrame({"price_missing": [1.0]}))


@pytest.mark.parametrize("log", [True, False])
def test_encoders_of_numbers_survive_json_bit_for_bit(log, tmp_path):
    number = NumberField.fit("price", prices(0.1, 1 / 3, np.nan), prices(0.7, 99_999_999.0), log)
    brand = SparseField.fit("brand", pd.Series([3.0, np.nan, 1.0]))
    fields = [brand, number, MissingField("price_missing", "price")]
    save_encoders(tmp_path / "encoders.json", TowerEncoder([]), TowerEncoder(fields))
    _, loaded = load_encoders(tmp_path / "encoders.json")
    assert loaded.fields[1:] == fields[1:]
    assert loaded.fields[0].vocabulary.equals(brand.vocabulary)
    assert loaded.fields[0].vocabulary.dtype == np.int64
    assert loaded.columns(4) == TowerEncoder(fields).columns(4)
    frame = pd.DataFrame({"brand": [1.0, np.nan, 3.0], "price": [np.nan, 0.3, 1e8]})
    for name, values in TowerEncoder(fields).encode(frame).items():
        np.testing.assert_array_equal(loaded.encode(frame)[name], values)
        assert loaded.encode(frame)[name].dtype == values.dtype


@pytest.mark.parametrize("values", [[1.0, np.inf], [1.0, 1e19, 2e19], [-1e300, 1.0]], ids=repr)
def test_numbers_that_no_whole_number_holds_stay_floats(values):
    vocabulary = fit_vocabulary(pd.Series(values))
    assert encode(pd.Series([*values, 2.0, np.nan]), vocabulary).tolist() == [*range(2, len(values) + 2), 1, 1]
