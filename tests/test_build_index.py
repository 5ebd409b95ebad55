"""Building an index of a run: in batches, from where it stopped, from the shell."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest
from served import trained
from shell import assert_refused, run

import serving.build_index
import train_alibaba_IntTower
import train_amazon_IntTower
import train_kuairand_IntTower
from preprocessing.alibaba import read_alibaba
from preprocessing.amazon import locate_amazon, read_amazon
from preprocessing.errors import UserError
from preprocessing.kuairand import read_kuairand
from preprocessing.movielens import read_movielens
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sample_kuairand import write_kuairand_sample
from preprocessing.sample_movielens import write_movielens_sample
from preprocessing.sources import alibaba_files
from serving.build_index import build_index, parse, read_items
from serving.index_files import HEADS
from serving.item_index import ItemIndex
from serving.maxsim import maxsim
from serving.trained_run import TrainedRun, load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_folder):
    return trained(tmp_path_factory.mktemp("run"), sample_folder)


@pytest.fixture(scope="module")
def movies(sample_folder):
    return read_movielens(sample_folder).movies


def heads_file(index: ItemIndex) -> bytes:
    [path] = index.folder.glob(f"segment-*/{HEADS}")
    return path.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_build_that_was_stopped_goes_on_and_gives_the_same_bytes(folder, movies, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(serving.build_index, "BATCH", 16)
    whole = build_index(load_run(folder), movies, tmp_path / "whole", dtype)
    stopped, encoded = load_run(folder), []
    encode = stopped.encode_items

    def stop_at_the_third(rows):
        encoded.append(len(rows))
        if len(encoded) == 3:
            raise KeyboardInterrupt
        return encode(rows)

    monkeypatch.setattr(stopped, "encode_items", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build_index(stopped, movies, tmp_path / "index", dtype)
    with pytest.raises(UserError, match="expected an item index"):
        ItemIndex(tmp_path / "index")  # not before it is whole
    index = build_index(stopped, movies, tmp_path / "index", dtype)
    assert sum(encoded) == len(movies) + 16  # only the batch that was stopped is encoded twice
    assert heads_file(index) == heads_file(whole)
    assert not (tmp_path / "index" / "building").exists()


def test_a_stopped_build_of_other_items_is_not_gone_on_with(folder, movies, tmp_path, monkeypatch):
    monkeypatch.setattr(serving.build_index, "BATCH", 16)
    stopped = load_run(folder)
    monkeypatch.setattr(stopped, "encode_items", lambda rows: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_index(stopped, movies, tmp_path, "float32")
    others = movies.assign(genres="Drama")
    index = build_index(load_run(folder), others, tmp_path)
    assert heads_file(index) == heads_file(build_index(load_run(folder), others, tmp_path / "other"))


def test_an_index_is_replaced_when_the_new_one_is_whole(folder, movies, tmp_path):
    reader = build_index(load_run(folder), movies, tmp_path)
    build_index(load_run(folder), movies[:10], tmp_path)
    assert len(reader) == len(movies)
    assert reader.refresh()
    assert len(reader) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda movies: pd.concat([movies, movies[:1]]), "expected each item once, got"),
        (lambda movies: movies.drop(columns="movie_id"), "items: expected a column 'movie_id'"),
        (lambda movies: movies.drop(columns="genres"), "expected a column 'genres'"),
        (lambda movies: movies.assign(movie_id="seven"), "movie_id: expected whole numbers .*, got 'seven' in row 0"),
        (lambda movies: movies.assign(movie_id=2.0**60), "movie_id: .* stands for several whole numbers"),
        (lambda movies: movies.assign(genres=5), "genres: expected text such as .*, got 5"),
        (
            lambda movies: pd.concat([movies, movies[["movie_id"]]], axis=1),
            "expected one column 'movie_id', got several",
        ),
    ],
)
def test_items_that_do_not_fit_are_refused(folder, movies, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        build_index(load_run(folder), change(movies), tmp_path)


def test_items_whose_genres_are_lists_are_those_whose_genres_are_text(folder, movies, tmp_path):
    index = build_index(load_run(folder), movies, tmp_path / "text")
    lists = movies.assign(genres=movies["genres"].str.split("|"))
    assert heads_file(build_index(load_run(folder), lists, tmp_path / "lists")) == heads_file(index)


@pytest.fixture(scope="module")
def amazon_folder(tmp_path_factory):
    """A run whose ids are text of digits, some with zeros before them."""
    data = tmp_path_factory.mktemp("amazon")
    rows = pd.DataFrame(
        {"reviewerID": [f"{n % 30:05d}" for n in range(400)], "asin": [f"{n * 7 % 20:03d}" for n in range(400)]}
    )
    rows = rows.assign(overall=[1.0 + 4 * (n * n % 3 > 0) for n in range(400)], unixReviewTime=range(400))
    rows = rows.assign(price=9.99, categories=[f"C{asin}" for asin in rows["asin"]])
    rows.to_csv(data / "ratings.csv", index=False)
    return trained(data / "run", data / "ratings.csv", script=train_amazon_IntTower, cache=False)


def test_the_reviews_of_a_run_are_named_as_for_its_training(amazon_folder, folder, tmp_path):
    reviews = str(amazon_folder.parent / "ratings.csv")
    items = read_items(load_run(amazon_folder), None, None, {}, reviews)
    assert len(items) == 20
    for run_folder, path in ((folder, None), (amazon_folder, reviews)):
        with pytest.raises(UserError, match="--reviews, --meta: expected a run on Amazon's files and no --items, got"):
            read_items(load_run(run_folder), path, None, {}, reviews)


def test_an_index_of_text_ids_takes_no_number_for_them(amazon_folder, tmp_path):
    served = load_run(amazon_folder)
    items = pd.DataFrame({"asin": ["007", "010"], "categories": "C007", "price": 9.99})
    index = build_index(served, items, tmp_path)
    assert index.ids.tolist() == ["007", "010"]
    user = served.encode_users(pd.DataFrame({"reviewerID": ["00007"]}))[0]
    for call in (
        lambda: build_index(served, items.assign(asin=[7, 10]), tmp_path / "other"),
        lambda: served.encode_items(items.assign(asin=[7, 10])),
        lambda: index.score(user, [7]),
        lambda: index.top_k(user, 1, [7]),
        lambda: index.remove([7]),
        lambda: index.put([7], served.encode_items(items[:1])),
    ):
        with pytest.raises(UserError):
            call()
    assert len(ItemIndex(tmp_path)) == 2


# What stands in a file of items, and the ids or the line that it ends in.
ITEM_FILES = {
    "as it should be": ('asin,categories,price\r\n007,"Cables, short",9.99\r\n\r\n010,,\r\n', ["007", "010"]),
    "a byte order mark, and more columns": ("\ufeff,title, asin ,categories,price\n0,Å,007,C,1\n", ["007"]),
    "no row": ("asin,categories,price\n", []),
    "a comma at each row's end": (
        "asin,categories,price\n007,Cables,9.99,\n010,Phones,19.99,\n",
        r"items.csv, line 2: expected 3 columns \(asin, categories, price\), got 4; mend or remove the line",
    ),
    "a row cut short": ("asin,categories,price\n007,C,1\n010,C\n", "items.csv, line 3: expected 3 columns .*, got 2"),
    "a column twice": ("asin,asin,categories,price\n007,010,C,1\n", "items.csv, line 1: expected .*, got 'asin' twice"),
    "a column missing": ("asin,price\n007,1\n", "items.csv, line 1: expected .*, got no categories"),
    "an empty id": (
        "asin,categories,price\n007,C,1\n,C,1\n",
        "items, asin: expected text that is not empty .* in row 1",
    ),
    "an id twice": ("asin,categories,price\n007,C,1\n007,D,1\n", "items, asin: expected each item once, got 007 twice"),
    "an open quote": ('asin,categories,price\n007,"C,1\n', "items.csv, line 2: expected comma-separated text"),
    "nothing": ("", "items.csv, line 1: expected the header asin,categories,price, got no asin"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("case", ITEM_FILES)
def test_a_file_of_items_is_read_row_by_row_or_refused_in_one_line(amazon_folder, tmp_path, case, packed):
    content, expected = ITEM_FILES[case]
    path = tmp_path / ("items.csv.gz" if packed else "items.csv")
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    if isinstance(expected, list):
        items = read_items(load_run(amazon_folder), str(path), None, {})
        assert build_index(load_run(amazon_folder), items, tmp_path / "index").ids.tolist() == expected
        return
    with pytest.raises(UserError, match=expected.replace(".csv", ".csv.gz") if packed else expected) as error:
        build_index(
            load_run(amazon_folder), read_items(load_run(amazon_folder), str(path), None, {}), tmp_path / "index"
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "index").exists()


def test_whole_numbers_in_a_file_of_items_are_kept_exactly(folder, tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("movie_id,genres\n9007199254740993,Drama\n5.0,Drama|\n")
    served = load_run(folder)
    index = build_index(served, read_items(served, str(path), None, {}), tmp_path / "index")
    assert index.ids.tolist() == [5, 2**53 + 1]
    path.write_text("movie_id\n5\n")
    assert read_items(served, str(path), None, {"genres": "Drama"})["genres"].tolist() == ["Drama"]
    path.write_text("movie_id,genres\n9223372036854775809,Drama\n")
    with pytest.raises(
        UserError, match="movie_id: expected whole numbers of 64 bits as ids, got '9223372036854775809'"
    ):
        build_index(served, read_items(served, str(path), None, {}), tmp_path / "index")
    assert index.ids.tolist() == ItemIndex(tmp_path / "index").ids.tolist()


@pytest.mark.parametrize("words", [("--set", "a=1", "--set", "a=2"), ("--set", "=1"), ("--set", "a")])
def test_a_constant_that_says_two_things_or_none_is_refused_in_one_line(folder, capsys, words):
    with pytest.raises(SystemExit) as left:
        parse(["--run", str(folder), *words])
    assert left.value.code == 2
    assert re.fullmatch(r".*--set: expected .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"genres": "Drama"}, "--set genres: expected a column that the items lack, got one that they have"),
        ({"foo": "x"}, "--set foo: expected one of the item tower's columns, "),
    ],
)
def test_a_constant_replaces_nothing_and_is_of_the_item_tower(folder, sample_folder, constants, message):
    with pytest.raises(UserError, match=message):
        read_items(load_run(folder), None, str(sample_folder), constants)


def test_data_beside_a_file_of_items_are_refused(folder, capsys):
    with pytest.raises(SystemExit):
        parse(["--run", str(folder), "--items", "movies.csv", "--data", "data"])
    assert "--data: has no effect with --items" in capsys.readouterr().err


def test_invented_movies_stand_in_for_none_but_those_of_the_run(folder, sample_folder, tmp_path, capsys):
    run = load_run(folder)
    assert len(read_items(run, None, str(sample_folder), {}))
    assert "SYNTHETIC DATA" in capsys.readouterr().out
    others = write_movielens_sample(tmp_path / "others", num_ratings=2000)
    with pytest.raises(UserError, match=r"--data: expected the movies that .* was trained on, got invented ones"):
        read_items(run, None, str(others), {})


def test_no_items_make_an_empty_index(folder, movies, tmp_path):
    run = load_run(folder)
    assert len(build_index(run, movies[:0], tmp_path)) == 0
    assert run.item_encoder.never_seen(movies[:0]) == {}
    assert run.item_encoder.unknown_values(movies[:0]) == []


def test_the_command_builds_an_index_of_the_datasets_items_or_of_a_csv(folder, movies, sample_folder, tmp_path):
    command = ["-m", "serving.build_index", "--run", folder, "--output"]
    result = run(*command, tmp_path / "index", "--data", sample_folder, "--dtype", "float16")
    assert result.returncode == 0, result.stderr
    assert f"{len(movies):,} items, 4 x 16 heads of float16, 128 bytes each" in result.stdout
    movies[["movie_id", "genres"]].to_csv(tmp_path / "movies.csv", index=False)
    result = run(*command, tmp_path / "csv", "--items", tmp_path / "movies.csv", "--dtype", "float16")
    assert result.returncode == 0, result.stderr
    assert heads_file(ItemIndex(tmp_path / "csv")) == heads_file(ItemIndex(tmp_path / "index"))
    # Genres in another form, and movies of other data: nothing that anybody would notice by their heads.
    assert "served as unknown" not in result.stdout
    others = movies[["movie_id", "genres"]].assign(movie_id=movies["movie_id"] + 10_000)
    others["genres"] = ["Drama, War", *others["genres"].iloc[1:-1], ""]
    others.to_csv(tmp_path / "others.csv", index=False)
    result = run(*command, tmp_path / "others", "--items", tmp_path / "others.csv")
    of = len(movies)
    told = f"served as unknown, since training never saw what stands there: movie_id of {of} items, genres of 1 items\n"
    assert f"{told}none of these items was in training: are --data and --items those of {folder}?" in result.stdout
    assert_refused(run(*command, tmp_path / "x", "--items", tmp_path / "none.csv"), "none.csv: No such file")
    assert_refused(
        run("-m", "serving.build_index", "--run", tmp_path / "none"), "expected the folder of a training run"
    )
    record = json.loads((folder / "record.json").read_text())
    assert record["model"] == "IntTower"
    assert np.isfinite(record["test"]["auc"])


def assert_ranked_as_encoded(index: ItemIndex, served: TrainedRun, users: pd.DataFrame, items: pd.DataFrame) -> None:
    """The index ranks items for users as scores of all of them, encoded here, do."""
    user_heads = served.encode_users(users)
    expected = maxsim(user_heads, served.encode_items(items)) + served.heads.bias
    np.testing.assert_allclose(index.score(user_heads, items[served.item_id]), expected, rtol=1e-4, atol=1e-5)
    for best, scores in zip(index.top_k(user_heads, 5), expected, strict=True):
        np.testing.assert_allclose(best.scores, np.sort(scores)[::-1][:5], rtol=1e-4, atol=1e-5)


def test_amazons_items_are_served_by_their_asin(tmp_path):
    data = write_amazon_sample(tmp_path / "data", num_rows=500)
    folder = trained(tmp_path / "run", data, script=train_amazon_IntTower, cache=False)
    result = run("-m", "serving.build_index", "--run", folder, "--data", data)
    assert result.returncode == 0, result.stderr
    served, raw = load_run(folder), read_amazon(*locate_amazon(str(data)))
    index = ItemIndex(folder / "index", served.checkpoint)
    assert sorted(index.ids) == sorted(raw.items["asin"])
    assert_ranked_as_encoded(index, served, raw.users[:3], raw.items)


def test_alibabas_ads_are_served_with_the_place_that_they_are_shown_in(tmp_path):
    data = write_alibaba_sample(tmp_path / "data", num_rows=2000)
    folder = trained(tmp_path / "run", data, script=train_alibaba_IntTower, cache=False)
    command = ["-m", "serving.build_index", "--run", folder, "--data", data]
    assert_refused(run(*command), "items: expected a column 'pid', got ['adgroup_id', ", "; --set pid=VALUE adds one.")
    result = run(*command, "--set", "pid=430548_1007")
    assert result.returncode == 0, result.stderr
    served, raw = load_run(folder), read_alibaba(alibaba_files(str(data)))
    index = ItemIndex(folder / "index", served.checkpoint)
    assert index.ids.tolist() == sorted(raw.items["adgroup_id"])
    assert_ranked_as_encoded(index, served, raw.users[:3], raw.items.assign(pid="430548_1007"))


def test_kuairands_videos_are_served_with_the_page_that_they_are_shown_on(tmp_path):
    data = write_kuairand_sample(tmp_path / "data", num_rows=1000)
    folder = trained(tmp_path / "run", data, script=train_kuairand_IntTower, cache=False)
    result = run("-m", "serving.build_index", "--run", folder, "--data", data, "--set", "tab=1")
    assert result.returncode == 0, result.stderr
    served, raw = load_run(folder), read_kuairand(data)
    index = ItemIndex(folder / "index", served.checkpoint)
    assert index.ids.tolist() == sorted(raw.items["video_id"])
    assert_ranked_as_encoded(index, served, raw.users[:3], raw.items.assign(tab=1))
