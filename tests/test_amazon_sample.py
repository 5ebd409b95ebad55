"""The synthetic reviews and meta file in the layouts of the three Amazon releases."""

import ast
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from samples import assert_ranked_and_calibrated, real_amazon_reviews
from tables import refusal

from preprocessing.amazon import load_amazon, read_amazon
from preprocessing.amazon_meta import parse_price
from preprocessing.interactions import Interactions
from preprocessing.sample_amazon import MARKUP, write_amazon_sample
from preprocessing.synthetic import SAMPLE_PROBABILITIES

REVIEWS = {"2014": "reviews_Electronics_5.json.gz", "2018": "Electronics_5.json.gz", "2023": "Electronics.jsonl.gz"}
META = dict.fromkeys(REVIEWS, "meta_Electronics.json.gz") | {"2023": "meta_Electronics.jsonl.gz"}
NUM_ROWS, NUM_ITEMS = 6000, 600  # items enough that two reviewed ones are not listed


def lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


@pytest.fixture(scope="module", params=REVIEWS)
def release(request) -> str:
    return request.param


of_2014, of_2018, of_2023 = (pytest.mark.parametrize("release", [name], indirect=True) for name in REVIEWS)


@pytest.fixture(scope="module")
def sample(tmp_path_factory, release) -> Path:
    folder = tmp_path_factory.mktemp("samples") / release
    return write_amazon_sample(folder, NUM_ROWS, num_items=NUM_ITEMS, release=release)


@pytest.fixture(scope="module")
def reviews(sample, release) -> list[dict]:
    return [json.loads(line) for line in lines(sample / REVIEWS[release])]


@pytest.fixture(scope="module")
def meta(sample, release) -> list[dict]:
    parse = ast.literal_eval if release == "2014" else json.loads
    return [parse(line) for line in lines(sample / META[release])]


@pytest.fixture(scope="module")
def raw(sample, release) -> Interactions:
    return read_amazon(sample / REVIEWS[release], sample / META[release])


@pytest.fixture(scope="module")
def user_and_item(release) -> tuple[str, str]:
    """The keys of the ids."""
    return ("user_id", "parent_asin") if release == "2023" else ("reviewerID", "asin")


def path_of(item: dict) -> list[str]:
    """The path of categories."""
    path = item["category"] if "category" in item else item["categories"]
    return path[0] if path and isinstance(path[0], list) else path


def test_a_release_that_does_not_exist_is_refused_with_the_choices(tmp_path):
    message = refusal(write_amazon_sample, tmp_path / "sample", release="2016")
    assert message == "release: expected one of 2014, 2018, 2023, got '2016'."
    assert list(tmp_path.iterdir()) == []


# --- the reviews


OF_BOTH = ("reviewerID", "asin", "reviewerName", "reviewText", "overall", "summary", "unixReviewTime", "reviewTime")
FIELDS = {
    "2014": {*OF_BOTH, "helpful"},
    "2018": {*OF_BOTH, "verified", "vote"},
    "2023": {
        *("rating", "title", "text", "images", "asin", "parent_asin", "user_id", "timestamp", "helpful_vote"),
        "verified_purchase",
    },
}


def test_reviews_are_json_lines_with_the_fields_of_their_release(reviews, release, user_and_item):
    assert len(reviews) == NUM_ROWS
    (user, item), rating = user_and_item, "rating" if release == "2023" else "overall"
    for review in reviews:
        assert review.keys() == FIELDS[release]
        assert isinstance(review[rating], float)
        assert (len(review[user]), review[user][0]) == (14, "A")
        assert (len(review[item]), review[item][0]) == (10, "B")
    assert {review[rating] for review in reviews} == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_times_are_days_in_seconds_or_moments_in_milliseconds(raw, release):
    day = 86_400_000 if release == "2023" else 86_400
    assert 10_600 * day <= raw.times.min() < raw.times.max() < 16_271 * day
    assert len(np.unique(raw.times % day)) == (NUM_ROWS if release == "2023" else 1)


@of_2023
def test_a_third_of_the_2023_reviews_are_of_a_variant_with_an_asin_of_its_own(reviews):
    variants = [review for review in reviews if review["asin"] != review["parent_asin"]]
    assert len(variants) == NUM_ROWS / 3
    assert not {review["asin"] for review in variants} & {review["parent_asin"] for review in reviews}


@of_2014
def test_the_2014_reviews_have_the_fields_of_the_real_ones(reviews):
    real_reviews = [json.loads(line) for line in lines(real_amazon_reviews())]
    types, expected = ({name: type(value) for name, value in of[0].items()} for of in (reviews, real_reviews))
    assert types == expected
    mean = np.mean([len(review["reviewText"]) for review in reviews])
    assert mean == pytest.approx(np.mean([len(review["reviewText"]) for review in real_reviews]), rel=0.15)
    # The date is written as they write it: the 2nd of June is "06 2, 2013".
    dates = {review["unixReviewTime"]: review["reviewTime"].replace(" 0", " ") for review in real_reviews}
    shared = [review for review in reviews if review["unixReviewTime"] in dates]
    assert len(shared) > 10
    assert all(review["reviewTime"] == dates[review["unixReviewTime"]] for review in shared)


def test_reviews_are_about_as_long_as_real_ones(reviews, release):
    texts = [review["text" if release == "2023" else "reviewText"] for review in reviews]
    lengths = np.array([len(text) for text in texts])
    assert 540 < lengths.mean() < 660
    assert 250 < np.median(lengths) < 400
    assert lengths.min() < 50
    assert lengths.max() > 5000
    assert len(set(texts)) > 0.95 * NUM_ROWS


def test_every_user_and_every_item_has_at_least_5_reviews(reviews, user_and_item):
    for name, count in zip(user_and_item, (round(NUM_ROWS * 192_403 / 1_689_188), NUM_ITEMS), strict=True):
        counts = Counter(review[name] for review in reviews)
        assert len(counts) == count
        assert min(counts.values()) >= 5
        assert max(counts.values()) > 15


def test_where_rows_do_not_suffice_for_5_each_has_as_many_as_there_are(tmp_path):
    folder = write_amazon_sample(tmp_path / "sample", num_rows=300, num_users=100, num_items=150)
    raw = read_amazon(folder / REVIEWS["2014"], folder / META["2014"])
    assert np.bincount(raw.user_of_row).min() == 3  # 300 rows of 100 users
    assert np.bincount(raw.item_of_row).min() == 2
    assert (len(raw.users), len(raw.items), len(raw.labels)) == (100, 150, 300)


def test_without_numbers_users_and_items_keep_the_proportions_of_the_full_data(tmp_path):
    folder = write_amazon_sample(tmp_path / "sample", num_rows=3000)
    counts = read_amazon(folder / REVIEWS["2014"], folder / META["2014"]).counts
    assert (counts["reviews_read"], counts["users"], counts["items"]) == (3000, 342, 112)
    assert counts[f"lines_of_{META['2014']}"] == pytest.approx(112 * 498_196 / 63_001, abs=5)


# --- the meta file


@of_2014
def test_the_2014_meta_file_holds_python_literals_which_are_no_json(sample, meta):
    for line in lines(sample / META["2014"]):
        with pytest.raises(ValueError, match="Expecting property name"):
            json.loads(line)
    for item in meta:
        assert list(item)[:2] == ["asin", "title"]
        assert len(item["categories"]) == 1
        assert isinstance(item.get("price", 1.0), float)
        assert '"' in item["title"]
        assert "'" in item["title"]


@of_2018
def test_the_2018_meta_file_holds_json_with_category_and_prices_as_text(meta):
    assert all("categories" not in item and isinstance(item.get("price", ""), str) for item in meta)
    prices = [item["price"] for item in meta if "price" in item]
    assert sum(price == MARKUP for price in prices) > 100
    assert sum(" - $" in price for price in prices) > 100
    assert sum("," in price and "-" not in price for price in prices) > 100
    assert all(parse_price(price) > 0 for price in prices if price not in ("", MARKUP))


@of_2023
def test_the_2023_meta_file_holds_json_with_prices_as_numbers_and_texts_or_null_and_a_flat_path(meta):
    assert all("asin" not in item and isinstance(item["categories"], list) for item in meta)
    assert {type(item["price"]) for item in meta} == {float, str, type(None)}
    assert sum(str(item["price"]).startswith("from ") for item in meta) > 100
    assert sum(str(item["price"]).startswith("$") for item in meta) > 100
    assert sum(item["price"] is None for item in meta) > 500


def test_a_quarter_of_the_prices_and_a_few_categories_are_missing(meta):
    without = np.mean([not parse_price(item.get("price")) > 0 for item in meta])
    assert without == pytest.approx(1 / 4, abs=0.01)
    paths = [path_of(item) for item in meta]
    assert {len(path) for path in paths} == {0, 3}
    assert 0.005 < np.mean([not path for path in paths]) < 0.015
    assert {path[0] for path in paths if path} == {"Electronics"}
    assert len({path[-1] for path in paths if path}) == NUM_ITEMS // 20


def test_the_meta_file_lists_items_that_nobody_reviewed_and_lacks_a_few_that_somebody_did(
    reviews, meta, raw, release, user_and_item
):
    _, key = user_and_item
    listed, reviewed = [item[key] for item in meta], {review[key] for review in reviews}
    assert len(set(listed)) == len(listed)
    assert len(reviewed - set(listed)) == raw.counts[f"{key}s_not_in_{META[release]}"] == 2  # one in 499
    assert len(set(listed) - reviewed) > 6 * len(reviewed)


def test_all_releases_tell_of_the_same_reviews(tmp_path):
    first, *others = (
        read_amazon(
            write_amazon_sample(tmp_path / release, 300, release=release) / name, tmp_path / release / META[release]
        )
        for release, name in REVIEWS.items()
    )
    for other, day in zip(others, (86_400, 86_400_000), strict=True):
        for name in ("user_of_row", "item_of_row", "labels", "probabilities"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
        assert (first.times // 86_400).tolist() == (other.times // day).tolist()
        # That of 2023 has the main category where the path is empty.
        assert first.items["categories"].equals(other.items["categories"].replace("All Electronics", None))


# --- probabilities


def test_the_probabilities_rank_the_labels_well_and_are_calibrated(sample, reviews, raw):
    probabilities = np.load(sample / SAMPLE_PROBABILITIES)
    np.testing.assert_array_equal(raw.probabilities, probabilities)
    labels = np.array([review.get("overall", review.get("rating")) >= 4 for review in reviews])
    assert (probabilities.shape, probabilities.dtype) == ((NUM_ROWS,), np.float32)
    assert probabilities.mean() == pytest.approx(0.8, abs=0.001)
    assert labels.mean() == pytest.approx(0.8, abs=0.02)
    assert_ranked_and_calibrated(labels, probabilities, np.arange(0, 1.2, 0.2), tolerance=0.08)


def test_some_items_are_liked_more_than_others_and_some_users_like_more_than_others(raw):
    for places in (raw.item_of_row, raw.user_of_row):
        means = np.bincount(places, weights=raw.probabilities) / np.bincount(places)
        assert means.std() > 0.1


def test_a_sample_whose_probabilities_do_not_fit_is_refused(tmp_path):
    folder = write_amazon_sample(tmp_path / "sample", num_rows=300)
    for content in (b"", b"0.5\n", b"\x93NUMPY"):
        (folder / SAMPLE_PROBABILITIES).write_bytes(content)
        refusal(load_amazon, folder / REVIEWS["2014"], folder / META["2014"], fragments=("the sample was altered",))
