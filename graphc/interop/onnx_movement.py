"""ONNX for ops that move elements, make them, or pick them by index.

Owns what each such op is in ONNX's operators.  Must not know other tables.  Invariant: a row gives the op's elements to
the bit for indices in range (an index out of range, an error in graphc, is as the runtime has it).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import bool_, float32, float64, int64
from graphc.interop.onnx_builder import Applied, Ref, Refused, Row, elements, known
from graphc.interop.onnx_elementwise import negated
from graphc.ir.dim import Size, maximum, minimum
from graphc.ir.types import Shape
from graphc.ops.base import Call, lookup
from graphc.ops.windows import every_tap, windows_of

_BACK = -(2 ** 63)  # before the first element, whatever the size

# -- shapes -----------------------------------------------------------------------------------------------------------


def _reshape(a: Applied) -> Ref:
    return a.to.reshaped(a.x, a.shape, a.out.shape)


def _broadcast(a: Applied) -> Ref:
    return a.x if a.shape == a.out.shape else a("Expand", a.x, a.to.sizes(a.out.shape))


def _tile(a: Applied) -> Ref:
    return a("Tile", a.x, a.to.sizes(a.attrs["multiples"])) if a.shape else a.x


def _sizes(sizes: Any) -> Row:
    """A row that gives sizes as a vector, or one size as a scalar."""
    def row(a: Applied) -> Ref:
        content = sizes(a)
        found = a.to.sizes(content) if isinstance(content, tuple) else a.to.scalar(content)
        return a.to.cast(found, a.out.dtype)
    return row


# -- joining and splitting --------------------------------------------------------------------------------------------


def _concat(a: Applied) -> Ref:
    axis = int(a.attrs["axis"])
    if len(a.inputs) == 1:
        return a.x
    before = a.to.untransposed(a.inputs)
    if before is not None:
        values, perm = before
        return a.to.transposed(a("Concat", *values, axis=perm[axis]), perm)
    return a("Concat", *a.inputs, axis=axis)


def _pack(a: Applied) -> Ref:
    axis = a.attrs["axis"] % a.out.rank
    parts = [a.to.reshaped(x, t.shape, (*t.shape[:axis], 1, *t.shape[axis:]))
             for x, t in zip(a.inputs, a.in_types, strict=True)]
    return parts[0] if len(parts) == 1 else a("Concat", *parts, axis=axis)


def _parts(a: Applied, axis: int, sizes: Shape) -> tuple[Ref, ...]:
    """The input in parts along an axis."""
    if len(sizes) == 1:
        return (a.x,)
    return a.to.emit_all("Split", a.x, a.to.sizes(sizes), dtypes=[a.x.dtype] * len(sizes), axis=axis)


def _split(a: Applied) -> tuple[Ref, ...]:
    axis = int(a.attrs["axis"])
    return _parts(a, axis, tuple(t.shape[axis] for t in a.out_types))


def _unpack(a: Applied) -> tuple[Ref, ...]:
    axis = a.attrs["axis"] % len(a.shape)
    row = (*a.shape[:axis], 1, *a.shape[axis + 1:])
    return tuple(a.to.reshaped(x, row, t.shape)
                 for x, t in zip(_parts(a, axis, (1,) * len(a.out_types)), a.out_types, strict=True))


# -- slices -----------------------------------------------------------------------------------------------------------


def _sliced(a: Applied, x: Ref, shape: Shape, begin: Shape, size: Shape, steps: Sequence[int]) -> Ref:
    """The elements begin + step * k, k < size, of each axis."""
    starts: list[Size] = []
    ends: list[Size] = []
    axes = [i for i, (n, b, m, s) in enumerate(zip(shape, begin, size, steps, strict=True))
            if not (b == 0 and m == n and s == 1)]
    for i in axes:
        starts.append(begin[i])
        last = begin[i] + (size[i] - 1) * steps[i]
        # behind a step forwards; in front of a step back as a position counted from the end, which is below 0
        ends.append(begin[i] + size[i] * steps[i] if steps[i] > 0 else last - 1 - shape[i])
    if not axes:
        return x
    return a("Slice", x, a.to.sizes(starts), a.to.sizes(ends), a.ints(axes), a.ints(steps[i] for i in axes))


def _slice(a: Applied) -> Ref:
    begin = tuple(a.attrs["begin"])
    return _sliced(a, a.x, a.shape, begin, a.out.shape, a.attrs["strides"] or (1,) * len(begin))


def _slice_grad(a: Applied) -> Ref:
    if any(s != 1 for s in a.attrs["strides"]):
        raise Refused("the gradient of a slice with steps is not said in ONNX")
    begin = tuple(a.attrs["begin"])
    after = tuple(n - b - m for n, b, m in zip(a.out.shape, begin, a.shape, strict=True))
    return _padded(a, a.x, begin, after) if begin else a.x


def _reversed(a: Applied, x: Ref, axes: Sequence[int]) -> Ref:
    if not axes:
        return x
    many = len(axes)
    return a("Slice", x, a.ints([-1] * many), a.ints([_BACK] * many), a.ints(axes), a.ints([-1] * many))


def _reverse(a: Applied) -> Ref:
    return _reversed(a, a.x, [int(i) for i in a.attrs["axis"]])


# -- padding ----------------------------------------------------------------------------------------------------------


def _padded(a: Applied, x: Ref, before: Shape, after: Shape, value: Ref | None = None, mode: str = "constant") -> Ref:
    if all(n == 0 for n in (*before, *after)):
        return x
    pair = a.to.untransposed([x])
    if pair is not None and value is None:
        (x,), perm = pair
        back = np.argsort(perm)
        inner = _padded(a, x, tuple(before[i] for i in back), tuple(after[i] for i in back), None, mode)
        return a.to.transposed(inner, perm)
    return a("Pad", x, a.to.sizes((*before, *after)), value, mode=mode)


def _pad(a: Applied) -> Ref:
    pads = a.attrs["paddings"]
    value = a.inputs[1] if len(a.inputs) > 1 else None
    return _padded(a, a.x, tuple(p[0] for p in pads), tuple(p[1] for p in pads), value)


def _mirror_pad(a: Applied) -> Ref:
    pads = a.attrs["paddings"]
    if a.attrs["mode"].upper() == "REFLECT":
        return _padded(a, a.x, tuple(p[0] for p in pads), tuple(p[1] for p in pads), mode="reflect")
    x, shape = a.x, list(a.shape)
    for axis, (before, after) in enumerate(pads):  # ONNX's "reflect" leaves out the edge itself
        pieces = [x]
        whole, zeros, ones = tuple(shape), (0,) * len(shape), (1,) * len(shape)
        if before != 0:
            block = _sliced(a, x, whole, zeros, _with(whole, axis, before), ones)
            pieces.insert(0, _reversed(a, block, (axis,)))
        if after != 0:
            block = _sliced(a, x, whole, _with(zeros, axis, shape[axis] - after), _with(whole, axis, after), ones)
            pieces.append(_reversed(a, block, (axis,)))
        x = x if len(pieces) == 1 else a("Concat", *pieces, axis=axis)
        shape[axis] = shape[axis] + before + after
    return x


def _with(values: Shape, axis: int, n: Size) -> Shape:
    return (*values[:axis], n, *values[axis + 1:])


def _patches(a: Applied) -> Ref:
    """The taps of every window side by side along the last axis: a slice with steps for each tap."""
    attrs = a.attrs
    windows = windows_of(a.shape, attrs["ksizes"], attrs["strides"], attrs["padding"], attrs["rates"])
    before = tuple(w.before for w in windows)
    after = tuple(maximum((w.count - 1) * w.stride + w.span - w.before - w.size, 0) for w in windows)
    x = _padded(a, a.x, before, after)
    shape = tuple(w.size + b + z for w, b, z in zip(windows, before, after, strict=True))
    counts, steps = tuple(w.count for w in windows), tuple(w.stride for w in windows)
    taps = [_sliced(a, x, shape, tuple(t * w.dilation for t, w in zip(tap, windows, strict=True)), counts, steps)
            for tap in every_tap(windows)]
    joined = taps[0] if len(taps) == 1 else a("Concat", *taps, axis=len(shape) - 1)
    return a.to.reshaped(joined, (*counts[:-1], counts[-1] * len(taps)), a.out.shape)


# -- made from nothing ------------------------------------------------------------------------------------------------


def _range(a: Applied) -> Ref:
    start, delta, dtype = a.attrs["start"], a.attrs["delta"], a.out.dtype
    (n,) = a.out.shape
    if isinstance(n, int) and isinstance(start, int | float) and isinstance(delta, int | float):
        return a.to.constant(start + np.arange(n) * delta, dtype)
    if isinstance(start, float) or isinstance(delta, float):
        raise Refused("a range of floats whose length is not known when the model is exported is not said in ONNX")
    steps = a("Mul", a.to.count(n), a.ints([delta])) if delta != 1 else a.to.count(n)
    return a.to.cast(a("Add", steps, a.to.size(start)) if start != 0 else steps, dtype)


def _iota(a: Applied) -> Ref:
    shape, axis = a.out.shape, a.attrs["axis"] % a.out.rank
    along = (*[1] * axis, shape[axis], *[1] * (len(shape) - axis - 1))
    row = a.to.cast(a.to.count(shape[axis]), a.out.dtype)
    row = a.to.reshaped(row, (shape[axis],), along)
    return row if along == shape else a("Expand", row, a.to.sizes(shape))


def _linspace(a: Applied) -> Ref:
    start, stop = a.inputs
    (n,) = a.out.shape
    if n == 1:
        return a("Reshape", start, a.ints([1]))
    wide = float64 if start.dtype is float64 else float32
    low, high = a.to.cast(start, wide), a.to.cast(stop, wide)
    places = a.to.count(n)
    last = a.to.size(n - 1)
    spaces = a("Max", last, a.ints([1]))
    step = a("Div", a("Sub", high, low), a.to.cast(spaces, wide))
    values = a("Add", low, a("Mul", step, a.to.cast(places, wide)))
    at_end = a("And", a("Equal", places, last, dtype=bool_), a("Greater", last, a.ints([0]), dtype=bool_), dtype=bool_)
    return a.to.cast(a("Where", at_end, high, values), start.dtype)


def _fill(a: Applied) -> Ref:
    return a("Expand", a.x, a.to.sizes(a.out.shape))


# -- by index ---------------------------------------------------------------------------------------------------------


def _gather(a: Applied) -> Ref:
    params, indices = a.inputs
    axis, batch = int(a.attrs["axis"]), a.attrs["batch_dims"]
    if not batch:
        return a("Gather", params, indices, axis=axis)
    rank, count = len(a.shape), a.in_types[1].rank - batch
    order = (*range(batch), axis, *(i for i in range(batch, rank) if i != axis))
    where = a("Unsqueeze", a.to.cast(indices, int64), a.ints([-1]))
    found = a("GatherND", a.to.transposed(params, order), where, batch_dims=batch)
    # found: batch, the axes of the indices, those of params in front of the axis, those behind it
    front = axis - batch
    back = (*range(batch), *range(batch + count, batch + count + front), *range(batch, batch + count),
            *range(batch + count + front, rank - 1 + count))
    return a.to.transposed(found, back)


def _gather_nd(a: Applied) -> Ref:
    params, indices = a.inputs
    if a.in_types[1].shape[-1] == 0:
        raise Refused("ONNX's GatherND takes no empty index vectors")
    return a("GatherND", params, a.to.cast(indices, int64))


def _scattered(a: Applied, into: Ref, indices: Ref, updates: Ref, add: bool) -> Ref:
    return a("ScatterND", into, a.to.cast(indices, int64), updates, reduction="add" if add else "none")


def _zeros(a: Applied, like: Ref) -> Ref:
    return a("Expand", a.number(0, like.dtype), a.to.sizes(a.out.shape))


def _scatter_nd(a: Applied) -> Ref:
    indices, updates = a.inputs
    return _scattered(a, _zeros(a, updates), indices, updates, add=True)


def _segment_sum(a: Applied) -> Ref:
    """Data of negative ids is dropped: it is added as zeros to segment 0."""
    data, ids = a.inputs
    rank, lead = len(a.shape), a.in_types[1].rank
    zero = a.number(0, ids.dtype)
    negative = a("Less", ids, zero, dtype=bool_)
    spread = a.to.reshaped(negative, a.in_types[1].shape, (*a.in_types[1].shape, *[1] * (rank - lead)))
    kept = a("Where", spread, a.number(0), data)
    where = a("Unsqueeze", a("Where", negative, zero, ids), a.ints([-1]))
    return _scattered(a, _zeros(a, data), where, kept, add=True)


def _classes(a: Applied, count: Size, axis: int) -> Ref:
    """Whether the index equals the position along a new axis."""
    indices, shape = a.x, a.shape
    row = a.to.cast(a.to.count(count), indices.dtype)
    row = a.to.reshaped(row, (count,), (count, *[1] * (len(shape) - axis)))
    return a("Equal", a("Unsqueeze", indices, a.ints([axis])), row, dtype=bool_)


def _one_hot(a: Applied) -> Ref:
    _, on, off = a.inputs
    axis = a.attrs["axis"] % a.out.rank
    return a("Where", _classes(a, a.attrs["depth"], axis), on, off)


# -- diagonals --------------------------------------------------------------------------------------------------------


def _diagonal(a: Applied, rows: Size, columns: Size) -> Ref:
    """Column number minus row number, (rows, columns)."""
    down = a.to.reshaped(a.to.count(rows), (rows,), (rows, 1))
    return a("Sub", a.to.count(columns), down)


def _as_matrix(a: Applied, vectors: Ref, shape: Shape) -> Ref:
    """Matrices with the last axis of `vectors` on their diagonals."""
    n = shape[-1]
    own = a("Equal", _diagonal(a, n, n), a.ints([0]), dtype=bool_)
    return a("Where", own, a("Unsqueeze", vectors, a.ints([-2])), a.number(0))


def _matrix_diag(a: Applied) -> Ref:
    return _as_matrix(a, a.x, a.shape)


def _diag(a: Applied) -> Ref:
    n = elements(a.shape)
    return a.to.reshaped(_as_matrix(a, a.to.reshaped(a.x, a.shape, (n,)), (n,)), (n, n), a.out.shape)


def _on_diagonal(a: Applied, x: Ref, shape: Shape) -> Ref:
    """The diagonals of matrices of `shape`."""
    rows, columns = shape[-2:]
    flat = a.to.reshaped(x, shape, (*shape[:-2], rows * columns))
    places = a("Mul", a.to.count(minimum(rows, columns)), a.to.size(columns + 1))
    return a("Gather", flat, places, axis=len(shape) - 2)


def _matrix_diag_part(a: Applied) -> Ref:
    return _on_diagonal(a, a.x, a.shape)


def _diag_part(a: Applied) -> Ref:
    n = elements(a.out.shape)
    return a.to.reshaped(_on_diagonal(a, a.to.reshaped(a.x, a.shape, (n, n)), (n, n)), (n,), a.out.shape)


def _band_part(a: Applied) -> Ref:
    lower, upper = known((a.attrs["num_lower"], a.attrs["num_upper"]), "the widths of the band")
    away = _diagonal(a, *a.shape[-2:])
    inside = []
    if lower >= 0:
        inside.append(a("LessOrEqual", a.ints([-lower]), away, dtype=bool_))
    if upper >= 0:
        inside.append(a("LessOrEqual", away, a.ints([upper]), dtype=bool_))
    if not inside:
        return a.x
    mask = inside[0] if len(inside) == 1 else a("And", *inside, dtype=bool_)
    return a("Where", mask, a.x, a.number(0))


# -- resizing ---------------------------------------------------------------------------------------------------------


def _resize(method: str) -> Row:
    def row(a: Applied) -> Ref:
        half, align = a.attrs["half_pixel_centers"], a.attrs["align_corners"]
        mode = "align_corners" if align else "half_pixel" if half else "asymmetric"
        attrs: dict[str, Any] = {"mode": method, "coordinate_transformation_mode": mode}
        if method == "nearest":
            attrs["nearest_mode"] = "round_prefer_ceil" if align or half else "floor"
        x = a.to.transposed(a.to.cast(a.x, a.out.dtype), (0, 3, 1, 2))
        n, height, width, channels = a.out.shape
        sizes = a.to.sizes((n, channels, height, width))
        return a.to.transposed(a("Resize", x, None, None, sizes, **attrs), (0, 2, 3, 1))
    return row


def _resize_axis(name: str) -> Row:
    """A resize along one axis as a product with the matrix that it is: exact where ONNX's Resize weighs otherwise."""
    def row(a: Applied) -> Ref:
        axis = a.attrs["axis"]
        size, count = known((a.shape[axis], a.out.shape[axis]), "sizes of images that are resized by this method")
        unit = np.eye(size)
        kind = type(a.in_types[0])
        types = (kind(float64, (size, size)),), (kind(float64, (count, size)),)
        call = Call([unit], {**a.attrs, "axis": 0, "size": (count,), "shape": None}, *types)
        matrix = np.asarray(lookup(name).reference(call))
        rank = len(a.shape)
        letters = "abcdefgh"[:rank]
        out = letters.replace(letters[axis], "z")
        weights = a.number(matrix)
        return a("Einsum", weights, a.x, equation=f"z{letters[axis]},{letters}->{out}")
    return row


ROWS: Mapping[str, Row] = {
    "Identity": lambda a: a.x, "StopGradient": lambda a: a.x, "PreventGradient": lambda a: a.x,
    "IdentityN": lambda a: a.inputs, "PlaceholderWithDefault": lambda a: a.x,
    "Reshape": _reshape, "ExpandDims": _reshape, "Squeeze": _reshape, "BroadcastTo": _broadcast, "Tile": _tile,
    "Transpose": lambda a: a.to.transposed(a.x, tuple(map(int, a.attrs["perm"]))), "ConcatV2": _concat, "Pack": _pack,
    "Unpack": _unpack, "Split": _split, "SplitV": _split, "Slice": _slice, "SliceGrad": _slice_grad,
    "ReverseV2": _reverse, "Pad": _pad, "PadV2": _pad, "MirrorPad": _mirror_pad,
    "Patches": _patches,
    # made from nothing
    "Const": lambda a: a.to.constant(a.attrs["value"], a.attrs["dtype"]), "Sizes": _sizes(lambda a: a.attrs["sizes"]),
    "Shape": _sizes(lambda a: tuple(a.shape)), "Size": _sizes(lambda a: elements(a.shape)),
    "Rank": _sizes(lambda a: len(a.shape)), "Fill": _fill, "Range": _range, "Iota": _iota, "LinSpace": _linspace,
    # by index
    "GatherV2": _gather, "GatherNd": _gather_nd, "ScatterNd": _scatter_nd,
    "TensorScatterUpdate": lambda a: _scattered(a, a.inputs[0], a.inputs[1], a.inputs[2], add=False),
    "TensorScatterAdd": lambda a: _scattered(a, a.inputs[0], a.inputs[1], a.inputs[2], add=True),
    "TensorScatterSub": lambda a: _scattered(a, a.inputs[0], a.inputs[1], negated(a, a.inputs[2]), add=True),
    "UnsortedSegmentSum": _segment_sum, "OneHot": _one_hot,
    "LabelMask": lambda a: _classes(a, a.attrs["classes"], len(a.shape)),
    # diagonals
    "MatrixDiag": _matrix_diag, "MatrixDiagPart": _matrix_diag_part, "Diag": _diag, "DiagPart": _diag_part,
    "MatrixBandPart": _band_part,
    # resizing
    "ResizeNearestNeighbor": _resize("nearest"), "ResizeBilinear": _resize("linear"),
    "ResizeAxis": _resize_axis("ResizeAxis"), "ResizeAxisGrad": _resize_axis("ResizeAxisGrad"),
}
