from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import dlsim
from dlsim.cli import main
from dlsim.whatif import WhatIfError, advise, rent
from tests.cli.test_cli import refused


def machine(step: float, price: float | None, read: float = 0.2) -> dlsim.Scenario:
    """A machine that trains on a batch of 10 samples in `step` seconds, for a price an hour."""
    return dlsim.Scenario(
        loader=dlsim.Loader(batch_size=10),
        dataset=dlsim.MapDataset(3000, fetch=[dlsim.Stage("read", wait=dlsim.Gamma(read, 0.3))]),
        consumer=dlsim.Consumer(step=dlsim.Constant(step)),
        machine=dlsim.Machine(price_per_hour=price),
    )


def test_the_cheapest_machine() -> None:
    """The machine on which a sample costs least is rented, and arithmetic gives its price.

    Ten samples take 1 s on the slow machine, 0.5 s on the fast one, when workers keep up.
    """
    found = rent(
        {"slow": machine(1.0, 1.8), "fast": machine(0.5, 3.6)}, partial(advise, workers=range(9))
    )
    assert found.best is not None
    assert [offer.name for offer in found.offers] == ["slow", "fast"]
    assert found.best.price == pytest.approx(1e6 / 10 * 1.0 * 1.8 / 3600, rel=0.02)
    found = rent(
        {"slow": machine(1.0, 1.8), "fast": machine(0.5, 3.0)}, partial(advise, workers=range(9))
    )
    assert found.best is not None
    assert found.best.name == "fast"
    assert found.dearer is not None
    assert found.dearer.mean == pytest.approx(1.8 / 1.5 - 1, abs=0.03)
    first, bill, second = str(found).splitlines()[:3]
    assert first.startswith("Rent fast: ")
    assert " for a million samples, with num_workers=" in first
    assert bill.startswith("A million samples cost ")
    assert ", an epoch " in bill
    assert second.startswith("The next, slow, costs ")


def test_a_machine_that_misses_the_target_is_not_rented() -> None:
    """The cheapest machine is not named if it cannot hold the target."""
    offers = {"cheap": machine(0.5, 0.1, read=2.0), "dear": machine(0.5, 3.0)}
    found = rent(offers, partial(advise, max_stall=0.1, workers=range(9)))
    assert [(offer.name, offer.holds) for offer in found.offers] == [
        ("dear", True),
        ("cheap", False),
    ]
    assert found.dearer is None
    assert "misses the target" in str(found).splitlines()[-1]
    none = rent({"cheap": offers["cheap"]}, partial(advise, max_stall=0.1, workers=range(3)))
    assert none.best is None
    assert str(none).startswith("On none of these machines the targets are held; ")


def test_a_price_is_needed() -> None:
    """A machine without a price is refused, by name."""
    with pytest.raises(WhatIfError, match=r"^machine.price_per_hour: b: expected a price"):
        rent({"a": machine(1.0, 1.0), "b": machine(1.0, None)})


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dlsim advise` with several scenarios says which machine to rent; with one, what it costs."""
    files = []
    for name, scenario in (("slow", machine(1.0, 1.8)), ("fast", machine(0.5, 3.0))):
        files.append(str(tmp_path / f"{name}.toml"))
        dlsim.dump(scenario, files[-1])
    assert main(["advise", *files, "--max-workers", "6"]) == 0
    assert capsys.readouterr().out.startswith("Rent fast: ")
    assert main(["advise", files[0], "--max-stall", "20%", "--max-workers", "6"]) == 0
    assert "A million samples cost 5" in capsys.readouterr().out
    assert refused(capsys, "advise") == "advise: expected SCENARIO, got nothing"
    assert "with different names" in refused(capsys, "advise", files[0], files[0])
    assert "expected one scenario" in refused(
        capsys, "advise", *files, "--plot", tmp_path / "a.png"
    )
