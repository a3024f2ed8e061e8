"""Real data for the models: found on disk, or bundled with scikit-learn.

A data set is looked for in this order: the folder given, the folder named by $GRAPHC_DATA, then what the [data] extra
bundles.  Nothing is downloaded.  Under a folder, MNIST stands in `mnist/` (the four original idx files, gzipped or
not), iris in `iris/iris.csv`, auto-mpg in `regression/auto-mpg.csv`, California housing in
`regression/california-housing.csv`, CIFAR-10 in `cifar10/` or `cifar-10-batches-bin/` (files of the official binary
layout) and photographs in `images/`.
"""

from __future__ import annotations

import csv
import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Split:
    """Rows of one part: x float32 (rows, features), y int32 (rows,) or float32 (rows,)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def enlarged(self, size: int) -> Split:
        """Return square grey images, pixels row by row, as images of size x size; each pixel repeated."""
        side = round(self.x.shape[1] ** 0.5)
        nearest = np.arange(size) * side // size
        grid = self.x.reshape(-1, side, side)[:, nearest[:, None], nearest]
        return Split(grid.reshape(len(self), size * size), self.y)

    def moments(self, at_once: int = 1000) -> tuple[float, float]:
        """Return the mean and the deviation of all entries of x, some rows at a time: np.std copies all of them."""
        parts = [self.x[start : start + at_once] for start in range(0, len(self), at_once)]
        mean = sum(float(np.sum(part, dtype=np.float64)) for part in parts) / self.x.size
        squares = sum(float(np.sum(np.square(part - np.float32(mean)), dtype=np.float64)) for part in parts)
        return mean, (squares / self.x.size) ** 0.5


@dataclass(frozen=True)
class DataSet:
    """A data set in three parts.  classes: names of the classes, empty for regression."""

    name: str
    train: Split
    validation: Split
    test: Split
    features: tuple[str, ...]
    classes: tuple[str, ...] = ()


def folders(given: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders to search, best first.  Raises FileNotFoundError for a given folder that is not there."""
    found = []
    for text, source in ((given, "the folder given"), (os.environ.get("GRAPHC_DATA"), "$GRAPHC_DATA")):
        if text:
            if not Path(text).is_dir():
                raise FileNotFoundError(f"{source}, {text}, is not a folder")
            found.append(Path(text))
    return found


def _bundled(name: str):  # type: ignore[no-untyped-def]
    try:
        from sklearn import datasets
    except ImportError:
        raise FileNotFoundError(
            f"no data: give a folder with --data, set GRAPHC_DATA, or pip install 'graphc[data]' "
            f"for {name}"
        ) from None
    return getattr(datasets, "load_" + name)()


def _shuffled(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    features: tuple[str, ...],
    classes: tuple[str, ...] = (),
    seed: int = 0,
    parts: tuple[float, float] = (0.7, 0.1),
) -> DataSet:
    """Split rows at random: 70 % to train on, 10 % to validate, the rest to test."""
    order = np.random.default_rng(seed).permutation(len(x))
    a = int(parts[0] * len(x))
    b = a + int(parts[1] * len(x))
    cut = [Split(x[i], y[i]) for i in (order[:a], order[a:b], order[b:])]
    return DataSet(name, cut[0], cut[1], cut[2], features, classes)


def _open(path: Path) -> bytes:
    packed = path.with_name(path.name + ".gz")
    if packed.exists():
        with gzip.open(packed) as f:
            return f.read()
    return path.read_bytes()


def _mnist(folder: Path) -> DataSet:
    def images(part: str) -> np.ndarray:
        raw = _open(folder / f"{part}-images-idx3-ubyte")
        return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / np.float32(255)

    def labels(part: str) -> np.ndarray:
        return np.frombuffer(_open(folder / f"{part}-labels-idx1-ubyte"), np.uint8, offset=8).astype(np.int32)

    x, y = images("train"), labels("train")
    pixels = tuple(f"pixel {i // 28},{i % 28}" for i in range(784))
    return DataSet(
        "MNIST",
        Split(x[:55000], y[:55000]),
        Split(x[55000:], y[55000:]),
        Split(images("t10k"), labels("t10k")),
        pixels,
        tuple("0123456789"),
    )


def digits(folder: str | None = None) -> DataSet:
    """Handwritten digits: MNIST (28 x 28 pixels, 55,000 / 5,000 / 10,000 rows) where a folder has it, else the
    UCI digits bundled with scikit-learn (8 x 8 pixels, 1,257 / 179 / 361 rows).  Pixels are in 0..1."""
    for place in folders(folder):
        if (place / "mnist").is_dir():
            return _mnist(place / "mnist")
    raw = _bundled("digits")
    return _shuffled(
        "UCI digits",
        raw.data.astype(np.float32) / np.float32(16),
        raw.target.astype(np.int32),
        tuple(raw.feature_names),
        tuple("0123456789"),
    )


def digit_images(folder: str | None = None) -> DataSet:
    """Return `digits` as images of 28 x 28 pixels, enlarged where they are smaller."""
    found = digits(folder)
    if found.train.x.shape[1] == 28 * 28:
        return found
    parts = [part.enlarged(28) for part in (found.train, found.validation, found.test)]
    pixels = tuple(f"pixel {i // 28},{i % 28}" for i in range(28 * 28))
    return DataSet(f"{found.name}, enlarged", *parts, pixels, found.classes)


def cifar10(folder: str | None = None) -> DataSet:
    """CIFAR-10: photographs of 32 x 32 pixels in ten classes; x is uint8, height by width by colour.

    All `data_batch*.bin` of the folder are read, so the official files (50,000 rows) and parts of them do alike; the
    last tenth is to validate.  Raises FileNotFoundError where no folder has it.
    """
    for place in folders(folder):
        for name in ("cifar10", "cifar-10-batches-bin"):
            files = sorted((place / name).glob("data_batch*.bin"))
            if files:
                return _cifar10(files, sorted((place / name).glob("test_batch*.bin")))
    raise FileNotFoundError("CIFAR-10 is not bundled: give a folder with --data or set GRAPHC_DATA")


def _cifar10(train: list[Path], test: list[Path]) -> DataSet:
    def records(files: list[Path]) -> Split:
        rows = np.concatenate([np.fromfile(f, np.uint8).reshape(-1, 3073) for f in files])
        colours = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return Split(np.ascontiguousarray(colours).reshape(-1, 3072), rows[:, 0].astype(np.int32))

    rows = records(train)
    cut = len(rows) * 9 // 10
    pixels = tuple(f"{colour} {i // 32},{i % 32}" for i in range(1024) for colour in ("red", "green", "blue"))
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return DataSet("CIFAR-10", Split(rows.x[:cut], rows.y[:cut]), Split(rows.x[cut:], rows.y[cut:]), records(test),
                   pixels, names)


def photograph(folder: str | None = None) -> np.ndarray:
    """Return a photograph, uint8 (height, width, 3): the first of the folder's `images/`, else one bundled with
    scikit-learn."""
    for place in folders(folder):
        files = sorted((place / "images").glob("*.png"))
        if files:
            return read_image(files[0])
    return np.asarray(_bundled("sample_images").images[0])


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Return an image file as uint8 (height, width, 3)."""
    with _pillow().open(path) as image:
        return np.asarray(image.convert("RGB"))


def write_image(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Write uint8 (height, width) or (height, width, 3) as PNG."""
    _pillow().fromarray(pixels).save(path, format="PNG")


def _pillow():  # type: ignore[no-untyped-def]
    try:
        from PIL import Image
    except ImportError:
        raise SystemExit("images need Pillow: pip install 'graphc[viz]'") from None
    return Image


def iris(folder: str | None = None) -> DataSet:
    """Fisher's iris: 4 lengths in cm, 3 species, 150 rows."""
    names = ("setosa", "versicolor", "virginica")
    for place in folders(folder):
        path = place / "iris" / "iris.csv"
        if path.exists():
            with path.open() as f:
                rows = list(csv.DictReader(f))
            columns = tuple(c for c in rows[0] if c != "species")
            x = np.array([[float(r[c]) for c in columns] for r in rows], np.float32)
            y = np.array([names.index(r["species"]) for r in rows], np.int32)
            return _shuffled("iris", x, y, columns, names, parts=(0.6, 0.2))
    raw = _bundled("iris")
    return _shuffled(
        "iris",
        raw.data.astype(np.float32),
        raw.target.astype(np.int32),
        tuple(raw.feature_names),
        names,
        parts=(0.6, 0.2),
    )


def breast_cancer(folder: str | None = None) -> DataSet:
    """Wisconsin breast cancer (diagnostic): 30 measurements of cell nuclei, malignant or benign, 569 rows (bundled)."""
    folders(folder)
    raw = _bundled("breast_cancer")
    return _shuffled(
        "Wisconsin breast cancer",
        raw.data.astype(np.float32),
        raw.target.astype(np.int32),
        tuple(raw.feature_names),
        tuple(raw.target_names),
    )


def fuel_economy(folder: str | None = None) -> DataSet:
    """A regression: miles per gallon from six figures of a car (auto-mpg, 392 complete rows) where a folder has it,
    else the bundled diabetes study (442 rows, 10 figures; progression after a year)."""
    for place in folders(folder):
        path = place / "regression" / "auto-mpg.csv"
        if path.exists():
            columns = ("cylinders", "displacement", "horsepower", "weight", "acceleration", "model_year")
            with path.open() as f:
                rows = [r for r in csv.DictReader(f) if all(r[c] for c in (*columns, "mpg"))]
            x = np.array([[float(r[c]) for c in columns] for r in rows], np.float32)
            return _shuffled("auto-mpg", x, np.array([float(r["mpg"]) for r in rows], np.float32), columns)
    raw = _bundled("diabetes")
    return _shuffled("diabetes", raw.data.astype(np.float32), raw.target.astype(np.float32), tuple(raw.feature_names))


def housing(folder: str | None = None) -> DataSet:
    """California housing of the 1990 census: median house value in 100,000 dollars from eight figures of a district
    (20,433 complete rows).  Raises FileNotFoundError where no folder has it."""
    for place in folders(folder):
        path = place / "regression" / "california-housing.csv"
        if path.exists():
            with path.open() as f:
                rows = list(csv.DictReader(f))
            columns = tuple(c for c in rows[0] if c not in ("ocean_proximity", "median_house_value"))
            rows = [r for r in rows if all(r[c] for c in columns)]
            x = np.array([[float(r[c]) for c in columns] for r in rows], np.float32)
            y = np.array([float(r["median_house_value"]) / 1e5 for r in rows], np.float32)
            return _shuffled("California housing", x, y, columns)
    raise FileNotFoundError("California housing is not bundled: give a folder with --data or set GRAPHC_DATA")
