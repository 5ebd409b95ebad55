"""Whether what a flag needs is installed, before anything heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

from preprocessing.errors import UserError

# What requirements-sharding.txt brings, by the names under which it is imported.
SHARDING = ("torchrec", "fbgemm_gpu", "tensordict", "pyvers", "pyre_extensions", "typing_inspect", "mypy_extensions")


def check_torchrec() -> None:
    """Raise UserError where a package is missing that --shard-embeddings needs."""
    if missing := [name for name in SHARDING if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"--shard-embeddings: expected TorchRec and what it needs, got no {' and no '.join(missing)}; "
            "pip install --no-deps -r requirements-sharding.txt, or leave the flag out."
        )


def check_fbgemm(device_type: str) -> None:
    """Raise UserError where --shard-embeddings would train on a device that fbgemm's installed build does not know.

    Args:
        device_type: "cpu", "cuda" or "mps".
    """
    if device_type == "cpu":
        return
    if device_type != "cuda":
        raise UserError(f"--shard-embeddings: expected a CPU or CUDA, got --device {device_type}; use --device cpu.")
    from importlib.metadata import PackageNotFoundError, version  # 25 ms that --help need not take

    try:
        of_cpu = version("fbgemm-gpu-cpu")
    except PackageNotFoundError:
        return
    raise UserError(
        f"--shard-embeddings: expected fbgemm's build for CUDA, got fbgemm-gpu-cpu; put fbgemm-gpu=={of_cpu} in its "
        "place, or use --device cpu."
    )


def check_compiler() -> None:
    """Raise UserError where there is no compiler, of which --compile makes its steps on the CPU."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"--compile: expected the compiler {compiler}, got none; install it, or leave the flag out.")


def check_tensorboard() -> None:
    """Raise UserError where --tensorboard finds no tensorboard."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard: expected the package tensorboard, got none; "
            "pip install -r requirements-tensorboard.txt, or leave the flag out."
        )
