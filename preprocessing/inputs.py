"""The feature columns of deepctr-torch: SparseFeat, DenseFeat, VarLenSparseFeat.

deepctr-torch starts a thread at import that asks an outside server for its newest version, and it needs
the undeclared package `requests` to do so. The module that does this is stood in for while the package is
imported: no connection, no stray line, no `requests`.
"""

import sys
import types


def _import_without_version_check() -> None:
    name = "deepctr_torch.utils"
    if "deepctr_torch" in sys.modules:
        return
    stand_in = types.ModuleType(name)
    stand_in.check_version = lambda version: None
    sys.modules[name] = stand_in
    try:
        import deepctr_torch  # noqa: F401
    finally:
        del sys.modules[name]


_import_without_version_check()

from deepctr_torch.inputs import (  # noqa: E402
    DenseFeat,
    SparseFeat,
    VarLenSparseFeat,
    build_input_features,
    get_feature_names,
)

__all__ = ["DenseFeat", "SparseFeat", "VarLenSparseFeat", "build_input_features", "get_feature_names"]
