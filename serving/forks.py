"""torch in a forked child, as a server makes it that loads a run and then forks its workers (gunicorn --preload).

A fork copies no threads. torch would wait for ever for those of its parent, so a child is put on one thread, and is
refused where it asks for more. Children that are spawned have threads of their own.
"""

from __future__ import annotations

import os

import torch

from preprocessing.errors import UserError

_is_forked = False


def _put_on_one_thread() -> None:
    global _is_forked
    _is_forked = True
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(after_in_child=_put_on_one_thread)


def check_threads() -> None:
    """Raise UserError, instead of waiting for ever, in a forked child that has set more than one thread."""
    if _is_forked and torch.get_num_threads() > 1:
        raise UserError(
            f"torch: expected one thread in a forked process, which has none of its parent's, got "
            f"{torch.get_num_threads()}; keep to torch.set_num_threads(1), or start workers by spawn."
        )
