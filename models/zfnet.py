"""ZFNet: AlexNet with a finer first layer, and normalisation across channels.

Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014, figure 3.
"""

from __future__ import annotations

from typing import Any

import blocks

import graphc as tf


def zfnet(images: Any, classes: int = 1000, *, training: bool = False) -> Any:
    """Return the logits of `images`, float32 (rows, size, size, 3) with a size of at least 63."""

    def rivalled(values: Any) -> Any:
        return tf.nn.local_response_normalization(values, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)

    values = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    values = blocks.pooled(blocks.convolution(values, 96, 7, 2, "VALID", name="conv1"), padding="SAME", name="pool1")
    values = blocks.convolution(rivalled(values), 256, 5, 2, "VALID", name="conv2")
    values = rivalled(blocks.pooled(values, padding="SAME", name="pool2"))
    values = blocks.convolution(values, 384, 3, name="conv3")
    values = blocks.convolution(values, 384, 3, name="conv4")
    values = blocks.pooled(blocks.convolution(values, 256, 3, name="conv5"), name="pool5")
    values = tf.layers.flatten(values)
    for name in ("fc6", "fc7"):
        values = tf.layers.dense(values, 4096, tf.nn.relu, kernel_initializer=blocks.HE, name=name)
        values = tf.layers.dropout(values, 0.5, training=training)
    return tf.layers.dense(values, classes, name="fc8")


def model(size: int = 224, classes: int = 1000) -> Any:
    """Return the network as a graph from "images" to "probabilities"."""
    return blocks.inference(zfnet, size, 3, classes)
