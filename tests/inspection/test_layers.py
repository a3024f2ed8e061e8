"""Counting by layer: against counts by hand, in loops too."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc as tf
from graphc.inspection.compilation import record, record_function
from graphc.inspection.layers import UNSCOPED, at, flops, layers, parameter_count, scope_of
from graphc.ir.parse import parse
from graphc.options import Options

OPTIONS = Options(cache_dir="")


@pytest.fixture
def graph() -> Iterator[tf.Graph]:
    with tf.Graph().as_default() as made:
        yield made


def test_scopes() -> None:
    assert scope_of("loss", 1) == UNSCOPED and scope_of("a/b/c", 1) == "a"
    assert scope_of("a/b/c", 2) == scope_of("a/b/c", 9) == "a/b" and scope_of("a/b", 2) == "a"


def test_a_training_step(graph: tf.Graph) -> None:
    n, inside, outside = 6, 4, 3
    x = tf.placeholder(tf.float32, [None, inside], name="x")
    with tf.variable_scope("layer"):
        w = tf.get_variable("w", [inside, outside], initializer=tf.zeros_initializer())
        y = tf.matmul(x, w)
    loss = tf.reduce_mean(tf.square(y), name="loss")
    train = tf.train.AdamOptimizer().minimize(loss)
    c = record(graph, [loss, train], options=OPTIONS)
    rows = {row.name: row for row in layers(c.function, trained={"layer/w"})}
    assert next(iter(rows)) == "layer" and {"gradients", "Adam", UNSCOPED} <= rows.keys()
    assert rows["layer"].parameters == inside * outside == parameter_count(c.function, {"layer/w"})
    assert at(rows["layer"].multiply_adds, n) == n * inside * outside
    assert at(rows["gradients"].multiply_adds, n) == n * inside * outside  # the gradient of w alone is needed
    assert str(rows["layer"].output) == f"float32[x_0, {outside}]"
    everything = layers(c.function)
    assert sum(r.parameters for r in everything) == 3 * inside * outside + 2  # Adam's two slots and its two powers


def test_arithmetic_operations(graph: tf.Graph) -> None:
    x = tf.placeholder(tf.float32, [None, 10], name="x")
    c = record(graph, tf.tanh(x * 2.0 + 1.0), options=OPTIONS)
    assert flops(c.optimised) == 3 * c.function.feeds[0].tensor.shape[0] * 10
    c = record(graph, tf.matmul(x, tf.zeros([10, 7])), options=OPTIONS)
    assert at(flops(record(graph, tf.matmul(x, x, transpose_b=True), options=OPTIONS).optimised), 5) == 2 * 5 * 5 * 10


def test_a_loop_counts_as_often_as_it_runs() -> None:
    text = """
func @step(%i: int64[], %h: float32[B, 4], %x: float32[B, 4], %w: float32[4, 4]) {
  %p = MatMul(%h, %w) {transpose_a=false, transpose_b=false}
  %n = Add(%p, %x)
  return %n
}
func @main(%h: float32[B, 4] "h", %xs: float32[T, B, 4] "xs") states(%w: float32[4, 4] "w") {
  source T = %xs.axis(0)
  source B = %xs.axis(1)
  %t = Sizes() {sizes=T, dtype=int64}
  %last, %count = Loop(%t, %h, %xs, %w) {body=@step, carried=1, xs=1, captures=1, ys=0, reverse=false}
  return %last "last" updates %w
}
"""
    function = parse(text)
    (row,) = layers(function)
    assert row.parameters == parameter_count(function) == 16
    assert at(row.multiply_adds, 1, {"T": 9, "B": 3}) == 9 * 3 * 16
    count = flops(record_function(function, OPTIONS).optimised)
    assert at(count, 1, {"T": 9, "B": 3}) == 9 * (2 * 3 * 16 + 3 * 4)


def test_a_model_of_nothing_but_a_variable(graph: tf.Graph) -> None:
    v = tf.get_variable("v", initializer=np.zeros((2, 2), np.float32))
    c = record(graph, v, options=OPTIONS)
    (row,) = layers(c.function)
    assert row.parameters == 4 and row.multiply_adds == row.activations == 0 and row.output is None
