"""Lowering of structured nodes: loops and branches as steps over cells.

Owns how a body's inputs and results lie in cells that outlive a turn.  Must not know kernels' forms.  Invariant: values
carried from turn to turn are moved as if all at once.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from graphc.dtypes import int64
from graphc.errors import InternalError
from graphc.ir import dim
from graphc.ir.dim import Dim, Size
from graphc.ir.function import Function, Node, Value
from graphc.ir.infer import loop_length, loop_parts
from graphc.kernel.ir import Axis, For, Param, Store, size
from graphc.passes.access import is_view, literal
from graphc.passes.emit import zero
from graphc.passes.steps import Cell, Choose, Launch, Move, Repeat, Step
from graphc.passes.tidy import finish

Environment: TypeAlias = dict[Value, Cell]
LowerNodes: TypeAlias = Callable[[Function, Environment], list[Step]]

UNBOUNDED = 1 << 62  # a limit this high is none


def lower_cond(node: Node, env: Environment, lower: LowerNodes) -> list[Step]:
    """Return the steps of a Cond: either body, its results moved to the node's cells."""
    outputs = [_cell(v) for v in node.outputs]
    branches = []
    for name in ("then", "orelse"):
        body: Function = node.attrs[name]
        inner = _inner(body, [env[v] for v in node.inputs[1:]])
        steps = lower(body, inner)
        moves = [(out, inner[v]) for out, v in zip(outputs, body.fetches, strict=True)]
        branches.append(steps + [Move(t, s) for t, s in moves])
    env.update(zip(node.outputs, outputs, strict=True))
    return [Choose(env[node.inputs[0]], branches[0], branches[1])]


def lower_loop(node: Node, env: Environment, lower: LowerNodes) -> list[Step]:
    """Return the steps of a Loop: its carried cells filled, then the Repeat."""
    attrs = node.attrs
    carried, xs, _, ys = loop_parts(attrs)
    body: Function = attrs["body"]
    reverse, conditional = bool(attrs.get("reverse")), bool(attrs.get("while"))
    inputs = [env[v] for v in node.inputs]
    initial, stacked, captures = inputs[1:1 + carried], inputs[1 + carried:1 + carried + xs], inputs[1 + carried + xs:]
    state = [_cell(v) for v in node.outputs[:carried]]
    results = [_cell(v) for v in node.outputs[carried:carried + ys]]
    index, taken = Cell(int64, ()), Cell(int64, ())
    rows = [Cell(x.dtype, x.shape[1:], "slice", base=x) for x in stacked]
    out_rows = [Cell(y.dtype, y.shape[1:], "slice", base=y) for y in results]
    steps: list[Step] = [Move(t, s) for t, s in zip(state, initial, strict=True)]
    count = known_size(node.inputs[0])
    length = loop_length([v.type for v in node.inputs], attrs) if ys else None
    if conditional or count is None or (ys and count != length):
        steps += [_cleared(y) for y in results]

    inner = _inner(body, [index, *state, *rows, *captures])
    turn = lower(body, inner)
    fetches = [inner[v] for v in body.fetches]
    condition = None
    moves: list[tuple[Cell, Cell]] = []
    if conditional:
        condition = Cell(fetches[0].dtype, ())
        first: Function = attrs["cond"]
        before = _inner(first, [*state, *captures])
        steps += lower(first, before)
        steps.append(Move(condition, before[first.fetches[0]]))
        moves.append((condition, fetches[0]))
        fetches = fetches[1:]
    given = {c.root for c in [*state, index, *rows, *captures]}
    stacked_moves = list(zip(out_rows, fetches[carried:], strict=True))
    first_moves: list[Step] = [Move(t, s) for t, s in stacked_moves if s.root in given]  # before the turn changes them
    moves += [(t, s) for t, s in stacked_moves if s.root not in given]
    moves += list(zip(state, fetches[:carried], strict=True))
    turn = first_moves + turn + at_once(moves)
    limit = None
    if conditional and count is None:
        raise InternalError("the limit of a conditional loop must be known when compiling")
    if conditional and not (isinstance(count, int) and count >= UNBOUNDED):
        limit = count
    steps.append(Repeat(turn, None if conditional else count, None if conditional or count is not None else inputs[0],
                        condition, limit, tuple((c, reverse) for c in [*rows, *out_rows]), index, taken))
    env.update(zip(node.outputs, [*state, *results, taken], strict=True))
    return steps


def at_once(moves: Sequence[tuple[Cell, Cell]]) -> list[Step]:
    """Return moves (target, source) that have the effect of all at once: a source that an earlier one overwrites is
    saved."""
    overwritten: set[Cell] = set()
    steps: list[Step] = []
    late: list[Step] = []
    for t, s in moves:
        if t.root is s.root:
            continue
        if s.root in overwritten:
            saved = Cell(s.dtype, s.shape)
            steps.append(Move(saved, s))
            s = saved
        late.append(Move(t, s))
        overwritten.add(t.root)
    return steps + late


def known_size(value: Value) -> Size | None:
    """Return an integer scalar as a size where it is a literal or a size of the program, else None."""
    while True:
        number = literal(value)
        if number is not None:
            return int(number.value)
        node = value.producer
        if node is None:
            return None
        if is_view(node) or node.op.name == "Cast":
            if node.inputs[0].producer is None:
                return None
            value = node.inputs[0]
        elif node.op.name == "Fusion":
            value = node.attrs["body"].fetches[value.index]
        elif node.op.name == "Sizes":
            sizes = node.attrs["sizes"]
            found = sizes[0] if isinstance(sizes, tuple) and len(sizes) == 1 else sizes
            return found if isinstance(found, int | Dim) else None
        else:
            return None


def _cell(value: Value) -> Cell:
    return Cell(value.tensor.dtype, value.tensor.shape)


def _inner(body: Function, cells: Sequence[Cell]) -> Environment:
    """The cells of a body's inputs, as views, so that a cell given twice stays one."""
    return {v: Cell(c.dtype, v.tensor.shape, "view", base=c) for v, c in zip(body.feeds, cells, strict=True)}


def _cleared(cell: Cell) -> Step:
    """Fill a cell with zeros."""
    total = dim.product(cell.shape)
    fill = For("i0", size(total), (Store("y0", (Axis("i0"),), zero(cell.dtype)),), True)
    kernel, sizes = finish("clear", [Param("y0", cell.dtype, (total,), "out")], (fill,), (), (), True)
    return Launch(kernel, (cell,), sizes)
