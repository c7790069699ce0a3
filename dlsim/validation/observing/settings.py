"""The settings of a torch loader as a scenario without durations."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from torch.utils.data import IterableDataset as TorchIterable
from torch.utils.data.distributed import DistributedSampler

from dlsim.scenario import (
    Consumer,
    DlsimError,
    IterableDataset,
    Job,
    Loader,
    MapDataset,
    Scenario,
    ScenarioError,
)
from dlsim.validation.observing import shards
from dlsim.validation.observing.assemble import Assembly
from dlsim.validation.observing.probe import COLLATED, SAMPLE
from dlsim.validation.observing.rank import Rank
from dlsim.validation.observing.records import Rows
from dlsim.validation.observing.wrapped_dataset import fetches_batches
from dlsim.validation.observing.wrapped_loader import drawn_whole, repeated

STATEFUL = "torchdata.stateful_dataloader"  # where its loader and samplers are


def settings(
    loader: DataLoader[Any],
    assembly: Assembly,
    batches: int | None,
    epochs: int,
    rank: Rank | None = None,
) -> Scenario | str:
    """The scenario of a watched run, all of whose durations are zero.

    A sampler that is neither sequential nor a shuffle becomes the indices fetched in the first
    epoch, or, where it gives no integers, as many places in a dataset of those samples; an
    iterable-style dataset the number of samples that each worker collated in it, or
    those of its files, where it is known how they are dealt. Of a
    `rank` of a job, what torch's DistributedSampler deals to it; all else is its own. Why, in a few
    words, where that was not seen, or cannot be said in a scenario.
    """
    try:
        dataset: MapDataset | IterableDataset
        sampling: dict[str, Any] = {"batch_size": loader.batch_size, "drop_last": loader.drop_last}
        if assembly.setup.iterable:
            alone = rank is None or rank.world == 1
            dataset = iterable(assembly, shards.count(loader.dataset) if alone else None)
        else:
            unnumbered = assumed(assembly) is not None
            length = seen_samples(assembly) if unnumbered else len(loader.dataset)  # type: ignore[arg-type]
            whole = drawn_whole(loader) or fetches_batches(loader.dataset)
            dataset = MapDataset(length, batched=whole)
            sampling = sampler(loader, assembly, rank)
        return Scenario(
            loader=Loader(
                **sampling,
                num_workers=loader.num_workers,
                # without an accelerator, torch pins nothing
                pin_memory=loader.pin_memory and torch.accelerator.is_available(),
                timeout=float(loader.timeout),
                multiprocessing_context=start_method(loader),
                prefetch_factor=loader.prefetch_factor,
                persistent_workers=loader.persistent_workers,
                in_order=loader.in_order,
                **snapshots(loader),
            ),
            dataset=dataset,
            consumer=Consumer(stop_after=batches),
            torch=".".join(torch.__version__.split(".")[:2]),
            epochs=epochs,
            job=job_of(loader, rank),
        )
    except (DlsimError, TypeError, NotImplementedError) as error:
        return str(error) or type(error).__name__


def length(loader: DataLoader[Any]) -> int | None:
    """The most batches that an epoch has by the loader's own word; None: it may never end.

    Of an iterable-style dataset each worker may yield all.
    """
    try:
        if not isinstance(loader.dataset, TorchIterable):
            return len(loader)
        data: Any = loader.dataset
        samples = len(data)  # that of the loader would have torch count, and warn
    except Exception:  # of a user's own `__len__`, or for want of one
        return None
    return max(loader.num_workers, 1) * -(-samples // (loader.batch_size or 1))


def snapshots(loader: DataLoader[Any]) -> dict[str, Any]:
    """What torchdata's loader is told besides; it starts its workers otherwise, too."""
    if not any(kind.__module__.startswith(STATEFUL) for kind in type(loader).__mro__):
        return {}
    return {"stateful": True, "snapshot_every_n_steps": loader.snapshot_every_n_steps}  # type: ignore[attr-defined]


def start_method(loader: DataLoader[Any]) -> Any:
    """How workers are started, by name, where the user said so."""
    context = loader.multiprocessing_context
    return None if context is None else context.get_start_method()


def job_of(loader: DataLoader[Any], rank: Rank | None) -> Job:
    """The job as `rank` has it."""
    if rank is None or rank.world == 1:
        return Job()
    job = Job(ranks=rank.ranks, nodes=rank.world // rank.ranks, deal="same", rank=rank.rank)
    dealing = dealt(loader, rank)
    if dealing is None:
        return job
    return msgspec.structs.replace(job, deal="distributed", drop_last=dealing.drop_last)


def dealt(loader: DataLoader[Any], rank: Rank | None) -> DistributedSampler[Any] | None:
    """The sampler that deals the job's data to `rank`, if it is torch's own."""
    inner = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if rank is None or type(inner) is not DistributedSampler:
        return None
    return inner if (inner.num_replicas, inner.rank) == (rank.world, rank.rank) else None


def sampler(
    loader: DataLoader[Any], assembly: Assembly, rank: Rank | None = None
) -> dict[str, Any]:
    """The loader's `batch_size` and `drop_last`, and what else says which indices it draws."""
    given = loader.batch_sampler is not None
    drawn: Any = loader.batch_sampler if given else loader.sampler
    again = repeated(drawn)
    size: dict[str, Any] = {"batch_size": None, "drop_last": False, "endless": again is not None}
    inner, once = (drawn, None) if again is None else (again, len(again))
    if given or drawn_whole(loader):
        if not made(inner, BatchSampler) or resized(inner.batch_size, assembly):
            lists = seen_indices(assembly)[:once]
            return {"batch_sampler": lists, "endless": size["endless"]}
        size |= {"batch_size": inner.batch_size, "drop_last": inner.drop_last}
        inner = inner.sampler
    in_turn, shuffled = made(inner, SequentialSampler), made(inner, RandomSampler)
    whole = in_turn or (shuffled and not inner.replacement)
    if whole and len(inner) == len(loader.dataset):  # type: ignore[arg-type]
        return {**size, "shuffle": shuffled}
    if (dealing := dealt(loader, rank)) is not None:
        return {**size, "shuffle": dealing.shuffle}
    return {**size, "sampler": [i for batch in seen_indices(assembly)[:once] for i in batch]}


def resized(size: int, assembly: Assembly) -> bool:
    """Whether batches of the first epoch were of other sizes than that, but for the last one.

    So they are where the size is changed meanwhile, as bs-scheduler does it.
    """
    collated = first_epoch(assembly, assembly.of(COLLATED))
    collated = collated[np.argsort(collated["batch"], kind="stable")]
    fetched = first_epoch(assembly, assembly.of(SAMPLE))["batch"]
    last = int(collated["batch"].max(initial=-1))
    asked = np.bincount(fetched, minlength=last + 1)[collated["batch"]]
    if not np.array_equal(asked, collated["what"]):
        return False  # who collates may leave some out, or a call may have been for all
    return bool((asked[:-1] != size).any() or (asked[-1:] > size).any())


def made(sampler: object, kind: type) -> bool:
    """Whether it is a sampler of this kind, torch's or what torchdata's loader has in its place."""
    found = type(sampler)
    theirs = found.__name__ == kind.__name__ and found.__module__.startswith(STATEFUL)
    return found is kind or theirs


def assumed(assembly: Assembly) -> str | None:
    """What is taken for granted of a sampler that gives other than integers; None of others."""
    if assembly.setup.iterable or not (assembly.of(SAMPLE)["what"] < 0).any():
        return None
    return (
        "its sampler gives other than indices (integers of at least 0): every epoch has as many "
        "batches, of as many samples, as were seen in the first one, and what each sample takes is "
        "drawn from all that were seen"
    )


def seen_samples(assembly: Assembly) -> int:
    """How many samples of the first epoch were fetched."""
    return len(first_epoch(assembly, assembly.of(SAMPLE)))


def seen_indices(assembly: Assembly) -> list[list[int]]:
    """The indices of each batch of the first epoch that was fetched, or places, if it has none."""
    samples = first_epoch(assembly, assembly.of(SAMPLE))
    samples = samples[np.argsort(samples["batch"], kind="stable")]
    cuts = np.flatnonzero(np.diff(samples["batch"])) + 1
    if not len(samples):
        raise ScenarioError("samples: expected those of at least one batch, got none")
    indices = np.arange(len(samples)) if (samples["what"] < 0).any() else samples["what"]
    return [batch.tolist() for batch in np.split(indices, cuts)]


def iterable(assembly: Assembly, files: int | None) -> IterableDataset:
    """As many samples for each worker as it collated in the first epoch, or for its `files`."""
    rows = first_epoch(assembly, assembly.of(COLLATED))
    workers = np.maximum(rows["worker"], 0)
    counts = np.bincount(workers, rows["what"], max(assembly.setup.num_workers, 1)).astype(int)
    if files:
        return IterableDataset(int(counts.sum()), shards=shards.sizes(files, counts.tolist()))
    return IterableDataset(int(counts.sum()), sharding=tuple(counts.tolist()))


def first_epoch(assembly: Assembly, rows: Rows) -> Rows:
    """Those of the records of batches that belong to the first epoch."""
    mine: Rows = rows[assembly.epoch[rows["batch"]] == 0]
    return mine
