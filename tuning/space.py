"""What a search may choose: ranges that all models share, and each model's own."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from reproduction.runs import settings_of

Space = dict[str, BaseDistribution]


def _log(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(low, high, log=True)


def _one_of(*values) -> CategoricalDistribution:
    return CategoricalDistribution(values)


SHARED: Space = {
    "lr": _log(1e-4, 1e-2),
    "l2_embedding": _log(1e-6, 10),
    "dropout": FloatDistribution(0.0, 0.6),
    "embedding_dim": _one_of(16, 32, 64),
    "batch_size": _one_of(1024, 2048, 4096),
    "user_id_dropout": _one_of(0.0, 0.5, 0.9),
    "item_id_dropout": _one_of(0.0, 0.5),
}
_OF_ONE_LAYER = {"lr": _log(1e-4, 0.3)}  # which learns slowest by far
OWN: dict[str, Space] = {
    "LR": _OF_ONE_LAYER,
    "StatisticsLR": _OF_ONE_LAYER,
    "DSSM": {"initial_temperature": _log(0.02, 1)},
    "DAT": {
        "initial_temperature": _log(0.02, 1),
        "user_mimic_weight": _log(0.01, 10),
        "item_mimic_weight": _log(0.01, 10),
        "alignment_weight": _log(0.01, 10),
    },
    "COLD": {"groups": _one_of("all", "fields")},
    "DCN": {"cross_num": _one_of(1, 2, 3, 4), "cross_parameterization": _one_of("vector", "matrix")},
    "AutoInt": {"att_layer_num": _one_of(1, 2, 3), "att_head_num": _one_of(1, 2, 4)},
    "IntTower": {
        "cir_weight": _one_of(0.0, 0.03, 0.1, 0.3, 1.0, 3.0),
        "cir_temperature": _log(0.03, 0.5),
        "user_head": _one_of(1, 2, 4, 8),
        "item_head": _one_of(1, 2, 4, 8),
        "levels": _one_of("all", "last"),
        "fe_input": _one_of("output", "input"),
        "fe_scale": _one_of("sum", "mean"),
    },
}
# What a model has no use for: a choice that changes nothing would only cost it trials.
WITHOUT = {"LR": ("dropout", "embedding_dim"), "StatisticsLR": ("dropout", "embedding_dim", "l2_embedding")}
DIGITS = 3  # of a number that count


def space_of(model: str) -> Space:
    """Everything that a model's search may choose, by the names of the settings."""
    shared = {name: values for name, values in SHARED.items() if name not in WITHOUT.get(model, ())}
    return shared | OWN.get(model, {})


def defaults_of(model: str, dataset: str, protocol: str) -> dict:
    """With what the dataset's script trains a model where nobody chose otherwise: the first trial of each search."""
    settings = settings_of(dataset, protocol, model=model)
    return {name: getattr(settings, name) for name in space_of(model)}


def as_settings(parameters: dict) -> dict:
    """What a search chose as settings, floats with few digits."""
    settings = {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for name, value in parameters.items()
    }
    if not settings["user_id_dropout"] + settings["item_id_dropout"]:
        settings["drop_statistics"] = False  # there is nothing that they would go along with
    return settings
