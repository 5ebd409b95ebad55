"""Another version of the code is shown to give the same numbers before its records count as this one's."""

import json
import shutil

import pytest
from shell import PROJECT, assert_refused, copy_of_the_project, run

from preprocessing.errors import UserError
from reproduction import runs, same_code
from reproduction.runs import SAME_CODE, newest_code, read_same_code


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """An empty file of equal versions."""
    for module in (runs, same_code):
        monkeypatch.setattr(module, "SAME_CODE", tmp_path / "same_code.json")
    runs._successors.cache_clear()
    yield tmp_path / "same_code.json"
    runs._successors.cache_clear()


def test_a_record_is_followed_to_the_newest_version_that_gives_its_numbers(noted):
    entries = [{"models": {"IntTower": {"before": "a", "after": "b"}, "LR": {"before": "x", "after": "y"}}}]
    noted.write_text(json.dumps([*entries, {"models": {"IntTower": {"before": "b", "after": "c"}}}]))
    assert [newest_code(code) for code in ("a", "b", "c", "x", "other")] == ["c", "c", "c", "y", "other"]


def test_every_noted_version_says_what_was_shown_of_it():
    for entry in read_same_code():
        assert entry["why"]
        assert entry["epochs"] >= 1
        assert entry["fingerprint"]
        for model in entry["models"].values():
            assert {"auc", "logloss", "gauc"} == model["test"].keys()
    assert SAME_CODE.is_relative_to(PROJECT)


@pytest.mark.slow
def test_equal_numbers_are_noted_and_others_are_refused(noted, sample_folder, tmp_path):
    project = copy_of_the_project(tmp_path / "before")
    trainer = project / "training" / "trainer.py"
    trainer.write_text(trainer.read_text().replace("seed: int = 0,", "seed: int = (0),\n        unused: int = 0,", 1))
    arguments = ["--before", project, "--why", "an argument", "--models", "LR", "--epochs", 1, "--data", sample_folder]
    line = same_code.parse([*map(str, arguments)])
    same_code.main(line)
    [entry] = read_same_code()
    assert entry["models"].keys() == {"LR"}
    assert entry["models"]["LR"]["before"] != entry["models"]["LR"]["after"]
    assert newest_code(entry["models"]["LR"]["before"]) == entry["models"]["LR"]["after"]

    shutil.rmtree(project)
    assert_refused(run("-m", "reproduction.same_code", *arguments), "expected a checkout")


def test_other_numbers_are_refused_and_named(noted, monkeypatch, sample_folder):
    epoch = dict.fromkeys(same_code.OF_EPOCH, 0.5) | {"epoch": 1}
    record = {"tables": "t", "test": {"auc": 0.5}, "valid": {"auc": 0.5}, "best_epoch": 1, "history": [epoch]}
    other = record | {"test": {"auc": 0.5 + 1e-16}, "history": [epoch | {"train_loss": 0.25}]}
    assert same_code.differences(record, record | {"code": "another"}) == []
    found = iter([record, other])
    monkeypatch.setattr(same_code, "record_of", lambda *_: next(found))
    arguments = ["--before", PROJECT, "--why", "a test", "--models", "LR", "--data", sample_folder]
    line = same_code.parse([*map(str, arguments)])
    with pytest.raises(UserError, match=r"LR: expected the same numbers .*, got other test, .*epoch 1: train_l"):
        same_code.main(line)
    assert read_same_code() == []
