"""One trial of a search: settings are drawn, trained, and judged on validation alone. The test rows are not looked at.

    python -m tuning.trial --dataset movielens --protocol strict --model DCN --seed 1 --wanted 20 \
        --found results/tuned --folder runs/tune/movielens-strict-DCN/0

Which settings the trial tries depends on the records of the trials before it and on the seed, and on nothing else. Its
record is left in the folder, from where `tune.py` takes it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from preprocessing.command import Parser, exit_code, positive, read_command_line


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    for name in ("--dataset", "--protocol", "--model"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--wanted", type=positive, required=True, help="trials of the search")
    parser.add_argument("--found", type=Path, required=True, help="folder of the records")
    parser.add_argument("--folder", type=Path, required=True, help="folder of this trial")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below

from dataclasses import replace

import optuna

from experiment.code_version import code_version
from experiment.run import make_trainer
from model import model_class
from preprocessing.errors import is_out_of_memory
from preprocessing.files import write_atomically
from reproduction.runs import kind_of_device, load
from training import CHECKPOINT
from training.errors import NonFiniteLoss
from training.generators import seed_everything
from tuning.space import as_settings, defaults_of, even_draws, space_of
from tuning.study import (
    ASKED,
    COMPLETE,
    EVEN_DRAWS,
    FAILED,
    PRUNED,
    RESULT,
    UNPRUNED_EPOCHS,
    UNPRUNED_TRIALS,
    Study,
    trainings_after,
)

_STATES = {
    COMPLETE: optuna.trial.TrialState.COMPLETE,
    PRUNED: optuna.trial.TrialState.PRUNED,
    FAILED: optuna.trial.TrialState.FAIL,
}


def replay(study: Study, trials: list[dict]) -> optuna.Study:
    """A study as Optuna would have it after some trials of its search."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # By number: a sampler that is made anew for each trial would draw the same again and again.
    sampler = optuna.samplers.TPESampler(seed=1000 * study.seed + len(trials), n_startup_trials=1 + EVEN_DRAWS)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=UNPRUNED_EPOCHS + 1)
    replayed = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    space = space_of(study.model)
    for trial in trials:
        replayed.add_trial(
            optuna.trial.create_trial(
                state=_STATES[trial["state"]],
                params=trial["parameters"],
                distributions=space,
                value=trial["valid_auc"] if trial["state"] == COMPLETE else None,
                intermediate_values={row["epoch"]: row["valid_auc"] for row in trial["history"]},
            )
        )
    return replayed


def ask(study: Study, trials: list[dict]) -> optuna.Trial:
    """The next trial of a search; the first is of the settings that table 2 has where nothing was searched."""
    replayed, space = replay(study, trials), space_of(study.model)
    of_start = [
        defaults_of(study.model, study.dataset, study.protocol),
        *even_draws(space, EVEN_DRAWS, study.seed),
    ]
    if len(trials) < len(of_start):
        replayed.enqueue_trial(of_start[len(trials)])
    return replayed.ask(space)


def forget_another(folder: Path, asked: str) -> None:
    """Remove the checkpoint in a trial's folder where it is not of what is asked.

    A longer training that was stopped has the number of the next trial of a search that then gets more of them.
    """
    path = folder / ASKED
    if not path.exists() or path.read_text() != asked:
        (folder / CHECKPOINT).unlink(missing_ok=True)
        write_atomically(path, asked.encode())


def main(arguments: argparse.Namespace) -> None:
    """Ask, train, leave the record."""
    start = time.monotonic()
    (arguments.folder / RESULT).unlink(missing_ok=True)
    device = kind_of_device(arguments.device)
    study = Study(arguments.dataset, arguments.protocol, arguments.model, arguments.seed, arguments.found, device)
    trials = study.trials()
    searched = [trial for trial in trials if trial["times"] == 1]
    if len(searched) < arguments.wanted:
        trial, times = ask(study, searched), 1
        parameters, chosen = trial.params, as_settings(trial.params)
    else:
        trial, (best, times) = None, trainings_after(trials, study.own_course)[0]
        parameters, chosen = best["parameters"], best["settings"]
    print(json.dumps(chosen | {"times": times}), flush=True)
    code = code_version(model_class(study.model))
    forget_another(arguments.folder, json.dumps(chosen | {"times": times, "code": code}))
    settings = study.run(chosen, times).settings()
    settings.device, settings.resume = arguments.device, True
    data = replace(load(study.dataset, study.protocol), embedding_dim=settings.embedding_dim)
    seed_everything(settings.seed)
    model_type = model_class(study.model)

    def is_bad(row: dict) -> bool:
        print(f"epoch {row['epoch']:3d}  valid AUC {row['valid_auc']:.4f}  {row['seconds']:.0f} s", flush=True)
        if trial is None:
            return False
        trial.report(row["valid_auc"], row["epoch"])
        return row["epoch"] < settings.epochs and trial.should_prune()

    history, reason, parameters_of_model, before = [], None, None, 0.0
    try:
        model = model_type.from_columns(data.user_columns, data.item_columns, **settings.model_options(model_type))
        parameters_of_model = sum(parameter.numel() for parameter in model.parameters())
        trainer = make_trainer(settings, data, model, arguments.folder)
        history, before = trainer.progress.history, trainer.progress.seconds
        if not any([is_bad(row) for row in history]):  # of a trial that was stopped and goes on
            trainer.fit(data.train, data.valid, settings.epochs, settings.patience, after_epoch=is_bad)
        state = PRUNED if trial and trainer.progress.epoch < settings.epochs else COMPLETE
    except (NonFiniteLoss, MemoryError, RuntimeError) as error:
        if not isinstance(error, NonFiniteLoss) and not is_out_of_memory(error):
            raise
        state, reason = FAILED, str(error).splitlines()[0]
    best = max(history, key=lambda row: row["valid_auc"], default={"valid_auc": None, "valid_logloss": None})
    record = {
        "number": len(trials),
        "times": times,
        "course": study.own_course if times is None else None,
        "state": state,
        "reason": reason,
        "parameters": parameters,
        "settings": chosen,
        "valid_auc": best["valid_auc"],
        "valid_logloss": best["valid_logloss"],
        "best_epoch": best.get("epoch"),
        "history": history,
        "seconds": before + time.monotonic() - start,
        "num_parameters": parameters_of_model,
        "made_of": study.made_of(),
    }
    write_atomically(arguments.folder / RESULT, (json.dumps(record) + "\n").encode())


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
