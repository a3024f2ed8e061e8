"""`graphc compile FILE`: a model file becomes a program that runs without the compiler."""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from graphc.artifact.save import save
from graphc.backends import numba_cpu
from graphc.cli import output
from graphc.cli.inspect import signature_rows, trained
from graphc.cli.kind import OutFile
from graphc.cli.output import Table
from graphc.cli.settings import TARGETS, Chosen, choose, model_options
from graphc.dump import dump_plan, dump_timings, program_folder
from graphc.inspection.compilation import Compilation, record
from graphc.inspection.layers import at, flops, parameter_count
from graphc.interop.shared_library import write_shared_library
from graphc.ir.text import count_nodes
from graphc.model import Model
from graphc.options import Options
from graphc.runtime.cache import Cache

FORMATS = ("gcx", "so")
BATCHES = (1, 32, 256)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.  bytes: of all files.  seconds: by stage."""

    files: tuple[Path, ...]
    bytes: int
    targets: tuple[str, ...]
    seconds: tuple[tuple[str, float], ...]


@click.command("compile")
@model_options
@click.option("-o", "--output", "out", type=OutFile(), metavar="OUT",
              help="The file to write (default: FILE's name with the format's ending, here).")
@click.option("--checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="CKPT",
              help="Values of the variables, .safetensors or .npz (default: the initializers').")
@click.option("--target", multiple=True, type=click.Choice(TARGETS), help="Processor to make code for (repeatable).")
@click.option("--format", "form", type=click.Choice(FORMATS),
              help="gcx: a saved program.  so: a shared library with a C header.")
@click.option("--timings", is_flag=True, help="Also show the time of every pass and every kernel.")
@click.option("--dump-passes", type=click.Path(file_okay=False), metavar="DIR",
              help="Write there the graph after each pass, the kernels, the plan, timings.")
@click.option("--batch", multiple=True, type=click.IntRange(min=1), metavar="N",
              help=f"What free sizes are for the memory shown (repeatable; default: {', '.join(map(str, BATCHES))}).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compile_command(file: Path, fetch: tuple[str, ...], feed: tuple[str, ...], level: int | None, numerics: str | None,
                    out: Path | None, checkpoint: Path | None, target: tuple[str, ...], form: str | None,
                    timings: bool, dump_passes: str | None, batch: tuple[int, ...], as_json: bool) -> None:
    """Compile the model in FILE and write a program that runs without the compiler.

    The file is imported, its main part is not run.  What is compiled: the results named by --fetch, else those that the
    file declares (tf.signature), else every result that nobody consumes.

    \b
    Examples:
      graphc compile models/mlp.py -o mlp.gcx
      graphc compile models/mlp.py --fetch class --checkpoint mlp.safetensors
      graphc compile models/mlp.py --target x86-64-v3 --target x86-64-v4
      graphc compile models/mlp.py --format so -o libmlp.so
    """
    chosen = choose(file, fetch, feed, level, numerics, checkpoint)
    form = form or ("so" if out is not None and out.suffix == ".so" else "gcx")
    if out is not None and out.suffix == ".onnx":
        raise click.BadParameter(f"ONNX files are written by `graphc dump {file} --format onnx -o {out}`",
                                 param_hint="--output")
    targets = target or (chosen.options.target,)
    if form == "so" and len(targets) > 1:
        raise click.UsageError("a shared library holds the code of one target: give --target once")
    model = chosen.model()
    if model.unused and not as_json:
        click.echo(f"{checkpoint}: not used, since the model has no such variable: {', '.join(model.unused)}", err=True)
    options = chosen.options.replace(target=targets[0])
    compilation = _dumped(model, options, dump_passes) if dump_passes else record(model, options=options)
    written = _write(out or Path(f"{file.stem}.{form}"), form, model, chosen, targets)
    batches = batch or BATCHES
    kernels = compilation.compile_kernels(Cache(None)) if timings else ()  # none of them read from the cache
    if as_json:
        output.show_json(_data(compilation, written, batches, kernels))
        return
    _show(compilation, written, batches)
    if timings:
        click.echo()
        _show_timings(compilation, kernels)


def _write(path: Path, form: str, model: Model, chosen: Chosen, targets: Sequence[str]) -> Written:
    if form == "so":
        started = time.perf_counter()
        write_shared_library(path, model, chosen.options.replace(target=targets[0]))
        files = (path, path.with_suffix(".h"))
        seconds = ((f"compile and link for {targets[0]}", time.perf_counter() - started),)
        return Written(files, sum(f.stat().st_size for f in files), tuple(targets), seconds)
    saved = save(path, model, chosen.options, targets)
    return Written((Path(saved.path),), saved.bytes, saved.targets, saved.seconds)


def _dumped(model: Model, options: Options, parent: str) -> Compilation:
    """The compilation, leaving its passes in a folder of its own in `parent`."""
    ends = (*(t.op.name for t in model.signature.outputs.values()), *(op.name for op in model.signature.targets))
    folder = program_folder(parent, ends)
    compilation = record(model, options=options.replace(dump_passes=str(folder)))
    assert folder is not None
    dump_plan(folder, compilation.plan, numba_cpu.source)
    dump_timings(folder, compilation.records, compilation.compile_kernels())
    return compilation


# -- what is shown ----------------------------------------------------------------------------------------------------


def _show(c: Compilation, written: Written, batches: Sequence[int]) -> None:
    before, after = count_nodes(c.function), count_nodes(c.optimised)
    ends = signature_rows(c)
    width = max((len(name) for _, name, _, _ in ends), default=0)
    rows = [(role, f"{name:<{width}}  {type}".rstrip()) for role, name, type, _ in ends]
    rows += [("parameters", output.count(parameter_count(c.function, trained(c)))),
             ("nodes", f"{output.count(before)} in the graph, {output.count(after)} optimised"),
             ("kernels", output.count(len(c.kernels)))]
    if c.function.sources:
        rows += [(f"batch {n}", f"{output.count(at(flops(c.optimised), n))} operations, "
                  f"arena {output.size(at(c.plan.arena, n))}") for n in batches]
    else:
        rows += [("operations", output.count(at(flops(c.optimised), 1))), ("arena", output.size(at(c.plan.arena, 1)))]
    rows += [("compile time", ", ".join(f"{stage} {output.milliseconds(s)}" for stage, s in _stages(c, written))),
             ("target", ", ".join(written.targets)),
             ("written", f"{', '.join(map(str, written.files))}, {output.size(written.bytes)}")]
    output.show(Table("", ("", ""), rows))


def _stages(c: Compilation, written: Written) -> tuple[tuple[str, float], ...]:
    return written.seconds or c.seconds


def _show_timings(c: Compilation, kernels: Sequence[tuple[str, float]]) -> None:
    passes = [(r.name, output.milliseconds(r.seconds), str(r.nodes_before), str(r.nodes_after)) for r in c.records]
    output.show(Table("passes", ("", ">time", ">nodes before", ">after"), passes),
                Table("kernels, compiled anew", ("", ">time"),
                      [(name, output.milliseconds(s)) for name, s in kernels]))


def _data(c: Compilation, written: Written, batches: Sequence[int], kernels: Sequence[tuple[str, float]]) -> Any:
    data = {
        "files": list(map(str, written.files)), "bytes": written.bytes, "targets": list(written.targets),
        "signature": [{"role": role, "name": name, "type": type, "tensor": tensor or name}
                      for role, name, type, tensor in signature_rows(c)],
        "parameters": parameter_count(c.function, trained(c)), "nodes_before": count_nodes(c.function),
        "nodes_after": count_nodes(c.optimised), "kernels": len(c.kernels),
        "by_batch": [{"batch": n, "operations": at(flops(c.optimised), n), "arena_bytes": at(c.plan.arena, n)}
                     for n in batches],
        "seconds": dict(_stages(c, written))}
    if kernels:
        data["passes"] = [{"name": r.name, "seconds": r.seconds, "nodes_before": r.nodes_before,
                           "nodes_after": r.nodes_after} for r in c.records]
        data["kernel_seconds"] = [{"name": name, "seconds": s} for name, s in kernels]
    return data
