"""Tracebacks as users see them: without the frames inside graphc.

Owns the one place where frames are hidden: the text of an uncaught error, in scripts (`install`, called when graphc's
language is loaded) and under `graphc run`.  Errors that are caught keep all their frames.  Invariants: errors that
report a fault of graphc itself (InternalError) show everything, and so does everything with GRAPHC_FULL_TRACEBACK=1;
errors that have nothing to do with graphc are printed as ever.
"""
from __future__ import annotations

import sys
import traceback
from types import TracebackType

from graphc import options
from graphc.errors import GraphcError, InternalError
from graphc.source import PACKAGE

_INTERNAL = (PACKAGE, "<runner>", "<sizes>", "<kernel")
"""How the names of graphc's own code begin: its files, and what it generates."""

FULL = "GRAPHC_FULL_TRACEBACK=1 shows them"


def shown(error: BaseException, hidden: tuple[str, ...] = ()) -> str:
    """Return the traceback of `error` as text without graphc's frames, nor those of files that start with one of
    `hidden`; a line tells of hidden frames where the error is not graphc's own."""
    told = traceback.TracebackException.from_exception(error)
    if options.full_traceback() or isinstance(error, InternalError):
        return "".join(told.format())
    link: traceback.TracebackException | None = told
    inside = False
    while link is not None:
        mine = [f for f in link.stack if not f.filename.startswith(hidden)] if hidden else list(link.stack)
        users = [f for f in mine if not f.filename.startswith(_INTERNAL)]
        inside = inside or len(users) < len(mine)
        link.stack = traceback.StackSummary.from_list(users)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    text = "".join(told.format())
    if inside and not isinstance(error, GraphcError):
        text += f"(frames inside graphc are hidden: {FULL})\n"
    return text


def install() -> None:
    """Print uncaught errors of graphc without its frames; every other error goes where it went before."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, GraphcError) and sys.stderr is not None:
            sys.stderr.write(shown(error))
        else:
            before(kind, error, trace)

    sys.excepthook = hook
