"""Streaming stores: outputs larger than the last cache go to memory without being read first.

Owns the choice and the shape of loops that write past the caches (non-temporal stores), which spares a
third of the traffic of an elementwise kernel.  Works on a Renderer; x86 only.  Invariant: results do not
depend on the choice, which is made at run time from the outputs' sizes wherever they are not known.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphc.backends.llvm_cpu.builder import Value
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import For, Let, Random, Store
from graphc.kernel.schedule import LoopPlan

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.render import Context, Renderer

SHORT = 4  # loops of fewer vectors are not worth it


def outputs(r: Renderer, loop: For, plan: LoopPlan, context: Context) -> tuple[Store, ...]:
    """Return one Store for each output that `loop` may stream: written in full vectors along its axis,
    read nowhere in the kernel, of one element size; () where there are none."""
    if not (r.b.module.is_x86 and plan.is_vector and context.lanes == 1):
        return ()
    extent = walk.as_size(loop.extent)
    if isinstance(extent, int) and extent < SHORT * plan.lanes:
        return ()
    if not all(isinstance(s, Store | Let) for s in loop.body):
        return ()
    if any(isinstance(e, Random) for e in walk.all_expressions(loop.body)):
        return ()  # aligning the stores would tear the blocks of random words apart
    lets = frozenset(s.name for s in loop.body if isinstance(s, Let))
    params = {p.name: p for p in r.kernel.params if p.role == "out"}
    touched = {e.buffer for e in walk.loads(r.kernel.body)}
    found: dict[str, Store] = {}
    for s in loop.body:
        if not isinstance(s, Store) or s.buffer not in params or s.buffer in touched or s.predicate is not None:
            continue
        steps = [walk.coefficient(e, loop.axis, lets) for e in s.index]
        full = plan.lanes * params[s.buffer].dtype.size in (16, 32, 64)
        if full and steps and steps[-1] == 1 and all(step == 0 for step in steps[:-1]):
            found.setdefault(s.buffer, s)
    same = len({params[name].dtype.size for name in found}) == 1
    return tuple(found.values()) if same else ()


def is_large(r: Renderer, stores: tuple[Store, ...], lanes: int) -> Value:
    """Return whether the streamed outputs together exceed the last cache, are aligned alike, and none of
    them replaces an input, whose lines are in the cache already."""
    b = r.b
    total: Size = 0
    for s in stores:
        param = r.kernel.param(s.buffer)
        total = total + dim.product(param.shape) * param.dtype.size
    size = r.size(total)
    with b.entry():
        large = size.gt(b.target.l3)
        first, *others = (b.convert("ptrtoint", r.buffers[s.buffer].pointer, "i64") for s in stores)
        vector = lanes * r.buffers[stores[0].buffer].dtype.size
        if large.constant == 0:
            return large
        for other in others:
            large = large & ((first ^ other) & (vector - 1)).eq(0)
        for out, given in r.kernel.aliases:
            if any(s.buffer == out for s in stores):
                large = large & r.buffers[out].pointer.ne(r.buffers[given].pointer)
    return large


def run(r: Renderer, loop: For, low: Value, high: Value, context: Context, stores: tuple[Store, ...], large: Value,
        lanes: int, whole: Callable[[Value, Value], Value], edge: Callable[[Value, Value], None]) -> None:
    """Run a vector loop with plain or non-temporal stores, as `large` says.

    whole: renders full vectors of a range and returns where they end.  edge: renders the rest, masked.
    Non-temporal stores want aligned vectors: the elements before the first aligned one and those after the
    last whole vector are left to `edge`, whose code stands once, in a loop of two rounds around `whole`.
    """
    b = r.b
    name, size = stores[0].buffer, r.buffers[stores[0].buffer].dtype.size
    index = r.evaluate_all(stores[0].index, context.bound({loop.axis: low}))
    at = r.value(r.offset(name, index, context), context)
    address = b.convert("ptrtoint", b.at(r.buffers[name].pointer, at, f"i{8 * size}"), "i64")
    before = ((0 - address) & (lanes * size - 1)).logical_shift(size.bit_length() - 1)
    before = b.select(large, b.intrinsic("smin", before, high - low), b.i64(0))
    start, rest = low + before, b.alloca("i64")
    with b.loop(b.i64(0), b.i64(2)) as phase:
        first = phase.index.eq(0)
        edge(b.select(first, low, b.load(rest, "i64")), b.select(first, start, high))
        with b.when(first):
            if large.constant != 0:
                with b.when(large):
                    r.nontemporal = frozenset(s.buffer for s in stores)
                    b.store(whole(start, high), rest)
                    r.nontemporal = frozenset()
            if large.constant != 1:
                with b.when(~large):
                    b.store(whole(start, high), rest)
    r.streamed.append(large)


def fence(r: Renderer) -> None:
    """Order streamed stores before whatever the caller does next."""
    b = r.b
    if r.streamed:
        some = r.streamed[0]
        for large in r.streamed[1:]:
            some = some | large
        with b.when(some):
            b.declare("llvm.x86.sse.sfence", "void", ())
            b.line("call void @llvm.x86.sse.sfence()")
