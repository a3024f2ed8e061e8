"""Compositions of ops that fuse in every form, at empty, single, odd and long sizes, against the oracle."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.options import Options
from graphc.passes.indices import pieces
from tests.ops.cases import generator
from tests.oracle import OracleSession

MATRICES = ((0, 3), (3, 0), (0, 0), (1, 1), (5, 33), (3, 2000), (2000, 3))
TALL = ((0, 4), (1, 4), (7, 4), (130, 4))


def dense(x: Any) -> Any:
    return tf.nn.relu(tf.matmul(x, x, transpose_b=True) + 1.0)


def chained_products(x: Any) -> Any:
    square = tf.matmul(x, x, transpose_a=True)
    return tf.matmul(tf.nn.softmax(tf.transpose(square)), square[:, :3])


def batched_products(x: Any) -> Any:
    cube = tf.stack([x, -x, x + 1.0], 1)
    return tf.reduce_sum(tf.matmul(cube, cube, transpose_b=True), [0])


def rows(x: Any) -> Any:
    return tf.nn.softmax(x) + tf.reduce_logsumexp(x, 1, keepdims=True)


def moments(x: Any) -> Any:
    mean, variance = tf.nn.moments(x, [0], keep_dims=True)
    return (x - mean) / tf.sqrt(variance + 0.1)


def columns(x: Any) -> Any:
    return tf.reduce_sum(x * 2.0, 0) + tf.reduce_max(x, 0) * tf.reduce_mean(tf.square(x))


def totals(x: Any) -> Any:
    return tf.stack([tf.reduce_max(x), tf.reduce_min(x), tf.reduce_mean(tf.square(x)), tf.nn.l2_loss(x)])


def positions(x: Any) -> Any:
    return tf.cast(tf.argmax(tf.pad(x, [[0, 0], [1, 0]]), 1), tf.float32) + tf.reduce_max(x, 1)


def running(x: Any) -> Any:
    return tf.reduce_sum(tf.cumsum(x, 0, reverse=True, exclusive=True) * tf.nn.softmax(x), 1)


def moved(x: Any) -> Any:
    return tf.reduce_mean(tf.pad(x, [[1, 1], [0, 2]]), 0) * tf.reduce_sum(x[::-1, 1:])


def reshaped(x: Any) -> Any:
    flat = tf.reshape(tf.transpose(tf.stack([x, x * x], 2), [2, 0, 1]), [2, -1])
    return flat - tf.reduce_sum(flat, 1, keepdims=True)


def gathered(x: Any) -> Any:
    picked = tf.gather(tf.pad(x, [[0, 3], [0, 0]]), tf.constant([2, 0, 2]))
    return tf.unsorted_segment_sum(picked * 2.0, tf.constant([1, 0, 1]), 4) + tf.reduce_sum(x)


def turned(x: Any) -> Any:
    """Reduced values of one row are read backwards, and by steps: at index 0 all the same."""
    total = tf.reduce_sum(x, 0, keepdims=True)
    return tf.reverse(total, [0]) + x * tf.reduce_max(tf.reverse(total[::2], [0]), 1)


def emptied(x: Any) -> Any:
    nothing = tf.transpose(x)[:, :0]
    flat = tf.reshape(nothing * 2.0, [-1])
    return tf.reshape(flat, [4, 0]) + nothing + tf.reduce_sum(flat)


def guarded(x: Any) -> Any:
    positive = x > 0.0
    return tf.where(positive, tf.log(tf.where(positive, x, tf.ones_like(x))), tf.zeros_like(x)) / \
        (tf.reduce_sum(tf.cast(positive, tf.float32)) + 1.0)


@pytest.mark.parametrize(("composite", "shapes"), [
    (dense, MATRICES[:-1]), (rows, MATRICES), (moments, MATRICES), (columns, MATRICES), (totals, MATRICES),
    (positions, MATRICES), (running, MATRICES), (guarded, MATRICES), (reshaped, MATRICES), (chained_products, TALL),
    (batched_products, TALL), (moved, TALL), (gathered, TALL), (turned, TALL),
    (emptied, TALL)],
    ids=lambda v: v.__name__ if callable(v) else "")
def test_composites_equal_the_oracle(composite: Callable[[Any], Any], shapes: Sequence[tuple[int, int]]) -> None:
    known = shapes is TALL
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [None, 4 if known else None])
        y = composite(x)
        with tf.Session(graph=graph) as session, OracleSession(graph=graph) as oracle:
            session.options = Options(cache_dir="")
            for shape in shapes:
                value = generator(composite.__name__, shape).uniform(-2, 2, shape).astype(np.float32)
                got, want = session.run(y, {x: value}), oracle.run(y, {x: value})
                assert got.shape == want.shape
                scale = float(np.max(np.abs(want[np.isfinite(want)]), initial=1.0))
                atol = 2.0 ** -23 * 16 * scale * np.sqrt(max(16, value.size))
                np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=str(shape))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("composite", [dense, rows, moments, columns, totals, positions, running, guarded, reshaped,
                                       chained_products, batched_products, moved, gathered, turned],
                         ids=lambda f: f.__name__)
def test_gradients_of_composites_equal_the_oracle(composite: Callable[[Any], Any], order: int) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [None, 4])
        y = composite(x)
        gradient = tf.gradients(tf.reduce_sum(y * y) * 0.1, x)[0]
        if order == 2:
            gradient = tf.gradients(tf.reduce_sum(gradient * tf.sin(x)), x)[0]
        with tf.Session(graph=graph) as session, OracleSession(graph=graph) as oracle:
            session.options = Options(cache_dir="")
            for shape in TALL[:-1]:
                value = generator(composite.__name__, shape).uniform(-2, 2, shape).astype(np.float32)
                got, want = session.run(gradient, {x: value}), oracle.run(gradient, {x: value})
                scale = float(np.max(np.abs(want[np.isfinite(want)]), initial=1.0))
                np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * scale, err_msg=str(shape))


def test_shapes_without_elements_are_one_piece() -> None:
    assert pieces((0,), (0, 3)) == [(range(1), range(2))]


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64], ids=lambda d: d.name)
def test_long_chains_of_integers_share_what_they_share(dtype: tf.DType) -> None:
    """Each step uses the one before twice: written out as a tree it would have 2^70 leaves."""
    values = np.array([1, 2, 3, -5], dtype.as_numpy_dtype)
    want = values
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(dtype, [None])
        y = x
        with np.errstate(over="ignore"):
            for i in range(70):
                y = y + y if i % 2 else y * y - x
                want = want + want if i % 2 else want * want - values
        np.testing.assert_array_equal(session.run(y, {x: values}), want)
