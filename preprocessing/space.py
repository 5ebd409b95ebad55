"""Where a build keeps its rows: in memory, or, where memory is bounded, in files of which a block is read at a time.

A column of rows is an array, or a Column, which reads like one: `column[start:stop]` is an array of these rows,
`column[rows]` of a few by their numbers. What walks a column in `blocks` does for both.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from preprocessing.choices import GIB, LEAST_MEMORY
from preprocessing.errors import UserError
from preprocessing.files import npy_header

BLOCK_ROWS = 2**20
# The order of all rows, or one column of theirs, and the split of each.
BYTES_PER_ROW = 5


def blocks(num_rows: int) -> Iterator[slice]:
    """Slices of at most BLOCK_ROWS that cover all rows; one that is empty where there are none."""
    for start in range(0, max(num_rows, 1), BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, num_rows))


def row_type(num_rows: int) -> type:
    """What holds the numbers of so many rows."""
    return np.int32 if num_rows <= 2**31 else np.int64


class InMemory:
    """Rows in memory, as many as there are."""

    def column(self, kept: bool = False) -> Joined:
        """A column to append to."""
        return Joined()

    def keep(self, rows: np.ndarray) -> np.ndarray | Column:
        """A column of what is in memory now."""
        return rows

    def num_parts(self, num_rows: int, bytes_per_row: int) -> int:
        """In how many parts to do what takes so much memory for each row."""
        return 1

    def check(self, num_rows: int) -> None:
        """Raise UserError where there is too little memory for so many rows."""


class Joined:
    """A column in memory; `append` blocks of it, then `finish`."""

    def __init__(self):
        self.blocks = []

    def append(self, block: np.ndarray) -> None:
        """Add rows."""
        self.blocks.append(block)

    def finish(self) -> np.ndarray:
        """(N,) all of them."""
        return self.blocks[0] if len(self.blocks) == 1 else np.concatenate(self.blocks)


class OnDisk(InMemory):
    """Rows in files of a folder, and in memory no more of them than a bound allows.

    Columns that are `kept` are .npy files of the folder itself, given as memory-mapped arrays. All others lie in its
    `scratch`, and nobody needs them after the build. The folders are made with the first column.
    """

    def __init__(self, folder: Path, num_bytes: float):
        self.folder, self.scratch, self.num_bytes = folder, folder / "scratch", num_bytes
        self.num_columns, self.written = 0, []

    def column(self, kept: bool = False) -> Appended:
        self.num_columns += 1
        name = f"column{self.num_columns}.npy"
        return Appended(self.folder / name, self.written) if kept else Appended(self.scratch / name)

    def close(self) -> list[tuple[np.ndarray, str]]:
        """Remove the scratch; returns the arrays that are kept with the names of their files."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        return self.written

    def keep(self, rows: np.ndarray) -> Column:
        column = self.column()
        column.append(rows)
        return column.finish()

    def num_parts(self, num_rows: int, bytes_per_row: int) -> int:
        free = self.num_bytes - LEAST_MEMORY * GIB - num_rows  # a byte for the split of each row
        return max(1, math.ceil(num_rows * bytes_per_row / free))

    def check(self, num_rows: int) -> None:
        least = LEAST_MEMORY * GIB + num_rows * BYTES_PER_ROW
        if self.num_bytes < least:
            raise UserError(
                f"--memory: expected at least {math.ceil(10 * least / GIB) / 10} GiB for {num_rows:,} rows, got "
                f"{self.num_bytes / GIB:g}; give as much, or take fewer rows."
            )


class Appended:
    """A column in a file, as Joined is one in memory. Raises UserError where the disk refuses."""

    def __init__(self, path: Path, written: list[tuple[np.ndarray, str]] | None = None):
        self.path, self.written, self.length = path, written, 0

    def append(self, block: np.ndarray) -> None:
        """Add rows; all blocks are of one type."""
        with _disk_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                if self.length == 0:
                    self.dtype = block.dtype
                    file.truncate(0)
                    file.write(npy_header(self.dtype, (0,)))
                if block.dtype != self.dtype:  # only the numbers of rows outgrow their type
                    raise UserError(f"--memory: expected at most {2**31:,} rows, got more; take fewer.")
                file.write(np.ascontiguousarray(block).data)
            self.length += len(block)

    def finish(self) -> Column | np.ndarray:
        """(N,) all of them."""
        with _disk_errors(self.path.parent), open(self.path, "r+b") as file:
            file.write(npy_header(self.dtype, (self.length,)))  # as long as the first one: numpy leaves room
            file.flush()
            if self.written is None:
                return Column(self.path)
            os.fsync(file.fileno())
        mapped = np.load(self.path, mmap_mode="r")
        self.written.append((mapped, self.path.name))
        return mapped


class Column:
    """A column in a .npy file. What is read of it is an array in memory; nothing stays mapped."""

    def __init__(self, path: Path, start: int = 0, stop: int | None = None):
        file = np.load(path, mmap_mode="r", allow_pickle=False)
        stop = len(file) if stop is None else stop
        self.path, self.dtype, self.length = path, file.dtype, stop - start
        self.offset = file.offset + start * self.dtype.itemsize

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, rows: slice | np.ndarray | int) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.length)
            return np.fromfile(self.path, self.dtype, stop - start, offset=self.offset + start * self.dtype.itemsize)
        return np.memmap(self.path, self.dtype, "r", self.offset, (self.length,))[rows]

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        with _disk_errors(self.path.parent), open(self.path, "r+b") as file:
            file.seek(self.offset + rows.start * self.dtype.itemsize)
            file.write(values.astype(self.dtype, copy=False).data)

    def part(self, start: int, stop: int) -> Column:
        """The rows from one place to another, in the same file."""
        return Column(self.path, start, stop)


def cut(column: np.ndarray | Column, places: list[int]) -> list[np.ndarray | Column]:
    """A column in pieces, cut before each of the places; nothing is copied."""
    ends = zip([0, *places], [*places, len(column)], strict=True)
    return [column.part(*end) if isinstance(column, Column) else column[slice(*end)] for end in ends]


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: rows could not be kept ({error.strerror or error}); free some space, or leave out --memory."
        ) from error
