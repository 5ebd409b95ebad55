"""A whole run: what it does on the sample that stands in for real data, and for TensorBoard."""

import dataclasses
import json

import pytest
from shell import assert_refused, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_movielens_IntTower
from experiment.command import run_script
from experiment.settings import ON_SAMPLE
from preprocessing import sources
from preprocessing.sources import stands_in
from train_movielens_IntTower import Settings

QUICK = ("--epochs", "2", "--hidden-units", "16,8", "--batch-size", "512", "--embedding-dim", "4")


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw: the steps and values of each curve."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_draws_what_the_history_holds_and_a_resumed_run_goes_on(sample_folder, tmp_path):
    arguments = ("train_movielens_IntTower.py", "--data", sample_folder, "--output", tmp_path / "run", "--tensorboard")
    assert run(*arguments, *QUICK).returncode == 0
    result = run(*arguments, *QUICK[2:], "--epochs", "3", "--resume")
    assert result.returncode == 0, result.stderr
    history = json.loads((tmp_path / "run" / "record.json").read_text())["history"]
    drawn = scalars(tmp_path / "run")
    assert drawn.keys() == history[0].keys() - {"epoch"}
    for name, points in drawn.items():
        assert points == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in history], name
    assert len(history) == 3

    assert run(*arguments[:-1], *QUICK, "--overwrite").returncode == 0
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_without_the_package_the_flag_is_refused_before_data_are_read(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("train_movielens_IntTower.py", "--tensorboard")
    assert_refused(result, "--tensorboard: expected the package tensorboard, got none; pip install -r requirements")


@pytest.mark.parametrize(
    ("chosen", "epochs"), [({}, ON_SAMPLE["epochs"]), ({"epochs": 2}, 2), ({"batch_size": 1024, "epochs": 3}, 3)]
)
def test_the_sample_that_stands_in_is_looked_at_shortly_unless_the_person_chose(
    chosen, epochs, sample_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sources, "DATA_FOLDER", tmp_path)
    stand_in = tmp_path / "sample-movielens"
    stand_in.symlink_to(sample_folder)
    monkeypatch.setattr(train_movielens_IntTower, "locate_movielens", lambda named: stand_in)
    settings = Settings(output=str(tmp_path / "run"), hidden_units=[8, 4], embedding_dim=4, **chosen)
    assert run_script(train_movielens_IntTower.main, settings) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["epochs"] <= record["settings"]["epochs"] == epochs
    assert ("a first look, with --batch-size 512 --epochs 6" in capsys.readouterr().out) is (not chosen)


def test_only_what_a_script_made_in_data_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DATA_FOLDER", tmp_path)
    assert stands_in(tmp_path / "sample-movielens")
    assert stands_in(tmp_path / "sample-amazon" / "reviews_Electronics_5.json.gz")
    assert not stands_in(tmp_path / "ml-1m.zip")
    assert not stands_in(tmp_path / "elsewhere" / "sample-movielens")


def test_a_model_is_named_by_its_flag_or_imported_by_the_script():
    class Own:
        pass

    assert Settings().choose_model(Own) is Own
    settings = dataclasses.replace(Settings(), model="DSSM")
    assert settings.choose_model(Own).__name__ == settings.model == "DSSM"
