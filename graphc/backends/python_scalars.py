"""Scalars in printed Python: types, literals, conversions, and the library of small functions.

Owns how one scalar of each dtype is written so that Numba keeps its type, and `LIBRARY`, the source of
the functions that printed kernels call.  Knows neither kernels nor Numba.
Invariant: what is returned is an atom, a call or in parentheses; integers narrower than 64 bits are
wrapped after each operation (Numba computes them in 64); bool elements are stored as uint8, float16 and
bfloat16 are uint16 bits that only conversions look into.
"""
from __future__ import annotations

import re

from graphc import dtypes
from graphc.dtypes import DType

# What printed kernels call beside the math functions.  `bits_T(x)` reinterprets, `to_T(x)` converts a float to
# an integer with saturation; both are supplied by the backend, as is `device`, which marks a function.
LIBRARY = '''
@device
def floordiv(a, b):
    if b == 0:
        return a - a
    if b == -1:  # the smallest integer wraps
        return -a
    return a // b

@device
def floormod(a, b):
    if b == 0 or b == -1:
        return a - a
    return a % b

@device
def truncdiv(a, b):
    q = floordiv(a, b)
    return q + 1 if b != 0 and b != -1 and q * b != a and (a < 0) != (b < 0) else q

@device
def truncmod(a, b):
    return a - truncdiv(a, b) * b if b != 0 else a - a

@device
def floordiv_unsigned(a, b):
    return a // b if b != 0 else a - a

@device
def floormod_unsigned(a, b):
    return a % b if b != 0 else a - a

@device
def half_to_float(h):  # a multiplication makes subnormal numbers normal
    magnitude = (uint32(h) & uint32(0x7FFF)) << uint32(13)
    value = bits_float32(uint32(magnitude)) * float32(5.192296858534828e33)
    if magnitude >= uint32(0x0F800000):
        value = bits_float32(uint32(magnitude | uint32(0x7F800000)))
    return bits_float32(uint32(bits_uint32(value) | ((uint32(h) & uint32(0x8000)) << uint32(16))))

@device
def float_to_half(f):  # rounds to nearest even
    bits = bits_uint32(f)
    sign = uint32((bits >> uint32(16)) & uint32(0x8000))
    bits = uint32(bits & uint32(0x7FFFFFFF))
    if bits > uint32(0x7F800000):
        half = uint32(0x7E00)
    elif bits >= uint32(0x47800000):
        half = uint32(0x7C00)
    elif bits < uint32(0x38800000):  # subnormal: the addition rounds
        half = uint32(bits_uint32(bits_float32(bits) + float32(0.5)) - uint32(0x3F000000))
    else:
        half = uint32((bits + uint32(0xC8000FFF) + ((bits >> uint32(13)) & uint32(1))) & uint32(0xFFFFFFFF))
        half = uint32(half >> uint32(13))
    return uint16(half | sign)

@device
def bfloat_to_float(h):
    return bits_float32(uint32(uint32(h) << uint32(16)))

@device
def float_to_bfloat(f):  # rounds to nearest even
    bits = bits_uint32(f)
    if (bits & uint32(0x7FFFFFFF)) > uint32(0x7F800000):
        return uint16(0x7FC0)
    return uint16((bits + uint32(0x7FFF) + ((bits >> uint32(16)) & uint32(1))) >> uint32(16))

@device
def philox(low, high, key, lane):  # Philox 4x32-10, Salmon et al., SC 2011
    mask = uint64(0xFFFFFFFF)
    half = uint64(32)
    c0, c1, c2, c3 = low & mask, low >> half, high & mask, high >> half
    k0, k1 = key & mask, key >> half
    for turn in range(10):
        p, q = c0 * uint64(0xD2511F53), c2 * uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (q >> half) ^ c1 ^ k0, q & mask, (p >> half) ^ c3 ^ k1, p & mask
        k0, k1 = (k0 + uint64(0x9E3779B9)) & mask, (k1 + uint64(0xBB67AE85)) & mask
    return uint32(c0 if lane == 0 else c1 if lane == 1 else c2 if lane == 2 else c3)
'''
LIBRARY_NAMES = tuple(re.findall(r"^def (\w+)", LIBRARY, re.MULTILINE))

MATH = ("exp", "expm1", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh",
        "asinh", "acosh", "atanh", "erf", "pow", "sqrt", "copysign", "fmod")
ROUNDING = ("floor", "ceil", "rint", "trunc")  # supplied by the backend, as are fma, maximum, minimum
SCALARS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")


def memory_type(dtype: DType) -> str:
    """Return the name of the type that an element of `dtype` is stored as."""
    return {"bool": "uint8", "float16": "uint16", "bfloat16": "uint16"}.get(dtype.name, dtype.name)


def literal(value: bool | int | float, dtype: DType) -> str:
    """Return a constant of exactly this type."""
    if dtype.is_bool:
        return "True" if value else "False"
    if dtype.is_floating:
        number = repr(float(value))
        if dtype.size < 4:
            return from_float32(f"float32({number})", dtype)
        return f"{dtype.name}({number})"
    return str(int(value)) if dtype is dtypes.int64 and value >= 0 else f"{dtype.name}({int(value)})"


def identity(combiner: str, dtype: DType) -> str:
    """Return what an empty range combines to."""
    if combiner in ("max", "argmax", "min", "argmin"):
        low = combiner in ("max", "argmax")
        if dtype.is_floating:
            return literal(-float("inf") if low else float("inf"), dtype)
        return literal(int(dtype.min if low else dtype.max), dtype)
    return literal({"sum": 0, "prod": 1, "any": False, "all": True}[combiner], dtype)


def wrapped(text: str, dtype: DType) -> str:
    """Return an arithmetic result brought back to its type."""
    return f"({text})" if dtype.is_floating or dtype.is_bool or dtype is dtypes.int64 else f"{dtype.name}({text})"


def converted(x: str, source: DType, target: DType) -> str:
    """Return x as the primitive `cast` converts it."""
    if source.is_floating and source.size < 4:
        return converted(to_float32(x, source), dtypes.float32, target)
    if target.is_bool:
        return f"({x} != {literal(0, source)})"
    if target.is_floating and target.size < 4:
        return from_float32(converted(x, source, dtypes.float32), target)
    if source is target:
        return x
    return f"to_{target.name}({x})" if source.is_floating and target.is_integer else f"{target.name}({x})"


def reinterpreted(x: str, source: DType, target: DType) -> str:
    """Return the bits of x as `target`."""
    a, b = memory_type(source), memory_type(target)
    if a == b:
        return x
    return f"bits_{b}({x})" if "float" in a or "float" in b else f"{b}({x})"


def to_float32(x: str, dtype: DType) -> str:
    """Return a 2-byte float as float32."""
    return f"{'bfloat' if dtype is dtypes.bfloat16 else 'half'}_to_float({x})"


def from_float32(x: str, dtype: DType) -> str:
    """Return a float32 rounded to a 2-byte float."""
    return f"float_to_{'bfloat' if dtype is dtypes.bfloat16 else 'half'}({x})"


def bare(text: str) -> str:
    """Return text without the one pair of parentheses that encloses all of it."""
    depth = 0
    for at, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0 and at + 1 < len(text):
            return text
    return text[1:-1] if text.startswith("(") else text
