"""Sums over few windows as one expression: what is left out, what is shared, and where a sum stays a loop."""
from __future__ import annotations

from graphc.ir.parse import parse
from graphc.ir.verify import verify
from graphc.kernel.text import format_kernel
from tests.passes.plans import planned

CONV = '{strides=(1, 1, 1, 1), padding="SAME", explicit_paddings=(), data_format="NHWC", dilations=(1, 1, 1, 1)}'


def text(taps: str, height: str = "7") -> str:
    """The kernel of a depthwise convolution with bias and activation."""
    plan = planned(verify(parse(f"""
func @main(%x: float32[N, {height}, 9, 16] "x", %w: float32[{taps}, 16, 1] "w", %b: float32[16] "b") {{
  %0 = DepthwiseConv2dNative(%x, %w) {CONV} : float32[N, {height}, 9, 16]
  %1 = Add(%0, %b) : float32[N, {height}, 9, 16]
  %2 = Relu(%1) : float32[N, {height}, 9, 16]
  return %2 "y"
}}
""")))
    (kernel,) = plan.kernels
    return format_kernel(kernel)


def test_few_taps_are_terms_and_only_bounds_that_can_fail_are_tested() -> None:
    written = text("1, 3")
    assert "reduce" not in written
    body = written.split("y0[i0, i1, i2] = ")[1]  # lines and images are one axis
    assert body.strip() == ("max(x0[i0, i1 - 1, i2; 0 <= i1 - 1 else 0.0] * x1[0, i2] + x0[i0, i1, i2] * x1[1, i2] + "
                            "x0[i0, i1 + 1, i2; i1 + 1 < 9 else 0.0] * x1[2, i2] + x2[i2], 0.0)")


def test_bounds_that_taps_share_are_tested_once_a_line() -> None:
    written = text("3, 3")
    assert written.count("0 <= i1 - 1") == written.count("i1 + 1 < 7") == 1


def test_sizes_that_are_not_known_are_tested_at_run_time() -> None:
    assert "i1 + 1 < n1" in text("3, 1", "H")


def test_many_taps_stay_loops() -> None:
    assert text("5, 5").count("reduce") == 2
