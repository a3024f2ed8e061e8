"""Transcendental functions as LLVM functions: exponentials, logarithms, hyperbolic, inverse, erf.

Owns `FUNCTIONS` and `call`.  Each function is written once for float32 and float64, scalars and vectors;
sines are in maths_trig.py, powers and fmod in maths_pow.py.  Knows no kernel IR.
Invariants: NaN, infinities, signed zeros and subnormals come out as NumPy has them; nothing traps and
nothing becomes a library call; without fused multiply-add the same formulas run with two roundings.

Largest errors, in ulp, float32 / float64 (tests/backends/test_maths.py holds them):
    exp 1.1/1.1   expm1 1.8/2.1   log, log1p 0.9/0.9   sin, cos 1.7/2.6   tan 3.7/4.2   asin 1.8/1.9
    acos 1.3/1.4   atan 2/2   atan2 2.1/2.3   sinh 1.8/1.9   cosh 1.6/1.7   tanh 2.5/2.8   asinh 1.9/2
    acosh 2.1/2.3   atanh 2.2/2.2   erf 1.6/2.1   pow 0.6/1.5   fmod 0/0
"""
from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import lru_cache

from graphc.backends.llvm_cpu import maths_pow, maths_trig
from graphc.backends.llvm_cpu.builder import Builder, Module, Value, type_of
from graphc.backends.llvm_cpu.coefficients import PRECISIONS, Precision
from graphc.backends.llvm_cpu.maths_core import (
    exp_parts,
    expm1_positive,
    log_core,
    polynomial,
    power_of_two,
    scale,
)
from graphc.kernel.target import Target

PI = math.pi


def call(b: Builder, name: str, *args: Value) -> Value:
    """Return function `name` of the arguments (floats of one element type), splatted to the same lanes."""
    lanes, element = max(a.lanes for a in args), args[0].element
    function, module = _compiled(b.target, name, element, lanes)
    b.module.take(module)
    return b.call(function, (element, lanes), *(b.splat(a, lanes) for a in args))


@lru_cache(maxsize=1024)
def _compiled(target: Target, name: str, element: str, lanes: int) -> tuple[str, Module]:
    """Return the name of a maths function's LLVM function and a module that defines it."""
    write = FUNCTIONS[name]
    module = Module(target)
    function = f"{name}.{Builder.mangle(element, lanes)}"
    arity = write.__code__.co_argcount - 1
    builder = Builder(module, function, [(p, element, lanes) for p in ("x", "y")[:arity]],
                      type_of(element, lanes), linkage="internal", attributes="")
    builder.ret(write(builder, *builder.parameters))
    builder.finish()
    return function, module


def _precision(x: Value) -> Precision:
    return PRECISIONS[x.element]


def exp(b: Builder, x: Value) -> Value:
    """e^x: 2^n * e^r with n = round(x / ln 2)."""
    c = _precision(x)
    # The comparisons let a NaN through.
    x = b.select(x.gt(c.exp_high), c.exp_high, x)
    x = b.select(x.lt(c.exp_low), c.exp_low, x)
    n, r = exp_parts(b, x)
    e = b.fma(polynomial(b, r, c.exp), r * r, r) + 1.0
    return scale(b, e, n)


def expm1(b: Builder, x: Value) -> Value:
    """e^x - 1: 2^n (e^r - 1) + (2^n - 1), halved so that 2^n stays finite."""
    c = _precision(x)
    y = b.select(x.gt(c.exp_high), c.exp_high, x)
    y = b.select(y.lt(c.expm1_low), c.expm1_low, y)
    n, r = exp_parts(b, y)
    p = b.fma(polynomial(b, r, c.expm1), r * r, r)
    half = power_of_two(b, n.whole - 1, c)
    half_result = b.fma(half, p, half - 0.5)
    return b.intrinsic("copysign", half_result + half_result, x)


def tanh(b: Builder, x: Value) -> Value:
    """E / (E + 2) with E = e^(2|x|) - 1."""
    c = _precision(x)
    a = b.intrinsic("fabs", x)
    y = a + a
    y = b.select(y.gt(c.tanh_high), c.tanh_high, y)
    e = expm1_positive(b, y)
    return b.intrinsic("copysign", e / (e + 2.0), x)


def _half_exp(b: Builder, a: Value) -> Value:
    """e^a / 2 for a >= 0, finite as long as that is."""
    c = _precision(a)
    limit = c.exp_high + 1.0
    a = b.select(a.gt(limit), limit, a)
    n, r = exp_parts(b, a)
    e = b.fma(polynomial(b, r, c.exp), r * r, r) + 1.0
    return scale(b, e, n.shifted(-1))


def sinh(b: Builder, x: Value) -> Value:
    """A polynomial below 1, else (e^|x| - e^-|x|) / 2."""
    c = _precision(x)
    a = b.intrinsic("fabs", x)
    z = b.select(a.lt(1.0), a * a, b.like(0.0, a))
    small = b.fma(polynomial(b, z, c.sinh) * z, a, a)
    h = _half_exp(b, a)
    return b.intrinsic("copysign", b.select(a.lt(1.0), small, h - 0.25 / h), x)


def cosh(b: Builder, x: Value) -> Value:
    """(e^|x| + e^-|x|) / 2."""
    h = _half_exp(b, b.intrinsic("fabs", x))
    return h + 0.25 / h


def _log_special(b: Builder, y: Value, x: Value) -> Value:
    """Return log's value at 0, inf, NaN and below 0, else y."""
    outside = b.select(x.eq(0.0), b.const(-math.inf, x.element, x.lanes), math.nan)
    y = b.select(x.eq(math.inf), x, y)
    return b.select(x.gt(0.0), y, outside)


def log(b: Builder, x: Value) -> Value:
    """Natural logarithm: exponent * ln 2 + log(fraction)."""
    c = _precision(x)
    subnormal = x.lt(c.tiny)
    up = float(1 << (c.fraction + 1))
    y = log_core(b, b.select(subnormal, x * up, x), b.select(subnormal, b.like(-float(c.fraction + 1), x), 0.0), None)
    return _log_special(b, y, x)


def log1p(b: Builder, x: Value) -> Value:
    """log(u) with u = 1 + x, corrected by what the rounding of u lost.  Source: Kahan."""
    u = x + 1.0
    lost = (x - (u - 1.0)) / u
    y = _log_special(b, log_core(b, u, None, lost), u)
    return b.intrinsic("copysign", y, x)


def asinh(b: Builder, x: Value) -> Value:
    """log1p(a + a^2 / (1 + sqrt(1 + a^2))); log(2a) where a^2 would swamp the 1."""
    c = _precision(x)
    a = b.intrinsic("fabs", x)
    large = a.gt(c.huge)
    z = b.select(large, b.like(1.0, a), a * a)
    inner = a + z / (b.intrinsic("sqrt", z + 1.0) + 1.0)
    y = log1p(b, b.select(large, a, inner))
    return b.intrinsic("copysign", b.select(large, y + math.log(2.0), y), x)


def acosh(b: Builder, x: Value) -> Value:
    """log1p(t + sqrt(2t + t^2)) with t = x - 1; log(2x) where t^2 would swamp the rest; NaN below 1."""
    c = _precision(x)
    t = x - 1.0
    large = x.gt(c.huge)
    bounded = b.select(large, b.like(1.0, t), t)
    inner = bounded + b.intrinsic("sqrt", b.fma(bounded, bounded, bounded + bounded))
    y = log1p(b, b.select(large, x, inner))
    y = b.select(large, y + math.log(2.0), y)
    return b.select(x.ge(1.0), y, b.like(math.nan, x))


def atanh(b: Builder, x: Value) -> Value:
    """log1p(2a / (1 - a)) / 2."""
    a = b.intrinsic("fabs", x)
    y = log1p(b, (a + a) / (1.0 - a)) * 0.5
    return b.intrinsic("copysign", b.select(a.le(1.0), y, b.like(math.nan, x)), x)


# ---------------------------------------------------------------------------------------------
# Inverse trigonometric functions.


def _parts(value: float, c: Precision) -> tuple[float, float]:
    """Return a constant as a number of the format and the rest."""
    if c.bits == 64:
        return value, {PI: 1.2246467991473532e-16, PI / 2: 6.123233995736766e-17, PI / 4: 3.061616997868383e-17}[value]
    high: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return high, value - high


def _atan_positive(b: Builder, numerator: Value, denominator: Value) -> Value:
    """atan(numerator / denominator) for non-negative arguments, not both 0 or both inf.

    The quotient t is brought below tan(pi/8) by atan(t) = pi/2 - atan(1/t) = pi/4 + atan((t-1) / (t+1)),
    with one division in all.
    """
    c = _precision(numerator)
    steep = numerator.gt(denominator * (math.sqrt(2.0) + 1.0))
    middle = numerator.gt(denominator * (math.sqrt(2.0) - 1.0)) & ~steep
    top = b.select(steep, -denominator, b.select(middle, numerator - denominator, numerator))
    bottom = b.select(steep, numerator, b.select(middle, numerator + denominator, denominator))
    t = top / bottom
    z = t * t
    r = polynomial(b, z, c.atan) * z * t
    (half, half_low), (quarter, quarter_low) = _parts(PI / 2, c), _parts(PI / 4, c)
    high = b.select(steep, b.like(half, t), b.select(middle, b.like(quarter, t), 0.0))
    low = b.select(steep, b.like(half_low, t), b.select(middle, b.like(quarter_low, t), 0.0))
    return high + (t + (r + low))


def atan(b: Builder, x: Value) -> Value:
    """Arc tangent."""
    a = b.intrinsic("fabs", x)
    return b.intrinsic("copysign", _atan_positive(b, a, b.like(1.0, a)), x)


def atan2(b: Builder, y: Value, x: Value) -> Value:
    """The angle of (x, y), with the signs of zeros."""
    c = _precision(y)
    p, q = b.intrinsic("fabs", y), b.intrinsic("fabs", x)
    # inf / inf counts as 1, 0 / 0 as 0; a quotient of extremes is scaled to stay a normal number.
    both = p.eq(math.inf) & q.eq(math.inf)
    large = b.select(p.gt(q), p, q).gt(2.0 ** (c.bias - 3))
    small = b.select(p.gt(q), p, q).lt(2.0 ** (3 - c.bias) * 2.0 ** c.fraction)
    factor = b.select(large, b.like(0.125, p), b.select(small, b.like(2.0 ** (c.fraction + 8), p), 1.0))
    p, q = b.select(both, b.like(1.0, p), p * factor), b.select(both, b.like(1.0, q), q * factor)
    q = b.select(p.eq(0.0) & q.eq(0.0), b.like(1.0, q), q)
    r = _atan_positive(b, p, q)
    whole, low = _parts(PI, c)
    left = b.bits(x).lt(0)
    r = b.select(left, b.like(whole, r) - (r - low), r)
    return b.intrinsic("copysign", r, y)


def _asin_tail(b: Builder, z: Value) -> Value:
    """(asin(t) - t) / t with z = t^2 <= 1/4."""
    return polynomial(b, z, _precision(z).asin) * z


def asin(b: Builder, x: Value) -> Value:
    """A polynomial up to 1/2, beyond pi/2 - 2 asin(sqrt((1 - |x|) / 2)); NaN outside of [-1, 1]."""
    c = _precision(x)
    a = b.intrinsic("fabs", x)
    near = a.le(0.5)
    z = b.select(near, a * a, (1.0 - a) * 0.5)
    t = b.select(near, a, b.intrinsic("sqrt", z))
    tail = _asin_tail(b, z) * t
    half, half_low = _parts(PI / 2, c)
    far = b.like(half, t) - ((t + t) + ((tail + tail) - half_low))
    return b.intrinsic("copysign", b.select(near, t + tail, far), x)


def acos(b: Builder, x: Value) -> Value:
    """pi/2 - asin(x) near 0, else 2 asin(sqrt((1 - |x|) / 2)) or pi minus that; NaN outside of [-1, 1]."""
    c = _precision(x)
    a = b.intrinsic("fabs", x)
    near = a.le(0.5)
    z = b.select(near, x * x, (1.0 - a) * 0.5)
    t = b.select(near, x, b.intrinsic("sqrt", z))
    tail = _asin_tail(b, z) * t
    (half, half_low), (whole, whole_low) = _parts(PI / 2, c), _parts(PI, c)
    middle = b.like(half, t) - (t + (tail - half_low))
    right = (t + tail) + (t + tail)
    left = b.like(whole, t) - ((t + t) + ((tail + tail) - whole_low))
    return b.select(near, middle, b.select(x.gt(0.0), right, left))


def erf(b: Builder, x: Value) -> Value:
    """x + x P(x^2) near 0, else 1 - e^(Q(|x|) - x^2)."""
    c = _precision(x)
    a = b.intrinsic("fabs", x)
    near = a.lt(c.erf_split)
    z = a * a
    small = b.fma(polynomial(b, b.select(near, z, b.like(0.0, z)), c.erf), a, a)
    t = b.select(a.gt(c.erf_high), c.erf_high, a)
    n, r = exp_parts(b, polynomial(b, t, c.erfc) - t * t)
    tail = scale(b, b.fma(polynomial(b, r, c.exp), r * r, r) + 1.0, n)
    return b.intrinsic("copysign", b.select(near, small, 1.0 - tail), x)


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "exp": exp, "expm1": expm1, "log": log, "log1p": log1p, "sinh": sinh, "cosh": cosh, "tanh": tanh,
    "asinh": asinh, "acosh": acosh, "atanh": atanh, "asin": asin, "acos": acos, "atan": atan, "atan2": atan2,
    "erf": erf, "sin": maths_trig.sin, "cos": maths_trig.cos, "tan": maths_trig.tan, "pow": maths_pow.power,
    "fmod": maths_pow.fmod,
}
