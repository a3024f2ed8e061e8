"""Functions element by element: arithmetic, elementary functions, comparisons, logic and casts.

Owns TensorFlow 1's names for them.  Must not know reductions or shapes.
Invariant: no promotion: operands have one dtype, except that a Python number takes the tensor's.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import cast as typed

from graphc import dtypes
from graphc.dsl.convert import convert_n_to_tensor, convert_to_tensor, matching
from graphc.dsl.scope import create, name_scope
from graphc.errors import DTypeError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import IndexedSlices, Tensor

__all__ = [
    "abs", "accumulate_n", "acos", "acosh", "add", "add_n", "asin", "asinh", "atan", "atan2", "atanh", "bitcast",
    "cast", "ceil", "check_numerics", "cos", "cosh", "digamma", "div", "div_no_nan", "divide", "equal", "erf",
    "erfc", "exp", "expm1", "floor", "floordiv", "floormod", "greater", "greater_equal", "is_finite", "is_inf",
    "is_nan", "less", "less_equal", "lgamma", "log", "log1p", "log_sigmoid", "logical_and", "logical_not",
    "logical_or", "logical_xor", "maximum", "minimum", "multiply", "negative", "not_equal", "pow", "realdiv",
    "reciprocal", "rint", "round", "rsqrt", "saturate_cast", "sigmoid", "sign", "sin", "sinh", "sqrt", "square",
    "squared_difference", "subtract", "tan", "tanh", "to_bfloat16", "to_double", "to_float", "to_int32",
    "to_int64", "truediv", "truncatediv", "truncatemod", "xdivy", "xlogy",
]


def _unary(op_type: str, x: Any, name: str | None) -> Tensor:
    with name_scope(name, op_type, [x]) as scope:
        return typed(Tensor, create(op_type, scope, [convert_to_tensor(x, name="x")]))


def _binary(op_type: str, x: Any, y: Any, name: str | None) -> Tensor:
    with name_scope(name, op_type, [x, y]) as scope:
        return typed(Tensor, create(op_type, scope, matching(x, y)))


# -- of one operand ---------------------------------------------------------------------------------------------------


def negative(x: Any, name: str | None = None) -> Tensor:
    """Return -x.  Source: tf.negative."""
    return _unary("Neg", x, name)


def abs(x: Any, name: str | None = None) -> Tensor:
    """Return the absolute value of x.  Source: tf.abs."""
    return _unary("Abs", x, name)


def sign(x: Any, name: str | None = None) -> Tensor:
    """Return -1, 0 or 1 as the sign of x.  Source: tf.sign."""
    return _unary("Sign", x, name)


def square(x: Any, name: str | None = None) -> Tensor:
    """Return x * x.  Source: tf.square."""
    return _unary("Square", x, name)


def sqrt(x: Any, name: str | None = None) -> Tensor:
    """Return the square root of x.  Source: tf.sqrt."""
    return _unary("Sqrt", x, name)


def rsqrt(x: Any, name: str | None = None) -> Tensor:
    """Return 1 / sqrt(x).  Source: tf.rsqrt."""
    return _unary("Rsqrt", x, name)


def reciprocal(x: Any, name: str | None = None) -> Tensor:
    """Return 1 / x.  Source: tf.reciprocal."""
    return _unary("Reciprocal", x, name)


def exp(x: Any, name: str | None = None) -> Tensor:
    """Return e to the x.  Source: tf.exp."""
    return _unary("Exp", x, name)


def expm1(x: Any, name: str | None = None) -> Tensor:
    """Return exp(x) - 1, accurate near 0.  Source: tf.expm1."""
    return _unary("Expm1", x, name)


def log(x: Any, name: str | None = None) -> Tensor:
    """Return the natural logarithm of x.  Source: tf.log."""
    return _unary("Log", x, name)


def log1p(x: Any, name: str | None = None) -> Tensor:
    """Return log(1 + x), accurate near 0.  Source: tf.log1p."""
    return _unary("Log1p", x, name)


def sin(x: Any, name: str | None = None) -> Tensor:
    """Return the sine of x.  Source: tf.sin."""
    return _unary("Sin", x, name)


def cos(x: Any, name: str | None = None) -> Tensor:
    """Return the cosine of x.  Source: tf.cos."""
    return _unary("Cos", x, name)


def tan(x: Any, name: str | None = None) -> Tensor:
    """Return the tangent of x.  Source: tf.tan."""
    return _unary("Tan", x, name)


def asin(x: Any, name: str | None = None) -> Tensor:
    """Return the arcsine of x.  Source: tf.asin."""
    return _unary("Asin", x, name)


def acos(x: Any, name: str | None = None) -> Tensor:
    """Return the arccosine of x.  Source: tf.acos."""
    return _unary("Acos", x, name)


def atan(x: Any, name: str | None = None) -> Tensor:
    """Return the arctangent of x.  Source: tf.atan."""
    return _unary("Atan", x, name)


def sinh(x: Any, name: str | None = None) -> Tensor:
    """Return the hyperbolic sine of x.  Source: tf.sinh."""
    return _unary("Sinh", x, name)


def cosh(x: Any, name: str | None = None) -> Tensor:
    """Return the hyperbolic cosine of x.  Source: tf.cosh."""
    return _unary("Cosh", x, name)


def tanh(x: Any, name: str | None = None) -> Tensor:
    """Return the hyperbolic tangent of x.  Source: tf.tanh."""
    return _unary("Tanh", x, name)


def asinh(x: Any, name: str | None = None) -> Tensor:
    """Return the inverse hyperbolic sine of x.  Source: tf.asinh."""
    return _unary("Asinh", x, name)


def acosh(x: Any, name: str | None = None) -> Tensor:
    """Return the inverse hyperbolic cosine of x.  Source: tf.acosh."""
    return _unary("Acosh", x, name)


def atanh(x: Any, name: str | None = None) -> Tensor:
    """Return the inverse hyperbolic tangent of x.  Source: tf.atanh."""
    return _unary("Atanh", x, name)


def sigmoid(x: Any, name: str | None = None) -> Tensor:
    """Return 1 / (1 + exp(-x)).  Source: tf.sigmoid."""
    return _unary("Sigmoid", x, name)


def erf(x: Any, name: str | None = None) -> Tensor:
    """Return the error function of x.  Source: tf.erf."""
    return _unary("Erf", x, name)


def erfc(x: Any, name: str | None = None) -> Tensor:
    """Return 1 - erf(x), accurate for large x.  Source: tf.erfc."""
    return _unary("Erfc", x, name)


def lgamma(x: Any, name: str | None = None) -> Tensor:
    """Return the logarithm of |gamma(x)|.  Source: tf.lgamma."""
    return _unary("Lgamma", x, name)


def digamma(x: Any, name: str | None = None) -> Tensor:
    """Return the derivative of lgamma at x.  Source: tf.digamma."""
    return _unary("Digamma", x, name)


def floor(x: Any, name: str | None = None) -> Tensor:
    """Return the largest integer not above x.  Source: tf.floor."""
    return _unary("Floor", x, name)


def ceil(x: Any, name: str | None = None) -> Tensor:
    """Return the smallest integer not below x.  Source: tf.ceil."""
    return _unary("Ceil", x, name)


def rint(x: Any, name: str | None = None) -> Tensor:
    """Return the nearest integer, ties to even.  Source: tf.rint."""
    return _unary("Rint", x, name)


def round(x: Any, name: str | None = None) -> Tensor:
    """Return the nearest integer, ties to even; integers as they are.  Source: tf.round."""
    return _unary("Round", x, name)


def is_nan(x: Any, name: str | None = None) -> Tensor:
    """Return whether x is not a number.  Source: tf.is_nan."""
    return _unary("IsNan", x, name)


def is_inf(x: Any, name: str | None = None) -> Tensor:
    """Return whether x is infinite.  Source: tf.is_inf."""
    return _unary("IsInf", x, name)


def is_finite(x: Any, name: str | None = None) -> Tensor:
    """Return whether x is neither NaN nor infinite.  Source: tf.is_finite."""
    return _unary("IsFinite", x, name)


def logical_not(x: Any, name: str | None = None) -> Tensor:
    """Return the negation of a bool.  Source: tf.logical_not."""
    return _unary("LogicalNot", x, name)


def log_sigmoid(x: Any, name: str | None = None) -> Tensor:
    """Return log(sigmoid(x)), accurate for large negative x.  Source: tf.log_sigmoid."""
    with name_scope(name, "LogSigmoid", [x]) as scope:
        x = convert_to_tensor(x, name="x")
        return negative(typed(Tensor, create("Softplus", None, [negative(x)])), name=scope)


# -- of two operands, broadcast ---------------------------------------------------------------------------------------


def add(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x + y.  Source: tf.add."""
    return _binary("Add", x, y, name)


def subtract(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x - y.  Source: tf.subtract."""
    return _binary("Sub", x, y, name)


def multiply(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x * y.  Source: tf.multiply."""
    return _binary("Mul", x, y, name)


def floormod(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return the remainder of floordiv, with the sign of y.  Source: tf.floormod."""
    return _binary("FloorMod", x, y, name)


def truncatediv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x / y rounded towards zero, of integers.  Source: tf.truncatediv."""
    return _binary("TruncateDiv", x, y, name)


def truncatemod(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return the remainder of truncatediv, with the sign of x.  Source: tf.truncatemod."""
    return _binary("TruncateMod", x, y, name)


def realdiv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x / y of floats.  Source: tf.realdiv."""
    return _binary("RealDiv", x, y, name)


def pow(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x to the y.  Source: tf.pow."""
    return _binary("Pow", x, y, name)


def maximum(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return the larger of x and y.  Source: tf.maximum."""
    return _binary("Maximum", x, y, name)


def minimum(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return the smaller of x and y.  Source: tf.minimum."""
    return _binary("Minimum", x, y, name)


def squared_difference(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return (x - y) squared.  Source: tf.squared_difference."""
    return _binary("SquaredDifference", x, y, name)


def atan2(y: Any, x: Any, name: str | None = None) -> Tensor:
    """Return the angle of the point (y, x).  Source: tf.atan2."""
    return _binary("Atan2", y, x, name)


def div_no_nan(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x / y, and 0 where y is 0.  Source: tf.div_no_nan."""
    return _binary("DivNoNan", x, y, name)


def xlogy(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x * log(y), and 0 where x is 0.  Source: tf.xlogy."""
    return _binary("Xlogy", x, y, name)


def xdivy(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x / y, and 0 where x is 0.  Source: tf.xdivy."""
    return _binary("Xdivy", x, y, name)


def equal(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return whether x == y.  Source: tf.equal."""
    return _binary("Equal", x, y, name)


def not_equal(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return whether x != y.  Source: tf.not_equal."""
    return _binary("NotEqual", x, y, name)


def less(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return whether x < y.  Source: tf.less."""
    return _binary("Less", x, y, name)


def less_equal(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return whether x <= y.  Source: tf.less_equal."""
    return _binary("LessEqual", x, y, name)


def greater(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return whether x > y.  Source: tf.greater."""
    return _binary("Greater", x, y, name)


def greater_equal(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return whether x >= y.  Source: tf.greater_equal."""
    return _binary("GreaterEqual", x, y, name)


def logical_and(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return whether both hold.  Source: tf.logical_and."""
    return _binary("LogicalAnd", x, y, name)


def logical_or(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return whether one holds.  Source: tf.logical_or."""
    return _binary("LogicalOr", x, y, name)


def divide(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x / y as Python 3 divides: integers become floats.  Source: tf.divide."""
    return truediv(x, y, name)


_WIDE = {dtypes.int8: dtypes.float32, dtypes.uint8: dtypes.float32, dtypes.int16: dtypes.float32,
         dtypes.uint16: dtypes.float32,
         dtypes.int32: dtypes.float64, dtypes.int64: dtypes.float64, dtypes.uint32: dtypes.float64,
         dtypes.uint64: dtypes.float64}


def truediv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x / y; integers of up to 16 bits divide as float32, wider ones as float64.  Source: tf.truediv."""
    with name_scope(name, "truediv", [x, y]) as scope:
        a, b = matching(x, y)
        if a.dtype is b.dtype and a.dtype in _WIDE:
            a, b = cast(a, _WIDE[a.dtype]), cast(b, _WIDE[a.dtype])
        return typed(Tensor, create("RealDiv", scope, [a, b]))


def floordiv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x / y rounded down.  Source: tf.floordiv."""
    with name_scope(name, "floordiv", [x, y]) as scope:
        return typed(Tensor, create("FloorDiv", scope, matching(x, y)))


def div(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Return x / y as Python 2 divides: integers are rounded down.  Source: tf.div."""
    with name_scope(name, "div", [x, y]) as scope:
        a, b = matching(x, y)
        return typed(Tensor, create("RealDiv" if a.dtype.is_floating else "FloorDiv", scope, [a, b]))


def logical_xor(x: Any, y: Any, name: str = "LogicalXor") -> Tensor:
    """Return whether exactly one holds.  Source: tf.logical_xor."""
    return _binary("LogicalXor", x, y, name)


# -- dtypes -----------------------------------------------------------------------------------------------------------


def cast(x: Any, dtype: Any, name: str | None = None) -> Any:
    """Return x as `dtype` (rows keep their indices); x itself where it has that dtype.  Source: tf.cast."""
    wanted = dtypes.as_dtype(dtype)
    if isinstance(x, IndexedSlices):
        return IndexedSlices(cast(x.values, wanted, name), x.indices, x.dense_shape)
    if isinstance(x, Tensor) and x.dtype is wanted:
        return x
    with name_scope(name, "Cast", [x]) as scope:
        value = convert_to_tensor(x, name="x")
        return value if value.dtype is wanted else typed(Tensor, create("Cast", scope, [value], {"dtype": wanted}))


def to_float(x: Any, name: str = "ToFloat") -> Any:
    """Return cast(x, float32).  Source: tf.to_float."""
    return cast(x, dtypes.float32, name)


def to_double(x: Any, name: str = "ToDouble") -> Any:
    """Return cast(x, float64).  Source: tf.to_double."""
    return cast(x, dtypes.float64, name)


def to_int32(x: Any, name: str = "ToInt32") -> Any:
    """Return cast(x, int32).  Source: tf.to_int32."""
    return cast(x, dtypes.int32, name)


def to_int64(x: Any, name: str = "ToInt64") -> Any:
    """Return cast(x, int64).  Source: tf.to_int64."""
    return cast(x, dtypes.int64, name)


def to_bfloat16(x: Any, name: str = "ToBFloat16") -> Any:
    """Return cast(x, bfloat16).  Source: tf.to_bfloat16."""
    return cast(x, dtypes.bfloat16, name)


def saturate_cast(value: Any, dtype: Any, name: str | None = None) -> Tensor:
    """Return `value` as `dtype`, limited to its range.  Source: tf.saturate_cast."""
    wanted = dtypes.as_dtype(dtype)
    with name_scope(name, "saturate_cast", [value]) as scope:
        x = convert_to_tensor(value, name="value")
        if float(x.dtype.min) < float(wanted.min):
            x = maximum(x, convert_to_tensor(wanted.min, x.dtype, "min"))
        if float(x.dtype.max) > float(wanted.max):
            x = minimum(x, convert_to_tensor(wanted.max, x.dtype, "max"))
        return typed(Tensor, cast(x, wanted, scope))


def bitcast(input: Any, type: Any, name: str | None = None) -> Tensor:
    """Return the same bits as another dtype of the same width.  Source: tf.bitcast."""
    with name_scope(name, "Bitcast", [input]) as scope:
        return typed(Tensor, create("Bitcast", scope, [convert_to_tensor(input)], {"type": dtypes.as_dtype(type)}))


# -- of several -------------------------------------------------------------------------------------------------------


def add_n(inputs: Sequence[Any], name: str | None = None) -> Tensor:
    """Return the sum of tensors of one shape and dtype.  Raises ShapeError for none.  Source: tf.add_n."""
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise at_user(ShapeError, "add_n: the inputs must be a list of at least one tensor")
    with name_scope(name, "AddN", inputs) as scope:
        values = convert_n_to_tensor(inputs)
        return typed(Tensor, create("AddN", scope, values) if len(values) > 1 or name else values[0])


def accumulate_n(inputs: Sequence[Any], shape: Any = None, tensor_dtype: Any = None, name: str | None = None) -> Tensor:
    """Return the sum of tensors of one shape, which must be `shape` where that is given.  Source: tf.accumulate_n."""
    total = add_n(inputs, name)
    if tensor_dtype is not None and total.dtype is not dtypes.as_dtype(tensor_dtype):
        raise at_user(DTypeError, f"accumulate_n: the tensors are not {dtypes.as_dtype(tensor_dtype).name}", [total])
    if shape is not None:
        total.set_shape(shape)
    return total


def check_numerics(tensor: Any, message: str, name: str | None = None) -> Tensor:
    """Return `tensor`; the run fails with `message` where it holds a NaN or infinity.  Source: tf.check_numerics."""
    with name_scope(name, "CheckNumerics", [tensor]) as scope:
        return typed(Tensor, create("CheckNumerics", scope, [convert_to_tensor(tensor)], {"message": message}))
