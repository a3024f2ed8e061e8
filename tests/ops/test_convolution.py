"""Convolutions: against the definition, tap by tap; for drawn sizes, strides, dilations, paddings and groups; for sizes
that are not known when compiling; and what becomes one kernel with them."""
from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.dtypes import float32, float64
from graphc.errors import DTypeError, ShapeError
from graphc.ir import dim, infer
from graphc.ir.evaluate import apply, evaluate
from graphc.ir.function import Builder, Function, SymbolSource, Value
from graphc.ir.parse import parse
from graphc.ir.types import TensorType
from graphc.ir.verify import verify
from graphc.ops.base import lookup
from graphc.ops.convolution import FAMILIES, Family
from graphc.ops.convolution_window import out_size
from tests.ops.cases import Array, function_of
from tests.ops.compiled import BACKENDS, Compiled

BY_NAME = {f.name: f for f in FAMILIES}


@dataclass(frozen=True)
class Setting:
    """One convolution, channels last: x (batch, spatial, channels), filter w, and how windows lie."""

    family: Family
    x: tuple[int, ...]
    w: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    channels_last: bool

    @property
    def y(self) -> tuple[int, ...]:
        pads = self.padding if isinstance(self.padding, tuple) else (
            (None if self.padding == "SAME" else (0, 0),) * self.family.rank)
        spatial = (int(dim.evaluate(out_size(*of), {})) for of in zip(
            self.x[1:-1], self.w, self.strides, self.dilations, pads, strict=False))
        return (self.x[0], *spatial, self.w[-1] * (self.w[-2] if self.family.is_depthwise else 1))

    def turned(self, values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values) if self.channels_last else (values[0], values[-1], *values[1:-1])

    @property
    def attrs(self) -> dict[str, Any]:
        explicit = isinstance(self.padding, tuple)
        pads = self.turned(((0, 0), *self.padding, (0, 0))) if explicit else ()
        return {"strides": self.turned((1, *self.strides, 1)), "dilations": self.turned((1, *self.dilations, 1)),
                "padding": "EXPLICIT" if explicit else self.padding,
                "explicit_paddings": tuple(n for pair in pads for n in pair),
                "data_format": self.family.formats[not self.channels_last]}

    def roles(self) -> list[tuple[str, list[tuple[int, ...]], dict[str, Any]]]:
        """Op, shapes of its inputs, and attrs, of the three ops."""
        x, y = self.turned(self.x), self.turned(self.y)
        return [(self.family.name, [x, self.w], self.attrs),
                (self.family.for_input, [self.w, y], {**self.attrs, "input_sizes": x}),
                (self.family.for_filter, [x, y], {**self.attrs, "filter_sizes": self.w})]


@st.composite
def settings_of(draw: Callable[..., Any], family: Family) -> Setting:
    """Small ones, among them filters larger than the input, strides larger than the filter, and empty batches."""
    rank = family.rank
    small = 4 if rank == 3 else 8
    spatial = draw(st.tuples(*[st.integers(1, small)] * rank))
    taps = draw(st.tuples(*[st.integers(1, 3 if rank == 3 else 4)] * rank))
    strides = draw(st.tuples(*[st.integers(1, 4)] * rank))
    dilations = draw(st.one_of(st.just((1,) * rank), st.tuples(*[st.integers(1, 4)] * rank)))
    pairs = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank))
    padding = draw(st.sampled_from(["SAME", "VALID", pairs]))
    batch, group, features, groups = (draw(st.integers(*ends)) for ends in ((0, 3), (1, 3), (1, 3), (1, 3)))
    fits = padding == "SAME" or all(
        (k - 1) * d < n + sum(p) for n, k, d, p in zip(
            spatial, taps, dilations, pairs if isinstance(padding, tuple) else ((0, 0),) * rank, strict=True))
    w = (*taps, groups, features) if family.is_depthwise else (*taps, group, groups * features)
    channels = groups if family.is_depthwise else groups * group
    return Setting(family, (batch, *spatial, channels), w, strides, dilations, padding if fits else "SAME",
                   draw(st.booleans()))


any_setting = st.sampled_from(FAMILIES).flatmap(settings_of)


def by_definition(s: Setting, x: Array, w: Array) -> Array:
    """The convolution, window by window and tap by tap, channels last."""
    y = np.zeros(s.y, x.dtype)
    before = []
    for i, (n, k, out) in enumerate(zip(s.x[1:-1], s.w, s.y[1:-1], strict=False)):
        needed = max((out - 1) * s.strides[i] + (k - 1) * s.dilations[i] + 1 - n, 0)
        before.append(s.padding[i][0] if isinstance(s.padding, tuple) else needed // 2 if s.padding == "SAME" else 0)
    for at in itertools.product(*map(range, s.y[1:-1])):
        for tap in itertools.product(*map(range, s.w[:-2])):
            where = tuple(o * stride + t * d - p for o, stride, t, d, p in zip(
                at, s.strides, tap, s.dilations, before, strict=True))
            if not all(0 <= e < n for e, n in zip(where, s.x[1:-1], strict=True)):
                continue
            row = x[(slice(None), *where)]
            for f in range(s.y[-1]):
                if s.family.is_depthwise:
                    c, multiplier = divmod(f, s.w[-1])
                    y[(slice(None), *at, f)] += row[:, c] * w[(*tap, c, multiplier)]
                else:
                    first = f // (s.y[-1] // (s.x[-1] // s.w[-2])) * s.w[-2]
                    y[(slice(None), *at, f)] += row[:, first:first + s.w[-2]] @ w[(*tap, slice(None), f)]
    return y


def drawn(shapes: Sequence[tuple[int, ...]], seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, shape) for shape in shapes]


def referred(name: str, arrays: Sequence[Array], attrs: dict[str, Any]) -> Array:
    """What the reference of an op gives, in float64."""
    types = [TensorType(float64, a.shape) for a in arrays]
    node = function_of(lookup(name), types, attrs).nodes[0]
    return apply(node.op, arrays, types, node.attrs, [v.tensor for v in node.outputs])[0]


@given(any_setting, st.integers(0, 1 << 30))
@settings(max_examples=60, deadline=None)
def test_the_reference_is_the_definition_and_its_gradients_are_the_transposes(s: Setting, seed: int) -> None:
    (name, shapes, attrs), (for_input, _, of_input), (for_filter, _, of_filter) = s.roles()
    x, w = drawn(shapes, seed)
    y = referred(name, [x, w], attrs)
    want = by_definition(s, x if s.channels_last else np.moveaxis(x, 1, -1), w)
    np.testing.assert_allclose(y if s.channels_last else np.moveaxis(y, 1, -1), want, atol=1e-12)
    (dy,) = drawn([y.shape], seed + 1)
    inner = float(np.sum(y * dy))
    assert float(np.sum(referred(for_input, [w, dy], of_input) * x)) == pytest.approx(inner, abs=1e-10)
    assert float(np.sum(referred(for_filter, [x, dy], of_filter) * w)) == pytest.approx(inner, abs=1e-10)


def check(function: Function, arrays: Sequence[Array], backend: str, run: Callable[..., Any] | None = None) -> None:
    feeds = [a.astype(np.float32) for a in arrays]
    got = (run or Compiled(function, backend))(feeds)
    for a, b in zip(got, evaluate(function, feeds)[0], strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


@given(any_setting, st.integers(0, 1 << 30))
@settings(max_examples=40, deadline=None)
def test_kernels_equal_the_reference(s: Setting, seed: int) -> None:
    for name, shapes, attrs in s.roles():
        function = function_of(lookup(name), [TensorType(float32, shape) for shape in shapes], attrs)
        check(function, drawn(shapes, seed), "interp")


@given(any_setting, st.integers(0, 1 << 30))
@settings(max_examples=6, deadline=None)
def test_machine_code_equals_the_reference(s: Setting, seed: int) -> None:
    for name, shapes, attrs in s.roles():
        function = function_of(lookup(name), [TensorType(float32, shape) for shape in shapes], attrs)
        check(function, drawn(shapes, seed), "llvm_cpu")


# -- sizes that are not known -----------------------------------------------------------------------------------------

UNKNOWN = [("SAME", (1, 1), (1, 1)), ("SAME", (2, 3), (1, 1)), ("VALID", (2, 1), (1, 2)), ("SAME", (2, 2), (2, 3)),
           (((1, 2), (0, 1)), (3, 2), (1, 1))]


@pytest.mark.parametrize(("padding", "strides", "dilations"), UNKNOWN, ids=str)
@pytest.mark.parametrize("family", ["Conv2D", "DepthwiseConv2dNative"])
@pytest.mark.parametrize("backend", ["llvm_cpu", "interp"])
def test_one_compilation_serves_all_sizes(backend: str, family: str, padding: Any, strides: Any, dilations: Any
                                          ) -> None:
    n, h, w = (dim.symbol(c) for c in "NHW")
    known = Setting(BY_NAME[family], (1, 1, 1, 3), (3, 2, 3, 4), strides, dilations, padding, True)
    x = Value(TensorType(float32, (n, h, w, 3)))
    kernel = Value(TensorType(float32, known.w))
    builder = Builder(infer.types)
    y = builder.add(lookup(family), (x, kernel), known.attrs, ()).output
    entry = known.family
    dx = builder.add(lookup(entry.for_input), (kernel, y), {**known.attrs, "input_sizes": x.tensor.shape}, ()).output
    dw = builder.add(lookup(entry.for_filter), (x, y), {**known.attrs, "filter_sizes": known.w}, ()).output
    function = Function("f", (x, kernel), tuple(builder.nodes), (y, dx, dw), feed_names=("x", "w"),
                        fetch_names=("y", "dx", "dw"), sources=tuple(
                            SymbolSource(name, 0, axis) for name, axis in (("N", 0), ("H", 1), ("W", 2))))
    run = Compiled(function, backend)
    for size in ((2, 7, 9), (1, 5, 5), (3, 8, 6), (0, 6, 6)):
        check(function, drawn([(*size, 3), known.w], 5), backend, run)




# -- fusion -----------------------------------------------------------------------------------------------------------

CONV = '{strides=(1, 1, 1, 1), padding="SAME", explicit_paddings=(), data_format="NHWC", dilations=(1, 1, 1, 1)}'
STRIDED = CONV.replace("strides=(1, 1, 1, 1)", "strides=(1, 2, 2, 1)")

EPILOGUES = {
    "bias, activation": (f"""
func @main(%x: float32[N, 9, 7, 3] "x", %w: float32[3, 3, 3, 5] "w", %b: float32[5] "b") {{
  source N = %x.axis(0)
  %0 = Conv2D(%x, %w) {CONV} : float32[N, 9, 7, 5]
  %1 = Add(%0, %b) : float32[N, 9, 7, 5]
  %2 = Relu(%1) : float32[N, 9, 7, 5]
  return %2 "y"
}}""", 1),
    "scale, shift, residual, activation": (f"""
func @main(%x: float32[N, 9, 7, 3] "x", %w: float32[3, 3, 3, 5] "w", %s: float32[5] "s", %b: float32[5] "b",
           %r: float32[N, 9, 7, 5] "r") {{
  source N = %x.axis(0)
  %0 = Conv2D(%x, %w) {CONV} : float32[N, 9, 7, 5]
  %1 = Mul(%0, %s) : float32[N, 9, 7, 5]
  %2 = Add(%1, %b) : float32[N, 9, 7, 5]
  %3 = Add(%2, %r) : float32[N, 9, 7, 5]
  %4 = Relu(%3) : float32[N, 9, 7, 5]
  return %4 "y"
}}""", 1),
    "the mask of the input's activation, a residual gradient; phases of an odd size": (f"""
func @main(%w: float32[3, 3, 3, 5] "w", %dy: float32[N, 5, 4, 5] "dy", %x: float32[N, 9, 7, 3] "x",
           %r: float32[N, 9, 7, 3] "r") {{
  source N = %dy.axis(0)
  %0 = Conv2DBackpropInput(%w, %dy) {STRIDED[:-1]}, input_sizes=(N, 9, 7, 3)}} : float32[N, 9, 7, 3]
  %1 = Add(%0, %r) : float32[N, 9, 7, 3]
  %2 = ReluGrad(%1, %x) : float32[N, 9, 7, 3]
  return %2 "dx"
}}""", 1),
    "the update of a filter": (f"""
func @main(%x: float32[N, 9, 7, 3] "x", %dy: float32[N, 5, 4, 5] "dy", %w: float32[3, 3, 3, 5] "w",
           %rate: float32[] "rate") {{
  source N = %x.axis(0)
  %0 = Conv2DBackpropFilter(%x, %dy) {STRIDED[:-1]}, filter_sizes=(3, 3, 3, 5)}} : float32[3, 3, 3, 5]
  %1 = Mul(%0, %rate) : float32[3, 3, 3, 5]
  %2 = Sub(%w, %1) : float32[3, 3, 3, 5]
  return %2 "w"
}}""", 1),
    "a depthwise convolution with bias and activation": (f"""
func @main(%x: float32[N, 9, 7, 3] "x", %w: float32[3, 3, 3, 2] "w", %b: float32[6] "b") {{
  source N = %x.axis(0)
  %0 = DepthwiseConv2dNative(%x, %w) {CONV} : float32[N, 9, 7, 6]
  %1 = Add(%0, %b) : float32[N, 9, 7, 6]
  %2 = Relu6(%1) : float32[N, 9, 7, 6]
  return %2 "y"
}}""", 1),
    "an activation before a convolution is computed once": (f"""
func @main(%x: float32[N, 9, 7, 3] "x", %w: float32[3, 3, 3, 5] "w") {{
  source N = %x.axis(0)
  %0 = Relu(%x) : float32[N, 9, 7, 3]
  %1 = Conv2D(%0, %w) {CONV} : float32[N, 9, 7, 5]
  return %1 "y"
}}""", 2),
    "what is not zero at zero is zero outside": (f"""
func @main(%x: float32[N, 9, 7, 3] "x", %w: float32[3, 3, 3, 1] "w") {{
  source N = %x.axis(0)
  %0 = Sigmoid(%x) : float32[N, 9, 7, 3]
  %1 = DepthwiseConv2dNative(%0, %w) {CONV} : float32[N, 9, 7, 3]
  return %1 "y"
}}""", None),
    "one spatial axis through views": (f"""
func @main(%x: float32[N, 9, 3] "x", %w: float32[3, 3, 5] "w", %b: float32[5] "b") {{
  source N = %x.axis(0)
  %0 = Reshape(%x) {{shape=(N, 1, 9, 3)}} : float32[N, 1, 9, 3]
  %1 = Reshape(%w) {{shape=(1, 3, 3, 5)}} : float32[1, 3, 3, 5]
  %2 = Conv2D(%0, %1) {CONV} : float32[N, 1, 9, 5]
  %3 = Reshape(%2) {{shape=(N, 9, 5)}} : float32[N, 9, 5]
  %4 = Add(%3, %b) : float32[N, 9, 5]
  return %4 "y"
}}""", 1),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", EPILOGUES)
def test_epilogues(what: str, backend: str) -> None:
    """One kernel with what follows, for any batch."""
    text, kernels = EPILOGUES[what]
    if backend == "numba_cpu" and "phases" not in what:
        pytest.skip("compiles slowly; the hardest case is enough")
    function = verify(parse(text))
    run = Compiled(function, backend)
    assert kernels is None or run.kernels == kernels
    for batch in (4, 1, 0):
        shapes = [tuple(dim.evaluate(n, {"N": batch}) for n in v.tensor.shape) for v in function.feeds]
        check(function, drawn(shapes, batch), backend, run)


# -- errors -----------------------------------------------------------------------------------------------------------

PLAIN = {"strides": (1, 1, 1, 1), "padding": "VALID"}
WRONG: list[tuple[str, list[tuple[int, ...]], dict[str, Any], str]] = [
    ("Conv2D", [(2, 7, 6, 3), (3, 2, 4, 4)], PLAIN, r"Depth of input \(3\) is not a multiple of input depth of filter"),
    ("Conv2D", [(2, 7, 6, 4), (3, 2, 2, 3)], PLAIN, r"Depth of output \(3\) is not a multiple of the number of groups"),
    ("Conv2D", [(2, 2, 6, 3), (3, 2, 3, 4)], PLAIN, "Negative dimension size caused by subtracting 3 from 2"),
    ("Conv2D", [(2, 2, 6), (3, 2, 3, 4)], PLAIN, "the input must have rank 4"),
    ("Conv2D", [(2, 7, 6, 3), (3, 2, 3, 4)], {**PLAIN, "strides": (2, 1, 1, 1)}, "batch and depth dimensions must be"),
    ("Conv2D", [(2, 7, 6, 3), (3, 2, 3, 4)], {**PLAIN, "strides": (1, 0, 1, 1)}, "strides must be positive"),
    ("Conv2D", [(2, 7, 6, 3), (3, 2, 3, 4)], {**PLAIN, "dilations": (1, 1)}, "dilations must be 4 numbers"),
    ("Conv2D", [(2, 7, 6, 3), (3, 2, 3, 4)], {**PLAIN, "padding": "FULL"}, "'SAME', 'VALID' or 'EXPLICIT'"),
    ("Conv2D", [(2, 7, 6, 3), (3, 2, 3, 4)], {**PLAIN, "explicit_paddings": (0,) * 8}, "go with padding='EXPLICIT'"),
    ("Conv2D", [(2, 7, 6, 3), (3, 2, 3, 4)], {**PLAIN, "padding": "EXPLICIT", "explicit_paddings": (0, 1, 2)},
     "explicit_paddings must be 8 numbers"),
    ("Conv2D", [(2, 7, 6, 3), (3, 2, 3, 4)], {**PLAIN, "data_format": "NWHC"}, "data_format must be NHWC or NCHW"),
    ("DepthwiseConv2dNative", [(2, 7, 6, 3), (3, 2, 4, 1)], PLAIN, "the input has 3 channels"),
    ("Conv2DBackpropInput", [(3, 3, 5, 3), (2, 9, 8, 3)],
     {"strides": (1, 2, 2, 1), "padding": "SAME", "input_sizes": (2, 17, 20, 5)},
     "Size of out_backprop doesn't match computed: actual = 8, computed = 10"),
    ("Conv2DBackpropInput", [(3, 3, 5, 3), (2, 9, 8, 3)], {**PLAIN, "input_sizes": (2, 17, 20)},
     "input_sizes must be 4 sizes"),
    ("Conv2DBackpropFilter", [(2, 9, 8, 5), (2, 7, 6, 3)], {**PLAIN, "filter_sizes": (3, 2, 5, 3)},
     "Size of out_backprop doesn't match computed: actual = 6, computed = 7"),
]


@pytest.mark.parametrize(("name", "shapes", "attrs", "message"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_errors(name: str, shapes: Any, attrs: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        function_of(lookup(name), [TensorType(float32, s) for s in shapes], attrs)


def test_dtypes_agree() -> None:
    with pytest.raises(DTypeError, match="one dtype, not float32 and float64"):
        function_of(lookup("Conv2D"), [TensorType(float32, (1, 3, 3, 1)), TensorType(float64, (1, 1, 1, 1))], PLAIN)


def test_flops_count_multiply_adds_twice() -> None:
    """Source: 7x7 of stride 2 on 224x224x3 with 64 filters, ResNet's first layer: 118 M multiply-adds."""
    types = [TensorType(float32, (1, 224, 224, 3)), TensorType(float32, (7, 7, 3, 64))]
    function = function_of(lookup("Conv2D"), types, {"strides": (1, 2, 2, 1), "padding": "SAME"})
    node = function.nodes[0]
    flops = node.op.flops
    assert flops is not None
    assert flops([v.tensor for v in node.inputs], [v.tensor for v in node.outputs], node.attrs) == 2 * 118_013_952
