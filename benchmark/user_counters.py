"""How long a server takes to count an action, to read a user's statistics, and to save all users.

    OMP_NUM_THREADS=1 python -m benchmark.user_counters

The test rows of MovieLens-1M come one by one, as a server sees them: a user's statistics are read, then its action is
counted. No model takes part.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.choices import STATISTICS
from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.sources import movielens_files


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--actions", type=positive, default=20_000, help="how many (default 20000)")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import tempfile
import time
from pathlib import Path

import numpy as np

from preprocessing.movielens import load_movielens, locate_movielens, read_movielens
from serving.counters import UserCounters


def main(arguments: argparse.Namespace) -> None:
    """Print a line per set of statistics."""
    path = locate_movielens(arguments.data)
    raw = read_movielens(path)
    for statistics in STATISTICS:
        data = load_movielens(path, "online", statistics=statistics)
        counters = UserCounters(data.user_encoder, data.item_encoder, raw.movies)
        log = raw.ratings.iloc[data.test.rows[: arguments.actions]]
        labels = data.test.labels[: arguments.actions].int().tolist()
        actions = list(zip(log["user_id"].tolist(), log["movie_id"].tolist(), labels, strict=True))
        read, counted = np.empty((2, len(actions)))
        for place, (user, movie, label) in enumerate(actions):
            start = time.perf_counter()
            counters.features([user])
            middle = time.perf_counter()
            counters.update([user], [movie], [label])
            read[place], counted[place] = middle - start, time.perf_counter() - middle
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            counters.save(Path(folder) / "counters.npz")
            saved = time.perf_counter() - start
            size = (Path(folder) / "counters.npz").stat().st_size
        numbers = sum(field.counts.shape[1] for field in counters.fields)
        print(
            f"{statistics:10} {numbers:3} numbers a user: read in {np.median(read) * 1e6:.0f} µs, counted in "
            f"{np.median(counted) * 1e6:.0f} µs (medians); {len(counters):,} users saved in {saved * 1e3:.0f} ms, "
            f"{size / 2**20:.1f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
