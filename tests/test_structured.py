"""Loops, branches and states run natively: functions written by hand, on every backend, against the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.ir.evaluate import evaluate
from graphc.ir.function import Function
from graphc.ir.parse import parse
from graphc.ir.verify import verify
from tests.ops.compiled import BACKENDS, Compiled
from tests.passes import test_lower

EXAMPLES = Path(__file__).parent / "ir" / "examples"
TOLERANCE = {np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-11}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def example(name: str) -> Function:
    return verify(parse((EXAMPLES / f"{name}.gir").read_text()))


def as_fed(function: Function, feeds: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    return [np.array(f, v.tensor.dtype.as_numpy_dtype, order="C") for f, v in zip(feeds, function.feeds, strict=True)]


def agree(function: Function, backend: str, runs: Sequence[Sequence[Any]], states: Sequence[Any] = ()) -> None:
    """One compilation runs all of `runs`, each from the states that the one before left, as the oracle does."""
    compiled = Compiled(function, backend, states=states)
    expected_states = [
        np.asarray(s, v.tensor.dtype.as_numpy_dtype) for s, v in zip(states, function.states, strict=True)
    ]
    for feeds in runs:
        given = as_fed(function, feeds)
        results = compiled(given)
        wanted, expected_states = evaluate(function, given, expected_states)
        for got, want in zip([*results, *compiled.states()], [*wanted, *expected_states], strict=True):
            assert got.shape == np.shape(want)
            bound = TOLERANCE.get(got.dtype, 0.0)
            np.testing.assert_allclose(got, np.asarray(want, got.dtype), rtol=bound, atol=bound)


def test_an_adam_step_trains_its_states(backend: str) -> None:
    rng = np.random.default_rng()
    states = [rng.normal(size=(3, 1)), np.zeros((3, 1)), np.zeros((3, 1)), 0.9, 0.999]
    runs = [[rng.normal(size=(n, 3)), rng.normal(size=(n, 1))] for n in (7, 7, 1, 130)]
    agree(example("adam"), backend, runs, states)


def test_softmax_cross_entropy_is_one_kernel(backend: str) -> None:
    rng = np.random.default_rng()
    function = example("softmax_cross_entropy")
    agree(function, backend, [[rng.normal(size=(n, 10)) * 30, rng.dirichlet(np.ones(10), n)] for n in (5, 1, 64, 0)])
    assert Compiled(function, backend).kernels == 1


def test_first_and_second_gradient_of_a_loop(backend: str) -> None:
    rng = np.random.default_rng()
    runs = [
        [t, rng.normal(size=b), rng.normal(size=(t, b)), rng.normal()] for t, b in ((1, 4), (2, 4), (9, 33), (9, 1))
    ]
    agree(example("loop_gradients"), backend, runs)


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_a_counted_loop_over_rows(backend: str, reverse: str) -> None:
    text = test_lower.LOOP.replace("REVERSE", reverse).replace("IO", "carried=1, captures=1, xs=1, ys=1")
    text = text.replace("  %0 = Sizes", "  source T = %x.axis(0)\n  %0 = Sizes")
    function = verify(parse(text))
    rng = np.random.default_rng()

    def drawn(t: int) -> list[np.ndarray[Any, Any]]:
        shapes = [
            tuple(n if isinstance(n, int) else n.evaluate({"T": t}) for n in v.tensor.shape) for v in function.feeds
        ]
        return [
            rng.normal(size=s) if v.tensor.dtype.is_floating else np.full(s, t)
            for s, v in zip(shapes, function.feeds, strict=True)
        ]

    agree(function, backend, [drawn(t) for t in (0, 1, 5)])


@pytest.mark.parametrize("limit", [3, 1 << 62])
def test_a_loop_with_a_condition(backend: str, limit: int) -> None:
    agree(
        verify(parse(test_lower.WHILE.replace("LIMIT", str(limit)))),
        backend,
        [[1.0, 100.0], [300.0, 100.0], [3.0, 40.0]],
    )


def test_a_branch(backend: str) -> None:
    rng = np.random.default_rng()
    runs = [[p, *rng.normal(size=(2, n))] for n in (0, 1, 5) for p in (False, True)]
    agree(verify(parse(test_lower.COND)), backend, runs)


def test_the_gradient_of_a_loop_of_scalars(backend: str) -> None:
    function = verify(parse(test_lower.GRADIENT.replace("IO", "carried=2, captures=1, xs=1")))
    agree(function, backend, [[0.8, 1.1, 1.0, 0.0], [-0.3, 0.7, 2.0, 1.0]])
