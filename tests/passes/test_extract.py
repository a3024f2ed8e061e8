"""Extraction: what a graph means, as a Function; effects, feeds, sizes, conditions and refusals."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from graphc.dtypes import float32, int32
from graphc.errors import GraphError, InvalidArgumentError, ShapeError
from graphc.graph.graph import Graph
from graphc.graph.tensor import Tensor
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Function
from graphc.ir.text import show
from graphc.ir.verify import verify
from graphc.ops import build as b
from graphc.passes import extract as extraction
from graphc.passes.effects import merge
from graphc.passes.extract import extract, states_read


@pytest.fixture(autouse=True)
def graph() -> Iterator[Graph]:
    made = Graph()
    with made.as_default():
        yield made


def placeholder(*shape: Any, dtype: Any = float32, name: str = "x") -> Tensor:
    return named(name, "Placeholder", dtype=dtype, shape=shape)


def named(name: str, op: str, *inputs: Any, **attrs: Any) -> Any:
    from graphc.graph.graph import get_default_graph
    return get_default_graph().create_op(op, inputs, attrs, name).outputs[0]


def variable(*shape: int, dtype: Any = float32, name: str = "v") -> Tensor:
    return named(name, "VariableV2", shape=shape, dtype=dtype)


def const(value: Any, dtype: Any = float32) -> Tensor:
    return b.constant(value, dtype)


def run(f: Function, feeds: Any = (), states: Any = ()) -> tuple[list[Any], list[Any]]:
    verify(f)
    fetches, updates = evaluate(f, feeds, states)
    return [a.tolist() for a in fetches], [a.tolist() for a in updates]


# -- effects ----------------------------------------------------------------------------------------------------------


def test_a_read_sees_no_write_that_is_not_its_ancestor(graph: Graph) -> None:
    v = variable()
    assign = b.op("AssignAdd", v, const(1.0))
    read = b.op("ReadVariable", v)
    f = extract([read, assign])
    assert run(f, (), [10.0]) == ([10.0, 11.0], [11.0])


def test_a_read_sees_the_writes_it_waits_for(graph: Graph) -> None:
    v = variable()
    first = b.op("AssignAdd", v, const(1.0))
    with graph.control_dependencies([first]):
        read = b.op("ReadVariable", v)
    second = b.op("AssignAdd", v, const(5.0))
    with graph.control_dependencies([second.op]):
        late = b.op("ReadVariable", v)
    f = extract([read, late], (), [second.op])
    assert run(f, (), [10.0]) == ([11.0, 16.0], [16.0])


def test_control_dependencies_pass_through_operations_without_values(graph: Graph) -> None:
    v = variable()
    write = b.op("Assign", v, const(3.0))
    with graph.control_dependencies([write]):
        between = named("between", "Identity", const(0.0))
    with graph.control_dependencies([between]):
        read = b.op("ReadVariable", v)
    assert run(extract([read]), (), [7.0]) == ([3.0], [3.0])


def test_writes_that_nothing_orders_take_creation_order() -> None:
    v = variable()
    double = b.op("Assign", v, b.op("Mul", b.op("ReadVariable", v), const(2.0)))
    add = b.op("AssignAdd", v, const(1.0))
    f = extract([add, double])
    assert run(f, (), [10.0]) == ([21.0, 20.0], [21.0])


def test_assign_returns_the_new_value_and_can_be_assigned_to() -> None:
    v = variable()
    twice = b.op("AssignSub", b.op("AssignAdd", v, const(4.0)), const(1.0))
    assert run(extract([twice]), (), [0.5]) == ([3.5], [3.5])


def test_a_fetched_variable_is_its_content_before_the_run() -> None:
    v = variable(2)
    write = b.op("Assign", v, const([1.0, 2.0]))
    assert run(extract([v], (), [write.op]), (), [[0.0, 0.0]]) == ([[0.0, 0.0]], [[1.0, 2.0]])


def test_a_variable_used_as_an_input_is_read_there(graph: Graph) -> None:
    v = variable()
    write = b.op("Assign", v, const(4.0))
    before = b.op("Neg", v)
    with graph.control_dependencies([write]):
        after = b.op("Neg", v)
    assert run(extract([before, after]), (), [1.0]) == ([-1.0, -4.0], [4.0])


def test_which_states_must_be_initialised() -> None:
    v, w = variable(name="v"), variable(name="w")
    f = extract([b.op("ReadVariable", w)], (), [b.op("Assign", v, const(1.0)).op])
    assert f.state_names == ("v", "w") and states_read(f) == (False, True)
    f = extract([], (), [b.op("Assign", v, b.op("ReadVariable", w)).op])
    assert states_read(f) == (False, True)
    f = extract([], (), [b.op("AssignAdd", v, const(1.0)).op])
    assert states_read(f) == (True,)


def test_a_write_to_a_fed_variable_is_refused() -> None:
    v = variable()
    read, write = b.op("ReadVariable", v), b.op("AssignAdd", v, const(1.0))
    assert run(extract([read], [v]), [5.0]) == ([5.0], [])
    with pytest.raises(GraphError, match="writes a variable that is fed"):
        extract([write], [v])


def test_merging_what_is_seen_keeps_the_latest() -> None:
    a, c = variable(name="a").op, variable(name="c").op
    assert merge([]) == {} and merge([{a: 1}, {c: 2}, {a: 3}]) == {a: 3, c: 2}
    table = {a: 2, c: 1}
    assert merge([{a: 1}, table, {}]) is table


# -- feeds and pruning ------------------------------------------------------------------------------------------------


def test_any_tensor_can_be_fed_and_cuts_what_is_above() -> None:
    x = placeholder(None, 3)
    y = named("y", "Exp", x)
    z = named("z", "Neg", y)
    f = extract([z], [y])
    assert f.feed_names == ("y",) and [n.op.name for n in f.nodes] == ["Neg"]
    assert run(f, [np.ones((2, 3), np.float32)])[0] == [[[-1.0] * 3] * 2]


def test_only_what_the_fetches_need_runs() -> None:
    x, other = placeholder(2), placeholder(3, name="other")
    used = named("used", "Neg", x)
    named("unused", "Exp", other)
    text = show(extract([used], [x]))
    assert text.startswith("""\
func @main(%x: float32[2] "x") {
  %0 = Neg(%x) : float32[2] from "used"
  return %0 "used"
  line "used" "test_extract.py:""")


def test_missing_feeds_are_named_together() -> None:
    x, y = placeholder(None, 2), placeholder(name="label", dtype=int32)
    with pytest.raises(InvalidArgumentError) as caught:
        extract([b.op("Neg", x), b.op("Neg", y)])
    assert "'x' (float32 (?, 2)), 'label' (int32 ())" in str(caught.value)


def test_a_default_is_used_where_nothing_is_fed() -> None:
    x = b.op("PlaceholderWithDefault", const(2.0), shape=())
    y = b.op("Neg", x)
    assert run(extract([y]))[0] == [-2.0]
    assert run(extract([y], [x]), [3.0])[0] == [-3.0]


def test_a_feed_that_is_fetched_is_given_back() -> None:
    x = placeholder(None)
    assert run(extract([x], [x]), [np.array([1.0, 2.0])])[0] == [[1.0, 2.0]]


def test_a_feed_of_unknown_rank_takes_the_rank_that_is_given() -> None:
    x = named("x", "Placeholder", dtype=float32, shape=None)
    y = b.op("Neg", x)
    f = extract([y], [x], feed_ranks={x: 2})
    assert str(f.fetches[0].type) == "float32[x_0, x_1]"
    assert run(f, [np.ones((1, 2))])[0] == [[[-1.0, -1.0]]]


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_sizes_that_meet_are_assumed_equal() -> None:
    x, y = placeholder(None, 3), placeholder(None, 3, name="y")
    f = extract([b.op("Add", x, y)], [x, y])
    assert str(f.fetches[0].type) == "float32[x_0, 3]" == str(f.feeds[1].type)
    (c,) = f.conditions
    assert (c.kind, str(c.left), str(c.right), c.op) == ("assume", "x_0", "y_0", "Add")
    with pytest.raises(ShapeError, match="sizes 2 and 4 do not broadcast"):
        evaluate(f, [np.zeros((2, 3)), np.zeros((4, 3))])


@pytest.mark.parametrize(("side", "shapes", "out"), [("left", ((1, 3), (4, 3)), "float32[y_0, 3]"),
                                                     ("right", ((4, 3), (1, 3)), "float32[x_0, 3]")])
def test_an_assumption_may_be_that_a_size_is_one(side: str, shapes: Any, out: str) -> None:
    x, y = placeholder(None, 3), placeholder(None, 3, name="y")
    f = extract([b.op("Add", x, y)], [x, y], assumptions={0: side})
    assert str(f.fetches[0].type) == out and [c.kind for c in f.conditions] == ["equal"]
    assert np.shape(run(f, [np.ones(s) for s in shapes])[0][0]) == (4, 3)


def test_a_size_that_must_be_known_becomes_known() -> None:
    x, w = placeholder(None, None), placeholder(5, 2, name="w")
    f = extract([b.op("MatMul", x, w)], [x, w])
    assert str(f.feeds[0].type) == "float32[x_0, 5]"
    assert [(c.kind, str(c.left), c.right) for c in f.conditions] == [("equal", "x_1", 5)]
    with pytest.raises(ShapeError):
        evaluate(f, [np.zeros((3, 4)), np.zeros((5, 2))])


def test_sizes_that_meet_late_are_the_same_everywhere() -> None:
    x, y = placeholder(None, 3), placeholder(None, 3, name="y")
    first = b.op("Exp", y)
    f = extract([first, b.op("Add", x, y)], [x, y])
    assert str(f.fetches[0].type) == "float32[x_0, 3]"


def test_shapes_flow_into_static_inputs() -> None:
    x = placeholder(None, 4)
    n = b.op("Shape", x)
    flat = b.op("Reshape", x, b.op("Mul", n, const([2, 1], int32)))
    with pytest.raises(ShapeError):  # 2N * 4 elements are not N * 4
        evaluate(extract([flat], [x]), [np.ones((3, 4))])
    twice = b.op("BroadcastTo", const(1.0), b.op("Mul", n, const([2, 1], int32)))
    f = extract([twice], [x])
    assert str(f.fetches[0].type) == "float32[2*x_0, 4]"
    assert np.shape(run(f, [np.ones((3, 4))])[0][0]) == (6, 4)


def test_fed_integers_may_be_sizes() -> None:
    n = placeholder(dtype=int32, name="batch_size")
    zeros = named("zeros", "Fill", b.op("Pack", n, const(2, int32), axis=0), const(0.0))
    f = extract([zeros], [n])
    assert str(f.fetches[0].type) == "float32[batch_size_value, 2]"
    assert [(s.symbol, s.feed, s.axis, s.element) for s in f.sources] == [("batch_size_value", 0, -1, 0)]
    assert run(f, [3])[0] == [[[0.0, 0.0]] * 3]


def test_a_static_input_that_depends_on_the_run_is_refused_at_its_line() -> None:
    x = placeholder(2, dtype=float32)
    target = named("target", "Cast", x, dtype=int32)
    y = named("reshaped", "Reshape", const([1.0, 2.0]), target)
    with pytest.raises(GraphError) as caught:
        extract([y], [x])
    text = str(caught.value)
    assert "Reshape: the value of 'shape' must be known when the program is compiled, but 'target'" in text
    assert "test_extract.py" in text


def test_a_size_that_users_set_is_a_condition() -> None:
    x = placeholder(None, 3)
    y = b.op("Exp", x)
    y.set_shape([7, 3])
    f = extract([y], [x])
    assert str(f.fetches[0].type) == "float32[7, 3]" and [c.kind for c in f.conditions] == ["equal"]


def test_conditions_keep_their_numbers_before_a_changed_one() -> None:
    x, y, z = (placeholder(None, 3, name=n) for n in "xyz")
    total = b.op("Add", b.op("Add", x, y), z)
    base = extract([total], [x, y, z]).conditions
    variant = extract([total], [x, y, z], assumptions={1: "right"}).conditions
    assert [c.kind for c in base] == ["assume", "assume"] and variant[0] == base[0] and variant[1].kind == "equal"


# -- cost -------------------------------------------------------------------------------------------------------------


def test_a_long_chain_is_walked_without_recursion_and_in_proportion() -> None:
    x = y = placeholder(None, 2)
    for _ in range(3000):
        y = b.op("Neg", y)
    f = extract([y], [x])
    assert len(f.nodes) == 3000 and f.nodes[-1].outputs[0] is f.fetches[0]


# -- random ops and host calls ----------------------------------------------------------------------------------------


def test_a_random_op_advances_a_counter_of_its_own() -> None:
    a = b.op("RandomUniform", (2,), dtype=float32, seed=1, seed2=2)[0]
    c = b.op("RandomUniform", (2,), dtype=float32, seed=1, seed2=3)[0]
    f = extract([a, c])
    assert [str(v.type) for v in f.states] == ["uint64[3]", "uint64[3]"] and states_read(f) == (True, True)
    assert f.state_names == (a.op.name, c.op.name)
    counters = [np.array([0, 2, 1], np.uint64), np.array([0, 3, 1], np.uint64)]
    (x, y), updates = evaluate(verify(f), [], counters)
    assert not np.array_equal(x, y) and ((x >= 0) & (x < 1)).all()
    assert all(u[0] > 0 and (u[1:] == s[1:]).all() for u, s in zip(updates, counters, strict=True))
    again = evaluate(f, [], updates)[0]
    assert not np.array_equal(again[0], x) and np.array_equal(evaluate(f, [], counters)[0][0], x)


def test_a_random_op_that_only_runs_advances_its_counter() -> None:
    a = b.op("RandomUniform", (2,), dtype=float32, seed=1, seed2=2)[0]
    f = extract([], (), [a.op])
    assert evaluate(f, [], [np.array([0, 2, 1], np.uint64)])[1][0][0] > 0


def test_host_calls_keep_their_order_and_are_kept() -> None:
    x = placeholder(2)
    first = named("first", "Print", x, message="first ")
    named("second", "Print", x, message="second ")
    check = b.get_default_graph().create_op("Assert", [b.op("Less", const(0.0), const(1.0)), x], {"message": "small"})
    f = extract([first], [x], [check])
    assert [n.op.name for n in f.nodes if n.op.kind.value == "host"] == ["Print", "Assert"]
    printed, checked = (n for n in f.nodes if n.op.kind.value == "host")
    assert checked.inputs[-1] is printed.outputs[-1] and str(printed.outputs[-1].type) == "host<token>"
    assert run(f, [np.ones(2)])[0] == [[1.0, 1.0]]


def test_an_assertion_fails_at_the_users_line() -> None:
    x = placeholder()
    inputs = [b.op("Less", x, const(1.0)), x]
    check = b.get_default_graph().create_op("Assert", inputs, {"message": "too large:"}, "small")
    f = extract([], [x], [check])
    run(f, [0.0])
    with pytest.raises(InvalidArgumentError) as caught:
        evaluate(f, [2.0])
    assert "small: assertion failed: too large: [2.0]" in str(caught.value) and "test_extract.py" in str(caught.value)


def test_a_question_that_only_the_session_can_answer_is_refused() -> None:
    v = variable()
    asked = b.op("IsVariableInitialized", v)
    with pytest.raises(GraphError, match="the session feeds the answer"):
        extract([asked])
    assert run(extract([asked], [asked]), [True])[0] == [True]


def test_twice_the_operations_take_twice_the_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    def visits(length: int) -> int:
        """How often an operation's inputs are looked at while a chain of writes and reads is extracted."""
        with Graph().as_default() as made:
            v = variable(2)
            y = b.op("ReadVariable", v)
            for _ in range(length // 4):
                with made.control_dependencies([b.op("AssignAdd", v, b.op("Neg", y))]):
                    y = b.op("Add", b.op("ReadVariable", v), y)
            count = 0
            real = extraction._parents

            def counted(*args: Any) -> Any:
                nonlocal count
                count += 1
                return real(*args)

            with monkeypatch.context() as patch:
                patch.setattr(extraction, "_parents", counted)
                verify(extract([y]))
            return count

    once, twice = visits(400), visits(800)
    assert once >= 400 and twice < 2.2 * once


def test_a_variable_keeps_its_shape() -> None:
    v = variable(2)
    wrong = b.op("Assign", v, const([1.0, 2.0, 3.0]), validate_shape=False)
    with pytest.raises(ShapeError, match=r"the variable has the shape \(2\), the value \(3\)"):
        extract([wrong])
    x = placeholder(None)
    f = extract([], [x], [b.op("Assign", v, x, validate_shape=False).op])
    assert str(f.feeds[0].type) == "float32[2]" and [c.kind for c in f.conditions] == ["equal"]


def test_the_message_of_a_condition_speaks_of_the_sizes_of_the_run() -> None:
    x, w = placeholder(None, None), placeholder(5, 2, name="w")
    f = extract([b.op("MatMul", x, w)], [x, w])
    with pytest.raises(ShapeError) as caught:
        evaluate(f, [np.zeros((3, 4)), np.zeros((5, 2))])
    assert "4" in str(caught.value) and "x_1" not in str(caught.value)
