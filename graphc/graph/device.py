"""Device names: how nested `tf.device` blocks combine into one.

Owns the parsing and merging of names such as "/job:worker/task:1/device:GPU:0" or "/cpu:0".
Knows no machine: whether a device exists is asked when a program is compiled.
"""
from __future__ import annotations

import re
from typing import TypeAlias

from graphc.errors import GraphError

_PARTS = ("job", "replica", "task", "device")
Parts: TypeAlias = dict[str, str]


def parse(name: str) -> Parts:
    """Return the parts that `name` sets.  Raises GraphError for a name that is none."""
    parts: Parts = {}
    for piece in filter(None, name.split("/")):
        match piece.split(":"):
            case [("job" | "replica" | "task") as key, value]:
                parts[key] = value
            case ["device", kind, number]:
                parts["device"] = f"{kind.upper()}:{number}"
            case [kind, number] if re.fullmatch(r"[A-Za-z_]+", kind) and re.fullmatch(r"\d+|\*", number):
                parts["device"] = f"{kind.upper()}:{number}"
            case _:
                raise GraphError(f"{name!r} does not name a device; examples: '/cpu:0', '/job:worker/device:GPU:1'")
    return parts


def merge(outer: str, inner: str) -> str:
    """Return `outer` overridden by what `inner` sets."""
    parts = parse(outer) | parse(inner)
    return "".join(f"/{key}:{parts[key]}" for key in _PARTS if key in parts)
