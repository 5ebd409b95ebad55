"""MovieLens-1M from its three layouts to encoded splits, and what is said of files that are wrong."""

import csv
import errno
import gzip
import io
import itertools
import os
import random
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tables
import torch
from tables import SPLITS, assert_same_splits

from preprocessing.choices import PROTOCOLS
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from preprocessing.movielens import load_movielens, read_movielens
from preprocessing.sources import find_movielens

USERS = [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "70072"), (3, "M", 25, 15, "55117-1234"), (4, "F", 1, 10, "0246")]
MOVIES = [
    (1, "Toy Story (1995)", "Animation|Children's|Comedy"),
    (2, "Fucking Åmål (1998)", "Comedy|Drama"),
    (3, 'American President, The "1995"', "Drama"),
    (5, "Alien: Director's Cut", "Horror|Sci-Fi"),
    (6, "Never Rated", "Western"),
]
# Every user rates every movie but the last, ten times round; stars go round 4, 1, 5, 2, 3.
RATINGS = [
    (user, movie, (4, 1, 5, 2, 3)[row % 5], 1000 + row)
    for row, (_, user, movie) in enumerate(itertools.product(range(10), (1, 2, 3, 4), (1, 2, 3, 5)))
]


def lines(rows, end: str = "\n") -> bytes:
    return "".join("::".join(map(str, row)) + end for row in rows).encode("latin-1")


def official(ratings=RATINGS, users=USERS, movies=MOVIES, end: str = "\n") -> dict[str, bytes]:
    """The contents of the official files."""
    return {"ratings.dat": lines(ratings, end), "users.dat": lines(users, end), "movies.dat": lines(movies, end)}


def write_folder(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, contents: dict[str, bytes], inside: str = "ml-1m/", method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(inside + name, content)
    return path


def write_csv(path: Path, ratings=RATINGS, users=USERS, movies=MOVIES, end: str = "\n") -> Path:
    """The released layout: a row per rating with all that is known of its user and movie."""
    user_of, movie_of = {user[0]: user for user in users}, {movie[0]: movie for movie in movies}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    header = "user_id,movie_id,rating,timestamp,gender,age,occupation,zipcode,title,genres"
    writer.writerow(header.split(","))
    for rating in ratings:
        writer.writerow([*rating, *user_of[rating[0]][1:], *movie_of[rating[1]][1:]])
    path.write_bytes(text.getvalue().encode())
    return path


def refusal(path: Path, *fragments: str, **options) -> str:
    """The one line that loading ends with."""
    return tables.refusal(load_movielens, path, fragments=fragments, **options)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "ml-1m", official())


# --- layouts


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_layout_gives_the_same_splits_and_features_and_nothing_is_left_beside_it(folder, tmp_path, end):
    contents = official(end=end)
    others = [
        write_folder(tmp_path / "other", contents),
        write_zip(tmp_path / "ml-1m.zip", contents),
        write_zip(tmp_path / "flat.zip", contents, inside="", method=zipfile.ZIP_STORED),
        write_csv(tmp_path / "movielens.csv", end=end),
        write_csv(tmp_path / "movielens.txt", end=end),
    ]
    before = sorted(tmp_path.rglob("*"))
    data = load_movielens(folder)
    for path in others:
        assert_same_splits(data, load_movielens(path))
        titles = read_movielens(path).movies.set_index("movie_id")["title"]
        assert titles[[1, 2, 3, 5]].tolist() == [movie[1] for movie in MOVIES[:4]]  # whatever they hold
    assert sorted(tmp_path.rglob("*")) == before


def test_the_files_are_found_in_a_folder_by_their_names(tmp_path):
    assert find_movielens(tmp_path) is None
    write_csv(tmp_path / "movielens.txt")
    assert find_movielens(tmp_path) == tmp_path / "movielens.txt"
    write_zip(tmp_path / "ml-1m.zip", official())
    assert find_movielens(tmp_path) == tmp_path / "ml-1m.zip"
    write_folder(tmp_path / "ml-1m", official())
    assert find_movielens(tmp_path) == tmp_path / "ml-1m"
    assert find_movielens(tmp_path / "ml-1m") == tmp_path / "ml-1m"


# --- labels, fields, ids


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ratings_of_3_are_left_out_and_those_above_are_1(sample_folder, protocol):
    data, ratings = load_movielens(sample_folder, protocol), read_movielens(sample_folder).ratings["rating"].to_numpy()
    rows = np.concatenate([getattr(data, name).rows for name in SPLITS])
    labels = torch.cat([getattr(data, name).labels for name in SPLITS])
    assert set(ratings[rows].tolist()) == {1, 2, 4, 5}
    assert labels.tolist() == (ratings[rows] > 3).tolist()
    assert len(set(rows.tolist())) == len(rows)
    if protocol != "paper":  # which also loses users
        assert len(rows) == (ratings != 3).sum()
    assert data.counts["ratings_read"] == len(ratings)
    assert data.counts["ratings_of_3_left_out"] == (ratings == 3).sum()


def test_the_columns_are_those_of_the_released_scripts(folder):
    data = load_movielens(folder, embedding_dim=6)
    user, item = data.user_columns, data.item_columns
    assert [column.name for column in user] == ["user_id", "gender", "age", "occupation", "user_mean_rating"]
    assert [type(column) for column in user] == [SparseFeat] * 4 + [DenseFeat]
    assert [column.name for column in item] == ["movie_id", "genres", "item_mean_rating"]
    assert [type(column) for column in item] == [SparseFeat, VarLenSparseFeat, DenseFeat]
    assert {column.embedding_dim for column in [*user[:4], *item[:2]]} == {6}
    assert (item[1].maxlen, item[1].combiner) == (3, "mean")
    assert not data.synthetic


# Sorted by time, 20 ratings: 14 train, 2 valid, 4 test. User 4 and movie 5 come in the test rows only.
TEMPORAL = [(1 + i % 3, 1 + i % 2, (5, 1, 4, 2)[i % 4], i) for i in range(16)]
TEMPORAL += [(4, 1, 5, 16), (1, 5, 1, 17), (4, 5, 4, 18), (2, 3, 2, 19)]


def test_a_file_of_ratings_twice_is_split_as_the_file_itself_and_refused_with_strict_data(folder, tmp_path, capsys):
    twice = write_folder(tmp_path / "twice", official([*RATINGS, *RATINGS]))
    csv_file = write_csv(tmp_path / "movielens.csv", [*RATINGS, *RATINGS])
    once, data = load_movielens(folder), load_movielens(twice)
    assert once.counts["rows_that_repeat_another"] == 0
    assert data.counts["rows_that_repeat_another"] == once.counts["train"] + once.counts["valid"] + once.counts["test"]
    for split in SPLITS:
        assert dict.fromkeys(getattr(data, split).rows % 160).keys() == dict.fromkeys(getattr(once, split).rows).keys()
    assert capsys.readouterr().out == (
        "ratings.dat: 128 of 256 rows repeat another of the same user, item and time (rows 1 and 161: user_id 1, "
        "movie_id 1, time 1000); they stay in, twins in one split.\n"
    )
    for path, where in ((twice, "ratings.dat"), (csv_file, "movielens.csv")):
        refusal(path, f"{where}: expected each user, item and time once, got 128 of 256 rows", strict_data=True)
    refusal(twice, "leave out --strict-data", strict_data=True, protocol="temporal")


def test_shuffled_ratings_are_split_by_time_as_the_ordered_ones_are_and_ratings_of_one_time_not_at_all(tmp_path):
    ratings = [(*rating[:3], 978_300_000 + row // 5) for row, rating in enumerate(RATINGS)]
    shuffled = random.Random(1).sample(range(len(ratings)), len(ratings))
    data = load_movielens(write_folder(tmp_path / "a", official(ratings)), "temporal")
    other = load_movielens(write_folder(tmp_path / "b", official([ratings[row] for row in shuffled])), "temporal")
    for split in SPLITS:
        assert sorted(shuffled[row] for row in getattr(other, split).rows) == sorted(getattr(data, split).rows)
    one_time = [(*rating[:3], 978_300_760) for rating in RATINGS]
    refusal(
        write_folder(tmp_path / "c", official(one_time)),
        "ratings.dat: expected rows of different times, got 978300760 in all 128",
        protocol="temporal",
    )


@pytest.fixture
def temporal(tmp_path):
    return load_movielens(write_folder(tmp_path / "temporal", official(TEMPORAL)), "temporal")


def test_ids_are_those_of_the_values_of_training_rows_and_1_for_what_training_never_saw(temporal):
    sizes = {column.name: column.vocabulary_size for column in temporal.user_columns[:4] + temporal.item_columns[:2]}
    # Beside padding and out-of-vocabulary: users 1 to 3, movies 1 and 2, and what is said of them.
    assert sizes == {"user_id": 5, "gender": 4, "age": 5, "occupation": 5, "movie_id": 4, "genres": 6}
    assert (temporal.counts["users_in_train"], temporal.counts["items_in_train"]) == (3, 2)
    features = {name: values[:].tolist() for name, values in temporal.test.features.items()}
    assert temporal.test.rows.tolist() == [16, 17, 18, 19]
    assert features["user_id"] == [1, 2, 1, 3]
    assert features["movie_id"] == [2, 1, 1, 1]
    assert features["gender"] == [2, 2, 2, 3]  # user 4 is known by gender, age and occupation
    assert features["age"] == features["occupation"] == [2, 2, 2, 4]
    # Animation 2, Children's 3, Comedy 4, Drama 5; Horror and Sci-Fi of movie 5 come in test only.
    assert temporal.train.features["genres"][:2].tolist() == [[2, 3, 4], [4, 5, 0]]
    assert features["genres"] == [[2, 3, 4], [1, 1, 0], [1, 1, 0], [5, 0, 0]]


def test_the_splits_depend_on_the_split_seed(folder):
    data = load_movielens(folder, split_seed=5)
    assert_same_splits(data, load_movielens(folder, split_seed=5, embedding_dim=4, strict_data=True))
    assert load_movielens(folder, split_seed=6).test.rows.tolist() != data.test.rows.tolist()


def test_users_without_a_positive_vanish_under_paper_only(tmp_path):
    ratings = [(user, movie, 1 if user == 4 else stars, time) for user, movie, stars, time in RATINGS]
    path = write_folder(tmp_path / "ml-1m", official(ratings))
    strict, paper = load_movielens(path), load_movielens(path, "paper")
    for name in SPLITS:
        assert 3 in getattr(strict, name).groups  # user 4, counted from 0
        assert 3 not in getattr(paper, name).groups


# --- the fingerprint


def test_the_fingerprint_is_of_the_files_the_protocol_and_the_split_seed_and_nothing_else(folder, tmp_path):
    fingerprint = load_movielens(folder).fingerprint
    assert len(fingerprint) == 64
    for same in (write_zip(tmp_path / "any.zip", official()), shutil.copytree(folder, tmp_path / "copy")):
        assert load_movielens(same, embedding_dim=4, strict_data=True).fingerprint == fingerprint
    others = [load_movielens(folder, protocol, split_seed=seed) for protocol in PROTOCOLS for seed in (1, 2)]
    changes = [("ratings.dat", b"::1000\n", b"::1001\n"), ("users.dat", b"48067", b"48068"), ("movies.dat", b"N", b"n")]
    for name, old, new in changes:
        copy = shutil.copytree(folder, tmp_path / f"other {name}")
        (copy / name).write_bytes((copy / name).read_bytes().replace(old, new, 1))
        others.append(load_movielens(copy))
    others.append(load_movielens(write_csv(tmp_path / "a.csv")))
    others.append(load_movielens(write_csv(tmp_path / "b.csv", users=[(1, "F", 1, 10, "48068"), *USERS[1:]])))
    assert len({fingerprint, *(data.fingerprint for data in others)}) == 14


# --- wrong files


@pytest.mark.parametrize("name", ["ratings.dat", "users.dat", "movies.dat"])
def test_a_missing_file_is_named(folder, tmp_path, name):
    contents = official()
    (folder / name).rename(folder / f"{name}.old")
    refusal(folder, f"{folder}: expected ratings.dat, users.dat, movies.dat, got no {name}; add or rename it")
    del contents[name]
    refusal(write_zip(tmp_path / "ml-1m.zip", contents), "ml-1m.zip", f"got no {name}")


def test_a_path_or_a_protocol_that_is_none_is_named(folder, tmp_path):
    refusal(tmp_path / "nowhere", f"{tmp_path / 'nowhere'}: expected MovieLens-1M")
    refusal(folder / "ratings.dat", "name its folder")
    refusal(folder, "strict, paper, temporal", "'random'", protocol="random")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("ratings.dat", b"1::1::5::1\n1::2::5\n", "ratings.dat, line 2: expected 4 columns"),
        ("ratings.dat", b"1::1::5::1\n1::2::4.5::1\n", "ratings.dat, line 2: expected a whole number as rating"),
        ("users.dat", b"1::F::Under 18::10::48067\n", "users.dat, line 1: expected a whole number as age"),
        ("movies.dat", b"1::Toy Story\n2::Jumanji::1995::Fantasy\n", "movies.dat, line 1: expected 3 columns"),
        ("users.dat", b"\n", "users.dat: expected lines of user_id::gender::age::occupation::zipcode"),
    ],
)
def test_a_wrong_line_is_refused_with_its_file_and_number(folder, tmp_path, name, content, expected):
    (folder / name).write_bytes(content)
    assert refusal(folder).startswith(expected)
    assert refusal(write_zip(tmp_path / "ml-1m.zip", official() | {name: content})).startswith(expected)


@pytest.mark.parametrize("stars", [0, 6])
def test_a_rating_outside_1_to_5_is_refused_with_its_line(tmp_path, stars):
    ratings = [*RATINGS[:6], (1, 1, stars, 5), *RATINGS[6:], (1, 2, 9, 5)]
    expected = f": expected a rating from 1 to 5, got {stars}; 2 such rating(s)"
    refusal(write_folder(tmp_path / "ml-1m", official(ratings)), "ratings.dat, line 7" + expected)
    refusal(write_csv(tmp_path / "movielens.csv", ratings), "movielens.csv, row 7 below the header" + expected)


@pytest.mark.parametrize(
    ("key", "file", "stray"),
    [
        ("user_id", "users.dat", [(98, 1, 5, 1), (99, 1, 1, 1)]),
        ("movie_id", "movies.dat", [(1, 98, 5, 1), (1, 99, 1, 1)]),
    ],
)
def test_ratings_of_unknown_users_and_movies_are_dropped_named_and_counted(tmp_path, capsys, key, file, stray):
    with_stray = write_folder(tmp_path / "stray", official([*RATINGS, stray[0], *stray]))
    data = load_movielens(with_stray)
    assert capsys.readouterr().out == f"{file}: 2 rated {key}(s) missing (98, 99); dropped their 3 ratings.\n"
    assert data.counts[f"ratings_dropped_{key}_not_in_{file}"] == 3
    assert (data.counts["ratings_read"], data.counts["ratings_kept"]) == (163, 160)
    assert_same_splits(data, load_movielens(write_folder(tmp_path / "clean", official())))


@pytest.mark.parametrize(
    ("stray", "expected"),
    [
        ([(99, 1, 5, 1)], "users.dat: expected every rated user_id, 1 missing (99) with 1 ratings"),
        ([(1, 99, 5, 1)], "movies.dat: expected every rated movie_id, 1 missing (99)"),
        ([(user, 1, 5, 1) for user in range(90, 97)], "7 missing (90, 91, 92, 93, 94, ...) with 7 ratings"),
    ],
)
def test_ratings_of_unknown_users_and_movies_are_refused_with_strict_data(tmp_path, capsys, stray, expected):
    refusal(write_folder(tmp_path / "ml-1m", official([*RATINGS, *stray])), expected, strict_data=True)
    assert capsys.readouterr().out == ""


def test_a_user_or_movie_that_comes_twice_is_refused(tmp_path):
    twice = write_folder(tmp_path / "users", official(users=[*USERS, (2, "F", 18, 1, "0")]))
    refusal(twice, "users.dat: expected each user_id once, got 2 again")
    twice = write_folder(tmp_path / "movies", official(movies=[*MOVIES, MOVIES[0]]))
    refusal(twice, "movies.dat: expected each movie_id once, got 1 again")


def test_ratings_of_3_alone_and_under_paper_low_ones_alone_leave_nothing_and_are_refused(tmp_path):
    middling, low = ([(*row[:2], stars, row[3]) for row in RATINGS] for stars in (3, 1))
    refusal(write_folder(tmp_path / "3", official(middling)), "expected at least one row, got none of 0 rows")
    refusal(write_folder(tmp_path / "1", official(low)), "train split", "no row", protocol="paper")


# --- damaged and hostile archives

# How the files are packed, what becomes of the archive's bytes, and what is said of it.
DAMAGED = {
    "no archive": (zipfile.ZIP_STORED, lambda content: b"404", "not a zip file"),
    "empty": (zipfile.ZIP_STORED, lambda content: b"", "not a zip file"),
    "cut early": (zipfile.ZIP_DEFLATED, lambda content: content[: len(content) // 3], "not a zip file"),
    "cut late": (zipfile.ZIP_DEFLATED, lambda content: content[:-10], "not a zip file"),
    "another line": (zipfile.ZIP_STORED, lambda content: content.replace(b"1::1::4::", b"1::1::5::"), "CRC-32"),
    "deflate": (zipfile.ZIP_DEFLATED, lambda content: content[:60] + bytes(100) + content[160:], "decompressing"),
    "bzip2": (zipfile.ZIP_BZIP2, lambda content: content.replace(b"1AY&SY", b"1AY&SX"), "data stream"),
    "lzma": (zipfile.ZIP_LZMA, lambda content: content[:60] + bytes(100) + content[160:], ""),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_archive_is_refused(tmp_path, damage):
    method, change, said = DAMAGED[damage]
    path = write_zip(tmp_path / "ml-1m.zip", official(), method=method)
    path.write_bytes(change(path.read_bytes()))
    refusal(path, f"{path}: expected a whole zip archive, got a damaged one", said, "fetch it again")


# What a person does who has a whole file of another kind is not to fetch it again.
OTHER_FILES = {
    "password": (
        "ml-1m.zip",
        # The first of the flags in the archive's list of its members.
        lambda content: re.sub(rb"(PK\x01\x02.{4})\x00", rb"\1!", content, flags=re.DOTALL),
        "got one with a password on ratings.dat; unpack it, and name the folder with --data.",
    ),
    "packing": (
        "ml-1m.zip",
        lambda content: re.sub(rb"(PK\x01\x02.{6})\x08", b"\\1\x09", content, flags=re.DOTALL),
        "expected an archive that Python unpacks, got another (That compression method is not supported)",
    ),
    "Parquet": ("ratings.parquet", lambda content: b"PAR1\n", "got Parquet; save it as CSV."),
    "web page": ("ml-1m.zip", lambda content: b"<html>404</html>", "got a web page; fetch it again."),
    "tar": ("ml-1m.tar.gz", gzip.compress, "got a gzip file; unpack it."),
    "text": ("ratings.tsv", lambda content: b"1\t2\n", "got a file of another kind."),
}


@pytest.mark.parametrize("other", OTHER_FILES)
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, other):
    name, change, said = OTHER_FILES[other]
    content = write_zip(tmp_path / "whole.zip", official()).read_bytes()
    (tmp_path / name).write_bytes(change(content))
    assert refusal(tmp_path / name, said).startswith(f"{tmp_path / name}: expected ")


@pytest.mark.parametrize(
    ("inside", "said"),
    [("ratings.csv", "another release of MovieLens"), ("u.data", "MovieLens-100K"), ("tags.dat", "MovieLens-10M")],
)
def test_another_release_is_named(tmp_path, inside, said):
    contents = {"ratings.dat": b"", inside: b""}
    for path in (write_zip(tmp_path / "ml.zip", contents), write_folder(tmp_path / "ml", contents)):
        refusal(path, "expected ratings.dat, users.dat, movies.dat", f"got {said}", "which is not read.")


def test_a_disk_that_refuses_the_archive_is_not_called_damage(tmp_path, monkeypatch):
    def refuses(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    path = write_zip(tmp_path / "ml-1m.zip", official())
    monkeypatch.setattr(zipfile.ZipFile, "read", refuses)
    with pytest.raises(OSError, match="Input/output error"):
        load_movielens(path)


def test_a_csv_packed_by_gzip_is_the_same_data(tmp_path):
    data = load_movielens(write_csv(tmp_path / "movielens.csv"))
    (tmp_path / "gz").mkdir()
    packed = tmp_path / "gz" / "movielens.csv.gz"
    packed.write_bytes(gzip.compress((tmp_path / "movielens.csv").read_bytes()))
    assert find_movielens(packed.parent) == packed
    assert load_movielens(packed).checksum() == data.checksum()
    packed.write_bytes(packed.read_bytes()[:-9])
    refusal(packed, f"{packed}: expected a whole gzip file, got a damaged one", "fetch it again")


@pytest.mark.parametrize("name", ["ratings.dat", "users.dat", "movies.dat"])
def test_files_saved_anew_as_utf_8_are_the_same_data_with_the_same_titles(folder, tmp_path, name):
    data, titles = load_movielens(folder), read_movielens(folder).movies["title"].tolist()
    contents = official()
    contents[name] = contents[name].decode("latin-1").encode("utf-8-sig")
    again = write_folder(tmp_path / "again", contents)
    assert_same_splits(data, load_movielens(again))
    assert read_movielens(again).movies["title"].tolist() == titles == [movie[1] for movie in MOVIES]


def test_a_csv_that_contradicts_itself_on_a_user_or_movie_is_refused_with_the_row(tmp_path):
    text = write_csv(tmp_path / "a.csv").read_text()
    lines = text.splitlines(keepends=True)
    for column, expected in ((4, "gender, age, occupation, zipcode as in"), (9, "title, genres as in")):
        cells = next(csv.reader([lines[-1]]))
        cells[column] = "other"
        changed = io.StringIO()
        csv.writer(changed, lineterminator="\n").writerow(cells)
        (tmp_path / "a.csv").write_text("".join([*lines[:-1], changed.getvalue()]))
        assert refusal(tmp_path / "a.csv").startswith(f"a.csv, row 160 below the header: expected {expected}")


def test_no_single_wrong_bit_in_a_member_is_read_as_data(tmp_path):
    path = write_zip(tmp_path / "ml-1m.zip", official())
    whole, data = path.read_bytes(), load_movielens(path)
    generator = random.Random(0)
    members = whole.index(b"PK\x01\x02")  # where the members end and their list begins
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[generator.randrange(members)] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            other = load_movielens(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:  # a date or the like
            assert other.fingerprint == data.fingerprint


@pytest.mark.parametrize("inside", ["../../", "/", "..\\..\\"])
def test_nothing_is_unpacked_wherever_a_zip_says_that_its_files_go(tmp_path, monkeypatch, inside):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    path = write_zip(deep / "ml-1m.zip", official(), inside=inside)
    before = sorted(tmp_path.rglob("*")), sorted(Path("/").glob("*.dat"))
    if "\\" in inside and os.sep == "/":  # the backslashes belong to the names, so there is no ratings.dat
        refusal(path, "got no ratings.dat, users.dat, movies.dat")
    else:
        load_movielens(path)
    assert (sorted(tmp_path.rglob("*")), sorted(Path("/").glob("*.dat"))) == before


# --- the real data


def test_the_real_archive_holds_what_its_readme_says_and_strict_splits_hold_all_but_ratings_of_3(real_movielens):
    raw = read_movielens(real_movielens, strict_data=True)
    assert len(raw.ratings) == raw.counts["ratings_read"] == raw.counts["ratings_kept"] == 1_000_209
    assert (len(raw.users), len(raw.movies)) == (6_040, 3_883)
    assert raw.ratings[["user_id", "movie_id"]].nunique().tolist() == [6_040, 3_706]
    assert raw.ratings["rating"].mean() == pytest.approx(3.581564, abs=5e-7)
    assert raw.movies["title"].str.contains("é").any()
    data = load_movielens(real_movielens)
    assert [len(getattr(data, name)) for name in SPLITS] == [532_089, 59_121, 147_802]
    assert data.counts["ratings_of_3_left_out"] == 1_000_209 - 739_012
    assert (data.item_columns[1].vocabulary_size, data.item_columns[1].maxlen) == (18 + 2, 6)
    assert not data.synthetic


def test_an_archive_with_two_files_of_one_name_is_refused(tmp_path):
    path = write_zip(tmp_path / "ml-1m.zip", official())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/ratings.dat", "1::1::5::1\n")
    refusal(path, "one ratings.dat", "several")


@pytest.mark.parametrize("probabilities", ["", "half\n"])
def test_a_sample_whose_probabilities_do_not_fit_is_refused(folder, probabilities):
    (folder / "probabilities.npy").write_text(probabilities)
    refusal(folder, "probabilities.npy", "was altered")


def test_rows_are_places_in_the_raw_file_even_after_ratings_were_dropped(tmp_path):
    ratings = [(99, 1, 5, 0), *RATINGS]
    data = load_movielens(write_folder(tmp_path / "ml-1m", official(ratings)))
    for name in SPLITS:
        table = getattr(data, name)
        for row, label in zip(table.rows, table.labels, strict=True):
            assert (ratings[row][2] > 3) == bool(label)
