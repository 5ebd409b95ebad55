"""The scoring times behind the table of latency, measured in one process of its own and kept as records."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from preprocessing.files import write_atomically
from reproduction.records import PROJECT, Records, read_json_lines
from training.report import git_state

FILE = "latency.jsonl"


def update_latency(records: Records, device: str) -> None:
    """Measure all models anew, by turns in one process with one thread; times of two runs are not comparable."""
    # A process of its own, since the number of threads and the memory of this one are not a benchmark's.
    command = [sys.executable, "-m", "benchmark.scoring_time", "--device", device, "--json"]
    output = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    lines = [json.dumps(json.loads(line) | {"git": git_state()}) for line in output.splitlines()]
    write_atomically(records.folder / FILE, ("\n".join(lines) + "\n").encode())


def read_latency(records: Records) -> list[dict]:
    """The records of the last measurement; none where there was none."""
    return read_json_lines(records.folder / FILE)
