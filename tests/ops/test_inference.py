"""Every op, every sample: what inference says is what the reference gives, for known sizes and for symbols."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.dtypes import bool_, int64
from graphc.errors import DTypeError, ShapeError
from graphc.ir import dim
from graphc.ir.evaluate import apply, evaluate
from graphc.ir.types import TensorType
from graphc.ops.base import Kind, NoGradient, NotLowered, Op
from tests.ops.cases import OPS, TENSOR_OPS, draw, function_of, generator, symbolic


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_entry_is_complete(op: Op) -> None:
    assert op.doc.strip() and not op.doc.startswith(" ")
    assert all(i < len(op.inputs) for i in op.static)
    assert all(attr in op.attrs for attr in op.static.values())
    if isinstance(op.gradient, NoGradient):
        assert op.gradient.reason
    if op.decompose is None and isinstance(op.lower, NotLowered):
        assert op.kind in (Kind.SOURCE, Kind.STATE), "it neither lowers nor decomposes"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_has_samples(op: Op) -> None:
    without = {"Placeholder", "VariableV2", "IsVariableInitialized", "ScatterUpdate", "ScatterAdd", "ScatterSub",
               "NoOp"}
    assert (op.name in without) == (not list(op.samples()))


@pytest.mark.parametrize("op", TENSOR_OPS, ids=lambda op: op.name)
def test_reference_has_the_inferred_types(op: Op) -> None:
    for number, sample in enumerate(op.samples()):
        arrays = draw(sample, generator(op.name, number), special=True)
        function = function_of(op, sample.types, sample.attrs)
        results = apply(op, arrays, sample.types, function.nodes[0].attrs, [v.tensor for v in function.fetches])
        for array, value in zip(results, function.fetches, strict=True):
            assert array.shape == value.tensor.shape, (sample, value.type)
            assert array.dtype == value.tensor.dtype.as_numpy_dtype


@pytest.mark.parametrize("op", TENSOR_OPS, ids=lambda op: op.name)
def test_symbols_infer_as_numbers_do(op: Op) -> None:
    """With sizes as symbols the types are those of the numbers, after substitution."""
    for sample in op.samples():
        types, numbers = symbolic(sample)
        known = function_of(op, sample.types, sample.attrs)
        if op.name == "Squeeze" and not sample.attrs["axis"] and numbers:
            with pytest.raises(ShapeError, match="not known before the run"):
                function_of(op, types, sample.attrs)
            continue
        unknown = function_of(op, types, known.nodes[0].attrs)
        for a, b in zip(unknown.fetches, known.fetches, strict=True):
            assert tuple(dim.evaluate(n, numbers) for n in a.tensor.shape) == b.tensor.shape, sample


@pytest.mark.parametrize("op", [op for op in TENSOR_OPS if op.canonical is not None], ids=lambda op: op.name)
def test_canonical_attrs_are_canonical_and_keep_the_meaning(op: Op) -> None:
    assert op.canonical is not None
    for number, sample in enumerate(op.samples()):
        attrs = {**op.attrs, **sample.attrs}
        once = dict(op.canonical(attrs, sample.types))
        assert dict(op.canonical(once, sample.types)) == once
        arrays = draw(sample, generator(op.name, number))
        types = [v.tensor for v in function_of(op, sample.types, sample.attrs).fetches]
        for a, b in zip(apply(op, arrays, sample.types, attrs, types), apply(op, arrays, sample.types, once, types),
                        strict=True):
            np.testing.assert_array_equal(a, b)


def test_wrong_dtypes_and_shapes_are_refused() -> None:
    number, row, matrix = TensorType(int64, ()), TensorType(bool_, (2,)), TensorType(bool_, (2, 3))
    registry = {op.name: op for op in OPS}
    with pytest.raises(DTypeError, match="takes floats, but the input is int64"):
        function_of(registry["Exp"], [number], {})
    with pytest.raises(DTypeError, match="one dtype, not int64 and bool"):
        function_of(registry["Equal"], [number, row], {})
    with pytest.raises(ShapeError, match="do not broadcast"):
        function_of(registry["LogicalAnd"], [matrix, row], {})


@pytest.mark.parametrize("name", ["Add", "Softmax", "Mean", "Reshape"])
def test_a_function_of_one_op_evaluates(name: str) -> None:
    op = next(op for op in OPS if op.name == name)
    sample = list(op.samples())[4]
    arrays = draw(sample, generator(name))
    (result,), _ = evaluate(function_of(op, sample.types, sample.attrs), arrays)
    assert result.dtype == sample.types[0].dtype.as_numpy_dtype
