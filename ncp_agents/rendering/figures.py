"""What all plots share: colours, the style of axes, and how they are saved."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write

# Okabe and Ito's palette, safe for colour-blind readers; the most distinct first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def style_axes(axes: Axes) -> None:
    """Draw a faint grid behind the data, and no box."""
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def check_picture_path(picture: Path) -> None:
    """Check that a path ends in .png.

    Raises:
        UserError: another ending.
    """
    if picture.suffix.lower() != ".png":
        raise UserError(f"picture {picture} ends in {picture.suffix!r}, expected .png")


def save_figure(figure: Figure, picture: Path, dpi: int = 120) -> None:
    """Write a PNG of 256 colours, whole or not at all; the same figure gives the same bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, facecolor="white")
    with Image.open(drawn) as image, atomic_write(picture) as temporary:
        # A third of the size. Median cut, the default, would lose rare colours: a single point's.
        few = image.convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        few.save(temporary, format="PNG", optimize=True)
