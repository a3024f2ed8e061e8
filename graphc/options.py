"""The one frozen record of everything that changes how a graph is compiled and run.

Owns the options, their defaults and the reader of the GRAPHC_* environment variables; no other module
reads the environment.  Invariant: immutable; what changes the generated code is in `code_key`.
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

BACKENDS = ("llvm_cpu", "numba_cpu", "interp")
CONVOLUTIONS = ("auto", "direct", "winograd2", "winograd4")


@dataclass(frozen=True, slots=True)
class Options:
    """backend: "llvm_cpu", "numba_cpu" or "interp".  target: "host" or a processor name ("x86-64", "x86-64-v2",
    "x86-64-v3", "x86-64-v4", "aarch64").  threads: 0 means all CPUs this process may use.  level: 0 (no optimisation
    passes) to 2.  numerics: "default", "strict" (only rewrites that keep every bit) or "fast" (also rewrites that
    hold for finite values only).  check_numerics: stop at the first NaN or Inf.  cache_dir: None means the user's
    cache folder; "" keeps everything in memory.  dump_passes: folder for one .gir per pass. fold_limit: bytes that
    constant folding may produce per value.  hoist: what depends on variables alone is computed by a program of its own,
    once and again when a variable has changed (sessions ask for it).  convolution: the algorithm of 3 x 3
    convolutions of stride 1: "auto" (the fastest by estimate), "direct", "winograd2" or "winograd4".
    """

    backend: str = "llvm_cpu"
    target: str = "host"
    threads: int = 0
    level: int = 2
    numerics: str = "default"
    check_numerics: bool = False
    cache_dir: str | None = None
    dump_passes: str | None = None
    fold_limit: int = 1 << 20
    hoist: bool = False
    convolution: str = "auto"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown backend {self.backend!r}; known: {', '.join(BACKENDS)}")
        if self.threads < 0:
            raise ValueError(f"threads must be 0 or more, not {self.threads}")
        if self.level not in (0, 1, 2):
            raise ValueError(f"level must be 0, 1 or 2, not {self.level}")
        if self.numerics not in ("default", "strict", "fast"):
            raise ValueError(f"numerics must be 'default', 'strict' or 'fast', not {self.numerics!r}")
        if self.convolution not in CONVOLUTIONS:
            raise ValueError(f"unknown convolution {self.convolution!r}; known: {', '.join(CONVOLUTIONS)}")

    def replace(self, **changes: Any) -> Options:
        """Return a copy with `changes`."""
        return replace(self, **changes)

    @property
    def code_key(self) -> str:
        """The options that generated code depends on, as text."""
        return f"backend={self.backend} target={self.target} level={self.level} numerics={self.numerics} " \
               f"check_numerics={self.check_numerics} fold_limit={self.fold_limit} hoist={self.hoist} " \
               f"convolution={self.convolution}"

    @property
    def worker_count(self) -> int:
        """Threads that a run uses, this one included."""
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or available

    @property
    def cache_path(self) -> Path | None:
        """Folder of the cache, or None for memory only."""
        if self.cache_dir == "":
            return None
        if self.cache_dir is not None:
            return Path(self.cache_dir)
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(base) / "graphc"


def from_environment(environment: Mapping[str, str] | None = None) -> Options:
    """Return the defaults changed by GRAPHC_BACKEND, GRAPHC_TARGET, GRAPHC_THREADS, GRAPHC_LEVEL,
    GRAPHC_NUMERICS, GRAPHC_CHECK_NUMERICS (0 or 1), GRAPHC_CACHE_DIR, GRAPHC_DUMP_PASSES,
    GRAPHC_FOLD_LIMIT and GRAPHC_HOIST (0 or 1).  Raises ValueError naming the variable for a bad value."""
    env = os.environ if environment is None else environment
    changes: dict[str, Any] = {}
    for f in fields(Options):
        text = env.get("GRAPHC_" + f.name.upper())
        if text is None:
            continue
        default = f.default
        try:
            if isinstance(default, bool):
                changes[f.name] = {"0": False, "1": True}[text]
            elif isinstance(default, int):
                changes[f.name] = int(text)
            else:
                changes[f.name] = text
        except (ValueError, KeyError):
            raise ValueError(f"GRAPHC_{f.name.upper()}={text!r} is not a value of {f.name}") from None
    return Options(**changes)


def full_traceback() -> bool:
    """Whether GRAPHC_FULL_TRACEBACK asks for graphc's own frames in errors (any value but 0 and the empty one)."""
    return os.environ.get("GRAPHC_FULL_TRACEBACK", "0") not in ("", "0")
