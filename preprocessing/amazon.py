"""Amazon reviews (Electronics and the other categories): from the raw files of either release to three encoded splits.

The 2014 release has reviews as JSON lines and a meta file of Python literals, one dict a line; the 2018 release has
JSON in both, and prices as text. The released single CSV is read too.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import re
import time
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.cache import cached, sha256_of_files
from preprocessing.download import DownloadError, download
from preprocessing.encode import MeanField, MissingField, NumberField, SparseField
from preprocessing.errors import UserError
from preprocessing.gzip_lines import OR_LATIN_1, lines_of, opened
from preprocessing.interactions import Interactions, check_protocol, data_fingerprint, encode_interactions
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sources import (
    AMAZON_2023,
    DATA_FOLDER,
    META,
    REVIEWS,
    amazon_files,
    has_keys_of_2023,
    is_csv,
    stem,
)
from preprocessing.synthetic import load_probabilities, probabilities_in
from preprocessing.tables import Dataset
from preprocessing.text_tables import check_header

USER_FIELDS = {"reviewerID": SparseField, "user_mean_rating": MeanField}
ITEM_FIELDS = {
    "asin": SparseField,
    "categories": SparseField,
    "item_mean_rating": MeanField,
    "price": NumberField,
    "price_missing": MissingField,
}
RELEASED_CSV = ("reviewerID", "asin", "overall", "unixReviewTime", "price", "categories")

FOLDER_URL = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"


def load_amazon(
    reviews: str | Path,
    meta: str | Path | None = None,
    protocol: str = "strict",
    embedding_dim: int = 32,
    split_seed: int = 1023,
    strict_data: bool = False,
    cache: str | Path | None = None,
) -> Dataset:
    """Read, join, split and encode one category of the Amazon reviews.

    The label is 1 for a rating of at least 4, else 0. Users have reviewerID and user_mean_rating; items have asin,
    categories (the finest one), item_mean_rating, price and price_missing. A missing price is the mean of the training
    items' prices. Items that the meta file does not hold stay in, without category and price.

    Args:
        reviews: the reviews of either release (.json or .json.gz), or the released CSV.
        meta: the meta file of the same release; a CSV wants none.
        protocol: "strict", "paper" or "temporal"; see preprocessing/protocols.py.
        strict_data: refuse items that the meta file does not hold, and reviews that repeat another, where the default
            keeps and counts them.
        cache: a folder for the encoded tables, from which they are then read as memory-mapped files; None keeps none.
    Raises UserError for whatever is wrong with the files.
    """
    check_protocol(protocol)
    start = time.perf_counter()
    files = [Path(reviews), *([Path(meta)] if meta is not None else [])]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: expected a file of Amazon reviews, got no such file; check the path.")
    sha256 = sha256_of_files([*files, *probabilities_in(files[0].parent)])
    fingerprint = data_fingerprint(sha256, protocol=protocol, split_seed=split_seed)

    def build() -> Dataset:
        raw = read_amazon(*files, strict_data=strict_data)
        return encode_interactions(
            *(raw, USER_FIELDS, ITEM_FIELDS, protocol, split_seed, embedding_dim, fingerprint),
            released_per_part=False,
            strict_data=strict_data,
        )

    # What is refused with strict_data has its own cache, or the other's would be taken.
    data = cached(cache, f"{_dataset_name(files[0])}-{protocol}{'-checked' if strict_data else ''}", fingerprint, build)
    data.embedding_dim, data.source, data.seconds = embedding_dim, str(reviews), time.perf_counter() - start
    return data


def read_amazon(reviews: Path, meta: Path | None = None, strict_data: bool = False) -> Interactions:
    """Read the raw files and join them; see `load_amazon` for the arguments."""
    if is_csv(reviews):
        return _read_released_csv(reviews)
    if meta is None:
        raise UserError(f"{reviews}: expected the meta file beside the reviews, got none; name it with --meta.")
    users, asins = {}, {}
    user_of_row, item_of_row, times, stars = array("i"), array("i"), array("q"), array("d")
    for line, text in lines_of(reviews):
        try:
            review = json.loads(text, object_pairs_hook=_each_key_once)
            if has_keys_of_2023(review):
                raise UserError(f"{reviews}: expected Amazon reviews of 2014 or 2018, got {AMAZON_2023}")
            user, asin = (_text(review[key]) for key in ("reviewerID", "asin"))
            stars.append(float(_no_truth(review["overall"])))
            times.append(int(_no_truth(review["unixReviewTime"])))
        except UserError:
            raise
        except _WRONG_LINE as error:
            _check_is_lines(reviews, line, text)
            wanted = "a JSON object with reviewerID, asin, overall and unixReviewTime"
            raise UserError(
                f"{reviews.name}, line {line}: expected {wanted}, got {_what(error)}; mend or remove the line."
            ) from error
        user_of_row.append(users.setdefault(user, len(users)))
        item_of_row.append(asins.setdefault(asin, len(asins)))
    items, counts = _read_meta(meta, asins)
    item_of_row = np.frombuffer(item_of_row, dtype=np.int32)
    unlisted = ~items.pop("listed").to_numpy(bool)
    counts[f"reviews_of_asins_not_in_{meta.name}"] = int(np.bincount(item_of_row, minlength=len(asins))[unlisted].sum())
    if unlisted.any():
        named = ", ".join(items["asin"][unlisted].iloc[:5]) + (", ..." if unlisted.sum() > 5 else "")
        if strict_data:
            raise UserError(
                f"{meta.name}: expected every reviewed asin, {unlisted.sum():,} missing ({named}); complete the file, "
                "or leave out --strict-data to keep their reviews."
            )
        print(
            f"{meta.name}: {unlisted.sum():,} reviewed asin(s) missing ({named}); their reviews stay in, with the asin "
            "alone known.",
            flush=True,
        )
    return _interactions(
        reviews,
        pd.Series(list(users), name="reviewerID", dtype=object),
        items,
        np.frombuffer(user_of_row, dtype=np.int32),
        item_of_row,
        np.frombuffer(stars),
        np.frombuffer(times, dtype=np.int64),
        counts,
    )


def _interactions(path: Path, users: pd.Series, items: pd.DataFrame, user_of_row, item_of_row, stars, times, counts):
    outside = np.flatnonzero(~((stars >= 1) & (stars <= 5)))
    if len(outside):
        raise UserError(
            f"{path.name}, review {outside[0] + 1}: expected a rating from 1 to 5 as overall, got "
            f"{stars[outside[0]]:g}; {len(outside)} such review(s), mend or remove them."
        )
    counts = {"reviews_read": len(stars), "users": len(users), "items": len(items), **counts}
    counts["items_without_price"] = int(items["price"].isna().sum())
    counts["items_without_category"] = int(items["categories"].isna().sum())
    return Interactions(
        name=_dataset_name(path),
        users=users.to_frame(),
        items=items,
        user_of_row=user_of_row,
        item_of_row=item_of_row,
        labels=(stars >= 4).astype(np.int8),
        times=times,
        rows=np.arange(len(stars)),
        probabilities=load_probabilities(path.parent, len(stars)),
        counts=counts,
        file=path.name,
    )


# --- the meta file


def _read_meta(path: Path, asins: dict[str, int]) -> tuple[pd.DataFrame, dict[str, int]]:
    """What is known of the reviewed items, in the order of `asins`, and whether they are listed at all."""
    categories, prices = np.full(len(asins), None, dtype=object), np.full(len(asins), np.nan)
    listed = np.zeros(len(asins), dtype=bool)
    unreadable = num_lines = 0
    for line, text in lines_of(path):
        num_lines += 1
        try:
            item = _parse_meta_line(text, asins)
        except UserError as error:
            _check_is_lines(path, line, text)
            raise UserError(f"{path.name}, line {line}: {error}") from error
        place = None if item is None else asins.get(item["asin"])
        if place is None or listed[place]:  # of an item that is listed twice, the first line counts
            continue
        listed[place] = True
        categories[place] = finest_category(item.get("categories", item.get("category")))
        prices[place] = parse_price(item.get("price"))
        unreadable += math.isnan(prices[place]) and item.get("price") not in (None, "")
    frame = pd.DataFrame({"asin": list(asins), "categories": categories, "price": prices, "listed": listed})
    counts = {f"lines_of_{path.name}": num_lines, f"asins_not_in_{path.name}": int((~listed).sum())}
    return frame, counts | {"prices_unreadable": unreadable}


# A line of the 2014 file begins so. Strings, then what may stand around them in a dict of literals.
_ASIN_FIRST = re.compile(rb"\s*\{\s*'asin'\s*:\s*'([^'\\]+)'")
_JSON_FIRST = re.compile(rb"\s*(\xef\xbb\xbf)?\{\s*[\"}]")
_STRINGS = re.compile(rb"""[uU]?(?:'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")|\b(?:None|True|False)\b""")
_NOT_LITERAL = re.compile(rb"[^\s\[\]{}:,.+\-0-9eE]")


def _parse_meta_line(text: bytes, asins: dict[str, int]) -> dict | None:
    """The item of a line of JSON (2018) or of Python literals (2014); None for one that nobody reviewed.

    A line of literals is never run: it may hold strings, numbers, lists and dicts, and is refused where it holds
    anything else. Only the lines of reviewed items are parsed beyond that, which takes a quarter of a millisecond each.
    """
    try:
        if _JSON_FIRST.match(text):
            item = json.loads(text, object_pairs_hook=_each_key_once)
        else:
            code = _NOT_LITERAL.search(_STRINGS.sub(b"", text))
            if code:
                found = code.group().decode("latin-1")
                raise UserError(
                    f"expected a dict of literals, got code or broken quotes ({found!r} outside of quotes); it was not "
                    "run. Mend or remove the line."
                )
            asin = _ASIN_FIRST.match(text)
            if asin and asin.group(1).decode() not in asins and text.count(b"'asin'") == 1:
                return None
            tree = ast.parse(text.decode().strip(), mode="eval").body
            if isinstance(tree, ast.Dict):
                _each_key_once((key.value, None) for key in tree.keys if isinstance(key, ast.Constant))
            item = ast.literal_eval(tree)
    except UserError:
        raise
    except _WRONG_LINE as error:
        raise UserError(
            f"expected a dict as JSON or Python literals, got {_what(error)}; mend or remove the line."
        ) from error
    if has_keys_of_2023(item) and "asin" not in item:
        raise UserError(f"expected an item of 2014 or 2018, got one of {AMAZON_2023}")
    if not isinstance(item, dict) or not isinstance(item.get("asin"), str) or not item["asin"].strip():
        raise UserError("expected a dict with an asin, got none; mend or remove the line.")
    return item


def finest_category(categories) -> str | None:
    """The last name of the last path: of [["Electronics", "GPS"]] (2014), ["Electronics", "GPS"] (2018), or a text.

    None where there is none; the markup that some lists of 2018 end with does not count.
    """
    if isinstance(categories, list | tuple):
        return next((found for entry in reversed(categories) if (found := finest_category(entry))), None)
    text = categories.strip() if isinstance(categories, str) else ""
    return text if text and "<" not in text else None


LARGEST_PRICE = 1e12  # what is larger is a mistake, and would leave nothing of the others' scale
_DOLLARS = r"\$?\s*(\d[\d,]*(?:\.\d+)?|\.\d+)"
_PRICE = re.compile(rf"{_DOLLARS}(?:\s*-\s*{_DOLLARS})?")


def parse_price(price) -> float:
    """A price in dollars: of a number, "$1,299.00", or "$10.00 - $20.00" (the middle); nan for anything else."""
    if isinstance(price, str):
        found = _PRICE.fullmatch(price.strip())
        ends = [float(end.replace(",", "")) for end in found.groups() if end] if found else [math.nan]
        price = sum(ends) / len(ends)
    is_number = isinstance(price, int | float) and not isinstance(price, bool)
    return float(price) if is_number and 0 <= price < LARGEST_PRICE else math.nan


# --- the released CSV


def _read_released_csv(path: Path) -> Interactions:
    """The CSV is read row by row: its categories hold commas and lists, and its prices are what they were."""
    users, asins = {}, {}
    user_of_row, item_of_row, times, stars = array("i"), array("i"), array("q"), array("d")
    categories, prices = [], []
    with opened(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", errors=OR_LATIN_1, newline="") as file:
        reader = csv.reader(file, strict=True)  # which refuses a quote that is never closed
        try:
            header = [name.strip() for name in next(reader, [])]
        except csv.Error:
            header = []
        if has_keys_of_2023(dict.fromkeys(header)):
            raise UserError(f"{path}: expected Amazon reviews of 2014 or 2018, got {AMAZON_2023}")
        check_header(path.name, header, RELEASED_CSV)
        try:
            for row in reader:
                if not row:  # a blank line
                    continue
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} columns where the header has {len(header)}")
                cells = dict(zip(header, row, strict=True))
                user_of_row.append(users.setdefault(_text(cells["reviewerID"]), len(users)))
                if cells["asin"] not in asins:
                    asins[_text(cells["asin"])] = len(asins)
                    text = cells["categories"].strip()
                    categories.append(finest_category(ast.literal_eval(text) if text.startswith("[") else text))
                    prices.append(parse_price(cells["price"]))
                item_of_row.append(asins[cells["asin"]])
                stars.append(float(cells["overall"]))
                times.append(int(cells["unixReviewTime"]))
        except _WRONG_LINE as error:
            raise UserError(
                f"{path.name}, line {reader.line_num}: expected {', '.join(RELEASED_CSV)}, got {_what(error)}; "
                "mend or remove the line."
            ) from error
    if not stars:
        raise UserError(f"{path.name}: expected at least one row below the header, got none.")
    return _interactions(
        path,
        pd.Series(list(users), name="reviewerID", dtype=object),
        pd.DataFrame({"asin": list(asins), "categories": pd.Series(categories, dtype=object), "price": prices}),
        np.frombuffer(user_of_row, dtype=np.int32),
        np.frombuffer(item_of_row, dtype=np.int32),
        np.frombuffer(stars),
        np.frombuffer(times, dtype=np.int64),
        {},
    )


# --- files


def _dataset_name(reviews: Path) -> str:
    is_electronics = is_csv(reviews) or reviews.name.startswith("reviews_Electronics_5.json")
    return "amazon" if is_electronics else f"amazon-{stem(reviews)}"


# What parsing a line of these files raises where the line is at fault.
_WRONG_LINE = (
    *(ValueError, KeyError, TypeError, OverflowError, SyntaxError, RecursionError, MemoryError),
    csv.Error,
)


def _text(value) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{value!r} as an id")
    value.encode()  # half a character, as in "\\ud800", can be neither printed nor saved
    return value


def _no_truth(value):
    """A value that is not True or False, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise TypeError(f"{value} as a number")
    return value


def _each_key_once(pairs: Iterable[tuple]) -> dict:
    """The dict of an object's pairs; a parser by itself takes the last of two values of a key."""
    found = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} twice")
        found[key] = value
    return found


def _check_is_lines(path: Path, line: int, text: bytes) -> None:
    """Raise UserError for JSON that is spread over lines, or one list of all."""
    if line == 1 and (text.lstrip().startswith(b"[") or text.strip() == b"{"):
        raise UserError(
            f"{path}: expected JSON lines, each review or item on one line of its own, got one JSON text over many "
            "lines; write each on one line, without brackets and commas around them."
        )


def _what(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__


def locate_amazon(
    named: str | None = None, reviews: str | None = None, meta: str | None = None
) -> tuple[Path, Path | None]:
    """The reviews and the meta file (None for a CSV) to train on: see amazon_files; else a download, or the sample."""
    return amazon_files(named, reviews, meta) or _fetch()


def _fetch() -> tuple[Path, Path]:
    """Both files of the 2014 release from their public address, or the synthetic sample where it is out of reach."""
    folder = DATA_FOLDER / "amazon"
    try:
        for name in (META, REVIEWS):
            if not (folder / name).is_file():
                print(f"no {name} in {DATA_FOLDER.name}/amazon/; fetching {FOLDER_URL}{name}", flush=True)
                download(FOLDER_URL + name, folder / name)
    except DownloadError as error:
        if (folder / REVIEWS).is_file():  # real reviews are not to be left for invented ones
            raise
        print(error)
        folder = write_amazon_sample(DATA_FOLDER / "sample-amazon")
    return folder / REVIEWS, folder / META
