"""Lowering: a fused Function becomes steps, one launch of a kernel per Fusion.

Owns the walk over the nodes and the kernels of Fusions and routines; lower_map, lower_rows, lower_contract and
lower_staged write the forms, lower_loops the structured nodes.  Must not know machines or addresses.  Invariant: the
steps, run in order, compute what the Function means; every value has one cell.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphc import dtypes
from graphc.errors import InternalError
from graphc.ir import dim
from graphc.ir.function import Function, Node, Value
from graphc.ir.types import TensorType
from graphc.kernel.ir import Expr, Guard, Param, Site
from graphc.ops.base import Kind, RoutineBody, Staged
from graphc.passes.access import is_view
from graphc.passes.emit import Emission
from graphc.passes.lower_contract import lower_contract
from graphc.passes.lower_loops import lower_cond, lower_loop
from graphc.passes.lower_map import lower_map
from graphc.passes.lower_rows import lower_rows
from graphc.passes.lower_staged import lower_staged
from graphc.passes.steps import Ask, Cell, Launch, Move, Step, Steps
from graphc.passes.tidy import Piece, finish


def lower(function: Function) -> Steps:
    """Return the steps of a fused function: feeds and states in cells of their own, results moved to theirs."""
    lowering = Lowering()
    env: dict[Value, Cell] = {}
    for role, values in (("feed", function.feeds), ("state", function.states)):
        for i, v in enumerate(values):
            env[v] = Cell(v.tensor.dtype, v.tensor.shape, role, i)
    states = [env[v] for v in function.states]
    steps = lowering.nodes(function, env)
    first, last = _results(function, env, states)
    return Steps([*first, *steps, *last], lowering.constants)


def _results(function: Function, env: dict[Value, Cell], states: Sequence[Cell]) -> tuple[list[Step], list[Step]]:
    """Moves of results: what a result takes from a state that changes is saved before anything runs."""
    new = [env[u] for u in function.updates]
    changed = {s for s, u in zip(states, new, strict=True) if u.root is not s}
    first: list[Step] = []
    last: list[Step] = []
    for i, v in enumerate(function.fetches):
        target = Cell(v.tensor.dtype, v.tensor.shape, "fetch", i)
        (first if env[v].root in changed else last).append(Move(target, env[v]))
    for state, cell in zip(states, new, strict=True):
        if cell.root is state:
            continue
        if cell.root in changed:
            saved = Cell(cell.dtype, cell.shape)
            first.append(Move(saved, cell))
            cell = saved
        last.append(Move(state, cell))
    return first, last


@dataclass
class Lowering:
    """Constants and host calls met so far."""

    constants: list[np.ndarray] = field(default_factory=list)
    hosts: int = 0
    _known: dict[tuple[str, str, bytes], int] = field(default_factory=dict)

    def nodes(self, function: Function, env: dict[Value, Cell]) -> list[Step]:
        """Return the steps of all nodes of `function`; env has the cells of its inputs and receives all others."""
        steps: list[Step] = []
        for node in function.nodes:
            match node.op.name:
                case "Const":
                    env[node.output] = self._constant(node)
                case "Fusion":
                    steps += lower_fusion(node, env)
                case "Loop":
                    steps += lower_loop(node, env, self.nodes)
                case "Cond":
                    steps += lower_cond(node, env, self.nodes)
                case _ if node.op.kind is Kind.HOST:
                    steps.append(self._host(node, env))
                case _ if is_view(node):
                    t = node.output.tensor
                    env[node.output] = Cell(t.dtype, t.shape, "view", base=env[node.inputs[0]])
                case _ if isinstance(node.op.lower, RoutineBody):
                    steps += lower_routine(node, node.op.lower, env)
                case name:
                    reason = getattr(node.op.lower, "reason", "it is not fused")
                    raise InternalError(f"{name} cannot be lowered: {reason}")
        return steps

    def _host(self, node: Node, env: dict[Value, Cell]) -> Step:
        """The call of a host op; tokens are order alone, and have no cells."""
        tensors = [v for v in node.outputs if isinstance(v.type, TensorType)]
        env.update((v, new_cell(v)) for v in tensors)
        inputs = tuple(env[v] for v in node.inputs if isinstance(v.type, TensorType))
        self.hosts += 1
        return Ask(self.hosts - 1, inputs, tuple(env[v] for v in tensors))

    def _constant(self, node: Node) -> Cell:
        t = node.output.tensor
        value = np.asarray(node.attrs["value"])
        array = dtypes.float32_to_bfloat16(value) if t.dtype is dtypes.bfloat16 else value.astype(t.dtype.storage)
        key = t.dtype.name, str(array.shape), np.ascontiguousarray(array).tobytes()
        if key not in self._known:
            self._known[key] = len(self.constants)
            self.constants.append(np.ascontiguousarray(array).reshape(array.shape))
        return Cell(t.dtype, t.shape, "constant", self._known[key])


def new_cell(value: Value) -> Cell:
    """Return a temporary cell for `value`."""
    return Cell(value.tensor.dtype, value.tensor.shape)


def lower_fusion(node: Node, env: dict[Value, Cell]) -> list[Step]:
    """Return the launches of a Fusion node; its outputs get new cells."""
    pieces, inputs = fusion_kernels(node)
    cells = {name: env[v] for name, v in inputs.items()}
    for i, v in enumerate(node.outputs):
        env[v] = cells[f"y{i}"] = new_cell(v)
    steps: list[Step] = []
    for piece in pieces:
        outer = {f"n{i}": n for i, n in enumerate(piece.sizes)}
        for p in piece.partial:
            mine = piece.kernel.param(p.name)
            cells[p.name] = Cell(p.dtype, tuple(dim.substitute(n, outer) for n in mine.shape))
        steps.append(Launch(piece.kernel, tuple(cells[p.name] for p in piece.kernel.params), piece.sizes))
    return steps


def fusion_kernels(node: Node) -> tuple[list[Piece], dict[str, Value]]:
    """Return the kernels of a Fusion node, in order, and which input each "x" parameter is."""
    body: Function = node.attrs["body"]
    kept: int = node.attrs["kept"]
    form: str = node.attrs["form"]
    stem = "k" if form == "contract" else "r"
    axes = [(f"i{i}" if i < kept else f"{stem}{i - kept}", n) for i, n in enumerate(node.attrs["domain"])]
    emission = Emission(body, axes, node.attrs["labels"])
    name = kernel_name(form, [n.op.name for n in body.nodes if not is_view(n) and n.op.name != "Const"])
    match form:
        case "map":
            pieces = lower_map(name, emission, body.fetches, node.origin)
        case "rows":
            pieces = lower_rows(name, emission, body.fetches, kept, node.origin)
        case "contract" if any(isinstance(n.op.lower, Staged) for n in body.nodes):
            pieces = lower_staged(name, emission, body.fetches, node.origin)
        case "contract":
            pieces = lower_contract(name, emission, body.fetches, node.origin)
        case _:
            raise InternalError(f"a Fusion has the form {form!r}")
    outside = dict(zip(body.feeds, node.inputs, strict=True))
    return pieces, {p.name: outside[v] for v, p in emission.params.items()}


def kernel_name(form: str, ops: Sequence[str]) -> str:
    """Return a readable name: the form and the first few ops."""
    words = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", op).lower() for op in ops]
    shown = "_".join(words[:4]) + (f"_and_{len(words) - 4}_more" if len(words) > 4 else "")
    return re.sub(r"\W", "_", f"{form}_{shown}")


class RoutineNames:
    """The `Routine` of one node: names of its buffers, fresh names, and sites."""

    def __init__(self, node: Node, inplace: dict[int, int]) -> None:
        self.attrs = node.attrs
        self.in_types: Sequence[TensorType] = [v.tensor for v in node.inputs]
        self.out_types: Sequence[TensorType] = [v.tensor for v in node.outputs]
        self.sites: list[Site] = []
        self._node = node
        self._updated = {i: o for o, i in inplace.items()}
        self._counts: dict[str, int] = {}

    def input(self, i: int) -> str:
        return f"y{self._updated[i]}" if i in self._updated else f"x{i}"

    def output(self, i: int) -> str:
        return f"y{i}"

    def fresh(self, stem: str) -> str:
        self._counts[stem] = self._counts.get(stem, -1) + 1
        return f"{stem}_{self._counts[stem]}"

    def guard(self, value: Expr, ok: Expr, fallback: Expr, kind: str, message: str) -> Expr:
        site = Site(kind, message, self._node.origin[0] if self._node.origin else self._node.op.name)
        if site not in self.sites:
            self.sites.append(site)
        return Guard(value, ok, fallback, self.sites.index(site))


def lower_routine(node: Node, lowering: RoutineBody, env: dict[Value, Cell]) -> list[Step]:
    """Return the steps of a routine: moves of the inputs that it updates, and the launch."""
    inplace = dict(lowering.inplace)
    names = RoutineNames(node, inplace)
    body = lowering.body(names)
    steps: list[Step] = []
    params: list[Param] = []
    cells: list[Cell] = []
    for i, v in enumerate(node.inputs):
        if i not in inplace.values():
            params.append(Param(f"x{i}", v.tensor.dtype, v.tensor.shape, "in"))
            cells.append(env[v])
    for o, v in enumerate(node.outputs):
        env[v] = new_cell(v)
        if o in inplace:
            steps.append(Move(env[v], env[node.inputs[inplace[o]]]))
        params.append(Param(f"y{o}", v.tensor.dtype, v.tensor.shape, "inout" if o in inplace else "out"))
        cells.append(env[v])
    kernel, sizes = finish(kernel_name("routine", [node.op.name]), params, body, names.sites, node.origin)
    return [*steps, Launch(replace(kernel, aliases=()), tuple(cells), sizes)]
