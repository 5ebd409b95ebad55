"""Alibaba display ads from three raw tables to encoded splits, and what is said of files that are wrong."""

import itertools
import json
import math
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from shell import assert_refused, copy_of_the_project, run, run_in_process

import preprocessing.alibaba
import train_alibaba_IntTower
from model.IntTower import IntTower
from preprocessing.alibaba import load_alibaba
from preprocessing.alibaba import read_alibaba as read
from preprocessing.encode import load_encoders, save_encoders
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sources import AD_FEATURE, RAW_SAMPLE, USER_PROFILE, alibaba_files, find_alibaba
from preprocessing.synthetic import SAMPLE_PROBABILITIES
from preprocessing.text_tables import read_csv_blocks
from training.trainer import Trainer, seed_everything

SCRIPT = "train_alibaba_IntTower.py"
PROTOCOLS = ("strict", "paper", "temporal")
SPLITS = ("train", "valid", "test")
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


def replace_line(path: Path, line: int, content: str | None) -> None:
    """Put another line in the place of one, counted from 1; None takes it away."""
    lines = path.read_text().splitlines()
    lines[line - 1 : line] = [] if content is None else [content]
    path.write_text("".join(line + "\n" for line in lines))


def feature(data, split: str, name: str) -> list:
    return getattr(data, split).features[name][:].tolist()


def every(data, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The file's row numbers and the feature's values, all splits one after the other."""
    tables = [getattr(data, split) for split in SPLITS]
    return np.concatenate([table.rows for table in tables]), torch.cat([t.features[name][:] for t in tables]).numpy()


def assert_same_splits(data, other) -> None:
    for name in SPLITS:
        ours, theirs = getattr(data, name), getattr(other, name)
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.groups.tolist() == theirs.groups.tolist()
        assert ours.features.keys() == theirs.features.keys()
        for feature, values in ours.features.items():
            assert torch.equal(values[:], theirs.features[feature][:]), f"{name} {feature}"


def refusal(path: Path, *fragments: str, **options) -> str:
    """The one line that loading ends with."""
    with pytest.raises(UserError) as caught:
        load_alibaba(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message
    return message


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "alibaba")


@pytest.fixture
def temporal(folder):
    return load_alibaba(folder, "temporal")


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    """Files are read a line or two at a time."""
    monkeypatch.setattr(preprocessing.alibaba, "read_csv_blocks", partial(read_csv_blocks, block_bytes=50))


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """3,000 invented rows of about 130 users."""
    return write_alibaba_sample(tmp_path_factory.mktemp("data") / "alibaba", num_rows=3000)


# --- rows and labels


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_row_is_dealt_out_with_its_click_as_the_label(folder, protocol):
    data = load_alibaba(folder, protocol)
    tables = [getattr(data, name) for name in SPLITS]
    assert [len(table) for table in tables] == [14, 2, 4]
    assert sorted(np.concatenate([table.rows for table in tables]).tolist()) == list(range(20))
    for table in tables:
        assert table.labels.tolist() == [ROWS[row][5] for row in table.rows]
        assert table.labels.dtype == torch.float32


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_row_of_a_larger_sample_is_dealt_out_too(sample, protocol):
    data = load_alibaba(sample, protocol)
    raw = pd.read_csv(sample / RAW_SAMPLE)
    rows, users = every(data, "userid")
    assert sorted(rows.tolist()) == list(range(3000))
    labels = torch.cat([getattr(data, name).labels for name in SPLITS]).numpy()
    np.testing.assert_array_equal(labels, raw["clk"].to_numpy()[rows])
    vocabulary = np.append([-1, -1], data.user_encoder.fields[0].vocabulary)  # -1 for ids that no row has
    known = users > 1
    np.testing.assert_array_equal(vocabulary[users[known]], raw["user"].to_numpy()[rows][known])


def test_the_order_of_the_columns_is_that_of_the_header(folder):
    data = load_alibaba(folder)
    path = folder / RAW_SAMPLE
    rows = [(row[5], row[3], row[0], row[2], "x", row[1]) for row in ROWS]
    path.write_text(text("clk,pid,user,adgroup_id,other,time_stamp", rows))
    assert_same_splits(load_alibaba(folder), data)


def test_rows_of_one_user_share_a_group(folder):
    data = load_alibaba(folder)
    pairs = {(int(group), ROWS[row][0]) for s in SPLITS for group, row in zip(*groups_and_rows(data, s), strict=True)}
    assert len(pairs) == len({group for group, _ in pairs}) == len({user for _, user in pairs}) == 5


def groups_and_rows(data, split: str):
    table = getattr(data, split)
    assert table.groups.dtype == np.int32
    return table.groups, table.rows


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_label_leaks_into_a_feature(folder, protocol):
    data = load_alibaba(folder, protocol)
    assert data.labels_leak is False
    assert data.protocol == protocol
    path = folder / RAW_SAMPLE
    path.write_text(text(ROW_HEADER, [(*row[:4], row[5], row[4]) for row in ROWS]))  # the clicks turned over
    turned = load_alibaba(folder, protocol)
    for name in SPLITS:
        ours, theirs = getattr(data, name), getattr(turned, name)
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert torch.equal(ours.labels, 1 - theirs.labels)
        for column, values in ours.features.items():
            assert torch.equal(values[:], theirs.features[column][:])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_size_of_blocks_and_line_ends_change_nothing(folder, tmp_path, protocol, monkeypatch):
    data = load_alibaba(folder, protocol)
    assert_same_splits(load_alibaba(write_folder(tmp_path / "windows", end="\r\n"), protocol), data)
    for block_bytes in (1, 50, 200):
        blocks = partial(read_csv_blocks, block_bytes=block_bytes)
        monkeypatch.setattr(preprocessing.alibaba, "read_csv_blocks", blocks)
        assert_same_splits(load_alibaba(folder, protocol), data)


def test_the_splits_depend_on_the_split_seed_alone(sample):
    for protocol in PROTOCOLS:
        torch.manual_seed(1)
        data = load_alibaba(sample, protocol, split_seed=5)
        torch.manual_seed(2)
        assert_same_splits(data, load_alibaba(sample, protocol, split_seed=5, embedding_dim=4))
        other = load_alibaba(sample, protocol, split_seed=6)
        assert (other.test.rows.tolist() == data.test.rows.tolist()) == (protocol == "temporal")


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


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_features_have_the_shapes_and_types_of_their_columns(sample, protocol):
    data = load_alibaba(sample, protocol)
    for name in SPLITS:
        table = getattr(data, name)
        for column in data.user_columns + data.item_columns:
            values = table.features[column.name][:]
            dense = isinstance(column, DenseFeat)
            assert values.shape == ((len(table), 1) if dense else (len(table),))
            assert values.dtype == (torch.float32 if dense else torch.int32)
            assert torch.isfinite(values).all()
            if not dense:
                assert values.min() >= 1
                assert values.max() < column.vocabulary_size


def test_temporal_deals_rows_out_by_time_stamp_and_not_by_place_in_the_file(temporal):
    assert temporal.train.rows.tolist() == list(range(19, 5, -1))
    assert temporal.valid.rows.tolist() == [5, 4]
    assert temporal.test.rows.tolist() == [3, 2, 1, 0]


def test_vocabularies_hold_the_values_of_training_rows_only(temporal):
    sizes = {c.name: c.vocabulary_size - 2 for c in temporal.user_columns + temporal.item_columns[:6]}
    of_users = {
        "userid": 4,  # 10, 20, 30 and 40
        "cms_segid": 2,
        "cms_group_id": 2,
        "final_gender_code": 2,
        "age_level": 2,
        "pvalue_level": 1,
        "shopping_level": 2,
        "occupation": 2,
        "new_user_class_level": 1,
    }
    of_ads = {"adgroup_id": 4, "cate_id": 2, "campaign_id": 3, "customer": 2, "brand": 1, "pid": 2}  # ads 1, 2, 3, 7
    assert sizes == of_users | of_ads
    assert (temporal.counts["users_in_train"], temporal.counts["items_in_train"]) == (4, 4)


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
PRICE_OF_AD_UNKNOWN = math.log10(55) - 1  # the mean of 9 and 99 is 54
PRICES = {1: 0.0, 2: 1.0, 3: PRICE_OF_AD_UNKNOWN, 7: PRICE_OF_AD_UNKNOWN, 9: 2.0}


@pytest.mark.parametrize("split", SPLITS)
def test_every_id_is_the_one_worked_out_by_hand(temporal, split):
    rows = [ROWS[row] for row in getattr(temporal, split).rows]
    for place, name in enumerate(USER_NAMES):
        assert feature(temporal, split, name) == [USER_IDS[row[0]][place] for row in rows], name
    for place, name in enumerate(AD_NAMES[:5]):
        assert feature(temporal, split, name) == [AD_IDS[row[2]][place] for row in rows], name


def test_the_last_column_of_the_profile_is_read_with_and_without_the_space_in_its_name(folder, temporal):
    assert USER_HEADER.endswith(" ")
    replace_line(folder / USER_PROFILE, 1, USER_HEADER.strip())
    assert_same_splits(load_alibaba(folder, "temporal"), temporal)


@pytest.mark.parametrize("column", [5, 8])
@pytest.mark.parametrize("mark", ["", "NULL", "null", "nan", "NA", "\\N"])
def test_a_missing_level_of_a_user_is_the_id_1_however_it_is_written(tmp_path, column, mark):
    users = [(*user[:column], mark, *user[column + 1 :]) if user[0] == 50 else user for user in USERS]
    known = write_folder(tmp_path / "known", users=[(*user[:5], 2, *user[6:8], 4) for user in USERS])
    assert feature(load_alibaba(known, "temporal"), "test", USER_NAMES[column])[0] == 2
    data = load_alibaba(write_folder(tmp_path / "missing", users=users), "temporal")
    assert feature(data, "test", USER_NAMES[column])[0] == 1


def test_the_place_belongs_to_the_row_and_stands_in_the_item_tower(temporal):
    ids = {SIDE: 2, HOME: 3, FOOT: 1}  # in sorted order; FOOT comes in test only
    for split in SPLITS:
        assert feature(temporal, split, "pid") == [ids[ROWS[row][3]] for row in getattr(temporal, split).rows]
    # One ad, two places:
    places = {(ROWS[row][2], pid) for row, pid in zip(*every(temporal, "pid"), strict=True)}
    assert {(1, 2), (1, 3)} <= places
    assert "pid" in [field.name for field in temporal.item_encoder.fields]
    assert "pid" not in [field.name for field in temporal.user_encoder.fields]


@pytest.mark.parametrize("mark", ["", "NULL", "NaN"])
def test_a_missing_place_is_out_of_vocabulary(mark, tmp_path):
    rows = [(*row[:3], mark if row[3] == HOME else row[3], *row[4:]) for row in ROWS]
    data = load_alibaba(write_folder(tmp_path / "missing", rows=rows), "temporal")
    assert data.item_encoder.fields[5].vocabulary.tolist() == [SIDE]
    for split in SPLITS:
        assert feature(data, split, "pid") == [2 if ROWS[r][3] == SIDE else 1 for r in getattr(data, split).rows]


def test_saved_encoders_give_raw_users_and_ads_the_same_ids(temporal, tmp_path):
    save_encoders(tmp_path / "encoders.json", temporal.user_encoder, temporal.item_encoder)
    user_encoder, item_encoder = load_encoders(tmp_path / "encoders.json")
    users = user_encoder.encode(pd.DataFrame([{**dict.fromkeys(USER_NAMES), "userid": 40}, profile(50)]))
    assert [users[name].tolist() for name in USER_NAMES] == [list(pair) for pair in zip(*twice(40, 50), strict=True)]
    ads = pd.DataFrame([dict(zip(AD_NAMES, (2, 200, 12, 5, None, 99.0), strict=True)) | {"pid": HOME}])
    encoded = item_encoder.encode(ads)
    assert [encoded[name].tolist() for name in AD_NAMES[:5]] == [[place] for place in AD_IDS[2]]
    assert encoded["pid"].tolist() == [3]
    assert encoded["price"].tolist() == [[1.0]]


def profile(user: int) -> dict:
    return dict(zip(USER_NAMES, next(line for line in USERS if line[0] == user), strict=True))


def twice(*users: int) -> list[tuple]:
    return [USER_IDS[user] for user in users]


# --- prices


def test_under_temporal_prices_are_logs_scaled_by_the_training_ads(temporal):
    for split in SPLITS:
        expected = [[PRICES[ROWS[row][2]]] for row in getattr(temporal, split).rows]
        np.testing.assert_allclose(feature(temporal, split, "price"), expected, atol=1e-6)


def ads_of(data, split: str) -> list[int]:
    return [ROWS[row][2] for row in getattr(data, split).rows]


PRICE_OF = {1: 9.0, 2: 99.0, 9: 999.0}


@pytest.mark.parametrize("split_seed", range(6))
def test_under_strict_prices_are_logs_scaled_by_the_training_ads(folder, split_seed):
    data = load_alibaba(folder, "strict", split_seed=split_seed)
    in_train = set(ads_of(data, "train"))
    mean = np.mean([PRICE_OF[ad] for ad in in_train & PRICE_OF.keys()])
    logs = {ad: np.log1p(PRICE_OF.get(ad, mean)) for ad in (1, 2, 3, 7, 9)}
    low, high = min(logs[ad] for ad in in_train), max(logs[ad] for ad in in_train)
    for split in SPLITS:
        expected = [[(logs[ad] - low) / (high - low)] for ad in ads_of(data, split)]
        np.testing.assert_allclose(feature(data, split, "price"), expected, atol=1e-6)


@pytest.mark.parametrize("split_seed", range(6))
def test_under_paper_prices_are_taken_as_they_are_and_scaled_by_the_test_ads(folder, split_seed):
    data = load_alibaba(folder, "paper", split_seed=split_seed)
    mean = np.mean([PRICE_OF[ad] for ad in set(ads_of(data, "train")) & PRICE_OF.keys()])
    prices = {ad: PRICE_OF.get(ad, mean) for ad in (1, 2, 3, 7, 9)}
    in_test = [prices[ad] for ad in ads_of(data, "test")]
    low, high = min(in_test), max(in_test)
    for split in SPLITS:
        expected = [[(prices[ad] - low) / (high - low)] for ad in ads_of(data, split)]
        np.testing.assert_allclose(feature(data, split, "price"), expected, atol=1e-4)


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


def test_lines_of_users_and_ads_that_no_row_names_change_nothing(folder, temporal):
    for name, line in ((USER_PROFILE, "77,99,99,99,99,99,99,99,99\n"), (AD_FEATURE, "77,999,999,999,999,0.01\n")):
        path = folder / name
        header, lines = path.read_text().split("\n", 1)
        path.write_text(header + "\n" + line + lines + line.replace("77", "78", 1))
    data = load_alibaba(folder, "temporal")
    assert_same_splits(data, temporal)
    assert data.counts == temporal.counts


def test_long_lists_of_missing_ids_are_cut(tmp_path, capsys):
    stranger = [(77, 0, 5, 1, 3, "", 3, 0, 4)]
    path = write_folder(tmp_path / "alibaba", users=stranger)
    refusal(path, "5 missing (20, 10, 40, 50, 30) with 20 rows", strict_data=True)
    rows = [*ROWS, (60, 1_494_000_020, 1, HOME, 1, 0)]
    path = write_folder(tmp_path / "one more", rows=rows, users=stranger)
    refusal(path, "6 missing (20, 10, 40, 50, 30, ...) with 21 rows", strict_data=True)
    load_alibaba(path)
    assert "6 userid(s) of raw_sample.csv missing (20, 10, 40, 50, 30, ...); their 21 rows (100.0%)" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
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


def test_splitmix64_of_0_is_the_published_number():
    assert share_of(0) == 0xE220A8397B1DCDAF / 2**64


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_a_sample_holds_all_rows_of_its_users_and_no_other_row(sample, rate):
    raw = read(sample, sample_rate=rate)
    users = pd.read_csv(sample / RAW_SAMPLE)["user"].to_numpy()
    expected = np.flatnonzero([share_of(user) < rate for user in users.tolist()])
    assert raw.rows.tolist() == expected.tolist()
    assert raw.users["userid"].to_numpy()[raw.user_of_row].tolist() == users[expected].tolist()
    assert raw.counts["rows_read"] == 3000
    assert raw.counts["rows_kept"] == len(expected)
    assert raw.counts["userids"] == len(set(users[expected].tolist()))


def test_the_share_of_users_is_about_the_rate():
    shares = [share_of(user) for user in range(5000)]
    for rate in (0.1, 0.5, 0.9):
        assert np.mean(np.array(shares) < rate) == pytest.approx(rate, abs=0.03)
    # The code agrees with the numbers above, for ids of any size.
    for user in (0, 1, 5000, 2**31, 2**62):
        share = share_of(user)
        for rate, kept in ((share + 1e-14, True), (share - 1e-14, False)):
            assert preprocessing.alibaba._is_sampled(np.array([user]), rate).tolist() == [kept]


def test_the_same_users_are_kept_whatever_the_order_of_rows_and_the_size_of_blocks(sample, tmp_path, monkeypatch):
    kept = read(sample, sample_rate=0.5)
    users = set(kept.users["userid"])
    shuffled = shutil.copytree(sample, tmp_path / "shuffled")
    header, *lines = (sample / RAW_SAMPLE).read_text().splitlines()
    order = np.random.default_rng(0).permutation(len(lines))
    (shuffled / RAW_SAMPLE).write_text("\n".join([header, *(lines[place] for place in order)]) + "\n")
    for block_bytes in (2**25, 10_000):
        monkeypatch.setattr(preprocessing.alibaba, "read_csv_blocks", partial(read_csv_blocks, block_bytes=block_bytes))
        raw = read(shuffled, sample_rate=0.5)
        assert set(raw.users["userid"]) == users
        assert sorted(order[raw.rows].tolist()) == kept.rows.tolist()


def test_what_is_kept_of_a_sample_keeps_its_labels_times_places_and_probabilities(sample):
    raw, lines = read(sample, sample_rate=0.4), pd.read_csv(sample / RAW_SAMPLE)
    kept = lines.iloc[raw.rows]
    assert raw.labels.tolist() == kept["clk"].tolist()
    assert raw.times.tolist() == kept["time_stamp"].tolist()
    assert raw.context["pid"].tolist() == kept["pid"].tolist()
    assert raw.items["adgroup_id"].to_numpy()[raw.item_of_row].tolist() == kept["adgroup_id"].tolist()
    np.testing.assert_array_equal(raw.probabilities, np.load(sample / SAMPLE_PROBABILITIES)[raw.rows])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_splits_of_a_share_hold_its_rows_and_the_places_in_the_whole_file(sample, protocol):
    data = load_alibaba(sample, protocol, sample_rate=0.5)
    rows, _ = every(data, "userid")
    assert sorted(rows.tolist()) == read(sample, sample_rate=0.5).rows.tolist()
    assert 1000 < len(rows) < 2000
    np.testing.assert_array_equal(data.probabilities, np.load(sample / SAMPLE_PROBABILITIES)[data.test.rows])


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0001, 2.0, math.nan, math.inf])
def test_a_share_out_of_range_is_refused(folder, rate):
    message = refusal(folder, sample_rate=rate)
    assert message == f"--sample-rate: expected a share above 0 and of at most 1, got {rate}."


def test_a_share_that_holds_no_user_is_refused(folder):
    refusal(folder, "train split: expected at least one row, got none of 0", sample_rate=1e-12)


# --- synthetic data


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_sample_is_called_synthetic_and_has_the_probabilities_of_its_test_rows(sample, protocol):
    data = load_alibaba(sample, protocol)
    assert data.synthetic
    assert data.name == "alibaba-synthetic"
    np.testing.assert_array_equal(data.probabilities, np.load(sample / SAMPLE_PROBABILITIES)[data.test.rows])


@pytest.mark.parametrize("size", [0, 19, 21])
def test_a_sample_whose_probabilities_do_not_fit_is_refused(folder, size):
    np.save(folder / SAMPLE_PROBABILITIES, np.full(size, 0.5, dtype=np.float32))
    refusal(folder, f"probabilities.npy: expected a number for each of 20 rows, got {size}; the sample was altered")


# --- the fingerprint and the cache


def test_the_fingerprint_depends_on_the_files_and_on_what_shapes_the_splits(folder, tmp_path):
    fingerprint = load_alibaba(folder).fingerprint
    assert len(fingerprint) == 64
    assert load_alibaba(shutil.copytree(folder, tmp_path / "copy"), embedding_dim=4).fingerprint == fingerprint
    others = [load_alibaba(folder, protocol, split_seed=seed) for protocol in PROTOCOLS for seed in (1, 2)]
    others.append(load_alibaba(folder, sample_rate=0.999))
    for name, old, new in ((RAW_SAMPLE, "1494000019", "1494000020"), (USER_PROFILE, "10,0", "10,1"), (AD_FEATURE,) * 3):
        copy = shutil.copytree(folder, tmp_path / name)
        old, new = ("9.0", "8.0") if name == AD_FEATURE else (old, new)
        (copy / name).write_text((copy / name).read_text().replace(old, new, 1))
        others.append(load_alibaba(copy))
    assert len({fingerprint, *(data.fingerprint for data in others)}) == 11


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tables_read_from_the_cache_are_those_that_were_built(folder, tmp_path, protocol, capsys):
    built = load_alibaba(folder, protocol, embedding_dim=6)
    assert not (tmp_path / "cache").exists()
    for _ in range(2):
        data = load_alibaba(folder, protocol, embedding_dim=6, cache=tmp_path / "cache")
        assert_same_splits(data, built)
        assert (data.name, data.protocol, data.labels_leak) == ("alibaba", protocol, False)
        assert data.counts == built.counts
        assert data.source == str(folder)
        assert [column.name for column in data.item_columns] == [column.name for column in built.item_columns]
        assert data.user_columns[0].embedding_dim == 6
    assert capsys.readouterr().out.count("userid(s) of raw_sample.csv missing") == 2  # the last one was not built
    assert [path.name[:-13] for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [f"alibaba-{protocol}"]


def test_a_cache_of_lenient_reading_is_not_taken_with_strict_data(folder, tmp_path):
    load_alibaba(folder, cache=tmp_path / "cache")
    refusal(folder, "user_profile.csv: expected every userid", strict_data=True, cache=tmp_path / "cache")


def test_a_share_has_its_own_cache(sample, tmp_path):
    whole = load_alibaba(sample, cache=tmp_path / "cache")
    half = load_alibaba(sample, sample_rate=0.5, cache=tmp_path / "cache")
    assert len(half.train) < len(whole.train)
    assert_same_splits(half, load_alibaba(sample, sample_rate=0.5, cache=tmp_path / "cache"))


# --- wrong files


@pytest.mark.parametrize("name", [RAW_SAMPLE, AD_FEATURE, USER_PROFILE])
def test_a_missing_file_is_named_with_where_to_get_it(folder, name):
    (folder / name).unlink()
    message = refusal(folder, "https://tianchi.aliyun.com/dataset/dataDetail?dataId=56", "data/alibaba/")
    assert message.startswith(
        f"{folder}: expected raw_sample.csv, ad_feature.csv, user_profile.csv, got no {name}. They need a login at"
    )


def test_a_folder_that_is_not_there_is_named(tmp_path):
    refusal(tmp_path / "nowhere", f"{tmp_path / 'nowhere'}: expected raw_sample.csv", "got no raw_sample.csv")


def test_an_unknown_protocol_is_refused_with_the_choices(folder):
    refusal(folder, "strict, paper, temporal", "'random'", protocol="random")
    refusal(folder / "nowhere", "strict, paper, temporal", "'random'", protocol="random")  # before anything is read


WRONG_LINES = [
    (RAW_SAMPLE, 1, ROW_HEADER.replace("pid", "place"), "expected the header user,time_stamp,adgroup_id,pid,clk, got"),
    (RAW_SAMPLE, 1, "20,1494000019,3,430548_1007,1,0", "expected the header user,time_stamp,adgroup_id,pid,clk, got"),
    (RAW_SAMPLE, 2, "20,1494000019,3,430548_1007,1", "expected 6 columns (user, time_stamp, adgroup_id, pid, nonclk,"),
    (RAW_SAMPLE, 15, "20,1494000019,3,430548_1007,1", "expected 6 columns (user, time_stamp, adgroup_id, pid, nonclk,"),
    (RAW_SAMPLE, 21, "20,1494000019,3,430548_1007,1,0,0", "expected 6 columns"),
    (RAW_SAMPLE, 9, "", "expected 6 columns (user, time_stamp, adgroup_id, pid, nonclk, clk), got 0; mend or remove"),
    (RAW_SAMPLE, 15, "x,1494000019,3,430548_1007,1,0", "expected a whole number as user, got 'x'; mend or remove the"),
    (RAW_SAMPLE, 15, ",1494000019,3,430548_1007,1,0", "expected a whole number as user, got ''"),
    (RAW_SAMPLE, 15, "20,today,3,430548_1007,1,0", "expected a whole number as time_stamp, got 'today'"),
    (RAW_SAMPLE, 15, "20,1494000019,3.5,430548_1007,1,0", "expected a whole number as adgroup_id, got '3.5'"),
    (RAW_SAMPLE, 15, "20,1494000019,3,430548_1007,1,yes", "expected a whole number as clk, got 'yes'"),
    (RAW_SAMPLE, 2, "20,1494000019,3,430548_1007,1,2", "expected 0 or 1 as clk, got 2; mend or remove the line."),
    (RAW_SAMPLE, 15, "20,1494000019,3,430548_1007,1,2", "expected 0 or 1 as clk, got 2; mend or remove the line."),
    (RAW_SAMPLE, 21, "20,1494000019,3,430548_1007,1,-1", "expected 0 or 1 as clk, got -1; mend or remove the line."),
    (
        USER_PROFILE,
        1,
        USER_HEADER.replace("userid", "user"),
        f"expected the header {USER_HEADER.strip()}, got no userid",
    ),
    (USER_PROFILE, 3, "20,7,6,2,4,2,1,1", "expected 9 columns (userid, cms_segid, "),
    (USER_PROFILE, 4, "u30,0,6,2,4,,3,0,", "expected a whole number as userid, got 'u30'"),
    (USER_PROFILE, 4, ",0,6,2,4,,3,0,", "expected a whole number as userid, got ''"),
    (USER_PROFILE, 5, "50,7,9,1,old,2,1,0,2", "expected a whole number or nothing as age_level, got 'old'"),
    (USER_PROFILE, 5, "50,7,9,1,6,2,1,0,1.5", "expected a whole number or nothing as new_user_class_level, got '1.5'"),
    (AD_FEATURE, 1, AD_HEADER.replace("price", "cost"), f"expected the header {AD_HEADER}, got no price."),
    (AD_FEATURE, 3, "2,200,12,5,7", "expected 6 columns (adgroup_id, cate_id, "),
    (AD_FEATURE, 4, "3,100,13,6,7,cheap", "expected a number of at least 0 or nothing as price, got 'cheap'"),
    (AD_FEATURE, 4, "3,100,13,6,7,-0.5", "expected a number of at least 0 or nothing as price, got '-0.5'"),
    (AD_FEATURE, 4, "3,100,13,6,7,inf", "expected a number of at least 0 or nothing as price, got 'inf'"),
    (AD_FEATURE, 5, "9,home,11,9,8,999.0", "expected a whole number or nothing as cate_id, got 'home'"),
    (AD_FEATURE, 5, "NULL,300,11,9,8,999.0", "expected a whole number as adgroup_id, got 'NULL'"),
]


def assert_line_is_refused(folder: Path, name: str, line: int, content: str, expected: str) -> None:
    replace_line(folder / name, line, content)
    message = refusal(folder)
    assert message.startswith(f"{name}, line {line}: {expected}"), message


@pytest.mark.parametrize(("name", "line", "content", "expected"), WRONG_LINES)
def test_a_wrong_line_is_refused_with_its_file_and_number(folder, name, line, content, expected):
    assert_line_is_refused(folder, name, line, content, expected)


@pytest.mark.parametrize(("name", "line", "content", "expected"), WRONG_LINES)
def test_a_wrong_line_of_a_later_block_is_too(folder, name, line, content, expected, small_blocks):
    assert_line_is_refused(folder, name, line, content, expected)


def test_the_first_of_two_wrong_clicks_is_named(folder):
    replace_line(folder / RAW_SAMPLE, 15, "20,1494000019,3,430548_1007,1,3")
    replace_line(folder / RAW_SAMPLE, 6, "20,1494000019,3,430548_1007,1,2")
    assert refusal(folder).startswith("raw_sample.csv, line 6: expected 0 or 1 as clk, got 2;")


@pytest.mark.parametrize("name", [RAW_SAMPLE, AD_FEATURE, USER_PROFILE])
def test_an_empty_file_is_refused(folder, name):
    path = folder / name
    header = path.read_text().split("\n")[0]
    path.write_text("")
    assert refusal(folder).startswith(f"{name}, line 1: expected the header ")
    for content in (header, header + "\n"):
        path.write_text(content)
        assert refusal(folder) == f"{name}: expected at least one row below the header, got none."


def test_a_user_or_ad_that_comes_twice_is_refused(tmp_path, monkeypatch):
    users = write_folder(tmp_path / "users", users=[*USERS, (30, 1, 1, 1, 1, 1, 1, 1, 1), USERS[0]])
    ads = write_folder(tmp_path / "ads", ads=[*ADS, ADS[1]])
    for block_bytes in (2**25, 20):  # the second time in another block, too
        blocks = partial(read_csv_blocks, block_bytes=block_bytes)
        monkeypatch.setattr(preprocessing.alibaba, "read_csv_blocks", blocks)
        expected = "user_profile.csv: expected each userid once, got 30 again; remove the repeated lines."
        assert refusal(users) == expected
        assert refusal(ads) == "ad_feature.csv: expected each adgroup_id once, got 2 again; remove the repeated lines."


@pytest.mark.parametrize("click", [0, 1])
def test_clicks_of_one_class_are_refused(tmp_path, click):
    path = write_folder(tmp_path / "alibaba", rows=[(*row[:4], 1 - click, click) for row in ROWS])
    refusal(path, f"train split: expected labels 0 and 1, got only {click}")


def test_too_few_rows_are_refused(tmp_path):
    path = write_folder(tmp_path / "alibaba", rows=ROWS[:3])
    refusal(path, "valid split: expected at least one row, got none of 3")


@pytest.mark.parametrize("block_bytes", [50, 2**25])
def test_places_that_look_like_numbers_are_text(tmp_path, monkeypatch, block_bytes):
    names = {HOME: "007", SIDE: "7", FOOT: FOOT}
    path = write_folder(tmp_path / "alibaba", rows=[(*row[:3], names[row[3]], *row[4:]) for row in ROWS])
    monkeypatch.setattr(preprocessing.alibaba, "read_csv_blocks", partial(read_csv_blocks, block_bytes=block_bytes))
    data = load_alibaba(path, "temporal")
    ids = {HOME: 2, SIDE: 3, FOOT: 1}
    for split in SPLITS:
        assert feature(data, split, "pid") == [ids[ROWS[row][3]] for row in getattr(data, split).rows]


def test_a_line_cut_short_below_one_that_is_too_long_is_refused(folder):
    replace_line(folder / AD_FEATURE, 3, "2,200,12,5,7,99.0,1")
    replace_line(folder / AD_FEATURE, 4, "3,100,13,6,7")
    refusal(folder, "ad_feature.csv, line 3: expected 6 columns", "got 7")


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


def test_without_files_the_script_says_where_to_get_them_and_where_to_put_them(tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    result = run_in_process(SCRIPT, folder=project)
    assert_refused(result, "error: data/alibaba: expected the Alibaba display ads")
    assert_says_where_to_get_it(result.stderr.strip())
    assert not (project / "runs").exists()


# --- the script


MODELS = ("IntTower", "DSSM", "DCN")


@pytest.fixture(scope="module")
def runs(sample, tmp_path_factory) -> dict[tuple[str, str], tuple]:
    """Each protocol and model with the result of its run and its folder."""
    folder = tmp_path_factory.mktemp("runs")

    results = {}
    for protocol, model in itertools.product(PROTOCOLS, MODELS):
        output = folder / f"{protocol}-{model}"
        arguments = ("--data", sample, "--protocol", protocol, "--model", model, "--output", output)
        result = run(SCRIPT, *arguments, "--no-cache", "--epochs", "1", "--hidden-units", "16,8")
        results[protocol, model] = result, output
    return results


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_the_script_trains_a_model_under_a_protocol_and_records_it(runs, protocol, model):
    result, output = runs[protocol, model]
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC DATA" in result.stdout
    assert "userid(s) of raw_sample.csv missing" in result.stdout
    record = json.loads((output / "record.json").read_text())
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


def test_the_script_keeps_its_tables_in_the_cache_unless_it_is_told_not_to(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(train_alibaba_IntTower, "CACHE_FOLDER", tmp_path / "cache")
    train_alibaba_IntTower.main(settings(sample, cache=False, output=str(tmp_path / "without")))
    assert not (tmp_path / "cache").exists()
    records = [json.loads((tmp_path / "without" / "record.json").read_text())]
    for name in ("building", "reading"):
        train_alibaba_IntTower.main(settings(sample, output=str(tmp_path / name)))
        records.append(json.loads((tmp_path / name / "record.json").read_text()))
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
    assert records[0]["test"] == records[1]["test"] == records[2]["test"]


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
    folder = os.environ.get("INTTOWER_DATA")
    if not folder:
        pytest.skip("needs real rows of raw_sample.csv: INTTOWER_DATA is not set")
    path = Path(folder) / "alibaba" / "raw_sample_head.csv"
    if not path.is_file():
        pytest.skip(f"needs real rows of raw_sample.csv: no alibaba/raw_sample_head.csv in INTTOWER_DATA ({folder})")
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


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_real_rows_are_all_dealt_out_with_their_clicks(real_folder, real_lines, protocol):
    data, raw = load_alibaba(real_folder, protocol), pd.read_csv(real_lines)
    rows, user_ids = every(data, "userid")
    assert sorted(rows.tolist()) == list(range(9_999))
    for name in SPLITS:
        table = getattr(data, name)
        np.testing.assert_array_equal(table.labels.numpy(), raw["clk"].to_numpy()[table.rows])
        assert data.counts[name] == len(table)
    assert [len(getattr(data, name)) for name in SPLITS] == [7_199, 800, 2_000]
    assert (data.counts["rows_read"], data.counts["rows_kept"]) == (9_999, 9_999)
    assert (data.counts["userids"], data.counts["adgroup_ids"]) == (8_328, 897)
    without_profile = np.unique(raw["user"])[::10]
    without_features = np.unique(raw["adgroup_id"])[::20]
    assert data.counts["userids_not_in_user_profile.csv"] == len(without_profile) == 833
    assert data.counts["adgroup_ids_not_in_ad_feature.csv"] == len(without_features) == 45
    assert data.counts["rows_of_userid_not_in_user_profile.csv"] == raw["user"].isin(without_profile).sum()
    assert data.counts["rows_of_adgroup_id_not_in_ad_feature.csv"] == raw["adgroup_id"].isin(without_features).sum()
    assert not data.synthetic
    assert data.labels_leak is False

    lacking = raw["user"].isin(without_profile).to_numpy()[rows]
    for name in USER_NAMES[1:]:
        assert (every(data, name)[1][lacking] == 1).all()
    in_train = raw["user"].isin(raw["user"].to_numpy()[data.train.rows]).to_numpy()[rows]
    np.testing.assert_array_equal(user_ids > 1, in_train)
    assert np.isfinite(every(data, "price")[1]).all()
    if protocol == "temporal":
        times = raw["time_stamp"].to_numpy()
        assert times[data.train.rows].max() <= times[data.valid.rows].min()
        assert times[data.valid.rows].max() <= times[data.test.rows].min()


def test_real_rows_without_a_profile_are_refused_with_strict_data(real_folder):
    refusal(real_folder, "user_profile.csv: expected every userid of raw_sample.csv, 833 missing", strict_data=True)


def test_the_real_rows_alone_are_not_taken_for_the_data(real_lines, monkeypatch):
    monkeypatch.setenv("INTTOWER_DATA", str(real_lines.parent.parent))
    with pytest.raises(UserError) as caught:
        alibaba_files()
    assert_says_where_to_get_it(str(caught.value))
