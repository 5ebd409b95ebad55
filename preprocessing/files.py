"""Files written whole or not at all, arrays on disk, and checksums."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from preprocessing.errors import UserError

if TYPE_CHECKING:
    import numpy as np

CHUNK = 2**22
TEMPORARY = ".half-written"  # how the name of a file ends until it is whole


def write_atomically(
    path: Path, content: bytes | Callable[[BinaryIO], None], before: Callable[[], None] | None = None
) -> None:
    """Write bytes, or what `content(file)` writes, to path: readers see the old file or the whole new one.

    Args:
        before: is called when the new file is whole and on the disk, before it takes its place: what must go with the
            old file goes there. Where it raises, the old file stays.
    Raises UserError where the disk refuses (full, read-only); an older file at path is then left as it was.
    """
    path = Path(path)
    # Of nobody else: not of another thread, nor of a process of that number on another machine.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            before()
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: could not be saved ({error.strerror or error}); what stood there before is untouched. "
            "Free some space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_links(folder: Path) -> None:
    """Raise UserError where a folder to write to is, or lies behind, a link that leads nowhere."""
    for place in (folder, *folder.parents):
        if place.is_symlink() and not place.exists():
            raise UserError(
                f"{place}: expected a folder, got a link that leads nowhere ({os.readlink(place)}); make the folder "
                "that it names, or remove the link."
            )


def write_synced(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file of a folder that is not yet in use, part by part; on return it is on the disk."""
    with open(path, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, for a folder that is not yet in use; raises OSError where the disk is full."""
    write_blocks(path, array.dtype, array.shape, [array])


def write_blocks(path: Path, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """write_array, of an array that comes in blocks of rows."""
    import numpy as np

    if dtype.hasobject:
        raise ValueError(f"Object arrays cannot be saved, got one of {dtype}.")
    # numpy's own writing to a file does not notice a disk that is full at its end.
    write_synced(path, chain([npy_header(dtype, shape)], (np.ascontiguousarray(block).data for block in blocks)))


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """How a .npy file begins."""
    import numpy as np

    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def chunks(path: Path) -> Iterator[bytes]:
    """A file's content, piece by piece."""
    with open(path, "rb") as file:
        yield from iter(partial(file.read, CHUNK), b"")


def file_checksum(path: Path) -> int:
    """crc32 of a file: 4 GB/s, against damage and not against forgery."""
    value = 0
    for chunk in chunks(path):
        value = zlib.crc32(chunk, value)
    return value


# What a file system answers that has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path, when_taken: Callable[[], None]) -> Iterator[None]:
    """One process at a time within the block; the system lets go of the lock when a process dies.

    Where a file system has no locks, a line on stderr says so, and the work goes on.

    Args:
        path: a file that stays, and holds nothing.
        when_taken: is called once where another process is within; it raises, or returns to wait for that one.
    Raises OSError where the file cannot be made.
    """
    with open(path, "ab") as file:
        try:
            if not _try_lock(file):
                when_taken()
                _wait_for_lock(file)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print(f"{path}: no locks on this file system; keep to one process at a time here.", file=sys.stderr)
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:  # another process has it
            return False
        return True

    def _wait_for_lock(file: BinaryIO) -> None:
        while not _try_lock(file):
            time.sleep(0.05)

else:
    import fcntl

    def _try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_for_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
