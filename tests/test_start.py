"""A command reads its line, and says what is wrong with it, before it imports anything that takes seconds."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from shell import PROJECT, environment

from benchmark.start import commands
from preprocessing.command import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, EXIT_USER_ERROR, exit_code

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
    assert len(TRAINING) == 4
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
        ["-m", "benchmark.first_steps", "--sizes", "0x16"],
        ["-m", "benchmark.full_size", "alibaba", "--data", "nowhere"],
        ["-m", "benchmark.soak", "--minutes", "0"],
        ["-m", "benchmark.threads", "--seconds", "nan"],
        ["-m", "benchmark.scoring_time", "--json", "nowhere/file"],
        ["-m", "benchmark.serving_latency", "--json", "docs"],
        ["-m", "benchmark.serving_latency", "--seconds", "-1"],
        ["-m", "benchmark.kills", "--kills", "0"],
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


@pytest.mark.slow
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


def ended_by(error: BaseException, capsys) -> tuple[int, str]:
    """The exit code of a command that raises, and what it says."""

    def main() -> None:
        raise error

    before = signal.getsignal(signal.SIGINT)
    try:
        return exit_code(main), capsys.readouterr().err
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 186. GiB for an array with shape (5, 10)"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.\nat x"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("Storage size calculation overflowed with sizes=[5, 10]"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_memory_that_is_too_small_is_a_line_and_code_2(error, capsys):
    code, said = ended_by(error, capsys)
    assert (code, said.count("\n")) == (EXIT_USER_ERROR, 1)
    assert said.startswith("error: expected memory for what was asked for, got too little (")


def test_another_fault_of_the_code_keeps_its_traceback(capsys):
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("a")):
        with pytest.raises(type(error)):
            ended_by(error, capsys)


PRINTS_MORE_THAN_A_BUFFER = """
import sys
from preprocessing.command import exit_code
sys.exit(exit_code(lambda: [print("a line of some length") for _ in range(10_000)] and 0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("words", [("reproduce.py", "--help"), ("-c", PRINTS_MORE_THAN_A_BUFFER)])
@pytest.mark.parametrize("to", ["a full disk", "a pipe that nobody reads"])
def test_a_command_whose_output_goes_nowhere_ends_in_a_line_at_most(words, to):
    environ = environment(PYTHONUNBUFFERED="")
    command = [sys.executable, *words]
    if to == "a full disk":
        with open("/dev/full", "w") as full:
            result = subprocess.run(command, cwd=PROJECT, env=environ, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (result.returncode, result.stderr.count("\n")) == (EXIT_USER_ERROR, 1)
        assert result.stderr.startswith("error: stdout")
        assert "No space left on device" in result.stderr
    else:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", EXIT_BROKEN_PIPE)


@pytest.mark.slow
def test_a_stdout_that_was_closed_before_the_start_costs_what_is_printed_alone():
    code = "import sys; from preprocessing.command import exit_code; sys.exit(exit_code(lambda: print('a word')))"
    command = f'exec "{sys.executable}" -c "{code}" >&-'
    result = subprocess.run(command, shell=True, cwd=PROJECT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
