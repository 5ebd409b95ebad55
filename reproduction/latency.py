"""The scoring times behind the table of latency, measured in one process of its own and kept as records."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from experiment.record import git_state
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from reproduction.processes import one_thread
from reproduction.records import PROJECT, Records, read_json_lines

FILE = "latency.jsonl"


def update_latency(records: Records, device: str) -> None:
    """Measure all models anew, by turns in one process with one thread; times of two runs are not comparable."""
    # A process of its own, since the number of threads and the memory of this one are not a benchmark's.
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / FILE
        command = [sys.executable, "-m", "benchmark.scoring_time", "--device", device, "--json", str(output)]
        if subprocess.run(command, cwd=PROJECT, env=one_thread()).returncode:
            raise UserError("benchmark.scoring_time: expected it to end, it failed (see above).")
        lines = [json.dumps(record | {"git": git_state()}) for record in read_json_lines(output)]
    write_atomically(records.folder / FILE, ("\n".join(lines) + "\n").encode())


def read_latency(records: Records) -> list[dict]:
    """The records of the last measurement; none where there was none."""
    return read_json_lines(records.folder / FILE)
