"""Operation: one node of a graph, as the user made it.

Owns what an operation keeps: its name, definition, inputs, outputs, attrs and where the user wrote it.  Knows no rules
of inference and no execution.  Invariant: inputs and attrs never change; `index` is the order of creation.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from graphc.errors import report
from graphc.graph.notebook import in_notebook
from graphc.graph.tensor import Tensor, default_session
from graphc.source import SourceLine, capture

if TYPE_CHECKING:
    from graphc.graph.graph import Graph

E = TypeVar("E", bound=Exception)


class Definition(Protocol):
    """What a graph needs to know of an op's registry entry (graphc.ops.base.Op)."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def attrs(self) -> Mapping[str, Any]: ...
    @property
    def stateful(self) -> bool: ...
    @property
    def outputs(self) -> int: ...


class Operation:
    """One application of an op.  Source: tf.Operation.

    op: the registry's entry (Any here: graphs are below the ops in the order of imports).  source: the user's line.
    gradient_of: the operation whose gradient this one computes, or None.
    """

    __slots__ = ("__weakref__", "attrs", "control_inputs", "device", "gradient_of", "graph", "index", "inputs", "name",
                 "op", "outputs", "source")

    def __init__(self, graph: Graph, op: Any, name: str, inputs: tuple[Tensor, ...],
                 attrs: Mapping[str, Any], control_inputs: tuple[Operation, ...], device: str, source: SourceLine,
                 gradient_of: Operation | None, index: int) -> None:
        self.graph = graph
        self.op = op
        self.name = name
        self.inputs = inputs
        self.attrs = attrs
        self.control_inputs = control_inputs
        self.device = device
        self.source = source
        self.gradient_of = gradient_of
        self.index = index
        self.outputs: tuple[Tensor, ...] = ()

    @property
    def type(self) -> str:
        """The op's name: "MatMul"."""
        return str(self.op.name)

    @property
    def output(self) -> Tensor:
        """The only output."""
        (tensor,) = self.outputs
        return tensor

    def values(self) -> tuple[Tensor, ...]:
        """The outputs."""
        return self.outputs

    def get_attr(self, name: str) -> Any:
        """Return an attr.  Raises ValueError for a name that is none."""
        if name not in self.attrs:
            raise ValueError(f"operation {self.name} of type {self.type} has no attr {name!r}")
        return self.attrs[name]

    def run(self, feed_dict: Mapping[Any, Any] | None = None, session: Any = None) -> None:
        """Run this operation in `session` or the default session."""
        default_session(session, self.graph, f"run {self.name}", "run").run(self, feed_dict)

    def __repr__(self) -> str:
        return f"<tf.Operation '{self.name}' type={self.type}>"

    def _repr_html_(self) -> str:
        return in_notebook(self)

    def __str__(self) -> str:
        lines = [f'name: "{self.name}"', f'op: "{self.type}"']
        lines += [f'input: "{t.op.name if t.value_index == 0 else t.name}"' for t in self.inputs]
        lines += [f'input: "^{c.name}"' for c in self.control_inputs]
        return "\n".join(lines)


_WORDS = {"Placeholder": "placeholder", "PlaceholderWithDefault": "placeholder", "Const": "constant",
          "VariableV2": "variable"}


def origin(tensor: Tensor) -> Operation:
    """Return the operation that a user would name as the source of `tensor`: a variable for a read of it."""
    op = tensor.op
    while op.type in ("ReadVariable", "Identity") and op.inputs and op.inputs[0].op.type == "VariableV2":
        op = op.inputs[0].op
    return op


def describe_operands(tensors: Sequence[Tensor]) -> list[tuple[str, str]]:
    """Return (name, description) per tensor for an error's report: dtype, shape, what it is, and the user's line."""
    rows = []
    for t in dict.fromkeys(tensors):
        op = origin(t)
        rows.append((op.name if t.value_index == 0 else t.name, f"{t.dtype.name} {t.shape}",
                     f'{_WORDS.get(op.type, op.type)} "{op.name}", {op.source.short}'))
    width = max((len(kind) for _, kind, _ in rows), default=0)
    return [(name, f"{kind:<{width}}  {made}") for name, kind, made in rows]


def report_at(op: Operation, what: str, hint: str | None = None) -> str:
    """Return the text of an error about `op`: what, the user's line, the operands, a hint."""
    return report(what, str(op.source), describe_operands(op.inputs), hint)


def at_user(kind: type[E], what: str, operands: Sequence[Tensor] = (), hint: str | None = None) -> E:
    """Return an error of `kind` about a call that the user makes now: what, the user's line, the operands, a hint."""
    return kind(report(what, str(capture()), describe_operands(operands), hint))
