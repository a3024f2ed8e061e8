"""Every pass: its law on generated functions, its effect on small texts, its cost in visits."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from graphc.dtypes import float32
from graphc.errors import PassError, VerifyError
from graphc.ir import infer
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Builder, Function, Node, Value
from graphc.ir.parse import parse
from graphc.ir.text import show
from graphc.ir.types import TensorType
from graphc.ir.verify import verify
from graphc.ops.base import lookup
from graphc.options import Options
from graphc.passes.algebra import simplify
from graphc.passes.canonical import canonicalise
from graphc.passes.cse import merge_equal
from graphc.passes.dce import remove_dead_code
from graphc.passes.decompose import decompose
from graphc.passes.fold import fold_constants
from graphc.passes.pipeline import Pass, Pipeline, Repeat, optimise
from graphc.passes.stabilise import stabilise
from tests.ir.generate import functions, inputs

PASSES: dict[str, Callable[[Function], Function]] = {
    "remove_dead_code": remove_dead_code, "merge_equal": merge_equal, "canonicalise": canonicalise,
    "canonicalise strictly": lambda f: canonicalise(f, "strict"), "stabilise": stabilise, "decompose": decompose,
    "fold_constants": fold_constants, "simplify": simplify, "simplify strictly": lambda f: simplify(f, "strict"),
    **{f"level {n}": lambda f, n=n: optimise(f, Options(level=n)) for n in (0, 1, 2)},  # type: ignore[misc]
}
EXACT = ("remove_dead_code", "merge_equal", "canonicalise strictly", "simplify strictly")
ONCE = ("remove_dead_code", "merge_equal", "decompose", "fold_constants", "canonicalise", "canonicalise strictly")
QUIET = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", PASSES)
@QUIET
@given(f=functions(), seed=st.integers(0, 2 ** 32))
def test_values_stay(name: str, f: Function, seed: int) -> None:
    feeds, states = inputs(f, seed)
    want = [a for results in evaluate(f, feeds, states) for a in results]
    assume(all(np.abs(a.astype(np.float64)).max(initial=0) < 1e4 for a in want))
    after = verify(PASSES[name](f))
    assert [v.type for v in after.results] == [v.type for v in f.results]
    got = [a for results in evaluate(after, feeds, states) for a in results]
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if name in EXACT or a.dtype.kind != "f":
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        else:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ONCE)
@QUIET
@given(f=functions())
def test_once_is_enough(name: str, f: Function) -> None:
    once = PASSES[name](f)
    assert show(PASSES[name](once)) == show(once)


@QUIET
@given(f=functions())
def test_the_levels_are_stable_and_deterministic(f: Function) -> None:
    for level in (0, 1, 2):
        once = optimise(f, Options(level=level))
        assert show(optimise(f, Options(level=level))) == show(once)
    assert show(optimise(parse(show(once)), Options())) == show(optimise(once, Options()))


# -- texts ------------------------------------------------------------------------------------------------------------

TEXTS = {
    "an unused node goes": (remove_dead_code, """\
func @f(%x: float32[2]) {
  %0 = Exp(%x)
  %1 = Neg(%x)
  return %1
}
""", """\
func @f(%0_in: float32[2]) {
  %0 = Neg(%0_in) : float32[2]
  return %0
}
"""),
    "a loop loses what nobody takes": (remove_dead_code, """\
func @body(%i: int64[], %h: float32[], %x: float32[], %k: float32[], %u: float32[]) {
  %0 = Add(%h, %x)
  %1 = Mul(%0, %k)
  %2 = Exp(%u)
  return %0, %1, %2
}
func @f(%n: int64[], %h: float32[], %xs: float32[T], %k: float32[], %u: float32[]) {
  %0, %1, %2, %3 = Loop(%n, %h, %xs, %k, %u) {body=@body, carried=1, xs=1, captures=2, ys=2}
  return %0, %2
}
""", """\
func @body(%0_in: int64[], %1_in: float32[], %2_in: float32[], %3_in: float32[]) {
  %0 = Add(%1_in, %2_in) : float32[]
  %1 = Exp(%3_in) : float32[]
  return %0, %1
}

func @f(%0_in: int64[], %1_in: float32[], %2_in: float32[T], %3_in: float32[], %4_in: float32[]) {
  %0, %1, %2 = Loop(%0_in, %1_in, %2_in, %4_in) {body=@body, captures=1, carried=1, cond=none, length=T, \
reverse=false, while=false, xs=1, ys=1} : float32[], float32[T], int64[]
  return %0, %1
}
"""),
    "a branch loses what nobody takes": (remove_dead_code, """\
func @then(%x: float32[], %y: float32[]) {
  %0 = Neg(%x)
  return %0, %y
}
func @orelse(%x: float32[], %y: float32[]) {
  return %x, %y
}
func @f(%p: bool[], %x: float32[], %y: float32[]) {
  %0, %1 = Cond(%p, %x, %y) {then=@then, orelse=@orelse}
  return %0
}
""", """\
func @then(%0_in: float32[]) {
  %0 = Neg(%0_in) : float32[]
  return %0
}

func @orelse(%0_in: float32[]) {
  return %0_in
}

func @f(%0_in: bool[], %1_in: float32[], %2_in: float32[]) {
  %0 = Cond(%0_in, %1_in) {orelse=@orelse, then=@then} : float32[]
  return %0
}
"""),
    "equal nodes merge, in either order where it does not matter, and keep their names": (merge_equal, """\
func @f(%x: float32[2], %y: float32[2]) {
  %0 = Add(%x, %y) from "a"
  %1 = Add(%y, %x) from "b"
  %2 = Sub(%x, %y)
  %3 = Sub(%y, %x)
  return %0, %1, %2, %3
}
""", """\
func @f(%0_in: float32[2], %1_in: float32[2]) {
  %0 = Add(%0_in, %1_in) : float32[2] from "a", "b"
  %1 = Sub(%0_in, %1_in) : float32[2]
  %2 = Sub(%1_in, %0_in) : float32[2]
  return %0, %0, %1, %2
}
"""),
    "zeros of either sign stay apart": (merge_equal, """\
func @f() {
  %0 = Const() {dtype=float32, value=array float32[] (0.0,)}
  %1 = Const() {dtype=float32, value=array float32[] (-0.0,)}
  return %0, %1
}
""", """\
func @f() {
  %0 = Const() {dtype=float32, value=array float32[] (0.0,)} : float32[]
  %1 = Const() {dtype=float32, value=array float32[] (-0.0,)} : float32[]
  return %0, %1
}
"""),
    "transposes become flags": (canonicalise, """\
func @f(%x: float32[3, N], %w: float32[5, 3]) {
  %0 = Transpose(%x) {perm=(1, 0)}
  %1 = Transpose(%w) {perm=(1, 0)}
  %2 = MatMul(%0, %1)
  return %2
}
""", """\
func @f(%0_in: float32[3, N], %1_in: float32[5, 3]) {
  %0 = Transpose(%0_in) {perm=(1, 0)} : float32[N, 3]
  %1 = Transpose(%1_in) {perm=(1, 0)} : float32[3, 5]
  %2 = MatMul(%0_in, %1_in) {transpose_a=true, transpose_b=true} : float32[N, 5]
  return %2
}
"""),
    "constants are folded, repeated ones stay scalars": (fold_constants, """\
func @f(%x: float32[2]) {
  %0 = Const() {dtype=float32, value=array float32[2] (1.0, 2.0)}
  %1 = Const() {dtype=float32, value=array float32[] (3.0,)}
  %2 = Mul(%0, %1)
  %3 = Add(%x, %2)
  return %3
}
""", """\
func @f(%0_in: float32[2]) {
  %0 = Const() {dtype=float32, value=array float32[2] (1.0, 2.0)} : float32[2]
  %1 = Const() {dtype=float32, value=array float32[] (3.0,)} : float32[]
  %2 = Const() {dtype=float32, value=array float32[2] (3.0, 6.0)} : float32[2]
  %3 = Add(%0_in, %2) : float32[2]
  return %3
}
"""),
    "a logarithm of a softmax": (stabilise, """\
func @f(%x: float32[N, 4]) {
  %0 = Softmax(%x)
  %1 = Log(%0)
  return %1
}
""", """\
func @f(%0_in: float32[N, 4]) {
  %0 = Softmax(%0_in) : float32[N, 4]
  %1 = LogSoftmax(%0_in) : float32[N, 4]
  return %1
}
"""),
    "a chain of laws": (lambda f: optimise(f, Options()), """\
func @f(%x: float32[N, 3]) {
  %0 = ZerosLike(%x)
  %1 = Const() {dtype=float32, value=array float32[] (2.0,)}
  %2 = Pow(%x, %1)
  %3 = Add(%0, %2)
  %4 = Neg(%3)
  %5 = Neg(%4)
  %6 = Mul(%1, %5)
  %7 = Mul(%6, %1)
  %8 = Sum(%7) {axis=(1,)}
  return %8
}
""", """\
func @f(%0_in: float32[N, 3]) {
  %0 = Square(%0_in) : float32[N, 3]
  %1 = Const() {dtype=float32, value=array float32[] (4.0,)} : float32[]
  %2 = Sum(%0) {axis=(1,), keepdims=false} : float32[N]
  %3 = Mul(%2, %1) : float32[N]
  return %3
}
"""),
}


@pytest.mark.parametrize("what", TEXTS)
def test_text(what: str) -> None:
    step, before, after = TEXTS[what]
    assert show(verify(step(verify(parse(before))))) == after


def test_folding_keeps_to_its_limit_and_leaves_errors_to_the_run() -> None:
    f = parse("""func @f() {
      %0 = Const() {dtype=float32, value=array float32[3] (1.0, 2.0, 3.0)}
      %1 = Neg(%0)
      return %1
    }""")
    assert fold_constants(f, 11) is f and fold_constants(f, 12) is not f
    f = parse("""func @f() {
      %0 = Const() {dtype=int32, value=array int32[] (1,)}
      %1 = Const() {dtype=int32, value=array int32[] (0,)}
      %2 = FloorDiv(%0, %1)
      return %2
    }""")
    assert fold_constants(f) is f


# -- the pipeline -----------------------------------------------------------------------------------------------------

SMALL = parse('func @f(%x: float32[2]) { %0 = Identity(%x) from "i" %1 = Exp(%0) return %1 }')


def crash(f: Function, options: Options) -> Function:
    raise ZeroDivisionError("an accident")


def spoil(f: Function, options: Options) -> Function:
    return f.replace(fetches=(Value(TensorType(float32, (2,))),))


@pytest.mark.parametrize(("step", "message"), [(crash, "an accident"), (spoil, "fetch 0 is not defined")])
def test_a_pass_that_fails_stops_with_its_name_and_the_last_valid_ir(
        step: Callable[[Function, Options], Function], message: str, tmp_path: Path) -> None:
    with pytest.raises(PassError) as caught:
        Pipeline(Options()).run(SMALL, (Pass("broken", step),))
    text = str(caught.value)
    assert "the pass broken failed" in text and message in text and "Identity(%0_in)" in text
    with pytest.raises(PassError) as caught:
        Pipeline(Options(dump_passes=str(tmp_path))).run(SMALL, (Pass("broken", step),))
    saved = tmp_path / "01_before_broken_failed.gir"
    assert str(saved) in str(caught.value) and show(parse(saved.read_text())) == show(SMALL)


def test_each_pass_that_changes_something_is_dumped_and_recorded(tmp_path: Path) -> None:
    pipeline = Pipeline(Options(dump_passes=str(tmp_path / "out")))
    optimise(SMALL, Options(), pipeline)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["00_extract.gir", "01_canonicalise.gir"]
    assert [(r.nodes_before, r.nodes_after) for r in pipeline.records if r.nodes_before != r.nodes_after] == [(2, 1)]
    assert all(r.seconds >= 0 for r in pipeline.records)
    for p in (tmp_path / "out").iterdir():
        verify(parse(p.read_text()))


def test_repeating_ends_where_nothing_changes() -> None:
    runs = []
    Pipeline(Options()).run(SMALL, (Repeat((Pass("nothing", lambda f, o: runs.append(1) or f),)),))
    assert len(runs) == 1


def test_the_verifier_sees_what_a_pass_broke() -> None:
    x = Value(TensorType(float32, (2,)))
    wrong = Node(lookup("Neg"), (x,), {}, (TensorType(float32, (3,)),))
    with pytest.raises(VerifyError, match="inference gives float32"):
        verify(Function("f", (x,), (wrong,), wrong.outputs))


# -- cost -------------------------------------------------------------------------------------------------------------


def chain(length: int) -> Function:
    """A chain in which every pass finds something to do."""
    x = Value(TensorType(float32, (4,)))
    builder = Builder(infer.types)
    one = builder.add(lookup("Const"), (), {"value": np.ones((), np.float32), "dtype": float32}).output
    y = x
    for _ in range(length // 5):
        y = builder.add(lookup("Identity"), (y,)).output
        a = builder.add(lookup("Mul"), (y, one)).output
        minus = builder.add(lookup("Neg"), (a,)).output
        y = builder.add(lookup("Tanh"), (builder.add(lookup("Add"), (a, minus)).output,)).output
    return Function("chain", (x,), tuple(builder.nodes), (y,))


def visits(length: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many inferences and node constructions the whole pipeline needs."""
    count = 0
    real_types, real_node = infer.types, Node.__init__

    def counted_types(*args: object) -> object:
        nonlocal count
        count += 1
        return real_types(*args)  # type: ignore[arg-type]

    def counted_node(*args: object) -> None:
        nonlocal count
        count += 1
        real_node(*args)  # type: ignore[arg-type]

    f = chain(length)
    with monkeypatch.context() as patch:
        patch.setattr(infer, "types", counted_types)
        patch.setattr(Node, "__init__", counted_node)
        optimise(f, Options())
    return count


def test_twice_the_nodes_take_twice_the_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    once, twice = visits(500, monkeypatch), visits(1000, monkeypatch)
    assert once > 500 and twice < 2.2 * once


def test_a_chain_of_50000_ops() -> None:
    f = optimise(chain(50_000), Options())
    assert 20_000 <= len(f.nodes) <= 30_001


def test_bodies_are_decomposed_too() -> None:
    f = parse("""
    func @soft(%x: float32[2, 3]) { %a = Softmax(%x) return %a }
    func @same(%x: float32[2, 3]) { return %x }
    func @f(%p: bool[], %x: float32[2, 3]) {
      %a = Cond(%p, %x) {then=@soft, orelse=@same}
      return %a
    }""")
    assert "Softmax" in show(f) and "Softmax" not in show(verify(decompose(f)))
