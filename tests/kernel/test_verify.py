"""The verifier: every sample passes; one small wrong kernel for each rule, with the message it must get."""
from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.dtypes import bool_, float16, float32, float64, int32, int64
from graphc.errors import KernelError
from graphc.ir.dim import symbol
from graphc.kernel.ir import (
    Axis,
    Const,
    Contract,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Param,
    Prim,
    Reduce,
    Scan,
    Scatter,
    Site,
    SizeOf,
    Stmt,
    Store,
    Var,
    While,
    const,
    index,
    size,
)
from graphc.kernel.primitives import prim
from graphc.kernel.verify import verify
from tests.backends.kernels import SAMPLES

N, M = symbol("n0"), symbol("m")
i, j, k = Axis("i"), Axis("j"), Axis("k")
X = Param("x", float32, (N, 4), "in")
Y = Param("y", float32, (N, 4), "out")
x = Load("x", (i, j), float32)
put = Store("y", (i, j), x)
one = const(1.0, float32)


def rows(*body: Stmt, axis: str = "i", parallel: bool = True) -> Stmt:
    return For(axis, size(N), body, parallel)


def kernel(*body: Stmt, **changes: object) -> Kernel:
    whole = Kernel("k", (X, Y), ("n0",), body)
    return replace(whole, **changes)  # type: ignore[arg-type]


def inner(*body: Stmt) -> Kernel:
    """Return a kernel that stores all of y after `body` has run for each row."""
    return kernel(rows(*body, For("j", index(4), (put,))))


def contract(body: Stmt, a: Expr | None = None, b: Expr | None = None) -> Kernel:
    """Return y[i, j] = sum over k of x[i, k] * x[j, k], changed."""
    return kernel(Contract((), (("i", size(N)),), (("j", index(4)),), (("k", index(4)),),
                           a or Load("x", (i, k), float32), b or Load("x", (j, k), float32), "acc", float32, (body,)))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_well_formed(name: str) -> None:
    verify(SAMPLES[name].kernel)


def test_well_formed() -> None:
    verify(inner())
    verify(contract(Store("y", (i, j), Var("acc", float32))))


WRONG: dict[str, tuple[Kernel, str]] = {
    "unbound axis": (kernel(rows(put)), "j is not bound here"),
    "unbound name": (inner(Let("t", Var("u", float32))), "u is not bound here"),
    "use before": (inner(Let("t", Var("u", float32)), Let("u", one)), "u is not bound here"),
    "bound inside": (inner(If(Const(True, bool_), (Let("t", one),)), Let("u", Var("t", float32))), "t is not bound"),
    "twice": (inner(Let("t", one), Let("t", one)), "t is bound twice"),
    "shadowed axis": (kernel(rows(For("i", index(4), (Store("y", (i, i), one),)))), "i is bound twice"),
    "named as a buffer": (inner(Let("x", one)), "x is bound twice"),
    "named as a size": (inner(Let("n0", one)), "n0 is bound twice"),
    "wrong type of use": (inner(Let("t", one), Let("u", Var("t", float64))), "t is f32, used as f64"),
    "too few indices": (inner(Store("y", (i,), one)), "y has 2 axes and is indexed by 1"),
    "index not int64": (inner(Let("t", Load("x", (const(0, int32), i), float32))), "0:i32 of x is i32, not i64"),
    "no buffer": (inner(Let("t", Load("z", (i,), float32))), "there is no buffer z"),
    "load dtype": (inner(Let("t", Load("x", (i, index(0)), float64))), "x is f32, loaded as f64"),
    "half a predicate": (inner(Let("t", Load("x", (i, index(0)), float32, Const(True, bool_)))), "not both"),
    "other value": (inner(Let("t", Load("x", (i, index(0)), float32, Const(True, bool_), index(0)))), "i64, not f32"),
    "stored input": (inner(Store("x", (i, index(0)), one)), "x is an input and cannot be stored"),
    "stored dtype": (inner(Store("y", (i, index(0)), index(1))), "1 is i64, not f32"),
    "never stored": (kernel(rows(Let("t", one))), "out parameter y is never stored"),
    "predicate": (inner(Store("y", (i, index(0)), one, one)), "1.0 is f32, not bool"),
    "size": (inner(Let("t", SizeOf(M))), "size m is not among the kernel's sizes"),
    "size of a parameter": (replace(inner(), params=(X, Y, Param("z", float32, (M,), "in"))), "size m is not among"),
    "role": (replace(inner(), params=(X, Y, Param("z", float32, (), "const"))), "z has the role 'const'"),
    "same names": (replace(inner(), params=(X, Y, Y)), "have the same name"),
    "site": (inner(Let("t", Guard(one, Const(True, bool_), one, 0))), "guard names the site 0 of 0"),
    "site kind": (replace(inner(), sites=(Site("oops", "", ""),)), "a site has the kind 'oops'"),
    "alias": (replace(inner(), aliases=(("x", "y"),)), "alias x = y is not between an output and an input"),
    "primitive": (inner(Let("t", Prim("tanhh", (one,), float32))), "no primitive 'tanhh'"),
    "arity": (inner(Let("t", Prim("exp", (one, one), float32))), "exp takes 1 argument"),
    "kinds": (inner(Let("t", Prim("exp", (index(1),), int64))), "exp cannot take int64"),
    "half arithmetic": (inner(Let("t", Prim("exp", (Const(1.0, float16),), float16))), "cannot compute in float16"),
    "result": (inner(Let("t", Prim("lt", (one, one), float32))), "lt of f32 is not f32"),
    "bitcast": (inner(Let("t", Prim("bitcast", (one,), int64))), "changes the width"),
    "literal": (inner(Let("t", Const(300, int32)), Let("u", Const(1 << 40, int32))), "not a value of i32"),
    "literal kind": (inner(Let("t", Const(1, float32))), "1 is not a value of f32"),
    "combiner": (inner(Reduce(("s",), ("mean",), "j", index(4), (), (x,))), "no combiner 'mean'"),
    "states": (inner(Reduce(("s",), ("argmax",), "j", index(4), (), (x,))), "take 2 names and values"),
    "argmax index": (inner(Reduce(("s", "t"), ("argmax",), "j", index(4), (), (x, x))), "index of argmax is f32"),
    "any of floats": (inner(Reduce(("s",), ("any",), "j", index(4), (), (x,))), "any cannot take f32"),
    "reduce body": (inner(Reduce(("s",), ("sum",), "j", index(4), (put,), (x,))), "more than Lets and Reduces"),
    "scan of pairs": (inner(Scan("s", "argmax", "j", index(4), (), x, ())), "cannot combine with argmax"),
    "while types": (inner(While(("s",), (one,), Const(True, bool_), (), (index(1),))), "1 is i64, not f32"),
    "while counts": (inner(While(("s",), (one, one), Const(True, bool_), (), (one,))), "as many initial"),
    "scatter mode": (inner(Scatter("y", (i, index(0)), one, "mul")), "mode 'mul'"),
    "local scope": (inner(Local("t", float32, (4,), "grid")), "scope 'grid'"),
    "extent": (kernel(For("i", one, (put,))), "1.0 is f32, not i64"),
    "same element": (kernel(rows(Store("y", (index(0), index(0)), one))), "loop over i may store to the same"),
    "overlapping": (kernel(rows(For("j", index(4), (put, Store("y", (prim("add", i, index(1)), j), one))))),
                    "loop over i may store to the same"),
    "through data": (kernel(rows(Let("r", Prim("cast", (Load("x", (i, index(0)), float32),), int64)),
                                 Scatter("y", (Var("r", int64), index(0)), one, "add"))), "loop over i may store"),
    "read of another row": (kernel(rows(For("j", index(4), (put, Let("t", Load(
        "y", (prim("sub", prim("sub", size(N), index(1)), i), j), float32)))))), "loop over i may store"),
    "contract operands": (contract(put, a=Load("x", (j, k), float32)), "operand a of the contract reads an axis"),
    "contract dtype": (contract(put, a=Load("x", (i, k), float32), b=index(1)), "1 is i64, not f32"),
    "contract body": (contract(Local("t", float32, ())), "more than Lets, Ifs and Stores"),
    "contract k": (contract(Store("y", (i, k), one)), "k is not bound here"),
    "contract store": (contract(Store("y", (i, index(0)), Var("acc", float32))), "along j may store to the same"),
}


@pytest.mark.parametrize("rule", WRONG)
def test_wrong_kernels_are_refused(rule: str) -> None:
    wrong, message = WRONG[rule]
    with pytest.raises(KernelError) as caught:
        verify(wrong)
    text = str(caught.value)
    assert text.startswith("kernel k: ") and message in text, text


def test_the_error_quotes_the_statement() -> None:
    with pytest.raises(KernelError, match=r"(?s)kernel k: there is no buffer z\n  in: let t = z\[i\]"):
        verify(WRONG["no buffer"][0])
