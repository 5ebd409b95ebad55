"""Processes killed at random moments, by SIGKILL: each goes on afterwards or refuses in a line, and ends the same.

    python -m benchmark.kills --kills 100

Five kinds of work take turns, each in a process of its own on a small synthetic sample: training, training in two
processes, building a cache, building an index, updating one. After each kill the same command is run again, over what
is left in its folder; what it ends with is compared, bit for bit, with the end of work that nothing stopped. Exit code
1 where one differs. Of two processes one is killed, and the other is told to stop, as torchrun does.
"""

from __future__ import annotations

import argparse
import os
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=positive, default=100, help="in all (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    return parser.parse_args(words)


if __name__ == "__main__":
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch warns that all parameters are used, which is well
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import hashlib
import multiprocessing
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import serving.build_index
import train_movielens_IntTower as script
from benchmark.loopback import be_process, meeting_place
from preprocessing.cache import cached
from preprocessing.errors import Stopped, UserError
from preprocessing.movielens import load_movielens, read_movielens
from preprocessing.sample_movielens import write_movielens_sample
from serving.index_files import MANIFEST, Form, open_segment, read_manifest
from serving.item_index import ItemIndex, create_index
from serving.trained_run import load_run
from training.checkpoint import load_checkpoint, weights_checksum
from training.errors import Interrupted
from training.group import process_group

ITEMS, UPDATES = 2000, 30
SETTINGS = dict(epochs=3, batch_size=128, checkpoint_seconds=0.0, hidden_units=[16, 8], embedding_dim=8, device="cpu")


@dataclass
class Place:
    """Where work finds its data and a run that is finished, and where it writes."""

    data: Path
    run: Path
    folder: Path


def train(place: Place) -> None:
    """A checkpoint after every batch."""
    with process_group(torch.device("cpu")):
        script.main(script.Settings(data=str(place.data), output=str(place.folder), resume=True, **SETTINGS))


def build_cache(place: Place) -> None:
    """Most of the time is spent in writing."""
    data = load_movielens(place.data)
    cached(place.folder, "kills", data.fingerprint, lambda: data)


def build_index(place: Place) -> None:
    """In many batches, each of which is kept where the next one is killed."""
    serving.build_index.BATCH = 16
    serving.build_index.build_index(load_run(place.run), read_movielens(place.data).movies, place.folder)


def update_index(place: Place) -> None:
    """Each update follows from its number alone; whoever starts again goes on from the generation that stands."""
    if not (place.folder / MANIFEST).exists():
        create_index(place.folder, Form("kills", "0" * 64, "item_id", "float32", 6, 4, 8, 0.0))
    index = ItemIndex(place.folder)
    while index.generation < UPDATES:
        removes = index.generation % 3 == 2  # some of what the update before it put
        generator = np.random.default_rng(index.generation - removes)
        ids = generator.choice(ITEMS, 300, replace=False)
        if removes:
            index.remove(ids[:50])
        else:
            index.put(ids, generator.standard_normal((300, 4, 8), dtype=np.float32))


def state_of_run(folder: Path) -> str:
    """Weights, test logits, encoders and the names of a finished run's files; two of these hold times besides."""
    state = load_checkpoint(folder / "checkpoint.pt")
    weights = [weights_checksum(state[part]) for part in ("best_model", "model")]
    names = sorted(path.name for path in folder.iterdir())
    return repr([names, weights, *(_sha256(folder / name) for name in ("test_logits.npy", "encoders.json"))])


def state_of_cache(folder: Path) -> str:
    """Every file by its name: nothing of the killed process may be left."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return repr([(path.relative_to(folder).as_posix(), _sha256(path)) for path in paths])


def state_of_index(folder: Path) -> str:
    """What is served, in the order of ids, and the segments that no generation names: there should be none."""
    manifest, rows = read_manifest(folder), []
    for entry in manifest.entries:
        segment = open_segment(folder, entry, manifest.form)
        rows += [(segment.ids[row].item(), segment.heads[row].tobytes()) for row in np.flatnonzero(segment.in_force())]
    left = {path.name for path in folder.glob("segment-*")} - {entry["name"] for entry in manifest.entries}
    return hashlib.sha256(repr((sorted(rows), sorted(left))).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Kind:
    """A kind of work, what must be the same at its end, and what became of its kills."""

    name: str
    work: Callable[[Place], None]
    state: Callable[[Path], str]
    num_processes: int = 1
    seconds: float = 0.0  # that it takes where nothing stops it
    expected: str = ""
    kills: int = 0
    resumed: int = 0
    refused: int = 0
    equal: int = 0


class Running:
    """The work in processes of its own, forked, so that no kill is spent on imports; on one thread that is safe."""

    def __init__(self, kind: Kind, place: Place):
        self.store = meeting_place()
        fork, port = multiprocessing.get_context("fork").Process, self.store.port
        self.processes = [fork(target=_work, args=(kind, place, number, port)) for number in range(kind.num_processes)]
        for process in self.processes:
            process.start()

    def kill(self, moments: random.Random) -> None:
        """Kill one of them at once, and have the others end."""
        killed = moments.choice(self.processes)
        killed.kill()
        killed.join()
        for process in self.processes:
            process.terminate()
        self.end()

    def end(self) -> int:
        """Wait for their end; an exit code that is not 0, where there is one."""
        for process in self.processes:
            process.join()
        return max((process.exitcode for process in self.processes), key=abs)  # a signal's is below 0


def _work(kind: Kind, place: Place, number: int, port: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if kind.num_processes > 1:
        be_process(number, kind.num_processes, port)
    try:
        kind.work(place)
    except (Interrupted, Stopped):
        os._exit(1)  # of one that was told to stop, or whose partner is gone
    except UserError as error:
        print(f"{kind.name}: refused: {error}", file=sys.stderr)
        os._exit(2)


def kill_once(kind: Kind, place: Place, moments: random.Random) -> None:
    """Kill the work at a random moment, and have it done again to its end."""
    running = Running(kind, place)
    time.sleep(moments.uniform(0, kind.seconds))
    running.kill(moments)
    code = Running(kind, place).end()
    kind.kills += 1
    kind.resumed += code == 0
    kind.refused += code == 2
    kind.equal += code == 0 and kind.state(place.folder) == kind.expected
    shutil.rmtree(place.folder, ignore_errors=True)


def main(arguments: argparse.Namespace) -> int:
    """Print a line per kind; returns the exit code."""
    torch.set_num_threads(1)
    moments = random.Random(arguments.seed)
    kinds = [
        Kind("training", train, state_of_run),
        Kind("training, two processes", train, state_of_run, num_processes=2),
        Kind("cache building", build_cache, state_of_cache),
        Kind("index building", build_index, state_of_index),
        Kind("index updates", update_index, state_of_index),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_movielens_sample(folder / "data", num_users=120, num_movies=300, num_ratings=4000)
        for kind in kinds:
            place = Place(data, folder / "training", folder / kind.name)
            begun = time.monotonic()
            if code := Running(kind, place).end():
                raise UserError(f"{kind.name}: expected to end well where nothing stops it, got {code}.")
            kind.seconds, kind.expected = time.monotonic() - begun, kind.state(place.folder)
        for number in range(arguments.kills):
            kill_once(kinds[number % len(kinds)], Place(data, folder / "training", folder / "killed"), moments)
    print(f"{'work':25}{'kills':>7}{'resumed':>9}{'refused in a line':>19}{'equal bit for bit':>19}")
    for kind in kinds:
        print(f"{kind.name:25}{kind.kills:7}{kind.resumed:9}{kind.refused:19}{kind.equal:19}")
    return int(any(kind.equal + kind.refused < kind.kills for kind in kinds))


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
