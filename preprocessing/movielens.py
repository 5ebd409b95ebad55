"""MovieLens-1M: from the official archive, its folder or the released single CSV to three encoded splits."""

from __future__ import annotations

import hashlib
import lzma
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.download import DownloadError, download
from preprocessing.encode import MeanField, SparseField, VarLenField
from preprocessing.errors import UserError
from preprocessing.gzip_lines import HEAD, content_of, other_format
from preprocessing.interactions import Fields, Interactions, check_protocol, data_fingerprint, encode_interactions
from preprocessing.known import Known
from preprocessing.sample_movielens import write_movielens_sample
from preprocessing.sources import (
    DATA_FOLDER,
    MOVIELENS_ARCHIVE,
    MOVIES,
    RATINGS,
    USERS,
    instead_of_movielens_1m,
    is_csv,
    movielens_files,
)
from preprocessing.statistics import shaping, with_statistics
from preprocessing.synthetic import SAMPLE_PROBABILITIES, parse_probabilities
from preprocessing.tables import Dataset
from preprocessing.text_tables import parse_csv, parse_separated

OFFICIAL_FILES = {
    RATINGS: {"user_id": "int", "movie_id": "int", "rating": "int", "timestamp": "int"},
    USERS: {"user_id": "int", "gender": "str", "age": "int", "occupation": "int", "zipcode": "str"},
    MOVIES: {"movie_id": "int", "title": "str", "genres": "str"},
}
RELEASED_CSV = {
    "user_id": "int",
    "movie_id": "int",
    "rating": "int",
    "timestamp": "int",
    "gender": "str",
    "age": "int",
    "occupation": "int",
    "zipcode": "str",
    "title": "str",
    "genres": "str",
}
USER_FIELDS = {
    "user_id": SparseField,
    "gender": SparseField,
    "age": SparseField,
    "occupation": SparseField,
    "user_mean_rating": MeanField,
}
ITEM_FIELDS = {"movie_id": SparseField, "genres": VarLenField, "item_mean_rating": MeanField}

ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
ARCHIVE_BYTES = 5_917_549
ARCHIVE_SHA256 = "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"


@dataclass
class RawMovieLens:
    """The three raw tables, cleaned, and what was seen on the way."""

    ratings: pd.DataFrame  # user_id, movie_id, rating, timestamp
    users: pd.DataFrame  # user_id, gender, age, occupation
    movies: pd.DataFrame  # movie_id, title, genres
    sha256: str
    probabilities: np.ndarray | None = None  # of label 1, a row per rating; synthetic data only
    counts: dict[str, int] = field(default_factory=dict)
    ratings_file: str = RATINGS


def load_movielens(
    path: str | Path,
    protocol: str = "strict",
    embedding_dim: int = 32,
    split_seed: int = 1023,
    strict_data: bool = False,
    statistics: str = "means",
    label_delay: float = 0.0,
    known: Known | None = None,
) -> Dataset:
    """Read, split and encode MovieLens-1M.

    The label is 1 for a rating above 3 and 0 below; ratings of exactly 3 are left out. Users have user_id,
    gender, age, occupation and user_mean_rating; movies have movie_id, genres (multi-hot, mean-pooled) and
    item_mean_rating. The splits depend on `protocol` and `split_seed` alone.

    Args:
        path: ml-1m.zip, a folder with ratings.dat, users.dat and movies.dat, or the released CSV (.csv, .csv.gz).
        protocol: "strict", "paper", "temporal" or "online"; see preprocessing/protocols.py.
        strict_data: refuse ratings of unknown users or movies, where the default drops and counts them, and ratings
            that repeat another.
        statistics: "means", "residuals" or "crossed"; see preprocessing/statistics.py. Residuals are crossed by genre,
            and by gender and age.
        label_delay: seconds until a label is known, of online.
        known: of an earlier run, whose vocabularies these only add to.
    Raises UserError for whatever is wrong with the files.
    """
    check_protocol(protocol)
    start = time.perf_counter()
    raw = read_movielens(path, strict_data)
    fields = fields_of(protocol, statistics)
    fingerprint = fingerprint_of(raw, protocol, split_seed, statistics, label_delay, known)
    data = encode_interactions(
        *(as_interactions(raw), *fields, protocol, split_seed, embedding_dim, fingerprint),
        strict_data=strict_data,
        label_delay=label_delay,
        known=known,
    )
    data.source, data.seconds = str(path), time.perf_counter() - start
    return data


def fingerprint_of(
    raw: RawMovieLens,
    protocol: str,
    split_seed: int,
    statistics: str = "means",
    label_delay: float = 0.0,
    known: Known | None = None,
) -> str:
    """The fingerprint that `load_movielens` gives such data."""
    shaped_by = shaping(protocol, statistics, label_delay, known)
    return data_fingerprint(raw.sha256, protocol=protocol, split_seed=split_seed, **shaped_by)


def fields_of(protocol: str, statistics: str = "means") -> tuple[Fields, Fields]:
    """The users' and the movies' fields."""
    return with_statistics(protocol, statistics, USER_FIELDS, ITEM_FIELDS, "genres", ("gender", "age"))


def as_interactions(raw: RawMovieLens) -> Interactions:
    """The ratings that have a label, with the users and movies they name."""
    kept = np.flatnonzero(raw.ratings["rating"].to_numpy() != 3)
    ratings = raw.ratings.iloc[kept]
    return Interactions(
        name="movielens",
        users=raw.users,
        items=raw.movies,
        user_of_row=pd.Index(raw.users["user_id"]).get_indexer(ratings["user_id"]),
        item_of_row=pd.Index(raw.movies["movie_id"]).get_indexer(ratings["movie_id"]),
        labels=(ratings["rating"].to_numpy() > 3).astype(np.int8),
        times=ratings["timestamp"].to_numpy(),
        rows=ratings.index.to_numpy(),
        probabilities=None if raw.probabilities is None else raw.probabilities[kept],
        counts=raw.counts | {"ratings_of_3_left_out": len(raw.ratings) - len(kept)},
        file=raw.ratings_file,
    )


def read_movielens(path: str | Path, strict_data: bool = False) -> RawMovieLens:
    """Read the raw tables and drop what contradicts itself; see `load_movielens` for the arguments."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: expected MovieLens-1M, got no such file or folder; check the path.")
    if path.name in OFFICIAL_FILES:
        raise UserError(
            f"{path}: expected an archive, a folder or the released CSV, got one of their files; name its folder."
        )
    of_csv = path.is_file() and is_csv(path)
    raw = _read_released_csv(path) if of_csv else _read_official(path)
    ratings = raw.ratings
    outside = np.flatnonzero(~ratings["rating"].between(1, 5))
    if len(outside):
        # A quoted title may hold line breaks, so a CSV's rows are no lines.
        where = f"{path.name}, row {outside[0] + 1} below the header" if of_csv else f"{RATINGS}, line {outside[0] + 1}"
        raise UserError(
            f"{where}: expected a rating from 1 to 5, got {ratings['rating'].iloc[outside[0]]}; "
            f"{len(outside)} such rating(s), mend or remove them."
        )
    raw.counts["ratings_read"] = len(ratings)
    if of_csv:
        raw.ratings_file = path.name
    for key, frame, where in (("user_id", raw.users, USERS), ("movie_id", raw.movies, MOVIES)):
        repeated = frame[key][frame[key].duplicated()]
        if len(repeated):
            raise UserError(
                f"{where}: expected each {key} once, got {repeated.iloc[0]} again; remove the repeated lines."
            )
        known = raw.ratings[key].isin(frame[key]).to_numpy()
        if not known.all():
            missing = raw.ratings[key][~known].unique()
            named = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            if strict_data:
                raise UserError(
                    f"{where}: expected every rated {key}, {len(missing)} missing ({named}) with {(~known).sum()} "
                    "ratings; complete the file, or leave out --strict-data to drop those ratings."
                )
            raw.counts[f"ratings_dropped_{key}_not_in_{where}"] = int((~known).sum())
            print(f"{where}: {len(missing)} rated {key}(s) missing ({named}); dropped their {(~known).sum()} ratings.")
            raw.ratings = raw.ratings[known]
            if raw.probabilities is not None:
                raw.probabilities = raw.probabilities[known]
    raw.counts["ratings_kept"] = len(raw.ratings)
    return raw


def locate_movielens(named: str | None = None) -> Path:
    """The files to train on: see movielens_files; else the official download, or the synthetic sample.

    Raises UserError where a named place does not hold them, or a download has the wrong checksum.
    """
    found = movielens_files(named)
    if found is not None:
        return found
    print(f"no MovieLens-1M in {DATA_FOLDER.name}/; fetching {ARCHIVE_URL}", flush=True)
    try:
        return download(ARCHIVE_URL, DATA_FOLDER / MOVIELENS_ARCHIVE, ARCHIVE_SHA256, ARCHIVE_BYTES)
    except DownloadError as error:
        print(error)
        return write_movielens_sample(DATA_FOLDER / "sample-movielens")


def _read_official(path: Path) -> RawMovieLens:
    contents = _read_zip(path) if path.is_file() else _read_folder(path)
    frames = {name: parse_separated(name, contents[name], b"::", columns) for name, columns in OFFICIAL_FILES.items()}
    digest = hashlib.sha256(b"".join(hashlib.sha256(contents[name]).digest() for name in OFFICIAL_FILES)).hexdigest()
    probabilities = None
    if SAMPLE_PROBABILITIES in contents:
        probabilities = parse_probabilities(contents[SAMPLE_PROBABILITIES], len(frames[RATINGS]))
    return RawMovieLens(frames[RATINGS], frames[USERS], frames[MOVIES], digest, probabilities)


def _read_folder(folder: Path) -> dict[str, bytes]:
    contents = {}
    for name in OFFICIAL_FILES:
        if not (folder / name).is_file():
            other = instead_of_movielens_1m(place.name for place in folder.iterdir())
            got = f"{other}." if other else f"no {name}; add or rename it."
            raise UserError(f"{folder}: expected {', '.join(OFFICIAL_FILES)}, got {got}")
        contents[name] = content_of(folder / name)
    if (folder / SAMPLE_PROBABILITIES).is_file():
        contents[SAMPLE_PROBABILITIES] = (folder / SAMPLE_PROBABILITIES).read_bytes()
    return contents


# What zipfile raises for broken packing; RuntimeError where the list of members and the members disagree.
_DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError)


def _read_zip(path: Path) -> dict[str, bytes]:
    """The members are read in place; nothing is unpacked to disk, so no path in an archive can lead anywhere."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head.startswith(b"PK") and (path.suffix.lower() != ".zip" or other_format(head)):
        got = other_format(head) or "a file of another kind"
        raise UserError(f"{path}: expected {MOVIELENS_ARCHIVE}, a folder or a CSV (.csv, .csv.gz, .txt), got {got}.")
    try:
        with zipfile.ZipFile(path) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            members = {Path(info.filename).name: info for info in files}
            missing = [name for name in OFFICIAL_FILES if name not in members]
            if missing:
                got = instead_of_movielens_1m(members) or f"no {', '.join(missing)}"
                raise UserError(f"{path}: expected {', '.join(OFFICIAL_FILES)} inside, got {got}.")
            repeated = [n for n in OFFICIAL_FILES if sum(Path(info.filename).name == n for info in files) > 1]
            if repeated:
                raise UserError(f"{path}: expected one {repeated[0]} inside, got several; keep one.")
            wanted = [name for name in (*OFFICIAL_FILES, SAMPLE_PROBABILITIES) if name in members]
            if locked := next((name for name in wanted if members[name].flag_bits & 1), None):
                raise UserError(
                    f"{path}: expected an archive without a password, got one with a password on {locked}; unpack it, "
                    "and name the folder with --data."
                )
            return {name: archive.read(members[name]) for name in wanted}
    except NotImplementedError as error:
        raise UserError(
            f"{path}: expected an archive that Python unpacks, got another ({error}); unpack it, and name the folder "
            "with --data."
        ) from error
    except _DAMAGED_ARCHIVE as error:
        if getattr(error, "errno", None) is not None:  # the disk, not the archive
            raise
        raise UserError(
            f"{path}: expected a whole zip archive, got a damaged one ({error}); fetch it again."
        ) from error


def _read_released_csv(path: Path) -> RawMovieLens:
    content = content_of(path)
    frame = parse_csv(path.name, content, RELEASED_CSV)
    users = _said_once(path, frame, ["user_id", "gender", "age", "occupation", "zipcode"])
    movies = _said_once(path, frame, ["movie_id", "title", "genres"])
    ratings = frame[["user_id", "movie_id", "rating", "timestamp"]]
    return RawMovieLens(ratings, users, movies, hashlib.sha256(content).hexdigest())


def _said_once(path: Path, frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The distinct rows of some columns; raises UserError where two of them have the first column in common."""
    table = frame[columns].drop_duplicates()
    repeated = table[table[columns[0]].duplicated()]
    if len(repeated):
        key = columns[0]
        raise UserError(
            f"{path.name}, row {repeated.index[0] + 1} below the header: expected {', '.join(columns[1:])} as in the "
            f"other rows of {key} {repeated[key].iloc[0]}, got others; mend or remove the row."
        )
    return table
