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

from experiment.tuned import FOUND
from preprocessing.choices import PROTOCOLS
from preprocessing.command import EXIT_OK, Parser, exit_code, positive, read_command_line
from preprocessing.errors import UserError
from reproduction import plans
from reproduction.runs import SOURCES
from training.device import DEVICES, check_device


def parse(words: list[str]) -> argparse.Namespace:
    """The command line; leaves with code 2 on a mistake."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=sorted(SOURCES), default=["movielens"])
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=["strict"])
    parser.add_argument("--models", nargs="+", choices=list(plans.TABLE_2), default=list(plans.TABLE_2))
    parser.add_argument("--trials", type=positive, default=20, help="of each model, those on record included")
    parser.add_argument(
        "--jobs", type=positive, default=os.cpu_count() or 1, help="trials at a time, of different models (a core each)"
    )
    parser.add_argument("--seed", type=positive, default=1, help="of what is drawn, and of the trials' weights")
    parser.add_argument("--device", default="cpu", help=f"{DEVICES} (default cpu)")
    parser.add_argument("--found", type=Path, default=FOUND, help="where records and what they found go")
    parser.add_argument("--dry-run", action="store_true", help="say what is on record and what is to do, and stop")
    arguments = parser.parse_args(words)
    check_device(arguments.device)
    if importlib.util.find_spec("optuna") is None:
        raise UserError("tune.py: expected the package optuna, got none; pip install -r requirements-tuning.txt.")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

from reproduction.processes import only_process, readable, time_left
from training.device import resolve_device
from tuning.output import write_found
from tuning.search import expected_seconds, search
from tuning.study import TRIALS, Study


def main(arguments: argparse.Namespace) -> int:
    """Make the trials that are missing, and write what they found; returns the exit code."""
    arguments.device = str(resolve_device(arguments.device))
    studies = [
        Study(dataset, protocol, model, arguments.seed, arguments.found)
        for dataset in arguments.datasets
        for protocol in arguments.protocols
        if protocol in SOURCES[dataset].protocols
        for model in arguments.models
    ]
    if arguments.dry_run:
        return _print_plan(studies, arguments.trials, arguments.jobs)
    with only_process(TRIALS) as lock:
        search(studies, arguments.trials, arguments.jobs, arguments.device, lock)
    for name in dict.fromkeys(study.name for study in studies):
        write_found(arguments.found, name)
    return EXIT_OK


def _print_plan(studies: list[Study], wanted: int, jobs: int) -> int:
    seconds = []
    for study in studies:
        trials = study.trials()
        missing = max(wanted - len(trials), 0)
        each = expected_seconds(trials)
        seconds += [each or 0.0] * missing
        print(f"{study.name} {study.model}: {len(trials)} trials on record, {missing} to make", end="")
        print(f", about {readable(each)} each" if missing and each else "")
    print(f"about {readable(time_left(seconds, jobs))} with {jobs} at a time (of those whose time is known).")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments), "the trials saved their checkpoints; the same command goes on."))
