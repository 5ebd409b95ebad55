"""Data beyond memory: a build with its rows in files gives the same tables, holds few rows, and leaves nothing."""

import itertools
import json
import math
import os
import signal
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from shell import limited_file_size
from tables import refusal
from test_cache import Forked, assert_same_data, kill_this_process, names
from test_protocols import pairs_of

import preprocessing.alibaba
import preprocessing.choices
import preprocessing.files
import preprocessing.space
import train_alibaba_IntTower
from preprocessing.alibaba import load_alibaba
from preprocessing.alibaba import read_alibaba as read
from preprocessing.choices import GIB, LEAST_MEMORY, PROTOCOLS, check_memory
from preprocessing.errors import UserError
from preprocessing.pairs import Twins, find_twins
from preprocessing.parquet_tables import read_blocks
from preprocessing.protocols import count_repeated_test_rows, split_of_rows, split_rows
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sources import RAW_SAMPLE
from preprocessing.space import BYTES_PER_ROW, Column, OnDisk, blocks, cut
from preprocessing.text_tables import Numbered

NUM_ROWS = 3000


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    """Blocks of a hundred rows, raw files read some lines at a time, and a bound that Python takes no part of."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(preprocessing.space, "BLOCK_ROWS", 100)
    for module in (preprocessing.space, preprocessing.choices):
        monkeypatch.setattr(module, "LEAST_MEMORY", 0.0)
    monkeypatch.setattr(preprocessing.alibaba, "read_blocks", partial(read_blocks, block_bytes=3000))


def little_memory(num_rows: int = NUM_ROWS) -> float:
    """In GiB, what so many rows need at least."""
    return num_rows * BYTES_PER_ROW / GIB


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """3,000 invented rows, of which some users and ads are in no table."""
    return write_alibaba_sample(tmp_path_factory.mktemp("data") / "alibaba", num_rows=NUM_ROWS)


@pytest.fixture(scope="module")
def with_twins(sample, tmp_path_factory) -> Path:
    """The same rows without their probabilities, each tenth again at once and each thirtieth at the end, too."""
    folder = tmp_path_factory.mktemp("twins") / "alibaba"
    folder.mkdir()
    for name in ("ad_feature.csv", "user_profile.csv"):
        (folder / name).write_bytes((sample / name).read_bytes())
    header, *lines = (sample / RAW_SAMPLE).read_text().splitlines()
    repeated = [line for row, line in enumerate(lines) for line in [line] * (1 + (row % 10 == 0))]
    (folder / RAW_SAMPLE).write_text("\n".join([header, *repeated, *lines[::30]]))
    return folder


# --- the same tables


@pytest.mark.parametrize(("protocol", "sample_rate"), [*itertools.product(PROTOCOLS, (1.0, 0.4))])
def test_a_build_that_keeps_its_rows_in_files_gives_the_same_bit_for_bit(
    protocol, sample_rate, sample, tmp_path, small_blocks
):
    in_memory = load_alibaba(sample, protocol, sample_rate=sample_rate)
    streamed = load_alibaba(sample, protocol, sample_rate=sample_rate, cache=tmp_path, memory=little_memory())
    assert_same_data(streamed, in_memory)
    assert streamed.checksum() == in_memory.checksum()
    assert streamed.counts["userids_not_in_user_profile.csv"] > 0
    (folder,) = tmp_path.glob("alibaba-*")
    assert not (folder / "scratch").exists()
    assert sorted(names(tmp_path)) == [f".{folder.name}.lock", folder.name]


@pytest.mark.parametrize("protocol", ["strict", "temporal"])
def test_rows_that_repeat_others_go_to_the_same_splits_in_files(protocol, with_twins, tmp_path, small_blocks):
    in_memory = load_alibaba(with_twins, protocol)
    assert in_memory.counts["rows_that_repeat_another"] == 400
    assert_same_data(load_alibaba(with_twins, protocol, cache=tmp_path, memory=little_memory(3400)), in_memory)


def test_what_was_built_in_files_is_read_by_a_run_without_a_bound_and_the_other_way(sample, tmp_path, small_blocks):
    built = load_alibaba(sample, cache=tmp_path, memory=little_memory())
    (folder,) = tmp_path.glob("alibaba-*")
    changed = folder.stat().st_mtime_ns
    for memory in (None, little_memory()):
        assert_same_data(load_alibaba(sample, cache=tmp_path, memory=memory), built)
    assert folder.stat().st_mtime_ns == changed


def test_a_random_order_of_32_bits_is_numpys_own_of_64():
    order = np.random.default_rng(7).permutation(100_001)
    splits = split_rows("strict", np.zeros(100_001), 7)
    assert np.concatenate([splits.train, splits.valid, splits.test]).tolist() == order.tolist()
    assert splits.train.dtype == np.int32


def test_repeated_rows_follow_the_first_of_them_in_the_order_of_the_groups(small_blocks, tmp_path):
    rng = np.random.default_rng(3)
    users, items, times = (rng.integers(0, size, 1000) for size in (9, 8, 7))
    pairs = pairs_of(users, items)
    space = OnDisk(tmp_path, 1000 * BYTES_PER_ROW)
    twins, parted = find_twins(pairs, times), find_twins(pairs, times, space)
    assert space.num_parts(1000, 40) > 5
    assert (parted.rows.tolist(), parted.first.tolist()) == (twins.rows.tolist(), twins.first.tolist())
    groups = twins.groups(1000)
    order = rng.permutation(groups.max() + 1)
    rows, cuts = twins.spread(order.astype(np.int32), [100, 300], space)
    wanted = [np.flatnonzero(groups == group) for group in order]
    assert rows[:].tolist() == np.concatenate(wanted).tolist()
    assert cuts == [sum(map(len, wanted[:100])), sum(map(len, wanted[:300]))]
    splits = split_rows("strict", times, 1, pairs, Twins(*np.zeros((2, 0), dtype=np.int64)), space)
    labels, split_of_row = rng.integers(0, 2, 1000), split_of_rows(splits, 1000)
    counts = [count_repeated_test_rows(pairs, labels, split_of_row, each) for each in (None, space)]
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("num_times", [2, 50, 10**6])
def test_rows_are_put_in_the_order_of_time_in_parts(num_times, small_blocks, tmp_path):
    times = np.random.default_rng(0).integers(0, num_times, 1000)
    splits = [split_rows("temporal", times, 1, space=space) for space in (None, OnDisk(tmp_path, 1000 * BYTES_PER_ROW))]
    for name, rows in vars(splits[0]).items():
        assert getattr(splits[1], name)[:].tolist() == rows.tolist()
    assert isinstance(splits[1].train, Column)


def test_ids_are_numbered_as_they_first_come_whatever_the_blocks():
    ids, numbered = np.array([7, 3, 7, 9, 3, 3, 1]), Numbered()
    assert [numbered.places(part).tolist() for part in (ids[:3], ids[3:3], ids[3:])] == [[0, 1, 0], [], [2, 1, 1, 3]]
    assert (numbered.ids.tolist(), numbered.num_rows.tolist()) == ([7, 3, 9, 1], [2, 3, 1, 1])


def test_a_column_in_a_file_reads_like_an_array(tmp_path, small_blocks):
    values, column = np.arange(250, dtype=np.int32) ** 2, OnDisk(tmp_path, 0).column()
    for block in blocks(250):
        column.append(values[block])
    column = column.finish()
    assert (len(column), column.dtype) == (250, np.int32)
    for rows in (slice(None), slice(30, 140), slice(240, 999), slice(5, 5), np.array([9, 3, 249]), 7):
        np.testing.assert_array_equal(column[rows], values[rows])
    first, rest = cut(column, [100])
    np.testing.assert_array_equal(first[:], values[:100])
    np.testing.assert_array_equal(rest[90:110], values[190:210])
    column[10:12] = np.array([-1, -2])
    assert column[9:13].tolist() == [81, -1, -2, 144]


def test_the_scripts_flag_reaches_the_build_and_stands_in_no_record(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(train_alibaba_IntTower, "CACHE_FOLDER", tmp_path / "cache")
    places = []
    monkeypatch.setattr(preprocessing.alibaba, "read_alibaba", lambda *given: places.append(given[-1]) or read(*given))
    settings = train_alibaba_IntTower.Settings(
        data=str(sample), epochs=1, hidden_units=[16, 8], device="cpu", memory=1.5, output=str(tmp_path / "run")
    )
    settings.check()
    train_alibaba_IntTower.main(settings)
    assert [place.num_bytes for place in places] == [1.5 * GIB]
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert "memory" not in record["settings"]
    assert record["fingerprint"] == load_alibaba(sample).fingerprint


# --- how much is held


def peak_of_build(folder: Path, cache: Path, memory: float | None) -> int:
    """The most bytes that Python and numpy had allocated at once."""
    tracemalloc.start()
    try:
        load_alibaba(folder, cache=cache, memory=memory)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_rows_that_are_held_at_once_are_bounded(tmp_path, small_blocks, monkeypatch):
    sizes = (20_000, 60_000)
    folders = [write_alibaba_sample(tmp_path / str(size), size, num_users=300, num_ads=200) for size in sizes]
    monkeypatch.setattr(preprocessing.alibaba, "read_blocks", partial(read_blocks, block_bytes=20_000))
    monkeypatch.setattr(preprocessing.space, "BLOCK_ROWS", 1000)
    monkeypatch.setattr(preprocessing.files, "CHUNK", 4096)  # of a file whose checksum is taken
    bytes_per_row = []
    for memory in (None, little_memory(sizes[1])):
        peaks = [peak_of_build(folder, tmp_path / f"{memory}", memory) for folder in folders]
        bytes_per_row.append((peaks[1] - peaks[0]) / (sizes[1] - sizes[0]))
    in_memory, bounded = bytes_per_row
    assert in_memory > 40
    assert bounded < 1.2 * BYTES_PER_ROW


# --- what is refused


@pytest.mark.parametrize("memory", [0, -1, 0.99, math.nan])
def test_too_little_memory_for_any_rows_is_refused(memory, sample, tmp_path):
    message = refusal(load_alibaba, sample, cache=tmp_path, memory=memory)
    assert message == f"--memory: expected at least 1 (GiB), got {memory:g}."
    assert names(tmp_path) == []


def test_too_little_memory_for_the_rows_is_refused_with_what_would_do(sample, tmp_path, small_blocks):
    message = refusal(load_alibaba, sample, cache=tmp_path, memory=0.9 * little_memory())
    assert message.startswith("--memory: expected at least 0.1 GiB for 3,000 rows, got 1.25729e-05; give as much")
    assert [name for name in names(tmp_path) if not name.endswith(".lock")] == []
    with pytest.raises(UserError, match=r"at least 1\.3 GiB for 265,579,610 rows, got 1;"):
        OnDisk(tmp_path, GIB).check(265_579_610)


def test_statistics_of_labels_and_no_cache_are_refused_beside_a_bound(sample):
    message = refusal(load_alibaba, sample, statistics="residuals", cache="nowhere", memory=2)
    assert message == "--memory: expected --statistics means beside it, got residuals, made in memory; leave out one."
    message = refusal(load_alibaba, sample, memory=2)
    assert message == "--memory: expected the cache, whose files hold the tables, got --no-cache; leave out one."
    check_memory(LEAST_MEMORY)


# --- builds that stop


def interrupted(*arguments) -> None:
    raise KeyboardInterrupt


WHERE = ["alibaba.table_of", "interactions.find_twins", "interactions.Lookup", "cache._save", "cache.file_checksum"]


@pytest.mark.parametrize("where", WHERE)
def test_a_build_that_is_stopped_leaves_neither_scratch_nor_half_a_cache(
    where, sample, tmp_path, small_blocks, monkeypatch
):
    build = partial(load_alibaba, sample, cache=tmp_path, memory=little_memory())
    with monkeypatch.context() as patch:
        patch.setattr(f"preprocessing.{where}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build()
    (lock,) = names(tmp_path)
    assert lock.endswith(".lock")
    assert len(build().train) == 2160


def test_what_a_killed_build_leaves_is_removed_by_the_next(sample, tmp_path, small_blocks, monkeypatch):
    cache = tmp_path / "cache"

    def work() -> None:
        monkeypatch.setattr("preprocessing.interactions.split_rows", lambda *arguments: kill_this_process())
        load_alibaba(sample, cache=cache, memory=little_memory())

    assert Forked(tmp_path / "printed", work).wait() == -signal.SIGKILL
    assert len(list(cache.glob(".*building*/scratch/*.npy"))) >= 6
    load_alibaba(sample, cache=cache)
    assert not list(cache.glob(".*building*"))


def test_a_disk_that_is_full_is_told_in_one_line_and_nothing_is_left(sample, tmp_path, small_blocks):
    with limited_file_size(4000):
        message = refusal(load_alibaba, sample, cache=tmp_path, memory=little_memory())
    assert message.endswith("rows could not be kept (File too large); free some space, or leave out --memory.")
    assert [name for name in names(tmp_path) if not name.endswith(".lock")] == []
