"""How every figure here is drawn: black and greys that survive a printer, and files that appear whole."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from preprocessing.files import write_atomically

DPI = 150


def grid(axes: Axes) -> None:
    """A light grid behind the data, no frame on the right and above."""
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and close it."""
    image = io.BytesIO()
    # No date and no version of the library in the file: the same records give the same bytes.
    figure.savefig(image, format="png", dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    write_atomically(path, image.getvalue())
