"""A session that computes on the reference implementations: the oracle that compiled sessions are compared with.

It shares everything with the real one but the code that runs: extraction, then ir/evaluate.py op by op.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc import errors
from graphc.graph.fetch import Fetches, feed_value
from graphc.graph.tensor import Tensor
from graphc.ir import dim
from graphc.ir.evaluate import Observer, evaluate
from graphc.ir.function import SymbolSource
from graphc.passes.extract import extract, states_read
from graphc.runtime.program import AssumptionFailed
from graphc.session import Session


def _number(fed: np.ndarray, source: SymbolSource) -> int:
    return fed.shape[source.axis] if source.axis >= 0 else int(fed.reshape(-1)[source.element])


class OracleSession(Session):
    """A session on the oracle."""

    extractions = 0
    observe: Observer | None = None
    """Called after every op, as of ir/evaluate.py."""

    def executable(self, parts: Fetches, feeds: tuple[Tensor, ...], ranks: Mapping[Tensor, int],
                   assumptions: Mapping[int, str]) -> tuple[Any, Mapping[int, int]]:
        self.extractions += 1
        function = extract(parts.tensors, feeds, parts.targets, feed_ranks=ranks, assumptions=assumptions)
        self.seed(function.state_names)
        read = states_read(function)
        store = self.variables

        def run(*values: Any) -> tuple[Any, ...]:
            if len(values) != len(feeds):
                raise TypeError(f"{len(feeds)} values are needed, {len(values)} are given")
            arrays = [feed_value(t, v) for t, v in zip(feeds, values, strict=True)]
            sizes = {s.symbol: _number(arrays[s.feed], s) for s in function.sources}
            for number, c in enumerate(function.conditions):
                left, right = (dim.evaluate(n, sizes) for n in (c.left, c.right))
                if c.kind == "assume" and left != right and 1 in (left, right):
                    raise AssumptionFailed(number, "left" if left == 1 else "right")
            states = []
            for name, value, is_read in zip(function.state_names, function.states, read, strict=True):
                if store.is_initialised(name):
                    states.append(store.get(name))
                elif is_read:
                    raise errors.FailedPreconditionError(None, name, f"uninitialized value {name}")
                else:
                    states.append(np.zeros([int(n) for n in value.tensor.shape], value.tensor.dtype.as_numpy_dtype))
            try:
                fetches, updates = evaluate(function, arrays, states, self.observe)
            except errors.ShapeError as error:
                raise errors.InvalidArgumentError(None, None, str(error)) from None
            for name, old, new, before in zip(function.state_names, function.states, updates, function.updates,
                                              strict=True):
                if before is not old:
                    store.set(name, new, old.tensor.dtype)
            return tuple(f[()] if f.ndim == 0 else f for f in fetches)

        return run, {n: n for n in range(len(function.conditions))}
