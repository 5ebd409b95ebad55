"""What a process is told of its memory."""

import sys

import numpy as np
import pytest
from shell import run_in_process

from training.memory import current_memory_bytes, peak_memory_bytes


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system tells no more")
def test_the_peak_of_a_process_is_its_own_and_not_that_of_who_started_it():
    held = np.ones(2**27)  # 1 GiB
    assert peak_memory_bytes() >= current_memory_bytes() > held.nbytes
    result = run_in_process("-c", "from training.memory import *; print(peak_memory_bytes())")
    assert 2**20 < int(result.stdout) < held.nbytes
