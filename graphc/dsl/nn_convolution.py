"""Convolutions, as `tf.nn` names them.

Owns the public functions and TensorFlow's ways of writing strides, dilations and paddings.  Must not know how a
convolution is computed.  Invariants: every function makes one convolution op (a separable one, two), at any rate of
dilation; one spatial axis is two, the first of size 1.
"""
from __future__ import annotations

from typing import Any, cast

from graphc.dsl import array
from graphc.dsl.array import static_sizes
from graphc.dsl.convert import convert_to_tensor, matching
from graphc.dsl.indexing import slice_
from graphc.dsl.pooling import FORMATS, layout, per_axis
from graphc.dsl.reduction import older_name
from graphc.dsl.scope import create, name_scope, plain
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["atrous_conv2d", "atrous_conv2d_transpose", "conv1d", "conv1d_transpose", "conv2d", "conv2d_backprop_filter",
           "conv2d_backprop_input", "conv2d_transpose", "conv3d", "conv3d_backprop_filter", "conv3d_backprop_filter_v2",
           "conv3d_transpose", "conv_transpose", "convolution", "depthwise_conv2d", "depthwise_conv2d_backprop_filter",
           "depthwise_conv2d_backprop_input", "depthwise_conv2d_native", "depthwise_conv2d_native_backprop_filter",
           "depthwise_conv2d_native_backprop_input", "separable_conv2d"]

# -- arguments --------------------------------------------------------------------------------------------------------


def _attrs(what: str, spatial: int, strides: Any, padding: Any, data_format: str | None, dilations: Any
           ) -> dict[str, Any]:
    """The attrs of a convolution op.  Raises GraphError or ShapeError, naming the function."""
    chosen, first = layout(data_format, spatial, what)
    found = {name: per_axis(1 if value is None else value, spatial, first, f"{what}: {name}")
             for name, value in (("strides", strides), ("dilations", dilations))}
    return {**found, **_padding(what, spatial, first, padding), "data_format": chosen}


def _padding(what: str, spatial: int, first: bool, padding: Any) -> dict[str, Any]:
    """The attrs that say the padding: a mode, or a pair of sizes for each axis (or each spatial one)."""
    if isinstance(padding, str):
        mode = padding.upper()
        if mode not in ("SAME", "VALID"):
            raise at_user(GraphError, f"{what}: padding is 'SAME', 'VALID' or a list of pairs (before, after), not "
                                      f"{padding!r}")
        return {"padding": mode}
    pairs = plain(padding)
    if pairs is None:
        raise at_user(GraphError, f"{what}: padding is missing: give 'SAME', 'VALID' or a list of pairs")
    if not isinstance(pairs, tuple) or len(pairs) not in (spatial, spatial + 2) or any(
            not isinstance(p, tuple) or len(p) != 2 for p in pairs):
        raise at_user(ShapeError, f"{what}: explicit padding is {spatial + 2} pairs (before, after), one per axis, not "
                                  f"{padding!r}")
    if len(pairs) == spatial:
        pairs = ((0, 0), (0, 0), *pairs) if first else ((0, 0), *pairs, (0, 0))
    return {"padding": "EXPLICIT", "explicit_paddings": tuple(n for pair in pairs for n in pair)}


def _convolve(op_type: str, what: str, spatial: int, x: Any, w: Any, strides: Any, padding: Any,
              data_format: str | None, dilations: Any, name: str | None, default: str | None = None) -> Tensor:
    """One forward convolution op."""
    attrs = _attrs(what, spatial, strides, padding, data_format, dilations)
    with name_scope(name, default or op_type, [x, w]) as scope:
        inputs = matching(x, w, ("input", "filter"))
        _check_rank(what, inputs[0], spatial)
        return cast(Tensor, create(op_type, scope, inputs, attrs))


def _check_rank(what: str, x: Tensor, spatial: int) -> None:
    rank = x.shape.ndims
    if rank is not None and rank != spatial + 2:
        axes = " or ".join(FORMATS[spatial])
        raise at_user(ShapeError, f"{what}: the input has rank {spatial + 2} ({axes}), its shape is {x.shape}", [x])


def _transpose(op_type: str, what: str, spatial: int, x: Any, w: Any, output_shape: Any, strides: Any, padding: Any,
               data_format: str | None, dilations: Any, name: str | None) -> Tensor:
    """One op for the gradient for the input, x being the gradient of the output."""
    attrs = _attrs(what, spatial, strides, padding, data_format, dilations)
    if output_shape is None:
        raise at_user(GraphError, f"{what}: output_shape is missing: the sizes of the result, batch and channels too")
    with name_scope(name, what, [x, w, output_shape]) as scope:
        value, kernel = matching(x, w, ("value", "filter"))
        _check_rank(what, value, spatial)
        return cast(Tensor, create(op_type, scope, [static_sizes(output_shape), kernel, value], attrs))


# -- two axes ---------------------------------------------------------------------------------------------------------


def conv2d(input: Any, filter: Any = None, strides: Any = None, padding: Any = None, use_cudnn_on_gpu: bool = True,
           data_format: str = "NHWC", dilations: Any = None, name: str | None = None, filters: Any = None) -> Tensor:
    """Return the convolution of a batch of images (n, height, width, channels) with filters (height, width, channels,
    features).

    Filters for a divisor of the channels make groups.  strides, dilations: one number, one per spatial axis, or one
    per axis.  padding: "SAME", "VALID", or a pair (before, after) per axis.  Raises ShapeError.  Source: tf.nn.conv2d.
    """
    return _convolve("Conv2D", "conv2d", 2, input, older_name("filters", filters, "filter", filter), strides, padding,
                     data_format, dilations, name)


def conv2d_backprop_input(input_sizes: Any, filter: Any = None, out_backprop: Any = None, strides: Any = None,
                          padding: Any = None, use_cudnn_on_gpu: bool = True, data_format: str = "NHWC",
                          dilations: Any = None, name: str | None = None, filters: Any = None) -> Tensor:
    """Return the gradient of conv2d for its input, of shape `input_sizes`.  Source: tf.nn.conv2d_backprop_input."""
    attrs = _attrs("conv2d_backprop_input", 2, strides, padding, data_format, dilations)
    w = older_name("filters", filters, "filter", filter)
    with name_scope(name, "Conv2DBackpropInput", [w, out_backprop, input_sizes]) as scope:
        w, dy = matching(w, out_backprop, ("filter", "out_backprop"))
        return cast(Tensor, create("Conv2DBackpropInput", scope, [static_sizes(input_sizes), w, dy], attrs))


def conv2d_backprop_filter(input: Any, filter_sizes: Any, out_backprop: Any, strides: Any, padding: Any,
                           use_cudnn_on_gpu: bool = True, data_format: str = "NHWC", dilations: Any = None,
                           name: str | None = None) -> Tensor:
    """Return the gradient of conv2d for its filters, of shape `filter_sizes`.

    Source: tf.nn.conv2d_backprop_filter.
    """
    return _for_filter("Conv2DBackpropFilter", "conv2d_backprop_filter", 2, input, filter_sizes, out_backprop, strides,
                       padding, data_format, dilations, name)


def _for_filter(op_type: str, what: str, spatial: int, x: Any, sizes: Any, out_backprop: Any, strides: Any,
                padding: Any, data_format: str | None, dilations: Any, name: str | None) -> Tensor:
    attrs = _attrs(what, spatial, strides, padding, data_format, dilations)
    with name_scope(name, op_type, [x, out_backprop, sizes]) as scope:
        x, dy = matching(x, out_backprop, ("input", "out_backprop"))
        return cast(Tensor, create(op_type, scope, [x, static_sizes(sizes), dy], attrs))


def conv2d_transpose(value: Any = None, filter: Any = None, output_shape: Any = None, strides: Any = None,
                     padding: Any = "SAME", data_format: str = "NHWC", name: str | None = None, input: Any = None,
                     filters: Any = None, dilations: Any = None) -> Tensor:
    """Return the transposed convolution of images, the gradient of conv2d for its input, of shape `output_shape`.

    filter: (height, width, features of the result, channels of value).  Raises ShapeError where output_shape does not
    fit.  Source: tf.nn.conv2d_transpose; Zeiler et al., "Deconvolutional networks", 2010.
    """
    return _transpose("Conv2DBackpropInput", "conv2d_transpose", 2, older_name("input", input, "value", value),
                      older_name("filters", filters, "filter", filter), output_shape, strides, padding, data_format,
                      dilations, name)


def atrous_conv2d(value: Any, filters: Any, rate: Any, padding: Any, name: str | None = None) -> Tensor:
    """Return conv2d with taps `rate` elements apart.  Source: tf.nn.atrous_conv2d; Chen et al., "DeepLab", 2016."""
    return _convolve("Conv2D", "atrous_conv2d", 2, value, filters, 1, padding, "NHWC", rate, name, "convolution")


def atrous_conv2d_transpose(value: Any, filters: Any, output_shape: Any, rate: Any, padding: Any,
                            name: str | None = None) -> Tensor:
    """Return the gradient of atrous_conv2d for its input, of shape `output_shape`.

    Source: tf.nn.atrous_conv2d_transpose.
    """
    return _transpose("Conv2DBackpropInput", "atrous_conv2d_transpose", 2, value, filters, output_shape, 1, padding,
                      "NHWC", rate, name)


# -- each channel by itself -------------------------------------------------------------------------------------------


def depthwise_conv2d(input: Any, filter: Any, strides: Any, padding: Any, rate: Any = None, name: str | None = None,
                     data_format: str | None = None, dilations: Any = None) -> Tensor:
    """Return the convolution of each channel with filters of its own, (height, width, channels, multiplier).

    rate (or dilations): the distance of taps.  The result has channels * multiplier channels.
    Source: tf.nn.depthwise_conv2d.
    """
    return _convolve("DepthwiseConv2dNative", "depthwise_conv2d", 2, input, filter, strides, padding, data_format,
                     older_name("dilations", dilations, "rate", rate), name, "depthwise")


def depthwise_conv2d_native(input: Any, filter: Any, strides: Any, padding: Any, data_format: str = "NHWC",
                            dilations: Any = None, name: str | None = None) -> Tensor:
    """Return depthwise_conv2d.  Source: tf.nn.depthwise_conv2d_native."""
    return _convolve("DepthwiseConv2dNative", "depthwise_conv2d_native", 2, input, filter, strides, padding,
                     data_format, dilations, name)


def depthwise_conv2d_native_backprop_input(input_sizes: Any, filter: Any, out_backprop: Any, strides: Any, padding: Any,
                                           data_format: str = "NHWC", dilations: Any = None,
                                           name: str | None = None) -> Tensor:
    """Return the gradient of depthwise_conv2d for its input.  Source: tf.nn.depthwise_conv2d_native_backprop_input."""
    attrs = _attrs("depthwise_conv2d_native_backprop_input", 2, strides, padding, data_format, dilations)
    with name_scope(name, "DepthwiseConv2dNativeBackpropInput", [filter, out_backprop, input_sizes]) as scope:
        w, dy = matching(filter, out_backprop, ("filter", "out_backprop"))
        made = create("DepthwiseConv2dNativeBackpropInput", scope, [static_sizes(input_sizes), w, dy], attrs)
        return cast(Tensor, made)


def depthwise_conv2d_native_backprop_filter(input: Any, filter_sizes: Any, out_backprop: Any, strides: Any,
                                            padding: Any, data_format: str = "NHWC", dilations: Any = None,
                                            name: str | None = None) -> Tensor:
    """Return the gradient of depthwise_conv2d for its filters.

    Source: tf.nn.depthwise_conv2d_native_backprop_filter.
    """
    return _for_filter("DepthwiseConv2dNativeBackpropFilter", "depthwise_conv2d_native_backprop_filter", 2, input,
                       filter_sizes, out_backprop, strides, padding, data_format, dilations, name)


depthwise_conv2d_backprop_input = depthwise_conv2d_native_backprop_input
depthwise_conv2d_backprop_filter = depthwise_conv2d_native_backprop_filter


def separable_conv2d(input: Any, depthwise_filter: Any, pointwise_filter: Any, strides: Any, padding: Any,
                     rate: Any = None, name: str | None = None, data_format: str | None = None,
                     dilations: Any = None) -> Tensor:
    """Return depthwise_conv2d followed by a convolution of one tap, (1, 1, channels * multiplier, features).

    Source: tf.nn.separable_conv2d; Sifre and Mallat, "Rigid-motion scattering", 2014.
    """
    with name_scope(name, "separable_conv2d", [input, depthwise_filter, pointwise_filter]) as scope:
        spread = depthwise_conv2d(input, depthwise_filter, strides, padding, rate, "depthwise", data_format, dilations)
        mixed = convert_to_tensor(pointwise_filter, name="pointwise_filter")
        attrs = _attrs("separable_conv2d", 2, 1, "VALID", data_format, 1)
        return cast(Tensor, create("Conv2D", scope, [spread, mixed], attrs))


# -- three axes -------------------------------------------------------------------------------------------------------


def conv3d(input: Any, filter: Any = None, strides: Any = None, padding: Any = None, data_format: str = "NDHWC",
           dilations: Any = None, name: str | None = None, filters: Any = None) -> Tensor:
    """Return the convolution of volumes (n, depth, height, width, channels) with filters (depth, height, width,
    channels, features).  Arguments as of conv2d.  Source: tf.nn.conv3d."""
    return _convolve("Conv3D", "conv3d", 3, input, older_name("filters", filters, "filter", filter), strides, padding,
                     data_format, dilations, name)


def conv3d_transpose(value: Any, filter: Any = None, output_shape: Any = None, strides: Any = None,
                     padding: Any = "SAME", data_format: str = "NDHWC", name: str | None = None, input: Any = None,
                     filters: Any = None, dilations: Any = None) -> Tensor:
    """Return the transposed convolution of volumes, the gradient of conv3d for its input, of shape `output_shape`.

    Source: tf.nn.conv3d_transpose.
    """
    return _transpose("Conv3DBackpropInputV2", "conv3d_transpose", 3, older_name("input", input, "value", value),
                      older_name("filters", filters, "filter", filter), output_shape, strides, padding, data_format,
                      dilations, name)


def conv3d_backprop_filter_v2(input: Any, filter_sizes: Any, out_backprop: Any, strides: Any, padding: Any,
                              data_format: str = "NDHWC", dilations: Any = None, name: str | None = None) -> Tensor:
    """Return the gradient of conv3d for its filters, of shape `filter_sizes`.

    Source: tf.nn.conv3d_backprop_filter_v2.
    """
    return _for_filter("Conv3DBackpropFilterV2", "conv3d_backprop_filter", 3, input, filter_sizes, out_backprop,
                       strides, padding, data_format, dilations, name)


conv3d_backprop_filter = conv3d_backprop_filter_v2

# -- one axis ---------------------------------------------------------------------------------------------------------


def conv1d(value: Any = None, filters: Any = None, stride: Any = None, padding: Any = None,
           use_cudnn_on_gpu: bool | None = None, data_format: str | None = None, name: str | None = None,
           input: Any = None, dilations: Any = None) -> Tensor:
    """Return the convolution of sequences (n, length, channels) with filters (length, channels, features).

    data_format: "NWC" (also "NHWC") or "NCW" ("NCHW").  Other arguments as of conv2d.  Source: tf.nn.conv1d.
    """
    return _conv1d("conv1d", older_name("input", input, "value", value), filters, stride, padding, data_format,
                   dilations, name)


def _conv1d(what: str, x: Any, w: Any, stride: Any, padding: Any, data_format: str | None, dilations: Any,
            name: str | None) -> Tensor:
    with name_scope(name, what, [x, w]):
        x, w = matching(x, w, ("input", "filters"))
        _check_rank(what, x, 1)
        attrs, at = _plane_attrs(what, stride, padding, data_format, dilations)
        plane = create("Conv2D", None, [array.expand_dims(x, at), array.expand_dims(w, 0)], attrs)
        return array.squeeze(plane, [at])


def _plane_attrs(what: str, stride: Any, padding: Any, data_format: str | None, dilations: Any
                 ) -> tuple[dict[str, Any], int]:
    """The attrs of a convolution over one axis as one over two, and where the new axis stands."""
    older = {"NHWC": "NWC", "NCHW": "NCW"}
    attrs = _attrs(what, 1, stride, padding, older.get(str(data_format), data_format), dilations)
    at = 2 if attrs["data_format"] == "NCW" else 1

    def widened(values: tuple[int, ...], filler: tuple[int, ...]) -> tuple[int, ...]:
        place = at * len(filler)
        return (*values[:place], *filler, *values[place:])

    attrs |= {name: widened(attrs[name], (1,)) for name in ("strides", "dilations")}
    if "explicit_paddings" in attrs:
        attrs["explicit_paddings"] = widened(attrs["explicit_paddings"], (0, 0))
    return {**attrs, "data_format": "NCHW" if at == 2 else "NHWC"}, at


def conv1d_transpose(input: Any, filters: Any, output_shape: Any, strides: Any, padding: Any = "SAME",
                     data_format: str = "NWC", dilations: Any = None, name: str | None = None) -> Tensor:
    """Return the transposed convolution of sequences, the gradient of conv1d for its input, of shape `output_shape`.

    Source: tf.nn.conv1d_transpose.
    """
    with name_scope(name, "conv1d_transpose", [input, filters, output_shape]):
        x, w = matching(input, filters, ("input", "filters"))
        _check_rank("conv1d_transpose", x, 1)
        attrs, at = _plane_attrs("conv1d_transpose", strides, padding, data_format, dilations)
        sizes = static_sizes(output_shape)
        if isinstance(sizes, Tensor):
            sizes = array.concat([slice_(sizes, [0], [at]), [1], slice_(sizes, [at], [-1])], 0)
        else:
            sizes = (*sizes[:at], 1, *sizes[at:])
        plane = create("Conv2DBackpropInput", None, [sizes, array.expand_dims(w, 0), array.expand_dims(x, at)], attrs)
        return array.squeeze(plane, [at])


# -- any number of axes -----------------------------------------------------------------------------------------------


def convolution(input: Any, filter: Any = None, padding: Any = None, strides: Any = None, dilation_rate: Any = None,
                name: str | None = None, data_format: str | None = None, filters: Any = None,
                dilations: Any = None) -> Tensor:
    """Return the convolution over as many axes (1 to 3) as the filter has besides channels and features.

    Arguments as of conv1d, conv2d and conv3d.  Raises ShapeError.  Source: tf.nn.convolution.
    """
    w = convert_to_tensor(older_name("filters", filters, "filter", filter), name="filter")
    rate = older_name("dilations", dilations, "dilation_rate", dilation_rate)
    spatial = _spatial("convolution", w, input)
    if spatial == 1:
        with name_scope(name, "convolution", [input, w]) as scope:
            return _conv1d("convolution", input, w, strides, padding, data_format, rate, scope or None)
    return _convolve(f"Conv{spatial}D", "convolution", spatial, input, w, strides, padding, data_format, rate, name,
                     "convolution")


def _spatial(what: str, w: Tensor, x: Any) -> int:
    """The number of spatial axes of a filter, or of the input where the filter's rank is not known."""
    rank = w.shape.ndims if w.shape.ndims is not None else convert_to_tensor(x).shape.ndims
    if rank is None or rank - 2 not in FORMATS:
        raise at_user(ShapeError, f"{what}: the filter has 1 to 3 spatial axes, then channels and features; its shape "
                                  f"is {w.shape}", [w])
    return rank - 2


def conv_transpose(input: Any, filters: Any, output_shape: Any, strides: Any, padding: Any = "SAME",
                   data_format: str | None = None, dilations: Any = None, name: str | None = None) -> Tensor:
    """Return the transposed convolution over as many axes (1 to 3) as the filter has besides its channels.

    Source: tf.nn.conv_transpose.
    """
    w = convert_to_tensor(filters, name="filters")
    spatial = _spatial("conv_transpose", w, input)
    with name_scope(name, "conv_transpose", [input, w, output_shape]) as scope:
        if spatial == 1:
            return conv1d_transpose(input, w, output_shape, strides, padding, data_format or "NWC", dilations, scope)
        op_type = "Conv2DBackpropInput" if spatial == 2 else "Conv3DBackpropInputV2"
        return _transpose(op_type, "conv_transpose", spatial, input, w, output_shape, strides, padding, data_format,
                          dilations, scope)
