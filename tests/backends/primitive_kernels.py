"""Sample kernels over every primitive and every dtype: y[i] = op(x[i], ...), many ops in one kernel.

Owns the samples and the error that each primitive may have, in ulp.  Values are ordinary numbers mixed
with the special ones of the dtype.  Invariant: float32 is checked against float64, float64 against the
platform's long double, integers against exact arithmetic.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.ir.dim import symbol
from graphc.kernel.ir import Axis, Expr, For, Kernel, Load, Param, Stmt, Store, size
from graphc.kernel.primitives import PRIMITIVES, bitcast, cast, prim
from graphc.kernel.text import short
from tests.backends.harness import Arrays, Expected, Sample, Sizes, show, store

N = symbol("n0")
AT = Axis("i")
SIZES = ({"n0": 0}, {"n0": 1}, {"n0": 37}, {"n0": 600})

# Allowed error in ulp; what is not listed is exact.
ULPS: dict[str, float] = {
    "exp": 2, "expm1": 3, "log": 2, "log1p": 3, "sin": 3, "cos": 3, "tan": 5, "asin": 4, "acos": 4, "atan": 4,
    "atan2": 4, "sinh": 4, "cosh": 4, "tanh": 4, "asinh": 4, "acosh": 4, "atanh": 4, "erf": 4, "pow": 4,
}
_SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -7.0, 88.0, -88.0, 1e-3, 0.75, 1.5, 2.5, -2.5, 0.49999997,
            1e-10, -1e-10, math.inf, -math.inf, math.nan, math.pi, 100.0, -100.0)


def floats(rng: np.random.Generator, n: int, dtype: DType) -> np.ndarray:
    """Return n ordinary and special values of a floating dtype, as float64 that the dtype holds exactly."""
    parts = np.stack([rng.normal(0, 1, n), rng.normal(0, 30, n), np.exp(rng.normal(0, 8, n)), rng.uniform(-1, 1, n)])
    values = parts[rng.integers(0, 4, n), np.arange(n)] if n else np.empty(0)
    info = np.finfo(np.float32 if dtype is dtypes.bfloat16 else dtype.as_numpy_dtype)
    special = np.array([*_SPECIAL, float(info.tiny), -float(info.tiny), float(info.max), -float(info.max)])
    values = np.where(rng.random(n) < 0.4, rng.choice(special, n), values)
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(dtype.as_numpy_dtype).astype(np.float64)


def integers(rng: np.random.Generator, n: int, dtype: DType) -> np.ndarray:
    """Return n small, large and extreme values of an integer dtype (or bools)."""
    if dtype.is_bool:
        return rng.random(n) < 0.5
    info = np.iinfo(dtype.as_numpy_dtype)
    wide = rng.integers(info.min, info.max, n, dtype=dtype.as_numpy_dtype, endpoint=True)
    small = rng.integers(0 if dtype.is_unsigned else -5, 6, n).astype(dtype.as_numpy_dtype)
    edge = rng.choice(np.array([info.min, info.min + 1, info.max, info.max - 1], dtype.as_numpy_dtype), n)
    kind = rng.integers(0, 3, n)
    return np.where(kind == 0, wide, np.where(kind == 1, small, edge))


def values(rng: np.random.Generator, n: int, dtype: DType) -> np.ndarray:
    """Return n values of any dtype in stored form."""
    return store(floats(rng, n, dtype), dtype) if dtype.is_floating else integers(rng, n, dtype)


def elementwise(name: str, inputs: Sequence[tuple[str, DType]], outputs: Sequence[tuple[str, Expr]]) -> Kernel:
    """Return the kernel over n0 elements that stores each output expression at i."""
    params = [Param(n, d, (N,), "in") for n, d in inputs] + [Param(n, e.dtype, (N,), "out") for n, e in outputs]
    body: tuple[Stmt, ...] = tuple(Store(n, (AT,), e) for n, e in outputs)
    return Kernel(name, tuple(params), ("n0",), (For("i", size(N), body, parallel=True),))


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64 if a.dtype == np.float32 else np.longdouble)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(v) for v in x.astype(np.float64)], x.dtype)


def _select(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(c, a, b))


_FLOAT: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "truncmod": np.fmod, "neg": np.negative,
    "abs": np.abs, "max": np.maximum, "min": np.minimum, "floor": np.floor, "ceil": np.ceil, "rint": np.rint,
    "trunc": np.trunc, "copysign": np.copysign, "sqrt": np.sqrt, "exp": np.exp, "expm1": np.expm1, "log": np.log,
    "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "atan2": np.arctan2, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "erf": _erf, "pow": np.power, "fma": lambda a, b, c: a * b + c,
    "select": _select,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
}


def _nonzero(f: Callable[[int, int], int]) -> Callable[[int, int, int], int]:
    return lambda a, b, bits: f(a, b) if b else 0


def _truncdiv(a: int, b: int) -> int:
    return abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1)


# On Python's integers; the results wrap to the dtype.
_INTEGER: dict[str, Callable[..., int]] = {
    "add": lambda a, b, bits: a + b, "sub": lambda a, b, bits: a - b, "mul": lambda a, b, bits: a * b,
    "floordiv": _nonzero(lambda a, b: a // b), "floormod": _nonzero(lambda a, b: a % b),
    "truncdiv": _nonzero(_truncdiv), "truncmod": _nonzero(lambda a, b: a - b * _truncdiv(a, b)),
    "neg": lambda a, bits: -a, "abs": lambda a, bits: abs(a), "max": lambda a, b, bits: max(a, b),
    "min": lambda a, b, bits: min(a, b), "and": lambda a, b, bits: a & b, "or": lambda a, b, bits: a | b,
    "xor": lambda a, b, bits: a ^ b, "not": lambda a, bits: ~a,
    "shl": lambda a, b, bits: a << (b % bits), "shr": lambda a, b, bits: a >> (b % bits),
    "eq": lambda a, b, bits: a == b, "ne": lambda a, b, bits: a != b, "lt": lambda a, b, bits: a < b,
    "le": lambda a, b, bits: a <= b, "select": lambda c, a, b, bits: a if c else b,
}


def _wrap(value: int, dtype: DType) -> int | bool:
    if dtype.is_bool:
        return bool(value & 1)
    low = 0 if dtype.is_unsigned else -(1 << (dtype.bits - 1))
    return (value - low) % (1 << dtype.bits) + low


def _on_integers(op: str, dtype: DType, args: Sequence[np.ndarray]) -> np.ndarray:
    lists = [[int(v) for v in a] for a in args]
    out = [_INTEGER[op](*row, dtype.bits) for row in zip(*lists, strict=True)]
    if PRIMITIVES[op].result == "bool":
        return np.array(out, np.bool_)
    return np.array([_wrap(int(v), dtype) for v in out], dtype.storage)


def _on_floats(op: str, args: Sequence[np.ndarray]) -> Expected | np.ndarray:
    wide = [a if a.dtype == np.bool_ else _wide(a) for a in args]
    with np.errstate(all="ignore"):
        value = np.asarray(_FLOAT[op](*wide))
        if PRIMITIVES[op].result == "bool":
            return value
        if op in ("max", "min"):  # the sign of a zero is free
            return Expected(value, 0)
        if op == "fma":  # two roundings are allowed
            return Expected(value, 1, np.abs(wide[0] * wide[1]))
        if op in ("add", "sub", "mul", "div", "sqrt"):  # correctly rounded
            return np.asarray(_FLOAT[op](*args))
    return Expected(value, ULPS[op], flush=True) if op in ULPS else value


def primitive_sample(ops: Sequence[str], dtype: DType, name: str) -> Sample:
    """Return the sample that computes each of `ops` over dtype arrays x, y, z (and conditions p)."""
    arrays: list[tuple[str, DType]] = [("x", dtype), ("y", dtype), ("z", dtype), ("p", dtypes.bool_)]
    x, y, z, p = (Load(n, (AT,), d) for n, d in arrays)

    def operands(op: str) -> tuple[str, ...]:
        return ("p", "x", "y") if op == "select" else ("x", "y", "z")[:PRIMITIVES[op].arity]

    by_name: dict[str, Expr] = {"x": x, "y": y, "z": z, "p": p}
    kernel = elementwise(name, arrays, [(f"{op}_", prim(op, *(by_name[a] for a in operands(op)))) for op in ops])

    def inputs(rng: np.random.Generator, sizes: Sizes) -> Arrays:
        given = {n: values(rng, sizes["n0"], d) for n, d in arrays}
        if {"sin", "cos", "tan"} & set(ops):  # arguments that a plain range reduction handles
            big = np.isfinite(given["x"]) & (np.abs(given["x"]) > 1e4)
            given["x"][big] = np.fmod(given["x"][big], given["x"].dtype.type(1e4))
        return given

    def reference(given: Arrays, sizes: Sizes) -> dict[str, object]:
        run = _on_floats if dtype.is_floating else lambda op, a: _on_integers(op, dtype, a)
        return {f"{op}_": run(op, [given[a] for a in operands(op)]) for op in ops}

    return Sample(kernel, inputs, reference, SIZES)


def cast_sample(source: DType) -> Sample:
    """Return the sample that casts from `source` to every dtype, and reads the bits as every dtype of its width."""
    x = Load("x", (AT,), source)
    outputs = [(f"to_{short(d)}", cast(x, d)) for d in dtypes.ALL if d is not source]
    same_width = [d for d in dtypes.ALL if d.size == source.size and not d.is_bool and d is not source]
    if not source.is_bool:
        outputs += [(f"bits_{short(d)}", bitcast(x, d)) for d in same_width]
    kernel = elementwise(f"cast_{short(source)}", [("x", source)], outputs)

    def reference(given: Arrays, sizes: Sizes) -> dict[str, object]:
        shown = show(given["x"], source)
        out: dict[str, object] = {f"to_{short(d)}": _cast(shown, source, d) for d in dtypes.ALL if d is not source}
        if not source.is_bool:
            out |= {f"bits_{short(d)}": show(given["x"].view(d.storage), d) for d in same_width}
        return out

    return Sample(kernel, lambda rng, sizes: {"x": values(rng, sizes["n0"], source)}, reference, SIZES)


def _cast(shown: np.ndarray, source: DType, target: DType) -> Expected | np.ndarray:
    if target.is_bool:
        return np.asarray(shown != 0)
    if target.is_floating:
        half = target.size == 2 and source.size > 2  # one rounding or two, through float32
        wide = shown.astype(np.longdouble)
        return Expected(wide, 1) if half else wide
    if not source.is_floating:
        return np.array([_wrap(int(v), target) for v in shown], target.storage)
    low, high = int(target.min), int(target.max)
    return np.array([0 if math.isnan(v) else low if v <= low else high if v >= high else int(v) for v in
                     shown.astype(np.float64)], target.storage)


def half_sample(dtype: DType) -> Sample:
    """Return arithmetic on a 2-byte float: loaded, computed in float32, rounded when stored."""
    x, y = (cast(Load(n, (AT,), dtype), dtypes.float32) for n in "xy")
    kernel = elementwise(f"half_{short(dtype)}", [("x", dtype), ("y", dtype)], [
        ("sum_", cast(prim("add", x, y), dtype)), ("product", cast(prim("mul", x, y), dtype)),
        ("tanh_", cast(prim("tanh", x), dtype)), ("copy", Load("x", (AT,), dtype)),
        ("larger", prim("select", prim("lt", x, y), Load("y", (AT,), dtype), Load("x", (AT,), dtype)))])

    def reference(given: Arrays, sizes: Sizes) -> dict[str, object]:
        a, b = (show(given[n], dtype).astype(np.float32) for n in "xy")
        with np.errstate(all="ignore"):
            return {"sum_": a + b, "product": a * b, "tanh_": Expected(np.tanh(a.astype(np.float64)), 1),
                    "copy": a, "larger": np.where(a < b, b, a)}

    return Sample(kernel, lambda rng, sizes: {n: values(rng, sizes["n0"], dtype) for n in "xy"}, reference, SIZES)


ARITHMETIC = ("add", "sub", "mul", "div", "neg", "abs", "max", "min", "floor", "ceil", "rint", "trunc", "copysign",
              "sqrt", "fma", "truncmod", "eq", "ne", "lt", "le", "select")
EXPONENTIAL = ("exp", "expm1", "log", "log1p", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "pow")
TRIGONOMETRIC = ("sin", "cos", "tan", "asin", "acos", "atan", "atan2")
INTEGER = ("add", "sub", "mul", "floordiv", "floormod", "truncdiv", "truncmod", "neg", "abs", "max", "min", "and",
           "or", "xor", "not", "shl", "shr", "eq", "ne", "lt", "le", "select")
LOGICAL = ("and", "or", "xor", "not", "eq", "ne", "select")
INTEGERS = tuple(d for d in dtypes.ALL if d.is_integer)

PRIMITIVE_SAMPLES: tuple[Sample, ...] = (
    *(primitive_sample(ops, d, f"{group}_{short(d)}") for d in (dtypes.float32, dtypes.float64) for group, ops in
      (("arithmetic", ARITHMETIC), ("exponential", EXPONENTIAL), ("trigonometric", TRIGONOMETRIC))),
    *(primitive_sample(INTEGER, d, f"integer_{short(d)}") for d in INTEGERS),
    primitive_sample(LOGICAL, dtypes.bool_, "logical"),
    *(half_sample(d) for d in (dtypes.float16, dtypes.bfloat16)),
    *(cast_sample(d) for d in dtypes.ALL),
)
