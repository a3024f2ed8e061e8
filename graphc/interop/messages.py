"""Early returns in native code, and the texts that say why.

Owns C strings in LLVM modules, the form of messages, and the words in which a function is left.  Knows printf's
formats; must not know what goes wrong.  Invariant: a text never grows beyond TEXT_BYTES, and always ends.
"""
from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

from graphc.backends.llvm_cpu.builder import Builder, Module, Value

TEXT_BYTES = 1024  # of an error's text, the final 0 included


def text(module: Module, content: str) -> str:
    """Return the name of a constant that holds `content` as a C string."""
    raw = content.encode() + b"\0"
    plain = "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\{c:02X}" for c in raw)
    name = f"@text_{hashlib.sha256(raw).hexdigest()[:16]}"
    module.constants[name] = f'{name} = private unnamed_addr constant [{len(raw)} x i8] c"{plain}"\n'
    return name


def null(b: Builder) -> Value:
    """Return the null pointer."""
    return Value(b, "null", "ptr")


@contextmanager
def leaving(b: Builder, condition: Value, result: Value | int) -> Iterator[None]:
    """Where the condition holds, do what is built inside and return `result` (an int: as i32)."""
    out, stay = b.new_block(), b.new_block()
    b.branch_if(condition, out, stay)
    b.start_block(out)
    yield
    b.ret(result if isinstance(result, Value) else b.const(result, "i32"))
    b.start_block(stay)


def leave(b: Builder, condition: Value, result: Value | int) -> None:
    """Where the condition holds, return `result`."""
    with leaving(b, condition, result):
        pass


def tell(b: Builder, where: Value, form: str, *values: Value) -> None:
    """Write a text to `where`, TEXT_BYTES or a null pointer.  form: as of printf, %lld for each of `values` (i64)."""
    b.module.declarations["snprintf"] = "declare i32 @snprintf(ptr, i64, ptr, ...)\n"
    space = b.select(where.eq(null(b)), b.i64(0), b.i64(TEXT_BYTES))
    operands = "".join(f", {v.typed}" for v in values)
    b.line(f"call i32 (ptr, i64, ptr, ...) @snprintf({where.typed}, {space.typed}, ptr {text(b.module, form)}"
           f"{operands})")


def named(op: str, message: str) -> str:
    """Return `message` with the op's name in front, where it does not begin with a name already."""
    return message if re.match(r"[\w./]+: ", message) else f"{op}: {message}"


def escaped(content: str) -> str:
    """Return `content` as printf prints it."""
    return content.replace("%", "%%")
