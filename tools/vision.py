"""The convolutional work that graphc and its peers are measured on, over the same ops as workloads.py and more.

A peer adds to `F`: conv(x, w, stride, pad, bias=None) (w: height, width, in, out; zeros on both sides), up(x, w,
bias=None) (transposed 4 x 4, stride 2, doubling; w: height, width, out, in), max_pool(x, size, stride, pad),
batch_norm(x, scale, offset) and frozen_norm(x, scale, offset, mean, variance) (epsilon 1e-3), spatial_mean(x),
flatten(x) (height, width, channels), image(x, height, width, channels) (of rows), leaky(x) (slope 0.2).  Images are
(rows, height, width, channels).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from workloads import BATCHES, Arrays, Draw, Workload

ALEXNET = ((11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256))
RESNETS = {"resnet18": ((2, 2, 2, 2), False, 64), "resnet50": ((3, 4, 6, 3), True, 64),
           "resnet20": ((3, 3, 3), False, 16)}
"""(blocks of each stage, bottlenecks?, filters of the first stage)."""


def _lenet5(F: Any, p: Any, b: Any) -> Any:
    x = F.max_pool(F.relu(F.conv(b["x"], p["w1"], 1, 2, p["b1"])), 2, 2, 0)
    x = F.max_pool(F.relu(F.conv(x, p["w2"], 1, 0, p["b2"])), 2, 2, 0)
    x = F.relu(F.matmul(F.flatten(x), p["w3"]) + p["b3"])
    x = F.relu(F.matmul(x, p["w4"]) + p["b4"])
    return F.cross_entropy(F.matmul(x, p["w5"]) + p["b5"], b["y"])


def _generated(F: Any, p: Any, z: Any) -> Any:
    x = F.relu(F.batch_norm(F.image(F.matmul(z, p["g_w1"]), 7, 7, 128), p["g_s1"], p["g_o1"]))
    x = F.relu(F.batch_norm(F.up(x, p["g_w2"]), p["g_s2"], p["g_o2"]))
    return F.tanh(F.up(x, p["g_w3"], p["g_b3"]))


def _judged(F: Any, p: Any, x: Any) -> Any:
    x = F.leaky(F.conv(x, p["d_w1"], 2, 1, p["d_b1"]))
    x = F.leaky(F.batch_norm(F.conv(x, p["d_w2"], 2, 1), p["d_s2"], p["d_o2"]))
    return F.matmul(F.flatten(x), p["d_w3"]) + p["d_b3"]


def _discriminator_loss(F: Any, p: Any, b: Any) -> Any:
    fake = _judged(F, p, F.constant(_generated(F, p, b["z"])))
    return F.mean(F.softplus(-_judged(F, p, b["x"]))) + F.mean(F.softplus(fake))


def _generator_loss(F: Any, p: Any, b: Any) -> Any:
    return F.mean(F.softplus(-_judged(F, p, _generated(F, p, b["z"]))))


def _alexnet(F: Any, p: Any, b: Any) -> Any:
    x = F.max_pool(F.relu(F.conv(b["x"], p["w1"], 4, 2, p["b1"])), 3, 2, 0)
    x = F.max_pool(F.relu(F.conv(x, p["w2"], 1, 2, p["b2"])), 3, 2, 0)
    for i in (3, 4, 5):
        x = F.relu(F.conv(x, p[f"w{i}"], 1, 1, p[f"b{i}"]))
    x = F.flatten(F.max_pool(x, 3, 2, 0))
    for i in (6, 7):
        x = F.relu(F.matmul(x, p[f"w{i}"]) + p[f"b{i}"])
    return F.matmul(x, p["w8"]) + p["b8"]


def _blocks(name: str) -> Iterator[tuple[str, int, int, int, int]]:
    """(name, channels in, filters, channels out, stride) of every residual block."""
    counts, neck, filters = RESNETS[name]
    inside = filters
    for stage, count in enumerate(counts):
        for block in range(count):
            width = filters << stage
            outside = width * (4 if neck else 1)
            yield f"s{stage}b{block}", inside, width, outside, 2 if stage and not block else 1
            inside = outside


def _resnet(name: str, F: Any, p: Any, b: Any) -> Any:
    _, neck, _ = RESNETS[name]
    frozen = name != "resnet20"

    def normalised(x: Any, layer: str, stride: int, pad: int) -> Any:
        x = F.conv(x, p[layer + "w"], stride, pad)
        if frozen:
            return F.frozen_norm(x, *(p[layer + k] for k in "somv"))
        return F.batch_norm(x, p[layer + "s"], p[layer + "o"])

    if frozen:
        x = F.max_pool(F.relu(normalised(b["x"], "stem", 2, 3)), 3, 2, 1)
    else:
        x = F.relu(normalised(b["x"], "stem", 1, 1))
    for n, inside, _, outside, stride in _blocks(name):
        if neck:
            y = F.relu(normalised(x, n + "a", 1, 0))
            y = normalised(F.relu(normalised(y, n + "b", stride, 1)), n + "c", 1, 0)
        else:
            y = normalised(F.relu(normalised(x, n + "a", stride, 1)), n + "b", 1, 1)
        shortcut = normalised(x, n + "p", stride, 0) if stride != 1 or inside != outside else x
        x = F.relu(y + shortcut)
    logits = F.matmul(F.spatial_mean(x), p["w"]) + p["b"]
    return logits if frozen else F.cross_entropy(logits, b["y"])


def _filters(d: Draw, size: int, inside: int, outside: int) -> np.ndarray:
    return d.normal(size, size, inside, outside, std=(2 / (size * size * inside)) ** 0.5)


def _resnet_parameters(d: Draw, name: str, stem: int, classes: int) -> Arrays:
    _, neck, first = RESNETS[name]
    p: Arrays = {}

    def layer(key: str, size: int, inside: int, outside: int) -> None:
        p[key + "w"] = _filters(d, size, inside, outside)
        if name == "resnet20":
            p[key + "s"], p[key + "o"] = np.ones(outside, np.float32), np.zeros(outside, np.float32)
        else:
            p[key + "s"], p[key + "v"] = (0.75 + 0.5 * d.uniform(outside) for _ in range(2))
            p[key + "o"], p[key + "m"] = (d.normal(outside, std=0.1) for _ in range(2))

    layer("stem", stem, 3, first)
    outside = first
    for n, inside, width, outside, stride in _blocks(name):
        if neck:
            layer(n + "a", 1, inside, width)
            layer(n + "b", 3, width, width)
            layer(n + "c", 1, width, outside)
        else:
            layer(n + "a", 3, inside, width)
            layer(n + "b", 3, width, width)
        if stride != 1 or inside != outside:
            layer(n + "p", 1, inside, outside)
    p["w"], p["b"] = d.normal(outside, classes, std=outside ** -0.5), np.zeros(classes, np.float32)
    return p


def load(name: str) -> Workload:
    """Return the workload called `name`, one of NAMES."""
    d = Draw(name)
    if name == "lenet5":
        p = {"w1": _filters(d, 5, 1, 6), "w2": _filters(d, 5, 6, 16), "b1": np.zeros(6, np.float32),
             "b2": np.zeros(16, np.float32)}
        for i, (a, b) in enumerate(((400, 120), (120, 84), (84, 10)), 3):
            p[f"w{i}"], p[f"b{i}"] = d.normal(a, b, std=(2 / a) ** 0.5), np.zeros(b, np.float32)
        batches = [{"x": d.uniform(128, 28, 28, 1), "y": d.classes(10, 128)} for _ in range(BATCHES)]
        return Workload(name, "train", p, batches, [(_lenet5, "", ("x", "y"))], optimizer=("momentum", 0.01, 0.9),
                        limit=500)
    if name == "dcgan":
        p = {"g_w1": d.normal(100, 6272, std=0.1), "g_w2": d.normal(4, 4, 64, 128, std=0.02),
             "g_w3": d.normal(4, 4, 1, 64, std=0.05), "g_b3": np.zeros(1, np.float32),
             "d_w1": _filters(d, 4, 1, 64), "d_b1": np.zeros(64, np.float32), "d_w2": _filters(d, 4, 64, 128),
             "d_w3": d.normal(6272, 1, std=6272 ** -0.5), "d_b3": np.zeros(1, np.float32)}
        for key, count in (("g_%s1", 128), ("g_%s2", 64), ("d_%s2", 128)):
            p[key % "s"], p[key % "o"] = np.ones(count, np.float32), np.zeros(count, np.float32)
        batches = [{"x": d.uniform(64, 28, 28, 1) * 2 - 1, "z": d.normal(64, 100)} for _ in range(BATCHES)]
        losses = [(_discriminator_loss, "d_", ("x", "z")), (_generator_loss, "g_", ("z",))]
        return Workload(name, "train", p, batches, losses, optimizer=("adam", 2e-4, 0.5), limit=500)
    if name == "resnet_cifar":
        batches = [{"x": d.uniform(64, 32, 32, 3), "y": d.classes(10, 64)} for _ in range(BATCHES)]
        return Workload(name, "train", _resnet_parameters(d, "resnet20", 3, 10), batches,
                        [(lambda F, p, b: _resnet("resnet20", F, p, b), "", ("x", "y"))],
                        optimizer=("momentum", 0.05, 0.9), limit=300)
    network, rows = name.split("_b")
    images = [{"x": d.normal(int(rows), 224, 224, 3)} for _ in range(2)]
    if network == "alexnet":
        p = {}
        for i, sizes in enumerate(ALEXNET, 1):
            p[f"w{i}"], p[f"b{i}"] = _filters(d, *sizes), np.zeros(sizes[2], np.float32)
        for i, (a, b) in enumerate(((9216, 4096), (4096, 4096), (4096, 1000)), 6):
            p[f"w{i}"], p[f"b{i}"] = d.normal(a, b, std=(2 / a) ** 0.5), np.zeros(b, np.float32)
        return Workload(name, "infer", p, images, function=_alexnet)
    return Workload(name, "infer", _resnet_parameters(d, network, 7, 1000), images,
                    function=lambda F, p, b: _resnet(network, F, p, b))


NAMES = ("lenet5", "dcgan", "resnet_cifar", "alexnet_b1", "alexnet_b16", "resnet18_b1", "resnet50_b1")
