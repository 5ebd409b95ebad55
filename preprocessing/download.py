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


def find_data(
    named: str | None, find: Callable[[Path], Path | None], what: str, advice: str = "Check the names."
) -> Path | None:
    """The first place that holds a dataset: `named`, else $INTTOWER_DATA, else data/; None if data/ has none.

    Args:
        named: the value of --data, a file or a folder.
        find: gives the dataset's own path inside a folder, or None.
        what, advice: what is looked for and what to do where it is not there, for the message.
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
            raise UserError(f"{origin} {value}: expected {what} inside, got none of them. {advice}")
        return found
    return find(DATA_FOLDER)


def download(url: str, path: Path, sha256: str | None = None, size: int | None = None, timeout: float = 10.0) -> Path:
    """Fetch a file with a progress bar; it appears at path only when whole and with the right checksum.

    Args:
        sha256, size: what the file must be, in hex and in bytes; without a size, what the server says it is.
        timeout: seconds to wait for a connection, and for each piece after it.
    Raises DownloadError where the address cannot be reached or breaks off, UserError for a wrong checksum.
    """
    digest = hashlib.sha256()

    def fetch(file) -> None:
        for chunk in _chunks(url, path.name, size, timeout):
            digest.update(chunk)
            file.write(chunk)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise UserError(f"{url}: expected sha256 {sha256}, got {digest.hexdigest()}; the file was not kept.")

    write_atomically(path, fetch)
    return path


def _chunks(url: str, name: str, size: int | None, timeout: float) -> Iterator[bytes]:
    received = 0
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=name, leave=False, disable=None)
    # A broken connection and a full disk are both OSError; only the former may become a DownloadError.
    try:
        with bar, urllib.request.urlopen(url, timeout=timeout) as response:
            expected = bar.total = response.length if size is None else size
            while chunk := response.read(CHUNK):
                received += len(chunk)
                if expected is not None and received > expected:
                    raise UserError(f"{url}: expected {expected} bytes, got more; the file was not kept.")
                bar.update(len(chunk))
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url}: could not be fetched ({reason}); check the network, or give --data.") from error
    if expected is not None and received < expected:
        raise DownloadError(f"{url}: expected {expected} bytes, got {received} and then nothing more; try again.")
