"""What a training run costs and suffers beside other work, by how its threads wait.

    python -m benchmark.threads

Steps of IntTower on generated rows: alone, beside a process that keeps one core busy, and two such runs at once. "the
library's own" is what libgomp does by itself, "ours" what the project's commands set (preprocessing/command.py).
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import SPINS, Parser, exit_code, positive_number, read_command_line

SETTINGS = {
    "the library's own": {},
    "ours": {"GOMP_SPINCOUNT": SPINS},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=positive_number, default=8.0, help="of each measurement (default 8)")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="SETTING")
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import multiprocessing
import os
import signal
import time

import torch
from torch import Tensor

from model.IntTower import IntTower
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from training.generators import seed_everything
from training.memory import keep_freed_memory
from training.trainer import Trainer

BATCH_SIZE = 2048
WARM_UP_STEPS = 3
# Of MovieLens-1M.
USER_COLUMNS = [SparseFeat("user_id", 6042, 32), SparseFeat("age", 9, 32), DenseFeat("user_mean_rating")]
ITEM_COLUMNS = [
    SparseFeat("movie_id", 3708, 32),
    VarLenSparseFeat(SparseFeat("genres", 20, 32), maxlen=6),
    DenseFeat("item_mean_rating"),
]


def random_rows(num_rows: int, num_users: int = 6042) -> tuple[dict[str, Tensor], Tensor]:
    """Features of those columns and labels."""
    features = {
        "user_id": torch.randint(2, num_users, (num_rows,)),
        "age": torch.randint(2, 9, (num_rows,)),
        "user_mean_rating": torch.rand(num_rows, 1),
        "movie_id": torch.randint(2, 3708, (num_rows,)),
        "genres": torch.randint(0, 20, (num_rows, 6)),
        "item_mean_rating": torch.rand(num_rows, 1),
    }
    return features, torch.randint(0, 2, (num_rows,)).float()


def train(seconds: float, pipe) -> None:
    """Send when all is ready; train for so long from the answer on; send the samples/s. For a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by the process that was called
    keep_freed_memory()
    seed_everything(0)
    model = IntTower(USER_COLUMNS, ITEM_COLUMNS)
    trainer = Trainer(model)
    model.train()
    features, labels = random_rows(BATCH_SIZE)
    for _ in range(WARM_UP_STEPS):
        trainer.step(features, labels)
    pipe.send("ready")
    pipe.recv()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        trainer.step(features, labels)
        steps += 1
    pipe.send(steps * BATCH_SIZE / (time.perf_counter() - start))


def keep_busy() -> None:
    """Take one core for as long as the process lives."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        pass


def samples_per_second(num_runs: int, seconds: float, busy: bool) -> float:
    """Of each of so many runs at once, on average, beside a busy core or not."""
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=keep_busy, daemon=True)
    pipes = [context.Pipe() for _ in range(num_runs)]
    runs = [context.Process(target=train, args=(seconds, far), daemon=True) for _, far in pipes]
    for run in runs:
        run.start()
    for near, _ in pipes:
        near.recv()
    if busy:
        other.start()
    for near, _ in pipes:
        near.send("go")
    rates = [near.recv() for near, _ in pipes]
    for process in (*runs, *([other] if busy else [])):
        process.terminate()
        process.join()
    return sum(rates) / num_runs


def main(arguments: argparse.Namespace) -> None:
    """Print a line per setting."""
    print(f"cpu, {os.cpu_count()} cores, batch {BATCH_SIZE}, torch {torch.__version__}; samples/s of a run")
    print(f"{'threads':26}{'alone':>10}{'beside a busy core':>22}{'two at once, each':>20}")
    names = {name for changes in SETTINGS.values() for name in changes}
    for setting in arguments.settings:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(SETTINGS[setting])  # a process inherits them before it imports torch
        alone = samples_per_second(1, arguments.seconds, busy=False)
        busy = samples_per_second(1, arguments.seconds, busy=True)
        two = samples_per_second(2, arguments.seconds, busy=False)
        print(f"{setting:26}{alone:10,.0f}{busy:22,.0f}{two:20,.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
