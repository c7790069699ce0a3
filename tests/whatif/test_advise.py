from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim.engine.progress import watched
from dlsim.scenario import Machine, Storage
from dlsim.trace import summarize
from dlsim.whatif import WhatIfError, advise, replicate
from dlsim.whatif.candidates import Candidate, candidates, pareto, with_throughput
from dlsim.whatif.cheapest import search
from dlsim.whatif.endings import ended_by
from dlsim.whatif.feasibility import FIRST, Judge
from dlsim.whatif.question import Question
from dlsim.whatif.searching import searching
from dlsim.whatif.targets import Target
from tests.benchmarks.advice import question, wrong
from tests.whatif.cases import CASES


def scenario(
    read: Any = dlsim.Constant(1.0),  # noqa: B008 (a frozen value)
    step: float = 0.5,
    length: int = 400,
    loader: dict[str, Any] | None = None,
    **changes: Any,
) -> dlsim.Scenario:
    """Batches of 2 samples of 1 s, steps of 0.5 s: four workers keep up, in the long run."""
    return dlsim.Scenario(
        loader=dlsim.Loader(**{"batch_size": 2} | (loader or {})),
        dataset=dlsim.MapDataset(
            length,
            fetch=[dlsim.Stage("read", wait=read)],
            sample_bytes=dlsim.Constant(1000.0),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(step)),
        **changes,
    )


def test_the_cheapest_that_holds() -> None:
    """With constant costs the advice is the number of workers that arithmetic gives."""
    found = advise(scenario(), max_stall=0.05)
    assert found.chosen is not None
    assert found.chosen.keywords == "num_workers=4, prefetch_factor=1"
    assert (found.verdict.holds, found.verdict.probability) == (True, 1.0)
    assert found.verdict.held == found.verdict.runs
    lines = str(found).splitlines()
    assert lines[0] == "num_workers=4, prefetch_factor=1"
    assert lines[1] == (
        "With these, training is idle 2.0 % of the time (wanted: at most 5.0 %). "
        "Nothing is random: one run tells."
    )
    assert lines[2].startswith(
        "It fits nearly everywhere: batches on their way take up to 7.81 KiB"
    )


@pytest.mark.parametrize(
    ("target", "workers"),
    [
        ({"max_epoch": 210.0}, 2),
        ({"min_au": 0.9}, 4),
        ({"max_wait_p95": 0.6}, 3),
        ({"max_epoch": 500.0}, 0),
        ({"max_epoch": 210.0, "min_au": 0.9}, 4),
    ],
)
def test_targets(target: dict[str, float], workers: int) -> None:
    """Each target, and several at once, are held by the advice, and by no fewer workers."""
    found = advise(scenario(), **target)
    assert found.chosen is not None
    assert found.chosen.workers == workers
    summary = summarize(dlsim.simulate(found.chosen.scenario)).as_dict()
    for one in found.targets:
        assert one.excess(np.array([summary[one.metric]])) <= 0


def test_what_it_costs_is_told() -> None:
    """At 3.6 an hour, an epoch of 102 s costs 0.102, and a run of two of them twice that."""
    found = advise(scenario(machine=Machine(price_per_hour=3.6), epochs=2), max_stall=0.05)
    assert found.times == pytest.approx((102.0, 204.0))
    assert "A million samples cost 255, an epoch 0.102, the whole run 0.204." in str(found)


def test_margin() -> None:
    """The margin says which wrong inputs the advice survives."""
    margin = advise(scenario(), max_stall=0.05).margin
    assert {name: verdict.holds for name, verdict in margin.items()} == {
        "loading 20 % slower": False,
        "loading 20 % faster": True,
        "steps 20 % shorter": False,
        "steps 20 % longer": True,
    }


def test_what_is_best_is_near_the_best() -> None:
    """Where only one configuration fits, it is as fast as any, whatever chance does to its runs."""
    read, machine = dlsim.Gamma(1.0, 2.0), Machine(shm=1900.0)
    found = advise(scenario(read, length=40, machine=machine))
    assert found.chosen is not None
    assert found.chosen.keywords == "num_workers=0"
    assert found.verdict.held == found.verdict.runs


def test_margin_of_what_is_as_fast_as_any() -> None:
    """With longer steps all settings are slower; what keeps up is still as fast as any."""
    margin = advise(scenario(step=1.0)).margin
    assert {name: verdict.holds for name, verdict in margin.items()} == {
        "loading 20 % slower": False,  # two workers had just kept up
        "loading 20 % faster": True,
        "steps 20 % shorter": False,
        "steps 20 % longer": True,
    }


def test_the_price_of_any_order_is_told() -> None:
    """Who is told in_order=False is told what it costs."""
    slow = dlsim.Mixture((dlsim.Constant(0.1), dlsim.Constant(8.0)), (0.95, 0.05))
    found = advise(scenario(slow), min_au=0.8, workers=[4])
    assert found.chosen is not None
    assert found.chosen.keywords.endswith("in_order=False")
    assert "in_order=False: the order of batches depends on timing" in str(found)


def test_unreachable() -> None:
    """Of an unreachable target, the best that can be reached is said, and what is in the way."""
    slow = scenario(
        dlsim.Constant(0.0),
        machine=Machine(storage=Storage(bandwidth=1000.0)),
    )
    slow = dlsim.replace(slow, {"dataset.fetch.0.read_bytes": 1000})
    found = advise(slow, max_stall=0.05)
    assert found.explanation is not None
    assert (found.chosen, found.explanation.limit) == (None, "storage")
    lines = str(found).splitlines()
    assert lines[0].startswith("No settings reach it: training is idle at most 5.0 % of the time. ")
    assert " % for storage" in lines[2]
    assert "storage twice as fast would help most: " in lines[2]


def test_met_by_chance_is_not_met() -> None:
    """A target at the very mean of what is simulated is met by every other run, and not held."""
    noisy = scenario(dlsim.Exponential(1.0), length=40, loader={"num_workers": 2})
    mean = float(replicate(noisy, 2000, 7)["epoch_time"].mean())
    judge = Judge((Target("epoch_time", mean),), 0.95, 40, 1, 0, 1)
    found = judge.verdict(noisy)
    assert (found.holds, found.decided, found.runs) == (False, False, 40)
    assert 5 < found.held < 35


def test_replications_go_where_they_decide() -> None:
    """A configuration far from its limit is judged from few runs, a close one from many."""
    noisy = scenario(dlsim.Exponential(1.0), length=40, loader={"num_workers": 2})
    mean = float(replicate(noisy, 500, 7)["epoch_time"].mean())

    def runs(limit: float) -> int:
        return Judge((Target("epoch_time", limit),), 0.95, 160, 1, 0, 1).verdict(noisy).runs

    assert runs(2 * mean) <= 6
    assert runs(0.5 * mean) <= 6
    assert runs(1.03 * mean) > 10


def test_memory_limits() -> None:
    """No configuration is advised whose batches on their way take more memory than there is."""
    found = advise(scenario(), max_epoch=120.0, max_memory=7000.0)
    assert found.best.memory <= 7000
    assert (found.chosen, found.best.workers) == (None, 3)
    small = scenario(machine=Machine(shm=8000.0))
    assert all(option.memory <= 8000 for option in candidates(small, range(9), (1, 2, 4)))
    with pytest.raises(WhatIfError, match=r"^memory: expected at least 3.91 KiB for batches"):
        advise(scenario(), max_stall=0.1, max_memory=100.0)


def test_pareto_front() -> None:
    """The front has only what no other configuration beats in throughput, workers and memory."""

    def option(workers: int, prefetch: int, throughput: float) -> Candidate:
        one = Candidate(workers, prefetch, True, scenario())
        return with_throughput(one, throughput)

    all_of_them = [option(1, 1, 1.0), option(1, 2, 1.5), option(2, 1, 1.5), option(2, 2, 2.0)]
    all_of_them += [option(3, 1, 1.4), option(3, 2, 2.005)]
    slowest = all_of_them[-1]
    assert slowest not in pareto(all_of_them)
    assert slowest in pareto(all_of_them, slowest)
    front = [(o.workers, o.prefetch) for o in pareto(all_of_them)]
    assert front == [(1, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_stall": "5%"}, "max_stall: expected a share from 0 to 1, got '5%'"),
        ({"max_stall": 5.0}, "max_stall: expected a share from 0 to 1, got 5.0"),
        ({"max_epoch": -1.0}, "max_epoch: expected seconds, at least 0, got -1.0"),
        ({"max_stall": 0.1, "workers": []}, "workers: expected integers of at least 0, got []"),
    ],
)
def test_bad_questions(arguments: dict[str, Any], message: str) -> None:
    """What cannot be asked is refused in one line."""
    with pytest.raises(WhatIfError) as error:
        advise(scenario(), **arguments)
    assert str(error.value) == message


def test_advice_is_the_best_by_brute_force() -> None:
    """In random scenarios the advice is the true best, or within 1 % of it.

    `python -m tests.benchmarks.advice` looks at hundreds of them.
    """
    assert [wrong(question(seed)) for seed in range(4)].count("") >= 3


def test_reads_that_vary_want_a_larger_window_and_no_order() -> None:
    """Of lognormal reads, four workers that may return in any order need more than one ahead."""
    case = scenario(dlsim.Lognormal(0.1, 1.5), 0.02, 200, {"batch_size": 1})
    found = advise(case, workers=range(5))
    assert found.chosen is not None
    assert (found.best.workers, found.best.in_order) == (4, False)
    assert found.best.prefetch >= 4
    assert found.speed.mean > 36.5


def test_pinning_is_found() -> None:
    """Where receiving in next() is what training waits for, a thread that pins does it."""
    case = scenario(
        dlsim.Constant(0.01),
        0.1,
        100,
        {"batch_size": 1, "num_workers": 2},
        costs=dlsim.Costs(receive=dlsim.scenario.Cost(message=0.03)),
    )
    found = advise(case, max_stall=0.05)
    assert found.chosen is not None
    assert found.best.keywords == "num_workers=1, prefetch_factor=1, pin_memory=True"
    assert found.verdict.means["stall"] == pytest.approx(0.004, abs=0.0005)
    assert "what pinning takes is not stated (costs.pin)" in str(found)
    pause = dlsim.replace(case, {"consumer.device": "pause"})
    assert advise(pause, max_stall=0.05).best.keywords == "num_workers=0"
    done = dlsim.replace(case, {"loader.pin_memory": True})
    assert not any(option.switches for option in candidates(done, range(4), (1, 2)))


def test_what_misses_least_is_the_best() -> None:
    """Of a target out of reach, the settings that lose least are named, and the limit is told."""
    case = scenario(dlsim.Constant(60.0), 1.0, 400)
    found = advise(case, max_stall=0.05)
    assert (found.chosen, found.best.workers) == (None, 64)
    assert "More than 64 workers were not tried." in str(found)
    few = advise(case, max_stall=0.05, workers=range(17))
    assert (few.chosen, few.best.workers) == (None, 16)
    assert "More than 16 workers were not tried." in str(few)


def test_repeated_samples_are_no_throughput() -> None:
    """Where every worker yields all, more of them are no faster: distinct samples count."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=10, num_workers=4),
        dataset=dlsim.IterableDataset(
            1000, sharding="none", fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))]
        ),
    )
    found = advise(case, workers=range(5))
    assert found.best.workers <= 1
    assert found.speed.mean == pytest.approx(100, rel=0.01)
    assert "distinct samples/s" in str(found)
    assert (
        "With a part for each worker, num_workers=4, prefetch_factor=1 would be 4 times as fast."
        in (str(found))
    )


def test_a_target_that_repeated_work_holds() -> None:
    """Two workers that both yield all hold a stall with twice the work: parts are offered."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=10, num_workers=4),
        dataset=dlsim.IterableDataset(
            1000, sharding="none", fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.01))]
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.05)),
    )
    for target in ({"max_stall": 0.1}, {"min_au": 0.9}, {"max_wait_p95": 0.001}):
        found = advise(case, workers=range(5), **target)
        assert found.chosen is not None
        assert found.best.keywords == "num_workers=2, prefetch_factor=1"
        said = "With a part for each worker, num_workers=2, prefetch_factor=1 would be 2 times"
        assert said in str(found)
    alone = str(advise(case, workers=range(5), max_stall=0.6))
    assert alone.startswith("num_workers=1, ")
    assert "a part for each worker" not in alone


def test_what_more_room_would_bring_is_said() -> None:
    """Where /dev/shm leaves out the settings that are faster, how much it would take is named."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=8, num_workers=1, prefetch_factor=100),
        dataset=dlsim.MapDataset(
            80,
            fetch=[dlsim.Stage("read", wait=dlsim.Constant(0.1))],
            sample_bytes=dlsim.Constant(5e6),
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.5)),
        machine=dlsim.Machine(shm=64 * 2**20),
    )
    found = advise(case, workers=range(5))
    assert found.best.workers == 0
    assert "/dev/shm keeps back more: it has 64 MiB" in str(found)
    enough = dlsim.replace(case, {"machine.shm": 2**40})
    assert "keeps back" not in str(advise(enough, workers=range(5)))


def test_the_search_goes_on_where_16_workers_are_too_few() -> None:
    """A target that takes 20 workers is reached, where nobody said that there are at most 16."""
    case = scenario(dlsim.Constant(10.0), 1.0, 400)
    found = advise(case, max_epoch=250.0)
    assert found.chosen is not None
    assert 16 < found.best.workers < 24
    assert "were not tried" not in str(found)
    few = advise(case, max_epoch=250.0, workers=range(17))
    assert few.chosen is None
    assert "More than 16 workers were not tried." in str(few)


def test_what_must_be_programmed_is_said_apart() -> None:
    """Short epochs begin with an empty pipeline: what an endless sampler would bring is said."""
    said = str(advise(CASES["short epochs"], workers=range(5)))
    assert said.startswith("num_workers=3, ")
    assert "With a sampler that does not end, num_workers=4, " in said
    assert "With even shares, " in str(advise(CASES["uneven shards"]))


def test_errors_with_other_settings_are_named() -> None:
    """Who is told to do without workers, as a timeout strikes with them, is told that."""
    said = str(advise(CASES["a timeout that strikes"], workers=range(5)))
    assert said.startswith("num_workers=0")
    assert "runs end early: DataLoader timed out after 2.0 seconds." in said


def test_settings_whose_runs_all_end_early() -> None:
    """Where an error ends the runs of all settings, none is advised, and the error is named."""
    for target in ({}, {"max_stall": 1.0}):
        found = advise(CASES["a timeout that strikes"], workers=[1, 2], **target)
        assert found.chosen is None
        first, *others = str(found).splitlines()
        assert first.startswith("No settings reach it: ")
        assert first.endswith(" Of all that were tried, runs end early.")
        assert any("DataLoader timed out after 2.0 seconds." in line for line in others)


def test_settings_that_fail_are_not_the_nearest() -> None:
    """What misses a target is nearer to it than what an error ends before it can miss it."""
    quick = dlsim.Recorded([0.0] * 30 + [5.0] * 10)
    case = scenario(quick, 1.0, 40, {"batch_size": 1, "num_workers": 1, "timeout": 1.5})
    found = advise(case, workers=[0, 1], max_stall=0.1)
    assert found.chosen is None
    assert found.best.workers == 0


def test_the_error_of_a_run_that_fails_is_named() -> None:
    """Of runs that an error ends now and then, that error is named, whichever run it ends."""
    read = dlsim.Mixture((dlsim.Constant(0.1), dlsim.Constant(9.0)), (0.9, 0.1))
    case = scenario(read, 0.1, 10, {"batch_size": 1, "num_workers": 1, "timeout": 2.0})
    seed = next(seed for seed in range(20) if ended_by(case, seed) == "")
    assert "timed out" in str(advise(case, workers=[0, 1], seed=seed, maximum=9))


def test_flags_for_the_workers_that_are_set() -> None:
    """Where another number of workers is best, what flags gain with that which is set is said."""
    said = str(advise(CASES["workers started for each epoch"], workers=range(5)))
    assert "With num_workers=4, prefetch_factor=2, as it is set, persistent_workers=True" in said


def test_what_would_help_is_said_without_a_target() -> None:
    """Where training is idle with the fastest settings, advice says why, as `explain` does."""
    said = str(advise(CASES["as many workers as cores"], workers=range(9)))
    assert "two together do: twice the workers (num_workers=16) and twice the cores" in said


def test_batch_sizes() -> None:
    """Batch sizes are chosen from where they are asked for: large ones save messages."""
    case = scenario(dlsim.Constant(0.01), 0.0, 400, costs=dlsim.Costs(index_put=0.1))
    found = advise(case, workers=[2], batch_sizes=[2, 20])
    assert found.best.keywords.startswith("batch_size=20, num_workers=2, prefetch_factor=")
    assert "The step is 0 s on average whatever the batch size; consumer.step_per" in str(found)
    grown = dlsim.replace(case, {"consumer.step_per_sample": "1 ms"})
    said = str(advise(grown, workers=[2], batch_sizes=[2, 20]))
    assert "A step takes 1 ms for each sample of the batch." in said
    assert "batch_size" not in advise(case, workers=[2]).best.keywords
    with pytest.raises(WhatIfError, match="batch_sizes: expected integers of at least 1"):
        advise(case, batch_sizes=[0])


def test_ranks_that_share_a_node_are_told_from_one_alone() -> None:
    """Of a job that takes long to simulate, few settings are: one rank alone tells which."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=50),
        dataset=dlsim.MapDataset(40_000, fetch=[dlsim.Stage("decode", cpu=dlsim.Gamma(0.01, 1.0))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(0.2)),
        machine=dlsim.Machine(cores=16),
        job=dlsim.scenario.Job(ranks=4),
    )
    found = advise(case, workers=range(7), maximum=2)
    assert found.best.workers == 3
    every = replicate(case, 2, measured=lambda run: {"speed": summarize(run).samples_per_s})
    assert found.speed.mean > every["speed"].mean()


def test_what_does_not_fit_was_tried() -> None:
    """Where memory leaves out larger settings, that is said, and not that none were tried."""
    read = dlsim.Constant(0.1)
    case = scenario(read, 0.05, 200, machine=Machine(memory=8000.0))
    said = str(advise(case, max_stall=0.1))
    assert "Memory keeps back more: it has 7.81 KiB, and with " in said
    assert "were not tried" not in said


def test_a_search_is_announced_for_each_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short runs are, each of its ranks is looked at; and one takes longer than it does."""
    monkeypatch.setattr("dlsim.engine.effort.installed", lambda: False)
    priors = []
    for ranks in (1, 4):
        job = dlsim.replace(scenario(length=24 * ranks), {"job.ranks": ranks})
        with watched() as known, searching(job, Question()):
            priors.append(known.prior)
    assert priors[1] == pytest.approx(4 * priors[0], rel=0.2)
    assert priors[0] > 0.2


def test_where_nothing_is_random_each_is_simulated_once() -> None:
    """Settings of which no speed is known, as no time passes, are not simulated again for that."""
    case = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=4),
        dataset=dlsim.IterableDataset(40, sharding="litdata"),
        costs=dlsim.Costs(worker_start=0.01, receive=dlsim.scenario.Cost(message=0.001)),
    )
    found = search(case, Question(workers=tuple(range(4))))
    assert found.judge.simulated <= FIRST * len(found.options)
    assert found.best.keywords == "num_workers=0"


def noisy_workers() -> tuple[dlsim.Scenario, float]:
    """A short run whose reads vary, and what its epoch takes on average with two workers."""
    noisy = scenario(dlsim.Exponential(1.0), length=40)
    two = dlsim.replace(noisy, {"loader.num_workers": 2})
    return noisy, float(replicate(two, 400, 7)["epoch_time"].mean())


def test_a_search_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """All simulations of an answer together have a limit, and what is undecided then is said."""
    noisy, mean = noisy_workers()
    question: dict[str, Any] = {"max_epoch": mean, "workers": [2, 3], "prefetch": [2]}
    usual = advise(noisy, **question)
    assert not usual.undecided
    monkeypatch.setattr("dlsim.whatif.feasibility.ALL", 500.0)
    found = advise(noisy, **question)
    assert found.judged < 40 < usual.judged
    assert (found.chosen, found.undecided) == (None, True)
    assert str(found).startswith("No settings are known to reach it: ")
    assert "The search ended at its own limit: others may reach it." in str(found)


def test_a_search_that_ended_does_not_go_on_to_more_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is undecided is no miss: nothing more is simulated for it than its first runs."""
    case = scenario(dlsim.Gamma(10.0, 3.0), 1.0, 400)
    monkeypatch.setattr("dlsim.whatif.feasibility.ALL", 1000.0)
    found = advise(case, max_epoch=250.0)
    assert found.undecided
    assert found.workers == tuple(range(17))


def test_without_an_answer_the_cheapest_of_the_fastest_known_is_advised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the search ends before it is sure, what is advised is as fast as any on average."""
    case = scenario(dlsim.Gamma(1.0, 1.0), length=40)
    monkeypatch.setattr("dlsim.whatif.feasibility.ALL", 10_000.0)
    found = advise(case, workers=range(9))
    assert found.undecided
    assert found.chosen is not None
    assert found.verdict.miss <= 0.005
    assert "The search ended at its own limit: others may be better." in str(found)


def test_when_the_search_ends_what_is_as_fast_as_itself_is_not_all_that_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fastest with the largest window is surely as fast as itself; a small one does as well."""
    case = dlsim.replace(dlsim.load("scenarios/imagenet_a100.toml"), {"machine.cores": 8})
    monkeypatch.setattr("dlsim.whatif.feasibility.ALL", 1000.0)
    found = advise(case, workers=[5, 6])
    assert found.undecided
    assert found.best.keywords == "num_workers=5, prefetch_factor=1"


def test_no_limit_where_a_number_of_replications_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who says how often a setting is replicated at most gets as many replications."""
    noisy, mean = noisy_workers()
    monkeypatch.setattr("dlsim.whatif.feasibility.ALL", 100.0)
    question: dict[str, Any] = {"max_epoch": mean, "workers": [2], "prefetch": [2]}
    assert advise(noisy, **question).verdict.runs == FIRST
    found = advise(noisy, **question, maximum=50)
    assert found.verdict.runs > FIRST
    assert not found.undecided


def test_of_two_rivals_one_is_decided() -> None:
    """What is surely as fast as a slow rival is held against the other one only, further on."""
    noisy = scenario(dlsim.Exponential(1.0), length=40)
    mine, slow, alike = (
        dlsim.replace(noisy, {"loader.num_workers": workers}) for workers in (3, 1, 4)
    )
    judge = Judge((), 0.95, 200, 1, 0, 1)
    target = Target("distinct_per_s", 1.0, at_most=False, rivals=(slow, alike))
    found = judge.verdict(mine, (target,))
    assert found.runs > 10
    assert len(judge.samples_per_s(slow)) <= 6
    assert len(judge.samples_per_s(alike)) == len(judge.samples_per_s(mine)) == found.runs


def test_settings_that_do_the_same_are_looked_at_once() -> None:
    """Of a window, or of workers, for more batches than there are, only the least is simulated."""
    case = scenario(dlsim.Gamma(1.0, 0.5), length=16)  # eight batches
    found = search(case, Question(workers=tuple(range(17)), prefetch=(1, 2, 4, 8)))
    windows = [(o.workers, o.prefetch) for o in found.options if o.in_order]
    assert windows[1:] == [
        *((1, factor) for factor in (1, 2, 4, 8)),
        *((2, factor) for factor in (1, 2, 4)),
        *((workers, factor) for workers in (3,) for factor in (1, 2, 4)),
        *((workers, factor) for workers in (4, 5, 6, 7) for factor in (1, 2)),
        (8, 1),
    ]
    alike = dlsim.replace(case, {"loader.num_workers": 3, "loader.prefetch_factor": 4})
    more = dlsim.replace(alike, {"loader.prefetch_factor": 8})
    assert np.array_equal(dlsim.simulate(alike).returned, dlsim.simulate(more).returned)
    ten = dlsim.replace(case, {"loader.num_workers": 10})
    eight = dlsim.replace(case, {"loader.num_workers": 8, "loader.prefetch_factor": 1})
    assert np.array_equal(dlsim.simulate(ten).returned, dlsim.simulate(eight).returned)
