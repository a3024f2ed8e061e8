"""Sample kernels over every statement and combiner, and `SAMPLES`: all samples by name.

Owns the bodies and their NumPy references.  Knows no backend.  Invariant: references work in a wider
type where there is one and never use kernel IR.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType, bool_, float32, float64, int32, int64
from graphc.ir.dim import Size, symbol
from graphc.kernel.ir import (
    Axis,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Param,
    Reduce,
    Scan,
    Scatter,
    Site,
    SizeOf,
    Stmt,
    Store,
    Var,
    While,
    const,
    index,
    size,
)
from graphc.kernel.primitives import cast, prim
from graphc.kernel.text import short
from tests.backends.contract_kernels import CONTRACT_SAMPLES
from tests.backends.harness import Arrays, Expected, Sample, Sizes, show, store
from tests.backends.primitive_kernels import PRIMITIVE_SAMPLES, values
from tests.backends.random_kernels import RANDOM_SAMPLES

N0, N1 = symbol("n0"), symbol("n1")
i, j, k = Axis("i"), Axis("j"), Axis("k")
GRID = tuple({"n0": a, "n1": b} for a, b in ((0, 3), (3, 0), (1, 1), (5, 17), (7, 70), (2, 300)))
LINE = tuple({"n0": n} for n in (0, 1, 5, 64, 333))


def f32(value: float) -> Expr:
    """Return a float32 literal."""
    return const(value, float32)


def load(buffer: str, *at: Expr, dtype: DType = float32) -> Load:
    """Return an unconditional Load."""
    return Load(buffer, at, dtype)


def loops(axes: tuple[tuple[str, Size], ...], *body: Stmt, parallel: bool = True) -> Stmt:
    """Return `body` under nested Fors, outermost first."""
    for axis, extent in reversed(axes):
        body = (For(axis, size(extent), body, parallel),)
    return body[0]


def normal(**shapes: tuple[Size, ...]) -> Any:
    """Return an input maker: float32 normals of these shapes."""
    def make(rng: np.random.Generator, sizes: Sizes) -> Arrays:
        return {n: rng.normal(size=[s if isinstance(s, int) else s.evaluate(sizes) for s in shape]).astype(np.float32)
                for n, shape in shapes.items()}
    return make


def wide(a: np.ndarray) -> np.ndarray:
    """Return the elements in the type that references compute in."""
    return a.astype(np.float64 if a.dtype == np.float32 else np.longdouble)


# ---------------------------------------------------------------------------------------------
# For, Let, Store: elementwise, broadcast, movement.

AXPY = Sample(
    Kernel("axpy", (Param("x", float32, (N0,), "in"), Param("y", float32, (N0,), "inout")), ("n0",), (
        loops((("i", N0),), Store("y", (i,), prim("add", prim("mul", f32(2.0), load("x", i)), load("y", i)))),)),
    normal(x=(N0,), y=(N0,)), lambda a, s: {"y": Expected(2.0 * wide(a["x"]) + a["y"], 1, np.abs(a["x"]))}, LINE)

BIAS_RELU = Sample(
    Kernel("bias_relu", (Param("x", float32, (N0, N1), "in"), Param("b", float32, (N1,), "in"),
                         Param("y", float32, (N0, N1), "out"), Param("mask", bool_, (N0, N1), "out")), ("n0", "n1"), (
        loops((("i", N0), ("j", N1)), Let("t", prim("add", load("x", i, j), load("b", j))),
              Store("y", (i, j), prim("max", Var("t", float32), f32(0.0))),
              Store("mask", (i, j), prim("lt", f32(0.0), Var("t", float32)))),)),
    normal(x=(N0, N1), b=(N1,)),
    lambda a, s: {"y": Expected(np.maximum(a["x"] + a["b"], 0), 0), "mask": a["x"] + a["b"] > 0}, GRID)

TRANSPOSE = Sample(
    Kernel("transpose", (Param("x", float32, (N0, N1), "in"), Param("y", float32, (N1, N0), "out")), ("n0", "n1"), (
        loops((("j", N1), ("i", N0)), Store("y", (j, i), load("x", i, j))),)),
    normal(x=(N0, N1)), lambda a, s: {"y": a["x"].T}, GRID)

SCALAR = Sample(
    Kernel("scalar", (Param("x", float64, (), "in"), Param("y", float64, (), "out"), Param("n", int64, (), "out")),
           ("n0",), (Let("t", prim("mul", load("x", dtype=float64), const(3.0, float64))),
                     Store("y", (), prim("add", Var("t", float64), const(1.0, float64))),
                     Store("n", (), prim("add", SizeOf(N0), index(1))))),
    lambda rng, s: {"x": np.asarray(rng.integers(-9, 9) / 4.0)},
    lambda a, s: {"y": a["x"] * 3.0 + 1.0, "n": np.asarray(s["n0"] + 1)}, ({"n0": 0}, {"n0": 12}))

# Slices, reverse and stride as index maps; one output per map.
_half = N0 // 2
MOVEMENT = Sample(
    Kernel("movement", (Param("x", float32, (N0,), "in"), Param("back", float32, (N0,), "out"),
                        Param("even", float32, (_half,), "out"), Param("grid", int64, (_half, 3), "out")), ("n0",), (
        loops((("i", N0),), Store("back", (i,), load("x", prim("sub", prim("sub", size(N0), index(1)), i)))),
        loops((("i", _half),), Store("even", (i,), load("x", prim("mul", i, index(2))))),
        loops((("i", _half), ("j", 3)), Store("grid", (i, j), prim("add", prim("mul", i, index(3)), j))))),
    normal(x=(N0,)),
    lambda a, s: {"back": a["x"][::-1], "even": a["x"][:2 * (s["n0"] // 2):2],
                  "grid": np.arange(s["n0"] // 2 * 3).reshape(-1, 3)}, LINE)

# A predicated load (padding), and a predicated store that leaves the rest as it is.
_shifted = prim("sub", i, index(2))
_inside = prim("and", prim("le", index(0), _shifted), prim("lt", _shifted, size(N0)))
PAD = Sample(
    Kernel("pad", (Param("x", float32, (N0,), "in"), Param("y", float32, (N0 + 5,), "out"),
                   Param("z", float32, (N0 + 5,), "inout")), ("n0",), (
        loops((("i", N0 + 5),), Store("y", (i,), Load("x", (_shifted,), float32, _inside, f32(-1.0))),
              Store("z", (i,), f32(7.0), _inside)),)),
    normal(x=(N0,), z=(N0 + 5,)),
    lambda a, s: {"y": np.pad(a["x"], (2, 3), constant_values=-1),
                  "z": np.where((np.arange(s["n0"] + 5) >= 2) & (np.arange(s["n0"] + 5) < s["n0"] + 2),
                                np.float32(7), a["z"])}, LINE)

# A chain far deeper than any recursion limit: x + 1 + 1 ... in exact steps.
DEPTH = 1500


def _chain() -> Sample:
    value: Expr = load("x", i)
    for _ in range(DEPTH):
        value = prim("add", value, f32(1.0))
    kernel = Kernel("chain", (Param("x", float32, (N0,), "in"), Param("y", float32, (N0,), "out")), ("n0",), (
        loops((("i", N0),), Store("y", (i,), value)),))
    return Sample(kernel, lambda rng, s: {"x": rng.integers(0, 9, s["n0"]).astype(np.float32)},
                  lambda a, s: {"y": a["x"] + DEPTH}, ({"n0": 5},), frozenset({"slow"}))


def _adam() -> Sample:
    g, m, v = load("g", i), Var("m1", float32), Var("v1", float32)

    def mix(old: Expr, beta: float, new: Expr) -> Expr:
        return prim("add", prim("mul", f32(beta), old), prim("mul", f32(1 - beta), new))

    step = prim("div", prim("mul", load("rate"), m), prim("add", prim("sqrt", v), f32(1e-3)))
    kernel = Kernel("adam", (Param("g", float32, (N0,), "in"), Param("rate", float32, (), "in"),
                             *(Param(n, float32, (N0,), "inout") for n in ("w", "m", "v"))), ("n0",), (
        loops((("i", N0),), Let("m1", mix(load("m", i), 0.9, g)),
              Let("v1", mix(load("v", i), 0.999, prim("mul", g, g))),
              Store("m", (i,), m), Store("v", (i,), v), Store("w", (i,), prim("sub", load("w", i), step))),))

    def inputs(rng: np.random.Generator, s: Sizes) -> Arrays:
        a: Arrays = normal(g=(N0,), w=(N0,), m=(N0,), v=(N0,), rate=())(rng, s)
        return a | {"v": np.abs(a["v"]), "rate": np.asarray(0.01, np.float32)}

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        g, w, m, v = (wide(a[n]) for n in "gwmv")
        m1, v1 = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return {"m": Expected(m1, 2, np.abs(m)), "v": Expected(v1, 2, v),
                "w": Expected(w - float(a["rate"]) * m1 / (np.sqrt(v1) + 1e-3), 4, np.abs(m) + np.abs(g))}

    return Sample(kernel, inputs, reference, LINE)


# ---------------------------------------------------------------------------------------------
# Reduce.

COMBINERS: dict[str, Callable[..., Any]] = {
    "sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "any": np.any, "all": np.all,
}


def _identity(combiner: str, dtype: DType) -> Any:
    if combiner in ("max", "argmax"):
        return -np.inf if dtype.is_floating else dtype.min
    return np.inf if dtype.is_floating else dtype.max


def reduce_values(combiner: str, a: np.ndarray, axis: int, dtype: DType) -> Any:
    """Return what a Reduce gives: NumPy's answer, or the identity for an empty range."""
    if combiner in ("argmax", "argmin"):
        shape = np.delete(np.array(a.shape), axis)
        return (np.argmax if combiner == "argmax" else np.argmin)(a, axis) if a.shape[axis] else np.zeros(shape, int)
    if combiner in ("any", "all"):
        return COMBINERS[combiner](a, axis)
    if dtype.is_integer:
        if combiner in ("sum", "prod"):
            with np.errstate(all="ignore"):
                return COMBINERS[combiner](a, axis, dtype=dtype.storage)
        return COMBINERS[combiner](a, axis, initial=_identity(combiner, dtype))
    if combiner == "sum":
        return Expected(np.sum(wide(a), axis), 2 * np.sqrt(max(a.shape[axis], 1)), np.sum(np.abs(wide(a)), axis))
    if combiner == "prod":
        return Expected(np.prod(wide(a), axis), max(a.shape[axis], 1), flush=True)
    return Expected(COMBINERS[combiner](a, axis, initial=_identity(combiner, dtype)), 0)


def reduce_sample(dtype: DType, over: str, combiners: tuple[str, ...]) -> Sample:
    """Return reductions of x[n0, n1] over "rows" (axis 1 goes), "columns" (axis 0 goes), one Reduce for all."""
    x = load("x", i, j, dtype=dtype)
    kept, gone, axis = (i, "j", 1) if over == "rows" else (j, "i", 0)
    kept_size, gone_size = (N0, N1) if over == "rows" else (N1, N0)
    names: list[str] = []
    values_: list[Expr] = []
    stores: list[Stmt] = []
    params = [Param("x", dtype, (N0, N1), "in")]
    for c in combiners:
        names.append(f"{c}_state")
        values_.append(x)
        if c in ("argmax", "argmin"):
            names.append(f"{c}_at")
            values_.append(Axis(gone))
            stores.append(Store(f"{c}_index", (kept,), Var(f"{c}_at", int64)))
            params.append(Param(f"{c}_index", int64, (kept_size,), "out"))
        else:
            stores.append(Store(f"{c}_out", (kept,), Var(f"{c}_state", dtype)))
            params.append(Param(f"{c}_out", dtype, (kept_size,), "out"))
    body = loops(((kept.name, kept_size),), Reduce(tuple(names), combiners, gone, size(gone_size), (), tuple(values_)),
                 *stores)
    kernel = Kernel(f"{over}_{short(dtype)}_{'_'.join(combiners)}", tuple(params), ("n0", "n1"), (body,))

    def inputs(rng: np.random.Generator, s: Sizes) -> Arrays:
        shape = s["n0"], s["n1"]
        if not dtype.is_floating:
            return {"x": values(rng, s["n0"] * s["n1"], dtype).reshape(shape)}
        a = rng.normal(1, 0.3, shape)
        if not {"sum", "prod"} & set(combiners):
            a = np.round(a * 4) / 4  # ties
            a = np.where(rng.random(shape) < 0.03, rng.choice([np.nan, np.inf, -np.inf], shape), a)
        return {"x": a.astype(dtype.storage)}

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        return {f"{c}_index" if c.startswith("arg") else f"{c}_out": reduce_values(c, a["x"], axis, dtype)
                for c in combiners}

    return Sample(kernel, inputs, reference, GRID)


SUM_ALL = Sample(  # a reduction over two axes: an inner Reduce in the body of the outer
    Kernel("sum_all", (Param("x", float32, (N0, N1), "in"), Param("y", float32, (), "out")), ("n0", "n1"), (
        Reduce(("total",), ("sum",), "i", size(N0), (
            Reduce(("row",), ("sum",), "j", size(N1), (), (load("x", i, j),)),), (Var("row", float32),)),
        Store("y", (), Var("total", float32)))),
    normal(x=(N0, N1)),
    lambda a, s: {"y": Expected(wide(a["x"]).sum(), 4 * np.sqrt(a["x"].size + 1), np.abs(wide(a["x"])).sum())}, GRID)

_centred = Var("centred", float32)
MOMENTS = Sample(  # a Let in a Reduce's body, division by a size, and a result used by the next loop
    Kernel("moments", (Param("x", float32, (N0, N1), "in"), Param("mean", float32, (N0,), "out"),
                       Param("variance", float32, (N0,), "out")), ("n0", "n1"), (
        loops((("i", N0),),
              Let("count", cast(size(N1), float32)),
              Reduce(("s",), ("sum",), "j", size(N1), (), (load("x", i, j),)),
              Let("mu", prim("div", Var("s", float32), Var("count", float32))),
              Reduce(("q",), ("sum",), "j", size(N1), (
                  Let("centred", prim("sub", load("x", i, j), Var("mu", float32))),),
                  (prim("mul", _centred, _centred),)),
              Store("mean", (i,), Var("mu", float32)),
              Store("variance", (i,), prim("div", Var("q", float32), Var("count", float32)))),)),
    normal(x=(N0, N1)),
    lambda a, s: {"mean": Expected(wide(a["x"]).mean(1), 4, np.abs(wide(a["x"])).mean(1)),
                  "variance": Expected(wide(a["x"]).var(1), 16, (wide(a["x"]) ** 2).mean(1))},
    tuple(s for s in GRID if s["n1"]))


def _softmax(local: bool) -> Sample:
    m, s = Var("m", float32), Var("s", float32)
    exp = prim("exp", prim("sub", load("x", i, j), m))
    top = Reduce(("m",), ("max",), "j", size(N1), (), (load("x", i, j),))
    rows: tuple[Stmt, ...] = (
        top, Reduce(("s",), ("sum",), "j", size(N1), (), (exp,)),
        loops((("j", N1),), Store("y", (i, j), prim("div", exp, s)), parallel=False))
    if local:
        rows = (top, Local("e", float32, (N1,)), loops((("j", N1),), Store("e", (j,), exp), parallel=False),
                Reduce(("s",), ("sum",), "j", size(N1), (), (load("e", j),)),
                loops((("j", N1),), Store("y", (i, j), prim("div", load("e", j), s)), parallel=False))
    kernel = Kernel("softmax_local" if local else "softmax",
                    (Param("x", float32, (N0, N1), "in"), Param("y", float32, (N0, N1), "out")), ("n0", "n1"),
                    (loops((("i", N0),), *rows),), aliases=(("y", "x"),))

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        e = np.exp(wide(a["x"]) - wide(a["x"]).max(1, initial=-np.inf, keepdims=True))
        return {"y": Expected(e / e.sum(1, keepdims=True), 8)}

    return Sample(kernel, normal(x=(N0, N1)), reference, GRID)


# ---------------------------------------------------------------------------------------------
# Scan.


def scan_sample(dtype: DType, combiner: str, reverse: bool) -> Sample:
    """Return running combinations along the rows, inclusive and exclusive."""
    value = prim("add", Var("t", dtype), const(0, dtype)) if dtype.is_integer else Var("t", dtype)
    scan = Scan("run", combiner, "j", size(N1), (Let("t", load("x", i, j, dtype=dtype)),), value,
                (Store("upto", (i, j), Var("run", dtype)), Store("before", (i, j), Var("run_before", dtype))), reverse)
    kernel = Kernel(f"scan_{combiner}_{short(dtype)}{'_reverse' if reverse else ''}",
                    (Param("x", dtype, (N0, N1), "in"), Param("upto", dtype, (N0, N1), "out"),
                     Param("before", dtype, (N0, N1), "out")), ("n0", "n1"), (loops((("i", N0),), scan),))

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        f = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[combiner]
        first = {"sum": 0, "prod": 1}.get(combiner, _identity(combiner, dtype))
        x = a["x"][:, ::-1] if reverse else a["x"]
        x = np.concatenate([np.full((s["n0"], 1), first, x.dtype), x], 1)
        with np.errstate(all="ignore"):
            run = f.accumulate(wide(x) if dtype.is_floating else x, 1)
        summed = dtype.is_floating and combiner == "sum"
        size_of = np.add.accumulate(np.abs(wide(x)), 1) if summed else np.zeros(run.shape)

        def out(which: slice) -> Expected | np.ndarray:
            r, m = (v[:, which][:, ::-1] if reverse else v[:, which] for v in (run, size_of))
            return Expected(r, s["n1"], m, flush=True) if dtype.is_floating else r

        return {"upto": out(slice(1, None)), "before": out(slice(0, -1))}

    def inputs(rng: np.random.Generator, s: Sizes) -> Arrays:
        shape = s["n0"], s["n1"]
        return {"x": rng.normal(1, 0.1, shape).astype(dtype.storage) if dtype.is_floating
                else rng.integers(-9, 9, shape).astype(dtype.storage)}

    return Sample(kernel, inputs, reference, GRID)


# ---------------------------------------------------------------------------------------------
# Guard, If, While, Scatter, Local: what data decides.


def guarded(at: Expr, extent: Expr, site: int) -> Expr:
    """Return `at` where 0 <= at < extent, else 0 and the status of `site`."""
    return Guard(at, prim("and", prim("le", index(0), at), prim("lt", at, extent)), index(0), site)


def _gather() -> Sample:
    row = Var("row", int64)
    kernel = Kernel("gather", (Param("x", float32, (N0, N1), "in"), Param("at", int32, (5,), "in"),
                               Param("y", float32, (5, N1), "out")), ("n0", "n1"), (
        loops((("i", 5),), Let("row", guarded(cast(load("at", i, dtype=int32), int64), size(N0), 1)),
              loops((("j", N1),), Store("y", (i, j), load("x", row, j)))),),
        (Site("assert", "never fails", "other"), Site("index", "out of range", "gather")))

    def inputs(rng: np.random.Generator, s: Sizes) -> Arrays:
        a: Arrays = normal(x=(N0, N1))(rng, s)
        return a | {"at": rng.integers(0, s["n0"] + (s["n0"] == 7), 5).astype(np.int32)}

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        bad = (a["at"] < 0) | (a["at"] >= s["n0"])
        return {"y": a["x"][np.where(bad, 0, a["at"])], "status": 2 if bad.any() else 0}

    return Sample(kernel, inputs, reference, tuple(s for s in GRID if s["n0"]))


DIVIDE = Sample(
    Kernel("divide", (Param("x", int32, (N0,), "in"), Param("y", int32, (N0,), "in"), Param("q", int32, (N0,), "out")),
           ("n0",), (loops((("i", N0),), Store("q", (i,), Guard(
               prim("floordiv", load("x", i, dtype=int32), load("y", i, dtype=int32)),
               prim("ne", load("y", i, dtype=int32), const(0, int32)), const(-77, int32), 0))),),
           (Site("division", "division by zero", "floordiv"),)),
    lambda rng, s: {"x": rng.integers(-99, 99, s["n0"]).astype(np.int32),
                    "y": (rng.integers(0, 2, s["n0"]) * 2 - 1 + (rng.random(s["n0"]) < 0.01)).astype(np.int32)},
    lambda a, s: {"q": np.where(a["y"] == 0, -77, a["x"] // np.where(a["y"] == 0, 1, a["y"])),
                  "status": int((a["y"] == 0).any())}, LINE)

_x = load("x", i)
BRANCH = Sample(
    Kernel("branch", (Param("x", float32, (N0,), "in"), Param("y", float32, (N0,), "inout"),
                      Param("z", float32, (N0,), "inout")), ("n0",), (
        loops((("i", N0),), If(prim("lt", _x, f32(0.0)), (
            Let("t", prim("mul", _x, _x)), Store("y", (i,), Var("t", float32))), (
            If(prim("lt", _x, f32(1.0)), (Store("z", (i,), prim("neg", _x)),)),))),)),
    normal(x=(N0,), y=(N0,), z=(N0,)),
    lambda a, s: {"y": np.where(a["x"] < 0, a["x"] * a["x"], a["y"]),
                  "z": np.where((a["x"] >= 0) & (a["x"] < 1), -a["x"], a["z"])}, LINE)

# Newton's iteration for sqrt(x) until it no longer falls, and the number of its steps.
_r, _next = Var("r", float32), Var("better", float32)
NEWTON = Sample(
    Kernel("newton", (Param("x", float32, (N0,), "in"), Param("root", float32, (N0,), "out"),
                      Param("steps", int32, (N0,), "out")), ("n0",), (
        loops((("i", N0),), While(
            ("r", "count", "go"), (prim("max", _x, f32(1.0)), const(0, int32), const(True, bool_)),
            Var("go", bool_),
            (Let("better", prim("mul", f32(0.5), prim("add", _r, prim("div", _x, _r)))),),
            (prim("min", _next, _r), prim("add", Var("count", int32), const(1, int32)),
             prim("and", prim("lt", _next, _r), prim("lt", Var("count", int32), const(60, int32))))),
            Store("root", (i,), _r), Store("steps", (i,), prim("min", Var("count", int32), const(1, int32)))),)),
    lambda rng, s: {"x": rng.uniform(0.01, 1e4, s["n0"]).astype(np.float32)},
    lambda a, s: {"root": Expected(np.sqrt(wide(a["x"])), 2), "steps": np.ones(s["n0"], int)}, LINE)


def scatter_sample(mode: str, dtype: DType) -> Sample:
    """Return y[at[i], j] set to, or added, u[i, j]; parallel over the columns, duplicates in order of i."""
    row = Var("row", int64)
    kernel = Kernel(f"scatter_{mode}_{short(dtype)}", (
        Param("u", dtype, (N0, N1), "in"), Param("at", int64, (N0,), "in"), Param("y", dtype, (4, N1), "inout")),
        ("n0", "n1"), (
        loops((("j", N1),), For("i", size(N0), (
            Let("row", guarded(load("at", i, dtype=int64), index(4), 0)),
            Scatter("y", (row, j), load("u", i, j, dtype=dtype), mode)))),),
        (Site("index", "row out of range", "scatter"),))

    def inputs(rng: np.random.Generator, s: Sizes) -> Arrays:
        return {"u": rng.integers(-9, 9, (s["n0"], s["n1"])).astype(dtype.storage),
                "at": rng.integers(0, 4, s["n0"]), "y": rng.integers(-9, 9, (4, s["n1"])).astype(dtype.storage)}

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        y = a["y"].copy()
        for at, u in zip(a["at"], a["u"], strict=True):
            y[at] = u if mode == "set" else y[at] + u
        return {"y": y}

    return Sample(kernel, inputs, reference, GRID)


# Insertion sort of each row in a Local: sequential loops, While, loads of what was just stored.
_p = Var("p", int64)
_key = Var("key", float32)
SORT = Sample(
    Kernel("sort", (Param("x", float32, (N0, N1), "in"), Param("y", float32, (N0, N1), "out")), ("n0", "n1"), (
        loops((("i", N0),), Local("t", float32, (N1,)), For("j", size(N1), (
            Let("key", load("x", i, j)),
            While(("p",), (j,), prim("and", prim("lt", index(0), _p), prim("lt", _key, Load(
                "t", (prim("sub", _p, index(1)),), float32, prim("lt", index(0), _p), f32(0.0)))),
                (Store("t", (_p,), load("t", prim("sub", _p, index(1)))),), (prim("sub", _p, index(1)),)),
            Store("t", (_p,), _key))),
            loops((("j", N1),), Store("y", (i, j), load("t", j)), parallel=False)),)),
    normal(x=(N0, N1)), lambda a, s: {"y": np.sort(a["x"], 1)}, GRID)

# ---------------------------------------------------------------------------------------------
# Shapes of control that data or an outer axis decide.

# Reductions over the part of each row up to the diagonal: an extent that depends on the outer axis.
_last = prim("min", prim("add", i, index(1)), size(N1))
TRIANGLE = Sample(
    Kernel("triangle", (Param("x", float32, (N0, N1), "in"), Param("total", float32, (N0,), "out"),
                        Param("top", int64, (N0,), "out")), ("n0", "n1"), (
        loops((("i", N0),), Reduce(("s", "m", "at"), ("sum", "argmax"), "j", _last, (),
                                   (load("x", i, j), load("x", i, j), prim("mul", j, index(2)))),
              Store("total", (i,), Var("s", float32)), Store("top", (i,), Var("at", int64))),)),
    normal(x=(N0, N1)),
    lambda a, s: {"total": Expected(np.array([wide(r)[:t + 1].sum() for t, r in enumerate(a["x"])]), 40,
                                    np.abs(wide(a["x"])).sum(1)),
                  "top": np.array([2 * r[:t + 1].argmax() for t, r in enumerate(a["x"])], np.int64)},
    tuple(s for s in GRID if s["n1"]))

# A guard in a branch reports only where the branch is taken; a reduction and a loop inside of a branch.
_count = load("count", i, dtype=int64)
CHOICE = Sample(
    Kernel("choice", (Param("x", float32, (N0, N1), "in"), Param("count", int64, (N0,), "in"),
                      Param("y", float32, (N0,), "out")), ("n0", "n1"), (
        loops((("i", N0),), If(prim("lt", _count, index(0)),
                               (Store("y", (i,), f32(-1.0)),),
                               (Reduce(("s",), ("sum",), "j", guarded(_count, prim("add", size(N1), index(1)), 0), (),
                                       (load("x", i, j),)), Store("y", (i,), Var("s", float32))))),),
           (Site("index", "count out of range", "choice"),)),
    lambda rng, s: {"x": rng.integers(-9, 9, (s["n0"], s["n1"])).astype(np.float32),
                    "count": rng.integers(-2, s["n1"] + 1 + (s["n0"] == 7), s["n0"])},
    lambda a, s: {"y": np.array([-1 if c < 0 else r[:c if c <= s["n1"] else 0].sum()
                                 for c, r in zip(a["count"], a["x"], strict=True)], np.float32),
                  "status": int((a["count"] > s["n1"]).any())}, GRID)

# Three nested reductions with a Let at each level, and a scatter whose index is a plain axis.
NESTED = Sample(
    Kernel("nested", (Param("x", float64, (3, N0, N1), "in"), Param("y", float64, (N0,), "out"),
                      Param("hits", int32, (N0,), "inout")), ("n0", "n1"), (
        loops((("i", N0),),
              Reduce(("s",), ("sum",), "k", index(3), (
                  Let("scale", prim("add", cast(k, float64), const(1.0, float64))),
                  Reduce(("m",), ("max",), "j", size(N1), (
                      Let("v", prim("mul", Var("scale", float64), load("x", k, i, j, dtype=float64))),),
                      (Var("v", float64),))),
                  (prim("max", Var("m", float64), const(0.0, float64)),)),
              Store("y", (i,), Var("s", float64)), Scatter("hits", (i,), const(2, int32), "add")),)),
    lambda rng, s: {"x": rng.normal(size=(3, s["n0"], s["n1"])), "hits": rng.integers(0, 9, s["n0"]).astype(np.int32)},
    lambda a, s: {"y": Expected((np.maximum(a["x"].max(2, initial=-np.inf), 0) * [[1], [2], [3]]).sum(0), 4),
                  "hits": a["hits"] + 2}, GRID)

# The longest run of falling steps at each place, by a While per element: lanes finish at different times.
_t = Var("t", int64)
RUNS = Sample(
    Kernel("runs", (Param("x", int32, (N0,), "in"), Param("y", int64, (N0,), "out")), ("n0",), (
        loops((("i", N0),), While(("t",), (i,), prim("and", prim("lt", index(0), _t), prim(
            "lt", load("x", _t, dtype=int32), Load("x", (prim("sub", _t, index(1)),), int32, prim("lt", index(0), _t),
                                                   const(0, int32)))), (), (prim("sub", _t, index(1)),)),
            Store("y", (i,), prim("sub", i, _t))),)),
    lambda rng, s: {"x": np.minimum(rng.integers(0, 9, s["n0"]), rng.integers(0, 99, s["n0"])).astype(np.int32)},
    lambda a, s: {"y": np.array([next(t - u for u in range(t, -1, -1) if u == 0 or a["x"][u] >= a["x"][u - 1])
                                 for t in range(s["n0"])], np.int64)}, LINE)


def half_sum_sample(dtype: DType) -> Sample:
    """Return row sums of a 2-byte float, accumulated in float32."""
    kernel = Kernel(f"half_sum_{short(dtype)}", (Param("x", dtype, (N0, N1), "in"), Param("y", dtype, (N0,), "out")),
                    ("n0", "n1"), (loops((("i", N0),), Reduce(
                        ("s",), ("sum",), "j", size(N1), (), (cast(load("x", i, j, dtype=dtype), float32),)),
                        Store("y", (i,), cast(Var("s", float32), dtype))),))
    return Sample(kernel, lambda rng, s: {"x": store(rng.normal(size=(s["n0"], s["n1"])), dtype)},
                  lambda a, s: {"y": Expected(show(a["x"], dtype).astype(float).sum(1), 1, 1e-3)}, GRID)


LOOP_SAMPLES: tuple[Sample, ...] = (
    AXPY, BIAS_RELU, TRANSPOSE, SCALAR, MOVEMENT, PAD, _chain(), _adam(),
    *(reduce_sample(d, over, c) for over in ("rows", "columns") for d, c in (
        (float32, ("sum",)), (float32, ("max", "min", "argmax", "argmin")), (float64, ("sum", "prod")),
        (float64, ("argmin",)), (int32, ("sum", "prod", "max", "min", "argmax")), (dtypes.uint8, ("max", "min", "sum")),
        (int64, ("sum", "argmin")), (bool_, ("any", "all")))),
    SUM_ALL, MOMENTS, _softmax(False), _softmax(True),
    *(scan_sample(d, c, r) for d, c, r in (
        (float32, "sum", False), (float32, "sum", True), (float64, "prod", False), (int64, "sum", True),
        (float32, "max", False), (int32, "min", True))),
    _gather(), DIVIDE, BRANCH, NEWTON, SORT, TRIANGLE, CHOICE, NESTED, RUNS,
    *(scatter_sample(m, d) for m, d in (("set", float32), ("add", float32), ("add", int32))),
    half_sum_sample(dtypes.float16), half_sum_sample(dtypes.bfloat16),
)
SAMPLES: dict[str, Sample] = {s.name: s for s in (
    *LOOP_SAMPLES, *CONTRACT_SAMPLES, *RANDOM_SAMPLES, *PRIMITIVE_SAMPLES)}
