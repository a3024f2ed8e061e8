"""The default graph and the default session: two stacks, one pair per thread.

Owns the only mutable global state besides the op registry.  Knows nothing of what stands on the stacks.
Invariant: what is entered is left in reverse order; each thread starts with empty stacks.
"""
from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from graphc.errors import GraphError

T = TypeVar("T")


class DefaultStack(threading.local, Generic[T]):
    """The objects that are the default here, innermost last."""

    def __init__(self) -> None:
        self.items: list[T] = []

    def top(self) -> T | None:
        """The innermost default, or None."""
        return self.items[-1] if self.items else None

    @contextmanager
    def entered(self, item: T) -> Iterator[T]:
        """Make `item` the default inside a `with` block."""
        self.items.append(item)
        try:
            yield item
        finally:
            if self.items[-1] is not item:
                raise GraphError(f"{type(item).__name__} contexts must be left in the reverse order of entering")
            self.items.pop()

    def push(self, item: T) -> None:
        """Make `item` the default until `remove`."""
        self.items.append(item)

    def remove(self, item: T) -> None:
        """Take the innermost `item` off the stack, where it is there."""
        for i in range(len(self.items) - 1, -1, -1):
            if self.items[i] is item:
                del self.items[i]
                return
