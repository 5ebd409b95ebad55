"""What users did, counted as it happens: the statistics of the protocol `online` (preprocessing/statistics.py), live.

A server gives each action to `update` when its label is known, and reads `features` with each request. Both take
microseconds and touch users alone: the index of the items stays as it was built.

Shapes: B users of a call, D numbers of a statistic.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.encode import FIRST_ID, CounterField, TowerEncoder, encoders_as_json, smoothed
from preprocessing.errors import UserError, in_words
from preprocessing.files import write_atomically
from preprocessing.ids import is_whole, places, texts, whole_numbers
from preprocessing.statistics import residuals

FIRST_CAPACITY = 1024
# What numpy and zipfile raise for a file that is none, or is damaged.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    AttributeError,
    NotImplementedError,
    zipfile.BadZipFile,
)


class UserCounters:
    """Sums and counts of each user's labels; they begin as the run's encoders keep them, which is at the split.

    One object may be used by several threads; processes have one each, which their own updates reach.

    Args:
        user_encoder, item_encoder: of a run with --protocol online (or temporal with other --statistics than means).
        items: a row for each item of the catalogue, with the raw columns that the statistics go by; actions on others
            count as on an item of which nothing is known.
    Raises UserError where the run's users have no such statistics, or a column is missing.
    """

    def __init__(self, user_encoder: TowerEncoder, item_encoder: TowerEncoder, items: pd.DataFrame):
        self.fields = [field for field in user_encoder.fields if isinstance(field, CounterField)]
        if not self.fields:
            raise UserError(
                "user counters: expected a run whose users have counters, got none; train with --protocol online."
            )
        self._run = hashlib.sha256(encoders_as_json(user_encoder, item_encoder)).hexdigest()
        self._lock, self._saving = threading.Lock(), threading.Lock()
        self._items = _Items(self.fields, item_encoder, items)
        self._is_whole = is_whole(self.fields[0].keys)
        self._known = self.fields[0].keys
        keys = list(dict.fromkeys(key for field in self.fields for key in field.keys.tolist()))
        self._slot = {key: slot for slot, key in enumerate(keys)}
        self._state = []
        for field in self.fields:
            counts, sums = np.zeros((2, max(len(keys), FIRST_CAPACITY), field.counts.shape[1]))
            slots = [self._slot[key] for key in field.keys.tolist()]
            counts[slots], sums[slots] = field.counts, field.sums
            self._state.append((counts, sums))

    def __len__(self) -> int:
        """How many users have an action."""
        return len(self._slot)

    def update(self, users, items, labels) -> None:
        """Count actions, (B,) each: raw ids, and labels in {0, 1}.

        Raises UserError for lengths that differ, another label, and an id that is refused (preprocessing/ids.py); then
        nothing is counted.
        """
        labels = _labels(labels)
        users, rows = self._ids(users), self._items.rows(items)
        if not len(users) == len(rows) == len(labels):
            raise UserError(
                f"user counters: expected as many users as items and labels, got {len(users)}, {len(rows)} and "
                f"{len(labels)}."
            )
        odd = labels[(labels != 0) & (labels != 1)]
        if len(odd):
            raise UserError(f"user counters: expected labels 0 and 1, got {odd[0]:g}.")
        if None in users:
            raise UserError(f"user counters: expected an id for each user, got none in row {users.index(None)}.")
        left = residuals(labels, self._items.means[rows]) if self._items.means is not None else None
        with self._lock:
            slots = np.array([self._slot.setdefault(user, len(self._slot)) for user in users], dtype=np.int64)
            self._grow()
            for field, (counts, sums) in zip(self.fields, self._state, strict=True):
                values = left if field.measure == "residual" else labels
                if field.by is None:
                    np.add.at(counts[:, 0], slots, 1.0)
                    np.add.at(sums[:, 0], slots, values)
                    continue
                has = self._items.has[field.by][rows]
                np.add.at(counts, slots, has)
                np.add.at(sums, slots, has * values[:, None])

    def features(self, users) -> dict[str, np.ndarray]:
        """The statistics of users as the user tower takes them, by name, (B, D) float32; zeros' for who is new."""
        users = self._ids(users)
        with self._lock:
            slots = np.array([self._slot.get(user, -1) for user in users], dtype=np.int64)
            known = (slots >= 0)[:, None]
            return {
                field.name: field.values(np.where(known, sums[slots], 0.0), np.where(known, counts[slots], 0.0))
                for field, (counts, sums) in zip(self.fields, self._state, strict=True)
            }

    def save(self, path: str | Path) -> None:
        """Write all of it to a file, atomically; updates wait for the copy in memory, not for the disk."""
        with self._saving:  # an older copy does not take a newer one's place
            with self._lock:
                keys, used = list(self._slot), len(self._slot)
                arrays = {
                    f"{kind}_{place}": array[:used].copy()
                    for place, state in enumerate(self._state)
                    for kind, array in zip(("counts", "sums"), state, strict=True)
                }
            file = io.BytesIO()
            np.savez(file, run=np.array(self._run), **self._as_arrays(keys), **arrays)
            write_atomically(path, file.getvalue())

    def restore(self, path: str | Path) -> None:
        """Take what `save` wrote in the place of all that is counted here.

        Raises UserError where the file is none, is damaged, or is of another run; then nothing is changed.
        """
        try:
            with np.load(path, allow_pickle=False) as file:  # its zip archive has checksums
                arrays = {name: file[name] for name in file.files}
            keys, run = _keys(arrays), str(arrays["run"])
            saved = [(arrays[f"counts_{place}"], arrays[f"sums_{place}"]) for place in range(len(self.fields))]
        except _UNREADABLE as error:
            raise UserError(f"{path}: expected user counters that were saved here, got {in_words(error)}.") from error
        if run != self._run:
            raise UserError(
                f"{path}: expected the counters of this run, got another's; start without them, or use its."
            )
        with self._lock:
            self._slot = {key: slot for slot, key in enumerate(keys)}
            self._state = saved
            self._grow()

    def _as_arrays(self, keys: list) -> dict[str, np.ndarray]:
        """The users' ids as they are saved; text as one of bytes, since numpy gives each the longest one's room."""
        if self._is_whole:
            return {"keys": np.array(keys, dtype=np.int64)}
        encoded = [key.encode("utf-8", "surrogatepass") for key in keys]
        ends = np.cumsum([len(key) for key in encoded], dtype=np.int64)
        return {"text": np.frombuffer(b"".join(encoded), dtype=np.uint8), "ends": ends}

    def _ids(self, users) -> list:
        """Users' ids as they are kept; None for what is no id."""
        users = _one_each(users, "users")
        if self._is_whole:
            whole, is_exact = whole_numbers(users if isinstance(users, np.ndarray) else np.asarray(users), "users")
            return [key if exact else None for key, exact in zip(whole.tolist(), is_exact.tolist(), strict=True)]
        return [key if isinstance(key, str) else None for key in list(texts(users, self._known, "users"))]

    def _grow(self) -> None:
        used = len(self._slot)
        for place, (counts, sums) in enumerate(self._state):
            if len(counts) < used:
                grown = np.zeros((2, max(2 * len(counts), used, FIRST_CAPACITY), counts.shape[1]))
                grown[0, : len(counts)], grown[1, : len(sums)] = counts, sums
                self._state[place] = grown[0], grown[1]


def _keys(arrays: dict[str, np.ndarray]) -> list:
    """What `_as_arrays` made arrays of."""
    if "keys" in arrays:  # text too, in a file of an older version
        return arrays["keys"].tolist()
    text, ends = arrays["text"].tobytes(), arrays["ends"].tolist()
    return [text[start:end].decode("utf-8", "surrogatepass") for start, end in zip([0, *ends], ends, strict=False)]


def _one_each(ids, name: str) -> np.ndarray | pd.Series | list | tuple:
    """Ids of one dimension, in whatever a person holds them; a single one is one of them."""
    if not isinstance(ids, np.ndarray | pd.Series | list | tuple):
        if pd.api.types.is_scalar(ids):
            return [ids]
        try:
            ids = pd.Series(ids)
        except (TypeError, ValueError) as error:
            raise UserError(f"user counters: expected {name} as ids, got {type(ids).__name__} ({error}).") from error
    is_nested = isinstance(ids[0], list | tuple | np.ndarray) if isinstance(ids, list | tuple) and ids else False
    if is_nested or (isinstance(ids, np.ndarray) and ids.ndim != 1):
        raise UserError(f"user counters: expected {name} in one dimension, got {type(ids).__name__} of several.")
    return ids


def _labels(labels) -> np.ndarray:
    """(B,) numbers; raises UserError for what is no number."""
    try:
        return np.asarray(labels, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise UserError(f"user counters: expected labels 0 and 1, got others ({error}).") from error


class _Items:
    """What an action on an item adds to its user; the last row is of an item that is not known."""

    def __init__(self, user_fields: list[CounterField], item_encoder: TowerEncoder, items: pd.DataFrame):
        self.id = item_encoder.id_column
        if not isinstance(items, pd.DataFrame):
            raise UserError(f"user counters: expected the items as a DataFrame, got {type(items).__name__}.")
        fields = {field.name: field for field in item_encoder.fields}
        columns = {field.by for field in user_fields if field.by}
        missing = [column for column in (self.id, *sorted(columns)) if column not in items]
        if missing:
            raise UserError(f"user counters: expected a column {missing[0]!r} in items, got {list(items.columns)}.")
        self.known = pd.Index(items[self.id])
        if self.known.has_duplicates:
            repeated = self.known[self.known.duplicated()][0]
            raise UserError(f"user counters: expected each item once, got {self.id} {repeated} twice; keep one.")
        self.has, self.means = {}, None
        for column in columns:
            ids = fields[column].encode(items)
            ids = ids[:, None] if ids.ndim == 1 else ids
            num_values = next(field.counts.shape[1] for field in user_fields if field.by == column)
            has = np.zeros((len(items) + 1, num_values + FIRST_ID))
            np.put_along_axis(has[:-1], ids, 1.0, axis=1)
            self.has[column] = has[:, FIRST_ID:]
        if any(field.measure == "residual" for field in user_fields):
            mean = next((field for field in item_encoder.fields if getattr(field, "measure", None) == "mean"), None)
            if mean is None:
                raise UserError("user counters: expected the mean of each item beside a user's residual, got none.")
            of_item = smoothed(mean.sums[:, 0], mean.counts[:, 0], mean.prior)
            found = places(self.known, mean.keys, self.id)
            self.means = np.append(np.where(found >= 0, of_item[found], mean.prior), mean.prior)

    def rows(self, items) -> np.ndarray:
        """(B,) places of raw ids."""
        return places(np.asarray(_one_each(items, "items")), self.known, self.id)
