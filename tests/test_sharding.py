"""Embedding tables that are dealt out to all processes: losses and checkpoints are those of one process."""

import copy
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models import item_columns, random_features, random_labels, small_model, sparse, user_columns, varlen
from shell import PROJECT, SCRIPT, assert_refused, environment, run
from test_distributed import in_processes
from torch import nn

from experiment.installed import SHARDING, check_fbgemm
from model.layers import embedding_table
from preprocessing.errors import UserError
from preprocessing.tables import Table
from serving.trained_run import load_model
from training import CHECKPOINT, predict
from training.checkpoint import load_checkpoint, weights_checksum
from training.distributed import rank
from training.generators import seed_everything
from training.trainer import Trainer

MISSING = [name for name in SHARDING if importlib.util.find_spec(name) is None]
needs_torchrec = pytest.mark.skipif(bool(MISSING), reason=f"needs requirements-sharding.txt: no {', '.join(MISSING)}")
# Three tables have more than ROWS rows: the cities', the movies' and the tags'.
USER_COLUMNS = [*user_columns(), sparse("city", 19)]
ITEM_COLUMNS = [*item_columns(), varlen("tags", 23, combiner="sum")]
ROWS, NUM_ROWS = 11, 123  # of which two processes have no two halves
L2, LEARNING_RATE, DENSE_LEARNING_RATE = 0.01, 0.1, 0.01


class RowwiseAdagrad(torch.optim.Optimizer):
    """A number a row, and a step for the rows that a batch names alone."""

    @torch.no_grad()
    def step(self) -> None:
        [group] = self.param_groups
        for weight in group["params"]:
            squares = self.state[weight].setdefault("squares", torch.zeros(len(weight)))
            rows = weight.grad.abs().sum(1).nonzero()[:, 0]
            grad = weight.grad[rows] + 2 * L2 * weight[rows]
            squares[rows] += grad.square().mean(1)
            weight[rows] -= group["lr"] * grad / (squares[rows].sqrt() + 1e-8)[:, None]


class Both(torch.optim.SGD):
    """What trains the dense rest, and beside it row-wise Adagrad for some tables."""

    def __init__(self, dense: list, tables: list):
        super().__init__(dense, lr=DENSE_LEARNING_RATE)
        self.tables = RowwiseAdagrad(tables, {})

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self.tables.zero_grad(set_to_none)

    def step(self) -> None:
        super().step()
        self.tables.param_groups[0]["lr"] = self.param_groups[0]["lr"] / DENSE_LEARNING_RATE * LEARNING_RATE
        self.tables.step()


def table(num_rows: int, seed: int) -> Table:
    features = random_features([*USER_COLUMNS, *ITEM_COLUMNS], num_rows, seed)
    return Table(features, random_labels(num_rows, seed), np.arange(num_rows) % 7, np.arange(num_rows))


def trainer_of(folder: Path | None = None, shard_rows: int = ROWS, adam=False, dropout=0.0, **options) -> Trainer:
    model = small_model("IntTower", USER_COLUMNS, ITEM_COLUMNS, dnn_dropout=dropout)
    seed_everything(3)
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings > ROWS]
    dense = [p for p in model.parameters() if id(p) not in set(map(id, tables))]
    # Adam would scale up the rounding that is all the gradient of a bias in front of a batch norm.
    optimizer = torch.optim.SGD(dense, lr=DENSE_LEARNING_RATE) if shard_rows else Both(dense, tables)
    return Trainer(
        *(model, DENSE_LEARNING_RATE, 26, L2),
        optimizer=None if adam else optimizer,
        schedule=lambda done: 1 - done / 2,
        seed=3,
        run_dir=folder,
        show_progress=False,
        shard_rows=shard_rows,
        shard_learning_rate=LEARNING_RATE,
        **options,
    )


def outcome(trainer: Trainer) -> dict:
    """Of all processes, on the first one."""
    weights = {name: value.tolist() for name, value in trainer.whole(trainer.model.state_dict()).items()}
    history = [[row["train_loss"], row["train_auxiliary_loss"], row["valid_auc"]] for row in trainer.progress.history]
    return {"weights": weights, "history": history, "logits": trainer.predict(table(41, 2)).tolist()}


def trained(folder: Path | None = None, shard_rows: int = ROWS) -> dict:
    """What ten steps make of a small model."""
    trainer, losses = trainer_of(folder, shard_rows), []
    start = outcome(trainer)["weights"]
    step = trainer.step

    def noting(*arguments):
        result = step(*arguments)
        losses.append([float(each) for each in result])
        return result

    trainer.step = noting
    trainer.fit(table(NUM_ROWS, 1), table(41, 2), epochs=2)
    return outcome(trainer) | {"losses": losses, "start": start}


def gone_on(folder: Path) -> dict:
    """A third epoch, from a checkpoint of other processes; then a table that has no row for each process."""
    predict.EVALUATION_BATCH = 4  # so that processes have unequal numbers of batches
    trainer = trainer_of(folder)
    trainer.fit(table(NUM_ROWS, 1), table(41, 2), epochs=3, resume=True)
    return outcome(trainer) | {"few": trainer.predict(table(2, 4)).tolist()}


def look_ups_of_padded_lists() -> None:
    """Those of a sharded table are a plain one's, though one process has nothing to look up."""
    from training.sharding import shard_tables

    seed_everything(3)
    plain = embedding_table(9, 4, 1.0, padded=True)
    model = nn.ModuleList([copy.deepcopy(plain)])
    [table] = shard_tables(model, 8, torch.device("cpu"), 0.1, 0.5).values()
    ids_BT = torch.tensor([[3, 8, 0], [0, 0, 0], [1, 1, 5]]) * (rank() == 0)
    for _ in range(2):
        assert torch.equal(table(ids_BT), plain(ids_BT))
        for mode in ("mean", "sum", "max"):
            torch.testing.assert_close(table.pooled(ids_BT, mode), plain.pooled(ids_BT, mode))
        with torch.inference_mode():
            assert torch.equal(table(ids_BT.clone()), plain(ids_BT))
        table.scale_learning_rate(0.0)
        (table(ids_BT).sum() + sum(table.pooled(ids_BT, mode).sum() for mode in ("mean", "sum", "max"))).backward()
    table.scale_learning_rate(1.0)
    table(ids_BT).sum().backward()
    weight = table.whole(table.weight)
    if rank() == 0:
        changed = (weight != plain.weight).any(1).nonzero()[:, 0]
        assert changed.tolist() == [1, 3, 5, 8]


def of_two_processes(folder: Path) -> dict:
    """Ten steps; a run with all that is drawn and averaged, and one that is stopped after an epoch and resumed."""
    look_ups_of_padded_lists()
    predict.EVALUATION_BATCH = 4
    made = {"steps": trained(folder / "steps")}
    options = {"adam": True, "dropout": 0.5, "average_decay": 0.5, "id_dropout": {"movie_id": 0.2}, "validate_every": 2}
    for name in ("whole", "parts"):
        for stops in (True, False) if name == "parts" else (False,):
            trainer = trainer_of(folder / name, **options)
            rows = table(NUM_ROWS, 1), table(41, 2)
            trainer.fit(*rows, epochs=3, resume=True, after_epoch=lambda _, stops=stops: stops)
        made[name] = outcome(trainer)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[dict, dict, Path]:
    """What both processes made, and their folder."""
    folder = tmp_path_factory.mktemp("sharded")
    return *in_processes(2, folder, of_two_processes, folder), folder


def assert_close(weights: dict, other: dict) -> None:
    assert weights.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(torch.tensor(weights[name]), torch.tensor(value), rtol=1e-3, atol=1e-4, msg=name)


@needs_torchrec
@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_that_has_row_wise_adagrad(made):
    first, second, _ = made
    alone = trained(shard_rows=0)
    assert first["steps"]["start"] == alone["start"]
    shares = np.add(first["steps"]["losses"], second["steps"]["losses"])
    assert len(shares) == 10
    assert shares == pytest.approx(np.array(alone["losses"]), rel=1e-4, abs=1e-6)
    assert np.array(first["steps"]["history"]) == pytest.approx(np.array(alone["history"]), rel=1e-3, abs=1e-5)
    assert_close(first["steps"]["weights"], alone["weights"])
    assert first["steps"]["logits"] == second["steps"]["logits"]
    assert first["steps"]["logits"] == pytest.approx(alone["logits"], rel=1e-3, abs=1e-4)


@needs_torchrec
@pytest.mark.slow
def test_a_run_that_is_resumed_by_as_many_processes_ends_with_the_same_bits(made):
    first, second, _ = made
    assert first["parts"] == first["whole"]
    assert second["parts"] == second["whole"]


@needs_torchrec
@pytest.mark.slow
def test_a_checkpoint_has_the_plain_weights_which_one_process_reads(made):
    first, _, folder = made
    state = load_checkpoint(folder / "steps" / CHECKPOINT)
    model = small_model("IntTower", USER_COLUMNS, ITEM_COLUMNS)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    for part in ("model", "best_model"):
        assert {name: value.shape for name, value in state[part].items()} == shapes
    model.load_state_dict(state["best_model"])
    logits = predict.predict(model, table(41, 2))
    assert logits.tolist() == pytest.approx(first["steps"]["logits"], rel=1e-5, abs=1e-6)


@needs_torchrec
@pytest.mark.slow
def test_other_numbers_of_processes_take_up_a_checkpoint(made, tmp_path):
    _, _, folder = made
    ends = []
    for count in (1, 3):
        place = tmp_path / str(count)
        shutil.copytree(folder / "steps", place)
        ends.append(in_processes(count, place, gone_on, place)[0])
    of_one, of_three = ends
    assert of_one["history"][:2] == of_three["history"][:2]
    assert np.array(of_one["history"]) == pytest.approx(np.array(of_three["history"]), rel=1e-3, abs=1e-5)
    assert_close(of_one["weights"], of_three["weights"])
    assert of_one["few"] == pytest.approx(of_three["few"], rel=1e-3, abs=1e-4)


@needs_torchrec
@pytest.mark.slow
def test_a_run_of_torchrun_is_read_and_served_as_any_other(sample_folder, tmp_path):
    words = ["--data", sample_folder, "--epochs", 1, "--hidden-units", "16,8", "--shard-embeddings", 100]
    words = [SCRIPT, *map(str, words), "--shard-lr", "0.02", "--output", str(tmp_path)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run([*command, *words], cwd=PROJECT, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    name = "user_tower.embedding.tables.0.weight"
    assert f"on all 2 processes, trained by row-wise Adagrad: {name}\n" in result.stdout
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["sharded"] == {"tables": [name], "optimizer": "row-wise Adagrad"}
    assert (record["settings"]["shard_embeddings"], record["settings"]["shard_lr"]) == (100, 0.02)
    model = load_model(tmp_path).model
    assert record["num_parameters"] == sum(weight.numel() for weight in model.parameters())
    assert record["weights"] == weights_checksum(model.state_dict())


@needs_torchrec
def test_a_model_without_a_table_of_that_size_is_refused():
    with pytest.raises(
        UserError, match="--shard-embeddings 23: expected an embedding table of at least 24 rows and of"
    ):
        trainer_of(shard_rows=23)


@needs_torchrec
def test_a_build_of_fbgemm_that_does_not_know_the_device_is_refused():
    check_fbgemm("cpu")
    with pytest.raises(UserError, match="expected fbgemm's build for CUDA, got fbgemm-gpu-cpu; put fbgemm-gpu==1"):
        check_fbgemm("cuda")
    with pytest.raises(UserError, match="expected a CPU or CUDA, got --device mps"):
        check_fbgemm("mps")


def test_what_cannot_be_is_refused_before_data_are_read(monkeypatch):
    assert_refused(run(SCRIPT, "--shard-embeddings", "-1"), "--shard-embeddings: expected a number of at least 0, got")
    alone = run(SCRIPT, "--shard-lr", "0.1")
    assert_refused(alone, "--shard-lr: expected --shard-embeddings beside it, got none")
    both = run(SCRIPT, "--shard-embeddings", "9", "--compile")
    assert_refused(both, "--shard-embeddings, --compile: expected one of them, got both")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensordict" else name)
    missing = run(SCRIPT, "--shard-embeddings", "9")
    assert_refused(missing, "got no tensordict; pip install --no-deps -r requirements-sharding.txt")
