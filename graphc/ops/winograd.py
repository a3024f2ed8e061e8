"""Convolution by minimal filtering: 3 x 3 filters of stride 1, transformed filters as a value of their own.

Owns the ops WinogradFilter and WinogradConvolution and the kernels that they are; kernel/winograd.py has the matrices.
A graph never holds these ops: a pass puts them where they win (passes/convolution.py).  Invariant: a block of tiles is
one iteration of the outer loop, with scratch of its own; tiles are numbered through all images, so that blocks are full
however small the images are.

    for each block of tiles                                 and each part of the output channels, where blocks are few
      for each tile, for each channel                       v = data * window * data^T
      for each of the 16 or 36 products                     s = v x u, a product of matrices: tiles by channels
      for each tile, for each output channel                output * s * output^T, then bias, activation, residual ...

Output channels of the transformed filters lie in strips of a cache line each: u[strip, product, channel, lane].  A row
of zeros behind the channels keeps the products apart in the cache: filters have powers of two of everything.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import float32
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import PartialType, TensorType
from graphc.kernel.ir import Axis, Contract, Expr, For, If, Load, Local, Stmt, Store, Var, const, index
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
from graphc.ops.winograd_tiles import (
    STRIP,
    UNIT,
    Cover,
    Grid,
    add,
    binder,
    both,
    floats,
    grid_of,
    locate,
    loop,
    strips_of,
    times,
    transformed,
    windows_of,
)

MOST = 24  # the most tiles of a block are a multiple of it, which the heights of the usual register tiles divide
SCRATCH = 640 << 10  # bytes of scratch that a block aims at: it stays in the second-level cache beside the filters
WIDEST = 4 * MOST  # tiles of a block at most
ITEMS = 16  # blocks that are worth having, so that threads can share them
FEWEST = 12  # tiles that a block is not cut below to have so many; twice that where all of its filters come from afar
NEAR = 768 << 10  # bytes of transformed filters that stay in the second-level cache

_LATER = NoGradient("it takes the place of a convolution after differentiation")


# -- the filters ------------------------------------------------------------------------------------------------------


def _filter_infer(ctx: Inference) -> Sequence[PartialType]:
    (w,) = ctx.inputs
    check_same_dtype(ctx, (w,), (float32,))
    require_rank(ctx, w.shape, 4, "filter", 4)
    transform = TRANSFORMS[ctx.attrs["tile"]]
    if w.shape is None:
        return [PartialType(float32, None)]
    inner, outer = w.shape[3:1:-1] if ctx.attrs["turned"] else w.shape[2:]
    return [PartialType(float32, (dim.ceildiv(outer, STRIP), transform.points, inner + 1, STRIP))]


def _filter_reference(call: Call) -> Any:
    (w,) = call.arrays
    g = floats(TRANSFORMS[call.attrs["tile"]].filter)
    if call.attrs["turned"]:
        w = w[::-1, ::-1].swapaxes(2, 3)
    u = np.einsum("ai,bj,ijco->abco", g, g, w)
    u = u.reshape(-1, *u.shape[2:])
    u = np.pad(u, ((0, 0), (0, 1), (0, -u.shape[2] % STRIP)))
    return np.ascontiguousarray(u.reshape(*u.shape[:2], -1, STRIP).transpose(2, 0, 1, 3))


def _filter_body(r: Routine) -> tuple[Stmt, ...]:
    """Lanes run along the strip, the output channels, which lie side by side in the filter too, unless it is turned."""
    transform, turned = TRANSFORMS[r.attrs["tile"]], r.attrs["turned"]
    (strips, _, rows, _), shape = r.out_types[0].shape, r.in_types[0].shape
    inner, outer = shape[3:1:-1] if turned else shape[2:]
    strip, channel, lane = (Axis(r.fresh(stem)) for stem in ("q", "c", "e"))
    out = add(times(strip, STRIP), lane)
    inside = [prim("lt", channel, size_of(inner)), *([prim("lt", out, size_of(outer))] if outer % STRIP != 0 else [])]
    lets, bind = binder(r.fresh)

    def weight(i: int, j: int) -> Expr:
        at = (index(TAPS - 1 - i), index(TAPS - 1 - j), out, channel) if turned else (index(i), index(j), channel, out)
        return Load(r.input(0), at, float32, both(inside), const(0, float32))

    for a, row in enumerate(sandwich(transform.filter, weight, bind)):
        lets += [Store(r.output(0), (strip, index(a * transform.reach + b), channel, lane), value)
                 for b, value in enumerate(row)]
    return (loop(strip, strips, loop(channel, rows, loop(lane, STRIP, *lets))),)


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
    """How tiles are cut into blocks.

    most: tiles of a block at most; rows: of each block but the last one, as even as units allow.  strips: of all output
    channels; part: of a block.
    """

    grid: Grid
    most: int
    rows: Size
    strips: int
    part: Size

    @property
    def blocks(self) -> Size:
        return dim.ceildiv(self.grid.count, self.rows)

    @property
    def parts(self) -> Size:
        return dim.ceildiv(self.strips, self.part)


def tiles_of(transform: Transform, images: Size, height: int, width: int, channels: int, outputs: int) -> Tiles:
    """Return the blocks of a convolution with an output of this size.

    A block is as large as its scratch allows, and smaller where there would be few of them; where that does not give
    work for several threads either, the output channels are cut too, and each part transforms the data again.
    """
    grid, strips = grid_of(images, (height, width), transform.tile), strips_of(outputs)
    count = grid.count
    each = transform.points * 4 * (channels + (strips + 2) * STRIP)
    most = min(WIDEST, max(MOST, SCRATCH // each // MOST * MOST))
    fewest = FEWEST if transform.points * channels * strips * STRIP * 4 <= NEAR else 2 * FEWEST
    blocks = dim.maximum(1, dim.maximum(dim.ceildiv(count, most), dim.minimum(ITEMS, dim.floordiv(count, fewest))))
    rows = dim.ceildiv(dim.ceildiv(count, blocks), UNIT) * UNIT
    rows = dim.maximum(rows, UNIT)
    if isinstance(rows, int) and isinstance(count, int):
        rows = min(rows, max(count, 1))
    part: Size = strips
    if strips >= 8:
        wanted = dim.minimum(strips // 4, dim.floordiv(ITEMS, dim.maximum(1, dim.ceildiv(count, rows))))
        part = dim.ceildiv(strips, dim.maximum(1, wanted) * 2) * 2
    return Tiles(grid, most, rows, strips, part)


def _infer(ctx: Inference) -> Sequence[PartialType]:
    x, u = ctx.inputs
    check_same_dtype(ctx, (x, u), (float32,))
    require_rank(ctx, x.shape, 4, "input", 4)
    require_rank(ctx, u.shape, 4, "filter", 4)
    if x.shape is None or u.shape is None:
        return [PartialType(float32, None)]
    ctx.equal(x.shape[3] + 1, u.shape[2], f"the input has {x.shape[3]} channels, the filters have {u.shape[2]} - 1")
    return [PartialType(float32, (x.shape[0], *ctx.attrs["size"], ctx.attrs["channels"]))]


def _reference(call: Call) -> Any:
    x, u = call.arrays
    transform = TRANSFORMS[call.attrs["tile"]]
    (height, width), outputs, side = call.attrs["size"], call.attrs["channels"], transform.tile
    data, output = floats(transform.data), floats(transform.output)
    v = np.einsum("ai,bj,tcij->abtc", data, data, windows_of(x, transform, (height, width), call.attrs["before"]))
    filters = u[:, :, :-1].transpose(1, 2, 0, 3).reshape(transform.reach, transform.reach, x.shape[3], -1)
    filters = filters[..., :outputs]
    y = np.einsum("ia,jb,abto->tijo", output, output, np.einsum("abtc,abco->abto", v, filters))
    down, across = -(-height // side), -(-width // side)
    y = y.reshape(x.shape[0], down, across, side, side, outputs).swapaxes(2, 3)
    return y.reshape(x.shape[0], down * side, across * side, outputs)[:, :height, :width]


def _body(s: Stages) -> tuple[Stmt, ...]:
    transform = TRANSFORMS[s.attrs["tile"]]
    images, *size, channels = s.in_types[0].shape
    (height, width), outputs = s.attrs["size"], s.attrs["channels"]
    assert isinstance(size[0], int) and isinstance(size[1], int) and isinstance(channels, int)
    t = tiles_of(transform, images, height, width, channels, outputs)
    block, part = Axis(s.fresh("b")), Axis(s.fresh("q"))
    start = prim("mul", block, size_of(t.rows))
    rows = prim("min", size_of(t.rows), prim("sub", size_of(t.grid.count), start))
    first = prim("mul", part, size_of(t.part)) if t.strips >= 8 else index(0)
    strips: Expr = index(t.strips)
    if t.strips >= 8:
        strips = prim("min", prim("min", size_of(t.part), prim("sub", strips, first)), strips)
    # A tile for each point, row by row; a cache line to spare keeps the points of one tile apart in the cache.
    v, m = (Local(s.fresh(stem), float32, (transform.points, t.most * row + STRIP), "block")
            for stem, row in (("v", channels), ("m", t.strips * STRIP)))
    cover = Cover(transform.data, (size[0], size[1]), channels, s.attrs["before"], lambda at, ok: s.load(0, at, ok))
    body: tuple[Stmt, ...] = (
        v, m, transformed(s.fresh, t.grid, cover, v.name, channels, start, rows),
        _multiply(s, transform, t, v.name, m.name, rows, first, strips),
        _scatter(s, transform, t, m.name, start, rows, first, strips))
    if t.strips >= 8:
        body = (loop(part, t.parts, *body),)
    return (loop(block, t.blocks, *body),)


def _multiply(s: Stages, transform: Transform, t: Tiles, v: str, m: str, rows: Expr, first: Expr,
              strips: Expr) -> Stmt:
    """The second stage: one product of matrices per point of the transform."""
    point, row, strip, lane, channel = (Axis(s.fresh(stem)) for stem in ("p", "t", "s", "e", "k"))
    channels, acc = s.in_types[0].shape[3], s.fresh("sum")
    assert isinstance(channels, int)
    return Contract(
        ((point.name, index(transform.points)),), ((row.name, rows),),
        ((strip.name, strips), (lane.name, index(STRIP))), ((channel.name, size_of(channels)),),
        Load(v, (point, add(times(row, channels), channel)), float32),
        s.load(1, (add(first, strip), point, channel, lane)), acc, float32,
        (Store(m, (point, _sum_at(t, row, strip, lane)), Var(acc, float32)),))


def _sum_at(t: Tiles, row: Expr, strip: Expr, lane: Expr) -> Expr:
    """Return where the sum of a tile and an output channel lies, for each point."""
    return add(add(times(row, t.strips * STRIP), times(strip, STRIP)), lane)


def _scatter(s: Stages, transform: Transform, t: Tiles, sums: str, start: Expr, rows: Expr, first: Expr,
             strips: Expr) -> Stmt:
    """The third stage: the sums transformed back, and what follows them."""
    (height, width), outputs, side = s.attrs["size"], s.attrs["channels"], transform.tile
    number, strip, lane = (Axis(s.fresh(stem)) for stem in ("t", "s", "e"))
    tile, statements = locate(s.fresh, t.grid, add(start, number))
    channel = add(times(add(first, strip), STRIP), lane)
    lets, bind = binder(s.fresh)

    def element(i: int, j: int) -> Expr:
        return Load(sums, (index(i * transform.reach + j), _sum_at(t, number, strip, lane)), float32)

    values = list(sandwich(transform.output, element, bind))
    ys, xs = ([add(times(place, side), index(i)) for i in range(side)] for place in (tile.down, tile.across))
    points = [(i, j) for i in range(side) for j in range(side)]
    shared, each = s.finish([((tile.image, ys[i], xs[j], channel), values[i][j]) for i, j in points])
    after: list[Stmt] = list(shared)
    for i in range(side):
        row: list[Stmt] = []
        for j in range(side):
            row += _where(_unless_certain(xs[j], j, t.grid.across, side, width), each[i * side + j])
        after += _where(_unless_certain(ys[i], i, t.grid.down, side, height), row)
    inside = prim("lt", channel, index(outputs)) if outputs % STRIP else None
    body = loop(lane, STRIP, *lets, *_where(inside, after))
    return For(number.name, rows, (*statements, For(strip.name, strips, (body,), True)), True)


def _unless_certain(place: Expr, i: int, tiles: int, tile: int, size: int) -> Expr | None:
    """Return the condition that an output is one, None where all tiles have it."""
    return prim("lt", place, index(size)) if (tiles - 1) * tile + i >= size else None


def _where(condition: Expr | None, body: Sequence[Stmt]) -> list[Stmt]:
    """Return statements to run where a condition holds, None for everywhere."""
    return list(body) if condition is None else [If(condition, tuple(body))]


# -- samples ----------------------------------------------------------------------------------------------------------


def _samples() -> list[Sample]:
    found = []
    for tile, transform in TRANSFORMS.items():
        for n, size, channels, outputs, before in (
                (2, (6, 7), 3, 5, (1, 1)), (1, (4, 4), 16, 32, (1, 1)), (3, (13, 9), 4, 16, (0, 0)),
                (1, (1, 1), 1, 1, (1, 1)), (0, (8, 8), 3, 4, (1, 1)), (2, (9, 14), 5, 130, (2, 2))):
            data = typed(float32, n, *(max(1, size[d] + TAPS - 1 - 2 * before[d]) for d in (0, 1)), channels)
            filters = typed(float32, strips_of(outputs), transform.points, channels + 1, STRIP)
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
