"""What a search may choose: ranges that all models share, and each model's own."""

from __future__ import annotations

import json
import zlib

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, distribution_to_json

from experiment.settings import TrainingSettings
from reproduction.plans import EVERY, table_2_run
from reproduction.runs import Run

Space = dict[str, BaseDistribution]


def _log(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(low, high, log=True)


def _share(most: float) -> FloatDistribution:
    """A share of which half of all draws are 0: what is drawn below 0 counts as 0."""
    return FloatDistribution(-most, most)


def _one_of(*values) -> CategoricalDistribution:
    return CategoricalDistribution(values)


SHARED: Space = {
    "lr": _log(3e-4, 1e-2),
    "l2_embedding": _log(1e-5, 10),
    "dropout": FloatDistribution(0.0, 0.6),
    "embedding_dim": _one_of(16, 32, 64),
    "batch_size": _one_of(1024, 2048, 4096),
    "user_id_dropout": _share(0.95),
    "item_id_dropout": _share(0.95),
}
_OF_ONE_LAYER = {"lr": _log(3e-4, 0.3)}  # which learns slowest by far
_TEMPERATURE = {"initial_temperature": _log(0.02, 1)}
_CIR = {"cir_weight": _one_of(0.0, 0.03, 0.1, 0.3, 1.0, 3.0), "cir_temperature": _log(0.03, 0.5)}
_CROSSES = {"cross_num": _one_of(1, 2, 3, 4)}
_HEADS = {"user_head": _one_of(1, 2, 4, 8), "item_head": _one_of(1, 2, 4, 8)}
_FUSION = {"fusion_heads": _one_of(1, 2, 4, 8)}
OWN: dict[str, Space] = {
    "LR": _OF_ONE_LAYER,
    "StatisticsLR": _OF_ONE_LAYER,
    "DSSM": _TEMPERATURE,
    "DSSMCIR": _TEMPERATURE | _CIR,
    "DAT": {
        **_TEMPERATURE,
        "user_mimic_weight": _log(0.01, 10),
        "item_mimic_weight": _log(0.01, 10),
        "alignment_weight": _log(0.01, 10),
    },
    "COLD": {"groups": _one_of("all", "fields")},
    "DCN": _CROSSES | {"cross_parameterization": _one_of("vector", "matrix")},
    "DCNv2": _CROSSES,
    "AutoInt": {"att_layer_num": _one_of(1, 2, 3), "att_head_num": _one_of(1, 2, 4)},
    "HIT": _HEADS | {"generator_weight": _log(1e-3, 10)},
    "PolyEncoder": {
        "num_codes": _one_of(4, 8, 16, 32),
        "code_dim": _one_of(16, 32, 64, 128),
        "code_temperature": _log(0.01, 10),
    },
    "MVKE": {"num_kernels": _one_of(2, 3, 4, 5)},
    "FinalMLP": _FUSION,
    "FinalMLPTower": _FUSION,
    "IntTower": {
        **_CIR,
        **_HEADS,
        "levels": _one_of("all", "last"),
        "fe_input": _one_of("output", "input"),
        "fe_scale": _one_of("sum", "mean"),
    },
}
# What a model has no use for: a choice that changes nothing would only cost it trials.
_NO_NETWORK = ("dropout", "embedding_dim")
WITHOUT = {"LR": _NO_NETWORK, "StatisticsLR": (*_NO_NETWORK, "l2_embedding", "user_id_dropout", "item_id_dropout")}
DIGITS = 3  # of a number that count
COURSE = ("lr_schedule", "warmup", "average_decay", "epochs", "patience")  # no trial chooses of these


def space_of(model: str) -> Space:
    """Everything that a model's search may choose, by the names of the settings."""
    shared = {name: values for name, values in SHARED.items() if name not in WITHOUT.get(model, ())}
    return shared | OWN.get(model, {})


def as_json(space: Space) -> dict:
    """A space as records keep it."""
    return {name: json.loads(distribution_to_json(values)) for name, values in space.items()}


def defaults_of(model: str, dataset: str, protocol: str) -> dict:
    """With what table 2 trains a model where nothing was searched: the first trial of each search."""
    settings = _unsearched(model, dataset, protocol)
    return {name: getattr(settings, name) for name in space_of(model)}


def own_course(model: str, dataset: str, protocol: str) -> dict:
    """How table 2's training goes on where nothing was searched, if it averages the weights, as no trial does."""
    settings = _unsearched(model, dataset, protocol)
    return {name: getattr(settings, name) for name in COURSE} if settings.average_decay else {}


def _unsearched(model: str, dataset: str, protocol: str) -> TrainingSettings:
    run = table_2_run(dataset, protocol, model) if model in EVERY else Run(dataset, protocol, model)
    return run.settings()


def even_draws(space: Space, count: int, seed: int) -> list[dict]:
    """So many points of a space, whose values of each setting lie evenly over its range: a Latin hypercube.

    Of a few independent draws, all may fall into one half of a setting's range. What spaces share is drawn alike.
    """
    columns = {}
    for name, values in space.items():
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        shares = (generator.permutation(count) + generator.random(count)) / count
        columns[name] = [_at(values, float(share)) for share in shares]
    return [dict(zip(columns, point, strict=True)) for point in zip(*columns.values(), strict=True)]


def _at(values: BaseDistribution, share: float):
    """The value at a share in [0, 1) of a range."""
    if isinstance(values, CategoricalDistribution):
        return values.choices[int(share * len(values.choices))]
    if values.log:
        return values.low * (values.high / values.low) ** share
    return values.low + (values.high - values.low) * share


def as_settings(parameters: dict) -> dict:
    """What a search chose as settings, floats with few digits."""
    settings = {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for name, value in parameters.items()
    }
    for name in ("user_id_dropout", "item_id_dropout"):
        settings[name] = max(settings.get(name, 0.0), 0.0)
    if not settings["user_id_dropout"] + settings["item_id_dropout"]:
        settings["drop_statistics"] = False  # there is nothing that they would go along with
    return settings
