"""One kernel as one LLVM function: the loop over its work items around the rendered body.

Owns the calling convention of backends/base.py on this backend and the split of a kernel's outer loops
into work items as its Schedule says.  Knows kernel IR, schedules and the renderer; imports no LLVM.
Invariant: what one work item computes does not depend on which others the call runs.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.backends.llvm_cpu import contract, loops, streaming
from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.backends.llvm_cpu.render import Context, Renderer
from graphc.errors import BackendError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Contract, For, Kernel, Stmt
from graphc.kernel.schedule import LoopPlan, Schedule
from graphc.kernel.target import Target

NAME = "kernel"  # the function's name until its text is hashed
CYCLES_PER_NS = 3.0  # of schedules, which count cycles
_PARAMETERS = (("begin", "i64", 1), ("end", "i64", 1), ("noalias readonly buffers", "ptr", 1),
               ("noalias readonly sizes", "ptr", 1), ("worker", "i64", 1), ("noalias align 64 scratch", "ptr", 1))


@dataclass(frozen=True, slots=True)
class Rendered:
    """text: an LLVM module that defines `NAME`.  The rest as in KernelInfo."""

    text: str
    extent: Size
    grain: int
    scratch: Size
    cost: float


def render(kernel: Kernel, schedule: Schedule, target: Target) -> Rendered:
    """Return `kernel` as LLVM text for `target`.  Raises BackendError for what cannot be rendered."""
    module = Module(target)
    builder = Builder(module, NAME, _PARAMETERS, "i32")
    plans = {id(s): p for s, p in zip(walk.loops(kernel.body), schedule.loops, strict=True)}
    product = next((s for s in kernel.body if isinstance(s, Contract)), None)
    if product is not None:
        partition = contract.partition(kernel, product, target)
        renderer = Renderer(kernel, builder, plans, dim.ceildiv(partition.scratch, 64) * 64)
        _contract(renderer, kernel, product, partition)
        extent, grain, cost = partition.extent, partition.grain, partition.cost
    else:
        renderer = Renderer(kernel, builder, plans)
        _items(renderer, kernel, schedule)
        extent, grain, cost = schedule.extent, schedule.grain, schedule.cost / CYCLES_PER_NS
    streaming.fence(renderer)
    builder.ret(renderer.status())
    builder.finish()
    return Rendered(module.text(), extent, grain, renderer.scratch_bytes, cost)


def _contract(r: Renderer, kernel: Kernel, product: Contract, partition: contract.Partition) -> None:
    if kernel.body[-1] is not product:
        raise BackendError(f"{kernel.name}: statements after a Contract are not supported")
    context = Context()
    r.statements(kernel.body[:-1], context)
    contract.emit(r, kernel, product, partition, context)


def _items(r: Renderer, kernel: Kernel, schedule: Schedule) -> None:
    """Render work items begin .. end-1: see Schedule for their numbering."""
    context = Context()
    if not schedule.axes:
        with r.b.loop(r.begin, r.end):
            r.statements(kernel.body, context)
        return
    nest = _nest(kernel, schedule)
    r.statements(kernel.body[:-1], context)
    innermost = nest[-1]
    extents = [r.size(e) for e in schedule.extents]
    blocks = r.size(dim.ceildiv(schedule.extents[-1], schedule.block))
    context = loops.hoist(r, innermost.body, (), schedule.axes, r.b.i64(0), context)
    plan = r.plans.get(id(innermost), LoopPlan())
    with r.b.loop(r.begin, r.end) as loop:
        names: dict[str, Value] = {}
        item = loop.index
        if len(nest) > 1:
            outer, item = _divmod(r, item, blocks)
            for stmt, extent in zip(reversed(nest[1:-1]), reversed(extents[1:-1]), strict=True):
                outer, names[stmt.axis] = _divmod(r, outer, extent)
            names[nest[0].axis] = outer
        low = item * schedule.block
        if schedule.block % 4 == 0:
            r.quad(low)
        for value in (*names.values(), low):
            r.bounded(value)
        high = low + schedule.block
        if schedule.block > 1:
            high = r.b.select(high.lt(extents[-1]), high, extents[-1])
        inner = context.bound(names)
        if schedule.block == 1 and not plan.is_vector:
            r.statements(innermost.body, inner.bound({innermost.axis: low}))
        else:
            loops.run(r, innermost, low, high, plan, inner)


def _divmod(r: Renderer, x: Value, y: Value) -> tuple[Value, Value]:
    """Return quotient and remainder of an item's number; y is positive wherever there are items."""
    if y.constant == 1:
        return x, r.b.i64(0)
    quotient = r.b.binary("udiv", x, y)
    return quotient, x - quotient * y


def _nest(kernel: Kernel, schedule: Schedule) -> list[For]:
    """Return the loops of `schedule.axes`, outermost first."""
    nest: list[For] = []
    body: tuple[Stmt, ...] = kernel.body
    for axis in schedule.axes:
        found = [s for s in body if isinstance(s, For) and s.axis == axis]
        if len(found) != 1 or (nest and len(body) != 1) or body[-1] is not found[0]:
            raise BackendError(f"{kernel.name}: the schedule's axes {schedule.axes} are not its outer loops")
        nest.append(found[0])
        body = found[0].body
    return nest
