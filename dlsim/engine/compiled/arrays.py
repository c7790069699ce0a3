"""How compiled code sees arrays: as one address for many, and without counting from the end."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numba.core.imputils
import numba.core.typing
import numba.extending
import numba.np.arrayobj
import numba.np.numpy_support
import numpy as np
from llvmlite import ir as core_ir  # type: ignore[import-untyped]
from numpy.typing import NDArray

core: Any = numba.core
extending: Any = numba.extending
arrayobj: Any = numba.np.arrayobj
from_dtype: Any = numba.np.numpy_support.from_dtype
lower: Any = core.imputils.lower_builtin
types, cgutils = core.types, core.cgutils
int64 = core_ir.IntType(64)

Item = TypeVar("Item")
Tuple = TypeVar("Tuple", bound=tuple[Any, ...])


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


class Column(types.Array):  # type: ignore[misc, name-defined]
    """The type of an array in which nobody counts from the end.

    Numba takes an index below 0 for one that does, and looks out for it each time, which would
    take an eighth of the event loop's time.
    """

    def __init__(self, array: Any, alone: str | None = None) -> None:
        self.alone = alone
        readonly, aligned = not array.mutable, array.aligned
        super().__init__(array.dtype, array.ndim, array.layout, readonly, None, aligned)

    @property
    def key(self) -> Any:
        """What makes it differ from other types."""
        return *super().key, self.alone

    def copy(self, *args: Any, **kwargs: Any) -> Column:
        """A type that differs in some respects, such as a row's."""
        return Column(super().copy(*args, **kwargs), self.alone)

    def unify(self, context: Any, other: Any) -> Column | None:
        """The type of what is either of two arrays."""
        either = super().unify(context, other)
        return either and Column(either)


class Row(types.Record):  # type: ignore[misc, name-defined]
    """The type of a row of an array with named fields that is `alone`."""

    def __init__(self, record: Any, alone: str) -> None:
        fields = [(name, field._asdict()) for name, field in record.fields.items()]
        super().__init__(fields, record.size, record.aligned)
        self.name: str = f"{self.name} {alone}"
        self.alone = alone


def plainly(original: Any) -> Any:
    """What numba does at an index, told that the index cannot be negative."""

    def implement(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, index, *value = signature.args
        many = isinstance(index, types.BaseTuple)
        unsigned = types.UniTuple(types.uintp, len(index)) if many else types.uintp
        at = context.cast(builder, values[1], index, unsigned)
        signature = signature.replace(args=(array, unsigned, *value))
        found = original(context, builder, signature, (values[0], at, *values[2:]))
        scalar = not isinstance(array.dtype, types.Record)
        if array.alone and scalar and (value or signature.return_type == array.dtype):
            tell(builder, array.alone)
        return found

    return implement


def tell(builder: Any, alone: str) -> None:
    """Tell the compiler that the last access to memory is to one array, and to no other one.

    Else it has to assume that whatever is written may change whatever was read, as arrays may
    overlap, and would read most numbers again and again.
    """
    module = builder.module
    for instruction in reversed(builder.block.instructions):
        if instruction.opname in ("load", "store"):
            root = module.add_metadata([core_ir.MetaDataString(module, "dlsim")])
            name = core_ir.MetaDataString(module, alone)
            kind = module.add_metadata([name, root, int64(0)])
            never_changes = [int64(1)] if alone == "rules" else []
            tag = module.add_metadata([kind, kind, int64(0), *never_changes])
            instruction.set_metadata("tbaa", tag)
            return
    raise AssertionError("nothing is accessed")


def told(original: Any) -> Any:
    """What numba does with a field of a record, but for what the compiler is told."""

    def implement(context: Any, builder: Any, *rest: Any) -> Any:
        found = original(context, builder, *rest)
        row = rest[0] if isinstance(rest[0], Row) else rest[0].args[0]
        tell(builder, row.alone)
        return found

    return implement


extending.register_model(Column)(extending.models.ArrayModel)
lower(operator.getitem, Column, types.Integer)(plainly(arrayobj.getitem_arraynd_intp))
lower(operator.getitem, Column, types.BaseTuple)(plainly(arrayobj.getitem_array_tuple))
lower(operator.setitem, Column, types.Integer, types.Any)(plainly(arrayobj.setitem_array))
lower(operator.setitem, Column, types.BaseTuple, types.Any)(plainly(arrayobj.setitem_array))
core.imputils.lower_cast(Column, Column)(lambda context, builder, one, other, value: value)
extending.register_model(Row)(extending.models.RecordModel)
extending.lower_getattr_generic(Row)(told(arrayobj.record_getattr))
extending.lower_setattr_generic(Row)(told(arrayobj.record_setattr))


def _columns(_: Any, arrays: Any) -> Any:
    made = types.NamedTuple([Column(array) for array in arrays.types], arrays.instance_class)
    return made(arrays), lambda context, builder, signature, values: values[0]


# For compiled code: a named tuple of arrays, as one of columns.
columns = cast(Callable[[Tuple], Tuple], extending.intrinsic(_columns))


def reader(of: Mapping[str, tuple[np.dtype[Any], int]]) -> Callable[[int], Any]:
    """A function for compiled code: from the address of a `table` to a tuple of arrays.

    `of`: what `fields` says of them; no two may share memory. In compiled code the tuple is a
    single pointer. A tuple of arrays would be hundreds of arguments for each function, which takes
    minutes to compile.
    """
    places: dict[str, tuple[Any, int]] = {}
    place = 0
    for name, (dtype, dimensions) in of.items():
        element = from_dtype(dtype)
        if isinstance(element, types.Record):
            element = Row(element, name)
        places[name] = Column(types.Array(element, dimensions, "C"), name), place
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
        arrayobj.populate_array(array, begin, shape, strides, size, meminfo=None)
        return array._getvalue()

    extending.lower_getattr_generic(Arrays)(get)

    def read(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], cgutils.voidptr_t)

        return here(types.intp), generate

    return cast(Callable[[int], Any], extending.intrinsic(read))


def _either(_: Any, condition: Any, one: Any, other: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        chosen = builder.select(*values)
        chosen.set_metadata("unpredictable", builder.module.add_metadata([]))
        return chosen

    return one(types.boolean, one, one), generate


# For compiled code: one or the other, without a branch, which it is costly to guess wrong.
either = cast(Callable[[bool, Item, Item], Item], extending.intrinsic(_either))
