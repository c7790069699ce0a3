"""What an expression in a function comes to, as instructions."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from types import FunctionType
from typing import Any

from dlsim.engine.native.arrays import Reader
from dlsim.engine.native.builder import Builder, Program
from dlsim.engine.native.built_in import BUILT_IN
from dlsim.engine.native.memory import (
    Place,
    element,
    field,
    length_of,
    load,
    read,
    stretch,
    widened,
)
from dlsim.engine.native.values import (
    BOOL,
    FLOAT,
    INT,
    ZERO,
    Array,
    Column,
    Known,
    Row,
    Several,
    Table,
    Unsupported,
    Value,
    constant,
    joined,
    parts_of,
    split,
)

SIGNS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


class Wider(Exception):
    """A variable turns out to be of a wider type than was known when it was first met."""


class Expressions:
    """Those of one function: its variables, of the `kinds` known so far, and what it calls."""

    def __init__(self, program: Program, known: dict[str, Any], kinds: dict[str, Any]) -> None:
        self.program, self.known, self.kinds = program, known, kinds
        self.b = Builder(program)
        self.rooms: dict[str, list[str]] = {}

    def value(self, node: ast.expr) -> Value:
        """What it comes to."""
        match node:
            case ast.Constant(given):
                return constant(given)
            case ast.Name(name):
                return self.named(name)
            case ast.Attribute(of, name):
                return self.attribute(self.value(of), name)
            case ast.Subscript(of, index):
                return self.item(self.value(of), index)
            case ast.Tuple(items):
                found = [self.value(each) for each in items]
                parts = tuple(part for each in found for part in each.parts)
                return Value(Several(tuple(each.type for each in found)), parts)
            case ast.BinOp(one, sign, other):
                return self.b.arithmetic(SIGNS[type(sign)], self.value(one), self.value(other))
            case ast.UnaryOp(ast.USub(), of):
                return self.negative(self.value(of))
            case ast.Compare(one, signs, others):
                return self.comparisons(self.value(one), signs, others)
            case ast.BoolOp() | ast.UnaryOp(ast.Not()):
                return self.chosen(node, lambda: constant(True), lambda: constant(False))
            case ast.IfExp(test, yes, no):
                return self.chosen(test, lambda: self.value(yes), lambda: self.value(no))
            case ast.Call(called, arguments, []):
                return self.call(self.value(called), [self.value(each) for each in arguments])
        raise Unsupported(ast.unparse(node))

    def named(self, name: str) -> Value:
        """A variable, or what is known by this name."""
        if name in self.rooms:
            return self.b.get(self.rooms[name], self.kinds[name])
        if name not in self.known and not hasattr(builtins, name):
            raise Unsupported(f"{name} is not known here")
        return constant(self.known[name] if name in self.known else getattr(builtins, name))

    def attribute(self, of: Value, name: str) -> Value:
        """A column, a field, a shape; or what a module has under this name."""
        match of.type:
            case Table():
                return Value(of.type.column(name), of.parts)
            case Row():
                return load(self.b, field(self.b, of, name))
            case Known(what):
                return constant(getattr(what, name))
            case Column() | Array() if name == "shape":
                kind = of.type.array if isinstance(of.type, Column) else of.type
                lengths = [length_of(self.b, of, axis).parts[0] for axis in range(kind.ndim)]
                return Value(Several((INT,) * kind.ndim), tuple(lengths))
        raise Unsupported(f"{name} of {of.type}")

    def item(self, of: Value, index: ast.expr) -> Value:
        """An element, or several."""
        match of.type, index:
            case Several(), ast.Constant(int(number)):
                return split(of)[number]
            case _, ast.Slice(low, high, None):
                first = ZERO if low is None else self.value(low)
                return stretch(self.b, of, first, None if high is None else self.value(high))
        return read(self.b, element(self.b, of, self.indices(index)))

    def indices(self, index: ast.expr) -> list[Value]:
        """One index, or one for each axis."""
        return [self.value(i) for i in (index.elts if isinstance(index, ast.Tuple) else [index])]

    def place(self, node: ast.expr) -> Place:
        """Where something is that can be changed."""
        match node:
            case ast.Attribute(of, name):
                return field(self.b, self.value(of), name)
            case ast.Subscript(of, index):
                found = element(self.b, self.value(of), self.indices(index))
                if isinstance(found, Place):
                    return found
        raise Unsupported(ast.unparse(node))

    def negative(self, value: Value) -> Value:
        """The number below zero that is as large."""
        (operand,) = value.parts
        if value.type == FLOAT:
            return Value(FLOAT, (self.b.emit(f"fneg double {operand}"),))
        if operand.isdecimal():
            return constant(-int(operand))
        return self.b.arithmetic("-", ZERO, value)

    def comparisons(self, one: Value, signs: list[ast.cmpop], others: list[ast.expr]) -> Value:
        """Whether all of them are so."""
        so = None
        for sign, node in zip(signs, others, strict=True):
            other = self.value(node)
            found = self.b.compare(SIGNS[type(sign)], one, other)
            so = found if so is None else self.b.arithmetic("&", so, found)
            one = other
        assert so is not None
        return so

    def chosen(self, test: ast.expr, yes: Callable[[], Value], no: Callable[[], Value]) -> Value:
        """One value or another, of which only that one is found out."""
        name = f"{test.lineno}:{test.col_offset} {test.end_lineno}:{test.end_col_offset}"
        self.if_else(test, lambda: self.assign(name, yes()), lambda: self.assign(name, no()))
        return self.named(name)

    def call(self, called: Value, given: list[Value]) -> Value:
        """What comes of a call."""
        function = called.type.what
        if isinstance(function, Reader):
            return Value(function.table, (self.b.emit(f"inttoptr i64 {given[0].parts[0]} to ptr"),))
        if function in BUILT_IN:
            return BUILT_IN[function](self.b, *given)
        if not isinstance(function, FunctionType):
            raise Unsupported(f"{function} is not known here")
        name, returns = self.program.function(function, tuple(each.type for each in given))
        pairs = (
            (p, o) for each in given for p, o in zip(parts_of(each.type), each.parts, strict=True)
        )
        arguments = ", ".join(f"{part} {operand}" for part, operand in pairs)
        if returns == Known(None):
            self.b.do(f"call fastcc void {name}({arguments})")
            return constant(None)
        return Value(
            returns, (self.b.emit(f"call fastcc {parts_of(returns)[0]} {name}({arguments})"),)
        )

    def assign(self, name: str, value: Value) -> None:
        """Give a variable a value."""
        kind = joined(self.kinds.setdefault(name, value.type), value.type)
        if kind != self.kinds[name]:
            self.kinds[name] = kind
            raise Wider
        if name not in self.rooms:
            self.rooms[name] = self.b.slot(kind)
        self.b.put(self.rooms[name], widened(self.b, value, kind))

    def if_else(self, test: ast.expr, yes: Callable[[], object], no: Callable[[], object]) -> None:
        """One or the other."""
        one, other, after = self.b.name("y"), self.b.name("n"), self.b.name("a")
        self.branch(test, one, other)
        for label, write in ((one, yes), (other, no)):
            self.b.begin_block(label)
            if self.b.reached:
                write()
            self.b.jump(after)
        self.b.begin_block(after)

    def branch(self, test: ast.expr, yes: str, no: str) -> None:
        """Go on at one of two labels; what decides nothing is not looked at."""
        match test:
            case ast.Constant(bool(known)):
                self.b.jump(yes if known else no)
            case ast.UnaryOp(ast.Not(), of):
                self.branch(of, no, yes)
            case ast.BoolOp(sign, each):
                for one in each[:-1]:
                    more = self.b.name("m")
                    labels = (more, no) if isinstance(sign, ast.And) else (yes, more)
                    self.branch(one, *labels)
                    self.b.begin_block(more)
                self.branch(each[-1], yes, no)
            case _:
                self.b.fork(self.b.to(self.value(test), BOOL).parts[0], yes, no)
