"""Random tensors, and the seeds that decide them.

Owns TensorFlow 1's names for them and its rule of seeds.  Must not know how numbers are drawn.
Invariant: with a graph seed or an op seed, the same session code draws the same numbers; with neither, other numbers in
every session.
"""
from __future__ import annotations

from typing import Any, cast

from graphc import dtypes
from graphc.dsl import elementwise as ew
from graphc.dsl.array import static_sizes
from graphc.dsl.convert import convert_to_tensor
from graphc.dsl.indexing import gather
from graphc.dsl.reduction import static_axis
from graphc.dsl.scope import create, name_scope
from graphc.errors import DTypeError, GraphError
from graphc.graph.graph import get_default_graph
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor

__all__ = ["categorical", "get_seed", "multinomial", "random_crop", "random_normal", "random_shuffle", "random_uniform",
           "set_random_seed", "truncated_normal"]

DEFAULT_GRAPH_SEED = 87654321


def set_random_seed(seed: int) -> None:
    """Set the seed of the default graph.  Source: tf.set_random_seed."""
    get_default_graph().seed = None if seed is None else int(seed)


def get_seed(op_seed: int | None) -> tuple[int, int]:
    """Return the two seeds of an operation: of the graph and its own.  (0, 0) means: draw them from the system.

    Without a seed of its own an operation takes the number of operations made before it.  Source: tf.get_seed.
    """
    graph = get_default_graph()
    if graph.seed is not None:
        seeds = graph.seed, graph.operation_count if op_seed is None else int(op_seed)
    elif op_seed is not None:
        seeds = DEFAULT_GRAPH_SEED, int(op_seed)
    else:
        return 0, 0
    return (0, 2**31 - 1) if seeds == (0, 0) else seeds


def _draw(op_type: str, shape: Any, dtype: dtypes.DType, seed: int | None) -> Tensor:
    first, second = get_seed(seed)
    return cast(Tensor, create(op_type, None, [static_sizes(shape)], {"dtype": dtype, "seed": first, "seed2": second}))


def random_uniform(shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = dtypes.float32,
                   seed: int | None = None,
                   name: str | None = None) -> Tensor:
    """Return numbers uniform in [minval, maxval); maxval is 1 for floats and must be given for integers.

    Source: tf.random_uniform.
    """
    wanted = dtypes.as_dtype(dtype)
    if maxval is None:
        if not wanted.is_floating:
            raise at_user(GraphError, "random_uniform: maxval must be given for integers")
        maxval = 1
    with name_scope(name, "random_uniform", [shape, minval, maxval]) as scope:
        low, high = convert_to_tensor(minval, wanted, "min"), convert_to_tensor(maxval, wanted, "max")
        if wanted.is_integer:
            first, second = get_seed(seed)
            return cast(Tensor, create("RandomUniformInt", scope, [static_sizes(shape), low, high],
                                       {"seed": first, "seed2": second}))
        drawn = _draw("RandomUniform", shape, wanted, seed)
        if isinstance(minval, (int, float)) and isinstance(maxval, (int, float)) and (minval, maxval) == (0, 1):
            return cast(Tensor, create("Identity", scope, [drawn]))
        return ew.add(ew.multiply(drawn, ew.subtract(high, low, "sub"), "mul"), low, scope)


def _scaled(op_type: str, default: str, shape: Any, mean: Any, stddev: Any, dtype: Any, seed: int | None,
            name: str | None) -> Tensor:
    wanted = dtypes.as_dtype(dtype)
    if not wanted.is_floating:
        raise at_user(DTypeError, f"{default}: normal numbers are floats, not {wanted.name}")
    with name_scope(name, default, [shape, mean, stddev]) as scope:
        center, width = convert_to_tensor(mean, wanted, "mean"), convert_to_tensor(stddev, wanted, "stddev")
        drawn = _draw(op_type, shape, wanted, seed)
        return ew.add(ew.multiply(drawn, width, "mul"), center, scope)


def random_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = dtypes.float32, seed: int | None = None,
                  name: str | None = None) -> Tensor:
    """Return normal numbers.  Source: tf.random_normal."""
    return _scaled("RandomStandardNormal", "random_normal", shape, mean, stddev, dtype, seed, name)


def truncated_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = dtypes.float32,
                     seed: int | None = None,
                     name: str | None = None) -> Tensor:
    """Return normal numbers, those beyond two deviations drawn again.  Source: tf.truncated_normal."""
    return _scaled("TruncatedNormal", "truncated_normal", shape, mean, stddev, dtype, seed, name)


def random_shuffle(value: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """Return the rows in random order.  Source: tf.random_shuffle."""
    with name_scope(name, "RandomShuffle", [value]) as scope:
        first, second = get_seed(seed)
        return cast(Tensor, create("RandomShuffle", scope, [convert_to_tensor(value, name="value")],
                                   {"seed": first, "seed2": second}))


def multinomial(logits: Any, num_samples: Any, seed: int | None = None, name: str | None = None,
                output_dtype: Any = None) -> Tensor:
    """Return num_samples classes per row of unnormalised log-probabilities.  Source: tf.multinomial."""
    with name_scope(name, "multinomial", [logits]) as scope:
        first, second = get_seed(seed)
        kind = dtypes.int64 if output_dtype is None else dtypes.as_dtype(output_dtype)
        return cast(Tensor, create("Multinomial", scope, [
            convert_to_tensor(logits, name="logits"), static_axis(num_samples)],
            {"seed": first, "seed2": second, "output_dtype": kind}))


def categorical(logits: Any, num_samples: Any, dtype: Any = None, seed: int | None = None,
                name: str | None = None) -> Tensor:
    """Return multinomial(logits, num_samples).  Source: tf.random.categorical."""
    return multinomial(logits, num_samples, seed, name, dtype)


def random_crop(value: Any, size: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """Return a block of `size` at a random place.  Source: tf.random_crop."""
    with name_scope(name, "random_crop", [value]):
        cropped = convert_to_tensor(value, name="value")
        for axis, length in enumerate(int(n) for n in size):
            whole = cropped.shape[axis].value
            if whole is None or whole < length:
                raise at_user(GraphError, f"random_crop: axis {axis} of {cropped.shape} cannot give {length}",
                              [cropped])
            if whole > length:
                start = random_uniform((), 0, whole - length + 1, dtypes.int32, seed)
                cropped = gather(cropped, ew.add(create("Range", None, [0, length, 1], {"dtype": dtypes.int32}), start),
                                 axis=axis)
        return cropped
