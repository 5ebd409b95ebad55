"""Encoded tables on disk: built once, read as memory-mapped files, rebuilt where anything is wrong with them.

A cache is a folder of .npy files and a manifest of JSON. It appears whole or not at all, and is used only where the
fingerprint of raw files and settings, the code of preprocessing/ and the checksum of every file agree.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from preprocessing.choices import GIB
from preprocessing.encode import encoders_as_json, load_encoders
from preprocessing.errors import UserError, in_words
from preprocessing.files import chunks, file_checksum, locked, write_array, write_synced
from preprocessing.space import OnDisk
from preprocessing.tables import SPLITS, Dataset, Lookup, Table, tensor_of

MANIFEST, ENCODERS = "manifest.json", "encoders.json"


class _Damaged(Exception):
    """What stands in the folder cannot be used; the text says why."""


def cached(
    folder: str | Path | None, name: str, fingerprint: str, build: Callable[..., Dataset], memory: float | None = None
) -> Dataset:
    """The dataset that `build` makes, from the cache where it holds it, else built and kept there.

    Processes that start at once wait for the first to build. A cache that is damaged, half-written or made by other
    code is replaced, with a line saying so.

    Args:
        folder: where caches lie; None builds and keeps nothing.
        name: what the folder of this one is called, before its fingerprint.
        build: is called with nothing, or, where memory is bounded, with the place for its rows.
        memory: in GiB, which a build is to keep to.
    Raises UserError where the disk refuses.
    """
    if folder is None:
        return build()
    place = Path(folder) / f"{name}-{fingerprint[:12]}"
    with _only_process(place):
        if place.exists():
            try:
                return _load(place, fingerprint)
            except _Damaged as reason:
                print(f"cache {place}: {reason}; building it anew.", flush=True)
        # Nobody else builds here now, so whatever a killed process left may go.
        for left in place.parent.glob(f".{place.name}.building*"):
            shutil.rmtree(left, ignore_errors=True)
        building = place.with_name(f".{place.name}.building{os.getpid()}")
        try:
            space = None if memory is None else OnDisk(building, memory * GIB)
            data = build() if space is None else build(space)
            with _disk_errors(place):
                _save(building, place, data, [] if space is None else space.close())
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return _load(place, fingerprint)


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cache {place}: could not be kept ({error.strerror or error}); free some space, or use --no-cache."
        ) from error


def sha256_of_files(paths: list[Path]) -> str:
    """One sha256, in hex, over the contents of files in their order."""
    digests = []
    total = sum(path.stat().st_size for path in paths)
    with tqdm(total=total, desc="fingerprint", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for path in paths:
            digest = hashlib.sha256()
            for chunk in chunks(path):
                digest.update(chunk)
                bar.update(len(chunk))
            digests.append(digest.digest())
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _sha256_of_code() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# Who edits a field must not get yesterday's tables. Taken at import: a file may be edited while its older code runs.
CODE = _sha256_of_code()


def _save(building: Path, place: Path, data: Dataset, written: list[tuple[np.ndarray, str]]) -> None:
    """Put a dataset into a folder, but for its arrays that were written there, and that in its place."""
    building.mkdir(parents=True, exist_ok=True)
    files = {_memory_of(array): name for array, name in written}

    def store(array: np.ndarray) -> str:
        # Splits share tables, and a split's groups are the index of its users: each is written once.
        key = _memory_of(array)
        if key not in files:
            files[key] = f"{len(files)}.npy"
            write_array(building / files[key], array)
        return files[key]

    def describe(table: Table) -> dict:
        features = {
            name: [store(f.values.numpy()), store(f.index.numpy())] if isinstance(f, Lookup) else [store(f.numpy())]
            for name, f in table.features.items()
        }
        arrays = {"labels": table.labels.numpy(), "groups": table.groups, "rows": table.rows}
        return {"features": features, **{name: store(array) for name, array in arrays.items()}}

    write_synced(building / ENCODERS, [encoders_as_json(data.user_encoder, data.item_encoder)])
    manifest = {
        "fingerprint": data.fingerprint,
        "code": CODE,
        "name": data.name,
        "protocol": data.protocol,
        "labels_leak": data.labels_leak,
        "counts": data.counts,
        "probabilities": None if data.probabilities is None else store(data.probabilities),
        "earlier": None if data.earlier is None else store(data.earlier),
        "tables": {split: describe(getattr(data, split)) for split in SPLITS},
    }
    manifest["checksums"] = {name: file_checksum(building / name) for name in [*files.values(), ENCODERS]}
    content = json.dumps(manifest)
    checked = {"checksum": zlib.crc32(content.encode()), "content": content}
    write_synced(building / MANIFEST, [json.dumps(checked).encode()])
    if place.exists():
        shutil.rmtree(place)
    building.rename(place)


def _memory_of(array: np.ndarray) -> tuple:
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


def _load(place: Path, fingerprint: str) -> Dataset:
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        if zlib.crc32(manifest["content"].encode()) != manifest["checksum"]:
            raise _Damaged(f"expected the checksum {manifest['checksum']} of {MANIFEST}, got another")
        manifest = json.loads(manifest["content"])
        if manifest["fingerprint"] != fingerprint:
            raise _Damaged("expected the fingerprint of these raw files and settings, got another")
        if manifest["code"] != CODE:
            raise _Damaged("it was made by other code of preprocessing/")
        for name, checksum in manifest["checksums"].items():
            if file_checksum(place / name) != checksum:
                raise _Damaged(f"expected the checksum {checksum} of {name}, got another")
        opened: dict[str, Tensor] = {}

        def read(name: str) -> Tensor:
            if name not in opened:
                opened[name] = _memory_mapped(place / name)
            return opened[name]

        def table(entry: dict) -> Table:
            features = {
                name: Lookup(*map(read, stored)) if len(stored) == 2 else read(stored[0])
                for name, stored in entry["features"].items()
            }
            return Table(features, read(entry["labels"]), read(entry["groups"]).numpy(), read(entry["rows"]).numpy())

        probabilities, earlier = manifest["probabilities"], manifest["earlier"]
        user_encoder, item_encoder = load_encoders(place / ENCODERS)
        return Dataset(
            name=manifest["name"],
            protocol=manifest["protocol"],
            labels_leak=manifest["labels_leak"],
            **{split: table(manifest["tables"][split]) for split in SPLITS},
            user_encoder=user_encoder,
            item_encoder=item_encoder,
            fingerprint=fingerprint,
            counts=manifest["counts"],
            probabilities=None if probabilities is None else read(probabilities).numpy(),
            earlier=None if earlier is None else read(earlier).numpy(),
        )
    except FileNotFoundError as error:
        raise _Damaged(f"expected a whole cache, got no {Path(error.filename).name}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged(f"expected a whole cache, got {in_words(error)}") from error


def _memory_mapped(path: Path) -> Tensor:
    return tensor_of(np.load(path, mmap_mode="r", allow_pickle=False))


@contextmanager
def _only_process(place: Path) -> Iterator[None]:
    """One process at a time within the block, others wait."""

    def say() -> None:
        with suppress(OSError):  # nobody reads it: that says nothing of the cache's disk
            print(f"cache {place}: another process builds or checks it; waiting.", flush=True)

    with ExitStack() as entered:
        with _disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            entered.enter_context(locked(place.with_name(f".{place.name}.lock"), say))
        yield
