"""The synthetic reviews and meta file in the layouts of both Amazon releases."""

import ast
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from shell import assert_refused, run
from sklearn.metrics import roc_auc_score

from preprocessing import sample_amazon
from preprocessing.amazon import load_amazon, parse_price, read_amazon
from preprocessing.errors import UserError
from preprocessing.sample_amazon import MARKUP, write_amazon_sample
from preprocessing.synthetic import SAMPLE_PROBABILITIES

META = "meta_Electronics.json.gz"
REVIEWS = {"2014": "reviews_Electronics_5.json.gz", "2018": "Electronics_5.json.gz"}
NUM_ROWS, NUM_ITEMS = 6000, 600


def write(folder: Path, **changes) -> Path:
    return write_amazon_sample(folder, **{"num_rows": 300} | changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, Path]:
    """A sample of each release, with items enough that two reviewed ones are not listed."""
    folder = tmp_path_factory.mktemp("samples")
    return {
        release: write_amazon_sample(folder / release, NUM_ROWS, num_items=NUM_ITEMS, release=release)
        for release in REVIEWS
    }


@pytest.fixture(scope="module")
def reviews(samples) -> dict[str, list[dict]]:
    return {
        release: [json.loads(line) for line in lines(folder / REVIEWS[release])] for release, folder in samples.items()
    }


@pytest.fixture(scope="module")
def meta(samples) -> dict[str, list[dict]]:
    parse = {"2014": ast.literal_eval, "2018": json.loads}
    return {release: [parse[release](line) for line in lines(folder / META)] for release, folder in samples.items()}


# --- bytes and folders


@pytest.mark.parametrize("release", REVIEWS)
def test_the_same_seed_gives_the_same_bytes(tmp_path, release):
    np.random.seed(1)
    ours = contents(write(tmp_path / "ours", release=release))
    np.random.seed(2)
    assert contents(write(tmp_path / "theirs", release=release)) == ours


@pytest.mark.parametrize("release", REVIEWS)
def test_another_seed_gives_other_bytes_in_every_file(tmp_path, release):
    ours = contents(write(tmp_path / "ours", release=release, seed=1))
    theirs = contents(write(tmp_path / "theirs", release=release, seed=2))
    for name in ours:
        assert ours[name] != theirs[name]


@pytest.mark.parametrize("release", REVIEWS)
def test_the_folder_holds_the_files_of_its_release_and_nothing_is_left_beside_it(tmp_path, release):
    folder = write(tmp_path / "a" / "sample", release=release)
    assert folder == tmp_path / "a" / "sample"
    assert contents(folder).keys() == {REVIEWS[release], META, SAMPLE_PROBABILITIES}
    assert list(folder.parent.iterdir()) == [folder]


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / META).write_text("mine")
    assert write(tmp_path / "sample") == tmp_path / "sample"
    assert contents(tmp_path / "sample") == {META: b"mine"}


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as caught:
        write(tmp_path / "file" / "sample")
    assert str(caught.value).startswith(f"{tmp_path / 'file' / 'sample'}: the synthetic sample could not be written")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_write_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_amazon.np, "save", full_disk)  # the last file of three
    with pytest.raises(UserError, match="No space left on device"):
        write(tmp_path / "sample")
    assert list(tmp_path.iterdir()) == []


def test_a_release_that_does_not_exist_is_refused_with_the_choices(tmp_path):
    with pytest.raises(UserError, match="release: expected 2014 or 2018, got '2016'"):
        write(tmp_path / "sample", release="2016")
    assert list(tmp_path.iterdir()) == []


# --- the reviews


@pytest.mark.parametrize("release", REVIEWS)
def test_reviews_are_json_lines_with_the_fields_of_their_release(reviews, release):
    assert len(reviews[release]) == NUM_ROWS
    fields = {
        *("reviewerID", "asin", "reviewerName", "reviewText", "overall", "summary", "unixReviewTime", "reviewTime"),
        *({"2014": ["helpful"], "2018": ["verified", "vote"]}[release]),
    }
    for review in reviews[release]:
        assert review.keys() == fields
        assert isinstance(review["overall"], float)
        assert review["unixReviewTime"] % 86_400 == 0
    assert {review["overall"] for review in reviews[release]} == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert all(len(review["reviewerID"]) == 14 and review["reviewerID"][0] == "A" for review in reviews[release])
    assert all(len(review["asin"]) == 10 and review["asin"][0] == "B" for review in reviews[release])


def test_the_2014_reviews_have_the_fields_of_the_real_ones(reviews):
    folder = os.environ.get("INTTOWER_DATA")
    real = Path(folder or "") / "amazon" / "reviews_Electronics_5.head290.json.gz"
    if not folder or not real.is_file():
        pytest.skip("needs real Amazon reviews: no amazon/reviews_Electronics_5.head290.json.gz in INTTOWER_DATA")
    real_reviews = [json.loads(line) for line in lines(real)]
    ours, theirs = reviews["2014"][0], real_reviews[0]
    assert {name: type(value) for name, value in ours.items()} == {name: type(v) for name, v in theirs.items()}
    mean = np.mean([len(review["reviewText"]) for review in reviews["2014"]])
    assert mean == pytest.approx(np.mean([len(review["reviewText"]) for review in real_reviews]), rel=0.15)
    # The date is written as they write it: the 2nd of June is "06 2, 2013".
    dates = {review["unixReviewTime"]: review["reviewTime"].replace(" 0", " ") for review in real_reviews}
    shared = [review for review in reviews["2014"] if review["unixReviewTime"] in dates]
    assert len(shared) > 10
    assert all(review["reviewTime"] == dates[review["unixReviewTime"]] for review in shared)


@pytest.mark.parametrize("release", REVIEWS)
def test_reviews_are_about_as_long_as_real_ones(reviews, release):
    lengths = np.array([len(review["reviewText"]) for review in reviews[release]])
    assert 540 < lengths.mean() < 660
    assert 250 < np.median(lengths) < 400
    assert lengths.min() < 50
    assert lengths.max() > 5000
    texts = {review["reviewText"] for review in reviews[release]}
    assert len(texts) > 0.95 * NUM_ROWS


@pytest.mark.parametrize("release", REVIEWS)
def test_every_user_and_every_item_has_at_least_5_reviews(reviews, release):
    for name, count in (("reviewerID", round(NUM_ROWS * 192_403 / 1_689_188)), ("asin", NUM_ITEMS)):
        counts = Counter(review[name] for review in reviews[release])
        assert len(counts) == count
        assert min(counts.values()) >= 5
        assert max(counts.values()) > 15


def test_where_rows_do_not_suffice_for_5_each_has_as_many_as_there_are(tmp_path):
    raw = read_amazon(
        *(write(tmp_path / "sample", num_users=100, num_items=150) / name for name in (REVIEWS["2014"], META))
    )
    assert np.bincount(raw.user_of_row).min() == 3  # 300 rows of 100 users
    assert np.bincount(raw.item_of_row).min() == 2
    assert (len(raw.users), len(raw.items), len(raw.labels)) == (100, 150, 300)


def test_without_numbers_users_and_items_keep_the_proportions_of_the_full_data(tmp_path):
    folder = write(tmp_path / "sample", num_rows=3000)
    counts = read_amazon(folder / REVIEWS["2014"], folder / META).counts
    assert (counts["reviews_read"], counts["users"], counts["items"]) == (3000, 342, 112)
    assert counts[f"lines_of_{META}"] == pytest.approx(112 * 498_196 / 63_001, abs=5)


# --- the meta file


def test_the_2014_meta_file_holds_python_literals_which_are_no_json(samples, meta):
    for line in lines(samples["2014"] / META):
        with pytest.raises(ValueError, match="Expecting property name"):
            json.loads(line)
    for item in meta["2014"]:
        assert list(item)[:2] == ["asin", "title"]
        assert len(item["categories"]) == 1
        assert len(item["categories"][0]) in (0, 3)
        assert isinstance(item.get("price", 1.0), float)
        assert '"' in item["title"]
        assert "'" in item["title"]


def test_the_2018_meta_file_holds_json_with_category_and_prices_as_text(meta):
    for item in meta["2018"]:
        assert "categories" not in item
        assert len(item["category"]) in (0, 3)
        assert isinstance(item.get("price", ""), str)
    prices = [item["price"] for item in meta["2018"] if "price" in item]
    assert sum(price == MARKUP for price in prices) > 100
    assert sum(" - $" in price for price in prices) > 100
    assert sum("," in price and "-" not in price for price in prices) > 100
    assert all(parse_price(price) > 0 for price in prices if price not in ("", MARKUP))


@pytest.mark.parametrize(("release", "share"), [("2014", 1 / 4), ("2018", 3 / 12)])
def test_some_prices_and_a_few_categories_are_missing(meta, release, share):
    without = np.mean([not parse_price(item.get("price")) > 0 for item in meta[release]])
    assert without == pytest.approx(share, abs=0.01)
    paths = [item["categories"][0] if release == "2014" else item["category"] for item in meta[release]]
    assert 0.005 < np.mean([not path for path in paths]) < 0.015
    assert {path[0] for path in paths if path} == {"Electronics"}
    assert len({path[-1] for path in paths if path}) == NUM_ITEMS // 20


@pytest.mark.parametrize("release", REVIEWS)
def test_the_meta_file_lists_items_that_nobody_reviewed_and_lacks_a_few_that_somebody_did(
    samples, reviews, meta, release, capsys
):
    listed, reviewed = [item["asin"] for item in meta[release]], {review["asin"] for review in reviews[release]}
    assert len(set(listed)) == len(listed)
    assert len(reviewed - set(listed)) == 2  # one in 499
    assert len(set(listed) - reviewed) > 6 * len(reviewed)
    raw = read_amazon(samples[release] / REVIEWS[release], samples[release] / META)
    assert raw.counts[f"asins_not_in_{META}"] == 2
    assert raw.counts[f"lines_of_{META}"] == len(listed)
    assert "2 reviewed asin(s) missing" in capsys.readouterr().out


def test_both_releases_tell_of_the_same_reviews(samples):
    ours, theirs = (read_amazon(folder / REVIEWS[release], folder / META) for release, folder in samples.items())
    for name in ("user_of_row", "item_of_row", "labels", "times", "probabilities"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.items["categories"].equals(theirs.items["categories"])


# --- probabilities


@pytest.mark.parametrize("release", REVIEWS)
def test_the_probabilities_rank_the_labels_well_and_are_calibrated(samples, reviews, release):
    probabilities = np.load(samples[release] / SAMPLE_PROBABILITIES)
    labels = np.array([review["overall"] >= 4 for review in reviews[release]])
    assert (probabilities.shape, probabilities.dtype) == ((NUM_ROWS,), np.float32)
    assert probabilities.min() > 0
    assert probabilities.max() < 1
    assert probabilities.mean() == pytest.approx(0.8, abs=0.001)
    assert labels.mean() == pytest.approx(0.8, abs=0.02)
    assert 0.75 < roc_auc_score(labels, probabilities) < 0.95
    for low in np.arange(0, 1, 0.2):
        among = (probabilities >= low) & (probabilities < low + 0.2)
        assert labels[among].mean() == pytest.approx(probabilities[among].mean(), abs=0.08)


def test_some_items_are_liked_more_than_others_and_some_users_like_more_than_others(samples):
    raw = read_amazon(samples["2014"] / REVIEWS["2014"], samples["2014"] / META)
    for places in (raw.item_of_row, raw.user_of_row):
        means = np.bincount(places, weights=raw.probabilities) / np.bincount(places)
        assert means.std() > 0.1


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
@pytest.mark.parametrize("release", REVIEWS)
def test_the_datasets_probabilities_are_those_of_its_test_rows(samples, release, protocol):
    data = load_amazon(samples[release] / REVIEWS[release], samples[release] / META, protocol)
    assert data.synthetic
    assert data.name.endswith("-synthetic")
    every = np.load(samples[release] / SAMPLE_PROBABILITIES)
    np.testing.assert_array_equal(data.probabilities, every[data.test.rows])


@pytest.mark.parametrize("content", [b"", b"0.5\n", b"\x93NUMPY"])
def test_a_sample_whose_probabilities_do_not_fit_is_refused(tmp_path, content):
    folder = write(tmp_path / "sample")
    (folder / SAMPLE_PROBABILITIES).write_bytes(content)
    with pytest.raises(UserError, match="the sample was altered"):
        load_amazon(folder / REVIEWS["2014"], folder / META)


# --- from the shell


def test_the_generator_writes_either_release_from_the_shell_and_never_over_a_folder(tmp_path):
    arguments = ("-m", "preprocessing.sample", "amazon", tmp_path / "sample", "--rows", "300", "--release", "2018")
    result = run(*arguments, "--seed", "5")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "sample") == contents(write(tmp_path / "other", release="2018", seed=5))
    assert_refused(run(*arguments), "error: ", "expected no such file or folder, got one")
