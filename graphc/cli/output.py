"""What commands print: tables, sections, JSON.

Owns the two forms of a table: drawn by rich on a terminal, aligned plain text anywhere else (also with NO_COLOR or a
terminal that cannot move its cursor).  Knows nothing of what it prints.  Invariant: the plain form depends on the
table alone.
"""
from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Table:
    """columns: names; one that begins with ">" is aligned to the right.  rows: cells as texts.  empty: what is said
    instead where there are no rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    empty: str = "none"


def show(*tables: Table) -> None:
    """Print tables, a blank line between them."""
    for number, table in enumerate(tables):
        if number:
            click.echo()
        if _is_terminal():
            _draw(table)
        else:
            click.echo(plain(table), nl=False)


def heading(text: str) -> None:
    """Print the title of a section that is no table."""
    click.secho(text, bold=_is_terminal())


def show_json(data: Any) -> None:
    """Print `data` as JSON."""
    click.echo(json.dumps(data, indent=2, allow_nan=False))


def plain(table: Table) -> str:
    """Return a table as aligned text: title, names, rows."""
    title = f"{table.title}\n" if table.title else ""
    if not table.rows:
        return f"{title}  {table.empty}\n"
    names = [c.removeprefix(">") for c in table.columns]
    lines = [names, *table.rows] if any(names) else list(table.rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]

    def line(cells: Sequence[str]) -> str:
        shown = (f"{cell:>{w}}" if column.startswith(">") else f"{cell:<{w}}"
                 for cell, w, column in zip(cells, widths, table.columns, strict=True))
        return f"  {'  '.join(shown)}".rstrip() + "\n"

    return title + "".join(map(line, lines))


def _is_terminal() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _draw(table: Table) -> None:
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console()
    if table.title:
        console.print(Text(table.title, style="bold"))
    if not table.rows:
        console.print(Text(f"  {table.empty}"))
        return
    headed = any(c.removeprefix(">") for c in table.columns)
    drawn = Drawn(box=box.SIMPLE_HEAD, show_header=headed, show_edge=False)
    for number, name in enumerate(table.columns):
        right = name.startswith(">")
        drawn.add_column(name.removeprefix(">"), justify="right" if right else "left", overflow="fold",
                         no_wrap=right or number == 0)  # numbers and what a row is called stay whole
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    console.print(Padding(drawn, (0, 0, 0, 1)))


def count(number: int) -> str:
    """Return a number with its thousands apart: 1,234,567."""
    return f"{number:,}"


def size(number: int) -> str:
    """Return a number of bytes in the largest unit that leaves at least one: 512 B, 1.5 KiB, 3.2 MiB."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{number} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


def milliseconds(seconds: float) -> str:
    """Return a time: 12.3 ms."""
    return f"{1000 * seconds:.1f} ms"


def several(number: int, what: str) -> str:
    """Return "1 kernel", "2 kernels"."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"
