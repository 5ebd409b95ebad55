"""Building an index of a run: in batches, from where it stopped, from the shell."""

import json

import numpy as np
import pandas as pd
import pytest
from served import trained
from shell import assert_refused, run

import serving.build_index
import train_alibaba_IntTower
import train_amazon_IntTower
from preprocessing.alibaba import read_alibaba
from preprocessing.amazon import locate_amazon, read_amazon
from preprocessing.errors import UserError
from preprocessing.movielens import read_movielens
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sources import alibaba_files
from serving.build_index import build_index
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
        (lambda movies: movies.assign(movie_id="seven"), "expected whole numbers as movie_id, got 'seven'"),
    ],
)
def test_items_that_do_not_fit_are_refused(folder, movies, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        build_index(load_run(folder), change(movies), tmp_path)


def test_no_items_make_an_empty_index(folder, movies, tmp_path):
    assert len(build_index(load_run(folder), movies[:0], tmp_path)) == 0


def test_the_command_builds_an_index_of_the_datasets_items_or_of_a_csv(folder, movies, sample_folder, tmp_path):
    command = ["-m", "serving.build_index", "--run", folder, "--output"]
    result = run(*command, tmp_path / "index", "--data", sample_folder, "--dtype", "float16")
    assert result.returncode == 0, result.stderr
    assert f"{len(movies):,} items, 4 x 16 heads of float16, 128 bytes each" in result.stdout
    movies[["movie_id", "genres"]].to_csv(tmp_path / "movies.csv", index=False)
    result = run(*command, tmp_path / "csv", "--items", tmp_path / "movies.csv", "--dtype", "float16")
    assert result.returncode == 0, result.stderr
    assert heads_file(ItemIndex(tmp_path / "csv")) == heads_file(ItemIndex(tmp_path / "index"))
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
    assert_refused(run(*command), "encode: expected a column 'pid'")
    result = run(*command, "--set", "pid=430548_1007")
    assert result.returncode == 0, result.stderr
    served, raw = load_run(folder), read_alibaba(alibaba_files(str(data)))
    index = ItemIndex(folder / "index", served.checkpoint)
    assert index.ids.tolist() == sorted(raw.items["adgroup_id"])
    assert_ranked_as_encoded(index, served, raw.users[:3], raw.items.assign(pid="430548_1007"))
