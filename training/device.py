"""Where a model is trained, by the name that a person gives it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from preprocessing.command import number_of_process
from preprocessing.errors import UserError

if TYPE_CHECKING:
    import torch

DEVICES = "auto, cpu, mps, cuda or cuda:<n>"
AMP = ("off", "bf16")


def check_device(name: str) -> None:
    """Raise UserError for a name that no machine has; needs no torch, so that a slip is told at once."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise UserError(f"--device: expected {DEVICES}, got {name!r}.")


def resolve_device(name: str) -> torch.device:
    """The device for "auto", "cpu", "mps" or "cuda[:n]"; "auto" takes CUDA, else a Mac's GPU, else the CPU.

    Of several processes each takes a CUDA device of its own.

    Raises UserError where it is not there.
    """
    import torch

    check_device(name)
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    shared = number_of_process()[1] > 1
    if shared and (name == "mps" or ":" in name):
        raise UserError(f"--device {name}: expected auto, cpu or cuda of several processes, got one device for all.")
    has_mps = torch.backends.mps.is_available() and not shared
    if name == "auto":
        name = "cuda" if num_cuda else "mps" if has_mps else "cpu"
    if name == "cuda" and shared:  # a GPU for each process of a machine
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= num_cuda:
        raise UserError(
            f"--device {name}: expected that CUDA device, got {num_cuda} on this machine; use --device cpu."
        )
    if device.type == "mps" and not has_mps:
        raise UserError("--device mps: expected a Mac with Metal, got none; use --device cpu.")
    return device
