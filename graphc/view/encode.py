"""A scene as JSON: for programs that read drawings, and for the page.

    {"format": "graphc.scene", "version": 1, "title": "loss, train",
     "types":   [{"dtype": "float32", "shape": ["?", 784]}],          shape: numbers, symbols, "?"; null: unknown rank
     "lines":   ["mlp.py:38 in build:   x = tf.placeholder(...)"],
     "kernels": [{"name": "...", "ops": ["x", ...], "lines": [0], "sources": {"Python": "...", "kernel IR": "..."}}],
     "nodes":   [{"id": "hidden1/MatMul", "op": "MatMul", "kind": "op", "in": [["x", 0], ...], "after": ["init"],
                  "out": [0], "line": 0, "attrs": {"transpose_a": "False"}, "origin": ["hidden1/MatMul"],
                  "kernels": [1]}],
     "stages":  [{"name": "graph", "nodes": [0, 1, ...], "labels": ["x", ...], "in": [-1, 0, ...],
                  "groups": [{"id": "hidden1/", "label": "hidden1", "kind": "scope", "in": -1, "kernels": []}]}]}

Numbers refer to the tables: a node's "out" to types, its "line" to lines (-1: unknown), "kernels" to kernels; a stage's
"nodes" to nodes, its "in" (one per node, and of each group) to the groups of the stage, -1 for none.  A node that is
the same in several stages stands in the table once, so two stages differ in the nodes whose numbers differ.  Of a node,
what is empty is left out, and so is an origin that is the id alone.
Owns this form; version grows when a reader of it would break.  Knows scenes alone.  Invariant: deterministic.
"""
from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from graphc.view.scene import Kernel, Node, Scene, Stage, Type

VERSION = 1

T = TypeVar("T", bound=Hashable)


class _Table(Generic[T]):
    """Things numbered in the order they are met, each once."""

    def __init__(self) -> None:
        self.numbers: dict[T, int] = {}

    def number(self, item: T) -> int:
        return self.numbers.setdefault(item, len(self.numbers))


class _Encoder:
    def __init__(self) -> None:
        self.types: _Table[Type] = _Table()
        self.lines: _Table[str] = _Table()
        self.nodes: _Table[Node] = _Table()

    def line(self, text: str) -> int:
        return self.lines.number(text) if text else -1

    def kernel(self, kernel: Kernel) -> dict[str, Any]:
        return {"name": kernel.name, "ops": list(kernel.ops), "lines": [self.line(text) for text in kernel.lines],
                "sources": dict(kernel.sources)}

    def stage(self, stage: Stage) -> dict[str, Any]:
        places = {"": -1} | {g.id: i for i, g in enumerate(stage.groups)}
        return {
            "name": stage.name,
            "nodes": [self.nodes.number(replace(n, label="")) for n in stage.nodes],  # labels depend on the boxes
            "labels": [n.label for n in stage.nodes],
            "in": [places[stage.parents.get(n.id, "")] for n in stage.nodes],
            "groups": [{"id": g.id, "label": g.label, "kind": g.kind, "in": places[g.parent],
                        "kernels": list(g.kernels)} for g in stage.groups],
        }

    def node(self, node: Node) -> dict[str, Any]:
        told: dict[str, Any] = {
            "id": node.id, "op": node.op, "kind": node.kind, "in": [list(source) for source in node.inputs],
            "after": list(node.after), "out": [self.types.number(t) for t in node.outputs], "attrs": dict(node.attrs),
            "origin": [] if node.origin == (node.id,) else list(node.origin), "kernels": list(node.kernels),
        }
        return {key: value for key, value in told.items() if value} | {"line": self.line(node.line)}


def scene_data(scene: Scene) -> dict[str, Any]:
    """Return the scene as plain data of JSON's types."""
    encoder = _Encoder()
    kernels = [encoder.kernel(k) for k in scene.kernels]
    stages = [encoder.stage(s) for s in scene.stages]
    nodes = [encoder.node(n) for n in encoder.nodes.numbers]
    return {
        "format": "graphc.scene", "version": VERSION, "title": scene.title,
        "types": [{"dtype": t.dtype, "shape": None if t.shape is None else list(t.shape)}
                  for t in encoder.types.numbers],
        "lines": list(encoder.lines.numbers), "kernels": kernels, "nodes": nodes, "stages": stages,
    }


def scene_json(scene: Scene) -> str:
    """Return the scene as one line of JSON."""
    return json.dumps(scene_data(scene), ensure_ascii=False, separators=(",", ":")) + "\n"
