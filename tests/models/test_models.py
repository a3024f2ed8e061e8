"""Every model: two steps at reduced size on every backend alike, and training on the bundled real data to its
figure."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as tf

MODELS = Path(__file__).resolve().parents[2] / "models"
BACKENDS = ("llvm_cpu", "numba_cpu", "interp")


@pytest.fixture(autouse=True)
def _models_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(MODELS))
    monkeypatch.delenv("GRAPHC_DATA", raising=False)


def load(name: str) -> Any:
    return importlib.import_module(name)


def two_steps(model: Any, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Losses of two steps, then the variables."""
    real_data = load("real_data")
    feed = model.feed(real_data.Split(x, y), train=False)
    with tf.Session(graph=model.graph) as session:
        session.run(model.initializer)
        losses = [session.run([model.loss, model.train], feed)[0] for _ in range(2)]
        return [*losses, *session.run(list(model.variables))]


CASES = {
    "linear_regression": (lambda m: m.build(5), "float"),
    "perceptron": (lambda m: m.build(5), 2),
    "logistic_regression": (lambda m: m.build(5), 2),
    "softmax_regression": (lambda m: m.build(5, 3), 3),
    "hinge": (lambda m: m.build(5, 3), 3),
    "mlp": (lambda m: m.build(5, 3, hidden=(7, 4)), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_first_two_steps_agree_on_every_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, kind = CASES[name]
    rng = np.random.default_rng(7)
    x = rng.standard_normal((9, 5)).astype(np.float32)
    y = rng.standard_normal(9).astype(np.float32) if kind == "float" else rng.integers(0, kind, 9).astype(np.int32)
    results = {}
    for backend in BACKENDS:
        monkeypatch.setenv("GRAPHC_BACKEND", backend)
        results[backend] = two_steps(build(load(name)), x, y)
    for backend in BACKENDS[1:]:
        for a, b in zip(results["llvm_cpu"], results[backend], strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=backend)


def test_every_model_file_is_tested() -> None:
    from tests.models import test_zoo

    files = {p.stem for p in MODELS.glob("*.py")} - {"real_data", "training", "blocks", "adversarial"}
    convolutional = set(test_zoo.PARAMETERS) | set(test_zoo.NETWORKS)
    assert files <= set(CASES) | convolutional | {"resnet", "gan", "dcgan", "image_filters"}


def test_mlp_reaches_its_figure_on_the_bundled_digits(tmp_path: Path) -> None:
    results = load("mlp").main(["--plot", str(tmp_path / "loss.png")])
    assert results["test"]["accuracy"] >= 0.96
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_logistic_regression_on_breast_cancer() -> None:
    assert load("logistic_regression").main([])["test"]["accuracy"] >= 0.93


def test_softmax_regression_on_the_bundled_digits() -> None:
    assert load("softmax_regression").main([])["test"]["accuracy"] >= 0.94


def test_hinge_on_the_bundled_digits() -> None:
    assert load("hinge").main([])["test"]["accuracy"] >= 0.94


def test_linear_regression_comes_close_to_least_squares() -> None:
    linear, real_data = load("linear_regression"), load("real_data")
    assert linear.main([])["test"]["loss"] <= 1.05 * linear.least_squares(real_data.fuel_economy())


def test_perceptron_separates_irises_and_never_xor() -> None:
    results = load("perceptron").main([])
    assert results["test"]["accuracy"] == 1.0
    assert results["xor"]["accuracy"] < 1.0


def test_hinge_losses_of_the_worked_example() -> None:
    """Scores of a cat, a car and a frog under one linear classifier (Stanford CS231n, lecture 3)."""
    hinge = load("hinge")
    with tf.Graph().as_default(), tf.Session() as session:
        scores = tf.constant([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
        losses = session.run(hinge.hinge_losses(scores, tf.constant([0, 1, 2])))
    np.testing.assert_allclose(losses, [2.9, 0.0, 12.9], atol=1e-5)


@pytest.mark.nightly
def test_mlp_reaches_98_percent_on_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = MODELS.parent.parent / "shared" / "data"
    if not (folder / "mnist").is_dir():
        pytest.skip("no MNIST at ../shared/data")
    assert load("mlp").main(["--data", str(folder)])["test"]["accuracy"] >= 0.98


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="the folder given, /no/such/place, is not a folder"):
        load("real_data").digits("/no/such/place")


def test_data_are_found_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "iris").mkdir()
    rows = ["sepal_length,sepal_width,petal_length,petal_width,species"]
    rows += [f"{i},1,2,3,{'setosa' if i % 2 else 'virginica'}" for i in range(10)]
    (tmp_path / "iris" / "iris.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv("GRAPHC_DATA", str(tmp_path))
    data = load("real_data").iris()
    assert len(data.train) + len(data.validation) + len(data.test) == 10
