"""A deep convolutional generative adversarial network that draws handwritten digits.

Source: Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", 2016, at MNIST's size: 7 x 7, 14 x 14 and 28 x 28 pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import adversarial

import graphc as tf

START = tf.random_normal_initializer(stddev=0.02)


def generator(noise: Any, training: bool = False) -> Any:
    """Return images, float32 (rows, 784) in -1..1, of noise, float32 (rows, 100)."""

    def normalised(values: Any, name: str) -> Any:
        return tf.nn.relu(tf.layers.batch_normalization(values, momentum=0.9, training=training, name=name))

    values = tf.layers.dense(noise, 7 * 7 * 128, use_bias=False, kernel_initializer=START, name="project")
    values = normalised(tf.reshape(values, (-1, 7, 7, 128)), "norm1")
    values = tf.layers.conv2d_transpose(values, 64, 4, 2, "same", use_bias=False, kernel_initializer=START, name="up1")
    values = tf.layers.conv2d_transpose(normalised(values, "norm2"), 1, 4, 2, "same", kernel_initializer=START,
                                        name="up2")
    return tf.reshape(tf.tanh(values), (-1, adversarial.PIXELS))


def discriminator(images: Any) -> Any:
    """Return the logits that images are real, float32 (rows, 1)."""
    values = tf.reshape(images, (-1, 28, 28, 1))
    values = tf.layers.conv2d(values, 64, 4, 2, "same", kernel_initializer=START, name="down1")
    values = tf.layers.conv2d(tf.nn.leaky_relu(values, 0.2), 128, 4, 2, "same", use_bias=False,
                              kernel_initializer=START, name="down2")
    values = tf.layers.batch_normalization(values, momentum=0.9, training=True, name="norm")
    values = tf.layers.flatten(tf.nn.leaky_relu(values, 0.2))
    return tf.layers.dense(values, 1, kernel_initializer=START, name="real")


def build(rate: float = 2e-4, seed: int = 0) -> adversarial.Game:
    """Return the game of the two networks."""
    return adversarial.game(generator, discriminator, rate, seed=seed)


def model() -> adversarial.Game:
    """Return what `graphc compile` builds: the generator is its signature."""
    return build()


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    return adversarial.main("deep convolutional GAN", __doc__ or "", build, argv, epochs=5, batch=64)


if __name__ == "__main__":
    main(sys.argv[1:])
