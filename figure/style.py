"""How every figure here is drawn: black and greys that survive a printer, and files that appear whole.

matplotlib takes most of a second to import, so it waits until a figure is drawn.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from preprocessing.errors import UserError
from preprocessing.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 150


def subplots(*arguments, **options):
    """A figure and its axes, as pyplot gives them; drawn without a screen. Raises UserError without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UserError(f"a figure: expected matplotlib, got {error}; pip install -r requirements.txt.") from error
    except OSError as error:
        raise UserError(
            f"a figure: expected a folder that matplotlib can write to, got none ({error}); name one with "
            "MPLCONFIGDIR=FOLDER before the command."
        ) from error

    return pyplot.subplots(*arguments, layout="constrained", **options)


def grid(axes: Axes) -> None:
    """A light grid behind the data, no frame on the right and above."""
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and close it."""
    from matplotlib import pyplot

    image = io.BytesIO()
    # No date and no version of the library in the file: the same records give the same bytes.
    figure.savefig(image, format="png", dpi=DPI, metadata={"Software": None})
    pyplot.close(figure)
    write_atomically(path, image.getvalue())
