"""Kernel IR: one fused loop nest, told without naming any machine.

Owns the node classes of expressions and statements, and `Kernel`.  Knows dtypes and sizes; knows
nothing of graphs, ops, threads, vectors or backends.  How a kernel is run (which axis is the vector,
how work is split) is a `Schedule`, kept apart; a kernel without one still runs (interp).
Invariants (held by verify.py): every name is bound before use and bound once; an index has one
expression per axis of its buffer, of dtype int64; iterations of a parallel `For` store to disjoint
elements, or the statement is a `Scatter`, which names its own rule.

    kernel softmax(x: in f32[n0, 10], y: out f32[n0, 10]) sizes(n0)
      for i < n0 parallel
        reduce m = max over j < 10: x[i, j]
        reduce s = sum over j < 10: exp(x[i, j] - m)
        for j < 10
          y[i, j] = exp(x[i, j] - m) / s
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from graphc import dtypes
from graphc.dtypes import DType
from graphc.ir.dim import Dim, Size

# ---------------------------------------------------------------------------------------------
# Expressions: pure scalars.  Every expression has a dtype.


@dataclass(frozen=True, slots=True)
class Const:
    """A literal: a Python bool, int or float (inf and nan allowed)."""

    value: bool | int | float
    dtype: DType


@dataclass(frozen=True, slots=True)
class Axis:
    """The current value of the loop axis `name`; int64."""

    name: str

    @property
    def dtype(self) -> DType:
        return dtypes.int64


@dataclass(frozen=True, slots=True)
class SizeOf:
    """A size over the kernel's size symbols, read at run time; int64."""

    size: Dim

    @property
    def dtype(self) -> DType:
        return dtypes.int64


@dataclass(frozen=True, slots=True)
class Var:
    """A value bound by Let, Reduce, Scan, While or Contract."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Load:
    """The element of `buffer` (a parameter or a Local) at `index`.

    With a predicate, the element is read only where it holds; elsewhere the value is `other`.
    dtype is the buffer's.  float16 and bfloat16 elements are used through a cast to float32.
    """

    buffer: str
    index: tuple[Expr, ...]
    dtype: DType
    predicate: Expr | None = None
    other: Expr | None = None


@dataclass(frozen=True, slots=True)
class Prim:
    """A scalar primitive of `kernel/primitives.py` applied to `args`."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Guard:
    """`value` where `ok` holds; else `fallback`, and the kernel returns the status `site + 1`.

    One node for every failure that data can cause: an index out of range, an integer division by
    zero, an assertion.  `site` indexes `Kernel.sites`.  The kernel goes on with `fallback`, so that no
    access is ever out of bounds; when several sites fail, the lowest one is reported.
    """

    value: Expr
    ok: Expr
    fallback: Expr
    site: int

    @property
    def dtype(self) -> DType:
        return self.value.dtype


@dataclass(frozen=True, slots=True)
class Random:
    """Word `lane` (0..3, int64) of the Philox 4x32-10 block with this counter and key; uint32.

    counter: two uint64 expressions (low, high); key: one uint64 expression.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """

    counter_low: Expr
    counter_high: Expr
    key: Expr
    lane: Expr

    @property
    def dtype(self) -> DType:
        return dtypes.uint32


Expr: TypeAlias = Const | Axis | SizeOf | Var | Load | Prim | Guard | Random

# ---------------------------------------------------------------------------------------------
# Statements.

# Combiners of Reduce and Scan.  Each works on a tuple of state values:
#   sum prod max min any all      one value (max and min propagate NaN)
#   argmax argmin                 a pair (value, int64 index): the first index of the extreme; NaN counts
#                                 as the extreme, as in NumPy
COMBINERS: dict[str, int] = {
    "sum": 1, "prod": 1, "max": 1, "min": 1, "any": 1, "all": 1, "argmax": 2, "argmin": 2,
}


@dataclass(frozen=True, slots=True)
class For:
    """Run `body` for axis = 0 .. extent-1; iterations of a parallel loop may run in any order."""

    axis: str
    extent: Expr
    body: tuple[Stmt, ...]
    parallel: bool = False


@dataclass(frozen=True, slots=True)
class Let:
    """Bind `name` to the value of `value` for the statements that follow in this block."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Store:
    """Write `value` to `buffer[index]`, where `predicate` holds if there is one."""

    buffer: str
    index: tuple[Expr, ...]
    value: Expr
    predicate: Expr | None = None


@dataclass(frozen=True, slots=True)
class Reduce:
    """Combine `values` over axis = 0 .. extent-1 and bind the results to `names`.

    `body` (Lets, and inner Reduces, for reductions over several axes) runs at each iteration before
    `values` are taken.  `names[k]` has the dtype of `values[k]`.  An empty range gives the combiner's
    identity (0, 1, -inf or the dtype's min, inf or its max, False, True; the index of argmax is 0).
    The order of combination belongs to the schedule: backends agree within the stated tolerances.
    Several independent reductions over one loop are one Reduce with `combiner` listing each: their
    states follow one another in `names` and `values`.
    """

    names: tuple[str, ...]
    combiners: tuple[str, ...]
    axis: str
    extent: Expr
    body: tuple[Stmt, ...]
    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """Running combination of `value` over axis = 0 .. extent-1 (downwards where `reverse`).

    At each iteration `body` runs, the state is combined, then `then` runs with Var(name) the running
    value including this iteration and Var(name + "_before") the one excluding it.
    """

    name: str
    combiner: str
    axis: str
    extent: Expr
    body: tuple[Stmt, ...]
    value: Expr
    then: tuple[Stmt, ...]
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Local:
    """Scratch of this shape for the statements that follow in this block, private to one iteration of
    the enclosing parallel loop.  scope: "row" (one row's stages) or "block" (a tile's stages).
    Contents are undefined until stored."""

    name: str
    dtype: DType
    shape: tuple[Size, ...]
    scope: str = "row"


@dataclass(frozen=True, slots=True)
class If:
    """Run `then` where `condition` holds, else `orelse`.  Names bound inside stay inside."""

    condition: Expr
    then: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@dataclass(frozen=True, slots=True)
class While:
    """state = initial; while condition(state): body; state = next(state).  Then the names hold it."""

    names: tuple[str, ...]
    initial: tuple[Expr, ...]
    condition: Expr
    body: tuple[Stmt, ...]
    next: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Scatter:
    """Write (`set`) or add (`add`) `value` at a loaded `index`; duplicates act in loop order.

    Only under sequential loops in every axis that its index depends on through data: the kernel that
    holds it is parallel over other axes (columns), or not at all.
    """

    buffer: str
    index: tuple[Expr, ...]
    value: Expr
    mode: str


@dataclass(frozen=True, slots=True)
class Contract:
    """acc[batch, m, n] = sum over k of a * b; then `body` runs once per (batch, m, n) with Var(acc).

    batch, m, n, k: (axis name, extent) pairs, any number of each; m axes appear only in `a`, n axes
    only in `b`, k axes in both and not in `body`, batch axes anywhere.  a, b: expressions (usually one
    Load with affine indices each; any elementwise prologue is allowed), accumulated in `acc_dtype`.
    `body` holds Lets, Ifs and Stores: bias, activation, masks, optimizer updates, several outputs.
    """

    batch: tuple[tuple[str, Expr], ...]
    m: tuple[tuple[str, Expr], ...]
    n: tuple[tuple[str, Expr], ...]
    k: tuple[tuple[str, Expr], ...]
    a: Expr
    b: Expr
    acc: str
    acc_dtype: DType
    body: tuple[Stmt, ...]


Stmt: TypeAlias = For | Let | Store | Reduce | Scan | Local | If | While | Scatter | Contract

# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Param:
    """A buffer argument: row-major, contiguous, of `shape`.

    role: "in" (read only), "out" (written fully, old contents undefined), "inout" (read and written).
    Two parameters of one call may be the same memory only where `Kernel.aliases` allows it.
    """

    name: str
    dtype: DType
    shape: tuple[Size, ...]
    role: str


@dataclass(frozen=True, slots=True)
class Site:
    """What failed where a Guard's `ok` does not hold: kind ("index", "division", "assert"), a message,
    and the provenance (name of the graph op) that the error is reported for."""

    kind: str
    message: str
    op: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """One compiled unit.

    sizes: names of the size symbols, in the order of the run-time size table.  Symbols are local to the
    kernel (n0, n1, ...): the caller says which size each one is, so equal kernels are shared.
    aliases: (out, in) pairs of parameters that may share memory: each element of `out` is written after
    the last read of the same element, and of no other, of `in`.
    provenance: names of the graph ops computed here (not part of the kernel's identity).
    """

    name: str
    params: tuple[Param, ...]
    sizes: tuple[str, ...]
    body: tuple[Stmt, ...]
    sites: tuple[Site, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    provenance: tuple[str, ...] = field(default=(), compare=False)

    def param(self, name: str) -> Param:
        """Return the parameter called `name`.  Raises KeyError."""
        for p in self.params:
            if p.name == name:
                return p
        raise KeyError(name)


# ---------------------------------------------------------------------------------------------
# Building: short names for those who write bodies (ops, passes).


def const(value: bool | int | float, dtype: DType) -> Const:
    """Return a literal of `dtype`."""
    if dtype.is_floating:
        return Const(float(value), dtype)
    return Const(bool(value) if dtype.is_bool else int(value), dtype)


def index(value: int) -> Const:
    """Return an int64 literal."""
    return Const(value, dtypes.int64)


def size(value: Size) -> Expr:
    """Return a size as an int64 expression."""
    return index(value) if isinstance(value, int) else SizeOf(value)
