"""The training loop on a small synthetic sample: repeatable, resumable, and stopped where it should be."""

import copy
import math
import os
import random
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import tables
from torch import Tensor, nn
from torch.nn import functional

from model.IntTower import IntTower
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens
from preprocessing.tables import Dataset, Table
from training import CHECKPOINT
from training.checkpoint import load_checkpoint
from training.device import resolve_device
from training.errors import Interrupted, NonFiniteLoss
from training.metrics import auc
from training.predict import distinct_rows, is_two_tower, predict_jointly
from training.trainer import Progress, Trainer, epoch_batches, seed_everything

BATCH_SIZE = 256


class RatingMeans(nn.Module):
    """A model of no towers and no auxiliary loss: a logistic regression on the two rating means."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return self.linear(torch.cat([features["user_mean_rating"], features["item_mean_rating"]], dim=1))[:, 0]


class StoppedIntTower(IntTower):
    """Does something, such as raising a signal, at the start of one training step."""

    def stop_at(self, step: int, stop) -> None:
        self.steps_left, self.stop = step, stop

    def forward(self, features: dict[str, Tensor], labels: Tensor | None = None):
        if labels is not None:
            self.steps_left -= 1
            if self.steps_left == 0:
                self.stop()
        return super().forward(features, labels)


class ModeRecordingIntTower(IntTower):
    """Notes whether it was in training mode whenever a tower was run."""

    def __init__(self, *columns, **options):
        super().__init__(*columns, **options)
        self.modes = []

    def encode_user(self, features: dict[str, Tensor]) -> list[Tensor]:
        self.modes.append(self.training)
        return super().encode_user(features)


class PowerCutError(Exception):
    pass


def cut_power() -> None:
    raise PowerCutError


def send(number: int):
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def data(sample_folder) -> Dataset:
    return load_movielens(sample_folder, "strict", embedding_dim=8)


def build(data: Dataset, model: type = IntTower, seed: int = 1, **options) -> IntTower:
    """A small model; its dropout draws on the random state that the seed leaves behind."""
    seed_everything(seed)
    options = {"dnn_hidden_units": (16, 8), "field_dim": 4, "init_std": 0.01} | options
    return model(data.user_columns, data.item_columns, **options)


def trainer_of(model: nn.Module, **options) -> Trainer:
    return Trainer(model, **{"batch_size": BATCH_SIZE, "show_progress": False, "learning_rate": 1e-2} | options)


def losses(progress: Progress) -> list[dict]:
    """The history without what the clock had a say in."""
    return [
        {name: value for name, value in epoch.items() if "seconds" not in name and "per_second" not in name}
        for epoch in progress.history
    ]


def assert_same_run(trainer: Trainer, other: Trainer) -> None:
    """Losses, the returned weights, and what a further epoch would start from: bit for bit."""
    assert losses(trainer.progress) == losses(other.progress)
    assert trainer.progress.best_epoch == other.progress.best_epoch
    weights, other_weights = trainer.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def rows_of(table: Table, rows: list[int]) -> Table:
    return Table(table.batch(rows), table.labels[rows], table.groups[rows], table.rows[rows])


def with_nan(table: Table, row: int) -> Table:
    means = table.features["user_mean_rating"].clone()
    means[row] = math.nan
    return replace(table, features=table.features | {"user_mean_rating": means})


def test_the_same_seed_gives_the_same_losses_and_weights_bit_for_bit(data):
    runs = []
    for _ in range(2):
        runs.append(trainer_of(build(data), seed=1))
        runs[-1].fit(data.train, data.valid, epochs=2, patience=5)
    assert_same_run(*runs)


def test_another_seed_gives_another_order_of_rows_and_other_losses(data):
    first = trainer_of(build(data, dnn_dropout=0.0), seed=1).fit(data.train, data.valid, epochs=1, patience=5)
    other = trainer_of(build(data, dnn_dropout=0.0), seed=2).fit(data.train, data.valid, epochs=1, patience=5)
    assert first.history[0]["train_loss"] != other.history[0]["train_loss"]


def test_another_seed_of_the_weights_gives_other_losses(data):
    first = trainer_of(build(data, seed=1)).fit(data.train, data.valid, epochs=1, patience=5)
    other = trainer_of(build(data, seed=2)).fit(data.train, data.valid, epochs=1, patience=5)
    assert first.history[0]["train_loss"] != other.history[0]["train_loss"]


def test_training_lowers_the_loss_and_learns_the_order(data):
    trainer = trainer_of(build(data))
    progress = trainer.fit(data.train, data.valid, epochs=8, patience=8)
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"] - 0.02
    assert auc(data.train.labels.numpy(), trainer.predict(data.train)) > 0.75


def test_early_stopping_ends_with_the_weights_of_the_best_epoch(data):
    trainer = trainer_of(build(data), learning_rate=3e-2)
    progress = trainer.fit(data.train, data.valid, epochs=60, patience=2)
    aucs = [epoch["valid_auc"] for epoch in progress.history]
    assert progress.epoch == len(aucs) == progress.best_epoch + 2
    assert progress.best_auc == max(aucs) == aucs[progress.best_epoch - 1]
    assert auc(data.valid.labels.numpy(), trainer.predict(data.valid)) == progress.best_auc
    assert progress.best_auc != aucs[-1]


def test_training_ends_with_the_best_weights_when_the_epochs_run_out_too(data):
    trainer = trainer_of(build(data), learning_rate=3e-2)
    progress = trainer.fit(data.train, data.valid, epochs=10, patience=100)
    assert progress.epoch == 10
    assert auc(data.valid.labels.numpy(), trainer.predict(data.valid)) == progress.best_auc


def test_the_history_counts_epochs_and_gives_means_per_sample(data):
    # A model of zeros says 1/2 of every row; with one batch an epoch that is the loss before the first step.
    trainer = trainer_of(RatingMeans(), batch_size=len(data.train), learning_rate=1e-3)
    progress = trainer.fit(data.train, data.valid, epochs=2, patience=5)
    assert [epoch["epoch"] for epoch in progress.history] == [1, 2]
    assert progress.history[0]["train_loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert progress.history[1]["train_loss"] < math.log(2)
    assert progress.history[0]["train_auxiliary_loss"] == 0.0


def test_the_history_tells_the_auxiliary_loss_apart_from_the_cross_entropy(data):
    trainer = trainer_of(build(data, dnn_dropout=0.0), batch_size=len(data.train))
    progress = trainer.fit(data.train, data.valid, epochs=1, patience=5)
    logits, auxiliary = build(data, dnn_dropout=0.0)(data.train.batch(slice(None)), data.train.labels)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, data.train.labels)
    assert progress.history[0]["train_loss"] == pytest.approx(cross_entropy.item(), rel=1e-4)
    assert progress.history[0]["train_auxiliary_loss"] == pytest.approx(auxiliary["cir"].item(), rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stopped_after", ["the first batch", "a batch in between", "the last batch of an epoch"])
def test_a_run_resumed_after_a_signal_equals_one_that_was_never_stopped(data, tmp_path, number, stopped_after):
    whole = trainer_of(build(data), seed=1)
    whole.fit(data.train, data.valid, epochs=3, patience=5)
    num_batches = math.ceil(len(data.train) / BATCH_SIZE)
    step = {"the first batch": 1, "a batch in between": num_batches + 3, "the last batch of an epoch": 2 * num_batches}

    model = build(data, StoppedIntTower)
    model.stop_at(step[stopped_after], send(number))
    epoch, batch = (step[stopped_after] - 1) // num_batches, (step[stopped_after] - 1) % num_batches + 1
    with pytest.raises(Interrupted, match=rf"in epoch {epoch + 1}, after batch {batch}; saved to .*--resume"):
        trainer_of(model, seed=1, run_dir=tmp_path).fit(data.train, data.valid, epochs=3, patience=5)

    resumed = trainer_of(build(data, seed=99), seed=1, run_dir=tmp_path)
    resumed.fit(data.train, data.valid, epochs=3, patience=5, resume=True)
    assert_same_run(resumed, whole)


@pytest.mark.parametrize("step", [2, 6, 13])
def test_a_run_resumed_after_a_crash_equals_one_that_was_never_stopped(data, tmp_path, step):
    whole = trainer_of(build(data), seed=1)
    whole.fit(data.train, data.valid, epochs=2, patience=5)
    model = build(data, StoppedIntTower)
    model.stop_at(step, cut_power)
    with pytest.raises(PowerCutError):
        trainer_of(model, seed=1, run_dir=tmp_path, checkpoint_seconds=0.0).fit(data.train, data.valid, 2, 5)
    resumed = trainer_of(build(data, seed=99), seed=1, run_dir=tmp_path, checkpoint_seconds=0.0)
    resumed.fit(data.train, data.valid, epochs=2, patience=5, resume=True)
    assert_same_run(resumed, whole)


def test_a_run_stopped_twice_and_resumed_twice_equals_one_that_was_never_stopped(data, tmp_path):
    whole = trainer_of(build(data), seed=1)
    whole.fit(data.train, data.valid, epochs=2, patience=5)
    for step in (3, 7):
        model = build(data, StoppedIntTower)
        model.stop_at(step, send(signal.SIGINT))
        with pytest.raises(Interrupted):
            trainer_of(model, seed=1, run_dir=tmp_path).fit(data.train, data.valid, 2, 5, resume=True)
    resumed = trainer_of(build(data, seed=99), seed=1, run_dir=tmp_path)
    resumed.fit(data.train, data.valid, 2, 5, resume=True)
    assert_same_run(resumed, whole)


def test_an_interrupted_run_without_a_folder_says_that_nothing_was_saved(data):
    model = build(data, StoppedIntTower)
    model.stop_at(2, send(signal.SIGINT))
    with pytest.raises(Interrupted, match="in epoch 1, after batch 2; there is no run directory"):
        trainer_of(model).fit(data.train, data.valid, epochs=1, patience=5)


def test_signals_do_what_they_did_before_once_training_is_over(data):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer_of(RatingMeans()).fit(data.train, data.valid, epochs=1, patience=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_resuming_a_finished_run_trains_nothing_more(data, tmp_path):
    finished = trainer_of(build(data), run_dir=tmp_path)
    finished.fit(data.train, data.valid, epochs=2, patience=5)
    model = build(data, StoppedIntTower, seed=99)
    model.stop_at(1, cut_power)
    resumed = trainer_of(model, run_dir=tmp_path)
    resumed.fit(data.train, data.valid, epochs=2, patience=5, resume=True)
    assert resumed.progress.history == finished.progress.history
    assert_same_run(resumed, finished)


def test_resuming_with_more_epochs_equals_a_run_of_that_many_epochs(data, tmp_path):
    whole = trainer_of(build(data), seed=1, learning_rate=3e-2)
    whole.fit(data.train, data.valid, epochs=6, patience=9)
    trainer_of(build(data), seed=1, learning_rate=3e-2, run_dir=tmp_path).fit(data.train, data.valid, 2, 9)
    resumed = trainer_of(build(data, seed=99), seed=1, learning_rate=3e-2, run_dir=tmp_path)
    resumed.fit(data.train, data.valid, epochs=6, patience=9, resume=True)
    assert_same_run(resumed, whole)


def test_resuming_where_there_is_no_checkpoint_starts_anew(data, tmp_path):
    whole = trainer_of(build(data))
    whole.fit(data.train, data.valid, epochs=1, patience=5)
    resumed = trainer_of(build(data), run_dir=tmp_path)
    resumed.fit(data.train, data.valid, epochs=1, patience=5, resume=True)
    assert_same_run(resumed, whole)


def test_the_checkpoint_of_another_run_is_not_resumed(data, tmp_path):
    trainer_of(RatingMeans(), run_dir=tmp_path, identity={"lr": 0.1, "seed": 1}).fit(data.train, data.valid, 1, 1)
    other = trainer_of(RatingMeans(), run_dir=tmp_path, identity={"lr": 0.2, "seed": 1})
    with pytest.raises(UserError, match=r"belongs to another run: lr is 0\.1 there, 0\.2 here\. Use its settings"):
        other.fit(data.train, data.valid, 1, 1, resume=True)


def test_a_loss_that_is_no_number_stops_training_and_leaves_the_checkpoint_sound(data, tmp_path):
    trainer_of(build(data), run_dir=tmp_path, checkpoint_seconds=0.0).fit(data.train, data.valid, 1, 5)
    poisoned = trainer_of(build(data), run_dir=tmp_path, checkpoint_seconds=0.0)
    num_batches = math.ceil(len(data.train) / BATCH_SIZE)
    with pytest.raises(
        NonFiniteLoss, match=rf"epoch 2, batch \d+ of {num_batches}: the loss is nan; lower --lr"
    ) as stop:
        poisoned.fit(with_nan(data.train, row=0), data.valid, 3, 5, resume=True)

    state = load_checkpoint(tmp_path / CHECKPOINT)
    named_batch = int(re.search(r"batch (\d+)", str(stop.value))[1])
    assert (state["progress"]["epoch"], state["progress"]["batch"]) == (1, named_batch - 1)
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    moments = [value for moment in state["optimizer"]["state"].values() for value in moment.values()]
    assert all(torch.isfinite(value).all() for value in moments)

    whole = trainer_of(build(data))
    whole.fit(data.train, data.valid, epochs=2, patience=5)
    mended = trainer_of(build(data, seed=99), run_dir=tmp_path)
    mended.fit(data.train, data.valid, epochs=2, patience=5, resume=True)
    assert_same_run(mended, whole)


def test_predictions_that_are_no_numbers_stop_training_as_a_loss_does(data):
    with pytest.raises(NonFiniteLoss, match="epoch 1"):
        trainer_of(RatingMeans()).fit(data.train, with_nan(data.valid, row=3), epochs=1, patience=1)


def test_weights_that_overflow_in_an_epochs_last_step_stop_training_as_a_loss_does(data):
    trainer = trainer_of(build(data), learning_rate=1e30, batch_size=len(data.train))
    with pytest.raises(NonFiniteLoss, match="epoch 1"):
        trainer.fit(data.train, data.valid, epochs=1, patience=1)


def test_a_train_split_of_one_row_is_refused(data):
    with pytest.raises(UserError, match="train split: expected at least two rows, got 1"):
        trainer_of(RatingMeans()).fit(rows_of(data.train, [0]), data.valid, epochs=1, patience=1)


@pytest.mark.parametrize(
    "heads",
    [{}, {"user_head": 3, "item_head": 2}, {"user_head": 32, "item_head": 32, "field_dim": 64}],
    ids=["narrow vectors", "unequal heads", "vectors as wide as the paper's"],
)
@pytest.mark.parametrize("levels", ["all", "last"])
def test_towers_encoded_apart_predict_what_forward_gives(data, heads, levels):
    trainer = trainer_of(build(data, levels=levels, dnn_hidden_units=(16, 8, 8), init_std=1.0, **heads))
    trainer.fit(data.train, data.valid, epochs=2, patience=5)
    predicted = trainer.predict(data.test)
    with torch.no_grad():
        forward = trainer.model.eval()(data.test.batch(slice(None))).numpy()
    assert is_two_tower(trainer.model)
    assert predicted.shape == (len(data.test),)
    assert predicted.dtype == np.float32
    assert predicted.std() > 0.01
    np.testing.assert_allclose(predicted, forward, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predict_jointly(trainer.model, data.test), forward, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("field_dim", [4, 512], ids=["narrow vectors", "wide vectors"])
def test_a_row_is_predicted_alike_in_a_table_of_one_row_and_of_many(data, field_dim):
    trainer = trainer_of(build(data, field_dim=field_dim, init_std=1.0))
    predicted = trainer.predict(data.test)
    assert predicted.std() > 0.1
    alone = trainer.predict(rows_of(data.test, [5]))
    np.testing.assert_allclose(alone, predicted[[5]], rtol=1e-5, atol=1e-5)
    many = list(range(len(data.test))) * 40
    np.testing.assert_allclose(trainer.predict(rows_of(data.test, many)), predicted[many], rtol=1e-5, atol=1e-5)


def test_a_model_without_towers_is_trained_and_predicts_by_its_forward(data):
    trainer = trainer_of(RatingMeans(), learning_rate=3e-2)
    trainer.fit(data.train, data.valid, epochs=3, patience=3)
    assert not is_two_tower(trainer.model)
    many = rows_of(data.test, list(range(len(data.test))) * 40)
    with torch.no_grad():
        forward = trainer.model(many.batch(slice(None))).numpy()
    np.testing.assert_allclose(trainer.predict(many), forward, rtol=0, atol=1e-6)
    assert auc(many.labels.numpy(), forward) > 0.6


@pytest.mark.parametrize("towers", [True, False])
def test_an_empty_table_gets_no_predictions(data, towers):
    assert trainer_of(build(data) if towers else RatingMeans()).predict(rows_of(data.test, [])).shape == (0,)


def test_every_training_step_has_dropout_and_no_prediction_has(data):
    model = build(data, ModeRecordingIntTower, dnn_dropout=0.5)
    trainer = trainer_of(model)
    num_batches = math.ceil(len(data.train) / BATCH_SIZE)
    trainer.fit(data.train, data.valid, epochs=3, patience=5)
    assert model.modes == ([True] * num_batches + [False]) * 3
    assert np.array_equal(trainer.predict(data.test), trainer.predict(data.test))


def test_predicting_draws_no_random_numbers_and_moves_no_statistics(data):
    trainer = trainer_of(build(data))
    before, random_state = copy.deepcopy(trainer.model.state_dict()), torch.get_rng_state()
    trainer.predict(data.test)
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("l2_embedding", [0.0, 0.02])
def test_l2_embedding_is_the_weight_of_the_squared_embeddings_in_the_summed_loss(data, l2_embedding):
    options = {"dnn_dropout": 0.0, "init_std": 0.5}
    trainer = trainer_of(build(data, **options), batch_size=len(data.train), l2_embedding=l2_embedding)
    progress = trainer.fit(data.train, data.valid, epochs=4, patience=9)

    model = build(data, **options)
    embeddings = [table.weight for table in tables(model)]
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(progress.best_epoch):
        logits, auxiliary = model(data.train.batch(slice(None)), data.train.labels)
        loss = functional.binary_cross_entropy_with_logits(logits, data.train.labels, reduction="sum")
        loss = (
            loss + auxiliary["cir"] * len(logits) + l2_embedding * sum(weight.square().sum() for weight in embeddings)
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    trained = [table.weight for table in tables(trainer.model)]
    assert len(trained) == 6
    for weight, expected in zip(trained, embeddings, strict=True):
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "sizes"),
    [
        (10, 5, [5, 5]),
        (12, 5, [5, 5, 2]),
        (11, 5, [5, 6]),
        (6, 5, [6]),
        (5, 5, [5]),
        (3, 5, [3]),
        (2, 5, [2]),
        (5, 2, [2, 3]),
    ],
)
def test_an_epoch_covers_every_row_once_and_ends_with_no_batch_of_one_row(num_rows, batch_size, sizes):
    batches = epoch_batches(num_rows, batch_size, seed=[7, 0])
    assert [len(batch) for batch in batches] == sizes
    assert sorted(np.concatenate(batches)) == list(range(num_rows))


def test_the_order_of_rows_is_the_same_for_the_same_seed_and_epoch_alone():
    first, again, next_epoch, next_seed = (
        np.concatenate(epoch_batches(100, 30, seed)).tolist() for seed in ([7, 0], [7, 0], [7, 1], [8, 0])
    )
    assert first == again
    assert len({tuple(order) for order in (first, next_epoch, next_seed, range(100))}) == 4


def test_a_last_batch_of_one_row_can_be_trained(data):
    progress = trainer_of(build(data), batch_size=len(data.train) - 1).fit(data.train, data.valid, 1, 1)
    assert math.isfinite(progress.history[0]["train_loss"])


def test_distinct_rows_are_told_apart_by_every_feature():
    features = {
        "movie_id": torch.tensor([3, 1, 3, 1, 3, 1], dtype=torch.int32),
        "genres": torch.tensor([[2, 4], [2, 4], [2, 4], [4, 2], [2, 4], [2, 4]], dtype=torch.int32),
        "price": torch.tensor([[0.5], [0.5], [0.5], [0.5], [0.25], [0.5]]),
    }
    first, inverse = distinct_rows(features)
    assert sorted(first) == [0, 1, 3, 4]
    assert first[inverse].tolist() == [0, 1, 0, 3, 4, 1]


def test_distinct_rows_count_missing_numbers_as_equal():
    first, inverse = distinct_rows({"price": torch.tensor([math.nan, 1.0, math.nan])})
    assert first[inverse].tolist() == [0, 1, 0]


def test_distinct_rows_rebuild_a_table_of_many_features():
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randint(3, (500,), generator=generator) for name in "abcd"}
    first, inverse = distinct_rows(features)
    rows = torch.stack(list(features.values()), dim=1)
    assert len(first) == len(rows.unique(dim=0))
    assert torch.equal(rows[first[inverse]], rows)


def test_seed_everything_repeats_the_numbers_of_python_numpy_and_torch():
    def draw(seed):
        seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first, again, other = draw(5), draw(5), draw(6)
    assert first == again
    assert all(number != other_number for number, other_number in zip(first, other, strict=True))


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_device_that_is_there_is_taken(name):
    device = resolve_device(name)
    assert device.type in (["cpu"] if name == "cpu" else ["cpu", "cuda"])


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:x", ""])
def test_an_unknown_device_is_refused_with_those_that_are_known(name):
    with pytest.raises(UserError, match=r"--device: expected auto, cpu, mps, cuda or cuda:<n>, got '" + name):
        resolve_device(name)


def test_a_cuda_device_that_is_not_there_is_refused():
    name = "cuda:99" if torch.cuda.is_available() else "cuda"
    with pytest.raises(UserError, match=rf"--device {name}: expected that CUDA device, got \d+ on this machine"):
        resolve_device(name)


def test_validation_of_one_class_is_refused_before_training(data):
    positive = torch.nonzero(data.valid.labels == 1)[:, 0].tolist()
    trainer = Trainer(RatingMeans(), show_progress=False)
    with pytest.raises(UserError, match="valid split"):
        trainer.fit(data.train, rows_of(data.valid, positive), epochs=1, patience=1)
    assert trainer.progress.history == []


def test_without_validation_all_epochs_are_run_and_the_last_weights_stay(data):
    trainer = trainer_of(build(data))
    progress = trainer.fit(data.train, epochs=3, patience=1)
    assert progress.epoch == 3
    assert [set(row) & {"valid_auc"} for row in progress.history] == [set()] * 3
    assert trainer.best_weights == {}


def test_after_each_epoch_its_row_is_handed_over_and_true_ends_the_training(data):
    rows = []
    trainer = trainer_of(build(data))
    trainer.fit(
        data.train, data.valid, epochs=9, patience=9, after_epoch=lambda row: rows.append(row) or len(rows) == 2
    )
    assert [row["epoch"] for row in rows] == [1, 2]
    assert trainer.progress.history == rows
