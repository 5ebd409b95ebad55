"""Tables and figures from hand-made records: means, leads, what is bold, what stands beside it."""

import csv
import io
import json
import math
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from test_records import DATA, record_of

import figure.live
import figure.table_2
from experiment.folder import RECORD, TEST_LOGITS
from figure.architecture import draw_architecture
from figure.pareto import pareto_front
from preprocessing.choices import STATISTICS
from reproduction.bootstrap import _logits, _made_of, _wanted, read_bootstrap, update_bootstrap
from reproduction.figures import draw_across_protocols, draw_groups, draw_latency, draw_protocol
from reproduction.folders import run_folder
from reproduction.formats import (
    DELAY_COLUMNS,
    PARTS_COLUMNS,
    SEARCHED_STATISTICS_COLUMNS,
    TABLE_2_COLUMNS,
    as_csv,
    is_significant,
    markdown,
)
from reproduction.latency import FILE as LATENCY
from reproduction.output import write_ablation, write_latency, write_table_2
from reproduction.plans import ABLATION, LABEL_DELAYS, NAMES, TUNED, ablation, table_2_run, table_2_runs, variants_of
from reproduction.records import Records
from reproduction.runs import DATA_NAMES, FIRST_SEED, SOURCES, DataState, script
from reproduction.tables import ablation_rows, auc_by_earlier_rows, delay_rows, latency_rows, table_2_rows

SYNTHETIC = DataState("movielens-synthetic", synthetic=True, fingerprint="f", tables="t")
KINDS = ("md", "csv")
REST = {
    "valid": {"auc": 0.85, "logloss": 0.4},
    "best_epoch": 2,
    "epochs": 3,
    "train_seconds": 120.0,
    "num_parameters": 10,
    "history": [{"epoch": epoch, "valid_auc": 0.8 + 0.01 * epoch} for epoch in (1, 2, 3)],
}


def add(records: Records, model: str, aucs: list[float], data: DataState = DATA) -> None:
    for i, auc in enumerate(aucs):
        records.add(record_of(table_2_run("movielens", "strict", model, FIRST_SEED + i), auc, data, **REST))


@pytest.fixture
def records(tmp_path) -> Records:
    """IntTower clearly ahead of DSSM, and no more than by chance of DCN; of LR one seed only."""
    records = Records(tmp_path)
    add(records, "IntTower", [0.901, 0.902, 0.903])
    add(records, "DSSM", [0.880, 0.8811, 0.882])
    add(records, "DCN", [0.890, 0.910, 0.9055])
    add(records, "LR", [0.850])
    return records


def rows_by_model(records: Records) -> dict[str, dict]:
    return {row["model"]: row for row in table_2_rows(records, "movielens", "strict")}


def test_table_2_has_a_row_for_each_model_with_records_in_the_published_order(records):
    rows = table_2_rows(records, "movielens", "strict")
    assert [row["model"] for row in rows] == ["LR", "DSSM", "DCN", "IntTower"]
    assert [row["seeds"] for row in rows] == [1, 3, 3, 3]


def test_a_row_has_the_mean_and_deviation_over_seeds_and_the_published_values(records):
    row = rows_by_model(records)["IntTower"]
    assert row["auc"] == pytest.approx(0.902)
    assert row["auc_std"] == pytest.approx(0.001)
    assert (row["published_auc"], row["published_logloss"]) == (0.8974, 0.3128)
    assert row["rela_impr"] == pytest.approx(100 * (0.402 / (0.8810333 - 0.5) - 1), abs=1e-4)
    assert row["published_rela_impr"] == pytest.approx(7.49, abs=0.01)


def test_a_lead_is_taken_over_the_seeds_that_both_have(records):
    rows = rows_by_model(records)
    assert rows["DSSM"]["lead"] == pytest.approx((0.021 + 0.0209 + 0.021) / 3)
    assert rows["LR"]["lead"] == pytest.approx(0.051)
    assert math.isnan(rows["LR"]["lead_p"])
    assert "lead" not in rows["IntTower"]
    assert TABLE_2_COLUMNS["seeds"](rows["DSSM"]) == "3"


def test_runs_on_other_data_are_not_compared_by_seed(tmp_path):
    records = Records(tmp_path)
    add(records, "IntTower", [0.9, 0.91])
    add(records, "DSSM", [0.8, 0.82])
    add(records, "DCN", [0.8, 0.82], replace(DATA, fingerprint="of other files"))
    rows = rows_by_model(records)
    assert rows["DSSM"]["lead"] == pytest.approx(0.095)
    assert "lead" not in rows["DCN"]


def test_a_lead_over_fewer_seeds_than_a_model_has_says_so(tmp_path):
    records = Records(tmp_path)
    add(records, "IntTower", [0.9, 0.91])
    add(records, "DSSM", [0.8, 0.8, 0.9])
    row = rows_by_model(records)["DSSM"]
    assert row["auc"] == pytest.approx(2.5 / 3)
    assert row["lead"] == pytest.approx(0.105)
    assert TABLE_2_COLUMNS["seeds"](row) == "3, lead of 2"


def test_only_a_significant_lead_is_bold(records):
    rows = rows_by_model(records)
    for row in rows.values():
        row["lead_low"], row["lead_high"] = 0.001, 0.03
    cells = {model: TABLE_2_COLUMNS["IntTower's lead in AUC"](row) for model, row in rows.items()}
    assert cells["DSSM"] == "**+0.0210 ± 0.0001**"
    assert cells["DCN"] == "+0.0002 ± 0.0098"
    assert cells["LR"] == "+0.0510"
    assert cells["IntTower"] == "-"


def test_a_lead_whose_interval_over_users_holds_0_is_not_bold(records):
    row = rows_by_model(records)["DSSM"]
    for low, high, bold in ((0.001, 0.03, True), (-0.03, -0.001, True), (-0.001, 0.03, False)):
        assert is_significant(row | {"lead_low": low, "lead_high": high}, "lead", over_users=True) == bold
    assert not is_significant(row, "lead", over_users=True)  # without an interval nothing is bold in table 2
    assert is_significant(row, "lead", over_users=False)


def test_the_intervals_are_read_from_what_was_recorded(records):
    line = {"protocol": "strict", "model": "DSSM", "seeds": [1023], "auc": [0.87, 0.89], "lead": [0.02, 0.03]}
    (records.folder / "movielens" / "bootstrap.jsonl").write_text(json.dumps(line) + "\n")
    row = rows_by_model(records)["DSSM"]
    assert (row["auc_low"], row["auc_high"], row["lead_low"], row["lead_high"]) == (0.87, 0.89, 0.02, 0.03)
    cell = TABLE_2_COLUMNS["lead, 95 % over users"]
    assert cell(row) == "+0.0200 to +0.0300, of 1"  # of the three seeds that the lead is of
    assert cell(row | {"lead_seeds": 1}) == "+0.0200 to +0.0300"


def test_an_interval_is_made_of_logits_of_its_own_records_alone(tmp_path):
    run = table_2_run("movielens", "strict", "DSSM")
    folder = run_folder(run, DATA, tmp_path)
    folder.mkdir(parents=True)
    np.save(folder / TEST_LOGITS, np.array([0.5], dtype=np.float32))
    (folder / RECORD).write_text(json.dumps(record_of(run, 0.8)))
    assert _logits(run, record_of(run, 0.8), DATA, tmp_path) == [0.5]
    assert _logits(run, record_of(run, 0.7), DATA, tmp_path) is None  # made before the folder's
    (folder / RECORD).unlink()
    assert _logits(run, record_of(run, 0.8), DATA, tmp_path) is None


def test_an_interval_of_a_lead_stands_until_there_is_one_of_more_seeds():
    by_seed = {"IntTower": dict.fromkeys((1, 2, 3)), "DCN": dict.fromkeys((1, 2, 3))}
    current = {"IntTower": {"seeds": [1, 2]}, "DCN": {"seeds": [1], "lead": [0.0, 0.1]}}
    assert _wanted(by_seed, {("DCN", 2), ("DCN", 3)}, current) == {}  # of DCN's AUC alone
    logits = {("DCN", 1), ("DCN", 2), ("IntTower", 1), ("IntTower", 2), ("DCN", 3)}
    assert _wanted(by_seed, logits, current) == {"DCN": [1, 2]}
    del current["DCN"]["lead"]
    assert _wanted(by_seed, {("DCN", 2), ("DCN", 3)}, current) == {"DCN": [2, 3]}


def test_an_interval_is_that_of_its_records_whichever_table_they_stand_in(records, tmp_path, monkeypatch):
    runs = {model: table_2_run("movielens", "strict", model) for model in ("DSSM", "DCN")}
    by_seed = {model: records.by_seed(run) for model, run in runs.items()}
    lines = [{"protocol": "strict", "model": model, "seeds": [1023], "auc": [0.87, 0.89]} for model in runs]
    made_of = [_made_of(line, by_seed) for line in lines]
    kept = [line | {"made_of": of} for line, of in zip(lines, (made_of[0], "other records"), strict=True)]
    (records.folder / "movielens" / "bootstrap.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    # A search that ended at the script's own settings: the runs of both tables are the same.
    monkeypatch.setattr("reproduction.bootstrap.data_state", lambda dataset, protocol: DATA)
    monkeypatch.setattr("reproduction.bootstrap.table_2_runs", lambda *arguments: runs)
    update_bootstrap("movielens", "strict", records, TUNED, tmp_path)
    assert read_bootstrap(records, "movielens", "strict", TUNED) == {"DSSM": kept[0]}
    # Of two the one of more seeds, whichever table has it.
    more = kept[0] | {"seeds": [1023, 1024], "auc": [0.88, 0.885]}
    more |= {"made_of": _made_of(more, by_seed)}
    (records.folder / "movielens" / "bootstrap.jsonl").write_text(json.dumps(more) + "\n")
    update_bootstrap("movielens", "strict", records, TUNED, tmp_path)
    assert read_bootstrap(records, "movielens", "strict", TUNED) == {"DSSM": more}


def test_nothing_published_stands_beside_synthetic_data(tmp_path):
    records = Records(tmp_path)
    add(records, "DSSM", [0.8], SYNTHETIC)
    [row] = table_2_rows(records, "movielens", "strict", "movielens-synthetic")
    assert not any(name.startswith("published") for name in row)


def test_markdown_and_csv_say_the_same(records):
    rows = table_2_rows(records, "movielens", "strict")
    lines = markdown(rows, TABLE_2_COLUMNS).splitlines()
    assert len(lines) == 6
    assert len({line.count("|") for line in lines}) == 1
    assert lines[-1].startswith("| IntTower | 0.9020 ± 0.0010 | 0.8974 |")
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [row["model"] for row in read] == [row["model"] for row in rows]
    assert float(read[-1]["auc"]) == rows[-1]["auc"]
    assert read[-1]["lead"] == ""


def test_a_variant_is_compared_with_the_whole_model_by_what_it_loses(records):
    changed = next(variant for variant in ABLATION["parts"] if variant.name == "no LightSE")
    for i, auc in enumerate((0.891, 0.893, 0.8931)):
        records.add(record_of(changed.run("movielens", "strict", FIRST_SEED + i), auc, **REST))
    rows = {row["variant"]: row for row in ablation_rows(records, "movielens", "strict", "parts")}
    assert list(rows) == ["IntTower", "no LightSE", "Two-Tower"]
    assert rows["no LightSE"]["difference"] == pytest.approx(-(0.01 + 0.009 + 0.0099) / 3)
    assert PARTS_COLUMNS["difference"](rows["no LightSE"]).startswith("**-0.0096")
    assert rows["Two-Tower"]["seeds"] == 3


EVERYWHERE = [(dataset, protocol) for dataset in DATA_NAMES for protocol in SOURCES[dataset].protocols]


@pytest.mark.parametrize(("dataset", "protocol"), EVERYWHERE)
def test_a_row_of_the_ablation_is_what_its_name_says_and_no_other_row_again(dataset, protocol):
    for variant in variants_of(dataset, "cir", protocol):
        settings = variant.run(dataset, protocol).settings()
        assert variant.name == f"weight {settings.cir_weight:g}, temperature {settings.cir_temperature:g}"
    for group in ("parts", "cir", "heads"):
        recorded = [json.dumps(v.run(dataset, protocol).recorded()) for v in variants_of(dataset, group, protocol)]
        assert len(set(recorded)) == len(recorded) > 0
    plain = next((v for v in variants_of(dataset, "parts", protocol) if v.name == "Two-Tower + CIR"), None)
    assert plain is None or plain.run(dataset, protocol).settings().cir_weight > 0


def test_what_two_groups_have_in_common_is_made_once():
    runs = ablation("beauty", "strict", ["start", "measures", "statistics"], 1)
    recorded = [json.dumps(run.recorded()) for run in runs]
    assert len(set(recorded)) == len(recorded)


def test_a_grid_takes_its_first_seed_alone(records):
    rows = ablation_rows(records, "movielens", "strict", "cir")
    assert [(row["variant"], row["seeds"], row["auc"]) for row in rows] == [("weight 1, temperature 0.1", 1, 0.901)]


@pytest.fixture
def latency(records) -> Records:
    times = {"LR": 0.1, "DSSM": 0.5, "IntTower": 1.0, "DCN": 4.0, "IntTower, last level": 0.8}
    rest = {"candidates": 1000, "num_threads": 1, "device": "cpu", "dataset": "movielens"}
    lines = [{"model": model, "median_ms": ms, "p95_ms": 2 * ms, **rest} for model, ms in times.items()]
    (records.folder / LATENCY).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return records


def test_scoring_times_stand_beside_the_auc_of_the_same_model(latency):
    rows = latency_rows(latency)
    assert [row["model"] for row in rows] == ["LR", "DSSM", "IntTower, last level", "IntTower", "DCN"]
    assert [row["times_two_tower"] for row in rows] == pytest.approx([0.2, 1.0, 1.6, 2.0, 8.0])
    assert rows[3]["auc"] == pytest.approx(0.902)
    assert "auc" not in rows[2]  # the last level alone was not trained


def test_times_on_other_data_stand_beside_no_auc_of_movielens(latency):
    path = latency.folder / LATENCY
    path.write_text(path.read_text().replace('"movielens"', '"movielens-synthetic"'))
    assert not any("auc" in row for row in latency_rows(latency))


def test_the_pareto_front_holds_what_nothing_beats_in_both_time_and_auc():
    points = [
        {"name": name, "median_ms": ms, "auc": auc}
        for name, ms, auc in [
            ("slow", 9, 0.9),
            ("fast", 1, 0.7),
            ("worse", 2, 0.6),
            ("middle", 3, 0.8),
            ("tied", 3, 0.75),
        ]
    ]
    assert [point["name"] for point in pareto_front(points)] == ["fast", "middle", "slow"]


def test_every_table_and_figure_is_written(latency, capsys):
    for make in (write_table_2, draw_protocol, write_ablation, draw_groups):
        make(latency, "movielens", "strict", "movielens")
    draw_across_protocols(latency, "movielens", "movielens")
    write_latency(latency)
    draw_latency(latency)
    folder = latency.folder
    files = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".md", ".csv", ".png")
    }
    tables = {
        f"{name}.{kind}"
        for name in ("table_2_strict", "ablation_parts_strict")  # of CIR's grid there is only the whole model
        for kind in KINDS
    }
    figures = {"movielens_table_2", "movielens_learning_curves_strict", "movielens_ablation_strict", "auc_against_time"}
    expected = {f"movielens/{name}" for name in tables} | {f"figure/{name}.png" for name in figures}
    assert files == expected | {"latency.md", "latency.csv"}
    assert (folder / "latency.md").read_text().strip() in capsys.readouterr().out
    for path in (folder / "figure").glob("*.png"):
        image = matplotlib.image.imread(path)
        assert image.shape[0] > 300
        assert image[..., :3].std() > 0.01, path  # something is drawn
        assert abs(image[..., 0] - image[..., 2]).max() < 0.01, path  # in black and grey


@pytest.fixture
def live(tmp_path) -> Records:
    """Two models under online, whose labels an hour's or a day's delay makes .01 and .02 worse, and under temporal."""
    records = Records(tmp_path)
    for variant in ABLATION["delays"]:
        start = {"IntTower": 0.88, "DCN": 0.87}.get(variant.model)
        for i in range(2 if start else 0):
            run = variant.run("movielens", "online", FIRST_SEED + i)
            auc = start - 0.01 * list(LABEL_DELAYS.values()).index(run.settings().label_delay) + 0.002 * i
            parts = [{"from": 0, "rows": 100, "auc": auc - 0.1}, {"from": 1, "rows": 900, "auc": auc}]
            records.add(record_of(run, auc, by_earlier_rows=[*parts, {"from": 5, "rows": 0, "auc": None}], **REST))
    records.add(record_of(table_2_run("movielens", "temporal", "IntTower"), 0.83, **REST))
    return records


def test_a_table_of_delays_has_a_row_for_each_model_and_a_column_for_each_delay(live):
    dcn, ours = delay_rows(ablation_rows(live, "movielens", "online", "delays"))
    assert (dcn["model"], ours["model"]) == ("DCN", "IntTower")
    assert [ours[f"auc {delay}"] for delay in LABEL_DELAYS] == pytest.approx([0.881, 0.871, 0.861])
    cells = {name: cell(ours) for name, cell in DELAY_COLUMNS.items()}
    assert cells["AUC, labels known an hour later"] == "0.8710 ± 0.0014"
    assert cells["seeds"] == "2, 2, 2"


def test_what_was_searched_is_compared_with_int_tower_of_the_same_statistics(tmp_path):
    records = Records(tmp_path)
    gains = {"IntTower": 0.02, "DCN": 0.01, "means": 0.0, "residuals": 0.001, "crossed": 0.005}
    for variant in ABLATION["searched-statistics"]:
        if variant.model in gains:
            for i in range(2):
                auc = 0.88 + gains[variant.model] + gains[dict(variant.changes)["statistics"]] + 0.002 * i
                records.add(record_of(variant.run("movielens", "strict", FIRST_SEED + i), auc, **REST))
    rows = {row["variant"]: row for row in ablation_rows(records, "movielens", "strict", "searched-statistics")}
    assert len(rows) == 6
    assert rows["DCN: crossed"]["auc"] == pytest.approx(0.896)
    assert [rows[f"DCN: {name}"]["lead"] for name in STATISTICS] == pytest.approx([0.01] * 3)
    assert [rows[f"DCN: {name}"]["seeds"] for name in STATISTICS] == [2, 1, 2]
    assert "lead" not in rows["IntTower: crossed"]
    assert SEARCHED_STATISTICS_COLUMNS["seeds"](rows["DCN: means"]) == "2"


def test_auc_by_a_users_earlier_rows_is_the_mean_over_seeds_of_parts_that_have_one(live):
    rows = [row for row in auc_by_earlier_rows(live, "movielens", "online") if row["model"] == "IntTower"]
    assert [(row["from"], row["rows"], row["seeds"]) for row in rows] == [(0, 100, 2), (1, 900, 2)]
    assert [row["auc"] for row in rows] == pytest.approx([0.781, 0.881])


def test_the_figures_of_online_have_a_line_for_each_model_and_a_place_for_labels_that_never_come(live, monkeypatch):
    def delays():
        [axes] = panels(lambda: draw_groups(live, "movielens", "online", "movielens"), monkeypatch, figure.live)
        return axes, [text.get_text() for text in axes.get_xticklabels()]

    # Under temporal a script may have other settings, which would be taken for what late labels cost.
    assert delays()[1] == [*LABEL_DELAYS]
    settings = script("movielens").Settings
    same = settings.BY_PROTOCOL | {"temporal": settings.BY_PROTOCOL["online"]}
    monkeypatch.setattr(settings, "BY_PROTOCOL", same)
    live.add(record_of(table_2_run("movielens", "temporal", "IntTower"), 0.83, **REST))
    axes, places = delays()
    assert places == [*LABEL_DELAYS, "never"]
    lines = {container.get_label(): container.lines[0].get_ydata() for container in axes.containers}
    assert lines["DCN"] == pytest.approx([0.871, 0.861, 0.851])
    assert lines[NAMES.get("IntTower", "IntTower")] == pytest.approx([0.881, 0.871, 0.861, 0.83])
    [axes] = panels(lambda: draw_protocol(live, "movielens", "online", "movielens"), monkeypatch, figure.live)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0\n(0.1k)", "1+\n(0.9k)"]


def panels(draw, monkeypatch, module) -> list:
    """The axes of a figure instead of its file."""
    caught = []
    monkeypatch.setattr(module, "save", lambda figure, path: caught.append(figure))
    draw()
    return caught[0].axes


def test_a_protocol_that_lacks_models_keeps_the_lines_of_the_others(records, monkeypatch):
    for model, auc in (("DSSM", 0.91), ("IntTower", 0.92)):
        records.add(record_of(table_2_run("movielens", "paper", model), auc, **REST))
    rows = {protocol: table_2_rows(records, "movielens", protocol) for protocol in ("strict", "paper")}
    left, right = panels(lambda: figure.table_2.draw_table_2(rows, {}, None), monkeypatch, figure.table_2)
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == ["LR", "DSSM", "DCN", "IntTower"]
    drawn = dict(zip(*[list(axis) for axis in right.lines[0].get_data()][::-1], strict=True))
    assert drawn == {1: 0.91, 3: 0.92}
    assert "labels leak" in right.get_title()
    assert "no leak" in left.get_title()


def test_an_ablation_without_a_panel_draws_nothing(records, tmp_path):
    [released] = ABLATION["released"]
    records.add(record_of(released.run("movielens", "temporal"), 0.8, **REST))
    write_ablation(records, "movielens", "temporal", "movielens")
    draw_groups(records, "movielens", "temporal", "movielens")
    assert (records.folder / "movielens" / "ablation_released_temporal.md").exists()
    assert not (records.folder / "figure").exists()


def test_the_parts_are_compared_with_the_whole_model_only_where_it_is_there(tmp_path):
    records = Records(tmp_path)
    add(records, "DSSM", [0.88, 0.89])
    [row] = ablation_rows(records, "movielens", "strict", "parts")
    assert "difference" not in row


def test_the_same_records_give_the_same_figure(latency, tmp_path):
    images = []
    for _ in range(2):
        draw_latency(latency)
        images.append((latency.folder / "figure" / "auc_against_time.png").read_bytes())
    assert images[0] == images[1]
    draw_architecture(tmp_path / "architecture.png")
    assert (tmp_path / "architecture.png").stat().st_size > 10_000


def test_the_tuned_table_is_of_the_models_that_were_searched_and_apart_from_the_other(records, monkeypatch):
    found = {"DSSM": {"lr": 0.002, "epochs": 10}, "DCN": {"lr": 0.004, "epochs": 5}}
    monkeypatch.setattr("reproduction.plans.tuned_settings", lambda data_name, protocol: found)
    monkeypatch.setattr("reproduction.tables.studies", lambda data_name, protocol: {"DSSM": {"trials": 7}})
    runs = table_2_runs("movielens", "strict", TUNED)
    assert {model: dict(run.changes) for model, run in runs.items()} == found
    before = as_csv(table_2_rows(records, "movielens", "strict"))
    records.add(record_of(runs["DSSM"], 0.89, **REST))
    write_table_2(records, "movielens", "strict", "movielens", TUNED)
    draw_across_protocols(records, "movielens", "movielens", TUNED)
    [row] = table_2_rows(records, "movielens", "strict", settings=TUNED)  # without IntTower there is no lead
    assert (row["model"], row["auc"], row["trials"], row["seeds"]) == ("DSSM", 0.89, 7, 1)
    assert as_csv(table_2_rows(records, "movielens", "strict")) == before
    table = (records.folder / "movielens" / "table_2_tuned_strict.md").read_text()
    assert "what `tune.py` found for it under `strict`" in table
    assert (records.folder / "figure" / "movielens_table_2_tuned.png").exists()


def test_the_parts_around_what_was_found_leave_out_what_the_search_left_out_by_itself(monkeypatch):
    found = {"IntTower": {"cir_weight": 0.0, "fe_input": "output"}, "DSSM": {"lr": 0.002}}
    monkeypatch.setattr("reproduction.plans.tuned_settings", lambda data_name, protocol: found)
    changes = [dict(run.changes) for run in ablation("movielens", "strict", ["tuned"], 1)]
    whole = found["IntTower"]
    assert whole in changes
    assert whole | {"reweighting": "none"} in changes
    assert whole | {"fe_input": "input"} in changes
    assert found["DSSM"] in changes
    assert len(changes) == 6  # no row without CIR, which is not there, and none of DSSMCIR, which was not searched
    found["IntTower"] = whole = {"fe_input": "input"}
    changes = [dict(run.changes) for run in ablation("movielens", "strict", ["tuned"], 1)]
    assert whole | {"fe_input": "output"} in changes
    assert changes.count(whole) == 1


@pytest.mark.parametrize(
    ("protocol", "left"),
    [("strict", ["a bias of each user and item"]), ("temporal", ["no bias of a user or an item"])],
)
def test_biases_are_turned_as_the_script_does_not_have_them_under_the_protocol(protocol, left, monkeypatch):
    monkeypatch.setattr("reproduction.plans.tuned_settings", lambda data_name, protocol: {"IntTower": {"lr": 0.002}})
    names = [variant.name for variant in variants_of("movielens", "next", protocol)]
    assert [name for name in names if "bias" in name] == left


def of_epochs(epochs: int, best: int) -> dict:
    """A record whose validation AUC rises by .001 an epoch, from .801 on."""
    history = [{"epoch": epoch, "valid_auc": 0.8 + epoch / 1000} for epoch in range(1, epochs + 1)]
    record = {"epochs": epochs, "best_epoch": best, "history": history}
    return record | {"dataset": "movielens", "protocol": "online", "labels_leak": False}


def learning_curves(curves: dict, monkeypatch) -> list:
    module = figure.learning_curves
    return panels(lambda: module.draw_learning_curves(curves, "IntTower", {}, None), monkeypatch, module)


def test_learning_curves_have_no_room_below_the_lowest_of_them(monkeypatch):
    axes, *_ = learning_curves({"IntTower": [of_epochs(21, best=21)], "LR": [of_epochs(11, best=11)]}, monkeypatch)
    assert axes.get_ylim()[0] == pytest.approx(0.801 - 0.1 * 0.02)


def test_a_model_whose_best_epoch_is_not_drawn_says_so_where_the_curve_of_its_seed_ends(monkeypatch):
    curves = {"LR": [of_epochs(40, best=35), of_epochs(6, best=1)]}
    axes, *_ = learning_curves(curves, monkeypatch)
    [note] = axes.texts
    assert note.get_text() == "best at 35"
    assert note.xy == pytest.approx((30, 0.83))
