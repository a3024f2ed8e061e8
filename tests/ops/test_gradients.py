"""Gradients of every op against finite differences along random directions, in float64, to second order."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from graphc.autodiff import densify, gradients
from graphc.dtypes import float64
from graphc.graph.graph import Graph
from graphc.graph.tensor import IndexedSlices, Tensor
from graphc.ir.evaluate import evaluate
from graphc.ir.types import TensorType
from graphc.ops import build as b
from graphc.ops.base import Kind, NoGradient, Op, Sample
from graphc.passes.extract import extract
from tests.ops.cases import OPS, Array, draw, generator

_STEP = 1e-5
_FIRST_ORDER_ONLY = {"Trigamma", "Digamma"}  # what follows has no op


def differentiable_samples(op: Op) -> list[Sample]:
    """The op's samples with every float as float64, each once."""
    found: dict[str, Sample] = {}
    for s in op.samples():
        if not s.differentiable or not any(t.dtype.is_floating for t in s.types):
            continue
        types = tuple(TensorType(float64 if t.dtype.is_floating else t.dtype, t.shape) for t in s.types)
        attrs = {k: float64 if k == "dtype" else v for k, v in s.attrs.items()}
        arrays = {i: a.astype(np.float64) if s.types[i].dtype.is_floating else a for i, a in s.arrays.items()}
        found.setdefault(repr((types, attrs, arrays)), Sample(types, attrs, arrays, s.domain))
    return list(found.values())


def value(tensors: Sequence[Tensor], feeds: dict[Tensor, Array]) -> list[Array]:
    return evaluate(extract(tensors, tuple(feeds)), list(feeds.values()))[0]


def dense(g: Tensor | IndexedSlices | None, like: Tensor) -> Tensor:
    if g is None:
        return b.zeros_like(like)
    return densify(g) if isinstance(g, IndexedSlices) else g


def weighted(outputs: Sequence[Tensor], rng: np.random.Generator) -> Tensor:
    """A scalar that depends on every float output: the sum of outputs times random numbers, squared to bend it."""
    parts = []
    for y in outputs:
        if y.dtype.is_floating:
            shape = b.static_shape(y)
            assert shape is not None
            weights = b.constant(rng.uniform(0.5, 1.5, shape), float64)
            parts.append(b.op("Sum", b.mul(weights, b.op("Square", y)), tuple(range(len(shape)))))
    total: Tensor = b.op("AddN", *parts)
    return total


def slope(loss: Tensor, xs: Sequence[Tensor], feeds: dict[Tensor, Array], direction: Sequence[Array]) -> float:
    """The derivative along `direction`, by a central difference."""
    ends = []
    for sign in (1, -1):
        moved = dict(feeds)
        for x, d in zip(xs, direction, strict=True):
            moved[x] = feeds[x] + sign * _STEP * d
        ends.append(float(value([loss], moved)[0]))
    return (ends[0] - ends[1]) / (2 * _STEP)


@pytest.mark.parametrize("op", [op for op in OPS if not isinstance(op.gradient, NoGradient) and
                                op.kind is not Kind.STATE and op.name not in ("StopGradient", "PreventGradient")],
                         ids=lambda op: op.name)
def test_gradient(op: Op) -> None:
    for number, sample in enumerate(differentiable_samples(op)):
        rng = generator(op.name, number)
        arrays = draw(sample, rng)
        graph = Graph()
        with graph.as_default():
            inputs = [b.op("Placeholder", dtype=t.dtype, shape=t.shape) for t in sample.types]
            feeds = dict(zip(inputs, arrays, strict=True))
            made = graph.create_op(op.name, inputs, sample.attrs)
            loss = weighted(made.outputs, rng)
            xs = [x for x in inputs if x.dtype.is_floating]
            grads = [dense(g, x) for g, x in zip(gradients(loss, xs), xs, strict=True)]
            for g, x in zip(grads, xs, strict=True):
                assert g.type.shape == x.type.shape
            direction = [rng.standard_normal(feeds[x].shape) for x in xs]
            want = slope(loss, xs, feeds, direction)
            found = value(grads, feeds)
            got = sum(float(np.sum(g * d)) for g, d in zip(found, direction, strict=True))
            assert got == pytest.approx(want, rel=2e-6, abs=2e-6), (op.name, sample)
            if op.name in _FIRST_ORDER_ONLY:
                continue
            flow = b.op("AddN", *(b.op("Sum", b.mul(g, b.constant(rng.uniform(0.5, 1.5, feeds[x].shape), float64)),
                                       tuple(range(feeds[x].ndim))) for g, x in zip(grads, xs, strict=True)))
            second = [dense(g, x) for g, x in zip(gradients(flow, xs), xs, strict=True)]
            want = slope(flow, xs, feeds, direction)
            got = sum(float(np.sum(g * d)) for g, d in zip(value(second, feeds), direction, strict=True))
            assert got == pytest.approx(want, rel=2e-5, abs=2e-5), ("second order", op.name, sample)
