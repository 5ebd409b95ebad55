"""How much of what a ranking model would show survives the pre-ranker's cut, on MovieLens-1M.

    python -m serving.quality --teacher runs/DCN --runs runs/IntTower runs/DSSM runs/DAT

For each user all movies are candidates but those that training or validation showed of them. The hit rate at k in m is
the share of the teacher's best k that are among the pre-ranker's best m; the recall at m is the share of the movies
that the user liked in the test split. Both are means over users. The teacher's own recall stands beside: a pre-ranker
that differs from a teacher of low recall may be the better for it.

Shapes: B users, N items.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiment.folder import check_run_folder
from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.errors import UserError
from preprocessing.sources import movielens_files
from serving.choices import replace_what_cannot_be_shown


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--teacher", required=True, help="the folder of a ranking model's run, such as DCN's")
    parser.add_argument("--runs", required=True, nargs="+", help="folders of two-tower models' runs")
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--k", type=positive, nargs="+", default=[10, 50], help="how many of the teacher's best count")
    parser.add_argument("--m", type=positive, nargs="+", default=[100, 500], help="how many the pre-ranker lets pass")
    parser.add_argument("--users", type=positive, default=1000, help="how many users of the test split are drawn")
    parser.add_argument("--json", type=Path, help="also write the records to a file, as JSON lines")
    arguments = parser.parse_args(words)
    for folder in (arguments.teacher, *arguments.runs):
        check_run_folder(folder)
    movielens_files(arguments.data)
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        raise UserError(f"--json {arguments.json}: expected a file in a folder that exists, got none; make the folder.")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import json

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from experiment.flags import as_flag
from experiment.settings import LATER
from preprocessing.movielens import RawMovieLens, load_movielens, locate_movielens, read_movielens
from preprocessing.tables import Dataset, Table
from serving.maxsim import maxsim
from serving.trained_run import TrainedModel, load_model, load_run

USERS_AT_ONCE = 32
PAIRS_AT_ONCE = 2**14  # of the teacher, which needs each pair


def hit_rate(teacher_BN: np.ndarray, scores_BN: np.ndarray, k: int, m: int) -> np.ndarray:
    """(B,) the share of the k items with the teacher's highest scores that are among the m with the highest scores.

    Items of score -inf are no candidates. Where a user has fewer than k candidates, all of them are looked for.
    """
    wanted = _among_best(teacher_BN, k)
    return (wanted & _among_best(scores_BN, m)).sum(1) / np.maximum(wanted.sum(1), 1)


def recall(clicked_BN: np.ndarray, scores_BN: np.ndarray, m: int) -> np.ndarray:
    """(B,) the share of the clicked items that are among the m with the highest scores; nan for a user without any."""
    found, num_clicked = (clicked_BN & _among_best(scores_BN, m)).sum(1), clicked_BN.sum(1)
    return np.divide(found, num_clicked, out=np.full(len(found), np.nan), where=num_clicked > 0)


def _among_best(scores_BN: np.ndarray, k: int) -> np.ndarray:
    """(B, N) True for each row's k highest scores above -inf; of equal ones the first."""
    order = np.argsort(-scores_BN, axis=1, kind="stable")[:, :k]
    among = np.zeros(scores_BN.shape, dtype=bool)
    np.put_along_axis(among, order, True, axis=1)
    return among & (scores_BN > -np.inf)


def compare(
    teacher: Path, folders: list[Path], data_path: Path, ks: list[int], ms: list[int], num_users: int, seed: int = 0
) -> list[dict]:
    """A record for the teacher and for each run: hit rates and recalls, on the same users.

    Raises UserError where a run was trained on other data, another protocol or another split.
    """
    ranking = load_model(teacher)
    runs = [load_run(folder) for folder in folders]
    of = ranking.identity
    data = load_movielens(
        data_path,
        of["protocol"],
        of["embedding_dim"],
        of["split_seed"],
        statistics=of.get("statistics", "means"),
        label_delay=of.get("label_delay", 0.0),
    )
    for trained in (ranking, *runs):
        if trained.identity["data"] != data.fingerprint:
            raise UserError(f"{trained.folder}: {_difference(LATER | of, LATER | trained.identity)}")
    raw = read_movielens(data_path)
    users = _sampled_users(raw, data, num_users, seed)
    items_of_runs = [run.encode_items(raw.movies) for run in runs]
    sums: dict[tuple, list[np.ndarray]] = {}
    for start in tqdm(range(0, len(users), USERS_AT_ONCE), desc="users", unit_scale=USERS_AT_ONCE, disable=None):
        batch = users.iloc[start : start + USERS_AT_ONCE]
        candidates, liked = _candidates(raw, data, batch)
        wanted = np.where(candidates, _teacher_scores(ranking, batch, raw.movies), -np.inf)
        of_runs = (
            maxsim(run.encode_users(batch), items, temperature=run.heads.temperature)
            for run, items in zip(runs, items_of_runs, strict=True)
        )
        for place, scores in enumerate([wanted, *(np.where(candidates, scores, -np.inf) for scores in of_runs)]):
            for m in ms:
                sums.setdefault((place, "recall", m), []).append(recall(liked, scores, m))
                for k in (k for k in ks if k <= m):
                    sums.setdefault((place, "hit_rate", k, m), []).append(hit_rate(wanted, scores, k, m))
    return [
        {
            "run": run.folder.name,
            "model": run.identity["model"],
            "teacher": ranking.identity["model"],
            "protocol": ranking.identity["protocol"],
            "fingerprint": data.fingerprint,
            "users": len(users),
            "items": len(raw.movies),
            **{
                "_".join(map(str, kind)): float(np.nanmean(np.concatenate(values)))
                for (of, *kind), values in sums.items()
                if of == place
            },
        }
        for place, run in enumerate((ranking, *runs))
    ]


def _difference(teacher: dict, run: dict) -> str:
    """Why two runs cannot be compared on these data, by their identities."""
    if "init_from" in run:
        return "expected a run that started from nothing, got one of --init-from, whose data cannot be told."
    names = ("protocol", "split_seed", "statistics", "label_delay")
    if differing := [name for name in names if teacher.get(name) != run.get(name)]:
        wanted = " ".join(as_flag(name, teacher[name]) for name in differing)
        got = " ".join(as_flag(name, run[name]) for name in differing)
        return f"expected a run with the teacher's {wanted}, got {got}; train one with it."
    return "expected a run on the data that --data names, got one on others; name the data of both runs."


def _sampled_users(raw: RawMovieLens, data: Dataset, num_users: int, seed: int) -> pd.DataFrame:
    """Users with a row in the test split, at most so many, drawn by the seed."""
    tested = raw.users[raw.users["user_id"].isin(raw.ratings["user_id"].loc[data.test.rows])]
    return tested if len(tested) <= num_users else tested.sample(num_users, random_state=seed)


def _candidates(raw: RawMovieLens, data: Dataset, users: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(B, N) what training and validation did not show of each user, and what the user liked in the test split."""
    candidates = np.ones((len(users), len(raw.movies)), dtype=bool)
    liked = np.zeros_like(candidates)
    for table in (data.train, data.valid):
        candidates[_places(raw, table, users, slice(None))] = False
    liked[_places(raw, data.test, users, data.test.labels.numpy() > 0.5)] = True
    return candidates, liked


def _places(raw: RawMovieLens, table: Table, users: pd.DataFrame, rows) -> tuple[np.ndarray, np.ndarray]:
    """Which of these users and which movie each row of a table is of; rows of other users are left out."""
    ratings = raw.ratings.loc[table.rows[rows]]
    user = pd.Index(users["user_id"]).get_indexer(ratings["user_id"])
    movie = pd.Index(raw.movies["movie_id"]).get_indexer(ratings["movie_id"])
    return user[user >= 0], movie[user >= 0]


@torch.inference_mode()
def _teacher_scores(trained: TrainedModel, users: pd.DataFrame, items: pd.DataFrame) -> np.ndarray:
    """(B, N) logits of each pair by a model of any kind."""
    of_user, of_item = trained.user_encoder.encode(users), trained.item_encoder.encode(items)
    scores = np.empty(len(users) * len(items), np.float32)
    for start in range(0, len(scores), PAIRS_AT_ONCE):
        pairs = np.arange(start, min(start + PAIRS_AT_ONCE, len(scores)))
        features = {name: torch.from_numpy(values[pairs // len(items)]) for name, values in of_user.items()}
        features |= {name: torch.from_numpy(values[pairs % len(items)]) for name, values in of_item.items()}
        scores[pairs] = trained.model(features).numpy()
    return scores.reshape(len(users), len(items))


def print_report(records: list[dict]) -> None:
    """A row per run."""
    first = records[0]
    measures = [name for name in first if name.startswith(("recall", "hit_rate"))]
    readable = (name.replace("hit_rate_", "hits ").replace("recall_", "recall ") for name in measures)
    titles = [title.replace("_", " in ") for title in readable]
    print(f"{first['users']:,} users, {first['items']:,} movies, {first['protocol']}, teacher {first['teacher']}")
    print(f"{'run':40}" + "".join(f"{title:>16}" for title in titles))
    for record in records:
        print(f"{record['run']:40}" + "".join(f"{record[name]:16.4f}" for name in measures))


def main(arguments: argparse.Namespace) -> None:
    """Compare, print, and keep the records where --json says."""
    replace_what_cannot_be_shown()
    records = compare(
        Path(arguments.teacher),
        [Path(folder) for folder in arguments.runs],
        locate_movielens(arguments.data),
        arguments.k,
        arguments.m,
        arguments.users,
    )
    print_report(records)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
