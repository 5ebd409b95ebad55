"""A search for the settings of one model on one dataset: what it is of, its records, and what comes next.

A study has a file of JSON lines, a line a trial. It is Optuna's in the trials alone: whoever asks for the next one
rebuilds it from the records, so that they are all there is, and it can be stopped and taken up at any trial.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import optuna

from experiment.tuned import FOUND
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from reproduction.records import PROJECT, read_json_lines
from reproduction.runs import Run, data_state, newest_code
from tuning.space import as_json, as_settings, own_course, space_of

TRIALS = PROJECT / "runs" / "tune"
NEEDED = ("number", "times", "state", "parameters", "settings", "valid_auc", "history", "seconds", "made_of")
RESULT = "trial.json"  # in the folder of a trial that has ended
ASKED = "asked.json"  # there, what is trained
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
# What a trial is trained with beside what is searched, the same for every model.
FIXED = {"lr_schedule": "cosine", "warmup": 0.1, "average_decay": 0.0}
EPOCHS = {"movielens": 5, "kuairand": 5}  # the others have fewer rows
EPOCHS_ELSEWHERE = 10
EVEN_DRAWS = 7  # after the first trial and before TPE has seen enough
# A trial is stopped after an epoch by which its best lies below the median of what complete trials had there.
UNPRUNED_TRIALS, UNPRUNED_EPOCHS = 3, 1
# A short training is no friend of a model that learns slowly: what the search found best is trained longer, too, as
# long as that does it good.
LENGTHS = (2, 4)  # times the epochs of a trial


@dataclass(frozen=True)
class Study:
    """A search; `seed` is that of its draws and of its trials' weights and order of rows."""

    dataset: str
    protocol: str
    model: str
    seed: int
    found: Path = FOUND
    device: str = "cpu"  # the kind alone

    @property
    def name(self) -> str:
        """Of the data and the protocol, as the folder and the file of what was found are called."""
        return f"{data_state(self.dataset, self.protocol).name}-{self.protocol}"

    @property
    def path(self) -> Path:
        """Where its records are."""
        return self.found / self.name / f"{self.model}.jsonl"

    @property
    def epochs(self) -> int:
        """Of a trial."""
        return EPOCHS.get(self.dataset, EPOCHS_ELSEWHERE)

    def folder(self, number: int, trials: Path = TRIALS) -> Path:
        """Where a trial's checkpoint and log are until it has ended; another search's are elsewhere."""
        identity = json.dumps([self.made_of(), str(self.found.resolve())], sort_keys=True)
        key = hashlib.sha256(identity.encode()).hexdigest()[:10]
        return trials / f"{self.name}-{self.model}-{key}" / str(number)

    @property
    def own_course(self) -> dict:
        """How the script trains, if that is another way than a trial's or a longer one's; else empty."""
        return own_course(self.model, self.dataset, self.protocol)

    def course(self, times: int | None) -> dict:
        """How long and at what rate a training goes: so many times the epochs of a trial; None: as the script's."""
        if times is None:
            return self.own_course
        epochs = times * self.epochs
        # The rate falls to 0 at the last epoch, before which no training is to end.
        return FIXED | {"epochs": epochs, "patience": epochs}

    def run(self, chosen: dict, times: int | None = 1) -> Run:
        """What is trained with chosen settings, for so long."""
        changes = self.course(times) | chosen
        return Run(self.dataset, self.protocol, self.model, self.seed, tuple(changes.items()))

    def made_of(self) -> dict:
        """What the records of one search have in common, beside what it chooses."""
        data, space = data_state(self.dataset, self.protocol), space_of(self.model)
        run = self.run(as_settings({}))
        return {
            "code": newest_code(run.code()),
            "fingerprint": data.fingerprint,
            "tables": data.tables,
            "device": self.device,
            "settings": {name: value for name, value in run.recorded().items() if name not in space},
            "space": as_json(space),
            "course": {
                "draws": f"Latin hypercube of {EVEN_DRAWS}, then TPE",
                "unpruned": [UNPRUNED_TRIALS, UNPRUNED_EPOCHS],
            },
            "optuna": optuna.__version__,
        }

    def trials(self) -> list[dict]:
        """Its records, in the order in which they were made; raises UserError where they are of another search."""
        records = read_json_lines(self.path, NEEDED)
        made_of = json.loads(json.dumps(self.made_of()))
        for record in records:
            of_record = record["made_of"] | {"code": newest_code(record["made_of"]["code"])}
            if different := [name for name, value in made_of.items() if of_record.get(name) != value]:
                raise UserError(
                    f"{self.path}: expected trials of the search that would be made here, got another "
                    f"{', '.join(different)} in trial {record['number']}; --found takes another folder, or remove the "
                    "file to search anew."
                )
        return records

    def add(self, record: dict) -> None:
        """Keep a trial's record; the file is replaced in one step."""
        lines = [*read_json_lines(self.path), record]
        write_atomically(self.path, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode())

    def missing(self, trials: list[dict], wanted: int) -> tuple[int, list[int | None]]:
        """How many trials of the search are still to be made, and at most which trainings after it (see `course`)."""
        searched = sum(trial["times"] == 1 for trial in trials)
        if searched < wanted:
            return wanted - searched, [*LENGTHS, *([None, None] if self.own_course else [])]
        return 0, [times for _, times in trainings_after(trials, self.own_course)]


def trainings_after(trials: list[dict], own_course: dict) -> list[tuple[dict, int | None]]:
    """What is still to be trained after a search: trials of it, each with how many times a trial's epochs.

    None in the place of a number: as the script trains where nothing was searched. The best trial is trained so and the
    first, whose settings are the script's: a search does not end behind the script for its way of training alone.
    """
    search = [trial for trial in trials if trial["times"] == 1]
    best = best_trial(search)
    if best is None:
        return []
    after = [(best, times) for times in missing_lengths(trials)]
    if own_course:
        made = [trial["settings"] for trial in trials if trial.get("course") == own_course]
        candidates = [best] if best["settings"] == search[0]["settings"] else [best, search[0]]
        after += [(trial, None) for trial in candidates if trial["settings"] not in made]
    return after


def missing_lengths(trials: list[dict]) -> list[int]:
    """For how many times a trial's epochs what the search found best is still to be trained.

    A training that did no better than the shorter one before it is the last: a longer one is not tried.
    """
    best = best_trial([trial for trial in trials if trial["times"] == 1])
    if best is None:
        return []
    aucs = {trial["times"]: trial["valid_auc"] or 0.0 for trial in trials if trial["settings"] == best["settings"]}
    before = best["valid_auc"]
    for place, times in enumerate(LENGTHS):
        if times not in aucs:
            return list(LENGTHS[place:])
        if aucs[times] <= before:
            return []
        before = aucs[times]
    return []


def best_trial(trials: list[dict]) -> dict | None:
    """The trial with the highest validation AUC of those that ran to their end; None where there is none."""
    complete = [trial for trial in trials if trial["state"] == COMPLETE]
    return max(complete, key=lambda trial: trial["valid_auc"], default=None)
