"""Errors as the command line tells them.

Owns the text of an error and the exit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted.  Knows which
frames are of no interest to a user.  Invariant: a fault of graphc itself (InternalError) is told with everything that
is needed to report it, in a file where that is long; any other error without graphc's frames.
"""
from __future__ import annotations

import contextlib
import importlib
import runpy
import sys
import sysconfig
import tempfile
import traceback
from pathlib import Path

import click

from graphc import frames, options
from graphc.errors import GraphcError, InternalError
from graphc.source import PACKAGE

FAILED = 1
WRONG = 2
INTERRUPTED = 130

LONGEST = 60  # lines of a fault that are printed

_HIDDEN = ("<frozen runpy>", str(Path(runpy.__file__).resolve()), "<frozen importlib",
           str(Path(importlib.__file__).resolve().parent), str(Path(contextlib.__file__).resolve()),
           str(Path(click.__file__).resolve().parent), str(Path(__file__).parent), f"{PACKAGE}model.py")
"""Files whose frames stand between the command line and the user's code."""


def describe(error: Exception) -> str:
    """Return the error as lines.  Errors of graphc name the user's line themselves: the message alone is enough."""
    if isinstance(error, InternalError) and not options.full_traceback():
        return _fault(error)
    if not options.full_traceback() and not isinstance(error, InternalError):
        if isinstance(error, GraphcError):
            return f"{type(error).__name__}: {error}\n"
        if not _users_frames(error):
            told = "".join(traceback.format_exception_only(error))
            if isinstance(error, (OSError, SyntaxError)):
                return told
            return f"{told}(frames inside graphc are hidden: {frames.FULL})\n"
    return frames.shown(error, _HIDDEN)


def _fault(error: InternalError) -> str:
    """A fault of graphc: whole where it is short, else its first line and the file that holds the rest."""
    text = frames.shown(error, _HIDDEN)
    if text.count("\n") <= LONGEST:
        return text
    descriptor, path = tempfile.mkstemp(prefix="graphc-fault-", suffix=".txt")
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}\n  this is a fault of graphc; what is needed to report it is in {path}\n"


def _users_frames(error: Exception) -> bool:
    """Whether code that is neither graphc's nor a library's was running (a syntax error is told by its own lines)."""
    internal = (PACKAGE, *_HIDDEN, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
    files = (frame.filename for frame in traceback.extract_tb(error.__traceback__))
    return any(not name.startswith(internal) for name in files)


def tell(error: Exception) -> int:
    """Print the error and return the exit code."""
    click.echo(describe(error), err=True, nl=False)
    return FAILED


def interrupted() -> int:
    """Say that the command was interrupted and return the exit code."""
    sys.stdout.flush()
    click.echo("interrupted", err=True)
    return INTERRUPTED
