"""`graphc ops [NAME]`: the operations there are, and one of them in full."""
from __future__ import annotations

import re
import textwrap
from typing import Any

import click
from click.shell_completion import CompletionItem

from graphc.cli import output
from graphc.dtypes import DType
from graphc.graph.graph import near_names
from graphc.ops.base import REQUIRED, Kind, NoGradient, NotLowered, Op, all_ops

WIDTH = 72  # columns of a documentation in the list


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(all_ops()) if name.lower().startswith(incomplete.lower())]


@click.command("ops")
@click.argument("name", required=False, shell_complete=_complete)
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help="Only operations of this kind.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ops_command(name: str | None, kind: str | None, as_json: bool) -> None:
    """List the operations that graphs are made of, or show NAME in full.

    \b
    Examples:
      graphc ops --kind reduction
      graphc ops MatMul
    """
    if name is not None:
        op = _found(name)
        if as_json:
            output.show_json(_data(op))
        else:
            _show(op)
        return
    chosen = [op for _, op in sorted(all_ops().items()) if kind in (None, op.kind.value)]
    if as_json:
        output.show_json(list(map(_data, chosen)))
        return
    rows = [(op.name, op.kind.value, ", ".join(op.inputs), ", ".join(op.attrs), _gradient(op)[0],
             _in_short(op.doc)) for op in chosen]
    output.show(output.Table("", ("op", "kind", "inputs", "attrs", "gradient", "what it computes"), rows))
    click.echo(f"\n{output.several(len(chosen), 'operation')}; `graphc ops NAME` shows one in full")


def _in_short(doc: str) -> str:
    """The first part of a documentation that fits into the list."""
    return textwrap.shorten(re.split(r"[.;:] ", " ".join(doc.split()))[0].removesuffix("."), WIDTH, placeholder=" ...")


def _found(name: str) -> Op:
    known = all_ops()
    by_case = {n.lower(): n for n in known}
    if name in known:
        return known[name]
    near = [by_case[n] for n in near_names(name.lower(), by_case)]
    told = f"did you mean {' or '.join(map(repr, near))}?" if near else "`graphc ops` lists them all"
    raise click.BadParameter(f"there is no operation {name!r}; {told}", param_hint="NAME")


def _gradient(op: Op) -> tuple[str, str]:
    """"yes" or "no", and why not."""
    return ("no", op.gradient.reason) if isinstance(op.gradient, NoGradient) else ("yes", "")


def _default(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    return value.name if isinstance(value, DType) else repr(value)


def _data(op: Op) -> dict[str, Any]:
    has, reason = _gradient(op)
    return {
        "name": op.name, "kind": op.kind.value, "inputs": list(op.inputs), "static_inputs": sorted(op.static),
        "outputs": op.outputs if op.outputs >= 0 else None,
        "attrs": {name: None if value is REQUIRED else _default(value) for name, value in op.attrs.items()},
        "gradient": has == "yes", "no_gradient_because": reason or None, "stateful": op.stateful, "doc": op.doc}


def _show(op: Op) -> None:
    has, reason = _gradient(op)
    inputs = [f"{name} (its value is needed to compile)" if i in op.static else name
              for i, name in enumerate(op.inputs)]
    lower = op.lower.reason if isinstance(op.lower, NotLowered) else {
        "Pointwise": "an element at a time, fused", "Reducing": "a reduction, fused", "View": "none: it costs nothing",
        "RoutineBody": "a kernel of its own"}.get(type(op.lower).__name__, "a sum of products with a fused epilogue")
    rows = [("kind", op.kind.value), ("inputs", ", ".join(inputs) or "none"),
            ("outputs", str(op.outputs) if op.outputs >= 0 else "as many as the inputs and attrs say"),
            ("attrs", ", ".join(f"{n} = {_default(v)}" for n, v in op.attrs.items()) or "none"),
            ("gradient", "yes" if has == "yes" else f"no: {reason}"), ("kernel", lower)]
    click.echo(f"{op.name}: {' '.join(op.doc.split())}\n")
    output.show(output.Table("", ("", ""), rows))

