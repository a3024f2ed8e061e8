"""Exponential moving averages of variables and tensors.

Owns `ExponentialMovingAverage`.  Invariant: an average is a variable of the same shape, kept beside the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dsl import control, initializers, math, variables
from graphc.dsl.collections import GraphKeys
from graphc.dsl.convert import convert_to_tensor
from graphc.graph.operation import Operation


class ExponentialMovingAverage:
    """average -= (1 - decay) * (average - value), decay limited to (1 + num_updates) / (10 + num_updates) where that
    is given.

    zero_debias: divide the averages of tensors by 1 - decay^t (Kingma and Ba, 2015, section 3).
    Source: tf.train.ExponentialMovingAverage.
    """

    def __init__(
        self, decay: float, num_updates: Any = None, zero_debias: bool = False, name: str = "ExponentialMovingAverage"
    ) -> None:
        self._decay, self._num_updates, self._zero_debias, self._name = decay, num_updates, zero_debias, name
        self._averages: dict[Any, Any] = {}

    @property
    def name(self) -> str:
        """The name that averages are made under."""
        return self._name

    def apply(self, var_list: Sequence[Any] | None = None) -> Operation:
        """Return the op that moves the averages of `var_list` (all trainable variables) once; makes them at the first
        call.

        The average of a variable starts at its initial value, that of a tensor at zero.  Raises TypeError for
        integers and ValueError for a variable that has an average already.
        """
        chosen = list(var_list) if var_list is not None else variables.trainable_variables()
        for v in chosen:
            if not v.dtype.base_dtype.is_floating:
                raise TypeError(
                    f"{v.name} is {v.dtype.base_dtype.name}; only floating-point values have a moving average"
                )
            if v in self._averages:
                raise ValueError(f"{v.name} has a moving average already")
            with control.init_scope(v.graph), variables.variable_scope(None, f"{v.op.name}/{self._name}"):
                start = v.initialized_value() if isinstance(v, variables.Variable) else None
                self._averages[v] = (
                    variables.get_variable("", initializer=start, trainable=False)
                    if start is not None
                    else variables.get_variable(
                        "", v.get_shape(), v.dtype.base_dtype, initializers.zeros_initializer(), trainable=False
                    )
                )
            v.graph.add_to_collection(GraphKeys.MOVING_AVERAGE_VARIABLES, v)
        with control.name_scope(None, self._name) as scope:
            decay = convert_to_tensor(self._decay, name="decay")
            if self._num_updates is not None:
                n = math.cast(convert_to_tensor(self._num_updates), decay.dtype)
                decay = math.minimum(decay, (1.0 + n) / (10.0 + n))
            return control.group(*(self._move(v, decay) for v in chosen), name=scope)

    def _move(self, value: Any, decay: Any) -> Operation:
        average = self._averages[value]
        keep = 1.0 - math.cast(decay, value.dtype.base_dtype)
        if not self._zero_debias or isinstance(value, variables.Variable):
            moved: Operation = average.assign_sub((average.value() - value) * keep).op
            return moved
        with variables.variable_scope(None, f"{value.op.name}/{self._name}"):
            biased = variables.get_variable(
                "biased", value.get_shape(), value.dtype, initializers.zeros_initializer(), trainable=False
            )
            step = variables.get_variable(
                "local_step", (), value.dtype, initializers.zeros_initializer(), trainable=False
            )
        new_biased = biased.assign_sub((biased.value() - value) * keep)
        new_step = step.assign_add(1.0)
        corrected: Operation = average.assign(new_biased / (1.0 - math.pow(1.0 - keep, new_step))).op
        return corrected

    def average(self, var: Any) -> Any:
        """Return the variable that holds the average of `var`, or None."""
        return self._averages.get(var)

    def average_name(self, var: Any) -> str:
        """Return the name that the average of `var` has, or would have."""
        return self._averages[var].op.name if var in self._averages else f"{var.op.name}/{self._name}"

    def variables_to_restore(self, moving_avg_variables: Sequence[Any] | None = None) -> dict[str, Any]:
        """Return name -> variable for restoring the averages of `moving_avg_variables` into the variables
        themselves."""
        chosen = (
            list(moving_avg_variables)
            if moving_avg_variables is not None
            else (variables.trainable_variables() + variables.moving_average_variables())
        )
        found = {self.average_name(v): v for v in chosen}
        averaged = set(chosen)
        return found | {
            v.op.name: v for v in variables.global_variables() if v not in averaged and v.op.name not in found
        }
