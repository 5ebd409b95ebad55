"""The synthetic samples in the layouts of MovieLens-1M and of the Alibaba display ads."""

import numpy as np
import pandas as pd
import pytest
from shell import assert_refused, run
from sklearn.metrics import roc_auc_score

from preprocessing import sample, synthetic
from preprocessing.alibaba import load_alibaba, read_alibaba
from preprocessing.command import exit_code
from preprocessing.errors import UserError
from preprocessing.movielens import OFFICIAL_FILES, load_movielens, read_movielens
from preprocessing.sample_alibaba import write_alibaba_sample
from preprocessing.sample_movielens import AGES, GENRES, write_movielens_sample
from preprocessing.synthetic import SAMPLE_PROBABILITIES

FILES = (*OFFICIAL_FILES, SAMPLE_PROBABILITIES)


def write(folder, **changes):
    return write_movielens_sample(folder, **{"num_users": 30, "num_movies": 20, "num_ratings": 300} | changes)


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    np.random.seed(1)
    ours = contents(write(tmp_path / "ours"))
    np.random.seed(2)
    assert contents(write(tmp_path / "theirs")) == ours


def test_another_seed_gives_other_ratings_users_and_movies(tmp_path):
    ours, theirs = contents(write(tmp_path / "ours", seed=1)), contents(write(tmp_path / "theirs", seed=2))
    for name in FILES:
        assert ours[name] != theirs[name]


def test_the_folder_holds_the_official_files_and_the_probabilities_and_nothing_is_left_beside_it(tmp_path):
    folder = write(tmp_path / "a" / "sample")
    assert folder == tmp_path / "a" / "sample"
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert list(folder.parent.iterdir()) == [folder]


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "ratings.dat").write_text("mine")
    assert write(tmp_path / "sample") == tmp_path / "sample"
    assert [path.name for path in (tmp_path / "sample").iterdir()] == ["ratings.dat"]
    assert (tmp_path / "sample" / "ratings.dat").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as caught:
        write(tmp_path / "file" / "sample")
    assert str(caught.value).startswith(f"{tmp_path / 'file' / 'sample'}: the synthetic sample could not be written")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


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


def test_every_rating_has_the_probability_of_its_label(sample_folder):
    raw = read_movielens(sample_folder)
    assert raw.probabilities.shape == (len(raw.ratings),)
    assert raw.probabilities.min() > 0
    assert raw.probabilities.max() < 1


def test_the_probabilities_rank_the_labels_well_and_are_calibrated(sample_folder):
    raw = read_movielens(sample_folder)
    kept = (raw.ratings["rating"] != 3).to_numpy()
    labels, probabilities = (raw.ratings["rating"] > 3).to_numpy()[kept], raw.probabilities[kept]
    assert 0.75 < roc_auc_score(labels, probabilities) < 0.95
    for low in np.arange(0, 1, 0.2):
        among = (probabilities >= low) & (probabilities < low + 0.2)
        assert labels[among].mean() == pytest.approx(probabilities[among].mean(), abs=0.08)


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
def test_the_datasets_probabilities_are_those_of_its_test_rows(sample_folder, protocol):
    data = load_movielens(sample_folder, protocol)
    assert data.synthetic
    of_every_rating = np.load(sample_folder / SAMPLE_PROBABILITIES)
    np.testing.assert_array_equal(data.probabilities, of_every_rating[data.test.rows])


def test_probabilities_follow_their_ratings_when_others_are_dropped(tmp_path, capsys):
    folder = write(tmp_path / "sample")
    every_rating, every_probability = read_movielens(folder).ratings, np.load(folder / SAMPLE_PROBABILITIES)
    users = (folder / "users.dat").read_text().splitlines(keepends=True)
    (folder / "users.dat").write_text("".join(users[1:]))
    raw = read_movielens(folder)
    assert "1 rated user_id(s) missing (1)" in capsys.readouterr().out
    np.testing.assert_array_equal(raw.probabilities, every_probability[(every_rating["user_id"] != 1).to_numpy()])


# --- Alibaba display ads

ALIBABA_FILES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv")


@pytest.fixture(scope="module")
def ads_folder(tmp_path_factory):
    """30,000 shown ads, as many users and ads as the full data would have for them."""
    return write_alibaba_sample(tmp_path_factory.mktemp("data") / "alibaba", num_rows=30_000)


@pytest.fixture(scope="module")
def shown(ads_folder) -> pd.DataFrame:
    return pd.read_csv(ads_folder / "raw_sample.csv")


def write_ads(folder, **changes):
    return write_alibaba_sample(folder, **{"num_rows": 300, "num_users": 30, "num_ads": 40} | changes)


def ads_contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes_of_ads(tmp_path):
    np.random.seed(1)
    ours = ads_contents(write_ads(tmp_path / "ours"))
    np.random.seed(2)
    assert ads_contents(write_ads(tmp_path / "theirs")) == ours
    assert ours.keys() == {*ALIBABA_FILES, SAMPLE_PROBABILITIES}


def test_another_seed_gives_other_users_ads_and_clicks(tmp_path):
    ours, theirs = (ads_contents(write_ads(tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    for name in ours:
        assert ours[name] != theirs[name]


def test_a_folder_of_ads_appears_whole_and_an_existing_one_is_left_alone(tmp_path):
    folder = write_ads(tmp_path / "a" / "alibaba")
    assert folder == tmp_path / "a" / "alibaba"
    assert list(folder.parent.iterdir()) == [folder]
    (tmp_path / "mine").mkdir()
    assert write_ads(tmp_path / "mine") == tmp_path / "mine"
    assert list((tmp_path / "mine").iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="the synthetic sample could not be written"):
        write_ads(tmp_path / "file" / "alibaba")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fails)  # the last file to be written
    with pytest.raises(UserError) as caught:
        write_ads(tmp_path / "alibaba")
    assert str(caught.value) == (
        f"{tmp_path / 'alibaba'}: the synthetic sample could not be written (No space left on device); free some space."
    )
    assert list(tmp_path.iterdir()) == []


def test_the_headers_are_those_of_the_real_files_with_the_space_at_the_end_of_one(ads_folder):
    headers = {name: (ads_folder / name).read_text().split("\n", 1)[0] for name in ALIBABA_FILES}
    assert headers == {
        "raw_sample.csv": "user,time_stamp,adgroup_id,pid,nonclk,clk",
        "ad_feature.csv": "adgroup_id,cate_id,campaign_id,customer,brand,price",
        "user_profile.csv": "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,"
        "occupation,new_user_class_level ",
    }


def test_without_numbers_users_and_ads_keep_the_proportions_of_the_full_data(ads_folder, tmp_path):
    lines = {name: len((ads_folder / name).read_text().splitlines()) - 1 for name in ALIBABA_FILES}
    assert lines == {
        "raw_sample.csv": 30_000,
        "ad_feature.csv": round(30_000 * 846_811 / 26_557_961),
        "user_profile.csv": round(30_000 * 1_061_768 / 26_557_961),
    }
    folder = write_ads(tmp_path / "alibaba")
    lines = {name: len((folder / name).read_text().splitlines()) - 1 for name in ALIBABA_FILES}
    assert lines == {"raw_sample.csv": 300, "ad_feature.csv": 40, "user_profile.csv": 30}


def test_rows_look_like_those_of_the_real_file(shown):
    assert set(shown["pid"]) == {"430539_1007", "430548_1007"}
    assert (shown["nonclk"] + shown["clk"] == 1).all()
    assert shown["clk"].mean() == pytest.approx(0.0514, abs=0.01)
    assert shown["adgroup_id"].is_monotonic_increasing
    assert shown["time_stamp"].between(1_494_000_000, 1_494_000_000 + 8 * 86_400 - 1).all()
    assert not shown["user"].is_monotonic_increasing
    assert shown["user"].value_counts().iloc[0] > 3 * shown["user"].value_counts().median()


def test_a_few_users_and_ads_have_no_line_and_all_others_are_shown(ads_folder, shown):
    users = pd.read_csv(ads_folder / "user_profile.csv")["userid"]
    ads = pd.read_csv(ads_folder / "ad_feature.csv")["adgroup_id"]
    assert users.is_unique
    assert ads.is_unique
    assert set(users) < set(shown["user"])
    assert set(ads) < set(shown["adgroup_id"])
    assert shown["user"].nunique() == pytest.approx(1.075 * len(users), abs=1)
    assert shown["adgroup_id"].nunique() == pytest.approx(1.002 * len(ads), abs=1)
    counts = read_alibaba(ads_folder).counts
    assert counts["userids_not_in_user_profile.csv"] == shown["user"].nunique() - len(users)
    assert counts["adgroup_ids_not_in_ad_feature.csv"] == shown["adgroup_id"].nunique() - len(ads)


def test_values_are_missing_as_often_as_in_the_real_files_and_written_as_there(ads_folder):
    as_text = {"dtype": str, "keep_default_na": False}
    users = pd.read_csv(ads_folder / "user_profile.csv", **as_text)
    ads = pd.read_csv(ads_folder / "ad_feature.csv", **as_text)
    assert (users["pvalue_level"] == "").mean() == pytest.approx(0.54, abs=0.05)
    assert (users["new_user_class_level "] == "").mean() == pytest.approx(0.32, abs=0.05)
    assert (ads["brand"] == "NULL").mean() == pytest.approx(0.3, abs=0.05)
    assert not (users.drop(columns=["pvalue_level", "new_user_class_level "]) == "").any(axis=None)
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
    assert probabilities.shape == (30_000,)
    assert probabilities.dtype == np.float32
    assert probabilities.min() > 0
    assert probabilities.max() < 1
    assert probabilities.mean() == pytest.approx(0.0514, abs=0.0005)
    clicks = shown["clk"].to_numpy()
    assert 0.65 < roc_auc_score(clicks, probabilities) < 0.95
    for low, high in ((0, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.5)):
        among = (probabilities >= low) & (probabilities < high)
        assert clicks[among].mean() == pytest.approx(probabilities[among].mean(), abs=0.04)


def test_a_click_depends_on_the_user_the_ad_and_how_they_match(ads_folder, shown):
    logits = pd.Series(np.load(ads_folder / SAMPLE_PROBABILITIES).astype(float))
    logits = np.log(logits / (1 - logits))
    by_user, by_ad = (logits.groupby(shown[name]).transform("mean") for name in ("user", "adgroup_id"))
    assert by_user.std() > 0.2
    assert by_ad.std() > 0.2
    assert (logits - by_user - by_ad).std() > 0.2


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
def test_the_probabilities_of_test_rows_follow_them(ads_folder, protocol):
    data = load_alibaba(ads_folder, protocol)
    assert data.name == "alibaba-synthetic"
    of_every_row = np.load(ads_folder / SAMPLE_PROBABILITIES)
    np.testing.assert_array_equal(data.probabilities, of_every_row[data.test.rows])


def test_more_rows_than_a_block_are_written_below_one_header(tmp_path, monkeypatch):
    whole = write_ads(tmp_path / "whole")
    monkeypatch.setattr(synthetic, "BLOCK_ROWS", 70)
    folder = write_ads(tmp_path / "blocks")
    rows, expected = (pd.read_csv(place / "raw_sample.csv") for place in (folder, whole))
    assert len(rows) == 300
    assert rows[["user", "adgroup_id"]].equals(expected[["user", "adgroup_id"]])
    for name in ("ad_feature.csv", "user_profile.csv", SAMPLE_PROBABILITIES):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert len(read_alibaba(folder).labels) == 300


@pytest.mark.parametrize("numbers", [(20, 20, 20), (25, 500, 20), (25, 20, 500)])
def test_fewer_rows_than_users_or_ads_are_written_too(tmp_path, numbers):
    names = ("num_rows", "num_users", "num_ads")
    folder = write_alibaba_sample(tmp_path / "alibaba", **dict(zip(names, numbers, strict=True)))
    raw = read_alibaba(folder)
    assert len(raw.labels) == numbers[0]
    assert [len((folder / name).read_text().splitlines()) - 1 for name in ("user_profile.csv", "ad_feature.csv")] == [
        *numbers[1:]
    ]


# --- from the shell


def test_a_sample_of_ads_is_written_from_the_shell(tmp_path):
    command = ("-m", "preprocessing.sample", "alibaba", tmp_path / "alibaba")
    result = run(*command, "--rows", "300", "--users", "30", "--items", "40", "--seed", "5")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"synthetic alibaba data: {tmp_path / 'alibaba'}/\n"
    assert ads_contents(tmp_path / "alibaba") == ads_contents(write_ads(tmp_path / "ours", seed=5))
    again = run(*command)
    assert_refused(again, f"error: {tmp_path / 'alibaba'}: expected no such file or folder, got one; name another.")


def main(*arguments) -> int:
    """The exit code of the command with these arguments, in this process."""
    return exit_code(lambda: sample.main(sample.parse([*map(str, arguments)])))


@pytest.mark.parametrize("flag", ["--rows", "--users", "--items"])
@pytest.mark.parametrize("number", [19, 0, -5])
def test_numbers_too_small_for_a_sample_are_refused(tmp_path, monkeypatch, capsys, flag, number):
    assert main("alibaba", tmp_path / "alibaba", flag, number) == 2
    assert capsys.readouterr().err == f"error: {flag}: expected at least 20, got {number}.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_dataset_is_refused_with_the_choices(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        main("taobao", tmp_path / "taobao")
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert all(name in message for name in ("movielens", "amazon", "alibaba"))


FULL = {"num_rows": 26_557_961, "num_users": 1_061_768, "num_ads": 846_811}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"seed": 1023}),
        (("--rows", 50), {"num_rows": 50, "seed": 1023}),
        (("--rows", 50, "--users", 60, "--items", 70, "--seed", 7), {"num_rows": 50, "num_users": 60, "num_ads": 70}),
        (("--full",), FULL),
        (("--full", "--users", 60), FULL | {"num_users": 60}),
    ],
)
def test_the_flags_say_how_much_is_written_and_full_is_the_size_of_the_real_data(
    tmp_path, monkeypatch, capsys, arguments, expected
):
    calls = []
    numbers = sample.WRITERS["alibaba"][1]
    writer = (lambda folder, **options: calls.append((folder, options)), numbers)
    monkeypatch.setitem(sample.WRITERS, "alibaba", writer)
    assert main("alibaba", tmp_path / "alibaba", *arguments) == 0
    assert calls == [(tmp_path / "alibaba", {"seed": 7 if "--seed" in arguments else 1023} | expected)]
    assert capsys.readouterr().out == f"synthetic alibaba data: {tmp_path / 'alibaba'}/\n"


def test_a_seed_below_0_is_refused(tmp_path, monkeypatch, capsys):
    assert main("alibaba", tmp_path / "alibaba", "--rows", 50, "--seed", -1) == 2
    assert capsys.readouterr().err.startswith("error: --seed: expected ")
