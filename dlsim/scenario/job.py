"""A job: many ranks, each with a loader and an accelerator of its own, and where they meet."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from msgspec import Struct, structs

from dlsim.scenario.checks import (
    check_conflict,
    check_distribution,
    check_flags,
    check_integer,
    check_positive,
    check_struct,
    check_tuples,
)
from dlsim.scenario.dataset import ZERO
from dlsim.scenario.distributions import Bandwidth, Duration
from dlsim.scenario.errors import is_integer, is_positive, require

Deal: TypeAlias = Literal["distributed", "batches", "same", "kept", "dispatched"]
Uneven: TypeAlias = Literal["wait", "stop", "join"]


class RemoteStorage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Storage that all nodes of a job share; stages with `read_bytes` read from it.

    Reads under way get equal shares of the bandwidth; what a node cannot take goes to the others.
    What is read stays in the page cache of the node, `machine.storage.cache` bytes of it.

    Args:
        bandwidth: Bytes a second, of all nodes together; none: unlimited. Example: "20 GB/s"
        node_bandwidth: Bytes a second that one node can take. Example: "3 GB/s"
        requests_per_second: Reads begin no faster, of all nodes together. Example: 5000
        latency: How long it is to the first byte of a read. Example: "10 ms"
    """

    bandwidth: Bandwidth | None = None
    node_bandwidth: Bandwidth | None = None
    requests_per_second: float | None = None
    latency: Duration | None = None

    def __post_init__(self) -> None:
        check_positive(self, "bandwidth", "node_bandwidth", "requests_per_second", optional=True)
        check_distribution(self, "latency", optional=True)


NOWHERE = RemoteStorage()  # each node reads from its own


class Differs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rank, or a node, that is not like the others: how many times as long things take there.

    Args:
        rank: Which rank it is. Example: 3
        node: Which node, with all its ranks. Example: 1
        loader: Waiting, processor time and collating take so many times as long. Example: 1.5
        step: The training step takes so many times as long. Example: 1.2
        disk: Reads from the node's own disk take so many times as long. Example: 4
    """

    rank: int | None = None
    node: int | None = None
    loader: float = 1.0
    step: float = 1.0
    disk: float = 1.0

    def __post_init__(self) -> None:
        check_conflict(
            (self.rank is None) == (self.node is None), "rank", "expected a rank or a node"
        )
        check_integer(self, "node" if self.rank is None else "rank", 0)
        check_positive(self, "loader", "step", "disk")
        check_conflict(self.rank is not None and self.disk != 1, "disk", "belongs to a node")


class Job(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who trains together: ranks on alike nodes, each with a loader and an accelerator of its own.

    Ranks of a node share its `machine`: cores, page cache, disk, memory. Rank r is on node
    r // ranks. On accelerators it is these that meet, and hosts that run ahead go on.

    Args:
        ranks: Training processes on each node, one for each accelerator. Example: 8
        nodes: How many nodes there are. Example: 4
        sync: Ranks meet after every so many steps of an epoch, as gradients are exchanged;
            epoch: between epochs; never. Example: 1
        sync_time: How long it takes from when the last rank has come until all go on.
            Example: "2 ms"
        deal: How data are dealt. distributed: indices in turn, as torch's DistributedSampler, and
            to each worker of each rank a shard of its own, where an iterable-style dataset is
            split; batches: whole batches in turn, as accelerate's BatchSamplerShard; same: all to
            everyone; kept: everyone reads all of an iterable-style dataset, and keeps one batch of
            as many as there are ranks, as accelerate's IterableDatasetShard; dispatched: rank 0
            reads for all, and broadcasts a batch for each rank, of which each takes its slice, as
            accelerate's DataLoaderDispatcher. Example: "batches"
        split_batches: With dispatched: each rank has a slice of one batch. Example: true
        broadcast_time: With dispatched: how long broadcasting batches to all ranks takes, from
            when the last rank has come. Example: "4 ms"
        drop_last: With distributed: the last samples are left out, where not all ranks could have
            one; if not, the first ones are repeated. Example: true
        even_batches: With batches: the first samples are repeated until all ranks have equally
            many, whole batches. Example: false
        uneven: What happens where some ranks have more steps than others. wait: they wait for
            ranks that never come, as in torch; stop: all stop with the first that has no more;
            join: who has no more meets the others all the same, as with torch's Join.
            Example: "join"
        storage: Storage of all nodes, which is read in place of the nodes' own where it
            has any limit.
            Example: { bandwidth = "20 GB/s" }
        differs: Ranks and nodes that are not like the others; in a file, one [[job.differs]] for
            each. Example: [{ rank = 3, step = 1.2 }]
        rank: Simulate this rank alone, as if the others did not exist but for their share of the
            data. Example: 0
    """

    ranks: int = 1
    nodes: int = 1
    sync: int | Literal["epoch", "never"] = 1
    sync_time: Duration = ZERO
    deal: Deal = "distributed"
    split_batches: bool = False
    broadcast_time: Duration = ZERO
    drop_last: bool = False
    even_batches: bool = True
    uneven: Uneven = "wait"
    storage: RemoteStorage = RemoteStorage()
    differs: tuple[Differs, ...] = ()
    rank: int | None = None

    def __post_init__(self) -> None:
        check_integer(self, "ranks", 1)
        check_integer(self, "nodes", 1)
        require(
            self.sync in ("epoch", "never") or (is_integer(self.sync) and is_positive(self.sync)),
            "sync",
            "a number of steps, epoch or never",
            self.sync,
        )
        check_distribution(self, "sync_time")
        deals = "distributed, batches, same, kept or dispatched"
        require(self.deal in get_args(Deal), "deal", deals, self.deal)
        check_flags(self, "split_batches", "drop_last", "even_batches")
        check_distribution(self, "broadcast_time")
        require(self.uneven in get_args(Uneven), "uneven", "wait, stop or join", self.uneven)
        check_struct(self, "storage", RemoteStorage)
        check_tuples(self, "differs")
        for i, one in enumerate(self.differs):
            require(isinstance(one, Differs), "differs", "a list of Differs", one)
            for key, most in (("rank", self.world), ("node", self.nodes)):
                value = getattr(one, key)
                within = value is None or value < most
                require(within, f"differs.{i}.{key}", f"a number below {most}", value)
        if self.rank is not None:
            check_integer(self, "rank", 0)
            require(self.rank < self.world, "rank", f"a number below {self.world}", self.rank)

    @property
    def remote(self) -> bool:
        """Whether nodes read from the storage they share, and not from their own."""
        return self.storage != NOWHERE

    @property
    def reads_all(self) -> bool:
        """Whether each rank reads what the others read, too."""
        return self.deal in ("same", "kept", "dispatched")

    @property
    def keeps(self) -> bool:
        """Whether each rank reads samples of which it keeps some alone."""
        return self.deal == "kept" and self.world > 1

    @property
    def dispatches(self) -> bool:
        """Whether rank 0 reads for all ranks, of which there are several."""
        return self.deal == "dispatched" and self.world > 1

    @property
    def round(self) -> int:
        """Of how many batches that rank 0 has read all ranks have a slice at a time."""
        return 1 if self.split_batches else self.world

    @property
    def world(self) -> int:
        """The number of all ranks."""
        return self.ranks * self.nodes

    def node_of(self, rank: int) -> int:
        """The node that a rank is on."""
        return rank // self.ranks

    def slower(self, rank: int) -> tuple[float, float, float]:
        """How many times as long loader, step and disk take for a rank."""
        mine = [d for d in self.differs if d.rank == rank or d.node == self.node_of(rank)]
        found = [1.0, 1.0, 1.0]
        for one in mine:
            for i, factor in enumerate((one.loader, one.step, one.disk)):
                found[i] *= factor
        return found[0], found[1], found[2]

    def seen_by(self, rank: int) -> Job:
        """The job as `rank` has it."""
        return structs.replace(self, rank=rank, differs=())
