"""Logistic regression: benign or malignant, from thirty measurements of cell nuclei.

Loss: sigmoid cross-entropy in its stable form plus an L2 penalty; inputs standardised with the training rows' mean
and deviation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import real_data
import training

import graphc as tf


def build(
    features: int,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    rate: float = 0.1,
    penalty: float = 1e-3,
) -> training.Model:
    """Return p(y = 1) = sigmoid(standardise(x) w + b).  x: float32 (rows, features); y: int32 (rows,) in {0, 1}."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, features), name="x")
        y = tf.placeholder(tf.int32, (None,), name="y")
        centre = tf.constant(np.zeros(features, np.float32) if mean is None else mean, name="mean")
        scale = tf.constant(np.ones(features, np.float32) if std is None else std, name="std")
        w = tf.get_variable("w", (features, 1), initializer=tf.zeros_initializer())
        b = tf.get_variable("b", (1,), initializer=tf.zeros_initializer())
        logits = tf.squeeze(tf.matmul((x - centre) / scale, w) + b, axis=1, name="logits")
        loss = tf.add(
            tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(y, tf.float32), logits=logits)),
            penalty * tf.nn.l2_loss(w),
            name="loss",
        )
        train = tf.train.GradientDescentOptimizer(rate).minimize(loss)
        right = tf.equal(tf.cast(tf.greater(logits, 0.0), tf.int32), y)
        accuracy = tf.reduce_mean(tf.cast(right, tf.float32), name="accuracy")
        tf.signature(inputs={"x": x}, outputs={"probability": tf.sigmoid(logits, name="probability")})
        return training.Model(
            graph, x, y, loss, train, {"accuracy": accuracy}, tf.global_variables_initializer(), [w, b]
        )


def model() -> training.Model:
    """Return the regression on the thirty measurements: what `graphc compile` builds."""
    return build(30)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = training.arguments(__doc__ or "", argv, epochs=60, batch=32, rate=0.1)
    data = real_data.breast_cancer(options.data)
    model = build(data.train.x.shape[1], data.train.x.mean(0), data.train.x.std(0), options.rate)
    return training.train_and_report(tf, "logistic regression", model, data, options, patience=10)


if __name__ == "__main__":
    main(sys.argv[1:])
