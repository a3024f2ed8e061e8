"""Compiled kernels of every backend, run as programs: through the driver and, for interp, the walker."""
from __future__ import annotations

import functools

import numpy as np
import pytest

from graphc import dtypes, errors
from graphc.backends.base import CompiledKernels
from graphc.backends.interp import InterpBackend
from graphc.backends.llvm_cpu.codegen import LlvmCpu
from graphc.backends.numba_cpu import NumbaBackend
from graphc.ir import dim
from graphc.kernel.ir import Kernel
from graphc.kernel.plan import Buffer, Call, Plan, Slot
from graphc.options import Options
from graphc.runtime.link import can_link, link
from graphc.runtime.program import Program, load_library_program, load_program, pack, unpack
from graphc.runtime.variables import Variables, shown
from graphc.runtime.walker import executor_for
from tests.backends.harness import Arrays, Sizes, check
from tests.backends.kernels import SAMPLES
from tests.runtime.plans import driver

BACKENDS = {"llvm_cpu": LlvmCpu, "numba_cpu": NumbaBackend, "interp": InterpBackend}
NAMES = ("bias_relu", "softmax", "adam", "columns_f32_max_min_argmax_argmin", "moments", "sum_all", "half_sum_bf16",
         "transpose", "matmul_nn_f32", "dense", "random")
ROLES = {"in": "feed", "out": "fetch", "inout": "state"}


@functools.cache
def compiled(backend: str, name: str) -> CompiledKernels:
    return BACKENDS[backend]().compile([SAMPLES[name].kernel], Options(backend=backend))


def single(kernel: Kernel, sizes: Sizes) -> Plan:
    """The plan that calls `kernel` once: inputs fed, outputs fetched, buffers both read and written states."""
    slots: dict[str, list[Slot]] = {"feed": [], "fetch": [], "state": []}
    buffers, sources = [], []
    for number, p in enumerate(kernel.params):
        role = ROLES[p.role]
        shape = tuple(dim.evaluate(s, sizes) for s in p.shape)
        buffers.append(Buffer(p.dtype, shape, role, len(slots[role])))
        slots[role].append(Slot(p.name, p.dtype, shape))
        if role == "fetch":
            sources.append(number)
    states = len(slots["state"])
    call = Call(0, tuple(range(len(buffers))), tuple(sizes[s] for s in kernel.sizes))
    return Plan((kernel,), tuple(buffers), (call,), tuple(slots["feed"]), tuple(slots["state"]), tuple(slots["fetch"]),
                tuple(sources), (True,) * states, (True,) * states, (), (), (), 0, {})


def execute(program: Program, arrays: Arrays, threads: int) -> int:
    """Run a `single` program on stored arrays, in place.  Returns status 0, or raises the run's error."""
    variables = Variables()
    for slot in program.plan.states:
        variables.declare(slot.name, slot.dtype, tuple(map(int, slot.shape)))  # type: ignore[arg-type]
        variables.view(slot.name)[...] = arrays[slot.name]
        variables.mark(slot.name)
    feeds = [shown(arrays[slot.name], slot.dtype) for slot in program.plan.feeds]
    run = executor_for(program, variables, driver(), threads, poison=True).runner(range(len(feeds)))
    for slot, value in zip(program.plan.fetches, run(*feeds), strict=True):
        stored = dtypes.float32_to_bfloat16(value) if slot.dtype is dtypes.bfloat16 else value
        arrays[slot.name][...] = stored
    for slot in program.plan.states:
        arrays[slot.name][...] = variables.view(slot.name)
    return 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sample_kernels_as_programs(backend: str, name: str) -> None:
    sample = SAMPLES[name]
    code = compiled(backend, name)
    for sizes in sample.sizes:
        def run(kernel: Kernel, arrays: Arrays, values: Sizes) -> int:
            status = 0
            for threads in (1, 3):
                copies = {n: a.copy() for n, a in arrays.items()}
                status = execute(load_program(single(kernel, values), code), copies, threads)
            for n, a in copies.items():
                arrays[n][...] = a
            return status

        check(sample, run, sizes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failing_site_becomes_the_users_error(backend: str) -> None:
    sample = SAMPLES["gather"]
    program = functools.partial(load_program, compiled=compiled(backend, "gather"))
    seen = set()
    for sizes in sample.sizes:
        given = sample.inputs(np.random.default_rng(0), sizes)
        status = sample.reference({n: a.copy() for n, a in given.items()}, sizes).get("status", 0)
        shapes = {p.name: tuple(dim.evaluate(s, sizes) for s in p.shape) for p in sample.kernel.params}
        arrays = {p.name: given.get(p.name, np.empty(shapes[p.name], p.dtype.storage)) for p in sample.kernel.params}
        seen.add(status)
        if status:
            with pytest.raises(errors.InvalidArgumentError) as caught:
                execute(program(single(sample.kernel, sizes)), arrays, 3)
            site = sample.kernel.sites[status - 1]
            assert caught.value.message == site.message and caught.value.op == site.op
        else:
            execute(program(single(sample.kernel, sizes)), arrays, 3)
    assert len(seen) > 1


@pytest.mark.skipif(not can_link(), reason="links for Linux on x86-64")
def test_a_program_survives_being_packed() -> None:
    sample, code = SAMPLES["softmax"], compiled("llvm_cpu", "softmax")
    sizes = sample.sizes[-1]
    plan = single(sample.kernel, sizes)
    packed = pack(plan, code.infos, link(code.objects, [code.infos[0].symbol], "softmax.so", imports=()))
    again, infos, library = unpack(packed)
    assert again.kernels[0].body == () and infos == code.infos and pack(again, infos, library) == packed

    def run(kernel: Kernel, arrays: Arrays, values: Sizes) -> int:
        return execute(load_library_program(again, infos, library), arrays, 2)

    check(sample, run, sizes)
    for bad in (packed[:-1], packed + b"x"):
        with pytest.raises(ValueError):
            unpack(bad)
