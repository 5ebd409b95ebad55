"""Schedules of the learning rate: what it is multiplied by over the course of a training."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES = ("constant", "cosine")


def cosine(warmup: float = 0.0) -> Callable[[float], float]:
    """A linear rise from near 0 over the first `warmup` of all steps, then half a cosine down to 0 (SGDR, ICLR 2017).

    Args:
        warmup: a share in [0, 1).
    Returns:
        the factor for the share of steps that are done, in [0, 1).
    """

    def factor(done: float) -> float:
        if done < warmup:
            return max(done / warmup, 1e-3)  # the first step, too, does something
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))

    return factor
