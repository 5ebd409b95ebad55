"""Running the project's commands as a person does, from the shell."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from training.checkpoint import load_checkpoint

PROJECT = Path(__file__).resolve().parent.parent
SCRIPT = "train_movielens_IntTower.py"
# No proxy listens there: a download fails at once, on a machine with and without a network.
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def environment(**changes: str) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if name != "INTTOWER_DATA"}
    return base | NO_NETWORK | changes


def start(*arguments: str, folder: Path = PROJECT, **options) -> subprocess.Popen:
    options.setdefault("env", environment())
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments: str, folder: Path = PROJECT, **options) -> subprocess.CompletedProcess:
    process = start(*arguments, folder=folder, **options)
    stdout, stderr = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def train(*arguments: str, **options) -> subprocess.CompletedProcess:
    return run(SCRIPT, *arguments, **options)


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
