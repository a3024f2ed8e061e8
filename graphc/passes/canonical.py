"""Canonical forms: one way to say what can be said in several.

Owns the table of forms (patterns.py says how to read it).  Law: exact, except where a row says rounding.
Idempotent: a canonical form is rewritten by no rule.  The forms that later passes rely on:
* no Identity, StopGradient, ZerosLike, OnesLike, Fill, ExpandDims, Squeeze, AddN; reshapes and transposes stand alone,
  not in chains; nothing is reshaped, transposed, cast or broadcast to what it is already;
* a constant of one repeated value is a scalar that is broadcast; constants stand on the right of commutative ops;
* what is compared by > or >= is compared by < or <=; a transposed operand of a product is a flag of the product.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.dtypes import bool_, float32, int32
from graphc.ir.function import Function, Value
from graphc.ir.types import TensorType
from graphc.passes.bodies import everywhere
from graphc.passes.fold import uniform
from graphc.passes.patterns import COMMUTATIVE, ROUNDING, Match, Rule, apply_rules, index, number


def is_constant(value: Value) -> bool:
    """Whether `value` is a constant, broadcast or not."""
    return number(value) is not None or (value.producer is not None and value.producer.op.name == "Const")


# -- conditions and computed replacements -----------------------------------------------------------------------------


def _reshaped(m: Match) -> Value:
    return m.make("Reshape", m["x"], shape=m.type.shape)


def _broadcast(m: Match) -> Value:
    return m.make("BroadcastTo", m["x"], shape=m.type.shape)


def _zeros(m: Match) -> Value:
    return m.make("BroadcastTo", m.constant(0, m.type.dtype), shape=m.type.shape)


def _ones(m: Match) -> Value:
    return m.make("BroadcastTo", m.constant(1, m.type.dtype), shape=m.type.shape)


def _repeated(m: Match) -> bool:
    array = np.asarray(m["k"]["value"])
    return array.size > 1 and array.dtype.kind in "biuf" and uniform(array)


def _splat(m: Match) -> Value:
    scalar = m.constant(np.asarray(m["k"]["value"]).reshape(-1)[0], m.type.dtype)
    return m.make("BroadcastTo", scalar, shape=m.type.shape)


def _one_element(m: Match) -> bool:
    return bool(m["x"].tensor.elements == 1)


def _gains_axes_of_one(m: Match) -> bool:
    """Whether one element gets more axes, which a broadcast says too."""
    return _one_element(m) and m["x"].tensor.rank < m.type.rank


def _copies(m: Match) -> Value:
    return m.make("BroadcastTo", m.make("Reshape", m["x"], shape=()), shape=m.type.shape)


def _same_type(m: Match) -> bool:
    return bool(m["x"].type == m.type)


def _in_order(m: Match) -> bool:
    perm = m["k"]["perm"]
    return tuple(perm) == tuple(range(len(perm)))


def _composed(m: Match) -> Value:
    """Transpose(Transpose(x)): axis i is axis k[i] of the inner result, which is axis j[k[i]] of x."""
    outer, inner = m["k"]["perm"], m["j"]["perm"]
    return m.make("Transpose", m["x"], perm=tuple(inner[a] for a in outer))


def _moves_ones(m: Match) -> bool:
    """Whether the axes that are longer than 1 keep their order."""
    shape = m["x"].tensor.shape
    kept = [a for a in m["k"]["perm"] if shape[a] != 1]
    return bool(kept == sorted(kept))


def _over_nothing(m: Match) -> bool:
    return bool(m["k"]["axis"] == ())


def _over_ones(m: Match) -> bool:
    shape = m["x"].tensor.shape
    return all(shape[a] == 1 for a in m["k"]["axis"])


def _constant_first(m: Match) -> bool:
    return is_constant(m.inputs[0]) and not is_constant(m.inputs[1])


def _exchanged(m: Match) -> Value:
    return m.make(m.op.name, m.inputs[1], m.inputs[0])


def _added(m: Match) -> Value:
    total = m.inputs[0]
    for v in m.inputs[1:]:
        total = m.make("Add", total, v)
    return total


def _swaps_last_two(m: Match) -> bool:
    perm = m["j"]["perm"]
    n = len(perm)
    return n >= 2 and tuple(perm) == (*range(n - 2), n - 1, n - 2)


def _flag(name: str) -> Callable[[Match], Value]:
    """The product with its flag `name` turned."""
    def flipped(m: Match) -> Value:
        attrs = {**m["k"], name: not m["k"][name]}
        return m.make(m.op.name, m["x"], m["y"], **attrs)
    flipped.__name__ = f"flip {name}"
    return flipped


# -- the table --------------------------------------------------------------------------------------------------------

_SAMPLE = {"x": TensorType(float32, (3, 1, 4))}
_EXAMPLES = {
    "Logical": TensorType(bool_, (3, 4)), "Bitwise": TensorType(int32, (3, 4)), "": TensorType(float32, (3, 4))}
_SWAP = {"j": {"perm": (1, 0)}, "k": {}}
_PRODUCTS = (("MatMul", "transpose_a", "transpose_b"), ("BatchMatMulV2", "adj_x", "adj_y"))

RULES: tuple[Rule, ...] = (
    # Names for the value itself.
    Rule("Identity(x)", "x"),
    Rule("StopGradient(x)", "x"),
    Rule("PreventGradient(x)", "x"),
    Rule("AddN(...)", _added, ROUNDING, given={"inputs": 3}),
    # Constants.
    Rule("Const{k}()", _splat, when=_repeated, given={"k": {"value": np.full((2, 3), 1.5, np.float32),
                                                            "dtype": float32}}),
    Rule("ZerosLike(x)", _zeros),
    Rule("OnesLike(x)", _ones),
    Rule("Fill{k}(x)", _broadcast, given={"x": TensorType(float32, ()), "k": {"shape": (2, 3)}}),
    # Movement.
    Rule("BroadcastTo{k}(x)", "x", when=_same_type, given={"k": {"shape": (3, 4)}}),
    Rule("BroadcastTo{k}(BroadcastTo{j}(x))", _broadcast, given={"j": {"shape": (1, 3, 4)}, "k": {"shape": (2, 3, 4)}}),
    Rule("ExpandDims{k}(x)", _reshaped, given={"k": {"axis": (1,)}}),
    Rule("Squeeze{k}(x)", _reshaped, given={"x": TensorType(float32, (3, 1)), "k": {"axis": (1,)}}),
    Rule("Reshape{k}(x)", "x", when=_same_type, given={"k": {"shape": (3, 4)}}),
    Rule("Reshape{k}(x)", _broadcast, when=_gains_axes_of_one,
         given={"x": TensorType(float32, ()), "k": {"shape": (1, 1)}}),
    Rule("Reshape{k}(BroadcastTo{j}(x))", _copies, when=_one_element,
         given={"x": TensorType(float32, (1,)), "j": {"shape": (3, 4)}, "k": {"shape": (12,)}}),
    Rule("Reshape{k}(Reshape{j}(x))", _reshaped, given={"j": {"shape": (2, 6)}, "k": {"shape": (4, 3)}}),
    Rule("Transpose{k}(x)", "x", when=_in_order, given={"k": {"perm": (0, 1)}}),
    Rule("Transpose{k}(Transpose{j}(x))", _composed,
         given={"x": TensorType(float32, (2, 3, 4)), "j": {"perm": (2, 0, 1)}, "k": {"perm": (0, 2, 1)}}),
    Rule("Transpose{k}(x)", _reshaped, when=_moves_ones, given={**_SAMPLE, "k": {"perm": (1, 0, 2)}}),
    Rule("Cast{k}(x)", "x", when=_same_type, given={"k": {"dtype": float32}}),
    # Reductions of nothing.
    *(Rule(f"{op}{{k}}(x)", "x", preserves=ROUNDING, when=_over_nothing, given={"k": {"axis": (), "keepdims": False}})
      for op in ("Sum", "Mean", "Prod", "Max", "Min")),
    *(Rule(f"{op}{{k}}(x)", _reshaped, preserves=ROUNDING, when=_over_ones,
           given={**_SAMPLE, "k": {"axis": (1,), "keepdims": False}}) for op in ("Sum", "Mean", "Prod", "Max", "Min")),
    # Order of operands.
    *(Rule(f"{op}(...)", _exchanged, when=_constant_first, given={
        "inputs": 2, "in0": bool(op.startswith("Logical")) or 3, "in1": _EXAMPLES.get(op[:7], _EXAMPLES[""])})
      for op in sorted(COMMUTATIVE)),
    Rule("Greater(x, y)", "Less(y, x)"),
    Rule("GreaterEqual(x, y)", "LessEqual(y, x)"),
    # Transposed operands of products.
    *(Rule(f"{op}{{k}}(Transpose{{j}}(x), y)", _flag(a), when=_swaps_last_two, given={
        "x": TensorType(float32, (4, 3)), "y": TensorType(float32, (4, 5)), **_SWAP})
      for op, a, _ in _PRODUCTS),
    *(Rule(f"{op}{{k}}(x, Transpose{{j}}(y))", _flag(b), when=_swaps_last_two, given={
        "x": TensorType(float32, (3, 4)), "y": TensorType(float32, (5, 4)), **_SWAP})
      for op, _, b in _PRODUCTS),
)

TABLE = index(RULES)


@everywhere
def canonicalise(function: Function, numerics: str = "default") -> Function:
    """Return `function` in canonical form."""
    return apply_rules(function, TABLE, numerics)
