"""The variants of one program: which of them runs a given set of sizes.

Owns the choice.  Knows runners and failed assumptions; knows nothing of how a variant comes to be.
Unknown sizes that meet are assumed equal; a run in which one of them is 1 instead gets a variant of its own, which is
found again by the shapes of the feeds.  Invariant: a variant runs only sizes for which all that it assumes holds.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import InternalError
from graphc.runtime.executor import Runner
from graphc.runtime.program import AssumptionFailed

Assumptions = Mapping[int, str]
"""Number of a condition of the extracted function -> "left" or "right", the side of it that is 1."""

Variant = tuple[Runner, Mapping[int, int]]
"""How a variant runs, and the number of the condition that each check of its plan states."""


class Variants:
    """Runs the right variant for each set of values.  make: the variant of some assumptions."""

    def __init__(self, make: Callable[[Assumptions], Variant]) -> None:
        self._make = make
        self._by_assumptions: dict[frozenset[tuple[int, str]], Variant] = {}
        self._by_shapes: dict[tuple[tuple[int, ...], ...], Runner] = {}
        self._first, self._checks = self._variant(frozenset())

    def fastest(self) -> Runner:
        """Return what runs any values: the one variant itself where nothing is assumed of sizes."""
        return self.runner if self._checks else self._first

    def runner(self, *values: Any) -> tuple[Any, ...]:
        """Run the variant for these values."""
        if self._by_shapes:
            shapes = tuple([np.shape(v) for v in values])
            found = self._by_shapes.get(shapes)
            if found is not None:
                return found(*values)
        try:
            return self._first(*values)
        except AssumptionFailed as failed:
            return self._other(values, failed)

    def _variant(self, assumptions: frozenset[tuple[int, str]]) -> Variant:
        found = self._by_assumptions.get(assumptions)
        if found is None:
            found = self._by_assumptions[assumptions] = self._make(dict(assumptions))
        return found

    def _other(self, values: Sequence[Any], failed: AssumptionFailed) -> tuple[Any, ...]:
        assumptions: frozenset[tuple[int, str]] = frozenset()
        while True:
            conditions = self._variant(assumptions)[1]
            assumed = conditions[failed.check], failed.one
            if assumed in assumptions:
                raise InternalError(f"the variant that assumes the {assumed[1]} side of condition {assumed[0]} to be 1 "
                                    "does not run where it is")
            assumptions |= {assumed}
            runner = self._variant(assumptions)[0]
            try:
                result = runner(*values)
            except AssumptionFailed as again:
                failed = again
                continue
            self._by_shapes[tuple([np.shape(v) for v in values])] = runner
            return result
