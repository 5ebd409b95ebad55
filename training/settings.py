"""Settings as a dataclass whose fields are also the command line's flags."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass

from model.settings import ModelSettings, flag_name, model_fields, option, taken_fields
from preprocessing.errors import UserError
from preprocessing.protocols import PROTOCOLS
from training.trainer import Interrupted, NonFiniteLoss, resolve_device

EXIT_OK, EXIT_STOPPED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


@dataclass
class TrainingSettings(ModelSettings):
    """What every training script lets a person choose."""

    data: str | None = option(None, "file or folder of the raw data; else $INTTOWER_DATA, data/, a download")
    protocol: str = option("strict", "how rows are split and what a row may know of labels", choices=PROTOCOLS)
    epochs: int = option(30, "most epochs to train")
    patience: int = option(5, "stop after so many epochs without a better validation AUC")
    batch_size: int = option(2048, "rows in a step")
    lr: float = option(1e-3, "Adam's learning rate")
    l2_embedding: float = option(1e-5, "weight of the squared embeddings in the loss summed over a batch")
    embedding_dim: int = option(32, "size of each field's embedding")
    seed: int = option(1023, "of weights, dropout and the order of rows")
    split_seed: int = option(1023, "of the random splits and the folds of label means")
    device: str = option("auto", "auto, cpu, cuda or cuda:<n>")
    strict_data: bool = option(False, "refuse rows whose user or item is missing from its table")
    output: str | None = option(None, "folder of this run (default runs/<dataset>-<model>-<protocol>-seed<n>)")
    checkpoint_seconds: float = option(60.0, "seconds between checkpoints within an epoch; each epoch's end has one")
    resume: bool = option(False, "go on from the checkpoint in the run's folder")
    overwrite: bool = option(False, "replace the run that stands in the folder")

    # The record leaves out what shaped no number; a run may be resumed with other values of the second list.
    NOT_IN_RECORD = ("data", "output", "resume", "overwrite", "device", "checkpoint_seconds")
    NOT_IN_IDENTITY = (*NOT_IN_RECORD, "epochs", "patience", "strict_data")

    def check(self) -> None:
        """Raise UserError for a number out of its range."""
        least = {"epochs": 1, "patience": 1, "batch_size": 2, "embedding_dim": 1, "seed": 0, "split_seed": 0}
        least |= {"l2_embedding": 0, "checkpoint_seconds": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= minimum):
                raise UserError(f"{flag_name(name)}: expected a number of at least {minimum}, got {value}.")
        for name in ("seed", "split_seed"):
            if getattr(self, name) >= 2**32:
                raise UserError(f"{flag_name(name)}: expected a number below 2^32, got {getattr(self, name)}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"--lr: expected a number above 0, got {self.lr}.")
        if self.resume and self.overwrite:
            raise UserError("--resume, --overwrite: expected one of them, got both.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout: expected a number in [0, 1), got {self.dropout}.")
        resolve_device(self.device)
        if min(self.hidden_units, default=0) < 1:
            raise UserError(f"--hidden-units: expected widths of at least 1, got {list(self.hidden_units)}.")

    def recorded(self, model: type) -> dict:
        """All that shaped a model's result: no paths, not how the run was started, no settings of other models."""
        return {name: value for name, value in self._of(model).items() if name not in self.NOT_IN_RECORD}

    def identity(self, model: type) -> dict:
        """What must be the same in a run of a model and the checkpoint it resumes."""
        return {name: value for name, value in self._of(model).items() if name not in self.NOT_IN_IDENTITY}

    def _of(self, model: type) -> dict:
        left_out = model_fields().keys() - taken_fields(model).keys()
        return {name: value for name, value in vars(self).items() if name not in left_out}


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are one line and exit code 2."""

    def error(self, message: str) -> None:
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {message} (--help lists the flags)\n")


def parse_settings(settings: type, arguments: list[str], presets: dict[str, dict], description: str):
    """Settings from flags; a preset changes defaults, and flags overrule it. Leaves with code 2 on a mistake."""
    parser = Parser(description=description, allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if presets:
        parser.add_argument("--preset", choices=sorted(presets), help="a named set of settings; flags overrule it")
    of_models = parser.add_argument_group("settings of the models")
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        flag = dict(field.metadata)
        hint = next(iter(typing.get_args(hints[field.name])), hints[field.name])  # int of `int | None`
        if hint is bool:
            flag["action"] = argparse.BooleanOptionalAction
        else:
            flag.setdefault("type", hint)
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        group = of_models if field.name in model_fields() else parser
        group.add_argument(flag_name(field.name), default=default, **flag)
    if presets:
        known, _ = parser.parse_known_args(arguments)
        parser.set_defaults(**presets.get(known.preset, {}))
    values = vars(parser.parse_args(arguments))
    values.pop("preset", None)
    return settings(**values)


def command_line(main: Callable, settings: type, presets: dict[str, dict] | None = None) -> int:
    """Run a training script's `main` on the settings of the command line; returns the exit code."""
    description = (sys.modules["__main__"].__doc__ or "").split("\n")[0]
    chosen = parse_settings(settings, sys.argv[1:], presets or {}, description)

    def checked_main() -> None:
        chosen.check()
        main(chosen)

    return exit_code(checked_main, "with --resume the same command goes on from the last checkpoint, if there is one.")


def exit_code(main: Callable[[], None], advice: str) -> int:
    """Run a command and turn mistakes into one line on stderr; `advice` is for who stopped it.

    Returns 0 for a finished run, 1 for a loss that is no number, 2 for a user's mistake, 130 for a stopped one.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}; check the path.", file=sys.stderr)
        return EXIT_USER_ERROR
    except NonFiniteLoss as error:
        print(f"stopped: {error}", file=sys.stderr)
        return EXIT_STOPPED
    except Interrupted as stop:
        print(f"\nstopped: {stop}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print(f"\nstopped; {advice}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK
