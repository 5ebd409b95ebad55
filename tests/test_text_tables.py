"""Delimited text into data frames: what its values become, and the file and line of whatever is wrong."""

import bz2
import gzip
import lzma
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tables import refusal

from preprocessing.errors import UserError
from preprocessing.text_tables import MISSING, parse_csv, parse_separated, read_csv_blocks

MOVIES = {"movie_id": "int", "title": "str", "genres": "str"}
CSV_HEADER = b"movie_id,title,genres\n"


def parse(content: bytes) -> pd.DataFrame:
    return parse_separated("movies.dat", content, b"::", MOVIES)


def csv(content: bytes) -> pd.DataFrame:
    return parse_csv("movies.csv", content, MOVIES)


def rows(frame: pd.DataFrame) -> list[list]:
    return frame.to_numpy().tolist()


def test_lines_and_a_csv_become_rows_with_whole_numbers_and_text_whatever_their_line_ends():
    lines, table = (
        b"1::Heat (1995)::Action|Crime\n20::Alien's Cut::\n",
        b"1,Heat (1995),Action|Crime\n20,Alien's Cut,\n",
    )
    for frame in (
        parse(lines),
        parse(lines.replace(b"\n", b"\r\n")),
        parse(lines.removesuffix(b"\n")),
        parse(lines.replace(b"\n", b"\r\n", 1).removesuffix(b"\n")),
        csv(CSV_HEADER + table),
        csv((CSV_HEADER + table).replace(b"\n", b"\r\n")),
        csv(b"\xef\xbb\xbf" + CSV_HEADER + table.removesuffix(b"\n")),
    ):
        assert list(frame.columns) == ["movie_id", "title", "genres"]
        assert frame["movie_id"].dtype == np.int64
        assert rows(frame) == [[1, "Heat (1995)", "Action|Crime"], [20, "Alien's Cut", ""]]


@pytest.mark.parametrize(
    "title", ['"Crocodile" Dundee', '"never closed', '#1, the "best" of \'em\tall', "2 : 1", "NA", "Misérables, Les"]
)
def test_a_title_of_a_separated_line_is_plain_text_in_latin_1(title):
    content = f"1::{title}::Drama\n9007199254740993::Alien::None\n".encode("latin-1")
    assert rows(parse(content)) == [[1, title, "Drama"], [2**53 + 1, "Alien", "None"]]  # ids stay exact


@pytest.mark.parametrize(
    ("content", "line", "got"),
    [
        (b"1::Heat::Crime\n2::Alien\n", 2, "got 2"),
        (b"1::Heat::Crime::1995\n2::Alien::Horror\n", 1, "got 4"),
        (b"1::Heat::Crime\n2::Alien::Horror\n   \n", 3, "got 1"),
        # Two faults that make up for each other in the number of separators:
        (b"1::Heat\n2::Alien::Horror::1979\n", 1, "got 2"),
        (b"1::Heat::Crime\n2::Alien::Horror::1979\n3::Brazil\n4::Tron::Sci-Fi\n", 2, "got 4"),
        (b"1::Heat::Crime\n\n2::Alien::Horror::::1979\n", 2, "got 1"),
    ],
)
def test_a_wrong_number_of_columns_is_refused_with_file_and_line(content, line, got):
    message = refusal(parse, content)
    assert message.startswith(f"movies.dat, line {line}: expected 3 columns (movie_id, title, genres), {got};")


# What Python alone takes for a number is none either.
@pytest.mark.parametrize("value", ["x", "", "1.5", "0x1", "1-2", "99999999999999999999", "1_0", "1\xa0"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_field_that_is_no_whole_number_is_refused_with_file_and_line(value, line_end):
    content = line_end.join(["1::Heat::Crime", f"{value}::Alien::Horror", "y::Tron::Sci-Fi", ""]).encode("latin-1")
    message = refusal(parse, content)
    assert message.startswith(f"movies.dat, line 2: expected a whole number as movie_id, got {value!r};")


@pytest.mark.parametrize("content", [b"1::9\r2::Crime\n", b"1::He\x1fat::Crime\n"])
def test_a_control_character_inside_a_line_never_shifts_its_columns(content):
    assert refusal(parse, content).startswith("movies.dat")


@pytest.mark.parametrize("content", [b"", b" \r\n\r\n"])
def test_a_file_without_lines_is_refused(content):
    assert refusal(parse, content) == "movies.dat: expected lines of movie_id::title::genres, got an empty file."


@pytest.mark.parametrize("separator", [";", "\t", "|", "::"])
def test_another_separator_is_named_and_no_line_is_blamed(separator, tmp_path):
    table = "movie_id,title,genres\n1,Heat,Crime\n".replace(",", separator).encode()
    got = f"got one with {separator!r} between the names; save the file with commas."
    assert refusal(csv, table).endswith(got)
    assert refusal(blocks, tmp_path / "movies.csv", table, columns={"movie_id": "int", "title": "str?"}).endswith(got)
    if separator != "::":
        message = refusal(parse, f"1{separator}Heat{separator}Crime\n".encode())
        assert message.startswith(f"movies.dat, line 1: expected fields with '::' between them, got {separator!r};")


def test_a_column_that_a_csv_names_twice_is_refused():
    message = refusal(csv, b"movie_id,title,genres,title\n1,Heat,Crime,Alien\n")
    assert message == "movies.csv, line 1: expected the header movie_id,title,genres, got 'title' twice."


# --- encodings

TITLES = ["Misérables, Les", "Señor Ñandú", "Schindler\u2019s List", "plain"]  # that apostrophe is Windows' own


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_titles_are_read_in_utf_8_and_latin_1_with_and_without_a_byte_order_mark(encoding):
    lines = "".join(f"{number}::{title}::Drama\n" for number, title in enumerate(TITLES, start=1))
    table = CSV_HEADER.decode() + "".join(f'{number},"{title}",Drama\n' for number, title in enumerate(TITLES, start=1))
    for frame in (parse(lines.encode(encoding)), csv(table.encode(encoding))):
        assert frame["movie_id"].tolist() == [1, 2, 3, 4]
        assert frame["title"].tolist() == TITLES


def test_lines_of_both_encodings_in_one_file_are_each_read_in_their_own():
    content = "1::Åmål::Drama\n".encode() + "2::Åmål::Drama\n".encode("latin-1") + b"3::\x81::Drama\n"
    assert parse(content)["title"].tolist() == ["Åmål", "Åmål", "\x81"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_text_in_utf_16_is_named(encoding, tmp_path):
    named = encoding[:6].upper() if encoding != "utf-32-le" else "UTF-16"  # without a mark, nearly the same
    expected = f": expected plain text, got text in {named}; save it as UTF-8."
    assert refusal(parse, "1::Heat::Crime\n".encode(encoding)) == "movies.dat" + expected
    table = "movie_id,title,genres\n1,Heat,Crime\n".encode(encoding)
    assert refusal(csv, table) == "movies.csv" + expected
    assert refusal(blocks, tmp_path / "m.csv", table, columns={"movie_id": "int"}) == f"{tmp_path / 'm.csv'}{expected}"


# --- what is no text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PAR1\x15\x04", "Parquet; save it as CSV."),
        (b"PK\x03\x04...", "a zip archive or an Excel workbook; unpack it, or save it as CSV."),
        (bz2.compress(CSV_HEADER), "a bzip2 file; unpack it."),
        (lzma.compress(CSV_HEADER), "an xz file; unpack it."),
        (gzip.compress(gzip.compress(CSV_HEADER)), "a gzip file; unpack it."),
        (gzip.compress(bytes(257).replace(b"\0", b"x") + b"ustar" + bytes(250)), "a tar archive; unpack it."),
        (b"\n<!DOCTYPE html>\n<html>", "a web page; fetch it again."),
    ],
    ids=["parquet", "zip", "bzip2", "xz", "gzip", "tar", "html"],  # packed bytes tell the time of packing
)
def test_a_file_of_another_format_is_named_with_what_to_do(content, expected, tmp_path):
    path = tmp_path / "movies.csv"
    assert refusal(blocks, path, content) == f"{path}: expected plain text, got {expected}"


def test_a_file_packed_by_gzip_is_read_as_it_is(tmp_path):
    for content in (b"ad,brand\n1,2\n3,4\n", b"\xef\xbb\xbfad,brand\n1,2\n3,4"):
        for block_bytes in (3, 2**25):
            frames = blocks(
                tmp_path / "ads.csv.gz", gzip.compress(content), block_bytes, {"ad": "int", "brand": "int?"}
            )
            assert [row for frame in frames for row in rows(frame)] == [[1, 2], [3, 4]]


# --- an interrupt


@pytest.mark.parametrize("ends", ["an error", "too few rows", "nothing wrong"])
@pytest.mark.parametrize("reader", ["lines", "csv", "blocks"])
def test_ctrl_c_while_pandas_parses_is_no_fault_of_the_file(reader, ends, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)  # what it raises within the parser comes out as one of these
        if ends == "an error":
            raise pd.errors.ParserError("Calling read(nbytes) on source failed.")
        return read_csv(*arguments, **options).iloc[: 1 if ends == "too few rows" else None]

    read = {
        "lines": lambda: parse(b"1::Heat::Crime\n2::Alien::Horror\n"),
        "csv": lambda: csv(CSV_HEADER + b"1,Heat,Crime\n2,Alien,Horror\n"),
        "blocks": lambda: blocks(tmp_path / "ads.csv", HEADER + b"1,2,3,x\n2,2,3,x\n"),
    }[reader]
    read_csv = pd.read_csv
    monkeypatch.setattr(pd, "read_csv", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            read()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # the next one is heard at once
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_parser_without_memory_is_no_fault_of_the_file(monkeypatch):
    def without_memory(*arguments, **options):
        raise pd.errors.ParserError("Error tokenizing data. C error: out of memory")

    monkeypatch.setattr(pd, "read_csv", without_memory)
    with pytest.raises(MemoryError):
        parse(b"1::Heat::Crime\n")


def test_csv_columns_are_found_by_name_in_any_order_and_others_are_left_out():
    frame = csv(b"year,genres,title,movie_id\n1995,Crime,Heat,1\n")
    assert list(frame.columns) == ["movie_id", "title", "genres"]
    assert rows(frame) == [[1, "Heat", "Crime"]]


def test_csv_titles_may_hold_commas_quotes_and_line_ends():
    content = CSV_HEADER + '1,"American President, The ""1995""\nagain",Drama\n2,Åmål,Horror\n'.encode()
    assert rows(csv(content)) == [[1, 'American President, The "1995"\nagain', "Drama"], [2, "Åmål", "Horror"]]


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        (b"", "movie_id, title, genres"),
        (b"movie_id,name,genres\n1,Heat,Crime\n", "title"),
        (b'"' + b"x" * 200_000, "movie_id, title, genres"),
    ],
)
def test_a_csv_with_another_header_is_refused_with_what_is_missing(content, missing):
    assert refusal(csv, content) == f"movies.csv, line 1: expected the header movie_id,title,genres, got no {missing}."


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "movies.csv: expected at least one row below the header, got none."),
        (b"1,Heat,Crime\n2,Alien,Horror,1979\n", "line 3: expected 3 columns (movie_id, title, genres), got 4;"),
        (b"1,Heat,Crime,1995\n2,Alien,Horror\n", "line 2: expected 3 columns (movie_id, title, genres), got 4;"),
        (b"1,Heat,Crime,1995\n2,Alien,Horror,1979\n", "line 2: expected 3 columns"),
        (b"1,Heat,Crime\n2,Alien\n", "line 3: expected 3 columns (movie_id, title, genres), got 2;"),
        (b"1,Heat,Crime\n\n2,Alien,Horror\n", "line 3: expected 3 columns"),
        # The line is that of the file, below a title of two lines too.
        (b'1,"He\nat",Crime\ntwo,Alien,Horror\n', "line 4: expected a whole number as movie_id, got 'two';"),
        (b'1,"Heat,Crime\n' + b"2,Alien,Horror\n" * 20_000, "line "),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_a_wrong_row_of_a_csv_is_refused_with_file_and_line(body, expected):
    message = refusal(csv, CSV_HEADER + body)
    assert message.startswith(expected if "movies.csv" in expected else f"movies.csv, {expected}")


# --- large files, a block at a time

ADS = {"ad": "int", "brand": "int?", "price": "number?", "place": "str?"}
HEADER = b"ad,brand,price,place\n"
WANTED_HEADER = "ads.csv, line 1: expected the header ad,brand,price,place, got "


@pytest.fixture
def ads(tmp_path) -> Path:
    return tmp_path / "ads.csv"


def blocks(path: Path, content: bytes, block_bytes: int = 2**25, columns=ADS) -> list[pd.DataFrame]:
    path.write_bytes(content)
    return list(read_csv_blocks(path, columns, block_bytes))


def whole(path: Path, content: bytes, block_bytes: int = 2**25) -> list[list]:
    """The rows of all blocks, None for a missing number."""
    lists = [rows(frame.astype(object)) for frame in blocks(path, content, block_bytes)]
    return [[None if value != value else value for value in row] for rows_ in lists for row in rows_]


def test_blocks_hold_whole_numbers_categories_and_numbers_that_may_be_missing(ads):
    (frame,) = blocks(ads, HEADER + b"9007199254740993,,9.5,top\n-9223372036854775808,NULL,,side\n3,,0,top\n")
    assert list(frame.columns) == list(ADS)
    assert frame["ad"].dtype == np.int64
    assert frame["brand"].dtype == frame["price"].dtype == np.float64
    assert isinstance(frame["place"].dtype, pd.CategoricalDtype)
    assert frame["ad"].tolist() == [2**53 + 1, -(2**63), 3]  # exact
    assert frame["place"].tolist() == ["top", "side", "top"]
    assert frame["brand"].isna().all()  # of missing values alone, and yet numbers
    np.testing.assert_array_equal(frame["price"], [9.5, np.nan, 0])


LINES = [f"{i},{i % 3},{i / 4},place {i}" for i in range(1, 13)]
LINE_ROWS = [[i, i % 3, i / 4, f"place {i}"] for i in range(1, 13)]


@pytest.mark.parametrize("block_bytes", [1, 17, 18, 100, 10_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_no_line_is_lost_or_cut_wherever_the_blocks_end(ads, block_bytes, end):
    content = end.join([HEADER.decode().strip(), *LINES]).encode()
    assert whole(ads, content, block_bytes) == LINE_ROWS
    assert whole(ads, content + end.encode(), block_bytes) == LINE_ROWS


def test_blocks_are_as_long_as_they_are_asked_to_be(ads):
    content = HEADER + "\n".join(LINES).encode() + b"\n"
    assert [len(frame) for frame in blocks(ads, content, 100)] == [6, 5, 1]
    assert [len(frame) for frame in blocks(ads, content)] == [12]


@pytest.mark.parametrize("mark", MISSING)
def test_every_mark_of_a_missing_value_is_read_as_none_in_an_optional_column(ads, mark):
    expected = [[1, None, 2.0, None], [2, 3, None, "x"]]
    assert whole(ads, HEADER + f"1,{mark},2,{mark}\n2,3,{mark},x\n".encode()) == expected
    message = refusal(blocks, ads, HEADER + f"1,2,3,x\n{mark},2,3,x\n".encode())
    assert message.startswith(f"ads.csv, line 3: expected a whole number as ad, got {mark!r};")


@pytest.mark.parametrize(
    "header", ["ad , brand, price  ,place ", "\ufeffad,brand,price,place", '"ad","brand","price","place"\r']
)
def test_spaces_quotes_and_a_byte_order_mark_in_the_header_do_not_count(ads, header):
    assert whole(ads, f"{header}\n1,2,3,x\n".encode()) == [[1, 2, 3, "x"]]


def test_quoted_text_may_hold_commas_and_quotes(ads):
    for block_bytes in (5, 2**25):
        got = whole(ads, HEADER + b'1,2,3,"a, b"\n2,2,3,"a ""b"""\n3,"2",3,x"y\n', block_bytes)
        assert got == [[1, 2, 3, "a, b"], [2, 2, 3, 'a "b"'], [3, 2, 3, 'x"y']]


@pytest.mark.parametrize(("number", "value"), [("1e2", 100), ("+3", 3), (".5", 0.5), (" 4 ", 4), ("7.", 7)])
def test_prices_are_read_however_they_are_written(ads, number, value):
    # The quote has them judged one by one too.
    for place in ("x", '"x"'):
        assert whole(ads, HEADER + f"1,2,{number},{place}\n".encode()) == [[1, 2, value, "x"]]


def test_text_stays_text_where_it_looks_like_a_number_or_is_not_utf_8(ads):
    places = [b"007", b"7", b"\xff", b"\xfe", b"\xc3\x85", b"\xff"]
    content = HEADER + b"".join(b"1,2,3,%b\n" % place for place in places)
    for block_bytes in (5, 2**25):
        assert [row[3] for row in whole(ads, content, block_bytes)] == ["007", "7", "ÿ", "þ", "Å", "ÿ"]
    assert [row[3] for row in whole(ads, HEADER + b"1,2,3,007\n2,2,3,7\n")] == ["007", "7"]


COLUMNS = "expected 4 columns (ad, brand, price, place), got "
INT, BRAND = "expected a whole number as ad, got ", "expected a whole number below 2^53 or nothing as brand, got "
PRICE = "expected a number of at least 0 or nothing as price, got "
MEND = "; mend or remove the line."
WRONG_LINES = [
    ("2,2,3", f"{COLUMNS}3{MEND}"),
    ("2,2,3,x,y", f"{COLUMNS}5{MEND}"),
    ("", f"{COLUMNS}0{MEND}"),
    ("   ", f"{COLUMNS}1{MEND}"),
    ("2.5,2,3,x", f"{INT}'2.5'{MEND}"),
    ("9223372036854775808,2,3,x", f"{INT}'9223372036854775808'{MEND}"),
    ("2\x00,2,3,x", f"{INT}'2\\x00'{MEND}"),
    ("2,2.5,3,x", f"{BRAND}'2.5'{MEND}"),
    ("2,inf,3,x", f"{BRAND}'inf'{MEND}"),
    ("2,1e400,3,x", f"{BRAND}'1e400'{MEND}"),
    ("2,Nan,3,x", f"{BRAND}'Nan'{MEND}"),
    ("2,2,-0.01,x", f"{PRICE}'-0.01'{MEND}"),
    ("2,2,1e400,x", f"{PRICE}'1e400'{MEND}"),
    ("2,2,$3,x", f"{PRICE}'$3'{MEND}"),
    # What only Python takes for a number, and marks with a space beside them:
    ("2,1_0,3,x", f"{BRAND}'1_0'{MEND}"),
    ("2,2,\u0663,x", f"{PRICE}'\u0663'{MEND}"),
    ("2,2,\xa03,x", f"{PRICE}'\\xa03'{MEND}"),
    ("2, NULL,3,x", f"{BRAND}' NULL'{MEND}"),
    ("2,2, ,x", f"{PRICE}' '{MEND}"),
    ("2,2,3\r4,5", "expected plain text, got "),
    # Floats, in which optional numbers are kept, stand for several of these.
    ("2,9007199254740993,3,x", f"{BRAND}'9007199254740993'{MEND}"),
]


@pytest.mark.parametrize(("line", "expected"), WRONG_LINES)
def test_a_wrong_line_is_refused_with_its_number_in_whatever_block_it_is(ads, line, expected):
    for place, block_bytes in ((0, 20), (7, 10_000), (7, 20), (11, 20)):
        lines = [*LINES[:place], line, *LINES[place:], "3,2,c,x"]  # the first of two wrong ones is named
        message = refusal(blocks, ads, HEADER + "\n".join(lines).encode() + b"\n", block_bytes)
        assert message.startswith(f"ads.csv, line {place + 2}: {expected}")


def test_a_whole_number_may_have_a_point_and_a_wrong_line_below_it_is_still_the_one_that_is_named(ads):
    lines = ["ad,brand,price,place", "1.0,2,3,x", "2e0,2.0,3,x"]
    assert whole(ads, "\n".join(lines).encode()) == [[1, 2, 3, "x"], [2, 2, 3, "x"]]
    message = refusal(blocks, ads, "\n".join([*lines, "one,2,3,x"]).encode())
    assert message.startswith(f"ads.csv, line 4: {INT}'one'")
    assert rows(csv(CSV_HEADER + b"1.0,Heat,Crime\n")) == [[1, "Heat", "Crime"]]
    assert refusal(csv, CSV_HEADER + b"1.0,Heat,Crime\none,Tron,\n").startswith("movies.csv, line 3: expected a whole")
    assert refusal(parse, b"1.0::Heat::Crime\none::Tron::\n").startswith("movies.dat, line 2: expected a whole number")


# One value with a point, and pandas makes floats of the whole column.
LARGE = 1234567890123456789


def test_ids_that_a_float_cannot_hold_are_exact_or_refused(ads):
    digits = "expected digits alone (ids from 2^53 on stand in the column) as"
    wholes = f"ad,brand,price,place\n{LARGE},2,3.5,e.g.\n{LARGE + 1},2.0,3,x\n"
    assert [row[0] for row in whole(ads, wholes.encode())] == [LARGE, LARGE + 1]
    message = refusal(blocks, ads, f"{wholes}5.0,2,3,x\n".encode())
    assert message == f"ads.csv, line 4: {digits} ad, got '5.0'{MEND}"
    for reader, name, text in (
        (csv, "movies.csv", f"movie_id,title,genres\n{LARGE},e.g.,\n{LARGE + 1},Heat,\n"),
        (parse, "movies.dat", f"{LARGE}::e.g.::\n{LARGE + 1}::Heat::\n"),
    ):
        assert [row[0] for row in rows(reader(text.encode()))] == [LARGE, LARGE + 1]
        message = refusal(reader, (text + "5.0,Tron,\n".replace(",", "::" if reader is parse else ",")).encode())
        assert message == f"{name}, line {text.count(chr(10)) + 1}: {digits} movie_id, got '5.0'{MEND}"


def test_a_wrong_line_is_described_with_the_columns_of_the_file_in_its_order(ads):
    header = b"place,note,price,ad,brand\n"
    assert whole(ads, header + b"x,any,3,1,2\n") == [[1, 2, 3, "x"]]
    message = refusal(blocks, ads, header + b"x,any,3,1,2\nx,any,3,one,2\n")
    assert message.startswith("ads.csv, line 3: expected a whole number as ad, got 'one';")
    message = refusal(blocks, ads, header + b"x,any,3,1,2\nx,3,1,2\n")
    assert message.startswith("ads.csv, line 3: expected 5 columns (place, note, price, ad, brand), got 4;")


def test_what_stands_above_a_wrong_line_is_given_before_it_is_refused(ads):
    ads.write_bytes(HEADER + b"1,2,3,x\n2,2,3,x\n3,no,3,x\n")
    reader = read_csv_blocks(ads, ADS, 9)
    assert [next(reader)["ad"].tolist(), next(reader)["ad"].tolist()] == [[1], [2]]
    with pytest.raises(UserError, match="line 4"):
        next(reader)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", WANTED_HEADER + "no ad, brand, price, place."),
        (b"ad;brand;price;place\n1;2;3;x\n", WANTED_HEADER + "one with ';' between the names; save the file with"),
        (b"ad,brand,cost,place\n1,2,3,x\n", WANTED_HEADER + "no price."),
        (b"ad,brand,price,place,price\n1,2,3,x,4\n", WANTED_HEADER + "'price' twice."),
        (b"ad,brand,price,place,,\n1,2,3,x,,\n", WANTED_HEADER + "'' twice."),
        (b"ad,brand,price,place\r1,2,3,x\r", WANTED_HEADER + "no "),  # the line ends of an old Mac
        (HEADER, "ads.csv: expected at least one row below the header, got none."),
        (HEADER.strip(), "ads.csv: expected at least one row below the header, got none."),
    ],
)
def test_a_file_of_blocks_without_its_header_or_rows_is_refused_with_what_is_wrong(ads, content, expected):
    assert refusal(blocks, ads, content).startswith(expected)


# The C parser fills up what is cut short and cuts what is too long, and says nothing.
@pytest.mark.parametrize(
    ("body", "line", "got"),
    [
        (b"1,2,3,9\n4,5\n", 2, 4),
        (b"4,5\n1,2,3,9\n", 2, 2),
        (b'1,"2",3\n4,5\n', 3, 2),
        (b'1,"2",3\n4,5,6,7\n', 3, 4),
        (b'1,"2",3,4\n4,5,6\n', 2, 4),
    ],
)
def test_faults_of_a_block_that_make_up_for_each_other_are_noticed(ads, body, line, got):
    columns = {"ad": "int", "brand": "int?", "price": "number?"}
    message = refusal(blocks, ads, b"ad,brand,price\n" + body, columns=columns)
    assert message.startswith(f"ads.csv, line {line}: expected 3 columns (ad, brand, price), got {got};")


@pytest.mark.parametrize("line", [b'1,2,3,"a\nb"', b'"2,2,3,x', b'2,2,3,"x'])
def test_a_quote_that_does_not_close_on_its_line_is_refused_with_that_line(ads, line):
    message = refusal(blocks, ads, HEADER + b"1,2,3,x\n" + line + b"\n3,2,3,x\n4,2,3,x\n")
    assert message == "ads.csv, line 3: expected plain text, got a quote that is not closed on its line; mend the line."
