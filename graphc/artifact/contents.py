"""What a saved program's header says: its signature, variants, targets and versions, and their form as JSON.

Owns the records and their checks.  Knows dtypes alone.  Invariant: `from_json` gives records that were checked field by
field, or raises; nothing in them was evaluated.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.dtypes import DType


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a saved program: the name that users call it by, the tensor's name in the graph, its dtype
    and its sizes, None where one is free; `optional`: an input with a default value."""

    name: str
    tensor: str
    dtype: DType
    shape: Sequence[int | None]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class SavedSignature:
    """The inputs and outputs of a saved program, in order, and the names of the operations that each call also runs."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    targets: tuple[str, ...]
