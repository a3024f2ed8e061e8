"""Activations, softmax and the cross-entropies.

Owns them.  Must not know layers or fusion.  Invariant: every gradient is stable where its forward op is: softmax and
the cross-entropies subtract the row's maximum, and the losses keep their derivative as a second output.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import bool_
from graphc.ir.types import PartialType
from graphc.kernel.ir import Expr, const, index
from graphc.kernel.ir import size as size_of
from graphc.kernel.primitives import cast, prim
from graphc.ops import build as b
from graphc.ops.base import (
    Call,
    Decomposition,
    Inference,
    InvalidValue,
    Kind,
    NoGradient,
    NotLowered,
    Op,
    Point,
    Pointwise,
    Sample,
    register,
)
from graphc.ops.elementwise import unary
from graphc.ops.rules import (
    FLOATS,
    INDICES,
    NUMBERS,
    check_dtype,
    check_same_dtype,
    require_rank,
    same_shapes,
    show,
    typed,
)

# -- activations ------------------------------------------------------------------------------------------------------

SELU_SCALE = 1.0507009873554804934193349852946
"""Source: Klambauer et al., "Self-normalizing neural networks", 2017."""
SELU_SCALE_ALPHA = SELU_SCALE * 1.6732632423543772848170429916717


def _c(x: Expr, value: float) -> Expr:
    return const(value, x.dtype)


def _positive(x: Expr, yes: Expr, no: Expr) -> Expr:
    return prim("select", prim("lt", _c(x, 0), x), yes, no)


def _softplus(x: Expr) -> Expr:
    """max(x, 0) + log1p(exp(-|x|)), exact at both ends."""
    return prim("add", prim("max", x, _c(x, 0)), prim("log1p", prim("exp", prim("neg", prim("abs", x)))))


def _elu_reference(x: np.ndarray) -> Any:
    return np.where(x < 0, np.expm1(np.minimum(x, 0)), x)


unary("Relu", NUMBERS, lambda x: np.maximum(x, np.zeros((), x.dtype)), lambda x: prim("max", x, _c(x, 0)),
      lambda x, y, dy: b.op("ReluGrad", dy, y), "max(x, 0). tf.nn.relu")
unary("Relu6", NUMBERS, lambda x: np.minimum(np.maximum(x, np.zeros((), x.dtype)), np.asarray(6, x.dtype)),
      lambda x: prim("min", prim("max", x, _c(x, 0)), _c(x, 6)), lambda x, y, dy: b.op("Relu6Grad", dy, y),
      "min(max(x, 0), 6). tf.nn.relu6", domain=(-3.0, 9.0))
unary("Elu", FLOATS, _elu_reference, lambda x: prim("select", prim("lt", x, _c(x, 0)), prim("expm1", x), x),
      lambda x, y, dy: b.op("EluGrad", dy, y), "x, and exp(x) - 1 below 0. tf.nn.elu")
unary("Selu", FLOATS, lambda x: np.where(x < 0, SELU_SCALE_ALPHA * np.expm1(np.minimum(x, 0)), SELU_SCALE * x),
      lambda x: prim("select", prim("lt", x, _c(x, 0)), prim("mul", _c(x, SELU_SCALE_ALPHA), prim("expm1", x)),
                     prim("mul", _c(x, SELU_SCALE), x)),
      lambda x, y, dy: b.op("SeluGrad", dy, y), "Elu scaled so that activations normalise themselves. tf.nn.selu")
unary("Softplus", FLOATS, lambda x: np.logaddexp(x, 0), _softplus, lambda x, y, dy: b.op("SoftplusGrad", dy, x),
      "log(1 + exp(x)). tf.nn.softplus", ulp=8.0)
unary("Softsign", FLOATS, lambda x: x / (1 + np.abs(x)),
      lambda x: prim("div", x, prim("add", prim("abs", x), _c(x, 1))),
      lambda x, y, dy: b.op("SoftsignGrad", dy, x), "x / (1 + |x|). tf.nn.softsign")


def _slope(name: str, allowed: tuple[Any, ...], reference: Callable[[np.ndarray, np.ndarray], Any],
           scalar: Callable[[Expr, Expr], Expr], gradient: Callable[[Any, Any, Any], tuple[Any, Any]], doc: str,
           ulp: float = 8.0) -> None:
    """Register the derivative of an activation: (gradient, features) -> gradient * slope(features)."""
    register(Op(
        name=name, kind=Kind.ELEMENTWISE, inputs=("gradients", "features"),
        infer=lambda ctx: [PartialType(check_same_dtype(ctx, ctx.inputs, allowed),
                                       same_shapes(ctx, [t.shape for t in ctx.inputs], "the shapes must agree"))],
        gradient=lambda op, dd: gradient(op.inputs[0], op.inputs[1], dd),
        reference=lambda call: reference(*call.arrays),
        lower=Pointwise(scalar=lambda attrs, g, f: scalar(g, f)), doc=doc,
        samples=lambda: [Sample((typed(d, *s),) * 2, differentiable=d.is_floating, ulp=ulp)
                         for d in allowed for s in ((), (5, 7), (0, 2))]))


def _masked(name: str) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    return lambda g, f, dd: (b.op(name, dd, f), b.zeros_like(f))


_slope("ReluGrad", NUMBERS, lambda g, f: np.where(f > 0, g, np.zeros((), g.dtype)),
       lambda g, f: _positive(f, g, _c(g, 0)),
       _masked("ReluGrad"), "gradient where the feature is above 0. TF op ReluGrad")
_slope("Relu6Grad", NUMBERS, lambda g, f: np.where((f > 0) & (f < 6), g, np.zeros((), g.dtype)),
       lambda g, f: prim("select", prim("and", prim("lt", _c(f, 0), f), prim("lt", f, _c(f, 6))), g, _c(g, 0)),
       _masked("Relu6Grad"), "gradient where the feature is between 0 and 6. TF op Relu6Grad")


def _exponential_slope(scale: float, below: float) -> tuple[Any, Any]:
    """Of Elu and Selu, from their output y: below 0 the slope is y + below, above it is scale."""
    def reference(g: np.ndarray, y: np.ndarray) -> Any:
        return np.where(y < 0, g * (y + below), g * scale)

    def scalar(g: Expr, y: Expr) -> Expr:
        above = g if scale == 1 else prim("mul", g, _c(g, scale))
        return prim("select", prim("lt", y, _c(y, 0)), prim("mul", g, prim("add", y, _c(y, below))), above)
    return reference, scalar


def _exponential_second(name: str) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    return lambda g, y, dd: (b.op(name, dd, y), b.select(b.op("Less", y, 0), b.mul(dd, g), 0))


_slope("EluGrad", FLOATS, *_exponential_slope(1.0, 1.0), _exponential_second("EluGrad"),
       "The gradient of Elu from its output. TF op EluGrad", ulp=1024.0)
_slope("SeluGrad", FLOATS, *_exponential_slope(SELU_SCALE, SELU_SCALE_ALPHA), _exponential_second("SeluGrad"),
       "The gradient of Selu from its output. TF op SeluGrad", ulp=1024.0)


def _softplus_second(g: Any, f: Any, dd: Any) -> tuple[Any, Any]:
    s = b.op("Sigmoid", f)
    return b.op("SoftplusGrad", dd, f), b.mul(b.mul(dd, g), b.mul(s, b.sub(1, s)))


_slope("SoftplusGrad", FLOATS, lambda g, f: g / (1 + np.exp(-f)),
       lambda g, f: prim("div", g, prim("add", _c(f, 1), prim("exp", prim("neg", f)))), _softplus_second,
       "The gradient of Softplus: gradient * sigmoid(features). TF op SoftplusGrad")


def _softsign_slope(g: Expr, f: Expr) -> Expr:
    slope = prim("div", _c(f, 1), prim("add", prim("abs", f), _c(f, 1)))  # its square may underflow where g is large
    return prim("mul", prim("mul", g, slope), slope)


def _softsign_second(g: Any, f: Any, dd: Any) -> tuple[Any, Any]:
    base = b.add(b.op("Abs", f), 1)
    cubed = b.mul(base, b.op("Square", base))
    return b.op("SoftsignGrad", dd, f), b.div(b.mul(b.mul(dd, g), b.mul(b.op("Sign", f), -2)), cubed)


_slope("SoftsignGrad", FLOATS, lambda g, f: g / (1 + np.abs(f)) / (1 + np.abs(f)), _softsign_slope, _softsign_second,
       "The gradient of Softsign: gradient / (1 + |features|)^2. TF op SoftsignGrad")


def _leaky(name: str, inputs: tuple[str, ...], gradient: Callable[..., Sequence[Any]], doc: str) -> None:
    """Register LeakyRelu(features) or LeakyReluGrad(gradients, features): 1 or alpha, by the feature's sign."""
    def reference(call: Call) -> Any:
        g, f = call.arrays[0], call.arrays[-1]
        return np.where(f > 0, g, g * call.attrs["alpha"])

    def scalar(attrs: Any, *args: Expr) -> Expr:
        g, f = args[0], args[-1]
        return _positive(f, g, prim("mul", g, _c(g, attrs["alpha"])))

    register(Op(
        name=name, kind=Kind.ELEMENTWISE, inputs=inputs, attrs={"alpha": 0.2},
        infer=lambda ctx: [PartialType(check_same_dtype(ctx, ctx.inputs, FLOATS),
                                       same_shapes(ctx, [t.shape for t in ctx.inputs], "the shapes must agree"))],
        gradient=gradient, reference=reference, lower=Pointwise(scalar=scalar), doc=doc,
        samples=lambda: [Sample((typed(d, *s),) * len(inputs), {"alpha": a}) for d in FLOATS
                         for s, a in (((), 0.2), ((5, 7), 0.01), ((0, 2), 0.2))]))


_leaky("LeakyRelu", ("features",),
       lambda op, dy: [b.op("LeakyReluGrad", dy, op.inputs[0], alpha=op.attrs["alpha"])],
       "x, and alpha * x below 0. tf.nn.leaky_relu")
_leaky("LeakyReluGrad", ("gradients", "features"),
       lambda op, dd: [b.op("LeakyReluGrad", dd, op.inputs[1], alpha=op.attrs["alpha"]), b.zeros_like(op.inputs[1])],
       "The gradient of LeakyRelu. TF op LeakyReluGrad")

# -- bias -------------------------------------------------------------------------------------------------------------


def _bias_infer(ctx: Inference) -> Sequence[PartialType]:
    value, bias = ctx.inputs
    dtype = check_same_dtype(ctx, (value, bias), NUMBERS)
    require_rank(ctx, value.shape, 2, "the value")
    require_rank(ctx, bias.shape, 1, "the bias", 1)
    shape = value.shape
    if shape is not None and bias.shape is not None:
        axis = _channel(ctx.attrs["data_format"], len(shape))
        met = ctx.equal(shape[axis], bias.shape[0], f"a bias of shape {show(bias.shape)} does not fit axis {axis} of "
                                                    f"{show(shape)}")
        shape = tuple(met if i == axis else n for i, n in enumerate(shape))
    return [PartialType(dtype, shape)]


def _channel(data_format: str, rank: int) -> int:
    return 1 if data_format.startswith("NC") else rank - 1


def _bias_gradient(op: Any, dy: Any) -> Sequence[Any]:
    shape = dy.type.shape or op.inputs[0].type.shape
    if shape is None:
        raise TypeError("the gradient of BiasAdd needs a rank that is known while the graph is built")
    axis = _channel(op.attrs["data_format"], len(shape))
    return [dy, b.op("Sum", dy, tuple(i for i in range(len(shape)) if i != axis))]


def _bias_reference(call: Call) -> Any:
    value, bias = call.arrays
    along = [1] * value.ndim
    along[_channel(call.attrs["data_format"], value.ndim)] = -1
    return value + bias.reshape(along)


def _bias_decompose(d: Decomposition) -> Sequence[Any]:
    value, bias = d.inputs
    rank = d.in_types[0].rank
    axis = _channel(d.attrs["data_format"], rank)
    if axis != rank - 1:
        bias = d.op("ExpandDims", bias, axis=tuple(range(1, rank - axis)))
    return [d.op("Add", value, bias)]


register(Op(
    name="BiasAdd", kind=Kind.ELEMENTWISE, inputs=("value", "bias"), attrs={"data_format": "NHWC"}, infer=_bias_infer,
    gradient=_bias_gradient, reference=_bias_reference, lower=NotLowered("decomposed into Add"),
    decompose=_bias_decompose,
    samples=lambda: [Sample((typed(d, *s), typed(d, n)), {"data_format": f}, differentiable=d.is_floating)
                     for d in NUMBERS for s, n, f in (((5, 7), 7, "NHWC"), ((2, 3, 4, 5), 5, "NHWC"),
                                                     ((2, 3, 4, 5), 3, "NCHW"), ((0, 3), 3, "NHWC"))],
    doc='A vector added along the channels: the last axis, or axis 1 where data_format begins with "NC". '
        'tf.nn.bias_add'))

# -- softmax ----------------------------------------------------------------------------------------------------------


def _rows_infer(ctx: Inference) -> Sequence[PartialType]:
    (x,) = ctx.inputs
    check_dtype(ctx, x, FLOATS)
    require_rank(ctx, x.shape, 1, "the logits")
    return [PartialType(x.dtype, x.shape)]


def _last(d: Decomposition) -> tuple[int, ...]:
    return (d.in_types[0].rank - 1,)


def _log_softmax_reference(x: np.ndarray) -> np.ndarray:
    if x.shape[-1] == 0:
        return x
    shifted = x - np.max(x, -1, keepdims=True)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), -1, keepdims=True)))


def _softmax_reference(x: np.ndarray) -> np.ndarray:
    if x.shape[-1] == 0:
        return x
    e = np.exp(x - np.max(x, -1, keepdims=True))
    return np.asarray(e / np.sum(e, -1, keepdims=True))


def _softmax_decompose(d: Decomposition) -> Sequence[Any]:
    (x,) = d.inputs
    e = d.op("Exp", d.op("Sub", x, d.op("Max", x, axis=_last(d), keepdims=True)))
    total = d.op("Sum", e, axis=_last(d), keepdims=True)  # between 1 and the row's length: its reciprocal is safe
    return [d.op("Mul", e, d.op("Reciprocal", total))]


def _log_softmax_decompose(d: Decomposition) -> Sequence[Any]:
    (x,) = d.inputs
    shifted = d.op("Sub", x, d.op("Max", x, axis=_last(d), keepdims=True))
    return [d.op("Sub", shifted, d.op("Log", d.op("Sum", d.op("Exp", shifted), axis=_last(d), keepdims=True)))]


def _softmax_gradient(op: Any, dy: Any) -> Sequence[Any]:
    y = op.outputs[0]
    total = b.op("Sum", b.mul(dy, y), (-1,), keepdims=True)
    return [b.mul(b.sub(dy, total), y)]


def _log_softmax_gradient(op: Any, dy: Any) -> Sequence[Any]:
    total = b.op("Sum", dy, (-1,), keepdims=True)
    return [b.sub(dy, b.mul(total, b.op("Exp", op.outputs[0])))]


def _row_samples() -> list[Sample]:
    shapes = ((7,), (5, 10), (2, 3, 17), (0, 4), (4, 1))
    return [Sample((typed(d, *s),), ulp=16.0, special=False) for d in FLOATS for s in shapes]


register(Op(
    name="Softmax", kind=Kind.REDUCTION, inputs=("logits",), infer=_rows_infer, gradient=_softmax_gradient,
    reference=lambda call: _softmax_reference(call.arrays[0]), lower=NotLowered("decomposed into a row of ops"),
    decompose=_softmax_decompose, samples=_row_samples,
    doc="exp(x) divided by its sum along the last axis. tf.nn.softmax"))
register(Op(
    name="LogSoftmax", kind=Kind.REDUCTION, inputs=("logits",), infer=_rows_infer, gradient=_log_softmax_gradient,
    reference=lambda call: _log_softmax_reference(call.arrays[0]), lower=NotLowered("decomposed into a row of ops"),
    decompose=_log_softmax_decompose, samples=_row_samples,
    doc="log(softmax(x)) along the last axis. tf.nn.log_softmax"))

# -- cross-entropies --------------------------------------------------------------------------------------------------


def _dense_infer(ctx: Inference) -> Sequence[PartialType]:
    features, labels = ctx.inputs
    dtype = check_same_dtype(ctx, (features, labels), FLOATS)
    shapes = (features.shape, labels.shape)
    for shape, what in zip(shapes, ("the logits", "the labels"), strict=True):
        require_rank(ctx, shape, 2, what, 2)
    known = [s for s in shapes if s is not None]
    if len(known) < 2:
        shape = (ctx.unknown(), ctx.unknown()) if not known else known[0]
    else:
        shape = ctx.broadcast(*known)
    return [PartialType(dtype, shape[:1]), PartialType(dtype, shape)]


def _dense_reference(call: Call) -> Any:
    x, labels = np.broadcast_arrays(*call.arrays)
    if x.shape[1] == 0:
        return np.zeros(x.shape[:1]), x
    logs = _log_softmax_reference(x)
    return -np.sum(np.where(labels == 0, 0.0, labels * logs), 1), np.exp(logs) - labels


def _dense_decompose(d: Decomposition) -> Sequence[Any]:
    x, labels = d.inputs
    full = d.out_types[1].shape
    if d.in_types[0].shape != full:
        x = d.op("BroadcastTo", x, shape=full)
    shifted = d.op("Sub", x, d.op("Max", x, axis=(1,), keepdims=True))
    e = d.op("Exp", shifted)
    total = d.op("Sum", e, axis=(1,), keepdims=True)
    losses = d.op("Mul", labels, d.op("Sub", d.op("Log", total), shifted))
    probabilities = d.op("Mul", e, d.op("Reciprocal", total))
    return [d.op("Sum", losses, axis=(1,), keepdims=False), d.op("Sub", probabilities, labels)]


def _dense_gradient(op: Any, dloss: Any, dbackprop: Any) -> Sequence[Any]:
    """From the second output; where that itself is differentiated, the softmax's own derivative is added.

    Source: TF's _SoftmaxCrossEntropyWithLogitsGrad.
    """
    logits, labels = op.inputs
    backprop = op.outputs[1]
    grad: Any = None
    to_labels: Any = None
    if dloss is not None:
        column = b.op("ExpandDims", dloss, (-1,))
        grad = b.mul(column, backprop)
        to_labels = b.op("Neg", b.mul(column, b.op("LogSoftmax", logits)))
    if dbackprop is not None:
        y = b.op("Softmax", logits)
        inner = b.op("Sum", b.mul(dbackprop, y), (1,), keepdims=True)
        second = b.mul(b.sub(dbackprop, inner), y)
        grad = second if grad is None else b.add(grad, second)
        minus = b.op("Neg", dbackprop)
        to_labels = minus if to_labels is None else b.add(to_labels, minus)
    return [b.unbroadcast(grad, logits), b.unbroadcast(to_labels, labels)]


def _dense_samples() -> list[Sample]:
    rng = np.random.default_rng(5)
    return [Sample((typed(d, *s), typed(d, *t)), arrays={1: rng.dirichlet(np.ones(t[1]), t[0])}, ulp=16.0,
                   special=False)
            for d in FLOATS for s, t in (((5, 10), (5, 10)), ((1, 3), (1, 3)), ((0, 4), (0, 4)), ((5, 10), (1, 10)))]


register(Op(
    name="SoftmaxCrossEntropyWithLogits", kind=Kind.REDUCTION, inputs=("features", "labels"), outputs=2,
    infer=_dense_infer, gradient=_dense_gradient, reference=_dense_reference,
    lower=NotLowered("decomposed into a row of ops"), decompose=_dense_decompose,
    samples=_dense_samples,
    doc="Loss -sum(labels * log(softmax(features))) of each row, and its derivative softmax(features) - labels, for "
        "labels that sum to 1. tf.nn.softmax_cross_entropy_with_logits"))


def _sparse_infer(ctx: Inference) -> Sequence[PartialType]:
    features, labels = ctx.inputs
    check_dtype(ctx, features, FLOATS, "the logits")
    check_dtype(ctx, labels, INDICES, "the labels")
    require_rank(ctx, features.shape, 2, "the logits", 2)
    require_rank(ctx, labels.shape, 1, "the labels", 1)
    shape = features.shape or (ctx.unknown(), ctx.unknown())
    if labels.shape is not None:
        message = f"{show(labels.shape)} labels do not fit logits of shape {show(features.shape)}"
        shape = (ctx.equal(shape[0], labels.shape[0], message), shape[1])
    return [PartialType(features.dtype, shape[:1]), PartialType(features.dtype, shape)]


_LABEL = "a label lies outside the range of classes"


def _sparse_reference(call: Call) -> Any:
    x, labels = call.arrays
    if labels.size and (labels.min() < 0 or labels.max() >= x.shape[1]):
        raise InvalidValue(_LABEL)
    logs = _log_softmax_reference(x)
    rows = np.arange(x.shape[0])
    backprop = np.exp(logs)
    backprop[rows, labels] -= 1
    return -logs[rows, labels], backprop


def _sparse_decompose(d: Decomposition) -> Sequence[Any]:
    x, labels = d.inputs
    shape = d.in_types[0].shape
    dtype = d.in_types[0].dtype
    shifted = d.op("Sub", x, d.op("Max", x, axis=(1,), keepdims=True))
    e = d.op("Exp", shifted)
    total = d.op("Sum", e, axis=(1,), keepdims=True)
    at_label = d.op("LabelMask", labels, classes=shape[1])
    chosen = d.op("Sum", d.op("SelectV2", at_label, shifted, d.constant(0, dtype)), axis=(1,), keepdims=False)
    log_total = d.op("Squeeze", d.op("Log", total), axis=(1,))
    softmax = d.op("Mul", e, d.op("Reciprocal", total))
    return [d.op("Sub", log_total, chosen), d.op("Sub", softmax, d.op("Cast", at_label, dtype=dtype))]


def _sparse_gradient(op: Any, dloss: Any, dbackprop: Any) -> Sequence[Any]:
    logits, backprop = op.inputs[0], op.outputs[1]
    grad = None if dloss is None else b.mul(b.op("ExpandDims", dloss, (-1,)), backprop)
    if dbackprop is not None:
        y = b.op("Softmax", logits)
        inner = b.op("Sum", b.mul(dbackprop, y), (1,), keepdims=True)
        second = b.mul(b.sub(dbackprop, inner), y)
        grad = second if grad is None else b.add(grad, second)
    return [grad, None]


def _sparse_samples() -> list[Sample]:
    rng = np.random.default_rng(7)
    return [Sample((typed(d, *s), typed(t, s[0])), arrays={1: rng.integers(0, s[1], s[0]).astype(t.as_numpy_dtype)},
                   ulp=16.0, special=False)
            for d in FLOATS for t in INDICES for s in ((5, 10), (1, 3), (0, 4), (17, 1))]


register(Op(
    name="SparseSoftmaxCrossEntropyWithLogits", kind=Kind.REDUCTION, inputs=("features", "labels"), outputs=2,
    infer=_sparse_infer, gradient=_sparse_gradient, reference=_sparse_reference,
    lower=NotLowered("decomposed into a row of ops"), decompose=_sparse_decompose, samples=_sparse_samples,
    doc="Loss -log(softmax(features))[label] of each row, and its derivative. A label outside the classes is an error. "
        "tf.nn.sparse_softmax_cross_entropy_with_logits"))


def _mask_infer(ctx: Inference) -> Sequence[PartialType]:
    (labels,) = ctx.inputs
    check_dtype(ctx, labels, INDICES, "the labels")
    if labels.shape is None:
        return [PartialType(bool_, None)]
    return [PartialType(bool_, (*labels.shape, ctx.attrs["classes"]))]


def _mask_reference(call: Call) -> Any:
    (labels,) = call.arrays
    classes = int(call.attrs["classes"])
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise InvalidValue(_LABEL)
    return labels[..., None] == np.arange(classes)


def _mask_point(p: Point) -> Expr:
    classes = size_of(p.attrs["classes"])
    label = cast(p.load(0, p.index[:-1]), classes.dtype)
    ok = prim("and", prim("le", index(0), label), prim("lt", label, classes))
    return prim("eq", p.guard(label, ok, index(0), "index", _LABEL), p.index[-1])


register(Op(
    name="LabelMask", kind=Kind.INDEXING, inputs=("labels",), attrs={"classes": 0}, infer=_mask_infer,
    gradient=NoGradient("the labels are integers"), reference=_mask_reference, lower=Pointwise(point=_mask_point),
    samples=lambda: [Sample((typed(t, *s),), {"classes": 4}, differentiable=False,
                            arrays={0: np.arange(int(np.prod(s))).reshape(s).astype(t.as_numpy_dtype) % 4})
                     for t in INDICES for s in ((5,), (), (0,), (2, 3))],
    doc="Whether each class is the label's; a label outside the classes is an error"))
