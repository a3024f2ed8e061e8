"""An ONNX graph as it grows: its values, nodes, constants, and sizes computed from the shapes of its inputs.

Owns the rules of ONNX that hold for every op: which element types an operator takes (others are computed in wider ones
and rounded back), how a symbolic size becomes nodes, and names.  Knows ONNX's operators by their schemas, given by the
caller; must not know graphc's ops, nor import onnx.
Invariants: nodes stand in an order in which every value is made before it is used; a transpose is emitted once, cancels
with its inverse, and stands behind elementwise operators, not before them; equal small constants are one.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType, float32, float64, int32, int64, uint8
from graphc.errors import GraphcError
from graphc.ir import dim
from graphc.ir.dim import Atom, Size
from graphc.ir.infer import never_negative
from graphc.ir.types import Shape, TensorType

Array = np.ndarray[Any, Any]

OPSET = 21

ELEMENT: Mapping[DType, tuple[int, str]] = {
    dtypes.float32: (1, "tensor(float)"), dtypes.uint8: (2, "tensor(uint8)"), dtypes.int8: (3, "tensor(int8)"),
    dtypes.uint16: (4, "tensor(uint16)"), dtypes.int16: (5, "tensor(int16)"), dtypes.int32: (6, "tensor(int32)"),
    dtypes.int64: (7, "tensor(int64)"), dtypes.bool_: (9, "tensor(bool)"), dtypes.float16: (10, "tensor(float16)"),
    dtypes.float64: (11, "tensor(double)"), dtypes.uint32: (12, "tensor(uint32)"),
    dtypes.uint64: (13, "tensor(uint64)"), dtypes.bfloat16: (16, "tensor(bfloat16)")}
"""Element type -> its number and its name in ONNX."""
_NAMED = {name: dtype for dtype, (_, name) in ELEMENT.items()}

WIDER: Mapping[DType, tuple[DType, ...]] = {
    dtypes.bool_: (uint8, int32), dtypes.int8: (int32,), dtypes.int16: (int32,), dtypes.uint8: (int32,),
    dtypes.uint16: (int32, dtypes.uint32), dtypes.uint32: (int64,), dtypes.int32: (int64,), dtypes.float16: (float32,),
    dtypes.bfloat16: (float32,)}
"""Element types that hold all values of another, so that computing in them and casting back changes nothing."""
MODULAR = frozenset(("Where", "ReduceSum", "ReduceProd", "CumSum", "Einsum", "ScatterND"))
"""Operators that give the same bits on int64 as on uint64."""
EXACT_IN_FLOAT = frozenset(("MaxPool",))
"""Operators that only choose among their elements: integers of 32 bits go through float64."""

_NARROW = frozenset(("int16", "uint16"))
_WIDE = frozenset(("uint32", "uint64"))
LACKS: Mapping[str, frozenset[str]] = {
    "Max": _NARROW, "Min": _NARROW, "Clip": _NARROW, "Pad": _NARROW, "Where": _NARROW | {"bool", "uint64"},
    "ReduceSum": _WIDE, "ReduceProd": _WIDE, "ReduceMax": _WIDE, "ReduceMin": _WIDE, "CumSum": _WIDE,
    "ArgMax": _NARROW | _WIDE, "ArgMin": _NARROW | _WIDE, "Einsum": _NARROW | _WIDE | {"int8", "uint8"},
    "ScatterND": frozenset(("float16",)), "BitShift": _NARROW, "Resize": _NARROW | _WIDE | {"bool"},
}
"""Element types that an operator may take but onnxruntime's CPU has no kernel for: computed in wider ones too."""
MOVES = frozenset(("Cast", "Reshape", "Transpose", "Concat", "Slice", "Split", "Gather", "GatherND", "Identity",
                   "Shape", "Squeeze", "Unsqueeze"))
"""Operators that onnxruntime's CPU runs on bfloat16."""
POINTWISE = frozenset((
    "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Max", "Min", "Neg", "Abs", "Sign", "Sqrt", "Reciprocal", "Exp", "Log",
    "Sigmoid", "Tanh", "Erf", "Floor", "Ceil", "Round", "Relu", "Elu", "Selu", "Softplus", "Softsign", "LeakyRelu",
    "Clip", "Cast", "Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not"))
"""Operators that a transpose may be moved behind."""

SMALL = 64  # constants of at most so many elements are shared


class Refused(GraphcError):
    """An application of an op that ONNX cannot say; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of the graph: its number and element type.  Names are a matter of the end."""

    number: int
    dtype: DType


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One application of an operator.  inputs: None for one left out.  part: which application of an op of graphc it is
    of.  op, line: the name of that op in the user's graph, and the user's line."""

    operator: str
    inputs: tuple[Ref | None, ...]
    outputs: tuple[Ref, ...]
    attrs: Mapping[str, Any]
    part: int
    op: str
    line: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What a row of the table sees: an application of an op, and the graph to say it in.

    Calling it emits an operator and gives its (first) result.
    """

    to: OnnxBuilder
    inputs: tuple[Ref, ...]
    attrs: Mapping[str, Any]
    in_types: tuple[TensorType, ...]
    out_types: tuple[TensorType, ...]

    def __call__(self, operator: str, *inputs: Ref | None, dtype: DType | None = None, **attrs: Any) -> Ref:
        return self.to.emit(operator, *inputs, dtype=dtype, **attrs)

    @property
    def x(self) -> Ref:
        """The first input."""
        return self.inputs[0]

    @property
    def shape(self) -> Shape:
        """The shape of the first input."""
        return self.in_types[0].shape

    @property
    def out(self) -> TensorType:
        """The type of the first result."""
        return self.out_types[0]

    def number(self, value: Any, dtype: DType | None = None) -> Ref:
        """A constant of the first input's element type (or `dtype`)."""
        return self.to.constant(value, dtype or self.inputs[0].dtype)

    def ints(self, values: Iterable[int]) -> Ref:
        """A vector of int64."""
        return self.to.constant(np.array(tuple(values), np.int64), int64)


Row: TypeAlias = Callable[[Applied], "Ref | Sequence[Ref] | None"]
"""What an op is in ONNX: emits operators and gives the results; None where the op is to be decomposed."""


class OnnxBuilder:
    """The graph under construction.  schema(operator): its onnx.defs.OpSchema in opset `OPSET`."""

    def __init__(self, schema: Callable[[str], Any]) -> None:
        self.nodes: list[OnnxNode] = []
        self.arrays: dict[int, Array] = {}
        """Constants by the number of their value, as arrays of the outside form (float32 for bfloat16)."""
        self.names: dict[int, str] = {}
        """Names that users call inputs and results by."""
        self.variables: dict[int, str] = {}
        """Names of variables, by constants that hold their content (transposed, perhaps)."""
        self._schema = schema
        self._count = 0
        self._part, self._op, self._line = 0, "", ""
        self._shared: dict[tuple[DType, tuple[int, ...], bytes], Ref] = {}
        self._sizes: dict[Size, Ref] = {}
        self._factors: dict[Atom, Ref] = {}
        self._symbols: dict[str, tuple[Ref, int, int]] = {}
        self._turned: dict[tuple[int, tuple[int, ...]], Ref] = {}
        self._turned_from: dict[int, tuple[Ref, tuple[int, ...]]] = {}

    # -- values ---------------------------------------------------------------------------------

    def value(self, dtype: DType, name: str | None = None) -> Ref:
        """Return a new value: an input of the graph, where `name` is given."""
        ref = Ref(self._count, dtype)
        self._count += 1
        if name is not None:
            self.names[ref.number] = name
        return ref

    def constant(self, content: Any, dtype: DType, name: str | None = None) -> Ref:
        """Return a constant; name: of a variable that it is the content of."""
        array = np.asarray(content, dtype.as_numpy_dtype)
        key = (dtype, array.shape, array.tobytes()) if name is None and array.size <= SMALL else None
        if key is not None and key in self._shared:
            return self._shared[key]
        ref = self.value(dtype)
        self.arrays[ref.number] = array
        if name is not None:
            self.variables[ref.number] = name
        if key is not None:
            self._shared[key] = ref
        return ref

    def begin(self, op: str, line: str) -> None:
        """Say which op of the user's graph the next nodes are of."""
        self._part, self._op, self._line = self._part + 1, op, line

    # -- operators ------------------------------------------------------------------------------

    def emit(self, operator: str, *inputs: Ref | None, dtype: DType | None = None, **attrs: Any) -> Ref:
        """Apply an operator and return its first result.  dtype: of the result, where the inputs do not say it.

        Raises Refused where ONNX's operator takes no element type that would do.
        """
        if operator in POINTWISE:
            behind = self._before_transpose(operator, inputs, dtype, attrs)
            if behind is not None:
                return behind
        return self.emit_all(operator, *inputs, dtypes=(dtype,), **attrs)[0]

    def emit_all(self, operator: str, *inputs: Ref | None, dtypes: Sequence[DType | None],
                 **attrs: Any) -> tuple[Ref, ...]:
        """As emit, with as many results as `dtypes`."""
        schema = self._schema(operator)
        allowed = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
        wide: dict[str, DType] = {}
        narrow: dict[str, DType] = {}
        given: list[Ref | None] = []
        for i, ref in enumerate(inputs):
            if ref is None:
                given.append(None)
                continue
            variable = schema.inputs[min(i, len(schema.inputs) - 1)].type_str
            if variable in allowed and variable not in wide:
                narrow[variable] = ref.dtype
                wide[variable] = self._taken(operator, variable, ref.dtype, allowed[variable])
            given.append(self.cast(ref, wide[variable]) if variable in wide else ref)
        results = []
        for i, asked in enumerate(dtypes):
            variable = schema.outputs[min(i, len(schema.outputs) - 1)].type_str
            made = wide.get(variable) or _NAMED.get(variable) or asked
            assert made is not None, f"the element type of a result of {operator} is not said"
            results.append((self.value(made), narrow.get(variable, made)))
        outputs = tuple(made for made, _ in results)
        self.nodes.append(OnnxNode(operator, tuple(given), outputs, attrs, self._part, self._op, self._line))
        return tuple(self.cast(made, wanted) for made, wanted in results)

    def _taken(self, operator: str, variable: str, dtype: DType, allowed: frozenset[str]) -> DType:
        """The element type that `operator` computes in for inputs of `dtype`."""
        lacks = LACKS.get(operator, frozenset()) if variable != "B" else frozenset()
        chain = (dtype, *WIDER.get(dtype, ()))
        if dtype is dtypes.uint64 and operator in MODULAR:
            chain = (dtype, int64)
        if operator in EXACT_IN_FLOAT and dtype.is_integer and dtype.size <= 4:
            chain = (*chain, float64)
        for choice in chain:
            runs = operator in MOVES if choice is dtypes.bfloat16 else choice.name not in lacks
            if runs and ELEMENT[choice][1] in allowed:
                return choice
        if ELEMENT[dtype][1] in allowed:
            return dtype
        raise Refused(f"ONNX's {operator} does not take {dtype.name}")

    def cast(self, ref: Ref, dtype: DType) -> Ref:
        """Return `ref` in another element type; a constant is converted here, where that is exact."""
        if ref.dtype is dtype:
            return ref
        array = self.arrays.get(ref.number)
        if array is not None and dtype in WIDER.get(ref.dtype, ()):
            return self.constant(array, dtype, self.variables.get(ref.number))
        return self.emit("Cast", ref, dtype=dtype, to=ELEMENT[dtype][0])

    # -- transposes -----------------------------------------------------------------------------

    def transposed(self, x: Ref, perm: Sequence[int]) -> Ref:
        """Return x with its axes in another order."""
        order = tuple(perm)
        if x.number in self._turned_from:
            x, first = self._turned_from[x.number]
            order = tuple(first[i] for i in order)
        if order == tuple(range(len(order))):
            return x
        if (x.number, order) not in self._turned:
            array = self.arrays.get(x.number)
            if array is not None:
                self._turned[x.number, order] = self.constant(np.transpose(array, order), x.dtype,
                                                              self.variables.get(x.number))
            else:
                made = self.emit("Transpose", x, perm=order)
                self._turned[x.number, order] = made
                self._turned_from[made.number] = (x, order)
        return self._turned[x.number, order]

    def untransposed(self, inputs: Sequence[Ref]) -> tuple[tuple[Ref, ...], tuple[int, ...]] | None:
        """Return (values, perm) where the inputs are these values transposed by one perm; else None."""
        found = [self._turned_from.get(x.number) for x in inputs]
        perms = {pair[1] for pair in found if pair is not None}
        if len(perms) != 1 or None in found:
            return None
        return tuple(pair[0] for pair in found if pair is not None), perms.pop()

    def _before_transpose(self, operator: str, inputs: Sequence[Ref | None], dtype: DType | None,
                          attrs: Mapping[str, Any]) -> Ref | None:
        """The transpose of the operator's result, where the inputs are transposes by one perm, and constants."""
        perms = {self._turned_from[x.number][1] for x in inputs if x is not None and x.number in self._turned_from}
        if len(perms) != 1:
            return None
        (perm,) = perms
        moved: list[Ref | None] = []
        for x in inputs:
            if x is None:
                moved.append(None)
            elif x.number in self._turned_from:
                moved.append(self._turned_from[x.number][0])
            elif x.number in self.arrays and self.arrays[x.number].ndim <= len(perm):
                moved.append(self._spread(x, perm))
            else:
                return None
        return self.transposed(self.emit(operator, *moved, dtype=dtype, **attrs), perm)

    def _spread(self, constant: Ref, perm: tuple[int, ...]) -> Ref:
        """What `constant` is in front of a transpose by `perm`."""
        array = self.arrays[constant.number]
        if array.ndim == 0:
            return constant
        full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
        return self.constant(np.transpose(full, np.argsort(perm)), constant.dtype, self.variables.get(constant.number))

    # -- sizes ----------------------------------------------------------------------------------

    def bind(self, symbol: str, feed: Ref, axis: int, element: int) -> None:
        """Say that `symbol` is the size of an axis of an input, or (axis -1) an element of its content."""
        self._symbols[symbol] = (feed, axis, element)

    def size(self, n: Size) -> Ref:
        """Return a size as a vector of one int64."""
        if isinstance(n, int):
            return self.constant(np.array([n], np.int64), int64)
        if n not in self._sizes:
            total: Ref | None = None
            for factors, count in n.terms:
                term = self.size(count) if count != 1 or not factors else None
                for atom in factors:
                    if atom not in self._factors:
                        self._factors[atom] = self._factor(atom)
                    factor = self._factors[atom]
                    term = factor if term is None else self.emit("Mul", factor, term)
                assert term is not None
                total = term if total is None else self.emit("Add", total, term)
            assert total is not None
            self._sizes[n] = total
        return self._sizes[n]

    def _factor(self, atom: Atom) -> Ref:
        if atom.op == "sym":
            return self._symbol(str(atom.args[0]))
        a, b = (self.size(part) for part in atom.args)
        match atom.op:
            case "min" | "max":
                return self.emit(atom.op.capitalize(), a, b)
            case "%":
                return self.emit("Mod", a, b)
        if never_negative(atom.args[0]):
            return self.emit("Div", a, b)
        return self.emit("Div", self.emit("Sub", a, self.emit("Mod", a, b)), b)  # rounds down, where Div truncates

    def _symbol(self, name: str) -> Ref:
        if name not in self._symbols:
            raise Refused(f"the size {name} does not follow from the inputs")
        feed, axis, element = self._symbols[name]
        if axis >= 0:
            return self.emit("Shape", feed, dtype=int64, start=axis, end=axis + 1)
        flat = self.emit("Reshape", self.cast(feed, int64), self.constant(np.array([-1]), int64))
        return self.emit("Gather", flat, self.constant(np.array([element]), int64), axis=0)

    def sizes(self, shape: Sequence[Size]) -> Ref:
        """Return sizes as a vector of int64."""
        if all(isinstance(n, int) for n in shape):
            return self.constant(np.array(shape, np.int64), int64)
        pieces: list[Ref] = []
        known: list[int] = []
        for n in (*shape, None):
            if isinstance(n, int):
                known.append(n)
                continue
            if known:
                pieces.append(self.constant(np.array(known, np.int64), int64))
                known = []
            if n is not None:
                pieces.append(self.size(n))
        return pieces[0] if len(pieces) == 1 else self.emit("Concat", *pieces, axis=0)

    def scalar(self, n: Size) -> Ref:
        """Return a size as a scalar of int64."""
        if isinstance(n, int):
            return self.constant(np.int64(n), int64)
        return self.emit("Squeeze", self.size(n), self.constant(np.array([0]), int64))

    def reshaped(self, x: Ref, shape: Shape, target: Shape) -> Ref:
        """Return x, of `shape`, under the shape `target`; sizes that ONNX can find by itself are not computed."""
        if shape == target:
            return x
        array = self.arrays.get(x.number)
        if array is not None and all(isinstance(n, int) for n in target):
            return self.constant(array.reshape([int(n) for n in target]), x.dtype, self.variables.get(x.number))
        told: list[Size] = [0 if isinstance(n, dim.Dim) and shape[i:i + 1] == (n,) else n for i, n in enumerate(target)]
        free = [i for i, n in enumerate(told) if isinstance(n, dim.Dim)]
        if 0 in target or len(free) > 1 or (free and 0 in told):  # where 0 means 0, and -1 cannot be worked out
            return self.emit("Reshape", x, self.sizes(target), allowzero=1)
        if free:
            told[free[0]] = -1
        return self.emit("Reshape", x, self.sizes(told))

    def count(self, n: Size) -> Ref:
        """Return the vector 0, 1 ... n - 1 of int64."""
        if isinstance(n, int) and n <= 4096:
            return self.constant(np.arange(n), int64)
        return self.emit("Range", self.constant(np.int64(0), int64), self.scalar(n), self.constant(np.int64(1), int64))

    # -- the end --------------------------------------------------------------------------------

    def live(self, results: Iterable[Ref]) -> list[OnnxNode]:
        """Return the nodes that the results need, in order."""
        wanted = {ref.number for ref in results}
        kept = []
        for node in reversed(self.nodes):
            if any(out.number in wanted for out in node.outputs):
                wanted.update(ref.number for ref in node.inputs if ref is not None)
                kept.append(node)
        return kept[::-1]

    def name_all(self, nodes: Sequence[OnnxNode], taken: Iterable[str]) -> tuple[list[str], dict[int, str]]:
        """Return names of nodes, and of all values: an op's last node has the op's own name.  taken: by no others."""
        last = {node.part: i for i, node in enumerate(nodes)}
        values = dict(self.names)
        used, used_values = set[str](), {*taken, *values.values()}
        constants = dict.fromkeys(ref.number for node in nodes for ref in node.inputs
                                  if ref is not None and ref.number in self.arrays)
        for number in sorted(constants, key=lambda number: (number not in self.variables, number)):
            values[number] = _fresh(self.variables.get(number, "constant"), used_values)
        node_names: list[str] = []
        for i, node in enumerate(nodes):
            name = _fresh(node.op if last[node.part] == i else f"{node.op}/{node.operator}", used)
            node_names.append(name)
            for k, out in enumerate(node.outputs):
                if out.number not in values:
                    values[out.number] = _fresh(name if k == 0 else f"{name}:{k}", used_values)
        return node_names, values


def _fresh(stem: str, used: set[str]) -> str:
    """`stem`, numbered where it is used already; marked as used."""
    name, n = stem, 0
    while name in used:
        n += 1
        name = f"{stem}_{n}"
    used.add(name)
    return name


def known(sizes: Iterable[Size], what: str) -> tuple[int, ...]:
    """Return sizes that must be numbers.  Raises Refused."""
    found = tuple(sizes)
    if not all(isinstance(n, int) for n in found):
        raise Refused(f"{what} must be known when the model is exported; here it is {', '.join(map(str, found))}")
    return tuple(int(n) for n in found if isinstance(n, int))


def last_axes(rank: int) -> tuple[int, ...]:
    """Return the order of axes that exchanges the last two."""
    return (*range(rank - 2), rank - 1, rank - 2)


def elements(shape: Shape) -> Size:
    """Return the number of elements of a shape."""
    return dim.product(shape)
