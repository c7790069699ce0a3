"""The loops that accelerate and Lightning put around torch's loader: their own code, unmodified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from math import inf
from typing import Any, Protocol

from torch.utils.data import DataLoader

from dlsim.scenario import Scenario, ScenarioError
from dlsim.scenario.errors import lacking

PACKAGES = "accelerate", "lightning"


class Looped(Protocol):
    """What the training loop iterates over in each epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Begin an epoch."""

    def close(self) -> None:
        """Training is over."""


class Plain:
    """The loader itself; where an iterator is rebound, the old one lives until the new one does."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def close(self) -> None:
        """The iterator has closed its workers when it was dropped."""


class Fetcher:
    """Lightning's data fetcher, called as its training loop or its evaluation loop calls it.

    `limit`: the most batches of the next epoch, if there is such a number.
    """

    limit: int | None = None

    def __init__(self, loader: DataLoader[Any], *, evaluates: bool) -> None:
        from lightning.pytorch.utilities.combined_loader import CombinedLoader

        self.evaluates = evaluates
        self.loader = CombinedLoader(loader, "sequential" if evaluates else "max_size_cycle")
        self.fetcher: Any = None

    def __iter__(self) -> Iterator[Any]:
        from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher

        fetcher = self.fetcher
        if fetcher is None or self.evaluates:
            fetcher = _PrefetchDataFetcher()
            self.loader.limits = [inf if self.limit is None else self.limit]
            fetcher.setup(self.loader)
        iter(fetcher)
        self.fetcher = fetcher
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        while not self.fetcher.done:
            try:
                batch, _, _ = next(self.fetcher)
            except StopIteration:
                return
            yield batch

    def close(self) -> None:
        """What the trainer does at its end."""
        self.fetcher.teardown()


class Stateful(Plain):
    """torchdata's loader, which keeps its iterator, and may go on from a state."""

    def close(self) -> None:
        """Let go of the iterator, and so of its workers."""
        self.loader._iterator = None


def stateful_loader() -> Any:
    """torchdata's StatefulDataLoader. Raises `ScenarioError` where it is not installed."""
    if find_spec("torchdata") is None:
        raise ScenarioError(lacking("loader.stateful", "torchdata", "oracles"))
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader


def of_rank(scenario: Scenario) -> Callable[[Any], Any]:
    """What accelerate makes of an iterable-style dataset on one rank of a job.

    Raises `ScenarioError` where it is not installed.
    """
    if find_spec("accelerate") is None:
        raise ScenarioError(lacking("job.deal: kept", "accelerate", "oracles"))
    from accelerate.data_loader import IterableDatasetShard

    return partial(
        IterableDatasetShard,
        batch_size=scenario.loader.batch_size,
        drop_last=scenario.loader.drop_last,
        num_processes=scenario.job.world,
        process_index=scenario.job.rank,
    )


def looped(
    scenario: Scenario, make: Callable[..., DataLoader[Any]], *, evaluates: bool = False
) -> tuple[Looped, Any]:
    """The loop of the scenario around the loader of torch that `make` makes, and that loader.

    `evaluates`: whether it is that of validation. Raises `ScenarioError` where the package that has
    the loop is not installed.
    """
    loop = scenario.consumer.loop
    if loop == "thread":
        raise ScenarioError("consumer.loop: expected one without threads of its own, got thread")
    if loop in PACKAGES and find_spec(loop) is None:
        raise ScenarioError(lacking(f"consumer.loop: {loop}", loop, "oracles"))
    if loop == "accelerate":
        from accelerate.data_loader import DataLoaderShard

        shard: Any = make(DataLoaderShard)
        return Plain(shard), shard.base_dataloader
    if scenario.loader.stateful:
        loader = make(stateful_loader())
        return Stateful(loader), loader
    loader = make(DataLoader)
    if loop == "lightning":
        return Fetcher(loader, evaluates=evaluates), loader
    return Plain(loader), loader
