"""Panels of a convolution's second operand: brought into the order in which the tile reads them.

Owns the choice between the ways of pack.py for one stretch of the depth.  Knows nothing of windows.  Invariant: every
element of a panel that the tile reads is written; up to a square of vectors behind it is overwritten.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.microkernel import Tile
from graphc.backends.llvm_cpu.pack import Span, address, evaluate_lanes, evaluate_rows, transpose_panel
from graphc.backends.llvm_cpu.render import Context, Renderer
from graphc.backends.llvm_cpu.tiling import Range, Way, stride
from graphc.kernel.ir import Expr, Kernel, Load


@dataclass(frozen=True, slots=True)
class Panel:
    """expr: the operand, brought in `way`.  columns: its axis of columns.  stage: room for `tile.columns` rows of
    `stage_step` elements."""

    renderer: Renderer
    kernel: Kernel
    expr: Expr
    way: Way
    columns: Range
    tile: Tile
    stage: Value
    stage_step: int

    def start(self, context: Context) -> Value:
        """Return where the element lies that `context` binds the axes to.  The operand is a plain Load."""
        assert isinstance(self.expr, Load)
        return address(self.renderer, context, self.expr, self.tile)

    def step(self, axis: Range) -> Value:
        """Return by how many elements memory moves per step of `axis`."""
        assert isinstance(self.expr, Load)
        step = stride(self.kernel, self.expr, axis)
        assert step is not None
        return self.renderer.size(step)

    def pack(self, context: Context, columns: Span, depth: Span, target: Value) -> None:
        """Build target[k * tile.columns + i] = expr at column i of `columns` and place k of `depth`."""
        b, tile = self.renderer.b, self.tile
        match self.way:
            case Way.TURNED:
                zero = b.i64(0)
                source = self.start(context.bound({**columns.at(zero), **depth.at(zero)}))
                transpose_panel(b, tile, source, self.step(self.columns), columns.count, depth.count, target,
                                tile.columns)
            case Way.STAGED:
                evaluate_rows(self.renderer, context, self.expr, tile, columns, columns.count, depth, self.stage,
                              self.stage_step)
                transpose_panel(b, tile, self.stage, b.i64(self.stage_step), columns.count, depth.count, target,
                                tile.columns)
            case _:
                ragged = columns.count.lt(tile.columns)
                for case, masked in ((ragged, True), (~ragged, False)):
                    if case.constant != 0:
                        with b.when(case):
                            evaluate_lanes(self.renderer, context, self.expr, tile, columns, tile.columns, depth,
                                           target, masked)
