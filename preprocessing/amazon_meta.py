"""The meta file of an Amazon category: what is known of its items.

Its lines are Python literals in the 2014 release and JSON in those of 2018, where prices are text, and 2023.
"""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.amazon_lines import (
    RELEASE_2014,
    WRONG_LINE,
    Release,
    check_is_lines,
    each_key_once,
    release_of,
    what,
)
from preprocessing.errors import UserError
from preprocessing.gzip_lines import lines_of
from preprocessing.text_tables import MISSING


def read_meta(
    path: Path, reviews: Path, release: Release, places: dict[str, int]
) -> tuple[pd.DataFrame, np.ndarray, dict[str, int]]:
    """What is known of the reviewed items, which of them are listed at all, and counts.

    Args:
        reviews: the file of their reviews, which are of `release`, for messages.
        places: of each reviewed item in the table.
    """
    categories, prices = np.full(len(places), None, dtype=object), np.full(len(places), np.nan)
    listed = np.zeros(len(places), dtype=bool)
    unreadable = num_lines = 0
    for line, text in lines_of(path):
        num_lines += 1
        try:
            item = _parse_line(text, reviews, release, places)
        except UserError as error:
            check_is_lines(path, line, text)
            raise UserError(f"{path.name}, line {line}: {error}") from error
        place = None if item is None else places.get(item[release.item])
        if place is None or listed[place]:  # of an item that is listed twice, the first line counts
            continue
        listed[place] = True
        categories[place] = category_of(item)
        prices[place] = parse_price(item.get("price"))
        unreadable += math.isnan(prices[place]) and item.get("price") not in (None, "")
    items = pd.DataFrame({release.item: list(places), "categories": categories, "price": prices})
    counts = {f"lines_of_{path.name}": num_lines, f"{release.item}s_not_in_{path.name}": int((~listed).sum())}
    return items, listed, counts | {"prices_unreadable": unreadable}


# A line of the 2014 file begins so. Strings, then what may stand around them in a dict of literals.
_ASIN_FIRST = re.compile(rb"\s*\{\s*'asin'\s*:\s*'([^'\\]+)'")
_JSON_FIRST = re.compile(rb"\s*(\xef\xbb\xbf)?\{\s*[\"}]")
_STRINGS = re.compile(rb"""[uU]?(?:'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")|\b(?:None|True|False)\b""")
_NOT_LITERAL = re.compile(rb"[^\s\[\]{}:,.+\-0-9eE]")


def _parse_line(text: bytes, reviews: Path, release: Release, places: dict[str, int]) -> dict | None:
    """The item of a line of JSON (2018, 2023) or of Python literals (2014); None for one that nobody reviewed.

    A line of literals is never run: it may hold strings, numbers, lists and dicts, and is refused where it holds
    anything else. Only the lines of reviewed items are parsed beyond that, which takes a quarter of a millisecond each.
    """
    try:
        if _JSON_FIRST.match(text):
            item = json.loads(text, object_pairs_hook=each_key_once)
        else:
            code = _NOT_LITERAL.search(_STRINGS.sub(b"", text))
            if code:
                found = code.group().decode("latin-1")
                raise UserError(
                    f"expected a dict of literals, got code or broken quotes ({found!r} outside of quotes); it was not "
                    "run. Mend or remove the line."
                )
            asin = _ASIN_FIRST.match(text) if release is RELEASE_2014 else None
            if asin and asin.group(1).decode() not in places and text.count(b"'asin'") == 1:
                return None
            tree = ast.parse(text.decode().strip(), mode="eval").body
            if isinstance(tree, ast.Dict):
                each_key_once((key.value, None) for key in tree.keys if isinstance(key, ast.Constant))
            item = ast.literal_eval(tree)
    except UserError:
        raise
    except WRONG_LINE as error:
        raise UserError(
            f"expected a dict as JSON or Python literals, got {what(error)}; mend or remove the line."
        ) from error
    if isinstance(item, dict) and release.item not in item and (other := release_of(item, release)) is not release:
        raise UserError(
            f"expected an item of {release}, as the reviews of {reviews.name} are, got one of {other}; take the "
            "reviews and the meta file of one release."
        )
    if not isinstance(item, dict) or not isinstance(item.get(release.item), str) or not item[release.item].strip():
        raise UserError(f"expected a dict with a text as {release.item}, got none; mend or remove the line.")
    return item


def category_of(item: dict) -> str | None:
    """The finest category of a line of any release; that of 2023 has the main one where the path is empty."""
    return finest_category(item.get("categories", item.get("category"))) or finest_category(item.get("main_category"))


def finest_category(categories) -> str | None:
    """The last name of the last path: of [["Electronics", "GPS"]] (2014), ["Electronics", "GPS"], or a text.

    None where there is none; the markup that some lists of 2018 end with does not count, nor does a mark of nothing.
    """
    if isinstance(categories, list | tuple):
        return next((found for entry in reversed(categories) if (found := finest_category(entry))), None)
    text = categories.strip() if isinstance(categories, str) else ""
    return text if text not in MISSING and "<" not in text else None


LARGEST_PRICE = 1e12  # what is larger is a mistake, and would leave nothing of the others' scale
_DOLLARS = r"\$?\s*((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"  # 12,99 is none
_PRICE = re.compile(rf"{_DOLLARS}(?:\s*-\s*{_DOLLARS})?")


def parse_price(price) -> float:
    """A price in dollars: of a number, "$1,299.00", or "$10.00 - $20.00" (the middle); nan for anything else."""
    if isinstance(price, str):
        found = _PRICE.fullmatch(price.strip())
        ends = [float(end.replace(",", "")) for end in found.groups() if end] if found else [math.nan]
        price = sum(ends) / len(ends)
    is_number = isinstance(price, int | float) and not isinstance(price, bool)
    return float(price) if is_number and 0 <= price < LARGEST_PRICE else math.nan
