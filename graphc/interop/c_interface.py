"""What a compiled program looks like from C: names and types of its sizes, inputs and outputs.

Owns the choice of C names and which size symbols a caller gives.  Knows plans; must not know LLVM or files.
Invariants: names are C and C++ identifiers and differ within one struct; every size that the program asks for is an
expression of the fields of `sizes` alone; the same plan and names give the same interface.
"""
from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import InternalError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel.plan import Plan, Slot

ABI = 1  # of the functions, structs and codes that do not depend on the model


class Status(IntEnum):
    """What the functions of a library return."""

    OK = 0
    BAD_ARGUMENT = 1
    BAD_SIZE = 2
    CHECK_FAILED = 3
    SIZE_IS_ONE = 4
    OUT_OF_MEMORY = 5
    KERNEL_FAILED = 6
    UNSUPPORTED_CPU = 7
    SYSTEM_FAILED = 8


MEANINGS: Mapping[Status, str] = {
    Status.OK: "no error",
    Status.BAD_ARGUMENT: "a pointer is null or not aligned to its elements, or an option has no meaning",
    Status.BAD_SIZE: "a size is negative, does not fit 63 bits, or is not the value that was fed as this size",
    Status.CHECK_FAILED: "the sizes do not fit together",
    Status.SIZE_IS_ONE: "a size of 1 needs a program that this library does not contain",
    Status.OUT_OF_MEMORY: "not enough memory",
    Status.KERNEL_FAILED: "a value is not allowed where it was met, such as an index that is out of range",
    Status.UNSUPPORTED_CPU: "this processor lacks instructions that the library was compiled for",
    Status.SYSTEM_FAILED: "the system gives no random numbers to seed with",
}

C_TYPES: Mapping[DType, str] = {
    dtypes.bool_: "bool", dtypes.float16: "uint16_t", dtypes.bfloat16: "uint16_t", dtypes.float32: "float",
    dtypes.float64: "double", **{d: f"{d.name}_t" for d in dtypes.ALL if d.is_integer},
}

_KEYWORDS = frozenset("""
    alignas alignof and asm auto bitand bitor bool break case catch char class compl concept const constexpr continue
    decltype default delete do double else enum explicit export extern false float for friend goto if inline int long
    mutable namespace new noexcept not nullptr operator or private protected public register requires restrict return
    short signed sizeof static static_assert struct switch template this thread_local throw true try typedef typeid
    typename typeof union unsigned using virtual void volatile wchar_t while xor""".split())


@dataclass(frozen=True, slots=True)
class SizeField:
    """A size that the caller gives.  element: (feed, element) of the fed integer that must equal it, or None."""

    name: str
    told: str
    element: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class ArrayField:
    """An input or output: its C name, its name in the graph, dtype, and shape in the names of size fields."""

    name: str
    label: str
    dtype: DType
    shape: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """The C side of a program.  symbols: each size symbol of the plan in terms of the size fields' names."""

    prefix: str
    sizes: tuple[SizeField, ...]
    inputs: tuple[ArrayField, ...]
    outputs: tuple[ArrayField, ...]
    symbols: Mapping[str, Size]

    def rename(self, size: Size) -> Size:
        """Return a size of the plan as an expression of size fields."""
        return dim.substitute(size, self.symbols)

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of all functions."""
        own = ("create", "destroy", "run", "error_text", "status_text", "interface", "version")
        return tuple(f"{self.prefix}_{name}" for name in own) + tuple(map(self.shape_function, self.outputs))

    def shape_function(self, output: ArrayField) -> str:
        """Return the name of the function that tells the shape of `output`."""
        return f"{self.prefix}_shape_of_{output.name}"

    @property
    def digest(self) -> int:
        """63 bits that differ where callers would have to be compiled anew."""
        told = [str(ABI), self.prefix, *(s.name for s in self.sizes)]
        for fields in (self.inputs, self.outputs):
            told += ["|", *(f"{a.name} {a.dtype.name} {a.shape}" for a in fields)]
        return int.from_bytes(hashlib.sha256("\n".join(told).encode()).digest()[:8], "little") >> 1


# Names of models whose functions would be named as functions of the C library or of the step driver are.
_FAMILIES = frozenset(("cnd", "graphc", "mtx", "pthread", "sem", "thrd", "timer"))


def identifier(text: str) -> str:
    """Return `text` as an identifier of C and C++."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "x"
    return f"x{name}" if name[0].isdigit() else f"{name}_" if name in _KEYWORDS else name


def interface_of(plan: Plan, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> Interface:
    """Return the interface of `plan`.  name: the model's.  inputs, outputs: one name per feed and per fetch."""
    arguments = _distinct(inputs)
    symbols, origins = _symbols(plan)
    fields = _size_fields(plan, origins, arguments)
    named = {symbol: dim.symbol(field.name) for symbol, field in zip(origins, fields, strict=True)}
    symbols = {s: dim.substitute(size, named) for s, size in symbols.items()}

    def arrays(names: Iterable[str], slots: Sequence[Slot]) -> tuple[ArrayField, ...]:
        return tuple(ArrayField(n, slot.name, slot.dtype, tuple(dim.substitute(s, symbols) for s in slot.shape))
                     for n, slot in zip(names, slots, strict=True))

    prefix = identifier(name)
    return Interface(f"{prefix}_" if prefix in _FAMILIES else prefix, fields, arrays(arguments, plan.feeds),
                     arrays(_distinct(outputs), plan.fetches), symbols)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return `names` as identifiers; one that was taken before gets a number."""
    taken: dict[str, None] = {}
    for name in map(identifier, names):
        number, free = 2, name
        while free in taken:
            number, free = number + 1, f"{name}_{number}"
        taken[free] = None
    return tuple(taken)


def _symbols(plan: Plan) -> tuple[dict[str, Size], dict[str, tuple[int, int, tuple[int, int] | None]]]:
    """Return every symbol in terms of those that the caller gives, and where these come from.

    An array in C has the shape that its declaration states.  So an axis whose size is declared as another symbol, or
    an expression of others, tells nothing new: its symbol is that expression.  Sizes that are fed as values are given.
    """
    given: dict[str, tuple[int, int, tuple[int, int] | None]] = {}
    known: dict[str, Size] = {}
    for b in plan.bindings:
        if b.element >= 0:
            feed, axis, _ = given.get(b.symbol, (b.feed, b.axis, None))
            given[b.symbol] = feed, axis, (b.feed, b.element)
        elif plan.feeds[b.feed].shape[b.axis] == dim.symbol(b.symbol):
            given.setdefault(b.symbol, (b.feed, b.axis, None))
    for b in plan.bindings:
        if b.symbol not in given:
            known.setdefault(b.symbol, plan.feeds[b.feed].shape[b.axis])
    for _ in known:
        known = {symbol: dim.substitute(size, known) for symbol, size in known.items()}
    if strangers := dim.symbols_of(known.values()) - given.keys():
        raise InternalError(f"sizes that nothing binds: {', '.join(sorted(strangers))}")
    return {**{symbol: dim.symbol(symbol) for symbol in given}, **known}, given


def _size_fields(plan: Plan, origins: Mapping[str, tuple[int, int, tuple[int, int] | None]],
                 arguments: Sequence[str]) -> tuple[SizeField, ...]:
    """The sizes that the caller gives; one that is the first axis of arrays, and the only one, is called batch."""
    names, told = [], []
    for symbol, (feed, axis, element) in origins.items():
        axes = [f"axis {a} of {arguments[f]}" for f, slot in enumerate(plan.feeds)
                for a, size in enumerate(slot.shape) if size == dim.symbol(symbol)]
        if element is not None:
            axes.append(f"element {element[1]} of {arguments[element[0]]}" if plan.feeds[element[0]].shape else
                        f"the value of {arguments[element[0]]}")
        alone = len(origins) == 1 and axes and all(text.startswith("axis 0 of ") for text in axes)
        names.append("batch" if alone else
                     f"{arguments[feed]}_{axis}" if axis >= 0 else f"{arguments[feed]}_value")
        told.append("; ".join(axes))
    return tuple(SizeField(n, t, element) for n, t, (_, _, element) in
                 zip(_distinct(names), told, origins.values(), strict=True))
