"""The step driver in this process: compiled once per machine, loaded once per process.

Owns the compilation of the runtime's own LLVM text and the functions it gives to Python.  Knows nothing
of plans.  Invariant: llvmlite is imported only where the driver is not in the cache or cannot be loaded
without LLVM.
"""
from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.runtime import link
from graphc.runtime.cache import Cache, digest, versions
from graphc.runtime.driver import IMPORTS, SYMBOLS, driver_text
from graphc.runtime.threads import Pools
from graphc.runtime.waiting import Platform

_NOTE = {"what": "step driver"}


@dataclass(frozen=True, slots=True)
class Native:
    """The driver's functions.

    run: (frame address, resume 0 or 1) -> event, with the GIL released.  enter: makes, for a frame's
    address, a function without arguments that does run(address, 0) at less than half of ctypes' cost.
    """

    run: Callable[[int, int], int]
    enter: Callable[[int], Callable[[], int]]
    pools: Pools
    way: str
    owner: Any


def compile_object(text: str, name: str, triple: str = "") -> bytes:
    """Return LLVM IR `text` as an object file for any model of the machines that `triple` names; of this kind if ""."""
    import llvmlite.binding as llvm

    if triple:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    else:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    found = llvm.Target.from_triple(triple) if triple else llvm.Target.from_default_triple()
    machine = found.create_target_machine(
        cpu="", features="", opt=1, reloc="pic", codemodel="default")
    module = llvm.parse_assembly(text)
    module.name = name
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    # The text is written as it is to run: the full pipeline takes 40 ms of a first start and saves a step nothing.
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1)))
    return bytes(machine.emit_object(module))


def load_native(store: Cache, delay: str = "", where: Platform | None = None, imports: Sequence[str] = ()) -> Native:
    """Return the driver, from `store` where it is there.  delay (pool.pool_text), where and imports, the
    further functions that the delays call, are for tests."""
    text = driver_text(where or Platform.host(), delay)
    if link.can_link():
        image = _library(text, store, imports=imports)
        try:
            return _native(link.load_library(image, SYMBOLS))
        except OSError:  # the system refuses memory files: LLVM maps memory itself
            pass
    code = store.obtain("driver", digest(text, versions()) + "-object", lambda: compile_object(text, "driver"), _NOTE)
    return _native(link.load_with_llvm([code], SYMBOLS))


def driver_id() -> str:
    """Return a digest of the driver for Linux on x86-64: its layout of frames and tables, which Python fills in."""
    return digest(driver_text(Platform.of("linux", "x86_64")))


def driver_library(store: Cache) -> bytes:
    """Return the driver for Linux on x86-64 as a shared library, from `store` where it is there."""
    text = driver_text(Platform.of("linux", "x86_64"))
    return _library(text, store, "" if link.can_link() else "x86_64-unknown-linux-gnu")


def _library(text: str, store: Cache, triple: str = "", imports: Sequence[str] = ()) -> bytes:
    """The shared library of a driver's text."""
    key = digest(text, versions(), triple)
    return store.obtain("driver", key, lambda: link.link(
        [compile_object(text, "driver", triple)], SYMBOLS, f"graphc-driver-{key[:16]}.so", (*IMPORTS, *imports)), _NOTE)


_lock = threading.Lock()
_loaded: Native | None = None


def native(store: Cache) -> Native:
    """Return this process's driver; the first call loads it, from `store` where it is there."""
    return _once(lambda: load_native(store))


def native_from(image: bytes) -> Native:
    """Return this process's driver; the first call loads it from a shared library that `driver_library` made with the
    `driver_id` of this process.  Raises OSError where the system refuses it."""
    return _once(lambda: _native(link.load_library(image, SYMBOLS)))


def _once(load: Callable[[], Native]) -> Native:
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = load()
    return _loaded


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef (stable ABI)."""

    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


_METH_NOARGS = 4
_definitions: list[Any] = []  # the interpreter keeps pointers to them for ever


def _native(code: link.Loaded) -> Native:
    at = code.addresses
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    run = ctypes.CFUNCTYPE(integer, pointer, integer)(at["graphc_run"])
    new = ctypes.CFUNCTYPE(pointer, ctypes.c_int, integer, integer, ctypes.c_int)(at["graphc_pool_new"])
    forget = ctypes.CFUNCTYPE(None, pointer)(at["graphc_pool_forget"])
    stop = ctypes.CFUNCTYPE(None, pointer)(at["graphc_pool_stop"])
    return Native(run, _enter(at, run), Pools(new, forget, stop), code.way, code.owner)


def _enter(at: dict[str, int], run: Callable[[int, int], int]) -> Callable[[int], Callable[[], int]]:
    """Return the maker of entry functions: through the interpreter's stable C API where there is one."""
    api = getattr(ctypes, "pythonapi", None)
    names = ("PyLong_AsVoidPtr", "PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_FromLongLong")
    if api is None or not all(hasattr(api, name) for name in (*names, "PyCFunction_NewEx")):
        return lambda frame: lambda: run(frame, 0)
    functions = [ctypes.cast(getattr(api, name), ctypes.c_void_p).value for name in names]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(at["graphc_python"])(*functions)
    definition = _MethodDef(b"run", at["graphc_enter"], _METH_NOARGS, b"Run the step table once.")
    _definitions.append(definition)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCFunction_NewEx", api))
    where = ctypes.addressof(definition)
    return lambda frame: make(where, frame, None)


