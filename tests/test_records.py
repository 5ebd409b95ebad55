"""The store of records: JSON lines of which each run has one, and what makes a record a run's."""

import json
from dataclasses import replace

import pytest

from experiment.settings import parse_settings
from model import model_class
from preprocessing.errors import UserError
from reproduction.execute import command_of
from reproduction.plans import ABLATION, TABLE_2, ablation, table_2
from reproduction.records import Records
from reproduction.runs import SOURCES, DataState, Run, script

DATA = DataState("movielens", synthetic=False, fingerprint="f" * 64, tables="t" * 64)


def record_of(run: Run, auc: float = 0.8, data: DataState = DATA, **more) -> dict:
    return {
        "dataset": data.name,
        "protocol": run.protocol,
        "model": run.model,
        "seed": run.seed,
        "settings": run.recorded(),
        "fingerprint": data.fingerprint,
        "tables": data.tables,
        "code": run.code(),
        "device": "cpu",
        "synthetic": data.synthetic,
        "labels_leak": run.protocol == "paper",
        "test": {"auc": auc, "logloss": 0.4, "gauc": 0.7},
        **more,
    }


def test_a_record_is_found_by_its_runs_settings_and_survives_on_disk(tmp_path):
    run = Run("movielens", "strict", "DSSM")
    records = Records(tmp_path)
    assert records.find(run) is None
    records.add(record_of(run))
    assert records.find(run) == Records(tmp_path).find(run) == record_of(run)
    for other in (replace(run, seed=7), replace(run, protocol="paper"), replace(run, model="DCN")):
        assert records.find(other) is None
    assert records.find(replace(run, changes=(("lr", 0.5),))) is None


def test_a_run_that_is_made_again_replaces_its_record(tmp_path):
    run = Run("movielens", "strict", "DSSM")
    for auc in (0.7, 0.8):
        Records(tmp_path).add(record_of(run, auc))
    lines = (tmp_path / "movielens" / "strict.jsonl").read_text().splitlines()
    assert [json.loads(line)["test"]["auc"] for line in lines] == [0.8]


def test_records_stand_on_a_line_each_in_an_order_that_does_not_depend_on_when_they_came(tmp_path):
    runs = [Run("movielens", "strict", model, seed) for model in ("DSSM", "DCN") for seed in (1, 2)]
    for folder, order in (("a", runs), ("b", runs[::-1])):
        for run in order:
            Records(tmp_path / folder).add(record_of(run))
    first, other = ((tmp_path / folder / "movielens" / "strict.jsonl").read_bytes() for folder in ("a", "b"))
    assert first == other
    assert len(first.splitlines()) == 4


def test_a_record_that_another_process_adds_meanwhile_is_kept(tmp_path):
    ours, theirs = Records(tmp_path), Records(tmp_path)
    for records, seed in ((ours, 1), (theirs, 2), (ours, 3)):
        records.add(record_of(Run("movielens", "strict", "DSSM", seed)))
    assert sorted(Records(tmp_path).by_seed(Run("movielens", "strict", "DSSM"))) == [1, 2, 3]


def test_the_records_of_a_run_with_other_seeds_are_found_by_seed(tmp_path):
    records = Records(tmp_path)
    for seed in (3, 1):
        records.add(record_of(Run("movielens", "strict", "DSSM", seed)))
    records.add(record_of(Run("movielens", "strict", "DSSM", 1, (("lr", 0.5),))))
    assert sorted(records.by_seed(Run("movielens", "strict", "DSSM"))) == [1, 3]


@pytest.mark.parametrize("part", ["fingerprint", "tables", "code", "device"])
def test_records_of_other_code_data_or_devices_are_not_put_beside_those_of_the_first_seed(part, tmp_path):
    records = Records(tmp_path)
    for seed in (1023, 1024, 1025):
        records.add(record_of(Run("movielens", "strict", "DSSM", seed)) | ({part: "another"} if seed == 1024 else {}))
    assert sorted(records.by_seed(Run("movielens", "strict", "DSSM"))) == [1023, 1025]


def test_a_record_of_a_cuda_device_is_no_cpu_runs(tmp_path):
    run = Run("movielens", "strict", "DSSM")
    records = Records(tmp_path)
    records.add(record_of(run) | {"device": "cuda:1"})
    assert records.current(run, DATA) is None
    assert records.current(replace(run, device="cuda"), DATA) is not None
    assert run.folder_name(DATA) != replace(run, device="cuda").folder_name(DATA)


@pytest.mark.parametrize("part", ["fingerprint", "tables", "code"])
def test_a_record_of_other_data_or_code_is_not_current(part, tmp_path):
    run = Run("movielens", "strict", "DSSM")
    records = Records(tmp_path)
    records.add(record_of(run))
    assert records.current(run, DATA) is not None
    records.add(record_of(run) | {part: "another"})
    assert records.current(run, DATA) is None
    assert records.find(run) is not None


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "movielens" / "strict.jsonl"
    path.parent.mkdir()
    whole = json.dumps(record_of(Run("movielens", "strict", "LR"))).encode()
    for line, expected in {
        b"{half a li": "expected a JSON object, got ",
        b'{"\xe9": 1}': "expected a JSON object, got ",
        b"5": "expected a record as JSON object, got 5; remove",
        b'{"seed": 1}': "expected a record as JSON object, got one without settings, model, ",
    }.items():
        path.write_bytes(whole + b"\n" + line + b"\n")
        with pytest.raises(UserError, match=r"strict\.jsonl, line 2: " + expected):
            Records(tmp_path).all("movielens")


@pytest.mark.parametrize("dataset", SOURCES)
def test_the_command_of_a_run_gives_its_settings(dataset):
    runs = table_2(dataset, "temporal", list(TABLE_2), 2) + ablation(dataset, "strict", list(ABLATION), 2)
    for run in runs:
        name, *flags = run.arguments()
        assert name == f"{SOURCES[dataset].script}.py"
        settings = parse_settings(script(dataset).Settings, flags, {}, "")
        settings.choose_model(script(dataset).Model)
        assert json.loads(json.dumps(settings.recorded(model_class(run.model)))) == run.recorded()


@pytest.mark.parametrize("dataset", SOURCES)
def test_the_command_that_makes_a_run_is_no_first_look_at_the_sample_that_stands_in(dataset, tmp_path):
    run = Run(dataset, "strict", "DSSM")
    _, *flags = command_of(run, tmp_path / "run", "cpu")
    settings = parse_settings(script(dataset).Settings, flags, {}, "")
    settings.choose_model(script(dataset).Model)
    assert settings.shorten() is None
    assert json.loads(json.dumps(settings.recorded(model_class("DSSM")))) == run.recorded()


def test_a_dataset_of_a_script_that_reads_several_names_its_file(monkeypatch):
    monkeypatch.setenv("INTTOWER_DATA", "/data")
    reviews = "/data/amazon-beauty/reviews_Beauty_5.json.gz"
    assert Run("beauty", "strict", "IntTower").arguments() == ["train_amazon_IntTower.py", "--data", reviews]
    assert Run("beauty", "strict", "IntTower").recorded() == Run("amazon", "strict", "IntTower").recorded()
    monkeypatch.setenv("INTTOWER_DATA", "/my data")
    assert Run("beauty", "strict", "IntTower").arguments()[-1] == "/my data/amazon-beauty/reviews_Beauty_5.json.gz"


def test_the_measures_end_with_the_settings_of_the_script_that_they_chose():
    for model in ("IntTower", "DSSM", "DCN"):
        steps = [v.run("beauty", "strict").recorded() for v in ABLATION["measures"] if v.model == model]
        own = Run("beauty", "strict", model).recorded()
        assert steps.index(own) == (6 if model == "IntTower" else 5)
        assert steps[0] | {"lr": own["lr"]} != own


def test_a_bare_command_gives_one_of_the_tables_runs():
    assert Run("kuairand", "strict", "IntTower").arguments() == ["train_kuairand_IntTower.py"]
    assert Run("kuairand", "strict", "IntTower") in table_2("kuairand", "strict", list(TABLE_2), 1)


def test_a_runs_folder_changes_with_its_settings_data_and_code(monkeypatch):
    run = Run("movielens", "strict", "DSSM")
    others = [replace(run, seed=7), replace(run, changes=(("lr", 0.5),))]
    names = [run.folder_name(DATA), *(other.folder_name(DATA) for other in others)]
    names += [run.folder_name(replace(DATA, tables="other")), run.folder_name(replace(DATA, fingerprint="other"))]
    monkeypatch.setattr(Run, "code", lambda self: "other")
    names.append(run.folder_name(DATA))
    assert len(set(names)) == len(names)


def test_table_2_compares_all_models_after_each_seed():
    runs = table_2("movielens", "strict", ["DSSM", "IntTower"], 2)
    assert [(run.model, run.seed) for run in runs] == [
        ("DSSM", 1023),
        ("IntTower", 1023),
        ("DSSM", 1024),
        ("IntTower", 1024),
    ]


def test_a_run_cannot_change_its_data():
    with pytest.raises(AssertionError, match="split_seed"):
        Run("movielens", "strict", "DSSM", changes=(("split_seed", 7),))


@pytest.mark.parametrize("dataset", SOURCES)
def test_the_released_setting_is_that_of_the_datasets_own_script(dataset):
    runs = ablation(dataset, "strict", ["released"], 1)
    assert [dict(run.changes) for run in runs] == [p for n, p in script(dataset).PRESETS.items() if n == "released"]
    assert bool(runs) == (dataset != "kuairand")  # for which no script was released


def test_the_ablation_makes_no_run_twice_and_its_grids_with_one_seed():
    runs = ablation("movielens", "strict", list(ABLATION), 3)
    assert len(runs) == len(set(runs))
    assert sum(run == Run("movielens", "strict", "IntTower") for run in runs) == 1
    grid = [run for run in runs if dict(run.changes).keys() == {"user_head", "item_head", "field_dim", "epochs"}]
    assert {run.seed for run in grid} == {1023}
    assert {run.seed for run in runs if dict(run.changes) == {"reweighting": "none"}} == {1023, 1024, 1025}
    assert {run.seed for run in runs if dict(run.changes) == {"reweighting": "senet"}} == {1023}
    heads = {(dict(run.changes)["user_head"], dict(run.changes)["field_dim"]) for run in grid}
    assert heads == {(heads, size) for heads in (1, 2, 4, 8, 16, 32) for size in (16, 32, 64)}


def test_statistics_are_compared_with_all_else_as_under_strict():
    own = script("movielens").Settings.BY_PROTOCOL["temporal"]
    for variant in ABLATION["statistics"]:
        strict, temporal = (variant.run("movielens", p).recorded() | {"protocol": None} for p in ("strict", "temporal"))
        assert strict == temporal
    assert own.keys() & Run("movielens", "temporal", "IntTower").recorded().keys() == own.keys()
