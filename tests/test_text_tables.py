from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preprocessing.errors import UserError
from preprocessing.text_tables import MISSING, parse_csv, parse_separated, read_csv_blocks

MOVIES = {"movie_id": "int", "title": "str", "genres": "str"}


def parse(content: bytes):
    return parse_separated("movies.dat", content, b"::", MOVIES)


def rows(frame) -> list[list]:
    return frame.to_numpy().tolist()


def message_of(parse, content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        parse(content)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_lines_become_rows_with_whole_numbers_and_text():
    frame = parse(b"1::Heat (1995)::Action|Crime\n20::Alien: Director's Cut::Horror\n")
    assert list(frame.columns) == ["movie_id", "title", "genres"]
    assert frame["movie_id"].dtype == np.int64
    assert rows(frame) == [[1, "Heat (1995)", "Action|Crime"], [20, "Alien: Director's Cut", "Horror"]]


def test_windows_line_ends_and_a_missing_last_line_end_change_nothing():
    expected = rows(parse(b"1::Heat::Crime\n2::Alien::Horror\n"))
    assert rows(parse(b"1::Heat::Crime\r\n2::Alien::Horror\r\n")) == expected
    assert rows(parse(b"1::Heat::Crime\n2::Alien::Horror")) == expected
    assert rows(parse(b"1::Heat::Crime\r\n2::Alien::Horror")) == expected


def test_titles_are_latin_1():
    assert parse("1::Misérables, Les (1995)::Drama\n".encode("latin-1"))["title"][0] == "Misérables, Les (1995)"


@pytest.mark.parametrize("title", ['"Crocodile" Dundee', '"never closed', '#1, the "best" of \'em\tall', "2 : 1", "'"])
def test_quotes_commas_tabs_and_hashes_are_plain_text(title):
    assert rows(parse(f"1::{title}::Drama\n2::Alien::Horror\n".encode())) == [
        [1, title, "Drama"],
        [2, "Alien", "Horror"],
    ]


def test_text_that_looks_like_a_missing_value_stays_text():
    assert rows(parse(b"1::NA::None\n2::nan::\n")) == [[1, "NA", "None"], [2, "nan", ""]]


def test_ids_of_sixty_three_bits_stay_exact():
    assert parse(b"9007199254740993::Heat::Crime\n")["movie_id"][0] == 2**53 + 1


@pytest.mark.parametrize(
    ("content", "line", "got"),
    [
        (b"1::Heat::Crime\n2::Alien\n", 2, "got 2"),
        (b"1::Heat::Crime::1995\n2::Alien::Horror\n", 1, "got 4"),
        (b"1::Heat::Crime\n\n2::Alien::Horror\n", 2, "got 1"),
        (b"1::Heat::Crime\n2::Alien::Horror\n   \n", 3, "got 1"),
        (b"1,Heat,Crime\n", 1, "got 1"),
        # Two faults that make up for each other in the number of separators:
        (b"1::Heat\n2::Alien::Horror::1979\n", 1, "got 2"),
        (b"1::Heat::Crime\n2::Alien::Horror::1979\n3::Brazil\n4::Tron::Sci-Fi\n", 2, "got 4"),
        (b"1::Heat::Crime\n\n2::Alien::Horror::::1979\n", 2, "got 1"),
    ],
)
def test_a_wrong_number_of_columns_is_refused_with_file_and_line(content, line, got):
    message = message_of(parse, content)
    assert message.startswith(f"movies.dat, line {line}: expected 3 columns (movie_id, title, genres), {got};")


@pytest.mark.parametrize("value", ["x", "", "1.5", "nan", "0x1", "1-2", "99999999999999999999"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_field_that_is_no_whole_number_is_refused_with_file_and_line(value, line_end):
    content = line_end.join(["1::Heat::Crime", f"{value}::Alien::Horror", "y::Tron::Sci-Fi", ""]).encode()
    message = message_of(parse, content)
    assert message.startswith(f"movies.dat, line 2: expected a whole number as movie_id, got {value!r};")


@pytest.mark.parametrize("content", [b"1::9\r2::Crime\n", b"1::He\x1fat::Crime\n"])
def test_a_control_character_inside_a_line_never_shifts_its_columns(content):
    assert message_of(parse, content).startswith("movies.dat")


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\r\n"])
def test_a_file_without_lines_is_refused(content):
    message = message_of(parse, content)
    assert message == "movies.dat: expected lines of movie_id::title::genres, got an empty file."


def csv(content: bytes):
    return parse_csv("movies.csv", content, MOVIES)


def test_a_csv_gives_the_same_table_as_separated_lines():
    expected = parse(b"1::Heat::Crime\n2::Alien::Horror\n")
    for content in (
        b"movie_id,title,genres\n1,Heat,Crime\n2,Alien,Horror\n",
        b"movie_id,title,genres\r\n1,Heat,Crime\r\n2,Alien,Horror\r\n",
        b"\xef\xbb\xbfmovie_id,title,genres\n1,Heat,Crime\n2,Alien,Horror",
    ):
        frame = csv(content)
        assert frame["movie_id"].dtype == np.int64
        assert rows(frame) == rows(expected)


def test_csv_columns_are_found_by_name_in_any_order_and_others_are_left_out():
    frame = csv(b"year,genres,title,movie_id\n1995,Crime,Heat,1\n")
    assert list(frame.columns) == ["movie_id", "title", "genres"]
    assert rows(frame) == [[1, "Heat", "Crime"]]


def test_quoted_csv_fields_may_hold_commas_quotes_and_line_ends():
    frame = csv(b'movie_id,title,genres\n1,"American President, The ""1995""\nagain",Drama\n2,Alien,Horror\n')
    assert rows(frame) == [[1, 'American President, The "1995"\nagain', "Drama"], [2, "Alien", "Horror"]]


def test_csv_titles_may_be_utf_8_or_broken():
    assert csv("movie_id,title,genres\n1,Åmål,Drama\n".encode())["title"][0] == "Åmål"
    latin = csv("movie_id,title,genres\n1,Åmål,Drama\n2,Alien,Horror\n".encode("latin-1"))
    assert latin["movie_id"].tolist() == [1, 2]
    assert latin["genres"].tolist() == ["Drama", "Horror"]


@pytest.mark.parametrize("content", [b"", b"1,Heat,Crime\n", b"movie_id;title;genres\n1;Heat;Crime\n"])
def test_a_csv_with_another_header_is_refused_with_what_is_missing(content):
    message = message_of(csv, content)
    expected = "movies.csv, line 1: expected the header movie_id,title,genres, got no movie_id, title, genres."
    assert message == expected


def test_the_missing_column_of_a_csv_header_is_named():
    message = message_of(csv, b"movie_id,name,genres\n1,Heat,Crime\n")
    assert message == "movies.csv, line 1: expected the header movie_id,title,genres, got no title."


def test_a_csv_without_rows_is_refused():
    assert (
        message_of(csv, b"movie_id,title,genres\n")
        == "movies.csv: expected at least one row below the header, got none."
    )


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("1,Heat,Crime\n2,Alien,Horror,1979\n", 3),
        ("1,Heat,Crime,1995\n2,Alien,Horror\n", 2),
        ("1,Heat,Crime,1995\n2,Alien,Horror,1979\n", 2),
    ],
)
def test_a_csv_row_that_is_too_long_is_refused_with_file_and_line(body, line):
    message = message_of(csv, b"movie_id,title,genres\n" + body.encode())
    assert message.startswith(f"movies.csv, line {line}: expected 3 columns (movie_id, title, genres), got 4;")


def test_a_csv_field_that_is_no_number_is_refused_with_its_line_even_below_a_title_of_two_lines():
    message = message_of(csv, b'movie_id,title,genres\n1,"He\nat",Crime\ntwo,Alien,Horror\n')
    assert message.startswith("movies.csv, line 4: expected a whole number as movie_id, got 'two';")


def test_faults_that_make_up_for_each_other_are_noticed_in_any_order():
    assert message_of(parse, b"2::B::C::D\n1::A\n").startswith("movies.dat, line 1: expected 3 columns")
    assert message_of(parse, b"1::A\n2::B::C::D\n").startswith("movies.dat, line 1: expected 3 columns")


def parse_titles(content: bytes):
    return parse_csv("movies.csv", content, MOVIES)


def test_a_csv_row_cut_short_in_its_text_is_refused_but_an_empty_last_field_is_kept():
    header = b"movie_id,title,genres\n"
    assert message_of(parse_titles, header + b"1,Heat,Crime\n2,Alien\n").startswith("movies.csv, line 3: expected 3")
    assert rows(parse_titles(header + b"1,Heat,\n2,Alien,Horror\n")) == [[1, "Heat", ""], [2, "Alien", "Horror"]]


def test_a_blank_line_in_a_csv_is_refused_by_its_number():
    assert message_of(parse_titles, b"movie_id,title,genres\n1,Heat,Crime\n\n2,Alien,Horror\n").startswith(
        "movies.csv, line 3: expected 3 columns"
    )


def test_a_quote_that_never_closes_is_one_line_however_much_follows():
    content = b'movie_id,title,genres\n1,"Heat,Crime\n' + b"2,Alien,Horror\n" * 20_000
    assert message_of(parse_titles, content).startswith("movies.csv, line ")


@pytest.mark.parametrize("number", ["1_0", "1\xa0", "x"])
def test_what_only_python_takes_for_a_number_is_refused_with_its_line(number):
    content = f"1::Heat::Crime\n{number}::Alien::Horror\n".encode("latin-1")
    assert message_of(parse, content).startswith("movies.dat, line 2: expected a whole number as movie_id")


# --- large files, a block at a time

ADS = {"ad": "int", "brand": "int?", "price": "number?", "place": "str?"}
HEADER = b"ad,brand,price,place\n"


@pytest.fixture
def ads(tmp_path) -> Path:
    return tmp_path / "ads.csv"


def blocks(path: Path, content: bytes, block_bytes: int = 2**25, columns=ADS) -> list[pd.DataFrame]:
    path.write_bytes(content)
    return list(read_csv_blocks(path, columns, block_bytes))


def whole(path: Path, content: bytes, block_bytes: int = 2**25, columns=ADS) -> list[list]:
    """The rows of all blocks, None for a missing number."""
    lists = [rows(frame.astype(object)) for frame in blocks(path, content, block_bytes, columns)]
    return [[None if value != value else value for value in row] for rows_ in lists for row in rows_]


def block_message(path: Path, content: bytes, block_bytes: int = 2**25, columns=ADS) -> str:
    return message_of(lambda content: blocks(path, content, block_bytes, columns), content)


def test_blocks_hold_whole_numbers_categories_and_numbers_that_may_be_missing(ads):
    (frame,) = blocks(ads, HEADER + b"1,7,9.5,top\n2,,,side\n3,8,0,top\n")
    assert list(frame.columns) == list(ADS)
    assert frame["ad"].dtype == np.int64
    assert frame["brand"].dtype == frame["price"].dtype == np.float64
    assert isinstance(frame["place"].dtype, pd.CategoricalDtype)
    assert frame["ad"].tolist() == [1, 2, 3]
    assert frame["place"].tolist() == ["top", "side", "top"]
    np.testing.assert_array_equal(frame["brand"], [7, np.nan, 8])
    np.testing.assert_array_equal(frame["price"], [9.5, np.nan, 0])


LINES = [f"{i},{i % 3},{i / 4},place {i}" for i in range(1, 13)]
LINE_ROWS = [[i, i % 3, i / 4, f"place {i}"] for i in range(1, 13)]


@pytest.mark.parametrize("block_bytes", [1, 7, 17, 18, 100, 10_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("is_last_line_ended", [True, False])
def test_no_line_is_lost_or_cut_wherever_the_blocks_end(ads, block_bytes, end, is_last_line_ended):
    content = end.join([HEADER.decode().strip(), *LINES]) + end * is_last_line_ended
    assert whole(ads, content.encode(), block_bytes) == LINE_ROWS


def test_blocks_are_as_long_as_they_are_asked_to_be(ads):
    content = HEADER + "\n".join(LINES).encode() + b"\n"
    assert [len(frame) for frame in blocks(ads, content, 100)] == [6, 5, 1]
    assert [len(frame) for frame in blocks(ads, content)] == [12]


@pytest.mark.parametrize("mark", MISSING)
def test_every_mark_of_a_missing_value_is_read_as_none_in_an_optional_column(ads, mark):
    expected = [[1, None, 2.0, None], [2, 3, None, "x"]]
    assert whole(ads, HEADER + f"1,{mark},2,{mark}\n2,3,{mark},x\n".encode()) == expected
    message = block_message(ads, HEADER + f"1,2,3,x\n{mark},2,3,x\n".encode())
    assert message.startswith(f"ads.csv, line 3: expected a whole number as ad, got {mark!r};")


def test_a_column_of_missing_values_alone_is_a_column_of_numbers(ads):
    (frame,) = blocks(ads, HEADER + b"1,,NULL,x\n2,NULL,,x\n")
    assert frame["brand"].dtype == frame["price"].dtype == np.float64
    assert frame["brand"].isna().all()
    assert frame["price"].isna().all()


@pytest.mark.parametrize(
    "header",
    [
        "ad , brand, price  ,place ",
        "\ufeffad,brand,price,place",
        '"ad","brand","price","place"',
        "ad,brand,price,place\r",
    ],
)
def test_spaces_quotes_and_a_byte_order_mark_in_the_header_do_not_count(ads, header):
    assert whole(ads, f"{header}\n1,2,3,x\n".encode()) == [[1, 2, 3, "x"]]


def test_columns_are_found_by_name_and_others_are_left_out(ads):
    assert whole(ads, b"place,note,price,ad,brand\nx,any,3,1,2\n") == [[1, 2, 3, "x"]]


def test_ids_of_sixty_three_bits_stay_exact_in_a_block(ads):
    (frame,) = blocks(ads, HEADER + b"9007199254740993,1,1,x\n-9223372036854775808,1,1,x\n")
    assert frame["ad"].tolist() == [2**53 + 1, -(2**63)]


def test_quoted_text_may_hold_commas_and_quotes(ads):
    for block_bytes in (5, 2**25):
        got = whole(ads, HEADER + b'1,2,3,"a, b"\n2,2,3,"a ""b"""\n3,"2",3,x"y\n', block_bytes)
        assert got == [[1, 2, 3, "a, b"], [2, 2, 3, 'a "b"'], [3, 2, 3, 'x"y']]


@pytest.mark.parametrize(("number", "value"), [("1e2", 100), ("+3", 3), (".5", 0.5), (" 4 ", 4), ("0", 0), ("7.", 7)])
def test_prices_are_read_however_they_are_written(ads, number, value):
    assert whole(ads, HEADER + f"1,2,{number},x\n".encode()) == [[1, 2, value, "x"]]


WRONG_LINES = [
    ("2,2,3", "expected 4 columns (ad, brand, price, place), got 3; mend or remove the line."),
    ("2,2,3,x,y", "expected 4 columns (ad, brand, price, place), got 5; mend or remove the line."),
    ("", "expected 4 columns (ad, brand, price, place), got 0; mend or remove the line."),
    ("   ", "expected 4 columns (ad, brand, price, place), got 1; mend or remove the line."),
    ("two,2,3,x", "expected a whole number as ad, got 'two'; mend or remove the line."),
    ("2.5,2,3,x", "expected a whole number as ad, got '2.5'; mend or remove the line."),
    ("9223372036854775808,2,3,x", "expected a whole number as ad, got '9223372036854775808';"),
    ("2,2.5,3,x", "expected a whole number or nothing as brand, got '2.5'; mend or remove the line."),
    ("2,inf,3,x", "expected a whole number or nothing as brand, got 'inf'; mend or remove the line."),
    ("2,1e400,3,x", "expected a whole number or nothing as brand, got '1e400'; mend or remove the line."),
    ("2,Nan,3,x", "expected a whole number or nothing as brand, got 'Nan'; mend or remove the line."),
    ("2,2,-0.01,x", "expected a number of at least 0 or nothing as price, got '-0.01'; mend or remove the line."),
    ("2,2,inf,x", "expected a number of at least 0 or nothing as price, got 'inf'; mend or remove the line."),
    ("2,2,1e400,x", "expected a number of at least 0 or nothing as price, got '1e400'; mend or remove the line."),
    ("2,2,$3,x", "expected a number of at least 0 or nothing as price, got '$3'; mend or remove the line."),
    ("2\x00,2,3,x", "expected a whole number as ad, got '2\\x00'; mend or remove the line."),
    ("2,2,3\r4,5", "expected plain text, got "),
]


@pytest.mark.parametrize("block_bytes", [20, 10_000])
@pytest.mark.parametrize("place", [0, 7, 12])
@pytest.mark.parametrize(("line", "expected"), WRONG_LINES)
def test_a_wrong_line_is_refused_with_its_number_in_whatever_block_it_is(ads, line, expected, place, block_bytes):
    lines = [*LINES[:place], line, *LINES[place:]]
    message = block_message(ads, HEADER + "\n".join(lines).encode() + b"\n", block_bytes)
    assert message.startswith(f"ads.csv, line {place + 2}: {expected}")


def test_a_wrong_line_is_described_with_the_columns_of_the_file_in_its_order(ads):
    header = b"place,note,price,ad,brand\n"
    message = block_message(ads, header + b"x,any,3,1,2\nx,any,3,one,2\n")
    assert message.startswith("ads.csv, line 3: expected a whole number as ad, got 'one';")
    message = block_message(ads, header + b"x,any,3,1,2\nx,3,1,2\n")
    assert message.startswith("ads.csv, line 3: expected 5 columns (place, note, price, ad, brand), got 4;")


def test_the_first_of_two_wrong_lines_is_named(ads):
    content = HEADER + b"1,2,3,x\n2,b,3,x\n3,2,c,x\n"
    for block_bytes in (5, 10_000):
        assert block_message(ads, content, block_bytes).startswith(
            "ads.csv, line 3: expected a whole number or nothing"
        )


def test_what_stands_above_a_wrong_line_is_given_before_it_is_refused(ads):
    ads.write_bytes(HEADER + b"1,2,3,x\n2,2,3,x\n3,no,3,x\n")
    reader = read_csv_blocks(ads, ADS, 9)
    assert [next(reader)["ad"].tolist(), next(reader)["ad"].tolist()] == [[1], [2]]
    with pytest.raises(UserError, match="line 4"):
        next(reader)


@pytest.mark.parametrize("content", [b"", b"\n", b"1,2,3,x\n", b"ad;brand;price;place\n1;2;3;x\n", b"Ad,Brand\n"])
def test_a_file_of_blocks_with_another_header_is_refused_with_what_is_missing(ads, content):
    expected = "ads.csv, line 1: expected the header ad,brand,price,place, got no ad, brand, price, place."
    assert block_message(ads, content) == expected


def test_the_missing_column_of_a_file_of_blocks_is_named(ads):
    message = block_message(ads, b"ad,brand,cost,place\n1,2,3,x\n")
    assert message == "ads.csv, line 1: expected the header ad,brand,price,place, got no price."


@pytest.mark.parametrize("content", [HEADER, HEADER.strip()])
def test_a_file_of_blocks_without_rows_is_refused(ads, content):
    assert block_message(ads, content) == "ads.csv: expected at least one row below the header, got none."


def test_a_quoted_line_end_is_refused_in_one_line_that_names_the_file(ads):
    assert block_message(ads, HEADER + b'1,2,3,"a\nb"\n2,2,3,x\n').startswith("ads.csv")


# The C parser fills up what is cut short and cuts what is too long, and says nothing.
@pytest.mark.parametrize(
    ("body", "line", "got"),
    [
        (b"1,2,3,9\n4,5\n", 2, 4),
        (b"4,5\n1,2,3,9\n", 2, 2),
        (b'1,"2",3\n4,5\n', 3, 2),
        (b'1,"2",3\n4,5,6,7\n', 3, 4),
        (b'1,"2",3\n4\n', 3, 1),
        (b'1,"2",3,4\n4,5,6\n', 2, 4),
    ],
)
def test_faults_of_a_block_that_make_up_for_each_other_are_noticed(ads, body, line, got):
    columns = {"ad": "int", "brand": "int?", "price": "number?"}
    message = block_message(ads, b"ad,brand,price\n" + body, columns=columns)
    assert message.startswith(f"ads.csv, line {line}: expected 3 columns (ad, brand, price), got {got};")


def test_text_that_looks_like_a_number_stays_text(ads):
    content = HEADER + b"1,2,3,007\n2,2,3,7\n3,2,3,x\n"
    assert [row[3] for row in whole(ads, content, 5)] == ["007", "7", "x"]
    assert [row[3] for row in whole(ads, content)] == ["007", "7", "x"]
    assert [row[3] for row in whole(ads, HEADER + b"1,2,3,007\n2,2,3,7\n")] == ["007", "7"]


@pytest.mark.parametrize("value", ["1_0", "\u0663", "\xa03", " NULL", "NULL ", " "])
@pytest.mark.parametrize("column", [1, 2])
def test_what_only_python_takes_for_a_number_is_refused_with_its_line_in_a_block_too(ads, value, column):
    line = ["2", "2", "3", "x"]
    line[column] = value
    message = block_message(ads, HEADER + b"1,2,3,x\n" + ",".join(line).encode() + b"\n")
    assert message.startswith("ads.csv, line 3: expected a ")
    assert f"or nothing as {list(ADS)[column]}, got {value!r}" in message


def test_a_quote_that_never_closes_is_refused_with_its_own_line(ads):
    for line in (b'"2,2,3,x', b'2,2,3,"x'):
        message = block_message(ads, HEADER + b"1,2,3,x\n" + line + b"\n3,2,3,x\n4,2,3,x\n")
        assert message.startswith("ads.csv, line 3: expected ")


def test_a_file_with_the_line_ends_of_an_old_mac_is_refused(ads):
    assert block_message(ads, b"ad,brand,price,place\r1,2,3,x\r").startswith("ads.csv, line 1: expected ")


def test_a_column_that_the_header_names_twice_is_refused_by_its_name(ads):
    message = block_message(ads, b"ad,brand,price,place,price\n1,2,3,x,4\n")
    assert message.startswith("ads.csv, line 1: expected ")
    assert "price" in message


def test_a_header_that_names_columns_twice_that_nobody_wants_is_not_blamed_on_the_next_line(ads):
    message = block_message(ads, b"ad,brand,price,place,,\n1,2,3,x,,\n")
    assert message.startswith("ads.csv, line 1: expected ")


def test_text_that_is_not_utf_8_is_kept_apart_and_does_not_stop_the_reading(ads):
    places = [row[3] for row in whole(ads, HEADER + b"1,2,3,\xff\n2,2,3,\xfe\n3,2,3,\xc3\x85\n4,2,3,\xff\n")]
    assert places == ["\udcff", "\udcfe", "Å", "\udcff"]
