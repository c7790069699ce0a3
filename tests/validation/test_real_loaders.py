"""The rules of dispatch against released loaders at work: counts and orders, never times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import dlsim
from dlsim import Scenario

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from dlsim.validation.observing.run import observe  # noqa: E402
from dlsim.validation.observing.unwatchable import ObserveError  # noqa: E402

pytestmark = [pytest.mark.oracles, pytest.mark.filterwarnings("ignore")]  # of other packages
ITEMS, LONG = 30, 1000.0


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where the package is not installed."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")


class Work:
    """What a loader applies to each item: item 0 may be held back until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.begun: list[int] = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, item: int) -> int:
        """Begin with an item, and return it."""
        self.begun.append(item)
        if item == 0:
            self.go.wait()
        return item

    def settled(self, expected: int) -> int:
        """How many are begun, when as many as expected are, and a while has passed."""
        deadline = time.monotonic() + 60
        while len(self.begun) < expected and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        return len(self.begun)


def simulated(first: float = 1.0, step: float = 0.0, **changes: object) -> Scenario:
    """The same items in a shared queue; `first`: seconds of item 0."""
    read = dlsim.Stage("read", wait=dlsim.Recorded([first] + [1.0] * (ITEMS - 1)))
    scenario = Scenario(
        loader=dlsim.Loader(num_workers=1, dispatch="shared"),
        dataset=dlsim.MapDataset(ITEMS, fetch=[read]),
        consumer=dlsim.Consumer(step=dlsim.Constant(step)),
    )
    return dlsim.replace(scenario, changes)


def begun(scenario: Scenario) -> int:
    """How many batches are begun while the first one, or its step, takes its time."""
    return int(np.sum(dlsim.simulate(scenario).started < LONG))


def nodes(work: Work, workers: int, slots: int | None = None, *, in_order: bool = True) -> Any:
    """torchdata.nodes' ParallelMapper over all items, with threads."""
    from torchdata.nodes import IterableWrapper, ParallelMapper

    source = IterableWrapper(range(ITEMS))
    node: Any = ParallelMapper(source, work, workers, in_order, max_concurrent=slots)
    node.reset()
    return node


@needs("torchdata")
@pytest.mark.parametrize(("workers", "slots"), [(1, None), (2, None), (3, 1), (3, 3)])
def test_nodes_begins_as_many_as_simulated(workers: int, slots: int | None) -> None:
    """With one item taken, slots are what is read ahead; so they are where it is kept back."""
    rule = {"loader.num_workers": workers, "loader.slots": slots}
    idle, work = begun(simulated(step=LONG, **rule)), Work()
    node = nodes(work, workers, slots)
    assert next(node) == 0
    assert work.settled(idle) == idle
    kept = Work(held=True)
    back = begun(simulated(first=LONG, **rule))
    node = nodes(kept, workers, slots)
    assert kept.settled(back) == back
    kept.go.set()
    assert list(node) == list(range(ITEMS))


@needs("torchdata")
def test_nodes_in_any_order_goes_on_as_simulated() -> None:
    """In any order, one worker does all others while the first item takes its time."""
    changes = {"loader.num_workers": 2, "loader.in_order": False}
    order = dlsim.simulate(simulated(first=LONG, **changes)).order.tolist()
    work = Work(held=True)
    node = nodes(work, 2, in_order=False)
    found = [next(node) for _ in range(ITEMS - 1)]
    work.go.set()
    assert [*found, next(node)] == order


def spdl(work: Callable[[int], int], workers: int, buffer: int, order: str) -> Any:
    """A pipeline of SPDL with one stage, of as many threads as it has tasks."""
    from spdl.pipeline import PipelineBuilder

    builder: Any = PipelineBuilder().add_source(range(ITEMS))
    builder = builder.pipe(work, concurrency=workers, output_order=order)
    return builder.add_sink(buffer).build(num_threads=workers + 2)


@needs("spdl")
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("order", ["completion", "input"])
def test_spdl_begins_as_many_as_simulated(order: str, workers: int) -> None:
    """With one item taken, the stage's tasks, its queue and the sink are what is begun ahead."""
    buffer = 3
    in_order = order == "input"
    changes = {
        "loader.num_workers": workers + 2 if in_order else workers,
        "loader.slots": workers + 2 if in_order else workers,
        "loader.in_order": in_order,
        "consumer.loop": "thread",
        "consumer.queue": buffer + 2,
    }
    expected, work = begun(simulated(step=LONG, **changes)), Work()
    pipeline = spdl(work, workers, buffer, order)
    with pipeline.auto_stop():
        items: Iterator[int] = iter(pipeline)
        assert next(items) == 0 or not in_order
        assert work.settled(expected) == expected


class Halves(Dataset[Any]):
    """Numbers, each of which has a half."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> float:
        return index / 2


@needs("torchdata")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_is_watched(workers: int) -> None:
    """torchdata's loader has an iterator of its own; its batches are seen all the same."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    given: list[Any] = []
    loader: Any = StatefulDataLoader(Halves(), 3, num_workers=workers)
    seen = observe(loader, step=given.append, epochs=2)
    assert [batch.tolist() for batch in given] == 2 * [
        [0.0, 0.5, 1.0],
        [1.5, 2.0, 2.5],
        [3.0, 3.5, 4.0],
        [4.5, 5.0, 5.5],
    ]
    assert seen.order.tolist() == list(range(8))
    assert seen.meta.scenario is not None
    assert seen.meta.scenario.loader.stateful


@needs("accelerate")
def test_accelerates_loader_names_the_one_to_watch() -> None:
    """It is a batch ahead; the loader that it holds can be watched."""
    from accelerate import Accelerator

    loader: Any = Accelerator(cpu=True).prepare(DataLoader(Halves(), 3))
    with pytest.raises(ObserveError, match=r"watch its \.base_dataloader, a plain one"):
        observe(loader)
    assert len(observe(loader.base_dataloader).order) == 4


@needs("torch_geometric")
def test_graphs_are_counted_in_shared_memory() -> None:
    """PyG's batches say themselves how they are pickled; their tensors travel as all do."""
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader as Graphs

    loader: Any = Graphs([Data(x=torch.zeros(1000, 64)) for _ in range(8)], 4)
    seen = observe(loader)
    assert (seen.tensor_bytes >= 4 * 1000 * 64 * 4).all()
    assert (seen.tensor_bytes < 1.1 * 4 * 1000 * 64 * 4).all()
