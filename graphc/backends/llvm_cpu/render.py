"""From kernel IR to LLVM values and instructions: expressions, memory and statements in a vector context.

Owns `Renderer` (one per kernel: buffers, sizes, status) and `Context` (what the names mean here, how
many lanes, which of them are on).  Knows nothing of work items (function.py) nor of products
(contract.py), which both stand on it.  Loops live in loops.py, primitives in primitives.py.
Invariants: a value that does not depend on the lane axis stays scalar; indices stay `base + lane * step`
(`Linear`) as long as they are; memory is touched only by lanes that are on; where a context is being
rendered at least one lane is on.

How contract.py works on top of this:

    contract.partition(kernel, statement, target) -> Partition(extent, grain, scratch, cost, tiling)
    contract.emit(renderer, kernel, statement, partition, context) -> None

`emit` builds, at the end of the current block of `renderer.b`, the loop over the work items
`renderer.begin` <= t < `renderer.end` (i64 Values) and leaves the builder in the block where the kernel
goes on.  `context` is scalar and binds the Lets before the Contract.  In it:

- `renderer.evaluate(expr, context) -> Operand`, `renderer.vector(expr, context) -> Value` (all lanes),
  `renderer.scalar(expr, context) -> Value` (uniform, else an error);
- `renderer.statements(body, context.bound({...}, lanes=W, mask=None or <W x i1>))` runs an epilogue: bind
  each batch and m axis to an i64 scalar, the lane axis n to `Linear(base, renderer.b.i64(1))`, and the
  accumulator's name to a vector Value of W lanes (or lanes=1 and scalars throughout for scalar code);
- `renderer.buffers[name]` is a `Buffer` (pointer, dtype, strides as i64 Values, in elements);
  `renderer.offset(name, index, context) -> Operand` the element's number; `renderer.size(dim) -> Value`;
- `renderer.scratch` is the worker's scratch address; a Contract kernel's Locals live on the stack or
  behind the `scratch` bytes that `Partition` asks for, which are rounded up to 64.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from graphc import dtypes
from graphc.backends.llvm_cpu import block_contract, loops, primitives, random
from graphc.backends.llvm_cpu.builder import Builder, Value
from graphc.backends.llvm_cpu.convert import cast
from graphc.backends.llvm_cpu.sizes import Sizes
from graphc.dtypes import DType
from graphc.errors import BackendError
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.kernel import walk
from graphc.kernel.ir import (
    Axis,
    Const,
    Contract,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Prim,
    Random,
    Reduce,
    Scan,
    Scatter,
    SizeOf,
    Stmt,
    Store,
    Var,
    While,
)
from graphc.kernel.schedule import LoopPlan

STACK_LIMIT = 16 << 10  # bytes of a Local that may live on the stack


@dataclass(frozen=True, slots=True)
class Linear:
    """An int64 per lane: base + lane * step, both scalars."""

    base: Value
    step: Value


Operand: TypeAlias = Value | Linear


@dataclass(frozen=True, slots=True)
class Buffer:
    """A parameter or Local: address, dtype, strides in elements.

    interleave: copies of a Local, one per lane, that lie side by side (1 for everything else).
    """

    pointer: Value
    dtype: DType
    strides: tuple[Value, ...]
    interleave: int = 1


@dataclass(slots=True)
class Context:
    """names: what axes and Vars are here.  lanes: the vector's, 1 for scalar code.  mask: the lanes that
    are on (None: all).  hoisted: values of expressions (by identity) that were computed before a loop.
    private: the Locals that have one copy per lane here."""

    names: dict[str, Operand] = field(default_factory=dict)
    lanes: int = 1
    mask: Value | None = None
    hoisted: dict[int, Operand] = field(default_factory=dict)
    private: frozenset[str] = frozenset()

    def bound(self, names: Mapping[str, Operand], lanes: int | None = None, mask: Value | None = None) -> Context:
        """Return an inner context with more names; with `lanes`, a vector context with this mask."""
        inner = Context({**self.names, **names}, self.lanes, self.mask, self.hoisted, self.private)
        return inner if lanes is None else replace(inner, lanes=lanes, mask=mask)

    def masked(self, mask: Value) -> Context:
        """Return an inner context whose lanes are those of `mask`."""
        return Context(dict(self.names), self.lanes, mask, self.hoisted, self.private)


class Renderer:
    """Renders the statements of one kernel into one function.

    begin, end: the work items (i64).  plans: the LoopPlan of each loop statement, by identity.
    extra: bytes of scratch below which no Local is placed (what a Contract keeps for itself).
    """

    def __init__(self, kernel: Kernel, builder: Builder, plans: Mapping[int, LoopPlan], extra: Size = 0) -> None:
        self.kernel, self.b, self.plans = kernel, builder, plans
        self.begin, self.end, buffers, size_table, _, self.scratch = builder.parameters
        self.sizes = Sizes(builder, kernel.sizes, size_table)
        self.scratch_bytes: Size = extra
        self.nontemporal: frozenset[str] = frozenset()
        self.streamed: list[Value] = []
        self._bounded: set[str] = set()  # names of values far below 2^52 in magnitude
        self._quads: set[str] = set()  # names of multiples of 4
        self._groups = random.Groups()
        self._has_random = any(isinstance(e, Random) for e in walk.all_expressions(kernel.body))
        self._written = {s.buffer for s in walk.stores(kernel.body)}
        self._status: Value | None = None
        self._spare: Value | None = None
        self.buffers: dict[str, Buffer] = {}
        with builder.entry():
            for i, p in enumerate(kernel.params):
                pointer = builder.load(builder.at(buffers, builder.i64(i), "ptr"), "ptr")
                self.buffers[p.name] = Buffer(pointer, p.dtype, self.sizes.strides(p.shape))
            if kernel.sites:
                self._status = builder.alloca("i32")
                builder.store(builder.const(-1, "i32"), self._status)

    # -- sizes and buffers --------------------------------------------------------------------

    def size(self, size: Size) -> Value:
        """Return a size as an i64; each distinct one is computed once, at entry."""
        value = self.sizes.value(size)
        if value.constant is None:
            self._bounded.add(value.text)
        return value

    def bounded(self, index: Value) -> None:
        """Note that an i64 is an index: far below 2^52 in magnitude."""
        self._bounded.add(index.text)

    def linear(self, index: Value) -> Linear:
        """Return index + lane."""
        return Linear(index, self.b.i64(1))

    def is_read_only(self, buffer: str) -> bool:
        """Return whether `buffer` is a parameter that this kernel does not write, under any name."""
        alias = {name for pair in self.kernel.aliases if buffer in pair for name in pair} | {buffer}
        return all(p.role == "in" for p in self.kernel.params if p.name == buffer) and not alias & self._written \
            and any(p.name == buffer for p in self.kernel.params)

    def exists(self, load: Load) -> bool:
        """Return whether the element that `load` reads is known to exist at every size."""
        param = next((p for p in self.kernel.params if p.name == load.buffer), None)
        return param is not None and load.predicate is None and all(
            isinstance(extent, int) and isinstance(i, Const) and 0 <= i.value < extent
            for i, extent in zip(load.index, param.shape, strict=True))

    # -- expressions --------------------------------------------------------------------------

    def evaluate(self, root: Expr, context: Context) -> Operand:
        """Return the value of an expression; scalar or Linear where it can be."""
        return self.evaluate_all((root,), context)[0]

    def evaluate_all(self, roots: Sequence[Expr], context: Context) -> list[Operand]:
        """Return the values of several expressions, sharing subexpressions that are the same object."""
        done: dict[int, Operand] = {}
        stack: list[tuple[Expr, bool]] = [(e, False) for e in reversed(roots)]
        while stack:
            expr, ready = stack.pop()
            if id(expr) in done:
                continue
            if id(expr) in context.hoisted:
                done[id(expr)] = context.hoisted[id(expr)]
                continue
            below = walk.children(expr)
            if ready or not below:
                done[id(expr)] = self._node(expr, [done[id(c)] for c in below], context)
            else:
                stack.append((expr, True))
                stack.extend((c, False) for c in reversed(below))
        return [done[id(e)] for e in roots]

    def vector(self, expr: Expr, context: Context) -> Value:
        """Return the value of an expression in every lane."""
        return self.b.splat(self.value(self.evaluate(expr, context), context), context.lanes)

    def scalar(self, expr: Expr, context: Context) -> Value:
        """Return the value of an expression that is the same in all lanes.  Raises BackendError if it is not."""
        value = self.evaluate(expr, context)
        if isinstance(value, Linear) or value.lanes != 1:
            raise BackendError(f"{self.kernel.name}: a value differs between the lanes of a vector where it must not")
        return value

    def value(self, operand: Operand, context: Context) -> Value:
        """Return an operand as a plain value: a Linear becomes a vector."""
        if isinstance(operand, Value):
            return operand
        vector = self.b.splat(operand.base, context.lanes) + self._ramp(operand.step, "i64", context.lanes)
        if operand.base.text in self._bounded or operand.base.constant is not None:
            self._bounded.add(vector.text)
        if operand.step.constant == 1 and self.is_quad(operand.base):
            self._groups.counts(vector)
        return vector

    def _ramp(self, step: Value, element: str, lanes: int) -> Value:
        if step.constant is not None:
            return self.b.listed([step.constant * i for i in range(lanes)], element)
        return self.b.iota(element, lanes) * step

    def _node(self, expr: Expr, args: list[Operand], context: Context) -> Operand:
        b = self.b
        match expr:
            case Const(value=literal, dtype=dtype):
                return primitives.constant(b, literal, dtype)
            case Axis(name=name) | Var(name=name):
                if name not in context.names:
                    raise BackendError(f"{self.kernel.name}: {name!r} is not bound")
                return context.names[name]
            case SizeOf(size=size):
                return self.size(size)
            case Load():
                count = len(expr.index)
                rest = [self.value(a, context) for a in args[count:]]
                predicate = rest.pop(0) if expr.predicate is not None else None
                return self.load(expr.buffer, args[:count], context, predicate, rest[0] if rest else None)
            case Prim(op=op, dtype=dtype):
                source = expr.args[1].dtype if op == "select" else expr.args[0].dtype
                return self._primitive(op, source, dtype, args, context)
            case Guard(site=site):
                value, ok, fallback = (self.value(a, context) for a in args)
                self._check(ok, site, context)
                if isinstance(args[0], Linear) and ok.constant:
                    return args[0]
                return b.select(ok, value, fallback)
            case Random():
                low, high, key, lane = (self.value(a, context) for a in args)
                taken = self._groups.taken((low, high, key), lane)
                return random.word(b, low, high, key, lane) if taken is None else random.words(b, low, high, key, taken)

    def is_quad(self, x: Value) -> bool:
        """Return whether an index is known to be a multiple of 4."""
        return x.constant % 4 == 0 if x.constant is not None else x.text in self._quads

    def quad(self, index: Value, *sources: Value) -> None:
        """Note that an index is a multiple of 4 if all its sources are."""
        if all(self.is_quad(s) for s in sources):
            self._quads.add(index.text)

    def _primitive(self, op: str, source: DType, dtype: DType, args: list[Operand], context: Context) -> Operand:
        if dtype is dtypes.int64 and any(isinstance(a, Linear) for a in args):
            linear = self._linear(op, args)
            if linear is not None:
                return linear
        if op == "cast" and isinstance(args[0], Linear) and dtype.is_integer:
            if dtype.size == 8:
                return args[0]  # the bits are the same
            element = f"i{dtype.bits}"
            base, step = (self.b.convert("trunc", v, element) for v in (args[0].base, args[0].step))
            return self.b.splat(base, context.lanes) + self._ramp(step, element, context.lanes)
        values = [self.value(a, context) for a in args]
        bounded = source is dtypes.int64 and all(v.constant is not None or v.text in self._bounded for v in values)
        result = primitives.apply(self.b, op, source, values, dtype, bounded)
        if bounded and dtype is dtypes.int64 and op in primitives.KEEPS_BOUNDS:
            self._bounded.add(result.text)
        if self._has_random:
            if (op == "mul" and any(self.is_quad(v) for v in values)) or op in ("add", "sub"):
                self.quad(result, *(values if op != "mul" else ()))
            if result.lanes > 1 and result.lanes % 4 == 0:
                self._groups.note(op, values, result)
        return result

    def _linear(self, op: str, args: list[Operand]) -> Linear | None:
        """Return a sum, difference or product with Linear arguments as a Linear, None where it is none."""
        if any(isinstance(a, Value) and a.lanes != 1 for a in args):
            return None
        zero = self.b.i64(0)
        pairs = [(a.base, a.step) if isinstance(a, Linear) else (a, zero) for a in args]
        match op:
            case "add":
                base, step = pairs[0][0] + pairs[1][0], pairs[0][1] + pairs[1][1]
                self.quad(base, pairs[0][0], pairs[1][0])
            case "sub":
                base, step = pairs[0][0] - pairs[1][0], pairs[0][1] - pairs[1][1]
            case "neg":
                base, step = 0 - pairs[0][0], 0 - pairs[0][1]
            case "mul" if isinstance(args[0], Value) or isinstance(args[1], Value):
                scale = pairs[0][0] if isinstance(args[0], Value) else pairs[1][0]
                moving = pairs[1] if isinstance(args[0], Value) else pairs[0]
                base, step = moving[0] * scale, moving[1] * scale
            case _:
                return None
        if all(v.constant is not None or v.text in self._bounded for p in pairs for v in p):
            self._bounded.update(v.text for v in (base, step) if v.constant is None)
        return Linear(base, step)

    def _check(self, ok: Value, site: int, context: Context) -> None:
        """Record the failure of `site` in lanes that are on and where `ok` does not hold."""
        b = self.b
        if ok.constant:
            return
        assert self._status is not None, "a Guard in a kernel without sites"
        fails = ~ok
        if fails.lanes > 1 and context.mask is not None:
            fails = fails & context.mask
        lowest = b.load(self._status, "i32")
        b.store(b.select(b.any(fails), b.intrinsic("umin", lowest, b.const(site, "i32")), lowest), self._status)

    def status(self) -> Value:
        """Return the kernel's result so far: 0, or the lowest failing site + 1."""
        return self.b.load(self._status, "i32") + 1 if self._status is not None else self.b.const(0, "i32")

    # -- memory -------------------------------------------------------------------------------

    def offset(self, name: str, index: Sequence[Operand], context: Context) -> Operand:
        """Return the number of the element at `index`, in a buffer that is not interleaved."""
        total: Operand = self.b.i64(0)
        for at, stride in zip(index, self.buffers[name].strides, strict=True):
            total = self._sum(total, self._scaled(at, stride), context)
        return total

    def _scaled(self, x: Operand, factor: Value) -> Operand:
        return Linear(x.base * factor, x.step * factor) if isinstance(x, Linear) else x * factor

    def _sum(self, x: Operand, y: Operand, context: Context) -> Operand:
        linear = self._linear("add", [x, y]) if isinstance(x, Linear) or isinstance(y, Linear) else None
        return linear if linear is not None else self.value(x, context) + self.value(y, context)

    def place(self, name: str, index: Sequence[Operand], context: Context) -> Operand:
        """Return the number of the element at `index`; in an interleaved Local, this lane's own copy."""
        offset = self.offset(name, index, context)
        copies = self.buffers[name].interleave
        if copies == 1:
            return offset
        if copies != context.lanes:
            raise BackendError(f"{self.kernel.name}: local {name!r} is used outside of its vector loop")
        lane = Linear(self.b.i64(0), self.b.i64(1))
        return self._sum(self._scaled(offset, self.b.i64(copies)), lane, context)

    def load(self, name: str, index: Sequence[Operand], context: Context, predicate: Value | None = None,
             other: Value | None = None) -> Value:
        """Return the elements at `index` of the lanes that are on and where `predicate` holds."""
        b, buffer = self.b, self.buffers[name]
        element = primitives.memory_element(buffer.dtype)
        place = self.place(name, index, context)
        if isinstance(place, Value) and place.lanes == 1:
            return self._load_uniform(buffer, place, context, predicate, other)
        if other is not None and buffer.dtype.is_bool:
            other = b.convert("zext", other, "i8")
        mask = self._narrowed(context, predicate)
        if isinstance(place, Linear) and place.step.constant in (1, -1):
            if place.step.constant == 1:
                address = b.at(buffer.pointer, place.base, element)
                if mask is None:
                    result = b.load(address, element, context.lanes)
                elif predicate is not None and predicate.lanes == 1 and context.mask is None and \
                        not b.masks_in_hardware(element):
                    result = self._load_all_or_none(address, element, context.lanes, predicate, other)
                else:
                    result = b.masked_load(address, element, mask, other)
            else:
                address = b.at(buffer.pointer, place.base - (context.lanes - 1), element)
                backwards = range(context.lanes - 1, -1, -1)
                if mask is None:
                    result = b.load(address, element, context.lanes)
                else:
                    rest = b.splat(other, context.lanes) if other is not None else None
                    result = b.masked_load(address, element, b.shuffle(mask, None, backwards),
                                           b.shuffle(rest, None, backwards) if rest is not None else None)
                result = b.shuffle(result, None, backwards)
        else:
            addresses = b.at(buffer.pointer, self.value(place, context), element)
            result = b.gather(addresses, element, mask, other)
        return result.ne(0) if buffer.dtype.is_bool else result

    def _load_all_or_none(self, address: Value, element: str, lanes: int, predicate: Value,
                          other: Value | None) -> Value:
        """Return the elements from `address` on, `other` where a predicate that all lanes share does not hold: then
        spare memory is read, which is cheaper than lane by lane where the target has no masks."""
        b = self.b
        if self._spare is None:
            self._spare = b.alloca("i8", count=256, align=64)  # the widest vectors of a loop
        value = b.load(b.select(predicate, address, self._spare), element, lanes)
        return b.select(predicate, value, b.const(0, element) if other is None else other)

    def _load_uniform(self, buffer: Buffer, place: Value, context: Context, predicate: Value | None,
                      other: Value | None) -> Value:
        b = self.b
        element = primitives.memory_element(buffer.dtype)
        address = b.at(buffer.pointer, place, element)
        if predicate is not None:
            on = self._narrowed(context, predicate) if predicate.lanes > 1 else predicate
            assert on is not None
            address = b.select(b.any(on), address, b.dummy)
        result = b.load(address, element)
        if buffer.dtype.is_bool:
            result = result.ne(0)
        if predicate is None:
            return result
        return b.select(predicate, result, other if other is not None else b.const(0, result.element))

    def _narrowed(self, context: Context, predicate: Value | None) -> Value | None:
        """Return the lanes of the context where `predicate` holds too."""
        if predicate is None or predicate.constant == 1:
            return context.mask
        vector = self.b.splat(predicate, context.lanes)
        return vector if context.mask is None else context.mask & vector

    def store(self, name: str, index: Sequence[Operand], operand: Operand, context: Context,
              predicate: Value | None = None) -> None:
        """Write `operand` to the elements at `index` of the lanes that are on and where `predicate` holds."""
        b, buffer = self.b, self.buffers[name]
        element = primitives.memory_element(buffer.dtype)
        value = self.value(operand, context)
        if buffer.dtype.is_bool:
            value = b.convert("zext", value, "i8")
        place = self.place(name, index, context)
        if isinstance(place, Value) and place.lanes == 1 and value.lanes == 1 \
                and (predicate is None or predicate.lanes == 1):
            address = b.at(buffer.pointer, place, element)
            b.store(value, address if predicate is None else b.select(predicate, address, b.dummy))
            return
        value, mask = b.splat(value, context.lanes), self._narrowed(context, predicate)
        if isinstance(place, Linear) and place.step.constant == 1:
            address = b.at(buffer.pointer, place.base, element)
            if mask is not None:
                b.masked_store(value, address, mask)
            elif name in self.nontemporal:
                b.store(value, address, align=context.lanes * buffer.dtype.size, nontemporal=True)
            else:
                b.store(value, address)
            return
        addresses = b.splat(b.at(buffer.pointer, self.value(place, context), element), context.lanes)
        b.scatter(value, addresses, mask)

    def declare_local(self, local: Local, context: Context) -> None:
        """Give a Local its memory: the stack where it is small, else scratch; one copy per lane in a vector."""
        element = primitives.memory_element(local.dtype)
        count = dim.product(local.shape) * context.lanes
        size = count * local.dtype.size
        if isinstance(size, int) and size <= STACK_LIMIT:
            pointer = self.b.alloca(element, count=max(int(count), 1), align=64)
        else:
            with self.b.entry():
                pointer = self.b.at(self.scratch, self.size(self.scratch_bytes), "i8")
            self.scratch_bytes = self.scratch_bytes + dim.ceildiv(size, 64) * 64
        self.buffers[local.name] = Buffer(pointer, local.dtype, self.sizes.strides(local.shape), context.lanes)
        if context.lanes > 1:
            context.private = context.private | {local.name}

    # -- statements ---------------------------------------------------------------------------

    def statements(self, body: Iterable[Stmt], context: Context) -> None:
        """Render the statements in order; names that they bind are added to `context`."""
        for stmt in body:
            self._statement(stmt, context)

    def _statement(self, stmt: Stmt, context: Context) -> None:
        match stmt:
            case Let(name=name, value=value):
                context.names[name] = self.evaluate(value, context)
            case Store():
                rank = len(stmt.index)
                values = self.evaluate_all(walk.expressions(stmt), context)
                predicate = self.value(values[-1], context) if stmt.predicate is not None else None
                self.store(stmt.buffer, values[:rank], values[rank], context, predicate)
            case Local():
                self.declare_local(stmt, context)
            case If():
                self._if(stmt, context)
            case For():
                loops.for_(self, stmt, context)
            case Reduce():
                loops.reduce_(self, stmt, context)
            case Scan():
                loops.scan(self, stmt, context)
            case While():
                loops.while_(self, stmt, context)
            case Scatter():
                self._scatter(stmt, context)
            case Contract():
                block_contract.emit(self, stmt, context)

    def _if(self, stmt: If, context: Context) -> None:
        b = self.b
        condition = self.value(self.evaluate(stmt.condition, context), context)
        for wanted, block in ((condition, stmt.then), (~condition, stmt.orelse)):
            if not block or wanted.constant == 0:
                continue
            if wanted.lanes == 1:
                with b.when(wanted):
                    self.statements(block, context.bound({}))
            else:
                mask = self._narrowed(context, wanted)
                assert mask is not None
                with b.when(b.any(mask)):
                    self.statements(block, context.masked(mask))

    def _added(self, dtype: DType, old: Value, new: Value) -> Value:
        """What a Scatter that adds stores: halves are added in float32."""
        if not (dtype.is_floating and dtype.size == 2):
            return primitives.apply(self.b, "add", dtype, [old, new])
        wide = [cast(self.b, v, dtype, dtypes.float32) for v in (old, new)]
        return cast(self.b, primitives.apply(self.b, "add", dtypes.float32, wide), dtypes.float32, dtype)

    def _scatter(self, stmt: Scatter, context: Context) -> None:
        b, buffer = self.b, self.buffers[stmt.buffer]
        *index, value = self.evaluate_all((*stmt.index, stmt.value), context)
        if stmt.mode not in ("set", "add"):
            raise BackendError(f"{self.kernel.name}: scatter mode {stmt.mode!r} is unknown")
        place = self.place(stmt.buffer, index, context)
        apart = isinstance(place, Linear) and place.step.constant != 0
        if context.lanes == 1 or apart:
            new = self.value(value, context)
            if stmt.mode == "add":
                new = self._added(buffer.dtype, self.load(stmt.buffer, index, context), new)
            self.store(stmt.buffer, index, new, context)
            return
        # Lanes may meet in one element: one after the other, in the order of the loop.
        values = b.splat(self.value(value, context), context.lanes)
        places = b.splat(self.value(place, context), context.lanes)
        element = primitives.memory_element(buffer.dtype)
        with b.loop(b.i64(0), b.i64(context.lanes)) as loop:
            address = b.at(buffer.pointer, b.extract(places, loop.index), element)
            if context.mask is not None:
                address = b.select(b.extract(context.mask, loop.index), address, b.dummy)
            one = b.extract(values, loop.index)
            if stmt.mode == "add":
                old = b.load(address, element)
                old = old.ne(0) if buffer.dtype.is_bool else old
                one = self._added(buffer.dtype, old, one)
            b.store(b.convert("zext", one, "i8") if buffer.dtype.is_bool else one, address)
