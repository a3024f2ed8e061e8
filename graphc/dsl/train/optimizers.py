"""The optimizers of TensorFlow 1.

Owns their update rules, each written once for the dense and once for the sparse gradient (only the rows that were
looked up change, as in TF1; Adam's moments decay in every row, as in TF1).  See optimizer.py for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dsl import array, control, initializers, math
from graphc.dsl.train.optimizer import Optimizer, summed_by_row
from graphc.graph.operation import Operation
from graphc.graph.tensor import IndexedSlices, Tensor


class _Elementwise(Optimizer):
    """An optimizer whose rule treats every element alike: new values from the old values of the variable and its slots.

    The rule is written once, over dictionaries of tensors ("var" and the slots' names); dense gradients apply it to
    whole variables, sparse ones to the rows gathered.
    """

    slot_names: tuple[str, ...] = ()

    def _rule(self, grad: Tensor, old: dict[str, Tensor], cast: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} has no rule")

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        for var in var_list:
            for name in self.slot_names:
                self._slot(var, name)

    def _owners(self, var: Any) -> dict[str, Any]:
        return {"var": var} | {name: self.get_slot(var, name) for name in self.slot_names}

    def _apply_dense(self, grad: Tensor, var: Any) -> list[Operation]:
        owners = self._owners(var)
        new = self._rule(grad, {k: v.value() for k, v in owners.items()}, lambda t: math.cast(t, var.dtype.base_dtype))
        return [owners[k].assign(new[k]).op for k in owners if k in new]

    def _apply_sparse(self, grad: IndexedSlices, var: Any) -> list[Operation]:
        owners, rows = self._owners(var), grad.indices
        # A row given twice gets the summed gradient at both places, so both write the same new row.
        total = array.gather(summed_by_row(grad, var), rows)
        old = {k: array.gather(v.value(), rows) for k, v in owners.items()}
        new = self._rule(total, old, lambda t: math.cast(t, var.dtype.base_dtype))
        return [owners[k].scatter_update(IndexedSlices(new[k], rows)).op for k in owners if k in new]


class GradientDescentOptimizer(_Elementwise):
    """var -= learning_rate * grad.  Source: tf.train.GradientDescentOptimizer."""

    def __init__(self, learning_rate: Any, use_locking: bool = False, name: str = "GradientDescent") -> None:
        super().__init__(use_locking, name)
        self._learning_rate = learning_rate

    def _prepare(self) -> None:
        self._rate = self._value(self._learning_rate, "learning_rate")

    def _rule(self, grad: Tensor, old: dict[str, Tensor], cast: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        return {"var": old["var"] - cast(self._rate) * grad}


class MomentumOptimizer(_Elementwise):
    """accumulation = momentum * accumulation + grad; var -= learning_rate * accumulation.

    use_nesterov: var -= learning_rate * (grad + momentum * accumulation) instead (Sutskever et al., "On the
    importance of initialization and momentum in deep learning", 2013).  Source: tf.train.MomentumOptimizer.
    """

    slot_names = ("momentum",)

    def __init__(
        self,
        learning_rate: Any,
        momentum: Any,
        use_locking: bool = False,
        name: str = "Momentum",
        use_nesterov: bool = False,
    ) -> None:
        super().__init__(use_locking, name)
        self._learning_rate, self._momentum, self._use_nesterov = learning_rate, momentum, use_nesterov

    def _prepare(self) -> None:
        self._rate = self._value(self._learning_rate, "learning_rate")
        self._decay = self._value(self._momentum, "momentum")

    def _rule(self, grad: Tensor, old: dict[str, Tensor], cast: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        rate, decay = cast(self._rate), cast(self._decay)
        accumulation = old["momentum"] * decay + grad
        step = grad * rate + accumulation * decay * rate if self._use_nesterov else accumulation * rate
        return {"momentum": accumulation, "var": old["var"] - step}


class AdagradOptimizer(_Elementwise):
    """accumulator += grad^2; var -= learning_rate * grad / sqrt(accumulator).

    Duchi et al., "Adaptive subgradient methods for online learning", 2011.  Source: tf.train.AdagradOptimizer.
    """

    slot_names = ("accumulator",)

    def __init__(
        self,
        learning_rate: Any,
        initial_accumulator_value: float = 0.1,
        use_locking: bool = False,
        name: str = "Adagrad",
    ) -> None:
        if initial_accumulator_value <= 0.0:
            raise ValueError(f"initial_accumulator_value must be positive, not {initial_accumulator_value}")
        super().__init__(use_locking, name)
        self._learning_rate, self._initial = learning_rate, initial_accumulator_value

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        for var in var_list:
            self._slot(var, "accumulator", initializers.constant_initializer(self._initial))

    def _prepare(self) -> None:
        self._rate = self._value(self._learning_rate, "learning_rate")

    def _rule(self, grad: Tensor, old: dict[str, Tensor], cast: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        accumulator = old["accumulator"] + math.square(grad)
        return {"accumulator": accumulator, "var": old["var"] - cast(self._rate) * grad * math.rsqrt(accumulator)}


class RMSPropOptimizer(_Elementwise):
    """rms = decay * rms + (1 - decay) * grad^2; momentum = momentum_rate * momentum + learning_rate * grad / sqrt(rms
    + epsilon); var -= momentum.

    centered: the variance rms - mg^2 takes the place of rms, mg the running mean of the gradient (Graves, "Generating
    sequences with recurrent neural networks", 2013).  Source: tf.train.RMSPropOptimizer (rms starts at 1 there, and
    here).
    """

    def __init__(
        self,
        learning_rate: Any,
        decay: Any = 0.9,
        momentum: Any = 0.0,
        epsilon: Any = 1e-10,
        use_locking: bool = False,
        centered: bool = False,
        name: str = "RMSProp",
    ) -> None:
        super().__init__(use_locking, name)
        self._learning_rate, self._decay, self._momentum, self._epsilon = learning_rate, decay, momentum, epsilon
        self._centered = centered
        self.slot_names = ("rms", "mg", "momentum") if centered else ("rms", "momentum")

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        for var in var_list:
            self._slot(var, "rms", initializers.ones_initializer())
            for name in self.slot_names[1:]:
                self._slot(var, name)

    def _prepare(self) -> None:
        self._rate = self._value(self._learning_rate, "learning_rate")
        self._decay_tensor = self._value(self._decay, "decay")
        self._momentum_tensor = self._value(self._momentum, "momentum")
        self._epsilon_tensor = self._value(self._epsilon, "epsilon")

    def _rule(self, grad: Tensor, old: dict[str, Tensor], cast: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        keep = 1.0 - cast(self._decay_tensor)
        new = {"rms": old["rms"] + (math.square(grad) - old["rms"]) * keep}
        variance = new["rms"]
        if self._centered:
            new["mg"] = old["mg"] + (grad - old["mg"]) * keep
            variance = variance - math.square(new["mg"])
        step = cast(self._rate) * grad * math.rsqrt(variance + cast(self._epsilon_tensor))
        new["momentum"] = old["momentum"] * cast(self._momentum_tensor) + step
        return new | {"var": old["var"] - new["momentum"]}


class FtrlOptimizer(_Elementwise):
    """Follow the regularized leader, per coordinate, with L1 and L2 penalties and L2 shrinkage.

    McMahan et al., "Ad click prediction: a view from the trenches", 2013.  Source: tf.train.FtrlOptimizer.
    """

    slot_names = ("accum", "linear")

    def __init__(
        self,
        learning_rate: Any,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        use_locking: bool = False,
        name: str = "Ftrl",
        accum_name: str | None = None,
        linear_name: str | None = None,
        l2_shrinkage_regularization_strength: float = 0.0,
    ) -> None:
        for label, value in (
            ("initial_accumulator_value", initial_accumulator_value),
            ("l1_regularization_strength", l1_regularization_strength),
            ("l2_regularization_strength", l2_regularization_strength),
            ("l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength),
        ):
            if value < 0.0:
                raise ValueError(f"{label} must not be negative, it is {value}")
        if learning_rate_power > 0.0:
            raise ValueError(f"learning_rate_power must not be positive, it is {learning_rate_power}")
        super().__init__(use_locking, name)
        self._learning_rate, self._power, self._initial = learning_rate, learning_rate_power, initial_accumulator_value
        self._l1, self._l2, self._shrinkage = (
            l1_regularization_strength,
            l2_regularization_strength,
            l2_shrinkage_regularization_strength,
        )

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        for var in var_list:
            self._slot(var, "accum", initializers.constant_initializer(self._initial))
            self._slot(var, "linear")

    def _prepare(self) -> None:
        self._rate = self._value(self._learning_rate, "learning_rate")

    def _rule(self, grad: Tensor, old: dict[str, Tensor], cast: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        rate, var = cast(self._rate), old["var"]
        accum = old["accum"] + math.square(grad)
        root, old_root = math.pow(accum, -self._power), math.pow(old["accum"], -self._power)
        shrunk = grad + 2.0 * self._shrinkage * var if self._shrinkage else grad
        linear = old["linear"] + shrunk - (root - old_root) / rate * var
        quadratic = root / rate + 2.0 * self._l2
        clipped = math.sign(linear) * self._l1 - linear
        new = array.where(math.abs(linear) > self._l1, clipped / quadratic, array.zeros_like(var))
        return {"accum": accum, "linear": linear, "var": new}


class AdamOptimizer(Optimizer):
    """Adam: m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; var -= lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) +
    epsilon).

    Kingma and Ba, "Adam: a method for stochastic optimization", 2015; epsilon as in the paper's "epsilon hat".
    The powers b1^t and b2^t are variables (`beta1_power`, `beta2_power`) that move after all updates.
    A sparse gradient decays m and v in every row and moves every row of the variable.  Source: tf.train.AdamOptimizer.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta1: Any = 0.9,
        beta2: Any = 0.999,
        epsilon: Any = 1e-8,
        use_locking: bool = False,
        name: str = "Adam",
    ) -> None:
        super().__init__(use_locking, name)
        self._learning_rate, self._beta1, self._beta2, self._epsilon = learning_rate, beta1, beta2, epsilon

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        first = min(var_list, key=lambda v: str(v.name))  # TF1 makes the powers in the dtype of the first by name
        self._powers = (
            self._scalar("beta1_power", self._number(self._beta1), first),
            self._scalar("beta2_power", self._number(self._beta2), first),
        )
        for var in var_list:
            self._slot(var, "m")
            self._slot(var, "v")

    @staticmethod
    def _number(value: Any) -> Any:
        return value() if callable(value) else value

    def _prepare(self) -> None:
        self._rate = self._value(self._learning_rate, "learning_rate")
        self._b1 = self._value(self._beta1, "beta1")
        self._b2 = self._value(self._beta2, "beta2")
        self._eps = self._value(self._epsilon, "epsilon")

    def _step(self, var: Any, m: Tensor, v: Tensor) -> Tensor:
        dtype = var.dtype.base_dtype
        p1, p2 = (math.cast(p.value(), dtype) for p in self._powers)
        rate = math.cast(self._rate, dtype) * math.sqrt(1.0 - p2) / (1.0 - p1)
        moved: Tensor = var.value() - rate * m / (math.sqrt(v) + math.cast(self._eps, dtype))
        return moved

    def _apply_dense(self, grad: Tensor, var: Any) -> list[Operation]:
        dtype = var.dtype.base_dtype
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        new_m = m.value() + (grad - m.value()) * (1.0 - math.cast(self._b1, dtype))
        new_v = v.value() + (math.square(grad) - v.value()) * (1.0 - math.cast(self._b2, dtype))
        return [m.assign(new_m).op, v.assign(new_v).op, var.assign(self._step(var, new_m, new_v)).op]

    def _apply_sparse(self, grad: IndexedSlices, var: Any) -> list[Operation]:
        return self._apply_dense(summed_by_row(grad, var), var)

    def _finish(self, updates: Sequence[Operation]) -> list[Operation]:
        with control.control_dependencies(updates):
            return [
                p.assign(p.value() * math.cast(b, p.dtype.base_dtype)).op
                for p, b in zip(self._powers, (self._b1, self._b2), strict=True)
            ]
