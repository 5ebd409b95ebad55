"""One rule for ids: text or whole numbers, exact; another kind is converted where that is exact, refused where not."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from preprocessing.encode import MeanField, MinMaxScaler, SparseField, TowerEncoder, fit_vocabulary
from preprocessing.errors import UserError
from preprocessing.ids import INT64, places
from serving.item_ids import RowOfId, as_ids

BIG = 2**53  # from here on a float has neighbours that it stands for too
NUMBERS = pd.Index([-7, 10, 42, BIG, BIG + 2, 2**63 - 1])
TEXT = pd.Index(["0528881469", "42", "7", "B07", "9007199254740993", "9223372036854775809"])
NAN = float("nan")

# Known values, values that may name them, and their places; -1 for one that is unknown.
FOUND = {
    "numbers in any size of integer": (NUMBERS, np.array([42, 10, 8], dtype=np.int8), [2, 1, -1]),
    "unsigned ones": (NUMBERS, np.array([42, BIG, 2**63 + 42], dtype=np.uint64), [2, 3, -1]),
    "ones that may be missing": (NUMBERS, pd.array([BIG + 1, None, BIG + 2], dtype="Int64"), [-1, -1, 4]),
    "ones beyond 64 bits": (NUMBERS, [2**63, 2**70, -(2**70), 2**64 + 42], [-1] * 4),
    "floats": (NUMBERS, np.array([42.0, 42.5, NAN, np.inf, -7.0]), [2, -1, -1, -1, 0]),
    "short and long floats": (NUMBERS, [np.float16(42), np.float32(10), np.longdouble(BIG + 2)], [2, 1, 4]),
    "decimals": (NUMBERS, [Decimal(BIG + 2), Decimal("42.0"), Decimal("42.5"), Decimal("NaN")], [4, 2, -1, -1]),
    "text": (NUMBERS, ["42", "42.0", " 42", "+42", "042", "-7", "42."], [2, 2, 2, 2, 2, 0, 2]),
    "text that is no whole number": (
        NUMBERS,
        ["1e1", "4_2", "0x2a", "42.5", "x", "", "\uff14\uff12", "9" * 5000],
        [-1] * 8,
    ),
    "text beyond 2^53 beside other text": (NUMBERS, [str(BIG + 1), str(BIG + 2), "x"], [-1, 4, -1]),
    "text at the end of 64 bits": (NUMBERS, ["9223372036854775807", "9223372036854775808"], [5, -1]),
    "a number beyond 2^53 beside a missing one": (NUMBERS, [BIG + 1, None, BIG, pd.NA, pd.NaT], [-1, -1, 3, -1, -1]),
    "all kinds at once": (NUMBERS, [42, "42", None, 42.0, np.int32(42)], [2, 2, -1, 2, 2]),
    "categories of numbers": (NUMBERS, pd.Categorical([42, None, 8, 42]), [2, -1, -1, 2]),
    "categories of text": (NUMBERS, pd.Series(["42", None, "x"], dtype="category"), [2, -1, -1]),
    "text as text alone": (TEXT, ["42", "42.0", " 42", "B07", "", None, NAN], [1, -1, -1, 3, -1, -1, -1]),
    "long text of digits": (TEXT, ["9007199254740993", "9007199254740992", "9223372036854775809"], [4, -1, 5]),
    "numbers for text": (TEXT, np.array([42, 8, BIG + 1]), [1, -1, 4]),
    "a number beyond 64 bits for text": (TEXT, [2**63 + 1, 2**63], [5, -1]),
    "floats for text": (TEXT, np.array([42.0, NAN, 42.5]), [1, -1, -1]),
    "numbers among text": (TEXT, ["B07", 42, None, "0528881469"], [3, 1, -1, 0]),
    "numpy's text": (TEXT, np.array(["B07", "x"]), [3, -1]),
    "nothing": (TEXT, [], []),
    "nothing known": (pd.Index([], dtype=object), ["B07", 42, None], [-1, -1, -1]),
}


@pytest.mark.parametrize("case", FOUND)
def test_a_value_finds_the_known_one_that_it_is_exactly_and_no_neighbour(case):
    known, values, expected = FOUND[case]
    series = pd.Series(values, dtype=object) if isinstance(values, list) else pd.Series(values)
    assert places(values, known).tolist() == expected
    assert places(series, known).tolist() == expected


REFUSED = {
    "a float from 2^53 on": (
        NUMBERS,
        [42.0, float(BIG + 2)],
        "got the float 9007199254740994.0 in row 1, which stands",
    ),
    "a short float from 2^24 on": (NUMBERS, np.array([2.0**24], np.float32), "got the float 16777216.0 in row 0"),
    "a large float among others": (NUMBERS, ["x", float(BIG)], "in row 1, which stands for several whole numbers"),
    "a large float for text": (TEXT, [float(BIG)], "which stands for several whole numbers"),
    "a number that lost its zeros": (
        TEXT,
        ["B07", 528881469],
        "such as '0528881469', got the number 528881469 in row 1",
    ),
    "a float that lost them": (TEXT, [528881469.0], "such as '0528881469', got the number 528881469.0"),
    "bytes": (TEXT, [b"B07"], r"got b'B07' \(bytes\) in row 0; convert the column"),
    "bytes for numbers": (NUMBERS, [42, b"42"], r"got b'42' \(bytes\) in row 1"),
    "a truth value": (NUMBERS, [True], r"got True \(bool\)"),
    "truth values": (NUMBERS, np.array([True]), r"\(bool\) in row 0"),
    "a list": (NUMBERS, [[42]], r"got \[42\] \(list\)"),
    "a tuple": (TEXT, [("B07",)], r"got \('B07',\) \(tuple\)"),
    "a dict": (TEXT, [{"asin": "B07"}], r"\(dict\)"),
    "a complex number": (NUMBERS, np.array([42 + 0j]), r"\(complex128\)"),
    "a moment": (NUMBERS, [pd.Timestamp(42)], r"\(Timestamp\)"),
    "moments": (NUMBERS, np.array([42], "datetime64[ns]"), r"\(datetime64\)"),
    "spans of time": (NUMBERS, np.array([42], "timedelta64[ns]"), r"\(timedelta64\)"),
    "a category that is refused": (NUMBERS, pd.Categorical([True]), r"\(bool\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_value_that_cannot_say_which_known_one_it_is_is_refused_in_a_line_that_names_the_column(case):
    known, values, message = REFUSED[case]
    with pytest.raises(UserError, match=f"^user_id: expected .*{message}") as error:
        places(values, known, "user_id")
    assert "\n" not in str(error.value)


def test_a_refused_category_that_no_row_has_does_not_matter():
    assert places(pd.Categorical([42], categories=[42, 2.0**60]), NUMBERS).tolist() == [2]


def test_every_field_of_a_tower_keeps_the_rule_and_names_its_column():
    field = SparseField.fit("asin", pd.Series(["0528881469", "B07"]))
    mean = MeanField("mean", "asin", pd.Index(["0528881469"]), np.array([0.25]), 0.5, MinMaxScaler(0.0, 1.0))
    for fields in ([field], [mean]):
        with pytest.raises(UserError, match=r"^asin: expected text such as '0528881469'"):
            TowerEncoder(fields).encode(pd.DataFrame({"asin": [528881469]}))
    assert TowerEncoder([field]).unknown_values(pd.DataFrame({"asin": [8]})) == [{"asin": 8}]


@pytest.mark.parametrize(
    ("values", "message"),
    [([1, "x"], "asin: expected text or numbers, got both"), ([5, 2**63], "asin: expected whole numbers of 64 bits")],
)
def test_training_values_that_are_no_ids_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        SparseField.fit("asin", pd.Series(values, dtype=object))


def test_training_values_of_any_whole_type_are_kept_as_whole_numbers():
    for values in (np.array([7, 42], np.uint64), pd.array([7, None, 42], dtype="Int64"), pd.Categorical([42, 7])):
        assert fit_vocabulary(pd.Series(values)).tolist() == [7, 42]
        assert fit_vocabulary(pd.Series(values)).dtype == np.int64


# --- ids as an index keeps them

KEPT = {
    "whole numbers": ([7, np.int8(5), 9.0], None, [7, 5, 9]),
    "unsigned": (np.array([7, BIG + 1], np.uint64), None, [7, BIG + 1]),
    "text": (["B07", "042"], None, ["B07", "042"]),
    "text where training saw numbers": (["7", "5.0", str(BIG + 1)], NUMBERS, [7, 5, BIG + 1]),
    "numbers where training saw text": ([7, "B08", 2**63], TEXT, ["7", "B08", str(2**63)]),
    "none": ([], None, []),
}


@pytest.mark.parametrize("case", KEPT)
def test_ids_are_kept_exactly_in_the_kind_that_training_saw(case):
    values, known, expected = KEPT[case]
    ids = as_ids(values, known)
    assert ids.tolist() == expected
    assert ids.dtype.kind in "iU"


@pytest.mark.parametrize(
    ("values", "known", "message"),
    [
        ([2**63 + 1], None, "whole numbers of 64 bits as ids, got 9223372036854775809 in row 0"),
        (np.array([1, 2**63], np.uint64), None, "whole numbers of 64 bits as ids, got 9223372036854775808 in row 1"),
        (["7", str(2**63)], NUMBERS, "whole numbers of 64 bits as ids, got '9223372036854775808' in row 1"),
        (["7", "1e1"], NUMBERS, "got '1e1' in row 1; mend or remove it"),
        ([7, ""], NUMBERS, "got '' in row 1"),
        (["B07", " "], None, "text that is not empty as ids, got ' ' in row 1"),
        ([1.5], None, "got 1.5 in row 0"),
        (["B07", 7], None, "got 'B07' in row 0"),
        ([float(BIG)], None, "stands for several whole numbers"),
        ([528881469], TEXT, "such as '0528881469', got the number 528881469"),
        ([1, None], None, "an id for each item, got none in row 1"),
        (["7", 7.0], NUMBERS, "each item once, got 7 twice"),
        ([b"B07"], None, r"\(bytes\)"),
        ([True], None, r"\(bool\)"),
        ([[1]], None, r"\(list\)"),
    ],
)
def test_ids_that_an_index_cannot_keep_exactly_are_refused(values, known, message):
    with pytest.raises(UserError, match=f"^items, asin: expected .*{message}"):
        as_ids(values, known, "items, asin")


@pytest.mark.parametrize("first", [INT64.min, -3, 0, INT64.max - 2])
def test_the_far_ends_of_whole_numbers_are_no_places_of_others(first):
    rows_of = RowOfId(np.arange(3, dtype=np.int64) + first, np.array([0, 2]))  # the second one is no longer there
    assert rows_of(np.array([first, first + 1, first + 2])).tolist() == [0, -1, 2]
    others = np.array([other for other in (INT64.min, -5, 5, INT64.max) if not first <= other <= first + 2])
    assert (rows_of(others) == -1).all()


@pytest.mark.parametrize("last", [44, BIG], ids=["close together", "far apart"])
def test_an_index_is_asked_for_numbers_by_the_same_rule(last):
    rows_of = RowOfId(np.array([10, 42, last]), np.arange(3))
    assert rows_of(np.array([42, 11, -(2**63), 2**63 - 1])).tolist() == [1, -1, -1, -1]
    assert rows_of(np.array(["10", "1e1", "x", str(last + 1)])).tolist() == [0, -1, -1, -1]
    assert rows_of(np.array([10, None, last, "42.0"], dtype=object)).tolist() == [0, -1, 2, 1]
    assert rows_of(np.array([2**63 + 10], np.uint64)).tolist() == [-1]
    with pytest.raises(UserError, match="stands for several"):
        rows_of(np.array([10.0, 2.0**60]))


def test_an_index_of_text_ids_refuses_a_number_that_lost_its_zeros_and_finds_one_that_has_none():
    rows_of = RowOfId(np.array(["0528881469", "42"]), np.arange(2))
    assert rows_of(np.array([42, 43])).tolist() == [1, -1]
    assert rows_of(np.array(["0528881469", "528881469"])).tolist() == [0, -1]
    with pytest.raises(UserError, match="such as '0528881469', got the number 528881469"):
        rows_of(np.array([528881469]))
