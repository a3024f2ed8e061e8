"""The command line: `graphc run FILE [ARGS]`.

Owns what a person types and sees.  It sets the GRAPHC_* variables that options.py reads, so that a script behaves the
same under `python FILE` with those variables set.  Knows nothing of how graphs are compiled.
Exit codes: 0 done, 1 the script failed, 2 the command line is wrong, 130 interrupted.
"""
from __future__ import annotations

import os
import runpy
import sys
import traceback
from pathlib import Path

import click

from graphc import errors, options

_PACKAGE = str(Path(__file__).resolve().parent) + os.sep
_HIDDEN = (_PACKAGE, "<frozen runpy>", str(Path(runpy.__file__).resolve()), str(Path(click.__file__).resolve().parent))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graphc", message="graphc %(version)s")
def main() -> None:
    """Compile and run TensorFlow-1-style graphs as native code."""


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a run (default: all CPUs this process may use).")
@click.option("--backend", type=click.Choice(options.BACKENDS), help="What makes the machine code (default: llvm_cpu).")
@click.option("--check-numerics", is_flag=True, help="Stop at the first NaN or Inf, naming the op and the line.")
@click.option("--dump-passes", type=click.Path(file_okay=False), metavar="DIR",
              help="Write the graph after each pass, the kernels and the plan there.")
@click.option("--full-traceback", is_flag=True, help="Show graphc's own frames in errors too.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(threads: int | None, backend: str | None, check_numerics: bool, dump_passes: str | None, full_traceback: bool,
        file: str, arguments: tuple[str, ...]) -> None:
    """Run a script or model FILE as `python FILE ARGUMENTS` would.

    \b
    graphc run models/mlp.py
    graphc run --threads 1 --dump-passes out models/mlp.py --epochs 2
    """
    chosen = {"GRAPHC_THREADS": threads, "GRAPHC_BACKEND": backend, "GRAPHC_CHECK_NUMERICS": 1 if check_numerics else None,
              "GRAPHC_DUMP_PASSES": dump_passes}
    os.environ.update({name: str(value) for name, value in chosen.items() if value is not None})
    sys.argv = [file, *arguments]
    sys.path.insert(0, str(Path(file).resolve().parent))
    try:
        runpy.run_path(file, run_name="__main__")
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        click.echo(_describe(error, full_traceback), err=True, nl=False)
        sys.exit(1)


def _describe(error: Exception, full: bool) -> str:
    """Return the error as text: the user's own frames and the message; for graphc's errors, which name the user's
    line themselves, the message alone."""
    told = traceback.TracebackException.from_exception(error)
    if full:
        return "".join(told.format())
    if isinstance(error, errors.GraphcError):
        return f"{type(error).__name__}: {error}\n"
    link: traceback.TracebackException | None = told
    while link is not None:
        link.stack = traceback.StackSummary.from_list([f for f in link.stack if not f.filename.startswith(_HIDDEN)])
        link = link.__cause__ or link.__context__
    return "".join(told.format())
