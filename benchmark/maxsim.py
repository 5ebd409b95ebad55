"""One user against many cached items: serving/maxsim.py beside the naive form, a package, and its bare products.

    OMP_NUM_THREADS=1 python -m benchmark.maxsim
    pip install -r requirements-compiled.txt maxsim-cpu==0.1.0    # not needed; timed too where they are installed

"naive" lays the user beside every item, level by level, as the seed's fe_score does with a batch. "products" are the
matrix products that the scores need and nothing else, by numpy's BLAS and by torch's. All take turns in one process, of
some calls each: numpy and torch have threads of their own, which stand in each other's way if every call is of another.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line

ITEMS = 10_000


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=positive, default=ITEMS)
    parser.add_argument("--rounds", type=positive, default=200)
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import os
import time
from collections.abc import Callable

import numpy as np
import torch

import serving.maxsim_torch
from preprocessing.utils import fe_score
from serving.choices import is_installed
from serving.maxsim import maxsim
from training.memory import keep_freed_memory

SHAPES = ((3, 4, 16), (1, 4, 16), (3, 8, 32), (3, 32, 64))  # levels, heads, head size
TURNS, WARM_UP = 5, 3
PRODUCTS = ("products, numpy", "products, torch")


def forms(levels: int, heads: int, size: int, num_items: int) -> dict[str, Callable]:
    """The functions that score one user, by name; all but the products give the same scores."""
    generator = np.random.default_rng(0)
    user_QK = generator.standard_normal((levels * heads, size), dtype=np.float32)
    items_NGK = generator.standard_normal((num_items, heads, size), dtype=np.float32)
    items_GNK = np.ascontiguousarray(items_NGK.transpose(1, 0, 2))
    rows = generator.permutation(num_items)
    user_tensor, items_tensor, rows_tensor = map(torch.from_numpy, (user_QK, items_NGK, rows))
    flat_NE = torch.from_numpy(items_NGK.reshape(num_items, -1))
    user_levels = [torch.from_numpy(part.reshape(1, -1)) for part in np.split(user_QK, levels)]
    beside_LNE = [level.expand(num_items, -1) for level in user_levels]
    user_KQ = np.ascontiguousarray(user_QK.T)
    in_torch = serving.maxsim_torch.maxsim
    scored = {
        "ours, numpy": lambda: maxsim(user_QK[None], items_NGK)[0],
        "ours, torch": lambda: in_torch(user_tensor[None], items_tensor)[0].numpy(),
        "of ids, numpy": lambda: maxsim(user_QK[None], items_NGK, None, rows)[0],
        "of ids, torch": lambda: in_torch(user_tensor[None], items_tensor, None, rows_tensor)[0].numpy(),
        "naive": lambda: fe_score(beside_LNE, [flat_NE], heads, heads, [size] * levels, [size] * levels).numpy(),
        "products, numpy": lambda: [head_NK @ user_KQ for head_NK in items_GNK],
        "products, torch": lambda: [head_NK @ user_tensor.T for head_NK in map(torch.from_numpy, items_GNK)],
    }
    if is_installed("llvmlite"):
        from serving.maxsim_compiled import maxsim as compiled

        scored["ours, compiled"] = lambda: compiled(user_QK[None], items_NGK)[0]
        scored["of ids, compiled"] = lambda: compiled(user_QK[None], items_NGK, None, rows)[0]
    if is_installed("maxsim_cpu"):
        import maxsim_cpu

        scored["maxsim-cpu"] = lambda: maxsim_cpu.maxsim_scores(user_QK, items_NGK)
    expected = scored["naive"]()
    for name, score in scored.items():
        if name not in PRODUCTS:
            wanted = expected[rows] if name.startswith("of ids") else expected
            np.testing.assert_allclose(score(), wanted, rtol=1e-3, atol=1e-3, err_msg=name)
    return scored


@torch.inference_mode()
def measure(scored: dict[str, Callable], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each call by name; the first calls of a turn do not count."""
    taken: dict[str, list[float]] = {name: [] for name in scored}
    a_turn = -(-rounds // TURNS)
    for _ in range(TURNS):
        for name, score in scored.items():
            for i in range(WARM_UP + a_turn):
                start = time.perf_counter()
                score()
                if i >= WARM_UP:
                    taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(milliseconds) for name, milliseconds in taken.items()}


def main(arguments: argparse.Namespace) -> None:
    """Print a line per shape and form."""
    keep_freed_memory()
    threads = os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())
    print(f"cpu, {threads} threads, {arguments.items:,} items, numpy {np.__version__}, torch {torch.__version__}")
    print(f"{'levels x heads x size':24}{'form':18}{'p50':>11}{'p99':>12}{'times ours':>13}")
    for shape in SHAPES:
        taken = measure(forms(*shape, arguments.items), arguments.rounds)
        ours = min(np.median(taken[name]) for name in ("ours, numpy", "ours, torch"))
        for name, milliseconds in taken.items():
            p50, p99 = np.quantile(milliseconds, (0.5, 0.99))
            print(f"{' x '.join(map(str, shape)):24}{name:18}{p50:8.3f} ms{p99:9.3f} ms{p50 / ours:13.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
