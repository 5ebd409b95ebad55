"""The cache of encoded tables: the same data as without it, never half of it, never another's."""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import PROJECT, environment, run_in_process
from tables import SPLITS
from test_interactions import ITEM_FIELDS_WITH_MEAN, USER_FIELDS_WITH_MEAN, encoded_by_hand

import train_alibaba_IntTower
from experiment.command import read_settings, run_script
from preprocessing import alibaba, cache, files
from preprocessing.alibaba import load_alibaba
from preprocessing.cache import MANIFEST, cached, sha256_of_files
from preprocessing.choices import PROTOCOLS
from preprocessing.encode import encoders_as_json
from preprocessing.errors import UserError
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.tables import Dataset, Lookup, Table
from training.trainer import Trainer

FINGERPRINT = "0123456789abcdef" * 4
NAME = "ads-0123456789ab"


@functools.cache
def by_hand(protocol: str = "strict", with_means: bool = True, **changes) -> Dataset:
    """The twenty rows of tests/test_interactions.py: features looked up and by row, integers, text and numbers."""
    fields = (USER_FIELDS_WITH_MEAN, ITEM_FIELDS_WITH_MEAN) if with_means else ()
    data = encoded_by_hand(protocol, *fields, **changes)
    return dataclasses.replace(data, fingerprint=FINGERPRINT, embedding_dim=32)


def with_train(**changes) -> Dataset:
    return dataclasses.replace(by_hand(), train=dataclasses.replace(by_hand().train, **changes))


class Build:
    """Gives a dataset and counts how often it was asked to."""

    def __init__(self, make: Callable[[], Dataset] = by_hand):
        self.make, self.calls = make, 0

    def __call__(self) -> Dataset:
        self.calls += 1
        return self.make()


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no power is cut here, and waits for the disk add up


@pytest.fixture
def place(tmp_path) -> Path:
    """A whole cache of the twenty rows."""
    cached(tmp_path, "ads", FINGERPRINT, by_hand)
    return tmp_path / NAME


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def arrays_of(table: Table) -> dict[str, np.ndarray]:
    """All arrays of a table by name, a Lookup's two apart."""
    arrays = {"labels": table.labels.numpy(), "groups": table.groups, "rows": table.rows}
    for name, feature in table.features.items():
        if isinstance(feature, Lookup):
            arrays |= {f"{name} values": feature.values.numpy(), f"{name} index": feature.index.numpy()}
        else:
            arrays[name] = feature.numpy()
    return arrays


def assert_equal_bits(ours: np.ndarray, theirs: np.ndarray, name: str = "") -> None:
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
    assert ours.tobytes() == theirs.tobytes(), name


def assert_same_data(ours: Dataset, theirs: Dataset) -> None:
    """All that a dataset says, bit for bit, but where it came from and how long it took."""
    for split in SPLITS:
        mine, other = arrays_of(getattr(ours, split)), arrays_of(getattr(theirs, split))
        assert list(mine) == list(other)
        for name in mine:
            assert_equal_bits(mine[name], other[name], f"{split} {name}")
    for name in ("name", "protocol", "labels_leak", "fingerprint", "counts", "user_columns", "item_columns"):
        assert getattr(ours, name) == getattr(theirs, name), name
    encoders, others = (encoders_as_json(data.user_encoder, data.item_encoder) for data in (ours, theirs))
    assert encoders == others
    for name in ("probabilities", "earlier"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None), name
        if mine is not None:
            assert_equal_bits(mine, other)


def assert_built_anew(folder: Path, capfd, reason: str = "") -> None:
    """One line says why and that it builds; the data are right; the next call builds nothing and says nothing."""
    capfd.readouterr()
    build = Build()
    assert_same_data(cached(folder, "ads", FINGERPRINT, build), by_hand())
    printed = capfd.readouterr()
    assert build.calls == 1
    assert printed.out.count("\n") == 1
    assert printed.out.startswith(f"cache {folder / NAME}: ")
    assert printed.out.endswith("; building it anew.\n")
    assert reason in printed.out
    assert_whole_and_used(folder, capfd)
    assert printed.err == ""


def assert_whole_and_used(folder: Path, capfd) -> None:
    build = Build()
    assert_same_data(cached(folder, "ads", FINGERPRINT, build), by_hand())
    assert build.calls == 0
    assert tuple(capfd.readouterr()) == ("", "")
    assert names(folder) == [f".{NAME}.lock", NAME]


class Forked:
    """Work in a process of its own, with what it printed; a fork, since importing torch takes seconds."""

    def __init__(self, output: Path, work: Callable[[], object]):
        self.output = output
        self.process = os.fork()
        if self.process == 0:
            code = 1
            with open(output, "w") as file, contextlib.redirect_stdout(file):
                try:
                    work()
                    code = 0
                except UserError as error:
                    print(f"UserError {error}")
                except BaseException:
                    traceback.print_exc(file=file)
                file.flush()
                os._exit(code)

    def wait(self) -> int:
        _, status = os.waitpid(self.process, 0)
        return os.waitstatus_to_exitcode(status)

    def printed(self) -> str:
        return self.output.read_text() if self.output.exists() else ""


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- what is kept and read


@pytest.mark.parametrize(
    ("protocol", "with_means", "changes"),
    [("strict", False, {}), ("paper", True, {}), ("temporal", True, {"probabilities": None})],
)
def test_the_second_call_builds_nothing_and_gives_the_same_data_bit_for_bit(
    protocol, with_means, changes, tmp_path, capfd
):
    build = Build(lambda: by_hand(protocol, with_means, **changes))
    first = cached(tmp_path / "data" / "cache", "ads", FINGERPRINT, build)
    second = cached(str(tmp_path / "data" / "cache"), "ads", FINGERPRINT, build)
    assert build.calls == 1
    for data in (first, second):
        assert_same_data(data, by_hand(protocol, with_means, **changes))
    assert second.labels_leak is (protocol == "paper")
    assert tuple(capfd.readouterr()) == ("", "")
    assert names(tmp_path / "data" / "cache") == [f".{NAME}.lock", NAME]


def test_without_a_folder_everything_is_built_and_nothing_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build = Build()
    for calls in (1, 2):
        assert_same_data(cached(None, "ads", FINGERPRINT, build), by_hand())
        assert build.calls == calls
    assert names(tmp_path) == []


def files_behind(data: Dataset, folder: Path) -> dict[str, set[str]]:
    """Which arrays stand in which file: those that a change of one byte on the disk changes."""
    arrays = {f"{split} {name}": array for split in SPLITS for name, array in arrays_of(getattr(data, split)).items()}
    arrays["probabilities"] = data.probabilities
    behind = {}
    for path in sorted(folder.glob("*.npy")):
        before = {name: array.tobytes() for name, array in arrays.items()}
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))
        behind[path.name] = {name for name, array in arrays.items() if array.tobytes() != before[name]}
    return behind


@pytest.mark.parametrize("call", ["the one that builds", "the next one"])
def test_every_array_is_a_view_of_a_file_and_what_tables_share_is_stored_once(call, tmp_path):
    place = tmp_path / NAME
    data = cached(tmp_path, "ads", FINGERPRINT, by_hand)
    if call == "the next one":
        data = cached(tmp_path, "ads", FINGERPRINT, None)
    behind = files_behind(data, place)
    shared = ("user", "age_level", "ad", "brand", "tags", "price", "price_missing")
    expected = [{f"{split} {name} values" for split in SPLITS} for name in shared]
    for split in SPLITS:
        expected += [{f"{split} {name}"} for name in ("labels", "rows", "pid", "user_mean", "ad_mean")]
        expected.append({f"{split} groups", f"{split} user index", f"{split} age_level index"})
        expected.append({f"{split} {name} index" for name in shared[2:]})
    expected.append({"probabilities"})
    assert sorted(map(sorted, behind.values())) == sorted(map(sorted, expected))
    assert names(place) == sorted([*behind, "encoders.json", "manifest.json"])
    # And it is one tensor, too:
    assert data.train.features["user"].index is data.train.features["age_level"].index
    assert data.train.features["user"].values is data.test.features["user"].values


NUMBERS = np.arange(14 * 6, dtype=np.int32)
COLUMNS = NUMBERS.reshape(6, 14).T


@pytest.mark.parametrize(
    "other",
    [NUMBERS[::2][:14], NUMBERS.view(np.float32)[:14], NUMBERS[:7], COLUMNS, COLUMNS[:, ::2], COLUMNS[:, 0]],
    ids=["strides", "type", "length", "columns", "some columns", "one column"],
)
def test_views_of_one_place_are_kept_apart_and_as_they_read_however_they_lie_in_memory(other, tmp_path):
    loaded = cached(tmp_path, "ads", FINGERPRINT, lambda: with_train(groups=NUMBERS[:14], rows=other))
    assert_equal_bits(loaded.train.groups, NUMBERS[:14])
    assert_equal_bits(loaded.train.rows, other)


def test_reading_warns_of_nothing(place, recwarn):
    torch.set_warn_always(True)  # else once in a process
    try:
        cached(place.parent, "ads", FINGERPRINT, None)
    finally:
        torch.set_warn_always(False)
    assert not recwarn.list


# --- real files: the Alibaba sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    return write_alibaba_sample(tmp_path_factory.mktemp("raw") / "alibaba", num_rows=2000)


SETTINGS = [
    *({"protocol": protocol} for protocol in PROTOCOLS),
    *({"split_seed": 7}, {"sample_rate": 0.5}, {"statistics": "crossed"}, {"protocol": "online", "label_delay": 60.0}),
]


def test_alibaba_from_the_cache_is_alibaba_and_each_setting_has_its_own(sample, tmp_path, monkeypatch):
    built = [load_alibaba(sample, **settings) for settings in SETTINGS]
    for number, settings in enumerate(SETTINGS, start=1):
        load_alibaba(sample, **settings, cache=tmp_path)
        assert len(list(tmp_path.glob("alibaba*"))) == number
    with pytest.raises(UserError, match=r"user_profile\.csv: expected every userid"):
        load_alibaba(sample, strict_data=True, cache=tmp_path)
    monkeypatch.setattr(alibaba, "read_alibaba", None)  # no raw table is read again
    for plain, settings in zip(built, SETTINGS, strict=True):
        # The embedding size is of the model and not of the tables: the same cache.
        data = load_alibaba(sample, embedding_dim=8, **settings, cache=tmp_path)
        assert data.embedding_dim == data.user_columns[0].embedding_dim == 8
        assert data.source == str(sample)
        assert data.seconds > 0
        data.embedding_dim = 32
        assert_same_data(data, plain)
    kept = sorted(name.rsplit("-", 1)[0] for name in names(tmp_path) if not name.startswith("."))
    names_of = {"online": 2, "paper": 1, "strict": 4, "temporal": 1}
    assert kept == [f"alibaba-{protocol}" for protocol, count in names_of.items() for _ in range(count)]


def test_a_sha256_of_files_is_of_their_contents_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 4)  # the files take one chunk, several, none
    contents = [b"0123", b"456789ab", b"cdefg", b""]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    digests = b"".join(hashlib.sha256(content).digest() for content in contents)
    assert sha256_of_files([tmp_path / str(number) for number in range(4)]) == hashlib.sha256(digests).hexdigest()


# --- what is wrong with a cache


def test_a_flipped_byte_in_any_file_is_noticed(place, capfd, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 16)  # a file takes several
    for number, name in enumerate(names(place)):
        if name == MANIFEST:
            continue
        broken = bytearray((place / name).read_bytes())
        broken[[0, len(broken) // 2, -1][number % 3]] ^= 1
        (place / name).write_bytes(broken)
        assert_built_anew(place.parent, capfd, f"of {name}, got another")


def test_a_flipped_byte_in_the_manifest_is_noticed(place, capfd):
    content = (place / MANIFEST).read_bytes()
    for position in [*range(0, len(content), 397), content.index(b"25"), content.index(b".npy") - 1]:
        broken = bytearray(content)
        broken[position] ^= 1
        (place / MANIFEST).write_bytes(broken)
        assert_built_anew(place.parent, capfd)


@pytest.mark.parametrize("name", ["0.npy", "encoders.json", MANIFEST])
def test_a_file_of_another_length_or_none_is_noticed(name, place, capfd):
    content = (place / name).read_bytes()
    for other in (b"", content[:1], content[: len(content) // 2], content[:-1], content + b"x"):
        (place / name).write_bytes(other)
        assert_built_anew(place.parent, capfd)
    (place / name).unlink()
    assert_built_anew(place.parent, capfd, f"expected a whole cache, got no {name};")
    (place / name).unlink()
    (place / name).mkdir()
    assert_built_anew(place.parent, capfd)


def test_a_garbled_manifest_is_noticed(place, capfd):
    for content in (b"{", b"[]", b"{}", b"\xff\xfe", b'{"content": 1, "checksum": 1}', b"[" * 100_000):
        (place / MANIFEST).write_bytes(content)
        assert_built_anew(place.parent, capfd)


def manifest_of(place: Path) -> dict:
    return json.loads(json.loads((place / MANIFEST).read_bytes())["content"])


def forge(place: Path, change: Callable[[dict], object]) -> None:
    """Change what the manifest says, with right checksums of the files and of itself."""
    manifest = manifest_of(place)
    manifest["checksums"] = {name: zlib.crc32((place / name).read_bytes()) for name in manifest["checksums"]}
    change(manifest)
    content = json.dumps(manifest)
    (place / MANIFEST).write_text(json.dumps({"checksum": zlib.crc32(content.encode()), "content": content}))


def test_a_manifest_without_one_of_its_keys_is_noticed(place, capfd):
    forge(place, lambda manifest: None)
    assert_whole_and_used(place.parent, capfd)
    whole = manifest_of(place)
    keys = [(key,) for key in whole]
    keys += [("tables", split) for split in SPLITS] + [("tables", "test", key) for key in whole["tables"]["test"]]
    for *path, key in keys:
        forge(place, lambda manifest, path=path, key=key: functools.reduce(dict.get, path, manifest).pop(key))
        assert_built_anew(place.parent, capfd)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tables", None),
        ("tables", {"train": [], "valid": [], "test": []}),
        ("checksums", []),
        ("checksums", {"nothing.npy": 1}),
        ("probabilities", 7),
        ("probabilities", "nothing.npy"),
    ],
)
def test_a_manifest_that_says_something_else_is_noticed(key, value, place, capfd):
    forge(place, lambda manifest: manifest.update({key: value}))
    assert_built_anew(place.parent, capfd)


def test_the_cache_of_other_files_is_not_used_though_its_folder_has_the_same_name(place, capfd):
    other = FINGERPRINT[:-1] + "0"
    build = Build(lambda: dataclasses.replace(by_hand(), fingerprint=other))
    data = cached(place.parent, "ads", other, build)
    assert (build.calls, data.fingerprint) == (1, other)
    assert capfd.readouterr().out == (
        f"cache {place}: expected the fingerprint of these raw files and settings, got another; building it anew.\n"
    )
    assert_built_anew(place.parent, capfd, "the fingerprint of these raw files and settings")


def test_what_other_code_has_encoded_is_built_anew(place, capfd, monkeypatch):
    monkeypatch.setattr(cache, "CODE", "of tomorrow")
    assert_built_anew(place.parent, capfd, "it was made by other code of preprocessing/")
    monkeypatch.undo()
    assert_built_anew(place.parent, capfd, "it was made by other code of preprocessing/")


def test_any_changed_line_of_preprocessing_is_other_code(tmp_path, monkeypatch):
    folder = shutil.copytree(PROJECT / "preprocessing", tmp_path / "preprocessing")
    monkeypatch.setattr(cache, "__file__", str(folder / "cache.py"))
    assert cache._sha256_of_code() == cache.CODE  # which is taken at import
    for name, changes in (("encode.py", True), ("cache.py", True), ("notes.txt", False)):
        before = cache._sha256_of_code()
        with open(folder / name, "a") as file:
            file.write("# another line\n")
        assert (cache._sha256_of_code() != before) is changes


class Marking:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_nothing_that_is_read_is_unpickled(place, tmp_path_factory, capfd):
    mark = tmp_path_factory.mktemp("mark") / "unpickled"
    np.array([Marking(mark)], dtype=object).dump(place / "0.npy")
    np.load(place / "0.npy", allow_pickle=True)
    assert mark.exists()
    mark.unlink()
    forge(place, lambda manifest: None)
    assert_built_anew(place.parent, capfd, "pickle")
    assert not mark.exists()


def test_objects_are_not_pickled_either(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        cached(tmp_path, "ads", FINGERPRINT, lambda: with_train(rows=np.array(["a"] * 14, dtype=object)))
    assert names(tmp_path) == [f".{NAME}.lock"]


def test_arrays_that_no_tensor_holds_are_noticed(place, capfd):
    np.save(place / "0.npy", np.array(["text"] * 5))
    forge(place, lambda manifest: None)
    assert_built_anew(place.parent, capfd)


# --- builds that fail


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), KeyboardInterrupt()], ids=repr)
def test_a_build_that_fails_says_why_itself_and_leaves_nothing(error, tmp_path, capfd):
    def build() -> Dataset:
        raise error

    with pytest.raises(type(error)) as caught:
        cached(tmp_path, "ads", FINGERPRINT, build)
    assert caught.value is error
    assert names(tmp_path) == [f".{NAME}.lock"]
    cached(tmp_path, "ads", FINGERPRINT, by_hand)
    assert_whole_and_used(tmp_path, capfd)


def at_call(number: int, module, name: str, action: Callable[[], object]) -> Callable:
    """A patch that does something at the n-th call of a function of a module."""

    def patch(monkeypatch) -> None:
        original, calls = getattr(module, name), []

        def watched(*arguments, **options):
            calls.append(arguments)
            if len(calls) == number:
                action()
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    return patch


def interrupt() -> None:
    raise KeyboardInterrupt


# A save waits for the disk once a file, the encoders first, and then takes its place.
@pytest.mark.parametrize("call", [1, 30])
def test_a_save_that_is_interrupted_leaves_nothing_new(call, place, capfd, monkeypatch):
    before = {name: (place / name).read_bytes() for name in names(place)}
    with monkeypatch.context() as patch:
        patch.setattr(cache, "CODE", "of tomorrow")
        at_call(call, os, "fsync", interrupt)(patch)
        with pytest.raises(KeyboardInterrupt):
            cached(place.parent, "ads", FINGERPRINT, by_hand)
    assert {name: (place / name).read_bytes() for name in names(place)} == before
    capfd.readouterr()
    assert_whole_and_used(place.parent, capfd)


def kill_while_the_old_cache_is_removed(monkeypatch) -> None:
    def half_removed(folder: Path, **options) -> None:
        (folder / "0.npy").unlink()
        kill_this_process()

    monkeypatch.setattr(shutil, "rmtree", half_removed)


# Where a process can be killed, how many half-written folders that leaves, and whether an older cache is there.
KILLS = {
    "in the build": (None, 0, False),
    "at the first file": (at_call(1, os, "fsync", kill_this_process), 1, False),
    "at the third file of the next": (at_call(3, os, "fsync", kill_this_process), 1, True),
    "before it takes its place": (at_call(1, Path, "rename", kill_this_process), 1, False),
    "before it takes the place of another": (at_call(1, Path, "rename", kill_this_process), 1, True),
    "while the old cache is removed": (kill_while_the_old_cache_is_removed, 1, True),
}


@pytest.mark.parametrize("when", KILLS)
def test_what_a_killed_process_leaves_is_never_used_blocks_nothing_and_is_removed(
    when, tmp_path, tmp_path_factory, monkeypatch, capfd
):
    kill, left, out_of_date = KILLS[when]
    if out_of_date:
        with monkeypatch.context() as patch:
            patch.setattr(cache, "CODE", "of yesterday")
            cached(tmp_path, "ads", FINGERPRINT, by_hand)

    def work() -> None:
        if kill is not None:
            kill(monkeypatch)
        cached(tmp_path, "ads", FINGERPRINT, kill_this_process if kill is None else by_hand)

    assert Forked(tmp_path_factory.mktemp("output") / "printed", work).wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob(f".{NAME}.building*"))) == left
    assert (tmp_path / NAME).exists() is (out_of_date and when != "before it takes the place of another")
    build = Build()
    assert_same_data(cached(tmp_path, "ads", FINGERPRINT, build), by_hand())
    assert build.calls == 1
    assert "waiting" not in capfd.readouterr().out
    assert_whole_and_used(tmp_path, capfd)


def test_what_a_killed_process_has_left_of_another_cache_stays(tmp_path, capfd):
    (tmp_path / ".ads-ffffffffffff.building77").mkdir()
    cached(tmp_path, "ads", FINGERPRINT, by_hand)
    assert names(tmp_path) == [f".{NAME}.lock", ".ads-ffffffffffff.building77", NAME]


@pytest.mark.parametrize("fails", [False, True])
def test_who_starts_while_another_builds_waits_and_builds_only_where_that_fails(fails, tmp_path, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    begun, ended, built_twice, second_output = (output / name for name in ("begun", "ended", "twice", "second"))

    def build_slowly() -> Dataset:
        begun.touch()
        wait_until(lambda: second_output.exists() and "waiting" in second_output.read_text())
        time.sleep(0.1)
        ended.touch()
        if fails:
            raise UserError("raw files: a mistake.")
        return by_hand()

    def build_again() -> Dataset:
        built_twice.touch()
        return by_hand()

    def wait_for_it() -> None:
        data = cached(tmp_path, "ads", FINGERPRINT, build_again)
        assert ended.exists()
        assert_same_data(data, by_hand())

    first = Forked(output / "first", lambda: cached(tmp_path, "ads", FINGERPRINT, build_slowly))
    wait_until(begun.exists)
    second = Forked(second_output, wait_for_it)
    assert (first.wait(), second.wait()) == (int(fails), 0)
    assert first.printed() == ("UserError raw files: a mistake.\n" if fails else "")
    assert second.printed() == f"cache {tmp_path / NAME}: another process builds or checks it; waiting.\n"
    assert built_twice.exists() is fails


# --- disks that refuse


def assert_refused(error: UserError, place: Path) -> None:
    assert str(error).startswith(f"cache {place}: could not be kept (")
    assert str(error).endswith("); free some space, or use --no-cache.")
    assert "\n" not in str(error)


@pytest.mark.parametrize("what", ["the encoders", "the manifest", "an array"])
def test_a_file_that_does_not_fit_is_refused_in_one_line_and_nothing_is_left(what, tmp_path):
    # Of the twenty rows the manifest is the largest file; ten thousand row numbers, 40 kB, are larger.
    build = (lambda: with_train(rows=np.arange(10_000, dtype=np.int32))) if what == "an array" else by_hand
    cached(tmp_path / "whole", "ads", FINGERPRINT, build)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "whole" / NAME).iterdir()}
    assert (sizes[MANIFEST] == max(sizes.values())) is (build is by_hand)
    size = sizes["encoders.json"] if what == "the encoders" else max(sizes.values())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 8, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large") as caught:
            cached(tmp_path / "cache", "ads", FINGERPRINT, build)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_refused(caught.value, tmp_path / "cache" / NAME)
    assert names(tmp_path / "cache") == [f".{NAME}.lock"]


@pytest.mark.parametrize("folder", ["file", "n" * 300])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_built(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    build = Build()
    with pytest.raises(UserError) as caught:
        cached(tmp_path / folder, "ads", FINGERPRINT, build)
    assert_refused(caught.value, tmp_path / folder / NAME)
    assert build.calls == 0
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("function", "number", "num_builds"),
    [("pathlib.Path.mkdir", errno.EROFS, 0), ("fcntl.flock", errno.EIO, 0), ("os.fsync", errno.ENOSPC, 1)],
    ids=["read-only", "broken", "full"],
)
def test_a_disk_that_refuses_is_told_in_one_line(function, number, num_builds, tmp_path, monkeypatch):
    def refuse(*arguments, **options) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(function, refuse)
    build = Build()
    with pytest.raises(UserError, match=os.strerror(number)) as caught:
        cached(tmp_path, "ads", FINGERPRINT, build)
    assert_refused(caught.value, tmp_path / NAME)
    assert build.calls == num_builds
    assert all(path.name == f".{NAME}.lock" for path in tmp_path.iterdir())


# --- tables larger than memory, and the script


class Linear(torch.nn.Linear):
    """A model of one layer."""

    def forward(self, features: dict) -> torch.Tensor:
        return super().forward(features["numbers"])[:, 0]


def trained_auc(numbers: torch.Tensor) -> float:
    """The AUC of a model that has seen rows whose labels are 0 and 1 in turn."""

    def table(numbers: torch.Tensor) -> Table:
        labels = torch.arange(len(numbers)) % 2
        return Table({"numbers": numbers}, labels.float(), np.zeros(len(labels), np.int32), np.arange(len(labels)))

    trainer = Trainer(Linear(numbers.shape[1], 1), batch_size=1024, show_progress=False)
    return trainer.fit(table(numbers), table(numbers[:1000])).history[0]["valid_auc"]


def train_in_little_memory(path: Path) -> None:
    torch.set_num_threads(1)
    num_rows, dimension = 20_000, 4096
    trained_auc(torch.zeros(1000, dimension))  # what libraries set up once is no part of the limit
    array = np.lib.format.open_memmap(path, "w+", np.float32, (num_rows, dimension))  # a file of holes
    array[:1000, 0] = np.arange(1000) % 2  # and labels
    del array
    used = 1024 * int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (used + 150 * 2**20,) * 2)

    numbers = cache._memory_mapped(path)
    assert numbers.nbytes > 300 * 2**20
    for copy in (numbers.clone, lambda: np.load(path)):
        with pytest.raises((RuntimeError, MemoryError)):
            copy()
    assert trained_auc(numbers) == 1.0  # the first number of a row is its label


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_DATA to count what is allocated")
def test_a_table_larger_than_memory_is_trained_on(tmp_path):
    # A process of its own: one that has trained holds freed memory, which the limit does not count.
    code = "from test_cache import *; train_in_little_memory(Path(sys.argv[1]))"
    environ = environment(PYTHONPATH=f"{PROJECT}:{PROJECT / 'tests'}")
    result = run_in_process("-c", code, tmp_path / "0.npy", env=environ)
    assert result.returncode == 0, result.stderr
    (tmp_path / "0.npy").unlink()


def test_the_script_keeps_its_tables_in_data_cache_and_learns_the_same_from_them(sample, tmp_path, monkeypatch, capfd):
    script = train_alibaba_IntTower
    assert script.CACHE_FOLDER == PROJECT / "data" / "cache"
    monkeypatch.setattr(script, "CACHE_FOLDER", tmp_path / "cache")
    quick = ["--data", str(sample), "--epochs", "1", "--hidden-units", "16,8", "--embedding-dim", "4"]
    records, losses = [], []
    for turn in ("--no-cache", "building", "reading"):
        output = tmp_path / turn
        arguments = [*quick, "--output", str(output), *([turn] if turn == "--no-cache" else [])]
        monkeypatch.setattr(sys, "argv", ["train_alibaba_IntTower.py", *arguments])
        assert run_script(script.main, read_settings(script.Settings)) == 0
        # The line about users without a profile is printed where raw files are read.
        assert ("user_profile.csv: 6 userid(s)" in capfd.readouterr().out) is (turn != "reading")
        assert len(list((tmp_path / "cache").glob("alibaba-strict-*"))) == int(turn != "--no-cache")
        records.append(json.loads((output / "record.json").read_text()))
        losses.append([(row["train_loss"], row["valid_auc"]) for row in records[-1]["history"]])
    for name in ("test", "valid", "fingerprint", "counts", "settings", "labels_leak", "best_possible_test_auc"):
        assert records[0][name] == records[1][name] == records[2][name], name
    assert losses[0] == losses[1] == losses[2]
