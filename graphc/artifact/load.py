"""Running a saved program without the compiler."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.artifact.contents import SavedSignature
from graphc.errors import ProgramFileError


@dataclass(eq=False)
class LoadedProgram:
    """A saved program, ready to run.

    signature: what it is called with and gives back.  origin: where its machine code comes from, as text.
    """

    signature: SavedSignature
    origin: str

    @property
    def variables(self) -> dict[str, np.ndarray[Any, Any]]:
        """The variables' values now, by name: copies."""
        raise ProgramFileError("programs cannot be run yet")

    def run(self, fetches: Any = None, feed_dict: Mapping[str, Any] | None = None) -> Any:
        """Run the program once and return the values of `fetches`.

        fetches: names of results (of the signature or of the graph's tensors), nested in lists, tuples and dicts; None:
        all, as __call__ returns them.  feed_dict: name of an input (of the signature or of the graph) -> value.
        """
        raise ProgramFileError("programs cannot be run yet")

    def __call__(self, **inputs: Any) -> Any:
        """Run the program once on `inputs`; return its only result, or a dict of its results by name."""
        return self.run(None, inputs)


def load(path: str | Path, trust: bool = False) -> LoadedProgram:
    """Return the saved program in the file `path`.

    trust: run the machine code in the file even where this user did not compile it on this machine.  Otherwise, and
    where the file has no code for this processor, the program is compiled again from its IR.
    Raises ProgramFileError with the reason where the file is damaged or cannot be run here; OSError.
    """
    raise ProgramFileError(f"{path}: programs cannot be run yet")
