"""GoogLeNet: nine inception modules, each four views of its input side by side; about 7 million parameters.

Source: Szegedy et al., "Going deeper with convolutions", 2015, table 1 (without the two auxiliary classifiers, which
the authors drop at inference).
"""

from __future__ import annotations

from typing import Any

import blocks

import graphc as tf

MODULES = (
    ("3a", 64, 96, 128, 16, 32, 32), ("3b", 128, 128, 192, 32, 96, 64),
    ("4a", 192, 96, 208, 16, 48, 64), ("4b", 160, 112, 224, 24, 64, 64), ("4c", 128, 128, 256, 24, 64, 64),
    ("4d", 112, 144, 288, 32, 64, 64), ("4e", 256, 160, 320, 32, 128, 128),
    ("5a", 256, 160, 320, 32, 128, 128), ("5b", 384, 192, 384, 48, 128, 128),
)
"""name, filters of: 1x1, 3x3's reduction, 3x3, 5x5's reduction, 5x5, the pool's projection."""


def inception(values: Any, name: str, one: int, to_three: int, three: int, to_five: int, five: int, pool: int) -> Any:
    """Return the four branches of a module, joined along the channels."""
    with tf.variable_scope(f"inception_{name}"):
        a = blocks.convolution(values, one, 1, name="1x1")
        b = blocks.convolution(blocks.convolution(values, to_three, 1, name="3x3_reduce"), three, 3, name="3x3")
        c = blocks.convolution(blocks.convolution(values, to_five, 1, name="5x5_reduce"), five, 5, name="5x5")
        d = blocks.convolution(blocks.pooled(values, 3, 1, "SAME"), pool, 1, name="pool_proj")
        return tf.concat([a, b, c, d], 3, name="output")


def googlenet(images: Any, classes: int = 1000, *, training: bool = False) -> Any:
    """Return the logits of `images`, float32 (rows, size, size, 3) with a size of at least 32."""
    values = blocks.pooled(blocks.convolution(images, 64, 7, 2, name="conv1"), padding="SAME", name="pool1")
    values = tf.nn.local_response_normalization(values, depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75)
    values = blocks.convolution(blocks.convolution(values, 64, 1, name="conv2_reduce"), 192, 3, name="conv2")
    values = tf.nn.local_response_normalization(values, depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75)
    values = blocks.pooled(values, padding="SAME", name="pool2")
    for name, *filters in MODULES:
        if name in ("4a", "5a"):
            values = blocks.pooled(values, padding="SAME", name=f"pool_{name}")
        values = inception(values, name, *filters)
    values = tf.layers.dropout(tf.reduce_mean(values, [1, 2], name="pool5"), 0.4, training=training)
    return tf.layers.dense(values, classes, name="classifier")


def model(size: int = 224, classes: int = 1000) -> Any:
    """Return the network as a graph from "images" to "probabilities"."""
    return blocks.inference(googlenet, size, 3, classes)
