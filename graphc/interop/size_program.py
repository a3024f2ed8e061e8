"""Sizes in native code: every expression evaluated once, every step of it checked.

Owns the translation of `ir.dim` sizes into 64-bit instructions that notice overflow, division by zero and negative
results, and the functions that decide a plan's checks and fill the table of its sizes.  Knows sizes and checks; knows
no memory but the addresses it is given.  Invariant: a number that these functions let pass is the number that
runtime/program.py computes with unbounded integers.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graphc import dtypes
from graphc.backends.llvm_cpu import primitives
from graphc.backends.llvm_cpu.builder import Builder, Module, Value
from graphc.errors import InternalError, report
from graphc.interop.c_interface import Interface, Status
from graphc.interop.messages import escaped, leaving, named, tell
from graphc.ir.dim import Atom, Size
from graphc.kernel.plan import Check, Plan


class Sizes:
    """Sizes as values of a function under construction.  fields: the value of each size field by name."""

    def __init__(self, builder: Builder, fields: Mapping[str, Value]) -> None:
        self.b, self._fields = builder, fields
        self._sizes: dict[Size, tuple[Value, Value | None]] = {}
        self._atoms: dict[Atom, tuple[Value, Value | None]] = {}

    def value(self, size: Size) -> tuple[Value, Value | None]:
        """Return a size as an i64 and whether that is wrong (i1; None: never): negative, too large or undefined."""
        number, wrong = self._expression(size)
        if number.constant is None:
            return number, self._either(wrong, number.lt(0))
        return number, self.b.const(1, "i1") if number.constant < 0 else wrong

    def _either(self, *found: Value | None) -> Value | None:
        total: Value | None = None
        for wrong in found:
            total = wrong if total is None else total if wrong is None else total | wrong
        return total

    def _expression(self, size: Size) -> tuple[Value, Value | None]:
        if isinstance(size, int):
            return self.b.i64(size), None if -2**63 <= size < 2**63 else self.b.const(1, "i1")
        if size not in self._sizes:
            total, wrong = self.b.i64(0), None
            for atoms, coefficient in size.terms:
                if not -2**63 < coefficient < 2**63:
                    wrong = self.b.const(1, "i1")
                product = self.b.i64(coefficient)
                for atom in atoms:
                    factor, bad = self._atom(atom)
                    product, over = self._exact("mul", product, factor)
                    wrong = self._either(wrong, bad, over)
                total, over = self._exact("add", total, product)
                wrong = self._either(wrong, over)
            self._sizes[size] = total, wrong
        return self._sizes[size]

    def _exact(self, op: str, x: Value, y: Value) -> tuple[Value, Value | None]:
        """Return x op y and whether it overflows."""
        neutral = 0 if op == "add" else 1
        if x.constant == neutral:
            return y, None
        if y.constant == neutral:
            return x, None
        function, pair = f"llvm.s{op}.with.overflow.i64", "{ i64, i1 }"
        self.b.declare(function, pair, ["i64", "i64"])
        both = self.b.emit(f"call {pair} @{function}({x.typed}, {y.typed})", pair)
        return self.b.emit(f"extractvalue {both.typed}, 0", "i64"), self.b.emit(f"extractvalue {both.typed}, 1", "i1")

    def _atom(self, atom: Atom) -> tuple[Value, Value | None]:
        if atom not in self._atoms:
            self._atoms[atom] = self._operation(atom)
        return self._atoms[atom]

    def _operation(self, atom: Atom) -> tuple[Value, Value | None]:
        if atom.op == "sym":
            return self._fields[atom.args[0]], None
        (x, bad_x), (y, bad_y) = (self._expression(a) for a in atom.args)
        wrong = self._either(bad_x, bad_y)
        match atom.op:
            case "min" | "max":
                return self.b.intrinsic("s" + atom.op, x, y), wrong
            case "//" | "%":
                op = "floordiv" if atom.op == "//" else "floormod"
                undefined = y.eq(0) if y.constant is None else None
                return primitives.apply(self.b, op, dtypes.int64, [x, y]), self._either(wrong, undefined)
            case _:
                raise InternalError(f"size operation {atom.op!r} is unknown")


# ---------------------------------------------------------------------------------------------
# Functions.


def read_fields(b: Builder, interface: Interface, sizes: Value) -> dict[str, Value]:
    """Return the size fields by name from the caller's struct."""
    return {field.name: b.load(b.at(sizes, b.i64(i), "i64"), "i64") for i, field in enumerate(interface.sizes)}


def write_check(module: Module, interface: Interface, plan: Plan) -> None:
    """Define i32 @check(sizes, text): the status of these sizes; `text`, where not null, is told what is wrong."""
    b = Builder(module, "check", (("sizes", "ptr", 1), ("text", "ptr", 1)), "i32", linkage="internal")
    sizes, told = b.parameters
    fields = read_fields(b, interface, sizes)
    for name, value in fields.items():
        with leaving(b, value.lt(0), Status.BAD_SIZE):
            tell(b, told, f"size {name} is negative (%lld)", value)
    computed = Sizes(b, fields)
    for check in plan.checks:
        _check(computed, interface, plan, check, told)
    b.ret(b.const(Status.OK, "i32"))
    b.finish()


def _check(sizes: Sizes, interface: Interface, plan: Plan, check: Check, told: Value) -> None:
    b, numbers = sizes.b, []
    for size in map(interface.rename, (check.left, check.right)):
        number, wrong = sizes.value(size)
        numbers.append(number)
        if wrong is not None:
            with leaving(b, wrong, Status.BAD_SIZE):
                tell(b, told, escaped(bad_size(size)))
    left, right = numbers
    match check.kind:
        case "equal" | "assume":
            fails = left.ne(right)
        case "divides":
            remainder = primitives.apply(b, "floormod", dtypes.int64, [left, right])
            fails = remainder.ne(0) | right.eq(0)
        case "at_most":
            fails = left.gt(right)
        case _:
            raise InternalError(f"unknown check {check.kind!r}")
    if fails.constant == 0:
        return
    where = plan.lines.get(check.op)
    if check.kind == "assume":
        with leaving(b, fails & (left.eq(1) | right.eq(1)), Status.SIZE_IS_ONE):
            tell(b, told, escaped(report(f"{check.op}: this library was compiled for ")) + "%lld == %lld"
                 + escaped(report(", and does not contain the program for a size of 1", where,
                                  hint="feed an array whose size is declared as 1, or give both the same size")),
                 left, right)
    pieces = re.split(r"\{(left|right)\}", report(named(check.op, check.message), where))
    form = "".join("%lld" if i % 2 else escaped(piece) for i, piece in enumerate(pieces))
    with leaving(b, fails, Status.CHECK_FAILED):
        tell(b, told, form, *({"left": left, "right": right}[name] for name in pieces[1::2]))


def write_evaluate(module: Module, interface: Interface, sizes: Sequence[Size]) -> None:
    """Define i64 @evaluate(sizes, values): fill the table `values`; return the number of the first wrong one, or -1."""
    b = Builder(module, "evaluate", (("sizes", "ptr", 1), ("values", "ptr", 1)), "i64", linkage="internal")
    given, values = b.parameters
    computed = Sizes(b, read_fields(b, interface, given))
    wrongs: list[Value | None] = []
    for i, size in enumerate(sizes):
        number, wrong = computed.value(interface.rename(size))
        b.store(number, b.at(values, b.i64(i), "i64"))
        wrongs.append(wrong)
    first = b.i64(-1)
    for i, wrong in reversed(tuple(enumerate(wrongs))):
        if wrong is not None:
            first = b.select(wrong, b.i64(i), first)
    b.ret(first)
    b.finish()


def bad_size(size: Size) -> str:
    """Return what is said of a size that `Sizes.value` calls wrong."""
    return f"the size {size} is negative, does not fit 63 bits, or divides by zero"
