"""Show that another version of the code gives the same numbers, so that what it recorded stays valid.

    git worktree add ../before HEAD~1
    python -m reproduction.same_code --before ../before --why "imports moved, nothing computed otherwise"

Every model is trained for some epochs by both versions, on the same data with one seed and one thread. Where all losses
and metrics are equal bit for bit, results/same_code.json says so, with what was shown; a record then counts as made by
the code that is here (reproduction/runs.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model import MODELS
from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.errors import UserError
from preprocessing.sources import movielens_files

SCRIPT = "train_movielens_IntTower.py"


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", required=True, type=Path, help="a checkout of the other version")
    parser.add_argument("--why", required=True, help="what was changed, in a few words")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS), help="default: all")
    parser.add_argument("--epochs", type=positive, default=2)
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    arguments = parser.parse_args(words)
    if not (arguments.before / SCRIPT).is_file():
        raise UserError(f"--before {arguments.before}: expected a checkout with {SCRIPT}, got none; check the path.")
    movielens_files(arguments.data)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below

import json
import subprocess
import tempfile

from experiment.code_version import PROJECT
from experiment.folder import RECORD
from experiment.settings import UNTUNED
from preprocessing.files import write_atomically
from preprocessing.movielens import locate_movielens
from reproduction.processes import one_thread
from reproduction.runs import SAME_CODE, read_same_code

EQUAL = ("tables", "test", "valid", "best_epoch")
OF_EPOCH = ("train_loss", "train_auxiliary_loss", "valid_auc", "valid_logloss")


def record_of(checkout: Path, model: str, epochs: int, data: Path, folder: Path) -> dict:
    """Train a model by a version of the code; raises UserError where that fails."""
    flags = ["--model", model, "--epochs", str(epochs), "--data", str(data.resolve()), "--output", str(folder)]
    if "UNTUNED" in (checkout / "experiment" / "settings.py").read_text():  # else it knows no such preset
        flags += ["--preset", UNTUNED]
    run = subprocess.run(
        [sys.executable, SCRIPT, *flags, "--device", "cpu"],
        cwd=checkout,
        env=one_thread(),
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise UserError(f"{checkout}: {model} could not be trained: {run.stderr.strip().splitlines()[-1]}")
    return json.loads((folder / RECORD).read_text())


def differences(before: dict, after: dict) -> list[str]:
    """What two records do not have in common, bit for bit."""
    different = [name for name in EQUAL if before[name] != after[name]]
    for old, new in zip(before["history"], after["history"], strict=True):
        different += [f"epoch {new['epoch']}: {name}" for name in OF_EPOCH if old[name] != new[name]]
    return different


def main(arguments: argparse.Namespace) -> None:
    """Train, compare, note; raises UserError where a number differs."""
    data, entry = locate_movielens(arguments.data), {"why": arguments.why, "epochs": arguments.epochs, "models": {}}
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as place:
            before, after = (
                record_of(checkout, model, arguments.epochs, data, Path(place) / name)
                for name, checkout in (("before", arguments.before), ("after", PROJECT))
            )
        if different := differences(before, after):
            raise UserError(f"{model}: expected the same numbers of both versions, got other {', '.join(different)}.")
        entry |= {name: after[name] for name in ("dataset", "fingerprint", "seed", "versions")}
        entry["models"][model] = {"before": before["code"], "after": after["code"], "test": after["test"]}
        print(f"{model}: equal bit for bit, test AUC {after['test']['auc']!r}", flush=True)
    entries = [*read_same_code(), entry]
    write_atomically(SAME_CODE, (json.dumps(entries, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
