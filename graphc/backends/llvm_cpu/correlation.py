"""Gradients of filters as code: few taps under many positions, added block by block.

Owns the emission of a `Correlation`: what is cut how is decided in correlation_tiling.py, the arithmetic is
window_kernel.py's, the patch patch.py's.  Invariants: a worker uses its own scratch only; an item adds all positions of
its part of the filter in their order, which depends on the sizes and the target alone.

    for each work item: some taps, channels and output channels
      for each block of positions: some lines of an image, or some images
        copy the lines that its taps read               with the padding's zeros: the patch
        for each panel of output channels
          pack the gradient of the output               or read it where it lies
          for each tile of taps and channels
            add the block's positions                   window_kernel, sums from scratch and back
      epilogue over all tiles
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.backends.llvm_cpu.blocks import block, bound, divided
from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.correlation_tiling import Correlation
from graphc.backends.llvm_cpu.epilogue import Epilogue
from graphc.backends.llvm_cpu.pack import Span
from graphc.backends.llvm_cpu.panel import Panel
from graphc.backends.llvm_cpu.patch import Extent, fill, limited, slack
from graphc.backends.llvm_cpu.render import Context, Operand, Renderer
from graphc.backends.llvm_cpu.tiling import Range, Way
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
    taps: int
    end: int


def _areas(c: Correlation) -> _Areas:
    tile = c.tile
    counts = (c.frame_block * c.frame_pitch + c.tall + slack(c.patch, tile, c.pitch),
              c.positions * tile.columns + tile.lanes * tile.columns,
              max(tile.columns * _stage_step(c) if c.right_way is Way.STAGED else 0, tile.lanes * (tile.lanes + 2)),
              int(dim.product(c.tiles)) * c.tile_size, c.frame_block * c.line_block * 8 // tile.bytes)
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + -(-count * tile.bytes // 64) * 64)
    return _Areas(*starts)


def _stage_step(c: Correlation) -> int:
    return c.place_block + c.tile.lanes


def scratch(c: Correlation) -> int:
    """Return the bytes that a worker needs."""
    return _areas(c).end


def cost(c: Correlation, sizes: dict[str, int]) -> float:
    """Return the estimated ns of a work item."""
    positions = dim.evaluate(c.frame_count, sizes) * c.lines * c.last.summeds
    return 50.0 + positions * c.line_taps * c.run * c.column_block / (8 * c.tile.lanes)


def emit(renderer: Renderer, kernel: Kernel, statement: Contract, c: Correlation, context: Context) -> None:
    """Build the loop over the work items at the end of the current block."""
    correlation = _Correlation(renderer, kernel, c, statement, context)
    with renderer.b.loop(renderer.begin, renderer.end) as items:
        correlation.item(items.index)


@dataclass(frozen=True, slots=True)
class _Rows:
    """`count` rows of a run from `first` on: taps of the last window and channels, the latter from `channels` on."""

    c: Correlation
    first: Value
    count: Value
    channels: Value

    @property
    def name(self) -> None:
        return None

    def at(self, position: Value) -> dict[str, Operand]:
        """Return what the axes are at one row."""
        b, c = position.b, self.c
        row = self.first + position
        names: dict[str, Operand] = {}
        if c.tile_channels:
            names[str(c.last.free.name)] = b.binary("udiv", position, b.i64(c.tile_channels))
            row = b.binary("udiv", self.first, b.i64(c.last.frees)) + b.binary("urem", position, b.i64(c.tile_channels))
        elif c.merges:
            names[str(c.last.free.name)] = b.binary("udiv", row, b.i64(c.channel_block))
            row = b.binary("urem", row, b.i64(c.channel_block))
        if c.patch.channel.name is not None:
            names[c.patch.channel.name] = self.channels + row
        return names


@dataclass(frozen=True, slots=True)
class _Part:
    """What an item has: its context, taps of the last window but one, channels, output channels; the tap of the last
    window where it has one only."""

    context: Context
    taps: Span
    channels: Span
    columns: Span
    tap: Value


class _Correlation:
    """Builds the code of one gradient.  `context` is what surrounds the Contract, all of it scalar."""

    def __init__(self, renderer: Renderer, kernel: Kernel, c: Correlation, statement: Contract,
                 context: Context) -> None:
        self.renderer, self.c, self.context, self.b, self.tile = renderer, c, context, renderer.b, c.tile
        areas = _areas(c)
        with self.b.entry():
            self.patch, self.right, self.stage, self.sums, self.taps = (
                self.b.at(renderer.scratch, self.b.i64(start), "i8") for start in (
                    areas.patch, areas.right, areas.stage, areas.sums, areas.taps))
        self.panel = Panel(renderer, kernel, c.right, c.right_way, c.columns, c.tile, self.stage, _stage_step(c))
        self.epilogue = Epilogue(renderer, c.tile, c.body, statement.acc, statement.acc_dtype, None, 0)

    def _at(self, base: Value, offset: Value) -> Value:
        return self.b.at(base, offset, self.tile.element)

    # -- blocks -------------------------------------------------------------------------------

    def item(self, number: Value) -> None:
        """Build one work item."""
        c, b = self.c, self.b
        rest, channel = divided(self.renderer, number, c.blocks_of_channels)
        rest, tap = divided(self.renderer, rest, 1 if c.merges else c.last.frees)
        rest, taps = divided(self.renderer, rest, c.blocks_of_taps)
        rest, column = divided(self.renderer, rest, c.blocks_of_columns)
        context = bound(self.renderer, self.context, c.outer, rest)
        if not c.merges:
            context = context.bound({str(c.last.free.name): tap})
        line = c.line.free if c.line is not None else Range(None, 1)
        channels = block(c.patch.channel, channel, c.channel_block)
        columns = block(c.columns, column, c.column_block)
        part = _Part(context, block(line, taps, c.line_taps), channels, columns, tap)
        zero = b.const(0, self.tile.element, self.tile.lanes)
        with b.loop(b.i64(0), b.i64(int(dim.product(c.tiles)) * c.tile_size), step=self.tile.lanes) as loop:
            b.store(zero, self._at(self.sums, loop.index))
        self._write_taps()
        frames = self._frame_count(context)
        blocks = b.binary("udiv", frames + (c.frame_block - 1), b.i64(c.frame_block)) * c.blocks_of_frame
        with b.loop(b.i64(0), blocks) as loop:
            self._block(part, frames, loop.index)
        self._tiles(part, self._finish)

    def _frame_count(self, context: Context) -> Value:
        """Return how many images the item adds."""
        c = self.c
        if not c.limits:
            return self.renderer.size(c.frame_count)
        first, *others = c.frames
        live = limited(self.renderer, context, str(first.name), self.renderer.size(first.extent), c.limits)
        return live * self.renderer.size(dim.product(axis.extent for axis in others))

    def _write_taps(self) -> None:
        """Build the table of where each line of a block lies in the patch."""
        c, b = self.c, self.b
        step = (c.line.summed_step if c.line is not None else 0) // c.line_unit * c.line_pitch
        with b.loop(b.i64(0), b.i64(c.frame_block)) as frames, b.loop(b.i64(0), b.i64(c.line_block)) as lines:
            offset = frames.index * c.frame_pitch + lines.index * step
            b.store(offset, b.at(self.taps, frames.index * c.line_block + lines.index, "i64"))

    def _block(self, part: _Part, frame_count: Value, number: Value) -> None:
        """Build the products of one block of positions."""
        c, b, tile = self.c, self.b, self.tile
        rest, place = divided(self.renderer, number, -(-c.last.summeds // c.place_block))
        frame, line = divided(self.renderer, rest, -(-c.lines // c.line_block))
        places = block(c.last.summed, place, c.place_block)
        lines = block(c.line.summed if c.line is not None else Range(None, 1), line, c.line_block)
        first = frame * c.frame_block
        frames = Span(None, first, b.intrinsic("smin", frame_count - first, b.i64(c.frame_block)))
        with b.loop(b.i64(0), frames.count) as loop:
            inner = bound(self.renderer, part.context, c.frames, first + loop.index)
            fill(self.renderer, inner, c.patch, part.channels, tile, self._extents(inner, part, lines, places),
                 self._at(self.patch, loop.index * c.frame_pitch), self.stage)
        columns = part.columns
        with b.loop(b.i64(0), columns.count, step=tile.columns) as across:
            panel = self._panel(columns, across.index)
            right, step = self._right(part.context, panel, frames, lines, places)
            run = b.binary("udiv", places.count, b.i64(c.overlap)) if c.overlap > 1 else places.count
            shared = (self.taps, frames.count * lines.count, run, right, step)
            self._tiles_of_panel(part, across.index, lambda *at: self._multiply(shared, *at))

    def _panel(self, columns: Span, at: Value) -> Span:
        """Return the panel of columns from `at` on; of a known width where all have it."""
        b, width = self.b, self.tile.columns
        return columns.part(at, b.i64(width) if known(self.c.columns) % width == 0
                            else b.intrinsic("smin", columns.count - at, b.i64(width)))

    def _extents(self, context: Context, part: _Part, lines: Span, places: Span) -> list[Extent]:
        """Return the coordinates that a block of positions reads."""
        c, b = self.c, self.b
        found = []
        for window in c.windows[:-2]:
            place, tap = (context.names[str(axis.name)] for axis in (window.summed, window.free))
            assert isinstance(place, Value) and isinstance(tap, Value)
            found.append(Extent(window.axis, place * window.summed_step + tap * window.free_step, b.i64(1), 0))
        if c.line is not None:
            w = c.line
            first = lines.first * w.summed_step + part.taps.first * w.free_step
            if c.line_taps == 1:
                found.append(Extent(w.axis, first, lines.count, c.line_pitch, w.summed_step))
            else:
                count = (lines.count - 1) * w.summed_step + (part.taps.count - 1) * w.free_step + 1
                found.append(Extent(w.axis, first, count, c.line_pitch))
        w = c.last
        first = places.first * w.summed_step + part.tap * w.free_step
        taps = (w.frees - 1) * w.free_step if c.merges else 0
        found.append(Extent(w.axis, first, (places.count - 1) * w.summed_step + taps + 1, c.pitch))
        return found

    def _right(self, context: Context, columns: Span, frames: Span, lines: Span,
               places: Span) -> tuple[Value, Value]:
        """Build what brings a panel of operand b at all positions of a block; return its address and step."""
        c, b, tile = self.c, self.b, self.tile
        zero = b.i64(0)

        def pack() -> None:
            with b.loop(zero, frames.count) as f, b.loop(zero, lines.count) as line:
                inner = bound(self.renderer, context, c.frames, frames.first + f.index).bound(lines.at(line.index))
                row = (f.index * lines.count + line.index) * places.count
                self.panel.pack(inner, columns, places, self._at(self.right, row * tile.columns))

        if not c.reads_right:
            pack()
            return self.right, b.i64(tile.columns)
        ragged = columns.count.lt(tile.columns)
        if ragged.constant != 0:
            with b.when(ragged):
                pack()
        inner = bound(self.renderer, context, c.frames, frames.first)
        there = self.panel.start(inner.bound({**columns.at(zero), **lines.at(zero), **places.at(zero)}))
        step = self.panel.step(c.last.summed)
        return b.select(ragged, self.right, there), b.select(ragged, b.i64(tile.columns), step)

    # -- tiles --------------------------------------------------------------------------------

    def _tiles(self, part: _Part, build: Callable[[_Part, Span, Value, Value, Value, int], None]) -> None:
        """Build build(panel of columns, ...) for each tile of an item; see `_tiles_of_panel`."""
        b, columns = self.b, part.columns
        with b.loop(b.i64(0), columns.count, step=self.tile.columns) as across:
            panel = self._panel(columns, across.index)
            self._tiles_of_panel(part, across.index, lambda *at: build(part, panel, *at))

    def _tiles_of_panel(self, part: _Part, column: Value,
                        build: Callable[[Value, Value, Value, int], None]) -> None:
        """Build build(sums, first line, first row, height) for each tile of a panel of columns."""
        c, b = self.c, self.b
        lines, runs, _ = c.tiles
        low = runs * c.tall - c.run
        base = b.binary("udiv", column, b.i64(self.tile.columns)) * (lines * runs)
        with b.loop(b.i64(0), part.taps.count, step=c.tile_lines) as down:
            at = base + b.binary("udiv", down.index, b.i64(c.tile_lines)) * runs
            for start, row, number, height in ((0, 0, runs - low, c.tall),
                                               (runs - low, (runs - low) * c.tall, low, c.tall - 1)):
                if number:
                    with b.loop(b.i64(0), b.i64(number)) as along:
                        sums = self._at(self.sums, (at + (along.index + start)) * c.tile_size)
                        build(sums, down.index, along.index * height + row, height)

    def _multiply(self, shared: tuple[Value, ...], sums: Value, line: Value, row: Value, height: int) -> None:
        c, b = self.c, self.b
        function = window_kernel(b.module, self.tile, c.footprint(height))
        step = 0 if c.line is None else c.line.free_step * c.line_pitch
        if c.tile_channels:  # the rows before are all taps of so many channels
            row = b.binary("udiv", row, b.i64(c.last.frees))
        operands = (self._at(self.patch, line * step + row), *shared, sums, b.const(1, "i1"))
        b.line(f"call void @{function}({', '.join(v.typed for v in operands)})")

    def _finish(self, part: _Part, columns: Span, sums: Value, line: Value, row: Value, height: int) -> None:
        """Build the epilogue of one tile."""
        c, b = self.c, self.b
        count = b.intrinsic("smin", part.taps.count - line, b.i64(c.tile_lines))
        taps = part.taps.part(line, count)
        with b.loop(b.i64(0), count) as loop:
            inner = part.context.bound(taps.at(loop.index))
            rows = _Rows(c, row, b.i64(height), part.channels.first)
            self.epilogue.build(inner, rows, columns, self._at(sums, loop.index * (height * self.tile.columns)))
