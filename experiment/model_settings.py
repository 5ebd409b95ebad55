"""What the models' constructors take, as a dataclass whose fields are flags. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from types import MappingProxyType

from experiment.flags import as_flag, flag_name, integers, levels, option
from model.choices import (
    CROSSES,
    FE_INPUTS,
    FE_SCALES,
    GENERATOR_LOSSES,
    GROUPS,
    INTERACTIONS,
    REWEIGHTINGS,
    SIMILARITIES,
    parse_levels,
)
from preprocessing.errors import UserError

# Settings that have no effect beside these values of another.
IDLE_BESIDE = {
    "cir_temperature": ("cir_weight", [0.0]),
    "user_head": ("interaction", ["dot"]),
    "item_head": ("interaction", ["dot"]),
    "field_dim": ("interaction", ["dot"]),
    "fe_scale": ("interaction", ["dot"]),
    "light_se_residual": ("reweighting", ["senet", "none"]),
    "initial_temperature": ("similarity", ["paper", "dot"]),
    "generator_loss": ("generator_weight", [0.0]),
}
# Settings of the loop and the tables that a model without embeddings has no use for.
IDLE_FOR = {"LR": ["embedding_dim"], "StatisticsLR": ["embedding_dim", "l2_embedding"]}


@dataclass
class ModelSettings:
    """What the models' constructors take; each model takes those that it names."""

    dropout: float = option(0.3, "share of a hidden layer's outputs set to zero in training")
    hidden_units: list[int] = option((300, 300, 128), "widths of the layers (of each tower)", type=integers)
    init_std: float = option(
        0.01, "standard deviation of initial embeddings (WDL, DeepFM, DCN, DCNv2, AutoInt: and layers)"
    )
    user_head: int = option(4, "IntTower, HIT: heads of each user level")
    item_head: int = option(4, "IntTower, HIT: heads of the item")
    field_dim: int = option(16, "IntTower, HIT: size of a head")
    levels: str = option("all", "IntTower: user levels that are scored: all, last, or indices like 0,2", type=levels)
    fe_input: str = option("output", "IntTower: what of a layer the FE-Block projects", choices=FE_INPUTS)
    fe_scale: str = option(
        "sum",
        "IntTower: sum over levels and heads, or the mean, which starts near the prior for any number of them",
        choices=FE_SCALES,
    )
    reweighting: str = option("light_se", "IntTower: how a tower weighs its fields", choices=REWEIGHTINGS)
    light_se_residual: bool = option(True, "IntTower: LightSE adds its input to the reweighted fields")
    interaction: str = option(
        "fe_block",
        "IntTower: what joins the towers, the FE-Block or a dot product of last layers",
        choices=INTERACTIONS,
    )
    biases: bool = option(False, "IntTower: a bias of each user and each item, linear in its tower's input")
    level_gates: bool = option(False, "IntTowerPlus, which has all of IntTower's, too: each user weighs the levels")
    maxsim_temperature: float = option(0.0, "IntTowerPlus: of soft maxima in MaxSim's place; 0: MaxSim")
    apart_weight: float = option(0.0, "IntTowerPlus: weight of a penalty for heads that are alike")
    guess_weight: float = option(0.0, "IntTowerPlus: weight of the loss of HIT's generators, whose guesses towers read")
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
    groups: str = option("all", "COLD: fields and their crosses, or fields alone", choices=GROUPS)
    cross_num: int = option(2, "DCN, DCNv2: cross layers")
    cross_parameterization: str = option("vector", "DCN: what a cross layer multiplies by", choices=CROSSES)
    att_layer_num: int = option(3, "AutoInt: attention layers")
    att_head_num: int = option(2, "AutoInt: heads of an attention layer")
    generator_weight: float = option(0.1, "HIT: weight of the generators' loss")
    generator_loss: str = option(
        "paper", "HIT: as the paper means it, or with the released code's sign and scale", choices=GENERATOR_LOSSES
    )
    num_codes: int = option(8, "PolyEncoder: vectors of a user")
    code_dim: int = option(64, "PolyEncoder: size of a vector")
    code_temperature: float = option(1.0, "PolyEncoder: temperature of the item's attention to them")
    num_kernels: int = option(3, "MVKE: experts for users")
    fusion_heads: int = option(2, "FinalMLP, FinalMLPTower: heads of the bilinear form; they divide the last width")
    dnn_use_bn: bool = option(True, "WDL, DeepFM, DCN, DCNv2, AutoInt: batch norm in the deep network")

    def check(self) -> None:
        """Raise UserError for a number out of its range."""
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout: expected a number in [0, 1), got {self.dropout}.")
        if min(self.hidden_units, default=0) < 1:
            raise UserError(f"--hidden-units: expected widths of at least 1, got {list(self.hidden_units)}.")
        parse_levels(self.levels, len(self.hidden_units))
        for name in (
            "cross_num",
            "att_layer_num",
            "att_head_num",
            "num_codes",
            "code_dim",
            "num_kernels",
            "fusion_heads",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{flag_name(name)}: expected 1 or more, got {getattr(self, name)}.")
        if min(self.field_dim, self.user_head, self.item_head) < 1:
            raise UserError(
                f"--user-head, --item-head, --field-dim: expected 1 or more, got {self.user_head} x {self.item_head} "
                f"heads of size {self.field_dim}."
            )

    def model_options(self, model: type) -> dict:
        """The settings that the model's constructor takes, under its names for them.

        Raises UserError where a setting that it does not take was changed: it would have no effect.
        """
        taken, of_script, defaults = taken_fields(model), ModelSettings.defaults(self), self.defaults()
        for name in model_fields():
            value = getattr(self, name)
            # Settings that no flags were read into have the script's values in the place of the protocol's.
            if name not in taken and _plain(value) not in (_plain(of_script[name]), _plain(defaults[name])):
                raise UserError(
                    f"{as_flag(name, value)}: expected a setting of {model.__name__}, got one that it does not have; "
                    "leave it out (a --preset may have set it), or choose a model that has it with --model."
                )
        return {option_name: _plain(getattr(self, name)) for name, option_name in taken.items()}

    def idle(self, model: type) -> dict[str, str]:
        """The settings that have no effect on a model, and the flag beside which they have none."""
        taken = taken_fields(model)
        beside = {
            name: as_flag(other, getattr(self, other))
            for name, (other, values) in IDLE_BESIDE.items()
            if {name, other} <= taken.keys() and getattr(self, other) in values
        }
        return beside | dict.fromkeys(IDLE_FOR.get(model.__name__, ()), f"--model {model.__name__}")

    def defaults(self) -> dict:
        """What every setting is where nobody chose it; a script may have its own."""
        return {field.name: field.default for field in dataclasses.fields(self)}


def model_fields() -> dict[str, dataclasses.Field]:
    """The fields of ModelSettings by name."""
    return {field.name: field for field in dataclasses.fields(ModelSettings)}


@functools.cache
def taken_fields(model: type) -> MappingProxyType[str, str]:
    """Those fields of ModelSettings that a model takes, and its names for them."""
    names = {name: _DEEPCTR_NAMES.get(name, name) for name in model_fields()}
    options = model.option_names()  # reads the signature of every class it is made of
    return MappingProxyType({name: option_name for name, option_name in names.items() if option_name in options})


_DEEPCTR_NAMES = {"dropout": "dnn_dropout", "hidden_units": "dnn_hidden_units"}


def _plain(value):
    return tuple(value) if isinstance(value, list) else value
