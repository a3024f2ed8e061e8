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

    def biased(x: Any, bias: Any) -> Any:
        return x if bias is None else tf.nn.bias_add(x, bias)

    def conv(x: Any, w: Any, stride: int, pad: int, bias: Any = None) -> Any:
        size = w.get_shape().as_list()[0]
        same = (stride == 1 and 2 * pad == size - 1) or (stride == 2 and size == 4 and pad == 1)
        if pad and not same:
            x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        sums = tf.nn.conv2d(x, w, strides=[1, stride, stride, 1], padding="SAME" if pad and same else "VALID")
        return biased(sums, bias)

    def up(x: Any, w: Any, bias: Any = None) -> Any:
        _, height, width, _ = x.get_shape().as_list()
        shape = tf.stack([tf.shape(x)[0], 2 * height, 2 * width, w.get_shape().as_list()[2]])
        return biased(tf.nn.conv2d_transpose(x, w, shape, [1, 2, 2, 1], "SAME"), bias)

    def max_pool(x: Any, size: int, stride: int, pad: int) -> Any:
        if pad:  # what is pooled is not negative, so zeros do
            x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        return tf.nn.max_pool(x, [1, size, size, 1], [1, stride, stride, 1], "VALID")

    def flatten(x: Any) -> Any:
        _, height, width, channels = x.get_shape().as_list()
        return tf.reshape(x, (-1, height * width * channels))

    return _Ops(
        conv=conv,
        up=up,
        max_pool=max_pool,
        flatten=flatten,
        image=lambda x, *shape: tf.reshape(x, (-1, *shape)),
        batch_norm=lambda x, s, o: tf.nn.fused_batch_norm(x, s, o, epsilon=1e-3)[0],
        frozen_norm=lambda x, s, o, m, v: tf.nn.fused_batch_norm(x, s, o, m, v, epsilon=1e-3, is_training=False)[0],
        spatial_mean=lambda x: tf.reduce_mean(x, [1, 2]),
        leaky=lambda x: tf.nn.leaky_relu(x, 0.2),
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
    if w.kind == "infer":
        constants = {k: tf.constant(v) for k, v in w.parameters.items()}
        return runner(w.function(ops, constants, placeholders), tuple(first))  # type: ignore[misc]
    variables = {k: tf.get_variable(k, initializer=v) for k, v in w.parameters.items()}
    fetches = []
    for number, (loss_of, prefix, names) in enumerate(w.losses):
        kind, rate, *rest = w.optimizer
        optimizer = (
            tf.train.AdamOptimizer(rate, rest[0], name=f"adam{number}")
            if kind == "adam"
            else tf.train.MomentumOptimizer(rate, rest[0])
            if kind == "momentum"
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

    layout = ("NHWC", "HWIO", "NHWC")

    def conv(x: Any, w: Any, stride: int, pad: int, bias: Any = 0.0) -> Any:
        return jax.lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=layout) + bias

    def up(x: Any, w: Any, bias: Any = 0.0) -> Any:
        sums = jax.lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=layout, transpose_kernel=True)
        return sums + bias

    def max_pool(x: Any, size: int, stride: int, pad: int) -> Any:
        window, steps, pads = (1, size, size, 1), (1, stride, stride, 1), [(0, 0), (pad, pad), (pad, pad), (0, 0)]
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, steps, pads)

    def frozen_norm(x: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> Any:
        return (x - mean) * (jax.lax.rsqrt(variance + 1e-3) * scale) + offset

    ops = _Ops(
        conv=conv,
        up=up,
        max_pool=max_pool,
        flatten=lambda x: x.reshape(x.shape[0], -1),
        image=lambda x, *shape: x.reshape(-1, *shape),
        batch_norm=lambda x, s, o: frozen_norm(x, s, o, x.mean((0, 1, 2)), x.var((0, 1, 2))),
        frozen_norm=frozen_norm,
        spatial_mean=lambda x: x.mean((1, 2)),
        leaky=lambda x: jax.nn.leaky_relu(x, 0.2),
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
    if w.kind == "infer":
        constants = {k: jnp.asarray(v) for k, v in w.parameters.items()}
        forward = jax.jit(lambda b: w.function(ops, constants, b))  # type: ignore[misc]
        return lambda i: np.asarray(forward(batches[i % len(batches)]))
    state = {"p": {k: jnp.asarray(v) for k, v in w.parameters.items()}}
    kind, rate, *rest = w.optimizer
    steps = []
    for number, (loss_of, prefix, names) in enumerate(w.losses):
        mine = [k for k in w.parameters if k.startswith(prefix)]
        moments = (
            {k: (jnp.zeros_like(w.parameters[k]), jnp.zeros_like(w.parameters[k])) for k in mine}
            if kind == "adam"
            else {k: jnp.zeros_like(w.parameters[k]) for k in mine}
            if kind == "momentum"
            else {}
        )
        state[f"m{number}"] = (moments, jnp.float32(0))  # type: ignore[assignment]

        def train(p: Any, m: Any, b: Any, loss_of: Any = loss_of, mine: Any = mine) -> Any:
            loss, g = jax.value_and_grad(lambda q: loss_of(ops, p | q, b))({k: p[k] for k in mine})
            if kind == "sgd":
                return loss, p | {k: p[k] - rate * g[k] for k in mine}, m
            moments, t = m
            if kind == "momentum":
                moments = {k: moments[k] * rest[0] + g[k] for k in mine}
                return loss, p | {k: p[k] - rate * moments[k] for k in mine}, (moments, t)
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


def torch(w: Workload, threads: int, channels_last: bool = False) -> Step:
    """PyTorch, eager, fused optimizers where there are any; images NCHW."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)

    form = torch.channels_last if channels_last else torch.contiguous_format

    def image(x: Any) -> Any:
        t = torch.as_tensor(x)
        return t.permute(0, 3, 1, 2).contiguous(memory_format=form) if t.ndim == 4 else t

    def weight(x: Any) -> Any:
        t = torch.as_tensor(x.copy())
        return t.permute(3, 2, 0, 1).contiguous(memory_format=form) if t.ndim == 4 else t

    def flatten(x: Any) -> Any:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1)

    def unflatten(x: Any, height: int, width: int, channels: int) -> Any:
        return image(x.reshape(-1, height, width, channels))

    ops = _Ops(
        conv=lambda x, w, stride, pad, bias=None: functional.conv2d(x, w, bias, stride, pad),
        up=lambda x, w, bias=None: functional.conv_transpose2d(x, w, bias, 2, 1),
        max_pool=functional.max_pool2d,
        flatten=flatten,
        image=unflatten,
        batch_norm=lambda x, s, o: functional.batch_norm(x, None, None, s, o, True, 0.0, 1e-3),
        frozen_norm=lambda x, s, o, m, v: functional.batch_norm(x, m, v, s, o, False, 0.0, 1e-3),
        spatial_mean=lambda x: x.mean((2, 3)),
        leaky=lambda x: functional.leaky_relu(x, 0.2),
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
    if w.kind == "infer":
        constants = {k: weight(v) for k, v in w.parameters.items()}

        def forward(i: int) -> Any:
            with torch.inference_mode():
                fed = {k: image(v) for k, v in w.batches[i % len(w.batches)].items()}
                return w.function(ops, constants, fed).numpy()  # type: ignore[misc]

        return forward
    if w.kind == "overhead":
        return lambda i: float(torch.as_tensor(w.batches[0]["x"]) + 1.0)
    if w.kind == "kernel":

        def step(i: int) -> None:
            with torch.inference_mode():
                step.last = w.function(ops, {}, batches[0])  # type: ignore[attr-defined,misc]

        step.output = lambda: step.last.numpy()  # type: ignore[attr-defined]
        return step
    parameters = {k: torch.nn.Parameter(weight(v)) for k, v in w.parameters.items()}
    kind, rate, *rest = w.optimizer
    optimizers = []
    for _, prefix, _ in w.losses:
        mine = [v for k, v in parameters.items() if k.startswith(prefix)]
        optimizers.append(
            torch.optim.Adam(mine, rate, (rest[0], 0.999), fused=True)
            if kind == "adam"
            else torch.optim.SGD(mine, rate, rest[0] if kind == "momentum" else 0.0)
        )

    def run(i: int) -> list[float]:
        losses = []
        for (loss_of, _, _), optimizer in zip(w.losses, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            fed = w.batches[i % len(w.batches)]
            fed = {k: image(v) if v.ndim == 4 else torch.as_tensor(v) for k, v in fed.items()}
            loss = loss_of(ops, parameters, fed)
            loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses

    return run


def torch_channels_last(w: Workload, threads: int) -> Step | None:
    """PyTorch with channels last in memory; None where nothing is an image."""
    is_vision = any(v.ndim == 4 for v in w.batches[0].values() if w.name != "attention")
    return torch(w, threads, channels_last=True) if is_vision else None


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
    if w.kind == "infer":
        return _onnx_vision(w, threads)
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


def _onnx_vision(w: Workload, threads: int) -> Step:
    """A network's inference; images NCHW, as ONNX has them."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    held: dict[str, Any] = {}

    class Name(str):
        """A value's name, on which + adds."""

        def __add__(self, other: str) -> Any:  # type: ignore[override]
            return emit("Add", self, other)

    def emit(op: str, *inputs: str, **attrs: Any) -> Name:
        nodes.append(helper.make_node(op, [str.__str__(i) for i in inputs], [f"v{len(nodes)}"], **attrs))
        return Name(nodes[-1].output[0])

    for k, v in w.parameters.items():
        turned = v.transpose(3, 2, 0, 1) if v.ndim == 4 else v
        held[k] = numpy_helper.from_array(np.ascontiguousarray(turned), k)

    def conv(x: str, weights: str, stride: int, pad: int, *bias: str) -> Name:
        return emit("Conv", x, weights, *bias, strides=[stride] * 2, pads=[pad] * 4)

    ops = _Ops(
        conv=conv,
        max_pool=lambda x, n, s, p: emit("MaxPool", x, kernel_shape=[n, n], strides=[s, s], pads=[p] * 4),
        relu=lambda x: emit("Relu", x),
        flatten=lambda x: emit("Flatten", emit("Transpose", x, perm=[0, 2, 3, 1]), axis=1),
        frozen_norm=lambda x, s, o, m, v: emit("BatchNormalization", x, s, o, m, v, epsilon=1e-3),
        spatial_mean=lambda x: emit("Flatten", emit("GlobalAveragePool", x), axis=1),
        matmul=lambda a, b: emit("MatMul", a, b),
    )
    result = w.function(ops, {k: Name(k) for k in held}, {"x": Name("x")})  # type: ignore[misc]
    rows, height, width, channels = w.batches[0]["x"].shape
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, (rows, channels, height, width))
    output = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, w.name, [image], [output], list(held.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = [np.ascontiguousarray(b["x"].transpose(0, 3, 1, 2)) for b in w.batches]
    return lambda i: session.run(None, {"x": images[i % len(images)]})[0]


# -- PyTensor --------------------------------------------------------------------------------------------------------


def pytensor(w: Workload, threads: int) -> Step | None:
    """PyTensor's compiled functions with shared variables; None for the workloads it is far behind on."""
    if w.kind in ("kernel", "infer") or w.name in ("attention", "lenet5", "dcgan", "resnet_cifar"):
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
    "torch channels last": ("torch", torch_channels_last),
    "onnxruntime": ("onnxruntime", onnxruntime),
    "pytensor": ("pytensor", pytensor),
}
