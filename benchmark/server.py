"""The example server beside its functions alone, and minutes of requests beside updates of its index.

    OMP_NUM_THREADS=1 python -m benchmark.server --minutes 5

A request is a user, a dict, and a list of the ids of 1,000 items, of 5,000 that are asked for in an index of 100,000;
IntTower 4 x 16 as ONNX, weights and items random. "functions" is one process that encodes users and scores candidates,
as the server does after it has read JSON and before it writes it; "server" is one worker, asked by four connections of
this process. They take turns. In the minutes, all items that are asked for are replaced again and again by one of two
sets, so each answer must be wholly of one of them.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, positive_number, read_command_line
from preprocessing.sources import movielens_files
from serving.choices import check_installed


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="MovieLens-1M, as for the training script")
    parser.add_argument("--items", type=positive, default=100_000, help="in the index")
    parser.add_argument("--candidates", type=positive, default=1000)
    parser.add_argument("--turns", type=positive, default=9)
    parser.add_argument("--seconds", type=positive_number, default=3.0, help="of a turn")
    parser.add_argument("--minutes", type=positive_number, help="of requests beside updates")
    arguments = parser.parse_args(words)
    movielens_files(arguments.data)
    check_installed(["onnx", "onnxscript", "onnxruntime"], "requirements-export.txt")
    check_installed(["starlette", "uvicorn", "orjson"], "requirements-server.txt")
    return arguments


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below, which take seconds

import http.client
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson

from benchmark.serving_latency import USERS, made_up_run
from preprocessing.errors import Stopped
from preprocessing.movielens import load_movielens, locate_movielens, read_movielens
from serving.export import export
from serving.exported import ExportedRun
from serving.item_index import ItemIndex

CONNECTIONS, ASKED_FOR = 4, 5000  # of the server, and items
PAUSE = 0.2  # seconds between updates

Check = Callable[[int, list[float]], bool]  # whether the scores of the question of a number are right


class Asked:
    """A worker of the example server, in a process of its own, for the time of a block."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        places = {"EXPORT": str(folder / "onnx"), "INDEX": str(folder / "index"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "uvicorn", "--factory", "serving.server:application", "--port", str(self.port)]
        command += ["--no-access-log", "--log-level", "warning"]
        self._process = subprocess.Popen(command, env=os.environ | places)

    def __enter__(self) -> Asked:
        while True:
            try:
                self.connection().request("GET", "/health")
                return self
            except ConnectionRefusedError:
                if self._process.poll() is not None:
                    raise Stopped("the server ended before its time; what it said is above.") from None
                time.sleep(0.1)

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port)


def functions(run: ExportedRun, index: ItemIndex, questions: list[bytes], seconds: float) -> float:
    """Requests per second of the functions alone."""
    asked, answered, end = list(map(orjson.loads, questions)), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        question = asked[answered % len(asked)]
        index.score(run.encode_user(question["user"]), question["candidates"])
        answered += 1
    return answered / seconds


def answers(server: Asked, questions: list[bytes], seconds: float, check: Check | None = None) -> tuple[int, int]:
    """How many requests a connection got answered, and how many of them wrong by a check."""
    connection, answered, wrong, end = server.connection(), 0, 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        number = answered % len(questions)
        connection.request("POST", "/score", questions[number])
        response = connection.getresponse()
        body = response.read()
        answered += 1
        wrong += response.status != 200 or (check is not None and not check(number, orjson.loads(body)["scores"]))
    return answered, wrong


def all_answers(server: Asked, questions: list[bytes], seconds: float, check: Check | None = None) -> tuple[int, int]:
    """The sums of `answers` over CONNECTIONS at once."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        asked = [pool.submit(answers, server, questions, seconds, check) for _ in range(CONNECTIONS)]
        counts = [connection.result() for connection in asked]
    return sum(answered for answered, _ in counts), sum(wrong for _, wrong in counts)


def main(arguments: argparse.Namespace) -> None:
    """Print requests per second and their ratio, then what came of the minutes."""
    path, generator = locate_movielens(arguments.data), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained, index = made_up_run("IntTower 4 x 16", load_movielens(path), folder, arguments.items, "numpy")
        run = ExportedRun(export(trained, folder / "onnx"))
        ids = generator.choice(arguments.items, min(ASKED_FOR, arguments.items), replace=False)
        users = read_movielens(path).users[:USERS].to_dict("records")
        chosen = [generator.choice(ids, arguments.candidates).tolist() for _ in users]
        pairs = list(zip(users, chosen, strict=True))
        questions = [orjson.dumps({"user": user, "candidates": candidates}) for user, candidates in pairs]
        with Asked(folder) as server:
            rates = []
            for turn in range(1 + arguments.turns):
                alone = functions(run, index, questions, arguments.seconds)
                served = all_answers(server, questions, arguments.seconds)[0] / arguments.seconds
                if turn:  # the first does not count
                    rates.append((alone, served, served / alone))
            alone, served, share = np.median(rates, axis=0)
            print(
                f"functions {alone:,.0f} requests/s, server {served:,.0f}: {share:.2f} (medians of {len(rates)} turns)"
            )
            if arguments.minutes:
                load(server, run, index, ids, pairs, questions, 60 * arguments.minutes)


def load(
    server: Asked,
    run: ExportedRun,
    index: ItemIndex,
    ids: np.ndarray,
    pairs: list[tuple[dict, list[int]]],
    questions: list[bytes],
    seconds: float,
) -> None:
    """Requests beside updates of all items that are asked for; raises SystemExit where an answer was wrong."""
    shape = (len(ids), index.form.num_heads, index.form.head_dim)
    versions = [np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in range(2)]
    expected = []
    for version in versions:
        index.put(ids, version)
        expected.append([index.score(run.encode_user(user), candidates) for user, candidates in pairs])
    time.sleep(2)  # the server looks once a second: from here on it has one of the two

    def is_right(number: int, scores: list[float]) -> bool:
        return any(np.allclose(scores, of_version[number], atol=1e-4) for of_version in expected)

    with ThreadPoolExecutor(1) as pool:
        asked, updates = pool.submit(all_answers, server, questions, seconds, is_right), 0
        while not asked.done():
            index.put(ids, versions[updates % 2])
            updates += 1
            time.sleep(PAUSE)
        answered, wrong = asked.result()
    print(f"{seconds / 60:g} minutes beside {updates:,} updates: {answered:,} answers, {wrong} wrong")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
