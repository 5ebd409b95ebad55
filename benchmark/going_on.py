"""A second day of KuaiRand-Pure from the weights of the first, and from scratch.

    python -m benchmark.going_on
    python -m benchmark.going_on --days 7 --seeds 1

The standard logs are cut by their dates: the first days, and the day behind them. Both are split by time on their own,
and a model is trained on each as the script trains it, the second day by `--init-from` and without. Judged is the last
fifth of the second day.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.errors import UserError
from preprocessing.sources import kuairand_files


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="KuaiRand-Pure, as for the training script; a folder")
    parser.add_argument("--days", type=positive, default=1, help="that come first (default 1)")
    parser.add_argument("--models", nargs="+", default=["IntTower", "DSSM", "DCN"])
    parser.add_argument("--seeds", type=positive, default=3, help="of which the mean is told (default 3)")
    arguments = parser.parse_args(words)
    arguments.data = kuairand_files(arguments.data)
    if arguments.data is None or not arguments.data.is_dir():
        raise UserError(f"--data: expected a folder with KuaiRand-Pure's files, got {arguments.data}; unpack it.")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below

import json
import subprocess
import tempfile
from pathlib import Path
from statistics import mean

import pandas as pd

from experiment.code_version import PROJECT
from experiment.folder import RECORD
from preprocessing.sources import KUAIRAND_USERS, KUAIRAND_VIDEOS
from reproduction.processes import one_thread
from reproduction.runs import FIRST_SEED


def write_days(logs: pd.DataFrame, dates: list[int], features: Path, folder: Path) -> int:
    """A folder as the training script reads it, with the rows of some dates; returns how many."""
    folder.mkdir()
    rows = logs[logs["date"].isin(dates)]
    first, last = (f"{date // 100 % 100}_{date % 100:02d}" for date in (dates[0], dates[-1]))
    rows.to_csv(folder / f"log_standard_{first}_to_{last}_pure.csv", index=False)
    for name in (KUAIRAND_USERS, KUAIRAND_VIDEOS):
        for path in features.glob(f"{name}*"):
            (folder / path.name).symlink_to(path.resolve())
    return len(rows)


def train(data: Path, output: Path, model: str, seed: int, *flags: str) -> dict:
    """Train by the script; returns the record."""
    command = [sys.executable, "train_kuairand_IntTower.py", "--protocol", "temporal", "--no-cache", *flags]
    command += ["--data", data, "--output", output, "--model", model, "--seed", str(seed), "--device", "cpu"]
    run = subprocess.run(command, cwd=PROJECT, env=one_thread(), capture_output=True, text=True)
    if run.returncode:
        raise UserError(f"{model} could not be trained: {run.stderr.strip().splitlines()[-1]}")
    return json.loads((output / RECORD).read_text())


def main(arguments: argparse.Namespace) -> None:
    """Print a line per model."""
    found = sorted(path for path in arguments.data.rglob("log_standard_*_pure.csv*"))
    logs = pd.concat([pd.read_csv(path) for path in found], ignore_index=True)
    dates = sorted(int(date) for date in logs["date"].unique())[: arguments.days + 1]
    with tempfile.TemporaryDirectory() as place:
        place = Path(place).resolve()
        features = next(arguments.data.rglob(f"{KUAIRAND_USERS}*")).parent
        before = write_days(logs, dates[:-1], features, place / "before")
        after = write_days(logs, dates[-1:], features, place / "after")
        print(
            f"kuairand: {before:,} rows of {len(dates) - 1} days, then {after:,} of the next; {arguments.seeds} seeds"
        )
        print(f"{'model':10}{'from scratch':>17}{'going on':>16}{'lead':>9}   of the seeds, AUC")
        for model in arguments.models:
            scratch, going_on = [], []
            for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
                folder = place / f"{model}-{seed}"
                train(place / "before", folder / "before", model, seed)
                scratch.append(train(place / "after", folder / "scratch", model, seed)["test"])
                flags = ("--init-from", folder / "before")
                going_on.append(train(place / "after", folder / "on", model, seed, *flags)["test"])
            told = [
                f"{mean(t['auc'] for t in tests):.4f}/{mean(t['logloss'] for t in tests):.4f}"
                for tests in (scratch, going_on)
            ]
            leads = [b["auc"] - a["auc"] for a, b in zip(scratch, going_on, strict=True)]
            print(
                f"{model:10}{told[0]:>16}{told[1]:>16}{mean(leads):>+9.4f}   {min(leads):+.4f} to {max(leads):+.4f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
