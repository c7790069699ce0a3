"""How it looks: text and pictures of traces. Matplotlib is loaded when a picture is made."""

from dlsim.report.plots import gantt, occupancy, run_picture
from dlsim.report.text import configuration, faster, run_text, side_by_side, verdict

__all__ = [
    "configuration",
    "faster",
    "gantt",
    "occupancy",
    "run_picture",
    "run_text",
    "side_by_side",
    "verdict",
]
