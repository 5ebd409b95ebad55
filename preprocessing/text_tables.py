"""Delimited text into data frames at the C parser's speed, with the file and line of whatever is wrong."""

import csv
import io
import math
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.errors import UserError, is_out_of_memory
from preprocessing.gzip_lines import HEAD, as_utf_8, check_is_text, opened, text_of
from preprocessing.sources import PARQUET

_UNIT_SEPARATOR = b"\x1f"

# How a table says that it has no value.
MISSING = ("", "NULL", "null", "None", "NaN", "nan", "NA", "N/A", "\\N")

BLOCK_BYTES = 2**25

FLOATS_EXACT_BELOW = 2**53  # from here on a float stands for several whole numbers
EXACT = "exact"  # a kind of column: whole numbers of which no float is made


def parse_separated(name: str, content: bytes, separator: bytes, columns: dict[str, str]) -> pd.DataFrame:
    """Parse lines of `a::b::c` without a header, in UTF-8 or latin-1.

    Args:
        name: the file, for messages.
        separator: the bytes between two fields.
        columns: each column's name and type, "int" or "str", in file order.
    Raises UserError with file and line number for a wrong number of columns or a field that is no number.
    """
    check_is_text(name, content[:HEAD])
    content = as_utf_8(content)
    if not content.strip():
        raise UserError(f"{name}: expected lines of {separator.decode().join(columns)}, got an empty file.")
    # The C parser wants one byte between fields. No text file of these formats holds a unit separator.
    num_lines = content.count(b"\n") + (not content.endswith(b"\n"))
    parsed = content.replace(separator, _UNIT_SEPARATOR)
    if _UNIT_SEPARATOR not in content and (_separators_per_line(parsed, _UNIT_SEPARATOR) == len(columns) - 1).all():
        try:
            frame = _read_csv(
                io.BytesIO(parsed),
                sep=_UNIT_SEPARATOR.decode(),
                header=None,
                names=list(columns),
                index_col=False,
                dtype={column: np.int64 if kind == "int" else str for column, kind in columns.items()},
                quoting=csv.QUOTE_NONE,
                keep_default_na=False,
                skip_blank_lines=False,
            )
            if len(frame) == num_lines:
                columns = columns | _exact(frame, columns, content)
                if EXACT not in columns.values():
                    return frame
        except (ValueError, OverflowError):
            pass
    lines = content.decode().split("\n")
    if lines[-1] == "":
        lines.pop()
    if other := _other_separator(lines[0], separator.decode(), len(columns)):
        wanted = f"fields with {separator.decode()!r} between them"
        raise UserError(f"{name}, line 1: expected {wanted}, got {other!r}; take the file as it was published.")
    rows = (line.rstrip("\r").split(separator.decode()) for line in lines)
    fault = _first_fault(name, enumerate(rows, start=1), columns)
    if fault is None and EXACT in columns.values():
        return frame
    raise fault or _unparsable(name, columns)


def _other_separator(line: str, separator: str, num_columns: int) -> str | None:
    """What stands between the fields of a line in the place of the separator, if it is one that tables have."""
    if separator in line:
        return None
    return next((other for other in _OTHER_SEPARATORS if line.count(other) >= num_columns - 1), None)


_OTHER_SEPARATORS = (";", "\t", "|", "::", ",")  # the last is that of a CSV


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and the like come after the block.

    What a signal raises within pandas' C parser is turned into a fault of the file, or takes the rows read so far for
    all of them.
    """
    came, held = [], {}
    if threading.current_thread() is threading.main_thread():  # the one that signals reach
        names = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not known everywhere
        held = {s: signal.getsignal(s) for name in names if (s := getattr(signal, name, None))}
        held = {number: handler for number, handler in held.items() if callable(handler)}
    try:
        for number in held:
            signal.signal(number, lambda *arguments: came.append(arguments))
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for number, frame in came:
            held[number](number, frame)


def _read_csv(*arguments, **options) -> pd.DataFrame:
    """As pandas' own, but never ended by a signal halfway, and a lack of memory is no fault of the file."""
    try:
        with _signals_wait():
            return pd.read_csv(*arguments, **options)
    except ValueError as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


def _separators_per_line(content: bytes, separator: bytes) -> np.ndarray:
    characters = np.frombuffer(content, dtype=np.uint8)
    separators = np.flatnonzero(characters == separator[0])
    line_ends = np.flatnonzero(characters == ord("\n"))
    if not content.endswith(b"\n"):
        line_ends = np.append(line_ends, len(content))
    return np.diff(np.searchsorted(separators, line_ends), prepend=0)


def parse_csv(name: str, content: bytes, columns: dict[str, str]) -> pd.DataFrame:
    """Parse comma-separated text whose header names at least the given columns; raises as `parse_separated`."""
    text = text_of(name, content)
    try:
        header = next(csv.reader(io.StringIO(text)), [])
    except csv.Error:
        header = []
    check_header(name, header, columns)
    try:
        frame = _read_csv(
            io.StringIO(text),
            dtype={column: np.int64 if kind == "int" else str for column, kind in columns.items()},
            keep_default_na=False,
            skip_blank_lines=False,
        )
        # Surplus fields of every line would have become the index; a line cut short is filled up with "".
        if isinstance(frame.index, pd.RangeIndex):
            columns = columns | _exact(frame, columns, content)
            if len(frame) and not (frame.iloc[:, -1] == "").any() and EXACT not in columns.values():
                return frame[list(columns)]
    except (ValueError, OverflowError):
        frame = None
    reader = csv.reader(io.StringIO(text))
    next(reader)
    kinds = {column: columns.get(column, "str") for column in header}
    try:
        fault = _first_fault(name, ((reader.line_num, row) for row in reader), kinds)
    except csv.Error as error:
        fault = UserError(
            f"{name}, line {reader.line_num + 1}: expected closed quotes, got none ({error}); mend the line."
        )
    if fault is None and frame is not None:
        return frame[list(columns)]
    raise fault or _unparsable(name, columns)


def check_header(name: str, header: list[str], columns: Iterable[str]) -> None:
    """Raise UserError for a header that lacks one of the columns or names one twice; says what else stands in it."""
    missing = [column for column in columns if column not in header]
    repeated = [column for column in header if header.count(column) > 1]
    if not missing and not repeated:
        return
    got = f"no {', '.join(missing)}." if missing else f"{repeated[0]!r} twice."
    for other in _OTHER_SEPARATORS[:-1]:
        # As much as the line has of the names with the other one between them.
        names = {cell.strip(' "') for cell in ",".join(header).split(other)}
        if len(names.intersection(columns)) > len(columns) - len(missing):
            got = f"one with {other!r} between the names; save the file with commas."
    where = f"{name}: expected the columns" if name.endswith(PARQUET) else f"{name}, line 1: expected the header"
    raise UserError(f"{where} {','.join(columns)}, got {got}")


def read_csv_blocks(
    path: Path,
    columns: dict[str, str],
    block_bytes: int = BLOCK_BYTES,
    if_there: dict[str, str] | None = None,
    content: bytes | None = None,
) -> Iterator[pd.DataFrame]:
    """Read a large comma-separated file with a header, a block of lines at a time, under a progress bar.

    Args:
        columns: each wanted column's name and type: "int"; "str?", given as categories; "int?" and "number?", given
            as float64, the latter not below 0. Those with a "?" may be missing (`MISSING`), which gives NaN.
        if_there: further columns, read where the header has them.
        content: what the file holds, where it is a member of an archive; `path` then names it and is not opened.
    Returns:
        frames with the wanted columns; names in the header may have spaces around them.
    Raises UserError with file and line for a wrong header, a wrong number of columns or a wrong value.
    """
    path = Path(path)
    if content is not None:
        check_is_text(path, content[:HEAD])
    with opened(path) if content is None else io.BytesIO(content) as file:
        first = as_utf_8(file.readline()).decode()
        try:
            header = [name.strip() for name in next(csv.reader([first]), [])]
        except csv.Error:
            header = []
        check_header(path.name, header, columns)
        columns = columns | {column: kind for column, kind in (if_there or {}).items() if column in header}
        line, rest = 2, b""
        while chunk := file.read(block_bytes):
            block, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield _parse_block(path.name, line, block + newline, header, columns)
                line += block.count(b"\n") + 1
        if rest:
            yield _parse_block(path.name, line, rest, header, columns)
        elif line == 2:
            raise UserError(f"{path.name}: expected at least one row below the header, got none.")


def fault_at(name: str, row: int, what: str) -> UserError:
    """The error for a row, counted from 0: of a line, the header being the first, or of a row of Parquet, from 1."""
    kind, number = ("row", row + 1) if name.endswith(PARQUET) else ("line", row + 2)
    return UserError(f"{name}, {kind} {number}: {what}; mend or remove the {kind}.")


def check_zero_or_one(values: pd.Series, name: str, first_row: int) -> None:
    """Raise UserError for another value, with its file, column and place, counted from that of the first."""
    odd = np.flatnonzero(~values.isin((0, 1)).to_numpy())
    if len(odd):
        raise fault_at(name, first_row + odd[0], f"expected 0 or 1 as {values.name}, got {values.iloc[odd[0]]}")


class Numbered:
    """Ids, numbered from 0 as they first come: `ids` (I,), and of how many rows each is, `num_rows` (I,)."""

    def __init__(self):
        self.ids, self.num_rows = None, np.zeros(0, dtype=np.int64)

    def places(self, values: pd.Series | pd.Index) -> np.ndarray:
        """(N,) int32, the numbers of some rows' ids; ids that are new get the next ones."""
        codes, distinct = pd.factorize(values)
        if self.ids is None:
            self.ids = pd.Index(distinct[:0])  # none, of their type
        places = self.ids.get_indexer(distinct)
        new = np.flatnonzero(places < 0)
        if len(new):
            places[new] = len(self.num_rows) + np.arange(len(new))
            self.ids = self.ids.append(pd.Index(distinct[new]))
            self.num_rows = np.append(self.num_rows, np.zeros(len(new), dtype=np.int64))
        self.num_rows[places] += np.bincount(codes, minlength=len(distinct))
        return places.astype(np.int32)[codes]


def table_of(
    name: str,
    blocks: Iterable[pd.DataFrame],
    ids: np.ndarray,
    num_rows_of_id: np.ndarray,
    rows_file: str,
    counts: dict[str, int],
    strict_data: bool,
) -> pd.DataFrame:
    """The lines of a user or item table for the given ids, in their order; NaN for those that it does not hold.

    Args:
        name, blocks: the table's file, and its lines; the first column is the id.
        num_rows_of_id, rows_file: how many rows each id has, and the file of the rows.
        counts: gets how many ids there are, and how many are missing with how many rows, which is said too.
        strict_data: refuse missing ids.
    """
    frame = pd.concat(blocks, ignore_index=True)
    key = frame.columns[0]
    repeated = frame[key][frame[key].duplicated()]
    if len(repeated):
        raise UserError(f"{name}: expected each {key} once, got {repeated.iloc[0]} again; remove the repeated lines.")
    places = pd.Index(frame[key]).get_indexer(ids)
    missing = ids[places < 0]
    counts[f"{key}s"], counts[f"{key}s_not_in_{name}"] = len(ids), len(missing)
    num_rows = int(num_rows_of_id[places < 0].sum())
    counts[f"rows_of_{key}_not_in_{name}"] = num_rows
    if len(missing):
        named = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        if strict_data:
            raise UserError(
                f"{name}: expected every {key} of {rows_file}, {len(missing):,} missing ({named}) with "
                f"{num_rows:,} rows; complete the file, or leave out --strict-data to keep those rows."
            )
        print(
            f"{name}: {len(missing):,} {key}(s) of {rows_file} missing ({named}); their {num_rows:,} rows "
            f"({num_rows / num_rows_of_id.sum():.1%}) stay in, with the {key} alone known.",
            flush=True,
        )
    joined = frame.take(places).reset_index(drop=True)  # a place of -1 takes the last line, to be blanked
    joined.loc[places < 0, joined.columns[1:]] = np.nan
    joined[key] = ids
    return joined


# Text becomes categories afterwards: the parser's own would be numbers where they look like numbers.
_BLOCK_TYPES = {"int": np.int64, "str?": str, "int?": np.float64, "number?": np.float64}


def _parse_block(name: str, line: int, block: bytes, header: list[str], columns: dict[str, str]) -> pd.DataFrame:
    block = as_utf_8(block)
    num_lines = block.count(b"\n") + (not block.endswith(b"\n"))
    kinds = {column: columns.get(column, "str") for column in header}
    # The C parser fills up a line cut short, cuts one that is too long, and says nothing.
    fault = None
    if b'"' in block:
        # Without a fault the parser looks at the values, and quicker.
        if _fault_of_block(name, line, block, dict.fromkeys(header, "str")):
            fault = _fault_of_block(name, line, block, kinds)
    elif not (_separators_per_line(block, b",") == len(header) - 1).all():
        fault = _fault_of_block(name, line, block, kinds) or _unparsable(name, columns)
    if fault is None:
        try:
            frame = _read_csv(
                io.BytesIO(block),
                header=None,
                names=header,
                index_col=False,
                usecols=list(columns),
                dtype={column: _BLOCK_TYPES[kind] for column, kind in columns.items()},
                na_values={column: list(MISSING) for column, kind in columns.items() if kind.endswith("?")},
                keep_default_na=False,
                skip_blank_lines=False,
            )
            numbers = [(frame[c].to_numpy(), kind) for c, kind in columns.items() if kind in ("int?", "number?")]
            if len(frame) == num_lines and not any(odd_numbers(*of_kind).any() for of_kind in numbers):
                exact = _exact(frame, columns, block)
                fault = _fault_of_block(name, line, block, kinds | exact) if exact else None
                if fault is None:
                    texts = [column for column, kind in columns.items() if kind == "str?"]
                    return frame[list(columns)].astype(dict.fromkeys(texts, "category"))
        except (ValueError, OverflowError):
            pass
        fault = fault or _fault_of_block(name, line, block, kinds)
    raise fault or _unparsable(name, columns)


def _fault_of_block(name: str, line: int, block: bytes, kinds: dict[str, str]) -> UserError | None:
    rows = csv.reader(io.StringIO(block.decode()))
    begun = line

    def numbered() -> Iterator[tuple[int, list[str]]]:
        nonlocal begun
        for row in rows:
            if any("\n" in cell for cell in row):
                raise csv.Error("a quote that is not closed on its line")
            yield begun, row
            begun = line + rows.line_num

    try:
        return _first_fault(name, numbered(), kinds)
    except csv.Error as error:
        return UserError(f"{name}, line {begun}: expected plain text, got {error}; mend the line.")


def odd_numbers(values: np.ndarray, kind: str) -> np.ndarray:
    """(N,) bool, which numbers, NaN for a missing one, are none of a kind."""
    with np.errstate(invalid="ignore"):  # of infinity no rest is known
        if kind == "number?":
            fits = (values >= 0) & (values < np.inf)
        else:
            fits = (values % 1 == 0) & (np.abs(values) < FLOATS_EXACT_BELOW)
    return ~(fits | np.isnan(values))


def _exact(frame: pd.DataFrame, columns: dict[str, str], content: bytes) -> dict[str, str]:
    """The columns of whole numbers, as EXACT, whose digits may be lost: one value with a point makes floats of all."""
    if b"." not in content and b"e" not in content and b"E" not in content:
        return {}
    whole = [column for column, kind in columns.items() if kind == "int" and len(frame)]
    return {c: EXACT for c in whole if max(-int(frame[c].min()), int(frame[c].max())) >= FLOATS_EXACT_BELOW}


def _first_fault(name: str, rows, columns: dict[str, str]) -> UserError | None:
    """The error that names the first line at fault; a slow walk, taken only where the fast parser is in doubt."""
    line = 0
    for line, row in rows:
        if len(row) != len(columns):
            wanted = f"expected {len(columns)} columns ({', '.join(columns)})"
            return UserError(f"{name}, line {line}: {wanted}, got {len(row)}; mend or remove the line.")
        for (column, kind), value in zip(columns.items(), row, strict=True):
            if not _is_of_kind(value, kind):
                wanted = WANTED[kind]
                return UserError(
                    f"{name}, line {line}: expected {wanted} as {column}, got {value!r}; mend or remove the line."
                )
    if line == 0:
        return UserError(f"{name}: expected at least one row below the header, got none.")
    return None


def _unparsable(name: str, columns: dict[str, str]) -> UserError:
    return UserError(
        f"{name}: expected plain lines of {', '.join(columns)}, got text that cannot be parsed (a control character?)."
    )


WANTED = {
    "int": "a whole number",
    EXACT: "digits alone (ids from 2^53 on stand in the column)",
    "int?": "a whole number below 2^53 or nothing",
    "number?": "a number of at least 0 or nothing",
}


def _is_of_kind(value: str, kind: str) -> bool:
    if kind in ("str", "str?") or (kind.endswith("?") and value in MISSING):
        return True
    if kind == EXACT or (kind == "int" and _is_int64(value)):
        return _is_int64(value)
    # What the C parser takes for a number; Python's float takes more.
    if not re.fullmatch(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *", value):
        return False
    if kind == "number?":
        return 0 <= float(value) < math.inf
    return float(value) % 1 == 0 and abs(float(value)) < FLOATS_EXACT_BELOW


def _is_int64(value: str) -> bool:
    plain = re.fullmatch(r" *[+-]?[0-9]+ *", value)
    return plain is not None and -(2**63) <= int(value) < 2**63
