"""The work that graphc and its peers are measured on: weights, batches and the models, written once over a set of ops.

A peer supplies the ops as an object `F` with: matmul(a, b, transpose_b=False), relu, tanh, sigmoid, exp, square,
softplus, softmax (last axis), maximum(x, number), mean (of all), normalise(x, scale, offset) (layer norm over the
last axis, epsilon 1e-5), cross_entropy(logits, labels) (mean over rows), binary_cross_entropy(logits, labels) (mean),
reshape(x, shape), swap(x, axes) (transpose), constant(x) (no gradient). Plain + - * work on its tensors.  Everything
is float32, labels int32, seeded by the workload's name.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
BATCHES = 4  # that the steps cycle through


@dataclass(frozen=True)
class Workload:
    """kind: "train" (losses, each updating the parameters of one prefix), "infer" (parameters that do not change,
    inputs fed, output fetched), "kernel" (resident inputs, output kept) or "overhead".

    losses: (function of F, parameters, batch; prefix of the parameters updated; names of the arrays fed).
    optimizer: ("sgd", rate), ("momentum", rate, momentum) or
    ("adam", rate, beta1).  flops, bytes: of one step, where they mean something.
    limit: most steps timed (moments of idle units decay into denormals after very many steps on few batches).
    """

    name: str
    kind: str
    parameters: Arrays
    batches: list[Arrays]
    losses: list[tuple[Callable[..., Any], str, tuple[str, ...]]] = field(default_factory=list)
    function: Callable[..., Any] | None = None
    optimizer: tuple[Any, ...] = ()
    flops: float = 0.0
    bytes: float = 0.0
    limit: int = 0


def layers(F: Any, p: Arrays, x: Any, count: int, prefix: str = "", last: bool = False) -> Any:
    """`count` dense layers, ReLU between them (and after the last where `last`)."""
    for i in range(1, count + 1):
        x = F.matmul(x, p[f"{prefix}w{i}"]) + p[f"{prefix}b{i}"]
        x = F.relu(x) if i < count or last else x
    return x


def _logistic(F: Any, p: Any, b: Any) -> Any:
    return F.binary_cross_entropy(F.reshape(F.matmul(b["x"], p["w1"]) + p["b1"], (-1,)), b["y"])


def _classifier(count: int) -> Callable[..., Any]:
    return lambda F, p, b: F.cross_entropy(layers(F, p, b["x"], count), b["y"])


def _generated(F: Any, p: Any, z: Any) -> Any:
    return F.sigmoid(layers(F, p, z, 2, "g_"))


def _discriminator_loss(F: Any, p: Any, b: Any) -> Any:
    fake = layers(F, p, F.constant(_generated(F, p, b["z"])), 2, "d_")
    return F.mean(F.softplus(-layers(F, p, b["x"], 2, "d_"))) + F.mean(F.softplus(fake))


def _generator_loss(F: Any, p: Any, b: Any) -> Any:
    return F.mean(F.softplus(-layers(F, p, _generated(F, p, b["z"]), 2, "d_")))


def _encoder_loss(F: Any, p: Any, b: Any, heads: int = 4, time: int = 128, width: int = 256) -> Any:
    """One pre-norm transformer block against a target (Vaswani et al., 2017), tanh-GELU inside."""

    def project(x: Any, name: str, inner: int, outer: int) -> Any:
        y = F.matmul(F.reshape(x, (-1, inner)), p["w" + name]) + p["b" + name]
        return F.reshape(y, (-1, time, outer))

    def split(x: Any) -> Any:
        return F.swap(F.reshape(x, (-1, time, heads, width // heads)), (0, 2, 1, 3))

    h = F.normalise(b["x"], p["s1"], p["o1"])
    q, k, v = (split(project(h, n, width, width)) for n in "qkv")
    weights = F.softmax(F.matmul(q, k, transpose_b=True) * float((width // heads) ** -0.5))
    mixed = F.reshape(F.swap(F.matmul(weights, v), (0, 2, 1, 3)), (-1, time, width))
    x = b["x"] + project(mixed, "m", width, width)
    h = project(F.normalise(x, p["s2"], p["o2"]), "1", width, 4 * width)
    h = h * 0.5 * (F.tanh((h + h * h * h * 0.044715) * 0.7978845608028654) + 1.0)
    return F.mean(F.square(x + project(h, "2", 4 * width, width) - b["r"]))


def _elementwise(F: Any, p: Any, b: Any) -> Any:
    t = F.tanh(b["x"] * 1.5 + 0.25)
    e = F.maximum(F.exp(t * -0.5) * b["x"], 0.0) + 0.1
    return e * e - t


class Draw:
    """Arrays drawn from a generator seeded by a name."""

    def __init__(self, name: str) -> None:
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def normal(self, *shape: int, std: float = 1.0) -> np.ndarray:
        return self.rng.standard_normal(shape, dtype=np.float32) * np.float32(std)

    def uniform(self, *shape: int) -> np.ndarray:
        return self.rng.random(shape, dtype=np.float32)

    def classes(self, count: int, *shape: int) -> np.ndarray:
        return self.rng.integers(0, count, shape).astype(np.int32)

    def dense(self, sizes: tuple[int, ...], prefix: str = "") -> Arrays:
        out: Arrays = {}
        for i, (a, b) in enumerate(itertools.pairwise(sizes), 1):
            out[f"{prefix}w{i}"], out[f"{prefix}b{i}"] = self.normal(a, b, std=(2 / a) ** 0.5), np.zeros(b, np.float32)
        return out


def load(name: str) -> Workload:
    """Return the workload called `name`.  Raises KeyError."""
    d = Draw(name)

    def labelled(rows: int, features: int) -> list[Arrays]:
        return [{"x": d.uniform(rows, features), "y": d.classes(10, rows)} for _ in range(BATCHES)]

    match name:
        case "session_overhead":
            return Workload(name, "overhead", {}, [{"x": np.float32(3.0)}])
        case "logreg_tiny":
            batches = [{"x": d.normal(32, 30), "y": d.classes(2, 32).astype(np.float32)} for _ in range(BATCHES)]
            return Workload(
                name, "train", d.dense((30, 1)), batches, [(_logistic, "", ("x", "y"))], optimizer=("sgd", 0.1)
            )
        case "mlp_small":
            return Workload(
                name,
                "train",
                d.dense((784, 128, 10)),
                labelled(32, 784),
                [(_classifier(2), "", ("x", "y"))],
                optimizer=("sgd", 0.1),
            )
        case "mlp":
            return Workload(
                name,
                "train",
                d.dense((784, 512, 256, 10)),
                labelled(128, 784),
                [(_classifier(3), "", ("x", "y"))],
                optimizer=("adam", 1e-3, 0.9),
                limit=500,
            )
        case "gan":
            parameters = d.dense((100, 128, 784), "g_") | d.dense((784, 128, 1), "d_")
            batches = [{"x": d.uniform(128, 784), "z": d.normal(128, 100)} for _ in range(BATCHES)]
            return Workload(
                name,
                "train",
                parameters,
                batches,
                [(_discriminator_loss, "d_", ("x", "z")), (_generator_loss, "g_", ("z",))],
                optimizer=("adam", 2e-4, 0.5),
                limit=500,
            )
        case "attention":
            parameters = {f"s{i}": np.ones(256, np.float32) for i in (1, 2)} | {
                f"o{i}": np.zeros(256, np.float32) for i in (1, 2)
            }
            for n, a, b in (
                ("q", 256, 256),
                ("k", 256, 256),
                ("v", 256, 256),
                ("m", 256, 256),
                ("1", 256, 1024),
                ("2", 1024, 256),
            ):
                parameters["w" + n], parameters["b" + n] = d.normal(a, b, std=a**-0.5), np.zeros(b, np.float32)
            batches = [{"x": d.normal(8, 128, 256), "r": d.normal(8, 128, 256)} for _ in range(BATCHES)]
            return Workload(
                name, "train", parameters, batches, [(_encoder_loss, "", ("x", "r"))], optimizer=("sgd", 0.1), limit=300
            )
        case "elementwise":
            return Workload(name, "kernel", {}, [{"x": d.normal(10_000_000)}], function=_elementwise, bytes=80e6)
        case "softmax_layernorm":
            arrays = {"x": d.normal(8192, 1024), "s": d.uniform(1024), "o": d.normal(1024)}
            return Workload(
                name,
                "kernel",
                {},
                [arrays],
                function=lambda F, p, b: F.normalise(F.softmax(b["x"]), b["s"], b["o"]),
                bytes=2 * 4 * 8192 * 1024,
            )
        case "matmul256" | "matmul1024":
            n = int(name[6:])
            return Workload(
                name,
                "kernel",
                {},
                [{"x": d.normal(n, n), "y": d.normal(n, n)}],
                function=lambda F, p, b: F.matmul(b["x"], b["y"]),
                flops=2.0 * n**3,
            )
        case _:
            raise KeyError(name)


NAMES = (
    "session_overhead",
    "logreg_tiny",
    "mlp_small",
    "mlp",
    "gan",
    "attention",
    "elementwise",
    "softmax_layernorm",
    "matmul256",
    "matmul1024",
)
