"""Machines to rent or to own: what each has, what it costs an hour, and who says so.

A catalogue is a TOML file with a list of machines, `[[machine]]`, and the sources of its figures,
`[sources.NAME]`. The one that comes with dlsim is `dlsim/data/machines.toml`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path

from msgspec import Struct, structs

from dlsim.scenario.checks import check_distribution, check_integer, check_positive, check_text
from dlsim.scenario.distributions import Bandwidth, Bytes, Duration
from dlsim.scenario.errors import ScenarioError, require
from dlsim.scenario.files import read_as
from dlsim.scenario.tree import decoded

SHIPPED = Path(__file__).parent.parent / "data" / "machines.toml"
SHM_SHARE = 0.5  # of the memory, where nothing else is mounted (the kernel's tmpfs)
THREADS = 2  # vCPUs of a core, where it is not said how many cores there are


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """Where figures are from.

    Args:
        page: Its address.
        date: What it said, it said on that day.
        says: What is on it.
    """

    page: str
    date: date
    says: str = ""

    def __post_init__(self) -> None:
        check_text(self, "page", "says", empty=True)


class Instance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A machine by its `name`, with accelerators for a rank each.

    Args:
        name: What it is called.
        cloud: Whose it is.
        accelerator: What kind: "A100-40GB". A step stated for an "A100" is one of it.
        accelerators: How many.
        vcpus: Processors as the system counts them.
        cores: Cores that compute; none: one for two vcpus.
        memory: Bytes of RAM.
        shm: Bytes of /dev/shm; none: half of the memory.
        disk: Bytes of local disks.
        disk_bandwidth: Bytes a second that can be read from them.
        network: Bytes a second that come from a remote storage at most.
        price_per_hour: What it costs.
        loading: Loading takes so many times as long as the training says.
        step: How long a step takes there; none: as stated for its accelerator.
        source: Which source its figures are from.
        price_source: Which source its price is from.
    """

    name: str
    cloud: str = ""
    accelerator: str = ""
    accelerators: int = 1
    vcpus: float | None = None
    cores: float | None = None
    memory: Bytes | None = None
    shm: Bytes | None = None
    disk: Bytes | None = None
    disk_bandwidth: Bandwidth | None = None
    network: Bandwidth | None = None
    price_per_hour: float | None = None
    loading: float = 1.0
    step: Duration | None = None
    source: str = ""
    price_source: str = ""

    def __post_init__(self) -> None:
        check_text(self, "name")
        check_text(self, "cloud", "accelerator", empty=True)
        check_integer(self, "accelerators", 1)
        check_positive(self, "loading")
        sizes = ("memory", "shm", "disk", "disk_bandwidth", "network")
        check_positive(self, "vcpus", "cores", *sizes, "price_per_hour", optional=True)
        check_distribution(self, "step", optional=True)

    @property
    def processors(self) -> float | None:
        """Cores that compute; None where nothing is said."""
        if self.cores is not None or self.vcpus is None:
            return self.cores
        return self.vcpus / THREADS

    @property
    def shared_memory(self) -> float | None:
        """Bytes of /dev/shm; None where nothing is said."""
        if self.shm is not None or self.memory is None:
            return self.shm
        return SHM_SHARE * self.memory


class Catalogue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machines, and the sources that they name.

    Args:
        machine: The machines.
        sources: Where figures are from, by name.
        currency: What prices are in.
    """

    machine: tuple[Instance, ...] = ()
    sources: dict[str, Source] = {}
    currency: str = ""

    def __post_init__(self) -> None:
        check_text(self, "currency", empty=True)
        names = [one.name for one in self.machine]
        twice = next((name for name in names if names.count(name) > 1), None)
        require(twice is None, "machine", "each name once", twice)
        for i, one in enumerate(self.machine):
            for key in ("source", "price_source"):
                named = getattr(one, key)
                known = not named or named in self.sources
                require(known, f"machine.{i}.{key}", f"one of {', '.join(self.sources)}", named)

    def priced(self, prices: dict[str, float]) -> Catalogue:
        """The catalogue with some prices an hour replaced, by the names of machines.

        Raises `ScenarioError` for a machine that is not in it.
        """
        unknown = prices.keys() - {one.name for one in self.machine}
        if unknown:
            raise ScenarioError(f"price: no such machine {sorted(unknown)[0]!r}")
        machines = [
            structs.replace(one, price_per_hour=prices[one.name], price_source="")
            if one.name in prices
            else one
            for one in self.machine
        ]
        return structs.replace(self, machine=tuple(machines))


def load_catalogue(path: str | Path = SHIPPED) -> Catalogue:
    """The machines in a file; without one, those that come with dlsim.

    Raises `ScenarioError` naming file, key, what was expected and what was given.
    """
    return read_as(lambda tree: decoded(tree, Catalogue), path)


def together(catalogues: Iterable[Catalogue]) -> Catalogue:
    """All machines of several catalogues; of machines of one name, the last.

    Raises `ScenarioError` where their prices are in different currencies.
    """
    machines: dict[str, Instance] = {}
    sources: dict[str, Source] = {}
    currencies: dict[str, None] = {}
    for each in catalogues:
        machines |= {one.name: one for one in each.machine}
        sources |= each.sources
        currencies |= {each.currency: None} if each.currency and each.machine else {}
    if len(currencies) > 1:
        raise ScenarioError(f"currency: expected one for all machines, got {', '.join(currencies)}")
    return Catalogue(
        machine=tuple(machines.values()), sources=sources, currency=next(iter(currencies), "")
    )
