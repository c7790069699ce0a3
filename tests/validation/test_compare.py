import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import dlsim
from dlsim import Constant, Consumer, Loader, MapDataset, Scenario, Stage, Uniform, simulate
from dlsim.validation import compare

SCENARIO = Scenario(
    loader=Loader(batch_size=2, num_workers=2),
    dataset=MapDataset(16, fetch=(Stage("read", wait=Uniform(0.5, 1.5)),)),
    consumer=Consumer(step=Constant(0.5)),
)


def shifted(trace, seconds, start=0):
    """The trace, all of whose returns from number `start` on come later."""
    late = np.where(np.arange(len(trace)) >= start, seconds, 0.0)
    return replace(trace, returned=trace.returned + late)


def test_a_run_agrees_with_itself():
    """A trace compared with itself agrees in everything, without error."""
    trace = simulate(SCENARIO, samples=True)
    found = compare(trace, trace)
    assert found.agrees
    assert found.same_order
    assert found.same_workers
    assert found.same_samples
    assert found.differences == ()
    assert {figure.error for figure in found.figures} == {0.0}
    assert (found.wasserstein, found.drift) == (0.0, 0.0)
    assert found.verdict() == (
        "The simulation schedules as seen: same order, workers and samples; total time equal."
    )


def test_samples_that_are_not_known_are_not_judged():
    """Without the samples of both, nothing is said about them."""
    one, other = simulate(SCENARIO, samples=True), simulate(SCENARIO)
    assert compare(one, other).same_samples is None
    unknown = replace(one.samples, index=np.full_like(one.samples.index, -1))
    assert compare(one, replace(one, samples=unknown)).same_samples is None
    assert compare(one, other).agrees


def test_other_samples_are_found():
    """The first batch that holds other indices is named."""
    one = simulate(SCENARIO, samples=True)
    index = one.samples.index.copy()
    index[[4, 5]] = index[[5, 4]]
    found = compare(one, replace(one, samples=replace(one.samples, index=index)))
    assert found.same_samples is False
    assert found.differences == ("batch 2 holds other samples simulated than seen",)
    assert not found.agrees


def test_another_order_is_found():
    """The first return that differs is named, and the first line says so."""
    one = simulate(SCENARIO)
    order = one.order.copy()
    order[[3, 4]] = order[[4, 3]]
    found = compare(one, replace(one, order=order))
    assert not found.same_order
    assert found.differences == ("return 3 is batch 3 simulated, batch 4 seen",)
    assert str(found).startswith(
        "The simulation schedules otherwise than seen: same workers; different order"
    )


def test_other_workers_are_counted():
    """Batches of another worker are counted, and the first is named."""
    one = simulate(SCENARIO)
    worker = one.worker.copy()
    worker[[2, 6]] = 1
    found = compare(one, replace(one, worker=worker))
    assert found.other_workers == 2
    assert found.differences == (
        "2 of 8 batches came from another worker; the first is batch 2: worker 0 simulated, 1 seen",
    )


def test_a_shorter_run_is_compared_as_far_as_it_goes():
    """Fewer batches are a difference of order; all else is compared over what both have."""
    one = simulate(SCENARIO)
    found = compare(one, replace(one, order=one.order[:5]))
    assert found.differences == ("8 batches were returned simulated, 5 seen",)
    assert found.same_workers
    assert found.drift == 0.0


def test_the_drift_is_the_largest_gap_of_timelines():
    """The timeline's worst moment is found, as a share of the epoch seen."""
    one = simulate(SCENARIO)
    found = compare(shifted(one, 0.25, start=5), one)
    assert found.drift == pytest.approx(0.25 / one.end)
    assert found.drift_at == 5


def test_waits_are_compared_as_distributions():
    """Waits that are all longer by a quarter second are that far apart."""
    one = simulate(SCENARIO)
    found = compare(shifted(one, 0.25), one)
    assert found.wasserstein == pytest.approx(0.25)
    assert found["wait mean"].error > 0


def test_times_count_from_each_runs_own_beginning():
    """A run that begins at another moment is no different."""
    one = simulate(SCENARIO)
    moments = ("sent", "started", "fetched", "arrived", "received", "requested", "returned")
    later = {name: getattr(one, name) + 100 for name in (*moments, "finished")}
    epochs = replace(
        one.epochs,
        **{name: getattr(one.epochs, name) + 100 for name in ("started", "primed", "ended")},
    )
    found = compare(replace(one, **later, epochs=epochs), one)
    assert found.drift == pytest.approx(0.0, abs=1e-9)
    assert found["total time"].error == pytest.approx(0.0, abs=1e-9)


def test_nothing_to_compare():
    """Runs that returned nothing give a report that says so, and no error."""
    empty = simulate(Scenario(loader=Loader(), dataset=MapDataset(0)))
    report = str(compare(empty, simulate(SCENARIO)))
    assert report.startswith("Nothing to compare: 0 batches returned simulated, 8 seen.")


def test_the_report_is_a_table():
    """The report shows verdict, figures side by side with errors, and the distances."""

    def run(seconds):
        fetch = (Stage("read", wait=Constant(seconds)),)
        return simulate(dlsim.replace(SCENARIO, {"dataset.fetch": fetch}))

    assert str(compare(run(0.8), run(1.0))).splitlines() == [
        "The simulation schedules as seen: same order and workers; total time 17.8 % too short.",
        "",
        "               simulated        seen     error",
        "samples/s           2.16        1.78   +21.6 %",
        "total time         7.4 s         9 s   -17.8 %",
        "epoch time         7.4 s         9 s   -17.8 %",
        "wait mean         425 ms      625 ms   -32.0 %",
        "wait p50          300 ms      500 ms   -40.0 %",
        "wait p95          1.25 s      1.65 s   -24.2 %",
        "",
        "waits: 200 ms apart (Wasserstein distance)",
        "timeline: at most 17.8 % of an epoch apart, at return 6",
    ]


def test_comparing_needs_no_torch():
    """`validation.compare` loads torch no more than `import dlsim` does."""
    code = (
        "import sys; from dlsim.validation import compare;"
        "assert 'torch' not in sys.modules and 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
