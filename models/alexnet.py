"""AlexNet: five convolutions and three dense layers over 224 x 224 images, 61 million parameters.

Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014: the network of Krizhevsky,
Sutskever and Hinton (2012) on one processor, without its two halves and its local response normalisation.
"""

from __future__ import annotations

from typing import Any

import blocks

import graphc as tf


def alexnet(images: Any, classes: int = 1000, *, training: bool = False) -> Any:
    """Return the logits of `images`, float32 (rows, size, size, 3) with a size of at least 63."""
    values = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]])
    values = blocks.pooled(blocks.convolution(values, 64, 11, 4, "VALID", name="conv1"), name="pool1")
    values = blocks.pooled(blocks.convolution(values, 192, 5, name="conv2"), name="pool2")
    values = blocks.convolution(values, 384, 3, name="conv3")
    values = blocks.convolution(values, 256, 3, name="conv4")
    values = blocks.pooled(blocks.convolution(values, 256, 3, name="conv5"), name="pool5")
    values = tf.layers.flatten(values)
    for name in ("fc6", "fc7"):
        values = tf.layers.dropout(values, 0.5, training=training)
        values = tf.layers.dense(values, 4096, tf.nn.relu, kernel_initializer=blocks.HE, name=name)
    return tf.layers.dense(values, classes, name="fc8")


def model(size: int = 224, classes: int = 1000) -> Any:
    """Return the network as a graph from "images" to "probabilities"."""
    return blocks.inference(alexnet, size, 3, classes)
