"""VGG-16: thirteen 3 x 3 convolutions in five stages and three dense layers, 138 million parameters.

Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, column D.
"""

from __future__ import annotations

from typing import Any

import blocks

import graphc as tf

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""(filters, convolutions) of each stage."""


def vgg16(images: Any, classes: int = 1000, *, training: bool = False) -> Any:
    """Return the logits of `images`, float32 (rows, size, size, 3) with a size of at least 32."""
    values = images
    for stage, (filters, count) in enumerate(STAGES, 1):
        for number in range(1, count + 1):
            values = blocks.convolution(values, filters, 3, name=f"conv{stage}_{number}")
        values = blocks.pooled(values, 2, name=f"pool{stage}")
    values = tf.layers.flatten(values)
    for name in ("fc6", "fc7"):
        values = tf.layers.dense(values, 4096, tf.nn.relu, kernel_initializer=blocks.HE, name=name)
        values = tf.layers.dropout(values, 0.5, training=training)
    return tf.layers.dense(values, classes, name="fc8")


def model(size: int = 224, classes: int = 1000) -> Any:
    """Return the network as a graph from "images" to "probabilities"."""
    return blocks.inference(vgg16, size, 3, classes)
