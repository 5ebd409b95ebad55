"""What `encode_users` and `encode_items` take, checked before it is encoded."""

from __future__ import annotations

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
