"""Loaders that cannot be watched: why, in one line, and what can be watched in their place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from types import GeneratorType
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterDataPipe, MapDataPipe
from torch.utils.data.dataloader import _BaseDataLoaderIter

from dlsim.scenario import DlsimError


class ObserveError(DlsimError):
    """A loader that cannot be watched."""


def check(loader: object) -> None:
    """Raise `ObserveError` unless `loader` can be watched."""
    if not isinstance(loader, DataLoader):
        raise ObserveError(f"loader: {no_loader(loader)}")
    if isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
        raise ObserveError("loader: datapipes cannot be watched, as torch takes them apart")
    context = loader.multiprocessing_context
    if context is not None and not issubclass(context.Process, BaseProcess):
        raise ObserveError(
            f"loader: {named(loader)} cannot be watched: its workers are no processes (see its "
            ".multiprocessing_context); watch one whose workers are"
        )
    if running := iterators(loader) - {"_iterator"}:
        raise ObserveError(
            f"loader: {named(loader)} cannot be watched: its workers already run (see its "
            f".{running.pop()}); {way_out(loader)}"
        )
    if running := iterators(loader.dataset):
        raise ObserveError(
            f"loader: cannot be watched: its dataset, {named(loader.dataset)}, has a loader of its "
            f"own (see its .{running.pop()}); watch that one"
        )


def iterators(found: object) -> set[str]:
    """The attributes of `found` that are iterators over a torch DataLoader."""
    inside = getattr(found, "__dict__", {})
    return {name for name, each in inside.items() if isinstance(each, _BaseDataLoaderIter)}


def check_handed_on(loader: DataLoader[Any], taken: int, given: int, *, here: bool) -> None:
    """Raise `ObserveError` unless the loader has given each batch as it got it, and no other.

    What its `next()` and the training step take can be told apart only then. It has `taken` so many
    batches, all of them `here`, in the thread of the loop, and has `given` so many.
    """
    if taken < given:
        why = "its __iter__ is not DataLoader's"
        if taken:
            why = "its __iter__ makes several batches of one"
    elif not here:
        why = "a thread of its own takes batches"
    elif taken > given:
        why = f"its __iter__ has taken {taken - given + 1} batches where it gives the next"
    else:
        return
    raise ObserveError(
        f"loader: {named(loader)} cannot be watched: {why}; {way_out(loader)}"
        + (" (consumer.loop says what is read ahead of the training loop)" if taken > given else "")
    )


def check_alone(loader: DataLoader[Any], before: Collection[BaseProcess]) -> None:
    """Raise `ObserveError` where there are more processes than `before` and the loader's workers.

    What these do is not seen, and a loader that only waits for them seems to do nothing.
    """
    more = len(set(active_children()) - set(before)) - loader.num_workers
    if more > 0:
        dataset = full_name(loader.dataset.__class__)  # of one that is watched, the user's
        raise ObserveError(
            f"loader: cannot be watched: its dataset, {dataset}, loads by {more} "
            f"process{'es' if more > 1 else ''} of its own; watch the loader that has these"
        )


def named(found: object) -> str:
    """The class of what was `found`, with its module: many are called DataLoader."""
    return full_name(type(found))


def full_name(kind: type) -> str:
    """The name of a class, with its module unless it is Python's own or the script's."""
    known = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if known else f"{kind.__module__}.{kind.__qualname__}"


def no_loader(found: object) -> str:
    """That what was `found` is no DataLoader, and what can be watched in its place."""
    said = f"expected a torch DataLoader, got {named(found)}"
    if found is None:
        return f"{said}; end it with `return` and the loader"
    if inside := held(found):
        return f"{said}; its {inside} is one that can be watched"
    if isinstance(found, GeneratorType):
        return f"{said}; watch the loader that it takes its batches from"
    if isinstance(found, Dataset):
        return f"{said}; watch one over it"
    batches = hasattr(found, "__iter__") or hasattr(found, "__getitem__")
    if batches and type(found).__module__ != "builtins":
        return f"{said}; watch one with the same dataset"
    return said


def way_out(loader: object) -> str:
    """What can be watched in place of a `loader` that cannot."""
    inside = held(loader)
    if inside:
        return f"watch its {inside}, a plain one"
    return "watch a torch DataLoader with the same arguments"


def held(found: object) -> str:
    """Where in `found` a DataLoader is, as `.name`, `[0]` or `.name['key']`; "" for nowhere."""
    here = [*parts(found)]
    for name, value in getattr(found, "__dict__", {}).items():
        here += [(f".{name}", value)]
        here += [(f".{name}{place}", each) for place, each in parts(value)]
    return next((place for place, each in here if isinstance(each, DataLoader)), "")


def parts(found: object) -> Iterator[tuple[str, object]]:
    """What is in a container, and where."""
    if isinstance(found, (list, tuple)):
        yield from ((f"[{place}]", each) for place, each in enumerate(found))
    elif isinstance(found, Mapping):
        yield from ((f"[{key!r}]", each) for key, each in found.items())
