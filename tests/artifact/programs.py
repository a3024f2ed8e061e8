"""Small models for the tests of saved programs, and the session's answers that they must give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc as tf
from graphc.model import Model, choose_signature

Feeds = Mapping[str, np.ndarray]


def built(build: Callable[[], None]) -> Model:
    """The model that `build` makes in a graph of its own; it calls tf.signature."""
    graph = tf.Graph()
    with graph.as_default():
        build()
    return Model("", graph, choose_signature(graph))


def linear() -> Model:
    """y = x w + b with fresh random weights, x: float32 (rows, 4)."""
    rng = np.random.default_rng()
    w, b = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal(3).astype(np.float32)

    def build() -> None:
        x = tf.placeholder(tf.float32, (None, 4), name="x")
        y = tf.add(tf.matmul(x, tf.Variable(w, name="w")), tf.Variable(b, name="b"), name="y")
        tf.signature({"x": x}, {"y": y})

    return built(build)


class Reference:
    """A session on a model's graph that answers as the saved program must."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.session = tf.Session(graph=model.graph)
        for name, value in model.values().items():
            self.session.load(model.graph.get_tensor_by_name(f"{name}:0"), value)

    def __call__(self, feeds: Feeds) -> dict[str, Any]:
        signature = self.model.signature
        fed = {signature.inputs[name]: value for name, value in feeds.items()}
        values, _ = self.session.run([dict(signature.outputs), list(signature.targets)], fed)
        return dict(values)


def same(got: Any, wanted: Any) -> bool:
    """Whether two results are equal to the bit, in dtype and in shape."""
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(same(got[k], wanted[k]) for k in wanted)
    a, b = np.asarray(got), np.asarray(wanted)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def kept() -> Model:
    """The model of tests/data/saved-program-v1.gcx: save(path, kept(), targets=("x86-64-v2",))."""

    def build() -> None:
        x = tf.placeholder(tf.float32, (None, 4), name="x")
        y = tf.placeholder(tf.float32, (None, 3), name="y")
        scale = tf.placeholder_with_default(np.float32(2.0), (), name="scale")
        w = tf.Variable(np.arange(12, dtype=np.float32).reshape(4, 3) / 8, name="w")
        b = tf.Variable(tf.constant([0.5, -1.0, 2.0], tf.bfloat16), name="b")
        count = tf.Variable(np.int64(0), trainable=False, name="calls").assign_add(1)
        out = tf.nn.relu(tf.matmul(x, w) + tf.cast(b, tf.float32)) * scale + y
        tf.signature({"x": x, "y": y, "scale": scale}, {"out": out, "count": count})

    return built(build)
