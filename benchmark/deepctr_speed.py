"""Training and scoring speed of WDL, DeepFM, DCN and AutoInt: our loop against deepctr-torch's own.

    python -m benchmark.deepctr_speed

Both sides are given the same call (`fit` and `predict` with the same arrays), columns, layers, dropout, batch norm,
optimiser and penalties; no validation, no metrics, nothing printed, which is deepctr-torch at its fastest. Each
measurement has a process of its own, since our loop changes how the C library hands out memory; the sides take
turns, and the median of several turns is shown.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.sources import movielens_files
from serving.choices import check_installed
from training.device import check_device

ARCHITECTURES = ("WDL", "DeepFM", "DCN", "AutoInt")


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--steps", type=positive, default=60, help="batches of 2048 rows in a measured epoch")
    parser.add_argument("--repeats", type=positive, default=3, help="turns of each side")
    parser.add_argument("--models", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    check_device(arguments.device)
    check_installed(["deepctr_torch"], "requirements.txt")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import contextlib
import io
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from model import model_class
from model.deepctr import deepctr_column
from preprocessing.movielens import load_movielens, locate_movielens
from training.device import resolve_device
from training.generators import seed_everything

from deepctr_torch import models as theirs

BATCH_SIZE = 2048
NETWORK = dict(dnn_hidden_units=(300, 300, 128), dnn_dropout=0.3, dnn_use_bn=True, init_std=0.01)


def measure(name: str, ours: bool, path: str, num_rows: int, device: str) -> tuple[float, float]:
    """Samples/s of one epoch of `fit` and of `predict` on the first training rows, after a short warm-up."""
    data = load_movielens(path)
    x = {feature: values.numpy()[:num_rows] for feature, values in data.train.features.items()}
    y = data.train.labels[:num_rows].numpy()
    columns = [*data.user_columns, *data.item_columns]
    seed_everything(0)
    if not ours:
        columns = [*map(deepctr_column, columns)]
    build = model_class(name) if ours else getattr(theirs, name)
    model = build(columns, columns, **NETWORK, device=device)
    model.compile("adam", "binary_crossentropy")
    rates = []
    with contextlib.redirect_stdout(io.StringIO()):
        warm_up = 5 * BATCH_SIZE
        model.fit({k: v[:warm_up] for k, v in x.items()}, y[:warm_up], batch_size=BATCH_SIZE, verbose=0)
        model.predict({k: v[:warm_up] for k, v in x.items()}, BATCH_SIZE)
        for action in (
            lambda: model.fit(x, y, batch_size=BATCH_SIZE, epochs=1, verbose=0),
            lambda: model.predict(x, BATCH_SIZE),
        ):
            start = time.perf_counter()
            action()
            rates.append(len(y) / (time.perf_counter() - start))
    return tuple(rates)


def main(arguments: argparse.Namespace) -> None:
    """Print a line per architecture."""
    device = str(resolve_device(arguments.device))
    path = str(locate_movielens(arguments.data))
    print(f"{device}, {torch.get_num_threads()} threads, batch {BATCH_SIZE}, torch {torch.__version__}")
    print(f"{'samples/s':10}{'fit: theirs':>12}{'ours':>10}{'times':>7}{'predict: theirs':>17}{'ours':>10}{'times':>7}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh_process:
        for name in arguments.models:
            rates = {False: [], True: []}
            for _ in range(arguments.repeats):
                for ours, measured in rates.items():
                    rows = arguments.steps * BATCH_SIZE
                    measured.append(fresh_process.submit(measure, name, ours, path, rows, device).result())
            their_fit, their_predict = map(statistics.median, zip(*rates[False], strict=True))
            our_fit, our_predict = map(statistics.median, zip(*rates[True], strict=True))
            print(
                f"{name:10}{their_fit:12,.0f}{our_fit:10,.0f}{our_fit / their_fit:7.1f}"
                f"{their_predict:17,.0f}{our_predict:10,.0f}{our_predict / their_predict:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
