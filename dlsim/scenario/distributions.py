"""Probability distributions, as values: what a stage takes, how long a step is, how big a sample.

Every distribution is non-negative and has `mean` and `sample(rng, size)`. `Recorded` is the
exception to randomness: it replays what was observed, by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias, TypeVar

import numpy as np
from msgspec import Meta, Struct, structs
from numpy.typing import NDArray

from dlsim.scenario.errors import (
    LARGEST,
    SMALLEST,
    check_non_negative,
    is_number,
    is_positive,
    require,
)

Floats: TypeAlias = NDArray[np.float64]

# Plain numbers with units.
Seconds: TypeAlias = Annotated[float, Meta(extra={"quantity": "duration"})]
Bytes: TypeAlias = Annotated[float, Meta(extra={"quantity": "size"})]
Bandwidth: TypeAlias = Annotated[float, Meta(extra={"quantity": "bandwidth"})]
Share: TypeAlias = Annotated[float, Meta(extra={"quantity": "share"})]
# A number whose unit follows from where the distribution stands: seconds or bytes.
Quantity: TypeAlias = Annotated[float, Meta(extra={"quantity": "inherited"})]


def _positive(key: str, value: object) -> None:
    require(is_positive(value), key, "a number above 0", value)


class Constant(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="constant"):
    """Always the same; a plain number or text with a unit means it, too.

    Args:
        value: What it is. Example: { kind = "constant", value = "5 ms" }
    """

    value: Quantity

    def __post_init__(self) -> None:
        check_non_negative(self, "a number of at least 0", "value")

    @property
    def mean(self) -> float:
        """The value itself."""
        return self.value

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` times the value; draws nothing from `rng`."""
        return np.full(size, self.value, dtype=np.float64)


class Uniform(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="uniform"):
    """Anything between two limits, equally likely.

    Args:
        low: The lower limit. Example: { kind = "uniform", low = "4 ms", high = "6 ms" }
        high: The upper limit. Example: { kind = "uniform", low = "4 ms", high = "6 ms" }
    """

    low: Quantity
    high: Quantity

    def __post_init__(self) -> None:
        check_non_negative(self, "a number of at least 0", "low", "high")
        require(self.low <= self.high, "high", f"a number of at least low = {self.low}", self.high)

    @property
    def mean(self) -> float:
        """`(low + high) / 2`."""
        return (self.low + self.high) / 2

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` independent values."""
        return rng.uniform(self.low, self.high, size)


class Exponential(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="exponential"
):
    """Memoryless: its coefficient of variation is 1.

    Args:
        mean: The mean. Example: { kind = "exponential", mean = "5 ms" }
    """

    mean: Quantity

    def __post_init__(self) -> None:
        check_non_negative(self, "a number of at least 0", "mean")

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` independent values."""
        return rng.exponential(self.mean, size)


class Gamma(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="gamma"):
    """A sum of small parts: shape `1 / cv**2`, scale `mean * cv**2`.

    Args:
        mean: The mean. Example: { kind = "gamma", mean = "5 ms", cv = "30%" }
        cv: The coefficient of variation: standard deviation over mean.
            Example: { kind = "gamma", mean = "5 ms", cv = 0.3 }
    """

    mean: Quantity
    cv: Share

    def __post_init__(self) -> None:
        check_non_negative(self, "a number of at least 0", "mean")
        _positive("cv", self.cv)

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` independent values."""
        return rng.gamma(1 / self.cv**2, self.mean * self.cv**2, size)


class Lognormal(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lognormal"):
    """A product of small factors, with a longer tail than gamma.

    The logarithm has variance `log(1 + cv**2)` and mean `log(mean) - variance / 2`.

    Args:
        mean: The mean. Example: { kind = "lognormal", mean = "5 ms", cv = "50%" }
        cv: The coefficient of variation: standard deviation over mean.
            Example: { kind = "lognormal", mean = "5 ms", cv = 0.5 }
    """

    mean: Quantity
    cv: Share

    def __post_init__(self) -> None:
        _positive("mean", self.mean)
        _positive("cv", self.cv)

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` independent values."""
        variance = np.log1p(self.cv**2)
        return rng.lognormal(np.log(self.mean) - variance / 2, np.sqrt(variance), size)


class Pareto(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pareto"):
    """The heavy tail: `P(X > x) = (scale / x)**shape` for `x >= scale`.

    Args:
        scale: The least value. Example: { kind = "pareto", scale = "5 ms", shape = 2.5 }
        shape: How fast the tail thins out; above 1, or there would be no mean.
            Example: { kind = "pareto", scale = "5 ms", shape = 2.5 }
    """

    scale: Quantity
    shape: float

    def __post_init__(self) -> None:
        check_non_negative(self, "a number of at least 0", "scale")
        require(
            is_number(self.shape) and self.shape > 1,
            "shape",
            "a number above 1 (else the mean is infinite)",
            self.shape,
        )

    @property
    def mean(self) -> float:
        """`scale * shape / (shape - 1)`."""
        return self.scale * self.shape / (self.shape - 1)

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` independent values."""
        return self.scale * (1 + rng.pareto(self.shape, size))


class Mixture(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mixture"):
    """One of several distributions, chosen anew each time.

    Args:
        parts: The distributions.
            Example: { kind = "mixture", parts = ["5 ms", "1 s"], weights = ["99%", "1%"] }
        weights: How likely each is, in proportion.
            Example: { kind = "mixture", parts = ["5 ms", "1 s"], weights = [99, 1] }
    """

    parts: tuple[RandomDistribution, ...]
    weights: tuple[Share, ...]

    def __post_init__(self) -> None:
        for key in ("parts", "weights"):
            values = getattr(self, key)
            require(isinstance(values, Sequence), key, "a list", values)
            structs.force_setattr(self, key, tuple(values))
        require(len(self.parts) > 0, "parts", "at least one distribution", self.parts)
        for part in self.parts:
            require(
                isinstance(part, RANDOM_KINDS), "parts", "distributions other than recorded", part
            )
        require(
            len(self.weights) == len(self.parts)
            and all(is_number(w) and w >= 0 for w in self.weights)
            and sum(self.weights) > 0,
            "weights",
            f"{len(self.parts)} numbers of at least 0, one for each part, not all 0",
            self.weights,
        )

    @property
    def mean(self) -> float:
        """The weighted mean of the parts' means."""
        total = sum(self.weights)
        return sum(w * p.mean for w, p in zip(self.weights, self.parts, strict=True)) / total

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` independent values."""
        share = np.asarray(self.weights) / sum(self.weights)
        chosen = rng.choice(len(self.parts), size, p=share)
        values = np.empty(size)
        for i, part in enumerate(self.parts):
            mine = chosen == i
            values[mine] = part.sample(rng, int(mine.sum()))
        return values


class Observed(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """What both kinds of observations have: their `values`, and the mean of these."""

    values: tuple[Quantity, ...]

    def __post_init__(self) -> None:
        # kept as a tuple of at least one finite, non-negative float
        try:
            values = np.asarray(self.values, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        require(
            values.ndim == 1 and values.size > 0,
            "values",
            "a list of at least one number",
            self.values,
        )
        bad = values[~((values >= 0) & (values <= LARGEST))]
        require(
            bad.size == 0,
            "values",
            "finite numbers of at least 0",
            float(bad[0]) if bad.size else None,
        )
        values = np.where(values < SMALLEST, 0.0, values)
        structs.force_setattr(self, "values", tuple(values.tolist()))

    @property
    def mean(self) -> float:
        """The mean of the observations."""
        return float(np.mean(self.values))


class Empirical(Observed, frozen=True, forbid_unknown_fields=True, tag="empirical"):
    """Resampled, with replacement, from observations.

    Args:
        values: The observations. Example: { kind = "empirical", values = ["4 ms", "5 ms"] }
    """

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` independent values."""
        return np.asarray(self.values)[rng.integers(len(self.values), size=size)]


class Recorded(Observed, frozen=True, forbid_unknown_fields=True, tag="recorded"):
    """What was observed, by index, without any chance.

    Stage times go by dataset index (one call for each batch, `batched=True`: by batch number);
    collate and step times go by batch number.

    Args:
        values: One for each dataset index or batch number.
            Example: { kind = "recorded", values = ["4 ms", "5 ms"] }
    """

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """The first `size` values, from index 0 on, again from the start when they run out.

        Draws nothing from `rng`. The engine looks values up by index and never wraps around.
        """
        return np.resize(np.asarray(self.values), size)


RandomDistribution: TypeAlias = (
    Constant | Uniform | Exponential | Gamma | Lognormal | Pareto | Mixture | Empirical
)
Distribution: TypeAlias = (
    Constant | Uniform | Exponential | Gamma | Lognormal | Pareto | Mixture | Empirical | Recorded
)
RANDOM_KINDS = (Constant, Uniform, Exponential, Gamma, Lognormal, Pareto, Mixture, Empirical)
KINDS = (*RANDOM_KINDS, Recorded)


D = TypeVar("D", bound=Distribution)


def times(distribution: D | None, factor: float) -> D | None:
    """`scaled`, of what there may be none of."""
    return None if distribution is None else scaled(distribution, factor)


def scaled(distribution: D, factor: float) -> D:
    """A distribution of which every number is `factor` times that of `distribution`.

    So are the numbers that are drawn of both with equal generators, but for rounding.
    """
    if factor == 1:
        return distribution
    if isinstance(distribution, Mixture):
        parts = tuple(scaled(part, factor) for part in distribution.parts)
        return structs.replace(distribution, parts=parts)
    if isinstance(distribution, Observed):
        values = tuple(factor * value for value in distribution.values)
        return structs.replace(distribution, values=values)  # type: ignore[return-value]
    scales = {"value", "low", "high", "mean", "scale"} & {*distribution.__struct_fields__}
    return structs.replace(distribution, **{k: factor * getattr(distribution, k) for k in scales})


# Where a distribution stands decides the unit of its numbers.
Duration: TypeAlias = Annotated[Distribution, Meta(extra={"quantity": "duration"})]
Size: TypeAlias = Annotated[Distribution, Meta(extra={"quantity": "size"})]
Factor: TypeAlias = Annotated[Distribution, Meta(extra={"quantity": "share"})]
