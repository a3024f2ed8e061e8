"""Making operations by name: what gradients, and the language above, build graphs with.

Owns `op` and the few conveniences that many gradients share, so that op files need not import each other.  Knows the
registry and the graph; must not know sessions or the IR.  Invariant: nothing here adds an operation that changes no
value: a reduction to a shape that a tensor already has is the tensor.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.dtypes import DType, int32
from graphc.graph.graph import get_default_graph
from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor
from graphc.ops.base import Op, lookup


def op(op_type: str, /, *inputs: Any, **attrs: Any) -> Any:
    """Append an operation to the default graph and return its output, or a tuple of its outputs.

    inputs: tensors in the op's order.  A static input may be a plain value (an int, a tuple), which then becomes the
    attr; a number elsewhere becomes a constant of the first tensor's dtype.
    """
    entry = lookup(op_type)
    given = list(inputs)
    static = {i: attr for i, attr in entry.static.items() if i < len(given)}
    if static and len(static) == len(entry.static) and not any(isinstance(given[i], Tensor) for i in static):
        attrs |= {attr: given[i] for i, attr in static.items()}
        given = [v for i, v in enumerate(given) if i not in static]
    elif static:
        given = [constant(v, int32) if i in static and not isinstance(v, Tensor) else v for i, v in enumerate(given)]
    like = next((v for v in given if isinstance(v, Tensor)), None)
    tensors = [v if isinstance(v, Tensor) else constant(v, cast(Tensor, like).dtype) for v in given]
    return _outputs(get_default_graph().create_op(op_type, tensors, attrs), entry)


def _outputs(made: Operation, entry: Op) -> Any:
    return made.outputs[0] if entry.outputs == 1 else made.outputs


def constant(value: Any, dtype: DType) -> Tensor:
    """Return a constant of `dtype`."""
    content = np.asarray(value, dtype.as_numpy_dtype)
    return cast(Tensor, op("Const", value=content, dtype=dtype))


def inputs_of(made: Operation) -> tuple[Tensor, ...]:
    """Return the inputs of an operation that are not static."""
    entry: Op = made.op
    return tuple(made.inputs[i] for i in entry.data_positions(made.attrs, len(made.inputs)))


def static_of(made: Operation, attr: str) -> Any:
    """Return a static input of an operation: the attr's plain value, or the tensor, as `op` takes it."""
    value = made.attrs.get(attr)
    if value is not None:
        return value
    (position,) = [i for i, name in cast(Op, made.op).static.items() if name == attr]
    return made.inputs[position]


def known_static(made: Operation, attr: str) -> Any:
    """Return the value of a static input as plain ints and sizes (a tuple, or a scalar), or None where not known."""
    value = static_of(made, attr)
    if not isinstance(value, Tensor):
        return value
    return None if value.value is None else _plain(value.value)


def _plain(content: Any) -> Any:
    """An array, or an element of one (of sizes, elements are no arrays), as plain numbers and sizes."""
    if isinstance(content, np.ndarray):
        return tuple(map(_plain, content)) if content.ndim else _plain(content.item())
    return content.item() if isinstance(content, np.generic) else content


def add(x: Any, y: Any) -> Tensor:
    """Return x + y."""
    return cast(Tensor, op("Add", x, y))


def sub(x: Any, y: Any) -> Tensor:
    """Return x - y; x may be a number."""
    return cast(Tensor, op("Sub", *_both(x, y)))


def mul(x: Any, y: Any) -> Tensor:
    """Return x * y."""
    return cast(Tensor, op("Mul", x, y))


def div(x: Any, y: Any) -> Tensor:
    """Return x / y of floats; x may be a number."""
    return cast(Tensor, op("RealDiv", *_both(x, y)))


def _both(x: Any, y: Any) -> tuple[Any, Any]:
    return (x if isinstance(x, Tensor) else constant(x, y.dtype)), y


def select(condition: Tensor, x: Any, y: Any) -> Tensor:
    """Return x where `condition` holds, else y; one of them is a tensor, the other may be a number."""
    like = x if isinstance(x, Tensor) else y
    x, y = (v if isinstance(v, Tensor) else constant(v, like.dtype) for v in (x, y))
    return cast(Tensor, op("SelectV2", condition, x, y))


def zeros_like(x: Tensor) -> Tensor:
    """Return zeros of x's shape and dtype."""
    return cast(Tensor, op("ZerosLike", x))


def static_shape(x: Tensor) -> tuple[int, ...] | None:
    """Return the shape of x where every size is known, else None."""
    shape = x.type.shape
    if shape is None or not all(isinstance(n, int) for n in shape):
        return None
    return cast("tuple[int, ...]", shape)


def shape_of(x: Tensor) -> Any:
    """Return the shape of x: a tuple of ints where all are known, else an int32 tensor.  A static input takes both."""
    known = static_shape(x)
    return op("Shape", x) if known is None else known


def same_shape(x: Tensor, y: Tensor) -> bool:
    """Whether x and y are known to have one shape."""
    return x.type.shape is not None and x.type.shape == y.type.shape


def reshape_like(x: Tensor, like: Tensor) -> Tensor:
    """Return x in the shape of `like`."""
    return x if same_shape(x, like) else cast(Tensor, op("Reshape", x, shape_of(like)))


def broadcast_like(x: Tensor, like: Tensor) -> Tensor:
    """Return x broadcast to the shape of `like`."""
    return x if same_shape(x, like) else cast(Tensor, op("BroadcastTo", x, shape_of(like)))


def unbroadcast(grad: Tensor, like: Tensor) -> Tensor:
    """Return `grad` summed over the axes along which `like` was broadcast to its shape.

    Nothing is added where the shapes are known to agree; a Sum where only leading axes go; else a SumToShape, whose
    axes follow from the sizes when a program is compiled.
    """
    if same_shape(grad, like):
        return grad
    big, small = grad.type.shape, like.type.shape
    if big is not None and small is not None and big[len(big) - len(small):] == small:
        return cast(Tensor, op("Sum", grad, tuple(range(len(big) - len(small))), keepdims=False))
    return cast(Tensor, op("SumToShape", grad, shape_of(like)))


def concat(axis: int, values: Sequence[Tensor]) -> Tensor:
    """Return `values` joined along `axis`."""
    return values[0] if len(values) == 1 else cast(Tensor, op("ConcatV2", axis, *values))


def matmul(a: Tensor, b: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """Return a @ b."""
    return cast(Tensor, op("MatMul", a, b, transpose_a=transpose_a, transpose_b=transpose_b))
