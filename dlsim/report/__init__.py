"""How it looks: text and pictures of traces. Matplotlib is loaded when a picture is made.

In: traces, jobs, and answers. Out: what is printed (`text.py` first; `job_text.py`,
`sweep_text.py`, `pipeline_text.py`), drawn (`plots.py` and others named so, with the colours of
`style.py`), or read in a browser (`pages.py`, `job_pages.py`, of what `html.py` makes).
"""

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
