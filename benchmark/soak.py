"""Minutes of requests beside updates of the index: wrong answers are counted, memory is watched.

    OMP_NUM_THREADS=1 python -m benchmark.soak --minutes 5

Two threads score candidates and ask for the best of all items while a third adds, replaces and removes items. An item's
heads follow from its id and its version, and the writer notes each generation's versions before it publishes them, so
each answer is compared with what its generation must give.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive_number, read_command_line


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=positive_number, default=5.0)
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import tempfile
import threading
import time

import numpy as np

from serving.index_files import Form
from serving.item_index import ItemIndex, create_index
from serving.maxsim import maxsim
from training.memory import current_memory_bytes

IDS, CANDIDATES, TOP, VERSIONS = 50_000, 500, 20, 64
FORM = Form("soak", "0" * 64, "item_id", "float32", num_user_heads=12, num_heads=4, head_dim=16, bias=0.25)


class Truth:
    """What every generation holds: the version of each id, -1 for none."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.base = generator.standard_normal((IDS, FORM.num_heads, FORM.head_dim), dtype=np.float32)
        self.change = generator.standard_normal((VERSIONS, FORM.head_dim), dtype=np.float32)
        self.versions: dict[int, np.ndarray] = {0: np.full(IDS, -1, np.int16)}

    def heads(self, ids: np.ndarray, versions: np.ndarray) -> np.ndarray:
        """(N, G, K) of items in some versions."""
        return self.base[ids] + self.change[versions % VERSIONS][:, None]

    def scores(self, user_QK: np.ndarray, ids: np.ndarray, versions: np.ndarray) -> np.ndarray:
        """Logits of ids in some versions, -inf for none, by the formula."""
        products = np.einsum("qk,ngk->qgn", user_QK, self.heads(ids, versions))
        return np.where(versions >= 0, products.max(1).sum(0) + FORM.bias, -np.inf)

    def forget_before(self, generation: int) -> None:
        for old in [g for g in self.versions if g < generation]:
            del self.versions[old]


def update(folder: str, truth: Truth, stop: threading.Event, counts: dict) -> None:
    """Add, replace and remove items until told to stop."""
    writer, generator = ItemIndex(folder), np.random.default_rng(1)
    while not stop.is_set():
        versions = truth.versions[writer.generation].copy()
        ids = generator.choice(IDS, size=int(generator.integers(1, 400)), replace=False)
        if generator.random() < 0.3:
            ids = ids[versions[ids] >= 0]
            versions[ids] = -1
        else:
            versions[ids] += 1
        if not len(ids):
            continue
        truth.versions[writer.generation + 1] = versions
        if versions[ids[0]] < 0:
            writer.remove(ids)
        else:
            writer.put(ids, truth.heads(ids, versions[ids]))
        counts["updates"] += 1


def ask(folder: str, truth: Truth, stop: threading.Event, counts: dict, seed: int) -> None:
    """Score and rank until told to stop; compare each answer with the truth of its generation."""
    reader, generator = ItemIndex(folder), np.random.default_rng(seed)
    while not stop.is_set():
        reader.refresh()
        versions = truth.versions[reader.generation]
        user = generator.standard_normal((FORM.num_user_heads, FORM.head_dim), dtype=np.float32)
        ids = generator.integers(0, IDS, CANDIDATES)
        start = time.perf_counter()
        scores = reader.score(user, ids)
        counts["seconds"] += time.perf_counter() - start
        expected = truth.scores(user, ids, versions[ids])
        right = np.allclose(scores, expected, rtol=1e-4, atol=1e-3)
        if counts["requests"] % 20 == 0:
            there = np.flatnonzero(versions >= 0)
            all_scores = maxsim(user[None], truth.heads(there, versions[there]))[0] + np.float32(FORM.bias)
            best = reader.top_k(user, TOP)
            wanted = np.sort(all_scores)[::-1][:TOP]
            right &= np.allclose(best.scores, wanted, rtol=1e-4, atol=1e-3) and bool((versions[best.ids] >= 0).all())
        counts["wrong"] += not right
        counts["requests"] += 1


def main(arguments: argparse.Namespace) -> None:
    """Print a line a minute, and the sums."""
    truth, stop = Truth(), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        create_index(folder, FORM)
        writer, first = ItemIndex(folder), np.arange(0, IDS, 2)
        versions = truth.versions[0].copy()
        versions[first] = 0
        truth.versions[1] = versions
        writer.put(first, truth.heads(first, versions[first]))
        asked = [{"requests": 0, "wrong": 0, "seconds": 0.0} for _ in range(2)]
        updated = {"updates": 0}
        threads = [threading.Thread(target=update, args=(folder, truth, stop, updated))]
        threads += [threading.Thread(target=ask, args=(folder, truth, stop, c, seed)) for seed, c in enumerate(asked)]
        print(f"{len(writer):,} items at the start, {CANDIDATES} candidates a request, 2 readers and a writer")
        for thread in threads:
            thread.start()
        end, memory, begun = time.monotonic() + 60 * arguments.minutes, [], time.monotonic()
        try:
            while time.monotonic() < end and all(thread.is_alive() for thread in threads):
                time.sleep(max(0.0, min(60.0, end - time.monotonic())))
                truth.forget_before(max(truth.versions) - 200)
                memory.append(current_memory_bytes() / 2**20)
                requests, wrong = (sum(c[name] for c in asked) for name in ("requests", "wrong"))
                print(
                    f"{(time.monotonic() - begun) / 60:5.1f} min  {requests:,} requests, {wrong} wrong, "
                    f"{updated['updates']:,} updates, {memory[-1]:.0f} MiB",
                    flush=True,
                )
        finally:
            alive = all(thread.is_alive() for thread in threads)
            stop.set()
            for thread in threads:
                thread.join()
    requests, wrong = (sum(c[name] for c in asked) for name in ("requests", "wrong"))
    seconds = sum(c["seconds"] for c in asked)
    milliseconds = 1e3 * seconds / max(requests, 1)
    print(f"{requests:,} requests of {milliseconds:.2f} ms, {updated['updates']:,} updates, {wrong} wrong")
    if wrong or not alive:
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
