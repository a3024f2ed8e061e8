"""Fusion: what becomes one kernel, what does not and why; near-linear work.

Facts are counts of kernels and their forms on small texts; values are tests of test_lower.
"""
from __future__ import annotations

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.dtypes import float32
from graphc.ir import infer
from graphc.ir.dim import symbol
from graphc.ir.function import Builder, Function, Value
from graphc.ir.parse import parse
from graphc.ir.types import TensorType
from graphc.ir.verify import verify
from graphc.ops.base import lookup
from graphc.passes.acyclic import Acyclic
from graphc.passes.fuse import Fuser, fuse
from graphc.passes.why import why


def forms(text: str) -> list[str]:
    """The forms of the Fusions of a function given as text, sorted."""
    fused = verify(fuse(verify(parse(text))))
    return sorted(n.attrs["form"] for n in fused.nodes if n.op.name == "Fusion")


DENSE = """
func @main(%x: float32[N, 784] "x") states(%w: float32[784, 10] "w", %b: float32[10] "b") {
  %0 = MatMul(%x, %w) {transpose_a=false, transpose_b=false} : float32[N, 10] from "MatMul"
  %1 = Add(%0, %b) : float32[N, 10] from "add"
  %2 = Relu(%1) : float32[N, 10] from "relu"
  return %2 "relu:0" updates %w, %b
}
"""


def test_bias_and_activation_are_the_epilogue_of_a_product() -> None:
    assert forms(DENSE) == ["contract"]


def test_a_product_is_no_prologue_of_another() -> None:
    assert forms("""
func @main(%x: float32[N, 64] "x", %v: float32[64, 64] "v", %w: float32[64, 64] "w") {
  %0 = MatMul(%x, %v) {transpose_a=false, transpose_b=false} : float32[N, 64]
  %1 = Relu(%0) : float32[N, 64]
  %2 = MatMul(%1, %w) {transpose_a=false, transpose_b=false} : float32[N, 64]
  return %2 "y"
}
""") == ["contract", "contract"]


def test_a_transposed_factor_is_read_where_it_lies() -> None:
    assert forms("""
func @main(%x: float32[N, 64] "x", %w: float32[32, 64] "w") {
  %0 = Transpose(%w) {perm=(1, 0)} : float32[64, 32]
  %1 = MatMul(%x, %0) {transpose_a=false, transpose_b=false} : float32[N, 32]
  return %1 "y"
}
""") == ["contract"]


@pytest.mark.parametrize(("taps", "step", "size", "count"), [(2, 2, 4, 1), (3, 1, 8, 2)])
def test_what_many_windows_read_is_computed_once(taps: int, step: int, size: int, count: int) -> None:
    """A dear producer is a part of windows that do not overlap; it is not computed nine times for those that do."""
    window = f'ksize=(1, {taps}, {taps}, 1), strides=(1, {step}, {step}, 1), padding="SAME"'
    assert forms(f"""
func @main(%x: float32[2, 8, 8, 32] "x") {{
  %0 = Tanh(%x) : float32[2, 8, 8, 32]
  %1 = MaxPool(%0) {{{window}}} : float32[2, {size}, {size}, 32]
  return %1 "y"
}}
""") == ["map"] * count


def test_a_narrow_product_is_a_reduction_that_takes_its_neighbours() -> None:
    assert forms("""
func @main(%x: float32[N, 30] "x", %w: float32[30, 1] "w", %b: float32[1] "b") {
  %0 = Square(%x) : float32[N, 30]
  %1 = MatMul(%0, %w) {transpose_a=false, transpose_b=false} : float32[N, 1]
  %2 = Add(%1, %b) : float32[N, 1]
  %3 = Reshape(%2) {shape=(N,)} : float32[N]
  %4 = Sigmoid(%3) : float32[N]
  return %4 "y"
}
""") == ["rows"]


SOFTMAX = """
func @main(%x: float32[N, 10] "x") {
  %0 = Max(%x) {axis=(1,), keepdims=true} : float32[N, 1]
  %1 = Sub(%x, %0) : float32[N, 10]
  %2 = Exp(%1) : float32[N, 10]
  %3 = Sum(%2) {axis=(1,), keepdims=true} : float32[N, 1]
  %4 = RealDiv(%2, %3) : float32[N, 10]
  %5 = Log(%3) : float32[N, 1]
  return %4 "softmax", %5 "log"
}
"""


def test_softmax_is_one_row_kernel_with_two_results() -> None:
    assert forms(SOFTMAX) == ["rows"]


def test_layer_norm_is_one_row_kernel() -> None:
    assert forms("""
func @main(%x: float32[N, 64] "x", %g: float32[64] "g") {
  %0 = Mean(%x) {axis=(1,), keepdims=true} : float32[N, 1]
  %1 = SquaredDifference(%x, %0) : float32[N, 64]
  %2 = Mean(%1) {axis=(1,), keepdims=true} : float32[N, 1]
  %3 = Rsqrt(%2) : float32[N, 1]
  %4 = Sub(%x, %0) : float32[N, 64]
  %5 = Mul(%4, %3) : float32[N, 64]
  %6 = Mul(%5, %g) : float32[N, 64]
  return %6 "y"
}
""") == ["rows"]


def test_reductions_over_different_axes_are_two_kernels() -> None:
    assert forms("""
func @main(%x: float32[N, 64] "x") {
  %0 = Sum(%x) {axis=(1,), keepdims=false} : float32[N]
  %1 = Sum(%x) {axis=(0,), keepdims=false} : float32[64]
  return %0 "rows", %1 "columns"
}
""") == ["rows", "rows"]


def test_siblings_that_read_the_same_share_a_loop() -> None:
    assert forms("""
func @main(%x: float32[N, 64] "x", %y: float32[N, 64] "y") {
  %0 = Add(%x, %y) : float32[N, 64]
  %1 = Mul(%x, %y) : float32[N, 64]
  %2 = Max(%x) {axis=(1,), keepdims=false} : float32[N]
  %3 = Sum(%x) {axis=(1,), keepdims=false} : float32[N]
  return %0 "sum", %1 "product", %2 "max", %3 "total"
}
""") == ["rows"]


def test_a_cheap_mask_is_computed_again_instead_of_stored() -> None:
    fused = fuse(parse("""
func @main(%x: float32[N, 64] "x", %w: float32[64, 64] "w", %g: float32[N, 64] "g") {
  %0 = MatMul(%x, %w) {transpose_a=false, transpose_b=false} : float32[N, 64]
  %1 = Const() {dtype=float32, value=array float32[] (0.0,)} : float32[]
  %2 = Less(%1, %x) : bool[N, 64]
  %3 = SelectV2(%2, %0, %g) : float32[N, 64]
  %4 = Sum(%3) {axis=(0,), keepdims=false} : float32[64]
  %5 = SelectV2(%2, %g, %x) : float32[N, 64]
  return %3 "a", %4 "b", %5 "c"
}
"""))
    assert not any(str(v.type).startswith("bool") for n in fused.nodes for v in n.outputs)


def test_a_value_between_two_products_closes_no_cycle() -> None:
    """b needs a and the product of a: a and b cannot be one kernel."""
    text = """
func @main(%x: float32[N, 64] "x", %w: float32[64, 64] "w") {
  %0 = Exp(%x) : float32[N, 64] from "a"
  %1 = MatMul(%0, %w) {transpose_a=false, transpose_b=false} : float32[N, 64] from "MatMul"
  %2 = Sum(%1) {axis=(0,), keepdims=false} : float32[64] from "Sum"
  %3 = Mul(%0, %2) : float32[N, 64] from "b"
  return %3 "y"
}
"""
    assert forms(text) == ["contract", "map", "rows"]
    assert "another kernel would have to run between them" in why(parse(text), "a", "b").text


def test_why_names_the_reason() -> None:
    text = """
func @main(%x: float32[N, 64] "x") {
  %0 = Sum(%x) {axis=(1,), keepdims=false} : float32[N] from "rows"
  %1 = Sum(%0) {axis=(0,), keepdims=false} : float32[] from "total"
  return %1 "y"
}
"""
    assert "they reduce over different axes" in why(parse(text), "rows", "total").text
    named = SOFTMAX.replace(": float32[N, 10]\n", ': float32[N, 10] from "e"\n')
    assert "are computed by one kernel" in why(parse(named), "e", "e").text


def test_the_user_sees_an_error_for_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="no op called 'nothing'"):
        why(parse(DENSE), "nothing", "relu")


def chain(length: int) -> Function:
    """x -> exp -> neg -> tanh -> relu -> exp ..."""
    x = Value(TensorType(float32, (symbol("N"),)))
    builder = Builder(infer.types)
    value = x
    ops = [lookup(name) for name in ("Exp", "Neg", "Tanh", "Relu")]
    for i in range(length):
        value = builder.add(ops[i % 4], [value]).output
    return Function("chain", (x,), tuple(builder.nodes), (value,))


def test_a_long_chain_is_cut_by_size_in_linear_work() -> None:
    fused = fuse(chain(1000))
    assert 4 <= len(fused.nodes) <= 40
    visits = []
    for length in (500, 1000, 2000):
        fuser = Fuser(ladder(length))
        fuser.run()
        visits.append(fuser.graph.visits)
    assert visits[2] <= 2.5 * visits[1] + 64 and visits[1] <= 2.5 * visits[0] + 64


def ladder(length: int) -> Function:
    """A forward chain of products and a backward chain that reads it, like a deep network's training step."""
    x = Value(TensorType(float32, (symbol("N"), 8)))
    w = Value(TensorType(float32, (8, 128)))
    v = Value(TensorType(float32, (128, 8)))
    builder = Builder(infer.types)
    value, kept = x, []
    for _ in range(length // 6):
        value = builder.add(lookup("Tanh"), [builder.add(lookup("MatMul"), [value, w]).output]).output
        kept.append(value)
        value = builder.add(lookup("MatMul"), [value, v]).output
    for h in reversed(kept):
        up = builder.add(lookup("MatMul"), [value, w]).output
        value = builder.add(lookup("MatMul"), [builder.add(lookup("Mul"), [up, h]).output, v]).output
    return Function("ladder", (x, w, v), tuple(builder.nodes), (value,))


@pytest.mark.parametrize("seed", range(20))
def test_contractions_keep_the_graph_acyclic(seed: int) -> None:
    """Against a plain search, on random graphs."""
    rng = np.random.default_rng(seed)
    graph = Acyclic()
    count = 24
    for i in range(count):
        graph.add({int(p) for p in rng.choice(i, size=min(i, 2), replace=False)} if i else set())
    alive = set(range(count))
    for _ in range(60):
        a, b = (int(n) for n in rng.choice(sorted(alive), 2, replace=False))
        before = {n: set(graph.after[n]) for n in alive}
        expected = not (_path(before, a, b) or _path(before, b, a))
        assert graph.contract(a, b) == expected
        if expected:
            alive.discard(b)
        assert all(graph.rank[p] < graph.rank[n] for n in alive for p in graph.before[n])
        assert all(n in graph.after[p] for n in alive for p in graph.before[n])
        if len(alive) < 4:
            break


def _path(after: dict[int, set[int]], a: int, b: int) -> bool:
    """Whether a path through at least one other node leads from a to b."""
    stack, seen = [n for n in after[a] if n != b], set()
    while stack:
        n = stack.pop()
        if n == b:
            return True
        if n not in seen:
            seen.add(n)
            stack.extend(after[n])
    return False


@pytest.mark.parametrize("first, second", [("17, 11", "17"), ("17", "17, 11"), ("5, 3, 5", "5"), ("5, 5", "5, 5")])
def test_totals_over_other_axes_share_no_loop(first: str, second: str) -> None:
    """The sum of two totals: of [17, 11] and of [17], whose axis of the same size is not the same axis."""
    equal = first == second
    found = forms(f"""
func @main(%x: float32[{first}] "x", %y: float32[{second}] "y") {{
  %0 = Sum(%x) {{axis={tuple(range(first.count(",") + 1))}, keepdims=false}} : float32[]
  %1 = Sum(%y) {{axis={tuple(range(second.count(",") + 1))}, keepdims=false}} : float32[]
  %2 = Add(%0, %1) : float32[]
  return %2 "z"
}}
""")
    assert found == (["rows"] if equal else ["rows", "rows"])


def test_an_outer_axis_of_the_size_of_a_row_is_another_axis() -> None:
    """Rows of [17, 11] reduced to one number, then over [17]: 17 is not the domain of the total."""
    assert forms("""
func @main(%x: float32[17, 11] "x", %y: float32[17] "y") {
  %0 = Sum(%x) {axis=(0, 1), keepdims=false} : float32[]
  %1 = Tanh(%0) : float32[]
  %2 = Sub(%y, %1) : float32[17]
  return %2 "z"
}
""") == ["map", "rows"]


def test_a_masked_gradient_is_stored_and_summed_to_the_columns_of_its_bias_in_one_pass() -> None:
    assert forms("""
func @main(%g: float32[N, 28, 28, 32] "g", %y: float32[N, 28, 28, 32] "y") {
  %0 = ReluGrad(%g, %y) : float32[N, 28, 28, 32]
  %1 = Sum(%0) {axis=(0, 1, 2), keepdims=false} : float32[32]
  return %0 "gradient", %1 "bias"
}
""") == ["rows"]


NORMAL_GRADIENT = """
func @main(%w: float32[3, 3, C, 32] "w", %dy: float32[N, 28, 28, 32] "dy", %y: float32[N, 28, 28, C] "y",
           %x: float32[N, 28, 28, C] "x", %m: float32[C] "m", %s: float32[C] "s") {
  %0 = Conv2DBackpropInput(%w, %dy) {strides=(1, 1, 1, 1), padding="SAME", explicit_paddings=(), data_format="NHWC",
       dilations=(1, 1, 1, 1), input_sizes=(N, 28, 28, C)} : float32[N, 28, 28, C]
  %1 = ReluGrad(%0, %y) : float32[N, 28, 28, C]
  %2 = Sub(%x, %m) : float32[N, 28, 28, C]
  %3 = Mul(%1, %2) : float32[N, 28, 28, C]
  %4 = Sum(%1) {axis=(0, 1, 2), keepdims=false} : float32[C]
  %5 = Sum(%3) {axis=(0, 1, 2), keepdims=false} : float32[C]
  %6 = Mul(%1, %s) : float32[N, 28, 28, C]
  %7 = Mul(%2, %5) : float32[N, 28, 28, C]
  %8 = Add(%6, %7) : float32[N, 28, 28, C]
  %9 = Add(%8, %4) : float32[N, 28, 28, C]
  return %9 "dx"
}
""".replace("\n       dilations", " dilations").replace("C", "16").replace("16onv", "Conv").replace("NHW16", "NHWC")


def test_a_product_stores_what_its_users_cannot_compute_again() -> None:
    """Of the gradient of a normalisation behind a convolution: the masked gradient alone; both sums read it in one
    pass, and what needs the sums is a pass of its own, for long columns are summed in parts."""
    fused = fuse(verify(parse(NORMAL_GRADIENT)))
    kernels = {n.attrs["form"]: n for n in fused.nodes if n.op.name == "Fusion"}
    assert sorted(n.attrs["form"] for n in fused.nodes if n.op.name == "Fusion") == ["contract", "map", "rows"]
    assert len(kernels["contract"].outputs) == 1 and len(kernels["rows"].outputs) == 2
    assert len(kernels["contract"].inputs) == 3  # the filter, the gradient, and the mask


def test_short_columns_and_what_needs_them_are_one_kernel() -> None:
    assert forms("""
func @main(%x: float32[N, 16] "x") {
  %0 = Mean(%x) {axis=(0,), keepdims=false} : float32[16]
  %1 = Sub(%x, %0) : float32[N, 16]
  return %1 "y"
}
""") == ["rows"]
