"""Amazon reviews (Electronics and the other categories): from the raw files of a release to three encoded splits.

Reviews are JSON lines in the releases of 2014, 2018 and 2023; which it is, their keys say. The meta file beside them:
preprocessing/amazon_meta.py. The released single CSV is read too.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import time
from array import array
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.amazon_lines import (
    RELEASE_2014,
    RELEASE_2023,
    WRONG_LINE,
    Release,
    as_id,
    check_is_lines,
    each_key_once,
    no_truth,
    release_of,
    what,
)
from preprocessing.amazon_meta import finest_category, parse_price, read_meta
from preprocessing.cache import cached, sha256_of_files
from preprocessing.download import DownloadError, download
from preprocessing.encode import MeanField, MissingField, NumberField, SparseField
from preprocessing.errors import UserError
from preprocessing.gzip_lines import OR_LATIN_1, lines_of, opened
from preprocessing.interactions import Fields, Interactions, check_protocol, data_fingerprint, encode_interactions
from preprocessing.known import Known
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sources import DATA_FOLDER, META, REVIEWS, amazon_files, is_csv, stem
from preprocessing.statistics import shaping, with_statistics
from preprocessing.synthetic import load_probabilities, probabilities_in
from preprocessing.tables import Dataset
from preprocessing.text_tables import MISSING, check_header

PUBLISHED_REVIEWS = 1_689_188  # of Electronics, 5-core, 2014: the paper's data

RELEASED_CSV = (*RELEASE_2014.keys, "price", "categories")

FOLDER_URL = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"


def load_amazon(
    reviews: str | Path,
    meta: str | Path | None = None,
    protocol: str = "strict",
    embedding_dim: int = 32,
    split_seed: int = 1023,
    strict_data: bool = False,
    statistics: str = "means",
    label_delay: float = 0.0,
    known: Known | None = None,
    cache: str | Path | None = None,
) -> Dataset:
    """Read, join, split and encode one category of the Amazon reviews.

    The label is 1 for a rating of at least 4, else 0. The fields: `fields_of`. A missing price is the mean of the
    training items' prices. Items that the meta file does not hold stay in, without category and price.

    Args:
        reviews: the reviews of a release, JSON lines packed by gzip or not, or the released CSV.
        meta: the meta file of the same release; a CSV wants none.
        protocol: "strict", "paper", "temporal" or "online"; see preprocessing/protocols.py.
        strict_data: refuse items that the meta file does not hold, and reviews that repeat another, where the default
            keeps and counts them.
        statistics: "means", "residuals" or "crossed"; see preprocessing/statistics.py. Users' residuals are crossed by
            category, which takes a number a row for each of them; nothing is known of users to cross items' by.
        label_delay: seconds until a label is known, of online.
        known: of an earlier run, whose vocabularies these only add to.
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
    shaped_by = shaping(protocol, statistics, label_delay, known)
    fingerprint = data_fingerprint(sha256, protocol=protocol, split_seed=split_seed, **shaped_by)

    def build() -> Dataset:
        raw = read_amazon(*files, strict_data=strict_data)
        return encode_interactions(
            *(raw, *fields_of(raw, protocol, statistics), protocol, split_seed, embedding_dim, fingerprint),
            released_per_part=False,
            strict_data=strict_data,
            label_delay=label_delay,
            known=known,
        )

    # What is refused with strict_data has its own cache, or the other's would be taken.
    data = cached(cache, f"{_dataset_name(files[0])}-{protocol}{'-checked' if strict_data else ''}", fingerprint, build)
    data.embedding_dim, data.source, data.seconds = embedding_dim, str(reviews), time.perf_counter() - start
    return data


def fields_of(raw: Interactions, protocol: str, statistics: str = "means") -> tuple[Fields, Fields]:
    """The users' and the items' fields; the ids, reviewerID and asin or user_id and parent_asin, are named as read."""
    user, item = raw.users.columns[0], raw.items.columns[0]
    user_fields = {user: SparseField, "user_mean_rating": MeanField}
    item_fields = {
        item: SparseField,
        "categories": SparseField,  # the finest one
        "item_mean_rating": MeanField,
        "price": NumberField,
        "price_missing": MissingField,
    }
    return with_statistics(protocol, statistics, user_fields, item_fields, "categories")


class _Reviews:
    """The reviews of a file so far; users and items are numbered as they first come."""

    def __init__(self):
        self.users, self.items = {}, {}
        self.user_of_row, self.item_of_row, self.ratings, self.times = array("i"), array("i"), array("d"), array("q")

    def add(self, user, item, rating, time) -> None:
        """Add a review; raises one of WRONG_LINE where a value is none."""
        user, item = _place_of(user, self.users), _place_of(item, self.items)
        self.ratings.append(float(no_truth(rating)))
        self.times.append(int(no_truth(time)))
        self.user_of_row.append(user)
        self.item_of_row.append(item)

    def interactions(self, path: Path, release: Release, items: pd.DataFrame, counts: dict[str, int]) -> Interactions:
        """All of them, joined with what is known of their items."""
        ratings = np.frombuffer(self.ratings)
        outside = np.flatnonzero(~((ratings >= 1) & (ratings <= 5)))
        if len(outside):
            raise UserError(
                f"{path.name}, review {outside[0] + 1}: expected a rating from 1 to 5 as {release.rating}, got "
                f"{ratings[outside[0]]:g}; {len(outside)} such review(s), mend or remove them."
            )
        probabilities, name = load_probabilities(path.parent, len(ratings)), _dataset_name(path)
        if name == "amazon" and probabilities is None and len(ratings) != PUBLISHED_REVIEWS:
            name = "amazon-electronics-part"  # not what the paper's table was measured on
        counts = {"reviews_read": len(ratings), "users": len(self.users), "items": len(items), **counts}
        counts["items_without_price"] = int(items["price"].isna().sum())
        counts["items_without_category"] = int(items["categories"].isna().sum())
        return Interactions(
            name=name,
            users=pd.DataFrame({release.user: pd.Series(list(self.users), dtype=object)}),
            items=items,
            user_of_row=np.frombuffer(self.user_of_row, dtype=np.int32),
            item_of_row=np.frombuffer(self.item_of_row, dtype=np.int32),
            labels=(ratings >= 4).astype(np.int8),
            times=np.frombuffer(self.times, dtype=np.int64),
            rows=np.arange(len(ratings)),
            probabilities=probabilities,
            counts=counts,
            file=path.name,
        )


def _place_of(value, places: dict[str, int]) -> int:
    """The number of an id, a further one where it is new."""
    if not isinstance(value, str) or value not in places:
        places[as_id(value)] = len(places)
    return places[value]


def read_amazon(reviews: Path, meta: Path | None = None, strict_data: bool = False) -> Interactions:
    """Read the raw files and join them; see `load_amazon` for the arguments."""
    if is_csv(reviews):
        return _read_released_csv(reviews)
    if meta is None:
        raise UserError(f"{reviews}: expected the meta file beside the reviews, got none; name it with --meta.")
    release, read = _read_reviews(reviews)
    items, listed, counts = read_meta(meta, reviews, release, read.items)
    reviews_of_item = np.bincount(read.item_of_row, minlength=len(items))
    counts[f"reviews_of_{release.item}s_not_in_{meta.name}"] = int(reviews_of_item[~listed].sum())
    if not listed.all():
        missing = items[release.item][~listed]
        named = ", ".join(missing.iloc[:5]) + (", ..." if len(missing) > 5 else "")
        if strict_data:
            raise UserError(
                f"{meta.name}: expected every reviewed {release.item}, {len(missing):,} missing ({named}); complete "
                "the file, or leave out --strict-data to keep their reviews."
            )
        print(
            f"{meta.name}: {len(missing):,} reviewed {release.item}(s) missing ({named}); their reviews stay in, with "
            f"the {release.item} alone known.",
            flush=True,
        )
    return read.interactions(reviews, release, items, counts)


def _read_reviews(path: Path) -> tuple[Release, _Reviews]:
    """The reviews of a file of JSON lines, and their release: the first line's, and all others are of it too."""
    release, read = RELEASE_2014, _Reviews()
    for line, text in lines_of(path):
        try:
            review = json.loads(text, object_pairs_hook=each_key_once)
            if not read.ratings:  # the first one
                release = release_of(review)
            read.add(review[release.user], review[release.item], review[release.rating], review[release.time])
        except WRONG_LINE as error:
            check_is_lines(path, line, text)
            # A key that is missing was looked for in a dict, the review of this line.
            if isinstance(error, KeyError) and (other := release_of(review, release)) is not release:
                raise UserError(
                    f"{path.name}, line {line}: expected a review of {release}, as those before it are, got one of "
                    f"{other}; keep each release in a file of its own."
                ) from error
            wanted = f"{', '.join(release.keys[:-1])} and {release.time}"
            raise UserError(
                f"{path.name}, line {line}: expected a JSON object with {wanted}, got {what(error)}; mend or remove "
                "the line."
            ) from error
    return release, read


# --- the released CSV


def _read_released_csv(path: Path) -> Interactions:
    """The CSV is read row by row: its categories hold commas and lists, and its prices are what they were."""
    read, categories, prices, unreadable = _Reviews(), [], [], 0
    with opened(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", errors=OR_LATIN_1, newline="") as file:
        reader = csv.reader(file, strict=True)  # which refuses a quote that is never closed
        try:
            header = [name.strip() for name in next(reader, [])]
        except csv.Error:
            header = []
        if release_of(dict.fromkeys(header)) is RELEASE_2023:
            raise UserError(
                f"{path}: expected the CSV with {', '.join(RELEASED_CSV)}, got one of {RELEASE_2023}, which holds "
                "neither price nor category; name the release's reviews and meta file (.jsonl.gz) with --reviews and "
                "--meta."
            )
        check_header(path.name, header, RELEASED_CSV)
        try:
            for row in reader:
                if not row:  # a blank line
                    continue
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} columns where the header has {len(header)}")
                cells = dict(zip(header, row, strict=True))
                is_known = cells["asin"] in read.items
                read.add(cells["reviewerID"], cells["asin"], cells["overall"], cells["unixReviewTime"])
                if not is_known:
                    text = cells["categories"].strip()
                    categories.append(finest_category(ast.literal_eval(text) if text.startswith("[") else text))
                    prices.append(parse_price(cells["price"]))
                    unreadable += cells["price"].strip() not in MISSING and math.isnan(prices[-1])
        except WRONG_LINE as error:
            raise UserError(
                f"{path.name}, line {reader.line_num}: expected {', '.join(RELEASED_CSV)}, got {what(error)}; "
                "mend or remove the line."
            ) from error
    if not read.ratings:
        raise UserError(f"{path.name}: expected at least one row below the header, got none.")
    items = {"asin": list(read.items), "categories": pd.Series(categories, dtype=object), "price": prices}
    return read.interactions(path, RELEASE_2014, pd.DataFrame(items), {"prices_unreadable": unreadable})


# --- files


def _dataset_name(reviews: Path) -> str:
    is_electronics = is_csv(reviews) or reviews.name.startswith("reviews_Electronics_5.json")
    return "amazon" if is_electronics else f"amazon-{stem(reviews).removeprefix('reviews_')}"


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
