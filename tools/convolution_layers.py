"""The convolutions of well-known networks, as shapes: what tools/convolutions.py measures.

Owns the shapes, their counts of operations and bytes, and the arrays they are measured on; must not know who computes
them.  Invariant: arrays are channels last (n, height, width, channels), filters (height, width, in, out), for a
transposed layer (height, width, out, in), and depend on the layer alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

PASSES = ("forward", "input", "filter")
"""The layer itself, and its gradients for the input and for the filters."""


@dataclass(frozen=True)
class Layer:
    """batch square images of `size` with `channels`, `features` filters of taps x taps, zeros around (pad).

    transposed: the gradient of a convolution for its input, taken as a layer (stride: how many times larger it makes).
    """

    network: str
    batch: int
    size: int
    channels: int
    features: int
    taps: int
    stride: int = 1
    pad: int = 0
    groups: int = 1
    transposed: bool = False

    @property
    def name(self) -> str:
        """What it is called in tables and chosen by."""
        window = f"{self.taps}x{self.taps}" + (f"/{self.stride}" if self.stride > 1 else "")
        groups = f" {self.groups} groups" if self.groups > 1 else ""
        image = f"b{self.batch} {self.size}x{self.size}x{self.channels} {'up ' if self.transposed else ''}{window}"
        return f"{self.network} {image} {self.features}{groups}"

    @property
    def result(self) -> int:
        """The size of the images that it makes."""
        if self.transposed:
            return (self.size - 1) * self.stride + self.taps - 2 * self.pad
        return (self.size + 2 * self.pad - self.taps) // self.stride + 1

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.batch, self.size, self.size, self.channels

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.batch, self.result, self.result, self.features

    @property
    def w_shape(self) -> tuple[int, ...]:
        if self.transposed:
            return self.taps, self.taps, self.features, self.channels
        return self.taps, self.taps, self.channels // self.groups, self.features

    @property
    def _taps_inside(self) -> np.ndarray:
        """Along one axis, the places of the larger image that are read, once for each tap."""
        large, small = (self.result, self.size) if self.transposed else (self.size, self.result)
        places = np.add.outer(np.arange(small) * self.stride - self.pad, np.arange(self.taps))
        return places[(places >= 0) & (places < large)]

    @property
    def flops(self) -> float:
        """Operations of the direct form, the same for each pass; those on padding are none."""
        return 2.0 * self.batch * self._taps_inside.size**2 * self.channels // self.groups * self.features

    def winograd_flops(self, which: str, tile: int) -> float:
        """Operations of the products of Winograd's form of a pass, its transformations not counted."""
        tiles = self.batch * (-(-(self.size if which == "input" else self.result) // tile)) ** 2
        return 2.0 * tiles * (tile + self.taps - 1) ** 2 * self.channels * self.features

    def bytes(self, which: str) -> int:
        """What any form of a pass must read and write: the operands where taps reach them, and the result, once."""
        images = {"x": prod(self.x_shape), "y": prod(self.y_shape)}
        large = "y" if self.transposed else "x"
        if which != ("forward" if self.transposed else "input"):  # it reads the larger image
            images[large] = images[large] // {"x": self.size, "y": self.result}[large] ** 2 * (
                np.unique(self._taps_inside).size ** 2)
        return 4 * (images["x"] + images["y"] + prod(self.w_shape))

    def arrays(self) -> dict[str, np.ndarray]:
        """x, w and the gradient dy of the result, drawn for the layer."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        shapes = {"x": self.x_shape, "w": self.w_shape, "dy": self.y_shape}
        return {key: rng.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}


def _lenet5() -> Iterator[Layer]:
    for batch in (128, 129):
        yield Layer("lenet5", batch, 28, 1, 6, 5, 1, 2)
        yield Layer("lenet5", batch, 14, 6, 16, 5)


def _resnet20() -> Iterator[Layer]:
    yield Layer("resnet20", 64, 32, 3, 16, 3, 1, 1)
    yield Layer("resnet20", 64, 32, 16, 16, 3, 1, 1)
    yield Layer("resnet20", 64, 32, 16, 32, 3, 2, 1)
    yield Layer("resnet20", 64, 32, 16, 32, 1, 2)
    yield Layer("resnet20", 64, 16, 32, 32, 3, 1, 1)
    yield Layer("resnet20", 64, 16, 32, 64, 3, 2, 1)
    yield Layer("resnet20", 129, 8, 64, 64, 3, 1, 1)


def _dcgan() -> Iterator[Layer]:
    yield Layer("dcgan", 64, 28, 1, 64, 4, 2, 1)
    yield Layer("dcgan", 64, 14, 64, 128, 4, 2, 1)
    yield Layer("dcgan", 64, 7, 128, 64, 4, 2, 1, transposed=True)
    yield Layer("dcgan", 64, 14, 64, 1, 4, 2, 1, transposed=True)


def _alexnet() -> Iterator[Layer]:
    for batch in (1, 16):
        yield Layer("alexnet", batch, 224, 3, 64, 11, 4, 2)
    for batch in (1, 3):
        yield Layer("alexnet", batch, 27, 64, 192, 5, 1, 2)
    yield Layer("alexnet", 3, 13, 192, 384, 3, 1, 1)
    yield Layer("alexnet", 8, 13, 384, 256, 3, 1, 1)
    yield Layer("alexnet", 1, 13, 256, 256, 3, 1, 1)
    yield Layer("zfnet", 3, 224, 3, 96, 7, 2, 1)
    yield Layer("zfnet", 3, 55, 96, 256, 5, 2)


def _vgg16() -> Iterator[Layer]:
    yield Layer("vgg16", 1, 224, 3, 64, 3, 1, 1)
    yield Layer("vgg16", 1, 112, 64, 128, 3, 1, 1)
    yield Layer("vgg16", 1, 56, 256, 256, 3, 1, 1)
    yield Layer("vgg16", 3, 14, 512, 512, 3, 1, 1)


def _googlenet() -> Iterator[Layer]:
    """The branches of its first and last inception modules."""
    for size, inside, one, reduced, three, thin, five in ((28, 192, 64, 96, 128, 16, 32),
                                                          (7, 832, 384, 192, 384, 48, 128)):
        yield Layer("googlenet", 8, size, inside, one, 1)
        yield Layer("googlenet", 8, size, inside, thin, 1)
        yield Layer("googlenet", 8, size, reduced, three, 3, 1, 1)
        yield Layer("googlenet", 8, size, thin, five, 5, 1, 2)


def _resnets() -> Iterator[Layer]:
    for batch in (1, 8):
        yield Layer("resnet18", batch, 224, 3, 64, 7, 2, 3)
        yield Layer("resnet18", batch, 56, 64, 64, 3, 1, 1)
    yield Layer("resnet18", 3, 56, 64, 128, 3, 2, 1)
    yield Layer("resnet18", 3, 28, 128, 128, 3, 1, 1)
    yield Layer("resnet18", 1, 14, 256, 256, 3, 1, 1)
    yield Layer("resnet18", 8, 7, 512, 512, 3, 1, 1)
    yield Layer("resnet50", 1, 56, 64, 256, 1)
    yield Layer("resnet50", 3, 56, 256, 64, 1)
    yield Layer("resnet50", 3, 56, 256, 512, 1, 2)
    yield Layer("resnet50", 1, 28, 256, 256, 3, 2, 1)
    yield Layer("resnet50", 32, 14, 1024, 256, 1)
    yield Layer("resnet50", 1, 7, 512, 2048, 1)


def _resnext50() -> Iterator[Layer]:
    yield Layer("resnext50", 8, 56, 128, 128, 3, 1, 1, 32)
    yield Layer("resnext50", 8, 28, 512, 512, 3, 2, 1, 32)
    yield Layer("resnext50", 8, 14, 512, 512, 3, 1, 1, 32)


def _odd() -> Iterator[Layer]:
    """Sizes that divide by nothing."""
    yield Layer("odd", 32, 27, 48, 80, 3, 2, 1)
    yield Layer("odd", 3, 55, 24, 40, 3, 1, 1)
    yield Layer("odd", 129, 13, 20, 36, 3, 1, 1)
    yield Layer("odd", 1, 27, 33, 65, 5, 1, 2)
    yield Layer("odd", 129, 13, 96, 24, 1)


LAYERS = (*_lenet5(), *_resnet20(), *_dcgan(), *_alexnet(), *_vgg16(), *_googlenet(), *_resnets(), *_resnext50(),
          *_odd())
