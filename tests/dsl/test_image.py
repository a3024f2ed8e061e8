"""Images and blocks against their definitions in NumPy; facts of TensorFlow 1.15 stand as numbers."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as tf
from graphc.options import Options
from tests.ops.cases import Array, generator


def run(fetches: Any, feeds: Any = None) -> Any:
    session = tf.get_default_session()
    return session.run(fetches, feeds)


@pytest.fixture(autouse=True)
def in_a_session() -> Any:
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        session.options = Options(cache_dir="")
        yield


def image(*shape: int) -> Array:
    return np.asarray(generator("image", shape).random(shape), np.float32)


def bytes_of(*shape: int) -> Array:
    return np.asarray(generator("bytes", shape).integers(0, 256, shape), np.uint8)


# -- resizing ---------------------------------------------------------------------------------------------------------


def test_resizing_takes_the_elements_that_tensorflow_takes() -> None:
    """Of the row 0 10 20 30; what TensorFlow 1.15 gives for it."""
    row = np.arange(0, 40, 10, dtype=np.float32).reshape(1, 1, 4, 1)
    f, align, centred = tf.image, {"align_corners": True}, {"half_pixel_centers": True}
    got = run([f.resize_nearest_neighbor(row, [1, 6]), f.resize_nearest_neighbor(row, [1, 6], **align),
               f.resize_nearest_neighbor(row, [1, 6], **centred), f.resize_bilinear(row, [1, 8]),
               f.resize_bilinear(row, [1, 7], **align), f.resize_bilinear(row, [1, 8], **centred),
               f.resize_bilinear(row, [1, 2])])
    wanted = [[0, 0, 10, 20, 20, 30], [0, 10, 10, 20, 20, 30], [0, 10, 10, 20, 30, 30],
              [0, 5, 10, 15, 20, 25, 30, 30], [0, 5, 10, 15, 20, 25, 30], [0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30],
              [0, 20]]
    for y, want in zip(got, wanted, strict=True):
        np.testing.assert_allclose(y.reshape(-1), want, atol=1e-5)


def keys(distance: Array, a: float) -> Array:
    """Keys' kernel of 1981."""
    d = np.abs(distance)
    near = (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1
    return np.where(d <= 1, near, np.where(d < 2, a * (d ** 3 - 5 * d ** 2 + 8 * d - 4), 0))


@pytest.mark.parametrize(("centred", "a"), [(False, -0.75), (True, -0.5)])
def test_bicubic_weights_are_keys(centred: bool, a: float) -> None:
    x = image(1, 5, 7, 2)
    got = run(tf.image.resize_bicubic(x, [8, 4], half_pixel_centers=centred))
    want = x.astype(np.float64)
    for axis, count in ((1, 8), (2, 4)):
        size = want.shape[axis]
        place = (np.arange(count) + 0.5) * size / count - 0.5 if centred else np.arange(count) * size / count
        matrix = np.zeros((count, size))
        for o, p in enumerate(place):
            part = np.rint((p - np.floor(p)) * 1024) / 1024
            for tap in range(-1, 3):
                weight, at = keys(np.asarray(part - tap), a), int(np.floor(p)) + tap
                if not centred or 0 <= at < size:
                    matrix[o, min(max(at, 0), size - 1)] += weight
        want = np.moveaxis(np.tensordot(matrix / matrix.sum(1, keepdims=True), want, (1, axis)), 0, axis)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [0, 1, 2])
def test_resizing_at_unknown_sizes_and_its_gradient(method: int) -> None:
    x = image(2, 5, 6, 3)
    known, open_ = tf.placeholder(tf.float32, x.shape), tf.placeholder(tf.float32, [None, None, None, 3])
    found = []
    for t in (known, open_):
        y = tf.image.resize_images(t, [9, 4], method)
        assert y.shape.as_list()[1:] == [9, 4, 3]
        found.append(run([y, *tf.gradients(y * y, t)], {t: x}))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    direction = generator("direction").standard_normal(x.shape).astype(np.float32)
    loss = tf.reduce_sum(tf.square(tf.cast(tf.image.resize_images(known, [9, 4], method), tf.float64)))
    ends = [run(loss, {known: x + sign * 1e-2 * direction}) for sign in (1, -1)]
    np.testing.assert_allclose(np.sum(found[0][1] * direction), (ends[0] - ends[1]) / 2e-2, rtol=2e-3)


def test_resize_images_takes_single_images_and_keeps_proportions() -> None:
    x = bytes_of(4, 6, 3)
    one, same = tf.image.resize_images(x, [2, 3], 1), tf.image.resize_images(x, [4, 6])
    assert one.dtype == tf.uint8 and same.dtype == tf.uint8
    np.testing.assert_array_equal(run(one), x[::2, ::2])
    assert tf.image.resize_images(x, [8, 6], preserve_aspect_ratio=True).shape.as_list() == [4, 6, 3]
    assert tf.image.resize_images(x, [100, 3], preserve_aspect_ratio=True).shape.as_list() == [2, 3, 3]
    with pytest.raises(ValueError, match="method 3 is not supported"):
        tf.image.resize_images(x, [8, 8], 3)
    with pytest.raises(ValueError, match="exclude each other"):
        tf.image.resize_bilinear(x[None], [2, 2], True, half_pixel_centers=True)


# -- geometry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_cuts_and_frames(known: bool) -> None:
    x = image(2, 7, 6, 3)
    t = tf.placeholder(tf.float32, x.shape if known else [None, None, None, 3])
    f = tf.image
    got = run([f.crop_to_bounding_box(t, 1, 2, 4, 3), f.pad_to_bounding_box(t, 1, 2, 9, 10), f.central_crop(t, 0.5),
               f.resize_image_with_crop_or_pad(t, 4, 9), f.resize_image_with_crop_or_pad(t, 10, 3)], {t: x})
    zero = (0, 0)
    wanted = [x[:, 1:5, 2:5], np.pad(x, [zero, (1, 1), (2, 2), zero]), x[:, 1:6, 1:5],
              np.pad(x[:, 1:5], [zero, zero, (1, 2), zero]), np.pad(x[:, :, 1:4], [zero, (1, 2), zero, zero])]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_boxes_that_do_not_fit_are_refused() -> None:
    x = image(5, 6, 3)
    with pytest.raises(ValueError, match="leave axis 0"):
        tf.image.crop_to_bounding_box(x, 3, 0, 3, 2)
    with pytest.raises(ValueError, match="do not fit into 6"):
        tf.image.pad_to_bounding_box(x, 2, 0, 6, 6)
    with pytest.raises(ValueError, match="an image has rank 3"):
        tf.image.flip_up_down(x[0])


def test_mirrors_and_turns() -> None:
    x = bytes_of(4, 5, 2)
    f = tf.image
    got = run([f.flip_left_right(x), f.flip_up_down(x[None]), f.transpose_image(x), *(f.rot90(x, k) for k in range(4)),
               f.rot90(x[None], -1)])
    wanted = [x[:, ::-1], x[None, ::-1], x.swapaxes(0, 1), *(np.rot90(x, k) for k in range(4)), np.rot90(x, 3)[None]]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_random_flips_choose_for_each_image() -> None:
    x = image(64, 2, 3, 1)
    for flip, axis in ((tf.image.random_flip_left_right, 2), (tf.image.random_flip_up_down, 1)):
        y = run(flip(tf.constant(x), seed=3))
        mirrored = np.flip(x, axis)
        turned = [np.array_equal(a, b) for a, b in zip(y, mirrored, strict=True)]
        kept = [np.array_equal(a, b) for a, b in zip(y, x, strict=True)]
        assert all(a != b for a, b in zip(turned, kept, strict=True)) and 16 < sum(turned) < 48
    single = tf.image.random_flip_left_right(tf.constant(x[0]), seed=1)
    assert len({run(single).tobytes() for _ in range(32)}) == 2


# -- colours ----------------------------------------------------------------------------------------------------------


def test_colours_there_and_back() -> None:
    x = image(4, 5, 3)
    hsv = tf.image.rgb_to_hsv(x)
    got, back, grey = run([hsv, tf.image.hsv_to_rgb(hsv), tf.image.rgb_to_grayscale(x)])
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(got[..., 2], x.max(-1))
    np.testing.assert_allclose(grey[..., 0], x @ np.array([0.2989, 0.587, 0.114]), rtol=1e-5)
    primaries = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0, 0, 0]], np.float32)
    want = [[0, 1, 1], [1 / 3, 1, 1], [2 / 3, 1, 1], [0, 0, 0.5], [0, 0, 0]]
    np.testing.assert_allclose(run(tf.image.rgb_to_hsv(primaries[None]))[0], want, atol=1e-6)
    assert run(tf.image.grayscale_to_rgb(x[..., :1])).shape == (4, 5, 3)
    moved = run(tf.image.adjust_hue(primaries[None, :3], 1 / 3))
    np.testing.assert_allclose(moved[0], np.roll(primaries[:3], -1, 0), atol=1e-5)


def test_adjustments_saturate_bytes() -> None:
    x = bytes_of(5, 4, 3)
    f = tf.image
    bright, contrast, gamma = run([f.adjust_brightness(x, 0.25), f.adjust_contrast(x, 3.0), f.adjust_gamma(x, 2.0)])
    assert bright.dtype == contrast.dtype == gamma.dtype == np.uint8
    wide = x.astype(np.float64) / 255
    mean = wide.mean((0, 1), keepdims=True)
    for got, want in ((bright, wide + 0.25), (contrast, (wide - mean) * 3 + mean), (gamma, wide ** 2)):
        np.testing.assert_allclose(got, np.floor(np.clip(want * 255.5, 0, 255)), atol=1)


def test_images_change_their_dtype_by_their_range() -> None:
    cases: list[tuple[Any, Any, Any]] = [
        (np.array([0, 128, 255], np.uint8), tf.float32, [0, 128 / 255, 1]), (np.array([0, 255], np.uint8), tf.int16,
                                                                            [0, 255 * 128]),
        (np.array([0, 32767], np.int16), tf.uint8, [0, 255]), (np.array([0.0, 0.5, 1.0]), tf.uint8, [0, 127, 255])]
    for given, dtype, want in cases:
        np.testing.assert_allclose(run(tf.image.convert_image_dtype(given, dtype)), want, rtol=1e-6)
    assert run(tf.image.convert_image_dtype(np.array([-1.0, 2.0]), tf.uint8, saturate=True)).tolist() == [0, 255]


def test_random_adjustments_stay_in_their_range() -> None:
    x = np.full((2, 2, 3), 0.5, np.float32)
    x[0] = 0.25
    bright = [float(run(y)[0, 0, 0]) - 0.25 for y in [tf.image.random_brightness(x, 0.2)] for _ in range(20)]
    assert min(bright) >= -0.2 and max(bright) < 0.2 and len(set(bright)) == 20
    factor = [float(np.ptp(run(y)) / 0.25) for y in [tf.image.random_contrast(x, 0.5, 1.5)] for _ in range(20)]
    assert min(factor) >= 0.49 and max(factor) < 1.51 and len(set(factor)) == 20
    with pytest.raises(ValueError, match="0 <= lower < upper"):
        tf.image.random_contrast(x, 2.0, 1.0)


def test_standardised_images_have_mean_0_and_deviation_1() -> None:
    x = bytes_of(3, 8, 8, 3)
    got = run(tf.image.per_image_standardization(x))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(got.std((1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_array_equal(run(tf.image.per_image_standardization(np.full((4, 4, 3), 7, np.uint8))), 0)


def test_measures() -> None:
    x = image(2, 5, 6, 3)
    f = tf.image
    variation, (down, across), edges, ratio = run([f.total_variation(x), f.image_gradients(x), f.sobel_edges(x),
                                                   f.psnr(x, x + 0.1, 1.0)])
    np.testing.assert_allclose(variation, np.abs(np.diff(x, axis=1)).sum((1, 2, 3)) + np.abs(np.diff(x, axis=2)).sum(
        (1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(down[:, :-1], np.diff(x, axis=1), atol=1e-6)
    np.testing.assert_allclose(across[:, :, -1], 0)
    assert edges.shape == (2, 5, 6, 3, 2)
    np.testing.assert_allclose(edges[:, 1:-1, 1:-1, :, 0], (
        x[:, 2:, :-2] + 2 * x[:, 2:, 1:-1] + x[:, 2:, 2:]) - (x[:, :-2, :-2] + 2 * x[:, :-2, 1:-1] + x[:, :-2, 2:]),
        atol=1e-5)
    np.testing.assert_allclose(ratio, 20, rtol=1e-4)


# -- blocks and patches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_blocks_become_channels_and_examples_and_come_back(known: bool) -> None:
    x = image(2, 4, 6, 3)
    t = tf.placeholder(tf.float32, x.shape if known else [None, None, None, 3])
    deep, batch = tf.space_to_depth(t, 2), tf.space_to_batch_nd(t, [2, 3], [[1, 1], [0, 3]])
    first = tf.transpose(t, [0, 3, 1, 2])
    got = run([deep, tf.depth_to_space(deep, 2), batch, tf.batch_to_space_nd(batch, [2, 3], [[1, 1], [0, 3]]),
               tf.transpose(tf.depth_to_space(tf.space_to_depth(first, 2, data_format="NCHW"), 2, data_format="NCHW"),
                            [0, 2, 3, 1])], {t: x})
    for i, j in np.ndindex(2, 2):
        np.testing.assert_array_equal(got[0][..., (2 * i + j) * 3:(2 * i + j + 1) * 3], x[:, i::2, j::2])
    padded = np.pad(x, [(0, 0), (1, 1), (0, 3), (0, 0)])
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(got[2][(i * 3 + j) * 2:(i * 3 + j + 1) * 2], padded[:, i::2, j::3])
    for y in (got[1], got[3], got[4]):
        np.testing.assert_array_equal(y, x)


def test_patches_are_rows_of_windows() -> None:
    x = image(2, 5, 6, 3)
    t = tf.placeholder(tf.float32, [None, None, None, 3])
    y = tf.image.extract_image_patches(t, [1, 2, 3, 1], [1, 2, 1, 1], [1, 1, 1, 1], "VALID")
    got, dx = run([y, tf.gradients(y, t)[0]], {t: x})
    want, count = np.empty((2, 2, 4, 18), np.float32), np.zeros_like(x)
    for i, j in np.ndindex(2, 4):
        want[:, i, j] = x[:, 2 * i:2 * i + 2, j:j + 3].reshape(2, -1)
        count[:, 2 * i:2 * i + 2, j:j + 3] += 1
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(dx, count)
