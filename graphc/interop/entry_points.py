"""The functions of a shared library that C programs call, as LLVM IR.

Owns them: making and ending contexts, running, telling shapes and errors.  They do for C programs what
runtime/executor.py does for sessions, with the same step driver.  Knows contexts and interfaces; must not know how
objects are made or linked.  Invariants: nothing is written outside a context's memory and the caller's outputs; after
a failed call the context can be used again.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.backends.llvm_cpu.builder import Builder, Value
from graphc.errors import report
from graphc.interop.binding import write_bind
from graphc.interop.c_interface import MEANINGS, ArrayField, Interface, Status
from graphc.interop.context import Code, Variable, tables
from graphc.interop.cpu import write_cpu_check
from graphc.interop.messages import leave, leaving, named, null, text
from graphc.interop.size_program import Sizes, read_fields, write_check, write_evaluate
from graphc.ir import dim
from graphc.kernel.plan import Call, Plan
from graphc.kernel.target import Target
from graphc.runtime import driver as d
from graphc.runtime.frame import Layout
from graphc.runtime.threads import OVERSUBSCRIPTION_LIMIT, SPIN_NS, YIELD_NS

TRIPLE = "x86_64-unknown-linux-gnu"
IMPORTS = ("snprintf", "posix_memalign", "free", "getpid", "getrandom")  # besides the driver's

_CPU_WORDS = 128  # of a set of 8192 CPUs, more than Linux supports


def entry_text(interface: Interface, plan: Plan, layout: Layout, kernels: Sequence[str], constants: Sequence[str],
               variables: Sequence[Variable], target: Target, version: str) -> str:
    """Return the LLVM module that defines the functions of `interface`.

    layout: of a program whose addresses are the kernels' numbers.  kernels: symbols of the functions.  constants:
    symbols of the plan's constants.  variables: one per state.  target: what the kernels were compiled for.
    """
    code = _EntryPoints(interface, plan, layout, variables)
    module = code.module
    for name in kernels:
        module.declarations[name] = f"declare i32 @{name}(i64, i64, ptr, ptr, i64, ptr)\n"
    for name in (*tables(layout), *constants, *(v.data for v in variables if v.data)):
        module.constants[name] = f"@{name} = external constant i8\n"
    write_cpu_check(module, target.features)
    write_check(module, interface, plan)
    write_evaluate(module, interface, layout.sizes.sizes)
    code.threads()
    write_bind(code)
    code.create(kernels, constants)
    code.destroy()
    code.run()
    for output in interface.outputs:
        code.shape(output)
    code.words(version)
    return module.text()


class _EntryPoints(Code):
    """Writes the functions of one library."""

    # -- creating and destroying -----------------------------------------------------------------------

    def threads(self) -> None:
        """Define i64 @cpus(): how many CPUs this process may use."""
        b = Builder(self.module, "cpus", (), "i64", linkage="internal")
        allowed = b.alloca("i64", count=_CPU_WORDS)
        self.clear(b, allowed, 8 * _CPU_WORDS)
        told = self.call(b, "sched_getaffinity", "i32", b.const(0, "i32"), b.i64(8 * _CPU_WORDS), allowed)
        with b.loop(b.i64(0), b.i64(_CPU_WORDS), carried=[b.i64(0)]) as loop:
            loop.next = [loop.carried[0] + b.intrinsic("ctpop", b.load(self.word(b, allowed, loop.index), "i64"))]
        b.ret(b.select(told.lt(0), b.i64(1), b.intrinsic("smax", loop.results[0], b.i64(1))))
        b.finish()

    def create(self, kernels: Sequence[str], constants: Sequence[str]) -> None:
        module, at = self.module, self.at
        listed = ", ".join(f"ptr @{name}" for name in kernels)
        module.constants["kernels"] = f"@kernels = internal constant [{len(kernels)} x ptr] [{listed}]\n"
        b = self.function("create", "i32", "options", "out")
        options, out = b.parameters
        leave(b, out.eq(null(b)), Status.BAD_ARGUMENT)
        b.store(null(b), out)
        leave(b, b.call("cpu_can", ("i1", 1)).eq(0), Status.UNSUPPORTED_CPU)
        wanted = b.alloca("i32")
        b.store(b.const(0, "i32"), wanted)
        with b.when(options.ne(null(b))):
            b.store(b.load(options, "i32"), wanted)
        asked = b.convert("sext", b.load(wanted, "i32"), "i64")
        leave(b, asked.lt(0), Status.BAD_ARGUMENT)
        cpus = b.call("cpus", ("i64", 1))
        most = b.intrinsic("smax", cpus, b.i64(OVERSUBSCRIPTION_LIMIT))
        threads = b.select(asked.eq(0), cpus, b.intrinsic("smin", asked, most))

        block = b.alloca("ptr")
        leave(b, self.allocate(b, block, b.i64(at.nbytes)), Status.OUT_OF_MEMORY)
        context = b.load(block, "ptr")
        self.clear(b, context, at.table)
        b.store(threads, self.part(b, context, at.THREADS))
        b.store(b.convert("zext", self.call(b, "getpid", "i32"), "i64"), self.part(b, context, at.PROCESS))
        self._write_variables(b, context)
        with b.when(threads.gt(1)):
            pool = self.call(b, "graphc_pool_new", "ptr", b.convert("trunc", threads, "i32"), b.i64(SPIN_NS),
                             b.i64(YIELD_NS), b.convert("zext", threads.le(cpus), "i32"))
            with leaving(b, pool.eq(null(b)), Status.OUT_OF_MEMORY):
                self.free(b, context)
            b.store(pool, self.part(b, context, at.POOL))
        self._write_table(b, context, constants)
        b.store(context, out)
        b.ret(b.const(Status.OK, "i32"))
        b.finish()

    def _write_table(self, b: Builder, context: Value, constants: Sequence[str]) -> None:
        """Write what does not depend on sizes: relative addresses, kernels, constants, variables."""
        layout, table = self.layout, self.part(b, context, self.at.table)
        self.copy(b, table, self.symbol(b, "template"), b.i64(layout.template.nbytes))
        base = self.integer(b, table)
        with b.loop(b.i64(0), b.i64(len(layout.relative))) as loop:
            number = b.load(b.at(self.symbol(b, "relative"), loop.index, "i32"), "i32")
            where = self.word(b, table, b.convert("sext", number, "i64"))
            b.store(b.load(where, "i64") + base, where)

        def function(step: Value, _: Value) -> None:
            where = self.word(b, table, step)
            b.store(b.load(b.at(self.symbol(b, "kernels"), b.load(where, "i64"), "ptr"), "ptr"), where)

        self.each(b, "calls", len(layout.call_at), function)
        b.store(b.load(self.part(b, context, self.at.POOL), "ptr"), self.word(b, table, d.FRAME_POOL))
        for i, buffer in enumerate(self.plan.buffers):
            match buffer.role:
                case "constant":
                    memory = self.symbol(b, constants[buffer.source])
                case "state" if self.variables[buffer.source].private:
                    memory = self.part(b, context, self.at.variables[buffer.source])
                case "state":
                    memory = self.symbol(b, self.variables[buffer.source].data)
                case _:
                    continue
            b.store(memory, self.word(b, table, layout.cells + i))

    def _write_variables(self, b: Builder, context: Value) -> None:
        """Give the variables their first contents; end the context and leave where the system denies its part."""
        for variable, offset in zip(self.variables, self.at.variables, strict=True):
            if not variable.private:
                continue
            memory = self.part(b, context, offset)
            if variable.data:
                self.copy(b, memory, self.symbol(b, variable.data), b.i64(variable.nbytes))
            else:
                self.clear(b, memory, variable.nbytes)
            start, end = variable.drawn
            if end > start:
                place, wanted = self.part(b, memory, start), b.i64(end - start)
                drawn = self.call(b, "getrandom", "i64", place, wanted, b.const(0, "i32"))
                with leaving(b, drawn.ne(wanted), Status.SYSTEM_FAILED):
                    self.free(b, context)

    def destroy(self) -> None:
        b = self.function("destroy", "void", "context")
        context, = b.parameters
        with b.when(context.ne(null(b))):
            pool = b.load(self.part(b, context, self.at.POOL), "ptr")
            made_in = b.load(self.part(b, context, self.at.PROCESS), "i64")
            here = b.convert("zext", self.call(b, "getpid", "i32"), "i64")
            with b.when(pool.ne(null(b)) & made_in.eq(here)):  # the workers do not exist in the child of a fork
                b.declare("graphc_pool_stop", "void", ["ptr"])
                b.line(f"call void @graphc_pool_stop({pool.typed})")
            for block in (pool, b.load(self.part(b, context, self.at.ARENA), "ptr"), context):
                self.free(b, block)
        b.ret()
        b.finish()

    def shape(self, output: ArrayField) -> None:
        """Define the function that tells the shape of one output."""
        fields = (["sizes"] if self.interface.sizes else []) + (["shape"] if output.shape else [])
        b = self.function(f"shape_of_{output.name}", "i64", *fields)
        given = dict(zip(fields, b.parameters, strict=True))
        sizes = given.get("sizes", null(b))
        if self.interface.sizes:
            leave(b, sizes.eq(null(b)), b.i64(-Status.BAD_ARGUMENT))
        told = b.call("check", ("i32", 1), sizes, null(b))
        leave(b, told.ne(Status.OK), 0 - b.convert("sext", told, "i64"))
        computed = Sizes(b, read_fields(b, self.interface, sizes))
        count, *shape = (computed.value(size) for size in (dim.product(output.shape), *output.shape))
        for _, wrong in (count, *shape):
            if wrong is not None:
                leave(b, wrong, b.i64(-Status.BAD_SIZE))
        if output.shape:
            with b.when(given["shape"].ne(null(b))):
                for axis, (extent, _) in enumerate(shape):
                    b.store(extent, self.word(b, given["shape"], axis))
        b.ret(count[0])
        b.finish()

    # -- running ----------------------------------------------------------------------------------------

    def run(self) -> None:
        interface, at = self.interface, self.at
        groups = [name for name in ("sizes", "inputs", "outputs") if getattr(interface, name)]
        b = self.function("run", "i32", "context", *groups)
        context, *structs = b.parameters
        given = dict(zip(groups, structs, strict=True))
        leave(b, context.eq(null(b)), Status.BAD_ARGUMENT)
        b.store(b.const(0, "i8"), self.part(b, context, at.text))
        for name, struct in given.items():
            with leaving(b, struct.eq(null(b)), Status.BAD_ARGUMENT):
                self.say(b, context, f"{name} is NULL")
        told = b.call("bind", ("i32", 1), context, given.get("sizes", null(b)))
        leave(b, told.ne(Status.OK), told)
        table = self.part(b, context, at.table)
        inputs = self._arrays(b, context, table, "inputs", given, self.layout.feed_words)
        self._fed_sizes(b, context, given, inputs)
        outputs = self._arrays(b, context, table, "outputs", given, self.layout.fetch_words)
        self._drive(b, context, table)
        for i, source in enumerate(self.plan.fetch_sources):
            buffer = self.plan.buffers[source]
            if (buffer.role, buffer.source) != ("fetch", i):
                memory = b.load(self.word(b, table, self.layout.cells + source), "ptr")
                self.copy(b, outputs[i], memory, self._nbytes(b, context, "fetch", i))
        b.ret(b.const(Status.OK, "i32"))
        b.finish()

    def _nbytes(self, b: Builder, context: Value, role: str, number: int) -> Value:
        """Return the bytes of a feed or fetch.  They fit: the arrays of a caller lie in memory."""
        slots = {"feed": self.plan.feeds, "fetch": self.plan.fetches}[role]
        total = b.i64(slots[number].dtype.size)
        for size in self.layout.slot_shapes[role][number]:
            known = self.layout.sizes.sizes[size]
            total = total * (b.i64(known) if isinstance(known, int) else self.size(b, context, size))
        return total

    def _arrays(self, b: Builder, context: Value, table: Value, group: str, given: Mapping[str, Value],
                words: int) -> list[Value]:
        """Write the caller's pointers into the table; return them.  Null is allowed where nothing is to be read."""
        role, fields = ("feed", self.interface.inputs) if group == "inputs" else ("fetch", self.interface.outputs)
        pointers = []
        for i, field in enumerate(fields):
            pointer = b.load(b.at(given[group], b.i64(i), "ptr"), "ptr")
            missing = pointer.eq(null(b)) & self._nbytes(b, context, role, i).ne(0)
            with leaving(b, missing, Status.BAD_ARGUMENT):
                self.say(b, context, f"{group}->{field.name} is NULL")
            if field.dtype.size > 1:
                with leaving(b, (self.integer(b, pointer) & (field.dtype.size - 1)).ne(0), Status.BAD_ARGUMENT):
                    self.say(b, context, f"{group}->{field.name} is not aligned to its elements of "
                                         f"{field.dtype.size} bytes")
            b.store(pointer, self.word(b, table, words + i))
            pointers.append(pointer)
        return pointers

    def _fed_sizes(self, b: Builder, context: Value, given: Mapping[str, Value], inputs: Sequence[Value]) -> None:
        """See that the integers that are fed as sizes are the sizes that were given."""
        for i, field in enumerate(self.interface.sizes):
            if field.element is None:
                continue
            feed, element = field.element
            dtype = self.interface.inputs[feed].dtype
            kind = f"i{dtype.bits}"
            fed = b.convert("zext" if dtype.is_unsigned else "sext",
                            b.load(b.at(inputs[feed], b.i64(element), kind), kind), "i64")
            size = b.load(b.at(given["sizes"], b.i64(i), "i64"), "i64")
            with leaving(b, fed.ne(size), Status.BAD_SIZE):
                self.say(b, context, f"sizes->{field.name} is %lld, but {field.told} is %lld", size, fed)

    def _drive(self, b: Builder, context: Value, table: Value) -> None:
        """Run the table until it is done; leave where a kernel fails, with what it says."""
        run, again, over = b.new_block(), b.new_block(), b.new_block()
        before = b.block
        b.branch(run)
        b.start_block(run)
        resume = Value(b, b.fresh(), "i64")
        b.line(f"{resume.text} = phi i64 [ 0, %{before} ], [ 1, %{again} ]")
        event = self.call(b, "graphc_run", "i64", table, resume)
        b.branch_if(event.eq(d.TICK), again, over)
        b.start_block(again)
        b.branch(run)
        b.start_block(over)
        with leaving(b, event.ne(d.DONE), Status.KERNEL_FAILED):
            first, texts = (self.symbol(b, name) for name in self._sites())
            step = b.load(self.word(b, table, d.FRAME_AT), "ptr")
            origin = b.load(self.word(b, step, d.STEP_WORDS - 1), "i64")
            site = b.load(b.at(first, origin, "i64"), "i64") + b.load(self.word(b, table, d.FRAME_STATUS), "i64") - 1
            self.say(b, context, "%s", b.load(b.at(texts, site, "ptr"), "ptr"))

    def _sites(self) -> tuple[str, str]:
        """Define two tables and return their names: the first site of every plan step's kernel; the sites' texts."""
        starts: list[int] = []
        texts: list[str] = []
        for kernel in self.plan.kernels:
            starts.append(len(texts))
            texts += [report(named(s.op, s.message), self.plan.lines.get(s.op)) for s in kernel.sites]
        first = [starts[step.kernel] if isinstance(step, Call) else 0 for step in self.layout.origins]
        listed = ", ".join(f"ptr {text(self.module, t)}" for t in texts)
        self.module.constants["first_sites"] = (
            f"@first_sites = internal constant [{len(first)} x i64] [{', '.join(f'i64 {n}' for n in first)}]\n")
        self.module.constants["sites"] = f"@sites = internal constant [{len(texts)} x ptr] [{listed}]\n"
        return "first_sites", "sites"

    # -- words -------------------------------------------------------------------------------------------

    def words(self, version: str) -> None:
        """Define the functions that tell texts and the digest of the interface."""
        b = self.function("error_text", "ptr", "context")
        context, = b.parameters
        missing = Value(b, text(self.module, "the context is NULL"), "ptr")
        b.ret(b.select(context.eq(null(b)), missing, self.part(b, context, self.at.text)))
        b.finish()

        listed = ", ".join(f"ptr {text(self.module, MEANINGS[s])}" for s in Status)
        self.module.constants["statuses"] = f"@statuses = internal constant [{len(Status)} x ptr] [{listed}]\n"
        b = Builder(self.module, f"{self.interface.prefix}_status_text", (("status", "i32", 1),), "ptr")
        status, = b.parameters
        leave(b, status.compare("ugt", max(Status)), Value(b, text(self.module, "unknown status"), "ptr"))
        b.ret(b.load(b.at(self.symbol(b, "statuses"), b.convert("zext", status, "i64"), "ptr"), "ptr"))
        b.finish()

        b = self.function("interface", "i64")
        b.ret(b.i64(self.interface.digest))
        b.finish()
        b = self.function("version", "ptr")
        b.ret(Value(b, text(self.module, version), "ptr"))
        b.finish()
