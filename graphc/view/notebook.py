"""What a notebook shows of a graph, a tensor, an operation, a variable and a session.

Owns these pieces of HTML.  Knows the page, which it puts in a frame of its own: a frame that may run its scripts and
nothing else, and cannot reach the notebook.  Invariants: every text is escaped; nothing is loaded; nothing runs in the
session that is shown.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from graphc.dsl.variable import Variable
from graphc.errors import GraphError
from graphc.graph.graph import Graph
from graphc.graph.operation import Operation
from graphc.graph.tensor import Tensor
from graphc.session import BaseSession
from graphc.view.build import scene, tensor_type
from graphc.view.html import scene_html

HEIGHT = 520
"""Pixels of a drawing in a notebook."""

MOST_OPERATIONS = 20_000
"""A notebook keeps what it shows: a larger graph is told in a line."""

MOST_ROWS = 40

_TABLE = "border-collapse:collapse;margin:4px 0;font-size:13px"
_CELL = "text-align:left;vertical-align:top;padding:3px 16px 3px 0;border:0;background:none"
_MONO = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px"

Cells = Sequence[str]


def notebook_html(thing: Any) -> str:
    """Return the HTML of a graph, tensor, operation, variable or session.  Raises GraphError for anything else."""
    match thing:
        case Graph():
            return _graph(thing)
        case Tensor():
            return _titled("Tensor", thing.name, _of_tensor(thing))
        case Operation():
            return _titled("Operation", thing.name, _of_operation(thing))
        case Variable():
            return _titled("Variable", thing.name, [
                ("type", str(tensor_type(thing.handle))), ("trainable", "yes" if thing.trainable else "no"),
                ("initial value", thing.initial_value.name), *_line(thing.op)])
        case BaseSession():
            return _session(thing)
    raise GraphError(f"a {type(thing).__name__} has no form for notebooks")


def _graph(graph: Graph) -> str:
    count = graph.operation_count
    if count == 0:
        return _titled("Graph", "no operations", [])
    if count > MOST_OPERATIONS:
        return _titled("Graph", f"{count:,} operations", [
            ("drawing", "too large to be kept in a notebook: graphc dump FILE --what graph --format html")])
    page = escape(scene_html(scene(graph)), quote=True)
    return (f'<iframe title="graph of {count} operations" sandbox="allow-scripts" loading="lazy" srcdoc="{page}" '
            f'style="width:100%;height:{HEIGHT}px;border:1px solid #8884;border-radius:10px"></iframe>')


def _of_tensor(tensor: Tensor) -> list[tuple[str, str]]:
    return [("type", str(tensor_type(tensor))), ("computed by", f'{tensor.op.type} "{tensor.op.name}"'),
            *_line(tensor.op)]


def _of_operation(op: Operation) -> list[tuple[str, str]]:
    rows = [("op", op.type)]
    rows += [(f"input {i}", f"{t.name}  {tensor_type(t)}") for i, t in enumerate(op.inputs[:MOST_ROWS])]
    rows += [("waits for", ", ".join(c.name for c in op.control_inputs[:MOST_ROWS]))] if op.control_inputs else []
    rows += [(f"output {i}", str(tensor_type(t))) for i, t in enumerate(op.outputs[:MOST_ROWS])]
    return [*rows, *_line(op)]


def _line(op: Operation) -> list[tuple[str, str]]:
    return [("written at", str(op.source))] if op.source.line else []


def _session(session: BaseSession) -> str:
    options = session.options
    rows = [("graph", f"{session.graph.operation_count:,} operations"), ("programs", f"{session.program_count:,}"),
            ("backend", f"{options.backend}, {options.worker_count} thread{'s' * (options.worker_count != 1)}")]
    if session.closed:
        return _titled("Session", "closed", rows)
    held = [(name, *found) for name in session.variables.names() if (found := session.variables.describe(name))]
    total = sum(math.prod(shape) * dtype.size for _, dtype, shape in held)
    rows.append(("variables", f"{len(held):,}, {_bytes(total)}"))
    cells = [(name, f"{dtype.name}[{', '.join(map(str, shape))}]", _bytes(math.prod(shape) * dtype.size))
             for name, dtype, shape in held[:MOST_ROWS]]
    if len(held) > MOST_ROWS:
        cells.append((f"and {len(held) - MOST_ROWS:,} more", "", ""))
    return _titled("Session", "", rows) + (_table(cells, ("variable", "type", "bytes")) if cells else "")


def _bytes(count: int) -> str:
    """`1.5 MB`"""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{count:,} bytes" if unit == "bytes" else f"{size:.3g} {unit}"


def _titled(kind: str, name: str, rows: Iterable[tuple[str, str]]) -> str:
    head = f"<b>{escape(kind)}</b> <code>{escape(name)}</code>" if name else f"<b>{escape(kind)}</b>"
    return f"<div>{head}</div>{_table(list(rows), ())}"


def _table(rows: Sequence[Cells], heads: Cells) -> str:
    top = "".join(f'<th style="{_CELL}">{escape(head)}</th>' for head in heads)
    plain = 0 if not heads else -1  # without heads, the first column says what the others are
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}{"" if i == plain else ";" + _MONO}">{escape(cell)}</td>'
                         for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f'<table style="{_TABLE}">{f"<tr>{top}</tr>" if heads else ""}{body}</table>' if rows else ""
