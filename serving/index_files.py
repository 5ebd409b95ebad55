"""An item index on disk: segments that never change, and a manifest that says which of them are in force.

    index/
      manifest.json                  of what model, in what form, which segments; replaced as a whole
      <segment>/ids.npy              (N,) whole numbers or text, ascending
      <segment>/heads.npy            (G, N, K), memory-mapped
      <segment>/scales.npy           (N,) float32, for int8
      <segment>/removed-<n>.npy      rows that are no longer in force since generation n

Whoever updates writes new files and then the manifest, so a reader sees one generation or the next, never half of one.
All files are plain arrays and JSON with checksums; nothing is unpickled.

Shapes: N items of a segment, G item heads, K head size.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocessing.errors import UserError
from preprocessing.files import file_checksum, write_array, write_atomically

MANIFEST, LOCK, FORMAT = "manifest.json", ".lock", 1
IDS, HEADS, SCALES = "ids.npy", "heads.npy", "scales.npy"


@dataclass(frozen=True)
class Form:
    """What an index holds and what it is scored with.

    `checkpoint` is the sha256 of the weights that encoded it (see TrainedRun), `num_user_heads` those of a user that it
    is made for, `bias` what is added to every score.
    """

    model: str
    checkpoint: str
    item_id: str
    dtype: str
    num_user_heads: int
    num_heads: int
    head_dim: int
    bias: float


@dataclass(frozen=True)
class Segment:
    """Items that were written together. `removed` are the rows that a later update replaced or removed, ascending."""

    name: str
    ids: np.ndarray
    heads: np.ndarray
    scales: np.ndarray | None
    removed: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def in_force(self) -> np.ndarray:
        """(N,) False for a removed row."""
        kept = np.ones(len(self), dtype=bool)
        kept[self.removed] = False
        return kept


@dataclass(frozen=True)
class Manifest:
    """A generation of an index: its form, and an entry for each segment with the checksums of its files."""

    form: Form
    generation: int
    entries: list[dict]


def read_manifest(folder: Path) -> Manifest:
    """Raises UserError where the folder holds no index, a damaged one, or one of another version."""
    path = folder / MANIFEST
    try:
        outer = json.loads(path.read_bytes())
        if zlib.crc32(outer["content"].encode()) != outer["checksum"]:
            raise ValueError("its checksum is another")
        content = json.loads(outer["content"])
        if content["format"] != FORMAT:
            raise UserError(f"{path}: expected format {FORMAT}, got {content['format']}; build the index anew.")
        return Manifest(Form(**content["form"]), content["generation"], content["segments"])
    except FileNotFoundError as error:
        raise UserError(f"{folder}: expected an item index, got no {MANIFEST} in it; build one.") from error
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: expected the manifest of an item index, got a damaged one ({error}); build it anew."
        ) from error


def next_generation(folder: Path) -> int:
    """The number of the generation that comes after the one in force, 0 where there is none."""
    return read_manifest(folder).generation + 1 if (folder / MANIFEST).exists() else 0


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a generation in force, then remove what it no longer names."""
    content = json.dumps(
        {
            "format": FORMAT,
            "form": vars(manifest.form),
            "generation": manifest.generation,
            "segments": manifest.entries,
        }
    )
    outer = {"checksum": zlib.crc32(content.encode()), "content": content}
    write_atomically(folder / MANIFEST, json.dumps(outer).encode())
    _remove_unnamed(folder, manifest.entries)


def open_segment(folder: Path, entry: dict, form: Form, verify: bool = True) -> Segment:
    """Map a segment into memory; with `verify`, after its checksums were compared.

    Raises UserError where a file is missing, cut short or altered.
    """
    place = folder / entry["name"]
    try:
        arrays = {}
        for name, expected in entry["checksums"].items():
            if verify and file_checksum(place / name) != expected:
                raise UserError(f"{place / name}: expected the checksum {expected}, got another; build the index anew.")
            # Mapped so that a write would stay in memory: nothing writes, and torch takes no array that is read-only.
            arrays[name] = np.load(place / name, mmap_mode="c" if name == HEADS else None, allow_pickle=False)
        ids, heads, scales = arrays[IDS], arrays[HEADS].view(np.ndarray), arrays.get(SCALES)
        shape = (form.num_heads, entry["num_items"], form.head_dim)
        if heads.shape != shape or heads.dtype != form.dtype or len(ids) != entry["num_items"]:
            raise ValueError(f"heads {heads.shape} of {heads.dtype}, {len(ids)} ids")
        removed = arrays.get(entry["removed"], np.empty(0, np.int64))
        return Segment(entry["name"], ids, heads, scales, removed)
    except FileNotFoundError:
        raise  # a reader that was overtaken by an update, or a damaged index: the caller knows
    except UserError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{place}: expected a whole segment of an index, got {error}; build it anew.") from error


def write_segment(folder: Path, ids: np.ndarray, heads: np.ndarray, scales: np.ndarray | None) -> dict:
    """Write a segment of items in the order of their ids; returns its entry in the manifest."""
    place = folder / new_name()
    place.mkdir(parents=True)
    arrays = {IDS: ids, HEADS: heads} | ({} if scales is None else {SCALES: scales})
    for name, array in arrays.items():
        write_array(place / name, array)
    return segment_entry(place)


def segment_entry(place: Path) -> dict:
    """The manifest's entry of a segment whose files are written."""
    checksums = {name: file_checksum(place / name) for name in (IDS, HEADS, SCALES) if (place / name).exists()}
    num_items = len(np.load(place / IDS, mmap_mode="r", allow_pickle=False))
    return {"name": place.name, "num_items": num_items, "checksums": checksums, "removed": None}


def with_removed(folder: Path, entry: dict, removed: np.ndarray, generation: int) -> dict:
    """The entry of a segment of which these rows are no longer in force."""
    name = f"removed-{generation}.npy"
    write_array(folder / entry["name"] / name, removed)
    checksums = {kept: value for kept, value in entry["checksums"].items() if kept != entry["removed"]}
    return entry | {"removed": name, "checksums": checksums | {name: file_checksum(folder / entry["name"] / name)}}


def new_name() -> str:
    """A name that no segment has had."""
    return f"segment-{uuid.uuid4().hex[:12]}"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """One writer at a time within the block, others wait; the system lets go of the lock when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "wb") as file:
        if sys.platform != "win32":  # no such locks there: keep to one writer
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unnamed(folder: Path, entries: list[dict]) -> None:
    """Remove the segments and files that no entry names: older ones, and what a killed writer left.

    Who has them open keeps what it reads: the system frees them when the last reader lets go.
    """
    named = {entry["name"]: entry["checksums"].keys() for entry in entries}
    for place in folder.glob("segment-*"):
        if place.name not in named:
            shutil.rmtree(place, ignore_errors=True)
            continue
        for file in place.iterdir():
            if file.name not in named[place.name]:
                with suppress(OSError):
                    os.unlink(file)
