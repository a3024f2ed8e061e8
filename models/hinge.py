"""A linear classifier with the multiclass hinge loss (the SVM loss) and an L2 penalty.

For scores s and the right class y the loss of one row is sum over j != y of max(0, s_j - s_y + 1), Weston and
Watkins' form (1999).  For the scores (3.2, 5.1, -1.7) of a row of class 0 it is 2.9.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import real_data
import training

import graphc as tf


def hinge_losses(scores: Any, labels: Any, margin: float = 1.0) -> Any:
    """Return the loss of each row: float32 (rows,).  scores: (rows, classes); labels: int32 (rows,)."""
    classes = scores.get_shape().as_list()[1]
    chosen = tf.one_hot(labels, classes)
    right = tf.reduce_sum(scores * chosen, axis=1, keepdims=True)
    return tf.reduce_sum(tf.maximum(0.0, scores - right + margin) * (1.0 - chosen), axis=1)


def build(features: int, classes: int, rate: float = 0.01, penalty: float = 1e-3) -> training.Model:
    """Return scores x w + b trained with hinge_losses.  x: float32 (rows, features); y: int32 (rows,)."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, features), name="x")
        y = tf.placeholder(tf.int32, (None,), name="y")
        w = tf.get_variable("w", (features, classes), initializer=tf.zeros_initializer())
        b = tf.get_variable("b", (classes,), initializer=tf.zeros_initializer())
        scores = tf.nn.xw_plus_b(x, w, b, name="scores")
        loss = tf.add(tf.reduce_mean(hinge_losses(scores, y)), penalty * tf.nn.l2_loss(w), name="loss")
        train = tf.train.MomentumOptimizer(rate, 0.9, use_nesterov=True).minimize(loss)
        predicted = tf.argmax(scores, axis=1, output_type=tf.int32, name="class")
        right = tf.equal(predicted, y)
        accuracy = tf.reduce_mean(tf.cast(right, tf.float32), name="accuracy")
        tf.signature(inputs={"x": x}, outputs={"class": predicted, "scores": scores})
        return training.Model(
            graph, x, y, loss, train, {"accuracy": accuracy}, tf.global_variables_initializer(), [w, b]
        )


def model() -> training.Model:
    """Return the classifier for MNIST's digits, 28 x 28 pixels: what `graphc compile` builds."""
    return build(28 * 28, 10)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = training.arguments(__doc__ or "", argv, epochs=40, batch=100, rate=0.01)
    data = real_data.digits(options.data)
    model = build(data.train.x.shape[1], len(data.classes), options.rate)
    return training.train_and_report(tf, "hinge loss", model, data, options, patience=5)


if __name__ == "__main__":
    main(sys.argv[1:])
