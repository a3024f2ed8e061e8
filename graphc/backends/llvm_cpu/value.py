"""Typed LLVM values with operators, and the module that collects functions: the nouns of builder.py.

Owns `Value` and `Module`.  Knows no kernel IR and imports no LLVM.  Invariants: vectors have a power of
two of lanes; a known scalar integer carries its number, so that index arithmetic folds as it is built.
"""
from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias, Union

from graphc.kernel.target import Target

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.builder import Builder

FLOATS = {"float": 32, "double": 64}
# Attribute groups of helper functions; the first stands in their text until the module is printed.
HELPER, HELPER_ONCE, HELPER_OFTEN = "#helper", "#0", "#1"
SUFFIX = {"float": "f32", "double": "f64", "ptr": "p0"}


def type_of(element: str, lanes: int) -> str:
    """Return the LLVM type of `lanes` elements."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def width_of(element: str) -> int:
    """Return the bits of one element; a pointer has 64."""
    return FLOATS.get(element) or (64 if element == "ptr" else int(element[1:]))


def float_text(value: float, element: str) -> str:
    """Return `value`, rounded to `element`, as LLVM writes it exactly."""
    if element == "float":
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


Operandish: TypeAlias = Union["Value", int, float]


class Value:
    """An LLVM value: its text, element type ("float", "i32", "ptr", ...) and lanes; 1 is a scalar.

    constant: the number, for integer scalars that are known.  Operators emit into the builder that made
    the value; a Python number on the right becomes a constant of the same type, and a scalar meeting
    a vector is splatted.  Comparisons are signed, and ordered for floats (false on NaN, but `ne`).
    """

    __slots__ = ("b", "constant", "element", "lanes", "text")

    def __init__(self, b: Builder, text: str, element: str, lanes: int = 1, constant: int | None = None) -> None:
        self.b, self.text, self.element, self.lanes, self.constant = b, text, element, lanes, constant

    @property
    def type(self) -> str:
        return type_of(self.element, self.lanes)

    @property
    def is_float(self) -> bool:
        return self.element in FLOATS

    @property
    def typed(self) -> str:
        """The value with its type in front, as instructions want their operands."""
        return f"{self.type} {self.text}"

    def __repr__(self) -> str:
        return self.typed

    def __add__(self, other: Operandish) -> Value:
        return self.b.binary("fadd" if self.is_float else "add", self, other)

    def __sub__(self, other: Operandish) -> Value:
        return self.b.binary("fsub" if self.is_float else "sub", self, other)

    def __mul__(self, other: Operandish) -> Value:
        return self.b.binary("fmul" if self.is_float else "mul", self, other)

    def __radd__(self, other: Operandish) -> Value:
        return self.b.like(other, self) + self

    def __rsub__(self, other: Operandish) -> Value:
        return self.b.like(other, self) - self

    def __rmul__(self, other: Operandish) -> Value:
        return self.b.like(other, self) * self

    def __truediv__(self, other: Operandish) -> Value:
        return self.b.binary("fdiv", self, other)

    def __rtruediv__(self, other: Operandish) -> Value:
        return self.b.like(other, self) / self

    def __neg__(self) -> Value:
        return self.b.emit(f"fneg {self.typed}", self.element, self.lanes) if self.is_float else 0 - self

    def __and__(self, other: Operandish) -> Value:
        return self.b.binary("and", self, other)

    def __or__(self, other: Operandish) -> Value:
        return self.b.binary("or", self, other)

    def __xor__(self, other: Operandish) -> Value:
        return self.b.binary("xor", self, other)

    def __invert__(self) -> Value:
        return self ^ -1

    def __lshift__(self, other: Operandish) -> Value:
        return self.b.binary("shl", self, other)

    def arithmetic_shift(self, other: Operandish) -> Value:
        return self.b.binary("ashr", self, other)

    def logical_shift(self, other: Operandish) -> Value:
        return self.b.binary("lshr", self, other)

    def compare(self, predicate: str, other: Operandish) -> Value:
        """Return the i1 of an fcmp or icmp with this LLVM predicate."""
        return self.b.compare(predicate, self, other)

    def eq(self, other: Operandish) -> Value:
        return self.compare("oeq" if self.is_float else "eq", other)

    def ne(self, other: Operandish) -> Value:
        return self.compare("une" if self.is_float else "ne", other)

    def lt(self, other: Operandish) -> Value:
        return self.compare("olt" if self.is_float else "slt", other)

    def le(self, other: Operandish) -> Value:
        return self.compare("ole" if self.is_float else "sle", other)

    def gt(self, other: Operandish) -> Value:
        return self.compare("ogt" if self.is_float else "sgt", other)

    def ge(self, other: Operandish) -> Value:
        return self.compare("oge" if self.is_float else "sge", other)

    def is_nan(self) -> Value:
        return self.compare("uno", self)


class Module:
    """Functions, declarations, constants and metadata of one LLVM module for one target.

    Functions defined without attributes of their own are helpers: inlined where few calls use them, else
    called, so that a kernel with many of them stays small.
    """

    INLINE_LIMIT = 4

    def __init__(self, target: Target) -> None:
        self.target = target
        self.declarations: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.functions: dict[str, str] = {}
        self.metadata: dict[str, int] = {}
        self.uses: dict[str, int] = {}
        self.features = frozenset(f[1:] for f in target.features if f[0] == "+")
        self.is_x86 = target.triple.startswith(("x86_64", "amd64"))

    def has(self, feature: str) -> bool:
        """Return whether the target has this LLVM feature."""
        return feature in self.features

    def metadata_id(self, content: str) -> str:
        """Return the number of the metadata node `content`, such as "!{i32 1}"."""
        return f"!{self.metadata.setdefault(content, len(self.metadata))}"

    def take(self, helpers: Module) -> None:
        """Add the helper functions of another module, and what they need, where they are missing."""
        for name, text in helpers.functions.items():
            self.functions.setdefault(name, text)
        self.declarations.update(helpers.declarations)
        self.constants.update(helpers.constants)

    def text(self) -> str:
        """Return the whole module."""
        groups = {HELPER_ONCE: "alwaysinline nounwind", HELPER_OFTEN: "noinline nounwind"}
        often = {name for name, uses in self.uses.items() if uses > self.INLINE_LIMIT}
        functions = (text.replace(HELPER, HELPER_OFTEN if name in often else HELPER_ONCE, 1)
                     for name, text in self.functions.items())
        attributes = (f"attributes {g} = {{ {content} }}\n" for g, content in groups.items())
        nodes = (f"!{n} = {content}\n" for content, n in self.metadata.items())
        return "".join((f'target triple = "{self.target.triple}"\n', *self.constants.values(), *functions,
                        *sorted(self.declarations.values()), *attributes, *nodes))
