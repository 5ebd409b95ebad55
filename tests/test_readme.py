"""README's commands run as they stand, and its tables say what the records say."""

import re
import shlex
import shutil
import zipfile
from pathlib import Path

import pytest
from shell import PROJECT, copy_of_the_project, environment, run, run_in_process

from preprocessing.choices import PROTOCOLS
from preprocessing.sample_amazon import write_amazon_sample
from reproduction.output import write_ablation, write_latency, write_table_2
from reproduction.pages import PAGES, with_results
from reproduction.records import RESULTS, Records

README = (PROJECT / "README.md").read_text()
# Fewer runs, epochs and steps than the real command takes; nothing else is changed. The first that fits counts.
SHORTER = {
    "reproduce.py --table 2": ["--models", "LR", "--protocols", "strict", "--seeds", "1"],
    "reproduce.py --table ablation": ["--groups", "released"],
    "reproduce.py --table latency": [],
    "reproduce.py --check-leaks": ["--datasets", "movielens", "--protocols", "strict"],
    "train_movielens_IntTower.py": ["--epochs", "1"],
    "train_amazon_IntTower.py": ["--epochs", "1"],
    "train_alibaba_IntTower.py": ["--epochs", "1"],
    "preprocessing.sample": ["--rows", "20000", "--users", "500", "--items", "200"],
    "benchmark.full_size": ["--steps", "1", "--rounds", "1"],
    "benchmark.training_speed": ["--steps", "1"],
    "benchmark.decoupled_evaluation": ["--repeats", "1"],
    "benchmark.deepctr_speed": ["--repeats", "1", "--steps", "1"],
    "benchmark.maxsim": ["--items", "200", "--rounds", "1"],
    "benchmark.serving_latency": [
        *("--candidates", "100", "--rounds", "1", "--seconds", "0.2", "--items", "500", "--threads", "1"),
        *("--models", "IntTower 4 x 16", "DSSM, ONNX", "DCN"),
    ],
    "benchmark.quantisation": [],
    "benchmark.catalogue": ["--items", "5000", "--rounds", "1"],
    "benchmark.soak": ["--minutes", "0.05"],
    "serving.build_index": [],
    "serving.export": [],
    "serving.quality": ["--users", "20"],
    "rank_movielens.py": [],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_tables_and_outputs_are_what_was_recorded():
    for page in PAGES:
        text = page.read_text()
        assert with_results(text) == text, page


def test_the_tables_are_what_the_records_say(tmp_path):
    shutil.copytree(RESULTS, tmp_path, ignore=shutil.ignore_patterns("*.md", "*.csv"), dirs_exist_ok=True)
    records = Records(tmp_path)
    for protocol in PROTOCOLS:
        write_table_2(records, "movielens", protocol, "movielens")
        write_ablation(records, "movielens", protocol, "movielens")
    write_latency(records)
    written = {path.relative_to(tmp_path) for kind in ("md", "csv") for path in tmp_path.rglob(f"*.{kind}")}
    there = {path.relative_to(RESULTS) for kind in ("md", "csv") for path in RESULTS.rglob(f"*.{kind}")}
    assert there - {Path("README.md")} == {path for path in written if (RESULTS / path).exists()}
    for path in there - {Path("README.md")}:
        assert (RESULTS / path).read_text() == (tmp_path / path).read_text(), path


def test_every_python_command_runs_in_the_order_of_the_page(tmp_path, sample_folder):
    project = copy_of_the_project(tmp_path / "project")
    data = shutil.copytree(sample_folder, tmp_path / "data")
    write_amazon_sample(data / "amazon", num_rows=2000)
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("python ")]
    assert len(commands) >= 20
    for command in commands:
        words = shlex.split(_of_the_sample(command), comments=True)[1:]
        shorter = next(flags for name, flags in SHORTER.items() if f" {name} " in f" {' '.join(words)} ")
        if "--help" not in words:
            words += shorter
        result = run_in_process(*words, folder=project, env=environment(INTTOWER_DATA=str(data)))
        assert result.returncode == 0, (command, result.stderr)
    [serving] = [block for block in blocks("python") if "load_run" in block]
    (project / "example.py").write_text(_of_the_sample(serving))
    result = run_in_process("example.py", folder=project)
    assert result.returncode == 0, result.stderr
    assert "TopK(ids=array([" in result.stdout


def _of_the_sample(text: str) -> str:
    """The page names runs on the real data; those of the test are on invented data, and their folders say so."""
    return text.replace("runs/movielens-", "runs/movielens-synthetic-")


@pytest.mark.parametrize("example", [block for block in blocks("python") if "load_movielens" in block])
def test_a_python_example_runs_and_prints_its_metrics(example, tmp_path, sample_folder):
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "ml-1m.zip", "w") as archive:
        for path in sorted(sample_folder.glob("*.dat")):
            archive.write(path, f"ml-1m/{path.name}")
    (tmp_path / "example.py").write_text(example)
    result = run_in_process("example.py", folder=tmp_path, env=environment(PYTHONPATH=str(PROJECT)))
    assert result.returncode == 0, result.stderr
    assert re.search(r"'auc': 0\.\d+", result.stdout)


def test_every_flag_on_the_page_exists():
    scripts = [[path.name] for path in PROJECT.glob("train_*.py")]
    scripts.append(["reproduce.py"])
    scripts.append(["rank_movielens.py"])
    modules = [["-m", name] for name in SHORTER if "." in name and not name.endswith(".py") and " " not in name]
    known = "".join(run(*command, "--help").stdout for command in (*scripts, *modules))
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", re.sub(r"<!--.*?-->", "", README)))
    assert {flag for flag in named if flag not in known} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_link_into_the_project_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []
