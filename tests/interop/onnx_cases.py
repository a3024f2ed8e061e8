"""One op as an ONNX file, run by onnxruntime and compared with the oracle: what the tests of the table share."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType, bfloat16, float32
from graphc.ir import dim, infer
from graphc.ir.function import Builder, Function, SymbolSource, Value
from graphc.ir.types import TensorType
from graphc.ops.base import Op, Sample, lookup

Array = np.ndarray[Any, Any]

TOLERANCE: Mapping[DType, float] = {dtypes.float64: 1e-9, dtypes.float32: 1e-5, dtypes.float16: 3e-3, bfloat16: 2e-2}
"""Of each element, and of a result's largest magnitude (at least 1): some units in the last place of each type."""

WITHOUT_KERNEL: Mapping[str, frozenset[str]] = {
    "float64": frozenset(("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "Conv", "ConvTranspose",
                          "Cosh", "Elu", "Erf", "LRN", "LeakyRelu", "Selu", "Sinh", "Softplus", "Softsign", "Tan")),
    "uint64": frozenset(("ArgMax", "ArgMin", "ReduceMax", "ReduceMin"))}
"""Operators that onnxruntime's CPU has no kernel for in these types: such files are valid, but not run there."""


class NoKernel(Exception):
    """onnxruntime's CPU has no kernel for an operator; the message is the operator."""


def one_op(op: Op, types: Sequence[TensorType], attrs: Mapping[str, Any]) -> tuple[Function, list[DType]]:
    """The function that applies `op` once, and the dtypes it gives.

    bfloat16, which NumPy has not, is fed and fetched as float32.  Sizes that are symbols come from the feeds' axes.
    """
    feeds = tuple(Value(TensorType(float32, t.shape) if t.dtype is bfloat16 else t) for t in types)
    builder = Builder(infer.types)
    inputs = [builder.add(lookup("Cast"), (v,), {"dtype": t.dtype}).output if t.dtype is bfloat16 else v
              for v, t in zip(feeds, types, strict=True)]
    node = builder.add(op, inputs, dict(attrs), (op.name,))
    results = tuple(builder.add(lookup("Cast"), (v,), {"dtype": float32}).output if v.tensor.dtype is bfloat16 else v
                    for v in node.outputs)
    sources: dict[str, SymbolSource] = {}
    for i, t in enumerate(types):
        for axis, n in enumerate(t.shape):
            if isinstance(n, dim.Dim) and n.is_symbol:
                sources.setdefault(n.name, SymbolSource(n.name, i, axis))
    function = Function(
        "f", feeds, tuple(builder.nodes), results, feed_names=tuple(f"x{i}" for i in range(len(feeds))),
        fetch_names=tuple(f"y{i}" for i in range(len(results))), sources=tuple(sources.values()))
    return function, [v.tensor.dtype for v in node.outputs]


def in_range(op: Op, sample: Sample) -> Sample:
    """The sample; of Cast, whose results out of range ONNX leaves open, with numbers that every type holds."""
    return Sample(sample.types, sample.attrs, sample.arrays, (0.0, 90.0)) if op.name == "Cast" else sample


def open_model(model: Any) -> Any:
    """A session of onnxruntime.  Raises NoKernel."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as lacking:
        found = re.search(r"implementation for (\w+)", str(lacking))
        assert found is not None, lacking
        raise NoKernel(found[1]) from None


def run(model: Any, arrays: Sequence[Array]) -> list[Array]:
    """The results of a model for inputs x0, x1 ...  Raises NoKernel."""
    names = [i.name for i in model.graph.input]
    return list(open_model(model).run(None, {f"x{i}": a for i, a in enumerate(arrays) if f"x{i}" in names}))


def check(got: Sequence[Array], wanted: Sequence[Array], given: Sequence[DType], what: str) -> None:
    """Fail where results are not the oracle's."""
    assert len(got) == len(wanted), what
    for a, b, dtype in zip(got, wanted, given, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, f"{what}: {a.dtype}{a.shape}, expected {b.dtype}{b.shape}"
        if not dtype.is_floating:
            np.testing.assert_array_equal(a, b, err_msg=what)
            continue
        largest = np.max(np.abs(b[np.isfinite(b)]), initial=1.0)
        limit = TOLERANCE[dtype]
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=limit, atol=limit * largest,
                                   err_msg=what)
