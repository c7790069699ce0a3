"""`dlsim diagnose`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

import dlsim
from dlsim.cli.files import check_torch, check_trace, is_profile, kept, watching
from dlsim.cli.parsing import NO_CHANGES, Changes, Count, Flag, OutFile, UsageError
from dlsim.cli.progress import tell, working
from dlsim.cli.stepping import step_of
from dlsim.cli.whatif import quantity_of, share_of
from dlsim.scenario import DlsimError
from dlsim.scenario.files import changed
from dlsim.scenario.units import duration

if TYPE_CHECKING:
    from dlsim.trace import Trace
    from dlsim.whatif import Advice

OTHERS = "simulating other settings"
NO_STEP, WATCHED = "0 s", "15 s"


def diagnose(
    target: Annotated[Positional[str], arg(metavar="TARGET")],
    *,
    step: str = NO_STEP,
    batches: Count = None,
    seconds: str = WATCHED,
    max_stall: str = "5%",
    split: Flag = False,
    no_try: Flag = False,
    seed: int = 0,
    jobs: int = 1,
    num_workers: Count = None,
    out: OutFile = None,
    changes: Changes = NO_CHANGES,
) -> None:
    """Say what is wrong with your own DataLoader, and what to set, in about a minute.

    Example: dlsim diagnose train.py:make_loader --step "50 ms"

    The loader is watched at work, then simulated with other settings; what is advised is tried.
    Nothing of yours is changed. Needs torch. Of a profile, keys of the scenario that is made of it
    are options, too: --machine.cores 8.

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
        num_workers: How many workers were profiled, where the profile does not tell.
        out: Write the run that was watched here, as NPZ, also when interrupted.
    """
    if is_profile(Path(target)) or target.endswith(".npz"):
        of_watching = (step != NO_STEP, batches is not None, seconds != WATCHED, out is not None)
        if any(of_watching):
            raise UsageError(
                "diagnose: --step, --batches, --seconds and --out go with a loader; "
                f"{target} is a run of one"
            )
    if is_profile(Path(target)):
        most = share_of("max-stall", max_stall)
        print(of_profile(Path(target), num_workers, changes, most, seed, jobs))
        return
    if num_workers is not None or changes:
        given = "--num-workers" if num_workers is not None else f"--{next(iter(changes))}"
        raise UsageError(f"diagnose: {given} goes with a profile; loaders and runs tell")
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
        run = dlsim.load_trace(target)
        check_watched(target, run)
        with working(OTHERS):
            found = validation.diagnose_run(run, **options)
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
    check_watched(target, seen)
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


def check_watched(target: str, seen: Trace) -> None:
    """Raise `DlsimError`, which names the target, for a run of which no diagnosis can be made."""
    from dlsim.trace.observation import Observation
    from dlsim.validation.calibrating.accounts import LEAST_BATCHES, CalibrateError, checked
    from dlsim.validation.diagnosing.search import check

    if isinstance(seen, Observation):
        check(seen, target)
    try:
        checked(seen, target)
    except CalibrateError as error:
        few = 0 < len(seen.order) < LEAST_BATCHES
        hint = "; watch several epochs: dlsim observe --epochs 5 -o run.npz, and diagnose that"
        raise DlsimError(f"{error}{hint if few else ''}") from None


def of_profile(
    path: Path,
    num_workers: int | None,
    changes: Mapping[str, str],
    max_stall: float | None,
    seed: int,
    jobs: int,
) -> str:
    """The diagnosis of a profile: what limits and what to set, and what that was read off."""
    from dlsim.report import run_text
    from dlsim.trace import read_profiler
    from dlsim.validation import fit_profile
    from dlsim.whatif import advise, explain

    profile = read_profiler(path)
    said = run_text(profile)
    try:
        fitted = fit_profile(profile, num_workers=num_workers)
    except DlsimError as error:
        if num_workers is not None:
            raise
        return f"{said}\n\n{error}"
    scenario = changed(fitted.scenario, changes)
    with working(OTHERS):
        advice = advise(scenario, max_stall=max_stall, seed=seed, jobs=jobs)
        found = explain(scenario, None, seed, jobs=jobs)
    limits, _, seen = said.partition("\n")
    return "\n".join(
        [limits, to_set(advice), seen, "", f"{fitted.told(scenario)}\n\n{found}\n\n{advice}"]
    )


def to_set(advice: Advice) -> str:
    """What to set, and what comes of it, in a line."""
    if advice.chosen is None:
        return f"{str(advice).splitlines()[0]}: {advice.results}."
    best, now = advice.best.scenario.loader, advice.scenario.loader
    word = "Keep" if (best.num_workers, best.window) == (now.num_workers, now.window) else "Set"
    return f"{word} {advice.best.keywords}: {advice.results}."
