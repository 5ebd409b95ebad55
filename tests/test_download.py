"""Fetching a file from a server on this machine, and the order in which places are searched for data."""

import hashlib
import http.server
import shutil
import socket
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from tables import refusal

from preprocessing import amazon, movielens, sources
from preprocessing.download import DownloadError, download
from preprocessing.errors import UserError
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sample_movielens import write_movielens_sample
from preprocessing.sources import find_data

CONTENT = bytes(range(256)) * 1000  # four chunks
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BODIES = {"wrong": CONTENT[::-1], "longer": CONTENT + b"x", "shorter": CONTENT[:-1]}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = self.path.split("/")[1]  # files may be asked for below it
        if page == "missing" or (page == "meta-only" and "reviews" in self.path):
            self.send_error(404)
            return
        body = BODIES.get(page, CONTENT)
        self.send_response(200)
        if page in ("chunks", "half-a-chunk"):
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif page not in ("no-length", "whole-without-length"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # /half promises the whole and hangs up in the middle; /no-length promises nothing and does the same.
        self.wfile.write(body[: len(body) // 2] if page in ("half", "no-length", "half-a-chunk") else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    """The address of an HTTP server that runs while this file's tests do."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def data_folder(monkeypatch, tmp_path) -> Path:
    """data/ is an empty folder; no proxy stands between; INTTOWER_DATA is not set; the samples are small ones."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("INTTOWER_DATA", raising=False)
    (tmp_path / "data").mkdir()
    for module in (sources, movielens, amazon):
        monkeypatch.setattr(module, "DATA_FOLDER", tmp_path / "data")
    monkeypatch.setattr(movielens, "write_movielens_sample", partial(write_movielens_sample, num_ratings=4000))
    monkeypatch.setattr(amazon, "write_amazon_sample", partial(write_amazon_sample, num_rows=200))
    return tmp_path / "data"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("page", "sha256", "size", "expected"),
    [
        ("right", SHA256, SIZE, CONTENT),
        ("right", None, None, CONTENT),
        ("chunks", None, None, CONTENT),
        ("whole-without-length", None, None, CONTENT),
        # Without a size, a file of any length:
        ("longer", None, None, BODIES["longer"]),
        ("shorter", None, None, BODIES["shorter"]),
        ("no-length", None, SIZE // 2, CONTENT[: SIZE // 2]),
    ],
)
def test_what_arrives_whole_takes_the_place_of_an_older_file_in_silence(
    server, data_folder, capfd, page, sha256, size, expected
):
    target = data_folder / "file"
    target.write_bytes(b"older")
    assert download(f"{server}/{page}", target, sha256, size) == target
    assert target.read_bytes() == expected
    assert names(data_folder) == ["file"]
    assert capfd.readouterr() == ("", "")


NO_END = "expected 256000 bytes, got {} and then nothing more; try again."


# A UserError that is no DownloadError is never answered with synthetic data.
@pytest.mark.parametrize(
    ("page", "sha256", "size", "error", "expected"),
    [
        ("wrong", SHA256, SIZE, UserError, f"expected sha256 {SHA256}, got "),
        ("longer", SHA256, SIZE, UserError, "expected 256000 bytes, got more; the file was not kept."),
        ("half", SHA256, SIZE, DownloadError, NO_END.format(128_000)),
        ("no-length", SHA256, SIZE, DownloadError, NO_END.format(128_000)),
        ("shorter", None, SIZE, DownloadError, NO_END.format(255_999)),
        (
            "missing",
            SHA256,
            SIZE,
            DownloadError,
            "could not be fetched (Not Found); check the network, or put the file into data/",
        ),
        # Without a size, the server says how long the file is; a checksum still decides.
        ("half", SHA256, None, DownloadError, NO_END.format(128_000)),
        ("half-a-chunk", None, None, DownloadError, "could not be fetched (IncompleteRead"),
        ("no-length", SHA256, None, UserError, f"expected sha256 {SHA256}, got "),
    ],
)
def test_what_is_not_the_whole_right_file_is_refused_and_an_older_one_stays(
    server, data_folder, page, sha256, size, error, expected
):
    (data_folder / "file").write_bytes(b"older")
    with pytest.raises(UserError) as caught:
        download(f"{server}/{page}", data_folder / "file", sha256, size)
    assert caught.type is error
    assert str(caught.value).startswith(f"{server}/{page}: {expected}")
    assert "\n" not in str(caught.value)
    assert names(data_folder) == ["file"]
    assert (data_folder / "file").read_bytes() == b"older"


def test_a_server_that_does_not_listen_or_never_answers_is_given_up_in_time(data_folder):
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        for server, timeout, reason in ((deaf, 10, "refused"), (silent, 0.2, "timed out")):
            url = f"http://127.0.0.1:{server.getsockname()[1]}/file"
            start = time.monotonic()
            with pytest.raises(DownloadError, match=f"^{url}: could not be fetched .*{reason}"):
                download(url, data_folder / "file", timeout=timeout)
            assert time.monotonic() - start < 2
    assert names(data_folder) == []


# --- where data is looked for


def find(folder: Path) -> Path | None:
    return folder / "it" if (folder / "it").is_file() else None


def test_a_named_path_comes_before_the_environment_and_that_before_data(tmp_path, data_folder, monkeypatch):
    named, environment = tmp_path / "named", tmp_path / "environment"
    assert find_data(None, find, "it") is None  # nothing in data/ is no error
    for folder in (named, environment, data_folder):
        folder.mkdir(exist_ok=True)
        (folder / "it").touch()
    assert find_data(None, find, "it") == data_folder / "it"
    monkeypatch.setenv("INTTOWER_DATA", "")  # counts as none
    assert find_data(None, find, "it") == data_folder / "it"
    monkeypatch.setenv("INTTOWER_DATA", str(environment))
    assert find_data(None, find, "it") == environment / "it"
    assert find_data(str(named), find, "it") == named / "it"
    other = named / "other name"  # a file may be named, whatever it is called
    other.touch()
    assert find_data(str(other), find, "it") == other
    monkeypatch.setenv("INTTOWER_DATA", str(other))
    assert find_data(None, find, "it") == other


def test_a_named_place_without_the_data_is_an_error_and_never_a_fallback(tmp_path, data_folder, monkeypatch):
    (data_folder / "it").touch()
    (tmp_path / "empty").mkdir()
    for path, expected in (
        (tmp_path / "nowhere", "expected it, got no such file or folder; check the path."),
        (tmp_path / "empty", "expected it inside, got none of them. Check the names."),
    ):
        assert refusal(find_data, str(path), find, "it") == f"--data {path}: {expected}"
        monkeypatch.setenv("INTTOWER_DATA", str(path))
        assert refusal(find_data, None, find, "it") == f"$INTTOWER_DATA {path}: {expected}"


# --- MovieLens-1M: found, fetched, or invented


@pytest.fixture
def published(monkeypatch, server):
    """Makes the server's file the official archive."""
    monkeypatch.setattr(movielens, "ARCHIVE_BYTES", SIZE)
    monkeypatch.setattr(movielens, "ARCHIVE_SHA256", SHA256)
    return lambda page: monkeypatch.setattr(movielens, "ARCHIVE_URL", f"{server}/{page}")


def test_movielens_is_fetched_into_data_once_and_said_to_be(data_folder, published, capsys):
    published("right")
    assert movielens.locate_movielens() == data_folder / "ml-1m.zip"
    assert (data_folder / "ml-1m.zip").read_bytes() == CONTENT
    assert capsys.readouterr().out == f"no MovieLens-1M in data/; fetching {movielens.ARCHIVE_URL}\n"
    published("wrong")
    assert movielens.locate_movielens() == data_folder / "ml-1m.zip"


@pytest.mark.parametrize("page", ["half", "missing"])
def test_without_a_download_the_synthetic_sample_takes_its_place(data_folder, published, capsys, page):
    published(page)
    assert movielens.locate_movielens() == data_folder / "sample-movielens"
    assert names(data_folder) == ["sample-movielens"]
    assert movielens.load_movielens(data_folder / "sample-movielens").synthetic
    assert movielens.ARCHIVE_URL in capsys.readouterr().out.splitlines()[1]


def test_an_archive_with_a_wrong_checksum_is_an_error_and_never_a_sample(data_folder, published):
    published("wrong")
    refusal(movielens.locate_movielens, fragments=("expected sha256",))
    assert names(data_folder) == []


# --- Amazon Electronics: found, fetched, or invented


def test_amazon_is_fetched_into_data_and_said_to_be_and_what_is_there_stays(data_folder, server, monkeypatch, capsys):
    monkeypatch.setattr(amazon, "FOLDER_URL", f"{server}/right/")
    folder = data_folder / "amazon"
    files = [folder / name for name in (amazon.META, amazon.REVIEWS)]
    for there in (None, *files):
        if there:
            there.write_bytes(b"mine")
        assert amazon.locate_amazon() == (folder / amazon.REVIEWS, folder / amazon.META)
        assert capsys.readouterr().out.splitlines() == [
            f"no {path.name} in data/amazon/; fetching {server}/right/{path.name}" for path in files if path != there
        ]
        assert [path.read_bytes() for path in files] == [b"mine" if path == there else CONTENT for path in files]
        assert amazon.locate_amazon() == (folder / amazon.REVIEWS, folder / amazon.META)  # the second time it is there
        assert capsys.readouterr().out == ""
        for path in folder.iterdir():
            path.unlink()


@pytest.mark.parametrize("page", ["half", "meta-only"])
def test_without_both_amazon_files_the_synthetic_sample_takes_their_place(
    data_folder, server, monkeypatch, capsys, page
):
    monkeypatch.setattr(amazon, "FOLDER_URL", f"{server}/{page}/")
    sample = data_folder / "sample-amazon"
    for _ in range(2):  # the second time the sample is there
        assert amazon.locate_amazon() == (sample / amazon.REVIEWS, sample / amazon.META)
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"{server}/{page}/")
    assert amazon.load_amazon(sample / amazon.REVIEWS, sample / amazon.META).synthetic
    # A whole file is kept for the next time, a part of one is not.
    kept = [amazon.META] if page == "meta-only" else []
    assert [path.name for path in data_folder.glob("amazon/*")] == kept


def test_real_reviews_are_never_left_for_the_sample_nor_is_it_the_answer_to_a_disk(data_folder, server, monkeypatch):
    monkeypatch.setattr(amazon, "FOLDER_URL", f"{server}/missing/")
    (data_folder / "amazon").mkdir()
    (data_folder / "amazon" / amazon.REVIEWS).touch()
    refusal(amazon.locate_amazon, fragments=("could not be fetched",))
    shutil.rmtree(data_folder / "amazon")
    (data_folder / "amazon").touch()  # where the folder should be
    refusal(amazon.locate_amazon, fragments=("could not be saved (File exists)",))
    assert names(data_folder) == ["amazon"]
