"""The processes that torchrun starts, as one group. Imports nothing heavy, for who is alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from preprocessing.command import number_of_process
from preprocessing.errors import Stopped, UserError

if TYPE_CHECKING:
    import torch

# What torch says, in a plain RuntimeError, where another process does not answer any more.
_GONE = (
    "Connection closed",
    "Connection reset",
    "Broken pipe",
    "recvValue failed",
    "remote process exited",
    "imed out",
)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Within the block the processes that torchrun started exchange what they have: by nccl on CUDA, else by gloo.

    Raises Stopped where one of them is gone.
    """
    if number_of_process()[1] == 1:
        yield
        return
    if missing := {"RANK", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys():
        raise UserError(f"WORLD_SIZE: expected {', '.join(sorted(missing))} beside it, got none; start it by torchrun.")
    import torch
    from torch import distributed

    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    except RuntimeError as error:
        if not any(text in str(error) for text in _GONE):
            raise
        raise Stopped(
            "another process has ended; with --resume the same command goes on from the last checkpoint, if there is "
            "one."
        ) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
