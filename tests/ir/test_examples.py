"""The three examples written by hand: they parse, verify, and give the right numbers before and after every level."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphc.ir.evaluate import evaluate
from graphc.ir.function import Function
from graphc.ir.parse import parse
from graphc.ir.text import show
from graphc.ir.verify import verify
from graphc.options import Options
from graphc.passes.pipeline import optimise

FOLDER = Path(__file__).parent / "examples"


@pytest.fixture(params=[None, 0, 1, 2], ids=["as written", "level 0", "level 1", "level 2"])
def level(request: pytest.FixtureRequest) -> int | None:
    return request.param  # type: ignore[no-any-return]


def example(name: str, level: int | None) -> Function:
    f = verify(parse((FOLDER / f"{name}.gir").read_text()))
    assert show(parse(show(f))) == show(f)
    return f if level is None else verify(optimise(f, Options(level=level)))


def test_adam(level: int | None) -> None:
    f = example("adam", level)
    rng = np.random.default_rng()
    x, y = rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=(7, 1)).astype(np.float32)
    states = [rng.normal(size=(3, 1)), rng.normal(size=(3, 1)), rng.random((3, 1)), 0.9 ** 5, 0.999 ** 5]
    w, m, v, p1, p2 = (np.asarray(s, np.float32).astype(np.float64) for s in states)
    (loss,), updates = evaluate(f, [x, y], states)
    error = x.astype(np.float64) @ w - y
    g = 2 * x.T @ error / 7
    m2, v2 = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    w2 = w - 0.001 * np.sqrt(1 - p2) / (1 - p1) * m2 / (np.sqrt(v2) + 1e-8)
    np.testing.assert_allclose(loss, np.mean(error ** 2), rtol=1e-5)
    for got, want in zip(updates, (w2, m2, v2, p1 * 0.9, p2 * 0.999), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_softmax_cross_entropy(level: int | None) -> None:
    f = example("softmax_cross_entropy", level)
    rng = np.random.default_rng()
    logits = (rng.normal(size=(5, 10)) * 30).astype(np.float32).astype(np.float64)
    labels = rng.dirichlet(np.ones(10), 5)
    (loss, gradient), _ = evaluate(f, [logits, labels])
    shifted = logits - logits.max(1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    np.testing.assert_allclose(loss, -(labels * logp).sum(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, np.exp(logp) - labels, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_first_and_second_gradient_of_a_loop(level: int | None, steps: int) -> None:
    f = example("loop_gradients", level)
    rng = np.random.default_rng()
    h0, xs, w = rng.normal(size=4), rng.normal(size=(steps, 4)), rng.normal()

    def at(w: float) -> list[np.ndarray]:
        return evaluate(f, [steps, h0, xs, w])[0]

    def loss(w: float) -> float:
        h = h0
        for x in xs:
            h = np.tanh(h * w + x)
        return float((h * h).sum())

    value, dw, d2w = at(w)
    np.testing.assert_allclose(value, loss(w), rtol=1e-12)
    e = 1e-5
    np.testing.assert_allclose(dw, (loss(w + e) - loss(w - e)) / (2 * e), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(d2w, (at(w + e)[1] - at(w - e)[1]) / (2 * e), rtol=1e-5, atol=1e-7)
