import os
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from preprocessing.errors import UserError
from preprocessing.files import write_atomically

PROJECT = Path(__file__).resolve().parent.parent


def run(code: str, *arguments: Path, **options) -> subprocess.CompletedProcess:
    """Run code in a process of its own, which may be broken."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_arrive_in_a_folder_that_is_made_for_them(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "file", b"new")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"
    assert names(tmp_path / "a" / "b") == ["file"]


def test_an_older_file_is_replaced_whole(tmp_path):
    (tmp_path / "file").write_bytes(b"older and longer")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []

    def content(file):
        for piece in (b"ne", b"w"):
            file.write(piece)
            file.flush()
            seen.append(path.read_bytes())

    write_atomically(path, content)
    assert seen == [b"old", b"old"]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, error):
    (tmp_path / "file").write_bytes(b"old")

    def content(file):
        file.write(b"half of the n")
        raise error

    with pytest.raises(error):
        write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    result = run(
        """
        import os, signal, sys
        from preprocessing.files import write_atomically
        def content(file):
            file.write(b"x" * 100_000)
            os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(sys.argv[1], content)
        """,
        tmp_path / "file",
    )
    assert result.returncode == -9
    assert (tmp_path / "file").read_bytes() == b"old"


WRITE_100_KB = """
    import sys
    from preprocessing.errors import UserError
    from preprocessing.files import write_atomically
    try:
        write_atomically(sys.argv[1], bytes(100_000))
    except UserError as error:
        sys.exit(str(error))
    """


def assert_refused_and_old(result: subprocess.CompletedProcess, path: Path, reason: str) -> None:
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"{path}: could not be saved ({reason}); what stood there before is untouched.")
    assert path.read_bytes() == b"old"
    assert names(path.parent) == [path.name]


def test_a_write_over_the_size_limit_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    result = run(WRITE_100_KB, tmp_path / "file", preexec_fn=limit)
    assert_refused_and_old(result, tmp_path / "file", "File too large")


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


def test_a_full_disk_leaves_the_old_file_and_no_other(small_disk):
    result = run(WRITE_100_KB, small_disk / "file")
    assert_refused_and_old(result, small_disk / "file", "No space left on device")


def test_a_read_only_disk_leaves_the_old_file_and_no_other(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = run(WRITE_100_KB, small_disk / "file")
    assert_refused_and_old(result, small_disk / "file", "Read-only file system")


def test_a_path_that_no_file_can_have_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "file" / "below", "File exists"),
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / ("n" * 300), "File name too long"),
    ):
        with pytest.raises(UserError) as caught:
            write_atomically(path, b"new")
        assert str(caught.value).startswith(f"{path}: could not be saved ({reason});")
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"old"
