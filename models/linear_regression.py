"""Linear regression by gradient descent: the smallest model that learns something real.

Predicts a car's miles per gallon (auto-mpg) or the progression of diabetes (bundled) from standardised figures, with
the mean squared error as loss.  The exact least-squares solution is printed beside it: gradient descent must come
close.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import real_data
import training

import graphc as tf


def build(
    features: int, mean: np.ndarray | None = None, std: np.ndarray | None = None, rate: float = 0.1
) -> training.Model:
    """Return y = standardise(x) w + b with loss mean((y - target)^2).  x: float32 (rows, features); y: (rows,)."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (None, features), name="x")
        y = tf.placeholder(tf.float32, (None,), name="y")
        centre = tf.constant(np.zeros(features, np.float32) if mean is None else mean, name="mean")
        scale = tf.constant(np.ones(features, np.float32) if std is None else std, name="std")
        w = tf.get_variable("w", (features, 1), initializer=tf.zeros_initializer())
        b = tf.get_variable("b", (1,), initializer=tf.zeros_initializer())
        predicted = tf.squeeze(tf.matmul((x - centre) / scale, w) + b, axis=1, name="predicted")
        loss = tf.reduce_mean(tf.square(predicted - y), name="loss")
        train = tf.train.GradientDescentOptimizer(rate).minimize(loss)
        error = tf.reduce_mean(tf.abs(predicted - y), name="mean_absolute_error")
        tf.signature(inputs={"x": x}, outputs={"predicted": predicted})
        return training.Model(
            graph, x, y, loss, train, {"mean abs error": error}, tf.global_variables_initializer(), [w, b]
        )


def model() -> training.Model:
    """Return the regression on seven figures, which auto-mpg has: what `graphc compile` builds."""
    return build(7)


def least_squares(data: real_data.DataSet) -> float:
    """Return the test loss of the exact solution on the training rows."""

    def design(x: np.ndarray) -> np.ndarray:
        return np.c_[x, np.ones(len(x))].astype(np.float64)

    solution, *_ = np.linalg.lstsq(design(data.train.x), data.train.y, rcond=None)
    return float(np.mean((design(data.test.x) @ solution - data.test.y) ** 2))


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = training.arguments(__doc__ or "", argv, epochs=200, batch=64, rate=0.05)
    data = real_data.fuel_economy(options.data)
    model = build(data.train.x.shape[1], data.train.x.mean(0), data.train.x.std(0), options.rate)
    results = training.train_and_report(tf, "linear regression", model, data, options)
    print(f"test loss of the exact least-squares solution: {least_squares(data):.4f}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
