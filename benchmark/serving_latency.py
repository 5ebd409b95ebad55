"""A request as a server answers it: a user's raw row and the ids of N candidates in, their scores out.

    python -m benchmark.serving_latency

Each model is served by a process of its own, as it would be; they take turns of some requests, so that a drift of the
machine reaches all. A two-tower model encodes the user, a dict, and scores the candidates in an index, by the fastest
scorer; "ONNX" lines do without torch, by onnxruntime and numpy, "compiled" by llvmlite in numpy's place, and "by
DataFrame" is what that takes where the user comes as a frame of one row. A ranking model (DCN and others) encodes the
user and runs its network on every pair, its candidates' features being in memory. Weights and items are random: they do
not change the time. Last come requests per second of two processes with one thread each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from preprocessing.command import (
    Parser,
    exit_code,
    file_to_write,
    positive,
    positive_number,
    read_command_line,
)
from preprocessing.errors import Stopped
from preprocessing.sources import movielens_files
from serving.choices import check_installed

TWO_TOWERS = {
    "DSSM": ("DSSM", {}),
    "DAT": ("DAT", {}),
    "IntTower 4 x 16, last level": ("IntTower", {"levels": "last"}),
    "IntTower 4 x 16": ("IntTower", {}),
    "IntTower 8 x 32": ("IntTower", {"user_head": 8, "item_head": 8, "field_dim": 32}),
    "IntTower 32 x 64": ("IntTower", {"user_head": 32, "item_head": 32, "field_dim": 64}),
    **{name: (name, {}) for name in ("HIT", "PolyEncoder", "MVKE", "FinalMLPTower")},
}
ONNX, BY_FRAME, COMPILED = ", ONNX", ", ONNX, by DataFrame", ", ONNX, compiled"
RANKING = ("COLD", "WDL", "DeepFM", "DCN", "AutoInt", "DCNv2", "FinalMLP")
# A Poly-Encoder's temperature has no compiled form.
_FORMS = {name: ("", ONNX) if name == "PolyEncoder" else ("", ONNX, COMPILED) for name in TWO_TOWERS}
MODELS = [*(name + form for name in TWO_TOWERS for form in _FORMS[name]), "IntTower 4 x 16" + BY_FRAME, *RANKING]


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--items", type=positive, default=100_000, help="in the index")
    parser.add_argument("--candidates", type=positive, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=positive, default=1000, help="requests of each model at 1,000 candidates")
    parser.add_argument("--seconds", type=positive_number, default=10.0, help="of the requests per second, per model")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    parser.add_argument("--json", type=file_to_write, help="also write the records to a file, as JSON lines")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    if any(ONNX in name for name in arguments.models):
        check_installed(["onnx", "onnxscript", "onnxruntime"], "requirements-export.txt")
    if any(name.endswith(COMPILED) for name in arguments.models):
        check_installed(["llvmlite"], "requirements-compiled.txt")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch

from model import model_class
from preprocessing.movielens import load_movielens, locate_movielens, read_movielens
from preprocessing.one_row import RowEncoder
from preprocessing.tables import Dataset
from serving.export import export
from serving.exported import ExportedRun
from serving.heads import Heads
from serving.index_files import Form
from serving.item_index import ItemIndex, create_index
from serving.trained_run import TrainedRun
from training.generators import seed_everything
from training.memory import keep_freed_memory

USERS = 100  # who ask, in turn
TURNS = 5


class Server:
    """A process that answers requests for one model, with some threads.

    Args:
        name: of MODELS.
        data: a path, as for load_movielens.
        num_items: in the index.
    """

    def __init__(self, name: str, data: Path, num_items: int, threads: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        os.environ["OMP_NUM_THREADS"] = str(threads)  # the process inherits it before any library looks
        self._process = context.Process(target=_serve, args=(name, data, num_items, far_end), daemon=True)
        self._process.start()
        far_end.close()  # the process has its own: where it dies, this one is told

    def begin(self, num_candidates: int, num_requests: int, seconds: float = float("inf")) -> None:
        """Have requests answered, at most so many and so long."""
        self._pipe.send((num_candidates, num_requests, seconds))

    def received(self):
        """The next thing that the process says: first the bytes of an item, then milliseconds of requests."""
        try:
            return self._pipe.recv()
        except EOFError:
            raise Stopped("a process that served ended before its time; what it said is above.") from None

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join()


def _serve(name: str, data: Path, num_items: int, pipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by the process that was called
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        loaded = load_movielens(data)
        users = read_movielens(data).users[:USERS]
        raw = [users.iloc[[row]] for row in range(len(users))] if name.endswith(BY_FRAME) else users.to_dict("records")
        if name in RANKING:
            answer, size = _ranking(name, loaded, num_items), None
        else:
            answer, size = _two_tower(name, loaded, Path(folder), num_items)
        pipe.send(size)
        generator = np.random.default_rng(0)
        for num_candidates, num_requests, seconds in iter(pipe.recv, None):
            taken, end = [], time.perf_counter() + seconds
            while len(taken) < num_requests and time.perf_counter() < end:
                user, candidates = raw[len(taken) % len(raw)], generator.integers(0, num_items, num_candidates)
                start = time.perf_counter()
                answer(user, candidates)
                taken.append(1e3 * (time.perf_counter() - start))
            pipe.send(taken)


def made_up_run(name: str, data: Dataset, folder: Path, num_items: int, scorer: str) -> tuple[TrainedRun, ItemIndex]:
    """A run of a model of TWO_TOWERS with random weights, and an index of random items, their ids from 0."""
    kind, options = TWO_TOWERS[name]
    seed_everything(0)
    heads = Heads(model_class(kind).from_columns(data.user_columns, data.item_columns, **options))
    run = TrainedRun(folder, heads, data.user_encoder, data.item_encoder, checkpoint="0" * 64, identity={})
    form = Form(kind, "0" * 64, "id", "float32", heads.num_user_heads, heads.num_heads, heads.head_dim, heads.bias)
    create_index(folder / "index", form)
    index = ItemIndex(folder / "index", scorer=scorer)
    shape = (num_items, heads.num_heads, heads.head_dim)
    index.put(np.arange(num_items), np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    return run, index


def _two_tower(name: str, data: Dataset, folder: Path, num_items: int) -> tuple[Callable, int]:
    """A function that answers for a user's raw row and candidate ids, and the bytes of an item."""
    scorer = "compiled" if name.endswith(COMPILED) else "numpy" if ONNX in name else "fastest"
    run, index = made_up_run(name.partition(ONNX)[0], data, folder, num_items, scorer)
    served = ExportedRun(export(run, folder / "onnx")) if ONNX in name else run
    if name.endswith(BY_FRAME):
        return lambda user, candidates: index.score(served.encode_users(user)[0], candidates), index.bytes_per_item
    return lambda user, candidates: index.score(served.encode_user(user), candidates), index.bytes_per_item


def _ranking(name: str, data: Dataset, num_items: int) -> Callable:
    """A function that answers by running the network on every pair."""
    seed_everything(0)
    model = model_class(name).from_columns(data.user_columns, data.item_columns).eval()
    names = [column.name for column in data.item_columns]
    items = {key: data.test.batch(np.arange(num_items) % len(data.test))[key] for key in names}
    one_row = RowEncoder(data.user_encoder)

    def answer(user, candidates: np.ndarray) -> np.ndarray:
        encoded = {key: torch.from_numpy(value) for key, value in one_row(user).items()}
        features = {key: value.expand(len(candidates), *value.shape[1:]) for key, value in encoded.items()}
        features |= {key: value[torch.from_numpy(candidates)] for key, value in items.items()}
        return model(features).numpy()

    return answer


def latencies(servers: dict[str, Server], num_candidates: int, num_requests: int) -> dict[str, list[float]]:
    """Milliseconds of requests by model, which take turns; the first requests of a turn do not count."""
    taken: dict[str, list[float]] = {name: [] for name in servers}
    warm_up, a_turn = 3, -(-num_requests // TURNS)
    for _ in range(TURNS):
        for name, server in servers.items():
            server.begin(num_candidates, warm_up + a_turn)
            taken[name] += server.received()[warm_up:]
    return taken


def requests_per_second(name: str, data: Path, num_items: int, seconds: float, num_workers: int = 2) -> float:
    """Of 1,000 candidates, answered by processes with one thread each that work at the same time."""
    servers = [Server(name, data, num_items, threads=1) for _ in range(num_workers)]
    for server in servers:
        server.received()
    for server in servers:
        server.begin(1000, 10**9, seconds)
    num_requests = sum(len(server.received()) for server in servers)
    for server in servers:
        server.stop()
    return num_requests / seconds


def main(arguments: argparse.Namespace) -> None:
    """Print a line per model, candidates and threads, then the requests per second."""
    path, records = locate_movielens(arguments.data), []
    print(f"cpu, {arguments.items:,} items, numpy {np.__version__}, torch {torch.__version__}")
    print(f"{'model':34}{'candidates':>11}{'threads':>9}{'p50':>12}{'p95':>12}{'p99':>12}{'bytes an item':>15}")
    for threads in arguments.threads:
        servers = {name: Server(name, path, arguments.items, threads) for name in arguments.models}
        sizes = {name: server.received() for name, server in servers.items()}
        for num_candidates in arguments.candidates:
            num_requests = max(20, arguments.rounds * 1000 // num_candidates)
            for name, taken in latencies(servers, num_candidates, num_requests).items():
                p50, p95, p99 = np.quantile(taken, (0.5, 0.95, 0.99))
                record = {"model": name, "candidates": num_candidates, "threads": threads, "requests": len(taken)}
                records.append(record | {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "bytes_per_item": sizes[name]})
                print(
                    f"{name:34}{num_candidates:11,d}{threads:9d}{p50:9.2f} ms{p95:9.2f} ms{p99:9.2f} ms"
                    f"{sizes[name] or '-':>15}",
                    flush=True,
                )
        for server in servers.values():
            server.stop()
    print(f"\n{'model':34}{'requests/s of 1,000 candidates, 2 processes':>48}")
    for name in arguments.models:
        rate = requests_per_second(name, path, arguments.items, arguments.seconds)
        records.append({"model": name, "candidates": 1000, "workers": 2, "requests_per_second": rate})
        print(f"{name:34}{rate:48,.0f}", flush=True)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
