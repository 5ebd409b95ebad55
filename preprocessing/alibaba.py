"""Alibaba display ads (Tianchi): from the three raw CSV files to three encoded splits.

Rows whose ad or user is missing from its own table stay in: the id is known, everything else about it is
out-of-vocabulary. An inner join would drop about one row in twenty.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.cache import cached, sha256_of_files
from preprocessing.choices import check_memory
from preprocessing.encode import NumberField, SparseField
from preprocessing.errors import UserError
from preprocessing.interactions import (
    Coded,
    Fields,
    Interactions,
    check_protocol,
    data_fingerprint,
    encode_interactions,
)
from preprocessing.known import Known
from preprocessing.parquet_tables import read_blocks
from preprocessing.sources import AD_FEATURE, RAW_SAMPLE, USER_PROFILE, WHERE_ALIBABA_IS, packed_or_not
from preprocessing.space import Column, InMemory, blocks, row_type
from preprocessing.statistics import shaping, with_statistics
from preprocessing.synthetic import SAMPLE_PROBABILITIES, load_probabilities, probabilities_in
from preprocessing.tables import Dataset
from preprocessing.text_tables import Numbered, check_zero_or_one, fault_at, table_of

# As parquet_tables.read_blocks takes them; the headers' surplus spaces do not count.
FILES = {
    RAW_SAMPLE: {"user": "int", "time_stamp": "int", "adgroup_id": "int", "pid": "str?", "clk": "int"},
    AD_FEATURE: {
        "adgroup_id": "int",
        "cate_id": "int?",
        "campaign_id": "int?",
        "customer": "int?",
        "brand": "int?",
        "price": "number?",
    },
    USER_PROFILE: {
        "userid": "int",
        "cms_segid": "int?",
        "cms_group_id": "int?",
        "final_gender_code": "int?",
        "age_level": "int?",
        "pvalue_level": "int?",
        "shopping_level": "int?",
        "occupation": "int?",
        "new_user_class_level": "int?",
    },
}
USER_FIELDS = dict.fromkeys(FILES[USER_PROFILE], SparseField)
# pid, the place on the page, belongs to the row and not to the ad; the released code has it in the item tower.
ITEM_FIELDS = {
    **dict.fromkeys(("adgroup_id", "cate_id", "campaign_id", "customer", "brand", "pid"), SparseField),
    "price": NumberField,
}


def load_alibaba(
    path: str | Path,
    protocol: str = "strict",
    embedding_dim: int = 32,
    split_seed: int = 1023,
    strict_data: bool = False,
    sample_rate: float = 1.0,
    statistics: str = "means",
    label_delay: float = 0.0,
    known: Known | None = None,
    cache: str | Path | None = None,
    memory: float | None = None,
) -> Dataset:
    """Read, join, split and encode the Alibaba display ads.

    The label is the click. Users have the fields of user_profile.csv, ads those of ad_feature.csv and the pid of
    the row. A missing value is out-of-vocabulary; a missing price is the mean of the training ads' prices.

    Args:
        path: the folder of raw_sample.csv, ad_feature.csv and user_profile.csv, or the same as .csv.gz or .parquet.
        protocol: "strict", "paper", "temporal" or "online"; see preprocessing/protocols.py. Where no feature is made of
            labels, none of the four leaks any.
        strict_data: refuse rows whose user or ad is missing from its table, and rows that repeat another, where the
            default keeps and counts them.
        sample_rate: the share of users to keep, with all their rows.
        statistics: "means", of which there are none, "residuals" or "crossed"; see preprocessing/statistics.py. Ads'
            residuals are crossed by gender and age; users' are not, the categories are too many for a vector.
        label_delay: seconds until a label is known, of online.
        known: of an earlier run, whose vocabularies these only add to.
        cache: a folder for the encoded tables, from which they are then read as memory-mapped files; None keeps none.
        memory: in GiB, what building the cache may take; None: all that it wants. The tables are the same.
    Raises UserError for whatever is wrong with the files, and for too little memory.
    """
    check_protocol(protocol)
    if not 0 < sample_rate <= 1:
        raise UserError(f"--sample-rate: expected a share above 0 and of at most 1, got {sample_rate}.")
    check_memory(memory, statistics, cache is not None)
    start = time.perf_counter()
    folder = Path(path)
    files = [packed_or_not(folder / name) for name in FILES]
    for file in files:
        if not file.is_file():
            raise UserError(f"{folder}: expected {', '.join(FILES)}, got no {file.name}. {WHERE_ALIBABA_IS}")
    sha256 = sha256_of_files([*files, *probabilities_in(folder)])
    shaped_by = shaping(protocol, statistics, label_delay, known)
    fingerprint = data_fingerprint(
        sha256, protocol=protocol, split_seed=split_seed, sample_rate=sample_rate, **shaped_by
    )

    def build(space: InMemory | None = None) -> Dataset:
        raw = read_alibaba(folder, strict_data, sample_rate, space)
        return encode_interactions(
            *(raw, *fields_of(protocol, statistics), protocol, split_seed, embedding_dim, fingerprint),
            strict_data=strict_data,
            label_delay=label_delay,
            known=known,
        )

    # What is refused with strict_data has its own cache, or the other's would be taken.
    data = cached(cache, f"alibaba-{protocol}{'-checked' if strict_data else ''}", fingerprint, build, memory)
    data.embedding_dim, data.source, data.seconds = embedding_dim, str(path), time.perf_counter() - start
    return data


def fields_of(protocol: str, statistics: str = "means") -> tuple[Fields, Fields]:
    """The users' and the ads' fields."""
    groups = ("final_gender_code", "age_level")
    return with_statistics(protocol, statistics, USER_FIELDS, ITEM_FIELDS, user_groups=groups)


def read_alibaba(
    folder: Path, strict_data: bool = False, sample_rate: float = 1.0, space: InMemory | None = None
) -> Interactions:
    """Read the raw tables and join them by row; see `load_alibaba` for the arguments.

    Args:
        space: where the rows go.
    """
    space = space or InMemory()
    columns = {name: space.column() for name in ("user", "ad", "pid", "click", "time", "row")}
    users, ads, pids = Numbered(), Numbered(), Numbered()
    num_read, path = 0, packed_or_not(folder / RAW_SAMPLE)
    name = path.name.removesuffix(".gz")
    # The file says each click twice, as clk and as the opposite, nonclk.
    for block in read_blocks(path, FILES[RAW_SAMPLE], if_there={"nonclk": "int"}):
        check_zero_or_one(block["clk"], name, num_read)
        if "nonclk" in block:
            odd = np.flatnonzero((block["nonclk"] + block["clk"] != 1).to_numpy())
            if len(odd):
                clk, nonclk = block[["clk", "nonclk"]].iloc[odd[0]]
                raise fault_at(name, num_read + odd[0], f"expected nonclk {1 - clk} beside clk {clk}, got {nonclk}")
        kept = np.flatnonzero(_is_sampled(block["user"].to_numpy(), sample_rate))
        block_rows = (num_read + kept).astype(row_type(num_read + len(block)))
        num_read += len(block)
        block = block.iloc[kept]
        pid = block["pid"].cat
        of_block = {
            "user": users.places(block["user"].to_numpy()),
            "ad": ads.places(block["adgroup_id"].to_numpy()),
            "pid": np.append(pids.places(pid.categories), np.int32(-1))[pid.codes],  # a missing one has the code -1
            "click": block["clk"].to_numpy(np.int8),
            "time": block["time_stamp"].to_numpy(),
            "row": block_rows,
        }
        for column, values in of_block.items():
            columns[column].append(values)
    columns = {column: appended.finish() for column, appended in columns.items()}
    counts = {"rows_read": num_read, "rows_kept": len(columns["row"])}
    user_frame, ad_frame = (
        table_of(
            *(name, read_blocks(packed_or_not(folder / name), FILES[name])),
            *(found.ids.to_numpy(), found.num_rows, RAW_SAMPLE, counts, strict_data),
        )
        for name, found in ((USER_PROFILE, users), (AD_FEATURE, ads))
    )
    return Interactions(
        name="alibaba",
        users=user_frame,
        items=ad_frame,
        user_of_row=columns["user"],
        item_of_row=columns["ad"],
        labels=columns["click"],
        times=columns["time"],
        rows=columns["row"],
        context={"pid": Coded(pd.Series(pids.ids), columns["pid"])},
        probabilities=_probabilities(folder, num_read, columns["row"], space),
        counts=counts,
        file=RAW_SAMPLE,
        space=space,
    )


def _probabilities(folder: Path, num_read: int, rows: np.ndarray, space: InMemory) -> np.ndarray | None:
    """(N,) of the rows that are kept; None where the data are not synthetic."""
    if load_probabilities(folder, num_read) is None:
        return None
    of_file, column = Column(folder / SAMPLE_PROBABILITIES), space.column()
    for block in blocks(len(rows)):
        column.append(of_file[rows[block]])
    return column.finish()


def _is_sampled(users: np.ndarray, rate: float) -> np.ndarray:
    """Whether each user is among the share that is kept: by a hash of the id (splitmix64), whatever the order."""
    if rate == 1:
        return np.ones(len(users), dtype=bool)
    mixed = users.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(31))) < np.uint64(rate * 2**63) * np.uint64(2)
