"""Files that are written whole or not at all."""

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from shell import run_in_process
from tables import refusal

from preprocessing.files import write_atomically


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
