"""One run of a table: what is trained on what, which command does it, and whether a record is that run's."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from experiment.code_version import PROJECT, code_version
from experiment.flags import as_flag
from experiment.model_settings import model_fields, taken_fields
from experiment.settings import UNTUNED
from model import model_class
from preprocessing.choices import PROTOCOLS
from preprocessing.sources import DATA_FOLDER, ENVIRONMENT_VARIABLE

if TYPE_CHECKING:
    from preprocessing.tables import Dataset

SAME_CODE = PROJECT / "results" / "same_code.json"
FIRST_SEED = 1023  # the scripts' default, so a bare command gives one of a table's runs


@dataclass(frozen=True)
class Source:
    """What a dataset of the tables is trained by and read from."""

    script: str
    file: str | None = None  # below $INTTOWER_DATA or data/; None: where the script looks by itself
    protocols: tuple[str, ...] = PROTOCOLS  # that the data can be split by

    @property
    def data(self) -> str | None:
        """The script's --data."""
        return self.file and os.path.abspath(Path(os.environ.get(ENVIRONMENT_VARIABLE) or DATA_FOLDER) / self.file)


# Training scripts are imported here alone: the defaults of a dataset stand there and nowhere else.
SOURCES = {
    "movielens": Source("train_movielens_IntTower"),
    "amazon": Source("train_amazon_IntTower"),
    "beauty": Source("train_amazon_IntTower", "amazon-beauty/reviews_Beauty_5.json.gz"),
    # Without times, so no temporal; without the columns whose scalers the released code fits on test.
    "electronics-part": Source("train_amazon_IntTower", "amazon-electronics-500k/amazon.csv.gz", ("strict",)),
    "kuairand": Source("train_kuairand_IntTower"),
    "alibaba": Source("train_alibaba_IntTower"),
}
# The datasets that have records in results/, and the data's own names there.
DATA_NAMES = {
    "movielens": "movielens",
    "kuairand": "kuairand",
    "beauty": "amazon-Beauty_5",
    "electronics-part": "amazon-electronics-part",
}


def sources_here() -> list[str]:
    """The datasets whose files are here, or which a script fetches or makes up for itself."""
    return [name for name, source in SOURCES.items() if source.data is None or Path(source.data).is_file()]


@dataclass(frozen=True)
class Run:
    """A model trained on a dataset under a protocol; `changes` are settings other than the script's defaults."""

    dataset: str
    protocol: str
    model: str
    seed: int = FIRST_SEED
    changes: tuple[tuple[str, object], ...] = ()
    device: str = "cpu"  # the kind alone: numbers of two CUDA devices are taken for the same

    def __post_init__(self):
        shape_data = {"split_seed", "strict_data", "sample_rate", "label"} & dict(self.changes).keys()
        assert not shape_data, f"{shape_data} change the data, which data_state does not know"

    def settings(self):
        """The Settings that the dataset's script would have."""
        chosen = {"model": self.model, "seed": self.seed, **dict(self.changes)}
        return settings_of(self.dataset, self.protocol, **chosen)

    def data_state(self) -> DataState:
        """The data that it would be trained on, as they are here now."""
        settings = self.settings()
        return _data_state(self.dataset, self.protocol, *_of_data(settings))

    def recorded(self) -> dict:
        """The settings as they stand in the run's record."""
        return json.loads(json.dumps(self.settings().recorded(model_class(self.model))))

    def arguments(self) -> list[str]:
        """The command that makes the run, after `python`: the script and the flags that are not its defaults.

        What a search found is told in flags, as everything that the run changes.
        """
        default = settings_of(self.dataset, self.protocol, model=script(self.dataset).Model.__name__)
        default.data, default.protocol = None, script(self.dataset).Settings.protocol
        chosen = {
            "data": SOURCES[self.dataset].data,
            "model": self.model,
            "protocol": self.protocol,
            "seed": self.seed,
            **dict(self.changes),
        }
        # A value may have a space in it, as a path.
        flags = [
            as_flag(name, value).split(maxsplit=1) for name, value in chosen.items() if value != getattr(default, name)
        ]
        preset = ["--preset", UNTUNED] if script(self.dataset).Settings.TUNED_BY_DEFAULT else []
        return [f"{SOURCES[self.dataset].script}.py", *preset, *(word for flag in flags for word in flag)]

    def code(self) -> str:
        """The version of the code that would make it; see code_version."""
        return code_version(model_class(self.model))

    def is_record(self, record: dict, data: DataState) -> bool:
        """Whether a record is of this run, made by the code and of the data that are here now."""
        return (
            record["settings"] == self.recorded()
            and (record["fingerprint"], record["tables"]) == (data.fingerprint, data.tables)
            and newest_code(record["code"]) == newest_code(self.code())
            and kind_of_device(record["device"]) == self.device
        )

    def folder_name(self, data: DataState) -> str:
        """A name that other settings, data or code do not share."""
        identity = json.dumps(
            [self.recorded(), data.fingerprint, data.tables, self.code(), self.device], sort_keys=True
        )
        key = hashlib.sha256(identity.encode()).hexdigest()[:10]
        return f"{data.name}-{self.protocol}-{self.model}-seed{self.seed}-{key}"


@dataclass(frozen=True)
class DataState:
    """What a record says of its data."""

    name: str
    synthetic: bool
    fingerprint: str
    tables: str


def read_same_code() -> list[dict]:
    """What reproduction/same_code.py noted: versions of the code that give the same numbers, the oldest entry first."""
    return json.loads(SAME_CODE.read_text()) if SAME_CODE.exists() else []


def newest_code(code: str) -> str:
    """The last version of the code that was shown to give the numbers of this one; itself where none was."""
    for before, after in _successors():
        code = after if code == before else code
    return code


@lru_cache
def _successors() -> list[tuple[str, str]]:
    return [(model["before"], model["after"]) for entry in read_same_code() for model in entry["models"].values()]


def kind_of_device(device: str) -> str:
    """`cuda:0` as `cuda`."""
    return device.partition(":")[0]


@lru_cache
def script(dataset: str) -> ModuleType:
    """The training script of a dataset."""
    return importlib.import_module(SOURCES[dataset].script)


def settings_of(dataset: str, protocol: str, **changes):
    """The Settings that the dataset's script has for a protocol, with some changed."""
    own = script(dataset).Settings.BY_PROTOCOL.get(protocol, {})
    return script(dataset).Settings(data=SOURCES[dataset].data, protocol=protocol, **(own | changes))


def as_under_strict(dataset: str, protocol: str, model: str) -> dict:
    """A model's settings that undo what a script has for a protocol."""
    strict, own = settings_of(dataset, "strict"), script(dataset).Settings.BY_PROTOCOL.get(protocol, {})
    of_others = model_fields().keys() - taken_fields(model_class(model)).keys()
    return {name: getattr(strict, name) for name in own if name not in of_others}


def load(dataset: str, protocol: str, **changes) -> Dataset:
    """The splits that the dataset's script trains on under a protocol; `changes` are settings of the data."""
    return _load(dataset, protocol, *_of_data(settings_of(dataset, protocol, **changes)))


def data_state(dataset: str, protocol: str, **changes) -> DataState:
    """The data that are here now; see `load`."""
    return _data_state(dataset, protocol, *_of_data(settings_of(dataset, protocol, **changes)))


def _of_data(settings) -> tuple[str, float]:
    return settings.statistics, settings.label_delay


@lru_cache(maxsize=1)
def _load(dataset: str, protocol: str, statistics: str, label_delay: float) -> Dataset:
    settings = settings_of(dataset, protocol, statistics=statistics, label_delay=label_delay)
    return script(dataset).load(settings)


@lru_cache
def _data_state(dataset: str, protocol: str, statistics: str, label_delay: float) -> DataState:
    data = _load(dataset, protocol, statistics, label_delay)
    return DataState(data.name, data.synthetic, data.fingerprint, data.checksum())
