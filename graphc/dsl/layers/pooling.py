"""Layers of pooling: maxima and means over windows, in one to three dimensions.

Owns what `tf.layers` names of them, as classes and as functions.  Must not know how windows are computed.
Invariant: they have no variables.
"""
from __future__ import annotations

from typing import Any

from graphc.dsl import pooling
from graphc.dsl.layers.base import Layer, layout, sizes
from graphc.errors import ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D",
           "average_pooling1d", "average_pooling2d", "average_pooling3d", "max_pooling1d", "max_pooling2d",
           "max_pooling3d"]


class _Pooling(Layer):
    """One pooling; `pool` is the function of `tf.nn`."""

    spatial = 2
    function = "max_pooling2d"
    pool: Any = staticmethod(pooling.max_pool2d)

    def __init__(self, pool_size: Any, strides: Any, padding: str = "valid", data_format: str = "channels_last",
                 name: str | None = None) -> None:
        super().__init__(name, self.function)
        self.pool_size = sizes(pool_size, self.spatial, f"{self.function}: pool_size")
        self.strides = sizes(pool_size if strides is None else strides, self.spatial, f"{self.function}: strides")
        self.padding = padding.lower()
        self.data_format = data_format
        self._layout = layout(data_format, self.spatial, self.function)

    def call(self, inputs: Tensor, **arguments: Any) -> Tensor:
        if inputs.shape.ndims not in (None, self.spatial + 2):
            raise at_user(ShapeError, f"{self.function}: the inputs have rank {self.spatial + 2} ({self._layout}), "
                                      f"their shape is {inputs.shape}", [inputs])
        result: Tensor = self.pool(inputs, self.pool_size, self.strides, self.padding.upper(), self._layout)
        return result


class MaxPooling1D(_Pooling):
    """The largest element of each window of (examples, length, channels).  Source: tf.layers.MaxPooling1D."""

    spatial, function, pool = 1, "max_pooling1d", staticmethod(pooling.max_pool1d)


class MaxPooling2D(_Pooling):
    """The largest element of each window of (examples, height, width, channels).  Source: tf.layers.MaxPooling2D."""

    spatial, function, pool = 2, "max_pooling2d", staticmethod(pooling.max_pool2d)


class MaxPooling3D(_Pooling):
    """The largest element of each window of volumes.  Source: tf.layers.MaxPooling3D."""

    spatial, function, pool = 3, "max_pooling3d", staticmethod(pooling.max_pool3d)


class AveragePooling1D(_Pooling):
    """The mean of each window of (examples, length, channels).  Source: tf.layers.AveragePooling1D."""

    spatial, function, pool = 1, "average_pooling1d", staticmethod(pooling.avg_pool1d)


class AveragePooling2D(_Pooling):
    """The mean of each window of (examples, height, width, channels).  Source: tf.layers.AveragePooling2D."""

    spatial, function, pool = 2, "average_pooling2d", staticmethod(pooling.avg_pool2d)


class AveragePooling3D(_Pooling):
    """The mean of each window of volumes.  Source: tf.layers.AveragePooling3D."""

    spatial, function, pool = 3, "average_pooling3d", staticmethod(pooling.avg_pool3d)


def max_pooling1d(inputs: Any, pool_size: Any, strides: Any, padding: str = "valid",
                  data_format: str = "channels_last", name: str | None = None) -> Tensor:
    """Return the largest element of each window of (examples, length, channels).  Source: tf.layers.max_pooling1d."""
    return MaxPooling1D(pool_size, strides, padding, data_format, name)(inputs)


def max_pooling2d(inputs: Any, pool_size: Any, strides: Any, padding: str = "valid",
                  data_format: str = "channels_last", name: str | None = None) -> Tensor:
    """Return the largest element of each window of a batch of images.

    pool_size, strides: one number, or one for height and one for width.  Source: tf.layers.max_pooling2d.
    """
    return MaxPooling2D(pool_size, strides, padding, data_format, name)(inputs)


def max_pooling3d(inputs: Any, pool_size: Any, strides: Any, padding: str = "valid",
                  data_format: str = "channels_last", name: str | None = None) -> Tensor:
    """Return the largest element of each window of volumes.  Source: tf.layers.max_pooling3d."""
    return MaxPooling3D(pool_size, strides, padding, data_format, name)(inputs)


def average_pooling1d(inputs: Any, pool_size: Any, strides: Any, padding: str = "valid",
                      data_format: str = "channels_last", name: str | None = None) -> Tensor:
    """Return the mean of each window of (examples, length, channels).  Source: tf.layers.average_pooling1d."""
    return AveragePooling1D(pool_size, strides, padding, data_format, name)(inputs)


def average_pooling2d(inputs: Any, pool_size: Any, strides: Any, padding: str = "valid",
                      data_format: str = "channels_last", name: str | None = None) -> Tensor:
    """Return the mean of each window of a batch of images; padding does not count.

    Source: tf.layers.average_pooling2d.
    """
    return AveragePooling2D(pool_size, strides, padding, data_format, name)(inputs)


def average_pooling3d(inputs: Any, pool_size: Any, strides: Any, padding: str = "valid",
                      data_format: str = "channels_last", name: str | None = None) -> Tensor:
    """Return the mean of each window of volumes.  Source: tf.layers.average_pooling3d."""
    return AveragePooling3D(pool_size, strides, padding, data_format, name)(inputs)
