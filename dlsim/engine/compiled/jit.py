"""Compilation. This is the only file that imports numba."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` compiled for the types it is called with; the result is kept on disk."""
    return cast(Function, _compile(function, forceinline=False))


def inlined(function: Function) -> Function:
    """The same for what only compiled functions call: it becomes a part of each caller."""
    return cast(Function, _compile(function, forceinline=True))


def _compile(function: Callable[..., Any], *, forceinline: bool) -> object:
    import numba

    config: Any = numba.config
    njit: Any = numba.njit
    # Numba looks for changes in the file of a function only, not in those it calls.
    before = config.CACHE_DIR
    config.CACHE_DIR = str(Path(before or Path(__file__).parent / "__pycache__") / _sources())
    try:
        # Nothing compiled here makes arrays, so nobody has to count who uses them (_nrt): that
        # would take ten times as long as all the rest.
        made: object = njit(
            cache=not forceinline,
            forceinline=forceinline,
            no_cpython_wrapper=forceinline,
            no_cfunc_wrapper=forceinline,
            error_model="numpy",
            _nrt=False,
        )(function)
        return made
    finally:
        config.CACHE_DIR = before


def kept() -> bool:
    """Whether anything that was compiled of the present text is on disk."""
    root = os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parent / "__pycache__"
    return (Path(root) / _sources()).is_dir()


@cache
def _sources() -> str:
    """A name for the present text of all compiled files."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return sha256(text).hexdigest()[:12]


def table(
    arrays: Mapping[str, NDArray[Any]],
    gone: Mapping[str, int] | None = None,
    known: dict[str, tuple[NDArray[Any], list[int]]] | None = None,
) -> NDArray[np.int64]:
    """Where each of some arrays begins and its shape, in the form that `reader` reads.

    `gone`: how many elements would be in front of each array, which nobody looks at. `known` is
    what was found out before, and is kept up to date: to look at an array takes a while.
    """
    known = {} if known is None else known
    for name, array in arrays.items():
        if name not in known or known[name][0] is not array:
            before = gone[name] if gone else 0
            begin = array.ctypes.data - before * array.itemsize
            shape = array.shape if array.ndim > 1 else (array.shape[0] + before,)
            known[name] = array, [begin, *shape]
    return np.array([word for _, words in known.values() for word in words], np.int64)


def fields(arrays: Any) -> dict[str, tuple[np.dtype[Any], int]]:
    """The type and the number of dimensions of each array of a named tuple."""
    return {name: (array.dtype, array.ndim) for name, array in arrays._asdict().items()}


def reader(of: Mapping[str, tuple[np.dtype[Any], int]]) -> Callable[[int], Any]:
    """A function for compiled code: from the address of a `table` to a tuple of arrays.

    `of`: what `fields` says of them. In compiled code the
    tuple is a single pointer. A tuple of arrays would be hundreds of arguments for each function,
    which takes minutes to compile.
    """
    import numba.core.typing.templates
    import numba.extending
    import numba.np.arrayobj
    import numba.np.numpy_support

    core: Any = numba.core
    extending: Any = numba.extending
    arrays: Any = numba.np.arrayobj
    from_dtype: Any = numba.np.numpy_support.from_dtype
    types, cgutils = core.types, core.cgutils

    Column = column_type()
    places: dict[str, tuple[Any, int]] = {}
    place = 0
    for name, (dtype, dimensions) in of.items():
        places[name] = Column(from_dtype(dtype), dimensions, "C"), place
        place += 1 + dimensions

    Arrays: Any = type("Arrays", (types.Type,), {})
    here = Arrays("dlsim.Arrays")
    extending.register_model(Arrays)(extending.models.OpaqueModel)

    def kind_of(_: Any, here: Any, name: str) -> Any:
        return places[name][0] if name in places else None

    template = core.typing.templates.AttributeTemplate
    members = {"key": Arrays, "generic_resolve": kind_of}
    extending.infer_getattr(type("Attributes", (template,), members))

    def get(context: Any, builder: Any, _: Any, value: Any, name: str) -> Any:
        kind, place = places[name]
        words = builder.bitcast(value, cgutils.intp_t.as_pointer())
        never_changes = builder.module.add_metadata([])

        def word(at: int) -> Any:
            loaded = builder.load(builder.gep(words, [cgutils.intp_t(place + at)]))
            loaded.set_metadata("invariant.load", never_changes)
            return loaded

        array = context.make_array(kind)(context, builder)
        element = context.get_data_type(kind.dtype)
        size = context.get_abi_sizeof(element)
        shape = [word(1 + axis) for axis in range(kind.ndim)]
        strides = [cgutils.intp_t(size)]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        begin = builder.inttoptr(word(0), element.as_pointer())
        arrays.populate_array(array, begin, shape, strides, size, meminfo=None)
        return array._getvalue()

    extending.lower_getattr_generic(Arrays)(get)

    def read(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], cgutils.voidptr_t)

        return here(types.intp), generate

    return cast(Callable[[int], Any], extending.intrinsic(read))


def column_type() -> Any:
    """The type of arrays in which nobody counts from the end.

    Numba takes an index below 0 for one that does, and looks out for it each time, which would
    take an eighth of the event loop's time.
    """
    import numba.core.imputils
    import numba.extending
    import numba.np.arrayobj

    types: Any = numba.core.types
    arrays: Any = numba.np.arrayobj
    lower: Any = numba.core.imputils.lower_builtin
    extending: Any = numba.extending

    class Column(types.Array):  # type: ignore[misc]
        def copy(self, *args: Any, **kwargs: Any) -> Any:
            same = super().copy(*args, **kwargs)
            return Column(same.dtype, same.ndim, same.layout, not same.mutable, None, same.aligned)

    extending.register_model(Column)(extending.models.ArrayModel)

    def unsigned(index: Any) -> Any:
        if isinstance(index, types.BaseTuple):
            return types.UniTuple(types.uintp, len(index))
        return types.uintp

    def lowered(original: Any) -> Any:
        def implement(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            column, index, *value = signature.args
            values = (
                values[0],
                context.cast(builder, values[1], index, unsigned(index)),
                *values[2:],
            )
            signature = signature.replace(args=(column, unsigned(index), *value))
            return original(context, builder, signature, values)

        return implement

    for index in types.Integer, types.BaseTuple:
        get = arrays.getitem_arraynd_intp if index is types.Integer else arrays.getitem_array_tuple
        lower(operator.getitem, Column, index)(lowered(get))
        lower(operator.setitem, Column, index, types.Any)(lowered(arrays.setitem_array))
    return Column
