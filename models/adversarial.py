"""Generative adversarial networks on handwritten digits: the game, its training loop, grids of samples, and a judge.

A generator makes images of noise, a discriminator tells them from real ones; each step trains both, each with the
variables of its own scope.  Source: Goodfellow et al., "Generative adversarial nets", 2014, with the generator's
non-saturating loss.  The judge is a LeNet-5 trained on the same digits: how sure it is of a sample tells whether that
is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lenet5
import numpy as np
import real_data
import training
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import graphc as tf

NOISE = 100
PIXELS = 28 * 28


@dataclass(frozen=True)
class Game:
    """A built graph: images float32 (rows, 784) in -1..1, noise float32 (rows, 100), and what a step runs."""

    graph: Any
    images: Any
    noise: Any
    samples: Any
    discriminator_loss: Any
    generator_loss: Any
    discriminator_step: Any
    generator_step: Any
    initializer: Any
    variables: Sequence[Any]


def game(generator: Callable[[Any, bool], Any], discriminator: Callable[[Any], Any], rate: float = 2e-4,
         smooth: float = 0.9, seed: int = 0) -> Game:
    """Return the game of two networks: generator(noise, training) -> images in -1..1, discriminator(images) -> logits.

    smooth: what the discriminator is asked to say of real images (Salimans et al., "Improved techniques for training
    GANs", 2016).
    """
    graph = tf.Graph()
    with graph.as_default():
        tf.set_random_seed(seed)
        images = tf.placeholder(tf.float32, (None, PIXELS), name="images")
        noise = tf.placeholder(tf.float32, (None, NOISE), name="noise")

        def made(training_now: bool) -> Any:
            with tf.variable_scope("generator", reuse=tf.AUTO_REUSE):
                return generator(noise, training_now)

        def judged(shown: Any) -> Any:
            with tf.variable_scope("discriminator", reuse=tf.AUTO_REUSE):
                return discriminator(shown)

        def loss(logits: Any, label: float) -> Any:
            labels = tf.fill(tf.shape(logits), label)
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))

        samples = tf.identity(made(False), name="samples")
        false = made(True)
        d_loss = loss(judged(images), smooth) + loss(judged(tf.stop_gradient(false)), 0.0)
        g_loss = loss(judged(false), 1.0)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        variables = tf.global_variables()

        def step(value: Any, scope: str) -> Any:
            mine = tf.trainable_variables(scope)
            with tf.control_dependencies([op for op in updates if op.name.startswith(scope)]):
                return tf.train.AdamOptimizer(rate, beta1=0.5).minimize(value, var_list=mine)

        d_step, g_step = step(d_loss, "discriminator"), step(g_loss, "generator")
        tf.signature(inputs={"noise": noise}, outputs={"samples": samples})
        return Game(graph, images, noise, samples, d_loss, g_loss, d_step, g_step, tf.global_variables_initializer(),
                    variables)


def play(session: Any, built: Game, data: real_data.DataSet, epochs: int, batch: int, seed: int, console: Console,
         grid: Path | None = None) -> list[tuple[float, float]]:
    """Train both networks in turns; return the mean losses (discriminator, generator) of each epoch.

    grid: receives a picture of 100 samples after each epoch, always of the same noise.
    """
    rng = np.random.default_rng(seed)
    shown = rng.standard_normal((100, NOISE), dtype=np.float32)
    losses = []
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("training", total=epochs * (len(data.train) // batch))
        for epoch in range(epochs):
            total, steps = np.zeros(2), 0
            for rows in training.batches(data.train, batch, rng):
                if len(rows) < batch:  # the statistics of a few rows would mislead both
                    continue
                feed = {built.images: rows.x * 2.0 - 1.0,
                        built.noise: rng.standard_normal((batch, NOISE), dtype=np.float32)}
                d_loss, _ = session.run([built.discriminator_loss, built.discriminator_step], feed)
                feed[built.noise] = rng.standard_normal((batch, NOISE), dtype=np.float32)
                g_loss, _ = session.run([built.generator_loss, built.generator_step], {built.noise: feed[built.noise]})
                total += d_loss, g_loss
                steps += 1
                progress.advance(task)
            losses.append((float(total[0]) / steps, float(total[1]) / steps))
            told = f"epoch {epoch + 1:3d}  discriminator {losses[-1][0]:.3f}  generator {losses[-1][1]:.3f}"
            progress.update(task, description=told)
            if grid is not None:
                write_grid(grid, session.run(built.samples, {built.noise: shown}))
    return losses


def write_grid(path: Path, samples: np.ndarray) -> None:
    """Write 100 images, float32 (100, 784) in -1..1, as one PNG of ten rows."""
    grey = np.clip((samples.reshape(10, 10, 28, 28) + 1.0) * 127.5, 0.0, 255.0).astype(np.uint8)
    real_data.write_image(path, grey.transpose(0, 2, 1, 3).reshape(280, 280))


def confidence(data: real_data.DataSet, samples: np.ndarray, epochs: int = 2, seed: int = 0) -> tuple[float, int]:
    """Return how sure a LeNet-5, trained here on `data`, is of the class of `samples` on average, and how many of the
    classes it finds among them."""
    mean, std = data.train.moments()
    steps = epochs * -(-len(data.train) // 128)
    judge = lenet5.build(28, len(data.classes), steps=steps, mean=mean, std=std, seed=seed)
    with tf.Session(graph=judge.graph) as session:
        session.run(judge.initializer)
        training.fit(session, judge, data, epochs, 128, seed=seed)
        probabilities = session.run("probabilities:0", {judge.x: (samples + 1.0) * 0.5})
    return float(probabilities.max(1).mean()), len(np.unique(probabilities.argmax(1)))


def main(title: str, doc: str, build: Callable[..., Game], argv: Sequence[str] | None, epochs: int,
         batch: int) -> dict[str, float]:
    """Train, write samples, and print the losses and the judge's confidence."""
    options = training.arguments(doc, argv, epochs=epochs, batch=batch, rate=2e-4, grid="samples.png", judge=2)
    data = real_data.digit_images(options.data)
    built = build(rate=options.rate, seed=options.seed)
    console = Console()
    console.print(f"{title}: {data.name}, {len(data.train)} images")
    with tf.Session(graph=built.graph) as session:
        session.run(built.initializer)
        losses = play(session, built, data, options.epochs, options.batch, options.seed, console, Path(options.grid))
        noise = np.random.default_rng(options.seed + 1).standard_normal((1000, NOISE), dtype=np.float32)
        samples = session.run(built.samples, {built.noise: noise})
    sure, classes = confidence(data, samples, options.judge, options.seed)
    console.print(f"losses: discriminator {losses[-1][0]:.3f}, generator {losses[-1][1]:.3f}; a LeNet-5 is {sure:.1%} "
                  f"sure of its samples and finds {classes} of {len(data.classes)} digits; {options.grid}")
    return {"discriminator": losses[-1][0], "generator": losses[-1][1], "confidence": sure, "classes": float(classes)}
