"""The training loop on a small synthetic sample: repeatable, resumable, and stopped where it should be."""

import copy
import errno
import itertools
import math
import os
import random
import re
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import item_columns, random_features, random_labels, small_model, tables, user_columns
from torch import Tensor, nn
from torch.nn import functional

from model.IntTower import IntTower
from preprocessing.encode import OOV
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens
from preprocessing.tables import Dataset, Table
from training import CHECKPOINT
from training.checkpoint import load_checkpoint
from training.device import resolve_device
from training.errors import Interrupted, NonFiniteLoss
from training.generators import seed_everything
from training.metrics import auc
from training.progress import Progress
from training.schedule import cosine
from training.trainer import Trainer, epoch_batches

BATCH_SIZE, NUM_BATCHES = 256, 8


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


@pytest.fixture(scope="module")
def whole(data) -> Trainer:
    """Three epochs that nothing stopped."""
    trainer = trainer_of(build(data), seed=1)
    trainer.fit(data.train, data.valid, epochs=3, patience=5)
    return trainer


def test_the_same_seeds_give_the_same_run_bit_for_bit_and_another_of_either_gives_another(data, whole):
    again = trainer_of(build(data), seed=1)
    again.fit(data.train, data.valid, epochs=3, patience=5)
    assert_same_run(again, whole)
    without_dropout = []
    for weights_seed, order_seed in ((1, 1), (1, 2), (2, 1)):
        trainer = trainer_of(build(data, seed=weights_seed, dnn_dropout=0.0), seed=order_seed)
        without_dropout.append(trainer.fit(data.train, epochs=1).history[0]["train_loss"])
    assert len(set(without_dropout)) == 3


@pytest.mark.parametrize(("epochs", "patience"), [(60, 2), (12, 100)])
def test_training_learns_and_ends_early_or_not_with_the_weights_of_its_best_epoch(data, epochs, patience):
    trainer = trainer_of(build(data), learning_rate=3e-2)
    progress = trainer.fit(data.train, data.valid, epochs=epochs, patience=patience)
    aucs = [epoch["valid_auc"] for epoch in progress.history]
    assert progress.epoch == len(aucs) == min(epochs, progress.best_epoch + patience)
    assert progress.best_auc == max(aucs) == aucs[progress.best_epoch - 1] != aucs[-1]
    assert auc(data.valid.labels.numpy(), trainer.predict(data.valid)) == progress.best_auc
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"] - 0.02
    assert auc(data.train.labels.numpy(), trainer.predict(data.train)) > 0.7


def test_the_history_counts_epochs_and_gives_means_per_sample(data):
    model = RatingMeans()
    nn.init.constant_(model.linear.weight, 2.0)
    # With a rate of 0 each epoch's loss is that of all rows, also where the last batch is smaller.
    progress = trainer_of(model, learning_rate=0.0).fit(data.train, data.valid, epochs=2, patience=5)
    logits = model(data.train.batch(slice(None)))
    expected = functional.binary_cross_entropy_with_logits(logits, data.train.labels).item()
    assert [epoch["epoch"] for epoch in progress.history] == [1, 2]
    assert [epoch["train_loss"] for epoch in progress.history] == pytest.approx([expected] * 2, rel=1e-5)
    assert progress.history[0]["train_auxiliary_loss"] == 0.0


def test_the_history_tells_the_auxiliary_loss_apart_from_the_cross_entropy(data):
    trainer = trainer_of(build(data, dnn_dropout=0.0), batch_size=len(data.train))
    progress = trainer.fit(data.train, data.valid, epochs=1, patience=5)
    logits, auxiliary = build(data, dnn_dropout=0.0)(data.train.batch(slice(None)), data.train.labels)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, data.train.labels)
    assert progress.history[0]["train_loss"] == pytest.approx(cross_entropy.item(), rel=1e-4)
    assert progress.history[0]["train_auxiliary_loss"] == pytest.approx(auxiliary["cir"].item(), rel=1e-4)


@pytest.fixture
def heard_hang_up():
    """A dropped connection is told, though the tests may run under nohup, which has it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("steps", "stop", "message"),
    [
        ([1], send(signal.SIGINT), r"in epoch 1, after batch 1; saved to .*--resume"),
        ([NUM_BATCHES + 3], send(signal.SIGTERM), r"in epoch 2, after batch 3; saved to .*--resume"),
        ([2], send(signal.SIGHUP), r"in epoch 1, after batch 2; saved to .*--resume"),
        ([2 * NUM_BATCHES], send(signal.SIGINT), rf"in epoch 2, after batch {NUM_BATCHES}; saved to"),
        ([3, 7], send(signal.SIGINT), "saved to .*--resume"),
        ([NUM_BATCHES + 1], cut_power, None),
        ([NUM_BATCHES + 5], cut_power, None),
    ],
    ids=[
        "first batch",
        "a batch between",
        "a dropped connection",
        "last batch",
        "twice",
        "a crash between epochs",
        "a crash within an epoch",
    ],
)
def test_a_run_that_is_stopped_and_resumed_equals_one_that_never_was(
    data, whole, tmp_path, steps, stop, message, heard_hang_up
):
    assert math.ceil(len(data.train) / BATCH_SIZE) == NUM_BATCHES
    # A crash saves nothing itself: there is a checkpoint after every batch.
    options = {"seed": 1, "run_dir": tmp_path} | ({"checkpoint_seconds": 0.0} if message is None else {})
    for step in steps:
        model = build(data, StoppedIntTower)
        model.stop_at(step, stop)
        with pytest.raises(PowerCutError if message is None else Interrupted, match=message):
            trainer_of(model, **options).fit(data.train, data.valid, epochs=3, patience=5, resume=True)
    resumed = trainer_of(build(data, seed=99), **options)
    resumed.fit(data.train, data.valid, epochs=3, patience=5, resume=True)
    assert_same_run(resumed, whole)


def test_a_step_that_fails_of_the_signal_that_asks_to_stop_is_a_stop(data, whole, tmp_path):
    # torch.compile waits for a compiler in the same group of processes: Ctrl-C ends that one, too.
    def break_off():
        send(signal.SIGINT)()
        raise RuntimeError("C++ compile error")

    for step, message in ((1, "in epoch 1, after batch 0; saved to"), (4, "in epoch 1, after batch 3; saved to")):
        model = build(data, StoppedIntTower)
        model.stop_at(step, break_off)
        with pytest.raises(Interrupted, match=message):
            trainer_of(model, seed=1, run_dir=tmp_path).fit(data.train, data.valid, epochs=3, patience=5, resume=True)
    model.stop_at(1, cut_power)
    with pytest.raises(PowerCutError):  # one that nobody asked for is told as it is
        trainer_of(model, seed=1).fit(data.train, data.valid, epochs=3)
    resumed = trainer_of(build(data, seed=99), run_dir=tmp_path)
    resumed.fit(data.train, data.valid, epochs=3, patience=5, resume=True)
    assert [row["epoch"] for row in resumed.progress.history] == [row["epoch"] for row in whole.progress.history]


def test_an_interrupted_run_without_a_folder_says_that_nothing_was_saved(data):
    model = build(data, StoppedIntTower)
    model.stop_at(2, send(signal.SIGINT))
    with pytest.raises(Interrupted, match="in epoch 1, after batch 2; there is no run directory"):
        trainer_of(model).fit(data.train, data.valid, epochs=1, patience=5)


def test_a_dropped_connection_that_nohup_has_ignored_does_not_stop_training(data):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        model = build(data, StoppedIntTower)
        model.stop_at(2, send(signal.SIGHUP))
        assert trainer_of(model).fit(data.train, data.valid, epochs=1, patience=5).epoch == 1
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_training_goes_on_where_its_lines_cannot_be_printed(data, whole, monkeypatch, number):
    def refuse(*_, **__) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.print", refuse)
    trainer = trainer_of(build(data), seed=1, show_progress=True)
    trainer.fit(data.train, data.valid, epochs=3, patience=5)
    assert_same_run(trainer, whole)


def test_training_whose_lines_nobody_reads_stops_with_the_epoch_saved(data, whole, monkeypatch, tmp_path):
    def refuse(*_, **__) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    options = {"seed": 1, "run_dir": tmp_path}
    with monkeypatch.context() as patched:
        patched.setattr("builtins.print", refuse)
        with pytest.raises(BrokenPipeError):
            trainer_of(build(data), **options, show_progress=True).fit(data.train, data.valid, epochs=3, patience=5)
    assert load_checkpoint(tmp_path / CHECKPOINT)["progress"]["epoch"] == 1
    resumed = trainer_of(build(data, seed=99), **options)
    resumed.fit(data.train, data.valid, epochs=3, patience=5, resume=True)
    assert_same_run(resumed, whole)


def test_what_stands_there_of_an_older_run_goes_with_the_first_checkpoint_alone(data, tmp_path):
    calls = []
    trainer = trainer_of(
        build(data), run_dir=tmp_path, before_checkpoint=lambda: calls.append((tmp_path / CHECKPOINT).exists())
    )
    trainer.fit(data.train, data.valid, epochs=2, patience=5)
    assert calls == [False]


def test_signals_do_what_they_did_before_once_training_is_over(data):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer_of(RatingMeans()).fit(data.train, data.valid, epochs=1, patience=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.slow
def test_a_finished_run_is_resumed_for_more_epochs_alone(data, tmp_path):
    options = {"learning_rate": 3e-2}
    longer = trainer_of(build(data), **options)
    longer.fit(data.train, data.valid, epochs=14, patience=99)
    finished = trainer_of(build(data), run_dir=tmp_path, **options)
    finished.fit(data.train, data.valid, epochs=12, patience=99)
    assert finished.progress.best_epoch < 12  # the best weights are not the last, from which training goes on

    model = build(data, StoppedIntTower, seed=99)
    model.stop_at(1, cut_power)
    nothing_more = trainer_of(model, run_dir=tmp_path, **options)
    nothing_more.fit(data.train, data.valid, epochs=12, patience=99, resume=True)
    assert_same_run(nothing_more, finished)
    two_more = trainer_of(build(data, seed=99), run_dir=tmp_path, **options)
    two_more.fit(data.train, data.valid, epochs=14, patience=99, resume=True)
    assert_same_run(two_more, longer)


def test_a_loss_that_is_no_number_stops_training_and_leaves_the_checkpoint_sound(data, whole, tmp_path):
    options = {"seed": 1, "run_dir": tmp_path, "checkpoint_seconds": 0.0}
    trainer_of(build(data), **options).fit(data.train, data.valid, 1, 5)
    message = rf"epoch 2, batch \d+ of {NUM_BATCHES}: the loss is nan; lower --lr"
    with pytest.raises(NonFiniteLoss, match=message) as stop:
        trainer_of(build(data), **options).fit(with_nan(data.train, row=0), data.valid, 3, 5, resume=True)

    state = load_checkpoint(tmp_path / CHECKPOINT)
    named_batch = int(re.search(r"batch (\d+)", str(stop.value))[1])
    assert (state["progress"]["epoch"], state["progress"]["batch"]) == (1, named_batch - 1)
    mended = trainer_of(build(data, seed=99), **options)
    mended.fit(data.train, data.valid, epochs=3, patience=5, resume=True)
    assert_same_run(mended, whole)


def test_predictions_that_are_no_numbers_stop_training_as_a_loss_does(data):
    with pytest.raises(NonFiniteLoss, match=f"epoch 1, validation: 1 of {len(data.valid)} logits are no numbers"):
        trainer_of(RatingMeans()).fit(data.train, with_nan(data.valid, row=3), epochs=1, patience=1)


def test_a_split_that_cannot_be_trained_or_measured_on_is_refused_before_training(data):
    trainer = trainer_of(RatingMeans())
    with pytest.raises(UserError, match="train split: expected at least two rows, got 1"):
        trainer.fit(rows_of(data.train, [0]), data.valid, epochs=1, patience=1)
    positive = torch.nonzero(data.valid.labels == 1)[:, 0].tolist()
    with pytest.raises(UserError, match="valid split: expected labels 0 and 1"):
        trainer.fit(data.train, rows_of(data.valid, positive), epochs=1, patience=1)
    assert trainer.progress.history == []


def test_every_training_step_has_dropout_and_no_prediction_has(data):
    model = build(data, ModeRecordingIntTower, dnn_dropout=0.5)
    trainer = trainer_of(model)
    trainer.fit(data.train, data.valid, epochs=3, patience=5)
    assert model.modes == ([True] * NUM_BATCHES + [False]) * 3
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
    trainer, model = trainer_of(build(data, **options), l2_embedding=l2_embedding), build(data, **options)
    features, labels = data.train.batch(slice(None)), data.train.labels
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(3):
        trainer.step(features, labels)
        logits, auxiliary = model(features, labels)
        loss = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        squares = sum(table.weight.square().sum() for table in tables(model))
        adam.zero_grad()
        (loss + auxiliary["cir"] * len(labels) + l2_embedding * squares).backward()
        adam.step()
    for trained, expected in zip(tables(trainer.model), tables(model), strict=True):
        torch.testing.assert_close(trained.weight, expected.weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "sizes"),
    [(10, 5, [5, 5]), (12, 5, [5, 5, 2]), (11, 5, [5, 6]), (6, 5, [6]), (5, 2, [2, 3]), (3, 5, [3])],
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


def test_seed_everything_repeats_the_numbers_of_python_numpy_and_torch():
    def draw(seed):
        seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first, again, other = draw(5), draw(5), draw(6)
    assert first == again
    assert all(number != other_number for number, other_number in zip(first, other, strict=True))


def test_a_device_that_is_there_is_taken():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_device_that_is_not_there_is_refused():
    name = "cuda:99" if torch.cuda.is_available() else "cuda"
    with pytest.raises(UserError, match=rf"--device {name}: expected that CUDA device, got \d+ on this machine"):
        resolve_device(name)
    with pytest.raises(UserError, match=r"--device: expected auto, cpu, mps, cuda or cuda:<n>, got 'cuda:x'"):
        resolve_device("cuda:x")


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


def test_validation_within_an_epoch_keeps_the_weights_of_the_best_batch(data):
    trainer = trainer_of(build(data), seed=1, learning_rate=0.1, validate_every=2)  # soon worse than it was
    progress = trainer.fit(data.train, data.valid, epochs=3)
    assert progress.best_batch in (0, 2, 4, 6)
    kept = auc(data.valid.labels.numpy(), trainer.predict(data.valid))
    assert kept == progress.best_auc
    assert kept >= max(epoch["valid_auc"] for epoch in progress.history)
    assert (progress.best_batch == 0) == (kept == progress.history[progress.best_epoch - 1]["valid_auc"])


def test_validation_within_an_epoch_changes_nothing_else(data, whole):
    trainer = trainer_of(build(data), seed=1, validate_every=3)
    trainer.fit(data.train, data.valid, epochs=3, patience=5)
    assert losses(trainer.progress) == losses(whole.progress)


def test_validation_within_an_epoch_is_no_training_time(data, monkeypatch):
    trainer, clock = trainer_of(build(data), seed=1, validate_every=3), itertools.count()
    validate, validated = trainer._validate, []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) / 1000 + 100 * len(validated))
    monkeypatch.setattr(trainer, "_validate", lambda table: (validated.append(1), validate(table))[1])
    progress = trainer.fit(data.train, data.valid, epochs=1)
    assert len(validated) > 1
    assert progress.seconds < 100


class UserRecordingMeans(RatingMeans):
    """Notes the users of the rows that it is given in training mode."""

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        if self.training:
            self.seen = features["user_id"]
        return super().forward(features)


def test_an_id_is_out_of_vocabulary_in_its_share_of_a_batchs_rows_in_training_alone(data):
    model, users = UserRecordingMeans(), data.train.features["user_id"]
    before = users.numpy().copy()
    trainer = trainer_of(model, id_dropout={"user_id": 0.25, "movie_id": 0.0}, batch_size=1600, shuffle=False)
    trainer.fit(data.train, epochs=1)
    own = users[len(data.train) - len(model.seen) :]
    is_dropped = model.seen != own
    assert 0.15 < is_dropped.float().mean() < 0.35
    assert (model.seen[is_dropped] == OOV).all()
    assert (users.numpy() == before).all()


class StatisticsRecordingMeans(RatingMeans):
    """Notes all of the rows that it is given in training mode."""

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        if self.training:
            self.seen = features
        return super().forward(features)


def test_a_dropped_id_takes_its_own_statistics_along_where_that_is_asked_for(data):
    model = StatisticsRecordingMeans()
    unknown = {encoder.id_column: encoder.unknown_statistics() for encoder in (data.user_encoder, data.item_encoder)}
    shares = {"user_id": 0.25, "movie_id": 0.5}
    trainer = trainer_of(model, id_dropout=shares, unknown=unknown, batch_size=len(data.train), shuffle=False)
    trainer.fit(data.train, epochs=1)
    dropped = {}
    for name, statistic, encoder in (
        ("user_id", "user_mean_rating", data.user_encoder),
        ("movie_id", "item_mean_rating", data.item_encoder),
    ):
        dropped[name] = model.seen[name] != data.train.features[name][:]
        field = encoder.fields[-1]
        prior = field.scaler.transform(np.array([field.prior]))[0]
        given = model.seen[statistic][:, 0]
        assert (given[dropped[name]] == prior).all()
        assert torch.equal(given[~dropped[name]], data.train.features[statistic][~dropped[name], 0])
        assert abs(dropped[name].float().mean() - shares[name]) < 0.1
    assert not torch.equal(dropped["user_id"], dropped["movie_id"])


def test_the_average_of_the_weights_is_what_is_validated_kept_and_left(data):
    model = RatingMeans()
    trainer = trainer_of(model, average_decay=0.9, learning_rate=0.1)
    seen, expected = [], model.linear.weight.detach().clone()
    step = trainer.step

    def noting(*arguments):
        result = step(*arguments)
        seen.append(model.linear.weight.detach().clone())
        return result

    trainer.step = noting
    progress = trainer.fit(data.train, data.valid, epochs=2)
    for number, weight in enumerate(seen):
        expected = torch.lerp(expected, weight, 1 - min(0.9, (1 + number) / (10 + number)))
    if progress.best_epoch == 2:
        torch.testing.assert_close(model.linear.weight.detach(), expected)
    assert progress.best_auc == auc(data.valid.labels.numpy(), trainer.predict(data.valid))
    assert len(seen) == 2 * NUM_BATCHES
    assert not torch.equal(model.linear.weight, seen[progress.best_epoch * NUM_BATCHES - 1])


def test_without_validation_the_last_average_stays_with_counts_as_they_are(data):
    trainer = trainer_of(build(data), average_decay=0.999)
    trainer.fit(data.train, epochs=1)  # no validation: the last average stays
    last, average = trainer.average.weights, trainer.model.state_dict()
    assert all(torch.equal(last[name], average[name]) for name in last)
    counted = [name for name in last if name.endswith("num_batches_tracked")]
    assert {last[name].item() for name in counted} == {NUM_BATCHES}


@pytest.mark.parametrize("options", [{"average_decay": 0.9}, {"schedule": cosine(warmup=0.5)}])
def test_an_average_and_a_schedule_go_on_from_a_checkpoint_as_if_they_had_never_stopped(data, tmp_path, options):
    options |= {"seed": 1}
    whole = trainer_of(build(data), **options)
    whole.fit(data.train, data.valid, epochs=3, patience=5)
    model = build(data, StoppedIntTower)
    model.stop_at(NUM_BATCHES + 3, send(signal.SIGINT))
    stopped = trainer_of(model, run_dir=tmp_path, **options)
    with pytest.raises(Interrupted):
        stopped.fit(data.train, data.valid, epochs=3, patience=5)
    resumed = trainer_of(build(data, seed=99), run_dir=tmp_path, **options)
    resumed.fit(data.train, data.valid, epochs=3, patience=5, resume=True)
    assert_same_run(resumed, whole)


def losses_of_ten_steps(**options) -> np.ndarray:
    model = small_model("DSSM")
    trainer = Trainer(model, learning_rate=0.01, seed=3, show_progress=False, **options)
    features, labels = random_features([*user_columns(), *item_columns()], 64), random_labels(64)
    return np.array([[float(loss) for loss in trainer.step(features, labels)] for _ in range(10)])


def test_steps_in_bfloat16_have_the_losses_of_steps_in_float32_but_for_its_digits():
    exact, rounded = losses_of_ten_steps(), losses_of_ten_steps(amp=torch.bfloat16)
    assert (exact != rounded).any()
    np.testing.assert_allclose(rounded, exact, rtol=0.02)


@pytest.mark.slow
def test_compiled_steps_have_the_losses_of_plain_ones():
    np.testing.assert_allclose(losses_of_ten_steps(compiled=True), losses_of_ten_steps(), rtol=1e-4)


def test_a_loss_that_is_no_number_names_its_batch_though_losses_are_looked_at_later(data):
    trainer = trainer_of(build(data))
    step, count = trainer.step, 0

    def failing(*arguments):
        nonlocal count
        count += 1
        losses = step(*arguments)
        return losses if count < 3 else (losses[0] * torch.nan, losses[1])

    trainer.step = failing
    with pytest.raises(NonFiniteLoss, match="epoch 1, batch 3 of 8: the loss is nan"):
        trainer.fit(data.train, data.valid, epochs=1)
    assert count == NUM_BATCHES  # the epoch was at its end before anybody looked


def test_a_schedule_sets_the_learning_rate_of_each_step_by_the_share_of_all_steps_that_are_done(data):
    trainer = trainer_of(build(data), learning_rate=0.1, schedule=lambda done: 1 - done)
    seen, step = [], trainer.step

    def noting(*arguments):
        seen.append([group["lr"] for group in trainer.optimizer.param_groups])
        return step(*arguments)

    trainer.step = noting
    trainer.fit(data.train, data.valid, epochs=2)
    expected = [0.1 * (1 - number / (2 * NUM_BATCHES)) for number in range(2 * NUM_BATCHES)]
    np.testing.assert_allclose(seen, np.repeat(expected, 2).reshape(-1, 2))


def test_the_cosine_rises_over_its_warmup_and_falls_to_nothing():
    factor = cosine(warmup=0.2)
    assert 0 < factor(0.0) <= 0.001
    assert [factor(0.1), factor(0.2), factor(0.6)] == pytest.approx([0.5, 1.0, 0.5])
    assert factor(0.9999) < 1e-6
    assert [cosine()(0.0), cosine()(0.5)] == pytest.approx([1.0, 0.5])
