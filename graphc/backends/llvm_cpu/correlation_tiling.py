"""How a filter's gradient is cut: which taps and channels one tile has, which positions one block.

Owns the decisions about a `Contract` whose windows (window.py) are many positions under few taps, as data;
correlation.py turns them into code.  Knows kernel IR and the Target; emits nothing.  Invariants: every decision is a
function of the kernel and the target alone, never of the number of threads; the work items are blocks of the output, so
they store disjointly, and each adds all positions in their order.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.backends.llvm_cpu.microkernel import Tile
from graphc.backends.llvm_cpu.tiling import Range, Way, stride
from graphc.backends.llvm_cpu.window import Patch, Term, Window
from graphc.backends.llvm_cpu.window_kernel import Footprint
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Expr, Kernel, Load
from graphc.kernel.target import Target

ITEMS = 16  # items that are worth having
TYPICAL = 16  # axes outside of the tile whose number is not known: parts of a sum, for example
POSITIONS = 256  # of a block: they outweigh loading and storing the sums
TALL = 28  # rows of a tile at most
STEPS = 128  # columns of B that may be read where they lie: rows of it then fit the cache


@dataclass(frozen=True, slots=True)
class Correlation:
    """A sum over many positions, for each of a few taps, channels and output channels.

    The tile's rows are channels, or taps of the last window and channels where these lie together (`merges`), of
    `tile_lines` taps along the last window but one; its columns are output channels; its depth is positions.  The sums
    of an item wait in scratch from block to block.  frames: the axes of whole images, stepped one by one or
    `frame_block` at a time; limits: the terms that end the first of them early; outer: axes outside of the tile.
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
        rows = tuple(i * line + j for i in range(self.tile_lines) for j in range(height))
        return Footprint(rows, self.last.summed_step * self.pitch)


def correlation(kernel: Kernel, target: Target, tile: tuple[str, int, int], windows: tuple[Window, ...],
                patch: Patch, channels: int, frames: tuple[Range, ...], limits: tuple[Term, ...],
                outer: tuple[Range, ...], columns: Range, right: Expr, right_way: Way,
                body: walk.Block) -> Correlation | None:
    """Return how such a sum is cut; tile: element, lanes, bytes.  None where windows lie in no order."""
    element, lanes, size = tile
    last, line = windows[-1], windows[-2] if len(windows) > 1 else None
    filters = columns.extent
    if any(w.summed_step < 0 for w in windows) or not isinstance(filters, int):
        return None
    frames = (*frames, *(w.summed for w in windows[:-2]))
    outer = (*outer, *(w.free for w in windows[:-2]))
    vectors_in_all = -(-filters // lanes)
    vectors = vectors_in_all if vectors_in_all < 4 else 3 if vectors_in_all % 3 == 0 and vectors_in_all % 2 else 2
    merges = last.free_step == 1 and not (patch.is_turned and channels % lanes)
    rows = min(TALL, (target.registers - 1 - vectors) // vectors)
    width = vectors * lanes
    # An item: all of the filter at first, then parts of it until there are enough.
    outer_items = dim.product(axis.extent for axis in outer) * (1 if merges else last.frees)
    enough = ITEMS // max(1, outer_items if isinstance(outer_items, int) else TYPICAL)
    taps = line.frees if line is not None else 1
    column_block = -(-filters // width) * width
    channel_block, line_taps = channels, taps

    def sums() -> int:
        return line_taps * channel_block * (last.frees if merges else 1) * column_block * size

    def count() -> int:
        return -(-taps // line_taps) * (channels // channel_block) * -(-filters // column_block)

    while count() < enough or sums() > target.l2 // 4:
        if column_block > max(2 * width, 64):
            column_block = -(-column_block // (2 * width)) * width
        elif channel_block % (2 * lanes) == 0 and channel_block >= 4 * lanes:
            channel_block //= 2
        elif line_taps > 1 and channel_block * (last.frees if merges else 1) >= rows:
            line_taps = 1
        elif column_block > width:
            column_block = -(-column_block // (2 * width)) * width
        elif channel_block % (2 * lanes) == 0:
            channel_block //= 2
        else:
            break
    pitch = -(-channel_block // lanes) * lanes if patch.is_turned else channel_block
    run = channel_block * (last.frees if merges else 1)
    tall = -(-run // -(-run // rows))
    tile_lines = max(1, min(rows // run, line_taps)) if run <= rows // 2 else 1
    tile_lines = -(-line_taps // -(-line_taps // tile_lines))
    room = target.l2 // (4 * size)
    place_block = last.summeds
    while place_block > POSITIONS and last.span(last.frees, place_block) * pitch * taps > room:
        place_block = -(-place_block // 2)
    line_block = 1
    if place_block == last.summeds and line is not None:
        def fits(lines: int) -> bool:
            return line.span(line_taps, lines) * last.span(last.frees, place_block) * pitch <= room

        line_block = min(line.summeds, max(1, -(-POSITIONS // place_block)))
        while line_block > 1 and not fits(line_block):
            line_block -= 1
        line_block = -(-line.summeds // -(-line.summeds // line_block))
    whole = place_block == last.summeds and line_block == (line.summeds if line is not None else 1)
    frame_block = max(1, POSITIONS // (place_block * line_block)) if whole else 1
    return Correlation(
        Tile(element, lanes, tall * tile_lines, 0, vectors), windows, patch, channels, pitch, merges, frames,
        limits, outer, columns, right, right_way, _lies_in_order(kernel, right, right_way, windows, frames), body,
        tile_lines, tall, line_taps, channel_block, column_block, frame_block, line_block, place_block)


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
