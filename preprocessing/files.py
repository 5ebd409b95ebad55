"""Files written whole or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from preprocessing.errors import UserError


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Write bytes, or what `content(file)` writes, to path: readers see the old file or the whole new one.

    Raises UserError where the disk refuses (full, read-only); an older file at path is then left as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: could not be saved ({error.strerror or error}); what stood there before is untouched. "
            "Free some space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
