"""Building the cache of more rows than memory holds: seconds and peak memory, with and without a bound.

    python -m benchmark.beyond_memory --times 10 --memory 4

Writes rows in the format of the Alibaba display ads, as many times the real number as --times says, with as many users
and ads as the real files have. Each build is a process of its own: first of the real number of rows, without a bound
and with it, then of all rows with it. What is written is removed afterwards; ten times takes some 30 GB.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.choices import PROTOCOLS, check_memory
from preprocessing.command import Parser, exit_code, positive, positive_number, read_command_line


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=positive, help="of the first builds, else as many as Alibaba has")
    parser.add_argument("--times", type=positive_number, default=10.0, help="how many times as many the last one has")
    parser.add_argument("--memory", type=positive_number, default=4.0, help="GiB, as of the training script")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="strict")
    parser.add_argument("--folder", help="where files are written for as long as it takes")
    arguments = parser.parse_args(words)
    check_memory(arguments.memory)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import multiprocessing
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from preprocessing.alibaba import load_alibaba
from preprocessing.sample_alibaba import (
    ALIBABA_ADS,
    ALIBABA_ROWS,
    ALIBABA_USERS,
    CLICK_RATE,
    FIRST_SECOND,
    NUM_SECONDS,
    PIDS,
    write_alibaba_sample,
)
from preprocessing.sources import RAW_SAMPLE
from preprocessing.synthetic import SAMPLE_PROBABILITIES, blocks
from training.memory import peak_memory_bytes


def write_rows(folder: Path, num_rows: int, seed: int = 1023) -> Path:
    """The users and ads of the synthetic sample, and rows that name them at random; ads in order, as in the real file.

    Every line has as many bytes, so a block of them is a table of characters.
    """
    num_users, num_ads = (min(num_rows, number) for number in (ALIBABA_USERS, ALIBABA_ADS))
    write_alibaba_sample(folder, 1000, num_users, num_ads, seed)
    rng = np.random.default_rng(seed)
    with open(folder / RAW_SAMPLE, "wb") as file:
        file.write(b"user,time_stamp,adgroup_id,pid,nonclk,clk\n")
        for rows in blocks(num_rows, RAW_SAMPLE):
            size = rows.stop - rows.start
            clicked = (rng.random(size) < CLICK_RATE).astype(np.int64)
            ads = np.sort(rng.integers(rows.start * num_ads, rows.stop * num_ads, size) // num_rows)
            cells = (
                digits(1 + (num_users * rng.random(size) ** 2).astype(np.int64), 7),
                digits(FIRST_SECOND + rng.integers(0, NUM_SECONDS, size), 10),
                digits(1 + ads, 6),
                np.array(PIDS, dtype="S11")[rng.integers(0, 2, size)].view(np.uint8).reshape(size, -1),
                digits(1 - clicked, 1),
                digits(clicked, 1),
            )
            comma, end = np.full((size, 1), ord(","), np.uint8), np.full((size, 1), ord("\n"), np.uint8)
            line = [column for cell in cells for column in (cell, comma)]
            file.write(np.concatenate([*line[:-1], end], axis=1).data)
    # By these the rows are known to be synthetic.
    np.save(folder / SAMPLE_PROBABILITIES, np.full(num_rows, CLICK_RATE, dtype=np.float32))
    return folder


def digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """(N, width) uint8, numbers as text with zeros before them."""
    places = 10 ** np.arange(width)[::-1]
    return (numbers[:, None] // places % 10 + ord("0")).astype(np.uint8)


def build(folder: Path, protocol: str, memory: float | None, started: float) -> tuple[int, float, int]:
    """Rows, seconds since `started` and bytes of memory at the peak; for a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        data = load_alibaba(folder, protocol, cache=cache, memory=memory)
        num_rows = len(data.train) + len(data.valid) + len(data.test)
        return num_rows, time.time() - started, peak_memory_bytes()


def main(arguments: argparse.Namespace) -> None:
    """Print the builds."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for times, bounds in ((1, (None, arguments.memory)), (arguments.times, (arguments.memory,))):
            start, num_rows = time.time(), round(times * (arguments.rows or ALIBABA_ROWS))
            data = write_rows(Path(folder) / f"{len(bounds)}", num_rows)
            print(f"{num_rows:,} rows written in {time.time() - start:.0f} s", flush=True)
            for memory in bounds:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
                    built = processes.submit(build, data, arguments.protocol, memory, time.time())
                    num_rows, seconds, peak = built.result()
                bound = "no bound" if memory is None else f"--memory {memory:g}"
                print(f"{bound}: {num_rows:,} rows, {seconds:.0f} s, peak {peak / 2**30:.2f} GiB", flush=True)
            shutil.rmtree(data)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
