"""Winograd's convolution in programs: exactness against float64, edges, epilogues, unknown batches, bits by threads."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc import compiler
from graphc.dtypes import float32
from graphc.ir import dim, infer
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Builder, Function, SymbolSource, Value
from graphc.ir.types import TensorType
from graphc.kernel.verify import verify
from graphc.ops.base import lookup
from graphc.options import Options
from graphc.passes.convolution import choose_convolutions
from tests.backends.llvm_native import runnable
from tests.ops.cases import Array
from tests.ops.compiled import BACKENDS, Compiled

BOUND = {"winograd2": 3e-6, "winograd4": 2e-5}
"""Of the error, in the largest element of the result."""
SAME: dict[str, object] = {"strides": (1, 1, 1, 1), "padding": "SAME"}


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def feed(*shape: object) -> Value:
    return Value(TensorType(float32, shape))  # type: ignore[arg-type]


def function_of(builder: Builder, feeds: tuple[Value, ...], *fetches: Value, batch: str | None = None) -> Function:
    return Function("f", feeds, tuple(builder.nodes), fetches,
                    sources=() if batch is None else (SymbolSource(batch, 0, 0),),
                    feed_names=tuple(f"x{i}" for i in range(len(feeds))),
                    fetch_names=tuple(f"y{i}" for i in range(len(fetches))))


def convolution(n: object, size: tuple[int, int], channels: int, outputs: int, **attrs: object) -> Function:
    """Conv2D, and its gradients for input and filters of the result."""
    x, w = feed(n, *size, channels), feed(3, 3, channels, outputs)
    builder = Builder(infer.types)
    attrs = {**SAME, **attrs}
    y = builder.add(lookup("Conv2D"), (x, w), attrs, ("forward",)).output
    back = builder.add(lookup("Conv2DBackpropInput"), (w, y), {**attrs, "input_sizes": x.tensor.shape}, ("back",))
    last = builder.add(lookup("Conv2DBackpropFilter"), (x, y), {**attrs, "filter_sizes": w.tensor.shape}, ("last",))
    return function_of(builder, (x, w), y, back.output, last.output, batch=None if isinstance(n, int) else str(n))


def drawn(function: Function, seed: int, n: int = 0) -> list[Array]:
    shapes = [tuple(dim.evaluate(d, {"N": n}) for d in v.tensor.shape) for v in function.feeds]
    return [normal(seed + i, *shape) for i, shape in enumerate(shapes)]


def off(got: Array, want: Array) -> float:
    """The largest error in units of the largest element."""
    assert got.shape == want.shape and not np.isnan(got).any()
    largest = float(np.abs(want).max(initial=0.0))
    return float(np.abs(got - want.astype(np.float64)).max(initial=0.0)) / (largest or 1.0)


def uses_winograd(function: Function, options: Options) -> bool:
    names = [n.op.name for n in choose_convolutions(function, options).nodes]
    return names.count("WinogradConvolution") == 2 and names.count("WinogradFilterGradient") == 1


CASES = (
    (2, (9, 14), 5, 20, {}), (3, (7, 7), 8, 16, {}), (5, (13, 12), 16, 48, {"padding": "VALID"}),
    (1, (1, 1), 3, 2, {}), (0, (6, 6), 4, 4, {}),
    (2, (6, 9), 7, 31, {"padding": "EXPLICIT", "explicit_paddings": (0, 0, 2, 1, 0, 2, 0, 0)}),
    (9, (5, 5), 4, 257, {}),
)


@pytest.mark.parametrize(("backend", "algorithm", "cases"), [
    ("llvm_cpu", "winograd2", CASES), ("llvm_cpu", "winograd4", CASES), ("interp", "winograd2", CASES),
    ("interp", "winograd4", CASES), ("numba_cpu", "winograd2", CASES[1:2])])  # numba takes long to compile them
def test_forward_and_gradients(backend: str, algorithm: str, cases: Sequence[Any]) -> None:
    for number, (n, size, channels, outputs, attrs) in enumerate(cases):
        function = convolution(n, size, channels, outputs, **attrs)
        assert uses_winograd(function, Options(convolution=algorithm))
        feeds = drawn(function, 10 * number)
        got, want = Compiled(function, backend, convolution=algorithm)(feeds), evaluate(function, feeds)[0]
        assert off(got[0], want[0]) < BOUND[algorithm], attrs
        assert max(off(a, b) for a, b in zip(got[1:], want[1:], strict=True)) < 2 * BOUND[algorithm], attrs


@pytest.mark.parametrize("algorithm", BOUND)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 4), (9, 14)])
@pytest.mark.parametrize("n", [1, 3, dim.symbol("N")])
def test_kernels_keep_their_promises(n: object, size: tuple[int, int], algorithm: str) -> None:
    """Tiles store apart, whatever of image, row and column there is one of alone."""
    for outputs in (5, 150):
        function = convolution(n, size, 3, outputs)
        for kernel in compiler.make_plan(function, Options(convolution=algorithm)).kernels:
            verify(kernel)


@pytest.mark.parametrize(("algorithm", "channels"), [("winograd2", 512), ("winograd4", 64), ("winograd4", 512)])
def test_exactness_holds_for_many_channels(algorithm: str, channels: int) -> None:
    """F(2x2, 3x3) is as exact as the direct form."""
    function = convolution(1, (12, 12), channels, 64)
    feeds = drawn(function, channels)
    function = function.replace(fetches=function.fetches[:1], fetch_names=("y",))
    want = evaluate(function, feeds)[0][0]
    got = Compiled(function, "llvm_cpu", convolution=algorithm)(feeds)[0]
    assert 0 < off(got, want) < BOUND[algorithm]


@pytest.mark.parametrize("algorithm", BOUND)
def test_exactness_of_filter_gradients_of_many_images(algorithm: str) -> None:
    x, dy, builder = feed(48, 16, 16, 16), feed(48, 16, 16, 24), Builder(infer.types)
    attrs = {**SAME, "filter_sizes": (3, 3, 16, 24)}
    function = function_of(builder, (x, dy), builder.add(lookup("Conv2DBackpropFilter"), (x, dy), attrs, ("w",)).output)
    function = function.replace(nodes=tuple(builder.nodes))
    feeds = drawn(function, 77)
    want = evaluate(function, feeds)[0][0]
    got = Compiled(function, "llvm_cpu", convolution=algorithm)(feeds)[0]
    assert 0 < off(got, want) < BOUND[algorithm]


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_other_processors(target: str) -> None:
    """With vectors of other widths, and without masks or fused multiply-adds."""
    if target not in runnable():
        pytest.skip(f"this machine does not run {target}")
    function = convolution(2, (9, 6), 21, 20)
    feeds = drawn(function, 1)
    got = Compiled(function, "llvm_cpu", convolution="winograd4", target=target)(feeds)
    assert max(off(a, b) for a, b in zip(got, evaluate(function, feeds)[0], strict=True)) < 2 * BOUND["winograd4"]


@pytest.mark.parametrize("algorithm", BOUND)
def test_one_compilation_serves_every_batch(algorithm: str) -> None:
    function = convolution(dim.symbol("N"), (10, 7), 6, 140)
    for backend in ("llvm_cpu", "interp"):
        compiled = Compiled(function, backend, convolution=algorithm)
        for n in (1, 3, 29) if backend == "llvm_cpu" else (2,):
            feeds = drawn(function, n, n)
            for got, want in zip(compiled(feeds), evaluate(function, feeds)[0], strict=True):
                assert off(got, want) < 2 * BOUND[algorithm]


@pytest.mark.parametrize("backend", BACKENDS)
def test_epilogue_and_several_results(backend: str) -> None:
    """Bias, residual, activation, a mask, a broadcast factor, and the sum itself, all from one kernel."""
    x, w, bias, rest, factor = feed(2, 6, 7, 5), feed(3, 3, 5, 18), feed(18), feed(2, 6, 7, 18), feed(2, 1, 1, 18)
    builder = Builder(infer.types)

    def op(name: str, *inputs: Value) -> Value:
        return builder.add(lookup(name), inputs, {}, (name,)).output

    plain = builder.add(lookup("Conv2D"), (x, w), SAME, ("conv",)).output
    scaled = op("Add", op("Mul", op("Add", plain, bias), factor), rest)
    active = op("Relu", scaled)
    mask = op("Greater", scaled, rest)
    function = function_of(builder, (x, w, bias, rest, factor), plain, active, mask)
    feeds = drawn(function, 3)
    compiled = Compiled(function, backend, convolution="winograd2" if backend == "numba_cpu" else "winograd4")
    got, want = compiled(feeds), evaluate(function, feeds)[0]
    assert compiled.kernels == 2  # the filters, and everything else
    assert off(got[0], want[0]) < 2e-5 and off(got[1], want[1]) < 2e-5
    assert (got[2] == want[2]).mean() > 0.99


@pytest.mark.parametrize("algorithm", BOUND)
def test_bits_do_not_depend_on_threads(algorithm: str) -> None:
    function = convolution(3, (11, 13), 24, 150)
    feeds = drawn(function, 5)
    found = [[a.tobytes() for a in Compiled(function, "llvm_cpu", threads=threads, convolution=algorithm)(feeds)]
             for threads in (1, 2, 3, 8)]
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize("algorithm", BOUND)
def test_gradients_to_second_order_in_a_session(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is differentiated is the convolution, whatever computes it."""
    def run(chosen: str) -> list[Array]:
        monkeypatch.setenv("GRAPHC_CONVOLUTION", chosen)
        with tf.Graph().as_default():
            x = tf.placeholder(tf.float32, [None, 9, 8, 4])
            w = tf.constant(normal(1, 3, 3, 4, 6))
            y = tf.nn.conv2d(x, w, [1, 1, 1, 1], "SAME")
            (dx,) = tf.gradients(tf.reduce_sum(y * y * y), x)
            (ddx,) = tf.gradients(tf.reduce_sum(dx * dx), x)
            with tf.Session() as session:
                return [np.asarray(a) for a in session.run([y, dx, ddx], {x: normal(2, 2, 9, 8, 4)})]

    for got, want in zip(run(algorithm), run("direct"), strict=True):
        assert off(got, want) < 5 * BOUND[algorithm]
