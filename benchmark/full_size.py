"""From raw files of real size to a model in training: seconds, memory, and what the size of the table costs.

    python -m preprocessing.sample alibaba data/alibaba-full --full
    python -m benchmark.full_size alibaba --data data/alibaba-full

Loading is measured in processes of their own, from the start of Python on: once with no cache and once with it.
Training then takes turns, within one process and with one model: steps on the whole table, memory-mapped from the
cache, and steps on a million of its rows, laid out in memory.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.sources import alibaba_files, amazon_files
from training.device import check_device


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", choices=("alibaba", "amazon"))
    parser.add_argument("--data", help="as for the training script")
    parser.add_argument("--steps", type=positive, default=2000, help="measured steps on each table")
    parser.add_argument("--rounds", type=positive, default=10, help="turns that the steps are taken in")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(words)
    (amazon_files if arguments.dataset == "amazon" else alibaba_files)(arguments.data)
    check_device(arguments.device)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from model.IntTower import IntTower
from preprocessing.alibaba import load_alibaba
from preprocessing.amazon import load_amazon, locate_amazon
from preprocessing.tables import Dataset, Table
from training.device import resolve_device
from training.generators import seed_everything
from training.memory import keep_freed_memory, peak_memory_bytes
from training.metrics import evaluate
from training.trainer import Trainer, epoch_batches

SMALL_TABLE = 1_000_000
BATCH_SIZE = 2048
# The training scripts' own.
OPTIONS = {"alibaba": dict(dnn_dropout=0.5), "amazon": dict(user_head=2, item_head=2, field_dim=64, dnn_dropout=0.3)}
LEARNING_RATE = {"alibaba": 1e-4, "amazon": 1e-3}


def load(dataset: str, path: str | None, cache: Path) -> Dataset:
    """The dataset under strict, as its training script reads it."""
    if dataset == "amazon":
        return load_amazon(*locate_amazon(path), cache=cache)
    return load_alibaba(alibaba_files(path), cache=cache)


def load_in_a_process(dataset: str, path: str | None, cache: Path, started: float) -> tuple[float, int, int]:
    """Seconds since `started`, bytes of memory at the peak, and rows; for a process of its own."""
    data = load(dataset, path, cache)
    return time.time() - started, peak_memory_bytes(), len(data.train) + len(data.valid) + len(data.test)


def small_table(table: Table, num_rows: int) -> Table:
    """Some rows of a table in random order, every feature laid out row by row in memory."""
    rows = epoch_batches(len(table), min(num_rows, len(table)), [1])[0]
    return Table(table.batch(rows), table.labels[rows], table.groups[rows], table.rows[rows])


def main(arguments: argparse.Namespace) -> None:
    """Print the starts, then the speed of both tables."""
    device = resolve_device(arguments.device)

    with tempfile.TemporaryDirectory() as cache:
        for start in ("no cache", "cache"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
                loading = processes.submit(
                    load_in_a_process, arguments.dataset, arguments.data, Path(cache), time.time()
                )
                seconds, peak, num_rows = loading.result()
            print(
                f"{start + ':':10}{num_rows:,} rows ready after {seconds:.1f} s, peak {peak / 2**30:.2f} GiB",
                flush=True,
            )
        data = load(arguments.dataset, arguments.data, Path(cache))
        compare(data, arguments, device)


def compare(data: Dataset, arguments: argparse.Namespace, device: torch.device) -> None:
    """Print the speed of training IntTower on the whole table and on a small one, in turns."""
    keep_freed_memory()
    seed_everything(0)
    model = IntTower(data.user_columns, data.item_columns, **OPTIONS[arguments.dataset])
    trainer = Trainer(model, LEARNING_RATE[arguments.dataset], BATCH_SIZE, device=device)
    model.train()
    tables = {"whole": data.train.to(device), "small": small_table(data.train, SMALL_TABLE).to(device)}
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    threads = torch.get_num_threads()
    print(f"IntTower, {num_parameters:,} parameters, {device}, {threads} threads, torch {torch.__version__}")

    steps = max(1, arguments.steps // arguments.rounds)
    seconds = {table: [] for table in tables}
    batches = {table: iter(()) for table in tables}
    epochs = dict.fromkeys(tables, 0)

    def step(which: str) -> None:
        rows = next(batches[which], None)
        if rows is None:  # the order of an epoch is drawn within the time that is measured, as in training
            batches[which] = iter(epoch_batches(len(tables[which]), BATCH_SIZE, [0, epochs[which]]))
            epochs[which] += 1
            rows = next(batches[which])
        rows = torch.from_numpy(rows).to(device)
        trainer.step(tables[which].batch(rows), tables[which].labels[rows])

    for table in tables:
        step(table)  # memory is taken and files are opened outside of what is measured
        batches[table] = iter(())
    for _ in range(arguments.rounds):
        for table in tables:
            seconds[table].append(timed(partial(step, table), steps))
    for table, taken in seconds.items():
        print(
            f"{table}: {len(tables[table]):,} rows, {steps * arguments.rounds} steps, "
            f"{steps * BATCH_SIZE * len(taken) / sum(taken):,.0f} samples/s (median of {len(taken)} turns "
            f"{steps * BATCH_SIZE / statistics.median(taken):,.0f})"
        )
    print(f"whole / small: {sum(seconds['small']) / sum(seconds['whole']):.2f}")
    print(f"peak memory of loading and training: {peak_memory_bytes() / 2**30:.2f} GiB")
    start = time.perf_counter()
    logits = trainer.predict(data.test)
    scored = time.perf_counter()
    evaluate(data.test.labels.numpy(), logits, data.test.groups)
    print(
        f"test: {len(logits):,} rows scored in {scored - start:.1f} s, AUC, logloss and gAUC in "
        f"{time.perf_counter() - scored:.1f} s; peak memory of all {peak_memory_bytes() / 2**30:.2f} GiB"
    )


def timed(action, times: int) -> float:
    """Seconds that an action takes so many times."""
    start = time.perf_counter()
    for _ in range(times):
        action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
