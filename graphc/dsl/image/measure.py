"""What images are measured by: differences of neighbours, edges, total variation, signal to noise.

Owns these functions of `tf.image`.  Must not know resizing.  Invariant: images are (examples, height, width, channels).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dsl import array, nn_convolution
from graphc.dsl import elementwise as ew
from graphc.dsl import reduction as red
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.image.colour import convert_image_dtype
from graphc.dsl.image.geometry import image_axes
from graphc.dsl.scope import name_scope
from graphc.dsl.spatial import sizes_of
from graphc.dtypes import float32
from graphc.errors import ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["image_gradients", "psnr", "sobel_edges", "total_variation"]


def total_variation(images: Any, name: str | None = None) -> Tensor:
    """Return the sum of the absolute differences of neighbours, a scalar or one for each example.

    Sources: tf.image.total_variation; Rudin, Osher and Fatemi (1992).
    """
    with name_scope(name, "total_variation", [images]):
        x, rows = image_axes(images, "total_variation")
        down, across = (x[1:] - x[:-1], x[:, 1:] - x[:, :-1]) if rows == 0 else \
            (x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1])
        axes = [rows, rows + 1, rows + 2]
        return red.reduce_sum(ew.abs(down), axes) + red.reduce_sum(ew.abs(across), axes)


def image_gradients(image: Any) -> tuple[Tensor, Tensor]:
    """Return the differences to the next row and the next column, 0 at the end.  Source: tf.image.image_gradients."""
    with name_scope(None, "image_gradients", [image]):
        x = convert_to_tensor(image, name="image")
        if x.shape.ndims != 4:
            raise at_user(ShapeError, f"image_gradients: images have rank 4, the shape is {x.shape}", [x])
        down = array.pad(x[:, 1:] - x[:, :-1], [(0, 0), (0, 1), (0, 0), (0, 0)])
        across = array.pad(x[:, :, 1:] - x[:, :, :-1], [(0, 0), (0, 0), (0, 1), (0, 0)])
        return down, across


def sobel_edges(image: Any) -> Tensor:
    """Return Sobel's vertical and horizontal derivatives as (n, h, w, channels, 2), the edge mirrored.

    Source: tf.image.sobel_edges.
    """
    with name_scope(None, "sobel_edges", [image]):
        x = convert_to_tensor(image, name="image")
        channels = x.shape[-1].value if x.shape.ndims == 4 else None
        if channels is None:
            raise at_user(ShapeError, f"sobel_edges: images have rank 4 and known channels, not {x.shape}", [x])
        down = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], np.float32)
        both = np.stack([down, down.T], -1)
        kernel = np.tile(both[:, :, None, :], (1, 1, channels, 1))
        framed = array.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], "REFLECT")
        edges = nn_convolution.depthwise_conv2d(framed, kernel, [1, 1, 1, 1], "VALID")
        return array.reshape(edges, [*sizes_of(x), 2])


def psnr(a: Any, b: Any, max_val: float, name: str | None = None) -> Tensor:
    """Return the peak signal-to-noise ratio in decibels of each pair of images (..., height, width, channels).

    Source: tf.image.psnr.
    """
    with name_scope(name, "PSNR", [a, b]):
        x, y = (convert_image_dtype(v, float32) for v in (a, b))
        largest = float(convert_to_tensor(a).dtype.max) if not convert_to_tensor(a).dtype.is_floating else 1.0
        error = red.reduce_mean(ew.squared_difference(x, y), [-3, -2, -1])
        return 20.0 * float(np.log10(max_val / largest)) - float(10 / np.log(10)) * ew.log(error)
