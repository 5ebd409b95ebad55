"""Lines of text files, packed by gzip or not, under a progress bar."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from preprocessing.errors import UserError


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked where it is gzip, under a progress bar; UserError where it is damaged."""
    bar = tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, leave=False, disable=None)
    with bar, open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file = gzip.GzipFile(fileobj=_Counted(raw, bar)) if packed else io.BufferedReader(_Counted(raw, bar))
        try:
            yield file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"{path}: expected a whole gzip file, got a damaged one ({error}); fetch it again."
            ) from error


class _Counted(io.RawIOBase):
    """A file that moves a progress bar as it is read."""

    def __init__(self, file: BinaryIO, bar: tqdm):
        self.file, self.bar = file, bar

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size)
        self.bar.update(len(chunk))
        return chunk

    def readinto(self, buffer) -> int:
        count = self.file.readinto(buffer)
        self.bar.update(count)
        return count


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, numbered from 1. Raises UserError where there are none."""
    line = found = 0
    with opened(path) as file:
        for line, text in enumerate(io.BufferedReader(file, 2**20), start=1):
            if not text.isspace():
                found = line
                yield line, text
    if not found:
        raise UserError(f"{path.name}: expected a line for each review or item, got an empty file.")
