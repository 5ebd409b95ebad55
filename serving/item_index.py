"""Items encoded ahead, kept in a folder: scored for a user, ranked, and updated while others read.

numpy alone: neither torch nor the model is needed to score. A user is what `TrainedRun.encode_users` or an exported
user tower gives: heads (Q, K), or (B, Q, K) for a batch of users. serving/build_index.py makes an index of a run.

Shapes: B users, Q user heads, N items, C candidates, G item heads, K head size.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.errors import UserError
from serving.index_files import (
    Form,
    Manifest,
    Segment,
    next_generation,
    only_writer,
    open_segment,
    read_manifest,
    with_removed,
    write_manifest,
    write_segment,
)
from serving.item_ids import RowOfId, as_given, as_ids
from serving.merging import Part, left_of, merged
from serving.quantisation import check_finite, quantise
from serving.scorer import Scorer, scorer_called

CHUNK = 2**14  # scores among which the best are looked for at once
USERS_AT_ONCE = 16  # whose scores of all items are held at once


class ItemIndex:
    """An index in a folder, as it was when it was opened or last refreshed.

    Requests may come from several threads, beside updates from others: each sees one generation.

    Args:
        folder: where the index stands.
        checkpoint: the `checkpoint` of the TrainedRun whose users will be scored; None takes an index of any.
        verify: compare the checksums of all files, which reads them once.
        scorer: "numpy", "compiled", "torch", or the "fastest" of them on this machine; see serving/scorer.py.
    Raises UserError where the folder holds no index, a damaged one, or one of other weights.
    """

    def __init__(self, folder: str | Path, checkpoint: str | None = None, verify: bool = True, scorer: str = "numpy"):
        self.folder, self.checkpoint, self.verify, self.scorer = Path(folder), checkpoint, verify, scorer
        self._refreshing = threading.Lock()
        self._snapshot = self._open(None)

    @property
    def form(self) -> Form:
        """What model the items are of, and in what form."""
        return self._snapshot.manifest.form

    @property
    def generation(self) -> int:
        """Counts the updates."""
        return self._snapshot.manifest.generation

    @property
    def ids(self) -> np.ndarray:
        """The ids of all items, ascending."""
        snapshot = self._snapshot
        return np.sort(snapshot.ids[snapshot.in_force])

    @property
    def segments(self) -> list[Segment]:
        """What the items lie in, opened, to be read."""
        return list(self._snapshot.segments)

    @property
    def bytes_per_item(self) -> int:
        """Of heads and scale, without the id."""
        form = self.form
        scale = 4 if form.dtype == "int8" else 0
        return form.num_heads * form.head_dim * np.dtype(form.dtype).itemsize + scale

    def __len__(self) -> int:
        return self._snapshot.num_in_force

    def __reduce__(self) -> tuple:
        # A copy, also in another process, opens the folder and sees what is in force there: no heads are sent.
        return ItemIndex, (self.folder.absolute(), self.checkpoint, self.verify, self.scorer)

    def __contains__(self, item_id) -> bool:
        return bool(self._snapshot.rows_of([item_id])[0] >= 0)

    def refresh(self) -> bool:
        """See what others have updated since; returns whether there was anything."""
        with self._refreshing:  # what one thread has opened does not take the place of what came after it
            snapshot = self._open(self._snapshot)
            is_another = snapshot is not self._snapshot
            self._snapshot = snapshot
        return is_another

    def score(self, user: np.ndarray, candidate_ids: np.ndarray | list, out: np.ndarray | None = None) -> np.ndarray:
        """Logits of candidates: (C,) for one user, (B, C) for a batch; -inf for an id that is not in the index.

        Args:
            user: heads (Q, K) of one user, or (B, Q, K).
            candidate_ids: (C,) for all users, or (B, C); an id may occur twice.
            out: (C,) or (B, C) float32, where the scores go and what is returned; a new array without it.
        Raises UserError for heads of another shape, or heads that are not finite, and for another `out`.
        """
        snapshot = self._snapshot
        users, is_one = self._users(user, snapshot.manifest.form)
        candidate_ids = as_given(candidate_ids)
        is_list_for_each = candidate_ids.ndim == 2 and not is_one and len(candidate_ids) == len(users)
        if candidate_ids.ndim != 1 and not is_list_for_each:
            raise UserError(
                f"candidate_ids: expected a list of ids, or one for each of {len(users)} users, got an array of shape "
                f"{candidate_ids.shape}."
            )
        shape = (len(users), candidate_ids.shape[-1])
        if out is None:
            out = np.empty(shape[1:] if is_one else shape, np.float32)
        else:
            _check_out(out, shape[1:] if is_one else shape)
            users = users.copy() if np.may_share_memory(users, out) else users
        scores = out.reshape(shape)
        if is_list_for_each:
            for user, ids, of_user in zip(users, candidate_ids, scores, strict=True):
                snapshot.score(user[None], snapshot.rows_of(ids), of_user[None])
        else:
            snapshot.score(users, snapshot.rows_of(candidate_ids), scores)
        return out

    def top_k(self, user: np.ndarray, k: int, candidates: np.ndarray | list | None = None) -> TopK | list[TopK]:
        """The k items with the highest logits, the highest first; equal ones by id, ascending.

        Exact. Fewer than k come back where there are fewer; an id that is not in the index is passed over, one that
        occurs twice counts once.

        Args:
            user: heads (Q, K), for which one TopK comes back, or (B, Q, K), for which a list of them does.
            candidates: (C,) ids to choose from; None chooses from all items.
        Raises UserError for a k that is no whole number of at least 1, or heads of another shape or not finite.
        """
        if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
            raise UserError(f"k: expected a whole number of at least 1, got {k!r}.")
        snapshot = self._snapshot
        users, is_one = self._users(user, snapshot.manifest.form)
        rows = None
        if candidates is not None:
            rows = _distinct(snapshot, candidates, "candidates")
        best = []
        for start in range(0, len(users), USERS_AT_ONCE):
            for scores in snapshot.score(users[start : start + USERS_AT_ONCE], rows):
                ids = snapshot.ids if rows is None else snapshot.ids[rows]
                places = best_places(scores, ids, k)
                best.append(TopK(ids[places], scores[places]))
        return best[0] if is_one else best

    def put(self, ids: np.ndarray | list, heads: np.ndarray) -> None:
        """Add items, or replace those whose ids are there; readers see all of them or none.

        Args:
            ids: (N,), each once.
            heads: (N, G, K) as `TrainedRun.encode_items` gives them.
        Raises UserError for other shapes, an id that occurs twice, or numbers that are not finite.
        """
        with only_writer(self.folder):
            current = self._open(self._snapshot)
            ids, heads, scales = _checked(ids, heads, current)
            if len(ids):
                self._publish(current, ids, heads, scales)
        self.refresh()

    def remove(self, ids: np.ndarray | list) -> int:
        """Remove items; returns how many were there."""
        with only_writer(self.folder):
            current = self._open(self._snapshot)
            rows = _distinct(current, ids, "ids")
            if len(rows):
                form = current.manifest.form
                nothing = np.empty((0, form.num_heads, form.head_dim), np.float32)
                self._publish(current, current.ids[:0], *quantise(nothing, form.dtype), leaving=rows)
        self.refresh()
        return len(rows)

    def _publish(self, current: _Snapshot, ids, heads, scales, leaving: np.ndarray | None = None) -> None:
        """Write a generation in which some items are put and some rows are gone.

        Small segments are merged as they come, so that there are never more than a few: what is written joins those
        before it that are not more than twice its size, and a segment of which most is removed is written anew.
        """
        generation = current.manifest.generation + 1
        if leaving is None:
            rows = current.rows_of(ids)
            leaving = np.sort(rows[rows >= 0])
        entries, joined = [], [Part(ids, heads, scales, np.arange(len(ids)))]
        for entry, segment, first in zip(current.manifest.entries, current.segments, current.firsts, strict=True):
            local = leaving[(leaving >= first) & (leaving < first + len(segment))] - first
            removed = np.union1d(segment.removed, local)
            if 2 * len(removed) > len(segment):
                joined.append(left_of(segment, removed))
            elif len(local):
                entries.append((with_removed(self.folder, entry, removed, generation), segment, removed))
            else:
                entries.append((entry, segment, removed))
        size = sum(len(part.ids) for part in joined)
        while size and entries and len(entries[-1][1]) - len(entries[-1][2]) <= 2 * size:
            _, segment, removed = entries.pop()
            joined.append(left_of(segment, removed))
            size += len(joined[-1].ids)
        kept = [entry for entry, _, _ in entries]
        if size:
            kept.append(write_segment(self.folder, current.manifest.form, *merged(joined)))
        write_manifest(self.folder, Manifest(current.manifest.form, generation, kept))

    def _open(self, known: _Snapshot | None) -> _Snapshot:
        """The generation that is in force now; segments that are open already are not read again."""
        while True:
            manifest = read_manifest(self.folder)
            if self.checkpoint is not None and manifest.form.checkpoint != self.checkpoint:
                raise UserError(
                    f"{self.folder}: expected an index of the weights that encode the users ({self.checkpoint[:12]}), "
                    f"got one of others ({manifest.form.checkpoint[:12]}); build it anew."
                )
            if known is not None and known.manifest == manifest:
                return known
            opened = {} if known is None else known.opened()
            try:
                segments = [
                    opened.get(_key(entry)) or open_segment(self.folder, entry, manifest.form, self.verify)
                    for entry in manifest.entries
                ]
            except FileNotFoundError as error:
                if read_manifest(self.folder) == manifest:
                    raise UserError(
                        f"{error.filename}: expected a file of the index, got none; build the index anew."
                    ) from error
                continue  # an update came in between and removed what it replaced
            form = manifest.form
            if known is not None and known.manifest.form == form:
                maxsim = known.maxsim
            else:
                maxsim = scorer_called(
                    self.scorer, form.num_user_heads, form.num_heads, form.head_dim, form.temperature
                )
            return _Snapshot(manifest, segments, maxsim)

    def _users(self, user: np.ndarray, form: Form) -> tuple[np.ndarray, bool]:
        """(B, Q, K) float32, and whether it was one user's."""
        users = np.asarray(user, dtype=np.float32)
        is_one = users.ndim == 2
        users = users[None] if is_one else users
        if users.shape[1:] != (form.num_user_heads, form.head_dim):
            raise UserError(
                f"user: expected heads of shape ({form.num_user_heads}, {form.head_dim}), or a batch of them, got "
                f"{np.shape(user)}; encode the user with the run that the index is of."
            )
        if not np.isfinite(users).all():
            raise UserError("user: expected finite heads, got NaN or infinite ones; look at the user's features.")
        return users, is_one


@dataclass(frozen=True)
class TopK:
    """The best items of a user, the best first: `ids` (k,) and their `scores` (k,), which are logits."""

    ids: np.ndarray
    scores: np.ndarray


def create_index(folder: str | Path, form: Form) -> None:
    """An index without items, in place of any that stood there."""
    folder = Path(folder)
    with only_writer(folder):
        write_manifest(folder, Manifest(form, next_generation(folder), []))


def best_places(scores_N: np.ndarray, ids_N: np.ndarray, k: int) -> np.ndarray:
    """Where the k highest scores stand, the highest first, equal ones by id; those of -inf are passed over."""
    found, least = np.empty(0, np.int64), np.finfo(np.float32).min
    for start in range(0, len(scores_N), CHUNK):
        # Once there are k, few of a chunk reach the last of them.
        reaching = np.flatnonzero(scores_N[start : start + CHUNK] >= least)
        if not len(reaching):
            continue
        found = np.append(found, reaching + start)
        scores = scores_N[found]
        if len(found) > k:
            found = found[scores >= np.partition(scores, len(scores) - k)[len(scores) - k]]
            least = scores_N[found].min()
        # Ties may pile up beyond k: they are settled by id here, and once more with those to come.
        found = found[np.lexsort((ids_N[found], -scores_N[found]))][:k]
    return found


class _Snapshot:
    """One generation, opened. Rows are numbered through all segments, those that are removed included."""

    def __init__(self, manifest: Manifest, segments: list[Segment], maxsim: Scorer):
        self.manifest, self.segments, self.maxsim = manifest, segments, maxsim
        sizes = [len(segment) for segment in segments]
        self.firsts = [int(first) for first in np.cumsum([0, *sizes])[:-1]]
        ids = [segment.ids for segment in segments]
        self.ids = np.concatenate(ids) if ids else np.empty(0, np.int64)
        kept = [segment.in_force() for segment in segments]
        self.in_force = np.concatenate(kept) if kept else np.empty(0, bool)
        self.num_in_force = int(self.in_force.sum())
        self._row_of_id = RowOfId(self.ids, np.flatnonzero(self.in_force))

    def opened(self) -> dict[tuple, Segment]:
        """The open segments by what their entries say of them."""
        return {_key(entry): segment for entry, segment in zip(self.manifest.entries, self.segments, strict=True)}

    def rows_of(self, ids) -> np.ndarray:
        """(C,) the row of each id, -1 where it is not in the index."""
        return self._row_of_id(as_given(ids))

    def score(self, users_BQK: np.ndarray, rows: np.ndarray | None, out: np.ndarray | None = None) -> np.ndarray:
        """Logits (B, C) of rows, or (B, N) of all where `rows` is None; -inf for row -1 and for removed rows."""
        size = len(self.ids) if rows is None else len(rows)
        scores = np.empty((len(users_BQK), size), np.float32) if out is None else out
        lowest, highest = (0, len(self.ids) - 1) if rows is None or not size else (rows.min(), rows.max())
        if lowest < 0:
            scores[:, rows < 0] = -np.inf
        for segment, first in zip(self.segments, self.firsts, strict=True):
            last = first + len(segment) - 1
            if rows is None:
                self.maxsim(users_BQK, segment.heads, segment.scales, None, scores[:, first : last + 1])
            elif first <= lowest and highest <= last:  # the common case: all candidates are in one segment
                self.maxsim(users_BQK, segment.heads, segment.scales, rows - first if first else rows, scores)
            elif len(here := np.flatnonzero((rows >= first) & (rows <= last))):
                scores[:, here] = self.maxsim(users_BQK, segment.heads, segment.scales, rows[here] - first, None)
        scores += np.float32(self.manifest.form.bias)
        if rows is None and self.num_in_force < size:
            scores[:, ~self.in_force] = -np.inf
        return scores


def _check_out(out: np.ndarray, shape: tuple) -> None:
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32 or not out.flags.writeable:
        got = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise UserError(f"out: expected an array of float32 of shape {shape} that can be written to, got {got}.")


def _distinct(snapshot: _Snapshot, ids, name: str) -> np.ndarray:
    """The rows of those ids that are in the index, each once; raises UserError for what is no list of ids."""
    ids = as_given(ids)
    if ids.ndim != 1:
        raise UserError(f"{name}: expected a list of ids, got an array of shape {ids.shape}.")
    rows = np.sort(snapshot.rows_of(ids))
    is_first = np.ones(len(rows), bool)  # np.unique would hash them before, which takes three times as long
    np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
    return rows[is_first & (rows >= 0)]


def _key(entry: dict) -> tuple:
    return entry["name"], entry["removed"]


def _of_kind(ids, known: np.ndarray) -> pd.Index | None:
    """Those known ids that tell of what kind new ones are to be; None where there are none, or nothing is new."""
    if not len(ids) or not len(known):
        return None
    # A number may be text that has lost its zeros, for which all are looked through; else one tells.
    is_number = known.dtype.kind != "i" and pd.api.types.infer_dtype(ids, skipna=False) != "string"
    return pd.Index(known if is_number else known[:1])


def _checked(ids, heads: np.ndarray, current: _Snapshot) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """New items in the order of their ids, in the index's own types."""
    form = current.manifest.form
    ids, heads = as_ids(ids, _of_kind(ids, current.ids)), np.asarray(heads, dtype=np.float32)
    if heads.shape != (len(ids), form.num_heads, form.head_dim):
        raise UserError(
            f"heads: expected shape ({len(ids)}, {form.num_heads}, {form.head_dim}), got {heads.shape}; encode the "
            "items with the run that the index is of."
        )
    check_finite(heads, ids)
    order = np.argsort(ids, kind="stable")
    return ids[order], *quantise(heads[order], form.dtype)
