"""One trial of a search: settings are drawn, trained, and judged on validation alone. The test rows are not looked at.

    python -m tuning.trial --dataset movielens --protocol strict --model DCN --seed 1 --found results/tuned \
        --folder runs/tune/movielens-strict-DCN-seed1/0

Which settings the trial tries depends on the records of the trials before it and on the seed, and on nothing else. Its
record is left in the folder, from where `tune.py` takes it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from preprocessing.command import Parser, exit_code, read_command_line


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    for name in ("--dataset", "--protocol", "--model"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--found", type=Path, required=True, help="folder of the records")
    parser.add_argument("--folder", type=Path, required=True, help="folder of this trial")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below

import optuna

from experiment.run import make_trainer
from model import model_class
from preprocessing.files import write_atomically
from reproduction.runs import script
from training.errors import NonFiniteLoss
from training.trainer import seed_everything
from tuning.space import as_settings, defaults_of, space_of
from tuning.study import COMPLETE, FAILED, PRUNED, RESULT, Study

STARTUP_TRIALS = 6  # drawn evenly, before TPE has seen enough
# A trial is stopped after an epoch that lies below the median of what the trials before it had there.
UNPRUNED_TRIALS, UNPRUNED_EPOCHS = 4, 1
_STATES = {
    COMPLETE: optuna.trial.TrialState.COMPLETE,
    PRUNED: optuna.trial.TrialState.PRUNED,
    FAILED: optuna.trial.TrialState.FAIL,
}


def replay(study: Study, trials: list[dict]) -> optuna.Study:
    """A study as Optuna would have it after some trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # By number: a sampler that is made anew for each trial would draw the same again and again.
    sampler = optuna.samplers.TPESampler(seed=1000 * study.seed + len(trials), n_startup_trials=STARTUP_TRIALS)
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
    """The next trial; the first is of the settings that the dataset's script has by itself."""
    replayed = replay(study, trials)
    if not trials:
        replayed.enqueue_trial(defaults_of(study.model, study.dataset, study.protocol))
    return replayed.ask(space_of(study.model))


def main(arguments: argparse.Namespace) -> None:
    """Ask, train, leave the record."""
    study = Study(arguments.dataset, arguments.protocol, arguments.model, arguments.seed, arguments.found)
    trials = study.trials()
    trial = ask(study, trials)
    chosen = as_settings(trial.params)
    print(json.dumps(chosen), flush=True)
    settings = study.run(chosen).settings()
    settings.device, settings.resume = arguments.device, True
    data = script(study.dataset).load(settings)
    seed_everything(settings.seed)
    model_type = model_class(study.model)
    model = model_type.from_columns(data.user_columns, data.item_columns, **settings.model_options(model_type))
    trainer = make_trainer(settings, data, model, arguments.folder)
    start, before = time.monotonic(), trainer.progress.seconds

    def is_bad(row: dict) -> bool:
        print(f"epoch {row['epoch']:3d}  valid AUC {row['valid_auc']:.4f}  {row['seconds']:.0f} s", flush=True)
        trial.report(row["valid_auc"], row["epoch"])
        return row["epoch"] < settings.epochs and trial.should_prune()

    progress, reason = trainer.progress, None
    try:
        if not any([is_bad(row) for row in progress.history]):  # of a trial that was stopped and goes on
            trainer.fit(data.train, data.valid, settings.epochs, after_epoch=is_bad)
        state = COMPLETE if progress.epoch == settings.epochs else PRUNED
    except NonFiniteLoss as error:
        state, reason = FAILED, str(error)
    best = max(progress.history, key=lambda row: row["valid_auc"], default={"valid_auc": None, "valid_logloss": None})
    record = {
        "number": len(trials),
        "state": state,
        "reason": reason,
        "parameters": trial.params,
        "settings": chosen,
        "valid_auc": best["valid_auc"],
        "valid_logloss": best["valid_logloss"],
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "seconds": before + time.monotonic() - start,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "made_of": study.made_of(),
    }
    write_atomically(arguments.folder / RESULT, (json.dumps(record) + "\n").encode())


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
