"""LeNet-5 on handwritten digits: two convolutions, two poolings, three dense layers; 99 % of MNIST's test digits.

Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, with rectifiers for its sigmoids,
maxima for its averages and a softmax for its radial basis functions, as it is taught today.  Each batch is moved by up
to two pixels, a part of the distortions of the paper's section III.C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import blocks
import numpy as np
import real_data
import training

import graphc as tf


def lenet5(images: Any, classes: int = 10, *, training: bool = False) -> Any:
    """Return the logits of `images`, float32 (rows, size, size, channels) with a size of at least 12."""
    del training  # it behaves alike in training and use
    values = blocks.pooled(blocks.convolution(images, 6, 5, name="c1"), 2, name="s2")
    values = blocks.pooled(blocks.convolution(values, 16, 5, padding="VALID", name="c3"), 2, name="s4")
    values = tf.layers.flatten(values)
    values = tf.layers.dense(values, 120, tf.nn.relu, kernel_initializer=blocks.HE, name="c5")
    values = tf.layers.dense(values, 84, tf.nn.relu, kernel_initializer=blocks.HE, name="f6")
    return tf.layers.dense(values, classes, name="output")


def build(size: int = 28, classes: int = 10, rate: float = 2e-3, steps: int = 4300, seed: int = 0,
          mean: float = 0.0, std: float = 1.0) -> training.Model:
    """Return the network for grey images of size x size pixels, with Adam whose rate falls as a cosine over
    `steps`."""

    def optimizer(step: Any) -> Any:
        return tf.train.AdamOptimizer(tf.train.cosine_decay(rate, step, steps))

    return blocks.classifier(lenet5, size, 1, classes, optimizer, mean=mean, std=std, seed=seed)


def shifted(rows: real_data.Split, rng: np.random.Generator) -> real_data.Split:
    """Return the digits of `rows`, each moved by up to two pixels."""
    return training.shifted(rows, rng, (28, 28, 1), by=2)


def model() -> Any:
    """Return the graph for MNIST's digits: what `graphc compile` builds."""
    return blocks.inference(lenet5, 28, 1, 10)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = training.arguments(__doc__ or "", argv, epochs=12, batch=128, rate=2e-3)
    data = real_data.digit_images(options.data)
    mean, std = data.train.moments()
    steps = options.epochs * -(-len(data.train) // options.batch)
    built = build(28, len(data.classes), options.rate, steps, options.seed, mean, std)
    return training.train_and_report(tf, "LeNet-5", built, data, options, patience=3, augment=shifted)


if __name__ == "__main__":
    main(sys.argv[1:])
