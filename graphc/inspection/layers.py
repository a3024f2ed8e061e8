"""A model by layer: for each name scope its output, parameters, multiply-adds and activations.

Owns what is counted and how.  Knows functions of the IR alone, so that graphs and saved programs are counted alike.
Rules: a layer is a name scope cut at a depth; its output is the last value of it that others need; a parameter is an
element of a variable of floats (where it is known which ones are trained, of those); a multiply-add is a term of a
product's or convolution's sum, counted on the graph as extracted; an activation is a value that is computed, and would
take memory if nothing were fused.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.function import Function, Node, Value
from graphc.ir.types import TensorType
from graphc.ops.base import Kind
from graphc.passes.access import estimate, is_fusible, is_view, unit_of

UNSCOPED = "(no scope)"


@dataclass(frozen=True, slots=True)
class Layer:
    """One row.  output: None where nobody needs a value of this scope.  activations: bytes."""

    name: str
    output: TensorType | None
    parameters: int
    multiply_adds: Size
    activations: Size


def layers(function: Function, depth: int = 1, trained: Collection[str] | None = None) -> tuple[Layer, ...]:
    """Return the layers of an extracted function, in the order in which they are first computed.

    depth: parts of a name that tell layers apart.  trained: names of the variables that are trained; None: not known.
    """
    outputs = _outputs(function, depth)
    parameters: dict[str, int] = {}
    for name, value in zip(function.state_names, function.states, strict=True):
        if is_parameter(name, value, trained):
            scope = scope_of(name, depth)
            parameters[scope] = parameters.get(scope, 0) + _number(dim.product(value.tensor.shape))
    multiply: dict[str, Size] = {}
    bytes_: dict[str, Size] = {}
    for node in function.nodes:
        if node.op.name in ("Const", "Sizes"):
            continue
        scope = scope_of(node.origin[0] if node.origin else node.op.name, depth)
        multiply[scope] = multiply.get(scope, 0) + multiply_adds(node)
        bytes_[scope] = bytes_.get(scope, 0) + activations(node)
    return tuple(Layer(s, outputs.get(s), parameters.get(s, 0), multiply.get(s, 0), bytes_.get(s, 0))
                 for s in dict.fromkeys((*multiply, *parameters)))


def scope_of(name: str, depth: int) -> str:
    """Return the layer of an operation: the first `depth` parts of its name scope."""
    return "/".join(name.split("/")[:-1][:depth]) or UNSCOPED


def is_parameter(name: str, value: Value, trained: Collection[str] | None) -> bool:
    """Whether a state's elements are parameters of the model."""
    return value.tensor.dtype.is_floating and (trained is None or name in trained)


def parameter_count(function: Function, trained: Collection[str] | None = None) -> int:
    """Return the number of parameters that the function reads or writes."""
    return sum(_number(dim.product(v.tensor.shape)) for n, v in zip(function.state_names, function.states, strict=True)
               if is_parameter(n, v, trained))


def multiply_adds(node: Node) -> Size:
    """Return the terms of the sums of products that a node is, 0 for any other; a loop's body as often as it runs."""
    if node.op.kind is Kind.STRUCTURED:
        return _structured(node, multiply_adds)
    if node.op.kind is not Kind.CONTRACTION or node.op.flops is None:
        return 0
    return _flops(node) // 2


def flops(function: Function) -> Size:
    """Return the arithmetic operations of an optimised function: a product's as its op says, anything else's as the
    primitives of its expression per element; those of hand-written routines (sorting and the like) are not counted."""
    total: Size = 0
    for node in function.nodes:
        total = total + _operations(node)
    return total


def _operations(node: Node) -> Size:
    if node.op.kind is Kind.STRUCTURED:
        return _structured(node, _operations)
    if node.op.flops is not None:
        return _flops(node)
    if not is_fusible(node) or is_view(node):
        return 0
    units = [unit_of(v) for v in node.outputs if isinstance(v.type, TensorType)]
    return sum((dim.product(u.sizes) * u.primitives for u in units), start=0)


def _flops(node: Node) -> Size:
    assert node.op.flops is not None
    return node.op.flops([v.tensor for v in node.inputs], [v.tensor for v in node.outputs], node.attrs)


def _structured(node: Node, of: Callable[[Node], Size]) -> Size:
    """The bodies of a structured node: a loop's as often as it runs where that is a size, else once; of a branch's the
    larger."""
    bodies = {name: sum((of(n) for n in body.nodes), start=0) for name, body in node.bodies()}
    if node.op.name == "Loop":
        carried, stacked = node.attrs["carried"], node.attrs["xs"]
        turns: Size = node.inputs[1 + carried].tensor.shape[0] if stacked else 1
        return turns * sum(bodies.values(), start=0)
    return max(bodies.values(), key=estimate, default=0)


def activations(node: Node) -> Size:
    """Return the bytes of the values that a node computes."""
    if is_view(node) or node.op.kind is Kind.HOST:
        return 0
    outputs = node.outputs[:-1] if node.op.kind is Kind.RANDOM else node.outputs  # the last one is the counter
    return sum((dim.product(v.tensor.shape) * v.tensor.dtype.size for v in outputs), start=0)


def _outputs(function: Function, depth: int) -> dict[str, TensorType]:
    """The last value of each layer that another layer, or a result, needs."""
    layer: dict[Value, str] = {}
    needed: dict[Value, None] = {}
    for node in function.nodes:
        if node.op.name in ("Const", "Sizes"):
            continue
        scope = scope_of(node.origin[0] if node.origin else node.op.name, depth)
        for v in node.inputs:
            if v in layer and layer[v] != scope:
                needed[v] = None
        layer.update(dict.fromkeys(node.outputs, scope))
    needed.update(dict.fromkeys(v for v in function.results if v in layer))
    forward = [v for v in layer if v in needed and isinstance(v.type, TensorType)]
    return {layer[v]: v.tensor for v in forward}


def at(size: Size, free: int, known: Mapping[str, int] | None = None) -> int:
    """Return the number that `size` is where every free size is `free`, but those `known`."""
    if isinstance(size, int):
        return size
    return size.evaluate({s: (known or {}).get(s, free) for s in size.symbols()})


def _number(size: Size) -> int:
    assert isinstance(size, int)
    return size


def shape_text(type: TensorType) -> str:
    """Return a type as TensorFlow shows it: float32 (None, 10)."""
    sizes = ["None" if isinstance(n, Dim) else str(n) for n in type.shape]
    return f"{type.dtype.name} ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
