"""The generators of which weights, dropout and order are drawn."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch; on the CPU the same seed then gives the same weights and losses."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's generators, of which dropout is drawn."""
    states = {"rng": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda_rng"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps_rng"] = torch.mps.get_rng_state()
    return states


def set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    """Set them to the states of a checkpoint, which may be of another device."""
    torch.set_rng_state(states["rng"].cpu())
    if device.type == "cuda" and "cuda_rng" in states:
        torch.cuda.set_rng_state(states["cuda_rng"].cpu(), device)
    elif device.type == "mps" and "mps_rng" in states:
        torch.mps.set_rng_state(states["mps_rng"].cpu())
