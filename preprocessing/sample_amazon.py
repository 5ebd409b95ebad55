"""Synthetic raw files in the layouts of the Amazon Electronics reviews, all three releases."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from preprocessing.errors import UserError
from preprocessing.sources import AMAZON_RELEASES
from preprocessing.synthetic import SAMPLE_PROBABILITIES, TASTE_SIZE, how_often, with_mean, write_folder

AMAZON_REVIEWS, AMAZON_USERS, AMAZON_ITEMS = 1_689_188, 192_403, 63_001
AMAZON_LISTED = 498_196 / AMAZON_ITEMS  # lines of the meta file for each item with reviews
LIKED_RATE = 0.8
MARKUP = (
    ".a-box-inner{background-color:#fff}#alohaBuyBoxWidget .selected{background-color:#fffbf3;border-color:#e77600}"
)


def write_amazon_sample(
    folder: Path,
    num_rows: int = 60_000,
    num_users: int | None = None,
    num_items: int | None = None,
    seed: int = 1023,
    release: str = "2014",
) -> Path:
    """Write the reviews, the meta file and the labels' probabilities of Amazon Electronics into a new folder.

    Reviews are as long as the real ones, in invented words. The meta file lists items that nobody reviewed too, and
    lacks some prices and a few items. Without numbers of users and items, they keep the proportions of the full data.
    All or nothing; the same arguments give the same bytes; an existing folder is left as it is. Returns the folder.

    Args:
        release: "2014" (the meta file holds Python literals, prices are numbers), "2018" (JSON, prices are text) or
            "2023" (other keys, times in milliseconds, several asins of one parent_asin, prices mostly numbers).
    """
    folder = Path(folder)
    if folder.exists():
        return folder
    if release not in AMAZON_RELEASES:
        raise UserError(f"release: expected one of {', '.join(AMAZON_RELEASES)}, got {release!r}.")
    num_users = num_users or max(20, round(num_rows * AMAZON_USERS / AMAZON_REVIEWS))
    num_items = num_items or max(20, round(num_rows * AMAZON_ITEMS / AMAZON_REVIEWS))
    rng = np.random.default_rng(seed)
    num_listed = round(num_items * AMAZON_LISTED)
    asins = ["B" + _base36(number, 9) for number in _scattered(num_listed, 36**9)]
    reviewers = ["A" + _base36(number, 13) for number in _scattered(num_users, 36**13)]
    # Departments, and in them the finest categories.
    category = rng.integers(0, max(4, min(900, num_items // 20)), num_listed)
    price = np.round(rng.lognormal(3.2, 1.2, num_listed), 2)

    taste = 0.5 * rng.normal(size=(num_users, TASTE_SIZE))
    style = (
        0.7 * rng.normal(size=(num_items, TASTE_SIZE))
        + rng.normal(size=(category.max() + 1, TASTE_SIZE))[category[:num_items]]
    )
    mood, quality = 1.2 * rng.normal(size=num_users), 1.2 * rng.normal(size=num_items)
    item = np.repeat(np.arange(num_items), how_often(rng, num_items, num_rows, 1.3, least=5))
    user = np.repeat(np.arange(num_users), how_often(rng, num_users, num_rows, 1.0, least=5))
    rng.shuffle(user)
    logit = 0.5 * np.einsum("rk,rk->r", taste[user], style[item]) + mood[user] + quality[item]
    probability = with_mean(logit.astype(np.float32), LIKED_RATE)
    liked = rng.random(num_rows) < probability
    stars = np.where(
        liked, rng.choice([4, 5], num_rows, p=[0.26, 0.74]), rng.choice([1, 2, 3], num_rows, p=[0.34, 0.24, 0.42])
    )
    seconds = rng.integers(10_600, 16_270, num_rows) * 86_400
    lengths = np.clip(rng.lognormal(5.8, 1.1, num_rows), 1, 30_000).astype(int)
    text = _invented_text(rng)
    starts = rng.integers(0, len(text) - 30_000, num_rows)

    def review(row: int) -> str:
        day = pd.Timestamp(int(seconds[row]), unit="s")
        words = text[starts[row] : starts[row] + lengths[row]]
        shared = {
            "reviewerID": reviewers[user[row]],
            "asin": asins[item[row]],
            "reviewerName": f"Reviewer {user[row]}",
            "reviewText": words,
            "overall": float(stars[row]),
            "summary": words[:40],
            "unixReviewTime": int(seconds[row]),
            "reviewTime": f"{day.month:02} {day.day}, {day.year}",
        }
        only = (
            {"helpful": [int(row % 3), 3]} if release == "2014" else {"verified": bool(row % 2), "vote": str(row % 9)}
        )
        return json.dumps(shared | only)

    def review_2023(row: int) -> str:
        words = text[starts[row] : starts[row] + lengths[row]]
        parent = asins[item[row]]
        line = {
            "rating": float(stars[row]),
            "title": words[:40],
            "text": words,
            "images": [],
            "asin": parent if row % 3 else f"V{parent[1:]}",  # a variant, say in another colour
            "parent_asin": parent,
            "user_id": reviewers[user[row]],
            "timestamp": 1000 * int(seconds[row]) + row * 7_919_017 % 86_400_000,  # at some time of the day
            "helpful_vote": int(row % 3),
            "verified_purchase": bool(row % 2),
        }
        return json.dumps(line)

    def meta_2014(index: int) -> str:
        others = [asins[(index * 7 + step * step) % num_listed] for step in range(index % 90)]
        line = {
            "asin": asins[index],
            "title": f'Invented "Item" {index}\'s',
            "imUrl": f"http://example.org/{index}.jpg",
        }
        if index % 4:
            line["price"] = float(price[index])
        if others:
            line["related"] = {"also_bought": others[: len(others) // 2], "also_viewed": others[len(others) // 2 :]}
        finest = f"Category {category[index]}"
        line["categories"] = [["Electronics", f"Department {category[index] % 20}", finest]] if index % 97 else [[]]
        line["description"] = text[index * 11 % 100_000 :][: index % 1200]
        return repr(line)

    def meta_2018(index: int) -> str:
        odd = {1: f"${1000 + price[index]:,.2f}", 2: f"${price[index]:.2f} - ${2 * price[index]:.2f}", 3: MARKUP, 4: ""}
        finest = f"Category {category[index]}"
        line = {
            "asin": asins[index],
            "category": ["Electronics", f"Department {category[index] % 20}", finest] if index % 97 else [],
            "title": f'Invented "Item" {index}\'s',
            "price": odd.get(index % 12, f"${price[index]:.2f}"),
            "description": [text[index * 11 % 100_000 :][: index % 1200]],
            "also_buy": [asins[(index * 7 + step * step) % num_listed] for step in range(index % 60)],
        }
        if index % 12 == 0:
            del line["price"]
        return json.dumps(line)

    def meta_2023(index: int) -> str:
        odd = {1: f"${price[index]:.2f}", 2: f"from {price[index]:.2f}", **dict.fromkeys((3, 4, 5))}
        finest = f"Category {category[index]}"
        line = {
            "main_category": "All Electronics" if index % 89 else None,
            "title": f'Invented "Item" {index}\'s',
            "average_rating": 4.2,
            "rating_number": int(index % 1000),
            "features": [],
            "description": [text[index * 11 % 100_000 :][: index % 1200]],
            "price": odd.get(index % 16, float(price[index])),
            "images": [],
            "videos": [],
            "store": f"Store {index % 300}",
            "categories": ["Electronics", f"Department {category[index] % 20}", finest] if index % 97 else [],
            "details": {},
            "parent_asin": asins[index],
            "bought_together": None,
        }
        return json.dumps(line)

    reviews_name, review, meta_name, meta = {
        "2014": ("reviews_Electronics_5.json.gz", review, "meta_Electronics.json.gz", meta_2014),
        "2018": ("Electronics_5.json.gz", review, "meta_Electronics.json.gz", meta_2018),
        "2023": ("Electronics.jsonl.gz", review_2023, "meta_Electronics.jsonl.gz", meta_2023),
    }[release]
    listed = [index for index in rng.permutation(num_listed).tolist() if index % 499]  # a few items are not listed

    def write(place: Path) -> None:
        _write_lines(place / reviews_name, (review(row) for row in range(num_rows)), num_rows)
        _write_lines(place / meta_name, map(meta, listed), len(listed))
        np.save(place / SAMPLE_PROBABILITIES, probability)

    return write_folder(folder, write)


def _invented_text(rng, num_words: int = 300_000) -> str:
    """Words of an invented language, some of them common, as reviews would hold them."""
    syllables = [
        "ba",
        "con",
        "de",
        "el",
        "fi",
        "gra",
        "ho",
        "in",
        "ka",
        "lo",
        "mi",
        "ne",
        "or",
        "pe",
        "re",
        "sto",
        "ta",
        "u",
    ]
    vocabulary = np.array(["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(8000)])
    rank = np.minimum(rng.zipf(1.3, num_words), len(vocabulary)) - 1
    return " ".join(vocabulary[rank].tolist())


def _scattered(count: int, below: int) -> Iterator[int]:
    """Distinct numbers in no visible order."""
    step = 1_000_000_007  # prime, and no divisor of a power of 36
    return ((index + 1) * step % below for index in range(count))


def _base36(number: int, width: int) -> str:
    digits = np.base_repr(number, 36)
    return digits.rjust(width, "0")[-width:]


def _write_lines(path: Path, lines: Iterator[str], count: int) -> None:
    with gzip.GzipFile(path, "wb", compresslevel=5, mtime=0) as packed, io.TextIOWrapper(packed, "utf-8") as file:
        for line in tqdm(lines, desc=path.name, total=count, unit="line", unit_scale=True, leave=False, disable=None):
            file.write(line + "\n")
