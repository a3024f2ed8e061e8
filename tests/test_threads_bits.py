"""The same bits from 1, 2, 3 and 8 threads: training steps, attention, reductions.

Each graph is run by sessions that differ in the number of threads alone, more of them than there may be CPUs, so that
work items meet workers in another order each time; every fetch must be equal byte for byte, in repeated steps too.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import graphc as tf

THREADS = (1, 2, 3, 8)
STEPS = 3

Feeds = Mapping[tf.Tensor, np.ndarray]
Built = tuple[list[tf.Tensor | tf.Operation], Feeds]  # fetches, feeds


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def dense(x: tf.Tensor, name: str, seed: int, width: int) -> tf.Tensor:
    rows = x.shape.as_list()[-1]
    w = tf.get_variable(name + "_w", initializer=normal(seed, rows, width) / np.float32(np.sqrt(rows)))
    return tf.nn.bias_add(tf.matmul(x, w), tf.get_variable(name + "_b", initializer=np.zeros(width, np.float32)))


def mlp() -> Built:
    """An Adam step with dropout, on a batch that fills no tile."""
    x, y = tf.placeholder(tf.float32, [None, 200]), tf.placeholder(tf.int32, [None])
    h = tf.nn.dropout(tf.nn.relu(dense(x, "first", 1, 300)), 0.8, seed=5)
    h = tf.nn.relu(dense(h, "second", 2, 130))
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=dense(h, "last", 3, 10)))
    step = tf.train.AdamOptimizer(1e-2).minimize(loss)
    return [loss, h, step], {x: normal(4, 157, 200), y: np.arange(157, dtype=np.int32) % 10}


def attention() -> Built:
    """A gradient step of one block with two heads and layer normalisation."""
    heads, length, width = 2, 37, 64
    x = tf.placeholder(tf.float32, [None, length, width])
    mean, variance = tf.nn.moments(x, [-1], keep_dims=True)
    flat = tf.reshape(tf.nn.batch_normalization(x, mean, variance, None, None, 1e-5), [-1, width])
    q, k, v = (tf.transpose(tf.reshape(dense(flat, name, i, width), [-1, length, heads, width // heads]), [0, 2, 1, 3])
               for i, name in enumerate("qkv"))
    weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.17)
    mixed = tf.reshape(tf.transpose(tf.matmul(weights, v), [0, 2, 1, 3]), [-1, width])
    out = tf.tanh(dense(mixed, "out", 7, width))
    loss = tf.reduce_mean(tf.square(out - 0.1))
    step = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
    return [loss, weights, out, step], {x: normal(8, 5, length, width)}


def reductions() -> Built:
    """Sums over rows, columns and everything, long enough to be cut into parts; extremes; running sums."""
    x = tf.placeholder(tf.float32, [None, 513])
    squares = x * x
    fetches = [f(squares, axis) for f in (tf.reduce_sum, tf.reduce_mean, tf.reduce_prod, tf.reduce_logsumexp)
               for axis in (None, 0, 1)]
    return [*fetches, tf.argmax(x, 0), tf.cumsum(x, 0), tf.reduce_max(x), tf.nn.softmax(x)], {x: normal(9, 701, 513)}


def products() -> Built:
    """All four transpositions, narrow and batched ones, with a depth of several blocks."""
    a, b = tf.placeholder(tf.float32, [None, 601]), tf.placeholder(tf.float32, [601, 129])
    c = tf.placeholder(tf.float32, [3, None, 601])
    at, bt = tf.transpose(a) + 0.0, tf.transpose(b) + 0.0
    fetches = [tf.matmul(a, b), tf.matmul(a, bt, transpose_b=True), tf.matmul(at, b, transpose_a=True),
               tf.matmul(at, bt, transpose_a=True, transpose_b=True), tf.matmul(a, b[:, :1]), tf.matmul(a[:1], b),
               tf.matmul(c, tf.stack([b, b + 1, b * 2]))]
    return fetches, {a: normal(10, 83, 601), b: normal(11, 601, 129), c: normal(12, 3, 50, 601)}


def convolutions() -> Built:
    """Strided, of few channels, of one image more than there are parts; their gradients and second gradients."""
    x = tf.placeholder(tf.float32, [None, 14, 13, 3])
    w = [tf.get_variable(f"w{i}", shape, initializer=tf.truncated_normal_initializer(stddev=0.3))
         for i, shape in enumerate(((5, 5, 3, 20), (3, 3, 20, 36), (3, 3, 36, 4)))]
    y = tf.nn.relu(tf.nn.conv2d(x, w[0], [1, 2, 2, 1], "SAME"))
    y = tf.nn.conv2d(tf.nn.conv2d(y, w[1], [1, 1, 1, 1], "SAME"), w[2], [1, 1, 1, 1], "VALID")
    first = tf.gradients(tf.reduce_sum(y * y), [x, *w])
    return [y, *first, *tf.gradients(first[2], [x, w[0]])], {x: normal(13, 33, 14, 13, 3)}


@pytest.mark.parametrize("build", [mlp, attention, reductions, products, convolutions])
def test_bits_do_not_depend_on_the_number_of_threads(build: Callable[[], Built]) -> None:
    with tf.Graph().as_default():
        tf.set_random_seed(3)
        fetches, feeds = build()
        variables = tf.trainable_variables()
        initialise = tf.global_variables_initializer()
        seen = {}
        for threads in THREADS:
            with tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=threads)) as session:
                session.run(initialise)
                found = [value for _ in range(STEPS) for value in session.run(fetches, feeds) if value is not None]
                found += session.run(variables)
                seen[threads] = [np.asarray(value).tobytes() for value in found]
    assert all(np.isfinite(value).all() for value in found)
    for threads in THREADS[1:]:
        assert seen[threads] == seen[1], threads
