"""Synthetic raw files in the official layouts, for a first run without the real data, for tests and measurements.

    python -m preprocessing.sample alibaba data/alibaba-sample --rows 100000

Users and items have hidden tastes, so there is something to learn, and the probability behind every label is kept,
so the best AUC that any model could reach is known. The odd values of the real files are there too: missing profiles,
prices as text, literals in the place of JSON.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from preprocessing.command import Parser, exit_code, read_command_line
from preprocessing.errors import UserError
from preprocessing.sources import AMAZON_RELEASES


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", choices=("movielens", "amazon", "alibaba", "kuairand"))
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--rows", type=int, help="ratings, reviews, shown ads or videos")
    parser.add_argument("--users", type=int, help="default: in proportion to the rows")
    parser.add_argument("--items", type=int, help="default: in proportion to the rows")
    parser.add_argument("--full", action="store_true", help="as many rows, users and items as the real data")
    parser.add_argument("--release", choices=AMAZON_RELEASES, help="of the Amazon reviews (default 2014)")
    parser.add_argument("--seed", type=int, default=1023)
    arguments = parser.parse_args(words)
    if arguments.folder.exists():
        raise UserError(f"{arguments.folder}: expected no such file or folder, got one; name another.")
    for flag in ("rows", "users", "items"):
        number = getattr(arguments, flag)
        if number is not None and number < 20:
            raise UserError(f"--{flag}: expected at least 20, got {number}.")
    if arguments.seed < 0:
        raise UserError(f"--seed: expected a number of at least 0, got {arguments.seed}.")
    if arguments.release is not None and arguments.dataset != "amazon":
        raise UserError(f"--release: expected with amazon alone, got {arguments.dataset}; leave it out.")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

from preprocessing.sample_alibaba import ALIBABA_ADS, ALIBABA_ROWS, ALIBABA_USERS, write_alibaba_sample
from preprocessing.sample_amazon import AMAZON_ITEMS, AMAZON_REVIEWS, AMAZON_USERS, write_amazon_sample
from preprocessing.sample_kuairand import KUAIRAND_ROWS, KUAIRAND_USERS, KUAIRAND_VIDEOS, write_kuairand_sample
from preprocessing.sample_movielens import write_movielens_sample

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
    "kuairand": (
        write_kuairand_sample,
        {
            "rows": ("num_rows", KUAIRAND_ROWS),
            "users": ("num_users", KUAIRAND_USERS),
            "items": ("num_videos", KUAIRAND_VIDEOS),
        },
    ),
}


def main(arguments: argparse.Namespace) -> None:
    """Write the sample."""
    write, numbers = WRITERS[arguments.dataset]
    options = {}
    for flag, (name, of_real_data) in numbers.items():
        number = getattr(arguments, flag)
        if number is not None or arguments.full:
            options[name] = of_real_data if number is None else number
    if arguments.release is not None:
        options["release"] = arguments.release
    write(arguments.folder, seed=arguments.seed, **options)
    print(f"synthetic {arguments.dataset} data: {arguments.folder}/")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
