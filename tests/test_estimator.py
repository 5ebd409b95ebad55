"""Every model has deepctr-torch's compile, fit, evaluate and predict, with its habits and without its traps."""

import copy
import inspect
import re
import sys
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from models import ALL_COLUMNS, random_features, random_labels, small_model, sparse, tables, user_columns, varlen
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, roc_auc_score
from torch import nn
from torch.nn import functional

from model import model_class
from model.deepctr import deepctr_column
from model.estimator import Estimator
from preprocessing.errors import UserError

from deepctr_torch import models as deepctr_models
from deepctr_torch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from deepctr_torch.models.basemodel import BaseModel

OURS = ["IntTower", "LR", "DSSM", "DAT", "COLD"]
MODELS = ["IntTower", "LR", "COLD", "DCN"]
NUM_ROWS, NUM_TRAINED = 40, 30
X = {name: values.numpy() for name, values in random_features(ALL_COLUMNS, NUM_ROWS).items()}
Y = random_labels(NUM_ROWS).numpy()
SINGLE_VALUED = {name: values.reshape(NUM_ROWS) for name, values in X.items() if name != "genres"}
SERIES = {name: pd.Series(values, index=range(100, 100 + NUM_ROWS)) for name, values in SINGLE_VALUED.items()}


def rows(start: int, stop: int) -> tuple[dict, np.ndarray]:
    return {name: values[start:stop] for name, values in X.items()}, Y[start:stop]


def compiled(name: str, optimizer="adam", metrics=("auc", "logloss"), **options) -> Estimator:
    model = small_model(name, **options)
    model.compile(optimizer, "binary_crossentropy", list(metrics))
    return model


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


@pytest.mark.parametrize("method", ["compile", "fit", "evaluate", "predict"])
def test_the_signatures_are_deepctr_torchs(method):
    own, ours = (inspect.signature(getattr(model, method)).parameters for model in (BaseModel, Estimator))
    assert list(ours) == list(own)
    defaults = {name: parameter.default for name, parameter in own.items()}
    if method == "compile":
        defaults["loss"] = "binary_crossentropy"  # None there, with which its fit fails
    assert {name: parameter.default for name, parameter in ours.items()} == defaults


@pytest.mark.parametrize("name", MODELS)
def test_predict_gives_the_probabilities_of_the_logits(name):
    model = small_model(name)
    probabilities = model.predict(X, batch_size=7)
    logits = model.eval()(random_features(ALL_COLUMNS, NUM_ROWS)).detach().double().numpy()
    assert probabilities.shape == (NUM_ROWS, 1)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities[:, 0], 1 / (1 + np.exp(-logits)), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_evaluate_gives_the_compiled_metrics_over_all_rows(name):
    model = compiled(name, metrics=["auc", "binary_crossentropy", "logloss", "mse", "acc", "accuracy"])
    probabilities = model.predict(X)[:, 0]
    loss, accuracy = log_loss(Y, probabilities), accuracy_score(Y, probabilities > 0.5)
    expected = {"auc": roc_auc_score(Y, probabilities), "binary_crossentropy": loss, "logloss": loss}
    expected |= {"mse": mean_squared_error(Y, probabilities), "acc": accuracy, "accuracy": accuracy}
    assert model.evaluate(X, Y, batch_size=7) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_fit_records_each_epoch_and_keeps_the_last_weights(name):
    model = compiled(name)
    history = model.fit(X, Y, batch_size=8, epochs=3, verbose=2, validation_split=0.25)
    assert history is model.history
    assert history.epoch == [0, 1, 2]
    assert list(history.history) == ["loss", "auc", "logloss", "val_auc", "val_logloss"]
    assert [len(values) for values in history.history.values()] == [3] * 5
    assert len(set(history.history["logloss"])) == 3
    for prefix, part in {"": rows(0, NUM_TRAINED), "val_": rows(NUM_TRAINED, NUM_ROWS)}.items():
        for metric, value in model.evaluate(*part).items():
            assert history.history[prefix + metric][-1] == value


def test_the_rows_that_validation_split_holds_out_are_not_trained_on():
    model, other = compiled("LR"), compiled("LR")
    labels = np.concatenate([Y[:NUM_TRAINED], 1 - Y[NUM_TRAINED:]])
    for fitted, y in ((model, Y), (other, labels)):
        torch.manual_seed(1)
        fitted.fit(X, y, batch_size=8, verbose=0, validation_split=0.25)
    assert all(map(torch.equal, weights(model), weights(other)))
    assert model.history.history["val_logloss"] != other.history.history["val_logloss"]


@pytest.mark.parametrize("more", [(), (np.ones(10),)])
def test_validation_data_goes_before_validation_split(more):
    model = compiled("DCN")
    history = model.fit(X, Y, verbose=0, validation_split=0.5, validation_data=(*rows(5, 15), *more)).history
    expected = model.evaluate(*rows(5, 15))
    assert [history["val_auc"], history["val_logloss"]] == [[expected["auc"]], [expected["logloss"]]]


@pytest.mark.parametrize("y", [Y[:, None], pd.Series(Y, index=range(100, 100 + NUM_ROWS)), Y.astype(int), Y > 0])
@pytest.mark.parametrize(
    "x",
    [
        SERIES,
        pd.DataFrame(SERIES).iloc[:, ::-1],
        list(SINGLE_VALUED.values()),
        {name: values[:, None].astype(float) for name, values in SINGLE_VALUED.items()},
    ],
    ids=["series", "a frame", "a list", "columns of floats"],
)
def test_features_and_labels_may_come_in_every_form_that_deepctr_torch_takes(x, y):
    columns = [column for column in ALL_COLUMNS if column.name != "genres"]
    model = model_class("LR")(columns)
    model.compile("adam", "binary_crossentropy", ["logloss"])
    assert list(model.feature_index) == list(SINGLE_VALUED)
    model.fit(x, y, epochs=2, verbose=0)
    assert model.evaluate(x, y) == model.evaluate(SINGLE_VALUED, Y) != {"logloss": pytest.approx(np.log(2))}


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad", "rmsprop"])
def test_an_optimizer_by_name_is_deepctr_torchs_and_trains(optimizer):
    model = compiled("DCN", optimizer)
    own = BaseModel._get_optim(model, optimizer)
    assert type(model.optim) is type(own)
    assert model.optim.defaults | {"fused": own.defaults.get("fused")} == own.defaults | {"fused": None}
    before = weights(model)
    model.fit(X, Y, verbose=0)
    assert not torch.equal(before[0], weights(model)[0])


def test_an_optimizer_of_ones_own_trains_what_it_was_given():
    model = small_model("LR")
    model.compile(torch.optim.SGD([model.bias], lr=0.5), None)
    before = weights(model)
    model.fit(X, Y, verbose=0)
    moved = [not torch.equal(old, new) for old, new in zip(before, weights(model), strict=True)]
    assert moved == [parameter is model.bias for parameter in model.parameters()]


def test_early_stopping_ends_the_training_and_restores_the_best_weights():
    model = compiled("DCN")
    # No epoch is better than the first by 2, so the second is the last.
    stop = EarlyStopping("val_auc", min_delta=2, patience=1, restore_best_weights=True)
    history = model.fit(X, Y, epochs=9, verbose=0, validation_split=0.25, callbacks=[stop])
    assert history.epoch == [0, 1]
    first, second = history.history["val_logloss"]
    assert model.evaluate(*rows(NUM_TRAINED, NUM_ROWS))["logloss"] == first != second


def test_a_checkpoint_of_each_epoch_is_saved_and_can_be_loaded(tmp_path):
    model = compiled("DCN")
    checkpoint = ModelCheckpoint(str(tmp_path / "epoch-{epoch}.pt"), save_weights_only=True)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[checkpoint])
    predictions = []
    for epoch in (1, 2):
        loaded = small_model("DCN")
        loaded.load_state_dict(torch.load(tmp_path / f"epoch-{epoch}.pt"))
        predictions.append(loaded.predict(X))
    np.testing.assert_array_equal(predictions[1], model.predict(X))
    assert not np.array_equal(predictions[0], predictions[1])


def test_callbacks_are_told_of_every_epoch_from_initial_epoch_on():
    diary = Mock(spec=Callback)
    history = compiled("LR").fit(X, Y, epochs=5, initial_epoch=3, verbose=0, callbacks=[diary])
    epoch = ["on_epoch_begin", "on_epoch_end"]
    told = [name for name, _, _ in diary.method_calls if name != "set_model"]
    assert told == ["on_train_begin", *epoch, *epoch, "on_train_end"]
    assert [call.args[0] for call in diary.on_epoch_begin.call_args_list] == history.epoch == [3, 4]
    assert [call.args[0] for call in diary.on_epoch_end.call_args_list] == [3, 4]
    assert compiled("LR").fit(X, Y, epochs=2, initial_epoch=2, verbose=0).epoch == []


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_are_shuffled_anew_each_epoch_and_fit_unless_told_otherwise(shuffle):
    model, seen = compiled("LR"), []
    model.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]["user_mean_rating"][:, 0].tolist()))
    for epochs in (2, 1):
        model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, shuffle=shuffle)
    in_order = X["user_mean_rating"][:, 0].tolist()
    epochs = [seen[start : start + NUM_ROWS] for start in range(0, len(seen), NUM_ROWS)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(in_order)] * 3
    assert [epoch == in_order for epoch in epochs] == [not shuffle] * 3
    assert len({tuple(epoch) for epoch in epochs}) == (3 if shuffle else 1)


def test_verbose_chooses_between_silence_and_deepctr_torchs_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # progress bars are for terminals

    def printed(verbose: int) -> str:
        compiled("LR", metrics=["auc"]).fit(X, Y, epochs=2, verbose=verbose, validation_split=0.25)
        output = capsys.readouterr()
        assert ("epoch 1:" in output.err) if verbose == 1 else output.err == ""
        return output.out

    assert printed(0) == ""
    line = r"\d+s - loss:  \d\.\d{4} - auc:  \d\.\d{4} - val_auc:  \d\.\d{4}\n"
    for verbose in (1, 2):
        assert re.fullmatch(f"Epoch 1/2\n{line}Epoch 2/2\n{line}", printed(verbose))


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_model_is_in_training_mode_in_every_epoch_also_with_validation(name):
    model, modes = compiled(name), []

    def note_mode(module, inputs) -> None:
        if torch.is_grad_enabled():
            modes.append({part.training for part in module.modules()})

    model.register_forward_pre_hook(note_mode)
    model.fit(X, Y, batch_size=10, epochs=3, verbose=2, validation_split=0.25)
    assert modes == [{True}] * 9


@pytest.mark.parametrize("name", OURS)
def test_a_step_descends_the_summed_loss_with_the_squared_embeddings(name):
    model = compiled(name, "sgd")
    model.l2_reg_embedding = 0.1
    expected = copy.deepcopy(model).train()
    features, labels = random_features(ALL_COLUMNS, NUM_ROWS), torch.from_numpy(Y)
    logits, losses = expected(features, labels) if expected.auxiliary else (expected(features), {})
    loss = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    loss = loss + NUM_ROWS * sum(losses.values())
    (loss + 0.1 * sum(table.weight.square().sum() for table in tables(expected))).backward()
    torch.optim.SGD(expected.parameters(), lr=0.01).step()
    history = model.fit(X, Y, verbose=0, shuffle=False).history
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-4, atol=1e-5)
    assert history["loss"] == [pytest.approx(loss.item() / NUM_ROWS, rel=1e-5)]


@pytest.mark.parametrize("name", ["DCN", "AutoInt"])
def test_a_step_of_fit_is_deepctr_torchs_own_step(name):
    l2 = {"l2_reg_embedding": 0.1} | ({"l2_reg_cross": 0.1, "l2_reg_linear": 0.1} if name == "DCN" else {})
    model = compiled(name, "sgd", dnn_use_bn=False, **l2)
    columns = [*map(deepctr_column, ALL_COLUMNS)]
    own = getattr(deepctr_models, name)(columns, columns, dnn_hidden_units=(8, 6), **l2)
    own.load_state_dict(model.network.state_dict())
    own.compile("sgd", "binary_crossentropy")
    for fitted in (model, own):
        fitted.fit(X, Y, batch_size=NUM_ROWS, verbose=0, shuffle=False)
    torch.testing.assert_close(weights(model), weights(own), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gender": X["gender"] + 1}, "ids from 0 to 3 for 'gender', got 2 to 4"),
        ({"genres": X["genres"] - 1}, "ids from 0 to 6 for 'genres', got -1 to 5"),
        ({"genres": np.hstack([X["genres"]] * 2)}, r"shape \(rows, 3\) for 'genres', got \(40, 6\)"),
        ({"gender": np.stack([X["gender"]] * 2, axis=1)}, r"shape \(rows, 1\) for 'gender', got \(40, 2\)"),
        ({"gender": X["gender"].astype(str)}, "whole numbers for 'gender', got <U"),
        ({"gender": X["gender"] + 0.5}, "whole numbers for 'gender', got float"),
        ({"gender": X["gender"][1:]}, "one length, got .*'gender': 39"),
        ({"user_mean_rating": np.full(NUM_ROWS, "high")}, "expected numbers for 'user_mean_rating', got <U4"),
        ({"user_mean_rating": np.full(NUM_ROWS, np.nan)}, "expected finite numbers of 32 bits for 'user_mean_rating'"),
        ({"user_mean_rating": np.full(NUM_ROWS, 1e300)}, "expected finite numbers of 32 bits for 'user_mean_rating'"),
    ],
)
@pytest.mark.parametrize("name", ["IntTower", "DCN"])
def test_features_that_a_model_cannot_read_are_told_in_one_line(name, changed, message):
    with pytest.raises(UserError, match=message) as mistake:
        small_model(name).predict(X | changed)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: small_model("LR").fit(X, Y), "fit: expected a compiled model; call compile"),
        (lambda model: small_model("LR").evaluate(X, Y), "evaluate: expected a compiled model; call compile"),
        (lambda model: model.compile("lion"), "compile: expected adam, .* or a torch optimizer, got 'lion'"),
        (lambda model: model.compile(3), "compile: expected adam, .* or a torch optimizer, got 3"),
        (lambda model: model.compile("adam", "hinge"), "compile: expected loss 'binary_crossentropy', got 'hinge'"),
        (lambda model: model.compile("adam", metrics=["auc", "f1"]), "compile: expected metrics among auc, .*, got f1"),
        (lambda model: model.fit(X, Y, validation_data=(X,)), "validation_data: expected .*, got 1 entries"),
        (lambda model: model.fit(None, Y), "fit: expected features x and labels y, got none"),
        (lambda model: model.fit(X, Y * 5), r"y: expected labels 0 and 1, got \[0.0, 5.0\]"),
        (lambda model: model.fit(X, np.full(NUM_ROWS, np.nan)), r"y: expected labels 0 and 1, got \[nan"),
        (lambda model: model.evaluate(X, Y[1:]), "one length, got .*'y': 39"),
        (lambda model: model.predict({"user_id": X["user_id"]}), "an array for each .*, got none for 'gender'"),
        (lambda model: model.predict([X["user_id"]]), "x: expected 6 arrays, for user_id, gender, .*, got 1"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_told_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as mistake:
        call(compiled("LR"))
    assert "\n" not in str(mistake.value)


ONE_CLASS = np.zeros(NUM_ROWS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.evaluate(X, ONE_CLASS), "y: expected labels 0 and 1, got 0 alone, which has no AUC"),
        (lambda model: model.fit(X, ONE_CLASS, verbose=2), "y: expected labels 0 and 1, got 0 alone, which has no AUC"),
        (
            lambda model: model.fit(X, Y, verbose=0, validation_data=(X, ONE_CLASS + 1)),
            "validation labels: expected labels 0 and 1, got 1 alone, which has no AUC; .* without the metric 'auc'",
        ),
        (
            lambda model: model.fit(X, np.repeat([0, 1], [30, 10]), verbose=0, validation_split=0.25),
            "validation labels: expected labels 0 and 1, got 1 alone",
        ),
        (lambda model: model.evaluate({name: x[:0] for name, x in X.items()}, Y[:0]), "y: .*, got no row"),
    ],
)
def test_an_auc_of_one_class_is_refused_before_anything_is_trained(call, message, recwarn):
    model = compiled("LR")
    before = weights(model)
    with pytest.raises(UserError, match=message) as mistake:
        call(model)
    assert "\n" not in str(mistake.value)
    assert all(map(torch.equal, before, weights(model)))
    assert len(recwarn) == 0


def test_one_class_is_no_mistake_where_no_auc_is_wanted():
    model = compiled("LR", metrics=["logloss", "acc"])
    assert np.isfinite(model.fit(X, ONE_CLASS, verbose=2, validation_split=0.25).history["val_logloss"]).all()
    assert compiled("LR").fit(X, ONE_CLASS, verbose=0).history["loss"]  # nothing is evaluated


@pytest.mark.parametrize("name", OURS)
def test_batches_of_one_row_are_refused_where_there_is_batch_norm(name):
    model = compiled(name)
    for batch_size in (-8, 2.5, "8"):
        with pytest.raises(UserError, match=f"batch_size: expected a whole number of at least ., .*got {batch_size!r}"):
            model.fit(X, Y, batch_size=batch_size, verbose=0)
    if name == "LR":
        assert model.fit(X, Y, batch_size=1, verbose=0).history["loss"]
        return
    with pytest.raises(
        UserError, match=r"batch_size: expected a whole number of at least 2, since batch norm .*, got 1"
    ):
        model.fit(X, Y, batch_size=1, verbose=0)


FEATURES = random_features(ALL_COLUMNS, 8)
WRONG_FEATURES = {
    "an id of -1": (FEATURES | {"gender": FEATURES["gender"] * 0 - 1}, "ids from 0 to 3 for 'gender', got -1 to -1"),
    "an id beyond": (FEATURES | {"movie_id": FEATURES["movie_id"] + 12}, "ids from 0 to 11 for 'movie_id', got 1"),
    "an id in a list": (FEATURES | {"genres": FEATURES["genres"] - 1}, "ids from 0 to 6 for 'genres', got -1 to"),
    "ids as floats": (
        FEATURES | {"user_id": FEATURES["user_id"] + 0.5},
        "whole numbers for 'user_id', got torch.float32",
    ),
    "an array": (FEATURES | {"user_id": X["user_id"][:8]}, "a tensor for 'user_id', got ndarray; add or convert it"),
    "a feature missing": ({"user_id": FEATURES["user_id"]}, "a tensor for 'gender', got none; add or convert it"),
    "a list of features": (list(FEATURES.values()), "a dict of tensors by column name, got list"),
}


@pytest.mark.parametrize("case", WRONG_FEATURES)
@pytest.mark.parametrize("name", ["IntTower", "LR", "DAT", "COLD"])
def test_forward_names_the_column_that_it_cannot_read(name, case):
    features, message = WRONG_FEATURES[case]
    with pytest.raises(UserError, match=f"^features: expected {message}") as mistake:
        small_model(name).eval()(features)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("case", [case for case in WRONG_FEATURES if case != "ids as floats"])  # all are floats there
def test_forward_of_deepctr_torchs_models_names_it_too(case):
    features, message = WRONG_FEATURES[case]
    with pytest.raises(UserError, match=f"^features: expected {message}"):
        small_model("DCN").eval()(features)


def test_an_error_that_no_feature_explains_stays_what_it_is():
    model = small_model("LR")
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyError("a hook's own")))
    with pytest.raises(KeyError, match="a hook's own"):
        model(FEATURES)


@pytest.mark.parametrize("name", MODELS)
def test_no_rows_give_no_probabilities(name):
    assert small_model(name).predict({feature: values[:0] for feature, values in X.items()}).shape == (0, 1)


@pytest.mark.parametrize("name", ["IntTower", "LR", "DCN"])
def test_a_varlen_feature_of_length_one_is_still_a_list(name):
    items = [sparse("movie_id", 12), varlen("genres", maxlen=1)]
    x = {feature: values.numpy() for feature, values in random_features([*user_columns(), *items], 5).items()}
    assert model_class(name).from_columns(user_columns(), items).predict(x).shape == (5, 1)


def test_huge_logits_give_probabilities_without_a_warning(recwarn):
    model = small_model("LR")
    with torch.no_grad():
        model.bias.fill_(-5000.0)
    assert (model.predict(X) == 0).all()
    assert len(recwarn) == 0


def test_logloss_is_clipped_as_in_deepctr_torch():
    model = compiled("LR", metrics=["logloss"])
    with torch.no_grad():
        model.bias.fill_(-50.0)
    assert model.evaluate(X, Y)["logloss"] == pytest.approx(BaseModel._log_loss(None, Y, model.predict(X)[:, 0]))
