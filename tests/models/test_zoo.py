"""The convolutional models: published sizes, first steps as the oracle computes them, real images, adversaries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as tf
from tests.oracle import OracleSession

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(autouse=True)
def _models_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(MODELS))
    monkeypatch.delenv("GRAPHC_DATA", raising=False)


def load(name: str) -> Any:
    return importlib.import_module(name)


PARAMETERS: dict[str, tuple[Callable[[], Any], int]] = {
    # LeCun et al., 1998: 60,000 trainable weights; with all maps of s2 joined to all of c3, 61,706
    "lenet5": (lambda: load("lenet5").model(), 61_706),
    # torchvision's tables of published weights, to the last parameter; AlexNet: 61 M, VGG-16: 138 M, ResNet-152: 60 M
    "alexnet": (lambda: load("alexnet").model(), 61_100_840),
    "vgg16": (lambda: load("vgg16").model(), 138_357_544),
    "resnet18": (lambda: load("resnet").model("resnet18"), 11_689_512),
    "resnet34": (lambda: load("resnet").model("resnet34"), 21_797_672),
    "resnet50": (lambda: load("resnet").model("resnet50"), 25_557_032),
    "resnet101": (lambda: load("resnet").model("resnet101"), 44_549_160),
    "resnet152": (lambda: load("resnet").model("resnet152"), 60_192_808),
    "resnext50": (lambda: load("resnext50").model(), 25_028_904),
    # Szegedy et al., 2015: about 7 million; Zeiler and Fergus, 2014, figure 3; Hu et al., 2018: 28.1 million
    "googlenet": (lambda: load("googlenet").model(), 6_998_552),
    "zfnet": (lambda: load("zfnet").model(), 62_357_608),
    "senet": (lambda: load("senet").model(), 28_088_024),
    # He et al., 2016, table 6: 0.27 million
    "cifar10": (lambda: load("cifar10").model(), 272_474),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_as_published(name: str) -> None:
    build, published = PARAMETERS[name]
    assert load("blocks").parameters(build()) == published


def design(name: str, **changes: Any) -> Any:
    """A residual network of one block per stage and few filters."""
    resnet = load("resnet")
    chosen = resnet.DESIGNS[name]
    return resnet.network(replace(chosen, counts=(1,) * len(chosen.counts), filters=8, **changes))


def shallow(name: str, table: str, entries: tuple[Any, ...]) -> Any:
    """A network whose table of stages is shorter than published."""
    module = load(name)

    def network(*args: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, table, entries)
            return getattr(module, name)(*args, **options)

    return network


MODULES_OF_GOOGLENET = (("3a", 8, 4, 8, 4, 6, 5), ("4a", 7, 6, 8, 5, 8, 3))
"""name, filters: a module on each side of a pool."""

NETWORKS: dict[str, tuple[Callable[[], Any], int, int, int]] = {
    # network, rows, size, channels; enough rows that statistics of a batch are not those of two values
    "lenet5": (lambda: load("lenet5").lenet5, 3, 14, 1),
    "alexnet": (lambda: load("alexnet").alexnet, 1, 63, 3),
    "zfnet": (lambda: load("zfnet").zfnet, 1, 63, 3),
    "vgg16": (lambda: shallow("vgg16", "STAGES", ((8, 2), (12, 1), (16, 1))), 3, 18, 3),
    "googlenet": (lambda: shallow("googlenet", "MODULES", MODULES_OF_GOOGLENET), 2, 40, 3),
    "resnet18": (lambda: design("resnet18"), 5, 65, 3),
    "resnet20": (lambda: design("resnet20"), 5, 9, 3),
    "resnext50": (lambda: design("resnext50", groups=4), 5, 64, 3),
    "senet": (lambda: design("se_resnet50"), 5, 64, 3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_training_towers_agree_with_the_oracle(name: str) -> None:
    find, rows, size, channels = NETWORKS[name]
    rng = np.random.default_rng()
    x = rng.standard_normal((rows, size, size, channels), dtype=np.float32)
    y = rng.integers(0, 3, rows).astype(np.int32)
    graph = tf.Graph()
    with graph.as_default():
        tf.set_random_seed(1)
        images = tf.placeholder(tf.float32, (None, size, size, channels))
        labels = tf.placeholder(tf.int32, (None,))
        logits = find()(images, 3, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        variables = tf.trainable_variables()
        gradients = tf.gradients(loss, variables)
        assert all(g is not None for g in gradients)
        norm = tf.global_norm(gradients)
        initializer = tf.global_variables_initializer()
    results = []
    with tf.Session(graph=graph) as session:
        session.run(initializer)
        values = session.run(variables)
        results.append(session.run([loss, norm], {images: x, labels: y}))
    with OracleSession(graph=graph) as session:  # given the values: the references draw random numbers slowly
        for variable, value in zip(variables, values, strict=True):
            variable.load(value, session)
        results.append(session.run([loss, norm], {images: x, labels: y}))
    np.testing.assert_allclose(results[0], results[1], rtol=2e-3)


def test_lenet5_learns_the_bundled_digits() -> None:
    results = load("lenet5").main([])
    assert results["test"]["accuracy"] >= 0.95


def test_classifiers_keep_statistics_for_use() -> None:
    blocks = load("blocks")
    model = blocks.classifier(design("resnet20"), 8, 3, 4, lambda step: tf.train.MomentumOptimizer(0.1, 0.9),
                              decay=1e-4)
    rng = np.random.default_rng()
    x, y = rng.random((16, 192), dtype=np.float32), rng.integers(0, 4, 16).astype(np.int32)
    with tf.Session(graph=model.graph) as session:
        session.run(model.initializer)
        first = session.run(model.loss, {model.x: x, model.y: y})
        for _ in range(30):
            session.run(model.train, {model.x: x, model.y: y})
        assert session.run(model.loss, {model.x: x, model.y: y}) < 0.5 * first
        moving = [v for v in model.variables if v.op.name.endswith("moving_mean")]
        assert moving and all(np.any(session.run(v) != 0.0) for v in moving)


def test_augmentation_moves_and_mirrors() -> None:
    training, real_data = load("training"), load("real_data")
    images = np.arange(1, 1 + 2 * 7 * 8 * 3).reshape(2, 7, 8, 3)
    rows = real_data.Split(images.reshape(2, -1), np.array([4, 5], np.int32))
    wide = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = {(down, right): wide[:, down : down + 7, right : right + 8] for down in range(5) for right in range(5)}
    seen = set()
    for seed in range(200):
        moved = training.shifted(rows, np.random.default_rng(seed), (7, 8, 3), by=2, mirror=True)
        assert moved.y is rows.y
        for i, image in enumerate(moved.x.reshape(2, 7, 8, 3)):
            found = [(*place, flipped) for place, window in windows.items() for flipped in (False, True)
                     if np.array_equal(image, window[i, :, ::-1] if flipped else window[i])]
            assert len(found) == 1
            seen.add(found[0])
    assert len(seen) == 50


def write_cifar10(folder: Path) -> None:
    """Files of the official layout: 60 and 10 images, red as their class says, green and blue in their first line."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    for name, count in (("data_batch_1.bin", 60), ("test_batch.bin", 10)):
        records = np.zeros((count, 3073), np.uint8)
        records[:, 0] = rng.integers(0, 10, count)
        records[:, 1:1025] = 25 * records[:, :1]
        for first in (1025, 2049):
            records[:, first : first + 32] = rng.integers(0, 256, (count, 32))
        (folder / name).write_bytes(records.tobytes())


def test_cifar10_keeps_the_best_and_goes_on_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cifar10, real_data, training = load("cifar10"), load("real_data"), load("training")
    write_cifar10(tmp_path / "data" / "cifar-10-batches-bin")
    data = real_data.cifar10(str(tmp_path / "data"))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [54, 6, 10]
    image = data.train.x[0].reshape(32, 32, 3)
    assert np.all(image[:, :, 0] == 25 * data.train.y[0]) and image[0, :, 1].any() and not image[1:, :, 1:].any()

    given = ["--data", str(tmp_path / "data"), "--save", str(tmp_path / "kept"), "--batch", "27", "--rate", "0.01"]
    results = cifar10.main([*given, "--epochs", "2"])
    assert "goes on" not in capsys.readouterr().out
    pixels = data.train.x.reshape(-1, 3).astype(np.float32)
    built = cifar10.build(mean=pixels.mean(0), std=pixels.std(0))
    with built.graph.as_default(), tf.Session(graph=built.graph) as session:
        newest = tf.train.latest_checkpoint(str(tmp_path / "kept"))
        tf.train.Saver().restore(session, newest)
        step = session.run(tf.train.get_global_step())
        kept = training.measure(session, built, data.validation)["loss"]
    assert step in (2, 4)
    np.testing.assert_allclose(kept, results["validation"]["loss"], rtol=1e-5)

    again = cifar10.main([*given, "--epochs", "3"])
    assert f"goes on from {newest}" in capsys.readouterr().out.replace("\n", "")
    assert again["validation"]["loss"] <= kept * (1 + 1e-6)


@pytest.mark.parametrize("rate", [0.5, 300.0])
def test_early_stopping_goes_back_to_the_best_weights(rate: float) -> None:
    real_data, training = load("real_data"), load("training")
    data = real_data.iris()
    model = load("softmax_regression").build(4, 3, rate=rate)
    with tf.Session(graph=model.graph) as session:
        session.run(model.initializer)
        history = training.fit(session, model, data, 60, 16, patience=2)
        after = training.measure(session, model, data.validation)["loss"]
        assert after == history.validation[history.best_epoch] == min(history.validation)
        assert len(history.validation) == min(60, history.best_epoch + 3)
        more = training.fit(session, model, data, 62, 16, patience=2, done=60)
        assert len(more.train) == 2 and more.best_epoch >= 59
        assert training.measure(session, model, data.validation)["loss"] == min(after, *more.validation)


@pytest.mark.parametrize("name", ["gan", "dcgan"])
def test_adversaries_play(name: str, tmp_path: Path) -> None:
    adversarial, real_data = load("adversarial"), load("real_data")
    rng = np.random.default_rng(0)
    part = real_data.Split(rng.random((96, 784), dtype=np.float32), np.zeros(96, np.int32))
    data = real_data.DataSet("noise", part, part, part, ())
    built = load(name).build()
    console = importlib.import_module("rich.console").Console(quiet=True)
    with tf.Session(graph=built.graph) as session:
        session.run(built.initializer)
        owned = {scope: [v for v in built.variables if v.op.name.startswith(scope)]
                 for scope in ("generator", "discriminator")}
        assert owned["generator"] and owned["discriminator"]
        feed = {built.images: part.x[:32] * 2 - 1, built.noise: rng.standard_normal((32, 100), dtype=np.float32)}
        for step, moves in ((built.discriminator_step, "discriminator"), (built.generator_step, "generator")):
            trainable = [v for v in owned[moves] if v.trainable]
            others = [v for scope, some in owned.items() if scope != moves for v in some if v.trainable]
            before = session.run(trainable), session.run(others)
            session.run(step, feed)
            after = session.run(trainable), session.run(others)
            assert all(np.any(a != b) for a, b in zip(before[0], after[0], strict=True))
            assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
        losses = adversarial.play(session, built, data, 1, 32, 0, console, tmp_path / "grid.png")
    assert np.isfinite(losses).all()
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_filters_find_edges(tmp_path: Path) -> None:
    filters = load("image_filters")
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200
    with tf.Session(graph=filters.build()) as session:
        sobel, blur, sharpen = session.run(["sobel:0", "blur:0", "sharpen:0"], {"image:0": image})
    assert sobel.shape == (20, 30, 1) and sobel.dtype == np.uint8
    assert np.all(sobel[:, 14:16] == 255) and not sobel[:, :14].any() and not sobel[:, 16:].any()
    assert np.all((blur[:, 14] > 0) & (blur[:, 14] < 200))
    np.testing.assert_array_equal(sharpen[:, :13], 0)


def test_filters_write_pictures_of_the_bundled_photograph(tmp_path: Path) -> None:
    written = load("image_filters").main(["--out", str(tmp_path)])
    assert set(written) == {"sobel", "laplace", "edges", "sharpen", "blur"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written.values())


@pytest.fixture
def shared_data() -> str:
    folder = MODELS.parent.parent / "shared" / "data"
    if not (folder / "mnist").is_dir() or not (folder / "cifar10").is_dir():
        pytest.skip("no MNIST and CIFAR-10 at ../shared/data")
    return str(folder)


@pytest.mark.nightly
def test_lenet5_reaches_99_percent_on_mnist(shared_data: str) -> None:
    assert load("lenet5").main(["--data", shared_data])["test"]["accuracy"] >= 0.99


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["gan", "dcgan"])
def test_samples_pass_for_digits(name: str, shared_data: str, tmp_path: Path) -> None:
    results = load(name).main(["--data", shared_data, "--grid", str(tmp_path / "grid.png")])
    assert results["confidence"] >= 0.8 and results["classes"] == 10


@pytest.mark.nightly
def test_resnet20_learns_from_5000_photographs(shared_data: str, tmp_path: Path) -> None:
    results = load("cifar10").main(["--data", shared_data, "--save", str(tmp_path)])
    assert results["test"]["accuracy"] >= 0.55
