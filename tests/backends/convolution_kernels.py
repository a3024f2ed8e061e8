"""Convolutions as Contracts, written by hand, and what they must give.

Owns `Convolution` (the sizes), its three kernels (forward, input gradient, filter gradient) and their float64
references.  Knows no backend.  Invariant: x, w, y stand for input, filter and output, and for their gradients.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.ir.dim import Size, symbol
from graphc.kernel.ir import (
    Axis,
    Const,
    Contract,
    Expr,
    Kernel,
    Let,
    Load,
    Param,
    Stmt,
    Store,
    Var,
    const,
    index,
    size,
)
from graphc.kernel.primitives import cast, prim

N = symbol("n0")
Pair = tuple[int, int]
n, g, ky, kx, c, o = (Axis(name) for name in ("n", "g", "ky", "kx", "c", "o"))


@dataclass(frozen=True)
class Convolution:
    """height, width, channels: of the input.  filters: channels of the output.  kernel, stride, dilation: by axis.
    padding: zeros before and after, by axis.  batch: None where it is the kernel's only size symbol."""

    height: int
    width: int
    channels: int
    filters: int
    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    groups: int = 1
    layout: str = "NHWC"
    dtype: DType = dtypes.float32
    batch: int | None = None

    @property
    def acc(self) -> DType:
        return dtypes.float32 if self.dtype.size == 2 else self.dtype

    @property
    def images(self) -> Size:
        return N if self.batch is None else self.batch

    @property
    def sizes(self) -> tuple[str, ...]:
        return ("n0",) if self.batch is None else ()

    @property
    def out(self) -> Pair:
        """Height and width of the output."""
        return tuple((extent + sum(p) - (k - 1) * d - 1) // s + 1 for extent, p, k, d, s in zip(  # type: ignore
            (self.height, self.width), self.padding, self.kernel, self.dilation, self.stride, strict=True))

    def flops(self, batch: int) -> int:
        """Return the operations of one pass."""
        return 2 * batch * self.out[0] * self.out[1] * self.filters * self.channels // self.groups \
            * self.kernel[0] * self.kernel[1]

    # -- arrays -------------------------------------------------------------------------------

    def image(self, images: Size, height: int, width: int, channels: int) -> tuple[Size, ...]:
        """Return the shape of an image in this layout."""
        return (images, height, width, channels) if self.layout == "NHWC" else (images, channels, height, width)

    def shapes(self, images: Size) -> dict[str, tuple[Size, ...]]:
        return {"x": self.image(images, self.height, self.width, self.channels),
                "w": (*self.kernel, self.channels // self.groups, self.filters),
                "y": self.image(images, *self.out, self.filters)}

    def at(self, y: Expr, x: Expr, channel: Expr) -> tuple[Expr, ...]:
        return (n, y, x, channel) if self.layout == "NHWC" else (n, channel, y, x)

    def channel(self, axis: Axis, count: int) -> Expr:
        return axis if self.groups == 1 else prim("add", prim("mul", g, size(count // self.groups)), axis)

    def load(self, buffer: str, at: tuple[Expr, ...], predicate: Expr | None = None) -> Expr:
        other = Const(0.0, self.dtype) if predicate is not None else None
        return cast(Load(buffer, at, self.dtype, predicate, other), self.acc)

    def param(self, name: str, role: str) -> Param:
        return Param(name, self.dtype if role == "in" else self.acc, self.shapes(self.images)[name], role)

    @property
    def batch_axes(self) -> tuple[tuple[str, Expr], ...]:
        return () if self.groups == 1 else (("g", size(self.groups)),)


def _pairs(**axes: Size) -> tuple[tuple[str, Expr], ...]:
    return tuple((name, size(extent)) for name, extent in axes.items())


def _inside(*coordinates: tuple[Expr, int, int, int]) -> Expr | None:
    """Return that 0 <= e < extent for every (e, extent, lowest, highest), as far as it can fail."""
    terms = [prim("le", index(0), e) for e, _, low, _ in coordinates if low < 0]
    terms += [prim("lt", e, size(extent)) for e, extent, _, high in coordinates if high >= extent]
    total: Expr | None = None
    for term in terms:
        total = term if total is None else prim("and", total, term)
    return total


def _window(place: Expr, step: int, tap: Expr, reach: int, before: int) -> Expr:
    return prim("sub", prim("add", prim("mul", place, index(step)), prim("mul", tap, index(reach))), index(before))


def _input(v: Convolution) -> Expr:
    """The input element under an output position and a tap."""
    oy, ox = Axis("oy"), Axis("ox")
    places = [_window(place, v.stride[i], tap, v.dilation[i], v.padding[i][0])
              for i, (place, tap) in enumerate(((oy, ky), (ox, kx)))]
    bounds = [(e, (v.height, v.width)[i], -v.padding[i][0],
               (v.out[i] - 1) * v.stride[i] + (v.kernel[i] - 1) * v.dilation[i] - v.padding[i][0])
              for i, e in enumerate(places)]
    return v.load("x", v.at(*places, v.channel(c, v.channels)), _inside(*bounds))


def forward(v: Convolution, body: tuple[Stmt, ...] | None = None, extra: tuple[Param, ...] = ()) -> Kernel:
    """Return y = convolution of x with w, or what `body` makes of it."""
    at = v.at(Axis("oy"), Axis("ox"), v.channel(o, v.filters))
    body = body or (Store("y", at, Var("acc", v.acc)),)
    contract = Contract(
        v.batch_axes, _pairs(n=v.images, oy=v.out[0], ox=v.out[1]), _pairs(o=v.filters // v.groups),
        _pairs(ky=v.kernel[0], kx=v.kernel[1], c=v.channels // v.groups), _input(v),
        v.load("w", (ky, kx, c, v.channel(o, v.filters))), "acc", v.acc, body)
    params = v.param("x", "in"), v.param("w", "in"), *extra, v.param("y", "out")
    return Kernel("forward", params, v.sizes, (contract,))


def dense_body(v: Convolution) -> tuple[tuple[Stmt, ...], tuple[Param, ...]]:
    """Bias, residual and relu, and where it is positive: two outputs."""
    at, t = v.at(Axis("oy"), Axis("ox"), v.channel(o, v.filters)), Var("t", v.acc)
    shape = v.shapes(v.images)["y"]
    body: tuple[Stmt, ...] = (
        Let("t", prim("add", prim("add", Var("acc", v.acc), Load("bias", (v.channel(o, v.filters),), v.acc)),
                      Load("r", at, v.acc))),
        Store("y", at, prim("max", t, const(0.0, v.acc))),
        Store("positive", at, prim("lt", const(0.0, v.acc), t)))
    return body, (Param("bias", v.acc, (v.filters,), "in"), Param("r", v.acc, shape, "in"),
                  Param("positive", dtypes.bool_, shape, "out"))


def input_gradient(v: Convolution) -> Kernel:
    """Return the gradient of x, given those of y: in phases where the stride is not 1."""
    phases = v.stride != (1, 1)
    assert not phases or v.dilation == (1, 1)
    steps, places, taps, rows, inputs = v.stride, [], [], [], []
    for i, (axis, tap) in enumerate((("iy", ky), ("ix", kx))):
        step, before = steps[i], v.padding[i][0]
        if step == 1:
            place = prim("sub", prim("add", Axis(axis), index(before)), prim("mul", tap, index(v.dilation[i])))
            row, whole = tap, Axis(axis)
            lowest, highest = before - (v.kernel[i] - 1) * v.dilation[i], (v.height, v.width)[i] - 1 + before
        else:
            lowest, highest = -1, v.out[i]
            shifted = prim("add", Axis("p" + axis), index(before))
            place = prim("sub", prim("add", Axis(axis), prim("floordiv", shifted, index(step))), tap)
            row = prim("add", prim("mul", tap, index(step)), prim("floormod", shifted, index(step)))
            whole = prim("add", prim("mul", Axis(axis), index(step)), Axis("p" + axis))
        places.append((place, v.out[i], lowest, highest))
        rows.append((row, v.kernel[i], 0, v.kernel[i] if step > 1 else 0))
        inputs.append((whole, (v.height, v.width)[i], 0, 10**9 if step > 1 else 0))
        taps.append(-(-v.kernel[i] // step))
    extents = [-(-extent // step) for extent, step in zip((v.height, v.width), steps, strict=True)]
    batch = (*v.batch_axes, *(("p" + axis, size(step)) for axis, step in zip(("iy", "ix"), steps, strict=True)
                              if step > 1))
    a = v.load("y", v.at(*(p[0] for p in places), v.channel(o, v.filters)), _inside(*places))
    b = v.load("w", (*(r[0] for r in rows), c, v.channel(o, v.filters)), _inside(*rows))
    store = Store("x", v.at(*(i[0] for i in inputs), v.channel(c, v.channels)), Var("acc", v.acc), _inside(*inputs))
    contract = Contract(
        batch, _pairs(n=v.images, iy=extents[0], ix=extents[1]), _pairs(c=v.channels // v.groups),
        _pairs(ky=taps[0], kx=taps[1], o=v.filters // v.groups), a, b, "acc", v.acc, (store,))
    return Kernel("input_gradient", (v.param("y", "in"), v.param("w", "in"), v.param("x", "out")), v.sizes, (contract,))


def filter_gradient(v: Convolution) -> Kernel:
    """Return the gradient of w, given x and those of y."""
    contract = Contract(
        v.batch_axes, _pairs(ky=v.kernel[0], kx=v.kernel[1], c=v.channels // v.groups),
        _pairs(o=v.filters // v.groups), _pairs(n=v.images, oy=v.out[0], ox=v.out[1]), _input(v),
        v.load("y", v.at(Axis("oy"), Axis("ox"), v.channel(o, v.filters))), "acc", v.acc,
        (Store("w", (ky, kx, c, v.channel(o, v.filters)), Var("acc", v.acc)),))
    params = v.param("x", "in"), v.param("y", "in"), v.param("w", "out")
    return Kernel("filter_gradient", params, v.sizes, (contract,))


# ---------------------------------------------------------------------------------------------
# References in float64, tap by tap, on channels-last arrays.


def _patches(v: Convolution, x: np.ndarray) -> list[tuple[int, int, tuple[slice, slice]]]:
    found = []
    for i in range(v.kernel[0]):
        for j in range(v.kernel[1]):
            starts = i * v.dilation[0], j * v.dilation[1]
            rows, columns = (slice(start, start + (count - 1) * step + 1, step)
                             for start, count, step in zip(starts, v.out, v.stride, strict=True))
            found.append((i, j, (rows, columns)))
    return found


def _split(v: Convolution, a: np.ndarray) -> np.ndarray:
    return a.reshape(*a.shape[:-1], v.groups, a.shape[-1] // v.groups)


def reference(v: Convolution, result: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return `result` ("x", "w" or "y") of the convolution from the two other arrays, in float64."""
    last = {k: a.astype(np.float64) for k, a in arrays.items()}
    if v.layout != "NHWC":
        last |= {k: last[k].transpose(0, 2, 3, 1) for k in ("x", "y") if k in last}
    images = next(last[k].shape[0] for k in ("x", "y") if k in last)
    padding = ((0, 0), *v.padding, (0, 0))
    padded = np.pad(last["x"], padding) if result != "x" else np.zeros(
        (images, v.height + sum(v.padding[0]), v.width + sum(v.padding[1]), v.channels))
    w = _split(v, last["w"]) if result != "w" else np.zeros((*v.kernel, v.channels // v.groups, v.groups,
                                                             v.filters // v.groups))
    y = _split(v, last["y"]) if result != "y" else np.zeros((images, *v.out, v.groups, v.filters // v.groups))
    for i, j, (rows, columns) in _patches(v, padded):
        part = _split(v, padded[:, rows, columns])
        match result:
            case "y":
                y += np.einsum("nhwgc,cgo->nhwgo", part, w[i, j], optimize=True)
            case "w":
                w[i, j] += np.einsum("nhwgc,nhwgo->cgo", part, y, optimize=True)
            case _:
                padded[:, rows, columns] += np.einsum("nhwgo,cgo->nhwgc", y, w[i, j], optimize=True).reshape(
                    images, *v.out, v.channels)
    if result == "w":
        return w.reshape(*w.shape[:3], v.filters)
    top, left = v.padding[0][0], v.padding[1][0]
    image = padded[:, top:top + v.height, left:left + v.width] if result == "x" else y.reshape(*y.shape[:3], v.filters)
    return image if v.layout == "NHWC" else image.transpose(0, 3, 1, 2)
