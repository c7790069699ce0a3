"""Whether the parts of a scenario fit each other, as torch and what is simulated ask for.

What is amiss in one part alone is found when that part is made; here is what takes two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs

from dlsim.scenario.checks import check_conflict, check_indices
from dlsim.scenario.dataset import IterableDataset, MapDataset
from dlsim.scenario.dealing import batches, shard
from dlsim.scenario.distributions import Recorded
from dlsim.scenario.errors import ScenarioError, require
from dlsim.scenario.job import Job
from dlsim.scenario.machine import UNLIMITED

if TYPE_CHECKING:
    from dlsim.scenario.model import Scenario

SHORTEST_TIMEOUT = 1e-3  # seconds, where timeouts are caught: each of them is kept


def check_fit(scenario: Scenario) -> None:
    """Raise `ScenarioError` where the parts of `scenario` do not fit each other."""
    release = scenario.torch_release
    loader, dataset = scenario.loader, scenario.dataset
    check_conflict(
        not loader.in_order and release < (2, 6),
        "loader.in_order",
        f"torch {scenario.torch} has no such keyword; it came with 2.6",
    )
    _check_errors(scenario)
    if loader.stateful:
        _check_stateful(scenario)
    if isinstance(dataset, IterableDataset):
        _check_iterable(scenario, dataset)
    else:
        check_conflict(
            dataset.batched and release < (1, 13),
            "dataset.batched",
            f"torch {scenario.torch} does not call __getitems__; 1.13 was the first to",
        )
        _check_indices(scenario, dataset)
    for where, distribution in _recorded(scenario):
        if (
            where == "consumer.step"
            or where == "dataset.collate"
            or isinstance(dataset, IterableDataset)
        ):
            continue  # how many batches there will be is known when they are
        needed = 0 if isinstance(dataset, MapDataset) and dataset.batched else dataset.length
        require(
            len(distribution.values) >= needed,
            where,
            f"{needed} values, one for each dataset index",
            distribution.values,
        )
    if scenario.is_job:
        _check_job(scenario)
    if scenario.validation is not None:
        _check_validation(scenario)


def _check_iterable(scenario: Scenario, dataset: IterableDataset) -> None:
    loader = scenario.loader
    for key in ("shuffle", "sampler", "batch_sampler", "endless"):
        value = getattr(loader, key)
        require(
            value is None or value is False,
            f"loader.{key}",
            "nothing: an iterable-style dataset has no sampler",
            value,
        )
    require(
        loader.dispatch in ("turns", "dealt"),
        "loader.dispatch",
        "turns or dealt, as each worker has its own part of an iterable-style dataset",
        loader.dispatch,
    )
    if isinstance(dataset.sharding, tuple):
        dealt = 1 if scenario.job.reads_all else scenario.job.world
        wanted = max(loader.num_workers, 1) * dealt
        require(
            len(dataset.sharding) == wanted,
            "dataset.sharding",
            f"{wanted} lengths, one for each worker{' of each rank' if dealt > 1 else ''}; or, "
            'of files that are dealt to any number, dataset.sharding = "none" and '
            "dataset.shards = these lengths",
            dataset.sharding,
        )


def _check_errors(scenario: Scenario) -> None:
    """Refuse loops that catch errors for ever, or for about as long."""
    if scenario.consumer.on_error != "continue":
        return
    loader = scenario.loader
    check_conflict(
        scenario.consumer.loop not in ("plain", "rebind"),
        "consumer.on_error",
        f'expected stop, as loop = "{scenario.consumer.loop}" gives nothing after an error, '
        "got continue",
    )
    check_conflict(
        0 < loader.timeout < SHORTEST_TIMEOUT,
        "loader.timeout",
        f'expected at least {SHORTEST_TIMEOUT} s where consumer.on_error = "continue", '
        f"got {loader.timeout}",
    )
    failures = {failure.where for failure in scenario.failures}
    check_conflict(
        isinstance(scenario.dataset, IterableDataset) and "worker_init_fn" in failures,
        "consumer.on_error",
        "expected stop, as a worker whose worker_init_fn failed never says that its part of an "
        "iterable-style dataset has ended, got continue",
    )
    check_conflict(
        loader.endless and bool(failures),
        "consumer.on_error",
        "expected stop, as an endless sampler (loader.endless) may fail for ever, got continue",
    )


def _check_stateful(scenario: Scenario) -> None:
    """Refuse what torchdata's loader cannot, and what is not known of it."""
    loader, dataset = scenario.loader, scenario.dataset
    check_conflict(
        scenario.consumer.loop not in ("plain", "rebind"), "loader.stateful", "needs a plain loop"
    )
    check_conflict(
        scenario.consumer.on_error == "continue",
        "loader.stateful",
        'needs consumer.on_error = "stop": after an exception StatefulDataLoader\'s snapshots fail',
    )
    if isinstance(dataset, IterableDataset):
        check_conflict(
            loader.resume > 0 and scenario.costs.snapshot > 0,
            "loader.resume",
            "goes on without the state of an iterable-style dataset, and costs.snapshot saves one",
        )
        workers, size = loader.num_workers, loader.batch_size or 1
        every = range(max(workers, 1))
        lengths = [len(shard(dataset, scenario.job, w, loader)) for w in every]
        there = sum(n // size if loader.drop_last else -(-n // size) for n in lengths)
    else:
        there = loader.batches(dataset.length)
    require(
        loader.resume <= there,
        "loader.resume",
        f"at most the batches of an epoch ({there})",
        loader.resume,
    )
    check_conflict(scenario.is_job and loader.resume > 0, "loader.resume", "needs a single rank")


def _check_indices(scenario: Scenario, dataset: MapDataset) -> None:
    loader = scenario.loader
    check_conflict(
        loader.shuffle and dataset.length == 0,
        "loader.shuffle",
        "expected false, as torch refuses to shuffle an empty dataset, got true",
    )
    if loader.sampler is not None:
        check_indices("loader.sampler", loader.sampler, dataset.length)
    for batch in loader.batch_sampler or ():
        check_indices("loader.batch_sampler", batch, dataset.length)
    check_conflict(
        loader.endless and loader.batches(dataset.length) == 0,
        "loader.endless",
        "needs a sampler that has at least one batch",
    )
    check_conflict(
        loader.endless and scenario.consumer.loop != "plain", "loader.endless", "needs a plain loop"
    )


def _check_job(scenario: Scenario) -> None:
    """That data can be dealt as the job says, and that everyone gets some."""
    loader, job, storage = scenario.loader, scenario.job, scenario.machine.storage
    iterable = isinstance(scenario.dataset, IterableDataset)
    many, whole = job.world > 1, job.deal == "batches"
    check_conflict(whole and iterable, "job.deal", "batches needs a map-style dataset")
    if job.deal == "kept":
        needs = "kept needs an iterable-style dataset and loader.batch_size"
        check_conflict(not iterable or loader.batch_size is None, "job.deal", needs)
    if job.dispatches:
        _check_dispatched(scenario)
    check_conflict(
        many and job.deal == "distributed" and loader.batch_sampler is not None,
        "job.deal",
        "distributed excludes loader.batch_sampler; batches of it can be dealt",
    )
    check_conflict(
        whole and loader.batch_sampler is None and loader.batch_size is None,
        "job.deal",
        "batches needs loader.batch_size",
    )
    check_conflict(
        whole and job.even_batches and loader.batch_sampler is not None,
        "job.even_batches",
        "needs loader.batch_size; set it to false to deal a batch_sampler",
    )
    check_conflict(
        job.remote and structs.replace(storage, cache=0.0) != UNLIMITED,
        "job.storage",
        "is read in place of machine.storage, of which only the cache may be set",
    )
    if many and not iterable and not job.reads_all:
        last = batches(loader, scenario.dataset, job, job.world - 1)
        first = batches(loader, scenario.dataset, Job(), 0)
        require(
            last > 0 or first == 0,
            "job.ranks" if job.nodes == 1 else "job.nodes",
            f"no more ranks than an epoch has batches ({first})",
            job.world,
        )


def _check_dispatched(scenario: Scenario) -> None:
    """That the loop is the one that deals, and that there is something to deal."""
    loader, job = scenario.loader, scenario.job
    loop = scenario.consumer.loop
    needs = f'dispatched needs consumer.loop = "accelerate", got "{loop}"'
    check_conflict(loop != "accelerate", "job.deal", needs)
    hosts = scenario.consumer.run_ahead > 0 or scenario.consumer.overlap_copy
    check_conflict(
        hosts,
        "job.deal",
        "dispatched needs consumer.run_ahead = 0 and overlap_copy = false, as how far hosts run "
        "ahead of broadcasts is not known",
    )
    check_conflict(scenario.validation is not None, "job.deal", "dispatched excludes validation")
    check_conflict(
        job.split_batches and (loader.batch_size or 1) % job.world != 0,
        "job.split_batches",
        f"needs a loader.batch_size that {job.world} ranks can share equally",
    )
    require(
        batches(loader, scenario.dataset, job, 0) > 0,
        "job.deal",
        "data for at least one round of batches, which accelerate fails without",
        job.deal,
    )


def _check_validation(scenario: Scenario) -> None:
    """That validation could run by itself, and that training does not go on meanwhile."""
    check_conflict(
        scenario.consumer.on_error == "continue",
        "validation",
        'needs consumer.on_error = "stop"',
    )
    check_conflict(
        scenario.consumer.loop == "thread",
        "validation",
        "needs a loop that does not read ahead by a thread, which would go on meanwhile",
    )
    check_conflict(scenario.job.uneven == "join", "validation", 'excludes job.uneven = "join"')
    assert scenario.validation is not None
    check_conflict(
        getattr(scenario.validation.dataset, "download", None) is not None,
        "validation.dataset.download",
        "expected none, as the cache of files is that of training",
    )
    try:
        _ = scenario.validating
    except ScenarioError as error:
        raise ScenarioError(f"validation.{error}") from None


def _recorded(scenario: Scenario) -> list[tuple[str, Recorded]]:
    """Every `Recorded` in the scenario with its dotted key."""
    found: list[tuple[str, Any]] = [("consumer.step", scenario.consumer.step)]
    found.append(("dataset.collate", scenario.dataset.collate))
    for i, stage in enumerate(scenario.dataset.fetch):
        found += [
            (f"dataset.fetch.{i}.wait", stage.wait),
            (f"dataset.fetch.{i}.cpu", stage.cpu),
            (f"dataset.fetch.{i}.read_bytes", stage.read_bytes),
        ]
    return [(key, d) for key, d in found if isinstance(d, Recorded)]
