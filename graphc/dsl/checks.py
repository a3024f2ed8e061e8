"""Checks of shapes and dtypes while the graph is built.

Owns TensorFlow 1's static assertions.  Invariant: they add no operation; what cannot be decided before a run passes.
"""
from __future__ import annotations

from typing import Any

from graphc.dsl.control import no_op
from graphc.dsl.convert import convert_to_tensor
from graphc.errors import DTypeError, ShapeError
from graphc.graph.operation import Operation, at_user
from graphc.graph.shape import as_shape

__all__ = ["assert_rank", "assert_rank_at_least", "assert_same_float_dtype", "assert_scalar", "assert_type",
           "ensure_shape"]


def assert_rank(x: Any, rank: int, data: Any = None, summarize: Any = None, message: str | None = None,
                name: str | None = None) -> Operation:
    """Raise ShapeError where the static rank of x is not `rank`.  Source: tf.assert_rank."""
    value = convert_to_tensor(x)
    if value.shape.ndims not in (None, rank):
        raise at_user(ShapeError, f"{_lead(message)}{value.name} must have rank {rank}, its shape is {value.shape}",
                      [value])
    return no_op(name or "assert_rank")


def assert_rank_at_least(x: Any, rank: int, data: Any = None, summarize: Any = None, message: str | None = None,
                         name: str | None = None) -> Operation:
    """Raise ShapeError where the static rank of x is below `rank`.  Source: tf.assert_rank_at_least."""
    value = convert_to_tensor(x)
    if value.shape.ndims is not None and value.shape.ndims < rank:
        raise at_user(ShapeError, f"{_lead(message)}{value.name} must have rank {rank} or more, its shape is "
                                  f"{value.shape}", [value])
    return no_op(name or "assert_rank_at_least")


def assert_scalar(tensor: Any, name: str | None = None) -> Any:
    """Return `tensor`; raise ShapeError where it is no scalar.  Source: tf.assert_scalar."""
    value = convert_to_tensor(tensor)
    assert_rank(value, 0, name=name)
    return value


def assert_type(tensor: Any, tf_type: Any, message: str | None = None, name: str | None = None) -> Operation:
    """Raise DTypeError where the tensor has another dtype.  Source: tf.assert_type."""
    value = convert_to_tensor(tensor)
    if not value.dtype.is_compatible_with(tf_type):
        raise at_user(DTypeError, f"{_lead(message)}{value.name} must be {tf_type!r}, it is {value.dtype.name}",
                      [value])
    return no_op(name or "statically_determined_correct_type")


def assert_same_float_dtype(tensors: Any = None, dtype: Any = None) -> Any:
    """Return the one floating dtype of all tensors.  Raises DTypeError.  Source: tf.assert_same_float_dtype."""
    values = [convert_to_tensor(t) for t in tensors or ()]
    found = dtype if dtype is not None or not values else values[0].dtype
    for v in values:
        if v.dtype is not found or not v.dtype.is_floating:
            raise at_user(DTypeError, f"{v.name} must be {found}, and floating-point", values)
    return found


def ensure_shape(x: Any, shape: Any, name: str | None = None) -> Any:
    """Return x with the static shape added.  Raises ShapeError where it contradicts.  Source: tf.ensure_shape."""
    value = convert_to_tensor(x)
    value.set_shape(as_shape(shape))
    return value


def _lead(message: str | None) -> str:
    return f"{message}: " if message else ""
