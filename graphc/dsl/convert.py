"""From Python values to tensors: TensorFlow 1's rules of dtypes.

Owns `constant` and `convert_to_tensor`.  Invariants: tensors are never promoted; a Python number takes the dtype that
is asked for, else int32 (int64 where it does not fit) or float32; a NumPy array keeps its dtype.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc import dtypes, source
from graphc.dsl.scope import create, graph_of, has_tensor, name_scope
from graphc.dtypes import DType, as_dtype
from graphc.errors import DTypeError, ShapeError, report
from graphc.graph.graph import get_default_graph, graphs
from graphc.graph.operation import at_user, describe_operands
from graphc.graph.shape import Dimension, TensorShape, as_shape
from graphc.graph.tensor import IndexedSlices, Tensor


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str = "Const",
             verify_shape: bool = False) -> Tensor:
    """Return a constant tensor.

    shape: the value is repeated (its last element, row-major) to fill it; with verify_shape it must have that shape.
    Raises DTypeError, ShapeError.  Source: tf.constant.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    found, actual = _array(value, wanted)
    if shape is not None:
        found = _shaped(found, TensorShape(shape), verify_shape)
    found.setflags(write=False)
    return cast(Tensor, create("Const", name, (), {"value": found, "dtype": actual}))


def _array(value: Any, wanted: DType | None) -> tuple[np.ndarray[Any, Any], DType]:
    """Return an own array of `value` and its dtype."""
    if isinstance(value, (np.ndarray, np.generic)):
        actual = wanted or _dtype_of(value)
        found = np.array(value, dtype=actual.as_numpy_dtype)
    else:
        found, actual = _from_python(value, wanted)
    return (dtypes.round_to_bfloat16(found) if actual is dtypes.bfloat16 else found), actual


def _dtype_of(value: Any) -> DType:
    try:
        return as_dtype(value.dtype)
    except TypeError:
        raise DTypeError(report(f"a NumPy array of {value.dtype} has no dtype among tensors", str(source.capture()),
                                hint=f"dtypes: {', '.join(d.name for d in dtypes.ALL)}")) from None


def _from_python(value: Any, wanted: DType | None) -> tuple[np.ndarray[Any, Any], DType]:
    if value is None:
        raise DTypeError(report("None is not a value of a tensor", str(source.capture())))
    if isinstance(value, Dimension):
        value = int(value)
    elif isinstance(value, TensorShape):
        value = [int(d) for d in value]
    try:
        found = np.array(value)
    except ValueError:
        raise ShapeError(report(f"the rows of {_short(value)} have different lengths", str(source.capture()))) from None
    if found.dtype.kind in "OUS" or found.dtype.kind == "c":
        raise DTypeError(report(f"{_short(value)} is not a value of a tensor: numbers and bools are, not "
                                f"{_kind_of(value)}", str(source.capture())))
    if wanted is None:
        return _default(found)
    if found.size and not _fits(found.dtype.kind, wanted):
        raise DTypeError(report(f"{_short(value)} is {_kind_of(value)}, but {wanted.name} is expected",
                                str(source.capture()),
                                hint=f"write it as {wanted.name}, or use tf.cast"))
    if wanted.is_integer and found.size and (found.min() < wanted.min or found.max() > wanted.max):
        raise DTypeError(report(f"{_short(value)} does not fit {wanted.name}, which holds {wanted.min} to {wanted.max}",
                                str(source.capture())))
    return found.astype(wanted.as_numpy_dtype), wanted


def _fits(kind: str, wanted: DType) -> bool:
    """Whether Python values of NumPy's kind `kind` may become `wanted`: ints as floats, never the other way."""
    if wanted.is_bool or kind == "b":
        return wanted.is_bool and kind == "b"
    return wanted.is_floating or kind in "iu"


def _default(found: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], DType]:
    """The dtype of Python numbers that nothing else decides: float32, int32 where all fit, else int64."""
    if found.dtype == np.float64:
        return found.astype(np.float32), dtypes.float32
    if found.dtype == np.int64:
        narrow = found.astype(np.int32)
        return (narrow, dtypes.int32) if np.array_equal(narrow, found) else (found, dtypes.int64)
    return found, _dtype_of(found)


def _shaped(found: np.ndarray[Any, Any], shape: TensorShape, verify: bool) -> np.ndarray[Any, Any]:
    sizes = tuple(int(d) for d in shape)
    if found.shape == sizes:
        return found
    count = int(np.prod(sizes, dtype=np.int64))
    if verify or found.size > count or (found.size == 0 and count):
        raise ShapeError(report(f"constant: a value of shape {as_shape(found.shape)} cannot fill the shape {shape}",
                                str(source.capture())))
    flat = found.reshape(-1)
    filled = np.full(count, flat[-1] if flat.size else 0, found.dtype)
    filled[:flat.size] = flat
    return filled.reshape(sizes)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _kind_of(value: Any) -> str:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return f"of type {type(value).__name__}"


def convert_to_tensor(value: Any, dtype: Any = None, name: str | None = None, preferred_dtype: Any = None,
                      dtype_hint: Any = None) -> Tensor:
    """Return `value` as a tensor: a tensor as it is, a variable's content, a list of tensors packed, a constant.

    dtype: required (DTypeError for a tensor of another one).  preferred_dtype, dtype_hint: taken where the value allows
    it.  Source: tf.convert_to_tensor.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    convert = getattr(value, "_as_tensor", None)
    if convert is not None:
        value = convert()
    if isinstance(value, Tensor):
        if wanted is not None and value.dtype is not wanted:
            raise DTypeError(report(f"{value.dtype.name} is given where {wanted.name} is expected",
                                    str(source.capture()),
                                    describe_operands([value]), f"convert it: tf.cast(x, tf.{wanted.name})"))
        return value
    if isinstance(value, IndexedSlices):
        return densify(value, name)
    hint = preferred_dtype if preferred_dtype is not None else dtype_hint
    if wanted is None and hint is not None:
        try:
            return convert_to_tensor(value, hint, name)
        except (TypeError, ValueError):
            return convert_to_tensor(value, None, name)
    if isinstance(value, (list, tuple)) and has_tensor(value):
        return _pack(value, wanted, name)
    return constant(value, wanted, name=name or "Const")


def _pack(values: Sequence[Any], wanted: DType | None, name: str | None) -> Tensor:
    """Return a list with tensors in it as one tensor; its numbers take the tensors' dtype."""
    wanted = wanted or _dtype_within(values)
    with name_scope(name, "packed", values) as scope:
        rows = [convert_to_tensor(v, wanted, str(i)) for i, v in enumerate(values)]
        return cast(Tensor, create("Pack", scope, rows, {"axis": 0}))


def _dtype_within(values: Any) -> DType | None:
    for v in values:
        if isinstance(v, (list, tuple)):
            found = _dtype_within(v)
        else:
            found = getattr(v, "dtype", None) if has_tensor(v) else None
        if found is not None:
            return found
    return None


def densify(slices: IndexedSlices, name: str | None = None) -> Tensor:
    """Return rows as the dense tensor that they stand for; equal indices add up.  Raises ShapeError."""
    if slices.dense_shape is None:
        raise at_user(ShapeError, f"{slices} cannot become a tensor: its dense_shape is not known")
    with name_scope(name, "Densify", [slices.values]) as scope:
        known = slices.dense_shape.value
        rows = known[0] if known is not None else create("StridedSlice", "rows", [slices.dense_shape], {
            "begin": (0,), "end": (1,), "strides": (1,), "shrink_axis_mask": 1})
        return cast(Tensor, create("UnsortedSegmentSum", scope, [slices.values, slices.indices, rows]))


def convert_n_to_tensor(values: Sequence[Any], dtype: Any = None, name: str | None = None) -> list[Tensor]:
    """Return each of `values` as a tensor; numbers take the dtype of the first tensor among them."""
    wanted = dtype if dtype is not None else next((v.dtype for v in values if has_tensor(v) and hasattr(v, "dtype")),
                                                  None)
    return [convert_to_tensor(v, None if has_tensor(v) and dtype is None else wanted,
                              f"{name}_{i}" if name else None) for i, v in enumerate(values)]


def matching(x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> tuple[Tensor, Tensor]:
    """Return two operands as tensors: a value that is not a tensor takes the dtype of the one that is."""
    if has_tensor(y) and not has_tensor(x):
        b = convert_to_tensor(y, name=names[1])
        return convert_to_tensor(x, b.dtype, names[0]), b
    a = convert_to_tensor(x, name=names[0])
    if isinstance(y, Tensor) or hasattr(y, "_as_tensor"):
        return a, convert_to_tensor(y, name=names[1])  # the op itself tells the two dtypes apart, with both operands
    if not has_tensor(x) and not isinstance(x, (np.ndarray, np.generic)):
        b = convert_to_tensor(y, name=names[1], preferred_dtype=a.dtype)
        return (a, b) if a.dtype is b.dtype else (convert_to_tensor(x, b.dtype, names[0]), b)
    return a, convert_to_tensor(y, a.dtype, names[1])


def internal_convert(value: Any, dtype: Any = None, name: str | None = None) -> Any:
    """Return `value` as a tensor, but rows (IndexedSlices) and None as they are."""
    return value if value is None or isinstance(value, IndexedSlices) else convert_to_tensor(value, dtype, name)


def in_graph_of(*values: Any) -> Any:
    """Enter the graph of the first graph element among `values` as the default."""
    graph = graph_of(values)
    return graphs.entered(graph if graph is not None else get_default_graph())
