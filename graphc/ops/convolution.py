"""Convolutions: Conv2D, Conv3D, DepthwiseConv2dNative, and their gradients, which are ops of their own.

Owns them: one table of families, each a convolution, its gradient for the input and its gradient for the filter.  Must
not know how windows lie (convolution_window.py) or what computes them.  Invariant: the three ops of a family share
their attrs and differentiate into each other, so that any order of gradient exists.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.dtypes import float32, float64
from graphc.ir import dim
from graphc.ir.dim import Size
from graphc.ir.types import PartialType, Shape, TensorType
from graphc.ops import build as b
from graphc.ops import convolution_reference as numpy
from graphc.ops.base import (
    REQUIRED,
    Call,
    Convolving,
    Decomposition,
    Inference,
    Kind,
    Op,
    Sample,
    Windows,
    attr_or_value,
    data_inputs,
    register,
)
from graphc.ops.convolution_window import (
    Geometry,
    axes_of,
    filter_windows,
    forward_windows,
    geometry,
    input_windows,
    out_size,
    padding_pairs,
)
from graphc.ops.rules import FLOATS, check_same_dtype, require_rank, show, typed

_SHARED = ("strides", "padding", "explicit_paddings", "data_format", "dilations")


@dataclass(frozen=True, slots=True)
class Family:
    """A convolution and its gradients.  rank: spatial axes.  suffix: of the names of the gradients."""

    name: str
    rank: int
    formats: tuple[str, str]
    suffix: str = ""
    is_depthwise: bool = False

    @property
    def for_input(self) -> str:
        """The op that is the gradient for the input."""
        return f"{self.name}BackpropInput{self.suffix}"

    @property
    def for_filter(self) -> str:
        """The op that is the gradient for the filter."""
        return f"{self.name}BackpropFilter{self.suffix}"

    @property
    def attrs(self) -> dict[str, Any]:
        """The attrs of all three ops."""
        return {"strides": REQUIRED, "padding": REQUIRED, "explicit_paddings": (), "data_format": self.formats[0],
                "dilations": (1,) * (self.rank + 2)}


FAMILIES = (
    Family("Conv2D", 2, ("NHWC", "NCHW")),
    Family("Conv3D", 3, ("NDHWC", "NCDHW"), suffix="V2"),
    Family("DepthwiseConv2dNative", 2, ("NHWC", "NCHW"), is_depthwise=True),
)

# -- inference --------------------------------------------------------------------------------------------------------


def _check_attrs(ctx: Inference, family: Family) -> None:
    """Raise ShapeError for attrs that fit no tensor of the family."""
    data_format, length = ctx.attrs["data_format"], family.rank + 2
    if data_format not in family.formats:
        raise ctx.fail(f"data_format must be {' or '.join(family.formats)}, not {data_format!r}")
    channel, _ = axes_of(data_format, family.rank)
    for name in ("strides", "dilations"):
        values = ctx.attrs[name]
        if not isinstance(values, tuple | list) or len(values) != length:
            raise ctx.fail(f"{name} must be {length} numbers, one per axis of {data_format}, not {values!r}")
        if any(int(n) < 1 for n in values):
            raise ctx.fail(f"{name} must be positive, not {tuple(values)}")
        if values[0] != 1 or values[channel] != 1:
            raise ctx.fail(f"{name} in the batch and depth dimensions must be 1, {tuple(values)} is given for "
                           f"{data_format}")
    mode, pads = ctx.attrs["padding"], tuple(ctx.attrs["explicit_paddings"])
    if mode not in ("SAME", "VALID", "EXPLICIT"):
        raise ctx.fail(f"padding must be 'SAME', 'VALID' or 'EXPLICIT', not {mode!r}")
    if mode != "EXPLICIT" and pads:
        raise ctx.fail(f"explicit_paddings go with padding='EXPLICIT', not with {mode!r}")
    if mode == "EXPLICIT":
        if len(pads) != 2 * length or any(int(n) < 0 for n in pads):
            raise ctx.fail(f"explicit_paddings must be {2 * length} numbers, none negative: before and after each axis "
                           f"of {data_format}, not {pads}")
        if any(pads[2 * a + side] for a in (0, channel) for side in (0, 1)):
            raise ctx.fail(f"explicit_paddings in the batch and depth dimensions must be 0, not {pads}")


def _output(ctx: Inference, family: Family, x: Shape, w: Shape) -> Shape:
    """The shape of the convolution of x with w, checked."""
    channel, spatial = axes_of(ctx.attrs["data_format"], family.rank)
    pairs = padding_pairs(ctx.attrs, family.rank)
    out: list[Size] = list(x)
    out[channel] = _features(ctx, family, x[channel], w)
    for i, a in enumerate(spatial):
        stride, dilation = int(ctx.attrs["strides"][a]), int(ctx.attrs["dilations"][a])
        pads = None if pairs is None else pairs[i]
        if pads is not None:
            reach, room = (w[i] - 1) * dilation + 1, x[a] + sum(pads)
            ctx.at_most(reach, room, f"Negative dimension size caused by subtracting {reach} from {room}: along axis "
                                     f"{a} the filter {show(w)} is larger than the input {show(x)}")
        out[a] = out_size(x[a], w[i], stride, dilation, pads)
    return tuple(out)


def _features(ctx: Inference, family: Family, channels: Size, w: Shape) -> Size:
    """The channels of the output; those of the input must fit the filter."""
    message = f"Depth of input ({channels}) is not a multiple of input depth of filter ({w[-2]}), filter {show(w)}"
    if family.is_depthwise:
        ctx.equal(channels, w[-2], f"the input has {channels} channels, the filter {show(w)} is for {w[-2]}")
        return w[-2] * w[-1]
    if channels == w[-2]:
        return w[-1]
    if not isinstance(channels, int) or not isinstance(w[-2], int):  # groups are made by known sizes alone
        ctx.equal(channels, w[-2], message)
        return w[-1]
    if w[-2] == 0 or channels % w[-2]:
        raise ctx.fail(message, f"give the filter {channels} input channels, or a divisor of them for groups")
    groups = channels // w[-2]
    ctx.divides(w[-1], groups, f"Depth of output ({w[-1]}) is not a multiple of the number of groups ({groups}), "
                               f"filter {show(w)}")
    return w[-1]


def _ranks(ctx: Inference, family: Family, shapes: Sequence[tuple[Shape | None, str]]) -> None:
    for shape, what in shapes:
        require_rank(ctx, shape, family.rank + 2, what, family.rank + 2)


def _forward_infer(family: Family) -> Callable[[Inference], Sequence[PartialType]]:
    def infer(ctx: Inference) -> Sequence[PartialType]:
        x, w = ctx.inputs
        dtype = check_same_dtype(ctx, (x, w), FLOATS)
        _ranks(ctx, family, ((x.shape, "the input"), (w.shape, "the filter")))
        _check_attrs(ctx, family)
        if x.shape is None or w.shape is None:
            out = [ctx.unknown() for _ in range(family.rank + 2)]
            channel, _ = axes_of(ctx.attrs["data_format"], family.rank)
            if x.shape is not None:
                out[0] = x.shape[0]
            if w.shape is not None:
                out[channel] = w.shape[-2] * w.shape[-1] if family.is_depthwise else w.shape[-1]
            return [PartialType(dtype, tuple(out))]
        return [PartialType(dtype, _output(ctx, family, x.shape, w.shape))]
    return infer


def _gradient_infer(family: Family, attr: str) -> Callable[[Inference], Sequence[PartialType]]:
    """Of either gradient: the result has the sizes that attr (or the input it stands for) gives."""
    position = _STATIC[attr]

    def infer(ctx: Inference) -> Sequence[PartialType]:
        first, dy = data_inputs(ctx, {position: attr})
        dtype = check_same_dtype(ctx, (first, dy), FLOATS)
        _ranks(ctx, family, ((first.shape, "the filter" if position == 0 else "the input"),
                             (dy.shape, "out_backprop")))
        _check_attrs(ctx, family)
        sizes = attr_or_value(ctx, position, attr)
        if sizes is None:
            return [PartialType(dtype, tuple(ctx.unknown() for _ in range(family.rank + 2)))]
        if len(sizes) != family.rank + 2 or any(isinstance(n, int) and n < 0 for n in sizes):
            raise ctx.fail(f"{attr} must be {family.rank + 2} sizes, none negative, not {tuple(sizes)}")
        shape = tuple(sizes)
        if first.shape is not None and dy.shape is not None:
            x, w = (shape, first.shape) if position == 0 else (first.shape, shape)
            _check_backprop(ctx, _output(ctx, family, x, w), dy.shape)
        return [PartialType(dtype, shape)]
    return infer


def _check_backprop(ctx: Inference, wanted: Shape, given: Shape) -> None:
    """Require that the gradient of the output has the output's shape."""
    for axis, (n, m) in enumerate(zip(wanted, given, strict=True)):
        ctx.equal(m, n, f"Size of out_backprop doesn't match computed: actual = {m}, computed = {n} along axis {axis}, "
                        f"out_backprop {show(given)}")


# -- the parts of an op -----------------------------------------------------------------------------------------------

_STATIC = {"input_sizes": 0, "filter_sizes": 1}


def _of_forward(family: Family, attrs: Mapping[str, Any], ins: Sequence[TensorType],
                outs: Sequence[TensorType]) -> Geometry:
    return geometry(attrs, ins[0].shape, ins[1].shape, outs[0].shape, family.is_depthwise)


def _of_input(family: Family, attrs: Mapping[str, Any], ins: Sequence[TensorType],
              outs: Sequence[TensorType]) -> Geometry:
    return geometry(attrs, outs[0].shape, ins[0].shape, ins[1].shape, family.is_depthwise)


def _of_filter(family: Family, attrs: Mapping[str, Any], ins: Sequence[TensorType],
               outs: Sequence[TensorType]) -> Geometry:
    return geometry(attrs, ins[0].shape, outs[0].shape, ins[1].shape, family.is_depthwise)


Reader = Callable[[Family, Mapping[str, Any], Sequence[TensorType], Sequence[TensorType]], Geometry]


def _lowered(family: Family, read: Reader, windows: Callable[[Geometry], Windows]) -> Convolving:
    return Convolving(lambda attrs, ins, outs: windows(read(family, attrs, ins, outs)), not family.is_depthwise)


def _flops(family: Family, read: Reader) -> Callable[..., Size]:
    """Two for each multiply-add, those with the padding included."""
    return lambda ins, outs, attrs: read(family, attrs, ins, outs).multiply_adds * 2


def _canonical(attrs: Mapping[str, Any], in_types: Sequence[TensorType]) -> Mapping[str, Any]:
    return {**attrs, **{name: tuple(map(int, attrs[name])) for name in ("strides", "dilations", "explicit_paddings")}}


def _shared(op: Any) -> dict[str, Any]:
    return {name: op.attrs[name] for name in _SHARED}


def _forward_gradient(family: Family) -> Callable[..., Sequence[Any]]:
    def gradient(op: Any, dy: Any) -> Sequence[Any]:
        x, w = op.inputs
        return [b.op(family.for_input, b.shape_of(x), w, dy, **_shared(op)),
                b.op(family.for_filter, x, b.shape_of(w), dy, **_shared(op))]
    return gradient


def _input_gradient(family: Family) -> Callable[..., Sequence[Any]]:
    def gradient(op: Any, dx: Any) -> Sequence[Any]:
        w, dy = b.inputs_of(op)
        return [b.op(family.for_filter, dx, b.shape_of(w), dy, **_shared(op)), b.op(family.name, dx, w, **_shared(op))]
    return gradient


def _filter_gradient(family: Family) -> Callable[..., Sequence[Any]]:
    def gradient(op: Any, dw: Any) -> Sequence[Any]:
        x, dy = b.inputs_of(op)
        return [b.op(family.for_input, b.shape_of(x), dw, dy, **_shared(op)), b.op(family.name, x, dw, **_shared(op))]
    return gradient


def _input_decompose(family: Family) -> Callable[[Decomposition], Sequence[Any] | None]:
    """Windows of one tap with gaps between them: the gradient at stride 1, put where the windows are."""
    def decompose(d: Decomposition) -> Sequence[Any] | None:
        g = _of_input(family, d.attrs, d.in_types, d.out_types)
        if not all(w.taps == 1 and w.is_inside for w in g.windows) or all(w.stride == 1 for w in g.windows):
            return None
        ones = (1,) * (family.rank + 2)
        sizes = g.arrange(g.batch, [w.out for w in g.windows], d.out_types[0].shape[g.channel_axis])
        dense = d.op(family.for_input, *d.inputs, strides=ones, padding="VALID", explicit_paddings=(), dilations=ones,
                     data_format=d.attrs["data_format"], input_sizes=sizes)
        return [d.op("SliceGrad", dense, shape=d.out_types[0].shape, begin=(0,) * len(ones),
                     strides=tuple(d.attrs["strides"]))]
    return decompose


# -- samples ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Case:
    """A convolution in channels-last order: sizes and attrs along the spatial axes."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...] = "SAME"
    dilation: tuple[int, ...] = ()
    last: bool = True

    def sample_parts(self, family: Family) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]]:
        """Shapes of input, filter and output, and the attrs."""
        rank = family.rank
        dilation = self.dilation or (1,) * rank
        explicit = self.padding if isinstance(self.padding, tuple) else None
        pads = explicit or (((0, 0),) * rank if self.padding == "VALID" else (None,) * rank)
        spatial = tuple(int(dim.evaluate(out_size(*args), {})) for args in zip(
            self.x[1:-1], self.w[:rank], self.stride, dilation, pads, strict=True))
        y = (self.x[0], *spatial, self.w[-1] * (self.w[-2] if family.is_depthwise else 1))

        def turned(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return values if self.last else (values[0], values[-1], *values[1:-1])

        attrs = {"strides": turned((1, *self.stride, 1)), "dilations": turned((1, *dilation, 1)),
                 "padding": "EXPLICIT" if explicit else self.padding, "data_format": family.formats[not self.last]}
        if explicit:
            attrs["explicit_paddings"] = tuple(n for pair in turned(((0, 0), *explicit, (0, 0))) for n in pair)
        return turned(self.x), self.w, turned(y), attrs


_CASES: dict[str, tuple[_Case, ...]] = {
    "Conv2D": (
        _Case((2, 5, 7, 3), (3, 3, 3, 4), (1, 1)),
        _Case((2, 6, 5, 2), (3, 2, 2, 3), (2, 2), "VALID"),
        _Case((1, 8, 8, 4), (3, 3, 4, 18), (2, 2)),
        _Case((2, 7, 6, 2), (2, 4, 2, 3), (1, 2)),
        _Case((1, 9, 8, 2), (3, 3, 2, 2), (1, 1), "SAME", (2, 3)),
        _Case((1, 9, 11, 2), (3, 2, 2, 2), (2, 3), "VALID", (2, 2)),
        _Case((2, 5, 5, 4), (3, 3, 2, 6), (1, 1)),
        _Case((2, 5, 4, 3), (3, 3, 3, 2), (2, 1), ((2, 0), (1, 3))),
        _Case((2, 4, 6, 3), (3, 3, 3, 2), (2, 1), last=False),
        _Case((1, 5, 6, 4), (3, 3, 2, 4), (1, 1), ((1, 1), (0, 2)), last=False),
        _Case((3, 4, 5, 17), (1, 1, 17, 9), (1, 1), "VALID"),
        _Case((2, 5, 6, 3), (1, 1, 3, 4), (2, 3)),
        _Case((2, 7, 5, 3), (2, 1, 3, 2), (3, 3), "VALID"),
        _Case((1, 1, 1, 1), (3, 3, 1, 1), (1, 1)),
        _Case((0, 4, 4, 2), (2, 2, 2, 3), (2, 2)),
    ),
    "Conv3D": (
        _Case((2, 3, 4, 5, 2), (2, 3, 2, 2, 3), (1, 1, 1)),
        _Case((1, 4, 5, 4, 2), (2, 2, 3, 2, 2), (2, 1, 2), "VALID"),
        _Case((1, 3, 5, 5, 2), (2, 3, 3, 2, 2), (1, 2, 1), "SAME", (1, 1, 2)),
        _Case((1, 4, 3, 4, 4), (3, 2, 2, 2, 2), (2, 1, 1), last=False),
    ),
    "DepthwiseConv2dNative": (
        _Case((2, 5, 6, 3), (3, 3, 3, 1), (1, 1)),
        _Case((1, 6, 7, 4), (3, 2, 4, 2), (2, 2)),
        _Case((2, 5, 5, 9), (4, 3, 9, 1), (1, 1), "VALID"),
        _Case((1, 8, 7, 2), (3, 3, 2, 3), (1, 1), "SAME", (2, 2)),
        _Case((1, 6, 5, 3), (3, 3, 3, 2), (1, 1), ((1, 0), (2, 1))),
        _Case((2, 4, 5, 3), (2, 3, 3, 2), (2, 2), last=False),
        _Case((1, 4, 4, 1), (3, 3, 1, 2), (1, 1)),
    ),
}


def _samples(family: Family, role: str) -> Callable[[], list[Sample]]:
    def samples() -> list[Sample]:
        out = []
        for number, case in enumerate(_CASES[family.name]):
            x, w, y, attrs = case.sample_parts(family)
            for d in FLOATS if number == 0 else (float32, float64) if number == 1 else (float32,):
                match role:
                    case "forward":
                        out.append(Sample((typed(d, *x), typed(d, *w)), attrs, special=False))
                    case "input":
                        out.append(Sample((typed(d, *w), typed(d, *y)), {**attrs, "input_sizes": x}, special=False))
                    case _:
                        out.append(Sample((typed(d, *x), typed(d, *y)), {**attrs, "filter_sizes": w}, special=False))
        return out
    return samples


# -- the table --------------------------------------------------------------------------------------------------------


def _reference(family: Family, read: Reader, role: str) -> Callable[[Call], Any]:
    def reference(call: Call) -> Any:
        g = read(family, call.attrs, call.in_types, call.out_types)
        first, second = call.arrays
        match role:
            case "forward":
                return numpy.forward(g, first, second)
            case "input":
                return numpy.input_gradient(g, first, second)
            case _:
                return numpy.filter_gradient(g, first, second, tuple(int(n) for n in call.out_types[0].shape))
    return reference


def _register(family: Family) -> None:
    what = f"{'depthwise ' if family.is_depthwise else ''}convolution over {family.rank} spatial axes"
    register(Op(
        name=family.name, kind=Kind.CONTRACTION, inputs=("input", "filter"), attrs=family.attrs,
        infer=_forward_infer(family), gradient=_forward_gradient(family),
        reference=_reference(family, _of_forward, "forward"), lower=_lowered(family, _of_forward, forward_windows),
        flops=_flops(family, _of_forward), canonical=_canonical, samples=_samples(family, "forward"),
        doc=f"A {what}; a filter for a divisor of the input's channels makes groups. TF op {family.name}"
            if not family.is_depthwise else f"A {what}: each channel with filters of its own. TF op {family.name}"))
    register(Op(
        name=family.for_input, kind=Kind.CONTRACTION, inputs=("input_sizes", "filter", "out_backprop"),
        attrs={**family.attrs, "input_sizes": None}, static={0: "input_sizes"},
        infer=_gradient_infer(family, "input_sizes"), gradient=_input_gradient(family),
        reference=_reference(family, _of_input, "input"), lower=_lowered(family, _of_input, input_windows),
        decompose=_input_decompose(family), flops=_flops(family, _of_input), canonical=_canonical,
        samples=_samples(family, "input"),
        doc=f"The gradient of a {what} for its input: a transposed convolution. TF op {family.for_input}"))
    register(Op(
        name=family.for_filter, kind=Kind.CONTRACTION, inputs=("input", "filter_sizes", "out_backprop"),
        attrs={**family.attrs, "filter_sizes": None}, static={1: "filter_sizes"},
        infer=_gradient_infer(family, "filter_sizes"), gradient=_filter_gradient(family),
        reference=_reference(family, _of_filter, "filter"), lower=_lowered(family, _of_filter, filter_windows),
        flops=_flops(family, _of_filter), canonical=_canonical, samples=_samples(family, "filter"),
        doc=f"The gradient of a {what} for its filter. TF op {family.for_filter}"))


for _family in FAMILIES:
    _register(_family)
