"""The gradient of a convolution for its filters by minimal filtering: 3 x 3 filters, stride 1.

Owns the op WinogradFilterGradient and the kernel that it is.  A convolution is output^T ((filter g) * (data d)), each
matrix applied from both sides, so its gradient for g is filter^T ((output dy) * (data d)): the same matrices, their
transposes, and one sum over all tiles in between.  A graph never holds this op: a pass puts it where it wins
(passes/convolution.py).  Invariant: the sums are added in `PARTS` parts, whose tiles depend on the sizes alone.

    for each part, by itself                                what it adds up stays in scratch, m
      for each block of its tiles
        for each tile, for each channel                     v = data * window * data^T
        for each tile, for each output channel              d = output^T * dy * output
        for each of the 16 or 36 products                   m += v^T x d, a product of matrices: channels by channels
      for each channel and output channel                   filter^T * m * filter

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4; the gradient is the
transposition of its algorithm.
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
from graphc.kernel.winograd import TAPS, TRANSFORMS, Transform, sandwich, transposed
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
    register,
)
from graphc.ops.rules import check_same_dtype, require_rank, typed
from graphc.ops.winograd_tiles import (
    STRIP,
    UNIT,
    Cover,
    Grid,
    Read,
    add,
    binder,
    floats,
    grid_of,
    loop,
    strips_of,
    times,
    transformed,
    windows_of,
)

PARTS = 8  # sums that are added by themselves: what threads share, and what is added again afterwards
PANEL = 8  # channels come in multiples of it: the rows of the lowest register tile
SCRATCH = 896 << 10  # bytes of scratch that a part aims at
MOST, WIDEST = 24, 96  # tiles of a block at most: bounds of what the scratch allows


@dataclass(frozen=True, slots=True)
class Parts:
    """How tiles are cut into blocks, and blocks into parts.

    pitch: channels of the data with those that fill a panel.  width: output channels with those that fill a strip.
    most: tiles of a block at most; rows: of each block but the last one; each: blocks of each part but the last ones.
    """

    grid: Grid
    pitch: int
    width: int
    most: int
    rows: Size
    each: Size

    @property
    def blocks(self) -> Size:
        return dim.ceildiv(self.grid.count, self.rows)


def parts_of(transform: Transform, images: Size, size: tuple[int, int], channels: int, outputs: int) -> Parts:
    """Return the blocks and parts for a result of `size` of the convolution."""
    grid = grid_of(images, size, transform.tile)
    pitch, width = -(-channels // PANEL) * PANEL, strips_of(outputs) * STRIP
    point = transform.points * 4
    room = (SCRATCH - point * pitch * width) // (point * (pitch + width))
    most = min(WIDEST, max(MOST, room // MOST * MOST))
    blocks = dim.maximum(1, dim.maximum(dim.ceildiv(grid.count, most), dim.minimum(PARTS, grid.count // MOST)))
    rows = dim.maximum(dim.ceildiv(dim.ceildiv(grid.count, blocks), UNIT) * UNIT, UNIT)
    return Parts(grid, pitch, width, most, rows, dim.ceildiv(dim.ceildiv(grid.count, rows), PARTS))


def _infer(ctx: Inference) -> Sequence[PartialType]:
    x, dy = ctx.inputs
    check_same_dtype(ctx, (x, dy), (float32,))
    require_rank(ctx, x.shape, 4, "input", 4)
    require_rank(ctx, dy.shape, 4, "out_backprop", 4)
    if x.shape is None or dy.shape is None:
        return [PartialType(float32, None)]
    ctx.equal(x.shape[0], dy.shape[0], f"the input has {x.shape[0]} images, out_backprop {dy.shape[0]}")
    return [PartialType(float32, (PARTS, TAPS, TAPS, x.shape[3], dy.shape[3]))]


def _reference(call: Call) -> Any:
    x, dy = call.arrays
    transform = TRANSFORMS[call.attrs["tile"]]
    n, height, width, outputs = dy.shape
    parts = parts_of(transform, n, (height, width), x.shape[3], outputs)
    data, output, back = (floats(m) for m in (transform.data, transform.output, transform.filter))
    v = np.einsum("ai,bj,tcij->tabc", data, data, windows_of(x, transform, (height, width), call.attrs["before"]))
    d = np.einsum("ia,jb,toij->tabo", output, output, windows_of(dy, transform, (height, width), (0, 0),
                                                                 transform.tile))
    found = np.zeros((PARTS, TAPS, TAPS, x.shape[3], outputs), x.dtype)
    step = int(parts.rows) * int(parts.each)
    for part in range(PARTS if n else 0):
        tiles = slice(part * step, (part + 1) * step)
        sums = np.einsum("tabc,tabo->abco", v[tiles], d[tiles])
        found[part] = np.einsum("ai,bj,abco->ijco", back, back, sums)
    return found


def _body(r: Routine) -> tuple[Stmt, ...]:
    transform = TRANSFORMS[r.attrs["tile"]]
    (images, *size, channels), (_, *result, outputs) = r.in_types[0].shape, r.in_types[1].shape
    assert all(isinstance(n, int) for n in (*size, *result, channels, outputs))
    height, width, channels, outputs = (int(n) for n in (*result, channels, outputs))
    p = parts_of(transform, images, (height, width), channels, outputs)
    part, block = Axis(r.fresh("q")), Axis(r.fresh("b"))
    data = Cover(transform.data, (int(size[0]), int(size[1])), channels, r.attrs["before"], _reads(r, 0))
    gradient = Cover(transposed(transform.output), (height, width), outputs, (0, 0), _reads(r, 1))
    # A cache line to spare keeps the points of one tile apart in the cache.
    v, d, m = (Local(r.fresh(stem), float32, (transform.points, n + STRIP), "block")
               for stem, n in (("v", p.most * p.pitch), ("d", p.most * p.width), ("m", p.pitch * p.width)))
    number = add(prim("mul", part, size_of(p.each)), block)
    start = prim("mul", number, size_of(p.rows))
    rows = prim("min", size_of(p.rows), prim("sub", size_of(p.grid.count), start))
    blocks = prim("min", size_of(p.each), prim("sub", size_of(p.blocks), prim("mul", part, size_of(p.each))))
    return (loop(part, PARTS, v, d, m, _cleared(r, transform, p, m.name), For(block.name, blocks, (
        transformed(r.fresh, p.grid, data, v.name, p.pitch, start, rows),
        transformed(r.fresh, p.grid, gradient, d.name, p.width, start, rows),
        _multiply(r, transform, p, channels, v.name, d.name, m.name, rows))),
        _finish(r, transform, p, m.name, part)),)


def _reads(r: Routine, i: int) -> Read:
    def read(at: tuple[Expr, ...], inside: Expr | None) -> Expr:
        return Load(r.input(i), at, float32, inside, None if inside is None else const(0, float32))
    return read


def _cleared(r: Routine, transform: Transform, p: Parts, m: str) -> Stmt:
    point, at = Axis(r.fresh("p")), Axis(r.fresh("c"))
    return loop(point, transform.points, loop(at, p.pitch * p.width, Store(m, (point, at), const(0, float32))))


def _multiply(r: Routine, transform: Transform, p: Parts, channels: int, v: str, d: str, m: str, rows: Expr) -> Stmt:
    """One product of matrices per point of the transform, over the tiles of a block, added to `m`."""
    point, channel, strip, lane, tile = (Axis(r.fresh(stem)) for stem in ("p", "c", "s", "e", "k"))
    column = add(times(strip, STRIP), lane)
    at = (point, add(times(channel, p.width), column))
    total = Var(r.fresh("sum"), float32)
    return Contract(
        ((point.name, index(transform.points)),), ((channel.name, index(channels)),),
        ((strip.name, index(p.width // STRIP)), (lane.name, index(STRIP))), ((tile.name, rows),),
        Load(v, (point, add(times(tile, p.pitch), channel)), float32),
        Load(d, (point, add(times(tile, p.width), column)), float32), total.name, float32,
        (Store(m, at, prim("add", Load(m, at, float32), total)),))


def _finish(r: Routine, transform: Transform, p: Parts, m: str, part: Expr) -> Stmt:
    """The sums of a part, transformed to filters."""
    channels, outputs = r.out_types[0].shape[3:]
    channel, strip, lane = (Axis(r.fresh(stem)) for stem in ("c", "s", "e"))
    out = add(times(strip, STRIP), lane)
    lets, bind = binder(r.fresh)

    def element(i: int, j: int) -> Expr:
        return Load(m, (index(i * transform.reach + j), add(times(channel, p.width), out)), float32)

    stores = [Store(r.output(0), (part, index(i), index(j), channel, out), value)
              for i, row in enumerate(sandwich(transposed(transform.filter), element, bind))
              for j, value in enumerate(row)]
    whole = outputs == p.width
    body = (*lets, *stores) if whole else (*lets, If(prim("lt", out, size_of(outputs)), tuple(stores)))
    return loop(channel, channels, loop(strip, p.width // STRIP, loop(lane, STRIP, *body)))


def _samples() -> list[Sample]:
    found = []
    for tile in TRANSFORMS:
        for n, size, channels, outputs, before in (
                (2, (6, 7), 3, 5, (1, 1)), (1, (4, 4), 16, 32, (1, 1)), (3, (13, 9), 4, 16, (0, 0)),
                (1, (1, 1), 1, 1, (1, 1)), (0, (8, 8), 3, 4, (1, 1)), (17, (9, 14), 5, 33, (2, 2))):
            data = typed(float32, n, *(max(1, size[d] + TAPS - 1 - 2 * before[d]) for d in (0, 1)), channels)
            found.append(Sample((data, typed(float32, n, *size, outputs)), {"tile": tile, "before": before},
                                special=False))
    return found


def _flops(in_types: Sequence[TensorType], out_types: Sequence[TensorType], attrs: Mapping[str, Any]) -> Size:
    """Two for each multiply-add of the products; the transforms are left out."""
    transform = TRANSFORMS[attrs["tile"]]
    images, height, width, outputs = in_types[1].shape
    tiles = dim.ceildiv(height, transform.tile) * dim.ceildiv(width, transform.tile)
    return images * tiles * in_types[0].shape[3] * outputs * (2 * transform.points)


register(Op(
    name="WinogradFilterGradient", kind=Kind.CONTRACTION, inputs=("input", "out_backprop"),
    attrs={"tile": REQUIRED, "before": REQUIRED}, infer=_infer,
    gradient=NoGradient("it takes the place of a convolution's gradient after differentiation"), reference=_reference,
    lower=RoutineBody(_body), samples=_samples, flops=_flops,
    doc=f"The gradient of a convolution of stride 1 for its 3 x 3 filters, NHWC, in {PARTS} parts to be added; before: "
        "the zeros above and to the left of the input."))
