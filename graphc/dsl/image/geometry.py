"""Images cut, framed, mirrored and turned.

Owns these functions of `tf.image`.  Must not know colours.  Invariant: an image is (height, width, channels), a batch
has the examples in front; elements move, none is computed.
"""
from __future__ import annotations

from fractions import Fraction
from typing import Any

from graphc.dsl import array, random
from graphc.dsl import elementwise as ew
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import has_tensor, name_scope
from graphc.dsl.spatial import sizes_of
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["central_crop", "crop_to_bounding_box", "flip_left_right", "flip_up_down", "pad_to_bounding_box",
           "random_crop", "random_flip_left_right", "random_flip_up_down", "resize_image_with_crop_or_pad",
           "resize_with_crop_or_pad", "rot90", "transpose", "transpose_image"]

random_crop = random.random_crop


def image_axes(image: Any, what: str) -> tuple[Tensor, int]:
    """Return an image or a batch of images as a tensor, and the axis of its rows.  Raises ShapeError."""
    x = convert_to_tensor(image, name="image")
    if x.shape.ndims not in (3, 4):
        raise at_user(ShapeError, f"{what}: an image has rank 3, a batch of images rank 4, the shape is {x.shape}", [x])
    return x, 0 if x.shape.ndims == 3 else 1


# -- cutting and framing ----------------------------------------------------------------------------------------------


def crop_to_bounding_box(image: Any, offset_height: Any, offset_width: Any, target_height: Any,
                         target_width: Any) -> Tensor:
    """Return the box of an image (or of each of a batch) whose upper left corner lies at the offset.

    Raises ShapeError for a box that leaves the image.  Source: tf.image.crop_to_bounding_box.
    """
    with name_scope(None, "crop_to_bounding_box", [image]):
        x, rows = image_axes(image, "crop_to_bounding_box")
        for axis, start, size in ((rows, offset_height, target_height), (rows + 1, offset_width, target_width)):
            x = _part(x, axis, start, size)
        return x


def _part(x: Tensor, axis: int, start: Any, size: Any) -> Tensor:
    """`size` elements of an axis from `start` on; both may be tensors, a start that the run computes too."""
    whole = x.shape[axis].value
    if has_tensor(start) and convert_to_tensor(start).value is None:
        return array.gather(x, start + array.range_(size), axis=axis)
    if has_tensor(start):
        return _sliced(x, axis, start, size)
    if start < 0 or (not has_tensor(size) and (size < 1 or (whole is not None and start + size > whole))):
        raise at_user(ShapeError, f"crop_to_bounding_box: {size} elements from {start} on leave axis {axis} of "
                                  f"{x.shape}", [x])
    return x if start == 0 and size == whole else _sliced(x, axis, start, size)


def _sliced(x: Tensor, axis: int, start: Any, size: Any) -> Tensor:
    sizes = sizes_of(x)
    return array.slice_(x, [start if a == axis else 0 for a in range(len(sizes))],
                        [size if a == axis else n for a, n in enumerate(sizes)])


def pad_to_bounding_box(image: Any, offset_height: Any, offset_width: Any, target_height: Any,
                        target_width: Any) -> Tensor:
    """Return an image (or a batch) framed with zeros to the target's size, its corner at the offset.

    Raises ShapeError for an image that does not fit.  Source: tf.image.pad_to_bounding_box.
    """
    with name_scope(None, "pad_to_bounding_box", [image]):
        x, rows = image_axes(image, "pad_to_bounding_box")
        sizes = sizes_of(x)
        pads: list[Any] = [(0, 0)] * len(sizes)
        for axis, before, target in ((rows, offset_height, target_height), (rows + 1, offset_width, target_width)):
            after = target - before - sizes[axis]
            if any(isinstance(n, int) and n < 0 for n in (before, after)):
                raise at_user(ShapeError, f"pad_to_bounding_box: {sizes[axis]} elements at {before} do not fit into "
                                          f"{target}", [x])
            pads[axis] = (before, after)
        return x if all(p == (0, 0) for p in pads if not has_tensor(p)) and not has_tensor(pads) else array.pad(x, pads)


def resize_image_with_crop_or_pad(image: Any, target_height: Any, target_width: Any) -> Tensor:
    """Return an image (or a batch) cut or framed with zeros to the target's size, about its middle.

    Source: tf.image.resize_image_with_crop_or_pad.
    """
    with name_scope(None, "resize_image_with_crop_or_pad", [image]):
        x, rows = image_axes(image, "resize_image_with_crop_or_pad")
        sizes = sizes_of(x)
        crops, pads, kept = [], [], []
        for n, target in ((sizes[rows], target_height), (sizes[rows + 1], target_width)):
            if has_tensor(n) or has_tensor(target):
                spare = target - n
                crops.append(ew.maximum(-spare // 2, 0))
                pads.append(ew.maximum(spare // 2, 0))
                kept.append(ew.minimum(target, n))
            else:
                crops.append(max((n - target) // 2, 0))
                pads.append(max((target - n) // 2, 0))
                kept.append(min(target, n))
        cut = x
        for axis, start, size in zip((rows, rows + 1), crops, kept, strict=True):
            cut = _part(cut, axis, start, size)
        return pad_to_bounding_box(cut, pads[0], pads[1], target_height, target_width)


resize_with_crop_or_pad = resize_image_with_crop_or_pad


def central_crop(image: Any, central_fraction: float) -> Tensor:
    """Return the middle of an image (or of each of a batch): `central_fraction` of its height and width.

    Raises GraphError for a fraction outside (0, 1].  Source: tf.image.central_crop.
    """
    if not 0.0 < central_fraction <= 1.0:
        raise at_user(GraphError, f"central_crop: the fraction lies in (0, 1], it is {central_fraction}")
    with name_scope(None, "central_crop", [image]):
        x, rows = image_axes(image, "central_crop")
        if central_fraction == 1.0:
            return x
        for axis in (rows, rows + 1):
            n = sizes_of(x)[axis]
            if isinstance(n, int):
                start: Any = int((n - n * central_fraction) / 2)
            else:
                cut = 1 - Fraction(central_fraction).limit_denominator(1000)
                start = n * cut.numerator // (2 * cut.denominator)
            x = _part(x, axis, start, n - start * 2)
        return x


# -- mirroring and turning --------------------------------------------------------------------------------------------


def flip_left_right(image: Any) -> Tensor:
    """Return an image (or a batch) mirrored from left to right.  Source: tf.image.flip_left_right."""
    return _flip(image, 1, "flip_left_right")


def flip_up_down(image: Any) -> Tensor:
    """Return an image (or a batch) mirrored from top to bottom.  Source: tf.image.flip_up_down."""
    return _flip(image, 0, "flip_up_down")


def _flip(image: Any, along: int, what: str) -> Tensor:
    with name_scope(None, what, [image]) as scope:
        x, rows = image_axes(image, what)
        return array.reverse(x, [rows + along], scope)


def random_flip_left_right(image: Any, seed: int | None = None) -> Tensor:
    """Return an image mirrored from left to right with probability 1/2, each of a batch by itself.

    Source: tf.image.random_flip_left_right.
    """
    return _random_flip(image, 1, seed, "random_flip_left_right")


def random_flip_up_down(image: Any, seed: int | None = None) -> Tensor:
    """Return an image mirrored from top to bottom with probability 1/2, each of a batch by itself.

    Source: tf.image.random_flip_up_down.
    """
    return _random_flip(image, 0, seed, "random_flip_up_down")


def _random_flip(image: Any, along: int, seed: int | None, what: str) -> Tensor:
    with name_scope(None, what, [image]) as scope:
        x, rows = image_axes(image, what)
        shape = [] if rows == 0 else [sizes_of(x)[0], 1, 1, 1]
        chosen = ew.less(random.random_uniform(shape, 0, 1.0, seed=seed), 0.5)
        return array.where_v2(chosen, array.reverse(x, [rows + along]), x, scope)


def transpose(image: Any, name: str | None = None) -> Tensor:
    """Return an image (or a batch) with rows and columns exchanged.  Source: tf.image.transpose."""
    with name_scope(name, "transpose", [image]) as scope:
        x, rows = image_axes(image, "transpose")
        return array.transpose(x, [1, 0, 2] if rows == 0 else [0, 2, 1, 3], scope)


transpose_image = transpose


def rot90(image: Any, k: int = 1, name: str | None = None) -> Tensor:
    """Return an image (or a batch) turned counter-clockwise by k quarters.  Source: tf.image.rot90."""
    with name_scope(name, "rot90", [image]):
        x, rows = image_axes(image, "rot90")
        match k % 4:
            case 0:
                return array.identity(x)
            case 1:
                return array.reverse(transpose(x), [rows])
            case 2:
                return array.reverse(x, [rows, rows + 1])
            case _:
                return transpose(array.reverse(x, [rows]))
