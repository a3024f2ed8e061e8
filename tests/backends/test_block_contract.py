"""Products between the stages of a block, on every backend: rows from none to more than two panels, in any number of
strips, of widths that fill a vector, half of one or several."""
from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from graphc.backends.interp import run as interpret
from graphc.backends.numba_cpu import NumbaBackend
from graphc.dtypes import DType, float32, float64, int64
from graphc.errors import BackendError
from graphc.ir.dim import ceildiv, symbol
from graphc.kernel.ir import Axis, Contract, Expr, For, Kernel, Load, Local, Param, Store, Var, const, index, size
from graphc.kernel.primitives import prim
from graphc.kernel.target import named
from graphc.kernel.verify import verify
from graphc.options import Options
from tests.backends import native as calls
from tests.backends.harness import Arrays, Expected, Sample, Sizes, check
from tests.backends.llvm_native import BACKEND, Native, runnable

MACHINES = runnable()
N = symbol("n0")
POINTS = 3
b, t, p, k, q, e = map(Axis, "btpkqe")


def add(x: Expr, y: Expr) -> Expr:
    return prim("add", x, y)


def times(x: Expr, n: int) -> Expr:
    return prim("mul", x, index(n))


def kernel(block: int, depth: int, strips: int, strip: int, dtype: DType, spare: int = 0, room: int = 24,
           turns: int = 0) -> Kernel:
    """y[p, t, :] = x[p, t, :] @ w[p], in blocks of rows t; the rows of scratch are those of a block, and `room`.  With
    `turns`, so many products are added to 1."""
    rows = prim("min", index(block), prim("sub", size(N), times(b, block)))
    row, column = add(times(b, block), t), add(times(q, strip), e)
    width = strips * strip
    v, s = (Local(name, dtype, (POINTS, max(block, room) * n + spare), "block") for name, n in (
        ("v", depth), ("s", width)))
    v_at, s_at = (p, add(times(t, depth), k)), (p, add(times(t, width), column))

    def every(axis: Axis, extent: Expr, *body: object) -> For:
        return For(axis.name, extent, body, True)  # type: ignore[arg-type]

    copy = every(t, rows, every(p, index(POINTS), every(k, index(depth), Store(
        "v", v_at, Load("x", (p, row, k), dtype)))))
    product = Contract((("p", index(POINTS)),), (("t", rows),), (("q", index(strips)), ("e", index(strip))),
                       (("k", index(depth)),), Load("v", v_at, dtype), Load("w", (p, q, k, e), dtype), "acc", dtype,
                       (Store("s", s_at, Var("acc", dtype)),))
    again = For("r", index(turns), (replace(product, m=(("t", index(block)),), body=(
        Store("s", s_at, prim("add", Load("s", s_at, dtype), Var("acc", dtype))),)),))
    ones = every(p, index(POINTS), every(t, rows, every(q, index(strips), every(e, index(strip), Store(
        "s", s_at, const(1, dtype))))))
    out = every(t, rows, every(p, index(POINTS), every(q, index(strips), every(e, index(strip), Store(
        "y", (p, row, column), Load("s", s_at, dtype))))))
    params = (Param("x", dtype, (POINTS, N, depth), "in"), Param("w", dtype, (POINTS, strips, depth, strip), "in"),
              Param("y", dtype, (POINTS, N, width), "out"))
    middle = (ones, again) if turns else (product,)
    name = f"block_{block}_{depth}_{strips}_{strip}_{dtype.name}" + (f"_x{turns}" if turns else "")
    return Kernel(name, params, ("n0",), (every(b, size(ceildiv(N, block)), v, s, copy, *middle, out),))


def sample(body: Kernel, turns: int = 0) -> Sample:
    def inputs(rng: np.random.Generator, sizes: Sizes) -> Arrays:
        return {q.name: rng.standard_normal(tuple(n if isinstance(n, int) else sizes["n0"] for n in q.shape)).astype(
            q.dtype.storage) for q in body.params if q.role == "in"}

    def reference(arrays: Arrays, sizes: Sizes) -> dict[str, object]:
        x, w = (arrays[n].astype(np.longdouble) for n in "xw")
        w = w.swapaxes(1, 2).reshape(POINTS, w.shape[2], -1)
        if turns:
            return {"y": Expected(1 + turns * (x @ w), 2.0 * turns * x.shape[-1], 1 + turns * (np.abs(x) @ np.abs(w)))}
        return {"y": Expected(x @ w, 2.0 * x.shape[-1], np.abs(x) @ np.abs(w))}

    return Sample(body, inputs, reference, tuple({"n0": n} for n in (0, 1, 3, 5, 13, 24, 37, 61)))


SAMPLES = {s.name: s for s in map(sample, (
    kernel(24, 5, 1, 16, float32), kernel(24, 16, 2, 16, float32, 16), kernel(28, 7, 5, 16, float32),
    kernel(9, 33, 3, 16, float32, 1), kernel(25, 4, 1, 16, float64), kernel(30, 6, 3, 8, float64),
    kernel(24, 3, 2, 64, float32), kernel(11, 3, 5, 4, float32), kernel(1, 1, 1, 2, float64)))}
SAMPLES |= {s.name: s for s in (sample(kernel(26, 5, 3, 16, float32, room=32, turns=3), 3),
                                sample(kernel(7, 4, 1, 8, float64, room=8, turns=1), 1))}


@cache
def native(machine: str) -> Native:
    return Native(MACHINES[machine])


@pytest.mark.parametrize("name", SAMPLES)
def test_interp(name: str) -> None:
    verify(SAMPLES[name].kernel)
    for seed, sizes in enumerate(SAMPLES[name].sizes):
        check(SAMPLES[name], interpret, sizes, seed)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", SAMPLES)
def test_llvm_cpu(name: str, machine: str) -> None:
    for seed, sizes in enumerate(SAMPLES[name].sizes):
        check(SAMPLES[name], native(machine), sizes, seed)


def test_numba_cpu() -> None:
    chosen = list(SAMPLES.values())[::3]
    compiled = NumbaBackend().compile([s.kernel for s in chosen], Options(backend="numba_cpu"))
    for one, address, info in zip(chosen, compiled.addresses, compiled.infos, strict=True):
        def execute(body: Kernel, arrays: Arrays, sizes: dict[str, int], at: object = (address, info)) -> int:
            return calls.call(*at, body, arrays, sizes, 1)  # type: ignore[misc]
        for seed, sizes in enumerate(one.sizes):
            check(one, execute, sizes, seed)


@pytest.mark.parametrize("name", ["aarch64", "x86-64-v4"])
def test_other_machines_get_objects(name: str) -> None:
    for one in list(SAMPLES.values())[:4]:
        assert BACKEND.object_code(one.kernel, named(name))[:4] == b"\x7fELF"


@pytest.mark.parametrize(("body", "reason"), [
    (kernel(4, 3, 1, 16, float32, room=4), "rows or more"), (kernel(24, 3, 1, 12, float32), "power of two"),
    (kernel(24, 3, 1, 16, int64), "float32 or float64")])
def test_other_forms_are_refused(body: Kernel, reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        BACKEND.object_code(body, MACHINES["host"])
