"""A run that ends before its time leaves the terminal as it found it: no half a bar stands in the last line."""

import io
import os
import signal
import sys

import numpy as np
import pytest
import torch
from models import ALL_COLUMNS, random_features, random_labels, small_model

from preprocessing.errors import UserError
from preprocessing.tables import Table
from training.errors import Interrupted, NonFiniteLoss
from training.trainer import Trainer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def last_line(self) -> str:
        """What stands in the line that the cursor is in: a carriage return writes over it from its start."""
        line = ""
        for part in self.getvalue().rsplit("\n", 1)[-1].split("\r"):
            line = part + line[len(part) :]
        return line


def stop(model) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def lose_its_weights(model) -> None:
    with torch.no_grad():
        model.bias.fill_(torch.nan)


def fail(model) -> None:
    raise UserError("a fault in the third batch")


@pytest.mark.parametrize(
    ("happens", "error"), [(stop, Interrupted), (lose_its_weights, NonFiniteLoss), (fail, UserError)]
)
def test_no_bar_is_left_in_the_last_line(happens, error, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    model, num_batches = small_model("LR"), iter(range(100))
    model.register_forward_pre_hook(lambda module, _: happens(module) if next(num_batches) == 3 else None)
    table = Table(random_features(ALL_COLUMNS, 64), random_labels(64), np.zeros(64, np.int32), np.arange(64))
    with pytest.raises(error):
        Trainer(model, batch_size=8).fit(table)
    assert "epoch 1: " in terminal.getvalue()  # there was a bar
    assert terminal.last_line().strip() == ""
