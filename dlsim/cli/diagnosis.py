"""`dlsim diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.files import check_torch, check_trace, is_profile, kept, watching
from dlsim.cli.parsing import Count, Flag, OutFile
from dlsim.cli.progress import tell, working
from dlsim.cli.stepping import step_of
from dlsim.cli.whatif import quantity_of, share_of
from dlsim.scenario import DlsimError
from dlsim.scenario.units import duration

OTHERS = "simulating other settings"


def diagnose(
    target: Annotated[Positional[str], arg(metavar="TARGET")],
    *,
    step: str = "0 s",
    batches: Count = None,
    seconds: str = "15 s",
    max_stall: str = "5%",
    split: Flag = False,
    no_try: Flag = False,
    seed: int = 0,
    jobs: int = 1,
    out: OutFile = None,
) -> None:
    """Say what is wrong with your own DataLoader, and what to set, in about a minute.

    Example: dlsim diagnose train.py:make_loader --step "50 ms"

    The loader is watched at work, then simulated with other settings; what is advised is tried.
    Nothing of yours is changed. Needs torch.

    Args:
        target: A DataLoader, or a function that makes one, as module:name or file.py:name.
            Or a run that dlsim observe or diagnose wrote (.npz),
            or a profile of torch.profiler (.json, .json.gz).
        step: Sleep so long for each batch, in place of the training step.
            Or call with each batch what train.py:step names.
        batches: Watch so many batches at most.
        seconds: Watch so long at most.
        max_stall: The share of the time that training may wait.
        split: The workers share an iterable-style dataset among them, however many they are.
        no_try: Do not run the loader with what is advised.
        seed: What all random times follow from.
        jobs: How many processes simulate; -1 for one on each core.
        out: Write the run that was watched here, as NPZ, also when interrupted.
    """
    if is_profile(Path(target)):
        print(of_profile(Path(target), max_stall, seed, jobs))
        return
    check_torch("diagnose")
    from dlsim import validation

    _, training = step_of("diagnose", step)
    limit = quantity_of("seconds", seconds, "duration")
    check_trace(out)
    options: dict[str, Any] = {
        "max_stall": share_of("max-stall", max_stall),
        "split": split,
        "seed": seed,
        "jobs": jobs,
    }
    if target.endswith(".npz"):
        with working(OTHERS):
            found = validation.diagnose_run(dlsim.load_trace(target), **options)
        print(found)
        return
    loader = validation.load_target(target)
    then = "" if no_try else "; simulating and trying other settings takes another minute or so"
    tell(f"watching the loader for {duration(limit or 0.0)} at most{then}")
    with kept(out), watching(target) as advance:
        seen = validation.observe(
            loader, step=training, batches=batches, seconds=limit, progress=advance
        )
    if out is not None:
        dlsim.save(seen, out)
    alone = None
    if not no_try:
        with watching(target) as advance:
            alone = validation.one_thread_each(seen, loader, step=training, progress=advance)
    with working(OTHERS):
        found = validation.diagnose_run(seen, alone=alone, **options)
    if found.changes and not no_try:
        tell("trying what is advised")
        with watching(target) as advance:
            found = validation.try_out(found, loader, step=training, progress=advance)
    print(found)


def of_profile(path: Path, max_stall: str, seed: int, jobs: int) -> str:
    """The diagnosis of a profile: its waits, what can be read off them, and what would help."""
    from dlsim.report import run_text
    from dlsim.trace import read_profiler
    from dlsim.validation import fit_profile
    from dlsim.whatif import advise, explain

    profile = read_profiler(path)
    said = run_text(profile)
    try:
        fitted = fit_profile(profile)
    except DlsimError as error:
        return f"{said}\n\n{error}"
    stall = share_of("max-stall", max_stall)
    with working(OTHERS):
        advice = advise(fitted.scenario, max_stall=stall, seed=seed, jobs=jobs)
        found = explain(fitted.scenario, None, seed, jobs=jobs)
    return f"{said}\n\n{fitted}\n\n{found}\n\n{advice}"
