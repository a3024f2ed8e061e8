"""Long sums of products in two kernels: who is split, and that all parts are added."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc import dtypes
from graphc.ir import dim
from graphc.ir.dim import symbol
from graphc.kernel.ir import Axis, Contract, Expr, Load, Param, Store, Var, size
from graphc.kernel.primitives import prim
from graphc.kernel.verify import verify
from graphc.passes.lower_parts import PARTS, in_parts
from graphc.passes.tidy import Piece

N, F = symbol("n0"), dtypes.float32


def _gradient(images: Any = N, size_: int = 9, channels: int = 4,
              filters: int = 6) -> tuple[tuple[Param, ...], Contract]:
    """The gradient of a 3x3 filter without padding."""
    out = size_ - 2
    at = [prim("add", Axis(o), Axis(k)) for o, k in (("o0", "t0"), ("o1", "t1"))]
    loops = {"t0": 3, "t1": 3, "c": channels, "f": filters, "i": images, "o0": out, "o1": out}

    def pairs(*names: str) -> tuple[tuple[str, Expr], ...]:
        return tuple((name, size(loops[name])) for name in names)

    contract = Contract((), pairs("t0", "t1", "c"), pairs("f"), pairs("i", "o0", "o1"),
                        Load("x", (Axis("i"), *at, Axis("c")), F),
                        Load("y", (Axis("i"), Axis("o0"), Axis("o1"), Axis("f")), F),
                        "acc", F, (Store("w", tuple(Axis(a) for a in ("t0", "t1", "c", "f")), Var("acc", F)),))
    return (Param("x", F, (images, size_, size_, channels), "in"), Param("y", F, (images, out, out, filters), "in"),
            Param("w", F, (3, 3, channels, filters), "out")), contract


def _pieces(**sizes: Any) -> list[Piece] | None:
    params, contract = _gradient(**sizes)
    return in_parts("gradient", params, (contract,), (), ())


def test_the_number_of_parts_depends_on_the_sizes_alone() -> None:
    pieces = _pieces()
    assert pieces is not None and len(pieces) == 2
    for piece in pieces:
        verify(piece.kernel)
    partial, = pieces[0].partial
    for images in (1, 2, 15, 16, 17, 129, 1000):
        parts = dim.evaluate(partial.shape[0], {"n0": images})
        assert 1 <= parts <= PARTS and parts * -(-images // PARTS) >= images


@pytest.mark.parametrize("sizes", [{"images": 1}, {"images": 2, "size_": 4}, {"channels": 512, "filters": 512}],
                         ids=str)
def test_short_sums_and_large_filters_stay_whole(sizes: dict[str, int]) -> None:
    assert _pieces(**sizes) is None


def test_an_axis_of_a_window_is_not_split() -> None:
    params, contract = _gradient(images=4)
    moved = Contract((), contract.m, contract.n, (contract.k[1], contract.k[0], contract.k[2]), contract.a, contract.b,
                     "acc", F, contract.body)
    assert in_parts("gradient", params, (moved,), (), ()) is None


def test_one_tap_makes_no_window() -> None:
    params, contract = _gradient()
    m = ("t0", size(1)), ("t1", size(1)), contract.m[2]
    plain = Contract((), m, contract.n, contract.k, contract.a, contract.b, "acc", F, contract.body)
    assert in_parts("gradient", params, (plain,), (), ()) is None


def test_known_batches_that_divide_need_no_guard() -> None:
    def guarded(pieces: list[Piece] | None) -> bool:
        assert pieces is not None
        contract = pieces[0].kernel.body[0]
        assert isinstance(contract, Contract) and isinstance(contract.a, Load)
        return contract.a.predicate is not None

    assert guarded(_pieces()) and guarded(_pieces(images=129)) and not guarded(_pieces(images=128))


@pytest.mark.parametrize("backend", ["llvm_cpu", "interp"])
def test_all_images_are_added(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_BACKEND", backend)
    images = {"llvm_cpu": (0, 1, 3, 16, 17, 129), "interp": (2, 17)}[backend]
    with tf.Graph().as_default():
        x, w = tf.placeholder(tf.float32, (None, 7, 7, 2)), tf.placeholder(tf.float32, (3, 3, 2, 3))
        y = tf.nn.conv2d(x, w, [1, 1, 1, 1], "SAME")
        gradient = tf.gradients(y, w)[0] * 2.0
        with tf.Session() as session:
            for n in images:
                data = np.random.default_rng().integers(-4, 5, (n, 7, 7, 2)).astype(np.float32)
                got = session.run(gradient, {x: data, w: np.zeros((3, 3, 2, 3), np.float32)})
                padded = np.pad(data, ((0, 0), (1, 1), (1, 1), (0, 0)))
                for i, j in np.ndindex(3, 3):
                    want = 2 * padded[:, i:i + 7, j:j + 7].sum((0, 1, 2))
                    np.testing.assert_array_equal(got[i, j], np.repeat(want[:, None], 3, 1))


