"""What happened: traces, metrics, event log, files.

In: the moments of every batch, from an engine, a file, or a run that was watched
(`observation.py`). Out: whatever one wants to know of them. Read `trace.py`, then `metrics.py` and
`stays.py`, which `summary.py` puts together; `causes.py` and `account.py` say where the time went,
`critical_path.py` and `walk.py` what each second hung on. `memory.py` says whether it fits,
`log.py` and `narration.py` tell it event by event, `files.py`, `tables.py` and `chrome.py` write
it down. Of jobs, the same in `job.py` and the files named after it.
"""

from dlsim.trace.account import Account, account
from dlsim.trace.chrome import write_chrome
from dlsim.trace.difference import difference
from dlsim.trace.files import load_trace, save
from dlsim.trace.job import JobTrace, Meetings, meetings
from dlsim.trace.job_files import (
    load_job,
    load_run,
    save_job,
    write_job_chrome,
    write_profiles,
)
from dlsim.trace.job_memory import job_overflow
from dlsim.trace.job_metrics import Lateness, lateness
from dlsim.trace.job_profiles import read_job_chrome, read_profiles
from dlsim.trace.levels import Levels
from dlsim.trace.log import events
from dlsim.trace.memory import Memory, memory
from dlsim.trace.metrics import (
    accelerator_utilisation,
    batches_per_second,
    busy,
    elapsed,
    epoch_times,
    first_batch,
    samples_per_second,
    stall,
    steps,
    waits,
    worker_utilisation,
)
from dlsim.trace.narration import narrate
from dlsim.trace.overflow import Overflow, overflow
from dlsim.trace.profiler import read_profiler
from dlsim.trace.stays import buffer, buffer_bytes, credit, head_of_line, held
from dlsim.trace.summary import Summary, summarize
from dlsim.trace.tables import read_csv, write_csv, write_job_csv
from dlsim.trace.trace import (
    MOMENTS,
    STATUSES,
    Epochs,
    Meta,
    Problem,
    Samples,
    Trace,
    TraceError,
)

__all__ = [
    "MOMENTS",
    "STATUSES",
    "Account",
    "Epochs",
    "JobTrace",
    "Lateness",
    "Levels",
    "Meetings",
    "Memory",
    "Meta",
    "Overflow",
    "Problem",
    "Samples",
    "Summary",
    "Trace",
    "TraceError",
    "accelerator_utilisation",
    "account",
    "batches_per_second",
    "buffer",
    "buffer_bytes",
    "busy",
    "credit",
    "difference",
    "elapsed",
    "epoch_times",
    "events",
    "first_batch",
    "head_of_line",
    "held",
    "job_overflow",
    "lateness",
    "load_job",
    "load_run",
    "load_trace",
    "meetings",
    "memory",
    "narrate",
    "overflow",
    "read_csv",
    "read_job_chrome",
    "read_profiler",
    "read_profiles",
    "samples_per_second",
    "save",
    "save_job",
    "stall",
    "steps",
    "summarize",
    "waits",
    "worker_utilisation",
    "write_chrome",
    "write_csv",
    "write_job_chrome",
    "write_job_csv",
    "write_profiles",
]
