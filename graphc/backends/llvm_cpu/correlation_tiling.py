"""How a filter's gradient is cut: which taps and channels one tile has, which positions one block.

Owns the decisions about a `Contract` whose windows (window.py) are many positions under few taps, as data;
correlation.py turns them into code.  Knows kernel IR and the Target; emits nothing.  Invariants: every decision is a
function of the kernel and the target alone, never of the number of threads; the work items are blocks of the output, so
they store disjointly, and each adds all positions in their order.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.backends.llvm_cpu.convert import register_element
from graphc.backends.llvm_cpu.microkernel import Tile
from graphc.backends.llvm_cpu.patch import is_zero
from graphc.backends.llvm_cpu.tiling import Range, Way, right_of, stride
from graphc.backends.llvm_cpu.window import (
    Convolution,
    Patch,
    Term,
    Window,
    bounds_of,
    channel_of,
    patch_of,
    split,
)
from graphc.backends.llvm_cpu.window_kernel import Footprint, vectors_for
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Expr, Kernel, Load
from graphc.kernel.target import Target

ITEMS = 16  # items that are worth having
TYPICAL = 16  # axes outside of the tile whose number is not known: parts of a sum, for example
POSITIONS = 256  # of a block: they outweigh loading and storing the sums
TALL = 28  # rows of a tile at most
OVERLAPS = 4, 5, 3, 2  # positions that are added together, the best first
MANY_COLUMNS = 64  # output channels of an item that are split first
STEPS = 128  # columns of B that may be read where they lie: rows of it then fit the cache


@dataclass(frozen=True, slots=True)
class Correlation:
    """A sum over many positions, for each of a few taps, channels and output channels.

    The tile's rows are channels, or taps of the last window and channels where these lie together (`merges`), of
    `tile_lines` taps along the last window but one; its columns are output channels; its depth is positions.  The sums
    of an item wait in scratch from block to block.  frames: the axes of whole images, stepped one by one or
    `frame_block` at a time; limits: the terms that end the first of them early; outer: axes outside of the tile.
    tile_channels: the channels of a tile that has all taps of the last window, adding `overlap` positions together, so
    that what several taps read is loaded once; 0: the rows of a tile are any of the run.
    line_taps, channel_block, column_block: what an item has of taps of the last window but one, channels, output
    channels.  line_block, place_block: positions of a block along the last two windows.
    """

    tile: Tile
    windows: tuple[Window, ...]
    patch: Patch
    channels: int
    pitch: int
    merges: bool
    frames: tuple[Range, ...]
    limits: tuple[Term, ...]
    outer: tuple[Range, ...]
    columns: Range
    right: Expr
    right_way: Way
    reads_right: bool
    body: walk.Block
    tile_lines: int
    tall: int
    tile_channels: int
    overlap: int
    line_taps: int
    channel_block: int
    column_block: int
    frame_block: int
    line_block: int
    place_block: int

    @property
    def last(self) -> Window:
        return self.windows[-1]

    @property
    def line(self) -> Window | None:
        return self.windows[-2] if len(self.windows) > 1 else None

    @property
    def run(self) -> int:
        """Rows of all tiles of one line of taps."""
        return self.channel_block * (self.last.frees if self.merges else 1)

    @property
    def line_unit(self) -> int:
        """Coordinates between lines of the patch: the stride, where an item has one line of taps."""
        return self.line.summed_step if self.line is not None and self.line_taps == 1 else 1

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Images, lines and places of the patch."""
        lines = 1
        if self.line is not None:
            taps = -(-self.line_taps // self.tile_lines) * self.tile_lines
            lines = self.line_block if self.line_taps == 1 else self.line.span(taps, self.line_block)
        return self.frame_block, lines, self.last.span(self.last.frees, self.place_block)

    @property
    def line_pitch(self) -> int:
        """Elements of the patch per line."""
        return self.patch_shape[2] * self.pitch

    @property
    def frame_pitch(self) -> int:
        return self.patch_shape[1] * self.line_pitch

    @property
    def tap_lines(self) -> int:
        """Taps along the last window but one."""
        return self.line.frees if self.line is not None else 1

    @property
    def lines(self) -> int:
        return self.line.summeds if self.line is not None else 1

    @property
    def blocks_of_taps(self) -> int:
        return -(-self.tap_lines // self.line_taps)

    @property
    def blocks_of_channels(self) -> int:
        return self.channels // self.channel_block

    @property
    def blocks_of_columns(self) -> int:
        return -(-int(self.columns.extent) // self.column_block)

    @property
    def frame_count(self) -> Size:
        return dim.product(axis.extent for axis in self.frames)

    @property
    def blocks_of_frame(self) -> int:
        """Blocks of positions of one image, or of as many as are stepped at a time."""
        return -(-self.lines // self.line_block) * -(-self.last.summeds // self.place_block)

    @property
    def items(self) -> Size:
        return dim.product(axis.extent for axis in self.outer) * self.blocks_of_taps * self.blocks_of_channels \
            * self.blocks_of_columns * (1 if self.merges else self.last.frees)

    @property
    def positions(self) -> int:
        """Positions of a block at most."""
        return self.frame_block * self.line_block * self.place_block

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Tiles of an item: of lines of taps, of a run, of columns."""
        return (-(-self.line_taps // self.tile_lines), -(-self.run // self.tall),
                -(-self.column_block // self.tile.columns))

    @property
    def tile_size(self) -> int:
        return self.tile_lines * self.tall * self.tile.columns

    def footprint(self, height: int) -> Footprint:
        """Return where a tile of `height` rows of a run reads the patch."""
        line = 0 if self.line is None else self.line.free_step * self.line_pitch
        step = self.last.summed_step * self.pitch
        if not self.tile_channels:
            return Footprint(tuple(i * line + j for i in range(self.tile_lines) for j in range(height)), step)
        rows = tuple(i * line + tap * self.pitch + j for i in range(self.tile_lines) for tap in range(self.last.frees)
                     for j in range(self.tile_channels))
        return Footprint(rows, step * self.overlap, None, self.overlap, step)


def correlate(kernel: Kernel, c: Convolution, target: Target) -> Correlation | None:
    """Return how `c`, the work of `kernel`, is cut for `target`; None where windows run against their order."""
    channel = channel_of(kernel, c.left, c.m)
    channels = channel.extent
    if any(w.summed_step < 0 for w in c.windows) or not isinstance(channels, int) or channels == 0:
        return None
    patch, limits, right = _limited(c, patch_of(kernel, c.left, c.windows, channel))
    right, way = right_of(kernel, right, c.columns, c.last.summed)
    frames = (*c.k, *(w.summed for w in c.windows[:-2]))
    outer = (*c.batch, *(axis for axis in c.m if axis != channel), *(w.free for w in c.windows[:-2]))
    lanes = target.vector_bits // (8 * c.dtype.size)
    vectors = vectors_for(c.filters, lanes)
    rows = min(TALL, (target.registers - 1 - vectors) // vectors)
    tile = Tile(register_element(c.dtype), lanes, rows, 0, vectors)
    merges = c.last.free_step == 1 and not (patch.is_turned and channels % lanes)
    items = dim.product(axis.extent for axis in outer) * (1 if merges else c.last.frees)
    share = _share(c, tile, channels, c.last.frees if merges else 1,
                   ITEMS // max(1, items if isinstance(items, int) else TYPICAL), target.l2 // (4 * tile.bytes))
    line_taps, channel_block, column_block = share
    pitch = -(-channel_block // lanes) * lanes if patch.is_turned else channel_block
    run = channel_block * (c.last.frees if merges else 1)
    tall = -(-run // -(-run // rows))
    frame_block, line_block, place_block = _positions(c, line_taps, pitch, target.l2 // (4 * tile.bytes))
    overlap = _overlap(c, vectors, place_block) if merges else 1
    tile_channels = 0
    if overlap > 1:
        rows = min(TALL, target.registers - 2 - overlap)
        tile_channels = max((n for n in range(1, channel_block + 1)
                             if channel_block % n == 0 and n * c.last.frees <= rows), default=0)
        tall = tile_channels * c.last.frees or tall
    tile_lines = max(1, min(rows // tall, line_taps)) if run == tall or tile_channels else 1
    tile_lines = -(-line_taps // -(-line_taps // tile_lines))
    return Correlation(
        replace(tile, rows=tall * tile_lines), c.windows, patch, channels, pitch, merges, frames, limits, outer,
        c.columns, right, way, _lies_in_order(kernel, right, way, c.windows, frames), c.body, tile_lines, tall,
        tile_channels, overlap if tile_channels else 1, line_taps, channel_block, column_block, frame_block,
        line_block, place_block)


def _overlap(c: Convolution, vectors: int, places: int) -> int:
    """Return how many positions are added together: some, where a tile is one vector wide and several of its taps read
    the same elements, in all runs of positions; else 1."""
    if vectors > 1 or c.last.frees <= c.last.summed_step or c.last.summeds % places:
        return 1
    return next((n for n in OVERLAPS if places % n == 0), 1)


def _limited(c: Convolution, patch: Patch) -> tuple[Patch, tuple[Term, ...], Expr]:
    """Return `patch` without the terms that end the first axis of images early (the last of some parts has fewer),
    these terms, and operand b without them: beyond them both are zero, and need not be added."""
    if not c.k or not is_zero(patch.outside):
        return patch, (), c.right
    limits = bounds_of(patch.terms, c.k[0].name, c.fixed)
    terms, inside, _ = split(c.right)
    rest = tuple(t for t in patch.terms if t not in limits)
    return replace(patch, terms=rest), limits, inside if set(terms) <= set(limits) else c.right


def _share(c: Convolution, tile: Tile, channels: int, last_taps: int, enough: int, room: int) -> tuple[int, int, int]:
    """Return what an item has of taps of the last window but one, channels and output channels: all of them, or parts,
    so that there are `enough` items and its sums fit `room` elements."""
    taps = c.line.frees if c.line is not None else 1
    line_taps, channel_block = taps, channels
    column_block = -(-c.filters // tile.columns) * tile.columns

    def items() -> int:
        return -(-taps // line_taps) * (channels // channel_block) * -(-c.filters // column_block)

    while items() < enough or line_taps * channel_block * last_taps * column_block > room:
        if column_block > max(2 * tile.columns, MANY_COLUMNS):
            column_block = -(-column_block // (2 * tile.columns)) * tile.columns
        elif channel_block % (2 * tile.lanes) == 0 and channel_block >= 4 * tile.lanes:
            channel_block //= 2
        elif line_taps > 1 and channel_block * last_taps >= tile.rows:
            line_taps = 1
        elif column_block > tile.columns:
            column_block = -(-column_block // (2 * tile.columns)) * tile.columns
        elif channel_block % (2 * tile.lanes) == 0:
            channel_block //= 2
        else:
            break
    return line_taps, channel_block, column_block


def _positions(c: Convolution, line_taps: int, pitch: int, room: int) -> tuple[int, int, int]:
    """Return the images, lines and places of a block: POSITIONS of them, whose patch fits `room` elements."""
    taps = c.line.frees if c.line is not None else 1
    places = c.last.summeds
    while places > POSITIONS and c.last.span(c.last.frees, places) * pitch * taps > room:
        places = -(-places // 2)
    lines = 1
    if places == c.last.summeds and c.line is not None:
        row = c.last.span(c.last.frees, places) * pitch
        lines = min(c.line.summeds, -(-POSITIONS // places))
        while lines > 1 and c.line.span(line_taps, lines) * row > room:
            lines -= 1
        lines = -(-c.line.summeds // -(-c.line.summeds // lines))
    whole = places == c.last.summeds and lines == (c.line.summeds if c.line is not None else 1)
    return max(1, POSITIONS // (places * lines)) if whole else 1, lines, places


def _lies_in_order(kernel: Kernel, right: Expr, way: Way, windows: tuple[Window, ...],
                   frames: tuple[Range, ...]) -> bool:
    """Whether all positions of operand b lie in their order, the same step apart, and close enough."""
    if way is not Way.DIRECT or not isinstance(right, Load):
        return False
    expected: Size | None = None
    for axis in (*(w.summed for w in reversed(windows[-2:])), *reversed(frames)):
        step = stride(kernel, right, axis)
        if step is None or (expected is not None and step != expected) or not isinstance(step, int):
            return False
        if expected is None and step > STEPS:
            return False
        expected = step * axis.extent
    return True
