"""A loader of torch, made as a scenario says, and what is known of its iterator."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from dlsim.scenario import IterableDataset, Scenario
from dlsim.validation.virtual.clock import Clock, VirtualContext
from dlsim.validation.virtual.data import (
    Dealt,
    Distributed,
    Endless,
    Order,
    SavedBatchedMap,
    SavedIterable,
    SavedMap,
    VirtualBatchedMap,
    VirtualIterable,
    VirtualMap,
    VirtualWork,
)
from dlsim.validation.virtual.loops import of_rank
from dlsim.validation.virtual.record import Watcher


def new_loader(
    scenario: Scenario,
    clock: Clock,
    watcher: Watcher,
    work: VirtualWork,
    made: Callable[..., DataLoader[Any]],
) -> DataLoader[Any]:
    """Torch's loader for `scenario`, which `made` makes of torch's keywords."""
    ours, settings = scenario.loader, dict[str, Any]()
    dataset: Any
    saved = scenario.costs.snapshot > 0
    if isinstance(scenario.dataset, IterableDataset):
        dataset = (SavedIterable if saved else VirtualIterable)(scenario.dataset, work)
        if scenario.job.keeps:
            dataset = of_rank(scenario)(dataset)
    else:
        kind = VirtualBatchedMap if scenario.dataset.batched else VirtualMap
        if saved:
            kind = SavedBatchedMap if scenario.dataset.batched else SavedMap
        dataset = kind(scenario.dataset.length, work)
        deal = "same" if scenario.job.world == 1 else scenario.job.deal
        if deal == "distributed":
            settings["sampler"] = Distributed(scenario, work)
        elif deal == "batches":
            settings["batch_sampler"] = Dealt(scenario, work)
        elif ours.batch_sampler is not None:
            settings["batch_sampler"] = [list(batch) for batch in ours.batch_sampler]
        elif ours.sampler is not None or ours.shuffle:
            settings["sampler"] = Order(scenario, work)
    if "batch_sampler" not in settings:
        settings.update(batch_size=ours.batch_size, drop_last=ours.drop_last)
    if not ours.in_order:  # which releases before 2.6 do not know
        settings["in_order"] = False
    if ours.num_workers:
        settings["multiprocessing_context"] = VirtualContext(
            clock,
            ours.num_workers,
            worker_start=scenario.charged.worker_start,
            index_latency=scenario.charged.index_latency,
            observer=watcher,
        )
    if ours.stateful:
        settings["snapshot_every_n_steps"] = ours.snapshot_every_n_steps
    loader = made(
        dataset,
        num_workers=ours.num_workers,
        # Without an accelerator torch does nothing about it, which is what is asked of it here.
        pin_memory=ours.pin_memory and not torch.accelerator.is_available(),
        prefetch_factor=ours.prefetch_factor,
        persistent_workers=ours.persistent_workers,
        timeout=ours.timeout,
        worker_init_fn=work.init,
        collate_fn=work.collate,
        **settings,
    )
    if ours.endless:
        # As timm and ultralytics do it: torch allows no other change of a loader that is made.
        which = "sampler" if ours.batch_size is None else "batch_sampler"
        object.__setattr__(loader, which, Endless(getattr(loader, which), work))
    return loader


class Inner:
    """The iterator of torch's loader, known but not kept alive."""

    def __init__(self, loader: DataLoader[Any], watcher: Watcher) -> None:
        self.watcher, self.alone = watcher, loader.num_workers == 0
        self.state: dict[str, Any] = {}
        make = loader._get_iterator
        self.loader = loader
        loader._get_iterator = partial(self._made, make)  # type: ignore[method-assign]

    def forget(self) -> None:
        """Break the cycle, so that persistent workers go when the loader does."""
        del self.loader._get_iterator

    def _made(self, make: Callable[[], Any]) -> Any:
        try:
            iterator = make()
        except Exception as error:  # a stateful loader makes batches again in here
            frames = traceback.walk_tb(error.__traceback__)
            found = (frame.f_locals.get("self") for frame, _ in frames)
            self.state = next((vars(it) for it in found if hasattr(it, "_rcvd_idx")), {})
            raise
        self.state = vars(iterator)
        if self.alone:
            iterator._next_data = partial(self._next_data, iterator._next_data)
        return iterator

    def _next_data(self, fetch: Callable[[], Any]) -> Any:
        """Without workers: a batch is fetched, or there is none."""
        self.watcher.begin_alone()
        try:
            return fetch()
        except StopIteration:
            self.watcher.exhausted()
            raise

    @property
    def passed(self) -> int:
        """How many batches of the epoch torch has passed over."""
        return int(self.state.get("_rcvd_idx", 0))
