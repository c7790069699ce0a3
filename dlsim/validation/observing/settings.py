"""The settings of a torch loader as a scenario without durations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from dlsim.scenario import (
    Consumer,
    DlsimError,
    IterableDataset,
    Loader,
    MapDataset,
    Scenario,
    ScenarioError,
)
from dlsim.validation.observing.assemble import Assembly, Rows
from dlsim.validation.observing.hooks import COLLATED, SAMPLE
from dlsim.validation.observing.wrapped_dataset import fetches_batches


def settings(
    loader: DataLoader[Any], assembly: Assembly, batches: int | None, epochs: int
) -> Scenario | None:
    """The scenario of a watched run, all of whose durations are zero.

    A sampler that is neither sequential nor a shuffle becomes the indices fetched in the first
    epoch, an iterable-style dataset the number of samples that each worker collated in it. None
    where that was not seen, or cannot be said in a scenario.
    """
    try:
        dataset: MapDataset | IterableDataset
        sampling: dict[str, Any] = {"batch_size": loader.batch_size}
        if assembly.setup.iterable:
            dataset = iterable(assembly)
        else:
            length = len(loader.dataset)  # type: ignore[arg-type]
            dataset = MapDataset(length, batched=fetches_batches(loader.dataset))
            sampling = sampler(loader, assembly)
        return Scenario(
            loader=Loader(
                **sampling,
                num_workers=loader.num_workers,
                # without an accelerator, torch pins nothing
                pin_memory=loader.pin_memory and torch.accelerator.is_available(),
                drop_last=loader.drop_last,
                timeout=float(loader.timeout),
                multiprocessing_context=start_method(loader),
                prefetch_factor=loader.prefetch_factor,
                persistent_workers=loader.persistent_workers,
                in_order=loader.in_order,
            ),
            dataset=dataset,
            consumer=Consumer(stop_after=batches),
            torch=".".join(torch.__version__.split(".")[:2]),
            epochs=epochs,
        )
    except (DlsimError, TypeError, NotImplementedError):
        return None


def start_method(loader: DataLoader[Any]) -> Any:
    """How workers are started, by name, where the user said so."""
    context = loader.multiprocessing_context
    return None if context is None else context.get_start_method()


def sampler(loader: DataLoader[Any], assembly: Assembly) -> dict[str, Any]:
    """The loader's `batch_size`, and what else says which indices it draws."""
    batches = loader.batch_sampler
    size = {"batch_size": loader.batch_size}
    if batches is not None and (type(batches) is not BatchSampler or loader.batch_size is None):
        return {"batch_sampler": seen_indices(assembly)}
    inner = loader.sampler if batches is None else batches.sampler
    if type(inner) is SequentialSampler:
        return size
    if type(inner) is RandomSampler and not inner.replacement and inner._num_samples is None:
        return {**size, "shuffle": True}
    return {**size, "sampler": [i for batch in seen_indices(assembly) for i in batch]}


def seen_indices(assembly: Assembly) -> list[list[int]]:
    """The indices of each batch of the first epoch that was fetched."""
    samples = first_epoch(assembly, assembly.of(SAMPLE))
    samples = samples[np.argsort(samples["batch"], kind="stable")]
    cuts = np.flatnonzero(np.diff(samples["batch"])) + 1
    if not len(samples):
        raise ScenarioError("samples: expected those of at least one batch, got none")
    return [batch.tolist() for batch in np.split(samples["what"], cuts)]


def iterable(assembly: Assembly) -> IterableDataset:
    """As many samples for each worker as it collated in the first epoch."""
    rows = first_epoch(assembly, assembly.of(COLLATED))
    workers = np.maximum(rows["worker"], 0)
    counts = np.bincount(workers, rows["what"], max(assembly.setup.num_workers, 1)).astype(int)
    return IterableDataset(int(counts.sum()), sharding=tuple(counts.tolist()))


def first_epoch(assembly: Assembly, rows: Rows) -> Rows:
    """Those of the records of batches that belong to the first epoch."""
    mine: Rows = rows[assembly.epoch[rows["batch"]] == 0]
    return mine
