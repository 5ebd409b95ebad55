"""The version of the code that shapes a result: a hash that comments, docstrings and layout leave alone."""

from __future__ import annotations

import ast
import hashlib
import inspect
from functools import lru_cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# What every model is trained and scored by. Of data only the encoded tables count, and those have a checksum.
LOOP = ("training/trainer.py", "training/predict.py", "training/metrics.py")
FOLLOWED = ("model", "preprocessing.utils")


@lru_cache
def code_version(model: type) -> str:
    """sha256, in hex, over the code of a model, of all that it imports from model/, and of the loop.

    Two records of one version differ by nothing that the code does: what reads files, prints, or checks the
    command line is not in it, nor are the libraries, whose versions a record names.
    """
    return version_of_file(Path(inspect.getfile(model)).resolve())


def version_of_file(model_file: Path, project: Path = PROJECT) -> str:
    """`code_version` of a model that stands in a file of a project."""
    files, waiting = [project / name for name in LOOP], [model_file]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.append(path)
            waiting.extend(_imports(path, project))
    digests = [_digest(path) for path in sorted(files, key=lambda path: path.relative_to(project).as_posix())]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _digest(path: Path) -> str:
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _imports(path: Path, project: Path) -> list[Path]:
    """The files of `FOLLOWED` that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
    followed = (name for name in names if name.split(".")[0] in FOLLOWED or name in FOLLOWED)
    paths = (project / (name.replace(".", "/") + ".py") for name in followed)
    return [path for path in paths if path.exists()]
