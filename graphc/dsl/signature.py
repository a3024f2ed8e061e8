"""A model's signature: what it is called with and what it gives back, by names that its users choose.

Owns the record and the one function that writes it into the graph.  Knows graphs; knows nothing of files or programs.
Invariant: a graph has at most one signature, the one declared last; its tensors are the graph's own.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import GraphError
from graphc.graph.graph import Graph, get_default_graph
from graphc.graph.operation import Operation, at_user
from graphc.graph.tensor import Tensor

__all__ = ["signature"]

COLLECTION = "graphc_signature"


@dataclass(frozen=True, slots=True)
class Signature:
    """inputs: argument -> the tensor that is fed.  outputs: result -> the tensor that is computed.  targets: the
    operations that a call also runs."""

    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    targets: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class Declared:
    """What a model's file says of its signature; None where it leaves inputs or outputs to be found."""

    inputs: Mapping[str, Tensor] | None
    outputs: Mapping[str, Tensor] | None
    targets: tuple[Operation, ...]


def signature(inputs: Mapping[str, Any] | Iterable[Any] | None = None,
              outputs: Mapping[str, Any] | Iterable[Any] | None = None) -> None:
    """Declare what the graph's model is called with and gives back, for `graphc compile` and saved programs.

    inputs: {argument: tensor to feed}, or a list of tensors, which then go by their operations' names; None: the
    placeholders that the outputs need.  outputs: {result: tensor, variable or operation}, or a list; an operation runs
    with every call and gives no value; None: every result that nobody consumes.  The graph is that of the first tensor
    given; a later call replaces the signature.  Raises GraphError, TypeError.
    """
    given = [*_items(inputs), *_items(outputs)]
    graph = next((found for _, item in given if isinstance(found := getattr(item, "graph", None), Graph)), None)
    graph = graph or get_default_graph()
    fed = None if inputs is None else _named(graph, inputs, "inputs")
    results = None if outputs is None else _named(graph, outputs, "outputs")
    for name, item in (fed or {}).items():
        if isinstance(item, Operation):
            raise at_user(GraphError, f"signature: the input {name!r} is an operation without a value")
        if not graph.is_feedable(item):
            raise at_user(GraphError, f"signature: {item.name!r} may not be fed", [item])
    declared = Declared(
        None if fed is None else {n: t for n, t in fed.items() if isinstance(t, Tensor)},
        None if results is None else {n: t for n, t in results.items() if isinstance(t, Tensor)},
        tuple(dict.fromkeys(item for item in (results or {}).values() if isinstance(item, Operation))))
    graph.clear_collection(COLLECTION)
    graph.add_to_collection(COLLECTION, declared)


def declared_signature(graph: Graph) -> Declared | None:
    """Return what the last call of `signature` declared for `graph`, or None."""
    found: list[Declared] = graph.get_collection(COLLECTION)
    return found[-1] if found else None


def _items(given: Mapping[str, Any] | Iterable[Any] | None) -> list[tuple[Any, Any]]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        return list(given.items())
    if isinstance(given, (str, Tensor)) or not isinstance(given, Iterable):
        raise at_user(TypeError, f"signature: inputs and outputs are dicts or lists, not {type(given).__name__}")
    return [(None, item) for item in given]


def _named(graph: Graph, given: Mapping[str, Any] | Iterable[Any], what: str) -> dict[str, Tensor | Operation]:
    """The elements by name, the order kept."""
    found: dict[str, Tensor | Operation] = {}
    for name, item in _items(given):
        try:
            element = graph.as_graph_element(item)
        except (KeyError, TypeError) as error:
            raise at_user(GraphError, f"signature: {what}: {error.args[0]}") from None
        if name is None:
            name = element_name(element)
        if not isinstance(name, str) or not name:
            raise at_user(TypeError, f"signature: {what} go by texts, not {name!r}")
        if name in found:
            raise at_user(GraphError, f"signature: two {what} are called {name!r}")
        found[name] = element
    twice = [t for i, t in enumerate(found.values()) if t in list(found.values())[:i]]
    if what == "inputs" and twice:
        raise at_user(GraphError, f"signature: {twice[0].name!r} is two inputs")
    return found


def element_name(element: Tensor | Operation) -> str:
    """Return what a tensor goes by where nobody named it: its operation, with the number where it is not the first."""
    if isinstance(element, Operation) or element.value_index:
        return element.name
    return element.op.name
