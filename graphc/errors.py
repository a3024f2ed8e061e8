"""Every error that graphc raises on purpose, and the one form they are printed in.

Owns the classes and `Report`, which says what went wrong (in the user's names and sizes), where (the
user's line) and what to do.  Knows nothing of graphs: those who raise fill the report in.
Invariant: the classes follow TensorFlow 1 where scripts rely on them (ValueError for shapes, TypeError
for dtypes, `tf.errors.*` with `.op`, `.message`, `.error_code` for failures of a run).

    ShapeError: matmul: inner sizes differ, (64, 128) @ (64, 10): 128 != 64
      at model.py:31 in mlp:   h = tf.matmul(x, w2)
      x:  float32 (64, 128)  placeholder "x", model.py:12
      hint: pass transpose_b, or give w2 the shape (128, 10)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def report(
    what: str, where: str | None = None, operands: Sequence[tuple[str, str]] = (), hint: str | None = None
) -> str:
    """Return the text of an error: what, then where, the operands as (name, description), a hint."""
    lines = [what]
    if where:
        lines.append(f"  at {where}")
    width = max((len(name) for name, _ in operands), default=0) + 1
    lines += [f"  {name + ':':<{width}} {text}" for name, text in operands]
    if hint:
        lines.append(f"  hint: {hint}")
    return "\n".join(lines)


class GraphcError(Exception):
    """Base of all errors of graphc."""


class ShapeError(GraphcError, ValueError):
    """Shapes do not fit together."""


class DTypeError(GraphcError, TypeError):
    """Element types do not fit together."""


class GraphError(GraphcError, ValueError):
    """A graph is used wrongly: another graph's tensor, a finalized graph, an unknown name."""


class FinalizedGraphError(GraphError, RuntimeError):
    """A finalized graph is to be changed (RuntimeError, as TensorFlow 1 raises)."""


class SessionError(GraphcError, RuntimeError):
    """A session is used after it was closed, or has nothing to run (RuntimeError, as TensorFlow 1 raises)."""


class FetchError(GraphcError, TypeError):
    """A fetch or a feed is of a kind that cannot be fetched or fed."""


class GradientError(GraphcError, LookupError):
    """An op on the path has no gradient."""


class InternalError(GraphcError, RuntimeError):
    """graphc broke one of its own rules; the message holds what is needed to report it."""


class KernelError(InternalError):
    """A kernel is not well formed."""


class VerifyError(InternalError):
    """A function of the IR is not well formed."""


class PassError(InternalError):
    """A pass crashed or gave invalid IR; the message names the pass and holds the last valid IR."""


class BackendError(GraphcError, RuntimeError):
    """A backend or device cannot do what was asked of it."""


class ParseError(GraphcError, ValueError):
    """A text is not valid .gir; the message gives line and column."""


class ModelError(GraphcError, ValueError):
    """A file is no model, or its signature or checkpoint does not fit its graph."""


class ProgramFileError(GraphcError, ValueError):
    """A saved program cannot be written, read or run; the message says why and what would help."""


class OpError(GraphcError):
    """A failure of `Session.run`.  Source: tf.errors.OpError.

    op: the Operation that failed, or None.  message: the whole text.  error_code: TF's number.
    """

    code = 2

    def __init__(self, node_def: Any, op: Any, message: str, error_code: int | None = None) -> None:
        super().__init__(message)
        self._node_def = node_def
        self._op = op
        self._message = message
        self._error_code = self.code if error_code is None else error_code

    @property
    def node_def(self) -> Any:
        return self._node_def

    @property
    def op(self) -> Any:
        return self._op

    @property
    def message(self) -> str:
        return self._message

    @property
    def error_code(self) -> int:
        return self._error_code

    def __str__(self) -> str:
        return self._message


class CancelledError(OpError):
    """The run was cancelled."""

    code = 1


class UnknownError(OpError):
    """A failure of unknown cause."""

    code = 2


class InvalidArgumentError(OpError):
    """A value met at run time is not allowed: an index out of range, a NaN where none may be."""

    code = 3


class DeadlineExceededError(OpError):
    """A time limit passed."""

    code = 4


class NotFoundError(OpError):
    """A file or a name does not exist."""

    code = 5


class AlreadyExistsError(OpError):
    """Something to be made exists already."""

    code = 6


class PermissionDeniedError(OpError):
    """The caller may not do this."""

    code = 7


class ResourceExhaustedError(OpError):
    """Memory, or another resource, is used up."""

    code = 8


class FailedPreconditionError(OpError):
    """A variable is read before it was initialised, or a graph's state does not allow the run."""

    code = 9


class AbortedError(OpError):
    """The run was aborted."""

    code = 10


class OutOfRangeError(OpError):
    """An iterator or a queue has ended."""

    code = 11


class UnimplementedError(OpError):
    """An op does not support what was asked of it."""

    code = 12


class InternalOpError(OpError):
    """An invariant of the run was broken."""

    code = 13


class UnavailableError(OpError):
    """A device is not available."""

    code = 14


class DataLossError(OpError):
    """A file is damaged."""

    code = 15
