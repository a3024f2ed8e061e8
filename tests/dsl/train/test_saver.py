"""Checkpoints: what is saved is restored, bit by bit; names, folders and files are TensorFlow's; bad files change
nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import graphc as tf


@pytest.fixture(autouse=True)
def fresh_graph() -> None:
    tf.reset_default_graph()


def test_values_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    values = {"a": rng.standard_normal((3, 1, 5)).astype(np.float32), "b/c": np.array(7, np.int64),
              "d": np.array([True, False]), "e": rng.standard_normal((0, 4)),
              "f": np.asfortranarray(rng.random((4, 6)))}
    made = {name: tf.Variable(value, name=name) for name, value in values.items()}
    half = tf.Variable(tf.constant([1.5, -2.25], tf.bfloat16), name="half")
    saver = tf.train.Saver()
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        path = saver.save(sess, str(tmp_path / "model.ckpt"), global_step=12)
    assert path == str(tmp_path / "model.ckpt-12")
    stored = tf.train.load_checkpoint(path)
    assert stored.get_variable_to_shape_map()["a"] == [3, 1, 5]
    with tf.Session() as sess:
        saver.restore(sess, path)
        for name, value in values.items():
            np.testing.assert_array_equal(sess.run(made[name]), value)
        np.testing.assert_array_equal(sess.run(half), [1.5, -2.25])


def test_the_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    value = np.arange(12, dtype=np.float32).reshape(3, 4).T
    v = tf.Variable(value, name="v")
    with tf.Session() as sess:
        sess.run(v.initializer)
        path = tf.train.Saver([v]).save(sess, str(tmp_path / "m"))
    np.testing.assert_array_equal(load_file(path + ".safetensors")["v"], value)


def test_the_newest_is_found_and_the_oldest_go(tmp_path: Path) -> None:
    v = tf.Variable(0, name="v")
    step = tf.train.get_or_create_global_step()
    saver = tf.train.Saver(max_to_keep=2)
    assert tf.train.latest_checkpoint(str(tmp_path)) is None
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        for _ in range(4):
            sess.run(tf.assign_add(step, 1))
            saver.save(sess, str(tmp_path / "m"), global_step=step)
        assert [Path(p).name for p in saver.last_checkpoints] == ["m-3", "m-4"]
        assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "m-4")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "m-3.safetensors", "m-4.safetensors"]
        assert (tmp_path / "checkpoint").read_text().splitlines()[0] == 'model_checkpoint_path: "m-4"'
        assert dict(tf.train.list_variables(str(tmp_path))) == {"v": [], "global_step": []}
        v.load(5, sess)
        saver.restore(sess, tf.train.latest_checkpoint(str(tmp_path)))
        assert sess.run([v, step]) == [0, 4]


def test_names_of_the_file_may_differ(tmp_path: Path) -> None:
    v, w = tf.Variable([1.0], name="v"), tf.Variable([2.0], name="w")
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        path = tf.train.Saver({"old": v}).save(sess, str(tmp_path / "m"))
        tf.train.Saver({"old": w}).restore(sess, path)
        assert sess.run(w) == [1.0]


def test_a_bad_checkpoint_changes_nothing(tmp_path: Path) -> None:
    a, weight = tf.Variable([1.0, 2.0], name="a"), tf.Variable([3.0], name="weight")
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        path = tf.train.Saver({"a": a, "weights": weight}).save(sess, str(tmp_path / "m"))
        a.load([5.0, 6.0], sess)
        with pytest.raises(tf.errors.NotFoundError, match=r"weight not found in checkpoint.*weights"):
            tf.train.Saver().restore(sess, path)
        with pytest.raises(tf.errors.InvalidArgumentError, match="shape"):
            tf.train.Saver({"a": weight}).restore(sess, path)
        with pytest.raises(ValueError, match="not a valid checkpoint"):
            tf.train.Saver().restore(sess, str(tmp_path / "other"))
        Path(path + ".safetensors").write_bytes(b"\x10" + bytes(7) + b"{]")
        with pytest.raises(ValueError):
            tf.train.Saver().restore(sess, path)
        np.testing.assert_array_equal(sess.run(a), [5.0, 6.0])


def test_reshape(tmp_path: Path) -> None:
    a, b = tf.Variable(np.arange(6.0).reshape(2, 3), name="a"), tf.Variable(np.zeros((3, 2)), name="b")
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        path = tf.train.Saver([a]).save(sess, str(tmp_path / "m"))
        tf.train.Saver({"a": b}, reshape=True).restore(sess, path)
        np.testing.assert_array_equal(sess.run(b), np.arange(6.0).reshape(3, 2))


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no variables"):
        tf.train.Saver()
    v = tf.Variable(1.0)
    with pytest.raises(TypeError, match="not a variable"):
        tf.train.Saver([v + 1.0])
    with tf.Session() as sess:
        with pytest.raises(tf.errors.FailedPreconditionError):
            tf.train.Saver().save(sess, str(tmp_path / "m"))
        with pytest.raises(ValueError, match="does not exist"):
            tf.train.Saver().save(sess, str(tmp_path / "no" / "m"))
    assert list(tmp_path.iterdir()) == []
