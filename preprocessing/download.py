"""Where a dataset's files come from: a named path, the environment, data/, or the public address."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from preprocessing.errors import UserError
from preprocessing.files import write_atomically

DATA_FOLDER = Path(__file__).resolve().parent.parent / "data"
ENVIRONMENT_VARIABLE = "INTTOWER_DATA"
CHUNK = 2**16


class DownloadError(UserError):
    """The file could not be fetched; nothing was left behind."""


def find_data(named: str | None, find: Callable[[Path], Path | None], what: str) -> Path | None:
    """The first place that holds a dataset: `named`, else $INTTOWER_DATA, else data/; None if data/ has none.

    Args:
        named: the value of --data, a file or a folder.
        find: gives the dataset's own path inside a folder, or None.
        what: what is looked for, for the message.
    Raises UserError where a path that a person named (--data, $INTTOWER_DATA) does not hold it.
    """
    for origin, value in (("--data", named), (f"${ENVIRONMENT_VARIABLE}", os.environ.get(ENVIRONMENT_VARIABLE))):
        if not value:
            continue
        path = Path(value)
        if not path.exists():
            raise UserError(f"{origin} {value}: expected {what}, got no such file or folder; check the path.")
        found = path if path.is_file() else find(path)
        if found is None:
            raise UserError(f"{origin} {value}: expected {what} inside, got none of them; check the names.")
        return found
    return find(DATA_FOLDER)


def download(url: str, path: Path, sha256: str, size: int, timeout: float = 10.0) -> Path:
    """Fetch a file with a progress bar; it appears at path only when whole and with the right checksum.

    Args:
        sha256, size: what the file must be, in hex and in bytes.
        timeout: seconds to wait for a connection, and for each piece after it.
    Raises DownloadError where the address cannot be reached or breaks off, UserError for a wrong checksum.
    """
    digest = hashlib.sha256()
    received = 0

    def fetch(file) -> None:
        nonlocal received
        for chunk in _chunks(url, path.name, size, timeout):
            received += len(chunk)
            if received > size:
                raise UserError(f"{url}: expected {size} bytes, got more; the file was not kept.")
            digest.update(chunk)
            file.write(chunk)
        if received < size:
            raise DownloadError(f"{url}: expected {size} bytes, got {received} and then nothing more; try again.")
        if digest.hexdigest() != sha256:
            raise UserError(f"{url}: expected sha256 {sha256}, got {digest.hexdigest()}; the file was not kept.")

    write_atomically(path, fetch)
    return path


def _chunks(url: str, name: str, size: int, timeout: float) -> Iterator[bytes]:
    # A broken connection and a full disk are both OSError; only the former may become a DownloadError.
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=name, leave=False, disable=None)
    try:
        with bar, urllib.request.urlopen(url, timeout=timeout) as response:
            while chunk := response.read(CHUNK):
                bar.update(len(chunk))
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url}: could not be fetched ({reason}); check the network, or give --data.") from error
