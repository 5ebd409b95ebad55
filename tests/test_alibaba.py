"""Alibaba display ads from three raw tables to encoded splits, and what is said of files that are wrong."""

import gzip
import json
import math
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tables
import torch
from shell import assert_refused, run
from tables import SPLITS, assert_same_features, assert_same_splits

import preprocessing.alibaba
import train_alibaba_IntTower
from model.IntTower import IntTower
from preprocessing import sources
from preprocessing.alibaba import FILES, load_alibaba
from preprocessing.alibaba import read_alibaba as read
from preprocessing.choices import PROTOCOLS
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat
from preprocessing.parquet_tables import read_blocks
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sources import AD_FEATURE, RAW_SAMPLE, USER_PROFILE, alibaba_files, find_alibaba
from preprocessing.synthetic import SAMPLE_PROBABILITIES
from training.generators import seed_everything
from training.trainer import Trainer

SCRIPT = "train_alibaba_IntTower.py"
# The headers of the real files; the last column's name ends with a space.
USER_HEADER = (
    "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,"
    "new_user_class_level "
)
AD_HEADER = "adgroup_id,cate_id,campaign_id,customer,brand,price"
ROW_HEADER = "user,time_stamp,adgroup_id,pid,nonclk,clk"
USER_NAMES, AD_NAMES = USER_HEADER.strip().split(","), AD_HEADER.split(",")

USERS = [
    (10, 0, 5, 1, 3, "", 3, 0, 4),
    (20, 7, 6, 2, 4, 2, 1, 1, "NULL"),
    (30, 0, 6, 2, 4, "NULL", 3, 0, ""),
    (50, 7, 9, 1, 6, 2, 1, 0, 2),
]
ADS = [
    (1, 100, 11, 5, 7, "9.0"),
    (2, 200, 12, 5, "NULL", "99.0"),
    (3, 100, 13, 6, "", ""),
    (9, 300, 11, 9, 8, "999.0"),
]
HOME, SIDE, FOOT = "430548_1007", "430539_1007", "430500_1007"
# In the order of time: 14 rows of train, 2 of valid, 4 of test. User 40 and ad 7 are in no table; user 50, ad 9 and
# the place FOOT come in test only.
TIMELINE = [((10, 20, 30, 40)[i % 4], (1, 2, 3)[i % 3], (HOME, SIDE)[i % 2]) for i in range(13)]
TIMELINE += [(20, 7, SIDE), (30, 1, HOME), (40, 2, SIDE)]
TIMELINE += [(50, 9, HOME), (40, 7, FOOT), (10, 1, SIDE), (20, 3, HOME)]
# Both classes fall into every split under the seeds of these tests.
CLICKS = (0, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 0, 0, 0)
# In the order of the file: the latest first.
ROWS = [
    (user, 1_494_000_000 + i, ad, pid, 1 - clk, clk)
    for i, ((user, ad, pid), clk) in enumerate(zip(TIMELINE, CLICKS, strict=True))
][::-1]


def text(header: str, rows, end: str = "\n") -> str:
    return header + end + "".join(",".join(map(str, row)) + end for row in rows)


def write_folder(folder: Path, rows=ROWS, users=USERS, ads=ADS, end: str = "\n") -> Path:
    """The three raw files."""
    folder.mkdir()
    tables = {RAW_SAMPLE: (ROW_HEADER, rows), USER_PROFILE: (USER_HEADER, users), AD_FEATURE: (AD_HEADER, ads)}
    for name, (header, lines) in tables.items():
        (folder / name).write_bytes(text(header, lines, end).encode())
    return folder


def replace_line(path: Path, line: int, content: str) -> None:
    """Put another line in the place of one, counted from 1."""
    lines = path.read_text().splitlines()
    lines[line - 1] = content
    path.write_text("".join(line + "\n" for line in lines))


def feature(data, split: str, name: str) -> list:
    return getattr(data, split).features[name][:].tolist()


def every(data, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The file's row numbers and the feature's values, all splits one after the other."""
    tables = [getattr(data, split) for split in SPLITS]
    return np.concatenate([table.rows for table in tables]), torch.cat([t.features[name][:] for t in tables]).numpy()


def refusal(path: Path, *fragments: str, **options) -> str:
    """The one line that loading ends with."""
    return tables.refusal(load_alibaba, path, fragments=fragments, **options)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "alibaba")


@pytest.fixture
def temporal(folder):
    return load_alibaba(folder, "temporal")


@pytest.fixture(params=[2**25, 50], ids=["whole", "in small blocks"])
def any_blocks(request, monkeypatch) -> None:
    """Files are read at once, or a line or two at a time."""
    blocks = partial(read_blocks, block_bytes=request.param)
    monkeypatch.setattr(preprocessing.alibaba, "read_blocks", blocks)


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """3,000 invented rows of about 130 users."""
    return write_alibaba_sample(tmp_path_factory.mktemp("data") / "alibaba", num_rows=3000)


# --- rows and labels


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_row_is_dealt_out_and_its_click_is_the_label_and_shows_in_no_feature(folder, protocol):
    data = load_alibaba(folder, protocol)
    assert (data.protocol, data.labels_leak) == (protocol, False)
    assert [len(getattr(data, name)) for name in SPLITS] == [14, 2, 4]
    assert sorted(every(data, "userid")[0].tolist()) == list(range(20))
    clicks_turned_over = [(*row[:4], row[5], row[4]) for row in ROWS]
    (folder / RAW_SAMPLE).write_text(text(ROW_HEADER, clicks_turned_over))
    turned = load_alibaba(folder, protocol)
    for name in SPLITS:
        ours, theirs = getattr(data, name), getattr(turned, name)
        assert ours.labels.tolist() == [ROWS[row][5] for row in ours.rows]
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert torch.equal(ours.labels, 1 - theirs.labels)
        assert_same_features(ours, theirs)


def test_columns_are_found_by_the_names_of_the_header_with_and_without_the_space_at_its_end(folder, temporal):
    rows = [(row[5], row[3], row[0], row[2], "x", row[1]) for row in ROWS]
    (folder / RAW_SAMPLE).write_text(text("clk,pid,user,adgroup_id,other,time_stamp", rows))
    assert USER_HEADER.endswith(" ")
    replace_line(folder / USER_PROFILE, 1, USER_HEADER.strip())
    assert_same_splits(load_alibaba(folder, "temporal"), temporal)


def test_line_ends_and_the_size_of_blocks_change_nothing(temporal, tmp_path, any_blocks):
    windows = write_folder(tmp_path / "windows", end="\r\n")
    assert_same_splits(load_alibaba(windows, "temporal"), temporal)


def test_the_splits_depend_on_the_split_seed(folder):
    data = load_alibaba(folder, split_seed=5)
    assert_same_splits(data, load_alibaba(folder, split_seed=5, embedding_dim=4))
    assert load_alibaba(folder, split_seed=6).test.rows.tolist() != data.test.rows.tolist()


# --- fields and ids


def test_the_columns_are_those_of_the_two_tables_and_the_place_of_the_row(folder):
    data = load_alibaba(folder, embedding_dim=6)
    user, item = data.user_columns, data.item_columns
    assert [column.name for column in user] == USER_NAMES
    assert [column.name for column in item] == [*AD_NAMES[:5], "pid", "price"]
    assert {type(column) for column in [*user, *item[:6]]} == {SparseFeat}
    assert type(item[6]) is DenseFeat
    assert {column.embedding_dim for column in [*user, *item[:6]]} == {6}
    assert data.name == "alibaba"
    assert not data.synthetic
    assert data.probabilities is None


def test_temporal_learns_from_the_earliest_rows_and_vocabularies_hold_their_values_only(temporal):
    rows = [table.rows.tolist() for table in (temporal.train, temporal.valid, temporal.test)]
    assert rows == [[*range(19, 5, -1)], [5, 4], [3, 2, 1, 0]]
    sizes = {c.name: c.vocabulary_size - 2 for c in temporal.user_columns + temporal.item_columns[:6]}
    assert [sizes[name] for name in USER_NAMES] == [4, 2, 2, 2, 2, 1, 2, 2, 1]  # users 10, 20, 30 and 40
    assert [sizes[name] for name in [*AD_NAMES[:5], "pid"]] == [4, 2, 3, 2, 1, 2]  # ads 1, 2, 3 and 7


# The ids of users and ads, worked out by hand from the vocabularies of the temporal training rows. User 40 and ad 7
# are in no table: their own ids are known and all else is 1.
USER_IDS = {
    10: (2, 2, 2, 2, 2, 1, 3, 2, 2),  # no pvalue_level
    20: (3, 3, 3, 3, 3, 2, 2, 3, 1),  # no new_user_class_level
    30: (4, 2, 3, 3, 3, 1, 3, 2, 1),  # neither
    40: (5, 1, 1, 1, 1, 1, 1, 1, 1),
    50: (1, 3, 1, 2, 1, 2, 2, 2, 1),  # seen in test only, with an age and a class of its own
}
AD_IDS = {
    1: (2, 2, 2, 2, 2),
    2: (3, 3, 3, 2, 1),  # brand NULL
    3: (4, 2, 4, 3, 1),  # brand empty
    7: (5, 1, 1, 1, 1),
    9: (1, 1, 2, 1, 1),  # seen in test only, in a known campaign
}
PLACE_IDS = {SIDE: 2, HOME: 3, FOOT: 1}  # in sorted order; FOOT comes in test only
PRICE_OF_AD_UNKNOWN = math.log10(55) - 1  # the mean of 9 and 99 is 54
PRICES = {1: 0.0, 2: 1.0, 3: PRICE_OF_AD_UNKNOWN, 7: PRICE_OF_AD_UNKNOWN, 9: 2.0}


@pytest.mark.parametrize("split", SPLITS)
def test_every_id_and_price_is_the_one_worked_out_by_hand(temporal, split):
    rows = [ROWS[row] for row in getattr(temporal, split).rows]
    for place, name in enumerate(USER_NAMES):
        assert feature(temporal, split, name) == [USER_IDS[row[0]][place] for row in rows], name
    for place, name in enumerate(AD_NAMES[:5]):
        assert feature(temporal, split, name) == [AD_IDS[row[2]][place] for row in rows], name
    # The place belongs to the row: one ad is shown in several.
    assert feature(temporal, split, "pid") == [PLACE_IDS[row[3]] for row in rows]
    np.testing.assert_allclose(feature(temporal, split, "price"), [[PRICES[row[2]]] for row in rows], atol=1e-6)


def test_places_are_text_though_they_look_like_numbers_and_a_missing_one_is_out_of_vocabulary(tmp_path, any_blocks):
    names = ("007", "7", "")
    rows = [(*row[:3], names[place % 3], *row[4:]) for place, row in enumerate(ROWS)]
    data = load_alibaba(write_folder(tmp_path / "alibaba", rows=rows), "temporal")
    assert data.item_encoder.fields[5].vocabulary.tolist() == ["007", "7"]
    for split in SPLITS:
        assert feature(data, split, "pid") == [(2, 3, 1)[row % 3] for row in getattr(data, split).rows]


# --- users and ads without a line of their own


def test_rows_of_users_and_ads_without_a_line_stay_in_and_are_counted_and_named(folder, capsys):
    counts = load_alibaba(folder, "temporal").counts
    assert capsys.readouterr().out.splitlines() == [
        "user_profile.csv: 1 userid(s) of raw_sample.csv missing (40); their 5 rows (25.0%) stay in, with the userid "
        "alone known.",
        "ad_feature.csv: 1 adgroup_id(s) of raw_sample.csv missing (7); their 2 rows (10.0%) stay in, with the "
        "adgroup_id alone known.",
    ]
    assert counts == {
        "rows_read": 20,
        "rows_kept": 20,
        "userids": 5,
        "userids_not_in_user_profile.csv": 1,
        "rows_of_userid_not_in_user_profile.csv": 5,
        "adgroup_ids": 5,
        "adgroup_ids_not_in_ad_feature.csv": 1,
        "rows_of_adgroup_id_not_in_ad_feature.csv": 2,
        "train": 14,
        "valid": 2,
        "test": 4,
        "users_in_train": 4,
        "items_in_train": 4,
        "rows_that_repeat_another": 0,
        "rows_that_contradict_another": 0,
        "test_rows_with_pair_and_label_in_train": 2,  # those of user 10 and user 20
    }


def test_rows_of_users_and_ads_without_a_line_are_refused_with_strict_data(folder, capsys):
    message = refusal(folder, strict_data=True)
    assert message.startswith("user_profile.csv: expected every userid of raw_sample.csv, 1 missing (40) with 5 rows;")
    assert "leave out --strict-data" in message
    with open(folder / USER_PROFILE, "a") as file:
        file.write("40,0,5,1,3,,3,0,4\n")
    message = refusal(folder, strict_data=True)
    assert message.startswith(
        "ad_feature.csv: expected every adgroup_id of raw_sample.csv, 1 missing (7) with 2 rows; complete the file"
    )
    with open(folder / AD_FEATURE, "a") as file:
        file.write("7,100,11,5,7,9.0\n")
    assert_same_splits(load_alibaba(folder, strict_data=True), load_alibaba(folder))
    assert capsys.readouterr().out == ""


def test_rows_that_repeat_another_lie_in_its_split_and_are_refused_with_strict_data(tmp_path, capsys):
    ads, users = [*ADS, (7, 100, 11, 5, 7, "9.0")], [*USERS, (40, 0, 5, 1, 3, "", 3, 0, 4)]
    rows = [*ROWS, *ROWS[10:], (*ROWS[12][:4], ROWS[12][5], ROWS[12][4])]  # of which the last has the other label
    folder = write_folder(tmp_path / "alibaba", rows, users, ads)
    data = load_alibaba(folder, "temporal")
    assert (data.counts["rows_that_repeat_another"], data.counts["rows_that_contradict_another"]) == (11, 1)
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith(
        "raw_sample.csv: 11 of 31 rows repeat another of the same user, item and time (rows 11 and 21:"
    )
    assert second.startswith(
        "raw_sample.csv: 1 of the repeated rows contradict the first of them by another label (rows 13"
    )
    split_of = {int(row): name for name in SPLITS for row in getattr(data, name).rows}
    assert all(split_of[row] == split_of[10 + row] for row in range(10, 20))
    assert refusal(folder, strict_data=True).startswith(
        "raw_sample.csv: expected each user, item and time once, got 11 of"
    )


def test_lines_of_users_and_ads_that_no_row_names_change_nothing(folder, temporal):
    for name, line in ((USER_PROFILE, "77,99,99,99,99,99,99,99,99\n"), (AD_FEATURE, "77,999,999,999,999,0.01\n")):
        path = folder / name
        header, lines = path.read_text().split("\n", 1)
        path.write_text(header + "\n" + line + lines + line.replace("77", "78", 1))
    data = load_alibaba(folder, "temporal")
    assert_same_splits(data, temporal)
    assert data.counts == temporal.counts


def test_long_lists_of_missing_ids_are_cut(tmp_path):
    rows = [*ROWS, (60, 1_494_000_020, 1, HOME, 1, 0)]
    path = write_folder(tmp_path / "alibaba", rows=rows, users=[(77, 0, 5, 1, 3, "", 3, 0, 4)])
    refusal(path, "6 missing (20, 10, 40, 50, 30, ...) with 21 rows", strict_data=True)


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_with_every_optional_field_missing_no_feature_is_nan_and_a_step_of_inttower_is_finite(tmp_path, protocol):
    users, ads = [(user[0], *[""] * 8) for user in USERS], [(ad[0], *[""] * 5) for ad in ADS]
    data = load_alibaba(write_folder(tmp_path / "alibaba", users=users, ads=ads), protocol)
    for column in data.user_columns + data.item_columns:
        for split in SPLITS:
            values = getattr(data, split).features[column.name][:]
            assert torch.isfinite(values).all()
            if column.name in (*USER_NAMES[1:], *AD_NAMES[1:5]):
                assert column.vocabulary_size == 2
                assert (values == 1).all()
            if column.name == "price":
                assert (values == 0).all()
    seed_everything(1)
    model = IntTower.from_columns(data.user_columns, data.item_columns, dnn_hidden_units=(8, 4))
    progress = Trainer(model, seed=1, show_progress=False).fit(data.train, epochs=1)
    assert math.isfinite(progress.history[0]["train_loss"])
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


# --- a share of the users


def share_of(user: int) -> float:
    """Where the splitmix64 hash of an id lies between 0 and 1, in Python's own numbers."""
    mixed = (user + 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    return (mixed ^ (mixed >> 31)) / 2**64


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_a_share_holds_all_rows_of_its_users_with_all_that_belongs_to_them(sample, rate, monkeypatch):
    monkeypatch.setattr(preprocessing.alibaba, "read_blocks", partial(read_blocks, block_bytes=10_000))
    raw, lines = read(sample, sample_rate=rate), pd.read_csv(sample / RAW_SAMPLE)
    kept = lines[[share_of(user) < rate for user in lines["user"].tolist()]]
    assert raw.rows.tolist() == kept.index.tolist()
    assert raw.users["userid"].to_numpy()[raw.user_of_row].tolist() == kept["user"].tolist()
    assert raw.items["adgroup_id"].to_numpy()[raw.item_of_row].tolist() == kept["adgroup_id"].tolist()
    assert raw.labels.tolist() == kept["clk"].tolist()
    assert raw.times.tolist() == kept["time_stamp"].tolist()
    pid = raw.context["pid"]
    assert pid.values[pid.of_row].tolist() == kept["pid"].tolist()
    np.testing.assert_array_equal(raw.probabilities, np.load(sample / SAMPLE_PROBABILITIES)[raw.rows])
    assert (raw.counts["rows_read"], raw.counts["rows_kept"]) == (3000, len(kept))
    assert raw.counts["userids"] == kept["user"].nunique()


def test_the_share_of_users_is_about_the_rate_and_exact_for_ids_of_any_size():
    assert share_of(0) == 0xE220A8397B1DCDAF / 2**64  # the published number
    for rate in (0.1, 0.5, 0.9):
        assert np.mean([share_of(user) < rate for user in range(5000)]) == pytest.approx(rate, abs=0.03)
    for user in (0, 1, 5000, 2**31, 2**62):
        share = share_of(user)
        for rate, kept in ((share + 1e-14, True), (share - 1e-14, False)):
            assert preprocessing.alibaba._is_sampled(np.array([user]), rate).tolist() == [kept]


def test_a_share_out_of_range_or_that_holds_no_user_is_refused(folder):
    for rate in (0.0, 1.0001, math.nan):
        message = refusal(folder, sample_rate=rate)
        assert message == f"--sample-rate: expected a share above 0 and of at most 1, got {rate}."
    refusal(folder, "train split: expected at least one row, got none of 0", sample_rate=1e-12)


# --- synthetic data


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_a_sample_is_called_synthetic_and_has_the_probabilities_of_its_test_rows(sample, rate):
    data = load_alibaba(sample, sample_rate=rate)
    assert data.synthetic
    assert data.name == "alibaba-synthetic"
    np.testing.assert_array_equal(data.probabilities, np.load(sample / SAMPLE_PROBABILITIES)[data.test.rows])


@pytest.mark.parametrize("size", [19, 21])
def test_a_sample_whose_probabilities_do_not_fit_is_refused(folder, size):
    np.save(folder / SAMPLE_PROBABILITIES, np.full(size, 0.5, dtype=np.float32))
    refusal(folder, f"probabilities.npy: expected a number for each of 20 rows, got {size}; the sample was altered")


# --- the fingerprint


def test_the_fingerprint_depends_on_the_files_and_on_what_shapes_the_splits(folder, tmp_path):
    fingerprint = load_alibaba(folder).fingerprint
    assert len(fingerprint) == 64
    assert load_alibaba(shutil.copytree(folder, tmp_path / "copy"), embedding_dim=4).fingerprint == fingerprint
    others = [load_alibaba(folder, protocol, split_seed=seed) for protocol in PROTOCOLS for seed in (1, 2)]
    others.append(load_alibaba(folder, sample_rate=0.999))
    changes = [(RAW_SAMPLE, "1494000019", "1494000020"), (USER_PROFILE, "10,0", "10,1"), (AD_FEATURE, "9.0", "8.0")]
    for name, old, new in changes:
        copy = shutil.copytree(folder, tmp_path / name)
        (copy / name).write_text((copy / name).read_text().replace(old, new, 1))
        others.append(load_alibaba(copy))
    assert len({fingerprint, *(data.fingerprint for data in others)}) == 13


# --- wrong files


@pytest.mark.parametrize("name", [RAW_SAMPLE, AD_FEATURE, USER_PROFILE])
def test_a_missing_file_is_named_with_where_to_get_it(folder, name):
    (folder / name).unlink()
    message = refusal(folder, "https://tianchi.aliyun.com/dataset/dataDetail?dataId=56", "data/alibaba/")
    assert message.startswith(
        f"{folder}: expected raw_sample.csv, ad_feature.csv, user_profile.csv, got no {name}. They need a login at"
    )


def test_a_folder_or_a_protocol_that_is_none_is_named(folder, tmp_path):
    refusal(tmp_path / "nowhere", f"{tmp_path / 'nowhere'}: expected raw_sample.csv", "got no raw_sample.csv")
    refusal(tmp_path / "nowhere", "strict, paper, temporal", "'random'", protocol="random")  # before anything is read


ROW = "20,1494000019,3,430548_1007,1,"
# Which column is of which kind; of the kinds themselves, see tests/test_text_tables.py.
WRONG_LINES = [
    (RAW_SAMPLE, 1, ROW_HEADER.replace("pid", "place"), "expected the header user,time_stamp,adgroup_id,pid,clk, got"),
    (RAW_SAMPLE, 15, ROW[:-1], "expected 6 columns (user, time_stamp, adgroup_id, pid, nonclk, clk), got 5; mend or"),
    (RAW_SAMPLE, 15, "x" + ROW + "0", "expected a whole number as user, got 'x20'; mend or remove the line."),
    (RAW_SAMPLE, 15, "20,today,3,430548_1007,1,0", "expected a whole number as time_stamp, got 'today'"),
    (RAW_SAMPLE, 15, "20,1494000019,3.5,430548_1007,1,0", "expected a whole number as adgroup_id, got '3.5'"),
    (RAW_SAMPLE, 15, ROW + "yes", "expected a whole number as clk, got 'yes'"),
    (RAW_SAMPLE, 2, ROW + "2", "expected 0 or 1 as clk, got 2; mend or remove the line."),
    (RAW_SAMPLE, 21, ROW + "-1", "expected 0 or 1 as clk, got -1; mend or remove the line."),
    (RAW_SAMPLE, 15, ROW + "1", "expected nonclk 0 beside clk 1, got 1; mend or remove the line."),
    (RAW_SAMPLE, 15, ROW[:-2] + "0,0", "expected nonclk 1 beside clk 0, got 0; mend or remove the line."),
    (RAW_SAMPLE, 15, ROW[:-2] + "7,0", "expected nonclk 1 beside clk 0, got 7; mend or remove the line."),
    (RAW_SAMPLE, 15, ROW[:-2] + ",0", "expected a whole number as nonclk, got ''; mend or remove the line."),
    (USER_PROFILE, 1, USER_HEADER[2:], f"expected the header {USER_HEADER.strip()}, got no userid"),
    (USER_PROFILE, 4, ",0,6,2,4,,3,0,", "expected a whole number as userid, got ''"),
    (USER_PROFILE, 5, "50,7,9,1,old,2,1,0,2", "expected a whole number below 2^53 or nothing as age_level, got 'old'"),
    (
        USER_PROFILE,
        5,
        "50,7,9,1,6,2,1,0,1.5",
        "expected a whole number below 2^53 or nothing as new_user_class_level, got '1.5'",
    ),
    (AD_FEATURE, 1, AD_HEADER.replace("price", "cost"), f"expected the header {AD_HEADER}, got no price."),
    (AD_FEATURE, 4, "3,100,13,6,7,-0.5", "expected a number of at least 0 or nothing as price, got '-0.5'"),
    (AD_FEATURE, 5, "9,home,11,9,8,999.0", "expected a whole number below 2^53 or nothing as cate_id, got 'home'"),
    (AD_FEATURE, 5, "NULL,300,11,9,8,999.0", "expected a whole number as adgroup_id, got 'NULL'"),
]


@pytest.mark.parametrize(("name", "line", "content", "expected"), WRONG_LINES)
def test_a_wrong_line_is_refused_with_its_file_and_number(folder, name, line, content, expected, any_blocks):
    replace_line(folder / name, line, content)
    assert refusal(folder).startswith(f"{name}, line {line}: {expected}")


def test_rows_without_nonclk_and_files_packed_by_gzip_are_the_same_data(folder, temporal, tmp_path):
    lines = (folder / RAW_SAMPLE).read_text().splitlines()
    short = [",".join(cell for i, cell in enumerate(line.split(",")) if i != 4) for line in lines]
    (folder / RAW_SAMPLE).write_text("\n".join(short))
    assert_same_splits(temporal, load_alibaba(folder, "temporal"))
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in FILES:
        (packed / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    assert find_alibaba(packed) == packed
    assert_same_splits(temporal, load_alibaba(packed, "temporal"))


@pytest.mark.parametrize("name", [RAW_SAMPLE, USER_PROFILE, AD_FEATURE])
def test_another_format_separator_or_encoding_is_named_and_no_line_is_blamed(folder, name):
    content = (folder / name).read_bytes()
    for changed, said in (
        (b"PAR1" + content, f"{folder / name}: expected plain text, got Parquet; save it as CSV."),
        (content.decode().encode("utf-16"), f"{folder / name}: expected plain text, got text in UTF-16; save it as"),
        (content.replace(b",", b";"), f"{name}, line 1: expected the header {','.join(FILES[name])}, got one with ';'"),
    ):
        (folder / name).write_bytes(changed)
        assert refusal(folder).startswith(said)


def test_the_first_of_two_wrong_clicks_is_named(folder):
    replace_line(folder / RAW_SAMPLE, 15, ROW + "3")
    replace_line(folder / RAW_SAMPLE, 6, ROW + "2")
    assert refusal(folder).startswith("raw_sample.csv, line 6: expected 0 or 1 as clk, got 2;")


def test_a_user_or_ad_that_comes_twice_is_refused(tmp_path, any_blocks):
    users = write_folder(tmp_path / "users", users=[*USERS, (30, 1, 1, 1, 1, 1, 1, 1, 1), USERS[0]])
    assert refusal(users) == "user_profile.csv: expected each userid once, got 30 again; remove the repeated lines."
    ads = write_folder(tmp_path / "ads", ads=[*ADS, ADS[1]])
    assert refusal(ads) == "ad_feature.csv: expected each adgroup_id once, got 2 again; remove the repeated lines."


# --- where the files are looked for


def test_the_files_are_found_in_a_folder_or_in_its_alibaba(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("INTTOWER_DATA", raising=False)
    assert find_alibaba(folder) == folder
    assert find_alibaba(tmp_path) == folder
    assert find_alibaba(tmp_path / "nowhere") is None
    for named in (folder, tmp_path, folder / RAW_SAMPLE):
        assert alibaba_files(str(named)) == folder
    monkeypatch.setenv("INTTOWER_DATA", str(tmp_path))
    assert alibaba_files() == folder


def assert_says_where_to_get_it(message: str) -> None:
    assert "\n" not in message
    assert "the Alibaba display ads (raw_sample.csv, ad_feature.csv, user_profile.csv)" in message
    assert "got none of them. They need a login at https://tianchi.aliyun.com/dataset/dataDetail?dataId=56" in message
    assert "into data/alibaba/, or name their folder with --data" in message
    assert "python -m preprocessing.sample alibaba data/alibaba" in message


@pytest.mark.parametrize(("named", "origin"), [(True, "--data"), (False, "$INTTOWER_DATA")])
def test_a_named_folder_without_the_files_is_refused_with_where_to_get_them(tmp_path, monkeypatch, named, origin):
    monkeypatch.setenv("INTTOWER_DATA", str(tmp_path))
    with pytest.raises(UserError) as caught:
        alibaba_files(str(tmp_path) if named else None)
    assert str(caught.value).startswith(f"{origin} {tmp_path}: expected the Alibaba display ads")
    assert_says_where_to_get_it(str(caught.value))


def test_without_files_the_script_says_where_to_get_them_and_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DATA_FOLDER", tmp_path / "data")
    result = run(SCRIPT, "--output", tmp_path / "run")
    assert_refused(result, "error: data/alibaba: expected the Alibaba display ads")
    assert_says_where_to_get_it(result.stderr.strip())
    assert not (tmp_path / "run").exists()


# --- the script


@pytest.mark.parametrize(("protocol", "model"), [("strict", "IntTower"), ("paper", "DSSM"), ("temporal", "DCN")])
def test_the_script_trains_a_model_under_a_protocol_and_records_it(sample, tmp_path, protocol, model):
    arguments = ("--data", sample, "--protocol", protocol, "--model", model, "--output", tmp_path / "run")
    result = run(SCRIPT, *arguments, "--no-cache", "--epochs", "1", "--hidden-units", "16,8")
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC DATA" in result.stdout
    assert "userid(s) of raw_sample.csv missing" in result.stdout
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["dataset"], record["protocol"], record["model"]) == ("alibaba-synthetic", protocol, model)
    assert record["synthetic"]
    assert record["labels_leak"] is False
    assert 0 < record["test"]["auc"] < 1
    assert math.isfinite(record["test"]["logloss"])
    assert 0.5 < record["best_possible_test_auc"] < 1
    assert record["counts"]["rows_kept"] == 3000
    assert record["settings"]["sample_rate"] == 1
    assert "cache" not in record["settings"]


def settings(folder: Path, **changes):
    arguments = {"data": str(folder), "epochs": 1, "hidden_units": [16, 8], "device": "cpu"} | changes
    return train_alibaba_IntTower.Settings(**arguments)


def test_the_scripts_flags_reach_the_reading_of_the_data(sample, tmp_path):
    with pytest.raises(UserError, match=r"user_profile\.csv: expected every userid"):
        train_alibaba_IntTower.main(settings(sample, cache=False, strict_data=True, output=str(tmp_path / "run")))
    with pytest.raises(UserError, match="--sample-rate: expected a share"):
        train_alibaba_IntTower.main(settings(sample, cache=False, sample_rate=0.0, output=str(tmp_path / "run")))
    changes = {"sample_rate": 0.5, "split_seed": 7, "protocol": "paper", "embedding_dim": 4}
    train_alibaba_IntTower.main(settings(sample, cache=False, output=str(tmp_path / "run"), **changes))
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    data = load_alibaba(sample, "paper", 4, 7, sample_rate=0.5)
    assert record["fingerprint"] == data.fingerprint
    assert record["counts"] == data.counts
    assert record["counts"]["rows_kept"] < record["counts"]["rows_read"]
    model = IntTower.from_columns(data.user_columns, data.item_columns, dnn_hidden_units=(16, 8))
    assert record["num_parameters"] == sum(weight.numel() for weight in model.parameters())


# --- real lines


@pytest.fixture(scope="module")
def real_lines() -> Path:
    """The first 9,999 rows of the real raw_sample.csv, in the folder that INTTOWER_DATA names, or a skipped test."""
    path = Path(os.environ.get("INTTOWER_DATA", "nowhere")) / "alibaba" / "raw_sample_head.csv"
    if not path.is_file():
        pytest.skip("needs real rows of raw_sample.csv: no alibaba/raw_sample_head.csv in INTTOWER_DATA")
    return path


@pytest.fixture(scope="module")
def real_folder(real_lines, tmp_path_factory) -> Path:
    """The real rows with invented tables of the real format, which lack each tenth user and each twentieth ad."""
    raw = pd.read_csv(real_lines)
    users, ads = np.unique(raw["user"]), np.unique(raw["adgroup_id"])
    levels, classes, brands = ("", 1, 2, 3), ("", 1, 2, 3, 4), ("NULL", 95471)
    folder = write_folder(
        tmp_path_factory.mktemp("real") / "alibaba",
        users=[
            (u, u % 97, u % 13, 1 + u % 2, u % 7, levels[u % 4], 1 + u % 3, u % 2, classes[u % 5])
            for i, u in enumerate(users)
            if i % 10
        ],
        ads=[(a, a % 50, a % 400, a % 300, brands[a % 2], f"{a % 900}.0") for i, a in enumerate(ads) if i % 20],
    )
    shutil.copyfile(real_lines, folder / RAW_SAMPLE)
    return folder


def test_real_rows_are_all_dealt_out_in_time_with_their_clicks(real_folder, real_lines):
    data, raw = load_alibaba(real_folder, "temporal"), pd.read_csv(real_lines)
    assert [len(getattr(data, name)) for name in SPLITS] == [7_199, 800, 2_000]
    rows, user_ids = every(data, "userid")
    assert sorted(rows.tolist()) == list(range(9_999))
    assert (np.diff(raw["time_stamp"].to_numpy()[rows]) >= 0).all()
    labels = torch.cat([getattr(data, name).labels for name in SPLITS]).numpy()
    np.testing.assert_array_equal(labels, raw["clk"].to_numpy()[rows])
    np.testing.assert_array_equal(user_ids > 1, raw["user"].isin(raw["user"].to_numpy()[rows[:7_199]]).to_numpy()[rows])
    assert (data.counts["userids"], data.counts["userids_not_in_user_profile.csv"]) == (8_328, 833)
    assert (data.counts["adgroup_ids"], data.counts["adgroup_ids_not_in_ad_feature.csv"]) == (897, 45)
    is_lacking = raw["user"].isin(np.unique(raw["user"])[::10]).to_numpy()
    assert data.counts["rows_of_userid_not_in_user_profile.csv"] == is_lacking.sum()
    for name in USER_NAMES[1:]:
        assert (every(data, name)[1][is_lacking[rows]] == 1).all()
