"""What must be put right in the child of a fork.

Owns the list of those who want to be told.  Knows nothing of them but `after_fork`.  In a child only the
thread that forked lives: workers are gone, and locks that other threads held stay locked for ever.
"""
from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """An object with threads or locks of its own."""

    def after_fork(self) -> None:
        """Called in the child before fork returns there."""
        ...


_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def tell_of_forks(owner: ForkAware) -> None:
    """Call `owner.after_fork()` in every child, as long as `owner` lives."""
    _aware.add(owner)


def _in_child() -> None:
    for owner in list(_aware):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
