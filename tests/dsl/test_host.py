"""Printing, Python functions and assertions in the middle of a run, on every backend."""
from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

import graphc as tf


@pytest.fixture(params=("llvm_cpu", "numba_cpu", "interp"))
def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tf.Session]:
    monkeypatch.setenv("GRAPHC_BACKEND", request.param)
    with tf.Graph().as_default(), tf.Session() as opened:
        yield opened


def test_printing(session: tf.Session, capfd: pytest.CaptureFixture[str]) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    y = tf.reduce_sum(tf.Print(2 * x, [x, tf.shape(x), x > 1], "x = ", first_n=2, summarize=2))
    (grad,) = tf.gradients(y, x)
    for _ in range(3):
        assert session.run(y, {x: [0.5, 1.5, 3]}) == 10
    assert capfd.readouterr().err == 2 * "x = [0.5 1.5...][3][False True...]\n"
    np.testing.assert_array_equal(session.run(grad, {x: [1, 2]}), [2, 2])


def test_python_functions_run_in_order(session: tf.Session) -> None:
    seen: list[str] = []

    def two(a: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append("two")
        a[...] = -a  # its own copy
        return np.sort(a), np.int64(n + 1)

    def other() -> np.float32:
        seen.append("other")
        return np.float32(0.5)

    x = tf.placeholder(tf.float32, [3], name="x")
    v = tf.Variable(np.array([1, 2, 3], np.float32))
    ordered, count = tf.py_func(two, [v + x, tf.constant(4, tf.int64)], [tf.float32, tf.int64])
    half = tf.py_func(other, [], tf.float32)
    ordered.set_shape([3])
    count.set_shape([])
    half.set_shape([])
    assert isinstance(half, tf.Tensor)
    session.run(v.initializer)
    total, n = session.run([half * tf.exp(0 * ordered) + ordered, count], {x: [1, 1, 5]})
    np.testing.assert_array_equal(total, [-7.5, -2.5, -1.5])
    assert n == 5
    assert seen == ["two", "other"]
    np.testing.assert_array_equal(session.run(v), [1, 2, 3])
    assert len(seen) == 2


def test_a_program_from_the_cache_calls_the_function_at_hand(session: tf.Session) -> None:
    for number in (1, 2):  # programs of one key
        with tf.Graph().as_default(), tf.Session() as other:
            y = tf.py_func(lambda n=number: np.float32(n), [], tf.float32)
            y.set_shape([])
            assert other.run(y + 1) == number + 1


def test_results_are_checked(session: tf.Session) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    y = tf.py_func(lambda a: a.astype(np.float64) if a.size == 1 else a, [x], tf.float32, name="call")
    y.set_shape([2])
    np.testing.assert_array_equal(session.run(y * 2, {x: [1, 2]}), [2, 4])
    with pytest.raises(tf.errors.InvalidArgumentError, match="call: value 0 of the Python function is float64"):
        session.run(y * 2, {x: [1]})
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        session.run(y * 2, {x: [1, 2, 3]})
    assert caught.value.op is y.op
    assert re.sub(r":\d+", ":N", str(caught.value)) == "\n".join([
        "call: value 0 of the Python function has the shape (3,), not (2,)",
        "  at test_host.py:N in test_results_are_checked:   "
        'y = tf.py_func(lambda a: a.astype(np.float64) if a.size == 1 else a, [x], tf.float32, name="call")',
        '  x: float32 (?,)  placeholder "x", test_host.py:N, fed (3,)'])


def test_what_python_raises_ends_the_run(session: tf.Session) -> None:
    def failing() -> np.float32:
        raise LookupError("an accident")

    y = tf.py_func(failing, [], tf.float32)
    y.set_shape([])
    with pytest.raises(LookupError, match="an accident"):
        session.run(y + 1)


def test_results_of_unknown_shape_are_refused(session: tf.Session) -> None:
    y = tf.py_func(lambda: np.zeros(3, np.float32), [], tf.float32, name="call")
    with pytest.raises(ValueError, match="the shape of 'call:0' is not known before Python returns it"):
        session.run(y)


def test_assertions_come_before_what_waits_for_them(session: tf.Session) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    v = tf.Variable(np.zeros((), np.float32))
    positive = tf.Assert(tf.reduce_all(x > 0), [x, tf.shape(x)], name="positive")
    with tf.control_dependencies([positive]):
        update = tf.assign_add(v, 1.0)
    session.run(v.initializer)
    assert session.run(update, {x: [1, 2]}) == 1
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        session.run(update, {x: [1, -2]})
    assert caught.value.op is positive
    assert str(caught.value).startswith("positive: assertion failed: [1 -2][2]\n  at test_host.py:")
    assert session.run(v) == 1
    assert session.run(update, {x: [3]}) == 2


def test_a_failing_call_leaves_variables_as_they_were(session: tf.Session) -> None:
    """Also those whose writes do not wait for the call."""
    x = tf.placeholder(tf.float32, [4], name="x")
    variables = [tf.Variable(np.zeros(4, np.float32)) for _ in range(3)]
    updates = [tf.assign_add(v, x) for v in variables]
    with tf.control_dependencies(updates[:2]):
        late = tf.Assert(tf.reduce_sum(variables[0].read_value() + variables[2]) < 9, [])
    everything = tf.group(late, *updates)
    session.run(tf.global_variables_initializer())
    session.run(everything, {x: [1, 1, 1, 1]})
    with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
        session.run(everything, {x: [2, 2, 2, 2]})
    for value in session.run(variables):
        np.testing.assert_array_equal(value, [1, 1, 1, 1])
