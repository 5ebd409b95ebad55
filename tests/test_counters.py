"""User counters: what a server counts is what the protocol `online` says, row by row, and is kept over a restart."""

import threading

import numpy as np
import pandas as pd
import pytest
from served import trained
from tables import refusal

import serving.counters
from preprocessing.encode import SparseField, TowerEncoder
from preprocessing.interactions import Interactions, encode_interactions
from preprocessing.movielens import load_movielens, read_movielens
from preprocessing.statistics import with_statistics
from serving.build_index import build_index
from serving.counters import UserCounters
from serving.export import export
from serving.exported import ExportedRun
from serving.trained_run import load_run


@pytest.fixture(scope="module")
def raw(sample_folder):
    return read_movielens(sample_folder)


@pytest.fixture(scope="module")
def folder(sample_folder, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"), sample_folder, protocol="online", statistics="crossed")


@pytest.fixture
def counters(folder, raw):
    run = load_run(folder)
    return UserCounters(run.user_encoder, run.item_encoder, raw.movies)


def log_of(raw, table) -> pd.DataFrame:
    """The rows of a table as they come in time, each with its place in the table."""
    log = raw.ratings.iloc[table.rows].assign(label=table.labels.numpy(), place=np.arange(len(table)))
    return log.sort_values("timestamp", kind="stable").merge(raw.users, on="user_id", how="left")


@pytest.mark.parametrize("statistics", ["means", "residuals", "crossed"])
@pytest.mark.parametrize("delay", [0.0, 1e6])
def test_counted_as_they_come_the_labels_of_test_give_every_test_row_the_features_that_its_table_has(
    sample_folder, raw, statistics, delay
):
    data = load_movielens(sample_folder, "online", statistics=statistics, label_delay=delay)
    counters = UserCounters(data.user_encoder, data.item_encoder, raw.movies)
    log = log_of(raw, data.test)
    waiting, begin = log, log["timestamp"].iloc[0]
    num_compared = 0
    for time, now in log.groupby("timestamp"):
        arrived = (
            waiting["timestamp"].to_numpy() < time if not delay else waiting["timestamp"].to_numpy() <= time - delay
        )
        known, waiting = waiting[arrived], waiting[~arrived]
        counters.update(known["user_id"], known["movie_id"], known["label"])
        if time < begin + delay:
            continue  # some labels of train and valid have not arrived yet; these counters begin with all of them
        for name, values in counters.features(now["user_id"]).items():
            assert np.array_equal(values, data.test.features[name].numpy()[now["place"]]), (time, name)
            num_compared += len(values)
    assert num_compared > 0.5 * len(log)


def test_a_replayed_stretch_of_the_log_is_served_with_the_scores_of_the_evaluation(
    folder, raw, counters, sample_folder, tmp_path
):
    run = load_run(folder)
    index = build_index(run, raw.movies, tmp_path / "index")
    generation = index.generation
    data = load_movielens(sample_folder, "online", statistics="crossed")
    logits = np.load(folder / "test_logits.npy")
    for _, now in log_of(raw, data.test).iloc[:150].groupby("timestamp"):
        heads = run.encode_users(now, counters.features(now["user_id"]))
        for row, movie, place in zip(range(len(now)), now["movie_id"], now["place"], strict=True):
            score = index.score(heads[row : row + 1], [movie])[0]
            assert score == pytest.approx(logits[place], abs=1e-4)
        counters.update(now["user_id"], now["movie_id"], now["label"])
    assert index.generation == generation


def test_an_exported_run_takes_the_same_statistics(folder, raw, counters, tmp_path):
    pytest.importorskip("onnxruntime")
    run = load_run(folder)
    exported = ExportedRun(export(run, tmp_path / "onnx"))
    counters.update([1, 2, 2], [3, 4, 5], [1, 0, 1])
    users = raw.users[:3]
    statistics = counters.features(users["user_id"])
    heads = exported.encode_users(users, statistics)
    np.testing.assert_allclose(heads, run.encode_users(users, statistics), atol=1e-4)
    assert not np.allclose(heads, exported.encode_users(users), atol=1e-4)
    for row, of_user in zip(users.to_dict("records"), heads, strict=True):
        of_one = counters.features([row["user_id"]])
        np.testing.assert_allclose(exported.encode_user(row, of_one), of_user, atol=1e-6)
        np.testing.assert_allclose(run.encode_user(row, of_one), of_user, atol=1e-4)


def test_an_action_moves_its_user_alone_and_a_new_user_begins_with_nothing(counters):
    first, others = counters.features([1, 2, 10**6]), counters.features([2, 3])
    assert first["user_residual"][2] == first["user_count"][2] == 0
    assert not first["user_residual_by_genres"][2].any()
    counters.update([1, 10**6, 10**6], [5, 5, 10**7], [1, 1, 0])
    after = counters.features([1, 2, 10**6])
    assert after["user_count"][0] > first["user_count"][0]
    assert after["user_count"][2] * counters.fields[2].scaler.maximum == pytest.approx(np.log(3))
    assert after["user_residual_by_genres"][2].any()
    for name, values in counters.features([2, 3]).items():
        assert np.array_equal(values, others[name])


def test_saved_and_restored_they_count_on(counters, folder, raw, tmp_path):
    counters.update([1, 7_000_000], [2, 3], [0, 1])
    counters.save(tmp_path / "counters.npz")
    saved = counters.features([1, 2, 7_000_000])
    counters.update([1, 2, 8_000_000], [2, 3, 4], [1, 1, 1])
    restored = UserCounters(load_run(folder).user_encoder, load_run(folder).item_encoder, raw.movies)
    restored.restore(tmp_path / "counters.npz")
    for name, values in restored.features([1, 2, 7_000_000]).items():
        assert np.array_equal(values, saved[name])
    restored.update([1, 2, 8_000_000], [2, 3, 4], [1, 1, 1])
    for name, values in restored.features([1, 2, 7_000_000, 8_000_000]).items():
        assert np.array_equal(values, counters.features([1, 2, 7_000_000, 8_000_000])[name])
    assert len(restored) == len(counters)


def test_users_of_text_are_saved_by_their_bytes_however_long_one_id_is(tmp_path):
    users = pd.DataFrame({"user": ["a", "bé", "c\0", "d"]})
    items = pd.DataFrame({"item": [1, 2, 3]})
    raw = Interactions(
        "shop", users, items, np.arange(40) % 4, np.arange(40) % 3, np.arange(40) // 2 % 2, np.arange(40), np.arange(40)
    )
    fields = with_statistics("online", "residuals", {"user": SparseField}, {"item": SparseField})
    data = encode_interactions(raw, *fields, "online", 0, 4, "")
    counters, restored = (UserCounters(data.user_encoder, data.item_encoder, items) for _ in range(2))
    counters.update(["c\0", "new" * 100_000, "\ud800"], [1, 2, 3], [1, 0, 1])
    counters.save(tmp_path / "counters.npz")
    assert (tmp_path / "counters.npz").stat().st_size < 400_000
    restored.restore(tmp_path / "counters.npz")
    assert len(restored) == len(counters) == 6
    for user in ("a", "bé", "c", "c\0", "new" * 100_000, "\ud800"):
        for name, values in restored.features([user]).items():
            assert np.array_equal(values, counters.features([user])[name])
    with np.load(tmp_path / "counters.npz") as file:
        arrays = dict(file)
    names = np.array(["a", "bé", "c", "d", "e", "f"])  # as older versions saved them
    np.savez(tmp_path / "older.npz", keys=names, **{n: a for n, a in arrays.items() if n not in ("text", "ends")})
    restored.restore(tmp_path / "older.npz")
    assert restored.features(["f"])["user_count"] == counters.features(["\ud800"])["user_count"]


def test_an_older_copy_does_not_take_the_place_of_a_newer_one(counters, tmp_path, monkeypatch):
    write, begun, newer = serving.counters.write_atomically, threading.Event(), []

    def slow(path, content):
        if not begun.is_set():
            begun.set()
            newer[0].join(0.3)
        write(path, content)

    monkeypatch.setattr(serving.counters, "write_atomically", slow)

    def update_and_save():
        begun.wait()
        counters.update([9_000_000], [2], [1])
        counters.save(tmp_path / "counters.npz")

    newer.append(threading.Thread(target=update_and_save))
    newer[0].start()
    counters.save(tmp_path / "counters.npz")
    newer[0].join()
    expected = counters.features([9_000_000])
    counters.restore(tmp_path / "counters.npz")
    for name, values in counters.features([9_000_000]).items():
        assert np.array_equal(values, expected[name])


def test_thousands_of_new_users_fit_in_and_threads_lose_no_action(counters):
    before = len(counters)

    def act(first):
        for user in range(first, first + 1500):
            counters.update([user, 999_999], [1, 1], [1, 0])

    threads = [threading.Thread(target=act, args=(1_000_000 * n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counters) == before + 3001
    count = counters.fields[2]
    assert count.measure == "count"
    counted = counters.features([999_999, 1_000_000, 2_001_499])[count.name][:, 0] * count.scaler.maximum
    np.testing.assert_allclose(counted, np.log1p([3000, 1, 1]), rtol=1e-6)


@pytest.mark.parametrize(
    "form", [pd.Index, pd.Series, np.array, tuple, lambda ids: pd.array(ids, dtype="Int64"), pd.Categorical]
)
def test_users_and_items_are_taken_in_whatever_holds_them(form, counters, folder, raw):
    others = UserCounters(load_run(folder).user_encoder, load_run(folder).item_encoder, raw.movies)
    counters.update([1, 2], [3, 4], [1, 0])
    others.update(form([1, 2]), form([3, 4]), pd.Series([1, 0]))
    for name, values in counters.features(range(1, 3)).items():
        assert np.array_equal(values, others.features(form([1, 2]))[name])


def test_counters_of_no_items_count_actions_as_on_unknown_ones(folder, raw):
    run = load_run(folder)
    counters = UserCounters(run.user_encoder, run.item_encoder, raw.movies.iloc[:0])
    counters.update([999], [1], [1])
    assert len(counters.features([999])) == len(counters.fields)


def test_what_cannot_be_counted_is_refused_in_a_line_and_nothing_is_counted(
    counters, folder, raw, sample_folder, tmp_path
):
    before = counters.features([1])
    refusal(counters.update, [1, 2], [1], [1], fragments=("as many users as items and labels, got 2, 1 and 1",))
    refusal(counters.update, [1, 2], [1, 1], [1, 3], fragments=("expected labels 0 and 1, got 3",))
    refusal(counters.update, [1, None], [1, 1], [1, 1], fragments=("expected an id for each user, got none in row 1",))
    refusal(counters.update, [1], [1], ["x"], fragments=("expected labels 0 and 1, got others",))
    refusal(counters.update, np.array([[1]]), [1], [1], fragments=("expected users in one dimension",))
    refusal(counters.update, [1], [[1]], [1], fragments=("expected items in one dimension",))
    for name, values in counters.features([1]).items():
        assert np.array_equal(values, before[name])
    run = load_run(folder)
    refusal(UserCounters, run.user_encoder, run.item_encoder, [{"movie_id": 1}], fragments=("a DataFrame, got list",))
    refusal(UserCounters, run.user_encoder, run.item_encoder, raw.movies[["movie_id"]], fragments=("column 'genres'",))
    twice = pd.concat([raw.movies, raw.movies.iloc[:1]])
    refusal(
        UserCounters, run.user_encoder, run.item_encoder, twice, fragments=("each item once, got movie_id 1 twice",)
    )
    frozen = load_movielens(sample_folder, "temporal")
    refusal(UserCounters, frozen.user_encoder, frozen.item_encoder, raw.movies, fragments=("--protocol online",))
    (tmp_path / "no.npz").write_bytes(b"no")
    refusal(counters.restore, tmp_path / "no.npz", fragments=("no.npz: expected user counters",))
    np.save(tmp_path / "array.npy", np.arange(3))
    refusal(counters.restore, tmp_path / "array.npy", fragments=("array.npy: expected user counters",))
    without = TowerEncoder([field for field in run.item_encoder.fields if getattr(field, "measure", "") != "mean"])
    refusal(UserCounters, run.user_encoder, without, raw.movies, fragments=("expected the mean of each item",))
    other = load_movielens(sample_folder, "online", statistics="residuals")
    others = UserCounters(other.user_encoder, other.item_encoder, raw.movies)
    others.save(tmp_path / "others.npz")
    refusal(counters.restore, tmp_path / "others.npz", fragments=("others.npz: expected",))
    counters.save(tmp_path / "own.npz")
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "own.npz").write_bytes(content)
    refusal(counters.restore, tmp_path / "own.npz", fragments=("own.npz: expected user counters",))
