"""Optimizers against their rules in NumPy (float64), dense and by rows, for several steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as tf

Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any]], np.ndarray]


def descent(w: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
    return w - 0.1 * g


def momentum(nesterov: bool) -> Rule:
    def rule(w: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
        s["a"] = 0.9 * s.get("a", 0.0) + g
        return w - (0.1 * g + 0.1 * 0.9 * s["a"] if nesterov else 0.1 * s["a"])

    return rule


def adagrad(w: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
    s["a"] = s.get("a", np.full_like(w, 0.1)) + g * g
    return w - 0.1 * g / np.sqrt(s["a"])


def rmsprop(centered: bool) -> Rule:
    def rule(w: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
        s["r"] = 0.9 * s.get("r", np.ones_like(w)) + 0.1 * g * g
        s["g"] = 0.9 * s.get("g", np.zeros_like(w)) + 0.1 * g
        variance = s["r"] - (s["g"] ** 2 if centered else 0.0)
        s["m"] = 0.5 * s.get("m", 0.0) + 0.1 * g / np.sqrt(variance + 1e-3)
        return w - s["m"]

    return rule


def adam(w: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
    t = s["t"] = s.get("t", 0) + 1
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0.0) + 0.01 * g * g
    return w - 0.1 * np.sqrt(1 - 0.99**t) / (1 - 0.9**t) * s["m"] / (np.sqrt(s["v"]) + 1e-8)


def ftrl(w: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
    old = s.get("a", np.full_like(w, 0.1))
    s["a"] = old + g * g
    s["l"] = s.get("l", 0.0) + g + 2 * 0.01 * w - (np.sqrt(s["a"]) - np.sqrt(old)) / 0.1 * w
    quadratic = np.sqrt(s["a"]) / 0.1 + 2 * 0.002
    return np.where(np.abs(s["l"]) > 0.003, (np.sign(s["l"]) * 0.003 - s["l"]) / quadratic, 0.0)


OPTIMIZERS: dict[str, tuple[Callable[[], Any], Rule]] = {
    "descent": (lambda: tf.train.GradientDescentOptimizer(0.1), descent),
    "momentum": (lambda: tf.train.MomentumOptimizer(0.1, 0.9), momentum(False)),
    "nesterov": (lambda: tf.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True), momentum(True)),
    "adagrad": (lambda: tf.train.AdagradOptimizer(0.1), adagrad),
    "rmsprop": (lambda: tf.train.RMSPropOptimizer(0.1, 0.9, 0.5, 1e-3), rmsprop(False)),
    "rmsprop centered": (lambda: tf.train.RMSPropOptimizer(0.1, 0.9, 0.5, 1e-3, centered=True), rmsprop(True)),
    "adam": (lambda: tf.train.AdamOptimizer(0.1, 0.9, 0.99), adam),
    "ftrl": (
        lambda: tf.train.FtrlOptimizer(
            0.1,
            l1_regularization_strength=0.003,
            l2_regularization_strength=0.002,
            l2_shrinkage_regularization_strength=0.01,
        ),
        ftrl,
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dense_steps(name: str, dtype: Any) -> None:
    make, rule = OPTIMIZERS[name]
    rng = np.random.default_rng(len(name))
    start, gradients = rng.standard_normal((3, 5)), rng.standard_normal((4, 3, 5))
    with tf.Graph().as_default(), tf.Session() as session:
        w = tf.Variable(start.astype(dtype), name="w")
        g = tf.placeholder(dtype, (3, 5))
        step = tf.train.get_or_create_global_step()
        train = make().apply_gradients([(g, w)], global_step=step)
        session.run(tf.global_variables_initializer())
        expected, slots = start.astype(np.float64), {}
        for gradient in gradients:
            session.run(train, {g: gradient})
            expected = rule(expected, gradient.astype(dtype).astype(np.float64), slots)
            np.testing.assert_allclose(session.run(w), expected, rtol=2e-5, atol=2e-6)
        assert session.run(step) == len(gradients)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sparse_steps_touch_the_rows_looked_up_and_sum_duplicates(name: str) -> None:
    make, rule = OPTIMIZERS[name]
    rng = np.random.default_rng(len(name))
    start, values = rng.standard_normal((6, 2)), rng.standard_normal((3, 4, 2))
    rows = [[0, 3, 3, 1], [5, 5, 5, 5], [2, 0, 1, 4]]
    with tf.Graph().as_default(), tf.Session() as session:
        w = tf.Variable(start.astype(np.float32), name="w")
        v, r = tf.placeholder(tf.float32, (None, 2)), tf.placeholder(tf.int32, (None,))
        train = make().apply_gradients([(tf.IndexedSlices(v, r), w)])
        session.run(tf.global_variables_initializer())
        expected = start.copy()
        per_row: list[dict[str, Any]] = [{} for _ in range(6)]
        for given, index in zip(values, rows, strict=True):
            session.run(train, {v: given, r: index})
            dense = np.zeros((6, 2))
            np.add.at(dense, index, given.astype(np.float32).astype(np.float64))
            for row in range(6):
                if name == "adam" or row in index:  # Adam's moments decay, and move the variable, in every row
                    expected[row] = rule(expected[row], dense[row], per_row[row])
            np.testing.assert_allclose(session.run(w), expected, rtol=3e-5, atol=3e-6)


def test_slots_have_the_names_of_tensorflow() -> None:
    with tf.Graph().as_default():
        w = tf.Variable([1.0, 2.0], name="w")
        optimizer = tf.train.AdamOptimizer()
        train = optimizer.minimize(tf.reduce_sum(w * w))
        assert train.name == "Adam"
        assert [v.op.name for v in tf.global_variables()] == ["w", "beta1_power", "beta2_power", "w/Adam", "w/Adam_1"]
        assert optimizer.get_slot_names() == ["m", "v"]
        assert optimizer.get_slot(w, "m").op.name == "w/Adam"
        assert tf.trainable_variables() == [w]


def test_minimize_names_what_has_no_gradient() -> None:
    with tf.Graph().as_default():
        w, loss = tf.Variable(1.0, name="w"), tf.constant(2.0)
        with pytest.raises(ValueError, match=r"no gradients.*w"):
            tf.train.GradientDescentOptimizer(0.1).minimize(loss, var_list=[w])
    with tf.Graph().as_default(), pytest.raises(ValueError, match="no variables to optimize"):
        tf.train.GradientDescentOptimizer(0.1).minimize(tf.constant(1.0))


def test_every_update_reads_the_variables_as_they_were() -> None:
    """d(a*b)/da = b and d(a*b)/db = a, both of before the step."""
    with tf.Graph().as_default(), tf.Session() as session:
        a, b = tf.Variable(2.0), tf.Variable(3.0)
        train = tf.train.GradientDescentOptimizer(1.0).minimize(a * b)
        session.run(tf.global_variables_initializer())
        session.run(train)
        assert session.run([a, b]) == [-1.0, 1.0]


def test_learning_rate_as_a_tensor_and_as_a_decay() -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        w, step = tf.Variable(0.0), tf.train.get_or_create_global_step()
        rate = tf.train.exponential_decay(1.0, step, 1, 0.5)
        train = tf.train.GradientDescentOptimizer(rate).minimize(-w, global_step=step)
        session.run(tf.global_variables_initializer())
        for _ in range(3):
            session.run(train)
        assert session.run(w) == pytest.approx(1.0 + 0.5 + 0.25)


DECAYS = {
    "exponential": (lambda s: tf.train.exponential_decay(0.1, s, 10, 0.5), lambda t: 0.1 * 0.5 ** (t / 10)),
    "staircase": (
        lambda s: tf.train.exponential_decay(0.1, s, 10, 0.5, staircase=True),
        lambda t: 0.1 * 0.5 ** (t // 10),
    ),
    "natural": (lambda s: tf.train.natural_exp_decay(0.1, s, 10, 0.5), lambda t: 0.1 * np.exp(-0.5 * t / 10)),
    "inverse": (lambda s: tf.train.inverse_time_decay(0.1, s, 10, 0.5), lambda t: 0.1 / (1 + 0.5 * t / 10)),
    "polynomial": (
        lambda s: tf.train.polynomial_decay(0.1, s, 10, 0.01, 2.0),
        lambda t: 0.09 * (1 - min(t, 10) / 10) ** 2 + 0.01,
    ),
    "cycle": (
        lambda s: tf.train.polynomial_decay(0.1, s, 10, 0.01, cycle=True),
        lambda t: 0.09 * (1 - t / (10 * max(1, -(-t // 10)))) + 0.01,
    ),
    "cosine": (
        lambda s: tf.train.cosine_decay(0.1, s, 10, 0.2),
        lambda t: 0.1 * (0.8 * 0.5 * (1 + np.cos(np.pi * min(t, 10) / 10)) + 0.2),
    ),
    "piecewise": (
        lambda s: tf.train.piecewise_constant(s, [3, 10], [0.1, 0.05, 0.01]),
        lambda t: 0.1 if t <= 3 else 0.05 if t <= 10 else 0.01,
    ),
    "restarts": (
        lambda s: tf.train.cosine_decay_restarts(0.1, s, 5, t_mul=2.0, m_mul=0.5),
        lambda t: (
            0.1
            * (
                0.5 * (1 + np.cos(np.pi * t / 5))
                if t < 5
                else 0.25 * (1 + np.cos(np.pi * (t - 5) / 10))
                if t < 15
                else 0.125 * (1 + np.cos(np.pi * (t - 15) / 20))
            )
        ),
    ),
}


@pytest.mark.parametrize("name", DECAYS)
def test_decays(name: str) -> None:
    make, rule = DECAYS[name]
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, ())
        rate = make(step)
        for t in (0, 1, 3, 7, 11, 25):
            assert session.run(rate, {step: t}) == pytest.approx(rule(t), rel=1e-5)


def test_moving_average_of_a_variable() -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        w = tf.Variable(10.0, name="w")
        average = tf.train.ExponentialMovingAverage(0.9)
        move = average.apply([w])
        session.run(tf.global_variables_initializer())
        assert session.run(average.average(w)) == 10.0
        session.run(w.assign(20.0))
        session.run(move)
        assert session.run(average.average(w)) == pytest.approx(11.0)
        assert average.average_name(w) == "w/ExponentialMovingAverage"
        with pytest.raises(ValueError, match="has a moving average already"):
            average.apply([w])


def test_clipping_by_global_norm() -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        clipped, norm = tf.clip_by_global_norm([tf.constant([3.0, 4.0]), None, tf.constant([12.0])], 6.5)
        a, b, n = session.run([clipped[0], clipped[2], norm])
        assert clipped[1] is None
        assert n == pytest.approx(13.0)
        np.testing.assert_allclose(np.concatenate([a, b]), [1.5, 2.0, 6.0], rtol=1e-6)
