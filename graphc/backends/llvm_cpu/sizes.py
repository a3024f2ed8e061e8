"""Sizes at run time: expressions over the kernel's size table, computed once at entry.

Owns the evaluation of `ir.dim` sizes as 64-bit instructions.  Knows no kernel.  Invariant: every value
dominates the whole function, and each distinct size and irreducible part is computed once.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc import dtypes
from graphc.backends.llvm_cpu import primitives
from graphc.backends.llvm_cpu.builder import Builder, Value
from graphc.errors import BackendError
from graphc.ir.dim import Atom, Dim, Size


class Sizes:
    """names: the size symbols in the order of `table`, which is the address of their values."""

    def __init__(self, builder: Builder, names: Sequence[str], table: Value) -> None:
        self.b, self._names, self._table = builder, tuple(names), table
        self._values: dict[Size, Value] = {}
        self._atoms: dict[Atom, Value] = {}

    def value(self, size: Size) -> Value:
        """Return a size as an i64."""
        if isinstance(size, int):
            return self.b.i64(size)
        if size not in self._values:
            with self.b.entry():
                self._values[size] = self._compute(size)
        return self._values[size]

    def strides(self, shape: Sequence[Size]) -> tuple[Value, ...]:
        """Return the strides, in elements, of a row-major array."""
        strides: list[Value] = []
        running: Size = 1
        for extent in reversed(shape):
            strides.append(self.value(running))
            running = running * extent
        return tuple(reversed(strides))

    def _compute(self, size: Dim) -> Value:
        total = self.b.i64(0)
        for atoms, coefficient in size.terms:
            product = self.b.i64(coefficient)
            for atom in atoms:
                product = product * self._atom(atom)
            total = total + product
        return total

    def _atom(self, atom: Atom) -> Value:
        if atom not in self._atoms:
            self._atoms[atom] = self._operation(atom)
        return self._atoms[atom]

    def _operation(self, atom: Atom) -> Value:
        b = self.b
        if atom.op == "sym":
            return b.load(b.at(self._table, b.i64(self._names.index(atom.args[0])), "i64"), "i64")
        x, y = (self.value(a) for a in atom.args)
        match atom.op:
            case "min" | "max":
                return b.intrinsic("s" + atom.op, x, y)
            case "//" | "%":
                return primitives.apply(b, "floordiv" if atom.op == "//" else "floormod", dtypes.int64, [x, y])
            case _:
                raise BackendError(f"size operation {atom.op!r} is unknown to llvm_cpu")
