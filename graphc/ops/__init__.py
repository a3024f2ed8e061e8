"""The ops: what each one is, in one place; importing this package fills the registry and seals it.

Owns the list of op files.  Invariant: the registry is complete and closed after the import.
"""
from graphc.ops import (
    base,
    cast,
    contraction,
    convolution,
    elementwise_binary,
    elementwise_unary,
    host,
    indexing,
    inference,
    joining,
    matrix,
    movement,
    nn,
    padding,
    pooling,
    random,
    reductions,
    scan,
    slicing,
    sources,
    special,
    state,
    structured,
    winograd,
)

base.seal()

__all__ = [
    "base",
    "cast",
    "contraction",
    "convolution",
    "elementwise_binary",
    "elementwise_unary",
    "host",
    "indexing",
    "inference",
    "joining",
    "matrix",
    "movement",
    "nn",
    "padding",
    "pooling",
    "random",
    "reductions",
    "scan",
    "slicing",
    "sources",
    "special",
    "state",
    "structured",
    "winograd",
]
