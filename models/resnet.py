"""Residual networks: ResNet-18, 34, 50, 101 and 152 for photographs, ResNet-20 for 32 x 32 images.

Sources: He et al., "Deep residual learning for image recognition", 2016 (table 1, and section 4.2 for CIFAR-10); a
bottleneck's stride lies in its 3 x 3 convolution, as most implementations have it.  Xie et al., "Aggregated residual
transformations", 2017, for `groups`; Hu et al., "Squeeze-and-excitation networks", 2018, for `squeeze`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import blocks

import graphc as tf


@dataclass(frozen=True)
class Design:
    """What tells one residual network from another.

    counts: blocks of each stage, whose filters double from `filters` on.  bottleneck: 1x1, 3x3, 1x1 instead of two 3x3.
    groups: of the 3x3 convolution, and width: its filters, in units of the stage's.  squeeze: by how much the channels
    are reduced where they are weighed, or 0.  small: for 32 x 32 images (a 3x3 stem without pooling).
    """

    counts: tuple[int, ...]
    bottleneck: bool = True
    filters: int = 64
    groups: int = 1
    width: int = 1
    squeeze: int = 0
    small: bool = False


DESIGNS = {
    "resnet18": Design((2, 2, 2, 2), bottleneck=False),
    "resnet34": Design((3, 4, 6, 3), bottleneck=False),
    "resnet50": Design((3, 4, 6, 3)),
    "resnet101": Design((3, 4, 23, 3)),
    "resnet152": Design((3, 8, 36, 3)),
    "resnet20": Design((3, 3, 3), bottleneck=False, filters=16, small=True),
    "resnext50": Design((3, 4, 6, 3), groups=32, width=2),
    "se_resnet50": Design((3, 4, 6, 3), squeeze=16),
}


def residual(values: Any, filters: int, stride: int, design: Design, training: bool) -> Any:
    """Return one block: the input, projected where its shape differs, plus what the convolutions make of it."""
    outside = filters * (4 if design.bottleneck else 1)
    inside = filters * design.width
    shortcut = values
    if stride != 1 or values.shape.as_list()[-1] != outside:
        shortcut = blocks.normalised(values, outside, 1, stride, training=training, relu=False, name="shortcut")
    if design.bottleneck:
        inner = blocks.normalised(values, inside, 1, training=training, name="conv1")
        inner = blocks.normalised(inner, inside, 3, stride, training=training, groups=design.groups, name="conv2")
        inner = blocks.normalised(inner, outside, 1, training=training, relu=False, name="conv3")
    else:
        inner = blocks.normalised(values, inside, 3, stride, training=training, name="conv1")
        inner = blocks.normalised(inner, outside, 3, training=training, relu=False, name="conv2")
    if design.squeeze:
        inner = weighed(inner, outside // design.squeeze)
    return tf.nn.relu(inner + shortcut, name="output")


def weighed(values: Any, hidden: int) -> Any:
    """Return `values` with each channel scaled by a gate computed from the means of all channels."""
    channels = values.shape.as_list()[-1]
    with tf.variable_scope("squeeze"):
        gates = tf.layers.dense(tf.reduce_mean(values, [1, 2]), hidden, tf.nn.relu, name="reduce")
        gates = tf.layers.dense(gates, channels, tf.nn.sigmoid, name="expand")
        return values * tf.reshape(gates, (-1, 1, 1, channels))


def network(design: Design) -> Callable[..., Any]:
    """Return the function images, classes -> logits of a design."""

    def build(images: Any, classes: int = 1000, *, training: bool = False) -> Any:
        """Return the logits of `images`, float32 (rows, size, size, 3) with a size of at least 32."""
        if design.small:
            values = blocks.normalised(images, design.filters, 3, training=training, name="stem")
        else:
            values = blocks.normalised(images, design.filters, 7, 2, training=training, name="stem")
            values = blocks.pooled(tf.pad(values, [[0, 0], [1, 1], [1, 1], [0, 0]]), name="pool")  # of what is >= 0
        for stage, count in enumerate(design.counts):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                with tf.variable_scope(f"stage{stage + 1}/block{number + 1}"):
                    values = residual(values, design.filters << stage, stride, design, training)
        return tf.layers.dense(tf.reduce_mean(values, [1, 2], name="mean"), classes, name="classifier")

    return build


resnet18, resnet34, resnet50, resnet101, resnet152, resnet20 = (
    network(DESIGNS[name]) for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet20"))


def model(name: str = "resnet50", size: int = 224, classes: int = 1000) -> Any:
    """Return a network as a graph from "images" to "probabilities"."""
    return blocks.inference(network(DESIGNS[name]), size, 3, classes)
