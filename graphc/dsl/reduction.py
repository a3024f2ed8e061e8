"""Reductions over axes, extremes, running sums and sums by segment.

Owns TensorFlow 1's names for them, its older argument names included.  Must not know neural networks.
Invariant: axis None means all axes; the result has no reduced axis unless keepdims.
"""
from __future__ import annotations

from typing import Any, cast

from graphc import dtypes
from graphc.dsl import elementwise as ew
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, name_scope, plain
from graphc.errors import GraphError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["all_axes", "arg_max", "arg_min", "argmax", "argmin", "count_nonzero", "cumprod", "cumsum", "l2_loss",
           "older_name", "reduce_all", "reduce_any", "reduce_logsumexp", "reduce_max", "reduce_mean", "reduce_min",
           "reduce_prod", "reduce_std", "reduce_sum", "reduce_variance", "segment_sum",
           "unsorted_segment_mean", "unsorted_segment_sum"]


def older_name(new: str, value: Any, old: str, older: Any) -> Any:
    """Return the argument `new`, or what was given under its deprecated name `old`.  Raises GraphError for both."""
    if older is None:
        return value
    if value is not None:
        raise at_user(GraphError, f"give {new!r} or its older name {old!r}, not both")
    return older


def all_axes(x: Tensor) -> Any:
    """Return the axes of x: a tuple, or an int32 tensor where its rank is not known."""
    rank = x.shape.ndims
    if rank is not None:
        return tuple(range(rank))
    return create("Range", "range", [convert_to_tensor(0, name="start"), create("Rank", "Rank", [x]),
                                     convert_to_tensor(1, name="delta")])


def static_axis(axis: Any) -> Any:
    """Return an axis argument as plain data or a tensor."""
    value = plain(axis)
    return value if isinstance(value, (int, tuple)) else convert_to_tensor(value)


def _reduce(op_type: str, x: Any, axis: Any, keepdims: bool | None, name: str | None, indices: Any,
            keep_dims: bool | None,
            cast_to: Any = None) -> Tensor:
    axis = older_name("axis", axis, "reduction_indices", indices)
    keep = bool(older_name("keepdims", keepdims, "keep_dims", keep_dims))
    with name_scope(name, op_type, [x]) as scope:
        value = convert_to_tensor(x, cast_to, "input")
        over = all_axes(value) if axis is None else static_axis(axis)
        return cast(Tensor, create(op_type, scope, [value, over], {"keepdims": keep}))


def reduce_sum(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
               reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return the sum over axes.  Source: tf.reduce_sum."""
    return _reduce("Sum", input_tensor, axis, keepdims, name, reduction_indices, keep_dims)


def reduce_mean(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
                reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return the mean over axes (of integers, rounded towards zero).  Source: tf.reduce_mean."""
    return _reduce("Mean", input_tensor, axis, keepdims, name, reduction_indices, keep_dims)


def reduce_prod(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
                reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return the product over axes.  Source: tf.reduce_prod."""
    return _reduce("Prod", input_tensor, axis, keepdims, name, reduction_indices, keep_dims)


def reduce_max(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
               reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return the largest element over axes.  Source: tf.reduce_max."""
    return _reduce("Max", input_tensor, axis, keepdims, name, reduction_indices, keep_dims)


def reduce_min(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
               reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return the smallest element over axes.  Source: tf.reduce_min."""
    return _reduce("Min", input_tensor, axis, keepdims, name, reduction_indices, keep_dims)


def reduce_any(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
               reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return whether any element over axes holds.  Source: tf.reduce_any."""
    return _reduce("Any", input_tensor, axis, keepdims, name, reduction_indices, keep_dims, dtypes.bool_)


def reduce_all(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
               reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return whether all elements over axes hold.  Source: tf.reduce_all."""
    return _reduce("All", input_tensor, axis, keepdims, name, reduction_indices, keep_dims, dtypes.bool_)


def reduce_logsumexp(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
                     reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return log(sum(exp(x))) over axes, without overflow.  Source: tf.reduce_logsumexp."""
    axis = older_name("axis", axis, "reduction_indices", reduction_indices)
    keep = bool(older_name("keepdims", keepdims, "keep_dims", keep_dims))
    with name_scope(name, "ReduceLogSumExp", [input_tensor]) as scope:
        x = convert_to_tensor(input_tensor)
        largest = reduce_max(x, axis, True)
        finite = create("SelectV2", None, [ew.is_finite(largest), largest, create("ZerosLike", None, [largest])])
        shift = create("StopGradient", None, [finite])
        total = ew.log(reduce_sum(ew.exp(ew.subtract(x, shift)), axis, keep))
        if not keep:
            shift = create("Reshape", None, [shift, _shape_of(total)])
        return ew.add(total, shift, name=scope)


def _shape_of(x: Tensor) -> Any:
    sizes = x.shape.sizes
    known = sizes is not None and None not in sizes
    return sizes if known else create("Shape", None, [x])


def reduce_variance(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Tensor:
    """Return the mean squared distance from the mean over axes.  Source: tf.math.reduce_variance."""
    with name_scope(name, "reduce_variance", [input_tensor]):
        x = convert_to_tensor(input_tensor)
        return reduce_mean(ew.square(x - reduce_mean(x, axis, True)), axis, keepdims)


def reduce_std(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Tensor:
    """Return the standard deviation over axes.  Source: tf.math.reduce_std."""
    with name_scope(name, "reduce_std", [input_tensor]):
        return ew.sqrt(reduce_variance(input_tensor, axis, keepdims))


def count_nonzero(input_tensor: Any, axis: Any = None, keepdims: bool | None = None, dtype: Any = dtypes.int64,
                  name: str | None = None, reduction_indices: Any = None, keep_dims: bool | None = None) -> Tensor:
    """Return how many elements over axes are not zero.  Source: tf.count_nonzero."""
    axis = older_name("axis", axis, "reduction_indices", reduction_indices)
    keep = bool(older_name("keepdims", keepdims, "keep_dims", keep_dims))
    with name_scope(name, "count_nonzero", [input_tensor]):
        x = convert_to_tensor(input_tensor)
        holds = x if x.dtype.is_bool else ew.not_equal(x, 0)
        return reduce_sum(ew.cast(holds, dtype), axis, keep)


def _extreme(op_type: str, input: Any, axis: Any, name: str | None, output_type: Any) -> Tensor:
    with name_scope(name, op_type, [input]) as scope:
        over = 0 if axis is None else static_axis(axis)
        return cast(Tensor, create(op_type, scope, [convert_to_tensor(input, name="input"), over],
                                   {"output_type": dtypes.as_dtype(output_type)}))


def argmax(input: Any, axis: Any = None, name: str | None = None, dimension: Any = None,
           output_type: Any = dtypes.int64) -> Tensor:
    """Return the index of the first largest element along `axis` (0).  Source: tf.argmax."""
    return _extreme("ArgMax", input, older_name("axis", axis, "dimension", dimension), name, output_type)


def argmin(input: Any, axis: Any = None, name: str | None = None, dimension: Any = None,
           output_type: Any = dtypes.int64) -> Tensor:
    """Return the index of the first smallest element along `axis` (0).  Source: tf.argmin."""
    return _extreme("ArgMin", input, older_name("axis", axis, "dimension", dimension), name, output_type)


def arg_max(input: Any, dimension: Any, output_type: Any = dtypes.int64, name: str | None = None) -> Tensor:
    """Return argmax(input, dimension).  Source: tf.arg_max."""
    return argmax(input, dimension, name, output_type=output_type)


def arg_min(input: Any, dimension: Any, output_type: Any = dtypes.int64, name: str | None = None) -> Tensor:
    """Return argmin(input, dimension).  Source: tf.arg_min."""
    return argmin(input, dimension, name, output_type=output_type)


def _running(op_type: str, x: Any, axis: Any, exclusive: bool, reverse: bool, name: str | None) -> Tensor:
    with name_scope(name, op_type, [x]) as scope:
        return cast(Tensor, create(op_type, scope, [convert_to_tensor(x, name="x"), static_axis(axis)],
                                   {"exclusive": exclusive, "reverse": reverse}))


def cumsum(x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None) -> Tensor:
    """Return the running sum along `axis`.  Source: tf.cumsum."""
    return _running("Cumsum", x, axis, exclusive, reverse, name)


def cumprod(x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None) -> Tensor:
    """Return the running product along `axis`.  Source: tf.cumprod."""
    return _running("Cumprod", x, axis, exclusive, reverse, name)


def l2_loss(t: Any, name: str | None = None) -> Tensor:
    """Return half the sum of squares, a scalar.  Source: tf.nn.l2_loss."""
    with name_scope(name, "L2Loss", [t]) as scope:
        return cast(Tensor, create("L2Loss", scope, [convert_to_tensor(t, name="t")]))


def _segments(op_type: str, data: Any, segment_ids: Any, num_segments: Any, name: str | None) -> Tensor:
    with name_scope(name, op_type, [data, segment_ids]) as scope:
        count = plain(num_segments)
        return cast(Tensor, create(op_type, scope, [
            convert_to_tensor(data, name="data"), convert_to_tensor(segment_ids, name="segment_ids"),
            count if isinstance(count, int) else convert_to_tensor(count, name="num_segments")]))


def unsorted_segment_sum(data: Any, segment_ids: Any, num_segments: Any, name: str | None = None) -> Tensor:
    """Return, for each segment, the sum of the rows whose id it is.  Source: tf.unsorted_segment_sum."""
    return _segments("UnsortedSegmentSum", data, segment_ids, num_segments, name)


def unsorted_segment_mean(data: Any, segment_ids: Any, num_segments: Any, name: str | None = None) -> Tensor:
    """Return, for each segment, the mean of the rows whose id it is; 0 for none.  Source: tf.unsorted_segment_mean."""
    with name_scope(name, "UnsortedSegmentMean", [data, segment_ids]) as scope:
        rows, ids = convert_to_tensor(data), convert_to_tensor(segment_ids)
        total = unsorted_segment_sum(rows, ids, num_segments)
        ones = create("OnesLike", None, [rows])
        counts = unsorted_segment_sum(ones, ids, num_segments)
        return ew.divide(total, ew.maximum(counts, 1), name=scope)


def segment_sum(data: Any, segment_ids: Any, num_segments: Any = None, name: str | None = None) -> Tensor:
    """Return the sums of rows by segment.  num_segments must be given: a program's sizes do not depend on values.

    Raises GraphError without it.  Source: tf.segment_sum.
    """
    if num_segments is None:
        raise at_user(GraphError, "segment_sum: the number of segments depends on the ids; pass num_segments")
    return unsorted_segment_sum(data, segment_ids, num_segments, name)
