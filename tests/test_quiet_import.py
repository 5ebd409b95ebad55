"""Whichever module of the project comes first, importing it starts no thread, opens no connection, prints nothing."""

import pkgutil
from pathlib import Path

import pytest
from test_inputs import PROJECT, run_watched

PACKAGES = ("model", "training", "preprocessing", "figure", "benchmark", "reproduction", "serving")
MODULES = [f"{package}.{module.name}" for package in PACKAGES for module in pkgutil.iter_modules([PROJECT / package])]
MODULES += [
    "train_movielens_IntTower",
    "train_amazon_IntTower",
    "train_alibaba_IntTower",
    "reproduce",
    "rank_movielens",
]


@pytest.fixture(scope="module")
def output_of_each(tmp_path_factory) -> Path:
    """A folder with what each module printed when it was the first of the project to be imported.

    Only torch, pandas and scikit-learn, which take seconds, come before; each module then has a process of its own.
    """
    folder = tmp_path_factory.mktemp("output")
    code = f"""
        import importlib, os, traceback
        import pandas, sklearn.metrics, torch
        for name in {MODULES}:
            if os.fork() == 0:
                output = os.open(f"{folder}/{{name}}.txt", os.O_CREAT | os.O_WRONLY)
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
    parent = run_watched(code, folder)
    assert (parent.returncode, parent.stdout, parent.stderr) == (0, "", "")
    return folder


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_is_imported_first_is_quiet(output_of_each, module):
    assert (output_of_each / f"{module}.txt").read_text() == "imported\n"


def test_importing_dcn_into_a_process_that_has_imported_nothing_is_quiet(tmp_path):
    process = run_watched("import model.dcn", tmp_path)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_no_module_is_left_out():
    assert {"model.dcn", "model.estimator", "training.trainer", "preprocessing.inputs"} < set(MODULES)
