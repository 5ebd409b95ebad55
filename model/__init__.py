"""The models by name. A model is imported when it is asked for, not before."""

import importlib
import sys
import types

# deepctr-torch starts a thread at import that asks an outside server for its newest version, and needs the undeclared
# package `requests` for it. This stands in for the module that does so: no connection, no stray line, no `requests`.
if "deepctr_torch" not in sys.modules:
    sys.modules["deepctr_torch.utils"] = types.ModuleType("deepctr_torch.utils")
    sys.modules["deepctr_torch.utils"].check_version = lambda version: None

MODELS = {
    "IntTower": "model.IntTower",
    "IntTowerPlus": "model.int_tower_plus",
    "LR": "model.lr",
    "StatisticsLR": "model.statistics_lr",
    "DSSM": "model.dssm",
    "DSSMCIR": "model.dssm_cir",
    "DAT": "model.dat",
    "COLD": "model.cold",
    "WDL": "model.wdl",
    "DeepFM": "model.deepfm",
    "DCN": "model.dcn",
    "AutoInt": "model.autoint",
    "HIT": "model.hit",
    "PolyEncoder": "model.poly_encoder",
    "MVKE": "model.mvke",
    "FinalMLP": "model.finalmlp",
    "FinalMLPTower": "model.finalmlp",
    "DCNv2": "model.dcnv2",
}


def model_class(name: str) -> type:
    """The class of a model in MODELS."""
    return getattr(importlib.import_module(MODELS[name]), name)
