"""What the convolutional models share: layers in their usual groups, and a classifier's training and evaluation towers.

Images are float32 (rows, height, width, channels) throughout.  `training` is a Python bool: a model that trains is
built twice over the same variables, once with batch statistics and dropout, once without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import training

import graphc as tf

HE = tf.variance_scaling_initializer(scale=2.0)
"""He et al., "Delving deep into rectifiers", 2015."""

Network = Callable[..., Any]
"""network(images, classes, training=...) -> logits (rows, classes)."""


def convolution(images: Any, filters: int, size: int, stride: int = 1, padding: str = "SAME", name: str | None = None,
                relu: bool = True) -> Any:
    """Convolve, add a bias and rectify: the layer of networks before batch normalisation."""
    return tf.layers.conv2d(images, filters, size, stride, padding, activation=tf.nn.relu if relu else None,
                            kernel_initializer=HE, name=name)


def normalised(images: Any, filters: int, size: int, stride: int = 1, *, training: bool, groups: int = 1,
               relu: bool = True, name: str) -> Any:
    """Convolve without a bias, in `groups` independent parts, normalise by batch, rectify."""
    with tf.variable_scope(name):
        inside = images.shape.as_list()[-1] // groups
        kernel = tf.get_variable("kernel", (size, size, inside, filters), initializer=HE)
        sums = tf.nn.conv2d(padded(images, size, stride), kernel, [1, stride, stride, 1],
                            "SAME" if stride == 1 else "VALID")
        values = tf.layers.batch_normalization(sums, momentum=0.9, epsilon=1e-5, training=training, name="norm")
        return tf.nn.relu(values) if relu else values


def padded(images: Any, size: int, stride: int) -> Any:
    """Pad evenly on both sides before a strided window, as the published networks do; SAME would pad the end alone."""
    if stride == 1 or size == 1:
        return images
    before, after = (size - 1) // 2, size // 2
    return tf.pad(images, [[0, 0], [before, after], [before, after], [0, 0]])


def pooled(images: Any, size: int = 3, stride: int = 2, padding: str = "VALID", name: str | None = None) -> Any:
    """Return the maximum of each window."""
    return tf.layers.max_pooling2d(images, size, stride, padding, name=name)


def parameters(graph: Any) -> int:
    """Return how many numbers the graph's trainable variables hold."""
    with graph.as_default():
        return sum(v.shape.num_elements() for v in tf.trainable_variables())


def inference(network: Network, size: int, channels: int, classes: int) -> Any:
    """Return a graph with the placeholder "images" and the tensors "logits" and "probabilities"."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf.placeholder(tf.float32, (None, size, size, channels), name="images")
        logits = tf.identity(network(images, classes, training=False), name="logits")
        probabilities = tf.nn.softmax(logits, name="probabilities")
        tf.signature(inputs={"images": images}, outputs={"probabilities": probabilities, "logits": logits})
    return graph


def classifier(network: Network, size: int, channels: int, classes: int, optimizer: Callable[[Any], Any], *,
               decay: float = 0.0, mean: Any = 0.0, std: Any = 1.0, seed: int = 0) -> training.Model:
    """Return a network with cross-entropy, its training step and its accuracy.

    x: float32 (rows, size * size * channels), pixels row by row; y: int32 (rows,).  optimizer: of the global step.
    decay: of the kernels (L2).  mean, std: of the pixels, numbers or one per channel.
    """
    graph = tf.Graph()
    with graph.as_default():
        tf.set_random_seed(seed)
        x = tf.placeholder(tf.float32, (None, size * size * channels), name="x")
        y = tf.placeholder(tf.int32, (None,), name="y")
        images = (tf.reshape(x, (-1, size, size, channels)) - mean) * (1.0 / std)

        def tower(training_now: bool) -> tuple[Any, Any]:
            with tf.variable_scope("network", reuse=tf.AUTO_REUSE):
                logits = network(images, classes, training=training_now)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            return logits, tf.reduce_mean(losses)

        with tf.name_scope("training"):
            _, train_loss = tower(True)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.name_scope("evaluation"):
            logits, loss = tower(False)
        variables = tf.global_variables()
        kernels = [v for v in tf.trainable_variables() if v.op.name.endswith("kernel")]
        total = train_loss + decay * tf.add_n([tf.nn.l2_loss(v) for v in kernels]) if decay else train_loss
        step = tf.train.get_or_create_global_step()
        with tf.control_dependencies(updates):
            train = optimizer(step).minimize(total, global_step=step)
        right = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), y)
        accuracy = tf.reduce_mean(tf.cast(right, tf.float32), name="accuracy")
        tf.signature(inputs={"x": x}, outputs={"probabilities": tf.nn.softmax(logits, name="probabilities")})
        return training.Model(graph, x, y, loss, train, {"accuracy": accuracy}, tf.global_variables_initializer(),
                              variables, train_loss=train_loss)
