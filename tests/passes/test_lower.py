"""Lowering: what kernels compute, against the oracle; their text on small functions; loops and branches.

Every function goes through fuse, order, lower, coalesce and the memory plan, and runs in the interpreter on an arena of
NaN; every kernel is verified and every plan checked (tests/passes/plans.py).
"""
from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc.ops  # noqa: F401  (fills the registry)
from graphc import dtypes
from graphc.ir import dim
from graphc.ir.function import Function
from graphc.ir.parse import parse
from graphc.ir.types import TensorType
from graphc.kernel.plan import Copy, Loop, Plan
from graphc.kernel.text import format_kernel
from graphc.passes.decompose import decompose
from tests.ir.generate import functions, inputs
from tests.passes.plans import check_function, planned, run_plan
from tests.passes.test_fuse import SOFTMAX, chain

SIZES = (0, 1, 3, 8, 33)


def values(type: TensorType, sizes: dict[str, int], rng: np.random.Generator) -> np.ndarray:
    """Random values of a type; integers are small and not negative, so that they serve as indices."""
    shape = tuple(dim.evaluate(n, sizes) for n in type.shape)
    if type.dtype.is_bool:
        return rng.integers(0, 2, shape) > 0
    if not type.dtype.is_floating:
        return rng.integers(0, 3, shape).astype(type.dtype.as_numpy_dtype)
    drawn = rng.normal(size=shape).astype(np.float32)
    return dtypes.round_to_bfloat16(drawn) if type.dtype is dtypes.bfloat16 else drawn.astype(type.dtype.as_numpy_dtype)


def check(function: Function, share: bool = True, **sizes: int) -> Plan:
    """Run a function at these sizes on fresh random values; its results must be the oracle's."""
    rng = np.random.default_rng()
    given = [values(v.tensor, sizes, rng) for v in function.inputs]
    feeds, states = given[:len(function.feeds)], given[len(function.feeds):]
    return check_function(function, feeds, states, share)


def texts(plan: Plan) -> str:
    """The kernels of a plan, without their heads."""
    return "\n".join(line.strip() for k in plan.kernels for line in format_kernel(k).splitlines()[1:])


def test_softmax_reads_like_its_definition() -> None:
    function = parse(SOFTMAX)
    assert texts(planned(function)).splitlines() == [
        "for i0 < n0 parallel",
        "reduce s0 = max over r0 < 10: x0[i0, r0]",
        "reduce s1 = sum over r0 < 10: exp(x0[i0, r0] - s0)",
        "for r0 < 10",
        "y0[i0, r0] = exp(x0[i0, r0] - s0) / s1",
        "y1[i0] = log(s1)",
    ]
    for n in SIZES:
        check(function, N=n)


def test_elementwise_domains_collapse_to_one_axis_and_share_a_kernel() -> None:
    function = parse("""
func @main(%a: float32[784, 512] "a", %b: float32[256, 10, 2] "b") {
  %0 = Exp(%a) : float32[784, 512]
  %1 = Exp(%b) : float32[256, 10, 2]
  return %0 "x", %1 "y"
}
""")
    plan = check(function)
    assert len(plan.kernels) == 1
    assert texts(plan).splitlines() == ["for i0 < n0 parallel", "y0[i0] = exp(x0[i0])"]


def test_bias_keeps_its_axis_and_the_others_merge() -> None:
    function = parse("""
func @main(%x: float32[B, T, 7] "x", %b: float32[7] "b") {
  %0 = Add(%x, %b) : float32[B, T, 7]
  return %0 "y"
}
""")
    assert texts(planned(function)).splitlines() == [
        "for i0 < n0 parallel", "for i1 < 7 parallel", "y0[i0, i1] = x0[i0, i1] + x1[i1]"]
    for b, t in ((0, 3), (1, 1), (2, 5)):
        check(function, B=b, T=t)


MOVEMENT = """
func @main(%x: float32[N, 6] "x", %y: float32[N, 3] "y", %i: int32[5] "i", %t: float32[4, 6] "t") {
  %0 = Exp(%x) : float32[N, 6]
  %1 = Slice(%0) {begin=(0, 1), size=(N, 3), strides=(1, 1)} : float32[N, 3]
  %2 = ConcatV2(%1, %y) {axis=1} : float32[N, 6]
  %3 = Transpose(%2) {perm=(1, 0)} : float32[6, N]
  %4 = Reshape(%3) {shape=(2, 3, N)} : float32[2, 3, N]
  %5 = Neg(%4) : float32[2, 3, N]
  %6 = Sum(%5) {axis=(1,), keepdims=false} : float32[2, N]
  return %5 "a", %6 "b"
}
"""


def test_movement_becomes_index_maps() -> None:
    function = parse(MOVEMENT)
    for n in SIZES:
        plan = check(function, N=n)
    assert len(plan.kernels) <= 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats(dtype: str) -> None:
    function = parse(SOFTMAX.replace("float32", dtype))
    for n in (0, 1, 7):
        check(function, N=n)
    product = parse(f"""
func @main(%x: {dtype}[N, 40] "x", %w: {dtype}[40, 24] "w", %b: {dtype}[24] "b") {{
  %0 = MatMul(%x, %w) {{transpose_a=false, transpose_b=false}} : {dtype}[N, 24]
  %1 = Add(%0, %b) : {dtype}[N, 24]
  %2 = Relu(%1) : {dtype}[N, 24]
  return %2 "y"
}}
""")
    for n in (0, 1, 5):
        check(product, N=n)


def test_integers_and_positions_of_extremes() -> None:
    function = parse("""
func @main(%x: float32[N, 17] "x", %k: int32[N, 17] "k") {
  %0 = ArgMax(%x) {axis=(1,), keepdims=false, output_type=int64} : int64[N]
  %1 = Max(%x) {axis=(1,), keepdims=false} : float32[N]
  %2 = Sum(%k) {axis=(0, 1), keepdims=false} : int32[]
  %3 = Mul(%k, %2) : int32[N, 17]
  return %0 "at", %1 "max", %3 "scaled"
}
""")
    for n in (0, 1, 6):
        check(function, N=n)


@pytest.mark.parametrize("n", [1, 90, 300])
def test_a_long_total_runs_in_parts(n: int) -> None:
    function = parse("""
func @main(%x: float32[N, 784] "x") {
  %0 = Square(%x) : float32[N, 784]
  %1 = Mean(%0) {axis=(0, 1), keepdims=false} : float32[]
  %2 = Sqrt(%1) : float32[]
  return %2 "y"
}
""")
    plan = check(function, N=n)
    assert len(plan.kernels) == 2 and "min(8192" in texts(plan)


COLUMNS = [("N, 30, 28, 9", "0, 1, 2", "9"), ("N, 300, 9", "0, 1", "9"), ("40, 30, 70", "0, 1", "70"),
           ("5000, 16", "0,", "16"), ("N, 30, 9, 28", "0, 1, 3", "9")]


@pytest.mark.parametrize(("shape", "axes", "kept"), COLUMNS, ids=str)
def test_long_columns_run_in_parts_beside_what_is_stored(shape: str, axes: str, kept: str) -> None:
    """Also where the reduced axes are no single one; parts need not divide them."""
    function = parse(f"""
func @main(%x: float32[{shape}] "x", %y: float32[{shape}] "y", %b: float32[{kept}] "b") {{
  %0 = ReluGrad(%x, %y) : float32[{shape}]
  %1 = Sum(%0) {{axis=({axes}), keepdims=false}} : float32[{kept}]
  %2 = Sub(%b, %1) : float32[{kept}]
  return %0 "masked", %2 "sum"
}}
""")
    for n in (1, 16):
        plan = check(function, N=n) if "N" in shape else check(function)
        assert len(plan.kernels) == 2


def test_an_outer_product_and_a_scalar_one() -> None:
    function = parse("""
func @main(%x: float32[N, 1] "x", %w: float32[1, 5] "w", %v: float32[1, 1] "v") {
  %0 = MatMul(%x, %w) {transpose_a=false, transpose_b=false} : float32[N, 5]
  %1 = MatMul(%v, %v) {transpose_a=false, transpose_b=false} : float32[1, 1]
  %2 = Add(%0, %1) : float32[N, 5]
  return %2 "y"
}
""")
    for n in SIZES:
        check(function, N=n)


def test_products_of_every_layout_with_batches() -> None:
    for ta in (False, True):
        for tb in (False, True):
            a = "N, 20" if not ta else "20, N"
            b = "20, 18" if not tb else "18, 20"
            function = parse(f"""
func @main(%x: float32[{a}] "x", %w: float32[{b}] "w") {{
  %0 = MatMul(%x, %w) {{transpose_a={str(ta).lower()}, transpose_b={str(tb).lower()}}} : float32[N, 18]
  return %0 "y"
}}
""")
            for n in (0, 1, 6):
                check(function, N=n)


def test_a_deep_chain_needs_no_deep_stack() -> None:
    plan = check(chain(600), N=5)
    assert len(plan.kernels) >= 2


# ---------------------------------------------------------------------------------------------
# Loops and branches.

REST = {"captures": "0", "xs": "0", "ys": "0", "reverse": "false", "while": "false", "cond": "none", "length": "none"}


def program(text: str) -> Function:
    """Parse a function whose Loops leave out attrs of their usual values."""
    def filled(match: re.Match[str]) -> str:
        attrs = REST | dict(part.split("=") for part in match[1].split(", "))
        return "{" + ", ".join(f"{name}={attrs[name]}" for name in sorted(attrs)) + "}"
    return parse(re.sub(r"\{(body=[^}]*)\}", filled, text))


LOOP = """
func @turn(%0_in: int64[], %1_in: float32[4], %2_in: float32[4], %3_in: float32[4, 4]) {
  %0 = Reshape(%1_in) {shape=(1, 4)} : float32[1, 4]
  %1 = MatMul(%0, %3_in) {transpose_a=false, transpose_b=false} : float32[1, 4]
  %2 = Reshape(%1) {shape=(4,)} : float32[4]
  %3 = Add(%2, %2_in) : float32[4]
  %4 = Tanh(%3) : float32[4]
  return %4, %4
}

func @main(%x: float32[T, 4] "x", %h: float32[4] "h", %w: float32[4, 4] "w") {
  %0 = Sizes() {dtype=int64, sizes=T} : int64[]
  %1, %2, %3 = Loop(%0, %h, %x, %w) {body=@turn, IO, reverse=REVERSE} : float32[4], float32[T, 4], int64[]
  return %1 "last", %2 "all", %3 "count"
}
"""


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_a_recurrence_runs_as_one_native_loop(reverse: str) -> None:
    function = program(LOOP.replace("REVERSE", reverse).replace("IO", "carried=1, captures=1, xs=1, ys=1"))
    for t in (0, 1, 5):
        plan = check(function, T=t)
    (loop,) = [s for s in plan.steps if isinstance(s, Loop)]
    assert loop.count == dim.symbol("T") and len(loop.slices) == 2


def test_carried_values_that_change_places() -> None:
    """(a, b) -> (b, a + b): the values are moved as if at once."""
    function = program("""
func @turn(%0_in: int64[], %1_in: float32[3], %2_in: float32[3]) {
  %0 = Add(%1_in, %2_in) : float32[3]
  return %2_in, %0
}

func @main(%a: float32[3] "a", %b: float32[3] "b", %n: int64[] "n") {
  %0, %1, %2 = Loop(%n, %a, %b) {body=@turn, carried=2} : float32[3], float32[3], int64[]
  return %0 "x", %1 "y", %2 "taken"
}
""")
    rng = np.random.default_rng()
    for n in (0, 1, 6):
        check_function(function, [*rng.normal(size=(2, 3)).astype(np.float32), np.asarray(n, np.int64)])


WHILE = """
func @go(%0_in: float32[], %1_in: float32[]) {
  %0 = Less(%0_in, %1_in) : bool[]
  return %0
}

func @turn(%0_in: int64[], %1_in: float32[], %2_in: float32[]) {
  %0 = Const() {dtype=float32, value=array float32[] (2.0,)} : float32[]
  %1 = Mul(%1_in, %0) : float32[]
  %2 = Less(%1, %2_in) : bool[]
  return %2, %1
}

func @main(%x: float32[] "x", %top: float32[] "top") {
  %0 = Const() {dtype=int64, value=array int64[] (LIMIT,)} : int64[]
  %1, %2 = Loop(%0, %x, %top) {body=@turn, carried=1, captures=1, while=true, cond=@go} : float32[], int64[]
  return %1 "y", %2 "taken"
}
"""


@pytest.mark.parametrize("limit", [3, 1 << 62])
def test_a_loop_with_a_condition(limit: int) -> None:
    function = program(WHILE.replace("LIMIT", str(limit)))
    for x in (1.0, 300.0):
        check_function(function, [np.float32(x), np.float32(100.0)])


COND = """
func @yes(%0_in: float32[N], %1_in: float32[N]) {
  %0 = Add(%0_in, %1_in) : float32[N]
  return %0, %1_in
}

func @no(%0_in: float32[N], %1_in: float32[N]) {
  %0 = Exp(%0_in) : float32[N]
  %1 = Sub(%0, %1_in) : float32[N]
  return %1, %0_in
}

func @main(%p: bool[] "p", %x: float32[N] "x", %y: float32[N] "y") {
  source N = %x.axis(0)
  %0 = Neg(%x) : float32[N]
  %1, %2 = Cond(%p, %0, %y) {orelse=@no, then=@yes} : float32[N], float32[N]
  %3 = Mul(%1, %2) : float32[N]
  return %3 "z"
}
"""


@pytest.mark.parametrize("p", [False, True])
def test_a_branch(p: bool) -> None:
    rng = np.random.default_rng()
    for n in (0, 1, 5):
        check_function(parse(COND), [np.asarray(p), *rng.normal(size=(2, n)).astype(np.float32)])


GRADIENT = """
func @forward(%0_in: int64[], %1_in: float32[], %2_in: float32[]) {
  %0 = Mul(%1_in, %1_in) : float32[]
  %1 = Mul(%0, %2_in) : float32[]
  return %1, %1_in
}

func @backward(%0_in: int64[], %1_in: float32[], %2_in: float32[], %3_in: float32[], %4_in: float32[]) {
  %0 = Mul(%3_in, %4_in) : float32[]
  %1 = Mul(%1_in, %0) : float32[]
  %2 = Add(%1, %1) : float32[]
  %3 = Mul(%3_in, %3_in) : float32[]
  %4 = Mul(%1_in, %3) : float32[]
  %5 = Add(%2_in, %4) : float32[]
  return %2, %5
}

func @main(%x: float32[] "x", %a: float32[] "a", %seed: float32[] "seed", %zero: float32[] "zero") {
  %0 = Const() {dtype=int64, value=array int64[] (3,)} : int64[]
  %1, %2, %3 = Loop(%0, %x, %a) {body=@forward, carried=1, captures=1, ys=1, length=3} : float32[], float32[3], int64[]
  %4, %5, %6 = Loop(%0, %seed, %zero, %2, %a) {body=@backward, IO, reverse=true} : float32[], float32[], int64[]
  return %1 "y", %4 "dx", %5 "da"
}
"""


def test_the_gradient_of_a_loop_written_by_hand() -> None:
    """y = a (a (a x^2)^2)^2 = a^7 x^8: dy/dx = 8 y / x and dy/da = 7 y / a."""
    function = program(GRADIENT.replace("IO", "carried=2, captures=1, xs=1"))
    x, a = np.float32(0.8), np.float32(1.1)
    plan = check_function(function, [x, a, np.float32(1), np.float32(0)])
    (y, dx, da), _ = run_plan(plan, {}, [x, a, np.float32(1), np.float32(0)])
    np.testing.assert_allclose(y, a**7 * x**8, rtol=1e-5)
    np.testing.assert_allclose(dx, 8 * y / x, rtol=1e-5)
    np.testing.assert_allclose(da, 7 * y / a, rtol=1e-5)


def test_values_of_a_loop_are_computed_where_they_are_carried() -> None:
    """Nothing is copied inside a loop whose value can be written in place."""
    plan = planned(program(GRADIENT.replace("IO", "carried=2, captures=1, xs=1")))
    loops = [s for s in plan.steps if isinstance(s, Loop)]
    assert sum(isinstance(s, Copy) for loop in loops for s in loop.body) <= 1


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(functions(), st.integers(0, 2**32 - 1), st.booleans())
def test_random_functions(function: Function, seed: int, share: bool) -> None:
    feeds, states = inputs(function, seed)
    check_function(decompose(function), feeds, states, share)


@pytest.mark.parametrize("n, p, q", [(3, 2, 3), (0, 0, 4), (6, 1, 12), (2, 4, 1)])
def test_a_reshape_to_sizes_that_the_run_makes_equal(n: int, p: int, q: int) -> None:
    check(parse("""
func @main(%x: float32[N] "x", %y: float32[P, Q] "y") {
  source N = %x.axis(0)
  source P = %y.axis(0)
  source Q = %y.axis(1)
  equal 2*N == P*Q "{left} elements, {right}" at "Reshape"
  %0 = ConcatV2(%x, %x) {axis=0} : float32[2*N] from "concat"
  %1 = Reshape(%0) {shape=(P, Q)} : float32[P, Q] from "Reshape"
  %2 = Mul(%1, %y) : float32[P, Q] from "mul"
  return %2 "z"
}
"""), N=n, P=p, Q=q)
