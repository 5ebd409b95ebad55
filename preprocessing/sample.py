"""Synthetic raw files in the official layouts, for a first run without the real data, for tests and measurements.

    python -m preprocessing.sample alibaba data/alibaba-sample --rows 100000

Users and items have hidden tastes, so there is something to learn, and the probability behind every label is kept,
so the best AUC that any model could reach is known. The odd values of the real files are there too: missing profiles,
prices as text, literals in the place of JSON.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from preprocessing.errors import UserError

# The probability of label 1 behind every row of the raw file, in its order, (N,). Data that hold it are synthetic.
SAMPLE_PROBABILITIES = "probabilities.npy"
BLOCK_ROWS = 1_000_000

GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
AGES = (1, 18, 25, 35, 45, 50, 56)
NUM_OCCUPATIONS = 21

SHARE_OF_RATING_3 = 0.26

# How much each part counts in the log-odds of liking a movie.
BIAS, MOVIE_QUALITY, USER_MOOD, TASTE = 1.0, 1.2, 0.8, 1.3


def write_movielens_sample(
    folder: Path, num_users: int = 600, num_movies: int = 300, num_ratings: int = 80_000, seed: int = 1023
) -> Path:
    """Write ratings.dat, users.dat, movies.dat and the labels' probabilities into a new folder, all or nothing.

    A user's taste for the genres comes partly from gender, age and occupation and partly from the user alone.
    The same arguments give the same bytes. An existing folder is left as it is.

    Returns:
        the folder.
    """
    folder = Path(folder)
    if folder.exists():
        return folder
    rng = np.random.default_rng(seed)
    genders = rng.choice(["F", "M"], num_users, p=[0.28, 0.72])
    ages = rng.choice(AGES, num_users)
    occupations = rng.integers(0, NUM_OCCUPATIONS, num_users)
    num_genres = len(GENRES)
    taste = rng.normal(size=(num_users, num_genres))
    taste += rng.normal(size=(2, num_genres))[(genders == "M").astype(int)]
    taste += rng.normal(size=(len(AGES), num_genres))[np.searchsorted(AGES, ages)]
    taste += 0.5 * rng.normal(size=(NUM_OCCUPATIONS, num_genres))[occupations]
    has_genre = np.zeros((num_movies, num_genres), dtype=bool)
    for movie in range(num_movies):
        has_genre[movie, rng.choice(num_genres, rng.integers(1, 4), replace=False)] = True
    quality, mood = rng.normal(size=num_movies), rng.normal(size=num_users)

    users, movies = _who_rates_what(rng, num_users, num_movies, num_ratings)
    genre_share = has_genre / has_genre.sum(1, keepdims=True)
    taste_score = np.einsum("rg,rg->r", taste[users], genre_share[movies])
    logit = BIAS + MOVIE_QUALITY * quality[movies] + USER_MOOD * mood[users] + TASTE * taste_score
    probability = 1 / (1 + np.exp(-logit))
    liked = rng.random(len(users)) < probability
    stars = np.where(liked, rng.integers(4, 6, len(users)), rng.integers(1, 3, len(users)))
    stars[rng.random(len(users)) < SHARE_OF_RATING_3] = 3
    joined = rng.integers(956_703_932, 1_040_000_000, num_users)
    times = joined[users] + rng.integers(0, 5_000_000, len(users))

    title_width = len(str(num_movies))
    files = {
        "users.dat": [
            f"{user + 1}::{genders[user]}::{ages[user]}::{occupations[user]}::{10000 + user % 90000}"
            for user in range(num_users)
        ],
        "movies.dat": [
            f"{movie + 1}::Invented Movie {movie + 1:0{title_width}} ({1930 + movie % 71})::"
            + "|".join(GENRES[genre] for genre in np.flatnonzero(has_genre[movie]))
            for movie in range(num_movies)
        ],
        "ratings.dat": [f"{u + 1}::{m + 1}::{s}::{t}" for u, m, s, t in zip(users, movies, stars, times, strict=True)],
    }

    def write(place: Path) -> None:
        for name, lines in files.items():
            (place / name).write_text("\n".join(lines) + "\n", encoding="latin-1")
        np.save(place / SAMPLE_PROBABILITIES, probability.astype(np.float32))

    return _write_folder(folder, write)


def _who_rates_what(rng, num_users: int, num_movies: int, num_ratings: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct movies for each user: some users rate much, some movies are popular."""
    activity = rng.lognormal(sigma=0.8, size=num_users)
    counts = np.clip(np.round(num_ratings * activity / activity.sum()).astype(int), 5, num_movies)
    log_popularity = rng.normal(size=num_movies)
    # The largest of popularity plus Gumbel noise: a draw without replacement, in proportion to popularity.
    ranking = np.argsort(-(log_popularity + rng.gumbel(size=(num_users, num_movies))), axis=1)
    users = np.repeat(np.arange(num_users), counts)
    movies = np.concatenate([ranking[user, :count] for user, count in enumerate(counts)])
    return users, movies


# --- Alibaba display ads

# The full data: rows of raw_sample.csv, lines of user_profile.csv and of ad_feature.csv, and distinct values.
ALIBABA_ROWS, ALIBABA_USERS, ALIBABA_ADS = 26_557_961, 1_061_768, 846_811
ALIBABA_PER_AD = {"cate_id": 6_769 / ALIBABA_ADS, "campaign_id": 0.5, "customer": 0.3, "brand": 0.118}
CLICK_RATE = 0.0514
PIDS = ("430539_1007", "430548_1007")
FIRST_SECOND, NUM_SECONDS = 1_494_000_000, 8 * 86_400
# Users who see ads and have no profile; a few ads without features beside them.
WITHOUT_PROFILE, WITHOUT_FEATURES = 0.075, 0.002
TASTE_SIZE = 4


def write_alibaba_sample(
    folder: Path,
    num_rows: int = 100_000,
    num_users: int | None = None,
    num_ads: int | None = None,
    seed: int = 1023,
) -> Path:
    """Write raw_sample.csv, ad_feature.csv, user_profile.csv and the clicks' probabilities into a new folder.

    A click depends on the ad, the user's mood, and the match of hidden tastes that come partly from the profile and
    the ad's category. Without numbers of users and ads, they keep the proportions of the full data. All or nothing; the
    same arguments give the same bytes; an existing folder is left as it is. Returns the folder.
    """
    folder = Path(folder)
    if folder.exists():
        return folder
    num_users = num_users or max(20, round(num_rows * ALIBABA_USERS / ALIBABA_ROWS))
    num_ads = num_ads or max(20, round(num_rows * ALIBABA_ADS / ALIBABA_ROWS))
    rng = np.random.default_rng(seed)
    profile = pd.DataFrame(
        {
            "userid": rng.permutation(round(num_users * (1 + WITHOUT_PROFILE)))[:num_users] + 1,
            "cms_segid": rng.integers(0, 97, num_users),
            "cms_group_id": rng.integers(0, 13, num_users),
            "final_gender_code": rng.integers(1, 3, num_users),
            "age_level": rng.integers(0, 7, num_users),
            "pvalue_level": _with_gaps(rng, rng.integers(1, 4, num_users), 0.54),
            "shopping_level": rng.integers(1, 4, num_users),
            "occupation": (rng.random(num_users) < 0.06).astype(int),
            "new_user_class_level ": _with_gaps(rng, rng.integers(1, 5, num_users), 0.32),
        }
    )
    values = {
        name: rng.integers(1, max(2, round(num_ads * share)) + 1, num_ads) for name, share in ALIBABA_PER_AD.items()
    }
    # Drawn apart from each other: of campaigns, customers and brands only how many there are matters here.
    ads = pd.DataFrame({"adgroup_id": rng.permutation(round(num_ads * (1 + WITHOUT_FEATURES)))[:num_ads] + 1, **values})
    ads["brand"] = _with_gaps(rng, ads["brand"].to_numpy(), 0.3, "NULL")
    prices = np.round(rng.lognormal(5, 1.5, num_ads), 2)
    prices[rng.random(num_ads) < 1e-4] = 99_999_999.0
    ads["price"] = prices

    taste = 0.3 * rng.normal(size=(round(num_users * (1 + WITHOUT_PROFILE)) + 1, TASTE_SIZE)).astype(np.float32)
    taste[profile["userid"]] += rng.normal(size=(13, TASTE_SIZE))[profile["cms_group_id"]]
    taste[profile["userid"]] += rng.normal(size=(7, TASTE_SIZE))[profile["age_level"]]
    style = 0.3 * rng.normal(size=(round(num_ads * (1 + WITHOUT_FEATURES)) + 1, TASTE_SIZE)).astype(np.float32)
    style[ads["adgroup_id"]] += rng.normal(size=(values["cate_id"].max() + 1, TASTE_SIZE))[values["cate_id"]]
    mood, quality = (0.3 * rng.normal(size=len(table)).astype(np.float32) for table in (taste, style))
    quality[ads["adgroup_id"]] += 0.8 * rng.normal(size=values["cate_id"].max() + 1)[values["cate_id"]]

    # Ads in order, as in the real file; every user and every ad occurs where there are rows enough.
    ad_of_row = np.repeat(np.arange(1, len(style), dtype=np.int32), _how_often(rng, len(style) - 1, num_rows, 1.5))
    user_of_row = np.repeat(np.arange(1, len(taste), dtype=np.int32), _how_often(rng, len(taste) - 1, num_rows, 1.0))
    rng.shuffle(user_of_row)
    logit = np.empty(num_rows, dtype=np.float32)
    for rows in _blocks(num_rows):
        user, ad = user_of_row[rows], ad_of_row[rows]
        logit[rows] = 0.5 * np.einsum("rk,rk->r", taste[user], style[ad]) + mood[user] + quality[ad]
    probability = _with_mean(logit, CLICK_RATE)

    def write(place: Path) -> None:
        profile.to_csv(place / "user_profile.csv", index=False)
        ads.to_csv(place / "ad_feature.csv", index=False)
        with open(place / "raw_sample.csv", "w") as file:
            for rows in _blocks(num_rows, "raw_sample.csv"):
                clicked = (rng.random(rows.stop - rows.start) < probability[rows]).astype(np.int8)
                block = pd.DataFrame(
                    {
                        "user": user_of_row[rows],
                        "time_stamp": FIRST_SECOND + rng.integers(0, NUM_SECONDS, len(clicked)),
                        "adgroup_id": ad_of_row[rows],
                        "pid": np.array(PIDS)[rng.integers(0, 2, len(clicked))],
                        "nonclk": 1 - clicked,
                        "clk": clicked,
                    }
                )
                block.to_csv(file, index=False, header=rows.start == 0)
        np.save(place / SAMPLE_PROBABILITIES, probability)

    return _write_folder(folder, write)


# --- Amazon reviews

AMAZON_REVIEWS, AMAZON_USERS, AMAZON_ITEMS = 1_689_188, 192_403, 63_001
AMAZON_LISTED = 498_196 / AMAZON_ITEMS  # lines of the meta file for each item with reviews
LIKED_RATE = 0.8
MARKUP = (
    ".a-box-inner{background-color:#fff}#alohaBuyBoxWidget .selected{background-color:#fffbf3;border-color:#e77600}"
)


def write_amazon_sample(
    folder: Path,
    num_rows: int = 60_000,
    num_users: int | None = None,
    num_items: int | None = None,
    seed: int = 1023,
    release: str = "2014",
) -> Path:
    """Write the reviews, the meta file and the labels' probabilities of Amazon Electronics into a new folder.

    Reviews are as long as the real ones, in invented words. The meta file lists items that nobody reviewed too, and
    lacks some prices and a few items. Without numbers of users and items, they keep the proportions of the full data.
    All or nothing; the same arguments give the same bytes; an existing folder is left as it is. Returns the folder.

    Args:
        release: "2014" (the meta file holds Python literals, prices are numbers) or "2018" (JSON, prices are text).
    """
    folder = Path(folder)
    if folder.exists():
        return folder
    if release not in ("2014", "2018"):
        raise UserError(f"release: expected 2014 or 2018, got {release!r}.")
    num_users = num_users or max(20, round(num_rows * AMAZON_USERS / AMAZON_REVIEWS))
    num_items = num_items or max(20, round(num_rows * AMAZON_ITEMS / AMAZON_REVIEWS))
    rng = np.random.default_rng(seed)
    num_listed = round(num_items * AMAZON_LISTED)
    asins = ["B" + _base36(number, 9) for number in _scattered(num_listed, 36**9)]
    reviewers = ["A" + _base36(number, 13) for number in _scattered(num_users, 36**13)]
    # Departments, and in them the finest categories.
    category = rng.integers(0, max(4, min(900, num_items // 20)), num_listed)
    price = np.round(rng.lognormal(3.2, 1.2, num_listed), 2)

    taste = 0.5 * rng.normal(size=(num_users, TASTE_SIZE))
    style = (
        0.7 * rng.normal(size=(num_items, TASTE_SIZE))
        + rng.normal(size=(category.max() + 1, TASTE_SIZE))[category[:num_items]]
    )
    mood, quality = 1.2 * rng.normal(size=num_users), 1.2 * rng.normal(size=num_items)
    item = np.repeat(np.arange(num_items), _how_often(rng, num_items, num_rows, 1.3, least=5))
    user = np.repeat(np.arange(num_users), _how_often(rng, num_users, num_rows, 1.0, least=5))
    rng.shuffle(user)
    logit = 0.5 * np.einsum("rk,rk->r", taste[user], style[item]) + mood[user] + quality[item]
    probability = _with_mean(logit.astype(np.float32), LIKED_RATE)
    liked = rng.random(num_rows) < probability
    stars = np.where(
        liked, rng.choice([4, 5], num_rows, p=[0.26, 0.74]), rng.choice([1, 2, 3], num_rows, p=[0.34, 0.24, 0.42])
    )
    seconds = rng.integers(10_600, 16_270, num_rows) * 86_400
    lengths = np.clip(rng.lognormal(5.8, 1.1, num_rows), 1, 30_000).astype(int)
    text = _invented_text(rng)
    starts = rng.integers(0, len(text) - 30_000, num_rows)

    def review(row: int) -> str:
        day = pd.Timestamp(int(seconds[row]), unit="s")
        words = text[starts[row] : starts[row] + lengths[row]]
        shared = {
            "reviewerID": reviewers[user[row]],
            "asin": asins[item[row]],
            "reviewerName": f"Reviewer {user[row]}",
            "reviewText": words,
            "overall": float(stars[row]),
            "summary": words[:40],
            "unixReviewTime": int(seconds[row]),
            "reviewTime": f"{day.month:02} {day.day}, {day.year}",
        }
        only = (
            {"helpful": [int(row % 3), 3]} if release == "2014" else {"verified": bool(row % 2), "vote": str(row % 9)}
        )
        return json.dumps(shared | only)

    def meta_2014(index: int) -> str:
        others = [asins[(index * 7 + step * step) % num_listed] for step in range(index % 90)]
        line = {
            "asin": asins[index],
            "title": f'Invented "Item" {index}\'s',
            "imUrl": f"http://example.org/{index}.jpg",
        }
        if index % 4:
            line["price"] = float(price[index])
        if others:
            line["related"] = {"also_bought": others[: len(others) // 2], "also_viewed": others[len(others) // 2 :]}
        finest = f"Category {category[index]}"
        line["categories"] = [["Electronics", f"Department {category[index] % 20}", finest]] if index % 97 else [[]]
        line["description"] = text[index * 11 % 100_000 :][: index % 1200]
        return repr(line)

    def meta_2018(index: int) -> str:
        odd = {1: f"${1000 + price[index]:,.2f}", 2: f"${price[index]:.2f} - ${2 * price[index]:.2f}", 3: MARKUP, 4: ""}
        finest = f"Category {category[index]}"
        line = {
            "asin": asins[index],
            "category": ["Electronics", f"Department {category[index] % 20}", finest] if index % 97 else [],
            "title": f'Invented "Item" {index}\'s',
            "price": odd.get(index % 12, f"${price[index]:.2f}"),
            "description": [text[index * 11 % 100_000 :][: index % 1200]],
            "also_buy": [asins[(index * 7 + step * step) % num_listed] for step in range(index % 60)],
        }
        if index % 12 == 0:
            del line["price"]
        return json.dumps(line)

    reviews_name, meta, meta_name = {
        "2014": ("reviews_Electronics_5.json.gz", meta_2014, "meta_Electronics.json.gz"),
        "2018": ("Electronics_5.json.gz", meta_2018, "meta_Electronics.json.gz"),
    }[release]
    listed = [index for index in rng.permutation(num_listed).tolist() if index % 499]  # a few items are not listed

    def write(place: Path) -> None:
        _write_lines(place / reviews_name, (review(row) for row in range(num_rows)), num_rows)
        _write_lines(place / meta_name, map(meta, listed), len(listed))
        np.save(place / SAMPLE_PROBABILITIES, probability)

    return _write_folder(folder, write)


def _invented_text(rng, num_words: int = 300_000) -> str:
    """Words of an invented language, some of them common, as reviews would hold them."""
    syllables = [
        "ba",
        "con",
        "de",
        "el",
        "fi",
        "gra",
        "ho",
        "in",
        "ka",
        "lo",
        "mi",
        "ne",
        "or",
        "pe",
        "re",
        "sto",
        "ta",
        "u",
    ]
    vocabulary = np.array(["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(8000)])
    rank = np.minimum(rng.zipf(1.3, num_words), len(vocabulary)) - 1
    return " ".join(vocabulary[rank].tolist())


def _scattered(count: int, below: int) -> Iterator[int]:
    """Distinct numbers in no visible order."""
    step = 1_000_000_007  # prime, and no divisor of a power of 36
    return ((index + 1) * step % below for index in range(count))


def _base36(number: int, width: int) -> str:
    digits = np.base_repr(number, 36)
    return digits.rjust(width, "0")[-width:]


def _write_lines(path: Path, lines: Iterator[str], count: int) -> None:
    with gzip.GzipFile(path, "wb", compresslevel=5, mtime=0) as packed, io.TextIOWrapper(packed, "utf-8") as file:
        for line in tqdm(lines, desc=path.name, total=count, unit="line", unit_scale=True, leave=False, disable=None):
            file.write(line + "\n")


# --- what they share


def load_probabilities(folder: Path, num_rows: int) -> np.ndarray | None:
    """The probability behind every row of a synthetic sample; None where the data are not synthetic.

    Raises UserError where there is not one for each row.
    """
    found = probabilities_in(folder)
    return parse_probabilities(found[0].read_bytes(), num_rows) if found else None


def probabilities_in(folder: Path) -> list[Path]:
    """The file of probabilities, by which data are known to be synthetic, if the folder has one."""
    path = folder / SAMPLE_PROBABILITIES
    return [path] if path.is_file() else []


def parse_probabilities(content: bytes, num_rows: int) -> np.ndarray:
    """As `load_probabilities`, from the bytes of the file."""
    try:
        probabilities = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        probabilities = np.zeros(0)
    if probabilities.shape != (num_rows,):
        raise UserError(
            f"{SAMPLE_PROBABILITIES}: expected a number for each of {num_rows} rows, got {probabilities.size}; "
            "the sample was altered: make it anew, or, if the other files are real ones, remove this one."
        )
    return probabilities


def _how_often(rng, size: int, total: int, sigma: float, least: int = 1) -> np.ndarray:
    """How many rows each of `size` things has, (size,), of `total`: at least `least` if they suffice, some many."""
    least = min(least, total // size)
    share = rng.lognormal(sigma=sigma, size=size)
    return least + rng.multinomial(total - least * size, share / share.sum())


def _with_gaps(rng, values: np.ndarray, share: float, mark: str = "") -> np.ndarray:
    texts = values.astype(str).astype(object)
    texts[rng.random(len(values)) < share] = mark
    return texts


def _with_mean(logit: np.ndarray, mean: float) -> np.ndarray:
    """Probabilities (N,) float32 of logits, shifted so that their mean is about the one given."""
    low, high, some = -20.0, 20.0, logit[:: max(1, len(logit) // 100_000)].astype(np.float64)
    for _ in range(40):
        shift = (low + high) / 2
        low, high = (low, shift) if np.mean(1 / (1 + np.exp(-some - shift))) > mean else (shift, high)
    return 1 / (1 + np.exp(-(logit + np.float32(shift))))


def _blocks(num_rows: int, shown: str | None = None) -> Iterator[slice]:
    starts = range(0, num_rows, BLOCK_ROWS)
    for start in tqdm(starts, desc=shown, unit="block", leave=False, disable=None if shown else True):
        yield slice(start, min(start + BLOCK_ROWS, num_rows))


def _write_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """A folder that appears only when `write` has put everything into it."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        temporary.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another process was first
            return folder
        raise UserError(
            f"{folder}: the synthetic sample could not be written ({error.strerror}); free some space."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def main() -> int:
    """Write a sample from the shell; exit code 2 for a mistake."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("dataset", choices=("movielens", "amazon", "alibaba"))
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--rows", type=int, help="ratings, reviews or shown ads")
    parser.add_argument("--users", type=int, help="default: in proportion to the rows")
    parser.add_argument("--items", type=int, help="default: in proportion to the rows")
    parser.add_argument("--full", action="store_true", help="as many rows, users and items as the real data")
    parser.add_argument("--release", choices=("2014", "2018"), help="of the Amazon reviews (default 2014)")
    parser.add_argument("--seed", type=int, default=1023)
    arguments = parser.parse_args()
    try:
        if arguments.folder.exists():
            raise UserError(f"{arguments.folder}: expected no such file or folder, got one; name another.")
        _write_from_shell(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"synthetic {arguments.dataset} data: {arguments.folder}/")
    return 0


# Of each dataset what writes it, and for each flag its argument and the number of the real data.
WRITERS = {
    "movielens": (
        write_movielens_sample,
        {"rows": ("num_ratings", 1_000_209), "users": ("num_users", 6_040), "items": ("num_movies", 3_883)},
    ),
    "amazon": (
        write_amazon_sample,
        {
            "rows": ("num_rows", AMAZON_REVIEWS),
            "users": ("num_users", AMAZON_USERS),
            "items": ("num_items", AMAZON_ITEMS),
        },
    ),
    "alibaba": (
        write_alibaba_sample,
        {
            "rows": ("num_rows", ALIBABA_ROWS),
            "users": ("num_users", ALIBABA_USERS),
            "items": ("num_ads", ALIBABA_ADS),
        },
    ),
}


def _write_from_shell(arguments: argparse.Namespace) -> None:
    write, numbers = WRITERS[arguments.dataset]
    options = {}
    for flag, (name, of_real_data) in numbers.items():
        number = getattr(arguments, flag)
        if number is not None and number < 20:
            raise UserError(f"--{flag}: expected at least 20, got {number}.")
        if number is not None or arguments.full:
            options[name] = of_real_data if number is None else number
    if arguments.seed < 0:
        raise UserError(f"--seed: expected a number of at least 0, got {arguments.seed}.")
    if arguments.release is not None:
        if arguments.dataset != "amazon":
            raise UserError(f"--release: expected with amazon alone, got {arguments.dataset}; leave it out.")
        options["release"] = arguments.release
    write(arguments.folder, seed=arguments.seed, **options)


if __name__ == "__main__":
    sys.exit(main())
