"""Gradients of losses made of many ops, compiled with all fusion, against the oracle."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.options import Options
from tests.ops.cases import generator
from tests.oracle import OracleSession

ROWS, INPUTS, CLASSES = 9, 21, 5
RELATIVE = {tf.float64: 1e-12, tf.float32: 3e-5, tf.float16: 1e-2, tf.bfloat16: 6e-2}
"""Error allowed, in parts of the largest element: a few dozen roundings along every path."""

Loss = Callable[[Any, Any, Any], Any]


def cross_entropy(x: Any, w: Any, y: Any) -> Any:
    hidden = tf.nn.relu(tf.matmul(x, w))
    labels = tf.one_hot(y, CLASSES, dtype=x.dtype)
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=hidden[:, :CLASSES]))


def sparse_with_decay(x: Any, w: Any, y: Any) -> Any:
    logits = tf.tanh(tf.matmul(x, w))[:, 2:2 + CLASSES]
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    return tf.reduce_sum(loss) + 0.5 * tf.nn.l2_loss(w)


def normalised(x: Any, w: Any, y: Any) -> Any:
    h = tf.matmul(x, w)
    mean, variance = tf.nn.moments(h, [1], keep_dims=True)
    return tf.reduce_mean(tf.square((h - mean) * tf.rsqrt(variance + 0.1)) * tf.sigmoid(h))


def attention(x: Any, w: Any, y: Any) -> Any:
    q = tf.matmul(x, w)
    weights = tf.nn.softmax(tf.matmul(q, q, transpose_b=True) * 0.1)
    return tf.reduce_mean(tf.square(tf.matmul(weights, q)))


def hinge(x: Any, w: Any, y: Any) -> Any:
    scores = tf.matmul(x, w)[:, :CLASSES]
    right = tf.reduce_sum(tf.one_hot(y, CLASSES, dtype=x.dtype) * scores, 1, keep_dims=True)
    return tf.reduce_mean(tf.maximum(scores - right + 1.0, 0.0)) + tf.reduce_mean(tf.nn.softplus(-scores))


def embedded(x: Any, w: Any, y: Any) -> Any:
    rows = tf.gather(w, y)  # w is read by rows, some of them twice
    return tf.reduce_sum(tf.square(rows) * 0.5) + tf.reduce_sum(tf.log(1.0 + tf.square(tf.matmul(x, w))) * 0.01)


def windowed(x: Any, w: Any, y: Any) -> Any:
    h = tf.matmul(x, w)
    both = tf.concat([h[:, ::2], tf.reverse(h, [1])], 1)
    return tf.reduce_mean(tf.reduce_max(tf.pad(tf.transpose(both), [[1, 0], [0, 2]]), 0)) + \
        tf.reduce_sum(tf.cumsum(both, 1) * 0.01)


@pytest.mark.parametrize("dtype", list(RELATIVE), ids=lambda d: d.name)
@pytest.mark.parametrize("loss", [cross_entropy, sparse_with_decay, normalised, attention, hinge, embedded, windowed],
                         ids=lambda f: f.__name__)
def test_gradients_equal_the_oracle(loss: Loss, dtype: tf.DType) -> None:
    rng = generator(loss.__name__, dtype.name)
    # multiples of 1/8 that every dtype holds, so that no comparison is decided by a rounding of the inputs
    x0 = rng.integers(-8, 9, (ROWS, INPUTS)) / 8
    w0 = rng.integers(-8, 9, (INPUTS, 12)) / 32
    y0 = rng.integers(0, CLASSES, ROWS)
    results = []
    with tf.Graph().as_default() as graph:
        x, w = tf.placeholder(dtype, [None, INPUTS]), tf.placeholder(dtype, [INPUTS, 12])
        y = tf.placeholder(tf.int32, [None])
        value = loss(x, w, y)
        fetches = [value, *(tf.convert_to_tensor(g) for g in tf.gradients(value, [x, w]) if g is not None)]
        for make in (tf.Session, OracleSession):
            with make(graph=graph) as session:
                session.options = Options(cache_dir="")
                results.append(session.run(fetches, {x: x0, w: w0, y: y0}))
    for got, want in zip(*results, strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        scale = max(float(np.max(np.abs(want), initial=0.0)), 1e-3)
        got, want = got.astype(np.float64), want.astype(np.float64)
        np.testing.assert_allclose(got, want, rtol=0, atol=RELATIVE[dtype] * scale)
