"""The pages' commands run as they stand, and their tables say what the records say."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from shell import PROJECT, copy_of_the_project, environment, run

from benchmark.start import commands as every_command
from experiment.tuned import FOUND
from preprocessing.choices import PROTOCOLS
from preprocessing.sample_amazon import write_amazon_sample
from preprocessing.sample_kuairand import write_kuairand_sample
from reproduction.output import write_ablation, write_latency, write_table_2
from reproduction.pages import PAGES, with_results
from reproduction.plans import TUNED
from reproduction.records import RESULTS, Records
from reproduction.runs import DATA_NAMES

# Fewer runs, epochs and steps than the real command takes; nothing else is changed. The first that fits counts. Of each
# kind of table one command trains, the others say with their own flags what they would make.
SHORTER = {
    "reproduce.py --table 2 --datasets": ["--datasets", "kuairand", "--dry-run"],
    "reproduce.py --table 2 --protocols": ["--datasets", "movielens", "--dry-run"],
    "reproduce.py --table ablation --groups": ["--datasets", "movielens", "kuairand", "--dry-run"],
    "reproduce.py --table 2": ["--models", "LR", "--protocols", "strict", "--seeds", "1"],
    "reproduce.py --table ablation": ["--groups", "released"],
    "reproduce.py --table latency": [],
    "tune.py": ["--models", "LR", "--trials", "1", "--found", "found"],
    "reproduce.py --check-leaks": ["--datasets", "movielens", "--protocols", "strict"],
    "train_movielens_IntTower.py": ["--epochs", "1"],
    "train_amazon_IntTower.py": ["--epochs", "1"],
    "train_alibaba_IntTower.py": ["--epochs", "1"],
    "train_kuairand_IntTower.py": ["--epochs", "1"],
    "preprocessing.sample": ["--rows", "20000", "--users", "500", "--items", "200"],
    "benchmark.beyond_memory": ["--rows", "5000", "--times", "2"],
    "benchmark.full_size": ["--steps", "1", "--rounds", "1"],
    "benchmark.training_speed": ["--steps", "1", "--batch-size", "64"],
    "benchmark.time_to_auc": ["--seeds", "1", "--configurations", "DCN, quick"],
    "benchmark.decoupled_evaluation": ["--repeats", "1"],
    "benchmark.deepctr_speed": ["--repeats", "1", "--steps", "1", "--models", "DCN"],
    "benchmark.first_steps": ["--datasets", "kuairand", "--sizes", "2x4", "--steps", "2"],
    "benchmark.own_label": ["--datasets", "kuairand"],
    "benchmark.maxsim": ["--items", "200", "--rounds", "1"],
    "benchmark.serving_latency --threads 1": [
        *("--candidates", "100", "--rounds", "1", "--seconds", "0.2", "--items", "500", "--models", "DCN"),
    ],
    "benchmark.serving_latency": [
        *("--candidates", "100", "--rounds", "1", "--seconds", "0.2", "--items", "500", "--threads", "1"),
        *("--models", "DSSM, ONNX", "DCN"),
    ],
    "benchmark.quantisation": [],
    "benchmark.catalogue": ["--items", "5000", "--rounds", "1"],
    "benchmark.retrieval": [
        *("--items", "2000", "--users", "2", "--assignments", "1", "--candidates", "20", "--top", "10"),
    ],
    "benchmark.server": [
        *("--items", "2000", "--candidates", "100", "--turns", "1", "--seconds", "0.2"),
        *("--minutes", "0.02"),
    ],
    "benchmark.soak": ["--minutes", "0.05"],
    "benchmark.kills": ["--kills", "2"],
    "benchmark.start": ["--repeats", "1"],
    "benchmark.leaked_history": ["--epochs", "1"],
    "benchmark.going_on": ["--models", "DCN", "--seeds", "1"],
    "benchmark.processes": ["--steps", "1", "--user-ids", "100"],
    "benchmark.threads": ["--seconds", "0.1", "--settings", "ours"],
    "serving.build_index": [],
    "serving.export": [],
    "serving.quality": ["--users", "20"],
    "rank_movielens.py": [],
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line.startswith("python ")]


def examples(page: Path) -> list[str]:
    """The page's Python, in its order; a bare import is an edit of a script and no example."""
    return [block for block in blocks(page, "python") if len(block.splitlines()) > 1]


def by_page(wanted) -> list:
    """The pages that have what is wanted, by their names."""
    names = {page: page.relative_to(PROJECT).as_posix() for page in PAGES if wanted(page)}
    return [pytest.param(page, id=name) for page, name in names.items()]


# Run in a copy of the project: the words of commands from a file, one after the other, their results into another. One
# process for a whole page: what takes long is to import torch, and shell.run gives each command a main module.
RUN_EACH = """
import json, os, sys
sys.path[:0] = [".", "tests"]
from shell import run
with open("commands.json") as file, open("results.json", "w") as results:
    for words in json.load(file):
        result = run(*words, env=dict(os.environ))
        print(json.dumps([words, result.returncode, result.stdout, result.stderr]), file=results, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", by_page(lambda page: commands(page) or examples(page)))
def test_every_command_and_example_of_a_page_runs_in_its_order(page, tmp_path, sample_folder):
    project = copy_of_the_project(tmp_path / "project")
    data = _real_looking(sample_folder, project / "data")
    words = [_words(command) for command in commands(page)]
    for number, example in enumerate(examples(page)):
        (project / f"example_{number}.py").write_text(_of_the_sample(example))
        words.append([f"example_{number}.py"])
    (project / "commands.json").write_text(json.dumps(words))
    environ = environment(INTTOWER_DATA=str(data), OMP_NUM_THREADS="1")
    subprocess.run([sys.executable, "-c", RUN_EACH], cwd=project, env=environ, check=True, timeout=600)
    results = [json.loads(line) for line in (project / "results.json").read_text().splitlines()]
    assert [result[0] for result in results] == words
    for ran, code, stdout, stderr in results:
        assert code == 0, (ran, stderr)
        assert stdout or ran[0].startswith("example"), ran
    printed = "".join(stdout for ran, _, stdout, _ in results if ran[0].startswith("example"))
    text = "".join(examples(page))
    assert ("'auc': 0." in printed) is ("evaluate(" in text)
    assert ("TopK(ids=array([" in printed) is (".top_k(" in text)


def _real_looking(sample_folder: Path, data: Path) -> Path:
    """A folder of data as a person has it: the archive of MovieLens, Amazon's and KuaiRand's files."""
    data.mkdir()
    with zipfile.ZipFile(data / "ml-1m.zip", "w") as archive:
        for path in sorted(sample_folder.iterdir()):
            archive.write(path, f"ml-1m/{path.name}")
    write_amazon_sample(data / "amazon", num_rows=2000)
    write_kuairand_sample(data / "kuairand", num_rows=2000)
    return data


def _of_the_sample(text: str) -> str:
    """The page names runs on the real data; those of the test are on invented data, and their folders say so."""
    return text.replace("runs/movielens-", "runs/movielens-synthetic-")


def _words(command: str) -> list[str]:
    words = shlex.split(_of_the_sample(command), comments=True)[1:]
    if "--help" in words:
        return words
    return words + next(flags for name, flags in SHORTER.items() if f" {name} " in f" {' '.join(words)} ")


def test_the_tables_and_outputs_are_what_was_recorded():
    for page in PAGES:
        text = page.read_text()
        assert with_results(text) == text, page


@pytest.mark.slow
def test_the_tables_are_what_the_records_say(tmp_path):
    shutil.copytree(RESULTS, tmp_path, ignore=shutil.ignore_patterns("*.md", "*.csv"), dirs_exist_ok=True)
    records = Records(tmp_path)
    for protocol in PROTOCOLS:
        for dataset, name in DATA_NAMES.items():
            write_table_2(records, dataset, protocol, name)
            write_table_2(records, dataset, protocol, name, TUNED)
            write_ablation(records, dataset, protocol, name)
    write_latency(records)
    written = {path.relative_to(tmp_path) for kind in ("md", "csv") for path in tmp_path.rglob(f"*.{kind}")}
    there = {path.relative_to(RESULTS) for kind in ("md", "csv") for path in RESULTS.rglob(f"*.{kind}")}
    there -= {path.relative_to(RESULTS) for path in FOUND.iterdir()}  # tests/test_tune.py
    assert there - {Path("README.md")} == {path for path in written if (RESULTS / path).exists()}
    for path in there - {Path("README.md")}:
        assert _rounded((RESULTS / path).read_text()) == _rounded((tmp_path / path).read_text()), path


def _rounded(text: str) -> str:
    """Numbers to nine digits: the last ones of a p depend on the version of scipy."""
    return re.sub(r"-?\d+\.\d{9,}(e-?\d+)?", lambda match: f"{float(match[0]):.9g}", text)


def test_every_flag_on_a_page_exists():
    known = "".join(run(*command, "--help").stdout for command in every_command())
    text = re.sub(r"<!--.*?-->", "", "".join(page.read_text() for page in PAGES))
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", text))
    of_others = {"--logdir", "--factory", "--workers", "--no-access-log"}  # tensorboard's, and uvicorn's
    of_others |= {"--no-deps"}  # pip's
    of_others |= {"--nproc-per-node", "--nnodes", "--node-rank", "--master-addr", "--master-port"}  # torchrun's
    assert {flag for flag in named if flag not in known} <= of_others


@pytest.mark.parametrize("page", by_page(lambda page: True))
def test_every_link_into_the_project_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def test_the_first_page_is_read_in_five_minutes():
    lines = {page: len(page.read_text().splitlines()) for page in PAGES}
    assert lines.pop(PROJECT / "README.md") <= 200
    assert max(lines.values()) < 250
