"""The verifier: each rule of the IR, broken once, with the message it must get."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from graphc.dtypes import bool_, float32, int64
from graphc.errors import VerifyError
from graphc.ir.dim import symbol
from graphc.ir.function import Condition, Function, Node, SymbolSource, Value
from graphc.ir.parse import parse
from graphc.ir.types import TensorType, Type
from graphc.ir.verify import verify
from graphc.ops.base import Kind, NoGradient, NotLowered, Op, lookup

F2 = TensorType(float32, (2,))


def neg(x: Value, type: Type = F2) -> Node:
    return Node(lookup("Neg"), (x,), {}, (type,), ("here",))


def function(change: Callable[[Function], Function]) -> Function:
    x, w = Value(F2), Value(F2)
    node = neg(x)
    return change(Function("f", (x,), (node,), node.outputs, (w,), (w,), ("x",), ("w",), ("y",)))


def other() -> Value:
    return Value(F2)


def outside_op() -> Op:
    known = lookup("Neg")
    return Op("Neg", Kind.ELEMENTWISE, ("x",), known.infer, NoGradient("none"), known.reference, NotLowered("none"),
              list, "an op that is not in the registry")


WRONG: list[tuple[str, Callable[[Function], Function]]] = [
    ("an input stands twice", lambda f: f.replace(feeds=f.feeds * 2, feed_names=())),
    ("1 feed values have 2 names", lambda f: f.replace(feed_names=("a", "b"))),
    ("two feed values have the same name", lambda f: f.replace(feeds=(*f.feeds, other()), feed_names=("a", "a"))),
    ("1 states have 0 updates", lambda f: f.replace(updates=())),
    ("an input is the output of a node", lambda f: f.replace(feeds=f.nodes[0].outputs)),
    ("input 0 is used before it is defined", lambda f: f.replace(feeds=(other(),))),
    ("node 1, Neg from 'here': this node stands twice", lambda f: f.replace(nodes=f.nodes * 2)),
    ("fetch 0 is not defined", lambda f: f.replace(fetches=(other(),))),
    ("update 0 is not defined", lambda f: f.replace(updates=(other(),))),
    ("node 0, Neg from 'here': output 0 has the type float32[3], inference gives float32[2]",
     lambda f: f.replace(nodes=(n := neg(f.feeds[0], TensorType(float32, (3,))),), fetches=n.outputs)),
    ("output 0 has the type int64[2]",
     lambda f: f.replace(nodes=(n := neg(f.feeds[0], TensorType(int64, (2,))),), fetches=n.outputs)),
    ("this op is not in the registry",
     lambda f: f.replace(nodes=(n := Node(outside_op(), f.feeds, {}, (F2,)),), fetches=n.outputs)),
    ("attr 'k' of type set is not plain data",
     lambda f: f.replace(nodes=(n := Node(lookup("Neg"), f.feeds, {"k": {1}}, (F2,)),), fetches=n.outputs)),
    ("unknown kind of condition 'perhaps'", lambda f: f.replace(conditions=(Condition("perhaps", 1, 1, "", ""),))),
    ("speaks of an unbound size", lambda f: f.replace(conditions=(Condition("equal", symbol("Z"), 1, "", "op"),))),
    ("the source of N is feed 3 of 1", lambda f: f.replace(sources=(SymbolSource("N", 3, 0),))),
    ("the source of N does not fit feed 0", lambda f: f.replace(sources=(SymbolSource("N", 0, 1),))),
    ("the source of N does not fit feed 0", lambda f: f.replace(sources=(SymbolSource("N", 0, -1, 0),))),
    ("the size N of output 0 is bound nowhere", lambda f: f.replace(nodes=(n := Node(
        lookup("BroadcastTo"), f.feeds, {"shape": (symbol("N"), 2)}, (TensorType(float32, (symbol("N"), 2)),)),),
        fetches=n.outputs)),
    ("state 0 of type float32[2] is updated with float32[]", lambda f: f.replace(nodes=(n := Node(
        lookup("Sum"), f.feeds, {"axis": (0,), "keepdims": False}, (TensorType(float32, ()),)),), fetches=(),
        fetch_names=(), updates=n.outputs)),
]


def test_the_function_that_is_broken_is_right() -> None:
    f = function(lambda f: f)
    assert verify(f) is f


@pytest.mark.parametrize(("message", "change"), WRONG)
def test_wrong_functions(message: str, change: Callable[[Function], Function]) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(function(change))
    assert message in str(caught.value) and str(caught.value).startswith("function @f: ")


LOOP = """
func @body(%i: int64[], %h: float32[2], %x: float32[], %k: float32[2]) {{
  %a = Add(%h, %x)
  return {results}
}}
func @f(%n: {count}, %h: float32[2], %xs: {xs}, %k: float32[2]) {{
  %a, %b, %c = Loop(%n, %h, %xs, %k) {{body=@body, carried=1, xs=1, captures=1, ys=1}} :
    float32[2], float32[T, 2], int64[]
  return %a
}}
"""
BRANCH = """
func @then(%x: float32[2]) {{ %a = Neg(%x) return %a }}
func @orelse(%x: {type}) {{ {body} }}
func @f(%p: {p}, %x: float32[2]) {{
  %a = Cond(%p, %x) {{then=@then, orelse=@orelse}} : float32[2]
  return %a
}}
"""
RIGHT_LOOP = {"results": "%a, %h", "count": "int64[]", "xs": "float32[T]"}
RIGHT_BRANCH = {"type": "float32[2]", "body": "return %x", "p": "bool[]"}
STRUCTURED = [
    (LOOP, RIGHT_LOOP, {"count": "int32[]"}, "Loop: the first input must be an int64 scalar, not int32[]"),
    (LOOP, RIGHT_LOOP, {"xs": "float32[T, 3]"}, "Loop: body: value 2 is float32[3], expected float32[]"),
    (LOOP, RIGHT_LOOP, {"xs": "float32[]"}, "Loop: a stacked input must have a first axis, float32[] has none"),
    (LOOP, RIGHT_LOOP, {"results": "%a"}, "Loop: the body must return 1 carried values and 1 rows, not 1 values"),
    (LOOP, RIGHT_LOOP, {"results": "%x, %a"}, "Loop: carried values: value 0 is float32[2], expected float32[]"),
    (BRANCH, RIGHT_BRANCH, {"p": "bool[1]"}, "Cond: the first input must be a bool scalar"),
    (BRANCH, RIGHT_BRANCH, {"type": "float32[3]"}, "Cond: orelse: value 0 is float32[2], expected float32[3]"),
    (BRANCH, RIGHT_BRANCH, {"body": "%s = Sum(%x) {axis=(0,)} return %s"}, "Cond: results: value 0 is float32[2], "
                                                                          "expected float32[]"),
    (BRANCH, RIGHT_BRANCH, {"body": "return"}, "Cond: results: 0 values are expected, 1 are given"),
]


@pytest.mark.parametrize(("text", "right", "wrong", "message"), STRUCTURED)
def test_bodies_have_the_signatures_that_their_nodes_need(text: str, right: dict[str, str], wrong: dict[str, str],
                                                          message: str) -> None:
    verify(parse(text.format(**right)))
    with pytest.raises(VerifyError) as caught:
        verify(parse(text.format(**right | wrong)))
    assert message in str(caught.value)


def test_a_body_has_no_states() -> None:
    head = "@then(%x: float32[2])"
    text = BRANCH.format(**RIGHT_BRANCH).replace(head, head + " states(%w: int8[])")
    with pytest.raises(VerifyError, match="function @then: a body has feeds and fetches alone"):
        verify(parse(text.replace("return %a }", "return %a updates %w }", 1)))


def test_sizes_may_differ_where_a_condition_makes_them_equal() -> None:
    text = """func @f(%x: float32[2*N + M]) {{
      {condition}
      %y = Neg(%x) : float32[K]
      return %y
    }}"""
    head = "func @f(%x: float32[2*N + M], %n: float32[N, M, K]) {{"
    text = text.replace("func @f(%x: float32[2*N + M]) {{", head)
    verify(parse(text.format(condition='equal K == 2*N + M "" at "op"')))
    with pytest.raises(VerifyError, match="inference gives"):
        verify(parse(text.format(condition='equal K == N + M "" at "op"')))


def test_nodes_verified_before_are_not_inferred_again() -> None:
    f = function(lambda f: f)
    known: set[Node] = set()
    verify(f, known)
    assert known == set(f.nodes)
    assert TensorType(bool_, ()) != F2 and verify(f, known) is f
