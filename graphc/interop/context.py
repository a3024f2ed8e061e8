"""A context of a shared library: its layout in memory, and the words in which the code around kernels is written.

Owns where everything lies in a context, and the tables that its step table is made from.  Knows plans' layouts
(runtime/frame.py); must not know what the functions of a library do.  Invariant: a context is one block of known size;
only the arena and the threads' pool, whose sizes vary, lie outside it.

    pool, process, arena, bytes of the arena, is bound, threads, sizes last bound
    values of all sizes | text of the last error | step table | variables that the program writes
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.interop.c_interface import Interface
from graphc.interop.messages import TEXT_BYTES, tell
from graphc.kernel.plan import Plan
from graphc.kernel.target import named as target_named
from graphc.runtime import driver as d
from graphc.runtime.frame import Layout
from graphc.runtime.memory import ALIGNMENT

_NEVER = 1 << 62  # ns: the driver returns when it is done, not every now and then


@dataclass(frozen=True, slots=True)
class Variable:
    """A state of the program.  data: symbol of its first content, or "" (zero).  private: each context has its own,
    because the program writes it.  drawn: bytes (from, to) that each context draws from the system."""

    nbytes: int
    data: str
    private: bool
    drawn: tuple[int, int] = (0, 0)


def tables(layout: Layout) -> dict[str, bytes]:
    """Return the constant tables of `layout` by symbol: what a context's step table is made from.

    In the template the first word of a call is the number of its kernel (addresses of the layout's program).
    """
    template = layout.template.copy()
    template[layout.link_step + 6] = d.LINK
    template[d.FRAME_QUANTUM] = template[d.FRAME_INTERVAL] = _NEVER

    def pairs(left: Sequence[int] | np.ndarray, right: Sequence[int] | np.ndarray) -> bytes:
        return np.stack([np.asarray(left, np.int32), np.asarray(right, np.int32)], axis=1).tobytes()

    return {
        "template": template.tobytes(),
        "relative": layout.relative.astype(np.int32).tobytes(),
        "sized": pairs(layout.sized_at, layout.sized),
        "calls": pairs(layout.call_at, layout.extents),
        "scratches": np.array(layout.scratch, np.int32).tobytes(),
        "costs": layout.costs.tobytes(),
        "temps": pairs(layout.temp_at, layout.temp_offset),
        "uses": pairs(layout.use_at, layout.use_of),
    }


class Places:
    """Byte offsets in a context."""

    POOL, PROCESS, ARENA, CAPACITY, BOUND, THREADS, SIZES = (8 * i for i in range(7))

    def __init__(self, interface: Interface, layout: Layout, variables: Sequence[Variable]) -> None:
        self.values = self._aligned(self.SIZES + 8 * len(interface.sizes))
        self.text = self._aligned(self.values + 8 * len(layout.sizes.sizes))
        self.table = self.text + TEXT_BYTES
        at = self._aligned(self.table + layout.template.nbytes)
        self.variables: list[int] = []
        for variable in variables:
            self.variables.append(at)
            at += self._aligned(variable.nbytes) if variable.private else 0
        self.nbytes = at

    @staticmethod
    def _aligned(at: int) -> int:
        return -(-at // ALIGNMENT) * ALIGNMENT


class Code:
    """What all functions of one library are written with.

    layout: of a program whose addresses are the kernels' numbers.
    """

    def __init__(self, interface: Interface, plan: Plan, layout: Layout, variables: Sequence[Variable]) -> None:
        self.interface, self.plan, self.layout, self.variables = interface, plan, layout, variables
        self.at = Places(interface, layout, variables)
        self.module = Module(target_named("x86-64"))

    def function(self, name: str, result: str, *parameters: str) -> Builder:
        """Begin an exported function of pointers."""
        return Builder(self.module, f"{self.interface.prefix}_{name}", [(p, "ptr", 1) for p in parameters], result)

    def call(self, b: Builder, name: str, result: str, *arguments: Value) -> Value:
        """Call a C function."""
        b.declare(name, result, [a.type for a in arguments])
        return b.call(name, (result, 1), *arguments)

    def free(self, b: Builder, block: Value) -> None:
        b.declare("free", "void", ["ptr"])
        b.line(f"call void @free({block.typed})")

    def allocate(self, b: Builder, where: Value, nbytes: Value) -> Value:
        """Write the address of aligned memory to `where`; return whether there was none."""
        return self.call(b, "posix_memalign", "i32", where, b.i64(ALIGNMENT), nbytes).ne(0)

    def copy(self, b: Builder, target: Value, source: Value, nbytes: Value) -> None:
        self.call(b, "memcpy", "ptr", target, source, nbytes)

    def clear(self, b: Builder, target: Value, nbytes: int) -> None:
        self.call(b, "memset", "ptr", target, b.const(0, "i32"), b.i64(nbytes))

    def part(self, b: Builder, context: Value, offset: int) -> Value:
        return b.at(context, b.i64(offset), "i8")

    def word(self, b: Builder, table: Value, number: Value | int) -> Value:
        """Return the address of a word of a table of 64-bit words."""
        return b.at(table, number if isinstance(number, Value) else b.i64(number), "i64")

    def symbol(self, b: Builder, name: str) -> Value:
        return Value(b, f"@{name}", "ptr")

    def integer(self, b: Builder, pointer: Value) -> Value:
        return b.emit(f"ptrtoint {pointer.typed} to i64", "i64")

    def each(self, b: Builder, table: str, count: int, do: Callable[[Value, Value], None]) -> None:
        """Run `do` for every pair of 32-bit numbers in a constant table."""
        with b.loop(b.i64(0), b.i64(2 * count), step=2) as loop:
            do(*(b.convert("sext", b.load(b.at(self.symbol(b, table), loop.index + k, "i32"), "i32"), "i64")
                 for k in (0, 1)))

    def size(self, b: Builder, context: Value, number: Value | int) -> Value:
        """Return the value of a size of the layout as bound last."""
        return b.load(self.word(b, self.part(b, context, self.at.values), number), "i64")

    def say(self, b: Builder, context: Value, form: str, *values: Value) -> None:
        tell(b, self.part(b, context, self.at.text), form, *values)
