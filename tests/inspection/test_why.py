"""Why two ops share a kernel or not: the reason is the one that fusion met."""
from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

import graphc as tf
from graphc.errors import GraphError
from graphc.inspection.compilation import Compilation, record
from graphc.inspection.why import fate, why
from graphc.options import Options

OPTIONS = Options(cache_dir="")


@pytest.fixture
def graph() -> Iterator[tf.Graph]:
    with tf.Graph().as_default() as made:
        yield made


def attention() -> Compilation:
    x = tf.placeholder(tf.float32, [None, 16], name="x")
    scale = tf.constant(2.0, name="scale")
    unused = tf.add(x, 1.0, name="unused")
    q = tf.matmul(x, tf.constant(np.ones((16, 16), np.float32)), name="q")
    scores = tf.multiply(q, scale, name="scores")
    soft = tf.nn.softmax(scores, name="soft")
    flat = tf.reshape(soft, [-1], name="flat")
    again = tf.multiply(q, scale, name="again")
    mixed = tf.matmul(soft, q, transpose_a=True, name="mixed")
    top = tf.cumsum(mixed, name="top")
    assert unused is not None
    return record(tf.get_default_graph(), [flat, again, mixed, top], options=OPTIONS)


def test_reasons(graph: tf.Graph) -> None:
    c = attention()
    for a, b, together, text in (
            ("q", "scores", True, "are computed by one kernel"),
            ("q", "mixed", False, "a factor of a product is read from memory"),
            ("q", "x", False, "'x' is in no kernel: it is fed"),
            ("unused", "q", False, "'unused' is in no kernel: nothing that is asked for needs it"),
            ("scale", "q", False, "'scale' is a constant, a number written into the kernels that use it"),
            ("flat", "q", False, "'flat' is another shape of what it reads"),
            ("again", "q", True, "are computed by one kernel"),
            ("top", "mixed", False, "'top' is a Cumsum, which has kernels of its own")):
        verdict = why(c, a, b)
        assert (verdict.together, text in verdict.text) == (together, True), verdict
        assert why(c, b, a).together == together


def test_together_is_what_the_kernels_say(graph: tf.Graph) -> None:
    """For all pairs that have kernels: together exactly where one kernel's ops hold both."""
    c = attention()
    names = sorted({name for kernel in c.kernels for name in kernel.provenance})
    assert len(names) > 3
    for a, b in itertools.product(names, names):
        verdict = why(c, a, b)
        if "constant" in verdict.text or "another shape" in verdict.text:
            continue
        assert verdict.together == bool(set(c.kernel_of(a)) & set(c.kernel_of(b))), verdict
        assert verdict.together or "because" in verdict.text or ": " in verdict.text


def test_what_became_of_an_op(graph: tf.Graph) -> None:
    c = attention()
    assert fate(c, "q") == "" and fate(c, "x") == "it is fed"
    v = tf.get_variable("v", initializer=np.zeros(3, np.float32))
    c = record(graph, v + 1, options=OPTIONS)
    assert fate(c, "v").startswith("it is a variable")
    with pytest.raises(GraphError, match="there is no operation 'scors'; near names: scores"):
        why(c, "q", "scors")
