"""ONNX: a model's inference graph as a file that other runtimes run and Netron draws.

Owns the export: which function is said, its inputs, results, variables and names, and the report of what cannot be.
Knows models and the IR; what each op is in ONNX stands in onnx_table.py.  The messages and the checker are those of the
onnx package (extra [onnx]).
Invariants: what is returned passed ONNX's checker with strict shape inference; it computes what the session computes
(docs/onnx.md states the limits); one file serves every batch size; equal models give equal files.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from graphc.dsl.signature import Signature
from graphc.dtypes import bfloat16, bool_, float32_to_bfloat16
from graphc.errors import GraphcError, GraphError, InternalError, report
from graphc.graph.graph import Graph
from graphc.interop.onnx_builder import ELEMENT, OPSET, Applied, OnnxBuilder, Ref, Refused
from graphc.interop.onnx_table import REASONS, ROWS
from graphc.interop.tensorboard import MissingPackage
from graphc.ir import infer
from graphc.ir.dim import Size, substitute, symbol
from graphc.ir.function import Builder, Function, Node, Value, rewrite
from graphc.ir.types import Shape, TensorType
from graphc.model import Model
from graphc.ops.base import Kind, lookup
from graphc.options import Options
from graphc.passes.decompose import expand
from graphc.passes.extract import extract
from graphc.passes.patterns import number
from graphc.passes.pipeline import ALGEBRA, CANONICAL, CSE, FOLD, PRUNE, Pipeline, Repeat

Array = np.ndarray[Any, Any]
Source: TypeAlias = Model | tuple[Graph, Signature, Mapping[str, Array]]

IR_VERSION = 10
MOST_BYTES = (1 << 31) - (1 << 20)
"""Of a file: protocol buffers end at 2 GiB."""


class NotExportable(GraphcError, ValueError):
    """A model that ONNX cannot say; the message tells every operation in the way, with the user's line."""


@dataclass(frozen=True, slots=True)
class _Problem:
    """op: name in the user's graph.  kind: its type.  reason: why it cannot be said."""

    op: str
    kind: str
    reason: str


def export(source: Source) -> Any:
    """Return an onnx.ModelProto of a model, or of (graph, signature, values of the variables by name).

    Inputs and results have the signature's names; free sizes are dim_params, that of the first axis `batch`.
    Raises NotExportable with every operation that cannot be said, GraphError for a fed tensor of unknown rank,
    MissingPackage.
    """
    _package()
    signature = source.signature if isinstance(source, Model) else source[1]
    for tensor in signature.inputs.values():
        if tensor.shape.ndims is None:
            raise GraphError(report(f"the rank of the fed tensor {tensor.name!r} is not known", str(tensor.op.source),
                                    hint="give its placeholder a shape, with None for free sizes"))
    function = extract(tuple(signature.outputs.values()), tuple(signature.inputs.values()), signature.targets)
    function = function.replace(feed_names=tuple(signature.inputs), fetch_names=tuple(signature.outputs))
    if isinstance(source, Model):
        return export_function(function, source.values(), Path(source.path).stem or "model")
    return export_function(function, source[2])


def write_onnx(path: str | Path, source: Source) -> Path:
    """Write a model as an ONNX file and return its path.  Raises what `export` raises, and OSError."""
    target = Path(path)
    target.write_bytes(export(source).SerializeToString(deterministic=True))
    return target


def export_function(function: Function, values: Mapping[str, Array], name: str = "model") -> Any:
    """Return an onnx.ModelProto of an extracted function; values: the content of its states by name.

    Raises NotExportable, MissingPackage.
    """
    onnx = _package()
    both = sorted({*function.feed_names} & {*function.fetch_names})
    if both:
        raise NotExportable(report(f"an input and a result are both called {both[0]!r}; ONNX's values have each a name",
                                   hint="name one of them otherwise in tf.signature"))
    function = _simplified(function)
    said = _Translation(function, values, lambda operator: onnx.defs.get_schema(operator, OPSET, ""))
    said.run()
    if said.problems:
        raise NotExportable(_told(said.problems, function.lines))
    model = _Proto(onnx, said).model(name)
    onnx.checker.check_model(model, full_check=True)
    return model


def _package() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.defs
        import onnx.helper
    except ImportError as error:
        raise MissingPackage(f"ONNX files need the package onnx ({error}): pip install 'graphc[onnx]'") from None
    return onnx


def _simplified(function: Function) -> Function:
    """The function after passes that keep every bit, without what only a training run needs."""
    pipeline = Pipeline(Options(numerics="strict"))
    exact = Repeat((CANONICAL, ALGEBRA, FOLD, CSE, PRUNE))
    return pipeline.run(_without_chance(pipeline.run(function, (PRUNE, exact))), (exact,))


def _without_chance(function: Function) -> Function:
    """The function without random numbers that decide nothing: dropout that keeps everything (u < 1 for u in [0, 1)).

    Counters of random ops stay as they are: another runtime has none.
    """
    def rule(node: Node, inputs: tuple[Value, ...], builder: Builder) -> tuple[Value, ...] | None:
        if node.op.name != "Less" or inputs[0].producer is None or inputs[0].producer.op.name != "RandomUniform":
            return None
        limit = number(inputs[1])
        if limit is None or limit < 1:
            return None
        always = {"value": np.array(True), "dtype": bool_}
        scalar = builder.add(lookup("Const"), (), always, node.origin).output
        return builder.add(lookup("BroadcastTo"), (scalar,), {"shape": node.output.tensor.shape}, node.origin).outputs

    chance = {v for node in function.nodes if node.op.kind is Kind.RANDOM for v in node.outputs[-1:]}
    updates = tuple(s if u in chance else u for s, u in zip(function.states, function.updates, strict=True))
    return rewrite(function.replace(updates=updates), Builder(infer.types), rule)


def _told(problems: Sequence[_Problem], lines: Mapping[str, str]) -> str:
    """The report of everything in the way."""
    many = len(problems) > 1
    rows = []
    for p in problems:
        line = lines.get(p.op, "").splitlines()
        rows.append((p.op, f"{p.kind}: {p.reason}" + (f"\n      at {line[0]}" if line else "")))
    fix = "export the results of inference: name them with --fetch, or in tf.signature(outputs={...})"
    return report(f"{len(problems)} operation{'s' if many else ''} cannot be exported to ONNX", operands=rows, hint=fix)


class _Translation:
    """A function said in ONNX's operators, node by node."""

    def __init__(self, function: Function, values: Mapping[str, Array], schema: Any) -> None:
        self.function = function
        self.builder = OnnxBuilder(schema)
        self.refs: dict[Value, Ref] = {}
        self.problems: list[_Problem] = []
        self._values = values

    def run(self) -> None:
        """Say every node; what cannot be said is in `problems` afterwards."""
        f = self.function
        for name, value in zip(f.feed_names, f.feeds, strict=True):
            self.refs[value] = self.builder.value(value.tensor.dtype, name)
        for s in f.sources:
            self.builder.bind(s.symbol, self.refs[f.feeds[s.feed]], s.axis, s.element)
        used = {v for node in f.nodes if node.op.kind is not Kind.RANDOM for v in node.inputs} | set(f.fetches)
        for name, state, update in zip(f.state_names, f.states, f.updates, strict=True):
            self._state(name, state, state in used, update is not state)
        for node in f.nodes:
            self.builder.begin(node.origin[0] if node.origin else node.op.name, self._line(node))
            try:
                self._node(node)
            except Refused as refused:
                self._refuse(node, str(refused))

    def _state(self, name: str, state: Value, used: bool, written: bool) -> None:
        """A variable's content as a constant; a random counter has none, its op is refused."""
        content = self._values.get(name)
        if content is not None:
            self.refs[state] = self.builder.constant(content, state.tensor.dtype, name)
        elif used:
            self.problems.append(_Problem(name, "VariableV2", "no value of it is given"))
        if written and (used or content is not None):
            self.problems.append(_Problem(name, "VariableV2", "it is written; ONNX files are for inference"))

    def _refuse(self, node: Node, reason: str) -> None:
        self.problems.append(_Problem(node.origin[0] if node.origin else node.op.name, node.op.name, reason))

    def _line(self, node: Node) -> str:
        return self.function.lines.get(node.origin[0], "") if node.origin else ""

    def _node(self, node: Node) -> None:
        reason = REASONS.get(node.op.name)
        if reason is not None:
            raise Refused(reason)
        if any(v not in self.refs for v in node.inputs):
            return  # it waits for what was refused
        row = ROWS.get(node.op.name)
        results = None if row is None else row(self._applied(node))
        if results is None:
            self._expand(node)
            return
        found = (results,) if isinstance(results, Ref) else tuple(results)
        for value, ref in zip(node.outputs, found, strict=True):
            if ref.dtype is not value.tensor.dtype:
                raise InternalError(f"{node.op.name} is {value.tensor.dtype.name}, in ONNX {ref.dtype.name}")
            self.refs[value] = ref

    def _applied(self, node: Node) -> Applied:
        out = tuple(v.tensor for v in node.outputs)
        inputs = node.inputs
        if node.op.kind is Kind.ELEMENTWISE:
            inputs = _unspread(inputs, out[0].shape)
        return Applied(self.builder, tuple(self.refs[v] for v in inputs), node.attrs, tuple(v.tensor for v in inputs),
                       out)

    def _expand(self, node: Node) -> None:
        """The ops that the node's op decomposes into, each by its own row."""
        builder = Builder(infer.types)
        types = [v.tensor for v in node.outputs]
        values = expand(node.op, builder, node.inputs, node.attrs, types, node.origin)
        if values is None:
            raise Refused("ONNX has no operator for it")
        for part in builder.nodes:
            self._node(part)
        for value, stands in zip(node.outputs, values, strict=True):
            self.refs[value] = self.refs[stands]


def _unspread(inputs: Sequence[Value], out: Shape) -> tuple[Value, ...]:
    """The inputs of an elementwise op, without broadcasts that ONNX does by itself."""
    full = [v.tensor.shape == out and not _is_broadcast(v) for v in inputs]
    if not any(full):
        return tuple(inputs)
    return tuple(v.producer.inputs[0] if v.producer is not None and _is_broadcast(v) else v for v in inputs)


def _is_broadcast(value: Value) -> bool:
    return value.producer is not None and value.producer.op.name == "BroadcastTo"


class _Proto:
    """A translation as ONNX's messages."""

    def __init__(self, onnx: Any, said: _Translation) -> None:
        self._onnx = onnx
        self._said = said
        self._renamed = _axis_names(said.function)

    def model(self, name: str) -> Any:
        """Return the ModelProto."""
        f, builder, helper = self._said.function, self._said.builder, self._onnx.helper
        results = self._results()
        nodes = builder.live(results)
        node_names, names = builder.name_all(nodes, f.fetch_names)
        used = {ref.number for node in nodes for ref in node.inputs if ref is not None}
        arrays = {number: array for number, array in builder.arrays.items() if number in used}
        total = sum(a.nbytes for a in arrays.values())
        if total > MOST_BYTES:
            raise NotExportable(f"the variables take {total / (1 << 30):.1f} GiB, an ONNX file holds at most 2 GiB")
        dtypes = {ref.number: ref.dtype for node in nodes for ref in node.inputs if ref is not None}
        graph = helper.make_graph(
            [self._node(node, node_name, names) for node, node_name in zip(nodes, node_names, strict=True)], name,
            [self._info(n, v.tensor) for n, v in zip(f.feed_names, f.feeds, strict=True)],
            [self._info(n, v.tensor) for n, v in zip(f.fetch_names, f.fetches, strict=True)],
            [self._tensor(names[number], array, dtypes[number]) for number, array in arrays.items()])
        return helper.make_model(graph, producer_name="graphc", ir_version=IR_VERSION,
                                 opset_imports=[helper.make_opsetid("", OPSET)])

    def _results(self) -> list[Ref]:
        """The results, each a value of its own that no other name stands for."""
        builder, f = self._said.builder, self._said.function
        taken: set[int] = set()
        found = []
        for name, value in zip(f.fetch_names, f.fetches, strict=True):
            ref = self._said.refs[value]
            if ref.number in builder.names or ref.number in builder.arrays or ref.number in taken:
                builder.begin(name, "")
                ref = builder.emit("Identity", ref)
            taken.add(ref.number)
            builder.names[ref.number] = name
            found.append(ref)
        return found

    def _node(self, node: Any, name: str, names: Mapping[int, str]) -> Any:
        inputs = ["" if ref is None else names[ref.number] for ref in node.inputs]
        while inputs and not inputs[-1]:
            inputs.pop()
        return self._onnx.helper.make_node(node.operator, inputs, [names[ref.number] for ref in node.outputs], name,
                                           node.line or None, **node.attrs)

    def _info(self, name: str, type: TensorType) -> Any:
        shape = [n if isinstance(n, int) else str(substitute(n, self._renamed)) for n in type.shape]
        return self._onnx.helper.make_tensor_value_info(name, ELEMENT[type.dtype][0], shape)

    def _tensor(self, name: str, array: Array, dtype: Any) -> Any:
        stored = float32_to_bfloat16(array) if dtype is bfloat16 else array
        proto = self._onnx.TensorProto(name=name, data_type=ELEMENT[dtype][0], dims=stored.shape)
        proto.raw_data = np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder("<"), copy=False).tobytes()
        return proto


def _axis_names(function: Function) -> dict[str, Size]:
    """The symbol of the first free first axis as `batch`."""
    symbols = {s.symbol for s in function.sources}
    for s in function.sources:
        if s.axis == 0 and "batch" not in symbols:
            return {s.symbol: symbol("batch")}
    return {}
