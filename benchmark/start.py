"""How long a command takes to answer `--help`, beside `import torch`.

    python -m benchmark.start

Each is a process of its own; what is shown is its processor time, the median of several, and its share of
`import torch`'s.
"""

from __future__ import annotations

import argparse
import sys

from preprocessing.command import Parser, exit_code, positive, read_command_line


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=positive, default=5, help="processes of each command (default 5)")
    return parser.parse_args(words)


if __name__ == "__main__":
    arguments = read_command_line(parse)  # before the imports below: the one rule for every command

import os
import resource
import statistics
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TORCH = ("-c", "import torch")


def commands() -> list[tuple[str, ...]]:
    """The words behind `python` of every command of the project: its scripts, and its modules that read a line."""
    scripts = [path.name for path in sorted(PROJECT.glob("*.py"))]
    modules = [
        path.relative_to(PROJECT).with_suffix("").as_posix().replace("/", ".")
        for path in sorted(PROJECT.glob("*/*.py"))
        if "read_command_line(" in path.read_text() and path.parent.name != "tests"
    ]
    by_module = [("-m", name) for name in modules if name not in ("preprocessing.command", "experiment.command")]
    return [(script,) for script in scripts] + by_module


def processor_seconds(words: tuple[str, ...]) -> float:
    """What a process took of the processor, its own time and the system's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], cwd=PROJECT, env=os.environ, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: argparse.Namespace) -> None:
    """Print a line per command."""
    torch_seconds = statistics.median(processor_seconds(TORCH) for _ in range(arguments.repeats))
    print(f"{'command':48}{'processor time':>16}{'of import torch':>18}")
    print(f"{'python -c import torch':48}{torch_seconds:14.3f} s{1:18.0%}")
    for words in commands():
        seconds = statistics.median(processor_seconds((*words, "--help")) for _ in range(arguments.repeats))
        name = "python " + " ".join(words) + " --help"
        print(f"{name:48}{seconds:14.3f} s{seconds / torch_seconds:18.0%}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(arguments)))
