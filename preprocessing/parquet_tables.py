"""Parquet in the place of a CSV: the same columns, types and checks, a block of rows at a time. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from preprocessing.errors import UserError
from preprocessing.sources import PARQUET
from preprocessing.text_tables import MISSING, WANTED, check_header, fault_at, odd_numbers, read_csv_blocks

if TYPE_CHECKING:
    import pyarrow

BLOCK_ROWS = 2**19
BUFFER_BYTES = 2**23  # of each column; without a buffer a whole row group would be read at once


def read_blocks(path: Path, columns: dict[str, str], **options) -> Iterator[pd.DataFrame]:
    """As text_tables.read_csv_blocks, which see, of a CSV or of Parquet.

    Of Parquet, rows are counted from 1 for messages.
    """
    if Path(path).suffix == PARQUET:
        return _read_parquet_blocks(Path(path), columns, options.get("if_there") or {})
    return read_csv_blocks(path, columns, **options)


def _read_parquet_blocks(path: Path, columns: dict[str, str], if_there: dict[str, str]) -> Iterator[pd.DataFrame]:
    arrow = _pyarrow(path)
    try:
        with arrow.parquet.ParquetFile(path, buffer_size=BUFFER_BYTES) as file:
            names = {name.strip(): name for name in file.schema_arrow.names}
            check_header(path.name, list(names), columns)
            columns = columns | {column: kind for column, kind in if_there.items() if column in names}
            for column, kind in columns.items():
                _check_type(arrow, path.name, column, kind, file.schema_arrow.field(names[column]).type)
            row, num_rows = 0, file.metadata.num_rows
            bar = tqdm(total=num_rows, desc=path.name, unit="row", unit_scale=True, leave=False, disable=None)
            for batch in file.iter_batches(BLOCK_ROWS, columns=[names[column] for column in columns]):
                arrays = {column: batch.column(names[column]) for column in columns}
                yield pd.DataFrame(
                    {c: _values(arrow, path.name, row, c, columns[c], array) for c, array in arrays.items()}
                )
                row += len(batch)
                bar.update(len(batch))
            bar.close()
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: expected a whole Parquet file, got {reason!r}; write it again.") from error
    if row == 0:
        raise UserError(f"{path.name}: expected at least one row, got none.")


def _pyarrow(path: Path) -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{path}: expected the package pyarrow, which reads Parquet, got none; "
            "pip install -r requirements-parquet.txt, or save the table as CSV."
        ) from error
    return pyarrow


def _check_type(arrow: ModuleType, name: str, column: str, kind: str, found: pyarrow.DataType) -> None:
    types, of = arrow.types, found.value_type if arrow.types.is_dictionary(found) else found
    if kind == "str?":
        fits = types.is_string(of) or types.is_large_string(of)
    else:
        fits = types.is_integer(of) or (kind != "int" and types.is_floating(of))
    if not fits and not (types.is_null(of) and kind != "int"):
        wanted = WANTED.get(kind, "text or nothing")
        raise UserError(f"{name}: expected {wanted} as {column}, got a column of {found}; convert the column.")


def _values(arrow: ModuleType, name: str, row: int, column: str, kind: str, array: pyarrow.Array) -> pd.Series:
    """A column of a block that starts at a row."""
    if kind == "str?":
        coded = array.cast(arrow.string()).dictionary_encode()
        texts = [None if text in MISSING else text for text in coded.dictionary.to_pylist()]
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return pd.Series(np.array([*texts, None], dtype=object)[codes], dtype="str").astype("category")
    if arrow.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kind == "int":
        values = array.to_numpy(zero_copy_only=False)
        odd = ~(values <= np.iinfo(np.int64).max)  # unsigned ones, and NaN for one that is missing
    else:
        values = array.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        odd = odd_numbers(values, kind)
    if odd.any():
        first = int(odd.argmax())
        raise fault_at(name, row + first, f"expected {WANTED[kind]} as {column}, got {array[first]}")
    return pd.Series(values.astype(np.int64) if kind == "int" else values)
