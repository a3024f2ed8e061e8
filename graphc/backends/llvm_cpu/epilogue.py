"""Epilogues: a Contract's body over one tile of sums.

Owns the loops over the tile's elements.  Knows nothing of how the sums came about.  Invariant: the body runs once per
element that is there, vectors along the axis where it touches consecutive memory.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from graphc.backends.llvm_cpu.builder import Value
from graphc.backends.llvm_cpu.microkernel import Tile
from graphc.backends.llvm_cpu.pack import Span, for_vectors, transpose_panel
from graphc.backends.llvm_cpu.render import Context, Linear, Operand, Renderer
from graphc.dtypes import DType
from graphc.kernel import walk


class Places(Protocol):
    """Some values of an axis, or of several that run together."""

    @property
    def count(self) -> Value:
        """How many there are."""

    def at(self, position: Value) -> dict[str, Operand]:
        """Return what the axes are at one of them."""


@dataclass(frozen=True, slots=True)
class Epilogue:
    """body: run with the sum, of dtype `dtype`, called `acc`.  turned: room for the tile with its rows as lanes,
    `turned_step` elements apart, where vectors run along the rows; else None."""

    renderer: Renderer
    tile: Tile
    body: walk.Block
    acc: str
    dtype: DType
    turned: Value | None
    turned_step: int

    def build(self, context: Context, rows: Places, columns: Span, sums: Value, step: int = 0) -> None:
        """Build the body over the tile at `sums`, whose rows are `step` (0: `tile.columns`) elements apart."""
        b, tile = self.renderer.b, self.tile
        slow, fast, step = rows, columns, step or tile.columns
        if self.turned is not None:
            assert isinstance(rows, Span)
            slow, fast, step = columns, rows, self.turned_step
            transpose_panel(b, tile, sums, b.i64(tile.columns), rows.count, columns.count, self.turned, step)
            sums = self.turned
        if fast.name is None:
            with b.loop(b.i64(0), slow.count) as loop:
                value = b.load(b.at(sums, loop.index * step, tile.element), tile.element)
                self._body(context, slow.at(loop.index), value, 1, None)
            return

        def vector(position: Value, mask: Value | None) -> None:
            with b.loop(b.i64(0), slow.count) as loop:
                value = b.load(b.at(sums, loop.index * step + position, tile.element), tile.element, tile.lanes)
                self._body(context, {**slow.at(loop.index), **fast.along(position)}, value, tile.lanes, mask)

        is_whole = fast.count.constant is not None and fast.count.constant % tile.lanes == 0
        for_vectors(b, fast.count, tile.lanes, vector, always_masked=b.module.has("avx512vl") and not is_whole)

    def _body(self, context: Context, names: Mapping[str, Operand], value: Value, lanes: int,
              mask: Value | None) -> None:
        for place in names.values():
            self.renderer.bounded(place.base if isinstance(place, Linear) else place)
        if self.dtype.is_integer and self.dtype.size < 4:
            value = self.renderer.b.convert("trunc", value, f"i{self.dtype.bits}")
        self.renderer.statements(self.body, context.bound({**names, self.acc: value}, lanes=lanes, mask=mask))
