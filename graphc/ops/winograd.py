"""Convolution by minimal filtering: 3 x 3 filters of stride 1, transformed filters as a value of their own.

Owns the ops WinogradFilter and WinogradConvolution and the kernels that they are; kernel/winograd.py has the matrices.
A graph never holds these ops: a pass puts them where they win (passes/convolution.py).  Invariant: a block of tiles is
one iteration of the outer loop, with scratch of its own; tiles are numbered through all images, so that blocks are full
however small the images are.

    for each block of tiles                                 and each part of the output channels, where blocks are few
      for each tile, for each channel                       v = data * window * data^T
      for each of the 16 or 36 products                     s = v x u, a product of matrices: tiles by channels
      for each tile, for each output channel                output * s * output^T, then bias, activation, residual ...

Channels of the transformed filters lie in strips of a cache line each: u[product, strip, channel, lane].

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import float32, int64
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import PartialType, TensorType
from graphc.kernel.ir import Axis, Contract, Expr, For, If, Let, Load, Local, Stmt, Store, Var, const, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import prim
from graphc.kernel.winograd import TAPS, TRANSFORMS, Transform, sandwich
from graphc.ops.base import (
    REQUIRED,
    Call,
    Inference,
    Kind,
    NoGradient,
    Op,
    Routine,
    RoutineBody,
    Sample,
    Staged,
    Stages,
    register,
)
from graphc.ops.rules import check_same_dtype, require_rank, typed

STRIP = 16  # output channels that lie together: a cache line
UNIT = 4  # tiles of a block are a multiple of it
MOST = 24  # and of a full block, of it: the heights of the usual register tiles divide it
SCRATCH = 640 << 10  # bytes of scratch that a block aims at: it stays in the second-level cache beside the filters
WIDEST = 4 * MOST  # tiles of a block at most
ITEMS = 16  # blocks that are worth having, so that threads can share them
FEWEST = 12  # tiles that a block is not cut below to have so many; twice that where all of its filters come from afar
NEAR = 768 << 10  # bytes of transformed filters that stay in the second-level cache

_LATER = NoGradient("it takes the place of a convolution after differentiation")


def strips_of(channels: int) -> int:
    """Return how many strips hold `channels` output channels."""
    return -(-channels // STRIP)


# -- the filters ------------------------------------------------------------------------------------------------------


def _filter_infer(ctx: Inference) -> Sequence[PartialType]:
    (w,) = ctx.inputs
    check_same_dtype(ctx, (w,), (float32,))
    require_rank(ctx, w.shape, 4, "filter", 4)
    transform = TRANSFORMS[ctx.attrs["tile"]]
    if w.shape is None:
        return [PartialType(float32, None)]
    inner, outer = w.shape[3:1:-1] if ctx.attrs["turned"] else w.shape[2:]
    return [PartialType(float32, (transform.points, dim.ceildiv(outer, STRIP), inner, STRIP))]


def _filter_reference(call: Call) -> Any:
    (w,) = call.arrays
    g = _floats(TRANSFORMS[call.attrs["tile"]].filter)
    if call.attrs["turned"]:
        w = w[::-1, ::-1].swapaxes(2, 3)
    u = np.einsum("ai,bj,ijco->abco", g, g, w)
    u = u.reshape(-1, *u.shape[2:])
    spare = -u.shape[2] % STRIP
    u = np.pad(u, ((0, 0), (0, 0), (0, spare)))
    return np.ascontiguousarray(u.reshape(*u.shape[:2], -1, STRIP).swapaxes(1, 2))


def _floats(matrix: Sequence[Sequence[Any]]) -> np.ndarray:
    return np.array([[float(c) for c in row] for row in matrix])


def _filter_body(r: Routine) -> tuple[Stmt, ...]:
    """Lanes run along the strip, the output channels, which lie side by side in the filter too, unless it is turned."""
    transform, turned = TRANSFORMS[r.attrs["tile"]], r.attrs["turned"]
    (_, strips, inner, _), shape = r.out_types[0].shape, r.in_types[0].shape
    outer = shape[2] if turned else shape[3]
    strip, channel, lane = (Axis(r.fresh(stem)) for stem in ("q", "c", "e"))
    out = _add(_times(strip, STRIP), lane)
    lets, bind = _binder(r.fresh)

    def weight(i: int, j: int) -> Expr:
        at = (index(TAPS - 1 - i), index(TAPS - 1 - j), out, channel) if turned else (index(i), index(j), channel, out)
        if outer % STRIP == 0:
            return Load(r.input(0), at, float32)
        return Load(r.input(0), at, float32, prim("lt", out, size_of(outer)), const(0, float32))

    for a, row in enumerate(sandwich(transform.filter, weight, bind)):
        lets += [Store(r.output(0), (index(a * transform.reach + b), strip, channel, lane), value)
                 for b, value in enumerate(row)]
    return (_for(strip, strips, _for(channel, inner, _for(lane, STRIP, *lets))),)


def _filter_samples() -> list[Sample]:
    return [Sample((typed(float32, 3, 3, *shape),), {"tile": tile, "turned": turned}, special=False)
            for tile in TRANSFORMS for turned in (False, True) for shape in ((3, 16), (5, 7), (18, 33), (1, 1))]


register(Op(
    name="WinogradFilter", kind=Kind.CONTRACTION, inputs=("filter",), attrs={"tile": REQUIRED, "turned": False},
    infer=_filter_infer, gradient=_LATER, reference=_filter_reference, lower=RoutineBody(_filter_body),
    samples=_filter_samples,
    doc="3 x 3 filters as F(tile x tile, 3 x 3) takes them, in strips of output channels; turned: those of the input "
        "gradient, with the taps in reverse and the channels exchanged."))


# -- the convolution --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the tiles of all images are numbered, and cut into blocks.

    down, across: tiles of an image.  count: of all images.  most: tiles of a block at most; rows: of each block but
    the last one, as even as units allow.  strips: of all output channels; part: of a block.
    """

    down: int
    across: int
    count: Size
    most: int
    rows: Size
    strips: int
    part: Size

    @property
    def blocks(self) -> Size:
        return dim.ceildiv(self.count, self.rows)

    @property
    def parts(self) -> Size:
        return dim.ceildiv(self.strips, self.part)


def tiles_of(transform: Transform, images: Size, height: int, width: int, channels: int, outputs: int) -> Tiles:
    """Return the blocks of a convolution with an output of this size.

    A block is as large as its scratch allows, and smaller where there would be few of them; where that does not give
    work for several threads either, the output channels are cut too, and each part transforms the data again.
    """
    down, across = -(-height // transform.tile), -(-width // transform.tile)
    count = images * (down * across)
    strips = strips_of(outputs)
    each = transform.points * 4 * (channels + (strips + 2) * STRIP)
    most = min(WIDEST, max(MOST, SCRATCH // each // MOST * MOST))
    fewest = FEWEST if transform.points * channels * strips * STRIP * 4 <= NEAR else 2 * FEWEST
    blocks = dim.maximum(1, dim.maximum(dim.ceildiv(count, most), dim.minimum(ITEMS, dim.floordiv(count, fewest))))
    rows = dim.ceildiv(dim.ceildiv(count, blocks), UNIT) * UNIT
    rows = dim.maximum(rows, UNIT)
    part: Size = strips
    if strips >= 8:
        wanted = dim.minimum(strips // 4, dim.floordiv(ITEMS, dim.maximum(1, dim.ceildiv(count, rows))))
        part = dim.ceildiv(strips, dim.maximum(1, wanted) * 2) * 2
    return Tiles(down, across, count, most, rows, strips, part)


def _infer(ctx: Inference) -> Sequence[PartialType]:
    x, u = ctx.inputs
    check_same_dtype(ctx, (x, u), (float32,))
    require_rank(ctx, x.shape, 4, "input", 4)
    require_rank(ctx, u.shape, 4, "filter", 4)
    if x.shape is None or u.shape is None:
        return [PartialType(float32, None)]
    ctx.equal(x.shape[3], u.shape[2], f"the input has {x.shape[3]} channels, the filters have {u.shape[2]}")
    return [PartialType(float32, (x.shape[0], *ctx.attrs["size"], ctx.attrs["channels"]))]


def _reference(call: Call) -> Any:
    x, u = call.arrays
    transform = TRANSFORMS[call.attrs["tile"]]
    m, reach = transform.tile, transform.reach
    (top, left), (height, width), outputs = (call.attrs[k] for k in ("before", "size", "channels"))
    down, across = -(-height // m), -(-width // m)
    n, _, _, channels = x.shape
    padded = np.zeros((n, down * m + reach - m, across * m + reach - m, channels), x.dtype)
    rows, columns = min(x.shape[1], padded.shape[1] - top), min(x.shape[2], padded.shape[2] - left)
    padded[:, top:top + rows, left:left + columns] = x[:, :rows, :columns]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach), (1, 2))[:, ::m, ::m]
    data, output = _floats(transform.data), _floats(transform.output)
    v = np.einsum("ai,bj,nyxcij->abnyxc", data, data, windows)
    filters = u.swapaxes(1, 2).reshape(reach, reach, channels, -1)[..., :outputs]
    products = np.einsum("abnyxc,abco->abnyxo", v, filters)
    y = np.einsum("ia,jb,abnyxo->nyixjo", output, output, products)
    return y.reshape(n, down * m, across * m, outputs)[:, :height, :width]


def _body(s: Stages) -> tuple[Stmt, ...]:
    transform = TRANSFORMS[s.attrs["tile"]]
    images, _, _, channels = s.in_types[0].shape
    (height, width), outputs = s.attrs["size"], s.attrs["channels"]
    assert isinstance(channels, int)
    t = tiles_of(transform, images, height, width, channels, outputs)
    block, part = Axis(s.fresh("b")), Axis(s.fresh("q"))
    start = prim("mul", block, size_of(t.rows))
    rows = prim("min", size_of(t.rows), prim("sub", size_of(t.count), start))
    first = prim("mul", part, size_of(t.part)) if t.strips >= 8 else index(0)
    strips = prim("min", size_of(t.part), prim("sub", size_of(t.strips), first)) if t.strips >= 8 else index(t.strips)
    # A tile for each point, row by row; a cache line to spare keeps the points of one tile apart in the cache.
    v, m = (Local(s.fresh(stem), float32, (transform.points, t.most * row + STRIP), "block")
            for stem, row in (("v", channels), ("m", t.strips * STRIP)))
    body: tuple[Stmt, ...] = (
        v, m, _gather(s, transform, t, v.name, start, rows),
        _multiply(s, transform, t, v.name, m.name, rows, first, strips),
        _scatter(s, transform, t, m.name, start, rows, first, strips))
    if t.strips >= 8:
        body = (_for(part, t.parts, *body),)
    return (_for(block, t.blocks, *body),)


@dataclass(frozen=True, slots=True)
class _Tile:
    """Where a tile lies: its image, and its first row and column in units of tiles."""

    image: Expr
    down: Expr
    across: Expr


def _locate(s: Stages, t: Tiles, number: Expr) -> tuple[_Tile, list[Stmt]]:
    """Return the place of a tile, and the statements that compute it."""
    inside = prim("floormod", number, index(t.down * t.across))
    values = (prim("floordiv", number, index(t.down * t.across)), prim("floordiv", inside, index(t.across)),
              prim("floormod", inside, index(t.across)))
    lets = [Let(s.fresh("at"), value) for value in values]
    return _Tile(*(Var(let.name, int64) for let in lets)), list(lets)


def _gather(s: Stages, transform: Transform, t: Tiles, v: str, start: Expr, rows: Expr) -> Stmt:
    """The first stage: the windows of all tiles, transformed."""
    _, height, width, channels = s.in_types[0].shape
    assert isinstance(height, int) and isinstance(width, int) and isinstance(channels, int)
    number = Axis(s.fresh("t"))
    tile, statements = _locate(s, t, _add(start, number))
    ys, y_inside = _reach(s, transform, tile.down, s.attrs["before"][0], t.down, height, statements)
    xs, x_inside = _reach(s, transform, tile.across, s.attrs["before"][1], t.across, width, statements)

    def channel_loop(predicated: bool) -> Stmt:
        channel = Axis(s.fresh("c"))
        lets, bind = _binder(s.fresh)

        def element(i: int, j: int) -> Expr:
            at = (tile.image, ys[i], xs[j], channel)
            return s.load(0, at, _both(y_inside[i], x_inside[j]) if predicated else None)

        for a, row in enumerate(sandwich(transform.data, element, bind)):
            lets += [Store(v, (index(a * transform.reach + b), _add(_times(number, channels), channel)), value)
                     for b, value in enumerate(row)]
        return _for(channel, channels, *lets)

    edges = [e for e in (y_inside[0], y_inside[-1], x_inside[0], x_inside[-1]) if e is not None]
    if not edges:
        statements.append(channel_loop(False))
    elif t.down < 3 or t.across < 3:  # hardly a tile lies inside
        statements.append(channel_loop(True))
    else:
        inside = Let(s.fresh("inside"), _all(edges))
        statements += [inside, If(Var(inside.name, inside.value.dtype), (channel_loop(False),), (channel_loop(True),))]
    return For(number.name, rows, tuple(statements), True)


def _reach(s: Stages, transform: Transform, tile: Expr, before: int, tiles: int, size: int,
           statements: list[Stmt]) -> tuple[list[Expr], list[Expr | None]]:
    """Return, along one axis, the positions that a tile reads, and which of them are inside of the data (None: always).
    What is named on the way is added to `statements`."""
    first = Let(s.fresh("at"), _add(_times(tile, transform.tile), index(-before)))
    statements.append(first)
    places: list[Expr] = []
    inside: list[Expr | None] = []
    last = (tiles - 1) * transform.tile - before
    for i in range(transform.reach):
        place = _add(Var(first.name, int64), index(i))
        conditions = ([prim("le", index(0), place)] if i < before else []) + (
            [prim("lt", place, index(size))] if last + i >= size else [])
        places.append(place)
        if conditions:
            let = Let(s.fresh("in"), _all(conditions))
            statements.append(let)
            inside.append(Var(let.name, let.value.dtype))
        else:
            inside.append(None)
    return places, inside


def _multiply(s: Stages, transform: Transform, t: Tiles, v: str, m: str, rows: Expr, first: Expr,
              strips: Expr) -> Stmt:
    """The second stage: one product of matrices per point of the transform."""
    point, row, strip, lane, channel = (Axis(s.fresh(stem)) for stem in ("p", "t", "s", "e", "k"))
    channels, acc = s.in_types[0].shape[3], s.fresh("sum")
    assert isinstance(channels, int)
    return Contract(
        ((point.name, index(transform.points)),), ((row.name, rows),),
        ((strip.name, strips), (lane.name, index(STRIP))), ((channel.name, size_of(channels)),),
        Load(v, (point, _add(_times(row, channels), channel)), float32),
        s.load(1, (point, _add(first, strip), channel, lane)), acc, float32,
        (Store(m, (point, _sum_at(t, row, strip, lane)), Var(acc, float32)),))


def _sum_at(t: Tiles, row: Expr, strip: Expr, lane: Expr) -> Expr:
    """Return where the sum of a tile and an output channel lies, for each point."""
    return _add(_add(_times(row, t.strips * STRIP), _times(strip, STRIP)), lane)


def _scatter(s: Stages, transform: Transform, t: Tiles, sums: str, start: Expr, rows: Expr, first: Expr,
             strips: Expr) -> Stmt:
    """The third stage: the sums transformed back, and what follows them."""
    (height, width), outputs, side = s.attrs["size"], s.attrs["channels"], transform.tile
    number, strip, lane = (Axis(s.fresh(stem)) for stem in ("t", "s", "e"))
    tile, statements = _locate(s, t, _add(start, number))
    channel = _add(_times(_add(first, strip), STRIP), lane)
    lets, bind = _binder(s.fresh)

    def element(i: int, j: int) -> Expr:
        return Load(sums, (index(i * transform.reach + j), _sum_at(t, number, strip, lane)), float32)

    values = list(sandwich(transform.output, element, bind))
    ys, xs = ([_add(_times(place, side), index(i)) for i in range(side)] for place in (tile.down, tile.across))
    points = [(i, j) for i in range(side) for j in range(side)]
    shared, each = s.finish([((tile.image, ys[i], xs[j], channel), values[i][j]) for i, j in points])
    after: list[Stmt] = list(shared)
    for i in range(side):
        row: list[Stmt] = []
        for j in range(side):
            row += _where(s, _unless_certain(xs[j], j, t.across, side, width), each[i * side + j])
        after += _where(s, _unless_certain(ys[i], i, t.down, side, height), row)
    inside = prim("lt", channel, index(outputs)) if outputs % STRIP else None
    body = _for(lane, STRIP, *lets, *_where(s, inside, after))
    return For(number.name, rows, (*statements, For(strip.name, strips, (body,), True)), True)


def _unless_certain(place: Expr, i: int, tiles: int, tile: int, size: int) -> Expr | None:
    """Return the condition that an output is one, None where all tiles have it."""
    return prim("lt", place, index(size)) if (tiles - 1) * tile + i >= size else None


def _where(s: Stages, condition: Expr | None, body: Sequence[Stmt]) -> list[Stmt]:
    return list(body) if condition is None else [If(condition, tuple(body))]


# -- small parts of kernels -------------------------------------------------------------------------------------------


def _binder(fresh: Callable[[str], str]) -> tuple[list[Stmt], Callable[[Expr], Expr]]:
    """Return an empty list of statements, and the function that names a value by a Let in it."""
    statements: list[Stmt] = []

    def bind(value: Expr) -> Expr:
        let = Let(fresh("w"), value)
        statements.append(let)
        return Var(let.name, value.dtype)

    return statements, bind


def _for(axis: Axis, extent: Size, *body: Stmt) -> For:
    return For(axis.name, size_of(extent), body, True)


def _add(a: Expr, b: Expr) -> Expr:
    zero = index(0)
    return b if a == zero else a if b == zero else prim("add", a, b)


def _times(a: Expr, n: int) -> Expr:
    return prim("mul", a, index(n))


def _both(a: Expr | None, b: Expr | None) -> Expr | None:
    return prim("and", a, b) if a is not None and b is not None else a if a is not None else b


def _all(conditions: Sequence[Expr]) -> Expr:
    total = conditions[0]
    for c in conditions[1:]:
        total = prim("and", total, c)
    return total


# -- samples ----------------------------------------------------------------------------------------------------------


def _samples() -> list[Sample]:
    found = []
    for tile, transform in TRANSFORMS.items():
        for n, size, channels, outputs, before in (
                (2, (6, 7), 3, 5, (1, 1)), (1, (4, 4), 16, 32, (1, 1)), (3, (13, 9), 4, 16, (0, 0)),
                (1, (1, 1), 1, 1, (1, 1)), (0, (8, 8), 3, 4, (1, 1)), (2, (9, 14), 5, 130, (2, 2))):
            data = typed(float32, n, *(max(1, size[d] + TAPS - 1 - 2 * before[d]) for d in (0, 1)), channels)
            filters = typed(float32, transform.points, strips_of(outputs), channels, STRIP)
            found.append(Sample((data, filters), {"tile": tile, "before": before, "size": size, "channels": outputs},
                                special=False))
    return found


def _flops(in_types: Sequence[TensorType], out_types: Sequence[TensorType], attrs: Mapping[str, Any]) -> Size:
    """Two for each multiply-add of the products; the transforms are left out."""
    transform = TRANSFORMS[attrs["tile"]]
    height, width = attrs["size"]
    tiles = -(-height // transform.tile) * -(-width // transform.tile)
    each: int = 2 * transform.points * tiles * attrs["channels"]
    return in_types[0].shape[0] * in_types[0].shape[3] * each


register(Op(
    name="WinogradConvolution", kind=Kind.CONTRACTION, inputs=("input", "filter"),
    attrs={"tile": REQUIRED, "before": REQUIRED, "size": REQUIRED, "channels": REQUIRED},
    infer=_infer, gradient=_LATER, reference=_reference, lower=Staged(_body), samples=_samples, flops=_flops,
    doc="Convolution of stride 1 with filters of WinogradFilter, NHWC; before: zeros above and to the left; size: "
        "height and width of the result; channels: its channels."))
