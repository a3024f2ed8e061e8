"""Gradients as the language has them: `tf.gradients`, and functions with gradients of their own.

Owns `custom_gradient`.  Knows autodiff; must not know optimizers.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphc.autodiff import gradients, override_gradient
from graphc.dsl.array import zeros_like
from graphc.dsl.control import identity
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.scope import create, name_scope
from graphc.errors import GradientError, ShapeError
from graphc.graph.operation import Operation, at_user
from graphc.graph.tensor import Tensor

__all__ = ["custom_gradient", "gradients", "hessians"]


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return f as a function whose gradient is its own: f(*xs) returns (ys, grad), grad(*dys) the gradients of xs.

    Raises GradientError when grad returns another number of gradients, ShapeError for one of another shape.  Source:
    tf.custom_gradient.
    """
    @functools.wraps(f)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        with name_scope(None, "CustomGradient", args):
            inputs = [identity(convert_to_tensor(x)) for x in args]
            result, backward = f(*inputs, **kwargs)
            several = isinstance(result, (list, tuple))
            outputs = [convert_to_tensor(y) for y in (result if several else [result])]
            # one operation stands for the whole function: gradients of its results become gradients of its arguments
            ends: Sequence[Tensor] = create("IdentityN", None, [*outputs, *inputs])
            count = len(outputs)

            def gradient(operation: Operation, *grads: Any) -> Sequence[Any]:
                given = [zeros_like(y) if g is None else g for y, g in zip(outputs, grads[:count], strict=True)]
                found = backward(*given)
                listed = list(found) if isinstance(found, (list, tuple)) else [found]
                if len(listed) != len(inputs):
                    raise at_user(GradientError,
                                  f"custom_gradient: {f.__name__} has {len(inputs)} arguments, but its gradient "
                                  f"function returns {len(listed)} gradients")
                for x, g in zip(inputs, listed, strict=True):
                    if g is not None and not x.shape.is_compatible_with(g.shape):
                        raise at_user(ShapeError,
                                      f"custom_gradient: the gradient function of {f.__name__} gives the shape "
                                                  f"{g.shape} for an argument of shape {x.shape}", [x])
                return [None] * count + listed

            override_gradient(ends[0].op, gradient)
            return list(ends[:count]) if several else ends[0]

    return decorated


def hessians(ys: Any, xs: Any, name: str = "hessians") -> list[Tensor]:
    """Return the second derivatives of the scalar sum of ys, of shape x.shape + x.shape, for each x of known shape.

    Raises GradientError where a shape is not known.  Source: tf.hessians.
    """
    found = []
    with name_scope(name, values=[ys]):
        for x in xs if isinstance(xs, (list, tuple)) else [xs]:
            value = convert_to_tensor(x)
            count = value.shape.num_elements()
            if count is None:
                raise at_user(GradientError, f"hessians: the shape {value.shape} of {value.name} must be known",
                              [value])
            (first,) = gradients(ys, [value])
            if first is None:
                raise at_user(GradientError, f"hessians: ys do not depend on {value.name}", [value])
            flat = create("Reshape", None, [convert_to_tensor(first), (count,)])
            rows = [gradients(flat[i], [value])[0] for i in range(count)]
            full = [zeros_like(value) if r is None else convert_to_tensor(r) for r in rows]
            sizes = value.shape.as_list()
            found.append(create("Reshape", None, [create("Pack", None, full, {"axis": 0}), (*sizes, *sizes)]))
    return found
