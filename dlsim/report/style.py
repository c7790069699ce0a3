"""What all pictures have in common: colours, axes, titles, names, legends.

Matplotlib is loaded when a function is called that needs it.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from dlsim.scenario.errors import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind people tell apart.
WAIT, STEP, FETCH = "#D55E00", "#009E73", "#56B4E9"
READY, CREDIT = "#0072B2", "#E69F00"
BARRIER = "#F0E442"

LONGEST_LABEL = 48  # characters
LONGEST_LINE = 28  # of a label beside an axis: wide letters, too, leave room on a phone's screen
TITLE_SIZE, TITLE_LINES = 10, 4  # points, and how many lines at most
PER_INCH = 11  # characters of a title


def axes(width: float, height: float) -> Axes:
    """The axes of a new figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots()


def plain(text: str) -> str:
    """A name as a picture shows it: between two dollars, matplotlib would see a formula."""
    return text.replace("$", r"\$")


def title(text: str, inches: float = 10.0) -> str:
    """What is written above a picture of so many inches, in lines that fit."""
    width = int(PER_INCH * inches)
    return plain(fill(cut(text, TITLE_LINES * width), width))


def label(text: str) -> str:
    """A name in a legend, which leaves room for the picture."""
    return plain(cut(text, LONGEST_LABEL))


def row_label(text: str) -> str:
    """A name beside an axis, in lines that leave room for the picture."""
    return plain(fill(cut(text, LONGEST_LABEL), LONGEST_LINE))


def legend(ax: Axes, entries: list[tuple[str, str]], title: str = "") -> None:
    """A legend above the axes, out of the data's way."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=label(name)) for name, colour in entries]
    ax.legend(
        handles=handles,
        title=title,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        borderaxespad=0.1,
    )
