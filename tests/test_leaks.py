"""The leak check: it finds the leak of `paper`, clears the others, and finds one that is put into them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from shell import assert_refused, environment, run

from benchmark.leaked_history import liked
from preprocessing import label_means, protocols
from preprocessing.choices import PROTOCOLS, STATISTICS
from preprocessing.errors import UserError
from preprocessing.movielens import load_movielens
from preprocessing.protocols import Splits
from preprocessing.tables import Table
from reproduction import leaks
from reproduction.leaks import LeakCheck, Raw, check_leaks, encode, print_leaks, read_raw, shuffle_labels

FEATURES = ["user_mean_rating", "item_mean_rating"]


@pytest.fixture
def raw(sample_folder, monkeypatch):
    monkeypatch.setenv("INTTOWER_DATA", str(sample_folder))
    return read_raw("movielens")


def test_shuffling_keeps_the_labels_and_breaks_their_tie_to_the_rows(raw):
    first, again, other = (shuffle_labels(raw, seed).interactions.labels for seed in (7, 7, 8))
    assert first.sum() == raw.interactions.labels.sum()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert abs(np.corrcoef(first, raw.interactions.labels)[0, 1]) < 0.1


def test_paper_leaks_and_the_others_do_not(raw, monkeypatch, capsys):
    checks = {protocol: check_leaks(raw, protocol) for protocol in PROTOCOLS}
    assert [name for name, check in checks.items() if check.leaks] == ["paper"]
    residuals = {f"{tower}_{measure}" for tower in ("user", "item") for measure in ("residual", "count")}
    for protocol, check in checks.items():
        assert check.feature_aucs.keys() == {*FEATURES, *(residuals if protocol != "paper" else ())}
    assert min(checks["paper"].feature_aucs.values()) > 0.6
    # That of paper alone does not make the check fail.
    monkeypatch.setattr(leaks, "read_raw", lambda dataset: raw)
    monkeypatch.setattr(leaks, "check_leaks", lambda raw, protocol: checks[protocol])
    assert print_leaks(["movielens"], PROTOCOLS) == 0
    assert "YES" in capsys.readouterr().out


def test_data_that_cannot_be_split_so_are_not_said_to_be_without_a_leak():
    with pytest.raises(UserError, match="expected data that can be split by temporal, got electronics-part"):
        print_leaks(["electronics-part"], ["temporal"])


def test_a_leak_in_strict_is_found_and_gives_exit_code_1(raw, monkeypatch, capsys):
    monkeypatch.setattr(leaks, "read_raw", lambda dataset: raw)
    monkeypatch.setattr(
        label_means,
        "_cross_fitted_means",
        lambda codes, labels, splits, seed, twins: label_means._released_means(codes, labels, splits, True),
    )
    assert print_leaks(["movielens"], ["strict"]) == 1
    assert capsys.readouterr().out.rstrip().endswith("YES")


def repeated(raw: Raw, seconds_later: int) -> Raw:
    """Two thousand rows, and below them each again; each two have a user of their own, whose mean tells the label."""
    rows, some = raw.interactions, np.arange(2000)
    twice = {name: np.tile(getattr(rows, name)[some], 2) for name in ("item_of_row", "labels", "times")}
    twice["times"][2000:] += seconds_later
    users = pd.DataFrame({"user_id": some, **dict.fromkeys(("gender", "age", "occupation"), 1)})
    twice |= {"users": users, "user_of_row": np.tile(some, 2), "rows": np.arange(4000), "probabilities": None}
    return replace(raw, interactions=replace(rows, **twice))


@pytest.mark.parametrize("seconds_later", [0, 60])
def test_labels_are_dealt_out_to_pairs_of_user_and_item_whatever_their_times(raw, seconds_later):
    labels = shuffle_labels(repeated(raw, seconds_later), 7).interactions.labels
    assert np.array_equal(labels[:2000], labels[2000:])


def test_twins_in_two_splits_would_be_a_leak_and_are_none_in_one(raw, monkeypatch):
    raw = repeated(raw, seconds_later=0)
    check = check_leaks(raw, "strict")
    assert not check.leaks
    assert check.repeated_rows == 0
    monkeypatch.setattr("preprocessing.interactions.split_rows", lambda *a: protocols.split_rows(*a[:4]))
    check = check_leaks(raw, "strict")
    assert check.leaks
    assert check.feature_aucs["user_mean_rating"] > 0.8


def test_pairs_that_repeat_at_another_time_are_ranked_by_memory_and_told_apart_from_a_leak(raw, monkeypatch, capsys):
    raw = repeated(raw, seconds_later=60)
    monkeypatch.setattr(leaks, "read_raw", lambda dataset: raw)
    check = check_leaks(raw, "strict")
    monkeypatch.setattr(leaks, "check_leaks", lambda raw, protocol: check)
    # A test row's other half is in training with .8 * .9, in validation with .8 * .1 and in test with .2.
    assert 0.68 < check.repeated_rows / check.test_rows < 0.76
    assert check.repeated_auc > 0.8
    assert 0.5 < check.overall_auc < check.repeated_auc
    assert check.remembered_auc > 0.8
    assert not check.leaks
    assert print_leaks(["movielens"], ["strict"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].endswith("to memory")
    assert said[-1].startswith(f"movielens strict: {check.repeated_rows} test rows")


def test_where_every_test_row_repeats_training_nothing_can_be_judged(raw, monkeypatch):
    splits = Splits(train=np.arange(2000), valid=np.arange(2000, 2500), test=np.arange(2500, 4000))
    monkeypatch.setattr("preprocessing.interactions.split_rows", lambda *a: splits)
    with pytest.raises(UserError, match=r"^movielens, strict: expected test rows of both labels .* got 0 rows"):
        check_leaks(repeated(raw, seconds_later=60), "strict")


@pytest.mark.parametrize(
    ("model_auc", "feature_auc", "leak"),
    [(0.505, 0.492, False), (0.52, 0.5, True), (0.5, 0.511, True), (0.5, 0.4, True), (0.3, 0.5, True)],
)
def test_what_is_further_from_one_half_than_chance_goes_is_a_leak(model_auc, feature_auc, leak):
    assert LeakCheck("d", "strict", 100, {"f": feature_auc}, model_auc, allowed=0.01).leaks == leak


def test_datasets_without_files_are_checked_on_generated_ones(tmp_path):
    flags = ("--datasets", "alibaba", "--protocols", "strict")
    result = run("reproduce.py", "--check-leaks", *flags, env=environment(INTTOWER_DATA=str(tmp_path)))
    assert result.returncode == 0, result.stderr
    assert "alibaba: no real files (data/README.md says where they go), so checked on generated" in result.stdout
    assert "alibaba-synthetic  strict" in result.stdout


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    env = environment(INTTOWER_DATA=str(tmp_path / "no"))
    result = run("reproduce.py", "--check-leaks", "--datasets", "amazon", env=env)
    assert_refused(result, "$INTTOWER_DATA", "check the path")


@pytest.mark.parametrize(
    ("protocol", "statistics"), [(p, s) for p in PROTOCOLS for s in STATISTICS if p != "paper" or s == "means"]
)
def test_but_for_the_shuffling_the_check_encodes_as_the_training_script_does(protocol, statistics, sample_folder, raw):
    data = load_movielens(sample_folder, protocol, statistics=statistics)
    assert encode(raw, protocol, statistics).checksum() == data.checksum()


def test_the_history_of_hits_released_code_lists_what_the_user_likes_among_the_very_rows():
    films, labels = torch.tensor([3, 4, 5, 6, 7], dtype=torch.int32), torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    table = Table({"movie_id": films}, labels, np.array([0, 0, 0, 2, 0], dtype=np.int32), np.arange(5))
    assert liked(table, 2)[:].tolist() == [[3, 5], [3, 5], [3, 5], [6, 0], [3, 5]]
