"""Where in the user's program something was made.

Owns the capture of the user's line: the innermost frame outside graphc.  Knows nothing else.
Invariant: capturing costs about a microsecond (a walk over frames, no text); the line's text is read
only when an error is printed.
"""

from __future__ import annotations

import linecache
import os
import sys
from dataclasses import dataclass
from types import FrameType

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the user's program: file, line (from 1), and the function it stands in."""

    file: str
    line: int
    function: str

    @property
    def short(self) -> str:
        """`model.py:31`"""
        return f"{os.path.basename(self.file)}:{self.line}"

    @property
    def text(self) -> str:
        """The line itself, or "" where its file cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        inside = f" in {self.function}" if self.function not in ("<module>", "") else ""
        text = self.text
        return f"{self.short}{inside}:   {text}" if text else f"{self.short}{inside}"


UNKNOWN = SourceLine("<unknown>", 0, "")


def is_internal(frame: FrameType) -> bool:
    """Whether `frame` runs code of graphc."""
    return frame.f_code.co_filename.startswith(PACKAGE)


def capture() -> SourceLine:
    """Return the innermost line outside graphc that led here."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return SourceLine(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return UNKNOWN
