"""Types of values: what is known about a value before it exists.

Owns `TensorType`, `PartialType` and `HostType`.  A size is an int or a `Dim`.  Invariant: immutable, hashable.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from graphc import dtypes
from graphc.ir import dim
from graphc.ir.dim import Size

Shape: TypeAlias = tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dense tensor: dtype and one size per axis (row-major)."""

    dtype: dtypes.DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Size:
        return dim.product(self.shape)

    @property
    def bytes(self) -> Size:
        return self.elements * self.dtype.size

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class PartialType:
    """What is known of a tensor while a graph is built: shape is None for an unknown rank."""

    dtype: dtypes.DType
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class HostType:
    """A value that lives in Python only: kind is "string", "token", "iterator" or "queue"."""

    kind: str

    def __str__(self) -> str:
        return f"host<{self.kind}>"


Type: TypeAlias = TensorType | HostType
