"""Errors of the transcendental functions, in ulp, over the ranges of float32 and float64.

float32 is checked against float64 (powers too), float64 against the platform's long double; erf against
Python's.  The bounds are those that llvm_cpu/maths.py states.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import dtypes
from graphc.ir.dim import symbol
from graphc.kernel.ir import Axis, For, Kernel, Load, Param, Store, index, size
from graphc.kernel.primitives import prim
from tests.backends.llvm_native import Native, runnable

MACHINES = runnable()
FLOATS: tuple[Any, ...] = (np.float32, np.float64)
_erf = np.vectorize(math.erf, otypes=[np.float64])

# name: (reference, bound for float32, bound for float64)
FUNCTIONS: dict[str, tuple[Callable[..., Any], float, float]] = {
    "exp": (np.exp, 1.1, 1.1), "expm1": (np.expm1, 1.8, 2.1), "log": (np.log, 0.9, 0.9),
    "log1p": (np.log1p, 0.9, 0.9), "sin": (np.sin, 1.7, 2.6), "cos": (np.cos, 1.7, 2.6), "tan": (np.tan, 3.7, 4.2),
    "asin": (np.arcsin, 1.8, 1.9), "acos": (np.arccos, 1.3, 1.4), "atan": (np.arctan, 2.0, 2.0),
    "sinh": (np.sinh, 1.8, 1.9), "cosh": (np.cosh, 1.6, 1.7), "tanh": (np.tanh, 2.5, 2.8),
    "asinh": (np.arcsinh, 1.9, 2.0), "acosh": (np.arccosh, 2.1, 2.3), "atanh": (np.arctanh, 2.2, 2.2),
    "erf": (_erf, 1.6, 2.1), "pow": (np.power, 0.6, 1.5), "atan2": (np.arctan2, 2.1, 2.3), "sqrt": (np.sqrt, 0.5, 0.5),
}
SPECIAL = (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, math.inf, -math.inf, math.nan, 1e38, -1e38, 1e-40,
           1e-45, 2.0 ** 24 + 2, 2.0 ** 53, 88.72283, 88.72284, -103.972, 709.7827, 1e300, 5e-324)


def kernel(op: str, dtype: dtypes.DType, arity: int) -> Kernel:
    """Return y[i] = op(x0[i], ...)."""
    n, i = symbol("n0"), Axis("i")
    params = [Param(f"x{k}", dtype, (n,), "in") for k in range(arity)]
    loads = (Load(p.name, (i,), dtype) for p in params)
    return Kernel(op, (*params, Param("y", dtype, (n,), "out")), ("n0",),
                  (For("i", size(n), (Store("y", (i,), prim(op, *loads)),), True),))


def run(machine: Native, op: str, *arguments: np.ndarray) -> np.ndarray:
    """Return op of the arguments as `machine` computes it."""
    y = np.full_like(arguments[0], np.nan)
    arrays = {f"x{k}": a for k, a in enumerate(arguments)} | {"y": y}
    assert machine(kernel(op, dtypes.as_dtype(y.dtype), len(arguments)), arrays, {"n0": y.size}) == 0
    return y


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return errors in units of the result's last place; 0 where both are NaN, or inf of the same sign."""
    info, want = np.finfo(got.dtype), exact.astype(np.longdouble)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(want)[1] - 1, info.minexp)
        unit = np.ldexp(np.longdouble(1), exponent - info.nmant)
        error = np.abs(got.astype(np.longdouble) - want) / unit
        beyond = np.abs(want) >= np.longdouble(info.max) + np.ldexp(np.longdouble(1), info.maxexp - info.nmant - 2)
    agree = (np.isnan(got) & np.isnan(want)) | (np.isinf(got) & beyond & (np.signbit(got) == np.signbit(want)))
    error = np.where(agree, 0, np.where(np.isnan(error), np.inf, error))
    wrong_zero = (want == 0) & (got == 0) & (np.signbit(want) != np.signbit(got))
    return np.where(wrong_zero, np.inf, error)


def everywhere(rng: np.random.Generator, kind: Any, count: int) -> np.ndarray:
    """Return numbers of any bits, denser where the functions bend, and the special ones."""
    bits = rng.integers(0, 2 ** (32 if kind is np.float32 else 64), count, dtype=np.uint64, endpoint=False)
    whole = bits.astype(np.uint32).view(np.float32) if kind is np.float32 else bits.view(np.float64)
    limit = 89 if kind is np.float32 else 710
    with np.errstate(all="ignore"):
        dense = np.concatenate([
            rng.uniform(-1.01, 1.01, count // 4), rng.normal(0, 10, count // 4), rng.uniform(-limit, limit, count // 4),
            rng.uniform(0.5, 2, count // 4), rng.integers(-2000, 2000, count // 8) * (np.pi / 2),
            np.exp(rng.uniform(-30, 0, count // 4)) * rng.choice([-1, 1], count // 4), np.array(SPECIAL)]).astype(kind)
    return np.concatenate([whole, dense])


def check(op: str, got: np.ndarray, exact: np.ndarray, bound: float, *arguments: np.ndarray) -> None:
    """Fail with the worst argument where the error is above `bound`."""
    error = ulps(got, exact)
    worst = int(np.argmax(error))
    at, off = ", ".join(repr(a[worst]) for a in arguments), float(error[worst])
    assert off <= bound, f"{op}({at}) = {got[worst]!r}, exactly {exact[worst]!r}: {off:.3f} ulp"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", FLOATS, ids=("f32", "f64"))
def test_unary(kind: Any, machine: str) -> None:
    native, rng = Native(MACHINES[machine]), np.random.default_rng()
    for op, (reference, *bounds) in FUNCTIONS.items():
        if op in ("pow", "atan2"):
            continue
        x = everywhere(rng, kind, 4_000 if op == "erf" else 60_000)
        wide = np.float64 if kind is np.float32 or op == "erf" else np.longdouble
        with np.errstate(all="ignore"):
            exact = np.asarray(reference(x.astype(wide)))
        check(op, run(native, op, x), exact, bounds[FLOATS.index(kind)], x)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", FLOATS, ids=("f32", "f64"))
def test_binary(kind: Any, machine: str) -> None:
    native, rng = Native(MACHINES[machine]), np.random.default_rng()
    with np.errstate(all="ignore"):
        special = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1).astype(kind)
    x = np.concatenate([np.exp(rng.uniform(-60, 60, 50_000)) * rng.choice([-1, 1], 50_000), rng.uniform(0, 3, 50_000),
                        rng.integers(-5, 6, 9_000), special[0]]).astype(kind)
    y = np.concatenate([rng.normal(0, 4, 50_000), rng.normal(0, 60, 50_000), rng.integers(-9, 10, 9_000),
                        special[1]]).astype(kind)
    wide = np.float64 if kind is np.float32 else np.longdouble
    for op in ("pow", "atan2"):
        reference, *bounds = FUNCTIONS[op]
        with np.errstate(all="ignore"):
            exact = np.asarray(reference(x.astype(wide), y.astype(wide)))
        check(op, run(native, op, x, y), exact, bounds[FLOATS.index(kind)], x, y)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(run(native, "truncmod", x, y), np.fmod(x, y))


@pytest.mark.parametrize("kind", FLOATS, ids=("f32", "f64"))
def test_scalars_agree_with_vectors(kind: Any) -> None:
    """The scalar code of a function keeps the bounds too (uniform values are computed by it)."""
    native, rng = Native(MACHINES["host"]), np.random.default_rng()
    for op, (reference, *bounds) in FUNCTIONS.items():
        if op in ("pow", "atan2"):
            continue
        dtype, wide = dtypes.as_dtype(kind), np.float64 if kind is np.float32 or op == "erf" else np.longdouble
        one = Kernel("one", (Param("x0", dtype, (1,), "in"), Param("y", dtype, (1,), "out")), (),
                     (Store("y", (index(0),), prim(op, Load("x0", (index(0),), dtype))),))
        for value in (*SPECIAL[:12], *rng.normal(0, 2, 5)):
            x, y = np.array([value], kind), np.full(1, np.nan, kind)
            assert native(one, {"x0": x, "y": y}, {}) == 0
            with np.errstate(all="ignore"):
                exact = np.asarray(reference(x.astype(wide)))
            check(op, y, exact, bounds[FLOATS.index(kind)], x)
