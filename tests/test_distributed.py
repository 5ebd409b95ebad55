"""Processes that train one model on one batch are as one process: real ones on loopback, over gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from models import item_columns, random_features, random_labels, small_model, sparse, user_columns
from shell import PROJECT, SCRIPT, environment
from torch import multiprocessing

from benchmark.loopback import be_process, meeting_place
from model import MODELS
from preprocessing.errors import UserError
from preprocessing.tables import Table
from training.device import resolve_device
from training.distributed import batch_rows, own_rows, rank, shared_batch
from training.errors import Interrupted, NonFiniteLoss
from training.generators import seed_everything
from training.group import process_group
from training.trainer import Trainer

pytestmark = pytest.mark.slow  # each test starts processes
SECONDS = 300  # a deadlock must not hold up all tests
NUM_ROWS = 123  # of which two processes have no two halves; the last batch of 26 has 19
ITEM_COLUMNS = [*item_columns(), sparse("cate_id", 5)]  # DAT compares categories


def table(num_rows: int, seed: int) -> Table:
    features = random_features([*user_columns(), *ITEM_COLUMNS], num_rows, seed)
    return Table(features, random_labels(num_rows, seed), np.arange(num_rows) % 7, np.arange(num_rows))


def trainer_of(name: str, folder: Path | None = None, **options) -> Trainer:
    model = small_model(name, item=ITEM_COLUMNS, **options)
    seed_everything(3)
    # Adam would scale up the rounding that is all the gradient of a bias in front of a batch norm.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return Trainer(model, optimizer=optimizer, batch_size=26, seed=3, run_dir=folder, show_progress=False)


def outcome(trainer: Trainer) -> dict:
    weights = torch.cat([weight.flatten() for weight in trainer.model.state_dict().values()])
    return {"history": trainer.progress.history, "weights": weights.tolist()}


def trained(name: str) -> dict:
    """What ten steps make of a small model, and a validation."""
    trainer, losses = trainer_of(name), []
    step = trainer.step

    def noting(*arguments):
        result = step(*arguments)
        losses.append([float(each) for each in result])
        return result

    trainer.step = noting
    trainer.fit(table(NUM_ROWS, 1), table(41, 2), epochs=2)
    return outcome(trainer) | {"losses": losses}


def train_every_model() -> dict:
    return {name: trained(name) for name in sorted(MODELS)}


def stopped_and_resumed(folder: Path) -> dict:
    """A run, and one whose second process is told to stop within an epoch, and while another is validated."""
    rows, made = table(NUM_ROWS, 1), {}

    def small_batches(place: Path) -> Trainer:
        trainer = trainer_of("IntTower", place, dnn_dropout=0.5)
        trainer.batch_size = 5
        return trainer

    for name in ("whole", "parts"):
        trainer = small_batches(folder / name)
        step, count = trainer.step, 0

        def stopping(*arguments, step=step):
            nonlocal count
            count += 1
            if count == 3 and rank() == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return step(*arguments)

        if name == "parts":
            trainer.step = stopping
            with pytest.raises(Interrupted, match=r"in epoch 1, after batch \d+; saved to"):
                trainer.fit(rows, table(41, 2), epochs=2)
            assert 3 <= trainer.progress.batch < 24
            trainer = small_batches(folder / name)
        trainer.fit(rows, table(41, 2), epochs=1, resume=True)
        if name == "parts":  # and once more, by a signal that comes while the epoch is validated
            trainer = small_batches(folder / name)
            validate = trainer._validate

            def signalled(valid, validate=validate):
                if rank() == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                return validate(valid)

            trainer._validate = signalled
            with pytest.raises(Interrupted, match="in epoch 3, after batch 0; saved to"):
                trainer.fit(rows, table(41, 2), epochs=3, resume=True)
            trainer = small_batches(folder / name)
        trainer.fit(rows, table(41, 2), epochs=3, resume=True)
        made[name] = outcome(trainer)["weights"]
    return made | {"generator": torch.get_rng_state().tolist()}


def small_batches() -> None:
    """Seven rows in batches of three: the last row goes with those before it, so that each process has one."""
    trainer = trainer_of("IntTower")
    trainer.batch_size = 3
    trainer.fit(table(7, 1), epochs=1)
    assert trainer.progress.history[0]["train_loss"] > 0
    trainer.batch_size = 2
    with pytest.raises(UserError, match="a row for each of 3 processes, got 7 rows in batches of 2"):
        trainer.fit(table(7, 1), epochs=1)


def one_process_with_what_is_no_number() -> None:
    trainer = trainer_of("LR")  # no batch norm, which would hand it on
    rows = table(NUM_ROWS, 1)
    step = trainer.step

    def failing(features, *arguments):
        if rank() == 1 and len(features["user_id"]) < 13:  # its part of the fifth batch
            features["user_mean_rating"] = features["user_mean_rating"] * torch.nan
        return step(features, *arguments)

    trainer.step = failing
    with pytest.raises(NonFiniteLoss, match="epoch 1, batch 5 of 5: the loss is nan"):
        trainer.fit(rows, epochs=1)


def work(process: int, num_processes: int, port: int, folder: Path, job, arguments: tuple) -> None:
    be_process(process, num_processes, port)
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        (folder / f"{rank()}.json").write_text(json.dumps(job(*arguments)))


def in_processes(num_processes: int, folder: Path, job, *arguments) -> list[dict]:
    """What a job gives in each of some processes that make a group."""
    store = meeting_place()
    arguments = (num_processes, store.port, folder, job, arguments)
    working = multiprocessing.spawn(work, arguments, num_processes, join=False)
    end = time.monotonic() + SECONDS
    while not working.join(timeout=1):  # raises what a process has raised
        if time.monotonic() > end:
            for process in working.processes:
                process.kill()
            pytest.fail(f"{num_processes} processes hang")
    return [json.loads((folder / f"{process}.json").read_text()) for process in range(num_processes)]


def test_two_processes_have_the_losses_and_the_weights_of_one_whatever_the_model(tmp_path):
    first, second = in_processes(2, tmp_path, train_every_model)
    for name in sorted(MODELS):
        alone = trained(name)
        shares = np.add(first[name]["losses"], second[name]["losses"])
        assert shares == pytest.approx(np.array(alone["losses"]), rel=1e-4, abs=1e-6), name
        assert first[name]["weights"] == second[name]["weights"]
        assert first[name]["weights"] == pytest.approx(alone["weights"], rel=1e-3, abs=1e-4), name
        for of_two, of_one in zip(first[name]["history"], alone["history"], strict=True):
            for key in ("train_loss", "train_auxiliary_loss", "valid_auc", "valid_logloss"):
                assert of_two[key] == pytest.approx(of_one[key], rel=1e-3, abs=1e-5), (name, key)


def test_a_run_of_two_processes_of_which_one_is_told_to_stop_goes_on_to_the_same_bits(tmp_path):
    first, second = in_processes(2, tmp_path, stopped_and_resumed, tmp_path)
    assert first["parts"] == first["whole"] == second["parts"] == second["whole"]
    assert first["generator"] != second["generator"]  # each draws its own dropout
    alone = trainer_of("IntTower", tmp_path / "whole", dnn_dropout=0.5)  # another number of processes takes it up, too
    alone.fit(table(NUM_ROWS, 1), table(41, 2), epochs=4, resume=True)
    assert [row["epoch"] for row in alone.progress.history] == [1, 2, 3, 4]


def test_each_process_has_a_row_of_every_batch(tmp_path):
    assert in_processes(3, tmp_path, small_batches) == [None] * 3


def test_a_loss_of_one_process_that_is_no_number_ends_all_and_names_the_batch(tmp_path):
    assert in_processes(2, tmp_path, one_process_with_what_is_no_number) == [None, None]


def test_torchrun_trains_by_the_script_and_the_first_process_alone_speaks_and_writes(sample_folder, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    command += ["--data", str(sample_folder), "--epochs", "1", "--hidden-units", "16,8", "--output"]
    first = subprocess.run(
        [*command, str(tmp_path / "run")], cwd=PROJECT, env=environment(), capture_output=True, text=True
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("epoch   1") == first.stdout.count("record, checkpoint") == 1
    assert "Warning" not in first.stderr
    assert json.loads((tmp_path / "run" / "record.json").read_text())["num_processes"] == 2
    again = subprocess.run(
        [*command, str(tmp_path / "run")], cwd=PROJECT, env=environment(), capture_output=True, text=True
    )
    assert (again.returncode, again.stderr.count("error:")) == (1, 1)  # torchrun's own code
    assert "expected an empty folder, got the record.json of another run" in again.stderr


def test_a_process_knows_how_many_rows_the_batch_has_and_how_many_of_them_are_its_own(monkeypatch):
    assert batch_rows(4) == 4  # of one that is alone
    monkeypatch.setattr("training.distributed.num_processes", lambda: 3)
    for process, own in enumerate([4, 4, 3]):
        monkeypatch.setattr("training.distributed.rank", lambda process=process: process)
        with shared_batch(11):
            assert len(own_rows(np.arange(11))) == own
            assert batch_rows(own) == 11
            with pytest.raises(UserError, match=f"process {process}: expected {own} of a batch of 11 rows, got 9; "):
                batch_rows(9)
        with pytest.raises(UserError, match=f"process {process}: expected 0 of a batch of 0 rows, got {own}; "):
            batch_rows(own)


def test_each_process_takes_a_cuda_device_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(resolve_device("auto")) == str(resolve_device("cuda")) == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="--device cuda:2: expected that CUDA device, got 2 on this machine"):
        resolve_device("cuda")
    with pytest.raises(UserError, match="--device cuda:0: expected auto, cpu or cuda of several processes"):
        resolve_device("cuda:0")
    monkeypatch.delenv("WORLD_SIZE")  # whose RANK a scheduler has set is alone all the same
    assert str(resolve_device("auto")) == "cuda"
