"""What the lines of each Amazon release call things, and what is wrong with a line."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from preprocessing.errors import UserError


@dataclass(frozen=True)
class Release:
    """The keys of a review; the meta file names its items by `item` too."""

    name: str
    user: str
    item: str
    rating: str
    time: str  # in seconds or milliseconds, which is the same to whoever puts reviews in order

    @property
    def keys(self) -> tuple[str, str, str, str]:
        return self.user, self.item, self.rating, self.time

    def __str__(self) -> str:
        return f"the {self.name} release ({', '.join(self.keys)})"


# The reviews of 2014 and 2018 have the same keys. In 2023 the variants of a product, each with an asin, have one
# parent_asin: that is the item, and the only one that the meta file lists.
RELEASE_2014 = Release("2014 or 2018", "reviewerID", "asin", "overall", "unixReviewTime")
RELEASE_2023 = Release("2023", "user_id", "parent_asin", "rating", "timestamp")


def release_of(line: object, otherwise: Release = RELEASE_2014) -> Release:
    """The release most of whose keys a parsed line has; `otherwise` where it has as many of either, or none."""
    keys = line if isinstance(line, dict) else {}
    return max((otherwise, RELEASE_2014, RELEASE_2023), key=lambda release: sum(key in keys for key in release.keys))


# What parsing a line of these files raises where the line is at fault.
WRONG_LINE = (
    *(ValueError, KeyError, TypeError, OverflowError, SyntaxError, RecursionError, MemoryError),
    csv.Error,
)


def what(error: Exception) -> str:
    """One of WRONG_LINE as the words behind "got"."""
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__


def each_key_once(pairs: Iterable[tuple]) -> dict:
    """The dict of an object's pairs; a parser by itself takes the last of two values of a key."""
    found = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} twice")
        found[key] = value
    return found


def as_id(value) -> str:
    """A user's or an item's id, which is a text."""
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{value!r} as an id")
    value.encode()  # half a character, as in "\\ud800", can be neither printed nor saved
    return value


def no_truth(value):
    """A value that is not True or False, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise TypeError(f"{value} as a number")
    return value


def check_is_lines(path: Path, line: int, text: bytes) -> None:
    """Raise UserError for JSON that is spread over lines, or one list of all."""
    if line == 1 and (text.lstrip().startswith(b"[") or text.strip() == b"{"):
        raise UserError(
            f"{path}: expected JSON lines, each review or item on one line of its own, got one JSON text over many "
            "lines; write each on one line, without brackets and commas around them."
        )
