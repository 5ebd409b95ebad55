"""The models by name. A model is imported when it is asked for, not before."""

import importlib

MODELS = {"IntTower": "model.IntTower"}


def model_class(name: str) -> type:
    """The class of a model in MODELS."""
    return getattr(importlib.import_module(MODELS[name]), name)
