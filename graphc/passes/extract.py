"""Extraction: the part of a graph that a run needs, as a Function of the IR.

Owns the one seam between the user's graph and the compiler: prunes to the fetches, cuts at the feeds, makes effects
values, moves static inputs into attrs, binds and unifies sizes, infers full types.  Knows graphs, ops and the IR; must
not know backends.  Laws: the Function computes what the graph means (ARCHITECTURE: The IR); a read sees exactly the
writes before it (effects.py); two unknown sizes that meet are assumed equal, and each such assumption is a condition
of the Function.  Invariant: pure, deterministic, iterative, near-linear in the operations that run.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import errors
from graphc.dtypes import DType, int32, int64, uint64
from graphc.errors import GraphError, InternalError, report
from graphc.graph.operation import Operation, report_at
from graphc.graph.tensor import Tensor
from graphc.ir import infer
from graphc.ir.dim import Dim, Size, symbols_of
from graphc.ir.function import Builder, Function, Node, SymbolSource, Value
from graphc.ir.infer import Typing, Unifier, never_negative
from graphc.ir.text import RESERVED
from graphc.ir.types import HostType, PartialType, Shape, TensorType, Type
from graphc.ops.base import Call, Kind, Op, lookup
from graphc.passes.decompose import expand
from graphc.passes.effects import Effects, is_state_op, variable_of

VALUE_LIMIT = 256
"""Integer tensors of up to this many elements carry their symbolic content."""

GRADIENT = "\n     in the gradient of "
"""What stands between the user's line of a gradient and the name and line of the op that it is the gradient of."""

_DIVISIONS = frozenset(("FloorDiv", "FloorMod", "TruncateDiv", "TruncateMod"))
_FED_VECTOR = 8  # a fed integer vector of up to this many elements may hold sizes


def extract(fetches: Sequence[Tensor], feeds: Sequence[Tensor] = (), targets: Sequence[Operation] = (), *,
            feed_ranks: Mapping[Tensor, int] | None = None, assumptions: Mapping[int, str] | None = None,
            name: str = "main") -> Function:
    """Return the Function that computes `fetches` from `feeds` and runs `targets`.

    feed_ranks: the rank of every feed whose static shape is unknown.  assumptions: number of a condition of the
    Function extracted without it -> "left" or "right": that side is 1 in this variant (condition numbers below the
    smallest changed one are the same in both).  States are the variables and random counters that take part, in order
    of creation, named by their operations.
    Raises InvalidArgumentError (a placeholder is not fed), ShapeError, DTypeError, GraphError at the user's line.
    """
    feeds = tuple(dict.fromkeys(feeds))
    operations = needed(fetches, feeds, targets)
    check_fed(operations, feeds)
    unifier = Unifier(assumptions)
    while True:
        solved = len(unifier.solution)
        one = _Extraction(operations, feeds, feed_ranks or {}, unifier)
        function = one.function(name, fetches)
        if len(unifier.solution) == solved:
            return function


def states_read(function: Function) -> tuple[bool, ...]:
    """For each state, whether its content when the run starts is used (then it must be initialised before)."""
    used = {v for node in function.nodes for v in node.inputs} | set(function.fetches)
    return tuple(v in used or any(u is v and s is not v for s, u in zip(function.states, function.updates, strict=True))
                 for v in function.states)


def needed(fetches: Sequence[Tensor], feeds: Sequence[Tensor], targets: Sequence[Operation]) -> list[Operation]:
    """Return the operations that run, in order of creation."""
    fed = frozenset(feeds)
    stack = [t.op for t in fetches if t not in fed] + list(targets)
    found = set(stack)
    while stack:
        op = stack.pop()
        for parent in _parents(op, fed):
            if parent not in found:
                found.add(parent)
                stack.append(parent)
    return sorted(found, key=lambda op: op.index)


def _parents(op: Operation, fed: frozenset[Tensor]) -> Iterator[Operation]:
    """The operations that `op` waits for; a fed tensor needs no operation."""
    for t in op.inputs:
        if t not in fed:
            yield t.op
    yield from op.control_inputs


def check_fed(operations: Sequence[Operation], feeds: Sequence[Tensor]) -> None:
    """Raise InvalidArgumentError where a placeholder runs and is not fed; it names all of them."""
    fed = frozenset(feeds)
    missing = [op for op in operations if op.type == "Placeholder" and op.outputs[0] not in fed]
    if missing:
        what = ", ".join(f"{op.name!r} ({op.outputs[0].dtype.name} {op.outputs[0].shape})" for op in missing)
        many = len(missing) > 1
        text = report(f"the placeholder{'s' if many else ''} {what} must be fed", str(missing[0].source),
                      hint=f"pass feed_dict={{{missing[0].name}: ...}} to Session.run")
        raise errors.InvalidArgumentError(None, missing[0], text)


class _Extraction:
    """One round over the operations: builds nodes with sizes as far as they are solved."""

    def __init__(self, operations: Sequence[Operation], feeds: Sequence[Tensor], ranks: Mapping[Tensor, int],
                 unifier: Unifier) -> None:
        self._operations = operations
        self._feeds = feeds
        self._fed = frozenset(feeds)
        self._unifier = unifier
        self._builder = Builder(infer.types)
        self._values: dict[Tensor, Value] = {}
        self._known: dict[Value, np.ndarray[Any, Any]] = {}
        self._versions: dict[Operation, list[Value]] = {}
        self._effects = Effects(lambda op: _parents(op, self._fed))
        self._token: tuple[Value, ...] = ()
        self._symbols: set[str] = set()
        self._axis_sources: list[SymbolSource] = []
        self._element_sources: list[SymbolSource] = []
        self._element_symbols: set[str] = set()
        for number, tensor in enumerate(feeds):
            self._feed(number, tensor, ranks)
        for number, tensor in enumerate(feeds):
            self._fed_sizes(number, tensor)

    # -- inputs of the function

    def _feed(self, number: int, tensor: Tensor, ranks: Mapping[Tensor, int]) -> None:
        known = tensor.type.shape
        if known is None:
            if tensor not in ranks:
                raise InternalError(f"the rank of the fed tensor {tensor.name} is not given")
            known = tuple(Dim(()) for _ in range(ranks[tensor]))
        shape: list[Size] = []
        for axis, size in enumerate(known):
            if isinstance(size, Dim):
                symbol = self._symbol(f"{tensor.op.name}_{axis}")
                self._axis_sources.append(SymbolSource(symbol, number, axis))
                size = self._unifier.resolve(self._unifier.introduce(symbol))
            shape.append(size)
        self._values[tensor] = Value(TensorType(tensor.dtype, tuple(shape)))

    def _fed_sizes(self, number: int, tensor: Tensor) -> None:
        """Let the content of a small fed integer tensor be sizes: one symbol per element."""
        value = self._values[tensor]
        t = value.tensor
        if not t.dtype.is_integer or t.rank > 1 or not isinstance(t.elements, int) or t.elements > _FED_VECTOR:
            return
        symbols = [self._symbol(f"{tensor.op.name}_value{i if t.rank else ''}") for i in range(t.elements)]
        self._element_sources += [SymbolSource(s, number, -1, i) for i, s in enumerate(symbols)]
        self._element_symbols.update(symbols)
        content = np.empty(t.elements, object)
        content[:] = [self._unifier.resolve(self._unifier.introduce(s)) for s in symbols]
        self._known[value] = content.reshape(()) if t.rank == 0 else content

    def _symbol(self, stem: str) -> str:
        """A symbol's name for a graph name, used once."""
        stem = re.sub(r"\W", "_", stem, flags=re.ASCII)
        if not stem[:1].isalpha():
            stem = f"s_{stem}"
        name, n = stem, 1
        while name in self._symbols or name in RESERVED:
            n += 1
            name = f"{stem}_{n}"
        self._symbols.add(name)
        return name

    def _state(self, op: Operation, type: TensorType) -> list[Value]:
        """The versions of the state that `op` holds, the first of them its content when the run starts."""
        versions = self._versions.get(op)
        if versions is None:
            versions = self._versions[op] = [Value(type)]
        return versions

    def _variable(self, op: Operation) -> list[Value]:
        shape = op.outputs[0].type.shape
        if shape is None or not all(isinstance(n, int) for n in shape):
            raise GraphError(report_at(op, f"the variable {op.name!r} has no static shape",
                                       "give its initial value a known shape"))
        return self._state(op, TensorType(op.outputs[0].dtype, shape))

    # -- operations

    def function(self, name: str, fetches: Sequence[Tensor]) -> Function:
        """Walk the operations and return the Function."""
        for op in self._operations:
            self._operation(op)
        results = tuple(self._fetch(t) for t in fetches)
        holders = sorted(self._versions, key=lambda op: op.index)
        nodes = tuple(self._builder.nodes)
        return Function(
            name, tuple(self._values[t] for t in self._feeds), nodes, results,
            tuple(self._versions[op][0] for op in holders), tuple(self._versions[op][-1] for op in holders),
            tuple(map(element_name, self._feeds)), tuple(op.name for op in holders), tuple(map(element_name, fetches)),
            tuple(self._unifier.conditions), self._sources(nodes), {op.name: _line(op) for op in self._operations})

    def _fetch(self, tensor: Tensor) -> Value:
        if tensor not in self._values and tensor.op.type == "VariableV2":
            return self._variable(tensor.op)[0]
        return self._values[tensor]

    def _operation(self, op: Operation) -> None:
        definition: Op = op.op
        seen = self._effects.before(op)
        if op.type == "IsVariableInitialized" and op.outputs[0] not in self._fed:
            raise GraphError(report_at(op, "whether a variable has content is not known to a program",
                                       "the session feeds the answer"))
        if is_state_op(op) and op.type != "IsVariableInitialized":
            self._state_op(op, seen)
            return
        self._effects.passed(op, seen)
        host = definition.kind is Kind.HOST
        if op.type == "VariableV2" or (not host and all(t in self._fed for t in op.outputs)):
            return
        inputs = [self._input(t, seen) for t in op.inputs]
        if op.type == "PlaceholderWithDefault":
            self._define(op, inputs)
            return
        if definition.kind is Kind.STRUCTURED:
            raise GraphError(report_at(op, f"a graph cannot hold a {op.type}: its bodies are functions of the IR"))
        attrs, data = self._static(op, inputs)
        if host:
            self._host_op(op, data, attrs)
            return
        if definition.kind is Kind.RANDOM:
            counter = self._state(op, TensorType(uint64, (3,)))
            node = self._add(op, [*data, counter[0]], attrs, inputs)
            counter.append(node.outputs[-1])
            self._define(op, node.outputs[:len(op.outputs)])
            return
        self._define(op, self._tensor_op(op, data, attrs, inputs))

    def _host_op(self, op: Operation, data: Sequence[Value], attrs: dict[str, Any]) -> None:
        """A call of Python: host calls run in order of creation, which a token carries from one to the next."""
        types: list[Type] = []
        for t in op.outputs:
            shape = data[0].tensor.shape if op.type == "Print" else t.type.shape
            if shape is None or (op.type != "Print" and not all(isinstance(n, int) for n in shape)):
                raise GraphError(report_at(op, f"the shape of {t.name!r} is not known before Python returns it",
                                           "call set_shape with its sizes"))
            types.append(TensorType(t.dtype, shape))
        attrs["out_types"] = (*types, HostType("token"))
        node = self._append(op, [*data, *self._token], attrs, attrs["out_types"])
        self._token = node.outputs[-1:]
        self._define(op, node.outputs[:-1])

    def _input(self, tensor: Tensor, seen: Mapping[Operation, int]) -> Value:
        """The value of an input; a variable's handle is a read of what its user sees."""
        value = self._values.get(tensor)
        if value is not None:
            return value
        variable = variable_of(tensor)
        if variable is None:
            raise InternalError(f"{tensor.name} is used before it is made")
        return self._variable(variable)[seen.get(variable, 0)]

    def _define(self, op: Operation, values: Sequence[Value]) -> None:
        for tensor, value in zip(op.outputs, values, strict=True):
            if tensor not in self._fed:
                self._values[tensor] = value

    def _tensor_op(self, op: Operation, data: Sequence[Value], attrs: dict[str, Any],
                   inputs: Sequence[Value]) -> Sequence[Value]:
        """The node of an op without effects, or a constant where the sizes alone say its value."""
        definition: Op = op.op
        types = self._types(op, data, attrs, inputs)
        known = self._symbolic(definition, data, attrs, types)
        if known is None:
            return self._append(op, data, attrs, types).outputs
        node = self._said(op, known, types[0].dtype) or self._append(op, data, attrs, types)
        self._known[node.output] = known
        return node.outputs

    def _said(self, op: Operation, known: np.ndarray[Any, Any], dtype: DType) -> Node | None:
        """Content that the shapes alone say, as a node without inputs: a constant, or sizes; None for other content."""
        flat = list(known.flat)
        if all(isinstance(n, (int, np.generic)) for n in flat):
            content = {"value": known.astype(dtype.as_numpy_dtype), "dtype": dtype}
            return self._builder.add(lookup("Const"), (), content, (op.name,))
        if known.ndim > 1 or dtype not in (int32, int64) or not all(map(never_negative, flat)) or \
                not symbols_of(flat).isdisjoint(self._element_symbols):
            return None
        return self._builder.add(lookup("Sizes"), (), {"sizes": _plain(known), "dtype": dtype}, (op.name,))

    def _state_op(self, op: Operation, seen: Mapping[Operation, int]) -> None:
        """A read or write of a variable: what its op decomposes into, on the content that it sees."""
        variable = variable_of(op.inputs[0])
        fed = self._values.get(op.inputs[0]) if op.inputs[0] in self._fed else None
        if variable is None and fed is None:
            raise GraphError(report_at(op, f"{op.type} needs a variable"))
        inputs = [self._input(t, seen) for t in op.inputs[1:]]
        if fed is not None:
            content = fed
        else:
            assert variable is not None
            versions = self._variable(variable)
            content = versions[seen.get(variable, 0)]
        present = content if fed is not None else versions[-1]
        before = len(self._builder.nodes)
        output, new = self._decomposed(op, [present, *inputs])
        if new is present:  # a read: on the content it sees, not the latest
            if content is not present:
                del self._builder.nodes[before:]
                output, _ = self._decomposed(op, [content, *inputs])
            self._effects.passed(op, seen)
        elif fed is not None or variable is None:
            raise GraphError(report_at(op, f"{op.type} writes a variable that is fed in this run",
                                       "feed it, or let the run write it, not both"))
        else:
            self._check_content(op, versions[0], new)
            self._effects.wrote(op, seen, variable)
            versions.append(new)
        if op.outputs:
            self._define(op, [output] if output is not None else [])

    def _check_content(self, op: Operation, old: Value, new: Value) -> None:
        """Refuse a content of another shape than the variable's; sizes that are not known yet must come to agree."""
        have, want = new.tensor.shape, old.tensor.shape
        message = f"the variable has the shape ({', '.join(map(str, want))}), the value ({', '.join(map(str, have))})"
        met = [self._unifier.meet("equal", a, b, message, op.name) for a, b in zip(have, want, strict=False)]
        if len(have) != len(want) or None in met:
            raise errors.ShapeError(report_at(op, f"{op.type}: {message}", "a variable keeps its shape"))

    def _decomposed(self, op: Operation, inputs: Sequence[Value]) -> tuple[Value, Value]:
        attrs, data = self._static(op, inputs)
        types = self._types(op, data, attrs, inputs)
        values = expand(op.op, self._builder, data, attrs, types, (op.name,))
        if values is None or len(values) != 2:
            raise InternalError(f"{op.type} does not say what it reads and writes")
        return values[0], values[1]

    # -- attrs and types

    def _static(self, op: Operation, inputs: Sequence[Value]) -> tuple[dict[str, Any], list[Value]]:
        """The attrs with static inputs moved into them, and the inputs that remain."""
        definition: Op = op.op
        attrs = dict(op.attrs)
        positions = definition.data_positions(attrs, len(inputs))
        if len(positions) == len(inputs):
            return attrs, list(inputs)
        for i, attr in definition.static.items():
            if i >= len(inputs):
                continue
            known = self._known.get(inputs[i])
            if known is None:
                source = op.inputs[i]
                what = definition.inputs[i] if i < len(definition.inputs) else f"input {i}"
                raise GraphError(report_at(
                    op, f"{op.type}: the value of {what!r} must be known when the program is compiled, but "
                        f"{element_name(source)!r} depends on values of the run",
                    "it may follow from constants, shapes, and integers that are fed"))
            attrs[attr] = _plain(known)
        return attrs, [inputs[i] for i in positions]

    def _types(self, op: Operation, data: Sequence[Value], attrs: dict[str, Any],
               inputs: Sequence[Value]) -> tuple[TensorType, ...]:
        """The types of the outputs, with what the user's graph knows of them added; attrs become canonical."""
        definition: Op = op.op
        in_types = [v.tensor for v in data]

        def reporter(what: str, hint: str | None) -> str:
            text, forward = report_at(op, what, hint), op.gradient_of
            if forward is None:
                return text
            return f"{text}\n  in the gradient of {forward.name!r}, made at {forward.source}"

        partial = [PartialType(t.dtype, t.shape) for t in in_types]
        ctx = Typing(definition, partial, attrs, self._unifier, lambda i: self._known.get(data[i]), reporter, op.name)
        try:
            types = infer.full_types(definition, definition.infer(ctx))
            if definition.canonical is not None:
                attrs.update(definition.canonical(attrs, in_types))
        except TypeError as error:
            fed = [attr for attr in definition.static.values() if any(True for _ in _sizes_in([attrs.get(attr)]))]
            if isinstance(error, errors.GraphcError) or not fed:
                raise
            raise GraphError(report_at(op, f"{op.type}: {fed[0]!r} must be a constant; here it depends on sizes or "
                                           "values that are fed")) from error
        return tuple(self._refined(op, i, t) for i, t in enumerate(types))

    def _refined(self, op: Operation, i: int, type: TensorType) -> TensorType:
        """`type` with solved sizes, and equal to the static shape that the user sees."""
        shape = tuple(map(self._unifier.resolve, type.shape))
        static: Shape | None = op.outputs[i].type.shape if i < len(op.outputs) else None
        if static is not None and static != shape and len(static) == len(shape):
            for axis, (wanted, found) in enumerate(zip(static, shape, strict=True)):
                if isinstance(wanted, int) and wanted != found:
                    message = f"axis {axis} of {op.outputs[i].name} was set to {{right}}, but is {{left}}"
                    if self._unifier.meet("equal", found, wanted, message, op.name) is None:
                        raise errors.ShapeError(report_at(op, message.format(left=found, right=wanted)))
            shape = tuple(map(self._unifier.resolve, shape))
        return type if shape == type.shape else TensorType(type.dtype, shape)

    def _add(self, op: Operation, data: Sequence[Value], attrs: dict[str, Any], inputs: Sequence[Value]) -> Node:
        return self._append(op, data, attrs, self._types(op, data, attrs, inputs))

    def _append(self, op: Operation, data: Sequence[Value], attrs: Mapping[str, Any],
                types: Sequence[Type]) -> Node:
        node = Node(op.op, data, attrs, types, (op.name,))
        self._builder.nodes.append(node)
        return node

    def _symbolic(self, op: Op, data: Sequence[Value], attrs: Mapping[str, Any],
                  types: Sequence[TensorType]) -> np.ndarray[Any, Any] | None:
        """The content of a small integer or bool result that follows from sizes and constants, as ints and Dims."""
        if len(types) != 1 or types[0].dtype.is_floating:
            return None
        if op.name == "Const":
            value = np.asarray(attrs["value"])
            return value.astype(object) if value.size <= VALUE_LIMIT else None
        if not (op.symbolic or op.of_shape):
            return None
        elements = types[0].elements
        if isinstance(elements, Dim) or elements > VALUE_LIMIT:
            return None
        in_types = [v.tensor for v in data]
        if op.of_shape:
            return np.asarray(op.reference(Call([], attrs, in_types, types)), dtype=object)
        arrays = [self._known[v] for v in data if v in self._known]
        if len(arrays) != len(data):
            return None
        known = np.asarray(op.reference(Call(arrays, attrs, in_types, types)), dtype=object)
        if op.name in _DIVISIONS and symbols_of(arrays[1].flat) and not symbols_of(known.flat):
            return None  # n // n is 1 but where n is 0, which the run is to refuse
        return known

    def _sources(self, nodes: Sequence[Node]) -> tuple[SymbolSource, ...]:
        """Where the symbols come from: every axis, and the fed elements that are used as sizes."""
        if not self._element_sources:
            return tuple(self._axis_sources)
        sizes: list[Size] = [n for c in self._unifier.conditions for n in (c.left, c.right)]
        for node in nodes:
            for v in node.outputs:
                if isinstance(v.type, TensorType):
                    sizes += v.type.shape
            sizes += _sizes_in(list(node.attrs.values()))
        used = symbols_of(sizes)
        return tuple(self._axis_sources) + tuple(s for s in self._element_sources if s.symbol in used)


def _sizes_in(stack: list[Any]) -> Iterator[Size]:
    """The symbolic sizes in attrs."""
    while stack:
        value = stack.pop()
        if isinstance(value, Dim):
            yield value
        elif isinstance(value, tuple):
            stack.extend(value)


def _plain(content: np.ndarray[Any, Any]) -> Any:
    """Symbolic content as an attr: nested tuples, or a scalar."""
    if content.ndim:
        return tuple(_plain(row) if isinstance(row, np.ndarray) else _number(row) for row in content)
    return _number(content.item())


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def element_name(tensor: Tensor) -> str:
    """The name of a fed or fetched tensor: its operation's where that has no other output before it."""
    return tensor.op.name if tensor.value_index == 0 else tensor.name


def _line(op: Operation) -> str:
    """The user's line of an operation, as text."""
    forward = op.gradient_of
    return str(op.source) if forward is None else f"{op.source}{GRADIENT}{forward.name!r}, {forward.source.short}"

