"""graphc: a compiler for dataflow graphs written as in TensorFlow 1.  `import graphc as tf`.

Owns the lazy access to the public names (graphc/api.py), loaded when the first one is used.
"""
from __future__ import annotations

import importlib
import importlib.util
from typing import Any

__version__ = "0.1.0"

_SUBMODULES = ("compat",)
_FUNCTIONS = {"load": "graphc.artifact.load"}
"""Public names that need neither the language nor the compiler, and where each lives."""


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    if name in _SUBMODULES or importlib.util.find_spec(f"graphc.{name}") is not None:
        return importlib.import_module(f"graphc.{name}")  # also what `from graphc import dtypes` asks for first
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    public = importlib.import_module("graphc.api").PUBLIC
    if name not in public:
        near = importlib.import_module("graphc.graph.graph").near_names(name, [*public, *_FUNCTIONS])
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise AttributeError(f"module 'graphc' has no attribute {name!r}{hint}", name=name)
    globals().update(public)  # from now on names are found without this function
    return public[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("graphc.api").PUBLIC, *_SUBMODULES, *_FUNCTIONS})


def disable_v2_behavior() -> None:
    """Do nothing: graphs are all there is.  Source: tf.disable_v2_behavior."""


def disable_eager_execution() -> None:
    """Do nothing: graphs are all there is.  Source: tf.disable_eager_execution."""
