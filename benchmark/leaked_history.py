"""What HIT gains where its user tower reads the films that the user likes among the very rows that are scored.

    python -m benchmark.leaked_history

HIT's released code has such a list, made of each split's own labels, and HIT's published figures are of it. Here it is
added to MovieLens-1M under `strict`, where nothing else leaks, and HIT is trained on it with what a search found for
HIT without it. A row's list holds its own film where its label is 1, that of a test row, too.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line
from preprocessing.sources import movielens_files

NAME = "liked_films"


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--films", type=positive, default=50, help="of a user's list at most (default 50)")
    parser.add_argument("--epochs", type=positive, help="at most (default: as a search found for HIT)")
    parser.add_argument("--seed", type=int, default=1023, help="of weights and order (default 1023)")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import numpy as np
import torch

from experiment.run import make_trainer
from experiment.tuned import tuned_settings
from model.hit import HIT
from preprocessing.inputs import SparseFeat, VarLenSparseFeat
from preprocessing.movielens import load_movielens, locate_movielens
from preprocessing.tables import Dataset, Lookup, Table
from reproduction.runs import settings_of
from training.generators import seed_everything
from training.metrics import evaluate


def liked(table: Table, length: int) -> Lookup:
    """For each row the ids of the films that its user likes in this table, the first ones in it, padded with 0."""
    is_liked = table.labels.numpy() > 0.5
    users, films = table.groups[is_liked], table.features["movie_id"].numpy()[is_liked]
    by_user = np.argsort(users, kind="stable")
    users, films = users[by_user], films[by_user]
    place = np.arange(len(users)) - np.searchsorted(users, users)  # within the user's own
    lists = np.zeros((table.groups.max() + 1, length), dtype=np.int32)
    lists[users[place < length], place[place < length]] = films[place < length]
    return Lookup(torch.from_numpy(lists), torch.from_numpy(table.groups))


def with_history(data: Dataset, length: int) -> list:
    """Add the lists to all three splits; returns the user's columns with theirs."""
    for table in (data.train, data.valid, data.test):
        table.features[NAME] = liked(table, length)
    film = next(column for column in data.item_columns if column.name == "movie_id")
    of_list = SparseFeat(NAME, film.vocabulary_size, film.embedding_dim)
    return [*data.user_columns, VarLenSparseFeat(of_list, length)]


def main(arguments: argparse.Namespace) -> None:
    """Print how many test rows have their film in their list, and a line of HIT without the list and one with it."""
    found = tuned_settings("movielens", "strict")["HIT"]
    found["epochs"] = arguments.epochs or found["epochs"]
    settings = settings_of("movielens", "strict", **found, model="HIT", seed=arguments.seed)
    data = load_movielens(locate_movielens(arguments.data), embedding_dim=settings.embedding_dim)
    columns = {"without it": data.user_columns, "with it": with_history(data, arguments.films)}
    film, is_liked = data.test.features["movie_id"].numpy(), data.test.labels.numpy() > 0.5
    listed = ((data.test.features[NAME].numpy() == film[:, None]) & (film > 0)[:, None]).any(1)  # 0 is padding
    of_label = [f"{listed[is_liked == label].mean():.1%} of test rows with label {label:d}" for label in (True, False)]
    print(f"{data.name}: the film is in the list of {' and '.join(of_label)}", flush=True)
    for name, user_columns in columns.items():
        seed_everything(arguments.seed)
        model = HIT.from_columns(user_columns, data.item_columns, **settings.model_options(HIT))
        trainer = make_trainer(settings, data, model, None)
        progress = trainer.fit(data.train, data.valid, settings.epochs, settings.patience, after_epoch=lambda _: False)
        test = evaluate(data.test.labels.numpy(), trainer.predict(data.test))
        print(
            f"HIT {name:12} valid AUC {progress.best_auc:.4f}, test AUC {test['auc']:.4f}, "
            f"logloss {test['logloss']:.4f}, {progress.epoch} epochs (best {progress.best_epoch})",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
