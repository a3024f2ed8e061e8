"""The oracle: rounding, loops, branches, sizes, conditions, the observer, and refusals."""
from __future__ import annotations

import numpy as np
import pytest

from graphc import dtypes
from graphc.errors import InvalidArgumentError, ShapeError
from graphc.ir.evaluate import evaluate, round_to
from graphc.ir.parse import parse
from graphc.ir.verify import verify


def test_each_op_rounds_to_its_own_dtype() -> None:
    f = parse("""func @f(%x: float32[], %y: float32[]) {
      %a = Add(%x, %y)
      %b = Sub(%a, %x)
      return %b
    }""")
    assert evaluate(f, [1.0, 1e-9])[0][0] == 0.0 and evaluate(f, [1.0, 1e-9])[0][0].dtype == np.float32


def test_integers_are_exact_and_wrap() -> None:
    f = parse("func @f(%x: int64[], %y: int32[]) { %a = Add(%x, %x) %b = Mul(%y, %y) return %a, %b }")
    a, b = evaluate(f, [2 ** 52 + 1, 2 ** 16 + 1])[0]
    assert a == 2 ** 53 + 2 and b == 2 ** 17 + 1


def test_bfloat16_is_rounded_once() -> None:
    tie = 1 + 2.0 ** -8  # halfway between two bfloat16 numbers: to even
    above = tie + 2.0 ** -40  # float32 would round it to the tie first
    values = np.array([tie, above, -above, 3.4e38, np.inf, np.nan, 0.0, -0.0, 1e-42])
    got = round_to(values, dtypes.bfloat16)
    assert got[0] == 1.0 and got[1] == 1 + 2.0 ** -7 and got[2] == -got[1]
    assert np.isinf(got[4]) and np.isnan(got[5]) and np.signbit(got[7]) and not np.signbit(got[6])
    assert round_to(np.float64(1.5), dtypes.bfloat16).shape == ()


def test_bfloat16_rounding_gives_the_nearest() -> None:
    rng = np.random.default_rng()
    x = rng.normal(size=1000) * 2.0 ** rng.integers(-60, 60, 1000)
    got = round_to(x, dtypes.bfloat16).astype(np.float64)
    stored = dtypes.float32_to_bfloat16(got)
    for step in (-1, 1):
        neighbour = dtypes.bfloat16_to_float32((stored.astype(np.int64) + step).astype(np.uint16)).astype(np.float64)
        assert (np.abs(got - x) <= np.abs(neighbour - x)).all()


COUNT = """
func @go(%h: int64[], %limit: int64[]) { %p = Less(%h, %limit) return %p }
func @body(%i: int64[], %h: int64[], %limit: int64[]) {
  %two = Const() {value=array int64[] (2,), dtype=int64}
  %h2 = Mul(%h, %two)
  %p = Less(%h2, %limit)
  return %p, %h2, %i
}
func @f(%most: int64[], %h: int64[], %limit: int64[]) {
  %a, %b, %c = Loop(%most, %h, %limit) {body=@body, cond=@go, carried=1, captures=1, ys=1, while=true, length=8}
  return %a, %b, %c
}
"""


@pytest.mark.parametrize(("most", "start", "limit", "want"), [
    (8, 1, 30, (32, [0, 1, 2, 3, 4, 0, 0, 0], 5)), (3, 1, 30, (8, [0, 1, 2, 0, 0, 0, 0, 0], 3)),
    (8, 40, 30, (40, [0] * 8, 0)), (0, 1, 30, (1, [0] * 8, 0))])
def test_a_loop_while(most: int, start: int, limit: int, want: tuple[int, list[int], int]) -> None:
    f = verify(parse(COUNT))
    last, rows, count = evaluate(f, [most, start, limit])[0]
    assert (int(last), rows.tolist(), int(count)) == want


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_a_loop_over_rows(reverse: str) -> None:
    f = verify(parse(f"""
    func @body(%i: int64[], %h: float64[2], %x: float64[2]) {{ %a = Add(%h, %x) return %a, %a }}
    func @f(%n: int64[], %h: float64[2], %xs: float64[T, 2]) {{
      source T = %xs.axis(0)
      %a, %b, %c = Loop(%n, %h, %xs) {{body=@body, carried=1, xs=1, ys=1, reverse={reverse}}}
      return %a, %b, %c
    }}"""))
    xs = np.random.default_rng().normal(size=(5, 2))
    last, rows, count = evaluate(f, [5, np.zeros(2), xs])[0]
    want = np.cumsum(xs[::-1], 0)[::-1] if reverse == "true" else np.cumsum(xs, 0)
    np.testing.assert_allclose(rows, want)
    np.testing.assert_allclose(last, xs.sum(0))
    assert count == 5
    assert evaluate(f, [0, np.ones(2), np.zeros((0, 2))])[0][1].shape == (0, 2)


def test_a_branch_and_a_fusion() -> None:
    f = verify(parse("""
    func @minus(%x: float32[N]) { %a = Neg(%x) return %a }
    func @same(%x: float32[N]) { return %x }
    func @f(%p: bool[], %x: float32[N]) {
      %a = Cond(%p, %x) {then=@minus, orelse=@same}
      %b = Fusion(%a) {body=@minus, form="map"}
      return %a, %b
    }"""))
    assert [v.tolist() for v in evaluate(f, [True, [1, 2]])[0]] == [[-1, -2], [1, 2]]
    assert [v.tolist() for v in evaluate(f, [False, [1, 2]])[0]] == [[1, 2], [-1, -2]]


SIZED = """func @f(%x: float32[N, 3] "x", %n: int32[2] "n", %y: float32[M] "y") states(%w: float32[3] "w") {
  source N = %x.axis(0)
  source K = %n.element(1)
  source M = %y.axis(0)
  assume M == 2*N "sizes {left} and {right}" at "meet"
  divides N by 2 "{left} is odd" at "halve"
  at_most K <= N "{left} > {right}" at "slice"
  %a = BroadcastTo(%w) {shape=(K, 3)}
  %b = Sizes() {sizes=(N, K // 2 + 1), dtype=int32}
  return %a "a", %b "b" updates %w
}"""


def test_sizes_come_from_axes_and_elements() -> None:
    f = verify(parse(SIZED))
    (a, b), (w,) = evaluate(f, [np.zeros((4, 3)), [9, 3], np.zeros(8)], [[1, 2, 3]])
    assert a.tolist() == [[1, 2, 3]] * 3 and b.tolist() == [4, 2] and w.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("feeds", "message"), [
    ([np.zeros((4, 3)), [0, 1], np.zeros(7)], "meet: sizes 7 and 8"),
    ([np.zeros((3, 3)), [0, 1], np.zeros(6)], "halve: 3 is odd"),
    ([np.zeros((2, 3)), [0, 5], np.zeros(4)], "slice: 5 > 2"),
    ([np.zeros((2, 4)), [0, 1], np.zeros(4)], r"input 0 has the shape \(2, 4\), expected \(2, 3\)"),
    ([np.zeros((2, 3)), [0, -1], np.zeros(4)], "the size K is -1"),
    ([np.zeros(()), [0, 1], np.zeros(4)], "feed 0 has no axis 0"),
    ([np.zeros((2, 3))], "takes 3 feeds and 1 states, 1 and 1 are given")])
def test_feeds_that_do_not_fit(feeds: list[object], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        evaluate(parse(SIZED), feeds, [np.zeros(3)])


def test_the_observer_sees_every_op_and_its_values() -> None:
    f = parse(COUNT)
    seen: list[tuple[str, list[object]]] = []
    evaluate(f, [8, 1, 3], (), lambda node, inputs, outputs: seen.append((node.op.name, [a.tolist() for a in outputs])))
    assert [name for name, _ in seen] == ["Less", *["Const", "Mul", "Less"] * 2, "Loop"]
    assert seen[2] == ("Mul", [2]) and seen[-1][1][0] == 4


def test_values_that_an_op_does_not_allow_are_told_with_the_users_line() -> None:
    f = parse("""func @f(%x: int32[], %y: int32[]) {
      %a = FloorDiv(%x, %y) from "ratio"
      return %a
      line "ratio" "model.py:7:   ratio = x // y"
    }""")
    assert evaluate(f, [7, 2])[0][0] == 3
    with pytest.raises(InvalidArgumentError) as caught:
        evaluate(f, [7, 0])
    assert str(caught.value) == "ratio: integer division by zero\n  at model.py:7:   ratio = x // y"
