"""What every optimizer shares: gradients of a loss, slots beside each variable, one op that applies a step.

Owns `Optimizer`, with TensorFlow 1's names, slot names and order of effects.  Knows the language (dsl/) alone: a step
is ordinary graph ops and assignments, which the compiler fuses into one pass over memory per variable.
Invariant: every update reads the variables as they were before the step; the step counter moves after all updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from graphc.autodiff import gradients
from graphc.dsl import array, control, initializers, math, variables
from graphc.dsl.collections import GraphKeys
from graphc.dsl.convert import convert_to_tensor
from graphc.graph.graph import Graph
from graphc.graph.operation import Operation
from graphc.graph.tensor import IndexedSlices, Tensor

Gradient: TypeAlias = Tensor | IndexedSlices | None


class Optimizer:
    """Base of all optimizers.  Subclasses say which slots a variable has and how a dense or sparse gradient changes it.

    Source: tf.train.Optimizer.
    """

    GATE_NONE, GATE_OP, GATE_GRAPH = 0, 1, 2

    def __init__(self, use_locking: bool, name: str) -> None:
        if not name:
            raise ValueError("an optimizer needs a name")
        self._name = name
        self._use_locking = use_locking  # accepted for TF1's sake: a step is one native call, there is nothing to lock
        self._slots: dict[tuple[str, Any], Any] = {}
        self._scalars: dict[tuple[str, Graph], Any] = {}

    def get_name(self) -> str:
        """Return the optimizer's name."""
        return self._name

    # -- the three calls of a user ------------------------------------------------------------------------------

    def minimize(
        self,
        loss: Tensor,
        global_step: Any = None,
        var_list: Sequence[Any] | None = None,
        gate_gradients: int = GATE_OP,
        aggregation_method: Any = None,
        colocate_gradients_with_ops: bool = False,
        name: str | None = None,
        grad_loss: Tensor | None = None,
    ) -> Operation:
        """Return the op that takes one step down the gradient of `loss` (a scalar, or summed).

        var_list: the variables to change (all trainable ones).  global_step: a variable to increment after the step.
        Raises ValueError where no variable has a gradient.  Source: tf.train.Optimizer.minimize.
        """
        pairs = self.compute_gradients(
            loss, var_list, gate_gradients, aggregation_method, colocate_gradients_with_ops, grad_loss
        )
        if all(g is None for g, _ in pairs):
            names = ", ".join(v.op.name for _, v in pairs)
            raise ValueError(f"no gradients: {loss.name} does not depend on any of these variables: {names}")
        return self.apply_gradients(pairs, global_step, name)

    def compute_gradients(
        self,
        loss: Tensor,
        var_list: Sequence[Any] | None = None,
        gate_gradients: int = GATE_OP,
        aggregation_method: Any = None,
        colocate_gradients_with_ops: bool = False,
        grad_loss: Tensor | None = None,
    ) -> list[tuple[Gradient, Any]]:
        """Return (gradient, variable) pairs; the gradient is None where `loss` does not depend on the variable."""
        if gate_gradients not in (self.GATE_NONE, self.GATE_OP, self.GATE_GRAPH):
            raise ValueError(f"gate_gradients is {gate_gradients}; it must be GATE_NONE, GATE_OP or GATE_GRAPH")
        chosen = list(var_list) if var_list is not None else variables.trainable_variables()
        if not chosen:
            raise ValueError("no variables to optimize: the graph has no trainable ones and var_list is empty")
        found = gradients(loss, chosen, grad_ys=None if grad_loss is None else [grad_loss])
        return list(zip(found, chosen, strict=True))

    def apply_gradients(
        self, grads_and_vars: Sequence[tuple[Gradient, Any]], global_step: Any = None, name: str | None = None
    ) -> Operation:
        """Return the op that applies the gradients; pairs without a gradient are left out.

        Raises ValueError where no pair has one.  Source: tf.train.Optimizer.apply_gradients.
        """
        pairs = [
            (g if isinstance(g, IndexedSlices) else convert_to_tensor(g), v) for g, v in grads_and_vars if g is not None
        ]
        if not pairs:
            raise ValueError(
                "no gradients provided for any variable: "
                + (", ".join(v.op.name for _, v in grads_and_vars) or "the list is empty")
            )
        graph = pairs[0][1].graph
        with control.init_scope(graph):
            self._create_slots([v for _, v in pairs])
        with control.name_scope(name, self._name) as scope:
            self._prepare()
            updates = []
            for gradient, variable in pairs:
                with control.name_scope("update_" + variable.op.name):
                    updates.extend(self._update(gradient, variable))
            finish = updates + self._finish(updates)
            if global_step is None:
                step = control.group(*finish, name=scope)
            else:
                with control.control_dependencies([control.group(*finish, name="update")]):
                    step = control.group(global_step.assign_add(1), name=scope)
        if step not in graph.get_collection_ref(GraphKeys.TRAIN_OP):
            graph.add_to_collection(GraphKeys.TRAIN_OP, step)
        return step

    # -- slots -----------------------------------------------------------------------------------------------------

    def get_slot(self, var: Any, name: str) -> Any:
        """Return the slot `name` of `var`, or None."""
        return self._slots.get((name, var))

    def get_slot_names(self) -> list[str]:
        """Return the names of the slots that exist, sorted."""
        return sorted({name for name, _ in self._slots})

    def variables(self) -> list[Any]:
        """Return the optimizer's own variables: scalars, then slots, by name."""
        return sorted([*self._scalars.values(), *self._slots.values()], key=lambda v: str(v.op.name))

    def _slot(self, var: Any, name: str, initializer: Callable[..., Any] | None = None) -> Any:
        """Return the slot `name` of `var`, made as `VARIABLE/OPTIMIZER` (then `_1`, ...) of the variable's shape and
        dtype."""
        key = (name, var)
        if key not in self._slots:
            with variables.variable_scope(None, f"{var.op.name}/{self._name}"):
                self._slots[key] = variables.get_variable(
                    "",
                    var.get_shape(),
                    var.dtype.base_dtype,
                    initializer or initializers.zeros_initializer(),
                    trainable=False,
                )
        return self._slots[key]

    def _scalar(self, name: str, value: float, like: Any) -> Any:
        """Return the optimizer's scalar variable `name` in the graph of `like`, made with `value`."""
        key = (name, like.graph)
        if key not in self._scalars:
            self._scalars[key] = variables.Variable(
                convert_to_tensor(value, like.dtype.base_dtype), trainable=False, name=name
            )
        return self._scalars[key]

    # -- what a subclass says ----------------------------------------------------------------------------------

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        """Make the slots of all variables."""

    def _prepare(self) -> None:
        """Make tensors of the hyperparameters."""

    def _apply_dense(self, grad: Tensor, var: Any) -> list[Operation]:
        """Return the ops that change `var` and its slots by a dense gradient."""
        raise NotImplementedError(f"{type(self).__name__} does not apply dense gradients")

    def _apply_sparse(self, grad: IndexedSlices, var: Any) -> list[Operation]:
        """Return the ops that change `var` and its slots by a gradient of some rows, duplicates summed."""
        raise NotImplementedError(f"{type(self).__name__} does not apply sparse gradients")

    def _finish(self, updates: Sequence[Operation]) -> list[Operation]:
        """Return the ops that run after all updates."""
        return []

    # ----------------------------------------------------------------------------------------------------------

    def _update(self, gradient: Tensor | IndexedSlices, var: Any) -> list[Operation]:
        if gradient.dtype is not var.dtype.base_dtype:
            raise TypeError(
                f"the gradient of {var.op.name} is {gradient.dtype.name}, the variable {var.dtype.base_dtype.name}"
            )
        return (
            self._apply_sparse(gradient, var)
            if isinstance(gradient, IndexedSlices)
            else self._apply_dense(gradient, var)
        )

    @staticmethod
    def _value(hyperparameter: Any, name: str) -> Tensor:
        """Return a hyperparameter (number, tensor, or function that gives one) as a tensor."""
        return convert_to_tensor(hyperparameter() if callable(hyperparameter) else hyperparameter, name=name)


def summed_by_row(gradient: IndexedSlices, var: Any) -> Tensor:
    """Return the slices added up into a dense tensor of the variable's shape, equal indices in their order."""
    return math.unsorted_segment_sum(gradient.values, gradient.indices, array.shape(var)[0])
