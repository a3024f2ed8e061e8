"""`graphc run PROGRAM.gcx`: a saved program fed from files, its results printed or written.

Owns the reading of inputs from the command line and the forms of results.  Knows saved programs by `load`; imports no
compiler itself.
"""
from __future__ import annotations

import json
import linecache
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from graphc.artifact.load import LoadedProgram, load
from graphc.cli import output
from graphc.graph.graph import near_names

Array = np.ndarray[Any, Any]


def run_saved(file: Path, given: Sequence[str], trust: bool, fetch: Sequence[str], out: Path | None,
              as_json: bool) -> None:
    """Run the program in `file` once and print or write what it gives.

    given: inputs, each NAME=FILE.npy, NAME=VALUE (JSON) or FILE.npz.  fetch: names of results; none: all.
    out: .npz, or .npy for a single result.  Raises UsageError for wrong inputs, and the program's errors.
    """
    program = load(file, trust)
    inputs = _inputs(program, given)
    known = tuple(p.name for p in program.signature.outputs)
    for name in fetch:
        if name not in known:
            raise click.BadParameter(_unknown("result", name, known), param_hint="--fetch")
    if out is not None and out.suffix not in (".npz", ".npy"):
        raise click.BadParameter("results are written as .npz, or as .npy where there is one", param_hint="--output")
    names = tuple(fetch) or known
    if out is not None and out.suffix == ".npy" and len(names) != 1:
        raise click.BadParameter(f"a .npy file holds one result, and there are {len(names)}: give --fetch NAME, or a "
                                 ".npz file", param_hint="--output")
    if program.origin.startswith("compiled again"):
        click.echo(f"{file}: {program.origin}", err=True)
    results = _run(program, names, inputs)
    if out is not None:
        _write(out, results)
        click.echo(f"{out}: {', '.join(f'{name} {_type(a)}' for name, a in results.items()) or 'nothing'}", err=as_json)
    if as_json:
        output.show_json({name: _finite(a.tolist()) for name, a in results.items()})
    elif out is None:
        for name, a in results.items():
            click.echo(f"{name}  {_type(a)}")
            click.echo(_indented(np.array2string(a, max_line_width=110)))


def _run(program: LoadedProgram, names: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run the program from code of its own, so that errors show the command as the line that called."""
    place = "<command line>"
    text = " ".join(click.get_current_context().meta.get("command", ())) or "graphc run"
    linecache.cache[place] = len(text), None, [text], place
    call = compile("program.run(list(names), inputs)", place, "eval")
    values: list[Any] = eval(call, {"program": program, "names": names, "inputs": inputs, "list": list})
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _inputs(program: LoadedProgram, given: Sequence[str]) -> dict[str, Array]:
    """The inputs by name."""
    ports = {p.name: p for p in program.signature.inputs}
    found: dict[str, Array] = {}
    for text in given:
        for name, value in _read(text):
            if name not in ports:
                raise click.BadParameter(_unknown("input", name, tuple(ports)), param_hint=text)
            if name in found:
                raise click.BadParameter(f"the input {name!r} is given twice", param_hint=text)
            found[name] = value if isinstance(value, np.ndarray) else _array(name, value, ports[name].dtype, text)
    missing = [p for p in program.signature.inputs
               if p.name not in found and p.name not in program.signature.defaults]
    if missing:
        first = missing[0].name
        raise click.UsageError(f"the program needs the input{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}; "
                               f"give {first}=FILE.npy, {first}=VALUE, or a .npz file")
    return found


def _read(text: str) -> list[tuple[str, Any]]:
    """The (name, value) pairs of one argument."""
    name, equals, value = text.partition("=")
    if not equals:
        if not text.endswith(".npz"):
            raise click.BadParameter("an input is NAME=FILE.npy, NAME=VALUE or FILE.npz", param_hint=text)
        return list(_load(text).items())
    if value.endswith(".npy"):
        return [(name, _load(value)[""])]
    try:
        return [(name, json.loads(value))]
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a .npy file nor a number or list in JSON",
                                 param_hint=text) from None


def _load(name: str) -> dict[str, Array]:
    """The arrays of a file: of a .npz by name, that of a .npy under "".  Nothing in it is unpickled."""
    try:
        loaded = np.load(name, allow_pickle=False)
        return {key: loaded[key] for key in loaded.files} if name.endswith(".npz") else {"": loaded}
    except FileNotFoundError:
        raise click.BadParameter("there is no such file", param_hint=name) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise click.BadParameter(f"it cannot be read as NumPy's: {error}", param_hint=name) from None


def _array(name: str, value: Any, dtype: Any, text: str) -> Array:
    try:
        return np.asarray(value, dtype.as_numpy_dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise click.BadParameter(f"the value is no {dtype.name}: {error}", param_hint=text) from None


def _write(path: Path, results: Mapping[str, Array]) -> None:
    if path.suffix == ".npy":
        (value,) = results.values()
        np.save(path, value, allow_pickle=False)
    else:
        np.savez(path, **results)  # type: ignore[arg-type]


def _finite(value: Any) -> Any:
    """`value` as JSON can say it: NaN and the infinities, for which it has no numbers, as texts."""
    if isinstance(value, list):
        return list(map(_finite, value))
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _type(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines()).rstrip("\n")


def _unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    near = near_names(name, known, 1)
    told = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
    return f"the program has no {what} {name!r}; {told}"
