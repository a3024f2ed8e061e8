"""Inputs for the ops' samples, and one op as a Function of the IR: what every test of the registry shares."""
from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

import graphc.ops  # noqa: F401  (fills the registry)
from graphc import dtypes
from graphc.ir import dim, infer
from graphc.ir.function import Builder, Function, Value
from graphc.ir.types import TensorType
from graphc.ops.base import Kind, Op, Sample, all_ops

Array = np.ndarray[Any, Any]

OPS = [op for op in all_ops().values() if op.kind not in (Kind.STRUCTURED, Kind.HOST)]
TENSOR_OPS = [op for op in OPS if op.kind is not Kind.STATE]
SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-30)


def generator(*key: Any) -> np.random.Generator:
    """A generator that depends on the test, not on the order of tests."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def draw(sample: Sample, rng: np.random.Generator, special: bool = False) -> list[Array]:
    """Arrays for the inputs of a sample, in the form they have outside."""
    out = []
    for i, t in enumerate(sample.types):
        given = sample.arrays.get(i)
        out.append(_drawn(t, sample, rng, special and sample.special) if given is None
                   else rounded(np.asarray(given), t.dtype))
    return out


def _drawn(t: TensorType, sample: Sample, rng: np.random.Generator, special: bool) -> Array:
    shape = tuple(int(n) for n in t.shape)
    if t.dtype.is_bool:
        return rng.integers(0, 2, shape).astype(bool)
    low, high = sample.domain
    if t.dtype.is_integer:
        low = max(low, 0.0) if t.dtype.is_unsigned else low
        return rng.integers(int(np.ceil(low)), int(np.floor(high)) + 1, shape).astype(t.dtype.as_numpy_dtype)
    values = np.asarray(rng.uniform(low, high, shape))
    if special and values.size:
        at = rng.integers(0, values.size, 3)
        values.reshape(-1)[at] = rng.choice(SPECIAL, 3)
    return rounded(values, t.dtype)


def rounded(values: Array, dtype: dtypes.DType) -> Array:
    """Float values as an array of `dtype`."""
    if dtype is dtypes.bfloat16:
        return dtypes.round_to_bfloat16(values.astype(np.float32))
    return values.astype(dtype.as_numpy_dtype)


def function_of(op: Op, types: Sequence[TensorType], attrs: Any) -> Function:
    """The Function that applies `op` once to its feeds."""
    feeds = tuple(Value(t) for t in types)
    builder = Builder(infer.types)
    node = builder.add(op, feeds, dict(attrs), (op.name,))
    names = tuple(f"x{i}" for i in range(len(feeds)))
    return Function("f", feeds, tuple(builder.nodes), node.outputs, feed_names=names,
                    fetch_names=tuple(f"y{i}" for i in range(len(node.outputs))))


def symbolic(sample: Sample) -> tuple[tuple[TensorType, ...], dict[str, int]]:
    """The sample's types with every size above 3 as a symbol, equal sizes the same one; and the symbols' numbers.

    Counters keep their size, which the ops know.
    """
    sizes = sorted({n for t in sample.types for n in t.shape if isinstance(n, int) and n > 3})
    symbols = {n: dim.symbol(f"n{i}") for i, n in enumerate(sizes)}
    types = tuple(t if t.dtype is dtypes.uint64 and t.shape == (3,) else
                  TensorType(t.dtype, tuple(symbols.get(n, n) if isinstance(n, int) else n for n in t.shape))
                  for t in sample.types)
    return types, {d.name: n for n, d in symbols.items()}

