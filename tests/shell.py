"""Running the project's commands as a person does, from the shell."""

import io
import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from preprocessing import sources
from training.checkpoint import load_checkpoint

PROJECT = Path(__file__).resolve().parent.parent
SCRIPT = "train_movielens_IntTower.py"
# No proxy listens there: a download fails at once, on a machine with and without a network.
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def environment(**changes: str) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if name != "INTTOWER_DATA"}
    return base | NO_NETWORK | changes


def start(*arguments: str, folder: Path = PROJECT, **options) -> subprocess.Popen:
    """A command in a process of its own, on one thread."""
    options.setdefault("env", environment())
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_in_process(*arguments: str, folder: Path = PROJECT, **options) -> subprocess.CompletedProcess:
    """A command in a process of its own, to its end: where the process is the claim, or the project is a copy."""
    process = start(*arguments, folder=folder, **options)
    stdout, stderr = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """A command as `python` would run it, in this process: what it prints and the code it leaves with."""
    words = [*map(str, arguments)]
    before = {"argv": sys.argv, "folder": os.getcwd(), "cache": sources.CACHE_FOLDER, "environ": dict(os.environ)}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        os.chdir(PROJECT)
        sources.CACHE_FOLDER = Path(tempfile.mkdtemp())
        _set_environment(environment() if env is None else env)
        with redirect_stdout(stdout), redirect_stderr(stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
            code = _exit_code(words)
    finally:
        sys.argv = before["argv"]
        os.chdir(before["folder"])
        _set_environment(before["environ"])
        shutil.rmtree(sources.CACHE_FOLDER)
        sources.CACHE_FOLDER = before["cache"]
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())


def _exit_code(words: list[str]) -> int:
    is_module = words[0] == "-m"
    sys.argv = words[1:] if is_module else words
    try:
        if is_module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


def _set_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def train(*arguments: str, **options) -> subprocess.CompletedProcess:
    return run(SCRIPT, *arguments, **options)


@contextmanager
def limited_file_size(num_bytes: int) -> Iterator[None]:
    """Within the block a disk that is full: no file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def copy_of_the_project(target: Path) -> Path:
    """A checkout without data, runs and history."""
    ignore = shutil.ignore_patterns(".git", "runs", "data", "__pycache__", ".pytest_cache", ".ruff_cache")
    return shutil.copytree(PROJECT, target, ignore=ignore)


def assert_refused(result: subprocess.CompletedProcess, *fragments: str) -> None:
    """Exit code 2, and one readable line that holds the fragments."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for fragment in fragments:
        assert fragment in lines[0], lines[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder / "checkpoint.pt")
    return {f"{part}.{name}": value for part in ("model", "best_model") for name, value in state[part].items()}


def assert_same_run(folder: Path, other: Path) -> None:
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    losses = [
        [(row["train_loss"], row["valid_auc"]) for row in json.loads((f / "record.json").read_text())["history"]]
        for f in (folder, other)
    ]
    assert losses[0] == losses[1]
