"""`graphc dump FILE`: a model at any stage on its way to machine code, as text, data or a drawing."""
from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from graphc.cli.kind import OutFile, is_saved
from graphc.cli.settings import TARGETS, Chosen, choose, model_options, near
from graphc.errors import BackendError
from graphc.inspection.compilation import Compilation
from graphc.interop.onnx import write_onnx
from graphc.interop.tensorboard import write_graph
from graphc.ir.text import show
from graphc.kernel.ir import Kernel
from graphc.kernel.plan import Branch, Call, Copy, Host, Loop, Plan, Step
from graphc.model import Model
from graphc.passes.report import plan_text


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be shown of a compilation.

    title: of a drawing.  stage: the pass after which, or None for the last.  kernels: which.
    """

    compilation: Compilation
    title: str
    stage: str | None
    kernels: tuple[Kernel, ...]


def _graph(form: str) -> Callable[[Asked], str]:
    return lambda asked: _render(asked, form, "graph")


def _drawn(form: str) -> Callable[[Asked], str]:
    return lambda asked: _render(asked, form, _stage(asked))


def _render(asked: Asked, form: str, stage: str | None) -> str:
    """The drawing; what draws is loaded by name, since no other dump needs it."""
    scene = importlib.import_module("graphc.view.build").scene(asked.compilation, asked.title)
    return str(importlib.import_module("graphc.view.render").render(scene, form, stage))


def _stage(asked: Asked) -> str | None:
    """The scene's name of the stage after the pass: a pass that changed the function several times is numbered."""
    if asked.stage is None:
        return None
    after = asked.compilation.after(asked.stage)
    names = [name for name, _ in asked.compilation.stages]
    at = max(i for i, (_, function) in enumerate(asked.compilation.stages) if function is after)
    times = names[:at + 1].count(names[at])
    return names[at] if times == 1 else f"{names[at]} {times}"


def _ir(asked: Asked) -> str:
    c = asked.compilation
    return show(c.fused if asked.stage is None else c.after(asked.stage))


def _kernels(text: Callable[[Compilation, Kernel], str], comment: str) -> Callable[[Asked], str]:
    """One text after the other, each headed by the ops and the user's lines that it comes from."""
    return lambda asked: "\n".join(f"{_head(asked.compilation, k, comment)}{_text(asked, k, text, comment)}"
                                   for k in asked.kernels)


def _kernels_data(text: Callable[[Compilation, Kernel], str]) -> Callable[[Asked], str]:
    return lambda asked: _json([
        {"number": asked.compilation.kernels.index(k), "name": k.name, "ops": list(k.provenance),
         "lines": list(asked.compilation.user_lines(k)), "text": _text(asked, k, text, "#")} for k in asked.kernels])


def _text(asked: Asked, kernel: Kernel, text: Callable[[Compilation, Kernel], str], comment: str) -> str:
    try:
        return text(asked.compilation, kernel)
    except BackendError as error:  # a kernel that has no such form is told, not left out
        return f"{comment} {error}\n"


def _head(c: Compilation, kernel: Kernel, comment: str) -> str:
    lines = [f"kernel {c.kernels.index(kernel)}: {kernel.name}", f"ops: {', '.join(kernel.provenance)}",
             *(part for line in c.user_lines(kernel) for part in line.splitlines())]
    return "".join(f"{comment} {line}\n" for line in lines)


def _json(data: Any) -> str:
    return json.dumps(data, indent=2) + "\n"


def _plan_data(plan: Plan) -> Any:
    slots = {role: [{"name": s.name, "dtype": s.dtype.name, "shape": list(map(str, s.shape))} for s in found]
             for role, found in (("feeds", plan.feeds), ("states", plan.states), ("fetches", plan.fetches))}
    buffers = [{"dtype": b.dtype.name, "shape": list(map(str, b.shape)), "role": b.role, "source": b.source,
                "offset": str(b.offset), "base": b.base} for b in plan.buffers]
    return slots | {"buffers": buffers, "steps": _steps_data(plan, plan.steps), "arena": str(plan.arena)}


def _steps_data(plan: Plan, steps: Sequence[Step]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in steps:
        match step:
            case Call(kernel, buffers, sizes):
                found.append({"step": "call", "kernel": plan.kernels[kernel].name, "buffers": list(buffers),
                              "sizes": list(map(str, sizes))})
            case Copy(target, source):
                found.append({"step": "copy", "target": target, "source": source})
            case Loop():
                found.append({"step": "loop", "count": None if step.count is None else str(step.count),
                              "count_buffer": step.count_buffer, "condition": step.condition,
                              "slices": [list(pair) for pair in step.slices], "body": _steps_data(plan, step.body)})
            case Branch(predicate, then, orelse):
                found.append({"step": "branch", "predicate": predicate, "then": _steps_data(plan, then),
                              "else": _steps_data(plan, orelse)})
            case Host(function, inputs, outputs):
                found.append({"step": "host", "function": function, "inputs": list(inputs), "outputs": list(outputs)})
    return found


_IR_TEXT, _PYTHON, _LLVM, _ASSEMBLY = (Compilation.kernel_text, Compilation.python, Compilation.llvm,
                                       Compilation.assembly)
WAYS: Mapping[str, Mapping[str, Callable[[Asked], str]]] = {
    "graph": {form: _graph(form) for form in ("text", "dot", "svg", "json", "html")},
    "ir": {"text": _ir} | {form: _drawn(form) for form in ("dot", "svg", "json", "html")},
    "kernels": {"text": _kernels(_IR_TEXT, "#"), "json": _kernels_data(_IR_TEXT)},
    "numba": {"text": _kernels(_PYTHON, "#"), "json": _kernels_data(_PYTHON)},
    "llvm": {"text": _kernels(_LLVM, ";"), "json": _kernels_data(_LLVM)},
    "asm": {"text": _kernels(_ASSEMBLY, "#"), "json": _kernels_data(_ASSEMBLY)},
    "plan": {"text": lambda asked: plan_text(asked.compilation.plan),
             "json": lambda asked: _json(_plan_data(asked.compilation.plan))},
}
"""What can be shown -> in which format -> by what."""
EXPORTS: Mapping[str, Callable[[Model, Path], object]] = {
    "onnx": lambda model, out: write_onnx(out, model),
    "tensorboard": lambda model, out: write_graph(model.graph, out),
}
"""Formats of other programs -> what writes a model in them."""
FORMATS = (*dict.fromkeys(form for ways in WAYS.values() for form in ways), *EXPORTS)


@click.command("dump")
@model_options
@click.option("--what", type=click.Choice(tuple(WAYS)),
              help="graph: as written.  ir (default): the compiler's program, after all passes or after --pass.  "
                   "kernels: their IR.  numba: the same as readable Python.  llvm, asm: their code.  plan: steps and "
                   "memory.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
              help="dot, svg and html are for graph and ir.  onnx: the model with its weights as the file OUT.  "
                   "tensorboard: the graph as an event file in the folder OUT.")
@click.option("--pass", "stage", metavar="NAME", help="Show the ir after the last run of this pass.")
@click.option("--kernel", "wanted", metavar="K", help="Only this kernel: its number or its name.")
@click.option("--checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="CKPT",
              help="Weights of an onnx file, .safetensors or .npz (default: the initializers').")
@click.option("--target", type=click.Choice(TARGETS), help="Processor to show llvm and asm for (default: host).")
@click.option("-o", "--output", "out", type=OutFile(folder=True), metavar="OUT",
              help="Write there (default: print).")
def dump_command(file: Path, fetch: tuple[str, ...], feed: tuple[str, ...], level: int | None, numerics: str | None,
                 what: str | None, form: str, stage: str | None, wanted: str | None, checkpoint: Path | None,
                 target: str | None, out: Path | None) -> None:
    """Print or draw what the compiler makes of the model in FILE.

    FILE: a model file, or a saved program (.gcx).

    \b
    Examples:
      graphc dump models/mlp.py --pass canonicalise
      graphc dump models/mlp.py --what numba --kernel 0
      graphc dump models/mlp.py --what asm --target x86-64-v3
      graphc dump models/mlp.py --what ir --format html -o mlp.html
      graphc dump models/mlp.py --format onnx -o mlp.onnx
    """
    chosen = choose(file, fetch, feed, level, numerics, checkpoint, target=target)
    if form in EXPORTS:
        _export(chosen, what, form, out)
        return
    what = what or "ir"
    ways = WAYS[what]
    if form not in ways:
        raise click.UsageError(f"{what} cannot be shown as {form}; its formats: {', '.join(ways)}")
    if stage is not None and what != "ir":
        raise click.UsageError("--pass says which ir is shown: it needs --what ir")
    if out is not None and out.is_dir():
        raise click.BadParameter(f"{str(out)!r} is a folder", param_hint="--output")
    compilation = chosen.compilation()
    if what == "graph" and compilation.graph is None:
        raise click.UsageError(f"{file} is a saved program and has no graph; --what ir --pass extract is nearest to it")
    if stage is not None:
        known = tuple(dict.fromkeys(name for name, _ in compilation.runs))
        if stage not in known:
            raise click.BadParameter(near(stage, known, "pass called"), param_hint="--pass")
    text = ways[form](Asked(compilation, file.stem, stage, _chosen(compilation, wanted)))
    if out is None:
        click.echo(text, nl=not text.endswith("\n"))
    else:
        out.write_text(text, encoding="utf-8")


def _export(chosen: Chosen, what: str | None, form: str, out: Path | None) -> None:
    """Write the model for another program."""
    if what not in (None, "graph"):
        raise click.UsageError(f"{form} is a format of graphs, not of {what}")
    if is_saved(chosen.file):
        raise click.UsageError(f"{chosen.file} is a saved program and has no graph")
    if out is None:
        raise click.UsageError(f"{form} is not printed: say with -o where to write it")
    if form == "onnx" and out.is_dir():
        raise click.BadParameter(f"{str(out)!r} is a folder", param_hint="--output")
    EXPORTS[form](chosen.model(), out)


def _chosen(c: Compilation, wanted: str | None) -> tuple[Kernel, ...]:
    """The kernels that --kernel names: by number, or all of that name."""
    if wanted is None:
        return c.kernels
    number = wanted.removeprefix("k")
    if number.isdecimal() and int(number) < len(c.kernels):
        return (c.kernels[int(number)],)
    found = tuple(k for k in c.kernels if k.name == wanted)
    if not found:
        known = tuple(dict.fromkeys(k.name for k in c.kernels))
        last = f"numbers 0 to {len(c.kernels) - 1}"
        told = f"there are {last}" if number.isdecimal() else near(wanted, known, "kernel")
        raise click.BadParameter(told, param_hint="--kernel")
    return found
