"""Random functions as ONNX files: what onnxruntime computes from them is what the oracle does, at several sizes."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.dtypes import float32
from graphc.interop.onnx import export_function
from graphc.ir import dim, infer
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Builder, Function, SymbolSource, Value
from graphc.ir.types import TensorType
from graphc.ops.base import lookup
from tests.interop.onnx_cases import open_model
from tests.ir.generate import functions, inputs

pytest.importorskip("onnx", reason="needs the [onnx] extra")
pytest.importorskip("onnxruntime", reason="needs the [test] extra")

EXAMPLES = settings(max_examples=60, deadline=None)
MANY = settings(max_examples=1500, deadline=None)


def check(function: Function, seeds: tuple[int, ...] = (1, 2, 3)) -> None:
    """Fail where the file's results are not the oracle's; the content of the states is that of the first seed."""
    f = function.replace(
        updates=function.states, feed_names=tuple(f"x{i}" for i in range(len(function.feeds))), conditions=(),
        state_names=tuple(f"v{i}" for i in range(len(function.states))),
        fetch_names=tuple(f"y{i}" for i in range(len(function.fetches))))
    _, states = inputs(f, seeds[0])
    session = open_model(export_function(f, dict(zip(f.state_names, states, strict=True))))
    for seed in seeds:
        feeds, _ = inputs(f, seed)
        wanted = evaluate(f, feeds, states)[0]
        got = session.run(None, {name: np.asarray(a) for name, a in zip(f.feed_names, feeds, strict=True)})
        for a, b in zip(got, wanted, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            if b.dtype.kind != "f":
                np.testing.assert_array_equal(a, b)
            else:
                with np.errstate(all="ignore"):
                    largest = np.max(np.abs(b[np.isfinite(b)]), initial=1.0)
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * largest)


@given(functions(float32, max_nodes=10, depth=0))
@EXAMPLES
def test_generated_functions(function: Function) -> None:
    check(function)


@pytest.mark.nightly
@given(functions(float32, max_nodes=20, depth=0))
@MANY
def test_many_generated_functions(function: Function) -> None:
    check(function)


# -- transposes that move ---------------------------------------------------------------------------------------------

N = dim.symbol("N")
IMAGE = (N, 4, 5, 3)
STEPS = ("transpose", "conv", "pool", "unary", "constant", "add", "reduce", "concat", "pad")


@st.composite
def images(draw: Callable[..., Any], most: int = 10) -> Function:
    """Operations on images between which transposes are moved and cancelled."""
    feed = Value(TensorType(float32, IMAGE))
    builder = Builder(infer.types)
    values: list[Value] = [feed]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))

    def add(op: str, *given: Value, **attrs: Any) -> None:
        values.append(builder.add(lookup(op), given, attrs, (f"{op}{len(builder.nodes)}",)).outputs[0])

    def constant(shape: tuple[int, ...]) -> Value:
        value = rng.standard_normal(shape).astype(np.float32)
        return builder.add(lookup("Const"), (), {"value": value, "dtype": float32}, ("c",)).output

    for _ in range(draw(st.integers(1, most))):
        x = draw(st.sampled_from(values))
        shape, rank = x.tensor.shape, x.tensor.rank
        fixed = [i for i, n in enumerate(shape) if isinstance(n, int)]
        match draw(st.sampled_from(STEPS)):
            case "transpose":
                add("Transpose", x, perm=tuple(draw(st.permutations(range(rank)))))
            case "conv" if rank == 4 and shape[0] == N:
                add("Conv2D", x, constant((2, 1, int(shape[3]), 3)), strides=(1, 1, 1, 1), padding="SAME")
            case "pool" if rank == 4 and shape[0] == N:
                add("MaxPool", x, ksize=(1, 2, 2, 1), strides=(1, 1, 1, 1), padding="SAME")
            case "unary":
                add(draw(st.sampled_from(("Relu", "Tanh", "Neg", "Relu6"))), x)
            case "constant":
                tail = tuple(int(n) if i in fixed and draw(st.booleans()) else 1 for i, n in enumerate(shape))
                add("Mul", x, constant(tail[draw(st.integers(0, rank)):]))
            case "add":
                add("Add", x, draw(st.sampled_from([v for v in values if v.type == x.type])))
            case "reduce":
                axes = draw(st.sets(st.sampled_from(range(rank)), max_size=3)) if rank else ()
                add(draw(st.sampled_from(("Mean", "Max"))), x, axis=tuple(sorted(axes)), keepdims=draw(st.booleans()))
            case "concat" if fixed:
                axis = draw(st.sampled_from(fixed))
                add("ConcatV2", x, draw(st.sampled_from([v for v in values if v.type == x.type])), axis=axis)
            case "pad" if fixed:
                pads = tuple((int(i in fixed), 0) if draw(st.booleans()) else (0, 0) for i in range(rank))
                add("Pad", x, paddings=pads)
    fetches = tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)))
    return Function("images", (feed,), tuple(builder.nodes), fetches, sources=(SymbolSource("N", 0, 0),))


@given(images())
@EXAMPLES
def test_transposes_move_and_cancel(function: Function) -> None:
    check(function)


@pytest.mark.nightly
@given(images(most=20))
@MANY
def test_many_transposes(function: Function) -> None:
    check(function)
