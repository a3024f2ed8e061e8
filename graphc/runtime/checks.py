"""check_numerics: finds the first NaN or infinity of a run, and the op that made it.

Owns the run under that option and the description of what it finds.  The program is compiled with a check after every
float that an op computes (passes/guard.py), inside the fused kernels, so a run costs little more than an ordinary one.
Only where a check fails is the run repeated on the oracle, from the variables as they were, op by op and without any
optimisation: this names the op of the user's graph.  Knows programs, variables and the oracle; must not know graphs.

Invariants: what is finite everywhere gives the ordinary results; a run that fails leaves the variables as they were
before it; infinities that the user's own constants hold are no finding, what is computed from them is.
Host calls (Print, py_func) that come before a finding are made again in the repetition.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import errors
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Function, Node, Value
from graphc.ir.types import TensorType
from graphc.passes.extract import GRADIENT
from graphc.passes.guard import MESSAGE
from graphc.runtime.executor import Converter, Runner
from graphc.runtime.program import Program
from graphc.runtime.variables import Variables

Array = np.ndarray[Any, Any]

HELD = "the variables hold their values of before this run"

HINTS: Mapping[str, str] = {
    "Log": "log needs arguments above 0: tf.log(tf.maximum(x, 1e-12)), or a loss that takes logits",
    "Log1p": "log1p needs arguments above -1",
    "Sqrt": "sqrt needs arguments of at least 0, and has no finite derivative at 0",
    "Rsqrt": "rsqrt needs arguments above 0: add a small epsilon",
    "Reciprocal": "the argument has zeros: add a small epsilon",
    "RealDiv": "the divisor has zeros (or the quotient is too large): tf.div_no_nan(x, y), or add a small epsilon",
    "Exp": "exp overflows float32 above 88.7: subtract the maximum first, as tf.nn.softmax and tf.reduce_logsumexp do",
    "Expm1": "expm1 overflows float32 above 88.7",
    "Pow": "a power of 0 or of a negative number may have no finite value",
}
"""What to do, per op."""

_GRADIENT_HINT = ("a value that tf.where discards still has a gradient: make the argument safe first, "
                  "tf.where(ok, f(tf.where(ok, x, 1.0)), 0.0)")


class CheckedRunner:
    """A runner (executor.Runner) of one program whose floats are checked.

    function: what was extracted.  program, guarded: the program with checks, and its runner.  plain: makes the runner
    of the ordinary program.  convert: as of Executor.runner.  operation: the graph's operation of a name, for `.op`.
    """

    def __init__(self, function: Function, program: Program, guarded: Runner, plain: Callable[[], Runner],
                 variables: Variables, convert: Converter, operation: Callable[[str], Any]) -> None:
        self._function = function
        self._program = program
        self._guarded = guarded
        self._plain = plain
        self._variables = variables
        self._convert = convert
        self._operation = operation

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """Return the fetches.  Raises InvalidArgumentError at the first op that makes a NaN or an infinity, and
        whatever the runner raises."""
        store = self._variables
        names = [slot.name for slot in self._program.plan.states]
        before = {name: store.get(name) for name in names if store.is_initialised(name)}
        try:
            return self._guarded(*values)
        except errors.InvalidArgumentError as error:
            # The message of a site comes first; an error that a NaN led to (an index made of it) is explained alike.
            self._restore(before)
            feeds = [self._convert(i, v) for i, v in enumerate(values)]
            return self._explained(error, values, feeds, before)

    def _explained(self, error: errors.InvalidArgumentError, values: Sequence[Any], feeds: Sequence[Any],
                   before: Mapping[str, Array]) -> tuple[Any, ...]:
        trail = Trail(self._function)
        states = [before[name] if name in before else _zeros(v.tensor)
                  for name, v in zip(self._function.state_names, self._function.states, strict=True)]
        trail.inputs(feeds, states)
        try:
            fetches, updates = evaluate(self._function, feeds, states, trail.observe)
        except errors.GraphcError:  # the run failed there too: what led there has been seen
            fetches = updates = []
        if trail.found is not None:
            name, text = trail.found
            raise errors.InvalidArgumentError(None, self._operation(name), text) from None
        if not error.message.startswith(MESSAGE):
            raise error
        results = self._plain()(*values)
        self._compare(results, fetches, updates, error.op, before)
        return results

    def _compare(self, results: Sequence[Any], fetches: Sequence[Array], updates: Sequence[Array], op: Any,
                 before: Mapping[str, Array]) -> None:
        """Raise where the results of the ordinary program are not finite and the oracle's are."""
        f = self._function
        written = [(f"variable {n!r}", self._variables.get(n), new) for n, s, u, new in zip(
            f.state_names, f.states, f.updates, updates, strict=True) if s is not u]
        fetched = [(f"fetch {n!r}", r, w) for n, r, w in zip(f.fetch_names, results, fetches, strict=True)]
        for name, got, wanted in (*fetched, *written):
            if is_finite(got) or not is_finite(wanted):
                continue
            self._restore(before)
            kernels = [k for k in self._program.plan.kernels if any(s.op == op for s in k.sites)]
            told = [(k.name, f"kernel of {', '.join(k.provenance)}") for k in kernels]
            raise errors.InvalidArgumentError(None, self._operation(op), errors.report(
                f"check_numerics: {name} is not finite, but only in the optimised code: op by op in float64 every "
                f"value is finite; the first kernel in doubt computes {op!r}",
                f.lines.get(op), [*told, (name.split("'")[1], describe(np.asarray(got)))],
                f"sums or products pass the largest number in another order; try float64 or smaller values; {HELD}"))

    def _restore(self, before: Mapping[str, Array]) -> None:
        for slot in self._program.plan.states:
            if slot.name in before:
                self._variables.set(slot.name, before[slot.name], slot.dtype)
            elif self._variables.is_initialised(slot.name):
                self._variables.mark(slot.name, False)


class Trail:
    """An observer of the oracle (ir/evaluate.py) that keeps the first op whose result is not finite though nothing it
    was given explains that.  found: (operation, text of the error)."""

    def __init__(self, function: Function) -> None:
        self.found: tuple[str, str] | None = None
        self._function = function
        self._names: dict[Value, str] = dict(zip(function.inputs, (*function.feed_names, *function.state_names),
                                                 strict=True))

    def inputs(self, feeds: Sequence[Array], states: Sequence[Array]) -> None:
        """Look at what the run is given."""
        f = self._function
        fed = [(n, a, f"the fed value of {n!r} has {{}}", "look at the data")
               for n, a in zip(f.feed_names, feeds, strict=True)]
        held = [(n, a, f"the variable {n!r} has {{}} before the run", "an earlier run, without the check, made it so")
                for n, a in zip(f.state_names, states, strict=True)]
        for name, array, what, hint in (*fed, *held):
            if self.found is None and not is_finite(array):
                self.found = name, errors.report(f"check_numerics: {what.format(bad_at(array))}", f.lines.get(name),
                                                 [(name, describe(array))], f"{hint}; {HELD}")

    def observe(self, node: Node, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Look at one op; called in the order of the run."""
        for v in node.outputs:
            self._names[v] = node.origin[0] if node.origin else node.op.name
        if self.found is not None or node.op.name == "Const":
            return
        for v, array in zip(node.outputs, outputs, strict=True):
            if is_finite(array) or not _makes_it(inputs, array):
                continue
            name = node.origin[0] if node.origin else node.op.name
            line = self._function.lines.get(name)
            operands = [(self._names.get(x, f"operand {i}"), describe(a, x.type.dtype.name)) for i, (x, a) in
                        enumerate(zip(node.inputs, inputs, strict=True)) if isinstance(x.type, TensorType)]
            hints = [HINTS.get(node.op.name), _GRADIENT_HINT if line and GRADIENT in line else None, HELD]
            given = " from finite operands" if inputs and all(map(is_finite, inputs)) else ""
            self.found = name, errors.report(
                f"check_numerics: {name!r} ({node.op.name}) gives {bad_at(array)}{given}", line,
                [*dict.fromkeys(operands), ("result", describe(array, v.tensor.dtype.name))],
                "; ".join(h for h in hints if h))
            return


def _makes_it(inputs: Sequence[Array], output: Array) -> bool:
    """Whether an op with these operands made the NaN or infinity of `output` itself."""
    floats = [a for a in inputs if a.dtype.kind == "f"]
    if all(map(is_finite, floats)):
        return True
    return bool(np.isnan(output).any()) and not any(np.isnan(a).any() for a in floats)


def is_finite(array: Any) -> bool:
    """Whether `array` holds neither NaN nor infinity."""
    return np.asarray(array).dtype.kind != "f" or bool(np.isfinite(array).all())


def bad_at(array: Array) -> str:
    """Return what the first NaN or infinity of `array` is, and where: "-Inf at [2, 1]"."""
    where = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
    value = array[where]
    kind = "NaN" if np.isnan(value) else "Inf" if value > 0 else "-Inf"
    return f"{kind} at [{', '.join(str(int(i)) for i in where)}]" if array.ndim else kind


def describe(array: Array, dtype: str = "") -> str:
    """Return dtype, shape and range of `array`, and how many elements are NaN or infinite.  dtype: its name, where the
    array's own does not say it (bfloat16)."""
    shape = f"({array.shape[0]},)" if array.ndim == 1 else f"({', '.join(map(str, array.shape))})"
    text = f"{dtype or array.dtype.name} {shape}"
    if array.size == 0 or array.dtype.kind not in "iuf":
        return text
    if array.dtype.kind != "f":
        return f"{text} in [{array.min()}, {array.max()}]"
    finite = array[np.isfinite(array)]
    span = f" in [{finite.min():g}, {finite.max():g}]" if finite.size else ""
    counts = [(int(np.isnan(array).sum()), "NaN"), (int(np.isinf(array).sum()), "Inf")]
    return text + span + "".join(f", {n} {name}" for n, name in counts if n)


def _zeros(type: TensorType) -> Array:
    """The content of a variable that a run does not read."""
    shape = [int(n) for n in type.shape]
    return np.zeros(shape, type.dtype.as_numpy_dtype)
