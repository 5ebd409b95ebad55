"""Processes of this machine that train together: where they meet, and who each of them is, as torchrun says it."""

import os

from torch.distributed import TCPStore


def meeting_place() -> TCPStore:
    """A store at a port of its own, which is held while the processes run: one only found free may be taken by then."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def be_process(number: int, num_processes: int, port: int) -> None:
    """Let training/group.py find the others by what stands in this process's environment."""
    os.environ |= {"RANK": f"{number}", "LOCAL_RANK": f"{number}", "WORLD_SIZE": f"{num_processes}"}
    # As of torchrun's agent, the store is none of theirs: the first process does not start one.
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "TORCHELASTIC_USE_AGENT_STORE": "True"}
