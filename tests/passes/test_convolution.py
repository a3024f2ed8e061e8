"""The choice of a convolution's algorithm: who is eligible, what is cheaper, what an option or strict numerics ask
for."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from graphc.dtypes import DType, float32, float64
from graphc.ir import dim, infer
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Builder, Function, SymbolSource, Value
from graphc.ir.types import TensorType
from graphc.ir.verify import verify
from graphc.ops.base import lookup
from graphc.options import Options, from_environment
from graphc.passes.convolution import Choice, choices, choose_convolutions

N = dim.symbol("N")


def forward(n: object, size: Sequence[object], channels: int, outputs: int, taps: int = 3, dtype: DType = float32,
            state: bool = False, **attrs: object) -> Function:
    """One Conv2D; `state`: its filter is a variable, else a feed."""
    x = Value(TensorType(dtype, (n, *size, channels)))  # type: ignore[arg-type]
    w = Value(TensorType(dtype, (taps, taps, channels, outputs)))
    builder = Builder(infer.types)
    given = {"strides": (1, 1, 1, 1), "padding": "SAME", **attrs}
    if given.get("data_format") == "NCHW":
        x = Value(TensorType(dtype, (n, channels, *size)))  # type: ignore[arg-type]
    y = builder.add(lookup("Conv2D"), (x, w), given, ("conv",)).output
    sources = tuple(SymbolSource(str(d), 0, i) for i, d in enumerate(x.tensor.shape) if not isinstance(d, int))
    if state:
        return Function("f", (x,), tuple(builder.nodes), (y,), (w,), (w,), ("x",), ("w",), ("y",), sources=sources)
    return Function("f", (x, w), tuple(builder.nodes), (y,), feed_names=("x", "w"), fetch_names=("y",), sources=sources)


def choice(function: Function, **options: object) -> Choice:
    (found,) = choices(function, Options(**options))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(("function", "reason"), [
    (forward(1, (8, 8), 32, 32, strides=(1, 2, 2, 1)), "strides or dilations"),
    (forward(1, (8, 8), 32, 32, dilations=(1, 2, 2, 1)), "strides or dilations"),
    (forward(1, (8, 8), 32, 32, taps=5), "5 x 5"),
    (forward(1, (8, 8), 32, 32, dtype=float64), "float64"),
    (forward(1, (8, 8), 32, 32, data_format="NCHW"), "channels are not last"),
    (forward(1, (dim.symbol("H"), 8), 32, 32), "not known when compiling"),
])
def test_others_stay_direct(function: Function, reason: str) -> None:
    for algorithm in ("auto", "winograd4"):
        options = Options(convolution=algorithm)
        assert choose_convolutions(function, options) is function
        assert choice(function, convolution=algorithm).tile == 0
        assert reason in choice(function, convolution=algorithm).reason


def test_groups_stay_direct() -> None:
    x, w = Value(TensorType(float32, (1, 8, 8, 32))), Value(TensorType(float32, (3, 3, 16, 32)))
    builder = Builder(infer.types)
    builder.add(lookup("Conv2D"), (x, w), {"strides": (1, 1, 1, 1), "padding": "SAME"}, ("conv",))
    found = choice(Function("f", (x, w), tuple(builder.nodes), (builder.nodes[0].output,)), convolution="winograd2")
    assert found.tile == 0 and "2 groups" in found.reason


@pytest.mark.parametrize(("function", "tile"), [
    (forward(1, (56, 56), 64, 64, state=True), 4),
    (forward(64, (32, 32), 16, 16), 4),
    (forward(N, (8, 8), 64, 64), 4),
    (forward(1, (7, 7), 512, 512, state=True), 2),  # reading the filters is most of the time
    (forward(1, (7, 7), 512, 512), 0),  # and transforming them in every run is more
    (forward(64, (7, 7), 512, 512), 4),
    (forward(1, (4, 4), 64, 64), 0),
    (forward(8, (28, 28), 1, 6), 0),
])
def test_the_cheaper_one_is_chosen(function: Function, tile: int) -> None:
    found = choice(function)
    assert found.tile == tile, found.reason
    assert "thousands of cycles" in found.reason and f"{'direct' if not tile else f'F({tile}x{tile}, 3x3)'}:" in \
        found.reason


def test_an_option_forces_and_strict_numerics_keep_to_the_exact_ones() -> None:
    function = forward(2, (8, 8), 16, 16)
    assert [choice(function, convolution=c).tile for c in ("direct", "winograd2", "winograd4")] == [0, 2, 4]
    assert choice(function, convolution="winograd4", numerics="strict").tile == 2
    big = forward(8, (56, 56), 64, 64)
    assert (choice(big).tile, choice(big, numerics="strict").tile) == (4, 2)
    assert from_environment({"GRAPHC_CONVOLUTION": "winograd2"}).convolution == "winograd2"
    with pytest.raises(ValueError, match="unknown convolution 'fft'"):
        Options(convolution="fft")
    keys = {Options(convolution=c).code_key for c in ("auto", "direct", "winograd2", "winograd4")}
    assert len(keys) == 4


def test_the_rewritten_function_is_valid_and_means_the_same() -> None:
    function = forward(N, (9, 10), 5, 7)
    changed = choose_convolutions(function, Options(convolution="winograd4"))
    verify(changed)
    assert [n.op.name for n in changed.nodes] == ["WinogradFilter", "WinogradConvolution"]
    assert all(n.origin == ("conv",) for n in changed.nodes)
    assert choose_convolutions(changed, Options(convolution="winograd4")) is changed
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal(s).astype(np.float32) for s in ((2, 9, 10, 5), (3, 3, 5, 7))]
    (got,), (want,) = evaluate(changed, feeds)[0], evaluate(function, feeds)[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
