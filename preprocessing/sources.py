"""Where the raw files of a dataset are looked for: a named path, the environment, data/.

Needs nothing but Python, so that a path that is missing is told before anything heavy is imported.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from preprocessing.errors import UserError

DATA_FOLDER = Path(__file__).resolve().parent.parent / "data"
CACHE_FOLDER = DATA_FOLDER / "cache"  # of encoded tables
ENVIRONMENT_VARIABLE = "INTTOWER_DATA"

MOVIELENS_FILES = RATINGS, USERS, MOVIES = "ratings.dat", "users.dat", "movies.dat"
MOVIELENS_ARCHIVE = "ml-1m.zip"
# A file that tells what stands in the place of MovieLens-1M.
OTHERS_THAN_MOVIELENS_1M = {
    "u.data": "MovieLens-100K, which is not read",
    "tags.dat": "MovieLens-10M, which is not read",
    "ratings.csv": "another release of MovieLens (ratings.csv), which is not read",
    "workbook.xml": "an Excel workbook; save it as CSV",
}

REVIEWS, META = "reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"
REVIEWS_OF_FOLDER = (
    *(REVIEWS, "Electronics_5.json.gz", "reviews_Electronics_5.json", "Electronics_5.json"),
    *("amazon.csv", "amazon.csv.gz"),
)
AMAZON_2023 = (
    "the 2023 release (user_id, parent_asin, timestamp), which is not read yet; take that of 2018 or 2014 "
    "(reviewerID, asin, unixReviewTime)."
)

ALIBABA_FILES = RAW_SAMPLE, AD_FEATURE, USER_PROFILE = "raw_sample.csv", "ad_feature.csv", "user_profile.csv"
WHERE_ALIBABA_IS = (
    "They need a login at https://tianchi.aliyun.com/dataset/dataDetail?dataId=56: put the three CSV files, unpacked, "
    f"into {DATA_FOLDER.name}/alibaba/, or name their folder with --data. To try the script on invented data: "
    "python -m preprocessing.sample alibaba data/alibaba-sample, and --data data/alibaba-sample."
)


def stands_in(path: str | Path) -> bool:
    """Whether files are the sample that a script made for want of data and network."""
    return any(
        place.parent == DATA_FOLDER and place.name.startswith("sample-") for place in (Path(path), *Path(path).parents)
    )


def find_data(
    named: str | None, find: Callable[[Path], Path | None], what: str, advice: str = "Check the names."
) -> Path | None:
    """The first place that holds a dataset: `named`, else $INTTOWER_DATA, else data/; None if data/ has none.

    Args:
        named: the value of --data, a file or a folder.
        find: gives the dataset's own path inside a folder, or None.
        what, advice: what is looked for and what to do where it is not there, for the message.
    Raises UserError where a path that a person named (--data, $INTTOWER_DATA) does not hold it.
    """
    for origin, value in (("--data", named), (f"${ENVIRONMENT_VARIABLE}", os.environ.get(ENVIRONMENT_VARIABLE))):
        if not value:
            continue
        path = Path(value)
        if not path.exists():
            raise UserError(f"{origin} {value}: expected {what}, got no such file or folder; check the path.")
        found = path if path.is_file() else find(path)
        if found is None:
            raise UserError(f"{origin} {value}: expected {what} inside, got none of them. {advice}")
        return found
    return find(DATA_FOLDER)


def movielens_files(named: str | None = None) -> Path | None:
    """MovieLens-1M in `named`, $INTTOWER_DATA or data/; None where nothing was named and data/ has none."""
    what = f"MovieLens-1M ({MOVIELENS_ARCHIVE}, or a folder with {', '.join(MOVIELENS_FILES)})"
    return find_data(named, find_movielens, what)


def instead_of_movielens_1m(names: Iterable[str]) -> str | None:
    """What files of these names are, where they are known to be something else than MovieLens-1M."""
    return next((OTHERS_THAN_MOVIELENS_1M[name] for name in names if name in OTHERS_THAN_MOVIELENS_1M), None)


def find_movielens(folder: Path) -> Path | None:
    """The MovieLens files in a folder, or None: ratings.dat itself, ml-1m/, ml-1m.zip or movielens.csv/.txt(.gz)."""
    if (folder / RATINGS).is_file():
        return folder
    if (folder / "ml-1m" / RATINGS).is_file():
        return folder / "ml-1m"
    for name in (MOVIELENS_ARCHIVE, *(f"movielens.{end}" for end in ("csv", "txt", "csv.gz", "txt.gz"))):
        if (folder / name).is_file():
            return folder / name
    return None


def amazon_files(
    named: str | None = None, reviews: str | None = None, meta: str | None = None
) -> tuple[Path, Path | None] | None:
    """The reviews and the meta file (None for a CSV); None where nothing was named and data/ has none.

    `reviews` and `meta` where they are named; else what is in `named`, $INTTOWER_DATA or data/. The meta file of a
    category is looked for beside its reviews. Raises UserError where a named place does not hold them, or the meta file
    is missing.
    """
    if reviews is None and meta is not None:
        raise UserError("--meta: expected --reviews with it, got --meta alone; name both.")
    if reviews is None:
        found = find_data(named, find_reviews, f"Amazon reviews ({', '.join(REVIEWS_OF_FOLDER)})")
        if found is None:
            return None
        reviews = found
    path = Path(reviews)
    if not path.is_file():
        raise UserError(f"--reviews {reviews}: expected a file of reviews, got no such file; check the path.")
    if is_csv(path):
        if meta is not None:
            raise UserError("--meta: expected none with a CSV, which holds price and categories; leave it out.")
        return path, None
    if meta is not None:
        if not Path(meta).is_file():
            raise UserError(f"--meta {meta}: expected a meta file, got no such file; check the path.")
        return path, Path(meta)
    if is_amazon_2023(path):  # before a meta file is asked for in vain
        raise UserError(f"{path}: expected Amazon reviews of 2014 or 2018, got {AMAZON_2023}")
    category = stem(path).removeprefix("reviews_").removesuffix("_5")
    for name in (f"meta_{category}.{end}" for end in ("json.gz", "json", "jsonl.gz", "jsonl")):
        if (path.parent / name).is_file():
            return path, path.parent / name
    if path == DATA_FOLDER / "amazon" / REVIEWS:
        return None  # a download that broke off between the two files: it goes on
    raise UserError(
        f"{path.parent}: expected the meta file of {path.name} beside it (meta_{category}.json.gz), got none; "
        "add it, or name it with --meta."
    )


def find_reviews(folder: Path) -> Path | None:
    """The reviews of Electronics in a folder or its amazon/; None where there are none."""
    places = (place / name for place in (folder, folder / "amazon") for name in REVIEWS_OF_FOLDER)
    return next((place for place in places if place.is_file()), None)


def is_csv(path: Path) -> bool:
    """Whether a file is the released CSV, by its name, packed by gzip or not."""
    return Path(path).name.lower().removesuffix(".gz").endswith((".csv", ".txt"))


def is_amazon_2023(path: Path) -> bool:
    """Whether the first line of a file of reviews or items has the keys of the 2023 release."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            return has_keys_of_2023(json.loads(file.readline(2**24)))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError):  # whoever reads it all says what is wrong
        return False


def has_keys_of_2023(line: object) -> bool:
    """Whether a parsed line is a review or an item of the 2023 release."""
    return isinstance(line, dict) and "parent_asin" in line and "reviewerID" not in line


def stem(path: Path) -> str:
    """`reviews_Books_5.json.gz` as `reviews_Books_5`."""
    return path.name.removesuffix(".gz").removesuffix(".json").removesuffix(".jsonl")


def alibaba_files(named: str | None = None) -> Path:
    """The folder of the ads: `named`, $INTTOWER_DATA or data/. Raises UserError where none holds the files."""
    what = f"the Alibaba display ads ({', '.join(ALIBABA_FILES)})"
    found = find_data(named, find_alibaba, what, advice=WHERE_ALIBABA_IS)
    if found is None:
        raise UserError(f"{DATA_FOLDER.name}/alibaba: expected {what}, got none of them. {WHERE_ALIBABA_IS}")
    return found.parent if found.is_file() else found


def find_alibaba(folder: Path) -> Path | None:
    """The folder that holds raw_sample.csv, packed or not: this one or its alibaba/; None where neither does."""
    places = (folder, folder / "alibaba")
    return next((place for place in places if packed_or_not(place / RAW_SAMPLE).is_file()), None)


def packed_or_not(path: Path) -> Path:
    """A file's path, or, where it is not there, that of the same file packed by gzip if that is."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path
