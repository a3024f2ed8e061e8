"""Indexing: Python's `x[...]`, slices, gathering and scattering by index.

Owns the meaning of a key in brackets.  Must not know arithmetic.
Invariant: a key of plain numbers becomes attrs of one StridedSlice; tensors among them are packed and stay inputs.
"""
from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any, cast

import numpy as np

from graphc import dtypes
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, has_tensor, name_scope, plain
from graphc.errors import ShapeError
from graphc.graph.operation import at_user
from graphc.graph.shape import Dimension
from graphc.graph.tensor import Tensor

__all__ = ["confusion_matrix", "gather", "gather_nd", "getitem", "one_hot", "scatter_nd", "slice_", "strided_slice"]


def getitem(x: Tensor, key: Any) -> Tensor:
    """Return x[key]: ints, slices with steps, Ellipsis, None for a new axis, scalar tensors as ints.

    Raises TypeError for other keys, ShapeError out of range.  Source: tf.Tensor.__getitem__.
    """
    entries = key if isinstance(key, tuple) else tuple(key) if isinstance(key, list) else (key,)
    begin: list[Any] = []
    end: list[Any] = []
    strides: list[Any] = []
    masks = {"begin_mask": 0, "end_mask": 0, "ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 0}
    with name_scope(None, "strided_slice", [x]) as scope:
        for i, entry in enumerate(entries):
            bit, first, last, step = 1 << i, 0, 0, 1
            match entry:
                case EllipsisType():
                    masks["ellipsis_mask"] |= bit
                case None:
                    masks["new_axis_mask"] |= bit
                case slice():
                    first, masks["begin_mask"] = _bound(entry.start, bit, masks["begin_mask"])
                    last, masks["end_mask"] = _bound(entry.stop, bit, masks["end_mask"])
                    step = 1 if entry.step is None else _index(entry.step)
                case _:
                    first = _index(entry)
                    last = first + 1
                    masks["shrink_axis_mask"] |= bit
                    # x[-1] ends where the axis ends, which no bound can say
                    if isinstance(first, int) and first == -1:
                        last, masks["end_mask"] = 0, masks["end_mask"] | bit
            begin.append(first)
            end.append(last)
            strides.append(step)
        bounds = [_vector(v) for v in (begin, end, strides)]
        return cast(Tensor, create("StridedSlice", scope, [x, *bounds], masks))


def _bound(value: Any, bit: int, mask: int) -> tuple[Any, int]:
    return (0, mask | bit) if value is None else (_index(value), mask)


def _index(value: Any) -> Any:
    """An index as an int or an integer scalar tensor."""
    if isinstance(value, bool) or isinstance(value, (float, str)):
        raise TypeError(f"{value!r} is not an index: ints, slices, tf.newaxis, ... and integer scalar tensors are")
    if isinstance(value, (int, np.integer, Dimension)):
        return int(value)
    if not has_tensor(value) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        raise TypeError(f"{value!r} is not an index: ints, slices, tf.newaxis, ... and integer scalar tensors are; "
                        "tf.gather takes lists")
    tensor = convert_to_tensor(value)
    if tensor.dtype not in (dtypes.int32, dtypes.int64) or tensor.shape.ndims not in (0, None):
        raise TypeError(f"{tensor} is not an index: it must be an int32 or int64 scalar; tf.gather takes vectors")
    return tensor


def _vector(values: Sequence[Any]) -> Any:
    if not any(isinstance(v, Tensor) for v in values):
        return tuple(values)
    dtype = next(v.dtype for v in values if isinstance(v, Tensor))
    return create("Pack", None, [convert_to_tensor(v, dtype) for v in values], {"axis": 0})


def strided_slice(input_: Any, begin: Any, end: Any, strides: Any = None, begin_mask: int = 0, end_mask: int = 0,
                  ellipsis_mask: int = 0, new_axis_mask: int = 0, shrink_axis_mask: int = 0, var: Any = None,
                  name: str | None = None) -> Tensor:
    """Return input_[begin:end:strides] per axis; bit i of a mask speaks of entry i.  Source: tf.strided_slice."""
    with name_scope(name, "strided_slice", [input_, begin, end, strides]) as scope:
        first, last = _plain_or_tensor(begin), _plain_or_tensor(end)
        count = len(first) if isinstance(first, tuple) else first.shape.num_elements()
        if strides is None and count is None:
            raise at_user(ShapeError, "strided_slice: the number of entries of begin must be known")
        step = (1,) * (count or 0) if strides is None else _plain_or_tensor(strides)
        return cast(Tensor, create("StridedSlice", scope, [convert_to_tensor(input_), first, last, step], {
            "begin_mask": begin_mask, "end_mask": end_mask, "ellipsis_mask": ellipsis_mask,
            "new_axis_mask": new_axis_mask, "shrink_axis_mask": shrink_axis_mask}))


def _plain_or_tensor(value: Any) -> Any:
    found = plain(value)
    return found if isinstance(found, tuple) else convert_to_tensor(found)


def slice_(input_: Any, begin: Any, size: Any, name: str | None = None) -> Tensor:
    """Return the block of `size` elements from `begin`; a size of -1 is the rest.  Source: tf.slice."""
    with name_scope(name, "Slice", [input_, begin, size]) as scope:
        return cast(Tensor, create("Slice", scope, [convert_to_tensor(input_), _plain_or_tensor(begin),
                                                    _plain_or_tensor(size)]))


def gather(params: Any, indices: Any, validate_indices: Any = None, name: str | None = None, axis: Any = None,
           batch_dims: int = 0) -> Tensor:
    """Return the slices of `params` along `axis` (0) at `indices`; an index out of range fails the run.

    Source: tf.gather.
    """
    with name_scope(name, "GatherV2", [params, indices]) as scope:
        along = batch_dims if axis is None else plain(axis)
        return cast(Tensor, create("GatherV2", scope, [
            convert_to_tensor(params, name="params"), convert_to_tensor(indices, name="indices"),
            along if isinstance(along, int) else convert_to_tensor(along, name="axis")], {"batch_dims": batch_dims}))


def gather_nd(params: Any, indices: Any, name: str | None = None) -> Tensor:
    """Return the elements or slices of `params` at the positions in the last axis of `indices`.

    Source: tf.gather_nd.
    """
    with name_scope(name, "GatherNd", [params, indices]) as scope:
        return cast(Tensor, create("GatherNd", scope, [convert_to_tensor(params, name="params"),
                                                       convert_to_tensor(indices, name="indices")]))


def scatter_nd(indices: Any, updates: Any, shape: Any, name: str | None = None) -> Tensor:
    """Return zeros of `shape` with `updates` added at `indices`.  Source: tf.scatter_nd."""
    with name_scope(name, "ScatterNd", [indices, updates]) as scope:
        return cast(Tensor, create("ScatterNd", scope, [convert_to_tensor(indices, name="indices"),
                                                        convert_to_tensor(updates, name="updates"),
                                                        _plain_or_tensor(shape)]))


def confusion_matrix(labels: Any, predictions: Any, num_classes: int | None = None, dtype: Any = dtypes.int32,
                     name: str | None = None, weights: Any = None) -> Tensor:
    """Return how often each class (row) was predicted as each class (column).  num_classes must be given.

    Source: tf.confusion_matrix.
    """
    if num_classes is None:
        raise at_user(ShapeError, "confusion_matrix: the number of classes depends on values; give num_classes")
    with name_scope(name, "confusion_matrix", [labels, predictions, weights]) as scope:
        pairs = [convert_to_tensor(v) for v in (labels, predictions)]
        pairs = [v if v.dtype is dtypes.int64 else create("Cast", None, [v], {"dtype": dtypes.int64}) for v in pairs]
        places = create("Pack", None, pairs, {"axis": 1})
        counts = create("OnesLike", None, pairs[:1]) if weights is None else convert_to_tensor(weights)
        wanted = dtypes.as_dtype(dtype)
        if counts.dtype is not wanted:
            counts = create("Cast", None, [counts], {"dtype": wanted})
        return cast(Tensor, create("ScatterNd", scope, [places, counts, (num_classes, num_classes)]))


def one_hot(indices: Any, depth: Any, on_value: Any = None, off_value: Any = None, axis: int | None = None,
            dtype: Any = None, name: str | None = None) -> Tensor:
    """Return on_value (1) where the position along the new axis is the index, else off_value (0).

    Indices out of range give off_value alone.  Source: tf.one_hot.
    """
    with name_scope(name, "one_hot", [indices, depth, on_value, off_value]) as scope:
        given = [v.dtype for v in (on_value, off_value) if isinstance(v, Tensor)]
        wanted = dtypes.as_dtype(dtype) if dtype is not None else given[0] if given else None
        if wanted is None and on_value is None and off_value is None:
            wanted = dtypes.float32
        unit = wanted is not None and wanted.is_bool
        on = convert_to_tensor((True if unit else 1) if on_value is None else on_value, wanted, "on_value")
        off = convert_to_tensor((False if unit else 0) if off_value is None else off_value, wanted or on.dtype,
                                "off_value")
        count = plain(depth)
        return cast(Tensor, create("OneHot", scope, [
            convert_to_tensor(indices, name="indices"),
            count if isinstance(count, int) else convert_to_tensor(count, name="depth"), on, off],
            {"axis": -1 if axis is None else axis}))
