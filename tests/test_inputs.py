"""deepctr-torch's columns come without its question to an outside server."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def run_watched(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run code in a fresh process; each thread and each connection of its own is a line on stderr.

    The `requests` that it would find fails, so it does not matter whether the real one is installed.
    """
    (folder / "requests.py").write_text("raise ImportError('somebody wants requests')\n")
    watch = """
        import sys, threading
        watched = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
        sys.addaudithook(lambda event, arguments: event in watched and print(event, arguments, file=sys.stderr))
        start = threading.Thread.start  # Python 3.11 has no audit event for it
        threading.Thread.start = lambda thread: print("thread started:", thread, file=sys.stderr) or start(thread)
        """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(watch) + textwrap.dedent(code)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def importing(tmp_path_factory) -> subprocess.CompletedProcess:
    return run_watched("import preprocessing.inputs", tmp_path_factory.mktemp("broken"))


def test_importing_the_columns_needs_no_requests(importing):
    assert "somebody wants requests" not in importing.stderr
    assert importing.returncode == 0, importing.stderr


def test_importing_the_columns_starts_no_thread_and_opens_no_connection(importing):
    for event in ("thread started:", "socket."):
        assert event not in importing.stderr


def test_importing_the_columns_prints_nothing(importing):
    assert importing.stdout == ""
    assert importing.stderr == ""


def test_the_columns_are_deepctr_torchs_own():
    from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat

    assert {column.__module__ for column in (DenseFeat, SparseFeat, VarLenSparseFeat)} == {"deepctr_torch.inputs"}


def test_no_stand_in_is_left_among_the_modules():
    import preprocessing.inputs  # noqa: F401

    assert "deepctr_torch.inputs" in sys.modules
    assert "deepctr_torch.utils" not in sys.modules
