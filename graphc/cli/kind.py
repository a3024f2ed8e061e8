"""What a file on the command line is: a saved program, or a Python file."""
from __future__ import annotations

from pathlib import Path

from graphc.artifact.format import MAGIC


def is_saved(file: Path) -> bool:
    """Whether `file` is a saved program, or is named as one."""
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC or file.suffix == ".gcx"
