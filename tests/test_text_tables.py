import numpy as np
import pytest

from preprocessing.errors import UserError
from preprocessing.text_tables import parse_csv, parse_separated

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
