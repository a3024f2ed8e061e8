"""Collections of the default graph.

Owns the functions over a graph's named lists.  Invariant: what they return is a copy, except for `get_collection_ref`.
"""
from __future__ import annotations

from typing import Any

from graphc.graph.graph import get_default_graph
from graphc.graph.keys import GraphKeys

__all__ = ["GraphKeys", "add_to_collection", "add_to_collections", "get_collection", "get_collection_ref"]


def add_to_collection(name: str, value: Any) -> None:
    """Append `value` to a collection of the default graph.  Source: tf.add_to_collection."""
    get_default_graph().add_to_collection(name, value)


def add_to_collections(names: Any, value: Any) -> None:
    """Append `value` to several collections of the default graph.  Source: tf.add_to_collections."""
    get_default_graph().add_to_collections(names, value)


def get_collection(key: str, scope: str | None = None) -> list[Any]:
    """Return a collection of the default graph, or its items whose name `scope` matches.  Source: tf.get_collection."""
    return get_default_graph().get_collection(key, scope)


def get_collection_ref(key: str) -> list[Any]:
    """Return a collection of the default graph itself.  Source: tf.get_collection_ref."""
    return get_default_graph().get_collection_ref(key)
