"""The version of the code that shapes a result: which edits change it, and for whom."""

from pathlib import Path

import pytest
from shell import copy_of_the_project

from experiment.code_version import code_version, version_of_file
from model import MODELS, model_class


def version(project: Path, name: str) -> str:
    # The class of a deepctr-torch model is made in model/deepctr.py.
    module = model_class(name).__module__.replace(".", "/")
    return version_of_file(project / f"{module}.py", project)


@pytest.fixture
def project(tmp_path):
    return copy_of_the_project(tmp_path / "project")


def edit(project, path: str, old: str, new: str) -> None:
    text = (project / path).read_text()
    assert old in text
    (project / path).write_text(text.replace(old, new, 1))


def test_a_version_does_not_depend_on_where_the_project_lies(project):
    assert version(project, "IntTower") == code_version(model_class("IntTower"))


def test_comments_docstrings_and_layout_leave_it_alone(project):
    before = version(project, "IntTower")
    edit(project, "model/IntTower.py", '"""IntTower: a two-tower', '"""Another docstring. IntTower: a two-tower')
    edit(project, "training/trainer.py", "class Trainer:", "# a comment\n\n\n\nclass Trainer:")
    edit(
        project,
        "model/layers.py",
        "def forward(self, x: Tensor) -> Tensor:",
        "def forward(\n  self, x: Tensor) -> Tensor:",
    )
    assert version(project, "IntTower") == before


@pytest.mark.parametrize(
    ("path", "old", "new", "changed"),
    [
        (
            "model/IntTower.py",
            "self.temperature = temperature",
            "self.temperature = 2 * temperature",
            ["IntTower", "DSSMCIR"],
        ),
        ("model/dssm.py", "+ self.bias", "- self.bias", ["DSSM", "DSSMCIR", "DAT"]),
        ("model/deepctr.py", "import functools", "import functools, os", ["DCN"]),
        ("preprocessing/utils.py", "score = 0.0", "score = 1.0", ["IntTower", "DSSMCIR"]),
        ("training/trainer.py", "state = {", "state = dict() or {", list(MODELS)),
        ("experiment/report.py", "import json", "import json, os", []),
        ("preprocessing/movielens.py", "import time", "import time, os", []),
    ],
)
def test_an_edit_changes_the_version_of_the_models_that_it_can_reach(path, old, new, changed, project):
    names = ["IntTower", "DSSM", "DSSMCIR", "DAT", "DCN", "LR"]
    before = {name: version(project, name) for name in names}
    edit(project, path, old, new)
    after = {name: version(project, name) for name in names}
    assert [name for name in names if before[name] != after[name]] == [name for name in names if name in changed]


def test_every_model_of_the_project_has_a_version():
    assert all(len(code_version(model_class(name))) == 64 for name in MODELS)
