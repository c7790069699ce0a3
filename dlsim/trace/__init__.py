"""What happened: traces, metrics, event log, files."""

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
