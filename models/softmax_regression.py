"""Softmax regression: ten classes of handwritten digits from raw pixels, one layer.

The baseline that every deeper model has to beat: about 92 % on MNIST's test digits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import real_data
import training

import graphc as tf


def build(features: int, classes: int, rate: float = 0.5) -> training.Model:
    """Return softmax(x w + b).  x: float32 (rows, features); y: int32 (rows,), the class."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, features), name="x")
        y = tf.placeholder(tf.int32, (None,), name="y")
        w = tf.get_variable("w", (features, classes), initializer=tf.zeros_initializer())
        b = tf.get_variable("b", (classes,), initializer=tf.zeros_initializer())
        logits = tf.nn.xw_plus_b(x, w, b, name="logits")
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits), name="loss")
        train = tf.train.GradientDescentOptimizer(rate).minimize(loss)
        predicted = tf.argmax(logits, axis=1, output_type=tf.int32, name="class")
        right = tf.equal(predicted, y)
        accuracy = tf.reduce_mean(tf.cast(right, tf.float32), name="accuracy")
        tf.signature(inputs={"x": x}, outputs={"class": predicted, "logits": logits})
        return training.Model(
            graph, x, y, loss, train, {"accuracy": accuracy}, tf.global_variables_initializer(), [w, b]
        )


def model() -> training.Model:
    """Return the model for MNIST's digits, 28 x 28 pixels: what `graphc compile` builds."""
    return build(28 * 28, 10)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = training.arguments(__doc__ or "", argv, epochs=60, batch=100, rate=0.5)
    data = real_data.digits(options.data)
    model = build(data.train.x.shape[1], len(data.classes), options.rate)
    return training.train_and_report(tf, "softmax regression", model, data, options, patience=5)


if __name__ == "__main__":
    main(sys.argv[1:])
