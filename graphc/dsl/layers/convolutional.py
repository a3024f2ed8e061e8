"""Layers of convolutions: plain, transposed and separable, in one to three dimensions.

Owns what `tf.layers` names of them, as classes and as functions.  Must not know how a convolution is computed.
Invariant: the variables are kernel (or depthwise_kernel and pointwise_kernel) and bias, of TensorFlow's shapes.
"""
from __future__ import annotations

from typing import Any, cast

from graphc.dsl import array, initializers, nn, nn_convolution
from graphc.dsl.layers.base import Layer, layout, sizes
from graphc.errors import ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["Conv1D", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "SeparableConv1D", "SeparableConv2D",
           "conv1d", "conv2d", "conv2d_transpose", "conv3d", "conv3d_transpose", "separable_conv1d",
           "separable_conv2d"]

Sizes = Any
"""A number, or one for each spatial axis."""


class _Convolution(Layer):
    """What all of them share: sizes, layout, bias and activation."""

    spatial = 2
    function = "conv2d"

    def __init__(self, filters: int, kernel_size: Sizes, strides: Sizes, padding: str, data_format: str,
                 dilation_rate: Sizes, activation: Any, use_bias: bool, bias: tuple[Any, Any, Any],
                 activity_regularizer: Any, trainable: bool, name: str | None, reuse: Any) -> None:
        super().__init__(name, self.function, trainable, reuse, activity_regularizer)
        self.filters = int(filters)
        self.kernel_size = sizes(kernel_size, self.spatial, f"{self.function}: kernel_size")
        self.strides = sizes(strides, self.spatial, f"{self.function}: strides")
        self.dilation_rate = sizes(dilation_rate, self.spatial, f"{self.function}: dilation_rate")
        self.padding = padding.lower()
        self.data_format = data_format
        self.activation = activation
        self.use_bias = use_bias
        self.kernel: Any = None
        self.bias: Any = None
        self._layout = layout(data_format, self.spatial, self.function)
        self._bias = bias

    @property
    def channel_axis(self) -> int:
        """The axis of the channels."""
        return 1 if self.data_format == "channels_first" else self.spatial + 1

    def _channels(self, inputs: Tensor) -> int:
        rank = inputs.shape.ndims
        if rank != self.spatial + 2:
            raise at_user(ShapeError, f"{self.function}: the inputs have rank {self.spatial + 2} ({self._layout}), "
                                      f"their shape is {inputs.shape}", [inputs])
        count = inputs.shape[self.channel_axis].value
        if count is None:
            raise at_user(ShapeError, f"{self.function}: the channels (axis {self.channel_axis} of {inputs.shape}) "
                                      "must have a known size", [inputs])
        return int(count)

    def _finished(self, result: Tensor) -> Tensor:
        """The result with bias and activation."""
        if self.use_bias:
            self.bias = self._variable("bias", [self.filters], result.dtype, *self._bias)
            result = nn.bias_add(result, self.bias, "NCHW" if self.channel_axis == 1 else "NHWC")
        return result if self.activation is None else cast(Tensor, self.activation(result))


class _Plain(_Convolution):
    """activation(convolution + bias)."""

    def __init__(self, filters: int, kernel_size: Sizes, strides: Sizes = 1, padding: str = "valid",
                 data_format: str = "channels_last", dilation_rate: Sizes = 1, activation: Any = None,
                 use_bias: bool = True, kernel_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
                 kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None,
                 kernel_constraint: Any = None, bias_constraint: Any = None, trainable: bool = True,
                 name: str | None = None, _reuse: Any = None) -> None:
        super().__init__(filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
                         (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer, trainable, name,
                         _reuse)
        self._kernel = (kernel_initializer, kernel_regularizer, kernel_constraint)

    def call(self, inputs: Tensor, **arguments: Any) -> Tensor:
        self.kernel = self._variable("kernel", [*self.kernel_size, self._channels(inputs), self.filters], inputs.dtype,
                                     *self._kernel)
        convolve = (nn_convolution.conv1d, nn_convolution.conv2d, nn_convolution.conv3d)[self.spatial - 1]
        result = convolve(inputs, self.kernel, self.strides, self.padding.upper(), data_format=self._layout,
                          dilations=self.dilation_rate)
        return self._finished(result)


class Conv1D(_Plain):
    """Convolution of (examples, length, channels).  Source: tf.layers.Conv1D."""

    spatial, function = 1, "conv1d"


class Conv2D(_Plain):
    """Convolution of (examples, height, width, channels).  Source: tf.layers.Conv2D."""

    spatial, function = 2, "conv2d"


class Conv3D(_Plain):
    """Convolution of (examples, depth, height, width, channels).  Source: tf.layers.Conv3D."""

    spatial, function = 3, "conv3d"


class _Transposed(_Convolution):
    """activation(transposed convolution + bias); padding "same" gives size * stride."""

    def __init__(self, filters: int, kernel_size: Sizes, strides: Sizes = 1, padding: str = "valid",
                 data_format: str = "channels_last", activation: Any = None, use_bias: bool = True,
                 kernel_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
                 kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None,
                 kernel_constraint: Any = None, bias_constraint: Any = None, trainable: bool = True,
                 name: str | None = None, _reuse: Any = None) -> None:
        super().__init__(filters, kernel_size, strides, padding, data_format, 1, activation, use_bias,
                         (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer, trainable, name,
                         _reuse)
        self._kernel = (kernel_initializer, kernel_regularizer, kernel_constraint)

    def call(self, inputs: Tensor, **arguments: Any) -> Tensor:
        self.kernel = self._variable("kernel", [*self.kernel_size, self.filters, self._channels(inputs)], inputs.dtype,
                                     *self._kernel)
        transpose = (nn_convolution.conv2d_transpose, nn_convolution.conv3d_transpose)[self.spatial - 2]
        result = transpose(inputs, self.kernel, self._result_sizes(inputs), self.strides, self.padding.upper(),
                           data_format=self._layout)
        return self._finished(result)

    def _result_sizes(self, inputs: Tensor) -> Any:
        """The shape of the result: numbers where all are known, else with tensors among them."""
        found: list[Any] = [d.value for d in inputs.shape]
        if None in found:
            shape = array.shape(inputs)
            found = [shape[i] if n is None else n for i, n in enumerate(found)]
        first = 2 if self.channel_axis == 1 else 1
        for i, (taps, stride) in enumerate(zip(self.kernel_size, self.strides, strict=True)):
            grown = found[first + i] * stride
            found[first + i] = grown + max(taps - stride, 0) if self.padding == "valid" else grown
        found[self.channel_axis] = self.filters
        return found


class Conv2DTranspose(_Transposed):
    """Transposed convolution of (examples, height, width, channels).  Source: tf.layers.Conv2DTranspose."""

    spatial, function = 2, "conv2d_transpose"


class Conv3DTranspose(_Transposed):
    """Transposed convolution of (examples, depth, height, width, channels).  Source: tf.layers.Conv3DTranspose."""

    spatial, function = 3, "conv3d_transpose"


class _Separable(_Convolution):
    """A convolution of each channel by itself, then one that mixes the channels."""

    def __init__(self, filters: int, kernel_size: Sizes, strides: Sizes = 1, padding: str = "valid",
                 data_format: str = "channels_last", dilation_rate: Sizes = 1, depth_multiplier: int = 1,
                 activation: Any = None, use_bias: bool = True, depthwise_initializer: Any = None,
                 pointwise_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
                 depthwise_regularizer: Any = None, pointwise_regularizer: Any = None, bias_regularizer: Any = None,
                 activity_regularizer: Any = None, depthwise_constraint: Any = None, pointwise_constraint: Any = None,
                 bias_constraint: Any = None, trainable: bool = True, name: str | None = None,
                 _reuse: Any = None) -> None:
        super().__init__(filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
                         (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer, trainable, name,
                         _reuse)
        self.depth_multiplier = int(depth_multiplier)
        self._depthwise = (depthwise_initializer, depthwise_regularizer, depthwise_constraint)
        self._pointwise = (pointwise_initializer, pointwise_regularizer, pointwise_constraint)
        self.depthwise_kernel: Any = None
        self.pointwise_kernel: Any = None

    def call(self, inputs: Tensor, **arguments: Any) -> Tensor:
        channels = self._channels(inputs)
        ones = (1,) * self.spatial
        self.depthwise_kernel = self._variable("depthwise_kernel", [*self.kernel_size, channels, self.depth_multiplier],
                                               inputs.dtype, *self._depthwise)
        self.pointwise_kernel = self._variable("pointwise_kernel", [
            *ones, channels * self.depth_multiplier, self.filters], inputs.dtype, *self._pointwise)
        depthwise, pointwise = self.depthwise_kernel.value(), self.pointwise_kernel.value()
        steps, rates, form, value, at = self.strides, self.dilation_rate, self._layout, inputs, self.channel_axis
        if self.spatial == 1:  # as an image of one row; TensorFlow takes the stride for both axes, one row has one
            row = 2 if at == 1 else 1
            value, form = array.expand_dims(value, row), "NCHW" if at == 1 else "NHWC"
            depthwise, pointwise = array.expand_dims(depthwise, 0), array.expand_dims(pointwise, 0)
            steps, rates = (1, *steps), (1, *rates)
        every = (1, 1, *steps) if at == 1 else (1, *steps, 1)
        result = nn_convolution.separable_conv2d(value, depthwise, pointwise, every, self.padding.upper(), rates,
                                                 data_format=form)
        if self.spatial == 1:
            result = array.squeeze(result, [2 if at == 1 else 1])
        return self._finished(result)


class SeparableConv1D(_Separable):
    """Separable convolution of (examples, length, channels).  Source: tf.layers.SeparableConv1D."""

    spatial, function = 1, "separable_conv1d"


class SeparableConv2D(_Separable):
    """Separable convolution of (examples, height, width, channels).  Source: tf.layers.SeparableConv2D."""

    spatial, function = 2, "separable_conv2d"


# -- functions --------------------------------------------------------------------------------------------------------


def conv1d(inputs: Any, filters: int, kernel_size: Sizes, strides: Sizes = 1, padding: str = "valid",
           data_format: str = "channels_last", dilation_rate: Sizes = 1, activation: Any = None, use_bias: bool = True,
           kernel_initializer: Any = None, bias_initializer: Any = initializers.Zeros, kernel_regularizer: Any = None,
           bias_regularizer: Any = None, activity_regularizer: Any = None, kernel_constraint: Any = None,
           bias_constraint: Any = None, trainable: bool = True, name: str | None = None, reuse: Any = None) -> Tensor:
    """Return activation(convolution of (examples, length, channels) + bias).  Source: tf.layers.conv1d."""
    return Conv1D(filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
                  kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer,
                  kernel_constraint, bias_constraint, trainable, name, reuse)(inputs)


def conv2d(inputs: Any, filters: int, kernel_size: Sizes, strides: Sizes = (1, 1), padding: str = "valid",
           data_format: str = "channels_last", dilation_rate: Sizes = (1, 1), activation: Any = None,
           use_bias: bool = True, kernel_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
           kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None,
           kernel_constraint: Any = None, bias_constraint: Any = None, trainable: bool = True, name: str | None = None,
           reuse: Any = None) -> Tensor:
    """Return activation(convolution of (examples, height, width, channels) + bias).

    Variables: NAME/kernel (height, width, channels, filters) and NAME/bias (filters).  Source: tf.layers.conv2d.
    """
    return Conv2D(filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
                  kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer,
                  kernel_constraint, bias_constraint, trainable, name, reuse)(inputs)


def conv3d(inputs: Any, filters: int, kernel_size: Sizes, strides: Sizes = (1, 1, 1), padding: str = "valid",
           data_format: str = "channels_last", dilation_rate: Sizes = (1, 1, 1), activation: Any = None,
           use_bias: bool = True, kernel_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
           kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None,
           kernel_constraint: Any = None, bias_constraint: Any = None, trainable: bool = True, name: str | None = None,
           reuse: Any = None) -> Tensor:
    """Return activation(convolution of volumes + bias).  Source: tf.layers.conv3d."""
    return Conv3D(filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
                  kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer,
                  kernel_constraint, bias_constraint, trainable, name, reuse)(inputs)


def conv2d_transpose(inputs: Any, filters: int, kernel_size: Sizes, strides: Sizes = (1, 1), padding: str = "valid",
                     data_format: str = "channels_last", activation: Any = None, use_bias: bool = True,
                     kernel_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
                     kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None,
                     kernel_constraint: Any = None, bias_constraint: Any = None, trainable: bool = True,
                     name: str | None = None, reuse: Any = None) -> Tensor:
    """Return activation(transposed convolution of (examples, height, width, channels) + bias).

    Variables: NAME/kernel (height, width, filters, channels) and NAME/bias (filters).
    Source: tf.layers.conv2d_transpose.
    """
    return Conv2DTranspose(filters, kernel_size, strides, padding, data_format, activation, use_bias,
                           kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
                           activity_regularizer, kernel_constraint, bias_constraint, trainable, name, reuse)(inputs)


def conv3d_transpose(inputs: Any, filters: int, kernel_size: Sizes, strides: Sizes = (1, 1, 1), padding: str = "valid",
                     data_format: str = "channels_last", activation: Any = None, use_bias: bool = True,
                     kernel_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
                     kernel_regularizer: Any = None, bias_regularizer: Any = None, activity_regularizer: Any = None,
                     kernel_constraint: Any = None, bias_constraint: Any = None, trainable: bool = True,
                     name: str | None = None, reuse: Any = None) -> Tensor:
    """Return activation(transposed convolution of (examples, depth, height, width, channels) + bias).

    Source: tf.layers.conv3d_transpose.
    """
    return Conv3DTranspose(filters, kernel_size, strides, padding, data_format, activation, use_bias,
                           kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
                           activity_regularizer, kernel_constraint, bias_constraint, trainable, name, reuse)(inputs)


def separable_conv1d(inputs: Any, filters: int, kernel_size: Sizes, strides: Sizes = 1, padding: str = "valid",
                     data_format: str = "channels_last", dilation_rate: Sizes = 1, depth_multiplier: int = 1,
                     activation: Any = None, use_bias: bool = True, depthwise_initializer: Any = None,
                     pointwise_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
                     depthwise_regularizer: Any = None, pointwise_regularizer: Any = None, bias_regularizer: Any = None,
                     activity_regularizer: Any = None, depthwise_constraint: Any = None,
                     pointwise_constraint: Any = None, bias_constraint: Any = None, trainable: bool = True,
                     name: str | None = None, reuse: Any = None) -> Tensor:
    """Return activation(separable convolution of (examples, length, channels) + bias).

    Source: tf.layers.separable_conv1d.
    """
    return SeparableConv1D(filters, kernel_size, strides, padding, data_format, dilation_rate, depth_multiplier,
                           activation, use_bias, depthwise_initializer, pointwise_initializer, bias_initializer,
                           depthwise_regularizer, pointwise_regularizer, bias_regularizer, activity_regularizer,
                           depthwise_constraint, pointwise_constraint, bias_constraint, trainable, name, reuse)(inputs)


def separable_conv2d(inputs: Any, filters: int, kernel_size: Sizes, strides: Sizes = (1, 1), padding: str = "valid",
                     data_format: str = "channels_last", dilation_rate: Sizes = (1, 1), depth_multiplier: int = 1,
                     activation: Any = None, use_bias: bool = True, depthwise_initializer: Any = None,
                     pointwise_initializer: Any = None, bias_initializer: Any = initializers.Zeros,
                     depthwise_regularizer: Any = None, pointwise_regularizer: Any = None, bias_regularizer: Any = None,
                     activity_regularizer: Any = None, depthwise_constraint: Any = None,
                     pointwise_constraint: Any = None, bias_constraint: Any = None, trainable: bool = True,
                     name: str | None = None, reuse: Any = None) -> Tensor:
    """Return activation(separable convolution of (examples, height, width, channels) + bias).

    Variables: NAME/depthwise_kernel (height, width, channels, multiplier), NAME/pointwise_kernel (1, 1, channels *
    multiplier, filters) and NAME/bias (filters).  Source: tf.layers.separable_conv2d.
    """
    return SeparableConv2D(filters, kernel_size, strides, padding, data_format, dilation_rate, depth_multiplier,
                           activation, use_bias, depthwise_initializer, pointwise_initializer, bias_initializer,
                           depthwise_regularizer, pointwise_regularizer, bias_regularizer, activity_regularizer,
                           depthwise_constraint, pointwise_constraint, bias_constraint, trainable, name, reuse)(inputs)
