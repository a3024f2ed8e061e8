"""ResNet-20 on CIFAR-10: shifted and mirrored images, momentum with a falling rate, checkpoints, early stopping.

Source: He et al., "Deep residual learning for image recognition", 2016, section 4.2: images padded by 4 pixels and cut
at random, mirrored at random, momentum 0.9, a decay of 1e-4.  With --save DIR the best state is kept there, and
training goes on from it where there is one.
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


def shifted_and_mirrored(rows: real_data.Split, rng: np.random.Generator) -> real_data.Split:
    """Return the images of `rows`, each moved by up to 4 pixels and every other one mirrored."""
    return training.shifted(rows, rng, (32, 32, 3), by=4, mirror=True)


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
    each = -(-len(data.train) // options.batch)
    built = build(len(data.classes), options.rate, options.epochs * each, images.mean(0), images.std(0), options.seed)
    console = Console()
    with built.graph.as_default(), tf.Session(graph=built.graph) as session:
        saver = tf.train.Saver(max_to_keep=1)
        session.run(built.initializer)
        newest = tf.train.latest_checkpoint(options.save) if options.save else None
        if newest is not None:
            saver.restore(session, newest)
            console.print(f"goes on from {newest}")
        done = int(session.run(tf.train.get_global_step())) // each

        def keep(epoch: int) -> None:
            if options.save:
                Path(options.save).mkdir(parents=True, exist_ok=True)
                saver.save(session, str(Path(options.save, "resnet20")), global_step=epoch + 1)

        history = training.fit(session, built, data, options.epochs, options.batch, options.patience, options.seed,
                               console, augment=shifted_and_mirrored, better=keep, done=done)
        parts = (("train", data.train), ("validation", data.validation), ("test", data.test))
        results = {name: training.measure(session, built, part) for name, part in parts}
    training.report(console, "ResNet-20", results, history)
    if options.plot:
        training.plot(options.plot, history, f"ResNet-20 on {data.name}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
