"""Saving a program: the model's signature compiled for one or several processors, with its weights, in one file."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphc.errors import ProgramFileError
from graphc.model import Model
from graphc.options import Options


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written.

    bytes: of the whole file; sections: (name, bytes) in order.  targets: the processors it holds machine code for.
    variants: programs in it, one per pattern of sizes that are 1; left_out: how many more there would be.
    kernels: of the first variant.  seconds: (stage, time) in order.  digest: what the file is known by when it is
    trusted.
    """

    path: str
    bytes: int
    sections: tuple[tuple[str, int], ...]
    targets: tuple[str, ...]
    variants: int
    left_out: int
    kernels: int
    seconds: tuple[tuple[str, float], ...]
    digest: str


def save(path: str | Path, model: Model, options: Options | None = None, targets: Sequence[str] = ("host",)) -> Saved:
    """Write `model` as a saved program and return what was written.

    options: None means those of the environment.  targets: names of processors as of Options.target; none at all makes
    a file without machine code.  Raises ProgramFileError for what cannot be saved (host calls, a free rank, a variable
    without a value), the user's errors of extraction, BackendError, OSError.
    """
    raise ProgramFileError(f"{path}: programs cannot be saved yet")
