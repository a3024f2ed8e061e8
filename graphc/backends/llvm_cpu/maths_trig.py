"""Sine, cosine, tangent over the whole range of float32 and float64.

Arguments up to 2^20 are reduced by pi/2 in three parts (float32 arguments in float64, where two suffice);
beyond, lane by lane, by multiplying with as many bits of 2/pi as matter (Payne and Hanek, "Radian
reduction for trigonometric functions", SIGNUM 1983), so that no argument is too large.
"""
from __future__ import annotations

from functools import cache

from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.backends.llvm_cpu.coefficients import DOUBLE, PRECISIONS
from graphc.backends.llvm_cpu.maths_core import polynomial

LIMIT = 1.0e6
TWO_OVER_PI = 0.6366197723675814
# pi/2 in parts of 33, 33 and 53 bits: products of the first two with 20-bit integers are exact.
PIO2 = (1.57079632673412561417e+00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
PIO2_REST = 6.07710050650619224932e-11  # the second and all further parts
_TABLE, _REDUCE = "two_over_pi", "reduce_large"
_PAD, _WORDS = 64, 22


@cache
def two_over_pi_bits(count: int) -> int:
    """Return floor(2/pi * 2^count).  Source: Machin's formula for pi, in integers."""
    unit = 1 << (count + 64)

    def arctan_inverse(n: int) -> int:
        total = term = unit // n
        k, sign = 3, -1
        while term:
            term //= n * n
            total += sign * (term // k)
            k, sign = k + 2, -sign
        return total

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))
    return (unit * unit * 2 // pi) >> 64


def _define_reduce(module: Module) -> None:
    """Define reduce_large(x, r, q): x = q pi/2 + *r, |*r| <= pi/4, for finite |x| >= 2^19."""
    bits = 64 * _WORDS - _PAD
    table = two_over_pi_bits(bits)
    words = [(table >> (64 * (_WORDS - 1 - i))) % (1 << 64) for i in range(_WORDS)]
    module.constants[_TABLE] = (f"@{_TABLE} = internal unnamed_addr constant [{_WORDS} x i64] ["
                                + ", ".join(f"i64 {w - (w >> 63 << 64)}" for w in words) + "]\n")
    b = Builder(module, _REDUCE, [("x", "double", 1), ("r", "ptr", 1), ("q", "ptr", 1)], linkage="internal",
                attributes="noinline nounwind")
    x, r, q = b.parameters
    raw = b.bits(x)
    exponent = (raw.logical_shift(52) & 0x7FF) - 1075
    mantissa = (raw & ((1 << 52) - 1)) | (1 << 52)
    # 192 bits of 2/pi from the first whose product with the mantissa is not a multiple of 4 turns.
    at = exponent + (_PAD - 2)
    table_at = b.at(Value(b, f"@{_TABLE}", "ptr"), at.logical_shift(6), "i64")
    w = [b.load(b.at(table_at, b.i64(i), "i64"), "i64") for i in range(4)]
    window = [b.intrinsic("fshl", w[i], w[i + 1], at & 63) for i in range(3)]
    wide = [b.convert("zext", v, "i128") * b.convert("zext", mantissa, "i128") for v in window[1:]]
    lower = wide[0] + wide[1].logical_shift(64)
    middle = b.convert("trunc", lower, "i64")
    high = window[0] * mantissa + b.convert("trunc", lower.logical_shift(64), "i64")
    fraction = b.intrinsic("fshl", high, middle, b.i64(2))
    rest = b.convert("uitofp", middle << 2, "double")
    turns = high.logical_shift(62) + fraction.logical_shift(63)
    value = b.fma(rest, 2.0 ** -128, b.convert("sitofp", fraction, "double") * 2.0 ** -64) * (1 / TWO_OVER_PI)
    negative = raw.lt(0)
    b.store(b.select(negative, -value, value), r)
    b.store(b.select(negative, 0 - turns, turns), q)
    b.ret()
    b.finish()


def _reduce(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """Return r, its low part (both float64) and the quadrant (i64) of a float32 or float64."""
    wide = b.convert("fpext", x, "double")
    shifted = b.fma(wide, TWO_OVER_PI, DOUBLE.magic)
    n = shifted - DOUBLE.magic
    quadrant = b.bits(shifted)
    zero = b.const(0.0, "double", x.lanes)
    if x.element == "float":
        r, low = (wide - n * PIO2[0]) - n * PIO2_REST, zero
    else:
        first = wide - n * PIO2[0]
        second = n * PIO2[1]
        high = first - second
        low = ((first - high) - second) - n * PIO2[2]
        r = high + low
        low = (high - r) + low
    size = b.intrinsic("fabs", wide)
    big = size.gt(LIMIT) & size.lt(float("inf"))
    before, slow, done = b.block, b.new_block(), b.new_block()
    b.branch_if(b.any(big), slow, done)
    b.start_block(slow)
    if _REDUCE not in b.module.functions:
        _define_reduce(b.module)
    turns, angles, flags = (b.alloca(e, x.lanes) for e in ("i64", "double", "i8"))
    b.store(quadrant, turns)
    b.store(r, angles)
    b.store(b.convert("zext", big, "i8"), flags)
    arguments = b.alloca("double", x.lanes)
    b.store(wide, arguments)
    with b.loop(b.i64(0), b.i64(x.lanes)) as lane:
        with b.when(b.load(b.at(flags, lane.index, "i8"), "i8").ne(0)):
            operands = (b.load(b.at(arguments, lane.index, "double"), "double"),
                        b.at(angles, lane.index, "double"), b.at(turns, lane.index, "i64"))
            b.line(f"call void @{_REDUCE}({', '.join(o.typed for o in operands)})")
    new_r, new_quadrant = b.load(angles, "double", x.lanes), b.load(turns, "i64", x.lanes)
    new_low = b.select(big, zero, low)
    after = b.block
    b.branch(done)
    b.start_block(done)
    return tuple(b.phi([(old, before), (new, after)])  # type: ignore[return-value]
                 for old, new in ((r, new_r), (low, new_low), (quadrant, new_quadrant)))


def _both(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """Return sine and cosine of the reduced argument and the quadrant, in x's width."""
    c = PRECISIONS[x.element]
    r, low, quadrant = _reduce(b, x)
    if c.bits == 32:
        r, quadrant = b.convert("fptrunc", r, "float"), b.convert("trunc", quadrant, "i32")
        z = r * r
        sine = b.fma(polynomial(b, z, c.sin) * z, r, r)
        cosine = b.fma(z, polynomial(b, z, c.cos) * z, b.fma(z, -0.5, 1.0))
        return sine, cosine, quadrant
    z = r * r
    half = z * 0.5
    sine = r + b.fma(polynomial(b, z, c.sin) * z, r, low - low * half)
    one = 1.0 - half
    cosine = one + (((1.0 - one) - half) + (z * z * polynomial(b, z, c.cos) - r * low))
    return sine, cosine, quadrant


def _turned(b: Builder, x: Value, sine: Value, cosine: Value, quadrant: Value) -> Value:
    """Return the sine at `quadrant` quarter turns beyond the reduced argument."""
    value = b.select((quadrant & 1).ne(0), cosine, sine)
    width = PRECISIONS[x.element].bits
    return b.floats(b.bits(value) ^ ((quadrant & 2) << (width - 2)))


def sin(b: Builder, x: Value) -> Value:
    """Sine."""
    sine, cosine, quadrant = _both(b, x)
    return b.select(x.eq(0.0), x, _turned(b, x, sine, cosine, quadrant))


def cos(b: Builder, x: Value) -> Value:
    """Cosine."""
    sine, cosine, quadrant = _both(b, x)
    return _turned(b, x, sine, cosine, quadrant + 1)


def tan(b: Builder, x: Value) -> Value:
    """Tangent."""
    sine, cosine, quadrant = _both(b, x)
    odd = (quadrant & 1).ne(0)
    y = b.select(odd, -cosine, sine) / b.select(odd, sine, cosine)
    return b.select(x.eq(0.0), x, y)
