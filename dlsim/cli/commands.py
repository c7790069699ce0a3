"""The commands. To add one, write it here or in a file beside, and list it in `COMMANDS`.

A command that reads scenarios takes `changes`, the keys given as options, and hands them to
`scenario_from`. What is heavy is imported by the command that uses it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.calibration import calibrate
from dlsim.cli.checking import held
from dlsim.cli.comparison import compare
from dlsim.cli.diagnosis import diagnose
from dlsim.cli.files import (
    check_drawable,
    check_folder,
    check_trace,
    check_traceable,
    check_writable,
    report_run,
    scenario_from,
    simulated,
    simulated_job,
)
from dlsim.cli.keys import keys
from dlsim.cli.loaders import loaders
from dlsim.cli.new import new
from dlsim.cli.observing import observe
from dlsim.cli.page import report
from dlsim.cli.parsing import NO_CHANGES, Changes, Command, File, Flag, OutFile, Text
from dlsim.cli.pipelines import pipeline
from dlsim.cli.renting import rent
from dlsim.cli.serving import serve
from dlsim.cli.sweeping import sweep
from dlsim.cli.teaching import teach
from dlsim.cli.validation import validate
from dlsim.cli.whatif import advise, explain, share_of

if TYPE_CHECKING:
    from dlsim.trace import JobTrace, Trace


def run(
    scenario: Annotated[Positional[Path], arg(metavar="SCENARIO")],
    *,
    seed: int = 0,
    engine: Literal["auto", "simpy", "compiled"] = "auto",
    out: OutFile = None,
    csv: File = None,
    plot: File = None,
    trace: File = None,
    profiles: File = None,
    verbose: Annotated[Flag, arg(aliases=["-v"])] = False,
    max_stall: Text = None,
    check: Flag = False,
    changes: Changes = NO_CHANGES,
) -> None:
    """Simulate a loader: how fast it is, how long training waits for it, and what limits it.

    Example: dlsim run scenarios/imagenet_a100.toml --loader.num-workers 16 --plot run.png

    Every key of the scenario is an option, too: --loader.prefetch-factor 4, --torch 2.6,
    --consumer.step "0.2 s", --dataset.fetch.0.cpu.mean "5 ms". All keys: dlsim keys.

    Args:
        scenario: A TOML file that describes the dataset, the loader, and the training step.
        seed: What all random times follow from.
        engine: How to simulate; auto takes the best.
        out: Write the whole trace here, as NPZ, for dlsim compare or NumPy.
        csv: Write a table here, one row for each batch, which dlsim report reads, too.
        plot: Draw the run here: who did what when, and how full the buffer was.
        trace: Write Chrome Trace Event JSON here (.json, .json.gz), which Perfetto opens.
        profiles: Of a job: write a profile of each rank into this folder, as torch.profiler does,
            for HolisticTraceAnalysis.
        verbose: First tell every event: what is sent, fetched, received and returned when.
        max_stall: The share of the time that training may be idle: 0.05 or 5%.
        check: End with status 1 where a target is missed, an error ends it, or it does not fit.
    """
    most = share_of("max-stall", max_stall)
    chosen = scenario_from(scenario, changes)
    check_trace(out)
    check_writable(csv)
    check_drawable(plot)
    check_traceable(trace)
    wanted = verbose or out is not None or trace is not None
    if chosen.is_job and chosen.job.rank is None:
        if profiles is not None:
            check_folder(profiles)
        job = simulated_job(chosen, seed, engine, samples=wanted)
        if verbose:
            tell_ranks(job)
        report_run(job, out, csv, plot, trace, profiles)
        if check or most is not None:
            from dlsim.trace import job_overflow

            fits = job_overflow(job) is None and job.meta.problem is None
            held(check, fits=fits, stall=dlsim.summarize(job).stall, max_stall=most)
        return
    if profiles is not None:
        raise dlsim.DlsimError("--profiles: are of the ranks of a job, and there is none")
    from dlsim.trace import stall
    from dlsim.trace.columns import in_files
    from dlsim.whatif.space import space

    with in_files():
        found = simulated(chosen, seed, engine, samples=wanted)
        if verbose:
            tell(found)
        report_run(found, out, csv, plot, trace)
        fits = not check or (space(chosen, found).fits is not False and found.meta.problem is None)
        held(check, fits=fits, stall=stall(found), max_stall=most)


def tell_ranks(job: JobTrace) -> None:
    """Tell every event of every rank, one after another."""
    for rank, trace in enumerate(job.ranks):
        print(f"rank {rank}")
        tell(trace)


def tell(trace: Trace) -> None:
    """Tell every event."""
    from dlsim.trace.narration import narrated

    for lines in narrated(trace):
        print("\n".join(lines), end="\n" if lines else "")
    print()


def schema() -> None:
    """Print the JSON Schema of scenario files, for editors that check TOML as it is typed.

    Example: dlsim schema > scenario.schema.json
    """
    print(json.dumps(dlsim.schema(), indent=2))


COMMANDS: tuple[Command, ...] = (
    new,
    run,
    sweep,
    explain,
    advise,
    rent,
    report,
    diagnose,
    observe,
    calibrate,
    validate,
    compare,
    loaders,
    pipeline,
    keys,
    serve,
    teach,
    schema,
)
