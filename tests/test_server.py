"""The example server over loopback: answers of one generation each while the index is updated, and plain refusals."""

import http.client
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import uvicorn
from served import trained

from preprocessing.errors import UserError
from preprocessing.movielens import read_movielens
from serving.build_index import build_index
from serving.export import export
from serving.item_index import ItemIndex
from serving.server import application
from serving.trained_run import load_run

pytestmark = pytest.mark.slow

USER = {"user_id": 7, "gender": "F", "age": 25, "occupation": 1}
CLIENTS, SECONDS = 4, 4.0


@pytest.fixture(scope="module")
def index(tmp_path_factory, sample_folder) -> ItemIndex:
    """The index of a run, which stands beside it with its export."""
    folder = tmp_path_factory.mktemp("run")
    run = load_run(trained(folder, sample_folder))
    export(run, folder / "onnx")
    return build_index(run, read_movielens(sample_folder).movies, folder / "index")


@pytest.fixture(scope="module")
def port(index) -> int:
    """Of the server, in a thread of this process."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EXPORT", str(index.folder.parent / "onnx"))
        patched.setenv("INDEX", str(index.folder))
        server = uvicorn.Server(uvicorn.Config(application, factory=True, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def ask(port: int, question, path: str = "/score", connection: http.client.HTTPConnection | None = None) -> tuple:
    connection = connection or http.client.HTTPConnection("127.0.0.1", port)
    body = None if question is None else question if isinstance(question, str) else json.dumps(question)
    connection.request("POST" if path == "/score" else "GET", path, body)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_candidates_are_scored_as_by_the_index_and_the_best_named(port, index):
    run = load_run(index.folder.parent)
    heads, ids = run.encode_user(USER), index.ids[:5].tolist()
    status, answer = ask(port, {"user": USER, "candidates": [*ids, 10**6]})
    assert (status, answer["ids"]) == (200, [*ids, 10**6])
    assert answer["scores"][:-1] == pytest.approx(index.score(heads, ids).tolist(), abs=1e-4)
    assert answer["scores"][-1] is None
    for candidates in (ids, None):
        status, answer = ask(port, {"user": USER, "candidates": candidates, "top": 3})
        best = index.top_k(heads, 3, candidates)
        assert (status, answer["ids"]) == (200, best.ids.tolist())
        assert answer["scores"] == pytest.approx(best.scores.tolist(), abs=1e-4)
    status, health = ask(port, None, "/health")
    assert (status, health["items"], health["weights"]) == (200, len(index), run.checkpoint)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("{", "JSONDecodeError"),
        ([], 'expected {"user": {...}'),
        ({"candidates": [1]}, "got no user"),
        ({"user": {"user_id": 7}, "candidates": [1]}, "expected a column 'gender', got"),
        ({"user": USER | {"age": [25]}, "candidates": [1]}, "age: expected whole numbers or text"),
        ({"user": USER}, "candidate_ids: expected a list of ids"),
        ({"user": USER, "candidates": [[1]]}, "candidate_ids: expected a list of ids"),
        ({"user": USER, "top": 0}, "k: expected a whole number of at least 1, got 0"),
        ({"user": USER, "top": "many"}, "k: expected a whole number of at least 1, got 'many'"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_with_a_reason(port, question, reason):
    status, answer = ask(port, question)
    assert status == 400
    assert reason in answer["error"]


def test_a_client_that_hangs_up_within_its_question_leaves_no_traceback(port, monkeypatch):
    told = []
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "error", lambda *words, **_: told.append(words))
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 500\r\n\r\n{")
    assert ask(port, {"user": USER, "top": 1})[0] == 200
    time.sleep(0.2)
    assert told == []


@pytest.mark.parametrize("name", ["EXPORT", "INDEX"])
def test_a_folder_that_is_not_named_is_asked_for(index, monkeypatch, name):
    monkeypatch.setenv("EXPORT", str(index.folder.parent / "onnx"))
    monkeypatch.setenv("INDEX", str(index.folder))
    monkeypatch.delenv(name)
    with pytest.raises(UserError, match=rf"\${name}: expected a folder, got none"):
        application()


def test_an_error_that_nobody_foresaw_does_not_end_the_looking_for_updates(port, index, monkeypatch):
    refresh, failed = ItemIndex.refresh, threading.Event()

    def failing_once(self) -> bool:
        if threading.current_thread() is not threading.main_thread() and not failed.is_set():
            failed.set()
            raise RuntimeError("once")
        return refresh(self)

    monkeypatch.setattr(ItemIndex, "refresh", failing_once)
    assert failed.wait(60)
    writer = ItemIndex(index.folder)
    writer.put(writer.ids[:1], np.zeros((1, index.form.num_heads, index.form.head_dim), np.float32))
    wait_until(lambda: ask(port, None, "/health")[1]["generation"] == writer.generation)
    index.refresh()


def test_many_clients_are_answered_from_one_generation_each_while_the_index_is_updated(port, index):
    run = load_run(index.folder.parent)
    ids, user = index.ids, run.encode_user(USER)
    shape = (len(ids), run.heads.num_heads, run.heads.head_dim)
    versions = [np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in range(2)]
    expected = []
    for version in versions:
        index.put(ids, version)
        expected.append(index.score(user, ids))
    wait_until(lambda: ask(port, None, "/health")[1]["generation"] == index.generation)
    writer, served, seen = ItemIndex(index.folder), threading.Event(), [[] for _ in range(CLIENTS)]

    def client(number: int) -> None:
        connection, was_last = http.client.HTTPConnection("127.0.0.1", port), False
        while not was_last:
            was_last = served.is_set()  # one more question after the last update is there
            status, answer = ask(port, {"user": USER, "candidates": ids.tolist()}, connection=connection)
            assert status == 200
            scores = np.array(answer["scores"], np.float32)
            seen[number] += [n for n in range(2) if np.allclose(scores, expected[n], atol=1e-4)] or ["a mixture"]

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        try:
            wait_until(lambda: all(1 in of_client for of_client in seen))
            updates, end = 1, time.monotonic() + SECONDS
            # The server looks for updates now and then: it must have been there with either of them.
            while time.monotonic() < end or not all(0 in of_client for of_client in seen):
                assert time.monotonic() < end + 60, "the server does not see the updates"
                updates += 1
                writer.put(ids, versions[updates % 2])
                time.sleep(0.1 + 0.2 * (updates % 2 == 0))  # at odds with the server's second
            wait_until(lambda: ask(port, None, "/health")[1]["generation"] == writer.generation)
        finally:
            served.set()
        for ended in clients:
            ended.result()
    for of_client in seen:
        assert set(of_client) == {0, 1}
        assert of_client[-1] == updates % 2


def wait_until(condition) -> None:
    """Until it holds, a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
