"""Static shapes as the user sees them: TensorShape and Dimension of TensorFlow 1.

Owns the user's view of sizes, where an unknown size is None.  Knows nothing of symbols, tensors or graphs.
Invariant: a TensorShape never changes; unknown with unknown is unknown, never "equal".
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, cast, overload

from graphc.errors import ShapeError


class Dimension:
    """One size of a shape: an int, or None where it is not known.  Source: tf.Dimension."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        if isinstance(value, Dimension):
            value = value.value
        if value is not None:
            size = value.__index__() if hasattr(value, "__index__") else int(value)
            if size != value:
                raise ShapeError(f"a size must be an integer, not {value!r}")
            if size < 0:
                raise ShapeError(f"a size must be 0 or more, not {size}")
            value = size
        self.value: int | None = value

    def is_compatible_with(self, other: Any) -> bool:
        """Whether the two could be the same size."""
        other = as_dimension(other)
        return self.value is None or other.value is None or self.value == other.value

    def assert_is_compatible_with(self, other: Any) -> None:
        """Raise ShapeError unless the two could be the same size."""
        if not self.is_compatible_with(other):
            raise ShapeError(f"sizes {self} and {other} are not compatible")

    def merge_with(self, other: Any) -> Dimension:
        """Return the better known of the two.  Raises ShapeError where they differ."""
        self.assert_is_compatible_with(other)
        return as_dimension(other) if self.value is None else self

    def _apply(self, other: Any, function: Any) -> Dimension:
        try:
            other = as_dimension(other)
        except TypeError:
            return cast(Dimension, NotImplemented)
        if self.value is None or other.value is None:
            return Dimension(None)
        return Dimension(function(self.value, other.value))

    def __add__(self, other: Any) -> Dimension:
        return self._apply(other, lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Dimension:
        return self._apply(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Dimension:
        return as_dimension(other) - self

    def __mul__(self, other: Any) -> Dimension:
        return self._apply(other, lambda a, b: a * b)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Dimension:
        return self._apply(other, lambda a, b: a // b)

    def __rfloordiv__(self, other: Any) -> Dimension:
        return as_dimension(other) // self

    __div__ = __floordiv__

    def __mod__(self, other: Any) -> Dimension:
        return self._apply(other, lambda a, b: a % b)

    def __rmod__(self, other: Any) -> Dimension:
        return as_dimension(other) % self

    def __truediv__(self, other: Any) -> float:
        raise TypeError("sizes are integers: use // instead of /")

    def _compare(self, other: Any, function: Any) -> Any:
        other = as_dimension(other)
        if self.value is None or other.value is None:
            return None
        return function(self.value, other.value)

    def __lt__(self, other: Any) -> Any:
        return self._compare(other, lambda a, b: a < b)

    def __le__(self, other: Any) -> Any:
        return self._compare(other, lambda a, b: a <= b)

    def __gt__(self, other: Any) -> Any:
        return self._compare(other, lambda a, b: a > b)

    def __ge__(self, other: Any) -> Any:
        return self._compare(other, lambda a, b: a >= b)

    def __eq__(self, other: Any) -> Any:
        """True or False where both are known, else None (as TensorFlow 1)."""
        try:
            return self._compare(other, lambda a, b: a == b)
        except (TypeError, ValueError):
            return NotImplemented

    def __ne__(self, other: Any) -> Any:
        try:
            return self._compare(other, lambda a, b: a != b)
        except (TypeError, ValueError):
            return NotImplemented

    def __hash__(self) -> int:
        return hash(self.value)

    def __int__(self) -> int:
        if self.value is None:
            raise TypeError("this size is not known while the graph is built; use tf.shape(x)[i] for a tensor")
        return self.value

    def __index__(self) -> int:
        return int(self)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __repr__(self) -> str:
        return f"Dimension({self.value})"

    def __str__(self) -> str:
        return "?" if self.value is None else str(self.value)


def as_dimension(value: Any) -> Dimension:
    """Return `value` (an int, None or a Dimension) as a Dimension."""
    return value if isinstance(value, Dimension) else Dimension(value)


Sizes: TypeAlias = tuple[int | None, ...]


class TensorShape:
    """A static shape: `dims` is None for an unknown rank.  Source: tf.TensorShape."""

    __slots__ = ("_sizes",)

    def __init__(self, dims: Any = None) -> None:
        if isinstance(dims, TensorShape):
            self._sizes = dims._sizes
        elif dims is None:
            self._sizes = None
        elif isinstance(dims, (int, Dimension)):
            self._sizes = (as_dimension(dims).value,)
        else:
            self._sizes = tuple([d if type(d) is int and d >= 0 else as_dimension(d).value for d in dims])

    _sizes: Sizes | None

    @property
    def sizes(self) -> Sizes | None:
        """The sizes as a tuple of ints and None; None for an unknown rank."""
        return self._sizes

    @property
    def dims(self) -> list[Dimension] | None:
        return None if self._sizes is None else [Dimension(d) for d in self._sizes]

    @property
    def ndims(self) -> int | None:
        return None if self._sizes is None else len(self._sizes)

    rank = ndims

    def _known_rank(self) -> Sizes:
        if self._sizes is None:
            raise ShapeError("this shape has an unknown rank")
        return self._sizes

    def __len__(self) -> int:
        return len(self._known_rank())

    def __bool__(self) -> bool:
        return self._sizes is not None

    def __iter__(self) -> Iterator[Dimension]:
        return iter([Dimension(d) for d in self._known_rank()])

    @overload
    def __getitem__(self, key: int) -> Dimension: ...

    @overload
    def __getitem__(self, key: slice) -> TensorShape: ...

    def __getitem__(self, key: int | slice) -> Dimension | TensorShape:
        if self._sizes is not None:
            chosen = self._sizes[key]
            return TensorShape(chosen) if isinstance(key, slice) else Dimension(chosen)
        if not isinstance(key, slice):
            return Dimension(None)
        start, stop = key.start or 0, key.stop
        if key.step not in (None, 1) or stop is None or start < 0 or stop < 0:
            return TensorShape(None)
        return TensorShape([None] * max(stop - start, 0))

    def num_elements(self) -> int | None:
        """The number of elements, or None where it is not known."""
        if self._sizes is None:
            return None
        total = 1
        for d in self._sizes:
            if d is None:
                return None
            total *= d
        return total

    def is_fully_defined(self) -> bool:
        """Whether rank and all sizes are known."""
        return self._sizes is not None and None not in self._sizes

    def is_compatible_with(self, other: Any) -> bool:
        """Whether a tensor could have both shapes."""
        a, b = self._sizes, as_shape(other)._sizes
        if a is None or b is None:
            return True
        return len(a) == len(b) and all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))

    def assert_is_compatible_with(self, other: Any) -> None:
        """Raise ShapeError unless a tensor could have both shapes."""
        if not self.is_compatible_with(other):
            raise ShapeError(f"shapes {self} and {as_shape(other)} are not compatible")

    def merge_with(self, other: Any) -> TensorShape:
        """Return the shape that knows what both know.  Raises ShapeError where they contradict each other."""
        self.assert_is_compatible_with(other)
        a, b = self._sizes, as_shape(other)._sizes
        if a is None or b is None:
            return TensorShape(b if a is None else a)
        return TensorShape([y if x is None else x for x, y in zip(a, b, strict=True)])

    def concatenate(self, other: Any) -> TensorShape:
        """Return this shape followed by `other`."""
        a, b = self._sizes, as_shape(other)._sizes
        return TensorShape(None if a is None or b is None else a + b)

    def with_rank(self, rank: int) -> TensorShape:
        """Return this shape with `rank` axes.  Raises ShapeError where it has another rank."""
        return self.merge_with([None] * rank)

    def assert_has_rank(self, rank: int) -> None:
        """Raise ShapeError unless the rank is, or may be, `rank`."""
        if self._sizes is not None and len(self._sizes) != rank:
            raise ShapeError(f"shape {self} must have rank {rank}")

    def with_rank_at_least(self, rank: int) -> TensorShape:
        """Return this shape.  Raises ShapeError where its rank is below `rank`."""
        if self._sizes is not None and len(self._sizes) < rank:
            raise ShapeError(f"shape {self} must have rank {rank} or more")
        return self

    def with_rank_at_most(self, rank: int) -> TensorShape:
        """Return this shape.  Raises ShapeError where its rank is above `rank`."""
        if self._sizes is not None and len(self._sizes) > rank:
            raise ShapeError(f"shape {self} must have rank {rank} or less")
        return self

    def assert_is_fully_defined(self) -> None:
        """Raise ShapeError unless rank and all sizes are known."""
        if not self.is_fully_defined():
            raise ShapeError(f"shape {self} is not fully known")

    def as_list(self) -> list[int | None]:
        """The sizes as a list of ints and None.  Raises ShapeError (a ValueError) for an unknown rank."""
        if self._sizes is None:
            raise ShapeError("as_list() is not defined for a shape of unknown rank")
        return list(self._sizes)

    def __add__(self, other: Any) -> TensorShape:
        return self.concatenate(other)

    def __radd__(self, other: Any) -> TensorShape:
        return as_shape(other).concatenate(self)

    def __eq__(self, other: Any) -> bool:
        try:
            return self._sizes == as_shape(other)._sizes
        except (TypeError, ValueError):
            return NotImplemented

    def __hash__(self) -> int:
        return hash(self._sizes)

    def __repr__(self) -> str:
        return f"TensorShape({self.dims})"

    def __str__(self) -> str:
        if self._sizes is None:
            return "<unknown>"
        inner = ", ".join("?" if d is None else str(d) for d in self._sizes)
        return f"({inner},)" if len(self._sizes) == 1 else f"({inner})"


def as_shape(value: Any) -> TensorShape:
    """Return `value` (None, an int, or a sequence of sizes) as a TensorShape."""
    return value if isinstance(value, TensorShape) else TensorShape(value)


def scalar() -> TensorShape:
    """The shape of a scalar."""
    return TensorShape([])


def vector(length: int | None) -> TensorShape:
    """The shape of a vector."""
    return TensorShape([length])


def matrix(rows: int | None, columns: int | None) -> TensorShape:
    """The shape of a matrix."""
    return TensorShape([rows, columns])


def unknown_shape(ndims: int | None = None) -> TensorShape:
    """A shape of `ndims` unknown sizes, or of unknown rank."""
    return TensorShape(None if ndims is None else [None] * ndims)


def broadcast_static_shape(a: Any, b: Any) -> TensorShape:
    """Return the shape of two tensors broadcast together.  Raises ShapeError.  Source: tf.broadcast_static_shape."""
    x, y = as_shape(a).sizes, as_shape(b).sizes
    if x is None or y is None:
        return TensorShape(None)
    rank = max(len(x), len(y))
    return TensorShape(list(_broadcast((1,) * (rank - len(x)) + x, (1,) * (rank - len(y)) + y)))


def _broadcast(x: Iterable[int | None], y: Iterable[int | None]) -> Iterator[int | None]:
    for p, q in zip(x, y, strict=True):
        if p == q or q == 1:
            yield p
        elif p == 1 or p is None:
            yield q
        elif q is None:
            yield p
        else:
            raise ShapeError(f"sizes {p} and {q} do not broadcast")
