"""How a convolution is cut whose windows are few taps at many positions: tiles, patches and work items.

Owns `Gather` and the decisions in it, as data; gather.py turns them into code.  Knows kernel IR and the Target; emits
nothing.  Invariants: every decision is a function of the kernel and the target alone, and every block size one of the
sizes, never of the number of threads; the work items are blocks of the output, so they store disjointly.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.backends.llvm_cpu.convert import register_element
from graphc.backends.llvm_cpu.microkernel import Tile
from graphc.backends.llvm_cpu.patch import is_zero
from graphc.backends.llvm_cpu.tiling import Range, Way, epilogue_axis, right_of, stride
from graphc.backends.llvm_cpu.window import (
    Convolution,
    Patch,
    Term,
    Window,
    bounds_of,
    channel_of,
    known,
    patch_of,
    split,
)
from graphc.backends.llvm_cpu.window_kernel import SHORT, Footprint, vectors_for
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Expr, Kernel, Load
from graphc.kernel.target import Target

ITEMS = 24  # items that are worth having: eight threads can share them evenly
IMAGE_ITEMS = 16  # items that one image is cut into, where they are worth it
MANY_POSITIONS = 200  # of a block: packing the filter for it is hardly seen
BLOCK_CYCLES = 16000  # what a block of positions should take at least
TALL = 24  # rows of a tile at most
WIDE = 8  # vectors of a planar tile at most
PLANAR_SUMS = 10  # vectors of sums of a planar tile that keep the adders busy
OVERLAP = 5  # taps that are added together at most
FEW = 8  # products per element of B that keep the adders busy


@dataclass(frozen=True, slots=True)
class Gather:
    """A convolution whose free axes are positions: the sum of a small window under each of many places.

    The tile's rows are positions, `tile_lines` lines of them (along the last window but one) by `tall` or `tall - 1`
    places along the last; its columns are output channels; the whole depth is added in registers.  line_block,
    place_block: lines and places of a block of positions, which has one patch; pitch: elements of the patch from one
    place to the next.  images: the axis that is stepped together with the blocks; group: blocks per item; outer: what
    else is outside of the tile.  limits: for each window the terms that end its taps early (phases).  reads_filter: the
    filter is read where it lies, but for a ragged last panel; else an item packs its `column_block` of it.
    interleaves: neighbouring items share positions, not the filter: groups and phases, which lie together in memory.
    Taps that meet padding with a whole tile add nothing, whatever the filter holds there.
    """

    tile: Tile
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
    interleaves: bool
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
        """The terms of the lines of the patch, where taps that meet padding on all lines of a tile are not added: those
        of one line follow each other."""
        if self.line is None or len(self.windows) != 2 or not is_zero(self.patch.outside):
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
    def overlaps(self) -> bool:
        """Whether the taps of the last window are added together: a narrow tile loads too much otherwise."""
        return _overlap(self.last, self.limits, self.tile.vectors) > 1 and not self.is_planar

    @property
    def merges(self) -> bool:
        """Whether taps of the last window and channels are one run of the patch."""
        if self.overlaps:
            return False
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
    def parts(self) -> Size:
        """Parts of the filter, each for items of its own."""
        return dim.product(axis.extent for axis in self.outer) * self.column_blocks

    @property
    def items(self) -> Size:
        return self.parts * self.groups

    def footprint(self, places: int) -> Footprint:
        """Return where a tile of `places` positions along the last window reads the patch."""
        apart = self.tile.lanes if self.is_planar else 1
        rows = tuple(i * self.line_pitch + j * self.place_pitch for i in range(self.tile_lines)
                     for j in range(0, places, apart))
        run = self.last.summeds * self.channels if self.merges else self.channels
        fixed = run <= SHORT and not (self.merges and self.limits[-1])
        if self.overlaps:
            return Footprint(rows, 1, None, self.last.summeds, abs(self.last.summed_step) * self.pitch,
                             self.channels * self.tile.columns)
        step = self.pitch if self.is_planar and not self.merges else 1
        return Footprint(rows, step, run if fixed else None)


def gathered(kernel: Kernel, c: Convolution, target: Target) -> Gather | None:
    """Return how `c`, the work of `kernel`, is cut for `target`; None for more than one axis of channels."""
    channel = channel_of(kernel, c.left, c.k)
    channels = channel.extent
    if len(c.k) > 1 or not isinstance(channels, int) or channels == 0:
        return None
    lanes = target.vector_bits // (8 * c.dtype.size)
    patch = patch_of(kernel, c.left, c.windows, channel)
    limits, right = _limits(c)
    right, way = right_of(kernel, right, c.columns, channel)
    is_planar = _is_planar(c.filters, c.last, lanes, patch)
    lines = c.line.frees if c.line is not None else 1
    shape = _planar_tile if is_planar else _tile
    overlap = 1 if is_planar else _overlap(c.last, limits, vectors_for(c.filters, lanes))
    tile_lines, tall, vectors = shape(target, lanes, c.filters, c.last.frees, lines, overlap)
    tile = Tile(register_element(c.dtype), lanes, tall * tile_lines, 0, vectors)
    depth = math.prod(w.summeds for w in c.windows) * channels
    column_block = _column_block(tile, c.filters, target.l2 * 5 // 8 // (depth * tile.bytes))
    column_blocks = -(-c.filters // column_block)
    place_block = _place_block(c, channels, tall, target.l2 // (2 * tile.bytes))
    line_block = 1
    if c.line is not None:
        row = c.last.span(place_block, c.last.summeds) * channels * math.prod(w.summeds for w in c.windows[:-2])
        cycles = c.last.frees * depth * column_block / (2 * lanes)
        wanted = max(-(-lines // max(1, IMAGE_ITEMS // column_blocks)), -(-BLOCK_CYCLES // int(cycles + 1)))
        line_block = _line_block(c.line, tile_lines, wanted, target.l2 // (2 * tile.bytes) // row)
    pitch = -(-channels // lanes) * lanes if patch.is_turned else channels
    if is_planar:  # a vector behind each line may be overwritten
        pitch = (-(-c.last.span(place_block, c.last.summeds) // lanes) + 1) * lanes
    images = c.m[-1] if c.m else Range(None, 1)
    outer = (*c.batch, *c.m[:-1], *(w.free for w in c.windows[:-2]))
    blocks = images.extent * (-(-lines // line_block) * -(-c.last.frees // place_block))
    parts = dim.product(axis.extent for axis in outer) * column_blocks
    interleaves = bool(c.batch) and line_block * place_block >= MANY_POSITIONS
    return Gather(
        tile, c.windows, patch, is_planar, channels, pitch, images, outer, c.columns, right, way, limits, c.body,
        epilogue_axis(kernel, c.body, c.last.free, c.columns), tile_lines, tall, line_block, place_block, column_block,
        _is_packed(kernel, right, way, c.windows, limits, channel, tile.columns),
        interleaves, 1 if interleaves else dim.maximum(1, blocks * parts // ITEMS))


def _column_block(tile: Tile, filters: int, most: int) -> int:
    """Return the output channels of an item: at most so many, but a panel, in blocks of equal size."""
    blocks = -(-filters // max(tile.columns, most // tile.columns * tile.columns))
    return -(-filters // (blocks * tile.columns)) * tile.columns


def _place_block(c: Convolution, channels: int, tall: int, room: int) -> int:
    """Return the places of a block: all of them, if what one line reads fits `room`; else whole tiles."""
    lines = math.prod(w.summeds for w in c.windows[:-1])
    places = c.last.frees
    while places > 2 * tall and c.last.span(places, c.last.summeds) * channels * lines > room:
        places = -(-(places // 2) // tall) * tall
    return places


def _line_block(line: Window, tile_lines: int, wanted: int, room: int) -> int:
    """Return the lines of a block: what is wanted, in whole tiles; as many as read at most `room` lines."""
    lines = min(line.frees, -(-max(wanted, tile_lines) // tile_lines) * tile_lines)
    while lines > tile_lines and line.span(lines, line.summeds) > room:
        lines -= tile_lines
    lines = -(-line.frees // -(-line.frees // lines))
    return -(-lines // tile_lines) * tile_lines


def _is_packed(kernel: Kernel, right: Expr, way: Way, windows: tuple[Window, ...],
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


def _overlap(last: Window, limits: tuple[tuple[Term, ...], ...], vectors: int) -> int:
    """Return how many taps of the last window are added together: all, if each of their elements serves several
    positions of a tile that is one vector wide; else 1."""
    few = vectors == 1 and last.free_step == 1 and last.summeds <= OVERLAP and not limits[-1]
    return last.summeds if few else 1


def _tile(target: Target, lanes: int, filters: int, places: int, lines: int, overlap: int) -> tuple[int, int, int]:
    """Return lines, positions along the last window, and vectors of output channels of a tile that adds `overlap` taps
    together."""
    vectors = vectors_for(filters, lanes)
    rows = min(TALL, (target.registers - 1 - vectors * overlap) // vectors)
    tall = -(-places // -(-places // rows))
    if places * vectors >= FEW or rows < 2 * places:
        return 1, tall, vectors
    return -(-lines // -(-lines // (rows // places))), tall, vectors


def _planar_tile(target: Target, lanes: int, filters: int, places: int, lines: int,
                 overlap: int) -> tuple[int, int, int]:
    """Return the same of a planar tile; positions in whole vectors."""
    most = min(WIDE, (target.registers - 2) // (filters + 1))
    needed = -(-places // lanes)
    vectors = min(range(1, most + 1), key=lambda n: (-(-needed // n) * n, -n))
    enough = -(-PLANAR_SUMS // (filters * vectors))  # tall tiles add more of the padding
    tile_lines = min(lines, enough, max(1, most // vectors))
    return -(-lines // -(-lines // tile_lines)), vectors * lanes, 1


def _is_planar(filters: int, last: Window, lanes: int, patch: Patch) -> bool:
    """Whether lanes are fuller with positions than with output channels, clearly enough to turn what is copied."""
    if last.free_step != 1 or 4 * filters > 3 * lanes or not (is_zero(patch.outside) or not patch.terms):
        return False
    return last.frees * lanes > 1.25 * filters * (-(-last.frees // lanes) * lanes)


def _limits(c: Convolution) -> tuple[tuple[tuple[Term, ...], ...], Expr]:
    """Return the terms under which operand b is read that bound the taps of each window from above, whatever else, and
    operand b within these bounds: beyond them it is zero, and need not be added."""
    terms, inside, outside = split(c.right)
    if not is_zero(outside):
        return tuple(() for _ in c.windows), c.right
    limits = [bounds_of(terms, w.summed.name, c.fixed) for w in c.windows]
    limits[-1] += tuple(t for t in terms if walk.free_axes(t.expr) <= c.fixed)
    if sum(map(len, limits)) != len(terms):
        return tuple(() for _ in c.windows), c.right
    return tuple(limits), inside
