"""Fetching a file from a server on this machine, and the order in which places are searched for data."""

import hashlib
import http.server
import socket
import threading
import time
import zipfile
from pathlib import Path

import pytest

from preprocessing import amazon, movielens, sources
from preprocessing.download import DownloadError, download
from preprocessing.errors import UserError
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sources import find_data

CONTENT = bytes(range(256)) * 1000  # four chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = "/" + self.path.split("/")[1]  # files may be asked for below it
        if page == "/missing" or (page == "/meta-only" and "reviews" in self.path):
            self.send_error(404)
            return
        body = {"/wrong": CONTENT[::-1], "/longer": CONTENT + b"x", "/shorter": CONTENT[:-1]}.get(page, CONTENT)
        self.send_response(200)
        if page in ("/chunks", "/half-a-chunk"):
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif page not in ("/no-length", "/whole-without-length"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # /half promises the whole and hangs up in the middle; /no-length promises nothing and does the same.
        self.wfile.write(body[: len(body) // 2] if page in ("/half", "/no-length", "/half-a-chunk") else body)

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


@pytest.fixture
def closed_port() -> str:
    """An address at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/file"


@pytest.fixture(autouse=True)
def no_proxy_and_no_data(monkeypatch, tmp_path):
    """No proxy stands between; data/ is an empty folder; INTTOWER_DATA is not set."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("INTTOWER_DATA", raising=False)
    (tmp_path / "data").mkdir()
    for module in (sources, movielens, amazon):
        monkeypatch.setattr(module, "DATA_FOLDER", tmp_path / "data")


def fetch(url: str, folder: Path, **options) -> Path:
    return download(url, folder / "file", SHA256, len(CONTENT), **options)


def test_the_right_file_arrives_whole_and_alone(server, tmp_path):
    target = tmp_path / "new folder" / "file"
    assert download(f"{server}/right", target, SHA256, len(CONTENT)) == target
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(("page", "expected"), [("wrong", f"sha256 {SHA256}, got "), ("longer", "bytes, got more")])
def test_a_wrong_file_leaves_nothing_and_is_no_download_error(server, tmp_path, page, expected):
    with pytest.raises(UserError) as caught:
        fetch(f"{server}/{page}", tmp_path / "data")
    assert not isinstance(caught.value, DownloadError)  # which would be answered with synthetic data
    assert str(caught.value).startswith(f"{server}/{page}: expected ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(("page", "received"), [("half", 128_000), ("no-length", 128_000), ("shorter", 255_999)])
def test_a_server_that_breaks_off_leaves_nothing(server, tmp_path, page, received):
    with pytest.raises(DownloadError) as caught:
        fetch(f"{server}/{page}", tmp_path / "data")
    assert f"{server}/{page}: expected 256000 bytes, got {received} and then nothing more" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_page_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=r"/missing: could not be fetched \(Not Found\)"):
        fetch(f"{server}/missing", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_an_unreachable_server_fails_at_once(closed_port, tmp_path):
    start = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        fetch(closed_port, tmp_path / "data")
    assert time.monotonic() - start < 2
    assert closed_port in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_server_that_never_answers_is_given_up_after_the_timeout(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(DownloadError, match="timed out"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/file", tmp_path / "data", timeout=0.2)
        assert time.monotonic() - start < 2
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("page", ["wrong", "half", "missing"])
def test_an_older_file_stays_as_it_was_when_the_new_one_is_wrong(server, tmp_path, page):
    (tmp_path / "data" / "file").write_bytes(b"older")
    with pytest.raises(UserError):
        fetch(f"{server}/{page}", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["file"]
    assert (tmp_path / "data" / "file").read_bytes() == b"older"


def test_an_older_file_is_replaced_by_the_right_one(server, tmp_path):
    (tmp_path / "data" / "file").write_bytes(b"older")
    fetch(f"{server}/right", tmp_path / "data")
    assert (tmp_path / "data" / "file").read_bytes() == CONTENT


def test_a_download_prints_nothing_where_nobody_watches(server, tmp_path, capfd):
    fetch(f"{server}/right", tmp_path / "data")
    assert capfd.readouterr() == ("", "")


# --- without a checksum and a size: the server says how long the file is


@pytest.mark.parametrize("page", ["right", "chunks", "whole-without-length"])
def test_without_a_checksum_whatever_arrives_whole_is_kept(server, tmp_path, page):
    target = tmp_path / "new folder" / "file"
    assert download(f"{server}/{page}", target) == target
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_without_a_size_a_file_of_any_length_is_kept(server, tmp_path):
    for page, length in (("longer", len(CONTENT) + 1), ("shorter", len(CONTENT) - 1)):
        assert len(download(f"{server}/{page}", tmp_path / page).read_bytes()) == length


@pytest.mark.parametrize("checksum", [None, SHA256])
def test_without_a_size_less_than_the_server_said_is_a_download_error_and_leaves_nothing(server, tmp_path, checksum):
    with pytest.raises(DownloadError) as caught:
        download(f"{server}/half", tmp_path / "data" / "file", checksum)
    assert str(caught.value) == (
        f"{server}/half: expected {len(CONTENT)} bytes, got {len(CONTENT) // 2} and then nothing more; try again."
    )
    assert list((tmp_path / "data").iterdir()) == []


def test_a_chunk_that_breaks_off_is_a_download_error_and_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=r"/half-a-chunk: could not be fetched \(IncompleteRead") as caught:
        download(f"{server}/half-a-chunk", tmp_path / "data" / "file")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_without_a_size_an_older_file_stays_as_it_was_when_the_new_one_breaks_off(server, tmp_path):
    (tmp_path / "data" / "file").write_bytes(b"older")
    for page in ("half", "missing"):
        with pytest.raises(DownloadError):
            download(f"{server}/{page}", tmp_path / "data" / "file")
    assert [path.read_bytes() for path in (tmp_path / "data").iterdir()] == [b"older"]


def test_without_a_size_a_checksum_still_decides(server, tmp_path):
    assert download(f"{server}/right", tmp_path / "data" / "file", SHA256).read_bytes() == CONTENT
    for page in ("wrong", "longer", "shorter", "no-length"):
        with pytest.raises(UserError, match=f"expected sha256 {SHA256}, got ") as caught:
            download(f"{server}/{page}", tmp_path / "data" / page, SHA256)
        assert not isinstance(caught.value, DownloadError)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["file"]


def test_without_a_checksum_a_given_size_still_decides(server, tmp_path):
    assert download(f"{server}/no-length", tmp_path / "half", size=len(CONTENT) // 2).stat().st_size == 128_000
    with pytest.raises(DownloadError, match="expected 256000 bytes, got 255999 and then nothing more"):
        download(f"{server}/shorter", tmp_path / "data" / "file", size=len(CONTENT))
    with pytest.raises(UserError, match="expected 256000 bytes, got more"):
        download(f"{server}/longer", tmp_path / "data" / "file", size=len(CONTENT))
    assert list((tmp_path / "data").iterdir()) == []


# --- where data is looked for


def find(folder: Path) -> Path | None:
    return folder / "it" if (folder / "it").is_file() else None


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """Folders that all hold the data: one to name, one for the environment, and data/."""
    folders = {name: tmp_path / name for name in ("named", "environment", "data")}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
        (folder / "it").touch()
    return folders


def test_a_named_path_comes_before_the_environment_and_that_before_data(places, monkeypatch):
    assert find_data(None, find, "it") == places["data"] / "it"
    monkeypatch.setenv("INTTOWER_DATA", str(places["environment"]))
    assert find_data(None, find, "it") == places["environment"] / "it"
    assert find_data(str(places["named"]), find, "it") == places["named"] / "it"


def test_an_empty_variable_counts_as_none(places, monkeypatch):
    monkeypatch.setenv("INTTOWER_DATA", "")
    assert find_data(None, find, "it") == places["data"] / "it"


def test_a_file_may_be_named_whatever_it_is_called(places, monkeypatch):
    other = places["named"] / "other name"
    other.touch()
    assert find_data(str(other), find, "it") == other
    monkeypatch.setenv("INTTOWER_DATA", str(other))
    assert find_data(None, find, "it") == other


def test_nothing_in_data_is_no_error(places):
    (places["data"] / "it").unlink()
    assert find_data(None, find, "it") is None


def test_a_missing_named_path_is_an_error_and_never_a_fallback(places, monkeypatch):
    missing = places["named"] / "nowhere"
    with pytest.raises(UserError) as caught:
        find_data(str(missing), find, "it")
    assert str(caught.value) == f"--data {missing}: expected it, got no such file or folder; check the path."
    monkeypatch.setenv("INTTOWER_DATA", str(missing))
    with pytest.raises(UserError, match=r"^\$INTTOWER_DATA .*nowhere: expected it, got no such file"):
        find_data(None, find, "it")


def test_a_named_folder_without_the_data_is_an_error_and_never_a_fallback(places, monkeypatch):
    (places["named"] / "it").unlink()
    with pytest.raises(UserError, match=r"^--data .*named: expected it inside, got none of them. Check the names"):
        find_data(str(places["named"]), find, "it")
    monkeypatch.setenv("INTTOWER_DATA", str(places["named"]))
    with pytest.raises(UserError, match=r"^\$INTTOWER_DATA .*named: expected it inside"):
        find_data(None, find, "it")


# --- MovieLens-1M: found, fetched, or invented


@pytest.fixture
def published(monkeypatch, server):
    """Makes the server's file the official archive."""
    monkeypatch.setattr(movielens, "ARCHIVE_BYTES", len(CONTENT))
    monkeypatch.setattr(movielens, "ARCHIVE_SHA256", SHA256)
    return lambda page: monkeypatch.setattr(movielens, "ARCHIVE_URL", f"{server}/{page}")


def test_movielens_in_data_is_not_fetched_again(tmp_path, monkeypatch, closed_port):
    monkeypatch.setattr(movielens, "ARCHIVE_URL", closed_port)
    with zipfile.ZipFile(tmp_path / "data" / "ml-1m.zip", "w"):
        pass
    assert movielens.locate_movielens() == tmp_path / "data" / "ml-1m.zip"


def test_movielens_is_fetched_into_data_and_said_to_be(tmp_path, published, capsys):
    published("right")
    assert movielens.locate_movielens() == tmp_path / "data" / "ml-1m.zip"
    assert (tmp_path / "data" / "ml-1m.zip").read_bytes() == CONTENT
    assert capsys.readouterr().out == f"no MovieLens-1M in data/; fetching {movielens.ARCHIVE_URL}\n"


@pytest.mark.parametrize("page", ["half", "missing"])
def test_without_a_download_the_synthetic_sample_takes_its_place(tmp_path, published, capsys, page):
    published(page)
    assert movielens.locate_movielens() == tmp_path / "data" / "sample-movielens"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["sample-movielens"]
    assert movielens.load_movielens(tmp_path / "data" / "sample-movielens").synthetic
    assert movielens.ARCHIVE_URL in capsys.readouterr().out.splitlines()[1]


def test_an_archive_with_a_wrong_checksum_is_an_error_and_never_a_sample(tmp_path, published):
    published("wrong")
    with pytest.raises(UserError, match="expected sha256"):
        movielens.locate_movielens()
    assert list((tmp_path / "data").iterdir()) == []


def test_a_named_place_without_movielens_is_an_error_and_never_a_download(tmp_path, published):
    published("right")
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"--data .*MovieLens-1M \(ml-1m.zip, or a folder with ratings.dat"):
            movielens.locate_movielens(str(path))
    assert list((tmp_path / "data").iterdir()) == []


# --- Amazon Electronics: found, fetched, or invented


@pytest.fixture
def small_sample(monkeypatch):
    monkeypatch.setattr(amazon, "write_amazon_sample", lambda folder: write_amazon_sample(folder, num_rows=200))


def test_amazon_is_fetched_into_data_and_said_to_be(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setattr(amazon, "FOLDER_URL", f"{server}/right/")
    folder = tmp_path / "data" / "amazon"
    assert amazon.locate_amazon() == (folder / amazon.REVIEWS, folder / amazon.META)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        amazon.META: CONTENT,
        amazon.REVIEWS: CONTENT,
    }
    assert capsys.readouterr().out.splitlines() == [
        f"no {name} in data/amazon/; fetching {server}/right/{name}" for name in (amazon.META, amazon.REVIEWS)
    ]


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize("page", ["half", "missing", "meta-only"])
def test_without_both_amazon_files_the_synthetic_sample_takes_their_place(tmp_path, server, monkeypatch, capsys, page):
    monkeypatch.setattr(amazon, "FOLDER_URL", f"{server}/{page}/")
    sample = tmp_path / "data" / "sample-amazon"
    assert amazon.locate_amazon() == (sample / amazon.REVIEWS, sample / amazon.META)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{server}/{page}/")
    assert amazon.load_amazon(sample / amazon.REVIEWS, sample / amazon.META).synthetic
    # A whole file is kept for the next time, a part of one is not.
    kept = [amazon.META] if page == "meta-only" else []
    assert [path.name for path in (tmp_path / "data").glob("amazon/*")] == kept
