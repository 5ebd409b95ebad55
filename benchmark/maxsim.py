"""One user against many cached items: serving/maxsim.py beside the naive form, a package, and its bare products.

    OMP_NUM_THREADS=1 python -m benchmark.maxsim
    pip install maxsim-cpu==0.1.0    # not needed; timed too where it is installed

"naive" lays the user beside every item, level by level, as the seed's fe_score does with a batch. "products" are the
matrix products that the scores need, and nothing else. All take turns in one process; a row is a shape.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from preprocessing.utils import fe_score
from serving.maxsim import maxsim
from training.memory import keep_freed_memory

SHAPES = ((3, 4, 16), (3, 8, 32), (3, 32, 64), (1, 4, 16))  # levels, heads, head size
ITEMS = 10_000


def forms(levels: int, heads: int, size: int, num_items: int) -> dict[str, Callable]:
    """The functions that score one user, by name; all but "products" give the same scores."""
    generator = np.random.default_rng(0)
    user_QK = generator.standard_normal((levels * heads, size), dtype=np.float32)
    items_GNK = generator.standard_normal((heads, num_items, size), dtype=np.float32)
    rows = generator.permutation(num_items)
    items_NGK = np.ascontiguousarray(items_GNK.transpose(1, 0, 2))
    flat_NE = torch.from_numpy(items_NGK.reshape(num_items, -1))
    user_levels = [torch.from_numpy(part.reshape(1, -1)) for part in np.split(user_QK, levels)]
    beside_LNE = [level.expand(num_items, -1) for level in user_levels]
    user_KQ = np.ascontiguousarray(user_QK.T)
    scored = {
        "naive": lambda: fe_score(beside_LNE, [flat_NE], heads, heads, [size] * levels, [size] * levels).numpy(),
        "forward's": lambda: fe_score(user_levels, [flat_NE], heads, heads, [size] * levels, [size] * levels).numpy(),
        "ours": lambda: maxsim(user_QK[None], items_GNK)[0],
        "ours, shuffled": lambda: maxsim(user_QK[None], items_GNK, None, rows)[0],
        "products": lambda: [head_NK @ user_KQ for head_NK in items_GNK],
    }
    if importlib.util.find_spec("maxsim_cpu"):
        import maxsim_cpu

        scored["maxsim-cpu"] = lambda: maxsim_cpu.maxsim_scores(user_QK, items_NGK)
    expected = scored["naive"]()
    for name, score in scored.items():
        if name != "products":
            wanted = expected[rows] if name == "ours, shuffled" else expected
            np.testing.assert_allclose(score(), wanted, rtol=1e-3, atol=1e-3, err_msg=name)
    return scored


@torch.inference_mode()
def measure(scored: dict[str, Callable], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each call, (rounds,) by name; all take turns, after a few calls that do not count."""
    taken = {name: np.empty(rounds) for name in scored}
    for i in range(-3, rounds):
        for name, score in scored.items():
            start = time.perf_counter()
            score()
            if i >= 0:
                taken[name][i] = 1e3 * (time.perf_counter() - start)
    return taken


def main() -> None:
    """Print a line per shape and form."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    keep_freed_memory()
    threads = os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())
    print(f"cpu, {threads} threads, {arguments.items:,} items, numpy {np.__version__}, torch {torch.__version__}")
    print(f"{'levels x heads x size':24}{'form':16}{'median':>10}{'p99':>10}{'ours is faster by':>20}")
    for shape in SHAPES:
        taken = measure(forms(*shape, arguments.items), arguments.rounds)
        ours = np.median(taken["ours"])
        for name, milliseconds in taken.items():
            median, last = np.median(milliseconds), np.quantile(milliseconds, 0.99)
            print(f"{' x '.join(map(str, shape)):24}{name:16}{median:7.3f} ms{last:7.3f} ms{median / ours:19.1f}x")


if __name__ == "__main__":
    main()
