"""The version of the code that shapes a result: a hash that comments, docstrings and layout leave alone."""

from __future__ import annotations

import ast
import hashlib
import inspect
from functools import lru_cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# What every model is trained and scored by. Of data only the encoded tables count, and those have a checksum.
LOOP = (
    "training/trainer.py",
    "training/progress.py",
    "training/generators.py",
    "training/distributed.py",
    "training/average.py",
    "training/predict.py",
    "training/metrics.py",
    "training/schedule.py",
    "training/sharding.py",
)
FOLLOWED = ("model", "preprocessing.utils")


@lru_cache
def code_version(model: type) -> str:
    """sha256, in hex, over the code of a model, of all that it imports from model/, and of the loop.

    What it leaves out: preprocessing/, since a record has a checksum of the encoded tables; the settings, since it has
    them too; what prints and writes; and the libraries, whose versions it names.
    """
    return version_of_file(Path(inspect.getfile(model)).resolve())


def version_of_file(model_file: Path, project: Path = PROJECT) -> str:
    """`code_version` of a model that stands in a file of a project."""
    files, waiting = [project / name for name in LOOP], [model_file]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.append(path)
            followed = (project / (name.replace(".", "/") + ".py") for name in _imports(path.read_text()))
            waiting.extend(path for path in followed if path.exists())
    files.sort(key=lambda path: path.relative_to(project).as_posix())
    return hashlib.sha256("".join(_digest(path.read_text()) for path in files).encode()).hexdigest()


@lru_cache  # models share most of their files
def _digest(source: str) -> str:
    return hashlib.sha256(repr(_shape(ast.parse(source))).encode()).hexdigest()


def _shape(node):
    """A syntax tree as nested tuples, without docstrings and without what is empty.

    Python's own ways to write a tree differ between its versions, which add fields that are empty in older code.
    """
    if isinstance(node, list):
        return tuple(map(_shape, node))
    if not isinstance(node, ast.AST):
        return repr(node)
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:]
    fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return (type(node).__name__, *((name, _shape(value)) for name, value in fields))


@lru_cache
def _imports(source: str) -> list[str]:
    """The modules of `FOLLOWED` that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
    return [name for name in names if name.split(".")[0] in FOLLOWED or name in FOLLOWED]
