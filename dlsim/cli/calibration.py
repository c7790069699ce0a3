"""`dlsim calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.files import check_torch, check_writable, is_profile, is_written, scenario_from
from dlsim.cli.parsing import Count, Number, Text, UsageError
from dlsim.cli.progress import working
from dlsim.cli.whatif import quantity_of

Runs: TypeAlias = Annotated[
    Positional[tuple[Path, ...]], arg(metavar="[RUN ...]", help_behavior_hint="")
]


def calibrate(
    runs: Runs = (),
    *,
    out: Annotated[Path, arg(metavar="FILE", aliases=["-o"])],
    throughput: Annotated[Text, arg(metavar="W=RATE,...")] = None,
    batch_size: int = 32,
    cores: Number = None,
    sample_bytes: Text = None,
    step: Text = None,
    num_workers: Count = None,
) -> None:
    """Turn runs that were observed, a profile, or a few throughputs, into a scenario.

    Example: dlsim calibrate run.npz -o scenario.toml

    Args:
        runs: Traces that dlsim observe wrote, of the same loader; the first one's settings count.
            That of a job makes a job's scenario.
            Or one profile of torch.profiler (.json, .json.gz).
        out: Write the scenario here, as TOML.
        throughput: Samples a second by workers instead of runs, as 0=517,2=844,8=1275.
            With other batch sizes as 8@128=1340, which tell how the step grows.
        batch_size: The batch size of the throughputs that name none, and of the scenario.
        cores: The cores of the machine of the throughputs.
        sample_bytes: The size of a sample of theirs, as "600 KB", to know what fits.
        step: The training step for each batch that they were measured with, as "65 ms".
            Not given: one is fitted, if the table has 0 workers and asks for it.
        num_workers: How many workers were profiled, where the profile does not tell.
    """
    from dlsim import validation

    check_writable(out)
    if bool(runs) == (throughput is not None):
        raise UsageError("calibrate: expected either runs or --throughput")
    if throughput is None and (cores, sample_bytes, step) != (None, None, None):
        raise UsageError(
            "calibrate: --cores, --sample-bytes and --step go with --throughput; runs tell"
        )
    profiles = [run for run in runs if is_profile(run)]
    if profiles and len(runs) > 1:
        raise UsageError(f"calibrate: expected one profile, or observed runs, got {len(runs)}")
    if num_workers is not None and not profiles:
        raise UsageError("calibrate: --num-workers goes with a profile; runs tell")
    if profiles:
        scenario = scenario_from(runs[0], {}, profile=True, num_workers=num_workers)
    elif throughput is not None:
        size = quantity_of("sample-bytes", sample_bytes, "size")
        stated = {} if size is None else {"sample_bytes": size}
        rates, measured = table(throughput), quantity_of("step", step, "duration")
        with working("fitting"):
            fitted = validation.fit_throughput(
                rates, batch_size=batch_size, cores=cores, step=measured, **stated
            )
        scenario = fitted.scenario
        print(fitted)
    else:
        check_torch("calibrate")  # what moving batches costs here is tried out
        from dlsim.trace import load_run
        from dlsim.trace.job import ranks_of
        from dlsim.validation.calibrating.accounts import checked

        traces = [load_run(run) for run in runs]
        for run, trace in zip(runs, traces, strict=True):
            for rank in ranks_of(trace):
                checked(rank, str(run))
        with working("finding out what moving batches costs here"):
            found = validation.calibration(*traces)
            doubts = validation.predict(found, {}).doubts
        scenario = found.scenario
        for name, fit in found.fits.items():
            print(f"{name}: {fit}")
        for assumed in dict.fromkeys(run.meta.notes.get("assumed") for run in traces):
            if assumed:
                print(f"assumed: {assumed}")
        for check in (*found.checks, *(found.alone.checks if found.alone else ())):
            print(check)
        if found.memory:
            print(found.memory)
        if str(doubts):
            print(f"an epoch's time is {doubts}")
    dlsim.dump(scenario, out)
    print(is_written(out))


def table(text: str) -> dict[int | tuple[int, int], float]:
    """The throughputs in `0=517,2=844,2@128=900`; raises `UsageError` for anything else."""
    wanted = "calibrate: --throughput: expected"
    try:
        parts = [part.split("=") for part in text.split(",")]
        pairs = [(setting(where), float(rate)) for where, rate in parts]
    except ValueError:
        raise UsageError(f"{wanted} such as 0=517,2=844,8=1275, got {text!r}") from None
    if len(dict(pairs)) < len(pairs):
        raise UsageError(f"{wanted} each number of workers once, got {text!r}")
    return dict(pairs)


def setting(text: str) -> int | tuple[int, int]:
    """The workers in `2`, with the batch size in `2@128`; raises `ValueError` for anything else."""
    workers, at, size = text.partition("@")
    return (int(workers), int(size)) if at else int(workers)
