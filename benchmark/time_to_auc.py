"""Seconds from raw files to a validation AUC, for IntTower, the Two-Tower and DCN, by default and trained to be quick.

    python -m benchmark.time_to_auc
    python -m benchmark.time_to_auc --seeds 1 --configurations "IntTower, quick"

MovieLens-1M under `strict`. The AUC is the one that the paper reports for IntTower, .8974, which it measured under a
leak; here no label leaks. Each run is a process of its own, timed from its start: imports, reading, encoding, training
and a validation after each epoch. One that never gets there is trained as long as its script would, and says so.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.sources import movielens_files

TARGET = 0.8974
# Warm-up and a cosine let the learning rate be several times as high; so short a training has no time to overfit, and
# is better without dropout, with some L2.
_COSINE = dict(lr_schedule="cosine", warmup=0.1, lr=3e-3, epochs=3, batch_size=1024)
_QUICK = _COSINE | dict(lr=5e-3, epochs=2, dropout=0.0, l2_embedding=0.1)
_INPUTS = dict(fe_input="input")
CONFIGURATIONS = {
    "IntTower": ("IntTower", {}),
    "IntTower, inputs": ("IntTower", _INPUTS),
    "IntTower, cosine": ("IntTower", _INPUTS | _COSINE),
    "IntTower, quick": ("IntTower", _INPUTS | _QUICK),
    "DSSM": ("DSSM", {}),
    "DSSM, quick": ("DSSM", _QUICK),
    "DCN": ("DCN", {}),
    "DCN, quick": ("DCN", _QUICK | dict(epochs=3)),
}


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--seeds", type=positive, default=3, help="of which the median is told (default 3)")
    parser.add_argument("--configurations", nargs="+", choices=list(CONFIGURATIONS), default=list(CONFIGURATIONS))
    parser.add_argument("--alone", type=int, metavar="SEED", help="train the one configuration here, with this seed")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import json
import statistics
import subprocess
import time

import torch
from tqdm import tqdm

from experiment.code_version import PROJECT
from experiment.flags import as_flag
from experiment.run import make_trainer
from model import model_class
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens, locate_movielens
from reproduction.runs import FIRST_SEED, settings_of
from training.generators import seed_everything


def train(configuration: str, seed: int, data_path: str | None) -> None:
    """Train until the validation AUC is there; prints how far it came, and when."""
    name, changes = CONFIGURATIONS[configuration]
    settings = settings_of("movielens", "strict", model=name, seed=seed, **changes)
    data = load_movielens(locate_movielens(data_path))
    seed_everything(seed)
    model_type = model_class(name)
    model = model_type.from_columns(data.user_columns, data.item_columns, **settings.model_options(model_type))
    trainer = make_trainer(settings, data, model, None)
    progress = trainer.fit(
        data.train, data.valid, settings.epochs, settings.patience, after_epoch=lambda row: row["valid_auc"] >= TARGET
    )
    ended = time.time()
    print(json.dumps({"auc": progress.best_auc, "epochs": progress.epoch, "time": ended, "data": data.name}))


def main(arguments: argparse.Namespace) -> None:
    """Print a line per configuration."""
    if arguments.alone is not None:
        return train(arguments.configurations[0], arguments.alone, arguments.data)
    runs = {configuration: [] for configuration in arguments.configurations}
    pairs = [(seed, configuration) for seed in range(arguments.seeds) for configuration in runs]
    for seed, configuration in tqdm(pairs, unit="run", disable=None):
        command = [sys.executable, "-m", "benchmark.time_to_auc", "--configurations", configuration]
        command += ["--alone", str(FIRST_SEED + seed), *(["--data", arguments.data] if arguments.data else [])]
        start = time.time()
        ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        if ended.returncode:
            raise UserError(f"{configuration}: {ended.stderr.strip().splitlines()[-1]}")
        run = json.loads(ended.stdout.splitlines()[-1])
        runs[configuration].append(run | {"seconds": run["time"] - start})
    what = f"{run['data']}, validation AUC of {TARGET:.4f}"
    print(f"{what}, {torch.get_num_threads()} threads, the median of {arguments.seeds} seeds")
    print(f"{'':18}{'seconds':>8}{'share':>8}{'epochs':>8}{'AUC':>8}  flags")
    of_default = {}
    for configuration, of_seeds in runs.items():
        auc, epochs, seconds = (
            statistics.median(run[name] for run in of_seeds) for name in ("auc", "epochs", "seconds")
        )
        never = sum(run["auc"] < TARGET for run in of_seeds)
        said = f"not there with {never} of {len(of_seeds)} seeds" if never else ""
        model, changes = CONFIGURATIONS[configuration]
        share = seconds / of_default.setdefault(model, seconds)  # of the model's first configuration in this run
        flags = " ".join(as_flag(name, value) for name, value in changes.items())
        end = "; ".join(filter(None, (flags, said)))
        print(f"{configuration:18}{seconds:8.0f}{share:8.2f}{epochs:8.0f}{auc:8.4f}  {end}".rstrip())
    return None


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
