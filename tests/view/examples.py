"""Graphs that the tests draw."""
from __future__ import annotations

from functools import cache
from pathlib import Path

import graphc as tf
from graphc.inspection.compilation import Compilation, record
from graphc.ir.function import Function
from graphc.ir.parse import parse
from graphc.ir.verify import verify
from graphc.options import Options

EXAMPLES = Path(__file__).parent.parent / "ir" / "examples"

HOSTILE = "</script><script>document.title='taken'</script>\"'&<b>\u2028"
"""A text that must never be read as anything but text."""


def training() -> tuple[tf.Graph, list[tf.Tensor], list[tf.Operation]]:
    """A small network with scopes, variables, control edges, gradients and an optimizer: (graph, fetches, targets)."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [None, 20], "x")
        y = tf.placeholder(tf.int32, [None], "y")
        h = tf.layers.dense(x, 16, tf.nn.relu, name="hidden")
        logits = tf.layers.dense(h, 5, name="logits")
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits), name="loss")
        train = tf.train.AdamOptimizer(0.01).minimize(loss)
        tf.global_variables_initializer()
    return graph, [loss], [train]


def small() -> tf.Graph:
    """A few operations with scopes in scopes, a variable and control edges."""
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [None, 4], "x")
        with tf.name_scope("outer"):
            w = tf.Variable(tf.zeros([4, 2]), name="w")
            with tf.name_scope("inner"):
                y = tf.nn.relu(tf.matmul(x, w))
        with tf.control_dependencies([y]):
            w.assign_add(tf.ones([4, 2]))
        tf.global_variables_initializer()
    return graph


@cache
def compilation() -> Compilation:
    """The training step of `training`, compiled."""
    graph, fetches, targets = training()
    return record(graph, fetches, None, targets, Options(cache_dir=""))


def function(name: str) -> Function:
    """One of the functions written by hand: "adam", "loop_gradients", "softmax_cross_entropy"."""
    return verify(parse((EXAMPLES / f"{name}.gir").read_text()))


def flat(count: int) -> tf.Graph:
    """At least `count` operations in one scope; all of them use "x"."""
    graph = tf.Graph()
    with graph.as_default():
        h = x = tf.placeholder(tf.float32, [None, 8], "x")
        while graph.operation_count < count:
            h = tf.tanh(h + x)
    return graph


def layered(count: int) -> tf.Graph:
    """At least `count` operations in scopes of scopes."""
    graph = tf.Graph()
    with graph.as_default():
        h = tf.placeholder(tf.float32, [None, 8], "x")
        while graph.operation_count < count:
            with tf.name_scope("stack"):
                for _ in range(8):
                    with tf.name_scope("layer"):
                        h = tf.nn.relu(tf.matmul(h, tf.ones([8, 8]))) * 0.5 + 1.0
    return graph
