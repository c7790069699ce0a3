"""All that a function calls, in LLVM's language."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Mapping
from functools import cache
from types import FunctionType
from typing import Any

from dlsim.engine.native.expressions import Wider
from dlsim.engine.native.function import Function
from dlsim.engine.native.values import INT, Known, Unsupported, Value, constant


class Module:
    """All that is translated, in LLVM's language.

    `known`: what is in some places of arrays that are fixed, as `State.rules.workers`.
    """

    def __init__(self, known: Mapping[str, bool | int | float] | None = None) -> None:
        self.known: Mapping[str, Value] = {
            f"fixed {name}": constant(value) for name, value in (known or {}).items()
        }
        self.made: dict[tuple[FunctionType, tuple[Any, ...]], tuple[str, Any] | None] = {}
        self.texts = [
            "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
            "declare i64 @llvm.cttz.i64(i64, i1)",
            "declare i64 @llvm.fshr.i64(i64, i64, i64)",
            *(f"declare double @{name}(double)" for name in ("exp", "log", "log1p")),
            "declare double @frexp(double, ptr)",
            "declare double @ldexp(double, i32)",
        ]
        self.tags: dict[str, str] = {}
        self.notes = ["!0 = !{}", '!1 = !{!"dlsim"}']

    def tag(self, alone: str) -> str:
        """The note on an access to memory of this name."""
        if alone not in self.tags:
            number = len(self.notes)
            fixed = ", i64 1" if alone.startswith("fixed ") else ""
            self.notes.append(f'!{number} = !{{!"{alone}", !1, i64 0}}')
            self.notes.append(f"!{number + 1} = !{{!{number}, !{number}, i64 0{fixed}}}")
            self.tags[alone] = f"!{number + 1}"
        return self.tags[alone]

    def function(self, function: FunctionType, types: tuple[Any, ...]) -> tuple[str, Any]:
        """The name of a function for arguments of these types, and the type of what it returns."""
        if (function, types) not in self.made:
            self.made[function, types] = None
            name = f'@"{function.__module__}.{function.__qualname__}.{len(self.made)}"'
            self.made[function, types] = name, self.translate(name, function, types)
        made = self.made[function, types]
        if made is None:
            raise Unsupported(f"{function.__qualname__} calls itself")
        return made

    def translate(self, name: str, function: FunctionType, types: tuple[Any, ...]) -> Any:
        """Translate a function, until all its variables are as wide as they get."""
        node, kinds = definition(function), dict[str, Any]()
        while True:
            try:
                made = Function(self, function, node, types, kinds)
            except Wider:
                continue
            self.texts.append(made.text(name))
            return made.returns

    def text(self, kernel: FunctionType, arguments: int) -> str:
        """All of it, with one function, of so many integers, that others may call."""
        name, returns = self.function(kernel, (INT,) * arguments)
        given = ", ".join(f"i64 %a{i}" for i in range(arguments))
        kind = "void" if returns == Known(None) else "i64"
        gives = "ret void" if kind == "void" else "ret i64 %r"
        call = f"call fastcc {kind} {name}({given})"
        body = f"  {call if kind == 'void' else f'%r = {call}'}\n  {gives}"
        outer = f'define {kind} @"{kernel.__module__}.{kernel.__name__}"({given}) {{\n{body}\n}}'
        return "\n".join([*self.texts, outer, "attributes #0 = { nounwind }", *self.notes])


def definition(function: FunctionType) -> ast.FunctionDef:
    """The text of a function, as a tree."""
    code = function.__code__
    return _definitions(code.co_filename)[code.co_firstlineno]


@cache
def _definitions(path: str) -> dict[int, ast.FunctionDef]:
    """All functions of a file, by the line in which each begins."""
    tree = ast.parse("".join(linecache.getlines(path)))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {min([node.lineno, *(d.lineno for d in node.decorator_list)]): node for node in found}
