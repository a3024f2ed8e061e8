"""Classical filters on a photograph, as convolutions: Sobel's edges, Laplace's operator, sharpening, blur.

A filter is a constant kernel per colour channel (a depthwise convolution); the graph is compiled once and takes images
of any size.  Sources: Sobel and Feldman (1968); Gonzalez and Woods, "Digital image processing", chapter 3.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import real_data
from rich.console import Console

import graphc as tf

SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
LAPLACE = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)
EDGES = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32)
SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)
BLUR = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]).astype(np.float32) / np.float32(256)


def filtered(images: Any, kernel: np.ndarray) -> Any:
    """Return `images`, (rows, height, width, channels), each channel convolved with `kernel`; borders are mirrored."""
    above, left = (n // 2 for n in kernel.shape)
    channels = images.shape.as_list()[-1]
    filters = tf.constant(np.repeat(kernel[:, :, None, None], channels, axis=2))
    wide = tf.pad(images, [[0, 0], [above, above], [left, left], [0, 0]], "REFLECT")
    return tf.nn.depthwise_conv2d(wide, filters, [1, 1, 1, 1], "VALID")


def build() -> Any:
    """Return the graph from the placeholder "image", uint8 (height, width, 3), to one uint8 image per filter."""
    graph = tf.Graph()
    with graph.as_default():
        image = tf.placeholder(tf.uint8, (None, None, 3), name="image")
        colours = tf.cast(image, tf.float32)[tf.newaxis]
        grey = tf.reduce_sum(colours * tf.constant([0.299, 0.587, 0.114]), 3, keepdims=True)

        def shown(values: Any, name: str) -> Any:
            return tf.cast(tf.clip_by_value(values[0], 0.0, 255.0), tf.uint8, name=name)

        across, down = filtered(grey, SOBEL), filtered(grey, SOBEL.T)
        results = {
            "sobel": shown(tf.sqrt(tf.square(across) + tf.square(down)), "sobel"),
            "laplace": shown(tf.abs(filtered(grey, LAPLACE)), "laplace"),
            "edges": shown(filtered(colours, EDGES), "edges"),
            "sharpen": shown(filtered(colours, SHARPEN), "sharpen"),
            "blur": shown(filtered(colours, BLUR), "blur"),
        }
        tf.signature(inputs={"image": image}, outputs=results)
    return graph


def model() -> Any:
    """Return the graph that `graphc compile` builds."""
    return build()


def main(argv: Sequence[str] | None = None) -> dict[str, Path]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", help="a photograph (else one of the data folder, else a bundled one)")
    parser.add_argument("--data", metavar="DIR", help="folder with data sets (else $GRAPHC_DATA)")
    parser.add_argument("--out", metavar="DIR", default=".", help="folder that receives the PNG files (%(default)s)")
    options = parser.parse_args(argv)
    photograph = real_data.read_image(options.image) if options.image else real_data.photograph(options.data)
    graph = build()
    names = ("sobel", "laplace", "edges", "sharpen", "blur")
    with tf.Session(graph=graph) as session:
        images = session.run([f"{name}:0" for name in names], {"image:0": photograph})
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, image in zip(names, images, strict=True):
        written[name] = folder / f"{name}.png"
        real_data.write_image(written[name], image[:, :, 0] if image.shape[2] == 1 else image)
    height, width, _ = photograph.shape
    Console().print(f"{width} x {height} pixels: {', '.join(path.name for path in written.values())} in {folder}")
    return written


if __name__ == "__main__":
    main(sys.argv[1:])
