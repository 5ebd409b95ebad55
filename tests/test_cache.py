"""The cache of encoded tables: the same data as without it, never half of it, never another's."""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from shell import PROJECT, copy_of_the_project, environment, run_in_process
from test_interactions import ADS, ITEM_FIELDS_WITH_MEAN, USER_FIELDS_WITH_MEAN, USERS, encoded_by_hand

import train_alibaba_IntTower
from experiment.command import read_settings, run_script
from model.IntTower import IntTower
from preprocessing import alibaba, cache, files
from preprocessing.alibaba import load_alibaba
from preprocessing.cache import MANIFEST, cached, sha256_of_files
from preprocessing.choices import PROTOCOLS
from preprocessing.encode import TowerEncoder
from preprocessing.errors import UserError
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.tables import Dataset, Lookup, Table
from training.trainer import Trainer, seed_everything

SPLITS = ("train", "valid", "test")
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


def with_pids(pids: torch.Tensor) -> Dataset:
    return with_train(features=by_hand().train.features | {"pid": pids})


class Build:
    """Gives a dataset and counts how often it was asked to."""

    def __init__(self, make: Callable[[], Dataset] = by_hand):
        self.make, self.calls = make, 0

    def __call__(self) -> Dataset:
        self.calls += 1
        return self.make()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A whole cache of the twenty rows."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no power is cut here, and waits for the disk add up
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


def assert_same_encoder(ours: TowerEncoder, theirs: TowerEncoder, raw: pd.DataFrame) -> None:
    assert [type(field) for field in ours.fields] == [type(field) for field in theirs.fields]
    for field, other in zip(ours.fields, theirs.fields, strict=True):
        for part in dataclasses.fields(field):
            value, other_value = getattr(field, part.name), getattr(other, part.name)
            if isinstance(value, pd.Index | np.ndarray):
                assert list(value) == list(other_value), field.name
            else:
                assert value == other_value, field.name
    for name, values in ours.encode(raw).items():
        assert_equal_bits(values, theirs.encode(raw)[name], name)


def assert_same_data(ours: Dataset, theirs: Dataset, users: pd.DataFrame = USERS, items: pd.DataFrame = ADS) -> None:
    """All that a dataset says, bit for bit, but where it came from and how long it took."""
    for split in SPLITS:
        mine, other = arrays_of(getattr(ours, split)), arrays_of(getattr(theirs, split))
        assert list(mine) == list(other)
        for name in mine:
            assert_equal_bits(mine[name], other[name], f"{split} {name}")
    for name in ("name", "protocol", "labels_leak", "fingerprint", "counts", "synthetic"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert (ours.user_columns, ours.item_columns) == (theirs.user_columns, theirs.item_columns)
    assert_same_encoder(ours.user_encoder, theirs.user_encoder, users)
    assert_same_encoder(ours.item_encoder, theirs.item_encoder, items.assign(pid="right"))
    assert (ours.probabilities is None) == (theirs.probabilities is None)
    if ours.probabilities is not None:
        assert_equal_bits(ours.probabilities, theirs.probabilities)


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


@pytest.mark.parametrize("with_means", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_second_call_builds_nothing_and_gives_the_same_data_bit_for_bit(protocol, with_means, tmp_path, capfd):
    build = Build(lambda: by_hand(protocol, with_means))
    first = cached(tmp_path, "ads", FINGERPRINT, build)
    second = cached(tmp_path, "ads", FINGERPRINT, build)
    assert build.calls == 1
    for data in (first, second):
        assert_same_data(data, by_hand(protocol, with_means))
    assert second.labels_leak is (protocol == "paper" and with_means)
    assert tuple(capfd.readouterr()) == ("", "")


def test_data_that_no_generator_made_have_no_probabilities(tmp_path):
    build = Build(lambda: by_hand(probabilities=None))
    for _ in range(2):
        data = cached(tmp_path, "ads", FINGERPRINT, build)
        assert data.probabilities is None
        assert not data.synthetic
    assert build.calls == 1


def test_without_a_folder_everything_is_built_and_nothing_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build = Build()
    for calls in (1, 2):
        assert_same_data(cached(None, "ads", FINGERPRINT, build), by_hand())
        assert build.calls == calls
    assert names(tmp_path) == []


def test_the_folders_above_a_cache_are_made(tmp_path):
    cached(tmp_path / "data" / "cache", "ads", FINGERPRINT, by_hand)
    assert names(tmp_path / "data" / "cache") == [f".{NAME}.lock", NAME]
    cached(str(tmp_path / "data" / "cache"), "ads", FINGERPRINT, None)


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


def test_what_tables_share_is_shared_when_it_is_read(place):
    data = cached(place.parent, "ads", FINGERPRINT, None)
    train, test = data.train.features, data.test.features
    assert train["user"].index is train["age_level"].index
    assert train["user"].values is test["user"].values
    moved = data.train.to("meta").features
    assert moved["ad"].index is moved["price"].index


VIEWS = np.arange(28, dtype=np.int32)


@pytest.mark.parametrize(
    "other", [VIEWS[::2][:14], VIEWS.view(np.float32)[:14], VIEWS[:7]], ids=["strides", "type", "length"]
)
def test_views_that_start_at_one_place_are_kept_apart(other, tmp_path):
    loaded = cached(tmp_path, "ads", FINGERPRINT, lambda: with_train(groups=VIEWS[:14], rows=other))
    assert_equal_bits(loaded.train.groups, VIEWS[:14])
    assert_equal_bits(loaded.train.rows, other)


NUMBERS = torch.arange(14 * 6, dtype=torch.int32)


@pytest.mark.parametrize(
    "lists",
    [NUMBERS.reshape(14, 6), NUMBERS.reshape(6, 14).T, NUMBERS.reshape(6, 14).T[:, ::2], NUMBERS.reshape(14, 6)[:, 0]],
    ids=["rows", "columns", "some columns", "one column of rows"],
)
def test_a_table_is_kept_as_it_reads_however_it_lies_in_memory(lists, tmp_path):
    loaded = cached(tmp_path, "ads", FINGERPRINT, lambda: with_pids(lists))
    assert loaded.train.features["pid"].tolist() == lists.tolist()


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


def raw_tables(sample: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The user and the ad table, with lines that training does not know."""
    raw = alibaba.read_alibaba(sample)
    users, ads = raw.users.copy(), raw.items.copy()
    users.loc[:2, "userid"] = [999_999, 999_998, 999_997]
    ads.loc[:2, ["adgroup_id", "price"]] = [[999_999, np.nan], [999_998, 0.0], [999_997, 1e9]]
    return users, ads


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_alibaba_from_the_cache_is_alibaba(protocol, sample, tmp_path):
    plain = load_alibaba(sample, protocol)
    raw = raw_tables(sample)
    for embedding_dim in (32, 8):  # of the model, not of the tables: the same cache
        data = load_alibaba(sample, protocol, embedding_dim, cache=tmp_path)
        assert data.embedding_dim == data.user_columns[0].embedding_dim == embedding_dim
        data.embedding_dim = 32
        assert_same_data(data, plain, *raw)
        assert data.source == str(sample)
        assert data.seconds > 0
    assert isinstance(plain.train.features["userid"], Lookup)
    assert not isinstance(plain.train.features["pid"], Lookup)
    assert len(list(tmp_path.glob("alibaba*"))) == 1


def test_the_second_time_no_raw_table_is_read(sample, tmp_path, monkeypatch):
    load_alibaba(sample, cache=tmp_path)
    monkeypatch.setattr(alibaba, "read_alibaba", None)
    load_alibaba(sample, cache=tmp_path)
    with pytest.raises(TypeError):
        load_alibaba(sample)


def test_training_from_the_cache_gives_the_losses_of_training_without_it(sample, tmp_path):
    load_alibaba(sample, embedding_dim=4, cache=tmp_path)
    histories, weights = [], []
    for folder in (None, tmp_path):
        data = load_alibaba(sample, embedding_dim=4, cache=folder)
        seed_everything(1)
        model = IntTower(data.user_columns, data.item_columns, dnn_hidden_units=(16, 8), field_dim=4)
        progress = Trainer(model, batch_size=256, show_progress=False).fit(data.train, data.valid, epochs=1)
        histories.append({name: value for name, value in progress.history[0].items() if "second" not in name})
        weights.append(model.state_dict())
    assert histories[0] == histories[1]
    assert {"train_loss", "train_auxiliary_loss", "valid_auc"} <= histories[0].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_other_settings_have_caches_of_their_own(sample, tmp_path):
    settings = [
        {"protocol": "strict"},
        {"protocol": "paper"},
        {"protocol": "temporal"},
        {"split_seed": 7},
        {"sample_rate": 0.5},
    ]
    for turn in range(2):
        for one in settings:
            data = load_alibaba(sample, **one, cache=tmp_path)
            assert_same_data(data, load_alibaba(sample, **one), *raw_tables(sample))
            assert len(list(tmp_path.glob("alibaba*"))) == (len(settings) if turn else settings.index(one) + 1)
    assert sorted(name.rsplit("-", 1)[0] for name in names(tmp_path) if not name.startswith(".")) == [
        "alibaba-paper",
        "alibaba-strict",
        "alibaba-strict",
        "alibaba-strict",
        "alibaba-temporal",
    ]


@pytest.mark.parametrize("file", [alibaba.RAW_SAMPLE, alibaba.AD_FEATURE, alibaba.USER_PROFILE])
def test_a_changed_byte_of_a_raw_file_makes_another_cache(file, sample, tmp_path):
    raw = shutil.copytree(sample, tmp_path / "raw")
    first = load_alibaba(raw, cache=tmp_path / "cache")
    content = bytearray((raw / file).read_bytes())
    content[max(content.rindex(digit) for digit in b"0123456789")] ^= 1  # another digit
    (raw / file).write_bytes(content)
    second = load_alibaba(raw, cache=tmp_path / "cache")
    assert first.fingerprint != second.fingerprint
    assert_same_data(second, load_alibaba(raw), *raw_tables(raw))
    assert len(list((tmp_path / "cache").glob("alibaba*"))) == 2


def test_what_strict_data_refuses_is_refused_with_a_cache_of_the_others_there(sample, tmp_path):
    load_alibaba(sample, cache=tmp_path)
    with pytest.raises(UserError, match=r"user_profile\.csv: expected every userid"):
        load_alibaba(sample, strict_data=True, cache=tmp_path)
    assert len(list(tmp_path.glob("alibaba*"))) == 1


def test_a_sha256_of_files_is_of_their_contents_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 4)  # the files take one chunk, several, none
    contents = {"a": b"0123", "b": b"456789", "c": b"", "moved": b"01234", "rest": b"56789", "as a": b"0123"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    def sha256(*files: str) -> str:
        return sha256_of_files([tmp_path / name for name in files])

    assert len({sha256("a", "b"), sha256("b", "a"), sha256("moved", "rest"), sha256("a", "b", "c"), sha256("a")}) == 5
    assert sha256("a", "b") == sha256("as a", "b")
    monkeypatch.setattr(files, "CHUNK", 2**22)
    whole = sha256("a", "b")
    monkeypatch.setattr(files, "CHUNK", 1)
    assert sha256("a", "b") == whole


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
    for position in [*range(0, len(content), 97), content.index(b"25"), content.index(b".npy") - 1]:
        broken = bytearray(content)
        broken[position] ^= 1
        (place / MANIFEST).write_bytes(broken)
        assert_built_anew(place.parent, capfd)


@pytest.mark.parametrize("length", [0, 1, 0.5, -1], ids=["empty", "a byte", "half", "all but a byte"])
def test_a_truncated_file_is_noticed(length, place, capfd):
    for name in ("0.npy", "10.npy", "encoders.json", MANIFEST):
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[: int(len(content) * length) if length == 0.5 else length])
        assert_built_anew(place.parent, capfd)


def test_a_longer_file_is_noticed(place, capfd):
    for name in ("0.npy", "encoders.json", MANIFEST):
        (place / name).write_bytes((place / name).read_bytes() + b"x")
        assert_built_anew(place.parent, capfd)


def test_a_missing_file_is_noticed_and_named(place, capfd):
    for name in names(place):
        (place / name).unlink()
        assert_built_anew(place.parent, capfd, f"expected a whole cache, got no {name};")


@pytest.mark.parametrize("name", ["0.npy", "encoders.json", MANIFEST])
def test_a_file_that_cannot_be_read_is_noticed(name, place, capfd):
    (place / name).unlink()
    (place / name).mkdir()
    assert_built_anew(place.parent, capfd)


def test_a_disk_that_fails_while_it_is_read_is_noticed(place, capfd, monkeypatch):
    checksum = cache.file_checksum

    def failing(path: Path) -> int:
        monkeypatch.setattr(cache, "file_checksum", checksum)
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(cache, "file_checksum", failing)
    assert_built_anew(place.parent, capfd)


def test_two_files_that_changed_places_are_noticed(place, capfd):
    (place / "0.npy").rename(place / "x")
    (place / "10.npy").rename(place / "0.npy")
    (place / "x").rename(place / "10.npy")
    assert_built_anew(place.parent, capfd)


def test_a_file_that_does_not_belong_there_vanishes_with_the_next_build(place, capfd):
    (place / "other").write_bytes(b"x")
    assert_whole_and_used(place.parent, capfd)
    (place / "0.npy").unlink()
    assert_built_anew(place.parent, capfd)
    assert not (place / "other").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\0\0", b"{", b"[]", b"null", b"1", b'"text"', b"{}", b"\xff\xfe", b'{"content": 1, "checksum": 1}'],
    ids=repr,
)
def test_a_garbled_manifest_is_noticed(content, place, capfd):
    (place / MANIFEST).write_bytes(content)
    assert_built_anew(place.parent, capfd)


def test_a_manifest_of_nothing_but_brackets_is_noticed(place, capfd):
    (place / MANIFEST).write_bytes(b"[" * 100_000)
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


def test_a_forged_manifest_that_changes_nothing_is_not_noticed(place, capfd):
    forge(place, lambda manifest: None)
    assert_whole_and_used(place.parent, capfd)


def test_a_manifest_without_one_of_its_keys_is_noticed(place, capfd):
    for key in manifest_of(place):
        forge(place, lambda manifest, key=key: manifest.pop(key))
        assert_built_anew(place.parent, capfd)
    for key in ("train", "valid", "test"):
        forge(place, lambda manifest, key=key: manifest["tables"].pop(key))
        assert_built_anew(place.parent, capfd)
    for key in ("features", "labels", "groups", "rows"):
        forge(place, lambda manifest, key=key: manifest["tables"]["test"].pop(key))
        assert_built_anew(place.parent, capfd)


@pytest.mark.parametrize(
    "change",
    [
        {"tables": None},
        {"tables": {"train": [], "valid": [], "test": []}},
        {"checksums": 5},
        {"checksums": []},
        {"checksums": {"nothing.npy": 1}},
        {"probabilities": 7},
        {"probabilities": "nothing.npy"},
    ],
    ids=repr,
)
def test_a_manifest_that_says_something_else_is_noticed(change, place, capfd):
    forge(place, lambda manifest: manifest.update(change))
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


def test_a_cache_of_another_name_is_another(place):
    build = Build()
    cached(place.parent, "ads-checked", FINGERPRINT, build)
    assert build.calls == 1
    assert len(list(place.parent.glob("ads*"))) == 2


def test_what_other_code_has_encoded_is_built_anew(place, capfd, monkeypatch):
    monkeypatch.setattr(cache, "CODE", "of tomorrow")
    assert_built_anew(place.parent, capfd, "it was made by other code of preprocessing/")
    monkeypatch.undo()
    assert_built_anew(place.parent, capfd, "it was made by other code of preprocessing/")


def code_at_import(folder: Path) -> str:
    """What a copy of the module takes for its folder's code."""
    spec = importlib.util.spec_from_file_location("copy_of_cache", folder / "cache.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CODE


def test_any_changed_line_of_preprocessing_is_other_code(tmp_path, monkeypatch):
    folder = shutil.copytree(PROJECT / "preprocessing", tmp_path / "preprocessing")
    here = cache._sha256_of_code()
    monkeypatch.setattr(cache, "__file__", str(folder / "cache.py"))
    assert cache._sha256_of_code() == here == code_at_import(folder)
    for name in ("encode.py", "interactions.py", "alibaba.py", "tables.py", "cache.py"):
        before = cache._sha256_of_code()
        with open(folder / name, "a") as file:
            file.write("# another line\n")
        assert cache._sha256_of_code() != before
        assert cache._sha256_of_code() == code_at_import(folder)
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "encode.pyc").write_bytes(b"x")
    (folder / "notes.txt").write_text("not code")
    before = cache._sha256_of_code()
    (folder / "notes.txt").write_text("still not code")
    assert cache._sha256_of_code() == before


class Marking:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("kind", ["an array of objects", "a bare pickle"])
def test_nothing_that_is_read_is_unpickled(kind, place, tmp_path_factory, capfd):
    mark = tmp_path_factory.mktemp("mark") / "unpickled"
    objects = np.array([Marking(mark)] * 3, dtype=object)
    path = place / "0.npy"
    if kind == "a bare pickle":
        objects.dump(path)
    else:
        np.save(path, objects, allow_pickle=True)
    np.load(path, allow_pickle=True)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(ValueError, match=r"pickle|Python objects"):
        cache._memory_mapped(path)
    forge(place, lambda manifest: None)
    assert_built_anew(place.parent, capfd)
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


@pytest.mark.parametrize(
    "error", [UserError("raw_sample.csv: a mistake."), FileNotFoundError(2, "gone"), KeyboardInterrupt]
)
def test_a_build_that_fails_says_why_itself_and_leaves_nothing(error, tmp_path, capfd):
    def build() -> Dataset:
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error) as caught:
        cached(tmp_path, "ads", FINGERPRINT, build)
    if isinstance(error, Exception):
        assert caught.value is error
    assert names(tmp_path) == [f".{NAME}.lock"]
    first = Build()
    cached(tmp_path, "ads", FINGERPRINT, first)
    assert first.calls == 1
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
@pytest.mark.parametrize("call", [1, 3, 30])
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


# Where a process can be killed, and how many half-written folders that leaves.
KILLS = {
    "in the build": (None, 0),
    "at the first file": (at_call(1, os, "fsync", kill_this_process), 1),
    "at the third file": (at_call(3, os, "fsync", kill_this_process), 1),
    "before it takes its place": (at_call(1, Path, "rename", kill_this_process), 1),
    "while the old cache is removed": (kill_while_the_old_cache_is_removed, 1),
}


@pytest.mark.parametrize(
    ("when", "out_of_date"), [(when, old) for when in KILLS for old in (False, True) if old or "old" not in when]
)
def test_what_a_killed_process_leaves_is_never_used_and_is_removed(
    when, out_of_date, tmp_path, tmp_path_factory, monkeypatch, capfd
):
    if out_of_date:
        with monkeypatch.context() as patch:
            patch.setattr(cache, "CODE", "of yesterday")
            cached(tmp_path, "ads", FINGERPRINT, by_hand)
    kill, left = KILLS[when]

    def work() -> None:
        if kill is not None:
            kill(monkeypatch)
        cached(tmp_path, "ads", FINGERPRINT, kill_this_process if kill is None else by_hand)

    assert Forked(tmp_path_factory.mktemp("output") / "printed", work).wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob(f".{NAME}.building*"))) == left
    assert (tmp_path / NAME).exists() is (out_of_date and when != "before it takes its place")
    build = Build()
    assert_same_data(cached(tmp_path, "ads", FINGERPRINT, build), by_hand())
    assert build.calls == 1
    capfd.readouterr()
    assert_whole_and_used(tmp_path, capfd)


def test_what_a_killed_process_has_left_of_another_cache_stays(tmp_path, capfd):
    (tmp_path / ".ads-ffffffffffff.building77").mkdir()
    cached(tmp_path, "ads", FINGERPRINT, by_hand)
    assert names(tmp_path) == [f".{NAME}.lock", ".ads-ffffffffffff.building77", NAME]


def test_a_lock_of_a_dead_process_does_not_block(tmp_path, tmp_path_factory, capfd):
    output = tmp_path_factory.mktemp("output") / "printed"
    assert Forked(output, lambda: cached(tmp_path, "ads", FINGERPRINT, kill_this_process)).wait() == -signal.SIGKILL
    assert names(tmp_path) == [f".{NAME}.lock"]
    build = Build()
    started = time.monotonic()
    cached(tmp_path, "ads", FINGERPRINT, build)
    assert time.monotonic() - started < 5
    assert build.calls == 1
    assert capfd.readouterr().out == ""


def test_who_waits_for_a_build_that_fails_builds_itself(tmp_path, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    begun, failed, second_output = output / "begun", output / "failed", output / "second"

    def fail_late() -> Dataset:
        begun.touch()
        wait_until(lambda: second_output.exists() and "waiting" in second_output.read_text())
        time.sleep(0.3)
        failed.touch()
        raise UserError("raw files: a mistake.")

    def build_after_it() -> Dataset:
        assert failed.exists()
        return by_hand()

    first = Forked(output / "first", lambda: cached(tmp_path, "ads", FINGERPRINT, fail_late))
    wait_until(begun.exists)
    second = Forked(second_output, lambda: cached(tmp_path, "ads", FINGERPRINT, build_after_it))
    assert (first.wait(), second.wait()) == (1, 0)
    assert first.printed() == "UserError raw files: a mistake.\n"
    assert second.printed() == f"cache {tmp_path / NAME}: another process builds or checks it; waiting.\n"
    assert_same_data(cached(tmp_path, "ads", FINGERPRINT, None), by_hand())


def digest(data: Dataset) -> str:
    """A sha256 of all arrays of a dataset, in hex."""
    arrays = [array for split in SPLITS for array in arrays_of(getattr(data, split)).values()]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


LOAD_AND_COUNT_BUILDS = """
    import sys, time
    from pathlib import Path
    from preprocessing import alibaba
    from test_cache import digest, wait_until

    raw, folder, builds, *outputs = map(Path, sys.argv[1:])
    read = alibaba.read_alibaba

    def counted(*arguments):
        with open(builds, "a") as file:
            file.write("a build\\n")
        wait_until(lambda: any("waiting" in output.read_text() for output in outputs))
        return read(*arguments)

    alibaba.read_alibaba = counted
    print(digest(alibaba.load_alibaba(raw, cache=folder)))
    """


def test_two_processes_that_start_at_once_build_once(sample, tmp_path):
    outputs = [tmp_path / "first", tmp_path / "second"]
    for output in outputs:
        output.touch()
    arguments = [sample, tmp_path / "cache", tmp_path / "builds", *outputs]
    command = [sys.executable, "-c", textwrap.dedent(LOAD_AND_COUNT_BUILDS), *map(str, arguments)]
    processes = []
    for output in outputs:
        with open(output, "w") as file:
            path = environment(PYTHONPATH=f"{PROJECT}{os.pathsep}{PROJECT / 'tests'}")
            processes.append(subprocess.Popen(command, cwd=PROJECT, env=path, stdout=file, stderr=subprocess.STDOUT))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    printed = sorted(output.read_text() for output in outputs)
    assert (tmp_path / "builds").read_text() == "a build\n"
    [place] = (tmp_path / "cache").glob("alibaba*")
    right = digest(load_alibaba(sample))
    assert printed[0] == f"cache {place}: another process builds or checks it; waiting.\n{right}\n"
    assert "waiting" not in printed[1]
    assert printed[1].endswith(f"\n{right}\n")


# --- disks that refuse


def assert_refused(printed: str, place: Path) -> None:
    assert printed.startswith(f"UserError cache {place}: could not be kept (")
    assert printed.endswith("); free some space, or use --no-cache.\n")
    assert printed.count("\n") == 1


def with_file_limit(limit: int, work: Callable[[], object], output: Path) -> str:
    """What is printed by work in a process whose files may not become larger."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        work()

    # The limit holds for what is printed too, so that is shorter than any that is set here.
    forked = Forked(output, limited)
    assert forked.wait() == 1, forked.printed()
    return forked.printed()


@pytest.mark.parametrize("what", ["the encoders", "the manifest", "an array", "the end of an array"])
def test_a_file_that_does_not_fit_is_refused_in_one_line_and_nothing_is_left(what, tmp_path, tmp_path_factory):
    # Of the twenty rows the manifest is the largest file; lists of 730 numbers a row, 40 kB, are larger.
    lists = torch.arange(14 * 730, dtype=torch.int32).reshape(14, 730)
    build = by_hand if what in ("the encoders", "the manifest") else lambda: with_pids(lists)
    whole = tmp_path_factory.mktemp("whole")
    cached(whole, "ads", FINGERPRINT, build)
    sizes = {path.name: path.stat().st_size for path in (whole / NAME).iterdir()}
    largest = max(sizes.values())
    limit = {
        "the encoders": sizes["encoders.json"] - 1,
        "the manifest": sizes[MANIFEST] - 1,
        "an array": largest // 2,
        "the end of an array": largest - 8,
    }[what]
    assert (sizes[MANIFEST] == largest) is (build is by_hand)
    output = tmp_path_factory.mktemp("output") / "printed"
    printed = with_file_limit(limit, lambda: cached(tmp_path, "ads", FINGERPRINT, build), output)
    assert_refused(printed, tmp_path / NAME)
    assert names(tmp_path) == [f".{NAME}.lock"]


@contextlib.contextmanager
def mounted_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("size", ["4k", "16k", "64k"])
def test_a_full_disk_is_refused_in_one_line_and_nothing_is_left(size, sample, tmp_path):
    with mounted_disk(tmp_path / "disk", size) as disk:
        forked = Forked(tmp_path / "printed", lambda: load_alibaba(sample, cache=disk / "cache"))
        assert forked.wait() == 1
        printed = forked.printed().splitlines(keepends=True)
        assert len(printed) == 2  # a line of the data itself comes before
        [lock] = names(disk / "cache")
        assert_refused(printed[1], disk / "cache" / lock.removeprefix(".").removesuffix(".lock"))


def test_a_disk_that_is_full_keeps_the_cache_that_stood_there(tmp_path):
    with mounted_disk(tmp_path / "disk", "160k") as disk:
        assert Forked(tmp_path / "printed", lambda: cached(disk, "ads", FINGERPRINT, by_hand)).wait() == 0
        before = {name: (disk / NAME / name).read_bytes() for name in names(disk / NAME)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache, "CODE", "of tomorrow")
            forked = Forked(tmp_path / "printed", lambda: cached(disk, "ads", FINGERPRINT, by_hand))
            assert forked.wait() == 1
        assert_refused("".join(forked.printed().splitlines(keepends=True)[1:]), disk / NAME)
        assert {name: (disk / NAME / name).read_bytes() for name in names(disk / NAME)} == before
        assert names(disk) == [f".{NAME}.lock", NAME]


def test_a_read_only_disk_is_refused_before_anything_is_built(tmp_path):
    build = Build()
    with mounted_disk(tmp_path / "disk", "64k") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(UserError, match="Read-only file system") as caught:
            cached(disk, "ads", FINGERPRINT, build)
    assert_refused(f"UserError {caught.value}\n", tmp_path / "disk" / NAME)
    assert build.calls == 0


@pytest.mark.parametrize("folder", ["file", "file/below", "n" * 300])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_built(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    build = Build()
    with pytest.raises(UserError) as caught:
        cached(tmp_path / folder, "ads", FINGERPRINT, build)
    assert_refused(f"UserError {caught.value}\n", tmp_path / folder / NAME)
    assert build.calls == 0
    assert names(tmp_path) == ["file"]


def test_a_disk_without_locks_is_refused_in_one_line(tmp_path, monkeypatch):
    def no_locks(*arguments) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(UserError) as caught:
        cached(tmp_path, "ads", FINGERPRINT, by_hand)
    assert_refused(f"UserError {caught.value}\n", tmp_path / NAME)


# --- tables larger than memory, and the script

TRAIN_IN_LITTLE_MEMORY = """
    import re, resource, sys
    from pathlib import Path
    import numpy as np, torch
    from preprocessing.cache import _memory_mapped
    from preprocessing.tables import Table
    from training.trainer import Trainer

    NUM_ROWS, DIMENSION = 45_000, 4096

    class Linear(torch.nn.Linear):
        def forward(self, features):
            return super().forward(features["numbers"])[:, 0]

    def table(numbers):
        labels = torch.arange(len(numbers)) % 2
        return Table({"numbers": numbers}, labels.float(), np.zeros(len(labels), np.int32), np.arange(len(labels)))

    def train(numbers):
        trainer = Trainer(Linear(DIMENSION, 1), batch_size=1024, show_progress=False)
        return trainer.fit(table(numbers), table(numbers[:1000])).history[0]["valid_auc"]

    train(torch.zeros(1000, DIMENSION))  # what libraries set up once is no part of the limit
    path = Path(sys.argv[1]) / "0.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (NUM_ROWS, DIMENSION))  # a file of holes
    array[:1000, 0] = np.arange(1000) % 2  # and labels
    del array
    used = 1024 * int(re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (used + 350 * 2**20,) * 2)

    numbers = _memory_mapped(path)
    assert numbers.nbytes > 700e6
    for copy in (numbers.clone, lambda: np.load(path)):
        try:
            copy()
        except (RuntimeError, MemoryError) as error:
            print("no copy:", type(error).__name__)
    print(train(numbers))
    """


def test_a_table_larger_than_memory_is_trained_on(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("needs RLIMIT_DATA to count what is allocated, as on Linux")
    result = run_in_process("-c", textwrap.dedent(TRAIN_IN_LITTLE_MEMORY), tmp_path)
    (tmp_path / "0.npy").unlink()
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[:2] == ["no copy: RuntimeError", "no copy: MemoryError"]
    assert lines[2:] == ["1.0"]  # the AUC of rows whose first number is the label


QUICK = ("--epochs", "1", "--hidden-units", "16,8", "--batch-size", "256", "--embedding-dim", "4")


def test_the_script_keeps_its_tables_in_data_cache_and_reads_them_the_next_time(sample, tmp_path, monkeypatch):
    project = copy_of_the_project(tmp_path / "project")
    kept = project / "data" / "cache"
    records = []
    for turn in ("first", "second"):
        options = ["--data", sample, "--output", tmp_path / turn, *QUICK]
        result = run_in_process("train_alibaba_IntTower.py", *options, folder=project)
        assert result.returncode == 0, result.stderr
        assert "building" not in result.stdout + result.stderr
        # The line about users without a profile is printed where raw files are read.
        assert ("user_profile.csv: 6 userid(s)" in result.stdout) is (turn == "first")
        assert len(list(kept.glob("alibaba-strict-*"))) == 1
        records.append(json.loads((tmp_path / turn / "record.json").read_text()))

    # Without a cache, in this process: there is no folder for one.
    monkeypatch.setattr(train_alibaba_IntTower, "CACHE_FOLDER", tmp_path / "cache")
    options = ["--data", str(sample), "--output", str(tmp_path / "third"), "--no-cache", *QUICK]
    monkeypatch.setattr(sys, "argv", ["train_alibaba_IntTower.py", *options])
    settings = read_settings(train_alibaba_IntTower.Settings)
    assert run_script(train_alibaba_IntTower.main, settings) == 0
    assert not (tmp_path / "cache").exists()
    records.append(json.loads((tmp_path / "third" / "record.json").read_text()))

    for name in ("test", "valid", "fingerprint", "counts", "settings", "labels_leak", "best_possible_test_auc"):
        assert records[0][name] == records[1][name] == records[2][name], name
    losses = [[(row["train_loss"], row["valid_auc"]) for row in record["history"]] for record in records]
    assert losses[0] == losses[1] == losses[2]
