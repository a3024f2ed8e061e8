"""What files on the command line are: saved programs or Python files; and files to be written."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from graphc.artifact.format import MAGIC


def is_saved(file: Path) -> bool:
    """Whether `file` is a saved program, or is named as one."""
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC or file.suffix == ".gcx"


class OutFile(click.Path):
    """A file to be written, in a folder that exists.  folder: it may be a folder itself."""

    def __init__(self, folder: bool = False) -> None:
        super().__init__(dir_okay=folder, path_type=Path)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"the folder {str(path.parent)!r} does not exist", param, ctx)
        return path
