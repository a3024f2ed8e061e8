"""Patches: the part of an operand that a block of windows reads, copied into scratch, with the zeros of its padding.

Owns the copy of a `Patch` (window.py), row by row along its last window.  Knows nothing of tiles of products or of work
items.  Invariant: memory is read only where the operand's terms hold, at coordinates that some window reads or that lie
between such; every element of the patch at those is written.

    for each coordinate of the windows but the last
      0 0 0 | x x x x x x x x | 0        the terms of the last window cut its row in three
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.microkernel import Tile
from graphc.backends.llvm_cpu.pack import Span, evaluate_rows, for_vectors, transpose_strip
from graphc.backends.llvm_cpu.render import Context, Linear, Renderer
from graphc.backends.llvm_cpu.window import Patch, Term
from graphc.kernel import walk
from graphc.kernel.ir import Const, Expr, Prim


@dataclass(frozen=True, slots=True)
class Extent:
    """`count` coordinates of the window axis `axis`, from `first` on and `spacing` apart; in the patch, `stride`
    elements apart."""

    axis: str
    first: Value
    count: Value
    stride: int
    spacing: int = 1


def slack(patch: Patch, tile: Tile, pitch: int, is_planar: bool = False) -> int:
    """Return how many elements behind a patch are overwritten; `pitch`: elements of one coordinate, or of a plane's
    line."""
    return tile.lanes * pitch if patch.is_turned or is_planar else tile.lanes


def fill(renderer: Renderer, context: Context, patch: Patch, channels: Span, tile: Tile, extents: Sequence[Extent],
         target: Value, stage: Value, plane: int = 0) -> None:
    """Build the copy of these channels of `patch` at `extents` to `target`; see `slack`.

    stage: room for what is turned: a vector of channels by one of coordinates; with `plane`, all channels of a vector
    of coordinates.  plane: elements between the lines of two channels, which then lie apart; 0: channels lie together.
    """
    copy = (_Planes if plane else _Copy)(renderer, patch, channels, tile, extents[-1], stage, plane)
    _lines(copy, context, extents[:-1], target)


def _lines(copy: _Copy, context: Context, extents: Sequence[Extent], target: Value) -> None:
    if not extents:
        copy.row(context, target)
        return
    b, extent = target.b, extents[0]
    with b.loop(b.i64(0), extent.count) as loop:
        at = extent.first + loop.index * extent.spacing
        line = b.at(target, loop.index * extent.stride, copy.tile.element)
        _lines(copy, context.bound({extent.axis: at}), extents[1:], line)


def limited(renderer: Renderer, context: Context, axis: str, count: Value, terms: Sequence[Term]) -> Value:
    """Return how many of the values 0 .. count - 1 of `axis` all `terms` hold for; each bounds it from above."""
    b = renderer.b
    start = context.bound({axis: b.i64(0)})
    for term in terms:
        slope = term.slope(axis)
        if slope == 0:  # all of them, or none
            count = b.select(renderer.scalar(term.expr, start), count, b.i64(0))
            continue
        assert term.right is not None and slope is not None and slope > 0
        rest = renderer.scalar(term.right, start) - renderer.scalar(term.left, start)
        # slope * i < rest, or <= rest, which may be negative
        bound = b.intrinsic("smax", rest + (slope - 1 if term.is_strict else slope), b.i64(0))
        count = b.intrinsic("smin", count, b.binary("udiv", bound, b.i64(slope)))
    return count


def interval(renderer: Renderer, context: Context, terms: Sequence[Term], extent: Extent) -> tuple[Value, Value]:
    """Return from where to where along `extent` all `terms` hold; none is steeper than the axis."""
    b = renderer.b
    low, high = b.i64(0), extent.count
    start = context.bound({extent.axis: extent.first})
    for term in terms:
        slope = term.slope(extent.axis)
        if slope == 0:
            high = b.select(renderer.scalar(term.expr, start), high, b.i64(0))
            continue
        assert term.right is not None and slope in (-1, 1)
        rest = renderer.scalar(term.left, start) - renderer.scalar(term.right, start)
        if slope == 1:  # i + rest < 0, or <= 0
            high = b.intrinsic("smin", high, (0 - rest) + (0 if term.is_strict else 1))
        else:
            low = b.intrinsic("smax", low, rest + (1 if term.is_strict else 0))
    high = b.intrinsic("smax", high, b.i64(0))
    return b.intrinsic("smin", low, high), high


class _Copy:
    """Builds the copy of one row."""

    def __init__(self, renderer: Renderer, patch: Patch, channels: Span, tile: Tile, last: Extent,
                 stage: Value, plane: int) -> None:
        self.renderer, self.b, self.patch, self.tile, self.last, self.stage, self.plane = (
            renderer, renderer.b, patch, tile, last, stage, plane)
        self.channels, self.is_run = channels, patch.is_run and channels.count.constant == patch.channel.extent
        slopes = [t.slope(last.axis) for t in patch.terms]
        self.cuts = all(s in (-1, 0, 1) for s in slopes) and not any(
            patch.channel.name in walk.free_axes(t.expr) for t in patch.terms)

    def row(self, context: Context, target: Value) -> None:
        """Build one row: what lies outside, what lies inside, what lies outside again."""
        b, count = self.b, self.last.count
        if not self.patch.terms or not self.cuts:
            expr = self.patch.whole if self.patch.terms else self.patch.inside
            self._inside(context, expr, b.i64(0), count, target, self.is_run and not self.patch.terms)
            return
        low, high = interval(self.renderer, context, self.patch.terms, self.last)
        self._outside(context, b.i64(0), low, target)
        self._inside(context, self.patch.inside, low, high, target, self.is_run)
        self._outside(context, high, count, target)

    def _at(self, target: Value, place: Value) -> Value:
        return self.b.at(target, place * self.last.stride, self.tile.element)

    def _outside(self, context: Context, begin: Value, end: Value, target: Value) -> None:
        outside = self.patch.outside
        if is_zero(outside):
            self._clear(self._at(target, begin), (end - begin) * self.last.stride)
            return
        self._inside(context, outside, begin, end, target, False)

    def _clear(self, target: Value, count: Value) -> None:
        b, tile = self.b, self.tile
        with b.loop(b.i64(0), count, step=tile.lanes) as loop:
            b.store(b.const(0, tile.element, tile.lanes), b.at(target, loop.index, tile.element))

    def _inside(self, context: Context, expr: Expr, begin: Value, end: Value, target: Value, is_run: bool) -> None:
        """Build the values of `expr` from `begin` to `end` along the row."""
        b, tile, channel = self.b, self.tile, self.patch.channel

        def vectors(inner: Context, count: Value, start: Value) -> None:
            def vector(position: Value, mask: Value | None) -> None:
                lanes = inner.bound(self.channels.along(position), lanes=tile.lanes, mask=mask)
                b.store(self.renderer.vector(expr, lanes), b.at(start, position, tile.element))

            for_vectors(b, count, tile.lanes, vector)

        first = self.last.first
        if is_run and channel.name is not None:
            inner = context.bound({self.last.axis: first + begin})
            vectors(inner, (end - begin) * self.channels.count, self._at(target, begin))
        elif channel.name is None:
            self._line(context, expr, begin, end, target)
        elif self.patch.is_turned:
            self._turned(context, expr, begin, end, target)
        else:
            with b.loop(begin, end) as loop:
                vectors(context.bound({self.last.axis: first + loop.index}), self.channels.count,
                        self._at(target, loop.index))

    def _line(self, context: Context, expr: Expr, begin: Value, end: Value, target: Value) -> None:
        """Build the same of one channel: vectors along the row."""
        b, tile, first = self.b, self.tile, self.last.first + begin

        def vector(position: Value, mask: Value | None) -> None:
            names = {self.last.axis: Linear(first + position, b.i64(1))}
            value = self.renderer.vector(expr, context.bound(names, lanes=tile.lanes, mask=mask))
            b.store(value, b.at(target, (begin + position) * self.last.stride, tile.element))

        for_vectors(b, end - begin, tile.lanes, vector)

    def _turned(self, context: Context, expr: Expr, begin: Value, end: Value, target: Value) -> None:
        """Build the same where memory runs along the row: some channels at a time, through registers."""
        b, tile, channels = self.b, self.tile, self.channels
        function = transpose_strip(b.module, tile.element, tile.lanes)
        with b.loop(b.i64(0), channels.count, step=tile.lanes) as loop:
            count = b.intrinsic("smin", channels.count - loop.index, b.i64(tile.lanes))
            with b.loop(begin, end, step=tile.lanes) as along:
                width = b.intrinsic("smin", end - along.index, b.i64(tile.lanes))
                places = Span(self.last.axis, self.last.first + along.index, width)
                evaluate_rows(self.renderer, context, expr, tile, channels.part(loop.index, count), count, places,
                              self.stage, tile.lanes)
                out = b.at(self._at(target, along.index), loop.index, tile.element)
                operands = (self.stage, b.i64(tile.lanes), count, width, out, b.i64(self.last.stride))
                b.line(f"call void @{function}({', '.join(v.typed for v in operands)})")


class _Planes(_Copy):
    """Builds the copy of one row, each channel's line apart."""

    def row(self, context: Context, target: Value) -> None:
        b = self.b
        low, high, expr = b.i64(0), self.last.count, self.patch.inside
        if self.patch.terms:
            self._clear(target, self.channels.count * self.plane)
            if self.cuts:
                low, high = interval(self.renderer, context, self.patch.terms, self.last)
            else:
                expr = self.patch.whole
        self._planes(context, expr, low, high, target)
        if self.patch.terms:  # vectors that were turned ran beyond the end
            with b.loop(b.i64(0), self.channels.count) as loop:
                line = b.at(target, loop.index * self.plane, self.tile.element)
                self._clear(self._at(line, high), self.last.count - high)

    def _planes(self, context: Context, expr: Expr, begin: Value, end: Value, target: Value) -> None:
        """Build the values of `expr` from `begin` to `end` along the row, of all channels."""
        b, tile, channels = self.b, self.tile, self.channels
        if channels.name is None:
            self._line(context, expr, begin, end, target)
            return
        if self.patch.is_turned:
            with b.loop(b.i64(0), channels.count) as loop:
                line = b.at(target, loop.index * self.plane, tile.element)
                self._line(context.bound(channels.at(loop.index)), expr, begin, end, line)
            return
        function = transpose_strip(b.module, tile.element, tile.lanes)
        step = channels.count + tile.lanes
        with b.loop(begin, end, step=tile.lanes) as along:
            width = b.intrinsic("smin", end - along.index, b.i64(tile.lanes))
            places = Span(self.last.axis, self.last.first + along.index, width)
            assert step.constant is not None
            evaluate_rows(self.renderer, context, expr, tile, places, width, channels, self.stage, step.constant)
            out = b.at(target, along.index, tile.element)
            operands = (self.stage, step, width, channels.count, out, b.i64(self.plane))
            b.line(f"call void @{function}({', '.join(v.typed for v in operands)})")


def is_zero(expr: Expr) -> bool:
    """Return whether `expr` is the number zero, cast or not."""
    return all((isinstance(e, Const) and e.value == 0) or (isinstance(e, Prim) and e.op == "cast")
               for e in walk.postorder((expr,)))
