"""llvm_cpu against interp on generated loop nests over integers, where every result is exact.

Owns the generator: rows with Locals, reductions, scans, branches, loops by data, predicated, reversed and
gathered loads, in sizes around the vector's.  A failure prints the kernel.
"""
from __future__ import annotations

import numpy as np
import pytest

from graphc import dtypes
from graphc.backends.interp import run as interpret
from graphc.dtypes import DType, bool_, int32, int64
from graphc.ir import dim
from graphc.ir.dim import Size, symbol
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
    Stmt,
    Store,
    Var,
    While,
    const,
    index,
    size,
)
from graphc.kernel.primitives import cast, prim
from graphc.kernel.text import format_kernel
from tests.backends.harness import Arrays, poison
from tests.backends.llvm_native import Native, runnable

MACHINES = runnable()
ROUTES = (dtypes.int8, dtypes.uint8, dtypes.int16, dtypes.uint32, dtypes.int64, dtypes.uint64, dtypes.bool_)
SIZES = ({"n0": 1, "n1": 1}, {"n0": 3, "n1": 17}, {"n0": 40, "n1": 5}, {"n0": 33, "n1": 70})


class Generator:
    """Builds one kernel over x[n0, n1], t[n1, n0], w[n1] (indices below n0), giving y[n0, n1] and z[n0]."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.n0: Size = symbol("n0") if self.rng.random() < 0.7 else 33
        self.n1: Size = symbol("n1") if self.rng.random() < 0.6 else 70
        self.axes: dict[str, Size] = {}
        self.vars: list[Var] = []
        self.locals: list[str] = []
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def pick(self, *choices: str) -> str:
        return str(self.rng.choice(choices))

    def place(self, extent: Size) -> Expr:
        """Return an index below `extent`."""
        same = [a for a, e in self.axes.items() if e == extent]
        kind = self.pick("axis", "axis", "axis", "back", "modulo")
        if same and kind != "modulo":
            axis = Axis(str(self.rng.choice(same)))
            return axis if kind == "axis" else prim("sub", prim("sub", size(extent), index(1)), axis)
        if extent == self.n0 and self.rng.random() < 0.4:
            return Load("w", (self.place(self.n1),), int64)
        axes = list(self.axes)
        return prim("floormod", Axis(str(self.rng.choice(axes))), size(extent)) if axes else index(0)

    def load(self) -> Expr:
        kind = self.pick("x", "x", "t", "predicate", "local")
        if kind == "local" and self.locals:
            return Load(str(self.rng.choice(self.locals)), (self.place(self.n1),), int32)
        if kind == "t":
            return Load("t", (self.place(self.n1), self.place(self.n0)), int32)
        if kind == "predicate":
            row, column = self.place(self.n0), prim("add", self.place(self.n1), index(int(self.rng.integers(-2, 3))))
            inside = prim("and", prim("le", index(0), column), prim("lt", column, size(self.n1)))
            return Load("x", (row, column), int32, inside, self.value(0))
        return Load("x", (self.place(self.n0), self.place(self.n1)), int32)

    def value(self, depth: int) -> Expr:
        """Return an int32 expression."""
        if depth == 0 or self.rng.random() < 0.15:
            kind = self.pick("load", "load", "const", "axis", "var")
            if kind == "var" and self.vars:
                return self.vars[int(self.rng.integers(len(self.vars)))]
            if kind == "axis" and self.axes:
                return cast(Axis(str(self.rng.choice(list(self.axes)))), int32)
            return self.load() if kind == "load" and depth else const(int(self.rng.integers(-9, 10)), int32)
        kind = self.pick("two", "two", "two", "divide", "shift", "select", "route", "one")
        a, b = self.value(depth - 1), self.value(depth - 1)
        match kind:
            case "two":
                return prim(self.pick("add", "sub", "mul", "and", "or", "xor", "max", "min"), a, b)
            case "divide":
                return prim(self.pick("floordiv", "floormod", "truncdiv", "truncmod"), a, b)
            case "shift":
                return prim(self.pick("shl", "shr"), a, b)
            case "select":
                return prim("select", self.condition(depth - 1), a, b)
            case "route":
                return cast(cast(a, ROUTES[int(self.rng.integers(len(ROUTES)))]), int32)
            case _:
                return prim(self.pick("neg", "abs", "not"), a)

    def condition(self, depth: int) -> Expr:
        return prim(self.pick("lt", "le", "eq", "ne"), self.value(depth), self.value(depth))

    def bind(self, depth: int) -> list[Stmt]:
        """Return statements that bind a new value for what follows."""
        name = self.name()
        kind = self.pick("let", "reduce", "reduce", "arg", "while")
        stmt: Stmt
        if kind == "let":
            stmt = Let(name, self.value(depth))
        elif kind == "while":
            down = prim("sub", Var(name, int32), const(1, int32))
            more = self.name()
            stmt = While((name, more), (prim("and", self.value(1), const(7, int32)), self.value(1)),
                         prim("lt", const(0, int32), Var(name, int32)), (),
                         (down, prim("add", prim("mul", Var(more, int32), const(3, int32)), Var(name, int32))))
            self.vars.append(Var(more, int32))
        else:
            axis, extent = self.name(), (self.n1, self.n0, 5)[int(self.rng.integers(3))]
            self.axes[axis] = extent
            values = self.value(depth), self.value(depth)
            del self.axes[axis]
            if kind == "arg":
                best = self.name()
                combiners = (self.pick("argmax", "argmin"), "sum")
                stmt = Reduce((best, name + "_at", name), combiners, axis, size(extent), (),
                              (values[0], Axis(axis), values[1]))
                self.vars.append(Var(best, int32))
                return [stmt, *self.remember(name), Let(self.name(), cast(Var(name + "_at", int64), int32))]
            stmt = Reduce((name,), (self.pick("sum", "prod", "max", "min"),), axis, size(extent), (), (values[0],))
        return [stmt, *self.remember(name)]

    def remember(self, name: str) -> list[Stmt]:
        self.vars.append(Var(name, int32))
        return []

    def stage(self) -> list[Stmt]:
        """Return statements that fill a Local of one row."""
        name, axis = "l" + self.name(), self.name()
        target: DType = int32
        self.axes[axis] = self.n1
        value = self.value(2)
        if self.rng.random() < 0.4:
            running = self.name()
            fill: Stmt = Scan(running, self.pick("sum", "max", "min"), axis, size(self.n1), (), value,
                              (Store(name, (Axis(axis),), Var(running + self.pick("", "_before"), target)),),
                              reverse=bool(self.rng.random() < 0.5))
        else:
            fill = For(axis, size(self.n1), (Store(name, (Axis(axis),), value),), bool(self.rng.random() < 0.5))
        del self.axes[axis]
        self.locals.append(name)
        return [Local(name, target, (self.n1,)), fill]

    def kernel(self) -> Kernel:
        self.axes["i"] = self.n0
        body: list[Stmt] = []
        for _ in range(int(self.rng.integers(0, 3))):
            body += self.stage() if self.rng.random() < 0.4 else self.bind(2)
        kept = list(self.vars)
        self.axes["j"] = self.n1
        inner: list[Stmt] = self.bind(1) if self.rng.random() < 0.5 else []
        at = (Axis("i"), Axis("j"))
        inner.append(Store("y", at, self.value(3)))
        if self.rng.random() < 0.5:
            inner.append(If(self.condition(1), (Store("y", at, self.value(2)),),
                            (Store("y", at, self.value(1), self.condition(1)),) if self.rng.random() < 0.5 else ()))
        del self.axes["j"]
        self.vars = kept
        body.append(For("j", size(self.n1), tuple(inner), True))
        body.append(Store("z", (Axis("i"),), self.condition(2)))
        sizes = tuple(s for s, e in (("n0", self.n0), ("n1", self.n1)) if not isinstance(e, int))
        return Kernel("nest", (
            Param("x", int32, (self.n0, self.n1), "in"), Param("t", int32, (self.n1, self.n0), "in"),
            Param("w", int64, (self.n1,), "in"), Param("y", int32, (self.n0, self.n1), "out"),
            Param("z", bool_, (self.n0,), "out")), sizes, (For("i", size(self.n0), tuple(body), True),))


def arrays(kernel: Kernel, sizes: dict[str, int], seed: int) -> Arrays:
    """Return inputs and poisoned outputs."""
    rng = np.random.default_rng(seed)
    shapes = {p.name: tuple(dim.evaluate(s, sizes) for s in p.shape) for p in kernel.params}
    given: Arrays = {n: rng.integers(-100, 100, shapes[n]).astype(np.int32) for n in ("x", "t")}
    given["w"] = rng.integers(0, shapes["x"][0], shapes["w"])
    return given | {p.name: poison(shapes[p.name], p.dtype) for p in kernel.params if p.role == "out"}


@pytest.mark.parametrize("machine", MACHINES)
def test_nests(machine: str) -> None:
    native = Native(MACHINES[machine])
    first = int(np.random.default_rng().integers(1 << 40))
    for seed in range(first, first + 12):
        compare(native, seed)


def compare(native: Native, seed: int) -> None:
    """Fail where the two backends differ on the kernel of `seed`."""
    kernel = Generator(seed).kernel()
    for sizes in SIZES:
        theirs, ours = arrays(kernel, sizes, seed), arrays(kernel, sizes, seed)
        assert interpret(kernel, theirs, sizes) == native(kernel, ours, sizes, claim=1) == 0
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name],
                                          err_msg=f"seed {seed}, {name}, {sizes}\n{format_kernel(kernel)}")
