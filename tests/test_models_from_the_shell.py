"""Every model as a person trains it: from the shell, on the synthetic sample, saved, loaded, resumed, swapped."""

import json
from pathlib import Path

import numpy as np
import pytest
from shell import SCRIPT, assert_refused, assert_same_run, copy_of_the_project, run_in_process, train

from model import MODELS, model_class
from preprocessing.movielens import load_movielens
from training.checkpoint import load_checkpoint
from training.metrics import evaluate
from training.predict import predict

QUICK = ("--batch-size", "512")
NARROW = ("--hidden-units", "32,16")


def arguments(model: str, folder: Path, epochs: int) -> tuple:
    layers = () if model == "LR" else NARROW  # LR has no layers, and says so
    return ("--model", model, "--output", folder, "--epochs", epochs, *QUICK, *layers)


# IntTower itself is trained, killed and resumed in tests/test_train_script.py.
@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"IntTower"}))
def test_a_model_trains_saves_loads_and_resumes(model, sample_folder, tmp_path):
    result = train("--data", sample_folder, *arguments(model, tmp_path / "whole", 2))
    assert result.returncode == 0, result.stderr
    assert model in result.stdout

    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    assert record["model"] == model
    data = load_movielens(sample_folder)
    options = {"dnn_hidden_units": (32, 16)} if model != "LR" else {}
    loaded = model_class(model).from_columns(data.user_columns, data.item_columns, **options)
    loaded.load_state_dict(load_checkpoint(tmp_path / "whole" / "checkpoint.pt")["best_model"])
    test = evaluate(data.test.labels.numpy(), predict(loaded, data.test), data.test.groups)
    assert test == pytest.approx(record["test"], abs=1e-6)

    assert train("--data", sample_folder, *arguments(model, tmp_path / "resumed", 1)).returncode == 0
    resumed = train("--data", sample_folder, *arguments(model, tmp_path / "resumed", 2), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(tmp_path / "resumed", tmp_path / "whole")


@pytest.mark.parametrize(("module", "model"), [("dssm", "DSSM"), ("dcn", "DCN"), ("deepctr", "xDeepFM")])
def test_editing_one_import_swaps_the_model(module, model, sample_folder, tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    script = (project / SCRIPT).read_text()
    line = "from model.IntTower import IntTower as Model\n"
    assert line in script
    (project / SCRIPT).write_text(script.replace(line, f"from model.{module} import {model} as Model\n"))
    result = run_in_process(SCRIPT, "--data", sample_folder, "--epochs", "1", folder=project)
    assert result.returncode == 0, result.stderr
    folder = project / "runs" / f"movielens-synthetic-{model}-strict-seed1023"
    assert json.loads((folder / "record.json").read_text())["model"] == model


def test_help_lists_the_models():
    help_text = train("--help").stdout
    assert all(model in help_text for model in MODELS)
    assert len(MODELS) == 10  # the paper's nine, and the two-tower with CIR


def test_a_flag_of_another_model_is_refused(sample_folder, tmp_path):
    result = train("--data", sample_folder, "--model", "DSSM", "--user-head", "8", "--output", tmp_path / "run")
    assert_refused(result, "--user-head 8", "DSSM", "--model")
    assert not (tmp_path / "run").exists()


def test_another_models_run_is_not_resumed(sample_folder, tmp_path):
    assert train("--data", sample_folder, *arguments("DSSM", tmp_path / "run", 1)).returncode == 0
    result = train("--data", sample_folder, *arguments("LR", tmp_path / "run", 2), "--resume")
    assert_refused(result, "another run: model is 'DSSM' there, 'LR' here")


def test_the_seed_decides_the_numbers_of_deepctr_torchs_models_too(sample_folder, tmp_path):
    # deepctr-torch's own constructors seed torch with 1024, whatever the seed of the run.
    aucs = []
    for folder, seed in (("first", 1), ("again", 1), ("other", 2)):
        result = train("--data", sample_folder, *arguments("DCN", tmp_path / folder, 1), "--seed", seed)
        assert result.returncode == 0, result.stderr
        aucs.append(json.loads((tmp_path / folder / "record.json").read_text())["test"]["auc"])
    assert aucs[0] == aucs[1]
    assert not np.isclose(aucs[0], aucs[2], atol=1e-9)
