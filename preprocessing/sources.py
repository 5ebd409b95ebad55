"""Where the raw files of a dataset are looked for: a named path, the environment, data/.

Needs nothing but Python, so that a path that is missing is told before anything heavy is imported.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from preprocessing.errors import UserError

DATA_FOLDER = Path(__file__).resolve().parent.parent / "data"
CACHE_FOLDER = DATA_FOLDER / "cache"  # of encoded tables
ENVIRONMENT_VARIABLE = "INTTOWER_DATA"
PARQUET = ".parquet"  # in the place of .csv

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
    *("Electronics.jsonl.gz", "Electronics.jsonl"),  # of 2023
    *("amazon.csv", "amazon.csv.gz"),
)
AMAZON_RELEASES = ("2014", "2018", "2023")

ALIBABA_FILES = RAW_SAMPLE, AD_FEATURE, USER_PROFILE = "raw_sample.csv", "ad_feature.csv", "user_profile.csv"
WHERE_ALIBABA_IS = (
    "They need a login at https://tianchi.aliyun.com/dataset/dataDetail?dataId=56: put the three CSV files, unpacked, "
    f"into {DATA_FOLDER.name}/alibaba/, or name their folder with --data. To try the script on invented data: "
    "python -m preprocessing.sample alibaba data/alibaba-sample, and --data data/alibaba-sample."
)

KUAIRAND_ARCHIVE = "KuaiRand-Pure.tar.gz"
KUAIRAND_USERS, KUAIRAND_VIDEOS = "user_features_pure.csv", "video_features_basic_pure.csv"
KUAIRAND_LOGS = "log_standard_*_pure.csv"
_KUAIRAND_LOG = re.compile(r"log_standard_(\d+)_(\d+)_to_(\d+)_(\d+)_pure\.csv")  # of its first to its last day
WHERE_KUAIRAND_IS = (
    f"It is public: fetch {KUAIRAND_ARCHIVE} from https://zenodo.org/records/10439422 and put it, packed or unpacked, "
    f"into {DATA_FOLDER.name}/kuairand/, or name it with --data. To try the script on invented data: "
    "python -m preprocessing.sample kuairand data/kuairand-sample, and --data data/kuairand-sample."
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
    category = stem(path).removeprefix("reviews_").removesuffix("_5")
    endings = ("json.gz", "json", "jsonl.gz", "jsonl")
    if ".jsonl" in path.suffixes:  # of 2023, whose meta file may lie beside that of another release
        endings = endings[2:] + endings[:2]
    for name in (f"meta_{category}.{ending}" for ending in endings):
        if (path.parent / name).is_file():
            return path, path.parent / name
    if path == DATA_FOLDER / "amazon" / REVIEWS:
        return None  # a download that broke off between the two files: it goes on
    raise UserError(
        f"{path.parent}: expected the meta file of {path.name} beside it (meta_{category}.{endings[0]}), got none; "
        "add it, or name it with --meta."
    )


def find_reviews(folder: Path) -> Path | None:
    """The reviews of Electronics in a folder or its amazon/; None where there are none."""
    places = (place / name for place in (folder, folder / "amazon") for name in REVIEWS_OF_FOLDER)
    return next((place for place in places if place.is_file()), None)


def is_csv(path: Path) -> bool:
    """Whether a file is the released CSV, by its name, packed by gzip or not."""
    return Path(path).name.lower().removesuffix(".gz").endswith((".csv", ".txt"))


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


def kuairand_files(named: str | None = None) -> Path | None:
    """KuaiRand-Pure's archive, or the folder of its CSV files, in `named`, $INTTOWER_DATA or data/.

    None where nothing was named and data/ has none. Raises UserError where a named place does not hold it.
    """
    what = f"KuaiRand-Pure ({KUAIRAND_ARCHIVE}, or {KUAIRAND_LOGS}, {KUAIRAND_USERS} and {KUAIRAND_VIDEOS})"
    found = find_data(named, find_kuairand, what, advice=WHERE_KUAIRAND_IS)
    return found.parent if found is not None and found.is_file() and is_csv(Path(plain_name(found.name))) else found


def find_kuairand(folder: Path) -> Path | None:
    """The folder that holds standard logs, packed or not, or the archive; None where neither is there.

    Looked for in the folder itself and its kuairand/ or kuairand-pure/, and in each as the archive unpacks.
    """
    for place in (folder, folder / "kuairand", folder / "kuairand-pure"):
        for unpacked in (place, place / "data", place / "KuaiRand-Pure" / "data"):
            if unpacked.is_dir() and kuairand_logs(path.name for path in unpacked.iterdir()):
                return unpacked
        if (place / KUAIRAND_ARCHIVE).is_file():
            return place / KUAIRAND_ARCHIVE
    return None


def kuairand_logs(names: Iterable[str]) -> list[str]:
    """The standard logs among files of these names, as CSV files, in the order of the names."""
    return sorted({plain for name in names if _KUAIRAND_LOG.fullmatch(plain := plain_name(name))})


def overlapping_logs(logs: list[str]) -> tuple[str, str] | None:
    """Two logs whose days overlap, by their names; None where no two do."""
    spans = []
    for name in logs:
        numbers = [int(number) for number in _KUAIRAND_LOG.fullmatch(name).groups()]
        spans.append((numbers[:2], numbers[2:], name))
    for (_, last_day, name), (first_day, _, other) in itertools.pairwise(sorted(spans)):
        if first_day <= last_day:
            return name, other
    return None


def packed_or_not(path: Path) -> Path:
    """A CSV's path, or, where it is not there, that of the same packed by gzip or kept as Parquet, if that is."""
    others = path.with_name(f"{path.name}.gz"), path.with_suffix(PARQUET)
    return next((each for each in (path, *others) if each.is_file()), path)


def plain_name(name: str) -> str:
    """The name of a CSV that may be packed by gzip or kept as Parquet."""
    return name.removesuffix(PARQUET) + ".csv" if name.endswith(PARQUET) else name.removesuffix(".gz")
