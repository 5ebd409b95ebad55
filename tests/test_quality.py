"""What survives the pre-ranker's cut, against counts made by hand."""

import json
import shutil

import numpy as np
import pytest
from served import trained
from shell import assert_refused, run

from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens, read_movielens
from serving.quality import _candidates, _teacher_scores, compare, hit_rate, recall
from serving.trained_run import load_model

TEACHER = np.array([[5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
SCORES = np.array([[1.0, 5.0, 4.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, sample_folder):
    folder = tmp_path_factory.mktemp("runs")
    kinds = {"IntTower": {}, "DSSM": {"model": "DSSM"}, "DCN": {"model": "DCN"}, "other": {"split_seed": 5}}
    return {name: trained(folder / name, sample_folder, **settings) for name, settings in kinds.items()}


def test_the_hit_rate_is_the_share_of_the_teachers_best_that_pass():
    # The first user's teacher wants items 0 and 1; the pre-ranker lets 1 and 2 pass.
    assert hit_rate(TEACHER, SCORES, k=2, m=2).tolist() == [0.5, 1.0]
    assert hit_rate(TEACHER, SCORES, k=1, m=1).tolist() == [0.0, 1.0]
    assert hit_rate(TEACHER, SCORES, k=2, m=5).tolist() == [1.0, 1.0]


def test_what_is_no_candidate_neither_passes_nor_is_wanted():
    hidden = np.array([[True, False, False, False, False]] * 2)
    teacher, scores = np.where(hidden, -np.inf, TEACHER), np.where(hidden, -np.inf, SCORES)
    assert hit_rate(teacher, scores, k=2, m=2).tolist() == [1.0, 1.0]
    assert hit_rate(teacher, scores, k=9, m=9).tolist() == [1.0, 1.0]


def test_recall_is_the_share_of_clicked_items_that_pass():
    clicked = np.array([[True, True, False, False, False], [False] * 5])
    assert recall(clicked, SCORES, m=1).tolist()[0] == 0.5
    assert np.isnan(recall(clicked, SCORES, m=1)[1])
    assert recall(clicked, SCORES, m=5)[0] == 1.0


def test_candidates_are_what_training_did_not_show_and_liked_is_what_test_says(sample_folder):
    data, raw = load_movielens(sample_folder), read_movielens(sample_folder)
    users = raw.users[:5]
    candidates, liked = _candidates(raw, data, users)
    for row, user in enumerate(users["user_id"]):
        ratings = {name: raw.ratings.loc[getattr(data, name).rows] for name in ("train", "valid", "test")}
        of_user = {name: frame[frame["user_id"] == user] for name, frame in ratings.items()}
        shown = {*of_user["train"]["movie_id"], *of_user["valid"]["movie_id"]}
        assert set(raw.movies["movie_id"][~candidates[row]]) == shown
        test = of_user["test"]
        assert set(raw.movies["movie_id"][liked[row]]) == set(test["movie_id"][test["rating"] > 3])


def test_the_teacher_scores_pairs_as_its_forward_does(runs, sample_folder):
    raw = read_movielens(sample_folder)
    trained_model = load_model(runs["DCN"])
    scores = _teacher_scores(trained_model, raw.users[:3], raw.movies)
    alone = _teacher_scores(trained_model, raw.users[2:3], raw.movies[7:8])
    np.testing.assert_allclose(scores[2, 7], alone[0, 0], rtol=1e-5)
    assert scores.shape == (3, len(raw.movies))


def test_a_teacher_that_is_the_pre_ranker_itself_loses_nothing(runs, sample_folder):
    teacher, record = compare(runs["DSSM"], [runs["DSSM"]], sample_folder, ks=[5], ms=[5, 80], num_users=30)
    assert record["hit_rate_5_5"] == 1.0
    assert record["recall_5"] == pytest.approx(teacher["recall_5"], abs=1e-6)
    assert record["recall_80"] == 1.0  # all movies pass
    assert record["users"] == 30


def test_runs_whose_rows_have_other_statistics_than_means_are_compared(sample_folder, tmp_path):
    folder = trained(tmp_path, sample_folder, protocol="temporal", statistics="crossed")
    _, record = compare(folder, [folder], sample_folder, ks=[5], ms=[5], num_users=30)
    assert record["hit_rate_5_5"] == 1.0


def test_a_run_on_another_split_is_refused(runs, sample_folder):
    wanted = "other: expected a run with the teacher's --split-seed 1023, got --split-seed 5; train one with it"
    with pytest.raises(UserError, match=wanted):
        compare(runs["DCN"], [runs["other"]], sample_folder, [5], [5], 10)


def test_data_that_are_not_those_of_the_runs_are_refused(runs, sample_folder, tmp_path):
    data = shutil.copytree(sample_folder, tmp_path / "data")
    ratings = (data / "ratings.dat").read_text().splitlines()
    (data / "ratings.dat").write_text("\n".join([*ratings[1:], ratings[0]]))
    with pytest.raises(UserError, match="DCN: expected a run on the data that --data names, got one on others; name"):
        compare(runs["DCN"], [runs["DSSM"]], data, [5], [5], 10)
    (data / "ratings.dat").write_bytes((sample_folder / "ratings.dat").read_bytes())
    from_another = trained(tmp_path / "grown", sample_folder, init_from=str(runs["DSSM"]), model="DSSM")
    with pytest.raises(UserError, match="grown: expected a run that started from nothing, got one of --init-from"):
        compare(runs["DCN"], [from_another], sample_folder, [5], [5], 10)


def test_records_are_not_worked_out_for_a_folder_that_is_not_there(runs, sample_folder, tmp_path):
    command = ["-m", "serving.quality", "--teacher", runs["DCN"], "--runs", runs["DSSM"], "--data", sample_folder]
    assert_refused(run(*command, "--json", tmp_path / "no" / "x"), "no/x: expected a file in a folder that exists")


def test_the_command_prints_a_row_per_run_and_keeps_records(runs, sample_folder, tmp_path):
    result = run(
        *("-m", "serving.quality", "--teacher", runs["DCN"], "--runs", runs["IntTower"], runs["DSSM"]),
        *("--data", sample_folder, "--k", 5, "--m", 10, 20, "--json", tmp_path / "quality.jsonl"),
    )
    assert result.returncode == 0, result.stderr
    assert "hits 5 in 10" in result.stdout
    records = [json.loads(line) for line in (tmp_path / "quality.jsonl").read_text().splitlines()]
    assert [record["model"] for record in records] == ["DCN", "IntTower", "DSSM"]
    assert records[0]["hit_rate_5_10"] == 1.0  # the teacher's own
    for record in records:
        assert 0 <= record["hit_rate_5_10"] <= record["hit_rate_5_20"] <= 1
        assert f"{record['recall_20']:.4f}" in result.stdout
