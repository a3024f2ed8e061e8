"""Keeping hoisted values fresh: the program that computes them runs again when a variable has changed.

Owns the comparison of versions around a run.  Knows variables; must not know what is hoisted (passes/hoist.py) or how
programs run.  Invariant: a run reads values that were computed from what its variables held when it began, or later.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from graphc.runtime.forks import tell_of_forks
from graphc.runtime.variables import Variables

Runner = Callable[..., tuple[Any, ...]]


class Hoisted:
    """The hoisted values of one program on one set of variables.  compute: runs the program that computes them."""

    def __init__(self, variables: Variables, compute: Callable[[], object]) -> None:
        self._variables = variables
        self._compute = compute
        self._version = -1  # of the variables, when the values were last computed
        self._lock = threading.Lock()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Renew the lock: the thread that held it may not exist here."""
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Compute the values again if a variable has changed since."""
        with self._lock:
            version = self._variables.version
            if version != self._version:
                self._compute()
                self._version = version

    def before(self, runner: Runner) -> Runner:
        """Return `runner` with fresh values."""
        variables, refresh = self._variables, self.refresh

        def run(*values: Any) -> tuple[Any, ...]:
            if variables.version != self._version:
                refresh()
            return runner(*values)

        return run
