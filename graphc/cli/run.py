"""`graphc run FILE [ARGUMENTS]`: a script as Python would run it, or a saved program.

Owns how a script is run and how a saved program is fed from files.  For scripts it sets the GRAPHC_* variables that
options.py reads, so that a script behaves the same under `python FILE` with those variables set.
"""
from __future__ import annotations

import linecache
import os
import runpy
import sys
import types
from pathlib import Path

import click

from graphc import options
from graphc.cli import failure


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a run (default: all CPUs of this process).")
@click.option("--backend", type=click.Choice(options.BACKENDS), help="What makes the machine code (default: llvm_cpu).")
@click.option("--check-numerics", is_flag=True, help="Stop at the first NaN or Inf, naming the op and the line.")
@click.option("--dump-passes", type=click.Path(file_okay=False), metavar="DIR",
              help="Write there, per program: the graph after each pass, the kernels, the plan, timings.")
@click.option("--full-traceback", is_flag=True, help="Show graphc's own frames in errors too.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_command(threads: int | None, backend: str | None, check_numerics: bool, dump_passes: str | None,
                full_traceback: bool, file: str, arguments: tuple[str, ...]) -> None:
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
    except BrokenPipeError:
        raise
    except Exception as error:
        sys.exit(failure.tell(error))


def _run_text(text: str) -> None:
    """Run a script that is not a file; its lines are kept, so that errors can show them."""
    name = "<stdin>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(text, name, "exec"), module.__dict__)
