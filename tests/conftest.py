"""Data that several test files read."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

# Small models gain nothing from more threads, and lose much where other work runs on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What tests write goes to memory where there is enough: every file is flushed to the disk before it counts as written.
IN_MEMORY = Path("/dev/shm")
if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))

from preprocessing.sample_movielens import write_movielens_sample


def pytest_itemcollected(item):
    """What is not marked slow is quick."""
    if item.get_closest_marker("slow") is None:
        item.add_marker("quick")


def pytest_collection_modifyitems(items):
    """Start the files with most slow tests first, so that no core waits at the end."""
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -num_slow[item.path])


class FileByFile(LoadFileScheduling):
    """A file stays in one process, since its tests share what they made, but for the pages', a minute each."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if "test_pages.py" in nodeid else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return FileByFile(config, log)


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory) -> Path:
    """A small synthetic MovieLens sample in the official layout."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    return write_movielens_sample(folder, num_users=120, num_movies=80, num_ratings=4000)


@pytest.fixture(scope="session")
def real_movielens() -> Path:
    """The official ml-1m.zip, in the folder that INTTOWER_DATA names; where there is none, the test is skipped."""
    folder = os.environ.get("INTTOWER_DATA")
    if not folder:
        pytest.skip("needs the real MovieLens-1M: INTTOWER_DATA is not set")
    archive = Path(folder) / "ml-1m.zip"
    if not archive.is_file():
        pytest.skip(f"needs the real MovieLens-1M: no ml-1m.zip in INTTOWER_DATA ({folder})")
    return archive
