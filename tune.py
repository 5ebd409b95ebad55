"""Search the settings of models, each with the same number of trials, judged on validation alone.

python tune.py --datasets movielens --protocols strict --models DCN DSSM IntTower --trials 20 --dry-run
python tune.py --datasets movielens --protocols strict --models DCN DSSM IntTower --trials 20
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from experiment.tuned import FOUND, SEARCHED_AS
from preprocessing.choices import PROTOCOLS
from preprocessing.command import EXIT_OK, Parser, exit_code, positive, read_command_line
from preprocessing.errors import UserError
from reproduction import plans
from reproduction.runs import DATA_NAMES, FIRST_SEED, SOURCES
from training.device import DEVICES, check_device

# Under paper a label is part of its own row's features, those of test too: nothing is searched there.
SEARCHABLE = [protocol for protocol in PROTOCOLS if protocol not in SEARCHED_AS]
TABLE_SEEDS = range(FIRST_SEED, FIRST_SEED + 100)


def parse(words: list[str]) -> argparse.Namespace:
    """The command line; leaves with code 2 on a mistake."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=list(DATA_NAMES), default=["movielens"])
    parser.add_argument("--protocols", nargs="+", choices=SEARCHABLE, default=["strict"])
    parser.add_argument("--models", nargs="+", choices=plans.SEARCHED, default=plans.SEARCHED)
    parser.add_argument("--trials", type=positive, default=20, help="of each model's search, those on record included")
    parser.add_argument(
        "--jobs", type=positive, default=os.cpu_count() or 1, help="trials at a time, of different models (a core each)"
    )
    parser.add_argument("--seed", type=positive, default=1, help="of what is drawn, and of the trials' weights")
    parser.add_argument("--device", default="cpu", help=f"{DEVICES} (default cpu)")
    parser.add_argument("--found", type=Path, default=FOUND, help="where records and what they found go")
    parser.add_argument("--dry-run", action="store_true", help="say what is on record and what is to do, and stop")
    arguments = parser.parse_args(words)
    for name in ("datasets", "protocols", "models"):
        setattr(arguments, name, list(dict.fromkeys(getattr(arguments, name))))  # twice is once
    check_device(arguments.device)
    if arguments.seed in TABLE_SEEDS:
        parser.error(f"--seed: expected none of the tables' seeds, from {FIRST_SEED} on, got {arguments.seed}")
    if importlib.util.find_spec("optuna") is None:
        raise UserError("tune.py: expected the package optuna, got none; pip install -r requirements-tuning.txt.")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

from reproduction.processes import only_process
from reproduction.runs import data_state, kind_of_device
from training.device import resolve_device
from tuning.output import write_found
from tuning.search import how_many, search, time_left_of
from tuning.study import TRIALS, Study


def main(arguments: argparse.Namespace) -> int:
    """Make the trials that are missing, and write what they found; returns the exit code."""
    arguments.device = str(resolve_device(arguments.device))
    studies = _studies(arguments)
    trials = {study: study.trials() for study in studies}
    if arguments.dry_run:
        for study, made in trials.items():
            missing = how_many(study, made, arguments.trials)
            left = time_left_of({study: made}, arguments.trials, 1)
            print(f"{study.name} {study.model}: {len(made)} trials on record, at most {missing} to make, {left}")
        print(f"{time_left_of(trials, arguments.trials, arguments.jobs)} with {arguments.jobs} at a time.")
        return EXIT_OK
    try:
        with only_process(TRIALS) as lock:
            search(studies, arguments.trials, arguments.jobs, arguments.device, lock)
    finally:  # what was made counts, wherever the rest was stopped
        for name, study in {study.name: study for study in studies}.items():
            write_found(arguments.found, name, study.dataset, study.protocol)
    return EXIT_OK


def _studies(arguments: argparse.Namespace) -> list[Study]:
    studies, device = [], kind_of_device(arguments.device)
    for dataset in arguments.datasets:
        possible = SOURCES[dataset].protocols
        for protocol in arguments.protocols:
            if protocol not in possible:
                print(f"{dataset}: left out under {protocol}; its data can be split by {', '.join(possible)} alone.")
                continue
            if data_state(dataset, protocol).synthetic:
                print(
                    f"{dataset} {protocol}: a SYNTHETIC sample, for want of real files; it says nothing of real users."
                )
            studies += [
                Study(dataset, protocol, model, arguments.seed, arguments.found, device) for model in arguments.models
            ]
    return studies


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments), "the trials saved their checkpoints; the same command goes on."))
