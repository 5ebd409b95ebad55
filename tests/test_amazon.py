"""Amazon reviews from every layout to encoded splits, and what is said of files that are wrong.

What the release of 2023 has of its own: test_amazon_2023.py.
"""

import csv
import gzip
import io
import json
import math
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tables
import torch
from samples import real_amazon_reviews
from shell import assert_refused, run
from tables import SPLITS, assert_same_splits

from preprocessing import amazon, amazon_meta, sources
from preprocessing.amazon import META, RELEASED_CSV, REVIEWS, load_amazon, locate_amazon, read_amazon
from preprocessing.amazon_meta import finest_category, parse_price
from preprocessing.inputs import DenseFeat, SparseFeat
from preprocessing.sample_amazon import write_amazon_sample

SCRIPT = "train_amazon_IntTower.py"
PROTOCOLS = ("strict", "paper", "temporal")
RELEASES = {"2014": REVIEWS, "2018": "Electronics_5.json.gz", "2023": "Electronics.jsonl.gz"}

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
    """The reviews of 2014 or 2018."""
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


def assert_finite(data) -> None:
    for table in splits_of(data):
        for name, values in table.features.items():
            assert torch.isfinite(values[:]).all(), name


def refusal(files: Files, *fragments: str, **options) -> str:
    """The one line that loading ends with."""
    return tables.refusal(load_amazon, *files, fragments=fragments, **options)


def with_line(line: str | bytes) -> bytes:
    """A meta file with this line for B1, its fourth."""
    line = line if isinstance(line, bytes) else line.encode()
    return meta_2014(ITEMS[2:]) + line + b"\n" + meta_2014(ITEMS[:1])


@pytest.fixture
def files(tmp_path) -> Files:
    return write(tmp_path / "amazon")


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """The working folder, in which nothing may appear."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    yield
    assert list((tmp_path / "empty").iterdir()) == []


# --- layouts


def test_every_layout_packed_or_not_gives_the_same_splits_and_features_and_leaves_nothing(tmp_path, capfd):
    data = load_amazon(*write(tmp_path / "2014"))
    first_bytes = write(tmp_path / "files are known by", names=(REVIEWS, META))
    first_bytes[0].write_bytes(reviews())
    first_bytes[1].rename(tmp_path / "meta")
    with_blanks = [b"\n  \n" + content.replace(b"\n", b"\r\n\n \t\n").rstrip() for content in (reviews(), meta_2014())]
    layouts = [
        write(tmp_path / "2014 packed", names=(REVIEWS, META)),
        write(tmp_path / "2014 half", names=("reviews_Electronics_5.json", META)),
        write(tmp_path / "2018", meta=meta_2018(), names=("Electronics_5.json", "meta_Electronics.json")),
        write(tmp_path / "2018 packed", meta=meta_2018(), names=("Electronics_5.json.gz", META)),
        (first_bytes[0], tmp_path / "meta"),
        write(tmp_path / "blank lines, and a last one without an end", *with_blanks),
    ]
    layouts += [
        write_csv(tmp_path / name, content)
        for name, content in {
            "lists.csv": released_csv(),
            "texts.csv": released_csv(as_lists=False),
            "lists.txt": released_csv(end="\r\n"),
            "lists.csv.gz": gzip.compress(released_csv()),
            "marked.csv": b"\xef\xbb\xbf" + released_csv(),
            "wider.csv": released_csv().replace(b",", b",more,", 1).replace(b",B", b',"a, b",B'),
            "blank.csv": released_csv().replace(b"\n", b"\n\n", 5) + b"\n",
        }.items()
    ]
    before = sorted(tmp_path.rglob("*"))
    for layout in layouts:
        assert_same_splits(data, load_amazon(*layout))
    assert sorted(tmp_path.rglob("*")) == before
    assert capfd.readouterr() == ("", "")


def test_reading_gives_each_review_its_user_item_label_and_time(tmp_path):
    users, asins = ("U2", "U1", "U2", "U1", "U3"), ("B1", "B1", "B0", "B3", "B1")
    ratings = list(zip(users, asins, (5, 3.99, 4, 1, 2), (30, 10, 20, 10, 5), strict=True))
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
        assert raw.labels.tolist() == [1, 0, 1, 0, 0]  # 1 for at least 4
        assert raw.times.tolist() == [30, 10, 20, 10, 5]
        assert raw.rows.tolist() == [0, 1, 2, 3, 4]
        assert raw.items.astype(object).where(raw.items.notna(), None).to_numpy().tolist() == [
            [asin, category, price] for asin, price, category in listed
        ]


def test_the_counts_say_what_was_read_and_what_is_not_known(tmp_path):
    ratings = [*RATINGS, *RATINGS[:3], (*RATINGS[0][:3], 1)]  # four more, of which three repeat another
    items = [("Q1", 1.0, ("Q",)), *ITEMS[:2], *ITEMS[3:]]
    counts = load_amazon(*write(tmp_path / "amazon", ratings, meta_2014(items))).counts
    assert counts == {
        "reviews_read": 84,
        "users": 4,
        "items": 5,
        "lines_of_meta_Electronics.json": 5,
        "asins_not_in_meta_Electronics.json": 1,
        "reviews_of_asins_not_in_meta_Electronics.json": 16,
        "prices_unreadable": 0,
        "items_without_price": 2,
        "items_without_category": 2,
        "train": 62,
        "valid": 6,
        "test": 16,
        "users_in_train": 4,
        "items_in_train": 5,
        "rows_that_repeat_another": 3,
        "rows_that_contradict_another": 0,
        "test_rows_with_pair_and_label_in_train": 16,  # each user reviews each item four times, with one label
    }


def test_reviews_that_repeat_another_lie_in_its_split_and_are_refused_with_strict_data(tmp_path, capsys):
    twice = [*RATINGS, *RATINGS[:30], (*RATINGS[0][:2], 1, RATINGS[0][3])]  # of which the last has another label
    for files in (write(tmp_path / "amazon", twice), write_csv(tmp_path / "amazon.csv", released_csv(twice))):
        data = load_amazon(*files)
        assert (data.counts["rows_that_repeat_another"], data.counts["rows_that_contradict_another"]) == (31, 1)
        said = f"{files[0].name}: 31 of 111 rows repeat another of the same user, item and time (rows 1 and 81: "
        assert capsys.readouterr().out.splitlines() == [
            f"{said}reviewerID U0, asin B0, time 1000); they stay in, twins in one split.",
            f"{files[0].name}: 1 of the repeated rows contradict the first of them by another label (rows 1 and 111: "
            "reviewerID U0, asin B0, time 1000).",
        ]
        split_of = {int(row): name for name in SPLITS for row in getattr(data, name).rows}
        assert all(split_of[row] == split_of[80 + row] for row in range(30))
        assert split_of[110] == split_of[0]
        message = tables.refusal(load_amazon, *files, strict_data=True)
        assert message.startswith(f"{files[0].name}: expected each user, item and time once, got 31 of 111 rows")


def test_review_times_of_two_units_are_refused(tmp_path):
    ratings = [
        (*rating[:3], (1_400_000_000 + row) * (1000 if row % 8 == 0 else 1)) for row, rating in enumerate(RATINGS)
    ]
    files = write(tmp_path / "amazon", ratings)
    tables.refusal(load_amazon, *files, fragments=("got 70 in seconds", "and 10 in milliseconds"), protocol="temporal")


def test_the_dataset_is_named_after_its_category_and_the_whole_of_electronics_of_2014_is_amazon(tmp_path, monkeypatch):
    assert load_amazon(*write_csv(tmp_path / "any.csv")).name == "amazon-electronics-part"
    monkeypatch.setattr(amazon, "PUBLISHED_REVIEWS", len(RATINGS))
    for name, expected in {
        "reviews_Electronics_5.json": "amazon",
        "reviews_Electronics_5.json.gz": "amazon",
        "Electronics_5.json.gz": "amazon-Electronics_5",
        "Electronics.jsonl.gz": "amazon-Electronics",
        "reviews_Books_5.json.gz": "amazon-Books_5",
    }.items():
        assert load_amazon(*write(tmp_path / "amazon", names=(name, META))).name == expected
    assert load_amazon(*write_csv(tmp_path / "any.csv")).name == "amazon"


# --- fields, ids, splits


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_columns_are_those_of_the_released_script_with_a_flag_for_missing_prices(files, protocol):
    data = load_amazon(*files, protocol, embedding_dim=6)
    assert (data.source, data.embedding_dim, data.protocol, data.synthetic) == (str(files[0]), 6, protocol, False)
    assert data.seconds > 0
    user, item = data.user_columns, data.item_columns
    assert [column.name for column in user] == ["reviewerID", "user_mean_rating"]
    assert [type(column) for column in user] == [SparseFeat, DenseFeat]
    assert [column.name for column in item] == ["asin", "categories", "item_mean_rating", "price", "price_missing"]
    assert [type(column) for column in item] == [SparseFeat, SparseFeat, DenseFeat, DenseFeat, DenseFeat]
    assert {column.embedding_dim for column in [user[0], *item[:2]]} == {6}
    assert (data.test.labels.dtype, data.test.groups.dtype) == (torch.float32, np.int32)


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


def test_temporal_splits_by_unix_review_time_and_gives_ids_to_the_values_of_training_rows(temporal):
    assert temporal.train.rows.tolist() == list(range(19, 5, -1))
    assert temporal.valid.rows.tolist() == [5, 4]
    assert temporal.test.rows.tolist() == [3, 2, 1, 0]
    assert temporal.test.labels.tolist() == [1, 0, 1, 0]
    assert temporal.test.groups.tolist() == [1, 2, 1, 0]  # users as they first come in the file: U2, U4, U1
    assert not temporal.labels_leak
    sizes = {column.name: column.vocabulary_size for column in temporal.user_columns[:1] + temporal.item_columns[:2]}
    # Beside padding and out-of-vocabulary: U1 to U3, B1 to B4, Cables and GPS.
    assert sizes == {"reviewerID": 5, "asin": 6, "categories": 4}
    assert (temporal.counts["users_in_train"], temporal.counts["items_in_train"]) == (3, 4)
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


# Means of labels are taken over all rows too, by the same switch.
def test_under_paper_users_without_any_positive_vanish_and_one_positive_in_any_split_is_enough(tmp_path):
    ratings = [(user, item, 1 if user in ("U2", "U3") else stars, t) for user, item, stars, t in RATINGS]
    ratings[2] = ("U2", "B0", 5, 1002)
    files = write(tmp_path / "amazon", ratings)
    for protocol, reviews_of_user in (("paper", [20, 20, 20]), ("strict", [20] * 4)):  # U3 has gone
        groups = np.concatenate([table.groups for table in splits_of(load_amazon(*files, protocol))])
        assert np.bincount(groups).tolist() == reviews_of_user


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
        *(("$12.99", 12.99), ("$1,234,567.89", 1_234_567.89), ("$99,999,999.00", 99_999_999.0), (" $ 7 ", 7.0)),
        *(("$1,000.00 - $2,000.00", 1500.0), ("10-20.5", 15.25), (".99", 0.99), (0, 0.0), (1e-3, 0.001)),
    ],
)
def test_prices_are_read_as_numbers_texts_and_ranges(price, expected):
    assert parse_price(price) == pytest.approx(expected)


@pytest.mark.parametrize(
    "price",
    [
        *(
            "",
            " ",
            "$",
            ",",
            "12,99",
            "1,2345",
            "free",
            "nan",
            "-$5",
            "$5 - ",
            "$5 - $6 - $7",
            "1.2.3",
            "$1e5",
            "€5",
            "$5 each",
        ),
        *('.a-box-inner{background-color:#fff}#buybox .selected{border:1px 2px}"', "<span>$5.00</span>"),
        *(None, True, -0.01, math.nan, math.inf, [5], {"price": 5}),
        # Beyond all reason: beside it, all others would be 0 or nan.
        *("$" + "9" * 400, 10**400, 1e12),
    ],
    ids=lambda price: str(price)[:20],
)
def test_anything_else_is_no_price(price):
    assert math.isnan(parse_price(price))


def test_a_text_of_many_digits_is_judged_at_once():
    # BUG: the pattern looks at every pair of places in it, 9 s for these, minutes for a hundred thousand.
    start = time.monotonic()
    assert math.isnan(parse_price("1" * 20_000 + "x"))
    assert time.monotonic() - start < 1


def test_a_price_that_cannot_be_read_is_counted_and_a_missing_one_is_not(tmp_path):
    odd = [{"price": value} for value in ("<b>", -1, True, None, "")] + [{}]
    lines = [{"asin": f"B{number}", "title": "x", **fields} for number, fields in enumerate(odd, start=1)]
    literals = "".join(repr(line) + "\n" for line in lines).encode()
    ratings = [*RATINGS, ("U0", "B5", 5, 1), ("U0", "B6", 5, 1)]
    for content in (meta_2014([("B0", 0.0, ("GPS",))]) + literals, meta_2018([("B0", 0.0, ())]) + json_lines(lines)):
        raw = read_amazon(*write(tmp_path / "amazon", ratings, content))
        assert raw.counts["prices_unreadable"] == 3
        assert raw.counts["items_without_price"] == 6
        assert raw.items["price"].notna().tolist() == [True] + [False] * 6


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ([["Electronics", "GPS"], ["Car", "Mounts"]], "Mounts"),
        (["Electronics", "GPS"], "GPS"),
        (" Cables, Plugs ", "Cables, Plugs"),
        # Blanks and markup behind a path, or in the place of one, do not hide it.
        ([["Electronics", "GPS"], [], ["<b>", None]], "GPS"),
        (["Electronics", "GPS", "<a href='x'>GPS</a>", "</span></span>", " ", "", 5], "GPS"),
        *(([[]], None), ([""], None), (["<b>"], None), (" ", None), (None, None), ({"Electronics": "GPS"}, None)),
    ],
)
def test_the_finest_category_is_the_last_name_of_the_last_path(categories, expected):
    assert finest_category(categories) == expected


ASINS = [asin for asin, _, _ in ITEMS]
BARE = {
    "2014": "".join(repr({"asin": asin}) + "\n" for asin in ASINS).encode(),
    "2018": json_lines({"asin": asin} for asin in ASINS),
    "not listed": b"{'asin': 'Q'}\n",
    "csv": released_csv(items=[(asin, None, ()) for asin in ASINS], as_lists=False),
}


def test_marks_of_nothing_are_no_category_and_no_price_in_the_released_csv(tmp_path):
    marks = [("nan", "nan"), ("12,99", "NULL"), ("\\N", ""), ("1,299.5", "GPS")]
    items = [*ITEMS[4:], *((asin, price, (category,)) for asin, (price, category) in zip(ASINS, marks, strict=False))]
    raw = read_amazon(*write_csv(tmp_path / "a.csv", released_csv(items=items, as_lists=False)))
    table = raw.items.set_index("asin")
    assert table["categories"][ASINS[:4]].dropna().to_dict() == {ASINS[3]: "GPS"}
    assert table["price"][ASINS[:4]].dropna().to_dict() == {ASINS[3]: 1299.5}
    assert (raw.counts["items_without_category"], raw.counts["prices_unreadable"]) == (3, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", BARE)
def test_with_every_optional_field_missing_all_features_are_finite(tmp_path, protocol, layout):
    content = BARE[layout]
    files = write_csv(tmp_path / "a.csv", content) if layout == "csv" else write(tmp_path / "amazon", meta=content)
    data = load_amazon(*files, protocol=protocol)
    assert_finite(data)
    assert set(values_of(data, "price").tolist()) == {0}
    assert set(values_of(data, "price_missing").tolist()) == {1}
    assert set(values_of(data, "categories").tolist()) == {1}


def test_where_training_items_have_no_price_a_test_items_price_is_finite_too(tmp_path):
    items = [(asin, price if asin == "B5" else None, path) for asin, price, path in ITEMS_BY_TIME]
    data = load_amazon(*write(tmp_path / "amazon", BY_TIME, meta_2014(items)), "temporal")
    assert_finite(data)
    assert numbers(data.test, "price_missing") == [1, 0, 0, 1]


# --- the meta file: Python literals that are read and never run

# The line of B1, but for its price of 5 and its category GPS where they are not written out.
REST = "'price': 5, 'categories': [['E', 'GPS']]}"
ACCEPTED = {
    "either quotes": """{'asin': "B1", "price": 5.0, 'title': "5' c", 'x': '3" d', 'categories': [["E", 'GPS']]}""",
    "escaped quotes": r"""{'asin': 'B1', 'title': 'It\'s 5" or 5\'', 'x': "a \" b", 'y': 'a\\', 'z': '\\\\', """ + REST,
    "escaped letters": r"""{'asin': 'B\x31', 'title': '\u00e9 \n \t', 'price': 5, 'categories': [['\x47PS']]}""",
    "the prefix u": """{u'asin': u'B1', u'price': 5.0, u'title': U"x", u'categories': [[u'E', u'GPS']]}""",
    "letters of the world": """{'asin': 'B1', 'title': 'Åmål 日本 ü', """ + REST,
    "other values": """{'asin': 'B1', 'a': None, 'b': [True, False], 'c': -1, 'd': +2.5E-3, 'e': '', 'f': {}, """
    + REST,
    "spaces and last commas": """  { 'asin'  :\t'B1' , 'price':5,'categories':[ ['E' , 'GPS', ], ], }  \r""",
    "what the real file holds": r"""{'asin': 'B1', 'description': 'A "GPS" for the driver\'s seat', 'salesRank': """
    r"""{'E': 1}, 'title': "5' 7\" \\ 700", 'imUrl': 'http://x.com/I/x.jpg', 'related': {'also_viewed': []}, """ + REST,
    "another key first": """{'related': {'also_bought': ['Q']}, 'asin': 'B1', """ + REST,
    "two texts in a row": """{'asin': 'B1', 'title': 'a' 'b' "c", 'price': 5, 'categories': ['G' 'PS']}""",
    "code in quotes": """{'asin': 'B1', 't': "__import__('os').system('touch PWNED') {'asin': 'Q'} #;(", """ + REST,
    "JSON": """{"asin": "B1", "price": "$5.00", "x": null, "y": true, "category": ["E", "G\\u0050S"], "z": "\\/"}""",
    "JSON after spaces": """ \t{ "asin": "B1", "price": "$5.00", "x": null, "category": ["E", "GPS"]} """,
    "JSON after a byte order mark": """\ufeff{"asin": "B1", "price": 5, "x": null, "category": ["E", "GPS"]}""",
}


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize("line", ACCEPTED.values(), ids=ACCEPTED)
def test_a_line_of_literals_may_hold(line, tmp_path):
    items = read_amazon(*write(tmp_path / "amazon", meta=with_line(line))).items.set_index("asin")
    assert items.loc["B1"].tolist() == ["GPS", 5.0]


def test_lines_of_items_that_nobody_reviewed_are_not_parsed(tmp_path, monkeypatch):
    parsed, parse = [], amazon_meta.ast.literal_eval
    monkeypatch.setattr(amazon_meta.ast, "literal_eval", lambda text: parsed.append(text) or parse(text))
    others = [(f"Q{number}", 5.0, ("Electronics",)) for number in range(20)]
    read_amazon(*write(tmp_path / "amazon", meta=meta_2014(others[:10] + ITEMS + others[10:])))
    assert len(parsed) == len(ITEMS)


CODE = (
    *("__import__('os').system('touch PWNED')", "open('PWNED', 'w')", 'f\'{open("PWNED", "w")}\'', "rb'PWNED'"),
    *("[open('PWNED', 'w') for _ in [1]]", "(lambda: open('PWNED', 'w'))()", "''.__class__", "'PWNED'.title"),
    *("{**{'a': 1}}", "9**9**9**9", "9_9", "0x9", "5j", "(5,)", "5; import os", "`touch PWNED`", "5 # PWNED"),
    *("b'PWNED'", "nan", "null", "NoneTrue", "''' ' + open('PWNED', 'w') + ' '''"),
)
LINES_OF_CODE = (
    *(f"{{'asin': '{asin}', 'price': {code}}}" for code in CODE for asin in ("B1", "Q9")),  # nobody reviewed Q9
    *("{'asin': open('PWNED', 'w')}", "{open('PWNED', 'w'): 'asin'}", "{'asin': 'B1'}.update(open('PWNED', 'w'))"),
    *("{'asin': 'Q9'}, open('PWNED', 'w')", "dict(asin=open('PWNED', 'w'))", "open('PWNED', 'w')", "import os"),
)


@pytest.mark.usefixtures("empty_folder")
def test_a_line_with_code_is_refused_and_not_run(tmp_path):
    for line in LINES_OF_CODE:
        message = refusal(write(tmp_path / "amazon", meta=with_line(line)), "not run")
        assert message.startswith("meta_Electronics.json, line 4: expected a dict of literals, got code"), line


NO_DICT, NO_ASIN = "expected a dict as JSON or Python literals, got ", "expected a dict with a text as asin, got none"
QUOTES = "expected a dict of literals, got code or broken quotes ({} outside"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # Values that are too deep or no literals, and literals that Python cannot build:
        *((f"{{'asin': 'B1', 'price': {a * 100_000}1{b * 100_000}}}", NO_DICT) for a, b in ("[]", "-+")),
        *((f"{{'asin': 'B1', 'price': {value}}}", NO_DICT) for value in ("9" * 5_000, "e", "e.e", "-'a'", "['a'][0]")),
        *((f"{{'asin': 'B1', 'price': {value}}}", NO_DICT) for value in ("1 + 1", "'a' 5", "", "[1}", "[1", r"'\x'")),
        *((f"{{'asin': 'B1', 'price': {value}}}", NO_DICT) for value in ("'\0'", "{[]: 1}", "{[]}", "{'a', 'b': 1}")),
        ('{"asin": "B1", "price": }', NO_DICT + "Expecting value"),
        ('{"asin": "B1"} {}', NO_DICT + "Extra data"),
        ('{"asin": ' + "[" * 100_000 + "]" * 100_000 + "}", NO_DICT + "max"),
        (b"{'asin': 'B1', 'title': '\xff'}", NO_DICT + "'utf-8' codec"),
        (b"{'asin': '\xff'}", NO_DICT + "'utf-8' codec"),
        *((line, NO_ASIN) for line in ('{"title": "x"}', '{"asin": null}', "{}", "{'title': 'x'}", "{'asin': 5}")),
        *((line, NO_ASIN) for line in ("{'asin'}", "['asin', 'B1']", "'asin'", "5")),
        *((line, NO_ASIN) for line in ('{"asin": ""}', "{'asin': ''}", "{'asin': '', 'price': 5}")),
        ('{"asin": "B1", "price": 5, "price": 6}', NO_DICT + "the key 'price' twice"),
        ("{'asin': 'B1', 'price': 5, 'price': 6}", NO_DICT + "the key 'price' twice"),
        ("{'asin': 'Q9', 'asin': 'B1'}", NO_DICT + "the key 'asin' twice"),  # nobody reviewed the first
        ("{'asin': 'B1', 'title': 'x}", QUOTES.format('"\'"')),
        ("{'asin': 'Q9', 'title': 'x", QUOTES.format('"\'"')),
        ("{'asin': 'B1', 'title': 'It's'}", QUOTES.format("'s'")),
        ("\x00\x01\x02", QUOTES.format("'\\x00'")),
        ("<html>", QUOTES.format("'<'")),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_a_broken_meta_line_is_refused_with_its_number(line, expected, tmp_path):
    message = refusal(write(tmp_path / "amazon", meta=b"\n" + with_line(line)))
    assert message.startswith(f"meta_Electronics.json, line 5: {expected}")
    assert message.lower().endswith("mend or remove the line.")
    assert len(message) < 300


def test_of_an_item_that_is_listed_twice_the_first_line_counts(tmp_path):
    again = [("B0", 99.0, ("Electronics", "Other")), ("B1", 7.0, ("Electronics", "Other"))]
    for write_meta in (meta_2014, meta_2018):
        raw = read_amazon(*write(tmp_path / "amazon", meta=write_meta([*ITEMS, *again])))
        assert raw.items["categories"][:2].tolist() == ["GPS", "Cables, Plugs & 'More'"]
        assert raw.items["price"][0] == 12.5
        assert math.isnan(raw.items["price"][1])
        assert raw.counts["lines_of_meta_Electronics.json"] == 7
    content = released_csv().replace(b"12.5", b"7", 1)
    assert read_amazon(*write_csv(tmp_path / "a.csv", content)).items["price"][0] == 7


def test_items_that_are_not_listed_stay_in_with_their_asin_alone_known(tmp_path, capsys):
    data = load_amazon(*write(tmp_path / "amazon", meta=meta_2014(ITEMS[1:])))
    assert capsys.readouterr().out == (
        "meta_Electronics.json: 1 reviewed asin(s) missing (B0); their reviews stay in, with the asin alone known.\n"
    )
    assert sum(map(len, splits_of(data))) == 80
    of_b0 = np.array([row // 4 % 5 == 0 for row in range(80)])
    for feature, expected in (("asin", 2), ("categories", 1), ("price_missing", 1)):
        assert set(values_of(data, feature)[of_b0].tolist()) == {expected}
    assert_finite(data)


def test_items_that_are_not_listed_are_refused_with_strict_data_in_a_list_that_is_cut(tmp_path, capsys):
    ratings = RATINGS + [("U0", f"Q{number}", 5, 1) for number in range(7)]
    files = write(tmp_path / "amazon", ratings)
    expected = "meta_Electronics.json: expected every reviewed asin, 7 missing (Q0, Q1, Q2, Q3, Q4, ...);"
    assert refusal(files, "--strict-data", strict_data=True).startswith(expected)
    assert capsys.readouterr().out == ""
    load_amazon(*files)
    assert "7 reviewed asin(s) missing (Q0, Q1, Q2, Q3, Q4, ...);" in capsys.readouterr().out
    refusal(write(tmp_path / "amazon", ratings[:85]), "5 missing (Q0, Q1, Q2, Q3, Q4);", strict_data=True)


# --- the cache and the fingerprint


@pytest.mark.parametrize("name", ["reviews_Electronics_5.json", "Electronics_5.json"])
def test_a_cache_does_not_hide_the_name_of_the_reviews_nor_that_they_are_synthetic(files, tmp_path, name):
    # BUG: the cache is found by the contents of the reviews and the meta file alone.
    assert not load_amazon(*files, cache=tmp_path / "cache").synthetic
    np.save(files[0].with_name("probabilities.npy"), np.full(len(RATINGS), 0.5, dtype=np.float32))
    assert load_amazon(*files, cache=tmp_path / "cache").synthetic
    other = write(tmp_path / "other", names=(name, files[1].name))
    cached, fresh = load_amazon(*other, cache=tmp_path / "cache"), load_amazon(*other)
    assert (cached.name, cached.synthetic) == (fresh.name, fresh.synthetic)


def test_each_protocol_has_its_own_cache_and_so_has_strict_data(tmp_path):
    files, cache = write(tmp_path / "amazon", meta=meta_2014(ITEMS[1:])), tmp_path / "cache"
    for protocol in (*PROTOCOLS, *PROTOCOLS):
        cached = load_amazon(*files, protocol, cache=cache)
        assert_same_splits(load_amazon(*files, protocol), cached)
        assert cached.source == str(files[0])
        assert cached.labels_leak == (protocol == "paper")
    assert load_amazon(*files, "strict", 6, cache=cache).user_columns[0].embedding_dim == 6
    refusal(files, "expected every reviewed asin", strict_data=True, cache=cache)


def test_the_fingerprint_is_of_every_byte_the_protocol_and_the_split_seed_alone(files, tmp_path):
    contents = [file.read_bytes() for file in files]
    ours = load_amazon(*files).fingerprint
    assert len(bytes.fromhex(ours)) == 32
    assert load_amazon(*write(tmp_path / "copy", names=("any.json", "other"))).fingerprint == ours
    assert load_amazon(*files, embedding_dim=4, strict_data=True).fingerprint == ours
    settings = [(files, protocol, seed) for protocol in PROTOCOLS for seed in (1, 2)] + [
        (write(tmp_path / "a", contents[0].replace(b": 1000,", b": 1001,"), contents[1]), "strict", 1),
        (write(tmp_path / "b", contents[0], contents[1].replace(b": 5.0,", b": 6.0,")), "strict", 1),
    ]
    assert len({load_amazon(*paths, protocol, split_seed=seed).fingerprint for paths, protocol, seed in settings}) == 8


# --- wrong files


def twice(name: str) -> bytes:
    """A review with one of its keys a second time, with another value."""
    return review(reviewText="x").replace(b"}", json.dumps({name: "B1"}).encode().replace(b"{", b", "))


def review(**changes) -> bytes:
    """A line with fields that are changed, or left out where they are None."""
    line = {"reviewerID": "U0", "asin": "B0", "overall": 5.0, "unixReviewTime": 1} | changes
    return json_lines([{name: value for name, value in line.items() if value is not None}])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"not JSON", "Expecting value"),
        (b"{'reviewerID': 'U0'}", "Expecting property name"),
        (b'{"reviewerID": "\xff"}', "'utf-8' codec"),
        (b"[]", "list indices must be integers"),
        *((review(**{name: None}), f"no {name}") for name in RELEASED_CSV[:4]),
        *((review(**{name: value}), f"{value!r} as an id") for name in RELEASED_CSV[:2] for value in (5, [], "", " ")),
        *((review(**{name: value}), f"{value} as a number") for name in RELEASED_CSV[2:4] for value in (True, False)),
        *((twice(name), f"the key '{name}' twice") for name in (*RELEASED_CSV[:4], "reviewText")),
        (review(asin="null").replace(b'"null"', b"null"), "None as an id"),
        (review(asin="\ud800"), "'utf-8' codec can't encode"),
        (review(unixReviewTime="yesterday"), "invalid literal for int()"),
        (review(unixReviewTime=[]), "int() argument must be"),
        (review(unixReviewTime=math.nan), "cannot convert float NaN to integer"),
        (review(unixReviewTime=math.inf), "cannot convert float infinity"),
        (review(unixReviewTime=10**30), ""),
        (review(overall="five"), "could not convert string to float"),
        (review(overall=[]), "float() argument must be"),
        (review(overall=10**400), "int too large"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
    ],
    ids=lambda value: repr(value[:40]),
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


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("place", [0, 1])
def test_json_that_is_one_list_or_spread_over_lines_is_named_and_no_line_is_blamed(files, tmp_path, place, indent):
    contents = [reviews(), meta_2018()]
    contents[place] = json.dumps([*map(json.loads, contents[place].splitlines())], indent=indent).encode()
    for content in (contents[place], contents[place].removeprefix(b"[\n ")):
        if content.startswith(b"[") or indent:
            contents[place] = content
            message = refusal(write(tmp_path / "a", *contents), "got one JSON text over many lines")
            assert message.startswith(f"{tmp_path / 'a' / files[place].name}: expected JSON lines, each review or item")


def test_a_byte_order_mark_at_the_head_of_reviews_and_items_changes_nothing(files, tmp_path):
    data = load_amazon(*files)
    for meta in (meta_2014(), meta_2018()):
        marked = write(tmp_path / "marked", b"\xef\xbb\xbf" + reviews(), b"\xef\xbb\xbf" + meta)
        assert_same_splits(data, load_amazon(*marked))


@pytest.mark.parametrize("place", [0, 1, "csv"])
def test_amazon_files_of_another_format_are_named(files, tmp_path, place):
    if place == "csv":
        files, place = write_csv(tmp_path / "a.csv"), 0
    content = files[place].read_bytes()
    for changed, said in (
        (b"PAR1" + content, "Parquet; save it as CSV."),
        (content.decode().encode("utf-16"), "text in UTF-16; save it as UTF-8."),
        (b"<html>log in</html>", "a web page; fetch it again."),
    ):
        files[place].write_bytes(changed)
        assert refusal(files) == f"{files[place]}: expected plain text, got {said}"


@pytest.mark.parametrize("stars", [0, 0.99, 5.01, math.nan, math.inf])
def test_a_rating_outside_1_to_5_is_refused_with_its_place(stars, tmp_path):
    ratings = [*RATINGS[:6], ("U0", "B0", stars, 5), *RATINGS[6:], ("U0", "B1", 9, 5)]
    expected = f", review 7: expected a rating from 1 to 5 as overall, got {stars:g}; 2 such review(s)"
    assert refusal(write(tmp_path / "amazon", ratings)).startswith("reviews_Electronics_5.json" + expected)
    assert refusal(write_csv(tmp_path / "a.csv", released_csv(ratings))).startswith("a.csv" + expected)


def test_an_unknown_protocol_and_missing_empty_and_swapped_files_are_named(files, tmp_path):
    nowhere = tmp_path / "nowhere.json"
    refusal((nowhere,), "strict, paper, temporal", "'random'", protocol="random")  # before any file is read
    for missing, pair in ((nowhere, (nowhere, files[1])), (nowhere, (files[0], nowhere)), (tmp_path, (tmp_path,))):
        assert refusal(pair).startswith(f"{missing}: expected a file of Amazon reviews, got no such file")
    refusal(files[:1], str(files[0]), "expected the meta file beside the reviews, got none; name it with --meta")
    refusal(files[::-1], "meta_Electronics.json, line 1: expected a JSON object with reviewerID")
    for content in (b"", b" \n\r\n", gzip.compress(b"")):
        for place, kept in enumerate(file.read_bytes() for file in files):
            files[place].write_bytes(content)
            message = f"{files[place].name}: expected a line for each review or item, got an empty file."
            assert refusal(files) == message
            files[place].write_bytes(kept)


@pytest.mark.parametrize("place", [0, 1, "csv"])
def test_a_truncated_or_damaged_file_is_to_be_fetched_again(tmp_path, place):
    if place == "csv":
        files = write_csv(tmp_path / "a.csv.gz", gzip.compress(released_csv()))
    else:
        files = write(tmp_path / "amazon", names=(REVIEWS, META))
    path = files[0 if place == "csv" else place]
    content = path.read_bytes()
    for damaged in (
        *(content[: int(len(content) * share)] for share in (0.02, 0.3, 0.6, 0.99)),
        content[:-8] + bytes(4) + content[-4:],  # the checksum
        content[:-4] + bytes(4),  # the length
        content[:60] + bytes([255]) * 20 + content[80:],
        content + b"junk",
        content[:2] + b"\x00" + content[3:],  # the method
    ):
        path.write_bytes(damaged)
        message = refusal(files, "fetch it again")
        assert message.startswith(f"{path}: expected a whole gzip file, got a damaged one (")


# --- a wrong CSV


def test_ids_of_a_csv_in_latin_1_stay_apart(tmp_path):
    ratings = [*RATINGS, ("Ué", "B0", 5, 1), ("Uè", "B0", 5, 1)]
    for encoding in ("utf-8", "latin-1"):
        content = released_csv(ratings).decode().encode(encoding)
        users = read_amazon(*write_csv(tmp_path / "a.csv", content)).users["reviewerID"]
        assert users.tolist() == ["U0", "U1", "U2", "U3", "Ué", "Uè"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (released_csv().replace(b"reviewerID,asin", b"user,item", 1), ", line 1: {}, got no reviewerID, asin."),
        (b"", ", line 1: {}, got no " + ", ".join(RELEASED_CSV)),
        (b"x" * 200_000, ", line 1: {}, got no "),
        (released_csv([]), ": expected at least one row below the header, got none."),
        (released_csv([]).replace(b",", b";"), ", line 1: {}, got one with ';' between the names; save the file with"),
        (released_csv([]).replace(b"price", b"asin"), ", line 1: {}, got no price."),
        (released_csv([]).replace(b"price", b"price,asin"), ", line 1: {}, got 'asin' twice."),
        # A last column whose quote is not closed would swallow all the rows behind it, unseen.
        (released_csv() + b'U0,B0,5,1,1,"GPS\n' + b"U1,B0,5,1,1,GPS\n" * 9, ", line 91: expected reviewerID"),
    ],
    ids=lambda value: value[:20],
)
def test_a_csv_without_its_header_its_rows_or_its_end_is_refused(content, expected, tmp_path):
    header = f"expected the header {','.join(RELEASED_CSV)}"
    assert refusal(write_csv(tmp_path / "a.csv", content)).startswith("a.csv" + expected.format(header))


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("U0,B9,5,1,1", "5 columns where the header has 6"),
        (",B9,5,1,1,GPS", "'' as an id"),
        ("U0,,5,1,1,GPS", "'' as an id"),
        ("U0,B9,5,1,1,GPS,more", "7 columns where the header has 6"),
        ("U0,B9,five,1,1,GPS", "could not convert string to float: 'five'"),
        ("U0,B9,5,now,1,GPS", "invalid literal for int()"),
        (f"U0,B9,5,{10**30},1,GPS", ""),
        ("U0,B9,5,1,1,[GPS", "'[' was never closed"),
        ("U0,B9,5,1,1,[__import__('os').system('touch PWNED')]", "malformed node or string"),
        ("U0,B9,5,1,1," + "[" * 5000, "too many nested parentheses"),
        ('U0,B9,5,1,1,"[{[]: 1}]"', "unhashable"),
        ("U0,B9,5,1,1," + "x" * 200_000, "field larger than field limit"),
    ],
    ids=lambda text: text[:30],
)
def test_a_wrong_row_of_a_csv_is_refused_with_its_file_and_line(line, expected, tmp_path):
    lines = released_csv().decode().splitlines(keepends=True)
    content = "".join([*lines[:9], line + "\n", *lines[9:]]).encode()
    message = refusal(write_csv(tmp_path / "a.csv", content), "mend or remove the line")
    assert message.startswith(f"a.csv, line 10: expected {', '.join(RELEASED_CSV)}, got {expected}")


# --- where the files are looked for; what is fetched or invented: test_download.py


def test_the_meta_file_is_found_beside_the_reviews_by_its_name_packed_before_plain(tmp_path):
    for category, name in (
        ("Electronics", "reviews_Electronics_5.json"),
        ("Books", "Books_5.json.gz"),
        ("Home_and_Kitchen", "reviews_Home_and_Kitchen.json.gz"),
    ):
        for ending in (".json", ".json.gz"):
            files = write(tmp_path / "amazon", names=(name, f"meta_{category}{ending}"))
            assert locate_amazon(reviews=str(files[0])) == files
            assert locate_amazon(named=str(files[0])) == files  # --data names a file


def test_a_folder_itself_comes_before_its_amazon_and_2014_before_2018_and_packed_before_plain(tmp_path):
    (tmp_path / "amazon").mkdir()
    for inside in ("amazon", ""):
        (csv_file,) = write_csv(tmp_path / inside / "amazon.csv")
        assert locate_amazon(str(tmp_path)) == (csv_file, None)  # a CSV wants no meta file
        for name in ("Electronics_5.json", "reviews_Electronics_5.json", RELEASES["2018"], REVIEWS):
            files = write(tmp_path / inside, names=(name, META))
            assert locate_amazon(str(tmp_path)) == files


def test_a_meta_file_may_be_named_wherever_it_lies_but_not_alone_nor_with_a_csv(files, tmp_path):
    other = tmp_path / "other name"
    other.touch()
    assert locate_amazon(reviews=str(files[0]), meta=str(other)) == (files[0], other)
    assert locate_amazon(named=str(tmp_path), reviews=str(files[0]), meta=str(other)) == (files[0], other)
    for named in (None, str(files[0].parent)):
        message = tables.refusal(locate_amazon, named=named, meta=str(files[1]))
        assert message == "--meta: expected --reviews with it, got --meta alone; name both."
    (path,) = write_csv(tmp_path / "amazon.csv")
    assert locate_amazon(reviews=str(path)) == (path, None)
    message = tables.refusal(locate_amazon, reviews=str(path), meta=str(path))
    assert message.startswith("--meta: expected none with a CSV")


def test_named_files_that_are_missing_are_errors_and_never_a_fallback(files, tmp_path, monkeypatch):
    write(tmp_path / "data", names=(REVIEWS, META))
    monkeypatch.setattr(sources, "DATA_FOLDER", tmp_path / "data")
    nowhere, alone = str(tmp_path / "nowhere"), tmp_path / "Books_5.json"
    alone.touch()
    (tmp_path / "meta_Toys.json.gz").touch()
    monkeypatch.setenv("INTTOWER_DATA", nowhere)
    for arguments, expected in (
        ({"reviews": nowhere}, f"--reviews {nowhere}: expected a file of reviews, got no such file"),
        ({"reviews": str(tmp_path)}, f"--reviews {tmp_path}: expected a file of reviews, got no such file"),
        ({"reviews": str(files[0]), "meta": nowhere}, f"--meta {nowhere}: expected a meta file, got no such file"),
        ({"reviews": str(files[0]), "meta": str(tmp_path)}, f"--meta {tmp_path}: expected a meta file, got no"),
        ({"named": nowhere}, f"--data {nowhere}: expected Amazon reviews (reviews_Electronics_5.json.gz, "),
        ({}, f"$INTTOWER_DATA {nowhere}: expected Amazon reviews (reviews_Electronics_5.json.gz, "),
        ({"reviews": str(alone)}, f"{tmp_path}: expected the meta file of Books_5.json beside it (meta_Books.json.gz)"),
    ):
        assert tables.refusal(locate_amazon, **arguments).startswith(expected)


# --- the real reviews


@pytest.fixture
def real_files(tmp_path) -> Files:
    """Real reviews and a meta file: a third of the items without a price, the last not listed."""
    path = real_amazon_reviews()
    with gzip.open(path) as file:
        asins = list(dict.fromkeys(json.loads(line)["asin"] for line in file))
    meta = meta_2014((asin, 299.99 if place % 3 else None, ("Electronics", "GPS")) for place, asin in enumerate(asins))
    (tmp_path / META).write_bytes(gzip.compress(b"".join(meta.splitlines(keepends=True)[:-1])))
    return path, tmp_path / META


def test_real_reviews_keep_their_labels_and_their_order_in_time(real_files):
    with gzip.open(real_files[0]) as file:
        lines = [json.loads(line) for line in file]
    data = load_amazon(*real_files, "temporal")
    assert not data.synthetic
    counts = ("reviews_read", "users", "items", f"asins_not_in_{META}", "items_without_price")
    assert [data.counts[name] for name in counts] == [290, 289, 6, 1, 3]
    for table in splits_of(data):
        assert table.labels.tolist() == [float(lines[row]["overall"] >= 4) for row in table.rows]
    assert sorted(np.concatenate([table.rows for table in splits_of(data)]).tolist()) == list(range(290))
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


@pytest.mark.parametrize(
    ("protocol", "model", "release"),
    [("strict", "IntTower", "2014"), ("paper", "DAT", "2018"), ("temporal", "COLD", "2023")],
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
    category = {"2014": "", "2018": "-Electronics_5", "2023": "-Electronics"}[release]
    assert (record["dataset"], record["source"]) == (f"amazon{category}-synthetic", RELEASES[release])
    assert (record["protocol"], record["model"], record["synthetic"]) == (protocol, model, True)
    assert record["labels_leak"] == (protocol == "paper")
    assert record["counts"]["reviews_read"] == 2000
    assert 0 < record["test"]["auc"] < 1
    statistics = {"user_mean_rating", "item_mean_rating"}
    if protocol != "paper":
        statistics |= {"user_residual", "user_count", "item_residual", "item_count"}
    assert record["dense_feature_test_auc"].keys() == statistics | {"price", "price_missing"}


def test_wrong_input_from_the_shell_is_one_line_and_leaves_no_run(samples, tmp_path):
    refused = tmp_path / "run"
    hostile = write(tmp_path / "hostile", meta=with_line(f"{{'asin': open('{tmp_path / 'PWNED'}', 'w')}}"))
    result = run(SCRIPT, "--reviews", hostile[0], "--no-cache", "--output", refused)
    assert_refused(result, "error: meta_Electronics.json, line 4: expected a dict of literals", "not run")
    assert not (tmp_path / "PWNED").exists()

    cut = shutil.copytree(samples["2014"], tmp_path / "cut")
    (cut / REVIEWS).write_bytes((cut / REVIEWS).read_bytes()[:100_000])
    result = run(SCRIPT, "--data", cut, "--no-cache", "--output", refused)
    assert_refused(result, f"error: {cut / REVIEWS}: expected a whole gzip file", "fetch it again")
    assert not refused.exists()
