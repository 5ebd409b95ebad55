"""The search for settings: what it may choose, that records alone decide its course, that it stops and goes on."""

import argparse
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from shell import assert_refused, copy_of_the_project, environment, run

import tune
from experiment.model_settings import model_fields, taken_fields
from experiment.settings import parse_settings
from experiment.tuned import FOUND, tuned_settings
from model import model_class
from preprocessing.command import EXIT_INTERRUPTED
from preprocessing.errors import UserError
from reproduction import runs
from reproduction.execute import describe
from reproduction.plans import SEARCHED, TUNED, table_2, table_2_runs
from reproduction.runs import DATA_NAMES, SOURCES, Run, script, settings_of
from training.errors import Interrupted
from tuning.output import best_so_far, write_found
from tuning.search import expected_seconds, how_many
from tuning.space import SHARED, as_settings, defaults_of, even_draws, space_of
from tuning.study import COMPLETE, FAILED, PRUNED, RESULT, Study, best_trial, missing_lengths
from tuning.trial import ask
from tuning.trial import main as make_trial


@pytest.fixture
def study(sample_folder, tmp_path, monkeypatch) -> Study:
    """A search on the small sample, of which nothing is on record."""
    monkeypatch.setenv("INTTOWER_DATA", str(sample_folder))
    for cached in (runs._load, runs._data_state):
        cached.cache_clear()
    yield Study("movielens", "strict", "DSSM", seed=3, found=tmp_path / "found")
    for cached in (runs._load, runs._data_state):
        cached.cache_clear()


def arguments_of(study: Study, folder, wanted: int) -> argparse.Namespace:
    folder.mkdir(parents=True, exist_ok=True)
    of_study = {name: getattr(study, name) for name in ("dataset", "protocol", "model", "seed", "found")}
    return argparse.Namespace(**of_study, folder=folder, device="cpu", wanted=wanted)


def trial_of(study: Study, folder, wanted: int = 20) -> dict:
    make_trial(arguments_of(study, folder, wanted))
    return json.loads((folder / RESULT).read_text())


def without_clock(record: dict) -> dict:
    kept = ("epoch", "train_loss", "valid_auc", "valid_logloss")
    history = [{name: row[name] for name in kept} for row in record["history"]]
    return {name: value for name, value in record.items() if name != "seconds"} | {"history": history}


@pytest.mark.parametrize("model", SEARCHED)
def test_what_may_be_chosen_are_settings_that_the_model_has(model):
    of_other_models = model_fields().keys() - taken_fields(model_class(model)).keys()
    names = space_of(model).keys()
    assert not names & of_other_models
    assert names <= vars(settings_of("movielens", "strict")).keys()


def test_a_scripts_own_settings_lie_in_what_may_be_chosen():
    for dataset, source in ((name, SOURCES[name]) for name in DATA_NAMES):
        for protocol, model in itertools.product(source.protocols, SEARCHED):
            defaults = defaults_of(model, dataset, protocol)
            for name, values in space_of(model).items():
                own = values.to_internal_repr(defaults[name])
                assert values._contains(own), f"{dataset} {protocol} {model}: {name} {defaults[name]} in {values}"


def test_all_models_share_their_first_draws_of_what_they_share():
    drawn = []
    for model in ("DSSM", "DCN", "IntTower"):
        first = {"state": FAILED, "history": [], "parameters": defaults_of(model, "movielens", "strict")}
        second = ask(Study("movielens", "strict", model, seed=3), [first]).params
        drawn.append({name: second[name] for name in SHARED})
    assert drawn[0] == drawn[1] == drawn[2]


def test_even_draws_reach_every_part_of_each_settings_range():
    for model in SEARCHED:
        space = space_of(model)
        draws = even_draws(space, 6, seed=1)
        assert len(draws) == 6
        for name, values in space.items():
            drawn = [draw[name] for draw in draws]
            assert all(values._contains(values.to_internal_repr(value)) for value in drawn)
            if hasattr(values, "choices"):  # each as often as another, but for one where they do not divide the draws
                counts = [drawn.count(choice) for choice in values.choices]
                assert max(counts) - min(counts) <= 1, (name, counts)
            else:
                low, high, drawn = (np.log(x) if values.log else np.array(x) for x in (values.low, values.high, drawn))
                assert sorted(((drawn - low) / (high - low) * 6).astype(int)) == [0, 1, 2, 3, 4, 5]


def test_the_first_trial_is_the_scripts_own_and_the_next_depends_on_the_records_and_the_seed_alone(study, tmp_path):
    assert ask(study, []).params == defaults_of("DSSM", "movielens", "strict")
    first = trial_of(study, tmp_path / "0")
    second = ask(study, [first]).params
    assert second == ask(study, [first]).params
    assert second != ask(Study("movielens", "strict", "DSSM", seed=4), [first]).params


def test_numbers_become_settings_with_three_digits_and_a_share_below_0_is_none():
    drawn = {"lr": 0.00123456, "embedding_dim": 64, "user_id_dropout": 0.5, "item_id_dropout": -0.3}
    assert as_settings(drawn) == drawn | {"lr": 0.00123, "item_id_dropout": 0.0}
    nothing_dropped = as_settings(drawn | {"user_id_dropout": -0.1})
    assert (nothing_dropped["user_id_dropout"], nothing_dropped["drop_statistics"]) == (0.0, False)


def test_the_test_rows_have_no_say_in_a_trial(study, tmp_path, monkeypatch):
    before = trial_of(study, tmp_path / "before")
    data = runs.load("movielens", "strict")
    turned = replace(data, test=replace(data.test, labels=1 - data.test.labels))
    monkeypatch.setattr("tuning.trial.load", lambda dataset, protocol: turned)
    assert without_clock(trial_of(study, tmp_path / "after")) == without_clock(before)


def test_what_is_worse_than_half_is_stopped_after_two_epochs(study, tmp_path):
    first = trial_of(study, tmp_path / "0")
    assert first["state"] == COMPLETE
    assert [row["epoch"] for row in first["history"]] == [1, 2, 3, 4, 5]
    assert first["valid_auc"] == max(row["valid_auc"] for row in first["history"])
    history = [row | {"valid_auc": 0.99} for row in first["history"]]
    for number in range(4):
        study.add(first | {"history": history, "number": number})
    assert [trial["number"] for trial in study.trials()] == [0, 1, 2, 3]
    stopped = trial_of(study, tmp_path / "4")
    assert (stopped["state"], len(stopped["history"]), stopped["number"]) == (PRUNED, 2, 4)


@pytest.mark.slow
def test_what_the_search_found_best_is_trained_longer_as_long_as_that_does_it_good(study, tmp_path):
    first = trial_of(study, tmp_path / "0", wanted=1)
    study.add(first)
    assert study.missing(study.trials(), wanted=1) == (0, [2, 4])
    assert study.missing(study.trials(), wanted=3) == (2, [2, 4])
    assert how_many(study, study.trials(), wanted=3) == 4
    for number, epochs in ((1, 10), (2, 20)):
        longer = trial_of(study, tmp_path / str(number), wanted=1)
        assert (longer["number"], longer["settings"], len(longer["history"])) == (number, first["settings"], epochs)
        no_better = [*study.trials(), longer | {"valid_auc": study.trials()[-1]["valid_auc"]}]
        assert missing_lengths(no_better) == []
        study.add(longer | {"valid_auc": first["valid_auc"] + number / 100})
    assert study.missing(study.trials(), wanted=1) == (0, [])
    # A better one is trained longer in its turn.
    better = first | {"settings": first["settings"] | {"lr": 0.002}, "valid_auc": 0.999}
    assert missing_lengths([*study.trials(), better]) == [2, 4]


@pytest.mark.slow
def test_where_a_script_averages_the_weights_the_best_trial_and_the_first_are_trained_so_too(study, tmp_path, capsys):
    study = replace(study, protocol="temporal")
    course = study.own_course
    assert course == {"lr_schedule": "constant", "warmup": 0.0, "average_decay": 0.998, "epochs": 30, "patience": 5}
    first = trial_of(study, tmp_path / "0", wanted=1)
    second = first | {"settings": first["settings"] | {"lr": 0.002}, "number": 1, "valid_auc": 0.999}
    longer = second | {"number": 2, "times": 2, "valid_auc": 0.5}
    for trial in (first, second, longer):
        study.add(trial)
    assert study.missing(study.trials(), wanted=2) == (0, [None, None])
    assert study.missing(study.trials(), wanted=3) == (1, [2, 4, None, None])
    assert expected_seconds(study, study.trials(), wanted=2) > 0
    for number, settings in ((3, second["settings"]), (4, first["settings"])):
        write_found(study.found, study.name, study.dataset, study.protocol)
        assert tuned_settings("movielens-synthetic", "temporal", study.found) == {}
        study.add(record := trial_of(study, tmp_path / str(number), wanted=2))
        assert (record["number"], record["settings"], record["times"]) == (number, settings, None)
        assert record["course"] == course
        assert record["state"] == COMPLETE
    assert study.missing(study.trials(), wanted=2) == (0, [])
    # The script's own settings, trained as it trains, are what table 2 has where nothing was searched.
    of_table = table_2_runs("movielens", "temporal")["DSSM"]
    assert replace(of_table, seed=study.seed).recorded() == study.run(first["settings"], None).recorded()

    shutil.rmtree(study.found)
    for trial in (first, second | {"valid_auc": 0.5}, longer, record | {"valid_auc": 0.9999}):
        study.add(trial)
    study.add(first | {"number": 4, "times": 2, "valid_auc": 0.1})
    write_found(study.found, study.name, study.dataset, study.protocol)
    found = tuned_settings("movielens-synthetic", "temporal", study.found)
    assert found == {"DSSM": course | first["settings"]}
    assert "`--average-decay 0.998`" in capsys.readouterr().out


@pytest.mark.slow
def test_a_trial_that_is_stopped_goes_on_as_if_it_had_never_been(study, tmp_path, monkeypatch):
    whole = trial_of(study, tmp_path / "whole")
    report = optuna.Trial.report

    def stop_at_the_second_epoch(trial, value, step):
        report(trial, value, step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Trial, "report", stop_at_the_second_epoch)
        with pytest.raises(Interrupted):
            make_trial(arguments_of(study, tmp_path / "0", 20))
    stopped = shutil.copytree(tmp_path / "0", tmp_path / "1")
    assert without_clock(trial_of(study, tmp_path / "0")) == without_clock(whole)
    # A longer training that was stopped leaves its checkpoint to the next trial of a search that gets more of them.
    study.add(whole)
    assert without_clock(trial_of(study, stopped)) == without_clock(trial_of(study, tmp_path / "anew"))


def test_settings_that_break_a_training_are_a_failed_trial(study, tmp_path, monkeypatch):
    monkeypatch.setattr("tuning.trial.as_settings", lambda parameters: parameters | {"lr": 1e30})
    record = trial_of(study, tmp_path / "0")
    assert expected_seconds(study, [record | {"history": []}], wanted=3) is None  # in its first epoch
    assert record["state"] == FAILED
    assert "lower --lr" in record["reason"]


def test_the_best_is_taken_of_trials_that_ran_to_their_end():
    ends = [(FAILED, None), (COMPLETE, 0.7), (PRUNED, 0.9), (COMPLETE, 0.8), (COMPLETE, 0.75)]
    trials = [{"number": n, "state": state, "valid_auc": auc} for n, (state, auc) in enumerate(ends)]
    assert best_trial(trials)["number"] == 3
    assert best_trial(trials[:1]) is None
    first, *others = best_so_far(trials)
    assert math.isnan(first)
    assert others == [0.7, 0.7, 0.8, 0.8]


def test_records_of_another_search_are_not_taken_for_this_one(study, tmp_path):
    study.add(trial_of(study, tmp_path / "0"))
    other = Study(study.dataset, study.protocol, study.model, seed=4, found=study.found)
    with pytest.raises(UserError, match="the search that would be made here, got another settings in trial 0"):
        other.trials()


def test_what_was_found_names_the_study_it_comes_from(study, tmp_path):
    record = trial_of(study, tmp_path / "0", wanted=1)
    study.add(record)
    write_found(study.found, study.name, study.dataset, study.protocol)
    assert tuned_settings("movielens-synthetic", "strict", study.found) == {}  # nothing, before the longer ones
    study.add(record | {"number": 1, "times": 2, "valid_auc": 0.1})
    write_found(study.found, study.name, study.dataset, study.protocol)
    found = json.loads((study.found / f"{study.name}.json").read_text())["DSSM"]
    assert found["study"] == "movielens-synthetic-strict/DSSM.jsonl"
    assert (found["trial"], found["trials"], found["valid_auc"]) == (0, 1, record["valid_auc"])
    assert tuned_settings("movielens-synthetic", "paper", study.found) == {"DSSM": found["settings"]}
    assert found["settings"].items() >= record["settings"].items()
    # A run of the table with the trial's seed would be the trial again.
    again = Run("movielens", "strict", "DSSM", study.seed, tuple(found["settings"].items()))
    assert again.recorded() == study.run(record["settings"]).recorded()


def test_what_was_found_is_taken_by_the_scripts_and_by_the_table(monkeypatch):
    monkeypatch.delenv("INTTOWER_DATA", raising=False)  # whose Amazon files may be of another category
    for dataset in ("movielens", "beauty", "kuairand"):
        of_script, name = script(dataset), DATA_NAMES[dataset]
        assert name == of_script.Settings.TUNED
        for protocol in SOURCES[dataset].protocols:
            runs_of_table = table_2_runs(dataset, protocol, TUNED)
            for model, settings in tuned_settings(name, protocol).items():
                parsed = chosen_by(dataset, "--preset", "tuned", "--protocol", protocol, "--model", model)
                assert {key: getattr(parsed, key) for key in settings} == settings
                parsed.model_options(model_class(model))
                assert runs_of_table[model].recorded() == json.loads(json.dumps(parsed.recorded(model_class(model))))


@pytest.mark.slow
def test_a_run_of_what_was_found_is_told_by_what_differs_from_it():
    [found] = table_2("movielens", "strict", ["IntTower"], 1, TUNED)
    assert describe(found) == "movielens strict IntTower seed 1023, as found"
    changed = replace(found, changes=(*found.changes, ("cir_weight", 0.0)))
    assert describe(changed) == "movielens strict IntTower seed 1023, as found, cir_weight 0.0"
    alone = replace(found, changes=(("cir_weight", 0.0),))
    assert describe(alone) == "movielens strict IntTower seed 1023, cir_weight 0.0"


def test_what_was_found_is_what_the_records_say(tmp_path):
    shutil.copytree(FOUND, tmp_path / "tuned")
    searches = {f"{DATA_NAMES[d]}-{protocol}": (d, protocol) for d in DATA_NAMES for protocol in SOURCES[d].protocols}
    for folder in filter(Path.is_dir, FOUND.iterdir()):
        write_found(tmp_path / "tuned", folder.name, *searches[folder.name])
        for kind in ("json", "md"):
            written, there = (place / f"{folder.name}.{kind}" for place in (tmp_path / "tuned", FOUND))
            assert written.read_text() == there.read_text()


def chosen_by(dataset: str, *flags: str):
    """The settings of a dataset's script after its first lines."""
    settings = parse_settings(script(dataset).Settings, list(flags), script(dataset).PRESETS, "")
    settings.choose_model(script(dataset).Model)
    return settings


@pytest.fixture
def found(monkeypatch) -> dict:
    """What a search found under strict, nothing of another protocol."""
    found = {
        "IntTower": {"lr": 0.007, "lr_schedule": "cosine", "warmup": 0.1, "user_head": 8},
        "DCN": {"lr": 0.002, "cross_num": 3},
    }
    for where in ("experiment.settings", "reproduction.plans"):
        monkeypatch.setattr(f"{where}.tuned_settings", lambda name, protocol: found if protocol == "strict" else {})
    return found


def test_the_movielens_script_takes_what_was_found_for_the_model_it_imports_where_no_flag_says_otherwise(found, capsys):
    of_table = table_2_runs("movielens", "strict", TUNED)
    assert chosen_by("movielens").recorded(model_class("IntTower")) == of_table["IntTower"].recorded()
    assert "found for IntTower (--preset untuned: without them): --lr 0.007 " in capsys.readouterr().out
    dcn = chosen_by("movielens", "--model", "DCN", "--lr", "0.001")  # the flag's value, though it is the default, too
    assert (dcn.lr, dcn.cross_num, dcn.user_head) == (0.001, 3, 4)
    for flags in (["--preset", "untuned"], ["--preset", "released"], ["--model", "DSSM"], ["--protocol", "temporal"]):
        assert chosen_by("movielens", *flags).lr == 0.001
    constant = chosen_by("movielens", "--lr-schedule", "constant")
    assert (constant.lr_schedule, constant.warmup, constant.lr) == ("constant", 0.0, 0.007)


def test_a_flag_may_need_what_the_search_found_beside_it(found):
    found["IntTower"] |= {"user_id_dropout": 0.4}
    longer = chosen_by("movielens", "--warmup", "0.2", "--drop-statistics")
    assert (longer.lr_schedule, longer.warmup, longer.drop_statistics) == ("cosine", 0.2, True)
    with pytest.raises(UserError, match="--warmup: expected --lr-schedule cosine beside it, got constant"):
        chosen_by("movielens", "--model", "DCN", "--warmup", "0.2")


def test_what_was_found_does_not_keep_the_sample_that_stands_in_from_being_looked_at_shortly(found):
    found["IntTower"] |= {"epochs": 20, "batch_size": 4096}
    assert chosen_by("movielens").shorten() == "--batch-size 512 --epochs 6"
    for epochs in ("9", "30"):  # the default, too, where somebody asks for it
        assert chosen_by("movielens", "--epochs", epochs).shorten() is None


def test_other_scripts_take_what_was_found_where_it_is_asked_for(found):
    own = settings_of("kuairand", "strict").lr
    assert own != found["IntTower"]["lr"]
    assert chosen_by("kuairand").lr == own
    assert chosen_by("kuairand", "--preset", "tuned").lr == found["IntTower"]["lr"]
    assert chosen_by("kuairand", "--preset", "tuned", "--lr", "0.3").lr == 0.3


def test_a_preset_of_what_was_not_searched_is_refused(found, monkeypatch):
    with pytest.raises(UserError, match="--preset tuned: nothing was searched on kuairand under paper"):
        chosen_by("kuairand", "--preset", "tuned", "--protocol", "paper")
    with pytest.raises(UserError, match="searched on movielens under strict, DCN, IntTower, got DSSM; name one with"):
        chosen_by("movielens", "--preset", "tuned", "--model", "DSSM")
    monkeypatch.setattr(script("kuairand"), "Model", model_class("DAT"))
    with pytest.raises(UserError, match="searched on kuairand under strict, DCN, IntTower, got DAT; name one with"):
        chosen_by("kuairand", "--preset", "tuned")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--protocols", "paper"], "invalid choice: 'paper'"),
        (["--seed", "1023"], "--seed: expected none of the tables' seeds, from 1023 on, got 1023"),
        (["--datasets", "alibaba"], "invalid choice: 'alibaba'"),
    ],
)
def test_a_search_that_could_not_be_meant_is_refused(flags, reason):
    assert_refused(run("tune.py", *flags), reason)


def test_a_study_that_is_named_twice_is_made_once():
    twice = {"models": ["DCN", "LR", "DCN"], "datasets": ["movielens"] * 2, "protocols": ["strict"] * 2}
    named = tune.parse([word for name, words in twice.items() for word in (f"--{name}", *words)])
    assert (named.models, named.datasets, named.protocols) == (["DCN", "LR"], ["movielens"], ["strict"])


@pytest.mark.slow
def test_the_command_makes_what_is_missing_whatever_stopped_it_and_however_many_run_at_once(sample_folder, tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    environ = environment(INTTOWER_DATA=str(sample_folder))

    def command_of(found: str, jobs: int, *models: str) -> list[str]:
        flags = f"--models {' '.join(models)} --trials 2 --jobs {jobs} --found {found}"
        return [sys.executable, "tune.py", *flags.split()]

    def tune(found: str, jobs: int, *models: str) -> list[str]:
        command = command_of(found, jobs, *models)
        ended = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    def records(found: str) -> list[dict]:
        path = project / found / "movielens-synthetic-strict" / "LR.jsonl"
        return [without_clock(json.loads(line)) for line in path.read_text().splitlines()]

    first = tune("a", 2, "LR", "StatisticsLR")
    assert sum("trial 1: valid AUC" in line for line in first) == 2
    assert [record["times"] for record in records("a")][:3] == [1, 1, 2]
    before = (project / "a" / "movielens-synthetic-strict" / "LR.jsonl").read_bytes()
    assert tune("a", 2, "LR", "StatisticsLR")[-8:] == first[-8:]  # the same table
    assert (project / "a" / "movielens-synthetic-strict" / "LR.jsonl").read_bytes() == before
    assert (project / "a" / "figure" / "movielens-synthetic-strict_trials.png").stat().st_size > 10_000

    stopped = subprocess.Popen(
        command_of("b", 1, "LR"), cwd=project, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    next(line for line in stopped.stdout if "trial 0" in line)
    stopped.send_signal(signal.SIGTERM)
    _, told = stopped.communicate(timeout=60)
    assert (stopped.returncode, "the same command goes on" in told) == (EXIT_INTERRUPTED, True), told
    tune("b", 1, "LR")
    assert records("b") == records("a")
