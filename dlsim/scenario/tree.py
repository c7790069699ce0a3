"""Scenarios as plain dicts, lists, numbers and texts, which is what files hold; dotted keys.

A tree has the structure of `Scenario`. A duration is a number of seconds or text such as
`"6.1 ms"`, a size a number of bytes or `"110 KiB"`; where a distribution is expected, either
stands for a constant; `"none"` stands for Python's None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from dlsim.scenario import units
from dlsim.scenario.errors import ScenarioError, shown
from dlsim.scenario.model import Scenario
from dlsim.scenario.presets import LIKE, MEANING, PRESETS, changes_of, spelt_out

NONE = "none"
DIGITS = 18  # of a number that counts elements; Python reads no more than some thousand
SHORT = 180  # letters of a list that stands beside a guess
Made = TypeVar("Made", bound=msgspec.Struct)

# msgspec's names of types in words that fit a TOML file
_OUR_OWN = re.compile(r"[a-z_.0-9]+: ")
_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": '"none"',
}


def to_tree(scenario: Scenario) -> dict[str, Any]:
    """`scenario` as plain dicts, lists and numbers, defaults left out."""
    tree: dict[str, Any] = _without_none(msgspec.to_builtins(scenario))
    return tree


def from_tree(tree: Mapping[str, Any]) -> Scenario:
    """The scenario that plain dicts, lists, numbers and texts describe (what a file holds).

    Raises `ScenarioError` naming the key, what was expected and what was given.
    """
    return decoded(spelt_out(tree), Scenario)


def decoded(tree: Mapping[str, Any], kind: type[Made]) -> Made:
    """The value of a `kind` of struct that plain dicts, lists, numbers and texts describe.

    Raises `ScenarioError` naming the key, what was expected and what was given.
    """
    plain = _resolve(_types(kind), dict(tree), "", None)
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise ScenarioError(_explained(str(error), plain)) from None
    except UnicodeEncodeError as error:
        raise ScenarioError(f"expected text, got {shown(error.object)}") from None


@cache
def _types(kind: type = Scenario) -> inspect.Type:
    """What a struct is made of; finding out takes longer than all the rest."""
    return inspect.type_info(kind)


def replace(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """`scenario` with the values at dotted keys changed: `{"loader.num_workers": 16}`.

    A value may be anything the field takes, or what a scenario file would say (`"6.1 ms"`).
    List elements are reached by number: `"dataset.fetch.0.wait"`. All changes are made before
    the result is checked. Raises `ScenarioError` for an unknown key or an unfit value.
    """
    tree = {name: getattr(scenario, name) for name in scenario.__struct_fields__}
    changes = changes_of(changes)
    for part in {key.partition(".")[0] for key in changes} & tree.keys():
        tree[part] = _plain(part, tree[part])  # the other parts stay as they are
    for key, value in changes.items():
        _set(tree, key, value)
    return from_tree(tree)


def get(scenario: Scenario, key: str) -> Any:
    """The value at a dotted `key` of `scenario`. Raises `ScenarioError` if there is none."""
    value: Any = scenario
    for part in key.split("."):
        try:
            value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
        except (AttributeError, ValueError, IndexError):
            raise ScenarioError(f"{key}: no such key{_known(value)}") from None
    return value


@cache
def keys() -> list[str]:
    """The dotted keys of a scenario's parts, but for those inside of stages and costs."""
    found: dict[str, None] = {}
    for part in _types().fields:  # type: ignore[attr-defined]
        kinds = part.type.types if isinstance(part.type, inspect.UnionType) else [part.type]
        for kind in kinds:
            found |= {f"{part.name}.{field.name}": None for field in getattr(kind, "fields", ())}
    return [*found, LIKE]


def schema() -> dict[str, Any]:
    """The JSON Schema of scenario files, for editors that check TOML as it is typed.

    It says what each key means, as `dlsim keys` does.
    """
    from dlsim.scenario.keys import with_descriptions

    tree: dict[str, Any] = with_descriptions(_loosened(msgspec.json.schema(Scenario)))
    like = {"enum": [*PRESETS], "description": MEANING}
    tree["$defs"]["Loader"]["properties"]["like"] = like
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **tree}


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    plain = _plain(key, value)
    node: Any = tree
    *path, last = key.split(".")
    for part in path:
        node = _element(node, part, key) if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, (dict, list)):
            raise ScenarioError(f"{key}: no such key ({part} is {shown(node)})")
    if isinstance(node, list):
        _element(node, last, key)
        node[int(last)] = plain
    else:
        node[last] = plain


def _plain(key: str, value: Any) -> Any:
    """`value` as a file would have it; NumPy's numbers and arrays, and ranges, as Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, range):
        value = list(value)
    try:
        return _without_none(msgspec.to_builtins(value))
    except TypeError:
        raise ScenarioError(f"{key}: expected what a scenario holds, got {shown(value)}") from None


def _element(items: list[Any], part: str, key: str) -> Any:
    if not part.isdecimal() or len(part) > DIGITS or int(part) >= len(items):
        raise ScenarioError(f"{key}: expected a number below {len(items)}, got {shown(part)}")
    return items[int(part)]


def _without_none(value: Any) -> Any:
    """None spelt as a file spells it; tuples as lists."""
    if value is None:
        return NONE
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_without_none(v) for v in value]
    return value


def _resolve(info: Any, value: Any, path: str, quantity: str | None) -> Any:
    """`value` with units, constants and nones spelt out, following the types of `Scenario`.

    `quantity` is what a number here counts: a duration, a size, or nothing in particular.
    """
    if isinstance(info, inspect.Metadata):
        named = (info.extra or {}).get("quantity")
        if named is not None and named != "inherited":
            quantity = named
        number = isinstance(info.type, inspect.FloatType)
        if number and isinstance(value, str) and quantity is not None:
            return _parsed(value, quantity, path)
        return _resolve(info.type, value, path, quantity if named or not number else None)
    if isinstance(info, inspect.LiteralType) and value not in info.values:
        raise ScenarioError(f"{path}: expected {_either([info])}, got {shown(value)}")
    if isinstance(info, inspect.UnionType):
        return _resolve_union(info, value, path, quantity)
    if isinstance(info, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field for field in info.fields}
        unknown = [key for key in value if key not in fields and key != info.tag_field]
        if unknown:
            near = get_close_matches(unknown[0], fields, 1)
            known = f"known here: {', '.join(sorted(fields))}"
            if near:  # the list only where it is short
                guess = f"did you mean {near[0]}?"
                known = f"{guess} {known}" if len(known) < SHORT else guess
            hint = known
            whole = info.cls is Scenario
            homes = [key for key in keys() if whole and key.endswith(f".{unknown[0]}")]
            if homes:
                hint = f"did you mean {homes[0]}?"
            raise ScenarioError(f"{_join(path, unknown[0])}: no such key; {hint}")
        return {
            key: _resolve(fields[key].type, item, _join(path, key), quantity)
            if key in fields
            else item
            for key, item in value.items()
        }
    if isinstance(info, inspect.VarTupleType) and isinstance(value, list):
        return [
            _resolve(info.item_type, item, _join(path, str(i)), quantity)
            for i, item in enumerate(value)
        ]
    return value


def _resolve_union(info: inspect.UnionType, value: Any, path: str, quantity: str | None) -> Any:
    if value == NONE and any(isinstance(t, inspect.NoneType) for t in info.types):
        return None
    # A distribution or None arrives as a union around the annotated union of distributions.
    for kind in info.types:
        if isinstance(kind, inspect.Metadata):
            return _resolve(kind, value, path, quantity)
    words = [t for t in info.types if isinstance(t, inspect.LiteralType)]
    if words and isinstance(value, str) and not any(value in t.values for t in words):
        raise ScenarioError(f"{path}: expected {_either(info.types)}, got {shown(value)}")
    structs = [t for t in info.types if isinstance(t, inspect.StructType)]
    distribution = any(t.tag == "constant" for t in structs)
    if distribution and isinstance(value, str) and quantity is not None:
        value = _parsed(value, quantity, path)
    if distribution and isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"kind": "constant", "value": value}
    if isinstance(value, dict):
        for kind in structs:
            if kind.tag == value.get(kind.tag_field):
                return _resolve(kind, value, path, quantity)
        if structs:
            tags = ", ".join(str(kind.tag) for kind in structs)
            raise ScenarioError(
                f"{_join(path, 'kind')}: expected one of {tags}, got "
                + (shown(value["kind"]) if "kind" in value else "nothing")
            )
    return value


def _either(types: Iterable[Any]) -> str:
    """What a value may be, of literals and lists and none."""
    names: list[str] = []
    for kind in types:
        if isinstance(kind, inspect.LiteralType):
            names += [str(value) for value in kind.values]
        else:
            names.append(NONE if isinstance(kind, inspect.NoneType) else "a list")
    return " or ".join(names)


def _parsed(text: str, quantity: str, path: str) -> float:
    try:
        return units.parse(text, quantity)
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _explained(message: str, tree: Any) -> str:
    """msgspec's message with the key in front, dotted, and the value that was given behind."""
    text, _, where = message.partition(" - at `$")
    path = where.rstrip("`").replace("[", ".").replace("]", "").strip(".")
    text = text.replace("`", "").removeprefix("Object ")
    if _OUR_OWN.match(text):
        return _join(path, text)
    given = tree
    for part in path.split(".") if path else []:
        try:
            given = given[int(part)] if isinstance(given, list) else given[part]
        except (LookupError, TypeError, ValueError):
            given = None
    if text.startswith("missing required field"):
        return f"{_join(path, text.split()[-1])}: expected a value, got nothing"
    text = first_lower(text.split(", got")[0]).replace(" | ", " or ")
    for theirs, ours in _WORDS.items():
        text = re.sub(rf"\b{theirs}\b", ours, text)
    return f"{path or 'scenario'}: {text}, got {shown(given)}"


def first_lower(text: str) -> str:
    """`text` as it goes on after a colon."""
    return text[:1].lower() + text[1:]


def _known(value: Any) -> str:
    fields = getattr(value, "__struct_fields__", ())
    return f"; known here: {', '.join(fields)}" if fields else ""


def _loosened(node: Any) -> Any:
    """The schema with what files may say besides: text for numbers with units, none for null."""
    if isinstance(node, dict):
        node = {key: _loosened(value) for key, value in node.items()}
        if node.get("type") == "number":
            node["type"] = ["number", "string"]
        if node.get("type") == "null":
            return {"const": NONE}
        if "discriminator" in node and "constant" in node["discriminator"].get("mapping", {}):
            return {"anyOf": [node, {"type": ["number", "string"]}]}
        return node
    return [_loosened(item) for item in node] if isinstance(node, list) else node
