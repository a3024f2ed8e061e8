"""Options that several commands share, and what they mean: a model file, its ends, the settings under them.

Owns the way from FILE to a model or a compilation.  Invariant: commands that take a model take it by the same options.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from graphc.artifact.contents import ir_section
from graphc.artifact.format import read_file
from graphc.artifact.load import Contents, read_contents
from graphc.artifact.recompile import read_function
from graphc.cli.environment import environment
from graphc.cli.kind import is_saved
from graphc.errors import ProgramFileError
from graphc.graph.graph import near_names
from graphc.inspection.compilation import Compilation, record, record_function
from graphc.kernel.target import NAMED
from graphc.model import Model, load_model
from graphc.options import Options
from graphc.runtime.cache import store_in

F = TypeVar("F", bound=Callable[..., Any])

TARGETS = ("host", *NAMED)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the shared options say: the ends of the model, its checkpoint, and how it is compiled."""

    file: Path
    fetch: tuple[str, ...]
    feed: tuple[str, ...]
    checkpoint: Path | None
    options: Options

    def model(self) -> Model:
        """Return the model in the file.  Raises its errors."""
        return load_model(self.file, fetches=self.fetch, feeds=self.feed, checkpoint=self.checkpoint)

    def compilation(self) -> Compilation:
        """Return the recorded compilation of the model, or of the saved program."""
        return self._saved() if is_saved(self.file) else record(self.model(), options=self.options)

    def _saved(self) -> Compilation:
        """The compilation of a saved program's IR, with the options that say what it computes."""
        if self.fetch or self.feed:
            raise click.UsageError(f"{self.file} is a saved program, whose inputs and results are settled: "
                                   "--fetch and --feed are for model files")
        contents, _ = read_saved(self.file)
        try:
            function = read_function(contents.sections[ir_section(0)])
        except ProgramFileError as error:
            raise ProgramFileError(f"{self.file}: {error}") from None
        header = contents.header
        own = self.options
        options = header.options.replace(target=own.target, threads=own.threads, cache_dir=own.cache_dir)
        ports = (*header.signature.inputs, *header.signature.outputs)
        return record_function(function, options, {p.tensor.removesuffix(":0"): p.name for p in ports},
                               header.signature.targets)


def read_saved(file: Path) -> tuple[Contents, bool]:
    """Return what is in a saved program, and whether its machine code is trusted.  Raises ProgramFileError."""
    container = read_file(file)
    trusted = store_in(environment().cache_path).get("trusted", container.digest) is not None
    try:
        return read_contents(container), trusted
    except ProgramFileError as error:
        raise ProgramFileError(f"{file}: {error}") from None


def model_options(command: F) -> F:
    """Give a command the argument FILE and the options --fetch, --feed, --level and --numerics."""
    added = (
        click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option("--fetch", multiple=True, metavar="NAME",
                     help="Compute this: a result, an operation or a tensor by name (repeatable)."),
        click.option("--feed", multiple=True, metavar="NAME",
                     help="Feed this: an input or a tensor by name (repeatable)."),
        click.option("--level", type=click.IntRange(0, 2), help="Optimisation level (default: 2)."),
        click.option("--numerics", type=click.Choice(("default", "strict", "fast")),
                     help="strict: keep every bit; fast: also what holds for finite values alone."),
    )
    for add in reversed(added):
        command = add(command)
    return command


def choose(file: Path, fetch: tuple[str, ...], feed: tuple[str, ...], level: int | None, numerics: str | None,
           checkpoint: Path | None = None, **more: Any) -> Chosen:
    """Return what the shared options say.  more: further fields of Options."""
    given = {"level": level, "numerics": numerics} | more
    chosen = environment().replace(**{name: value for name, value in given.items() if value is not None})
    return Chosen(file, fetch, feed, checkpoint, chosen)


def near(name: str, known: tuple[str, ...], what: str) -> str:
    """Return the text of an error about an unknown name: with the nearest, else with all."""
    found = near_names(name, known, 1)
    told = f"did you mean {found[0]!r}?" if found else f"there are {', '.join(known)}"
    return f"there is no {what} {name!r}; {told}"
