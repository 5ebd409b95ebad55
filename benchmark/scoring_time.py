"""One user against 1,000 candidates: the time that each model takes to score them.

    OMP_NUM_THREADS=1 python -m benchmark.scoring_time

A two-tower model has its items encoded ahead; what is timed is encoding the user and scoring. A model that needs the
pair is timed over all of its network. Features are ids and numbers in memory already; models take turns. Weights do
not change the time, so they are untrained.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, file_to_write, positive, read_command_line
from preprocessing.sources import movielens_files
from training.device import check_device


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--rounds", type=positive, default=300)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=file_to_write, help="also write the records to a file, as JSON lines")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    check_device(arguments.device)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import json
import time
from collections.abc import Callable

import numpy as np
import torch

from model import model_class
from preprocessing.movielens import load_movielens, locate_movielens
from preprocessing.tables import Dataset
from training.device import resolve_device
from training.generators import seed_everything
from training.memory import keep_freed_memory
from training.predict import is_two_tower

CANDIDATES = 1000
MODELS = ("LR", "DSSM", "DAT", "COLD", "WDL", "DeepFM", "DCN", "AutoInt", "IntTower")


def scorer(name: str, data: Dataset, device: torch.device, **options) -> Callable[[], torch.Tensor]:
    """A function that scores one user of the test split against CANDIDATES items, none of them computed twice."""
    seed_everything(0)
    model = model_class(name).from_columns(data.user_columns, data.item_columns, **options).to(device).eval()
    user_names, item_names = ([c.name for c in columns] for columns in (data.user_columns, data.item_columns))
    # Any test rows give items; one of them gives the user.
    rows = np.resize(np.arange(len(data.test)), CANDIDATES)
    features = {key: value.to(device) for key, value in data.test.batch(rows).items()}
    user = {key: features[key][:1] for key in user_names}
    items = {key: features[key] for key in item_names}
    if is_two_tower(model):
        cached = model.encode_item(items)
        return lambda: model.score(model.encode_user(user), cached)
    return lambda: model({**{key: value.expand(CANDIDATES, *value.shape[1:]) for key, value in user.items()}, **items})


@torch.inference_mode()
def measure(scorers: dict[str, Callable], rounds: int, device: torch.device) -> dict[str, np.ndarray]:
    """Seconds of each call, (rounds,) per scorer; all take turns, after a few calls that do not count."""
    seconds = {name: np.empty(rounds) for name in scorers}
    for i in range(-5, rounds):
        for name, score in scorers.items():
            start = time.perf_counter()
            score()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if i >= 0:
                seconds[name][i] = time.perf_counter() - start
    return seconds


@torch.inference_mode()
def scoring_times(data: Dataset, rounds: int, device: torch.device) -> list[dict]:
    """A record for each model: milliseconds of a request, the median and the 95th percentile."""
    keep_freed_memory()
    scorers = {name: scorer(name, data, device) for name in MODELS}
    scorers["IntTower, last level"] = scorer("IntTower", data, device, levels="last")
    return [
        {
            "model": name,
            "dataset": data.name,
            "fingerprint": data.fingerprint,
            "candidates": CANDIDATES,
            "rounds": rounds,
            "median_ms": 1e3 * float(np.median(taken)),
            "p95_ms": 1e3 * float(np.quantile(taken, 0.95)),
            "device": str(device),
            "num_threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        for name, taken in measure(scorers, rounds, device).items()
    ]


def main(arguments: argparse.Namespace) -> None:
    """Print a line per model."""
    data = load_movielens(locate_movielens(arguments.data))
    records = scoring_times(data, arguments.rounds, resolve_device(arguments.device))
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(record) + "\n" for record in records))
    first = records[0]
    print(f"{first['device']}, {first['num_threads']} threads, {CANDIDATES:,} candidates, torch {first['torch']}")
    print(f"{'model':22}{'median':>10}{'95th percentile':>18}")
    for record in records:
        print(f"{record['model']:22}{record['median_ms']:7.2f} ms{record['p95_ms']:15.2f} ms")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
