"""Datasets that let themselves be watched: each call goes through a probe, the rest as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Subset

from dlsim.validation.observing.probe import Probe


class Watched:
    """A dataset that lets itself be watched; its attributes are those of the user's dataset.

    So is its class, for `isinstance`; `type` tells the truth.
    """

    _dataset: Any
    _probe: Probe

    def __init__(self, dataset: Any, probe: Probe) -> None:
        vars(self).update(_dataset=dataset, _probe=probe)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._dataset.__class__

    def __len__(self) -> int:
        return len(self._dataset)

    def __repr__(self) -> str:
        return repr(self._dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)

    # Not __reduce__: whether there is one of its own, Python asks the class that __class__ names.
    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return type(self), (self._dataset, self._probe)


class WatchedMap(Watched):
    """A map-style dataset."""

    _whole: bool  # whether it fetches the samples of a batch at once

    def __init__(self, dataset: Any, probe: Probe) -> None:
        super().__init__(dataset, probe)
        vars(self).update(_whole=fetches_batches(dataset))

    def __getitem__(self, index: Any) -> Any:
        return self._probe.each(self._dataset, (index,))[0]

    def __getitems__(self, numbered: tuple[int, Any]) -> Any:
        """The samples of a batch, for which torch asks at once where there is this method.

        The indices come with the number of the batch, which nobody else gets to see.
        """
        batch, indices = numbered
        self._probe.take(batch)
        if self._whole:
            return self._probe.batch_of(self._dataset.__getitems__, indices)
        return self._probe.each(self._dataset, indices)


class WatchedBatches(WatchedMap):
    """A map-style dataset that is asked for a list of indices at a time, as torch's BatchSampler
    draws them where it stands for the sampler."""

    def __getitem__(self, indices: Any) -> Any:
        return self._probe.batch_of(self._dataset.__getitem__, indices)


class WatchedIterable(Watched):
    """An iterable-style dataset."""

    def __iter__(self) -> Iterator[Any]:
        return WatchedIterator(self._probe.iterating(self._dataset), self._probe)


class WatchedIterator:
    """An iterator, each `next()` of which is timed."""

    def __init__(self, iterator: Iterator[Any], probe: Probe) -> None:
        self._iterator = iterator
        self._probe = probe

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._probe.following(self._iterator)


def fetches_batches(dataset: Any) -> bool:
    """Whether torch's fetcher would find a `__getitems__` that does more than `__getitem__`.

    Torch's `Subset`, which `random_split` makes, always has one; it calls `__getitem__` in a
    loop unless what it is a subset of has one, and single samples tell more.
    """
    if type(dataset) is Subset:
        return fetches_batches(dataset.dataset)
    return bool(getattr(dataset, "__getitems__", None))
