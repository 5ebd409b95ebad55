"""One rule for ids, and for every raw value that a vocabulary holds: text or whole numbers, exact.

What comes in the other kind is converted where that is exact: "42", "42.0" and 42.0 are the number 42, and 42 is the
text "42". It is refused where it may stand for a known value and cannot say for which: a float from 2^53 on, a number
that has lost the zeros of known text. So is what is neither text nor number. Anything else that is not known is
unknown. Nothing goes through float on its way.
"""

from __future__ import annotations

import numbers
import re
from decimal import Decimal

import numpy as np
import pandas as pd

from preprocessing.errors import UserError

INT64 = np.iinfo(np.int64)
WIDEST = 32  # digits up to which text is searched for with zeros before a number

# As files are read: no exponent, no other script's digits, no underscores. More digits are beyond 64 bits.
_WHOLE = re.compile(r" *([+-]?)0*([0-9]{1,19})(?:\.0*)? *")


def places(values, known: pd.Index, name: str = "ids") -> np.ndarray:
    """Where values stand among known ones, (N,); -1 for one that is unknown or missing.

    Raises UserError for a value that is refused; `name` says in which column.
    """
    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        values = pd.Categorical(values)
        used = np.unique(values.codes[values.codes >= 0])
        of_category = np.full(len(values.categories) + 1, -1, np.int64)  # the last one stands for a missing value
        of_category[used] = places(values.categories[used], known, name)
        return of_category[values.codes]
    if is_whole(known):
        whole, exact = whole_numbers(values, name)
        found = known.get_indexer(whole)
        return found if exact.all() else np.where(exact, found, -1)
    if is_text(known):
        return known.get_indexer(pd.Index(texts(values, known, name)))
    try:
        return known.get_indexer(pd.Index(values, tupleize_cols=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: expected values such as {known[:1].tolist()}, got others ({error}).") from error


def is_whole(known: pd.Index) -> bool:
    """Whether known values are whole numbers."""
    return known.inferred_type == "integer"


def is_text(known: pd.Index) -> bool:
    """Whether known values are text."""
    return known.inferred_type == "string"


def whole_numbers(values, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values as int64, and where they are exactly that; elsewhere (text, a fraction, beyond 64 bits, none) 0 stands."""
    values = _array(values)
    if values.dtype.kind == "i":
        return values.astype(np.int64, copy=False), np.ones(len(values), dtype=bool)
    if values.dtype.kind == "u":
        exact = values <= np.uint64(INT64.max)
    elif values.dtype.kind == "f":
        exact = np.isfinite(values) & (values == np.floor(values))
        too_large = np.flatnonzero(exact & (np.abs(values) >= _exact_below(values.dtype)))
        if len(too_large):
            raise _too_large(values[too_large[0]], too_large[0], name)
    else:
        found = [_whole(value, row, name) for row, value in enumerate(values)]
        exact = np.array([whole is not None and INT64.min <= whole <= INT64.max for whole in found], dtype=bool)
        values = np.array(found, dtype=object)
    return np.where(exact, values, 0).astype(np.int64), exact


def texts(values, known: pd.Index, name: str):
    """Values as text, None or NaN for a missing one or a fraction; `known` is text."""
    if pd.api.types.infer_dtype(values, skipna=True) in ("string", "empty"):
        return values
    values = _array(values).astype(object)
    found = np.full(len(values), None, dtype=object)
    for row, value in enumerate(values):
        if isinstance(value, str):
            found[row] = value
            continue
        whole = _whole(value, row, name)
        if whole is None:
            continue
        found[row] = str(whole)
        padded = [found[row].zfill(width) for width in range(len(found[row]) + 1, WIDEST + 1)]
        meant = [text for text, place in zip(padded, known.get_indexer(padded), strict=True) if place >= 0]
        if meant:
            raise UserError(
                f"{name}: expected text such as {meant[0]!r}, got the number {value} in row {row}, which has no zeros "
                "before it; give the column as text (pandas: dtype=str)."
            )
    return found


def _array(values) -> np.ndarray:
    """One-dimensional values as they are: a list's are not brought to one type."""
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, pd.Series | pd.Index):
        values = pd.Series(values, dtype=object if isinstance(values, list | tuple) else None)
    return values.to_numpy() if isinstance(values.dtype, np.dtype) else values.to_numpy(dtype=object)


def _whole(value, row: int, name: str) -> int | None:
    """The whole number that a value is exactly, whatever its size; None where it is none."""
    if isinstance(value, str):
        if value.isdigit() and value.isascii() and len(value) < 19:  # most are, and this is quicker
            return int(value)
        found = _WHOLE.fullmatch(value)
        return int(found[1] + found[2]) if found else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    # numpy counts a span of time among its whole numbers.
    if isinstance(value, bool | np.timedelta64) or not isinstance(value, numbers.Real | Decimal):
        raise UserError(
            f"{name}: expected whole numbers or text, got {value!r:.60} ({type(value).__name__}) in row {row}; "
            "convert the column."
        )
    try:
        whole = int(value)
    except (ValueError, OverflowError):  # NaN, infinity
        return None
    if whole != value:
        return None
    if isinstance(value, float | np.floating) and abs(whole) >= _exact_below(type(value)):
        raise _too_large(value, row, name)
    return whole


def _exact_below(kind) -> int:
    """From here on a float of this kind stands for several whole numbers."""
    return 2 ** (np.finfo(kind).nmant + 1)


def _too_large(value, row: int, name: str) -> UserError:
    return UserError(
        f"{name}: expected whole numbers or text, got the float {value} in row {row}, which stands for several whole "
        "numbers; give the column as int64 or text."
    )
