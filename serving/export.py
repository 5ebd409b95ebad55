"""Write a run as ONNX: the user tower, the item tower and the scorer, with all that is needed to serve them.

    python -m serving.export --run runs/movielens-IntTower-strict-seed1023 --output exported

    exported/
      user_tower.onnx   features of B users, by name -> heads (B, Q, K)
      item_tower.onnx   features of N items, by name -> heads (N, G, K)
      scorer.onnx       user (B, Q, K), items (N, G, K) -> logits (B, N)
      encoders.json     raw values to features
      manifest.json     names, shapes, dtypes, and sha256 and size of the files above

A tower above 2 GiB, which no file of ONNX may be, has its weights beside it in user_tower.onnx.data.
serving/exported.py reads it without torch.

Shapes: B users, Q user heads, N items, G item heads, K head size, T padded length, D embedding size.
"""

from __future__ import annotations

import argparse
import sys

from experiment.flags import levels
from experiment.folder import check_run_folder
from preprocessing.command import Parser, exit_code, read_command_line
from preprocessing.errors import UserError
from serving.choices import check_installed, replace_what_cannot_be_shown

PACKAGES, REQUIREMENTS = ["onnx", "onnxscript"], "requirements-export.txt"


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="the folder of a training run")
    parser.add_argument("--output", help="the folder to write (default RUN/onnx)")
    parser.add_argument("--levels", default="all", type=levels, help="IntTower: levels to serve: all, last, or 0,2")
    arguments = parser.parse_args(words)
    check_installed(PACKAGES, REQUIREMENTS)
    check_run_folder(arguments.run)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.layers import FieldEmbedding
from preprocessing.encode import save_encoders
from preprocessing.files import check_links, write_synced
from preprocessing.inputs import VarLenSparseFeat
from serving.exported import ENCODERS, FORMAT, ITEM_TOWER, MANIFEST, SCORER, USER_TOWER, sha256
from serving.heads import Heads, blank_rows
from serving.trained_run import TrainedRun, load_run

OPSET = 20


class _Tower(nn.Module):
    """A tower whose features are arguments in a fixed order, as a graph's inputs are."""

    def __init__(self, heads: Heads, side: str, names: list[str]):
        super().__init__()
        self.heads, self.side, self.names = heads, side, names

    def forward(self, *features: Tensor) -> Tensor:
        # Operators of ONNX that take indices want one kind of them.
        whole = (feature if feature.is_floating_point() else feature.long() for feature in features)
        named = dict(zip(self.names, whole, strict=True))
        return self.heads.user(named) if self.side == "user" else self.heads.item(named)


class _Scorer(nn.Module):
    """The sum over user heads of the best item head, head by head; with a temperature as in serving/maxsim.py."""

    def __init__(self, num_heads: int, bias: float, temperature: float | None):
        super().__init__()
        self.num_heads, self.bias, self.temperature = num_heads, bias, temperature

    def forward(self, user_BQK: Tensor, items_NGK: Tensor) -> Tensor:
        best_BQN = user_BQK @ items_NGK[:, 0].T
        for head in range(1, self.num_heads):
            best_BQN = torch.maximum(best_BQN, user_BQK @ items_NGK[:, head].T)
        if self.temperature is not None:
            best_BQN = best_BQN * (best_BQN / self.temperature).softmax(1)
        return best_BQN.sum(1) + self.bias


def export(run: TrainedRun, folder: str | Path) -> Path:
    """Write the folder, which appears whole or not at all; returns it.

    Raises UserError where one stands there, and where the packages of requirements-export.txt are not installed.
    """
    check_installed(PACKAGES, REQUIREMENTS)
    folder = Path(folder)
    check_links(folder)
    if folder.exists():
        raise UserError(f"{folder}: expected a name that is free, got one that exists; choose another or remove it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(run, temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write(run: TrainedRun, folder: Path) -> None:
    heads = run.heads
    inputs = {}
    towers = ((USER_TOWER, "user", run.user_encoder), (ITEM_TOWER, "item", run.item_encoder))
    for file, side, encoder in towers:
        rows = blank_rows(encoder.columns(1), 2)
        inputs[file] = {name: [str(v.dtype).removeprefix("torch."), *v.shape[1:]] for name, v in rows.items()}
        axes = tuple({0: torch.export.Dim("rows")} for _ in rows)
        _export(folder / file, _Tower(heads, side, list(rows)), rows, (axes,), "heads")
    user, items = torch.zeros(2, heads.num_user_heads, heads.head_dim), torch.zeros(3, heads.num_heads, heads.head_dim)
    axes = {0: torch.export.Dim("users")}, {0: torch.export.Dim("items")}
    _export(
        folder / SCORER,
        _Scorer(heads.num_heads, heads.bias, heads.temperature),
        {"user": user, "items": items},
        axes,
        "logits",
    )
    save_encoders(folder / ENCODERS, run.user_encoder, run.item_encoder)
    files = sorted(folder.iterdir())  # all that was written, with the WEIGHTS of a tower that is too large for a file
    manifest = {
        "format": FORMAT,
        "model": type(heads.model).__name__,
        "checkpoint": run.checkpoint,
        "user_id": run.user_id,
        "item_id": run.item_id,
        "num_user_heads": heads.num_user_heads,
        "num_heads": heads.num_heads,
        "head_dim": heads.head_dim,
        "bias": heads.bias,
        "temperature": heads.temperature,
        "inputs": inputs,
        "sha256": {file.name: sha256(file) for file in files},
        "bytes": {file.name: file.stat().st_size for file in files},
    }
    write_synced(folder / MANIFEST, [json.dumps(manifest, indent=1).encode()])


def _export(path: Path, module: nn.Module, inputs: dict[str, Tensor], axes: tuple, output: str) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which has no part in this
    with torch.no_grad(), _pooling_by_gather(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of names of axes and of what is deprecated within it
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=axes,
        )
        program.save(str(path), external_data=False)  # with its weights beside it where it is above 2 GiB


@contextmanager
def _pooling_by_gather(module: nn.Module) -> Iterator[None]:
    """Within the block multi-hot fields are pooled without embedding_bag: it becomes a loop that fails on no rows."""
    embeddings = [part for part in module.modules() if isinstance(part, FieldEmbedding)]
    try:
        for embedding in embeddings:
            embedding._pool = partial(_pool, embedding)
        yield
    finally:
        for embedding in embeddings:
            del embedding._pool


def _pool(embedding: FieldEmbedding, column: VarLenSparseFeat, features: dict[str, Tensor]) -> Tensor:
    """What FieldEmbedding's own pooling gives, (B, D)."""
    ids_BT = features[column.name]
    if column.length_name is not None:
        position_T = torch.arange(column.maxlen)
        ids_BT = ids_BT * (position_T < features[column.length_name].view(-1, 1))
    given_BT1 = (ids_BT != 0).unsqueeze(2)
    values_BTD = functional.embedding(ids_BT, embedding.table(column.embedding_name).weight)
    if column.combiner == "max":
        largest_BD = values_BTD.masked_fill(~given_BT1, -torch.inf).amax(1)
        return largest_BD.masked_fill(~given_BT1.any(1), 0.0)
    sum_BD = (values_BTD * given_BT1).sum(1)
    return sum_BD / given_BT1.sum(1).clamp(min=1) if column.combiner == "mean" else sum_BD


def main(arguments: argparse.Namespace) -> None:
    """Export and say what was written."""
    replace_what_cannot_be_shown()
    folder = export(load_run(arguments.run, arguments.levels), arguments.output or Path(arguments.run) / "onnx")
    sizes = [f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in sorted(folder.glob("*.onnx*"))]
    print(f"{folder}: {', '.join(sizes)}, {ENCODERS}, {MANIFEST}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
