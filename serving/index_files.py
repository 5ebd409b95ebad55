"""An item index on disk: segments that never change, and a manifest that says which of them are in force.

    index/
      manifest.json                  of what model, in what form, which segments; replaced as a whole
      <segment>/ids.npy              (N,) whole numbers or text, ascending
      <segment>/heads.npy            (N, G, K), memory-mapped
      <segment>/scales.npy           (N,) float32, for int8
      <segment>/removed-<n>.npy      rows that are no longer in force since generation n
      <segment>/.made-by-an-index    whose folder it is

Whoever updates writes new files and then the manifest, so a reader sees one generation or the next, never half of one.
All files are plain arrays and JSON with checksums; nothing is unpickled. Whatever else lies in the folder stays: only
what a manifest named, or what bears the mark, is removed, and of that only files that an index writes.

Shapes: N items of a segment, G item heads, K head size.
"""

from __future__ import annotations

import json
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocessing.errors import UserError, in_words, is_out_of_memory
from preprocessing.files import (
    TEMPORARY,
    check_links,
    file_checksum,
    locked,
    write_array,
    write_atomically,
    write_blocks,
    write_synced,
)

MANIFEST, LOCK, FORMAT = "manifest.json", ".lock", 2
IDS, HEADS, SCALES = "ids.npy", "heads.npy", "scales.npy"
MARK, PROGRESS = ".made-by-an-index", "progress.json"  # in the folders that an index makes; PROGRESS during a build
_SEGMENT = re.compile(r"segment-[0-9a-f]{12}")
_WRITTEN = re.compile(rf"(ids|heads|scales|removed-\d+)\.npy|progress\.json|\.progress\.json\.(\d+|.*{TEMPORARY})")


@dataclass(frozen=True)
class Form:
    """What an index holds and what it is scored with.

    `checkpoint` is the sha256 of the weights that encoded it (see TrainedRun), `num_user_heads` those of a user that it
    is made for, `bias` what is added to every score, `temperature` that of serving/maxsim.py, for a model that has one.
    """

    model: str
    checkpoint: str
    item_id: str
    dtype: str
    num_user_heads: int
    num_heads: int
    head_dim: int
    bias: float
    temperature: float | None = None


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


def read_manifest(folder: Path, of_any_version: bool = False) -> Manifest:
    """Raises UserError where the folder holds no index, a damaged one, or one of another version.

    `of_any_version`: for who will replace it, and needs to know what is to be removed.
    """
    path = folder / MANIFEST
    try:
        outer = json.loads(path.read_bytes())
        if zlib.crc32(outer["content"].encode()) != outer["checksum"]:
            raise ValueError("its checksum is another")
        content = json.loads(outer["content"])
        if content["format"] != FORMAT and not of_any_version:
            raise UserError(f"{path}: expected format {FORMAT}, got {content['format']}; build the index anew.")
        return Manifest(Form(**content["form"]), content["generation"], content["segments"])
    except FileNotFoundError as error:
        raise UserError(f"{folder}: expected an item index, got no {MANIFEST} in it; build one.") from error
    except UserError:
        raise
    except (OSError, MemoryError) as error:
        raise _unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # It may be the manifest of something else, so nothing is written over it.
        raise UserError(
            f"{path}: expected the manifest of an item index, got a damaged or another one ({error}); if it is of an "
            "index, remove it and build the index anew, else choose another folder."
        ) from error


def _unreadable(path: Path, error: OSError | MemoryError) -> UserError:
    """For a file that may be whole: to build a whole index anew would not help."""
    reason = getattr(error, "strerror", None) or str(error) or "too little memory"
    advice = "give the process more memory" if is_out_of_memory(error) else "check its permissions and the disk"
    return UserError(f"{path}: expected a file of an index that can be read, got {reason!r}; {advice}.")


def next_generation(folder: Path) -> int:
    """The number of the generation that comes after the one in force, 0 where there is none."""
    return read_manifest(folder, of_any_version=True).generation + 1 if (folder / MANIFEST).exists() else 0


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a generation in force, then remove what the one before named and this one does not."""
    before = read_manifest(folder, of_any_version=True).entries if (folder / MANIFEST).exists() else []
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
    _remove_unnamed(folder, before, manifest.entries)


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
            # Read-only: a mapping that could be written to claims memory of its full size, although nothing writes.
            arrays[name] = np.load(place / name, mmap_mode="r" if name == HEADS else None, allow_pickle=False)
        ids, heads, scales = arrays[IDS], arrays[HEADS].view(np.ndarray), arrays.get(SCALES)
        shape = (entry["num_items"], form.num_heads, form.head_dim)
        if heads.shape != shape or heads.dtype != form.dtype or len(ids) != entry["num_items"]:
            raise ValueError(f"heads {heads.shape} of {heads.dtype}, {len(ids)} ids")
        removed = arrays.get(entry["removed"], np.empty(0, np.int64))
        return Segment(entry["name"], ids, heads, scales, removed)
    except FileNotFoundError:
        raise  # a reader that was overtaken by an update, or a damaged index: the caller knows
    except UserError:
        raise
    except (OSError, MemoryError) as error:
        raise _unreadable(place, error) from error
    except (ValueError, KeyError, EOFError) as error:
        raise UserError(f"{place}: expected a whole segment of an index, got {error}; build it anew.") from error


def write_segment(
    folder: Path, form: Form, ids: np.ndarray, heads: Iterable[np.ndarray], scales: np.ndarray | None
) -> dict:
    """Write a segment of items in the order of their ids, heads block by block; returns its entry in the manifest."""
    place = folder / new_name()
    make_marked(place)
    write_array(place / IDS, ids)
    write_blocks(place / HEADS, np.dtype(form.dtype), (len(ids), form.num_heads, form.head_dim), heads)
    if scales is not None:
        write_array(place / SCALES, scales)
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
    check_links(folder)
    with ExitStack() as within:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            within.enter_context(locked(folder / LOCK, when_taken=lambda: None))
        except OSError as error:
            raise UserError(
                f"{folder}: expected a folder that an index can be written to, got {in_words(error)}; check the path."
            ) from error
        yield


def make_marked(place: Path) -> None:
    """Make a folder that `is_made` tells from one of others; an empty one may be there, as a kill leaves it."""
    place.mkdir(parents=True, exist_ok=True)
    write_synced(place / MARK, [b"A part of an item index, which removes it when it is no longer needed.\n"])


def is_made(place: Path) -> bool:
    """Whether an index made this folder, and not somebody else."""
    return (place / MARK).is_file() and not place.is_symlink()


def remove_made(place: Path) -> None:
    """Remove what an index wrote into a folder that it made, then the folder, unless something else is in it.

    Who has a file open keeps what it reads: the system frees it when the last reader lets go.
    """
    for file in place.iterdir():
        if _WRITTEN.fullmatch(file.name):
            _unlink(file)
    _unlink(place / MARK)  # last: whoever is stopped before can go on
    with suppress(OSError):
        place.rmdir()


def _remove_unnamed(folder: Path, before: list[dict], entries: list[dict]) -> None:
    """Remove segments and files that no entry names: those of the generation before, and what a killed writer left."""
    named = {entry["name"]: entry["checksums"].keys() for entry in entries}
    known = {entry["name"] for entry in before}  # an older version made them without a mark
    for place in folder.glob("segment-*"):
        if place.name in named:
            for file in place.iterdir():
                if _WRITTEN.fullmatch(file.name) and file.name not in named[place.name]:
                    _unlink(file)
        elif _SEGMENT.fullmatch(place.name) and (is_made(place) or (place.name in known and place.is_dir())):
            remove_made(place)
        elif _SEGMENT.fullmatch(place.name):
            with suppress(OSError):
                place.rmdir()  # only an empty one: a kill may come before it is marked, or after the mark is gone


def _unlink(file: Path) -> None:
    with suppress(OSError):
        os.unlink(file)
