"""A request as a server answers it: one user's features in, scores of N candidates of an index out.

    python -m benchmark.serving_latency

A two-tower model encodes the user and scores the candidates by their ids; a ranking model (DCN and others) runs its
network on every pair, its candidates' features being in memory. Weights and items are random: they do not change the
time. Requests of the models alternate; a line is a model at a number of candidates and threads. Last come requests per
second of two processes with one thread each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import threadpoolctl
import torch

from model import model_class
from preprocessing.movielens import load_movielens, locate_movielens
from preprocessing.tables import Dataset
from serving.heads import Heads
from serving.index_files import Form
from serving.item_index import ItemIndex, create_index
from training.memory import keep_freed_memory
from training.trainer import seed_everything

TWO_TOWERS = {
    "IntTower 4 x 16": ("IntTower", {}),
    "IntTower 4 x 16, last level": ("IntTower", {"levels": "last"}),
    "IntTower 8 x 32": ("IntTower", {"user_head": 8, "item_head": 8, "field_dim": 32}),
    "IntTower 32 x 64": ("IntTower", {"user_head": 32, "item_head": 32, "field_dim": 64}),
    "DSSM": ("DSSM", {}),
    "DAT": ("DAT", {}),
}
RANKING = ("COLD", "WDL", "DeepFM", "DCN", "AutoInt")


def two_tower(name: str, data: Dataset, folder: Path, num_items: int) -> tuple[Callable, int]:
    """A function that answers for a test row's user and candidate ids, and the bytes of an item."""
    kind, options = TWO_TOWERS[name]
    seed_everything(0)
    heads = Heads(model_class(kind).from_columns(data.user_columns, data.item_columns, **options))
    form = Form(kind, "0" * 64, "id", "float32", heads.num_user_heads, heads.num_heads, heads.head_dim, heads.bias)
    create_index(folder, form)
    index = ItemIndex(folder)
    shape = (heads.num_heads, num_items, heads.head_dim)
    index.put(np.arange(num_items), np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    names = [column.name for column in data.user_columns]

    def answer(row: int, candidates: np.ndarray) -> np.ndarray:
        features = {name: data.test.features[name][np.array([row])] for name in names}
        return index.score(heads.user(features)[0].numpy(), candidates)

    return answer, index.bytes_per_item


def ranking(name: str, data: Dataset, num_items: int) -> Callable:
    """A function that answers by running the network on every pair."""
    seed_everything(0)
    model = model_class(name).from_columns(data.user_columns, data.item_columns).eval()
    user_names, item_names = ([c.name for c in columns] for columns in (data.user_columns, data.item_columns))
    rows = np.arange(num_items) % len(data.test)
    items = {key: value for key, value in data.test.batch(rows).items() if key in item_names}

    def answer(row: int, candidates: np.ndarray) -> np.ndarray:
        user = {name: data.test.features[name][np.array([row])] for name in user_names}
        features = {key: value.expand(len(candidates), *value.shape[1:]) for key, value in user.items()}
        features |= {key: value[torch.from_numpy(candidates)] for key, value in items.items()}
        return model(features).numpy()

    return answer


@torch.inference_mode()
def latencies(answers: dict[str, Callable], num_candidates: int, num_items: int, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each request, (rounds,) by name; models alternate, after requests that do not count."""
    generator = np.random.default_rng(0)
    taken = {name: np.empty(rounds) for name in answers}
    for i in range(-3, rounds):
        row, candidates = int(generator.integers(100)), generator.integers(0, num_items, num_candidates)
        for name, answer in answers.items():
            start = time.perf_counter()
            answer(row, candidates)
            if i >= 0:
                taken[name][i] = 1e3 * (time.perf_counter() - start)
    return taken


def work(name: str, path: str, num_items: int, seconds: float, counted) -> None:
    """Answer requests of 1,000 candidates for some seconds; add how many to a shared count."""
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1), tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        answer, _ = two_tower(name, load_movielens(path), Path(folder), num_items)
        generator, num_requests = np.random.default_rng(0), 0
        counted.barrier.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer(int(generator.integers(100)), generator.integers(0, num_items, 1000))
            num_requests += 1
        counted.queue.put(num_requests)


class Counted:
    """What workers meet at and report to."""

    def __init__(self, context, num_workers: int):
        self.barrier, self.queue = context.Barrier(num_workers), context.Queue()


def requests_per_second(name: str, path: str, num_items: int, seconds: float, num_workers: int) -> float:
    """Of processes with one thread each that start together."""
    context = multiprocessing.get_context("spawn")
    counted = Counted(context, num_workers)
    workers = [context.Process(target=work, args=(name, path, num_items, seconds, counted)) for _ in range(num_workers)]
    for worker in workers:
        worker.start()
    total = sum(counted.queue.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total / seconds


def main() -> None:
    """Print a line per model, candidates and threads, then the requests per second."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--items", type=int, default=100_000, help="in the index")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=100, help="requests of each model at 1,000 candidates")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the requests per second, per model")
    parser.add_argument("--json", type=Path, help="also write the records to a file, as JSON lines")
    arguments = parser.parse_args()
    keep_freed_memory()
    path = str(locate_movielens(arguments.data))
    data, records = load_movielens(path), []
    print(f"cpu, numpy {np.__version__}, torch {torch.__version__}")
    print(f"{'model':30}{'candidates':>12}{'threads':>9}{'p50':>12}{'p95':>12}{'p99':>12}{'bytes an item':>15}")
    with tempfile.TemporaryDirectory() as folder:
        answers, sizes = {}, {}
        for name in TWO_TOWERS:
            answers[name], sizes[name] = two_tower(name, data, Path(folder) / name, arguments.items)
        answers |= {name: ranking(name, data, arguments.items) for name in RANKING}
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            with threadpoolctl.threadpool_limits(threads):
                for num_candidates in arguments.candidates:
                    # The ranking models take seconds at 100,000.
                    rounds = max(5, arguments.rounds * 1000 // num_candidates)
                    for name, taken in latencies(answers, num_candidates, arguments.items, rounds).items():
                        p50, p95, p99 = np.quantile(taken, (0.5, 0.95, 0.99))
                        record = {"model": name, "candidates": num_candidates, "threads": threads, "rounds": rounds}
                        record |= {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "bytes_per_item": sizes.get(name)}
                        records.append(record)
                        print(
                            f"{name:30}{num_candidates:12,d}{threads:9d}{p50:9.2f} ms{p95:9.2f} ms{p99:9.2f} ms"
                            f"{sizes.get(name, '-'):>15}",
                            flush=True,
                        )
    print(f"\n{'model':30}{'requests/s of 1,000 candidates, 2 processes':>48}")
    for name in TWO_TOWERS:
        rate = requests_per_second(name, path, arguments.items, arguments.seconds, num_workers=2)
        records.append({"model": name, "candidates": 1000, "workers": 2, "requests_per_second": rate})
        print(f"{name:30}{rate:48,.0f}", flush=True)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    main()
