"""The register tile of a matrix product: the innermost loop, where all the arithmetic happens.

Owns the choice of the tile's shape for a target and the code of one function per shape and layout.
Knows nothing of kernel IR, sizes or epilogues: it multiplies a panel of A with a panel of B.
Invariants: the accumulators, one row of B and one element of A fit the registers; the terms of every
element are added in the order of k, one fused (or, without FMA, one rounded) product at a time.

Measured on a Zen 5 core (two 512-bit FMAs per cycle, 273 GFLOP/s): 98 to 99 % of the peak for k from 64
to 1024, whether B is packed or read where it lies, and no gain from unrolling the loop over k.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.backends.llvm_cpu.builder import FLOATS, Builder, Module, Value, width_of
from graphc.kernel.target import Target


@dataclass(frozen=True, slots=True)
class Tile:
    """element: LLVM type that is multiplied and accumulated.  lanes: elements of a vector.  rows: height
    of the tile; few: height of the low tile, two thirds of it.  vectors: the width of all tiles."""

    element: str
    lanes: int
    rows: int
    few: int
    vectors: int = 2

    @property
    def unit(self) -> int:
        """What both heights are multiples of, and the height of the lowest tile."""
        return self.rows - self.few

    @property
    def columns(self) -> int:
        return self.lanes * self.vectors

    @property
    def size(self) -> int:
        """Elements of a full tile."""
        return self.rows * self.columns

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return width_of(self.element) // 8


def tile_for(target: Target, element: str) -> Tile:
    """Return the tile of `target` for products of `element`.

    12 x 2 vectors leave 7 of 32 registers to B, A and a product; 6 x 2 leave 4 of 16.  Low tiles read B from the
    second-level cache about as fast as it comes; one of a single unit is for products of so few rows only.
    """
    rows, few = (12, 8) if target.registers >= 32 else (6, 4)
    return Tile(element, target.vector_bits // width_of(element), rows, few)


@dataclass(frozen=True, slots=True)
class PanelLayout:
    """Where element (i, k) of a panel of A lies: i * row + k * step elements after its start, with `row`
    known; a `step` of None is given at run time."""

    row: int
    step: int | None


def microkernel(module: Module, tile: Tile, rows: int, layout: PanelLayout) -> str:
    """Define the function that multiplies `rows` rows, once per module, and return its name.

    void f(ptr a, i64 a_step, ptr b, i64 b_step, ptr c, i64 depth, i1 more):
    c[i, :] = (more ? c[i, :] : 0) + sum over k < depth of a(i, k) * b[k * b_step : ... + tile.columns].
    a lies as `layout` says (a_step is used where its step is None); c is contiguous, rows by columns.
    """
    step = "run" if layout.step is None else str(layout.step)
    name = f"product_{tile.element}_{rows}x{tile.vectors}x{tile.lanes}_{layout.row}_{step}"
    if name in module.functions:
        return name
    b = Builder(module, name, [("a", "ptr", 1), ("a_step", "i64", 1), ("b", "ptr", 1), ("b_step", "i64", 1),
                               ("c", "ptr", 1), ("depth", "i64", 1), ("more", "i1", 1)],
                attributes="nounwind noinline", linkage="internal")
    panel, panel_step, source, source_step, result, depth, more = b.parameters
    if layout.step is not None:
        panel_step = b.i64(layout.step)
    places = [(i, j) for i in range(rows) for j in range(tile.vectors)]
    addresses = [b.at(result, b.i64(i * tile.columns + j * tile.lanes), tile.element) for i, j in places]
    with b.loop(b.i64(0), depth, carried=[panel, source, *initial(b, tile, addresses, more)]) as loop:
        a, row, *sums = loop.carried
        right = [b.load(b.at(row, b.i64(j * tile.lanes), tile.element), tile.element, tile.lanes)
                 for j in range(tile.vectors)]
        _prefetch(b, tile, row)
        for i in range(rows):
            left = b.splat(b.load(b.at(a, b.i64(i * layout.row), tile.element), tile.element), tile.lanes)
            for j in range(tile.vectors):
                at = i * tile.vectors + j
                sums[at] = b.fma(left, right[j], sums[at]) if tile.element in FLOATS else left * right[j] + sums[at]
        loop.next = [b.at(a, panel_step, tile.element), b.at(row, source_step, tile.element), *sums]
    for address, value in zip(addresses, loop.results[2:], strict=True):
        b.store(value, address)
    b.ret()
    b.finish()
    return name


def initial(b: Builder, tile: Tile, addresses: list[Value], more: Value) -> list[Value]:
    """Return what the sums start from: what `addresses` hold where `more`, else zeros."""
    before, load, begin = b.block, b.new_block(), b.new_block()
    b.branch_if(more, load, begin)
    b.start_block(load)
    kept = [b.load(address, tile.element, tile.lanes) for address in addresses]
    b.branch(begin)
    b.start_block(begin)
    zero = b.const(0, tile.element, tile.lanes)
    return [b.emit(f"phi {v.type} [ {zero.text}, %{before} ], [ {v.text}, %{load} ]", tile.element, tile.lanes)
            for v in kept]


def _prefetch(b: Builder, tile: Tile, row: Value) -> None:
    """Ask for the part of B's row that the next panel will read: where there are few rows of A, or where rows of
    B are a power of two apart, little of the time that memory takes is hidden.  Where nothing is there, nothing
    happens."""
    for line in range(0, tile.columns * tile.bytes, 64):
        address = b.at(row, b.i64(tile.columns + line // tile.bytes), tile.element)
        b.prefetch(address, level=2)
