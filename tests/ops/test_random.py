"""Random ops give TensorFlow's numbers: facts from TensorFlow's CPU kernels with seed 1234 and seed2 87654321."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.dtypes import DType, as_dtype, float32, int32, int64, uint64
from graphc.ir.evaluate import apply
from graphc.ir.types import TensorType
from graphc.ops.base import lookup
from graphc.ops.random import philox
from tests.ops.cases import Array

COUNTER = TensorType(uint64, (3,))


def start() -> Array:
    return np.array([0, 87654321, 1234], np.uint64)


def test_philox_known_answers() -> None:
    """Source: Random123's known-answer tests for philox4x32-10: all zeros, all ones, digits of pi."""
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    pi = np.array([0x85A308D3243F6A88, 0x0370734413198A2E, 0x299F31D0A4093822], np.uint64)
    for counter, want in (
            (np.zeros(3, np.uint64), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
            (np.array([ones, ones, ones]), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
            (pi, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1))):
        assert philox(counter, np.zeros(1, np.uint64))[0].tolist() == list(want)


def draw(name: str, dtype: DType, shape: tuple[int, ...], counter: Array) -> tuple[Array, Array]:
    values, following = apply(lookup(name), [counter], [COUNTER], {"shape": shape, "dtype": dtype},
                              [TensorType(dtype, shape), COUNTER])
    return values, following


@pytest.mark.parametrize(("name", "dtype", "first", "second"), [
    ("RandomUniform", "float16", [0.936523438, 0.688476562, 0.693359375, 0.319335938],
     [0.42578125, 0.520507812, 0.037109375, 0.143554688]),
    ("RandomUniform", "float32", [0.945793033, 0.387657285, 0.423790693, 0.0975731611],
     [0.581472874, 0.0617090464, 0.0813033581, 0.562151313]),
    ("RandomUniform", "float64", [0.566344983, 0.39032634, 0.424852405, 0.642717295],
     [0.651783424, 0.650427722, 0.264509675, 0.280360767]),
    ("RandomStandardNormal", "float16", [0.216552734, -0.254150391, 0.75390625, 1.07128906],
     [0.393798828, 0.963867188, -0.853027344, -2.07226562]),
    ("RandomStandardNormal", "float32", [0.216574237, -0.254083902, 0.753953993, 1.07172048],
     [0.393716186, 0.964038134, -0.852805495, -2.07168031]),
    ("RandomStandardNormal", "float64", [0.678031341, -0.823029315, -1.02226584, -0.816700347],
     [-0.750001107, -0.541834135, 1.60129138, -0.309226135]),
    ("TruncatedNormal", "float16", [0.216552734, -0.254150391, 0.75390625, 1.07128906],
     [-0.167480469, 0.953125, -0.667480469, -1.45605469]),
    ("TruncatedNormal", "float32", [0.216574237, -0.254083902, 0.753953993, 1.07172048],
     [-0.16742143, 0.9529652, -0.667374313, -1.4562465]),
    ("TruncatedNormal", "float64", [0.678031341, -0.823029315, -0.449635862, 0.423964985],
     [0.616508546, 1.06733951, 1.20813835, 0.617710155]),
])
def test_floats(name: str, dtype: str, first: list[float], second: list[float]) -> None:
    counter = start()
    for want in (first, second):  # two runs of one session
        values, counter = draw(name, as_dtype(dtype), (5, 7) if name != "TruncatedNormal" else (50, 7), counter)
        np.testing.assert_allclose(values.reshape(-1)[:4], want, rtol=1e-6 if dtype != "float16" else 2e-3)


def other(name: str, arrays: list[Any], types: list[TensorType], attrs: dict[str, Any],
          out: TensorType) -> list[list[Any]]:
    counter, found = start(), []
    for _ in range(2):
        values, counter = apply(lookup(name), [*arrays, counter], [*types, COUNTER], attrs, [out, COUNTER])
        found.append(values.reshape(-1)[:8].tolist())
    return found


def test_integers() -> None:
    for dtype, want in ((int32, [[9, 86, 24, 26, 93, 46, 38, 68], [76, 62, 43, 27, 81, 23, 5, 51]]),
                        (int64, [[-5, 85, 24, 36, 69, 92, 33, 46], [8, 45, 4, 61, 57, 4, 63, 98]])):
        ends = [np.asarray(v, dtype.as_numpy_dtype) for v in (-5, 100)]
        assert other("RandomUniformInt", ends, [TensorType(dtype, ())] * 2, {"shape": (5, 7)},
                     TensorType(dtype, (5, 7))) == want


def test_shuffle() -> None:
    rows = TensorType(int32, (37,))
    found = other("RandomShuffle", [np.arange(37, dtype=np.int32)], [rows], {}, rows)
    assert found == [[1, 26, 31, 16, 15, 35, 5, 6], [13, 36, 5, 28, 4, 8, 26, 7]]


def test_multinomial() -> None:
    logits = np.linspace(-2, 2, 15).reshape(3, 5).astype(np.float32)
    assert other("Multinomial", [logits], [TensorType(float32, (3, 5))], {"num_samples": 7},
                 TensorType(int64, (3, 7))) == [[3, 2, 2, 3, 2, 4, 3, 3], [1, 0, 4, 2, 3, 3, 3, 4]]


def test_a_truncated_normal_is_truncated() -> None:
    values, _ = draw("TruncatedNormal", float32, (4000,), start())
    assert np.abs(values).max() < 2
    assert abs(values.mean()) < 0.05 and abs(values.std() - 0.88) < 0.03
