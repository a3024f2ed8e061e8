"""The pieces that maths functions share: polynomials, the split of exp and log, scaling by powers of two.

Knows the float formats (coefficients.py) and the text builder, nothing else.  Invariant: every piece
works on scalars and vectors of either float type alike.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.llvm_cpu.builder import Builder, Value
from graphc.backends.llvm_cpu.coefficients import PRECISIONS, Precision

LOG2E = 1.4426950408889634
SQRT_HALF_BITS = {"float": 0x3F3504F3, "double": 0x3FE6A09E667F3BCD}


def polynomial(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """Return the polynomial with these coefficients, highest power first, by Horner's rule."""
    total = b.like(coefficients[0], x)
    for c in coefficients[1:]:
        total = b.fma(total, x, c)
    return total


@dataclass(frozen=True, slots=True)
class Exponent:
    """A whole number per lane, as float and as integer."""

    number: Value
    whole: Value

    def shifted(self, by: int) -> Exponent:
        return Exponent(self.number + float(by), self.whole + by)


def exp_parts(b: Builder, x: Value) -> tuple[Exponent, Value]:
    """Return n and r with x = n ln 2 + r, |r| <= ln(2)/2, for x of moderate size."""
    c = PRECISIONS[x.element]
    # The sum with `magic` has round(x / ln 2) in its lowest bits.
    shifted = b.fma(x, LOG2E, c.magic)
    n = shifted - c.magic
    whole = b.bits(shifted) - b.bits(b.const(c.magic, c.element))
    r = b.fma(n, -c.ln2_low, b.fma(n, -c.ln2_high, x))
    return Exponent(n, whole), r


def power_of_two(b: Builder, n: Value, c: Precision) -> Value:
    """Return 2^n for integers n of the format's normal range."""
    return b.floats((n + c.bias) << c.fraction)


def scale(b: Builder, x: Value, n: Exponent) -> Value:
    """Return x * 2^n, rounded once into subnormals, inf beyond the range."""
    c = PRECISIONS[x.element]
    if b.module.has("avx512f") and x.lanes * c.bits == 512:
        kind = "ps" if c.bits == 32 else "pd"
        function = f"llvm.x86.avx512.mask.scalef.{kind}.512"
        b.declare(function, x.type, [x.type, x.type, x.type, f"i{x.lanes}", "i32"])
        return b.emit(f"call {x.type} @{function}({x.typed}, {n.number.typed}, {x.typed}, i{x.lanes} -1, i32 4)",
                      x.element, x.lanes)
    # Two factors, so that each is a normal number; the first product is exact.
    half = n.whole.arithmetic_shift(1)
    return x * power_of_two(b, half, c) * power_of_two(b, n.whole - half, c)


def expm1_positive(b: Builder, x: Value) -> Value:
    """Return e^x - 1 for 0 <= x <= 40."""
    c = PRECISIONS[x.element]
    n, r = exp_parts(b, x)
    p = b.fma(polynomial(b, r, c.expm1), r * r, r)
    power = power_of_two(b, n.whole, c)
    return b.fma(power, p, power - 1.0)


def log_split(b: Builder, x: Value) -> tuple[Value, Value]:
    """Return e (a float) and m with x = m * 2^e, sqrt(1/2) <= m < sqrt(2), for normal x > 0."""
    c = PRECISIONS[x.element]
    bits = b.bits(x)
    e = (bits - SQRT_HALF_BITS[c.element]).arithmetic_shift(c.fraction)
    m = b.floats(bits - (e << c.fraction))
    if c.bits == 64:  # 64-bit integers convert slowly where there is no AVX-512: go by the bits
        magic = b.const(c.magic, c.element)
        return b.floats(e + b.bits(magic)) - magic, m
    return b.convert("sitofp", e, c.element), m


def log_core(b: Builder, x: Value, exponent: Value | None, extra: Value | None) -> Value:
    """Return log(x * 2^exponent) + extra for normal x > 0; a small `extra` is added before rounding."""
    c = PRECISIONS[x.element]
    e, m = log_split(b, x)
    if exponent is not None:
        e = e + exponent
    f = m - 1.0
    if c.bits == 32:
        z = f * f
        y = polynomial(b, f, c.log) * (f * z)
        y = b.fma(e, c.ln2_low, y)
        y = y if extra is None else y + extra
        return b.fma(e, c.ln2_high, f + b.fma(z, -0.5, y))
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    low = b.fma(s, half + polynomial(b, z, c.log) * z, e * c.ln2_low)
    low = low if extra is None else low + extra
    return b.fma(e, c.ln2_high, f - (half - low))


def _rounds(b: Builder) -> bool:
    """Return whether the target rounds floats to integers in one instruction."""
    return not b.module.is_x86 or b.module.has("sse4.1")


def round_nearest(b: Builder, x: Value) -> Value:
    """Return x rounded to the nearest integer, ties to even."""
    if _rounds(b):
        return b.intrinsic("rint", x)
    # Adding 2^23 (2^52) with the sign of x pushes the fraction out; larger numbers have none.
    limit = b.const(float(1 << (23 if x.element == "float" else 52)), x.element, x.lanes)
    signed = b.intrinsic("copysign", limit, x)
    near = b.intrinsic("copysign", (x + signed) - signed, x)
    return b.select(b.intrinsic("fabs", x).lt(limit), near, x)


def round_floor(b: Builder, x: Value) -> Value:
    """Return the largest integer not above x."""
    if _rounds(b):
        return b.intrinsic("floor", x)
    near = round_nearest(b, x)
    return b.intrinsic("copysign", b.select(near.gt(x), near - 1.0, near), x)


def round_ceil(b: Builder, x: Value) -> Value:
    """Return the smallest integer not below x."""
    return b.intrinsic("ceil", x) if _rounds(b) else -round_floor(b, -x)


def round_trunc(b: Builder, x: Value) -> Value:
    """Return x without its fraction."""
    if _rounds(b):
        return b.intrinsic("trunc", x)
    return b.intrinsic("copysign", round_floor(b, b.intrinsic("fabs", x)), x)
