"""Dataclass fields as flags of a command line. Imports nothing heavy."""

from __future__ import annotations

import argparse
import dataclasses


def option(default, help: str, **flag):
    """A dataclass field with its --help text and argparse's own options (choices, type, metavar)."""
    return dataclasses.field(default=default, metadata={"help": help, **flag})


def changed(settings: type, field: str, default):
    """A field of a settings class with another default, for a subclass of it."""
    return dataclasses.field(default=default, metadata=settings.__dataclass_fields__[field].metadata)


def flag_name(field: str) -> str:
    """`batch_size` as `--batch-size`."""
    return "--" + field.replace("_", "-")


def as_flag(field: str, value) -> str:
    """A setting as it is written on the command line."""
    if isinstance(value, bool):
        return flag_name(field if value else f"no_{field}")
    return f"{flag_name(field)} {','.join(map(str, value)) if isinstance(value, list | tuple) else value}"


def integers(text: str) -> list[int]:
    """Parse `300,300,128`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 300,300,128, got {text!r}") from None


def levels(text: str) -> str | list[int]:
    """Parse `all`, `last` or `0,2`."""
    try:
        indices = text if text in ("all", "last") else integers(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected all, last or indices such as 0,2, got {text!r}") from None
    if len(set(indices)) < len(indices) and text not in ("all", "last"):
        raise argparse.ArgumentTypeError(f"expected each index once, got {text!r}")
    return indices
