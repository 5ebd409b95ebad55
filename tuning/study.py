"""A search for the settings of one model on one dataset: what it is of, its records, and what they found.

A study has a file of JSON lines, a line a trial. It is Optuna's in the trials alone: whoever asks for the next one
rebuilds it from the records, so that they are all there is, and it can be stopped and taken up at any trial.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from experiment.tuned import FOUND
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from reproduction.records import PROJECT, read_json_lines
from reproduction.runs import Run, data_state, newest_code

TRIALS = PROJECT / "runs" / "tune"
RESULT = "trial.json"  # in the folder of a trial that has ended
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
# What a trial is trained with beside what is searched, the same for every model.
FIXED = {"lr_schedule": "cosine", "warmup": 0.1, "average_decay": 0.0}
EPOCHS = {"movielens": 5, "kuairand": 5}  # the others have fewer rows
EPOCHS_ELSEWHERE = 10


@dataclass(frozen=True)
class Study:
    """A search; `seed` is that of its draws and of its trials' weights and order of rows."""

    dataset: str
    protocol: str
    model: str
    seed: int
    found: Path = FOUND

    @property
    def name(self) -> str:
        """Of the data and the protocol, as the folder and the file of what was found are called."""
        return f"{data_state(self.dataset, self.protocol).name}-{self.protocol}"

    @property
    def path(self) -> Path:
        """Where its records are."""
        return self.found / self.name / f"{self.model}.jsonl"

    def folder(self, number: int, trials: Path = TRIALS) -> Path:
        """Where a trial's checkpoint and log are until it has ended."""
        return trials / f"{self.name}-{self.model}-seed{self.seed}" / str(number)

    @property
    def fixed(self) -> dict:
        """The settings that no trial changes."""
        return FIXED | {"epochs": EPOCHS.get(self.dataset, EPOCHS_ELSEWHERE)}

    def run(self, chosen: dict) -> Run:
        """What is trained with the settings that a trial tries."""
        return Run(self.dataset, self.protocol, self.model, self.seed, tuple((self.fixed | chosen).items()))

    def made_of(self) -> dict:
        """What the records of one search have in common."""
        data = data_state(self.dataset, self.protocol)
        code = newest_code(self.run({}).code())
        return {
            "seed": self.seed, "fixed": self.fixed, "code": code, "fingerprint": data.fingerprint, "tables": data.tables
        }  # fmt: skip

    def trials(self) -> list[dict]:
        """Its records, in the order in which they were made; raises UserError where they are of another search."""
        records = read_json_lines(self.path)
        made_of = json.loads(json.dumps(self.made_of()))
        for record in records:
            record["made_of"]["code"] = newest_code(record["made_of"]["code"])
            if different := [name for name, value in made_of.items() if record["made_of"].get(name) != value]:
                raise UserError(
                    f"{self.path}: expected trials of this code, data and seed, got another {', '.join(different)} in "
                    f"trial {record['number']}; --found takes another folder, or remove the file to search anew."
                )
        return records

    def add(self, record: dict) -> None:
        """Keep a trial's record; the file is replaced in one step."""
        lines = [*read_json_lines(self.path), record]
        write_atomically(self.path, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode())
