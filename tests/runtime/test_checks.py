"""check_numerics through Session: the first NaN or infinity, the op and line that made it, on every backend."""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.ir.evaluate import round_to
from graphc.runtime.checks import bad_at, describe

BACKENDS = ("llvm_cpu", "numba_cpu", "interp")


@pytest.fixture(params=BACKENDS)
def checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GRAPHC_BACKEND", request.param)
    monkeypatch.setenv("GRAPHC_CHECK_NUMERICS", "1")
    with tf.Graph().as_default():
        yield request.param


def failure(session: tf.Session, fetches: Any, feed: dict[Any, Any]) -> tuple[str, Any]:
    """The error's text, line numbers of this file as N, and its operation."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        session.run(fetches, feed)
    return re.sub(r"test_checks\.py:\d+", "test_checks.py:N", str(caught.value)), caught.value.op


def test_an_infinity_inside_a_fused_kernel(checked: str) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    logs = tf.log(2.0 * x, name="logs")
    loss = tf.reduce_mean(tf.tanh(logs) + 1.0)  # finite
    with tf.Session() as session:
        assert session.run(loss, {x: [0.5]}) == 1
        text, op = failure(session, loss, {x: [1, 0, 2]})
        assert op is logs.op
        assert text == "\n".join([
            "check_numerics: 'logs' (Log) gives -Inf at [1] from finite operands",
            '  at test_checks.py:N in test_an_infinity_inside_a_fused_kernel:   logs = tf.log(2.0 * x, name="logs")',
            "  mul:    float32 (3,) in [0, 4]",
            "  result: float32 (3,) in [0.693147, 1.38629], 1 Inf",
            "  hint: log needs arguments above 0: tf.log(tf.maximum(x, 1e-12)), or a loss that takes logits; "
            "the variables hold their values of before this run"])
        assert session.run(loss, {x: [0.5, 0.5]}) == 1


def test_a_gradient_names_the_forward_op_and_variables_hold(checked: str) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    w = tf.get_variable("w", initializer=2.0)
    loss = tf.reduce_sum(tf.sqrt(w * x, name="root"))
    train = tf.train.MomentumOptimizer(0.5, 0.9).minimize(loss)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(train, {x: [2.0]})
        before = session.run(tf.global_variables())
        text, op = failure(session, [train, loss], {x: [0.0, 1.0]})
        first, where, forward, *_ = text.splitlines()
        assert re.fullmatch(
            r"check_numerics: 'gradients/root_grad/\w+' \(\w+\) gives Inf at \[0\] from finite operands", first)
        assert where.endswith(":   train = tf.train.MomentumOptimizer(0.5, 0.9).minimize(loss)")
        assert forward == "     in the gradient of 'root', test_checks.py:N"
        assert op.gradient_of.name == "root"
        assert "a value that tf.where discards still has a gradient" in text
        assert session.run(tf.global_variables()) == before
        session.run(train, {x: [1.0]})
        assert session.run(w) != before[0]


def test_what_where_discards_is_found_too(checked: str) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    quotient = tf.divide(x, x, name="quotient")
    y = tf.where(x > 0, quotient, tf.zeros_like(x))
    with tf.Session() as session:
        text, op = failure(session, y, {x: [3, 0]})
        assert op is quotient.op
        assert text.startswith("check_numerics: 'quotient' (RealDiv) gives NaN at [1] from finite operands\n")


def test_the_first_of_several(checked: str) -> None:
    x = tf.placeholder(tf.float32, [2, 3], name="x")
    large = tf.exp(x, name="large")
    y = tf.reduce_sum(tf.log(large - large) * tf.sqrt(x))
    with tf.Session() as session:
        text, op = failure(session, y, {x: [[1, 2, 3], [4, 5, 100]]})
    assert op is large.op
    assert text.startswith("check_numerics: 'large' (Exp) gives Inf at [1, 2]")
    assert "  x:      float32 (2, 3) in [1, 100]\n" in text


def test_fed_values_and_variables_are_named(checked: str) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    v = tf.Variable(np.array([1, np.inf], np.float32), name="v")
    with tf.Session() as session:
        text, op = failure(session, x * 2, {x: [1, np.nan]})
        assert op is x.op
        assert text.startswith("check_numerics: the fed value of 'x' has NaN at [1]\n")
        session.run(v.initializer)
        text, op = failure(session, v * 2, {})
        assert op is v.op
        assert text.startswith("check_numerics: the variable 'v' has Inf at [1] before the run\n")


def test_infinite_constants_are_meant(checked: str) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    p = tf.nn.softmax(tf.where(x > 0, x, tf.fill(tf.shape(x), -np.inf)))
    difference = tf.constant(np.inf) - tf.constant(np.inf) * x[0]
    with tf.Session() as session:
        np.testing.assert_allclose(session.run(p, {x: [0, 1, 1]}), [0, 0.5, 0.5])
        text, op = failure(session, difference, {x: [1.0]})
        assert op is difference.op
        assert "(Sub) gives NaN" in text


def test_what_only_the_optimised_code_gives(checked: str) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    y = tf.reduce_mean(x, name="mean")  # the sum passes float32's largest number, the oracle's does not
    with tf.Session() as session:
        text, op = failure(session, y, {x: np.full(64, 3e38)})
    assert op is y.op
    assert text.startswith("check_numerics: fetch 'mean' is not finite, but only in the optimised code: ")
    assert re.search(r"\n  rows_\w+: +kernel of mean", text)


def test_an_error_that_a_nan_led_to_is_explained_by_it(checked: str) -> None:
    x = tf.placeholder(tf.float32, [None], name="x")
    ratio = x / x
    y = tf.gather(tf.range(5), tf.cast(ratio, tf.int32))
    z = tf.gather(tf.range(5), tf.cast(x, tf.int32))
    with tf.Session() as session:
        assert failure(session, y, {x: [0.0]})[1] is ratio.op
        text, op = failure(session, z, {x: [7.0]})
        assert "check_numerics" not in text
        assert op is z.op


def test_descriptions() -> None:
    a = np.zeros((3, 4), np.float16)
    a[2, 1], a[2, 3] = np.nan, -np.inf
    assert bad_at(a) == "NaN at [2, 1]"
    assert describe(a) == "float16 (3, 4) in [0, 0], 1 NaN, 1 Inf"
    assert bad_at(np.array(-np.inf)) == "-Inf"
    assert describe(np.array([3, -1])) == "int64 (2,) in [-1, 3]"
    assert describe(np.ones(2, np.float32), "bfloat16") == "bfloat16 (2,) in [1, 1]"
    assert describe(round_to(np.zeros((0, 2)), tf.bfloat16)) == "float32 (0, 2)"
