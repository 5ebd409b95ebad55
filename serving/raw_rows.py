"""What an encoder of raw rows takes, checked before it is encoded."""

from __future__ import annotations

import numpy as np
import pandas as pd

from preprocessing.errors import UserError


def check_rows(frame: pd.DataFrame) -> None:
    """Raise UserError for raw rows that are no DataFrame, or have a column twice."""
    if not isinstance(frame, pd.DataFrame):
        raise UserError(
            f"encode: expected a pandas DataFrame, a row for each user or item, got a {type(frame).__name__}; "
            "make a single row one by pd.DataFrame([row]), or call encode_user with it."
        )
    if not frame.columns.is_unique:
        doubled = frame.columns[frame.columns.duplicated()][0]
        raise UserError(f"encode: expected each column once, got {doubled!r} twice; remove or rename one.")


def with_statistics(features: dict[str, np.ndarray], statistics: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Features, some in the place of those that were looked up.

    Raises UserError for a name that is none of theirs, and for another kind or shape than theirs.
    """
    for name, given in (statistics or {}).items():
        if name not in features:
            raise UserError(f"statistics: expected some of {', '.join(features)}, got {name!r}.")
        there = features[name]
        if not isinstance(given, np.ndarray) or given.dtype != there.dtype or given.shape != there.shape:
            got = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
            raise UserError(f"statistics: expected {name} as {there.dtype} {there.shape}, got {got}.")
    return features | statistics if statistics else features
