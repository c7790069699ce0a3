"""Writing one function in LLVM's language: variables, numbers, branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import eq, ge, gt, le, lt, ne
from types import FunctionType
from typing import Any, Protocol

from dlsim.engine.native.values import (
    BOOL,
    FLOAT,
    INT,
    Scalar,
    Unsupported,
    Value,
    constant,
    literal,
    parts_of,
)

ARITHMETIC = {"+": "add", "-": "sub", "*": "mul"}
ON_BITS = {"&": "and", "|": "or", "^": "xor", "<<": "shl", ">>": "ashr"}
KNOWN = {"<": lt, "<=": le, ">": gt, ">=": ge, "==": eq, "!=": ne}
COMPARISONS = {
    "<": ("slt", "olt"), "<=": ("sle", "ole"), ">": ("sgt", "ogt"), ">=": ("sge", "oge"),
    "==": ("eq", "oeq"), "!=": ("ne", "une"),
}  # fmt: skip


class Program(Protocol):
    """All that is translated."""

    known: Mapping[str, Value]  # what is in memory of these names

    def tag(self, alone: str) -> str:
        """The note on an access to memory of this name."""

    def function(self, function: FunctionType, types: tuple[Any, ...]) -> tuple[str, Any]:
        """The name of a function for arguments of these types, and the type of what it returns."""


class Builder:
    """The body of a function, written from its beginning to its end."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.slots: list[str] = []
        self.lines: list[str] = []
        self.reached = True  # what is written now can be reached
        self.wanted: set[str] = set()  # labels at which somebody goes on
        self.names = 0

    # ---- instructions and blocks ----

    def name(self, kind: str = "%v") -> str:
        """A name that nothing has."""
        self.names += 1
        return f"{kind}{self.names}"

    def emit(self, text: str) -> str:
        """Write an instruction; returns the name of what comes of it."""
        name = self.name()
        self.do(f"{name} = {text}")
        return name

    def do(self, text: str) -> None:
        """Write an instruction of which nothing comes."""
        if self.reached:
            self.lines.append(f"  {text}")

    def end(self, text: str) -> None:
        """Write what ends a block, unless it has ended."""
        if self.reached:
            self.lines.append(f"  {text}")
        self.reached = False

    def jump(self, label: str) -> None:
        """Go on at a label."""
        if self.reached:
            self.wanted.add(label)
        self.end(f"br label %{label}")

    def fork(self, truth: str, yes: str, no: str) -> None:
        """Go on at one of two labels."""
        if truth in ("true", "false"):
            self.jump(yes if truth == "true" else no)
            return
        if self.reached:
            self.wanted |= {yes, no}
        self.end(f"br i1 {truth}, label %{yes}, label %{no}")

    def begin_block(self, label: str) -> None:
        """Begin the block of a label, if anyone goes on there; who comes from above does."""
        self.jump(label)
        if label in self.wanted:
            self.lines.append(f"{label}:")
            self.reached = True

    # ---- variables ----

    def slot(self, kind: Any) -> list[str]:
        """Room for a value, one for each part."""
        made = []
        for part in parts_of(kind):
            made.append(self.name("%s"))
            self.slots.append(f"  {made[-1]} = alloca {part}")
        return made

    def put(self, slot: Sequence[str], value: Value) -> None:
        """Put a value into a slot of its type."""
        for part, operand, room in zip(parts_of(value.type), value.parts, slot, strict=True):
            self.do(f"store {part} {operand}, ptr {room}")

    def get(self, slot: Sequence[str], kind: Any) -> Value:
        """The value in a slot."""
        pairs = zip(parts_of(kind), slot, strict=True)
        return Value(kind, tuple(self.emit(f"load {part}, ptr {room}") for part, room in pairs))

    # ---- numbers ----

    def to(self, value: Value, kind: Any) -> Value:
        """A value as one of another type that is wider."""
        if value.type == kind:
            return value
        if not isinstance(value.type, Scalar):
            raise Unsupported(f"{value.type} as {kind}")
        (operand,) = value.parts
        if kind == FLOAT and operand.lstrip("-").isdecimal():
            return Value(FLOAT, (f"{operand}.0",))
        match value.type, kind:
            case Scalar("i64"), Scalar("double"):
                return Value(kind, (self.emit(f"sitofp i64 {operand} to double"),))
            case Scalar("i1"), Scalar("double"):
                return Value(kind, (self.emit(f"uitofp i1 {operand} to double"),))
            case Scalar("i1"), Scalar("i64"):
                return Value(kind, (self.emit(f"zext i1 {operand} to i64"),))
            case Scalar(), Scalar("i1"):
                return self.compare("!=", value, Value(INT, ("0",)))
        raise Unsupported(f"{value.type} as {kind}")

    def alike(self, one: Value, other: Value, least: Any = BOOL) -> tuple[Any, str, str]:
        """The type of two numbers, and both as ones of it."""
        if not isinstance(one.type, Scalar) or not isinstance(other.type, Scalar):
            raise Unsupported("counting with what is no number")
        kinds = (one.type, other.type, least)
        kind = FLOAT if FLOAT in kinds else INT if INT in kinds else BOOL
        return kind, self.to(one, kind).parts[0], self.to(other, kind).parts[0]

    def arithmetic(self, sign: str, one: Value, other: Value) -> Value:
        """What comes of two numbers, as in Python; integers do not overflow."""
        if sign in ON_BITS:
            kind, a, b = self.alike(one, other)
            return Value(kind, (self.emit(f"{ON_BITS[sign]} {kind.llvm} {a}, {b}"),))
        if sign in ("//", "%"):
            return self.divide(sign, one, other)
        kind, a, b = self.alike(one, other, FLOAT if sign == "/" else INT)
        if kind == FLOAT:
            does = "fdiv" if sign == "/" else f"f{ARITHMETIC[sign]}"
            return Value(kind, (self.emit(f"{does} double {a}, {b}"),))
        return Value(kind, (self.emit(f"{ARITHMETIC[sign]} nsw i64 {a}, {b}"),))

    def divide(self, sign: str, one: Value, other: Value) -> Value:
        """Whole numbers, rounded down."""
        kind, a, b = self.alike(one, other, INT)
        if kind != INT:
            raise Unsupported(f"{sign} of numbers that are not whole")
        if b.isdecimal() and int(b) & (int(b) - 1) == 0 < int(b):
            exponent = int(b).bit_length() - 1
            text = f"ashr i64 {a}, {exponent}" if sign == "//" else f"and i64 {a}, {int(b) - 1}"
            return Value(INT, (self.emit(text),))
        rest = self.emit(f"srem i64 {a}, {b}")
        other_sign = self.emit(f"icmp slt i64 {self.emit(f'xor i64 {rest}, {b}')}, 0")
        some = self.emit(f"icmp ne i64 {rest}, 0")
        off = self.emit(f"and i1 {some}, {other_sign}")
        if sign == "%":
            more = self.emit(f"add i64 {rest}, {b}")
            return Value(INT, (self.emit(f"select i1 {off}, i64 {more}, i64 {rest}"),))
        whole, less = self.emit(f"sdiv i64 {a}, {b}"), self.emit(f"zext i1 {off} to i64")
        return Value(INT, (self.emit(f"sub i64 {whole}, {less}"),))

    def compare(self, sign: str, one: Value, other: Value) -> Value:
        """Whether it is so."""
        kind, a, b = self.alike(one, other, INT)
        whole, real = COMPARISONS[sign]
        first, second = literal(a), literal(b)
        if first is not None and second is not None:
            return constant(KNOWN[sign](first, second))
        does = f"fcmp {real} double" if kind == FLOAT else f"icmp {whole} i64"
        return Value(BOOL, (self.emit(f"{does} {a}, {b}"),))

    def choose(self, truth: str, one: Value, other: Value, note: str = "") -> Value:
        """One number, or the other."""
        kind, a, b = self.alike(one, other)
        text = f"select i1 {truth}, {kind.llvm} {a}, {kind.llvm} {b}{note}"
        return Value(kind, (self.emit(text),))
