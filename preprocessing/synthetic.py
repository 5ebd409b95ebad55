"""What synthetic raw files share: how they are made, and the probabilities by which they are known."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocessing.errors import UserError

# The probability of label 1 behind every row of the raw file, in its order, (N,). Data that hold it are synthetic.
SAMPLE_PROBABILITIES = "probabilities.npy"
BLOCK_ROWS = 1_000_000
TASTE_SIZE = 4  # of the hidden tastes of users and the styles of items


def load_probabilities(folder: Path, num_rows: int) -> np.ndarray | None:
    """The probability behind every row of a synthetic sample, memory-mapped; None where the data are not synthetic.

    Raises UserError where there is not one for each row.
    """
    found = probabilities_in(folder)
    return _checked(lambda: np.load(found[0], mmap_mode="r", allow_pickle=False), num_rows) if found else None


def probabilities_in(folder: Path) -> list[Path]:
    """The file of probabilities, by which data are known to be synthetic, if the folder has one."""
    path = folder / SAMPLE_PROBABILITIES
    return [path] if path.is_file() else []


def parse_probabilities(content: bytes, num_rows: int) -> np.ndarray:
    """As `load_probabilities`, from the bytes of the file."""
    return _checked(lambda: np.load(io.BytesIO(content), allow_pickle=False), num_rows)


def _checked(load: Callable[[], np.ndarray], num_rows: int) -> np.ndarray:
    try:
        probabilities = load()
    except (ValueError, EOFError, OSError):
        probabilities = np.zeros(0)
    if probabilities.shape != (num_rows,):
        raise UserError(
            f"{SAMPLE_PROBABILITIES}: expected a number for each of {num_rows} rows, got {probabilities.size}; "
            "the sample was altered: make it anew, or, if the other files are real ones, remove this one."
        )
    return probabilities


def how_often(rng, size: int, total: int, sigma: float, least: int = 1) -> np.ndarray:
    """How many rows each of `size` things has, (size,), of `total`: at least `least` if they suffice, some many."""
    least = min(least, total // size)
    share = rng.lognormal(sigma=sigma, size=size)
    return least + rng.multinomial(total - least * size, share / share.sum())


def with_gaps(rng, values: np.ndarray, share: float, mark: str = "") -> np.ndarray:
    """Values as texts (N,), a share of them replaced by the mark of a missing one."""
    texts = values.astype(str).astype(object)
    texts[rng.random(len(values)) < share] = mark
    return texts


def with_mean(logit: np.ndarray, mean: float) -> np.ndarray:
    """Probabilities (N,) float32 of logits, shifted so that their mean is about the one given."""
    low, high, some = -20.0, 20.0, logit[:: max(1, len(logit) // 100_000)].astype(np.float64)
    for _ in range(40):
        shift = (low + high) / 2
        low, high = (low, shift) if np.mean(1 / (1 + np.exp(-some - shift))) > mean else (shift, high)
    return 1 / (1 + np.exp(-(logit + np.float32(shift))))


def blocks(num_rows: int, shown: str | None = None) -> Iterator[slice]:
    """Slices of at most BLOCK_ROWS that cover all rows; with a name to show, under a progress bar."""
    starts = range(0, num_rows, BLOCK_ROWS)
    for start in tqdm(starts, desc=shown, unit="block", leave=False, disable=None if shown else True):
        yield slice(start, min(start + BLOCK_ROWS, num_rows))


def write_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """A folder that appears only when `write` has put everything into it."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        temporary.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another process was first
            return folder
        raise UserError(
            f"{folder}: the synthetic sample could not be written ({error.strerror}); free some space."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
