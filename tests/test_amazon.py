"""Amazon reviews from the layouts of both releases to encoded splits, and what is said of files that are wrong."""

import csv
import gzip
import io
import json
import math
import os
import random
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from shell import assert_refused, run

from model.IntTower import IntTower
from preprocessing import amazon, sources
from preprocessing.amazon import (
    META,
    RELEASED_CSV,
    REVIEWS,
    finest_category,
    load_amazon,
    locate_amazon,
    parse_price,
    read_amazon,
)
from preprocessing.download import DownloadError
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat
from preprocessing.sample_amazon import write_amazon_sample
from training.trainer import Trainer

SCRIPT = "train_amazon_IntTower.py"
PROTOCOLS = ("strict", "paper", "temporal")
SPLITS = ("train", "valid", "test")
RELEASES = {"2014": "reviews_Electronics_5.json.gz", "2018": "Electronics_5.json.gz"}

# Every user reviews every item four times, as (reviewerID, asin, overall, unixReviewTime).
RATINGS = [(f"U{row % 4}", f"B{row // 4 % 5}", (4, 1, 5, 2, 3)[row % 5], 1000 + row) for row in range(80)]
# As (asin, price, the path of categories).
ITEMS = [
    ("B0", 12.5, ("Electronics", "GPS")),
    ("B1", None, ("Electronics", "Cables, Plugs & 'More'")),
    ("B2", 1299.0, ("Electronics", 'Men\'s "Wear"')),
    ("B3", 0.99, ()),
    ("B4", 5.0, ("Electronics", "GPS")),
]


def json_lines(rows: Iterable[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def reviews(ratings=RATINGS) -> bytes:
    """The reviews of either release."""
    rows = (dict(zip(RELEASED_CSV, rating, strict=False)) for rating in ratings)
    return json_lines({**row, "overall": float(row["overall"]), "reviewText": 'It\'s {"so"}\n so'} for row in rows)


def meta_2014(items=ITEMS) -> bytes:
    """Python literals; an item without a price has no such key."""
    lines = []
    for asin, price, path in items:
        line = {"asin": asin, "title": "5\" cable, 'new'", "related": {"also_bought": ["B0", "Q9"]}}
        if price is not None:
            line["price"] = price
        lines.append(repr({**line, "categories": [list(path)]}))
    return "".join(line + "\n" for line in lines).encode()


def meta_2018(items=ITEMS) -> bytes:
    return json_lines(
        {"category": list(path), "asin": asin, "price": "" if price is None else f"${price:,.2f}", "title": None}
        for asin, price, path in items
    )


def released_csv(ratings=RATINGS, items=ITEMS, as_lists: bool = True, end: str = "\n") -> bytes:
    """The released layout: a row per review with all that is known of its item, the categories a list or a text."""
    known = {asin: (price, path) for asin, price, path in items}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerow(RELEASED_CSV)
    for rating in ratings:
        price, path = known[rating[1]]
        categories = str([list(path)]) if as_lists else "".join(path[-1:])
        writer.writerow([*rating, "" if price is None else price, categories])
    return text.getvalue().encode()


Files = tuple[Path, ...]


def write(folder: Path, ratings=RATINGS, meta: bytes | None = None, names: tuple[str, str] | None = None) -> Files:
    """A folder with the reviews, given as rows or as bytes, and a meta file; both are packed where named .gz."""
    contents = ratings if isinstance(ratings, bytes) else reviews(ratings), meta_2014() if meta is None else meta
    names = names or ("reviews_Electronics_5.json", "meta_Electronics.json")
    folder.mkdir(exist_ok=True)
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return tuple(folder / name for name in names)


def write_csv(path: Path, content: bytes | None = None) -> Files:
    path.write_bytes(released_csv() if content is None else content)
    return (path,)


def splits_of(data) -> list:
    return [getattr(data, name) for name in SPLITS]


def numbers(table, feature: str) -> list:
    """A feature of one number a row."""
    return table.features[feature].numpy().reshape(len(table)).tolist()


def values_of(data, feature: str) -> np.ndarray:
    """A feature of the rows of all splits, in the order of the raw file."""
    rows = np.concatenate([table.rows for table in splits_of(data)])
    values = np.concatenate([table.features[feature].numpy() for table in splits_of(data)])
    return values[np.argsort(rows)].reshape(len(rows))


def assert_same_splits(data, other) -> None:
    for name in SPLITS:
        ours, theirs = getattr(data, name), getattr(other, name)
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.groups.tolist() == theirs.groups.tolist()
        assert ours.features.keys() == theirs.features.keys()
        for feature, values in ours.features.items():
            assert torch.equal(values[:], theirs.features[feature][:]), f"{name} {feature}"


def assert_finite(data) -> None:
    for table in splits_of(data):
        for name, values in table.features.items():
            assert torch.isfinite(values[:]).all(), name


def refusal(files: Files, *fragments: str, **options) -> str:
    """The one line that loading ends with."""
    with pytest.raises(UserError) as caught:
        load_amazon(*files, **options)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message
    return message


def item_of(line: str | bytes, folder: Path) -> pd.Series:
    """What is known of B1 from its line of the meta file."""
    line = line if isinstance(line, bytes) else line.encode()
    items = read_amazon(*write(folder, meta=line + b"\n" + meta_2014(ITEMS[:1] + ITEMS[2:]))).items
    return items.set_index("asin").loc["B1"]


@pytest.fixture
def files(tmp_path) -> Files:
    return write(tmp_path / "amazon")


@pytest.fixture
def empty_folder(tmp_path, monkeypatch) -> Path:
    """The working folder, in which nothing may appear."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "empty"


# --- layouts


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_releases_packed_or_not_and_both_csvs_give_the_same_splits_and_features(tmp_path, protocol):
    data = load_amazon(*write(tmp_path / "2014"), protocol)
    for layout in (
        write(tmp_path / "2014 packed", names=(REVIEWS, META)),
        write(tmp_path / "2014 half", names=("reviews_Electronics_5.json", META)),
        write(tmp_path / "2018", meta=meta_2018(), names=("Electronics_5.json", "meta_Electronics.json")),
        write(tmp_path / "2018 packed", meta=meta_2018(), names=("Electronics_5.json.gz", META)),
    ):
        assert_same_splits(data, load_amazon(*layout, protocol))
    for name, content in {
        "lists.csv": released_csv(),
        "texts.csv": released_csv(as_lists=False),
        "lists.txt": released_csv(end="\r\n"),
        "lists.csv.gz": gzip.compress(released_csv()),
        "marked.csv": b"\xef\xbb\xbf" + released_csv(),
        "wider.csv": released_csv().replace(b",", b",more,", 1).replace(b",B", b',"a, b",B'),
    }.items():
        assert_same_splits(data, load_amazon(*write_csv(tmp_path / name, content), protocol=protocol))


def test_packed_files_are_known_by_their_first_bytes_and_not_by_their_names(files, tmp_path):
    data = load_amazon(*files)
    packed_and_not = write(tmp_path / "other", names=(REVIEWS, META))
    shutil.copy(files[0], packed_and_not[0])
    packed_and_not[1].rename(tmp_path / "meta")
    assert_same_splits(data, load_amazon(packed_and_not[0], tmp_path / "meta"))


def test_reading_gives_each_review_its_user_item_label_and_time(tmp_path):
    ratings = [("U2", "B1", 5, 30), ("U1", "B1", 3, 10), ("U2", "B0", 4, 20), ("U1", "B3", 1, 10), ("U3", "B1", 2, 5)]
    items = [("Q1", 1.0, ("Q",)), *reversed(ITEMS), ("Q2", 2.0, ("Q",))]
    listed = [("B1", None, "Cables, Plugs & 'More'"), ("B0", 12.5, "GPS"), ("B3", 0.99, None)]
    for layout in (
        write(tmp_path / "2014", ratings, meta_2014(items)),
        write(tmp_path / "2018", ratings, meta_2018(items)),
        write_csv(tmp_path / "amazon.csv", released_csv(ratings)),
    ):
        raw = read_amazon(*layout, strict_data=True)
        assert raw.users["reviewerID"].tolist() == ["U2", "U1", "U3"]
        assert raw.user_of_row.tolist() == [0, 1, 0, 1, 2]
        assert raw.items["asin"].tolist() == ["B1", "B0", "B3"]
        assert raw.item_of_row.tolist() == [0, 0, 1, 2, 0]
        assert raw.labels.tolist() == [1, 0, 1, 0, 0]
        assert raw.times.tolist() == [30, 10, 20, 10, 5]
        assert raw.rows.tolist() == [0, 1, 2, 3, 4]
        assert raw.items.astype(object).where(raw.items.notna(), None).to_numpy().tolist() == [
            [asin, category, price] for asin, price, category in listed
        ]


def test_ratings_of_at_least_4_are_1_and_all_others_0(tmp_path):
    stars = (1, 2, 3, 3.5, 3.99, 4, 4.5, 5)
    for name in ("reviews_Electronics_5.json", "amazon.csv"):
        ratings = [("U0", "B0", overall, 1) for overall in stars]
        if name.endswith("csv"):
            layout = write_csv(tmp_path / name, released_csv(ratings))
        else:
            layout = write(tmp_path / "folder", ratings)
        assert read_amazon(*layout).labels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_reviews_that_repeat_another_are_kept_and_counted(tmp_path):
    data = load_amazon(*write(tmp_path / "amazon", [*RATINGS, *RATINGS[:3], (*RATINGS[0][:3], 1)]))
    assert data.counts["reviews_read"] == len(RATINGS) + 4
    assert data.counts["reviews_that_repeat_another"] == 3
    assert len(data.train) + len(data.valid) + len(data.test) == len(RATINGS) + 4


def test_the_counts_say_what_was_read_and_what_is_not_known(tmp_path):
    items = [("Q1", 1.0, ("Q",)), *ITEMS[:2], *ITEMS[3:]]
    counts = load_amazon(*write(tmp_path / "amazon", meta=meta_2014(items))).counts
    assert counts == {
        "reviews_read": 80,
        "users": 4,
        "items": 5,
        "lines_of_meta_Electronics.json": 5,
        "asins_not_in_meta_Electronics.json": 1,
        "reviews_of_asins_not_in_meta_Electronics.json": 16,
        "prices_unreadable": 0,
        "items_without_price": 2,
        "items_without_category": 2,
        "reviews_that_repeat_another": 0,
        "train": 58,
        "valid": 6,
        "test": 16,
        "users_in_train": 4,
        "items_in_train": 5,
    }
    assert json.loads(json.dumps(counts)) == counts


def test_the_dataset_is_named_after_its_category_and_electronics_of_2014_is_amazon(tmp_path):
    for names, expected in {
        ("reviews_Electronics_5.json", META): "amazon",
        ("reviews_Electronics_5.json.gz", META): "amazon",
        ("Electronics_5.json.gz", META): "amazon-Electronics_5",
        ("reviews_Books_5.json.gz", META): "amazon-reviews_Books_5",
    }.items():
        assert load_amazon(*write(tmp_path / "amazon", names=names)).name == expected
    assert load_amazon(*write_csv(tmp_path / "any.csv")).name == "amazon"


def test_a_dataset_knows_where_it_came_from(files):
    data = load_amazon(*files, embedding_dim=6)
    assert (data.source, data.embedding_dim, data.protocol) == (str(files[0]), 6, "strict")
    assert data.seconds > 0
    assert not data.synthetic


def test_blank_lines_do_not_matter(files, tmp_path):
    data = load_amazon(*files)
    with_blanks = [b"\n  \n" + file.read_bytes().replace(b"\n", b"\r\n\n \t\n") + b"\n\n" for file in files]
    assert_same_splits(data, load_amazon(*write(tmp_path / "blank", *with_blanks)))


def test_blank_lines_of_a_csv_do_not_matter(tmp_path):
    data = load_amazon(*write_csv(tmp_path / "a.csv"))
    content = released_csv().splitlines(keepends=True)
    with_blanks = b"".join([*content[:5], b"\n", *content[5:], b"\n"])
    assert_same_splits(data, load_amazon(*write_csv(tmp_path / "b.csv", with_blanks)))


def test_a_last_line_without_an_end_is_read_too(files, tmp_path):
    data = load_amazon(*files)
    without_end = [file.read_bytes().removesuffix(b"\n") for file in files]
    assert_same_splits(data, load_amazon(*write(tmp_path / "open", *without_end)))


def test_nothing_is_left_beside_the_data_nor_printed(tmp_path, capfd):
    layouts = write(tmp_path / "amazon", names=(REVIEWS, META)), write_csv(tmp_path / "amazon.csv")
    before = sorted(tmp_path.rglob("*"))
    for layout in layouts:
        load_amazon(*layout)
    assert sorted(tmp_path.rglob("*")) == before
    assert capfd.readouterr() == ("", "")


# --- fields, ids, splits


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_columns_are_those_of_the_released_script_with_a_flag_for_missing_prices(files, protocol):
    data = load_amazon(*files, protocol, embedding_dim=6)
    user, item = data.user_columns, data.item_columns
    assert [column.name for column in user] == ["reviewerID", "user_mean_rating"]
    assert [type(column) for column in user] == [SparseFeat, DenseFeat]
    assert [column.name for column in item] == ["asin", "categories", "item_mean_rating", "price", "price_missing"]
    assert [type(column) for column in item] == [SparseFeat, SparseFeat, DenseFeat, DenseFeat, DenseFeat]
    assert {column.embedding_dim for column in [user[0], *item[:2]]} == {6}
    for table in splits_of(data):
        assert table.labels.dtype == torch.float32
        assert table.groups.dtype == np.int32
        assert len(table.groups) == len(table.rows) == len(table.labels)
        for column in user + item:
            values = table.features[column.name][:]
            if isinstance(column, SparseFeat):
                assert (values.shape, values.dtype) == ((len(table),), torch.int32)
                assert values.max() < column.vocabulary_size
            else:
                assert (values.shape, values.dtype) == ((len(table), 1), torch.float32)


@pytest.mark.parametrize("protocol", ["strict", "temporal"])
def test_every_review_is_in_one_split_with_its_own_label_and_user(files, protocol):
    data = load_amazon(*files, protocol)
    assert [len(table) for table in splits_of(data)] == [58, 6, 16]
    assert sorted(np.concatenate([table.rows for table in splits_of(data)]).tolist()) == list(range(80))
    for table in splits_of(data):
        assert table.labels.tolist() == [float(RATINGS[row][2] >= 4) for row in table.rows]
        assert table.groups.tolist() == [row % 4 for row in table.rows]
    assert not data.labels_leak


# Sorted by time, 20 reviews: 14 train, 2 valid, 4 test. U4, B5 and B6 come in the test rows only, B6 has no meta line.
BY_TIME = [(f"U{1 + i % 3}", f"B{1 + i % 4}", (5, 1, 4, 3)[i % 4], i) for i in range(16)]
BY_TIME += [("U4", "B1", 5, 16), ("U1", "B5", 1, 17), ("U4", "B5", 4, 18), ("U2", "B6", 2, 19)]
# The logarithms of 1 + price are 0, 2, 4 and 8 times that of 2; the training items' mean price is 6.
ITEMS_BY_TIME = [
    ("B5", 255.0, ("Electronics", "Lamps")),
    ("B1", 0.0, ("Electronics", "GPS")),
    ("B2", 3.0, ("Electronics", "Cables")),
    ("B3", 15.0, ("Electronics", "GPS")),
    ("B4", None, ()),
]


@pytest.fixture
def temporal(tmp_path):
    # In the file, the latest review comes first.
    return load_amazon(*write(tmp_path / "temporal", BY_TIME[::-1], meta_2014(ITEMS_BY_TIME)), "temporal")


def test_temporal_splits_by_unix_review_time_whatever_the_order_of_the_file(temporal):
    assert temporal.train.rows.tolist() == list(range(19, 5, -1))
    assert temporal.valid.rows.tolist() == [5, 4]
    assert temporal.test.rows.tolist() == [3, 2, 1, 0]
    assert temporal.test.labels.tolist() == [1, 0, 1, 0]


def test_vocabularies_hold_the_values_of_training_rows_only(temporal):
    sizes = {column.name: column.vocabulary_size for column in temporal.user_columns[:1] + temporal.item_columns[:2]}
    # Beside padding and out-of-vocabulary: U1 to U3, B1 to B4, Cables and GPS.
    assert sizes == {"reviewerID": 5, "asin": 6, "categories": 4}
    assert (temporal.counts["users_in_train"], temporal.counts["items_in_train"]) == (3, 4)


def test_ids_are_in_sorted_order_and_what_training_never_saw_gets_the_id_1(temporal):
    assert numbers(temporal.train, "reviewerID")[:6] == [2, 3, 4, 2, 3, 4]
    assert numbers(temporal.train, "asin")[:5] == [2, 3, 4, 5, 2]
    assert numbers(temporal.train, "categories")[:5] == [3, 2, 3, 1, 3]  # B4 has none
    assert numbers(temporal.test, "reviewerID") == [1, 2, 1, 3]
    assert numbers(temporal.test, "asin") == [2, 1, 1, 1]
    assert numbers(temporal.test, "categories") == [3, 1, 1, 1]


def test_a_missing_price_is_flagged_and_is_the_mean_of_the_training_items_prices(temporal):
    mean = math.log(1 + (0 + 3 + 15) / 3) / math.log(16)
    assert numbers(temporal.train, "price")[:5] == pytest.approx([0, 0.5, 1, mean, 0])
    assert numbers(temporal.train, "price_missing")[:5] == [0, 0, 0, 1, 0]
    # B5 is dearer than all that training saw, and does not shift the mean; B6 is not listed.
    assert numbers(temporal.test, "price") == pytest.approx([0, 2, 2, mean])
    assert numbers(temporal.test, "price_missing") == [0, 0, 0, 1]


def test_paper_takes_prices_as_they_are_and_scales_them_on_the_test_items(files, tmp_path):
    row = load_amazon(*files, "paper").train.rows[0]
    ratings = RATINGS.copy()
    ratings[row] = (ratings[row][0], "B5", *ratings[row][2:])  # an item that training alone sees
    meta = meta_2014([*ITEMS, ("B5", 1e5, ("Electronics", "GPS"))])
    data = load_amazon(*write(tmp_path / "more", ratings, meta), "paper")
    prices = {"B0": 12.5, "B1": (12.5 + 1299 + 0.99 + 5 + 1e5) / 5, "B2": 1299, "B3": 0.99, "B4": 5, "B5": 1e5}
    asins = [rating[1] for rating in ratings]
    assert {asins[row] for row in data.test.rows} == prices.keys() - {"B5"}
    expected = [(prices[asin] - 0.99) / (prices["B1"] - 0.99) for asin in asins]
    np.testing.assert_allclose(values_of(data, "price"), expected, rtol=1e-6, atol=1e-7)
    assert values_of(data, "price_missing").tolist() == [asin == "B1" for asin in asins]


def test_paper_takes_the_means_over_all_rows_before_the_split(tmp_path):
    stars = np.random.default_rng(0).integers(1, 6, 80)
    ratings = [(user, item, int(overall), t) for (user, item, _, t), overall in zip(RATINGS, stars, strict=True)]
    data = load_amazon(*write(tmp_path / "amazon", ratings), "paper")
    assert data.labels_leak
    frame = pd.DataFrame(ratings, columns=["reviewerID", "asin", "overall", "time"])
    for key, feature in (("reviewerID", "user_mean_rating"), ("asin", "item_mean_rating")):
        means = (frame["overall"] >= 4).groupby(frame[key]).transform("mean").to_numpy()
        low, high = means[data.test.rows].min(), means[data.test.rows].max()
        assert high > low
        np.testing.assert_allclose(values_of(data, feature), (means - low) / (high - low), rtol=1e-5, atol=1e-6)


def test_under_paper_users_without_any_positive_vanish_and_one_positive_in_any_split_is_enough(tmp_path):
    ratings = [(user, item, 1 if user in ("U2", "U3") else stars, t) for user, item, stars, t in RATINGS]
    ratings[2] = ("U2", "B0", 5, 1002)
    data = load_amazon(*write(tmp_path / "amazon", ratings), "paper")
    groups = np.concatenate([table.groups for table in splits_of(data)])
    assert np.bincount(groups).tolist() == [20, 20, 20]  # U3 has gone
    strict = load_amazon(*write(tmp_path / "amazon", ratings), "strict")
    assert np.bincount(np.concatenate([table.groups for table in splits_of(strict)])).tolist() == [20] * 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shuffled_test_labels_change_features_under_paper_only(files, tmp_path, protocol):
    data = load_amazon(*files, protocol)
    stars = np.array([rating[2] for rating in RATINGS])
    stars[data.test.rows] = np.random.default_rng(3).permutation(stars[data.test.rows])
    ratings = [(user, item, int(overall), t) for (user, item, _, t), overall in zip(RATINGS, stars, strict=True)]
    other = load_amazon(*write(tmp_path / "shuffled", ratings), protocol)
    assert not torch.equal(other.test.labels, data.test.labels)
    names = [column.name for column in data.user_columns + data.item_columns]
    changed = [name for name in names if not np.array_equal(values_of(data, name), values_of(other, name))]
    assert changed == (["user_mean_rating", "item_mean_rating"] if protocol == "paper" else [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_splits_depend_on_the_split_seed_alone(files, protocol):
    torch.manual_seed(1)
    data = load_amazon(*files, protocol, split_seed=5)
    torch.manual_seed(2)
    assert_same_splits(data, load_amazon(*files, protocol, split_seed=5, embedding_dim=4, strict_data=True))
    other = load_amazon(*files, protocol, split_seed=6)
    assert (other.test.rows.tolist() == data.test.rows.tolist()) == (protocol == "temporal")


# --- prices and categories


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ("$12.99", 12.99),
        ("$1,299.00", 1299.0),
        ("$1,234,567.89", 1234567.89),
        ("$10.00 - $20.00", 15.0),
        ("$1,000.00 - $2,000.00", 1500.0),
        ("10-20.5", 15.25),
        (" $7 ", 7.0),
        ("$ 7", 7.0),
        (".99", 0.99),
        ("0", 0.0),
        (0, 0.0),
        (5, 5.0),
        (1e-3, 0.001),
    ],
)
def test_prices_are_read_as_numbers_texts_and_ranges(price, expected):
    assert parse_price(price) == pytest.approx(expected)


@pytest.mark.parametrize(
    "price",
    [
        *("", " ", "$", "-", ",", "free", "nan", "inf", "-5", "-$5", "$5 - ", "$5 - $6 - $7", "1.2.3", "$1e5", "€5"),
        *('.a-box-inner{background-color:#fff}#buybox .selected{border:1px 2px}"', "<span>$5.00</span>", "$5 each"),
        *(None, True, False, -1, -0.01, math.nan, math.inf, -math.inf, [], [5], {"price": 5}),
    ],
)
def test_anything_else_is_no_price(price):
    assert math.isnan(parse_price(price))


@pytest.mark.parametrize("price", ["$" + "9" * 400, 10**400, "1000000000000", 1e12], ids=lambda price: str(price)[:20])
def test_a_price_beyond_all_reason_is_no_price(price):
    # It would be inf, and all others 0 or nan beside it.
    assert math.isnan(parse_price(price))
    assert parse_price("$99,999,999.00") == parse_price(99_999_999) == 99_999_999


def test_a_text_of_many_digits_is_judged_at_once():
    # BUG: the pattern looks at every pair of places in it, 9 s for these, minutes for a hundred thousand.
    start = time.monotonic()
    assert math.isnan(parse_price("1" * 20_000 + "x"))
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("write_meta", [meta_2014, meta_2018])
def test_a_price_that_cannot_be_read_is_counted_and_a_missing_one_is_not(tmp_path, write_meta):
    content = write_meta([("B0", 0.0, ("GPS",))])
    odd = [{"price": value} for value in ("<b>", -1, True, None, "")] + [{}]
    for number, fields in enumerate(odd, start=1):
        line = {"asin": f"B{number}", "title": "x", **fields}
        content += repr(line).encode() + b"\n" if write_meta is meta_2014 else json_lines([line])
    ratings = [*RATINGS, ("U0", "B5", 5, 1), ("U0", "B6", 5, 1)]
    raw = read_amazon(*write(tmp_path / "amazon", ratings, content))
    assert raw.counts["prices_unreadable"] == 3
    assert raw.counts["items_without_price"] == 6
    assert raw.items["price"].notna().tolist() == [True] + [False] * 6


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ([["Electronics", "GPS"]], "GPS"),
        ([["Electronics", "GPS"], ["Car", "Mounts"]], "Mounts"),
        ([["Electronics", "GPS"], []], "GPS"),
        ([["Electronics"]], "Electronics"),
        (["Electronics", "GPS"], "GPS"),
        (["Electronics", "GPS", ""], "GPS"),
        (["Electronics", "GPS", "</span></span></span>"], "GPS"),
        (["Electronics", "GPS", "<a href='x'>GPS</a>", "<b>"], "GPS"),
        ("GPS", "GPS"),
        (" Cables, Plugs ", "Cables, Plugs"),
        ([], None),
        ([[]], None),
        ([""], None),
        (["<b>"], None),
        ("", None),
        (" ", None),
        (None, None),
        # Blanks and markup behind a path, or in the place of one, do not hide it.
        ([["Electronics", "GPS", "<b>"]], "GPS"),
        ([["Electronics", "GPS"], [""]], "GPS"),
        ([["Electronics", "GPS"], ["<b>", None]], "GPS"),
        (["Electronics", "GPS", " "], "GPS"),
        (["Electronics", 5], "Electronics"),
        ({"Electronics": "GPS"}, None),
    ],
)
def test_the_finest_category_is_the_last_name_of_the_last_path(categories, expected):
    assert finest_category(categories) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", ["2014", "2018", "csv", "not listed"])
def test_with_every_optional_field_missing_all_features_are_finite_and_so_is_training(tmp_path, protocol, layout):
    asins = [asin for asin, _, _ in ITEMS]
    if layout == "csv":
        files = write_csv(tmp_path / "a.csv", released_csv(items=[(asin, None, ()) for asin in asins], as_lists=False))
    else:
        metas = {
            "2014": "".join(repr({"asin": asin}) + "\n" for asin in asins).encode(),
            "2018": json_lines({"asin": asin} for asin in asins),
            "not listed": b"{'asin': 'Q'}\n",
        }
        files = write(tmp_path / "amazon", meta=metas[layout])
    data = load_amazon(*files, protocol=protocol, embedding_dim=4)
    assert_finite(data)
    assert set(values_of(data, "price").tolist()) == {0}
    assert set(values_of(data, "price_missing").tolist()) == {1}
    assert set(values_of(data, "categories").tolist()) == {1}
    torch.manual_seed(0)
    model = IntTower.from_columns(data.user_columns, data.item_columns, dnn_hidden_units=(8, 4))
    trainer = Trainer(model, batch_size=16, show_progress=False)
    trainer.fit(data.train, data.valid, epochs=1, patience=1)  # raises where the loss is not finite
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert np.isfinite(trainer.predict(data.test)).all()


def test_where_training_items_have_no_price_a_test_items_price_is_finite_too(tmp_path):
    items = [(asin, price if asin == "B5" else None, path) for asin, price, path in ITEMS_BY_TIME]
    data = load_amazon(*write(tmp_path / "amazon", BY_TIME, meta_2014(items)), "temporal")
    assert_finite(data)
    assert numbers(data.test, "price_missing") == [1, 0, 0, 1]


# --- the meta file: Python literals that are read and never run

# The line of B1, but for its price of 5 and its category GPS where they are not written out.
REST = "'price': 5, 'categories': [['E', 'GPS']]}"
ACCEPTED = {
    "either quotes": """{'asin': "B1", "price": 5.0, 'categories': [["E", 'GPS']]}""",
    "quotes within quotes": """{'asin': 'B1', 'title': "5' cable", 'brand': '3" disk', """ + REST,
    "escaped quotes": r"""{'asin': 'B1', 'title': 'It\'s 5" or 5\'', 'brand': "a \" b", """ + REST,
    "a backslash before the quote": r"""{'asin': 'B1', 'title': 'a\\', 'x': '\\\\', """ + REST,
    "escaped letters": r"""{'asin': 'B\x31', 'title': '\u00e9 \n \t', 'price': 5, 'categories': [['\x47PS']]}""",
    "the prefix u": """{u'asin': u'B1', u'price': 5.0, u'title': U"x", u'categories': [[u'E', u'GPS']]}""",
    "letters of the world": """{'asin': 'B1', 'title': 'Åmål 日本 ü', """ + REST,
    "None, True and False": """{'asin': 'B1', 'a': None, 'b': [True, False], """ + REST,
    "signs and exponents": """{'asin': 'B1', 'a': -1, 'b': 1e+10, 'c': +2.5E-3, 'price': 5e0, 'categories': ['GPS']}""",
    "spaces and last commas": """  { 'asin'  :\t'B1' , 'price':5,'categories':[ ['E' , 'GPS', ], ], }  \r""",
    "another key first": """{'related': {'also_bought': ['Q']}, 'asin': 'B1', """ + REST,
    "empty texts, lists and dicts": """{'asin': 'B1', 'a': '', 'b': "", 'c': [], 'd': {}, """ + REST,
    "two texts in a row": """{'asin': 'B1', 'title': 'a' 'b' "c", 'price': 5, 'categories': ['G' 'PS']}""",
    "code and dicts in quotes": """{'asin': 'B1', 't': "__import__('os').system('touch PWNED') {'asin': 'Q'} #;(", """
    + REST,
    "JSON": """{"asin": "B1", "price": "$5.00", "x": null, "y": true, "category": ["E", "G\\u0050S"], "z": "\\/"}""",
    "JSON after spaces": """ \t{ "asin": "B1", "price": "$5.00", "x": null, "category": ["E", "GPS"]} """,
    "JSON after a byte order mark": """\ufeff{"asin": "B1", "price": 5, "x": null, "category": ["E", "GPS"]}""",
}


@pytest.mark.parametrize("line", ACCEPTED.values(), ids=ACCEPTED)
def test_a_line_of_literals_may_hold(line, tmp_path, empty_folder):
    item = item_of(line, tmp_path / "amazon")
    assert (item["price"], item["categories"]) == (5.0, "GPS")
    assert list(empty_folder.iterdir()) == []


def test_lines_of_items_that_nobody_reviewed_are_not_parsed(tmp_path, monkeypatch):
    parsed, parse = [], amazon.ast.literal_eval
    monkeypatch.setattr(amazon.ast, "literal_eval", lambda text: parsed.append(text) or parse(text))
    others = [(f"Q{number}", 5.0, ("Electronics",)) for number in range(20)]
    read_amazon(*write(tmp_path / "amazon", meta=meta_2014(others[:10] + ITEMS + others[10:])))
    assert len(parsed) == len(ITEMS)


CODE = (
    "__import__('os').system('touch PWNED')",
    "open('PWNED', 'w')",
    'exec(\'open("PWNED", "w")\')',
    'f\'{open("PWNED", "w")}\'',
    "rb'PWNED'",
    "b'PWNED'",
    "[open('PWNED', 'w') for _ in [1]]",
    "{open('PWNED', 'w') for _ in [1]}",
    "(lambda: open('PWNED', 'w'))()",
    "print(open('PWNED', 'w'))",
    "''.__class__.__base__.__subclasses__()",
    "'PWNED'.title",
    "{**{'a': 1}}",
    "[*'PWNED']",
    "'PWNED' * 99999999999",
    "9**9**9**9",
    "9_9",
    "0x9",
    "5j",
    "(5,)",
    "(x := 5)",
    "5 if 1 else 6",
    "not 5",
    "5; import os",
    "`touch PWNED`",
    "5 # PWNED",
    "nan",
    "null",
    "NoneTrue",
    "''' ' + open('PWNED', 'w') + ' '''",
)
LINES_OF_CODE = (
    *(f"{{'asin': '{asin}', 'price': {code}}}" for code in CODE for asin in ("B1", "Q9")),  # nobody reviewed Q9
    "{'asin': open('PWNED', 'w')}",
    "{open('PWNED', 'w'): 'asin'}",
    "{'asin': 'B1'}.update(open('PWNED', 'w'))",
    "{'asin': 'Q9'}, open('PWNED', 'w')",
    "dict(asin=open('PWNED', 'w'))",
    "open('PWNED', 'w')",
    "import os",
)


@pytest.mark.parametrize("line", LINES_OF_CODE)
def test_a_line_with_code_is_refused_and_not_run(line, tmp_path, empty_folder):
    files = write(tmp_path / "amazon", meta=meta_2014(ITEMS[2:]) + line.encode() + b"\n" + meta_2014())
    message = refusal(files, "not run")
    assert message.startswith("meta_Electronics.json, line 4: expected a dict of literals, got code")
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        "[" * 100_000 + "]" * 100_000,
        "{'a':" * 100_000 + "1" + "}" * 100_000,
        "-" * 100_000 + "5",
        "-" * 2_000 + "5",
        "1+" * 20_000 + "1",
        "9" * 5_000,
        "e",
        "e.e",
        "None.e",
        "-'a'",
        "['a'][0]",
        "1 + 1",
        "1 - 1",
        "{'a': 1}['a']",
        "'a' 5",
        "5 5",
        "",
        "[1}",
        "[1",
        "{'a', 'b': 1}",
        "'\0'",
        r"'\x'",
    ],
    ids=lambda value: repr(value[:16]),
)
def test_what_is_no_literal_or_too_deep_is_refused_with_its_line(value, tmp_path, empty_folder):
    line = f"{{'asin': 'B1', 'price': {value}}}\n".encode()
    message = refusal(write(tmp_path / "amazon", meta=b"\n" + meta_2014(ITEMS[2:]) + line + meta_2014()))
    assert message.startswith("meta_Electronics.json, line 5: expected a dict as JSON or Python literals, got ")
    assert len(message) < 300
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("value", ["{[]: 1}", "{{}: 1}", "{{}}", "{[]}"])
def test_a_literal_that_python_cannot_build_is_refused_with_its_line(value, tmp_path):
    line = f"{{'asin': 'B1', 'price': {value}}}\n".encode()
    message = refusal(write(tmp_path / "amazon", meta=meta_2014(ITEMS[2:]) + line + meta_2014()))
    assert message.startswith("meta_Electronics.json, line 4: expected a dict as JSON or Python literals, got ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"asin": "B1", "price": }', "expected a dict as JSON or Python literals, got Expecting value"),
        (b'{"asin": "B1"', "expected a dict as JSON or Python literals, got "),
        (b'{"asin": "B1"} {}', "expected a dict as JSON or Python literals, got Extra data"),
        (b'{"asin": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "expected a dict as JSON or Python literals, got max"),
        (b'{"title": "x"}', "expected a dict with an asin"),
        (b'{"asin": null}', "expected a dict with an asin"),
        (b'{"asin": 5}', "expected a dict with an asin"),
        (b"{}", "expected a dict with an asin"),
        (b"{'title': 'x'}", "expected a dict with an asin"),
        (b"{'asin': 5}", "expected a dict with an asin"),
        (b"{'asin'}", "expected a dict with an asin"),
        (b"['asin', 'B1']", "expected a dict with an asin"),
        (b"'asin'", "expected a dict with an asin"),
        (b"5", "expected a dict with an asin"),
        (b"{'asin': 'B1', 'title': 'x}", 'expected a dict of literals, got code or broken quotes ("\'" outside'),
        (b"{'asin': 'Q9', 'title': 'x", 'expected a dict of literals, got code or broken quotes ("\'" outside'),
        (b"{'asin': 'B1', 'title': 'It's'}", "expected a dict of literals, got code or broken quotes ('s' outside"),
        (b"{'asin': 'B1', 'title': '\xff'}", "expected a dict as JSON or Python literals, got 'utf-8' codec"),
        (b"{'asin': '\xff'}", "expected a dict as JSON or Python literals, got 'utf-8' codec"),
        (b"\x00\x01\x02", "expected a dict of literals, got code or broken quotes ('\\x00' outside"),
        (b"<html>", "expected a dict of literals, got code or broken quotes ('<' outside"),
    ],
)
def test_a_broken_meta_line_is_refused_with_its_number(line, expected, tmp_path):
    message = refusal(write(tmp_path / "amazon", meta=meta_2014()[:-1] + b"\n\n" + line + b"\n"))
    assert message.startswith(f"meta_Electronics.json, line 7: {expected}")
    assert "Mend or remove the line." in message or "mend or remove the line." in message


def test_of_an_item_that_is_listed_twice_the_first_line_counts(tmp_path):
    again = [("B0", 99.0, ("Electronics", "Other")), ("B1", 7.0, ("Electronics", "Other"))]
    for write_meta in (meta_2014, meta_2018):
        raw = read_amazon(*write(tmp_path / "amazon", meta=write_meta([*ITEMS, *again])))
        assert raw.items["categories"][:2].tolist() == ["GPS", "Cables, Plugs & 'More'"]
        assert raw.items["price"][0] == 12.5
        assert math.isnan(raw.items["price"][1])
        assert raw.counts["lines_of_meta_Electronics.json"] == 7


def test_the_first_row_of_an_item_counts_in_a_csv(tmp_path):
    content = released_csv().replace(b"12.5", b"7", 1)
    assert read_amazon(*write_csv(tmp_path / "a.csv", content)).items["price"][0] == 7


# --- items that are not listed


def test_items_that_are_not_listed_stay_in_and_are_counted_and_named(tmp_path, capsys):
    data = load_amazon(*write(tmp_path / "amazon", meta=meta_2014(ITEMS[1:])))
    assert capsys.readouterr().out == (
        "meta_Electronics.json: 1 reviewed asin(s) missing (B0); their reviews stay in, with the asin alone known.\n"
    )
    assert sum(map(len, splits_of(data))) == 80
    assert data.counts["asins_not_in_meta_Electronics.json"] == 1
    assert data.counts["reviews_of_asins_not_in_meta_Electronics.json"] == 16
    of_b0 = np.array([row // 4 % 5 == 0 for row in range(80)])
    assert set(values_of(data, "asin")[of_b0].tolist()) == {2}
    assert set(values_of(data, "categories")[of_b0].tolist()) == {1}
    assert set(values_of(data, "price_missing")[of_b0].tolist()) == {1}
    assert_finite(data)


def test_items_that_are_not_listed_are_refused_with_strict_data(tmp_path, capsys):
    refusal(
        write(tmp_path / "amazon", meta=meta_2014(ITEMS[1:])),
        "meta_Electronics.json: expected every reviewed asin, 1 missing (B0)",
        "--strict-data",
        strict_data=True,
    )
    assert capsys.readouterr().out == ""


def test_long_lists_of_items_that_are_not_listed_are_cut(tmp_path, capsys):
    ratings = RATINGS + [("U0", f"Q{number}", 5, 1) for number in range(7)]
    files = write(tmp_path / "amazon", ratings)
    refusal(files, "7 missing (Q0, Q1, Q2, Q3, Q4, ...);", strict_data=True)
    load_amazon(*files)
    assert "7 reviewed asin(s) missing (Q0, Q1, Q2, Q3, Q4, ...);" in capsys.readouterr().out
    refusal(write(tmp_path / "amazon", ratings[:85]), "5 missing (Q0, Q1, Q2, Q3, Q4);", strict_data=True)


def test_a_cache_does_not_let_through_what_strict_data_refuses(tmp_path):
    files, cache = write(tmp_path / "amazon", meta=meta_2014(ITEMS[1:])), tmp_path / "cache"
    data = load_amazon(*files, cache=cache)
    assert_same_splits(data, load_amazon(*files, cache=cache))
    refusal(files, "expected every reviewed asin", strict_data=True, cache=cache)


@pytest.mark.parametrize("name", ["reviews_Electronics_5.json", "Electronics_5.json"])
def test_a_cache_does_not_hide_the_name_of_the_reviews_nor_that_they_are_synthetic(files, tmp_path, name):
    # BUG: the cache is found by the contents of the reviews and the meta file alone.
    np.save(files[0].with_name("probabilities.npy"), np.full(len(RATINGS), 0.5, dtype=np.float32))
    assert load_amazon(*files, cache=tmp_path / "cache").synthetic
    other = write(tmp_path / "other", names=(name, files[1].name))
    cached, fresh = load_amazon(*other, cache=tmp_path / "cache"), load_amazon(*other)
    assert (cached.name, cached.synthetic) == (fresh.name, fresh.synthetic)


def test_each_protocol_has_its_own_cache(files, tmp_path):
    for protocol in (*PROTOCOLS, *PROTOCOLS):
        cached = load_amazon(*files, protocol, cache=tmp_path / "cache")
        assert_same_splits(load_amazon(*files, protocol), cached)
        assert cached.source == str(files[0])
        assert cached.labels_leak == (protocol == "paper")
        assert load_amazon(*files, protocol, 6, cache=tmp_path / "cache").user_columns[0].embedding_dim == 6


# --- the fingerprint


def test_the_fingerprint_does_not_depend_on_the_place_or_other_settings(files, tmp_path):
    fingerprint = load_amazon(*files).fingerprint
    assert len(fingerprint) == 64
    assert int(fingerprint, 16) >= 0
    assert load_amazon(*write(tmp_path / "copy", names=("any.json", "other"))).fingerprint == fingerprint
    assert load_amazon(*files, embedding_dim=4, strict_data=True).fingerprint == fingerprint


def test_the_fingerprint_changes_with_protocol_and_split_seed(files):
    settings = [(protocol, seed) for protocol in PROTOCOLS for seed in (1, 2)]
    assert len({load_amazon(*files, protocol, split_seed=seed).fingerprint for protocol, seed in settings}) == 6


def test_the_fingerprint_changes_with_one_byte_of_either_file(files, tmp_path):
    fingerprints = {load_amazon(*files).fingerprint}
    contents = [file.read_bytes() for file in files]
    assert contents[0].count(b": 1000,") == contents[1].count(b": 5.0,") == 1
    fingerprints.add(
        load_amazon(*write(tmp_path / "a", contents[0].replace(b": 1000,", b": 1001,"), contents[1])).fingerprint
    )
    fingerprints.add(
        load_amazon(*write(tmp_path / "b", contents[0], contents[1].replace(b": 5.0,", b": 6.0,"))).fingerprint
    )
    assert len(fingerprints) == 3


# --- wrong files


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"reviewerID": "U0", "asin": ', "Expecting value"),
        (b"not JSON", "Expecting value"),
        (b"{'reviewerID': 'U0'}", "Expecting property name"),
        (b'{"reviewerID": "\xff"}', "'utf-8' codec"),
        (b"[]", "list indices must be integers"),
        (b"5", "'int' object is not subscriptable"),
        (b"null", "'NoneType' object is not subscriptable"),
        (json_lines([{"asin": "B0", "overall": 5.0, "unixReviewTime": 1}]), "no reviewerID"),
        (json_lines([{"reviewerID": "U0", "overall": 5.0, "unixReviewTime": 1}]), "no asin"),
        (json_lines([{"reviewerID": "U0", "asin": "B0", "unixReviewTime": 1}]), "no overall"),
        (json_lines([{"reviewerID": "U0", "asin": "B0", "overall": 5.0}]), "no unixReviewTime"),
        (reviews([("U0", "B0", 5, "yesterday")]), "invalid literal for int()"),
        (reviews([("U0", "B0", 5, None)]), "int() argument must be"),
        (reviews([("U0", "B0", 5, math.nan)]), "cannot convert float NaN to integer"),
        (reviews([("U0", "B0", 5, 1)]).replace(b"5.0", b'"five"'), "could not convert string to float"),
        (reviews([("U0", "B0", 5, 1)]).replace(b"5.0", b"null"), "float() argument must be"),
    ],
)
def test_a_broken_review_is_refused_with_its_file_and_line(line, expected, tmp_path):
    lines = reviews().splitlines(keepends=True)
    content = b"".join([*lines[:6], b"\n", line.rstrip(b"\n") + b"\n", *lines[6:]])
    for names in (("reviews_Electronics_5.json", META), (REVIEWS, META)):
        message = refusal(write(tmp_path / "amazon", content, names=names), "mend or remove the line")
        assert message.startswith(
            f"{names[0]}, line 8: expected a JSON object with reviewerID, asin, overall and unixReviewTime, "
            f"got {expected}"
        )


@pytest.mark.parametrize(
    "line",
    [
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        reviews([("U0", "B0", 5, math.inf)]),
        reviews([("U0", "B0", 5, 10**30)]),
        reviews([("U0", "B0", 5, 1)]).replace(b"5.0", b"9" * 400),
    ],
    ids=["too deep", "infinite time", "time beyond 64 bits", "rating beyond all numbers"],
)
def test_a_review_that_is_too_deep_or_too_large_is_refused_with_its_file_and_line(line, tmp_path):
    message = refusal(write(tmp_path / "amazon", reviews() + line))
    assert message.startswith("reviews_Electronics_5.json, line 81: expected a JSON object with reviewerID, asin")


@pytest.mark.parametrize("value", [None, 5, []], ids=repr)
@pytest.mark.parametrize("key", ["reviewerID", "asin"])
def test_an_id_that_is_no_text_is_refused_with_its_file_and_line(key, value, tmp_path):
    odd = dict(zip(RELEASED_CSV, RATINGS[0], strict=False)) | {key: value}
    message = refusal(write(tmp_path / "amazon", reviews() + json_lines([odd])))
    assert message.startswith("reviews_Electronics_5.json, line 81: expected a JSON object with reviewerID, asin")
    assert f"got {value!r} as an id" in message


@pytest.mark.parametrize("stars", [0, 6, -1, 0.99, 5.01, math.nan, math.inf])
def test_a_rating_outside_1_to_5_is_refused_with_its_place(stars, tmp_path):
    ratings = [*RATINGS[:6], ("U0", "B0", stars, 5), *RATINGS[6:], ("U0", "B1", 9, 5)]
    expected = f", review 7: expected a rating from 1 to 5 as overall, got {stars:g}; 2 such review(s)"
    assert refusal(write(tmp_path / "amazon", ratings)).startswith("reviews_Electronics_5.json" + expected)
    assert refusal(write_csv(tmp_path / "a.csv", released_csv(ratings))).startswith("a.csv" + expected)


def test_missing_files_are_named(files, tmp_path):
    nowhere = tmp_path / "nowhere.json"
    for pair in ((nowhere, files[1]), (files[0], nowhere), (tmp_path, files[1]), (tmp_path / "nowhere.csv",)):
        missing = next(path for path in pair if not path.is_file())
        assert refusal(pair).startswith(f"{missing}: expected a file of Amazon reviews, got no such file")


def test_reviews_without_a_meta_file_are_refused(files):
    refusal(files[:1], str(files[0]), "expected the meta file beside the reviews, got none; name it with --meta")


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\r\n"])
def test_an_empty_file_is_named(files, content):
    for place in (0, 1):
        kept = files[place].read_bytes()
        for emptied in (content, gzip.compress(content)):
            files[place].write_bytes(emptied)
            message = refusal(files)
            assert message == f"{files[place].name}: expected a line for each review or item, got an empty file."
        files[place].write_bytes(kept)


def test_swapped_files_are_refused(files):
    refusal(files[::-1], "meta_Electronics.json, line 1: expected a JSON object with reviewerID")


def test_an_unknown_protocol_is_refused_with_the_choices_before_any_file_is_read(files, tmp_path):
    for pair in (files, (tmp_path / "nowhere", tmp_path / "nowhere")):
        refusal(pair, "strict, paper, temporal", "'random'", protocol="random")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_too_few_reviews_and_labels_of_one_class_are_refused(tmp_path, protocol):
    few = write(tmp_path / "few", RATINGS[:3])
    refusal(few, "valid split: expected at least one row, got none of 3", protocol=protocol)
    liked = write(tmp_path / "liked", [(*rating[:2], 5, rating[3]) for rating in RATINGS])
    refusal(liked, "train split: expected labels 0 and 1, got only 1", protocol=protocol)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("place", [0, 1, "csv"])
def test_a_truncated_file_is_to_be_fetched_again(tmp_path, share, place):
    if place == "csv":
        files = write_csv(tmp_path / "a.csv.gz", gzip.compress(released_csv()))
    else:
        files = write(tmp_path / "amazon", names=(REVIEWS, META))
    path = files[0 if place == "csv" else place]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    message = refusal(files, "fetch it again")
    assert message.startswith(f"{path}: expected a whole gzip file, got a damaged one (")


@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_file_is_to_be_fetched_again(tmp_path, place):
    files = write(tmp_path / "amazon", names=(REVIEWS, META))
    content = files[place].read_bytes()
    for damaged in (
        content[:-8] + bytes(4) + content[-4:],  # the checksum
        content[:-4] + bytes(4),  # the length
        content[:60] + bytes([255]) * 20 + content[80:],
        content + b"junk",
        content[:2] + b"\x00" + content[3:],  # the method
    ):
        files[place].write_bytes(damaged)
        message = refusal(files, "fetch it again")
        assert message.startswith(f"{files[place]}: expected a whole gzip file, got a damaged one (")


def test_no_single_wrong_bit_in_a_packed_file_is_read_as_data(tmp_path):
    files = write(tmp_path / "amazon", names=(REVIEWS, META))
    whole, labels = files[0].read_bytes(), read_amazon(*files).labels
    generator, again = random.Random(0), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        files[0].write_bytes(damaged)
        try:
            other = read_amazon(*files)
        except UserError as error:
            again += "fetch it again" in str(error)
            assert "\n" not in str(error)  # noqa: PT017
        else:  # a date or the like
            np.testing.assert_array_equal(other.labels, labels)
    assert again > 180


def test_a_page_in_the_place_of_a_packed_file_is_refused(tmp_path):
    files = write(tmp_path / "amazon", names=(REVIEWS, META))
    files[0].write_bytes(b"<html>404</html>\n")
    refusal(files, f"{REVIEWS}, line 1: expected a JSON object")


# --- a wrong CSV


def test_a_csv_with_another_header_is_refused_with_what_is_missing(tmp_path):
    files = write_csv(tmp_path / "a.csv", released_csv().replace(b"reviewerID,asin,overall", b"user,item,overall", 1))
    message = refusal(files, "got no reviewerID, asin.")
    assert message.startswith("a.csv, line 1: expected the header reviewerID,asin,overall,unixReviewTime,price,")
    refusal(write_csv(tmp_path / "b.csv", b""), "b.csv, line 1: expected the header", "categories.")
    refusal(write_csv(tmp_path / "c.csv", released_csv([])), "c.csv: expected at least one row below the header")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("U0,B9,5,1,1", "5 columns where the header has 6"),
        ("U0,B9,5,1,1,GPS,more", "7 columns where the header has 6"),
        ("U0,B9,five,1,1,GPS", "could not convert string to float: 'five'"),
        ("U0,B9,,1,1,GPS", "could not convert string to float: ''"),
        ("U0,B9,5,now,1,GPS", "invalid literal for int()"),
        ("U0,B9,5,1,1,[GPS", "'[' was never closed"),
        ("U0,B9,5,1,1,[__import__('os').system('touch PWNED')]", "malformed node or string"),
        ("U0,B9,5,1,1,[open('PWNED')]", "malformed node or string"),
        ("U0,B9,5,1,1," + "[" * 5000, "too many nested parentheses"),
        ("U0,B9,5,1,1," + "x" * 200_000, "field larger than field limit"),
    ],
    ids=lambda text: text[:30],
)
def test_a_wrong_row_of_a_csv_is_refused_with_its_file_and_line(line, expected, tmp_path, empty_folder):
    lines = released_csv().decode().splitlines(keepends=True)
    content = "".join([*lines[:9], line + "\n", *lines[9:]]).encode()
    message = refusal(write_csv(tmp_path / "a.csv", content), "mend or remove the line")
    assert message.startswith(
        f"a.csv, line 10: expected reviewerID, asin, overall, unixReviewTime, price, categories, got {expected}"
    )
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("line", [f"U0,B9,5,{10**30},1,GPS", 'U0,B9,5,1,1,"[{[]}]"', 'U0,B9,5,1,1,"[{[]: 1}]"'])
def test_a_row_that_no_number_or_list_can_hold_is_refused_with_its_file_and_line(line, tmp_path):
    assert refusal(write_csv(tmp_path / "a.csv", released_csv() + line.encode())).startswith("a.csv, line 82: expected")


def test_a_file_without_lines_is_no_csv(tmp_path):
    message = refusal(write_csv(tmp_path / "a.csv", b"x" * 200_000))
    assert message.startswith("a.csv, line 1: expected the header")


def test_a_csv_that_ends_within_quotes_is_refused(tmp_path):
    # A last column whose quote is not closed would swallow all the rows behind it, unseen.
    content = released_csv() + b'U0,B0,5,1,1,"GPS\n' + b"U1,B0,5,1,1,GPS\n" * 9
    refusal(write_csv(tmp_path / "a.csv", content), "a.csv, line 91: expected reviewerID")


# --- where the files are looked for


@pytest.fixture
def data_folder(tmp_path, monkeypatch) -> Path:
    """data/ is an empty folder, INTTOWER_DATA is not set, and a fetch fails; the sample is a small one."""
    folder = tmp_path / "data"
    folder.mkdir()
    for module in (amazon, sources):
        monkeypatch.setattr(module, "DATA_FOLDER", folder)
    monkeypatch.delenv("INTTOWER_DATA", raising=False)

    def no_network(url: str, path: Path) -> Path:
        raise DownloadError(f"{url}: could not be fetched (no network); check the network, or give --data.")

    monkeypatch.setattr(amazon, "download", no_network)
    monkeypatch.setattr(amazon, "write_amazon_sample", lambda place: write_amazon_sample(place, num_rows=300))
    return folder


@pytest.mark.usefixtures("data_folder")
@pytest.mark.parametrize(
    ("reviews_name", "meta_name"),
    [
        ("reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"),
        ("reviews_Electronics_5.json", "meta_Electronics.json"),
        ("reviews_Electronics_5.json", "meta_Electronics.json.gz"),
        ("reviews_Electronics_5.json.gz", "meta_Electronics.json"),
        ("Electronics_5.json.gz", "meta_Electronics.json.gz"),
        ("reviews_Books_5.json.gz", "meta_Books.json.gz"),
        ("Books_5.json.gz", "meta_Books.json.gz"),
        ("Home_and_Kitchen_5.json", "meta_Home_and_Kitchen.json"),
        ("reviews_Books.json.gz", "meta_Books.json.gz"),
    ],
)
def test_the_meta_file_is_found_beside_the_reviews_by_its_name(tmp_path, reviews_name, meta_name):
    files = write(tmp_path / "amazon", names=(reviews_name, meta_name))
    (tmp_path / "amazon" / "meta_Toys.json.gz").touch()
    assert locate_amazon(reviews=str(files[0])) == files
    assert locate_amazon(named=str(files[0])) == files  # --data names a file


@pytest.mark.usefixtures("data_folder")
def test_a_packed_meta_file_is_taken_before_one_that_is_not(tmp_path):
    files = write(tmp_path / "amazon", names=(REVIEWS, META))
    (tmp_path / "amazon" / "meta_Electronics.json").touch()
    assert locate_amazon(reviews=str(files[0])) == files


@pytest.mark.parametrize("inside", ["", "amazon"])
@pytest.mark.parametrize("reviews_name", [*RELEASES.values(), "reviews_Electronics_5.json", "Electronics_5.json"])
def test_the_files_are_found_in_a_named_folder_the_environment_and_data(
    tmp_path, data_folder, monkeypatch, inside, reviews_name
):
    for folder in ("named", "environment", "data"):
        (tmp_path / folder).mkdir(exist_ok=True)
    in_data, in_environment, in_named = (
        write(tmp_path / folder / inside, names=(reviews_name, META)) for folder in ("data", "environment", "named")
    )
    assert locate_amazon() == in_data
    monkeypatch.setenv("INTTOWER_DATA", str(tmp_path / "environment"))
    assert locate_amazon() == in_environment
    assert locate_amazon(str(tmp_path / "named")) == in_named


@pytest.mark.usefixtures("data_folder")
def test_a_folder_itself_comes_before_its_amazon_and_2014_before_2018(tmp_path):
    for inside, name in (("amazon", RELEASES["2018"]), ("amazon", REVIEWS), ("", RELEASES["2018"]), ("", REVIEWS)):
        files = write(tmp_path / inside, names=(name, META))
        assert locate_amazon(str(tmp_path)) == files


@pytest.mark.usefixtures("data_folder")
def test_a_csv_wants_no_meta_file(tmp_path):
    (path,) = write_csv(tmp_path / "amazon.csv")
    assert locate_amazon(str(tmp_path)) == locate_amazon(reviews=str(path)) == (path, None)
    with pytest.raises(UserError, match=r"^--meta: expected none with a CSV"):
        locate_amazon(reviews=str(path), meta=str(path))


@pytest.mark.usefixtures("data_folder")
def test_a_meta_file_may_be_named_wherever_it_lies(files, tmp_path):
    other = tmp_path / "other name"
    other.touch()
    assert locate_amazon(reviews=str(files[0]), meta=str(other)) == (files[0], other)
    assert locate_amazon(named=str(tmp_path), reviews=str(files[0]), meta=str(other)) == (files[0], other)


@pytest.mark.usefixtures("data_folder")
def test_a_meta_file_alone_is_refused(files, tmp_path):
    for named in (None, str(files[0].parent)):
        with pytest.raises(UserError) as caught:
            locate_amazon(named=named, meta=str(files[1]))
        assert str(caught.value) == "--meta: expected --reviews with it, got --meta alone; name both."


def test_named_files_that_are_missing_are_errors_and_never_a_fallback(files, tmp_path, data_folder, monkeypatch):
    write(data_folder, names=(REVIEWS, META))
    nowhere = str(tmp_path / "nowhere")
    monkeypatch.setenv("INTTOWER_DATA", nowhere)
    for arguments, expected in (
        ({"reviews": nowhere}, f"--reviews {nowhere}: expected a file of reviews, got no such file"),
        ({"reviews": str(tmp_path)}, f"--reviews {tmp_path}: expected a file of reviews, got no such file"),
        ({"reviews": str(files[0]), "meta": nowhere}, f"--meta {nowhere}: expected a meta file, got no such file"),
        ({"reviews": str(files[0]), "meta": str(tmp_path)}, f"--meta {tmp_path}: expected a meta file, got no"),
        ({"named": nowhere}, f"--data {nowhere}: expected Amazon reviews (reviews_Electronics_5.json.gz, "),
        ({}, f"$INTTOWER_DATA {nowhere}: expected Amazon reviews (reviews_Electronics_5.json.gz, "),
    ):
        with pytest.raises(UserError) as caught:
            locate_amazon(**arguments)
        assert str(caught.value).startswith(expected)


@pytest.mark.usefixtures("data_folder")
def test_reviews_whose_meta_file_is_missing_are_refused_with_its_name(tmp_path):
    for name, wanted in (
        ("reviews_Books_5.json.gz", "meta_Books.json.gz"),
        ("Electronics_5.json.gz", "meta_Electronics.json.gz"),
        (REVIEWS, META),
    ):
        files = write(tmp_path / "amazon", names=(name, "meta_Toys.json.gz"))
        with pytest.raises(UserError) as caught:
            locate_amazon(reviews=str(files[0]))
        assert str(caught.value) == (
            f"{tmp_path / 'amazon'}: expected the meta file of {name} beside it ({wanted}), got none; add it, or name "
            "it with --meta."
        )


def test_without_a_network_the_synthetic_sample_takes_its_place(data_folder, capsys):
    reviews_path, meta_path = locate_amazon()
    assert (reviews_path, meta_path) == (data_folder / "sample-amazon" / REVIEWS, data_folder / "sample-amazon" / META)
    assert [path.name for path in data_folder.iterdir()] == ["sample-amazon"]
    assert load_amazon(reviews_path, meta_path).synthetic
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"no {META} in data/amazon/; fetching {amazon.FOLDER_URL}{META}"
    assert lines[1].startswith(f"{amazon.FOLDER_URL}{META}: could not be fetched (no network)")
    assert locate_amazon() == (reviews_path, meta_path)  # the second time it is there


def test_with_a_network_both_files_are_fetched_once_and_what_is_there_stays(data_folder, monkeypatch, capsys):
    fetched = []

    def fetch(url: str, path: Path) -> Path:
        fetched.append(url)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        return path

    monkeypatch.setattr(amazon, "download", fetch)
    expected = data_folder / "amazon" / REVIEWS, data_folder / "amazon" / META
    assert locate_amazon() == expected
    assert fetched == [amazon.FOLDER_URL + META, amazon.FOLDER_URL + REVIEWS]
    assert locate_amazon() == expected
    assert len(fetched) == 2
    for path in expected:  # the one that is missing is fetched alone
        path.unlink()
        assert locate_amazon() == expected
        assert fetched[2:] == [amazon.FOLDER_URL + path.name]
        del fetched[2:]
    assert all(line.startswith("no ") for line in capsys.readouterr().out.splitlines())


def test_a_fetch_that_fails_otherwise_is_an_error_and_never_a_sample(data_folder, monkeypatch):
    def full_disk(url: str, path: Path) -> Path:
        raise UserError(f"{path}: could not be saved (No space left on device)")

    monkeypatch.setattr(amazon, "download", full_disk)
    with pytest.raises(UserError, match="No space left"):
        locate_amazon()
    assert list(data_folder.iterdir()) == []


def test_real_reviews_without_their_meta_file_are_never_left_for_the_sample(data_folder):
    (data_folder / "amazon").mkdir()
    (data_folder / "amazon" / REVIEWS).touch()
    with pytest.raises(DownloadError, match="could not be fetched"):
        locate_amazon()
    assert [path.name for path in data_folder.iterdir()] == ["amazon"]


# --- the real reviews


@pytest.fixture(scope="module")
def real_reviews() -> Path:
    """The first 290 reviews of the real Electronics, in the folder that INTTOWER_DATA names."""
    folder = os.environ.get("INTTOWER_DATA")
    if not folder:
        pytest.skip("needs real Amazon reviews: INTTOWER_DATA is not set")
    path = Path(folder) / "amazon" / "reviews_Electronics_5.head290.json.gz"
    if not path.is_file():
        pytest.skip(f"needs real Amazon reviews: no amazon/{path.name} in INTTOWER_DATA ({folder})")
    return path


@pytest.fixture
def real_files(real_reviews, tmp_path) -> Files:
    """They and a meta file in the real format: a third of the items without a price, the last one not listed."""
    with gzip.open(real_reviews) as file:
        asins = list(dict.fromkeys(json.loads(line)["asin"] for line in file))
    meta = tmp_path / META
    items = [
        {"asin": asin, "description": 'A "GPS" for the driver\'s seat', "title": "Rand McNally 5' 7\" \\ TND 700"}
        | ({"price": 299.99 + number} if number % 3 else {})
        | {"imUrl": "http://ecx.images-amazon.com/images/I/x.jpg", "related": {"also_viewed": [asins[0], "B00"]}}
        | {"salesRank": {"Electronics": 100 + number}, "categories": [["Electronics", "GPS", f"Kind {number % 2}"]]}
        for number, asin in enumerate(asins[:-1])
    ]
    meta.write_bytes(gzip.compress("".join(repr(item) + "\n" for item in items).encode()))
    return real_reviews, meta


@pytest.mark.parametrize("protocol", ["strict", "temporal"])
def test_real_reviews_keep_their_labels_and_their_order_in_time(real_files, protocol):
    with gzip.open(real_files[0]) as file:
        lines = [json.loads(line) for line in file]
    data = load_amazon(*real_files, protocol)
    assert not data.synthetic
    assert data.counts["reviews_read"] == len(lines) == 290
    assert data.counts["users"] == len({line["reviewerID"] for line in lines}) == 289
    assert data.counts["items"] == len({line["asin"] for line in lines}) == 6
    assert data.counts[f"asins_not_in_{META}"] == 1
    assert data.counts["items_without_price"] == 3
    for table in splits_of(data):
        assert table.labels.tolist() == [float(lines[row]["overall"] >= 4) for row in table.rows]
    assert sorted(np.concatenate([table.rows for table in splits_of(data)]).tolist()) == list(range(290))
    if protocol == "temporal":
        times = np.array([line["unixReviewTime"] for line in lines])
        assert times[data.train.rows].max() <= times[data.valid.rows].min()
        assert times[data.valid.rows].max() <= times[data.test.rows].min()
    assert_finite(data)


def test_of_real_reviewers_with_one_review_each_paper_keeps_those_who_liked_the_item(real_files):
    refusal(real_files, "train split: expected labels 0 and 1, got only 1", protocol="paper")


# --- from the shell


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, Path]:
    """A synthetic sample of each release."""
    folder = tmp_path_factory.mktemp("samples")
    return {release: write_amazon_sample(folder / release, num_rows=2000, release=release) for release in RELEASES}


# Each protocol and each model meets both releases.
@pytest.mark.parametrize(
    ("protocol", "model", "release"),
    [
        (protocol, model, list(RELEASES)[(row + column) % 2])
        for row, protocol in enumerate(PROTOCOLS)
        for column, model in enumerate(("IntTower", "DAT", "COLD"))
    ],
)
def test_the_script_trains_a_model_under_a_protocol(protocol, model, release, samples, tmp_path):
    result = run(
        *(SCRIPT, "--data", samples[release], "--protocol", protocol, "--model", model, "--no-cache"),
        *("--output", tmp_path / "run", "--epochs", "1", "--hidden-units", "16,8"),
    )
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC DATA" in result.stdout
    assert "best possible AUC" in result.stdout
    assert ("labels leak" in result.stdout) == (protocol == "paper")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    name = {"2014": "amazon-synthetic", "2018": "amazon-Electronics_5-synthetic"}[release]
    assert (record["dataset"], record["source"]) == (name, RELEASES[release])
    assert (record["protocol"], record["model"], record["synthetic"]) == (protocol, model, True)
    assert record["labels_leak"] == (protocol == "paper")
    assert record["counts"]["reviews_read"] == 2000
    assert 0 < record["test"]["auc"] < 1
    assert 0 < record["test"]["logloss"] < math.inf
    assert record["dense_feature_test_auc"].keys() == {
        *("user_mean_rating", "item_mean_rating", "price", "price_missing"),
    }
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("checkpoint.pt", "encoders.json", "learning_curve.png", "record.json", "test_logits.npy"),
    ]


def test_wrong_input_from_the_shell_is_one_line_and_leaves_no_run(samples, tmp_path):
    refused = tmp_path / "run"
    line = f"{{'asin': 'B1', 'price': __import__('os').system('touch {tmp_path / 'PWNED'}')}}\n".encode()
    hostile = write(tmp_path / "hostile", meta=meta_2014() + line)
    result = run(SCRIPT, "--reviews", hostile[0], "--no-cache", "--output", refused)
    assert_refused(result, "error: meta_Electronics.json, line 6: expected a dict of literals", "not run")
    assert not (tmp_path / "PWNED").exists()

    cut = shutil.copytree(samples["2014"], tmp_path / "cut")
    (cut / REVIEWS).write_bytes((cut / REVIEWS).read_bytes()[:100_000])
    result = run(SCRIPT, "--data", cut, "--no-cache", "--output", refused)
    assert_refused(result, f"error: {cut / REVIEWS}: expected a whole gzip file", "fetch it again")
    assert not refused.exists()
