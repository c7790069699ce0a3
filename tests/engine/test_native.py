"""What is translated does what Python does: each function here runs as both."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("llvmlite", reason="what is translated needs it")

from dlsim.engine.compiled.jit import Kernel, compiled, event_loop, event_loop_where
from dlsim.engine.native.arrays import Table, bits_of, either, lowest_bit, next_bits, reader, table
from dlsim.engine.native.module import Module
from dlsim.engine.native.values import Unsupported

ROW = np.dtype([("whole", "i8"), ("much", "f8"), ("short", "i4"), ("so", "?"), ("late", "f8")])
LARGE = 2**40
whole = st.integers(-LARGE, LARGE)
real = st.floats() | st.sampled_from([0.0, -0.0, 1.0, math.inf])


def two(each: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Lists of two of them."""
    return st.lists(each, min_size=2, max_size=2)


class Some(NamedTuple):
    """Arrays to work with, and what comes of it."""

    numbers: Any
    reals: Any
    bytes: Any
    words: Any
    rows: Any
    square: Any
    cube: Any
    found: Any
    found_reals: Any


def some(numbers: list[int], reals: list[float]) -> Some:
    """Arrays with these in them."""
    rows = np.zeros(4, ROW)
    rows["whole"], rows["much"], rows["so"] = numbers[0], reals[0], numbers[0] % 2 == 0
    return Some(
        numbers=np.array(numbers),
        reals=np.array(reals),
        bytes=np.array([number % 256 for number in numbers], np.uint8),
        words=np.array([number % 2**64 for number in 2 * numbers], np.uint64),
        rows=rows.view(np.recarray),
        square=np.arange(12.0).reshape(3, 4),
        cube=np.arange(24).reshape(2, 3, 4),
        found=np.zeros(24, np.int64),
        found_reals=np.zeros(24),
    )


read = reader(some([1], [1.0]))


def counting(s: Some) -> None:
    """Integers."""
    a, b = s.numbers[0], s.numbers[1]
    found = s.found
    found[0], found[1], found[2] = a + b, a - b, (a >> 20) * (b >> 20)
    if b != 0:
        found[3], found[4] = a // b, a % b
    found[5], found[6], found[7], found[8] = a // 8, a % 8, a // 7, a % 7
    found[9], found[10], found[11] = a & b, a | b, a ^ b
    found[12], found[13] = a >> 3, (a & 255) << 2
    found[14], found[15] = min(a, b, 3), max(a, b, -3)
    found[16] = -a if a < b <= 0 else a
    found[17] = 3 * (a > b)
    found[18] = int(a == b) + int(a != b) + int(not a < b)
    found[19] += a
    found[20] = bits_of(s.reals[0])
    if a != 0:
        found[21] = lowest_bit(a)
    found[22], found[23] = next_bits(s.words), next_bits(s.words)


def measuring(s: Some) -> None:
    """Floats."""
    a, b = s.reals[0], s.reals[1]
    found = s.found_reals
    found[0], found[1], found[2] = a + b, a - b, a * b
    if b != 0.0:
        found[3] = a / b
    found[4], found[5] = min(a, b), max(a, b)
    found[6], found[7] = -a, s.numbers[0] * 0.1 + s.numbers[1]
    found[8] = either(a < b, a, b)
    found[9] = s.numbers[0] / 7
    s.found[0] = (a < b) + 2 * (a <= b) + 4 * (a == b) + 8 * (a != b) + 16 * (a > b) + 32 * (a >= b)
    if a - a == 0.0:
        part, power = math.frexp(a)
        found[10], s.found[1] = part, power
        found[11] = math.ldexp(part, power)
        s.found[2] = int(min(max(a, -1e9), 1e9))
    if 0.0 < a < 700.0:
        found[12], found[13], found[14] = math.exp(a), math.log(a), math.log1p(a)


def larger(one: int, other: float) -> float:
    """The larger of two numbers of two kinds."""
    return one if one > other else other


def going_on(s: Some) -> None:
    """Loops, branches and variables."""
    total = 0
    for i in range(10, 0, -3):
        total += i
    for i in range(0, 10, 4):
        if i == 4:
            continue
        total += 100 * i
    s.found[0] = total
    first = 0  # and a float later on
    for number in s.reals:
        first = number
        break
    s.found_reals[0] = first
    at = 0
    while True:
        at += 1
        if at > 5 and (at % 2 == 0 or at > 100) and not at <= 6:
            break
    s.found[1] = at
    s.found_reals[1] = larger(s.numbers[0], s.reals[0])
    for i in range(2) if s.numbers[0] > 0 else range(2, 4):
        s.found[2 + i] = 1
    one, other = s.found[0], s.found[1]
    one, other = other, one
    s.found[6], s.found[7] = one, other
    s.found[8] = s.found[9] = 7


def around(s: Some) -> None:
    """Arrays and rows."""
    row = s.rows[0]
    row.short, row.late = 5, row.much + 1.0
    s.rows[1] = row
    row.whole += 1
    s.rows[2].so = row.short > 4 and s.rows[1].late != row.late
    for each in s.rows:
        each.much = 2.5
    s.found[0], s.found[1] = len(s.rows), s.cube.shape[2]
    s.found[2], s.found[3] = s.cube[1, 2, 3], s.cube[1][2, 1]
    view = s.square[2]
    view[1] = s.square[0, 3]
    part = view[1:3]
    s.found[4], s.found_reals[0] = len(part), part[1]
    s.found[5] = len(s.numbers[1:])
    s.bytes[0] |= 1 << 3
    s.found[6] = (s.bytes[0] >> 2) & 3
    numbers = s.found if s.numbers[0] > 0 else s.numbers
    numbers[1] = 11


@compiled
def count_fast(table: Table) -> None:
    """The same in machine code."""
    counting(read(table))


@compiled
def measure_fast(table: Table) -> None:
    """The same in machine code."""
    measuring(read(table))


@event_loop
def go_on_fast(table: Table) -> None:
    """The same in machine code."""
    going_on(read(table))


@event_loop
def around_fast(table: Table) -> None:
    """The same in machine code."""
    around(read(table))


PAIRS = [
    (counting, count_fast),
    (measuring, measure_fast),
    (going_on, go_on_fast),
    (around, around_fast),
]


@pytest.mark.parametrize(("plain", "fast"), PAIRS, ids=[plain.__name__ for plain, _ in PAIRS])
@given(
    numbers=st.lists(whole, min_size=2, max_size=2), reals=st.lists(real, min_size=2, max_size=2)
)
def test_what_is_translated_does_what_python_does(
    plain: Any, fast: Any, numbers: list[int], reals: list[float]
) -> None:
    """All that a function leaves in arrays is to the last bit what Python leaves there."""
    ours, theirs = some(numbers, reals), some(numbers, reals)
    with np.errstate(all="ignore"):
        plain(theirs)
    fast(table(ours))
    for one, other in zip(ours, theirs, strict=True):
        assert one.tobytes() == other.tobytes() or same(one, other)


def same(one: Any, other: Any) -> bool:
    """Whether both are alike, up to the bits of what is no number."""
    columns = [one[name] for name in one.dtype.names] if one.dtype.names else [one]
    others = [other[name] for name in other.dtype.names] if other.dtype.names else [other]
    return all(
        a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(columns, others, strict=True)
    )


def test_bits_are_those_of_numpys_generator() -> None:
    """From its state and its increment on."""
    generator = np.random.PCG64(1)
    words = [
        number >> shift & 2**64 - 1
        for number in (generator.state["state"]["state"], generator.state["state"]["inc"])
        for shift in (0, 64)
    ]
    state = np.array(words, np.uint64)
    found = [next_bits(state) % 2**64 for _ in range(3)]
    assert found == generator.random_raw(3).tolist()


read_fixed = reader(some([1], [1.0]), fixed=("rows",))


def choosing(s: Some) -> None:
    """What is done depends on what is in a place that is fixed."""
    row = s.rows[0]
    if row.so and row.short > 2:
        s.found[0] = 1
    else:
        s.found[0] = 2 if row.much == math.inf else 3


@event_loop_where({"Some.rows.so": True, "Some.rows.short": 3})
def choose_first(table: Table) -> None:
    """With another choice than what is there."""
    choosing(read_fixed(table))


@event_loop_where({"Some.rows.so": False, "Some.rows.much": math.inf})
def choose_second(table: Table) -> None:
    """With yet another one."""
    choosing(read_fixed(table))


@event_loop
def choose(table: Table) -> None:
    """As it is there."""
    choosing(read_fixed(table))


def test_what_is_known_beforehand_is_not_read() -> None:
    """It is believed, also where something else is there."""
    found = []
    for function in (choose_first, choose_second, choose):
        ours = some([1], [1.0])
        function(table(ours))
        found.append(int(ours.found[0]))
    assert found == [1, 2, 3]


def with_a_list(n: int) -> int:
    """A list."""
    made = [n]
    return made[0]


def with_itself(n: int) -> int:
    """A function that calls itself."""
    return with_itself(n - 1)


def with_a_hole(n: int) -> int:
    """A name that nothing has."""
    return n + nothing_like_it  # noqa: F821


def with_a_stranger(n: int) -> int:
    """A function that is not Python's."""
    return math.comb(n, 2)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (with_a_list, r"made = \[n\]: not translated: \[n\]"),
        (with_itself, "with_itself calls itself"),
        (with_a_hole, "nothing_like_it is not known here"),
        (with_a_stranger, "comb"),
    ],
)
def test_what_is_not_translated_is_refused(function: Any, why: str) -> None:
    """The error names file and line, and what there is no translation of."""
    with pytest.raises(Unsupported, match=rf"test_native\.py:\d+: .*{why}"):
        Module().text(function, 1)


def test_code_is_kept_and_read_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled is read from disk; what is damaged there is compiled anew."""
    monkeypatch.setenv("DLSIM_CACHE_DIR", str(tmp_path))
    compiling = Kernel.compile
    times = []
    monkeypatch.setattr(Kernel, "compile", lambda self: times.append(1) or compiling(self))

    def ask(number: int) -> int:
        return number + 1

    for _ in range(2):
        assert Kernel(ask, vectorised=False)(41) == 42
    assert len(times) == 1
    (path,) = tmp_path.rglob("*.o")
    path.write_bytes(path.read_bytes()[:-1])
    assert Kernel(ask, vectorised=False)(41) == 42
    assert len(times) == 2
    assert Kernel(ask, vectorised=False)(41) == 42
    assert len(times) == 2
