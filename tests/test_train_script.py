"""The training script as a person runs it: from the shell, on the synthetic sample."""

import json
import resource
import shutil
import signal
import time
from pathlib import Path
from subprocess import Popen

import pytest
import torch
from shell import (
    SCRIPT,
    assert_refused,
    assert_same_run,
    copy_of_the_project,
    environment,
    run_in_process,
    start,
    train,
)

from preprocessing.encode import load_encoders
from training.checkpoint import load_checkpoint

QUICK = ("--epochs", "3", "--hidden-units", "32,16", "--batch-size", "512")


@pytest.fixture(scope="module")
def finished(sample_folder, tmp_path_factory) -> Path:
    """The folder of a quick run that was never interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = train("--data", sample_folder, "--output", folder, *QUICK)
    assert result.returncode == 0, result.stderr
    return folder


def test_without_any_data_or_network_it_trains_on_the_sample_and_says_so_loudly(tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    result = run_in_process(SCRIPT, "--epochs", "6", folder=project)
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC DATA" in result.stdout
    assert "best possible AUC" in result.stdout
    record = json.loads((project / "runs" / "movielens-synthetic-IntTower-strict-seed1023" / "record.json").read_text())
    assert record["synthetic"]
    assert 0.65 < record["test"]["auc"] < record["best_possible_test_auc"]


def test_a_run_leaves_its_record_test_logits_checkpoint_encoders_and_learning_curve(finished):
    assert sorted(path.name for path in finished.iterdir()) == [
        "checkpoint.pt",
        "encoders.json",
        "learning_curve.png",
        "record.json",
        "test_logits.npy",
    ]
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_record_names_everything_that_shaped_the_number(finished):
    record = json.loads((finished / "record.json").read_text())
    for name in ("dataset", "fingerprint", "protocol", "model", "settings", "seed", "test", "epochs", "train_seconds"):
        assert record[name] is not None, name
    assert record["test"].keys() == {"auc", "logloss", "gauc"}
    assert record["settings"]["cir_weight"] > 0
    assert record["samples_per_second"] > 0
    assert record["peak_memory_bytes"] > 2**20
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or record["versions"]["torch"]
    assert "commit" in (record["git"] or {"commit": None})


def test_the_saved_encoders_give_raw_ids_the_ids_of_the_vocabulary(finished):
    user_encoder, item_encoder = load_encoders(finished / "encoders.json")
    state = load_checkpoint(finished / "checkpoint.pt")
    rows = {
        column.name: column.vocabulary_size for column in user_encoder.columns(32)[:1] + item_encoder.columns(32)[:1]
    }
    assert rows["user_id"] == len(state["best_model"]["user_tower.embedding.tables.0.weight"])
    assert rows["movie_id"] == len(state["best_model"]["item_tower.embedding.tables.0.weight"])


def test_paper_reports_the_leak_and_strict_says_why_it_differs(sample_folder, tmp_path):
    # The sample's own marks are taken away, so that it reads like the real archive.
    folder = tmp_path / "ml-1m"
    shutil.copytree(sample_folder, folder)
    (folder / "probabilities.npy").unlink()
    paper = train("--data", folder, "--output", tmp_path / "paper", "--protocol", "paper", *QUICK)
    assert "labels leak" in paper.stdout
    assert "0.8974" in paper.stdout
    strict = train("--data", folder, "--output", tmp_path / "strict", *QUICK)
    assert "not the same measurement" in strict.stdout


def test_the_same_command_gives_the_same_weights(finished, sample_folder, tmp_path):
    assert train("--data", sample_folder, "--output", tmp_path / "again", *QUICK).returncode == 0
    assert_same_run(tmp_path / "again", finished)


def start_and_wait_for_a_checkpoint(folder: Path, *arguments) -> Popen:
    process = start(SCRIPT, *arguments, "--output", folder)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1])
def test_a_killed_run_resumes_bit_for_bit(finished, sample_folder, tmp_path, delay):
    # There is a checkpoint after every batch, so the kill falls within an epoch, or between two, or into a write.
    arguments = ("--data", sample_folder, *QUICK, "--checkpoint-seconds", "0")
    process = start_and_wait_for_a_checkpoint(tmp_path / "run", *arguments)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = train(*arguments, "--output", tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(tmp_path / "run", finished)


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(finished, sample_folder, tmp_path):
    arguments = ("--data", sample_folder, *QUICK, "--checkpoint-seconds", "0")
    process = start_and_wait_for_a_checkpoint(tmp_path / "run", *arguments)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert train(*arguments, "--output", tmp_path / "run", "--resume").returncode == 0
    assert_same_run(tmp_path / "run", finished)


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


def test_resuming_a_finished_run_on_other_data_is_refused(finished, sample_folder, tmp_path):
    folder = shutil.copytree(sample_folder, tmp_path / "ml-1m")
    ratings = (folder / "ratings.dat").read_text()
    (folder / "ratings.dat").write_text(ratings.replace("::5::", "::4::", 1))
    before = (finished / "record.json").read_bytes()
    assert_refused(train("--data", folder, "--output", finished, "--resume", *QUICK), "data is")
    assert (finished / "record.json").read_bytes() == before


def test_a_path_that_is_too_long_is_one_line(tmp_path):
    assert_refused(train("--data", "x" * 5000, "--output", tmp_path / "run"), "name too long")


def test_resuming_a_finished_run_with_other_settings_is_refused(finished, sample_folder):
    before = (finished / "record.json").read_bytes()
    result = train("--data", sample_folder, "--output", finished, "--resume", *QUICK, "--field-dim", "8")
    assert_refused(result, "field_dim is 16 there, 8 here")
    assert (finished / "record.json").read_bytes() == before


def test_a_second_run_does_not_replace_the_first_unless_told_to(finished, sample_folder, tmp_path):
    before = (finished / "record.json").read_bytes()
    assert_refused(train("--data", sample_folder, "--output", finished, *QUICK), "--overwrite", "--resume")
    assert (finished / "record.json").read_bytes() == before
    copy = shutil.copytree(finished, tmp_path / "copy")
    assert_refused(train("--data", tmp_path / "nowhere", "--output", copy, "--overwrite", *QUICK), "nowhere")
    assert (copy / "record.json").read_bytes() == before
    again = train("--data", sample_folder, "--output", copy, "--overwrite", "--epochs", "1", *QUICK[2:])
    assert again.returncode == 0, again.stderr
    assert json.loads((copy / "record.json").read_text())["epochs"] == 1


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--protocol", "stric"), ("--protocol", "strict", "paper", "temporal")),
        (("--model", "Nothing"), ("--model", "IntTower")),
        (("--epochs", "many"), ("--epochs", "many")),
        (("--no-such-flag",), ("--no-such-flag",)),
        (("--dropout", "1"), ("--dropout", "[0, 1)")),
        (("--levels", "0,7"), ("levels", "0 to 2")),
        (("--fe-input", "both"), ("output", "input")),
        (("--device", "tpu"), ("--device", "cpu")),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(arguments, fragments, sample_folder, tmp_path):
    assert_refused(train("--data", sample_folder, "--output", tmp_path / "run", *arguments), *fragments)
    assert not (tmp_path / "run" / "record.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_refused(sample_folder, tmp_path):
    assert_refused(train("--data", sample_folder, "--device", "cuda", "--output", tmp_path / "run"), "--device cpu")


def test_a_named_path_that_is_missing_is_an_error_and_never_a_fallback(tmp_path):
    assert_refused(train("--data", tmp_path / "nowhere", "--output", tmp_path / "run"), "nowhere")
    empty = environment(INTTOWER_DATA=str(tmp_path))
    assert_refused(train("--output", tmp_path / "run", env=empty), "$INTTOWER_DATA")
    assert not (tmp_path / "run").exists()


def test_a_faulty_rating_is_named_by_file_and_line(sample_folder, tmp_path):
    folder = shutil.copytree(sample_folder, tmp_path / "ml-1m")
    lines = (folder / "ratings.dat").read_text().splitlines()
    lines[6] = lines[6].replace("::", ":", 1)
    (folder / "ratings.dat").write_text("\n".join(lines))
    assert_refused(train("--data", folder, "--output", tmp_path / "run"), "ratings.dat, line 7", "4 columns")


def test_a_checkpoint_of_another_model_is_refused_and_left_alone(finished, sample_folder, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "record.json").unlink()
    before = (copy / "checkpoint.pt").read_bytes()
    result = train("--data", sample_folder, "--output", copy, "--resume", *QUICK, "--user-head", "2")
    assert_refused(result, "user_head is 4 there, 2 here")
    assert (copy / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_of_another_vocabulary_is_refused(finished, sample_folder, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "record.json").unlink()
    folder = shutil.copytree(sample_folder, tmp_path / "ml-1m")
    ratings = (folder / "ratings.dat").read_text().splitlines()
    (folder / "ratings.dat").write_text("\n".join(ratings[: len(ratings) // 2]))
    (folder / "probabilities.npy").unlink()
    before = (copy / "encoders.json").read_bytes()
    assert_refused(train("--data", folder, "--output", copy, "--resume", *QUICK), "vocabulary sizes")
    assert (copy / "encoders.json").read_bytes() == before


def test_a_disk_that_refuses_while_saving_is_one_line_and_leaves_no_half_file(sample_folder, tmp_path):
    # The checkpoint is larger than the size that files may have in this process.
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # noqa: E731
    result = run_in_process(SCRIPT, "--data", sample_folder, "--output", tmp_path / "run", *QUICK, preexec_fn=limit)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "checkpoint.pt: could not be saved" in result.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["encoders.json"]


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(sample_folder, tmp_path):
    result = train("--data", sample_folder, "--output", tmp_path / "run", *QUICK, "--lr", "1e30")
    assert result.returncode == 1, result.stdout
    assert "batch" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_explains_every_flag():
    result = train("--help")
    assert result.returncode == 0
    for flag in ("--data", "--protocol", "--model", "--epochs", "--patience", "--batch-size", "--lr", "--dropout"):
        assert flag in result.stdout
    for flag in ("--embedding-dim", "--seed", "--device", "--output", "--resume", "--user-head", "--cir-weight"):
        assert flag in result.stdout


def test_the_released_settings_are_a_preset_that_flags_overrule(sample_folder, tmp_path):
    arguments = ("--data", sample_folder, "--output", tmp_path / "run", "--preset", "released", "--epochs", "1")
    result = train(*arguments, "--field-dim", "8")
    assert result.returncode == 0, result.stderr
    settings = json.loads((tmp_path / "run" / "record.json").read_text())["settings"]
    assert (settings["user_head"], settings["item_head"], settings["field_dim"]) == (32, 32, 8)
    assert settings["fe_input"] == "input"
    assert settings["cir_weight"] == 0
