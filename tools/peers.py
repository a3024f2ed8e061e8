"""The frameworks that are measured: how each one runs a workload.

A peer's `build(workload, threads)` imports its framework and returns a step: step(i) trains on batch i and returns
the losses as floats (train), runs on resident inputs and keeps the output (kernel), or feeds a scalar and returns a
float (overhead).  For kernels, step.output() gives what the timed step itself wrote, as NumPy: a result that nothing
reads could be optimised away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from workloads import Workload

Step = Callable[[int], Any]


class _Ops:
    """A record of functions; see workloads.py for what each must do."""

    def __init__(self, **functions: Any) -> None:
        self.__dict__.update(functions)


# -- graphc and TensorFlow: the same TensorFlow-1 program ------------------------------------------------------------


def _tf1_ops(tf: Any) -> _Ops:
    def normalise(x: Any, scale: Any, offset: Any) -> Any:
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, 1e-5)

    return _Ops(
        matmul=tf.matmul,
        relu=tf.nn.relu,
        tanh=tf.tanh,
        sigmoid=tf.sigmoid,
        exp=tf.exp,
        square=tf.square,
        softplus=tf.nn.softplus,
        softmax=tf.nn.softmax,
        maximum=tf.maximum,
        mean=tf.reduce_mean,
        normalise=normalise,
        reshape=tf.reshape,
        swap=tf.transpose,
        constant=tf.stop_gradient,
        cross_entropy=lambda x, y: tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)),
        binary_cross_entropy=lambda x, y: tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=x)),
    )


def _tf1_build(tf: Any, w: Workload, threads: int, callable_: bool = False, free_batch: bool = True) -> Step:
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    first = w.batches[0]
    shape = {k: [None, *v.shape[1:]] if v.ndim and free_batch else list(v.shape) for k, v in first.items()}
    placeholders = {k: tf.placeholder(tf.as_dtype(v.dtype), shape[k], k) for k, v in first.items()}
    session = tf.Session(config=config)

    def runner(fetch: Any, names: tuple[str, ...]) -> Step:
        if callable_:
            call = session.make_callable(fetch, [placeholders[k] for k in names])
            return lambda i: call(*(w.batches[i % len(w.batches)][k] for k in names))
        return lambda i: session.run(fetch, {placeholders[k]: w.batches[i % len(w.batches)][k] for k in names})

    if w.kind == "overhead":
        run = runner(placeholders["x"] + 1.0, ("x",))
        return lambda i: float(run(i))
    ops = _tf1_ops(tf)
    if w.kind == "kernel":
        held = {k: tf.get_variable("in_" + k, initializer=v) for k, v in first.items()}
        out = w.function(ops, {}, held)  # type: ignore[misc]
        kept = tf.get_variable("out", initializer=np.zeros(out.get_shape().as_list(), np.float32))
        write = kept.assign(out).op
        session.run(tf.global_variables_initializer())

        def step(i: int) -> None:
            session.run(write)

        step.output = lambda: session.run(kept)  # type: ignore[attr-defined]
        return step
    variables = {k: tf.get_variable(k, initializer=v) for k, v in w.parameters.items()}
    fetches = []
    for number, (loss_of, prefix, names) in enumerate(w.losses):
        kind, rate, *rest = w.optimizer
        optimizer = (
            tf.train.AdamOptimizer(rate, rest[0], name=f"adam{number}")
            if kind == "adam"
            else tf.train.GradientDescentOptimizer(rate)
        )
        loss = loss_of(ops, variables, placeholders)
        chosen = [v for k, v in variables.items() if k.startswith(prefix)]
        fetches.append(([loss, optimizer.minimize(loss, var_list=chosen)], names))
    session.run(tf.global_variables_initializer())
    runs = [runner(f, names) for f, names in fetches]
    return lambda i: [float(run(i)[0]) for run in runs]


def graphc(w: Workload, threads: int) -> Step:
    """graphc through Session.run, the batch size free."""
    import graphc as tf

    return _tf1_build(tf, w, threads)


def graphc_callable(w: Workload, threads: int) -> Step:
    """graphc through make_callable."""
    import graphc as tf

    return _tf1_build(tf, w, threads, callable_=True)


def tensorflow(w: Workload, threads: int) -> Step:
    """TensorFlow's Session, shapes known (its best case)."""
    import tensorflow

    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
    return _tf1_build(tf, w, threads, free_batch=False)


# -- JAX -------------------------------------------------------------------------------------------------------------


def jax(w: Workload, threads: int) -> Step:
    """JAX: one jitted function per step, parameters donated."""
    import jax
    import jax.numpy as jnp

    def normalise(x: Any, scale: Any, offset: Any) -> Any:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + offset

    ops = _Ops(
        matmul=lambda a, b, transpose_b=False: a @ (jnp.swapaxes(b, -1, -2) if transpose_b else b),
        relu=jax.nn.relu,
        tanh=jnp.tanh,
        sigmoid=jax.nn.sigmoid,
        exp=jnp.exp,
        square=jnp.square,
        softplus=jax.nn.softplus,
        softmax=jax.nn.softmax,
        maximum=jnp.maximum,
        mean=jnp.mean,
        normalise=normalise,
        reshape=jnp.reshape,
        swap=jnp.transpose,
        constant=jax.lax.stop_gradient,
        cross_entropy=lambda x, y: -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1).mean(),
        binary_cross_entropy=lambda x, y: (jax.nn.softplus(x) - x * y).mean(),
    )
    batches = w.batches
    if w.kind == "overhead":
        f = jax.jit(lambda x: x + 1.0)
        return lambda i: float(f(batches[0]["x"]))
    if w.kind == "kernel":
        held = {k: jnp.asarray(v) for k, v in batches[0].items()}
        f = jax.jit(lambda b: w.function(ops, {}, b))  # type: ignore[misc]

        def step(i: int) -> None:
            step.last = f(held).block_until_ready()  # type: ignore[attr-defined]

        step.output = lambda: np.asarray(step.last)  # type: ignore[attr-defined]
        return step
    state = {"p": {k: jnp.asarray(v) for k, v in w.parameters.items()}}
    kind, rate, *rest = w.optimizer
    steps = []
    for number, (loss_of, prefix, names) in enumerate(w.losses):
        mine = [k for k in w.parameters if k.startswith(prefix)]
        moments = (
            {k: (jnp.zeros_like(w.parameters[k]), jnp.zeros_like(w.parameters[k])) for k in mine}
            if kind == "adam"
            else {}
        )
        state[f"m{number}"] = (moments, jnp.float32(0))  # type: ignore[assignment]

        def train(p: Any, m: Any, b: Any, loss_of: Any = loss_of, mine: Any = mine) -> Any:
            loss, g = jax.value_and_grad(lambda q: loss_of(ops, p | q, b))({k: p[k] for k in mine})
            if kind == "sgd":
                return loss, p | {k: p[k] - rate * g[k] for k in mine}, m
            moments, t = m
            t = t + 1
            scale = rate * jnp.sqrt(1 - 0.999**t) / (1 - rest[0] ** t)
            new, out = {}, dict(p)
            for k in mine:
                a, v = moments[k]
                a, v = a + (g[k] - a) * (1 - rest[0]), v + (g[k] ** 2 - v) * 0.001
                new[k], out[k] = (a, v), p[k] - scale * a / (jnp.sqrt(v) + 1e-8)
            return loss, out, (new, t)

        steps.append((jax.jit(train, donate_argnums=(0, 1)), f"m{number}", names))

    def run(i: int) -> list[float]:
        losses = []
        for f, key, names in steps:
            loss, state["p"], state[key] = f(state["p"], state[key], {k: batches[i % len(batches)][k] for k in names})
            losses.append(float(loss))
        return losses

    return run


# -- PyTorch ---------------------------------------------------------------------------------------------------------


def torch(w: Workload, threads: int) -> Step:
    """PyTorch, eager, fused optimizers where there are any."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    ops = _Ops(
        matmul=lambda a, b, transpose_b=False: a @ (b.transpose(-1, -2) if transpose_b else b),
        relu=torch.relu,
        tanh=torch.tanh,
        sigmoid=torch.sigmoid,
        exp=torch.exp,
        square=torch.square,
        softplus=functional.softplus,
        softmax=lambda x: torch.softmax(x, -1),
        maximum=lambda x, c: torch.clamp_min(x, c),
        mean=torch.mean,
        normalise=lambda x, s, o: functional.layer_norm(x, (x.shape[-1],), s, o, 1e-5),
        reshape=torch.reshape,
        swap=lambda x, axes: x.permute(axes),
        constant=lambda x: x.detach(),
        cross_entropy=lambda x, y: functional.cross_entropy(x, y.long()),
        binary_cross_entropy=functional.binary_cross_entropy_with_logits,
    )
    batches = [{k: torch.as_tensor(v) for k, v in b.items()} for b in w.batches]
    if w.kind == "overhead":
        return lambda i: float(torch.as_tensor(w.batches[0]["x"]) + 1.0)
    if w.kind == "kernel":

        def step(i: int) -> None:
            with torch.inference_mode():
                step.last = w.function(ops, {}, batches[0])  # type: ignore[attr-defined,misc]

        step.output = lambda: step.last.numpy()  # type: ignore[attr-defined]
        return step
    parameters = {k: torch.nn.Parameter(torch.as_tensor(v.copy())) for k, v in w.parameters.items()}
    kind, rate, *rest = w.optimizer
    optimizers = []
    for _, prefix, _ in w.losses:
        mine = [v for k, v in parameters.items() if k.startswith(prefix)]
        optimizers.append(
            torch.optim.Adam(mine, rate, (rest[0], 0.999), fused=True)
            if kind == "adam"
            else torch.optim.SGD(mine, rate)
        )

    def run(i: int) -> list[float]:
        losses = []
        for (loss_of, _, _), optimizer in zip(w.losses, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(ops, parameters, {k: torch.as_tensor(v) for k, v in w.batches[i % len(w.batches)].items()})
            loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses

    return run


# -- ONNX Runtime (no training) --------------------------------------------------------------------------------------


def onnxruntime(w: Workload, threads: int) -> Step | None:
    """ONNX Runtime with inputs and output bound; None for training."""
    if w.kind == "train":
        return None
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def emit(op: str, *inputs: Any, **attrs: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"v{len(nodes)}"], **attrs))
        return str(nodes[-1].output[0])

    def number(c: float) -> str:
        constants.append(numpy_helper.from_array(np.float32(c), f"c{len(constants)}"))
        return str(constants[-1].name)

    arrays = w.batches[0]
    match w.name:
        case "session_overhead":
            result = emit("Add", "x", number(1.0))
        case "elementwise":
            t = emit("Tanh", emit("Add", emit("Mul", "x", number(1.5)), number(0.25)))
            e = emit("Add", emit("Relu", emit("Mul", emit("Exp", emit("Mul", t, number(-0.5))), "x")), number(0.1))
            result = emit("Sub", emit("Mul", e, e), t)
        case "softmax_layernorm":
            result = emit("LayerNormalization", emit("Softmax", "x", axis=-1), "s", "o", axis=-1, epsilon=1e-5)
        case _:
            result = emit("MatMul", "x", "y")
    inputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, np.shape(v)) for k, v in arrays.items()]
    graph = helper.make_graph(
        nodes, w.name, inputs, [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    if w.kind == "overhead":
        fed = {"x": np.asarray(arrays["x"])}
        return lambda i: float(session.run(None, fed)[0])
    binding = session.io_binding()
    for k, v in arrays.items():
        binding.bind_ortvalue_input(k, onnxruntime.OrtValue.ortvalue_from_numpy(v))
    binding.bind_output(result)

    def step(i: int) -> None:
        session.run_with_iobinding(binding)

    step.output = lambda: binding.copy_outputs_to_cpu()[0]  # type: ignore[attr-defined]
    return step


# -- PyTensor --------------------------------------------------------------------------------------------------------


def pytensor(w: Workload, threads: int) -> Step | None:
    """PyTensor's compiled functions with shared variables; None for the workloads it is far behind on."""
    if w.name in ("attention", "softmax_layernorm", "matmul256", "matmul1024", "elementwise"):
        return None
    import pytensor
    import pytensor.tensor as pt

    ops = _Ops(
        matmul=pt.dot,
        relu=lambda x: pt.maximum(x, 0),
        tanh=pt.tanh,
        sigmoid=pt.sigmoid,
        exp=pt.exp,
        square=pt.square,
        softplus=pt.softplus,
        mean=pt.mean,
        reshape=lambda x, s: x.reshape(s),
        constant=pytensor.gradient.disconnected_grad,
        cross_entropy=lambda x, y: -pt.special.log_softmax(x, axis=1)[pt.arange(y.shape[0]), y].mean(),
        binary_cross_entropy=lambda x, y: (pt.softplus(x) - x * y).mean(),
    )
    inputs = {k: pt.TensorType(str(np.asarray(v).dtype), (None,) * np.ndim(v))(k) for k, v in w.batches[0].items()}
    if w.kind == "overhead":
        f = pytensor.function([inputs["x"]], inputs["x"] + np.float32(1.0))
        return lambda i: float(f(w.batches[0]["x"]))
    shared = {k: pytensor.shared(v.copy(), k) for k, v in w.parameters.items()}
    kind, rate, *rest = w.optimizer
    runs = []
    for loss_of, prefix, names in w.losses:
        loss = loss_of(ops, shared, inputs)
        mine = [v for k, v in shared.items() if k.startswith(prefix)]
        updates = {}
        t = pytensor.shared(np.float32(0))
        scale = np.float32(rate)
        if kind == "adam":
            updates[t] = t + np.float32(1)
            scale = (
                np.float32(rate)
                * pt.sqrt(1 - np.float32(0.999) ** updates[t])
                / (1 - np.float32(rest[0]) ** updates[t])
            )
        for v, g in zip(mine, pt.grad(loss, mine), strict=True):
            if kind == "sgd":
                updates[v] = v - scale * g
                continue
            m, s = (pytensor.shared(np.zeros_like(v.get_value())) for _ in range(2))
            updates[m] = m + (g - m) * np.float32(1 - rest[0])
            updates[s] = s + (g * g - s) * np.float32(0.001)
            updates[v] = v - scale * updates[m] / (pt.sqrt(updates[s]) + np.float32(1e-8))
        runs.append((pytensor.function([inputs[k] for k in names], loss, updates=updates), names))
    return lambda i: [float(f(*(w.batches[i % len(w.batches)][k] for k in names))) for f, names in runs]


PEERS: dict[str, tuple[str, Callable[[Workload, int], Step | None]]] = {
    "graphc": ("graphc", graphc),
    "graphc callable": ("graphc", graphc_callable),
    "tensorflow": ("tensorflow", tensorflow),
    "jax": ("jax", jax),
    "torch": ("torch", torch),
    "onnxruntime": ("onnxruntime", onnxruntime),
    "pytensor": ("pytensor", pytensor),
}
