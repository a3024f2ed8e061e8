"""The text of a Function (.gir): the printer.  parse.py reads it back.

Owns the one text form that dumps, tests, caches and bug reports share (ARCHITECTURE: .gir).  Knows the IR;
runs nothing.  Invariant: `show(parse(show(f))) == show(f)`; equal functions have equal texts (values are numbered
in order, attrs sorted), so the text is also a function's identity.  One thing has no text: a Python function, which a
host call holds, is shown by its name and not read back.

    func @main(%x: float32[N, 784] "x") states(%w: float32[784, 10] "w") {
      source N = %x.axis(0)
      %0 = MatMul(%x, %w) {transpose_a=false, transpose_b=false} : float32[N, 10] from "MatMul"
      return %0 "MatMul:0" updates %w
      line "MatMul" "model.py:12 y = tf.matmul(x, w)"
    }
"""
from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import InternalError
from graphc.ir.dim import Dim
from graphc.ir.function import Function, Value, walk_bodies
from graphc.ir.types import HostType, TensorType

INLINE = 16  # arrays of at most so many elements are written out

BETWEEN = {"equal": "==", "assume": "==", "divides": "by", "at_most": "<="}
RESERVED = frozenset(d.name for d in dtypes.ALL) | {
    "true", "false", "none", "inf", "nan", "array", "host", "python", "by"}

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def show(function: Function, hashed: bool = False) -> str:
    """Return the text of `function` and of the bodies in it, bodies first.

    hashed: long arrays as digests of their bytes, a hundred times shorter to make than base64: enough to tell functions
    apart, but no longer to be parsed.
    """
    order = _bodies_first(function)
    names: dict[int, str] = {}
    taken: set[str] = set()
    for f in order:
        stem = f.name if _NAME.fullmatch(f.name) else re.sub(r"\W", "_", f"f_{f.name}", flags=re.ASCII)
        name, n = stem, 0
        while name in taken:
            n += 1
            name = f"{stem}_{n}"
        taken.add(name)
        names[id(f)] = name
    return "\n".join(_show_one(f, names, hashed) for f in order)


def _bodies_first(function: Function) -> list[Function]:
    """Every function once, each after the bodies it uses."""
    seen: set[int] = set()
    order: list[Function] = []
    stack: list[tuple[Function, bool]] = [(function, False)]
    while stack:
        f, done = stack.pop()
        if done:
            order.append(f)
        elif id(f) not in seen:
            seen.add(id(f))
            stack.append((f, True))
            stack.extend((body, False) for node in reversed(f.nodes) for _, body in reversed(list(node.bodies())))
    return order


def _show_one(f: Function, function_names: Mapping[int, str], hashed: bool) -> str:
    names: dict[Value, str] = {}
    taken: set[str] = set()
    given = [*f.feed_names, *[""] * (len(f.feeds) - len(f.feed_names)), *f.state_names]
    for i, v in enumerate(f.inputs):
        stem = given[i] if i < len(given) else ""
        name = stem if _NAME.fullmatch(stem) and stem not in taken else f"{len(taken)}_in"
        taken.add(name)
        names[v] = name
    out = [f"func @{function_names[id(f)]}({_show_inputs(f.feeds, f.feed_names, names)})"]
    if f.states:
        out[0] += f" states({_show_inputs(f.states, f.state_names, names)})"
    out[0] += " {"
    for s in f.sources:
        what = f"axis({s.axis})" if s.axis >= 0 else f"element({s.element})"
        out.append(f"  source {s.symbol} = %{names[f.feeds[s.feed]]}.{what}")
    for c in f.conditions:
        out.append(f"  {c.kind} {show_attr(c.left)} {BETWEEN[c.kind]} {show_attr(c.right)} "
                   f"{json.dumps(c.message)} at {json.dumps(c.op)}")
    count = 0
    for node in f.nodes:
        for v in node.outputs:
            names[v] = str(count)
            count += 1
        left = ", ".join(f"%{names[v]}" for v in node.outputs)
        args = ", ".join(f"%{names[v]}" for v in node.inputs)
        line = f"  {left} = " if left else "  "
        line += f"{node.op.name}({args})"
        if node.attrs:
            attrs = (f"{k}={show_attr(node.attrs[k], function_names, hashed)}" for k in sorted(node.attrs))
            line += f" {{{', '.join(attrs)}}}"
        if node.outputs:
            line += " : " + ", ".join(str(v.type) for v in node.outputs)
        if node.origin:
            line += " from " + ", ".join(map(json.dumps, node.origin))
        out.append(line)
    last = "  return " + _show_results(f.fetches, f.fetch_names, names)
    if f.updates:
        last += " updates " + ", ".join(f"%{names[v]}" for v in f.updates)
    out.append(last.rstrip())
    out += [f"  line {json.dumps(op)} {json.dumps(f.lines[op])}" for op in sorted(f.lines)]
    return "\n".join(out) + "\n}\n"


def _show_inputs(values: tuple[Value, ...], given: tuple[str, ...], names: Mapping[Value, str]) -> str:
    if not given:
        return ", ".join(f"%{names[v]}: {v.type}" for v in values)
    return ", ".join(f"%{names[v]}: {v.type} {json.dumps(g)}" for v, g in zip(values, given, strict=True))


def _show_results(values: tuple[Value, ...], given: tuple[str, ...], names: Mapping[Value, str]) -> str:
    if not given:
        return ", ".join(f"%{names[v]}" for v in values)
    return ", ".join(f"%{names[v]} {json.dumps(g)}" for v, g in zip(values, given, strict=True))


def show_attr(value: Any, function_names: Mapping[int, str] | None = None, hashed: bool = False) -> str:
    """Return the text of an attr's value.  Raises InternalError for what is not plain data."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "none"
        case int():
            return str(value)
        case float():
            return repr(value)
        case str():
            return json.dumps(value)
        case dtypes.DType():
            return value.name
        case Dim():
            return str(value)
        case TensorType() | HostType():
            return f"<{value}>"
        case tuple():
            inside = ", ".join(show_attr(v, function_names, hashed) for v in value)
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        case np.ndarray():
            return _show_array(value, hashed)
        case Function():
            if function_names is None or id(value) not in function_names:
                raise InternalError("a body has a text only within its function")
            return f"@{function_names[id(value)]}"
    if callable(value):
        return f"python {json.dumps(getattr(value, '__qualname__', type(value).__name__))}"
    raise InternalError(f"an attr of type {type(value).__name__} has no text")


def _show_array(array: np.ndarray[Any, Any], hashed: bool) -> str:
    """`array float32[2] (1.0, 2.0)`; `... all 0.0` where every bit pattern is the same; else base64 of the bytes, or
    their digest."""
    dtype = dtypes.as_dtype(array.dtype)
    head = f"array {dtype.name}[{', '.join(map(str, array.shape))}]"
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.size <= INLINE and _exact(flat):
        inside = ", ".join(map(_show_element, flat))
        return f"{head} ({inside},)" if flat.size == 1 else f"{head} ({inside})"
    if flat.size > INLINE and _exact(flat[:1]):
        bits = flat.view(f"u{flat.dtype.itemsize}")
        if bits[0] == bits[1] and (bits == bits[0]).all():
            return f"{head} all {_show_element(flat[0])}"
    content = flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    if hashed:
        return f"{head} sha256 {hashlib.sha256(content.data).hexdigest()}"
    return f"{head} base64 {json.dumps(base64.b64encode(content.data).decode())}"


def _show_element(value: Any) -> str:
    if isinstance(value, np.floating):
        short = str(value)
        if "." not in short and "e" not in short and short.lstrip("-") not in ("inf", "nan"):
            short += ".0"
        return short if type(value)(float(short)).tobytes() == value.tobytes() else repr(float(value))
    return show_attr(value.item())


def _exact(values: np.ndarray[Any, Any]) -> bool:
    """Whether decimal texts give every bit back: all but the unusual NaNs."""
    if values.dtype.kind != "f":
        return True
    nan = np.array(math.nan, values.dtype).tobytes()
    return all(v.tobytes() == nan for v in values[np.isnan(values)])


def same(a: Function, b: Function) -> bool:
    """Whether two functions are equal in everything that their texts say."""
    return show(a) == show(b)


def count_nodes(function: Function) -> int:
    """Return the number of nodes of `function`, those of its bodies included."""
    return sum(len(f.nodes) for f in walk_bodies([function]))
