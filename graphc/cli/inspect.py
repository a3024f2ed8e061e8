"""`graphc inspect FILE`: what a model is made of, and what the compiler made of it."""
from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from graphc.cli import output
from graphc.cli.kind import OutFile, is_saved
from graphc.cli.output import Table
from graphc.cli.settings import choose, model_options, read_saved
from graphc.inspection import memory
from graphc.inspection.compilation import Compilation
from graphc.inspection.layers import Layer, at, flops, layers, parameter_count, shape_text
from graphc.inspection.why import why
from graphc.ir.function import Condition
from graphc.ir.text import BETWEEN
from graphc.kernel.plan import Call
from graphc.passes.report import naive_bytes

SECTIONS = ("signature", "layers", "checks", "convolutions", "kernels", "memory")


@click.command("inspect")
@model_options
@click.option("--show", "sections", multiple=True, type=click.Choice(SECTIONS), help="Only this section (repeatable).")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="What every free size (None) is taken for where a number is shown.")
@click.option("--depth", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Parts of a name scope that tell layers apart.")
@click.option("--why", "pair", nargs=2, metavar="A B", help="Say why two operations share a kernel, or do not.")
@click.option("--plot", type=OutFile(), metavar="OUT.png",
              help="Draw the memory plan (.png, .svg, .pdf; needs matplotlib).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_command(file: Path, fetch: tuple[str, ...], feed: tuple[str, ...], level: int | None, numerics: str | None,
                    sections: tuple[str, ...], batch: int, depth: int, pair: tuple[str, str] | None,
                    plot: Path | None, as_json: bool) -> None:
    """Show the model in FILE: layers, checks and variants, kernels with your lines in them, the memory plan.

    FILE: a model file, or a saved program (.gcx).

    \b
    Examples:
      graphc inspect models/mlp.py
      graphc inspect models/mlp.py --show layers --batch 128
      graphc inspect models/mlp.py --show memory --plot memory.png
      graphc inspect models/mlp.py --why hidden1/MatMul hidden1/Relu
      graphc inspect mlp.gcx --json
    """
    compilation = choose(file, fetch, feed, level, numerics).compilation()
    if pair:
        verdict = why(compilation, *pair)
        if as_json:
            output.show_json({"first": pair[0], "second": pair[1], "together": verdict.together, "why": verdict.text})
        else:
            click.echo(verdict.text)
        return
    if plot:
        try:
            memory.plot(compilation.plan, plot, batch, file.name)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--plot") from None
    wanted = [s for s in SECTIONS if s in (sections or SECTIONS)]
    if as_json:
        output.show_json({"file": str(file), "batch": batch} | {
            s: _AS_DATA[s](compilation, batch, depth) for s in wanted})
        return
    _headline(compilation, file.name)
    if is_saved(file):
        click.echo(_saved_as(file))
    for section in wanted:
        if section == "convolutions" and not sections and not compilation.convolutions:
            continue
        click.echo()
        _AS_TEXT[section](compilation, batch, depth)
    if plot:
        click.echo(f"\nmemory plan drawn: {plot}")


def _saved_as(file: Path) -> str:
    """What a saved program holds besides what it computes."""
    contents, trusted = read_saved(file)
    header = contents.header
    code = ", ".join(p.name if p.cpu in (p.name, "") else f"{p.name} ({p.cpu})" for p in header.processors) or "none"
    return f"saved by graphc {header.graphc}: machine code for {code}, {'' if trusted else 'not '}trusted; " \
           f"{output.several(len(header.variants), 'variant')}"


def trained(compilation: Compilation) -> set[str] | None:
    """Return the names of the trained variables, or None where the graph does not say."""
    if compilation.graph is None:
        return None
    return {v.op.name for v in compilation.graph.get_collection("trainable_variables")} or None


def _headline(c: Compilation, name: str) -> None:
    parts = [output.several(len(c.plan.feeds), "input"), output.several(len(c.plan.fetches), "output"),
             output.several(parameter_count(c.function, trained(c)), "parameter"),
             output.several(len(c.kernels), "kernel")]
    click.echo(f"{name}: {', '.join(parts)}")


# -- the signature ----------------------------------------------------------------------------------------------------


def signature_rows(c: Compilation) -> list[tuple[str, str, str, str]]:
    """Return (role, name, type, tensor in the graph where it is called otherwise) of what goes in and out."""
    f = c.function
    rows = []
    for role, names, values in (("input", f.feed_names, f.feeds), ("output", f.fetch_names, f.fetches)):
        rows += [(role, c.names.get(name, name), shape_text(v.tensor), name if c.names.get(name, name) != name else "")
                 for name, v in zip(names, values, strict=True)]
    return rows + [("runs", name, "", "") for name in c.effects]


def _signature(c: Compilation, batch: int, depth: int) -> None:
    output.show(Table("signature", ("", "", "", ""), signature_rows(c)))


def _signature_data(c: Compilation, batch: int, depth: int) -> Any:
    return [{"role": role, "name": name, "type": type, "tensor": tensor or name}
            for role, name, type, tensor in signature_rows(c)]


# -- layers -----------------------------------------------------------------------------------------------------------


def _layers(c: Compilation, batch: int, depth: int) -> None:
    found = layers(c.function, depth, trained(c))
    total = sum(at(row.multiply_adds, batch) for row in found)
    rows = [(row.name, shape_text(row.output) if row.output else "-", output.count(row.parameters),
             output.count(at(row.multiply_adds, batch)), output.size(at(row.activations, batch)),
             _share(row, batch, total)) for row in found]
    rows.append(("all", "", output.count(sum(row.parameters for row in found)), output.count(total),
                 output.size(sum(at(row.activations, batch) for row in found)), ""))
    output.show(Table(f"layers{_at(c, batch)}",
                      ("layer", "output", ">parameters", ">multiply-adds", ">activations", ">share"), rows))
    click.echo(f"  compiled: {output.count(at(flops(c.optimised), batch))} arithmetic operations")


def _share(row: Layer, batch: int, total: int) -> str:
    return f"{at(row.multiply_adds, batch) / total:.1%}" if total else "-"


def _at(c: Compilation, batch: int) -> str:
    return f", None = {batch}" if c.function.sources else ""


def _layers_data(c: Compilation, batch: int, depth: int) -> Any:
    return [{"layer": row.name, "output": shape_text(row.output) if row.output else None,
             "parameters": row.parameters, "multiply_adds": at(row.multiply_adds, batch),
             "activation_bytes": at(row.activations, batch)} for row in layers(c.function, depth, trained(c))]


# -- checks -----------------------------------------------------------------------------------------------------------


_SAID = {"equal": "must be equal", "divides": "must be a multiple of", "at_most": "must be at most",
         "assume": "assumed equal; where one is 1, another variant is compiled when it is first met"}


def _checks(c: Compilation, batch: int, depth: int) -> None:
    rows = [(_relation(k), k.op, _line(c, k.op), _SAID[k.kind]) for k in c.fused.conditions]
    sites = [(site.message, site.op, _line(c, site.op), kernel.name) for kernel in c.kernels for site in kernel.sites]
    unknown = "none: these kernels fit all sizes" if c.function.sources else "none: every size is known"
    output.show(Table("sizes that each run checks", ("sizes", "for", "line", ""), rows, unknown),
                Table("values that kernels guard against", ("error", "for", "line", "kernel"), sites))


def _relation(k: Condition) -> str:
    return f"{k.left} {BETWEEN[k.kind]} {k.right}"


def _line(c: Compilation, op: str) -> str:
    return c.function.lines.get(op, "").split(":   ")[0].split("\n")[0]


def _checks_data(c: Compilation, batch: int, depth: int) -> Any:
    return {"sizes": [{"kind": k.kind, "left": str(k.left), "right": str(k.right), "op": k.op, "message": k.message}
                      for k in c.fused.conditions],
            "variants": [{"assumes": _relation(k), "op": k.op} for k in c.fused.conditions if k.kind == "assume"],
            "guards": [{"message": s.message, "op": s.op, "kernel": kernel.name}
                       for kernel in c.kernels for s in kernel.sites]}


# -- convolutions -----------------------------------------------------------------------------------------------------


def _convolutions(c: Compilation, batch: int, depth: int) -> None:
    output.heading("convolutions")
    for choice in c.convolutions:
        click.echo(f"  {choice.node.origin[0]}")
        click.echo(f"      {choice.reason}")
    if not c.convolutions:
        click.echo("  none")


def _convolutions_data(c: Compilation, batch: int, depth: int) -> Any:
    return [{"op": x.node.origin[0], "winograd_tile": x.tile, "reason": x.reason} for x in c.convolutions]


# -- kernels ----------------------------------------------------------------------------------------------------------


def _calls(c: Compilation) -> list[int]:
    counts = [0] * len(c.kernels)
    for _, step, _ in memory.numbered(c.plan.steps):
        if isinstance(step, Call):
            counts[step.kernel] += 1
    return counts


def _kernels(c: Compilation, batch: int, depth: int) -> None:
    output.heading("kernels")
    for number, (kernel, calls) in enumerate(zip(c.kernels, _calls(c), strict=True)):
        times = "" if calls == 1 else f", called at {calls} places"
        click.echo(f"  k{number}  {kernel.name}{times}")
        click.echo(textwrap.fill(", ".join(kernel.provenance), 110, initial_indent="      ops  ",
                                 subsequent_indent="           ", break_on_hyphens=False, break_long_words=False))
        for line in dict.fromkeys(line.split("\n")[0] for line in c.user_lines(kernel)):
            click.echo(f"      {line}")
    if not c.kernels:
        click.echo("  none")


def _kernels_data(c: Compilation, batch: int, depth: int) -> Any:
    return [{"number": i, "name": k.name, "calls": calls, "ops": list(k.provenance), "lines": list(c.user_lines(k))}
            for i, (k, calls) in enumerate(zip(c.kernels, _calls(c), strict=True))]


# -- memory -----------------------------------------------------------------------------------------------------------


def _memory(c: Compilation, batch: int, depth: int) -> None:
    rows = [(f"b{life.buffer}", life.type, output.size(at(life.bytes, batch)), output.count(at(life.offset, batch)),
             f"{life.first} to {life.last}", life.made_by) for life in memory.lifetimes(c.plan)]
    stays = [(s.target, s.source, output.size(at(s.bytes, batch)), s.reason) for s in memory.copies(c.fused)]
    output.show(Table(f"memory of temporaries{_at(c, batch)}",
                      ("", "type", ">size", ">offset", "lives in steps", "computed by"), rows))
    planned, naive = at(c.plan.arena, batch), at(naive_bytes(c.plan), batch)
    click.echo(f"  arena: {output.size(planned)}, {output.size(naive)} if nothing shared memory\n")
    output.show(Table("copies that writing in place could not avoid", ("to", "from", ">size", "because"), stays))


def _memory_data(c: Compilation, batch: int, depth: int) -> Any:
    return {"arena_bytes": at(c.plan.arena, batch), "bytes_without_sharing": at(naive_bytes(c.plan), batch),
            "temporaries": [{"buffer": life.buffer, "type": life.type, "bytes": at(life.bytes, batch),
                             "offset": at(life.offset, batch), "first_step": life.first, "last_step": life.last,
                             "computed_by": life.made_by} for life in memory.lifetimes(c.plan)],
            "copies": [{"to": s.target, "from": s.source, "bytes": at(s.bytes, batch), "because": s.reason}
                       for s in memory.copies(c.fused)]}


_Section = Callable[[Compilation, int, int], Any]
_AS_TEXT: Mapping[str, _Section] = dict(zip(SECTIONS, (_signature, _layers, _checks, _convolutions, _kernels,
                                                       _memory), strict=True))
_AS_DATA: Mapping[str, _Section] = dict(zip(SECTIONS, (_signature_data, _layers_data, _checks_data, _convolutions_data,
                                                       _kernels_data, _memory_data), strict=True))

__all__: Sequence[str] = ["inspect_command", "signature_rows", "trained"]
