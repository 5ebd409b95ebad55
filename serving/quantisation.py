"""Item heads in fewer bytes: float32 as they are, float16, or int8 with a scale per item."""

from __future__ import annotations

import numpy as np

from preprocessing.errors import UserError
from serving.choices import DTYPES


def quantise(heads_NGK: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Heads in a dtype of DTYPES, and for int8 the scales (N,) float32 that give them back.

    A scale serves all heads of an item: the score of an item is then scaled once, and what one head needs of the range
    costs the others little. Raises UserError where a dtype is unknown or a number does not fit into float16.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}.")
    if dtype == "int8":
        largest_N = np.abs(heads_NGK).max(axis=(1, 2), initial=0.0)
        scales_N = np.where(largest_N > 0, largest_N / 127, 1.0).astype(np.float32)
        return np.rint(heads_NGK / scales_N[:, None, None]).astype(np.int8), scales_N
    with np.errstate(over="ignore"):
        stored = heads_NGK.astype(dtype)
    if not np.isfinite(stored).all():
        raise UserError(
            f"dtype: expected numbers that fit into {dtype}, got one of {np.abs(heads_NGK).max():.3g}; use float32."
        )
    return stored, None


def check_finite(heads_NGK: np.ndarray, ids_N: np.ndarray) -> None:
    """Raise UserError, naming the first such item, where heads are NaN or infinite."""
    is_finite_N = np.isfinite(heads_NGK).all(axis=(1, 2))
    if not is_finite_N.all():
        raise UserError(f"heads: expected finite numbers, got NaN or infinite ones for item {ids_N[~is_finite_N][0]}.")


def restore(stored_NGK: np.ndarray, scales_N: np.ndarray | None) -> np.ndarray:
    """The heads that stored ones stand for, float32."""
    heads_NGK = stored_NGK.astype(np.float32)
    return heads_NGK if scales_N is None else heads_NGK * scales_N[:, None, None]
