"""How a product is cut: which axis has the lanes, what is packed and how, and what one work item covers.

Owns the decisions about a `Contract`, as data; contract.py turns them into code.  Knows kernel IR and
the Target; emits nothing.  Invariants: every decision is a function of the kernel and the target alone,
and every block size one of the sizes, never of the number of threads; the work items are blocks of the
output, so they store disjointly.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from graphc import dtypes
from graphc.backends.llvm_cpu.microkernel import PanelLayout, Tile, tile_for
from graphc.dtypes import DType
from graphc.errors import BackendError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Contract, Expr, Kernel, Load, Prim, Store, index, size
from graphc.kernel.primitives import cast
from graphc.kernel.target import Target

DEPTH = 256  # terms that are added before the sums go back to memory: a panel of B then fits the first-level cache
ROWS = 192  # rows of an item at most; fewer where they, packed, do not fit half of the second-level cache
FEW_ROWS = 36  # rows of an item at least, where rows are split to have work for several threads
COLUMNS = 512  # columns of an item at most, where B is read where it lies
FEW_COLUMNS = 64  # columns of an item at least
PACKED_COLUMNS = 128  # columns of an item that packs B, or where their number is not known
TYPICAL = 128  # a size that is not known, for estimates
ITEMS = 24  # items that are worth having: eight threads can share them evenly


class Way(Enum):
    """How an operand reaches the microkernel."""

    DIRECT = "read where it lies: its panel axis is contiguous in memory; ragged panels are packed"
    LANES = "evaluated along the panel axis into a packed panel"
    ROWS = "evaluated along the depth into rows"
    TURNED = "transposed from where it lies: its depth is contiguous in memory"
    STAGED = "evaluated along the depth into rows, then transposed"


@dataclass(frozen=True, slots=True)
class Range:
    """An axis and its extent; no name and extent 1 where the product has no such axis."""

    name: str | None
    extent: Size


@dataclass(frozen=True, slots=True)
class Tiling:
    """A product with one axis for the rows of the tile, one for its columns (the lanes) and one for the
    depth.  left and right are the operands of rows and columns, of dtype `dtype`.

    batch: axes outside of the tile; outer: depth axes that are stepped outside of it.  along: the axis
    that has the lanes in the epilogue (the columns, the rows, or none: then it runs element by element).
    row_block, column_block, depth_block: elements of a block, equal but for the last one, so that threads
    have equal work (rows in units of the tile); row_blocks, column_blocks, depth_blocks: their number.
    max_rows, max_columns, max_depth: bounds of the blocks, for the scratch.  is_far: whether the operands and the
    output do not fit the second-level cache, so that memory is asked for before it is needed.
    """

    tile: Tile
    dtype: DType
    batch: tuple[Range, ...]
    rows: Range
    columns: Range
    depth: Range
    outer: tuple[Range, ...]
    left: Expr
    left_way: Way
    right: Expr
    right_way: Way
    body: walk.Block
    along: Range | None
    row_block: Size
    row_blocks: Size
    column_block: Size
    column_blocks: Size
    depth_block: Size
    depth_blocks: Size
    max_rows: int
    max_columns: int
    max_depth: int
    is_far: bool

    @property
    def batches(self) -> Size:
        return dim.product(axis.extent for axis in self.batch)

    @property
    def outer_steps(self) -> Size:
        return dim.product(axis.extent for axis in self.outer)

    @property
    def items(self) -> Size:
        return self.batches * self.row_blocks * self.column_blocks

    @property
    def is_one_pass(self) -> bool:
        """Whether all terms are added in one go whatever the sizes, so that a tile never waits in memory."""
        return self.outer_steps == 1 and self.depth_blocks == 1

    @property
    def turns_tile(self) -> bool:
        """Whether the epilogue's lanes run along the rows of the tile."""
        return self.along is not None and self.along == self.rows

    @property
    def panels(self) -> int:
        """Row panels of an item at most: full ones, then low ones."""
        return self.max_rows // self.tile.rows

    @property
    def heights(self) -> tuple[int, ...]:
        """The heights of row panels that there can be, tallest first."""
        tile, extent, block = self.tile, self.rows.extent, self.row_block
        heights = tile.rows, tile.few, tile.unit
        if isinstance(extent, int) and extent <= tile.few:
            return (tile.few if extent > tile.unit else tile.unit,)
        if not isinstance(extent, int) or not isinstance(block, int):
            return heights
        panels = [panels_of(tile, rows) for rows in (min(block, extent), extent % block)]
        used = {height for full, low, height in panels if low} | {tile.rows for full, _, _ in panels if full}
        return tuple(height for height in heights if height in used)

    @property
    def left_layout(self) -> PanelLayout:
        """Rows lie `max_depth` and a cache line apart, so that they do not fall on each other in the cache."""
        return PanelLayout(self.max_depth + 64 // self.tile.bytes, 1) if self.left_way is Way.ROWS \
            else PanelLayout(1, None)


def panels_of(tile: Tile, rows: int) -> tuple[int, int, int]:
    """Return how many full panels and how many low ones cover `rows`, and the height of the low ones.

    In units, a full panel has three and a low one two, which gives every number but one: then the low one has
    one.  So less than a unit of rows is to spare.
    """
    units = -(-rows // tile.unit)
    if units == 1:
        return 0, 1, tile.unit
    low = 2 * units % 3
    return (units - 2 * low) // 3, low, tile.few


def computing(acc_dtype: DType) -> DType:
    """Return the dtype that sums of `acc_dtype` are computed in: small integers wrap when they are stored,
    which gives the same bits.  Raises BackendError where such sums do not exist."""
    if acc_dtype.is_floating and acc_dtype.size >= 4:
        return acc_dtype
    if acc_dtype.is_integer:
        return dtypes.int64 if acc_dtype.size == 8 else dtypes.int32
    raise BackendError(f"products cannot be accumulated in {acc_dtype.name}; use float32 or an integer type")


def tiling(kernel: Kernel, statement: Contract, target: Target) -> Tiling:
    """Return how `statement`, the work of `kernel`, is cut for `target`.  Raises BackendError."""
    contract = merged(kernel, statement)
    dtype = computing(contract.acc_dtype)
    tile = tile_for(target, {dtypes.float32: "float", dtypes.float64: "double", dtypes.int32: "i32",
                             dtypes.int64: "i64"}[dtype])
    m, n, k = (_ranges(axes) for axes in (contract.m, contract.n, contract.k))
    batch = (*_ranges(contract.batch), *m[:-1], *n[:-1])  # axes that do not merge are stepped outside of the tile
    none = Range(None, 1)
    (rows, a), (columns, b) = (m[-1] if m else none, contract.a), (n[-1] if n else none, contract.b)
    along = epilogue_axis(kernel, contract.body, rows, columns)
    if _narrow(columns, rows, tile) or (along == rows and not _narrow(rows, columns, tile)):
        (rows, a), (columns, b) = (columns, b), (rows, a)
    depth = k[-1] if k else none
    left, left_way = _left(kernel, cast(cast(a, contract.acc_dtype), dtype), rows, depth)
    right, right_way = right_of(kernel, cast(cast(b, contract.acc_dtype), dtype), columns, depth)
    step = 64 // tile.bytes
    depth_blocks = dim.maximum(1, dim.ceildiv(depth.extent, DEPTH))
    depth_block = dim.ceildiv(dim.ceildiv(depth.extent, depth_blocks), step) * step
    direct = right_way is Way.DIRECT
    packed = target.l2 // (2 * DEPTH * tile.bytes) // tile.rows * tile.rows
    max_rows = min(ROWS, max(FEW_ROWS, packed))
    row_block, row_blocks, column_block, column_blocks = _blocks(
        tile, rows.extent, columns.extent, dim.product(axis.extent for axis in batch), direct, max_rows)
    return Tiling(
        tile, dtype, batch, rows, columns, depth, k[:-1], left, left_way, right, right_way, contract.body, along,
        row_block, row_blocks, column_block, column_blocks, depth_block, depth_blocks,
        max_rows, COLUMNS if direct else PACKED_COLUMNS, depth_block if isinstance(depth_block, int) else DEPTH,
        _is_far(rows.extent, columns.extent, depth.extent, tile, target))


def _is_far(m: Size, n: Size, k: Size, tile: Tile, target: Target) -> bool:
    """Whether a product of these sizes (a typical number for those not known) exceeds the second-level cache."""
    m, n, k = (size if isinstance(size, int) else TYPICAL for size in (m, n, k))
    return (m * k + k * n + m * n) * tile.bytes > target.l2


def _blocks(tile: Tile, rows: Size, columns: Size, batches: Size, direct: bool,
            max_rows: int) -> tuple[Size, Size, Size, Size]:
    """Return row_block, row_blocks, column_block, column_blocks of `Tiling`.

    Where B is read where it lies, rows are cut as finely as items are wanted, for that costs nothing twice.
    Where B is packed, rows stay together.  No block is empty, for every bound is a multiple of its unit.
    """
    width = PACKED_COLUMNS
    if direct and isinstance(columns, int):  # at least two blocks, for products of few rows
        half = -(-columns // (2 * tile.columns)) * tile.columns
        width = min(COLUMNS, max(FEW_COLUMNS, half))
    column_blocks = dim.ceildiv(columns, width)
    height: Size = max_rows
    if direct:
        share = rows * column_blocks * batches // (ITEMS * tile.unit) * tile.unit
        height = dim.minimum(max_rows, dim.maximum(FEW_ROWS, share))
    row_blocks = dim.ceildiv(rows, height)

    def even(extent: Size, blocks: Size, unit: int) -> Size:  # at most the bound that `blocks` came from
        return dim.ceildiv(dim.ceildiv(extent, unit), dim.maximum(blocks, 1)) * unit

    return even(rows, row_blocks, tile.unit), row_blocks, even(columns, column_blocks, tile.columns), column_blocks


def _ranges(axes: Iterable[tuple[str, Expr]]) -> tuple[Range, ...]:
    return tuple(Range(name, size_of(extent)) for name, extent in axes)


def size_of(extent: Expr) -> Size:
    """Return the extent of an axis.  Raises BackendError where it is no size."""
    value = walk.as_size(extent)
    if value is None:
        raise BackendError("the extents of a product must be sizes")
    return value


def _narrow(axis: Range, other: Range, tile: Tile) -> bool:
    """Return whether lanes along `axis` would leave half of a tile empty and `other` is the better one."""
    if axis.name is None or other.name is None:
        return axis.name is None and other.name is not None
    if not isinstance(axis.extent, int) or 2 * axis.extent > tile.columns:
        return False
    return not isinstance(other.extent, int) or other.extent > axis.extent


# ---------------------------------------------------------------------------------------------
# Operands.


def stride(kernel: Kernel, load: Load, axis: Range) -> Size | None:
    """Return by how many elements the address of `load` moves per step of `axis`, or None."""
    shape = walk.buffers(kernel)[load.buffer][1]
    return 0 if axis.name is None else walk.linear_coefficient(load.index, shape, axis.name)


def contiguous(kernel: Kernel, expr: Expr, axis: Range) -> bool:
    """Return whether any load of `expr` moves by one element per step of `axis`."""
    return any(stride(kernel, e, axis) == 1 for e in walk.postorder((expr,)) if isinstance(e, Load))


def _plain(kernel: Kernel, expr: Expr, axis: Range, depth: Range) -> bool:
    """Return whether `expr` is memory that can be addressed by strides."""
    return isinstance(expr, Load) and expr.predicate is None and stride(kernel, expr, axis) is not None \
        and stride(kernel, expr, depth) is not None


def _left(kernel: Kernel, expr: Expr, rows: Range, depth: Range) -> tuple[Expr, Way]:
    expr = _without_sign(expr)
    if _plain(kernel, expr, rows, depth) and contiguous(kernel, expr, rows):
        return expr, Way.DIRECT
    by_rows = contiguous(kernel, expr, rows) and not contiguous(kernel, expr, depth)
    return expr, Way.LANES if by_rows else Way.ROWS


def right_of(kernel: Kernel, expr: Expr, columns: Range, depth: Range) -> tuple[Expr, Way]:
    expr = _without_sign(expr)
    turned = contiguous(kernel, expr, depth) and not contiguous(kernel, expr, columns)
    if _plain(kernel, expr, columns, depth):
        if contiguous(kernel, expr, columns):
            return expr, Way.DIRECT
        return expr, Way.TURNED if turned else Way.LANES
    return expr, Way.STAGED if turned else Way.LANES


def _without_sign(expr: Expr) -> Expr:
    """Return `expr` without a cast between integers of the same width: the bits are the same."""
    match expr:
        case _ if expr.dtype.is_integer and walk.children(expr):
            inner = walk.children(expr)[0]
            same = inner.dtype.is_integer and inner.dtype.size == expr.dtype.size
            return inner if same and isinstance(expr, Prim) and expr.op == "cast" else expr
        case _:
            return expr


def epilogue_axis(kernel: Kernel, body: walk.Block, rows: Range, columns: Range) -> Range | None:
    """Return the axis along which the epilogue touches consecutive memory; the columns where both do."""
    def score(axis: Range) -> int:
        shapes = walk.buffers(kernel)
        accesses = [(e.buffer, e.index) for e in walk.loads(body)] + [
            (s.buffer, s.index) for s in walk.stores(body)]
        return sum(walk.linear_coefficient(at, shapes[name][1], axis.name) == 1 for name, at in accesses) \
            if axis.name is not None else -1
    best = max((columns, rows), key=score)
    return best if best.name is not None else None


# ---------------------------------------------------------------------------------------------
# Merging axes.


def merged(kernel: Kernel, contract: Contract, groups: tuple[str, ...] = ("batch", "m", "n", "k")) -> Contract:
    """Return `contract` with neighbouring axes of one group made one where all memory allows it, in these groups;
    axes of one element go.

    Two axes (x, y) are one of extent X * Y if every access moves by Y times as much per x as per y: then
    y alone, running beyond its extent, reaches the same elements.  Batch axes that one operand does not know
    are axes of the other.
    """
    contract = without_units(contract)
    for axis in contract.batch:
        for group, operand in (("m", contract.b), ("n", contract.a)):
            if axis in contract.batch and axis[0] not in walk.free_axes(operand):
                rest = tuple(x for x in contract.batch if x is not axis)
                contract = _with_axes(_with_axes(contract, "batch", rest), group, (axis, *getattr(contract, group)))
    for group in groups:
        axes: list[tuple[str, Expr]] = list(getattr(contract, group))
        at = len(axes) - 2
        while at >= 0:
            (outer, outer_extent), (inner, inner_extent) = axes[at:at + 2]
            if _merge(kernel, contract, outer, inner, size_of(inner_extent)):
                axes[at:at + 2] = [(inner, size(size_of(outer_extent) * size_of(inner_extent)))]
                away: Mapping[str, Expr] = {outer: index(0)}
                contract = replace(contract, a=walk.substitute(contract.a, away), b=walk.substitute(contract.b, away),
                                   body=walk.substitute_body(contract.body, away))
            at = min(at, len(axes) - 1) - 1
        contract = _with_axes(contract, group, tuple(axes))
    return contract


def without_units(contract: Contract) -> Contract:
    """Return `contract` without its axes of one element."""
    for group in ("batch", "m", "n", "k"):
        axes: tuple[tuple[str, Expr], ...] = getattr(contract, group)
        away: Mapping[str, Expr] = {name: index(0) for name, extent in axes if size_of(extent) == 1}
        if away:
            contract = replace(contract, a=walk.substitute(contract.a, away), b=walk.substitute(contract.b, away),
                               body=walk.substitute_body(contract.body, away))
            contract = _with_axes(contract, group, tuple(axis for axis in axes if axis[0] not in away))
    return contract


def _with_axes(contract: Contract, group: str, axes: tuple[tuple[str, Expr], ...]) -> Contract:
    changes: dict[str, Any] = {group: axes}
    return replace(contract, **changes)


def _merge(kernel: Kernel, contract: Contract, outer: str, inner: str, extent: Size) -> bool:
    shapes = walk.buffers(kernel)

    def together(at: tuple[Expr, ...], buffer: str) -> bool:
        steps = [walk.linear_coefficient(at, shapes[buffer][1], axis) for axis in (outer, inner)]
        return steps[0] is not None and steps[1] is not None and steps[0] == steps[1] * extent

    def hide(e: Expr) -> Expr:  # what reaches the axes only as an address does not count as a use of them
        return replace(e, index=()) if isinstance(e, Load) and together(e.index, e.buffer) else e

    roots = [contract.a, contract.b]
    for s in walk.statements(contract.body):
        if isinstance(s, Store) and together(s.index, s.buffer):
            roots += [s.value, *([s.predicate] if s.predicate is not None else [])]
        else:
            roots += walk.expressions(s)
    return not any({outer, inner} & walk.free_axes(walk.map_expr(root, hide)) for root in roots)
