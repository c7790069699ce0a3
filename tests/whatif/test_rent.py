from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dlsim
from dlsim.cli import main
from dlsim.engine.progress import watched
from dlsim.scenario import Catalogue, Instance, ScenarioError, load_catalogue
from dlsim.scenario.catalogue import SHIPPED, together
from dlsim.whatif import WhatIfError, rent
from dlsim.whatif.renting import scenario_on, step_on
from tests.cli.test_cli import refused

FAST, SLOW = dlsim.Constant(0.5), dlsim.Constant(1.0)


def training(**keys: object) -> dlsim.Scenario:
    """300 batches, each 0.2 s of a core; a step takes 1 s on an A, half of that on a B."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(batch_size=10, num_workers=1),
        dataset=dlsim.MapDataset(
            3000, batched=True, fetch=[dlsim.Stage("decode", cpu=dlsim.Gamma(0.2, 0.1))]
        ),
        consumer=dlsim.Consumer(
            on=[dlsim.On(accelerator="A", step=SLOW), dlsim.On(accelerator="B", step=FAST)]
        ),
    )
    return dlsim.replace(scenario, keys)


def machines(*made: dict[str, Any]) -> Catalogue:
    """Machines with two cores, unless they say something else."""
    found = [Instance(**{"cores": 2.0, **each}) for each in made]
    return Catalogue(machine=tuple(found), currency="EUR")


SLOWLY = {"name": "slow", "accelerator": "A-40GB", "price_per_hour": 1.8}
QUICKLY = {"name": "fast", "accelerator": "B", "price_per_hour": 3.0}


def test_the_cheapest_machine() -> None:
    """The machine on which an epoch costs least is rented, and arithmetic gives its price.

    300 batches take 300 s on the slow machine, 150 s on the fast one.
    """
    found = rent(training(epochs=2), machines(SLOWLY, QUICKLY))
    assert [offer.name for offer in found.offers] == ["fast", "slow"]
    assert found.best is not None
    assert found.best.cost == pytest.approx(150 * 3.0 / 3600, rel=0.02)
    assert [offer.name for offer in found.front] == ["fast"]
    assert found.dearer is not None
    assert found.dearer.mean == pytest.approx(1.8 / 1.5 - 1, abs=0.03)
    assert set(found.wrong.values()) == {"fast"}
    answer, whole, limits, second, change, *_ = str(found).splitlines()
    assert answer.startswith("Rent fast (B): an epoch costs 0.1")
    assert "EUR and takes 15" in answer
    assert whole.startswith("The whole run of 2 epochs costs 0.25")
    assert limits.endswith("what limits it is the training step.")
    assert second.startswith("The next, slow, costs 19")
    assert change.startswith("What would change the choice: a price of fast above 3.")
    assert change.endswith(
        "Not: loading 20 % slower, loading 20 % faster, steps 20 % shorter, steps 20 % longer."
    )


def test_what_is_dearer_may_be_faster() -> None:
    """Of two machines neither of which is both cheaper and faster, both are on the front."""
    dear = {**QUICKLY, "price_per_hour": 9.0}
    found = rent(training(), machines(SLOWLY, dear))
    assert [offer.name for offer in found.front] == ["slow", "fast"]
    assert "The fastest is fast: 2 times as fast, for 0.3" in str(found)


def test_what_cannot_be_better_is_not_simulated() -> None:
    """A machine that even at best is dearer and no faster is told from closed forms."""
    dear = {**SLOWLY, "name": "dear", "price_per_hour": 9.0}
    found = rent(training(), machines(SLOWLY, QUICKLY, dear))
    assert [offer.name for offer in found.unseen] == ["dear"]
    assert "dearer even at best and hardly faster: 1 more, of which" in str(found)
    assert found.unseen[0].least_cost == pytest.approx(300 * 9.0 / 3600)


@pytest.mark.parametrize(("count", "text"), [(1, "1 accelerator"), (2, "2 accelerators")])
def test_accelerators_without_a_name_are_counted(count: int, text: str) -> None:
    """Of a machine that says how long a step takes, and not on what."""
    mine = {"name": "mine", "accelerators": count, "cores": 16, "step": SLOW, "price_per_hour": 2.0}
    found = str(rent(training(), machines(mine)))
    assert f"mine ({text})" in found
    assert f" {text} " in found


def test_targets() -> None:
    """A machine that misses a target is not chosen, and it is said by how much."""
    found = rent(training(), machines(SLOWLY, {**QUICKLY, "price_per_hour": 9.0}), max_epoch=200.0)
    assert [(offer.name, offer.holds) for offer in found.offers] == [
        ("fast", True),
        ("slow", False),
    ]
    assert "misses: an epoch takes 300 s (wanted: at most 200 s)" in str(found)
    assert found.dearer is None
    none = rent(training(), machines(SLOWLY), max_epoch=200.0)
    assert none.best is None
    missed, found_there, *_ = str(none).splitlines()
    assert missed.startswith("No machine holds the targets; the cheapest is slow: an epoch takes")
    assert found_there.startswith("On slow (A-40GB) an epoch costs 0.15")


def test_each_machine_is_priced_with_its_best_loader() -> None:
    """Of three machines, the cheapest within 10 minutes is so with more than 16 workers.

    A batch takes 21.2 s of a core, and 450 of them in an epoch: 617 s on 16 workers; with 24 and
    more the steps of 1 s limit. The others: dear and fast, cheap and slow.
    """
    steps = {"A": 1.0, "B": 0.75, "C": 2.0}
    case = training(
        **{
            "epochs": 2,
            "dataset.length": 4500,
            "dataset.fetch": [{"name": "decode", "cpu": 21.2}],
            "loader.persistent_workers": True,
            "consumer.on": [{"accelerator": a, "step": step} for a, step in steps.items()],
        }
    )
    wide = {"cores": 64.0}
    three = machines(
        {"name": "right", "accelerator": "A", "price_per_hour": 2.1, **wide},
        {"name": "dear", "accelerator": "B", "price_per_hour": 4.72, **wide},
        {"name": "slow", "accelerator": "C", "price_per_hour": 0.5, **wide},
    )
    found = rent(case, three, max_epoch=600.0)
    assert found.best is not None
    assert (found.best.name, found.best.cost) == ("right", pytest.approx(0.275, rel=0.02))
    costs = {offer.name: offer.cost for offer in found.offers}
    assert costs["dear"] == pytest.approx(0.472, rel=0.02)
    assert not next(offer for offer in found.offers if offer.name == "slow").holds
    text = str(found)
    assert "an epoch costs 0.27" in text
    assert "The whole run of 2 epochs costs 0.5" in text
    few = rent(case, three, max_epoch=600.0, workers=16)
    right = next(offer for offer in few.offers if offer.name == "right")
    assert right.cost == pytest.approx(0.36, rel=0.02)
    assert not right.holds
    assert few.best is None


def test_a_search_that_ends_at_its_own_limit_says_so() -> None:
    """Where even 64 workers are too few, it is said that more were not tried; elsewhere not."""
    slow = training(**{"dataset.fetch": [{"name": "decode", "cpu": 90.0}], "dataset.length": 1000})
    found = rent(slow, machines({**QUICKLY, "cores": 128.0}))
    assert found.offers[0].scenario.loader.num_workers == 64
    assert "More than 64 workers were not tried: fast." in str(found)
    assert "were not tried" not in str(rent(training(), machines(QUICKLY)))


def test_ranks_share_the_machine() -> None:
    """There is a rank for each accelerator; too few cores for all of them limit the training."""
    many = {**QUICKLY, "accelerators": 4, "price_per_hour": 12.0, "cores": 1.0}
    found = rent(training(), machines(many, {**many, "name": "wide", "cores": 16.0}))
    narrow = next(offer for offer in found.offers if offer.name == "fast")
    wide = next(offer for offer in found.offers if offer.name == "wide")
    assert wide.scenario.job.ranks == 4
    assert wide.limit == "step"
    assert wide.epoch == pytest.approx(75 * 0.5, rel=0.05)
    # 4 ranks, each of which has 75 batches of 0.2 s, on one core
    assert narrow.limit != "step"
    assert narrow.epoch > 300 * 0.2 * 0.99


def test_ranks_that_are_given() -> None:
    """With several ranks, machines with another number of accelerators are left out."""
    two = {**QUICKLY, "name": "two", "accelerators": 2}
    found = rent(training(**{"job.ranks": 2}), machines(QUICKLY, two))
    assert [offer.name for offer in found.offers] == ["two"]
    assert "Left out, not 2 accelerators, for as many ranks (job.ranks): fast." in str(found)


def test_left_out() -> None:
    """Without a price, a step, or room on its disks, a machine is left out, and it is said why."""
    reading = training()
    reading = dlsim.replace(
        reading, {"dataset.fetch": [{"name": "read", "read_bytes": "1 MB", "wait": 0.2}]}
    )
    found = rent(
        reading,
        machines(
            {**SLOWLY, "disk": 4e9},
            {**SLOWLY, "name": "small", "disk": 2e9},
            {**SLOWLY, "name": "free", "price_per_hour": None},
            {**SLOWLY, "name": "other", "accelerator": "C"},
        ),
    )
    assert found.left_out == {
        "small": "the data do not fit on its disks",
        "free": "price not given; give --price free=...",
        "other": "no step is stated for the accelerator (consumer.on)",
    }
    with pytest.raises(WhatIfError, match=r"^free: price not given; give --price free=\.\.\.$"):
        rent(training(), machines({**SLOWLY, "name": "free", "price_per_hour": None}))
    with pytest.raises(WhatIfError, match=r"^consumer.on: expected how long a step takes"):
        rent(training(**{"consumer.on": []}), machines(SLOWLY))


def test_a_machine_as_a_scenario() -> None:
    """What is known of a machine takes the place of what the training says of its own."""
    made = Instance(
        name="m", accelerator="A", accelerators=2, vcpus=8, memory=100.0, network=7.0, step=FAST
    )
    far = training(**{"job.storage": {"bandwidth": 50.0}, "machine.cores": 3})
    on = step_on(far, made)
    assert on is not None
    assert on.step == FAST
    found = scenario_on(far, made, on)
    assert (found.machine.cores, found.machine.memory, found.machine.shm) == (4.0, 100.0, 50.0)
    assert found.job.storage.node_bandwidth == 7.0
    assert found.job.ranks == 2
    near = scenario_on(training(), Instance(name="m", disk_bandwidth=9.0, loading=2.0), on)
    assert near.machine.storage.bandwidth == 9.0
    assert near.dataset.fetch[0].cpu == dlsim.Gamma(0.4, 0.1)


def test_the_catalogue_names_its_sources() -> None:
    """At least 25 machines of three clouds; each figure has a source, and each source a date."""
    catalogue = load_catalogue()
    assert len(catalogue.machine) >= 25
    assert {one.cloud for one in catalogue.machine} == {"AWS", "GCP", "Azure"}
    for one in catalogue.machine:
        assert one.accelerator
        assert one.processors
        assert one.memory
        assert one.source in catalogue.sources
        assert (one.price_per_hour is None) == (one.price_source == "")
    assert all(source.page.startswith("https://") for source in catalogue.sources.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[[machine]]\nname = "a"\nprice = 3\n',
            r"a.toml: machine.0.price: no such key; known",
        ),
        ('[[machine]]\nname = "a"\nmemory = "3 s"\n', r"a.toml: machine.0.memory: expected a size"),
        ('[[machine]]\nname = "a"\nsource = "b"\n', r"machine.0.source: expected one of , got 'b'"),
        ('[[machine]]\nname = "a"\n[[machine]]\nname = "a"\n', "machine: expected each name once"),
        ("machine = 3\n", "machine: expected a list, got 3"),
        ("[[machine]]\ncores = 3\n", r"machine.0.name: expected a value, got nothing"),
    ],
)
def test_bad_catalogues(text: str, message: str, tmp_path: Path) -> None:
    """A file that is no catalogue is refused in one line that names file and key."""
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message):
        load_catalogue(path)


def test_catalogues_together() -> None:
    """A machine of one's own takes the place of one of the same name; currencies must agree."""
    own = Catalogue(machine=(Instance(name="p4d.24xlarge", price_per_hour=1.0),))
    both = together([load_catalogue(), own])
    (mine,) = (one for one in both.machine if one.name == "p4d.24xlarge")
    assert mine.price_per_hour == 1.0
    assert both.currency == "USD"
    with pytest.raises(ScenarioError, match="currency: expected one for all machines"):
        together([both, Catalogue(currency="EUR", machine=own.machine)])
    assert together([both, Catalogue(currency="EUR")]).currency == "USD"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dlsim rent` compares machines of one's own with those of the catalogue, and other prices."""
    scenario = tmp_path / "training.toml"
    on = {"accelerator": "A100", "step": "1 s"}
    dlsim.dump(training(**{"consumer.on": [on], "dataset.length": 300}), scenario)
    own = tmp_path / "own.toml"
    mine = '[[machine]]\nname = "mine"\nstep = "2 s"\ncores = 4\nprice_per_hour = 0.1\n'
    own.write_text(mine)
    some = ("--machines", str(own), "--only", "mine,a2-highgpu-1g")
    assert main(["rent", str(scenario), *some]) == 0
    assert capsys.readouterr().out.startswith("Rent mine (1 accelerator): an epoch costs 0.00")
    cheap = ("--price", "a2-highgpu-1g=0.01", "--loader.num-workers", "3")
    picture = tmp_path / "a.png"
    assert main(["rent", str(scenario), *some, *cheap, "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Rent a2-highgpu-1g (GCP, A100-40GB): an epoch costs 8.")
    assert "with num_workers=3" in printed
    assert picture.stat().st_size > 0
    assert refused(capsys, "rent", scenario, "--only", "x*") == "--only: no machine is called 'x*'"
    assert "expected NAME=PRICE" in refused(capsys, "rent", scenario, "--price", "3")
    assert refused(capsys, "rent", scenario, "--price", "x=3") == "price: no such machine 'x'"
    assert "max-epoch" in refused(capsys, "rent", scenario, "--max-epoch", "soon")
    own.write_text('currency = "EUR"\n' + mine)
    assert "got USD, EUR" in refused(capsys, "rent", scenario, *some)
    assert main(["rent", str(scenario), *some[:2], "--only", "mine"]) == 0
    assert " EUR and takes " in capsys.readouterr().out
    assert SHIPPED.is_file()


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"dataset.length": 0}, "no batch is returned"),
        ({"failures": [{"where": "fetch", "at": 3}]}, "an error ends runs there"),
    ],
)
def test_machines_on_which_no_epoch_ends_are_left_out(keys: dict[str, Any], why: str) -> None:
    """Where an epoch costs nothing that one could tell, nothing is rented, and it is said why."""
    short = {"dataset.length": 30, **keys}
    with pytest.raises(WhatIfError, match=rf": {why} \(and 1 more are left out\)"):
        rent(training(**short), machines(SLOWLY, QUICKLY))


def test_all_machines_are_announced_at_once() -> None:
    """How long it takes is announced once, for all machines that are simulated, and with all."""
    told = list[float]()
    with watched() as known:
        known.heard = lambda: told.append(known.prior)
        found = rent(training(), machines(SLOWLY, QUICKLY))
        alone = rent(training(), machines(QUICKLY))
    assert (len(found.offers), len(alone.offers), len(told)) == (2, 1, 2)
    assert told[0] > 1.5 * told[1]
