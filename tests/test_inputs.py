"""The columns are deepctr-torch's in all but the import, and whatever is imported first is quiet."""

import inspect
import json
import os
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from models import ALL_COLUMNS, item_columns, small_model, user_columns
from shell import PROJECT

from model import MODELS
from model.deepctr import deepctr_column
from preprocessing import inputs
from preprocessing.errors import UserError
from preprocessing.inputs import DenseFeat, SparseFeat, VarLenSparseFeat, as_columns

from deepctr_torch import inputs as theirs

KINDS = ("SparseFeat", "DenseFeat", "VarLenSparseFeat")


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_has_deepctr_torchs_fields_arguments_and_defaults(kind):
    ours, own = getattr(inputs, kind), getattr(theirs, kind)
    assert ours._fields == own._fields
    arguments, expected = (inspect.signature(column.__new__).parameters.values() for column in (ours, own))
    assert [(a.name, a.default) for a in arguments][1:] == [(a.name, a.default) for a in expected][1:]


@pytest.mark.parametrize("dim", [8, "auto"])
def test_what_a_column_leaves_open_is_filled_as_in_deepctr_torch(dim):
    for module in (inputs, theirs):
        sparse = module.SparseFeat("user_id", 10_000, embedding_dim=dim)
        varlen = module.VarLenSparseFeat(module.SparseFeat("genres", 20, embedding_name="g"), 3, length_name="length")
        assert sparse == ("user_id", 10_000, 60 if dim == "auto" else 8, False, "int32", "user_id", "default_group")
        assert module.DenseFeat("age") == ("age", 1, "float32")
        assert (varlen.name, varlen.embedding_dim, varlen.embedding_name, varlen.combiner) == ("genres", 4, "g", "mean")
        columns = [sparse, module.DenseFeat("position", 2), varlen, sparse]
        assert list(module.build_input_features(columns).values()) == [(0, 1), (1, 3), (3, 6), (6, 7)]
        assert module.get_feature_names(columns) == ["user_id", "position", "genres", "length"]
        assert len({*columns}) == 3


@pytest.mark.parametrize("name", sorted(MODELS))
def test_deepctr_torchs_own_columns_give_the_same_model(name):
    own = [[*map(deepctr_column, columns)] for columns in (user_columns(), item_columns())]
    expected, model = small_model(name), small_model(name, *own)
    assert model.columns == expected.columns
    assert {type(column) for column in model.columns} <= {SparseFeat, DenseFeat, VarLenSparseFeat}
    for weight, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(weight, wanted)


def test_a_column_goes_to_deepctr_torch_and_back_unchanged():
    assert {type(column).__module__ for column in map(deepctr_column, ALL_COLUMNS)} == {"deepctr_torch.inputs"}
    assert as_columns(map(deepctr_column, ALL_COLUMNS)) == ALL_COLUMNS


def test_what_is_no_column_is_refused():
    with pytest.raises(UserError, match=r"columns: expected SparseFeat, DenseFeat and VarLenSparseFeat, got 'user_id'"):
        as_columns([SparseFeat("item_id", 3), "user_id"])


PACKAGES = ("model", "training", "preprocessing", "experiment", "figure", "benchmark", "reproduction", "serving")
MODULES = [f"{package}.{module.name}" for package in PACKAGES for module in pkgutil.iter_modules([PROJECT / package])]
MODULES += [path.stem for path in PROJECT.glob("*.py")]


def run_watched(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run code in a fresh process; each thread and each connection of its own is a line on stderr.

    The `requests` that it would find fails, so it does not matter whether the real one is installed.
    """
    (folder / "requests.py").write_text("raise ImportError('somebody wants requests')\n")
    watch = """
        import sys, threading
        watched = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
        sys.addaudithook(lambda event, arguments: event in watched and print(event, arguments, file=sys.stderr))
        start = threading.Thread.start  # Python 3.11 has no audit event for it
        threading.Thread.start = lambda thread: print("thread started:", thread, file=sys.stderr) or start(thread)
        """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(watch) + textwrap.dedent(code)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_whichever_module_is_imported_first_starts_no_thread_opens_no_connection_and_prints_nothing(tmp_path):
    # Only torch, pandas and scikit-learn, which take seconds, come before; each module then has a process of its own.
    code = f"""
        import importlib, os, traceback
        import pandas, sklearn.metrics, torch
        for name in {MODULES}:
            if os.fork() == 0:
                output = os.open(f"{tmp_path}/{{name}}.txt", os.O_CREAT | os.O_WRONLY)
                os.dup2(output, 1), os.dup2(output, 2)
                try:
                    importlib.import_module(name)
                    print("imported")
                except BaseException:
                    traceback.print_exc()
                sys.stdout.flush()
                os._exit(0)  # an orderly end of all that torch brings takes a second
            os.wait()
        """
    parent = run_watched(code, tmp_path)
    assert (parent.returncode, parent.stdout, parent.stderr) == (0, "", "")
    printed = {name: (tmp_path / f"{name}.txt").read_text() for name in MODULES}
    assert {name: text for name, text in printed.items() if text != "imported\n"} == {}
    assert {"model.dcn", "model.estimator", "training.trainer", "preprocessing.inputs", "reproduce"} < set(MODULES)


PASTED = """
import numpy as np
from deepctr_torch.inputs import DenseFeat, SparseFeat, get_feature_names
from model.{module} import {name} as Model

users = [SparseFeat("user_id", vocabulary_size=9, embedding_dim=4), DenseFeat("age", 1)]
items = [SparseFeat("item_id", vocabulary_size=5, embedding_dim=4)]
model = Model.from_columns(users, items, dnn_hidden_units=(8, 4))
model.compile("adam", "binary_crossentropy", metrics=["auc"])
x = {{"user_id": np.arange(40) % 9, "age": np.arange(40) / 40, "item_id": np.arange(40) % 5}}
assert get_feature_names(users + items) == list(x)
print(model.fit(x, np.arange(40) % 2, batch_size=20, epochs=2, verbose=0).history["loss"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), [("IntTower", "IntTower"), ("dcn", "DCN")])
def test_a_pasted_script_may_take_its_columns_from_deepctr_torch_first(module, name):
    # What deepctr-torch does at its own import is not ours to keep it from: a `requests` that knows no network.
    code = "import sys, types; sys.modules['requests'] = types.ModuleType('requests')\n" + PASTED.format(
        module=module, name=name
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert all(loss > 0 for loss in json.loads(result.stdout.splitlines()[-1]))
