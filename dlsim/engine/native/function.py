"""From Python to LLVM: the few things that the compiled engine's functions do.

They count, compare, branch and loop over numbers and arrays; they make no objects, and raise
nothing. So types follow from what a function is called with: each is translated for the types of
its arguments, and what it calls when it does. Integers have 64 bits, and indices are believed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

from dlsim.engine.native.builder import Program
from dlsim.engine.native.expressions import SIGNS, Expressions, Wider
from dlsim.engine.native.memory import element, length_of, load, read, store
from dlsim.engine.native.values import (
    INT,
    ONE,
    ZERO,
    Known,
    Range,
    Unsupported,
    Value,
    constant,
    joined,
    parts_of,
    split,
)

RETURNED = "return"  # the name under which the type of a function's value is known


class Function:
    """One function, for arguments of some types; `kinds` are those of its variables so far."""

    def __init__(
        self,
        program: Program,
        function: FunctionType,
        node: ast.FunctionDef,
        types: tuple[Any, ...],
        kinds: dict[str, Any],
    ) -> None:
        self.source = function
        self.e = Expressions(program, function.__globals__, kinds)
        self.b = self.e.b
        self.loops: list[tuple[str, str]] = []  # where `continue` and `break` go on
        self.parameters: list[str] = []
        for argument, kind in zip(node.args.args, types, strict=True):
            names = tuple(self.b.name("%p") for _ in parts_of(kind))
            self.parameters += [f"{p} {n}" for p, n in zip(parts_of(kind), names, strict=True)]
            self.e.assign(argument.arg, Value(kind, names))
        self.statements(node.body)
        self.returns = kinds.setdefault(RETURNED, Known(None))
        self.b.end("ret void" if self.returns == Known(None) else "unreachable")

    def text(self, name: str) -> str:
        """All of it."""
        kind = parts_of(self.returns)[0] if self.returns != Known(None) else "void"
        told = self.source.__dict__.get("llvm", "")  # how it is to be compiled
        head = f"define internal fastcc {kind} {name}({', '.join(self.parameters)}) #0 {told} {{"
        return "\n".join([head, *self.b.slots, *self.b.lines, "}"])

    def statements(self, nodes: list[ast.stmt]) -> None:
        """One after another, as far as they can be reached."""
        for node in nodes:
            if self.b.reached:
                try:
                    self.statement(node)
                except Unsupported as error:
                    path = self.source.__code__.co_filename
                    error.where = error.where or f"{path}:{node.lineno}: {ast.unparse(node)}: "
                    raise

    def statement(self, node: ast.stmt) -> None:
        """What it says, in LLVM's language."""
        match node:
            case ast.Expr(ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value):
                self.e.value(value)
            case ast.Assign(targets, value):
                given = self.e.value(value)
                for target in targets:
                    self.assign_to(target, given)
            case ast.AnnAssign(target, _, value) if value is not None:
                self.assign_to(target, self.e.value(value))
            case ast.AugAssign(target, sign, value):
                self.change(target, SIGNS[type(sign)], value)
            case ast.If(test, yes, no):
                self.e.if_else(test, lambda: self.statements(yes), lambda: self.statements(no))
            case ast.While(test, body, []):
                self.loop(partial(self.e.branch, test), lambda: self.statements(body))
            case ast.For(target, over, body, []):
                self.count(target, self.e.value(over), body)
            case ast.Return(value):
                self.give(constant(None) if value is None else self.e.value(value))
            case ast.Continue():
                self.b.jump(self.loops[-1][0])
            case ast.Break():
                self.b.jump(self.loops[-1][1])
            case _:
                raise Unsupported("this statement")

    def assign_to(self, target: ast.expr, value: Value) -> None:
        """Put a value where it belongs."""
        match target:
            case ast.Name(name):
                self.e.assign(name, value)
            case ast.Tuple(targets):
                for each, given in zip(targets, split(value), strict=True):
                    self.assign_to(each, given)
            case _:
                store(self.b, self.e.place(target), value)

    def change(self, target: ast.expr, sign: str, value: ast.expr) -> None:
        """`target += value`, or with another sign; where the target is, is found out once."""
        if isinstance(target, ast.Name):
            made = self.b.arithmetic(sign, self.e.value(target), self.e.value(value))
            self.e.assign(target.id, made)
            return
        place = self.e.place(target)
        store(self.b, place, self.b.arithmetic(sign, load(self.b, place), self.e.value(value)))

    def give(self, value: Value) -> None:
        """Return a value."""
        kind = joined(self.e.kinds.setdefault(RETURNED, value.type), value.type)
        if kind != self.e.kinds[RETURNED]:
            self.e.kinds[RETURNED] = kind
            raise Wider
        value = self.b.to(value, kind)
        self.b.end(f"ret {parts_of(kind)[0]} {value.parts[0]}" if value.parts else "ret void")

    def loop(
        self,
        enter: Callable[[str, str], object],
        body: Callable[[], object],
        step: Callable[[], object] = lambda: None,
    ) -> None:
        """Repeat the body, each time if `enter` goes into it, and a `step` after it."""
        head, inside, again, after = (self.b.name(kind) for kind in "hisa")
        self.b.begin_block(head)
        enter(inside, after)
        self.b.begin_block(inside)
        self.loops.append((again, after))
        body()
        self.loops.pop()
        self.b.begin_block(again)
        step()
        self.b.jump(head)
        self.b.begin_block(after)

    def count(self, target: ast.expr, over: Value, body: list[ast.stmt]) -> None:
        """For each number of a range, or element of an array."""
        b, numbers = self.b, isinstance(over.type, Range)
        if numbers:
            first, last, each = (Value(INT, (part,)) for part in over.parts)
        else:
            first, last, each = ZERO, length_of(b, over), ONE
        sign, at = ">" if numbers and over.type.down else "<", b.slot(INT)
        b.put(at, first)

        def enter(inside: str, after: str) -> None:
            (so,) = b.compare(sign, b.get(at, INT), last).parts
            b.fork(so, inside, after)

        def turn() -> None:
            number = b.get(at, INT)
            self.assign_to(target, number if numbers else read(b, element(b, over, [number])))
            self.statements(body)

        self.loop(enter, turn, lambda: b.put(at, b.arithmetic("+", b.get(at, INT), each)))
