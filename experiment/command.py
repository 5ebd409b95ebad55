"""How a training script starts and ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from experiment.folder import check_output
from experiment.settings import TrainingSettings, parse_settings
from preprocessing.command import exit_code, number_of_process, read_command_line
from training.device import resolve_device
from training.group import process_group


def read_settings(settings: type, presets: dict[str, dict] | None = None) -> TrainingSettings:
    """A training script's settings, checked, from the command line; leaves with code 2 on a mistake."""
    description = (sys.modules["__main__"].__doc__ or "").split("\n")[0]

    def parse(words: list[str]) -> TrainingSettings:
        chosen = parse_settings(settings, words, presets or {}, description)
        chosen.check()
        check_output(chosen)
        return chosen

    if number_of_process()[1] > 1:  # torch, not imported yet, would warn that all parameters are used, which is well
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return read_command_line(parse)


def run_script(main: Callable[[TrainingSettings], None], settings: TrainingSettings) -> int:
    """Run a training script's `main`; returns the exit code."""

    def checked_main() -> None:
        device = resolve_device(settings.device)
        with process_group(device):
            main(settings)

    return exit_code(checked_main, "with --resume the same command goes on from the last checkpoint, if there is one.")
