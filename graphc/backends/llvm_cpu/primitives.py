"""The primitives of kernel IR as LLVM instructions, for every dtype, scalar or vector.

Owns arithmetic, comparison, division, and the combiners of reductions.  Register forms and conversions
are in convert.py, transcendental functions in maths.py.  Knows no loops.  Invariants: nothing here is
undefined for any input (division by zero, INT_MIN / -1, shifts by too much), and nothing becomes a
library call.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc import dtypes
from graphc.backends.llvm_cpu import convert, maths
from graphc.backends.llvm_cpu.builder import Builder, Value
from graphc.backends.llvm_cpu.convert import register_element
from graphc.backends.llvm_cpu.maths_core import round_ceil, round_floor, round_nearest, round_trunc
from graphc.dtypes import DType
from graphc.errors import BackendError

# On values known to be far from 2^52 these give such values again (indices; see `apply`).
KEEPS_BOUNDS = frozenset({"add", "sub", "neg", "mul", "floordiv", "floormod", "truncdiv", "truncmod", "min", "max",
                          "select", "abs"})


def memory_element(dtype: DType) -> str:
    """Return the LLVM element type of a stored element."""
    return "i8" if dtype.is_bool else register_element(dtype)


def constant(b: Builder, value: bool | int | float, dtype: DType) -> Value:
    """Return a literal in register form."""
    if dtype in (dtypes.float16, dtypes.bfloat16):
        return b.const(convert.half_bits(float(value), dtype), "i16")
    return b.const(value, register_element(dtype))


def apply(b: Builder, op: str, source: DType, args: Sequence[Value], dtype: DType | None = None,
          bounded: bool = False) -> Value:
    """Return primitive `op` over arguments of dtype `source`, giving `dtype` (`source` if None).

    bounded: the (int64) arguments are indices, far below 2^52 in magnitude.
    """
    result = source if dtype is None else dtype
    if op == "cast":
        return convert.cast(b, args[0], source, result)
    if op == "bitcast":
        return convert.bitcast(b, args[0], source, result)
    if op == "select":
        return b.select(args[0], args[1], args[2])
    if source in (dtypes.float16, dtypes.bfloat16):
        raise BackendError(f"primitive {op} cannot compute in {source.name}; cast to float32")
    if source.is_floating:
        return _float(b, op, source, args)
    return _integer(b, op, source, args, bounded)


# LLVM's predicates for floats, signed and unsigned integers
_ORDER = {"eq": ("oeq", "eq", "eq"), "ne": ("une", "ne", "ne"),
          "lt": ("olt", "slt", "ult"), "le": ("ole", "sle", "ule")}


def _integer(b: Builder, op: str, dtype: DType, args: Sequence[Value], bounded: bool) -> Value:
    x = args[0]
    match op:
        case "add" | "mul" if dtype.is_bool:
            return x | args[1] if op == "add" else x & args[1]
        case "add" | "sub" | "mul" | "and" | "or" | "xor":
            return b.binary(op, x, args[1])
        case "not":
            return ~x
        case "neg":
            return 0 - x
        case "abs":
            return x if dtype.is_unsigned else b.select(x.lt(0), 0 - x, x)
        case "max" | "min":
            if x.constant is not None and args[1].constant is not None and not dtype.is_unsigned:
                return b.const(max(x.constant, args[1].constant) if op == "max" else
                               min(x.constant, args[1].constant), x.element)
            return b.intrinsic(("u" if dtype.is_unsigned or dtype.is_bool else "s") + op, x, args[1])
        case "eq" | "ne" | "lt" | "le":
            return x.compare(_ORDER[op][2 if dtype.is_unsigned or dtype.is_bool else 1], args[1])
        case "shl" | "shr":
            amount = args[1] & (dtype.bits - 1)
            return b.binary("shl" if op == "shl" else "lshr" if dtype.is_unsigned else "ashr", x, amount)
        case "floordiv" | "floormod" | "truncdiv" | "truncmod":
            return _divide(b, op, dtype, x, args[1], bounded)
        case _:
            raise BackendError(f"primitive {op} is unknown to llvm_cpu for {dtype.name}")


def _divide(b: Builder, op: str, dtype: DType, x: Value, y: Value, bounded: bool) -> Value:
    """Integer division; by zero it gives 0, and the smallest number by -1 wraps."""
    floors, quotient = op.startswith("floor"), op.endswith("div")
    if y.constant is not None and y.constant > 0:
        divisor = y.constant
        if x.constant is not None and (x.constant >= 0 or (floors and not dtype.is_unsigned)):
            return b.const(x.constant // divisor if quotient else x.constant % divisor, x.element)
        if divisor & (divisor - 1) == 0 and (floors or dtype.is_unsigned):
            if not quotient:
                return x & (divisor - 1)
            return b.binary("lshr" if dtype.is_unsigned else "ashr", x, divisor.bit_length() - 1)
    if x.lanes == 1 and y.lanes == 1:
        q = _divide_hardware(b, dtype, x, y)
    elif dtype.bits < 64:
        q = _divide_in_floats(b, dtype, x, y)
    elif bounded and y.lanes == 1:
        return _divide_indices(b, quotient, floors, x, y)
    else:
        q = _divide_hardware(b, dtype, x, y)
    zero = y.eq(0)
    if quotient and (dtype.is_unsigned or not floors):
        return q if zero.constant == 0 else b.select(zero, 0, q)
    r = x - q * y
    if floors and not dtype.is_unsigned:
        off = r.ne(0) & (r ^ y).lt(0)
        q, r = b.select(off, q - 1, q), b.select(off, r + y, r)
    return b.select(zero, 0, q if quotient else r)


def _divide_hardware(b: Builder, dtype: DType, x: Value, y: Value) -> Value:
    """Truncating quotient by the divide instruction, which must see neither a zero nor an overflow."""
    if dtype.is_unsigned:
        return b.binary("udiv", x, b.select(y.eq(0), 1, y))
    minus = y.eq(-1)
    safe = b.select(y.eq(0) | minus, b.like(1, y), y)
    return b.select(minus, 0 - x, b.binary("sdiv", x, safe))


def _divide_in_floats(b: Builder, dtype: DType, x: Value, y: Value) -> Value:
    """Truncating quotient of up to 32 bits: exact in float64 (in float32 up to 16 bits), as the nearest
    quotient of integers far below 2^52 (2^23) never rounds up to an integer it has not reached."""
    wide = "double" if dtype.bits == 32 else "float"
    lanes = max(x.lanes, y.lanes)
    safe = b.select(y.eq(0), 1, y)
    to = "uitofp" if dtype.is_unsigned else "sitofp"
    if dtype.bits < 32:
        grow = "zext" if dtype.is_unsigned else "sext"
        x, safe, to = b.convert(grow, x, "i32"), b.convert(grow, safe, "i32"), "sitofp"
    q = b.splat(b.convert(to, x, wide), lanes) / b.convert(to, safe, wide)
    if dtype.bits < 32:
        return b.convert("trunc", b.convert("fptosi", q, "i32"), f"i{dtype.bits}")
    if dtype.is_unsigned:
        return b.convert("fptoui", q, "i32")
    # Only INT_MIN / -1 leaves the range; it wraps to INT_MIN.
    over = q.ge(2147483648.0)
    return b.select(over, -(1 << 31), b.convert("fptosi", b.select(over, 0.0, q), "i32"))


_EXACT = (1 << 52) + (1 << 51)  # as a float64: its last 51 bits hold a signed integer


def _divide_indices(b: Builder, quotient: bool, floors: bool, x: Value, y: Value) -> Value:
    """Quotient or remainder of 64-bit indices by a scalar, in float64 without any 64-bit division."""
    magic = b.const(float(_EXACT), "double")
    bits = b.bits(magic)
    safe = b.select(y.eq(0), 1, y)
    numerator = b.floats(x + bits) - magic
    ratio = numerator / b.convert("sitofp", safe, "double")
    whole = b.bits((round_floor if floors else round_trunc)(b, ratio) + magic) - bits
    return b.select(y.eq(0), b.const(0, "i64", x.lanes), whole if quotient else x - whole * safe)


def _float(b: Builder, op: str, dtype: DType, args: Sequence[Value]) -> Value:
    x = args[0]
    match op:
        case "add":
            return x + args[1]
        case "sub":
            return x - args[1]
        case "mul":
            return x * args[1]
        case "div":
            return x / args[1]
        case "fma":
            return b.fma(b.splat(x, max(a.lanes for a in args)), args[1], args[2])
        case "neg":
            return -x
        case "abs":
            return b.intrinsic("fabs", x)
        case "copysign":
            return b.intrinsic("copysign", x, args[1])
        case "sqrt":
            return b.intrinsic("sqrt", x)
        case "max" | "min":
            return extreme(b, op, x, args[1])
        case "eq" | "ne" | "lt" | "le":
            return x.compare(_ORDER[op][0], args[1])
        case "floor":
            return round_floor(b, x)
        case "ceil":
            return round_ceil(b, x)
        case "trunc":
            return round_trunc(b, x)
        case "rint":
            return round_nearest(b, x)
        case "truncmod":
            return maths.call(b, "fmod", x, args[1])
        case _ if op in maths.FUNCTIONS:
            return maths.call(b, op, *args)
        case _:
            raise BackendError(f"primitive {op} is unknown to llvm_cpu for {dtype.name}")


def extreme(b: Builder, op: str, x: Value, y: Value) -> Value:
    """Return the maximum or minimum of floats; NaN where either is NaN."""
    predicate = "ogt" if op == "max" else "olt"
    if _never_nan(x) or _never_nan(y):
        # select(c > v, c, v) is one instruction and hands a NaN v on.
        known, other = (y, x) if _never_nan(y) else (x, y)
        return b.select(known.compare(predicate, other), known, other)
    return b.select(x.compare(predicate, y) | x.is_nan(), x, y)


def _never_nan(x: Value) -> bool:
    return not x.text.startswith("%") and "0x7FF8" not in x.text


def identity(b: Builder, combiner: str, dtype: DType, lanes: int) -> Value:
    """Return what a combiner starts from, in `lanes` lanes."""
    element = register_element(dtype)
    if combiner in ("sum", "any"):
        return b.const(0, element, lanes)
    if combiner in ("prod", "all"):
        return b.const(1, element, lanes)
    high = combiner in ("min", "argmin")
    if dtype.is_floating:
        return b.const(float("inf") if high else float("-inf"), element, lanes)
    if dtype.is_bool:
        return b.const(high, element, lanes)
    return b.const(int(dtype.max if high else dtype.min), element, lanes)


def combine(b: Builder, combiner: str, dtype: DType, state: Sequence[Value], new: Sequence[Value],
            in_order: bool) -> list[Value]:
    """Return a combiner's state after taking in `new`.  in_order: an index in `new` comes after the state's."""
    x, y = state[0], new[0]
    match combiner:
        case "sum":
            return [apply(b, "add", dtype, (x, y))]
        case "prod":
            return [apply(b, "mul", dtype, (x, y))]
        case "any":
            return [x | y]
        case "all":
            return [x & y]
        case "max" | "min":
            return [apply(b, combiner, dtype, (x, y))]
        case "argmax" | "argmin":
            first, second = (x, y) if combiner == "argmax" else (y, x)
            better = apply(b, "lt", dtype, (first, second), dtypes.bool_)
            tie = y.eq(x)
            if dtype.is_floating:
                better = better | (y.is_nan() & ~x.is_nan())
                tie = tie | (y.is_nan() & x.is_nan())
            if not in_order:
                better = better | (tie & new[1].lt(state[1]))
            return [b.select(better, y, x), b.select(better, new[1], state[1])]
        case _:
            raise BackendError(f"combiner {combiner!r} is unknown to llvm_cpu")
