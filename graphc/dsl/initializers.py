"""Initial values of variables.

Owns the initializer objects, called as `init(shape, dtype)`.  Must not know variables.
Invariant: an initializer keeps no state between calls; random ones take the graph's seed when they are called.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dsl import array, convert, random
from graphc.dsl import math as maths
from graphc.errors import DTypeError, ShapeError
from graphc.graph.operation import at_user
from graphc.graph.tensor import Tensor


class Initializer:
    """Base of all initializers.  Source: tf.keras.initializers.Initializer."""

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """Return the initial value of `shape` and `dtype` (the initializer's own where it is None)."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it makes")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal initializer."""
        return {k.lstrip("_"): v.name if isinstance(v, dtypes.DType) else v for k, v in vars(self).items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """Return the initializer that `get_config` described."""
        return cls(**config)


class Zeros(Initializer):
    """All zeros (False for bool).  Source: tf.zeros_initializer."""

    def __init__(self, dtype: Any = dtypes.float32) -> None:
        self.dtype = dtypes.as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        return array.zeros(shape, self.dtype if dtype is None else dtype)


class Ones(Initializer):
    """All ones.  Source: tf.ones_initializer."""

    def __init__(self, dtype: Any = dtypes.float32) -> None:
        self.dtype = dtypes.as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        return array.ones(shape, self.dtype if dtype is None else dtype)


class Constant(Initializer):
    """A given value, repeated to fill the shape.  Source: tf.constant_initializer."""

    def __init__(self, value: Any = 0, dtype: Any = dtypes.float32, verify_shape: bool = False) -> None:
        if not (np.isscalar(value) or isinstance(value, (list, tuple, np.ndarray))):
            raise at_user(DTypeError, f"constant_initializer: the value must be numbers, not {type(value).__name__}")
        self.value = value
        self.dtype = dtypes.as_dtype(dtype)
        self._verify_shape = verify_shape

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None,
                 verify_shape: bool | None = None) -> Tensor:
        verify = self._verify_shape if verify_shape is None else verify_shape
        return convert.constant(self.value, self.dtype if dtype is None else dtype, shape, verify_shape=verify)


class RandomUniform(Initializer):
    """Uniform in [minval, maxval).  Source: tf.random_uniform_initializer."""

    def __init__(self, minval: Any = 0, maxval: Any = None, seed: int | None = None,
                 dtype: Any = dtypes.float32) -> None:
        self.minval = minval
        self.maxval = maxval
        self.seed = seed
        self.dtype = dtypes.as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        wanted = self.dtype if dtype is None else dtypes.as_dtype(dtype)
        maxval = 1 if self.maxval is None and wanted.is_floating else self.maxval
        return random.random_uniform(shape, self.minval, maxval, wanted, seed=self.seed)


class RandomNormal(Initializer):
    """Normal with the given mean and deviation.  Source: tf.random_normal_initializer."""

    def __init__(self, mean: float = 0.0, stddev: float = 1.0, seed: int | None = None,
                 dtype: Any = dtypes.float32) -> None:
        self.mean = mean
        self.stddev = stddev
        self.seed = seed
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        return random.random_normal(shape, self.mean, self.stddev, self.dtype if dtype is None else dtype, self.seed)


class TruncatedNormal(RandomNormal):
    """Normal, values beyond two deviations drawn again.  Source: tf.truncated_normal_initializer."""

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        return random.truncated_normal(shape, self.mean, self.stddev, self.dtype if dtype is None else dtype, self.seed)


class VarianceScaling(Initializer):
    """Random values of variance scale / n, n being the number of inputs, of outputs, or their mean.

    mode: "fan_in", "fan_out" or "fan_avg".  distribution: "uniform", "truncated_normal" ("normal") or
    "untruncated_normal".  Sources: tf.variance_scaling_initializer; Glorot and Bengio (2010); He et al. (2015).
    """

    def __init__(self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal",
                 seed: int | None = None, dtype: Any = dtypes.float32) -> None:
        if scale <= 0:
            raise ValueError(f"variance_scaling: scale must be positive, not {scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"variance_scaling: mode must be 'fan_in', 'fan_out' or 'fan_avg', not {mode!r}")
        if distribution.lower() not in ("normal", "uniform", "truncated_normal", "untruncated_normal"):
            raise ValueError(f"variance_scaling: unknown distribution {distribution!r}")
        self.scale = scale
        self.mode = mode
        self.distribution = distribution.lower()
        self.seed = seed
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        wanted = self.dtype if dtype is None else dtype
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return random.random_uniform(shape, -limit, limit, wanted, seed=self.seed)
        if self.distribution == "untruncated_normal":
            return random.random_normal(shape, 0.0, math.sqrt(variance), wanted, self.seed)
        # a normal cut at two deviations has the deviation 0.8796...
        return random.truncated_normal(shape, 0.0, math.sqrt(variance) / 0.87962566103423978, wanted, self.seed)


class Orthogonal(Initializer):
    """A matrix with orthonormal rows or columns (leading axes flattened), times gain.

    Source: tf.orthogonal_initializer; Saxe et al., "Exact solutions to the nonlinear dynamics of learning" (2014).
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None, dtype: Any = dtypes.float32) -> None:
        self.gain = gain
        self.seed = seed
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        sizes = _sizes(shape)
        if len(sizes) < 2:
            raise at_user(ShapeError, f"orthogonal_initializer: the shape must have rank 2 or more, not {tuple(sizes)}")
        wanted = self.dtype if dtype is None else dtypes.as_dtype(dtype)
        rows, columns = math.prod(sizes[:-1]), sizes[-1]
        normal = random.random_normal((max(rows, columns), min(rows, columns)), dtype=wanted, seed=self.seed)
        columns_of = orthonormal(normal)
        turned = columns_of if rows >= columns else array.transpose(columns_of)
        return maths.multiply(array.reshape(turned, sizes), convert.constant(self.gain, wanted))


def orthonormal(matrix: Tensor) -> Tensor:
    """Return the nearest matrix with orthonormal columns to `matrix`, (m, n) with m >= n: its polar factor.

    For a normal `matrix` it is uniformly distributed over all such matrices.  Newton-Schulz iteration: each step brings
    small singular values 1.5 times nearer to 1, and then converges quadratically.  Source: Higham, "Functions of
    matrices" (2008), section 8.3.
    """
    x = matrix * maths.rsqrt(maths.reduce_sum(maths.square(matrix)))
    for _ in range(_NEWTON_SCHULZ_STEPS):
        x = 1.5 * x - 0.5 * maths.matmul(x, maths.matmul(x, x, transpose_a=True))
    return x


_NEWTON_SCHULZ_STEPS = 45  # 1.5 ** 40 > 1e7, the condition numbers that occur; five more to converge


class Identity(Initializer):
    """The identity matrix times gain.  Source: tf.initializers.identity."""

    def __init__(self, gain: float = 1.0, dtype: Any = dtypes.float32) -> None:
        self.gain = gain
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        sizes = _sizes(shape)
        if len(sizes) != 2:
            raise at_user(ShapeError, f"identity initializer: the shape must have rank 2, not {tuple(sizes)}")
        wanted = self.dtype if dtype is None else dtypes.as_dtype(dtype)
        return convert.constant(self.gain * np.eye(sizes[0], sizes[1]), wanted)


def fans(shape: Any) -> tuple[float, float]:
    """Return the numbers of inputs and of outputs of a weight of `shape`: (in, out), (height, width, in, out) ..."""
    sizes = _sizes(shape)
    if len(sizes) < 2:
        n = float(sizes[0]) if sizes else 1.0
        return n, n
    field = math.prod(sizes[:-2])
    return float(field * sizes[-2]), float(field * sizes[-1])


def _sizes(shape: Sequence[Any]) -> list[int]:
    return [int(d) for d in shape]


def _floating(dtype: Any) -> dtypes.DType:
    wanted = dtypes.as_dtype(dtype)
    if not wanted.is_floating:
        raise at_user(DTypeError, f"this initializer makes floating-point values, not {wanted.name}")
    return wanted


def glorot_uniform(seed: int | None = None, dtype: Any = dtypes.float32) -> Initializer:
    """Return VarianceScaling(1, "fan_avg", "uniform").

    Source: tf.glorot_uniform_initializer; Glorot and Bengio (2010).
    """
    return VarianceScaling(1.0, "fan_avg", "uniform", seed, dtype)


def glorot_normal(seed: int | None = None, dtype: Any = dtypes.float32) -> Initializer:
    """Return VarianceScaling(1, "fan_avg", "truncated_normal").  Source: tf.glorot_normal_initializer."""
    return VarianceScaling(1.0, "fan_avg", "truncated_normal", seed, dtype)


def he_uniform(seed: int | None = None, dtype: Any = dtypes.float32) -> Initializer:
    """Return VarianceScaling(2, "fan_in", "uniform").  Source: tf.initializers.he_uniform; He et al. (2015)."""
    return VarianceScaling(2.0, "fan_in", "uniform", seed, dtype)


def he_normal(seed: int | None = None, dtype: Any = dtypes.float32) -> Initializer:
    """Return VarianceScaling(2, "fan_in", "truncated_normal").  Source: tf.initializers.he_normal; He et al. (2015)."""
    return VarianceScaling(2.0, "fan_in", "truncated_normal", seed, dtype)


def lecun_uniform(seed: int | None = None, dtype: Any = dtypes.float32) -> Initializer:
    """Return VarianceScaling(1, "fan_in", "uniform").  Source: tf.initializers.lecun_uniform; LeCun et al. (1998)."""
    return VarianceScaling(1.0, "fan_in", "uniform", seed, dtype)


def lecun_normal(seed: int | None = None, dtype: Any = dtypes.float32) -> Initializer:
    """Return VarianceScaling(1, "fan_in", "truncated_normal").  Source: tf.initializers.lecun_normal."""
    return VarianceScaling(1.0, "fan_in", "truncated_normal", seed, dtype)


def get(value: Any) -> Any:
    """Return an initializer: `value` itself, an instance of a class, or what a name such as "he_normal" stands for."""
    if isinstance(value, str):
        if value not in _BY_NAME:
            raise ValueError(f"{value!r} names no initializer; known: {', '.join(_BY_NAME)}")
        return _BY_NAME[value]()
    return value() if isinstance(value, type) else value


_BY_NAME: dict[str, Any] = {
    "zeros": Zeros, "ones": Ones, "constant": Constant, "random_uniform": RandomUniform, "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal, "variance_scaling": VarianceScaling, "orthogonal": Orthogonal,
    "identity": Identity, "glorot_uniform": glorot_uniform, "glorot_normal": glorot_normal, "he_uniform": he_uniform,
    "he_normal": he_normal, "lecun_uniform": lecun_uniform, "lecun_normal": lecun_normal,
}

zeros_initializer = zeros = Zeros
ones_initializer = ones = Ones
constant_initializer = constant = Constant
random_uniform_initializer = random_uniform = RandomUniform
random_normal_initializer = random_normal = RandomNormal
truncated_normal_initializer = truncated_normal = TruncatedNormal
variance_scaling_initializer = variance_scaling = VarianceScaling
orthogonal_initializer = orthogonal = Orthogonal
identity = Identity
glorot_uniform_initializer = glorot_uniform
glorot_normal_initializer = glorot_normal
