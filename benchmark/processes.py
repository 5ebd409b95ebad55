"""What two processes that train one model make of two cores: samples/s, and the share of a step that they wait.

    python -m benchmark.processes

Steps of IntTower on generated rows of MovieLens's columns, one thread a process: one process alone; two that have half
of the batch each and exchange nothing, which is what their cores could do; and two that train together.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=positive, default=60, help="of each measurement (default 60)")
    parser.add_argument(
        "--user-ids", type=positive, nargs="+", default=[6040, 1_000_000], help="rows of the largest embedding table"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import os
import signal
import socket
import tempfile
import time
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from benchmark.threads import BATCH_SIZE, ITEM_COLUMNS, USER_COLUMNS, WARM_UP_STEPS, random_rows
from model.IntTower import IntTower
from preprocessing.inputs import SparseFeat
from training.generators import seed_everything
from training.group import process_group
from training.memory import keep_freed_memory, peak_memory_bytes
from training.trainer import Trainer


def train(process: int, count: int, together: bool, port: int, num_users: int, steps: int, folder: str) -> None:
    """Leave the seconds of a step and the peak of memory in a file; for a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by the process that was called
    os.environ |= {"RANK": str(process), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    keep_freed_memory()
    num_rows = BATCH_SIZE // count
    seed_everything(process)
    features, labels = random_rows(num_rows, num_users)
    with process_group(torch.device("cpu")):
        user_columns = [SparseFeat("user_id", num_users, 32), *USER_COLUMNS[1:]]
        model = IntTower(user_columns, ITEM_COLUMNS)
        if not together:  # they start together, and then are alone
            distributed.barrier()
            distributed.destroy_process_group()
        trainer, of_batch = Trainer(model), BATCH_SIZE if together else num_rows
        model.train()
        for _ in range(WARM_UP_STEPS):
            trainer.step(features, labels, of_batch)
        start = time.perf_counter()
        for _ in range(steps):
            trainer.step(features, labels, of_batch)
        seconds = (time.perf_counter() - start) / steps
    Path(folder, str(process)).write_text(f"{seconds} {peak_memory_bytes()}")


def measured(count: int, together: bool, num_users: int, steps: int) -> tuple[float, float]:
    """Seconds of a step, the slowest process's, and the most memory that one took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(train, (count, together, port, num_users, steps, folder), nprocs=count)
        made = [list(map(float, Path(folder, str(process)).read_text().split())) for process in range(count)]
    return tuple(map(max, zip(*made, strict=True)))


def main(arguments: argparse.Namespace) -> None:
    """Print a line per number of processes and size of table."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a process inherits it before it imports torch
    print(f"cpu, {os.cpu_count()} cores, a thread per process, batch {BATCH_SIZE}, torch {torch.__version__}")
    print(f"{'user ids':>10}  {'processes':28}{'samples/s':>11}{'ms/step':>9}{'waiting':>9}{'MiB each':>10}")
    for num_users in arguments.user_ids:
        apart = None
        for name, count, together in (("1", 1, True), ("2, exchanging nothing", 2, False), ("2, together", 2, True)):
            seconds, memory = measured(count, together, num_users, arguments.steps)
            apart = seconds if not together else apart
            waiting = f"{1 - apart / seconds:.0%}" if together and count > 1 else "-"
            print(
                f"{num_users:>10,}  {name:28}{BATCH_SIZE / seconds:>11,.0f}{1000 * seconds:>9.1f}{waiting:>9}"
                f"{memory / 2**20:>10,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
