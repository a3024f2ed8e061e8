"""What a run is asked for and given: nested fetches, feeds, and everything that can be wrong with them.

Owns the meaning of Session.run's two arguments.  Knows graphs; knows nothing of programs or of running them.
Invariant: every feed is checked before anything runs, and all problems are told together.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from graphc import dtypes, source
from graphc.dtypes import DType
from graphc.errors import DTypeError, FetchError, GraphcError, GraphError, InvalidArgumentError, ShapeError, report
from graphc.graph.graph import Graph, near_names
from graphc.graph.operation import Operation, describe_operands
from graphc.graph.shape import TensorShape
from graphc.graph.tensor import IndexedSlices, Tensor

Assemble: TypeAlias = Callable[[Sequence[Any]], Any]


class IndexedSlicesValue(NamedTuple):
    """A fetched IndexedSlices.  Source: tf.IndexedSlicesValue."""

    values: np.ndarray[Any, Any]
    indices: np.ndarray[Any, Any]
    dense_shape: np.ndarray[Any, Any] | None


@dataclass(frozen=True, slots=True)
class Fetches:
    """A nested fetch taken apart.

    tensors: what must be computed, each once.  targets: operations to run without a value.  assemble: from the values
    of `tensors` to the result; None where the result is the only value.
    """

    tensors: tuple[Tensor, ...]
    targets: tuple[Operation, ...]
    assemble: Assemble | None


def take_apart(graph: Graph, fetches: Any) -> Fetches:
    """Return `fetches` taken apart.

    Raises FetchError (a TypeError) for what cannot be fetched, GraphError (a ValueError) for an unknown name or another
    graph's element.
    """
    tensors: dict[Tensor, int] = {}
    targets: dict[Operation, None] = {}
    constants: dict[str, Any] = {}

    def constant(value: Any) -> str:
        constants[f"c{len(constants)}"] = value
        return f"c{len(constants) - 1}"

    def part(item: Any) -> str:
        """The expression of what `item` becomes, over the values v."""
        match item:
            case list():
                return f"[{', '.join(map(part, item))}]"
            case tuple():
                inner = "".join(f"{part(v)}, " for v in item)
                return f"{constant(type(item))}({inner})" if hasattr(item, "_fields") else f"({inner})"
            case Mapping():
                pairs = "".join(f"({constant(k)}, {part(v)}), " for k, v in item.items())
                return f"{constant(type(item))}(({pairs}))"
            case IndexedSlices():
                shape = "None" if item.dense_shape is None else part(item.dense_shape)
                return f"{constant(IndexedSlicesValue)}({part(item.values)}, {part(item.indices)}, {shape})"
        fetch_parts = getattr(item, "_fetch_parts", None)
        if fetch_parts is not None:
            inner_items, finish = fetch_parts()
            return f"{constant(finish)}({part(list(inner_items))})"
        element = _element(graph, item)
        if isinstance(element, Operation):
            targets.setdefault(element)
            return "None"
        return f"v[{tensors.setdefault(element, len(tensors))}]"

    text = part(fetches)
    if text == "v[0]":
        return Fetches(tuple(tensors), (), None)
    # written out once, as every run assembles its result
    assemble: Assemble = eval(f"lambda v: {text}", constants)
    return Fetches(tuple(tensors), tuple(targets), assemble)


def hashable(fetches: Any) -> Any:
    """Return what tells nested fetches apart in a dict."""
    match fetches:
        case list() | tuple():
            return (type(fetches), *map(hashable, fetches))
        case Mapping():
            return (type(fetches), *((k, hashable(v)) for k, v in fetches.items()))
    return fetches


def _element(graph: Graph, item: Any) -> Tensor | Operation:
    try:
        return graph.as_graph_element(item)
    except KeyError as error:
        raise GraphError(report(f"Session.run: {error.args[0]}", str(source.capture()))) from None
    except TypeError:
        raise FetchError(report(
            f"Session.run: {item!r} of type {type(item).__name__} cannot be fetched", str(source.capture()),
            hint="fetch tensors, operations, variables, their names, and lists, tuples and dicts of them")) from None


def feed_keys(graph: Graph, keys: Iterable[Any]) -> tuple[Tensor, ...]:
    """Return the tensors that the keys of a feed_dict mean.

    Raises FetchError (a TypeError) for unknown names and what is no tensor, all of them together, and GraphError for
    another graph's tensor.
    """
    found: list[Tensor] = []
    problems: list[str] = []
    for key in keys:
        try:
            tensor = graph.as_graph_element(key, allow_operation=False)
        except KeyError as error:
            problems.append(str(error.args[0]))
            continue
        except GraphError as error:
            if not isinstance(key, str):
                raise
            problems.append(str(error))
            continue
        except TypeError as error:
            problems.append(str(error))
            continue
        assert isinstance(tensor, Tensor)
        if not graph.is_feedable(tensor):
            problems.append(f"{tensor.name!r} may not be fed")
        found.append(tensor)
    if problems:
        raise FetchError(_together("the keys of feed_dict", problems))
    twice = [t.name for t in dict.fromkeys(found) if found.count(t) > 1]
    if twice:
        raise FetchError(_together("feed_dict", [f"{name!r} is fed twice, under two keys" for name in twice]))
    return tuple(found)


def _together(what: str, problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return report(f"Session.run: {problems[0]}", str(source.capture()))
    listed = "".join(f"\n  - {p}" for p in problems)
    return f"Session.run: {what}: {len(problems)} problems\n  at {source.capture()}{listed}"


class BadFeed(GraphcError):
    """A value cannot be fed to a tensor; `kind` is the class of the user's error."""

    def __init__(self, problem: str, kind: type[GraphcError], hint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.kind = kind
        self.hint = hint


class Fed(Protocol):
    """What is fed: a tensor, or the input of a saved program."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def shape(self) -> TensorShape: ...


def feed_value(tensor: Fed, value: Any) -> np.ndarray[Any, Any]:
    """Return `value` as an array of the tensor's dtype whose shape fits its static shape.  Raises BadFeed.

    Numbers are converted where none changes: ints to floats, floats to ints where all are whole, wide ints to narrow
    ones where all fit.
    """
    if isinstance(value, Tensor) or hasattr(value, "_as_tensor"):
        raise BadFeed(f"{tensor.name!r} is fed a tensor, {value!r}", FetchError,
                      "feed Python numbers, lists or NumPy arrays; run the tensor first to have its value")
    dtype = tensor.dtype
    try:
        given = np.asarray(value)
    except ValueError:
        given = np.asarray(value, object)
    if given.dtype.kind not in "biuf" and given.dtype.name != "bfloat16":
        ragged = given.dtype.kind == "O" and given.ndim and isinstance(given.flat[0], (list, tuple, np.ndarray))
        if ragged:
            raise BadFeed(f"{tensor.name!r} is fed rows of different lengths", ShapeError, "pad them to one length")
        raise BadFeed(f"{tensor.name!r} of {dtype.name} is fed {_short(value)}, which is not numbers", DTypeError)
    array = _converted(tensor, given, dtype)
    if not tensor.shape.is_compatible_with(array.shape):
        raise BadFeed(f"{tensor.name!r} has the shape {tensor.shape}, but is fed the shape {_shape(array.shape)}",
                      ShapeError, _shape_hint(tensor, array.shape))
    return array


def _converted(tensor: Fed, given: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    wanted = np.dtype(dtype.as_numpy_dtype)
    if given.dtype == wanted:
        return dtypes.round_to_bfloat16(given) if dtype is dtypes.bfloat16 else given
    if dtype.is_bool and given.dtype.kind != "b" and not np.isin(given, (0, 1)).all():
        raise BadFeed(f"{tensor.name!r} is bool, but is fed {given.dtype.name} values other than 0 and 1", DTypeError)
    if dtype.is_integer and given.dtype.kind == "f" and not (np.isfinite(given) & (given == np.trunc(given))).all():
        raise BadFeed(f"{tensor.name!r} is {dtype.name}, but is fed {given.dtype.name} values that are not whole",
                      DTypeError, f"convert them: x.astype('{dtype.name}')")
    if dtype.is_integer and given.size and (given.min() < dtype.min or given.max() > dtype.max):
        raise BadFeed(f"{tensor.name!r} is {dtype.name}, which does not hold the fed values from {given.min()} to "
                      f"{given.max()}", DTypeError)
    with np.errstate(over="ignore"):  # a float too large for the placeholder's dtype becomes infinite, as NumPy has it
        array = given.astype(wanted)
    return dtypes.round_to_bfloat16(array) if dtype is dtypes.bfloat16 else array


def _shape_hint(tensor: Fed, shape: tuple[int, ...]) -> str | None:
    rank = tensor.shape.ndims
    if rank is not None and rank == len(shape) + 1:
        return "the value has an axis less: add one, with x[np.newaxis] or x[:, np.newaxis]"
    if rank is not None and rank == len(shape) - 1:
        return "the value has an axis more: take one away, with np.squeeze or x[0]"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def check_feeds(tensors: Sequence[Tensor], values: Sequence[Any]) -> None:
    """Raise the user's error where a value does not fit its tensor; it tells all problems."""
    problems: list[tuple[Tensor, BadFeed]] = []
    for tensor, value in zip(tensors, values, strict=True):
        try:
            feed_value(tensor, value)
        except BadFeed as bad:
            problems.append((tensor, bad))
    if not problems:
        return
    kinds = {bad.kind for _, bad in problems}
    kind = kinds.pop() if len(kinds) == 1 else ShapeError
    if len(problems) == 1:
        what = f"Session.run: {problems[0][1].problem}"
    else:
        what = f"Session.run: {len(problems)} feeds do not fit" + "".join(f"\n  - {bad.problem}" for _, bad in problems)
    hints = [bad.hint for _, bad in problems if bad.hint]
    raise kind(report(what, str(source.capture()), describe_operands([t for t, _ in problems]),
                      hints[0] if hints else None))


def check_fed(fetches: Fetches, feeds: Sequence[Tensor]) -> None:
    """Raise InvalidArgumentError where placeholders that the run needs are not fed: all of them, each with the way from
    a fetch to it."""
    fed = frozenset(feeds)
    starts = [t.op for t in fetches.tensors if t not in fed] + list(fetches.targets)
    reached: dict[Operation, Operation | None] = dict.fromkeys(starts)
    queue = list(reached)
    missing: list[Operation] = []
    for op in queue:  # grows while it is walked: breadth first, so the ways are short
        if op.type == "Placeholder" and op.outputs[0] not in fed:
            missing.append(op)
        for parent in [*(t.op for t in op.inputs if t not in fed), *op.control_inputs]:
            if parent not in reached:
                reached[parent] = op
                queue.append(parent)
    if not missing:
        return
    missing.sort(key=lambda op: op.index)
    names = ", ".join(repr(op.name) for op in missing)
    rows = describe_operands([op.outputs[0] for op in missing])
    operands = [(name, f"{text}, needed by {_way(op, reached)}") for op,
                (name, text) in zip(missing, rows, strict=True)]
    plural = "s" if len(missing) > 1 else ""
    text = report(f"Session.run: you must feed a value for the placeholder{plural} {names}", str(source.capture()),
                  operands,
                  f"pass feed_dict={{{', '.join(f'{op.name}: ...' for op in missing)}}}{_near_hint(missing, feeds)}")
    raise InvalidArgumentError(None, missing[0], text)


def _way(op: Operation, reached: Mapping[Operation, Operation | None]) -> str:
    names: list[str] = []
    at = reached[op]
    while at is not None:
        names.append(at.name)
        at = reached[at]
    if not names:
        return "the fetch itself"
    if len(names) > 5:
        names = [*names[:2], "...", *names[-2:]]
    return " -> ".join(names)


def _near_hint(missing: Sequence[Operation], feeds: Sequence[Tensor]) -> str:
    """A word on fed tensors whose name is like a missing one: a second copy of a placeholder is a common mistake."""
    for op in missing:
        near = near_names(op.name, [t.op.name for t in feeds if t.op.type == "Placeholder"], 1)
        if near:
            return f"; {near[0]!r} is fed, which is another placeholder"
    return ""
