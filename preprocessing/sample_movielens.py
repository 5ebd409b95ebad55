"""Synthetic raw files in the layout of MovieLens-1M."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocessing.errors import UserError
from preprocessing.synthetic import SAMPLE_PROBABILITIES, write_folder

GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
AGES = (1, 18, 25, 35, 45, 50, 56)
NUM_OCCUPATIONS = 21

SHARE_OF_RATING_3 = 0.26
LEAST_OF_A_USER = 5  # ratings

# How much each part counts in the log-odds of liking a movie.
BIAS, MOVIE_QUALITY, USER_MOOD, TASTE = 1.0, 1.2, 0.8, 1.3


def write_movielens_sample(
    folder: Path,
    num_users: int | None = None,
    num_movies: int | None = None,
    num_ratings: int = 50_000,
    seed: int = 1023,
) -> Path:
    """Write ratings.dat, users.dat, movies.dat and the labels' probabilities into a new folder, all or nothing.

    A user's taste for the genres comes partly from gender, age and occupation and partly from the user alone.
    The same arguments give the same bytes. An existing folder is left as it is.

    Args:
        num_users, num_movies: by default in proportion to the ratings, which are about as many as are asked for.
    Returns:
        the folder.
    Raises UserError where so many ratings are not to be had: a user has at least five, of a movie each.
    """
    folder = Path(folder)
    if folder.exists():
        return folder
    num_users = num_users or max(num_ratings // 100, 4)
    num_movies = num_movies or max(num_ratings // 200, 250)
    least, most = LEAST_OF_A_USER * num_users, num_users * num_movies
    if not least <= num_ratings <= most:
        raise UserError(
            f"--rows: expected {least:,} to {most:,} ratings of {num_users:,} users and {num_movies:,} movies, got "
            f"{num_ratings:,}; change one of them."
        )
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

    return write_folder(folder, write)


def _who_rates_what(rng, num_users: int, num_movies: int, num_ratings: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct movies for each user: some users rate much, some movies are popular."""
    activity = rng.lognormal(sigma=0.8, size=num_users)
    counts = np.clip(np.round(num_ratings * activity / activity.sum()).astype(int), LEAST_OF_A_USER, num_movies)
    log_popularity = rng.normal(size=num_movies)
    # The largest of popularity plus Gumbel noise: a draw without replacement, in proportion to popularity.
    ranking = np.argsort(-(log_popularity + rng.gumbel(size=(num_users, num_movies))), axis=1)
    users = np.repeat(np.arange(num_users), counts)
    movies = np.concatenate([ranking[user, :count] for user, count in enumerate(counts)])
    return users, movies
