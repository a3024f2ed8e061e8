"""Binding sizes in native code: a context's step table filled in for the sizes of a run.

Owns the function that does in a shared library what runtime/frame.py does in a session, from the same `Layout`: sizes,
which calls the threads share, memory, addresses.  Knows contexts; must not know the functions that C programs call.
Invariants: a context that is bound is complete; one whose binding failed says so, and the next run binds again.
"""
from __future__ import annotations

from graphc.backends.llvm_cpu.builder import Builder, Value
from graphc.interop.c_interface import Status
from graphc.interop.context import Code
from graphc.interop.messages import leave, leaving, null, text
from graphc.interop.size_program import Sizes, bad_size, read_fields
from graphc.ir import dim
from graphc.runtime import driver as d
from graphc.runtime.memory import ALIGNMENT
from graphc.runtime.threads import HOT_NS

_MOST_WORK = 1e15  # ns: work that is estimated to be more counts as this much


def write_bind(code: Code) -> None:
    """Define i32 @bind(context, sizes): make the table fit these sizes."""
    at, layout, interface = code.at, code.layout, code.interface
    b = Builder(code.module, "bind", (("context", "ptr", 1), ("sizes", "ptr", 1)), "i32", linkage="internal")
    context, sizes = b.parameters
    kept = code.part(b, context, at.SIZES)
    fields = list(read_fields(b, interface, sizes).values())
    same = b.load(code.part(b, context, at.BOUND), "i64").ne(0)
    for i, field in enumerate(fields):
        same = same & b.load(code.word(b, kept, i), "i64").eq(field)
    leave(b, same, Status.OK)
    b.store(b.i64(0), code.part(b, context, at.BOUND))
    told = b.call("check", ("i32", 1), sizes, code.part(b, context, at.text))
    leave(b, told.ne(Status.OK), told)
    first = b.call("evaluate", ("i64", 1), sizes, code.part(b, context, at.values))
    with leaving(b, first.ge(0), Status.BAD_SIZE):
        listed = ", ".join(f"ptr {text(code.module, bad_size(interface.rename(s)))}" for s in layout.sizes.sizes)
        code.module.constants["bad_sizes"] = (
            f"@bad_sizes = internal constant [{len(layout.sizes.sizes)} x ptr] [{listed}]\n")
        code.say(b, context, "%s", b.load(b.at(code.symbol(b, "bad_sizes"), first, "ptr"), "ptr"))
    table = code.part(b, context, at.table)

    def sized(where: Value, number: Value) -> None:
        b.store(code.size(b, context, number), code.word(b, table, where))

    code.each(b, "sized", len(layout.sized_at), sized)
    _make_room(code, b, context, table, *_bind_calls(code, b, context, table))
    arena = code.integer(b, b.load(code.part(b, context, at.ARENA), "ptr"))

    def temp(where: Value, number: Value) -> None:
        b.store(arena + code.size(b, context, number), code.word(b, table, where))

    def use(where: Value, cell: Value) -> None:
        b.store(b.load(code.word(b, table, cell), "i64"), code.word(b, table, where))

    code.each(b, "temps", len(layout.temp_at), temp)
    code.each(b, "uses", len(layout.use_at), use)
    for i, field in enumerate(fields):
        b.store(field, code.word(b, kept, i))
    b.store(b.i64(1), code.part(b, context, at.BOUND))
    b.ret(b.const(Status.OK, "i32"))
    b.finish()


def _bind_calls(code: Code, b: Builder, context: Value, table: Value) -> tuple[Value, Value]:
    """Decide for every call whether threads share it; return whether any is shared (i64), and bytes of scratch."""
    count = len(code.layout.call_at)
    calls, costs, scratches = (code.symbol(b, name) for name in ("calls", "costs", "scratches"))
    several = b.load(code.part(b, context, code.at.THREADS), "i64").gt(1)
    with b.loop(b.i64(0), b.i64(count), carried=[b.i64(0), b.i64(0)]) as loop:
        step, extent_at, scratch_at = (
            b.convert("sext", b.load(b.at(source, number, "i32"), "i32"), "i64") for source, number in
            ((calls, loop.index * 2), (calls, loop.index * 2 + 1), (scratches, loop.index)))
        extent = code.size(b, context, extent_at)
        estimate = b.convert("sitofp", extent, "double") * b.load(b.at(costs, loop.index, "double"), "double")
        most = b.const(_MOST_WORK, "double")
        work = b.convert("fptosi", b.select(estimate.lt(most), estimate, most), "i64")
        grain = b.load(code.word(b, table, step + 4), "i64")
        forks = several & work.ge(HOT_NS) & extent.gt(grain)
        op = b.select(extent.le(0), b.i64(d.SKIP), b.select(forks, b.i64(d.FORK), b.i64(d.CALL)))
        for offset, value in ((3, extent), (5, work), (6, op)):
            b.store(value, code.word(b, table, step + offset))
        loop.next = [loop.carried[0] | b.convert("zext", forks, "i64"),
                     b.intrinsic("smax", loop.carried[1], code.size(b, context, scratch_at))]
    return loop.results[0], loop.results[1]


def _make_room(code: Code, b: Builder, context: Value, table: Value, forks: Value, scratch: Value) -> None:
    """Have memory for the arena and the scratch of every worker; leave where there is not enough."""
    at = code.at
    workers = b.select(forks.ne(0), b.load(code.part(b, context, at.THREADS), "i64"), b.i64(1))
    sizes = Sizes(b, {"arena": code.size(b, context, code.layout.arena), "scratch": scratch, "workers": workers})
    start, stride = (dim.ceildiv(dim.symbol(part), ALIGNMENT) * ALIGNMENT for part in ("arena", "scratch"))
    total, wrong = sizes.value(start + stride * dim.symbol("workers"))
    assert wrong is not None
    room, capacity = code.part(b, context, at.ARENA), code.part(b, context, at.CAPACITY)
    with leaving(b, wrong, Status.OUT_OF_MEMORY):
        code.say(b, context, "not enough memory for these sizes")
    with b.when(total.gt(b.load(capacity, "i64"))):
        code.free(b, b.load(room, "ptr"))
        b.store(b.i64(0), capacity)
        b.store(null(b), room)
        with leaving(b, code.allocate(b, room, total), Status.OUT_OF_MEMORY):
            b.store(null(b), room)
            code.say(b, context, "not enough memory for these sizes: %lld bytes are needed", total)
        b.store(total, capacity)
    base = code.integer(b, b.load(room, "ptr"))
    b.store(base + sizes.value(start)[0], code.word(b, table, d.FRAME_SCRATCH))
    b.store(sizes.value(stride)[0], code.word(b, table, d.FRAME_STRIDE))
