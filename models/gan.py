"""A generative adversarial network of dense layers that draws handwritten digits.

Source: Goodfellow et al., "Generative adversarial nets", 2014, with leaky rectifiers in the discriminator and a tanh at
the generator's end (Radford et al., 2016).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import adversarial

import graphc as tf


def generator(noise: Any, training: bool = False) -> Any:
    """Return images, float32 (rows, 784) in -1..1, of noise, float32 (rows, 100)."""
    del training  # it behaves alike in training and use
    values = noise
    for i, width in enumerate((256, 512, 1024), 1):
        values = tf.nn.leaky_relu(tf.layers.dense(values, width, name=f"hidden{i}"), 0.2)
    return tf.tanh(tf.layers.dense(values, adversarial.PIXELS, name="image"))


def discriminator(images: Any) -> Any:
    """Return the logits that images are real, float32 (rows, 1)."""
    values = images
    for i, width in enumerate((1024, 512, 256), 1):
        values = tf.nn.leaky_relu(tf.layers.dense(values, width, name=f"hidden{i}"), 0.2)
        values = tf.nn.dropout(values, keep_prob=0.7)
    return tf.layers.dense(values, 1, name="real")


def build(rate: float = 2e-4, seed: int = 0) -> adversarial.Game:
    """Return the game of the two networks."""
    return adversarial.game(generator, discriminator, rate, seed=seed)


def model() -> adversarial.Game:
    """Return what `graphc compile` builds: the generator is its signature."""
    return build()


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    return adversarial.main("generative adversarial network", __doc__ or "", build, argv, epochs=30, batch=128)


if __name__ == "__main__":
    main(sys.argv[1:])
