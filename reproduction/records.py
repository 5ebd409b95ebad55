"""The records that tables are made from: JSON lines under results/, a file per dataset and protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from experiment.code_version import PROJECT
from preprocessing.choices import PROTOCOLS
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from reproduction.runs import DataState, Run, kind_of_device, newest_code

RESULTS = PROJECT / "results"
NEEDED = ("settings", "seed", "model", "code", "fingerprint", "tables", "device")  # of a run's record


class Records:
    """The records in a folder; of each run, which is known by its settings, one."""

    def __init__(self, folder: Path = RESULTS):
        self.folder = Path(folder)
        self._files: dict[Path, dict[str, dict]] = {}

    def find(self, run: Run, dataset: str | None = None) -> dict | None:
        """The record with a run's settings, whatever code and data made it; None where there is none.

        Args:
            dataset: the data's own name, such as "movielens-synthetic", where it is not the run's.
        """
        return self._read(self._path(dataset or run.dataset, run.protocol)).get(_key(run.recorded()))

    def by_seed(self, run: Run, dataset: str | None = None) -> dict[int, dict]:
        """The records of a run with its own and with any other seed, all made by one code of one set of data.

        Where a run was made again for its first seeds only, the others' older records are left out.
        """
        wanted = run.recorded() | {"seed": None}
        records = self._read(self._path(dataset or run.dataset, run.protocol)).values()
        found = sorted((r for r in records if r["settings"] | {"seed": None} == wanted), key=lambda r: r["seed"])
        return {r["seed"]: r for r in found if _origin(r) == _origin(found[0])}

    def current(self, run: Run, data: DataState) -> dict | None:
        """The record of a run, if the code and the data that are here now would make it again."""
        record = self.find(run, data.name)
        return record if record is not None and run.is_record(record, data) else None

    def all(self, dataset: str) -> list[dict]:
        """Every record of a dataset."""
        paths = [self._path(dataset, protocol) for protocol in PROTOCOLS]
        return [record for path in paths for record in self._read(path).values()]

    def add(self, record: dict) -> None:
        """Keep a record in the place of an older one with its settings; the file is replaced in one step."""
        path = self._path(record["dataset"], record["protocol"])
        self._files.pop(path, None)  # others may have written since it was read
        records = self._read(path)
        records[_key(record["settings"])] = record
        lines = [json.dumps(record, separators=(",", ":")) for _, record in sorted(records.items())]
        write_atomically(path, ("\n".join(lines) + "\n").encode())

    def _path(self, dataset: str, protocol: str) -> Path:
        return self.folder / dataset / f"{protocol}.jsonl"

    def _read(self, path: Path) -> dict[str, dict]:
        if path not in self._files:
            self._files[path] = {_key(record["settings"]): record for record in read_json_lines(path, NEEDED)}
        return self._files[path]


def read_json_lines(path: Path, needed: Sequence[str] = ()) -> list[dict]:
    """The objects of a file of JSON lines, none where there is no file.

    Raises UserError for a line that is none, or has not all of the names that are needed.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: expected a JSON object, got {error}; remove the line.") from error
        if not isinstance(record, dict) or (lacks := [name for name in needed if name not in record]):
            got = f"one without {', '.join(lacks)}" if isinstance(record, dict) else f"{record!r:.40}"
            raise UserError(f"{path}, line {number}: expected a record as JSON object, got {got}; remove the line.")
        records.append(record)
    return records


def _origin(record: dict) -> tuple[str, ...]:
    return newest_code(record["code"]), record["fingerprint"], record["tables"], kind_of_device(record["device"])


def _key(settings: dict) -> str:
    order = ("model", "seed")  # so that a model's lines stand together
    return json.dumps([*(settings[name] for name in order), settings], sort_keys=True)
