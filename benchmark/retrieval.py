"""Recall of the exact best of a large catalogue against time: serving/retrieval.py beside the scan of the index.

    python -m benchmark.retrieval --run runs/movielens-IntTower-strict-seed1023 --items 1000000
    python -m benchmark.retrieval --items 1000000    # random heads
    python -m benchmark.retrieval --run runs/movielens-IntTower-strict-seed1023 --items 1000000 --muvera

With --run, the heads are those of its own movies, drawn again and again, each with noise of a share of every number's
standard deviation; the users are its own. Times are of one request; recall is of the exact best 100. With --muvera, so
is that of the best by MUVERA's encodings (benchmark/muvera.py) in place of faiss, among as many candidates.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, positive_number, read_command_line
from serving.choices import check_installed


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help="a run on MovieLens-1M whose heads are drawn from; else random ones")
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--items", type=positive, default=1_000_000)
    parser.add_argument("--noise", type=positive_number, default=0.3, help="of a number's standard deviation (.3)")
    parser.add_argument("--users", type=positive, default=50)
    parser.add_argument("--top", type=positive, default=100)
    parser.add_argument("--probes", type=positive, nargs="+", help="lists gone through (default a quarter, half, all)")
    parser.add_argument("--assignments", type=positive, nargs="+", default=[1, 2, 4])
    parser.add_argument("--candidates", type=positive, nargs="+", default=[4000, 16_000, 32_000], help="per assignment")
    parser.add_argument("--muvera", action="store_true", help="MUVERA too, which takes minutes for a million items")
    arguments = parser.parse_args(words)
    check_installed(["faiss"], "requirements-retrieval.txt")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import itertools
import os
import tempfile
import time

import numpy as np

from benchmark.muvera import Muvera
from preprocessing.movielens import locate_movielens, read_movielens
from serving.build_index import form_of
from serving.index_files import Form
from serving.item_index import ItemIndex, TopK, create_index
from serving.retrieval import Retriever
from serving.trained_run import load_run

AT_ONCE = 2**18  # items that are drawn and put into the index at once


def heads_of(arguments: argparse.Namespace, generator: np.random.Generator):
    """The form of the index, a function that draws heads of so many items, and users (B, Q, K)."""
    if arguments.run is None:
        form = Form("random", "0" * 64, "item_id", "float32", num_user_heads=12, num_heads=4, head_dim=16, bias=0.0)
        users = generator.standard_normal((arguments.users, 12, 16), dtype=np.float32)
        return form, lambda size: generator.standard_normal((size, 4, 16), dtype=np.float32), users
    run, raw = load_run(arguments.run), read_movielens(locate_movielens(arguments.data))
    items, users = run.encode_items(raw.movies), run.encode_users(raw.users.sample(arguments.users, random_state=0))
    noise = np.float32(arguments.noise) * items.std(0)

    def draw(size: int) -> np.ndarray:
        drawn = items[generator.integers(0, len(items), size)]
        return drawn + noise * generator.standard_normal(drawn.shape, dtype=np.float32)

    return form_of(run, "float32"), draw, users


def main(arguments: argparse.Namespace) -> None:
    """Print a line for the scan, then one for each number of probes, assignments and candidates."""
    generator = np.random.default_rng(0)
    form, draw, users = heads_of(arguments, generator)
    with tempfile.TemporaryDirectory() as folder:
        create_index(folder, form)
        index = ItemIndex(folder, verify=False)
        for start in range(0, arguments.items, AT_ONCE):
            ids = np.arange(start, min(start + AT_ONCE, arguments.items))
            index.put(ids, draw(len(ids)))
        exact, seconds = timed([lambda user=user: index.top_k(user, arguments.top) for user in users])
        what = "random" if arguments.run is None else f"those of {arguments.run} with noise of {arguments.noise:g}"
        print(f"cpu, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}, {arguments.items:,} items, heads: {what}")
        titles = f"{'':10}{'probes':>7}{'assignments':>12}{'candidates':>11}"
        print(f"{titles}{'recall':>8}{'p50':>11}{'p99':>11}{'of scan':>9}")
        scan = np.median(seconds)
        print_line("scan", ("-", "-", "-"), 1.0, seconds, scan)
        start = time.perf_counter()
        retriever = Retriever(index)
        built = time.perf_counter() - start
        all_lists = 2 * retriever.num_probes
        probes = arguments.probes or [-(-all_lists // 4), retriever.num_probes, all_lists]
        for asked in itertools.product(probes, arguments.assignments, arguments.candidates):
            retriever.num_probes, retriever.num_assignments, retriever.num_candidates = asked
            best, seconds = timed([lambda user=user: retriever.top_k(user, arguments.top) for user in users])
            print_line("retrieval", asked, recall(exact, [of_user.ids for of_user in best]), seconds, scan)
        print(f"the retriever took {built:.0f} s to make")
        if arguments.muvera:
            encoding = Muvera(form.head_dim, generator)
            scores = encoding.scores(users, (segment.heads for segment in index.segments))
            ids = np.concatenate([segment.ids for segment in index.segments])
            for size in arguments.candidates:
                last = min(size, len(ids)) - 1
                found = [ids[np.argpartition(-of_user, last)[:size]] for of_user in scores]
                print(f"MUVERA, {encoding.size:,} numbers an item, {size} candidates: {recall(exact, found):.3f}")


def recall(exact: list[TopK], found: list[np.ndarray]) -> float:
    """The share of the exact best that are among what was found, over users."""
    return float(np.mean([np.isin(best.ids, ids).mean() for best, ids in zip(exact, found, strict=True)]))


def timed(calls: list) -> tuple[list, np.ndarray]:
    """What calls give, and the seconds of each, after one that does not count."""
    calls[0]()
    given, seconds = [], []
    for call in calls:
        start = time.perf_counter()
        given.append(call())
        seconds.append(time.perf_counter() - start)
    return given, np.array(seconds)


def print_line(name: str, asked: tuple, recall: float, seconds: np.ndarray, scan: float) -> None:
    """A line of the table."""
    probes, assignments, candidates = asked
    p50, p99 = 1e3 * np.quantile(seconds, (0.5, 0.99))
    line = f"{name:10}{probes:>7}{assignments:>12}{candidates:>11}{recall:8.3f}"
    print(f"{line}{p50:8.1f} ms{p99:8.1f} ms{p50 / 1e3 / scan:9.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
