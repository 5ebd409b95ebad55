"""ONNX: exported towers and scorer give torch's numbers, in a process without torch."""

import copy
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from models import random_features, varlen
from served import trained
from shell import PROJECT, assert_refused, run, run_in_process

from model.layers import FieldEmbedding
from preprocessing.errors import UserError
from preprocessing.movielens import read_movielens
from serving.build_index import build_index
from serving.export import _pool, export, main, parse
from serving.exported import ITEM_TOWER, MANIFEST, USER_TOWER, WEIGHTS, ExportedRun, sha256
from serving.maxsim import maxsim
from serving.trained_run import load_run

# Python without torch: one that has none, where the checks have made one, else this one with torch shut out.
pytestmark = pytest.mark.slow

SERVING_PYTHON = os.environ.get("INTTOWER_SERVING_PYTHON")
SHUT_OUT = "" if SERVING_PYTHON else "import sys; sys.modules['torch'] = None\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory, sample_folder):
    return load_run(trained(tmp_path_factory.mktemp("run"), sample_folder))


@pytest.fixture(scope="module")
def exported(served, tmp_path_factory):
    return export(served, tmp_path_factory.mktemp("export") / "onnx")


@pytest.fixture(scope="module")
def raw(sample_folder):
    return read_movielens(sample_folder)


def test_exported_towers_give_torchs_heads_for_any_number_of_rows(served, exported, raw):
    onnx = ExportedRun(exported)
    assert onnx.checkpoint == served.checkpoint
    for rows in (0, 1, 7, len(raw.movies)):
        np.testing.assert_allclose(
            onnx.encode_items(raw.movies[:rows]), served.encode_items(raw.movies[:rows]), atol=1e-4
        )
        np.testing.assert_allclose(
            onnx.encode_users(raw.users[:rows]), served.encode_users(raw.users[:rows]), atol=1e-4
        )


def test_one_user_as_a_dict_has_the_heads_of_a_frame_of_that_user_bit_for_bit_in_many_threads_too(exported, raw):
    onnx = ExportedRun(exported)
    rows = [*raw.users.to_dict("records")[:40], {"user_id": None, "gender": "x", "age": "25", "occupation": 10**30}]
    expected = [onnx.encode_users(pd.DataFrame([row]))[0] for row in rows]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for heads, of_frame in zip(pool.map(onnx.encode_user, rows), expected, strict=True):
                assert np.array_equal(heads, of_frame)
    sent = pickle.loads(pickle.dumps(onnx))
    with pytest.raises(UserError, match=r"user_mean_rating as float32 \(1, 1\), got list"):
        sent.encode_user(rows[0], {"user_mean_rating": [[0.3]]})
    assert np.array_equal(sent.encode_user(rows[0]), expected[0])  # a refusal has bound nothing


def test_the_exported_scorer_gives_the_scores_of_the_index(served, exported, raw):
    users, items = served.encode_users(raw.users[:3]), served.encode_items(raw.movies)
    expected = maxsim(users, items) + served.heads.bias
    np.testing.assert_allclose(ExportedRun(exported).score(users, items), expected, atol=1e-4)


@pytest.mark.parametrize("model", ["DSSM", "DAT", "HIT", "PolyEncoder", "MVKE", "FinalMLPTower"])
def test_other_models_are_exported_too(sample_folder, raw, tmp_path, model):
    served = load_run(trained(tmp_path / "run", sample_folder, model))
    onnx = ExportedRun(export(served, tmp_path / "onnx"))
    users, items = onnx.encode_users(raw.users[:4]), onnx.encode_items(raw.movies)
    heads = served.encode_users(raw.users[:4]), served.encode_items(raw.movies)
    expected = maxsim(*heads, temperature=served.heads.temperature) + served.heads.bias
    np.testing.assert_allclose(onnx.score(users, items), expected, atol=1e-4)


@pytest.mark.parametrize("combiner", ["mean", "sum", "max"])
@pytest.mark.parametrize("length_name", [None, "num_genres"])
def test_lists_are_pooled_for_export_as_the_model_pools_them(combiner, length_name):
    column = varlen("genres", combiner=combiner, length_name=length_name)
    embedding = FieldEmbedding([column], init_std=1.0)
    features = random_features([column], 20)
    features["genres"][0] = 0  # an empty list
    torch.testing.assert_close(_pool(embedding, column, features), embedding._pool(column, features))


def test_unknown_ids_and_missing_values_are_served_as_unknown(served, exported):
    users = pd.DataFrame({"user_id": ["7", "nobody"], "gender": ["F", None], "age": [25, None], "occupation": [1, 99]})
    heads = ExportedRun(exported).encode_users(users)
    np.testing.assert_allclose(heads, served.encode_users(users), atol=1e-4)


def test_without_torch_an_exported_run_and_an_index_rank_as_with_it(served, exported, raw, tmp_path):
    index = build_index(served, raw.movies, tmp_path / "index")
    user = raw.users[raw.users["user_id"] == 5]
    code = (
        SHUT_OUT
        + f"""
import pandas as pd
import serving.counters  # imports, too
from serving.exported import ExportedRun
from serving.item_index import ItemIndex
run, index = ExportedRun({str(exported)!r}), ItemIndex({str(tmp_path / "index")!r})
assert index.form.checkpoint == run.checkpoint
best = index.top_k(run.encode_users(pd.DataFrame({user.to_dict("list")!r}))[0], 5)
index.remove(best.ids[:1])
print(*best.ids, *index.top_k(run.encode_users(pd.DataFrame({user.to_dict("list")!r}))[0], 4).ids)
"""
    )
    expected = index.top_k(served.encode_users(user)[0], 5).ids.tolist()
    result = subprocess.run([SERVING_PYTHON or sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [int(number) for number in result.stdout.split()] == expected + expected[1:]


def test_an_altered_file_a_missing_one_and_another_folder_are_refused(served, tmp_path):
    folder = export(served, tmp_path / "onnx")
    tower = folder / USER_TOWER
    content = tower.read_bytes()
    tower.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="expected the sha256"):
        ExportedRun(folder)
    tower.unlink()
    with pytest.raises(UserError, match="expected a file of an exported run, got none"):
        ExportedRun(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UserError, match="expected format 2, got 99"):
        ExportedRun(folder)
    with pytest.raises(UserError, match="expected a file of an exported run, got none"):
        ExportedRun(tmp_path)


def test_an_exported_run_can_be_copied_and_sent_to_another_process_before_its_use_and_after(exported, raw, monkeypatch):
    monkeypatch.chdir(exported.parent)
    onnx = ExportedRun(exported.name)
    for _ in ("before", "after"):
        copies = [pickle.dumps(onnx), copy.deepcopy(onnx)]
        monkeypatch.chdir("/")  # as another process may stand in another folder
        for other in (pickle.loads(copies[0]), copies[1]):
            assert other.manifest == onnx.manifest
            users = other.encode_users(raw.users[:3])
        monkeypatch.chdir(exported.parent)
        assert np.array_equal(onnx.encode_users(raw.users[:3]), users)


FORKED = """
import os, signal, sys
import numpy as np
import pandas as pd
from serving.exported import ExportedRun

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # one core for all, as a container may have it
run = ExportedRun(sys.argv[1], num_threads=2)
users = pd.DataFrame({"user_id": np.arange(20000), "gender": "M", "age": 25, "occupation": 8})
expected = run.encode_users(users)
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that waits for ever is killed
    sys.exit(0 if np.allclose(run.encode_users(users), expected, atol=1e-4) else 1)
sys.exit(os.waitpid(child, 0)[1] != 0)
"""


def test_a_forked_child_encodes_with_threads_of_its_own_and_ends_on_a_single_core_too(exported):
    result = run_in_process("-c", FORKED, exported)
    assert result.returncode == 0, result.stderr


def test_weights_of_a_tower_that_is_too_large_for_a_file_are_named_measured_and_checked(
    served, raw, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 100)  # bytes, for 2 GiB
    folder = tmp_path / "onnx"
    main(parse(["--run", str(served.folder), "--output", str(folder)]))
    manifest, printed = json.loads((folder / MANIFEST).read_text()), capsys.readouterr().out
    for tower in (USER_TOWER, ITEM_TOWER):
        weights = folder / (tower + WEIGHTS)
        assert manifest["bytes"][weights.name] == weights.stat().st_size > 1000
        assert manifest["sha256"][weights.name] == sha256(weights)
        assert f"{weights.name} 0.0 MB" in printed
    assert {file.name for file in folder.iterdir()} == {MANIFEST, *manifest["sha256"]}
    heads = ExportedRun(folder).encode_users(raw.users[:3])
    np.testing.assert_allclose(heads, served.encode_users(raw.users[:3]), atol=1e-4)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"item_tower\.onnx\.data: expected the sha256"):
        ExportedRun(folder)
    weights.write_bytes(content)
    del manifest["sha256"][weights.name]  # as an older version wrote it
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"item_tower\.onnx\.data: expected weights that manifest\.json names"):
        ExportedRun(folder)


def test_what_is_no_table_of_raw_rows_is_refused_in_a_line(exported):
    onnx = ExportedRun(exported)
    with pytest.raises(UserError, match=r"expected a pandas DataFrame, .* got a dict"):
        onnx.encode_users({"user_id": [1]})
    with pytest.raises(UserError, match="expected each column once, got 'movie_id' twice"):
        onnx.encode_items(pd.DataFrame([[1, 2]], columns=["movie_id", "movie_id"]))


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_its_packages_export_is_a_line(served, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    message = f"got no {package}; pip install -r requirements-export.txt"
    assert_refused(run("-m", "serving.export", "--run", served.folder, "--output", tmp_path / "onnx"), message)
    with pytest.raises(UserError, match=message):
        export(served, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_without_onnxruntime_an_exported_run_is_refused_in_a_line(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"got no onnxruntime; pip install -r requirements-serving\.txt"):
        ExportedRun(exported)


def test_files_that_cannot_be_read_are_not_told_to_be_exported_anew(exported, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("serving.exported.sha256", refuse)
    with pytest.raises(UserError, match=r"json: expected a file .* got Permission denied; check its permissions"):
        ExportedRun(exported)


def test_a_link_that_leads_nowhere_is_named(served, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for folder in (tmp_path / "link", tmp_path / "link" / "onnx"):
        with pytest.raises(UserError, match=r"link: expected a folder, got a link that leads nowhere \(.*gone\)"):
            export(served, folder)


def test_the_command_exports_once_and_never_over_something(served, tmp_path):
    command = ["-m", "serving.export", "--run", served.folder, "--output", tmp_path / "onnx"]
    result = run(*command)
    assert result.returncode == 0, result.stderr
    assert "user_tower.onnx" in result.stdout
    assert result.stderr == ""
    ExportedRun(tmp_path / "onnx")
    assert_refused(run(*command), "expected a name that is free")
