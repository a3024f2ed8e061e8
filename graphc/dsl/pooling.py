"""Pooling: maxima and means over windows, as `tf.nn` names them.

Owns the public functions and TensorFlow's ways of writing windows.  Must not know how windows are computed.
Invariant: a one-dimensional pooling is the two-dimensional one of a single row.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from graphc import dtypes
from graphc.dsl import array
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, name_scope, plain
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["avg_pool", "avg_pool1d", "avg_pool2d", "avg_pool3d", "avg_pool_v2", "max_pool", "max_pool1d", "max_pool2d",
           "max_pool3d", "max_pool_v2", "max_pool_with_argmax", "pool"]

FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}
"""The layouts of a tensor by its number of spatial axes: channels last, channels first."""


def layout(data_format: str | None, spatial: int, what: str) -> tuple[str, bool]:
    """Return the layout's name, and whether its channels come first.  Raises GraphError for one that there is not."""
    chosen = data_format or FORMATS[spatial][0]
    if chosen not in FORMATS[spatial]:
        raise at_user(GraphError, f"{what}: data_format is {' or '.join(map(repr, FORMATS[spatial]))}, not {chosen!r}")
    return chosen, chosen == FORMATS[spatial][1]


def per_axis(value: Any, spatial: int, channels_first: bool, what: str) -> tuple[int, ...]:
    """Return sizes for all axes from one number, one per spatial axis, or one per axis of the tensor."""
    given = plain(value)
    sizes: Sequence[int] = (given,) if isinstance(given, int) else given
    if len(sizes) == spatial + 2:
        return tuple(sizes)
    if len(sizes) not in (1, spatial):
        raise at_user(ShapeError, f"{what} has 1, {spatial} or {spatial + 2} numbers, not {len(sizes)}")
    inner = tuple(sizes) * (spatial if len(sizes) == 1 else 1)
    return (1, 1, *inner) if channels_first else (1, *inner, 1)


def _pool(op_type: str, spatial: int, x: Any, ksize: Any, strides: Any, padding: str, data_format: str | None,
          name: str | None, default: str) -> Tensor:
    chosen, first = layout(data_format, spatial, default)
    attrs = {"ksize": per_axis(ksize, spatial, first, f"{default}: ksize"),
             "strides": per_axis(strides, spatial, first, f"{default}: strides"), "padding": padding.upper(),
             "data_format": chosen}
    with name_scope(name, default, [x]) as scope:
        return cast(Tensor, create(op_type, scope, [convert_to_tensor(x, name="input")], attrs))


def _pool1d(op_type: str, x: Any, ksize: Any, strides: Any, padding: str, data_format: str | None, name: str | None,
            default: str) -> Tensor:
    _, first = layout(data_format, 1, default)
    at = 2 if first else 1

    def plane(value: Any, what: str) -> tuple[int, ...]:
        sizes = per_axis(value, 1, first, f"{default}: {what}")
        return (*sizes[:at], 1, *sizes[at:])

    with name_scope(name, default, [x]) as scope:
        rows = array.expand_dims(convert_to_tensor(x, name="input"), at)
        pooled = _pool(op_type, 2, rows, plane(ksize, "ksize"), plane(strides, "strides"), padding,
                       "NCHW" if first else "NHWC", None, op_type)
        return array.squeeze(pooled, [at], scope)


def max_pool(value: Any = None, ksize: Any = None, strides: Any = None, padding: str = "VALID",
             data_format: str = "NHWC", name: str | None = None, input: Any = None) -> Tensor:
    """Return the largest element of each window of a batch of images; a NaN only where a window has no number.

    value: (examples, height, width, channels), or (examples, channels, height, width) for "NCHW".  ksize, strides: one
    number per axis, per spatial axis, or one.  padding: "SAME" or "VALID".  Raises ShapeError.  Source: tf.nn.max_pool.
    """
    return _pool("MaxPool", 2, value if input is None else input, ksize, strides, padding, data_format, name, "MaxPool")


def max_pool2d(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NHWC",
               name: str | None = None) -> Tensor:
    """Return max_pool of a batch of images.  Source: tf.nn.max_pool2d."""
    return _pool("MaxPool", 2, input, ksize, strides, padding, data_format, name, "MaxPool2d")


def max_pool1d(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NWC",
               name: str | None = None) -> Tensor:
    """Return the largest element of each window of (examples, length, channels).  Source: tf.nn.max_pool1d."""
    return _pool1d("MaxPool", input, ksize, strides, padding, data_format, name, "MaxPool1d")


def max_pool3d(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NDHWC",
               name: str | None = None) -> Tensor:
    """Return the largest element of each window of (examples, depth, height, width, channels).

    Source: tf.nn.max_pool3d.
    """
    return _pool("MaxPool3D", 3, input, ksize, strides, padding, data_format, name, "MaxPool3D")


def avg_pool(value: Any = None, ksize: Any = None, strides: Any = None, padding: str = "VALID",
             data_format: str = "NHWC", name: str | None = None, input: Any = None) -> Tensor:
    """Return the mean of the elements of each window of a batch of images; padding does not count.

    Arguments as of max_pool; floats only.  Source: tf.nn.avg_pool.
    """
    return _pool("AvgPool", 2, value if input is None else input, ksize, strides, padding, data_format, name, "AvgPool")


def avg_pool2d(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NHWC",
               name: str | None = None) -> Tensor:
    """Return avg_pool of a batch of images.  Source: tf.nn.avg_pool2d."""
    return _pool("AvgPool", 2, input, ksize, strides, padding, data_format, name, "AvgPool2D")


def avg_pool1d(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NWC",
               name: str | None = None) -> Tensor:
    """Return the mean of each window of (examples, length, channels).  Source: tf.nn.avg_pool1d."""
    return _pool1d("AvgPool", input, ksize, strides, padding, data_format, name, "AvgPool1D")


def avg_pool3d(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NDHWC",
               name: str | None = None) -> Tensor:
    """Return the mean of each window of (examples, depth, height, width, channels).  Source: tf.nn.avg_pool3d."""
    return _pool("AvgPool3D", 3, input, ksize, strides, padding, data_format, name, "AvgPool3D")


def max_pool_v2(input: Any, ksize: Any, strides: Any, padding: str, data_format: str | None = None,
                name: str | None = None) -> Tensor:
    """Return max_pool of a tensor with 1, 2 or 3 spatial axes.  Source: tf.nn.max_pool_v2."""
    return _of_rank((max_pool1d, max_pool2d, max_pool3d), input, ksize, strides, padding, data_format, name)


def avg_pool_v2(input: Any, ksize: Any, strides: Any, padding: str, data_format: str | None = None,
                name: str | None = None) -> Tensor:
    """Return avg_pool of a tensor with 1, 2 or 3 spatial axes.  Source: tf.nn.avg_pool_v2."""
    return _of_rank((avg_pool1d, avg_pool2d, avg_pool3d), input, ksize, strides, padding, data_format, name)


def _of_rank(functions: Sequence[Any], x: Any, ksize: Any, strides: Any, padding: str, data_format: str | None,
             name: str | None) -> Tensor:
    value = convert_to_tensor(x, name="input")
    spatial = len(data_format) - 2 if data_format else (value.shape.ndims or 0) - 2
    if spatial not in (1, 2, 3):
        raise at_user(ShapeError, f"pooling: {value.shape} must have 1, 2 or 3 spatial axes", [value])
    return cast(Tensor, functions[spatial - 1](value, ksize, strides, padding, data_format or FORMATS[spatial][0],
                                               name))


def max_pool_with_argmax(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NHWC",
                         Targmax: Any = None, name: str | None = None, output_dtype: Any = None,
                         include_batch_in_index: bool = False) -> tuple[Tensor, Tensor]:
    """Return the largest element of each window and its number in its example: (y * width + x) * channels + channel.

    Targmax: int64 or int32.  include_batch_in_index: the number is that among all examples.
    Source: tf.nn.max_pool_with_argmax.
    """
    if data_format != "NHWC":
        raise at_user(GraphError, f"max_pool_with_argmax: data_format is 'NHWC', not {data_format!r}")
    asked = dtypes.as_dtype(Targmax or output_dtype or dtypes.int64)
    attrs = {"ksize": per_axis(ksize, 2, False, "max_pool_with_argmax: ksize"),
             "strides": per_axis(strides, 2, False, "max_pool_with_argmax: strides"), "padding": padding.upper(),
             "Targmax": asked, "include_batch_in_index": bool(include_batch_in_index)}
    with name_scope(name, "MaxPoolWithArgmax", [input]) as scope:
        largest, number = create("MaxPoolWithArgmax", scope, [convert_to_tensor(input, name="input")], attrs)
        return largest, number


def pool(input: Any, window_shape: Sequence[int], pooling_type: str, padding: str,
         dilation_rate: Sequence[int] | None = None, strides: Sequence[int] | None = None, name: str | None = None,
         data_format: str | None = None, dilations: Sequence[int] | None = None) -> Tensor:
    """Return a pooling with as many spatial axes as `window_shape` has sizes.

    pooling_type: "MAX" or "AVG".  Source: tf.nn.pool.
    """
    rates = dilations if dilations is not None else dilation_rate
    spatial = len(window_shape)
    if pooling_type not in ("MAX", "AVG") or spatial not in FORMATS:
        raise at_user(GraphError, f'pool: pooling_type is "MAX" or "AVG", with 1 to 3 sizes; not {pooling_type!r} with '
                                  f"{spatial}")
    steps = tuple(strides or (1,) * spatial)
    if rates is not None and any(n != 1 for n in rates):
        raise at_user(GraphError, "pool: dilations other than 1 are not supported",
                      hint="take every dilation-th element first, by space_to_batch")
    functions = (max_pool1d, max_pool2d, max_pool3d) if pooling_type == "MAX" else (avg_pool1d, avg_pool2d, avg_pool3d)
    return functions[spatial - 1](input, tuple(window_shape), steps, padding, data_format or FORMATS[spatial][0], name)
