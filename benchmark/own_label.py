"""What a training row's mean of its user's labels gives away of its own label, to a model that knows the user.

    python -m benchmark.own_label

Under strict a training row has the mean of its user's rows in the other folds. Of two rows of one user, that with the
higher label has the lower mean, and a model that tells users apart by their ids can read that. "within a user" is the
correlation of mean and label after each user's own averages are taken away; 0 would give nothing away. The mean of a
validation row knows nothing of its label.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, read_command_line
from reproduction.runs import DATA_NAMES, SOURCES, load


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=list(SOURCES), default=list(DATA_NAMES))
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import numpy as np
import pandas as pd

from preprocessing.encode import MeanField
from preprocessing.tables import Table


def within_user(table: Table, mean: str) -> float:
    """The correlation of label and a feature over a table's rows, each user's own averages taken away."""
    rows = pd.DataFrame({"mean": table.features[mean].numpy()[:, 0], "label": table.labels.numpy()})
    return (rows - rows.groupby(table.groups).transform("mean")).corr()["mean"]["label"]


def over_all(table: Table, mean: str) -> float:
    """The correlation of label and a feature over a table's rows."""
    return np.corrcoef(table.features[mean].numpy()[:, 0], table.labels.numpy())[0, 1]


def main(arguments: argparse.Namespace) -> None:
    """Print a line per dataset and protocol."""
    print("correlation of a row's label with the mean of its user's labels")
    head = ("dataset", "protocol", "rows of a user", "train, within a user", "train, over all", "valid, over all")
    print("".join(f"{name:>22}" if i > 1 else f"{name:26}" for i, name in enumerate(head)))
    for dataset in arguments.datasets:
        for protocol in (p for p in SOURCES[dataset].protocols if p != "paper"):
            data = load(dataset, protocol, statistics="means")
            means = [field.name for field in data.user_encoder.fields if isinstance(field, MeanField)]
            if not means:
                continue
            median = np.median(np.unique(data.train.groups, return_counts=True)[1])
            figures = within_user(data.train, means[0]), over_all(data.train, means[0]), over_all(data.valid, means[0])
            cells = [f"{median:.0f}", *(f"{figure:.3f}" for figure in figures)]
            print(f"{data.name:26}{protocol:26}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
