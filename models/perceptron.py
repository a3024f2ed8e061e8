"""Rosenblatt's perceptron: the step rule, where it works, and why XOR defeats it.

The rule w <- w + rate * (target - step(x w)) * x is no gradient descent (the step has gradient zero): it is written
with `assign_add`.  It separates setosa from versicolor without a mistake (the convergence theorem: Novikoff, 1962),
and never gets all four rows of XOR right, since no line does (Minsky and Papert, "Perceptrons", 1969).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import real_data
import training
from rich.console import Console

import graphc as tf


def build(features: int, rate: float = 1.0) -> training.Model:
    """Return a perceptron over x: float32 (rows, features) and y: int32 (rows,) in {0, 1}; loss is the rate of
    mistakes."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, features), name="x")
        y = tf.placeholder(tf.int32, (None,), name="y")
        w = tf.Variable(tf.zeros((features, 1)), name="w")
        b = tf.Variable(tf.zeros((1,)), name="b")
        fires = tf.cast(tf.greater(tf.matmul(x, w) + b, 0.0), tf.float32, name="fires")
        mistake = tf.expand_dims(tf.cast(y, tf.float32), 1) - fires
        train = tf.group(
            w.assign_add(rate * tf.matmul(x, mistake, transpose_a=True)),
            b.assign_add(rate * tf.reduce_sum(mistake, axis=0)),
            name="train",
        )
        loss = tf.reduce_mean(tf.abs(mistake), name="loss")
        tf.signature(inputs={"x": x}, outputs={"fires": fires})
        return training.Model(
            graph, x, y, loss, train, {"accuracy": 1.0 - loss}, tf.global_variables_initializer(), [w, b]
        )


def model() -> training.Model:
    """Return the perceptron for two of MNIST's digits, 28 x 28 pixels: what `graphc compile` builds."""
    return build(28 * 28)


def two_classes(data: real_data.DataSet, a: int, b: int) -> real_data.DataSet:
    """Return the rows of classes a and b alone, relabelled 0 and 1."""

    def keep(part: real_data.Split) -> real_data.Split:
        rows = (part.y == a) | (part.y == b)
        return real_data.Split(part.x[rows], (part.y[rows] == b).astype(np.int32))

    return real_data.DataSet(
        f"{data.name}: {data.classes[a]} or {data.classes[b]}",
        keep(data.train),
        keep(data.validation),
        keep(data.test),
        data.features,
        (data.classes[a], data.classes[b]),
    )


def xor() -> real_data.DataSet:
    """Return the four rows of exclusive or, as every part."""
    rows = real_data.Split(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0], np.int32))
    return real_data.DataSet("XOR", rows, rows, rows, ("a", "b"), ("0", "1"))


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = training.arguments(__doc__ or "", argv, epochs=20, batch=1, rate=1.0)
    flowers = two_classes(real_data.iris(options.data), 0, 1)
    results = training.train_and_report(tf, "perceptron", build(4, options.rate), flowers, options)
    options.plot = None
    results["xor"] = training.train_and_report(tf, "perceptron", build(2, options.rate), xor(), options)["test"]
    Console().print(
        "XOR: no straight line has (0,1) and (1,0) on one side and (0,0) and (1,1) on the other;\n"
        "a hidden layer bends the line (models/mlp.py)."
    )
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
