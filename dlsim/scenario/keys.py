"""What each key of scenario files means, from the docstrings of the classes that hold them.

The one source of these texts is the `Args` section of each class: `name: text. In torch: name.
Example: value`. The command `dlsim keys`, the documentation and the JSON Schema show them.
"""

from __future__ import annotations

import inspect as python
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from dlsim.scenario import distributions, presets
from dlsim.scenario.loader import Loader
from dlsim.scenario.model import Scenario

EACH = "N"  # stands for a number in a list: dataset.fetch.N.wait
_ENTRY = re.compile(r"(\w+): (.*?)(?: In torch: (.*?)\.)?(?: Example: (.*))?", re.DOTALL)
_TAKES = {
    "duration": "a duration",
    "size": "a size",
    "bandwidth": "bytes a second",
    "share": "a share",
    "inherited": "a duration or size",
}
_NAMES: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "an integer",
    inspect.FloatType: "a number",
    inspect.StrType: "text",
    inspect.StructType: "a table",
    inspect.VarTupleType: "a list",
    inspect.NoneType: "none",
}

_DISTRIBUTIONS = {str(kind.__struct_config__.tag): kind for kind in distributions.KINDS}


@dataclass(frozen=True, slots=True)
class Key:
    """What there is to know of one key.

    `name` is dotted; `takes` says what it may be, `quantity` what a number counts (`""`:
    nothing in particular); `default` and `example` are as in a file (a
    default of `""`: it must be given, or its keys have theirs); `torch` is its name there, if it
    has one; `holders` are the classes that have it.
    """

    name: str
    meaning: str
    takes: str
    quantity: str
    default: str
    torch: str
    example: str
    holders: tuple[type, ...]

    @property
    def of_distribution(self) -> bool:
        """Whether it is one of a distribution, whose example is the whole of it."""
        return self.name.partition(".")[0] in _DISTRIBUTIONS

    @property
    def last(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


@cache
def described() -> tuple[Key, ...]:
    """Every key of scenario files, in order; those of distributions, as `gamma.mean`, last."""
    found: dict[str, Key] = {}
    for key in _walk("", inspect.type_info(Scenario)):
        known = found.get(key.name)
        found[key.name] = (
            key if known is None else replace(known, holders=known.holders + key.holders)
        )
        if key.name == "loader":
            words = f"{', '.join(presets.PRESETS)}"
            name, meaning = presets.LIKE, presets.MEANING
            found[name] = Key(name, meaning, words, "", '"torch"', "", '"accelerate-1.15"', ())
    for tag, kind in _DISTRIBUTIONS.items():
        inner = [*_walk(tag, inspect.type_info(kind))]
        meaning = (kind.__doc__ or "").partition("\n")[0]
        whole = Key(tag, meaning, "a table", "", "", "", inner[0].example, ())
        found |= {key.name: key for key in (whole, *inner)}
    return tuple(found.values())


@cache
def texts(holder: type) -> dict[str, tuple[str, str, str]]:
    """By key of a class: its meaning, its name in torch, an example (`""` where there is none)."""
    _, _, entries = (python.cleandoc(holder.__doc__ or "")).partition("Args:\n")
    found = {}
    for entry in re.split(r"\n(?=    \w)", entries.split("\n\n")[0]):
        match = _ENTRY.fullmatch(" ".join(entry.split()))
        if match is not None:
            found[match[1]] = (match[2], match[3] or "", match[4] or "")
    return found


def with_descriptions(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema with the meaning of each key and of each class, and examples."""
    parts = schema["$defs"]
    for part in parts.values():
        about = python.cleandoc(part.get("description", ""))
        part["description"] = about.partition("\n\nArgs:\n")[0]
    for key in described():
        for holder in key.holders:
            field = parts[holder.__name__]["properties"][key.last]
            field["description"] = key.meaning
            if key.example and not key.of_distribution:
                field["examples"] = [tomllib.loads(f"example = {key.example}")["example"]]
    return schema


def _walk(path: str, info: Any) -> Iterator[Key]:
    """The keys of a class, and of what they hold, each after the one that holds it."""
    for field in info.fields:
        name = f"{path}.{field.encode_name}" if path else field.encode_name
        meaning, torch, example = texts(info.cls).get(field.encode_name, ("", "", ""))
        yield Key(
            name=name,
            meaning=meaning,
            takes=_takes(field.type),
            quantity=_quantity(field.type),
            default=_default(field),
            torch=torch or (field.encode_name if info.cls is Loader else ""),
            example=example,
            holders=(info.cls,),
        )
        structs = [*_structs(field.type)]
        if len(structs) > 1:
            yield _kind(name, [inner for inner, _ in structs])
        for inner, step in structs:
            yield from _walk(f"{name}{step}", inner)


def _kind(path: str, kinds: list[inspect.StructType]) -> Key:
    """The key that says of which class a table is: `dataset.kind`."""
    tags = [str(each.tag) for each in kinds]
    meanings = [(each.cls.__doc__ or "").partition("\n")[0].rstrip(".") for each in kinds]
    lower = [meaning[:1].lower() + meaning[1:] for meaning in meanings]
    return Key(
        name=f"{path}.{kinds[0].tag_field}",
        meaning=". ".join(f"{tag}: {text}" for tag, text in zip(tags, lower, strict=True)) + ".",
        takes=" or ".join(tags),
        quantity="",
        default="",
        torch="",
        example=f'"{tags[-1]}"',
        holders=(),
    )


def _structs(kind: Any) -> Iterator[tuple[inspect.StructType, str]]:
    """The classes of a type, but for distributions, with what leads to them."""
    if isinstance(kind, inspect.StructType) and not issubclass(kind.cls, distributions.KINDS):
        yield kind, ""
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _structs(each)
    elif isinstance(kind, inspect.VarTupleType):
        for inner, step in _structs(kind.item_type):
            yield inner, f".{EACH}{step}"


def _takes(kind: Any) -> str:
    """What a value of this type may be, in words."""
    if isinstance(kind, inspect.Metadata):
        quantity = _TAKES[(kind.extra or {})["quantity"]]
        return (
            quantity
            if isinstance(kind.type, inspect.FloatType)
            else f"a fixed or random {quantity.removeprefix('a ')}"
        )
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(str(value) for value in kind.values)
    if isinstance(kind, inspect.UnionType):
        found = dict.fromkeys(map(_takes, kind.types))  # none last, as one says it
        return " or ".join(sorted(found, key=lambda words: words == "none"))
    return _NAMES[type(kind)]


def _quantity(kind: Any) -> str:
    """What numbers of this type count: `"duration"`, `"size"`, ..., `"inherited"`, or nothing."""
    if isinstance(kind, inspect.Metadata):
        return str((kind.extra or {})["quantity"])
    if isinstance(kind, inspect.VarTupleType):
        return _quantity(kind.item_type)
    if isinstance(kind, inspect.UnionType):
        return next(filter(None, map(_quantity, kind.types)), "")
    return ""


def _default(field: inspect.Field) -> str:
    """The default as a file would have it."""
    if field.required:
        return ""
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None:
        return "none"
    if isinstance(value, distributions.Constant):
        value = value.value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return str([*value])
    if isinstance(value, msgspec.Struct):
        return ""  # each of its keys has its own
    return f'"{value}"' if isinstance(value, str) else str(value)
