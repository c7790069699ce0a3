"""Numbers with units, in and out of scenario files: `"6.1 ms"`, `"110 KiB"`, `"2 GB/s"`, `"5%"`."""

from __future__ import annotations

import re
from decimal import Decimal, DecimalException

# Decimals, because 6.1 / 1000 is not the float nearest to 0.0061, and people compare.
SECONDS = {
    unit: Decimal(value)
    for unit, value in {
        "ns": "1e-9", "us": "1e-6", "µs": "1e-6", "μs": "1e-6", "ms": "1e-3", "s": "1",
        "min": "60", "h": "3600", "d": "86400",
    }.items()
}  # fmt: skip
BYTES = {
    unit: Decimal(value)
    for unit, value in {
        "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    }.items()
}  # fmt: skip
BITS = {
    f"{prefix}bit": Decimal(count) / 8
    for prefix, count in {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.items()
}
UNITS = {
    "duration": SECONDS,
    "size": BYTES,
    # by themselves, bytes are bytes a second here
    "bandwidth": BYTES | {f"{unit}/s": count for unit, count in (BYTES | BITS).items()},
    "share": {"%": Decimal("0.01")},
    "throughput": {"/s": Decimal(1), "samples/s": Decimal(1)},
}
EXAMPLES = {
    "duration": '0.0061 or "6.1 ms"',
    "size": '112640 or "110 KiB"',
    "bandwidth": '2e9 or "2 GB/s"',
    "share": '0.05 or "5%"',
    "throughput": '500 or "500 samples/s"',
}

# The units that are written, the first one of equally short ones.
SIZES = ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB", "B")
WRITTEN = {
    "duration": ("h", "min", "s", "ms", "us", "ns"),
    "size": SIZES,
    "bandwidth": tuple(f"{unit}/s" for unit in SIZES),
}

_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-zµμ/%]*)\s*")


def parse(text: str, quantity: str) -> float:
    """The number that `text` states.

    By `quantity`: seconds (`"duration"`), bytes (`"size"`), bytes a second (`"bandwidth"`), 0.05
    for 5% (`"share"`), samples a second (`"throughput"`).

    Raises `ValueError` when it states none.
    """
    match = _NUMBER.fullmatch(text)
    units = UNITS[quantity]
    if match is None or (match[2] and match[2] not in units):
        known = f" (in {', '.join(filter(str.isascii, units))})" if match and match[2] else ""
        raise ValueError(f"expected a {quantity} such as {EXAMPLES[quantity]}{known}, got {text!r}")
    try:
        return float(Decimal(match[1]) * units.get(match[2], Decimal(1)))
    except DecimalException:  # an exponent of more digits than there are numbers for
        raise ValueError(f"expected a {quantity} of a sensible size, got {text!r}") from None


def written(value: float, quantity: str) -> float | str:
    """`value` as people write it in a file, and exactly: a number, or text that `parse` reads.

    With the unit that leaves the fewest digits; a number where there is none for it.
    """
    number = Decimal(repr(value))
    texts = [
        f"{(number / UNITS[quantity][unit]).normalize():f} {unit}"
        for unit in WRITTEN.get(quantity, ())
        if number >= UNITS[quantity][unit]
    ]
    best = min(texts, key=len, default="")
    if best and parse(best, quantity) == value:
        return best
    return int(value) if value == int(value) else value


def number(value: float) -> str:
    """`value` to three significant digits, all digits before the point: `"12,345"`."""
    if value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`seconds` as people write it, to three significant digits: `"6.1 ms"`."""
    if seconds != seconds:
        return "-"
    magnitude = abs(seconds)
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if magnitude >= scale * 0.9995 or unit == "µs":
            break
    if unit == "s" and magnitude >= 7200:
        return f"{number(seconds / 3600)} h"
    return "0 s" if seconds == 0 else f"{number(seconds / scale)} {unit}"


def size(count: float) -> str:
    """`count` bytes as people write it, to three significant digits: `"110 KiB"`."""
    if count != count:
        return "-"
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(count) >= 0.9995 * float(BYTES[unit]):
            return f"{number(count / float(BYTES[unit]))} {unit}"
    return f"{count:.0f} B"
