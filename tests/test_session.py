"""Session.run: nested fetches, feeds, callables, life and defaults; one compilation for all sizes."""
from __future__ import annotations

import collections

import numpy as np
import pytest

import graphc as tf
from graphc.errors import FetchError, GraphError
from tests.oracle import OracleSession


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as g:
        yield g


@pytest.fixture(params=["oracle", "compiled"])
def session(request: pytest.FixtureRequest, graph: tf.Graph):
    with (OracleSession if request.param == "oracle" else tf.Session)() as sess:
        yield sess


def test_nested_fetches(session: tf.Session) -> None:
    Pair = collections.namedtuple("Pair", "left right")
    a, b = tf.placeholder(tf.float32, name="a", shape=[]), tf.placeholder(tf.float32, shape=[], name="b")
    feed = {a: 2, b: 3}
    op = tf.no_op()
    assert session.run(a + b, feed) == 5
    assert session.run([a + b, [a * b], ()], feed) == [5, [6], ()]
    assert session.run((a, b), feed) == (2, 3)
    assert session.run({"x": a, "y": (b, op)}, feed) == {"x": 2, "y": (3, None)}
    assert session.run(Pair(a, [b]), feed) == Pair(2, [3])
    ordered = session.run(collections.OrderedDict([("z", a), ("a", b)]), feed)
    assert list(ordered.items()) == [("z", 2), ("a", 3)]
    assert session.run(op) is None
    assert session.run([op]) == [None]
    assert session.run([]) == []
    assert session.run("a:0", feed) == 2
    assert session.run(["a:0", op.name], feed) == [2, None]
    assert session.run([a, a], feed) == [2, 2]


def test_fetched_rows(session: tf.Session) -> None:
    w = tf.get_variable("w", initializer=np.ones((4, 2), np.float32))
    (grad,) = tf.gradients(tf.nn.embedding_lookup(w, [1, 1, 3]), [w])
    session.run(w.initializer)
    found = session.run(grad)
    np.testing.assert_array_equal(found.indices, [1, 1, 3])
    np.testing.assert_array_equal(found.values, np.ones((3, 2)))


def test_feeds_of_any_tensor_and_by_name(session: tf.Session) -> None:
    x = tf.placeholder(tf.float32, [None], "x")
    y = tf.square(x, "y")
    z = y + 1
    np.testing.assert_array_equal(session.run(z, {x: [1, 2]}), [2, 5])
    np.testing.assert_array_equal(session.run(z, {"x:0": np.array([3])}), [10])
    np.testing.assert_array_equal(session.run(z, {y: [10.0]}), [11])
    np.testing.assert_array_equal(session.run(y, {y: [10.0]}), [10])


def test_uninitialised_variables_can_be_fed(session: tf.Session) -> None:
    v = tf.Variable(1.0, name="v")
    y = v + 1
    assert session.run(y, {v: 5.0}) == 6
    assert session.run(y, {"v:0": 7.0}) == 8
    assert session.run(y, {v.value(): 9.0}) == 10


def test_feeds_are_converted_where_nothing_is_lost(session: tf.Session) -> None:
    f, i = tf.placeholder(tf.float32, [None]), tf.placeholder(tf.int8, [])
    np.testing.assert_array_equal(session.run(f * 1, {f: np.arange(3)}), [0, 1, 2])
    np.testing.assert_array_equal(session.run(f * 1, {f: np.array([[1.5, 9], [2.5, 9]])[:, 0]}), [1.5, 2.5])
    assert session.run(i + 1, {i: np.float64(4.0)}) == 5
    assert session.run(i + 1, {i: np.int64(5)}) == 6
    with pytest.raises(TypeError, match="does not hold the fed values"):
        session.run(i + 1, {i: 300})
    with pytest.raises(TypeError, match="not whole"):
        session.run(i + 1, {i: 1.5})


def test_results_are_the_users_own(session: tf.Session) -> None:
    v = tf.Variable(np.zeros(300, np.float32))
    x = tf.placeholder(tf.float32, [None])
    session.run(v.initializer)
    fed = np.ones(4, np.float32)
    content, back = session.run([v, tf.identity(x)], {x: fed})
    content[:] = 7
    back[:] = 7
    np.testing.assert_array_equal(session.run(v), np.zeros(300))
    np.testing.assert_array_equal(fed, np.ones(4))


def test_one_extraction_serves_all_sizes() -> None:
    x = tf.placeholder(tf.float32, [None, 3])
    y = tf.reduce_sum(x * 2, 1)
    with OracleSession() as sess:
        for n in (1, 7, 128, 0):
            assert sess.run(y, {x: np.ones((n, 3))}).tolist() == [6.0] * n
        assert sess.extractions == 1


def test_sizes_that_are_assumed_equal_may_be_one(session: tf.Session) -> None:
    a, b = tf.placeholder(tf.float32, [None]), tf.placeholder(tf.float32, [None])
    z = a + b
    (da,) = tf.gradients(z * z, [a])
    for x, y in (([1, 2], [3, 4]), ([1, 2], [3]), ([1], [3, 4]), ([1], [3]), ([1, 2, 3], [4, 5, 6]), ([5], [6, 7])):
        total, grad = session.run([z, da], {a: x, b: y})
        expected = np.add(x, y)
        np.testing.assert_array_equal(total, expected)
        np.testing.assert_array_equal(grad, 2 * expected if len(x) == len(expected) else [2 * expected.sum()])
    with pytest.raises(tf.errors.InvalidArgumentError, match="3 and 2"):
        session.run(z, {a: [1, 2, 3], b: [1, 2]})


def test_fed_sizes(session: tf.Session) -> None:
    n = tf.placeholder(tf.int32, [])
    for k in (2, 0, 5):
        np.testing.assert_array_equal(session.run(tf.ones([n, 2]), {n: k}), np.ones((k, 2)))


def test_unknown_ranks(session: tf.Session) -> None:
    x = tf.placeholder(tf.float32)
    y = x * 2
    assert session.run(y, {x: 3}) == 6
    np.testing.assert_array_equal(session.run(y, {x: [[1, 2]]}), [[2, 4]])
    assert session.run(y, {x: 4}) == 8


def test_callables(session: tf.Session) -> None:
    a, b = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [])
    f = session.make_callable([a - b, b], [b, a])
    assert f(1.0, 5.0) == [4, 1]
    assert session.make_callable(a - b, [a, b])(1, 5) == -4
    with pytest.raises(TypeError, match="takes 2 fed values, 1 are given"):
        f(1.0)
    with pytest.raises(ValueError, match="is fed the shape"):
        f([1.0], 2.0)


def test_programs_are_kept_by_fetches_and_feeds() -> None:
    x = tf.placeholder(tf.float32, [])
    y, z = x + 1, x * 2
    with OracleSession() as sess:
        for _ in range(3):
            sess.run(y, {x: 1})
            sess.run([y, z], {x: 1})
            sess.run((y, z), {x: 1})
            sess.run({"a": [y, z]}, {x: 1})
        assert sess.extractions == 2


def test_seeds_decide_what_is_drawn() -> None:
    tf.set_random_seed(5)
    x = tf.random_normal([6])
    other = tf.random_uniform([6], seed=3)
    draws = []
    for _ in range(2):
        with OracleSession() as sess:
            draws.append([sess.run([x, other]) for _ in range(2)])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0][0][0] != draws[0][1][0]).any()


def test_defaults(graph: tf.Graph) -> None:
    c = tf.constant(3)
    with pytest.raises(ValueError, match="no session is the default"):
        c.eval()
    with tf.Graph().as_default(), tf.Session(graph=graph) as sess:
        assert tf.get_default_graph() is graph
        assert tf.get_default_session() is sess
        assert c.eval() == 3
    assert tf.get_default_session() is None
    with tf.Session(graph=tf.Graph()), pytest.raises(ValueError, match="another graph"):
        c.eval()
    interactive = tf.InteractiveSession()
    assert c.eval() == 3
    tf.no_op().run()
    interactive.close()
    assert tf.get_default_session() is None
    keep = tf.Session()
    with keep.as_default():
        assert c.eval() == 3
    assert keep.run(c) == 3


def test_closed_sessions() -> None:
    c = tf.constant(1)
    sess = tf.Session()
    call = sess.make_callable(c)
    sess.run(c)
    sess.close()
    for run in (lambda: sess.run(c), call):
        with pytest.raises(RuntimeError, match="closed"):
            run()


def test_what_cannot_be_fetched_or_fed(session: tf.Session) -> None:
    x = tf.placeholder(tf.float32, [])
    for bad in (None, 3.5, [x, None], object()):
        with pytest.raises(FetchError, match="cannot be fetched"):
            session.run(bad, {x: 1})
    with pytest.raises(FetchError, match="is fed a tensor"):
        session.run(x + 1, {x: tf.constant(1.0)})
    with pytest.raises(TypeError, match="feed_dict must be a dict"):
        session.run(x + 1, [(x, 1)])
    with pytest.raises(FetchError, match=r"neither|not a tensor"):
        session.run(x + 1, {3: 1})
    with pytest.raises(FetchError, match="twice"):
        session.run(x + 1, {x: 1, x.name: 1})


def test_configuration(graph: tf.Graph) -> None:
    config = tf.ConfigProto(intra_op_parallelism_threads=1, allow_soft_placement=True,
                            gpu_options=tf.GPUOptions(allow_growth=True))
    config.gpu_options.per_process_gpu_memory_fraction = 0.5
    sess = tf.Session(config=config)
    assert sess.options.worker_count == 1
    metadata = tf.RunMetadata()
    traced = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
    assert sess.run(tf.constant(1), options=traced, run_metadata=metadata) == 1
    assert sess.list_devices()[0].device_type == "CPU"
    with pytest.raises(ValueError, match="has no field 'alow_growth'"):
        tf.GPUOptions(alow_growth=True)
    with pytest.raises(GraphError, match="only ''"):
        tf.Session("grpc://there")
