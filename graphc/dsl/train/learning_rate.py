"""Learning rates that change with the step: decays of TensorFlow 1, as graph ops over a step counter.

Owns the formulas.  Invariant: computed in the rate's dtype; the counter may be any integer or float scalar.
"""

from __future__ import annotations

import math as numbers
from collections.abc import Sequence
from typing import Any

from graphc.dsl import array, control, math
from graphc.dsl.convert import convert_to_tensor
from graphc.graph.tensor import Tensor


def _prepared(learning_rate: Any, global_step: Any, *others: Any) -> list[Tensor]:
    """Return the rate, the step and the other numbers as tensors of the rate's dtype."""
    if global_step is None:
        raise ValueError("a decay needs global_step")
    rate = convert_to_tensor(learning_rate, name="learning_rate")
    return [rate, *(math.cast(convert_to_tensor(v), rate.dtype) for v in (global_step, *others))]


def exponential_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    decay_rate: Any,
    staircase: bool = False,
    name: str | None = None,
) -> Tensor:
    """Return learning_rate * decay_rate ^ (global_step / decay_steps), the exponent floored if `staircase`.

    Source: tf.train.exponential_decay.
    """
    with control.name_scope(name, "ExponentialDecay") as scope:
        rate, step, steps, base = _prepared(learning_rate, global_step, decay_steps, decay_rate)
        p = step / steps
        return math.multiply(rate, math.pow(base, math.floor(p) if staircase else p), name=scope)


def natural_exp_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    decay_rate: Any,
    staircase: bool = False,
    name: str | None = None,
) -> Tensor:
    """Return learning_rate * exp(-decay_rate * global_step / decay_steps).  Source: tf.train.natural_exp_decay."""
    with control.name_scope(name, "NaturalExpDecay") as scope:
        rate, step, steps, base = _prepared(learning_rate, global_step, decay_steps, decay_rate)
        p = step / steps
        return math.multiply(rate, math.exp(-base * (math.floor(p) if staircase else p)), name=scope)


def inverse_time_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    decay_rate: Any,
    staircase: bool = False,
    name: str | None = None,
) -> Tensor:
    """Return learning_rate / (1 + decay_rate * global_step / decay_steps).  Source: tf.train.inverse_time_decay."""
    with control.name_scope(name, "InverseTimeDecay") as scope:
        rate, step, steps, base = _prepared(learning_rate, global_step, decay_steps, decay_rate)
        p = step / steps
        return math.divide(rate, 1.0 + base * (math.floor(p) if staircase else p), name=scope)


def polynomial_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    end_learning_rate: Any = 0.0001,
    power: Any = 1.0,
    cycle: bool = False,
    name: str | None = None,
) -> Tensor:
    """Return (learning_rate - end) * (1 - step / decay_steps) ^ power + end; with `cycle`, decay_steps grows to the
    next multiple beyond the step, else the step stops at decay_steps.  Source: tf.train.polynomial_decay."""
    with control.name_scope(name, "PolynomialDecay") as scope:
        rate, step, steps, end, exponent = _prepared(learning_rate, global_step, decay_steps, end_learning_rate, power)
        if cycle:
            steps = steps * math.maximum(math.ceil(step / steps), 1.0)
        else:
            step = math.minimum(step, steps)
        return math.add((rate - end) * math.pow(1.0 - step / steps, exponent), end, name=scope)


def cosine_decay(
    learning_rate: Any, global_step: Any, decay_steps: Any, alpha: Any = 0.0, name: str | None = None
) -> Tensor:
    """Return learning_rate * ((1 - alpha) * (1 + cos(pi * min(step, decay_steps) / decay_steps)) / 2 + alpha).

    Loshchilov and Hutter, "SGDR", 2017.  Source: tf.train.cosine_decay.
    """
    with control.name_scope(name, "CosineDecay") as scope:
        rate, step, steps, floor = _prepared(learning_rate, global_step, decay_steps, alpha)
        wave = 0.5 * (1.0 + math.cos(numbers.pi * math.minimum(step, steps) / steps))
        return math.multiply(rate, (1.0 - floor) * wave + floor, name=scope)


def cosine_decay_restarts(
    learning_rate: Any,
    global_step: Any,
    first_decay_steps: Any,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: Any = 0.0,
    name: str | None = None,
) -> Tensor:
    """Return cosine decay that starts again, each period `t_mul` times as long and `m_mul` times as high as the one
    before.

    Loshchilov and Hutter, "SGDR", 2017.  Source: tf.train.cosine_decay_restarts.
    """
    with control.name_scope(name, "SGDRDecay") as scope:
        rate, step, steps, floor = _prepared(learning_rate, global_step, first_decay_steps, alpha)
        done = step / steps
        if t_mul == 1.0:
            restart = math.floor(done)
            part = done - restart
        else:
            restart = math.floor(math.log(1.0 - done * (1.0 - t_mul)) / numbers.log(t_mul))
            before = (1.0 - math.pow(convert_to_tensor(t_mul, rate.dtype), restart)) / (1.0 - t_mul)
            part = (done - before) / math.pow(convert_to_tensor(t_mul, rate.dtype), restart)
        height = math.pow(convert_to_tensor(m_mul, rate.dtype), restart)
        wave = 0.5 * height * (1.0 + math.cos(numbers.pi * part))
        return math.multiply(rate, (1.0 - floor) * wave + floor, name=scope)


def piecewise_constant(x: Any, boundaries: Sequence[Any], values: Sequence[Any], name: str | None = None) -> Tensor:
    """Return values[k] for the first k with x <= boundaries[k], the last value beyond them all.

    Raises ValueError unless there is one value more than boundaries.  Source: tf.train.piecewise_constant.
    """
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"piecewise_constant needs one value more than boundaries, not {len(values)} and {len(boundaries)}"
        )
    with control.name_scope(name, "PiecewiseConstant") as scope:
        position = convert_to_tensor(x)
        result = convert_to_tensor(values[-1])
        for boundary, value in zip(reversed(boundaries), reversed(values[:-1]), strict=True):
            within = math.less_equal(position, math.cast(convert_to_tensor(boundary), position.dtype))
            result = array.where(within, convert_to_tensor(value, result.dtype), result)
        return array.identity(result, name=scope)
