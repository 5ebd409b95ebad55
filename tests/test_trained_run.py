"""A run as it is served: the same logits as the model's own, from raw ids."""

import json
import pickle
import shutil
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from models import ALL_COLUMNS, int_tower, random_features, small_model
from served import trained
from shell import run_in_process
from torch import nn

from model.IntTower import IntTower
from preprocessing import utils
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens, read_movielens
from serving.build_index import build_index
from serving.heads import Heads
from serving.index_files import is_made
from serving.item_index import ItemIndex
from serving.maxsim import maxsim
from serving.trained_run import TrainedRun, load_model, load_run
from training.checkpoint import ENCODERS_CHECKSUM, load_checkpoint, save_checkpoint

SUCCESSORS = ["HIT", "PolyEncoder", "MVKE", "FinalMLPTower"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, sample_folder):
    """Runs of one epoch on the sample, by name."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = {
        "IntTower": {},
        "last": {"levels": "last"},
        "dot": {"interaction": "dot"},
        "unequal": {"user_head": 3, "item_head": 2, "field_dim": 5},
        "biases": {"biases": True, "lr": 0.01},
        "biases-dot": {"biases": True, "interaction": "dot"},
        "DSSM": {"model": "DSSM"},
        "DSSM-dot": {"model": "DSSM", "similarity": "dot"},
        "DSSMCIR": {"model": "DSSMCIR"},
        "DAT": {"model": "DAT"},
        "DCN": {"model": "DCN"},
        **{name: {"model": name} for name in SUCCESSORS},
        "IntTowerPlus": {"model": "IntTowerPlus", "level_gates": True, "apart_weight": 0.1, "guess_weight": 0.1},
    }
    return {name: trained(folder / name, sample_folder, **settings) for name, settings in kinds.items()}


SERVED = [
    "IntTower",
    "last",
    "dot",
    "unequal",
    "biases",
    "biases-dot",
    "DSSM",
    "DSSM-dot",
    "DSSMCIR",
    "DAT",
    *SUCCESSORS,
    "IntTowerPlus",
]


@pytest.mark.parametrize("name", SERVED)
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


@pytest.mark.parametrize("name", ["IntTower", "unequal", "biases-dot", "DSSM"])
def test_one_user_as_a_dict_has_the_heads_of_a_frame_of_that_user_bit_for_bit(runs, sample_folder, name):
    run, raw = load_run(runs[name]), read_movielens(sample_folder)
    for row in [*raw.users.to_dict("records")[:5], {"user_id": None, "gender": "x", "age": "25", "occupation": 10**30}]:
        assert np.array_equal(run.encode_user(row), run.encode_users(pd.DataFrame([row]))[0])
    with pytest.raises(UserError, match="expected a column 'gender', got"):
        run.encode_user({"user_id": 1})
    sent = pickle.loads(pickle.dumps(run))
    assert np.array_equal(sent.encode_user(row), run.encode_user(row))


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
    features = random_features(ALL_COLUMNS, 6)
    for model in (int_tower(), int_tower(interaction="dot"), *map(small_model, ["DSSM", *SUCCESSORS])):
        nn.init.constant_(model.output_bias, 0.25)
        heads = Heads(model)
        with torch.no_grad():
            user, item = heads.user(features).numpy(), heads.item(features).numpy()
            scores = maxsim(user, np.ascontiguousarray(item), temperature=heads.temperature)
            ours = scores.diagonal() + heads.bias
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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"user_id": [1]}, r"expected a pandas DataFrame, a row for each user or item, got a dict; .*DataFrame\(\[row"),
        (pd.Series({"user_id": 1}), "expected a pandas DataFrame, .* got a Series"),
        ([{"user_id": 1}], "expected a pandas DataFrame, .* got a list"),
        (pd.DataFrame([[1, 2]], columns=["user_id", "user_id"]), "expected each column once, got 'user_id' twice"),
    ],
)
def test_what_is_no_table_of_raw_rows_is_refused_in_a_line(runs, rows, message):
    run = load_run(runs["IntTower"])
    for encode in (run.encode_users, run.encode_items):
        with pytest.raises(UserError, match=message):
            encode(rows)


FORKED = """
import os, signal, sys
import numpy as np
import pandas as pd
import torch
from preprocessing.errors import UserError
from serving.item_index import ItemIndex
from serving.trained_run import load_run

torch.set_num_threads(2)
run = load_run(sys.argv[1])
index = ItemIndex(sys.argv[2], run.checkpoint, scorer="torch")
users = pd.DataFrame({"user_id": np.arange(20000), "gender": "M", "age": 25, "occupation": 8})


def work():
    user_heads = run.encode_users(users)
    return user_heads, index.score(user_heads[:500], index.ids)


expected = work()
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that waits for ever is killed
    same = all(np.allclose(ours, theirs, rtol=1e-4, atol=1e-4) for ours, theirs in zip(work(), expected))
    torch.set_num_threads(2)
    told = []
    for call in (lambda: run.encode_users(users), lambda: index.score(expected[0][:1], index.ids)):
        try:
            call()
        except UserError as error:
            told.append("start workers by spawn" in str(error))
    sys.exit(0 if same and told == [True, True] else 1)
assert torch.get_num_threads() == 2
sys.exit(os.waitpid(child, 0)[1] != 0)
"""


@pytest.mark.slow
def test_a_forked_child_encodes_and_scores_on_one_thread_and_is_refused_with_more(runs, sample_folder, tmp_path):
    build_index(load_run(runs["IntTower"]), read_movielens(sample_folder).movies, tmp_path)
    result = run_in_process("-c", FORKED, runs["IntTower"], tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_build_leaves_what_others_keep_where_it_would_work(runs, sample_folder, tmp_path):
    run, movies = load_run(runs["IntTower"]), read_movielens(sample_folder).movies
    theirs = [tmp_path / name for name in ("building/y", "segment-notes/x", "segment-0123456789ab/heads.npy")]
    for path in theirs:
        path.parent.mkdir()
        path.write_text("theirs")
    with pytest.raises(UserError, match="building: expected a free name, or what a stopped build left"):
        build_index(run, movies, tmp_path)
    assert [path.read_text() for path in theirs] == ["theirs"] * 3
    shutil.move(tmp_path / "building", tmp_path / "theirs")
    assert len(build_index(run, movies, tmp_path)) == len(movies)
    assert len(build_index(run, movies[:9], tmp_path)) == 9
    assert [path.read_text() for path in (tmp_path / "theirs" / "y", *theirs[1:])] == ["theirs"] * 3
    assert len(list(tmp_path.glob("segment-*"))) == 3  # two of others, and the one in force


def test_a_stopped_build_is_replaced_by_one_of_other_items_but_for_what_others_put_in_it(
    runs, sample_folder, tmp_path, monkeypatch
):
    run, movies = load_run(runs["IntTower"]), read_movielens(sample_folder).movies
    with monkeypatch.context() as patch:
        patch.setattr(TrainedRun, "encode_items", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_index(run, movies, tmp_path)
    assert is_made(tmp_path / "building")
    (tmp_path / "building" / "notes").write_text("theirs")
    with pytest.raises(UserError, match="building: expected a free name"):
        build_index(run, movies[:9], tmp_path)
    assert [path.name for path in (tmp_path / "building").iterdir()] == ["notes"]
    (tmp_path / "building" / "notes").unlink()  # an empty folder is as good as none: a kill may leave one
    assert len(build_index(run, movies[:9], tmp_path)) == 9


def test_the_manifest_of_something_else_stops_a_build_before_its_work(runs, sample_folder, tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setattr(TrainedRun, "encode_items", lambda *_: pytest.fail("it encoded"))
    with pytest.raises(UserError, match="got a damaged or another one"):
        build_index(load_run(runs["IntTower"]), read_movielens(sample_folder).movies, tmp_path)
    assert (tmp_path / "manifest.json").read_text() == "{}"


def test_an_index_of_an_older_format_is_refused_and_built_anew_in_its_place(runs, sample_folder, tmp_path):
    run, movies = load_run(runs["IntTower"]), read_movielens(sample_folder).movies
    build_index(run, movies, tmp_path)
    outer = json.loads((tmp_path / "manifest.json").read_text())
    content = outer["content"].replace('"format": 2', '"format": 1')
    outer = {"checksum": zlib.crc32(content.encode()), "content": content}
    (tmp_path / "manifest.json").write_text(json.dumps(outer))
    with pytest.raises(UserError, match="expected format 2, got 1; build the index anew"):
        ItemIndex(tmp_path)
    assert build_index(run, movies, tmp_path).generation == 1
    assert len(list(tmp_path.glob("segment-*"))) == 1


@pytest.mark.parametrize(
    ("statistics", "reason"),
    [
        ({"nope": np.zeros((1, 1), np.float32)}, "statistics: expected some of user_id, .*, got 'nope'"),
        ({"user_mean_rating": np.zeros((1, 1))}, r"user_mean_rating as float32 \(1, 1\), got float64 \(1, 1\)"),
        ({"user_mean_rating": np.zeros(1, np.float32)}, r"float32 \(1, 1\), got float32 \(1,\)"),
        ({"user_mean_rating": [[0.3]]}, r"float32 \(1, 1\), got list"),
    ],
)
def test_statistics_that_are_not_the_towers_are_refused(runs, sample_folder, statistics, reason):
    run, users = load_run(runs["IntTower"]), read_movielens(sample_folder).users[:1]
    for encode, rows in ((run.encode_users, users), (run.encode_user, users.iloc[0].to_dict())):
        with pytest.raises(UserError, match=reason):
            encode(rows, statistics)


def test_weights_that_are_not_finite_are_named_and_not_blamed_on_an_edit(runs, tmp_path):
    model = int_tower()
    name, weights = next(iter(model.state_dict().items()))
    weights.view(-1)[-1] = torch.nan  # of a row that is not among those that the check looks at
    with pytest.raises(UserError, match=f"IntTower: expected finite weights, got NaN or infinite ones in {name}"):
        Heads(model)
    for kind in ("IntTower", "DCN"):
        copy = shutil.copytree(runs[kind], tmp_path / kind)
        state = load_checkpoint(copy / "checkpoint.pt")
        next(iter(state["best_model"].values())).view(-1)[-1] = torch.inf
        save_checkpoint(copy / "checkpoint.pt", state)
        with pytest.raises(UserError, match=f"{kind}: expected finite weights"):
            load_model(copy)


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
    with pytest.raises(UserError, match=r"encoders\.json: expected the encoders that checkpoint\.pt was trained with"):
        load_run(copy)
    state = load_checkpoint(copy / "checkpoint.pt")
    del state["identity"][ENCODERS_CHECKSUM]  # as an older version left it
    save_checkpoint(copy / "checkpoint.pt", state)
    with pytest.raises(UserError, match=r"expected weights that fit encoders\.json"):
        load_run(copy)
    (copy / "encoders.json").write_text("{")
    with pytest.raises(UserError, match="expected encoders saved by a training run"):
        load_run(copy)


def test_permuted_encoders_of_the_same_sizes_are_refused_and_an_older_checkpoint_that_names_none_is_taken(
    runs, tmp_path
):
    copy = shutil.copytree(runs["DSSM"], tmp_path / "run")
    encoders = json.loads((copy / "encoders.json").read_text())
    encoders["user"][0]["vocabulary"].reverse()
    (copy / "encoders.json").write_text(json.dumps(encoders))
    with pytest.raises(UserError, match=r"expected the encoders that checkpoint\.pt was trained with, got others"):
        load_run(copy)

    shutil.copy(runs["DSSM"] / "encoders.json", copy)
    state = load_checkpoint(copy / "checkpoint.pt")
    del state["identity"]["encoders"]
    save_checkpoint(copy / "checkpoint.pt", state)
    assert load_run(copy).checkpoint == load_run(runs["DSSM"]).checkpoint
