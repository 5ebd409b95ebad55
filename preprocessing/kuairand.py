"""KuaiRand-Pure (Kuaishou, short videos, 2022): from the raw CSV files or their archive to three encoded splits.

The rows are the standard logs. Two of the files are never read. log_random_*.csv holds videos that were dealt out at
random, another distribution than what a recommender shows. video_features_statistic_pure.csv counts each video's plays
and clicks over the whole period, those of the test rows among them: a leak.
"""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from preprocessing.cache import cached, sha256_of_files
from preprocessing.choices import KUAIRAND_LABELS
from preprocessing.download import DownloadError, download
from preprocessing.encode import MeanField, MissingField, NumberField, SparseField, VarLenField
from preprocessing.errors import UserError
from preprocessing.gzip_lines import opened
from preprocessing.interactions import Fields, Interactions, check_protocol, data_fingerprint, encode_interactions
from preprocessing.known import Known
from preprocessing.parquet_tables import read_blocks
from preprocessing.sample_kuairand import write_kuairand_sample
from preprocessing.sources import (
    DATA_FOLDER,
    KUAIRAND_ARCHIVE,
    KUAIRAND_LOGS,
    KUAIRAND_USERS,
    KUAIRAND_VIDEOS,
    WHERE_KUAIRAND_IS,
    find_kuairand,
    kuairand_files,
    kuairand_logs,
    overlapping_logs,
    packed_or_not,
    plain_name,
)
from preprocessing.statistics import shaping, with_statistics
from preprocessing.synthetic import SAMPLE_PROBABILITIES, parse_probabilities
from preprocessing.tables import Dataset
from preprocessing.text_tables import check_zero_or_one, table_of

# As parquet_tables.read_blocks takes them; a log's label is added. Whole numbers may be written as "1" or "1.0". What
# else a log says of a row (is_like, play_time_ms, ...) came after the video was shown, so it is no feature.
LOG = {"user_id": "int", "video_id": "int", "time_ms": "int", "tab": "int?"}
FILES = {
    KUAIRAND_USERS: {
        "user_id": "int",
        "user_active_degree": "str?",
        "follow_user_num_range": "str?",
        "fans_user_num_range": "str?",
        "friend_user_num_range": "str?",
        "register_days_range": "str?",
        **{f"onehot_feat{number}": "int?" for number in range(18)},
    },
    KUAIRAND_VIDEOS: {
        "video_id": "int",
        "author_id": "int?",
        "video_type": "str?",
        "upload_type": "str?",
        "music_id": "int?",
        "tag": "str?",
        "video_duration": "number?",
    },
}
USER_FIELDS = {**dict.fromkeys(FILES[KUAIRAND_USERS], SparseField), "user_mean_click": MeanField}
# tab, the page of the app, belongs to the row and not to the video; it stands in the item tower as Alibaba's pid does.
ITEM_FIELDS = {
    **dict.fromkeys(("video_id", "author_id", "video_type", "upload_type", "music_id"), SparseField),
    "tag": VarLenField,
    "tab": SparseField,
    "video_mean_click": MeanField,
    "video_duration": NumberField,
    "video_duration_missing": MissingField,
}

ARCHIVE_URL = f"https://zenodo.org/records/10439422/files/{KUAIRAND_ARCHIVE}"


def load_kuairand(
    path: str | Path,
    protocol: str = "strict",
    embedding_dim: int = 32,
    split_seed: int = 1023,
    strict_data: bool = False,
    label: str = "is_click",
    statistics: str = "means",
    label_delay: float = 0.0,
    known: Known | None = None,
    cache: str | Path | None = None,
) -> Dataset:
    """Read, join, split and encode KuaiRand-Pure.

    Users and videos have what USER_FIELDS and ITEM_FIELDS say; tag (several values, mean-pooled) is of the video, tab
    of the row, and the two means are of the label, whichever that is. A missing value is out-of-vocabulary; a missing
    duration is the mean of the training videos' durations. Users and videos that are missing from their tables stay in.

    Args:
        path: KuaiRand-Pure.tar.gz, or a folder with the CSV files (.csv, .csv.gz or .parquet) in it or in its data/.
        protocol: "strict", "paper", "temporal" or "online"; see preprocessing/protocols.py.
        strict_data: refuse rows whose user or video is missing from its table, and rows that repeat another, where the
            default keeps and counts them.
        label: "is_click" or "long_view".
        statistics: "means", "residuals" or "crossed"; see preprocessing/statistics.py. Residuals are crossed by tag
            and by the users' degree of activity.
        label_delay: seconds until a label is known, of online.
        known: of an earlier run, whose vocabularies these only add to.
        cache: a folder for the encoded tables, from which they are then read as memory-mapped files; None keeps none.
    Raises UserError for whatever is wrong with the files.
    """
    check_protocol(protocol)
    if label not in KUAIRAND_LABELS:
        raise UserError(f"label: expected one of {', '.join(KUAIRAND_LABELS)}, got {label!r}.")
    start = time.perf_counter()
    place = _place(Path(path))
    sha256 = sha256_of_files([place] if place.is_file() else list(_paths(place).values()))
    shaped_by = shaping(protocol, statistics, label_delay, known)
    fingerprint = data_fingerprint(sha256, protocol=protocol, split_seed=split_seed, label=label, **shaped_by)

    def build() -> Dataset:
        raw = read_kuairand(place, strict_data, label)
        return encode_interactions(
            *(raw, *fields_of(protocol, statistics), protocol, split_seed, embedding_dim, fingerprint),
            released_per_part=False,
            strict_data=strict_data,
            label_delay=label_delay,
            known=known,
        )

    # What is refused with strict_data has its own cache, or the other's would be taken.
    name = f"kuairand-{label}-{protocol}{'-checked' if strict_data else ''}"
    data = cached(cache, name, fingerprint, build)
    data.embedding_dim, data.source, data.seconds = embedding_dim, str(path), time.perf_counter() - start
    return data


def fields_of(protocol: str, statistics: str = "means") -> tuple[Fields, Fields]:
    """The users' and the videos' fields."""
    return with_statistics(protocol, statistics, USER_FIELDS, ITEM_FIELDS, "tag", ("user_active_degree",))


def read_kuairand(path: str | Path, strict_data: bool = False, label: str = "is_click") -> Interactions:
    """Read the raw tables and join them by row; see `load_kuairand` for the arguments."""
    place = _place(Path(path))
    files = _members(place) if place.is_file() else _paths(place)

    def blocks(name: str, columns: dict[str, str]) -> Iterator[pd.DataFrame]:
        file = files[name]
        path, content = (file, None) if isinstance(file, Path) else (name, file)
        return read_blocks(path, columns, content=content)

    logs, of_logs = kuairand_logs(files), []
    for name in logs:
        row = 0
        for block in blocks(name, LOG | {label: "int"}):
            check_zero_or_one(block[label], getattr(files[name], "name", name).removesuffix(".gz"), row)
            row += len(block)
            of_logs.append(block)
    rows = pd.concat(of_logs, ignore_index=True)
    counts, file = {"rows_read": len(rows)}, ", ".join(logs)
    user_of_row, user_ids = pd.factorize(rows["user_id"].to_numpy())
    video_of_row, video_ids = pd.factorize(rows["video_id"].to_numpy())
    users, videos = (
        table_of(name, blocks(name, FILES[name]), ids, np.bincount(of_row), file, counts, strict_data)
        for name, ids, of_row in ((KUAIRAND_USERS, user_ids, user_of_row), (KUAIRAND_VIDEOS, video_ids, video_of_row))
    )
    # VarLenField's own way to write a list.
    videos["tag"] = videos["tag"].astype(object).map(lambda tags: tags.replace(",", "|"), na_action="ignore")
    probabilities = files.get(SAMPLE_PROBABILITIES)
    if isinstance(probabilities, Path):
        probabilities = probabilities.read_bytes()
    return Interactions(
        name="kuairand" if label == KUAIRAND_LABELS[0] else f"kuairand-{label}",
        users=users,
        items=videos,
        user_of_row=user_of_row.astype(np.int32),
        item_of_row=video_of_row.astype(np.int32),
        labels=rows[label].to_numpy(np.int8),
        times=rows["time_ms"].to_numpy(),
        rows=np.arange(len(rows)),
        context={"tab": rows["tab"]},
        probabilities=None if probabilities is None else parse_probabilities(probabilities, len(rows)),
        counts=counts,
        file=file,
    )


def locate_kuairand(named: str | None = None) -> Path:
    """The files to train on: see kuairand_files; else the official archive, fetched, or the synthetic sample."""
    found = kuairand_files(named)
    if found is not None:
        return found
    print(f"no KuaiRand-Pure in {DATA_FOLDER.name}/; fetching {ARCHIVE_URL}", flush=True)
    try:
        return download(ARCHIVE_URL, DATA_FOLDER / "kuairand" / KUAIRAND_ARCHIVE)
    except DownloadError as error:
        print(error)
        return write_kuairand_sample(DATA_FOLDER / "sample-kuairand")


def _place(path: Path) -> Path:
    """The archive, or the folder of the CSV files."""
    found = path if path.is_file() else find_kuairand(path)
    if found is None:
        raise UserError(
            f"{path}: expected {KUAIRAND_ARCHIVE} or {KUAIRAND_LOGS}, got none of them. {WHERE_KUAIRAND_IS}"
        )
    return found


def _paths(folder: Path) -> dict[str, Path]:
    """The files that are read, by their official names, of a folder."""
    names = {plain_name(path.name) for path in folder.iterdir() if path.is_file()}
    return {name: packed_or_not(folder / name) for name in _checked(folder, names)}


def _members(path: Path) -> dict[str, bytes]:
    """What the files that are read hold, by their official names, of the archive.

    It is read once from its start to its end, and nothing is unpacked to disk, so no path in it can lead anywhere.
    """
    contents = {}
    try:
        with opened(path, is_text=False) as file:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    if not (member.isfile() and _is_read(name)):
                        continue
                    if name in contents:
                        raise UserError(f"{path}: expected one {name} inside, got several; keep one.")
                    contents[name] = archive.extractfile(member).read()
            while file.read(2**20):  # to the end, where gzip's own checksum stands
                pass
    except tarfile.TarError as error:
        raise UserError(
            f"{path}: expected {KUAIRAND_ARCHIVE} as it was published, got a damaged archive or another file "
            f"({error}); fetch it again."
        ) from error
    return {name: contents[name] for name in _checked(path, contents)}


def _is_read(name: str) -> bool:
    return name in (*FILES, SAMPLE_PROBABILITIES) or bool(kuairand_logs([name]))


def _checked(where: Path, names: Iterable[str]) -> list[str]:
    """Those of the names that are read, in order; raises UserError where one is missing or two logs overlap."""
    logs = kuairand_logs(names)
    missing = [name for name in FILES if name not in names] + ([] if logs else [KUAIRAND_LOGS])
    if missing:
        raise UserError(
            f"{where}: expected {KUAIRAND_LOGS}, {', '.join(FILES)}, got no {', '.join(missing)}. {WHERE_KUAIRAND_IS}"
        )
    if overlapping := overlapping_logs(logs):
        raise UserError(
            f"{where}: expected logs of different days, got {' and '.join(overlapping)}, which share some; remove one."
        )
    return [*logs, *FILES, *(name for name in names if name == SAMPLE_PROBABILITIES)]
