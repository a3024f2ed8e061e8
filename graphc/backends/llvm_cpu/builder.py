"""LLVM IR as text: blocks, loops, vectors, masked memory, written one function at a time.

Owns the spelling of LLVM IR and nothing else: it knows no kernel IR and imports no LLVM.  Values
(value.py) carry operators, so that generators (maths, products, elementwise code) read like what they
compute.  Invariants: names are numbered in the order of building, so the same calls give the same text;
floats are printed exactly.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.backends.llvm_cpu.value import (
    FLOATS,
    HELPER,
    SUFFIX,
    Module,
    Operandish,
    Value,
    float_text,
    type_of,
    width_of,
)

__all__ = ["FLOATS", "Builder", "Loop", "Module", "Value", "float_text", "type_of", "width_of"]


@dataclass(slots=True)
class Loop:
    """A loop being built: `index`; `carried` values of this iteration; set `next` before it closes;
    `results` are the carried values after it."""

    index: Value
    carried: list[Value]
    next: list[Value]
    results: list[Value]


class Builder:
    """Writes one function, instruction by instruction, at the end of the current block.

    Loop-invariant values that must dominate everything (sizes, buffer addresses, stack slots) go to the
    entry block: inside `with b.entry():` instructions are placed there.
    """

    def __init__(self, module: Module, name: str, parameters: Sequence[tuple[str, str, int]],
                 result: str = "void", attributes: str = "nounwind", linkage: str = "") -> None:
        """parameters: (attributes and name without %, element, lanes), for example ("noalias sizes", "ptr", 1).
        Without attributes the function is a helper of its module."""
        self.module, self.target, self.name = module, module.target, name
        self._header = (f"define {linkage + ' ' if linkage else ''}{result} @{name}("
                        + ", ".join(" ".join([type_of(e, w), *p.split()[:-1], "%" + p.split()[-1]])
                                    for p, e, w in parameters)
                        + f") {attributes or HELPER} {{\nentry:\n")
        self.parameters = [Value(self, "%" + p.split()[-1], e, w) for p, e, w in parameters]
        self._allocas: list[str] = []
        self._prelude: list[str] = []
        self._lines: list[str] = []
        self._count = 0
        self._blocks = 0
        self._splats: dict[tuple[str, int], Value] = {}
        self._known: dict[tuple[str, str, str, str], Value] = {}
        self.block = "start"
        self._dummy: Value | None = None

    # -- text ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """Close the function and put it into the module."""
        self.module.functions[self.name] = "".join(
            (self._header, *self._allocas, *self._prelude, "  br label %start\nstart:\n", *self._lines, "}\n"))

    def fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def line(self, text: str) -> None:
        """Emit an instruction without a result."""
        self._lines.append(f"  {text}\n")

    def emit(self, text: str, element: str, lanes: int = 1) -> Value:
        """Emit an instruction and return its result."""
        name = self.fresh()
        self._lines.append(f"  {name} = {text}\n")
        return Value(self, name, element, lanes)

    @contextmanager
    def entry(self) -> Iterator[None]:
        """Place what is built inside into the entry block, behind what is there; straight-line code only."""
        kept, kept_splats, block = self._lines, self._splats, self.block
        self._lines, self._splats, self.block = self._prelude, {}, "entry"
        try:
            yield
        finally:
            if self.block != "entry":
                raise AssertionError("branches in the entry block")
            self._lines, self._splats, self.block = kept, kept_splats, block

    def alloca(self, element: str, lanes: int = 1, count: int = 1, align: int = 0) -> Value:
        """Return the address of a stack slot, made once at entry."""
        name = self.fresh()
        many = f", i64 {count}" if count != 1 else ""
        aligned = f", align {align}" if align else ""
        self._allocas.append(f"  {name} = alloca {type_of(element, lanes)}{many}{aligned}\n")
        return Value(self, name, "ptr")

    # -- constants ----------------------------------------------------------------------------

    def const(self, value: int | float, element: str, lanes: int = 1) -> Value:
        """Return a constant, splatted over the lanes.  Integers wrap to the element's width."""
        if element in FLOATS:
            text, known = float_text(float(value), element), None
        elif element == "i1":
            text, known = ("true" if value else "false"), int(bool(value))
        else:
            bits = width_of(element)
            known = (int(value) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
            text = str(known)
        if lanes > 1:
            return Value(self, f"splat ({element} {text})", element, lanes)
        return Value(self, text, element, 1, known)

    def i64(self, value: int) -> Value:
        return self.const(value, "i64")

    def like(self, value: Operandish, other: Value) -> Value:
        """Return `value` in the type of `other`: a number as a constant, a scalar splatted."""
        if isinstance(value, Value):
            return self.splat(value, other.lanes) if other.lanes > value.lanes else value
        return self.const(value, other.element, other.lanes)

    def listed(self, values: Sequence[int], element: str) -> Value:
        """Return the constant vector of these integers."""
        return Value(self, "<" + ", ".join(f"{element} {v}" for v in values) + ">", element, len(values))

    def iota(self, element: str, lanes: int) -> Value:
        """Return the constant vector 0, 1, 2, ..."""
        return self.listed(range(lanes), element)

    def poison(self, element: str, lanes: int = 1) -> Value:
        return Value(self, "poison", element, lanes)

    # -- arithmetic ---------------------------------------------------------------------------

    def binary(self, op: str, x: Value, y: Operandish) -> Value:
        """Emit a two-operand instruction; fold what is known of scalar integers."""
        y = self.like(y, x)
        if y.lanes > x.lanes:
            x = self.splat(x, y.lanes)
        if x.element != y.element:
            raise TypeError(f"{op} of {x.type} and {y.type}")
        if x.lanes == 1 and (x.constant is not None or y.constant is not None) and x.element != "i1":
            folded = self._fold(op, x, y)
            if folded is not None:
                return folded
        if x.lanes > 1 or x.element != "i64":
            return self.emit(f"{op} {x.typed}, {y.text}", x.element, x.lanes)
        key = self.block, op, x.text, y.text  # indices are computed again and again: once in a block is enough
        if key not in self._known:
            self._known[key] = self.emit(f"{op} {x.typed}, {y.text}", x.element)
        return self._known[key]

    def _fold(self, op: str, x: Value, y: Value) -> Value | None:
        a, c = x.constant, y.constant
        if a is not None and c is not None and op in _FOLDED:
            return self.const(_FOLDED[op](a, c), x.element)
        if (c == 0 and op in ("add", "sub", "or", "xor", "shl", "ashr", "lshr")) or (c == 1 and op == "mul"):
            return x
        if (a == 0 and op in ("add", "or", "xor")) or (a == 1 and op == "mul"):
            return y
        if 0 in (a, c) and op in ("mul", "and"):
            return self.const(0, x.element)
        return None

    def compare(self, predicate: str, x: Value, y: Operandish) -> Value:
        y = self.like(y, x)
        if y.lanes > x.lanes:
            x = self.splat(x, y.lanes)
        if x.constant is not None and y.constant is not None and predicate in _COMPARED:
            return self.const(_COMPARED[predicate](x.constant, y.constant), "i1")
        return self.emit(f"{'fcmp' if x.is_float else 'icmp'} {predicate} {x.typed}, {y.text}", "i1", x.lanes)

    def select(self, condition: Value, x: Operandish, y: Operandish) -> Value:
        """Return x where the condition holds, else y; at least one of them is a Value."""
        if not isinstance(x, Value):
            assert isinstance(y, Value)
            x = self.like(x, y)
        y = self.like(y, x)
        lanes = max(condition.lanes, x.lanes, y.lanes)
        if condition.constant is not None and x.lanes == y.lanes:
            return x if condition.constant else y
        x, y = self.splat(x, lanes), self.splat(y, lanes)
        return self.emit(f"select {condition.typed}, {x.typed}, {y.typed}", x.element, lanes)

    def prefetch(self, place: Value, write: bool = False, level: int = 3) -> None:
        """Ask for the cache line of `place`; where nothing is there, nothing happens.  level: of the cache that shall
        hold it, 3 for the first, 2 for the second."""
        self.declare("llvm.prefetch.p0", "void", ("ptr", "i32", "i32", "i32"))
        self.line(f"call void @llvm.prefetch.p0({place.typed}, i32 {int(write)}, i32 {level}, i32 1)")

    def intrinsic(self, name: str, *args: Value, result: tuple[str, int] | None = None,
                  extra: Sequence[str] = ()) -> Value:
        """Call llvm.`name` overloaded on the first argument's type.  Arguments share its lanes; `extra`
        are immediate operands such as "i1 false"; result: (element, lanes), the first argument's if None."""
        lanes = max(a.lanes for a in args)
        args = tuple(self.splat(a, lanes) for a in args)
        element, width = result or (args[0].element, lanes)
        function = f"llvm.{name}.{self.mangle(args[0].element, lanes)}"
        types = [a.type for a in args] + [e.split()[0] for e in extra]
        self.declare(function, type_of(element, width), types)
        operands = ", ".join([a.typed for a in args] + list(extra))
        return self.emit(f"call {type_of(element, width)} @{function}({operands})", element, width)

    @staticmethod
    def mangle(element: str, lanes: int) -> str:
        """Return the type as intrinsic names spell it: v16f32."""
        return ("" if lanes == 1 else f"v{lanes}") + SUFFIX.get(element, element)

    def declare(self, function: str, result: str, types: Sequence[str]) -> None:
        self.module.declarations[function] = f"declare {result} @{function}({', '.join(types)})\n"

    def call(self, function: str, result: tuple[str, int], *args: Value) -> Value:
        """Call a function by its name."""
        self.module.uses[function] = self.module.uses.get(function, 0) + 1
        operands = ", ".join(a.typed for a in args)
        return self.emit(f"call {type_of(*result)} @{function}({operands})", *result)

    def fma(self, x: Value, y: Operandish, z: Operandish) -> Value:
        """Return x * y + z: fused where the target fuses, else two roundings (never a library call)."""
        y, z = self.like(y, x), self.like(z, x)
        return self.intrinsic("fma", x, y, z) if self.target.has_fma else x * y + z

    def convert(self, op: str, x: Value, element: str) -> Value:
        """Emit zext, sext, trunc, sitofp, fptosi, bitcast, ... to `element` (same lanes)."""
        if x.element == element and op in ("zext", "sext", "trunc", "bitcast", "fpext", "fptrunc"):
            return x
        if x.constant is not None and op in ("zext", "sext", "trunc"):
            known = x.constant if op != "zext" else x.constant % (1 << width_of(x.element))
            return self.const(known, element)
        return self.emit(f"{op} {x.typed} to {type_of(element, x.lanes)}", element, x.lanes)

    def bits(self, x: Value) -> Value:
        """Return a float's bits as an integer of the same width."""
        return self.convert("bitcast", x, f"i{width_of(x.element)}")

    def floats(self, x: Value) -> Value:
        """Return integer bits as the float of the same width."""
        return self.convert("bitcast", x, "float" if x.element == "i32" else "double")

    # -- vectors ------------------------------------------------------------------------------

    def splat(self, x: Value, lanes: int) -> Value:
        """Return a scalar in every lane; a vector as it is."""
        if x.lanes == lanes:
            return x
        if x.lanes != 1:
            raise TypeError(f"splat of {x.type} to {lanes} lanes")
        if not x.text.startswith("%"):
            return Value(self, f"splat ({x.element} {x.text})", x.element, lanes) if x.text != "poison" \
                else self.poison(x.element, lanes)
        first = self.emit(f"insertelement {type_of(x.element, lanes)} poison, {x.typed}, i64 0", x.element, lanes)
        return self.emit(f"shufflevector {first.typed}, {first.type} poison, <{lanes} x i32> zeroinitializer",
                         x.element, lanes)

    def extract(self, x: Value, lane: int | Value) -> Value:
        return self.emit(f"extractelement {x.typed}, i64 {lane.text if isinstance(lane, Value) else lane}", x.element)

    def insert(self, x: Value, scalar: Value, lane: int) -> Value:
        return self.emit(f"insertelement {x.typed}, {scalar.typed}, i64 {lane}", x.element, x.lanes)

    def shuffle(self, x: Value, y: Value | None, order: Sequence[int]) -> Value:
        """Return the lanes `order` of x followed by y; one lane gives a vector-typed scalar's value."""
        if len(order) == 1:
            return self.extract(x, order[0])
        other = y.text if y is not None else "poison"
        mask = self.listed(order, "i32")
        return self.emit(f"shufflevector {x.typed}, {x.type} {other}, {mask.typed}", x.element, len(order))

    def any(self, mask: Value) -> Value:
        """Return whether any lane of an i1 vector holds."""
        if mask.lanes == 1:
            return mask
        bits = self.emit(f"bitcast {mask.typed} to i{mask.lanes}", f"i{mask.lanes}")
        return bits.ne(0)

    def lane_mask(self, remaining: Value, lanes: int) -> Value:
        """Return the mask of the lanes below `remaining` (i64, at least 0)."""
        # Saturate to the lane count, so that narrow compares suffice whatever the size.
        few = self.select(remaining.compare("ult", lanes), remaining, self.i64(lanes))
        narrow = self.splat(self.convert("trunc", few, "i32"), lanes)
        return self.iota("i32", lanes).compare("ult", narrow)

    def low_lanes(self, count: int, lanes: int) -> Value:
        """Return the constant mask of the first `count` lanes."""
        return Value(self, "<" + ", ".join("i1 true" if i < count else "i1 false" for i in range(lanes)) + ">",
                     "i1", lanes)

    # -- memory -------------------------------------------------------------------------------

    def at(self, pointer: Value, offset: Value, element: str) -> Value:
        """Return the address of element number `offset` (i64; a vector gives a vector of addresses)."""
        if offset.constant == 0:
            return pointer
        element = "i8" if element == "i1" else element
        return self.emit(f"getelementptr {element}, {pointer.typed}, {offset.typed}", "ptr", offset.lanes)

    def load(self, pointer: Value, element: str, lanes: int = 1, align: int = 0) -> Value:
        """Load contiguous elements; align in bytes, the element's own if 0."""
        align = align or max(width_of(element) // 8, 1)
        return self.emit(f"load {type_of(element, lanes)}, {pointer.typed}, align {align}", element, lanes)

    def store(self, value: Value, pointer: Value, align: int = 0, nontemporal: bool = False) -> None:
        """Store contiguous elements; a non-temporal store needs the alignment of the whole vector."""
        hint = f", !nontemporal {self.module.metadata_id('!{i32 1}')}" if nontemporal else ""
        self.line(f"store {value.typed}, {pointer.typed}, align {align or max(width_of(value.element) // 8, 1)}{hint}")

    @property
    def dummy(self) -> Value:
        """The address of 8 spare bytes: where lanes that are switched off may read and write."""
        if self._dummy is None:
            self._dummy = self.alloca("i64")
        return self._dummy

    def masks_in_hardware(self, element: str) -> bool:
        """Return whether masked contiguous loads and stores of this element are single instructions."""
        if self.module.has("avx512vl") and self.module.has("avx512bw"):
            return True
        return width_of(element) >= 32 and self.module.has("avx")

    def masked_load(self, pointer: Value, element: str, mask: Value, other: Value | None = None) -> Value:
        """Load contiguous elements where the mask holds; `other` (0 if None) elsewhere."""
        lanes = mask.lanes
        rest = self.splat(other, lanes) if other is not None else self.const(0, element, lanes)
        if not self.masks_in_hardware(element):
            return self.gather(self.at(pointer, self.iota("i64", lanes), element), element, mask, rest)
        kind, align = self.mangle(element, lanes), width_of(element) // 8
        function, vector = f"llvm.masked.load.{kind}.p0", type_of(element, lanes)
        self.declare(function, vector, ["ptr", mask.type, vector])
        return self.emit(f"call {vector} @{function}(ptr align {align} {pointer.text}, {mask.typed}, {rest.typed})",
                         element, lanes)

    def masked_store(self, value: Value, pointer: Value, mask: Value) -> None:
        """Store contiguous elements where the mask holds."""
        lanes, element = value.lanes, value.element
        if not self.masks_in_hardware(element):
            self.scatter(value, self.at(pointer, self.iota("i64", lanes), element), mask)
            return
        function = f"llvm.masked.store.{self.mangle(element, lanes)}.p0"
        self.declare(function, "void", [value.type, "ptr", mask.type])
        align = width_of(element) // 8
        self.line(f"call void @{function}({value.typed}, ptr align {align} {pointer.text}, {mask.typed})")

    def gather(self, pointers: Value, element: str, mask: Value | None, other: Value | None = None) -> Value:
        """Load from each address where the mask holds; `other` (0 if None) elsewhere."""
        lanes = pointers.lanes
        rest = self.splat(other, lanes) if other is not None else self.const(0, element, lanes)
        if width_of(element) >= 32 and self.module.has("avx2"):
            on = mask if mask is not None else self.const(1, "i1", lanes)
            function, vector = f"llvm.masked.gather.{self.mangle(element, lanes)}.v{lanes}p0", type_of(element, lanes)
            self.declare(function, vector, [pointers.type, on.type, vector])
            return self.emit(f"call {vector} @{function}({pointers.type} align "
                             f"{width_of(element) // 8} {pointers.text}, {on.typed}, {rest.typed})", element, lanes)
        # Lane by lane without branches: lanes that are off read the dummy.
        safe = pointers if mask is None else self.select(mask, pointers, self.dummy)
        result = self.poison(element, lanes)
        for lane in range(lanes):
            result = self.insert(result, self.load(self.extract(safe, lane), element), lane)
        return result if mask is None else self.select(mask, result, rest)

    def scatter(self, value: Value, pointers: Value, mask: Value | None) -> None:
        """Store each lane to its address where the mask holds, lowest lane first."""
        safe = pointers if mask is None else self.select(mask, pointers, self.dummy)
        for lane in range(value.lanes):
            self.store(self.extract(value, lane), self.extract(safe, lane))

    # -- control ------------------------------------------------------------------------------

    def new_block(self) -> str:
        self._blocks += 1
        return f"b{self._blocks}"

    def start_block(self, label: str) -> None:
        """Continue at the end of a new block called `label`."""
        self._lines.append(f"{label}:\n")
        self.block = label

    def branch(self, label: str) -> None:
        self.line(f"br label %{label}")

    def branch_if(self, condition: Value, then: str, orelse: str) -> None:
        self.line(f"br {condition.typed}, label %{then}, label %{orelse}")

    def ret(self, value: Value | None = None) -> None:
        self.line("ret void" if value is None else f"ret {value.typed}")

    def phi(self, incoming: Sequence[tuple[Value, str]]) -> Value:
        """Return the value that belongs to the block this one was reached from; first in its block."""
        value = incoming[0][0]
        edges = ", ".join(f"[ {v.text}, %{label} ]" for v, label in incoming)
        return self.emit(f"phi {value.type} {edges}", value.element, value.lanes)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Run what is built inside only where the (scalar) condition holds."""
        then, done = self.new_block(), self.new_block()
        self.branch_if(condition, then, done)
        self.start_block(then)
        yield
        self.branch(done)
        self.start_block(done)

    def _opaque(self, x: Value) -> Value:
        """Return an i64 that LLVM takes for unrelated to x.  As the step of a loop it keeps LLVM's loop
        strength reduction away, which takes most of the compile time and gains nothing here: addresses
        are base + index already.  The hint itself makes no code."""
        self.declare("llvm.expect.i64", "i64", ["i64", "i64"])
        return self.emit(f"call i64 @llvm.expect.i64({x.typed}, i64 1)", "i64")

    @contextmanager
    def loop(self, start: Value, stop: Value, step: int = 1, carried: Sequence[Value] = ()) -> Iterator[Loop]:
        """Run what is built inside for index = start, start + step, ... while index < stop.

        carried: initial values of the loop's state; inside, set `loop.next` to their next values; after,
        `loop.results` holds the last ones (the initial ones where the loop does not run).
        """
        body, done, before = self.new_block(), self.new_block(), self.block
        known = start.constant is not None and stop.constant is not None
        if known and start.constant < stop.constant:  # type: ignore[operator]
            enters = False
            self.branch(body)
        else:
            enters = True
            self.branch_if(start.lt(stop), body, done)
        self.start_block(body)
        place = len(self._lines)
        index = Value(self, self.fresh(), "i64")
        state = [Value(self, self.fresh(), v.element, v.lanes) for v in carried]
        loop = Loop(index, state, list(state), [])
        owner = self._lines
        yield loop
        following = self._opaque(self.emit(f"add nsw i64 {index.text}, {step}", "i64"))
        again, latch = following.lt(stop), self.block
        self.branch_if(again, body, done)
        owner[place:place] = [
            f"  {phi.text} = phi {phi.type} [ {first.text}, %{before} ], [ {later.text}, %{latch} ]\n"
            for phi, first, later in zip([index, *state], [start, *carried], [following, *loop.next], strict=True)]
        self.start_block(done)
        for first, later in zip(carried, loop.next, strict=True):
            loop.results.append(self.phi([(first, before), (later, latch)]) if enters else later)


_FOLDED = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
}
_COMPARED = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "slt": lambda a, b: a < b, "sle": lambda a, b: a <= b,
    "sgt": lambda a, b: a > b, "sge": lambda a, b: a >= b,
}
