"""Symbolic gradients: worked examples, where gradients stop, gradients by rows, errors, long chains."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from graphc.autodiff import densify, gradients, override_gradient
from graphc.dtypes import float32, float64, int32
from graphc.errors import GradientError
from graphc.graph.graph import Graph
from graphc.graph.tensor import IndexedSlices, Tensor
from graphc.ir.evaluate import evaluate
from graphc.ops import build as b
from graphc.passes.extract import extract


@pytest.fixture(autouse=True)
def graph() -> Iterator[Graph]:
    graph = Graph()
    with graph.as_default():
        yield graph


def scalar(dtype: Any = float64) -> Tensor:
    made: Tensor = b.op("Placeholder", dtype=dtype, shape=())
    return made


def vector(n: int | None = None, dtype: Any = float64) -> Tensor:
    made: Tensor = b.op("Placeholder", dtype=dtype, shape=(n,))
    return made


def run(tensors: Any, feeds: dict[Tensor, Any]) -> list[np.ndarray[Any, Any]]:
    found = [densify(t) if isinstance(t, IndexedSlices) else t for t in tensors]
    return evaluate(extract(found, tuple(feeds)), list(feeds.values()))[0]


# -- worked examples (Stanford CS231n, "Backpropagation" and "Linear classification") -------------------------------


def test_product_of_a_sum() -> None:
    x, y, z = scalar(), scalar(), scalar()
    grads = gradients(b.mul(b.add(x, y), z), [x, y, z])
    assert [float(g) for g in run(grads, {x: -2.0, y: 5.0, z: -4.0})] == [-4.0, -4.0, 3.0]


def test_sigmoid_gate() -> None:
    w, x = [scalar() for _ in range(3)], [scalar() for _ in range(2)]
    gate = b.op("Sigmoid", b.op("AddN", b.mul(w[0], x[0]), b.mul(w[1], x[1]), w[2]))
    feeds = dict(zip([*w, *x], [2.0, -3.0, -3.0, -1.0, -2.0], strict=True))
    dw0, dx0, out = (float(v) for v in run([*gradients(gate, [w[0], x[0]]), gate], feeds))
    assert (round(out, 2), round(dx0, 2), round(dw0, 2)) == (0.73, 0.39, -0.20)


def test_hinge_losses() -> None:
    scores = b.op("Placeholder", dtype=float64, shape=(3, 3))
    labels = b.op("Placeholder", dtype=int32, shape=(3,))
    hot = b.op("OneHot", labels, 3, b.constant(1, float64), b.constant(0, float64))
    right = b.op("Sum", b.mul(scores, hot), (1,), keepdims=True)
    margins = b.op("Maximum", b.add(b.sub(scores, right), 1), b.constant(0, float64))
    losses = b.op("Sum", b.mul(margins, b.sub(1, hot)), (1,))
    table = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    found, grad = run([losses, *gradients(losses, [scores])], {scores: table, labels: np.arange(3)})
    np.testing.assert_allclose(found, [2.9, 0.0, 12.9], atol=1e-12)
    np.testing.assert_array_equal(grad, [[-1, 1, 0], [0, 0, 0], [1, 1, -2]])


# -- where gradients go ---------------------------------------------------------------------------------------------


def test_unconnected_is_none_or_zeros() -> None:
    x, y = vector(3), vector(3)
    assert gradients(b.mul(x, 2), [x, y])[1] is None
    _, zeros = gradients(b.mul(x, 2), [x, y], unconnected_gradients="zero")
    (found,) = run([zeros], {y: np.ones(3)})
    assert found.tolist() == [0.0, 0.0, 0.0]


def test_through_a_stop_and_through_integers_nothing_flows() -> None:
    x = vector(3)
    assert gradients(b.op("StopGradient", x), x) == [None]
    assert gradients(b.op("Cast", b.op("Cast", x, dtype=int32), dtype=float64), x) == [None]
    assert gradients(b.op("Floor", x), x) == [None]


def test_y_among_xs_and_several_ys() -> None:
    x = scalar()
    y = b.op("Square", x)
    (to_x, to_y) = gradients([y, b.mul(y, 3)], [x, y])
    assert [float(v) for v in run([to_x, to_y], {x: 5.0})] == [40.0, 4.0]


def test_grad_ys_weigh_the_ys() -> None:
    x = vector(2)
    seed = b.constant([10.0, -1.0], float64)
    (found,) = run(gradients(b.op("Square", x), x, grad_ys=seed), {x: [1.0, 2.0]})
    assert found.tolist() == [20.0, -4.0]
    with pytest.raises(TypeError, match="grad_ys\\[0\\] is float32, ys\\[0\\] is float64"):
        gradients(b.op("Square", x), x, grad_ys=b.constant([1.0, 1.0], float32))
    with pytest.raises(ValueError, match="1 ys and 2 grad_ys"):
        gradients(b.op("Square", x), x, grad_ys=[seed, seed])


def test_stop_gradients_give_partial_derivatives() -> None:
    """TensorFlow's own example: with a and b held constant, d(a + b)/da is 1, not 3."""
    a = scalar()
    twice = b.mul(a, 2)
    total = b.add(a, twice)
    assert [float(v) for v in run(gradients(total, [a, twice]), {a: 1.0})] == [3.0, 1.0]
    assert [float(v) for v in run(gradients(total, [a, twice], stop_gradients=[a, twice]), {a: 1.0})] == [1.0, 1.0]


def test_a_used_twice_is_summed(graph: Graph) -> None:
    x = scalar()
    (found,) = run(gradients(b.mul(x, x), x), {x: 3.0})
    assert float(found) == 6.0
    assert "AddN" in {op.type for op in graph.get_operations()}


def test_orders_up_to_four() -> None:
    x = scalar()
    y = b.op("Pow", x, b.constant(4, float64))
    wanted = [4 * 8.0, 12 * 4.0, 24 * 2.0, 24.0]
    for want in wanted:
        (y,) = gradients(y, x)
        assert float(run([y], {x: 2.0})[0]) == pytest.approx(want)


def test_a_broadcast_input_gets_the_sum() -> None:
    x, bias = b.op("Placeholder", dtype=float64, shape=(None, 3)), vector(3)
    grads = gradients(b.add(x, bias), [x, bias])
    dx, dbias = run(grads, {x: np.zeros((4, 3)), bias: np.zeros(3)})
    assert dx.shape == (4, 3) and dbias.tolist() == [4.0, 4.0, 4.0]


def test_two_unknown_sizes_that_meet() -> None:
    """Which axis was broadcast is known when the program is compiled."""
    x, y = vector(), vector()
    grads = gradients(b.mul(x, y), [x, y])
    assert [v.tolist() for v in run(grads, {x: [1.0, 2.0], y: [3.0, 4.0]})] == [[3.0, 4.0], [1.0, 2.0]]


# -- rows -----------------------------------------------------------------------------------------------------------


def test_gather_gives_rows() -> None:
    table = b.op("Placeholder", dtype=float64, shape=(5, 2))
    ids = b.constant([3, 0, 3], int32)
    (g,) = gradients(b.op("GatherV2", table, ids, 0), table)
    assert isinstance(g, IndexedSlices)
    assert g.shape.as_list() == [5, 2]
    values, indices, whole = run([g.values, g.indices, g], {table: np.zeros((5, 2))})
    assert indices.tolist() == [3, 0, 3] and values.tolist() == [[1.0, 1.0]] * 3
    assert whole.tolist() == [[1, 1], [0, 0], [0, 0], [2, 2], [0, 0]]


def test_rows_of_several_uses_are_joined_and_mixing_makes_dense() -> None:
    table = b.op("Placeholder", dtype=float64, shape=(4, 2))
    parts = [b.op("Sum", b.op("GatherV2", table, b.constant(ids, int32), 0), (0, 1)) for ids in ([1, 2], [2])]
    (joined,) = gradients(b.add(*parts), table)
    assert isinstance(joined, IndexedSlices)
    assert run([joined], {table: np.zeros((4, 2))})[0].tolist() == [[0, 0], [1, 1], [2, 2], [0, 0]]
    (mixed,) = gradients(b.add(parts[0], b.op("Sum", table, (0, 1))), table)
    assert isinstance(mixed, Tensor)
    assert run([mixed], {table: np.zeros((4, 2))})[0].tolist() == [[1, 1], [2, 2], [2, 2], [1, 1]]


def test_rows_pass_through_a_read_and_grow_dense_elsewhere() -> None:
    variable = b.op("VariableV2", dtype=float32, shape=(3, 1))
    rows = b.op("GatherV2", b.op("ReadVariable", variable), b.constant([1], int32), 0)
    assert isinstance(gradients(rows, variable)[0], IndexedSlices)
    doubled = b.op("GatherV2", b.mul(b.op("ReadVariable", variable), 2), b.constant([1], int32), 0)
    assert isinstance(gradients(doubled, variable)[0], Tensor)


# -- overriding, errors, names --------------------------------------------------------------------------------------


def test_an_overridden_gradient() -> None:
    x = scalar()
    marked = b.op("IdentityN", b.op("Log1p", b.op("Exp", x)), x)
    override_gradient(marked[0].op, lambda op, dy, _: [None, b.mul(dy, b.sub(1, b.op("Reciprocal", b.add(b.op(
        "Exp", op.inputs[1]), 1))))])
    (found,) = run(gradients(marked[0], x), {x: 100.0})
    assert float(found) == pytest.approx(1.0)


def test_an_op_that_refuses_names_itself_and_both_lines(graph: Graph) -> None:
    x = scalar()
    with graph.name_scope("inner"):
        y = b.op("PreventGradient", x, message="not through here")
    with pytest.raises(GradientError) as caught:
        gradients(y, x)
    text = str(caught.value)
    assert text.startswith("PreventGradient: no gradient through 'inner/PreventGradient': not through here")
    assert text.count("test_autodiff.py") >= 2
    with pytest.raises(LookupError):
        gradients(y, x)


def test_another_graphs_tensor_is_refused() -> None:
    x = scalar()
    with Graph().as_default():
        foreign = scalar()
    with pytest.raises(ValueError, match="another graph"):
        gradients(b.mul(x, 2), [foreign])
    with pytest.raises(TypeError, match="not a tensor"):
        gradients(b.mul(x, 2), [3])


def test_operations_are_named_and_marked(graph: Graph) -> None:
    x = scalar()
    y = b.op("Sin", x)
    gradients(y, x)
    gradients(y, x)
    made = [op for op in graph.get_operations() if op.gradient_of is not None]
    assert [op.name for op in made] == ["gradients/Sin_grad/Cos", "gradients/Sin_grad/Mul", "gradients_1/Sin_grad/Cos",
                                        "gradients_1/Sin_grad/Mul"]
    assert {op.gradient_of for op in made} == {y.op}


def test_only_what_lies_between_is_visited(graph: Graph) -> None:
    x, other = scalar(), scalar()
    y = b.mul(b.op("Exp", x), b.op("Tan", other))
    before = graph.operation_count
    gradients(y, x)
    assert not any(op.type == "Square" for op in graph.get_operations()[before:])  # Tan's gradient has one


def test_a_chain_of_50_000_ops_does_not_recurse(graph: Graph) -> None:
    x = y = scalar(float32)
    for _ in range(50_000):
        y = b.op("Neg", y)
    (g,) = gradients(y, x)
    assert isinstance(g, Tensor)
    assert graph.operation_count == 1 + 50_000 + 1 + 50_000


def test_second_gradients_through_a_tile_of_unknown_size() -> None:
    """The axes that its gradient sums over are a tensor of sizes, plain numbers once they are known."""
    x = vector()
    (first,) = gradients([b.op("Sum", b.op("Square", b.op("Tile", x, (2,))), (0,))], [x])
    (second,) = gradients([b.op("Sum", b.op("Square", first), (0,))], [x])
    given = np.array([1.0, -2.0, 3.0])
    one, two = run([first, second], {x: given})
    np.testing.assert_allclose(one, 4 * given)
    np.testing.assert_allclose(two, 32 * given)
