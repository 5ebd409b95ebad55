"""A run that goes on with new data: known ids keep their rows, new ones get fresh ones, vocabularies only grow."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from shell import assert_refused, train

from experiment.folder import ENCODERS
from experiment.init_from import take_weights
from model import model_class
from preprocessing.encode import OOV, PAD, CrossField, MissingField, SparseField, TowerEncoder, VarLenField
from preprocessing.errors import UserError
from preprocessing.known import Known, grown, places_of
from preprocessing.movielens import load_movielens
from training.checkpoint import load_checkpoint

QUICK = ("--preset", "untuned", "--epochs", "1", "--hidden-units", "16,8", "--embedding-dim", "4")


def test_a_grown_vocabulary_has_the_values_of_both_and_tells_where_the_older_ids_are_now():
    older, field = (SparseField.fit("user_id", pd.Series(values)) for values in ([3, 9], [9, 1, 4]))
    both = grown(field, older)
    assert both.vocabulary.tolist() == [1, 3, 4, 9]
    assert places_of(older, both).tolist() == [PAD, OOV, 3, 5]
    assert grown(field, None) is field
    lists = [VarLenField.fit("tag", pd.Series(values)) for values in (["b|a|c"], ["d"])]
    both = grown(lists[1], lists[0])
    assert (both.vocabulary.tolist(), both.max_length) == (["a", "b", "c", "d"], 3)
    assert grown(MissingField("price_missing", "price"), None).source == "price"


def test_a_grown_cross_has_the_combinations_of_both_though_its_parts_have_other_ids_now():
    frames = [pd.DataFrame({"sex": list("MF"), "age": [20, 30]}), pd.DataFrame({"sex": list("XM"), "age": [10, 30]})]
    older, field = (CrossField.fit("group", frame) for frame in frames)
    both = grown(field, older)
    ids = [both.encode(frame) for frame in frames]
    assert sorted(np.concatenate(ids)) == [2, 3, 4, 5]
    assert (places_of(older, both)[older.encode(frames[0])] == ids[0]).all()
    assert both.encode(pd.DataFrame({"sex": ["X"], "age": [20]})).tolist() == [OOV]


@pytest.fixture(scope="module")
def halves(sample_folder, tmp_path_factory) -> list[Path]:
    """Two folders with half of the sample's ratings each, of users and movies that not both of them have."""
    place = tmp_path_factory.mktemp("halves")
    lines = (sample_folder / "ratings.dat").read_text().splitlines()
    users = [int(line.split("::")[0]) for line in lines]
    folders = [shutil.copytree(sample_folder, place / name) for name in ("first", "second")]
    for folder, kept in zip(folders, (lambda user: user <= 70, lambda user: user > 40), strict=True):
        (folder / "probabilities.npy").unlink()
        rows = [line for line, user in zip(lines, users, strict=True) if kept(user)]
        (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    return folders


@pytest.mark.parametrize("name", ["IntTower", "DAT", "DCN", "LR"])
def test_known_ids_keep_their_rows_and_new_ones_have_fresh_ones(name, halves, tmp_path):
    result = train(
        "--data", halves[0], "--model", name, "--output", tmp_path / "run", *(QUICK[:4] if name == "LR" else QUICK)
    )
    assert result.returncode == 0, result.stderr
    known = Known.read(tmp_path / "run" / ENCODERS)
    data = replace(load_movielens(halves[1], known=known), embedding_dim=4)
    older, now = known.towers["user"].fields[0].vocabulary, data.user_encoder.fields[0].vocabulary
    assert set(older) < set(now)
    assert load_movielens(halves[1]).fingerprint != data.fingerprint

    layers = {} if name == "LR" else {"dnn_hidden_units": (16, 8)}
    model = model_class(name).from_columns(data.user_columns, data.item_columns, **layers)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    take_weights(model, data, str(tmp_path / "run"))
    weights = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["best_model"]
    tables = [key for key, value in weights.items() if value.dim() == 2 and len(value) == len(older) + 2]
    assert tables
    for key in tables:
        grown_table = model.state_dict()[key]
        assert torch.equal(grown_table[:2], weights[key][:2])
        for place, user in enumerate(now):
            of_parent = older.get_indexer([user])[0]
            expected = fresh[key][place + 2] if of_parent < 0 else weights[key][of_parent + 2]
            assert torch.equal(grown_table[place + 2], expected)
    for key, value in weights.items():
        if value.shape == fresh[key].shape and key not in tables and "embedding" not in key and "table" not in key:
            assert torch.equal(model.state_dict()[key], value), key


def test_a_run_from_another_one_says_so_and_is_resumed_from_that_one_alone(halves, tmp_path):
    for name, seed in (("parent", 1), ("other", 2)):
        assert train("--data", halves[0], "--output", tmp_path / name, "--seed", seed, *QUICK).returncode == 0
    arguments = ("--data", halves[1], "--output", tmp_path / "run", *QUICK)
    first = train(*arguments, "--init-from", tmp_path / "parent")
    assert first.returncode == 0, first.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    of_parent = json.loads((tmp_path / "parent" / "record.json").read_text())
    assert record["init_from"] == {"run": "parent", "weights": of_parent["weights"]}
    assert train(*arguments, "--resume", "--init-from", tmp_path / "parent").returncode == 0
    assert_refused(
        train(*arguments, "--resume", "--init-from", tmp_path / "other"), "belongs to another run: init_from"
    )
    assert_refused(train(*arguments, "--overwrite", "--init-from", tmp_path / "none"), "none: expected the folder of a")
    assert_refused(
        train(*arguments, "--overwrite", "--init-from", arguments[arguments.index("--output") + 1]),
        "expected another folder than that of this run, whose weights it would replace",
    )
    assert_refused(
        train(*arguments, "--overwrite", "--init-from", tmp_path / "parent", "--model", "DSSM"),
        "expected a run of DSSM, got one of IntTower",
    )
    assert_refused(
        train(*arguments, "--overwrite", "--init-from", tmp_path / "parent", "--hidden-units", "8,8"),
        "take the run's settings",
    )


def test_a_run_on_data_of_another_kind_is_refused_though_its_tables_are_of_the_same_sizes(halves, tmp_path):
    run = tmp_path / "run"
    assert train("--data", halves[0], "--output", run, *QUICK).returncode == 0
    encoders = (run / ENCODERS).read_text()
    (run / ENCODERS).write_text(encoders.replace('"name": "gender"', '"name": "user_active_degree"'))
    data = replace(load_movielens(halves[0]), embedding_dim=4)
    model = model_class("IntTower").from_columns(data.user_columns, data.item_columns, dnn_hidden_units=(16, 8))
    with pytest.raises(UserError, match="expected a run whose data have a field 'gender', got one without it; take"):
        take_weights(model, data, str(run))


def test_what_no_field_of_the_run_is_like_is_left_as_it_is():
    known = Known({"user": TowerEncoder([]), "item": TowerEncoder([])}, "")
    field = SparseField.fit("user_id", pd.Series([1, 2]))
    assert known.grown("user", field) is field
