"""Random small kernels: nests, reductions, scans, branches, Locals and predicated or loaded indices.

Owns `random_kernel`.  Knows no backend.  Invariant: everything is integer (wrapping), so that all orders of
combination give the same bits, and every index is in range by construction.
"""
from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from graphc.dtypes import int32, int64
from graphc.ir.dim import Size, symbol
from graphc.kernel import walk
from graphc.kernel.ir import (
    Axis,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Param,
    Reduce,
    Scan,
    Scatter,
    Stmt,
    Store,
    Var,
    const,
    index,
    size,
)
from graphc.kernel.primitives import cast, prim
from tests.backends.harness import Arrays, Sizes

N, M = symbol("n0"), symbol("n1")
INPUTS = (Param("x", int32, (N, M), "in"), Param("u", int32, (M,), "in"), Param("at", int64, (N,), "in"))
OUTPUTS = (Param("y", int32, (N, M), "inout"), Param("z", int32, (M, N), "inout"), Param("r", int32, (N,), "inout"))
_BINARY = ("add", "sub", "mul", "max", "min", "and", "xor", "floordiv", "truncmod")
_COMBINERS = ("sum", "prod", "max", "min", "argmax", "argmin")


class _Writer:
    """names: the int32 Vars that are visible.  locals: the Locals of one row, filled."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names: list[str] = []
        self.locals: list[str] = []
        self.count = 0

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def leaf(self, row: Expr, column: Expr | None) -> Expr:
        choices: list[Callable[[], Expr]] = [
            lambda: const(self.rng.randint(-3, 9), int32), lambda: cast(row, int32),
            lambda: Load("u", (Load("at", (row,), int64),), int32),
            lambda: Load("x", (row, Load("at", (row,), int64)), int32)]
        choices += [lambda: Var(self.rng.choice(self.names), int32)] * (2 * bool(self.names))
        if column is not None:
            back = prim("sub", prim("sub", size(M), index(1)), column)
            before = prim("sub", row, index(self.rng.randint(0, 2)))
            choices += [lambda: Load("x", (row, column), int32), lambda: Load("u", (column,), int32),
                        lambda: Load("x", (row, back), int32), lambda: cast(column, int32),
                        lambda: Load("x", (before, column), int32, prim("le", index(0), before), const(5, int32))]
            choices += [lambda: Load(self.rng.choice(self.locals), (column,), int32)] * (2 * bool(self.locals))
        return self.rng.choice(choices)()

    def expr(self, row: Expr, column: Expr | None, depth: int = 3) -> Expr:
        if depth == 0 or self.chance(0.2):
            return self.leaf(row, column)
        a, b = (self.expr(row, column, depth - 1) for _ in range(2))
        if self.chance(0.2):
            return prim("select", prim(self.rng.choice(("lt", "eq", "le")), a, b), self.leaf(row, column), b)
        return prim(self.rng.choice(_BINARY), a, b)

    def condition(self, row: Expr, column: Expr | None) -> Expr:
        return prim("lt", self.expr(row, column, 1), self.expr(row, column, 1))

    def lets(self, row: Expr, column: Expr | None) -> list[Stmt]:
        out: list[Stmt] = []
        for _ in range(self.rng.randint(0, 2)):
            value, name = self.expr(row, column), self.fresh("t")
            out.append(Let(name, value))
            self.names.append(name)
        return out

    def reduce(self, row: Expr) -> Stmt:
        axis, kept = self.fresh("k"), list(self.names)
        combiners = tuple(self.rng.choice(_COMBINERS) for _ in range(self.rng.randint(1, 2)))
        body = self.lets(row, Axis(axis))
        names: list[str] = []
        values: list[Expr] = []
        bound: list[str] = []
        for c in combiners:
            names.append(self.fresh("r"))
            bound.append(names[-1])
            values.append(self.expr(row, Axis(axis), 2))
            if c.startswith("arg"):
                names.append(self.fresh("p"))
                values.append(Axis(axis))
        self.names = kept + bound
        return Reduce(tuple(names), combiners, axis, size(M), tuple(body), tuple(values))

    def row_statements(self, row: Expr) -> list[Stmt]:
        """Return the stages of one row."""
        out = self.lets(row, None)
        for _ in range(self.rng.randint(0, 2)):
            out.append(self.reduce(row))
        if self.chance(0.4):
            name, axis = self.fresh("l"), self.fresh("j")
            fill = Store(name, (Axis(axis),), self.expr(row, Axis(axis), 2))
            out += [Local(name, int32, (M,)), For(axis, size(M), (fill,), self.chance(0.5))]
            self.locals.append(name)
        if self.chance(0.3):
            axis, name, kept = self.fresh("c"), self.fresh("run"), list(self.names)
            value = self.expr(row, Axis(axis), 2)
            then = (Store("y", (row, Axis(axis)), Var(name, int32)),)
            out.append(Scan(name, self.rng.choice(("sum", "max", "prod")), axis, size(M), (), value, then,
                            self.chance(0.5)))
            self.names = kept
        if self.chance(0.7):
            axis, kept = self.fresh("j"), list(self.names)
            j = Axis(axis)
            body = self.lets(row, j)
            store: Stmt = Store("z", (j, row), self.expr(row, j), self.condition(row, j) if self.chance(0.3) else None)
            if self.chance(0.3):
                store = If(self.condition(row, j), (store,), (Store("z", (j, row), const(1, int32)),))
            out.append(For(axis, size(M), (*body, store), self.chance(0.7)))
            self.names = kept
        out.append(Store("r", (row,), self.expr(row, None)))
        return out

    def column_statements(self) -> Stmt:
        """Return a loop over columns with rows inside: column sums, scatters by a loaded row."""
        j, i = self.fresh("j"), self.fresh("i")
        row, column = Axis(i), Axis(j)
        at = prim("floormod", cast(self.expr(row, column, 2), int64), size(N))
        inner: tuple[Stmt, ...] = (
            Let("target", at), Scatter("y", (Var("target", int64), column), self.expr(row, column, 2),
                                       self.rng.choice(("set", "add"))))
        return For(j, size(M), (For(i, size(N), inner),), True)


def random_kernel(seed: int) -> Kernel:
    """Return a kernel over sizes n0 and n1 that is a function of the seed."""
    rng = random.Random(seed)
    writer = _Writer(rng)
    if writer.chance(0.2):
        body: Stmt = writer.column_statements()
    else:
        body = For("i", size(N), tuple(writer.row_statements(Axis("i"))), True)
    touched = {s.buffer for s in walk.stores((body,))}
    outputs = tuple(p for p in OUTPUTS if p.name in touched)
    return Kernel(f"fuzz{seed}", INPUTS + outputs, ("n0", "n1"), (body,))


def random_arrays(kernel: Kernel, sizes: Sizes, seed: int) -> Arrays:
    """Return arrays for a random kernel; sizes must be positive."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[Size, ...]] = {p.name: p.shape for p in kernel.params}
    arrays = {}
    for name, shape in shapes.items():
        dims = [s if isinstance(s, int) else s.evaluate(sizes) for s in shape]
        high = sizes["n1"] if name == "at" else 20
        arrays[name] = rng.integers(0 if name == "at" else -20, high, dims, dtype=kernel.param(name).dtype.storage)
    return arrays
