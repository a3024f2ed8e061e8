"""The oracle: runs a Function op by op on the NumPy references.

Owns what a Function means.  Floats are computed in float64 and rounded to each op's output dtype, integers and bools
exactly.  Knows ops, sizes and arrays; knows no kernels and no machines.  Invariant: nothing is optimised here; where a
backend and this file disagree beyond the stated tolerances, the backend is wrong.

Arrays outside have each dtype's `as_numpy_dtype` (bfloat16 is float32 with bfloat16 values).
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import InternalError, InvalidArgumentError, ShapeError, report
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.function import Function, Node, Value
from graphc.ir.infer import loop_length, loop_parts
from graphc.ir.types import TensorType, Type
from graphc.ops.base import Call, InvalidValue, Kind, Op

Array: TypeAlias = "np.ndarray[Any, Any]"
Observer: TypeAlias = Callable[[Node, Sequence[Array], Sequence[Array]], None]
Sizes: TypeAlias = dict[str, int]


def evaluate(function: Function, feeds: Sequence[Any], states: Sequence[Any] = (),
             observer: Observer | None = None) -> tuple[list[Array], list[Array]]:
    """Run `function` and return (fetches, updates).

    observer(node, inputs, outputs) is called after every op, those of bodies included.  Raises ShapeError where the
    feeds do not fit the types or a condition does not hold, InvalidArgumentError where an op meets a value that it does
    not allow.
    """
    if len(feeds) != len(function.feeds) or len(states) != len(function.states):
        raise ShapeError(f"@{function.name} takes {len(function.feeds)} feeds and {len(function.states)} states, "
                         f"{len(feeds)} and {len(states)} are given")
    arrays = [as_array(a, v.type) for a, v in zip((*feeds, *states), function.inputs, strict=True)]
    sizes = bind(function, arrays)
    results = _Run(sizes, observer, function.lines).call(function, arrays)
    return results[:len(function.fetches)], results[len(function.fetches):]


def as_array(value: Any, type: Type) -> Array:
    """Return `value` as the array that a value of `type` is outside."""
    if not isinstance(type, TensorType):
        return np.asarray(value, object)
    return np.asarray(value, type.dtype.as_numpy_dtype)


def bind(function: Function, arrays: Sequence[Array]) -> Sizes:
    """Return the number of every size symbol, given the arrays of feeds and states; checks shapes and conditions."""
    sizes: Sizes = {}
    for s in function.sources:
        a = arrays[s.feed]
        if s.axis >= a.ndim:
            raise ShapeError(f"feed {s.feed} has no axis {s.axis}")
        sizes[s.symbol] = a.shape[s.axis] if s.axis >= 0 else int(a.reshape(-1)[s.element])
        if sizes[s.symbol] < 0:
            raise ShapeError(f"the size {s.symbol} is {sizes[s.symbol]}: element {s.element} of feed {s.feed}")
    for v, a in zip(function.inputs, arrays, strict=True):
        if isinstance(v.type, TensorType) and len(v.type.shape) == a.ndim:
            for n, found in zip(v.type.shape, a.shape, strict=True):
                if isinstance(n, Dim) and n.is_symbol:
                    sizes.setdefault(n.name, found)
    for c in function.conditions:
        left, right = dim.evaluate(c.left, sizes), dim.evaluate(c.right, sizes)
        holds = {"equal": left == right, "assume": left == right, "at_most": left <= right,
                 "divides": right != 0 and left % right == 0}[c.kind]
        if not holds:
            raise ShapeError(f"{c.op}: {c.message.replace('{left}', str(left)).replace('{right}', str(right))}")
    for i, (v, a) in enumerate(zip(function.inputs, arrays, strict=True)):
        if isinstance(v.type, TensorType):
            wanted = tuple(dim.evaluate(n, sizes) for n in v.type.shape)
            if wanted != a.shape:
                raise ShapeError(f"@{function.name}: input {i} has the shape {a.shape}, expected {wanted} ({v.type})")
    return sizes


def round_to(values: Any, dtype: DType) -> Array:
    """Return wide `values` rounded to `dtype`, in the form they have outside; integers wrap."""
    array = np.asarray(values)
    with np.errstate(all="ignore"):
        if dtype is dtypes.bfloat16:
            return dtypes.round_to_bfloat16(_to_odd(array))
        return array.astype(dtype.as_numpy_dtype)


def _to_odd(values: Array) -> Array:
    """float64 -> float32 rounded to odd, so that rounding once more to bfloat16 gives the nearest."""
    wide = np.asarray(values, np.float64)
    near = wide.astype(np.float32)
    even = (near.view(np.uint32) if near.ndim else near.reshape(1).view(np.uint32).reshape(())) & 1 == 0
    other = np.nextafter(near, np.where(wide > near, np.float32(np.inf), np.float32(-np.inf)))
    return np.where(even & (near != wide) & np.isfinite(near), other, near).astype(np.float32)


def widen(array: Array, dtype: DType) -> Array:
    """Return `array` as references see it: floats as float64."""
    return array.astype(np.float64) if dtype.is_floating else array


def apply(op: Op, arrays: Sequence[Array], in_types: Sequence[TensorType], attrs: Mapping[str, Any],
          out_types: Sequence[TensorType]) -> list[Array]:
    """Return the outputs of `op`'s reference on arrays as they are outside; all types and attrs are concrete."""
    wide = [widen(a, t.dtype) for a, t in zip(arrays, in_types, strict=True)]
    with np.errstate(all="ignore"):
        result = op.reference(Call(wide, attrs, in_types, out_types))
    results = result if isinstance(result, (tuple, list)) else (result,)
    if len(results) != len(out_types):
        raise InternalError(f"{op.name}: the reference gives {len(results)} results, its types are {len(out_types)}")
    return [round_to(r, t.dtype) for r, t in zip(results, out_types, strict=True)]


def resolve_attr(value: Any, sizes: Mapping[str, int]) -> Any:
    """Return an attr with every size in it as a number."""
    if isinstance(value, Dim):
        return value.evaluate(sizes)
    if isinstance(value, tuple) and any(isinstance(v, (Dim, tuple)) for v in value):
        return tuple(resolve_attr(v, sizes) for v in value)
    return value


class _Run:
    """One run: the numbers of the size symbols, which bodies share, the observer, and the user's lines."""

    def __init__(self, sizes: Sizes, observer: Observer | None, lines: Mapping[str, str]) -> None:
        self.sizes = sizes
        self.observer = observer
        self.lines = lines

    def call(self, f: Function, arrays: Sequence[Array]) -> list[Array]:
        """The results (fetches, updates) of `f`.  Recursion follows the nesting of bodies alone."""
        values: dict[Value, Array] = dict(zip(f.inputs, arrays, strict=True))
        for node in f.nodes:
            inputs = [values[v] for v in node.inputs]
            outputs = self._node(node, inputs)
            for v, a in zip(node.outputs, outputs, strict=True):
                self._check_shape(node, v, a)
                values[v] = a
            if self.observer is not None:
                self.observer(node, inputs, outputs)
        return [values[v] for v in f.results]

    def _node(self, node: Node, inputs: list[Array]) -> list[Array]:
        if node.op.kind is Kind.STRUCTURED:
            match node.op.name:
                case "Loop":
                    return self._loop(node, inputs)
                case "Cond":
                    return self.call(node.attrs["then" if bool(inputs[0]) else "orelse"], inputs[1:])
                case "Fusion":
                    return self.call(node.attrs["body"], inputs)
                case name:
                    raise InternalError(f"the structured op {name} has no meaning here")
        if node.op.kind is Kind.HOST:
            return self._host(node, inputs)
        return self._applied(node, inputs, [v.tensor for v in node.inputs], [v.tensor for v in node.outputs])

    def _applied(self, node: Node, inputs: Sequence[Array], given: Sequence[TensorType],
                 wanted: Sequence[TensorType]) -> list[Array]:
        """The reference of a node's op on concrete types."""
        attrs = {name: resolve_attr(value, self.sizes) for name, value in node.attrs.items()}
        in_types = [TensorType(t.dtype, a.shape) for t, a in zip(given, inputs, strict=True)]
        out_types = [TensorType(t.dtype, tuple(map(self._size, t.shape))) for t in wanted]
        try:
            return apply(node.op, inputs, in_types, attrs, out_types)
        except InvalidValue as error:
            made = node.origin[0] if node.origin else node.op.name
            raise InvalidArgumentError(None, None, report(f"{made}: {error}", self.lines.get(made))) from error

    def _host(self, node: Node, inputs: list[Array]) -> list[Array]:
        """A call of Python: the reference on what it is given, without the order token, which comes last."""
        given = [a for v, a in zip(node.inputs, inputs, strict=True) if isinstance(v.type, TensorType)]
        in_types = [v.type for v in node.inputs if isinstance(v.type, TensorType)]
        out_types = [v.type for v in node.outputs if isinstance(v.type, TensorType)]
        results = self._applied(node, given, in_types, out_types) if given or out_types else []
        return [*results, *(np.empty((), object) for v in node.outputs if not isinstance(v.type, TensorType))]

    def _size(self, size: Size) -> int:
        return size if isinstance(size, int) else size.evaluate(self.sizes)

    def _check_shape(self, node: Node, value: Value, array: Array) -> None:
        if not isinstance(value.type, TensorType):
            return
        wanted = tuple(map(self._size, value.type.shape))
        if array.shape != wanted:
            raise InternalError(
                f"{node.op.name}: the reference gives the shape {array.shape}, the type is {value.type}")

    def _loop(self, node: Node, inputs: list[Array]) -> list[Array]:
        attrs = node.attrs
        carried, xs, _, ys = loop_parts(attrs)
        count = int(inputs[0])
        state = inputs[1:1 + carried]
        stacked = inputs[1 + carried:1 + carried + xs]
        captures = inputs[1 + carried + xs:]
        reverse, condition = bool(attrs.get("reverse")), bool(attrs.get("while"))
        rows = node.outputs[carried:carried + ys]
        length = self._size(loop_length([v.type for v in node.inputs], attrs)) if ys else 0
        out = [np.zeros((length, *map(self._size, v.tensor.shape[1:])), v.tensor.dtype.as_numpy_dtype) for v in rows]
        go = bool(self.call(attrs["cond"], [*state, *captures])[0]) if condition else True
        taken = 0
        while go and taken < count:
            row = count - 1 - taken if reverse else taken
            rows_now = (x[row] for x in stacked)
            results = self.call(attrs["body"], [np.asarray(taken, np.int64), *state, *rows_now, *captures])
            if condition:
                go, results = bool(results[0]), results[1:]
            state = results[:carried]
            for y, value in zip(out, results[carried:], strict=True):
                y[row] = value
            taken += 1
        return [*state, *out, np.asarray(taken, np.int64)]
