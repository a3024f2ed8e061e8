"""The text form: what is printed is read back, whatever is read is a Function or a ParseError with its place."""
from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphc import dtypes
from graphc.errors import InternalError, ParseError
from graphc.ir.dim import maximum, minimum, symbol
from graphc.ir.function import Function, Node, Value
from graphc.ir.parse import parse
from graphc.ir.text import same, show, show_attr
from graphc.ir.types import HostType, TensorType
from graphc.ir.verify import verify
from graphc.ops.base import lookup
from tests.ir.generate import functions

N, M = symbol("N"), symbol("M")

FULL = """\
func @step(%0_in: int64[], %1_in: float32[]) {
  %0 = Neg(%1_in) : float32[]
  return %0
}

func @main(%x: float32[N, 4] "x", %1_in: int32[2] "scope/n") states(%w: float32[4] "w") {
  source N = %x.axis(0)
  source K = %1_in.element(1)
  assume N == 2*K "{left} and {right}" at "add"
  divides 4*N by 2 "halves" at "split"
  at_most N <= K + 3 "bounded" at "slice"
  %0 = Const() {dtype=float32, value=array float32[2] (0.1, nan)} : float32[2]
  %1 = Const() {dtype=int64, value=array int64[] (3,)} : int64[]
  %2 = Const() {dtype=float32, value=array float32[100] all -0.0} : float32[100] from "zeros", "zeros_1"
  %3 = Sum(%w) {axis=(0,), keepdims=false} : float32[]
  %4, %5 = Loop(%1, %3) {body=@step, captures=0, carried=1, cond=none, length=none, reverse=false, while=false, xs=0, ys=0} : float32[], int64[]
  %6 = Add(%x, %w) : float32[N, 4] from "add"
  return %6 "add:0", %5 "n" updates %w
  line "add" "model.py:3:   y = x + \\"w\\""
}
"""  # noqa: E501


def test_every_part_prints_as_it_is_read() -> None:
    f = parse(FULL)
    assert show(f) == FULL
    verify(f)
    assert f.conditions[0].right == 2 * symbol("K") and f.sources[1].element == 1
    assert f.nodes[2].origin == ("zeros", "zeros_1") and f.lines["add"].endswith('"w"')


def test_types_and_defaults_may_be_left_out() -> None:
    f = parse('func @f(%x: float32[N, 2]) { # a comment\n %y = MatMul(%x, %x) {transpose_b=true}\n return %y }')
    assert str(f.fetches[0].type) == "float32[N, N]"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(functions())
def test_generated_functions_come_back(f: Function) -> None:
    verify(f)
    text = show(f)
    again = parse(text)
    assert show(again) == text and same(f, again)
    verify(again)


ATTRS = [True, False, None, 0, -3, 10 ** 20, 0.5, -0.0, 1e300, 5e-324, math.inf, -math.inf, "", 'a "b"\n\\', "é",
         dtypes.float32, dtypes.bool_, dtypes.bfloat16, N, N * 4 + 1, N * M - 1, (N + 2 - M) // 3, N % 2, maximum(N, M),
         minimum(N // 2, M * M), (), (1,), (1, (2.0, "x"), N), ((N,), ()), TensorType(dtypes.int8, (N, 1)),
         HostType("token"), (HostType("string"), TensorType(dtypes.float16, ()))]


@pytest.mark.parametrize("value", ATTRS, ids=str)
def test_attrs_come_back(value: object) -> None:
    assert attr_again(value) == value and type(attr_again(value)) is type(value)
    if isinstance(value, float):
        assert math.copysign(1, attr_again(value)) == math.copysign(1, value)


def attr_again(value: object) -> object:
    """`value` printed in a function and read back."""
    node = Node(lookup("Const"), (), {"value": value, "dtype": dtypes.float32}, (TensorType(dtypes.float32, ()),))
    return parse(show(Function("f", (), (node,), node.outputs))).nodes[0].attrs["value"]


def test_nan_comes_back() -> None:
    assert math.isnan(attr_again(math.nan))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [d.storage for d in dtypes.ALL if d is not dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (0, 2), (2, 2, 2), (17,), (4, 5)])
def test_arrays_come_back_to_the_bit(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng()
    raw = rng.bytes(int(np.prod(shape)) * dtype.itemsize)
    bits = np.frombuffer(raw, np.uint8) & 1 if dtype.kind == "b" else np.frombuffer(raw, dtype)
    for array in (bits.astype(dtype).reshape(shape), np.full(shape, 1, dtype), np.zeros((5, *shape), dtype)):
        again = attr_again(array)
        assert isinstance(again, np.ndarray) and again.dtype == array.dtype and again.shape == array.shape
        assert np.ascontiguousarray(again).tobytes() == np.ascontiguousarray(array).tobytes()


def test_what_is_no_plain_data_has_no_text() -> None:
    with pytest.raises(InternalError, match="an attr of type set has no text"):
        show_attr({1})


def test_bodies_with_one_name_stay_apart() -> None:
    feed, other = Value(TensorType(dtypes.float32, ())), Value(TensorType(dtypes.float32, ()))
    neg = Node(lookup("Neg"), (feed,), {}, (feed.type,))
    one = Function("body", (feed,), (neg,), neg.outputs)
    two = Function("body", (other,), (), (other,))
    p, x = Value(TensorType(dtypes.bool_, ())), Value(TensorType(dtypes.float32, ()))
    cond = Node(lookup("Cond"), (p, x), {"then": one, "orelse": two}, (x.type,))
    f = Function("main", (p, x), (cond,), cond.outputs)
    text = show(f)
    assert "then=@body}" in text and "orelse=@body_1," in text and show(parse(text)) == text


WRONG = [
    ("", "line 1, column 1: expected 'func'"),
    ("func @f() { return %x }", "line 1, column 20: %x is not defined"),
    ("func @f(%x: float33[]) { return %x }", "line 1, column 13: unknown dtype 'float33'"),
    ("func @f(%x: float32[]) {\n  %y = Nge(%x)\n return %y }", "line 2, column 8: unknown op 'Nge'"),
    ("func @f(%x: float32[-1]) { return %x }", "line 1, column 21: a size is not negative"),
    ("func @f(%x: float32[], %x: float32[]) { return %x }", "line 1, column 24: %x is defined twice"),
    ("func @f(%x: float32[]) { %x = Neg(%x) return %x }", "line 1, column 26: %x is defined twice"),
    ("func @f(%x: float32[2], %y: float32[3]) { %z = Add(%x, %y) return %z }",
     "line 1, column 43: Add: shapes (2,) and (3,) do not broadcast"),
    ('func @f(%x: float32[] "x", %y: float32[]) { return %x }', "either all of these values have names or none"),
    ("func @f() states(%w: float32[]) { return }", "1 states have 0 updates"),
    ("func @f(%x: float32[]) { %a, %b = Neg(%x) return %a }", "Neg gives 1 values, 2 are named"),
    ("func @f(%x: float32[]) { %a = Fusion(%x) {body=@g} return %a }", "function @g is not defined before its use"),
    ("func @f(%x: float32[N // 0]) { return %x }", "division by zero"),
    ("func @f() { %a = Const() {value=array float32[2] (1.0,), dtype=float32} return %a }",
     "1 elements are given for float32[2]"),
    ("func @f() { %a = Const() {value=array uint8[1] (256,), dtype=uint8} return %a }", "does not fit into uint8"),
    ('func @f() { %a = Const() {value=array uint8[3] base64 "AAA", dtype=uint8} return %a }', "base64"),
    ("func @f() { %a = Const() {value=array int8[99999999999999999999] all 1, dtype=int8} return %a }", "no memory"),
    ("func @f(%x: float32[" + "(" * 1000 + "N" + ")" * 1000 + "]) { return %x }", "too many parentheses"),
    ("func @f(%x: float32[" + "*".join(["(A+B+C+D+E+F+G+H)"] * 20) + "]) { return %x }", "this size is too long"),
    ("func @f(%x: float32[" + "*".join(["9" * 99] * 1000) + "]) { return %x }", "this size is too long"),
    ("func @f(%x: float32[N*" + "9" * 99 + "]) { return %x }", "this size is too long"),
    ("func @f(%x: float32[4]) { %a = Unpack(%x) {num=1000000000000} return %a }", "gives 1000000000000 values, 1 are"),
    ("func @f(%x: float32[4]) { %a = Split(%x) {num_split=10000000000, axis=0} : int8[4] return %a }", "values, 1 are"),
    ("func @f(%x: float32[2]) { return %x } func @f(%x: float32[2]) { return %x }", "function @f is defined twice"),
    ("func @f(%x: float32[2]) { return %x ; }", "cannot read ';'"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_texts_say_where(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_long_strings_take_the_memory_of_their_length() -> None:
    """A pattern that keeps a way back for each character took a hundred bytes for each."""
    array = np.frombuffer(np.random.default_rng().bytes(6_000_000), np.uint8)
    text = 'func @f() { %a = Const() {value=' + show_attr(array) + ', dtype=uint8} return %a "' + "\\n" * 10**6 + '" }'
    tracemalloc.start()
    try:
        function = parse(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(function.nodes[0].attrs["value"], array) and peak < 8 * len(text)


PIECES = ["", "(", ")", "%", "%x", "{", "}", "-", "N", "1", "//", "array", "none", "func", '"', ",", "float32", "[",
          "]", "=", "@step", "e", ".", "\n", "true", "*"]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_texts_are_refused_or_read(data: st.DataObject) -> None:
    text = FULL
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from(PIECES))
        text = text[:at] + piece + text[at + data.draw(st.integers(0, 4)):]
    try:
        f = parse(text)
    except ParseError as error:
        assert str(error).startswith("line ")
    else:
        assert isinstance(f, Function)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_long_arrays_hashed_tell_functions_apart(dtype: str) -> None:
    rng = np.random.default_rng()
    array = rng.integers(0, 2, (5, 20)).astype(dtype)
    array[0, :2] = 0, 1
    other = array.copy()
    other[-1, -1] = 1 - other[-1, -1]
    texts = [show_attr(a, hashed=True) for a in (array, array.copy(), np.asfortranarray(array), other, array.T)]
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts)) == 3
    assert "base64" in show_attr(array) and len(texts[0]) < 120
    for plain in (np.full(100, array[0, 0]), array[0, :3], array[0, :1]):
        assert show_attr(plain, hashed=True) == show_attr(plain)
