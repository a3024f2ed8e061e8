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
    run: the length of runs where it is known and short, else None.

    overlap: so many depth elements are added together, `apart` elements from each other in the patch, so that one that
    several rows read, each for another of them, is loaded once.  In B they are `right_apart` elements from each other,
    a run behind; 0: they follow each other.
    """

    rows: tuple[int, ...]
    step: int
    run: int | None = None
    overlap: int = 1
    apart: int = 0
    right_apart: int = 0

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
        together = [f"{self.overlap}o{self.apart}o{self.right_apart}"] if self.overlap > 1 else []
        return "_".join((*parts, f"by{self.step}", *([] if self.run is None else [f"run{self.run}"]), *together))

    @property
    def reads(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """Where the patch is read, each place with the (row, element of the group) that it is read for."""
        found: dict[int, list[tuple[int, int]]] = {}
        for t in range(self.overlap):
            for i, row in enumerate(self.rows):
                found.setdefault(row + t * self.apart, []).append((i, t))
        return sorted(found.items())


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

    def add(left: Value, right: Value, total: Value) -> Value:
        return b.fma(left, right, total) if tile.element in FLOATS else left * right + total

    def planes(a: Value, row: Value, sums: list[Value]) -> list[Value]:
        columns = [vector(a, offset) for offset in footprint.rows]
        lefts = [scalar(row, j) for j in range(filters)]
        return [add(left, right, sums[i * len(columns) + j])
                for i, left in enumerate(lefts) for j, right in enumerate(columns)]

    def places_of(a: Value, row: Value, sums: list[Value]) -> list[Value]:
        steps = [b.i64(footprint.right_apart * t) if footprint.right_apart else right_step * t
                 for t in range(footprint.overlap)]
        rows = [b.at(row, step, tile.element) for step in steps]
        columns = [[vector(start, j * tile.lanes) for j in range(tile.vectors)] for start in rows]
        sums = list(sums)
        for offset, readers in footprint.reads:
            left = scalar(a, offset)
            for i, t in readers:
                for j, right in enumerate(columns[t]):
                    sums[i * tile.vectors + j] = add(left, right, sums[i * tile.vectors + j])
        return sums

    step = planes if filters else places_of
    together = footprint.overlap if not footprint.right_apart else 1
    with b.loop(b.i64(0), count, carried=[right, *initial(b, tile, addresses, more)]) as outer:
        place = b.at(patch, b.load(b.at(taps, outer.index, "i64"), "i64"), tile.element)
        start, *sums = outer.carried
        row = start
        if footprint.run is not None:
            for k in range(footprint.run):
                sums = step(b.at(place, b.i64(k * footprint.step), tile.element), row, sums)
                row = b.at(row, right_step * together, tile.element)
        else:
            with b.loop(b.i64(0), run, carried=[place, row, *sums]) as inner:
                a, row, *sums = inner.carried
                inner.next = [b.at(a, b.i64(footprint.step), tile.element),
                              b.at(row, right_step * together, tile.element), *step(a, row, sums)]
            row, *sums = inner.results[1:]
        if footprint.right_apart:
            row = b.at(start, right_step * run * footprint.overlap, tile.element)
        outer.next = [row, *sums]
    for address, value in zip(addresses, outer.results[1:], strict=True):
        b.store(value, address)
    b.ret()
    b.finish()
    return name
