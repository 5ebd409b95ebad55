"""The synthetic samples: what all have in common, and the layouts of MovieLens-1M and of the Alibaba display ads."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from samples import assert_ranked_and_calibrated, contents
from shell import assert_refused, run
from tables import refusal

from preprocessing import sample, synthetic
from preprocessing.alibaba import load_alibaba, read_alibaba
from preprocessing.command import exit_code
from preprocessing.movielens import OFFICIAL_FILES, load_movielens, read_movielens
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sample_kuairand import LOGS, write_kuairand_sample
from preprocessing.sample_movielens import AGES, GENRES, write_movielens_sample
from preprocessing.sources import KUAIRAND_USERS, KUAIRAND_VIDEOS
from preprocessing.synthetic import SAMPLE_PROBABILITIES

ALIBABA_FILES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv")

write_movielens = partial(write_movielens_sample, num_users=30, num_movies=20, num_ratings=300)
write_ads = partial(write_alibaba_sample, num_rows=300, num_users=30, num_ads=40)
write_amazon = partial(write_amazon_sample, num_rows=300)
write_kuairand = partial(write_kuairand_sample, num_rows=300)

# What writes each, and the files beside the probabilities.
SAMPLES = {
    "movielens": (write_movielens, tuple(OFFICIAL_FILES)),
    "amazon of 2014": (write_amazon, ("reviews_Electronics_5.json.gz", "meta_Electronics.json.gz")),
    "amazon of 2018": (partial(write_amazon, release="2018"), ("Electronics_5.json.gz", "meta_Electronics.json.gz")),
    "amazon of 2023": (partial(write_amazon, release="2023"), ("Electronics.jsonl.gz", "meta_Electronics.jsonl.gz")),
    "alibaba": (write_ads, ALIBABA_FILES),
    "kuairand": (write_kuairand, (*LOGS, KUAIRAND_USERS, KUAIRAND_VIDEOS)),
}
of_every_sample = pytest.mark.parametrize(("write", "files"), SAMPLES.values(), ids=SAMPLES)


@of_every_sample
def test_the_same_seed_gives_the_same_bytes_in_every_file_and_another_seed_others(tmp_path, write, files):
    np.random.seed(1)
    folder = write(tmp_path / "a" / "ours", seed=1)
    assert folder == tmp_path / "a" / "ours"
    assert list(folder.parent.iterdir()) == [folder]
    ours = contents(folder)
    assert ours.keys() == {*files, SAMPLE_PROBABILITIES}
    np.random.seed(2)
    assert contents(write(tmp_path / "again", seed=1)) == ours
    theirs = contents(write(tmp_path / "theirs", seed=2))
    assert all(ours[name] != theirs[name] for name in ours)


@of_every_sample
def test_an_existing_folder_is_left_alone(tmp_path, write, files):
    (tmp_path / "sample").mkdir()
    for ours in ({}, {files[0]: b"mine"}):
        for name, content in ours.items():
            (tmp_path / "sample" / name).write_bytes(content)
        assert write(tmp_path / "sample") == tmp_path / "sample"
        assert contents(tmp_path / "sample") == ours


@of_every_sample
def test_a_write_that_breaks_off_leaves_nothing(tmp_path, monkeypatch, write, files):
    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)  # the last file to be written
    assert refusal(write, tmp_path / "sample") == (
        f"{tmp_path / 'sample'}: the synthetic sample could not be written (No space left on device); free some space."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / "sample"
    assert refusal(write_movielens, place).startswith(f"{place}: the synthetic sample could not be written")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
def test_the_datasets_probabilities_are_those_of_its_test_rows(sample_folder, ads_folder, protocol):
    for load, folder, name in (
        (load_movielens, sample_folder, "movielens-synthetic"),
        (load_alibaba, ads_folder, "alibaba-synthetic"),
    ):
        data = load(folder, protocol)
        assert data.synthetic
        assert data.name == name
        of_every_row = np.load(folder / SAMPLE_PROBABILITIES)
        np.testing.assert_array_equal(data.probabilities, of_every_row[data.test.rows])


# --- MovieLens-1M


def test_the_tables_look_like_those_of_movielens(sample_folder):
    raw = read_movielens(sample_folder, strict_data=True)
    assert raw.users["user_id"].tolist() == list(range(1, 121))
    assert set(raw.users["gender"]) == {"F", "M"}
    assert set(raw.users["age"]) == set(AGES)
    assert raw.users["occupation"].between(0, 20).all()
    assert raw.movies["movie_id"].tolist() == list(range(1, 81))
    genres = raw.movies["genres"].str.split("|")
    assert set(genres.explode()) == set(GENRES)
    assert genres.map(lambda names: len(set(names)) == len(names)).all()
    assert abs(len(raw.ratings) - 4000) < 400
    assert raw.ratings["rating"].value_counts(normalize=True)[3] == pytest.approx(0.26, abs=0.03)
    assert not raw.ratings.duplicated(["user_id", "movie_id"]).any()


def test_the_probabilities_of_ratings_rank_the_labels_well_and_are_calibrated(sample_folder):
    raw = read_movielens(sample_folder)
    assert raw.probabilities.shape == (len(raw.ratings),)
    kept, labels = (raw.ratings["rating"] != 3).to_numpy(), (raw.ratings["rating"] > 3).to_numpy()
    assert_ranked_and_calibrated(labels[kept], raw.probabilities[kept], np.arange(0, 1.2, 0.2), tolerance=0.08)


def test_probabilities_follow_their_ratings_when_others_are_dropped(tmp_path, capsys):
    folder = write_movielens(tmp_path / "sample")
    every_rating, every_probability = read_movielens(folder).ratings, np.load(folder / SAMPLE_PROBABILITIES)
    users = (folder / "users.dat").read_text().splitlines(keepends=True)
    (folder / "users.dat").write_text("".join(users[1:]))
    raw = read_movielens(folder)
    assert "1 rated user_id(s) missing (1)" in capsys.readouterr().out
    np.testing.assert_array_equal(raw.probabilities, every_probability[(every_rating["user_id"] != 1).to_numpy()])


# --- Alibaba display ads


@pytest.fixture(scope="module")
def ads_folder(tmp_path_factory) -> Path:
    """30,000 shown ads, as many users and ads as the full data would have for them."""
    return write_alibaba_sample(tmp_path_factory.mktemp("data") / "alibaba", num_rows=30_000)


@pytest.fixture(scope="module")
def shown(ads_folder) -> pd.DataFrame:
    return pd.read_csv(ads_folder / "raw_sample.csv")


def num_lines(folder: Path) -> list[int]:
    """Of each file, below its header."""
    return [len((folder / name).read_text().splitlines()) - 1 for name in ALIBABA_FILES]


def test_the_headers_are_those_of_the_real_files_with_the_space_at_the_end_of_one(ads_folder):
    headers = {name: (ads_folder / name).read_text().split("\n", 1)[0] for name in ALIBABA_FILES}
    assert headers == {
        "raw_sample.csv": "user,time_stamp,adgroup_id,pid,nonclk,clk",
        "ad_feature.csv": "adgroup_id,cate_id,campaign_id,customer,brand,price",
        "user_profile.csv": "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,"
        "occupation,new_user_class_level ",
    }


def test_without_numbers_users_and_ads_keep_the_proportions_of_the_full_data(ads_folder):
    per_row = 30_000 / 26_557_961
    assert num_lines(ads_folder) == [30_000, round(846_811 * per_row), round(1_061_768 * per_row)]


@pytest.mark.parametrize(
    ("num_rows", "num_users", "num_ads"), [(300, 30, 40), (20, 20, 20), (25, 500, 20), (25, 20, 500)]
)
def test_as_many_rows_users_and_ads_are_written_as_asked_for(tmp_path, num_rows, num_users, num_ads):
    folder = write_alibaba_sample(tmp_path / "alibaba", num_rows, num_users, num_ads)
    assert num_lines(folder) == [num_rows, num_ads, num_users]
    assert len(read_alibaba(folder).labels) == num_rows


def test_rows_look_like_those_of_the_real_file(shown):
    assert set(shown["pid"]) == {"430539_1007", "430548_1007"}
    assert (shown["nonclk"] + shown["clk"] == 1).all()
    assert shown["clk"].mean() == pytest.approx(0.0514, abs=0.01)
    assert shown["adgroup_id"].is_monotonic_increasing
    assert shown["time_stamp"].between(1_494_000_000, 1_494_000_000 + 8 * 86_400 - 1).all()
    assert not shown["user"].is_monotonic_increasing
    assert shown["user"].value_counts().iloc[0] > 3 * shown["user"].value_counts().median()


def test_a_few_users_and_ads_have_no_line_and_all_others_are_shown(ads_folder, shown):
    counts = read_alibaba(ads_folder).counts
    for file, key, name, ratio in (
        ("user_profile.csv", "userid", "user", 1.075),
        ("ad_feature.csv", "adgroup_id", "adgroup_id", 1.002),
    ):
        listed = pd.read_csv(ads_folder / file)[key]
        assert listed.is_unique
        assert set(listed) < set(shown[name])
        assert shown[name].nunique() == pytest.approx(ratio * len(listed), abs=1)
        assert counts[f"{key}s_not_in_{file}"] == shown[name].nunique() - len(listed)


def test_values_are_missing_as_often_as_in_the_real_files_and_written_as_there(ads_folder):
    as_text = {"dtype": str, "keep_default_na": False}
    users = pd.read_csv(ads_folder / "user_profile.csv", **as_text)
    ads = pd.read_csv(ads_folder / "ad_feature.csv", **as_text)
    assert (users["pvalue_level"] == "").mean() == pytest.approx(0.54, abs=0.05)
    assert (users["new_user_class_level "] == "").mean() == pytest.approx(0.32, abs=0.05)
    assert (ads["brand"] == "NULL").mean() == pytest.approx(0.3, abs=0.05)
    assert not ads.drop(columns="brand").isin(["", "NULL"]).any(axis=None)
    ranges = {
        "cms_segid": range(97),
        "cms_group_id": range(13),
        "final_gender_code": (1, 2),
        "age_level": range(7),
        "pvalue_level": ("", 1, 2, 3),
        "shopping_level": (1, 2, 3),
        "occupation": (0, 1),
        "new_user_class_level ": ("", 1, 2, 3, 4),
    }
    for name, values in ranges.items():
        assert set(users[name]) == set(map(str, values)), name
    prices = ads["price"].astype(float)
    assert prices.min() >= 0
    assert prices.max() > 20 * prices.median()


def test_the_probabilities_of_clicks_rank_them_and_are_calibrated(ads_folder, shown):
    probabilities = np.load(ads_folder / SAMPLE_PROBABILITIES)
    assert (probabilities.shape, probabilities.dtype) == ((30_000,), np.float32)
    assert probabilities.mean() == pytest.approx(0.0514, abs=0.0005)
    bounds, clicks = (0, 0.05, 0.1, 0.2, 0.5), shown["clk"].to_numpy()
    assert_ranked_and_calibrated(clicks, probabilities, bounds, tolerance=0.04, least_auc=0.65)


def test_a_click_depends_on_the_user_the_ad_and_how_they_match(ads_folder, shown):
    logits = pd.Series(np.load(ads_folder / SAMPLE_PROBABILITIES).astype(float))
    logits = np.log(logits / (1 - logits))
    by_user, by_ad = (logits.groupby(shown[name]).transform("mean") for name in ("user", "adgroup_id"))
    assert by_user.std() > 0.2
    assert by_ad.std() > 0.2
    assert (logits - by_user - by_ad).std() > 0.2


def test_more_rows_than_a_block_are_written_below_one_header(tmp_path, monkeypatch):
    whole = write_ads(tmp_path / "whole")
    monkeypatch.setattr(synthetic, "BLOCK_ROWS", 70)
    folder = write_ads(tmp_path / "blocks")
    rows, expected = (pd.read_csv(place / "raw_sample.csv") for place in (folder, whole))
    assert rows[["user", "adgroup_id"]].equals(expected[["user", "adgroup_id"]])
    for name in ("ad_feature.csv", "user_profile.csv", SAMPLE_PROBABILITIES):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert len(read_alibaba(folder).labels) == 300


# --- from the shell


def test_a_sample_is_written_from_the_shell_and_never_over_a_folder(tmp_path):
    for dataset, numbers, write in (
        ("alibaba", ("--rows", "300", "--users", "30", "--items", "40"), write_ads),
        ("amazon", ("--rows", "300", "--release", "2018"), partial(write_amazon, release="2018")),
        ("kuairand", ("--rows", "300"), write_kuairand),
    ):
        folder = tmp_path / dataset
        command = ("-m", "preprocessing.sample", dataset, folder)
        result = run(*command, *numbers, "--seed", "5")
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"synthetic {dataset} data: {folder}/\n"
        assert contents(folder) == contents(write(tmp_path / f"our {dataset}", seed=5))
        assert_refused(run(*command), f"error: {folder}: expected no such file or folder, got one; name another.")


def main(*arguments) -> int:
    """The exit code of the command with these arguments, in this process."""
    return exit_code(lambda: sample.main(sample.parse([*map(str, arguments)])))


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--rows", 19, "expected at least 20, got 19."),
        ("--users", 0, "expected at least 20, got 0."),
        ("--items", -5, "expected at least 20, got -5."),
        ("--seed", -1, "expected a number of at least 0, got -1."),
        ("--release", 2018, "expected with amazon alone, got alibaba; leave it out."),
    ],
)
def test_settings_that_no_sample_has_are_refused(tmp_path, capsys, flag, value, expected):
    assert main("alibaba", tmp_path / "new", flag, value) == 2
    assert capsys.readouterr().err == f"error: {flag}: {expected}\n"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_dataset_is_refused_with_the_choices(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main("taobao", tmp_path / "taobao")
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert all(name in message for name in ("movielens", "amazon", "alibaba", "kuairand"))


FULL = {"num_rows": 26_557_961, "num_users": 1_061_768, "num_ads": 846_811}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {}),
        (("--rows", 50, "--users", 60, "--items", 70, "--seed", 7), dict(zip(FULL, (50, 60, 70), strict=True))),
        (("--full", "--users", 60), FULL | {"num_users": 60}),
    ],
)
def test_the_flags_say_how_much_is_written_and_full_is_the_size_of_the_real_data(
    tmp_path, monkeypatch, arguments, expected
):
    calls = []
    numbers = sample.WRITERS["alibaba"][1]
    writer = (lambda folder, **options: calls.append((folder, options)), numbers)
    monkeypatch.setitem(sample.WRITERS, "alibaba", writer)
    assert main("alibaba", tmp_path / "alibaba", *arguments) == 0
    assert calls == [(tmp_path / "alibaba", {"seed": 7 if "--seed" in arguments else 1023} | expected)]
