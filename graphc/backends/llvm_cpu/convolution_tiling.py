"""How a convolution is cut: which positions and channels one tile, one patch and one work item cover.

Owns the decisions about a `Contract` with windows (window.py), as data; convolution.py turns them into code.  Knows
kernel IR and the Target; emits nothing.  Invariants: every decision is a function of the kernel and the target alone,
and every block size one of the sizes, never of the number of threads; the work items are blocks of the output, so they
store disjointly.
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphc import dtypes
from graphc.backends.llvm_cpu.correlation_tiling import Correlation, correlation
from graphc.backends.llvm_cpu.microkernel import Tile
from graphc.backends.llvm_cpu.patch import is_zero
from graphc.backends.llvm_cpu.tiling import (
    Range,
    Way,
    computing,
    epilogue_axis,
    merged,
    right_of,
    size_of,
    stride,
    without_units,
)
from graphc.backends.llvm_cpu.window import (
    Patch,
    Term,
    Window,
    bounds_of,
    channel_of,
    known,
    patch_of,
    phased,
    split,
    windows_of,
)
from graphc.backends.llvm_cpu.window_kernel import SHORT, Footprint
from graphc.dtypes import DType
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Contract, Expr, Kernel, Load
from graphc.kernel.primitives import cast
from graphc.kernel.target import Target

ITEMS = 24  # items that are worth having: eight threads can share them evenly
IMAGE_ITEMS = 16  # items that one image is cut into, where they are worth it
ITEM_CYCLES = 16000  # what a block of positions should take at least
TALL = 24  # rows of a tile at most
WIDE = 8  # vectors of a planar tile at most
FEW = 8  # products per element of B that keep the adders busy


@dataclass(frozen=True, slots=True)
class Gather:
    """A convolution whose free axes are positions: the sum of a small window under each of many places.

    The tile's rows are positions, `tile_rows` lines of them (along the last window but one) by `tall` or `tall - 1`
    along the last; its columns are output channels; the whole depth is added in registers.  images: the axis that is
    stepped together with blocks of positions; outer: what else is outside of the tile.  line_block, place_block:
    positions of a block along the two windows.  pitch: elements from one coordinate of the last window to the next in
    the patch.  merges: taps of the last window and channels are one run.  limits: for each window the terms that end
    its taps early (phases of a strided gradient).  reads_filter: B is
    read where it lies, but for a ragged last panel; else it is packed.  group: blocks of positions per item.
    """

    tile: Tile
    dtype: DType
    windows: tuple[Window, ...]
    patch: Patch
    is_planar: bool
    channels: int
    pitch: int
    images: Range
    outer: tuple[Range, ...]
    columns: Range
    right: Expr
    right_way: Way
    limits: tuple[tuple[Term, ...], ...]
    body: walk.Block
    along: Range | None
    tile_lines: int
    tall: int
    line_block: int
    place_block: int
    column_block: int
    reads_filter: bool
    group: Size

    @property
    def last(self) -> Window:
        return self.windows[-1]

    @property
    def line(self) -> Window | None:
        return self.windows[-2] if len(self.windows) > 1 else None

    @property
    def lines(self) -> int:
        return self.line.frees if self.line is not None else 1

    @property
    def line_axis(self) -> Range:
        return self.line.free if self.line is not None else Range(None, 1)

    @property
    def turns_tile(self) -> bool:
        """Whether the epilogue's lanes run along the positions."""
        return self.along is not None and self.along == self.last.free

    @property
    def skipped(self) -> tuple[Term, ...]:
        """The terms of the lines of the patch, where taps on lines that are padding are not added: a tile has one line,
        and the taps of a line follow each other."""
        if self.line is None or len(self.windows) != 2 or self.tile_lines != 1 or not is_zero(self.patch.outside):
            return ()
        axis, others = self.line.axis, {self.last.axis, self.patch.channel.name}
        return tuple(t for t in self.patch.terms
                     if t.slope(axis) in (-1, 1) and not others & walk.free_axes(t.expr))

    @property
    def place_pitch(self) -> int:
        """Elements of the patch from one position to the next."""
        return self.patch_strides[-1] * self.last.free_step

    @property
    def line_pitch(self) -> int:
        return self.patch_strides[-2] * self.line.free_step if self.line is not None else 0

    @property
    def merges(self) -> bool:
        if self.is_planar:
            return abs(self.last.summed_step) == 1 and self.channels == 1
        return abs(self.last.summed_step) == 1 and self.pitch == self.channels

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Coordinates of the patch, one count per window."""
        beyond = [w.summeds for w in self.windows[:-2]]
        line = [self.line.span(self.line_block, self.line.summeds)] if self.line is not None else []
        return (*beyond, *line, self.last.span(self.place_block, self.last.summeds))

    @property
    def patch_strides(self) -> tuple[int, ...]:
        """Elements of the patch per coordinate of each window."""
        shape = self.patch_shape
        if self.is_planar:
            lines = self.channels * self.pitch
            return (*(math.prod(shape[i + 1:-1]) * lines for i in range(len(shape) - 1)), 1)
        return tuple(math.prod(shape[i + 1:]) * self.pitch for i in range(len(shape)))

    @property
    def patch_size(self) -> int:
        """Elements of the patch, and of what its last tile reads behind it."""
        if self.is_planar:
            return math.prod(self.patch_shape[:-1]) * self.channels * self.pitch + self.tall + self.last.summeds \
                * abs(self.last.summed_step) + (self.tile_lines - 1) * self.line_pitch
        return (math.prod(self.patch_shape) + self.tall * self.last.free_step) * self.pitch \
            + (self.tile_lines - 1) * self.line_pitch

    @property
    def filters(self) -> int:
        """Rows of a planar tile."""
        return known(self.columns) if self.is_planar else 0

    @property
    def tile_size(self) -> int:
        return self.tile_lines * self.tall * (self.filters or self.tile.columns)

    @property
    def taps(self) -> int:
        return int(dim.product(w.summeds for w in self.windows))

    @property
    def depth(self) -> int:
        return self.taps * self.channels

    @property
    def line_blocks(self) -> int:
        return -(-self.lines // self.line_block)

    @property
    def place_blocks(self) -> int:
        return -(-self.last.frees // self.place_block)

    @property
    def blocks(self) -> Size:
        """Blocks of positions, of all images."""
        return self.images.extent * (self.line_blocks * self.place_blocks)

    @property
    def column_blocks(self) -> int:
        return -(-int(self.columns.extent) // self.column_block)

    @property
    def groups(self) -> Size:
        return dim.ceildiv(self.blocks, self.group)

    @property
    def items(self) -> Size:
        return dim.product(axis.extent for axis in self.outer) * self.column_blocks * self.groups

    def footprint(self, places: int) -> Footprint:
        """Return where a tile of `places` positions along the last window reads the patch."""
        apart = self.tile.lanes if self.is_planar else 1
        rows = tuple(i * self.line_pitch + j * self.place_pitch for i in range(self.tile_lines)
                     for j in range(0, places, apart))
        run = self.last.summeds * self.channels if self.merges else self.channels
        fixed = run <= SHORT and not (self.merges and self.limits[-1])
        step = self.pitch if self.is_planar and not self.merges else 1
        return Footprint(rows, step, run if fixed else None)


def convolution(kernel: Kernel, statement: Contract, target: Target) -> Gather | Correlation | None:
    """Return how `statement`, the work of `kernel`, is cut for `target`; None where it is no convolution."""
    contract = without_units(statement)
    if not windows_of(contract) and not phased(contract)[1]:
        return None
    contract = merged(kernel, contract, ("n",))
    if len(contract.n) > 1:  # phases that the input does not know
        contract = replace(contract, batch=(*contract.batch, *contract.n[:-1]), n=contract.n[-1:])
    windows = windows_of(contract)
    if not windows:
        contract, windows = phased(contract)
    if not windows or len(contract.n) > 1 or 0 in (n for w in windows for n in (w.frees, w.summeds)):
        return None
    m, k = _others(contract.m, windows), _others(contract.k, windows)
    if math.prod(w.frees for w in windows) < math.prod(w.summeds for w in windows):
        return _correlation(kernel, contract, target, windows, m, k)
    return _gather(kernel, contract, target, windows, m, k)


def _correlation(kernel: Kernel, contract: Contract, target: Target, windows: tuple[Window, ...],
                 m: tuple[Range, ...], k: tuple[Range, ...]) -> Correlation | None:
    dtype = computing(contract.acc_dtype)
    element = {dtypes.float32: "float", dtypes.float64: "double", dtypes.int32: "i32", dtypes.int64: "i64"}[dtype]
    left, right = (cast(cast(e, contract.acc_dtype), dtype) for e in (contract.a, contract.b))
    channel = channel_of(kernel, left, m)
    columns = Range(contract.n[0][0], size_of(contract.n[0][1])) if contract.n else Range(None, 1)
    if not isinstance(channel.extent, int) or 0 in (columns.extent, channel.extent):
        return None
    outer = (*(Range(name, size_of(extent)) for name, extent in contract.batch), *(x for x in m if x != channel))
    patch = patch_of(kernel, left, windows, channel)
    limits: tuple[Term, ...] = ()
    if k and is_zero(patch.outside):  # images beyond the last one of a part are zero, and need not be added
        limits = bounds_of(patch.terms, k[0].name, frozenset(name for name, _ in contract.batch))
        patch = replace(patch, terms=tuple(t for t in patch.terms if t not in limits))
        terms, inside, _ = split(right)
        right = inside if set(terms) <= set(limits) else right
    right, way = right_of(kernel, right, columns, windows[-1].summed)
    return correlation(
        kernel, target, (element, target.vector_bits // (8 * dtype.size), dtype.size), windows, patch, channel.extent,
        k, limits, outer, columns, right, way, contract.body)


def _others(axes: Iterable[tuple[str, Expr]], windows: tuple[Window, ...]) -> tuple[Range, ...]:
    """Return the axes that are in no window."""
    taken = {axis.name for w in windows for axis in (w.free, w.summed)}
    return tuple(Range(name, size_of(extent)) for name, extent in axes if name not in taken)


def _gather(kernel: Kernel, contract: Contract, target: Target, windows: tuple[Window, ...], m: tuple[Range, ...],
            k: tuple[Range, ...]) -> Gather | None:
    dtype = computing(contract.acc_dtype)
    element = {dtypes.float32: "float", dtypes.float64: "double", dtypes.int32: "i32", dtypes.int64: "i64"}[dtype]
    lanes = target.vector_bits // (8 * dtype.size)
    none = Range(None, 1)
    columns = Range(contract.n[0][0], size_of(contract.n[0][1])) if contract.n else none
    if len(k) > 1 or not all(isinstance(axis.extent, int) for axis in k):
        return None
    if not isinstance(columns.extent, int) or 0 in (columns.extent, *(axis.extent for axis in k)):
        return None
    left, right = (cast(cast(e, contract.acc_dtype), dtype) for e in (contract.a, contract.b))
    channel = channel_of(kernel, left, k)
    channels = channel.extent
    assert isinstance(channels, int)
    limits, right = _limits(right, windows, frozenset(name for name, _ in contract.batch))
    right, way = right_of(kernel, right, columns, channel)
    last, line = windows[-1], windows[-2] if len(windows) > 1 else None
    lines = line.frees if line is not None else 1
    patch = patch_of(kernel, left, windows, channel)
    is_planar = _is_planar(columns.extent, last, lanes, patch)
    shape = _planar_tile if is_planar else _tile
    tile_lines, tall, vectors = shape(target, lanes, columns.extent, last.frees, lines)
    tile = Tile(element, lanes, tall * tile_lines, 0, vectors)
    size = dtype.size
    taps = int(dim.product(w.summeds for w in windows))
    depth = taps * channels
    # Columns of an item: what of B stays in the second-level cache.
    width = max(tile.columns, target.l2 * 5 // 8 // (depth * size) // tile.columns * tile.columns)
    column_blocks = -(-columns.extent // width)
    column_block = -(-columns.extent // (column_blocks * tile.columns)) * tile.columns
    column_blocks = -(-columns.extent // column_block)
    # Positions of a block: a share of the image, its patch in half of the second-level cache.
    place_block, room = last.frees, target.l2 // (2 * size)
    beyond = int(dim.product(w.summeds for w in windows[:-2]))
    while place_block > 2 * tall and last.span(place_block, last.summeds) * channels * beyond \
            * (line.summeds if line is not None else 1) > room:
        place_block = -(-(place_block // 2) // tall) * tall
    row = last.span(place_block, last.summeds) * channels * beyond
    cycles = last.frees * depth * column_block / (2 * lanes)
    line_block = max(-(-lines // max(1, IMAGE_ITEMS // column_blocks)), -(-ITEM_CYCLES // int(cycles + 1)), tile_lines)
    line_block = min(lines, -(-line_block // tile_lines) * tile_lines)
    while line is not None and line_block > tile_lines and line.span(line_block, line.summeds) * row > room:
        line_block -= tile_lines
    line_block = -(-lines // -(-lines // line_block))
    line_block = -(-line_block // tile_lines) * tile_lines
    images = m[-1] if m else none
    outer = (*(Range(name, size_of(extent)) for name, extent in contract.batch), *m[:-1],
             *(w.free for w in windows[:-2]))
    pitch = -(-channels // lanes) * lanes if patch.is_turned else channels
    if is_planar:  # a vector behind each line may be overwritten
        pitch = (-(-last.span(place_block, last.summeds) // lanes) + 1) * lanes
    blocks = images.extent * (-(-lines // line_block) * -(-last.frees // place_block))
    others = dim.product(axis.extent for axis in outer) * column_blocks
    return Gather(
        tile, dtype, windows, patch, is_planar, channels, pitch, images, outer, columns, right, way, limits,
        contract.body, epilogue_axis(kernel, contract.body, last.free, columns), tile_lines, tall, line_block,
        place_block, column_block,
        _lies_in_order(kernel, right, way, windows, limits, channel, tile.columns),
        dim.maximum(1, blocks * others // ITEMS))


def _lies_in_order(kernel: Kernel, right: Expr, way: Way, windows: tuple[Window, ...],
                   limits: tuple[tuple[Term, ...], ...], channel: Range, width: int) -> bool:
    """Whether operand b lies as if it were packed: all taps and channels in their order, `width` elements apart."""
    if way is not Way.DIRECT or not isinstance(right, Load) or any(limits):
        return False
    expected: Size | None = None
    for axis in (channel, *(w.summed for w in reversed(windows))):
        if axis.name is None:
            continue
        step = stride(kernel, right, axis)
        if step is None or step != (width if expected is None else expected):
            return False
        expected = step * axis.extent
    return all(w.summed_step > 0 for w in windows)


def _tile(target: Target, lanes: int, filters: int, places: int, lines: int) -> tuple[int, int, int]:
    """Return lines, positions along the last window, and vectors of output channels of a tile."""
    vectors = _vectors(-(-filters // lanes))
    rows = min(TALL, (target.registers - 1 - vectors) // vectors)
    tall = -(-places // -(-places // rows))
    if places * vectors >= FEW or rows < 2 * places:
        return 1, tall, vectors
    return -(-lines // -(-lines // (rows // places))), tall, vectors


def _planar_tile(target: Target, lanes: int, filters: int, places: int, lines: int) -> tuple[int, int, int]:
    """Return the same of a planar tile; positions in whole vectors."""
    most = min(WIDE, (target.registers - 2) // (filters + 1))
    needed = -(-places // lanes)
    vectors = min(range(1, most + 1), key=lambda n: (-(-needed // n) * n, -n))
    tile_lines = min(lines, max(1, most // vectors))
    return -(-lines // -(-lines // tile_lines)), vectors * lanes, 1


def _is_planar(filters: int, last: Window, lanes: int, patch: Patch) -> bool:
    """Whether lanes are fuller with positions than with output channels, clearly enough to turn what is copied."""
    if last.free_step != 1 or 4 * filters > 3 * lanes or not (is_zero(patch.outside) or not patch.terms):
        return False
    return last.frees * lanes > 1.25 * filters * (-(-last.frees // lanes) * lanes)


def _vectors(count: int) -> int:
    """Return the width of a tile, in vectors, for columns of `count` vectors."""
    return count if count < 4 else 3 if count % 3 == 0 and count % 2 else 2


def _limits(right: Expr, windows: tuple[Window, ...], fixed: frozenset[str]) -> tuple[
        tuple[tuple[Term, ...], ...], Expr]:
    """Return the terms under which operand b is read that bound the taps of each window from above, whatever else, and
    operand b within these bounds: beyond them it is zero, and need not be added."""
    terms, inside, outside = split(right)
    limits = [bounds_of(terms, w.summed.name, fixed) if is_zero(outside) else () for w in windows]
    if is_zero(outside):
        limits[-1] += tuple(t for t in terms if walk.free_axes(t.expr) <= fixed)
    taken = [t for bounds in limits for t in bounds]
    if len(taken) != len(terms):
        return tuple(() for _ in windows), right
    return tuple(limits), inside if taken else right
