"""The state of this machine and this installation, as far as graphc depends on it.

Owns what is looked at, what counts as a problem, and the one fix of each.  Knows the runtime's own facts through its
public functions; changes nothing on the machine.  Invariant: every problem has exactly one line that says what to do.
"""
from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from graphc import options as settings
from graphc.backends.base import Backend
from graphc.compiler import load_backend
from graphc.dsl.array import placeholder
from graphc.dsl.elementwise import multiply
from graphc.dtypes import float32
from graphc.graph.graph import Graph, near_names
from graphc.kernel.target import Target
from graphc.options import Options
from graphc.runtime import link
from graphc.runtime.cache import Cache
from graphc.runtime.waiting import Platform
from graphc.session import Session

PYTHONS = ((3, 11), (3, 14))
"""The first Python that is supported, and the first that is not."""
REQUIRED = ("numpy", "llvmlite", "numba", "networkx", "safetensors", "rich", "click")
EXTRAS = {
    "data": (("scikit-learn", "sklearn"), ("pillow", "PIL")), "viz": (("matplotlib", "matplotlib"), ("pillow", "PIL")),
    "tensorboard": (("tensorboard", "tensorboard"),), "onnx": (("onnx", "onnx"),),
    "cuda": (("numba-cuda", "numba_cuda"),),
}
"""Extra of the package -> (distribution, module) of what it brings for graphc to import."""
TELLING = ("sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512bf16", "amx-bf16", "neon",
           "sve", "bf16")
"""The processor's features that change the code, or that a reader looks for."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked at.

    problem: what is wrong with it, or "".  fix: what to do about it.  broken: graphc does not work that way; else it
    works, and not as well as it could.
    """

    topic: str
    name: str
    value: str
    problem: str = ""
    fix: str = ""
    broken: bool = False


def examine() -> list[Fact]:
    """Return everything that was found, topic by topic; a program is tried where the settings can be read."""
    settings_ = list(variables(os.environ))
    return [*versions(), *settings_, *processor(), *cache(_options()), *threads(_options()), *devices(), *extras(),
            *(() if any(f.broken for f in settings_) else trial())]


def _options() -> Options:
    try:
        return settings.from_environment()
    except ValueError:  # which `variables` tells
        return Options()


# -- what is installed ------------------------------------------------------------------------------------------------


def versions(python: tuple[int, int] = sys.version_info[:2]) -> Iterator[Fact]:
    """The versions of Python and of what graphc needs."""
    first, end = PYTHONS
    fits = first <= python < end
    yield Fact("versions", "graphc", importlib.import_module("graphc").__version__)
    yield Fact("versions", "Python", platform.python_version(), "" if fits else "this Python is not supported",
               f"use Python {first[0]}.{first[1]} to {end[0]}.{end[1] - 1}", not fits)
    for name in REQUIRED:
        version = _version(name, name)
        yield Fact("versions", name, version or "not installed", "" if version else f"{name} is not installed",
                   f"pip install {name}", not version)


def _version(distribution: str, module: str) -> str:
    if importlib.util.find_spec(module) is None:
        return ""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "installed, version unknown"


def extras() -> Iterator[Fact]:
    """The optional parts.  That one is absent is no problem."""
    for extra, parts in EXTRAS.items():
        there = [(distribution, _version(distribution, module)) for distribution, module in parts]
        missing = [distribution for distribution, version in there if not version]
        yield Fact("extras", extra, f"{', '.join(missing)} not installed: pip install 'graphc[{extra}]'" if missing else
                   ", ".join(f"{distribution} {version}" for distribution, version in there))


def variables(environment: Mapping[str, str]) -> Iterator[Fact]:
    """The GRAPHC_* variables that are set."""
    known = [f"GRAPHC_{f.name.upper()}" for f in fields(Options)] + ["GRAPHC_FULL_TRACEBACK", "GRAPHC_DATA"]
    names = sorted(name for name in environment if name.startswith("GRAPHC_"))
    if not names:
        yield Fact("settings", "GRAPHC_*", "none is set")
    for name in names:
        if name not in known:
            near = near_names(name, known, 1)
            fix = f"unset {name}" + (f", or set {near[0]}" if near else "")
            yield Fact("settings", name, environment[name], f"there is no setting {name}", fix)
            continue
        try:
            settings.from_environment({name: environment[name]})
            yield Fact("settings", name, environment[name])
        except ValueError as error:
            yield Fact("settings", name, environment[name], str(error), f"unset {name}", True)


# -- the machine ------------------------------------------------------------------------------------------------------


def processor() -> Iterator[Fact]:
    """The processor, and what code is made for it."""
    yield Fact("processor", "model", _model())
    try:
        backend = load_backend("llvm_cpu")
        target = _host(backend)
    except ImportError as error:
        yield Fact("processor", "code", "none", f"llvmlite cannot be loaded: {error}",
                   "pip install --force-reinstall llvmlite", True)
        return
    except ValueError as error:
        yield Fact("processor", "code", "none", str(error),
                   "use an x86-64 or aarch64 machine, or set GRAPHC_BACKEND=interp", True)
        return
    on = {f[1:] for f in target.features if f[0] == "+"}
    yield Fact("processor", "features", " ".join(f for f in TELLING if f in on) or "none of note")
    multiply = ", fused multiply-add" if target.has_fma else ""
    yield Fact("processor", "vectors", f"{target.vector_bits} bits: {target.lanes(float32)} float32, "
                                       f"{target.registers} registers{multiply}")
    yield Fact("processor", "data caches", " ".join(
        f"L{i} {size >> 10} KiB" for i, size in enumerate((target.l1, target.l2, target.l3), 1)))
    yield Fact("processor", "code is loaded", "as a shared library" if link.can_link() else "by LLVM, into memory")


def _host(backend: Backend) -> Target:
    target: Target = backend.target(Options())  # type: ignore[attr-defined]
    return target


def _model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{found[1] if found else platform.processor() or 'unknown'} ({platform.machine()})"


def cache(options: Options) -> Iterator[Fact]:
    """The folder of compiled programs: whether it can be used, and what is in it."""
    folder = options.cache_path
    if folder is None:
        yield Fact("cache", "folder", "memory only", "every process compiles anew", "unset GRAPHC_CACHE_DIR")
        return
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    status = existing.stat()
    mode = stat.S_IMODE(status.st_mode)
    problem = fix = ""
    if not existing.is_dir():
        problem, fix = f"{existing} is not a folder", f"remove {existing}, or set GRAPHC_CACHE_DIR"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem, fix = f"{existing} cannot be written to", "set GRAPHC_CACHE_DIR to a folder of your own"
    elif existing == folder and status.st_uid != os.getuid():
        problem, fix = f"{folder} belongs to another user, so it is not used", f"sudo chown {os.getuid()} {folder}"
    elif existing == folder and mode & 0o077:
        problem, fix = f"others may enter {folder}, so it is not used", f"chmod 700 {folder}"
    yield Fact("cache", "folder", str(folder), problem and f"{problem}: every process compiles anew", fix)
    if existing == folder and not problem:
        entries = Cache(folder).ls()
        yield Fact("cache", "entries", f"{len(entries)}, {sum(e.size for e in entries) / 2**20:.1f} MiB")
        yield Fact("cache", "permissions", f"{mode:03o}")
    elif not problem:
        yield Fact("cache", "entries", "none yet: the folder is made when something is compiled")


def threads(options: Options, group: Path = Path("/sys/fs/cgroup/cpu.max")) -> Iterator[Fact]:
    """How many threads a run uses, and how they wait.  group: where the system says how much CPU time there is."""
    count = options.worker_count
    share = _quota(group)
    problem = fix = ""
    if share is not None and share < count:
        problem = f"this process may use the time of {share:.4g} CPUs, and runs {count} threads"
        fix = f"set GRAPHC_THREADS={max(1, int(share))}"
    yield Fact("threads", "of a run", str(count), problem, fix)
    try:
        waiting = "futex" if Platform.host().futex is not None else "pthread condition"
        yield Fact("threads", "wait by", waiting)
    except NotImplementedError as error:
        yield Fact("threads", "wait by", "nothing", str(error), "use Linux or macOS", True)


def _quota(file: Path) -> float | None:
    try:
        limit, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) / int(period)


def devices(driver: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> Iterator[Fact]:
    """The devices: this CPU, and CUDA's as the driver tells them.  driver: loads a library of the system."""
    yield Fact("devices", "CPU", "used")
    try:
        library = driver("libcuda.so.1")
    except OSError:
        yield Fact("devices", "CUDA", "none: this system has no NVIDIA driver")
        return
    count = ctypes.c_int(0)
    failed = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if failed or not count.value:
        yield Fact("devices", "CUDA", f"none: the driver finds no device (code {failed})")
        return
    names = []
    for number in range(count.value):
        text = ctypes.create_string_buffer(100)
        library.cuDeviceGetName(text, 100, number)
        names.append(text.value.decode(errors="replace"))
    yield Fact("devices", "CUDA", f"{', '.join(names)}: present, not used (programs run on the CPU)")


def trial() -> Iterator[Fact]:
    """A program compiled anew and run."""
    try:
        graph = Graph()
        with graph.as_default(), Session(graph=graph) as session:
            session.options = session.options.replace(cache_dir="", dump_passes=None)
            numbers = np.arange(5, dtype=np.float32)
            x = placeholder(float32, [None])
            result = session.run(multiply(x, x), {x: numbers})
        right = np.array_equal(result, numbers * numbers)
        problem = "" if right else f"a program gave {result.tolist()} for the squares of {numbers.tolist()}"
    except Exception as error:  # whatever it is, it is what the user has to know
        right, problem = False, f"a small program cannot be compiled and run: {error}"
    yield Fact("trial", "compile and run", "works" if right else "fails", problem,
               "report it with this whole output" if not right else "", not right)
