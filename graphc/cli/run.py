"""`graphc run FILE [ARGUMENTS]`: a script as Python would run it, or a saved program.

Owns how a script is run.  It sets the GRAPHC_* variables that options.py reads, so that a script behaves the same under
`python FILE` with those variables set.  saved.py, imported where it is needed, runs saved programs.
"""
from __future__ import annotations

import importlib
import linecache
import os
import runpy
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from graphc import options
from graphc.cli import failure
from graphc.cli.kind import OutFile, is_saved

SCRIPT_ONLY = ("check_numerics", "dump_passes")
SAVED_ONLY = ("trust", "fetch", "out", "as_json")

_FOR_SAVED = (
    click.Option(["--trust"], is_flag=True, help="Saved programs: run the machine code in FILE, whoever made it."),
    click.Option(["--fetch"], multiple=True, metavar="NAME",
                 help="Saved programs: compute this result (repeatable; default: all)."),
    click.Option(["-o", "--output", "out"], type=OutFile(), metavar="OUT",
                 help="Saved programs: write the results to a .npz or .npy file."),
    click.Option(["--json", "as_json"], is_flag=True,
                 help="Saved programs: print the results as JSON (NaN and infinities as texts)."),
)


def _for_saved(command: click.Command) -> click.Command:
    command.params[-2:-2] = _FOR_SAVED  # before the arguments
    return command


@_for_saved
@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a run (default: all CPUs of this process).")
@click.option("--backend", type=click.Choice(options.BACKENDS), help="What makes the machine code (default: llvm_cpu).")
@click.option("--check-numerics", is_flag=True, help="Stop at the first NaN or Inf, naming the op and the line.")
@click.option("--dump-passes", type=click.Path(file_okay=False), metavar="DIR",
              help="Write there, per program: the graph after each pass, the kernels, the plan, timings.")
@click.option("--full-traceback", is_flag=True, help="Show graphc's own frames in errors too.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run_command(ctx: click.Context, /, threads: int | None, backend: str | None, check_numerics: bool,
                dump_passes: str | None, full_traceback: bool, file: str, arguments: tuple[str, ...],
                **for_saved: Any) -> None:
    """Run a script or model FILE ("-": standard input) as `python FILE ARGUMENTS` would.

    Where FILE is a saved program (.gcx), the ARGUMENTS are its inputs, NAME=FILE.npy, NAME=VALUE (JSON) or FILE.npz,
    and its results are printed.  Its machine code runs where this user compiled it on this machine, or with --trust;
    else it is compiled again from what the file says it computes.

    \b
    Examples:
      graphc run models/mlp.py
      graphc run --threads 1 --dump-passes out models/mlp.py --epochs 2
      graphc run mlp.gcx x=digits.npy
      graphc run mlp.gcx inputs.npz -o results.npz
    """
    chosen: dict[str, object] = {"THREADS": threads, "BACKEND": backend, "DUMP_PASSES": dump_passes}
    chosen |= {"CHECK_NUMERICS": int(check_numerics) or None, "FULL_TRACEBACK": int(full_traceback) or None}
    os.environ.update({f"GRAPHC_{name}": str(value) for name, value in chosen.items() if value is not None})
    if file != "-" and is_saved(Path(file)):
        _refuse(ctx, SCRIPT_ONLY, "is for scripts: what a saved program does is settled")
        _saved(ctx, Path(file), arguments, for_saved)
        return
    _refuse(ctx, SAVED_ONLY, f"is for saved programs, and {file} is none; what the script takes stands behind it")
    sys.argv = [file, *arguments]
    sys.path.insert(0, "" if file == "-" else str(Path(file).resolve().parent))
    try:
        if file == "-":
            _run_text(sys.stdin.read())
        else:
            runpy.run_path(file, run_name="__main__")
    except BrokenPipeError:
        raise
    except Exception as error:
        sys.exit(failure.tell(error))


def _refuse(ctx: click.Context, names: Sequence[str], reason: str) -> None:
    for parameter in ctx.command.params:
        if parameter.name in names and ctx.params[parameter.name]:
            raise click.UsageError(f"{parameter.opts[-1]} {reason}")


def _saved(ctx: click.Context, file: Path, arguments: Sequence[str], given: Mapping[str, Any]) -> None:
    """Run a saved program; its options may stand behind FILE too."""
    name = f"{ctx.command_path} {file}"
    inner = click.Command(name, params=[*_FOR_SAVED, click.Argument(["inputs"], nargs=-1)],
                          help="Run this saved program on INPUTS: NAME=FILE.npy, NAME=VALUE (JSON) or FILE.npz.  "
                               f"`graphc inspect {file}` tells their names and types.")
    late = inner.make_context(name, list(arguments), help_option_names=ctx.help_option_names).params
    both = {name: late[name] or given[name] for name in SAVED_ONLY}
    ctx.meta["command"] = ("graphc run", str(file), *arguments)
    run = importlib.import_module("graphc.cli.saved").run_saved
    run(file, late["inputs"], both["trust"], both["fetch"], both["out"], both["as_json"])


def _run_text(text: str) -> None:
    """Run a script that is not a file; its lines are kept, so that errors can show them."""
    name = "<stdin>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(text, name, "exec"), module.__dict__)
