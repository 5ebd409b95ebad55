"""A command reads its line, and says what is wrong with it, before it imports anything that takes seconds."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from shell import PROJECT, environment

from benchmark.start import commands
from preprocessing.command import EXIT_INTERRUPTED, EXIT_USER_ERROR

HEAVY = ("torch", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "deepctr_torch", "onnxruntime", "tqdm")
# Run a command as Python does, then say on a last line which of the heavy packages it has imported.
WATCHED = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    if sys.argv[0] == "-m":
        sys.argv = sys.argv[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print([name for name in {HEAVY} if name in sys.modules])
"""
TRAINING = [name for (name, *_) in commands() if name.startswith("train_")]


def answer(*words: str, **changes: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WATCHED, *words],
        cwd=PROJECT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_command_of_the_project_is_among_those_that_are_looked_at():
    assert len(TRAINING) == 3
    assert {("reproduce.py",), ("rank_movielens.py",), ("-m", "serving.export")} < set(commands())
    assert {("-m", "benchmark.maxsim"), ("-m", "preprocessing.sample"), ("-m", "reproduction.pages")} < set(commands())


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_and_an_unknown_flag_import_nothing_heavy(command):
    result = answer(*command, "--help")
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "[]"), result.stderr
    assert "usage:" in result.stdout
    result = answer(*command, "--no-such-flag")
    assert (result.returncode, result.stdout) == (EXIT_USER_ERROR, "[]\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("script", TRAINING)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "--epochs: expected a number of at least 1, got 0"),
        (["--device", "tpu"], "--device: expected auto, cpu, mps, cuda or cuda:<n>, got 'tpu'"),
        (["--levels", "0,7"], "levels: expected 'all', 'last' or indices from 0 to 2, got [0, 7]"),
        (["--user-head", "0"], "--user-head, --item-head, --field-dim: expected 1 or more, got 0 x"),
        (["--model", "Nothing"], "invalid choice: 'Nothing'"),
        (["--data", "nowhere"], "--data nowhere: expected"),
    ],
)
def test_a_wrong_value_and_a_missing_file_are_told_in_a_line_before_anything_heavy(script, flags, message):
    result = answer(script, *flags)
    assert (result.returncode, result.stdout) == (EXIT_USER_ERROR, "[]\n")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["rank_movielens.py", "--user", "1", "--run", "nowhere"],
        ["-m", "serving.build_index", "--run", "nowhere"],
        ["-m", "serving.export", "--run", "nowhere"],
        ["-m", "serving.quality", "--teacher", "nowhere", "--runs", "nowhere"],
        ["-m", "benchmark.quantisation", "--runs", "nowhere"],
        ["-m", "benchmark.maxsim", "--rounds", "0"],
        ["-m", "reproduction.same_code", "--why", "a test", "--before", "nowhere"],
    ],
    ids=" ".join,
)
def test_other_commands_too_look_for_what_they_are_given_first(command):
    result = answer(*command)
    assert (result.returncode, result.stdout) == (EXIT_USER_ERROR, "[]\n")
    assert result.stderr.count("\n") == 1
    assert "expected" in result.stderr


@pytest.mark.parametrize(
    ("environ", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_idle_threads_do_not_spin_for_long_unless_the_person_said_how_they_wait(environ, spins, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    code = """
        import os
        from preprocessing.command import read_command_line
        read_command_line(lambda words: words)
        print(os.environ.get("GOMP_SPINCOUNT"))
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=PROJECT, env=os.environ | environ, capture_output=True, text=True)
    assert result.stdout == f"{spins}\n"


def test_ctrl_c_while_packages_are_imported_is_a_line():
    code = """
        from preprocessing.command import read_command_line
        read_command_line(lambda words: words)
        print("importing", flush=True)
        import time
        time.sleep(60)
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED
    assert stderr == "\nstopped; nothing was done yet.\n"
