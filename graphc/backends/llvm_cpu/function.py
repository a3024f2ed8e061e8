"""One kernel as one LLVM function: the loop over its work items around the rendered body.

Owns the calling convention of backends/base.py on this backend, the split of a kernel's outer loops into
work items as its Schedule says, and non-temporal stores.  Knows kernel IR, schedules and the renderer;
imports no LLVM.  Invariant: what one work item computes does not depend on which others the call runs.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.backends.llvm_cpu import contract, loops
from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.backends.llvm_cpu.render import Context, Renderer
from graphc.errors import BackendError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import Contract, For, Kernel, Let, Stmt, Store
from graphc.kernel.schedule import LoopPlan, Schedule
from graphc.kernel.target import Target

NAME = "kernel"  # the function's name until its text is hashed
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
        extent, grain, cost = schedule.extent, schedule.grain, schedule.cost
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
    streams = _streams(r, kernel, innermost, plan)
    large = _is_large(r, streams, plan.lanes) if streams else None
    with r.b.loop(r.begin, r.end) as loop:
        names: dict[str, Value] = {}
        item = loop.index
        if len(nest) > 1:
            outer, item = _divmod(r, item, blocks)
            for stmt, extent in zip(reversed(nest[1:-1]), reversed(extents[1:-1]), strict=True):
                outer, names[stmt.axis] = _divmod(r, outer, extent)
            names[nest[0].axis] = outer
        low = item * schedule.block
        for value in (*names.values(), low):
            r.bounded(value)
        high = low + schedule.block
        if schedule.block > 1:
            high = r.b.select(high.lt(extents[-1]), high, extents[-1])
        inner = context.bound(names)

        def body(at: Context, _: int) -> None:
            r.statements(innermost.body, at)

        if schedule.block == 1 and not plan.is_vector:
            body(inner.bound({innermost.axis: low}), 0)
        elif large is not None:
            _streaming(r, innermost, low, high, plan, inner, streams, large)
        else:
            loops.along(r, innermost.axis, low, high, plan, inner, body)
    if large is not None:
        with r.b.when(large):
            r.b.declare("llvm.x86.sse.sfence", "void", ())
            r.b.line("call void @llvm.x86.sse.sfence()")


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


# ---------------------------------------------------------------------------------------------
# Streaming: outputs larger than the cache go to memory without being read first.


def _streams(r: Renderer, kernel: Kernel, loop: For, plan: LoopPlan) -> tuple[str, ...]:
    """Return the outputs that a plain elementwise loop writes in full vectors, never reads, and that may
    bypass the cache; () where there are none."""
    if not r.b.module.is_x86 or not plan.is_vector or not all(isinstance(s, Store | Let) for s in loop.body):
        return ()
    read = {e.buffer for e in walk.loads(kernel.body)}
    aliased = {name for pair in kernel.aliases for name in pair}
    outputs = []
    for s in loop.body:
        if isinstance(s, Store):
            param = kernel.param(s.buffer)
            vector = plan.lanes * param.dtype.size
            if param.role == "out" and s.predicate is None and s.buffer not in read | aliased \
                    and vector in (16, 32, 64) and len(s.index) == 1 and walk.coefficient(s.index[0], loop.axis) == 1:
                outputs.append(s.buffer)
    alike = len({kernel.param(name).dtype.size for name in outputs}) == 1
    return tuple(dict.fromkeys(outputs)) if alike else ()


def _is_large(r: Renderer, streams: tuple[str, ...], lanes: int) -> Value:
    """Return whether the streamed outputs together exceed the last cache and are aligned alike."""
    b, total = r.b, dim.product(())
    for name in streams:
        param = r.kernel.param(name)
        total = total + dim.product(param.shape) * param.dtype.size
    large = r.size(total).gt(b.target.l3)
    first, *others = (b.convert("ptrtoint", r.buffers[name].pointer, "i64") for name in streams)
    vector = lanes * r.buffers[streams[0]].dtype.size
    for other in others:
        large = large & ((first ^ other) & (vector - 1)).eq(0)
    return large


def _streaming(r: Renderer, loop: For, low: Value, high: Value, plan: LoopPlan, context: Context,
               streams: tuple[str, ...], large: Value) -> None:
    """Render the vector loop twice, with plain and with non-temporal stores; `large` chooses.

    Non-temporal stores want whole aligned vectors: the elements before the first aligned one and those
    after the last whole vector are left to one masked step, which the code holds once.
    """
    b = r.b
    size = r.buffers[streams[0]].dtype.size
    element = f"i{8 * size}"
    vector = plan.lanes * size

    def body(at: Context, _: int) -> None:
        r.statements(loop.body, at)

    address = b.convert("ptrtoint", b.at(r.buffers[streams[0]].pointer, low, element), "i64")
    before = ((0 - address) & (vector - 1)).logical_shift(size.bit_length() - 1)
    before = b.select(large, b.intrinsic("smin", before, high - low), b.i64(0))
    start = low + before
    rest = b.alloca("i64")
    with b.loop(b.i64(0), b.i64(2)) as phase:
        first = phase.index.eq(0)
        edge = b.select(first, low, b.load(rest, "i64"))
        loops.masked_steps(r, loop.axis, edge, b.select(first, start, high), plan, context, body)
        with b.when(first):
            with b.when(large):
                r.nontemporal = frozenset(streams)
                b.store(loops.whole_steps(r, loop.axis, start, high, plan, context, body), rest)
                r.nontemporal = frozenset()
            with b.when(~large):
                b.store(loops.whole_steps(r, loop.axis, start, high, plan, context, body), rest)
