"""The bytes, lines and text of raw files, packed by gzip or not, under a progress bar."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from preprocessing.errors import UserError

GZIP = b"\x1f\x8b"
HEAD = 512  # bytes that tell what a file is

# --- what is no text

_TO_CSV, _TO_UTF_8, _UNPACK, _FETCH = "save it as CSV", "save it as UTF-8", "unpack it", "fetch it again"
# How a file begins that holds no lines of text, what it is, and what makes lines of text of it.
_OTHER_FORMATS = (
    (b"PAR1", "Parquet", _TO_CSV),
    (b"ARROW1", "Feather", _TO_CSV),
    (b"\x89HDF", "HDF5", _TO_CSV),
    (b"\x80\x04", "a pickle", _TO_CSV),
    (b"\x80\x05", "a pickle", _TO_CSV),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", _TO_CSV),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or save it as CSV"),
    (GZIP, "a gzip file", _UNPACK),
    (b"BZh91AY&SY", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ", "an xz file", _UNPACK),
    (b"(\xb5/\xfd", "a zstd file", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (codecs.BOM_UTF32_LE, "text in UTF-32", _TO_UTF_8),
    (codecs.BOM_UTF32_BE, "text in UTF-32", _TO_UTF_8),
    (codecs.BOM_UTF16_LE, "text in UTF-16", _TO_UTF_8),
    (codecs.BOM_UTF16_BE, "text in UTF-16", _TO_UTF_8),
)


def other_format(head: bytes) -> str | None:
    """What a file is that begins so, and what to do with it: "Parquet; save it as CSV"; None for text."""
    for magic, what, advice in _OTHER_FORMATS:
        if head.startswith(magic):
            return f"{what}; {advice}"
    if head[257:262] == b"ustar":
        return f"a tar archive; {_UNPACK}"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return f"a web page; {_FETCH}"
    if b"\0" in head[:2]:  # of UTF-16 without a mark; text begins with no such byte
        return f"text in UTF-16; {_TO_UTF_8}"
    return None


def check_is_text(where: str | Path, head: bytes) -> None:
    """Raise UserError for a file whose first bytes are those of another format, with its name and what to do."""
    if found := other_format(head):
        raise UserError(f"{where}: expected plain text, got {found}.")


# --- encodings


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are no UTF-8 in latin-1 as Windows writes it, which has letters where latin-1 has controls."""
    wrong = error.object[error.start : error.end]
    try:
        return wrong.decode("cp1252"), error.end
    except UnicodeDecodeError:
        return wrong.decode("latin-1"), error.end


# How `errors` of a decoder is called that does so.
OR_LATIN_1 = "utf-8-or-latin-1"
codecs.register_error(OR_LATIN_1, _as_latin_1)


def as_utf_8(content: bytes) -> bytes:
    """Text in UTF-8, of text in UTF-8 or latin-1, without the byte order mark at its head.

    Letters of latin-1 make no UTF-8 unless they stand as in "Ã©", so each says itself which of the two it is.
    """
    return content if content.isascii() else content.decode("utf-8-sig", OR_LATIN_1).encode()


def text_of(where: str | Path, content: bytes) -> str:
    """The text of a file in UTF-8 or latin-1; raises UserError where it is no text or in another encoding."""
    check_is_text(where, content[:HEAD])
    return as_utf_8(content).decode()


# --- files


@contextmanager
def opened(path: Path, is_text: bool = True) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked where it is gzip, under a progress bar; UserError where it is damaged or no text.

    Args:
        is_text: whether text is expected.
    """
    bar = tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, leave=False, disable=None)
    with bar, open(path, "rb") as raw:
        packed = raw.read(2) == GZIP
        raw.seek(0)
        file = gzip.GzipFile(fileobj=_Counted(raw, bar)) if packed else io.BufferedReader(_Counted(raw, bar))
        try:
            if is_text:
                check_is_text(path, file.peek(HEAD)[:HEAD])
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


def content_of(path: Path) -> bytes:
    """All of a file's bytes, as `opened` gives them."""
    with opened(path) as file:
        return file.read()


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, numbered from 1, without a byte order mark at its head.

    Raises UserError where there are none.
    """
    line = found = 0
    with opened(path) as file:
        for line, text in enumerate(io.BufferedReader(file, 2**20), start=1):
            if line == 1:
                text = text.removeprefix(codecs.BOM_UTF8)
            if text and not text.isspace():
                found = line
                yield line, text
    if not found:
        raise UserError(f"{path.name}: expected a line for each review or item, got an empty file.")
