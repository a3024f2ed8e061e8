"""The register tile of a convolution: a product whose rows and depth are scattered over a patch of the image.

Owns the code of one function per shape of the tile.  Knows nothing of kernel IR, sizes or epilogues.
Invariants: the accumulators, one row of B and one element of A fit the registers; the terms of an element
are added tap by tap, along the run of each, one fused product at a time.

    for each tap                          a place in the patch, from a table
      for each element of its run         consecutive in the patch, or a known step apart
        one row of B, vectors * lanes
        for each row of the tile          known offsets from the place: other positions, or other channels
          sums[row] += A[place + offset] * B

Measured on a Zen 5 core (273 GFLOP/s): 8 to 14 rows of two vectors reach 97 to 99 % of the peak with B in the
second-level cache; one vector wants 14 rows at least, for each product loads an element of A.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.backends.llvm_cpu.builder import FLOATS, Builder, Module, Value
from graphc.backends.llvm_cpu.microkernel import Tile, initial

SHORT = 8  # a run of so few elements is written out


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a tile reads the patch: row i at rows[i], element k of a run at k * step, in elements.
    run: the length of runs where it is known and short, else None."""

    rows: tuple[int, ...]
    step: int
    run: int | None = None

    @property
    def name(self) -> str:
        """Name the footprint by its arithmetic progressions."""
        parts, at = [], 0
        while at < len(self.rows):
            pitch = self.rows[at + 1] - self.rows[at] if at + 1 < len(self.rows) else 0
            end = at + 1
            while end < len(self.rows) and self.rows[end] - self.rows[end - 1] == pitch:
                end += 1
            parts.append(f"{self.rows[at]}p{pitch}x{end - at}")
            at = end
        return "_".join((*parts, f"by{self.step}", *([] if self.run is None else [f"run{self.run}"])))


def vectors_for(columns: int, lanes: int) -> int:
    """Return the width of a tile in vectors: the one that leaves no panel of `columns` half empty."""
    count = -(-columns // lanes)
    return count if count < 4 else 3 if count % 3 == 0 and count % 2 else 2


def window_kernel(module: Module, tile: Tile, footprint: Footprint, filters: int = 0) -> str:
    """Define the function that multiplies one tile, once per module, and return its name.

    void f(ptr a, ptr taps, i64 count, i64 run, ptr b, i64 b_step, ptr c, i1 more):
    c[i, :] = (more ? c[i, :] : 0) + sum over t < count, k < run of
    a[taps[t] + rows[i] + k * step] * b[(t * run + k) * b_step : ... + tile.columns]; c is contiguous.

    With `filters` the lanes are in the patch, rows[i] being where vector i begins, and the first `filters` elements of
    a row of b are the rows of the tile: c[j, i, :] = ... a[taps[t] + rows[i] + k * step : ... + lanes] * b[... + j].
    """
    name = f"window_{tile.element}_{filters or tile.vectors}x{tile.lanes}{'p' if filters else ''}_{footprint.name}"
    if name in module.functions:
        return name
    b = Builder(module, name, [("a", "ptr", 1), ("taps", "ptr", 1), ("count", "i64", 1), ("run", "i64", 1),
                               ("b", "ptr", 1), ("b_step", "i64", 1), ("c", "ptr", 1), ("more", "i1", 1)],
                attributes="nounwind noinline", linkage="internal")
    patch, taps, count, run, right, right_step, result, more = b.parameters
    places = range(len(footprint.rows) * (filters or tile.vectors))
    addresses = [b.at(result, b.i64(i * tile.lanes), tile.element) for i in places]

    def vector(start: Value, offset: int) -> Value:
        return b.load(b.at(start, b.i64(offset), tile.element), tile.element, tile.lanes)

    def scalar(start: Value, offset: int) -> Value:
        return b.splat(b.load(b.at(start, b.i64(offset), tile.element), tile.element), tile.lanes)

    def step(a: Value, row: Value, sums: list[Value]) -> list[Value]:
        if filters:
            outer, inner = (row, list(range(filters))), (a, list(footprint.rows))
        else:
            outer, inner = (a, list(footprint.rows)), (row, [j * tile.lanes for j in range(tile.vectors)])
        columns = [vector(inner[0], offset) for offset in inner[1]]
        sums = list(sums)
        for i, offset in enumerate(outer[1]):
            left = scalar(outer[0], offset)
            for j, right in enumerate(columns):
                at = i * len(columns) + j
                sums[at] = b.fma(left, right, sums[at]) if tile.element in FLOATS else left * right + sums[at]
        return sums

    with b.loop(b.i64(0), count, carried=[right, *initial(b, tile, addresses, more)]) as outer:
        place = b.at(patch, b.load(b.at(taps, outer.index, "i64"), "i64"), tile.element)
        row, *sums = outer.carried
        if footprint.run is not None:
            for k in range(footprint.run):
                sums = step(b.at(place, b.i64(k * footprint.step), tile.element), row, sums)
                row = b.at(row, right_step, tile.element)
            outer.next = [row, *sums]
        else:
            with b.loop(b.i64(0), run, carried=[place, row, *sums]) as inner:
                a, row, *sums = inner.carried
                inner.next = [b.at(a, b.i64(footprint.step), tile.element), b.at(row, right_step, tile.element),
                              *step(a, row, sums)]
            outer.next = inner.results[1:]
    for address, value in zip(addresses, outer.results[1:], strict=True):
        b.store(value, address)
    b.ret()
    b.finish()
    return name
