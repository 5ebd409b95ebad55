"""MovieLens-1M from its three layouts to encoded splits, and what is said of files that are wrong."""

import csv
import io
import itertools
import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from preprocessing.movielens import load_movielens, read_movielens
from preprocessing.sources import find_movielens

PROTOCOLS = ("strict", "paper", "temporal")
SPLITS = ("train", "valid", "test")

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


def assert_same_splits(data, other) -> None:
    for name in SPLITS:
        ours, theirs = getattr(data, name), getattr(other, name)
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.groups.tolist() == theirs.groups.tolist()
        assert ours.features.keys() == theirs.features.keys()
        for feature, values in ours.features.items():
            assert torch.equal(values[:], theirs.features[feature][:]), f"{name} {feature}"


def refusal(path: Path, *fragments: str, **options) -> str:
    """The one line that loading ends with."""
    with pytest.raises(UserError) as caught:
        load_movielens(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message
    return message


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "ml-1m", official())


# --- layouts


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_zip_folder_and_csv_give_the_same_splits_and_features(tmp_path, protocol, end):
    contents = official(end=end)
    data = load_movielens(write_folder(tmp_path / "folder", official()), protocol)
    for path in (
        write_folder(tmp_path / "other", contents),
        write_zip(tmp_path / "ml-1m.zip", contents),
        write_zip(tmp_path / "flat.zip", contents, inside="", method=zipfile.ZIP_STORED),
        write_csv(tmp_path / "movielens.csv", end=end),
        write_csv(tmp_path / "movielens.txt", end=end),
    ):
        assert_same_splits(data, load_movielens(path, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_layouts_agree_on_a_larger_sample_too(sample_folder, tmp_path, protocol):
    raw = read_movielens(sample_folder)
    tables = [frame.to_numpy().tolist() for frame in (raw.ratings, raw.users, raw.movies)]
    data = load_movielens(sample_folder, protocol)
    assert_same_splits(data, load_movielens(write_zip(tmp_path / "x.zip", official(*tables)), protocol))
    assert_same_splits(data, load_movielens(write_csv(tmp_path / "x.csv", *tables), protocol))


def test_titles_are_read_whatever_they_hold(tmp_path):
    for path in (write_folder(tmp_path / "folder", official()), write_csv(tmp_path / "movielens.csv")):
        titles = read_movielens(path).movies.set_index("movie_id")["title"]
        assert titles[[1, 2, 3, 5]].tolist() == [movie[1] for movie in MOVIES[:4]]


def test_nothing_is_left_beside_the_data(tmp_path):
    write_folder(tmp_path / "folder", official())
    write_zip(tmp_path / "ml-1m.zip", official())
    write_csv(tmp_path / "movielens.csv")
    before = sorted(tmp_path.rglob("*"))
    for name in ("folder", "ml-1m.zip", "movielens.csv"):
        load_movielens(tmp_path / name)
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
    assert labels.dtype == torch.float32
    assert len(set(rows.tolist())) == len(rows)
    if protocol != "paper":  # which also loses users
        assert len(rows) == (ratings != 3).sum()
    assert data.counts["ratings_read"] == len(ratings)
    assert data.counts["ratings_of_3_left_out"] == (ratings == 3).sum()
    assert [data.counts[name] for name in SPLITS] == [len(getattr(data, name)) for name in SPLITS]


def test_the_columns_are_those_of_the_released_scripts(folder):
    data = load_movielens(folder, embedding_dim=6)
    user, item = data.user_columns, data.item_columns
    assert [column.name for column in user] == ["user_id", "gender", "age", "occupation", "user_mean_rating"]
    assert [type(column) for column in user] == [SparseFeat] * 4 + [DenseFeat]
    assert [column.name for column in item] == ["movie_id", "genres", "item_mean_rating"]
    assert [type(column) for column in item] == [SparseFeat, VarLenSparseFeat, DenseFeat]
    assert {column.embedding_dim for column in [*user[:4], *item[:2]]} == {6}
    assert (item[1].maxlen, item[1].combiner) == (3, "mean")


def test_features_have_the_shapes_and_types_of_their_columns(folder):
    data = load_movielens(folder)
    for name in SPLITS:
        table = getattr(data, name)
        for column in data.user_columns + data.item_columns:
            values = table.features[column.name][:]
            if isinstance(column, SparseFeat):
                assert (values.shape, values.dtype) == ((len(table),), torch.int32)
            elif isinstance(column, VarLenSparseFeat):
                assert (values.shape, values.dtype) == ((len(table), column.maxlen), torch.int32)
            else:
                assert (values.shape, values.dtype) == ((len(table), 1), torch.float32)
        assert len(table.groups) == len(table.rows) == len(table.labels)


# Sorted by time, 20 ratings: 14 train, 2 valid, 4 test. User 4 and movie 5 come in the test rows only.
TEMPORAL = [(1 + i % 3, 1 + i % 2, (5, 1, 4, 2)[i % 4], i) for i in range(16)]
TEMPORAL += [(4, 1, 5, 16), (1, 5, 1, 17), (4, 5, 4, 18), (2, 3, 2, 19)]


@pytest.fixture
def temporal(tmp_path):
    return load_movielens(write_folder(tmp_path / "temporal", official(TEMPORAL)), "temporal")


def test_vocabularies_hold_the_values_of_training_rows_only(temporal):
    sizes = {column.name: column.vocabulary_size for column in temporal.user_columns[:4] + temporal.item_columns[:2]}
    # Beside padding and out-of-vocabulary: users 1 to 3, movies 1 and 2, and what is said of them.
    assert sizes == {"user_id": 5, "gender": 4, "age": 5, "occupation": 5, "movie_id": 4, "genres": 6}
    assert temporal.counts["users_in_train"] == 3
    assert temporal.counts["items_in_train"] == 2


def test_users_and_movies_that_training_never_saw_get_the_id_1(temporal):
    features = {name: values[:].tolist() for name, values in temporal.test.features.items()}
    assert temporal.test.rows.tolist() == [16, 17, 18, 19]
    assert features["user_id"] == [1, 2, 1, 3]
    assert features["movie_id"] == [2, 1, 1, 1]
    assert features["gender"] == [2, 2, 2, 3]  # user 4 is known by gender, age and occupation
    assert features["age"] == [2, 2, 2, 4]
    assert features["occupation"] == [2, 2, 2, 4]


def test_genres_are_padded_ids_and_unseen_genres_are_1(temporal):
    # Animation 2, Children's 3, Comedy 4, Drama 5; Horror and Sci-Fi of movie 5 come in test only.
    assert temporal.train.features["genres"][:2].tolist() == [[2, 3, 4], [4, 5, 0]]
    assert temporal.test.features["genres"][:].tolist() == [[2, 3, 4], [1, 1, 0], [1, 1, 0], [5, 0, 0]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_training_ids_begin_at_2_and_every_id_fits_its_embedding(sample_folder, protocol):
    data = load_movielens(sample_folder, protocol)
    for column in data.user_columns + data.item_columns:
        if isinstance(column, DenseFeat):
            continue
        used = data.train.features[column.name][:].unique()
        padded = isinstance(column, VarLenSparseFeat)
        assert used.tolist() == [0] * padded + list(range(2, column.vocabulary_size)), column.name
        for name in SPLITS:
            assert getattr(data, name).features[column.name][:].max() < column.vocabulary_size


def test_rows_of_one_user_share_a_group(sample_folder):
    data = load_movielens(sample_folder, "temporal")
    users = read_movielens(sample_folder).ratings["user_id"].to_numpy()
    user_of_group = {}
    for name in SPLITS:
        table = getattr(data, name)
        assert table.groups.dtype == np.int32
        for group, row in zip(table.groups.tolist(), table.rows, strict=True):
            assert user_of_group.setdefault(group, users[row]) == users[row]
    assert len(set(user_of_group.values())) == len(user_of_group)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_splits_depend_on_the_split_seed_alone(sample_folder, protocol):
    torch.manual_seed(1)
    data = load_movielens(sample_folder, protocol, split_seed=5)
    torch.manual_seed(2)
    assert_same_splits(data, load_movielens(sample_folder, protocol, split_seed=5, embedding_dim=4, strict_data=True))
    other = load_movielens(sample_folder, protocol, split_seed=6)
    assert (other.test.rows.tolist() == data.test.rows.tolist()) == (protocol == "temporal")


def test_users_without_a_positive_vanish_under_paper_only(tmp_path):
    ratings = [(user, movie, 1 if user == 4 else stars, time) for user, movie, stars, time in RATINGS]
    path = write_folder(tmp_path / "ml-1m", official(ratings))
    strict, paper = load_movielens(path), load_movielens(path, "paper")
    for name in SPLITS:
        assert 3 in getattr(strict, name).groups  # user 4, counted from 0
        assert 3 not in getattr(paper, name).groups


def test_real_ratings_are_not_called_synthetic(folder):
    assert not load_movielens(folder).synthetic


# --- the fingerprint


def test_the_fingerprint_is_a_sha256_that_does_not_depend_on_place_packing_or_other_settings(folder, tmp_path):
    fingerprint = load_movielens(folder).fingerprint
    assert len(fingerprint) == 64
    assert int(fingerprint, 16) >= 0
    assert load_movielens(write_zip(tmp_path / "any.zip", official())).fingerprint == fingerprint
    assert load_movielens(shutil.copytree(folder, tmp_path / "copy")).fingerprint == fingerprint
    assert load_movielens(folder, embedding_dim=4, strict_data=True).fingerprint == fingerprint


def test_the_fingerprint_changes_with_protocol_and_split_seed(folder):
    settings = [(protocol, seed) for protocol in PROTOCOLS for seed in (1, 2)]
    fingerprints = {load_movielens(folder, protocol, split_seed=seed).fingerprint for protocol, seed in settings}
    assert len(fingerprints) == len(settings)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("ratings.dat", b"::1000\n", b"::1001\n"),
        ("users.dat", b"48067", b"48068"),
        ("movies.dat", b"Never Rated", b"Never rated"),
    ],
)
def test_the_fingerprint_changes_with_one_byte_of_any_raw_file(folder, name, old, new):
    before = load_movielens(folder).fingerprint
    content = (folder / name).read_bytes()
    assert content.count(old) == 1
    (folder / name).write_bytes(content.replace(old, new))
    assert load_movielens(folder).fingerprint != before


def test_the_fingerprint_of_a_csv_changes_with_one_byte(tmp_path):
    before = load_movielens(write_csv(tmp_path / "a.csv")).fingerprint
    users = [(1, "F", 1, 10, "48068"), *USERS[1:]]
    assert load_movielens(write_csv(tmp_path / "b.csv", users=users)).fingerprint != before


# --- wrong files


@pytest.mark.parametrize("name", ["ratings.dat", "users.dat", "movies.dat"])
def test_a_missing_file_is_named(folder, tmp_path, name):
    contents = official()
    (folder / name).unlink()
    refusal(folder, str(folder), f"got no {name}")
    del contents[name]
    refusal(write_zip(tmp_path / "ml-1m.zip", contents), "ml-1m.zip", f"got no {name}")


def test_a_misnamed_file_is_missing_under_its_right_name(folder):
    (folder / "movies.dat").rename(folder / "movie.dat")
    refusal(folder, "expected ratings.dat, users.dat, movies.dat, got no movies.dat; add or rename it")


def test_a_path_that_is_not_there_is_named(tmp_path):
    refusal(tmp_path / "nowhere", str(tmp_path / "nowhere"))


def test_an_unknown_protocol_is_refused_with_the_choices(folder):
    refusal(folder, "strict, paper, temporal", "'random'", protocol="random")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("ratings.dat", b"1::1::5::1\n1::2::5\n", "ratings.dat, line 2: expected 4 columns"),
        ("ratings.dat", b"1::1::5::1\n1::2::x::1\n", "ratings.dat, line 2: expected a whole number as rating, got 'x'"),
        ("ratings.dat", b"1::1::5::1\n1::2::4.5::1\n", "ratings.dat, line 2: expected a whole number as rating"),
        ("users.dat", b"1::F::1::10::48067\n\n", "users.dat, line 2: expected 5 columns"),
        ("users.dat", b"1::F::Under 18::10::48067\n", "users.dat, line 1: expected a whole number as age"),
        ("movies.dat", b"1::Toy Story\n2::Jumanji::1995::Fantasy\n", "movies.dat, line 1: expected 3 columns"),
        ("ratings.dat", b"", "ratings.dat: expected lines of user_id::movie_id::rating::timestamp, got an empty file"),
        ("users.dat", b"\n", "users.dat: expected lines of user_id::gender::age::occupation::zipcode"),
    ],
)
def test_a_wrong_line_is_refused_with_its_file_and_number(folder, tmp_path, name, content, expected):
    (folder / name).write_bytes(content)
    assert refusal(folder).startswith(expected)
    assert refusal(write_zip(tmp_path / "ml-1m.zip", official() | {name: content})).startswith(expected)


@pytest.mark.parametrize("stars", [0, 6, -1, 10])
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


def test_ratings_of_unknown_users_and_movies_are_refused_with_strict_data(tmp_path, capsys):
    by_stranger = write_folder(tmp_path / "users", official([*RATINGS, (99, 1, 5, 1)]))
    refusal(by_stranger, "users.dat: expected every rated user_id, 1 missing (99) with 1 ratings", strict_data=True)
    of_stranger = write_folder(tmp_path / "movies", official([*RATINGS, (1, 99, 5, 1)]))
    refusal(of_stranger, "movies.dat: expected every rated movie_id, 1 missing (99)", strict_data=True)
    assert capsys.readouterr().out == ""


def test_long_lists_of_unknown_ids_are_cut(tmp_path):
    ratings = RATINGS + [(user, 1, 5, 1) for user in range(90, 97)]
    path = write_folder(tmp_path / "ml-1m", official(ratings))
    refusal(path, "7 missing (90, 91, 92, 93, 94, ...) with 7 ratings", strict_data=True)


def test_a_user_or_movie_that_comes_twice_is_refused(tmp_path):
    twice = write_folder(tmp_path / "users", official(users=[*USERS, (2, "F", 18, 1, "0")]))
    refusal(twice, "users.dat: expected each user_id once, got 2 again")
    twice = write_folder(tmp_path / "movies", official(movies=[*MOVIES, MOVIES[0]]))
    refusal(twice, "movies.dat: expected each movie_id once, got 1 again")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_too_few_ratings_are_refused(tmp_path, protocol):
    path = write_folder(tmp_path / "ml-1m", official([(1, 1, 5, 1), (1, 2, 1, 2), (1, 3, 3, 3), (2, 1, 5, 4)]))
    refusal(path, "valid split: expected at least one row, got none of 3 rows; give more data", protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ratings_of_3_alone_are_refused(tmp_path, protocol):
    path = write_folder(tmp_path / "ml-1m", official([(*row[:2], 3, row[3]) for row in RATINGS]))
    refusal(path, "expected at least one row, got none of 0 rows", protocol=protocol)


@pytest.mark.parametrize(
    ("protocol", "stars"), [("strict", 5), ("strict", 1), ("temporal", 5), ("temporal", 1), ("paper", 5)]
)
def test_labels_of_one_class_are_refused(tmp_path, protocol, stars):
    path = write_folder(tmp_path / "ml-1m", official([(*row[:2], stars, row[3]) for row in RATINGS]))
    refusal(path, f"train split: expected labels 0 and 1, got only {int(stars > 3)}", protocol=protocol)


def test_a_csv_with_another_header_is_refused_with_what_is_missing(tmp_path):
    path = write_csv(tmp_path / "movielens.csv")
    path.write_bytes(path.read_bytes().replace(b"user_id,movie_id,rating", b"userId,movieId,rating", 1))
    assert refusal(path).startswith("movielens.csv, line 1: expected the header user_id,movie_id,rating,timestamp,")
    refusal(path, "got no user_id, movie_id.")


# --- damaged and hostile archives


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_zip_is_refused(tmp_path, share):
    path = write_zip(tmp_path / "ml-1m.zip", official())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(path, str(path), "expected a whole zip archive, got a damaged one", "fetch it again")


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>404</html>", b"1::1::5::978300760\n" * 100])
def test_a_zip_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "ml-1m.zip"
    path.write_bytes(content)
    refusal(path, str(path), "expected a whole zip archive")


def test_a_member_that_does_not_fit_its_checksum_is_refused(tmp_path):
    path = write_zip(tmp_path / "ml-1m.zip", official(), method=zipfile.ZIP_STORED)
    content = path.read_bytes()
    line = b"1::1::4::1000\n"
    assert content.count(line) == 1
    path.write_bytes(content.replace(line, b"1::1::5::1000\n"))  # a line as good as any
    refusal(path, "expected a whole zip archive", "Bad CRC-32 for file 'ml-1m/ratings.dat'")


def test_a_member_with_damaged_compression_is_refused(tmp_path, sample_folder):
    contents = {name: (sample_folder / name).read_bytes() for name in official()}
    path = write_zip(tmp_path / "ml-1m.zip", contents)
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    refusal(path, "expected a whole zip archive")


def test_an_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "ml-1m.zip", official())
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + flags] |= 1
            start = content.find(signature, start + 1)
    path.write_bytes(content)
    refusal(path, str(path), "encrypted")


def test_no_single_wrong_bit_in_a_member_is_read_as_data(tmp_path):
    path = write_zip(tmp_path / "ml-1m.zip", official())
    whole, data = path.read_bytes(), load_movielens(path)
    generator = random.Random(0)
    members = whole.index(b"PK\x01\x02")  # where the members end and their list begins
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[generator.randrange(members)] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            other = load_movielens(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:  # a date or the like
            assert other.fingerprint == data.fingerprint


@pytest.mark.parametrize("inside", ["../../", "/", "a/../../../", "..\\..\\"])
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


def test_the_real_archive_holds_what_its_readme_says(real_movielens):
    raw = read_movielens(real_movielens, strict_data=True)
    assert len(raw.ratings) == raw.counts["ratings_read"] == raw.counts["ratings_kept"] == 1_000_209
    assert len(raw.users) == raw.ratings["user_id"].nunique() == 6_040
    assert len(raw.movies) == 3_883
    assert raw.ratings["movie_id"].nunique() == 3_706
    assert raw.ratings["rating"].mean() == pytest.approx(3.581564, abs=5e-7)
    assert raw.movies["title"].str.contains("é").any()


def test_the_real_strict_splits_hold_all_ratings_but_those_of_3(real_movielens):
    data = load_movielens(real_movielens)
    assert sum(len(getattr(data, name)) for name in SPLITS) == 739_012
    assert [data.counts[name] for name in SPLITS] == [532_089, 59_121, 147_802]
    assert data.counts["ratings_of_3_left_out"] == 1_000_209 - 739_012
    genres = data.item_columns[1]
    assert (genres.vocabulary_size, genres.maxlen) == (18 + 2, 6)
    assert not data.synthetic


def test_all_ratings_low_under_paper_leaves_no_user_and_is_refused(tmp_path):
    low = [(user, movie, 1, time) for user, movie, _, time in RATINGS]
    refusal(write_folder(tmp_path / "ml-1m", official(low)), "train split", "no row", protocol="paper")


def test_a_member_packed_in_a_broken_other_way_is_refused(tmp_path):
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in official().items():
            archive.writestr(name, content)
    content = bytearray(path.read_bytes())
    content[content.find(b"BZh") + 6] ^= 0xFF
    path.write_bytes(content)
    refusal(path, "damaged")


def test_an_archive_with_two_files_of_one_name_is_refused(tmp_path):
    path = write_zip(tmp_path / "ml-1m.zip", official())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/ratings.dat", "1::1::5::1\n")
    refusal(path, "one ratings.dat", "several")


def test_one_file_of_the_archive_alone_is_answered_with_its_folder(folder):
    refusal(folder / "ratings.dat", "name its folder")


@pytest.mark.parametrize("probabilities", ["0.5\n", "0.5\n" * 1000, "half\n"])
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
