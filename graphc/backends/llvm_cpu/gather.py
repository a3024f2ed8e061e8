"""Convolutions as code: few taps at many positions, read from a patch of the image that is copied once.

Owns the emission of a `Gather`: what is cut how is decided in gather_tiling.py, the arithmetic is
window_kernel.py's, the patch patch.py's.  Invariants: a worker uses its own scratch only; which work item computes an
element, and in which order its terms are added, depends on the sizes and the target alone.

    for each work item: some blocks of positions, and a block of output channels
      pack the filter                          unless the item before has left the same part
      for each block of positions: some lines of one image
        copy the lines that it reads           with the padding's zeros: the patch
        for each panel of output channels      a few vectors
          for each tile of positions
            add all taps and channels          window_kernel, sums in registers throughout
            epilogue over the tile             bias, activation, masks, residuals

Sources: Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD architectures", SC 2018;
Zhang, Franchetti and Low, "High performance zero-memory overhead direct convolutions", ICML 2018.
"""
from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

from graphc.backends.llvm_cpu.blocks import block, bound, divided
from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.epilogue import Epilogue
from graphc.backends.llvm_cpu.gather_tiling import Gather
from graphc.backends.llvm_cpu.pack import Span, transpose_panel
from graphc.backends.llvm_cpu.panel import Panel
from graphc.backends.llvm_cpu.patch import Extent, fill, interval, limited, slack
from graphc.backends.llvm_cpu.render import Context, Renderer
from graphc.backends.llvm_cpu.tiling import Way
from graphc.backends.llvm_cpu.window import known
from graphc.backends.llvm_cpu.window_kernel import window_kernel
from graphc.ir import dim
from graphc.kernel.ir import Contract, Kernel


@dataclass(frozen=True, slots=True)
class _Areas:
    """Where each part of a worker's scratch begins, in bytes."""

    patch: int
    right: int
    stage: int
    sums: int
    turned: int
    taps: int
    end: int


def _areas(g: Gather) -> _Areas:
    tile = g.tile
    patch = g.patch_size + slack(g.patch, tile, g.pitch, g.is_planar)
    panels = 1 if g.reads_filter else g.column_block // tile.columns
    counts = (patch, panels * g.depth * tile.columns + tile.lanes * tile.columns,
              max(tile.columns * _stage_step(g) if g.right_way is Way.STAGED or g.is_planar else 0,
                  tile.lanes * (tile.lanes + 2)),
              g.tile_size, _turned_size(g), g.taps * 8 // tile.bytes)
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + -(-count * tile.bytes // 64) * 64)
    return _Areas(*starts)


def _stage_step(g: Gather) -> int:
    return g.channels + g.tile.lanes


def _turned_size(g: Gather) -> int:
    """Elements of a line of a tile, turned: positions for channels, or the other way round."""
    if g.is_planar:
        return 0 if g.turns_tile else (g.tall + g.tile.lanes) * g.tile.columns
    return g.tile.columns * _turned_step(g) if g.turns_tile else 0


def _turned_step(g: Gather) -> int:
    return -(-g.tall // g.tile.lanes) * g.tile.lanes


def scratch(g: Gather) -> int:
    """Return the bytes that a worker needs."""
    return _areas(g).end


def cost(g: Gather, sizes: dict[str, int]) -> float:
    """Return the estimated ns of a work item."""
    blocks = min(dim.evaluate(g.group, sizes), max(1, dim.evaluate(g.blocks, sizes)))
    products = blocks * g.line_block * g.place_block * g.depth * g.column_block
    return 50.0 + products / (8 * g.tile.lanes)


def emit(renderer: Renderer, kernel: Kernel, statement: Contract, g: Gather, context: Context) -> None:
    """Build the loop over the work items at the end of the current block."""
    gather = _Gather(renderer, kernel, g, statement, context)
    b = renderer.b
    with b.loop(renderer.begin, renderer.end, carried=[b.i64(-1)]) as items:
        items.next = [gather.item(items.index, items.carried[0])]


@dataclass(frozen=True, slots=True)
class _Depth:
    """`count` taps of the table from `first` on, each with a run of so many elements; `length`: rows of B for each."""

    first: Value
    count: Value
    run: Value
    length: Value


class _Gather:
    """Builds the code of one convolution.  `context` is what surrounds the Contract, all of it scalar."""

    def __init__(self, renderer: Renderer, kernel: Kernel, g: Gather, statement: Contract, context: Context) -> None:
        self.renderer, self.g, self.context = renderer, g, context
        self.b, self.tile = renderer.b, g.tile
        areas = _areas(g)
        with self.b.entry():
            self.patch, self.right, self.stage, self.sums, self.turned, self.taps = (
                self.b.at(renderer.scratch, self.b.i64(start), "i8") for start in (
                    areas.patch, areas.right, areas.stage, areas.sums, areas.turned, areas.taps))
        self.panel = Panel(renderer, kernel, g.right, g.right_way, g.columns, g.tile, self.stage, _stage_step(g))
        self.epilogue = Epilogue(renderer, g.tile, g.body, statement.acc, statement.acc_dtype,
                                 self.turned if g.turns_tile and not g.is_planar else None, _turned_step(g))

    def _at(self, base: Value, offset: Value) -> Value:
        return self.b.at(base, offset, self.tile.element)

    # -- blocks -------------------------------------------------------------------------------

    def item(self, number: Value, packed: Value) -> Value:
        """Build one work item; `packed`: the part of the filter that the item before has left packed, to be returned.
        Groups of positions run fastest, so that neighbours share it, or parts of the filter do."""
        g, b = self.g, self.b
        if g.interleaves:
            group, part = divided(self.renderer, number, dim.maximum(g.parts, 1))
        else:
            part, group = divided(self.renderer, number, g.groups)
        rest, column_number = divided(self.renderer, part, g.column_blocks)
        context = bound(self.renderer, self.context, g.outer, rest)
        columns = block(g.columns, column_number, g.column_block)
        live = [self._live(context, number) for number in range(len(g.windows))]
        with b.when(part.ne(packed)):
            self._write_taps(live)
            if not g.reads_filter:
                with b.loop(b.i64(0), columns.count, step=self.tile.columns) as across:
                    panel = self._panel(columns, across.index)
                    self._pack(context, panel, live, self._at(self.right, across.index * g.depth))
        begin = group * self.renderer.size(g.group)
        end = b.intrinsic("smin", begin + self.renderer.size(g.group), self.renderer.size(g.blocks))
        with b.loop(begin, end) as blocks:
            rest, place_number = divided(self.renderer, blocks.index, g.place_blocks)
            image, line_number = divided(self.renderer, rest, g.line_blocks)
            inner = context if g.images.name is None else context.bound({g.images.name: image})
            lines = block(g.line_axis, line_number, g.line_block)
            self._block(inner, columns, live, lines, block(g.last.free, place_number, g.place_block))
        return part

    def _panel(self, columns: Span, at: Value) -> Span:
        """Return the panel of columns from `at` on; of a known width where all have it."""
        b, width = self.b, self.tile.columns
        return columns.part(at, b.i64(width) if known(self.g.columns) % width == 0
                            else b.intrinsic("smin", columns.count - at, b.i64(width)))

    def _block(self, context: Context, columns: Span, live: list[Value], lines: Span, places: Span) -> None:
        """Build the products of one block of positions with a block of output channels."""
        g, b, tile = self.g, self.b, self.tile
        channels = Span(g.patch.channel.name, b.i64(0), b.i64(g.channels))
        extents = self._extents(context, live, lines, places)
        taps = math.prod(live, start=b.i64(1))
        with b.when(taps.gt(0)) if any(g.limits) else nullcontext():  # a phase may have none
            fill(self.renderer, context, g.patch, channels, tile, extents, self.patch, self.stage,
                 g.pitch if g.is_planar else 0)
        there = interval(self.renderer, context, g.skipped, extents[0]) if g.skipped else None
        with b.loop(b.i64(0), columns.count, step=tile.columns) as across:
            part = self._panel(columns, across.index)
            right = self._right(context, part, live, across.index)
            with b.loop(b.i64(0), lines.count, step=g.tile_lines) as down:
                part_lines = lines.part(down.index, b.intrinsic("smin", lines.count - down.index,
                                                                b.i64(g.tile_lines)))
                line = self._at(self.patch, down.index * g.line_pitch)
                depth = self._depth(live, down.index, there)
                for first, number, width in self._runs(places.count):
                    with b.loop(b.i64(0), number) as along:
                        place = first + along.index * width
                        self._multiply(self._at(line, place * g.place_pitch), width, depth, right)
                        is_whole = places.count.constant is not None and not g.is_planar
                        count = b.i64(width) if is_whole else b.intrinsic("smin", places.count - place, b.i64(width))
                        self._finish(context, part, part_lines, places.part(place, count), width)

    def _depth(self, live: list[Value], line: Value, there: tuple[Value, Value] | None) -> _Depth:
        """Return the depth of the tiles of one line: all taps, or those on lines of the patch that are `there`."""
        g, b = self.g, self.b
        taps = live[:-1] if g.merges or g.overlaps else live
        count, zero = math.prod(taps, start=b.i64(1)), b.i64(0)
        run = (live[-1] if g.merges else b.i64(1)) * g.channels
        length = run * (g.last.summeds if g.overlaps else 1)
        if there is None:
            return _Depth(zero, count, run, length)
        assert g.line is not None
        of_line = b.i64(1) if len(taps) == 1 else live[1]
        step = abs(g.line.summed_step)
        ends = line + (g.tile_lines - 1), line  # a tap that meets the first line of what is there may do so in the last
        begin, end = (b.intrinsic("smax", at - place * g.line.free_step, zero)
                      for at, place in zip(there, ends, strict=True))
        if step > 1:
            begin, end = (b.binary("udiv", at + (step - 1), b.i64(step)) for at in (begin, end))
        begin, end = (b.intrinsic("smin", at, live[0]) for at in (begin, end))
        return _Depth(begin * of_line, (end - begin) * of_line, run, length)

    def _runs(self, places: Value) -> list[tuple[Value, Value, int]]:
        """Return runs of equal tiles along the last window: their first position, number and width."""
        b, tall = self.b, self.g.tall
        if places.constant is None or self.g.is_planar:
            return [(b.i64(0), b.binary("udiv", places + (tall - 1), tall), tall)]
        number = -(-places.constant // tall)
        low = number * tall - places.constant
        runs = [(b.i64(0), b.i64(number - low), tall), (b.i64((number - low) * tall), b.i64(low), tall - 1)]
        return [r for r in runs if r[1].constant]

    def _multiply(self, place: Value, width: int, depth: _Depth, right: tuple[Value, Value]) -> None:
        """Build the products of one tile, `width` positions along the last window."""
        g, b = self.g, self.b
        function = window_kernel(b.module, self.tile, g.footprint(width), g.filters)
        start, step = right
        operands = (place, b.at(self.taps, depth.first, "i64"), depth.count, depth.run,
                    self._at(start, depth.first * depth.length * step), step, self.sums, b.const(0, "i1"))
        b.line(f"call void @{function}({', '.join(v.typed for v in operands)})")

    def _finish(self, context: Context, columns: Span, lines: Span, places: Span, width: int) -> None:
        """Build the epilogue of one tile."""
        g, b, tile = self.g, self.b, self.tile
        with b.loop(b.i64(0), lines.count) as loop:
            inner = context.bound(lines.at(loop.index))
            sums, step = self._at(self.sums, loop.index * width), g.tile_lines * width
            if not g.is_planar:
                self.epilogue.build(inner, places, columns, self._at(self.sums, loop.index * (width * tile.columns)))
            elif g.turns_tile:
                self.epilogue.build(inner, columns, places, sums, step)
            else:
                transpose_panel(b, tile, sums, b.i64(step), columns.count, places.count, self.turned, tile.columns)
                self.epilogue.build(inner, places, columns, self.turned)

    # -- operands -----------------------------------------------------------------------------

    def _live(self, context: Context, number: int) -> Value:
        """Return how many taps of a window count."""
        window = self.g.windows[number]
        return limited(self.renderer, context, str(window.summed.name), self.b.i64(window.summeds),
                       self.g.limits[number])

    def _write_taps(self, live: list[Value]) -> None:
        """Build the table of where each tap lies in the patch, the last one running fastest."""
        g = self.g
        counts = live[:-1] if g.merges or g.overlaps else live
        steps = [abs(w.summed_step) * pitch for w, pitch in zip(g.windows, g.patch_strides, strict=True)]
        for number in range(len(g.windows) - 2):  # these lie side by side
            steps[number] = g.patch_strides[number]
        b, zero = self.b, self.b.i64(0)

        def nest(rest: list[Value], number: Value, offset: Value) -> None:
            if not rest:
                b.store(offset, b.at(self.taps, number, "i64"))
                return
            at = len(counts) - len(rest)
            with b.loop(zero, rest[0]) as loop:
                nest(rest[1:], number * rest[0] + loop.index, offset + loop.index * steps[at])

        nest(counts, zero, zero)

    def _tap(self, number: int, live: Value, position: Value) -> Value:
        """Return the tap at a position: they are added in the order in which they lie in the patch."""
        return position if self.g.windows[number].summed_step > 0 else live - 1 - position

    def _extents(self, context: Context, live: list[Value], lines: Span, places: Span) -> list[Extent]:
        """Return the coordinates that a block of positions reads."""
        g, b = self.g, self.b
        found = []
        for number, (window, pitch) in enumerate(zip(g.windows, g.patch_strides, strict=True)):
            step, reach = window.free_step, abs(window.summed_step)
            beyond = number < len(g.windows) - 2
            if beyond:
                place = context.names[str(window.free.name)]
                assert isinstance(place, Value)
                span = Span(None, place, b.i64(1))
            else:
                span = places if window is g.last else lines
            first = span.first * step + self._tap(number, live[number], b.i64(0)) * window.summed_step
            if beyond:
                found.append(Extent(window.axis, first, live[number], pitch, reach))
            else:
                count = (span.count - 1) * step + (live[number] - 1) * reach + 1
                found.append(Extent(window.axis, first, count, pitch))
        return found

    def _right(self, context: Context, columns: Span, live: list[Value], at: Value) -> tuple[Value, Value]:
        """Build what brings a panel of the filter; return its address and its step along the depth."""
        g, b, tile = self.g, self.b, self.tile
        packed = b.i64(tile.columns)
        if g.reads_filter:
            ragged = columns.count.lt(tile.columns)
            with b.when(ragged):
                self._pack(context, columns, live, self.right)
            start = {name: b.i64(0) for name in (channel.name for channel in (
                g.patch.channel, *(w.summed for w in g.windows))) if name is not None}
            there = self.panel.start(context.bound({**columns.at(b.i64(0)), **start}))
            return b.select(ragged, self.right, there), packed
        return self._at(self.right, at * g.depth), packed

    def _pack(self, context: Context, columns: Span, live: list[Value], target: Value) -> None:
        """Build a panel of the filter, tap by tap in the order of the table."""
        g, b, tile = self.g, self.b, self.tile
        channels = Span(g.patch.channel.name, b.i64(0), b.i64(g.channels))

        def nest(number: int, inner: Context, position: Value) -> None:
            if number == len(g.windows):
                self.panel.pack(inner, columns, channels, self._at(target, position * (g.channels * tile.columns)))
                return
            with b.loop(b.i64(0), live[number]) as loop:
                name = g.windows[number].summed.name
                assert name is not None
                nest(number + 1, inner.bound({name: self._tap(number, live[number], loop.index)}),
                     position * live[number] + loop.index)

        nest(0, context, b.i64(0))
