"""The exact text of errors: what is wrong in the user's names, the user's line, the operands, what to do."""
from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import graphc as tf
from graphc.errors import DTypeError, GraphError, ShapeError


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as g:
        yield g


def text_of(kind: type[Exception], function: Callable[[], object]) -> str:
    """The error's text, line numbers of this file as N."""
    with pytest.raises(kind) as caught:
        function()
    return re.sub(r"test_errors\.py:\d+", "test_errors.py:N", str(caught.value))


def test_wrong_shape() -> None:
    x = tf.placeholder(tf.float32, [64, 128], name="x")
    w2 = tf.get_variable("w2", [64, 10])
    text = text_of(ShapeError, lambda: tf.matmul(x, w2))
    assert text.startswith("matmul: ")
    assert "(64, 128)" in text.splitlines()[0]
    assert text.splitlines()[1:4] == [
        "  at test_errors.py:N in <lambda>:   text = text_of(ShapeError, lambda: tf.matmul(x, w2))",
        '  x:  float32 (64, 128)  placeholder "x", test_errors.py:N',
        '  w2: float32 (64, 10)   variable "w2", test_errors.py:N']


def test_wrong_shape_of_an_operator() -> None:
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    y = tf.constant(np.ones((7, 4), np.float32), name="y")
    assert text_of(ShapeError, lambda: x + y) == "\n".join([
        "add: shapes (?, 3) and (7, 4) do not broadcast: 3 != 4",
        "  at test_errors.py:N in <lambda>:   assert text_of(ShapeError, lambda: x + y) == \"\\n\".join([",
        '  x: float32 (?, 3)  placeholder "x", test_errors.py:N',
        '  y: float32 (7, 4)  constant "y", test_errors.py:N',
        "  hint: sizes broadcast where they are equal or one of them is 1"])


def test_wrong_dtype() -> None:
    x = tf.placeholder(tf.float32, [3], name="x")
    n = tf.placeholder(tf.int32, [3], name="n")
    text = text_of(DTypeError, lambda: x * n)
    assert text.splitlines()[0] == "mul: the inputs must have one dtype, not float32 and int32"
    assert text.splitlines()[2:] == [
        '  x: float32 (3,)  placeholder "x", test_errors.py:N',
        '  n: int32 (3,)    placeholder "n", test_errors.py:N',
        "  hint: convert one of them: tf.cast(x, tf.float32) for input 1"]
    assert issubclass(DTypeError, TypeError)


def test_missing_feeds() -> None:
    x = tf.placeholder(tf.float32, [None, 2], name="x")
    y = tf.placeholder(tf.int32, [], name="y")
    loss = tf.reduce_mean(x, name="loss") + tf.cast(y, tf.float32)
    sess = tf.Session()
    assert text_of(tf.errors.InvalidArgumentError, lambda: sess.run(loss)) == "\n".join([
        "Session.run: you must feed a value for the placeholders 'x', 'y'",
        "  at test_errors.py:N in <lambda>:   "
        "assert text_of(tf.errors.InvalidArgumentError, lambda: sess.run(loss)) == \"\\n\".join([",
        '  x: float32 (?, 2)  placeholder "x", test_errors.py:N, needed by loss -> add',
        '  y: int32 ()        placeholder "y", test_errors.py:N, needed by Cast -> add',
        "  hint: pass feed_dict={x: ..., y: ...}"])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        sess.run(loss, {x: [[1, 2]]})
    assert caught.value.op is y.op
    assert caught.value.error_code == 3


def test_unknown_fetch() -> None:
    tf.constant(1, name="loss")
    sess = tf.Session()
    assert text_of(ValueError, lambda: sess.run("los:0")) == "\n".join([
        "Session.run: the graph has no tensor 'los:0'; near names: 'loss:0'",
        "  at test_errors.py:N in <lambda>:   "
        "assert text_of(ValueError, lambda: sess.run(\"los:0\")) == \"\\n\".join(["])
    assert "the graph has no operation 'lss'; near names: 'loss'" in text_of(ValueError, lambda: sess.run("lss"))


def test_unknown_feed() -> None:
    x = tf.placeholder(tf.float32, [], name="x_input")
    sess = tf.Session()
    text = text_of(TypeError, lambda: sess.run(x, {"x_inptu:0": 1, "zzz:0": 2}))
    assert text.splitlines()[0] == "Session.run: the keys of feed_dict: 2 problems"
    assert text.splitlines()[2:] == ["  - the graph has no tensor 'x_inptu:0'; near names: 'x_input:0'",
                                     "  - the graph has no tensor 'zzz:0'"]


def test_uninitialised_variables() -> None:
    w = tf.get_variable("w", [2, 3])
    b = tf.get_variable("b", [3])
    y = tf.matmul(tf.ones([1, 2]), w) + b
    with tf.Session() as sess, pytest.raises(tf.errors.FailedPreconditionError) as caught:
        sess.run(y)
    assert caught.value.op is w.op
    assert re.sub(r":\d+", ":N", str(caught.value)) == "\n".join([
        "Session.run: attempting to use the uninitialized variables 'w', 'b'",
        "  at test_errors.py:N in test_uninitialised_variables:   sess.run(y)",
        '  w: float32 (2, 3)  variable "w", test_errors.py:N',
        '  b: float32 (3,)    variable "b", test_errors.py:N',
        "  hint: run tf.global_variables_initializer() in this session first"])


def test_foreign_tensors() -> None:
    with tf.Graph().as_default():
        other = tf.constant(1.0, name="theirs")
    sess = tf.Session()
    assert text_of(GraphError, lambda: sess.run(other)) == "\n".join([
        "tensor 'theirs:0' belongs to another graph",
        "  at test_errors.py:N in <lambda>:   assert text_of(GraphError, lambda: sess.run(other)) == \"\\n\".join([",
        "  theirs: made at test_errors.py:N in test_foreign_tensors:   other = tf.constant(1.0, name=\"theirs\")",
        "  hint: make it inside `with graph.as_default():` of the graph that uses it"])


def test_feeds_of_wrong_rank_and_shape_are_told_together() -> None:
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    y = tf.placeholder(tf.int32, [None], name="y")
    z = tf.reduce_sum(x) + tf.cast(tf.reduce_sum(y), tf.float32)
    sess = tf.Session()
    assert text_of(ValueError, lambda: sess.run(z, {x: [1.0, 2.0, 3.0], y: [1]})) == "\n".join([
        "Session.run: 'x:0' has the shape (?, 3), but is fed the shape (3,)",
        "  at test_errors.py:N in <lambda>:   "
        "assert text_of(ValueError, lambda: sess.run(z, {x: [1.0, 2.0, 3.0], y: [1]})) == \"\\n\".join([",
        '  x: float32 (?, 3)  placeholder "x", test_errors.py:N',
        "  hint: the value has an axis less: add one, with x[np.newaxis] or x[:, np.newaxis]"])
    text = text_of(ValueError, lambda: sess.run(z, {x: np.ones((2, 4)), y: [0.5]}))
    assert [text.splitlines()[i] for i in (0, 1, 2)] == [
        "Session.run: 2 feeds do not fit",
        "  - 'x:0' has the shape (?, 3), but is fed the shape (2, 4)",
        "  - 'y:0' is int32, but is fed float64 values that are not whole"]


def test_feeds_are_told_in_later_runs_too() -> None:
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    y = tf.reduce_sum(x)
    sess = tf.Session()
    assert sess.run(y, {x: np.ones((2, 3))}) == 6
    assert text_of(ValueError, lambda: sess.run(y, {x: np.ones((2, 4))})).startswith(
        "Session.run: 'x:0' has the shape (?, 3), but is fed the shape (2, 4)")
    assert sess.run(y, {x: np.ones((4, 3))}) == 12


def test_run_time_sizes_name_the_op_and_the_line() -> None:
    a = tf.placeholder(tf.float32, [None], name="a")
    b = tf.placeholder(tf.float32, [None], name="b")
    z = tf.multiply(a, b, name="z")
    sess = tf.Session()
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        sess.run(z, {a: [1, 2, 3], b: [1, 2]})
    lines = re.sub(r":\d+", ":N", str(caught.value)).splitlines()
    assert "3 and 2" in lines[0]
    assert "test_errors.py:N in test_run_time_sizes_name_the_op_and_the_line:   " in lines[1]
    assert lines[1].endswith("z = tf.multiply(a, b, name=\"z\")")
    assert lines[2:] == ['  a: float32 (?,)  placeholder "a", test_errors.py:N, fed (3,)',
                         '  b: float32 (?,)  placeholder "b", test_errors.py:N, fed (2,)']
    assert caught.value.op is z.op


def test_errors_of_composites_name_the_function_that_was_called() -> None:
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    assert text_of(ShapeError, lambda: tf.nn.xw_plus_b(x, tf.ones([4, 2]), tf.zeros([2]))).startswith("xw_plus_b: ")


def test_values_met_at_run_time_name_the_op_and_the_line() -> None:
    ids = tf.placeholder(tf.int32, [None], name="ids")
    rows = tf.gather(tf.constant([1.0, 2.0, 3.0], name="table"), ids, name="rows")
    sess = tf.Session()
    np.testing.assert_array_equal(sess.run(rows, {ids: [2, 0]}), [3, 1])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        sess.run(rows, {ids: [0, 7]})
    assert caught.value.op is rows.op
    lines = re.sub(r":\d+", ":N", str(caught.value)).splitlines()
    assert "index" in lines[0]
    assert lines[1].startswith("  at test_errors.py:N in test_values_met_at_run_time_name_the_op_and_the_line:   ")
    assert lines[2:] == ['  table: float32 (3,)  constant "table", test_errors.py:N',
                         '  ids:   int32 (?,)    placeholder "ids", test_errors.py:N, fed (2,)']


def test_division_by_zero_at_run_time() -> None:
    n = tf.placeholder(tf.int32, [None], name="n")
    ratio = tf.floordiv(n, n - 1, name="ratio")
    sess = tf.Session()
    np.testing.assert_array_equal(sess.run(ratio, {n: [2, 3]}), [2, 1])
    text = text_of(tf.errors.InvalidArgumentError, lambda: sess.run(ratio, {n: [2, 1, 0]}))
    assert text == "\n".join([
        "ratio: integer division by zero",
        '  at test_errors.py:N in test_division_by_zero_at_run_time:   ratio = tf.floordiv(n, n - 1, name="ratio")',
        '  n:   int32 (?,)  placeholder "n", test_errors.py:N, fed (3,)',
        '  sub: int32 (?,)  Sub "sub", test_errors.py:N'])


def test_division_by_a_fed_size_of_zero() -> None:
    n = tf.placeholder(tf.int32, [], name="n")
    sess = tf.Session()
    for ratio in (tf.floordiv(n, n), tf.floormod(n, n), tf.truncatediv(3 * n, n)):
        sess.run(ratio, {n: 2})
        text = text_of(tf.errors.InvalidArgumentError, lambda r=ratio: sess.run(r, {n: 0}))
        assert "integer division by zero" in text


def test_batches_that_differ_at_run_time() -> None:
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    y = tf.placeholder(tf.float32, [None, 2], name="y")
    joined = tf.concat([x, y], 1, name="joined")
    sess = tf.Session()
    text = text_of(tf.errors.InvalidArgumentError, lambda: sess.run(joined, {x: np.ones((4, 3)), y: np.ones((5, 2))}))
    assert text == "\n".join([
        "joined: the sizes must agree except along the axis 1: (4, 3) and (5, 2)",
        '  at test_errors.py:N in test_batches_that_differ_at_run_time:   joined = tf.concat([x, y], 1, name="joined")',
        '  x: float32 (?, 3)  placeholder "x", test_errors.py:N, fed (4, 3)',
        '  y: float32 (?, 2)  placeholder "y", test_errors.py:N, fed (5, 2)'])


def test_custom_gradients_of_a_wrong_shape() -> None:
    x = tf.placeholder(tf.float32, [2, 3], name="x")

    @tf.custom_gradient
    def wrong(t: tf.Tensor) -> object:
        return tf.identity(t), lambda dy: tf.zeros([5, 5])

    text = text_of(ValueError, lambda: tf.gradients(tf.reduce_sum(wrong(x) * 2), x))
    assert text.splitlines()[0] == (
        "custom_gradient: the gradient function of wrong gives the shape (5, 5) for an argument of shape (2, 3)")
    assert text.splitlines()[1].startswith("  at test_errors.py:N in <lambda>:   ")
