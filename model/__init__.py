"""The models by name. A model is imported when it is asked for, not before."""

import importlib

import preprocessing.inputs  # noqa: F401  before any module imports deepctr_torch, which would call out to a server

MODELS = {
    "IntTower": "model.IntTower",
    "LR": "model.lr",
    "DSSM": "model.dssm",
    "DSSMCIR": "model.dssm_cir",
    "DAT": "model.dat",
    "COLD": "model.cold",
    "WDL": "model.wdl",
    "DeepFM": "model.deepfm",
    "DCN": "model.dcn",
    "AutoInt": "model.autoint",
}


def model_class(name: str) -> type:
    """The class of a model in MODELS."""
    return getattr(importlib.import_module(MODELS[name]), name)
