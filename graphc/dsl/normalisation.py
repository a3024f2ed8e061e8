"""Normalisation: moments, and batch, layer, instance, group and local response normalisation.

Owns what `tf.nn` names of it (the layer that keeps moving statistics stands in layers/normalisation.py).  Must not know
variables.  Invariant: a variance is a mean of squared distances, never a difference of large sums.
"""
from __future__ import annotations

from typing import Any, cast

from graphc.dsl import array
from graphc.dsl import elementwise as ew
from graphc.dsl import reduction as red
from graphc.dsl.convert import convert_to_tensor, matching
from graphc.dsl.reduction import older_name
from graphc.dsl.scope import create, name_scope, plain
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["batch_norm_with_global_normalization", "batch_normalization", "fused_batch_norm", "group_norm",
           "instance_norm", "l2_normalize", "layer_norm", "local_response_normalization", "lrn", "moments",
           "normalize_moments", "sufficient_statistics", "weighted_moments"]

LEAST_EPSILON = 1.001e-5
"""TensorFlow takes no smaller epsilon in fused batch normalisation (cuDNN's bound)."""


def moments(x: Any, axes: Any, shift: Any = None, name: str | None = None, keep_dims: bool | None = None,
            keepdims: bool | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and variance over `axes` (float16 computes in float32).  Source: tf.nn.moments."""
    keep = bool(older_name("keepdims", keepdims, "keep_dims", keep_dims))
    with name_scope(name, "moments", [x, axes]):
        value = convert_to_tensor(x, name="x")
        wide = ew.to_float(value) if value.dtype.size == 2 else value
        mean = red.reduce_mean(wide, axes, True, "mean")
        variance = red.reduce_mean(ew.squared_difference(wide, array.stop_gradient(mean)), axes, True, "variance")
        if not keep:
            dropped = plain(axes)
            dropped = (dropped,) if isinstance(dropped, int) else dropped
            mean, variance = array.squeeze(mean, dropped), array.squeeze(variance, dropped)
        if wide is not value:
            mean, variance = ew.cast(mean, value.dtype), ew.cast(variance, value.dtype)
        return mean, variance


def weighted_moments(x: Any, axes: Any, frequency_weights: Any, name: str | None = None,
                     keep_dims: bool | None = None, keepdims: bool | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and variance over `axes`, elements counted by their weights.  Source: tf.nn.weighted_moments."""
    keep = bool(older_name("keepdims", keepdims, "keep_dims", keep_dims))
    with name_scope(name, "weighted_moments", [x, axes, frequency_weights]):
        value, weights = matching(x, frequency_weights)
        spread = weights + array.zeros_like(value)
        total = red.reduce_sum(spread, axes, True)
        mean = red.reduce_sum(spread * value, axes, True) / total
        variance = red.reduce_sum(spread * ew.squared_difference(value, mean), axes, True) / total
        if keep:
            return mean, variance
        dropped = plain(axes)
        dropped = (dropped,) if isinstance(dropped, int) else dropped
        return array.squeeze(mean, dropped), array.squeeze(variance, dropped)


def sufficient_statistics(x: Any, axes: Any, shift: Any = None, keep_dims: bool | None = None, name: str | None = None,
                          keepdims: bool | None = None) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Return count, sum and sum of squares (of x - shift) over `axes`, and the shift.

    Source: tf.nn.sufficient_statistics.
    """
    keep = bool(older_name("keepdims", keepdims, "keep_dims", keep_dims))
    with name_scope(name, "sufficient_statistics", [x, shift]):
        value = convert_to_tensor(x, name="x")
        over = plain(axes)
        over = (over,) if isinstance(over, int) else over
        sizes = value.shape.sizes
        if sizes is not None and all(sizes[a] is not None for a in over):
            count = 1
            for a in over:
                count *= cast(int, sizes[a])
            number = convert_to_tensor(float(count), value.dtype, "count")
        else:
            number = ew.cast(red.reduce_prod(array.gather(array.shape(value), list(over))), value.dtype)
        offset = None if shift is None else convert_to_tensor(shift, value.dtype)
        centered = value if offset is None else value - offset
        return (number, red.reduce_sum(centered, over, keep, "mean_ss"),
                red.reduce_sum(ew.square(centered), over, keep, "var_ss"), offset)


def normalize_moments(counts: Any, mean_ss: Any, variance_ss: Any, shift: Any = None,
                      name: str | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and variance from sufficient statistics.  Source: tf.nn.normalize_moments."""
    with name_scope(name, "normalize", [counts, mean_ss, variance_ss, shift]):
        shifted = ew.divide(mean_ss, counts)
        variance = ew.divide(variance_ss, counts) - ew.square(shifted)
        return (shifted if shift is None else shifted + shift), variance


def batch_normalization(x: Any, mean: Any, variance: Any, offset: Any, scale: Any, variance_epsilon: Any,
                        name: str | None = None) -> Tensor:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + offset; scale and offset may be None.

    Sources: tf.nn.batch_normalization; Ioffe and Szegedy (2015).
    """
    with name_scope(name, "batchnorm", [x, mean, variance, scale, offset]):
        value = convert_to_tensor(x, name="x")
        factor = ew.rsqrt(ew.add(variance, variance_epsilon))
        if scale is not None:
            factor = factor * scale
        shift = -mean * factor if offset is None else offset - mean * factor
        return ew.add(value * ew.cast(factor, value.dtype), ew.cast(shift, value.dtype), "add_1")


def batch_norm_with_global_normalization(t: Any = None, m: Any = None, v: Any = None, beta: Any = None,
                                         gamma: Any = None,
                                         variance_epsilon: Any = None, scale_after_normalization: Any = None,
                                         name: str | None = None) -> Tensor:
    """Return batch_normalization by its first name.  Source: tf.nn.batch_norm_with_global_normalization."""
    return batch_normalization(t, m, v, beta, gamma if scale_after_normalization else None, variance_epsilon, name)


def layer_norm(x: Any, scale: Any = None, offset: Any = None, axes: Any = (-1,), epsilon: float = 1e-5,
               name: str | None = None) -> Tensor:
    """Return x normalised over `axes` of each example, times scale plus offset.  Source: Ba et al. (2016)."""
    with name_scope(name, "layer_norm", [x, scale, offset]):
        mean, variance = moments(x, axes, keepdims=True)
        return batch_normalization(x, mean, variance, offset, scale, epsilon)


def l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12, name: str | None = None, dim: Any = None) -> Tensor:
    """Return x / sqrt(max(sum(x²), epsilon)) over `axis`.  Source: tf.nn.l2_normalize."""
    along = older_name("axis", axis, "dim", dim)
    with name_scope(name, "l2_normalize", [x]) as scope:
        value = convert_to_tensor(x, name="x")
        total = red.reduce_sum(ew.square(value), along, True)
        return ew.multiply(value, ew.rsqrt(ew.maximum(total, epsilon)), scope)


def fused_batch_norm(x: Any, scale: Any, offset: Any, mean: Any = None, variance: Any = None, epsilon: float = 0.001,
                     data_format: str = "NHWC", is_training: bool = True,
                     name: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return x normalised by channel, and the mean and variance of the batch (the ones given, where not training).

    x: rank 4 or 5, floats; halves compute in float32, which scale, offset, mean and variance then are.  The variance
    that is returned in training is n / (n - 1) times that of the batch.  Raises GraphError for statistics that are
    missing, or given in training.  Sources: tf.nn.fused_batch_norm; Ioffe and Szegedy (2015).
    """
    if is_training and (mean is not None or variance is not None):
        raise at_user(GraphError, "fused_batch_norm: mean and variance must be left out in training, which takes "
                                  "those of the batch")
    if not is_training and (mean is None or variance is None):
        raise at_user(GraphError, "fused_batch_norm: mean and variance must be given outside of training")
    with name_scope(name, "FusedBatchNorm", [x, scale, offset, mean, variance]) as scope:
        value = convert_to_tensor(x, name="input")
        factor, shift = convert_to_tensor(scale, name="scale"), convert_to_tensor(offset, name="offset")
        given = [array.zeros([0], factor.dtype) if v is None else convert_to_tensor(v, name=what)
                 for v, what in ((mean, "mean"), (variance, "variance"))]
        y, batch_mean, batch_variance, *_ = create("FusedBatchNormV3", scope, [value, factor, shift, *given], {
            "epsilon": max(float(epsilon), LEAST_EPSILON), "data_format": data_format,
            "is_training": bool(is_training)})
        return y, batch_mean, batch_variance


def _by_channel(v: Any, channel: int, rank: int) -> Any:
    """A vector of the channels, or None, ready to meet a tensor of `rank`."""
    if v is None or channel == rank - 1:
        return v
    return array.expand_dims(v, tuple(range(1, rank - channel)))


def instance_norm(x: Any, scale: Any = None, offset: Any = None, epsilon: float = 1e-5, data_format: str = "NHWC",
                  name: str | None = None) -> Tensor:
    """Return x normalised over the spatial axes of each example and channel, times scale plus offset by channel.

    x: (examples, ..., channels), or (examples, channels, ...) where data_format begins with "NC".
    Source: Ulyanov et al. (2016).
    """
    with name_scope(name, "instance_norm", [x, scale, offset]):
        value = convert_to_tensor(x, name="x")
        rank = _known_rank(value, 3, "instance_norm")
        channel = 1 if data_format.startswith("NC") else rank - 1
        mean, variance = moments(value, [a for a in range(1, rank) if a != channel], keepdims=True)
        return batch_normalization(value, mean, variance, _by_channel(offset, channel, rank),
                                   _by_channel(scale, channel, rank), epsilon)


def group_norm(x: Any, groups: int = 32, scale: Any = None, offset: Any = None, epsilon: float = 1e-5,
               data_format: str = "NHWC", name: str | None = None) -> Tensor:
    """Return x normalised over the spatial axes and the channels of each of `groups` groups, of each example.

    The number of channels is known, and a multiple of `groups`.  Source: Wu and He (2018).
    """
    with name_scope(name, "group_norm", [x, scale, offset]):
        value = convert_to_tensor(x, name="x")
        rank = _known_rank(value, 2, "group_norm")
        channel = 1 if data_format.startswith("NC") else rank - 1
        count = value.shape[channel].value
        if count is None or count % groups:
            raise at_user(ShapeError, f"group_norm: {count} channels cannot be parted into {groups} groups", [value])
        known = value.shape.sizes or ()
        whole: Any = known if None not in known else [array.shape(value)[i] if n is None else n
                                                      for i, n in enumerate(known)]
        parted = array.reshape(value, [*whole[:channel], groups, count // groups, *whole[channel + 1:]])
        mean, variance = moments(parted, [a for a in range(1, rank + 1) if a != channel], keepdims=True)
        normal = array.reshape((parted - mean) * ew.rsqrt(variance + epsilon), whole)
        normal = normal if scale is None else normal * _by_channel(scale, channel, rank)
        return normal if offset is None else normal + _by_channel(offset, channel, rank)


def _known_rank(x: Tensor, least: int, what: str) -> int:
    rank = x.shape.ndims
    if rank is None or rank < least:
        raise at_user(ShapeError, f"{what}: {x.shape} must have a known rank of {least} or more", [x])
    return rank


def local_response_normalization(input: Any, depth_radius: int = 5, bias: float = 1.0, alpha: float = 1.0,
                                 beta: float = 0.5, name: str | None = None) -> Tensor:
    """Return x / (bias + alpha * sum of squares of the channels at most depth_radius away) ** beta.

    input: (examples, height, width, channels).  Sources: tf.nn.local_response_normalization; Krizhevsky et al. (2012).
    """
    with name_scope(name, "LRN", [input]) as scope:
        return cast(Tensor, create("LRN", scope, [convert_to_tensor(input, name="input")], {
            "depth_radius": int(depth_radius), "bias": float(bias), "alpha": float(alpha), "beta": float(beta)}))


lrn = local_response_normalization
