"""Windows that slide over the axes of a tensor: what pooling and patches have in common.

Owns the arithmetic of SAME and VALID: how many windows there are, which element a tap of a window is, and which windows
an element lies in.  Must not know what is done with the elements.  Invariants: a predicate is given exactly where
padding, or a remainder that no window covers, can be met; all arithmetic holds for symbolic sizes.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import Shape
from graphc.kernel.ir import Const, Expr, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import prim
from graphc.ops.base import Inference
from graphc.ops.rules import show


@dataclass(frozen=True, slots=True)
class Window:
    """One axis: `count` windows of `taps` elements, `stride` apart, over `size` elements.

    dilation: the distance of neighbouring taps.  before: elements of padding in front.  padded: whether there may be
    padding at all.
    """

    size: Size
    taps: int
    stride: int
    dilation: int
    before: Size
    count: Size
    padded: bool

    @property
    def is_trivial(self) -> bool:
        """Whether every window is its own element."""
        return self.taps == 1 and self.stride == 1

    @property
    def is_whole(self) -> bool:
        """Whether one window is the whole axis."""
        return self.count == 1 and self.taps == self.size and self.dilation == 1 and self.before == 0

    @property
    def span(self) -> int:
        """Elements from the first tap of a window to the last."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def overlap(self) -> int:
        """The number of windows that an element may lie in."""
        if self.is_whole:
            return 1
        return self.taps if self.dilation > 1 else -(-self.taps // self.stride)

    def element(self, window: Expr, tap: int) -> tuple[Expr, Expr | None]:
        """Return the position of a tap, and the condition that it is an element (None: it always is)."""
        at = plus(times(window, self.stride), tap * self.dilation - self.before)
        inside = []
        least = self.before if isinstance(self.before, int) else (self.span - 1) // 2
        if tap * self.dilation < least:
            inside.append(prim("le", index(0), at))
        beyond = (self.count - 1) * self.stride + tap * self.dilation - self.before - self.size
        after = (self.span // 2 if self.padded else 0) - (self.span - 1 - tap * self.dilation) - 1
        if (beyond if isinstance(beyond, int) else after) >= 0:
            inside.append(prim("lt", at, size_of(self.size)))
        return at, both(*inside)

    def real(self, window: Expr) -> Expr:
        """Return how many taps of a window are elements, as an int64 (of windows without dilation)."""
        if not self.padded or self.size == 0:
            return index(self.taps)
        start = plus(times(window, self.stride), -self.before)
        last = prim("min", plus(start, self.taps), size_of(self.size))
        return prim("sub", last, prim("max", start, index(0)))

    @property
    def is_even(self) -> bool:
        """Whether all windows are known to have as many elements as taps."""
        return not self.padded or all(self.element(index(0), t)[1] is None for t in range(self.taps))

    def covering(self, at: Expr) -> list[tuple[Expr, Expr, Expr | None]]:
        """Return the windows that the element `at` may lie in: window, tap, and the condition that it does."""
        if self.is_trivial:
            return [(at, index(0), None)]
        if self.is_whole:
            return [(index(0), at, None)]
        shifted = plus(at, self.before)
        if self.dilation > 1 or self.stride == 1:
            return [self._through(shifted, tap) for tap in range(self.taps)]
        first, rest = prim("floordiv", shifted, index(self.stride)), prim("floormod", shifted, index(self.stride))
        found: list[tuple[Expr, Expr, Expr | None]] = []
        for back in range(self.overlap):
            window, tap = plus(first, -back), plus(rest, back * self.stride)
            conditions = self._within(window, dim.floordiv(self.before, self.stride) - back,
                                      dim.floordiv(self.size - 1 + self.before, self.stride) - back)
            if (back + 1) * self.stride > self.taps:
                conditions.append(prim("lt", tap, index(self.taps)))
            found.append((window, tap, both(*conditions)))
        return found

    def _through(self, shifted: Expr, tap: int) -> tuple[Expr, Expr, Expr | None]:
        """The window whose tap of this number the element is."""
        at = plus(shifted, -tap * self.dilation)
        low, high = self.before - tap * self.dilation, self.size - 1 + self.before - tap * self.dilation
        if self.stride == 1:
            return at, index(tap), both(*self._within(at, low, high))
        window = prim("floordiv", at, index(self.stride))
        conditions = self._within(window, dim.floordiv(low, self.stride), dim.floordiv(high, self.stride))
        return window, index(tap), both(prim("eq", prim("floormod", at, index(self.stride)), index(0)), *conditions)

    def _within(self, window: Expr, low: Size, high: Size) -> list[Expr]:
        """The conditions that `window`, which lies in low..high, is one."""
        over = high - self.count
        found = []
        if not isinstance(low, int) or low < 0:
            found.append(prim("le", index(0), window))
        if not isinstance(over, int) or over >= 0:
            found.append(prim("lt", window, size_of(self.count)))
        return found

    def real_taps(self, tap: int) -> tuple[slice, slice]:
        """Return, of concrete sizes, the windows whose tap is an element, and those elements: for NumPy."""
        size, count, offset = int(self.size), int(self.count), tap * self.dilation - int(self.before)
        first = max(0, -(offset // self.stride))
        last = min(count, (size - 1 - offset) // self.stride + 1)
        if last <= first:
            return slice(0, 0), slice(0, 0)
        start = first * self.stride + offset
        return slice(first, last), slice(start, start + (last - first - 1) * self.stride + 1, self.stride)


def windows_of(shape: Shape, taps: Sequence[int], strides: Sequence[int], padding: str,
               dilations: Sequence[int] | None = None) -> tuple[Window, ...]:
    """Return the windows of every axis of a tensor of this shape."""
    out = []
    for n, k, s, d in zip(shape, taps, strides, dilations or (1,) * len(shape), strict=True):
        span = (k - 1) * d + 1
        if padding == "VALID":
            out.append(Window(n, k, s, d, 0, dim.floordiv(n - span, s) + 1, False))
            continue
        count = dim.ceildiv(n, s)
        missing = dim.maximum((count - 1) * s + span - n, 0) if k > 1 else 0
        out.append(Window(n, k, s, d, dim.floordiv(missing, 2), count, missing != 0))
    return tuple(out)


def check_windows(ctx: Inference, shape: Shape, taps: Sequence[int], strides: Sequence[int], padding: str,
                  dilations: Sequence[int] | None = None) -> tuple[Window, ...]:
    """Return the windows, after ShapeErrors for a wrong number of them, and for one wider than its axis."""
    if len(taps) != len(shape) or len(strides) != len(shape):
        raise ctx.fail(f"the window {tuple(taps)} and its strides {tuple(strides)} need one number per axis of "
                       f"{show(shape)}")
    if any(n < 1 for n in (*taps, *strides, *(dilations or ()))):
        raise ctx.fail(f"the window {tuple(taps)} and its strides {tuple(strides)} must be positive")
    if padding not in ("SAME", "VALID"):
        raise ctx.fail(f'padding is "SAME" or "VALID", not {padding!r}')
    found = windows_of(shape, taps, strides, padding, dilations)
    for axis, w in enumerate(found):
        if padding == "VALID" and not w.is_trivial:  # an axis without windows may be empty
            ctx.at_most(w.span, w.size, f"a window of {w.span} is wider than axis {axis} of {show(shape)}")
    return found


def every_tap(windows: Sequence[Window]) -> Iterator[tuple[int, ...]]:
    """Yield the taps of a window, the last axis fastest."""
    return itertools.product(*(range(w.taps) for w in windows))


def taps_of(windows: Sequence[Window], at: Sequence[Expr]) -> Iterator[tuple[list[Expr], Expr | None]]:
    """Yield the elements of the window `at`, tap by tap: index, and the condition that it is an element."""
    axes = [[w.element(e, t) for t in range(w.taps)] if not w.is_trivial else [(e, None)]
            for w, e in zip(windows, at, strict=True)]
    for found in itertools.product(*axes):
        yield [e for e, _ in found], both(*(p for _, p in found if p is not None))


def covering(windows: Sequence[Window], at: Sequence[Expr]) -> Iterator[tuple[list[Expr], Expr, Expr | None]]:
    """Yield the windows that the element `at` may lie in: index, number of the tap, and the condition that it does."""
    for found in itertools.product(*(w.covering(e) for w, e in zip(windows, at, strict=True))):
        tap: Expr = index(0)
        for w, (_, t, _) in zip(windows, found, strict=True):
            tap = _sum(times(tap, w.taps), t)
        yield [o for o, _, _ in found], tap, both(*(p for _, _, p in found if p is not None))


def tap_slices(windows: Sequence[Window], tap: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return, for NumPy, the windows whose tap is an element, and those elements."""
    pairs = [w.real_taps(t) for w, t in zip(windows, tap, strict=True)]
    return tuple(o for o, _ in pairs), tuple(i for _, i in pairs)


def counts(windows: Sequence[Window]) -> np.ndarray:
    """Return how many elements each window has, of concrete sizes."""
    total = np.zeros([int(w.count) for w in windows])
    for tap in every_tap(windows):
        total[tap_slices(windows, tap)[0]] += 1
    return total


# -- index arithmetic -------------------------------------------------------------------------------------------------


def plus(e: Expr, n: Size) -> Expr:
    """Return e + n."""
    if isinstance(n, int):
        if n == 0:
            return e
        if isinstance(e, Const):
            return index(int(e.value) + n)
        return prim("add", e, index(n)) if n > 0 else prim("sub", e, index(-n))
    return prim("add", e, size_of(n))


def times(e: Expr, n: int) -> Expr:
    """Return e * n."""
    if n == 1:
        return e
    return index(int(e.value) * n) if isinstance(e, Const) else prim("mul", e, index(n))


def _sum(a: Expr, b: Expr) -> Expr:
    if isinstance(b, Const):
        return plus(a, int(b.value))
    return plus(b, int(a.value)) if isinstance(a, Const) else prim("add", a, b)


def both(*conditions: Expr | None) -> Expr | None:
    """Return the conjunction of the conditions that are given, None for none."""
    total: Expr | None = None
    for c in conditions:
        if c is not None:
            total = c if total is None else prim("and", total, c)
    return total
