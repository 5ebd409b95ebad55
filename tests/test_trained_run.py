"""A run as it is served: the same logits as the model's own, from raw ids."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from models import int_tower, item_columns, random_features, user_columns
from served import trained

from model.dssm import DSSM
from model.IntTower import IntTower
from preprocessing import utils
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens, read_movielens
from serving.build_index import build_index
from serving.heads import Heads
from serving.maxsim import maxsim
from serving.trained_run import load_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory, sample_folder):
    """Runs of one epoch on the sample, by name."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = {
        "IntTower": {},
        "last": {"levels": "last"},
        "dot": {"interaction": "dot"},
        "unequal": {"user_head": 3, "item_head": 2, "field_dim": 5},
        "DSSM": {"model": "DSSM"},
        "DSSM-dot": {"model": "DSSM", "similarity": "dot"},
        "DSSMCIR": {"model": "DSSMCIR"},
        "DAT": {"model": "DAT"},
        "DCN": {"model": "DCN"},
    }
    return {name: trained(folder / name, sample_folder, **settings) for name, settings in kinds.items()}


@pytest.mark.parametrize("name", ["IntTower", "last", "dot", "unequal", "DSSM", "DSSM-dot", "DSSMCIR", "DAT"])
def test_the_index_of_a_run_gives_the_logits_that_the_run_was_evaluated_with(runs, sample_folder, tmp_path, name):
    run, raw = load_run(runs[name]), read_movielens(sample_folder)
    test = load_movielens(sample_folder, embedding_dim=8).test
    index = build_index(run, raw.movies, tmp_path / "index")
    ratings = raw.ratings.loc[test.rows]
    users = run.encode_users(raw.users)
    scores = index.score(users, raw.movies["movie_id"])
    places = pd.Index(raw.users["user_id"]).get_indexer(ratings["user_id"])
    movies = pd.Index(raw.movies["movie_id"]).get_indexer(ratings["movie_id"])
    np.testing.assert_allclose(scores[places, movies], np.load(runs[name] / "test_logits.npy"), rtol=1e-5, atol=1e-5)


def test_fewer_levels_than_were_trained_can_be_served(runs, sample_folder):
    users = read_movielens(sample_folder).users[:4]
    whole, last, first = (load_run(runs["IntTower"], levels) for levels in ("all", "last", [0]))
    assert np.array_equal(last.encode_users(users), whole.encode_users(users)[:, 4:])
    assert np.array_equal(first.encode_users(users), whole.encode_users(users)[:, :4])
    assert len({run.checkpoint for run in (whole, last, first)}) == 3  # none fits the other's index
    with pytest.raises(UserError, match="some of \\[0, 1\\], which were trained, got \\[5\\]"):
        load_run(runs["IntTower"], [5])
    with pytest.raises(UserError, match="some of \\[1\\], which were trained, got \\[0\\]"):
        load_run(runs["last"], [0])
    with pytest.raises(UserError, match="some of \\[0\\]"):
        load_run(runs["DSSM"], [1])


def test_a_level_by_its_number_fits_the_index_of_the_same_level_by_its_name(runs):
    assert load_run(runs["IntTower"], "last").checkpoint == load_run(runs["IntTower"], [1]).checkpoint


def test_an_edited_fe_score_is_noticed_unless_the_same_levels_are_served(monkeypatch):
    def last_level(user_rep, item_rep, user_fea_col, item_fea_col, user_embedding_dim, item_embedding_dim):
        user, item = user_rep[-1], item_rep[-1]
        user = torch.reshape(user, (-1, user_fea_col, user_embedding_dim[0]))
        item = torch.reshape(item, (-1, item_fea_col, item_embedding_dim[0]))
        return (user @ item.permute(0, 2, 1)).max(2).values.sum(1)

    assert Heads(int_tower()).levels == [0, 1, 2]
    monkeypatch.setattr("model.IntTower.fe_score", last_level)
    with pytest.raises(UserError, match=r"fe_score of preprocessing/utils\.py: expected the sum of MaxSim"):
        Heads(int_tower())
    assert Heads(int_tower(), "last").levels == [2]
    assert utils.fe_score is not last_level


def test_heads_give_the_models_own_logits():
    columns = user_columns(), item_columns()
    features = random_features([*columns[0], *columns[1]], 6)
    torch.manual_seed(0)
    for model in (int_tower(), int_tower(interaction="dot"), DSSM(*columns, dnn_hidden_units=(8, 5))):
        heads = Heads(model)
        with torch.no_grad():
            user, item = heads.user(features).numpy(), heads.item(features).numpy().transpose(1, 0, 2)
            ours = maxsim(user, np.ascontiguousarray(item)).diagonal() + heads.bias
            np.testing.assert_allclose(ours, model(features).numpy(), rtol=1e-5, atol=1e-5)
    assert isinstance(int_tower(), IntTower)


def test_unknown_users_and_movies_are_served_and_named(runs, sample_folder):
    run = load_run(runs["IntTower"])
    known = read_movielens(sample_folder).users[:1]
    unknown = known.assign(user_id=10**9, occupation="poet")
    both = pd.concat([known, unknown])
    assert [list(values) for values in run.user_encoder.unknown_values(both)] == [[], ["user_id", "occupation"]]
    assert np.isfinite(run.encode_users(unknown)).all()
    movie = pd.DataFrame({"movie_id": [10**9], "genres": ["Drama|Opera"]})
    assert run.item_encoder.unknown_values(movie) == [{"movie_id": 10**9, "genres": "Drama|Opera"}]


def test_no_users_give_no_heads(runs, sample_folder):
    users = read_movielens(sample_folder).users[:0]
    assert load_run(runs["IntTower"]).encode_users(users).shape == (0, 8, 16)


def test_a_folder_that_holds_no_run_to_serve_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="expected the folder of a training run, got none"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected a checkpoint, got no such file"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="DCN: expected a model whose towers are apart"):
        load_run(runs["DCN"])


def test_encoders_of_another_run_and_damaged_ones_are_refused(runs, tmp_path):
    copy = shutil.copytree(runs["IntTower"], tmp_path / "run")
    encoders = json.loads((copy / "encoders.json").read_text())
    encoders["user"][0]["vocabulary"].append(10**9)
    (copy / "encoders.json").write_text(json.dumps(encoders))
    with pytest.raises(UserError, match=r"expected weights that fit encoders\.json"):
        load_run(copy)
    (copy / "encoders.json").write_text("{")
    with pytest.raises(UserError, match="expected encoders saved by a training run"):
        load_run(copy)
