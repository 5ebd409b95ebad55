"""Training samples/s of IntTower, and the share of the machine's matrix product rate that a step reaches.

    python -m benchmark.training_speed

The floor of a step is the time its floating point operations would take at the rate of one large float32
product (2048 x 2048 x 2048) measured in the same run. Counted are the products that the step really carries
out, forward and backward; everything else (batch norm, dropout, Adam, the gather of a batch) counts as nothing.
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
    parser.add_argument("--batch-size", type=positive, default=2048)
    parser.add_argument("--steps", type=positive, default=40, help="measured steps of each configuration")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    check_device(arguments.device)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import itertools
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.IntTower import IntTower
from preprocessing.movielens import load_movielens, locate_movielens
from training.device import resolve_device
from training.generators import seed_everything
from training.memory import keep_freed_memory
from training.trainer import Trainer, epoch_batches

PRODUCT_SIZE = 2048
CONFIGURATIONS = (
    ("4 x 16, no CIR", dict(user_head=4, item_head=4, field_dim=16, cir_weight=0.0)),
    ("4 x 16, CIR", dict(user_head=4, item_head=4, field_dim=16, cir_weight=1.0)),
    ("32 x 64, no CIR", dict(user_head=32, item_head=32, field_dim=64, cir_weight=0.0)),
    ("32 x 64, CIR", dict(user_head=32, item_head=32, field_dim=64, cir_weight=1.0)),
)


def product_rate(device: torch.device, repeats: int) -> float:
    """Floating point operations a second of a large product: the median of several."""
    a, b = torch.randn(2, PRODUCT_SIZE, PRODUCT_SIZE, device=device)
    seconds = [_timed(lambda: a @ b, device) for _ in range(repeats)]
    return 2 * PRODUCT_SIZE**3 / statistics.median(seconds[1:])


def _timed(action, device: torch.device) -> float:
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main(arguments: argparse.Namespace) -> None:
    """Print a line per configuration."""
    device = resolve_device(arguments.device)
    keep_freed_memory()
    data = load_movielens(locate_movielens(arguments.data))
    train = data.train.to(device)
    print(f"{device}, {torch.get_num_threads()} threads, batch {arguments.batch_size}, torch {torch.__version__}")
    print(f"{'heads':16}{'samples/s':>10}{'ms/step':>9}{'GFLOP/step':>12}{'product GFLOP/s':>17}{'share of floor':>16}")
    for name, options in CONFIGURATIONS:
        seed_everything(0)
        model = IntTower(data.user_columns, data.item_columns, **options)
        trainer = Trainer(model, batch_size=arguments.batch_size, device=device)
        model.train()
        batches = itertools.cycle(epoch_batches(len(train), arguments.batch_size, [0, 0]))

        def step(trainer=trainer, batches=batches) -> None:
            rows = torch.from_numpy(next(batches)).to(device)
            trainer.step(train.batch(rows), train.labels[rows])

        step()
        with FlopCounterMode(display=False) as counter:
            step()
        rates = [product_rate(device, 5)]
        seconds = [_timed(step, device) for _ in range(arguments.steps)]
        rates.append(product_rate(device, 5))  # before and after: other work on the machine shows in both
        rate, median = statistics.mean(rates), statistics.median(seconds)
        floor = counter.get_total_flops() / rate
        print(
            f"{name:16}{arguments.batch_size / median:10,.0f}{median * 1e3:9.1f}"
            f"{counter.get_total_flops() / 1e9:12.2f}{rate / 1e9:17.0f}{floor / median:16.0%}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
