"""Every decomposition computes what the whole op's reference says."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.dtypes import bfloat16, float16, float32, float64
from graphc.ir.evaluate import evaluate
from graphc.ir.verify import verify
from graphc.ops.base import NotLowered, Op
from graphc.passes.decompose import decompose
from tests.ops.cases import TENSOR_OPS, draw, function_of, generator, symbolic

_EPS = {float16: 2.0 ** -10, bfloat16: 2.0 ** -7, float32: 2.0 ** -23, float64: 2.0 ** -52}


@pytest.mark.parametrize("op", [op for op in TENSOR_OPS if op.decompose is not None], ids=lambda op: op.name)
@pytest.mark.parametrize("sizes", ["numbers", "symbols"])
def test_decomposition_equals_the_reference(op: Op, sizes: str) -> None:
    for number, sample in enumerate(op.samples()):
        types = sample.types if sizes == "numbers" else symbolic(sample)[0]
        whole = function_of(op, types, sample.attrs)
        parts = verify(decompose(whole))
        for node in parts.nodes:
            assert node.op.decompose is None or not isinstance(node.op.lower, NotLowered), node.op.name
        arrays = draw(sample, generator(op.name, number))
        for got, want, value in zip(evaluate(parts, arrays)[0], evaluate(whole, arrays)[0], whole.fetches, strict=True):
            if value.tensor.dtype.is_floating:
                scale = max(1.0, float(np.max(np.abs(want), initial=0.0)))
                np.testing.assert_allclose(got, want, rtol=0, atol=sample.ulp * _EPS[value.tensor.dtype] * scale)
            else:
                np.testing.assert_array_equal(got, want)
