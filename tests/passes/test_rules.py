"""Every rewrite rule: its example fires, and both sides agree by what the rule preserves."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.dtypes import DType, bool_, float32
from graphc.ir import infer
from graphc.ir.evaluate import evaluate
from graphc.ir.function import Builder, Function, Value
from graphc.ir.types import TensorType
from graphc.ir.verify import verify
from graphc.ops.base import all_ops, lookup
from graphc.passes import algebra, canonical, stabilise
from graphc.passes.patterns import (
    CONSTANTS,
    EXACT,
    FINITE,
    ROUNDING,
    Application,
    Letter,
    Number,
    Pattern,
    Rule,
    apply_rules,
    index,
    orders,
    read,
)

TABLES = {"canonical": canonical.RULES, "stabilise": stabilise.RULES, "algebra": algebra.RULES}
CASES = [pytest.param(rule, id=f"{name}: {rule}") for name, rules in TABLES.items() for rule in rules]
SPECIAL_LARGE = np.float32(3.4e38)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, SPECIAL_LARGE, 1e30, 0.5, -2.5], np.float32)


class Example:
    """A function that is a rule's pattern applied to inputs."""

    def __init__(self, rule: Rule, pattern: Pattern) -> None:
        self.rule = rule
        self.given = dict(rule.given)
        self.builder = Builder(infer.types)
        self.letters: dict[str, Value] = {}
        root = self.build(pattern, self.dtype_of(pattern))
        feeds = tuple(v for v in self.letters.values() if v.producer is None)
        self.function = Function("example", feeds, tuple(self.builder.nodes), (root,))

    def dtype_of(self, pattern: Pattern) -> DType:
        """The dtype of the first letter with a type of its own below `pattern`."""
        for letter in letters_of(pattern):
            t = self.given.get(letter)
            if isinstance(t, TensorType):
                return t.dtype
        return float32

    def build(self, pattern: Pattern, dtype: DType) -> Value:
        match pattern:
            case Number(value):
                return self.constant(value, dtype)
            case Letter(name) if name in self.letters:
                return self.letters[name]
            case Letter(name):
                given = self.given.get(name)
                if isinstance(given, (int, float)):
                    kind = bool_ if isinstance(given, bool) else dtype
                    value = self.constant(given, kind)
                else:
                    value = Value(given if isinstance(given, TensorType) else TensorType(dtype, (3, 4)))
                self.letters[name] = value
                return value
        count = int(self.given.get("inputs", 0)) if pattern.variadic else 0
        if count:
            dtype = self.given.get("in1", TensorType(dtype, ())).dtype
        args = [self.build(a, dtype) for a in (*pattern.args, *(Letter(f"in{i}") for i in range(count)))]
        attrs = self.given.get(pattern.attrs, {}) if pattern.attrs else {}
        return self.builder.add(lookup(pattern.op), args, attrs).output

    def constant(self, value: Any, dtype: DType) -> Value:
        array = np.asarray(value, dtype.as_numpy_dtype)
        return self.builder.add(lookup("Const"), (), {"value": array, "dtype": dtype}).output

    def feeds(self, special: bool) -> list[np.ndarray]:
        rng = np.random.default_rng()
        out = []
        for name, v in self.letters.items():
            if v.producer is not None:
                continue
            t = v.tensor
            if t.dtype.is_bool:
                a = rng.random(t.shape) < 0.5
            elif t.dtype.is_integer:
                a = rng.integers(-5, 6, t.shape)
            else:
                given = self.given.get(name)
                low, high = given if isinstance(given, tuple) else (-3.0, 3.0)
                a = rng.uniform(low, high, t.shape)
                if special:
                    choice = SPECIAL if self.rule.preserves == EXACT else SPECIAL[np.abs(SPECIAL) != SPECIAL_LARGE]
                    a = np.where(rng.random(t.shape) < 0.5, rng.choice(choice, t.shape), a)
            out.append(np.asarray(a, t.dtype.as_numpy_dtype))
        return out


def letters_of(pattern: Pattern) -> list[str]:
    match pattern:
        case Letter(name):
            return [name]
        case Application():
            return [x for a in pattern.args for x in letters_of(a)]
        case _:
            return []


def ops_of(pattern: Pattern) -> set[str]:
    if not isinstance(pattern, Application):
        return set()
    return {pattern.op}.union(*(ops_of(a) for a in pattern.args))


@pytest.mark.parametrize("rule", CASES)
def test_rule(rule: Rule) -> None:
    table = index([rule])
    for pattern in orders(read(rule.pattern)):
        example = Example(rule, pattern)
        verify(example.function)
        fired: dict[str, int] = {}
        after = apply_rules(example.function, table, "fast", fired)
        assert fired.get(str(rule)), f"{rule} does not fire on its example"
        verify(after)
        assert after.fetches[0].type == example.function.fetches[0].type
        for turn in range(6):
            feeds = example.feeds(special=rule.preserves != FINITE and rule not in stabilise.RULES and turn % 2 == 0)
            (want,), _ = evaluate(example.function, feeds)
            (got,), _ = evaluate(after, feeds)
            check(rule, want, got)


def check(rule: Rule, want: np.ndarray, got: np.ndarray) -> None:
    assert want.dtype == got.dtype and want.shape == got.shape
    if rule.preserves == EXACT or want.dtype.kind != "f":
        nan = np.isnan(want) if want.dtype.kind == "f" else np.zeros(want.shape, bool)
        assert np.array_equal(nan, np.isnan(got) if got.dtype.kind == "f" else nan)
        assert np.where(nan, 0, want).tobytes() == np.where(nan, 0, got).tobytes(), f"{want}\n{got}"
    else:
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)  # NaN and infinities stand in the same places


@pytest.mark.parametrize("rule", [c for c in CASES if c.values[0].preserves != EXACT and c.values[0].on != "int"])
def test_strict_leaves_floats_alone(rule: Rule) -> None:
    example = Example(rule, read(rule.pattern))
    if example.function.nodes[-1].inputs and example.function.nodes[-1].inputs[0].tensor.dtype.is_floating:
        assert apply_rules(example.function, index([rule]), "strict") is example.function


def test_rules_speak_of_registered_ops() -> None:
    for rules in TABLES.values():
        for rule in rules:
            named = ops_of(read(rule.pattern))
            if isinstance(rule.replacement, str):
                named |= ops_of(read(rule.replacement))
            assert named <= set(all_ops()), f"{rule} names ops that do not exist: {named - set(all_ops())}"
            assert rule.preserves in (EXACT, ROUNDING, FINITE)


def test_texts_of_rules_differ() -> None:
    texts = [f"{rule} {rule.preserves} {rule.on}" for rules in TABLES.values() for rule in rules]
    assert len(set(texts)) == len(texts)


def test_the_language_reads_what_it_says() -> None:
    assert read("Add(x, -0.0)") == Application("Add", (Letter("x"), Number(-0.0)))
    assert read("Sum{k}(Mul(x, c))") == Application("Sum", (Application("Mul", (Letter("x"), Letter("c"))),), "k")
    assert len(orders(read("Add(Mul(x, 1), y)"))) == 4
    assert CONSTANTS == ("c", "d")
