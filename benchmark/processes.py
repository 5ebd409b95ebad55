"""What two processes that train one model make of two cores: samples/s, and the share of a step that they wait.

    python -m benchmark.processes
    python -m benchmark.processes --data data/alibaba-full

Steps of IntTower on generated rows of MovieLens's columns, one thread a process: one process alone; two that have half
of the batch each and exchange nothing, which is what their cores could do; and two that train together. With --data
the steps are on rows of those files, once with every embedding table whole on each process, and once with the large
ones sharded (training/sharding.py).
"""

from __future__ import annotations

import argparse
import sys

from experiment.installed import check_torchrec
from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.sources import alibaba_files


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=positive, default=60, help="of each measurement (default 60)")
    parser.add_argument(
        "--user-ids", type=positive, nargs="+", default=[6040, 1_000_000], help="rows of the largest embedding table"
    )
    parser.add_argument("--data", metavar="DIR", help="Alibaba files, in the place of the generated rows")
    parser.add_argument(
        "--shard-embeddings", type=positive, default=100_000, help="with --data: as for the training script"
    )
    arguments = parser.parse_args(words)
    if arguments.data is not None:
        alibaba_files(arguments.data)
        check_torchrec()
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing

from benchmark.loopback import be_process, meeting_place
from benchmark.threads import BATCH_SIZE, ITEM_COLUMNS, USER_COLUMNS, WARM_UP_STEPS, random_rows
from model.IntTower import IntTower
from preprocessing.alibaba import load_alibaba
from preprocessing.inputs import SparseFeat
from training.generators import seed_everything
from training.group import process_group
from training.memory import keep_freed_memory, peak_memory_bytes
from training.trainer import Trainer, epoch_batches

BATCHES = 32  # of the files, in turn: the rows of one batch alone would stay in the processor's cache


@dataclass
class Rows:
    """Some batches of a model's columns."""

    user_columns: list
    item_columns: list
    features: dict[str, Tensor]
    labels: Tensor


def train(
    process: int, count: int, together: bool, port: int, rows: Rows, shard_rows: int, steps: int, folder: str
) -> None:
    """Leave the seconds of a step and the peak of memory in a file; for a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by the process that was called
    be_process(process, count, port)
    torch.set_num_threads(1)
    keep_freed_memory()
    num_rows = BATCH_SIZE // count
    seed_everything(0)
    with process_group(torch.device("cpu")):
        model = IntTower(rows.user_columns, rows.item_columns)
        if not together:  # they start together, and then are alone
            distributed.barrier()
            distributed.destroy_process_group()
        trainer, of_batch = Trainer(model, shard_rows=shard_rows), BATCH_SIZE if together else num_rows
        model.train()
        starts = range(process * num_rows, len(rows.labels), BATCH_SIZE)

        def step(number: int) -> None:
            start = starts[number % len(starts)]
            own = slice(start, start + num_rows)
            trainer.step({name: values[own] for name, values in rows.features.items()}, rows.labels[own], of_batch)

        for number in range(WARM_UP_STEPS):
            step(number)
        start = time.perf_counter()
        for number in range(steps):
            step(WARM_UP_STEPS + number)
        seconds = (time.perf_counter() - start) / steps
    Path(folder, str(process)).write_text(f"{seconds} {peak_memory_bytes()}")


def measured(count: int, together: bool, rows: Rows, steps: int, shard_rows: int = 0) -> tuple[float, float]:
    """Seconds of a step, the slowest process's, and the most memory that one took."""
    store = meeting_place()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(train, (count, together, store.port, rows, shard_rows, steps, folder), nprocs=count)
        made = [list(map(float, Path(folder, str(process)).read_text().split())) for process in range(count)]
    return tuple(map(max, zip(*made, strict=True)))


def rows_of_movielens(num_users: int) -> Rows:
    """A batch of generated rows, of so many user ids."""
    seed_everything(0)
    return Rows(
        [SparseFeat("user_id", num_users, 32), *USER_COLUMNS[1:]], ITEM_COLUMNS, *random_rows(BATCH_SIZE, num_users)
    )


def rows_of_alibaba(path: str) -> Rows:
    """Batches of the training rows as training draws them."""
    data = load_alibaba(alibaba_files(path))
    rows = torch.from_numpy(epoch_batches(len(data.train), BATCHES * BATCH_SIZE, [0])[0])
    return Rows(data.user_columns, data.item_columns, data.train.batch(rows), data.train.labels[rows])


def main(arguments: argparse.Namespace) -> None:
    """Print a line per number of processes, of every size of table or of the files' tables whole and sharded."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a process inherits it before it imports torch
    print(f"cpu, {os.cpu_count()} cores, a thread per process, batch {BATCH_SIZE}, torch {torch.__version__}")
    if arguments.data is None:
        print_header("user ids")
        for num_users in arguments.user_ids:
            compare(f"{num_users:,}", rows_of_movielens(num_users), arguments.steps)
        return
    rows, shard_rows = rows_of_alibaba(arguments.data), arguments.shard_embeddings
    parameters = IntTower(rows.user_columns, rows.item_columns, device="meta").parameters()
    num_parameters = sum(parameter.numel() for parameter in parameters)
    print(f"Alibaba's columns, {num_parameters:,} parameters; sharded are tables of more than {shard_rows:,} rows")
    print_header("tables")
    compare("whole", rows, arguments.steps)
    compare("sharded", rows, arguments.steps, shard_rows)


def print_header(first: str) -> None:
    """The names of compare's columns."""
    print(f"{first:>10}  {'processes':28}{'samples/s':>11}{'ms/step':>9}{'waiting':>9}{'MiB each':>10}")


def compare(first: str, rows: Rows, steps: int, shard_rows: int = 0) -> None:
    """Print a line for one process, for two that exchange nothing and for two that train together, which wait."""
    apart = None
    for name, count, together in (("1", 1, True), ("2, exchanging nothing", 2, False), ("2, together", 2, True)):
        seconds, memory = measured(count, together, rows, steps, shard_rows)
        apart = seconds if not together else apart
        waiting = f"{1 - apart / seconds:.0%}" if together and count > 1 else "-"
        print(
            f"{first:>10}  {name:28}{BATCH_SIZE / seconds:>11,.0f}{1000 * seconds:>9.1f}{waiting:>9}"
            f"{memory / 2**20:>10,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
