"""reproduce.py as a person runs it, on a small synthetic sample: planned, run, killed, resumed, repeated, broken."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from shell import assert_refused, copy_of_the_project, environment, run, run_in_process, start

import reproduce as script
from experiment.folder import TEST_LOGITS
from preprocessing.command import EXIT_BROKEN_PIPE
from reproduce import parse
from reproduction import plans
from reproduction.processes import readable, time_left
from reproduction.runs import DataState

pytestmark = pytest.mark.slow

TABLE = ("--table", "2", "--protocols", "strict")
TIMES = ("data_seconds", "train_seconds", "samples_per_second", "evaluation_seconds", "peak_memory_bytes")


def reproduce(project: Path, data: Path, *arguments: str):
    return run_in_process("reproduce.py", *arguments, folder=project, env=environment(INTTOWER_DATA=str(data)))


def records(project: Path) -> list[dict]:
    """The records but for what the clock says."""
    lines = (project / "results" / "movielens-synthetic" / "strict.jsonl").read_text().splitlines()
    return [untimed(json.loads(line)) for line in lines]


def wait_for_epoch(number: int, project: Path, process) -> None:
    """Wait until a run has printed that epoch."""
    while process.poll() is None:
        if any(f"epoch {number:3d} " in log.read_text() for log in (project / "runs" / "reproduce").glob("*/log.txt")):
            return
        time.sleep(0.01)
    raise AssertionError(f"it ended before epoch {number} was seen: {process.communicate()}")


def untimed(record: dict) -> dict:
    history = [
        {k: v for k, v in row.items() if k not in ("seconds", "samples_per_second")} for row in record["history"]
    ]
    return {name: value for name, value in record.items() if name not in TIMES} | {"history": history}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, sample_folder) -> tuple[Path, str]:
    """A project in which two models with two seeds were run, and what was printed."""
    project = copy_of_the_project(tmp_path_factory.mktemp("reproduce") / "project")
    result = reproduce(project, sample_folder, *TABLE, "--models", "DSSM", "LR", "--seeds", "2", "--jobs", "2")
    assert result.returncode == 0, result.stderr
    return project, result.stdout


def test_each_run_is_reported_and_recorded(finished):
    project, printed = finished
    assert "SYNTHETIC" in printed
    for number in range(1, 5):
        assert f"[{number}/4]" in printed
    assert "left" in printed
    made = records(project)
    assert [(r["model"], r["seed"]) for r in made] == [(m, s) for m in ("DSSM", "LR") for s in (1023, 1024)]
    assert all(len(r["code"]) == len(r["tables"]) == len(r["fingerprint"]) == 64 for r in made)
    assert all(r["device"] == "cpu" and r["num_threads"] == 1 and r["versions"]["torch"] for r in made)


def test_it_ends_in_a_table_and_figures_and_intervals(finished):
    project, printed = finished
    folder = project / "results" / "movielens-synthetic"
    table = (folder / "table_2_strict.md").read_text()
    assert table.strip() in printed
    assert {path.name for path in folder.iterdir()} >= {"table_2_strict.csv", "bootstrap.jsonl", "strict.jsonl"}
    lines = [json.loads(line) for line in (folder / "bootstrap.jsonl").read_text().splitlines()]
    for line, model in zip(lines, ("LR", "DSSM"), strict=True):
        low, high = line["auc"]
        mean = sum(r["test"]["auc"] for r in records(project) if r["model"] == model) / 2
        assert low < mean < high
        assert line["model"] == model
    assert (project / "figure" / "movielens-synthetic_table_2.png").exists()


def test_what_has_a_record_is_not_run_again(finished, sample_folder):
    project, printed = finished
    before = (project / "results" / "movielens-synthetic" / "strict.jsonl").read_bytes()
    again = reproduce(project, sample_folder, *TABLE, "--models", "DSSM", "LR", "--seeds", "2")
    assert again.returncode == 0
    assert "[1/" not in again.stdout
    assert (project / "results" / "movielens-synthetic" / "strict.jsonl").read_bytes() == before
    assert again.stdout.splitlines()[-4:] == printed.splitlines()[-4:]  # the same table


def test_an_interval_is_of_the_seeds_whose_test_logits_are_here_and_it_is_said(finished, sample_folder, tmp_path):
    project = shutil.copytree(finished[0], tmp_path / "project")
    intervals = project / "results" / "movielens-synthetic" / "bootstrap.jsonl"
    of_both_seeds = [json.loads(line) for line in intervals.read_text().splitlines()]
    intervals.unlink()
    for path in (project / "runs" / "reproduce").glob(f"*-LR-seed1023-*/{TEST_LOGITS}"):
        path.unlink()
    result = reproduce(project, sample_folder, *TABLE, "--models", "DSSM", "LR", "--seeds", "2")
    assert result.returncode == 0, result.stderr
    assert "no part in an interval over users: LR, seed 1023, whose test logits, or those of" in result.stdout
    of_lr, of_dssm = (json.loads(line) for line in intervals.read_text().splitlines())
    assert of_lr["seeds"] == [1024]
    assert of_dssm == of_both_seeds[1]
    shutil.rmtree(project / "runs")
    intervals.write_text("".join(json.dumps(line) + "\n" for line in (of_lr, of_dssm)))
    before = intervals.read_bytes()
    result = reproduce(project, sample_folder, *TABLE, "--models", "DSSM", "LR", "--seeds", "2")
    assert intervals.read_bytes() == before


def test_a_dry_run_lists_what_is_missing_and_how_long_it_may_take(finished, sample_folder):
    project, _ = finished
    before = sorted((path, path.stat().st_mtime_ns) for path in (project / "results").rglob("*"))
    result = reproduce(project, sample_folder, *TABLE, "--models", "DSSM", "LR", "DCN", "--seeds", "3", "--dry-run")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    listed = [line for line in lines if line.startswith("movielens strict") and " seed " in line]
    assert [line.split()[2] for line in listed] == ["DCN", "DCN", "DSSM", "LR", "DCN"]
    assert listed[0].endswith("unknown")
    assert listed[2].split()[-1] in ("s", "min")
    assert lines[-1].startswith("9 runs, 4 are made, 5 to make: about ")
    assert sorted((path, path.stat().st_mtime_ns) for path in (project / "results").rglob("*")) == before


def test_killed_without_a_word_it_goes_on_and_ends_bit_for_bit_as_if_it_had_not(finished, sample_folder, tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    command = (*TABLE, "--models", "DSSM", "LR", "--seeds", "1", "--jobs", "1")
    process = start("reproduce.py", *command, folder=project, env=environment(INTTOWER_DATA=str(sample_folder)))
    wait_for_epoch(3, project, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (project / "results" / "movielens-synthetic").exists()
    result = reproduce(project, sample_folder, *command)
    assert result.returncode == 0, result.stderr
    # The run that was cut short went on where it was: its second log does not begin with the first epoch.
    [log] = (project / "runs" / "reproduce").glob("*-DSSM-*/log.txt")
    assert "epoch   1 " not in log.read_text()
    # Another project, other numbers of runs at a time, one of them stopped half-way: the same records.
    assert records(project) == [record for record in records(finished[0]) if record["seed"] == 1023]
    logits = list((project / "runs").rglob(TEST_LOGITS))
    assert len(logits) == 2
    for path in logits:
        assert path.read_bytes() == (finished[0] / path.relative_to(project)).read_bytes()


def test_stopped_by_a_signal_it_says_how_to_go_on(sample_folder, tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    command = (*TABLE, "--models", "DSSM", "--seeds", "1")
    process = start("reproduce.py", *command, folder=project, env=environment(INTTOWER_DATA=str(sample_folder)))
    wait_for_epoch(1, project, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in stderr
    [log] = (project / "runs" / "reproduce").glob("*-DSSM-*/log.txt")
    assert "Run the same command with --resume to go on." in log.read_text()


def test_where_nobody_reads_what_it_prints_it_records_what_was_made_and_ends_quietly(finished, sample_folder, tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    command = (*TABLE, "--models", "LR", "DSSM", "--seeds", "1", "--jobs", "1")
    process = start("reproduce.py", *command, folder=project, env=environment(INTTOWER_DATA=str(sample_folder)))
    assert "SYNTHETIC" in process.stdout.readline()
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait() == EXIT_BROKEN_PIPE
    [first] = records(project)  # of the run whose line nobody read
    assert first == next(record for record in records(finished[0]) if record["model"] == first["model"])


def test_a_run_that_fails_is_named_and_the_others_are_made(finished, sample_folder, tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    [folder] = (finished[0] / "runs" / "reproduce").glob("*-DSSM-seed1023-*")
    broken = project / "runs" / "reproduce" / folder.name
    broken.mkdir(parents=True)
    (broken / "checkpoint.pt").write_bytes(b"no checkpoint")
    result = reproduce(project, sample_folder, *TABLE, "--models", "DSSM", "LR", "--seeds", "1")
    assert result.returncode == 1
    assert "movielens strict DSSM seed 1023: FAILED: exit code 2, error: " in result.stdout
    assert "checkpoint.pt" in result.stdout
    assert "1 of 2 runs failed" in result.stderr
    assert [r["model"] for r in records(project)] == ["LR"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("--table", "3"), "--table"),
        ((), "--check-leaks"),
        (("--table", "2", "--seeds", "0"), "--seeds"),
        (("--table", "2", "--models", "BERT"), "--models"),
        (("--table", "latency", "--models", "DSSM"), "--models"),
        (("--table", "2", "--groups", "cir"), "--groups"),
        (("--table", "latency", "--dry-run"), "--dry-run"),
        (("--check-leaks", "--dry-run"), "--dry-run"),
        (("--check-leaks", "--device", "cpu"), "--device"),
        (("--table", "latency", "--seeds", "3"), "--seeds"),
    ],
)
def test_a_mistake_is_refused_with_code_2(arguments, fragment, capsys):
    with pytest.raises(SystemExit) as left:
        parse(list(arguments))
    assert left.value.code == 2
    assert fragment in capsys.readouterr().err.strip().splitlines()[-1]


def test_what_is_named_twice_is_meant_once():
    named = parse(["--table", "2", "--models", "LR", "DSSM", "LR", "--protocols", "strict", "strict"])
    assert (named.models, named.protocols) == (["LR", "DSSM"], ["strict"])


def test_a_table_without_a_run_is_said_to_have_none(capsys):
    assert script._plan(parse(["--table", "ablation", "--groups", "delays", "--protocols", "strict"])) == {
        ("movielens", "strict"): []
    }
    assert "nothing to make: --groups delays have no run there." in capsys.readouterr().out
    plan = script._plan(parse(["--table", "ablation", "--groups", "cir", "delays", "--datasets", "kuairand"]))
    assert len(plan["kuairand", "strict"]) == len(plans.CIR)
    assert "kuairand strict: --groups delays has no run there." in capsys.readouterr().out
    words = ["--table", "2", "--settings", "tuned", "--protocols", "temporal", "--models", "DSSM", "FinalMLP"]
    assert [run.model for run in script._plan(parse(words))["movielens", "temporal"]] == ["DSSM"] * 3
    assert "movielens temporal: left out, for want of a search (tune.py): FinalMLP." in capsys.readouterr().out


def test_a_device_that_is_not_there_is_refused_before_anything_runs():
    assert_refused(run("reproduce.py", "--table", "2", "--device", "gpu"), "--device", "cuda:<n>")


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (59, "59 s"), (90, "2 min"), (3599, "1 h 00 min"), (8040, "2 h 14 min")]
)
def test_times_are_written_as_a_person_says_them(seconds, text):
    assert readable(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "jobs", "left"), [([60, 60, 60], 1, 180), ([60, 60, 60], 3, 60), ([100, 10], 2, 100), ([], 2, 0)]
)
def test_runs_share_the_jobs_and_none_is_split(seconds, jobs, left):
    assert time_left(seconds, jobs) == left


def test_data_are_left_out_under_a_protocol_that_cannot_split_them_and_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(script, "data_state", lambda dataset, protocol: DataState(dataset, False, "f", "t"))
    words = ["--table", "2", "--datasets", "beauty", "electronics-part", "--models", "LR", "--seeds", "1"]
    plan = script._plan(script.parse([*words, "--protocols", "strict", "temporal"]))
    assert list(plan) == [("beauty", "strict"), ("beauty", "temporal"), ("electronics-part", "strict")]
    assert capsys.readouterr().out == (
        "electronics-part: left out under temporal; its data can be split by strict alone.\n"
    )
    assert [protocol for _, protocol in script._plan(script.parse(words))] == ["strict", "paper", "temporal", "strict"]
