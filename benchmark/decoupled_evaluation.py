"""Scoring the MovieLens test split: each distinct user and item encoded once, against plain `forward`.

    python -m benchmark.decoupled_evaluation

Both ways score the same rows with the same weights, after a few training steps, in evaluation mode; the largest
difference of their logits is shown.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.sources import movielens_files
from training.device import check_device


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    check_device(arguments.device)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import statistics
import time

import numpy as np
import torch

from model.IntTower import IntTower
from preprocessing.movielens import load_movielens, locate_movielens
from training.device import resolve_device
from training.generators import seed_everything
from training.memory import keep_freed_memory
from training.predict import predict_decoupled, predict_jointly
from training.trainer import Trainer, epoch_batches

WARM_UP_STEPS = 20
CONFIGURATIONS = (("4 x 16", (4, 4, 16)), ("8 x 32", (8, 8, 32)), ("32 x 64", (32, 32, 64)))


def main(arguments: argparse.Namespace) -> None:
    """Print a line per configuration."""
    device = resolve_device(arguments.device)
    keep_freed_memory()
    data = load_movielens(locate_movielens(arguments.data))
    train, test = data.train.to(device), data.test
    print(f"{device}, {torch.get_num_threads()} threads, {len(test):,} rows, torch {torch.__version__}")
    print(f"{'heads':10}{'forward':>10}{'decoupled':>11}{'times faster':>14}{'largest difference of logits':>30}")
    for name, (user_head, item_head, field_dim) in CONFIGURATIONS:
        seed_everything(0)
        model = IntTower(
            data.user_columns, data.item_columns, user_head=user_head, item_head=item_head, field_dim=field_dim
        )
        trainer = Trainer(model, device=device)
        model.train()
        for rows in epoch_batches(len(train), 2048, [0])[:WARM_UP_STEPS]:
            trainer.step(train.batch(rows), train.labels[rows])
        seconds = {predict_jointly: [], predict_decoupled: []}
        logits = {}
        for _ in range(arguments.repeats):
            for predict, taken in seconds.items():
                start = time.perf_counter()
                logits[predict] = predict(model, test, device)
                taken.append(time.perf_counter() - start)
        jointly, decoupled = (statistics.median(taken) for taken in seconds.values())
        difference = np.abs(np.subtract(*logits.values())).max()
        print(f"{name:10}{jointly:8.2f} s{decoupled:9.2f} s{jointly / decoupled:14.1f}{difference:30.1e}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
