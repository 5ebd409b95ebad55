"""KuaiRand-Pure from its raw CSV files or their archive to encoded splits, and what is said of files that are wrong."""

import gzip
import io
import json
import os
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tables
from samples import assert_ranked_and_calibrated
from shell import run
from tables import SPLITS, assert_same_splits

from preprocessing import kuairand, sources
from preprocessing.choices import PROTOCOLS
from preprocessing.download import DownloadError
from preprocessing.kuairand import FILES, load_kuairand, locate_kuairand, read_kuairand
from preprocessing.sample_kuairand import write_kuairand_sample
from preprocessing.sources import KUAIRAND_ARCHIVE, KUAIRAND_USERS, KUAIRAND_VIDEOS, kuairand_files
from preprocessing.synthetic import SAMPLE_PROBABILITIES
from reproduction import leaks

EARLY, LATE = "log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv"
STATISTIC, RANDOM = "video_features_statistic_pure.csv", "log_random_4_22_to_5_08_pure.csv"
LOG_HEADER = "user_id,video_id,time_ms,is_click,is_like,long_view,tab"
CLICKS = (0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 0, 1, 0, 0, 1)
# In the order of time: 14 rows of train, 2 of valid, 4 of test. User 9 and video 9 have no line in their tables.
ROWS = [
    ((1, 2, 3, 9)[i % 4], (10, 20, 9)[i % 3], 1_650_000_000_000 + i, click, 1 - click, 1 - click, i % 3)
    for i, click in enumerate(CLICKS)
]
LOGS = {EARLY: ROWS[11::-1], LATE: ROWS[12:]}
# A user's degree of activity and onehot_feat4; a video's tags and duration.
USERS = {1: ("full_active", "1"), 2: ("UNKNOWN", "1.0"), 3: ("", ""), 4: ("day_new", "7.0")}
VIDEOS = {10: ('"39,68"', "5000.0"), 20: ("68", ""), 30: ("1", "9.0")}


def write_folder(folder: Path, logs=LOGS, users=USERS, videos=VIDEOS) -> Path:
    """The raw files, with what else stands in every line."""
    contents = {name: [LOG_HEADER, *(",".join(map(str, row)) for row in rows)] for name, rows in logs.items()}
    contents[KUAIRAND_USERS] = [",".join(FILES[KUAIRAND_USERS])] + [
        f'{user},{active},0,"[1,10)",250+,730+,1,2,3,4,{one_hot},{",".join("0" * 13)}'
        for user, (active, one_hot) in users.items()
    ]
    contents[KUAIRAND_VIDEOS] = [",".join(FILES[KUAIRAND_VIDEOS])] + [
        f"{video},{video + 1},NORMAL,Web,0,{tags},{duration}" for video, (tags, duration) in videos.items()
    ]
    folder.mkdir(parents=True)
    for name, lines in contents.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def write_archive(path: Path, folder: Path, inside: str = "KuaiRand-Pure/data") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(folder.iterdir(), reverse=True):
            archive.add(file, f"{inside}/{file.name}")
    return path


def every(data, name: str) -> list:
    """A feature's values in the order of the raw rows."""
    found = {}
    for table in (getattr(data, split) for split in SPLITS):
        found |= dict(zip(table.rows.tolist(), table.features[name][:].tolist(), strict=True))
    return [found[row] for row in sorted(found)]


refusal = partial(tables.refusal, load_kuairand)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "kuairand")


@pytest.fixture
def temporal(folder):
    return load_kuairand(folder, "temporal")


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    return write_kuairand_sample(tmp_path_factory.mktemp("data") / "kuairand", num_rows=8000, num_videos=300)


# --- rows and labels


def test_rows_are_those_of_both_logs_one_after_the_other_and_are_split_in_the_order_of_their_milliseconds(temporal):
    order = [*range(11, -1, -1), *range(12, 20)]
    assert [getattr(temporal, split).rows.tolist() for split in SPLITS] == [order[:14], order[14:16], order[16:]]
    assert [getattr(temporal, split).labels.tolist() for split in SPLITS] == [
        [*CLICKS[:14]],
        [*CLICKS[14:16]],
        [*CLICKS[16:]],
    ]
    assert (temporal.name, temporal.synthetic, temporal.counts["rows_read"]) == ("kuairand", False, 20)


def test_a_long_view_is_a_label_of_its_own_with_a_fingerprint_and_a_cache_of_its_own(folder, temporal, tmp_path):
    for _ in range(2):  # built, then read again
        clicks, views = (
            load_kuairand(folder, "temporal", label=label, cache=tmp_path / "cache")
            for label in ("is_click", "long_view")
        )
        assert_same_splits(clicks, temporal)
        assert views.test.labels.tolist() == [1 - click for click in CLICKS[16:]]
        assert views.name == "kuairand-long_view"
        assert views.fingerprint != clicks.fingerprint
    kept = [path.name.rsplit("-", 1)[0] for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]
    assert sorted(kept) == ["kuairand-is_click-temporal", "kuairand-long_view-temporal"]
    assert refusal(folder, label="is_like") == "label: expected one of is_click, long_view, got 'is_like'."


def test_no_outcome_of_a_row_is_a_feature_and_the_cache_is_not_taken_for_other_files(folder, temporal, tmp_path):
    load_kuairand(folder, "temporal", cache=tmp_path / "cache")
    turned = [(*row[:4], row[3], row[3], row[6]) for row in ROWS[12:]]
    write_folder(tmp_path / "other", logs={EARLY: LOGS[EARLY], LATE: turned})
    other = load_kuairand(tmp_path / "other", "temporal", cache=tmp_path / "cache")
    assert_same_splits(other, temporal)
    assert other.fingerprint != temporal.fingerprint
    names = {column.name for column in temporal.user_columns + temporal.item_columns}
    made = {"user_mean_click", "video_mean_click", "video_duration_missing", "tab"}
    assert names == {*FILES[KUAIRAND_USERS], *FILES[KUAIRAND_VIDEOS]} | made


def test_a_row_that_repeats_another_in_user_video_and_time_is_counted_and_refused_with_strict_data(tmp_path):
    again = [ROWS[3], (*ROWS[5][:2], ROWS[-1][2] + 1, *ROWS[5][3:])]  # the second at another time, which is no fault
    tables_of_all = {"users": USERS | {9: USERS[1]}, "videos": VIDEOS | {9: VIDEOS[10]}}
    folder = write_folder(tmp_path / "repeats", logs={LATE: [*ROWS, *again]}, **tables_of_all)
    data = load_kuairand(folder, "temporal")
    assert data.counts["rows_that_repeat_another"] == 1
    assert {3, 20} <= set(data.train.rows.tolist())
    fragments = ("got 1 of 22 rows that repeat another", "rows 4 and 21: user_id 9, video_id 10, time 1650000000003")
    refusal(folder, protocol="temporal", strict_data=True, fragments=fragments)


def test_only_paper_takes_means_of_the_rows_that_are_scored_and_over_all_rows(folder):
    data = {protocol: load_kuairand(folder, protocol) for protocol in PROTOCOLS}
    assert [protocol for protocol in PROTOCOLS if data[protocol].labels_leak] == ["paper"]
    means = data["paper"].user_encoder.fields[-1]
    clicks_of = {user: [row[3] for row in ROWS if row[0] == user] for user in (1, 2, 3, 9)}
    np.testing.assert_allclose(means.means[np.argsort(means.keys)], [np.mean(c) for c in clicks_of.values()])


# --- fields


def test_a_whole_number_with_and_without_a_point_is_one_value_and_a_missing_cell_is_out_of_vocabulary(temporal):
    user_of_row = [row[0] for log in LOGS.values() for row in log]
    assert every(temporal, "onehot_feat4") == [{1: 2, 2: 2, 3: 1, 9: 1}[user] for user in user_of_row]
    assert every(temporal, "user_active_degree") == [{1: 3, 2: 2, 3: 1, 9: 1}[user] for user in user_of_row]
    assert every(temporal, "tab") == [2 + row[6] for log in LOGS.values() for row in log]


def test_a_video_has_each_of_its_tags_and_one_without_duration_the_mean_and_a_mark(temporal):
    video_of_row = [row[1] for log in LOGS.values() for row in log]
    assert every(temporal, "tag") == [{10: [2, 3], 20: [3, 0], 9: [1, 0]}[video] for video in video_of_row]
    assert every(temporal, "video_duration_missing") == [[float(video != 10)] for video in video_of_row]
    assert np.ptp(every(temporal, "video_duration")) == 0  # one known duration, which is the mean


# --- users and videos without a line of their own


def test_a_user_and_a_video_without_a_line_stay_in_and_are_said_and_are_refused_with_strict_data(folder, capsys):
    data = load_kuairand(folder, "temporal")
    both = f"{EARLY}, {LATE}"
    assert capsys.readouterr().out.splitlines() == [
        f"{KUAIRAND_USERS}: 1 user_id(s) of {both} missing (9); their 5 rows (25.0%) stay in, with the user_id alone "
        "known.",
        f"{KUAIRAND_VIDEOS}: 1 video_id(s) of {both} missing (9); their 6 rows (30.0%) stay in, with the video_id "
        "alone known.",
    ]
    assert data.counts[f"user_ids_not_in_{KUAIRAND_USERS}"] == data.counts[f"video_ids_not_in_{KUAIRAND_VIDEOS}"] == 1
    assert sorted(set(every(data, "user_id"))) == [2, 3, 4, 5]
    refusal(folder, strict_data=True, fragments=(f"{KUAIRAND_USERS}: expected every user_id of", "1 missing (9) with"))


# --- the archive and the folder


def test_the_archive_its_folder_and_packed_files_are_the_same_data_and_nothing_is_unpacked(folder, temporal, tmp_path):
    unpacked = write_folder(tmp_path / "KuaiRand-Pure" / "data")
    packed = tmp_path / "packed"
    packed.mkdir()
    for file in folder.iterdir():
        (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    archive = write_archive(tmp_path / KUAIRAND_ARCHIVE, folder)
    outside = write_archive(tmp_path / "outside.tar.gz", folder, inside="../..")
    before = sorted(tmp_path.rglob("*"))
    for path in (unpacked, unpacked.parent, packed, archive, outside):
        assert_same_splits(load_kuairand(path, "temporal"), temporal)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_statistics_and_the_random_log_are_never_read(folder, temporal, tmp_path):
    for name in (STATISTIC, RANDOM):
        (folder / name).write_bytes(b"\x00 no table")
    assert load_kuairand(folder, "temporal").fingerprint == temporal.fingerprint
    archive = write_archive(tmp_path / KUAIRAND_ARCHIVE, folder)
    assert_same_splits(load_kuairand(archive, "temporal"), temporal)


def test_a_damaged_archive_and_one_that_lacks_or_repeats_a_file_are_refused(folder, tmp_path):
    whole = write_archive(tmp_path / KUAIRAND_ARCHIVE, folder).read_bytes()
    path = tmp_path / "other.tar.gz"
    flipped = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]  # in gzip's own checksum
    for content in (whole[: len(whole) // 2], whole[:-9], flipped, b"<html>", gzip.compress(b"no archive " * 99)):
        path.write_bytes(content)
        refusal(path, fragments=(f"{path}: expected", "damaged", "fetch it again."))
    with tarfile.open(path, "w:gz") as archive:
        for _ in range(2):
            archive.add(folder / LATE)
    assert refusal(path) == f"{path}: expected one {LATE} inside, got several; keep one."
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / LATE)
        link = tarfile.TarInfo(KUAIRAND_USERS)
        link.type, link.linkname = tarfile.SYMTYPE, str(folder / KUAIRAND_USERS)
        archive.addfile(link, io.BytesIO())
    refusal(path, fragments=(f"got no {KUAIRAND_USERS}, {KUAIRAND_VIDEOS}. It is public: fetch",))


def test_logs_whose_days_overlap_are_refused_and_others_are_not(folder, tmp_path):
    inner = "log_standard_4_25_to_5_08_pure.csv"
    (folder / inner).write_bytes((folder / LATE).read_bytes())
    assert refusal(folder) == (
        f"{folder}: expected logs of different days, got {LATE} and {inner}, which share some; remove one."
    )
    (folder / LATE).unlink()
    assert load_kuairand(folder, "temporal").counts["rows_read"] == 20


@pytest.mark.parametrize(
    ("name", "line", "content", "expected"),
    [
        (LATE, 3, "1,10,1650000000013,2,0,0,1", "expected 0 or 1 as is_click, got 2; mend or remove the line."),
        (EARLY, 13, "1,10,1650000000013,,0,0,1", "expected a whole number as is_click, got ''"),
        (LATE, 2, "1,10,now,1,0,0,1", "expected a whole number as time_ms, got 'now'"),
        (
            KUAIRAND_USERS,
            2,
            f'1,a,0,"[1,10)",250+,730+,{",".join(["1.5"] * 18)}',
            "expected a whole number below 2^53 or nothing",
        ),
        (KUAIRAND_VIDEOS, 3, "20,21,NORMAL,Web,0,39,68,5000.0", "expected 7 columns (video_id,"),
    ],
)
def test_a_wrong_line_is_refused_with_its_file_and_number(folder, name, line, content, expected):
    lines = (folder / name).read_text().splitlines()
    lines[line - 1] = content
    (folder / name).write_text("\n".join(lines))
    assert refusal(folder).startswith(f"{name}, line {line}: {expected}")


# --- where the files are looked for


def test_the_files_are_found_by_name_in_the_environment_or_in_data(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DATA_FOLDER", tmp_path)
    monkeypatch.delenv("INTTOWER_DATA", raising=False)
    assert {kuairand_files(named) for named in (None, str(folder), str(tmp_path), str(folder / LATE))} == {folder}
    archive = write_archive(tmp_path / KUAIRAND_ARCHIVE, folder)
    assert kuairand_files(str(archive)) == kuairand_files() == archive
    monkeypatch.setenv("INTTOWER_DATA", str(tmp_path / "kuairand"))
    assert kuairand_files() == folder
    (tmp_path / "empty").mkdir()
    advice = "To try the script on invented data: python -m preprocessing.sample kuairand data/kuairand-sample, and"
    expected = f"--data {tmp_path / 'empty'}: expected KuaiRand-Pure (KuaiRand-Pure.tar.gz, or log_standard_*_pure.csv,"
    tables.refusal(kuairand_files, str(tmp_path / "empty"), fragments=(expected, advice))


def test_without_files_the_archive_is_fetched_and_without_network_the_sample_takes_its_place(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("INTTOWER_DATA", raising=False)
    for module in (sources, kuairand):
        monkeypatch.setattr(module, "DATA_FOLDER", tmp_path / "data")

    def unreachable(url: str, path: Path) -> Path:
        raise DownloadError(f"{url}: could not be fetched")

    monkeypatch.setattr(kuairand, "download", unreachable)
    monkeypatch.setattr(kuairand, "write_kuairand_sample", partial(write_kuairand_sample, num_rows=500))
    assert load_kuairand(locate_kuairand()).synthetic
    assert "no KuaiRand-Pure in data/; fetching https://zenodo.org/records/10439422/files/" in capsys.readouterr().out
    (tmp_path / "data" / "kuairand").mkdir()
    monkeypatch.setattr(kuairand, "download", lambda url, path: write_archive(path, folder))
    assert locate_kuairand() == tmp_path / "data" / "kuairand" / KUAIRAND_ARCHIVE == kuairand_files()


# --- the script, the leak check and the sample


def test_the_script_trains_a_model_and_its_record_names_the_label(sample, tmp_path):
    flags = ("--label", "long_view", "--model", "DSSM", "--epochs", "1", "--hidden-units", "16,8", "--no-cache")
    result = run("train_kuairand_IntTower.py", "--data", sample, "--output", tmp_path / "run", *flags)
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC DATA" in result.stdout
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["dataset"], record["settings"]["label"]) == ("kuairand-long_view-synthetic", "long_view")
    assert 0 < record["test"]["auc"] < record["best_possible_test_auc"] < 1
    assert "cache" not in record["settings"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_leak_check_encodes_as_the_script_does(sample, protocol, monkeypatch):
    monkeypatch.setenv("INTTOWER_DATA", str(sample))
    encoded = leaks.encode(leaks.read_raw("kuairand"), protocol, "means")
    assert encoded.checksum() == load_kuairand(sample, protocol).checksum()


def test_the_sample_has_the_columns_gaps_and_repeats_of_the_real_files_and_its_probabilities_rank_the_clicks(sample):
    logs, users, videos = (
        [pd.read_csv(file) for file in sorted(sample.glob(f"{name}*.csv"))] for name in ("log", "user", "video")
    )
    assert [table.shape[1] for table in (*logs, *users, *videos)] == [19, 19, 31, 12]
    for column in ("onehot_feat4", "onehot_feat12", "onehot_feat17"):
        assert users[0][column].isna().any()
    assert videos[0][["tag", "video_duration"]].isna().any().all()
    rows = pd.concat(logs)
    assert rows["time_ms"].is_monotonic_increasing
    assert (rows["date"].iloc[[0, -1]] == [20220408, 20220508]).all()
    assert logs[1]["date"].min() == 20220422
    assert (pd.to_datetime(rows["time_ms"] + 8 * 3_600_000, unit="ms").dt.hour * 100 == rows["hourmin"]).all()
    assert 0.01 < rows.duplicated(["user_id", "video_id", "time_ms"]).mean() < 0.05
    assert read_kuairand(sample).counts[f"video_ids_not_in_{KUAIRAND_VIDEOS}"] > 0
    probabilities = np.load(sample / SAMPLE_PROBABILITIES)
    bounds = (0, 0.25, 0.5, 0.75, 1)
    assert_ranked_and_calibrated(rows["is_click"].to_numpy(), probabilities, bounds, tolerance=0.05)


# --- real files


@pytest.fixture(scope="module")
def real() -> Path:
    """KuaiRand-Pure's log of two weeks, in the folder that INTTOWER_DATA names, or a skipped test."""
    path = Path(os.environ.get("INTTOWER_DATA", "nowhere")) / "kuairand-pure"
    if not (path / "log_standard_4_25_to_5_08_pure.csv.gz").is_file():
        pytest.skip("needs real rows of KuaiRand-Pure: no kuairand-pure/log_standard_4_25_to_5_08_pure.csv.gz there")
    return path


def test_the_real_log_is_dealt_out_whole_in_time_with_its_clicks_and_tags(real):
    data, raw = load_kuairand(real, "temporal"), pd.read_csv(real / "log_standard_4_25_to_5_08_pure.csv.gz")
    assert data.counts["rows_read"] == len(raw) == 228_329
    rows = np.concatenate([getattr(data, split).rows for split in SPLITS])
    assert sorted(rows.tolist()) == list(range(len(raw)))
    assert (np.diff(raw["time_ms"].to_numpy()[rows]) >= 0).all()
    labels = np.concatenate([getattr(data, split).labels.numpy() for split in SPLITS])
    assert (labels == raw["is_click"].to_numpy()[rows]).all()
    assert labels.mean() == pytest.approx(0.442, abs=0.0005)
    assert (data.counts["user_ids"], data.counts["video_ids"]) == (25_156, 6_361)
    assert data.counts[f"user_ids_not_in_{KUAIRAND_USERS}"] == data.counts[f"video_ids_not_in_{KUAIRAND_VIDEOS}"] == 0
    assert data.counts["rows_that_repeat_another"] == 5_885
    by_name = {field.name: field for field in data.user_encoder.fields + data.item_encoder.fields}
    assert by_name["onehot_feat12"].vocabulary.tolist() == [0, 1]
    assert {"39", "68"} < set(by_name["tag"].vocabulary)
    assert by_name["tab"].vocabulary.tolist() == list(range(15))
