"""Models: what a file of the user's builds, what it is called with, and the values of its variables.

Owns the import of a model file, the choice of its signature and the reading of checkpoints.  Knows graphs and sessions;
knows nothing of saved programs or of the command line.
Invariants: the file's main part does not run; the caller's default graph and sys.path are as before; every name in a
signature is an element of the model's one graph, and all placeholders that its results need are among its inputs.
"""
from __future__ import annotations

import importlib.util
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dsl.signature import Declared, Signature, declared_signature, element_name
from graphc.dtypes import DType
from graphc.errors import GraphError, ModelError, report
from graphc.graph.graph import Graph, fresh_default_graph, get_default_graph, near_names
from graphc.graph.operation import Operation, describe_operands
from graphc.graph.tensor import Tensor
from graphc.ops.base import Kind
from graphc.passes.extract import needed
from graphc.runtime.variables import shown
from graphc.session import Session
from graphc.tensorfile import unpack_tensors

Array = np.ndarray[Any, Any]

MODULE = "__model__"
"""The name that a model file is imported under: another than __main__, so that its main part does not run."""


@dataclass(frozen=True)
class Model:
    """A graph with its signature.

    path: the file it came from, or "".  given: values of variables from a checkpoint; None: the initializers say them.
    unused: names in the checkpoint that no variable of the graph has.
    """

    path: str
    graph: Graph
    signature: Signature
    given: Mapping[str, Array] | None = None
    unused: tuple[str, ...] = ()

    def values(self) -> dict[str, Array]:
        """Return the values of the variables by name: the checkpoint's, else what one run of the initializers gave."""
        return dict(self._values)

    @cached_property
    def _values(self) -> Mapping[str, Array]:
        if self.given is not None:
            return self.given
        variables = _variables(self.graph)
        with Session(graph=self.graph) as session:
            session.run([v.initializer for v in variables.values()])
            return {name: session.variables.get(name) for name in variables}


def load_model(path: str | Path, *, fetches: Iterable[str] = (), feeds: Iterable[str] = (),
               checkpoint: str | Path | None = None) -> Model:
    """Return the model that the Python file `path` builds.

    The file is imported under another name than __main__, in a fresh default graph; where that graph then holds no
    operation, the file's function `model()` is called, which builds into the default graph or returns a Graph or
    something with a `.graph`.  fetches, feeds: names instead of the declared results and inputs: of the signature, of
    operations or of tensors.  checkpoint: a .safetensors or .npz file of variables by name.
    Raises ModelError, OSError, and whatever the file itself raises.
    """
    file = Path(path)
    with _imported(file) as module:
        graph = _built(file, module)
    signature = choose_signature(graph, tuple(fetches), tuple(feeds))
    if checkpoint is None:
        return Model(str(path), graph, signature)
    given, unused = read_checkpoint(checkpoint, graph, signature)
    return Model(str(path), graph, signature, given, unused)


# ---------------------------------------------------------------------------------------------
# The file.


@contextmanager
def _imported(file: Path) -> Iterator[ModuleType]:
    """The module that `file` is, imported and for a while the owner of an empty default graph."""
    if not file.is_file():
        raise ModelError(f"{file}: there is no such file")
    spec = importlib.util.spec_from_file_location(MODULE, file)
    if spec is None or spec.loader is None:
        raise ModelError(f"{file}: a model is a Python file, whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    folder, before = str(file.resolve().parent), list(sys.path)
    sys.path.insert(0, folder)
    sys.modules[MODULE] = module  # where pickles, dataclasses and type hints look
    try:
        with fresh_default_graph():
            try:
                spec.loader.exec_module(module)
            except SystemExit as end:
                raise ModelError(report(
                    f"{file}: the file ends the program when it is imported (sys.exit({end.code!r}))",
                    hint='put what only a script does under `if __name__ == "__main__":`')) from None
            yield module
    finally:
        sys.path[:] = before


def _built(file: Path, module: ModuleType) -> Graph:
    """The graph of an imported model file."""
    graph = get_default_graph()
    if graph.operation_count:
        return graph
    make = getattr(module, "model", None)
    fix = "build the graph at the top level of the file, or in a function model() that takes no arguments"
    if not callable(make):
        raise ModelError(report(f"{file}: importing the file builds no graph, and it has no function model()",
                                hint=fix))
    try:
        made = make()
    except TypeError as error:
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:  # raised inside
            raise
        raise ModelError(report(f"{file}: model() cannot be called without arguments: {error}", hint=fix)) from None
    for found in (made, getattr(made, "graph", None), get_default_graph()):
        if isinstance(found, Graph) and found.operation_count:
            return found
    raise ModelError(report(f"{file}: model() builds nothing into the default graph and returns "
                            f"{type(made).__name__}, which is no graph and has none with operations", hint=fix))


# ---------------------------------------------------------------------------------------------
# The signature.


def choose_signature(graph: Graph, fetches: Sequence[str] = (), feeds: Sequence[str] = ()) -> Signature:
    """Return the signature of a graph: the names given, else what it declares, else what it looks like.

    Without names and declaration the results are those of `free_results`, and the inputs the placeholders they need.
    Raises ModelError for unknown names, for nothing to compute, and for a placeholder that is needed and no input.
    """
    declared = declared_signature(graph) or Declared(None, None, ())
    outputs: dict[str, Tensor] = {}
    targets: list[Operation] = []
    if fetches:
        for name in fetches:
            element = _element(graph, name, declared.outputs or {}, "fetch")
            if isinstance(element, Operation):
                targets.append(element)
            else:
                outputs[name] = element
    elif declared.outputs is not None:
        outputs, targets = dict(declared.outputs), list(declared.targets)
    else:
        outputs = {element_name(t): t for t in free_results(graph)}
    if not outputs and not targets:
        raise ModelError(report("the graph has no result that nobody consumes",
                                hint='name what to compute: tf.signature(outputs={"name": tensor}), or --fetch NAME'))
    known = declared.inputs or {}
    inputs: dict[str, Tensor] = {}
    for name in feeds:
        element = _element(graph, name, known, "feed")
        if isinstance(element, Operation):
            raise ModelError(f"the feed {name!r} is an operation without a value")
        if not graph.is_feedable(element):
            raise ModelError(f"the feed {name!r} may not be fed")
        inputs[name] = element
    if not feeds and not fetches:
        inputs = dict(known)
    elif not feeds:
        reached = {op.outputs[0] for op in needed(tuple(outputs.values()), (), targets) if op.outputs}
        inputs = {name: t for name, t in known.items() if t in reached}
    ran = needed(tuple(outputs.values()), tuple(inputs.values()), targets)
    missing = [op.outputs[0] for op in ran if op.type == "Placeholder" and op.outputs[0] not in inputs.values()]
    if missing and declared.inputs is not None and not fetches and not feeds:
        names = ", ".join(repr(t.op.name) for t in missing)
        raise ModelError(report(f"signature: the outputs need the placeholder{'s' * (len(missing) > 1)} {names}, "
                                "which the inputs do not name", str(missing[0].op.source), describe_operands(missing)))
    inputs |= {element_name(t): t for t in missing}
    return Signature(inputs, outputs, tuple(dict.fromkeys(targets)))


def free_results(graph: Graph) -> list[Tensor]:
    """Return what a graph computes for its user: tensors that nobody but gradients consumes and nothing waits for,
    without inputs, variables, their initializers and writes, and what gradients leave behind."""
    awaited = {op for user in graph.get_operations() for op in user.control_inputs}
    idle = ("Placeholder", "PlaceholderWithDefault", "Const")
    return [t for op in graph.get_operations()
            if op.type not in idle and op.op.kind is not Kind.STATE and op.gradient_of is None and op not in awaited
            for t in op.outputs if all(user.gradient_of is not None for user in t.consumers())]


def _element(graph: Graph, name: str, known: Mapping[str, Tensor], what: str) -> Tensor | Operation:
    """The tensor or valueless operation that `name` means: a name of the signature first, then one of the graph."""
    if name in known:
        return known[name]
    try:
        element = graph.as_graph_element(name)
    except (KeyError, GraphError) as error:
        near = near_names(name, dict.fromkeys((*known, *(op.name for op in graph.get_operations()))))
        hint = f"near names: {', '.join(near)}" if near else f"the signature's: {', '.join(known)}" if known else None
        told = str(error.args[0]).split("; near names")[0]
        raise ModelError(report(f"cannot {what} {name!r}: {told}", hint=hint)) from None
    return element.outputs[0] if isinstance(element, Operation) and element.outputs else element


# ---------------------------------------------------------------------------------------------
# Checkpoints.


def read_checkpoint(path: str | Path, graph: Graph, signature: Signature) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the values of the graph's variables that a checkpoint holds, and its names that no variable has.

    Raises ModelError where a variable that the signature reads is missing, or a dtype or shape differs; OSError.
    """
    file = Path(path)
    found = _read(file)
    variables = _variables(graph)
    unused = tuple(sorted(found.keys() - variables.keys()))
    ran = needed(tuple(signature.outputs.values()), tuple(signature.inputs.values()), signature.targets)
    missing = [op for op in ran if op.type == "VariableV2" and op.name in variables and op.name not in found
               and op.outputs[0] not in signature.inputs.values()]
    if missing:
        rows = [(op.name, text + _near(op.name, unused)) for op, (_, text) in
                zip(missing, describe_operands([op.outputs[0] for op in missing]), strict=True)]
        raise ModelError(report(f"{file}: no value for {len(missing)} of the variables that the model reads",
                                operands=rows, hint=f"the file holds {_some(sorted(found))}"))
    wrong = []
    values: dict[str, Array] = {}
    for name, (dtype, array) in found.items():
        if name not in variables:
            continue
        have, want = variables[name].shape, variables[name].dtype
        fits = dtype is want or (want is dtypes.bfloat16 and dtype is dtypes.float32 and file.suffix == ".npz")
        if fits and have.is_compatible_with(array.shape):
            values[name] = dtypes.round_to_bfloat16(array) if want is dtypes.bfloat16 else array
        else:
            wrong.append((name, f"is {want.name} {have}, the file has {dtype.name} {_shape(array.shape)}"))
    if wrong:
        raise ModelError(report(f"{file}: {len(wrong)} of its arrays do not fit their variables", operands=wrong))
    return values, unused


def _read(file: Path) -> dict[str, tuple[DType, Array]]:
    """The arrays of a checkpoint as users see them, by name."""
    match file.suffix:
        case ".safetensors":
            stored = unpack_tensors(file.read_bytes())
            return {name: (s.dtype, shown(s.array, s.dtype)) for name, s in stored.items()}
        case ".npz":
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    found = {name: arrays[name] for name in arrays.files}
            except (ValueError, EOFError, zipfile.BadZipFile) as error:
                raise ModelError(f"{file}: not arrays without pickles in NumPy's .npz format: {error}") from None
            return {name: (dtypes.as_dtype(a.dtype), a) for name, a in found.items()}
    raise ModelError(f"{file}: a checkpoint is a .safetensors or .npz file")


def _variables(graph: Graph) -> dict[str, Any]:
    """All variables of a graph by name, in order of creation."""
    known: Mapping[Operation, Any] = graph.extensions.get("variables", {})
    return {op.name: known[op] for op in sorted(known, key=lambda op: op.index)}


def _near(name: str, others: Sequence[str]) -> str:
    near = near_names(name, others, 1)
    return f"; the file has {near[0]!r}" if near else ""


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}" or "nothing"


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
