"""The best 100 of a whole catalogue: a million generated items, exact, for one user.

    OMP_NUM_THREADS=1 python -m benchmark.catalogue

Opening the index is timed with and without its checksums. The share of memory bandwidth is the heads' bytes per second
of a request, over those of a plain sum of the same array, measured in the same run.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=positive, default=1_000_000)
    parser.add_argument("--top", type=positive, default=100)
    parser.add_argument("--rounds", type=positive, default=20)
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import os
import tempfile
import time
from functools import partial

import numpy as np

from serving.choices import DTYPES
from serving.index_files import Form
from serving.item_index import ItemIndex, create_index
from serving.scorer import scorers_here


def timed(work) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(arguments: argparse.Namespace) -> None:
    """Print a line per dtype."""
    generator = np.random.default_rng(0)
    heads = generator.standard_normal((arguments.items, 4, 16), dtype=np.float32)
    user = generator.standard_normal((12, 16), dtype=np.float32)
    best = np.argsort(-plain(user, heads), kind="stable")[: arguments.top]
    print(
        f"cpu, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}, {arguments.items:,} items of 4 x 16 heads, 3 levels"
    )
    print(
        f"{'dtype':10}{'MB':>8}{'open':>10}{'unchecked':>12}{'scorer':>10}{'top 100':>12}{'p99':>12}{'GB/s':>8}"
        f"{'of a sum':>10}"
    )
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory() as folder:
            form = Form("generated", "0" * 64, "item_id", dtype, num_user_heads=12, num_heads=4, head_dim=16, bias=0.0)
            create_index(folder, form)
            ItemIndex(folder).put(np.arange(arguments.items), heads)
            opened, unchecked = (timed(partial(ItemIndex, folder, verify=checked)) for checked in (True, False))
            for scorer in scorers_here():
                index = ItemIndex(folder, scorer=scorer)
                if dtype == "float32":
                    assert index.top_k(user, arguments.top).ids.tolist() == best.tolist()
                seconds = [timed(partial(index.top_k, user, arguments.top)) for _ in range(arguments.rounds)]
                sums = np.median([timed(heads.sum) for _ in range(5)])
                rate = index.bytes_per_item * arguments.items / np.median(seconds) / 1e9
                print(
                    f"{dtype:10}{index.bytes_per_item * arguments.items / 1e6:8.0f}{1e3 * opened:7.0f} ms"
                    f"{1e3 * unchecked:9.0f} ms{scorer:>10}{1e3 * np.median(seconds):9.1f} ms"
                    f"{1e3 * np.quantile(seconds, 0.99):9.1f} ms{rate:8.1f}{rate / (heads.nbytes / sums / 1e9):10.0%}"
                )


def plain(user_QK: np.ndarray, items_NGK: np.ndarray) -> np.ndarray:
    """The formula, (N,)."""
    return np.max([head_NK @ user_QK.T for head_NK in items_NGK.swapaxes(0, 1)], axis=0).sum(1)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
