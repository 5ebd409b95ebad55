"""A training run's state on disk: written atomically, read without unpickling, checked before it is used."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from preprocessing.errors import UserError, is_out_of_memory
from preprocessing.files import write_atomically

ENCODERS_CHECKSUM = "encoders"  # of an identity: the sha256 of the file that turns raw ids into the weights' rows
CODE = "code"  # of an identity: the version of the code that shapes the weights


def save_checkpoint(path: Path, state: dict, before: Callable[[], None] | None = None) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts; readers see the old or the whole new file.

    Args:
        before: is called before the new file takes its place; see write_atomically.
    Raises UserError where the disk refuses; the older checkpoint is then left as it was.
    """

    def write(file) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # torch wraps what the file raised; a full disk must stay recognisable.
            raise OSError(None, f"writing failed: {str(error).splitlines()[0]}") from error

    write_atomically(path, write, before)


def weights_checksum(weights: dict[str, torch.Tensor]) -> str:
    """sha256, in hex, over a state_dict: equal for equal weights, wherever they lie."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()


def load_checkpoint(path: Path, identity: dict | None = None, device: str | torch.device = "cpu") -> dict:
    """Read what `save_checkpoint` wrote, with `weights_only=True`.

    Args:
        identity: what the reader is about to train or serve; None takes any checkpoint.
    Raises UserError where the file is no checkpoint, or one of another model, data or setting.
    """
    try:
        # torch checks no checksums: a flipped bit would load as another weight.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise UserError(
                f"{path}: expected a whole checkpoint, got a damaged one (checksum of {damaged}); train again."
            )
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected a checkpoint, got no such file; train first.") from error
    except UserError:
        raise
    except Exception as error:  # on bytes that are no checkpoint torch's reader raises whatever it trips over
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: expected a whole checkpoint of this project, got a damaged file ({reason})."
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise UserError(f"{path}: expected a checkpoint of this project, got another kind of file.")
    if identity is not None:
        _compare(path, state["identity"], identity)
    return state


def _compare(path: Path, saved: dict, wanted: dict) -> None:
    keys = sorted(saved.keys() | wanted.keys(), key=lambda key: (key != "model", key))  # the model says most
    older = {ENCODERS_CHECKSUM, CODE} - saved.keys()  # a checkpoint that was written before they were noted
    different = [key for key in keys if saved.get(key) != wanted.get(key) and key not in older]
    if different:
        pairs = [(key, _short(saved.get(key)), _short(wanted.get(key))) for key in different[:4]]
        listed = "; ".join(f"{key} is {there} there, {here} here" for key, there, here in pairs)
        more = f"; and {len(different) - 4} more" if len(different) > 4 else ""
        use = "Go on with the code that began it" if CODE in different else "Use its settings"
        raise UserError(f"{path}: belongs to another run: {listed}{more}. {use}, or another --output.")


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
