"""Products as code: the loops around the register tile, and the epilogue on what it gives.

Owns the emission of a `Contract` kernel and the facts for launching it.  What is cut how is decided in
tiling.py, the arithmetic is microkernel.py's, packing pack.py's, the epilogue's statements the renderer's.
Invariants: sizes are read at run time, so one kernel serves all of them; a worker uses its own scratch
only; which work item computes an element, and in which order its terms are added, depends on the sizes
and the target alone.

    for each work item: a block of rows and a block of columns of one batch
      for each block of the depth                           sums wait in scratch between blocks
        pack the rows of A                                  or read them where they lie
        for each panel of columns                           one panel of B stays in the first-level cache
          pack the panel of B                               or read it where it lies
          for each panel of rows
            multiply into a tile                            microkernel, full or low
            after the last block: epilogue over the tile    bias, activation, masks, updates

Sources: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008; Van Zee and
van de Geijn, "BLIS", TOMS 2015.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.backends.llvm_cpu import convolution
from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.convolution import Cut
from graphc.backends.llvm_cpu.epilogue import Epilogue
from graphc.backends.llvm_cpu.microkernel import Tile, microkernel
from graphc.backends.llvm_cpu.pack import Span, evaluate_lanes, evaluate_rows, transpose_panel
from graphc.backends.llvm_cpu.render import Context, Renderer
from graphc.backends.llvm_cpu.tiling import TYPICAL, Range, Tiling, Way, stride, tiling
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Contract, Expr, Kernel, Load
from graphc.kernel.target import Target


@dataclass(frozen=True, slots=True)
class Partition:
    """extent: number of work items.  grain: items per claim.  scratch: bytes per worker.  cost: estimated
    ns of an item.  tiling: what `emit` builds."""

    extent: Size
    grain: int
    scratch: Size
    cost: float
    tiling: Tiling | Cut


@dataclass(frozen=True, slots=True)
class _Area:
    """Where each part of a worker's scratch begins, in bytes."""

    left: int
    right: int
    stage: int
    sums: int
    turned: int
    end: int


def partition(kernel: Kernel, statement: Contract, target: Target) -> Partition:
    """Return how `statement`, the work of `kernel`, is split and what it needs.  Raises BackendError."""
    sizes = dict.fromkeys(kernel.sizes, TYPICAL)
    windows = convolution.cut(kernel, statement, target)
    if windows is not None:
        scratch, cost = convolution.facts(windows, sizes)
        return Partition(windows.items, max(1, int(1000 / cost)), scratch, cost, windows)
    t = tiling(kernel, statement, target)
    rows, columns, depth, steps = (dim.evaluate(s, sizes) for s in (
        dim.minimum(t.row_block, t.rows.extent), dim.minimum(t.column_block, t.columns.extent),
        t.depth.extent, t.outer_steps))
    products = rows * columns * depth * steps / (8 * t.tile.lanes)  # ns at 4 GHz, two vectors a cycle
    cost = 50.0 + products + (rows * columns + (rows + columns) * depth * steps) / (4 * t.tile.lanes)
    return Partition(t.items, max(1, int(1000 / cost)), _areas(t).end, cost, t)


def emit(renderer: Renderer, kernel: Kernel, statement: Contract, partition: Partition, context: Context) -> None:
    """Build the loop over the work items of `statement` at the end of the current block."""
    if not isinstance(partition.tiling, Tiling):
        convolution.emit(renderer, kernel, statement, partition.tiling, context)
        return
    product = _Product(renderer, kernel, partition.tiling, statement, context)
    with renderer.b.loop(renderer.begin, renderer.end) as items:
        product.item(items.index)


@dataclass(frozen=True, slots=True)
class _Panels:
    """The row panels of an item: `full` ones, then low ones, `count` in all; the height of the low ones."""

    full: Value
    count: Value
    low_height: Value
    tile: Tile

    def first(self, number: Value) -> Value:
        """Return the first row of panel `number`, also of the one after the last."""
        b, tile = number.b, self.tile
        beyond = b.intrinsic("smax", number - self.full, b.i64(0))
        return number * tile.rows - beyond * (tile.rows - self.low_height)

    def height(self, number: Value) -> Value:
        """Return the rows that panel `number` has room for."""
        return number.b.select(number.lt(self.full), number.b.i64(self.tile.rows), self.low_height)

    def span(self, rows: Span, number: Value) -> Span:
        """Return the rows that are there in panel `number`."""
        first = self.first(number)
        return rows.part(first, number.b.intrinsic("smin", rows.count - first, self.height(number)))


def _areas(t: Tiling) -> _Area:
    tile, layout = t.tile, t.left_layout
    panels = {Way.ROWS: t.max_rows * layout.row, Way.LANES: t.panels * tile.rows * t.max_depth + 2 * tile.columns,
              Way.DIRECT: tile.rows * t.max_depth + 2 * tile.columns}
    tiles = 1 if t.is_one_pass else t.panels * (t.max_columns // tile.columns)
    counts = (panels[t.left_way], t.max_depth * tile.columns,
              tile.columns * _stage_step(t) if t.right_way is Way.STAGED else 0, tiles * tile.size,
              tile.columns * _turned_step(t) if t.turns_tile else 0)
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + -(-count * tile.bytes // 64) * 64)
    return _Area(*starts)


def _stage_step(t: Tiling) -> int:
    return t.max_depth + 64 // t.tile.bytes


def _turned_step(t: Tiling) -> int:
    return -(-t.tile.rows // t.tile.lanes) * t.tile.lanes


def _divided(x: Value, by: Value) -> tuple[Value, Value]:
    """Return quotient and remainder of non-negative integers."""
    b = x.b
    return (x, b.i64(0)) if by.constant == 1 else (b.binary("udiv", x, by), b.binary("urem", x, by))


class _Product:
    """Builds the code of one product.  `context` is what surrounds the Contract, all of it scalar."""

    def __init__(self, renderer: Renderer, kernel: Kernel, tiled: Tiling, statement: Contract,
                 context: Context) -> None:
        self.renderer, self.kernel, self.t, self.context = renderer, kernel, tiled, context
        self.b, self.tile = renderer.b, tiled.tile
        areas = _areas(tiled)
        with self.b.entry():
            self.left, self.right, self.stage, self.sums, turned = (
                self.b.at(renderer.scratch, self.b.i64(start), "i8")
                for start in (areas.left, areas.right, areas.stage, areas.sums, areas.turned))
        self.epilogue = Epilogue(renderer, self.tile, tiled.body, statement.acc, statement.acc_dtype,
                                 turned if tiled.turns_tile else None, _turned_step(tiled))
        self.functions = {height: microkernel(self.b.module, self.tile, height, tiled.left_layout)
                          for height in tiled.heights}

    def _size(self, size: Size) -> Value:
        return self.renderer.size(size)

    def _at(self, base: Value, offset: Value) -> Value:
        return self.b.at(base, offset, self.tile.element)

    # -- blocks -------------------------------------------------------------------------------

    def item(self, number: Value) -> None:
        """Build one work item: blocks of rows run fastest, so that neighbours share columns of B."""
        t = self.t
        rest, row_number = _divided(number, self._size(t.row_blocks))
        rest, column_number = _divided(rest, self._size(t.column_blocks))
        context = self._bound(self.context, t.batch, rest)
        rows = self._block(t.rows, row_number, t.row_block)
        columns = self._block(t.columns, column_number, t.column_block)
        if t.is_one_pass:
            depth = Span(t.depth.name, self.b.i64(0), self._size(t.depth.extent))
            self._pass(context, rows, columns, depth, self.b.const(0, "i1"), self.b.const(1, "i1"))
            return
        outer_steps = self._size(t.outer_steps)
        steps = self._size(dim.maximum(t.outer_steps, 1) * t.depth_blocks)  # no terms at all: one pass of depth 0
        with self.b.loop(self.b.i64(0), steps) as loop:
            outer, block = _divided(loop.index, self._size(t.depth_blocks))
            depth = self._block(t.depth, block, t.depth_block)
            depth = depth.part(self.b.i64(0), self.b.select(outer_steps.eq(0), self.b.i64(0), depth.count))
            self._pass(self._bound(context, t.outer, outer), rows, columns, depth,
                       loop.index.gt(0), loop.index.eq(steps - 1))

    def _bound(self, context: Context, axes: tuple[Range, ...], number: Value) -> Context:
        """Return `context` with `axes` bound to their values at this number, the last running fastest."""
        names = {}
        for position, axis in reversed(list(enumerate(axes))):
            number, value = _divided(number, self._size(dim.maximum(axis.extent, 1))) if position else (number, number)
            assert axis.name is not None
            names[axis.name] = value
        return context.bound(names)

    def _block(self, axis: Range, number: Value, length: Size) -> Span:
        first = number * self._size(length)
        return Span(axis.name, first, self.b.intrinsic("smin", self._size(axis.extent) - first, self._size(length)))

    def _pass(self, context: Context, rows: Span, columns: Span, depth: Span, more: Value, last: Value) -> None:
        """Build the products of one block of the depth; `more`: sums are there already; `last`: none follow."""
        b, tile = self.b, self.tile
        panels = self._panels(rows.count)
        self._pack_left(context, rows, depth, panels)
        with b.loop(b.i64(0), columns.count, step=tile.columns) as across:
            part = columns.part(across.index, b.intrinsic("smin", columns.count - across.index, b.i64(tile.columns)))
            right, right_step = self._right(context, part, depth)
            with b.loop(b.i64(0), panels.count) as down:
                sums = self.sums
                if not self.t.is_one_pass:
                    number = b.binary("udiv", across.index, tile.columns) * panels.count + down.index
                    sums = self._at(sums, number * tile.size)
                left, left_step = self._left(context, rows, depth, panels, down.index)
                operands = (left, left_step, right, right_step, sums, depth.count, more)
                if last.constant:
                    self._claim(context, panels.first(down.index), rows, part)
                else:
                    with b.when(last):
                        self._claim(context, panels.first(down.index), rows, part)
                self._multiply(panels.height(down.index), ", ".join(v.typed for v in operands))
                panel = panels.span(rows, down.index)
                if last.constant:
                    self.epilogue.build(context, panel, part, sums)
                else:
                    with b.when(last):
                        self.epilogue.build(context, panel, part, sums)

    def _panels(self, rows: Value) -> _Panels:
        """Return the panels that cover `rows`: `tiling.panels_of` at run time."""
        b, tile = self.b, self.tile
        units = b.binary("udiv", rows + (tile.unit - 1), tile.unit)
        low = b.binary("urem", units * 2, 3)
        full = b.binary("sdiv", units - low * 2, 3)
        alone = units.eq(1)
        full, low = b.select(alone, b.i64(0), full), b.select(alone, b.i64(1), low)
        return _Panels(full, full + low, b.select(alone, b.i64(tile.unit), b.i64(tile.few)), tile)

    def _multiply(self, height: Value, operands: str) -> None:
        """Build the call of the microkernel of this height."""
        b, done = self.b, self.b.new_block()
        *others, last = self.functions
        for known in others:
            this, next_one = b.new_block(), b.new_block()
            b.branch_if(height.eq(known), this, next_one)
            b.start_block(this)
            b.line(f"call void @{self.functions[known]}({operands})")
            b.branch(done)
            b.start_block(next_one)
        b.line(f"call void @{self.functions[last]}({operands})")
        b.branch(done)
        b.start_block(done)

    # -- operands -----------------------------------------------------------------------------

    def _address(self, expr: Expr, context: Context, panel: Span, depth: Span) -> Value:
        """Return the address of a plain operand at the start of both spans."""
        assert isinstance(expr, Load)
        zero = self.b.i64(0)
        inner = context.bound({**panel.at(zero), **depth.at(zero)})
        index = [self.renderer.scalar(i, inner) for i in expr.index]
        offset = self.renderer.offset(expr.buffer, index, inner)
        assert isinstance(offset, Value)
        return self._at(self.renderer.buffers[expr.buffer].pointer, offset)

    def _stride(self, expr: Expr, axis: Range) -> Value:
        assert isinstance(expr, Load)
        step = stride(self.kernel, expr, axis)
        assert step is not None
        return self._size(step)

    def _pack_left(self, context: Context, rows: Span, depth: Span, panels: _Panels) -> None:
        """Build the packing of all rows of the item; of a ragged last panel where A is read where it lies."""
        t, b, tile = self.t, self.b, self.tile
        height = panels.first(panels.count)
        match t.left_way:
            case Way.ROWS:
                evaluate_rows(self.renderer, context, t.left, tile, rows, height, depth, self.left, t.left_layout.row,
                              t.is_far)
            case Way.LANES:
                with b.loop(b.i64(0), panels.count) as loop:
                    target = self._at(self.left, loop.index * (tile.rows * t.max_depth))
                    panel = panels.span(rows, loop.index)
                    evaluate_lanes(self.renderer, context, t.left, tile, panel, tile.rows, depth, target)
            case _:
                with b.when(rows.count.lt(height)):
                    last = panels.span(rows, panels.count - 1)
                    evaluate_lanes(self.renderer, context, t.left, tile, last, tile.rows, depth, self.left)

    def _left(self, context: Context, rows: Span, depth: Span, panels: _Panels, number: Value) -> tuple[Value, Value]:
        """Return address and depth step of a panel of rows."""
        t, b, tile = self.t, self.b, self.tile
        first = panels.first(number)
        match t.left_way:
            case Way.ROWS:
                return self._at(self.left, first * t.left_layout.row), b.i64(1)
            case Way.LANES:
                return self._at(self.left, number * (tile.rows * t.max_depth)), b.i64(tile.rows)
            case _:
                ragged = rows.count.lt(first + panels.height(number))
                there = self._at(self._address(t.left, context, rows, depth), first)
                return (b.select(ragged, self.left, there),
                        b.select(ragged, b.i64(tile.rows), self._stride(t.left, t.depth)))

    def _right(self, context: Context, columns: Span, depth: Span) -> tuple[Value, Value]:
        """Build what brings a panel of columns; return its address and depth step."""
        t, b, tile = self.t, self.b, self.tile
        packed = self.right, b.i64(tile.columns)
        ragged = columns.count.lt(tile.columns)
        match t.right_way:
            case Way.TURNED:
                transpose_panel(b, tile, self._address(t.right, context, columns, depth),
                                self._stride(t.right, t.columns), columns.count, depth.count, self.right, tile.columns)
                return packed
            case Way.STAGED:
                step = _stage_step(t)
                evaluate_rows(self.renderer, context, t.right, tile, columns, columns.count, depth, self.stage, step)
                transpose_panel(b, tile, self.stage, b.i64(step), columns.count, depth.count, self.right, tile.columns)
                return packed
            case Way.LANES:
                for case, masked in ((ragged, True), (~ragged, False)):
                    with b.when(case):
                        evaluate_lanes(self.renderer, context, t.right, tile, columns, tile.columns, depth, self.right,
                                       masked)
                return packed
            case _:
                with b.when(ragged):
                    evaluate_lanes(self.renderer, context, t.right, tile, columns, tile.columns, depth, self.right)
                return (b.select(ragged, self.right, self._address(t.right, context, columns, depth)),
                        b.select(ragged, packed[1], self._stride(t.right, t.depth)))

    def _claim(self, context: Context, first: Value, rows: Span, columns: Span) -> None:
        """Build prefetches, for writing, of the lines that the epilogue will store a tile to: they arrive during
        the multiplications."""
        t, b, tile = self.t, self.b, self.tile
        if not t.is_far or t.along != t.columns or t.columns.name is None or t.rows.name is None:
            return
        for s in walk.stores(t.body):
            shape = walk.buffers(self.kernel)[s.buffer][1]
            step = walk.linear_coefficient(s.index, shape, t.rows.name)
            if step is None or walk.linear_coefficient(s.index, shape, t.columns.name) != 1:
                continue
            inner = context.bound({**rows.at(first), **columns.at(b.i64(0))})
            offset = self.renderer.offset(s.buffer, [self.renderer.scalar(i, inner) for i in s.index], inner)
            assert isinstance(offset, Value)
            start = self._at(self.renderer.buffers[s.buffer].pointer, offset)
            for i in range(tile.rows):
                line = self._at(start, self._size(step) * i)
                for j in range(tile.vectors):
                    b.prefetch(self._at(line, b.i64(j * tile.lanes)), write=True)
