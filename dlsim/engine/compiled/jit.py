"""Compilation: from functions in Python to machine code, which is kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from ctypes import CFUNCTYPE, c_int64
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any, TypeVar, cast

from numpy.typing import NDArray

from dlsim.engine.native.arrays import begin

Function = TypeVar("Function", bound=Callable[..., Any])
ROOMS = ("engine", "trace", "scenario")  # of dlsim, that what is compiled has something of


class Kernel:
    """A function that is compiled when it is first called, or read from disk.

    It gets integers, of which some are the addresses of arrays that it is called with.
    """

    def __init__(
        self, function: Any, *, vectorised: bool, known: Mapping[str, Any] | None = None
    ) -> None:
        self.function, self.vectorised, self.known = function, vectorised, known
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.code: Callable[..., Any] | None = None

    def __call__(self, *arguments: NDArray[Any] | int) -> Any:
        """What the function does and returns."""
        if self.code is None:
            self.code = self.load()
        return self.code(*[each if isinstance(each, int) else begin(each) for each in arguments])

    def load(self) -> Callable[..., Any]:
        """The machine code."""
        home = _home()
        here = _text(Path(self.function.__code__.co_filename))
        path = home / _sources() / f"{self.name}-{here}-{_processor()}.o" if home else None
        code = _read(path) if path else None
        if code is None:
            code = self.compile()
            if path is not None:
                _write(path, code)
        known = _llvm().JITLibraryBuilder().add_current_process().add_object_img(code)
        name = f"{self.function.__module__}.{self.function.__name__}"
        linked = known.export_symbol(name).link(_linker(), f"{self.name}.{len(_kept)}")
        arguments = [c_int64] * self.function.__code__.co_argcount
        made: Callable[..., Any] = CFUNCTYPE(c_int64, *arguments)(linked[name])
        _kept.append(linked)  # the code goes with it
        return made

    def compile(self) -> bytes:
        """Translate, and optimise; loops of which most have one turn are left as they are."""
        from dlsim.engine.native.module import Module

        llvm, machine = _llvm(), _machine()
        text = Module(self.known).text(self.function, self.function.__code__.co_argcount)
        module = llvm.parse_assembly(text)
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        tuning = llvm.create_pipeline_tuning_options(3)
        tuning.loop_vectorization = tuning.slp_vectorization = self.vectorised
        tuning.loop_unrolling = self.vectorised
        passes = llvm.create_pass_builder(machine, tuning)
        passes.getModulePassManager().run(module, passes)
        return bytes(machine.emit_object(module))


def compiled(function: Function) -> Function:
    """`function`, of integers, in machine code that is as fast as can be over long arrays."""
    return cast(Function, Kernel(function, vectorised=True))


def event_loop(function: Function) -> Function:
    """The same for one that does something else at each turn."""
    return cast(Function, Kernel(function, vectorised=False))


def event_loop_where(known: Mapping[str, Any]) -> Callable[[Function], Function]:
    """The same where it is `known` what is in some places of its table's fixed arrays.

    As so much of it never happens, it is soon compiled, with its short loops written out.
    """

    def told(function: Function) -> Function:
        return cast(Function, Kernel(function, vectorised=True, known=known))

    return told


def inlined(function: Function) -> Function:
    """What only compiled functions call: it becomes a part of each caller."""
    return _told(function, "alwaysinline")


def seldom(function: Function) -> Function:
    """The same for what is called a few times in an epoch: callers are better off without it."""
    return _told(function, "noinline cold optsize")


def _told(function: Function, attributes: str) -> Function:
    function.__dict__["llvm"] = attributes
    return function


_kept: list[Any] = []


@cache
def _llvm() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@cache
def _machine() -> Any:
    llvm = _llvm()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        reloc="pic",
        codemodel="small",
        jit=True,
    )


@cache
def _linker() -> Any:
    return _llvm().create_lljit_compiler()


@cache
def _processor() -> str:
    """A name for the processor, and for who compiles: code is not for others."""
    import llvmlite
    from llvmlite import binding

    features = binding.get_host_cpu_features().flatten()
    known = f"{binding.get_process_triple()} {binding.get_host_cpu_name()} {features}"
    return sha256(f"{known} {llvmlite.__version__}".encode()).hexdigest()[:12]


def kept(kernel: str) -> bool:
    """Whether this function, as `module.name`, is on disk, compiled of the present text."""
    root = _home()
    return root is not None and any((root / _sources()).glob(f"{kernel}-*.o"))


def _read(path: Path) -> bytes | None:
    """What is in a file, if it is what was written."""
    with suppress(OSError):
        known, code = (data := path.read_bytes())[:32], data[32:]
        return code if sha256(code).digest() == known else None
    return None


def _write(path: Path, code: bytes) -> None:
    """Write a file at once, for whoever reads it; or not at all, where there is no room."""
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(sha256(code).digest() + code)
        Path(file.name).replace(path)


def _home() -> Path | None:
    """Where what is compiled is kept: as one is told, beside this file, or with one's caches.

    None where none of these can be written to: then nothing is kept.
    """
    given, caches = os.environ.get("DLSIM_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    for root in (
        *([Path(given)] if given else []),
        Path(__file__).parent / "__pycache__",
        Path(caches or "~/.cache").expanduser() / "dlsim",
    ):
        with suppress(OSError, RuntimeError):  # the latter: there is no home
            root.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=root).close()
            return root
    return None


@cache
def _sources() -> str:
    """A name for the present text of all that compiled code depends on."""
    root = Path(__file__).parents[2]
    return _text(*sorted(path for room in ROOMS for path in (root / room).rglob("*.py")))


def _text(*files: Path) -> str:
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
