"""The public names: everything that `import graphc as tf` offers, by TensorFlow 1's names.

Owns the table alone; graphc/__init__.py loads it at the first use of a name, so that `import graphc` costs nothing.
Invariant: a name here means what it meant in TensorFlow 1.15, or it is not here.
"""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from graphc import dtypes, errors, frames
from graphc.autodiff import gradients
from graphc.dsl import (
    app,
    array,
    checks,
    clip,
    collections,
    config,
    control,
    elementwise,
    gradient,
    host,
    image,
    initializers,
    layers,
    linear,
    log,
    losses,
    math,
    nn,
    operators,
    random,
    signature,
    spatial,
    train,
    variables,
)
from graphc.dsl.convert import convert_n_to_tensor, convert_to_tensor
from graphc.graph import shape
from graphc.graph.fetch import IndexedSlicesValue
from graphc.graph.graph import Graph, get_default_graph, get_default_session, reset_default_graph
from graphc.graph.operation import Operation
from graphc.graph.tensor import IndexedSlices, Tensor
from graphc.session import InteractiveSession, Session

_MODULES = (array, checks, clip, collections, control, elementwise, gradient, host, linear, random, signature, spatial,
            variables)

_PYTHON_NAMES = {"range_": "range", "tuple_": "tuple", "slice_": "slice"}
"""Functions whose name is one of Python's own inside the language."""


def _public(module: Any) -> dict[str, Any]:
    return {_PYTHON_NAMES.get(name, name): getattr(module, name) for name in module.__all__}


def _names() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for module in _MODULES:
        names |= _public(module)
    names |= _public(math)
    names |= {d.name: d for d in dtypes.ALL} | {"half": dtypes.float16, "double": dtypes.float64}
    names |= {name: getattr(initializers, name) for name in (
        "constant_initializer", "glorot_normal_initializer", "glorot_uniform_initializer", "ones_initializer",
        "orthogonal_initializer", "random_normal_initializer", "random_uniform_initializer",
        "truncated_normal_initializer", "variance_scaling_initializer", "zeros_initializer")}
    names |= {name: getattr(config, name) for name in (
        "ConfigProto", "GPUOptions", "GraphOptions", "OptimizerOptions", "RunMetadata", "RunOptions")}
    names |= {
        "DType": dtypes.DType, "Dimension": shape.Dimension, "Graph": Graph, "GraphKeys": collections.GraphKeys,
        "IndexedSlices": IndexedSlices, "IndexedSlicesValue": IndexedSlicesValue,
        "InteractiveSession": InteractiveSession, "Operation": Operation, "Session": Session, "Tensor": Tensor,
        "TensorShape": shape.TensorShape, "app": SimpleNamespace(flags=app, run=app.run), "as_dtype": dtypes.as_dtype,
        "broadcast_static_shape": shape.broadcast_static_shape, "convert_n_to_tensor": convert_n_to_tensor,
        "convert_to_tensor": convert_to_tensor, "errors": errors, "flags": app,
        "get_default_graph": get_default_graph, "get_default_session": get_default_session, "gradients": gradients,
        "image": image, "initializers": initializers, "layers": layers, "logging": log, "losses": losses, "math": math,
        "name_scope": control.name_scope, "newaxis": None, "nn": nn, "reset_default_graph": reset_default_graph,
        "train": train,
    }
    # names of before TensorFlow 1.0, and further names of the same functions
    names |= {
        "neg": elementwise.negative, "mul": elementwise.multiply, "sub": elementwise.subtract,
        "mod": elementwise.floormod, "floor_div": elementwise.floordiv, "op_scope": control.name_scope,
        "arg_max": math.arg_max, "arg_min": math.arg_min, "lin_space": array.linspace,
    }
    return names


def _namespaces() -> dict[str, Any]:
    """The small namespaces that gather functions from several modules."""
    linalg = {name: getattr(linear, name) for name in ("einsum", "matmul", "matvec", "norm", "tensordot", "trace")}
    linalg |= {"band_part": array.matrix_band_part, "diag": array.matrix_diag, "diag_part": array.matrix_diag_part,
               "eye": array.eye, "l2_normalize": nn.l2_normalize, "transpose": array.matrix_transpose}
    return {
        "linalg": SimpleNamespace(**linalg),
        "random": SimpleNamespace(
            categorical=random.categorical, multinomial=random.multinomial, normal=random.random_normal,
            set_random_seed=random.set_random_seed, shuffle=random.random_shuffle, uniform=random.random_uniform,
            truncated_normal=random.truncated_normal),
        "contrib": SimpleNamespace(
            framework=SimpleNamespace(get_or_create_global_step=train.get_or_create_global_step,
                                      get_global_step=train.get_global_step),
            layers=SimpleNamespace(
                dropout=_contrib_dropout, flatten=layers.flatten, fully_connected=layers.fully_connected,
                l1_regularizer=layers.l1_regularizer, l2_regularizer=layers.l2_regularizer, linear=_contrib_linear,
                variance_scaling_initializer=initializers.he_normal, xavier_initializer=_xavier,
                xavier_initializer_conv2d=_xavier)),
    }


def _xavier(uniform: bool = True, seed: int | None = None, dtype: Any = dtypes.float32) -> Any:
    """Return Glorot's initializer.  Source: tf.contrib.layers.xavier_initializer; Glorot and Bengio (2010)."""
    return initializers.VarianceScaling(1.0, "fan_avg", "uniform" if uniform else "truncated_normal", seed, dtype)


def _contrib_dropout(inputs: Any, keep_prob: Any = 0.5, noise_shape: Any = None, is_training: Any = True,
                     outputs_collections: Any = None, scope: str | None = None, seed: int | None = None) -> Tensor:
    """Return nn.dropout(inputs, keep_prob) while training.  Source: tf.contrib.layers.dropout."""
    return layers.dropout(inputs, 1 - keep_prob, noise_shape, seed, is_training, scope)


def _contrib_linear(inputs: Any, num_outputs: int, **arguments: Any) -> Tensor:
    """Return fully_connected without an activation.  Source: tf.contrib.layers.linear."""
    return layers.fully_connected(inputs, num_outputs, activation_fn=None, **arguments)


PUBLIC: dict[str, Any] = _names() | _namespaces()
"""Every public name."""

__all__ = ["PUBLIC", "operators"]

frames.install()
