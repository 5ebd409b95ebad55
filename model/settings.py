"""The models' own settings, as fields of a training script's settings; `option` makes a field a flag."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass

from model.dssm import SIMILARITIES
from model.IntTower import FE_INPUTS, INTERACTIONS, REWEIGHTINGS
from preprocessing.errors import UserError


def option(default, help: str, **flag):
    """A dataclass field with its --help text and argparse's own options (choices, type, metavar)."""
    return dataclasses.field(default=default, metadata={"help": help, **flag})


def changed(settings: type, field: str, default):
    """A field of a settings class with another default, for a subclass of it."""
    return dataclasses.field(default=default, metadata=settings.__dataclass_fields__[field].metadata)


def flag_name(field: str) -> str:
    """`batch_size` as `--batch-size`."""
    return "--" + field.replace("_", "-")


def as_flag(field: str, value) -> str:
    """A setting as it is written on the command line."""
    if isinstance(value, bool):
        return flag_name(field if value else f"no_{field}")
    return f"{flag_name(field)} {','.join(map(str, value)) if isinstance(value, list | tuple) else value}"


def integers(text: str) -> list[int]:
    """Parse `300,300,128`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 300,300,128, got {text!r}") from None


def levels(text: str) -> str | list[int]:
    """Parse `all`, `last` or `0,2`."""
    try:
        return text if text in ("all", "last") else integers(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected all, last or indices such as 0,2, got {text!r}") from None


@dataclass
class ModelSettings:
    """What the models' constructors take; each model takes those that it names."""

    dropout: float = option(0.3, "share of a hidden layer's outputs set to zero in training")
    hidden_units: list[int] = option((300, 300, 128), "widths of the layers (of each tower)", type=integers)
    init_std: float = option(0.01, "standard deviation of initial embeddings (WDL, DeepFM, DCN, AutoInt: and layers)")
    user_head: int = option(4, "IntTower: heads of each user level")
    item_head: int = option(4, "IntTower: heads of the item")
    field_dim: int = option(16, "IntTower: size of a head")
    levels: str = option("all", "IntTower: user levels that are scored: all, last, or indices like 0,2", type=levels)
    fe_input: str = option("output", "IntTower: what of a layer the FE-Block projects", choices=FE_INPUTS)
    reweighting: str = option("light_se", "IntTower: how a tower weighs its fields", choices=REWEIGHTINGS)
    light_se_residual: bool = option(True, "IntTower: LightSE adds its input to the reweighted fields")
    interaction: str = option(
        "fe_block",
        "IntTower: what joins the towers, the FE-Block or a dot product of last layers",
        choices=INTERACTIONS,
    )
    cir_weight: float = option(1.0, "IntTower, DSSMCIR: weight of CIR in the loss; 0 leaves it out")
    cir_temperature: float = option(0.1, "IntTower, DSSMCIR: temperature of CIR")
    similarity: str = option(
        "temperature", "DSSM, DSSMCIR, DAT: cosine over a learned temperature, the paper's bare cosine, or dot product",
        choices=SIMILARITIES,
    )  # fmt: skip
    initial_temperature: float = option(0.1, "DSSM, DSSMCIR, DAT: what the learned temperature starts from")
    linear_output: bool = option(True, "DSSM, DSSMCIR, DAT: no batch norm, ReLU and dropout in the towers' last layer")
    user_mimic_weight: float = option(1.0, "DAT: weight of the mimic loss of users' augmented vectors")
    item_mimic_weight: float = option(1.0, "DAT: weight of the mimic loss of items' augmented vectors")
    alignment_weight: float = option(0.1, "DAT: weight of the category alignment loss, where items have a category")
    dnn_use_bn: bool = option(True, "WDL, DeepFM, DCN, AutoInt: batch norm in the deep network")

    def model_options(self, model: type) -> dict:
        """The settings that the model's constructor takes, under its names for them.

        Raises UserError where a setting that it does not take was changed: it would have no effect.
        """
        taken = taken_fields(model)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}  # a script may have its own
        for name in model_fields():
            value = getattr(self, name)
            if name not in taken and _plain(value) != _plain(defaults[name]):
                raise UserError(
                    f"{as_flag(name, value)}: expected a setting of {model.__name__}, got one that it does not have; "
                    "leave it out (a --preset may have set it), or choose a model that has it with --model."
                )
        return {option_name: _plain(getattr(self, name)) for name, option_name in taken.items()}


def model_fields() -> dict[str, dataclasses.Field]:
    """The fields of ModelSettings by name."""
    return {field.name: field for field in dataclasses.fields(ModelSettings)}


def taken_fields(model: type) -> dict[str, str]:
    """Those fields of ModelSettings that a model takes, and its names for them."""
    names = {name: _DEEPCTR_NAMES.get(name, name) for name in model_fields()}
    return {name: option_name for name, option_name in names.items() if option_name in model.option_names()}


_DEEPCTR_NAMES = {"dropout": "dnn_dropout", "hidden_units": "dnn_hidden_units"}


def _plain(value):
    return tuple(value) if isinstance(value, list) else value
