"""Images resized: nearest, bilinear and bicubic.

Owns these functions of `tf.image`.  Must not know how an axis is resized.  Invariant: without align_corners and
half_pixel_centers the first elements stay in their place, as in TensorFlow 1.
"""
from __future__ import annotations

from enum import IntEnum
from typing import Any, cast

from graphc.dsl import array
from graphc.dsl import elementwise as ew
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.image.geometry import image_axes
from graphc.dsl.scope import create, has_tensor, name_scope, plain
from graphc.dsl.spatial import sizes_of
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["ResizeMethod", "resize", "resize_bicubic", "resize_bilinear", "resize_images", "resize_nearest_neighbor"]


class ResizeMethod(IntEnum):
    """How an image is resized.  Source: tf.image.ResizeMethod."""

    BILINEAR = 0
    NEAREST_NEIGHBOR = 1
    BICUBIC = 2
    AREA = 3


def _resized(op_type: str, images: Any, size: Any, align_corners: bool, half_pixel_centers: bool,
             name: str | None) -> Tensor:
    with name_scope(name, op_type, [images, size]) as scope:
        x = convert_to_tensor(images, name="images")
        target = plain(size)
        if has_tensor(target) or not isinstance(target, tuple):
            target = convert_to_tensor(size, name="size")
        return cast(Tensor, create(op_type, scope, [x, target], {
            "align_corners": bool(align_corners), "half_pixel_centers": bool(half_pixel_centers)}))


def resize_nearest_neighbor(images: Any, size: Any, align_corners: bool = False, name: str | None = None,
                            half_pixel_centers: bool = False) -> Tensor:
    """Return a batch of images resized to (height, width): the nearest elements, of the images' dtype.

    Source: tf.image.resize_nearest_neighbor.
    """
    return _resized("ResizeNearestNeighbor", images, size, align_corners, half_pixel_centers, name)


def resize_bilinear(images: Any, size: Any, align_corners: bool = False, name: str | None = None,
                    half_pixel_centers: bool = False) -> Tensor:
    """Return a batch of images resized to (height, width) by linear interpolation; float32.

    align_corners: the corner elements keep their values.  half_pixel_centers: elements are areas, not points.
    Source: tf.image.resize_bilinear.
    """
    return _resized("ResizeBilinear", images, size, align_corners, half_pixel_centers, name)


def resize_bicubic(images: Any, size: Any, align_corners: bool = False, name: str | None = None,
                   half_pixel_centers: bool = False) -> Tensor:
    """Return a batch of images resized to (height, width) by cubic interpolation; float32.

    Sources: tf.image.resize_bicubic; Keys, "Cubic convolution interpolation", 1981.
    """
    return _resized("ResizeBicubic", images, size, align_corners, half_pixel_centers, name)


def resize_images(images: Any, size: Any, method: Any = ResizeMethod.BILINEAR, align_corners: bool = False,
                  preserve_aspect_ratio: bool = False, name: str | None = None) -> Tensor:
    """Return an image or a batch of images resized to (height, width); as it is where it has that size.

    method: of ResizeMethod; AREA raises GraphError.  Source: tf.image.resize_images.
    """
    functions = {ResizeMethod.BILINEAR: resize_bilinear, ResizeMethod.NEAREST_NEIGHBOR: resize_nearest_neighbor,
                 ResizeMethod.BICUBIC: resize_bicubic}
    if method not in functions:
        raise at_user(GraphError, f"resize_images: method {method!r} is not supported; it is BILINEAR, "
                                  "NEAREST_NEIGHBOR or BICUBIC")
    with name_scope(name, "resize", [images, size]):
        x, rows = image_axes(images, "resize_images")
        target: Any = plain(size)
        if isinstance(target, tuple) and len(target) != 2:
            raise at_user(ShapeError, f"resize_images: the size is (height, width), not {target}")
        if preserve_aspect_ratio:
            target = _within(x, rows, target)
        known = x.shape.sizes
        if known is not None and isinstance(target, tuple) and known[rows:rows + 2] == target:
            return x
        batch = array.expand_dims(x, 0) if rows == 0 else x
        resized = functions[method](batch, target, align_corners)
        return array.squeeze(resized, [0]) if rows == 0 else resized


resize = resize_images


def _within(x: Tensor, rows: int, target: Any) -> Any:
    """The largest size of x's proportions that lies in the target's."""
    sizes = sizes_of(x)[rows:rows + 2]
    if not all(isinstance(n, int) for n in sizes) or not isinstance(target, tuple) or has_tensor(target):
        both = [ew.cast(n, "float32") for n in sizes]
        wanted = [ew.cast(target[i], "float32") for i in (0, 1)]
        scale = ew.minimum(wanted[0] / both[0], wanted[1] / both[1])
        return array.stack([ew.cast(ew.round(n * scale), "int32") for n in both])
    scale = min(target[0] / sizes[0], target[1] / sizes[1])
    return tuple(round(n * scale) for n in sizes)
