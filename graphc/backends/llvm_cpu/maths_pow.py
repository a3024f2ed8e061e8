"""Powers and the exact float remainder.

pow computes e^(y log|x|): float32 in float64, float64 with a logarithm of about 68 bits in pairs of
numbers, since y multiplies its error.  fmod works on the integers behind the floats, so that it is exact
for any quotient.  Knows the text builder and the pieces of maths_core.py.
"""
from __future__ import annotations

import math

from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.backends.llvm_cpu.coefficients import DOUBLE, LOG_TAIL
from graphc.backends.llvm_cpu.maths_core import (
    exp_parts,
    log_core,
    log_split,
    polynomial,
    power_of_two,
    round_trunc,
    scale,
)

_FMOD = "fmod_one"


def power(b: Builder, x: Value, y: Value) -> Value:
    """x^y with the special values of C's pow."""
    a = b.intrinsic("fabs", x)
    if x.element == "float":
        wide_a, wide_y = b.convert("fpext", a, "double"), b.convert("fpext", y, "double")
        low = b.const(0.0, "double", x.lanes)
        result = b.convert("fptrunc", _exp_pair(b, wide_y * log_core(b, wide_a, None, None), low), "float")
    else:
        result = _exp_pair(b, *_times_log(b, a, y))
    infinite = b.intrinsic("fabs", y).eq(math.inf)
    grows = ~(a.gt(1.0) ^ y.gt(0.0))
    ends = b.select(grows, b.like(math.inf, x), 0.0)
    result = b.select(a.eq(0.0) | a.eq(math.inf) | infinite, ends, result)
    result = b.select(a.eq(1.0), b.like(1.0, x), result)
    half = y * 0.5
    whole = round_trunc(b, y).eq(y)
    odd = whole & round_trunc(b, half).ne(half)
    result = b.select(b.bits(x).lt(0) & odd, -result, result)
    result = b.select(x.compare("uno", y) | (x.lt(0.0) & x.ne(-math.inf) & ~whole), b.like(math.nan, x), result)
    return b.select(x.eq(1.0) | y.eq(0.0), b.like(1.0, x), result)


def _exp_pair(b: Builder, high: Value, low: Value) -> Value:
    """Return e^(high + low) in float64, low being far smaller."""
    c = DOUBLE
    moderate = b.intrinsic("fabs", high).lt(800.0)
    low = b.select(moderate, low, 0.0)
    high = b.select(high.gt(c.exp_high), c.exp_high, high)
    high = b.select(high.lt(c.exp_low), c.exp_low, high)
    n, r = exp_parts(b, high)
    r = r + low
    return scale(b, b.fma(polynomial(b, r, c.exp), r * r, r) + 1.0, n)


def _product(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """Return x * y as a rounded product and its error.  Source: Dekker, 1971, where nothing is fused."""
    p = x * y
    if b.target.has_fma:
        return p, b.fma(x, y, -p)

    def split(v: Value) -> tuple[Value, Value]:
        big = v * 134217729.0
        high = big - (big - v)
        return high, v - high

    (xh, xl), (yh, yl) = split(x), split(y)
    return p, ((xh * yh - p) + xh * yl + xl * yh) + xl * yl


def _sum(x: Value, y: Value) -> tuple[Value, Value]:
    """Return x + y as a rounded sum and its error.  Source: Knuth."""
    s = x + y
    part = s - x
    return s, (x - (s - part)) + (y - part)


def _times_log(b: Builder, a: Value, y: Value) -> tuple[Value, Value]:
    """Return y log(a) as a pair, for finite a > 0 in float64."""
    c = DOUBLE
    subnormal = a.lt(c.tiny)
    e, m = log_split(b, b.select(subnormal, a * 2.0 ** 54, a))
    e = e - b.select(subnormal, b.like(54.0, a), 0.0)
    f = m - 1.0
    below, below_low = _sum(m, b.like(1.0, m))
    s = f / below
    p, p_low = _product(b, s, below)
    s_low = (((f - p) - p_low) - s * below_low) / below
    # log(1 + f) = s (2 + v), v = (2/3) s^2 + ..., all as pairs
    z, z_low = _product(b, s, s)
    z_low = z_low + s * s_low * 2.0
    u, u_low = _product(b, z, b.like(2.0 / 3.0, z))
    u_low = u_low + z * 3.700743415417188e-17 + z_low * (2.0 / 3.0)
    v, v_low = _sum(u, z * z * polynomial(b, z, LOG_TAIL))
    v_low = v_low + u_low
    q, q_low = _product(b, s, v)
    q_low = q_low + s * v_low + s_low * v
    fraction, fraction_low = _sum(s + s, q)
    total, total_low = _sum(e * c.ln2_high, fraction)
    total_low = total_low + ((fraction_low + (s_low + s_low + q_low)) + e * c.ln2_low)
    high, high_low = _product(b, y, total)
    return high, high_low + y * total_low


# ---------------------------------------------------------------------------------------------


def fmod(b: Builder, x: Value, y: Value) -> Value:
    """x minus y times the truncated quotient, exactly; NaN for y = 0 or infinite x."""
    if _FMOD not in b.module.functions:
        _define_fmod(b.module)
    wide_x, wide_y = b.convert("fpext", x, "double"), b.convert("fpext", y, "double")
    if x.lanes == 1:
        result = b.call(_FMOD, ("double", 1), wide_x, wide_y)
    else:
        xs, ys, rs = (b.alloca("double", x.lanes) for _ in range(3))
        b.store(wide_x, xs)
        b.store(wide_y, ys)
        with b.loop(b.i64(0), b.i64(x.lanes)) as lane:
            operands = [b.load(b.at(p, lane.index, "double"), "double") for p in (xs, ys)]
            b.store(b.call(_FMOD, ("double", 1), *operands), b.at(rs, lane.index, "double"))
        result = b.load(rs, "double", x.lanes)
    return b.convert("fptrunc", result, x.element)


def _define_fmod(module: Module) -> None:
    """Define the remainder of two float64: the mantissas' remainder, shifted in 11 bits at a time."""
    b = Builder(module, _FMOD, [("x", "double", 1), ("y", "double", 1)], "double", linkage="internal",
                attributes="noinline nounwind")
    x, y = b.parameters

    def parts(v: Value) -> tuple[Value, Value, Value]:
        bits = b.bits(v) & ((1 << 63) - 1)
        exponent, fraction = bits.logical_shift(52), bits & ((1 << 52) - 1)
        normal = exponent.ne(0)
        return bits, b.select(normal, exponent, 1), b.select(normal, fraction | (1 << 52), fraction)

    (x_bits, x_exponent, x_whole), (y_bits, y_exponent, y_whole) = parts(x), parts(y)
    divisor = b.select(y_whole.eq(0), 1, y_whole)
    shift = x_exponent - y_exponent
    first = b.binary("urem", x_whole, divisor)
    with b.loop(b.i64(0), shift, 11, [first]) as loop:
        step = b.intrinsic("smin", shift - loop.index, b.i64(11))
        loop.next = [b.binary("urem", loop.carried[0] << step, divisor)]
    rest = b.convert("uitofp", loop.results[0], "double")
    scale_by = y_exponent - 1075
    half = scale_by.arithmetic_shift(1)
    value = rest * power_of_two(b, half, DOUBLE) * power_of_two(b, scale_by - half, DOUBLE)
    value = b.intrinsic("copysign", value, x)
    value = b.select(x_bits.compare("ult", y_bits), x, value)
    valid = x_bits.compare("ult", 0x7FF << 52) & y_bits.compare("ule", 0x7FF << 52) & y_bits.ne(0)
    b.ret(b.select(valid, value, b.const(math.nan, "double")))
    b.finish()
