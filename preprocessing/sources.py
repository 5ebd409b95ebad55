"""Where the raw files of a dataset are looked for: a named path, the environment, data/.

Needs nothing but Python, so that a path that is missing is told before anything heavy is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from preprocessing.errors import UserError

DATA_FOLDER = Path(__file__).resolve().parent.parent / "data"
CACHE_FOLDER = DATA_FOLDER / "cache"  # of encoded tables
ENVIRONMENT_VARIABLE = "INTTOWER_DATA"

MOVIELENS_FILES = RATINGS, USERS, MOVIES = "ratings.dat", "users.dat", "movies.dat"
MOVIELENS_ARCHIVE = "ml-1m.zip"

REVIEWS, META = "reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"
REVIEWS_OF_FOLDER = (REVIEWS, "Electronics_5.json.gz", "reviews_Electronics_5.json", "Electronics_5.json", "amazon.csv")

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


def find_movielens(folder: Path) -> Path | None:
    """The MovieLens files in a folder, or None: ratings.dat itself, ml-1m/, ml-1m.zip or movielens.csv/.txt."""
    if (folder / RATINGS).is_file():
        return folder
    if (folder / "ml-1m" / RATINGS).is_file():
        return folder / "ml-1m"
    for name in (MOVIELENS_ARCHIVE, "movielens.csv", "movielens.txt"):
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
    category = stem(path).removeprefix("reviews_").removesuffix("_5")
    for name in (f"meta_{category}.json.gz", f"meta_{category}.json"):
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
    """Whether a file is the released CSV, by its name."""
    return Path(path).name.lower().endswith((".csv", ".csv.gz", ".txt"))


def stem(path: Path) -> str:
    """`reviews_Books_5.json.gz` as `reviews_Books_5`."""
    return path.name.removesuffix(".gz").removesuffix(".json")


def alibaba_files(named: str | None = None) -> Path:
    """The folder of the ads: `named`, $INTTOWER_DATA or data/. Raises UserError where none holds the files."""
    what = f"the Alibaba display ads ({', '.join(ALIBABA_FILES)})"
    found = find_data(named, find_alibaba, what, advice=WHERE_ALIBABA_IS)
    if found is None:
        raise UserError(f"{DATA_FOLDER.name}/alibaba: expected {what}, got none of them. {WHERE_ALIBABA_IS}")
    return found.parent if found.is_file() else found


def find_alibaba(folder: Path) -> Path | None:
    """The folder that holds raw_sample.csv: this one or its alibaba/; None where neither does."""
    return next((place for place in (folder, folder / "alibaba") if (place / RAW_SAMPLE).is_file()), None)
