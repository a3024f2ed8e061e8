"""The geometry of convolutions: where each window lies, and the three sums that a convolution and its gradients are.

Owns `Geometry`, read from an op's attrs and the shapes of input, filter and output, for any number of spatial axes.
Must not know ops, graphs or machines.  Invariant: input, filter and output agree about every axis; a depthwise
convolution is one of as many groups as channels, its filter indexed by group instead of by channel of the group.

With o an output position, t a tap, s stride, d dilation and p the padding before, a window reads o*s + t*d - p.  An
input position x is read by the taps with (x + p - t*d) % s == 0.  With g = gcd(s, d) these are, for x = q*s + r (r: the
phase of x), the taps t = t0(r) + t'*(s/g), at o = o0(r) + q - t'*(d/g), where g divides r + p: a convolution with every
(s/g)-th tap.  So the gradient of a strided convolution is one dense product per phase.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.types import Shape
from graphc.kernel.ir import Axis, Const, Expr, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import prim
from graphc.ops.base import Place, Split, Windows


@dataclass(frozen=True, slots=True)
class Window:
    """One spatial axis: its sizes, and how windows lie on the input.  is_inside: no window reaches beyond the input,
    though sizes may be unknown."""

    size: Size
    taps: Size
    out: Size
    stride: int
    dilation: int
    before: Size
    is_inside: bool = False

    @property
    def reach(self) -> Size:
        """Elements from the first to the last that one window reads."""
        return (self.taps - 1) * self.dilation + 1


@dataclass(frozen=True, slots=True)
class Geometry:
    """All axes of a convolution.  channels, features: input and output channels of one group.

    batch_axis is 0 always; channel_axis: of input and output; spatial_axes: of both.
    """

    batch: Size
    windows: tuple[Window, ...]
    groups: Size
    channels: Size
    features: Size
    channel_axis: int
    spatial_axes: tuple[int, ...]
    is_depthwise: bool

    @property
    def multiply_adds(self) -> Size:
        """Products that are added in all: of the convolution, and of either gradient."""
        spatial = dim.product(w.out * w.taps for w in self.windows)
        return self.batch * spatial * self.groups * self.channels * self.features

    def arrange(self, batch: Any, spatial: Sequence[Any], channel: Any) -> tuple[Any, ...]:
        """Return these in the order of the axes of input and output."""
        found: dict[int, Any] = {0: batch, self.channel_axis: channel}
        found.update(zip(self.spatial_axes, spatial, strict=True))
        return tuple(found[axis] for axis in range(len(found)))


def axes_of(data_format: str, rank: int) -> tuple[int, tuple[int, ...]]:
    """Return the channel axis, and the spatial axes, of tensors in `data_format` ("NHWC", "NCDHW" ...)."""
    if data_format.startswith("NC"):
        return 1, tuple(range(2, rank + 2))
    return rank + 1, tuple(range(1, rank + 1))


def padding_pairs(attrs: Mapping[str, Any], rank: int) -> tuple[tuple[int, int], ...] | None:
    """Return the explicit padding before and after each spatial axis, or None where the mode gives it."""
    if attrs["padding"] == "VALID":
        return ((0, 0),) * rank
    if attrs["padding"] == "SAME":
        return None
    _, spatial = axes_of(attrs["data_format"], rank)
    pads = attrs["explicit_paddings"]
    return tuple((int(pads[2 * a]), int(pads[2 * a + 1])) for a in spatial)


def out_size(size: Size, taps: Size, stride: int, dilation: int, pads: tuple[int, int] | None) -> Size:
    """Return the number of windows along an axis; `pads` None stands for SAME."""
    if pads is None:
        return dim.ceildiv(size, stride)
    return dim.floordiv(size + sum(pads) - (taps - 1) * dilation - 1, stride) + 1


def geometry(attrs: Mapping[str, Any], x: Shape, w: Shape, y: Shape, is_depthwise: bool) -> Geometry:
    """Return the geometry of a convolution that takes shape x, with a filter of shape w, to shape y."""
    rank = len(x) - 2
    channel, spatial = axes_of(attrs["data_format"], rank)
    pairs = padding_pairs(attrs, rank)
    windows = tuple(
        _window(x[a], w[i], y[a], int(attrs["strides"][a]), int(attrs["dilations"][a]),
                None if pairs is None else pairs[i])
        for i, a in enumerate(spatial))
    if is_depthwise:
        return Geometry(x[0], windows, x[channel], 1, w[-1], channel, spatial, True)
    groups = dim.divide_exactly(x[channel], w[-2])
    if groups is None:  # a condition of the run makes them equal
        groups = 1
    return Geometry(x[0], windows, groups, w[-2], dim.floordiv(y[channel], groups), channel, spatial, False)


def _window(size: Size, taps: Size, out: Size, stride: int, dilation: int, pads: tuple[int, int] | None) -> Window:
    if pads is not None:
        return Window(size, taps, out, stride, dilation, pads[0], pads == (0, 0))
    if taps == 1:
        return Window(size, taps, out, stride, dilation, 0, True)
    missing = (out - 1) * stride + (taps - 1) * dilation + 1 - size
    return Window(size, taps, out, stride, dilation, dim.floordiv(dim.maximum(missing, 0), 2))


# -- the sums ---------------------------------------------------------------------------------------------------------


def forward_windows(g: Geometry) -> Windows:
    """y[n, o, f] = sum over taps and channels of x[n, o*s + t*d - p, c] * w[t, c, f]."""
    axes = _Axes(g)
    out = g.arrange(axes.whole("n"), [axes.whole(f"o{i}") for i in range(len(g.windows))], axes.features())
    summed = [f"t{i}" for i in range(len(g.windows))]
    return axes.windows(out, summed + axes.channel_names, axes.input_place(), axes.filter_place(1, axes.taps()))


def filter_windows(g: Geometry) -> Windows:
    """dw[t, c, f] = sum over batch and output positions of x[n, o*s + t*d - p, c] * dy[n, o, f]."""
    axes = _Axes(g)
    taps = [axes.whole(f"t{i}") for i in range(len(g.windows))]
    if g.is_depthwise:
        out = (*taps, axes.whole("g"), axes.whole("f"))
    else:
        out = (*taps, axes.whole("c"), axes.features())
    dy = Place(1, g.arrange(axes["n"], [axes[f"o{i}"] for i in range(len(g.windows))], axes.feature))
    return axes.windows(out, ["n", *(f"o{i}" for i in range(len(g.windows)))], axes.input_place(), dy)


def input_windows(g: Geometry) -> Windows:
    """dx[n, x, c] = sum over the taps that read x, and features, of dy[n, o, f] * w[t, c, f]."""
    axes = _Axes(g)
    reads = [axes.reads_of_input(i, w) for i, w in enumerate(g.windows)]
    out = g.arrange(axes.whole("n"), [axes.whole(f"x{i}") for i in range(len(g.windows))], axes.channels())
    summed = [f"t{i}" for i in range(len(g.windows))]
    dy = Place(1, g.arrange(axes["n"], [r.place for r in reads], axes.feature), _all(r.is_window for r in reads))
    return axes.windows(out, summed + axes.feature_names, dy,
                        axes.filter_place(0, [r.tap for r in reads], _all(r.is_tap for r in reads)))


@dataclass(frozen=True, slots=True)
class _InputReads:
    """Of an input position: the window that a tap of its phase belongs to, and which tap of the filter that is."""

    place: Expr
    tap: Expr
    is_window: Expr | None
    is_tap: Expr | None


@dataclass(slots=True)
class _Axes:
    """The axes of one sum, by name: n batch, o windows, x input, t taps, g groups, c channels and f features of a
    group; q and r: quotient and phase of x."""

    g: Geometry
    sizes: dict[str, Size] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)

    def __post_init__(self) -> None:
        g = self.g
        self.sizes = {"n": g.batch, "g": g.groups, "c": g.channels, "f": g.features}
        for i, w in enumerate(g.windows):
            self.sizes |= {f"o{i}": w.out, f"x{i}": w.size, f"t{i}": w.taps}

    def __getitem__(self, name: str) -> Expr:
        return index(0) if self.sizes[name] == 1 else Axis(name)

    def whole(self, name: str) -> str:
        """The name of an axis of the output; none where its size is 1."""
        return "" if self.sizes[name] == 1 else name

    def windows(self, out: Sequence[str], summed: Sequence[str], a: Place, b: Place) -> Windows:
        real = tuple(name for name in summed if self.sizes[name] != 1)
        return Windows(self.sizes, tuple(out), real or tuple(summed[:1]), a, b, self.splits)

    def _grouped(self, name: str, inner: str) -> str:
        """The output axis of all groups' channels or features."""
        if self.sizes["g"] == 1:
            return self.whole(inner)
        if self.sizes[inner] == 1:
            return "g"
        self.sizes[name] = self.sizes["g"] * self.sizes[inner]
        self.splits[name] = Split("g", inner, self.sizes[inner])
        return name

    def channels(self) -> str:
        return self._grouped("channels", "c")

    def features(self) -> str:
        return self._grouped("features", "f")

    @property
    def channel(self) -> Expr:
        return _plus(_times(self["g"], self.sizes["c"]), self["c"])

    @property
    def feature(self) -> Expr:
        return _plus(_times(self["g"], self.sizes["f"]), self["f"])

    @property
    def channel_names(self) -> list[str]:
        return ["c"]

    @property
    def feature_names(self) -> list[str]:
        return ["f"]

    def taps(self) -> list[Expr]:
        return [self[f"t{i}"] for i in range(len(self.g.windows))]

    def filter_place(self, number: int, taps: Sequence[Expr], inside: Expr | None = None) -> Place:
        if self.g.is_depthwise:
            return Place(number, (*taps, self["g"], self["f"]), inside)
        return Place(number, (*taps, self["c"], self.feature), inside)

    def input_place(self) -> Place:
        places, inside = [], []
        for i, w in enumerate(self.g.windows):
            at = _minus(_plus(_times(self[f"o{i}"], w.stride), _times(self[f"t{i}"], w.dilation)), w.before)
            low = not w.is_inside and w.before != 0
            high = not w.is_inside and not _known_at_most((w.out - 1) * w.stride + w.reach - w.before, w.size)
            places.append(at)
            inside.append(_between(at, low, w.size if high else None))
        return Place(0, self.g.arrange(self["n"], places, self.channel), _all(inside))

    def reads_of_input(self, i: int, w: Window) -> _InputReads:
        common = math.gcd(w.stride, w.dilation)
        step, apart = w.stride // common, w.dilation // common
        self.sizes[f"t{i}"] = count = dim.ceildiv(w.taps, step)
        tap = self[f"t{i}"]
        if w.stride == 1:
            at = _minus(_plus(self[f"x{i}"], size_of(w.before)), _times(tap, apart))
            low = not _known_at_most((w.taps - 1) * w.dilation, w.before)
            high = not _known_at_most(w.size + w.before, w.out)
            return _InputReads(at, tap, _between(at, low, w.out if high else None), None)
        quotient: Expr = index(0)
        phase: Expr = index(0)
        if self.sizes[f"x{i}"] != 1:
            self.splits[f"x{i}"] = Split(f"q{i}", f"r{i}", w.stride, True)
            quotient, phase = Axis(f"q{i}"), Axis(f"r{i}")
        first, window = _first(phase, w, common)
        at = _minus(_plus(quotient, window), _times(tap, apart))
        low, high = _beyond(w, common, count)
        is_window = _between(at, low, w.out if high else None)
        if common != 1:
            reached = prim("eq", _modulo(_plus(phase, size_of(w.before)), common), index(0))
            is_window = _all((reached, is_window))
        tap = _plus(_times(tap, step), first)
        exact = dim.divide_exactly(w.taps, step) is not None
        return _InputReads(at, tap, is_window, None if exact else prim("lt", tap, size_of(w.taps)))


def _first(phase: Expr, w: Window, common: int) -> tuple[Expr, Expr]:
    """The first tap t0 that reads inputs of a phase, and the window o0 to which it belongs at quotient 0."""
    if isinstance(w.before, int) and w.before % w.stride == 0 and w.dilation == 1:
        return phase, index(w.before // w.stride)
    shifted = _plus(phase, size_of(w.before))
    step = w.stride // common
    inverse = pow(w.dilation // common, -1, step)
    first = _modulo(_times(_divided(shifted, common), inverse), step)
    if w.dilation == 1:
        return first, _divided(shifted, w.stride)
    return first, _divided(_minus(shifted, _times(first, w.dilation)), w.stride)


def _beyond(w: Window, common: int, count: Size) -> tuple[bool, bool]:
    """Whether the reads of some input position lie before the first window, or after the last, as far as is known."""
    sizes = w.size, w.before, w.out, count
    if any(isinstance(n, Dim) for n in sizes):
        return True, True
    size, before, out, taps = (int(n) for n in sizes if isinstance(n, int))
    step, apart = w.stride // common, w.dilation // common
    starts = []
    for phase in range(before, before + w.stride):
        if phase % common == 0:
            first = phase // common * pow(apart, -1, step) % step
            starts.append((phase - first * w.dilation) // w.stride)
    return min(starts) < (taps - 1) * apart, max(starts) + -(-size // w.stride) > out


def _known_at_most(a: Size, b: Size) -> bool:
    room = b - a
    return isinstance(room, int) and room >= 0


def _between(at: Expr, low: bool, end: Size | None) -> Expr | None:
    """0 <= at, where `low`, and at < end, where there is one."""
    return _all((prim("le", index(0), at) if low else None, None if end is None else prim("lt", at, size_of(end))))


def _all(conditions: Any) -> Expr | None:
    total: Expr | None = None
    for condition in conditions:
        if condition is not None:
            total = condition if total is None else prim("and", total, condition)
    return total


def _is_zero(e: Expr) -> bool:
    return isinstance(e, Const) and e.value == 0


def _plus(a: Expr, b: Expr) -> Expr:
    if _is_zero(a) or _is_zero(b):
        return b if _is_zero(a) else a
    return prim("add", a, b)


def _minus(a: Expr, b: Expr | Size) -> Expr:
    taken = size_of(b) if isinstance(b, int | Dim) else b
    return a if _is_zero(taken) else prim("sub", a, taken)


def _times(a: Expr, by: Size) -> Expr:
    if _is_zero(a) or by == 1:
        return a
    return index(0) if by == 0 else prim("mul", a, size_of(by))


def _divided(a: Expr, by: int) -> Expr:
    return a if by == 1 else prim("floordiv", a, index(by))


def _modulo(a: Expr, by: int) -> Expr:
    return index(0) if by == 1 else prim("floormod", a, index(by))
