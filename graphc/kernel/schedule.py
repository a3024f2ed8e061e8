"""How a kernel is run on a target: which axis is the vector, how work is split, how many partial states.

Owns `Schedule` and the function that chooses one.  Knows kernel IR and `Target` (data); generates no
code.  Invariants: a schedule is a function of the kernel and the target alone, never of the number of
threads; on every path from the body to a statement at most one loop is a vector loop; the work items
of a kernel store disjointly because they are blocks of parallel loops.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.ir import dim
from graphc.ir.dim import Size


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """How one For, Reduce or Scan runs.

    lanes: elements of the vector that runs along this loop's axis; 1 means that the loop is stepped one
    by one.  Inside a loop with lanes > 1 every value that depends on its axis is a vector, inner loops
    included (column sums: the kept axis has the lanes, the Reduce inside holds vectors as its state).
    A Reduce with lanes > 1 keeps `lanes` partial states per vector and combines them horizontally,
    lowest lane first, when it ends (row sums).  The last step of a vector loop is masked.
    unroll: vectors (or, with lanes == 1, iterations) per step.  For a Reduce it is also the number of
    independent partial states that break the chain of latencies; they are combined in order 0, 1, ...
    """

    lanes: int = 1
    unroll: int = 1

    @property
    def is_vector(self) -> bool:
        return self.lanes > 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """axes: the outermost perfectly nested parallel Fors whose iterations are the kernel's work items,
    outermost first; () where the kernel runs as one item (extent 1), Lets before them are computed by
    every item.  extents: one size per axis.  block: iterations of the last axis that one work item
    covers (a multiple of its lanes * unroll where it is the vector axis).  With B = ceil(extents[-1] /
    block), work item t is the block t % B of the last axis, and t // B counts the other axes, the last
    of them fastest.  grain: work items per claim.  cost: estimated cycles of one work item.

    loops: one plan per loop statement (For, Reduce, Scan), in the order of `walk.loops(kernel.body)`:
    preorder, the order in which they print.  Loops of the same axis name may have different plans.

    A kernel whose work is a Contract outside of any For has no axes: the backend that tiles it also
    partitions it, and `loops` covers the loops in the Contract's body alone.
    """

    axes: tuple[str, ...]
    extents: tuple[Size, ...]
    block: int
    grain: int
    cost: float
    loops: tuple[LoopPlan, ...]

    @property
    def extent(self) -> Size:
        """Number of work items."""
        if not self.axes:
            return 1
        return dim.product(self.extents[:-1]) * dim.ceildiv(self.extents[-1], self.block)
