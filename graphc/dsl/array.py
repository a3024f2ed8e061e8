"""Making, shaping, joining and indexing tensors.

Owns TensorFlow 1's names for them, its older argument names included.  Must not know arithmetic.
Invariant: sizes given as Python numbers are known to the program; sizes given as tensors are symbols of it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc import dtypes
from graphc.dsl.control import identity, stop_gradient
from graphc.dsl.convert import constant, convert_n_to_tensor, convert_to_tensor, matching
from graphc.dsl.indexing import confusion_matrix, gather, gather_nd, one_hot, scatter_nd, slice_, strided_slice
from graphc.dsl.reduction import older_name, static_axis
from graphc.dsl.scope import create, has_tensor, name_scope, plain
from graphc.errors import GraphError, ShapeError
from graphc.graph.graph import get_default_graph
from graphc.graph.operation import at_user
from graphc.graph.shape import TensorShape
from graphc.graph.tensor import Tensor

__all__ = ["boolean_mask", "broadcast_dynamic_shape", "broadcast_to", "concat", "confusion_matrix", "constant", "diag",
           "diag_part", "expand_dims", "eye", "fill", "gather", "gather_nd", "identity", "invert_permutation",
           "linspace", "matrix_band_part", "matrix_diag", "matrix_diag_part", "matrix_transpose", "meshgrid", "one_hot",
           "ones", "ones_like", "pack", "pad", "placeholder", "placeholder_with_default", "range_", "rank", "reshape",
           "reverse", "roll", "scatter_nd", "sequence_mask", "shape", "shape_n", "size", "slice_", "split", "squeeze",
           "stack", "stop_gradient", "strided_slice", "tile", "transpose", "unpack", "unstack", "where", "where_v2",
           "zeros", "zeros_like"]


# -- sources ----------------------------------------------------------------------------------------------------------


def placeholder(dtype: Any, shape: Any = None, name: str | None = None) -> Tensor:
    """Return a tensor that each run feeds.  shape: None where unknown, with None for sizes unknown.

    Source: tf.placeholder.
    """
    sizes = TensorShape(shape).sizes
    return get_default_graph().create_op("Placeholder", (), {"dtype": dtypes.as_dtype(dtype), "shape": sizes},
                                         name).output


def placeholder_with_default(input: Any, shape: Any, name: str | None = None) -> Tensor:
    """Return a tensor that a run may feed, else `input`.  Source: tf.placeholder_with_default."""
    with name_scope(name, "PlaceholderWithDefault", [input]) as scope:
        return cast(Tensor, create("PlaceholderWithDefault", scope, [convert_to_tensor(input, name="input")],
                                   {"shape": TensorShape(shape).sizes}))


def static_sizes(sizes: Any) -> Any:
    """Return a shape argument: a tuple of ints where it is plain (an int: of one), else an integer tensor."""
    value = plain(sizes)
    if isinstance(value, int):
        return (value,)
    if isinstance(value, tuple) and not has_tensor(value):
        return value
    if isinstance(value, (list, tuple)) and not value:
        return ()
    tensor = convert_to_tensor(value, name="shape")
    if tensor.dtype not in (dtypes.int32, dtypes.int64):
        raise at_user(ShapeError, f"a shape must be made of integers, but {tensor.name} is {tensor.dtype.name}",
                      [tensor])
    return tensor


def fill(dims: Any, value: Any, name: str | None = None) -> Tensor:
    """Return a tensor of shape `dims` whose elements are the scalar `value`.  Source: tf.fill."""
    with name_scope(name, "Fill", [dims, value]) as scope:
        return cast(Tensor, create("Fill", scope, [static_sizes(dims), convert_to_tensor(value, name="value")]))


def zeros(shape: Any, dtype: Any = dtypes.float32, name: str | None = None) -> Tensor:
    """Return zeros (False for bool).  Source: tf.zeros."""
    return _filled(0, shape, dtype, name, "zeros")


def ones(shape: Any, dtype: Any = dtypes.float32, name: str | None = None) -> Tensor:
    """Return ones (True for bool).  Source: tf.ones."""
    return _filled(1, shape, dtype, name, "ones")


def _filled(value: int, shape: Any, dtype: Any, name: str | None, default: str) -> Tensor:
    wanted = dtypes.as_dtype(dtype)
    with name_scope(name, default, [shape]) as scope:
        sizes = static_sizes(shape)
        one = constant(bool(value) if wanted.is_bool else value, wanted, name="Const")
        return cast(Tensor, create("Fill", scope, [sizes, one]))


def zeros_like(tensor: Any, dtype: Any = None, name: str | None = None, optimize: bool = True) -> Tensor:
    """Return zeros of a tensor's shape, and its dtype where none is given.  Source: tf.zeros_like."""
    return _like("ZerosLike", 0, tensor, dtype, name, "zeros_like")


def ones_like(tensor: Any, dtype: Any = None, name: str | None = None, optimize: bool = True) -> Tensor:
    """Return ones of a tensor's shape, and its dtype where none is given.  Source: tf.ones_like."""
    return _like("OnesLike", 1, tensor, dtype, name, "ones_like")


def _like(op_type: str, value: int, tensor: Any, dtype: Any, name: str | None, default: str) -> Tensor:
    with name_scope(name, default, [tensor]) as scope:
        x = convert_to_tensor(tensor, name="tensor")
        wanted = x.dtype if dtype is None else dtypes.as_dtype(dtype)
        if wanted is x.dtype:
            return cast(Tensor, create(op_type, scope, [x]))
        return _filled(value, shape(x), wanted, scope, default)


def linspace(start: Any, stop: Any, num: Any, name: str | None = None) -> Tensor:
    """Return `num` evenly spaced numbers from start to stop.  Source: tf.linspace."""
    with name_scope(name, "LinSpace", [start, stop, num]) as scope:
        low, high = matching(start, stop, ("start", "stop"))
        return cast(Tensor, create("LinSpace", scope, [low, high, static_axis(num)]))


def range_(start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None, name: str | None = None) -> Tensor:
    """Return start, start + delta ... before limit (0 ... before start where limit is None).  Source: tf.range."""
    if limit is None:
        start, limit = 0, start
    with name_scope(name, "range", [start, limit, delta]) as scope:
        parts = [plain(v) for v in (start, limit, delta)]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in parts):
            kind = dtypes.as_dtype(dtype) if dtype is not None else \
                dtypes.float32 if any(isinstance(v, float) for v in parts) else dtypes.int32
            values = [float(v) if kind.is_floating else int(v) for v in parts]
            return cast(Tensor, create("Range", scope, values, {"dtype": kind}))
        tensors = [convert_to_tensor(v, dtype, n) if has_tensor(v) else v
                   for v, n in zip(parts, ("start", "limit", "delta"), strict=True)]
        kind = next(t.dtype for t in tensors if isinstance(t, Tensor))
        return cast(Tensor, create("Range", scope, [convert_to_tensor(t, kind) for t in tensors], {"dtype": kind}))


def eye(num_rows: Any, num_columns: Any = None, batch_shape: Any = None, dtype: Any = dtypes.float32,
        name: str | None = None) -> Tensor:
    """Return the identity matrix, repeated over `batch_shape`.  Source: tf.eye."""
    with name_scope(name, "eye", [num_rows, num_columns]) as scope:
        rows, columns = plain(num_rows), plain(num_rows if num_columns is None else num_columns)
        whole = stack([rows, columns]) if has_tensor(rows) or has_tensor(columns) else (rows, columns)
        grid = [create("Iota", None, [whole], {"axis": axis, "dtype": dtypes.int32}) for axis in (0, 1)]
        matrix = create("Cast", None if batch_shape is not None else scope, [create("Equal", None, grid)],
                        {"dtype": dtypes.as_dtype(dtype)})
        if batch_shape is None:
            return cast(Tensor, matrix)
        lead = static_sizes(batch_shape)
        target = (*lead, *whole) if isinstance(lead, tuple) and isinstance(whole, tuple) else concat([lead, whole], 0)
        return broadcast_to(matrix, target, scope)


# -- sizes ------------------------------------------------------------------------------------------------------------


def shape(input: Any, name: str | None = None, out_type: Any = dtypes.int32) -> Tensor:
    """Return the sizes of a tensor as a vector.  Source: tf.shape."""
    with name_scope(name, "Shape", [input]) as scope:
        return cast(Tensor, create("Shape", scope, [convert_to_tensor(input)], {"out_type": dtypes.as_dtype(out_type)}))


def shape_n(input: Sequence[Any], out_type: Any = dtypes.int32, name: str | None = None) -> list[Tensor]:
    """Return the sizes of each tensor.  Source: tf.shape_n."""
    with name_scope(name, "ShapeN", input):
        return [shape(x, out_type=out_type) for x in input]


def size(input: Any, name: str | None = None, out_type: Any = dtypes.int32) -> Tensor:
    """Return the number of elements of a tensor.  Source: tf.size."""
    with name_scope(name, "Size", [input]) as scope:
        return cast(Tensor, create("Size", scope, [convert_to_tensor(input)], {"out_type": dtypes.as_dtype(out_type)}))


def rank(input: Any, name: str | None = None) -> Tensor:
    """Return the number of axes of a tensor.  Source: tf.rank."""
    with name_scope(name, "Rank", [input]) as scope:
        return cast(Tensor, create("Rank", scope, [convert_to_tensor(input)]))


def broadcast_dynamic_shape(shape_x: Any, shape_y: Any) -> Tensor:
    """Return the shape that two shapes of one length broadcast to.  Source: tf.broadcast_dynamic_shape."""
    x, y = matching(shape_x, shape_y)
    return cast(Tensor, create("Maximum", None, [x, y]))


# -- shapes -----------------------------------------------------------------------------------------------------------


def reshape(tensor: Any, shape: Any, name: str | None = None) -> Tensor:
    """Return the elements, in row-major order, under another shape; one size may be -1.  Source: tf.reshape."""
    with name_scope(name, "Reshape", [tensor, shape]) as scope:
        return cast(Tensor, create("Reshape", scope, [convert_to_tensor(tensor, name="tensor"), static_sizes(shape)]))


def transpose(a: Any, perm: Any = None, name: str = "transpose", conjugate: bool = False) -> Tensor:
    """Return the tensor with its axes in the order `perm` (reversed).  Source: tf.transpose."""
    with name_scope(name, "transpose", [a]) as scope:
        x = convert_to_tensor(a, name="a")
        if perm is not None:
            order = plain(perm)
            order = order if isinstance(order, tuple) else convert_to_tensor(order, name="perm")
        elif x.shape.ndims is not None:
            order = tuple(range(x.shape.ndims))[::-1]
        else:
            raise at_user(ShapeError, f"transpose: the rank of {x.name} is not known; give perm", [x])
        return cast(Tensor, create("Transpose", scope, [x, order]))


def matrix_transpose(a: Any, name: str = "matrix_transpose") -> Tensor:
    """Return the tensor with its last two axes exchanged.  Source: tf.matrix_transpose."""
    x = convert_to_tensor(a)
    count = x.shape.ndims
    if count is None or count < 2:
        raise at_user(ShapeError, f"matrix_transpose: {x.shape} must have rank 2 or more", [x])
    return transpose(x, (*range(count - 2), count - 1, count - 2), name)


def expand_dims(input: Any, axis: Any = None, name: str | None = None, dim: Any = None) -> Tensor:
    """Return the tensor with a new axis of size 1.  Source: tf.expand_dims."""
    axis = older_name("axis", axis, "dim", dim)
    if axis is None:
        raise at_user(GraphError, "expand_dims: axis is missing")
    with name_scope(name, "ExpandDims", [input]) as scope:
        return cast(Tensor, create("ExpandDims", scope, [convert_to_tensor(input, name="input"), static_axis(axis)]))


def squeeze(input: Any, axis: Any = None, name: str | None = None, squeeze_dims: Any = None) -> Tensor:
    """Return the tensor without axes of size 1: those given, or all.  Source: tf.squeeze."""
    axes = plain(older_name("axis", axis, "squeeze_dims", squeeze_dims))
    with name_scope(name, "Squeeze", [input]) as scope:
        chosen = () if axes is None else (axes,) if isinstance(axes, int) else axes
        return cast(Tensor, create("Squeeze", scope, [convert_to_tensor(input, name="input")], {"axis": chosen}))


def broadcast_to(input: Any, shape: Any, name: str | None = None) -> Tensor:
    """Return the tensor repeated to `shape` as broadcasting does.  Source: tf.broadcast_to."""
    with name_scope(name, "BroadcastTo", [input, shape]) as scope:
        return cast(Tensor, create("BroadcastTo", scope, [convert_to_tensor(input, name="input"), static_sizes(shape)]))


def tile(input: Any, multiples: Any, name: str | None = None) -> Tensor:
    """Return the tensor repeated `multiples` times along each axis.  Source: tf.tile."""
    with name_scope(name, "Tile", [input, multiples]) as scope:
        return cast(Tensor, create("Tile", scope, [convert_to_tensor(input, name="input"), static_sizes(multiples)]))


def pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", name: str | None = None,
        constant_values: Any = 0) -> Tensor:
    """Return the tensor with paddings (before, after) on each axis.

    mode: "CONSTANT", "REFLECT" or "SYMMETRIC".  Source: tf.pad.
    """
    kind = mode.upper()
    if kind not in ("CONSTANT", "REFLECT", "SYMMETRIC"):
        raise at_user(GraphError, f"pad: mode must be 'CONSTANT', 'REFLECT' or 'SYMMETRIC', not {mode!r}")
    with name_scope(name, "Pad", [tensor, paddings]) as scope:
        x = convert_to_tensor(tensor, name="tensor")
        sides = plain(paddings)
        sides = sides if isinstance(sides, tuple) else convert_to_tensor(sides, name="paddings")
        if kind != "CONSTANT":
            return cast(Tensor, create("MirrorPad", scope, [x, sides], {"mode": kind}))
        if isinstance(constant_values, (int, float)) and constant_values == 0:
            return cast(Tensor, create("Pad", scope, [x, sides]))
        return cast(Tensor, create("PadV2", scope, [x, sides, convert_to_tensor(constant_values, x.dtype)]))


def reverse(tensor: Any, axis: Any, name: str | None = None) -> Tensor:
    """Return the tensor with the order along each of the axes reversed.  Source: tf.reverse."""
    with name_scope(name, "ReverseV2", [tensor]) as scope:
        axes = static_axis(axis)
        return cast(Tensor, create("ReverseV2", scope, [convert_to_tensor(tensor, name="tensor"),
                                                        (axes,) if isinstance(axes, int) else axes]))


def roll(input: Any, shift: Any, axis: Any, name: str | None = None) -> Tensor:
    """Return the tensor shifted along axes, what leaves at one end entering at the other.  Source: tf.roll."""
    with name_scope(name, "Roll", [input]):
        x = convert_to_tensor(input)
        shifts, axes = plain(shift), plain(axis)
        pairs = [(shifts, axes)] if isinstance(axes, int) else list(zip(shifts, axes, strict=True))
        for count, along in pairs:
            length = x.shape[along].value
            if length is None:
                raise at_user(ShapeError, f"roll: axis {along} of {x.shape} must have a known size", [x])
            cut = (length - count) % length if length else 0
            if cut:
                x = concat(split(x, [cut, length - cut], along)[::-1], along)
        return identity(x)


def invert_permutation(x: Any, name: str | None = None) -> Tensor:
    """Return the permutation that undoes `x`.  Source: tf.invert_permutation."""
    with name_scope(name, "InvertPermutation", [x]) as scope:
        return cast(Tensor, create("InvertPermutation", scope, [convert_to_tensor(x)]))


# -- joining and parting ----------------------------------------------------------------------------------------------


def concat(values: Any, axis: Any, name: str = "concat") -> Tensor:
    """Return tensors joined along `axis`.  Source: tf.concat."""
    if isinstance(values, int) and isinstance(axis, (list, tuple)):
        values, axis = axis, values  # the order of arguments before TensorFlow 1.0
    items = list(values) if isinstance(values, (list, tuple)) else [values]
    with name_scope(name, "concat", items) as scope:
        tensors = convert_n_to_tensor(items, name="values")
        if len(tensors) == 1:
            return identity(tensors[0], scope)
        return cast(Tensor, create("ConcatV2", scope, [static_axis(axis), *tensors]))


def stack(values: Any, axis: int = 0, name: str = "stack") -> Tensor:
    """Return tensors of one shape joined along a new axis.  Source: tf.stack."""
    with name_scope(name, "stack", values if isinstance(values, (list, tuple)) else [values]) as scope:
        items = list(values) if isinstance(values, (list, tuple, np.ndarray)) else unstack(values)
        return cast(Tensor, create("Pack", scope, convert_n_to_tensor(items, name="values"), {"axis": axis}))


def pack(values: Any, axis: int = 0, name: str = "pack") -> Tensor:
    """Return stack(values, axis).  Source: tf.pack."""
    return stack(values, axis, name)


def unstack(value: Any, num: int | None = None, axis: int = 0, name: str = "unstack") -> list[Tensor]:
    """Return the parts along `axis`, without it, as a list.  Raises ShapeError where their number is not known.

    Source: tf.unstack.
    """
    with name_scope(name, "unstack", [value]) as scope:
        x = convert_to_tensor(value, name="value")
        if num is None:
            count = x.shape.ndims
            if count is None or not -count <= axis < count:
                raise at_user(ShapeError, f"unstack: axis {axis} of {x.shape} is not known; give num", [x])
            num = x.shape[axis].value
            if num is None:
                raise at_user(ShapeError, f"unstack: the size of axis {axis} of {x.shape} is not known; give num", [x])
        return list(create("Unpack", scope, [x], {"num": num, "axis": axis}))


def unpack(value: Any, num: int | None = None, axis: int = 0, name: str = "unpack") -> list[Tensor]:
    """Return unstack(value, num, axis).  Source: tf.unpack."""
    return unstack(value, num, axis, name)


def split(value: Any, num_or_size_splits: Any = None, axis: Any = 0, num: int | None = None, name: str = "split",
          split_dim: Any = None, num_split: Any = None) -> list[Tensor]:
    """Return parts along `axis` as a list: so many equal ones, or of the given sizes (one may be -1).

    Source: tf.split (and its argument names before 1.0: split_dim, num_split).
    """
    if split_dim is not None or num_split is not None:
        axis, num_or_size_splits = split_dim or 0, num_split
    with name_scope(name, "split", [value]) as scope:
        x = convert_to_tensor(value, name="value")
        parts = plain(num_or_size_splits)
        if isinstance(parts, int):
            return list(create("Split", scope, [static_axis(axis), x], {"num_split": parts}))
        sizes = parts if isinstance(parts, tuple) else convert_to_tensor(parts, name="size_splits")
        return list(create("SplitV", scope, [x, sizes, static_axis(axis)]))


def meshgrid(*args: Any, indexing: str = "xy", name: str = "meshgrid") -> list[Tensor]:
    """Return the coordinates of a grid, one tensor per vector.  Source: tf.meshgrid."""
    if indexing not in ("xy", "ij"):
        raise at_user(GraphError, f"meshgrid: indexing must be 'xy' or 'ij', not {indexing!r}")
    with name_scope(name, "meshgrid", args):
        vectors = [reshape(v, (-1,)) for v in args]
        count = len(vectors)
        order = [1, 0, *range(2, count)] if indexing == "xy" and count > 1 else list(range(count))
        lengths = [size(vectors[i]) for i in order]
        whole = stack(lengths)
        return [broadcast_to(reshape(v, [-1 if order[k] == i else 1 for k in range(count)]), whole)
                for i, v in enumerate(vectors)]


# -- diagonals and choice ---------------------------------------------------------------------------------------------


def diag(diagonal: Any, name: str | None = None) -> Tensor:
    """Return the square matrix (or tensor) of the given diagonal, zeros elsewhere.  Source: tf.diag."""
    with name_scope(name, "Diag", [diagonal]) as scope:
        return cast(Tensor, create("Diag", scope, [convert_to_tensor(diagonal, name="diagonal")]))


def diag_part(input: Any, name: str | None = None) -> Tensor:
    """Return the diagonal of a square matrix (or tensor).  Source: tf.diag_part."""
    with name_scope(name, "DiagPart", [input]) as scope:
        return cast(Tensor, create("DiagPart", scope, [convert_to_tensor(input, name="input")]))


def matrix_diag(diagonal: Any, name: str | None = None) -> Tensor:
    """Return matrices of the given diagonals (the last axis).  Source: tf.matrix_diag."""
    with name_scope(name, "MatrixDiag", [diagonal]) as scope:
        return cast(Tensor, create("MatrixDiag", scope, [convert_to_tensor(diagonal, name="diagonal")]))


def matrix_diag_part(input: Any, name: str | None = None) -> Tensor:
    """Return the diagonals of matrices (the last two axes).  Source: tf.matrix_diag_part."""
    with name_scope(name, "MatrixDiagPart", [input]) as scope:
        return cast(Tensor, create("MatrixDiagPart", scope, [convert_to_tensor(input, name="input")]))


def matrix_band_part(input: Any, num_lower: Any, num_upper: Any, name: str | None = None) -> Tensor:
    """Return matrices with zeros outside a band; a negative width keeps that side.  Source: tf.matrix_band_part."""
    with name_scope(name, "MatrixBandPart", [input]) as scope:
        return cast(Tensor, create("MatrixBandPart", scope, [convert_to_tensor(input, name="input"),
                                                             static_axis(num_lower), static_axis(num_upper)]))


def where(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Tensor:
    """Return x where the condition holds, else y.

    The condition has the shape of x and y, or is a vector over their rows, or all broadcast.  Raises GraphError without
    x and y: the number of true elements is not known before a run.  Source: tf.where.
    """
    if x is None or y is None:
        raise at_user(GraphError,
                      "where: the indices of true elements have a size that only the run knows; give x and y")
    with name_scope(name, "Select", [condition, x, y]) as scope:
        chosen = convert_to_tensor(condition, dtypes.bool_, "condition")
        a, b = matching(x, y)
        rows = chosen.shape.ndims == 1 and (a.shape.ndims or 0) > 1 and a.shape.ndims == b.shape.ndims
        return cast(Tensor, create("Select" if rows else "SelectV2", scope, [chosen, a, b]))


def where_v2(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Tensor:
    """Return x where the condition holds, else y; all three broadcast.  Source: tf.where_v2."""
    if x is None or y is None:
        return where(condition, x, y, name)
    with name_scope(name, "SelectV2", [condition, x, y]) as scope:
        return cast(Tensor, create("SelectV2", scope, [convert_to_tensor(condition, dtypes.bool_), *matching(x, y)]))


def boolean_mask(tensor: Any, mask: Any, name: str = "boolean_mask", axis: int | None = None) -> Tensor:
    """Not supported: raises GraphError, since the size of the result depends on the mask's values.

    Source: tf.boolean_mask.
    """
    raise at_user(GraphError,
                  "boolean_mask: the size of the result depends on values; multiply by the mask, or use tf.where")


def sequence_mask(lengths: Any, maxlen: Any = None, dtype: Any = dtypes.bool_, name: str | None = None) -> Tensor:
    """Return whether position j lies before length i: shape (..., maxlen).  Source: tf.sequence_mask."""
    if maxlen is None:
        raise at_user(GraphError, "sequence_mask: the largest length depends on values; give maxlen")
    with name_scope(name, "SequenceMask", [lengths, maxlen]):
        given = convert_to_tensor(lengths)
        row = range_(0, maxlen if has_tensor(maxlen) else plain(maxlen), dtype=given.dtype)
        holds = create("Less", None, [row, expand_dims(given, -1)])
        wanted = dtypes.as_dtype(dtype)
        return cast(Tensor, holds if wanted.is_bool else create("Cast", None, [holds], {"dtype": wanted}))
