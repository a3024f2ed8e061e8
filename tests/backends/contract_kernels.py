"""Sample kernels around Contract: products, batches, convolution, epilogues and prologues.

Owns the samples.  Knows no backend.  Invariant: the error allowed is c * sqrt(K) * eps * sum |a| |b|.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType, float32, float64, int32
from graphc.ir.dim import Size, symbol
from graphc.kernel.ir import Axis, Contract, Expr, Kernel, Let, Load, Param, Stmt, Store, Var, const, index, size
from graphc.kernel.primitives import cast, prim
from graphc.kernel.text import short
from tests.backends.harness import Arrays, Expected, Sample, Sizes, show, store

N0, N1, N2 = symbol("n0"), symbol("n1"), symbol("n2")
b, m, n, k = Axis("b"), Axis("m"), Axis("n"), Axis("k")
PRODUCTS = tuple({"n0": x, "n1": y, "n2": z} for x, y, z in (
    (0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (5, 7, 3), (33, 17, 40), (13, 70, 9), (64, 64, 64)))


def _pairs(*axes: tuple[str, Size]) -> tuple[tuple[str, Expr], ...]:
    return tuple((name, size(extent)) for name, extent in axes)


def _make(dtype: DType, **shapes: tuple[Size, ...]) -> Callable[[np.random.Generator, Sizes], Arrays]:
    def inputs(rng: np.random.Generator, sizes: Sizes) -> Arrays:
        out = {}
        for name, shape in shapes.items():
            dims = [s if isinstance(s, int) else s.evaluate(sizes) for s in shape]
            out[name] = store(rng.normal(size=dims) if dtype.is_floating else rng.integers(-9, 9, dims), dtype)
        return out
    return inputs


def _product(x: np.ndarray, y: np.ndarray, spec: str, dtype: DType, depth: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return value, sum of magnitudes, and allowed ulps of einsum(spec, x, y)."""
    wide: Any = np.longdouble if dtype is float64 else np.float64
    xw, yw = show(x, dtype).astype(wide), show(y, dtype).astype(wide)
    return (np.einsum(spec, xw, yw), np.einsum(spec, np.abs(xw), np.abs(yw)), 2 * np.sqrt(max(depth, 1)))


def matmul_sample(layout: str, dtype: DType, acc: DType, columns: Size = N1) -> Sample:
    """Return a plain product; layout "nt" stores b as (N, K), and so on."""
    ashape, aindex, aspec = ((N0, N2), (m, k), "mk") if layout[0] == "n" else ((N2, N0), (k, m), "km")
    bshape, bindex, bspec = ((N2, columns), (k, n), "kn") if layout[1] == "n" else ((columns, N2), (n, k), "nk")
    left, right = (cast(Load(name, at, dtype), acc) for name, at in (("x", aindex), ("y", bindex)))
    kernel = Kernel(f"matmul_{layout}_{short(dtype)}" + (f"_{columns}" if isinstance(columns, int) else ""), (
        Param("x", dtype, ashape, "in"), Param("y", dtype, bshape, "in"), Param("z", acc, (N0, columns), "out")),
        ("n0", "n1", "n2"), (Contract((), _pairs(("m", N0)), _pairs(("n", columns)), _pairs(("k", N2)), left, right,
                                      "acc", acc, (Store("z", (m, n), Var("acc", acc)),)),))

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        value, scale, ulps = _product(a["x"], a["y"], f"{aspec},{bspec}->mn", dtype, s["n2"])
        return {"z": Expected(value, ulps, scale) if acc.is_floating else value}

    return Sample(kernel, _make(dtype, x=ashape, y=bshape), reference, PRODUCTS)


def _dense() -> Sample:
    """Bias, relu and its mask in the epilogue; two outputs."""
    t = Var("t", float32)
    body: tuple[Stmt, ...] = (
        Let("t", prim("add", Var("acc", float32), Load("bias", (n,), float32))),
        Store("z", (m, n), prim("max", t, const(0.0, float32))),
        Store("slope", (m, n), prim("select", prim("lt", const(0.0, float32), t), Load("g", (m, n), float32),
                                    const(0.0, float32))))
    kernel = Kernel("dense", (
        Param("x", float32, (N0, N2), "in"), Param("y", float32, (N2, N1), "in"), Param("bias", float32, (N1,), "in"),
        Param("g", float32, (N0, N1), "in"), Param("z", float32, (N0, N1), "out"),
        Param("slope", float32, (N0, N1), "out")), ("n0", "n1", "n2"),
        (Contract((), _pairs(("m", N0)), _pairs(("n", N1)), _pairs(("k", N2)), Load("x", (m, k), float32),
                  Load("y", (k, n), float32), "acc", float32, body),))

    def inputs(rng: np.random.Generator, s: Sizes) -> Arrays:
        a = {name: rng.integers(-4, 5, shape).astype(np.float32) for name, shape in (
            ("x", (s["n0"], s["n2"])), ("y", (s["n2"], s["n1"])), ("g", (s["n0"], s["n1"])))}
        return a | {"bias": rng.integers(-9, 9, s["n1"]).astype(np.float32) + np.float32(0.5)}

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:  # small integers: every order of summing is exact
        t = a["x"] @ a["y"] + a["bias"]
        return {"z": Expected(np.maximum(t, 0), 0), "slope": Expected(np.where(t > 0, a["g"], 0), 0)}

    return Sample(kernel, inputs, reference, PRODUCTS)


def _batched() -> Sample:
    """Batched product with a shared right side, an elementwise prologue, and a transposed store."""
    kernel = Kernel("batched", (
        Param("x", float32, (3, N0, N2), "in"), Param("y", float32, (N2, N1), "in"),
        Param("z", float32, (3, N1, N0), "out")), ("n0", "n1", "n2"),
        (Contract(_pairs(("b", 3)), _pairs(("m", N0)), _pairs(("n", N1)), _pairs(("k", N2)),
                  prim("max", Load("x", (b, m, k), float32), const(0.0, float32)), Load("y", (k, n), float32), "acc",
                  float32, (Store("z", (b, n, m), prim("mul", const(0.5, float32), Var("acc", float32))),)),))

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        value, scale, ulps = _product(np.maximum(a["x"], 0), a["y"], "bmk,kn->bnm", float32, s["n2"])
        return {"z": Expected(value / 2, ulps, scale / 2)}

    return Sample(kernel, _make(float32, x=(3, N0, N2), y=(N2, N1)), reference, PRODUCTS)


def _matvec() -> Sample:
    """No n axis at all, float64."""
    kernel = Kernel("matvec", (
        Param("x", float64, (N0, N2), "in"), Param("y", float64, (N2,), "in"), Param("z", float64, (N0,), "out")),
        ("n0", "n1", "n2"),
        (Contract((), _pairs(("m", N0)), (), _pairs(("k", N2)), Load("x", (m, k), float64), Load("y", (k,), float64),
                  "acc", float64, (Store("z", (m,), Var("acc", float64)),)),))

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        value, scale, ulps = _product(a["x"], a["y"], "mk,k->m", float64, s["n2"])
        return {"z": Expected(value, ulps, scale)}

    return Sample(kernel, _make(float64, x=(N0, N2), y=(N2,)), reference, PRODUCTS)


def _convolution() -> Sample:
    """3x3 convolution, NHWC, stride 1, zero padding through a predicated load: several m, n and k axes."""
    ho, wo, dy, dx, c, o = (Axis(name) for name in ("ho", "wo", "dy", "dx", "c", "o"))
    y, x = (prim("sub", prim("add", p, d), index(1)) for p, d in ((ho, dy), (wo, dx)))

    def inside(v: Expr, extent: int) -> Expr:
        return prim("and", prim("le", index(0), v), prim("lt", v, index(extent)))

    left = Load("x", (b, y, x, c), float32, prim("and", inside(y, 5), inside(x, 6)), const(0.0, float32))
    kernel = Kernel("convolution", (
        Param("x", float32, (N0, 5, 6, 3), "in"), Param("w", float32, (3, 3, 3, 4), "in"),
        Param("z", float32, (N0, 5, 6, 4), "out")), ("n0",),
        (Contract((), _pairs(("b", N0), ("ho", 5), ("wo", 6)), _pairs(("o", 4)),
                  _pairs(("dy", 3), ("dx", 3), ("c", 3)), left, Load("w", (dy, dx, c, o), float32), "acc", float32,
                  (Store("z", (b, ho, wo, o), Var("acc", float32)),)),))

    def reference(a: Arrays, s: Sizes) -> dict[str, Any]:
        padded = np.pad(a["x"].astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)))
        w = a["w"].astype(float)
        parts = [(padded[:, p:p + 5, q:q + 6], w[p, q]) for p in range(3) for q in range(3)]
        return {"z": Expected(np.sum([u @ v for u, v in parts], 0), 12,
                              np.sum([np.abs(u) @ np.abs(v) for u, v in parts], 0))}

    return Sample(kernel, _make(float32, x=(N0, 5, 6, 3), w=(3, 3, 3, 4)), reference, ({"n0": 0}, {"n0": 1}, {"n0": 3}))


CONTRACT_SAMPLES: tuple[Sample, ...] = (
    *(matmul_sample(layout, float32, float32) for layout in ("nn", "nt", "tn", "tt")),
    matmul_sample("nn", float32, float32, 10), matmul_sample("nn", float32, float32, 1),
    matmul_sample("nn", float64, float64), matmul_sample("nt", int32, int32),
    matmul_sample("nn", dtypes.bfloat16, float32), matmul_sample("nt", dtypes.float16, float32),
    _dense(), _batched(), _matvec(), _convolution(),
)
