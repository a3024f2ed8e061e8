"""Limiting values and norms.

Owns TensorFlow 1's clipping functions.  Invariant: rows (IndexedSlices) stay rows.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from graphc.dsl import array
from graphc.dsl import elementwise as ew
from graphc.dsl import reduction as red
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, name_scope
from graphc.errors import GraphError
from graphc.graph.operation import at_user
from graphc.graph.tensor import IndexedSlices, Tensor

__all__ = ["clip_by_average_norm", "clip_by_global_norm", "clip_by_norm", "clip_by_value", "global_norm"]


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any, name: str | None = None) -> Any:
    """Return elements limited to [clip_value_min, clip_value_max].  Source: tf.clip_by_value."""
    with name_scope(name, "clip_by_value", [t, clip_value_min, clip_value_max]) as scope:
        values = t.values if isinstance(t, IndexedSlices) else convert_to_tensor(t, name="t")
        low = convert_to_tensor(clip_value_min, values.dtype, "min")
        high = convert_to_tensor(clip_value_max, values.dtype, "max")
        clipped = cast(Tensor, create("ClipByValue", scope, [values, low, high]))
        return IndexedSlices(clipped, t.indices, t.dense_shape) if isinstance(t, IndexedSlices) else clipped


def clip_by_norm(t: Any, clip_norm: Any, axes: Any = None, name: str | None = None) -> Any:
    """Return t scaled to the L2 norm clip_norm over `axes` where it is larger.  Source: tf.clip_by_norm."""
    with name_scope(name, "clip_by_norm", [t, clip_norm]) as scope:
        values = t.values if isinstance(t, IndexedSlices) else convert_to_tensor(t, name="t")
        squares = red.reduce_sum(ew.square(values), axes, True)
        positive = ew.greater(squares, 0)
        # the root is taken of 1 where the norm is 0: its gradient there would be infinite
        safe = array.where_v2(positive, squares, array.ones_like(squares))
        norm = array.where_v2(positive, ew.sqrt(safe), squares)
        clipped = ew.divide(values * clip_norm, ew.maximum(norm, clip_norm), scope)
        return IndexedSlices(clipped, t.indices, t.dense_shape) if isinstance(t, IndexedSlices) else clipped


def global_norm(t_list: Sequence[Any], name: str | None = None) -> Tensor:
    """Return sqrt(sum of squares of all elements of all tensors); None entries are left out.

    Source: tf.global_norm.
    """
    _check_list(t_list, "global_norm")
    with name_scope(name, "global_norm", list(t_list)):
        halves = [red.l2_loss(t.values if isinstance(t, IndexedSlices) else t) for t in t_list if t is not None]
        if not halves:
            raise at_user(GraphError, "global_norm: all entries are None")
        total = halves[0] if len(halves) == 1 else ew.add_n(halves)
        return ew.sqrt(total * 2, "global_norm")


def clip_by_global_norm(t_list: Sequence[Any], clip_norm: Any, use_norm: Any = None,
                        name: str | None = None) -> tuple[list[Any], Tensor]:
    """Return the tensors scaled by clip_norm / max(global_norm, clip_norm), and the global norm.

    None entries stay None.  Where the norm is not finite all results are NaN.
    Sources: tf.clip_by_global_norm; Pascanu et al. (2012).
    """
    _check_list(t_list, "clip_by_global_norm")
    norm = global_norm(t_list, name) if use_norm is None else convert_to_tensor(use_norm)
    with name_scope(name, "clip_by_global_norm", list(t_list)):
        limit = convert_to_tensor(clip_norm, norm.dtype)
        scale = limit * ew.minimum(1.0 / norm, 1.0 / limit)
        # norm - norm is 0, and NaN where the norm is infinite
        scale = scale + (norm - norm)
        return [_scaled(t, scale) for t in t_list], norm


def _scaled(t: Any, scale: Tensor) -> Any:
    if t is None:
        return None
    if isinstance(t, IndexedSlices):
        return IndexedSlices(t.values * ew.cast(scale, t.dtype), t.indices, t.dense_shape)
    value = convert_to_tensor(t)
    return value * ew.cast(scale, value.dtype)


def clip_by_average_norm(t: Any, clip_norm: Any, name: str | None = None) -> Tensor:
    """Return t scaled to the L2 norm per element clip_norm where it is larger.  Source: tf.clip_by_average_norm."""
    with name_scope(name, "clip_by_average_norm", [t, clip_norm]) as scope:
        x = convert_to_tensor(t, name="t")
        count = ew.cast(array.size(x), x.dtype)
        inverse = ew.rsqrt(red.reduce_sum(ew.square(x), keepdims=x.shape.ndims is not None)) * count
        return ew.multiply(x * clip_norm, ew.minimum(inverse, 1.0 / convert_to_tensor(clip_norm, x.dtype)), scope)


def _check_list(values: Any, what: str) -> None:
    if isinstance(values, (str, Tensor)) or not isinstance(values, Sequence):
        raise TypeError(f"{what}: a list of tensors is needed, not {type(values).__name__}")
