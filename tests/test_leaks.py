"""The leak check: it finds the leak of `paper`, clears the others, and finds one that is put into them."""

import pytest
from shell import environment, run

from preprocessing import interactions, protocols
from reproduction import leaks
from reproduction.leaks import LeakCheck, check_leaks, print_leaks, read_raw, shuffled

FEATURES = ["user_mean_rating", "item_mean_rating"]


@pytest.fixture
def raw(sample_folder, monkeypatch):
    monkeypatch.setenv("INTTOWER_DATA", str(sample_folder))
    return read_raw("movielens")


def test_shuffling_keeps_the_labels_and_breaks_their_tie_to_the_rows(raw):
    data = shuffled(raw, "strict", seed=7)
    parts = (data.train, data.valid, data.test)
    assert sum(int(part.labels.sum()) for part in parts) == raw.interactions.labels.sum()
    assert data.checksum() == shuffled(raw, "strict", seed=7).checksum() != shuffled(raw, "strict", seed=8).checksum()


def test_paper_leaks_and_the_others_do_not(raw):
    checks = {protocol: check_leaks(raw, protocol) for protocol in ("strict", "temporal", "paper")}
    assert [name for name, check in checks.items() if check.leaks] == ["paper"]
    assert all(list(check.feature_aucs) == FEATURES for check in checks.values())
    assert min(checks["paper"].feature_aucs.values()) > 0.6


def test_a_leak_in_strict_is_found_and_gives_exit_code_1(raw, monkeypatch, capsys):
    monkeypatch.setattr(leaks, "read_raw", lambda dataset: raw)
    assert print_leaks(["movielens"], ["strict"]) == 0
    monkeypatch.setattr(
        protocols,
        "_cross_fitted_means",
        lambda codes, labels, splits, seed: protocols._released_means(codes, labels, splits, True),
    )
    assert print_leaks(["movielens"], ["strict"]) == 1
    assert capsys.readouterr().out.rstrip().endswith("YES")


def test_paper_alone_does_not_make_the_check_fail(raw, monkeypatch, capsys):
    monkeypatch.setattr(leaks, "read_raw", lambda dataset: raw)
    assert print_leaks(["movielens"], ["paper"]) == 0
    assert "YES" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model_auc", "feature_auc", "leak"),
    [(0.505, 0.49, False), (0.52, 0.5, True), (0.5, 0.511, True), (0.3, 0.3, False)],
)
def test_what_is_above_one_half_by_more_than_chance_is_a_leak(model_auc, feature_auc, leak):
    assert LeakCheck("d", "strict", 100, {"f": feature_auc}, model_auc, allowed=0.01).leaks == leak


def test_datasets_without_files_are_checked_on_generated_ones(tmp_path):
    result = run(
        "reproduce.py",
        "--check-leaks",
        "--datasets",
        "alibaba",
        "--protocols",
        "strict",
        env=environment(INTTOWER_DATA=str(tmp_path)),
    )
    assert result.returncode == 0, result.stderr
    assert "alibaba: checked on generated data" in result.stdout
    assert "alibaba-synthetic  strict" in result.stdout


def test_the_check_covers_what_encodes_for_the_training_scripts():
    assert leaks.encode_interactions is interactions.encode_interactions
