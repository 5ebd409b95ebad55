"""The first losses of IntTower by the scale of its FE-Block: the sum of MaxSims, and their mean with the prior as bias.

    python -m benchmark.first_steps
    python -m benchmark.first_steps --datasets movielens --sizes 4x16 --steps 10

Both start from the same weights and see the same batches. "logits" are the mean and the spread (standard deviation) of
the first batch's, before any step. Prints some of the losses and draws all of them in figure/first_steps.png.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line
from reproduction.runs import DATA_NAMES, SOURCES, load

SHOWN = (1, 2, 5, 10, 20, 50)
BEFORE, AFTER = "sum", "mean"


def heads(text: str) -> tuple[int, int]:
    """`4x16` as 4 heads of size 16."""
    number, _, size = text.partition("x")
    if not (number.isdigit() and size.isdigit() and int(number) and int(size)):
        raise argparse.ArgumentTypeError(f"expected a number of heads and their size, such as 4x16, got {text!r}")
    return int(number), int(size)


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=list(SOURCES), default=list(DATA_NAMES))
    parser.add_argument("--sizes", nargs="+", type=heads, default=[(4, 16), (8, 32), (32, 64)], help="heads x size")
    parser.add_argument("--steps", type=positive, default=50, help="of 2,048 rows each (default 50)")
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

from dataclasses import dataclass

import torch

from experiment.code_version import PROJECT
from figure.first_steps import draw_first_steps
from model.IntTower import IntTower
from preprocessing.tables import Dataset
from training.generators import seed_everything
from training.trainer import Trainer, epoch_batches

BATCH_SIZE, SEED = 2048, 1023


@dataclass(frozen=True)
class FirstSteps:
    """A model's first batch before any step, and its losses."""

    dataset: str
    size: str
    scale: str
    mean: float
    spread: float
    losses: list[float]


def first_steps(data: Dataset, size: tuple[int, int], scale: str, num_steps: int) -> FirstSteps:
    """Train IntTower for some steps."""
    seed_everything(SEED)
    num_heads, head_dim = size
    model = IntTower(
        *(data.user_columns, data.item_columns),
        user_head=num_heads,
        item_head=num_heads,
        field_dim=head_dim,
        fe_scale=scale,
    )
    if scale == AFTER:
        model.start_from(float(data.train.labels.mean()))
    trainer, batches, epoch = Trainer(model, batch_size=BATCH_SIZE), [], 0
    while len(batches) < num_steps:
        batches += epoch_batches(len(data.train), BATCH_SIZE, [SEED, epoch])
        epoch += 1
    model.train()
    with torch.no_grad():
        logits = model(data.train.batch(torch.from_numpy(batches[0])))
    losses = []
    for batch in batches[:num_steps]:
        rows = torch.from_numpy(batch)
        losses.append(trainer.step(data.train.batch(rows), data.train.labels[rows])[0].item())
    return FirstSteps(data.name, f"{num_heads} x {head_dim}", scale, logits.mean().item(), logits.std().item(), losses)


def main(arguments: argparse.Namespace) -> None:
    """Print a line per dataset, size and scale; draw all losses."""
    shown = [step for step in SHOWN if step <= arguments.steps]
    print(f"strict, batch {BATCH_SIZE}, seed {SEED}, torch {torch.__version__}; the loss of the batch at a step")
    print(f"{'dataset':26}{'heads':9}{'scale':7}{'logits':>17}" + "".join(f"{step:>9}" for step in shown), flush=True)
    every = []
    for dataset in arguments.datasets:
        data = load(dataset, "strict", statistics="means")
        for size in arguments.sizes:
            for scale in (BEFORE, AFTER):
                every.append(found := first_steps(data, size, scale, arguments.steps))
                logits = f"{found.mean:.2f} ± {found.spread:.2f}"
                losses = "".join(f"{found.losses[step - 1]:9.3f}" for step in shown)
                print(f"{found.dataset:26}{found.size:9}{found.scale:7}{logits:>17}{losses}", flush=True)
    draw_first_steps(every, PROJECT / "figure" / "first_steps.png")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
