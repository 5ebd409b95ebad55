"""Rank movies for a user with a trained two-tower model.

    python rank_movielens.py --run runs/movielens-IntTower-strict-seed1023 --user 42 --top 10
    python rank_movielens.py --run runs/movielens-IntTower-strict-seed1023 --cold --gender F --age 25

The index of the run's movies is made on the first call and kept in its folder; one that is there is never replaced.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from experiment.flags import levels
from experiment.folder import check_run_folder
from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.errors import UserError
from preprocessing.sources import movielens_files
from serving.choices import replace_what_cannot_be_shown


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="the folder of a training run on MovieLens")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", type=int, help="a user_id")
    who.add_argument("--cold", action="store_true", help="a user who is not in the data")
    parser.add_argument("--gender", choices=("F", "M"), help="of a cold user")
    parser.add_argument("--age", type=int, help="of a cold user, in years")
    parser.add_argument("--occupation", type=int, help="of a cold user: 0 to 20, as in MovieLens")
    parser.add_argument("--top", type=positive, default=10, help="how many movies to print (default 10)")
    parser.add_argument("--candidates", help="a file of movie ids, one a line, to choose from; else all movies")
    parser.add_argument("--levels", default="all", type=levels, help="IntTower: levels to serve: all, last, or 0,2")
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    arguments = parser.parse_args(words)
    told = [name for name in ("gender", "age", "occupation") if getattr(arguments, name) is not None]
    if told and not arguments.cold:
        parser.error(f"--{told[0]}: expected with --cold alone: a known user's is in the data")
    check_run_folder(arguments.run)
    movielens_files(arguments.data)
    if arguments.candidates and not Path(arguments.candidates).is_file():
        raise UserError(f"--candidates {arguments.candidates}: expected a file of movie ids, got none; check the path.")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import pandas as pd

from experiment.report import SYNTHETIC_BANNER
from preprocessing.encode import SparseField
from preprocessing.gzip_lines import text_of
from preprocessing.movielens import RawMovieLens, locate_movielens, read_movielens
from serving.build_index import build_index, is_of
from serving.index_files import MANIFEST, read_manifest
from serving.item_index import ItemIndex
from serving.trained_run import TrainedRun, load_run

AGES = (1, 18, 25, 35, 45, 50, 56)  # MovieLens writes an age as the least of its group
NOBODY = -1  # no user has this id


def main(arguments: argparse.Namespace) -> None:
    """Find the user and the candidates, score, print."""
    replace_what_cannot_be_shown()
    run = load_run(arguments.run, arguments.levels)
    if run.item_id != "movie_id":
        raise UserError(f"{arguments.run}: expected a run on MovieLens, got one whose items have {run.item_id!r}.")
    raw = read_movielens(locate_movielens(arguments.data))
    if raw.probabilities is not None:
        print(SYNTHETIC_BANNER)
    index = open_or_build(run, raw)
    user = cold_user(arguments) if arguments.cold else known_user(raw, arguments.user)
    for line in remarks(run, user, arguments.cold):
        print(line)
    candidates = None
    if arguments.candidates is not None:
        candidates = read_candidates(Path(arguments.candidates), index)
    best = index.top_k(run.encode_users(user)[0], arguments.top, candidates)
    print_ranking(best, raw.movies)


def open_or_build(run: TrainedRun, raw: RawMovieLens) -> ItemIndex:
    """The index in the run's folder, made where there is none.

    One of other weights or levels stays, since a server may read it: the movies are encoded for this ranking alone. So
    are those of other data than the run's.
    """
    folder = run.folder / "index"
    if not is_of(run, raw):
        why = f"{run.folder} was trained on other data than these, so ids may mean others (--data names the data)"
    elif not (folder / MANIFEST).exists():
        print(f"encoding {len(raw.movies):,} movies into {folder}")
        return build_index(run, raw.movies, folder)
    elif read_manifest(folder).form.checkpoint == run.checkpoint:
        return ItemIndex(folder, run.checkpoint)
    else:
        why = f"{folder} is of other weights or levels and stays"
    print(f"{why}; {len(raw.movies):,} movies are encoded for this ranking.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        return build_index(run, raw.movies, Path(temporary))  # what it has open stays readable


def known_user(raw: RawMovieLens, user_id: int) -> pd.DataFrame:
    """The user's row of the raw table; of a user who is not in it, a row of which the id alone is known."""
    user = raw.users[raw.users["user_id"] == user_id]
    if len(user):
        return user
    return pd.DataFrame({name: [None] for name in raw.users.columns}, dtype=object).assign(user_id=user_id)


def cold_user(arguments: argparse.Namespace) -> pd.DataFrame:
    """A user who is in no table, with what the flags tell of them."""
    group = None if arguments.age is None else max(age for age in AGES if age <= max(arguments.age, AGES[0]))
    row = {"user_id": NOBODY, "gender": arguments.gender, "age": group, "occupation": arguments.occupation}
    return pd.DataFrame({name: [value] for name, value in row.items()}, dtype=object)


def remarks(run: TrainedRun, user: pd.DataFrame, is_cold: bool) -> list[str]:
    """What a reader should know of how the user was encoded."""
    [unknown] = run.user_encoder.unknown_values(user)
    named = [field.name for field in run.user_encoder.fields if isinstance(field, SparseField)]
    known = [f"{name} {user[name].iloc[0]}" for name in named if name not in unknown and name != run.user_id]
    who = "a user not in the data" if is_cold else f"user {user['user_id'].iloc[0]}"
    lines = [f"{who}: {', '.join(known) or 'nothing else is known'}"]
    if not is_cold and "user_id" in unknown:
        lines.append(f"user {user['user_id'].iloc[0]} has no rating in the training rows and is served as unknown.")
    others = [f"{name} ({value})" for name, value in unknown.items() if name != "user_id" and not pd.isna(value)]
    if others:
        lines.append(f"served as unknown, since training never saw them: {', '.join(others)}.")
    return lines


def read_candidates(path: Path, index: ItemIndex) -> list[str]:
    """Movie ids, one a line; says which are not in the index. Raises UserError where the file holds none."""
    candidates = [line.strip() for line in text_of(path, path.read_bytes()).splitlines() if line.strip()]
    if not candidates:
        raise UserError(f"{path}: expected movie ids, one a line, got none.")
    missing = [candidate for candidate in dict.fromkeys(candidates) if candidate not in index]
    if missing:
        print(f"{path}: passed over {len(missing)} that are no movies of the index ({', '.join(missing[:5])}).")
    return candidates


def print_ranking(best, movies: pd.DataFrame) -> None:
    """A line per movie: its rank, logit, id and title."""
    title = movies.set_index("movie_id")["title"]
    print(f"\n{'rank':>4}  {'logit':>7}  {'movie':>6}  title")
    for rank, (movie, score) in enumerate(zip(best.ids, best.scores, strict=True), start=1):
        print(f"{rank:4d}  {score:7.3f}  {movie:6d}  {title.get(movie, '(in the index, not in the data)')}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments), "nothing was changed."))
