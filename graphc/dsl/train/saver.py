"""Checkpoints: the variables of a session in files, and which of them is the newest.

Owns `Saver`, the names of checkpoint files and the folder's `checkpoint` file (TensorFlow's text form).  Knows
sessions by `run` alone, and the format by tensorfile.py.  Invariants: a file is written beside its place and renamed,
so a checkpoint is whole or absent; what is restored was checked, name by name, before a variable changes.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc import dtypes, errors
from graphc.dsl import variables
from graphc.graph.graph import near_names
from graphc.tensorfile import Stored, pack_tensors, unpack_tensors

SUFFIX = ".safetensors"
_STATE = "checkpoint"

Array = np.ndarray[Any, Any]


class Saver:
    """Saves and restores variables.  Source: tf.train.Saver.

    var_list: variables, or a dict from names in the file to variables; all global variables where it is None.
    max_to_keep: checkpoints that stay on disk, None or 0 for all.  keep_checkpoint_every_n_hours: one of the removed
    ones stays for every so many hours.  reshape: restore arrays of other shapes with as many elements.  name: accepted.
    A checkpoint is one file, PATH.safetensors (PATH-STEP.safetensors with a
    global_step), which other programs can read; PATH without the suffix is what `save` returns and `restore` takes.
    """

    def __init__(self, var_list: Iterable[Any] | Mapping[str, Any] | None = None, reshape: bool = False,
                 sharded: bool = False, max_to_keep: int | None = 5,
                 keep_checkpoint_every_n_hours: float = 10000.0, name: str | None = None) -> None:
        if sharded:
            raise NotImplementedError("Saver: a checkpoint is one file; sharded must be False")
        if var_list is None:
            var_list = variables.global_variables()
        named: dict[str, Any] = {}
        given = var_list.items() if isinstance(var_list, Mapping) else ((None, v) for v in var_list)
        for key, v in given:
            if not isinstance(v, variables.Variable):
                raise TypeError(f"Saver: {v!r} is not a variable")
            own = v.op.name if key is None else key
            if named.setdefault(own, v) is not v:
                raise ValueError(f"Saver: two variables are called {own!r}")
        if not named:
            raise ValueError("Saver: there are no variables to save")
        self._named: dict[str, Any] = {name: named[name] for name in sorted(named)}
        self._reshape = reshape
        self._keep = max_to_keep or 0
        self._every = keep_checkpoint_every_n_hours * 3600.0
        self._next_kept = time.time() + self._every
        self._saved: list[tuple[str, float]] = []

    @property
    def last_checkpoints(self) -> list[str]:
        """The checkpoints of this saver that have not been removed, oldest first."""
        return [path for path, _ in self._saved]

    def set_last_checkpoints(self, paths: Sequence[str]) -> None:
        """Say which checkpoints there are already; they count towards max_to_keep."""
        self._saved = [(path, _time_of(path)) for path in paths]

    def recover_last_checkpoints(self, paths: Sequence[str]) -> None:
        """As `set_last_checkpoints`, for those of `paths` that exist."""
        self.set_last_checkpoints([path for path in paths if checkpoint_exists(path)])

    def save(self, sess: Any, save_path: str | os.PathLike[str], global_step: Any = None,
             latest_filename: str | None = None, write_meta_graph: bool = False, write_state: bool = True) -> str:
        """Write the variables' values and return the checkpoint's path, without the suffix.

        global_step: a number, tensor or variable, appended to the path.  Raises FailedPreconditionError for a variable
        without a value, ValueError for a folder that does not exist, NotImplementedError for write_meta_graph: graphs
        are saved by `graphc compile`.
        """
        if write_meta_graph:
            raise NotImplementedError("Saver.save: graphs are not written beside the variables; save a program that "
                                      "runs elsewhere with `graphc compile`")
        path = os.fspath(save_path)
        if global_step is not None:
            step = global_step if isinstance(global_step, int | np.integer) else sess.run(global_step)
            path = f"{path}-{int(step)}"
        folder = Path(path).parent
        if not folder.is_dir():
            raise ValueError(f"Saver.save: the folder {str(folder)!r} of {path!r} does not exist")
        values = sess.run(list(self._named.values()))
        tensors = {name: _stored(v, value) for (name, v), value in zip(self._named.items(), values, strict=True)}
        _write(Path(path + SUFFIX), pack_tensors(tensors))
        self._remember(path)
        if write_state:
            update_checkpoint_state(folder, path, self.last_checkpoints, latest_filename)
        return path

    def restore(self, sess: Any, save_path: str | os.PathLike[str]) -> None:
        """Give the variables the values of a checkpoint.

        Raises ValueError where there is none, NotFoundError for a variable that it lacks, InvalidArgumentError for
        another shape or dtype.
        """
        path = os.fspath(save_path)
        if not checkpoint_exists(path):
            raise ValueError(f"The passed save_path is not a valid checkpoint: {path}")
        reader = load_checkpoint(path)
        found: list[tuple[Any, Array]] = []
        for name, v in self._named.items():
            if not reader.has_tensor(name):
                near = near_names(name, reader.get_variable_to_shape_map())
                told = f"; near names in the file: {', '.join(near)}" if near else ""
                raise errors.NotFoundError(None, v.op, f"Key {name} not found in checkpoint {path}{told}")
            value, dtype = reader.get_tensor(name), v.dtype.base_dtype
            if reader.get_variable_to_dtype_map()[name] is not dtype:
                stored = reader.get_variable_to_dtype_map()[name]
                raise errors.InvalidArgumentError(None, v.op, f"{name} is {dtype.name}, saved as {stored.name}")
            shape = tuple(v.shape.as_list()) if v.shape.is_fully_defined() else value.shape
            if shape != value.shape and not (self._reshape and value.size == int(np.prod(shape, dtype=np.int64))):
                raise errors.InvalidArgumentError(None, v.op, f"{name} has the shape {shape}, in the checkpoint "
                                                  f"{value.shape}")
            found.append((v, value.reshape(shape)))
        for v, value in found:
            v.load(value, sess)

    def _remember(self, path: str) -> None:
        """Note a new checkpoint; remove the oldest beyond the number that stays."""
        self._saved = [entry for entry in self._saved if entry[0] != path] + [(path, time.time())]
        while self._keep and len(self._saved) > self._keep:
            old, written = self._saved.pop(0)
            if written > self._next_kept:
                self._next_kept += self._every
                continue
            Path(old + SUFFIX).unlink(missing_ok=True)


class CheckpointReader:
    """The arrays of a checkpoint.  Source: tf.train.NewCheckpointReader."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        file = _file(self._path)
        if file is None:
            raise errors.NotFoundError(None, None, f"there is no checkpoint {self._path!r}")
        self._tensors = unpack_tensors(file.read_bytes())

    def has_tensor(self, name: str) -> bool:
        """Return whether there is an array called `name`."""
        return name in self._tensors

    def get_tensor(self, name: str) -> Array:
        """Return a copy of the array called `name`.  Raises NotFoundError."""
        if name not in self._tensors:
            raise errors.NotFoundError(None, None, f"Key {name} not found in checkpoint {self._path}")
        stored = self._tensors[name]
        return dtypes.bfloat16_to_float32(stored.array) if stored.dtype is dtypes.bfloat16 else stored.array.copy()

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Return the shape of each array by name."""
        return {name: list(stored.array.shape) for name, stored in sorted(self._tensors.items())}

    def get_variable_to_dtype_map(self) -> dict[str, dtypes.DType]:
        """Return the dtype of each array by name."""
        return {name: stored.dtype for name, stored in sorted(self._tensors.items())}


NewCheckpointReader = CheckpointReader


@dataclass(frozen=True)
class CheckpointState:
    """Which checkpoints a folder has.  Source: tf.train.CheckpointState."""

    model_checkpoint_path: str
    all_model_checkpoint_paths: tuple[str, ...]


def load_checkpoint(ckpt_dir_or_file: str | os.PathLike[str]) -> CheckpointReader:
    """Return a reader of a checkpoint, or of the newest one of a folder."""
    path = os.fspath(ckpt_dir_or_file)
    newest = latest_checkpoint(path) if os.path.isdir(path) else path
    if newest is None:
        raise ValueError(f"Couldn't find 'checkpoint' file or checkpoints in given directory {path}")
    return CheckpointReader(newest)


def list_variables(ckpt_dir_or_file: str | os.PathLike[str]) -> list[tuple[str, list[int]]]:
    """Return (name, shape) of each array of a checkpoint."""
    return list(load_checkpoint(ckpt_dir_or_file).get_variable_to_shape_map().items())


def checkpoint_exists(checkpoint_prefix: str | os.PathLike[str]) -> bool:
    """Return whether there is a checkpoint of this path."""
    return _file(os.fspath(checkpoint_prefix)) is not None


def latest_checkpoint(checkpoint_dir: str | os.PathLike[str], latest_filename: str | None = None) -> str | None:
    """Return the path of the newest checkpoint in a folder, or None."""
    state = get_checkpoint_state(checkpoint_dir, latest_filename)
    if state is None or not checkpoint_exists(state.model_checkpoint_path):
        return None
    return state.model_checkpoint_path


def get_checkpoint_state(checkpoint_dir: str | os.PathLike[str],
                         latest_filename: str | None = None) -> CheckpointState | None:
    """Return what a folder's `checkpoint` file says, or None where there is none."""
    file = Path(checkpoint_dir, latest_filename or _STATE)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    rows = [(key, _unquoted(value)) for key, value in re.findall(r'^(\w+):\s*"(.*)"\s*$', text, re.MULTILINE)]
    paths = [(key, value if os.path.isabs(value) else str(Path(checkpoint_dir, value))) for key, value in rows]
    newest = [value for key, value in paths if key == "model_checkpoint_path"]
    if len(newest) != 1:
        raise ValueError(f"{file} does not name one model_checkpoint_path")
    return CheckpointState(newest[0], tuple(v for key, v in paths if key == "all_model_checkpoint_paths"))


def update_checkpoint_state(save_dir: str | os.PathLike[str], model_checkpoint_path: str,
                            all_model_checkpoint_paths: Sequence[str] | None = None,
                            latest_filename: str | None = None) -> None:
    """Write a folder's `checkpoint` file: the newest checkpoint and all there are, relative to the folder."""
    paths = list(all_model_checkpoint_paths or ())
    if model_checkpoint_path not in paths:
        paths.append(model_checkpoint_path)

    def row(key: str, path: str) -> str:
        told = os.path.relpath(path, save_dir).replace("\\", "\\\\").replace('"', '\\"')
        return f'{key}: "{told}"\n'

    text = row("model_checkpoint_path", model_checkpoint_path) + "".join(
        row("all_model_checkpoint_paths", path) for path in paths)
    _write(Path(save_dir, latest_filename or _STATE), text.encode())


def _stored(variable: Any, value: Any) -> Stored:
    dtype = variable.dtype.base_dtype
    array = np.asarray(value)
    return Stored(dtype, dtypes.float32_to_bfloat16(array) if dtype is dtypes.bfloat16 else array)


def _file(path: str) -> Path | None:
    """The file of a checkpoint's path, which may have the suffix."""
    for name in (path + SUFFIX, path if path.endswith(SUFFIX) else ""):
        if name and os.path.isfile(name):
            return Path(name)
    return None


def _time_of(path: str) -> float:
    file = _file(path)
    return file.stat().st_mtime if file is not None else time.time()


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _write(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or none."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
