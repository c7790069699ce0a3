"""NumPy's gamma numbers in machine code: the same ones, of the same generator, sooner.

NumPy asks a generator it does not know, by pointers to functions, for 64 bits at a time; here all
that is done for a number is one piece of code. As NumPy's `distributions.c` does it: bits are
PCG64's (O'Neill, PCG, 2014; `next_bits`), a normal number comes of a ziggurat of 256 layers
(Marsaglia and Tsang, The ziggurat method, J. Stat. Softw. 5, 2000), a gamma of that (Marsaglia and
Tsang, A simple method for generating gamma variables, ACM TOMS 26, 2000). Should a NumPy draw
others, or a compiler have rounded otherwise for it, `agrees` finds out, and NumPy draws.
"""

from __future__ import annotations

from functools import cache
from math import exp, log, log1p, sqrt, ulp
from typing import Any, NamedTuple

import numpy as np

from dlsim.engine.compiled.jit import compiled, inlined
from dlsim.engine.draws import Floats
from dlsim.engine.native.arrays import Table, either, next_bits, reader, table
from dlsim.scenario import Distribution, Gamma

MANY = 2048  # numbers that are worth the code's loading
LAYERS = 256
TAIL, AREA = 3.6541528853610088, 0.004928673233974652  # where the lowest ends; of each of them
UNEVEN = 37  # a layer in NumPy's table for which a logarithm was not exact
FRACTION = (1 << 52) - 1  # bits of a random number that say where in its layer it is
WHOLE = (1 << 53) - 1  # and those of one between 0 and 1
UNIT = 2.0**-53
WORD = (1 << 64) - 1


class Drawing(NamedTuple):
    """What is drawn, and from what."""

    state: Any  # of the generator, and its increment, the low words first
    made: Any
    asked: Any  # shape less a third, what goes with it, and the scale
    widths: Any  # of the layers, each divided by 2**52,
    heights: Any  # where they begin,
    inner: Any  # and how much of each lies below the curve, in parts of 2**52


@cache
def layers() -> tuple[Any, Any, Any]:
    """The ziggurat: widths, heights and what is inside."""
    widths, heights = np.empty(LAYERS), np.empty(LAYERS)
    widths[-1], heights[-1] = x, height = TAIL, exp(-0.5 * TAIL * TAIL)
    for layer in range(LAYERS - 2, 0, -1):
        x = sqrt(-2.0 * log(AREA / x + height))
        x -= 2 * ulp(x) if layer == UNEVEN else 0.0
        widths[layer], heights[layer] = x, height = x, exp(-0.5 * x * x)
    widths[0], heights[0] = AREA / heights[-1], 1.0
    inner = np.rint(np.roll(widths, 1) / widths * 2**52).astype(np.int64)
    inner[1] = 0
    return widths / 2**52, heights, inner


read = reader(
    Drawing(
        np.zeros(4, np.uint64), np.zeros(1), np.zeros(3), *(np.zeros(1),) * 2, np.zeros(1, int)
    ),
    fixed=("asked", "widths", "heights", "inner"),
)


@inlined
def uniform(d: Drawing) -> float:
    """A number between 0 and 1."""
    return float((next_bits(d.state) >> 11 & WHOLE) * UNIT)


@inlined
def normal(d: Drawing) -> float:
    """A normal number."""
    while True:
        bits = next_bits(d.state)
        layer, place = bits & (LAYERS - 1), bits >> 9 & FRACTION
        width = place * d.widths[layer]
        x = either(bits & LAYERS != 0, -width, width)
        if place < d.inner[layer]:
            return float(x)
        if layer == 0:
            return tail(d, place)
        height = (d.heights[layer - 1] - d.heights[layer]) * uniform(d) + d.heights[layer]
        if height < exp(-0.5 * x * x):
            return float(x)


@inlined
def tail(d: Drawing, place: int) -> float:
    """One beyond the lowest layer."""
    while True:
        x = -(1 / TAIL) * log1p(-uniform(d))
        y = -log1p(-uniform(d))
        if y + y > x * x:
            return -(TAIL + x) if place >> 8 & 1 else TAIL + x


@inlined
def gamma(d: Drawing) -> float:
    """A gamma number of scale 1."""
    b, c = d.asked[0], d.asked[1]
    while True:
        x = normal(d)
        v = 1.0 + c * x
        if v <= 0.0:
            continue
        v = v * v * v
        u = uniform(d)
        if u < 1.0 - 0.0331 * (x * x) * (x * x):
            return float(b * v)
        if log(u) < 0.5 * x * x + b * (1.0 - v + log(v)):
            return float(b * v)


@compiled
def draw(table: Table) -> None:
    """Draw as many as there is room for."""
    d: Drawing = read(table)
    for i in range(len(d.made)):
        d.made[i] = d.asked[2] * gamma(d)


def drawn(rng: np.random.Generator, shape: float, scale: float, count: int) -> Floats:
    """`rng.gamma(shape, scale, count)` for a shape above 1 and a PCG64."""
    b, generator = shape - 1 / 3, rng.bit_generator.state
    at, step = generator["state"]["state"], generator["state"]["inc"]
    state = np.array([at & WORD, at >> 64, step & WORD, step >> 64], np.uint64)
    made, asked = np.empty(count), np.array([b, 1 / sqrt(9 * b), scale])
    draw(table(Drawing(state, made, asked, *layers())))
    generator["state"]["state"] = int(state[0]) | int(state[1]) << 64
    rng.bit_generator.state = generator
    return made


@cache
def agrees() -> bool:
    """Whether NumPy draws the same numbers."""
    ours, theirs = (np.random.Generator(np.random.PCG64(0)) for _ in range(2))
    return all(
        np.array_equal(drawn(ours, shape, 1.0, MANY), theirs.gamma(shape, 1.0, MANY))
        for shape in (1.5, 4.0)
    )


def sample(distribution: Distribution, rng: np.random.Generator, count: int) -> Floats:
    """`distribution.sample(rng, count)`."""
    if isinstance(distribution, Gamma) and count >= MANY and agrees():
        shape, scale = 1 / distribution.cv**2, distribution.mean * distribution.cv**2
        if shape > 1:  # else NumPy has other ways
            return drawn(rng, shape, scale, count)
    return distribution.sample(rng, count)
