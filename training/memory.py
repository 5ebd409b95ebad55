"""The process's memory: how much it took, and how the C library hands it out."""

import ctypes
import os
import re
import sys
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks of any size instead of returning them to the system.

    A training step allocates and frees many times what it takes: activations of about 16 MB, and a gradient as large as
    each embedding table. Returned blocks come back as fresh pages that the kernel must clear first: with 80 million
    embedding weights that is a third of a step. The setting holds for the whole process, up to 2 GiB of freed memory.
    True where it took effect (glibc only); harmless elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def peak_memory_bytes() -> int | None:
    """The largest resident size of this process so far; None where the system does not tell (Windows)."""
    if sys.platform.startswith("linux"):
        # getrusage has what the process was started by among its own.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    try:
        import resource
    except ImportError:
        return None
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes if sys.platform == "darwin" else kibibytes * 1024


def current_memory_bytes() -> int | None:
    """The resident size of this process now; None where the system does not tell (all but Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_gpu_memory_bytes(device: torch.device) -> int | None:
    """The most that tensors took on a CUDA device so far; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
