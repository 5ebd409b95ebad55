"""What a finished run knows of ids: vocabularies that new data only add to, so that its weights keep their rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.encode import (
    FIRST_ID,
    OOV,
    CrossField,
    Field,
    SparseField,
    TowerEncoder,
    VarLenField,
    encode,
    fit_vocabulary,
    load_encoders,
)


@dataclass
class Known:
    """The encoders of a finished run; `checksum` is the sha256 of their file."""

    towers: dict[str, TowerEncoder]
    checksum: str

    @classmethod
    def read(cls, path: Path) -> Known:
        """The file that a run has left; raises UserError where it is none."""
        user, item = load_encoders(path)
        return cls({"user": user, "item": item}, hashlib.sha256(path.read_bytes()).hexdigest())

    def grown(self, tower: str, field: Field) -> Field:
        """A field that was fitted on new data, its vocabulary with all that the run's had besides."""
        return grown(field, same_field(self.towers[tower], field))


def same_field(encoder: TowerEncoder, field: Field) -> Field | None:
    """An encoder's field of the same name and kind."""
    return next((f for f in encoder.fields if f.name == field.name and type(f) is type(field)), None)


def grown(field: Field, older: Field | None) -> Field:
    """A field with the values of an older one besides its own; a list may be as long as the longer one's."""
    if older is None or not isinstance(field, SparseField | VarLenField | CrossField):
        return field
    if isinstance(field, CrossField):
        parts = [grown(*pair) for pair in zip(field.parts, older.parts, strict=True)]
        crossed = CrossField(field.name, parts, pd.Index([]))
        codes = [crossed._codes(_combinations(each)) for each in (older, field)]
        return replace(crossed, combinations=pd.Index(np.unique(np.concatenate(codes))))
    values = pd.Series([*older.vocabulary, *field.vocabulary], dtype=object).infer_objects()
    vocabulary = fit_vocabulary(values, field.name)
    if isinstance(field, VarLenField):
        return replace(field, vocabulary=vocabulary, max_length=max(older.max_length, field.max_length))
    return replace(field, vocabulary=vocabulary)


def places_of(older: Field, field: Field) -> np.ndarray:
    """The id in a grown field of each id of the older one, (V,); padding and out-of-vocabulary stay."""
    if isinstance(older, CrossField):
        ids = field.encode(_combinations(older))
    else:
        ids = encode(older.vocabulary, field.vocabulary, field.name)
    return np.concatenate([np.arange(FIRST_ID), ids])


def _combinations(field: CrossField) -> pd.DataFrame:
    """The values of a cross's parts, a row for each combination."""
    codes, values = field.combinations.to_numpy(np.int64), {}
    for part in reversed(field.parts):
        codes, ids = np.divmod(codes, len(part.vocabulary) + FIRST_ID)
        assert (ids > OOV).all()  # a combination with an unknown value is none
        values[part.name] = part.vocabulary[ids - FIRST_ID]
    return pd.DataFrame(values)
