"""Sizes in native code: what passes is what unbounded integers give, and what is refused would be wrong."""
from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.backends.llvm_cpu.builder import Module
from graphc.compiler import make_plan
from graphc.errors import InvalidArgumentError
from graphc.interop.c_interface import Interface, SizeField, Status, interface_of
from graphc.interop.messages import TEXT_BYTES
from graphc.interop.size_program import write_check, write_evaluate
from graphc.ir import dim
from graphc.ir.dim import Size, symbol
from graphc.ir.parse import parse
from graphc.kernel.plan import Check, Plan
from graphc.kernel.target import named
from graphc.options import Options
from graphc.runtime.link import Loaded, can_link, load
from graphc.runtime.native import compile_object
from graphc.runtime.program import AssumptionFailed, Program

pytestmark = pytest.mark.skipif(not can_link(), reason="links for Linux on x86-64")

NAMES = ("a", "b", "c")
SYMBOLS: Sequence[Size] = [symbol(n) for n in NAMES]
INTERFACE = Interface("t", tuple(SizeField(n, "", None) for n in NAMES), (), (), {n: symbol(n) for n in NAMES})


OPERATIONS: Mapping[str, Callable[[Size, Size], Size]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "min": dim.minimum, "max": dim.maximum,
    "//": lambda a, b: dim.floordiv(a, 7 if b == 0 else b), "%": lambda a, b: dim.mod(a, 7 if b == 0 else b),
}


@st.composite
def sizes(draw: st.DrawFn, depth: int = 3) -> Size:
    """An expression of the symbols."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.one_of(st.sampled_from(SYMBOLS), st.integers(-3, 100)))
    operation = OPERATIONS[draw(st.sampled_from(sorted(OPERATIONS)))]
    return operation(draw(sizes(depth - 1)), draw(sizes(depth - 1)))


def loaded(module: Module, function: str) -> Loaded:
    """The internal function of a module, loaded."""
    text = module.text().replace(f"define internal i64 @{function}", f"define i64 @{function}")
    text = text.replace(f"define internal i32 @{function}", f"define i32 @{function}")
    return load([compile_object(text, "sizes")], [function], imports=("snprintf",))


def exact(size: Size, binding: dict[str, int]) -> int | None:
    """The value in unbounded integers, or None where it is no size."""
    try:
        value = dim.evaluate(size, binding)
    except ZeroDivisionError:
        return None
    return value if 0 <= value < 2**63 else None


@settings(max_examples=30, deadline=None)
@given(st.lists(sizes(), min_size=1, max_size=12), st.data())
def test_native_sizes_are_the_exact_ones(expressions: list[Size], data: st.DataObject) -> None:
    module = Module(named("x86-64"))
    write_evaluate(module, INTERFACE, expressions)
    code = loaded(module, "evaluate")
    evaluate = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(code.addresses["evaluate"])
    small, large = st.integers(0, 40), st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([0, 1, 2**62, 2**63 - 1]))
    for kind in (small, small, small, large, large):
        values = data.draw(st.tuples(kind, kind, kind))
        binding = dict(zip(NAMES, values, strict=True))
        out = np.full(len(expressions), -1, np.int64)
        bad = evaluate(np.array(values, np.int64).ctypes.data, out.ctypes.data)
        wanted = [exact(size, binding) for size in expressions]
        for i, want in enumerate(wanted[:bad] if bad >= 0 else wanted):
            assert out[i] == want
        if kind is small:  # too small for partial results to overflow
            assert bad == next((i for i, want in enumerate(wanted) if want is None), -1)


def plan_with(checks: Sequence[Check]) -> Plan:
    text = """func @f(%x: float32[a], %y: float32[b], %z: float32[c]) {
      source a = %x.axis(0)
      source b = %y.axis(0)
      source c = %z.axis(0)
      %0 = Square(%x)
      return %0 "out"
    }"""
    return replace(make_plan(parse(text), Options()), checks=tuple(checks), lines={"op": "model.py:3 in f"})


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["equal", "assume", "divides", "at_most"]), sizes(), sizes()), max_size=4),
       st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=4, max_size=12))
def test_checks_are_decided_as_in_sessions(conditions: list[tuple[str, Size, Size]],
                                           bindings: list[tuple[int, int, int]]) -> None:
    plan = plan_with([Check(kind, a, b, f"100% of {{right}} is not {{left}} ({i})", "op")
                      for i, (kind, a, b) in enumerate(conditions)])
    interface = interface_of(plan, "t", NAMES, ["out"])
    module = Module(named("x86-64"))
    write_check(module, replace(interface, sizes=INTERFACE.sizes, symbols=INTERFACE.symbols), plan)
    code = loaded(module, "check")
    check = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)(code.addresses["check"])
    program = Program(replace(plan, constants=()), ())
    for values in bindings:
        text = ctypes.create_string_buffer(TEXT_BYTES)
        status = check(np.array(values, np.int64).ctypes.data, text)
        assert check(np.array(values, np.int64).ctypes.data, None) == status
        try:
            program.check(dict(zip(NAMES, values, strict=True)))
            wanted = {Status.OK}
        except AssumptionFailed:
            wanted = {Status.SIZE_IS_ONE}
        except InvalidArgumentError as error:
            wanted = {Status.CHECK_FAILED} if error.op == "op" else {Status.BAD_SIZE, Status.CHECK_FAILED,
                                                                     Status.SIZE_IS_ONE}
            if status == Status.CHECK_FAILED and error.op == "op":
                assert text.value.decode() == f"op: {error.message}"
        assert status in wanted
        assert (status == Status.OK) == (text.value == b"")
        if status == Status.SIZE_IS_ONE:
            assert b"does not contain the program for a size of 1" in text.value and b"model.py:3" in text.value


def test_a_long_text_is_cut_and_ends() -> None:
    plan = plan_with([Check("equal", SYMBOLS[0], SYMBOLS[1], "long " * 1000 + "{left}", "op")])
    module = Module(named("x86-64"))
    write_check(module, replace(interface_of(plan, "t", NAMES, ["out"]), sizes=INTERFACE.sizes,
                                symbols=INTERFACE.symbols), plan)
    code = loaded(module, "check")
    check = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)(code.addresses["check"])
    text = ctypes.create_string_buffer(TEXT_BYTES + 1)
    text[TEXT_BYTES] = b"#"
    assert check(np.array([1, 2, 3], np.int64).ctypes.data, text) == Status.CHECK_FAILED
    assert len(text.value) == TEXT_BYTES - 1 and text[TEXT_BYTES] == b"#"
