"""Algebra: laws of arithmetic as a table of rules.

Owns the table; each row says what it preserves, and tests/passes/test_rules.py checks each row on its example.
Law: as the rows say; under numerics "strict" only the exact rows apply to floats, "default" adds those that change
rounding, "fast" those that hold for finite values only.  No row makes an expression larger, so the table terminates.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, bool_, float32, float64, int32
from graphc.ir import infer
from graphc.ir.dim import Dim
from graphc.ir.function import Function, Value
from graphc.ir.types import TensorType
from graphc.ops.base import Kind
from graphc.ops.convolution import FAMILIES
from graphc.ops.convolution_window import axes_of
from graphc.passes.bodies import everywhere
from graphc.passes.patterns import CONSTANTS, EXACT, FINITE, ROUNDING, Match, Rule, apply_rules, index, number

_INT = TensorType(int32, (3, 4))
_BOOL = TensorType(bool_, (3, 4))
_FLOAT = TensorType(float32, (3, 4))
_POSITIVE = (0.5, 2.0)
PLANAR = [f for f in FAMILIES if f.rank == 2]


# -- conditions and computed replacements -----------------------------------------------------------------------------


def _power_of_two(m: Match) -> bool:
    """Whether c and 1/c are exact powers of two."""
    c = m.number("c")
    return c != 0 and math.isfinite(c) and abs(math.frexp(c)[0]) == 0.5 and 2.0 ** -100 <= abs(c) <= 2.0 ** 100


def _reciprocal(m: Match) -> Value:
    return m.make("Mul", m["x"], m.constant(1 / m.number("c"), m["x"].tensor.dtype))


def _negated_constant(m: Match) -> Value:
    dtype = m["c"].tensor.dtype
    wrapped = np.negative(np.asarray(m.number("c")).astype(dtype.as_numpy_dtype))
    return m.make("Add", m["x"], m.constant(wrapped, dtype))


def _moderate(m: Match) -> bool:
    """Whether the constants are far from overflow and underflow, so that products and quotients of them are too."""
    numbers = [abs(m.number(letter)) for letter in CONSTANTS if letter in m.bound]
    return all(2.0 ** -30 <= n <= 2.0 ** 30 for n in numbers)


_NEVER_NEGATIVE = frozenset(("Square", "SquaredDifference", "Abs", "Exp", "Sigmoid", "Softmax", "Softplus", "Relu"))
_KEEP_SIGN = frozenset(("Add", "Mul", "Maximum", "Sum", "Mean", "Max", "Min", "Prod", "Reshape", "Transpose",
                        "BroadcastTo"))


def _never_negative(m: Match) -> bool:
    """Whether x is at least zero (or NaN) whatever is fed."""
    stack, steps = [m["x"]], 0
    while stack:
        value = stack.pop()
        steps += 1
        constant = number(value)
        if constant is not None and constant >= 0:
            continue
        producer = value.producer
        if producer is None or steps > 16:
            return False
        if producer.op.name in _KEEP_SIGN:
            stack.extend(producer.inputs)
        elif producer.op.name not in _NEVER_NEGATIVE:
            return False
    return True


def _merged_axes(m: Match) -> Value | None:
    """Sum over k of a sum over j: one sum over both, by the axes of x."""
    outer, inner = m["k"], m["j"]
    if inner["keepdims"] != outer["keepdims"]:
        return None
    if inner["keepdims"]:
        axes = set(outer["axis"]) | set(inner["axis"])
    else:
        rest = [a for a in range(m["x"].tensor.rank) if a not in inner["axis"]]
        axes = set(inner["axis"]) | {rest[a] for a in outer["axis"]}
    return m.make(m.op.name, m["x"], axis=tuple(sorted(axes)), keepdims=outer["keepdims"])


def _scaled_sum(m: Match) -> Value:
    total = m.make("Sum", m["x"], **m["k"])
    return m.make("Mul", total, m.constant(m.number("c"), m["c"].tensor.dtype))


def _leaves_the_sum(m: Match) -> bool:
    """Whether x alone has the shape that the reduction sees, and the factor changes no infinity."""
    return bool(m["x"].type == m.inputs[0].type) and _moderate(m)


def _casts_merge(m: Match) -> bool:
    """Whether the inner cast loses nothing that the outer one would keep."""
    source: DType = m["x"].tensor.dtype
    middle: DType = m["j"]["dtype"]
    target: DType = m["k"]["dtype"]
    if source.is_bool:
        return not target.is_bool
    if source.is_floating and middle.is_floating:
        widens = source is middle or (middle is float64) or (middle is float32 and source.size == 2)
        return widens and (target.is_floating or target.is_integer)
    if source.is_integer and middle.is_integer:
        widens = middle.size > source.size and (middle.kind == source.kind or source.is_unsigned)
        return widens and target.is_integer
    if source.is_integer and middle.is_floating:
        digits = {2: 8, 4: 24, 8: 53}[middle.size]
        return source.bits <= digits and target.is_floating
    return False


def _outer_cast(m: Match) -> Value:
    return m.make("Cast", m["x"], dtype=m["k"]["dtype"])


def _holds(m: Match) -> bool:
    return bool(m.number("c"))


def _holds_not(m: Match) -> bool:
    return not m.number("c")


def _operand_without_broadcast(m: Match) -> Value | None:
    """An elementwise op on broadcast operands: the op broadcasts by itself, or its result is broadcast."""
    plain = [_source(v) for v in m.inputs]
    if m.op.kind is not Kind.ELEMENTWISE or plain == list(m.inputs):
        return None
    return m.make(m.op.name, *plain, **m.attrs)


def _source(value: Value) -> Value:
    producer = value.producer
    return producer.inputs[0] if producer is not None and producer.op.name == "BroadcastTo" else value


def _sinks(m: Match) -> bool:
    """Whether the op on the unbroadcast operands gives a shape that broadcasts to the result's."""
    plain = [_source(v) for v in m.inputs]
    if all(a is b for a, b in zip(plain, m.inputs, strict=True)):
        return False
    (found,) = infer.types(m.op, plain, m.attrs)
    assert isinstance(found, TensorType)
    lead = m.type.rank - found.rank
    return all(n in (1, m.type.shape[lead + i]) for i, n in enumerate(found.shape))


def _counted(m: Match) -> Value | None:
    """A sum over broadcast copies: a multiple."""
    shape, keepdims = m.inputs[0].tensor.shape, m["k"]["keepdims"]
    small = m["x"].tensor
    lead = len(shape) - small.rank
    copies, rest = 1, []
    for a in m["k"]["axis"]:
        size = shape[a]
        if a >= lead and small.shape[a - lead] != 1:
            rest.append(a - lead)
        elif isinstance(size, Dim):
            return None
        else:
            copies *= size
    if copies == 0 or len(rest) == len(m["k"]["axis"]) or small.dtype.size < 4:
        return None
    total = m.make("Sum", m["x"], axis=tuple(rest), keepdims=True)
    scaled = m.make("Mul", total, m.constant(copies, small.dtype))
    kept = tuple(1 if a in m["k"]["axis"] else shape[a] for a in range(len(shape)))
    full = m.make("BroadcastTo", scaled, shape=kept)
    return full if keepdims else m.make("Reshape", full, shape=m.type.shape)


_WINDOW = ("ksize", "strides", "padding", "data_format")


def _one_pooling(m: Match) -> bool:
    """Whether position and spread speak of the same windows."""
    return all(m["p"][name] == m["k"][name] for name in _WINDOW)


def _masked_windows(m: Match) -> Value:
    """The gradient reaches the largest element of each window alone, whose mask is that of the maximum: a quarter of
    the elements, and x itself is read no more."""
    pool = "MaxPool" if m["x"].tensor.rank == 4 else "MaxPool3D"
    largest = m.make(pool, m["x"], **{name: m["p"][name] for name in _WINDOW})
    masked = m.make(m.op.name, m["g"], largest, **m.attrs)
    return m.make("MaxPoolSpread", m.make("MaxPoolPosition", m["x"], **m["p"]), masked, **m["k"])


def _over_whole_windows(m: Match) -> bool:
    """Whether a sum goes over every axis that has windows: what one window gives is then summed as a whole."""
    windowed = {a for a, sizes in enumerate(zip(m["j"]["ksize"], m["j"]["strides"], strict=True)) if sizes != (1, 1)}
    return windowed <= set(m["k"]["axis"])


def _pads_windows(m: Match) -> bool:
    """Whether the zeros that Pad puts around the spatial axes are ones that the windows can count themselves."""
    pairs, channel = m["j"]["paddings"], axes_of(m["k"]["data_format"], m["x"].tensor.rank - 2)[0]
    return m["k"]["padding"] != "SAME" and all(isinstance(n, int) for pair in pairs for n in pair) and \
        pairs[0] == pairs[channel] == (0, 0)


def _with_padding(attrs: Mapping[str, Any], pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The attrs of a convolution whose input has these zeros around it, too."""
    before = attrs["explicit_paddings"] or (0,) * (2 * len(pairs))
    total = tuple(n + m for n, m in zip(before, (n for pair in pairs for n in pair), strict=True))
    return {**attrs, "padding": "EXPLICIT", "explicit_paddings": total}


def _windows_that_pad(m: Match) -> Value:
    return m.make(m.op.name, m["x"], m["w"], **_with_padding(m["k"], m["j"]["paddings"]))


def _sliced_pairs(m: Match) -> list[tuple[Any, Any]]:
    """What a slice takes off before and after each axis."""
    whole = m.inputs[0].tensor.shape
    return [(a, n - a - size) for a, n, size in zip(m["j"]["begin"], whole, m.type.shape, strict=True)]


def _slices_windows(m: Match) -> bool:
    """Whether a slice takes off the padding of a convolution's input gradient, and nothing else."""
    pairs, channel = _sliced_pairs(m), axes_of(m["k"]["data_format"], m.type.rank - 2)[0]
    return m["k"]["padding"] != "SAME" and all(n == 1 for n in m["j"]["strides"] or ()) and \
        all(isinstance(n, int) and n >= 0 for pair in pairs for n in pair) and pairs[0] == pairs[channel] == (0, 0)


def _gradient_that_pads(m: Match) -> Value:
    producer = m.inputs[0].producer
    assert producer is not None
    attrs = _with_padding(m["k"], _sliced_pairs(m))
    return m.make(producer.op.name, m["w"], m["g"], **{**attrs, "input_sizes": m.type.shape})


# -- the table --------------------------------------------------------------------------------------------------------

_ELEMENTWISE_UNARY = (
    "Neg", "Abs", "Sign", "Square", "Sqrt", "Rsqrt", "Reciprocal", "Exp", "Expm1", "Log", "Log1p", "Sigmoid", "Tanh",
    "Softplus", "Relu", "Sin", "Cos", "Erf", "Floor", "Ceil", "Cast", "LogicalNot")
_ELEMENTWISE_BINARY = (
    "Add", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow", "SquaredDifference", "Less", "LessEqual", "Equal",
    "NotEqual", "LogicalAnd", "LogicalOr")
_WIDE = {"j": {"shape": (3, 4)}}
_PLANE = {"ksize": (1, 2, 2, 1), "strides": (1, 2, 2, 1), "padding": "VALID", "data_format": "NHWC"}
_PADDED = {"paddings": ((0, 0), (1, 2), (0, 1), (0, 0))}
_VALID = {"strides": (1, 2, 1, 1), "padding": "VALID", "data_format": "NHWC", "dilations": (1, 1, 1, 1),
          "explicit_paddings": ()}
_IMAGE, _TAPS = TensorType(float32, (2, 5, 4, 3)), TensorType(float32, (3, 2, 3, 2))
_ROOTS = (("0.5", "Sqrt"), ("-0.5", "Rsqrt"))

RULES: tuple[Rule, ...] = (
    # Neutral elements.
    Rule("Add(x, -0.0)", "x", on="float"),
    Rule("Add(x, 0)", "x", ROUNDING),
    Rule("Sub(x, 0)", "x", ROUNDING),
    Rule("Sub(0, x)", "Neg(x)", ROUNDING),
    Rule("Mul(x, 1)", "x"),
    Rule("Mul(x, -1)", "Neg(x)"),
    Rule("RealDiv(x, 1)", "x"),
    Rule("RealDiv(x, -1)", "Neg(x)"),
    Rule("Pow(x, 1)", "x"),
    Rule("FloorDiv(x, 1)", "x", on="int", given={"x": _INT}),
    Rule("TruncateDiv(x, 1)", "x", on="int", given={"x": _INT}),
    Rule("LogicalAnd(x, 1)", "x", given={"x": _BOOL}),
    Rule("LogicalOr(x, 0)", "x", given={"x": _BOOL}),
    # Absorbing elements.
    Rule("Mul(x, 0)", "0", on="int", given={"x": _INT}),
    Rule("Mul(x, 0)", "0", FINITE, on="float", given={"x": (-2.0, 2.0)}),
    Rule("RealDiv(0, x)", "0", FINITE, given={"x": _POSITIVE}),
    Rule("Pow(x, 0)", "1"),
    Rule("LogicalAnd(x, 0)", "0", given={"x": _BOOL}),
    Rule("LogicalOr(x, 1)", "1", given={"x": _BOOL}),
    # The same operand twice.
    Rule("Sub(x, x)", "0", on="int", given={"x": _INT}),
    Rule("Sub(x, x)", "0", FINITE, on="float"),
    Rule("RealDiv(x, x)", "1", FINITE, given={"x": _POSITIVE}),
    Rule("Maximum(x, x)", "x"),
    Rule("Minimum(x, x)", "x"),
    Rule("LogicalAnd(x, x)", "x", given={"x": _BOOL}),
    Rule("LogicalOr(x, x)", "x", given={"x": _BOOL}),
    Rule("Mul(x, x)", "Square(x)"),
    Rule("SelectV2(_, x, x)", "x", given={"_": _BOOL}),
    # Inverses and signs.
    Rule("Neg(Neg(x))", "x"),
    Rule("LogicalNot(LogicalNot(x))", "x", given={"x": _BOOL}),
    Rule("Reciprocal(Reciprocal(x))", "x", FINITE, given={"x": _POSITIVE}),
    Rule("Neg(Sub(x, y))", "Sub(y, x)", ROUNDING),
    Rule("Add(x, Neg(y))", "Sub(x, y)"),
    Rule("Sub(x, Neg(y))", "Add(x, y)"),
    Rule("Mul(Neg(x), Neg(y))", "Mul(x, y)"),
    Rule("RealDiv(Neg(x), Neg(y))", "RealDiv(x, y)"),
    Rule("Mul(Neg(x), c)", "Mul(x, Neg(c))", given={"c": 3.0}),
    Rule("Square(Neg(x))", "Square(x)"),
    Rule("Square(Abs(x))", "Square(x)"),
    Rule("Abs(Neg(x))", "Abs(x)"),
    Rule("Abs(Abs(x))", "Abs(x)"),
    Rule("Abs(Square(x))", "Square(x)", on="float"),
    Rule("Relu(Relu(x))", "Relu(x)"),
    # Constants meet; constant folding then computes them.
    Rule("Sub(x, c)", _negated_constant, given={"c": 3.0}),
    Rule("Add(Add(x, c), d)", "Add(x, Add(c, d))", ROUNDING, given={"c": 3.0, "d": 0.25}),
    Rule("Sub(c, Add(x, d))", "Sub(Sub(c, d), x)", ROUNDING, given={"c": 3.0, "d": 0.25}),
    Rule("Add(Sub(c, x), d)", "Sub(Add(c, d), x)", ROUNDING, given={"c": 3.0, "d": 0.25}),
    Rule("Mul(Mul(x, c), d)", "Mul(x, Mul(c, d))", ROUNDING, when=_moderate, given={"c": 3.0, "d": 0.3}),
    Rule("RealDiv(x, c)", _reciprocal, when=_power_of_two, on="float", given={"c": 8.0}),
    *(Rule(pattern, replacement, ROUNDING, when=_moderate, on="float", given={"c": 3.0, "d": 7.0})
      for pattern, replacement in (("RealDiv(Mul(x, c), d)", "Mul(x, RealDiv(c, d))"),
                                   ("Mul(RealDiv(x, c), d)", "Mul(x, RealDiv(d, c))"),
                                   ("RealDiv(RealDiv(x, c), d)", "RealDiv(x, Mul(c, d))"))),
    # Powers and roots.
    Rule("Pow(x, 2)", "Square(x)", ROUNDING),
    Rule("Pow(x, 3)", "Mul(Square(x), x)", ROUNDING, on="float", given={"x": _POSITIVE}),
    *(Rule(f"Pow(x, {power})", f"{op}(x)", FINITE, on="float", given={"x": _POSITIVE}) for power, op in _ROOTS),
    *(Rule(f"Pow(x, {power})", f"{op}(x)", ROUNDING, when=_never_negative, on="float", given={"x": 2.0})
      for power, op in _ROOTS),  # not of -inf, whose powers are not NaN
    Rule("Pow(x, -1)", "Reciprocal(x)", ROUNDING, on="float", given={"x": _POSITIVE}),
    Rule("Square(Sqrt(x))", "x", FINITE, on="float", given={"x": _POSITIVE}),
    Rule("RealDiv(1, x)", "Reciprocal(x)"),
    Rule("Reciprocal(Sqrt(x))", "Rsqrt(x)", ROUNDING, given={"x": _POSITIVE}),
    Rule("Mul(Exp(x), Exp(y))", "Exp(Add(x, y))", FINITE, given={"x": (-1.0, 1.0), "y": (-1.0, 1.0)}),
    Rule("Square(Sub(x, y))", "SquaredDifference(x, y)", ROUNDING),
    # Casts and choices.
    Rule("Cast{k}(Cast{j}(x))", _outer_cast, when=_casts_merge,
         given={"x": _BOOL, "j": {"dtype": int32}, "k": {"dtype": float32}}),
    Rule("SelectV2(c, x, y)", "x", when=_holds, given={"c": True}),
    Rule("SelectV2(c, x, y)", "y", when=_holds_not, given={"c": False}),
    Rule("SelectV2(LogicalNot(p), x, y)", "SelectV2(p, y, x)", given={"p": _BOOL}),
    # Zeros around images are padding of the windows over them.
    *(Rule(f"{f.name}{{k}}(Pad{{j}}(x), w)", _windows_that_pad, when=_pads_windows,
           given={"x": _IMAGE, "w": _TAPS, "j": _PADDED, "k": _VALID}) for f in PLANAR),
    *(Rule(f"{f.for_filter}{{k}}(Pad{{j}}(x), w)", _windows_that_pad, when=_pads_windows, given={
        "x": _IMAGE, "w": TensorType(float32, (2, 3, 4, 6 if f.is_depthwise else 2)), "j": _PADDED,
        "k": {**_VALID, "filter_sizes": _TAPS.shape}}) for f in PLANAR),
    *(Rule(f"Slice{{j}}({f.for_input}{{k}}(w, g))", _gradient_that_pads, when=_slices_windows, given={
        "w": _TAPS, "g": TensorType(float32, (2, 3, 4, 6 if f.is_depthwise else 2)),
        "j": {"begin": (0, 1, 0, 0), "size": (2, 5, 4, 3), "strides": ()},
        "k": {**_VALID, "input_sizes": (2, 8, 5, 3)}}) for f in PLANAR),
    # Sums.
    Rule("Sum{k}(Sum{j}(x))", _merged_axes, ROUNDING, given={
        "x": TensorType(float32, (2, 3, 4)), "j": {"axis": (1,), "keepdims": False}, "k": {"axis": (1,),
                                                                                          "keepdims": False}}),
    Rule("Max{k}(Max{j}(x))", _merged_axes, given={
        "x": TensorType(float32, (2, 3, 4)), "j": {"axis": (2,), "keepdims": True}, "k": {"axis": (0,),
                                                                                         "keepdims": True}}),
    Rule("Sum{k}(Mul(x, c))", _scaled_sum, ROUNDING, when=_leaves_the_sum, on="float",
         given={"c": 3.0, "k": {"axis": (1,), "keepdims": False}}),
    Rule("Sum{k}(Neg(x))", "Neg(Sum{k}(x))", ROUNDING, given={"k": {"axis": (1,), "keepdims": False}}),
    Rule("Sum{k}(BroadcastTo{j}(x))", _counted, ROUNDING, given={
        "x": TensorType(float32, (3, 1)), "j": {"shape": (3, 4)}, "k": {"axis": (0, 1), "keepdims": False}}),
    # Windows.
    *(Rule(f"{mask}(MaxPoolSpread{{k}}(MaxPoolPosition{{p}}(x), g), x)", _masked_windows, preserves, when=_one_pooling,
           given={"x": TensorType(float32, (2, 4, 6, 3)), "g": TensorType(float32, (2, 2, 3, 3)), "p": _PLANE,
                  "k": {**_PLANE, "shape": (2, 4, 6, 3)}})
      for mask, preserves in (("ReluGrad", EXACT), ("Relu6Grad", EXACT), ("LeakyReluGrad", ROUNDING))),
    Rule("Sum{k}(MaxPoolSpread{j}(MaxPoolPosition{p}(x), g))", "Sum{k}(g)", ROUNDING, when=_over_whole_windows, given={
        "x": TensorType(float32, (2, 4, 6, 3)), "g": TensorType(float32, (2, 2, 3, 3)), "p": _PLANE,
        "j": {**_PLANE, "shape": (2, 4, 6, 3)}, "k": {"axis": (0, 1, 2), "keepdims": False}}),
    Rule("Sum{k}(AvgPoolGrad{j}(g))", "Sum{k}(g)", ROUNDING, when=_over_whole_windows, given={
        "g": TensorType(float32, (2, 2, 3, 3)), "j": {**_PLANE, "shape": (2, 4, 6, 3)},
        "k": {"axis": (1, 2), "keepdims": True}}),
    # Broadcasts sink below elementwise ops, which broadcast by themselves.
    *(Rule(f"{op}{{k}}(BroadcastTo{{j}}(x))", _operand_without_broadcast, when=_sinks,
           given={"x": TensorType(bool_ if op == "LogicalNot" else float32, (1, 4)), **_WIDE,
                  "k": {"dtype": int32} if op == "Cast" else {}}) for op in _ELEMENTWISE_UNARY),
    *(Rule(f"{op}(x, BroadcastTo{{j}}(y))", _operand_without_broadcast, when=_sinks,
           given={"x": _BOOL, "y": TensorType(bool_, (1, 4)), **_WIDE} if op.startswith("Logical") else
           {"y": TensorType(float32, (1, 4)), **_WIDE}) for op in _ELEMENTWISE_BINARY),
    *(Rule(f"{op}(BroadcastTo{{j}}(x), y)", _operand_without_broadcast, when=_sinks,
           given={"x": TensorType(float32, (1, 4)), **_WIDE}) for op in _ELEMENTWISE_BINARY
      if op in ("Sub", "RealDiv", "Pow", "Less", "LessEqual")),
    *(Rule(pattern, _operand_without_broadcast, when=_sinks, given={
        "p": _BOOL, "x": _FLOAT, "y": _FLOAT, letter: TensorType(float32, (1, 4)), **_WIDE})
      for pattern, letter in (("SelectV2(p, BroadcastTo{j}(x), y)", "x"), ("SelectV2(p, x, BroadcastTo{j}(y))", "y"))),
)

TABLE = index(RULES)


@everywhere
def simplify(function: Function, numerics: str = "default") -> Function:
    """Return `function` with the laws of arithmetic applied."""
    return apply_rules(function, TABLE, numerics)


