"""Files that are written whole or not at all."""

import errno
import os
import resource
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from shell import run_in_process
from tables import refusal

from preprocessing.errors import UserError
from preprocessing.files import locked, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def old(tmp_path) -> Path:
    """A file, alone in its folder."""
    (tmp_path / "file").write_bytes(b"old")
    return tmp_path / "file"


def assert_old_and_alone(path: Path) -> None:
    assert path.read_bytes() == b"old"
    assert names(path.parent) == [path.name]


def assert_refused(path: Path, reason: str) -> None:
    message = refusal(write_atomically, path, bytes(100_000))
    assert message.startswith(f"{path}: could not be saved ({reason}); what stood there before is untouched.")


def test_bytes_arrive_in_a_folder_that_is_made_for_them(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "file", b"new")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"
    assert names(tmp_path / "a" / "b") == ["file"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(old):
    seen = []

    def content(file):
        for piece in (b"n", b"w"):
            file.write(piece)
            file.flush()
            seen.append(old.read_bytes())

    write_atomically(old, content)
    assert seen == [b"old", b"old"]
    assert old.read_bytes() == b"nw"  # and nothing of the longer old one


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(old, error):
    def content(file):
        file.write(b"half of the n")
        raise error

    with pytest.raises(error):
        write_atomically(old, content)
    assert_old_and_alone(old)


def test_a_process_killed_while_it_writes_leaves_the_old_file(old):
    code = """
import os, signal, sys
from preprocessing.files import write_atomically
def content(file):
    file.write(b"x" * 100_000)
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(sys.argv[1], content)
"""
    assert run_in_process("-c", code, old).returncode == -9
    assert old.read_bytes() == b"old"


def test_two_threads_that_write_one_path_both_write_it_whole(old):
    half, whole = threading.Event(), threading.Event()

    def slowly(file):
        file.write(b"one")
        half.set()
        assert whole.wait(10)
        file.write(b", whole")

    one = threading.Thread(target=write_atomically, args=(old, slowly))
    one.start()
    assert half.wait(10)
    write_atomically(old, b"another")
    assert old.read_bytes() == b"another"
    whole.set()
    one.join()
    assert old.read_bytes() == b"one, whole"
    assert names(old.parent) == ["file"]


def test_a_write_over_the_size_limit_leaves_the_old_file_and_no_other(old):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        assert_refused(old, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_old_and_alone(old)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB that holds an old file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
    (folder / "file").write_bytes(b"old")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_and_a_read_only_one_leave_the_old_file_and_no_other(small_disk):
    assert_refused(small_disk / "file", "No space left on device")
    assert_old_and_alone(small_disk / "file")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert_refused(small_disk / "file", "Read-only file system")
    assert_old_and_alone(small_disk / "file")


def test_a_path_that_no_file_can_have_is_refused_in_one_line(old):
    folder = old.parent / "folder"
    folder.mkdir()
    assert_refused(old / "below", "File exists")
    assert_refused(folder, "Is a directory")
    assert_refused(folder / ("n" * 300), "File name too long")
    assert names(folder) == []
    folder.rmdir()
    assert_old_and_alone(old)


def test_what_goes_with_the_old_file_goes_when_the_new_one_is_whole(old):
    beside = old.with_name("beside")
    beside.write_bytes(b"older")

    def before() -> None:
        assert old.read_bytes() == b"old"
        beside.unlink()

    write_atomically(old, b"new", before)
    assert (old.read_bytes(), names(old.parent)) == (b"new", ["file"])


def test_where_what_goes_with_it_cannot_be_written_the_old_file_stays(old):
    message = refusal(write_atomically, old, b"new", lambda: write_atomically(old / "below", b"new"))
    assert message.startswith(f"{old / 'below'}: could not be saved (")
    assert_old_and_alone(old)


def test_a_lock_is_waited_for_or_refused_while_another_has_it(tmp_path):
    def refuse() -> None:
        raise UserError("taken")

    with locked(tmp_path / "lock", refuse):
        assert refusal(_enter, tmp_path / "lock", refuse) == "taken"
        waiting = threading.Event()
        second = threading.Thread(target=_enter, args=(tmp_path / "lock", waiting.set))
        second.start()
        assert waiting.wait(10)
        assert second.is_alive()
    second.join(10)
    assert not second.is_alive()
    _enter(tmp_path / "lock", refuse)


def _enter(path: Path, when_taken) -> None:
    with locked(path, when_taken):
        pass


def test_where_a_file_system_has_no_locks_it_is_said_and_the_work_goes_on(tmp_path, monkeypatch, capsys):
    def refuse(*_) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    _enter(tmp_path / "lock", pytest.fail)
    said = capsys.readouterr().err
    assert said == f"{tmp_path / 'lock'}: no locks on this file system; keep to one process at a time here.\n"
