"""The memory plan: what shares memory, what is written in place, and that the checker finds planted mistakes."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.dtypes import float32
from graphc.errors import InternalError
from graphc.ir import dim
from graphc.ir.dim import maximum, symbol
from graphc.ir.parse import parse
from graphc.kernel.plan import Call, Copy, Plan
from graphc.passes.bounds import at_least
from graphc.passes.check_memory import check_memory
from graphc.passes.memory import aligned
from graphc.passes.report import naive_bytes, plan_text
from graphc.passes.steps import Cell
from tests.passes.plans import check_function, planned

N, M = symbol("N"), symbol("M")


def copies(plan: Plan) -> int:
    """Number of copies outside of loops."""
    return sum(isinstance(s, Copy) for s in plan.steps)


SGD = """
func @main(%x: float32[N, 20] "x", %g: float32[N, 30] "g") states(%w: float32[20, 30] "w") {
  %0 = MatMul(%x, %g) {transpose_a=true, transpose_b=false} : float32[20, 30]
  %1 = Const() {dtype=float32, value=array float32[] (0.1,)} : float32[]
  %2 = Mul(%0, %1) : float32[20, 30]
  %3 = Sub(%w, %2) : float32[20, 30]
  %4 = MatMul(%g, %w) {transpose_a=false, transpose_b=true} : float32[N, 20]
  return %4 "back" updates %3
}
"""


def test_an_update_is_written_in_place_after_every_reader_of_the_old_value() -> None:
    """The product that reads w stands after the update in the text, and must run before it."""
    function = parse(SGD)
    rng = np.random.default_rng()
    for n in (0, 1, 7):
        x, g, w = (rng.normal(size=shape) for shape in ((n, 20), (n, 30), (20, 30)))
        plan = check_function(function, [x, g], [w])
    assert copies(plan) == 0 and plan.arena == 0
    assert plan.written == (True,) and plan.initialised == (True,)


def test_an_update_that_the_old_value_still_feeds_goes_through_a_temporary() -> None:
    """The product reads other elements of w than those it would overwrite."""
    function = parse("""
func @main(%x: float32[8, 8] "x") states(%w: float32[8, 8] "w") {
  %0 = MatMul(%x, %w) {transpose_a=false, transpose_b=false} : float32[8, 8]
  return  updates %0
}
""")
    # 512 multiply-adds are a reduction; in either form w is read across rows
    rng = np.random.default_rng()
    plan = check_function(function, [rng.normal(size=(8, 8))], [rng.normal(size=(8, 8))])
    assert copies(plan) == 1 and plan.arena == 256


def test_states_that_change_places() -> None:
    function = parse("""
func @main() states(%a: float32[5] "a", %b: float32[5] "b") {
  return %a "old a" updates %b, %a
}
""")
    rng = np.random.default_rng()
    check_function(function, [], list(rng.normal(size=(2, 5)).astype(np.float32)))


def test_a_fetch_of_the_old_value_keeps_it() -> None:
    function = parse("""
func @main() states(%a: float32[5] "a") {
  %0 = Add(%a, %a) : float32[5]
  return %a "old", %0 "new" updates %0
}
""")
    plan = check_function(function, [], [np.arange(5, dtype=np.float32)])
    assert copies(plan) == 2  # the old value to the first fetch, the new one to the second


def test_results_are_computed_where_the_user_gets_them() -> None:
    function = parse("""
func @main(%x: float32[N] "x") {
  %0 = Exp(%x) : float32[N]
  return %0 "y", %x "x again", %0 "y again"
}
""")
    plan = check_function(function, [np.arange(4, dtype=np.float32)])
    assert plan.arena == 0 and copies(plan) == 2


PRODUCTS = "\n".join(
    ["func @main(%x: float32[N, 64] \"x\", %w: float32[64, 64] \"w\") {"]
    + [f"  %{i} = MatMul(%{'x' if i == 0 else i - 1}, %w) {{transpose_a=false, transpose_b=false}} : float32[N, 64]"
       for i in range(10)] + ["  return %9 \"y\"", "}", ""])


def test_temporaries_with_disjoint_lives_share_memory() -> None:
    function = parse(PRODUCTS)
    rng = np.random.default_rng()
    plan = check_function(function, [rng.normal(size=(3, 64)), rng.normal(size=(64, 64)) / 8])
    assert plan.arena == 2 * 256 * N and naive_bytes(plan) == 9 * 256 * N
    assert "bytes planned" in plan_text(plan)
    assert check_function(function, [rng.normal(size=(3, 64)), rng.normal(size=(64, 64)) / 8],
                          share=False).arena == 10 * 256 * N


def test_slots_of_different_sizes_are_large_enough_for_all_sizes() -> None:
    text = PRODUCTS.replace("%x: float32[N, 64]", "%z: float32[M, 64] \"z\", %x: float32[N, 64]").replace(
        'return %9 "y"', '%10 = MatMul(%z, %w) {transpose_a=false, transpose_b=false} : float32[M, 64]\n'
        '  %11 = MatMul(%10, %w) {transpose_a=false, transpose_b=false} : float32[M, 64]\n  return %9 "y", %11 "v"')
    function = parse(text)
    rng = np.random.default_rng()
    for n, m in ((1, 9), (9, 1), (0, 5)):
        check_function(function, [rng.normal(size=(m, 64)), rng.normal(size=(n, 64)), rng.normal(size=(64, 64)) / 8])


def test_the_checker_finds_planted_mistakes() -> None:
    plan = planned(parse(PRODUCTS))
    temps = [i for i, b in enumerate(plan.buffers) if b.role == "temp"]
    moved = list(plan.buffers)
    moved[temps[1]] = replace(moved[temps[1]], offset=128)  # inside of its neighbour
    with pytest.raises(InternalError):
        check_memory(replace(plan, buffers=tuple(moved)))
    with pytest.raises(InternalError, match="arena"):
        check_memory(replace(plan, arena=256 * N))
    with pytest.raises(InternalError, match="not written"):
        check_memory(replace(plan, steps=plan.steps[1:]))
    swapped = (plan.steps[1], plan.steps[0], *plan.steps[2:])
    with pytest.raises(InternalError, match="not written"):
        check_memory(replace(plan, steps=swapped))
    first = plan.steps[0]
    assert isinstance(first, Call)
    over = replace(first, buffers=(first.buffers[0], first.buffers[1], first.buffers[0]))
    with pytest.raises(InternalError, match=r"over its input|is written"):
        check_memory(replace(plan, steps=(over, *plan.steps[1:])))


def test_inequalities_between_sizes() -> None:
    assert at_least(aligned(4 * N), 4 * N)
    assert not at_least(4 * N, aligned(4 * N))
    assert at_least(maximum(4 * N, M), M) and at_least(maximum(4 * N, M), N)
    assert not at_least(N, 1) and at_least(N + 1, 1)
    assert not at_least(N, M)
    assert at_least(dim.minimum(N, M) + 3, 3) and not at_least(dim.minimum(N, M), N)


def test_a_cell_knows_its_bytes() -> None:
    base = Cell(float32, (N, 3))
    assert base.bytes == 12 * N and Cell(float32, (3 * N,), "view", base=base).root is base
