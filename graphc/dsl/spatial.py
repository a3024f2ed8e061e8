"""Axes moved between space, channels and examples: patches, blocks to channels, blocks to examples, and back.

Owns these functions of `tf`.  Must not know images as such.  Invariant: but for patches nothing is computed: each is a
reshape, a transpose, and padding or a crop.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from graphc.dsl import array
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.pooling import per_axis
from graphc.dsl.scope import create, has_tensor, name_scope, plain
from graphc.errors import GraphError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["batch_to_space", "batch_to_space_nd", "depth_to_space", "extract_image_patches", "space_to_batch",
           "space_to_batch_nd", "space_to_depth"]


def sizes_of(x: Tensor) -> list[Any]:
    """Return the sizes of x: ints where they are known, else scalars of its shape.  Raises ShapeError for no rank."""
    known = x.shape.sizes
    if known is None:
        raise at_user(ShapeError, "the rank must be known while the graph is built", [x])
    if None not in known:
        return list(known)
    shape = array.shape(x)
    return [shape[i] if n is None else n for i, n in enumerate(known)]


def _whole(size: Any, by: int, what: str, x: Tensor) -> Any:
    """size / by."""
    if isinstance(size, int) and size % by:
        raise at_user(ShapeError, f"{what}: {size} is no multiple of {by}", [x])
    return size // by


def space_to_depth(input: Any, block_size: int, name: str | None = None, data_format: str = "NHWC") -> Tensor:
    """Return images with each block of block_size x block_size elements as channels of one.

    (n, h, w, c) gives (n, h / s, w / s, s * s * c); channels first for "NCHW".  Source: tf.space_to_depth.
    """
    return _depth(input, block_size, name, data_format, True, "space_to_depth")


def depth_to_space(input: Any, block_size: int, name: str | None = None, data_format: str = "NHWC") -> Tensor:
    """Return images with the channels of each element as a block of block_size x block_size: space_to_depth undone.

    Source: tf.depth_to_space.
    """
    return _depth(input, block_size, name, data_format, False, "depth_to_space")


def _depth(input: Any, block: int, name: str | None, data_format: str, deeper: bool, what: str) -> Tensor:
    if data_format not in ("NHWC", "NCHW"):
        raise at_user(GraphError, f"{what}: data_format is 'NHWC' or 'NCHW', not {data_format!r}")
    if block < 1:
        raise at_user(GraphError, f"{what}: block_size is positive, it is {block}")
    first = data_format == "NCHW"
    with name_scope(name, what, [input]) as scope:
        x = convert_to_tensor(input, name="input")
        if x.shape.ndims != 4:
            raise at_user(ShapeError, f"{what}: the input has rank 4, its shape is {x.shape}", [x])
        n, *rest = sizes_of(x)
        c, h, w = rest if first else (rest[2], *rest[:2])
        if deeper:
            h, w = _whole(h, block, what, x), _whole(w, block, what, x)
            parts = [n, c, h, block, w, block] if first else [n, h, block, w, block, c]
            order = [0, 3, 5, 1, 2, 4] if first else [0, 1, 3, 2, 4, 5]
            c = c * block * block
        else:
            c = _whole(c, block * block, what, x)
            parts = [n, block, block, c, h, w] if first else [n, h, w, block, block, c]
            order = [0, 3, 4, 1, 5, 2] if first else [0, 1, 3, 2, 4, 5]
            h, w = h * block, w * block
        moved = array.transpose(array.reshape(x, parts), order)
        return array.reshape(moved, [n, c, h, w] if first else [n, h, w, c], scope)


def space_to_batch_nd(input: Any, block_shape: Any, paddings: Any, name: str | None = None) -> Tensor:
    """Return input, padded with zeros, with every block_shape-th element in an example of its own.

    block_shape: (m,), paddings: (m, 2), of the m axes after the first, known while the graph is built.
    Source: tf.space_to_batch_nd.
    """
    with name_scope(name, "SpaceToBatchND", [input]) as scope:
        x = convert_to_tensor(input, name="input")
        blocks, pads = _blocks("space_to_batch_nd", block_shape, paddings)
        rank = x.shape.ndims or 0
        if any(p != (0, 0) for p in pads):
            x = array.pad(x, [(0, 0), *pads, *[(0, 0)] * (rank - len(blocks) - 1)])
        n, *rest = sizes_of(x)
        m = len(blocks)
        inner = [_whole(s, b, "space_to_batch_nd", x) for s, b in zip(rest, blocks, strict=False)]
        parts = [n, *(v for s, b in zip(inner, blocks, strict=True) for v in (s, b)), *rest[m:]]
        order = [*range(2, 2 * m + 1, 2), 0, *range(1, 2 * m, 2), *range(2 * m + 1, rank + m)]
        moved = array.transpose(array.reshape(x, parts), order)
        for b in blocks:
            n = n * b
        return array.reshape(moved, [n, *inner, *rest[m:]], scope)


def batch_to_space_nd(input: Any, block_shape: Any, crops: Any, name: str | None = None) -> Tensor:
    """Return input with the elements of block_shape examples put between each other, and cropped: space_to_batch_nd
    undone.

    block_shape: (m,), crops: (m, 2), known while the graph is built.  Source: tf.batch_to_space_nd.
    """
    with name_scope(name, "BatchToSpaceND", [input]) as scope:
        x = convert_to_tensor(input, name="input")
        blocks, cut = _blocks("batch_to_space_nd", block_shape, crops)
        m, rank = len(blocks), x.shape.ndims or 0
        n, *rest = sizes_of(x)
        for b in blocks:
            n = _whole(n, b, "batch_to_space_nd", x)
        order = [m, *(v for i in range(m) for v in (m + 1 + i, i)), *range(2 * m + 1, rank + m)]
        moved = array.transpose(array.reshape(x, [*blocks, n, *rest]), order)
        grown = [s * b for s, b in zip(rest, blocks, strict=False)]
        last = all(c == (0, 0) for c in cut)
        spread = array.reshape(moved, [n, *grown, *rest[m:]], scope if last else None)
        if last:
            return spread
        begin = [0, *(c[0] for c in cut), *[0] * (rank - m - 1)]
        size = [n, *(g - c[0] - c[1] for g, c in zip(grown, cut, strict=True)), *rest[m:]]
        return array.slice_(spread, begin, size, scope)


def _blocks(what: str, block_shape: Any, pairs: Any) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    blocks, ends = plain(block_shape), plain(pairs)
    if has_tensor(blocks) or has_tensor(ends) or not isinstance(blocks, tuple) or not isinstance(ends, tuple):
        raise at_user(GraphError, f"{what}: block_shape and paddings or crops must be known while the graph is built")
    if len(blocks) != len(ends) or any(b < 1 for b in blocks):
        raise at_user(ShapeError, f"{what}: {len(blocks)} positive sizes of blocks need as many pairs, not {ends}")
    return blocks, tuple((int(a), int(z)) for a, z in ends)


def space_to_batch(input: Any, paddings: Any, block_size: int, name: str | None = None) -> Tensor:
    """Return space_to_batch_nd of images with square blocks.  Source: tf.space_to_batch."""
    return space_to_batch_nd(input, (block_size, block_size), paddings, name)


def batch_to_space(input: Any, crops: Any, block_size: int, name: str | None = None) -> Tensor:
    """Return batch_to_space_nd of images with square blocks.  Source: tf.batch_to_space."""
    return batch_to_space_nd(input, (block_size, block_size), crops, name)


def extract_image_patches(images: Any, ksizes: Sequence[int] | None = None, strides: Sequence[int] | None = None,
                          rates: Sequence[int] | None = None, padding: str | None = None, name: str | None = None,
                          sizes: Sequence[int] | None = None) -> Tensor:
    """Return the windows of images, the elements of each as one row, channels fastest; zeros outside of the image.

    images: (n, h, w, c); ksizes (or sizes), strides, rates: one number for each axis, the first and the last 1.
    Result: (n, rows, columns, height * width * c of a window).  Source: tf.extract_image_patches.
    """
    taps = ksizes if sizes is None else sizes
    if taps is None or strides is None or rates is None or padding is None:
        raise at_user(GraphError, "extract_image_patches: ksizes, strides, rates and padding must be given")
    attrs = {n: per_axis(v, 2, False, f"extract_image_patches: {n}")
             for n, v in (("ksizes", taps), ("strides", strides), ("rates", rates))}
    with name_scope(name, "ExtractImagePatches", [images]) as scope:
        x = convert_to_tensor(images, name="images")
        rows = cast(Tensor, create("Patches", None, [x], {**attrs, "padding": padding.upper()}))
        n, down, across, height, width, channels = sizes_of(rows)
        return array.reshape(rows, [n, down, across, height * width * channels], scope)
