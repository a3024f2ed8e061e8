"""Buffers with fewer axes: `x[e // c, e % c]` becomes `x[e]`.

Owns that one rewriting, which makes a product that reads or writes through a reshape walk through memory by strides.
Knows kernel IR alone.  Invariant: an access reaches the element that it reached before; a buffer changes only if all
of its accesses allow it.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.kernel import walk
from graphc.kernel.ir import Contract, Expr, For, If, Load, Param, Prim, Reduce, Scan, Scatter, Stmt, Store, While

Index = tuple[Expr, ...]


def flatten(params: Sequence[Param], body: walk.Block) -> tuple[list[Param], walk.Block]:
    """Return parameters and body with neighbouring axes merged that are quotient and remainder of one index."""
    found: list[Param] = []
    for p in params:
        at = len(p.shape) - 2
        while at >= 0:
            if _merges(p, at, body):
                body = _merged(body, p.name, at)
                p = replace(p, shape=(*p.shape[:at], p.shape[at] * p.shape[at + 1], *p.shape[at + 2:]))
            at = min(at, len(p.shape) - 1) - 1
        found.append(p)
    return found, body


def _merges(p: Param, at: int, body: walk.Block) -> bool:
    accesses = [e.index for e in walk.loads(body) if e.buffer == p.name]
    accesses += [s.index for s in walk.stores(body) if s.buffer == p.name]
    return bool(accesses) and all(_is_pair(i[at], i[at + 1], p, at) for i in accesses)


def _is_pair(outer: Expr, inner: Expr, p: Param, at: int) -> bool:
    match outer, inner:
        case Prim(op="floordiv", args=(x, by)), Prim(op="floormod", args=(y, modulus)):
            return x == y and walk.as_size(by) == walk.as_size(modulus) == p.shape[at + 1]
        case _:
            return False


def _merged(body: walk.Block, buffer: str, at: int) -> walk.Block:
    def index(i: Index) -> Index:
        whole = i[at]
        assert isinstance(whole, Prim)
        return (*i[:at], whole.args[0], *i[at + 2:])

    def access(e: Expr) -> Expr:
        return replace(e, index=index(e.index)) if isinstance(e, Load) and e.buffer == buffer else e

    def store(s: Stmt) -> Stmt:
        match s:
            case Store() | Scatter() if s.buffer == buffer:
                return replace(s, index=index(s.index))
            case For() | Reduce() | While() | Contract():
                return replace(s, body=stores(s.body))
            case Scan():
                return replace(s, body=stores(s.body), then=stores(s.then))
            case If():
                return replace(s, then=stores(s.then), orelse=stores(s.orelse))
            case _:
                return s

    def stores(block: walk.Block) -> walk.Block:
        return tuple(map(store, block))

    return walk.map_expressions(stores(body), lambda e: walk.map_expr(e, access))
