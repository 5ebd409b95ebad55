"""The settings of a training script, as a dataclass whose fields are its flags. Imports nothing heavy."""

from __future__ import annotations

import argparse
import dataclasses
import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiment.flags import as_flag, flag_name, option
from experiment.installed import check_compiler, check_tensorboard, check_torchrec
from experiment.model_settings import ModelSettings, model_fields, taken_fields
from experiment.tuned import tuned_settings
from model import MODELS, model_class
from preprocessing.choices import PROTOCOLS, STATISTICS
from preprocessing.command import Parser
from preprocessing.errors import UserError
from training.device import AMP, DEVICES, check_device
from training.schedule import SCHEDULES

# A first look at the sample that stands in for real data: it is small, and batches as large as theirs are too few.
ON_SAMPLE = {"batch_size": 512, "epochs": 6}


# Settings that came when there were records without them: these values, which change nothing, are not recorded.
LATER = {
    "fe_scale": "sum",
    "prior_bias": False,
    "user_id_dropout": 0.0,
    "item_id_dropout": 0.0,
    "validate_every": 0,
    "statistics": "means",
    "label_delay": 0.0,
    "drop_statistics": False,
    "average_decay": 0.0,
    "biases": False,
    "lr_schedule": "constant",
    "warmup": 0.0,
    "groups": "all",
    "cross_num": 2,
    "cross_parameterization": "vector",
    "att_layer_num": 3,
    "att_head_num": 2,
    "amp": "off",
    "compile": False,
    "shard_embeddings": 0,
    "shard_lr": 0.0,
}


@dataclass
class TrainingSettings(ModelSettings):
    """What every training script lets a person choose."""

    data: str | None = option(None, "file or folder of the raw data; else $INTTOWER_DATA, data/, a download")
    model: str | None = option(None, "the model to train, else the one that the script imports", choices=sorted(MODELS))
    protocol: str = option("strict", "how rows are split and what a row may know of labels", choices=PROTOCOLS)
    statistics: str = option(
        "means",
        "what is made of labels: means; residuals and counts besides; these crossed with the other tower's fields, too",
        choices=STATISTICS,
    )
    label_delay: float = option(0.0, "of --protocol online: seconds until a user's label is known")
    epochs: int = option(30, "most epochs to train")
    patience: int = option(5, "stop after so many epochs without a better validation AUC")
    batch_size: int = option(2048, "rows in a step")
    lr: float = option(1e-3, "Adam's learning rate")
    lr_schedule: str = option("constant", "cosine: down to 0 over --epochs", choices=SCHEDULES)
    warmup: float = option(0.0, "of --lr-schedule cosine: share of all steps in which the rate rises")
    l2_embedding: float = option(1e-5, "weight of the squared embeddings in the loss summed over a batch")
    prior_bias: bool = option(False, "start the logit's bias at the log odds of the training labels")
    user_id_dropout: float = option(0.0, "share of a batch's rows whose user id is made an unknown one")
    item_id_dropout: float = option(0.0, "share of a batch's rows whose item id is made an unknown one")
    drop_statistics: bool = option(False, "an id that is dropped takes its statistics along: a stranger's are left")
    average_decay: float = option(0.0, "share that a step keeps of an average of the weights, which is served; 0: none")
    validate_every: int = option(0, "validate after so many batches, too, and keep the best weights; 0: by epoch")
    embedding_dim: int = option(32, "size of each field's embedding")
    seed: int = option(1023, "of weights, dropout and the order of rows")
    split_seed: int = option(1023, "of the random splits and the folds of label means")
    device: str = option("auto", DEVICES)
    strict_data: bool = option(False, "refuse rows whose user or item is missing from its table, and repeated rows")
    output: str | None = option(None, "folder of this run (default runs/<dataset>-<model>-<protocol>-seed<n>)")
    checkpoint_seconds: float = option(60.0, "seconds between checkpoints within an epoch; each epoch's end has one")
    init_from: str | None = option(None, "folder of a finished run: start from its weights, whose ids keep their rows")
    resume: bool = option(False, "go on from the checkpoint in the run's folder")
    overwrite: bool = option(False, "replace the run that stands in the folder")
    amp: str = option("off", "bf16: steps compute in bfloat16 where that is safe; losses stay in float32", choices=AMP)
    compile: bool = option(False, "have torch.compile make the steps; it takes a minute at the start")
    shard_embeddings: int = option(
        0, "deal embedding tables of more rows than this out to all processes (TorchRec, row-wise Adagrad); 0: none"
    )
    shard_lr: float = option(0.0, "learning rate of the tables of --shard-embeddings; 0: that of --lr")
    tensorboard: bool = option(False, "also write each epoch for `tensorboard --logdir runs`")

    TUNED: ClassVar[str | None] = None  # the data on which --preset tuned was searched, as results/tuned/ names them
    TUNED_BY_DEFAULT: ClassVar[bool] = False  # whether a script takes that preset where none is named
    # What a protocol has in the place of a default; a preset overrules it, and a flag both.
    BY_PROTOCOL: ClassVar[dict[str, dict]] = {}
    # The record leaves out what shaped no number; a run may be resumed with other values of the second list.
    # The record names the run that this one started from by its weights, wherever it lies.
    NOT_IN_RECORD = (
        "data",
        "output",
        "init_from",
        "resume",
        "overwrite",
        "device",
        "checkpoint_seconds",
        "tensorboard",
    )
    NOT_IN_IDENTITY = (*NOT_IN_RECORD, "epochs", "patience", "strict_data")

    def __post_init__(self):
        self._chosen: frozenset[str] | None = None  # settings that flags chose; None where nobody was asked
        self._takes_search = self._needs_search = False  # whether what was found is to be taken; and must be there

    def check(self) -> None:
        """Raise UserError for a number out of its range; a dataset's settings also look for its files."""
        super().check()
        least = {"epochs": 1, "patience": 1, "batch_size": 2, "embedding_dim": 1, "seed": 0, "split_seed": 0}
        least |= {"l2_embedding": 0, "checkpoint_seconds": 0, "validate_every": 0, "label_delay": 0}
        least |= {"shard_embeddings": 0, "shard_lr": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= minimum):
                raise UserError(f"{flag_name(name)}: expected a number of at least {minimum}, got {value}.")
        for name in ("seed", "split_seed"):
            if getattr(self, name) >= 2**32:
                raise UserError(f"{flag_name(name)}: expected a number below 2^32, got {getattr(self, name)}.")
        if self.protocol == "paper" and self.statistics != "means":
            raise UserError(f"--statistics: expected means with --protocol paper, got {self.statistics}.")
        # What is still to be taken from a search may bring a flag's partner.
        if self.drop_statistics and not self.user_id_dropout + self.item_id_dropout and not self._takes_search:
            raise UserError(
                "--drop-statistics: expected --user-id-dropout or --item-id-dropout beside it, got neither."
            )
        if self.label_delay and self.protocol != "online":
            raise UserError(f"--label-delay: expected --protocol online beside it, got {self.protocol}.")
        if self.warmup and self.lr_schedule == "constant" and not self._takes_search:
            raise UserError(f"--warmup: expected --lr-schedule cosine beside it, got {self.lr_schedule}.")
        for name in ("user_id_dropout", "item_id_dropout", "average_decay", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{flag_name(name)}: expected a share in [0, 1), got {getattr(self, name)}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"--lr: expected a number above 0, got {self.lr}.")
        if self.resume and self.overwrite:
            raise UserError("--resume, --overwrite: expected one of them, got both.")
        check_device(self.device)
        if self.compile and self.device in ("auto", "cpu"):
            check_compiler()
        if self.shard_lr and not self.shard_embeddings:
            raise UserError("--shard-lr: expected --shard-embeddings beside it, got none.")
        if self.shard_embeddings and self.compile:
            raise UserError("--shard-embeddings, --compile: expected one of them, got both.")
        if self.shard_embeddings:
            check_torchrec()
        if self.tensorboard:
            check_tensorboard()

    def known(self):
        """What the run of --init-from knows of ids, see preprocessing/known.py; None where there is none.

        Raises UserError where it is no run.
        """
        if self.init_from is None:
            return None
        from experiment.folder import ENCODERS, check_run_folder  # which import this module
        from preprocessing.known import Known

        check_run_folder(self.init_from)
        return Known.read(Path(self.init_from) / ENCODERS)

    def defaults(self) -> dict:
        """What every setting is under the protocol where nobody chose it."""
        return super().defaults() | self.BY_PROTOCOL.get(self.protocol, {})

    def choose_model(self, imported: type) -> type:
        """The class that --model names, else the one that the script imports, whose name is then this setting.

        Takes what a search found for that model, where it is to be taken, and says so, as it says which flags have no
        effect. Raises UserError where nothing was found and --preset tuned asks for it.
        """
        chosen = imported if self.model in (None, imported.__name__) else model_class(self.model)
        self.model = chosen.__name__
        if self._takes_search:
            self._take_what_was_found()
        if self._chosen:
            self._tell_idle(chosen)
        return chosen

    def _tell_idle(self, model: type) -> None:
        for name, other in self.idle(model).items():
            if name in self._chosen:
                print(f"{as_flag(name, getattr(self, name))}: has no effect with {other}.")

    def _take_what_was_found(self) -> None:
        found = tuned_settings(self.TUNED, self.protocol).get(self.model, {})
        if self._needs_search and not found:
            raise _not_searched(self.TUNED, self.protocol, self.model)
        taken = {name: value for name, value in found.items() if name not in self._chosen}
        if self.lr_schedule == "constant" and "lr_schedule" in self._chosen:
            taken.pop("warmup", None)  # which is of the cosine
        for name, value in taken.items():
            setattr(self, name, value)
        if taken:
            flags = " ".join(as_flag(name, value) for name, value in taken.items())
            print(f"settings that a search found for {self.model} (--preset {UNTUNED}: without them): {flags}")
        self._takes_search = False
        self.check()  # together with the flags

    def take_search(self, required: bool) -> None:
        """Have `choose_model` take what a search found, but for what flags chose; `required`: there must be some."""
        self._takes_search, self._needs_search = True, required

    def shorten(self) -> str | None:
        """Take ON_SAMPLE's values, unless a person chose one of them; returns the flags to say so."""
        defaults = self.defaults()
        chosen = {name for name in ON_SAMPLE if getattr(self, name) != defaults[name]}
        if chosen if self._chosen is None else ON_SAMPLE.keys() & self._chosen:
            return None
        for name, value in ON_SAMPLE.items():
            setattr(self, name, value)
        return " ".join(as_flag(name, value) for name, value in ON_SAMPLE.items())

    def recorded(self, model: type) -> dict:
        """All that shaped a model's result: no paths, not how the run was started, no settings of other models."""
        return {name: value for name, value in self._of(model).items() if name not in self.NOT_IN_RECORD}

    def identity(self, model: type) -> dict:
        """What must be the same in a run of a model and the checkpoint it resumes."""
        free = set(self.NOT_IN_IDENTITY) - ({"epochs"} if self.lr_schedule != "constant" else set())
        return {name: value for name, value in self._of(model).items() if name not in free}

    def _of(self, model: type) -> dict:
        left_out = model_fields().keys() - taken_fields(model).keys()
        left_out |= {name for name, value in LATER.items() if getattr(self, name) == value}
        fields = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in fields if name not in left_out}


TUNED, UNTUNED = "tuned", "untuned"  # presets of what a search found, and of what the script has without one


def _not_searched(data_name: str, protocol: str, model: str | None) -> UserError:
    found = ", ".join(sorted(tuned_settings(data_name, protocol)))
    if not found:
        return UserError(f"--preset {TUNED}: nothing was searched on {data_name} under {protocol} (tune.py).")
    return UserError(
        f"--preset {TUNED}: expected one of the models that were searched on {data_name} under {protocol}, {found}, "
        f"got {model}; name one with --model."
    )


def parse_settings(settings: type, arguments: list[str], presets: dict[str, dict], description: str):
    """Settings from flags; a preset changes defaults, and flags overrule it. Leaves with code 2 on a mistake.

    What a search found is taken by `choose_model`, since it is of a model.
    """
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    names = sorted(presets) + ([TUNED] if settings.TUNED else []) + ([UNTUNED] if settings.TUNED_BY_DEFAULT else [])
    if names:
        default = f"; default: {TUNED}, where a search found some for the model" if settings.TUNED_BY_DEFAULT else ""
        what = f"a named set of settings{default}; flags overrule it"
        parser.add_argument("--preset", choices=names, default=argparse.SUPPRESS, help=what)
    of_models = parser.add_argument_group("settings of the models")
    hints = typing.get_type_hints(settings)
    fields = dataclasses.fields(settings)
    for field in fields:
        flag = dict(field.metadata)
        hint = next(iter(typing.get_args(hints[field.name])), hints[field.name])  # int of `int | None`
        if hint is bool:
            flag["action"] = argparse.BooleanOptionalAction
        else:
            flag.setdefault("type", hint)
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        group = of_models if field.name in model_fields() else parser
        group.add_argument(flag_name(field.name), default=default, **flag)
    # A namespace that has a name keeps it from its default: what is None afterwards was not chosen.
    nothing = argparse.Namespace(preset=None, **dict.fromkeys(field.name for field in fields))
    # --help waits for the defaults of the protocol and the preset, which the words beside it name.
    chosen, _ = parser.parse_known_args([word for word in arguments if word not in ("-h", "--help")], nothing)
    preset = presets.get(chosen.preset, {})
    protocol = chosen.protocol or preset.get("protocol", settings.protocol)
    if "protocol" in preset and protocol != preset["protocol"]:
        parser.error(f"--preset {chosen.preset}: chosen under --protocol {preset['protocol']}, got {protocol}")
    parser.set_defaults(**(settings.BY_PROTOCOL.get(protocol, {}) | preset))
    values = vars(parser.parse_args(arguments))
    values.pop("preset", None)
    parsed = settings(**values)
    if chosen.preset == TUNED:
        searched = tuned_settings(settings.TUNED, protocol)
        if not searched or chosen.model not in (None, *searched):
            raise _not_searched(settings.TUNED, protocol, chosen.model)
    parsed._chosen = frozenset(f.name for f in fields if getattr(chosen, f.name) is not None) | preset.keys()
    if chosen.preset == TUNED or (settings.TUNED_BY_DEFAULT and chosen.preset is None):
        parsed.take_search(required=chosen.preset == TUNED)
    return parsed
