"""Colours and brightness of images: conversions, adjustments by a given or a random amount, standardisation.

Owns these functions of `tf.image`.  Must not know geometry.  Invariant: integers stand for [0, 1] as fractions of their
largest value, floats for themselves; what is given as integers comes back as integers, saturated.
"""
from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.dsl import array, random
from graphc.dsl import elementwise as ew
from graphc.dsl import reduction as red
from graphc.dsl.clip import clip_by_value
from graphc.dsl.convert import constant, convert_to_tensor
from graphc.dsl.scope import has_tensor, name_scope
from graphc.dtypes import DType, float16, float32
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["adjust_brightness", "adjust_contrast", "adjust_gamma", "adjust_hue", "adjust_saturation",
           "convert_image_dtype", "grayscale_to_rgb", "hsv_to_rgb", "per_image_standardization", "random_brightness",
           "random_contrast", "random_hue", "random_saturation", "rgb_to_grayscale", "rgb_to_hsv"]

GREY = (0.2989, 0.5870, 0.1140)
"""How bright red, green and blue are.  Source: tf.image.rgb_to_grayscale (ITU-R BT.601)."""


def convert_image_dtype(image: Any, dtype: Any, saturate: bool = False, name: str | None = None) -> Tensor:
    """Return image in another dtype, scaled: integers are fractions of their largest value.

    saturate: values beyond the dtype become its ends (else they wrap).  Source: tf.image.convert_image_dtype.
    """
    wanted = dtypes.as_dtype(dtype)
    with name_scope(name, "convert_image", [image]):
        x = convert_to_tensor(image, name="image")
        if x.dtype is wanted:
            return array.identity(x)
        if x.dtype.is_floating and wanted.is_floating:
            return _changed(x, wanted, False)
        if x.dtype.is_floating:  # 1 becomes the largest, with room to round
            return _changed(ew.multiply(x, float(wanted.max) + 0.5), wanted, saturate)
        if wanted.is_floating:
            return ew.multiply(ew.cast(x, wanted), 1.0 / float(x.dtype.max))
        largest, target = int(x.dtype.max), int(wanted.max)
        if largest > target:
            return _changed(x // ((largest + 1) // (target + 1)), wanted, saturate)
        return ew.multiply(_changed(x, wanted, saturate), (target + 1) // (largest + 1))


def _changed(x: Tensor, dtype: DType, saturate: bool) -> Tensor:
    return ew.saturate_cast(x, dtype) if saturate else ew.cast(x, dtype)


def _as_float(image: Any) -> tuple[Tensor, DType]:
    """An image as floats, and the dtype that it had."""
    x = convert_to_tensor(image, name="image")
    return (x if x.dtype in (float16, float32) else convert_image_dtype(x, float32)), x.dtype


def _channels(x: Tensor, count: int, what: str) -> None:
    if x.shape.ndims is None or x.shape[-1].value not in (None, count):
        raise at_user(ShapeError, f"{what}: the last axis has {count} channels, the shape is {x.shape}", [x])


# -- grey, hue, saturation and value ----------------------------------------------------------------------------------


def rgb_to_grayscale(images: Any, name: str | None = None) -> Tensor:
    """Return the brightness of images (..., 3) as (..., 1).  Source: tf.image.rgb_to_grayscale."""
    with name_scope(name, "rgb_to_grayscale", [images]):
        x, dtype = _as_float(images)
        _channels(x, 3, "rgb_to_grayscale")
        grey = red.reduce_sum(x * constant(GREY, x.dtype), -1, True)
        return convert_image_dtype(grey, dtype)


def grayscale_to_rgb(images: Any, name: str | None = None) -> Tensor:
    """Return images (..., 1) with that channel three times.  Source: tf.image.grayscale_to_rgb."""
    with name_scope(name, "grayscale_to_rgb", [images]) as scope:
        x = convert_to_tensor(images, name="images")
        _channels(x, 1, "grayscale_to_rgb")
        return array.tile(x, [1] * ((x.shape.ndims or 1) - 1) + [3], scope)


def rgb_to_hsv(images: Any, name: str | None = None) -> Tensor:
    """Return hue, saturation and value, all in [0, 1], of images (..., 3) in [0, 1].

    Sources: tf.image.rgb_to_hsv; Smith, "Color gamut transform pairs", 1978.
    """
    with name_scope(name, "RGBToHSV", [images]) as scope:
        x = convert_to_tensor(images, name="images")
        _channels(x, 3, "rgb_to_hsv")
        r, g, b = array.unstack(x, 3, -1)
        value = ew.maximum(r, ew.maximum(g, b))
        spread = value - ew.minimum(r, ew.minimum(g, b))
        zero = array.zeros_like(value)
        saturation = array.where_v2(ew.greater(value, zero), spread / value, zero)
        sixth = 1.0 / (6.0 * spread)
        hue = array.where_v2(ew.equal(r, value), sixth * (g - b), array.where_v2(
            ew.equal(g, value), sixth * (b - r) + 2.0 / 6.0, sixth * (r - g) + 4.0 / 6.0))
        hue = array.where_v2(ew.greater(spread, zero), hue, zero)
        hue = array.where_v2(ew.less(hue, zero), hue + 1.0, hue)
        return array.stack([hue, saturation, value], -1, scope)


def hsv_to_rgb(images: Any, name: str | None = None) -> Tensor:
    """Return red, green and blue of hue, saturation and value (..., 3): rgb_to_hsv undone.

    Source: tf.image.hsv_to_rgb.
    """
    with name_scope(name, "HSVToRGB", [images]) as scope:
        x = convert_to_tensor(images, name="images")
        _channels(x, 3, "hsv_to_rgb")
        hue, saturation, value = array.unstack(x, 3, -1)
        six = hue * 6.0
        parts = (ew.abs(six - 3.0) - 1.0, 2.0 - ew.abs(six - 2.0), 2.0 - ew.abs(six - 4.0))
        rgb = [(1.0 - saturation + saturation * clip_by_value(p, 0.0, 1.0)) * value for p in parts]
        return array.stack(rgb, -1, scope)


# -- adjustments ------------------------------------------------------------------------------------------------------


def adjust_brightness(image: Any, delta: Any) -> Tensor:
    """Return image + delta.  Source: tf.image.adjust_brightness."""
    with name_scope(None, "adjust_brightness", [image, delta]):
        x, dtype = _as_float(image)
        return convert_image_dtype(x + ew.cast(delta, x.dtype), dtype, True)


def adjust_contrast(images: Any, contrast_factor: Any) -> Tensor:
    """Return (x - mean) * factor + mean, the mean over height and width of each channel.

    images: (..., height, width, channels).  Source: tf.image.adjust_contrast.
    """
    with name_scope(None, "adjust_contrast", [images, contrast_factor]):
        x, dtype = _as_float(images)
        if x.shape.ndims is None or x.shape.ndims < 3:
            raise at_user(ShapeError, f"adjust_contrast: images have rank 3 or more, the shape is {x.shape}", [x])
        wide = ew.cast(x, float32)
        mean = red.reduce_mean(wide, [-3, -2], True)
        changed = (wide - mean) * ew.cast(contrast_factor, float32) + mean
        return convert_image_dtype(ew.cast(changed, x.dtype), dtype, True)


def adjust_gamma(image: Any, gamma: Any = 1, gain: Any = 1) -> Tensor:
    """Return gain * image ** gamma.  Raises GraphError for a gamma below 0.  Source: tf.image.adjust_gamma."""
    if not has_tensor(gamma) and gamma < 0:
        raise at_user(GraphError, f"adjust_gamma: gamma is not negative, it is {gamma}")
    with name_scope(None, "adjust_gamma", [image, gamma, gain]):
        x, dtype = _as_float(image)
        return convert_image_dtype(x ** ew.cast(gamma, x.dtype) * gain, dtype, True)


def adjust_hue(image: Any, delta: Any, name: str | None = None) -> Tensor:
    """Return image (..., 3) with its hue moved by delta, a fraction of the circle.  Source: tf.image.adjust_hue."""
    with name_scope(name, "adjust_hue", [image]):
        x, dtype = _as_float(image)
        hue, saturation, value = array.unstack(rgb_to_hsv(x), 3, -1)
        moved = ew.floormod(hue + ew.cast(delta, x.dtype), 1.0)
        return convert_image_dtype(hsv_to_rgb(array.stack([moved, saturation, value], -1)), dtype, True)


def adjust_saturation(image: Any, saturation_factor: Any, name: str | None = None) -> Tensor:
    """Return image (..., 3) with its saturation times a factor, at most 1.  Source: tf.image.adjust_saturation."""
    with name_scope(name, "adjust_saturation", [image]):
        x, dtype = _as_float(image)
        hue, saturation, value = array.unstack(rgb_to_hsv(x), 3, -1)
        scaled = clip_by_value(saturation * ew.cast(saturation_factor, x.dtype), 0.0, 1.0)
        return convert_image_dtype(hsv_to_rgb(array.stack([hue, scaled, value], -1)), dtype, True)


def random_brightness(image: Any, max_delta: float, seed: int | None = None) -> Tensor:
    """Return adjust_brightness by a number in [-max_delta, max_delta).  Source: tf.image.random_brightness."""
    if max_delta < 0:
        raise at_user(GraphError, f"random_brightness: max_delta is not negative, it is {max_delta}")
    return adjust_brightness(image, random.random_uniform([], -max_delta, max_delta, seed=seed))


def _between(what: str, lower: float, upper: float) -> None:
    if not 0 <= lower < upper:
        raise at_user(GraphError, f"{what}: 0 <= lower < upper must hold, they are {lower} and {upper}")


def random_contrast(image: Any, lower: float, upper: float, seed: int | None = None) -> Tensor:
    """Return adjust_contrast by a factor in [lower, upper).  Source: tf.image.random_contrast."""
    _between("random_contrast", lower, upper)
    return adjust_contrast(image, random.random_uniform([], lower, upper, seed=seed))


def random_hue(image: Any, max_delta: float, seed: int | None = None) -> Tensor:
    """Return adjust_hue by a number in [-max_delta, max_delta), at most 1/2.  Source: tf.image.random_hue."""
    if not 0 <= max_delta <= 0.5:
        raise at_user(GraphError, f"random_hue: max_delta lies in [0, 0.5], it is {max_delta}")
    return adjust_hue(image, random.random_uniform([], -max_delta, max_delta, seed=seed))


def random_saturation(image: Any, lower: float, upper: float, seed: int | None = None) -> Tensor:
    """Return adjust_saturation by a factor in [lower, upper).  Source: tf.image.random_saturation."""
    _between("random_saturation", lower, upper)
    return adjust_saturation(image, random.random_uniform([], lower, upper, seed=seed))


def per_image_standardization(image: Any) -> Tensor:
    """Return (x - mean) / max(deviation, 1 / sqrt(elements)) of each image (..., height, width, channels), in float32.

    Source: tf.image.per_image_standardization.
    """
    with name_scope(None, "per_image_standardization", [image]):
        x = ew.cast(convert_to_tensor(image, name="image"), float32)
        if x.shape.ndims is None or x.shape.ndims < 3:
            raise at_user(ShapeError, f"per_image_standardization: an image has rank 3, the shape is {x.shape}", [x])
        mean = red.reduce_mean(x, [-1, -2, -3], True)
        variance = red.reduce_mean(ew.squared_difference(x, mean), [-1, -2, -3], True)
        count = red.reduce_prod(array.shape(x)[-3:])
        return ew.divide(x - mean, ew.maximum(ew.sqrt(variance), ew.rsqrt(ew.cast(count, float32))))
