"""What an index in fewer bytes costs: AUC on the test split of MovieLens-1M, from float32, float16 and int8.

python -m benchmark.quantisation --runs runs/movielens-IntTower-strict-seed1023 runs/movielens-DSSM-strict-seed1023
"""

from __future__ import annotations

import argparse
import sys

from experiment.flags import levels
from experiment.folder import check_run_folder
from preprocessing.command import Parser, exit_code, read_command_line
from preprocessing.sources import movielens_files


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", nargs="+", required=True, help="folders of two-tower models' runs on MovieLens-1M")
    parser.add_argument("--levels", default="all", type=levels, help="IntTower: levels to serve: all, last, or 0,2")
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    arguments = parser.parse_args(words)
    for folder in arguments.runs:
        check_run_folder(folder)
    movielens_files(arguments.data)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import tempfile

import numpy as np
import pandas as pd

from preprocessing.movielens import load_movielens, locate_movielens, read_movielens
from serving.build_index import build_index
from serving.choices import DTYPES
from serving.item_index import ItemIndex
from serving.trained_run import TrainedRun, load_run
from training.metrics import auc


def test_logits(run: TrainedRun, index: ItemIndex, users: pd.DataFrame, ratings: pd.DataFrame) -> np.ndarray:
    """(N,) the index's logits of the test rows, user by user."""
    of_user = ratings.groupby("user_id", sort=False).indices
    encoded = run.encode_users(users.set_index("user_id", drop=False).loc[list(of_user)])
    movies, logits = ratings["movie_id"].to_numpy(), np.empty(len(ratings), np.float32)
    for heads, rows in zip(encoded, of_user.values(), strict=True):
        logits[rows] = index.score(heads, movies[rows])
    return logits


def main(arguments: argparse.Namespace) -> None:
    """Print a line per run and dtype."""
    path = locate_movielens(arguments.data)
    raw = read_movielens(path)
    print(f"levels: {arguments.levels}")
    print(f"{'model':12}{'heads':>8}{'dtype':>10}{'bytes an item':>16}{'test AUC':>12}{'lost':>12}")
    for folder in arguments.runs:
        run = load_run(folder, arguments.levels)
        test = load_movielens(path, run.identity["protocol"], split_seed=run.identity["split_seed"]).test
        ratings, labels = raw.ratings.loc[test.rows], test.labels.numpy()
        whole = None
        for dtype in DTYPES:
            with tempfile.TemporaryDirectory() as place:
                index = build_index(run, raw.movies, place, dtype)
                reached = auc(labels, test_logits(run, index, raw.users, ratings))
            whole = reached if whole is None else whole
            heads = f"{run.heads.num_heads} x {run.heads.head_dim}"
            print(
                f"{run.identity['model']:12}{heads:>8}{dtype:>10}{index.bytes_per_item:16d}{reached:12.6f}"
                f"{whole - reached:12.6f}"
            )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
