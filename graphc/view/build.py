"""Scenes of graphs, functions and compilations.

Owns what a drawing says of an operation: its name, type, attrs, the user's line, the kernels it went into.  Knows
graphs, functions and compilations; knows no way of drawing.  Invariants: names are those of the user's graph wherever a
value has one, and stay the same from stage to stage, so that two stages can be compared; nothing here changes or runs
anything; the same source gives the same scene.
"""
from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc import dtypes
from graphc.errors import BackendError, GraphError
from graphc.graph.graph import Graph
from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor
from graphc.inspection.compilation import Compilation
from graphc.ir import function as ir
from graphc.ir.dim import Dim
from graphc.ir.types import HostType, TensorType
from graphc.passes.access import is_view
from graphc.passes.lower import kernel_name
from graphc.view.group import Placed, arrange
from graphc.view.scene import UNKNOWN_SIZE, Group, Kernel, Node, Scene, Stage, Type

Drawable: TypeAlias = Graph | ir.Function | Compilation
KernelsOf: TypeAlias = Callable[[str], tuple[int, ...]]
Source: TypeAlias = tuple[str, int]

LONGEST = 120
"""Characters of an attr's text, at most."""

_KINDS = {"Const": "constant", "VariableV2": "variable", "Placeholder": "input", "PlaceholderWithDefault": "input"}


def scene(source: Drawable, title: str | None = None) -> Scene:
    """Return the scene of a graph, a function, or a compilation (the graph, then the function after each pass that
    changed something, and the kernels).

    title: None means a few words about the source.  Raises GraphError for anything else.
    """
    match source:
        case Graph():
            stage = graph_stage(source)
            return Scene(title or f"graph of {len(stage.nodes)} operations", (stage,))
        case ir.Function():
            return Scene(title or f"function {source.name}", (function_stage(source, source.name),))
        case Compilation():
            written = () if source.graph is None else (graph_stage(source.graph, source.kernel_of),)
            stages = (*written, *(function_stage(f, name, source.kernel_of) for name, f in _numbered(source.stages)))
            told = title or ", ".join([t.op.name for t in source.fetches] + [op.name for op in source.targets])
            return Scene(told, stages, tuple(_kernel(source, k) for k in range(len(source.kernels))))
    raise GraphError(f"a {type(source).__name__} cannot be drawn: a Graph, a Function or a Compilation can")


def _no_kernels(name: str) -> tuple[int, ...]:
    return ()


def _numbered(stages: Sequence[tuple[str, ir.Function]]) -> list[tuple[str, ir.Function]]:
    """The stages with names of their own: the second run of a pass is "simplify 2"."""
    runs: Counter[str] = Counter()
    named = []
    for name, function in stages:
        runs[name] += 1
        named.append((name if runs[name] == 1 else f"{name} {runs[name]}", function))
    return named


def _kernel(compilation: Compilation, number: int) -> Kernel:
    kernel = compilation.kernels[number]
    try:
        python = compilation.python(kernel)
    except BackendError as error:  # a kernel that has no such form is told, not left out
        python = f"# {error}\n"
    return Kernel(kernel.name, kernel.provenance, compilation.user_lines(kernel),
                  (("Python", python), ("kernel IR", compilation.kernel_text(kernel))))


# -- graphs ------------------------------------------------------------------------------------------------------------


def graph_stage(graph: Graph, kernels_of: KernelsOf = _no_kernels) -> Stage:
    """Return the graph as the user wrote it."""
    return arrange("graph", [Placed(_operation(op, kernels_of), "", op.name) for op in graph.get_operations()])


def _operation(op: Operation, kernels_of: KernelsOf) -> Node:
    return Node(op.name, op.name.rpartition("/")[2], op.type, _KINDS.get(op.type, "op"),
                tuple((t.op.name, t.value_index) for t in op.inputs), tuple(c.name for c in op.control_inputs),
                tuple(map(tensor_type, op.outputs)), str(op.source) if op.source.line else "", _attrs(op.attrs),
                (op.name,), kernels_of(op.name))


def tensor_type(tensor: Tensor) -> Type:
    """Return what is known of a graph's tensor."""
    sizes = tensor.type.shape
    return Type(tensor.dtype.name,
                None if sizes is None else tuple(n if isinstance(n, int) else UNKNOWN_SIZE for n in sizes))


# -- functions ---------------------------------------------------------------------------------------------------------


def function_stage(function: ir.Function, name: str, kernels_of: KernelsOf = _no_kernels,
                   lines: Mapping[str, str] | None = None) -> Stage:
    """Return a function: its inputs and states, its nodes, and its results.  A fused kernel is a box with its
    operations in it; the body of a loop or branch is a box beside its operation.  lines: the user's lines by the names
    of the graph's operations (None: those that the function knows)."""
    drawing = _Drawing(function.lines if lines is None else lines, kernels_of)
    drawing.look_for_repeats(function)
    sources: dict[ir.Value, Source] = {}
    for kind, values, given in (("input", function.feeds, function.feed_names),
                                ("variable", function.states, function.state_names)):
        for i, value in enumerate(values):
            told = given[i].removesuffix(":0") if i < len(given) else f"{kind} {i}"
            op = "Feed" if kind == "input" else "State"
            sources[value] = drawing.add("", told, op, kind, outputs=(value.type,), origin=(told,)), 0
    drawing.body(function, "", sources)
    for i, value in enumerate(function.fetches):
        told = function.fetch_names[i] if i < len(function.fetch_names) else f"result {i}"
        drawing.add("", told if ":" in told else f"{told}:0", "Fetch", "output", (sources[value],), (value.type,))
    for i, (state, value) in enumerate(zip(function.states, function.updates, strict=True)):
        if value is not state:
            told = function.state_names[i] if i < len(function.state_names) else f"variable {i}"
            drawing.add("", f"updates/{told}", "Update", "update", (sources[value],), (value.type,), (told,))
    return arrange(name, drawing.placed, drawing.boxes)


class _Drawing:
    """Places the nodes of one function.  placed, boxes: what arrange takes."""

    def __init__(self, lines: Mapping[str, str], kernels_of: KernelsOf) -> None:
        self.placed: list[Placed] = []
        self.boxes: list[tuple[Group, str]] = []
        self._lines = lines
        self._kernels_of = kernels_of
        self._taken: set[str] = set()
        self._repeated: set[str] = set()

    def add(self, base: str, path: str, op: str, kind: str, inputs: tuple[Source, ...] = (),
            outputs: Sequence[TensorType | HostType] = (), origin: tuple[str, ...] = (),
            attrs: tuple[tuple[str, str], ...] = (), kernels: tuple[int, ...] | None = None,
            flat: bool = False) -> str:
        """Place a node and return its id, made of `path` and, where that is taken, a number."""
        path = self._free(base if not flat else "", path)
        line = next((self._lines[o] for o in origin if o in self._lines), "")
        given = self._kernels_of(origin[0]) if kernels is None and origin else kernels or ()
        node = Node(path if flat else base + path, path if flat else path.rpartition("/")[2], op, kind, inputs, (),
                    tuple(map(_type, outputs)), line, attrs, origin, given)
        self.placed.append(Placed(node, base, path, flat))
        return node.id

    def look_for_repeats(self, function: ir.Function) -> None:
        """Note what several kernels compute: such nodes are told apart by kernel, in whatever order kernels are."""
        counts: Counter[str] = Counter()
        for node in function.nodes:
            if node.op.name == "Fusion":
                counts.update({name for inner in node.attrs["body"].nodes for name in inner.origin[:1]})
        self._repeated = {name for name, count in counts.items() if count > 1}

    def _free(self, base: str, path: str) -> str:
        name, n = path, 1
        while base + name in self._taken:
            n += 1
            name = f"{path} {n}"
        self._taken.add(base + name)
        return name

    def body(self, function: ir.Function, base: str, sources: dict[ir.Value, Source], flat: bool = False,
             kernels: tuple[int, ...] | None = None) -> None:
        """Place the nodes of `function` in the box `base`; sources has its inputs and receives all other values."""
        last = {node.origin[0]: node for node in function.nodes if node.origin}
        for node in function.nodes:
            # of several nodes that one operation became, the last gives the operation's value and keeps its name
            name = node.origin[0] if node.origin else node.op.name
            path = name if not node.origin or last[name] is node else f"{name}/{node.op.name}"
            if flat and name in self._repeated:
                path += f" in {base.rstrip('/').removesuffix('@kernel')}"
            if node.op.name == "Fusion":
                self._fusion(node, base, path, sources)
                continue
            inputs = tuple(sources[v] for v in node.inputs)
            if node.op.name in ("Loop", "Cond"):
                inputs = self._structured(node, base, path, sources)
            id = self.add(base, path, node.op.name, _KINDS.get(node.op.name, "op"), inputs,
                          [v.type for v in node.outputs], node.origin, _attrs(node.attrs), kernels, flat)
            sources |= {v: (id, i) for i, v in enumerate(node.outputs)}

    def _fusion(self, node: ir.Node, base: str, path: str, sources: dict[ir.Value, Source]) -> None:
        """A fused kernel: its nodes in a box of their own, if they are several."""
        body: ir.Function = node.attrs["body"]
        inner = dict(zip(body.feeds, (sources[v] for v in node.inputs), strict=True))
        kernels = self._kernels_in_common(node.origin)
        ops = [n.op.name for n in body.nodes if n.op.name != "Const" and not is_view(n)]
        if len(ops) > 1:
            scope = _common_scope([name for n in body.nodes for name in n.origin[:1]])
            box = f"{self._free('', f'{base}{path}@kernel')}/"
            label = kernel_name(node.attrs["form"], ops)
            self.boxes.append((Group(box, label, "kernel", base + scope, kernels), base))
            self.body(body, box, inner, flat=True, kernels=kernels)
        else:
            self.body(body, base, inner, kernels=kernels)
        sources |= {v: inner[f] for v, f in zip(node.outputs, body.fetches, strict=True)}

    def _kernels_in_common(self, names: Sequence[str]) -> tuple[int, ...]:
        """The kernels that all of the operations `names` went into."""
        several = [self._kernels_of(name) for name in names]
        return tuple(k for k in several[0] if all(k in others for others in several)) if several else ()

    def _structured(self, node: ir.Node, base: str, path: str, sources: dict[ir.Value, Source]) -> tuple[Source, ...]:
        """A loop or branch: a box per body, fed by what feeds the node.  Returns what the node itself takes: its count,
        limit or predicate, and the results of its bodies."""
        taken = [sources[node.inputs[0]]]
        for attr, body in node.bodies():
            box = f"{self._free('', f'{base}{path}@{attr}')}/"
            self.boxes.append((Group(box, f"{path.rpartition('/')[2]} {attr}", "body", base), base))
            fed = node.inputs[len(node.inputs) - len(body.feeds):] if len(body.feeds) <= len(node.inputs) else ()
            inner: dict[ir.Value, Source] = {}
            roles = _roles(node, attr)
            for i, value in enumerate(body.feeds):
                inputs = (sources[fed[i]],) if fed else ()
                told = body.feed_names[i] if i < len(body.feed_names) else roles[i] if i < len(roles) else f"input {i}"
                inner[value] = self.add(box, told, "Argument", "input", inputs, (value.type,)), 0
            self.body(body, box, inner)
            taken += [inner[v] for v in body.fetches]
        return tuple(taken)


def _roles(node: ir.Node, body: str) -> list[str]:
    """What a body of a loop or branch is given, in order (ARCHITECTURE: structured nodes)."""
    if node.op.name != "Loop":
        return [f"capture {i}" for i in range(len(node.inputs) - 1)]
    first, rows = (["iteration"], node.attrs["xs"]) if body == "body" else ([], 0)
    return [*first, *(f"carried {i}" for i in range(node.attrs["carried"])), *(f"row {i}" for i in range(rows)),
            *(f"capture {i}" for i in range(node.attrs["captures"]))]


def _common_scope(names: Sequence[str]) -> str:
    """The innermost name scope that holds all these operations, or ""."""
    parts = [name.split("/")[:-1] for name in names]
    shared = list(itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False)))
    return "".join(f"{level[0]}/" for level in shared)


def _type(type: TensorType | HostType) -> Type:
    if isinstance(type, HostType):
        return Type(str(type), ())
    return Type(type.dtype.name, tuple(n if isinstance(n, int) else str(n) for n in type.shape))


# -- attrs -------------------------------------------------------------------------------------------------------------


def _attrs(attrs: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The attrs that have a text, by name; bodies are drawn instead."""
    return tuple((name, _text(attrs[name])) for name in sorted(attrs)
                 if not isinstance(attrs[name], (ir.Function, Graph)) and attrs[name] is not None)


def _text(value: Any) -> str:
    match value:
        case np.ndarray():
            return _array(value)
        case dtypes.DType():
            return value.name
        case tuple() | list():
            inside = ", ".join(_text(v) for v in value)
            text = f"({inside},)" if len(value) == 1 else f"({inside})"
        case Operation() | Tensor():
            return value.name
        case Dim() | TensorType() | HostType() | bool() | int() | float() | str() | np.generic():
            text = str(value)
        case _ if callable(value):
            return getattr(value, "__qualname__", type(value).__name__)
        case _:
            return type(value).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _array(value: np.ndarray[Any, Any]) -> str:
    """A scalar or a few elements as they are; more by their type, and by the one value that they all have."""
    flat = value.reshape(-1)
    if value.ndim == 0:
        return _element(flat[0])
    if flat.size <= 6:
        return f"[{', '.join(map(_element, flat))}]"
    told = f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return f"{told} all {_element(flat[0])}" if (flat == flat[0]).all() else told


def _element(value: Any) -> str:
    return f"{float(value):.6g}" if isinstance(value, np.floating) else str(value)
