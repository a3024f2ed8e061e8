"""Conversions between dtypes as LLVM instructions, the half floats included.

Owns casts and bit casts.  float16 and bfloat16 values are their bits, as i16; where the target converts
float16 in hardware that is used, else integer arithmetic, so that no conversion is a library call.
Knows no kernel IR.  Invariant: the results are those of `kernel.primitives.cast_values`, bit for bit
(the payload of a NaN apart).
"""
from __future__ import annotations

import numpy as np

from graphc import dtypes
from graphc.backends.llvm_cpu.builder import Builder, Value, width_of
from graphc.dtypes import DType


def register_element(dtype: DType) -> str:
    """Return the LLVM element type that a value of `dtype` has in registers."""
    if dtype.is_bool:
        return "i1"
    if dtype is dtypes.float32:
        return "float"
    if dtype is dtypes.float64:
        return "double"
    return f"i{dtype.bits}"


def half_bits(value: float, dtype: DType) -> int:
    """Return the bits of `value` rounded to float16 or bfloat16."""
    with np.errstate(all="ignore"):
        if dtype is dtypes.float16:
            return int(np.float16(value).view(np.uint16))
        return int(dtypes.float32_to_bfloat16(np.float32(value)))


def cast(b: Builder, x: Value, source: DType, target: DType) -> Value:
    """Return x of dtype `source` converted to `target`: see kernel.primitives.cast_values."""
    if source is target:
        return x
    if source in (dtypes.float16, dtypes.bfloat16):
        if target.is_bool:
            return (x & 0x7FFF).ne(0)
        wide = from_float16(b, x) if source is dtypes.float16 else from_bfloat16(b, x)
        return cast(b, wide, dtypes.float32, target)
    if target is dtypes.bfloat16:
        return to_bfloat16(b, cast(b, x, source, dtypes.float32))
    if target is dtypes.float16:
        narrow = round_to_odd(b, x) if source is dtypes.float64 else cast(b, x, source, dtypes.float32)
        return to_float16(b, narrow)
    element = register_element(target)
    if target.is_bool:
        return x.ne(0)
    if source.is_floating:
        if target.is_floating:
            return b.convert("fpext" if target.size > source.size else "fptrunc", x, element)
        return _saturate(b, x, target)
    if target.is_floating:
        return b.convert("uitofp" if source.is_unsigned or source.is_bool else "sitofp", x, element)
    have, want = width_of(x.element), width_of(element)
    if want == have:
        return x
    return b.convert("trunc" if want < have else "zext" if source.is_unsigned or source.is_bool else "sext", x, element)


def bitcast(b: Builder, x: Value, source: DType, target: DType) -> Value:
    """Return the bits of x as `target`, which has the same width."""
    if source.is_bool:
        x = b.convert("zext", x, "i8")
    if target.is_bool:
        return x.ne(0)
    return b.convert("bitcast", x, register_element(target))


def _saturate(b: Builder, x: Value, target: DType) -> Value:
    """Return a float truncated to an integer dtype, saturating; NaN gives 0."""
    name = "fptoui.sat" if target.is_unsigned else "fptosi.sat"
    element = register_element(target)
    function = f"llvm.{name}.{b.mangle(element, x.lanes)}.{b.mangle(x.element, x.lanes)}"
    result = element if x.lanes == 1 else f"<{x.lanes} x {element}>"
    b.declare(function, result, [x.type])
    return b.call(function, (element, x.lanes), x)


def from_bfloat16(b: Builder, x: Value) -> Value:
    """Return bfloat16 bits as the float32 they stand for."""
    return b.floats(b.convert("zext", x, "i32") << 16)


def to_bfloat16(b: Builder, x: Value) -> Value:
    """Return the bits of a float32 rounded to bfloat16, ties to even."""
    bits = b.bits(x)
    rounded = (bits + ((bits.logical_shift(16) & 1) + 0x7FFF)).logical_shift(16)
    return b.convert("trunc", b.select(x.is_nan(), 0x7FC0, rounded), "i16")


def _converts(b: Builder) -> bool:
    """Return whether the target converts float16 in hardware."""
    return not b.module.is_x86 or b.module.has("f16c") or b.module.has("avx512f")


def from_float16(b: Builder, x: Value) -> Value:
    """Return float16 bits as the float32 they stand for."""
    if _converts(b):
        return b.convert("fpext", b.convert("bitcast", x, "half"), "float")
    wide = b.convert("zext", x, "i32")
    # The exponent and fraction in float32's place, scaled by the difference of the biases.
    magnitude = (wide & 0x7FFF) << 13
    finite = b.bits(b.floats(magnitude) * 2.0 ** 112)
    special = (wide & 0x7C00).eq(0x7C00)
    return b.floats(b.select(special, magnitude | 0x7F800000, finite) | ((wide & 0x8000) << 16))


def to_float16(b: Builder, x: Value) -> Value:
    """Return the bits of a float32 rounded to float16, ties to even."""
    if _converts(b):
        return b.convert("bitcast", b.convert("fptrunc", x, "half"), "i16")
    bits = b.bits(x)
    magnitude = bits & 0x7FFFFFFF
    # Below 2^-14 the addition of 0.5 rounds at float16's last subnormal bit.
    small = b.bits(b.floats(magnitude) + 0.5) - 0x3F000000
    normal = (magnitude + ((magnitude.logical_shift(13) & 1) + (0xFFF - (112 << 23)))).logical_shift(13)
    result = b.select(magnitude.lt(113 << 23), small, normal)
    result = b.select(magnitude.ge(143 << 23), b.select(magnitude.gt(0x7F800000), 0x7E00, b.const(
        0x7C00, "i32", x.lanes)), result)
    return b.convert("trunc", result | (bits.logical_shift(16) & 0x8000), "i16")


def round_to_odd(b: Builder, x: Value) -> Value:
    """Return a float64 as a float32 that rounds on to fewer bits as the float64 itself would: truncated,
    with the last bit set where something was lost.  Source: Boldo and Melquiond, "Emulation of FMA and
    correctly rounded sums", 2008."""
    near = b.convert("fptrunc", x, "float")
    back = b.convert("fpext", near, "double")
    bits = b.bits(near)
    away = b.intrinsic("fabs", back).gt(b.intrinsic("fabs", x))
    odd = (bits - b.convert("zext", away, "i32")) | 1
    return b.floats(b.select(back.compare("one", x), odd, bits))
