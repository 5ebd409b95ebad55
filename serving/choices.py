"""What the commands of serving share, without numpy: a command line is read before it is imported."""

from __future__ import annotations

import importlib.util
import io
import sys

from preprocessing.errors import UserError

DTYPES = ("float32", "float16", "int8")  # of an index


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def check_installed(packages: list[str], requirements: str) -> None:
    """Raise UserError where a package is missing that a requirements file lists."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise UserError(
            f"{', '.join(packages)}: expected to be installed, got no {' and no '.join(missing)}; "
            f"pip install -r {requirements}."
        )


def replace_what_cannot_be_shown() -> None:
    """From here on print a `?` for a character, as of a title, that the terminal's encoding does not have."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
