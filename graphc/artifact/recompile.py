"""Compiling a saved program again, from its IR.

Owns the reading of IR from files that nobody vouches for.  Knows the IR and the compiler, and is imported by load.py
only where a program is compiled.  Invariants: IR cannot execute anything but itself: it is parsed into ops of the
registry, host calls are refused, and the verifier passes it before any pass sees it; its constants take no more memory
than its text and a limit.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

import numpy as np

from graphc.compiler import BACKENDS, Compiled, compile_function, load_backend
from graphc.errors import GraphcError, ProgramFileError
from graphc.ir.function import Function, walk_bodies
from graphc.ir.parse import parse
from graphc.ir.types import HostType
from graphc.ir.verify import verify
from graphc.kernel.target import Target
from graphc.ops.base import Kind
from graphc.options import Options

if TYPE_CHECKING:
    from graphc.backends.llvm_cpu.codegen import LlvmCpu

CONSTANT_LIMIT = 1 << 28  # bytes of constants beyond those that the text writes out


def read_function(text: bytes | memoryview) -> Function:
    """Return the function of IR text.  Raises ProgramFileError for whatever is not a program that may be compiled."""
    try:
        function = verify(parse(bytes(text).decode()))
    except UnicodeDecodeError:
        raise ProgramFileError("the IR is not UTF-8 text") from None
    except GraphcError as error:
        raise ProgramFileError(f"the IR is not valid: {error}") from None
    except Exception as error:  # an op's inference on attrs of any kind
        raise ProgramFileError(f"the IR is not valid: {error!r}") from error
    constants = 0
    for body in walk_bodies([function]):
        for node in body.nodes:
            if node.op.kind is Kind.HOST:
                raise ProgramFileError(f"the IR calls Python ({node.op.name}), which a saved program must not")
            constants += sum(a.nbytes for a in node.attrs.values() if isinstance(a, np.ndarray))
    if any(isinstance(v.type, HostType) for v in (*function.inputs, *function.fetches)):
        raise ProgramFileError("the IR takes or gives values of Python")
    if constants > CONSTANT_LIMIT + len(text):  # what the text writes out has paid for itself
        raise ProgramFileError(f"the constants of the IR take {constants} bytes, more than {CONSTANT_LIMIT}")
    return function


def recompile(text: bytes | memoryview, options: Options) -> Compiled:
    """Return the program of IR text, compiled for this machine.  Raises ProgramFileError, BackendError, PassError."""
    function = read_function(text)
    try:
        return compile_function(function, options, function.fetch_names)
    except GraphcError:
        raise
    except Exception as error:  # a function that is valid and that nobody would write
        raise ProgramFileError(f"the IR cannot be compiled: {error!r}") from error


def processor_of(options: Options) -> Target:
    """Return the machine that `options.target` names.  Raises ValueError for an unknown name."""
    return cast("LlvmCpu", load_backend("llvm_cpu")).target(options)


def llvm_version() -> str:
    """Return the version of LLVM that compiles here."""
    return str(importlib.import_module(BACKENDS["llvm_cpu"][0]).VERSION)
