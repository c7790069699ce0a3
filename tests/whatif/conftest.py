from __future__ import annotations

from collections.abc import Iterator

import pytest

from dlsim.engine.effort import decided


@pytest.fixture
def one_engine() -> Iterator[None]:
    """Numbers are those of one engine, to the last bit: each adds up in an order of its own.

    Which one it is depends on what the process did before, else.
    """
    with decided(False):
        yield
