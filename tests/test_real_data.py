"""On the real MovieLens-1M: a short run learns, and from shuffled ratings nothing can be learnt but under `paper`."""

import csv
import json

import numpy as np
import pytest
from shell import train

from model.IntTower import IntTower
from preprocessing.movielens import load_movielens, read_movielens
from training.generators import seed_everything
from training.metrics import evaluate
from training.trainer import Trainer


@pytest.fixture(scope="module")
def shuffled_ratings(real_movielens, tmp_path_factory):
    """MovieLens-1M in its own layout, its stars dealt out anew among the ratings."""
    raw = read_movielens(real_movielens)
    folder = tmp_path_factory.mktemp("shuffled")
    ratings = raw.ratings.assign(rating=np.random.default_rng(7).permutation(raw.ratings["rating"]))
    for name, frame in (("ratings.dat", ratings), ("users.dat", raw.users), ("movies.dat", raw.movies)):
        text = frame.to_csv(sep="\t", header=False, index=False, quoting=csv.QUOTE_NONE)
        (folder / name).write_text(text.replace("\t", "::"), encoding="latin-1")
    return folder


def auc_on_test(folder, protocol: str) -> float:
    data = load_movielens(folder, protocol)
    seed_everything(1)
    model = IntTower(data.user_columns, data.item_columns, dnn_hidden_units=(64, 32), init_std=0.01)
    trainer = Trainer(model, seed=1, show_progress=False)
    trainer.fit(data.train, data.valid, epochs=1, patience=1)
    return evaluate(data.test.labels.numpy(), trainer.predict(data.test))["auc"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["strict", "temporal"])
def test_shuffled_labels_cannot_be_ranked_under(protocol, shuffled_ratings):
    assert 0.49 < auc_on_test(shuffled_ratings, protocol) < 0.51


@pytest.mark.slow
def test_shuffled_labels_can_be_ranked_under_paper_because_labels_leak(shuffled_ratings):
    assert auc_on_test(shuffled_ratings, "paper") > 0.6


@pytest.mark.slow
def test_a_short_run_of_the_script_on_the_real_archive_learns(real_movielens, tmp_path):
    arguments = ("--data", real_movielens, "--output", tmp_path / "run", "--epochs", "1", "--hidden-units", "64,32")
    result = train(*arguments)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert not record["synthetic"]
    assert record["counts"]["ratings_read"] == 1_000_209
    assert record["test"]["auc"] > 0.84
