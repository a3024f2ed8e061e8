"""Patches: the windows of images as elements of a tensor.

Owns Patches and its gradient.  Must not know fusion.  Invariant: nothing is computed but zeros outside of the image;
the gradient is gathered, each element from the windows that it lies in.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import float16, float32, uint8
from graphc.ir.types import PartialType, Shape
from graphc.kernel.ir import Expr, const, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import prim
from graphc.ops import build as b
from graphc.ops.base import (
    REQUIRED,
    Call,
    Inference,
    Kind,
    Op,
    Point,
    Pointwise,
    Sample,
    attr_or_value,
    data_inputs,
    register,
    widen,
)
from graphc.ops.rules import (
    FLOATS,
    check_dtype,
    concrete,
    ints,
    require_rank,
    typed,
    unknown_sizes,
)
from graphc.ops.windows import Window, both, check_windows, every_tap, tap_slices, windows_of

_PATCHES: dict[str, Any] = {"ksizes": REQUIRED, "strides": REQUIRED, "rates": (1, 1, 1, 1), "padding": REQUIRED}


def _patch_windows(attrs: Mapping[str, Any], shape: Shape) -> tuple[Window, ...]:
    return windows_of(shape, attrs["ksizes"], attrs["strides"], attrs["padding"], attrs["rates"])


def _patch_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attrs[name] for name in _PATCHES}


def _patched(ctx: Inference, shape: Shape) -> Shape:
    """(examples, rows of windows, windows in a row, taps down, taps across, channels)."""
    if any(ctx.attrs[name][i] != 1 for name in ("ksizes", "strides", "rates") for i in (0, 3)):
        raise ctx.fail("a patch takes one example and all channels: the first and the last size are 1")
    _, down, across, _ = check_windows(ctx, shape, ctx.attrs["ksizes"], ctx.attrs["strides"], ctx.attrs["padding"],
                                       ctx.attrs["rates"])
    return (shape[0], down.count, across.count, down.taps, across.taps, shape[3])


def _patches_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    require_rank(ctx, x.shape, 4, "the images", 4)
    return [PartialType(x.dtype, unknown_sizes(ctx, 6) if x.shape is None else _patched(ctx, x.shape))]


def _patches_point(p: Point) -> Expr:
    _, down, across, _ = _patch_windows(p.attrs, p.in_types[0].shape)
    n, y, x, ky, kx, c = p.index
    places = [_tap_at(w, o, k) for w, o, k in ((down, y, ky), (across, x, kx))]
    at = [n, places[0][0], places[1][0], c]
    inside = both(places[0][1], places[1][1])
    return p.load(0, at) if inside is None else p.load(0, at, inside, const(0, p.in_types[0].dtype))


def _tap_at(w: Window, window: Expr, tap: Expr) -> tuple[Expr, Expr | None]:
    """The element of a tap that is an axis itself."""
    at = prim("add", prim("mul", window, index(w.stride)), prim("mul", tap, index(w.dilation)))
    if not w.padded:
        return at, None
    at = prim("sub", at, size_of(w.before))
    return at, prim("and", prim("le", index(0), at), prim("lt", at, size_of(w.size)))


def _patches_reference(call: Call) -> Any:
    (x,) = call.arrays
    windows = _patch_windows(call.attrs, x.shape)
    out = np.zeros(concrete(call), x.dtype)
    for tap in every_tap(windows):
        places, inner = tap_slices(windows, tap)
        out[:, :, :, tap[1], tap[2]][places] = x[inner]
    return out


def _patches_grad_infer(ctx: Inference) -> Sequence[PartialType]:
    (dy,) = data_inputs(ctx, {1: "shape"})
    check_dtype(ctx, dy, FLOATS)
    shape = attr_or_value(ctx, 1, "shape")
    return [PartialType(dy.dtype, unknown_sizes(ctx, 4) if shape is None else ints(shape))]


def _patches_grad_point(p: Point) -> Expr:
    _, down, across, _ = _patch_windows(p.attrs, p.out_types[0].shape)
    n, y, x, c = p.index
    total: Expr | None = None
    for row, ky, above in down.covering(y):
        for column, kx, beside in across.covering(x):
            inside = both(above, beside)
            at = [n, row, column, ky, kx, c]
            dy = widen(p.load(0, at) if inside is None else p.load(0, at, inside, const(0, p.in_types[0].dtype)))
            total = dy if total is None else prim("add", total, dy)
    assert total is not None
    return total


def _patches_grad_reference(call: Call) -> Any:
    (dy,) = call.arrays
    windows = _patch_windows(call.attrs, concrete(call))
    out = np.zeros(concrete(call), dy.dtype)
    for tap in every_tap(windows):
        places, inner = tap_slices(windows, tap)
        out[inner] += dy[:, :, :, tap[1], tap[2]][places]
    return out


_PATCH_CASES: tuple[tuple[tuple[int, ...], tuple[int, int], tuple[int, int], tuple[int, int], str], ...] = (
    ((2, 5, 6, 3), (3, 2), (2, 1), (1, 1), "SAME"), ((1, 7, 5, 2), (2, 2), (2, 2), (2, 1), "VALID"),
    ((1, 3, 3, 17), (3, 3), (1, 1), (1, 1), "SAME"), ((1, 7, 7, 1), (2, 3), (1, 1), (3, 2), "SAME"))


def _four(pair: tuple[int, int]) -> tuple[int, ...]:
    return (1, *pair, 1)


def _patch_samples(backward: bool) -> list[Sample]:
    out = []
    for shape, taps, steps, rates, padding in _PATCH_CASES:
        attrs = {"ksizes": _four(taps), "strides": _four(steps), "rates": _four(rates), "padding": padding}
        counts = [int(w.count) for w in _patch_windows(attrs, shape)]
        rows = (shape[0], counts[1], counts[2], *taps, shape[3])
        for d in (float32, float16) if backward else (float32, uint8):
            out.append(Sample((typed(d, *(rows if backward else shape)),), {**({"shape": shape} if backward else {}),
                                                                            **attrs}, ulp=64.0,
                              differentiable=d.is_floating))
    return out


register(Op(
    name="Patches", kind=Kind.MOVEMENT, inputs=("images",), attrs=_PATCHES, infer=_patches_infer,
    gradient=lambda op, dy: [b.op("PatchesGrad", dy, b.shape_of(op.inputs[0]), **_patch_attrs(op.attrs))],
    reference=_patches_reference, lower=Pointwise(point=_patches_point), samples=lambda: _patch_samples(False),
    doc="The windows of images, (examples, rows, columns, taps down, taps across, channels), zeros where they leave "
        "the image"))
register(Op(
    name="PatchesGrad", kind=Kind.MOVEMENT, inputs=("dy", "shape"), static={1: "shape"},
    attrs={"shape": None, **_PATCHES}, infer=_patches_grad_infer,
    gradient=lambda op, dd: [b.op("Patches", dd, **_patch_attrs(op.attrs))], reference=_patches_grad_reference,
    lower=Pointwise(point=_patches_grad_point), samples=lambda: _patch_samples(True),
    doc="The gradient of Patches: each element the sum over the windows that it lies in"))
