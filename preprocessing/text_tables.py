"""Delimited text into data frames at the C parser's speed, with the file and line of whatever is wrong."""

import csv
import io

import numpy as np
import pandas as pd

from preprocessing.errors import UserError


def parse_separated(name: str, content: bytes, separator: bytes, columns: dict[str, str]) -> pd.DataFrame:
    """Parse lines of `a::b::c` without a header.

    Args:
        name: the file, for messages.
        separator: the bytes between two fields.
        columns: each column's name and type, "int" or "str", in file order.
    Raises UserError with file and line number for a wrong number of columns or a field that is no number.
    """
    if not content.strip():
        raise UserError(f"{name}: expected lines of {separator.decode().join(columns)}, got an empty file.")
    # The C parser wants one byte between fields. No text file of these formats holds a unit separator.
    delimiter = b"\x1f"
    num_lines = content.count(b"\n") + (not content.endswith(b"\n"))
    well_formed = content.count(separator) == num_lines * (len(columns) - 1) and delimiter not in content
    if well_formed:
        try:
            frame = pd.read_csv(
                io.BytesIO(content.replace(separator, delimiter)),
                sep=delimiter.decode(),
                header=None,
                names=list(columns),
                index_col=False,
                dtype={column: np.int64 if kind == "int" else str for column, kind in columns.items()},
                encoding="latin-1",
                quoting=csv.QUOTE_NONE,
                keep_default_na=False,
                skip_blank_lines=False,
            )
            if len(frame) == num_lines:
                return frame
        except (ValueError, OverflowError):
            pass
    lines = content.decode("latin-1").split("\n")
    if lines[-1] == "":
        lines.pop()
    rows = (line.rstrip("\r").split(separator.decode()) for line in lines)
    raise _first_fault(name, enumerate(rows, start=1), columns)


def parse_csv(name: str, content: bytes, columns: dict[str, str]) -> pd.DataFrame:
    """Parse comma-separated text whose header names at least the given columns; raises as `parse_separated`."""
    text = content.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")
    header = next(csv.reader(io.StringIO(text)), [])
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(f"{name}, line 1: expected the header {','.join(columns)}, got no {', '.join(missing)}.")
    try:
        # index_col=False would cut a longer line short in silence; without it pandas takes surplus fields of
        # every line as an index, which the check below catches.
        frame = pd.read_csv(
            io.StringIO(text),
            dtype={column: np.int64 if kind == "int" else str for column, kind in columns.items()},
            keep_default_na=False,
            encoding_errors="surrogateescape",
        )
        if isinstance(frame.index, pd.RangeIndex) and len(frame):
            return frame[list(columns)]
    except (ValueError, OverflowError):
        pass
    reader = csv.reader(io.StringIO(text))
    next(reader)
    kinds = {column: columns.get(column, "str") for column in header}
    rows = ((reader.line_num, row) for row in reader)
    raise _first_fault(name, rows, kinds)


def _first_fault(name: str, rows, columns: dict[str, str]) -> UserError:
    """The error that names the first line at fault; found by a slow walk, taken only after the parser gave up."""
    line = 0
    for line, row in rows:
        if len(row) != len(columns):
            wanted = f"expected {len(columns)} columns ({', '.join(columns)})"
            return UserError(f"{name}, line {line}: {wanted}, got {len(row)}; mend or remove the line.")
        for (column, kind), value in zip(columns.items(), row, strict=True):
            if kind == "int" and not _is_int64(value):
                return UserError(
                    f"{name}, line {line}: expected a whole number as {column}, got {value!r}; mend or remove the line."
                )
    if line == 0:
        return UserError(f"{name}: expected at least one row below the header, got none.")
    return UserError(f"{name}: expected plain lines of {', '.join(columns)}, got text that cannot be parsed.")


def _is_int64(value: str) -> bool:
    try:
        return -(2**63) <= int(value) < 2**63
    except ValueError:
        return False
