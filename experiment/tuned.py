"""What searches found: settings as data, by dataset, protocol and model (tune.py writes them, under results/tuned/)."""

from __future__ import annotations

import json
from pathlib import Path

from experiment.code_version import PROJECT

FOUND = PROJECT / "results" / "tuned"
# Under paper a label leaks into the features of its own row: a search there would choose what reads the leak best.
SEARCHED_AS = {"paper": "strict"}


def tuned_settings(data_name: str, protocol: str, found: Path = FOUND) -> dict[str, dict]:
    """The settings that were found for each model; empty where nothing was searched.

    Args:
        data_name: the data's own name, such as amazon-Beauty_5.
    """
    return {model: study["settings"] for model, study in studies(data_name, protocol, found).items()}


def studies(data_name: str, protocol: str, found: Path = FOUND) -> dict[str, dict]:
    """What is known of the search of each model: `settings`, `trials`, `core_hours`, ...; as `tuned_settings`."""
    path = found / f"{data_name}-{SEARCHED_AS.get(protocol, protocol)}.json"
    return json.loads(path.read_text()) if path.exists() else {}
