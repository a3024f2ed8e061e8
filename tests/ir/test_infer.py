"""Sizes that meet: what the unifier binds, and what it leaves as a condition."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import VerifyError
from graphc.ir import dim
from graphc.ir.dim import Size, symbol
from graphc.ir.infer import Sizes, Unifier, better, template, types
from graphc.ops.base import lookup

A, B, C = symbol("A"), symbol("B"), symbol("C")


def unifier(**assumptions: str) -> Unifier:
    made = Unifier({int(k[1:]): v for k, v in assumptions.items()})
    for name in "ABC":
        made.introduce(name)
    return made


def meet(u: Unifier, a: Size, b: Size, kind: str = "equal") -> Size | None:
    return u.meet(kind, a, b, "", "op")


def test_the_later_symbol_is_bound_to_the_earlier() -> None:
    u = unifier()
    assert meet(u, B, A) == A and u.solution == {"B": A} and u.resolve(B + C * 2) == A + C * 2


def test_a_number_binds_a_symbol() -> None:
    u = unifier()
    assert meet(u, A, 5) == 5 and u.resolve(A * B) == 5 * B and meet(u, A, 6) is None


def test_equal_sizes_leave_no_condition() -> None:
    u = unifier()
    meet(u, A, B)
    meet(u, B, A)
    meet(u, A * 2, B * 2)
    assert len(u.conditions) == 1


def test_multiples_bind_the_symbol() -> None:
    u = unifier()
    meet(u, A * 4, C * 4)
    assert u.solution == {"C": A}


def test_what_cannot_be_solved_stays_a_condition_stated_once() -> None:
    u = unifier()
    assert meet(u, A * B, C + 1) == A * B or u.solution
    u = unifier()
    meet(u, A * A, B * B)
    meet(u, A * A, B * B)
    assert u.solution == {} and len(u.conditions) == 1


def test_a_symbol_is_never_bound_to_what_may_be_negative() -> None:
    u = unifier()
    meet(u, A + B, 10)
    assert u.solution == {}


def test_chains_resolve_to_the_end() -> None:
    u = unifier()
    meet(u, C, B + 1)
    meet(u, B, A + 2)
    assert u.resolve(C) == A + 3


def test_an_assumption_says_which_side_is_one() -> None:
    for side, rest in (("left", B), ("right", A)):
        u = unifier(c0=side)
        assert meet(u, A, B, "assume") == rest and u.conditions[0].kind == "equal" and u.conditions[0].right == 1


def test_divisions_and_bounds_are_stated_once_and_refused_where_known() -> None:
    u = unifier()
    assert u.divide(A * 6, 3, "", "") == A * 2 and u.conditions == []
    assert u.divide(A, 3, "", "") == dim.floordiv(A, 3) and u.divide(A, 3, "", "") is not None
    assert u.divide(7, 2, "", "") is None and u.divide(A, 0, "", "") is None
    assert u.bound(2, A, "", "") and u.bound(2, A, "", "") and u.bound(A, A + 1, "", "")
    assert not u.bound(A + 1, A, "", "")
    assert [c.kind for c in u.conditions] == ["divides", "at_most"]


@given(st.lists(st.tuples(st.sampled_from((A, B, C, A + B, B * 2, C + 3, A * B)),
                          st.sampled_from((A, B, C, 4, A + 1, B * 2, C * A))), max_size=5),
       st.tuples(*[st.integers(0, 6)] * 3))
def test_the_solution_holds_wherever_the_conditions_do(pairs: list[tuple[Size, Size]], at: tuple[int, ...]) -> None:
    u = unifier()
    for a, b in pairs:
        meet(u, a, b)
    binding = dict(zip("ABC", at, strict=True))
    if all(dim.evaluate(c.left, binding) == dim.evaluate(c.right, binding) for c in u.conditions):
        for name, value in u.solution.items():
            assert dim.evaluate(u.resolve(value), binding) == binding[name]


def test_the_better_known_of_two_sizes_does_not_depend_on_their_order() -> None:
    for a, b in ((A, 3), (A, B), (A + 1, B * C), (A, A * B)):
        assert better(a, b) == better(b, a)
    assert better(A, 3) == 3 and Sizes().meet("equal", 3, 4, "", "") is None


def test_a_missing_attr_is_named() -> None:
    with pytest.raises(VerifyError, match="Const lacks its attr 'value'"):
        types(lookup("Const"), (), lookup("Const").attrs)


def test_messages_leave_the_two_sizes_open() -> None:
    assert template("(A, 3) and (A*B, B): A != A*B", A, A * B) == "({left}, 3) and ({right}, B): {left} != {right}"
    assert template("AB and {left}", A, 3) == "AB and {left}"
