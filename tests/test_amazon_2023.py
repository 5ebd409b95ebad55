"""Amazon reviews of the 2023 release: its keys, its times, and what is said where releases are mixed."""

import gzip
import math

import pytest
import tables
from tables import assert_same_splits
from test_amazon import ITEMS, RATINGS, Files, assert_finite, json_lines, meta_2014, meta_2018, refusal, reviews, write

from preprocessing.amazon import RELEASED_CSV, load_amazon, locate_amazon, read_amazon
from preprocessing.inputs import DenseFeat, SparseFeat

NAMES = ("Gift_Cards.jsonl", "meta_Gift_Cards.jsonl")
OF_2014 = "the 2014 or 2018 release (reviewerID, asin, overall, unixReviewTime)"
OF_2023 = "the 2023 release (user_id, parent_asin, rating, timestamp)"


def review(**changes) -> dict:
    line = {"rating": 5.0, "title": "t", "text": 'It\'s {"so"}\n so', "asin": "B0", "parent_asin": "B0"}
    return line | {"user_id": "U0", "timestamp": 1_588_687_728_923, "verified_purchase": True} | changes


def reviews_2023(ratings=RATINGS, unit: int = 1000) -> bytes:
    return json_lines(
        review(user_id=user, parent_asin=item, rating=float(rating), timestamp=time * unit)
        for user, item, rating, time in ratings
    )


def meta_2023(items=ITEMS) -> bytes:
    return json_lines(
        {"main_category": None, "title": "t", "price": price, "store": "s", "categories": path, "parent_asin": item}
        for item, price, path in items
    )


def write_2023(folder, ratings=RATINGS, items=ITEMS, names: tuple[str, str] = NAMES) -> Files:
    return write(folder, reviews_2023(ratings), meta_2023(items), names)


# --- reading


def test_the_same_reviews_in_the_2023_layout_give_the_same_labels_groups_and_features_in_columns_of_their_own(tmp_path):
    ours, theirs = load_amazon(*write_2023(tmp_path / "2023")), load_amazon(*write(tmp_path / "2014"))
    renamed = {"user_id": "reviewerID", "parent_asin": "asin"}
    for name in tables.SPLITS:
        table = getattr(ours, name)
        table.features = {renamed.get(feature, feature): values for feature, values in table.features.items()}
    assert_same_splits(theirs, ours)
    assert ours.name == "amazon-Gift_Cards"
    user, item = ours.user_columns, ours.item_columns
    assert [column.name for column in user] == ["user_id", "user_mean_rating"]
    assert [column.name for column in item] == [
        "parent_asin",
        "categories",
        "item_mean_rating",
        "price",
        "price_missing",
    ]
    assert [type(column) for column in item] == [SparseFeat, SparseFeat, DenseFeat, DenseFeat, DenseFeat]


def test_the_release_is_told_by_the_keys_and_not_by_the_names_of_the_files(tmp_path):
    data = load_amazon(*write_2023(tmp_path / "2023"))
    for names in (
        ("Gift_Cards.jsonl.gz", "meta_Gift_Cards.jsonl.gz"),
        ("reviews_Gift_Cards_5.json", "meta"),
        ("a", "b"),
    ):
        assert_same_splits(data, load_amazon(*write_2023(tmp_path / "again", names=names)))
    assert read_amazon(*write(tmp_path / "2014", names=NAMES)).users.columns.tolist() == ["reviewerID"]


def test_two_asins_of_one_parent_are_one_item(tmp_path):
    lines = [
        review(parent_asin="P", asin="P-red", timestamp=1_588_687_728_923),
        review(parent_asin="P", asin="P-blue", timestamp=1_588_687_728_924, rating=3.0),
    ]
    raw = read_amazon(*write(tmp_path / "2023", json_lines(lines), meta_2023([("P", 5.0, ["Toys"])]), NAMES))
    assert raw.items.to_numpy().tolist() == [["P", "Toys", 5.0]]
    assert raw.item_of_row.tolist() == [0, 0]
    assert raw.labels.tolist() == [1, 0]
    assert raw.times.tolist() == [1_588_687_728_923, 1_588_687_728_924]


def test_gaps_of_the_2023_meta_file_are_missing_values_and_the_main_category_stands_in_for_an_empty_path(tmp_path):
    ratings = [(f"U{number}", f"B{number}", 5, number) for number in range(8)]
    odd = [
        {"price": 12.5, "categories": ["Gift Cards", "Shops"], "main_category": "Gift Cards"},
        {"price": "$12.00", "categories": [], "main_category": "Gift Cards"},
        {"price": "from 12.00", "main_category": "Gift Cards"},
        {"price": None, "categories": [], "main_category": None},
        {"price": "—", "categories": None},
        {"price": 0},
        {},
    ]  # and B7 is not listed
    meta = json_lines({"parent_asin": f"B{number}", **fields} for number, fields in enumerate(odd))
    raw = read_amazon(*write(tmp_path / "2023", reviews_2023(ratings), meta, NAMES))
    assert raw.items["categories"].fillna("").tolist() == ["Shops", "Gift Cards", "Gift Cards", *[""] * 5]
    assert raw.items["price"].fillna(-1).tolist() == [12.5, 12.0, -1, -1, -1, 0, -1, -1]
    assert raw.counts == {
        "reviews_read": 8,
        "users": 8,
        "items": 8,
        "lines_of_meta_Gift_Cards.jsonl": 7,
        "parent_asins_not_in_meta_Gift_Cards.jsonl": 1,
        "prices_unreadable": 2,
        "reviews_of_parent_asins_not_in_meta_Gift_Cards.jsonl": 1,
        "items_without_price": 5,
        "items_without_category": 5,
    }


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
def test_with_nothing_known_of_the_items_of_2023_all_features_are_finite(protocol, tmp_path):
    bare = json_lines({"parent_asin": item} for item, _, _ in ITEMS)
    assert_finite(load_amazon(*write(tmp_path / "2023", reviews_2023(), bare, NAMES), protocol))


def test_items_of_2023_that_are_not_listed_are_named_by_their_parent_asin(tmp_path, capsys):
    files = write_2023(tmp_path / "2023", items=ITEMS[1:])
    load_amazon(*files)
    assert capsys.readouterr().out == (
        "meta_Gift_Cards.jsonl: 1 reviewed parent_asin(s) missing (B0); their reviews stay in, with the parent_asin "
        "alone known.\n"
    )
    refusal(files, "expected every reviewed parent_asin, 1 missing (B0)", strict_data=True)


def test_a_cache_of_2023_reviews_gives_the_same_splits(tmp_path):
    files, cache = write_2023(tmp_path / "2023"), tmp_path / "cache"
    for _ in range(2):
        assert_same_splits(load_amazon(*files), load_amazon(*files, cache=cache))
    (folder,) = (path.name for path in cache.iterdir() if path.name.startswith("amazon"))
    assert folder.startswith("amazon-Gift_Cards-strict-")


# --- times


@pytest.mark.parametrize("protocol", ["strict", "temporal"])
def test_reviews_of_either_release_may_be_timed_in_seconds_or_in_milliseconds(protocol, tmp_path):
    seconds = [(*rating[:3], 1_400_000_000 + rating[3]) for rating in RATINGS]
    milliseconds = [(*rating[:3], 1000 * rating[3]) for rating in seconds]
    for write_release in (write_2023, write):
        files = (write_release(tmp_path / "amazon", ratings) for ratings in (seconds, milliseconds))
        assert_same_splits(*(load_amazon(*pair, protocol) for pair in files))


def test_2023_reviews_of_which_some_are_timed_in_seconds_are_refused(tmp_path):
    ratings = [(*rating[:3], 1_400_000_000 + rating[3]) for rating in RATINGS]
    content = reviews_2023(ratings[:70]) + reviews_2023(ratings[70:], unit=1)
    message = refusal(
        write(tmp_path / "2023", content, meta_2023(), NAMES), "got 10 in seconds", "and 70 in milliseconds"
    )
    assert message.startswith("Gift_Cards.jsonl: expected times of one unit")


# --- releases that are mixed


def test_reviews_of_one_release_with_the_meta_file_of_another_are_refused_with_both_names(tmp_path):
    of_2014 = [meta_2014(), meta_2018(), meta_2014([("Q9", 5.0, ("Toys",))])]  # of the last nobody reviewed the item
    for content, metas, ours, theirs in (
        (reviews_2023(), of_2014, OF_2023, OF_2014),
        (reviews(), [meta_2023(), meta_2023([("Q9", 5.0, ("Toys",))])], OF_2014, OF_2023),
    ):
        for meta in metas:
            assert refusal(write(tmp_path / "mixed", content, meta, NAMES)) == (
                f"meta_Gift_Cards.jsonl, line 1: expected an item of {ours}, as the reviews of Gift_Cards.jsonl are, "
                f"got one of {theirs}; take the reviews and the meta file of one release."
            )


def test_a_file_of_both_releases_is_refused_with_its_line(tmp_path):
    for first, other, ours, theirs in (
        (reviews_2023(), reviews(), OF_2023, OF_2014),
        (reviews(), reviews_2023(), OF_2014, OF_2023),
    ):
        assert refusal(write(tmp_path / "mixed", b"\n" + first + other, meta_2018(), NAMES)) == (
            f"Gift_Cards.jsonl, line 82: expected a review of {ours}, as those before it are, got one of {theirs}; "
            "keep each release in a file of its own."
        )
    for content, metas in ((reviews_2023(), (meta_2023(), meta_2014())), (reviews(), (meta_2014(), meta_2023()))):
        message = refusal(write(tmp_path / "mixed", content, b"".join(metas), NAMES))
        assert message.startswith("meta_Gift_Cards.jsonl, line 6: expected an item of ")


# --- wrong files


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(({name: None}, f"no {name}") for name in ("user_id", "parent_asin", "rating", "timestamp")),
        ({"user_id": 5}, "5 as an id"),
        ({"parent_asin": " "}, "' ' as an id"),
        ({"rating": "five"}, "could not convert string to float"),
        ({"timestamp": True}, "True as a number"),
        ({"timestamp": math.nan}, "cannot convert float NaN to integer"),
    ],
    ids=str,
)
def test_a_broken_review_of_2023_is_refused_with_its_line_also_where_it_is_the_first(changes, expected, tmp_path):
    line = {name: value for name, value in review(**changes).items() if value is not None}
    for place, before in ((1, b""), (81, reviews_2023())):
        content = before + json_lines([line]) + reviews_2023()
        message = refusal(write(tmp_path / "2023", content, meta_2023(), NAMES), "mend or remove the line.")
        wanted = "expected a JSON object with user_id, parent_asin, rating and timestamp"
        assert message.startswith(f"Gift_Cards.jsonl, line {place}: {wanted}, got {expected}")


def test_lines_without_any_key_are_of_no_other_release(tmp_path):
    files = write(tmp_path / "2023", reviews_2023() + b"{}\n", meta_2023(), NAMES)
    refusal(files, "Gift_Cards.jsonl, line 81: expected a JSON object with user_id", "got no user_id; mend or remove")
    files = write(tmp_path / "2023", reviews_2023(), meta_2023() + b'{"title": "t"}\n', NAMES)
    refusal(files, "meta_Gift_Cards.jsonl, line 6: expected a dict with a text as parent_asin, got none; mend")


def test_a_rating_of_2023_outside_1_to_5_is_refused_by_the_name_of_its_key(tmp_path):
    refusal(
        write_2023(tmp_path / "2023", [*RATINGS, ("U0", "B0", 0, 5)]), "expected a rating from 1 to 5 as rating, got 0"
    )


def test_the_meta_file_in_the_place_of_the_reviews_is_no_review(tmp_path):
    files = write_2023(tmp_path / "2023")
    refusal(files[::-1], "meta_Gift_Cards.jsonl, line 1: expected a JSON object with user_id", "got no user_id")


@pytest.mark.parametrize("history", ["", ",history"])
def test_a_csv_of_2023_is_refused_as_it_tells_no_price_and_no_category(history, tmp_path):
    path = tmp_path / "Gift_Cards.train.csv.gz"
    path.write_bytes(
        gzip.compress(f"user_id,parent_asin,rating,timestamp{history}\nU0,B0,5.0,1588687728923\n".encode())
    )
    assert refusal((path,)) == (
        f"{path}: expected the CSV with {', '.join(RELEASED_CSV)}, got one of {OF_2023}, which holds neither price nor "
        "category; name the release's reviews and meta file (.jsonl.gz) with --reviews and --meta."
    )


# --- where the files are looked for


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_electronics_of_2023_is_found_in_a_folder_with_its_own_meta_file_after_the_older_releases(tmp_path, packed):
    names = f"Electronics.jsonl{packed}", f"meta_Electronics.jsonl{packed}"
    files = write_2023(tmp_path / "amazon", names=names)
    assert locate_amazon(str(tmp_path)) == files
    older = write(tmp_path / "amazon", meta=meta_2018(), names=("Electronics_5.json.gz", "meta_Electronics.json.gz"))
    assert locate_amazon(str(tmp_path)) == older
    assert locate_amazon(reviews=str(files[0])) == files


def test_the_meta_file_of_another_category_of_2023_is_found_beside_it_or_asked_for_by_its_name(tmp_path):
    files = write_2023(tmp_path / "2023", names=("Gift_Cards.jsonl.gz", "meta_Gift_Cards.jsonl.gz"))
    assert locate_amazon(reviews=str(files[0])) == files
    files[1].unlink()
    message = tables.refusal(locate_amazon, reviews=str(files[0]))
    assert "the meta file of Gift_Cards.jsonl.gz beside it (meta_Gift_Cards.jsonl.gz), got none" in message
