"""The command line: `graphc run FILE [ARGS]`.

Owns what a person types and sees.  It sets the GRAPHC_* variables that options.py reads, so that a script behaves the
same under `python FILE` with those variables set.  Knows nothing of how graphs are compiled.
Exit codes: 0 done, 1 the script failed, 2 the command line is wrong, 130 interrupted; what the script itself exits with
is passed on.
"""
from __future__ import annotations

import linecache
import os
import runpy
import sys
import types
from pathlib import Path

import click

from graphc import frames, options
from graphc.errors import GraphcError, InternalError

_HIDDEN = ("<frozen runpy>", __file__, str(Path(runpy.__file__).resolve()), str(Path(click.__file__).resolve().parent))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graphc", message="graphc %(version)s")
def main() -> None:
    """Compile and run TensorFlow-1-style graphs as native code."""


@main.command(context_settings={"allow_interspersed_args": False})
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a run (default: all CPUs of this process).")
@click.option("--backend", type=click.Choice(options.BACKENDS), help="What makes the machine code (default: llvm_cpu).")
@click.option("--check-numerics", is_flag=True, help="Stop at the first NaN or Inf, naming the op and the line.")
@click.option("--dump-passes", type=click.Path(file_okay=False), metavar="DIR",
              help="Write there, per program: the graph after each pass, the kernels, the plan, timings.")
@click.option("--full-traceback", is_flag=True, help="Show graphc's own frames in errors too.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(threads: int | None, backend: str | None, check_numerics: bool, dump_passes: str | None, full_traceback: bool,
        file: str, arguments: tuple[str, ...]) -> None:
    """Run a script or model FILE ("-": standard input) as `python FILE ARGUMENTS` would.

    \b
    graphc run models/mlp.py
    graphc run --threads 1 --dump-passes out models/mlp.py --epochs 2
    """
    chosen: dict[str, object] = {"THREADS": threads, "BACKEND": backend, "DUMP_PASSES": dump_passes}
    chosen |= {"CHECK_NUMERICS": int(check_numerics) or None, "FULL_TRACEBACK": int(full_traceback) or None}
    os.environ.update({f"GRAPHC_{name}": str(value) for name, value in chosen.items() if value is not None})
    sys.argv = [file, *arguments]
    sys.path.insert(0, "" if file == "-" else str(Path(file).resolve().parent))
    try:
        if file == "-":
            _run_text(sys.stdin.read())
        else:
            runpy.run_path(file, run_name="__main__")
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        click.echo(_describe(error), err=True, nl=False)
        sys.exit(1)


def _run_text(text: str) -> None:
    """Run a script that is not a file; its lines are kept, so that errors can show them."""
    name = "<stdin>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(text, name, "exec"), module.__dict__)


def _describe(error: Exception) -> str:
    """Return the error as text.  Errors of graphc name the user's line themselves: the message alone is enough."""
    if isinstance(error, GraphcError) and not isinstance(error, InternalError) and not options.full_traceback():
        return f"{type(error).__name__}: {error}\n"
    return frames.shown(error, _HIDDEN)
