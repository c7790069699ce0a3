"""The scenarios that come with dlsim: in the package, or in the clone that it is used from."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent.parent
PLACES = (PACKAGE / "shipped", PACKAGE.parent / "scenarios")


def shipped() -> dict[str, Path]:
    """The files by name, as `imagenet_a100`."""
    place = next((place for place in PLACES if place.is_dir()), PLACES[0])
    return {path.stem: path for path in sorted(place.glob("*.toml"))}
