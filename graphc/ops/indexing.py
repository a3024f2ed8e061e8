"""Ops whose indices are data: gather, scatter, one_hot, segment sums.

Owns them.  Must not know memory.  Invariant: every loaded index is checked, so no access is ever out of bounds; what
lies outside is an error of the run at the user's line.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, bool_, float32, int32, int64, uint8
from graphc.graph.tensor import IndexedSlices
from graphc.ir.dim import Size
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.kernel.ir import Axis, Expr, For, If, Let, Load, Scatter, Stmt, Store, Var, const, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import cast, prim
from graphc.ops import build as b
from graphc.ops.base import (
    Call,
    Inference,
    InvalidValue,
    Kind,
    Op,
    Point,
    Pointwise,
    Routine,
    RoutineBody,
    Sample,
    attr_or_value,
    register,
    widen,
)
from graphc.ops.rules import (
    ALL,
    INDICES,
    NUMBERS,
    axis_in,
    check_dtype,
    check_same_dtype,
    concrete,
    ints,
    same_shapes,
    show,
    static_rank,
    typed,
    unknown_sizes,
)


def _indices(*values: int, shape: tuple[int, ...] | None = None, dtype: DType = int32) -> np.ndarray:
    return np.array(values, dtype.as_numpy_dtype).reshape(shape or (len(values),))


def _in_range(at: Expr, n: Size) -> Expr:
    return prim("and", prim("le", index(0), at), prim("lt", at, size_of(n)))


def _outside(n: Size) -> str:
    return f"not in [0, {n})" if isinstance(n, int) else "out of range"


def _guarded_load(p: Point, where: Sequence[Expr], ok: Expr, message: str) -> Expr:
    zero = const(0, p.out_types[0].dtype)
    return p.guard(p.load(0, where, ok, zero), ok, zero, "index", message)


def _check_indices(indices: np.ndarray, n: int) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        bad = indices[(indices < 0) | (indices >= n)].reshape(-1)[0]
        raise InvalidValue(f"index {bad} is not in [0, {n})")


# -- gather -----------------------------------------------------------------------------------------------------------


def _gather_infer(ctx: Inference) -> Sequence[PartialType]:
    params, indices = ctx.inputs[:2]
    check_dtype(ctx, indices, INDICES, "the indices")
    given, batch = attr_or_value(ctx, 2, "axis"), ctx.attrs["batch_dims"]
    if params.shape is None or indices.shape is None or given is None:
        return [PartialType(params.dtype, None)]
    if not params.shape:
        raise ctx.fail("a scalar has nothing to gather from")
    axis = axis_in(ctx, given, len(params.shape))
    if not 0 <= batch <= min(axis, len(indices.shape)):
        raise ctx.fail(f"batch_dims {batch} is not between 0 and the axis {axis}")
    lead = tuple(ctx.equal(m, n, f"the first {batch} sizes of {show(params.shape)} and {show(indices.shape)} differ")
                 for m, n in zip(params.shape[:batch], indices.shape[:batch], strict=True))
    shape = lead + params.shape[batch:axis] + indices.shape[batch:] + params.shape[axis + 1:]
    return [PartialType(params.dtype, shape)]


def _gather_parts(attrs: Mapping[str, Any], in_types: Sequence[TensorType]) -> tuple[int, int, int]:
    """axis, number of batch axes, number of index axes that follow the axis."""
    return int(attrs["axis"]) % in_types[0].rank, attrs["batch_dims"], in_types[1].rank - attrs["batch_dims"]


def _gather_point(p: Point) -> Expr:
    axis, batch, count = _gather_parts(p.attrs, p.in_types)
    at = cast(p.load(1, [*p.index[:batch], *p.index[axis:axis + count]]), int64)
    where = [*p.index[:axis], at, *p.index[axis + count:]]
    n = p.in_types[0].shape[axis]
    return _guarded_load(p, where, _in_range(at, n), f"gather: an index is {_outside(n)}")


def _gather_reference(call: Call) -> Any:
    params, indices = call.arrays
    axis, batch, _ = _gather_parts(call.attrs, call.in_types)
    _check_indices(indices, params.shape[axis])
    if batch == 0:
        return np.take(params, indices.astype(np.int64), axis)
    grid = np.ix_(*(np.arange(n) for n in params.shape[:batch]))
    rest = params.shape[batch:axis]
    moved = np.moveaxis(params, axis, batch)
    lead = tuple(g.reshape(g.shape + (1,) * (indices.ndim - batch)) for g in grid)
    found = moved[(*lead, indices)]
    count = indices.ndim - batch
    return np.moveaxis(found, range(batch, batch + count), range(batch + len(rest), batch + len(rest) + count))


def _gather_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """By rows along axis 0; else a sum by segments along the axis moved to the front."""
    params, indices = b.inputs_of(op)
    given, shape, where = b.known_static(op, "axis"), params.type.shape, indices.type.shape
    if op.attrs["batch_dims"]:
        return [_batched_gather_gradient(op, dy), None]
    if given == 0:
        tail = None if shape is None else shape[1:]
        if tail is not None and all(isinstance(n, int) for n in tail) and 0 not in tail:
            rows: Any = (-1, *tail)
        else:
            rest = b.op("Slice", b.op("Shape", params), (1,), (-1,))
            rows = b.concat(0, [b.op("Reshape", b.op("Size", indices), (1,)), rest])
        known = b.static_shape(params)
        dense = b.constant(known, int32) if known is not None else b.op("Shape", params)
        values = dy if where is not None and len(where) == 1 else b.op("Reshape", dy, rows)
        flat = indices if where is not None and len(where) == 1 else b.op("Reshape", indices, (-1,))
        return [IndexedSlices(values, flat, dense), None]
    if given is None or shape is None or where is None:
        raise TypeError("the gradient of GatherV2 needs an axis, and ranks, that are known while the graph is built")
    axis = given % len(shape)
    count = len(where)
    order = (*range(axis, axis + count), *range(axis), *range(axis + count, len(shape) - 1 + count))
    rows = b.op("Transpose", dy, order)
    n: Any = shape[axis]
    if not isinstance(n, int):
        n = b.op("Squeeze", b.op("Slice", b.op("Shape", params), (axis,), (1,)))
    summed = b.op("UnsortedSegmentSum", rows, indices, n)
    back = (*range(1, axis + 1), 0, *range(axis + 1, len(shape)))
    return [b.op("Transpose", summed, back), None]


def _batched_gather_gradient(op: Any, dy: Any) -> Any:
    params, indices = b.inputs_of(op)
    known, where = b.static_shape(params), b.static_shape(indices)
    axis, batch = b.known_static(op, "axis"), op.attrs["batch_dims"]
    if known is None or where is None or axis is None:
        raise TypeError("the gradient of GatherV2 with batch_dims needs shapes that are known while the graph is built")
    axis %= len(known)
    count = len(where) - batch
    inner = (*range(axis, axis + count), *range(batch, axis), *range(axis + count, len(known) - 1 + count))
    rows = b.op("Transpose", dy, (*range(batch), *inner))
    groups = int(np.prod(known[:batch]))
    start = (np.arange(groups) * known[axis]).reshape(known[:batch] + (1,) * count)
    ids = b.add(indices, b.constant(start, indices.dtype))
    summed = b.op("UnsortedSegmentSum", rows, ids, groups * known[axis])
    rest = (known[axis], *known[batch:axis], *known[axis + 1:])
    moved = b.op("Reshape", summed, (*known[:batch], *rest))
    steps = axis - batch
    back = (*range(batch), *range(batch + 1, batch + 1 + steps), batch, *range(batch + 1 + steps, len(known)))
    return b.op("Transpose", moved, back)


def _gather_samples() -> list[Sample]:
    cases = (((7,), _indices(6, 0, 3), 0, 0), ((5, 7), _indices(4, 0, 0), 0, 0),
             ((5, 7), _indices(1, 6, 2, 2, shape=(2, 2)), 1, 0),
             ((2, 3, 4), _indices(2), -2, 0), ((5, 3), _indices(0, dtype=int64).reshape(()), 0, 0),
             ((2, 3, 4), _indices(2, 0, 1, 1, shape=(2, 2)), 1, 1), ((4, 2), np.zeros((0,), np.int32), 0, 0))
    return [Sample((typed(d, *s), TensorType(int64 if i.dtype == np.int64 else int32, i.shape)),
                   {"axis": a, "batch_dims": k}, {1: i}, differentiable=d.is_floating)
            for d in ALL for s, i, a, k in cases]


register(Op(
    name="GatherV2", kind=Kind.INDEXING, inputs=("params", "indices", "axis"), static={2: "axis"},
    attrs={"axis": None, "batch_dims": 0}, infer=_gather_infer, gradient=_gather_gradient, reference=_gather_reference,
    lower=Pointwise(point=_gather_point), samples=_gather_samples,
    canonical=lambda attrs, types: {**attrs, "axis": int(attrs["axis"]) % types[0].rank}, symbolic=True,
    doc="The slices of params along an axis that integer indices name. tf.gather"))


def _nd_shapes(ctx: Inference, params: Shape, indices: Shape) -> int:
    """Depth of the indices: how many axes of params one index vector names."""
    if not indices:
        raise ctx.fail("the indices are a scalar: their last axis must hold index vectors")
    depth = indices[-1]
    if not isinstance(depth, int):
        raise ctx.fail("the length of the index vectors (the last axis of the indices) is not known")
    if depth > len(params):
        raise ctx.fail(f"index vectors of length {depth} do not fit a tensor of shape {show(params)}")
    return depth


def _gather_nd_infer(ctx: Inference) -> Sequence[PartialType]:
    params, indices = ctx.inputs
    check_dtype(ctx, indices, INDICES, "the indices")
    if params.shape is None or indices.shape is None:
        return [PartialType(params.dtype, None)]
    depth = _nd_shapes(ctx, params.shape, indices.shape)
    return [PartialType(params.dtype, indices.shape[:-1] + params.shape[depth:])]


def _gather_nd_point(p: Point) -> Expr:
    depth, lead = int(p.in_types[1].shape[-1]), p.in_types[1].rank - 1
    at = [cast(p.load(1, [*p.index[:lead], index(k)]), int64) for k in range(depth)]
    ok: Expr = const(True, bool_)
    for e, n in zip(at, p.in_types[0].shape, strict=False):
        ok = prim("and", ok, _in_range(e, n))
    return _guarded_load(p, [*at, *p.index[lead:]], ok, "gather_nd: an index is out of range")


def _check_nd(indices: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    columns = tuple(np.moveaxis(indices, -1, 0).astype(np.int64))
    for column, n in zip(columns, shape, strict=False):
        _check_indices(column, n)
    return columns


def _gather_nd_reference(call: Call) -> Any:
    params, indices = call.arrays
    columns = _check_nd(indices, params.shape)
    return params[columns] if columns else np.broadcast_to(params, indices.shape[:-1] + params.shape)


_ND_CASES: tuple[tuple[tuple[int, ...], np.ndarray], ...] = (
    ((5, 7), _indices(4, 6, 0, 0, 4, 6, shape=(3, 2))), ((5, 7), _indices(3, 0, shape=(2, 1))),
    ((2, 3, 4), _indices(1, 2, 0, 1, shape=(2, 1, 2))), ((3,), np.zeros((0, 1), np.int32)))

register(Op(
    name="GatherNd", kind=Kind.INDEXING, inputs=("params", "indices"), infer=_gather_nd_infer,
    gradient=lambda op, dy: [b.op("ScatterNd", op.inputs[1], dy, b.shape_of(op.inputs[0])), None],
    reference=_gather_nd_reference, lower=Pointwise(point=_gather_nd_point),
    samples=lambda: [Sample((typed(d, *s), typed(int32, *i.shape)), arrays={1: i}, differentiable=d.is_floating)
                     for d in (float32, int32, bool_) for s, i in _ND_CASES],
    doc="The elements or slices that index vectors name. tf.gather_nd"))

# -- scatter ----------------------------------------------------------------------------------------------------------


def _scatter_rows(r: Routine, indices: int, updates: int, mode: str, what: str, *, negate: bool = False,
                  vectors: bool = True) -> tuple[Stmt, ...]:
    """Rows of `updates` written to output 0 at the index vectors in the last axis of `indices`; or, without vectors, at
    rows that single indices name, negative ones dropped.

    The elements of a row are independent, so the loops over them are parallel; inside, the rows act in order.
    """
    named, shape, dtype = r.in_types[indices].shape, r.out_types[0].shape, r.out_types[0].dtype
    lead, depth = (named[:-1], int(named[-1])) if vectors else (named, 1)
    rows = [r.fresh("i") for _ in lead]
    columns = [r.fresh("c") for _ in shape[depth:]]
    row, column = tuple(map(Axis, rows)), tuple(map(Axis, columns))
    at = [cast(Load(r.input(indices), (*row, index(k)) if vectors else row, r.in_types[indices].dtype), int64)
          for k in range(depth)]
    inside: Expr = const(True, bool_)
    for e, n in zip(at, shape, strict=False):
        inside = prim("and", inside, _in_range(e, n))
    fine = inside if vectors else prim("or", inside, prim("lt", at[0], index(0)))
    value: Expr = Load(r.input(updates), (*row, *column), dtype)
    if negate:
        value = cast(prim("neg", widen(value)), dtype)
    checked = r.fresh("ok")
    body: tuple[Stmt, ...] = (
        Let(checked, r.guard(inside, fine, const(False, bool_), "index", f"{what}: an index is out of range")),
        If(Var(checked, bool_), (Scatter(r.output(0), (*at, *column), value, mode),)))
    return _loops(columns, shape[depth:], _loops(rows, lead, body), parallel=True)


def _loops(axes: Sequence[str], extents: Sequence[Size], body: tuple[Stmt, ...],
           parallel: bool = False) -> tuple[Stmt, ...]:
    for axis, n in zip(reversed(axes), reversed(extents), strict=True):
        body = (For(axis, size_of(n), body, parallel),)
    return body


def _cleared(r: Routine) -> tuple[Stmt, ...]:
    """Output 0 set to zero."""
    shape = r.out_types[0].shape
    axes = [r.fresh("z") for _ in shape]
    return _loops(axes, shape, (Store(r.output(0), tuple(map(Axis, axes)), const(0, r.out_types[0].dtype)),), True)


def _scatter_nd_infer(ctx: Inference) -> Sequence[PartialType]:
    indices, updates = ctx.inputs[:2]
    check_dtype(ctx, indices, INDICES, "the indices")
    shape = attr_or_value(ctx, 2, "shape")
    if shape is None:
        return [PartialType(updates.dtype, unknown_sizes(ctx, static_rank(ctx, 2)))]
    _check_updates(ctx, ints(shape), indices.shape, updates.shape)
    return [PartialType(updates.dtype, ints(shape))]


def _check_updates(ctx: Inference, shape: Shape, indices: Shape | None, updates: Shape | None) -> None:
    if indices is None or updates is None:
        return
    depth = _nd_shapes(ctx, shape, indices)
    want = indices[:-1] + shape[depth:]
    same_shapes(ctx, (updates, want), f"updates of shape {show(updates)} do not fit the slices {show(want)} that "
                                      f"indices of shape {show(indices)} name in {show(shape)}")


def _scatter_nd_reference(call: Call) -> Any:
    indices, updates = call.arrays
    out = np.zeros(concrete(call), updates.dtype)
    np.add.at(out, _check_nd(indices, out.shape), updates)
    return out


register(Op(
    name="ScatterNd", kind=Kind.INDEXING, inputs=("indices", "updates", "shape"), static={2: "shape"},
    attrs={"shape": None},
    infer=_scatter_nd_infer, gradient=lambda op, dy: [None, b.op("GatherNd", dy, op.inputs[0])],
    reference=_scatter_nd_reference,
    lower=RoutineBody(lambda r: (*_cleared(r), *_scatter_rows(r, 0, 1, "add", "scatter_nd"))),
    samples=lambda: [Sample((typed(int32, *i.shape), typed(d, *i.shape[:-1], *s[i.shape[-1]:])), {"shape": s}, {0: i},
                            differentiable=d.is_floating, ulp=8.0) for d in (float32, int32) for s, i in _ND_CASES],
    doc="Zeros of `shape` with updates added at index vectors, duplicates summed. tf.scatter_nd"))


def _tensor_scatter_infer(ctx: Inference) -> Sequence[PartialType]:
    tensor, indices, updates = ctx.inputs
    check_dtype(ctx, indices, INDICES, "the indices")
    dtype = check_same_dtype(ctx, (tensor, updates))
    if tensor.shape is not None:
        _check_updates(ctx, tensor.shape, indices.shape, updates.shape)
    return [PartialType(dtype, tensor.shape)]


def _tensor_scatter(name: str, mode: str, negate: bool, group: Sequence[DType], gradient: Any, doc: str) -> None:
    def reference(call: Call) -> Any:
        tensor, indices, updates = call.arrays
        out = tensor.copy()
        columns = _check_nd(indices, out.shape)
        if mode == "add":
            np.add.at(out, columns, np.negative(updates) if negate else updates)
        else:
            for row in np.ndindex(indices.shape[:-1]):
                out[tuple(int(c[row]) for c in columns)] = updates[row]
        return out

    def body(r: Routine) -> tuple[Stmt, ...]:
        return _scatter_rows(r, 1, 2, mode, "scatter", negate=negate)

    register(Op(
        name=name, kind=Kind.INDEXING, inputs=("tensor", "indices", "updates"), infer=_tensor_scatter_infer,
        gradient=gradient, reference=reference, lower=RoutineBody(body, {0: 0}), doc=doc,
        samples=lambda: [Sample((typed(d, *s), typed(int32, *i.shape), typed(d, *i.shape[:-1], *s[i.shape[-1]:])),
                                arrays={1: i}, differentiable=d.is_floating and mode == "add", ulp=8.0)
                         for d in group for s, i in _ND_CASES]))


def _update_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """Where an element was replaced, nothing flows to the tensor; exact for indices without duplicates."""
    _, indices, updates = op.inputs
    return [b.op("TensorScatterUpdate", dy, indices, b.zeros_like(updates)), None, b.op("GatherNd", dy, indices)]


def _sub_gradient(op: Any, dy: Any) -> Sequence[Any]:
    return [dy, None, b.op("Neg", b.op("GatherNd", dy, op.inputs[1]))]


_tensor_scatter("TensorScatterUpdate", "set", False, ALL, _update_gradient,
                "The tensor with slices replaced at index vectors, the last of several winning. "
                "tf.tensor_scatter_update")
_tensor_scatter("TensorScatterAdd", "add", False, NUMBERS,
                lambda op, dy: [dy, None, b.op("GatherNd", dy, op.inputs[1])],
                "The tensor with slices added at index vectors, duplicates summed. tf.tensor_scatter_add")
_tensor_scatter("TensorScatterSub", "add", True, NUMBERS, _sub_gradient,
                "The tensor with slices subtracted at index vectors, duplicates summed. tf.tensor_scatter_sub")

# -- segments ---------------------------------------------------------------------------------------------------------


def _segment_infer(ctx: Inference) -> Sequence[PartialType]:
    data, ids = ctx.inputs[:2]
    check_dtype(ctx, data, NUMBERS, "the data")
    check_dtype(ctx, ids, INDICES, "the segment ids")
    count = attr_or_value(ctx, 2, "num_segments")
    if data.shape is None or ids.shape is None:
        return [PartialType(data.dtype, None)]
    rank = len(ids.shape)
    message = f"segment ids of shape {show(ids.shape)} do not fit data of shape {show(data.shape)}"
    if rank > len(data.shape):
        raise ctx.fail(message)
    for m, n in zip(data.shape, ids.shape, strict=False):
        ctx.equal(m, n, message)
    return [PartialType(data.dtype, (ctx.unknown() if count is None else count, *data.shape[rank:]))]


def _segment_reference(call: Call) -> Any:
    data, ids = call.arrays
    out = np.zeros(concrete(call), data.dtype)
    kept = ids >= 0
    _check_indices(ids[kept], out.shape[0])
    np.add.at(out, ids[kept].astype(np.int64), data[kept])
    return out


def _segment_gradient(op: Any, dy: Any) -> Sequence[Any]:
    """The row of each id; 0 where a negative id dropped the data."""
    _, ids = b.inputs_of(op)
    rows = b.op("GatherV2", dy, b.op("Maximum", ids, b.zeros_like(ids)), 0)
    shape, where = rows.type.shape, ids.type.shape
    if shape is None or where is None:
        raise TypeError("the gradient of UnsortedSegmentSum needs ranks that are known while the graph is built")
    kept = b.op("GreaterEqual", ids, 0)
    if len(shape) > len(where):
        kept = b.op("ExpandDims", kept, tuple(range(len(where), len(shape))))
    return [b.select(kept, rows, 0), None]


def _segment_body(r: Routine) -> tuple[Stmt, ...]:
    return (*_cleared(r), *_scatter_rows(r, 1, 0, "add", "unsorted_segment_sum", vectors=False))


_SEGMENTS: tuple[tuple[tuple[int, ...], np.ndarray, int], ...] = (
    ((5, 3), _indices(0, 2, 0, -1, 1), 3), ((4,), _indices(1, 1, 1, 0), 4),
    ((2, 2, 3), _indices(0, 1, 1, 0, shape=(2, 2)), 2),
    ((0, 3), np.zeros((0,), np.int32), 2))


register(Op(
    name="UnsortedSegmentSum", kind=Kind.INDEXING, inputs=("data", "segment_ids", "num_segments"),
    static={2: "num_segments"}, attrs={"num_segments": None}, infer=_segment_infer, gradient=_segment_gradient,
    reference=_segment_reference, lower=RoutineBody(_segment_body),
    samples=lambda: [Sample((typed(d, *s), typed(int32, *i.shape)), {"num_segments": n}, {1: i}, ulp=8.0,
                            differentiable=d.is_floating) for d in NUMBERS for s, i, n in _SEGMENTS],
    doc="The sum of the slices of data that share a segment id; negative ids drop theirs. tf.unsorted_segment_sum"))
# -- one hot ----------------------------------------------------------------------------------------------------------

_DEPTH = {1: "depth"}


def _one_hot_infer(ctx: Inference) -> Sequence[PartialType]:
    given = ctx.inputs if ctx.attrs["depth"] is not None else [t for i, t in enumerate(ctx.inputs) if i != 1]
    indices, on, off = given
    check_dtype(ctx, indices, (*INDICES, uint8), "the indices")
    dtype = check_same_dtype(ctx, (on, off))
    depth = attr_or_value(ctx, 1, "depth")
    if isinstance(depth, int) and depth < 0:
        raise ctx.fail(f"the depth is not negative, {depth} is given")
    if indices.shape is None:
        return [PartialType(dtype, None)]
    axis = _one_hot_axis(ctx.attrs, len(indices.shape))
    if not 0 <= axis <= len(indices.shape):
        raise ctx.fail(f"axis {ctx.attrs['axis']} is out of range for indices of shape {show(indices.shape)}")
    size = ctx.unknown() if depth is None else depth
    return [PartialType(dtype, (*indices.shape[:axis], size, *indices.shape[axis:]))]


def _one_hot_axis(attrs: Mapping[str, Any], rank: int) -> int:
    return rank if attrs["axis"] == -1 else int(attrs["axis"])


def _one_hot_point(p: Point) -> Expr:
    axis = _one_hot_axis(p.attrs, p.in_types[0].rank)
    at = cast(p.load(0, [*p.index[:axis], *p.index[axis + 1:]]), int64)
    return prim("select", prim("eq", at, p.index[axis]), p.load(1, ()), p.load(2, ()))


def _one_hot_reference(call: Call) -> Any:
    indices, on, off = call.arrays
    axis = _one_hot_axis(call.attrs, indices.ndim)
    along = [1] * (indices.ndim + 1)
    along[axis] = -1
    hit = np.expand_dims(indices, axis) == np.arange(int(call.attrs["depth"])).reshape(along)
    return np.where(hit, on, off)


def _one_hot_gradient(op: Any, dy: Any) -> Sequence[Any]:
    indices = b.inputs_of(op)[0]
    one = b.constant(1, int32)
    mask = b.op("Equal", b.op("OneHot", indices, b.static_of(op, "depth"), one, b.zeros_like(one),
                              axis=op.attrs["axis"]), 1)
    return [None, b.op("SumToShape", b.select(mask, dy, 0), ()), b.op("SumToShape", b.select(mask, 0, dy), ())]


_HOT: tuple[tuple[np.ndarray, int, int], ...] = (
    (_indices(0, 2, -1, 9), 3, -1), (_indices(1, 0), 2, 0), (_indices(1).reshape(()), 4, -1),
    (_indices(1, 0, 2, 1, shape=(2, 2)), 3, 1), (np.zeros(0, np.int32), 3, -1))

register(Op(
    name="OneHot", kind=Kind.INDEXING, inputs=("indices", "depth", "on_value", "off_value"), static=_DEPTH,
    attrs={"depth": None, "axis": -1}, infer=_one_hot_infer, gradient=_one_hot_gradient, reference=_one_hot_reference,
    lower=Pointwise(point=_one_hot_point),
    samples=lambda: [Sample((typed(int32, *i.shape), typed(d), typed(d)), {"depth": n, "axis": a}, {0: i}, ulp=16.0,
                            differentiable=d.is_floating)
                     for d in ALL for i, n, a in _HOT],
    doc="on_value at each index along a new axis of size depth, off_value elsewhere (and everywhere for an index "
        "outside). tf.one_hot"))
