"""Resizing of images: nearest, bilinear, bicubic.

Owns ResizeNearestNeighbor, ResizeBilinear and ResizeBicubic: one axis after the other, each output a few taps with
weights.  Must not know fusion.  Invariants: positions are computed in float32 as TensorFlow 1.15 computes them, so that
the same elements are taken; a gradient is gathered: each element sums the outputs that took it, by its weights there,
which are a table where the sizes are known.
"""
from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import bfloat16, float16, float32, int32, int64, uint8
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import PartialType
from graphc.kernel.ir import Axis, Expr, For, Load, Reduce, Stmt, Store, Var, const, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import cast, prim
from graphc.ops import build as b
from graphc.ops.base import (
    REQUIRED,
    Call,
    Decomposition,
    Inference,
    Kind,
    NoGradient,
    NotLowered,
    Op,
    Point,
    Pointwise,
    Routine,
    RoutineBody,
    Sample,
    attr_or_value,
    data_inputs,
    register,
    widen,
)
from graphc.ops.rules import (
    ALL,
    FLOATS,
    NUMBERS,
    check_dtype,
    concrete,
    ints,
    require_rank,
    same_shapes,
    show,
    typed,
    unknown_sizes,
)
from graphc.ops.windows import plus

# -- where the taps of an output are ----------------------------------------------------------------------------------

MOST_SHARES, MOST_WEIGHTS = 24, 1 << 20
"""Outputs that take an element, up to which its gradient is written out; elements of a table that is looked through."""
_STEPS = 1024
"""TensorFlow reads the cubic weights from a table of so many steps."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """One axis: `count` outputs over `size` elements.  centred: half_pixel_centers.  reach: how far a tap may be."""

    method: str
    size: Size
    count: Size
    align: bool
    centred: bool

    @property
    def reach(self) -> int:
        return 2 if self.method == "bicubic" else 1

    @property
    def scale(self) -> Expr:
        """Elements from one output to the next, as a float32."""
        if not self.align:
            return _ratio(self.size, self.count)
        if isinstance(self.count, int):
            return _ratio(self.size - 1, self.count - 1) if self.count > 1 else _ratio(self.size, self.count)
        spread = prim("div", _number(self.size - 1), _number(dim.maximum(self.count - 1, 1)))
        return prim("select", prim("lt", index(1), size_of(self.count)), spread, _ratio(self.size, self.count))

    def position(self, at: Expr) -> Expr:
        """Where output `at` lies among the elements."""
        place = cast(at, float32)
        if not self.centred:
            return prim("mul", place, self.scale)
        scaled = prim("mul", prim("add", place, _f(0.5)), self.scale)
        return scaled if self.method == "nearest" else prim("sub", scaled, _f(0.5))

    def taps(self, at: Expr) -> list[tuple[Expr, Expr]]:
        """The elements that make output `at`, and their weights (float32)."""
        position = self.position(at)
        below = prim("floor", position)
        part = prim("sub", position, below)
        match self.method:
            case "nearest":
                if not self.align:
                    return [(self._inside(below), _f(1))]
                up = prim("select", prim("le", _f(0.5), part), _f(1), _f(0))
                return [(self._inside(prim("add", below, up)), _f(1))]
            case "bilinear":
                return [(self._inside(below), prim("sub", _f(1), part)), (self._inside(prim("ceil", position)), part)]
            case _:
                return self._cubic(below, part)

    def _cubic(self, below: Expr, part: Expr) -> list[tuple[Expr, Expr]]:
        """Keys' kernel with a = -0.75; with half_pixel_centers a = -0.5, and nothing from outside of the image."""
        x = prim("div", prim("rint", prim("mul", part, _f(_STEPS))), _f(_STEPS))
        rest = prim("sub", _f(1), x)
        a = -0.5 if self.centred else -0.75
        weights = [_outer(x, a), _inner(x, a), _inner(rest, a), _outer(rest, a)]
        first = cast(below, int64)
        places = [prim("add", first, index(i - 1)) for i in range(4)]
        held = [prim("max", prim("min", p, size_of(self.size - 1)), index(0)) for p in places]
        if not self.centred:
            return list(zip(held, weights, strict=True))
        weights = [prim("select", prim("eq", p, h), w, _f(0)) for p, h, w in zip(places, held, weights, strict=True)]
        total = prim("add", prim("add", weights[0], weights[1]), prim("add", weights[2], weights[3]))
        return [(h, prim("div", w, total)) for h, w in zip(held, weights, strict=True)]

    def _inside(self, place: Expr) -> Expr:
        return prim("max", prim("min", cast(place, int64), size_of(self.size - 1)), index(0))

    def first(self, element: Expr) -> Expr:
        """The first output that may have taken `element`."""
        low = prim("sub", cast(element, float32), _f(self.reach))
        if self.centred and self.method != "nearest":
            low = prim("add", low, _f(0.5))
        back = prim("div", low, self.scale)
        back = prim("sub", back, _f(0.5)) if self.centred else back
        found = prim("sub", cast(prim("floor", back), int64), index(1))
        return prim("max", prim("min", found, size_of(self.count)), index(0))

    @property
    def candidates(self) -> Size:
        """How many outputs, from the first on, may have taken an element."""
        if self.align:
            return dim.minimum(dim.ceildiv(2 * self.reach * self.count, dim.maximum(self.size - 1, 1)) + 4, self.count)
        return dim.minimum(dim.ceildiv(2 * self.reach * self.count, dim.maximum(self.size, 1)) + 4, self.count)

    def concrete_taps(self) -> tuple[np.ndarray, np.ndarray]:
        """What `taps` says, of known sizes, for NumPy: indices and weights, (outputs, taps)."""
        size, count = int(self.size), int(self.count)
        ratio = np.float32(size) / np.float32(max(count, 1))
        if self.align and count > 1:
            ratio = np.float32(size - 1) / np.float32(count - 1)
        half = np.float32(0.5 if self.centred else 0.0)
        place = (np.arange(count, dtype=np.float32) + half) * ratio
        place = place - (half if self.method != "nearest" else np.float32(0))
        below = np.floor(place)
        part = place - below
        if self.method == "nearest":
            at = np.where(part >= 0.5, below + 1, below) if self.align else below
            return np.clip(at, 0, size - 1).astype(np.int64)[:, None], np.ones((count, 1))
        if self.method == "bilinear":
            at = np.stack([below, np.ceil(place)], 1)
            return np.clip(at, 0, size - 1).astype(np.int64), np.stack([1 - part, part], 1).astype(np.float64)
        x = np.rint(part * np.float32(_STEPS)).astype(np.float64) / _STEPS
        a = -0.5 if self.centred else -0.75
        weights = np.stack([_cubic_outer(x, a), _cubic_inner(x, a), _cubic_inner(1 - x, a), _cubic_outer(1 - x, a)], 1)
        places = below[:, None].astype(np.int64) + np.arange(-1, 3)
        held = np.clip(places, 0, size - 1)
        if self.centred:
            weights = np.where(held == places, weights, 0)
            weights = weights / weights.sum(1, keepdims=True)
        return held, weights


def _f(value: float) -> Expr:
    return const(value, float32)


def _number(n: Size) -> Expr:
    return _f(float(np.float32(n))) if isinstance(n, int) else cast(size_of(n), float32)


def _ratio(a: Size, c: Size) -> Expr:
    if isinstance(a, int) and isinstance(c, int):
        return _f(float(np.float32(a) / np.float32(max(c, 1))))
    return prim("div", _number(a), _number(c))


def _cubic_inner(x: Any, a: float) -> Any:
    return ((a + 2) * x - (a + 3)) * x * x + 1


def _cubic_outer(x: Any, a: float) -> Any:
    return a * x * (x - 1) * (x - 1)


def _inner(x: Expr, a: float) -> Expr:
    slope = prim("sub", prim("mul", x, _f(a + 2)), _f(a + 3))
    return prim("add", prim("mul", slope, prim("mul", x, x)), _f(1))


def _outer(x: Expr, a: float) -> Expr:
    rest = prim("sub", x, _f(1))
    return prim("mul", prim("mul", x, _f(a)), prim("mul", rest, rest))


# -- resizing along one axis ------------------------------------------------------------------------------------------

_ALONG: dict[str, Any] = {"axis": REQUIRED, "method": REQUIRED, "align_corners": False, "half_pixel_centers": False}


def _given(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attrs[name] for name in _ALONG}


def _grid(attrs: Mapping[str, Any], size: Size, count: Size) -> _Grid:
    return _Grid(attrs["method"], size, count, bool(attrs["align_corners"]), bool(attrs["half_pixel_centers"]))


def _along_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = data_inputs(ctx, {1: "size"})
    check_dtype(ctx, x, ALL if ctx.attrs["method"] == "nearest" else FLOATS)
    size = attr_or_value(ctx, 1, "size")
    if x.shape is None:
        return [PartialType(x.dtype, None)]
    axis = ctx.attrs["axis"]
    (n,) = (ctx.unknown(),) if size is None else ints(size)
    return [PartialType(x.dtype, (*x.shape[:axis], n, *x.shape[axis + 1:]))]


def _with(at: Sequence[Expr], axis: int, e: Expr) -> list[Expr]:
    return [*at[:axis], e, *at[axis + 1:]]


def _resize_point(p: Point) -> Expr:
    axis, t = p.attrs["axis"], p.in_types[0]
    grid = _grid(p.attrs, t.shape[axis], p.out_types[0].shape[axis])
    taps = grid.taps(p.index[axis])
    if grid.method == "nearest":
        return p.load(0, _with(p.index, axis, taps[0][0]))
    values = [widen(p.load(0, _with(p.index, axis, at))) for at, _ in taps]
    weights = [cast(w, values[0].dtype) for _, w in taps]
    if grid.method == "bilinear":  # as TensorFlow rounds it
        return prim("add", values[0], prim("mul", prim("sub", values[1], values[0]), weights[1]))
    total = prim("mul", values[0], weights[0])
    for v, w in zip(values[1:], weights[1:], strict=True):
        total = prim("add", total, prim("mul", v, w))
    return total


def _resize_reference(call: Call) -> Any:
    (x,) = call.arrays
    axis = call.attrs["axis"]
    at, weights = _grid(call.attrs, x.shape[axis], concrete(call)[axis]).concrete_taps()
    if call.attrs["method"] == "nearest":
        return np.take(x, at[:, 0], axis)
    along = [-1 if a == axis else 1 for a in range(x.ndim)]
    return sum(np.take(x, at[:, i], axis) * weights[:, i].reshape(along) for i in range(at.shape[1]))


def _resize_grad_body(r: Routine) -> tuple[Stmt, ...]:
    """Each element: the sum over the outputs that may have taken it, of gradient times its weight there."""
    shape, axis = r.out_types[0].shape, r.attrs["axis"]
    dtype = r.in_types[0].dtype
    grid = _grid(r.attrs, shape[axis], r.in_types[0].shape[axis])
    names = [r.fresh("i") for _ in shape]
    place: list[Expr] = [Axis(n) for n in names]
    step, total = r.fresh("o"), r.fresh("s")
    output = prim("add", grid.first(place[axis]), Axis(step))
    there = prim("lt", output, size_of(grid.count))
    dy = widen(Load(r.input(0), tuple(_with(place, axis, output)), dtype, there, const(0, dtype)))
    weight: Expr | None = None
    for at, w in grid.taps(output):
        own = prim("select", prim("eq", at, place[axis]), w, _f(0))
        weight = own if weight is None else prim("add", weight, own)
    assert weight is not None
    value = prim("mul", dy, cast(weight, dy.dtype))
    body: tuple[Stmt, ...] = (
        Reduce((total,), ("sum",), step, size_of(grid.candidates), (), (value,)),
        Store(r.output(0), tuple(place), cast(Var(total, dy.dtype), dtype)))
    for name, n in zip(reversed(names), reversed(shape), strict=True):
        body = (For(name, size_of(n), body, True),)
    return body


def _shares(grid: _Grid) -> tuple[np.ndarray, np.ndarray]:
    """For each element of known sizes, the first output that takes it, and its weights in that and the following."""
    at, weights = grid.concrete_taps()
    size, count = int(grid.size), int(grid.count)
    table = np.zeros((size, count), np.float32)
    for tap in range(at.shape[1]):
        np.add.at(table, (at[:, tap], np.arange(count)), weights[:, tap].astype(np.float32))
    taken = table != 0
    first = np.where(taken.any(1), taken.argmax(1), 0)
    last = np.where(taken.any(1), count - 1 - taken[:, ::-1].argmax(1), 0)
    width = int((last - first).max()) + 1
    first = np.minimum(first, count - width)
    return first, np.take_along_axis(table, first[:, None] + np.arange(width), 1)


def _resize_grad_decompose(d: Decomposition) -> Sequence[Any] | None:
    """Of known sizes: weights from a table, written out where few outputs take an element."""
    axis, (dy,) = d.attrs["axis"], d.inputs
    (size,), count = ints(d.attrs["size"]), d.in_types[0].shape[axis]
    if not isinstance(size, int) or not isinstance(count, int) or size * count == 0 or size * count > MOST_WEIGHTS:
        return None
    first, weights = _shares(_grid(d.attrs, size, count))
    if weights.shape[1] > MOST_SHARES:
        return None
    return [d.op("ResizeAxisShares", dy, d.constant(first, int32), d.constant(weights, float32), axis=axis)]


def _shares_point(p: Point) -> Expr:
    axis, (dy_type, _, weights) = p.attrs["axis"], p.in_types
    at = p.index[axis]
    width, count = weights.shape[1], dy_type.shape[axis]
    assert isinstance(width, int)
    start = prim("max", prim("min", cast(p.load(1, [at]), int64), size_of(count - width)), index(0))
    total: Expr | None = None
    for k in range(width):
        dy = widen(p.load(0, _with(p.index, axis, plus(start, k))))
        part = prim("mul", dy, cast(p.load(2, [at, index(k)]), dy.dtype))
        total = part if total is None else prim("add", total, part)
    assert total is not None
    return total


def _shares_infer(ctx: Inference) -> Sequence[PartialType]:
    dy, first, weights = ctx.inputs
    check_dtype(ctx, dy, FLOATS)
    if dy.shape is None or first.shape is None:
        return [PartialType(dy.dtype, None)]
    same_shapes(ctx, (first.shape, None if weights.shape is None else weights.shape[:1]),
                "an element has one first output and one row of weights")
    axis = ctx.attrs["axis"]
    return [PartialType(dy.dtype, (*dy.shape[:axis], first.shape[0], *dy.shape[axis + 1:]))]


def _shares_reference(call: Call) -> Any:
    dy, first, weights = call.arrays
    moved = np.moveaxis(dy, call.attrs["axis"], -1)
    taken = moved[..., first[:, None] + np.arange(weights.shape[1])]
    return np.moveaxis(np.sum(taken * weights, -1), -1, call.attrs["axis"])


def _resize_grad_reference(call: Call) -> Any:
    (dy,) = call.arrays
    axis, shape = call.attrs["axis"], concrete(call)
    at, weights = _grid(call.attrs, shape[axis], dy.shape[axis]).concrete_taps()
    moved = np.moveaxis(dy, axis, 0)
    out = np.zeros((shape[axis], *moved.shape[1:]), dy.dtype)
    for i in range(at.shape[1]):
        np.add.at(out, at[:, i], moved * weights[:, i].reshape(-1, *[1] * (moved.ndim - 1)))
    return np.moveaxis(out, 0, axis)


def _axis_size(x: Any, axis: int) -> Any:
    """The size of an axis, as a static input takes it."""
    shape = b.static_shape(x)
    return (shape[axis],) if shape is not None else b.op("Slice", b.op("Shape", x), (axis,), (1,))


_MODES: tuple[dict[str, bool], ...] = ({}, {"align_corners": True}, {"half_pixel_centers": True})
_AXIS_SHAPES = (((2, 5, 3), 1, 8), ((1, 7, 17), 1, 3), ((1, 2), 1, 7), ((2, 3), 1, 1))
_AXIS_CASES: tuple[tuple[tuple[int, ...], int, int, dict[str, Any]], ...] = tuple(
    (*_AXIS_SHAPES[(number + turn) % 4], {"method": method, **mode})
    for number, (method, mode) in enumerate(itertools.product(("nearest", "bilinear", "bicubic"), _MODES))
    for turn in ((0,) if method == "nearest" else (0, 1)))


def _axis_samples(backward: bool) -> list[Sample]:
    out = []
    for shape, axis, n, attrs in _AXIS_CASES:
        other = (*shape[:axis], n, *shape[axis + 1:])
        given, size = (other, (shape[axis],)) if backward else (shape, (n,))
        out.append(Sample((typed(float32, *given),), {"axis": axis, "size": size, **attrs}, special=False))
    if not backward:
        out += [Sample((typed(d, 3, 4),), {"axis": 1, "size": (9,), "method": "nearest"}, differentiable=False)
                for d in (uint8, float16)]
    return out


def _shares_samples() -> list[Sample]:
    out = []
    for (shape, axis, n), method in zip((((2, 3, 17), 1, 2), ((1, 7), 1, 3), ((2, 3, 2), 1, 1)),
                                        ("bicubic", "bilinear", "nearest"), strict=True):
        first, weights = _shares(_Grid(method, n, shape[axis], False, False))
        out += [Sample((typed(d, *shape), typed(int32, *first.shape), typed(float32, *weights.shape)), {"axis": axis},
                       {1: first, 2: weights}, ulp=2.0 ** 12, special=False) for d in (float32, float16)]
    return out


def _register_axis(name: str, other: str, reference: Any, lower: Pointwise | RoutineBody, doc: str,
                   decompose: Any = None) -> None:
    register(Op(
        name=name, kind=Kind.INDEXING, inputs=("input", "size"), static={1: "size"}, attrs={"size": None, **_ALONG},
        infer=_along_infer, reference=reference, lower=lower, doc=doc, decompose=decompose,
        gradient=lambda op, dy: [b.op(other, dy, _axis_size(op.inputs[0], op.attrs["axis"]), **_given(op.attrs))],
        samples=lambda: _axis_samples(name != "ResizeAxis")))


_register_axis("ResizeAxis", "ResizeAxisGrad", _resize_reference, Pointwise(point=_resize_point),
               "One axis resized to `size`: each output is the nearest element, or a weighted sum of 2 or 4")
_register_axis("ResizeAxisGrad", "ResizeAxis", _resize_grad_reference, RoutineBody(_resize_grad_body),
               "The gradient of ResizeAxis: `size` elements, each the sum of the outputs' gradients by its weights",
               _resize_grad_decompose)
register(Op(
    name="ResizeAxisShares", kind=Kind.INDEXING, inputs=("dy", "first", "weights"), attrs={"axis": REQUIRED},
    infer=_shares_infer, gradient=NoGradient("it stands for ResizeAxisGrad where a program is compiled"),
    reference=_shares_reference, lower=Pointwise(point=_shares_point), samples=_shares_samples,
    doc="The sum of a few neighbours along an axis, from `first` on, by a row of weights for each element"))

# -- resizing of images -----------------------------------------------------------------------------------------------


def _image_infer(method: str) -> Any:
    def infer(ctx: Inference) -> Sequence[PartialType]:
        (x,) = data_inputs(ctx, {1: "size"})
        check_dtype(ctx, x, NUMBERS)
        require_rank(ctx, x.shape, 4, "the images", 4)
        if ctx.attrs["align_corners"] and ctx.attrs["half_pixel_centers"]:
            raise ctx.fail("align_corners and half_pixel_centers exclude each other")
        size = attr_or_value(ctx, 1, "size")
        if size is not None and len(size) != 2:
            raise ctx.fail(f"the size is (height, width), not {size}")
        for n in size or ():
            ctx.at_most(1, n, f"the size must be positive, {size} is given")
        if x.shape is not None:
            for n in x.shape[1:3]:
                ctx.at_most(1, n, f"images of shape {show(x.shape)} have no elements to take")
        sizes = unknown_sizes(ctx, 2) if size is None else tuple(size)
        batch, channels = unknown_sizes(ctx, 2) or () if x.shape is None else (x.shape[0], x.shape[3])
        return [PartialType(x.dtype if method == "nearest" else float32, (batch, *(sizes or ()), channels))]
    return infer


def _image_attrs(attrs: Mapping[str, Any], method: str, axis: int) -> dict[str, Any]:
    return {"axis": axis, "method": method, "align_corners": bool(attrs["align_corners"]),
            "half_pixel_centers": bool(attrs["half_pixel_centers"])}


def _image_decompose(method: str) -> Any:
    def decompose(d: Decomposition) -> Sequence[Any]:
        (x,) = d.inputs
        height, width = d.attrs["size"]
        if method != "nearest" and d.in_types[0].dtype is not float32:
            x = d.op("Cast", x, dtype=float32)
        for axis, n in ((2, width), (1, height)):
            x = d.op("ResizeAxis", x, size=(n,), **_image_attrs(d.attrs, method, axis))
        return [x]
    return decompose


def _image_reference(method: str) -> Any:
    def reference(call: Call) -> Any:
        (x,) = call.arrays
        x = x if method == "nearest" else x.astype(np.float64)
        for axis in (2, 1):
            attrs = _image_attrs(call.attrs, method, axis)
            at, weights = _grid(attrs, x.shape[axis], concrete(call)[axis]).concrete_taps()
            along = [-1 if a == axis else 1 for a in range(4)]
            x = np.take(x, at[:, 0], axis) if method == "nearest" else sum(
                np.take(x, at[:, i], axis) * weights[:, i].reshape(along) for i in range(at.shape[1]))
        return x
    return reference


def _image_gradient(method: str) -> Any:
    def gradient(op: Any, dy: Any) -> Sequence[Any]:
        x = op.inputs[0]
        for axis in (1, 2):
            dy = b.op("ResizeAxisGrad", dy, _axis_size(x, axis), **_image_attrs(op.attrs, method, axis))
        return [b.op("Cast", dy, dtype=x.dtype)]
    return gradient


def _register_image(name: str, method: str, doc: str) -> None:
    register(Op(
        name=name, kind=Kind.INDEXING, inputs=("images", "size"), static={1: "size"},
        attrs={"size": None, "align_corners": False, "half_pixel_centers": False}, infer=_image_infer(method),
        gradient=_image_gradient(method), reference=_image_reference(method),
        lower=NotLowered("decomposed into two ResizeAxis"), decompose=_image_decompose(method), doc=doc,
        samples=lambda: [Sample((typed(d, 2, 3, 5, 3),), {"size": (7, 4), **mode}, special=False, ulp=2.0 ** 12,
                                differentiable=d is float32 and method == "nearest")
                         for d, modes in ((float32, _MODES), (bfloat16, _MODES[:1]), (uint8, _MODES[1:2]))
                         for mode in modes]))


_register_image("ResizeNearestNeighbor", "nearest", "Images whose every element is the nearest one. "
                                                    "tf.image.resize_nearest_neighbor")
_register_image("ResizeBilinear", "bilinear", "Images interpolated linearly between 4 elements, in float32. "
                                              "tf.image.resize_bilinear")
_register_image("ResizeBicubic", "bicubic", "Images interpolated by cubics through 16 elements, in float32; Keys "
                                            "(1981). tf.image.resize_bicubic")
