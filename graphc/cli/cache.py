"""`graphc cache ls|why|clear`: what was compiled, why it is there, and away with it."""
from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from graphc.cli import output
from graphc.cli.environment import environment
from graphc.graph.graph import near_names
from graphc.runtime.cache import KINDS, Cache, Entry

SHORT = 12  # digits of a key that are shown


@click.group("cache")
def cache_command() -> None:
    """Look into the cache of compiled kernels and programs.

    It stands in ~/.cache/graphc, or where GRAPHC_CACHE_DIR says.  Nothing in it ever needs to be removed: what is out
    of date is not found any more, and what was not used for longest goes first when the folder is full.

    \b
    Examples:
      graphc cache ls --kind program
      graphc cache why 3f09c1
      graphc cache clear
    """


def _folder() -> Path:
    folder = environment().cache_path
    if folder is None:
        raise click.ClickException("the cache is in memory only (GRAPHC_CACHE_DIR is empty): there is nothing to show")
    return folder


def _data(entry: Entry) -> dict[str, Any]:
    return {"kind": entry.kind, "key": entry.key, "bytes": entry.size, "used": _day(entry.used), "note": entry.note}


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _told(entry: Entry) -> str:
    """What an entry is, in one cell: of a program's kernels, the first."""
    first, *rest = ", ".join(entry.note.values()).split(", ")
    return f"{first} and {len(rest)} more" if rest else first


@cache_command.command("ls")
@click.option("--kind", type=click.Choice(KINDS), help="Only entries of this kind.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(kind: str | None, as_json: bool) -> None:
    """List the entries, the most recently used first.

    \b
    Example:
      graphc cache ls --kind program
    """
    folder = _folder()
    entries = [e for e in Cache(folder).ls() if kind in (None, e.kind)]
    if as_json:
        output.show_json({"folder": str(folder), "entries": list(map(_data, entries))})
        return
    rows = [(e.kind, e.key[:SHORT], output.size(e.size), _day(e.used), _told(e)) for e in entries]
    output.show(output.Table("", ("kind", "key", ">size", "last used", "what"), rows, f"{folder} is empty"))
    if entries:
        total = sum(e.size for e in entries)
        kinds = Counter(e.kind for e in entries)
        listed = ", ".join(f"{k} {kinds[k]}" for k in KINDS if kinds[k])
        click.echo(f"\n{len(entries)} in all ({listed}): {output.size(total)} in {folder}")


@cache_command.command("why", short_help="Say what an entry is.")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def why(key: str, as_json: bool) -> None:
    """Say what the entry is whose key begins with KEY, and what its key stands for.

    \b
    Example:
      graphc cache why 3f09c1
    """
    folder = _folder()
    entries = Cache(folder).ls()
    found = [e for e in entries if e.key.startswith(key)]
    if len(found) != 1:
        near = near_names(key, [e.key[:max(len(key), 4)] for e in entries], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise click.ClickException(f"the keys of {len(found)} entries begin with {key!r}: give more digits" if found
                                   else f"no entry's key begins with {key!r}{hint}")
    (entry,) = found
    if as_json:
        output.show_json(_data(entry) | {"depends_on": _DEPENDS[entry.kind]})
        return
    rows = [("kind", entry.kind), ("key", entry.key), ("size", output.size(entry.size)),
            ("last used", _day(entry.used)), *sorted(entry.note.items()),
            ("the key stands for", _DEPENDS[entry.kind])]
    output.show(output.Table("", ("", ""), rows))


_DEPENDS = {
    "kernel": "the kernel's text, backend, target, versions, graphc's sources",
    "program": "the function as extracted, options, target, versions, graphc's sources",
    "driver": "graphc's sources, target, versions",
    "trusted": "the content of a saved program that this user compiled: its machine code may run",
    "sources": "the sizes and times of graphc's source files",
}
"""What an entry's key is a digest of: the same of all this, and the entry is used again."""


@cache_command.command("clear")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def clear(as_json: bool) -> None:
    """Remove all entries.  Programs that run keep what they have loaded.

    \b
    Example:
      graphc cache clear
    """
    folder = _folder()
    store = Cache(folder)
    size = sum(e.size for e in store.ls())
    removed = store.clear()
    if as_json:
        output.show_json({"folder": str(folder), "removed": removed, "bytes": size})
    else:
        click.echo(f"removed {output.several(removed, 'file')}, {output.size(size)}, from {folder}")
