"""Segments of an item index as one, without their heads in memory: those of a large index may not fit.

Shapes: N items, G heads, K head size, M items of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from serving.index_files import Segment

MERGED_AT_ONCE = 2**16  # items whose heads are held while they are written


@dataclass(frozen=True)
class Part:
    """Items that go into a segment: heads[rows] are theirs, and are read as they are written."""

    ids: np.ndarray
    heads: np.ndarray
    scales: np.ndarray | None
    rows: np.ndarray


def left_of(segment: Segment, removed: np.ndarray) -> Part:
    """What of a segment stays when rows are removed."""
    kept = np.delete(np.arange(len(segment)), removed)
    scales = None if segment.scales is None else segment.scales[kept]
    return Part(segment.ids[kept], segment.heads, scales, kept)


def merged(parts: list[Part]) -> tuple[np.ndarray, Iterator[np.ndarray], np.ndarray | None]:
    """Items of several parts as one, in the order of their ids: ids (N,), heads in blocks (M, G, K), scales (N,)."""
    parts = [part for part in parts if len(part.ids)]
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    scales = None if parts[0].scales is None else np.concatenate([part.scales for part in parts])[order]
    part_of = np.repeat(np.arange(len(parts)), [len(part.ids) for part in parts])[order]
    row_of = np.concatenate([part.rows for part in parts])[order]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(ids), MERGED_AT_ONCE):
            here, rows = part_of[start : start + MERGED_AT_ONCE], row_of[start : start + MERGED_AT_ONCE]
            block = np.empty((len(rows), *parts[0].heads.shape[1:]), parts[0].heads.dtype)
            for number, part in enumerate(parts):
                places = np.flatnonzero(here == number)
                block[places] = part.heads[rows[places]]
            yield block

    return ids[order], blocks(), scales
