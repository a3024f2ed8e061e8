"""ResNet-20 on CIFAR-10: shifted and mirrored images, momentum with a falling rate, checkpoints, early stopping.

Source: He et al., "Deep residual learning for image recognition", 2016, section 4.2: images padded by 4 pixels and cut
at random, mirrored at random, momentum 0.9, a decay of 1e-4.  With --save DIR the best weights are kept there, and
training goes on from them where there are any.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blocks
import numpy as np
import real_data
import resnet
import training
from rich.console import Console

import graphc as tf

PADDING = 4


def shifted_and_mirrored(rows: real_data.Split, rng: np.random.Generator) -> real_data.Split:
    """Return the images of `rows`, (rows, 3072), each moved by up to 4 pixels and every other one mirrored."""
    images = rows.x.reshape(-1, 32, 32, 3)
    wide = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    top, left = rng.integers(0, 2 * PADDING + 1, (2, len(images), 1, 1))
    across = np.arange(32)
    columns = np.where(rng.random((len(images), 1, 1)) < 0.5, across, across[::-1]) + left
    moved = wide[np.arange(len(images))[:, None, None], top + across[:, None], columns]
    return real_data.Split(moved.reshape(len(images), -1), rows.y)


def build(classes: int = 10, rate: float = 0.1, steps: int = 10000, mean: Any = 0.0, std: Any = 1.0,
          seed: int = 0) -> training.Model:
    """Return ResNet-20 for 32 x 32 colour images, with momentum whose rate falls as a cosine over `steps`."""

    def optimizer(step: Any) -> Any:
        return tf.train.MomentumOptimizer(tf.train.cosine_decay(rate, step, steps), 0.9)

    return blocks.classifier(resnet.resnet20, 32, 3, classes, optimizer, decay=1e-4, mean=mean, std=std, seed=seed)


def model() -> Any:
    """Return the graph for use: what `graphc compile` builds."""
    return blocks.inference(resnet.resnet20, 32, 3, 10)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = training.arguments(__doc__ or "", argv, epochs=30, batch=64, rate=0.1, save="", patience=10)
    data = real_data.cifar10(options.data)
    images = data.train.x.reshape(-1, 3).astype(np.float32)
    steps = options.epochs * -(-len(data.train) // options.batch)
    built = build(len(data.classes), options.rate, steps, images.mean(0), images.std(0), options.seed)
    console = Console()
    with built.graph.as_default(), tf.Session(graph=built.graph) as session:
        saver = tf.train.Saver(built.variables, max_to_keep=1)
        session.run(built.initializer)
        newest = tf.train.latest_checkpoint(options.save) if options.save else None
        if newest is not None:
            saver.restore(session, newest)
            console.print(f"goes on from {newest}")

        def keep(epoch: int) -> None:
            if options.save:
                Path(options.save).mkdir(parents=True, exist_ok=True)
                saver.save(session, str(Path(options.save, "resnet20")), global_step=epoch + 1)

        history = training.fit(session, built, data, options.epochs, options.batch, options.patience, options.seed,
                               console, augment=shifted_and_mirrored, better=keep)
        parts = (("train", data.train), ("validation", data.validation), ("test", data.test))
        results = {name: training.measure(session, built, part) for name, part in parts}
    training.report(console, "ResNet-20", results, history)
    if options.plot:
        training.plot(options.plot, history, f"ResNet-20 on {data.name}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
