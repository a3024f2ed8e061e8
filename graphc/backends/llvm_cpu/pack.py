"""Packing: bringing a panel of an operand into the order in which the register tile reads it.

Owns the two ways of evaluating an operand's expression into scratch (along the depth, along the panel)
and the transposition of strips through registers.  Knows nothing of blocks or work items (contract.py).
Invariants: nothing outside the spans that are given is read; every element of a panel that the tile
reads is written, those outside of the matrix with zeros or with copies of its last row.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.backends.llvm_cpu.microkernel import Tile
from graphc.backends.llvm_cpu.render import Context, Linear, Operand, Renderer
from graphc.kernel.ir import Expr, Load

ROWS_AHEAD = 4  # rows that are asked for before they are packed


@dataclass(frozen=True, slots=True)
class Span:
    """`count` values of the axis `name` from `first` on; an axis without a name is nowhere read."""

    name: str | None
    first: Value
    count: Value

    def at(self, position: Value) -> dict[str, Operand]:
        """Return what the axis is at one position of the span."""
        return {} if self.name is None else {self.name: self.first + position}

    def along(self, position: Value) -> dict[str, Operand]:
        """Return what the axis is in the lanes from `position` on."""
        b = position.b
        return {} if self.name is None else {self.name: Linear(self.first + position, b.i64(1))}

    def part(self, position: Value, count: Value) -> Span:
        """Return `count` positions of this span from `position` on."""
        return Span(self.name, self.first + position, count)


def for_vectors(b: Builder, count: Value, lanes: int, body: Callable[[Value, Value | None], None],
                always_masked: bool = False) -> None:
    """Build body(position, mask) for each vector of 0 .. count-1: whole vectors without a mask, then the rest
    with one; in a single copy, masked throughout, where `always_masked`."""
    if always_masked:
        with b.loop(b.i64(0), count, step=lanes) as loop:
            body(loop.index, b.lane_mask(count - loop.index, lanes))
        return
    whole = count & -lanes
    if whole.constant != 0:
        with b.loop(b.i64(0), whole, step=lanes) as loop:
            body(loop.index, None)
    rest = count - whole
    if rest.constant != 0:
        with b.when(rest.gt(0)):
            body(whole, b.lane_mask(rest, lanes))


def evaluate_rows(renderer: Renderer, context: Context, expr: Expr, tile: Tile, rows: Span, height: Value,
                  depth: Span, target: Value, step: int, is_far: bool = False) -> None:
    """Build target[i * step + k] = expr(row i, depth k) for i < height; rows that are not there repeat the
    last one.  Up to a vector of zeros is written behind each row.  is_far: rows are asked for ahead."""
    b = renderer.b
    with b.loop(b.i64(0), height) as loop:
        place = rows.at(b.intrinsic("smin", loop.index, rows.count - 1))
        ahead = rows.at(loop.index + ROWS_AHEAD)
        row = b.at(target, loop.index * step, tile.element)

        def vector(k: Value, mask: Value | None) -> None:
            inner = context.bound({**place, **depth.along(k)}, lanes=tile.lanes, mask=mask)
            b.store(renderer.vector(expr, inner), b.at(row, k, tile.element))
            if is_far and isinstance(expr, Load) and expr.predicate is None:
                b.prefetch(address(renderer, context.bound({**ahead, **depth.at(k)}), expr, tile))

        for_vectors(b, depth.count, tile.lanes, vector)


def address(renderer: Renderer, context: Context, load: Load, tile: Tile) -> Value:
    """Return where the element of `load` lies."""
    offset = renderer.offset(load.buffer, [renderer.scalar(i, context) for i in load.index], context)
    assert isinstance(offset, Value)
    return renderer.b.at(renderer.buffers[load.buffer].pointer, offset, tile.element)


def evaluate_lanes(renderer: Renderer, context: Context, expr: Expr, tile: Tile, lanes: Span, width: int,
                   depth: Span, target: Value, masked: bool = True) -> None:
    """Build target[k * width + i] = expr(lane i, depth k) for i < width; zeros in lanes that are not there.

    Whole vectors are stored: up to a vector behind the panel is overwritten.  Not `masked`: all are there.
    """
    b = renderer.b
    starts = [b.i64(i) for i in range(0, width, tile.lanes)]
    masks = [b.lane_mask(b.intrinsic("smax", lanes.count - start, b.i64(0)), tile.lanes) if masked else None
             for start in starts]
    with b.loop(b.i64(0), depth.count) as loop:
        row = b.at(target, loop.index * width, tile.element)
        for start, mask in zip(starts, masks, strict=True):
            inner = context.bound({**lanes.along(start), **depth.at(loop.index)}, lanes=tile.lanes, mask=mask)
            value = renderer.vector(expr, inner)
            if mask is not None:
                value = b.select(mask, value, b.const(0, tile.element, tile.lanes))
            b.store(value, b.at(row, start, tile.element))


def transpose_panel(b: Builder, tile: Tile, source: Value, step: Value, columns: Value, depth: Value,
                    target: Value, width: int) -> None:
    """Build target[k * width + i] = source[min(i, columns - 1) * step + k] for i < width, k < depth."""
    function = transpose_strip(b.module, tile.element, tile.lanes)
    for start in range(0, width, tile.lanes):
        there = b.intrinsic("smin", b.i64(start), columns - 1)
        operands = (b.at(source, there * step, tile.element), step, b.intrinsic("smax", columns - start, b.i64(1)),
                    depth, b.at(target, b.i64(start), tile.element), b.i64(width))
        b.line(f"call void @{function}({', '.join(v.typed for v in operands)})")


def transpose_strip(module: Module, element: str, lanes: int) -> str:
    """Define the function that transposes a strip of up to `lanes` rows, once per module; return its name.

    void f(ptr source, i64 source_step, i64 rows, i64 depth, ptr target, i64 target_step): for k < depth
    rounded up to a multiple of lanes, i < lanes: target[k * target_step + i] = source[min(i, rows - 1) *
    source_step + k], and unspecified values (in memory that must be there) for k >= depth.  rows >= 1.
    """
    name = f"transpose_{element}_{lanes}"
    if name in module.functions:
        return name
    b = Builder(module, name, [("source", "ptr", 1), ("source_step", "i64", 1), ("rows", "i64", 1),
                               ("depth", "i64", 1), ("target", "ptr", 1), ("target_step", "i64", 1)],
                attributes="nounwind noinline", linkage="internal")
    source, source_step, rows, depth, target, target_step = b.parameters
    last = rows - 1
    # A row that is not there is read from the last one that is: no masks, and no numbers from nowhere.
    starts = [b.at(source, b.intrinsic("smin", b.i64(i), last) * source_step, element) for i in range(lanes)]
    with b.loop(b.i64(0), depth, step=lanes) as loop:
        block = _load_block(b, [b.at(start, loop.index, element) for start in starts], element, lanes,
                            depth - loop.index)
        out = b.at(target, loop.index * target_step, element)
        for k, column in enumerate(transposed(b, block)):
            b.store(column, b.at(out, target_step * k, element))
    b.ret()
    b.finish()
    return name


def _load_block(b: Builder, rows: list[Value], element: str, lanes: int, remaining: Value) -> list[Value]:
    """Return `lanes` elements of each row; only the first `remaining` of them are read."""
    full, part, done = b.new_block(), b.new_block(), b.new_block()
    b.branch_if(remaining.ge(lanes), full, part)
    b.start_block(full)
    whole = [b.load(row, element, lanes) for row in rows]
    b.branch(done)
    b.start_block(part)
    mask = b.lane_mask(remaining, lanes)
    some = [b.masked_load(row, element, mask) for row in rows]
    b.branch(done)
    b.start_block(done)
    return [b.emit(f"phi {w.type} [ {w.text}, %{full} ], [ {s.text}, %{part} ]", element, lanes)
            for w, s in zip(whole, some, strict=True)]


def transposed(b: Builder, rows: list[Value]) -> list[Value]:
    """Return the columns of a square block: log2(n) rounds, each exchanging half the lanes of two rows.

    Distances grow, so that the first rounds stay within 128-bit lanes (half the time of the other order).
    """
    n, distance = len(rows), 1
    while distance < n:
        order = [(lane, lane ^ distance) for lane in range(n)]
        low = [lane if not lane & distance else n + other for lane, other in order]
        high = [other if not lane & distance else n + lane for lane, other in order]
        rows = [b.shuffle(rows[i & ~distance], rows[i | distance], high if i & distance else low) for i in range(n)]
        distance *= 2
    return rows
