"""A product between the stages of a block: a Contract inside of a parallel loop, its operands packed already.

Owns the code of such a Contract, with a register tile of its own.  Works on a Renderer.  What contract.py does for a
product that is a kernel's whole work (packing, blocking, an epilogue) the stages around this one do here, so nothing is
left but the tiles: a and the sums lie in scratch; b in strips of columns, each of which is contiguous.  The sums take
the place of what was there, or are added to it, where blocks follow each other in a loop.

    for each batch                                          a point of a transform
      for each pair of vectors of columns                   one strip of b, or two side by side, stay in the first cache
        for each panel of rows                              read where they lie; the last panel may be low
          for each k: broadcast a[row, k], multiply with b[k, columns]

Invariants: all strides are known when compiling, extents need not be but for a strip's; the last panel may take
rows that the product does not have, whose sums are never read, but none beyond the scratch; the terms of every sum are
added in the order of k.
"""
from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from graphc import dtypes
from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.errors import BackendError
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Contract, Load, Store, Var
from graphc.kernel.primitives import prim

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.render import Context, Renderer

_ELEMENTS = {dtypes.float32: "float", dtypes.float64: "double"}


@dataclass(frozen=True, slots=True)
class _Form:
    """The strides of such a product, in elements: of a per row and k (a_row, a_k), of b per k and strip (b_k, b_strip),
    of the sums per row and strip (c_row, c_strip); of each per batch.  strip: columns that are contiguous.  room: rows
    that scratch has.  adds: the sums are added to what is there."""

    element: str
    strip: int
    adds: bool
    a_batch: int
    a_row: int
    a_k: int
    b_batch: int
    b_k: int
    b_strip: int
    c_batch: int
    c_row: int
    c_strip: int
    room: int


@dataclass(frozen=True, slots=True)
class _Tile:
    """A register tile: rows by vectors of lanes.  Two vectors lie in strips of their own (`apart`), or side by side."""

    rows: int
    lanes: int
    vectors: int
    apart: bool = True

    def step(self, strip: int) -> int:
        """Return how far the second vector is from the first, where strips are this far from each other."""
        return strip if self.apart else self.lanes


def emit(r: Renderer, statement: Contract, context: Context) -> None:
    """Build the code of `statement` at the end of the current block.  Raises BackendError for another form."""
    form = _form(r, statement)
    b, lanes = r.b, r.b.target.vector_bits // (8 * statement.acc_dtype.size)
    lanes = min(lanes, form.strip)
    (store,) = statement.body
    assert isinstance(store, Store) and isinstance(statement.a, Load) and isinstance(statement.b, Load)
    zero = {axis: b.i64(0) for axis, _ in walk.axes_of(statement)}
    inner = context.bound(zero)
    starts = []
    for buffer, index in ((statement.a.buffer, statement.a.index), (statement.b.buffer, statement.b.index),
                          (store.buffer, store.index)):
        offset = r.offset(buffer, [r.scalar(e, inner) for e in index], inner)
        assert isinstance(offset, Value)
        starts.append(b.at(r.buffers[buffer].pointer, offset, form.element))
    batches = r.scalar(statement.batch[0][1], context) if statement.batch else b.i64(1)
    rows = r.scalar(statement.m[0][1], context)
    strips = r.scalar(statement.n[0][1], context) if len(statement.n) == 2 else b.i64(1)
    depth = r.scalar(statement.k[0][1], context)

    def panels(start: list[Value], strip: Value, tile: _Tile, column: int = 0) -> None:
        left, right, sums = start
        right = b.at(right, strip * form.b_strip + column, form.element)
        sums = b.at(sums, strip * form.c_strip + column, form.element)
        _rows(b, form, tile, rows, depth, left, right, sums)

    with b.loop(b.i64(0), batches) as batch:
        start = [b.at(p, batch.index * step, form.element)
                 for p, step in zip(starts, (form.a_batch, form.b_batch, form.c_batch), strict=True)]
        if form.strip > lanes:
            with b.loop(b.i64(0), strips) as loop:
                for first in range(0, form.strip, 2 * lanes):
                    panels(start, loop.index, _Tile(_height(b, 2), lanes, 2, apart=False), first)
        else:
            pairs = strips & -2
            if pairs.constant != 0:
                with b.loop(b.i64(0), pairs, step=2) as loop:
                    panels(start, loop.index, _Tile(_height(b, 2), lanes, 2))
            alone = strips - pairs
            if alone.constant != 0:
                with b.when(alone.gt(0)):
                    panels(start, pairs, _Tile(_height(b, 1), lanes, 1))


def _height(b: Builder, vectors: int) -> int:
    """Return the rows of a full panel: two vectors leave 7 of 32 registers, or 3 of 16, to b, a and a product."""
    return (12 if b.target.registers >= 32 else 6) * (2 // vectors)


def _rows(b: Builder, form: _Form, tile: _Tile, rows: Value, depth: Value, left: Value, right: Value,
          sums: Value) -> None:
    """Build the loops over panels of rows: full ones, then low ones of two thirds, which give every number of thirds
    but one (as tiling.panels_of).  A panel that would leave the scratch begins earlier."""
    unit, low = tile.rows // 3, tile.rows // 3 * 2

    def multiply(first: Value, height: int) -> None:
        function = _product(b.module, form, replace(tile, rows=height))
        operands = (b.at(left, first * form.a_row, form.element), right, b.at(sums, first * form.c_row, form.element),
                    depth)
        b.line(f"call void @{function}({', '.join(v.typed for v in operands)})")

    units = b.binary("udiv", rows + (unit - 1), unit)
    lows = b.binary("urem", units * 2, 3)
    fulls = b.binary("sdiv", units - lows * 2, 3)  # below zero for one unit alone
    with b.when(units.eq(1)):
        multiply(b.i64(0), unit)
    with b.when(units.gt(1)):
        with b.loop(b.i64(0), fulls) as loop:
            multiply(b.intrinsic("smin", loop.index * tile.rows, b.i64(form.room - tile.rows)), tile.rows)
        with b.loop(b.i64(0), lows) as loop:
            first = fulls * tile.rows + loop.index * low
            multiply(b.intrinsic("smin", first, b.i64(form.room - low)), low)


def _product(module: Module, form: _Form, tile: _Tile) -> str:
    """Define the function of a register tile, once per module, and return its name.

    void f(ptr a, ptr b, ptr c, i64 depth): c[i, j] = (adds ? c[i, j] : 0) + sum over k < depth of a(i, k) * b(k, j).
    """
    name = "_".join(map(str, ("block", *astuple(tile), *astuple(form))))
    if name in module.functions:
        return name
    b = Builder(module, name, [("a", "ptr", 1), ("b", "ptr", 1), ("c", "ptr", 1), ("depth", "i64", 1)],
                attributes="nounwind noinline", linkage="internal")
    panel, source, result, depth = b.parameters
    places = [b.at(result, b.i64(i * form.c_row + j * tile.step(form.c_strip)), form.element)
              for i in range(tile.rows) for j in range(tile.vectors)]
    zero = b.const(0, form.element, tile.lanes)
    before = [b.load(place, form.element, tile.lanes) if form.adds else zero for place in places]
    with b.loop(b.i64(0), depth, carried=[panel, source, *before]) as loop:
        a, row, *sums = loop.carried
        right = [b.load(b.at(row, b.i64(j * tile.step(form.b_strip)), form.element), form.element, tile.lanes)
                 for j in range(tile.vectors)]
        for i in range(tile.rows):
            left = b.splat(b.load(b.at(a, b.i64(i * form.a_row), form.element), form.element), tile.lanes)
            for j in range(tile.vectors):
                sums[i * tile.vectors + j] = b.fma(left, right[j], sums[i * tile.vectors + j])
        loop.next = [b.at(a, b.i64(form.a_k), form.element), b.at(row, b.i64(form.b_k), form.element), *sums]
    for place, value in zip(places, loop.results[2:], strict=True):
        b.store(value, place)
    b.ret()
    b.finish()
    return name


# ---------------------------------------------------------------------------------------------
# Which Contracts these are.


def _form(r: Renderer, s: Contract) -> _Form:
    """Return the strides of `s`.  Raises BackendError where it is not such a product."""
    kernel, shapes = r.kernel, walk.buffers(r.kernel)

    def refuse(why: str) -> BackendError:
        return BackendError(f"{kernel.name}: a Contract inside of a loop is supported between stages alone: {why}")

    def stride(load: Load | Store, axis: str | None) -> int:
        found = 0 if axis is None else walk.linear_coefficient(load.index, shapes[load.buffer][1], axis)
        if not isinstance(found, int):
            raise refuse(f"{load.buffer} has no known stride along {axis}")
        return found

    if s.acc_dtype not in _ELEMENTS or len(s.m) != 1 or len(s.k) != 1 or len(s.batch) > 1 or not 1 <= len(s.n) <= 2:
        raise refuse("it has one axis of rows, one of depth, and at most one batch axis, in float32 or float64")
    a, b, (store, *others) = s.a, s.b, s.body
    if not isinstance(a, Load) or not isinstance(b, Load) or not isinstance(store, Store) or others:
        raise refuse("it stores sums of products of loads")
    acc = Var(s.acc, s.acc_dtype)
    adds = store.value == prim("add", Load(store.buffer, store.index, s.acc_dtype), acc)
    if (store.value != acc and not adds) or any(x.predicate is not None for x in (a, b, store)):
        raise refuse("it stores sums, or adds them to what is there, and no load or store has a predicate")
    row, k, lane = s.m[0][0], s.k[0][0], s.n[-1][0]
    strip_axis = s.n[0][0] if len(s.n) == 2 else None
    batch = s.batch[0][0] if s.batch else None
    strip, extent = walk.as_size(s.n[-1][1]), walk.as_size(s.m[0][1])
    contiguous = [stride(x, lane) for x in (b, store)] == [1, 1] and stride(a, lane) == 0
    if not isinstance(strip, int) or not contiguous or strip & (strip - 1) or strip < 2 or (
            strip_axis is not None and stride(a, strip_axis)):
        raise refuse("columns lie in strips of a power of two, which b and the sums have alike")
    room, tallest = min(_room(x, shapes[x.buffer][1], row) for x in (a, store)), _height(r.b, 1)
    least = -(-extent // (tallest // 3)) * (tallest // 3) if isinstance(extent, int) else tallest
    if room < least:
        raise refuse(f"scratch has {least} rows or more")
    if adds and not isinstance(extent, int):  # else a panel that begins earlier would add to some rows twice
        raise refuse("sums are added to what is there where the number of rows is known")
    return _Form(_ELEMENTS[s.acc_dtype], strip, adds, stride(a, batch), stride(a, row), stride(a, k),
                 stride(b, batch), stride(b, k), stride(b, strip_axis), stride(store, batch), stride(store, row),
                 stride(store, strip_axis), room)


def _room(access: Load | Store, shape: tuple[Size, ...], row: str) -> int:
    """Return how many rows the buffer of an access has."""
    for e, n in zip(access.index, shape, strict=True):
        step = walk.coefficient(e, row)
        if isinstance(step, int) and step > 0 and isinstance(n, int):
            return n // step
    return 0
