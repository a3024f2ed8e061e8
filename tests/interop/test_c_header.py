"""Interfaces and headers: names that C and C++ take, sizes that are asked for once, text that compilers accept."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from graphc import dtypes
from graphc.compiler import make_plan
from graphc.interop.c_header import header_text
from graphc.interop.c_interface import Interface, identifier, interface_of
from graphc.ir.dim import symbol
from graphc.ir.parse import parse
from graphc.kernel.plan import Binding, Buffer, Plan, Slot
from graphc.options import Options


def plan_of(*feeds: Slot, bindings: tuple[Binding, ...] = (), fetches: tuple[Slot, ...] = ()) -> Plan:
    """A plan that does nothing with these feeds."""
    buffers = tuple(Buffer(s.dtype, s.shape, "feed", i) for i, s in enumerate(feeds))
    return Plan((), buffers, (), feeds, (), fetches, (0,) * len(fetches), (), (), (), bindings, (), 0, {})


def interface(plan: Plan, name: str = "net") -> Interface:
    return interface_of(plan, name, [s.name for s in plan.feeds], [s.name for s in plan.fetches])


@pytest.mark.parametrize(("text", "name"), [
    ("x", "x"), ("layer/kernel:0", "layer_kernel_0"), ("7th", "x7th"), ("class", "class_"), ("über", "ber"), ("/", "x"),
    ("_hidden", "hidden"), ("a b", "a_b")])
def test_any_name_becomes_an_identifier(text: str, name: str) -> None:
    assert identifier(text) == name


def test_names_that_meet_are_told_apart() -> None:
    slots = tuple(Slot(name, dtypes.float32, ()) for name in ("a/b", "a_b", "a:b", "a_b_2"))
    assert [a.name for a in interface(plan_of(*slots)).inputs] == ["a_b", "a_b_2", "a_b_3", "a_b_2_2"]


def test_libraries_do_not_take_names_of_the_c_library() -> None:
    assert "pthread_create" not in interface(plan_of(), "pthread").functions
    assert "graphc_run" not in interface(plan_of(), "graphc").functions


N, M = symbol("N"), symbol("M")


def test_a_size_is_asked_for_once() -> None:
    two = (Slot("x", dtypes.float32, (N, 3)), Slot("y", dtypes.int32, (N,)))
    plan = plan_of(*two, bindings=(Binding("N", 0, 0), Binding("M", 1, 0)), fetches=(Slot("z", dtypes.float32, (N,)),))
    found = interface(plan)
    assert [(s.name, s.told) for s in found.sizes] == [("batch", "axis 0 of x; axis 0 of y")]
    assert found.symbols == {"N": symbol("batch"), "M": symbol("batch")}
    assert str(found.outputs[0].shape[0]) == "batch"


def test_sizes_are_named_after_inputs() -> None:
    slots = (Slot("x", dtypes.float32, (N, 4 * M)), Slot("count", dtypes.int64, ()), Slot("y", dtypes.bool_, (M, N)))
    bindings = (Binding("N", 0, 0), Binding("K", 0, 1), Binding("M", 2, 0), Binding("N", 2, 1), Binding("C", 1, -1, 0))
    found = interface(plan_of(*slots, bindings=bindings))
    assert [s.name for s in found.sizes] == ["x_0", "y_0", "count_value"]
    assert found.sizes[0].told == "axis 0 of x; axis 1 of y"
    assert found.sizes[2].element == (1, 0) and found.sizes[2].told == "the value of count"
    assert str(found.symbols["K"]) == "4*y_0"


def test_the_digest_changes_with_what_callers_see() -> None:
    def digest(name: str, dtype: dtypes.DType, size: int) -> int:
        return interface(plan_of(Slot(name, dtype, (size,)))).digest

    found = {digest("x", dtypes.float32, 3), digest("x", dtypes.float64, 3), digest("x", dtypes.float32, 4),
             digest("y", dtypes.float32, 3)}
    assert len(found) == 4 and digest("x", dtypes.float32, 3) in found


@pytest.mark.parametrize(("compiler", "flags", "ending"), [("cc", "-std=c99", "c"), ("c++", "-std=c++11", "cpp")])
def test_compilers_take_every_header(tmp_path: Path, compiler: str, flags: str, ending: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"there is no {compiler} here")
    kinds = tuple(Slot(f"in {d.name} */ \\", d, (N, 2)) for d in dtypes.ALL)
    results = tuple(Slot(f"out {d.name}", d, (N + 1,)) for d in dtypes.ALL)
    plans = {"all": plan_of(*kinds, bindings=(Binding("N", 0, 0),), fetches=results), "none": plan_of(),
             "number": plan_of(Slot("class", dtypes.float32, ()), fetches=(Slot("new", dtypes.bool_, ()),))}
    for name, plan in plans.items():
        (tmp_path / f"{name}.h").write_text(header_text(interface(plan, name), "any"))
    source = "".join(f'#include "{name}.h"\n' for name in (*plans, *plans))
    path = tmp_path / f"main.{ending}"
    path.write_text(source + "int main(void) { number_inputs a = {0}; return a.class_ != 0 || NONE_ABI != 1; }\n")
    done = subprocess.run([compiler, flags, "-Wall", "-Wextra", "-Werror", "-pedantic", "-c", str(path), "-o",
                           str(tmp_path / "main.o")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_header_says_what_arrays_are() -> None:
    plan = make_plan(parse("func @f(%x: bfloat16[N, 3] \"scope/x\") {\n  source N = %x.axis(0)\n  %0 = Square(%x)\n"
                           "  return %0 \"out\"\n}"), Options())
    text = header_text(interface_of(plan, "net", ["x"], ["out"]), "any")
    assert 'const uint16_t *x;  /* bfloat16 [batch, 3]  "scope/x" */' in text
    assert "int32_t net_run(net_context *context, const net_sizes *sizes, const net_inputs *inputs, " \
           "const net_outputs *outputs);" in text
