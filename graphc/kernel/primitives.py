"""The scalar primitives of kernel IR: the whole vocabulary a backend must know.

Owns the table `PRIMITIVES` and the typed constructors.  Each primitive has its NumPy meaning written
beside it (interp runs exactly that; the other backends expand it their own way).
Knows nothing of loops.  Invariant: arguments of one primitive share one dtype except where the rule
says otherwise; float16 and bfloat16 never reach arithmetic (they are cast to float32 and back).
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.kernel.ir import Const, Expr, Prim


@dataclass(frozen=True, slots=True)
class Primitive:
    """name; arity; result: "same" (dtype of the arguments), "bool", or "select"/"cast";
    kinds: which argument kinds are allowed; cost: rough cycles a vector, for fusion; numpy: meaning."""

    name: str
    arity: int
    result: str
    kinds: tuple[str, ...]
    cost: float
    numpy: Callable[..., Any]


_F, _I, _B = ("float",), ("int", "uint"), ("bool",)
_N, _A = _F + _I, _F + _I + _B


def _quiet(f: Callable[..., Any]) -> Callable[..., Any]:
    def run(*a: Any) -> Any:
        with np.errstate(all="ignore"):
            return f(*a)
    return run


def _shift(f: Callable[..., Any], a: Any, b: Any) -> Any:
    """A shift by the width or more, or by a negative number, is a shift by (b mod width)."""
    width = np.asarray(a).dtype.itemsize * 8
    return f(a, (b % np.asarray(width).astype(np.asarray(b).dtype)).astype(np.asarray(a).dtype))


def _int_div(f: Callable[..., Any], a: Any, b: Any) -> Any:
    """Integer division by zero gives 0 here (ops guard it); INT_MIN / -1 wraps."""
    safe = np.where(b == 0, np.asarray(1, np.asarray(b).dtype), b)
    return np.where(b == 0, np.asarray(0, np.asarray(a).dtype), f(a, safe)).astype(np.asarray(a).dtype)


def _trunc_div(a: Any, b: Any) -> Any:
    q = a // b
    return q + ((a % b != 0) & ((a < 0) != (b < 0))).astype(np.asarray(a).dtype)


def _erf(x: Any) -> Any:
    import math

    flat = np.asarray(x)
    return np.vectorize(math.erf, otypes=[np.float64])(flat).astype(flat.dtype)


PRIMITIVES: dict[str, Primitive] = {p.name: p for p in (
    # arithmetic (integers wrap)
    Primitive("add", 2, "same", _N, 1, _quiet(np.add)),
    Primitive("sub", 2, "same", _N, 1, _quiet(np.subtract)),
    Primitive("mul", 2, "same", _N, 1, _quiet(np.multiply)),
    Primitive("div", 2, "same", _F, 5, _quiet(np.divide)),
    Primitive("floordiv", 2, "same", _I, 20, _quiet(lambda a, b: _int_div(np.floor_divide, a, b))),
    Primitive("floormod", 2, "same", _I, 20, _quiet(lambda a, b: _int_div(np.mod, a, b))),
    Primitive("truncdiv", 2, "same", _I, 20, _quiet(lambda a, b: _int_div(_trunc_div, a, b))),
    Primitive("truncmod", 2, "same", _N, 20, _quiet(lambda a, b: np.fmod(a, b) if np.asarray(a).dtype.kind == "f"
                                                   else _int_div(np.fmod, a, b))),
    Primitive("fma", 3, "same", _F, 1, _quiet(lambda a, b, c: (np.multiply(a, b, dtype=np.longdouble) + c).astype(
        np.asarray(a).dtype))),
    Primitive("neg", 1, "same", _N, 1, _quiet(np.negative)),
    Primitive("abs", 1, "same", _N, 1, _quiet(np.abs)),
    Primitive("max", 2, "same", _N, 1, _quiet(np.maximum)),  # NaN propagates
    Primitive("min", 2, "same", _N, 1, _quiet(np.minimum)),  # NaN propagates
    Primitive("floor", 1, "same", _F, 1, _quiet(np.floor)),
    Primitive("ceil", 1, "same", _F, 1, _quiet(np.ceil)),
    Primitive("rint", 1, "same", _F, 1, _quiet(np.rint)),
    Primitive("trunc", 1, "same", _F, 1, _quiet(np.trunc)),
    Primitive("copysign", 2, "same", _F, 1, _quiet(np.copysign)),
    # transcendental
    Primitive("sqrt", 1, "same", _F, 6, _quiet(np.sqrt)),
    Primitive("exp", 1, "same", _F, 14, _quiet(np.exp)),
    Primitive("expm1", 1, "same", _F, 18, _quiet(np.expm1)),
    Primitive("log", 1, "same", _F, 18, _quiet(np.log)),
    Primitive("log1p", 1, "same", _F, 22, _quiet(np.log1p)),
    Primitive("sin", 1, "same", _F, 20, _quiet(np.sin)),
    Primitive("cos", 1, "same", _F, 20, _quiet(np.cos)),
    Primitive("tan", 1, "same", _F, 30, _quiet(np.tan)),
    Primitive("asin", 1, "same", _F, 30, _quiet(np.arcsin)),
    Primitive("acos", 1, "same", _F, 30, _quiet(np.arccos)),
    Primitive("atan", 1, "same", _F, 25, _quiet(np.arctan)),
    Primitive("atan2", 2, "same", _F, 30, _quiet(np.arctan2)),
    Primitive("sinh", 1, "same", _F, 30, _quiet(np.sinh)),
    Primitive("cosh", 1, "same", _F, 30, _quiet(np.cosh)),
    Primitive("tanh", 1, "same", _F, 16, _quiet(np.tanh)),
    Primitive("asinh", 1, "same", _F, 40, _quiet(np.arcsinh)),
    Primitive("acosh", 1, "same", _F, 40, _quiet(np.arccosh)),
    Primitive("atanh", 1, "same", _F, 40, _quiet(np.arctanh)),
    Primitive("erf", 1, "same", _F, 25, _quiet(_erf)),
    Primitive("pow", 2, "same", _F, 45, _quiet(np.power)),
    # bits (integers; shifts take the amount modulo the width; shr is arithmetic for signed, logical for unsigned)
    Primitive("and", 2, "same", _I + _B, 1, np.bitwise_and),
    Primitive("or", 2, "same", _I + _B, 1, np.bitwise_or),
    Primitive("xor", 2, "same", _I + _B, 1, np.bitwise_xor),
    Primitive("not", 1, "same", _I + _B, 1, np.invert),
    Primitive("shl", 2, "same", _I, 1, lambda a, b: _shift(np.left_shift, a, b)),
    Primitive("shr", 2, "same", _I, 1, lambda a, b: _shift(np.right_shift, a, b)),
    # comparison (IEEE: NaN compares false, except ne)
    Primitive("eq", 2, "bool", _A, 1, np.equal),
    Primitive("ne", 2, "bool", _A, 1, np.not_equal),
    Primitive("lt", 2, "bool", _N, 1, np.less),
    Primitive("le", 2, "bool", _N, 1, np.less_equal),
    # choice and conversion
    Primitive("select", 3, "select", _A, 1, lambda c, a, b: np.where(c, a, b)),
    Primitive("cast", 1, "cast", _A, 1, lambda a: a),  # see cast_values
    Primitive("bitcast", 1, "cast", _A, 0, lambda a: a),  # same width: the bits, reinterpreted
)}


def cast_values(values: Any, source: DType, target: DType) -> Any:
    """Convert `values` as the primitive `cast` does.

    Float to integer truncates towards zero and saturates, NaN gives 0; integer to narrower integer wraps;
    anything to bool is `!= 0`; to bfloat16 rounds to nearest even.
    """
    a = np.asarray(values)
    if target.is_bool:
        return a != 0
    if source.is_floating and target.is_integer:
        info = np.iinfo(target.storage)
        wide = np.nan_to_num(a.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
        t = np.trunc(wide)
        low, high = t <= float(info.min), t >= float(info.max)
        safe = np.where(low | high, 0.0, t)
        if target.bits == 64 and target.is_unsigned:  # through two halves: float64 -> uint64 is exact in NumPy
            out = safe.astype(np.uint64)
        else:
            out = safe.astype(np.int64).astype(target.storage)
        return np.where(low, info.min, np.where(high, info.max, out)).astype(target.storage)
    if target is dtypes.bfloat16:
        with np.errstate(all="ignore"):
            return dtypes.round_to_bfloat16(a.astype(np.float32))
    with np.errstate(all="ignore"):
        return a.astype(target.as_numpy_dtype)


def prim(op: str, *args: Expr) -> Expr:
    """Return primitive `op` applied to `args`, its dtype worked out and checked.  Raises TypeError."""
    rule = PRIMITIVES[op]
    if len(args) != rule.arity or rule.result == "cast":
        raise TypeError(f"primitive {op} takes {rule.arity} argument(s), {len(args)} given")
    operands = args[1:] if rule.result == "select" else args
    dtype = operands[0].dtype
    if any(a.dtype is not dtype for a in operands) or dtype.kind not in rule.kinds:
        raise TypeError(f"primitive {op} cannot take {', '.join(a.dtype.name for a in args)}")
    if dtype in (dtypes.float16, dtypes.bfloat16) and op != "select":
        raise TypeError(f"primitive {op} cannot compute in {dtype.name}; cast to float32")
    if rule.result == "select" and not args[0].dtype.is_bool:
        raise TypeError("the condition of select is not bool")
    return Prim(op, args, dtypes.bool_ if rule.result == "bool" else dtype)


def cast(value: Expr, dtype: DType) -> Expr:
    """Return `value` converted to `dtype`; nothing where it has it already."""
    if value.dtype is dtype:
        return value
    if isinstance(value, Const) and dtype not in (dtypes.float16, dtypes.bfloat16) and not (
            value.dtype.is_floating and dtype.is_integer):
        v = cast_values(np.asarray(value.value, value.dtype.as_numpy_dtype), value.dtype, dtype)
        return Const(v.item(), dtype)
    return Prim("cast", (value,), dtype)


def bitcast(value: Expr, dtype: DType) -> Expr:
    """Return the bits of `value` as `dtype`, which has the same width."""
    if value.dtype.size != dtype.size:
        raise TypeError(f"bitcast from {value.dtype.name} to {dtype.name} changes the width")
    return value if value.dtype is dtype else Prim("bitcast", (value,), dtype)
