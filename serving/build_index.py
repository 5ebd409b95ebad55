"""Encode a run's items and make an index of them.

    python -m serving.build_index --run runs/movielens-IntTower-strict-seed1023 --dtype float16

The index appears when all items are encoded. A build that was stopped goes on where it stood, if run, items and dtype
are the same.
"""

from __future__ import annotations

import argparse
import sys

from experiment.flags import levels
from experiment.folder import check_run_folder
from preprocessing.command import Parser, exit_code, read_command_line
from serving.choices import DTYPES


def constant(text: str) -> tuple[str, str]:
    """Parse `pid=430548_1007`."""
    column, equals, value = text.partition("=")
    if not (equals and column):
        raise argparse.ArgumentTypeError(f"expected COLUMN=VALUE, got {text!r}")
    return column, value


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="the folder of a training run")
    parser.add_argument(
        "--items", help="a CSV file with the raw columns of the item tower; else the dataset's own items"
    )
    parser.add_argument("--data", help="where the dataset lies, as for its training script")
    for name in ("--reviews", "--meta"):
        parser.add_argument(name, help="of Amazon, as for its training script")
    parser.add_argument(
        "--set",
        type=constant,
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="a column of one value that the items lack",
    )
    parser.add_argument("--output", help="the folder of the index (default RUN/index)")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="how an item's heads are kept")
    parser.add_argument("--levels", default="all", type=levels, help="IntTower: levels to serve: all, last, or 0,2")
    arguments = parser.parse_args(words)
    named = [column for column, _ in arguments.set]
    if len(set(named)) < len(named):
        parser.error(f"--set: expected each column once, got {', '.join(named)}")
    if arguments.items is not None and arguments.data is not None:
        parser.error("--data: has no effect with --items; leave one of them out")
    check_run_folder(arguments.run)
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import csv
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiment.report import SYNTHETIC_BANNER
from experiment.settings import LATER
from preprocessing.alibaba import read_alibaba
from preprocessing.amazon import locate_amazon, read_amazon
from preprocessing.errors import UserError
from preprocessing.files import write_array, write_atomically
from preprocessing.gzip_lines import OR_LATIN_1, opened
from preprocessing.kuairand import locate_kuairand, read_kuairand
from preprocessing.movielens import RawMovieLens, fingerprint_of, locate_movielens, read_movielens
from preprocessing.sources import alibaba_files
from preprocessing.text_tables import check_header
from serving.index_files import (
    FORMAT,
    HEADS,
    IDS,
    PROGRESS,
    SCALES,
    Form,
    Manifest,
    is_made,
    make_marked,
    new_name,
    next_generation,
    only_writer,
    remove_made,
    segment_entry,
    write_manifest,
)
from serving.item_ids import as_ids
from serving.item_index import ItemIndex
from serving.quantisation import check_finite, quantise
from serving.trained_run import BATCH, TrainedRun, load_run

BUILDING = "building"


def build_index(run: TrainedRun, items: pd.DataFrame, folder: str | Path, dtype: str = "float32") -> ItemIndex:
    """Encode raw items in batches and put them into an index, in place of any that stood there.

    Args:
        run: what encodes them.
        items: a row each, with the raw columns of the item tower; the run's `item_id` names them.
        folder: where the index will stand.
        dtype: float32, float16 or int8; see serving/quantisation.py.
    Raises UserError where an item has no id or one of another kind than training saw, an id occurs twice, a column is
    missing, or a number is not finite.
    """
    folder = Path(folder)
    if run.item_id not in items.columns:
        raise UserError(f"items: expected a column {run.item_id!r}, got {list(items.columns)}; add it.")
    if list(items.columns).count(run.item_id) > 1:
        raise UserError(f"items: expected one column {run.item_id!r}, got several; keep one.")
    known = next(field.vocabulary for field in run.item_encoder.fields if field.name == run.item_id)
    ids = as_ids(items[run.item_id], known, f"items, {run.item_id}")
    order = np.argsort(ids, kind="stable")
    ids, items = ids[order], items.iloc[order]
    with only_writer(folder):
        generation = next_generation(folder)  # refuses the manifest of something else before the work is done
        place = folder / BUILDING
        _encode_into(place, run, items, ids, dtype)
        write_array(place / IDS, ids)
        (place / PROGRESS).unlink(missing_ok=True)
        named = place.rename(folder / new_name())
        entries = [segment_entry(named)] if len(ids) else []
        write_manifest(folder, Manifest(form_of(run, dtype), generation, entries))
    return ItemIndex(folder, run.checkpoint)


def form_of(run: TrainedRun, dtype: str) -> Form:
    """The form of an index of this run's items."""
    heads = run.heads
    return Form(
        model=type(heads.model).__name__,
        checkpoint=run.checkpoint,
        item_id=run.item_id,
        dtype=dtype,
        num_user_heads=heads.num_user_heads,
        num_heads=heads.num_heads,
        head_dim=heads.head_dim,
        bias=heads.bias,
        temperature=heads.temperature,
    )


def _encode_into(place: Path, run: TrainedRun, items: pd.DataFrame, ids: np.ndarray, dtype: str) -> None:
    """Write the heads, and the scales of int8, of all items, from where an earlier call of the same kind stopped."""
    identity = _identity(run, items, dtype)
    done = _done(place, identity)
    if not done:
        if is_made(place):
            remove_made(place)
        if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
            raise UserError(
                f"{place}: expected a free name, or what a stopped build left, got something else; rename it, or "
                "choose another folder for the index."
            )
        make_marked(place)
    shape = (len(items), run.heads.num_heads, run.heads.head_dim)
    heads = _opened(place / HEADS, shape, dtype, done)
    scales = _opened(place / SCALES, shape[:1], "float32", done) if dtype == "int8" else None
    with tqdm(total=len(items), initial=done, desc="items", unit="item", unit_scale=True, disable=None) as bar:
        for start in range(done, len(items), BATCH):
            rows = slice(start, start + BATCH)
            encoded = run.encode_items(items.iloc[rows])
            check_finite(encoded, ids[rows])
            heads[rows], of_rows = quantise(encoded, dtype)
            if scales is not None:
                scales[rows] = of_rows
                scales.flush()
            heads.flush()
            state = {"identity": identity, "done": min(start + BATCH, len(items))}
            write_atomically(place / PROGRESS, json.dumps(state).encode())
            bar.update(len(encoded))


def _opened(path: Path, shape: tuple, dtype: str, done: int) -> np.memmap:
    mode = "r+" if done else "w+"
    return np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=None if done else shape)


def _identity(run: TrainedRun, items: pd.DataFrame, dtype: str) -> str:
    try:
        hashes = pd.util.hash_pandas_object(items, index=False).to_numpy()
    except TypeError:  # lists, which have no hash
        hashes = pd.util.hash_pandas_object(items.map(repr), index=False).to_numpy()
    kind = json.dumps([FORMAT, run.checkpoint, dtype, list(items.columns)])
    return hashlib.sha256(kind.encode() + hashes.tobytes()).hexdigest()


def _done(place: Path, identity: str) -> int:
    """How many items a stopped build of the same kind has encoded."""
    try:
        state = json.loads((place / PROGRESS).read_bytes())
        return state["done"] if state["identity"] == identity else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


AMAZON_IDS = ("asin", "parent_asin")


def is_of(run: TrainedRun, raw: RawMovieLens) -> bool:
    """Whether a run was trained on these data; of one of --init-from it cannot be told."""
    of = LATER | run.identity
    made_of = fingerprint_of(raw, of["protocol"], of["split_seed"], of["statistics"], of["label_delay"])
    return run.identity["data"] == made_of or "init_from" in of


def _movies(run: TrainedRun, data: str | None) -> pd.DataFrame:
    """The movies that the training script would find, unless they are invented and not those of the run."""
    raw = read_movielens(locate_movielens(data))
    if raw.probabilities is not None:
        if not is_of(run, raw):
            raise UserError(
                f"--data: expected the movies that {run.folder} was trained on, got invented ones; name its data, or a "
                "file of --items."
            )
        print(SYNTHETIC_BANNER)
    return raw.movies


# The raw items of a dataset, found as its training script finds them, by the column that names an item.
ITEM_TABLES = {
    "movie_id": lambda run, data, *_: _movies(run, data),
    **dict.fromkeys(AMAZON_IDS, lambda _, *files: read_amazon(*locate_amazon(*files)).items),
    "adgroup_id": lambda _, data, *__: read_alibaba(alibaba_files(data)).items,
    "video_id": lambda _, data, *__: read_kuairand(locate_kuairand(data)).items,
}


def read_items(
    run: TrainedRun,
    path: str | None,
    data: str | None,
    constants: dict[str, str],
    reviews: str | None = None,
    meta: str | None = None,
) -> pd.DataFrame:
    """Raw items: of a CSV file, or else of the dataset that the run was trained on; constants are added as columns.

    Raises UserError where they are not there, lack a column of the item tower, or have that of a constant, and for a
    constant that the item tower does not take.
    """
    if (reviews or meta) and (path is not None or run.item_id not in AMAZON_IDS):
        raise UserError(f"--reviews, --meta: expected a run on Amazon's files and no --items, got {run.item_id!r}.")
    if path is not None:
        items = _read_csv(Path(path), [column for column in run.item_encoder.sources if column not in constants])
    elif run.item_id in ITEM_TABLES:
        items = ITEM_TABLES[run.item_id](run, data, reviews, meta)
    else:
        raise UserError(f"--items: expected a CSV file with a column {run.item_id!r}, got none; name one.")
    for name in constants:
        if name in items:
            raise UserError(
                f"--set {name}: expected a column that the items lack, got one that they have; leave it out."
            )
        if name not in run.item_encoder.sources:
            raise UserError(
                f"--set {name}: expected one of the item tower's columns, {', '.join(run.item_encoder.sources)}, got "
                "another."
            )
    items = items.assign(**constants)
    if lacks := [column for column in run.item_encoder.sources if column not in items]:
        name = lacks[0]
        raise UserError(f"items: expected a column {name!r}, got {list(items.columns)}; --set {name}=VALUE adds one.")
    return items


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """The text of a CSV file, packed by gzip or not, that has these columns and whose rows are as long as its header.

    pandas takes the first column for an index where rows are longer by one, fills up short ones, and renames a column
    that is there twice, all without a word.
    """
    rows = []
    with opened(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", errors=OR_LATIN_1, newline="") as file:
        reader = csv.reader(file, strict=True)  # which refuses a quote that is never closed
        try:
            header = [name.strip() for name in next(reader, [])]
            check_header(path.name, header, columns)
            for row in reader:
                if row and len(row) != len(header):
                    raise UserError(
                        f"{path.name}, line {reader.line_num}: expected {len(header)} columns ({', '.join(header)}), "
                        f"got {len(row)}; mend or remove the line."
                    )
                if row:  # else a blank line
                    rows.append(row)
        except csv.Error as error:
            raise UserError(
                f"{path.name}, line {reader.line_num}: expected comma-separated text, got {error}; mend the line."
            ) from error
    return pd.DataFrame(rows, columns=header, dtype=object)


def main(arguments: argparse.Namespace) -> None:
    """Build the index and say what it is."""
    run = load_run(arguments.run, arguments.levels)
    named = arguments.reviews, arguments.meta
    items = read_items(run, arguments.items, arguments.data, dict(arguments.set), *named)
    folder = Path(arguments.output or Path(arguments.run) / "index")
    index = build_index(run, items, folder, arguments.dtype)
    form = index.form
    print(
        f"{folder}: {len(index):,} items, {form.num_heads} x {form.head_dim} heads of {form.dtype}, "
        f"{index.bytes_per_item} bytes each"
    )
    if never_seen := run.item_encoder.never_seen(items):
        counts = ", ".join(f"{name} of {count:,} items" for name, count in never_seen.items())
        print(f"served as unknown, since training never saw what stands there: {counts}")
    if len(items) and never_seen.get(run.item_id) == len(items):
        print(f"none of these items was in training: are --data and --items those of {run.folder}?")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments), "the same command goes on where it stood."))
