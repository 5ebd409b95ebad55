"""A dataset's files from their public address."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from preprocessing.errors import UserError
from preprocessing.files import write_atomically

CHUNK = 2**16


class DownloadError(UserError):
    """The file could not be fetched; nothing was left behind."""


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
        raise DownloadError(
            f"{url}: could not be fetched ({reason}); check the network, or put the file into data/."
        ) from error
    if expected is not None and received < expected:
        raise DownloadError(f"{url}: expected {expected} bytes, got {received} and then nothing more; try again.")
