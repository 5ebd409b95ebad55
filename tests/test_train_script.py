"""The training script as a person runs it: from the shell, on the synthetic sample, with every model."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from shell import (
    PROJECT,
    SCRIPT,
    assert_refused,
    assert_same_run,
    copy_of_the_project,
    environment,
    limited_file_size,
    run,
    run_in_process,
    start,
    train,
)

from experiment.folder import only_run, open_run_folder
from experiment.settings import TrainingSettings
from model import MODELS, model_class
from preprocessing.command import EXIT_BROKEN_PIPE
from preprocessing.encode import load_encoders
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens
from training.checkpoint import load_checkpoint
from training.metrics import evaluate
from training.predict import predict
from training.trainer import Trainer

# What a search found for MovieLens says nothing of the sample, and would have these tests change with it.
QUICK = ("--epochs", "3", "--preset", "untuned", "--hidden-units", "32,16", "--batch-size", "512")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(sample_folder, tmp_path_factory) -> Path:
    """The folder of a quick run that was never interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = train("--data", sample_folder, "--output", folder, *QUICK)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_without_any_data_or_network_it_trains_on_the_sample_and_says_so_loudly(tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    result = run_in_process(SCRIPT, folder=project)
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC DATA" in result.stdout
    assert "best possible AUC" in result.stdout
    record = json.loads((project / "runs" / "movielens-synthetic-IntTower-strict-seed1023" / "record.json").read_text())
    assert record["synthetic"]
    assert record["history"][0]["valid_auc"] + 0.02 < record["valid"]["auc"]  # it learns, and that is seen
    assert 0.7 < record["test"]["auc"] < record["best_possible_test_auc"]


def test_a_run_leaves_its_results_and_a_record_that_names_everything_that_shaped_them(finished):
    names = [".lock", "checkpoint.pt", "encoders.json", "learning_curve.png", "record.json", "test_logits.npy"]
    assert sorted(path.name for path in finished.iterdir()) == names
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((finished / "record.json").read_text())
    for name in ("dataset", "fingerprint", "protocol", "model", "settings", "seed", "test", "epochs", "train_seconds"):
        assert record[name] is not None, name
    assert record["test"].keys() == {"auc", "logloss", "gauc"}
    assert record["settings"]["cir_weight"] > 0
    assert record["samples_per_second"] > 0
    assert record["peak_memory_bytes"] > 2**20
    assert record["versions"]["torch"]
    assert "commit" in (record["git"] or {"commit": None})


def test_the_saved_encoders_give_raw_ids_the_ids_of_the_vocabulary(finished):
    user_encoder, item_encoder = load_encoders(finished / "encoders.json")
    state = load_checkpoint(finished / "checkpoint.pt")
    rows = {
        column.name: column.vocabulary_size for column in user_encoder.columns(32)[:1] + item_encoder.columns(32)[:1]
    }
    assert rows["user_id"] == len(state["best_model"]["user_tower.embedding.tables.0.weight"])
    assert rows["movie_id"] == len(state["best_model"]["item_tower.embedding.tables.0.weight"])


def test_a_real_archive_is_set_beside_the_published_figures(sample_folder, tmp_path):
    # The sample's own marks are taken away, so that it reads like the real archive.
    folder = shutil.copytree(sample_folder, tmp_path / "ml-1m")
    (folder / "probabilities.npy").unlink()
    paper = train("--data", folder, "--output", tmp_path / "paper", "--protocol", "paper", *QUICK, "--epochs", "1")
    assert "labels leak" in paper.stdout
    assert "0.8974" in paper.stdout


def test_the_same_command_gives_the_same_weights_and_another_seed_gives_others(finished, sample_folder, tmp_path):
    assert train("--data", sample_folder, "--output", tmp_path / "again", *QUICK).returncode == 0
    assert_same_run(tmp_path / "again", finished)
    arguments = ("--data", sample_folder, "--output", tmp_path / "other", *QUICK, "--seed", "2")
    assert train(*arguments).returncode == 0
    losses = [json.loads((folder / "record.json").read_text())["test"] for folder in (finished, tmp_path / "other")]
    assert losses[0] != losses[1]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_run_that_is_killed_or_stopped_by_ctrl_c_resumes_bit_for_bit(finished, sample_folder, tmp_path, number, code):
    # There is a checkpoint after every batch, so the kill falls within an epoch, or between two, or into a write.
    arguments = ("--data", sample_folder, *QUICK, "--checkpoint-seconds", "0", "--output", tmp_path / "run")
    process = start(SCRIPT, *arguments)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert number == signal.SIGKILL or "--resume" in stderr
    resumed = train(*arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(tmp_path / "run", finished)


@pytest.mark.parametrize("place", ["link", "link/run"])
def test_an_output_behind_a_link_that_leads_nowhere_is_named(sample_folder, tmp_path, place):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    result = train("--data", sample_folder, "--output", tmp_path / place, *QUICK)
    assert_refused(result, "link: expected a folder, got a link that leads nowhere", "gone")
    assert not (tmp_path / "gone").exists()


def test_resuming_a_finished_run_prints_its_report_again(finished, sample_folder):
    before = (finished / "checkpoint.pt").read_bytes()
    result = train("--data", sample_folder, "--output", finished, "--resume", *QUICK)
    assert result.returncode == 0
    assert "AUC" in result.stdout
    assert (finished / "checkpoint.pt").read_bytes() == before


def test_resuming_a_finished_run_with_more_epochs_goes_on(finished, sample_folder, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    arguments = ("--data", sample_folder, "--output", copy, "--resume", *QUICK[2:])
    assert train(*arguments, "--epochs", "4").returncode == 0
    history = json.loads((copy / "record.json").read_text())["history"]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[:3] == json.loads((finished / "record.json").read_text())["history"]


@pytest.mark.parametrize(
    ("has_record", "arguments", "fragments"),
    [
        (True, (), ("--overwrite", "--resume")),
        (True, ("--resume", "--epochs", "1"), ("--epochs 1 and --patience 5 end after epoch 1, and the run there",)),
        (True, ("--resume", "--field-dim", "8"), ("field_dim is 16 there, 8 here",)),
        (True, ("--resume", "--model", "DSSM"), ("another run: model is 'IntTower' there, 'DSSM' here",)),
        (False, ("--resume", "--user-head", "2"), ("user_head is 4 there, 2 here",)),
        (True, ("--overwrite", "--data", "nowhere"), ("nowhere",)),
    ],
)
def test_another_run_in_the_folder_is_refused_and_left_alone(
    finished, sample_folder, tmp_path, has_record, arguments, fragments
):
    copy = shutil.copytree(finished, tmp_path / "copy")
    if not has_record:
        (copy / "record.json").unlink()
    before = contents(copy)
    assert_refused(train("--data", sample_folder, "--output", copy, *QUICK, *arguments), *fragments)
    assert contents(copy) == before


def test_a_run_is_not_resumed_with_other_code_than_began_it(finished, sample_folder, tmp_path, monkeypatch):
    copy = shutil.copytree(finished, tmp_path / "copy")
    before = contents(copy)
    monkeypatch.setattr("experiment.record.code_version", lambda model: "c" * 64)  # a file of it was edited
    result = train("--data", sample_folder, "--output", copy, "--resume", *QUICK)
    assert_refused(result, "code is ", "Go on with the code that began it, or another --output")
    assert contents(copy) == before


def test_a_run_on_other_data_is_not_resumed(finished, sample_folder, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    folder = shutil.copytree(sample_folder, tmp_path / "ml-1m")
    ratings = (folder / "ratings.dat").read_text()
    (folder / "ratings.dat").write_text(ratings.replace("::5::", "::4::", 1))
    before = contents(copy)
    assert_refused(train("--data", folder, "--output", copy, "--resume", *QUICK), "data is")
    (folder / "ratings.dat").write_text(ratings[: ratings.index("\n", len(ratings) // 2)])
    (folder / "probabilities.npy").unlink()
    assert_refused(train("--data", folder, "--output", copy, "--resume", *QUICK), "vocabulary sizes")
    assert contents(copy) == before


def test_a_run_is_replaced_where_that_is_wanted(finished, sample_folder, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    again = train("--data", sample_folder, "--output", copy, "--overwrite", *QUICK, "--epochs", "1")
    assert again.returncode == 0, again.stderr
    assert json.loads((copy / "record.json").read_text())["epochs"] == 1


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--no-such-flag",), ("--no-such-flag",)),
        (("--levels", "0,7"), ("levels", "0 to 2")),
        (("--model", "DSSM", "--user-head", "8"), ("--user-head 8", "DSSM", "--model")),
        (("--data", "x" * 5000), ("name too long",)),
        (("--data", "nowhere"), ("nowhere",)),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(arguments, fragments, sample_folder, tmp_path):
    assert_refused(train("--data", sample_folder, "--output", tmp_path / "run", *arguments), *fragments)
    assert not (tmp_path / "run").exists()


def test_a_path_that_the_environment_names_and_is_empty_is_an_error_and_never_a_fallback(tmp_path):
    empty = environment(INTTOWER_DATA=str(tmp_path))
    assert_refused(train("--output", tmp_path / "run", env=empty), "$INTTOWER_DATA")
    assert not (tmp_path / "run").exists()


def test_a_faulty_rating_is_named_by_file_and_line(sample_folder, tmp_path):
    folder = shutil.copytree(sample_folder, tmp_path / "ml-1m")
    lines = (folder / "ratings.dat").read_text().splitlines()
    lines[6] = lines[6].replace("::", ":", 1)
    (folder / "ratings.dat").write_text("\n".join(lines))
    assert_refused(train("--data", folder, "--output", tmp_path / "run"), "ratings.dat, line 7", "4 columns")


def test_a_disk_that_refuses_while_saving_is_one_line_and_leaves_no_half_file(sample_folder, tmp_path):
    with limited_file_size(60_000):  # less than the checkpoint needs
        result = train("--data", sample_folder, "--output", tmp_path / "run", *QUICK)
    assert_refused(result, "checkpoint.pt: could not be saved")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_on_a_full_disk_the_run_that_was_to_be_replaced_stays(finished, sample_folder, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    before = contents(copy)
    with limited_file_size(60_000):
        result = train("--data", sample_folder, "--output", copy, "--overwrite", *QUICK, "--seed", "2")
    assert_refused(result, "checkpoint.pt: could not be saved", "what stood there before is untouched")
    assert contents(copy) == before


@pytest.mark.parametrize("more", [("--overwrite",), ("--resume", "--epochs", "5")])
def test_a_loss_that_is_no_number_leaves_the_run_that_stood_there(finished, sample_folder, tmp_path, more, monkeypatch):
    copy = shutil.copytree(finished, tmp_path / "copy")
    before = contents(copy)
    monkeypatch.setattr(Trainer, "step", lambda *_: (torch.tensor(math.nan), torch.tensor(0.0)))
    result = train("--data", sample_folder, "--output", copy, *QUICK, *more)
    assert (result.returncode, "the loss is nan" in result.stderr) == (1, True), result.stderr
    assert contents(copy) == before


def test_a_second_run_in_a_folder_is_refused_in_a_line_while_the_first_is_at_work(finished, sample_folder, tmp_path):
    arguments = ("--data", sample_folder, "--output", tmp_path / "run", *QUICK)
    with only_run(tmp_path / "run"):
        for more in ((), ("--overwrite",), ("--resume",)):
            assert_refused(run_in_process(SCRIPT, *arguments, *more), "expected no other run at work in this folder")
        with pytest.raises(UserError, match="expected no other run at work"), only_run(tmp_path / "run"):
            pass
    assert contents(tmp_path / "run") == {".lock": b""}


@pytest.mark.slow
def test_what_a_killed_process_has_left_half_written_goes_and_nothing_else(tmp_path):
    code = """
import os, pathlib, signal, sys
from preprocessing.files import write_atomically
write_atomically(pathlib.Path(sys.argv[1]), lambda file: os.kill(os.getpid(), signal.SIGKILL))
"""
    assert run_in_process("-c", code, tmp_path / "checkpoint.pt").returncode == -signal.SIGKILL
    assert len(contents(tmp_path)) == 1
    for name in (".record.json.1", ".checkpoint.pt.mine", "checkpoint.pt.77", ".notes.77"):
        (tmp_path / name).touch()
    with only_run(tmp_path):
        pass
    assert sorted(contents(tmp_path)) == [".checkpoint.pt.mine", ".lock", ".notes.77", "checkpoint.pt.77"]


@pytest.mark.slow
def test_the_lock_of_a_folder_goes_with_the_process_that_was_killed(tmp_path):
    code = """
import os, pathlib, signal, sys
from experiment.folder import only_run
with only_run(pathlib.Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_in_process("-c", code, tmp_path / "run").returncode == -signal.SIGKILL
    with only_run(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()


def test_a_finished_run_whose_checkpoint_or_encoders_are_of_another_is_not_taken_as_it_is(
    finished, sample_folder, tmp_path
):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "encoders.json").write_text("{}")
    arguments = ("--data", sample_folder, "--resume", *QUICK)
    assert train(*arguments, "--output", copy).returncode == 0
    assert (copy / "encoders.json").read_bytes() == (finished / "encoders.json").read_bytes()
    assert_same_run(copy, finished)

    assert train("--data", sample_folder, "--output", tmp_path / "other", *QUICK, "--seed", "2").returncode == 0
    shutil.copy(tmp_path / "other" / "checkpoint.pt", copy)
    assert_refused(train(*arguments, "--output", copy), "checkpoint.pt: belongs to another run: seed is 2 there")


@pytest.mark.slow
@pytest.mark.parametrize("reads", ["nothing", "the first epoch"])
def test_a_run_whose_output_nobody_reads_ends_quietly_and_goes_on_later(reads, finished, sample_folder, tmp_path):
    arguments = ("--data", sample_folder, "--output", tmp_path / "run", *QUICK)
    process = start(SCRIPT, *arguments, env=environment(PYTHONUNBUFFERED=""))
    while reads == "the first epoch" and not process.stdout.readline().startswith("epoch   1"):
        assert process.poll() is None
    process.stdout.close()
    stderr = process.stderr.read()
    assert (process.wait(), stderr) == (EXIT_BROKEN_PIPE, "")
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    assert train(*arguments, "--resume").returncode == 0
    assert_same_run(tmp_path / "run", finished)


@pytest.mark.slow
def test_a_full_disk_behind_the_output_costs_lines_and_not_the_run(finished, sample_folder, tmp_path):
    arguments = ("--data", sample_folder, "--output", tmp_path / "run", *QUICK)
    with open("/dev/full", "w") as full:
        command = [sys.executable, SCRIPT, *map(str, arguments)]
        result = subprocess.run(
            command, cwd=PROJECT, env=environment(PYTHONUNBUFFERED=""), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (result.returncode, result.stderr) == (
        2,
        "error: stdout: No space left on device; not all of what was printed is there.\n",
    )
    assert_same_run(tmp_path / "run", finished)
    assert (tmp_path / "run" / "learning_curve.png").exists()


def test_a_model_larger_than_memory_is_a_line(sample_folder, tmp_path):
    arguments = ("--data", sample_folder, "--output", tmp_path / "run", *QUICK)
    for flags in (("--embedding-dim", "10000000000"), ("--embedding-dim", str(2**60)), ("--hidden-units", str(2**40))):
        assert_refused(train(*arguments, *flags), "expected memory for what was asked for, got too little (")


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(sample_folder, tmp_path):
    result = train("--data", sample_folder, "--output", tmp_path / "run", *QUICK, "--lr", "1e30")
    assert result.returncode == 1, result.stdout
    assert "batch" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_released_settings_are_a_preset_that_flags_overrule(sample_folder, tmp_path):
    arguments = ("--data", sample_folder, "--output", tmp_path / "run", "--preset", "released", "--epochs", "1")
    result = train(*arguments, "--field-dim", "8")
    assert result.returncode == 0, result.stderr
    settings = json.loads((tmp_path / "run" / "record.json").read_text())["settings"]
    assert (settings["user_head"], settings["item_head"], settings["field_dim"]) == (32, 32, 8)
    assert settings["fe_input"] == "input"
    assert settings["cir_weight"] == 0


# IntTower itself is trained, killed and resumed above; of the others one of ours is resumed and one of deepctr-torch's.
@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"IntTower"}))
def test_a_model_trains_saves_loads_and_resumes(model, sample_folder, tmp_path):
    layers = {} if model in ("LR", "StatisticsLR") else {"dnn_hidden_units": (32, 16)}  # LR has no layers, and says so
    arguments = ("--data", sample_folder, "--preset", "untuned", "--model", model, "--batch-size", "512")
    arguments += ("--hidden-units", "32,16") if layers else ()
    whole = train(*arguments, "--output", tmp_path / "whole", "--epochs", "2")
    assert whole.returncode == 0, whole.stderr
    assert model in whole.stdout

    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    assert record["model"] == model
    data = load_movielens(sample_folder)
    loaded = model_class(model).from_columns(data.user_columns, data.item_columns, **layers)
    loaded.load_state_dict(load_checkpoint(tmp_path / "whole" / "checkpoint.pt")["best_model"])
    test = evaluate(data.test.labels.numpy(), predict(loaded, data.test), data.test.groups)
    assert test == pytest.approx(record["test"], abs=1e-6)

    if model in ("DAT", "DCN"):
        for more in (("--epochs", "1"), ("--epochs", "2", "--resume")):
            assert train(*arguments, "--output", tmp_path / "resumed", *more).returncode == 0
        assert_same_run(tmp_path / "resumed", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("module", "model"), [("dcn", "DCN"), ("deepctr", "xDeepFM")])
def test_editing_one_import_swaps_the_model(module, model, sample_folder, tmp_path):
    line = "from model.IntTower import IntTower as Model\n"
    script = (PROJECT / SCRIPT).read_text()
    assert line in script
    (tmp_path / SCRIPT).write_text(script.replace(line, f"from model.{module} import {model} as Model\n"))
    arguments = ("--data", sample_folder, "--epochs", "1", "--hidden-units", "16,8", "--output", tmp_path / "run")
    result = run(tmp_path / SCRIPT, *arguments)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "record.json").read_text())["model"] == model


def test_a_runs_folder_is_called_after_its_data_model_protocol_and_seed():
    settings = TrainingSettings(protocol="paper", seed=7)
    assert open_run_folder(settings, "movielens", "DCN") == Path("runs/movielens-DCN-paper-seed7")
